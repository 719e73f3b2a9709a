//! The receiving end of a transfer: judges offers, stages and verifies content, commits it, concludes.
//!
//! The same code receives a push on the server and a pull on the client.
//! 1. Each offered entry is compared with what is here; directories and links are made at once.
//! 2. Content goes into staging and through the hasher; at its end the root must match.
//! 3. Verified files go to the group commit, whose results settle them.
//! 4. When all is settled: deletions, directory times, a last barrier, and the transfer is over.
//!
//! Invariant: no byte reaches a final name before the root of its file was checked.

use super::activity::Done as Change;
use super::activity::Thing;
use super::agreement::Agreement;
use super::arriving::{Arrival, Ended};
use super::commit::{Closing, Commit, Committer, Done, Ready};
use super::events::Action;
use super::examining::Examining;
use super::judging::Judged;
use super::ledger::Ledger;
use super::options::MaxDelete;
use super::partial::{Adopting, Parked};
use super::patches::Patches;
use super::place::{Committed, Place};
use super::prune::{Offered, Prune, PruneContext, PruneLog, Pruned};
use super::questions::Questions;
use super::rebuilding::Repair;
use super::reports::action_of;
use super::resumes::Lease;
use super::slice::Slice;
use crate::conn::{Machine, Receiver};
use crate::model::{ContentId, DeviceId, Fault, ItemCode, Meta, RelPath, Timestamp};
use crate::reactor::{Activity, ConnId};
use crate::store::{Expected, FileError, Published, Sealed};
use crate::wire::{Finish, ListEnd, SettledResult, Verdict};
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

/// The receiving end of one transfer.
pub(crate) struct Receiving {
    pub(super) owner: ConnId,
    pub(super) plan: ReceivingPlan,
    pub(super) wants: HashMap<u32, Want>,
    pub(super) incoming: Option<Arrival>,
    /// Files that have ended and wait for their checks.
    pub(super) ended: Vec<Ended>,
    /// Files that have started, to tell the results of their checks apart.
    pub(super) started: u64,
    /// Files that arrive as patches.
    pub(super) patches: Patches,
    /// Questions about bases that are not answered yet.
    pub(super) questions: Questions,
    pub(super) examining: Option<Examining>,
    /// An entry that is wanted, and what there is of it already, which is read.
    pub(super) adopting: Option<(Judged, Box<Adopting>)>,
    /// Offered directories: their final metadata, and whether something in them changed.
    pub(super) directories: BTreeMap<RelPath, (Meta, Touch)>,
    /// What they take, about.
    pub(super) directories_bytes: usize,
    /// The last offered directory that could not be made, and why.
    pub(super) failed: Option<(RelPath, ItemCode)>,
    /// The parent that was made sure of last.
    pub(super) parent: Option<RelPath>,
    pub(super) offered: Option<Offered>,
    /// Directories that get their modes at the end.
    closing: Vec<RelPath>,
    phase: Phase,
}

/// What a receiver is set up with.
pub(crate) struct ReceivingPlan {
    pub(crate) place: Rc<Place>,
    /// The device that sends, if it has a key.
    pub(crate) peer: Option<DeviceId>,
    pub(crate) agreement: Agreement,
    pub(crate) checksum: bool,
    pub(crate) dry_run: bool,
    /// Whether the sender understands bases.
    pub(crate) delta: bool,
    /// Whether files are changed where they lie.
    pub(crate) in_place: bool,
    /// Whether the sender can go on where an earlier transfer broke off.
    pub(crate) resume: bool,
    pub(crate) delete: Option<DeletePlan>,
    /// The directory that the top of the source corresponds to; `None` is the root.
    pub(crate) top: Option<RelPath>,
    /// What must stand where something is put.
    pub(crate) based: Based,
}

