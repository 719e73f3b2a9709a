//! A folder that is kept in sync with a share: the rounds of a client.
//!
//! 1. The server is asked what changed since the revision that is known.
//! 2. The folder is compared with the base, which is what both sides last agreed on.
//! 3. `sync::plan` says what to do; files whose content has to be known for that are hashed first.
//! 4. It is carried out, in order, and what was agreed on enters the base.
//! 5. Again from 1, until there is nothing left to do. Our own changes come back from the server then.
//!
//! Holds no intent across a crash: the next round sees what is there. Invariant: the base never says more than
//! what is durable on this disk and was committed by the server.

mod acting;
mod awaiting;
mod base;
mod driving;
mod exchanging;
mod failing;
mod folder;
mod held;
mod left_behind;
mod pages;
mod pending;
mod planning;
mod rehearsing;
mod telling;

pub(super) use driving::SYNC_RETRY_TIMER;
pub(crate) use folder::Folder;
pub(crate) use folder::lock_of;
pub use folder::{FolderError, linked};
#[doc(hidden)]
pub use pages::rewritten_list;

use super::commit::Done;
use super::content::{Hashed, Hashing};
use super::deltas::Deltas;
use super::events::{ClientEvent, JobError};
use super::looking::Looks;
use super::observing::Observing;
use super::options::SyncOptions;
use super::peer::{Core, Session};
use super::place::Place;
use super::resumes::Resumes;
use super::sequencer::Writes;
use super::slice::Slice;
use crate::model::{Fault, ItemCode, RelPath, Revision, State};
use crate::reactor::{Activity, Context, Shared};
use crate::store::{Batch, Difference, Identity, Index, ShareLock, Snapshot};
use crate::sync::{Action, Conflict, Pending, Standing};
use crate::wire::{ChangesReader, Known, Since, features};
use awaiting::Awaited;
use exchanging::Exchange;
use held::{Held, Remotes};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::rc::Rc;

/// A folder in sync, or on its way there.
pub(crate) struct Syncing {
    place: Rc<Place>,
    _lock: ShareLock,
    options: SyncOptions,
    /// This device, as it stands in the names of conflict copies.
    device: String,
    index: Index,
    snapshot: Snapshot,
    /// What of the share is in the base.
    known: Known,
    /// What the server has told beyond that.
    told: Known,
    remote: Remotes,
    /// What collides, and what of that the server has told.
    held: Held,
    /// The index of the server is not the one that the base is of.
    is_anew: bool,
    local: BTreeMap<RelPath, Here>,
    /// Contents of local files that were read.
    roots: HashMap<RelPath, (Identity, [u8; 32])>,
    looks: Looks,
    observing: Observing,
    /// The folder could be seen whole.
    is_whole: bool,
    stage: Stage,
    hashing: Option<(RelPath, Hashing)>,
    to_hash: VecDeque<RelPath>,
    actions: VecDeque<Action>,
    exchange: Exchange,
    /// What was or is under way.
    pending: HashMap<RelPath, Pending>,
    /// Less of it is than was written down.
    has_dropped: bool,
    /// What the server has not told the revision of.
    awaited: Awaited,
    /// Some of that was lost: the base has to say so before anything is planned.
    is_reverted: bool,
    /// What follows when the base is written.
    after_writing: Stage,
    /// What actions of this plan made, by path.
    made: HashMap<RelPath, Identity>,
    batch: Batch,
    /// Directories whose names changed here.
    changed: BTreeSet<Option<RelPath>>,
    /// The actions of the last plan, and how many of them came to something.
    planned: usize,
    done: usize,
    rounds: u32,
    /// Rounds in a row that came to nothing.
    failures: u32,
    conflicts: Vec<Conflict>,
    writes: Writes,
    next_ticket: u64,
    /// A write of the base that is under way.
    writing: Option<u64>,
    /// Directories that are made durable right now.
    flushing: BTreeSet<Option<RelPath>>,
    /// What the server, or somebody else, was quicker with since something came of a round.
    outrun: BTreeMap<String, ItemCode>,
    /// What users were told of as failed, and did not come right since.
    failing: BTreeSet<String>,
    /// The server has said that there is more.
    news: bool,
    /// Why a look at the folder or the index failed.
    failure: Option<JobError>,
    telling: telling::Telling,
    /// Of a dry run, or a folder that was made for this one; the last to go.
    traces: Option<rehearsing::Traces>,
}

/// What stands at a path of the folder that is not what was agreed.
#[derive(Debug, Clone)]
enum Here {
    Found(State, Identity),
    Gone,
    Blocked,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Not connected.
    Away,
    /// What an earlier connection left to write is written.
    Opening,
    /// The server was asked.
    Asking,
    Looking,
    Hashing,
    Planning,
    Acting,
    /// Something is on its way.
    Exchanging,
    /// What was done here becomes durable.
    Flushing,
    /// The base is written.
    Writing,
    /// In sync, until something happens.
    Resting,
    Ended,
}

