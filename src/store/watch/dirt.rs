//! `Dirt`: where something may have changed. Never says what, and never that nothing else did.

use crate::model::RelPath;

/// A place to look at.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Dirt {
    /// This entry. When nothing stands there any more, all that was known beneath it is gone, too.
    Path(RelPath),
    /// This directory, or file in its place, and everything beneath it.
    Tree(RelPath),
    /// Everything: events were lost, or there were too many.
    All,
}

/// What a watch tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// Something changed, and the change is complete as far as the system tells.
    Changed(Dirt),
    /// A file was written and is still open for writing; its content is not settled.
    Written(RelPath),
    /// The root itself was removed, moved or unmounted. Nothing more will be told.
    RootGone,
}
