//! `Settle`: dirty paths, until they are quiet. Reads no clock and touches no file.
//!
//! 1. A path that changed is **ripe** when nothing was told of it for [`SETTLE_QUIET_MS`], at the latest
//!    [`SETTLE_LATEST_MS`] after it was first told.
//! 2. A file that is written and not closed yet has longer times, [`SETTLE_OPEN_QUIET_MS`] and
//!    [`SETTLE_OPEN_LATEST_MS`]: what is read of it meanwhile is of no use to anybody.
//! 3. What is beneath a dirty tree joins it.
//! 4. Above [`SETTLE_PATHS_MAX`] paths their directories are kept instead, then the directories at the top, then
//!    only that everything is dirty.
//!
//! Invariant: every notice is followed by a ripe [`Dirt`] that covers its path, told at or after that notice;
//! memory is bounded whatever is told.

use super::dirt::{Dirt, Notice};
use crate::model::limits::{
    SETTLE_BYTES_MAX, SETTLE_LATEST_MS, SETTLE_OPEN_LATEST_MS, SETTLE_OPEN_QUIET_MS, SETTLE_PATHS_MAX, SETTLE_QUIET_MS,
};
use crate::model::{RelPath, Tick};
use std::collections::{BTreeMap, BTreeSet};

/// Dirty paths that are not ripe yet.
#[derive(Debug, Default)]
pub struct Settle {
    pending: BTreeMap<RelPath, Pending>,
    /// When to look whether a path is ripe: the entry that says its [`Pending::queued`] counts.
    queue: BTreeSet<(Tick, RelPath)>,
    /// Everything is dirty; nothing is pending beside it.
    all: Option<Pending>,
    trees: usize,
    bytes: usize,
}

#[derive(Debug, Clone, Copy)]
struct Pending {
    is_tree: bool,
    /// It was written last, and not closed.
    is_open: bool,
    first: Tick,
    /// The first notice that was not about an open file.
    closed: Option<Tick>,
    last: Tick,
    queued: Tick,
}

/// How much coarser paths become when there are too many.
#[derive(Debug, Clone, Copy)]
enum Coarse {
    Parent,
    Top,
}

impl Pending {
    fn new(now: Tick, is_tree: bool, is_open: bool) -> Pending {
        Pending {
            is_tree,
            is_open,
            first: now,
            closed: (!is_open).then_some(now),
            last: now,
            queued: Tick(u64::MAX),
        }
    }

    fn due(&self) -> Tick {
        let quiet = if self.is_open {
            SETTLE_OPEN_QUIET_MS
        } else {
            SETTLE_QUIET_MS
        };
        let latest = match self.closed {
            Some(closed) => closed + SETTLE_LATEST_MS,
            None => self.first + SETTLE_OPEN_LATEST_MS,
        };
        latest.min(self.last + quiet)
    }

    /// Takes over what was told of something that it covers, or once more of itself.
    fn merge(&mut self, other: &Pending) {
        if other.last >= self.last {
            self.is_open = other.is_open;
            self.last = other.last;
        }
        // A tree is not held up by one open file in it.
        self.is_open &= !self.is_tree;
        self.first = self.first.min(other.first);
        self.closed = match (self.closed, other.closed) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
    }
}

impl Settle {
    /// Nothing is dirty.
    #[must_use]
    pub fn new() -> Settle {
        Settle::default()
    }

    /// Takes what a watch told, at `now`. [`Notice::RootGone`] is not for it.
    pub fn note(&mut self, now: Tick, notice: Notice) {
        match notice {
            Notice::Written(path) => self.insert(path, Pending::new(now, false, true)),
            Notice::Changed(Dirt::Path(path)) => self.insert(path, Pending::new(now, false, false)),
            Notice::Changed(Dirt::Tree(path)) => self.insert(path, Pending::new(now, true, false)),
            Notice::Changed(Dirt::All) => self.cover_all(Pending::new(now, true, false)),
            Notice::RootGone => {}
        }
        if self.pending.len() > SETTLE_PATHS_MAX || self.bytes > SETTLE_BYTES_MAX {
            self.collapse();
        }
        debug_assert!(self.pending.len() <= SETTLE_PATHS_MAX && self.bytes <= SETTLE_BYTES_MAX);
        debug_assert!(self.all.is_none() || self.pending.is_empty());
    }

    /// The next place that is ripe at `now`. It is dirty no more, until it is told again.
    pub fn poll_ripe(&mut self, now: Tick) -> Option<Dirt> {
        if let Some(all) = self.all {
            return (all.due() <= now).then(|| {
                self.all = None;
                Dirt::All
            });
        }
        while self.queue.first().is_some_and(|(when, _)| *when <= now) {
            let (when, path) = self.queue.pop_first()?;
            let Some(pending) = self.pending.get_mut(&path).filter(|pending| pending.queued == when) else {
                continue;
            };
            let due = pending.due();
            if due > now {
                pending.queued = due;
                self.queue.insert((due, path));
                continue;
            }
            return self.take(path);
        }
        None
    }

