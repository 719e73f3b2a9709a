//! The writing end of a simulated transfer: judges, stages, verifies and publishes in memory, in the
//! order in which the real one does.

use crate::disk::{Body, Disk, Node, TargetTrouble, Tree};
use crate::rng::Rng;
use crate::source::answer_of;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;
use syncline::conn::{Check, Event, Machine, Receiver};
use syncline::delta::{TreeHasher, content_id};
use syncline::model::limits::LEAF_BYTES;
use syncline::model::{ContentId, ItemCode, Kind, Meta, RelPath};
use syncline::wire::{Ask, Begin, Brake, End, EndOutcome, Finish, Patch, SettledResult, Topic, Verdict};

pub(crate) struct TargetSide {
    disk: Rc<RefCell<Disk>>,
    /// What it is to become, for beginnings that are genuine.
    source: Rc<RefCell<Disk>>,
    pub(crate) begin: Begin,
    pub(crate) after: Disk,
    pub(crate) before: Tree,
    wants: BTreeMap<u32, RelPath>,
    incoming: Option<Incoming>,
    /// Verified, and not published before the next barrier.
    staged: Vec<Staged>,
    unconsumed: u64,
    offered: BTreeSet<RelPath>,
    pub(crate) verdicts: BTreeMap<RelPath, Verdict>,
    /// How often each wanted file came to an end here.
    pub(crate) conclusions: HashMap<RelPath, u32>,
    pub(crate) published: Vec<(RelPath, Rc<Body>)>,
    pub(crate) unlistable: usize,
    pub(crate) top: Option<Meta>,
    pub(crate) removed: Vec<RelPath>,
    pub(crate) finish: Option<Finish>,
    /// What was named and is still good for a patch.
    bases: HashMap<u32, ContentId>,
    /// Beginnings that were named and are still good for an attempt.
    parts: HashMap<u32, Part>,
    /// Questions that are not answered yet.
    questions: BTreeMap<u32, Question>,
    /// For what is decided when a message comes.
    dice: Rng,
    pub(crate) repaired: usize,
    /// Questions whose file failed before they were answered.
    pub(crate) abandoned: usize,
    /// Files that arrived behind their beginnings: whole, as patches, and those of the two whose beginnings
    /// a broken transfer had left.
    pub(crate) resumed: usize,
    pub(crate) resumed_patches: usize,
    pub(crate) continued: usize,
}

/// The beginning of a file.
#[derive(Clone)]
struct Part {
    bytes: Vec<u8>,
    /// A broken transfer has left it.
    is_left: bool,
}

struct Question {
    topic: Topic,
    told: usize,
    length: usize,
}

struct Incoming {
    file: u32,
    bytes: Vec<u8>,
    hasher: TreeHasher,
    meta: Meta,
    /// What was there before, if it is resumed.
    part: Option<Part>,
    /// What comes is the plan of it.
    patch: Option<Patch>,
}

struct Staged {
    file: u32,
    bytes: Vec<u8>,
    meta: Meta,
}

impl TargetSide {
    pub(crate) fn new([disk, source]: [Rc<RefCell<Disk>>; 2], begin: Begin) -> TargetSide {
        let before = disk.borrow().tree.clone();
        TargetSide {
            disk,
            source,
            begin,
            before,
            after: Disk::default(),
            wants: BTreeMap::new(),
            incoming: None,
            staged: Vec::new(),
            unconsumed: 0,
            offered: BTreeSet::new(),
            verdicts: BTreeMap::new(),
            conclusions: HashMap::new(),
            published: Vec::new(),
            unlistable: 0,
            top: None,
            removed: Vec::new(),
            finish: None,
            bases: HashMap::new(),
            parts: HashMap::new(),
            questions: BTreeMap::new(),
            dice: Rng::new(0),
            repaired: 0,
            abandoned: 0,
            resumed: 0,
            resumed_patches: 0,
            continued: 0,
        }
    }

