//! Directories that were deleted on the server, and stay here for what takes no part in them.
//!
//! What is ignored belongs to this device alone: no other one can mean it with a deletion. So its directory stays,
//! once and for all, and becomes the folder's own affair until something that takes part is in it. Invariant: the base
//! has a tombstone of it, with the identity of the directory; no other records of a base are tombstones.

use super::acting::keeping;
use super::{Here, Syncing};
use crate::model::{Kind, RelPath, Revision, Timestamp};
use crate::node::leftover::{self, Removed};
use crate::node::source_tree::without_prefix;
use crate::store::{FileError, Identity, Record, Snapshot};
use std::rc::Rc;

impl Syncing {
    /// Removes what stands at a path, unless it is a directory that stays for what is left out in it.
    pub(super) fn take_away(&mut self, path: &RelPath) -> Result<Removed, FileError> {
        let (place, snapshot) = (Rc::clone(&self.place), &self.snapshot);
        let was_left = |path: &RelPath| has_tombstone(snapshot, path);
        let keeping = keeping(&place);
        leftover::remove(&place.root, path, keeping.as_ref(), &mut self.observing, &was_left)
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
        match self.local.get(path) {
            Some(Here::Found(state, now)) if state.kind == Kind::Directory && leftover::tells_of(record, now) => {
                let beneath = |other: &RelPath| other != path && without_prefix(other, Some(path)).is_some();
                let takes_part = |other: &RelPath, here: &Here| match here {
                    Here::Found(state, _) => state.kind != Kind::Directory || !has_tombstone(&self.snapshot, other),
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

fn has_tombstone(snapshot: &Snapshot, path: &RelPath) -> bool {
    // A base that cannot be read is told by whoever reads it next for itself.
    let record = snapshot.get(path).ok().flatten();
    record.is_some_and(|record| !record.is_live())
}
