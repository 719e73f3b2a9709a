//! Setting permission bits and modification times on a held inode.
//!
//! Never follows a link, never sets set-id or sticky bits. Invariant: the inode whose kind was checked
//! is the one that is changed.

use super::facts::{Found, FoundKind};
use crate::model::{Meta, Timestamp};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd};
use rustix::fs::{
    AtFlags, CWD, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, chmodat, fchmod, fstat, futimens, openat, utimensat,
};
use rustix::io::Errno;

/// The bits of `meta` that may be set.
pub(super) fn mode_of(meta: &Meta) -> Mode {
    Mode::from_raw_mode(meta.mode & Meta::MODE_MASK)
}

/// The modification time; the access time stays.
pub(super) fn times_of(mtime: Timestamp) -> Timestamps {
    Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        last_modification: Timespec {
            tv_sec: mtime.seconds,
            tv_nsec: mtime.nanos.into(),
        },
    }
}

/// Sets `meta` on an open file or directory.
pub(super) fn apply(file: BorrowedFd<'_>, meta: &Meta) -> Result<(), Errno> {
    fchmod(file, mode_of(meta))?;
    futimens(file, &times_of(meta.mtime))
}

/// Sets `meta` on the file, directory or link `name` in `parent`; of a link only the time.
///
/// Errors: `ENXIO` for a special file.
pub(super) fn apply_at(parent: BorrowedFd<'_>, name: &[u8], meta: &Meta) -> Result<(), Errno> {
    let held = openat(
        parent,
        name,
        OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let found = Found::of(&fstat(&held)?);
    match found.kind {
        FoundKind::Symlink => utimensat(parent, name, &times_of(meta.mtime), AtFlags::SYMLINK_NOFOLLOW),
        FoundKind::Special => Err(Errno::NXIO),
        FoundKind::File { .. } | FoundKind::Directory => apply_held(parent, name, held.as_fd(), &found, meta),
    }
}

/// A descriptor opened with `O_PATH` takes no `fchmod`. Its inode is opened again for reading or, when
/// its mode forbids that, changed through the kernel's link to the descriptor.
fn apply_held(
    parent: BorrowedFd<'_>,
    name: &[u8],
    held: BorrowedFd<'_>,
    found: &Found,
    meta: &Meta,
) -> Result<(), Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    match openat(parent, name, flags, Mode::empty()) {
        Ok(opened) if Found::of(&fstat(&opened)?).identity.same_inode(&found.identity) => apply(opened.as_fd(), meta),
        Ok(_) | Err(Errno::ACCESS) => apply_through_proc(held, meta),
        Err(errno) => Err(errno),
    }
}

fn apply_through_proc(held: BorrowedFd<'_>, meta: &Meta) -> Result<(), Errno> {
    let link = format!("/proc/self/fd/{}", held.as_raw_fd());
    chmodat(CWD, link.as_str(), mode_of(meta), AtFlags::empty())?;
    utimensat(CWD, link.as_str(), &times_of(meta.mtime), AtFlags::empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    fn meta(mode: u32) -> Meta {
        Meta {
            mode,
            mtime: Timestamp {
                seconds: 1_000_000_007,
                nanos: 123_456_789,
            },
        }
    }

    /// Row 5 of the threats: set-id bits never arrive.
    #[test]
    fn set_id_bits_are_masked() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("f"), b"x").unwrap();
        let parent = fs::File::open(dir.path()).unwrap();
        apply_at(parent.as_fd(), b"f", &meta(0o6755)).unwrap();
        let found = fs::metadata(dir.path().join("f")).unwrap();
        assert_eq!(found.permissions().mode() & 0o7777, 0o755);
        assert_eq!((found.mtime(), found.mtime_nsec()), (1_000_000_007, 123_456_789));
    }

    /// A file of mode 0000 cannot be opened by its owner, but its owner may change that. The way that
    /// serves this case is tested by itself, because root, who runs tests too, can open anything.
    #[test]
    fn a_file_that_cannot_be_opened_is_changed_through_its_descriptor() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        fs::write(&path, b"x").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o0)).unwrap();
        let parent = fs::File::open(dir.path()).unwrap();
        apply_at(parent.as_fd(), b"f", &meta(0)).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mtime(), 1_000_000_007);
        let held = openat(&parent, "f", OFlags::PATH | OFlags::NOFOLLOW, Mode::empty()).unwrap();
        apply_through_proc(held.as_fd(), &meta(0o4640)).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o640);
    }
}
