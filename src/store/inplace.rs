//! `InPlace`: a huge file that is changed where it lies, safe against crashes by an undo record.
//!
//! 1. Changes gather beside the file, page by page (`changes`); pages that are changed in part are filled up
//!    with old bytes. Repairs go the same way. The file itself is only read. Where they gather in a kept file,
//!    another process can go on behind the place that was noted last, over a file with the same content.
//! 2. The caller reads the result through this, old and new laid over each other, and checks it.
//! 3. A commit writes the old bytes of changed pages, and of a tail that is cut off, to an undo record; then takes
//!    room, writes the pages, makes holes, cuts, sets mode and time, flushes; then the record goes, or becomes a
//!    version. From that moment on the change is made, whatever happens.
//! 4. When 3 fails once the file was touched, it is rolled back at once, or, after a crash, by `recover`.
//!
//! Awkward cases: a file with more than one name is refused, since the others may lie outside of the root; as is one
//! that was replaced or written to since it was looked at, before it is touched. What another program writes while the
//! pages are written cannot be told from ours: that is the price of changing a file in place. Never touches the file
//! before `commit`. Invariant: from the first change to the last flush a complete record of the old content exists.

use super::barrier::{Barrier, flush};
use super::changes::{Changes, PAGE};
use super::error::{FileError, Operation};
use super::facts::{Found, Identity};
use super::holes::{Form, write_parts};
use super::journal::TransferId;
use super::laid::Laid;
use super::marks::Marks;
use super::meta;
use super::recovery::{open_in_place, roll_back};
use super::root::Root;
use super::source::SourceFile;
use super::staged::StagedFile;
use super::staging::{Room, Staging, reserve};
use super::undo::{Flush, Inode, RANGE_BYTES_MAX, RecordWriter, UndoDirectory, Undone};
use super::versions::{Keeping, Reason, Successor};
use crate::model::limits::LEAF_BYTES;
use crate::model::{ItemCode, Meta, RelPath};
use rustix::fd::AsFd;
use rustix::fs::fstat;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;

/// A file and the changes that are to be made to it.
#[derive(Debug)]
pub struct InPlace {
    root: Root,
    path: RelPath,
    file: File,
    old: SourceFile,
    changes: Changes,
    new_length: u64,
}

const LEAF: u64 = LEAF_BYTES as u64;

impl InPlace {
    /// Prepares to change the file at `path`, which must be as `expected`, to one of `new_length` bytes.
    /// What is not written stays; what is added is zeros.
    ///
    /// # Errors
    /// [`ItemCode::Changing`] when it is not as expected, [`ItemCode::InTheWay`] when it has more than
    /// one name, [`ItemCode::Permission`] when it may not be written, [`ItemCode::TooLarge`] from 1 TiB
    /// on: then it has to be replaced by a staged file instead.
    pub fn begin(
        root: &Root,
        staging: &Staging,
        path: &RelPath,
        expected: &Identity,
        new_length: u64,
    ) -> Result<InPlace, FileError> {
        InPlace::open(root, path, expected, new_length, || {
            let staged = staging.create(path, Room::Sparse)?;
            Ok(Changes::new(staged, new_length))
        })
    }

    /// The same with changes that stay when they are dropped, until they are committed or discarded.
    ///
    /// # Errors
    /// As [`InPlace::begin`].
    pub fn begin_kept(
        root: &Root,
        staging: &Staging,
        path: &RelPath,
        expected: &Identity,
        new_length: u64,
        id: TransferId,
    ) -> Result<InPlace, FileError> {
        InPlace::open(root, path, expected, new_length, || {
            let staged = staging.create_kept(path, Room::Sparse, id)?;
            Ok(Changes::new(staged, new_length))
        })
    }

    /// Goes on behind the first `done` bytes of the result, whose `changes` were gathered in a kept file and noted:
    /// over a file with the same content, and for a result of the same length.
    ///
    /// # Errors
    /// As [`InPlace::begin`], or when what was noted is not there; the kept file stays.
    pub fn go_on(
        root: &Root,
        path: &RelPath,
        expected: &Identity,
        new_length: u64,
        (changes, done): (StagedFile, u64),
    ) -> Result<InPlace, FileError> {
        InPlace::open(root, path, expected, new_length, || {
            Changes::adopt(changes, new_length, done)
        })
    }

