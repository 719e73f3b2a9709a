//! `recover`: files that were being changed in place when their process ended become what they were.
//!
//! 1. Unfinished records go: their files were not touched yet. Records that a living process holds the
//!    lock of are left alone.
//! 2. A finished record is read to its end before anything is written. Then its file gets the old length,
//!    the old bytes, mode and time, and is flushed; then the record goes.
//! 3. A record that is damaged, or whose file is not the one it speaks of, stays and is reported.
//!
//! Being killed between any two of these calls is harmless: everything is done again from the start.
//! Never makes a file. Invariant: a record goes only after the file that it was for is as it was.

use super::error::{FileError, Operation};
use super::holes;
use super::meta;
use super::private::enter_private;
use super::resolve::enter;
use super::root::Root;
use super::undo::{Flush, Inode, OldForm, RecordFault, RecordReader, UNDO, UNFINISHED, UndoDirectory, Undone};
use crate::model::{Escaped, ItemCode, Meta, RelPath};
use rustix::fd::AsFd;
use rustix::fs::{AtFlags, Dir, FlockOperation, Mode, OFlags, flock, fstat, openat, statat};
use rustix::io::Errno;
use std::fmt;
use std::fs::File;
use std::os::unix::fs::FileExt;

/// What a recovery did.
#[derive(Debug, Default)]
pub struct Recovery {
    /// Files that are as they were before.
    pub rolled_back: Vec<RelPath>,
    /// Records of files that had not been touched.
    pub unfinished: u64,
    /// Records that somebody has to look at.
    pub kept: Vec<KeptRecord>,
}

/// A record that could not be used. It is left in `.syncline/undo/`.
#[derive(Debug)]
pub struct KeptRecord {
    /// Its file name.
    pub name: String,
    /// The file that it is for, if that much can be read.
    pub path: Option<RelPath>,
    /// Why it was not used.
    pub reason: KeptReason,
}

/// Why a record was not used.
#[derive(Debug)]
pub enum KeptReason {
    /// It does not hold what was written.
    Damaged,
    /// A later version of Syncline made it.
    Version(u32),
    /// The file is gone, or another one stands in its place, or somebody changed its length.
    OtherFile,
    /// The file system failed; the next recovery tries again.
    Failed(FileError),
}

impl fmt::Display for KeptRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.path {
            Some(path) => write!(f, "{} may be half changed", Escaped(path.as_bytes()))?,
            None => f.write_str("a file may be half changed")?,
        }
        write!(
            f,
            "; its old content stays in .syncline/undo/{}: ",
            Escaped(self.name.as_bytes())
        )?;
        match &self.reason {
            KeptReason::Damaged => f.write_str("that record is damaged"),
            KeptReason::Version(version) => write!(f, "that record has the unknown version {version}"),
            KeptReason::OtherFile => f.write_str("the file was changed or replaced since"),
            KeptReason::Failed(error) => error.fmt(f),
        }
    }
}

/// Rolls back what was left half changed below `root`. For everything that is about to use a root.
///
/// # Errors
/// When the directory of the records is there and cannot be read.
pub fn recover(root: &Root, flush: Flush) -> Result<Recovery, FileError> {
    let mut recovery = Recovery::default();
    let failed = |errno: Errno| FileError::at(Operation::Read, b".syncline/undo", errno);
    let private = match enter_private(root.directory().as_fd()) {
        Err(Errno::NOENT) => return Ok(recovery),
        other => other.map_err(failed)?,
    };
    let listed = match enter(private.as_fd(), UNDO.as_bytes(), OFlags::RDONLY) {
        Err(Errno::NOENT) => return Ok(recovery),
        other => other.map_err(failed)?,
    };
    let undo = UndoDirectory::open(root.directory()).map_err(failed)?;
    for entry in Dir::read_from(&listed).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_string_lossy();
        if name == "." || name == ".." {
            continue;
        }
        recover_one(root, &undo, &name, flush, &mut recovery);
    }
    Ok(recovery)
}

