//! What the file system knows about a name: kind, metadata, and the identity of its present state.
//!
//! Conversions from `stat`; opens nothing. Invariant: a mode that leaves here is masked to 0o777.

use super::error::{FileError, Operation};
use crate::model::{Meta, Timestamp};
use rustix::fs::{FileType, Stat, stat};
use std::path::Path;

/// What stands at a path (a symbolic link is not followed).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// Its kind.
    pub kind: FoundKind,
    /// Its permission bits and modification time.
    pub meta: Meta,
    /// Its state, to tell later whether it changed.
    pub identity: Identity,
}

/// The kind of what was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FoundKind {
    /// A regular file.
    File {
        /// Length in bytes.
        size: u64,
    },
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A FIFO, socket or device.
    Special,
}

/// One state of one inode. Any write, truncation, replacement or change of metadata gives another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Identity {
    dev: u64,
    ino: u64,
    size: u64,
    mtime: Timestamp,
    ctime: Timestamp,
}

impl Identity {
    /// Bytes of its form on disk.
    pub(super) const BYTES: usize = 48;

    /// The state in which the file was given its name, whatever was written to it since.
    pub(crate) fn as_published(self, size: u64, mtime: Timestamp) -> Identity {
        Identity { size, mtime, ..self }
    }

    /// Another state, of so many bytes.
    #[cfg(test)]
    pub(crate) fn with_size(self, size: u64) -> Identity {
        Identity { size, ..self }
    }

    /// Device, inode, size, seconds of both times, nanoseconds of both; little-endian.
    pub(super) fn to_bytes(self) -> [u8; Identity::BYTES] {
        let mut bytes = [0; Identity::BYTES];
        let long = [
            self.dev,
            self.ino,
            self.size,
            self.mtime.seconds.cast_unsigned(),
            self.ctime.seconds.cast_unsigned(),
            u64::from(self.ctime.nanos) << 32 | u64::from(self.mtime.nanos),
        ];
        for (bytes, number) in bytes.chunks_exact_mut(8).zip(long) {
            bytes.copy_from_slice(&number.to_le_bytes());
        }
        bytes
    }

    /// The reverse of [`to_bytes`](Self::to_bytes).
    pub(super) fn from_bytes(bytes: &[u8; Identity::BYTES]) -> Identity {
        let long = |number: usize| {
            let bytes = bytes[8 * number..][..8].try_into();
            u64::from_le_bytes(bytes.expect("eight bytes"))
        };
        let time = |seconds: u64, nanos: u64| Timestamp {
            seconds: seconds.cast_signed(),
            nanos: nanos as u32,
        };
        Identity {
            dev: long(0),
            ino: long(1),
            size: long(2),
            mtime: time(long(3), long(5)),
            ctime: time(long(4), long(5) >> 32),
        }
    }

    /// Puts one together from what was kept of it.
    #[cfg_attr(not(feature = "sync"), allow(dead_code, reason = "the index keeps the parts"))]
    pub(super) fn of_parts(dev: u64, ino: u64, size: u64, mtime: Timestamp, ctime: Timestamp) -> Identity {
        Identity {
            dev,
            ino,
            size,
            mtime,
            ctime,
        }
    }

    /// The number of the device that the inode is on, and its time of change.
    #[cfg_attr(not(feature = "sync"), allow(dead_code, reason = "the index keeps the parts"))]
    pub(super) fn device_and_ctime(&self) -> (u64, Timestamp) {
        (self.dev, self.ctime)
    }

    /// Whether this is the same inode with the same content as far as a `stat` tells, however its
    /// name, mode and links changed. A rename changes the ctime, so after one only this can be asked.
    #[must_use]
    pub fn same_content(&self, other: &Identity) -> bool {
        self.same_inode(other) && self.size == other.size && self.mtime == other.mtime
    }

    /// The inode's number.
    #[must_use]
    pub fn inode(&self) -> u64 {
        self.ino
    }

    /// Length in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The modification time.
    pub(super) fn mtime(&self) -> Timestamp {
        self.mtime
    }

    /// Whether both are states of one inode.
    #[must_use]
    pub fn same_inode(&self, other: &Identity) -> bool {
        (self.dev, self.ino) == (other.dev, other.ino)
    }
}

impl Found {
    pub(super) fn of(stat: &Stat) -> Found {
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => FoundKind::File { size },
            FileType::Directory => FoundKind::Directory,
            FileType::Symlink => FoundKind::Symlink,
            _ => FoundKind::Special,
        };
        let mtime = timestamp(stat.st_mtime, stat.st_mtime_nsec);
        let ctime = timestamp(stat.st_ctime, stat.st_ctime_nsec);
        let identity = Identity {
            dev: stat.st_dev,
            ino: stat.st_ino,
            size,
            mtime,
            ctime,
        };
        Found {
            kind,
            meta: Meta {
                mode: stat.st_mode & Meta::MODE_MASK,
                mtime,
            },
            identity,
        }
    }
}

/// What stands at an operator's own path, links followed.
///
/// # Errors
/// When it is absent or cannot be examined.
pub fn inspect(path: &Path) -> Result<Found, FileError> {
    let stat = stat(path).map_err(|errno| FileError::at_path(Operation::Examine, path, errno))?;
    Ok(Found::of(&stat))
}

fn timestamp(seconds: i64, nanos: impl TryInto<u32>) -> Timestamp {
    Timestamp {
        seconds,
        nanos: nanos.try_into().unwrap_or(0),
    }
}
