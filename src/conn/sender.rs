//! The sender of a transfer: lists entries, reads what the receiver wants, gives it away under credit.
//!
//! The same machine sends a push on the client and a pull on the server. It never reads a file: it
//! says what to read next ([`Sender::next_read`]) and takes what was read.
//! Invariants: at most [`OFFER_WINDOW`] entries, of at most [`OFFER_WINDOW_BYTES`], are listed and not
//! settled; at most one file is
//! between its start and its end; no content byte is sent without credit.
//!
//! Life of an entry: offered → answered (settled, unless wanted) → queued → started … ended →
//! settled by the receiver, or queued again when it changed while it was read or arrived damaged.
//! Either side may give a wanted file up at any time, and both words may cross: so the sender's last
//! word on it is always an inline file or an end that is complete or failed, the receiver's always one
//! result that is committed or failed, and each side forgets the file when both were said.

mod asking;
mod settling;

pub use asking::Asked;
pub(super) use asking::Told;

use crate::model::limits::{
    BATCH_ENTRIES_MAX, CHANGED_RETRIES_MAX, INLINE_BYTES_MAX, OFFER_WINDOW, OFFER_WINDOW_BYTES, PATH_BYTES_MAX,
    SYMLINK_BYTES_MAX,
};
use crate::model::{ContentId, Entry, Fault, ItemCode, Kind, Meta, RelPath, Revision};
use crate::wire::{
    End, EndOutcome, EntriesWriter, Finish, Hole, Inline, ListEnd, Message, RemovedReader, Resume, SourceFailed, Start,
    Topic, Verdict, WireError, data_header,
};
use std::collections::{HashMap, VecDeque};

/// Where an entry comes from, in the words of whoever reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// Which of the sources.
    pub source: u16,
    /// The path within that source's root.
    pub path: RelPath,
}

/// The sending half of a transfer.
#[derive(Debug)]
pub struct Sender {
    stream: u16,
    dry_run: bool,
    out: Vec<u8>,
    batch: EntriesWriter,
    /// Number of the next entry; those before it are offered.
    next_file: u32,
    /// Number of the entry at the front of `unanswered`.
    answered: u32,
    unanswered: VecDeque<Item>,
    /// Wanted by the receiver and not settled.
    wanted: HashMap<u32, Item>,
    /// Weight of all of those and of `unanswered`.
    open_bytes: usize,
    queue: VecDeque<u32>,
    current: Option<Current>,
    /// Files that wait for an answer about their basis.
    asked: usize,
    credit: u64,
    list_ended: bool,
    finish: Option<Finish>,
    reports: VecDeque<Report>,
}

#[derive(Debug)]
struct Item {
    file: u32,
    origin: Origin,
    size: u64,
    is_file: bool,
    attempts: u32,
    verdict: Verdict,
    stage: Stage,
    weight: usize,
    /// What the receiver has there.
    basis: Option<ContentId>,
    /// What the receiver has staged of it.
    partial: Option<ContentId>,
}

/// How far a wanted file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Waits for its turn.
    Queued,
    /// Waits for an answer about its basis.
    Asked { topic: Topic, told_bytes: u64 },
    /// On its way.
    Started,
    /// All sent; the receiver decides.
    Ended,
    /// Reported as failed and said so; the receiver has not confirmed it yet.
    GivenUp,
}

#[derive(Debug, Clone, Copy)]
struct Current {
    file: u32,
    /// Bytes of content, or the most that a plan may take.
    size: u64,
    sent: u64,
    is_plan: bool,
}

/// What to do next for the receiver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadStep {
    /// Open a file; answer with [`Sender::start`], [`Sender::inline`] or [`Sender::fail`].
    Open {
        /// Its number.
        file: u32,
        /// Where it is.
        origin: Origin,
        /// Content bytes that may be sent in one frame right now.
        credit: u64,
        /// What the receiver has there; [`Sender::ask`] and [`Sender::patch`] are answers too then.
        basis: Option<ContentId>,
        /// What the receiver has staged of it, perhaps; [`Sender::resume`] is an answer too then.
        partial: Option<ContentId>,
    },
    /// Read the started file from `offset` on; answer with [`Sender::data`], [`Sender::hole`] or
    /// [`Sender::end`].
    Content {
        /// Its number.
        file: u32,
        /// The first byte not sent yet.
        offset: u64,
        /// Bytes left up to the announced size.
        remaining: u64,
        /// Content bytes that may be sent now.
        credit: u64,
    },
    /// Go on with the plan of the started patch; answer with [`Sender::data`] or [`Sender::end`].
    Plan {
        /// Its number.
        file: u32,
        /// Bytes of the plan that may be sent now.
        credit: u64,
    },
}