    fn open(
        root: &Root,
        path: &RelPath,
        expected: &Identity,
        new_length: u64,
        changes: impl FnOnce() -> Result<Changes, FileError>,
    ) -> Result<InPlace, FileError> {
        let found = |code| FileError::found(Operation::Write, path.as_bytes(), code);
        let old = root.open_file(path)?;
        let file = open_in_place(root, path)?;
        let stat = fstat(&file).map_err(|errno| FileError::new(Operation::Examine, path, errno))?;
        if old.identity() != *expected || Found::of(&stat).identity != *expected {
            return Err(found(ItemCode::Changing));
        }
        if stat.st_nlink != 1 {
            return Err(found(ItemCode::InTheWay));
        }
        if !Marks::can_hold(old.size().max(new_length).div_ceil(PAGE)) {
            return Err(found(ItemCode::TooLarge));
        }
        Ok(InPlace {
            root: root.share(),
            path: path.clone(),
            file,
            old,
            changes: changes()?,
            new_length,
        })
    }

    /// The path of the file.
    #[must_use]
    pub fn path(&self) -> &RelPath {
        &self.path
    }

    /// The version that is changed, for reading.
    #[must_use]
    pub fn basis(&self) -> &SourceFile {
        &self.old
    }

    /// Bytes that the result has.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.new_length
    }

    /// Notes that `bytes` are to stand at `to`. The file is not touched.
    ///
    /// # Errors
    /// [`ItemCode::Mismatch`] when they reach behind the end; or the disk is full or fails.
    pub fn write_at(&mut self, to: u64, bytes: &[u8]) -> Result<(), FileError> {
        let end = match to.checked_add(bytes.len() as u64) {
            Some(end) if end <= self.new_length => end,
            _ => return Err(self.found(ItemCode::Mismatch)),
        };
        if bytes.is_empty() {
            return Ok(());
        }
        let (first, last) = (to / PAGE, (end - 1) / PAGE);
        if !to.is_multiple_of(PAGE) {
            self.fill(first)?;
        }
        if !end.is_multiple_of(PAGE) && end != self.new_length {
            self.fill(last)?;
        }
        self.changes.write_at(to, bytes)
    }

    /// Notes with the changes which of the first `done` bytes they are, so that [`InPlace::go_on`] finds them.
    /// Nothing may be written there any more.
    ///
    /// # Errors
    /// The disk is full or fails.
    pub fn note(&mut self, done: u64) -> Result<(), FileError> {
        self.changes.note(done)
    }

    /// The changes go when this is dropped, also if they were kept.
    #[must_use]
    pub fn unkept(self) -> InPlace {
        InPlace {
            changes: self.changes.unkept(),
            ..self
        }
    }

    /// Gives the changes up, also if they were kept.
    pub fn discard(self) {
        drop(self.unkept());
    }

    /// Fills `buffer` with what the result has at `offset`: old bytes with the changes laid over.
    ///
    /// # Returns
    /// The bytes read: less than the buffer's length only at the end of the result.
    ///
    /// # Errors
    /// [`ItemCode::Changing`] when the old file became shorter; or the disk does not give the bytes.
    pub fn read_through(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, FileError> {
        let count = (buffer.len() as u64).min(self.new_length.saturating_sub(offset)) as usize;
        let mut filled = 0;
        while filled < count {
            let at = offset + filled as u64;
            let page = at / PAGE;
            let is_changed = self.changed().contains(page);
            let run = if is_changed {
                self.changed().next_run(page)
            } else {
                self.changed().next_gap(page, u64::MAX / PAGE)
            };
            let end = run.map_or(page + 1, |run| run.end) * PAGE;
            let here = (end - at).min((count - filled) as u64) as usize;
            let part = &mut buffer[filled..filled + here];
            if is_changed {
                self.read_change(at, part)?;
            } else {
                self.read_old(at, part)?;
            }
            filled += here;
        }
        Ok(count)
    }

    /// Whether the leaf (16 KiB, counted from 0) is byte for byte the one that the old version has
    /// there. One that only one of the versions cuts short is not.
    #[must_use]
    pub fn is_kept(&self, leaf: u64) -> bool {
        self.next_dirty(leaf).is_none_or(|run| !run.contains(&leaf)) && leaf < self.leaves()
    }

    /// The first run of leaves at or after `leaf` that are not kept: those to hash.
    #[must_use]
    pub fn next_dirty(&self, leaf: u64) -> Option<Range<u64>> {
        let leaves = self.leaves();
        let alike = if self.old.size() == self.new_length {
            leaves
        } else {
            self.old.size().min(self.new_length) / LEAF
        };
        let pages = LEAF / PAGE;
        let changed = self.changed().next_run(leaf.saturating_mul(pages));
        let run = match changed {
            Some(run) if run.start / pages < alike => (run.start / pages).max(leaf)..run.end.div_ceil(pages),
            _ => alike.max(leaf)..leaves,
        };
        let end = if run.end > alike { leaves } else { run.end };
        (run.start < end).then_some(run.start..end)
    }

    /// The first run of bytes at or after `from` and before `end` that was written, in whole pages, of at
    /// most 1 MiB.
    #[must_use]
    pub fn next_changed(&self, from: u64, end: u64) -> Option<Range<u64>> {
        let run = self.changed().next_run(from / PAGE)?;
        let start = from.max(run.start * PAGE);
        let end = end.min(run.end * PAGE).min(start + RANGE_BYTES_MAX as u64);
        (start < end).then_some(start..end)
    }

    /// The result in `range`, for another thread to read. What is written later is not in it.
    ///
    /// # Errors
    /// When there are too many open files.
    pub fn view(&self, range: Range<u64>) -> Result<Laid, FileError> {
        let duplicate = |file: &File| file.try_clone().map_err(|error| self.failed(error));
        let (old, changes) = (duplicate(self.old.file())?, duplicate(self.changes.file())?);
        let mut changed = Vec::new();
        let mut at = range.start;
        while let Some(run) = self.next_changed(at, range.end.min(self.new_length)) {
            at = run.end;
            changed.push(run);
        }
        Ok(Laid::new(old, self.old.size(), changes, changed))
    }

    /// Makes the changes, which the caller has verified, and sets mode and time as in `meta`. The undo
    /// record is kept as a version by `keeping`; without, it is removed. Blocks; for the helper thread.
    ///
    /// # Returns
    /// The state of the file afterwards.
    ///
    /// # Errors
    /// [`ItemCode::Changing`] when it is not as it was at [`InPlace::begin`]; or the disk is full or
    /// fails. The file is as it was then; should even rolling it back have failed, its record stays for
    /// `recover`, and the log says so.
    pub fn commit(self, meta: &Meta, flush: Flush, keeping: Option<&Keeping<'_>>) -> Result<Identity, FileError> {
        let mut commit = Commit::new(self, *meta, flush, keeping)?;
        loop {
            match commit.step() {
                Ok(None) => {}
                Ok(Some(identity)) => return Ok(identity),
                Err(error) => {
                    commit.abandon();
                    return Err(error);
                }
            }
        }
    }

    fn changed(&self) -> &Marks {
        self.changes.marks()
    }

    fn leaves(&self) -> u64 {
        self.new_length.div_ceil(LEAF)
    }

    fn found(&self, code: ItemCode) -> FileError {
        FileError::found(Operation::Write, self.path.as_bytes(), code)
    }

    fn failed(&self, error: impl Into<std::io::Error>) -> FileError {
        FileError::new(Operation::Write, &self.path, error)
    }

    /// Gives a page that is changed in part its old bytes first.
    fn fill(&mut self, page: u64) -> Result<(), FileError> {
        if self.changed().contains(page) {
            return Ok(());
        }
        let start = page * PAGE;
        let mut bytes = [0; PAGE as usize];
        let bytes = &mut bytes[..PAGE.min(self.new_length - start) as usize];
        self.read_old(start, bytes)?;
        self.changes.write_at(start, bytes)
    }

    /// Old bytes, and zeros behind their end.
    fn read_old(&self, at: u64, bytes: &mut [u8]) -> Result<(), FileError> {
        let present = (bytes.len() as u64).min(self.old.size().saturating_sub(at)) as usize;
        let (old, added) = bytes.split_at_mut(present);
        added.fill(0);
        if self.old.read_at(at, old)? == present {
            Ok(())
        } else {
            Err(self.found(ItemCode::Changing))
        }
    }

    fn read_change(&self, at: u64, bytes: &mut [u8]) -> Result<(), FileError> {
        let read = self.changes.file().read_exact_at(bytes, at);
        read.map_err(|error| FileError::new(Operation::Read, &self.path, error))
    }

    /// Whether it is still the same file under the same name, in the same state.
    fn check_unchanged(&self) -> Result<(), FileError> {
        let here = self.root.probe(&self.path)?.map(|found| found.identity);
        if here == Some(self.old.identity()) && self.old.unchanged()? {
            Ok(())
        } else {
            Err(self.found(ItemCode::Changing))
        }
    }
}

