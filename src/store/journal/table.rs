//! `Table`: what is unfinished, found by id, by subject, and in the order in which it began.
//!
//! Touches no file. Invariant: each entry is found by its id and by its subject, and `live_bytes` is what
//! a journal with exactly these entries takes, without its header.

use super::record::Record;
use super::subject::{Reached, Subject, TransferId, Unfinished};
use crate::model::limits::JOURNAL_ENTRIES_MAX;
use crate::model::{DeviceId, RelPath};
use crate::store::facts::Identity;
use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, RandomState};

/// The live entries.
#[derive(Debug, Default)]
pub(super) struct Table {
    /// By the order in which they began.
    entries: BTreeMap<u64, Entry>,
    orders: HashMap<TransferId, u64>,
    /// Entries by the hash of their subject, the latest last.
    subjects: HashMap<u64, Vec<u64>>,
    hasher: RandomState,
    next_order: u64,
    live_bytes: u64,
}

#[derive(Debug)]
struct Entry {
    unfinished: Unfinished,
    /// Bytes of the record that it begins with, and of the one that says how far it is.
    begin_bytes: u64,
    reach_bytes: u64,
}

/// How far an entry is, as a record says it.
#[derive(Debug)]
pub(super) struct Position {
    pub(super) reached: Reached,
    pub(super) proven: bool,
    pub(super) touched: i64,
}

/// What an entry is looked for by.
#[derive(Hash)]
enum Key<'a> {
    Incoming(&'a RelPath, Option<&'a DeviceId>),
    Outgoing(&'a Identity),
}

impl<'a> Key<'a> {
    fn of(subject: &'a Subject) -> Key<'a> {
        match subject {
            Subject::Incoming(incoming) => Key::Incoming(&incoming.path, incoming.peer.as_ref()),
            Subject::Outgoing(identity) => Key::Outgoing(identity),
        }
    }
}

impl Table {
    /// Entries.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes of the records that say all of this.
    pub(super) fn live_bytes(&self) -> u64 {
        self.live_bytes
    }

    /// All of it, in the order in which it began.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Unfinished> {
        self.entries.values().map(|entry| &entry.unfinished)
    }

    pub(super) fn find(&self, id: TransferId) -> Option<&Unfinished> {
        let order = self.orders.get(&id)?;
        self.entries.get(order).map(|entry| &entry.unfinished)
    }

    /// The latest that arrives at `path` from `peer`.
    pub(super) fn incoming(&self, path: &RelPath, peer: Option<&DeviceId>) -> Option<&Unfinished> {
        self.latest(&Key::Incoming(path, peer), |subject| match subject {
            Subject::Incoming(incoming) => incoming.path == *path && incoming.peer.as_ref() == peer,
            Subject::Outgoing(_) => false,
        })
    }

    /// The latest of this state of a file.
    pub(super) fn outgoing(&self, identity: &Identity) -> Option<&Unfinished> {
        self.latest(&Key::Outgoing(identity), |subject| match subject {
            Subject::Outgoing(other) => other == identity,
            Subject::Incoming(_) => false,
        })
    }

    fn latest(&self, key: &Key<'_>, is_it: impl Fn(&Subject) -> bool) -> Option<&Unfinished> {
        let orders = self.subjects.get(&self.hasher.hash_one(key))?;
        let mut found = orders.iter().rev().filter_map(|order| self.entries.get(order));
        found
            .find(|entry| is_it(&entry.unfinished.subject))
            .map(|entry| &entry.unfinished)
    }

    /// Adds an entry with nothing reached, that began with a record of so many bytes; one with the same id
    /// goes.
    pub(super) fn insert(&mut self, unfinished: Unfinished, begin_bytes: u64) {
        self.add(Entry {
            unfinished,
            begin_bytes,
            reach_bytes: 0,
        });
    }

    /// Adds all entries of `other`, behind the others.
    pub(super) fn absorb(&mut self, other: Table) {
        other.entries.into_values().for_each(|entry| self.add(entry));
    }

    fn add(&mut self, entry: Entry) {
        let unfinished = &entry.unfinished;
        self.remove(unfinished.id);
        let order = self.next_order;
        self.next_order += 1;
        let key = self.hasher.hash_one(Key::of(&unfinished.subject));
        self.orders.insert(unfinished.id, order);
        self.subjects.entry(key).or_default().push(order);
        self.live_bytes += entry.begin_bytes + entry.reach_bytes;
        self.entries.insert(order, entry);
    }

    /// Says how far an entry is, by a record of so many bytes; nothing happens when there is no such entry,
    /// or when it cannot be so far.
    pub(super) fn reach(&mut self, id: TransferId, position: Position, reach_bytes: u64) {
        let entry = self.orders.get(&id).and_then(|order| self.entries.get_mut(order));
        let Some(entry) = entry.filter(|entry| entry.unfinished.allows(&position.reached)) else {
            return;
        };
        let before = entry.reach_bytes;
        // While that is nowhere, no record of it has to be kept.
        entry.reach_bytes = if position.reached.is_nothing() { 0 } else { reach_bytes };
        entry.unfinished.reached = position.reached;
        entry.unfinished.proven = position.proven;
        entry.unfinished.touched = position.touched;
        self.live_bytes = self.live_bytes - before + entry.reach_bytes;
    }

    /// Takes an entry out.
    pub(super) fn remove(&mut self, id: TransferId) -> Option<Unfinished> {
        let order = self.orders.remove(&id)?;
        let entry = self.entries.remove(&order)?;
        self.live_bytes -= entry.begin_bytes + entry.reach_bytes;
        let key = self.hasher.hash_one(Key::of(&entry.unfinished.subject));
        if let Some(orders) = self.subjects.get_mut(&key) {
            orders.retain(|&other| other != order);
            if orders.is_empty() {
                self.subjects.remove(&key);
            }
        }
        Some(entry.unfinished)
    }

    /// Does what a record of so many bytes says. Transfers above the bound, and records about unknown ones, are nothing.
    pub(super) fn apply(&mut self, record: Record, bytes: u64) {
        match record {
            Record::Begin(unfinished) => {
                if self.len() < JOURNAL_ENTRIES_MAX {
                    self.insert(unfinished, bytes);
                }
            }
            Record::Reach {
                id,
                touched,
                proven,
                reached,
            } => {
                let position = Position {
                    reached,
                    proven,
                    touched,
                };
                self.reach(id, position, bytes);
            }
            Record::End(id) => {
                self.remove(id);
            }
        }
    }

    /// Marks all that it holds as written under an earlier boot.
    pub(super) fn doubt(&mut self) {
        for entry in self.entries.values_mut() {
            entry.unfinished.proven = false;
        }
    }
}