/// How an entry was settled, for progress and summary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Its number.
    pub file: u32,
    /// The entry.
    pub origin: Origin,
    /// Its size in bytes, 0 for what is not a file.
    pub size: u64,
    /// Whether it is a regular file.
    pub is_file: bool,
    /// The result.
    pub settlement: Settlement,
}

/// The result of one entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settlement {
    /// The receiver wants the content; another report follows when it is settled (never in a dry run).
    Wanted(Verdict),
    /// Nothing had to be sent.
    Answered(Verdict),
    /// The content was sent and is committed; the verdict tells what it was before.
    Committed(Verdict),
    /// It failed here or there.
    Failed(ItemCode),
}

impl Sender {
    /// A sender on `stream`.
    #[must_use]
    pub fn new(stream: u16, dry_run: bool) -> Sender {
        Sender {
            stream,
            dry_run,
            out: Vec::new(),
            batch: EntriesWriter::default(),
            next_file: 0,
            answered: 0,
            unanswered: VecDeque::new(),
            wanted: HashMap::new(),
            open_bytes: 0,
            queue: VecDeque::new(),
            current: None,
            asked: 0,
            credit: 0,
            list_ended: false,
            finish: None,
            reports: VecDeque::new(),
        }
    }

    /// Entries that may be offered now.
    #[must_use]
    pub fn offer_room(&self) -> usize {
        let is_heavy = self.open_bytes + ENTRY_WEIGHT_MAX > OFFER_WINDOW_BYTES;
        if self.list_ended || self.next_file == u32::MAX || is_heavy {
            return 0;
        }
        OFFER_WINDOW.saturating_sub(self.unanswered.len() + self.wanted.len())
    }

    /// Lists an entry, with the root of its content when contents are to be compared. The frame goes
    /// out when it is full or at [`Sender::flush_offers`].
    pub fn offer(&mut self, entry: &Entry, root: Option<&[u8; 32]>, origin: Origin) {
        self.offer_based(entry, root, None, origin);
    }

    /// As [`offer`](Self::offer), for a receiver that takes it only while it has the revision that it is based on.
    pub fn offer_based(&mut self, entry: &Entry, root: Option<&[u8; 32]>, based_on: Option<Revision>, origin: Origin) {
        debug_assert!(self.offer_room() > 0);
        let size = match entry.kind {
            Kind::File { size } => size,
            Kind::Directory | Kind::Symlink { .. } => 0,
        };
        let is_file = matches!(entry.kind, Kind::File { .. });
        self.batch.push(entry, root, based_on);
        self.unanswered.push_back(Item {
            file: self.next_file,
            origin,
            size,
            is_file,
            attempts: 0,
            verdict: Verdict::Have,
            stage: Stage::Queued,
            weight: entry.weight(),
            basis: None,
            partial: None,
        });
        self.open_bytes += entry.weight();
        self.next_file += 1;
        if self.batch.count() >= BATCH_ENTRIES_MAX / 4 || self.batch.byte_count() > OFFER_FRAME_BYTES {
            self.flush_offers();
        }
    }

    /// Sends what was listed so far.
    pub fn flush_offers(&mut self) {
        let first = self.next_file - self.batch.count() as u32;
        self.batch.flush(self.stream, first, &mut self.out);
    }

    /// Tells the receiver of an entry that cannot be read. The text is only shown.
    pub fn source_failed(&mut self, path: &[u8], code: ItemCode) {
        SourceFailed { path, code }.encode(self.stream, &mut self.out);
    }

    /// Everything is listed; `complete` when no part of the source was unreadable; `top` describes the
    /// directory whose contents were listed.
    pub fn list_end(&mut self, complete: bool, top: Option<Meta>) {
        debug_assert!(!self.list_ended);
        self.flush_offers();
        self.list_ended = true;
        ListEnd {
            entries: self.next_file,
            complete,
            top,
        }
        .encode(self.stream, &mut self.out);
    }