    /// One thing that can be done now; `false` when there is none.
    pub(crate) fn step(&mut self, machine: &mut Machine, rng: &mut Rng) -> bool {
        let Some(receiver) = machine.receiver() else {
            return false;
        };
        if receiver.is_finished() {
            return false;
        }
        self.dice = Rng::new(rng.next());
        if receiver.next_check().is_some() {
            for _ in 0..=rng.below(40) {
                let Some(check) = receiver.next_check().cloned() else {
                    break;
                };
                self.judge(receiver, &check, rng);
            }
            return true;
        }
        if self.unconsumed > 0 && rng.once_in(2) {
            let part = 1 + rng.below(self.unconsumed);
            self.unconsumed -= part;
            receiver.consumed(part);
            return true;
        }
        if self.refuse_early(receiver, rng) {
            return true;
        }
        if rng.once_in(3) && self.tell(receiver, rng) {
            return true;
        }
        if !self.staged.is_empty() {
            for staged in std::mem::take(&mut self.staged) {
                self.commit(receiver, staged);
            }
            return true;
        }
        if receiver.is_complete() {
            self.conclude(receiver);
            return true;
        }
        // Progress that must come in the end although the dice were against it.
        if self.unconsumed > 0 {
            receiver.consumed(std::mem::take(&mut self.unconsumed));
            return true;
        }
        self.tell(receiver, rng)
    }

    /// A piece of the answer to one of the questions.
    fn tell(&mut self, receiver: &mut Receiver, rng: &mut Rng) -> bool {
        let files: Vec<u32> = self.questions.keys().copied().collect();
        if files.is_empty() {
            return false;
        }
        let file = rng.pick(&files);
        let question = self.questions.get_mut(&file).expect("it is one of them");
        let (topic, told) = (question.topic, question.told);
        let length = match rng.below(3) {
            0 => question.length - told,
            _ => rng.index(question.length - told + 1),
        };
        question.told += length;
        let trouble = self.wants.contains_key(&file).then(|| self.trouble(file));
        if let Some(Some(TargetTrouble::WhenAsked(code))) = trouble
            && rng.once_in(2)
        {
            self.fail(receiver, file, code);
            return true;
        }
        let question = self.questions.get_mut(&file).expect("it stays");
        let last = question.told == question.length && rng.once_in(2);
        if last {
            self.questions.remove(&file);
        }
        // Of a file that has failed meanwhile, nothing of this is said.
        receiver.tell(file, topic, &answer_of(file, topic, told, length), last);
        true
    }

    /// Names what it has of a file before the verdict on it, as the dice will.
    fn name(&mut self, receiver: &mut Receiver, check: &Check, rng: &mut Rng) {
        let here = self.disk.borrow().file(&check.entry.path);
        if let (Kind::File { .. }, Some((body, _))) = (&check.entry.kind, here)
            && rng.below(4) > 0
        {
            let id = content_id(&body.bytes);
            receiver.basis(id);
            self.bases.insert(check.file, id);
        }
    }

    /// Names the beginning of a file before the verdict on it, as the dice will; genuine or not.
    fn name_part(&mut self, receiver: &mut Receiver, check: &Check, rng: &mut Rng) {
        let left = self.disk.borrow().kept.get(&check.entry.path).cloned();
        if !matches!(check.entry.kind, Kind::File { .. }) || (left.is_none() && rng.once_in(3)) {
            return;
        }
        let is_left = left.is_some();
        let bytes = left.unwrap_or_else(|| self.invent_part(&check.entry.path, rng));
        receiver.partial(content_id(&bytes));
        self.parts.insert(check.file, Part { bytes, is_left });
    }

    /// A beginning of what the source has now: more often a true one than not.
    fn invent_part(&self, path: &RelPath, rng: &mut Rng) -> Vec<u8> {
        let body = self.source.borrow().file(path).map(|(body, _)| body);
        let whole = body.as_ref().map_or(&[][..], |body| &body.bytes);
        let leaves = (whole.len() / LEAF_BYTES).min(PART_LEAVES_MAX);
        let length = leaves.min(1 + rng.index(leaves + 1)) * LEAF_BYTES;
        let mut part = whole[..length].to_vec();
        match rng.below(8) {
            _ if part.is_empty() => {
                let length = 1 + rng.index(2 * LEAF_BYTES);
                part = rng.bytes(length);
            }
            0 => part.truncate(1 + rng.index(part.len())),
            1 => part = [&whole[..leaves * LEAF_BYTES], &[0; LEAF_BYTES]].concat(),
            2 => {
                let at = rng.index(part.len());
                part[at] ^= 1 << rng.below(8);
            }
            _ => {}
        }
        part
    }

