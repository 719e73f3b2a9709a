//! Undo records: what a file held before it is changed in place, in `.syncline/undo/NAME`.
//!
//! Writes and reads the form in `docs/FORMAT.md`; touches no file but its own (that is `inplace` and
//! `recovery`). A record is written as `NAME.new`, flushed, and renamed: one that has its final name is
//! complete, so damage in it is never taken for a torn write. Its process holds a lock on it.
//! Invariant: ranges ascend, do not overlap and lie within the old length, or the record is damaged.

use super::barrier::flush;
use super::private::{make_and_enter, open_private, remove_private_if_empty};
use crate::model::limits::{FILE_BYTES_MAX, PATH_BYTES_MAX};
use crate::model::{Meta, RelPath, Timestamp};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{
    AtFlags, FlockOperation, Mode, OFlags, RenameFlags, StatxFlags, flock, openat, renameat_with, statx, unlinkat,
};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// Whether writes wait for the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flush {
    /// Each step is on the disk before the next.
    Disk,
    /// The steps have the same order, but nothing waits: safe against a killed process, not against a
    /// power cut.
    Nothing,
}

/// What a record says of its file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Undone {
    pub(super) path: RelPath,
    pub(super) inode: Inode,
    pub(super) old_length: u64,
    pub(super) new_length: u64,
    pub(super) meta: Meta,
}

/// An inode, to be known again after a restart: device numbers may change then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Inode {
    pub(super) number: u64,
    /// When it was made, where the file system tells.
    pub(super) born: Option<Timestamp>,
}

/// A part of the old content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OldRange {
    pub(super) offset: u64,
    pub(super) length: usize,
    pub(super) form: OldForm,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OldForm {
    /// Nothing but zeros; no bytes in the record.
    Zeros,
    /// The bytes are in the caller's buffer.
    Bytes,
}

/// Why a record cannot be read.
#[derive(Debug)]
pub(super) enum RecordFault {
    Disk(io::Error),
    /// The bytes are not those of a whole record.
    Damaged,
    /// A later form.
    Version(u32),
}

/// The directory of the records.
#[derive(Debug)]
pub(super) struct UndoDirectory {
    root: Arc<OwnedFd>,
    pub(super) private: OwnedFd,
    pub(super) directory: OwnedFd,
}

/// A record that is being written.
#[derive(Debug)]
pub(super) struct RecordWriter {
    file: File,
    name: String,
    at: u64,
    count: u64,
    crc: crc32fast::Hasher,
}

/// A record that is being read; each [`RecordReader::next`] is one range.
#[derive(Debug)]
pub(super) struct RecordReader<'a> {
    file: &'a File,
    at: u64,
    count: u64,
    crc: crc32fast::Hasher,
    old_length: u64,
    /// Where the last range ended.
    reached: u64,
}

pub(super) const UNDO: &str = "undo";
/// How the name of an unfinished record ends.
pub(super) const UNFINISHED: &str = ".new";
/// Bytes of one range at most.
pub(super) const RANGE_BYTES_MAX: usize = 1 << 20;

const MAGIC: [u8; 8] = *b"SYNCUNDO";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 68;
const RANGE_HEADER_BYTES: usize = 20;
const CRC_BYTES: usize = 4;
/// Stands in the place of an offset at the end of the record.
const END: u64 = u64::MAX;
/// Nanoseconds of a second. More than that would mean something else to the system that sets a time.
const NANOS_END: u32 = 1_000_000_000;
/// Nanoseconds of a time that is not known.
const UNKNOWN: u32 = u32::MAX;
/// Another process may remove the empty directory between our making it and making a file in it.
const RACES_MAX: u32 = 16;

