//! What a node knows of unfinished transfers, so that they go on where they broke off.
//!
//! Keeps the journal, and who works on which kept file. Never touches content. Invariant: at most one
//! transfer at a time writes to a kept file; one that was taken over writes no more.

use crate::delta::TreeHasher;
use crate::model::limits::{LEAF_BYTES, RESUME_BYTES_MIN};
use crate::model::{DeviceId, RelPath, Timestamp};
use crate::store::Identity;
use crate::store::{Incoming, Journal, JournalError, Reached, StagedFile, Subject, TransferId};
use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::fs::File;
use std::rc::Rc;
use std::time::{SystemTime, UNIX_EPOCH};

/// The unfinished transfers of a share, or of a client.
#[derive(Default)]
pub(crate) struct Resumes {
    journal: RefCell<Option<Journal>>,
    /// Kept files that are written to.
    leased: RefCell<HashMap<TransferId, Rc<Holding>>>,
    /// The journal lies in a folder where nothing of ours is to stay.
    passing: Cell<bool>,
}

/// How much there is in a journal.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct JournalFigures {
    pub(crate) entries: u64,
    pub(crate) bytes: u64,
}

/// Who writes to a kept file.
struct Holding {
    revoked: Cell<bool>,
    /// All of it has come: it is about to be published.
    complete: Cell<bool>,
    /// It is read for a commit, which may outlive the transfer: nobody goes on with it in this process.
    committing: Cell<bool>,
}

/// The right to write to a kept file. When it is dropped, what was reached stays known.
pub(crate) struct Lease {
    id: TransferId,
    resumes: Rc<Resumes>,
    holding: Rc<Holding>,
    /// What the journal was told last, in bytes.
    noted: u64,
}

/// A file that an earlier transfer did not finish.
pub(crate) struct Begun {
    pub(crate) lease: Lease,
    pub(crate) incoming: Incoming,
    pub(crate) reached: Reached,
    /// Whether what was reached is certainly on the disk, or in the page cache.
    pub(crate) proven: bool,
}

/// Bytes between two notes in the journal: what is behind the last note is found by reading it again.
const NOTE_BYTES: u64 = 4 << 20;
/// Seconds after which an unfinished transfer is given up.
const RETENTION_SECONDS: i64 = 14 * 24 * 3600;

impl fmt::Debug for Resumes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resumes").finish_non_exhaustive()
    }
}

impl Resumes {
    /// With this journal; without one, nothing is remembered.
    pub(crate) fn new(journal: Option<Journal>) -> Rc<Resumes> {
        Rc::new(Resumes {
            journal: RefCell::new(journal),
            leased: RefCell::default(),
            passing: Cell::new(false),
        })
    }

    /// With the journal that was opened; where that failed, nothing is remembered.
    pub(crate) fn of(opened: Result<Journal, JournalError>) -> Rc<Resumes> {
        if let Err(error) = &opened {
            log::info!("a transfer that breaks off will start again: {error}");
        }
        Resumes::new(opened.ok())
    }

    /// Takes the journal of a folder that is only worked in for one transfer; the first time.
    pub(crate) fn pass(&self, open: impl FnOnce() -> Result<Journal, JournalError>) {
        if self.passing.replace(true) {
            return;
        }
        match open() {
            Ok(journal) => *self.journal.borrow_mut() = Some(journal),
            Err(error) => log::warn!("a transfer that breaks off will start again: {error}"),
        }
    }

    /// Whether there is a journal.
    pub(crate) fn is_open(&self) -> bool {
        self.journal.borrow().is_some()
    }

    /// How much there is in the journal.
    pub(crate) fn figures(&self) -> JournalFigures {
        let journal = self.journal.borrow();
        journal
            .as_ref()
            .map_or_else(JournalFigures::default, |journal| JournalFigures {
                entries: journal.entries() as u64,
                bytes: journal.bytes(),
            })
    }

    /// The journal's file, when it has to be flushed: once after it was made or written anew.
    pub(crate) fn take_unflushed(&self) -> Option<File> {
        self.journal.borrow_mut().as_mut()?.take_unflushed()
    }

    /// A file begins to arrive. `None`: it is too small, or cannot be remembered.
    pub(crate) fn begin(self: &Rc<Resumes>, incoming: Incoming) -> Option<Lease> {
        if incoming.size < RESUME_BYTES_MIN {
            return None;
        }
        let id = self
            .journal
            .borrow_mut()
            .as_mut()?
            .begin(&Subject::Incoming(incoming))?;
        Some(self.lease(id, 0))
    }

