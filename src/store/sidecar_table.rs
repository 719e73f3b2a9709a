//! What is known of the sidecars in a directory: sizes, last uses, stamps.
//!
//! Never touches a file. Invariant: the bytes are the sum of those of the entries, and each stamp in the
//! look-up is that of the entry that it leads to.

use super::facts::Identity;
use crate::model::{ContentId, Timestamp};
use std::collections::HashMap;

/// The sidecars of one directory, as they were when it was read and as we changed it since.
#[derive(Debug, Default)]
pub(super) struct Table {
    entries: HashMap<ContentId, Kept>,
    stamps: HashMap<Identity, ContentId>,
    bytes: u64,
    /// The latest use of any.
    latest: Option<Timestamp>,
    finished: u32,
}

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) bytes: u64,
    pub(super) used: Timestamp,
    pub(super) stamp: Option<Identity>,
}

impl Table {
    pub(super) fn insert(&mut self, id: ContentId, kept: Kept) {
        self.remove(&id);
        self.bytes = self.bytes.saturating_add(kept.bytes);
        self.latest = self.latest.max(Some(kept.used));
        self.entries.insert(id, kept);
        if let Some(stamp) = kept.stamp {
            self.set_stamp(&id, &stamp);
        }
    }

    pub(super) fn remove(&mut self, id: &ContentId) {
        if let Some(kept) = self.entries.remove(id) {
            self.bytes = self.bytes.saturating_sub(kept.bytes);
            self.forget_stamp(id, kept.stamp);
        }
    }

    pub(super) fn contains(&self, id: &ContentId) -> bool {
        self.entries.contains_key(id)
    }

    pub(super) fn content_of(&self, stamp: &Identity) -> Option<ContentId> {
        self.stamps.get(stamp).copied()
    }

    pub(super) fn set_stamp(&mut self, id: &ContentId, stamp: &Identity) {
        let Some(kept) = self.entries.get_mut(id) else {
            return;
        };
        let before = kept.stamp.replace(*stamp);
        self.forget_stamp(id, before);
        if let Some(other) = self.stamps.insert(*stamp, *id)
            && other != *id
            && let Some(kept) = self.entries.get_mut(&other)
        {
            kept.stamp = None;
        }
    }

    pub(super) fn touch(&mut self, id: &ContentId, used: Timestamp) {
        if let Some(kept) = self.entries.get_mut(id) {
            kept.used = used;
        }
    }

    /// The time of a use: `now`, or just after the latest one when the clock went back.
    pub(super) fn next_use(&mut self, now: Timestamp) -> Timestamp {
        let next = match self.latest {
            // A clock that once was years ahead is followed, so that the order stays.
            Some(latest) if latest >= now => after(latest),
            _ => now,
        };
        self.latest = Some(next);
        next
    }

    /// Counts a file of our own; how many there were.
    pub(super) fn count_finished(&mut self) -> u32 {
        self.finished += 1;
        self.finished
    }

    /// Forgets what is over a bound, the longest unused first, and names it. With that goes a 16th of
    /// what is allowed, so that the next ones need not look again.
    pub(super) fn over(&mut self, bytes_max: u64, count_max: usize) -> Vec<ContentId> {
        if self.bytes <= bytes_max && self.entries.len() <= count_max {
            return Vec::new();
        }
        let (bytes_max, count_max) = (bytes_max - bytes_max / 16, count_max - count_max / 16);
        let mut by_use: Vec<(Timestamp, ContentId)> = self.entries.iter().map(|(id, kept)| (kept.used, *id)).collect();
        by_use.sort_unstable();
        let mut gone = Vec::new();
        for (_, id) in by_use {
            // The last one may fill all there is.
            if self.entries.len() <= 1 || (self.bytes <= bytes_max && self.entries.len() <= count_max) {
                break;
            }
            self.remove(&id);
            gone.push(id);
        }
        gone
    }

    fn forget_stamp(&mut self, id: &ContentId, stamp: Option<Identity>) {
        if let Some(stamp) = stamp
            && self.stamps.get(&stamp) == Some(id)
        {
            self.stamps.remove(&stamp);
        }
    }
}

fn after(time: Timestamp) -> Timestamp {
    if time.nanos < 999_999_999 {
        return Timestamp {
            nanos: time.nanos + 1,
            ..time
        };
    }
    Timestamp {
        seconds: time.seconds.saturating_add(1),
        nanos: 0,
    }
}
