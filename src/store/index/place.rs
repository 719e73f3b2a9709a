//! Where the index of a root is: the file `index.redb` in `.syncline`, and what becomes of a bad one.
//!
//! Knows nothing of what is in the file. Invariant: the file is a regular one of that directory with no
//! other name, never reached through a link; one that cannot be read is renamed, not removed.

use super::IndexError;
use crate::model::ItemCode;
use crate::store::error::{FileError, Operation};
use crate::store::private::{enter_private, open_private};
use crate::store::root::Root;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags, fstat, fsync, openat, renameat, renameat_with, statat};
use rustix::io::Errno;
use std::fs::File;
use std::sync::Arc;

/// The root whose index it is.
#[derive(Debug)]
pub(super) struct Place {
    root: Arc<OwnedFd>,
}

/// The file, opened.
#[derive(Debug)]
pub(super) struct IndexFile {
    pub(super) file: File,
    /// It was made just now, or was as empty as if it had been.
    pub(super) is_empty: bool,
}

const INDEX: &str = "index.redb";
/// For errors.
pub(super) const INDEX_PATH: &str = ".syncline/index.redb";
/// Bad files that are kept for whoever wants to know why; the last one gives way.
const DAMAGED_MAX: u32 = 8;
/// Another process may remove the file between our look and our opening it.
const RACES_MAX: u32 = 16;

impl Place {
    pub(super) fn of(root: &Root) -> Place {
        Place {
            root: Arc::clone(root.directory()),
        }
    }

    /// Opens the file, and makes it first where it is missing.
    pub(super) fn open(&self) -> Result<IndexFile, IndexError> {
        let directory = open_private(self.root.as_fd()).map_err(fault)?;
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        for _ in 0..RACES_MAX {
            match openat(&directory, INDEX, flags, Mode::empty()) {
                Err(Errno::NOENT) => {}
                other => return checked(File::from(other.map_err(fault)?)),
            }
            let create = flags | OFlags::CREATE | OFlags::EXCL;
            match openat(&directory, INDEX, create, Mode::RUSR | Mode::WUSR) {
                Err(Errno::EXIST) => {}
                other => return checked(File::from(other.map_err(fault)?)),
            }
        }
        Err(fault(Errno::AGAIN))
    }

    /// Whether there is a file under the name.
    pub(super) fn has_file(&self) -> bool {
        let found =
            enter_private(self.root.as_fd()).and_then(|directory| statat(&directory, INDEX, AtFlags::SYMLINK_NOFOLLOW));
        found.is_ok()
    }

    /// Gives the file another name, which is returned: `index.redb.damaged-1`.
    pub(super) fn move_aside(&self) -> Result<String, IndexError> {
        let directory = open_private(self.root.as_fd()).map_err(fault)?;
        for number in 1..DAMAGED_MAX {
            let name = damaged(number);
            match renameat_with(&directory, INDEX, &directory, &name, RenameFlags::NOREPLACE) {
                Err(Errno::EXIST) => {}
                // A file system without that flag.
                Err(Errno::INVAL | Errno::NOSYS) if is_missing(&directory, &name) => {
                    renameat(&directory, INDEX, &directory, &name).map_err(fault)?;
                    return Ok(name);
                }
                Err(Errno::INVAL | Errno::NOSYS) => {}
                other => return other.map(|()| name).map_err(fault),
            }
        }
        let name = damaged(DAMAGED_MAX);
        renameat(&directory, INDEX, &directory, &name).map_err(fault)?;
        Ok(name)
    }

    /// Makes the name durable.
    pub(super) fn flush_name(&self) -> Result<(), IndexError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let flush = |directory: OwnedFd| fsync(openat(&directory, ".", flags, Mode::empty())?);
        open_private(self.root.as_fd()).and_then(flush).map_err(fault)
    }
}

fn damaged(number: u32) -> String {
    format!("{INDEX}.damaged-{number}")
}

fn is_missing(directory: &OwnedFd, name: &str) -> bool {
    matches!(statat(directory, name, AtFlags::SYMLINK_NOFOLLOW), Err(Errno::NOENT))
}

fn checked(file: File) -> Result<IndexFile, IndexError> {
    let stat = fstat(&file).map_err(fault)?;
    // A second name could be one outside the share.
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || stat.st_nlink > 1 {
        let error = FileError::found(Operation::Open, INDEX_PATH.as_bytes(), ItemCode::Special);
        return Err(error.into());
    }
    Ok(IndexFile {
        file,
        is_empty: stat.st_size == 0,
    })
}

fn fault(errno: Errno) -> IndexError {
    match errno {
        Errno::ROFS | Errno::ACCESS | Errno::PERM => IndexError::ReadOnly,
        errno => FileError::at(Operation::Open, INDEX_PATH.as_bytes(), errno).into(),
    }
}