    /// The connection broke: what has come of a file stays for another transfer.
    pub(crate) fn leave_parts(&mut self) {
        let Some(incoming) = self.incoming.take() else { return };
        let mut bytes = incoming.content();
        bytes.truncate(bytes.len() / LEAF_BYTES * LEAF_BYTES);
        if let Some(path) = self.wants.get(&incoming.file)
            && !bytes.is_empty()
        {
            self.disk.borrow_mut().kept.insert(path.clone(), bytes);
        }
    }

    fn judge(&mut self, receiver: &mut Receiver, check: &Check, rng: &mut Rng) {
        let path = check.entry.path.clone();
        let verdict = self.verdict(check);
        if matches!(verdict, Verdict::WantReplace | Verdict::Failed(_)) {
            self.name(receiver, check, rng);
        }
        if verdict.is_want() || matches!(verdict, Verdict::Failed(_)) {
            self.name_part(receiver, check, rng);
        }
        assert_eq!(receiver.answer(verdict).as_ref(), Some(check));
        self.offered.insert(path.clone());
        self.verdicts.insert(path.clone(), verdict);
        if verdict.is_want() && !self.begin.flags.dry_run {
            self.wants.insert(check.file, path);
        }
    }

    fn verdict(&self, check: &Check) -> Verdict {
        let (path, meta) = (&check.entry.path, check.entry.meta);
        let mut disk = self.disk.borrow_mut();
        if let Some(TargetTrouble::Verdict(code)) = disk.target_trouble(path) {
            return Verdict::Failed(code);
        }
        let here = disk.tree.get(path).cloned();
        let node = match &check.entry.kind {
            Kind::File { size } => {
                return match here {
                    None => Verdict::WantNew,
                    Some((Node::Directory, _)) => Verdict::Failed(ItemCode::InTheWay),
                    Some((Node::Symlink(_), _)) => Verdict::WantReplace,
                    Some((Node::File(body), own)) => {
                        let same = match check.root {
                            Some(root) => root == body.root(),
                            None => own.mtime == meta.mtime,
                        };
                        match (same && body.bytes.len() as u64 == *size, own == meta) {
                            (false, _) => Verdict::WantReplace,
                            (true, true) => Verdict::Have,
                            (true, false) => {
                                self.put(&mut disk, path, Node::File(body), meta);
                                Verdict::Touched
                            }
                        }
                    }
                };
            }
            Kind::Directory => Node::Directory,
            Kind::Symlink { target } => Node::Symlink(target.clone()),
        };
        let verdict = match &here {
            None => Verdict::Created,
            Some((own, own_meta)) if *own == node && *own_meta == meta => Verdict::Have,
            Some((own, _)) if *own == node => Verdict::Touched,
            Some((Node::Directory, _)) => Verdict::Failed(ItemCode::InTheWay),
            Some(_) if node == Node::Directory => Verdict::Failed(ItemCode::InTheWay),
            Some(_) => Verdict::Replaced,
        };
        if !matches!(verdict, Verdict::Failed(_)) {
            self.put(&mut disk, path, node, meta);
        }
        verdict
    }

    fn put(&self, disk: &mut Disk, path: &RelPath, node: Node, meta: Meta) {
        if !self.begin.flags.dry_run {
            disk.tree.insert(path.clone(), (node, meta));
        }
    }

    fn refuse_early(&mut self, receiver: &mut Receiver, rng: &mut Rng) -> bool {
        let disk = self.disk.borrow();
        let early = self
            .wants
            .iter()
            .find_map(|(file, path)| match disk.target_trouble(path) {
                Some(TargetTrouble::Early(code)) => Some((*file, code)),
                _ => None,
            });
        drop(disk);
        match early {
            Some((file, code)) if rng.once_in(3) => {
                self.fail(receiver, file, code);
                true
            }
            _ => false,
        }
    }

    fn fail(&mut self, receiver: &mut Receiver, file: u32, code: ItemCode) {
        self.staged.retain(|staged| staged.file != file);
        self.incoming.take_if(|incoming| incoming.file == file);
        self.abandoned += usize::from(self.questions.contains_key(&file));
        self.concluded(file);
        receiver.settle(file, SettledResult::Failed(code));
    }

    fn concluded(&mut self, file: u32) -> RelPath {
        let path = self.wants.remove(&file).expect("only wanted files conclude");
        *self.conclusions.entry(path.clone()).or_default() += 1;
        path
    }

