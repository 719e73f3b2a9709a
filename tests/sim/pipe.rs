//! One direction of a connection: a queue of bytes that may be cut after so many were delivered.

use std::collections::VecDeque;

pub(crate) struct Pipe {
    queue: VecDeque<u8>,
    delivered: u64,
    cut_after: Option<u64>,
    /// Most bytes that ever waited.
    pub(crate) peak: usize,
}

impl Pipe {
    pub(crate) fn new(cut_after: Option<u64>) -> Pipe {
        Pipe {
            queue: VecDeque::new(),
            delivered: 0,
            cut_after,
            peak: 0,
        }
    }

    pub(crate) fn send(&mut self, bytes: Vec<u8>) {
        self.queue.extend(bytes);
        self.peak = self.peak.max(self.queue.len());
    }

    pub(crate) fn len(&self) -> usize {
        self.queue.len()
    }

    pub(crate) fn delivered(&self) -> u64 {
        self.delivered
    }

    /// Takes up to `length` bytes, in order, and none beyond the cut.
    pub(crate) fn receive(&mut self, length: usize) -> Vec<u8> {
        let left = self.cut_after.map_or(u64::MAX, |cut| cut - self.delivered);
        let length = length
            .min(self.queue.len())
            .min(usize::try_from(left).unwrap_or(usize::MAX));
        self.delivered += length as u64;
        self.queue.drain(..length).collect()
    }

    /// All bytes up to the cut were delivered.
    pub(crate) fn is_cut(&self) -> bool {
        self.cut_after == Some(self.delivered)
    }
}
