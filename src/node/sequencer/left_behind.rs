//! Directories of a share that a device deleted, and that stay on its disk for what is left out in them.
//!
//! What is ignored belongs to this side alone. For everybody else the directory is gone, and it stays so until
//! something in it takes part, or somebody makes it anew. Invariant: the index has a tombstone of it, with the identity
//! of the directory; no other tombstone of an index has one.

use super::looking::Fresh;
use super::{Hint, Sequencer};
use crate::model::{DeviceId, Kind, RelPath};
use crate::node::leftover::{self, Removed};
use crate::node::source_tree::without_prefix;
use crate::store::{FileError, FoundKind, Identity, IndexError, Keeping, Record, Root};
use std::collections::{HashMap, HashSet};

impl Sequencer {
    /// Removes what `author` deleted, and has it noted if it stays.
    pub(crate) fn take_away(
        &mut self,
        root: &Root,
        path: &RelPath,
        keeping: Option<&Keeping<'_>>,
        author: Option<DeviceId>,
    ) -> Result<Removed, FileError> {
        let was_left = |path: &RelPath| {
            let leaves = |hints: &HashMap<RelPath, Hint>| hints.get(path).is_some_and(|hint| hint.leaves);
            // An index that cannot be read is told by whoever reads it next for itself.
            let stayed = |record: Record| !record.is_live() && record.identity.is_some();
            leaves(&self.hints)
                || leaves(&self.round_hints)
                || self.snapshot.get(path).ok().flatten().is_some_and(stayed)
        };
        let removed = leftover::remove(root, path, keeping, &mut self.observing, &was_left)?;
        if removed == Removed::Stays {
            log::warn!(
                "{}: {path} was deleted by a device, and stays here for what is ignored in it",
                root.path().display()
            );
            self.note(path, None, author);
            self.hints.entry(path.clone()).and_modify(|hint| hint.leaves = true);
            // What came into it meanwhile takes part.
            self.look_through(Some(path.clone()));
        }
        Ok(removed)
    }

    /// Those that the round is about, and that are as they were left: they are no news.
    pub(super) fn pass_over_left(&mut self) -> Result<(), IndexError> {
        // While there is more to come, nothing is known of what is in them.
        if self.looks.is_amid() {
            return Ok(());
        }
        let mut left = HashSet::new();
        for fresh in &self.fresh {
            let (Some(state), Some(identity)) = (&fresh.state, &fresh.identity) else {
                continue;
            };
            let is_made = |hints: &HashMap<RelPath, Hint>| {
                let hint = hints.get(&fresh.path);
                hint.is_some_and(|hint| hint.is_commit && !hint.leaves)
            };
            if state.kind == Kind::Directory
                && !is_made(&self.hints)
                && !is_made(&self.round_hints)
                && leftover::tells_of(self.snapshot.get(&fresh.path)?.as_ref(), identity)
            {
                left.insert(fresh.path.clone());
            }
        }
        let mut passed = HashSet::new();
        for path in &left {
            if !self.takes_part(path, &self.fresh, &left)? {
                passed.insert(path.clone());
            }
        }
        self.fresh.retain(|fresh| !passed.contains(&fresh.path));
        Ok(())
    }

    /// Those that are to be noted as left with this round, and what they are on the disk.
    pub(super) fn leaving(&self, root: &Root, fresh: &[Fresh]) -> Result<HashMap<RelPath, Identity>, IndexError> {
        let paths = self.round_hints.iter().filter(|(_, hint)| hint.leaves);
        let paths: HashSet<RelPath> = paths.map(|(path, _)| path.clone()).collect();
        let mut leaving = HashMap::new();
        for path in &paths {
            let found = root.find_exactly(path).ok().flatten();
            let found = found.filter(|found| found.kind == FoundKind::Directory);
            if let Some(found) = found
                && !self.takes_part(path, fresh, &paths)?
            {
                leaving.insert(path.clone(), found.identity);
            }
        }
        Ok(leaving)
    }

    /// Whether anything beneath `top` does, after the round; `fresh` is in the order of its paths.
    fn takes_part(&self, top: &RelPath, fresh: &[Fresh], left: &HashSet<RelPath>) -> Result<bool, IndexError> {
        let is_beneath = |path: &RelPath| path != top && without_prefix(path, Some(top)).is_some();
        let comes = |one: &Fresh| one.state.is_some() && is_beneath(&one.path) && !left.contains(&one.path);
        if fresh.iter().any(comes) {
            return Ok(true);
        }
        for row in self.snapshot.walk_beneath(top)? {
            let (path, record) = row?;
            let goes = |at: usize| fresh[at].state.is_none();
            let at = fresh.binary_search_by(|one| one.path.cmp(&path));
            if record.is_live() && !left.contains(&path) && !at.is_ok_and(goes) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
