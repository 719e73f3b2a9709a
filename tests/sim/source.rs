//! The reading end of a simulated transfer: lists a tree in memory and feeds the sender machine.

use crate::disk::{Body, Disk, Extent, Node, SourceTrouble, entry_of, random_body};
use crate::pipe::Pipe;
use crate::rng::Rng;
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::rc::Rc;
use syncline::conn::{Asked, Machine, Origin, ReadStep, Sender, Settlement};
use syncline::delta::{TreeHasher, content_id};
use syncline::model::limits::{INLINE_BYTES_MAX, LEAF_BYTES, OFFER_WINDOW, QUESTIONS_MAX};
use syncline::model::{ContentId, Meta, RelPath};
use syncline::wire::{EndOutcome, Finish, PatchForm, RemovedReader, Tell, Topic, features};

pub(crate) struct SourceSide {
    disk: Rc<RefCell<Disk>>,
    checksum: bool,
    unlisted: VecDeque<RelPath>,
    unlistable: usize,
    listed: bool,
    outgoing: Option<Outgoing>,
    attempts: HashMap<RelPath, u32>,
    pub(crate) reports: BTreeMap<RelPath, Vec<Settlement>>,
    pub(crate) removed: Vec<RelPath>,
    pub(crate) finish: Option<Finish>,
    /// The disk as it was at the end.
    pub(crate) after: Disk,
    /// How often a started file had to wait for credit, and an entry for room in the window.
    pub(crate) starved: usize,
    pub(crate) crowded: usize,
    /// Open questions, and how many bytes were told to each.
    asking: HashMap<u32, (Topic, usize)>,
    /// Questions so far about the basis of a file.
    questions: HashMap<u32, (ContentId, u32)>,
    /// How often a question went out, had to wait, and a patch followed.
    pub(crate) asked: usize,
    pub(crate) held_back: usize,
    pub(crate) patched: usize,
    /// Files that were sent, in whatever way: what was named of them is used up.
    sent: HashSet<u32>,
    /// Beginnings that were named and that a file did not have, or was sent with all the same.
    pub(crate) declined: usize,
}

/// What may be used for a file.
#[derive(Clone, Copy)]
struct Named {
    credit: u64,
    basis: Option<ContentId>,
    partial: Option<ContentId>,
}

struct Outgoing {
    file: u32,
    path: RelPath,
    body: Rc<Body>,
    hasher: TreeHasher,
    attempt: u32,
    /// What the receiver has of it already.
    begun: usize,
    /// The rest of the plan, when it goes as a patch.
    plan: VecDeque<u8>,
}

impl SourceSide {
    pub(crate) fn new(disk: Rc<RefCell<Disk>>, checksum: bool) -> SourceSide {
        let unlisted = disk.borrow().tree.keys().cloned().collect();
        let unlistable = disk.borrow().unlistable.len();
        SourceSide {
            disk,
            checksum,
            unlisted,
            unlistable,
            listed: false,
            outgoing: None,
            attempts: HashMap::new(),
            reports: BTreeMap::new(),
            removed: Vec::new(),
            finish: None,
            after: Disk::default(),
            starved: 0,
            crowded: 0,
            asking: HashMap::new(),
            questions: HashMap::new(),
            asked: 0,
            held_back: 0,
            patched: 0,
            sent: HashSet::new(),
            declined: 0,
        }
    }

    /// One thing that can be done now; `false` when there is none.
    pub(crate) fn step(&mut self, machine: &mut Machine, pipe: &mut Pipe, rng: &mut Rng) -> bool {
        let Some(sender) = machine.sender() else {
            return false;
        };
        self.collect_reports(sender);
        if sender.current_file() != self.outgoing.as_ref().map(|outgoing| outgoing.file) {
            self.outgoing = None;
        }
        let listing = self.list(sender, rng);
        let step = sender.next_read();
        if step.is_none() && self.outgoing.is_some() {
            self.starved += 1;
        }
        pipe.send(machine.take_output());
        match step {
            None => return listing,
            Some(ReadStep::Plan { credit, .. }) => {
                let data = self.plan(machine.sender().unwrap(), credit, rng);
                pipe.send(data);
            }
            Some(ReadStep::Open {
                file,
                origin,
                credit,
                basis,
                partial,
            }) => {
                let sender = machine.sender().unwrap();
                assert_eq!(sender.basis_of(file), basis);
                assert!(partial.is_none() || !self.sent.contains(&file), "good for one attempt");
                let named = Named { credit, basis, partial };
                match basis.map_or(Turn::Send, |basis| self.ask(sender, file, basis, rng)) {
                    Turn::Asked => {}
                    Turn::Waits => return listing,
                    Turn::Send => self.open(sender, file, &origin.path, named, rng),
                }
            }
            Some(ReadStep::Content {
                offset,
                remaining,
                credit,
                ..
            }) => {
                let sender = machine.sender().unwrap();
                let data = self.content(sender, offset as usize, remaining, credit, rng);
                pipe.send(data);
            }
        }
        pipe.send(machine.take_output());
        true
    }