/// What must stand where something is put.
#[derive(Debug)]
pub(crate) enum Based {
    /// Whatever stands there.
    Anything,
    /// What the sender knows of, by its revision.
    #[cfg(feature = "sync")]
    Revisions,
    /// What a plan was made on.
    #[cfg(feature = "sync")]
    Plan(HashMap<RelPath, Expected>),
}

impl Based {
    /// Whether a sync has it in its plan, and tells itself what cannot be done of that.
    pub(super) fn is_plan(&self) -> bool {
        match self {
            Based::Anything => false,
            #[cfg(feature = "sync")]
            Based::Revisions => false,
            #[cfg(feature = "sync")]
            Based::Plan(_) => true,
        }
    }
}

/// What may be deleted.
pub(crate) struct DeletePlan {
    pub(crate) scopes: Vec<Option<RelPath>>,
    pub(crate) brake: MaxDelete,
    pub(crate) seed: u64,
}

/// A file whose content is wanted.
pub(super) struct Want {
    pub(super) path: RelPath,
    pub(super) expected: Expected,
    pub(super) verdict: Verdict,
    pub(super) size: u64,
    /// What is there now, if it was named.
    pub(super) basis: Option<ContentId>,
    /// What was committed.
    pub(super) committed: Option<Committed>,
    /// What was pieced together: then the basis is that.
    pub(super) repair: Option<Repair>,
    /// What an earlier transfer staged of it, until the file starts.
    pub(super) partial: Option<Parked>,
    /// The right to the kept file that is committed.
    pub(super) lease: Option<Lease>,
}

