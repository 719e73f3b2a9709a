//! A plan: what is to be done, in order, and what is to be told.
//!
//! Plain values. Invariant: carried out from first to last, no action needs what a later one makes.

use crate::model::{RelPath, Revision, State};

/// What is to be done, in this order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// Files whose content must be known first. When there are any, `actions` is empty: the caller
    /// fills in their roots and plans again. A file that cannot be read becomes
    /// [`Local::Blocked`](super::Local::Blocked).
    pub hash: Vec<RelPath>,
    /// What is to be done. Empty when the brake stopped it.
    pub actions: Vec<Action>,
    /// Where both sides differ and one gives way, for the report.
    pub conflicts: Vec<Conflict>,
    /// Changes that this plan does not carry out.
    pub held: Vec<Held>,
    /// Paths that are held since a file system takes them for others; of a directory and what is in it, the
    /// directory.
    pub collisions: Vec<Collision>,
    /// Set when the brake stopped it.
    pub stop: Option<Stop>,
}

/// A path that one side has, and whose name is another one's to the file system of the other side.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Collision {
    /// What stays where it is.
    pub path: RelPath,
    /// Which side has no place for it.
    pub side: Side,
    /// What has its place there, as far as it is known.
    pub with: Option<RelPath>,
}

impl Plan {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.actions.is_empty() && self.hash.is_empty() && self.stop.is_none()
    }
}

/// One thing to do.
///
/// "Record" is the record of the path in the base. What is said of it is done together with the
/// action: a base that lags behind is safe, one that runs ahead is not. An action of which `expected`
/// is not found is skipped. What a user wrote is never lost by any of them: what disappears from the
/// folder goes into the local versions, what disappears from the server into the server's. The identity
/// in a record is the one that the survey saw, or that the action itself made: never that of a later
/// look, which could take a change of the user for agreed.
///
/// The server accepts a `based_on` when it is the revision of its present record;
/// [`Revision::NONE`] when it has nothing there: no record, or a tombstone, however new. Anything else
/// is stale, changes nothing, and the action counts as skipped. With its yes it tells the new
/// revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Both sides have the same. Record: `state` at `revision`, with the identity of the local file.
    Agree {
        /// Where.
        path: RelPath,
        /// What both have.
        state: State,
        /// The server's revision.
        revision: Revision,
        /// What must be there for it to be true.
        expected: Expected,
    },
    /// Record: none. The folder is not touched.
    Forget {
        /// Where.
        path: RelPath,
    },
    /// Renames what stands here, a directory with all that is in it, to the name of a conflict copy;
    /// when that is taken meanwhile, to the next. Record: as it is; those that have to go, of it and of
    /// what is in it, were [forgotten](Action::Forget) before.
    KeepAside {
        /// What gives way.
        path: RelPath,
        /// Its new name, which nothing has.
        copy: RelPath,
        /// What is here.
        expected: Expected,
    },
    /// Renames a local file, which is as agreed, to a path where nothing is, and gives it the mode and
    /// time of `state`. Record: `from` none, `to` is `state` at `revision`.
    Rename {
        /// Where it is.
        from: RelPath,
        /// Where it goes.
        to: RelPath,
        /// What the server has at `to`; the content is that of `from`.
        state: State,
        /// The server's revision of `to`.
        revision: Revision,
    },
    /// Spells the name of what stands here as the server does: to the folder's file system the two are one. No
    /// record: what that made of it the next survey finds. A plan with one has nothing else.
    Respell {
        /// What it is called, with all that is in it.
        from: RelPath,
        /// What it will be called, in the same directory.
        to: RelPath,
        /// What is here.
        expected: Expected,
    },
    /// Makes a directory where nothing is, or takes the one that is there. It gets the mode of `state`,
    /// and 0o700 in any case, so that things can be made in it. Record: `state`; left as it is when
    /// the mode is not the wanted one yet: then a [`SetMeta`](Action::SetMeta) follows at the end of the plan.
    MakeDirectory {
        /// Where.
        path: RelPath,
        /// What the server has: its mode.
        state: State,
        /// The server's revision.
        revision: Revision,
    },
    /// Makes a symbolic link, also in place of another. Record: `state`.
    MakeLink {
        /// Where.
        path: RelPath,
        /// Its target.
        state: State,
        /// The server's revision.
        revision: Revision,
        /// What it replaces; that goes into the versions.
        expected: Expected,
    },
    /// Sets mode and time of what has the right content. Record: `state`.
    SetMeta {
        /// Where.
        path: RelPath,
        /// What it becomes.
        state: State,
        /// The server's revision.
        revision: Revision,
        /// What is here.
        expected: Expected,
    },
    /// Takes away a file or link, into the versions, or a directory in which nothing is (any more).
    /// Record: none.
    Remove {
        /// What goes.
        path: RelPath,
        /// What is here.
        expected: Expected,
    },
    /// Brings the content of a file from the server. Record: `state`.
    Fetch {
        /// Where.
        path: RelPath,
        /// What the server has there.
        state: State,
        /// The server's revision.
        revision: Revision,
        /// What it replaces; that goes into the versions.
        expected: Expected,
        /// The same content went into the local versions from this path, by an earlier action of this
        /// plan: it can be taken from there instead.
        kept: Option<RelPath>,
    },
    /// Sends what stands here: a file with its content, a directory without what is in it, a link.
    /// Record, with the server's yes: what was sent, at the revision that it got.
    Send {
        /// Where.
        path: RelPath,
        /// What is here; a file's root may be unknown.
        state: State,
        /// The revision that the server must still have there.
        based_on: Revision,
        /// What is here, so that it is still what the record will say.
        expected: Expected,
    },
    /// Sends mode and time alone: the server has the content. Record, with its yes: `state`.
    SendMeta {
        /// Where.
        path: RelPath,
        /// What is here.
        state: State,
        /// The revision that the server must still have there.
        based_on: Revision,
        /// What is here, so that it is still what the record will say.
        expected: Expected,
    },
    /// Has the server spell the name of a directory as it is spelled here; the two names may be one to its file
    /// system. Records, with its yes: `from` none, nor of all that is in it, and `to` is `state`. What was agreed of
    /// the contents counts as agreed under the new name in the next round, for what the server tells of there: else
    /// what was deleted here would come back. A plan with one has nothing else.
    SendRespell {
        /// What the server calls it.
        from: RelPath,
        /// The revision that the server must still have there.
        from_revision: Revision,
        /// What it is called here, in the same directory.
        to: RelPath,
        /// What is here.
        state: State,
        /// The same, so that it is still what the record will say.
        expected: Expected,
    },
    /// Has the server rename a file to a path where it has nothing. Record, with its yes: `from` none,
    /// `to` is `state`.
    SendMove {
        /// Where the server has it.
        from: RelPath,
        /// The revision that the server must still have there.
        from_revision: Revision,
        /// Where it is here.
        to: RelPath,
        /// What is there; the content is that of `from`.
        state: State,
        /// What is at `to` here, so that it is still what the record will say.
        expected: Expected,
    },
    /// Has the server take away a file or link, into its versions, or a directory, which it refuses
    /// while anything is in it. Record, with its yes: none.
    SendRemove {
        /// What goes.
        path: RelPath,
        /// The revision that the server must still have there.
        based_on: Revision,
        /// What is here: mostly nothing, otherwise what takes its place on the server.
        expected: Expected,
    },
}

