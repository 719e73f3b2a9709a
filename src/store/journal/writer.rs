//! `Journal`: what is unfinished in one place, kept so that another process can go on with it.
//!
//! Knows nothing of staged files or connections, and never waits for the disk but in [`Journal::open`].
//! Never fails a caller: a transfer that cannot be entered cannot be gone on with later, nothing else.
//! Invariant: what is in memory is what was said; the file says the same or less.

use super::boot::Boot;
use super::log::{Appended, Behind, Log};
use super::place::{Held, JournalError, Missing, Place};
use super::record::{self, Stamp};
use super::replay::{Replay, replay};
use super::subject::{Reached, Subject, TransferId, Unfinished};
use super::table::{Position, Table};
use crate::model::limits::{JOURNAL_BYTES_MAX, JOURNAL_ENTRIES_MAX};
use crate::model::{DeviceId, RelPath};
use crate::store::error::Operation;
use crate::store::facts::Identity;
use crate::store::home::Home;
use crate::store::root::Root;
use crate::store::undo::Flush;
use rustix::fd::AsFd;
use std::fs::File;
use std::io::{self, Read};
use std::time::{SystemTime, UNIX_EPOCH};

/// The unfinished transfers of a share, of the target of a pull, or of a state directory. One process at
/// a time has it.
#[derive(Debug)]
pub struct Journal {
    place: Place,
    /// The file appears with the first transfer.
    log: Option<Log>,
    table: Table,
    /// Whether the log of the program has heard that something could not be written.
    has_complained: bool,
}

/// Up to this many bytes of records that count, transfers begin. The rest of the bound is for positions, and
/// for what counts no more, so that the file is not replaced all the time.
const BEGIN_LIVE_BYTES_MAX: u64 = JOURNAL_BYTES_MAX / 8 * 6;
/// Up to this many, positions are entered.
const REACH_LIVE_BYTES_MAX: u64 = JOURNAL_BYTES_MAX / 8 * 7;

impl Journal {
    /// Opens `.syncline/journal` of a share or of the target of a pull, and locks it if it is there. It is
    /// made with the first [`begin`](Self::begin), and removed on drop when nothing is unfinished.
    ///
    /// # Errors
    /// [`JournalError::Held`] names the other process; [`JournalError::Damaged`] and
    /// [`JournalError::Version`] leave all as it is.
    pub fn open(root: &Root) -> Result<Journal, JournalError> {
        Journal::at(Place::of_root(root))
    }

    /// Opens `journal` in the state directory, for what this device sends. As [`Journal::open`].
    ///
    /// # Errors
    /// As [`Journal::open`].
    pub fn open_home(home: &Home) -> Result<Journal, JournalError> {
        Journal::at(Place::of_home(home))
    }

    fn at(place: Place) -> Result<Journal, JournalError> {
        let mut journal = Journal {
            place,
            log: None,
            table: Table::default(),
            has_complained: false,
        };
        if let Some(held) = journal.place.hold(Missing::Leave)? {
            journal.take_over(held)?;
        }
        Ok(journal)
    }

    /// Reads a journal that was there, and goes on in it.
    fn take_over(&mut self, held: Held) -> Result<(), JournalError> {
        let failed = |place: &Place, error| JournalError::File(place.error(Operation::Read, error));
        let bytes = read(&held.file).map_err(|error| failed(&self.place, error))?;
        let here = Boot::here(held.directory.as_fd());
        let found = replay(&bytes, &here)?;
        held.remove_leftover();
        let Some(found) = found.filter(|found| !found.table.is_empty()) else {
            held.remove();
            return Ok(());
        };
        let is_present = found.header.boot == here;
        let Replay {
            header,
            table,
            tail,
            next_sequence,
            lost_bytes,
            ..
        } = found;
        if lost_bytes > 0 {
            ::log::warn!("a power cut took {lost_bytes} bytes of the journal; some transfers begin anew");
        }
        let next = Stamp {
            epoch: header.epoch,
            sequence: next_sequence,
        };
        let mut log = Log::resume(held, here, next, tail as u64)
            .map_err(|error| JournalError::File(self.place.error(Operation::Write, error)))?;
        if !is_present || lost_bytes > 0 || log.is_overgrown(table.live_bytes()) {
            // Under the new header claims can be proven again. Without it they are verified once more.
            if let Err(error) = log.replace(&self.place, &table, Flush::Disk) {
                ::log::warn!("{}", self.place.error(Operation::Publish, error));
            }
        }
        self.log = Some(log);
        self.table = table;
        Ok(())
    }

