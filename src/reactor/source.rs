//! Owns the names of event sources: mio's tokens, and the slots of connections with generations.
//! It never does I/O.
//!
//! Invariant: a [`ConnId`] reaches the connection it was made for or nothing. A slot that is used
//! again has another generation, so an event, a timer or a wake-up that comes late finds no one.

use mio::Token;
use slab::Slab;

/// Names one connection for as long as the reactor lives; never used again for another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId {
    pub(super) index: u32,
    pub(super) generation: u32,
}

#[cfg(test)]
impl ConnId {
    /// A name that no reactor gave.
    pub(crate) fn invented(index: u32) -> ConnId {
        ConnId { index, generation: 0 }
    }
}

/// What an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    Waker,
    Signals,
    Listener(usize),
    Foreign(usize),
    Connection { index: usize, generation_low: usize },
}

/// Half of a token holds the slot, the other half the generation (its low bits where a token has 32).
const INDEX_BITS: u32 = usize::BITS / 2;
const INDEX_MASK: usize = (1 << INDEX_BITS) - 1;
/// Reserved slots at the top: the waker, the signals, then the listeners and the host's descriptors downwards.
const WAKER: usize = INDEX_MASK;
const SIGNALS: usize = INDEX_MASK - 1;
const LISTENER_LAST: usize = INDEX_MASK - 2;
const LISTENER_FIRST: usize = LISTENER_LAST - (LISTENERS_MAX - 1);
const FOREIGN_LAST: usize = LISTENER_FIRST - 1;
const FOREIGN_FIRST: usize = FOREIGN_LAST - (FOREIGN_MAX - 1);

/// Listening sockets of one reactor.
pub(super) const LISTENERS_MAX: usize = 64;

/// Descriptors of the host that one reactor waits for.
pub(super) const FOREIGN_MAX: usize = 1024;

impl Source {
    pub(super) fn token(self) -> Token {
        Token(match self {
            Source::Waker => WAKER,
            Source::Signals => SIGNALS,
            Source::Listener(index) => LISTENER_LAST - index,
            Source::Foreign(index) => FOREIGN_LAST - index,
            Source::Connection { index, generation_low } => generation_low << INDEX_BITS | index,
        })
    }

    pub(super) fn of(token: Token) -> Source {
        let index = token.0 & INDEX_MASK;
        match index {
            WAKER => Source::Waker,
            SIGNALS => Source::Signals,
            LISTENER_FIRST..=LISTENER_LAST => Source::Listener(LISTENER_LAST - index),
            FOREIGN_FIRST..=FOREIGN_LAST => Source::Foreign(FOREIGN_LAST - index),
            index => Source::Connection {
                index,
                generation_low: token.0 >> INDEX_BITS,
            },
        }
    }
}

impl ConnId {
    pub(super) fn token(self) -> Token {
        let generation_low = self.generation as usize & INDEX_MASK;
        Source::Connection {
            index: self.index as usize,
            generation_low,
        }
        .token()
    }
}

/// Slots for connections: O(1) insert, look-up and removal.
#[derive(Debug)]
pub(super) struct Slots<T> {
    slab: Slab<(u32, T)>,
    generation: u32,
}

impl<T> Slots<T> {
    pub(super) fn new() -> Slots<T> {
        Slots {
            slab: Slab::new(),
            generation: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.slab.len()
    }

    /// The id that the next [`Slots::insert`] gives out.
    pub(super) fn next_id(&self) -> ConnId {
        let index = u32::try_from(self.slab.vacant_key()).expect("connections are capped far below u32::MAX");
        ConnId {
            index,
            generation: self.generation,
        }
    }

    pub(super) fn insert(&mut self, value: T) -> ConnId {
        let id = self.next_id();
        self.slab.insert((self.generation, value));
        self.generation = self.generation.wrapping_add(1);
        id
    }

    pub(super) fn get_mut(&mut self, id: ConnId) -> Option<&mut T> {
        match self.slab.get_mut(id.index as usize) {
            Some((generation, value)) if *generation == id.generation => Some(value),
            _ => None,
        }
    }

    pub(super) fn contains(&self, id: ConnId) -> bool {
        matches!(self.slab.get(id.index as usize), Some((generation, _)) if *generation == id.generation)
    }

    /// The connection that an event's token names, unless the slot has a new owner.
    pub(super) fn find(&mut self, index: usize, generation_low: usize) -> Option<(ConnId, &mut T)> {
        let (generation, value) = self.slab.get_mut(index)?;
        if *generation as usize & INDEX_MASK != generation_low {
            return None;
        }
        let index = u32::try_from(index).ok()?;
        Some((
            ConnId {
                index,
                generation: *generation,
            },
            value,
        ))
    }

    pub(super) fn remove(&mut self, id: ConnId) -> Option<T> {
        self.get_mut(id)?;
        Some(self.slab.remove(id.index as usize).1)
    }

    pub(super) fn ids(&self) -> Vec<ConnId> {
        let id = |(index, (generation, _)): (usize, &(u32, T))| {
            u32::try_from(index).ok().map(|index| ConnId {
                index,
                generation: *generation,
            })
        };
        self.slab.iter().filter_map(id).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_id_does_not_reach_the_new_owner_of_a_slot() {
        let mut slots = Slots::new();
        let first = slots.insert("first");
        assert_eq!(slots.remove(first), Some("first"));
        let second = slots.insert("second");
        assert_eq!(first.index, second.index, "the slot is used again");
        assert_eq!(slots.get_mut(first), None);
        assert_eq!(slots.remove(first), None);
        assert_eq!(slots.get_mut(second), Some(&mut "second"));
        let Source::Connection { index, generation_low } = Source::of(first.token()) else {
            panic!("no connection")
        };
        assert!(
            slots.find(index, generation_low).is_none(),
            "an event in flight is ignored too"
        );
    }

    #[test]
    fn tokens_come_back_as_the_sources_they_were_made_from() {
        let connection = Source::Connection {
            index: 16_383,
            generation_low: 77,
        };
        let mut sources = vec![Source::Waker, Source::Signals, connection];
        sources.extend((0..LISTENERS_MAX).map(Source::Listener));
        sources.extend((0..FOREIGN_MAX).map(Source::Foreign));
        for source in sources {
            assert_eq!(Source::of(source.token()), source);
        }
    }
}
