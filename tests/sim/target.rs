//! The writing end of a simulated transfer: judges, stages, verifies and publishes in memory, in the
//! order in which the real one does.

use crate::disk::{Body, Disk, Node, TargetTrouble, Tree};
use crate::rng::Rng;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;
use syncline::conn::{Check, Event, Machine, Receiver};
use syncline::delta::{TreeHasher, content_id};
use syncline::model::{ItemCode, Kind, Meta, RelPath};
use syncline::wire::{Begin, Brake, EndOutcome, Finish, SettledResult, Verdict};

pub(crate) struct TargetSide {
    disk: Rc<RefCell<Disk>>,
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
}

struct Incoming {
    file: u32,
    bytes: Vec<u8>,
    hasher: TreeHasher,
    meta: Meta,
}

struct Staged {
    file: u32,
    bytes: Vec<u8>,
    meta: Meta,
}

impl TargetSide {
    pub(crate) fn new(disk: Rc<RefCell<Disk>>, begin: Begin) -> TargetSide {
        let before = disk.borrow().tree.clone();
        TargetSide {
            disk,
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
        if receiver.next_check().is_some() {
            for _ in 0..=rng.below(40) {
                let Some(check) = receiver.next_check().cloned() else {
                    break;
                };
                self.judge(receiver, &check);
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
        false
    }

    fn judge(&mut self, receiver: &mut Receiver, check: &Check) {
        let path = check.entry.path.clone();
        let verdict = self.verdict(check);
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
        if let Some(TargetTrouble::AtCommit(code) | TargetTrouble::Early(code)) = trouble {
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
            Event::Start(start) => {
                let hasher = TreeHasher::new();
                let (file, meta, bytes) = (start.file, start.meta, Vec::new());
                assert!(self.wants.contains_key(&file), "a start of what is not wanted");
                self.incoming = Some(Incoming {
                    file,
                    bytes,
                    hasher,
                    meta,
                });
                if let Some(TargetTrouble::AtStart(code)) = self.trouble(file) {
                    self.fail(receiver, file, code);
                }
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
            Event::End(end) => {
                let incoming = self.incoming.take_if(|incoming| incoming.file == end.file);
                match (end.outcome, incoming) {
                    (EndOutcome::Changed, _) => {}
                    (EndOutcome::Failed(_), _) => {
                        self.concluded(end.file);
                    }
                    (
                        EndOutcome::Complete(root),
                        Some(Incoming {
                            file,
                            bytes,
                            hasher,
                            meta,
                        }),
                    ) => {
                        let matches = hasher.finish().root == root;
                        self.arrived(receiver, Staged { file, bytes, meta }, matches);
                    }
                    (EndOutcome::Complete(_), None) => panic!("an end of what did not start"),
                }
            }
            Event::Inline(inline) => {
                self.unconsumed += inline.bytes.len() as u64;
                let matches = content_id(inline.bytes).root == inline.root;
                let (file, meta, bytes) = (inline.file, inline.meta, inline.bytes.to_vec());
                self.arrived(receiver, Staged { file, bytes, meta }, matches);
            }
            Event::ListEnd(end) => self.top = end.top,
            Event::SourceFailed(_) => self.unlistable += 1,
            Event::Offered => {}
            _ => return false,
        }
        true
    }

    fn arrived(&mut self, receiver: &mut Receiver, staged: Staged, matches: bool) {
        let file = staged.file;
        match self.trouble(file) {
            Some(TargetTrouble::AtStart(code) | TargetTrouble::Midway(code)) => {
                self.fail(receiver, file, code);
            }
            _ if matches => self.staged.push(staged),
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
