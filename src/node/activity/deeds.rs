//! What a transfer did with entries, as its books have it until somebody writes it down.
//!
//! Invariant: what changed nothing is no deed.

use super::super::events::Action;
use crate::model::{ItemCode, Kind, RelPath};
use crate::store::Change;

/// Something that was done with an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Deed {
    /// It got another state; with the size of a file.
    Done {
        path: RelPath,
        what: Done,
        size: Option<u64>,
    },
    /// It got another name.
    #[cfg(feature = "sync")]
    Moved { from: Option<RelPath>, to: RelPath },
    /// There were two versions, and one has another name now, or is among the versions.
    Conflict { path: RelPath, copy: Option<RelPath> },
    /// It could not be transferred. The path is escaped, since it need not be a legal one.
    Failed { path: String, code: ItemCode },
}

/// How an entry changed, other than by getting another name.
pub(crate) type Done = Change<'static>;

impl Deed {
    /// Where; of what failed, escaped.
    pub(super) fn path(&self) -> &[u8] {
        match self {
            Deed::Done { path, .. } | Deed::Conflict { path, .. } => path.as_bytes(),
            #[cfg(feature = "sync")]
            Deed::Moved { to, .. } => to.as_bytes(),
            Deed::Failed { path, .. } => path.as_bytes(),
        }
    }
}

/// What kind of entry something was done with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Thing {
    File,
    Directory,
    /// A symbolic link; or what is no file, where nothing else is known of it.
    Other,
}

impl Thing {
    pub(crate) fn of(kind: &Kind) -> Thing {
        match kind {
            Kind::File { .. } => Thing::File,
            Kind::Directory => Thing::Directory,
            Kind::Symlink { .. } => Thing::Other,
        }
    }

    /// What an action on such an entry is. The times of directories follow what is in them: nobody asks for those.
    pub(crate) fn done(self, action: Action) -> Option<Done> {
        match (action, self) {
            (Action::Deleted, _) => Some(Done::Deleted),
            (Action::Created, Thing::Directory) => Some(Done::Made),
            (Action::Created, _) => Some(Done::Created),
            (Action::Replaced, _) => Some(Done::Replaced),
            (Action::Touched, Thing::File) => Some(Done::Touched),
            (Action::Touched, Thing::Directory | Thing::Other) | (Action::Moved, _) => None,
        }
    }
}