impl Want {
    /// It is settled: nothing has to be remembered for another attempt.
    pub(super) fn discard(self, place: &Place) {
        if let Some(partial) = self.partial {
            partial.discard(place);
        }
        if let Some(lease) = self.lease {
            lease.end();
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Touch {
    Untouched,
    Touched,
}

enum Phase {
    Receiving,
    Pruning(Prune),
    /// The last barrier runs; then this is said.
    Closing(Finish),
    Ended(Finish),
}

impl Receiving {
    pub(crate) fn new(owner: ConnId, mut plan: ReceivingPlan) -> Receiving {
        let offered = plan.delete.as_mut().map(|delete| Offered::new(delete.seed));
        Receiving {
            owner,
            plan,
            wants: HashMap::new(),
            incoming: None,
            ended: Vec::new(),
            started: 0,
            patches: Patches::default(),
            questions: Questions::default(),
            examining: None,
            adopting: None,
            directories: BTreeMap::new(),
            directories_bytes: 0,
            failed: None,
            parent: None,
            offered,
            closing: Vec::new(),
            phase: Phase::Receiving,
        }
    }

    /// A bounded amount of work that no message carries: judging, settling, concluding.
    pub(crate) fn step(&mut self, machine: &mut Machine, books: &mut Books<'_>) -> Result<Activity, Fault> {
        let Some(receiver) = machine.receiver() else {
            return Ok(Activity::Idle);
        };
        // A directory that was moved away since the last step is not worked in.
        self.plan.place.root.forget_parents();
        if !self.settle_results(receiver, books) {
            return Ok(Activity::More);
        }
        if let Some(journal) = self.plan.place.resumes.take_unflushed() {
            books.committer.flush(journal);
        }
        let judging = self.judge(receiver, books)?;
        let patching = self.patch(receiver, books)?;
        if judging == Activity::More || patching == Activity::More {
            return Ok(Activity::More);
        }
        if matches!(self.phase, Phase::Receiving) && receiver.is_complete() {
            self.conclude(receiver, books);
        }
        if matches!(self.phase, Phase::Pruning(_)) {
            self.prune(receiver, books);
            return Ok(Activity::More);
        }
        Ok(Activity::Idle)
    }

    /// Enters what the helper thread did, as far as there is time; `false` when more of it waits.
    fn settle_results(&mut self, receiver: &mut Receiver, books: &mut Books<'_>) -> bool {
        let slice = Slice::begin();
        let mut results = books.committer.take_results(self.owner).into_iter();
        while let Some(done) = results.next() {
            self.done(done, receiver, books);
            if slice.is_over() && results.len() > 0 {
                books.committer.put_back(self.owner, results);
                return false;
            }
        }
        true
    }

    /// Whether who asked for it knows what to do about each entry that does not come.
    pub(crate) fn is_of_a_plan(&self) -> bool {
        #[cfg(feature = "sync")]
        return matches!(self.plan.based, Based::Plan(_));
        #[cfg(not(feature = "sync"))]
        false
    }

    /// How it ended, once the finish was said.
    pub(crate) fn ended(&self) -> Option<Finish> {
        match self.phase {
            Phase::Ended(finish) => Some(finish),
            _ => None,
        }
    }

    /// Whether what comes next goes on with a file that has started, as far as one can tell.
    pub(crate) fn is_amid_file(&self) -> bool {
        self.incoming.is_some() || !self.patches.is_empty()
    }

    /// Whether the content of a large file comes in.
    pub(crate) fn is_bulk(&self) -> bool {
        self.incoming.as_ref().is_some_and(Arrival::is_bulk)
    }

    /// Bytes of memory that it takes, about; a path counts where its entry is held as well.
    pub(crate) fn held_bytes(&self) -> usize {
        let offered = self.offered.as_ref().map_or(0, Offered::held_bytes);
        let pruning = match &self.phase {
            Phase::Pruning(prune) => prune.held_bytes(),
            Phase::Receiving | Phase::Closing(_) | Phase::Ended(_) => 0,
        };
        let files = self.wants.capacity() * size_of::<(u32, Want)>() + self.ended.len() * size_of::<Ended>();
        size_of::<Receiving>() + files + self.directories_bytes + offered + pruning + self.patches.held_bytes()
    }

    pub(crate) fn handle_list_end(&mut self, ledger: &mut Ledger) {
        ledger.list_ended();
    }

    pub(super) fn commit(
        &mut self,
        file: u32,
        sealed: Result<Sealed, FileError>,
        content: Option<(ContentId, Timestamp)>,
        receiver: &mut Receiver,
        books: &mut Books<'_>,
    ) {
        let Some(expected) = self.wants.get(&file).map(|want| want.expected) else {
            return;
        };
        match sealed {
            Ok(sealed) => self.commit_ready(file, Ready::Staged(sealed, expected), content, books),
            Err(error) => {
                log::warn!("{error}");
                self.fail(file, error.code(), receiver, books.ledger);
            }
        }
    }

    pub(super) fn commit_ready(
        &mut self,
        file: u32,
        ready: Ready,
        content: Option<(ContentId, Timestamp)>,
        books: &mut Books<'_>,
    ) {
        let Some(want) = self.wants.get_mut(&file) else {
            return;
        };
        let inode = match &ready {
            Ready::Staged(sealed, _) => sealed.inode(),
            Ready::InPlace(..) => None,
        };
        want.committed = content.map(|(id, mtime)| Committed { id, mtime, inode });
        if let Ready::InPlace(..) = ready {
            books.ledger.changes_in_place(file);
        }
        let (path, size) = (want.path.clone(), want.size);
        self.touch_parent(&path);
        let (owner, author) = (self.owner, self.plan.peer.into());
        let commit = Commit {
            owner,
            author,
            file,
            size,
            ready,
        };
        books.committer.push(&self.plan.place, commit);
    }

    pub(super) fn fail(&mut self, file: u32, code: ItemCode, receiver: &mut Receiver, ledger: &mut Ledger) {
        if let Some(incoming) = self.incoming.take_if(|incoming| incoming.file == file) {
            incoming.discard();
        }
        receiver.consumed(self.patches.drop_file(file, &self.plan.place));
        self.questions.forget(file);
        let mut code = code;
        if let Some(want) = self.wants.remove(&file) {
            code = self.outdated(&want.path, code);
            let is_told_there = match code {
                // The one who asked has seen something else here: it will look again.
                ItemCode::Stale => true,
                // A sync tells of two names that are one in its own words.
                ItemCode::Collides => self.plan.based.is_plan(),
                _ => false,
            };
            if !is_told_there {
                ledger.file_failed(file, &want.path, code);
            }
            if let Some(offered) = &mut self.offered {
                offered.keep_beneath(&want.path);
            }
            want.discard(&self.plan.place);
        }
        receiver.settle(file, SettledResult::Failed(code));
    }

    /// Why an entry failed: in a sync, that what it was to be put into is no directory any more means that its sender
    /// has not heard of that yet.
    pub(super) fn outdated(&self, path: &RelPath, code: ItemCode) -> ItemCode {
        let is_free = matches!(self.plan.based, Based::Anything);
        if is_free || !matches!(code, ItemCode::InTheWay | ItemCode::Escapes | ItemCode::Vanished) {
            return code;
        }
        match self.plan.place.root.probe(path) {
            Err(error) if error.is_beneath_no_directory() => {
                #[cfg(feature = "sync")]
                self.plan.place.doubt(path);
                ItemCode::Stale
            }
            _ => code,
        }
    }

    fn done(&mut self, done: Done, receiver: &mut Receiver, books: &mut Books<'_>) {
        let ledger = &mut *books.ledger;
        match done {
            Done::Checked(checked) => self.checked(&checked, receiver, books),
            Done::File {
                file,
                result: Ok(published_as),
            } => {
                let Some(want) = self.wants.remove(&file) else {
                    return;
                };
                if let Published::Displaced(copy) = &published_as {
                    log::warn!(
                        "{} was edited here meanwhile; that version is kept as {copy}",
                        want.path
                    );
                    ledger.displaced(&want.path, copy);
                }
                self.plan.place.doubts.settle(&want.path);
                self.plan.place.note(&want.path, want.committed, self.plan.peer);
                if let Published::Displaced(copy) = &published_as {
                    self.plan.place.note(copy, None, None);
                }
                self.remember(&want);
                ledger.transferred(file, &want.path, action_of(want.verdict), want.size);
                want.discard(&self.plan.place);
                receiver.settle(file, SettledResult::Committed);
            }
            Done::File {
                file,
                result: Err(code),
            } => {
                if let (ItemCode::Io, Some(want)) = (code, self.wants.get(&file)) {
                    self.plan.place.doubts.note(&want.path);
                }
                self.fail(file, code, receiver, ledger);
            }
            Done::Closed { failed, durable } => {
                let failed = failed.iter().map(|(path, code)| (path.as_bytes(), *code));
                let top = durable.err().map(|code| (b".".as_slice(), code));
                for (path, code) in failed.chain(top) {
                    ledger.failed(path, code);
                    // The other side must not take it for done.
                    receiver.target_failed(path, code);
                }
                for path in std::mem::take(&mut self.closing) {
                    self.plan.place.note(&path, None, self.plan.peer);
                }
                if let Phase::Closing(finish) = self.phase {
                    self.phase = Phase::Ended(finish);
                    receiver.finish(finish);
                }
            }
        }
    }

    /// All content is settled: deletions are next, if they were asked for.
    fn conclude(&mut self, receiver: &mut Receiver, books: &mut Books<'_>) {
        let listed = receiver.list_end().is_some_and(|end| end.complete);
        match &mut self.plan.delete {
            None => self.begin_closing(Finish::Done { deleted: 0 }, receiver, books),
            Some(_) if !listed => self.begin_closing(Finish::Incomplete, receiver, books),
            Some(delete) => self.phase = Phase::Pruning(Prune::new(std::mem::take(&mut delete.scopes))),
        }
    }

    fn prune(&mut self, receiver: &mut Receiver, books: &mut Books<'_>) {
        let Phase::Pruning(mut prune) = std::mem::replace(&mut self.phase, Phase::Receiving) else {
            return;
        };
        let (Some(delete), Some(offered)) = (&self.plan.delete, &self.offered) else {
            return;
        };
        let cx = PruneContext {
            root: &self.plan.place.root,
            keeping: self.plan.place.keeping(self.plan.peer),
            agreement: &self.plan.agreement,
            offered,
            brake: delete.brake,
            dry_run: self.plan.dry_run,
        };
        let mut log = Removals {
            receiver,
            ledger: books.ledger,
            directories: &mut self.directories,
            place: &self.plan.place,
            peer: self.plan.peer,
        };
        match prune.step(&cx, &mut log) {
            Pruned::More => self.phase = Phase::Pruning(prune),
            Pruned::Over(finish) => self.begin_closing(finish, receiver, books),
        }
    }

    fn begin_closing(&mut self, finish: Finish, receiver: &mut Receiver, books: &mut Books<'_>) {
        if self.plan.dry_run {
            self.phase = Phase::Ended(finish);
            return receiver.finish(finish);
        }
        let directories = std::mem::take(&mut self.directories);
        let touched = directories
            .into_iter()
            .filter(|(_, (_, touch))| *touch == Touch::Touched);
        let metas: Vec<_> = touched.map(|(path, (meta, _))| (path, meta)).collect();
        for (path, _) in &metas {
            self.closing.push(path.clone());
        }
        let own = receiver.list_end().and_then(|ListEnd { top, .. }| top);
        // Everything staged is published. Where the root gets its time, our own directory goes before, since
        // its going changes that; else it stays for the next one: making it again takes a dozen calls.
        if own.is_some() && self.plan.top.is_none() {
            self.plan.place.staging.retire();
        }
        self.plan.place.resumes.retire();
        let changed = metas
            .iter()
            .map(|(path, _)| Some(path.clone()))
            .chain([self.plan.top.clone()])
            .collect();
        let closing = Closing {
            metas,
            changed,
            own: own.map(|meta| (self.plan.top.clone(), meta)),
        };
        books.committer.close(&self.plan.place, self.owner, closing);
        self.phase = Phase::Closing(finish);
    }

    pub(super) fn make_parents(&mut self, path: &RelPath, books: &mut Books<'_>) -> Result<(), FileError> {
        let parent = path.parent();
        if parent.is_none() || parent == self.parent {
            return Ok(());
        }
        for made in self.plan.place.root.make_parents(path)? {
            self.plan.place.note(&made, None, self.plan.peer);
            books.ledger.did(&made, Change::Made, None);
            books.committer.made_directory(&self.plan.place, made);
        }
        self.parent = parent;
        Ok(())
    }

    pub(super) fn touch_parent(&mut self, path: &RelPath) {
        touch_parent(&mut self.directories, path);
    }
}

fn touch_parent(directories: &mut BTreeMap<RelPath, (Meta, Touch)>, path: &RelPath) {
    if let Some((_, touch)) = path.parent().and_then(|parent| directories.get_mut(&parent)) {
        *touch = Touch::Touched;
    }
}

/// What the work on a transfer shares with others.
pub(crate) struct Books<'a> {
    pub(crate) ledger: &'a mut Ledger,
    pub(crate) committer: &'a mut Committer,
    pub(crate) scratch: &'a mut Vec<u8>,
}

struct Removals<'a> {
    receiver: &'a mut Receiver,
    ledger: &'a mut Ledger,
    directories: &'a mut BTreeMap<RelPath, (Meta, Touch)>,
    place: &'a Place,
    peer: Option<DeviceId>,
}

impl PruneLog for Removals<'_> {
    fn removed(&mut self, path: &RelPath) {
        self.receiver.removed(path);
        self.place.note(path, None, self.peer);
        touch_parent(self.directories, path);
        self.ledger.entry(path, Action::Deleted, Thing::Other, 0);
    }

    fn failed(&mut self, path: &[u8], code: ItemCode) {
        self.ledger.failed(path, code);
        self.receiver.target_failed(path, code);
    }
}