/// A commit, in steps of a few system calls each.
#[derive(Debug)]
struct Commit<'a> {
    work: InPlace,
    meta: Meta,
    flush: Flush,
    keeping: Option<&'a Keeping<'a>>,
    record: RecordWriter,
    undo: UndoDirectory,
    stage: Stage,
    buffer: Vec<u8>,
}

/// What is to be done next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Old bytes at or after this offset go to the record.
    Record(u64),
    /// The record gets its end and its name.
    Publish,
    /// From here on, the file is touched.
    Lengthen,
    /// New bytes at or after this offset go to the file; of a sparse one, what is not zeros.
    Write(u64),
    /// Those zeros become holes, last, so that no write fails for room after some was given away.
    Punch(u64),
    Shorten,
    Meta,
    Flush,
    /// The file is complete; the record goes, or becomes a version.
    Forget,
    /// The record is a version: there is no way back. That it is has to reach the disk.
    Settle,
}

impl<'a> Commit<'a> {
    fn new(work: InPlace, meta: Meta, flush: Flush, keeping: Option<&'a Keeping<'a>>) -> Result<Commit<'a>, FileError> {
        work.check_unchanged()?;
        let staged = |error| FileError::new(Operation::Stage, &work.path, error);
        let inode = Inode::of(work.file.as_fd()).map_err(|errno| staged(errno.into()))?;
        let undone = Undone {
            path: work.path.clone(),
            inode,
            old_length: work.old.size(),
            new_length: work.new_length,
            meta: work.old.meta(),
        };
        let undo = UndoDirectory::open(work.root.directory()).map_err(|errno| staged(errno.into()))?;
        let record = undo.create(&undone).map_err(staged)?;
        Ok(Commit {
            work,
            meta,
            flush,
            keeping,
            record,
            undo,
            stage: Stage::Record(0),
            buffer: Vec::new(),
        })
    }

    /// The next few calls; the new state of the file when all is done.
    fn step(&mut self) -> Result<Option<Identity>, FileError> {
        let (new_length, old_length) = (self.work.new_length, self.work.old.size());
        self.stage = match self.stage {
            Stage::Record(from) => self.record_old(from)?,
            Stage::Publish => {
                self.publish_record()?;
                Stage::Lengthen
            }
            Stage::Lengthen => {
                if new_length > old_length {
                    self.lengthen(old_length, new_length)?;
                }
                Stage::Write(0)
            }
            Stage::Write(from) => self.write_new(from, Form::Data)?,
            Stage::Punch(from) => self.write_new(from, Form::Zeros)?,
            Stage::Shorten => {
                if new_length < old_length {
                    self.set_length(new_length)?;
                }
                Stage::Meta
            }
            Stage::Meta => {
                meta::apply(self.work.file.as_fd(), &self.meta)
                    .map_err(|errno| FileError::new(Operation::SetMeta, &self.work.path, errno))?;
                Stage::Flush
            }
            Stage::Flush => {
                if self.flush == Flush::Disk {
                    flush(&self.work.file).map_err(|error| self.work.failed(error))?;
                }
                Stage::Forget
            }
            Stage::Forget => {
                let identity = self.identity()?;
                match self.keeping {
                    Some(keeping) => {
                        self.keep_record(keeping)?;
                        self.stage = Stage::Settle;
                        self.settle(keeping).map_err(|error| self.work.failed(error))?;
                    }
                    None => {
                        let removed = self.undo.remove(self.record.name(), self.flush);
                        removed.map_err(|error| self.work.failed(error))?;
                    }
                }
                return Ok(Some(identity));
            }
            // Only a flush that failed leads here, and none is tried again.
            Stage::Settle => return Err(self.work.found(ItemCode::Io)),
        };
        Ok(None)
    }

    /// Takes back what was done: the record is used if the file was touched, and goes in any case.
    fn abandon(&mut self) {
        match self.stage {
            Stage::Record(_) | Stage::Publish => {
                // Whichever name it has by now; it is of no use under either.
                for name in [self.record.unfinished().as_str(), self.record.name()] {
                    if let Err(error) = self.undo.remove(name, Flush::Nothing) {
                        log::warn!("{}: an undo record is left: {error}", self.work.path);
                    }
                }
            }
            // The file is what it should be, though it is not known to be on the disk.
            Stage::Settle => {}
            _ => {
                let name = self.record.name();
                let record = self.record.file();
                let (_, outcome) = roll_back(&self.work.root, &self.undo, name, record, self.flush);
                if let Err(reason) = outcome {
                    log::error!(
                        "{} is half changed, and undoing that failed: {reason:?}; it is tried again at the next start",
                        self.work.path
                    );
                }
            }
        }
    }

    fn identity(&self) -> Result<Identity, FileError> {
        let stat = fstat(&self.work.file).map_err(|errno| self.work.failed(errno))?;
        Ok(Found::of(&stat).identity)
    }

    fn keep_record(&self, keeping: &Keeping<'_>) -> Result<(), FileError> {
        let successor = Successor::of(&self.identity()?);
        let (from, name) = (self.undo.directory.as_fd(), self.record.name());
        let kept = keeping.rename_in(&self.work.path, from, name.as_bytes(), Reason::Changed, Some(successor));
        kept.map(|_| ()).map_err(|errno| self.work.failed(errno))
    }

    fn settle(&self, keeping: &Keeping<'_>) -> std::io::Result<()> {
        if self.flush == Flush::Nothing {
            return Ok(());
        }
        let mut barrier = Barrier::new(&self.work.root);
        let changed = keeping.versions.take_changed();
        changed.iter().for_each(|path| barrier.add_private(path));
        barrier.run()?;
        self.undo.flush()
    }

    /// Changed pages as far as both versions have them, then the tail that is cut off.
    fn record_old(&mut self, from: u64) -> Result<Stage, FileError> {
        let old_length = self.work.old.size();
        let common = old_length.min(self.work.new_length);
        let range = self.work.next_changed(from, common).or_else(|| {
            let start = from.max(common);
            (start < old_length).then(|| start..old_length.min(start + RANGE_BYTES_MAX as u64))
        });
        let Some(range) = range else {
            return Ok(Stage::Publish);
        };
        self.buffer.resize((range.end - range.start) as usize, 0);
        self.work.read_old(range.start, &mut self.buffer)?;
        self.record
            .push(range.start, &self.buffer)
            .map_err(|error| self.work.failed(error))?;
        Ok(Stage::Record(range.end))
    }

    /// The last look at the file comes after the record is complete, right before the file is touched.
    fn publish_record(&mut self) -> Result<(), FileError> {
        let finished = self.record.finish();
        finished
            .and_then(|()| self.undo.publish(&self.record, self.flush))
            .map_err(|error| self.work.failed(error))?;
        self.work.check_unchanged()
    }

    fn lengthen(&self, old_length: u64, new_length: u64) -> Result<(), FileError> {
        let reserved = if self.work.old.is_sparse() {
            0
        } else {
            reserve(&self.work.file, old_length, new_length - old_length).map_err(|errno| self.work.failed(errno))?
        };
        if reserved == new_length {
            return Ok(());
        }
        self.set_length(new_length)
    }

    fn set_length(&self, length: u64) -> Result<(), FileError> {
        self.work.file.set_len(length).map_err(|error| self.work.failed(error))
    }

    /// The next new bytes; of a sparse file, those of one form.
    fn write_new(&mut self, from: u64, form: Form) -> Result<Stage, FileError> {
        let (file, is_sparse) = (&self.work.file, self.work.old.is_sparse());
        let Some(range) = self.work.next_changed(from, self.work.new_length) else {
            let punches = is_sparse && form == Form::Data;
            return Ok(if punches { Stage::Punch(0) } else { Stage::Shorten });
        };
        self.buffer.resize((range.end - range.start) as usize, 0);
        self.work.read_change(range.start, &mut self.buffer)?;
        let written = match is_sparse {
            true => write_parts(file, range.start, &self.buffer, form),
            false => file.write_all_at(&self.buffer, range.start),
        };
        written.map_err(|error| self.work.failed(error))?;
        Ok(match form {
            Form::Data => Stage::Write(range.end),
            Form::Zeros => Stage::Punch(range.end),
        })
    }
}

#[cfg(test)]
#[path = "inplace_tests.rs"]
mod tests;
