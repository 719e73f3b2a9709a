//! `--delete`: finding and removing what the source does not have.
//!
//! 1. Only after a complete list, the scopes are scanned and what was not offered is noted.
//! 2. The brake compares their number with what is there; over it, nothing is deleted.
//! 3. What is noted is removed, deepest first, or moved to the versions where they are kept; a directory
//!    that still holds something stays.
//!
//! Invariant: nothing is removed unless the source and every scope were listed completely.

use super::agreement::Agreement;
use super::options::MaxDelete;
use super::slice::Slice;
use crate::model::limits::LISTED_MAX;
use crate::model::{CloseCode, Fault, ItemCode, RelPath};
use crate::store::{Keep, Keeping, PathKind, Root, Scan, ScanItem, Shape};
use crate::wire::Finish;
use std::collections::HashSet;

/// The paths that the sender listed, as keyed 128-bit hashes: a collision keeps a file too many.
#[derive(Debug)]
pub(crate) struct Offered {
    seed: u64,
    seen: HashSet<u128>,
    /// Entries that failed: what stands in their place may be a directory, which is left alone.
    failed: HashSet<u128>,
}

impl Offered {
    pub(crate) fn new(seed: u64) -> Offered {
        Offered {
            seed,
            seen: HashSet::new(),
            failed: HashSet::new(),
        }
    }

    /// Bytes of memory that they take.
    pub(crate) fn held_bytes(&self) -> usize {
        (self.seen.capacity() + self.failed.capacity()) * size_of::<u128>()
    }

    /// Notes a listed path, unless there are too many.
    pub(crate) fn insert(&mut self, path: &RelPath) -> Result<(), Fault> {
        if self.seen.len() >= LISTED_MAX {
            return Err(Fault::new(
                CloseCode::Limit,
                "too many entries for one transfer with deletions",
            ));
        }
        self.seen.insert(self.key(path));
        Ok(())
    }

    /// The entry at `path` failed: nothing that is here at or below it is deleted for that.
    pub(crate) fn keep_beneath(&mut self, path: &RelPath) {
        self.failed.insert(self.key(path));
    }

    fn keeps(&self, path: &RelPath) -> bool {
        !self.failed.is_empty() && self.failed.contains(&self.key(path))
    }

    fn contains(&self, path: &RelPath) -> bool {
        self.seen.contains(&self.key(path))
    }

    fn key(&self, path: &RelPath) -> u128 {
        xxhash_rust::xxh3::xxh3_128_with_seed(path.as_bytes(), self.seed)
    }
}

/// A deletion in progress.
#[derive(Debug)]
pub(crate) struct Prune {
    scopes: Vec<Option<RelPath>>,
    /// The scope being scanned; it stays, whatever becomes of what is in it.
    scope: Option<RelPath>,
    scan: Option<Scan>,
    existing: u64,
    doomed: Vec<RelPath>,
    removing: bool,
    deleted: u64,
}

/// What a step did.
pub(crate) enum Pruned {
    /// There is more to do.
    More,
    /// It is over.
    Over(Finish),
}

/// Where a step tells what it did.
pub(crate) trait PruneLog {
    /// An entry was removed, or would be.
    fn removed(&mut self, path: &RelPath);
    /// An entry could not be removed, or looked at.
    fn failed(&mut self, path: &[u8], code: ItemCode);
}

/// What a step works with.
pub(crate) struct PruneContext<'a> {
    pub(crate) root: &'a Root,
    pub(crate) keeping: Option<Keeping<'a>>,
    pub(crate) agreement: &'a Agreement,
    pub(crate) offered: &'a Offered,
    pub(crate) brake: MaxDelete,
    pub(crate) dry_run: bool,
}

/// Bytes of a path that is to be removed, as a rule.
const DOOMED_BYTES: usize = 96;
/// Entries looked at, or removed as far as there is time, in one step.
const STEP_ENTRIES: usize = 128;

