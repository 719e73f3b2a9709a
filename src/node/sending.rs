//! The sending end of a transfer: lists trees, opens and reads files, feeds the sender machine.
//!
//! The same code sends a push on the client and a pull on the server.
//! 1. Entries are offered as long as the window has room (with `--checksum` each file is read first).
//! 2. What the receiver wants is read: small files whole into one frame; others through mapped
//!    windows whose bytes are hashed and then go to the socket without a copy.
//! 3. At its end a file must still be what it was at its start, or what was sent is void.
//!
//! Invariant: a root is sent only when the file was stable from open to end and no window was torn.

use super::content::{Hashed, Hashing};
use super::events::Action;
use super::ledger::Ledger;
use super::source_tree::{SourceTree, renamed};
use crate::conn::{Machine, Origin, ReadStep, Report, Sender, Settlement};
use crate::delta::{TreeHasher, content_id};
use crate::model::limits::{INLINE_BYTES_MAX, TURN_BYTES};
use crate::model::{Entry, ItemCode, Kind, Meta, RelPath, SharedBytes};
use crate::reactor::{Activity, Context};
use crate::store::{Decision, Extent, Filter, Keep, PathKind, Scan, ScanItem, Shape, SourceFile, Window};
use crate::wire::{EndOutcome, Verdict};
use std::collections::VecDeque;
use std::rc::Rc;

/// The sending end of one transfer.
pub(crate) struct Sending {
    trees: Vec<SourceTree>,
    filter: Filter,
    checksum: bool,
    holes: bool,
    tree: usize,
    scan: Option<Scan>,
    found: VecDeque<ScanItem>,
    hashing: Option<(Entry, Origin, Hashing)>,
    top: Option<Meta>,
    missing: Vec<RelPath>,
    listed: bool,
    complete: bool,
    outgoing: Option<Outgoing>,
}

/// What a sender is set up with.
pub(crate) struct SendingPlan {
    pub(crate) trees: Vec<SourceTree>,
    pub(crate) filter: Filter,
    pub(crate) checksum: bool,
    /// Whether the receiver understands holes.
    pub(crate) holes: bool,
    /// The directory whose contents are sent, if it is one.
    pub(crate) top: Option<Meta>,
    /// Sources that are not there; the others are sent.
    pub(crate) missing: Vec<RelPath>,
    /// Whether the trees are all that was asked for.
    pub(crate) complete: bool,
}

/// A file that is being sent.
struct Outgoing {
    file: SourceFile,
    hasher: TreeHasher,
    /// The data extent that is being sent ends here.
    extent_end: u64,
    loaded: Option<Loaded>,
    torn: bool,
}

/// A part of a file in memory.
struct Loaded {
    start: u64,
    length: usize,
    content: Content,
}

enum Content {
    Mapped(Rc<Window>),
    /// Where nothing can be mapped: too many windows are open, or the file system has no mappings.
    Read(Rc<Vec<u8>>),
}

/// Bytes mapped at a time.
const WINDOW_BYTES: usize = 4 << 20;
/// Bytes read at a time where nothing can be mapped.
const READ_BYTES: usize = 128 * 1024;
/// Content bytes of one data frame: hashed while they are in the second-level cache, then sent.
const FRAME_BYTES: usize = 512 * 1024;
/// Entries taken from a scan at a time.
const SCAN_ENTRIES: usize = 256;
/// Files opened in one visit.
const FILES_PER_VISIT: usize = 64;

impl Sending {
    pub(crate) fn new(plan: SendingPlan) -> Sending {
        Sending {
            trees: plan.trees,
            filter: plan.filter,
            checksum: plan.checksum,
            holes: plan.holes,
            tree: 0,
            scan: None,
            found: VecDeque::new(),
            hashing: None,
            top: plan.top,
            missing: plan.missing,
            listed: false,
            complete: plan.complete,
            outgoing: None,
        }
    }

