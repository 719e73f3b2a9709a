//! `PatchedFile`: a staged file that is made from an older version of itself, the basis.
//!
//! 1. Where the file system can, the staged file starts as a clone of the basis that shares all its
//!    blocks; what stays in its place costs nothing then. Elsewhere it starts empty: with room for all
//!    of it, or, when the basis has holes, without.
//! 2. Copies come from the basis, never from the clone, which may be overwritten there already. They go
//!    through `copy_file_range`, which shares whole blocks where it can, or else through a buffer. A hole
//!    is copied as a hole.
//! 3. Which leaves stand where they stood in the basis, untouched, is noted: those need not be hashed.
//!
//! Awkward cases: a basis that shrinks meanwhile, short copies, file systems whose calls copy nothing or
//! refuse, a last leaf that is shorter in one of the two versions (it has another hash, so it is never
//! kept). Reads no plan and hashes nothing. Invariant: a leaf counts as kept only when every byte of it
//! was copied in place and nothing was written over it; and nothing is sealed whose basis has changed.

use super::error::{FileError, Operation};
use super::holes::{self, Form};
use super::journal::TransferId;
use super::marks::Marks;
use super::source::{Extent, SourceFile};
use super::staged::{Sealed, StagedFile};
use super::staging::{Room, Staging};
use crate::model::limits::LEAF_BYTES;
use crate::model::{ItemCode, Meta, RelPath};
use rustix::fs::{copy_file_range, ioctl_ficlone};
use rustix::io::Errno;
use std::cell::RefCell;
use std::fs::File;
use std::ops::Range;

/// A staged file with a basis.
#[derive(Debug)]
pub struct PatchedFile {
    staged: StagedFile,
    basis: SourceFile,
    start: Start,
    length: u64,
    copier: Copier,
    /// Behind this, the staged file is as it started.
    written_to: u64,
    kept: Marks,
    /// The last bytes that were copied in place, without a gap.
    kept_run: Range<u64>,
}

/// What the staged file held before anything was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Start {
    /// The basis, by shared blocks.
    Clone,
    /// Zeros.
    Empty,
}

/// How bytes get from the basis to the staged file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Copier {
    /// By `copy_file_range`, where nothing speaks against it.
    Kernel,
    /// By reading and writing.
    Buffer,
}

/// Bytes that one call copies at most: 0.25 ms on ext4 with a warm cache (4 MiB took 0.98 ms, 8 MiB
/// 1.96 ms, medians over 256 MiB). With a disk that is behind it takes many times that.
const STEP_BYTES: u64 = 1 << 20;

const BUFFER_BYTES: usize = 256 << 10;

