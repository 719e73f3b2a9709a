//! Owns the order in which connections with work are visited: two lines, interactive and bulk, each
//! connection in at most one of them and once. It never does the work and reads no clock.
//!
//! 1. Whoever spent much of its quantum in its last visit is bulk and stands in the second line, all
//!    others in the first, whatever brought them there: an event, a wake-up, a timer.
//! 2. A pass visits those that stand in line at its start: the interactive ones first, until
//!    [`PASS_MICROS`] have gone; then bulk ones, at least one, until [`BULK_MICROS`] have gone with
//!    them or [`PASS_MICROS`] altogether.
//!
//! Invariant: each line is first in, first out, and every pass serves the head of each line that is not
//! empty. So whoever stands in a line with `n` others is served within `n + 1` passes; between two
//! services of an interactive connection lies at most one bulk visit per pass and what fits into
//! [`BULK_MICROS`]. Ids of closed connections are dropped on the way.

use super::source::ConnId;
use std::collections::VecDeque;

/// Microseconds after which a pass makes way for events.
pub(super) const PASS_MICROS: u64 = 8_000;
/// Microseconds of a pass that bulk connections share: a full quantum. Looking for events in between
/// costs a few microseconds, and it is what lets a small request past the large ones.
pub(super) const BULK_MICROS: u64 = 2_000;

/// The two lines.
#[derive(Debug, Default)]
pub(super) struct Ready {
    interactive: Line,
    bulk: Line,
    /// By slot: its owner's generation and what is known about it.
    marks: Vec<Option<Mark>>,
}

#[derive(Debug, Default)]
struct Line {
    queue: VecDeque<ConnId>,
    /// Entries of closed connections that are still in the queue.
    stale: usize,
    longest: usize,
}

/// How much of its quantum a connection used in its last visit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Load {
    #[default]
    Interactive,
    Bulk,
}

#[derive(Debug, Clone, Copy)]
struct Mark {
    generation: u32,
    queued: Option<Load>,
    load: Load,
    woken: bool,
}

/// Connections that stand in each line, and the most that ever did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Lengths {
    pub(super) interactive: usize,
    pub(super) bulk: usize,
    pub(super) interactive_longest: usize,
    pub(super) bulk_longest: usize,
}

impl Line {
    fn len(&self) -> usize {
        self.queue.len() - self.stale
    }

    fn push(&mut self, id: ConnId) {
        self.queue.push_back(id);
        self.longest = self.longest.max(self.len());
    }
}

impl Ready {
    /// Makes a new connection known.
    pub(super) fn open(&mut self, id: ConnId) {
        let index = id.index as usize;
        if self.marks.len() <= index {
            self.marks.resize(index + 1, None);
        }
        self.marks[index] = Some(Mark {
            generation: id.generation,
            queued: None,
            load: Load::Interactive,
            woken: false,
        });
    }

    /// Forgets a connection.
    pub(super) fn close(&mut self, id: ConnId) {
        if let Some(mark) = self.mark(id) {
            let queued = mark.queued;
            if let Some(load) = queued {
                self.line(load).stale += 1;
            }
            self.marks[id.index as usize] = None;
        }
    }

    /// Appends a connection to its line, unless it stands in one already or is gone.
    pub(super) fn push(&mut self, id: ConnId) {
        if let Some(mark) = self.mark(id)
            && mark.queued.is_none()
        {
            let load = mark.load;
            mark.queued = Some(load);
            self.line(load).push(id);
        }
    }

    /// Appends a connection whose machine has to be asked for work.
    pub(super) fn wake(&mut self, id: ConnId) {
        if let Some(mark) = self.mark(id) {
            mark.woken = true;
            self.push(id);
        }
    }

    /// Notes what the last visit showed; it decides on the line from the next time on.
    pub(super) fn note(&mut self, id: ConnId, load: Load) {
        if let Some(mark) = self.mark(id) {
            mark.load = load;
        }
    }

    /// Connections in both lines.
    pub(super) fn len(&self) -> usize {
        self.interactive.len() + self.bulk.len()
    }