impl Prune {
    pub(crate) fn new(scopes: Vec<Option<RelPath>>) -> Prune {
        Prune {
            scopes,
            scope: None,
            scan: None,
            existing: 0,
            doomed: Vec::new(),
            removing: false,
            deleted: 0,
        }
    }

    /// Bytes of memory that it takes, about.
    pub(crate) fn held_bytes(&self) -> usize {
        self.doomed.capacity() * DOOMED_BYTES + self.scan.as_ref().map_or(0, Scan::held_bytes)
    }

    /// Does a bounded part of the work.
    pub(crate) fn step(&mut self, cx: &PruneContext<'_>, log: &mut dyn PruneLog) -> Pruned {
        if self.removing {
            return self.remove(cx, log);
        }
        if let Some(mut scan) = self.scan.take() {
            return match self.look(cx, &mut scan, log) {
                Looked::More => {
                    self.scan = Some(scan);
                    Pruned::More
                }
                Looked::Complete => Pruned::More,
                Looked::Incomplete => Pruned::Over(Finish::Incomplete),
            };
        }
        if let Some(scope) = self.scopes.pop() {
            let absent = scope
                .as_ref()
                .is_some_and(|path| matches!(cx.root.probe(path), Ok(None)));
            self.scan = (!absent).then(|| cx.root.scan(scope.as_ref()));
            self.scope = scope;
            return Pruned::More;
        }
        let deletions = self.doomed.len() as u64;
        if !cx.brake.allows(deletions, self.existing) {
            return Pruned::Over(Finish::MassDelete {
                deletions,
                existing: self.existing,
            });
        }
        self.removing = true;
        Pruned::More
    }

    fn look(&mut self, cx: &PruneContext<'_>, scan: &mut Scan, log: &mut dyn PruneLog) -> Looked {
        let mut found = Vec::new();
        let mut keep = |path: &RelPath, shape: Shape| {
            let kind = match shape {
                Shape::Directory => PathKind::Directory,
                Shape::Other => PathKind::Other,
            };
            if cx.offered.keeps(path) || cx.agreement.protects(path, kind) {
                Keep::No
            } else {
                Keep::Yes
            }
        };
        let more = scan.step(cx.root, &mut keep, STEP_ENTRIES, &mut found);
        for item in found {
            match item {
                ScanItem::Entry(entry, _) if Some(&entry.path) != self.scope.as_ref() => {
                    self.existing += 1;
                    if !cx.offered.contains(&entry.path) {
                        self.doomed.push(entry.path);
                    }
                }
                ScanItem::Failed(error) => log.failed(error.path(), error.code()),
                ScanItem::Entry(..) | ScanItem::Special(_) => {}
            }
        }
        match (more, scan.complete()) {
            (true, _) => Looked::More,
            (false, true) => Looked::Complete,
            (false, false) => Looked::Incomplete,
        }
    }

    fn remove(&mut self, cx: &PruneContext<'_>, log: &mut dyn PruneLog) -> Pruned {
        let slice = Slice::begin();
        for _ in 0..STEP_ENTRIES {
            if slice.is_over() {
                break;
            }
            // A walk lists a directory before what is in it, so from the back the innermost come first.
            let Some(path) = self.doomed.pop() else {
                return Pruned::Over(Finish::Done { deleted: self.deleted });
            };
            let removed = match &cx.keeping {
                _ if cx.dry_run => Ok(()),
                Some(keeping) => cx.root.remove_keeping(&path, keeping),
                None => cx.root.remove(&path),
            };
            match removed.map_err(|error| error.code()) {
                Ok(()) => {
                    self.deleted += 1;
                    log.removed(&path);
                }
                // It went by itself, or a protected file keeps its directory.
                Err(ItemCode::Vanished | ItemCode::InTheWay) => {}
                Err(code) => log.failed(path.as_bytes(), code),
            }
        }
        Pruned::More
    }
}

enum Looked {
    More,
    Complete,
    Incomplete,
}