impl Inode {
    /// The inode of an open file.
    pub(super) fn of(file: BorrowedFd<'_>) -> Result<Inode, Errno> {
        let found = statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::INO | StatxFlags::BTIME)?;
        let born = (found.stx_mask & StatxFlags::BTIME.bits() != 0).then_some(Timestamp {
            seconds: found.stx_btime.tv_sec,
            nanos: found.stx_btime.tv_nsec,
        });
        Ok(Inode {
            number: found.stx_ino,
            born,
        })
    }

    /// Whether both are one inode, as far as is known.
    pub(super) fn matches(&self, other: &Inode) -> bool {
        let (born, other_born) = (self.born, other.born);
        self.number == other.number && (born.is_none() || other_born.is_none() || born == other_born)
    }
}

impl UndoDirectory {
    /// Opens it, and makes it where it is missing.
    pub(super) fn open(root: &Arc<OwnedFd>) -> Result<UndoDirectory, Errno> {
        let mut outcome = Errno::NOENT;
        for _ in 0..RACES_MAX {
            let private = open_private(root.as_fd())?;
            match make_and_enter(private.as_fd(), UNDO.as_bytes()) {
                Ok(directory) => {
                    return Ok(UndoDirectory {
                        root: Arc::clone(root),
                        private,
                        directory,
                    });
                }
                Err(errno) => outcome = errno,
            }
            if outcome != Errno::NOENT {
                break;
            }
        }
        Err(outcome)
    }

    /// Starts a record under a fresh name.
    pub(super) fn create(&self, undone: &Undone) -> io::Result<RecordWriter> {
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(|error| io::Error::other(error.to_string()))?;
        let name = format!("{:016x}", u64::from_ne_bytes(random));
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let unfinished = format!("{name}{UNFINISHED}");
        let opened = openat(&self.directory, unfinished.as_str(), flags, Mode::RUSR | Mode::WUSR)?;
        let mut writer = RecordWriter::new(File::from(opened), name);
        // A file system without locks is used by one process only.
        let started = match flock(&writer.file, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => Err(Errno::AGAIN.into()),
            _ => writer.put_header(undone),
        };
        if let Err(error) = started {
            self.remove(&unfinished, Flush::Nothing)?;
            return Err(error);
        }
        Ok(writer)
    }

    /// Gives a whole record its final name: from now on the file may be changed.
    pub(super) fn publish(&self, record: &RecordWriter, flushing: Flush) -> io::Result<()> {
        let unfinished = record.unfinished();
        if flushing == Flush::Disk {
            flush(&record.file)?;
        }
        let renamed = renameat_with(
            &self.directory,
            unfinished.as_str(),
            &self.directory,
            record.name.as_str(),
            RenameFlags::NOREPLACE,
        );
        match renamed {
            Err(Errno::INVAL | Errno::NOSYS) => {
                rustix::fs::renameat(
                    &self.directory,
                    unfinished.as_str(),
                    &self.directory,
                    record.name.as_str(),
                )?;
            }
            other => other?,
        }
        if flushing == Flush::Disk {
            // The directories above may be new as well. They were opened as mere paths.
            for directory in [self.directory.as_fd(), self.private.as_fd(), self.root.as_fd()] {
                flush_directory(directory)?;
            }
        }
        Ok(())
    }

    /// Makes durable that a record went.
    pub(super) fn flush(&self) -> io::Result<()> {
        flush_directory(self.directory.as_fd())
    }

    /// Removes a record, finished or not.
    pub(super) fn remove(&self, name: &str, flushing: Flush) -> io::Result<()> {
        match unlinkat(&self.directory, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
        if flushing == Flush::Disk {
            flush_directory(self.directory.as_fd())?;
        }
        Ok(())
    }
}

impl Drop for UndoDirectory {
    fn drop(&mut self) {
        let _ = unlinkat(&self.private, UNDO, AtFlags::REMOVEDIR);
        remove_private_if_empty(self.root.as_fd());
    }
}

fn flush_directory(directory: BorrowedFd<'_>) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    flush(openat(directory, ".", flags, Mode::empty())?)
}

impl RecordWriter {
    /// A record in an empty file. It begins with [`RecordWriter::put_header`].
    pub(super) fn new(file: File, name: String) -> RecordWriter {
        RecordWriter {
            file,
            name,
            at: 0,
            count: 0,
            crc: crc32fast::Hasher::new(),
        }
    }