    pub(crate) fn collect_reports(&mut self, sender: &mut Sender) {
        while let Some(report) = sender.poll_report() {
            if matches!(report.settlement, Settlement::Failed(_)) {
                self.asking.remove(&report.file);
            }
            let path = report.origin.path;
            self.reports.entry(path).or_default().push(report.settlement);
        }
    }

    pub(crate) fn note_removed(&mut self, payload: &[u8]) {
        let mut paths = RemovedReader::new(payload).unwrap();
        while let Some(path) = paths.next_path().unwrap() {
            self.removed.push(path);
        }
    }

    pub(crate) fn conclude(&mut self, sender: &mut Sender, finish: Finish) {
        self.collect_reports(sender);
        assert_eq!(sender.finished(), Some(finish));
        assert!(self.asking.is_empty(), "a question stays open");
        self.finish = Some(finish);
        self.after = self.disk.borrow().clone();
    }

    fn list(&mut self, sender: &mut Sender, rng: &mut Rng) -> bool {
        if self.listed {
            return false;
        }
        if sender.offer_room() == 0 {
            self.crowded += 1;
            return false;
        }
        let disk = self.disk.borrow();
        for _ in 0..=rng.below(300) {
            assert!(sender.offer_room() <= OFFER_WINDOW);
            if sender.offer_room() == 0 {
                break;
            }
            let Some(path) = self.unlisted.pop_front() else {
                break;
            };
            let Some((node, meta)) = disk.tree.get(&path) else {
                continue;
            };
            let root = match node {
                Node::File(body) if self.checksum => Some(body.root()),
                _ => None,
            };
            let origin = Origin {
                source: 0,
                path: path.clone(),
            };
            sender.offer(&entry_of(&path, node, *meta), root.as_ref(), origin);
        }
        if self.unlistable > 0 {
            self.unlistable -= 1;
            let (path, code) = &disk.unlistable[self.unlistable];
            sender.source_failed(path, *code);
        } else if self.unlisted.is_empty() {
            self.listed = true;
            sender.list_end(disk.unlistable.is_empty(), Some(top_meta()));
        } else if rng.once_in(2) {
            sender.flush_offers();
        }
        true
    }

    /// Asks about a basis, or not, as the dice will.
    fn ask(&mut self, sender: &mut Sender, file: u32, basis: ContentId, rng: &mut Rng) -> Turn {
        let (about, count) = self.questions.entry(file).or_insert((basis, 0));
        if *about != basis {
            (*about, *count) = (basis, 0);
        }
        if *count >= QUESTIONS_MAX || rng.once_in(3) {
            return Turn::Send;
        }
        let (topic, length) = (rng.pick(&Topic::ALL), rng.index(200));
        let room = sender.may_ask();
        match sender.ask(topic, &rng.bytes(length)) {
            Asked::Sent => {
                assert!(room);
                *count += 1;
                self.asked += 1;
                let twice = self.asking.insert(file, (topic, 0));
                assert_eq!(twice, None, "one question at a time");
                Turn::Asked
            }
            Asked::Later => {
                assert!(!room);
                self.held_back += 1;
                Turn::Waits
            }
        }
    }

    /// A piece of an answer.
    pub(crate) fn note_tell(&mut self, tell: &Tell<'_>) {
        let (topic, told) = self.asking.get_mut(&tell.file).expect("it was asked for");
        assert_eq!(*topic, tell.topic);
        assert_eq!(tell.body, answer_of(tell.file, tell.topic, *told, tell.body.len()));
        *told += tell.body.len();
        if tell.last {
            self.asking.remove(&tell.file);
        }
    }

