//! What a plan is made under: mode, how far both sides are to be trusted, brake, names of copies.
//!
//! Plain values. Time and the device's name come in as text: nothing here asks for them.

/// Which side follows which.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Mode {
    /// Both; when both changed a path, both contents stay: the server's under the name, the local one
    /// as a conflict copy.
    #[default]
    TwoWaySafe,
    /// Both; when both changed a path, the server's stays and the local one goes into the versions.
    TwoWayResolved,
    /// Local to server, but nothing that the server changed is overwritten or deleted.
    OneWaySafe,
    /// Local to server; what the server changed is undone there, and kept in its versions.
    OneWayReplica,
    /// Server to local; local changes stay and are never sent.
    ReceiveOnly,
}

/// How far absence can be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Standing {
    /// Both sides were seen whole, in the epoch of the base.
    #[default]
    Whole,
    /// The survey was incomplete: what it did not find may be there. Nothing is deleted on either side.
    Partial,
    /// The server's index is not the one of the base: its revisions say nothing here, and what is
    /// missing there may never have been known to it. Nothing is deleted on either side, and nothing
    /// older replaces what was agreed: where the server differs, both are kept.
    NewEpoch,
}

/// How many deletions are carried out without asking. A plan stops when both are exceeded, on either
/// side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Brake {
    /// So many deletions are always let through.
    pub count: u64,
    /// Of the entries of the base, percent, as many are always let through.
    pub percent: u8,
}

impl Default for Brake {
    /// More than 25 and more than half.
    fn default() -> Brake {
        Brake { count: 25, percent: 50 }
    }
}

/// What a plan is made under.
#[derive(Debug, Clone, Copy)]
pub struct Settings<'a> {
    /// Which side follows which.
    pub mode: Mode,
    /// How far absence can be believed.
    pub standing: Standing,
    /// How many deletions pass; `None` for all.
    pub brake: Option<Brake>,
    /// Entries in the base, for the brake.
    pub entries: u64,
    /// Date and time for the names of conflict copies: `20261120-214731`.
    pub stamp: &'a str,
    /// The name of this device, for the same; only what is legal in a file's name.
    pub device: &'a str,
    /// The folder's file system takes some names for one: of two that are to come, only the first does.
    pub folds_here: bool,
    /// The server's does: a directory that was respelled here is respelled there before anything else.
    pub folds_there: bool,
}