    pub(super) fn lengths(&self) -> Lengths {
        Lengths {
            interactive: self.interactive.len(),
            bulk: self.bulk.len(),
            interactive_longest: self.interactive.longest,
            bulk_longest: self.bulk.longest,
        }
    }

    /// The next of a line, and whether it was woken.
    fn pop(&mut self, load: Load) -> Option<(ConnId, bool)> {
        while let Some(id) = self.line(load).queue.pop_front() {
            // A slot's next owner may stand in a line too: the mark must be of this very entry.
            if let Some(mark) = self.mark(id) {
                mark.queued = None;
                return Some((id, std::mem::take(&mut mark.woken)));
            }
            self.line(load).stale -= 1;
        }
        None
    }

    fn line(&mut self, load: Load) -> &mut Line {
        match load {
            Load::Interactive => &mut self.interactive,
            Load::Bulk => &mut self.bulk,
        }
    }

    fn mark(&mut self, id: ConnId) -> Option<&mut Mark> {
        self.marks
            .get_mut(id.index as usize)?
            .as_mut()
            .filter(|mark| mark.generation == id.generation)
    }
}

/// One pass over the two lines.
#[derive(Debug)]
pub(super) struct Pass {
    interactive_left: usize,
    bulk_left: usize,
    /// When the first bulk visit began.
    bulk_since: Option<u64>,
}

impl Pass {
    /// A pass over those that stand in line now.
    pub(super) fn begin(ready: &Ready) -> Pass {
        Pass {
            interactive_left: ready.interactive.len(),
            bulk_left: ready.bulk.len(),
            bulk_since: None,
        }
    }

