//! The receiver of a transfer: judges offers, takes content, says what became of it.
//!
//! The same machine receives a push on the server and a pull on the client. It never touches a file:
//! checks and content go out as data, verdicts and results come back.
//! Invariants: only content that was wanted is passed on, never more than was announced, never more
//! than there was credit for; at most [`OFFER_WINDOW`] entries are open, of at most
//! [`OFFER_WINDOW_BYTES`]; every wanted file is
//! settled exactly once, with a result that crosses the wire.

mod telling;

use super::machine::Event;
use super::sender::fault_of;
use crate::model::limits::{CREDIT_WINDOW_BYTES, OFFER_WINDOW, OFFER_WINDOW_BYTES};
use crate::model::{CloseCode, ContentId, Entry, Fault, ItemCode, Kind, Revision};
use crate::wire::{
    Answers, End, EndOutcome, EntriesReader, Finish, FrameType, Hole, Inline, ListEnd, Message, Offered, RemovedWriter,
    SettledResult, SettledWriter, Start, TargetFailed, Verdict, encode_number,
};
use std::collections::{HashMap, VecDeque};

/// The receiving half of a transfer.
#[derive(Debug)]
pub struct Receiver {
    stream: u16,
    dry_run: bool,
    out: Vec<u8>,
    next_file: u32,
    checks: VecDeque<Check>,
    answers: Answers,
    wanted: HashMap<u32, Wanted>,
    /// Weight of all of those and of `checks`.
    open_bytes: usize,
    current: Option<Current>,
    /// The basis of the entry that is judged now.
    named: Option<ContentId>,
    /// What is staged of the entry that is judged now, in bytes.
    named_partial: u64,
    /// The file whose start is of the rest.
    resuming: Option<u32>,
    /// Questions that are not answered yet.
    asked: usize,
    results: SettledWriter,
    removed: RemovedWriter,
    /// Credit given and not used.
    credit: u64,
    /// Content taken and not yet replaced by new credit.
    consumed: u64,
    list_end: Option<ListEnd>,
    finished: bool,
}

/// An offered entry that waits for a verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// Its number.
    pub file: u32,
    /// What is offered.
    pub entry: Entry,
    /// Root of its content, when contents are to be compared.
    pub root: Option<[u8; 32]>,
    /// The revision that it is based on, when that counts.
    pub based_on: Option<Revision>,
}

#[derive(Debug, Clone, Copy)]
struct Wanted {
    progress: Progress,
    weight: usize,
    /// What was named as its basis.
    basis: Option<ContentId>,
    /// Bytes that were named as staged; none once a start has come.
    partial: u64,
    /// A question about it is open.
    is_asked: bool,
    /// Questions about that basis so far.
    questions: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// Nothing has come yet, or what came was void.
    Wanted,
    /// All content has come; the outside decides.
    Arrived,
    /// Settled as failed before the sender's last word on it: what still comes is dropped.
    Void,
}

#[derive(Debug, Clone, Copy)]
struct Current {
    file: u32,
    size: u64,
    received: u64,
    /// It was announced with holes.
    sparse: bool,
    /// What comes is a plan, of at most `size` bytes.
    is_plan: bool,
}

impl Receiver {
    /// A receiver on `stream`, which gives its first credit at once.
    #[must_use]
    pub fn new(stream: u16, dry_run: bool) -> Receiver {
        let mut out = Vec::new();
        encode_number(FrameType::Credit, stream, CREDIT_WINDOW_BYTES, &mut out);
        Receiver {
            stream,
            dry_run,
            out,
            next_file: 0,
            checks: VecDeque::new(),
            answers: Answers::default(),
            wanted: HashMap::new(),
            open_bytes: 0,
            current: None,
            named: None,
            named_partial: 0,
            resuming: None,
            asked: 0,
            results: SettledWriter::default(),
            removed: RemovedWriter::default(),
            credit: CREDIT_WINDOW_BYTES,
            consumed: 0,
            list_end: None,
            finished: false,
        }
    }

