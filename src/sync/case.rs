//! A case: one path, what was agreed about it, and what each side says now.
//!
//! Plain values, made by the caller from the base, the survey and the server's answer. Invariant: a
//! path at which neither side differs from the base is no case.

use crate::model::{RelPath, Revision, State};
use std::collections::BTreeMap;

/// The paths at which a side differs from the base, in the order of their bytes.
pub type Cases = BTreeMap<RelPath, Case>;

/// One path at which a side differs from the base.
///
/// After a change of epoch ([`NewEpoch`](super::Standing::NewEpoch)) every path that the base, the
/// folder or the server holds is a case, and each `remote` is [`Remote::Changed`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    /// What both sides last had; `None` when nothing was agreed.
    pub base: Option<Agreed>,
    /// What this device sent to this path without having read the server's answer: written down,
    /// root included, before the content is complete on the server. It tells our own change, which
    /// comes back after a cut, from one of others. `None` is always safe: then a further local edit
    /// after such a cut gets a conflict copy.
    pub sent: Option<State>,
    /// What the survey of the folder found.
    pub local: Local,
    /// What the server told.
    pub remote: Remote,
}

/// What both sides had when they last agreed on a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agreed {
    /// The state that was agreed. A tombstone is no agreement: such a path has no record.
    pub state: State,
    /// The server's revision of it.
    pub revision: Revision,
    /// The number of the local inode, by which a move is noticed; 0 when it is not known.
    pub file: u64,
}

/// What stands at a path of the folder, as a survey found it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Local {
    /// As agreed; without a base, nothing.
    Unchanged,
    /// Nothing, where the base has something.
    Gone,
    /// Something that differs from the base, or that the base does not have.
    Found(Found),
    /// Something that cannot be synced: unreadable, ignored, a FIFO. It stays untouched, and so do the
    /// directories above it.
    Blocked,
}

/// A local state that is not the agreed one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// What it is. The root may be unknown; for a file that `stat` proves to be an agreed one, under
    /// whatever name, the planner fills it in.
    pub state: State,
    /// The number of its inode; 0 when it is not known.
    pub file: u64,
}

/// What the server says about a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Remote {
    /// Nothing since the base; without a base, it has nothing there.
    Unchanged,
    /// Its latest record, newer than the base.
    Changed {
        /// What is there; `None` when it was deleted.
        state: Option<State>,
        /// The revision of that.
        revision: Revision,
    },
}

/// The base beyond the cases.
pub trait Base {
    /// What is agreed at `path`, whether it is a case or not.
    fn agreed(&self, path: &RelPath) -> Option<Agreed>;
}

impl Base for BTreeMap<RelPath, Agreed> {
    fn agreed(&self, path: &RelPath) -> Option<Agreed> {
        self.get(path).cloned()
    }
}

impl Case {
    /// What the folder holds; `None` also for what is blocked.
    pub(super) fn local_state(&self) -> Option<&State> {
        match &self.local {
            Local::Unchanged => self.base.as_ref().map(|base| &base.state),
            Local::Found(found) => Some(&found.state),
            Local::Gone | Local::Blocked => None,
        }
    }

    /// What the server holds.
    pub(super) fn remote_state(&self) -> Option<&State> {
        match &self.remote {
            Remote::Unchanged => self.base.as_ref().map(|base| &base.state),
            Remote::Changed { state, .. } => state.as_ref(),
        }
    }

    /// The revision of what the server holds.
    pub(super) fn revision(&self) -> Revision {
        match &self.remote {
            Remote::Unchanged => self.base.as_ref().map_or(Revision::NONE, |base| base.revision),
            Remote::Changed { revision, .. } => *revision,
        }
    }

    /// What an action finds when nothing changed since the survey.
    pub(super) fn expected(&self) -> super::Expected {
        match &self.local {
            Local::Unchanged if self.base.is_some() => super::Expected::Agreed,
            Local::Unchanged | Local::Gone => super::Expected::Absent,
            Local::Found(_) | Local::Blocked => super::Expected::Surveyed,
        }
    }
}