    fn open(&mut self, sender: &mut Sender, file: u32, path: &RelPath, named: Named, rng: &mut Rng) {
        let attempt = self.attempts.entry(path.clone()).or_default();
        *attempt += 1;
        let attempt = *attempt;
        let (body, meta) = self.disk.borrow().file(path).expect("only files are wanted");
        let trouble = self.disk.borrow().source_trouble(path);
        if let Some(SourceTrouble::Unreadable(code)) = trouble {
            return sender.fail(code);
        }
        let begun = named.partial.filter(|partial| begins_with(&body.bytes, partial));
        let begun = begun.filter(|_| rng.below(4) > 0).map(|begun| begun.length as usize);
        self.declined += usize::from(named.partial.is_some() && begun.is_none());
        let size = body.bytes.len() as u64;
        let (path, mut hasher, plan) = (path.clone(), TreeHasher::new(), VecDeque::new());
        hasher.update(&body.bytes[..begun.unwrap_or(0)]);
        let mut outgoing = Outgoing {
            file,
            path,
            body: Rc::clone(&body),
            hasher,
            attempt,
            begun: begun.unwrap_or(0),
            plan,
        };
        if let Some(basis) = named.basis.filter(|_| rng.below(4) > 0) {
            let forms = [PatchForm::Plan, PatchForm::Squeezed, PatchForm::Prefix];
            let agreed = if features::ALL & features::ZSTD == 0 { 1 } else { 3 };
            let form = rng.pick(&forms[..agreed]);
            match begun {
                Some(_) => sender.resume_patch(size, &meta, form),
                None => sender.patch(size, &meta, form),
            }
            self.patched += 1;
            let mut plan = plan_of(&basis, form, &body.bytes[outgoing.begun..]);
            if self.damages(&outgoing) && outgoing.begun < body.bytes.len() {
                let at = plan.len() - 1 - rng.index(body.bytes.len() - outgoing.begun);
                plan[at] ^= 1 << rng.below(8);
            }
            outgoing.plan = plan.into();
        } else if begun.is_some() {
            sender.resume(size, !body.holes.is_empty(), &meta);
        } else if size <= INLINE_BYTES_MAX.min(named.credit) && rng.below(8) > 0 {
            return self.open_inline(sender, &outgoing, &meta, rng);
        } else {
            sender.start(size, !body.holes.is_empty(), &meta);
        }
        self.sent.insert(file);
        self.outgoing = Some(outgoing);
    }

    /// Sends a small file in one frame.
    fn open_inline(&mut self, sender: &mut Sender, outgoing: &Outgoing, meta: &Meta, rng: &mut Rng) {
        let (body, attempt) = (&outgoing.body, outgoing.attempt);
        let trouble = self.disk.borrow().source_trouble(&outgoing.path);
        match trouble {
            Some(SourceTrouble::ReadFails(code)) => return sender.fail(code),
            Some(SourceTrouble::Changes(times)) if attempt <= times => {
                self.change(&outgoing.path, rng);
                return sender.changed();
            }
            Some(SourceTrouble::Damaged(times)) if attempt <= times => {
                let (bytes, root) = damaged(&body.bytes, body.root(), rng);
                sender.inline(meta, root, &bytes);
            }
            _ => sender.inline(meta, body.root(), &body.bytes),
        }
        self.sent.insert(outgoing.file);
    }

    /// Whether a bit of this attempt flips on the way.
    fn damages(&self, outgoing: &Outgoing) -> bool {
        let trouble = self.disk.borrow().source_trouble(&outgoing.path);
        matches!(trouble, Some(SourceTrouble::Damaged(times)) if outgoing.attempt <= times)
    }

    /// Ends the started file early, if it is time for its trouble.
    fn interrupt(&mut self, sender: &mut Sender, remaining: u64, rng: &mut Rng) -> bool {
        let outgoing = self.outgoing.as_ref().expect("a started file is open");
        let trouble = self.disk.borrow().source_trouble(&outgoing.path);
        let outcome = match trouble {
            Some(SourceTrouble::ReadFails(code)) if remaining == 0 || rng.once_in(3) => EndOutcome::Failed(code),
            Some(SourceTrouble::Changes(times)) if outgoing.attempt <= times && (remaining == 0 || rng.once_in(3)) => {
                self.change(&outgoing.path.clone(), rng);
                EndOutcome::Changed
            }
            _ => return false,
        };
        self.outgoing = None;
        sender.end(outcome);
        true
    }

