//! All of a journal's bytes: what is unfinished, where the records end, whether something is damaged.
//!
//! 1. Records count in their order: each has the epoch of the header and the sequence after the last one.
//! 2. What comes after the last of these, and is none, is a torn tail if no valid record of this epoch with
//!    a higher sequence is anywhere behind. Whatever else is there (records of an old epoch, repetitions)
//!    is part of that tail.
//! 3. Otherwise it is damage, with one exception: after a power cut, a page that had not been written reads
//!    as zeros while a later one is there. So in a journal of another boot a gap that holds a page of zeros
//!    is skipped: nothing in there is believed without being verified again.
//!
//! Touches no file. Invariants: every entry was written so; work and memory follow the length of the file,
//! which is bounded, whatever is in it.

use super::boot::Boot;
use super::record::{self, Candidate, END_BYTES, HEADER_BYTES, Header, HeaderFault, Record};
use super::table::Table;
use crate::model::limits::JOURNAL_BYTES_MAX;
use std::ops::{Range, RangeInclusive};

/// What a journal says.
#[derive(Debug)]
pub(super) struct Replay {
    pub(super) header: Header,
    pub(super) table: Table,
    /// Where the last record ends.
    pub(super) tail: usize,
    /// The sequence that the next record has.
    pub(super) next_sequence: u64,
    /// Records that count.
    pub(super) records: u64,
    /// Bytes of these, and of the header.
    pub(super) record_bytes: u64,
    /// Bytes that a power cut took.
    pub(super) lost_bytes: u64,
}

/// Why a journal cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// Something that was written is not there any more, though later things are.
    Damaged {
        /// Where it begins.
        at: u64,
        /// Valid records before and behind it.
        before: u64,
        behind: u64,
    },
    /// A later form.
    Version(u32),
}

/// What `journal` says here and now; `None` when nothing is in it.
pub(super) fn replay(journal: &[u8], here: &Boot) -> Result<Option<Replay>, Fault> {
    let Some(header) = header_of(journal)? else {
        return Ok(None);
    };
    if journal.len() as u64 > JOURNAL_BYTES_MAX {
        return Err(Fault::Damaged {
            at: JOURNAL_BYTES_MAX,
            before: 0,
            behind: 0,
        });
    }
    let is_present = header.boot.reaches(here);
    let mut replay = Replay::new(header);
    loop {
        replay.read_on(journal);
        if replay.tail == journal.len() {
            break;
        }
        let mut scanner = Scanner::new(journal, replay.tail, Some(header.epoch), replay.next_sequence);
        let next = match scanner.next() {
            Found::Record(at, _) => at,
            Found::Nothing => break,
            Found::TooMuch => return Err(replay.damaged(0)),
        };
        if is_present || !holds_lost_page(journal, replay.tail..next) {
            return Err(replay.damaged(1 + scanner.count()));
        }
        replay.lost_bytes += (next - replay.tail) as u64;
        replay.skip_to(journal, next);
    }
    if !is_present {
        replay.table.doubt();
    }
    Ok(Some(replay))
}

/// All of `journal` that is whole and has a meaning, wherever it is; all of it to be verified again.
pub(super) fn salvage(journal: &[u8]) -> Replay {
    let bytes = &journal[..journal.len().min(JOURNAL_BYTES_MAX as usize)];
    let header = header_of(bytes).ok().flatten();
    let epoch = header.map(|header| header.epoch).or_else(|| {
        // The records know it, too.
        let mut scanner = Scanner::new(bytes, 0, None, 1);
        match scanner.next() {
            Found::Record(_, candidate) => Some(candidate.stamp.epoch),
            Found::Nothing | Found::TooMuch => None,
        }
    });
    let mut replay = Replay::new(Header {
        epoch: epoch.unwrap_or(0),
        boot: Boot::UNKNOWN,
    });
    if header.is_none() {
        (replay.tail, replay.record_bytes) = (0, 0);
    }
    loop {
        replay.read_on(bytes);
        let mut scanner = Scanner::new(bytes, replay.tail, epoch, replay.next_sequence);
        match scanner.next() {
            Found::Record(at, _) => replay.skip_to(bytes, at),
            Found::Nothing | Found::TooMuch => break,
        }
    }
    replay.table.doubt();
    replay
}

/// The header; `None` when the file was never begun, or not finished being begun.
fn header_of(journal: &[u8]) -> Result<Option<Header>, Fault> {
    let Some(bytes) = journal.first_chunk::<HEADER_BYTES>() else {
        return Ok(None);
    };
    match Header::parse(bytes) {
        Ok(header) => Ok(Some(header)),
        Err(HeaderFault::Version(version)) => Err(Fault::Version(version)),
        Err(HeaderFault::Damaged) if journal[HEADER_BYTES..].iter().all(|&byte| byte == 0) => Ok(None),
        Err(HeaderFault::Damaged) => {
            let behind = Scanner::new(journal, HEADER_BYTES, None, 1).count();
            Err(Fault::Damaged {
                at: 0,
                before: 0,
                behind,
            })
        }
    }
}

