//! `Log`: the open file of a journal: appending, room ahead, and putting another file in its place.
//!
//! 1. A record is one write at the end. What was written of a failed one is cut off; where even that fails,
//!    nothing is written any more, so that nothing follows on half a record.
//! 2. Room is taken ahead, in steps, without the length of the file changing. A transfer begins only when
//!    there is room behind it; so what ends one can be written when the disk is full.
//! 3. A file that takes the place of this one is written whole, under another name, locked before it gets
//!    the name of the journal.
//!
//! Never flushes, except where the caller waits anyway, and never tries a failed write again. Invariant:
//! before `tail` there are whole records only, with sequences that follow on each other.

use super::boot::Boot;
use super::place::{Held, JOURNAL, NEW, Place};
use super::record::{self, END_BYTES, HEADER_BYTES, Header, Stamp};
use super::table::Table;
use crate::model::limits::JOURNAL_BYTES_MAX;
use crate::store::undo::Flush;
use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, FallocateFlags, FlockOperation, Mode, OFlags, fallocate, flock, openat, renameat, unlinkat};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// The file that a journal is written to.
#[derive(Debug)]
pub(super) struct Log {
    held: Held,
    /// Which boot it is, also when the header is from an earlier one.
    boot: Boot,
    epoch: u32,
    next_sequence: u64,
    /// Where the next record goes, in bytes.
    tail: u64,
    /// Up to here there is room on the disk.
    pub(super) reserved: u64,
    /// Nobody was asked to flush this file yet.
    is_new: bool,
    /// A failed record could not be cut off.
    is_silent: bool,
    /// The length from which on it may be replaced.
    replace_from: u64,
    #[cfg(test)]
    pub(super) faults: Faults,
}

/// How much room has to be left behind a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Behind {
    /// For more records, and for the ends of this many transfers.
    Records(usize),
    /// For the ends of this many transfers.
    Ends(usize),
    /// None; it is one of these ends.
    Nothing,
}

/// What became of a record.
#[derive(Debug)]
pub(super) enum Appended {
    Written,
    /// Nothing of it is in the file.
    Refused(io::Error),
    /// Nothing can be written any more. Said once.
    Silenced(io::Error),
    /// It is silent.
    Silent,
}

/// Faults of a disk, for tests.
#[cfg(test)]
#[derive(Debug, Default)]
pub(super) struct Faults {
    /// The disk has room up to here.
    pub(super) full_at: Option<u64>,
    /// Nothing can be cut off.
    pub(super) cannot_cut: bool,
}

/// Room is taken in steps of this many bytes.
const RESERVE_STEP_BYTES: u64 = 64 * 1024;
/// Below this a journal is not replaced, however little of it is live.
const REPLACE_BYTES_MIN: u64 = 256 * 1024;
/// Written at a time into a new file.
const WRITE_BYTES: usize = 256 * 1024;

impl Log {
    /// Begins a new file, in one that is locked and empty.
    pub(super) fn begin(held: Held, boot: Boot) -> io::Result<Log> {
        let stamp = Stamp { epoch: 1, sequence: 1 };
        let header = Header { epoch: 1, boot }.to_bytes();
        if let Err(error) = held.file.write_all_at(&header, 0) {
            held.remove();
            return Err(error);
        }
        let mut log = Log::at(held, boot, stamp, HEADER_BYTES as u64);
        log.is_new = true;
        Ok(log)
    }

    /// Its length.
    pub(super) fn bytes(&self) -> u64 {
        self.tail
    }

    /// Goes on after the records up to `tail` of one that was read, with `next` as the next stamp.
    pub(super) fn resume(held: Held, boot: Boot, next: Stamp, tail: u64) -> io::Result<Log> {
        if held.file.metadata()?.len() != tail {
            held.file.set_len(tail)?;
        }
        Ok(Log::at(held, boot, next, tail))
    }

    fn at(held: Held, boot: Boot, next: Stamp, tail: u64) -> Log {
        Log {
            held,
            boot,
            epoch: next.epoch,
            next_sequence: next.sequence,
            tail,
            reserved: 0,
            is_new: false,
            is_silent: false,
            replace_from: REPLACE_BYTES_MIN,
            #[cfg(test)]
            faults: Faults::default(),
        }
    }

    /// What the next record is stamped with.
    pub(super) fn stamp(&self) -> Stamp {
        Stamp {
            epoch: self.epoch,
            sequence: self.next_sequence,
        }
    }

    /// Whether `length` more bytes stay below the bound.
    pub(super) fn holds(&self, length: u64) -> bool {
        self.tail + length <= JOURNAL_BYTES_MAX
    }

    /// Writes the record that was made with [`stamp`](Self::stamp).
    pub(super) fn append(&mut self, record: &[u8], behind: Behind) -> Appended {
        if self.is_silent {
            return Appended::Silent;
        }
        let end = self.tail + record.len() as u64;
        if let Err(errno) = self.reserve(end, behind) {
            return Appended::Refused(errno.into());
        }
        match self.write(record) {
            Ok(count) if count == record.len() => {
                self.tail = end;
                self.next_sequence += 1;
                Appended::Written
            }
            Ok(_) => self.cut(io::Error::from(io::ErrorKind::StorageFull)),
            Err(error) => self.cut(error),
        }
    }

    fn cut(&mut self, error: io::Error) -> Appended {
        match self.set_len(self.tail) {
            Ok(()) => Appended::Refused(error),
            Err(_) => {
                self.is_silent = true;
                Appended::Silenced(error)
            }
        }
    }