fn recover_one(root: &Root, undo: &UndoDirectory, name: &str, flush: Flush, recovery: &mut Recovery) {
    let (path, outcome) = match claim(undo, name) {
        Ok(None) => return,
        Ok(Some(_)) if name.ends_with(UNFINISHED) => {
            let removed = undo.remove(name, flush);
            recovery.unfinished += u64::from(removed.is_ok());
            let failed = |error| KeptReason::Failed(FileError::at(Operation::Remove, name.as_bytes(), error));
            (None, removed.map_err(failed))
        }
        Ok(Some(record)) => roll_back(root, undo, name, &record, flush),
        Err(errno) => {
            let error = FileError::at(Operation::Read, name.as_bytes(), errno);
            (None, Err(KeptReason::Failed(error)))
        }
    };
    match (path, outcome) {
        (path, Err(reason)) => recovery.kept.push(KeptRecord {
            name: name.to_owned(),
            path,
            reason,
        }),
        (Some(path), Ok(())) => recovery.rolled_back.push(path),
        (None, Ok(())) => {}
    }
}

/// Opens and locks a record; `None` when it belongs to a living process, or went meanwhile.
fn claim(undo: &UndoDirectory, name: &str) -> Result<Option<File>, Errno> {
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match openat(&undo.directory, name, flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(None),
        other => File::from(other?),
    };
    if flock(&file, FlockOperation::NonBlockingLockExclusive) == Err(Errno::WOULDBLOCK) {
        return Ok(None);
    }
    // Its process may have ended its work between our opening and our locking it.
    let ours = fstat(&file)?;
    match statat(&undo.directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) if (stat.st_dev, stat.st_ino) == (ours.st_dev, ours.st_ino) => Ok(Some(file)),
        Ok(_) | Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Makes the file of `record` what it was, and removes the record. The caller holds its lock.
pub(super) fn roll_back(
    root: &Root,
    undo: &UndoDirectory,
    name: &str,
    record: &File,
    flush: Flush,
) -> (Option<RelPath>, Result<(), KeptReason>) {
    let undone = match check_record(record) {
        Ok(undone) => undone,
        Err(fault) => return (None, Err(reason_of(fault, name))),
    };
    let path = undone.path.clone();
    let outcome = Rollback::open(root, record, undone, flush).and_then(|mut rollback| {
        while rollback.step()? == Step::More {}
        undo.remove(name, flush)
            .map_err(|error| KeptReason::Failed(FileError::at(Operation::Remove, name.as_bytes(), error)))
    });
    (Some(path), outcome)
}

/// Reads all of a record.
pub(super) fn check_record(record: &File) -> Result<Undone, RecordFault> {
    let (mut reader, undone) = RecordReader::open(record)?;
    let mut buffer = Vec::new();
    while reader.next(&mut buffer)?.is_some() {}
    Ok(undone)
}

fn reason_of(fault: RecordFault, name: &str) -> KeptReason {
    match fault {
        RecordFault::Damaged => KeptReason::Damaged,
        RecordFault::Version(version) => KeptReason::Version(version),
        RecordFault::Disk(error) => KeptReason::Failed(FileError::at(Operation::Read, name.as_bytes(), error)),
    }
}

/// Putting the old content back, in steps.
struct Rollback<'a> {
    file: File,
    reader: RecordReader<'a>,
    undone: Undone,
    stage: Stage,
    buffer: Vec<u8>,
    flush: Flush,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Length,
    Ranges,
    Meta,
    Flush,
    Over,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    More,
    Done,
}