impl Replay {
    fn new(header: Header) -> Replay {
        Replay {
            header,
            table: Table::default(),
            tail: HEADER_BYTES,
            next_sequence: 1,
            records: 0,
            record_bytes: HEADER_BYTES as u64,
            lost_bytes: 0,
        }
    }

    /// Reads records as long as one follows on the other.
    fn read_on(&mut self, journal: &[u8]) {
        while let Some((candidate, record)) = self.record_at(journal, self.tail) {
            self.take(candidate, record);
        }
    }

    /// Goes on behind a gap, with the record at `at`.
    fn skip_to(&mut self, journal: &[u8], at: usize) {
        self.tail = at;
        let epoch = Some(self.header.epoch);
        let later = record::look(&journal[at..], epoch, &(self.next_sequence..=u64::MAX));
        if let Some((candidate, record)) = later.and_then(|found| Some((found, found.decode()?))) {
            self.next_sequence = candidate.stamp.sequence;
            self.take(candidate, record);
        }
    }

    fn take(&mut self, candidate: Candidate<'_>, record: Record) {
        self.table.apply(record, candidate.bytes.len() as u64);
        self.tail += candidate.bytes.len();
        self.next_sequence += 1;
        self.records += 1;
        self.record_bytes += candidate.bytes.len() as u64;
    }

    fn record_at<'a>(&self, journal: &'a [u8], at: usize) -> Option<(Candidate<'a>, Record)> {
        let sequences = self.next_sequence..=self.next_sequence;
        let candidate = record::look(&journal[at..], Some(self.header.epoch), &sequences)?;
        Some((candidate, candidate.decode()?))
    }

    fn damaged(&self, behind: u64) -> Fault {
        Fault::Damaged {
            at: self.tail as u64,
            before: self.records,
            behind,
        }
    }
}

/// Looks for valid records at every place.
struct Scanner<'a> {
    journal: &'a [u8],
    at: usize,
    epoch: Option<u32>,
    sequences: RangeInclusive<u64>,
    /// Bytes that may still be read for checksums. A file can be made so that a record seems to begin at
    /// each of its bytes.
    budget: usize,
}

enum Found<'a> {
    Record(usize, Candidate<'a>),
    Nothing,
    /// It would take too long to tell.
    TooMuch,
}

/// Bytes of checksums per byte of a file.
const CHECKED_MAX: usize = 64;

impl<'a> Scanner<'a> {
    /// From `at` on, for sequences from `first` on. Of an unknown `epoch`, the first that is found counts.
    fn new(journal: &'a [u8], at: usize, epoch: Option<u32>, first: u64) -> Scanner<'a> {
        // More than these do not fit into what is left.
        let records = ((journal.len() - at) / END_BYTES) as u64 + 1;
        Scanner {
            journal,
            at,
            epoch,
            sequences: first..=first.saturating_add(records),
            budget: journal.len().saturating_mul(CHECKED_MAX),
        }
    }

    fn next(&mut self) -> Found<'a> {
        while self.at + END_BYTES <= self.journal.len() {
            let at = self.at;
            self.at += 1;
            let Some(candidate) = record::look(&self.journal[at..], self.epoch, &self.sequences) else {
                continue;
            };
            let Some(left) = self.budget.checked_sub(candidate.bytes.len()) else {
                return Found::TooMuch;
            };
            self.budget = left;
            if candidate.decode().is_some() {
                self.epoch = Some(candidate.stamp.epoch);
                self.at = at + candidate.bytes.len();
                return Found::Record(at, candidate);
            }
        }
        Found::Nothing
    }

    /// How many follow.
    fn count(mut self) -> u64 {
        let mut count = 0;
        while let Found::Record(..) = self.next() {
            count += 1;
        }
        count
    }
}

/// What file systems write at a time.
const PAGE_BYTES: usize = 4096;

/// Whether some page has only zeros where it lies in `gap`, which goes on behind that page.
fn holds_lost_page(journal: &[u8], gap: Range<usize>) -> bool {
    let mut start = gap.start;
    while start < gap.end {
        let end = (start / PAGE_BYTES + 1) * PAGE_BYTES;
        if end <= gap.end && journal[start..end].iter().all(|&byte| byte == 0) {
            return true;
        }
        start = end;
    }
    false
}

#[cfg(test)]
#[path = "replay_tests.rs"]
mod tests;