/// What a connection of a syncing client works with.
pub(crate) struct Around<'a> {
    pub(crate) core: &'a mut Core,
    pub(crate) events: &'a mut Vec<ClientEvent>,
    /// What is sent is remembered there.
    pub(crate) deltas: &'a Rc<Deltas>,
    pub(crate) resumes: &'a Rc<Resumes>,
}

/// How a step of it ended.
pub(crate) enum Stepped {
    /// There is more to do, or not for the moment.
    On(Activity),
    /// All is done.
    Over(Result<(), JobError>),
}

/// Marks the tickets of these jobs.
const SYNC_TICKET: u64 = 1 << 61;
/// Rounds without an end: somebody changes the folder all the time, and there is always a next run.
const ROUNDS_MAX: u32 = 50;

impl Syncing {
    /// The connection is open: a round begins.
    pub(crate) fn begin(&mut self, session: &mut Session) -> Result<(), JobError> {
        if session.machine.features() & features::SYNC == 0 {
            return Err(JobError::Unsupported {
                what: "to keep folders in sync",
            });
        }
        self.tell_of(session);
        self.observing.forget_rules();
        self.looks.tree(None);
        self.is_whole = true;
        self.told = self.known;
        self.remote = self.held.begin();
        self.is_anew = false;
        (self.rounds, self.failures, self.planned, self.done) = (0, 0, 0, 0);
        if let Some(notices) = self.place.notices.borrow_mut().as_mut() {
            notices.clear();
        }
        self.stage = Stage::Opening;
        Ok(())
    }

    /// The first look is at a base that holds all that was agreed.
    fn opening(&mut self, cx: &mut Context<'_>, session: &mut Session, around: &mut Around<'_>) -> Activity {
        if self.writing.is_some() {
            return Activity::Idle;
        }
        if self.batch.is_empty() && self.changed.is_empty() {
            self.ask(session);
        } else {
            self.after_writing = Stage::Opening;
            self.conclude(cx, around.core);
        }
        Activity::Idle
    }

    fn ask(&mut self, session: &mut Session) {
        self.stage = Stage::Asking;
        self.news = false;
        session.machine.since(&Since {
            known: self.told,
            watch: self.options.watch,
        });
    }

    /// The connection is gone: nothing that was on its way is certain.
    pub(crate) fn reset(&mut self) {
        self.stage = Stage::Away;
        self.actions.clear();
        self.exchange = Exchange::default();
        self.made.clear();
        self.local.clear();
        // What was agreed before the connection broke is still true, and is written before anything else.
        self.changed.append(&mut self.flushing);
        self.after_writing = Stage::Planning;
        self.looks = Looks::default();
        self.hashing = None;
        self.to_hash.clear();
    }

    /// A page of changes.
    pub(crate) fn changes(&mut self, session: &mut Session, mut page: ChangesReader<'_>) -> Result<(), Fault> {
        let head = page.head();
        self.held.folds_there = head.folds;
        if head.anew {
            self.remote.clear();
            // Who knew nothing has lost nothing.
            self.is_anew = self.known != Known::default();
        }
        self.note_epoch(&head.known);
        while let Some(change) = page.next_change().map_err(|error| Fault::protocol(error.to_string()))? {
            self.held.refused.clear();
            self.remote.insert(change.path, (change.state, change.revision));
        }
        self.told = head.known;
        if head.more {
            self.ask(session);
        } else {
            self.revisions_came();
            self.stage = Stage::Looking;
        }
        Ok(())
    }

    /// The server has more.
    pub(crate) fn news(&mut self, revision: Revision) {
        self.news |= revision > self.told.revision;
    }

    /// A bounded part of what is to do.
    pub(crate) fn step(&mut self, cx: &mut Context<'_>, session: &mut Session, around: &mut Around<'_>) -> Stepped {
        let stepped = match self.stage {
            Stage::Away | Stage::Asking | Stage::Writing | Stage::Ended => Ok(Activity::Idle),
            Stage::Opening => Ok(self.opening(cx, session, around)),
            Stage::Looking if std::mem::take(&mut self.is_reverted) => {
                self.after_writing = Stage::Looking;
                self.write(cx);
                Ok(if self.stage == Stage::Looking {
                    Activity::More
                } else {
                    Activity::Idle
                })
            }
            Stage::Looking => self.look(around),
            Stage::Hashing => Ok(self.hash(around)),
            Stage::Planning => self.plan(cx, session, around),
            Stage::Acting => self.act(cx, session, around),
            Stage::Exchanging => self.exchange_step(cx, session, around),
            Stage::Flushing => self.flushed(cx, around),
            Stage::Resting => {
                if self.news {
                    self.rounds = 0;
                    self.ask(session);
                } else if self.looks.is_waiting() {
                    self.rounds = 0;
                    self.stage = Stage::Looking;
                    return Stepped::On(Activity::More);
                }
                Ok(Activity::Idle)
            }
        };
        let stepped = match self.failure.take() {
            Some(error) => Err(error),
            None => stepped,
        };
        match stepped {
            Ok(_) if self.stage == Stage::Ended => Stepped::Over(Ok(())),
            Ok(activity) => Stepped::On(activity),
            Err(error) => Stepped::Over(Err(error)),
        }
    }

