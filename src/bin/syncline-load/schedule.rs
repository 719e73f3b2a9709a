//! Owns when syncs are meant to begin. It never waits and never looks at a clock.
//!
//! Open loop (with a rate): sync number n is meant to begin n/rate after the start, whether or not the ones
//! before are through; latencies are counted from there. So a server that stalls is charged for all who would
//! have come meanwhile (coordinated omission does not happen). Closed loop (without): a client begins as soon
//! as it is through with the one before.
//! Invariant: no more syncs are given out than the bounds allow, and none is meant to begin after the end.

use crate::scenario::Bounds;

/// A sync that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Arrival {
    /// When it is meant to begin, in microseconds.
    pub(crate) at: u64,
    /// Which of the workers makes it.
    pub(crate) worker: u64,
}

/// Gives out syncs, within bounds.
pub(crate) struct Schedule {
    /// Microseconds between two; `None`: closed loop.
    interval: Option<f64>,
    workers: u64,
    start: u64,
    end: u64,
    count: u64,
    given: u64,
}

impl Schedule {
    /// From `start` on, in microseconds; `rate` is in syncs a second over all `workers`.
    pub(crate) fn new(rate: Option<f64>, workers: u64, start: u64, bounds: &Bounds) -> Schedule {
        let duration = u64::try_from(bounds.duration.as_micros()).unwrap_or(u64::MAX);
        Schedule {
            interval: rate.map(|rate| 1e6 / rate),
            workers: workers.max(1),
            start,
            end: start.saturating_add(duration),
            count: bounds.count,
            given: 0,
        }
    }

    /// When the next one is due; `None` in a closed loop and after the last.
    pub(crate) fn next_due(&self) -> Option<u64> {
        let at = self.start + (self.interval? * self.given as f64) as u64;
        (self.given < self.count && at < self.end).then_some(at)
    }

    /// Open loop: the next sync, if it is due.
    pub(crate) fn pop_due(&mut self, now: u64) -> Option<Arrival> {
        let at = self.next_due().filter(|&at| at <= now)?;
        let worker = self.given % self.workers;
        self.given += 1;
        Some(Arrival { at, worker })
    }

    /// Closed loop: whether another may begin now.
    pub(crate) fn take(&mut self, now: u64) -> bool {
        let may = self.interval.is_none() && self.given < self.count && now < self.end;
        self.given += u64::from(may);
        may
    }

    /// Whether nothing more will begin.
    pub(crate) fn is_over(&self, now: u64) -> bool {
        match self.interval {
            Some(_) => self.next_due().is_none(),
            None => self.given >= self.count || now >= self.end,
        }
    }

    /// Nothing more begins.
    pub(crate) fn stop(&mut self) {
        self.count = self.given;
    }

    /// When the time is up, in microseconds.
    pub(crate) fn end(&self) -> u64 {
        self.end
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn bounds(count: u64, seconds: u64) -> Bounds {
        Bounds {
            count,
            duration: Duration::from_secs(seconds),
            with_giant: false,
        }
    }

    // Protects the open loop: who asks late gets all that were due, with the times that they were due at.
    #[test]
    fn syncs_are_due_by_the_clock_however_late_one_asks() {
        let mut schedule = Schedule::new(Some(1_000.0), 3, 5_000, &bounds(100, 10));
        assert_eq!(schedule.pop_due(4_999), None);
        let late: Vec<Arrival> = std::iter::from_fn(|| schedule.pop_due(9_000)).collect();
        let times: Vec<(u64, u64)> = late.iter().map(|arrival| (arrival.at, arrival.worker)).collect();
        assert_eq!(times, [(5_000, 0), (6_000, 1), (7_000, 2), (8_000, 0), (9_000, 1)]);
        assert_eq!(schedule.next_due(), Some(10_000));
        assert!(!schedule.take(9_000), "nobody begins out of turn");
        let rest = std::iter::from_fn(|| schedule.pop_due(u64::MAX)).count();
        assert_eq!(rest, 95);
        assert!(schedule.is_over(0));
    }

    // Protects the end of a run, by time and by count, in both loops.
    #[test]
    fn nothing_begins_after_the_end() {
        let mut schedule = Schedule::new(Some(10.0), 3, 0, &bounds(1_000, 2));
        let all: Vec<u64> = std::iter::from_fn(|| schedule.pop_due(u64::MAX))
            .map(|due| due.at)
            .collect();
        assert_eq!((all.len(), all.last()), (20, Some(&1_900_000)));

        let mut schedule = Schedule::new(None, 3, 0, &bounds(2, 2));
        assert_eq!((schedule.next_due(), schedule.pop_due(1)), (None, None));
        assert_eq!([1, 1, 1].map(|now| schedule.take(now)), [true, true, false]);
        assert!(schedule.is_over(1));
        let mut schedule = Schedule::new(None, 3, 0, &bounds(2, 2));
        assert!(schedule.take(1_999_999) && !schedule.take(2_000_000) && schedule.is_over(2_000_000));
        let mut schedule = Schedule::new(None, 3, 0, &bounds(9, 2));
        schedule.stop();
        assert!(schedule.is_over(0) && !schedule.take(0));
    }
}