    /// Everything that was dirty before, but files that somebody still writes; it is dirty no more, however short
    /// ago it was told. For who must know what is there now.
    pub fn take_closed(&mut self) -> Vec<Dirt> {
        if self.all.take().is_some() {
            return vec![Dirt::All];
        }
        let closed = self.pending.iter().filter(|(_, pending)| !pending.is_open);
        let closed: Vec<RelPath> = closed.map(|(path, _)| path.clone()).collect();
        closed.into_iter().filter_map(|path| self.take(path)).collect()
    }

    /// When to ask again, if nothing is told until then. It may be early, never late.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Tick> {
        let queued = self.queue.first().map(|(when, _)| *when);
        self.all.map(|all| all.due()).or(queued)
    }

    /// Whether nothing is dirty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.all.is_none() && self.pending.is_empty()
    }

    /// Places that are dirty.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pending.len() + usize::from(self.all.is_some())
    }

    fn insert(&mut self, path: RelPath, told: Pending) {
        if let Some(all) = &mut self.all {
            return all.merge(&told);
        }
        let path = self.covering(&path).unwrap_or(path);
        let (mut pending, was_tree) = match self.pending.get(&path) {
            Some(known) => (*known, known.is_tree),
            None => {
                self.bytes += path.as_bytes().len();
                (told, false)
            }
        };
        pending.is_tree |= told.is_tree;
        pending.merge(&told);
        if pending.is_tree && !was_tree {
            self.trees += 1;
            for beneath in self.beneath(&path) {
                pending.merge(&self.remove(&beneath).expect("it was just listed"));
            }
        }
        let due = pending.due();
        if due < pending.queued {
            pending.queued = due;
            self.queue.insert((due, path.clone()));
        }
        self.pending.insert(path, pending);
    }

    /// The dirty tree that `path` is beneath.
    fn covering(&self, path: &RelPath) -> Option<RelPath> {
        if self.trees == 0 {
            return None;
        }
        let is_tree = |path: &RelPath| self.pending.get(path).is_some_and(|pending| pending.is_tree);
        std::iter::successors(path.parent(), RelPath::parent).find(is_tree)
    }

    fn beneath(&self, path: &RelPath) -> Vec<RelPath> {
        // The lowest name that there can be. Where there is no room for it, nothing is beneath.
        let Ok(first) = path.child(b"\x01") else {
            return Vec::new();
        };
        let is_beneath = |other: &RelPath| {
            let rest = other.as_bytes().strip_prefix(path.as_bytes());
            rest.is_some_and(|rest| rest.first() == Some(&b'/'))
        };
        let from_first = self.pending.range(first..).map(|(path, _)| path);
        from_first.take_while(|path| is_beneath(path)).cloned().collect()
    }

    fn take(&mut self, path: RelPath) -> Option<Dirt> {
        let removed = self.remove(&path)?;
        Some(if removed.is_tree {
            Dirt::Tree(path)
        } else {
            Dirt::Path(path)
        })
    }

    fn remove(&mut self, path: &RelPath) -> Option<Pending> {
        let removed = self.pending.remove(path)?;
        self.queue.remove(&(removed.queued, path.clone()));
        self.trees -= usize::from(removed.is_tree);
        self.bytes -= path.as_bytes().len();
        Some(removed)
    }

    fn cover_all(&mut self, told: Pending) {
        let mut all = self.all.take().unwrap_or(told);
        all.merge(&told);
        for pending in self.pending.values() {
            all.merge(pending);
        }
        *self = Settle {
            all: Some(all),
            ..Settle::default()
        };
    }

    /// Makes it half of what is possible, at most, so that this is not due again soon.
    fn collapse(&mut self) {
        for coarse in [Coarse::Parent, Coarse::Top] {
            let all = std::mem::take(self).pending;
            for (path, pending) in all {
                let (path, is_tree) = match coarser(&path, coarse) {
                    Some(coarser) => (coarser, true),
                    None => (path, pending.is_tree),
                };
                let queued = Tick(u64::MAX);
                self.insert(
                    path,
                    Pending {
                        is_tree,
                        queued,
                        ..pending
                    },
                );
            }
            if self.pending.len() <= SETTLE_PATHS_MAX / 2 && self.bytes <= SETTLE_BYTES_MAX / 2 {
                return;
            }
        }
        if let Some(last) = self.pending.values().max_by_key(|pending| pending.last).copied() {
            self.cover_all(Pending { is_tree: true, ..last });
        }
    }
}

/// `None` for what is at the top already.
fn coarser(path: &RelPath, coarse: Coarse) -> Option<RelPath> {
    match coarse {
        Coarse::Parent => path.parent(),
        Coarse::Top => std::iter::successors(path.parent(), RelPath::parent).last(),
    }
}

#[cfg(test)]
#[path = "settle_tests.rs"]
mod tests;
