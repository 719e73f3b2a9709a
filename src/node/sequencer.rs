//! The server is the sequencer: each change of a share gets the next revision, whoever made it.
//!
//! 1. Somebody says that a path is worth a look: a commit, a watch, a walk over everything at the start.
//! 2. A round looks at all of these, and compares what stands there with the index.
//! 3. What is new to it is hashed, unless a commit said what it contains, and gets a revision.
//! 4. The helper thread writes the round; from then on it is answered with.
//!
//! Nothing is done before the first client asks what changed: who only pushes and pulls pays for nothing.
//! Never changes the folder. Invariant: an answer holds only what is durable, so a revision that was told never
//! comes to mean something else.

mod answering;
mod hashing;
mod left_behind;
mod looking;
mod retrying;
mod witness;

use hashing::Hashes;
use looking::{Fresh, of_difference};
use retrying::Retries;

use super::leftover;
use super::looking::Looks;
use super::observing::Observing;
use super::place::Place;
use crate::model::{ContentId, DeviceId, Kind, RelPath, Revision, State, Tick, Timestamp};
use crate::reactor::{ConnId, Job, Shared};
use crate::store::{
    Batch, Found, FoundIndex, FoundKind, Identity, Index, IndexError, IndexOptions, Record, Root, Snapshot,
};
use std::collections::{HashMap, HashSet};
use std::os::fd::BorrowedFd;
use std::sync::mpsc;
use std::time::SystemTime;

/// The timer that moves rounds on.
pub(super) const SEQUENCE_TIMER: u64 = 9;
/// The timer that looks whether what was observed is quiet.
pub(super) const OBSERVE_TIMER: u64 = 10;
/// Marks the tickets of these jobs; the share's number and a count are below it.
const SEQUENCE_TICKET: u64 = 1 << 61;
const TICKET_MARKS: u64 = 0b111 << 61;
/// Milliseconds that a look waits for others.
pub(super) const GATHER_MS: u64 = 10;
/// Changes of one round: bounds what is held before it is written.
const ROUND_CHANGES_MAX: usize = 10_000;

/// How writes of an index end, from the thread that makes them.
pub(super) type Writes = (
    mpsc::Sender<Result<(), IndexError>>,
    mpsc::Receiver<Result<(), IndexError>>,
);

/// What a share's revisions are given by.
#[derive(Debug)]
pub(crate) struct Sequencer {
    /// Which share it is, for the tickets.
    share: u64,
    index: Index,
    /// The last durable state.
    snapshot: Snapshot,
    looks: Looks,
    observing: Observing,
    retries: Retries,
    /// The loop waits for what is observed.
    is_observed: bool,
    /// What commits said of paths that were not looked at yet, and of those of the round.
    hints: HashMap<RelPath, Hint>,
    round_hints: HashMap<RelPath, Hint>,
    /// Paths of the round that goes on: what the index says of them is old.
    unsettled: HashSet<RelPath>,
    fresh: Vec<Fresh>,
    stage: Stage,
    hashes: Hashes,
    writes: Writes,
    next_ticket: u64,
    /// Looks that were asked for, and those that the durable state includes.
    asked: u64,
    covered: u64,
    /// How many were asked for when the round began.
    round: u64,
    /// Everything was walked through once.
    is_ready: bool,
    /// Why it goes on no more.
    broken: Option<String>,
    /// That is because the folder is not there.
    is_gone: bool,
    /// Who wants to hear of changes, and who waits for an answer.
    listeners: HashSet<ConnId>,
    /// What is told of changes that nobody sent.
    witness: witness::Witness,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Resting,
    Looking,
    Hashing,
    Writing { ticket: u64 },
}

/// What a commit said of a path.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Hint {
    /// The file that was published, and what it contains.
    content: Option<(Identity, ContentId)>,
    author: Option<DeviceId>,
    /// It is of a commit, and not of a doubt.
    is_commit: bool,
    /// A directory that was deleted, and stays for what is left out in it.
    leaves: bool,
}

