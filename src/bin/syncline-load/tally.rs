//! Owns what a run came to: counts, distributions, errors by kind, a row for each second. It never judges.
//!
//! Invariant: bounded memory, however long the run and however odd the errors.

use crate::histogram::Histogram;
use crate::scenario::Work;
use std::collections::BTreeMap;

/// Kinds of errors that are told apart; all others are one.
const KINDS_MAX: usize = 64;
/// Seconds that get a row of their own.
const SECONDS_MAX: usize = 24 * 3600;

/// One second of the run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Second {
    /// Syncs that ended well.
    pub(crate) done: u64,
    /// Syncs that failed.
    pub(crate) failed: u64,
    /// The longest latency among them, in microseconds.
    pub(crate) slowest_micros: u64,
}

/// A sync that ended well, for the books. Times in microseconds.
pub(crate) struct Done {
    pub(crate) work: Work,
    /// When it was meant to begin.
    pub(crate) intended: u64,
    /// When it began.
    pub(crate) begun: u64,
    pub(crate) ended: u64,
    pub(crate) sent: u64,
    pub(crate) received: u64,
}

/// What became of a giant.
#[derive(Debug, Clone, Default)]
pub(crate) struct Giant {
    pub(crate) what: &'static str,
    pub(crate) bytes: u64,
    pub(crate) syncs: u64,
    pub(crate) micros: u64,
    pub(crate) wire_bytes: u64,
}

/// The books of a run.
pub(crate) struct Tally {
    /// From the intended start.
    pub(crate) latency: Histogram,
    /// From the actual start.
    pub(crate) service: Histogram,
    /// From connect until the share was open.
    pub(crate) connect: Histogram,
    pub(crate) works: BTreeMap<Work, u64>,
    pub(crate) failed: u64,
    pub(crate) setup_failed: u64,
    /// Refusals that may pass and were tried again.
    pub(crate) busy: u64,
    /// Times that a client was told its place in the server's line.
    pub(crate) queued: u64,
    /// Connections that behaved badly and were ended by the server.
    pub(crate) cut: u64,
    pub(crate) errors: BTreeMap<String, u64>,
    pub(crate) cuts: BTreeMap<String, u64>,
    /// Bytes of the syncs that ended well.
    pub(crate) sync_sent: u64,
    pub(crate) sync_received: u64,
    /// Bytes of all connections.
    pub(crate) sent: u64,
    pub(crate) received: u64,
    pub(crate) open: u64,
    pub(crate) peak_open: u64,
    pub(crate) opened: u64,
    pub(crate) attempts: u64,
    pub(crate) giants: Vec<Giant>,
    /// When the run began, its first sync, and the end of its last. Microseconds.
    pub(crate) start: u64,
    pub(crate) first: Option<u64>,
    pub(crate) last: u64,
    pub(crate) seconds: Vec<Second>,
}

impl Tally {
    pub(crate) fn new() -> Tally {
        Tally {
            latency: Histogram::new(),
            service: Histogram::new(),
            connect: Histogram::new(),
            works: BTreeMap::new(),
            failed: 0,
            setup_failed: 0,
            busy: 0,
            queued: 0,
            cut: 0,
            errors: BTreeMap::new(),
            cuts: BTreeMap::new(),
            sync_sent: 0,
            sync_received: 0,
            sent: 0,
            received: 0,
            open: 0,
            peak_open: 0,
            opened: 0,
            attempts: 0,
            giants: Vec::new(),
            start: 0,
            first: None,
            last: 0,
            seconds: Vec::new(),
        }
    }

    /// A sync ended well.
    pub(crate) fn done(&mut self, done: &Done) {
        let latency = done.ended.saturating_sub(done.intended);
        self.latency.record(latency);
        self.service.record(done.ended.saturating_sub(done.begun));
        *self.works.entry(done.work).or_default() += 1;
        self.sync_sent += done.sent;
        self.sync_received += done.received;
        self.first.get_or_insert(done.begun);
        self.first = self.first.min(Some(done.begun));
        self.last = self.last.max(done.ended);
        let row = self.second(done.ended);
        row.done += 1;
        row.slowest_micros = row.slowest_micros.max(latency);
    }

    /// A sync failed.
    pub(crate) fn failed(&mut self, now: u64, kind: &str) {
        self.failed += 1;
        self.second(now).failed += 1;
        count(&mut self.errors, kind);
    }

    /// What was to be done before the run failed.
    pub(crate) fn setup_failed(&mut self, kind: &str) {
        self.setup_failed += 1;
        count(&mut self.errors, kind);
    }

    /// The server ended a connection that behaved badly.
    pub(crate) fn cut(&mut self, kind: &str) {
        self.cut += 1;
        count(&mut self.cuts, kind);
    }

    /// A share is open.
    pub(crate) fn opened(&mut self, micros: u64) {
        self.connect.record(micros);
        self.opened += 1;
    }

    /// One more connection stands.
    pub(crate) fn connected(&mut self) {
        self.open += 1;
        self.peak_open = self.peak_open.max(self.open);
    }

    /// Microseconds from the start of the run, or its first sync if that was earlier, to the end of the last.
    pub(crate) fn elapsed_micros(&self) -> u64 {
        self.last.saturating_sub(self.start)
    }

    /// Syncs that ended well.
    pub(crate) fn syncs(&self) -> u64 {
        self.latency.count()
    }

    fn second(&mut self, now: u64) -> &mut Second {
        let index = (now.saturating_sub(self.start) / 1_000_000) as usize;
        let index = index.min(SECONDS_MAX - 1);
        if self.seconds.len() <= index {
            self.seconds.resize(index + 1, Second::default());
        }
        &mut self.seconds[index]
    }
}

fn count(kinds: &mut BTreeMap<String, u64>, kind: &str) {
    let known = kinds.len() < KINDS_MAX || kinds.contains_key(kind);
    let kind = if known { kind } else { "others" };
    *kinds.entry(kind.to_owned()).or_default() += 1;
}

#[cfg(test)]
mod tests {
    use super::*;

    // Protects the correction for coordinated omission: latency counts from the schedule, service does not.
    #[test]
    fn latency_is_counted_from_the_intended_start() {
        let mut tally = Tally::new();
        tally.start = 1_000_000;
        tally.done(&Done {
            work: Work::Delta,
            intended: 1_000_000,
            begun: 1_400_000,
            ended: 2_400_100,
            sent: 10,
            received: 20,
        });
        assert_eq!(tally.latency.max().as_micros(), 1_400_100);
        assert_eq!(tally.service.max().as_micros(), 1_000_100);
        assert_eq!(tally.seconds.len(), 2);
        assert_eq!((tally.seconds[1].done, tally.elapsed_micros()), (1, 1_400_100));
    }

    // Protects memory: a server that says something new each time does not fill it.
    #[test]
    fn kinds_of_errors_are_bounded() {
        let mut tally = Tally::new();
        (0..1_000).for_each(|n| tally.failed(0, &n.to_string()));
        assert_eq!(tally.errors.len(), KINDS_MAX + 1);
        assert_eq!(tally.errors.values().sum::<u64>(), 1_000);
        tally.failed(u64::MAX, "late");
        assert!(tally.seconds.len() <= SECONDS_MAX);
    }
}
