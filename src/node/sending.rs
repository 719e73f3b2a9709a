//! The sending end of a transfer: lists trees, opens and reads files, feeds the sender machine.
//!
//! The same code sends a push on the client and a pull on the server.
//! 1. Entries are offered as long as the window has room (with `--checksum` each file is read first).
//! 2. What the receiver wants is read: small files whole into one frame; others through mapped
//!    windows whose bytes are hashed and then go to the socket without a copy.
//! 3. At its end a file must still be what it was at its start, or what was sent is void.
//!
//! Invariant: a root is sent only when the file was stable from open to end and no window was torn.

use super::changing::{Changed, Changing};
use super::choosing::{Choice, Told, choose};
use super::commit::Done;
use super::content::Hashing;
use super::deltas::Deltas;
use super::ledger::Ledger;
use super::outgoing::{Outgoing, Part};
use super::receiving::Books;
use super::reports::settle;
use super::resumes::{Noted, Resumes};
use super::resuming::{Resumed, Resuming};
use super::selected::Selected;
use super::slice::Slice;
use super::source_tree::SourceTree;
use crate::conn::{Asked, Machine, Origin, ReadStep, Sender, Settlement};
use crate::delta::{TreeHasher, content_id};
use crate::model::limits::{INLINE_BYTES_MAX, MEDIUM_BYTES_MAX, TURN_BYTES, WHOLE_BYTES_MAX};
use crate::model::{ContentId, Entry, ItemCode, Meta, RelPath};
use crate::reactor::{Activity, Context};
use crate::store::TransferId;
use crate::store::{Filter, Identity, Scan, ScanItem, SourceFile};
use crate::wire::{EndOutcome, Tell, features};
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;

/// The sending end of one transfer.
pub(crate) struct Sending {
    pub(super) trees: Vec<SourceTree>,
    pub(super) filter: Filter,
    pub(super) checksum: bool,
    features: u64,
    deltas: Rc<Deltas>,
    resumes: Rc<Resumes>,
    pub(super) tree: usize,
    pub(super) scan: Option<Scan>,
    pub(super) found: VecDeque<ScanItem>,
    pub(super) hashing: Option<(Entry, Origin, Hashing)>,
    pub(super) top: Option<Meta>,
    pub(super) missing: Vec<RelPath>,
    pub(super) listed: bool,
    pub(super) complete: bool,
    outgoing: Option<Leaving>,
    /// What was told about bases, by the number of the file.
    told: HashMap<u32, Told>,
    /// The file at the front, whose beginning is compared with what the receiver has staged.
    resuming: Option<(u32, Box<Resuming>)>,
    /// What came of comparing the beginnings of files that are asked about: their trees, or that they differ.
    /// Each is hashed once, however often its file comes to the front.
    begun: HashMap<u32, (Identity, Option<TreeHasher>)>,
    /// What is noted of files that are not settled.
    noted: HashMap<u32, TransferId>,
    /// Files that were started, to tell the results of their checks apart.
    started: u64,
    /// What is sent instead of whole trees.
    pub(crate) selected: Option<Box<Selected>>,
}

/// What a sender is set up with.
pub(crate) struct SendingPlan {
    pub(crate) trees: Vec<SourceTree>,
    pub(crate) filter: Filter,
    pub(crate) checksum: bool,
    /// What both sides can do.
    pub(crate) features: u64,
    /// What is remembered of contents.
    pub(crate) deltas: Rc<Deltas>,
    /// What is remembered of transfers that broke off.
    pub(crate) resumes: Rc<Resumes>,
    /// The directory whose contents are sent, if it is one.
    pub(crate) top: Option<Meta>,
    /// Sources that are not there; the others are sent.
    pub(crate) missing: Vec<RelPath>,
    /// Whether the trees are all that was asked for.
    pub(crate) complete: bool,
    /// What is sent instead of all that is in the trees; paths are those of the first one.
    pub(crate) selected: Option<Box<Selected>>,
}

/// Steps of a patch in one visit.
const STEPS_PER_VISIT: usize = 1;
/// Files opened in one visit.
const FILES_PER_VISIT: usize = 64;