    /// The entry that waits for [`Receiver::answer`].
    #[must_use]
    pub fn next_check(&self) -> Option<&Check> {
        self.checks.front()
    }

    /// The verdict on the entry that [`Receiver::next_check`] shows, which is returned.
    pub fn answer(&mut self, verdict: Verdict) -> Option<Check> {
        let check = self.checks.pop_front()?;
        let weight = check.entry.weight();
        let basis = self.named.take();
        let partial = std::mem::take(&mut self.named_partial);
        if verdict.is_want() && !self.dry_run {
            let progress = Progress::Wanted;
            let is_asked = false;
            let wanted = Wanted {
                progress,
                weight,
                basis,
                partial,
                is_asked,
                questions: 0,
            };
            self.wanted.insert(check.file, wanted);
        } else {
            self.open_bytes -= weight;
        }
        self.answers.push(verdict);
        if self.checks.is_empty() || self.answers.runs() >= ANSWER_RUNS {
            self.answers.flush(self.stream, &mut self.out);
        }
        Some(check)
    }

    /// What became of a wanted file. A failure may come at any time; the others only after its end.
    pub fn settle(&mut self, file: u32, result: SettledResult) {
        self.forget_question(file);
        let Some(wanted) = self.wanted.get_mut(&file) else {
            return;
        };
        match (result, wanted.progress) {
            (_, Progress::Void) => return,
            (SettledResult::Failed(_), Progress::Wanted) => wanted.progress = Progress::Void,
            (SettledResult::Resend | SettledResult::Committed, Progress::Wanted) => {
                debug_assert!(false, "{result:?} of file {file} before its end");
                return;
            }
            (SettledResult::Resend, Progress::Arrived) => wanted.progress = Progress::Wanted,
            (SettledResult::Committed | SettledResult::Failed(_), Progress::Arrived) => {
                self.forget(file);
            }
        }
        self.results.push(file, result);
    }

    /// `bytes` of content are dealt with: the sender may send as many more.
    pub fn consumed(&mut self, bytes: u64) {
        self.consumed += bytes;
        if self.consumed >= CREDIT_WINDOW_BYTES / 4 {
            encode_number(FrameType::Credit, self.stream, self.consumed, &mut self.out);
            self.credit += self.consumed;
            self.consumed = 0;
        }
    }

