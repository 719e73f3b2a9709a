//! What a look found, as a record of the index to be.
//!
//! Opens no file. Invariant: what is no change for a client keeps its revision.

use super::Hint;
use crate::model::{ContentId, DeviceId, Kind, RelPath, Revision, State};
use crate::store::{Difference, Identity, Record};
use std::collections::HashMap;

/// A path whose record is to be written.
#[derive(Debug)]
pub(super) struct Fresh {
    pub(super) path: RelPath,
    pub(super) state: Option<State>,
    pub(super) identity: Option<Identity>,
    pub(super) author: Option<DeviceId>,
    /// It is a change; else only what the disk calls it is different.
    pub(super) is_new: bool,
    /// The revision that it has.
    pub(super) revision: Revision,
    /// It has to be hashed.
    pub(super) is_unread: bool,
    /// It could not be read, or changed meanwhile: it is looked at again.
    pub(super) is_put_off: bool,
    /// Somebody committed something here, and has told so.
    pub(super) is_told: bool,
}

impl Fresh {
    /// What stands at a path that somebody committed something at, as the index knows it.
    pub(super) fn confirmed(path: RelPath, record: Option<Record>, author: Option<DeviceId>) -> Fresh {
        let (state, identity, revision) = record.map_or((None, None, Revision::NONE), |record| {
            (record.state, record.identity, record.revision)
        });
        Fresh {
            path,
            state,
            identity,
            author,
            is_new: true,
            revision,
            is_unread: false,
            is_put_off: false,
            is_told: true,
        }
    }

    /// It is a directory that is gone for everybody else, and stays here: the one of that identity.
    pub(super) fn leave(&mut self, identity: Identity) {
        (self.state, self.identity) = (None, Some(identity));
    }

    /// Whether it is the file of that identity, with that content.
    pub(super) fn is_of(&self, (identity, id): (Identity, ContentId)) -> bool {
        let root = self.state.as_ref().and_then(|state| state.root);
        root == Some(id.root) && self.identity.is_some_and(|found| found.same_content(&identity))
    }

    /// Compares it with the record that the path has: the same content under another inode is no change.
    pub(super) fn compare(&mut self, record: Option<&Record>) {
        let old = record.and_then(|record| record.state.as_ref());
        if let (Some(state), Some(record)) = (&self.state, record)
            && same_state(old, state)
        {
            (self.is_new, self.revision, self.author) = (false, record.revision, record.author);
        }
    }
}

fn gone(path: RelPath, record: &Record, hints: &HashMap<RelPath, Hint>) -> Fresh {
    Fresh {
        author: hints.get(&path).and_then(|hint| hint.author),
        path,
        state: None,
        identity: None,
        is_new: true,
        revision: record.revision,
        is_unread: false,
        is_put_off: false,
        is_told: false,
    }
}

/// What is to be written of a difference; `None` when the index has it already.
pub(super) fn of_difference(difference: Difference, hints: &HashMap<RelPath, Hint>) -> Option<Fresh> {
    let (entry, identity, record) = match difference {
        Difference::Gone { path, record } => return Some(gone(path, &record, hints)),
        Difference::Special(path) => {
            log::info!("{path} is a FIFO, socket or device and is left out");
            return None;
        }
        Difference::Failed(error) => {
            log::warn!("{error}");
            return None;
        }
        Difference::Changed {
            entry,
            identity,
            record,
        } => (entry, identity, record),
    };
    let hint = hints.get(&entry.path).copied().unwrap_or_default();
    let known = hint
        .content
        .filter(|(was, id)| was.same_content(&identity) && id.length == identity.size());
    let old = record.as_ref().and_then(|record| record.state.as_ref());
    let same_file = record
        .as_ref()
        .and_then(|record| record.identity)
        .is_some_and(|was| was.same_content(&identity));
    let mut state = State::of(&entry);
    if let Kind::File { .. } = entry.kind {
        let kept = old.filter(|_| same_file).and_then(|old| old.root);
        state.root = known.map(|(_, id)| id.root).or(kept);
    }
    if same_state(old, &state) && same_file {
        return None;
    }
    let is_unread = matches!(state.kind, Kind::File { .. }) && state.root.is_none();
    let same = !is_unread && same_state(old, &state);
    Some(Fresh {
        path: entry.path,
        is_new: !same,
        revision: record.as_ref().map_or(Revision::NONE, |record| record.revision),
        author: match same {
            true => record.and_then(|record| record.author),
            false => hint.author,
        },
        state: Some(state),
        identity: Some(identity),
        is_unread,
        is_put_off: false,
        is_told: false,
    })
}

/// Whether nothing changed that a client would have to hear of: the time of a directory is its own.
fn same_state(old: Option<&State>, new: &State) -> bool {
    let Some(old) = old else { return false };
    let same_time = matches!(new.kind, Kind::Directory) || old.meta.mtime == new.meta.mtime;
    let same_mode = matches!(new.kind, Kind::Symlink { .. }) || old.meta.mode == new.meta.mode;
    old.kind == new.kind && old.root == new.root && same_time && same_mode
}
