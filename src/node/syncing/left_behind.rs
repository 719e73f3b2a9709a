//! Directories that were deleted on the server, and stay here for what takes no part in them.
//!
//! What is ignored belongs to this device alone: no other one can mean it with a deletion. So its directory stays,
//! once and for all, and becomes the folder's own affair until something that takes part is in it. Invariant: the base
//! has a tombstone of it, with the identity of the directory; no other records of a base are tombstones.

use super::{Here, Syncing};
use crate::model::{Kind, RelPath, Revision, Timestamp};
use crate::node::source_tree::without_prefix;
use crate::store::{Identity, Record, ScanItem};

/// Entries of such a directory that are looked at: one with more of them is looked at in the next round again.
const ENTRIES_MAX: usize = 4096;

impl Syncing {
    /// Whether all that is in a directory is left out.
    pub(super) fn holds_only_ignored(&mut self, path: &RelPath) -> bool {
        let root = &self.place.root;
        let mut scan = root.scan(Some(path));
        let mut items = Vec::new();
        let mut keep = |path: &RelPath, shape| self.observing.keep(root, path, shape);
        let more = scan.step(root, &mut keep, ENTRIES_MAX, &mut items);
        let takes_part = |item: &ScanItem| match item {
            // One that was left behind before is no reason.
            ScanItem::Entry(entry, _) => entry.path != *path && !self.has_tombstone(&entry.path),
            ScanItem::Special(_) => false,
            ScanItem::Failed(_) => true,
        };
        !more && scan.complete() && !items.iter().any(takes_part)
    }

    fn has_tombstone(&self, path: &RelPath) -> bool {
        // A base that cannot be read is told by whoever reads it next for itself.
        let record = self.snapshot.get(path).ok().flatten();
        record.is_some_and(|record| !record.is_live())
    }

    /// The directory stays, and nothing of it is agreed.
    pub(super) fn leave_behind(&mut self, path: &RelPath, identity: Option<Identity>) {
        log::warn!("{path} was deleted on the server, and stays here for what is ignored in it");
        self.forget(path);
        let record = Record {
            state: None,
            revision: Revision::NONE,
            author: None,
            identity,
            at: Timestamp { seconds: 0, nanos: 0 },
        };
        self.batch.put(path, &record);
    }

    /// Whether what stands at a path is such a directory still: nothing in it takes part.
    pub(super) fn is_left_behind(&self, path: &RelPath, record: Option<&Record>) -> bool {
        let Some(Record {
            state: None,
            identity: Some(was),
            ..
        }) = record
        else {
            return false;
        };
        match self.local.get(path) {
            Some(Here::Found(state, now)) if state.kind == Kind::Directory && was.inode() == now.inode() => {
                let beneath = |other: &RelPath| other != path && without_prefix(other, Some(path)).is_some();
                let takes_part = |other: &RelPath, here: &Here| match here {
                    Here::Found(state, _) => state.kind != Kind::Directory || !self.has_tombstone(other),
                    Here::Gone | Here::Blocked => false,
                };
                !self
                    .local
                    .iter()
                    .any(|(other, here)| beneath(other) && takes_part(other, here))
            }
            _ => false,
        }
    }
}