    /// The record as an open file, to roll back from.
    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// The final name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The name until it is published.
    pub(super) fn unfinished(&self) -> String {
        format!("{}{UNFINISHED}", self.name)
    }

    /// Adds old bytes.
    pub(super) fn push(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        debug_assert!((1..=RANGE_BYTES_MAX).contains(&bytes.len()));
        let zeros = bytes.iter().all(|&byte| byte == 0);
        let mut header = [0; RANGE_HEADER_BYTES];
        header[..8].copy_from_slice(&offset.to_le_bytes());
        header[8..12].copy_from_slice(&(bytes.len() as u32).to_le_bytes());
        header[12..16].copy_from_slice(&u32::from(!zeros).to_le_bytes());
        let stored = if zeros { &[][..] } else { bytes };
        let mut crc = crc32fast::Hasher::new();
        crc.update(&header[..16]);
        crc.update(stored);
        header[16..].copy_from_slice(&crc.finalize().to_le_bytes());
        self.put(&header)?;
        self.put(stored)?;
        self.count += 1;
        Ok(())
    }

    /// Writes the end.
    pub(super) fn finish(&mut self) -> io::Result<()> {
        let mut end = [0; 16];
        end[..8].copy_from_slice(&END.to_le_bytes());
        end[8..].copy_from_slice(&self.count.to_le_bytes());
        self.put(&end)?;
        let crc = self.crc.clone().finalize();
        self.put(&crc.to_le_bytes())
    }

    /// Writes what the record is about.
    pub(super) fn put_header(&mut self, undone: &Undone) -> io::Result<()> {
        let mut header = encode_header(undone);
        let crc = crc32fast::hash(&header);
        header.extend(crc.to_le_bytes());
        self.put(&header)
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, self.at)?;
        self.crc.update(bytes);
        self.at += bytes.len() as u64;
        Ok(())
    }
}

fn encode_header(undone: &Undone) -> Vec<u8> {
    let path = undone.path.as_bytes();
    let born = undone.inode.born.unwrap_or(Timestamp {
        seconds: 0,
        nanos: UNKNOWN,
    });
    let mut header = Vec::with_capacity(HEADER_BYTES + path.len() + CRC_BYTES);
    header.extend(MAGIC);
    header.extend(VERSION.to_le_bytes());
    header.extend((path.len() as u32).to_le_bytes());
    header.extend(undone.inode.number.to_le_bytes());
    header.extend(born.seconds.to_le_bytes());
    header.extend(born.nanos.to_le_bytes());
    header.extend(undone.meta.mode.to_le_bytes());
    header.extend(undone.old_length.to_le_bytes());
    header.extend(undone.new_length.to_le_bytes());
    header.extend(undone.meta.mtime.seconds.to_le_bytes());
    header.extend(undone.meta.mtime.nanos.min(NANOS_END - 1).to_le_bytes());
    debug_assert_eq!(header.len(), HEADER_BYTES);
    header.extend(path);
    header
}

impl<'a> RecordReader<'a> {
    /// Reads what the record is about.
    pub(super) fn open(file: &'a File) -> Result<(RecordReader<'a>, Undone), RecordFault> {
        let mut reader = RecordReader {
            file,
            at: 0,
            count: 0,
            crc: crc32fast::Hasher::new(),
            old_length: 0,
            reached: 0,
        };
        let mut header = vec![0; HEADER_BYTES];
        reader.take(&mut header)?;
        if header[..8] != MAGIC {
            return Err(RecordFault::Damaged);
        }
        let version = u32_at(&header, 8);
        if version != VERSION {
            return Err(RecordFault::Version(version));
        }
        let path_bytes = u32_at(&header, 12) as usize;
        if path_bytes > PATH_BYTES_MAX {
            return Err(RecordFault::Damaged);
        }
        header.resize(HEADER_BYTES + path_bytes, 0);
        reader.take(&mut header[HEADER_BYTES..])?;
        let mut crc = [0; CRC_BYTES];
        reader.take(&mut crc)?;
        if crc32fast::hash(&header) != u32::from_le_bytes(crc) {
            return Err(RecordFault::Damaged);
        }
        let undone = decode_header(&header).ok_or(RecordFault::Damaged)?;
        reader.old_length = undone.old_length;
        Ok((reader, undone))
    }