    /// Enters a transfer, with nothing reached.
    ///
    /// # Returns
    /// `None` when there are too many, or the disk refused: then it cannot be gone on with later.
    pub fn begin(&mut self, subject: &Subject) -> Option<TransferId> {
        if self.table.len() >= JOURNAL_ENTRIES_MAX || !self.ensure_log() {
            return None;
        }
        let id = std::iter::repeat_with(TransferId::random)
            .take(IDS_MAX)
            .find(|id| id.is_none_or(|id| self.table.find(id).is_none()))??;
        let unfinished = Unfinished {
            id,
            subject: subject.clone(),
            reached: Reached::default(),
            proven: true,
            touched: now(),
        };
        let record = record::begin(self.stamp(), &unfinished);
        let length = record.len() as u64;
        if self.table.live_bytes() + length > BEGIN_LIVE_BYTES_MAX {
            return None;
        }
        if !self.append(record, Behind::Records(self.table.len() + 1)) {
            return None;
        }
        self.table.insert(unfinished, length);
        Some(id)
    }

    /// Enters how far a transfer is, in place of what was known. Whoever says so has verified it.
    ///
    /// More than [`JOURNAL_RUNS_MAX`](crate::model::limits::JOURNAL_RUNS_MAX) runs of changed pages are
    /// not entered: what was known before stays, and stays true. Nothing happens for an unknown id.
    pub fn reach(&mut self, id: TransferId, reached: &Reached) {
        let Some(known) = self.table.find(id) else {
            return;
        };
        if !reached.is_sound() || !known.allows(reached) {
            return;
        }
        let next = Unfinished {
            id,
            subject: known.subject.clone(),
            reached: reached.clone(),
            proven: true,
            touched: now(),
        };
        let record = record::reach(self.stamp(), &next);
        let length = record.len() as u64;
        if self.table.live_bytes() + length > REACH_LIVE_BYTES_MAX {
            return;
        }
        self.append(record, Behind::Ends(self.table.len()));
        let Unfinished { reached, touched, .. } = next;
        let position = Position {
            reached,
            proven: true,
            touched,
        };
        self.table.reach(id, position, length);
        self.shrink();
    }

    /// Takes a transfer out: it is complete, or given up. Nothing happens for an unknown id.
    pub fn end(&mut self, id: TransferId) {
        if self.table.remove(id).is_some() {
            self.append(record::end(self.stamp(), id), Behind::Nothing);
            self.shrink();
        }
    }

    /// The latest transfer to `path` from exactly this peer.
    #[must_use]
    pub fn incoming(&self, path: &RelPath, peer: Option<&DeviceId>) -> Option<&Unfinished> {
        self.table.incoming(path, peer)
    }

    /// The latest transfer of this state of a file.
    #[must_use]
    pub fn outgoing(&self, identity: &Identity) -> Option<&Unfinished> {
        self.table.outgoing(identity)
    }

    /// The transfer with this id.
    #[must_use]
    pub fn find(&self, id: TransferId) -> Option<&Unfinished> {
        self.table.find(id)
    }

    /// All that is unfinished, in the order in which it began.
    pub fn iter(&self) -> impl Iterator<Item = &Unfinished> {
        self.table.iter()
    }

    /// Unfinished transfers.
    #[must_use]
    pub fn entries(&self) -> usize {
        self.table.len()
    }