    /// The unfinished transfer of `path` by `peer`, of this size and time. Where a connection still works on
    /// it, that gives way: a device that comes again has lost it, though we may not have heard of that.
    pub(crate) fn find(
        self: &Rc<Resumes>,
        path: &RelPath,
        peer: Option<&DeviceId>,
        state: (u64, Timestamp),
    ) -> Option<Begun> {
        let (id, incoming, reached, proven) = {
            let journal = self.journal.borrow();
            let found = journal.as_ref()?.incoming(path, peer)?;
            let Subject::Incoming(incoming) = &found.subject else {
                return None;
            };
            (found.id, incoming.clone(), found.reached.clone(), found.proven)
        };
        let held = self.leased.borrow().get(&id).cloned();
        if let Some(held) = held {
            if (incoming.size, incoming.mtime) != state {
                return None;
            }
            if held.complete.get() {
                return None;
            }
            log::info!("{path}: an earlier transfer of it is taken over");
            held.revoked.set(true);
        }
        let lease = self.lease(id, reached.offset);
        Some(Begun {
            lease,
            incoming,
            reached,
            proven,
        })
    }

    /// The unfinished transfer of `path` by `peer`, if nobody works on it: neither a transfer, nor a commit that
    /// its kept file `is_there` for.
    pub(crate) fn idle(
        &self,
        path: &RelPath,
        peer: Option<&DeviceId>,
        is_there: impl Fn(TransferId) -> bool,
    ) -> Option<TransferId> {
        let journal = self.journal.borrow();
        let id = journal.as_ref()?.incoming(path, peer)?.id;
        let leased = self.leased.borrow();
        let is_idle = leased
            .get(&id)
            .is_none_or(|held| held.committing.get() && !is_there(id));
        is_idle.then_some(id)
    }

    fn lease(self: &Rc<Resumes>, id: TransferId, noted: u64) -> Lease {
        let holding = Rc::new(Holding {
            revoked: Cell::new(false),
            complete: Cell::new(false),
            committing: Cell::new(false),
        });
        self.leased.borrow_mut().insert(id, Rc::clone(&holding));
        Lease {
            id,
            resumes: Rc::clone(self),
            holding,
            noted,
        }
    }

    /// How far a file in this state was sent, in what the receiver certainly has.
    pub(crate) fn sent(&self, identity: &Identity) -> Option<TreeHasher> {
        let journal = self.journal.borrow();
        let reached = &journal.as_ref()?.outgoing(identity)?.reached;
        TreeHasher::behind(reached.offset / LEAF_BYTES as u64, &reached.frontier)
    }

    /// A file leaves; what was known of an earlier attempt at it is used up.
    pub(crate) fn begin_sending(self: &Rc<Resumes>, identity: &Identity, size: u64) -> Option<Noted> {
        if size < RESUME_BYTES_MIN {
            return None;
        }
        let mut journal = self.journal.borrow_mut();
        let journal = journal.as_mut()?;
        let id = match journal.outgoing(identity) {
            Some(found) => found.id,
            None => journal.begin(&Subject::Outgoing(*identity))?,
        };
        Some(Noted {
            id,
            resumes: Rc::clone(self),
            snapshots: VecDeque::new(),
            last: 0,
        })
    }

    /// Nothing has to be known of it any more.
    pub(crate) fn end(&self, id: TransferId) {
        self.leased.borrow_mut().remove(&id);
        if let Some(journal) = self.journal.borrow_mut().as_mut() {
            journal.end(id);
        }
    }

    /// The same at the present, by the wall clock: one that is wrong costs bytes that travel again.
    pub(crate) fn expire_now(&self) -> Vec<TransferId> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.expire(i64::try_from(now.as_secs()).unwrap_or(i64::MAX))
    }

    /// Gives up what is older than anybody will come back for. Returns whose kept files can go.
    pub(crate) fn expire(&self, now_seconds: i64) -> Vec<TransferId> {
        let mut journal = self.journal.borrow_mut();
        let journal = journal.as_mut();
        journal.map_or_else(Vec::new, |journal| {
            journal.end_older_than(now_seconds - RETENTION_SECONDS)
        })
    }

    /// Every unfinished arrival.
    pub(crate) fn arrivals(&self) -> Vec<TransferId> {
        let journal = self.journal.borrow();
        let all = journal.iter().flat_map(Journal::iter);
        let arriving = all.filter(|unfinished| matches!(unfinished.subject, Subject::Incoming(_)));
        arriving.map(|unfinished| unfinished.id).collect()
    }

    /// At the end of a transfer: no trace is left of a journal that says nothing, in a folder that is not
    /// ours.
    pub(crate) fn retire(&self) {
        let mut journal = self.journal.borrow_mut();
        if self.passing.get() && journal.as_ref().is_some_and(|journal| journal.iter().next().is_none()) {
            journal.take();
        }
    }

    fn reach(&self, id: TransferId, hasher: &TreeHasher) {
        let reached = Reached {
            offset: hasher.leaves() * LEAF_BYTES as u64,
            frontier: hasher.frontier().to_vec(),
            changed: Vec::new(),
        };
        if let Some(journal) = self.journal.borrow_mut().as_mut() {
            journal.reach(id, &reached);
        }
    }
}