/// What an action must find at its local path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Expected {
    /// Nothing.
    Absent,
    /// What the record of the base says, by its identity.
    Agreed,
    /// What the survey found, by its identity; after a [`MakeDirectory`](Action::MakeDirectory) of this
    /// plan on the same path, what that made.
    Surveyed,
}

/// One side of a share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Side {
    /// The folder of this device.
    Local,
    /// The server.
    Remote,
}

/// Two changes of one path, of which one gives way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// Where.
    pub path: RelPath,
    /// Where the one that gave way is now; `None` when it is in the versions.
    pub copy: Option<RelPath>,
    /// Whose version gave way.
    pub whose: Side,
}

/// A change that this plan leaves as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Where.
    pub path: RelPath,
    /// Why.
    pub reason: HeldReason,
}

/// Why a change is left as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HeldReason {
    /// The mode does not let it pass.
    Mode,
    /// It would delete, and absence cannot be believed: see [`Standing`](super::Standing).
    Deletion,
    /// Something that cannot be synced stands there.
    Blocked,
    /// A file system takes its name for that of something else: see [`Plan::collisions`].
    Collides,
    /// What the sides tell does not fit together yet, such as a file in what is no directory; a later
    /// round knows more. Or no legal name is left for a conflict copy.
    Unsettled,
}

/// Too many deletions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Stop {
    /// How many there would be on that side.
    pub deletions: u64,
    /// Entries in the base.
    pub entries: u64,
    /// Who would lose them.
    pub side: Side,
}