    /// The next part of the plan of the started patch.
    fn plan(&mut self, sender: &mut Sender, credit: u64, rng: &mut Rng) -> Vec<u8> {
        let remaining = self.outgoing.as_ref().map_or(0, |outgoing| outgoing.plan.len());
        if self.interrupt(sender, remaining as u64, rng) {
            return Vec::new();
        }
        if remaining == 0 {
            let outgoing = self.outgoing.take().expect("checked above");
            let nothing_came = outgoing.begun == outgoing.body.bytes.len();
            let mut root = outgoing.body.root();
            root[0] ^= u8::from(nothing_came && self.damages(&outgoing));
            sender.end(EndOutcome::Complete(root));
            return Vec::new();
        }
        let frame = 1 + rng.index(64 * 1024);
        let length = remaining.min(frame).min(credit as usize);
        let outgoing = self.outgoing.as_mut().expect("checked above");
        let header = sender.data(length);
        header.into_iter().chain(outgoing.plan.drain(..length)).collect()
    }

    /// The next part of the started file. What has to follow the machine's own output comes back.
    fn content(&mut self, sender: &mut Sender, offset: usize, remaining: u64, credit: u64, rng: &mut Rng) -> Vec<u8> {
        if self.interrupt(sender, remaining, rng) {
            return Vec::new();
        }
        let damage = self.damages(self.outgoing.as_ref().expect("it goes on"));
        let outgoing = self.outgoing.as_mut().expect("it goes on");
        assert_eq!(offset as u64, outgoing.hasher.length(), "it goes on where it is");
        if remaining == 0 {
            let outgoing = self.outgoing.take().expect("checked above");
            let mut root = outgoing.hasher.finish().root;
            if damage && outgoing.body.is_hole_from(outgoing.begun) {
                root[0] ^= 1;
            }
            sender.end(EndOutcome::Complete(root));
            return Vec::new();
        }
        match outgoing.body.extent(offset) {
            Extent::Hole(length) => {
                let length = 1 + rng.index(length);
                outgoing.hasher.update_zeros(length as u64);
                sender.hole(length as u64);
                Vec::new()
            }
            Extent::Data(length) => {
                let frame = 1 + rng.index(64 * 1024);
                let length = length.min(frame).min(credit as usize);
                let bytes = &outgoing.body.bytes[offset..offset + length];
                outgoing.hasher.update(bytes);
                let header = sender.data(length);
                let mut wire = [&header[..], bytes].concat();
                let before = offset - outgoing.begun;
                let is_first =
                    before == 0 || matches!(outgoing.body.extent(outgoing.begun), Extent::Hole(hole) if hole == before);
                if damage && is_first {
                    let at = header.len() + rng.index(length);
                    wire[at] ^= 1 << rng.below(8);
                }
                wire
            }
        }
    }

    fn change(&self, path: &RelPath, rng: &mut Rng) {
        let body = random_body(rng, 40_000);
        let mut disk = self.disk.borrow_mut();
        let (node, meta) = disk.tree.get_mut(path).expect("it is in the tree");
        *node = Node::File(body);
        meta.mtime.seconds += 1;
    }
}

/// What comes of a file whose basis is known.
enum Turn {
    Asked,
    /// Too many questions are open.
    Waits,
    Send,
}

/// Whether a file is resumed behind this; only whole leaves are compared.
fn begins_with(bytes: &[u8], partial: &ContentId) -> bool {
    let length = partial.length as usize;
    length.is_multiple_of(LEAF_BYTES) && length <= bytes.len() && content_id(&bytes[..length]) == *partial
}

/// The plan of these simulations: what it is for, and the content that is to come.
fn plan_of(basis: &ContentId, form: PatchForm, bytes: &[u8]) -> Vec<u8> {
    [&basis.root[..], &[form as u8], bytes].concat()
}

/// The `length` bytes from `offset` on of the answer of these simulations.
pub(crate) fn answer_of(file: u32, topic: Topic, offset: usize, length: usize) -> Vec<u8> {
    let byte = |at: usize| (at * 7 + file as usize * 31 + topic as usize * 101) as u8;
    (offset..offset + length).map(byte).collect()
}

pub(crate) fn top_meta() -> Meta {
    crate::disk::meta(0o750, 4711)
}

/// What arrives when a bit flips: in the content, or in the root of an empty file.
fn damaged(bytes: &[u8], mut root: [u8; 32], rng: &mut Rng) -> (Vec<u8>, [u8; 32]) {
    let mut bytes = bytes.to_vec();
    if bytes.is_empty() {
        root[rng.index(32)] ^= 1;
    } else {
        let at = rng.index(bytes.len());
        bytes[at] ^= 1 << rng.below(8);
    }
    (bytes, root)
}