thread_local! {
    /// What is copied by reading and writing, for all files of a thread: only one of them is copied at a time.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Blocks are shared in these units on every file system that shares any; larger ones only copy more.
const BLOCK: u64 = 4096;

const LEAF: u64 = LEAF_BYTES as u64;

impl Staging {
    /// A new file (0600) of `new_length` bytes for what will be `path`, to be made from `basis`. All of
    /// it has to be copied or written.
    ///
    /// # Errors
    /// When it cannot be made, or there is not enough room.
    pub fn create_patched(&self, path: &RelPath, basis: SourceFile, new_length: u64) -> Result<PatchedFile, FileError> {
        PatchedFile::of(self, self.create(path, Room::Sparse)?, basis, new_length)
    }

    /// The same with a file that stays when it is dropped, until it is published or discarded.
    ///
    /// # Errors
    /// When it cannot be made, or there is not enough room.
    pub fn create_kept_patched(
        &self,
        path: &RelPath,
        basis: SourceFile,
        new_length: u64,
        id: TransferId,
    ) -> Result<PatchedFile, FileError> {
        PatchedFile::of(self, self.create_kept(path, Room::Sparse, id)?, basis, new_length)
    }
}

impl PatchedFile {
    fn of(staging: &Staging, staged: StagedFile, basis: SourceFile, new_length: u64) -> Result<PatchedFile, FileError> {
        let path = staged.path().clone();
        let failed = |errno| FileError::new(Operation::Write, &path, errno);
        let start = clone(staging, staged.file(), basis.file()).map_err(failed)?;
        // Behind the end of a clone is new room, like all of an empty file.
        let present = match start {
            Start::Clone => basis.size().min(new_length),
            Start::Empty => 0,
        };
        match basis.is_sparse() {
            true => staged.set_length(new_length)?,
            false => staged.reserve_behind(present, new_length)?,
        }
        Ok(PatchedFile {
            staged,
            basis,
            start,
            length: new_length,
            copier: Copier::Kernel,
            written_to: 0,
            kept: Marks::default(),
            kept_run: 0..0,
        })
    }

    /// Goes on with a staged file whose first `done` bytes are those of the result.
    ///
    /// # Errors
    /// When it cannot be made as long as it is to be.
    pub fn behind(staged: StagedFile, basis: SourceFile, new_length: u64, done: u64) -> Result<PatchedFile, FileError> {
        // What stood behind that was of an earlier attempt.
        staged.set_length(done)?;
        match basis.is_sparse() {
            true => staged.set_length(new_length)?,
            false => staged.reserve_behind(done, new_length)?,
        }
        Ok(PatchedFile {
            staged,
            basis,
            start: Start::Empty,
            length: new_length,
            copier: Copier::Kernel,
            written_to: done,
            kept: Marks::default(),
            kept_run: done..done,
        })
    }

    /// Has the staged file stay from now on, as the kept file of `id`.
    ///
    /// # Errors
    /// When it cannot be moved; then it is what it was.
    pub fn keep(&mut self, staging: &Staging, id: TransferId) -> Result<(), FileError> {
        staging.keep(&mut self.staged, id)
    }

    /// The staged file, for reading back what it holds.
    #[must_use]
    pub fn staged(&self) -> &StagedFile {
        &self.staged
    }

    /// The version that it is made from.
    #[must_use]
    pub fn basis(&self) -> &SourceFile {
        &self.basis
    }

    /// Bytes that the result has.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Whether it shares blocks with the basis: what is copied in place takes neither time nor room.
    #[must_use]
    pub fn is_clone(&self) -> bool {
        self.start == Start::Clone
    }

    /// Copies `length` bytes at `from` in the basis to `to`, or the first of them: a call copies at most
    /// 4 MiB, more only where nothing has to be moved.
    ///
    /// # Returns
    /// The bytes that are done, at least one unless `length` is 0. The caller goes on behind them.
    ///
    /// # Errors
    /// [`ItemCode::Mismatch`] when a range reaches behind an end, [`ItemCode::Changing`] when the basis
    /// has become shorter; or the disk is full or fails.
    pub fn copy(&mut self, from: u64, to: u64, length: u64) -> Result<u64, FileError> {
        self.check(from, length, self.basis.size())?;
        self.check(to, length, self.length)?;
        let in_place = from == to;
        let done = if length == 0 || (in_place && self.is_clone() && to >= self.written_to) {
            length
        } else {
            let done = self.copy_extent(from, to, length)?;
            self.written_to = self.written_to.max(to + done);
            done
        };
        if in_place {
            self.note_kept(to..to + done);
        } else {
            self.note_changed(to..to + done);
        }
        Ok(done)
    }

    /// Writes all of `bytes` at `to`; also over what was copied or written before.
    ///
    /// # Errors
    /// [`ItemCode::Mismatch`] when they reach behind the end; or the disk is full or fails.
    pub fn write_at(&mut self, to: u64, bytes: &[u8]) -> Result<(), FileError> {
        let length = bytes.len() as u64;
        self.check(to, length, self.length)?;
        let is_fresh = self.start == Start::Empty && to >= self.written_to;
        // Noted first: after a failure part of them may stand there.
        self.written_to = self.written_to.max(to + length);
        self.note_changed(to..to + length);
        if !self.basis.is_sparse() {
            return self.staged.write_at(to, bytes);
        }
        // A sparse file stays sparse: pages of zeros take no room.
        for (at, form, part) in holes::parts(to, bytes) {
            let is_hole = form == Form::Zeros && (is_fresh || self.punch(at, part.len() as u64));
            if !is_hole {
                self.staged.write_at(at, part)?;
            }
        }
        Ok(())
    }

    /// Makes a hole of a range; `false` where the file system cannot.
    fn punch(&self, from: u64, length: u64) -> bool {
        holes::punch(self.staged.file(), from, length).is_ok()
    }

    /// Whether the leaf (16 KiB, counted from 0) is byte for byte the one that the basis has there, as
    /// long as the basis has not changed. One that only one of the versions cuts short is not.
    #[must_use]
    pub fn is_kept(&self, leaf: u64) -> bool {
        self.kept.contains(leaf)
    }

    /// The first run of leaves at or after `leaf` that are not kept: those to hash.
    #[must_use]
    pub fn next_dirty(&self, leaf: u64) -> Option<Range<u64>> {
        self.kept.next_gap(leaf, self.length.div_ceil(LEAF))
    }

    /// Whether the basis is still as it was when it was opened. [`PatchedFile::seal`] asks, too.
    ///
    /// # Errors
    /// [`ItemCode::Changing`] when it is not: the result is worth nothing then.
    pub fn check_basis(&self) -> Result<(), FileError> {
        if self.basis.unchanged()? {
            Ok(())
        } else {
            Err(self.found(Operation::Read, ItemCode::Changing))
        }
    }

    /// The staged file alone: what it holds is the basis of another attempt.
    #[must_use]
    pub fn into_staged(self) -> StagedFile {
        self.staged
    }

    /// Ends the writing, with mode and times as in `meta`.
    ///
    /// # Errors
    /// As [`PatchedFile::check_basis`], or when the file system refuses; the file is removed then.
    pub fn seal(self, meta: &Meta) -> Result<Sealed, FileError> {
        self.check_basis()?;
        self.staged.seal(meta, self.length)
    }

    fn check(&self, offset: u64, length: u64, end: u64) -> Result<(), FileError> {
        match offset.checked_add(length) {
            Some(reach) if reach <= end => Ok(()),
            _ => Err(self.found(Operation::Write, ItemCode::Mismatch)),
        }
    }

    fn found(&self, operation: Operation, code: ItemCode) -> FileError {
        FileError::found(operation, self.staged.path().as_bytes(), code)
    }

    fn copy_extent(&mut self, from: u64, to: u64, length: u64) -> Result<u64, FileError> {
        match self.basis.next_extent(from)? {
            Extent::Hole { length: hole } => self.copy_hole(to, length.min(hole)),
            Extent::Data { length: data } => self.copy_data(from, to, length.min(data).min(STEP_BYTES)),
            Extent::End => Err(self.found(Operation::Read, ItemCode::Changing)),
        }
    }

    fn copy_hole(&self, to: u64, length: u64) -> Result<u64, FileError> {
        if self.start == Start::Empty && to >= self.written_to {
            return Ok(length);
        }
        match holes::punch(self.staged.file(), to, length) {
            Ok(()) => return Ok(length),
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => {}
            Err(errno) => return Err(FileError::new(Operation::Write, self.staged.path(), errno)),
        }
        let zeros = vec![0; length.min(BUFFER_BYTES as u64) as usize];
        self.staged.write_at(to, &zeros)?;
        Ok(zeros.len() as u64)
    }

    fn copy_data(&mut self, from: u64, to: u64, length: u64) -> Result<u64, FileError> {
        // At an odd distance the kernel copies page by page across their borders: on ext4 that takes half as long
        // again as a buffer does. Onto a clone it also reads each page that it fills in part: 8 MiB took 80 ms on XFS.
        let at_odd_distance = from % BLOCK != to % BLOCK;
        if self.copier == Copier::Buffer || at_odd_distance {
            return self.copy_by_buffer(from, to, length);
        }
        let length = match self.start {
            Start::Clone => until_border(from, length),
            Start::Empty => length,
        };
        self.staged.make_room(to + length)?;
        match kernel_copy(self.basis.file(), from, self.staged.file(), to, length) {
            Ok(0) => {}
            Ok(done) => return Ok(done),
            Err(errno) if is_refusal(errno) => {
                log::debug!("{}: copying through a buffer: {errno}", self.staged.path());
                self.copier = Copier::Buffer;
            }
            Err(errno) => return Err(FileError::new(Operation::Write, self.staged.path(), errno)),
        }
        self.copy_by_buffer(from, to, length)
    }

    fn copy_by_buffer(&self, from: u64, to: u64, length: u64) -> Result<u64, FileError> {
        // Whole blocks of the target, so that none is written twice.
        let wanted = until_border(to, length.min(BUFFER_BYTES as u64)) as usize;
        BUFFER.with_borrow_mut(|buffer| {
            buffer.resize(BUFFER_BYTES, 0);
            let count = self.basis.read_at(from, &mut buffer[..wanted])?;
            if count == 0 {
                return Err(self.found(Operation::Read, ItemCode::Changing));
            }
            self.staged.write_at(to, &buffer[..count])?;
            Ok(count as u64)
        })
    }

    fn note_kept(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        if self.kept_run.end != range.start {
            self.kept_run.start = range.start;
        }
        self.kept_run.end = range.end;
        let first = self.kept_run.start.div_ceil(LEAF).max(range.start / LEAF);
        let last_is_whole = range.end == self.length && self.length == self.basis.size();
        let end = if last_is_whole {
            range.end.div_ceil(LEAF)
        } else {
            range.end / LEAF
        };
        self.kept.set(first..end);
    }

    fn note_changed(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        self.kept.clear(range.start / LEAF..range.end.div_ceil(LEAF));
        if range.start < self.kept_run.end && self.kept_run.start < range.end {
            self.kept_run = range.end..range.end;
        }
    }
}

/// What of `length` bytes at `offset` can go in one piece so that it begins and ends at borders of blocks:
/// up to the first border, or up to the last. (A call that does not, shares no block at all.)
fn until_border(offset: u64, length: u64) -> u64 {
    let first = offset.next_multiple_of(BLOCK) - offset;
    match first {
        0 if length > BLOCK => length - length % BLOCK,
        0 => length,
        _ => length.min(first),
    }
}

/// Makes `staged`, which is empty, a clone of `basis` where the file system can.
fn clone(staging: &Staging, staged: &File, basis: &File) -> Result<Start, Errno> {
    if staging.refuses_clones.get() {
        return Ok(Start::Empty);
    }
    loop {
        match ioctl_ficlone(staged, basis) {
            Ok(()) => return Ok(Start::Clone),
            Err(Errno::INTR) => {}
            // Whatever the pair: it is asked once.
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::NOTTY) => {
                staging.refuses_clones.set(true);
                return Ok(Start::Empty);
            }
            Err(errno) if is_refusal(errno) => return Ok(Start::Empty),
            Err(errno) => return Err(errno),
        }
    }
}

/// One copy by the kernel; it may be short. 0 at the end of `source`, and from file systems that
/// cannot and do not say so.
fn kernel_copy(source: &File, from: u64, target: &File, to: u64, length: u64) -> Result<u64, Errno> {
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    loop {
        let (mut from, mut to) = (from, to);
        match copy_file_range(source, Some(&mut from), target, Some(&mut to), length) {
            Ok(done) => return Ok(done as u64),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// The file system, the pair of file systems or a sandbox does not do this; reading and writing may.
fn is_refusal(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::OPNOTSUPP
            | Errno::XDEV
            | Errno::INVAL
            | Errno::NOSYS
            | Errno::NOTTY
            | Errno::PERM
            | Errno::ACCESS
            | Errno::TXTBSY
            | Errno::BADF
    )
}

#[cfg(test)]
#[path = "patched_tests.rs"]
mod tests;
