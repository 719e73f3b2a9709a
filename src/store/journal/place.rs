//! Where a journal lies, and who holds it: its directory, its lock, and why it cannot be opened.
//!
//! Never reads what is in one. Invariant: who has the [`Held`] of a journal is the only one, and the file is
//! the one that has the name; it is a regular file, and no link was followed to it.

use super::replay::Fault;
use crate::model::ItemCode;
use crate::store::error::{FileError, Operation};
use crate::store::home::Home;
use crate::store::private::{enter_private, open_private, remove_private_if_empty};
use crate::store::root::Root;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, CWD, FileType, FlockOperation, Mode, OFlags, flock, fstat, openat, statat, unlinkat};
use rustix::io::Errno;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What a journal is for.
#[derive(Debug)]
pub(super) enum Place {
    /// A share, or the target of a pull: it is in `.syncline`.
    Root(Arc<OwnedFd>),
    /// A state directory.
    Home(PathBuf),
}

/// A journal that nobody else has.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) directory: OwnedFd,
    pub(super) file: File,
}

/// Why a journal cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Another process has it.
    #[error("another syncline keeps the journal here ({holder})")]
    Held {
        /// Who: `pid 12`, or `pid unknown`.
        holder: String,
    },
    /// Something in the middle of it is not what was written. Nothing was changed.
    #[error(
        "the journal is damaged at byte {at}, with {records_before} good records before and {records_behind} behind"
    )]
    Damaged {
        /// Where the damage begins, in bytes.
        at: u64,
        /// Records before it.
        records_before: u64,
        /// Records behind it.
        records_behind: u64,
    },
    /// A later version of Syncline made it.
    #[error("the journal has version {0}, which only a later syncline can read")]
    Version(u32),
    /// It is there, and cannot be written to.
    #[error("the journal cannot be written to")]
    ReadOnly,
    /// The file system failed in another way.
    #[error(transparent)]
    File(#[from] FileError),
}

/// Whether a journal is made where there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    Make,
    Leave,
}

pub(super) const JOURNAL: &str = "journal";
/// One that will take its place.
pub(super) const NEW: &str = "journal.new";

/// Holders may remove or replace the file between our opening and our locking it.
const RACES_MAX: u32 = 16;

impl Place {
    pub(super) fn of_root(root: &Root) -> Place {
        Place::Root(Arc::clone(root.directory()))
    }

    pub(super) fn of_home(home: &Home) -> Place {
        Place::Home(home.path().to_owned())
    }

    /// The directory that the journal is in; `None` where it is missing and shall not be made.
    pub(super) fn directory(&self, missing: Missing) -> Result<Option<OwnedFd>, Errno> {
        let opened = match self {
            Place::Root(root) if missing == Missing::Make => open_private(root.as_fd()),
            Place::Root(root) => enter_private(root.as_fd()),
            Place::Home(path) => {
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
                openat(CWD, path, flags, Mode::empty())
            }
        };
        match opened {
            Err(Errno::NOENT) if missing == Missing::Leave => Ok(None),
            other => other.map(Some),
        }
    }

    /// Opens and locks the journal, without waiting; `None` when there is none and none shall be made.
    pub(super) fn hold(&self, missing: Missing) -> Result<Option<Held>, JournalError> {
        for _ in 0..RACES_MAX {
            let Some(directory) = self.directory(missing).map_err(|errno| self.fault(errno))? else {
                return Ok(None);
            };
            match self.attempt(directory, missing)? {
                Attempt::Held(held) => return Ok(Some(held)),
                Attempt::Missing if missing == Missing::Leave => return Ok(None),
                Attempt::Missing | Attempt::Replaced => {}
            }
        }
        Err(self.fault(Errno::AGAIN))
    }