    /// Who is visited next, `elapsed` microseconds after the begin of the pass; `None` when it is over.
    pub(super) fn next(&mut self, ready: &mut Ready, elapsed: u64) -> Option<(ConnId, bool)> {
        let is_first = self.bulk_since.is_none();
        if is_first && self.interactive_left > 0 && elapsed < PASS_MICROS {
            self.interactive_left -= 1;
            let next = ready.pop(Load::Interactive);
            if next.is_some() {
                return next;
            }
            self.interactive_left = 0;
        }
        let since = *self.bulk_since.get_or_insert(elapsed);
        let has_time = elapsed < PASS_MICROS && elapsed.saturating_sub(since) < BULK_MICROS;
        if self.bulk_left == 0 || !(is_first || has_time) {
            return None;
        }
        self.bulk_left -= 1;
        ready.pop(Load::Bulk)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(index: u32, generation: u32) -> ConnId {
        ConnId { index, generation }
    }

    fn pop(ready: &mut Ready) -> Option<(ConnId, bool)> {
        ready.pop(Load::Interactive)
    }

    #[test]
    fn connections_come_out_in_order_once_and_know_whether_they_were_woken() {
        let mut ready = Ready::default();
        (0..3).for_each(|index| ready.open(id(index, index)));
        ready.push(id(1, 1));
        ready.push(id(0, 0));
        ready.wake(id(1, 1));
        assert_eq!(ready.len(), 2);
        assert_eq!(pop(&mut ready), Some((id(1, 1), true)));
        ready.push(id(1, 1));
        assert_eq!(pop(&mut ready), Some((id(0, 0), false)));
        assert_eq!(
            pop(&mut ready),
            Some((id(1, 1), false)),
            "the wake-up was delivered once"
        );
        assert_eq!(pop(&mut ready), None);
    }

    #[test]
    fn a_closed_connection_leaves_nothing_for_the_next_owner_of_its_slot() {
        let mut ready = Ready::default();
        ready.open(id(0, 0));
        ready.wake(id(0, 0));
        ready.close(id(0, 0));
        ready.wake(id(0, 0));
        assert_eq!(ready.len(), 0);
        ready.open(id(0, 1));
        ready.push(id(0, 1));
        assert_eq!(ready.len(), 1);
        assert_eq!(pop(&mut ready), Some((id(0, 1), false)));
        assert_eq!(pop(&mut ready), None);
        ready.note(id(0, 1), Load::Bulk);
        ready.push(id(0, 1));
        ready.close(id(0, 1));
        ready.open(id(0, 2));
        assert_eq!(ready.lengths().bulk, 0);
        ready.push(id(0, 2));
        let lengths = ready.lengths();
        assert_eq!((lengths.interactive, lengths.bulk), (1, 0), "its load is not inherited");
    }

    #[test]
    fn a_pass_takes_the_interactive_ones_first_and_always_one_bulk_one() {
        let mut ready = Ready::default();
        (0..6).for_each(|index| ready.open(id(index, 0)));
        (3..6).for_each(|index| ready.note(id(index, 0), Load::Bulk));
        [4, 0, 5, 1, 3, 2].iter().for_each(|&index| ready.push(id(index, 0)));
        let mut order = |costs: u64| {
            let (mut pass, mut elapsed, mut order) = (Pass::begin(&ready), 0, Vec::new());
            while let Some((id, _)) = pass.next(&mut ready, elapsed) {
                elapsed += costs;
                order.push(id.index);
                ready.push(id);
            }
            order
        };
        assert_eq!(order(10), [0, 1, 2, 4, 5, 3], "time for all");
        assert_eq!(order(2_000), [0, 1, 2, 4], "8 ms are over with the first bulk one");
        assert_eq!(order(20_000), [0, 5], "one of each in any case");
        assert_eq!(order(700), [1, 2, 0, 3, 4, 5], "bulk ones share what is left");
        assert_eq!(order(1_000), [1, 2, 0, 3, 4], "but no more than that");
    }

    /// The shape of the load that the two lines are for: 1,000 small ones that always have something
    /// again, beside 4 that always have more. Nobody waits longer than the invariant says, in visits.
    #[test]
    fn nobody_starves_beside_whoever_always_has_more() {
        const SMALL: u32 = 1_000;
        const ALL: u32 = SMALL + 4;
        let (small_micros, bulk_micros) = (40, 2_000);
        let mut ready = Ready::default();
        (0..ALL).for_each(|index| {
            ready.open(id(index, 0));
            ready.push(id(index, 0));
        });
        let (mut visits, mut served) = (0u64, vec![0u64; ALL as usize]);
        let mut gaps = [0u64; 2];
        let mut counts = vec![0u64; ALL as usize];
        for _ in 0..5_000 {
            let (mut pass, mut elapsed) = (Pass::begin(&ready), 0);
            let (mut interactive, mut bulk) = (0, 0);
            while let Some((id, _)) = pass.next(&mut ready, elapsed) {
                let (slot, is_bulk) = (id.index as usize, id.index >= SMALL);
                visits += 1;
                gaps[usize::from(is_bulk)] = gaps[usize::from(is_bulk)].max(visits - served[slot]);
                served[slot] = visits;
                counts[slot] += 1;
                elapsed += if is_bulk { bulk_micros } else { small_micros };
                *(if is_bulk && visits > u64::from(ALL) {
                    &mut bulk
                } else {
                    &mut interactive
                }) += 1;
                ready.note(id, if is_bulk { Load::Bulk } else { Load::Interactive });
                ready.push(id);
            }
            assert!(elapsed <= PASS_MICROS + bulk_micros, "a pass of {elapsed} µs");
            assert!(bulk <= BULK_MICROS / bulk_micros, "{bulk} bulk visits in a pass");
            assert!(interactive + bulk > 0);
        }
        // 200 small ones fit into a pass, with one bulk visit after them.
        assert!(
            gaps[0] <= u64::from(ALL) + 8,
            "{} visits between two of a small one",
            gaps[0]
        );
        assert!(
            gaps[1] <= 5 * 201 + u64::from(ALL),
            "{} visits between two of a bulk one",
            gaps[1]
        );
        let (least, most) = (
            counts.iter().min().unwrap(),
            counts[..SMALL as usize].iter().max().unwrap(),
        );
        assert!(*least >= 900, "somebody was visited only {least} times");
        assert!(
            most - counts[..SMALL as usize].iter().min().unwrap() <= 1,
            "turns are equal"
        );
        let lengths = ready.lengths();
        assert_eq!((lengths.interactive, lengths.bulk), (SMALL as usize, 4));
        assert_eq!(lengths.bulk_longest, 4);
    }
}