/// What the index says of a path, for somebody who wants to change it.
#[derive(Debug, Clone)]
pub(crate) enum Standing {
    /// Its record, if it has one.
    Settled(Option<Box<Record>>),
    /// It is being looked at: nothing can be said for the moment.
    Unsettled,
}

impl Sequencer {
    /// Opens the index of a share and begins to look through the folder.
    pub(crate) fn open(root: &Root, share: u64, now: Tick) -> Result<Sequencer, IndexError> {
        let opened = Index::open(root, IndexOptions::default())?;
        if let FoundIndex::Damaged { moved_to, reason } = &opened.found {
            log::error!(
                "{}: its index could not be read ({reason}): it begins anew, and the old one is kept as .syncline/{moved_to}",
                root.path().display()
            );
        }
        let snapshot = opened.index.snapshot()?;
        let mut sequencer = Sequencer {
            share,
            index: opened.index,
            snapshot,
            looks: Looks::default(),
            observing: Observing::begin(root, true, now),
            retries: Retries::default(),
            is_observed: false,
            hints: HashMap::new(),
            round_hints: HashMap::new(),
            unsettled: HashSet::new(),
            fresh: Vec::new(),
            stage: Stage::Resting,
            hashes: Hashes::default(),
            writes: mpsc::channel(),
            next_ticket: 0,
            asked: 0,
            covered: 0,
            round: 0,
            is_ready: false,
            broken: None,
            is_gone: false,
            listeners: HashSet::new(),
            witness: witness::Witness::default(),
        };
        sequencer.look_through(None);
        Ok(sequencer)
    }

    /// `path` may have changed: a commit of `author` gave it a new state. `content` is what the file of that
    /// identity contains.
    pub(crate) fn note(&mut self, path: &RelPath, content: Option<(Identity, ContentId)>, author: Option<DeviceId>) {
        let hint = Hint {
            content,
            author,
            is_commit: true,
            leaves: false,
        };
        self.witness
            .retract(path, content.as_ref().map(|(identity, _)| identity));
        self.hints.insert(path.clone(), hint);
        self.doubt(path);
    }

    /// `path` may be something else than the index says.
    pub(crate) fn doubt(&mut self, path: &RelPath) {
        self.asked += 1;
        self.looks.path(path);
    }

    /// Everything at and beneath a path may have changed; `None` is the whole share.
    pub(crate) fn look_through(&mut self, top: Option<RelPath>) {
        self.asked += 1;
        self.looks.tree(top);
    }

    /// What the index says of `path`.
    pub(crate) fn standing(&self, path: &RelPath) -> Result<Standing, IndexError> {
        if self.unsettled.contains(path) || self.looks.include(path) {
            return Ok(Standing::Unsettled);
        }
        Ok(Standing::Settled(self.snapshot.get(path)?.map(Box::new)))
    }

    /// Whether a ticket is of a job of this share.
    fn owns(&self, ticket: u64) -> bool {
        ticket & TICKET_MARKS == SEQUENCE_TICKET && (ticket & !TICKET_MARKS) >> 32 == self.share
    }

    fn ticket(&mut self) -> u64 {
        self.next_ticket += 1;
        SEQUENCE_TICKET | self.share << 32 | (self.next_ticket & 0xffff_ffff)
    }

    /// A bounded part of a round. Returns whether there is more to do at once.
    pub(crate) fn step(&mut self, place: &Place, shared: &mut Shared) -> bool {
        if self.broken.is_some() {
            return false;
        }
        let stepped = match self.stage {
            Stage::Resting => self.begin_round(),
            Stage::Looking => self.look(place, shared),
            Stage::Hashing => Ok(self.hash(place, shared)),
            Stage::Writing { .. } => Ok(false),
        };
        stepped.unwrap_or_else(|error| self.break_off(place, &error))
    }

    fn begin_round(&mut self) -> Result<bool, IndexError> {
        let goes_on = self.looks.is_amid();
        if !self.looks.begin() {
            return Ok(false);
        }
        if !goes_on {
            self.round = self.asked;
            self.round_hints = std::mem::take(&mut self.hints);
        }
        self.stage = Stage::Looking;
        Ok(true)
    }