impl<'a> Rollback<'a> {
    /// The file must be the one that the record is of.
    fn open(root: &Root, record: &'a File, undone: Undone, flush: Flush) -> Result<Rollback<'a>, KeptReason> {
        let (reader, _) = RecordReader::open(record).map_err(|fault| reason_of(fault, ""))?;
        let file = open_for_writing(root, &undone).map_err(|error| match error.code() {
            ItemCode::Vanished | ItemCode::Escapes | ItemCode::Special | ItemCode::InTheWay => KeptReason::OtherFile,
            _ => KeptReason::Failed(error),
        })?;
        let failed = |errno: Errno| KeptReason::Failed(FileError::new(Operation::Examine, &undone.path, errno));
        let inode = Inode::of(file.as_fd()).map_err(failed)?;
        let stat = fstat(&file).map_err(failed)?;
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        // Taking room makes a file grow step by step on some file systems.
        let (old, new) = (undone.old_length, undone.new_length);
        if !inode.matches(&undone.inode) || size < old.min(new) || size > old.max(new) {
            return Err(KeptReason::OtherFile);
        }
        Ok(Rollback {
            file,
            reader,
            undone,
            stage: Stage::Length,
            buffer: Vec::new(),
            flush,
        })
    }

    fn step(&mut self) -> Result<Step, KeptReason> {
        let stage = self.stage;
        self.stage = match stage {
            Stage::Length => self.file.set_len(self.undone.old_length).map(|()| Stage::Ranges),
            Stage::Ranges => return self.next_range().map(|()| Step::More),
            Stage::Meta => meta::apply(self.file.as_fd(), &self.undone.meta)
                .map(|()| Stage::Flush)
                .map_err(Into::into),
            Stage::Flush if self.flush == Flush::Disk => super::barrier::flush(&self.file).map(|()| Stage::Over),
            Stage::Flush | Stage::Over => Ok(Stage::Over),
        }
        .map_err(|error| KeptReason::Failed(FileError::new(Operation::Write, &self.undone.path, error)))?;
        Ok(if self.stage == Stage::Over {
            Step::Done
        } else {
            Step::More
        })
    }

    fn next_range(&mut self) -> Result<(), KeptReason> {
        let next = self.reader.next(&mut self.buffer);
        let Some(range) = next.map_err(|fault| reason_of(fault, ""))? else {
            self.stage = Stage::Meta;
            return Ok(());
        };
        let written = match range.form {
            OldForm::Bytes => self.file.write_all_at(&self.buffer, range.offset),
            OldForm::Zeros => match holes::punch(&self.file, range.offset, range.length as u64) {
                Ok(()) => Ok(()),
                Err(_) => self.file.write_all_at(&vec![0; range.length], range.offset),
            },
        };
        written.map_err(|error| KeptReason::Failed(FileError::new(Operation::Write, &self.undone.path, error)))
    }
}

/// Opens a regular file beneath `root`, also one whose final mode forbids writing.
fn open_for_writing(root: &Root, undone: &Undone) -> Result<File, FileError> {
    let path = &undone.path;
    match open_in_place(root, path) {
        Err(error) if error.code() == ItemCode::Permission => {
            let found = root
                .probe(path)?
                .filter(|found| found.identity.inode() == undone.inode.number)
                .ok_or_else(|| FileError::found(Operation::Open, path.as_bytes(), ItemCode::Vanished))?;
            let meta = Meta {
                mode: found.meta.mode | 0o600,
                mtime: found.meta.mtime,
            };
            root.set_meta(path, &meta)?;
            open_in_place(root, path)
        }
        other => other,
    }
}

/// Opens an existing regular file for reading and writing. Never hangs, never follows a link.
pub(super) fn open_in_place(root: &Root, path: &RelPath) -> Result<File, FileError> {
    let place = root.place(path)?;
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let opened = openat(&place.parent, place.name, flags, Mode::empty())
        .map_err(|errno| FileError::new(Operation::Open, path, errno))?;
    let file = File::from(opened);
    let regular = file
        .metadata()
        .map_err(|error| FileError::new(Operation::Examine, path, error))?
        .is_file();
    if regular {
        Ok(file)
    } else {
        Err(FileError::found(Operation::Open, path.as_bytes(), ItemCode::Special))
    }
}
