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
    /// What was under way here when the last record was written, if it may have taken effect.
    pub pending: Option<Pending>,
    /// What the survey of the folder found.
    pub local: Local,
    /// What the server told.
    pub remote: Remote,
    /// Another path that a file system takes this one for.
    pub taken: Option<Taken>,
}

/// A path that is one with another to a file system that folds case or normalises Unicode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Taken {
    /// Here nothing is spelled like it, and the folder's file system takes it for this, which stands in the same
    /// directory.
    Here(RelPath),
    /// The server refused it, since its file system takes it for something else there.
    There,
}

/// What an action that was cut off may have done without a record.
///
/// The caller writes it down before the action takes effect (a [`Sent`](Pending::Sent) before the content
/// is complete on the server, root included; a [`Taken`](Pending::Taken) before the rename), and drops it
/// with the next record of the path, or when that is forgotten. Without it nothing is lost, but after a
/// cut one's own change can look like one of others and get a conflict copy, and what was taken can look
/// like something new that is to be sent, although it was deleted meanwhile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pending {
    /// [`Send`](super::Action::Send), [`SendMeta`](super::Action::SendMeta) or
    /// [`SendMove`](super::Action::SendMove) told the server of this state, and its answer was not read.
    Sent(State),
    /// [`Fetch`](super::Action::Fetch), [`Rename`](super::Action::Rename) or another was about to put this
    /// state of the server here.
    Taken(State),
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
