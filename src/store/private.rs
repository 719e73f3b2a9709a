//! The directory `.syncline` that Syncline keeps its own data in, below a root.
//!
//! Makes it when it is needed and removes it when it is empty; what is in it belongs to others. No
//! [`RelPath`] leads here. Invariant: it is a real directory of the root itself, never a link.

use super::resolve::enter;
use crate::model::RelPath;
use rustix::fd::{BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, Mode, OFlags, mkdirat, unlinkat};
use rustix::io::Errno;

/// Another process may remove the empty directory between our making and our entering it.
const RACES_MAX: u32 = 16;

/// Opens `.syncline` in `root`, and makes it first where it is missing.
pub(super) fn open_private(root: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    make_and_enter(root, RelPath::RESERVED.as_bytes())
}

/// Opens `.syncline` in `root` if it is there.
pub(super) fn enter_private(root: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    enter(root, RelPath::RESERVED.as_bytes(), OFlags::PATH)
}

/// Opens the directory `name` in `parent`, and makes it (0700) where it is missing.
pub(super) fn make_and_enter(parent: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd, Errno> {
    for _ in 0..RACES_MAX {
        match enter(parent, name, OFlags::PATH) {
            Err(Errno::NOENT) => {}
            other => return other,
        }
        match mkdirat(parent, name, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno),
        }
    }
    Err(Errno::NOENT)
}

/// Removes `.syncline` from `root` unless something is in it. Failing to is harmless.
pub(super) fn remove_private_if_empty(root: BorrowedFd<'_>) {
    let _ = unlinkat(root, RelPath::RESERVED.as_bytes(), AtFlags::REMOVEDIR);
}