    /// Makes sure of room up to `end` and behind it.
    fn reserve(&mut self, end: u64, behind: Behind) -> Result<(), Errno> {
        let until = end
            + match behind {
                Behind::Records(ends) => RESERVE_STEP_BYTES + (ends * END_BYTES) as u64,
                Behind::Ends(ends) => (ends * END_BYTES) as u64,
                Behind::Nothing => 0,
            };
        if until <= self.reserved {
            return Ok(());
        }
        let wanted = until.next_multiple_of(RESERVE_STEP_BYTES);
        match self.allocate(wanted) {
            Ok(()) => self.reserved = wanted,
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => self.reserved = u64::MAX,
            // The write itself will tell.
            Err(_) if behind == Behind::Nothing => {}
            Err(errno) => return Err(errno),
        }
        Ok(())
    }

    fn allocate(&self, until: u64) -> Result<(), Errno> {
        #[cfg(test)]
        if self.faults.full_at.is_some_and(|full| until > full) {
            return Err(Errno::NOSPC);
        }
        loop {
            match fallocate(&self.held.file, FallocateFlags::KEEP_SIZE, self.tail, until - self.tail) {
                Err(Errno::INTR) => {}
                other => return other,
            }
        }
    }

    /// One write at the tail; the bytes that were taken.
    fn write(&self, record: &[u8]) -> io::Result<usize> {
        #[cfg(test)]
        let record = match self.faults.full_at {
            Some(full) if full <= self.tail => return Err(Errno::NOSPC.into()),
            Some(full) => &record[..record.len().min((full - self.tail) as usize)],
            None => record,
        };
        loop {
            match self.held.file.write_at(record, self.tail) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        #[cfg(test)]
        if self.faults.cannot_cut {
            return Err(Errno::IO.into());
        }
        self.held.file.set_len(length)
    }

    /// Whether so much of the file says nothing any more that another one should take its place.
    pub(super) fn is_overgrown(&self, live_bytes: u64) -> bool {
        !self.is_silent && self.tail > self.replace_from && self.tail > 2 * (live_bytes + HEADER_BYTES as u64)
    }

    /// Puts a file in the place of this one that has the entries of `table` and nothing else. With
    /// [`Flush::Disk`] it is on the disk before that. When it fails all is as before.
    pub(super) fn replace(&mut self, place: &Place, table: &Table, flush: Flush) -> io::Result<()> {
        if self.is_silent {
            return Err(io::Error::other("nothing can be written to it any more"));
        }
        #[cfg(test)]
        if self.faults.full_at.is_some() {
            return Err(Errno::NOSPC.into());
        }
        let outcome = self.build(place, table, flush);
        // After a failure, not again at each record that follows.
        self.replace_from = self.tail + REPLACE_BYTES_MIN;
        *self = outcome?;
        Ok(())
    }

    fn build(&self, place: &Place, table: &Table, flush: Flush) -> io::Result<Log> {
        let directory = self.held.directory.try_clone()?;
        let built = create(directory, self.epoch.wrapping_add(1).max(1), table, self.boot);
        let log = built.and_then(|mut log| {
            match flush {
                Flush::Disk => log.flush()?,
                Flush::Nothing => log.is_new = true,
            }
            renameat(&log.held.directory, NEW, &log.held.directory, JOURNAL)?;
            Ok(log)
        });
        if log.is_err() {
            self.held.remove_leftover();
        }
        let log = log?;
        match log.held.is_named(JOURNAL)? {
            true => Ok(log),
            false => Err(io::Error::other(format!("{} was replaced", place.path().display()))),
        }
    }

    /// Whether somebody removed or replaced the file.
    pub(super) fn is_gone(&self) -> bool {
        self.held.is_named(JOURNAL) == Ok(false)
    }

    /// The file, once after it was made or took the place of another without being flushed.
    pub(super) fn take_unflushed(&mut self) -> Option<File> {
        std::mem::take(&mut self.is_new)
            .then(|| self.held.file.try_clone().ok())
            .flatten()
    }

    /// Waits until all of it is on the disk.
    pub(super) fn flush(&self) -> io::Result<()> {
        self.held.file.sync_data()
    }

    /// Removes the file.
    pub(super) fn remove(&self) {
        self.held.remove();
    }
}

/// Makes a locked `journal.new` with all of `table`.
pub(super) fn create(directory: OwnedFd, epoch: u32, table: &Table, boot: Boot) -> io::Result<Log> {
    let _ = unlinkat(&directory, NEW, AtFlags::empty());
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = File::from(openat(&directory, NEW, flags, Mode::RUSR | Mode::WUSR)?);
    flock(&file, FlockOperation::NonBlockingLockExclusive)?;
    let held = Held { directory, file };
    let mut log = Log::at(held, boot, Stamp { epoch, sequence: 1 }, 0);
    log.reserve(HEADER_BYTES as u64 + table.live_bytes(), Behind::Records(table.len()))?;
    let mut waiting = Header { epoch, boot }.to_bytes().to_vec();
    for unfinished in table.iter() {
        waiting.extend_from_slice(&record::begin(log.stamp(), unfinished));
        log.next_sequence += 1;
        if !unfinished.reached.is_nothing() {
            waiting.extend_from_slice(&record::reach(log.stamp(), unfinished));
            log.next_sequence += 1;
        }
        if waiting.len() >= WRITE_BYTES {
            log.put(&mut waiting)?;
        }
    }
    log.put(&mut waiting)?;
    Ok(log)
}

impl Log {
    fn put(&mut self, waiting: &mut Vec<u8>) -> io::Result<()> {
        self.held.file.write_all_at(waiting, self.tail)?;
        self.tail += waiting.len() as u64;
        waiting.clear();
        Ok(())
    }
}
impl Drop for Log {
    fn drop(&mut self) {
        // A child that is being started holds all descriptors until it runs its program: closing ours alone
        // would leave the lock to it for that long.
        let _ = flock(&self.held.file, FlockOperation::Unlock);
    }
}