    /// Bytes of the file; 0 while there is none.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.log.as_ref().map_or(0, Log::bytes)
    }

    /// Ends all transfers of which the last record is older than this, and says which these are.
    pub fn end_older_than(&mut self, unix_seconds: i64) -> Vec<TransferId> {
        let old = self.iter().filter(|unfinished| unfinished.touched < unix_seconds);
        let old: Vec<TransferId> = old.map(|unfinished| unfinished.id).collect();
        old.iter().for_each(|&id| self.end(id));
        old
    }

    /// A file to flush (`sync_data`) beside the loop, once after the journal was made or was replaced because it
    /// had grown. Until that is done a power cut may leave an empty journal, and transfers begin anew; records
    /// that follow are written by the system within half a minute.
    pub fn take_unflushed(&mut self) -> Option<File> {
        self.log.as_mut()?.take_unflushed()
    }

    /// Whether there is a file to write to; makes it where it is missing.
    fn ensure_log(&mut self) -> bool {
        if self.log.as_ref().is_some_and(Log::is_gone) {
            // Somebody cleaned up: what is known here goes into the next file.
            self.log = None;
        }
        // One that another process has made meanwhile and that says nothing is removed first.
        for _ in 0..2 {
            if self.log.is_some() {
                return true;
            }
            let made = self.place.hold(Missing::Make).and_then(|held| match held {
                Some(held) => self.make_log(held),
                None => Ok(()),
            });
            if let Err(error) = made {
                self.complain(&error.to_string());
                return false;
            }
        }
        self.log.is_some()
    }

    fn make_log(&mut self, held: Held) -> Result<(), JournalError> {
        let length = held.file.metadata().map(|found| found.len());
        if length.is_ok_and(|length| length > 0) {
            // Another process was here since this one looked.
            let known = std::mem::take(&mut self.table);
            let taken = self.take_over(held);
            self.table.absorb(known);
            taken?;
        } else {
            held.remove_leftover();
            let boot = Boot::here(held.directory.as_fd());
            let log = Log::begin(held, boot).map_err(|error| self.place.error(Operation::Write, error))?;
            self.log = Some(log);
        }
        if !self.table.is_empty() {
            self.replace();
        }
        Ok(())
    }

    /// What the next record is stamped with.
    fn stamp(&self) -> Stamp {
        self.log.as_ref().map_or(Stamp::ANY, Log::stamp)
    }

    /// Writes a record with that stamp, into another file if this one is full.
    fn append(&mut self, mut record: Vec<u8>, behind: Behind) -> bool {
        let length = record.len() as u64;
        if self.log.as_ref().is_some_and(|log| !log.holds(length)) {
            self.replace();
            self.stamp().put(&mut record);
        }
        let Some(log) = self.log.as_mut().filter(|log| log.holds(length)) else {
            return false;
        };
        match log.append(&record, behind) {
            Appended::Written => return true,
            Appended::Silent => {}
            Appended::Refused(error) => {
                let error = self.place.error(Operation::Write, error);
                self.complain(&error.to_string());
            }
            Appended::Silenced(error) => {
                let error = self.place.error(Operation::Write, error);
                ::log::error!("{error}; no transfer is entered any more until a restart");
            }
        }
        false
    }

    fn shrink(&mut self) {
        let live = self.table.live_bytes();
        if self.log.as_ref().is_some_and(|log| log.is_overgrown(live)) {
            self.replace();
        }
    }

    fn replace(&mut self) {
        let Some(log) = &mut self.log else {
            return;
        };
        if let Err(error) = log.replace(&self.place, &self.table, Flush::Nothing) {
            let error = self.place.error(Operation::Publish, error);
            self.complain(&error.to_string());
        }
    }

    /// Once: the disk may stay full for long.
    fn complain(&mut self, what: &str) {
        if !self.has_complained {
            self.has_complained = true;
            ::log::warn!("{what}; transfers that break off may have to begin anew");
        }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        if self.table.is_empty()
            && let Some(log) = &self.log
        {
            log.remove();
            self.place.tidy();
        }
    }
}

/// Ids that are tried until one is free.
const IDS_MAX: usize = 8;

/// All of a journal, and of one that is too long, enough to see that.
pub(super) fn read(file: &File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut limited = file.take(JOURNAL_BYTES_MAX + 1);
    limited.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Unix seconds by the wall clock; a clock before 1970 counts as 1970.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs().cast_signed())
}

#[cfg(test)]
#[path = "writer_tests.rs"]
mod tests;