impl Lease {
    pub(crate) fn id(&self) -> TransferId {
        self.id
    }

    /// Whether another transfer goes on with the file.
    pub(crate) fn is_revoked(&self) -> bool {
        self.holding.revoked.get()
    }

    /// More of the file has come, and is verified as far as `hasher` is.
    pub(crate) fn moved(&mut self, hasher: &TreeHasher) {
        if self.is_due(hasher) {
            self.note(hasher);
        }
    }

    /// Whether so much more is verified that it should be noted.
    pub(crate) fn is_due(&self, hasher: &TreeHasher) -> bool {
        hasher.leaves() * LEAF_BYTES as u64 >= self.noted + NOTE_BYTES
    }

    /// A transfer in its place that goes on in a file of its own, instead of gathering changes. Nothing of it is noted.
    pub(crate) fn instead(&self) -> Option<Lease> {
        let mut incoming = {
            let journal = self.resumes.journal.borrow();
            match &journal.as_ref()?.find(self.id)?.subject {
                Subject::Incoming(incoming) => incoming.clone(),
                Subject::Outgoing(_) => return None,
            }
        };
        if let Some(basis) = &mut incoming.basis {
            basis.in_place = false;
        }
        self.resumes.begin(incoming)
    }

    /// All of the file has come: from here on it is not taken over.
    pub(crate) fn complete(&self) {
        self.holding.complete.set(true);
    }

    /// A commit has the file, and ends it, whatever becomes of the transfer: who came back for it meanwhile would
    /// write to what is about to get its name.
    pub(crate) fn committing(&self) {
        self.holding.committing.set(true);
    }

    /// Notes what is verified, as far as it is known.
    pub(crate) fn note(&mut self, hasher: &TreeHasher) {
        let offset = hasher.leaves() * LEAF_BYTES as u64;
        if offset > self.noted && !self.is_revoked() {
            self.noted = offset;
            self.resumes.reach(self.id, hasher);
        }
    }

    /// What was noted of the file may not hold any more: what is noted next takes its place.
    pub(crate) fn doubt(&mut self) {
        self.noted = 0;
    }

    /// What came of the file is of no use: `staged`, its kept file, is removed. One that was taken over is
    /// not ours to remove.
    pub(crate) fn discard(self, staged: StagedFile) {
        if self.is_revoked() {
            return;
        }
        staged.discard();
        self.end();
    }

    /// The file is complete, or given up: nothing has to be known of it any more.
    pub(crate) fn end(self) {
        if !self.is_revoked() {
            self.resumes.end(self.id);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if !self.is_revoked() && !self.holding.committing.get() {
            self.resumes.leased.borrow_mut().remove(&self.id);
        }
    }
}

/// Notes of how far a file was sent.
pub(crate) struct Noted {
    pub(crate) id: TransferId,
    resumes: Rc<Resumes>,
    /// States of the tree that the receiver may not have reached yet.
    snapshots: VecDeque<TreeHasher>,
    /// How far the last of them reaches.
    last: u64,
}

impl Noted {
    /// The file was hashed as far as `hasher` is; the receiver has its first `received` bytes for certain.
    pub(crate) fn moved(&mut self, hasher: &TreeHasher, received: u64) {
        let offset = |hasher: &TreeHasher| hasher.leaves() * LEAF_BYTES as u64;
        if offset(hasher) >= self.last + NOTE_BYTES {
            self.last = offset(hasher);
            self.snapshots.push_back(hasher.clone());
        }
        let mut reached = None;
        while self.snapshots.front().is_some_and(|first| offset(first) <= received) {
            reached = self.snapshots.pop_front();
        }
        if let Some(hasher) = reached {
            self.resumes.reach(self.id, &hasher);
        }
    }
}

impl super::server_node::ServerNode {
    /// Gives up what nobody went on with for too long.
    pub(super) fn expire_unfinished(&self) {
        for (_, place) in self.places() {
            let expired = place.expire();
            if expired > 0 {
                let path = place.root.path().display();
                log::info!("{path}: {expired} unfinished transfers were given up");
            }
        }
    }
}

#[cfg(test)]
#[path = "resumes_tests.rs"]
mod tests;