    /// The list has ended, every entry is settled, and nothing more of one is on its way: time to
    /// conclude.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.list_end.is_some() && self.checks.is_empty() && self.wanted.is_empty() && !self.finished
    }

    /// Bytes of memory that it takes, about.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        let entries = self.checks.capacity() * size_of::<Check>() + self.wanted.capacity() * size_of::<(u32, Wanted)>();
        size_of::<Receiver>() + entries + self.open_bytes + self.out.capacity()
    }

    /// Whether the sender could list everything; known once the list has ended.
    #[must_use]
    pub fn list_end(&self) -> Option<ListEnd> {
        self.list_end
    }

    /// An entry was deleted (or would be, in a dry run).
    pub fn removed(&mut self, path: &crate::model::RelPath) {
        if self.removed.push(path) {
            self.removed.flush(self.stream, &mut self.out);
        }
    }

    /// Something could not be done that belongs to no wanted file: a deletion, the metadata of a directory. To
    /// be said after the list has ended.
    pub fn target_failed(&mut self, path: &[u8], code: ItemCode) {
        TargetFailed { path, code }.encode(self.stream, &mut self.out);
    }

    /// The transfer is over.
    pub fn finish(&mut self, finish: Finish) {
        debug_assert!(self.is_complete());
        self.flush();
        self.removed.flush(self.stream, &mut self.out);
        finish.encode(self.stream, &mut self.out);
        self.finished = true;
    }

    /// Whether [`Receiver::finish`] was said.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.finished
    }

    /// The number of the file that is arriving.
    #[must_use]
    pub fn current_file(&self) -> Option<u32> {
        self.current.map(|current| current.file)
    }

    fn flush(&mut self) {
        self.answers.flush(self.stream, &mut self.out);
        self.results.flush(self.stream, &mut self.out);
    }

    pub(super) fn output(&mut self) -> &mut Vec<u8> {
        self.results.flush(self.stream, &mut self.out);
        &mut self.out
    }

    pub(super) fn handle_offer(&mut self, payload: &[u8]) -> Result<(), Fault> {
        let mut entries = EntriesReader::new(payload).map_err(fault_of)?;
        if self.list_end.is_some() || entries.first() != self.next_file {
            return Err(Fault::protocol("an offer out of order"));
        }
        while let Some(offered) = entries.next_entry().map_err(fault_of)? {
            let Offered { entry, root, based_on } = offered;
            self.open_bytes += entry.weight();
            let entries = self.checks.len() + self.wanted.len();
            if entries >= OFFER_WINDOW || self.open_bytes > OFFER_WINDOW_BYTES {
                return Err(Fault::new(CloseCode::Limit, "too many entries at once"));
            }
            let file = self.next_file;
            self.next_file = file
                .checked_add(1)
                .ok_or_else(|| Fault::new(CloseCode::Limit, "too many entries"))?;
            self.checks.push_back(Check {
                file,
                entry,
                root,
                based_on,
            });
        }
        Ok(())
    }

    pub(super) fn handle_list_end(&mut self, end: ListEnd) -> Result<(), Fault> {
        if self.list_end.is_some() || end.entries != self.next_file {
            return Err(Fault::protocol("a list that ends in the wrong place"));
        }
        self.list_end = Some(end);
        Ok(())
    }

    pub(super) fn handle_start<'a>(&mut self, start: Start) -> Result<Event<'a>, Fault> {
        if self.current.is_some() || !self.may_come(start.file) {
            return Err(Fault::protocol("a start of a file that is not wanted now"));
        }
        let resumed = self.resumed(start.file, start.size)?;
        self.current = Some(Current {
            file: start.file,
            size: start.size,
            received: resumed.unwrap_or(0),
            sparse: start.sparse,
            is_plan: false,
        });
        Ok(match resumed {
            _ if self.is_void(start.file) => Event::Nothing,
            Some(_) => Event::Resume(start),
            None => Event::Start(start),
        })
    }

    pub(super) fn handle_data<'a>(&mut self, file: u32, bytes: &'a [u8]) -> Result<Event<'a>, Fault> {
        let length = bytes.len() as u64;
        let current = self.current.as_mut().filter(|current| current.file == file);
        let current = current.ok_or_else(|| Fault::protocol("content of a file that is not started"))?;
        if length > current.size - current.received {
            return Err(Fault::new(CloseCode::Limit, "more content than announced"));
        }
        if length > self.credit {
            return Err(Fault::new(CloseCode::Limit, "more content than credit"));
        }
        current.received += length;
        self.credit -= length;
        if self.is_void(file) {
            self.consumed(length);
            return Ok(Event::Nothing);
        }
        Ok(Event::Content { file, bytes })
    }

    pub(super) fn handle_hole<'a>(&mut self, hole: Hole) -> Result<Event<'a>, Fault> {
        let current = self.current.as_mut().filter(|current| current.file == hole.file);
        let current = current.ok_or_else(|| Fault::protocol("a hole in a file that is not started"))?;
        if !current.sparse {
            return Err(Fault::protocol("a hole in a file that was announced without"));
        }
        if hole.length > current.size - current.received {
            return Err(Fault::new(CloseCode::Limit, "more content than announced"));
        }
        current.received += hole.length;
        Ok(if self.is_void(hole.file) {
            Event::Nothing
        } else {
            Event::Hole(hole)
        })
    }

    pub(super) fn handle_end<'a>(&mut self, end: End) -> Result<Event<'a>, Fault> {
        let started = self.current.take_if(|current| current.file == end.file);
        let progress = self.progress(end.file);
        match (end.outcome, started, progress) {
            (EndOutcome::Failed(_), _, Some(Progress::Void))
            | (EndOutcome::Complete(_), Some(_), Some(Progress::Void)) => {
                self.forget(end.file);
                Ok(Event::Nothing)
            }
            (EndOutcome::Failed(code), _, Some(Progress::Wanted)) => {
                self.forget(end.file);
                self.results.push(end.file, SettledResult::Failed(code));
                Ok(Event::End(end))
            }
            (EndOutcome::Complete(_), Some(current), _) if !current.is_plan && current.received != current.size => {
                Err(Fault::protocol("a file that ends before its announced size"))
            }
            (EndOutcome::Complete(_), Some(_), _) => {
                self.arrived(end.file);
                Ok(Event::End(end))
            }
            (EndOutcome::Changed, Some(_), Some(Progress::Void)) => Ok(Event::Nothing),
            (EndOutcome::Changed, Some(_), _) => Ok(Event::End(end)),
            _ => Err(Fault::protocol("an end of a file that is not started")),
        }
    }

    pub(super) fn handle_inline<'a>(&mut self, inline: Inline<'a>) -> Result<Event<'a>, Fault> {
        let file = inline.file;
        let current = self.current.is_some_and(|current| current.file == file);
        if current || !self.may_come(file) {
            return Err(Fault::protocol("a file that is not wanted now"));
        }
        let length = inline.bytes.len() as u64;
        self.credit = self
            .credit
            .checked_sub(length)
            .ok_or_else(|| Fault::new(CloseCode::Limit, "more content than credit"))?;
        if self.is_void(file) {
            self.forget(file);
            self.consumed(length);
            return Ok(Event::Nothing);
        }
        if let Some(wanted) = self.wanted.get_mut(&file) {
            // What was named is used up, as by a start.
            wanted.partial = 0;
        }
        self.arrived(file);
        Ok(Event::Inline(inline))
    }

    /// An unreadable entry belongs to the list.
    pub(super) fn handle_source_failed(&self) -> Result<(), Fault> {
        match self.list_end {
            None => Ok(()),
            Some(_) => Err(Fault::protocol("a list that goes on after its end")),
        }
    }

    /// Whether content of a file may come. Who asked about it waits for the whole answer first; a file
    /// that was given up here meanwhile has no question any more, and is dropped.
    fn may_come(&self, file: u32) -> bool {
        let wanted = self.wanted.get(&file);
        wanted.is_some_and(|wanted| wanted.progress != Progress::Arrived && !wanted.is_asked)
    }

    fn is_void(&self, file: u32) -> bool {
        self.progress(file) == Some(Progress::Void)
    }

    fn progress(&self, file: u32) -> Option<Progress> {
        self.wanted.get(&file).map(|wanted| wanted.progress)
    }

    fn arrived(&mut self, file: u32) {
        if let Some(wanted) = self.wanted.get_mut(&file) {
            wanted.progress = Progress::Arrived;
        }
    }

    /// Both sides have said their last word: the file makes room in the window.
    fn forget(&mut self, file: u32) {
        self.forget_question(file);
        if let Some(wanted) = self.wanted.remove(&file) {
            self.open_bytes -= wanted.weight;
        }
    }
}

impl Check {
    /// The size of the offered file; 0 for what is not a file.
    #[must_use]
    pub fn size(&self) -> u64 {
        match self.entry.kind {
            Kind::File { size } => size,
            Kind::Directory | Kind::Symlink { .. } => 0,
        }
    }
}

/// Runs of answers at which a frame goes out although more checks wait.
const ANSWER_RUNS: usize = 512;