impl Sending {
    pub(crate) fn new(plan: SendingPlan) -> Sending {
        Sending {
            trees: plan.trees,
            filter: plan.filter,
            checksum: plan.checksum,
            features: plan.features,
            deltas: plan.deltas,
            resumes: plan.resumes,
            tree: 0,
            scan: None,
            found: VecDeque::new(),
            hashing: None,
            top: plan.top,
            missing: plan.missing,
            listed: false,
            complete: plan.complete,
            outgoing: None,
            told: HashMap::new(),
            resuming: None,
            begun: HashMap::new(),
            noted: HashMap::new(),
            started: 0,
            selected: plan.selected,
        }
    }

    /// Bytes of memory that it takes, about; what is mapped is the system's.
    pub(crate) fn held_bytes(&self) -> usize {
        let scan = self.scan.as_ref().map_or(0, Scan::held_bytes) + self.found.capacity() * size_of::<ScanItem>();
        let outgoing = match &self.outgoing {
            Some(Leaving::Patch(changing)) => changing.held_bytes(),
            Some(Leaving::Whole(_)) | None => 0,
        };
        let told = self.told.values().map(Told::held_bytes).sum::<usize>();
        size_of::<Sending>() + scan + outgoing + told + self.noted.capacity() * size_of::<(u32, TransferId)>()
    }

    /// Does a bounded amount of work for the receiver.
    pub(crate) fn step(&mut self, cx: &mut Context<'_>, machine: &mut Machine, books: &mut Books<'_>) -> Activity {
        let Some(sender) = machine.sender() else {
            return Activity::Idle;
        };
        self.settle_reports(sender, books.ledger);
        // A directory that was moved away since the last step is not read from.
        self.trees.iter().for_each(|tree| tree.root.forget_parents());
        self.forget_abandoned(sender);
        for done in books.committer.take_results(cx.id()) {
            if let (Done::Checked(checked), Some(Leaving::Whole(outgoing))) = (done, &mut self.outgoing) {
                outgoing.checked(&checked);
            }
        }
        self.told.retain(|file, _| sender.basis_of(*file).is_some());
        self.begun.retain(|file, _| sender.basis_of(*file).is_some());
        let listing = self.list(sender, books.ledger, books.scratch);
        let reading = self.read(cx, machine, books);
        cx.send_owned(machine.take_output());
        if cx.room() == 0 {
            // Called again as soon as the queue has fallen.
            return Activity::Idle;
        }
        if reading == Activity::More { reading } else { listing }
    }

    /// Reads what the receiver wants, as far as there is room for it.
    fn read(&mut self, cx: &mut Context<'_>, machine: &mut Machine, books: &mut Books<'_>) -> Activity {
        let before = cx.bytes_sent() + cx.outbound_bytes() as u64;
        let slice = Slice::begin();
        let (mut opened, mut worked) = (0, 0);
        let mut reading = Activity::Idle;
        while cx.room() > 0 {
            let Some(sender) = machine.sender() else {
                break;
            };
            let Some(step) = sender.next_read() else {
                return Activity::Idle;
            };
            reading = Activity::More;
            match step {
                ReadStep::Open {
                    file,
                    origin,
                    credit,
                    basis,
                    partial,
                } => {
                    opened += 1;
                    let flow = self.open(sender, (file, &origin, basis, partial), credit, books);
                    cx.send_owned(machine.take_output());
                    match flow {
                        Flow::Waits => return Activity::Idle,
                        Flow::Compares => break,
                        Flow::Goes => {}
                    }
                }
                ReadStep::Plan { credit, .. } => {
                    self.plan(cx, machine, books, credit);
                    worked += 1;
                    if worked >= STEPS_PER_VISIT {
                        break;
                    }
                }
                ReadStep::Content {
                    offset,
                    remaining,
                    credit,
                    ..
                } => {
                    if self.content(cx, machine, books, (offset, remaining, credit)) == Flow::Waits {
                        return Activity::Idle;
                    }
                }
            }
            let produced = cx.bytes_sent() + cx.outbound_bytes() as u64 - before;
            if opened >= FILES_PER_VISIT || produced >= TURN_BYTES as u64 || slice.is_over() {
                break;
            }
        }
        reading
    }

