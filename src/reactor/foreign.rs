//! Owns the descriptors of the host that the loop waits for, such as watches of folders: who is ready, and whose
//! turn it is. It never reads them and never closes them.
//!
//! Invariant: what became readable stays in the line until the host says that it is drained, and is visited in
//! turns with the others; a pass ends with its slice of time and visits each at most once.

use super::handler::{Activity, Handler};
use super::source::{FOREIGN_MAX, Source};
use super::turn::{Reactor, Slice};
use mio::Interest;
use mio::unix::SourceFd;
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};

/// Descriptors by slot, and the line of those that are ready.
#[derive(Debug, Default)]
pub(super) struct Foreign {
    slots: Vec<Option<Slot>>,
    line: VecDeque<usize>,
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    key: u64,
    descriptor: RawFd,
    is_queued: bool,
}

impl Foreign {
    /// Something arrived.
    pub(super) fn note(&mut self, index: usize) {
        // An event of a slot that has a new owner costs that one a visit for nothing.
        if let Some(Some(slot)) = self.slots.get_mut(index)
            && !std::mem::replace(&mut slot.is_queued, true)
        {
            self.line.push_back(index);
        }
    }

    pub(super) fn wake(&mut self, key: u64) {
        if let Some(index) = self.find(key) {
            self.note(index);
        }
    }

    pub(super) fn has_work(&self) -> bool {
        !self.line.is_empty()
    }

    fn find(&self, key: u64) -> Option<usize> {
        self.slots
            .iter()
            .position(|slot| slot.is_some_and(|slot| slot.key == key))
    }

    /// The next in line.
    fn pop(&mut self) -> Option<(usize, u64)> {
        while let Some(index) = self.line.pop_front() {
            if let Some(Some(slot)) = self.slots.get_mut(index) {
                slot.is_queued = false;
                return Some((index, slot.key));
            }
        }
        None
    }

    fn vacant(&mut self) -> io::Result<usize> {
        match self.slots.iter().position(Option::is_none) {
            Some(index) => Ok(index),
            None if self.slots.len() < FOREIGN_MAX => {
                self.slots.push(None);
                Ok(self.slots.len() - 1)
            }
            None => Err(io::Error::other("too many watched descriptors")),
        }
    }
}

impl<M> Reactor<M> {
    /// Has [`Handler::watched`] called with `key` whenever `descriptor` can be read. It stays the host's, who keeps it
    /// open until [`Reactor::unwatch`].
    ///
    /// # Errors
    /// When `key` is taken, when there are 1,024 descriptors already, or when the system cannot wait for this one.
    pub fn watch(&mut self, key: u64, descriptor: impl AsFd) -> io::Result<()> {
        let foreign = &mut self.shared.foreign;
        if foreign.find(key).is_some() {
            return Err(io::Error::other("a watched descriptor has that key already"));
        }
        let index = foreign.vacant()?;
        let descriptor = descriptor.as_fd().as_raw_fd();
        let token = Source::Foreign(index).token();
        let registry = self.poll.registry();
        registry.register(&mut SourceFd(&descriptor), token, Interest::READABLE)?;
        foreign.slots[index] = Some(Slot {
            key,
            descriptor,
            is_queued: false,
        });
        Ok(())
    }

    /// Waits for that descriptor no more; nothing happens when there is none of that key. To be called before the
    /// descriptor is closed.
    pub fn unwatch(&mut self, key: u64) {
        let foreign = &mut self.shared.foreign;
        let Some(index) = foreign.find(key) else {
            return;
        };
        if let Some(slot) = foreign.slots[index].take() {
            foreign.line.retain(|queued| *queued != index);
            // It fails for one that was closed already, which nobody waits for any more either.
            let _ = self.poll.registry().deregister(&mut SourceFd(&slot.descriptor));
        }
    }

    pub(super) fn serve_foreign(&mut self, handler: &mut impl Handler<M>) {
        let slice = Slice::begin();
        for _ in 0..self.shared.foreign.line.len() {
            let Some((index, key)) = self.shared.foreign.pop() else {
                return;
            };
            if handler.watched(&mut self.shared, key) == Activity::More {
                self.shared.foreign.note(index);
            }
            if slice.is_over() {
                return;
            }
        }
    }
}