    /// What to read next, if anything can be sent.
    #[must_use]
    pub fn next_read(&self) -> Option<ReadStep> {
        if let Some(current) = self.current {
            let remaining = current.size - current.sent;
            if self.credit == 0 && remaining > 0 {
                return None;
            }
            let (file, offset, credit) = (current.file, current.sent, self.credit);
            if current.is_plan {
                return Some(ReadStep::Plan { file, credit });
            }
            return Some(ReadStep::Content {
                file,
                offset,
                remaining,
                credit,
            });
        }
        let file = *self.queue.front()?;
        let item = self.wanted.get(&file).expect("queued files are wanted");
        if self.credit < item.size.min(INLINE_BYTES_MAX) {
            return None;
        }
        Some(ReadStep::Open {
            file,
            origin: item.origin.clone(),
            credit: self.credit,
            basis: item.basis,
            partial: item.partial,
        })
    }

    /// The file at the front is open: its content follows.
    pub fn start(&mut self, size: u64, sparse: bool, meta: &Meta) {
        self.start_behind(0, size, sparse, meta);
    }

    /// Bytes of memory that it takes, about.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        let entries =
            self.unanswered.capacity() * size_of::<Item>() + self.wanted.capacity() * size_of::<(u32, Item)>();
        // An item has its path as it is offered, and where it is.
        size_of::<Sender>() + entries + 2 * self.open_bytes + self.out.capacity()
    }

    /// The file at the front, which begins with what is staged of it: its content follows from there.
    pub fn resume(&mut self, size: u64, sparse: bool, meta: &Meta) {
        if let Some(partial) = self.say_resume(size) {
            self.start_behind(partial.length, size, sparse, meta);
        }
    }

    /// The start that follows is of the rest of the file at the front, of `size` bytes. What is staged of it.
    fn say_resume(&mut self, size: u64) -> Option<ContentId> {
        let item = self.wanted.get(self.queue.front()?)?;
        debug_assert!(item.partial.is_some_and(|partial| partial.length <= size));
        let (file, partial) = (item.file, item.partial?);
        Resume { file }.encode(self.stream, &mut self.out);
        Some(partial)
    }

    fn start_behind(&mut self, sent: u64, size: u64, sparse: bool, meta: &Meta) {
        debug_assert!(self.current.is_none());
        let Some(file) = self.queue.pop_front() else {
            return;
        };
        if let Some(item) = self.wanted.get_mut(&file) {
            item.size = size;
            item.stage = Stage::Started;
            // What led nowhere is not tried again, unless another basis is named.
            item.basis = None;
            item.partial = None;
        }
        self.current = Some(Current {
            file,
            size,
            sent,
            is_plan: false,
        });
        Start {
            file,
            size,
            sparse,
            meta: *meta,
        }
        .encode(self.stream, &mut self.out);
    }

    /// The file at the front is small and was read whole: it goes in one frame.
    pub fn inline(&mut self, meta: &Meta, root: [u8; 32], bytes: &[u8]) {
        debug_assert!(self.current.is_none() && bytes.len() as u64 <= INLINE_BYTES_MAX);
        let Some(file) = self.queue.pop_front() else {
            return;
        };
        if let Some(item) = self.wanted.get_mut(&file) {
            item.size = bytes.len() as u64;
            item.stage = Stage::Ended;
            item.basis = None;
            item.partial = None;
        }
        self.credit = self.credit.saturating_sub(bytes.len() as u64);
        Inline {
            file,
            meta: *meta,
            root,
            bytes,
        }
        .encode(self.stream, &mut self.out);
    }

    /// The file at the front cannot be opened or read.
    pub fn fail(&mut self, code: ItemCode) {
        debug_assert!(self.current.is_none());
        let Some(file) = self.queue.pop_front() else {
            return;
        };
        self.give_up(file, code);
    }

    /// The file at the front changed while it was read whole: it is read again later, a bounded
    /// number of times.
    pub fn changed(&mut self) {
        let Some(file) = self.queue.pop_front() else {
            return;
        };
        if let Some(item) = self.wanted.get_mut(&file) {
            // It was read whole: asking again led nowhere, and questions are counted.
            item.basis = None;
        }
        self.read_again(file, ItemCode::Changing);
    }

    /// Takes `length` content bytes of the started file for sending: the returned header goes out
    /// first, then the bytes themselves.
    #[must_use]
    pub fn data(&mut self, length: usize) -> [u8; 12] {
        let current = self.current.as_mut().expect("data follows a start");
        debug_assert!(length as u64 <= (current.size - current.sent).min(self.credit));
        current.sent += length as u64;
        self.credit -= length as u64;
        data_header(self.stream, current.file, length)
    }

    /// The next `length` bytes of the started file are a hole.
    pub fn hole(&mut self, length: u64) {
        let current = self.current.as_mut().expect("a hole follows a start");
        debug_assert!(length > 0 && length <= current.size - current.sent);
        current.sent += length;
        Hole {
            file: current.file,
            length,
        }
        .encode(self.stream, &mut self.out);
    }

    /// The started file is complete, changed while it was read, or failed.
    pub fn end(&mut self, outcome: EndOutcome) {
        let Some(current) = self.current.take() else {
            return;
        };
        let file = current.file;
        match outcome {
            EndOutcome::Complete(_) => {
                End { file, outcome }.encode(self.stream, &mut self.out);
                if let Some(item) = self.wanted.get_mut(&file) {
                    item.stage = Stage::Ended;
                }
            }
            EndOutcome::Changed => {
                End { file, outcome }.encode(self.stream, &mut self.out);
                self.read_again(file, ItemCode::Changing);
            }
            EndOutcome::Failed(code) => self.give_up(file, code),
        }
    }

    pub(super) fn handle_credit(&mut self, bytes: u64) {
        self.credit = self.credit.saturating_add(bytes);
    }

    /// Deletions come after the list, or they would not know what to keep.
    pub(super) fn handle_removed(&self, payload: &[u8]) -> Result<(), Fault> {
        if !self.list_ended {
            return Err(Fault::protocol("deletions before the end of the list"));
        }
        let mut paths = RemovedReader::new(payload).map_err(fault_of)?;
        while paths.next_path().map_err(fault_of)?.is_some() {}
        Ok(())
    }

    /// What is done at the end comes after the list.
    pub(super) fn handle_target_failed(&self) -> Result<(), Fault> {
        match self.list_ended {
            true => Ok(()),
            false => Err(Fault::protocol("a failure at the end before the end of the list")),
        }
    }

    pub(super) fn handle_finish(&mut self, finish: Finish) -> Result<(), Fault> {
        let open = !self.list_ended || !self.unanswered.is_empty() || !self.wanted.is_empty();
        if open {
            return Err(Fault::protocol("a finish with open files"));
        }
        self.finish = Some(finish);
        Ok(())
    }

    /// The next settled entry.
    pub fn poll_report(&mut self) -> Option<Report> {
        self.reports.pop_front()
    }

    /// Whether nothing is to be sent, only compared.
    #[must_use]
    pub fn is_dry_run(&self) -> bool {
        self.dry_run
    }

    /// The origin of the file being sent.
    #[must_use]
    pub fn current_origin(&self) -> Option<&Origin> {
        let current = self.current?;
        self.wanted.get(&current.file).map(|item| &item.origin)
    }

    /// The number of the file being sent, when one is started and not ended.
    #[must_use]
    pub fn current_file(&self) -> Option<u32> {
        self.current.map(|current| current.file)
    }

    /// How the transfer ended, once it has.
    #[must_use]
    pub fn finished(&self) -> Option<Finish> {
        self.finish
    }

    pub(super) fn output(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    fn read_again(&mut self, file: u32, code: ItemCode) {
        let Some(item) = self.wanted.get_mut(&file) else {
            return;
        };
        item.attempts += 1;
        if item.attempts > CHANGED_RETRIES_MAX {
            self.give_up(file, code);
        } else {
            item.stage = Stage::Queued;
            self.queue.push_back(file);
        }
    }

    fn give_up(&mut self, file: u32, code: ItemCode) {
        let outcome = EndOutcome::Failed(code);
        End { file, outcome }.encode(self.stream, &mut self.out);
        let Some(mut item) = self.wanted.remove(&file) else {
            return;
        };
        self.report(&item, Settlement::Failed(code));
        item.stage = Stage::GivenUp;
        self.wanted.insert(file, item);
    }

    fn report(&mut self, item: &Item, settlement: Settlement) {
        let (origin, size, is_file) = (item.origin.clone(), item.size, item.is_file);
        self.reports.push_back(Report {
            file: item.file,
            origin,
            size,
            is_file,
            settlement,
        });
    }
}

/// The most that one entry weighs.
const ENTRY_WEIGHT_MAX: usize = PATH_BYTES_MAX + SYMLINK_BYTES_MAX;

/// Payload bytes at which an offer goes out: a fraction of the frame limit, so that the receiver
/// starts early.
const OFFER_FRAME_BYTES: usize = 32 * 1024;

pub(super) fn fault_of(error: WireError) -> Fault {
    let code = match error {
        WireError::OverLimit(_) => crate::model::CloseCode::Limit,
        _ => crate::model::CloseCode::Protocol,
    };
    Fault::new(code, error.to_string())
}