    fn look(&mut self, around: &mut Around<'_>) -> Result<Activity, JobError> {
        let slice = Slice::begin();
        self.place.root.forget_parents();
        let mut found = Vec::new();
        let goes_on = self.looks.is_amid();
        if !self.looks.begin() {
            self.stage = Stage::Planning;
            return Ok(Activity::More);
        }
        if !goes_on {
            let looks = &self.looks;
            self.local.retain(|path, _| !looks.cover(path));
        }
        let mut more = true;
        while more && !slice.is_over() {
            let root = &self.place.root;
            let keep = &mut |path: &RelPath, shape| self.observing.keep(root, path, shape);
            let stepped = self.looks.step(root, &self.snapshot, keep, &mut found);
            more = stepped.map_err(|error| self.base_error(&error))?;
        }
        for difference in found {
            self.differs(difference, around);
        }
        self.observing.tell_problems();
        if !more {
            self.is_whole = (self.is_whole || self.looks.was_everything()) && self.looks.was_complete();
            self.stage = Stage::Planning;
        }
        Ok(Activity::More)
    }

    fn differs(&mut self, difference: Difference, around: &mut Around<'_>) {
        match difference {
            Difference::Changed { entry, identity, .. } => {
                let state = State::of(&entry);
                self.local.insert(entry.path, Here::Found(state, identity));
            }
            Difference::Gone { path, .. } => {
                self.local.insert(path, Here::Gone);
            }
            Difference::Special(path) => {
                around.events.push(ClientEvent::Failed {
                    path: path.to_string(),
                    code: ItemCode::Special,
                    warning: true,
                });
                self.local.insert(path, Here::Blocked);
            }
            Difference::Failed(error) => {
                log::warn!("{error}");
                around.events.push(ClientEvent::Failed {
                    path: crate::model::escape(error.path()),
                    code: error.code(),
                    warning: false,
                });
                if let Ok(path) = RelPath::parse(error.path()) {
                    self.local.insert(path, Here::Blocked);
                }
            }
        }
    }

    /// Reads files whose content decides.
    fn hash(&mut self, around: &mut Around<'_>) -> Activity {
        let slice = Slice::begin();
        while !slice.is_over() {
            let Some((path, hashing)) = self.next_to_hash(around) else {
                self.stage = Stage::Planning;
                return Activity::More;
            };
            let identity = hashing.identity();
            match hashing.step(&mut around.core.scratch) {
                Hashed::More(hashing) => self.hashing = Some((path, *hashing)),
                Hashed::Done(id) => {
                    self.roots.insert(path, (identity, id.root));
                }
                Hashed::Failed => {
                    self.local.insert(path, Here::Blocked);
                }
            }
        }
        Activity::More
    }

    fn next_to_hash(&mut self, around: &mut Around<'_>) -> Option<(RelPath, Hashing)> {
        if let Some(begun) = self.hashing.take() {
            return Some(begun);
        }
        loop {
            let path = self.to_hash.pop_front()?;
            match self.place.root.open_file(&path) {
                Ok(file) => return Some((path, Hashing::new(file))),
                Err(error) => {
                    log::info!("{error}");
                    if error.code() != ItemCode::Vanished {
                        around.events.push(ClientEvent::Failed {
                            path: path.to_string(),
                            code: error.code(),
                            warning: false,
                        });
                    }
                    self.look_again(&path);
                    self.local.insert(path, Here::Blocked);
                }
            }
        }
    }

    /// How far absence can be believed.
    fn standing(&self) -> Standing {
        match (self.is_anew, self.is_whole) {
            (true, _) => Standing::NewEpoch,
            (false, true) => Standing::Whole,
            (false, false) => Standing::Partial,
        }
    }

    /// A job ended; whether it was one of these.
    pub(crate) fn completed(
        &mut self,
        shared: &mut Shared,
        ticket: u64,
        connection: Option<crate::reactor::ConnId>,
    ) -> bool {
        if ticket & SYNC_TICKET == 0 || ticket >> 62 != 0 {
            return false;
        }
        if self.writing == Some(ticket) {
            self.written();
        }
        if let Some(id) = connection {
            shared.wake(id);
        }
        true
    }

    /// What the helper thread has done for the folder.
    fn flushed(&mut self, cx: &mut Context<'_>, around: &mut Around<'_>) -> Result<Activity, JobError> {
        for done in around.core.committer.take_results(cx.id()) {
            let Done::Closed { durable, .. } = done else { continue };
            if durable.is_err() {
                return Err(JobError::Target {
                    path: self.place.root.path().display().to_string(),
                    reason: "what was done there could not be made durable".to_owned(),
                });
            }
            self.flushing.clear();
            self.write(cx);
        }
        Ok(Activity::Idle)
    }
}