    fn commit(&mut self, receiver: &mut Receiver, staged: Staged) {
        let trouble = self.trouble(staged.file);
        if let Some(TargetTrouble::AtCommit(code) | TargetTrouble::Early(code) | TargetTrouble::WhenAsked(code)) =
            trouble
        {
            return self.fail(receiver, staged.file, code);
        }
        let path = self.concluded(staged.file);
        let body = Body::new(staged.bytes);
        self.published.push((path.clone(), Rc::clone(&body)));
        let node = (Node::File(body), staged.meta);
        self.disk.borrow_mut().tree.insert(path, node);
        receiver.settle(staged.file, SettledResult::Committed);
    }

    /// An event of the transfer; `false` when it is not for a receiver.
    pub(crate) fn handle(&mut self, event: &Event<'_>, machine: &mut Machine) -> bool {
        let Some(receiver) = machine.receiver() else {
            return false;
        };
        match event {
            Event::Ask(ask) => self.asked(ask),
            Event::Patch(patch) => {
                assert_eq!(self.bases.get(&patch.file), Some(&patch.basis), "named and not used up");
                self.started(receiver, patch.file, patch.meta, (None, Some(*patch)));
            }
            Event::ResumePatch(patch) => {
                assert_eq!(self.bases.get(&patch.file), Some(&patch.basis), "named and not used up");
                let part = self.parts.remove(&patch.file).expect("named and not used up");
                self.started(receiver, patch.file, patch.meta, (Some(part), Some(*patch)));
            }
            Event::Start(start) => self.started(receiver, start.file, start.meta, (None, None)),
            Event::Resume(start) => {
                let part = self.parts.remove(&start.file).expect("named and not used up");
                self.started(receiver, start.file, start.meta, (Some(part), None));
            }
            Event::Content { file, bytes } => {
                self.unconsumed += bytes.len() as u64;
                let incoming = self.arriving(*file);
                incoming.hasher.update(bytes);
                incoming.bytes.extend_from_slice(bytes);
                self.midway(receiver, *file);
            }
            Event::Hole(hole) => {
                let incoming = self.arriving(hole.file);
                incoming.hasher.update_zeros(hole.length);
                let length = incoming.bytes.len() + hole.length as usize;
                incoming.bytes.resize(length, 0);
                self.midway(receiver, hole.file);
            }
            Event::End(end) => self.ended(receiver, end),
            Event::Inline(inline) => {
                self.unconsumed += inline.bytes.len() as u64;
                let matches = content_id(inline.bytes).root == inline.root;
                let (file, meta, bytes) = (inline.file, inline.meta, inline.bytes.to_vec());
                self.use_up(file);
                self.arrived(receiver, Staged { file, bytes, meta }, matches);
            }
            Event::ListEnd(end) => self.top = end.top,
            Event::SourceFailed(_) => self.unlistable += 1,
            Event::Offered => {}
            _ => return false,
        }
        true
    }

    fn asked(&mut self, ask: &Ask<'_>) {
        let (file, topic) = (ask.file, ask.topic);
        assert!(self.wants.contains_key(&file) && self.bases.contains_key(&file));
        let (told, length) = (0, self.dice.pick(&[0, 1, 300, 300, 300, 5000, 60_000]));
        let question = Question { topic, told, length };
        assert!(self.questions.insert(file, question).is_none(), "one at a time");
    }

    /// A basis or a beginning is good for one attempt, and not before what was asked about it is told.
    fn use_up(&mut self, file: u32) {
        assert!(self.wants.contains_key(&file), "content of what is not wanted");
        assert!(!self.questions.contains_key(&file), "content before the answer");
        self.bases.remove(&file);
        self.parts.remove(&file);
        self.disk.borrow_mut().kept.remove(&self.wants[&file]);
    }

    fn started(
        &mut self,
        receiver: &mut Receiver,
        file: u32,
        meta: Meta,
        (part, patch): (Option<Part>, Option<Patch>),
    ) {
        self.use_up(file);
        let (mut bytes, mut hasher) = (Vec::new(), TreeHasher::new());
        if let Some(part) = part.as_ref().filter(|_| patch.is_none()) {
            bytes.clone_from(&part.bytes);
            hasher.update(&bytes);
        }
        self.incoming = Some(Incoming {
            file,
            bytes,
            hasher,
            meta,
            part,
            patch,
        });
        if let Some(TargetTrouble::AtStart(code)) = self.trouble(file) {
            self.fail(receiver, file, code);
        }
    }

