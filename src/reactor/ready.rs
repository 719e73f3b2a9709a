//! Owns the order in which connections with work are visited: a FIFO, each connection in it at most
//! once. It never does the work.
//!
//! Invariant: whoever is pushed is popped exactly once, after everyone who was pushed before;
//! ids of closed connections are dropped on the way.

use super::source::ConnId;
use std::collections::VecDeque;

#[derive(Debug, Default)]
pub(super) struct Ready {
    queue: VecDeque<ConnId>,
    /// By slot: its owner's generation and what is known about it.
    marks: Vec<Option<Mark>>,
    /// Entries of closed connections that are still in the queue.
    stale: usize,
}

#[derive(Debug, Clone, Copy)]
struct Mark {
    generation: u32,
    queued: bool,
    woken: bool,
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
            queued: false,
            woken: false,
        });
    }

    /// Forgets a connection.
    pub(super) fn close(&mut self, id: ConnId) {
        if let Some(mark) = self.mark(id) {
            let queued = mark.queued;
            self.stale += usize::from(queued);
            self.marks[id.index as usize] = None;
        }
    }

    /// Appends a connection, unless it waits already or is gone.
    pub(super) fn push(&mut self, id: ConnId) {
        if let Some(mark) = self.mark(id)
            && !mark.queued
        {
            mark.queued = true;
            self.queue.push_back(id);
        }
    }

    /// Appends a connection whose machine has to be asked for work.
    pub(super) fn wake(&mut self, id: ConnId) {
        if let Some(mark) = self.mark(id) {
            mark.woken = true;
            self.push(id);
        }
    }

    /// The next connection, and whether it was woken.
    pub(super) fn pop(&mut self) -> Option<(ConnId, bool)> {
        while let Some(id) = self.queue.pop_front() {
            if let Some(mark) = self.mark(id) {
                mark.queued = false;
                return Some((id, std::mem::take(&mut mark.woken)));
            }
            self.stale -= 1;
        }
        None
    }

    /// Connections in the queue.
    pub(super) fn len(&self) -> usize {
        self.queue.len() - self.stale
    }

    fn mark(&mut self, id: ConnId) -> Option<&mut Mark> {
        self.marks
            .get_mut(id.index as usize)?
            .as_mut()
            .filter(|mark| mark.generation == id.generation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(index: u32, generation: u32) -> ConnId {
        ConnId { index, generation }
    }

    #[test]
    fn connections_come_out_in_order_once_and_know_whether_they_were_woken() {
        let mut ready = Ready::default();
        (0..3).for_each(|index| ready.open(id(index, index)));
        ready.push(id(1, 1));
        ready.push(id(0, 0));
        ready.wake(id(1, 1));
        assert_eq!(ready.len(), 2);
        assert_eq!(ready.pop(), Some((id(1, 1), true)));
        ready.push(id(1, 1));
        assert_eq!(ready.pop(), Some((id(0, 0), false)));
        assert_eq!(ready.pop(), Some((id(1, 1), false)), "the wake-up was delivered once");
        assert_eq!(ready.pop(), None);
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
        assert_eq!(ready.pop(), Some((id(0, 1), false)));
        assert_eq!(ready.pop(), None);
    }
}