    /// Enters into the books what the receiver has settled.
    pub(crate) fn settle(&mut self, machine: &mut Machine, ledger: &mut Ledger) {
        if let Some(sender) = machine.sender() {
            self.settle_reports(sender, ledger);
        }
    }

    /// The receiver gave the current file up while it was on its way.
    fn forget_abandoned(&mut self, sender: &Sender) {
        if sender.current_file().is_none() {
            self.outgoing = None;
        }
    }

    fn open(
        &mut self,
        sender: &mut Sender,
        (number, origin, basis, partial): (u32, &Origin, Option<ContentId>, Option<ContentId>),
        credit: u64,
        books: &mut Books<'_>,
    ) -> Flow {
        let tree = &self.trees[usize::from(origin.source)];
        let Ok(local) = tree.local(&origin.path) else {
            sender.fail(ItemCode::BadPath);
            return Flow::Goes;
        };
        let file = match tree.root.open_file(&local) {
            Ok(file) => file,
            Err(error) => {
                log::info!("{error}");
                sender.fail(error.code());
                return Flow::Goes;
            }
        };
        let Some((file, begun)) = self.compare_beginning(number, file, partial, books.scratch) else {
            return Flow::Compares;
        };
        // What is resumed is matched against an index, or goes on whole.
        let least = begun.as_ref().map_or(0, |_| MEDIUM_BYTES_MAX);
        let basis = basis.filter(|basis| file.size() > WHOLE_BYTES_MAX.max(least) && basis.length > least);
        let identity = file.identity();
        if basis.is_some() && !sender.may_ask() {
            self.begun.extend(partial.map(|_| (number, (identity, begun))));
            return Flow::Waits;
        }
        if basis.is_some_and(|basis| !self.deltas.prepare(&basis)) {
            self.begun.extend(partial.map(|_| (number, (identity, begun))));
            return Flow::Compares;
        }
        let told = self.told.remove(&number);
        let told = told.filter(|told| basis.is_some_and(|basis| told.is_about(&basis)));
        let choice = match basis {
            Some(basis) => choose(file, &basis, told, self.features, self.checksum, &self.deltas),
            None => Choice::Whole(file),
        };
        match choice {
            Choice::Ask(told, topic, body) => {
                let asked = sender.ask(topic, &body);
                debug_assert_eq!(asked, Asked::Sent);
                self.told.insert(number, told);
                self.begun.extend(partial.map(|_| (number, (identity, begun))));
            }
            Choice::Later(told) => {
                self.told.insert(number, told);
                self.begun.extend(partial.map(|_| (number, (identity, begun))));
                return Flow::Compares;
            }
            Choice::Patch(changing) => {
                books.ledger.started(number, &origin.path);
                self.send_patch(sender, number, changing, begun, books.ledger);
            }
            Choice::Whole(file) if begun.is_none() && file.size() <= INLINE_BYTES_MAX.min(credit) => {
                books.ledger.started(number, &origin.path);
                let sent = send_whole(sender, number, &file, self.remembered(), books);
                self.was_sent(number, &file, sent);
            }
            Choice::Whole(file) => {
                books.ledger.started(number, &origin.path);
                self.send_rest(sender, number, file, begun, books.ledger);
            }
        }
        Flow::Goes
    }

    /// Starts a patch: of all of the file, or of what is behind its beginning.
    fn send_patch(
        &mut self,
        sender: &mut Sender,
        number: u32,
        changing: Box<Changing>,
        begun: Option<TreeHasher>,
        ledger: &mut Ledger,
    ) {
        let (size, meta, form) = (changing.file().size(), changing.file().meta(), changing.form());
        let changing = match begun {
            None => {
                sender.patch(size, &meta, form);
                changing
            }
            Some(hasher) => {
                sender.resume_patch(size, &meta, form);
                ledger.resumed(number, hasher.length());
                Box::new(changing.behind(hasher.length()))
            }
        };
        self.outgoing = Some(Leaving::Patch(changing));
    }