    fn look(&mut self, place: &Place, shared: &mut Shared) -> Result<bool, IndexError> {
        let mut found = Vec::new();
        let room = ROUND_CHANGES_MAX.saturating_sub(self.fresh.len());
        let more = match room {
            0 => false,
            _ => self.looks.step(
                &place.root,
                &self.snapshot,
                &mut |path, shape| self.observing.keep(&place.root, path, shape),
                &mut found,
            )?,
        };
        for difference in found {
            // What was committed since the round began is seen by it already.
            if let Some((path, hint)) = difference.path().and_then(|path| self.hints.remove_entry(path)) {
                self.round_hints.insert(path, hint);
            }
            self.fresh.extend(of_difference(difference, &self.round_hints));
        }
        if more {
            return Ok(true);
        }
        // What was looked at alone and with the tree that it is in was seen twice: the last look counts.
        self.fresh.reverse();
        self.fresh.sort_by(|a, b| a.path.cmp(&b.path));
        self.fresh.dedup_by(|a, b| a.path == b.path);
        self.pass_over_left()?;
        for fresh in &self.fresh {
            self.unsettled.insert(fresh.path.clone());
        }
        self.stage = Stage::Hashing;
        Ok(self.hash(place, shared))
    }

    /// Has the helper thread hash what is not known. Returns whether there is more to do at once.
    fn hash(&mut self, place: &Place, shared: &mut Shared) -> bool {
        if self.hashes.is_running() {
            return false;
        }
        self.hashes.add(&place.root, &place.deltas, &mut self.fresh);
        if self.hashes.is_empty() {
            return self
                .write(place, shared)
                .unwrap_or_else(|error| self.break_off(place, &error));
        }
        let ticket = self.ticket();
        let is_taken = self.hashes.submit(shared, ticket);
        if !is_taken {
            // The thread has more to do than it can: this one read the files.
            self.hashes.collect(&mut self.fresh);
        }
        !is_taken
    }

    /// Gives the round its revisions, and has it written.
    fn write(&mut self, place: &Place, shared: &mut Shared) -> Result<bool, IndexError> {
        let mut fresh = std::mem::take(&mut self.fresh);
        if fresh.iter().any(|one| one.state.is_none()) && self.lost(place) {
            return Ok(false);
        }
        for one in fresh.iter_mut().filter(|one| one.is_new) {
            // Once its content is known, a file may turn out to be what it was.
            one.compare(self.snapshot.get(&one.path)?.as_ref());
        }
        self.confirm(place, &mut fresh)?;
        let mut revision = self.index.revision();
        let mut batch = Batch::new();
        let at = now();
        let mut paths: Vec<&Fresh> = fresh.iter().filter(|fresh| !fresh.is_put_off).collect();
        // Directories before what is in them.
        paths.sort_by(|a, b| a.path.cmp(&b.path));
        for fresh in paths {
            if fresh.is_new {
                revision = revision.next();
            }
            // What the first look finds was done at another time, by anybody.
            if fresh.is_new && !fresh.is_told && self.is_ready && place.activity.is_some() {
                self.witness.see(fresh, self.snapshot.get(&fresh.path)?.as_ref());
            }
            let record = Record {
                state: fresh.state.clone(),
                revision: if fresh.is_new { revision } else { fresh.revision },
                author: fresh.author,
                identity: fresh.identity,
                at,
            };
            batch.put(&fresh.path, &record);
        }
        for again in fresh.into_iter().filter(|fresh| fresh.is_put_off) {
            self.looks.later(&again.path);
        }
        if batch.is_empty() {
            self.end_round();
            return Ok(self.looks.is_waiting());
        }
        if revision > self.index.revision() {
            batch.set_mark(revision, random_mark());
        }
        let (index, sender) = (self.index.clone(), self.writes.0.clone());
        let ticket = self.ticket();
        let job: Job = Box::new(move || {
            // The receiver is gone only when the whole node is.
            let _ = sender.send(index.write(&batch));
            Ok(())
        });
        self.stage = Stage::Writing { ticket };
        if let Err(job) = shared.submit(ticket, job) {
            // The lane is full of commits: this thread waits for the disk once, rather than nobody ever.
            let _ = job();
            self.written();
            return Ok(true);
        }
        Ok(false)
    }