    /// The next range, its bytes in `buffer`; `None` at the end of a whole record.
    pub(super) fn next(&mut self, buffer: &mut Vec<u8>) -> Result<Option<OldRange>, RecordFault> {
        let before = self.crc.clone();
        let mut header = [0; RANGE_HEADER_BYTES];
        self.take(&mut header)?;
        let (offset, length) = (u64_at(&header, 0), u32_at(&header, 8) as usize);
        if offset == END {
            return self.end(before, &header).map(|()| None);
        }
        let form = match u32_at(&header, 12) {
            0 => OldForm::Zeros,
            1 => OldForm::Bytes,
            _ => return Err(RecordFault::Damaged),
        };
        let reach = offset.checked_add(length as u64).ok_or(RecordFault::Damaged)?;
        if length == 0 || length > RANGE_BYTES_MAX || offset < self.reached || reach > self.old_length {
            return Err(RecordFault::Damaged);
        }
        buffer.resize(if form == OldForm::Bytes { length } else { 0 }, 0);
        self.take(buffer)?;
        let mut crc = crc32fast::Hasher::new();
        crc.update(&header[..16]);
        crc.update(buffer);
        if crc.finalize() != u32_at(&header, 16) {
            return Err(RecordFault::Damaged);
        }
        self.reached = reach;
        self.count += 1;
        Ok(Some(OldRange { offset, length, form }))
    }

    fn end(&self, mut crc: crc32fast::Hasher, end: &[u8; RANGE_HEADER_BYTES]) -> Result<(), RecordFault> {
        crc.update(&end[..16]);
        let whole = self.file.metadata().map_err(RecordFault::Disk)?.len() == self.at;
        if whole && u64_at(end, 8) == self.count && u32_at(end, 16) == crc.finalize() {
            Ok(())
        } else {
            Err(RecordFault::Damaged)
        }
    }

    fn take(&mut self, bytes: &mut [u8]) -> Result<(), RecordFault> {
        self.file
            .read_exact_at(bytes, self.at)
            .map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => RecordFault::Damaged,
                _ => RecordFault::Disk(error),
            })?;
        self.crc.update(bytes);
        self.at += bytes.len() as u64;
        Ok(())
    }
}

fn decode_header(header: &[u8]) -> Option<Undone> {
    let born = Timestamp {
        seconds: u64_at(header, 24).cast_signed(),
        nanos: u32_at(header, 32),
    };
    let undone = Undone {
        path: RelPath::parse(&header[HEADER_BYTES..]).ok()?,
        inode: Inode {
            number: u64_at(header, 16),
            born: (born.nanos != UNKNOWN).then_some(born),
        },
        old_length: u64_at(header, 40),
        new_length: u64_at(header, 48),
        meta: Meta {
            mode: u32_at(header, 36) & Meta::MODE_MASK,
            mtime: Timestamp {
                seconds: u64_at(header, 56).cast_signed(),
                nanos: u32_at(header, 64),
            },
        },
    };
    let lengths = undone.old_length.max(undone.new_length);
    (undone.meta.mtime.nanos < NANOS_END && lengths <= FILE_BYTES_MAX).then_some(undone)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes were taken"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes were taken"))
}

#[cfg(test)]
#[path = "undo_tests.rs"]
mod tests;