    /// Starts a file that goes as it is: all of it, or what is behind its beginning.
    fn send_rest(
        &mut self,
        sender: &mut Sender,
        number: u32,
        file: SourceFile,
        begun: Option<TreeHasher>,
        ledger: &mut Ledger,
    ) {
        let sparse = self.features & features::HOLES != 0 && file.is_sparse();
        self.started += 1;
        let noted = self.note(number, &file);
        let outgoing = match begun {
            None => {
                sender.start(file.size(), sparse, &file.meta());
                Outgoing::new(file, sparse, self.started, self.remembered())
            }
            Some(hasher) => {
                sender.resume(file.size(), sparse, &file.meta());
                ledger.resumed(number, hasher.length());
                Outgoing::behind(hasher, file, sparse, self.started)
            }
        };
        self.outgoing = Some(Leaving::Whole(Box::new(outgoing.noted(noted))));
    }

    /// Compares the beginning of a file with what the receiver has staged of it. Gives the file back, with the
    /// tree of that beginning if it has it; `None` when there is more to compare.
    fn compare_beginning(
        &mut self,
        number: u32,
        file: SourceFile,
        partial: Option<ContentId>,
        scratch: &mut Vec<u8>,
    ) -> Option<(SourceFile, Option<TreeHasher>)> {
        let compared = self.begun.remove(&number);
        if let Some((_, hasher)) = compared.filter(|(identity, _)| *identity == file.identity()) {
            return Some((file, hasher));
        }
        let begun = self.resuming.take_if(|(resuming, _)| *resuming == number);
        let resuming = match (begun, partial) {
            (Some((_, resuming)), _) => resuming,
            (None, Some(partial)) => Box::new(Resuming::new(file, partial, &self.resumes)),
            (None, None) => return Some((file, None)),
        };
        match resuming.step(scratch) {
            Resumed::More(resuming) => {
                self.resuming = Some((number, resuming));
                None
            }
            Resumed::No(file) => Some((file, None)),
            Resumed::Yes(file, hasher) => Some((file, Some(hasher))),
        }
    }

    /// Notes on the way how far the file comes, for another attempt.
    fn note(&mut self, number: u32, file: &SourceFile) -> Option<Noted> {
        if self.features & features::RESUME == 0 {
            return None;
        }
        let noted = self.resumes.begin_sending(&file.identity(), file.size());
        if let Some(noted) = &noted {
            self.noted.insert(number, noted.id);
        }
        noted
    }

    /// Where what is sent is remembered, if the receiver could take a patch of it next time.
    fn remembered(&self) -> Option<&Deltas> {
        (self.features & features::DELTA != 0).then_some(&*self.deltas)
    }

    /// A piece of an answer about a basis came.
    pub(crate) fn handle_tell(&mut self, tell: &Tell<'_>) {
        if let Some(told) = self.told.get_mut(&tell.file) {
            told.push(tell.body);
        }
    }

    /// Goes on with the plan of the started patch.
    fn plan(&mut self, cx: &mut Context<'_>, machine: &mut Machine, books: &mut Books<'_>, credit: u64) {
        let Some(Leaving::Patch(changing)) = self.outgoing.as_mut() else {
            debug_assert!(false, "a started patch is open");
            return;
        };
        let changed = changing.step(credit as usize, &self.deltas);
        let (literal, matched) = changing.take_figures();
        if let Some(file) = machine.sender().and_then(|sender| sender.current_file()) {
            books.ledger.moved(file, literal);
            books.ledger.matched(file, matched);
        }
        let pending = machine.take_output();
        cx.send_owned(pending);
        let Some(sender) = machine.sender() else { return };
        match changed {
            Changed::Working => {}
            Changed::Plan(bytes) => {
                cx.send(&sender.data(bytes.len()));
                cx.send_owned(bytes);
            }
            Changed::End(outcome) => {
                if let (Some(Leaving::Patch(changing)), EndOutcome::Complete(root), Some(number)) =
                    (self.outgoing.take(), outcome, sender.current_file())
                    && let Some(selected) = &mut self.selected
                {
                    selected.sent(number, changing.file(), root);
                }
                sender.end(outcome);
            }
        }
    }