    /// Who committed something hears of it, also when somebody undid it before it was looked at: each commit gets
    /// a revision, of what stands there now.
    fn confirm(&mut self, place: &Place, fresh: &mut Vec<Fresh>) -> Result<(), IndexError> {
        let leaving = self.leaving(&place.root, fresh)?;
        for one in fresh.iter_mut() {
            if let Some(identity) = leaving.get(&one.path) {
                one.leave(*identity);
            }
            let hint = self.round_hints.remove(&one.path);
            one.is_told = hint.is_some_and(|hint| hint.is_commit);
            one.is_new |= one.is_told;
        }
        if self.looks.is_amid() {
            // The others are looked at in the next part of the round.
            return Ok(());
        }
        let hints = std::mem::take(&mut self.round_hints);
        for (path, hint) in hints.into_iter().filter(|(_, hint)| hint.is_commit) {
            let record = self.snapshot.get(&path)?;
            // What takes no part is there without a record.
            if record.is_none() && !matches!(place.root.find(&path), Ok(None)) {
                continue;
            }
            let identity = leaving.get(&path);
            let mut confirmed = Fresh::confirmed(path, record, hint.author);
            identity.into_iter().for_each(|identity| confirmed.leave(*identity));
            // A watch may be quicker than the note: then the very file that was published has its revision.
            confirmed.is_new = !hint.content.is_some_and(|content| confirmed.is_of(content));
            fresh.push(confirmed);
        }
        Ok(())
    }

    /// A job ended; whether it was one of this share's.
    pub(crate) fn completed(&mut self, place: &Place, shared: &mut Shared, ticket: u64) -> bool {
        if !self.owns(ticket) {
            return false;
        }
        if self.stage == (Stage::Writing { ticket }) {
            self.written();
        } else {
            self.hashes.collect(&mut self.fresh);
        }
        // The rest of it is for the timer, whose turns are bounded.
        self.step(place, shared);
        true
    }

    fn written(&mut self) {
        let result = self.writes.1.try_recv().unwrap_or(Err(IndexError::Closed));
        let refreshed = result.and_then(|()| self.index.snapshot());
        match refreshed {
            Ok(snapshot) => {
                self.snapshot = snapshot;
                self.end_round();
            }
            Err(error) => self.broken = Some(error.to_string()),
        }
    }

    fn end_round(&mut self) {
        self.unsettled.clear();
        self.fresh.clear();
        self.stage = Stage::Resting;
        if !self.looks.is_amid() {
            self.is_ready = true;
            self.covered = self.round;
        }
    }

    fn break_off(&mut self, place: &Place, error: &IndexError) -> bool {
        let path = place.root.path().display();
        log::error!("{path} cannot be kept in sync: {error}; restart the server");
        self.broken = Some(error.to_string());
        false
    }

    /// Whether `path` is at `based_on` and what was `found` there is what the index knows; then the root of the
    /// file. Else it is looked at.
    pub(crate) fn is_current(
        &mut self,
        path: &RelPath,
        based_on: Revision,
        found: Option<&Found>,
    ) -> Option<Option<[u8; 32]>> {
        let standing = self.standing(path).unwrap_or(Standing::Unsettled);
        if !standing.is_at(based_on) {
            return None;
        }
        let Standing::Settled(record) = standing else {
            return None;
        };
        if found.is_some_and(|found| leftover::is_left(record.as_deref(), found)) {
            // Somebody makes it anew: from now on it takes part.
            self.note(path, None, None);
            return Some(None);
        }
        let record = record.filter(|record| record.is_live());
        let is_it = match (&record, found) {
            (None, None) => true,
            (Some(record), Some(found)) => is_of(record, found),
            _ => false,
        };
        if !is_it {
            self.doubt(path);
            return None;
        }
        Some(record.and_then(|record| record.state).and_then(|state| state.root))
    }

    /// Whether a round goes on that waits for nobody.
    pub(crate) fn is_amid(&self) -> bool {
        self.stage == Stage::Looking || self.stage == Stage::Resting && self.looks.is_amid()
    }