    /// Does a bounded amount of work for the receiver.
    pub(crate) fn step(
        &mut self,
        cx: &mut Context<'_>,
        machine: &mut Machine,
        ledger: &mut Ledger,
        scratch: &mut Vec<u8>,
    ) -> Activity {
        let Some(sender) = machine.sender() else {
            return Activity::Idle;
        };
        settle_reports(sender, ledger);
        // A directory that was moved away since the last step is not read from.
        self.trees.iter().for_each(|tree| tree.root.forget_parents());
        self.forget_abandoned(sender);
        let listing = self.list(sender, ledger, scratch);
        let before = cx.bytes_sent() + cx.outbound_bytes() as u64;
        let mut opened = 0;
        let mut reading = Activity::Idle;
        while cx.room() > 0 {
            let Some(sender) = machine.sender() else {
                break;
            };
            let Some(step) = sender.next_read() else {
                break;
            };
            reading = Activity::More;
            match step {
                ReadStep::Open { origin, credit, .. } => {
                    opened += 1;
                    self.open(sender, &origin, credit, ledger, scratch);
                    cx.send_owned(machine.take_output());
                }
                ReadStep::Content {
                    offset,
                    remaining,
                    credit,
                    ..
                } => {
                    self.content(cx, machine, ledger, (offset, remaining, credit));
                }
            }
            let produced = cx.bytes_sent() + cx.outbound_bytes() as u64 - before;
            if opened >= FILES_PER_VISIT || produced >= TURN_BYTES as u64 {
                break;
            }
        }
        cx.send_owned(machine.take_output());
        if cx.room() == 0 {
            // Called again as soon as the queue has fallen.
            return Activity::Idle;
        }
        if reading == Activity::More { reading } else { listing }
    }

    /// Enters into the books what the receiver has settled.
    pub(crate) fn settle(machine: &mut Machine, ledger: &mut Ledger) {
        if let Some(sender) = machine.sender() {
            settle_reports(sender, ledger);
        }
    }

    /// The receiver gave the current file up while it was on its way.
    fn forget_abandoned(&mut self, sender: &Sender) {
        if sender.current_file().is_none() {
            self.outgoing = None;
        }
    }

    fn list(&mut self, sender: &mut Sender, ledger: &mut Ledger, scratch: &mut Vec<u8>) -> Activity {
        if self.listed || sender.offer_room() == 0 {
            return Activity::Idle;
        }
        for path in std::mem::take(&mut self.missing) {
            self.cannot_offer(sender, ledger, path.as_bytes(), ItemCode::Vanished);
        }
        if let Some((entry, origin, hashing)) = self.hashing.take() {
            match hashing.step(scratch) {
                Hashed::More(hashing) => self.hashing = Some((entry, origin, *hashing)),
                Hashed::Done(id) => sender.offer(&entry, Some(&id.root), origin),
                // It is offered all the same: the receiver will want it and the reading will tell.
                Hashed::Failed => sender.offer(&entry, None, origin),
            }
            return Activity::More;
        }
        let Some(tree) = self.trees.get(self.tree) else {
            self.listed = true;
            ledger.list_ended();
            sender.list_end(self.complete, self.top);
            return Activity::Idle;
        };
        if self.scan.is_none() && self.found.is_empty() {
            self.scan = Some(tree.root.scan(tree.start.as_ref()));
            if let Some(top) = &tree.top {
                let origin = Origin {
                    source: self.tree as u16,
                    path: top.path.clone(),
                };
                sender.offer(top, None, origin);
            }
        }
        if self.found.is_empty() {
            self.scan_more();
        }
        while sender.offer_room() > 0 && self.hashing.is_none() {
            let Some(item) = self.found.pop_front() else {
                break;
            };
            self.offer(sender, item, ledger);
        }
        if self.found.is_empty() && self.scan.is_none() {
            self.tree += 1;
        }
        sender.flush_offers();
        Activity::More
    }

    fn scan_more(&mut self) {
        let (Some(tree), Some(scan)) = (self.trees.get(self.tree), self.scan.as_mut()) else {
            return;
        };
        let mut found = Vec::new();
        let filter = &self.filter;
        let mut keep = |path: &RelPath, shape: Shape| keep_source(filter, tree, path, shape);
        if !scan.step(&tree.root, &mut keep, SCAN_ENTRIES, &mut found) {
            self.complete &= scan.complete();
            self.scan = None;
        }
        self.found.extend(found);
    }

    fn offer(&mut self, sender: &mut Sender, item: ScanItem, ledger: &mut Ledger) {
        let tree = &self.trees[self.tree];
        let (entry, local) = match item {
            ScanItem::Entry(entry, _) => match tree.offered(&entry.path) {
                Ok(None) => return,
                Ok(Some(path)) => {
                    let local = entry.path.clone();
                    (renamed(&entry, path), local)
                }
                Err(_) => {
                    return self.cannot_offer(sender, ledger, entry.path.as_bytes(), ItemCode::BadPath);
                }
            },
            ScanItem::Special(path) => {
                let path = tree.offered(&path).ok().flatten().unwrap_or(path);
                sender.source_failed(path.as_bytes(), ItemCode::Special);
                return ledger.left_out(path.as_bytes(), ItemCode::Special);
            }
            ScanItem::Failed(error) => {
                log::info!("{error}");
                let shown = RelPath::parse(error.path())
                    .ok()
                    .and_then(|path| tree.offered(&path).ok().flatten());
                let path = shown.as_ref().map_or(error.path(), RelPath::as_bytes).to_vec();
                return self.cannot_offer(sender, ledger, &path, error.code());
            }
        };
        let origin = Origin {
            source: self.tree as u16,
            path: entry.path.clone(),
        };
        if let Kind::File { .. } = entry.kind {
            ledger.found();
            if self.checksum
                && let Ok(file) = tree.root.open_file(&local)
            {
                self.hashing = Some((entry, origin, Hashing::new(file)));
                return;
            }
        }
        sender.offer(&entry, None, origin);
    }

