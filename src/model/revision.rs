//! What syncing agrees on: revisions of a share, and what stands at a path in one of them.
//!
//! Plain values. Invariant: revisions only order changes of one share within one epoch; clocks order nothing.

use super::{ContentId, Entry, Kind, Meta, RelPath};
use std::fmt;

/// The number of a change of a share: each change gets the next one. 0 is before all changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Revision(pub u64);

impl Revision {
    /// Before all changes: what has this revision was never there.
    pub const NONE: Revision = Revision(0);

    /// The next one.
    #[must_use]
    pub fn next(self) -> Revision {
        Revision(self.0 + 1)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One life of a share's index, drawn at random when it is made. Revisions of different epochs have
/// nothing to do with each other: nothing is deleted because a path is missing in a new epoch. 0 is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Epoch(pub u64);

/// What stands at a path, as far as syncing cares: an [`Entry`] without its path, and what is known of
/// a file's content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// What it is.
    pub kind: Kind,
    /// Permission bits and modification time.
    pub meta: Meta,
    /// Files: root of the content tree, once it is known.
    pub root: Option<[u8; 32]>,
}

impl State {
    /// The state of `entry`, its content unknown.
    #[must_use]
    pub fn of(entry: &Entry) -> State {
        State {
            kind: entry.kind.clone(),
            meta: entry.meta,
            root: None,
        }
    }

    /// The entry at `path` in this state.
    #[must_use]
    pub fn at(&self, path: RelPath) -> Entry {
        Entry {
            path,
            kind: self.kind.clone(),
            meta: self.meta,
        }
    }

    /// What a file contains, when that is known.
    #[must_use]
    pub fn content_id(&self) -> Option<ContentId> {
        match (&self.kind, self.root) {
            (Kind::File { size }, Some(root)) => Some(ContentId { length: *size, root }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Timestamp;

    #[test]
    fn only_files_of_known_root_have_a_content_id() {
        let meta = Meta {
            mode: 0o644,
            mtime: Timestamp { seconds: 1, nanos: 2 },
        };
        let file = State {
            kind: Kind::File { size: 3 },
            meta,
            root: Some([7; 32]),
        };
        let id = file.content_id().unwrap();
        assert_eq!((id.length, id.root), (3, [7; 32]));
        assert_eq!(
            State {
                root: None,
                ..file.clone()
            }
            .content_id(),
            None
        );
        let directory = State {
            kind: Kind::Directory,
            ..file
        };
        assert_eq!(directory.content_id(), None);
    }
}