    /// Whether there is something to look at.
    pub(crate) fn is_waiting(&self) -> bool {
        self.stage == Stage::Resting && self.looks.is_waiting()
    }

    /// Grows whenever an answer may be there.
    pub(crate) fn progress(&self) -> (u64, bool, bool) {
        (self.covered, self.is_ready, self.broken.is_some())
    }

    /// What the loop is to wait for, once.
    pub(crate) fn take_unobserved(&mut self) -> Option<BorrowedFd<'_>> {
        match std::mem::replace(&mut self.is_observed, true) {
            true => None,
            false => self.observing.descriptor(),
        }
    }

    /// The loop cannot wait for it.
    pub(crate) fn go_unwatched(&mut self) {
        self.observing.go_unwatched();
    }

    /// Something changed in the folder. Returns whether there is more to read at once.
    pub(crate) fn observe(&mut self, place: &Place, now: Tick) -> bool {
        let more = self.observing.read(&place.root, now);
        self.observed(place);
        more
    }

    fn observed(&mut self, place: &Place) {
        self.observing.tell_problems();
        if self.observing.is_gone() {
            self.lost(place);
        }
    }

    /// Somebody wants to know what is there: what changed a moment ago is not waited with.
    pub(crate) fn catch_up(&mut self, place: &Place, now: Tick) {
        self.observing.catch_up(&place.root, now, &mut self.looks);
        self.observed(place);
        self.ask_for_what_waits();
    }

    /// Whoever asks from now on has to wait for what is to be looked at.
    fn ask_for_what_waits(&mut self) {
        self.asked += u64::from(self.looks.is_waiting());
    }

    /// Whether the folder is no longer the one that the index is of. What is missing there is not deleted then.
    fn lost(&mut self, place: &Place) -> bool {
        let is_there = matches!(place.root.is_gone(), Ok(false)) && self.index.is_in_place();
        if !is_there && self.broken.is_none() {
            log::error!(
                "{} is gone, or its .syncline is, and it is not kept in sync any more",
                place.root.path().display()
            );
            self.broken = Some("its folder is gone".to_owned());
            self.is_gone = true;
        }
        !is_there
    }

    /// Takes what is quiet by now. Returns when to ask again.
    pub(crate) fn settle(&mut self, now: Tick) -> Tick {
        let due = self.observing.ripe(now, &mut self.looks);
        self.ask_for_what_waits();
        due
    }

    /// Writes down what was changed here, once it is certain that nobody sent it; or `all` of it.
    pub(crate) fn testify(&mut self, place: &Place, all: bool) {
        if let Some(activity) = &place.activity {
            self.witness.release(activity, all);
        }
    }

    /// The last durable revision.
    pub(crate) fn revision(&self) -> Revision {
        self.snapshot.revision()
    }

    /// Somebody is to be woken when there is something new.
    pub(crate) fn listen(&mut self, id: ConnId) {
        self.listeners.insert(id);
    }

    /// Somebody is gone.
    pub(crate) fn forget(&mut self, id: ConnId) {
        self.listeners.remove(&id);
    }

    /// Who is to be woken.
    pub(crate) fn listeners(&self) -> impl Iterator<Item = ConnId> + '_ {
        self.listeners.iter().copied()
    }
}

/// Whether what was found is what the record says.
fn is_of(record: &Record, found: &Found) -> bool {
    let Some(State { kind, .. }) = &record.state else {
        return false;
    };
    match (kind, found.kind) {
        (Kind::Directory, FoundKind::Directory) => true,
        (Kind::File { .. }, FoundKind::File { .. }) | (Kind::Symlink { .. }, FoundKind::Symlink) => {
            record.identity.is_some_and(|was| was.same_content(&found.identity))
        }
        _ => false,
    }
}

fn random_mark() -> u64 {
    // Without randomness a mark of nothing is as good as none: clients begin anew after a restored backup only.
    super::begin::random_seed().unwrap_or(0).max(1)
}

fn now() -> Timestamp {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp {
        seconds: since.as_secs().cast_signed(),
        nanos: since.subsec_nanos(),
    }
}