    fn cannot_offer(&mut self, sender: &mut Sender, ledger: &mut Ledger, path: &[u8], code: ItemCode) {
        self.complete = false;
        sender.source_failed(path, code);
        ledger.failed(path, code);
    }

    fn open(&mut self, sender: &mut Sender, origin: &Origin, credit: u64, ledger: &mut Ledger, scratch: &mut Vec<u8>) {
        let tree = &self.trees[usize::from(origin.source)];
        let Ok(local) = tree.local(&origin.path) else {
            return sender.fail(ItemCode::BadPath);
        };
        let file = match tree.root.open_file(&local) {
            Ok(file) => file,
            Err(error) => {
                log::info!("{error}");
                return sender.fail(error.code());
            }
        };
        if file.size() <= INLINE_BYTES_MAX.min(credit) {
            return send_whole(sender, &file, ledger, scratch);
        }
        let sparse = self.holes && file.is_sparse();
        sender.start(file.size(), sparse, &file.meta());
        ledger.progress.current = Some(origin.path.clone());
        self.outgoing = Some(Outgoing {
            file,
            hasher: TreeHasher::new(),
            extent_end: 0,
            loaded: None,
            torn: false,
        });
    }

    /// Sends the next part of the started file: a frame of data, a hole, or its end.
    fn content(
        &mut self,
        cx: &mut Context<'_>,
        machine: &mut Machine,
        ledger: &mut Ledger,
        (offset, remaining, credit): (u64, u64, u64),
    ) {
        let Some(outgoing) = self.outgoing.as_mut() else {
            debug_assert!(false, "a started file is open");
            return;
        };
        let part = if remaining == 0 {
            Ok(Part::End)
        } else {
            outgoing.next_part(offset, remaining, credit, self.holes)
        };
        let pending = machine.take_output();
        cx.send_owned(pending);
        let Some(sender) = machine.sender() else {
            return;
        };
        match part {
            Ok(Part::Data(bytes, range)) => {
                let length = range.len();
                cx.send(&sender.data(length));
                cx.send_shared(bytes, range);
                ledger.moved(length as u64);
            }
            Ok(Part::Hole(length)) => {
                outgoing.hasher.update_zeros(length);
                sender.hole(length);
                ledger.skipped(length);
            }
            Ok(Part::End) => {
                let outcome = self.outgoing.take().map_or(EndOutcome::Changed, Outgoing::finish);
                sender.end(outcome);
            }
            Err(code) => {
                self.outgoing = None;
                sender.end(match code {
                    ItemCode::Changing => EndOutcome::Changed,
                    code => EndOutcome::Failed(code),
                });
            }
        }
    }
}

enum Part {
    Data(SharedBytes, std::ops::Range<usize>),
    Hole(u64),
    End,
}

impl Outgoing {
    fn next_part(&mut self, offset: u64, remaining: u64, credit: u64, holes: bool) -> Result<Part, ItemCode> {
        if offset >= self.extent_end {
            let extent = if holes {
                self.file.next_extent(offset)
            } else {
                Ok(Extent::Data { length: remaining })
            };
            match extent.map_err(|error| error.code())? {
                Extent::Data { length } => self.extent_end = offset + length.min(remaining),
                Extent::Hole { length } => return Ok(Part::Hole(length.min(remaining))),
                // Shorter than it was when it was opened.
                Extent::End => return Err(ItemCode::Changing),
            }
        }
        let wanted = (self.extent_end - offset).min(credit).min(FRAME_BYTES as u64) as usize;
        let (loaded, from) = self.load(offset)?;
        let range = from..from + wanted.min(loaded.length - from);
        let bytes = loaded.bytes();
        self.hasher.update(&(*bytes).as_ref()[range.clone()]);
        self.torn |= self.loaded.as_ref().is_some_and(Loaded::is_torn);
        Ok(Part::Data(bytes, range))
    }

    /// The part of the file in memory that holds `offset`, and where in it.
    fn load(&mut self, offset: u64) -> Result<(&Loaded, usize), ItemCode> {
        let holds = |part: &Loaded| (part.start..part.start + part.length as u64).contains(&offset);
        if !self.loaded.as_ref().is_some_and(holds) {
            self.torn |= self.loaded.take().is_some_and(|part| part.is_torn());
            let rest = self.extent_end - offset;
            self.loaded = Some(Loaded::new(&self.file, offset, rest)?);
        }
        let loaded = self.loaded.as_ref().expect("just filled");
        Ok((loaded, (offset - loaded.start) as usize))
    }