    fn ended(&mut self, receiver: &mut Receiver, end: &End) {
        let incoming = self.incoming.take_if(|incoming| incoming.file == end.file);
        match (end.outcome, incoming) {
            (EndOutcome::Changed, _) => {}
            (EndOutcome::Failed(_), _) => {
                self.concluded(end.file);
            }
            (EndOutcome::Complete(root), Some(incoming)) => {
                let (file, meta) = (incoming.file, incoming.meta);
                let (bytes, own) = match incoming.patch {
                    Some(patch) => patched(&patch, &incoming),
                    None => (incoming.bytes, incoming.hasher.finish().root),
                };
                if let Some(part) = incoming.part.filter(|_| own == root) {
                    self.continued += usize::from(part.is_left);
                    match incoming.patch {
                        Some(_) => self.resumed_patches += 1,
                        None => self.resumed += 1,
                    }
                }
                self.arrived(receiver, Staged { file, bytes, meta }, own == root);
            }
            (EndOutcome::Complete(_), None) => panic!("an end of what did not start"),
        }
    }

    fn arrived(&mut self, receiver: &mut Receiver, staged: Staged, matches: bool) {
        let file = staged.file;
        match self.trouble(file) {
            Some(TargetTrouble::AtStart(code) | TargetTrouble::Midway(code)) => {
                self.fail(receiver, file, code);
            }
            _ if matches => self.staged.push(staged),
            _ if self.dice.once_in(2) => {
                let id = content_id(&staged.bytes);
                receiver.repair(file, id);
                self.bases.insert(file, id);
                self.repaired += 1;
            }
            _ => receiver.settle(file, SettledResult::Resend),
        }
    }

    fn midway(&mut self, receiver: &mut Receiver, file: u32) {
        if let Some(TargetTrouble::Midway(code)) = self.trouble(file) {
            self.fail(receiver, file, code);
        }
    }

    fn arriving(&mut self, file: u32) -> &mut Incoming {
        let incoming = self.incoming.as_mut().filter(|incoming| incoming.file == file);
        incoming.expect("content of a started file")
    }

    fn trouble(&self, file: u32) -> Option<TargetTrouble> {
        self.disk.borrow().target_trouble(&self.wants[&file])
    }

    fn conclude(&mut self, receiver: &mut Receiver) {
        let complete = receiver.list_end().expect("it is complete").complete;
        let finish = if !self.begin.flags.delete {
            Finish::Done { deleted: 0 }
        } else if !complete {
            Finish::Incomplete
        } else {
            self.prune(receiver)
        };
        receiver.finish(finish);
        self.finish = Some(finish);
        self.after = self.disk.borrow().clone();
    }

    fn prune(&mut self, receiver: &mut Receiver) -> Finish {
        let mut disk = self.disk.borrow_mut();
        let surplus = |path: &&RelPath| !self.offered.contains(path);
        let surplus: Vec<RelPath> = disk.tree.keys().filter(surplus).cloned().collect();
        let (deletions, existing) = (surplus.len() as u64, disk.tree.len() as u64);
        if matches!(self.begin.brake, Brake::Count(limit) if deletions > limit) {
            return Finish::MassDelete { deletions, existing };
        }
        for path in surplus {
            receiver.removed(&path);
            if !self.begin.flags.dry_run {
                disk.tree.remove(&path);
            }
            self.removed.push(path);
        }
        Finish::Done { deleted: deletions }
    }
}

impl Incoming {
    /// What has come of it, behind what was there.
    fn content(&self) -> Vec<u8> {
        let before = self.part.as_ref().filter(|_| self.patch.is_some());
        let before = before.map_or(&[][..], |part| &part.bytes);
        let header = if self.patch.is_some() { PLAN_HEADER_BYTES } else { 0 };
        [before, self.bytes.get(header..).unwrap_or_default()].concat()
    }
}

/// Bytes of a plan of these simulations before content.
const PLAN_HEADER_BYTES: usize = 33;
/// Leaves of the longest beginning.
const PART_LEAVES_MAX: usize = 12;

/// What comes of a plan of these simulations, and its root.
fn patched(patch: &Patch, incoming: &Incoming) -> (Vec<u8>, [u8; 32]) {
    let header = &incoming.bytes[..PLAN_HEADER_BYTES];
    assert_eq!(header[..32], patch.basis.root, "the plan is for this basis");
    assert_eq!(header[32], patch.form as u8);
    let bytes = incoming.content();
    assert_eq!(bytes.len() as u64, patch.size);
    let root = content_id(&bytes).root;
    (bytes, root)
}
