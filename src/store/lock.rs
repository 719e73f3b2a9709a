//! `ShareLock`: one process at a time owns a share, by a lock on `.syncline/lock`.
//!
//! The lock is the kernel's and ends with the process; the file's text only names the holder.
//! Invariant: while a `ShareLock` lives, no other process has one for the same directory.

use super::calendar::Moment;
use super::error::{FileError, Operation};
use super::private::{enter_private, open_private, remove_private_if_empty};
use super::root::Root;
use crate::model::escape;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags, flock, fstat, openat, statat, unlinkat};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// The lock of a share; dropping it frees the share and removes the file.
#[derive(Debug)]
pub struct ShareLock {
    root: Arc<OwnedFd>,
    private: OwnedFd,
    _file: File,
}

/// Why a share could not be locked.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has it.
    #[error("another syncline works on this folder ({holder})")]
    Held {
        /// What that process wrote about itself, escaped: `pid 12, started 2026-11-20 21:47:31 UTC`.
        holder: String,
    },
    /// Nothing can be written there: the share can only be read.
    #[error("the folder is read-only")]
    ReadOnly,
    /// The file system failed in another way.
    #[error(transparent)]
    File(#[from] FileError),
}

const LOCK: &str = "lock";

/// Holders may remove the file between our opening and our locking it.
const RACES_MAX: u32 = 16;

/// Bytes of the holder's text that are shown.
const HOLDER_BYTES_MAX: usize = 128;

impl ShareLock {
    /// Takes the lock of the share at `root`, without waiting.
    ///
    /// # Errors
    /// [`LockError::Held`] names the other process; [`LockError::ReadOnly`] when the folder cannot be
    /// written to, so that it can still be served for reading.
    pub fn acquire(root: &Root) -> Result<ShareLock, LockError> {
        for _ in 0..RACES_MAX {
            if let Some(lock) = attempt(root)? {
                return Ok(lock);
            }
        }
        Err(fault(Errno::AGAIN))
    }
}

/// One try; `None` when the file was removed meanwhile.
fn attempt(root: &Root) -> Result<Option<ShareLock>, LockError> {
    let private = open_private(root.directory().as_fd()).map_err(fault)?;
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let opened = match openat(&private, LOCK, flags, Mode::RUSR | Mode::WUSR) {
        Err(Errno::NOENT) => return Ok(None),
        other => other.map_err(fault)?,
    };
    let file = File::from(opened);
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) => {
            return Err(LockError::Held {
                holder: holder_of(&file),
            });
        }
        other => other.map_err(fault)?,
    }
    let ours = fstat(&file).map_err(fault)?;
    match statat(&private, LOCK, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) if (stat.st_dev, stat.st_ino) == (ours.st_dev, ours.st_ino) => {}
        Ok(_) | Err(Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(fault(errno)),
    }
    sign(&file).map_err(|error| LockError::File(FileError::at(Operation::Lock, b".syncline/lock", error)))?;
    Ok(Some(ShareLock {
        root: Arc::clone(root.directory()),
        private,
        _file: file,
    }))
}

fn sign(file: &File) -> io::Result<()> {
    let text = format!("pid {}, started {}\n", std::process::id(), Moment::now().readable());
    file.set_len(0)?;
    file.write_all_at(text.as_bytes(), 0)
}

fn holder_of(file: &File) -> String {
    let mut text = [0; HOLDER_BYTES_MAX];
    let count = file.read_at(&mut text, 0).unwrap_or(0);
    match text[..count].trim_ascii() {
        [] => "pid unknown".to_owned(),
        text => escape(text),
    }
}

fn fault(errno: Errno) -> LockError {
    match errno {
        Errno::ROFS | Errno::ACCESS | Errno::PERM => LockError::ReadOnly,
        errno => LockError::File(FileError::at(Operation::Lock, b".syncline/lock", errno)),
    }
}

impl Drop for ShareLock {
    fn drop(&mut self) {
        // Still locked: whoever opened the file before this sees that it is no longer the one there.
        let _ = unlinkat(&self.private, LOCK, AtFlags::empty());
        if enter_private(self.root.as_fd()).is_ok() {
            remove_private_if_empty(self.root.as_fd());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Row 59 of the threats: a second instance on the same folder is refused and told who is first.
    #[test]
    fn the_second_is_refused_with_the_name_of_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        let first = ShareLock::acquire(&root).unwrap();
        let error = ShareLock::acquire(&Root::open(dir.path()).unwrap()).unwrap_err();
        let LockError::Held { holder } = &error else {
            panic!("{error}")
        };
        assert!(
            holder.starts_with(&format!("pid {}, started 20", std::process::id())),
            "{holder}"
        );
        drop(first);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        let _again = ShareLock::acquire(&root).unwrap();
    }

    /// A lock file that a crash left behind locks nobody out, and its text cannot steer a terminal.
    #[test]
    fn a_file_without_a_holder_is_taken_over() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join(".syncline")).unwrap();
        let path = dir.path().join(".syncline/lock");
        std::fs::write(
            &path,
            b"pid 1\x1b[31m, a very old one that is longer than ours will be\n",
        )
        .unwrap();
        assert_eq!(
            holder_of(&File::open(&path).unwrap()),
            "pid 1\\u{1b}[31m, a very old one that is longer than ours will be"
        );
        let _lock = ShareLock::acquire(&Root::open(dir.path()).unwrap()).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("pid ") && text.ends_with(" UTC\n"), "{text}");
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_read_only() {
        for errno in [Errno::ROFS, Errno::ACCESS, Errno::PERM] {
            assert!(matches!(fault(errno), LockError::ReadOnly));
        }
        // procfs refuses every mkdir, also to root.
        let error = ShareLock::acquire(&Root::open("/proc/self/task".as_ref()).unwrap()).unwrap_err();
        assert!(!matches!(error, LockError::Held { .. }), "{error}");
    }
}