    fn finish(self) -> EndOutcome {
        let torn = self.torn || self.loaded.is_some_and(|part| part.is_torn());
        match self.file.unchanged() {
            Ok(true) if !torn => EndOutcome::Complete(self.hasher.finish().root),
            Ok(_) => EndOutcome::Changed,
            Err(error) => EndOutcome::Failed(error.code()),
        }
    }
}

impl Loaded {
    /// The next part of at most `rest` bytes: mapped, or read where that is not possible.
    fn new(file: &SourceFile, start: u64, rest: u64) -> Result<Loaded, ItemCode> {
        let length = rest.min(WINDOW_BYTES as u64) as usize;
        match Window::open(file.file(), start, length) {
            Ok(window) => Ok(Loaded {
                start,
                length,
                content: Content::Mapped(Rc::new(window)),
            }),
            Err(error) => {
                log::debug!("a file is read and not mapped: {error}");
                Loaded::read(file, start, length.min(READ_BYTES))
            }
        }
    }

    fn read(file: &SourceFile, start: u64, length: usize) -> Result<Loaded, ItemCode> {
        let mut bytes = vec![0; length];
        let count = file.read_at(start, &mut bytes).map_err(|error| {
            log::info!("{error}");
            error.code()
        })?;
        if count < length {
            // Shorter than it was when it was opened.
            return Err(ItemCode::Changing);
        }
        Ok(Loaded {
            start,
            length,
            content: Content::Read(Rc::new(bytes)),
        })
    }

    fn bytes(&self) -> SharedBytes {
        match &self.content {
            Content::Mapped(window) => Rc::clone(window) as SharedBytes,
            Content::Read(bytes) => Rc::clone(bytes) as SharedBytes,
        }
    }

    /// Whether the file lost a part of it; ask after reading.
    fn is_torn(&self) -> bool {
        matches!(&self.content, Content::Mapped(window) if window.is_torn())
    }
}

/// A small file: read, hashed and sent at once. Mapping it would cost more than the copy.
fn send_whole(sender: &mut Sender, file: &SourceFile, ledger: &mut Ledger, scratch: &mut Vec<u8>) {
    scratch.resize(INLINE_BYTES_MAX as usize + 1, 0);
    let length = match file.read_at(0, scratch) {
        Ok(length) => length,
        Err(error) => return sender.fail(error.code()),
    };
    match file.unchanged() {
        Ok(true) if length as u64 == file.size() => {
            let bytes = &scratch[..length];
            sender.inline(&file.meta(), content_id(bytes).root, bytes);
            ledger.moved(length as u64);
        }
        Ok(_) => sender.changed(),
        Err(error) => sender.fail(error.code()),
    }
}

fn keep_source(filter: &Filter, tree: &SourceTree, path: &RelPath, shape: Shape) -> Keep {
    let kind = match shape {
        Shape::Directory => PathKind::Directory,
        Shape::Other => PathKind::Other,
    };
    match tree.filtered(path) {
        Some(path) if filter.decide(&path, kind) == Decision::Leave => Keep::No,
        _ => Keep::Yes,
    }
}

/// Enters what became of entries into the books.
fn settle_reports(sender: &mut Sender, ledger: &mut Ledger) {
    while let Some(Report {
        origin,
        size,
        is_file,
        settlement,
    }) = sender.poll_report()
    {
        match settlement {
            Settlement::Wanted(verdict) => {
                ledger.wanted(size);
                if sender.is_dry_run() {
                    ledger.transferred(size);
                    ledger.item(&origin.path, action_of(verdict), size);
                }
            }
            Settlement::Committed(verdict) => {
                ledger.transferred(size);
                ledger.item(&origin.path, action_of(verdict), size);
            }
            Settlement::Answered(verdict) => {
                if is_file {
                    ledger.unchanged(size);
                }
                if verdict != Verdict::Have {
                    ledger.item(&origin.path, action_of(verdict), size);
                }
            }
            Settlement::Failed(code) if is_file => ledger.file_failed(&origin.path, code),
            Settlement::Failed(code) => ledger.failed(origin.path.as_bytes(), code),
        }
    }
}

/// What a verdict means for the user.
pub(crate) fn action_of(verdict: Verdict) -> Action {
    match verdict {
        Verdict::WantNew | Verdict::Created => Action::Created,
        Verdict::WantReplace | Verdict::Replaced => Action::Replaced,
        Verdict::Touched | Verdict::Have | Verdict::Failed(_) => Action::Touched,
    }
}