    fn attempt(&self, directory: OwnedFd, missing: Missing) -> Result<Attempt, JournalError> {
        let create = match missing {
            Missing::Make => OFlags::CREATE,
            Missing::Leave => OFlags::empty(),
        };
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | create;
        let file = match openat(&directory, JOURNAL, flags, Mode::RUSR | Mode::WUSR) {
            Err(Errno::NOENT) => return Ok(Attempt::Missing),
            other => File::from(other.map_err(|errno| self.fault(errno))?),
        };
        self.check_regular(&file)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => {
                return Err(JournalError::Held {
                    holder: holder_of(&directory),
                });
            }
            other => other.map_err(|errno| self.fault(errno))?,
        }
        let held = Held { directory, file };
        match held.is_named(JOURNAL) {
            Ok(true) => Ok(Attempt::Held(held)),
            Ok(false) => Ok(Attempt::Replaced),
            Err(errno) => Err(self.fault(errno)),
        }
    }

    /// Opens the journal to be read, without a lock.
    pub(super) fn open_to_read(&self) -> Result<Option<File>, JournalError> {
        let Some(directory) = self.directory(Missing::Leave).map_err(|errno| self.fault(errno))? else {
            return Ok(None);
        };
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match openat(&directory, JOURNAL, flags, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(None),
            other => File::from(other.map_err(|errno| JournalError::File(self.error(Operation::Open, errno)))?),
        };
        self.check_regular(&file)?;
        Ok(Some(file))
    }

    fn check_regular(&self, file: &File) -> Result<(), JournalError> {
        let stat = fstat(file).map_err(|errno| self.fault(errno))?;
        // A second name could be one outside the share.
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || stat.st_nlink > 1 {
            let path = self.path();
            let error = FileError::found(Operation::Open, path.as_os_str().as_encoded_bytes(), ItemCode::Special);
            return Err(error.into());
        }
        Ok(())
    }

    /// Removes the directory if it was made for the journal.
    pub(super) fn tidy(&self) {
        if let Place::Root(root) = self {
            remove_private_if_empty(root.as_fd());
        }
    }

    /// The journal's path, for errors: relative to a root, absolute in a state directory.
    pub(super) fn path(&self) -> PathBuf {
        match self {
            Place::Root(_) => Path::new(".syncline").join(JOURNAL),
            Place::Home(home) => home.join(JOURNAL),
        }
    }

    pub(super) fn error(&self, operation: Operation, source: impl Into<std::io::Error>) -> FileError {
        FileError::at_path(operation, &self.path(), source)
    }

    fn fault(&self, errno: Errno) -> JournalError {
        match errno {
            Errno::ROFS | Errno::ACCESS | Errno::PERM => JournalError::ReadOnly,
            errno => JournalError::File(self.error(Operation::Open, errno)),
        }
    }
}

enum Attempt {
    Held(Held),
    Missing,
    /// Another file has the name now.
    Replaced,
}

impl Held {
    /// Whether the file has this name.
    pub(super) fn is_named(&self, name: &str) -> Result<bool, Errno> {
        let ours = fstat(&self.file)?;
        match statat(&self.directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok((stat.st_dev, stat.st_ino) == (ours.st_dev, ours.st_ino)),
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(errno),
        }
    }

    /// Removes the journal: whoever opened the file before this sees that it has no name any more.
    pub(super) fn remove(&self) {
        if self.is_named(JOURNAL) == Ok(true) {
            let _ = unlinkat(&self.directory, JOURNAL, AtFlags::empty());
        }
    }

    /// Removes what a crash left of a file that was to take the journal's place.
    pub(super) fn remove_leftover(&self) {
        let _ = unlinkat(&self.directory, NEW, AtFlags::empty());
    }
}

impl From<Fault> for JournalError {
    fn from(fault: Fault) -> JournalError {
        match fault {
            Fault::Damaged { at, before, behind } => JournalError::Damaged {
                at,
                records_before: before,
                records_behind: behind,
            },
            Fault::Version(version) => JournalError::Version(version),
        }
    }
}

/// Bytes of the kernel's list of locks that are looked through.
const LOCKS_BYTES_MAX: u64 = 1 << 20;

/// The process that has the lock of the journal in `directory`, as the kernel lists it: `pid 12`.
fn holder_of(directory: &OwnedFd) -> String {
    let listed = || {
        // By name: the holder may have put another file in the place of the one that we have open.
        let inode = statat(directory, JOURNAL, AtFlags::SYMLINK_NOFOLLOW).ok()?.st_ino;
        let inode = format!(":{inode}");
        let list = BufReader::new(File::open("/proc/locks").ok()?.take(LOCKS_BYTES_MAX));
        // `1: FLOCK  ADVISORY  WRITE 12 fe:00:345 0 EOF`
        list.lines().map_while(Result::ok).find_map(|line| {
            let mut words = line.split_ascii_whitespace().skip(1);
            let (kind, pid, of) = (words.next()?, words.nth(2)?, words.next()?);
            let is_it = kind == "FLOCK" && of.ends_with(&inode);
            is_it.then(|| pid.parse().ok()).flatten().filter(|&pid: &u32| pid > 0)
        })
    };
    let found = std::iter::repeat_with(listed).take(RACES_MAX as usize).flatten().next();
    found.map_or_else(|| "pid unknown".to_owned(), |pid| format!("pid {pid}"))
}
