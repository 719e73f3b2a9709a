//! Versions: what was replaced, deleted or changed in a root is kept in `.syncline/versions`.
//!
//! There is no index: a file's path is a directory there, what lies in it are the file's versions, and
//! their names say the rest (`docs/FORMAT.md`). Nothing here follows a link, whatever somebody put into
//! that tree. `slots` is where versions come in, `walk` finds them, `retention` lets them go, `restore`
//! gets one back.

mod name;
mod restore;
mod retention;
mod slots;
mod walk;

pub(super) use name::Successor;
pub use name::{Author, AuthorTag, KeptAt, Reason, VersionName};
pub use restore::{RestoreError, restore};
pub use retention::{Retention, SizeBound, Tidied, Tidying};
pub(super) use slots::Slot;
pub use slots::{Keeping, Versions};
pub use walk::{Stay, Version, VersionWalk, versions_of};

#[cfg(test)]
#[path = "versions_tests.rs"]
mod tests;