    /// Sends the next part of the started file: a frame of data, a hole, or its end.
    fn content(
        &mut self,
        cx: &mut Context<'_>,
        machine: &mut Machine,
        books: &mut Books<'_>,
        (offset, remaining, credit): (u64, u64, u64),
    ) -> Flow {
        let Some(Leaving::Whole(outgoing)) = self.outgoing.as_mut() else {
            debug_assert!(false, "a started file is open");
            return Flow::Waits;
        };
        let holes = self.features & features::HOLES != 0;
        let number = machine
            .sender()
            .and_then(|sender| sender.current_file())
            .unwrap_or_default();
        let part = outgoing.next_part(offset, remaining, credit, holes, &self.deltas);
        let pending = machine.take_output();
        cx.send_owned(pending);
        let Some(sender) = machine.sender() else {
            return Flow::Waits;
        };
        match part {
            Ok(Part::Data(bytes, range)) => {
                let length = range.len();
                cx.send(&sender.data(length));
                cx.send_shared(bytes, range);
                books.ledger.moved(number, length as u64);
                outgoing.hash_beside(offset + length as u64, cx.id(), books.committer);
            }
            Ok(Part::Hole(length)) => {
                sender.hole(length);
                books.ledger.skipped(number, length);
            }
            Ok(Part::Wait) => return Flow::Waits,
            Ok(Part::End) => {
                let outcome = match self.outgoing.take() {
                    Some(Leaving::Whole(outgoing)) => outgoing.finish(&self.deltas, |file, root| {
                        if let Some(selected) = &mut self.selected {
                            selected.sent(number, file, root);
                        }
                    }),
                    _ => EndOutcome::Changed,
                };
                if !matches!(outcome, EndOutcome::Complete(_)) {
                    self.forget_note(number);
                }
                sender.end(outcome);
            }
            Err(code) => {
                self.outgoing = None;
                self.forget_note(number);
                sender.end(match code {
                    ItemCode::Changing => EndOutcome::Changed,
                    code => EndOutcome::Failed(code),
                });
            }
        }
        Flow::Goes
    }

    fn was_sent(&mut self, number: u32, file: &SourceFile, root: Option<[u8; 32]>) {
        if let (Some(selected), Some(root)) = (&mut self.selected, root) {
            selected.sent(number, file, root);
        }
    }

    /// Nobody will ask how far this file was sent.
    fn forget_note(&mut self, number: u32) {
        if let Some(id) = self.noted.remove(&number) {
            self.resumes.end(id);
        }
    }

    /// Enters what became of entries into the books.
    fn settle_reports(&mut self, sender: &mut Sender, ledger: &mut Ledger) {
        while let Some(report) = sender.poll_report() {
            if matches!(report.settlement, Settlement::Committed(_) | Settlement::Failed(_)) {
                self.forget_note(report.file);
            }
            if let Some(selected) = &mut self.selected {
                selected.settled(&report);
                // A sync tells of it in its own words.
                if report.settlement == Settlement::Failed(ItemCode::Collides) {
                    continue;
                }
            }
            settle(report, sender.is_dry_run(), ledger);
        }
    }
}

/// The file between its start and its end.
enum Leaving {
    Whole(Box<Outgoing>),
    Patch(Box<Changing>),
}

/// Whether a file can go on at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    Goes,
    /// For the helper thread, which wakes the connection.
    Waits,
    /// Not before more was done, in the next visit.
    Compares,
}

/// A small file: read, hashed and sent at once. Mapping it would cost more than the copy.
fn send_whole(
    sender: &mut Sender,
    number: u32,
    file: &SourceFile,
    deltas: Option<&Deltas>,
    books: &mut Books<'_>,
) -> Option<[u8; 32]> {
    books.scratch.resize(INLINE_BYTES_MAX as usize + 1, 0);
    let length = match file.read_at(0, books.scratch) {
        Ok(length) => length,
        Err(error) => {
            sender.fail(error.code());
            return None;
        }
    };
    match file.unchanged() {
        Ok(true) if length as u64 == file.size() => {
            let bytes = &books.scratch[..length];
            let id = content_id(bytes);
            sender.inline(&file.meta(), id.root, bytes);
            books.ledger.moved(number, length as u64);
            if let Some(deltas) = deltas
                && let Some(mut shadow) = deltas.begin_shadow(length as u64)
            {
                deltas.append_shadow(&mut shadow, bytes);
                deltas.keep_shadow(Some(shadow), id);
            }
            return Some(id.root);
        }
        Ok(_) => sender.changed(),
        Err(error) => sender.fail(error.code()),
    }
    None
}
