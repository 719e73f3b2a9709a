//! What a server does for those who keep a folder in sync: answers what changed, says when there is more, and
//! moves and removes things for them.
//!
//! Never blocks. Invariant: nothing that a client did not know of gives way to what it sends.

use super::altering::Altering;
use super::events::ServerEvent;
use super::ledger::{Audience, Ledger};
use super::leftover::Removed;
use super::peer::{Session, Transfer};
use super::place::Place;
use super::sequencer::{GATHER_MS, OBSERVE_TIMER, SEQUENCE_TIMER, Sequencer};
use super::server_node::ServerNode;
use super::slice::Slice;
use crate::model::{CloseCode, DeviceId, Fault, RelPath, Revision, Right, Tick};
use crate::reactor::{Activity, Context, Shared};
use crate::store::{FileError, Found, RunKind};
use crate::wire::{Alter, News, Since};
use std::rc::Rc;

/// What a connection that syncs waits for.
#[derive(Debug, Default)]
pub(crate) struct Following {
    /// A question, and how many looks its answer includes at least.
    asks: Option<(Since, u64)>,
    /// Where the last page ended that was not the last one.
    paged: Option<Revision>,
    /// The last revision that it was told of, if it wants to hear of newer ones.
    told: Option<Revision>,
}

/// Whether a path is still what somebody knows it to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Currency {
    /// It is; a file has this root.
    Current(Option<[u8; 32]>),
    Stale,
}

impl Place {
    /// Whether the path is at `based_on`, and what was `found` there is what the index knows.
    pub(crate) fn currency(&self, path: &RelPath, based_on: Revision, found: Option<&Found>) -> Currency {
        self.take_notices();
        let mut sequencer = self.sequencer.borrow_mut();
        let Some(sequencer) = sequencer.as_mut() else {
            return Currency::Stale;
        };
        match sequencer.is_current(path, based_on, found) {
            Some(root) => Currency::Current(root),
            None => {
                log::debug!("{path} is not what it was at revision {based_on}");
                Currency::Stale
            }
        }
    }

    /// What is above `path`, and it itself, may be something else than the index says.
    pub(crate) fn doubt(&self, path: &RelPath) {
        if let Some(sequencer) = self.sequencer.borrow_mut().as_mut() {
            let above = std::iter::successors(Some(path.clone()), RelPath::parent);
            above.for_each(|path| sequencer.doubt(&path));
        }
    }

    /// Removes what stands at `path` for `peer`, unless it is a directory that stays for what takes no part in it.
    pub(crate) fn take_away(&self, path: &RelPath, peer: Option<DeviceId>) -> Result<Removed, FileError> {
        self.take_notices();
        let keeping = self.keeping(peer);
        let mut sequencer = self.sequencer.borrow_mut();
        let sequencer = sequencer.as_mut().expect("who has something altered has begun it");
        sequencer.take_away(&self.root, path, keeping.as_ref(), peer)
    }

    /// Tells the sequencer what was done here.
    pub(super) fn take_notices(&self) -> bool {
        let mut sequencer = self.sequencer.borrow_mut();
        let mut notices = self.notices.borrow_mut();
        let (Some(sequencer), Some(notices)) = (sequencer.as_mut(), notices.as_mut()) else {
            return false;
        };
        for notice in notices.drain(..) {
            sequencer.note(&notice.path, notice.content, notice.author);
        }
        sequencer.is_waiting()
    }
}

impl ServerNode {
    /// A client asks what changed.
    pub(super) fn since(&mut self, cx: &mut Context<'_>, session: &mut Session, since: Since) -> Result<(), Fault> {
        let place = self.begin_sequence(session, cx.now())?;
        place.take_notices();
        let mut sequencer = place.sequencer.borrow_mut();
        let sequencer = sequencer.as_mut().expect("it has begun");
        sequencer.listen(cx.id());
        if session.following.is_none() {
            sequencer.catch_up(&place, cx.now());
        }
        if let (None, Some(index)) = (&session.following, session.share) {
            self.events.push(ServerEvent::SyncBegun {
                device: session.device,
                share: self.shares[index].name.clone(),
            });
        }
        let following = session.following.get_or_insert_default();
        following.asks = Some((since, sequencer.asked()));
        following.told = None;
        if since.watch {
            following.told = Some(Revision::NONE);
        }
        let now = cx.now();
        cx.set_timer(SEQUENCE_TIMER, now);
        Ok(())
    }

    /// From the first question on a place has an index.
    fn begin_sequence(&mut self, session: &mut Session, now: Tick) -> Result<Rc<Place>, Fault> {
        let (key, place) = self.place_of(session)?;
        if place.sequencer.borrow().is_some() {
            return Ok(place);
        }
        let share = session.share.and_then(|index| self.shares.get(index));
        if let Some(reason) = share.and_then(|share| share.read_only) {
            return Err(Fault::new(CloseCode::Forbidden, reason));
        }
        let begun = Sequencer::open(&place.root, key, now).map_err(|error| {
            log::error!("{}: {error}", place.root.path().display());
            Fault::new(
                CloseCode::Internal,
                "the index of this share cannot be opened; its server's log says why",
            )
        })?;
        *place.sequencer.borrow_mut() = Some(begun);
        *place.notices.borrow_mut() = Some(Vec::new());
        Ok(place)
    }

    /// What the connection waits for, if it is there.
    pub(super) fn follow(&mut self, session: &mut Session) -> Result<(), Fault> {
        if !session.follows() {
            return Ok(());
        }
        let (_, place) = self.place_of(session)?;
        let Some(following) = &mut session.following else {
            return Ok(());
        };
        let sequencer = place.sequencer.borrow();
        let Some(sequencer) = sequencer.as_ref() else {
            return Ok(());
        };
        if let Some(why) = sequencer.broken() {
            log::warn!("a client that syncs is sent away: {why}");
            if sequencer.is_gone() {
                return Err(Fault::new(CloseCode::Gone, "the folder of this share is gone"));
            }
            return Err(Fault::new(
                CloseCode::Internal,
                "the index of this share failed; its server's log says why",
            ));
        }
        if let Some((since, _)) = following.asks.take_if(|(_, asked)| sequencer.covers(*asked)) {
            let mut page = sequencer.answer(&since, following.paged).map_err(|error| {
                log::error!("{error}");
                Fault::new(
                    CloseCode::Internal,
                    "the index of this share cannot be read; its server's log says why",
                )
            })?;
            page.head.folds = place.root.folding().is_any();
            following.paged = page.head.more.then_some(page.head.known.revision);
            if let Some(told) = &mut following.told {
                *told = page.head.known.revision;
            }
            session.machine.changes(&page.head, page.changes);
        }
        let revision = sequencer.revision();
        if following.asks.is_none()
            && let Some(told) = &mut following.told
            && *told < revision
        {
            *told = revision;
            session.machine.news(&News { revision });
        }
        Ok(())
    }

    /// A client has things moved and removed.
    pub(super) fn alter(&mut self, cx: &mut Context<'_>, session: &mut Session, alter: Alter) -> Result<(), Fault> {
        let place = self.begin_sequence(session, cx.now())?;
        debug_assert!(session.machine.rights().allow(Right::Write));
        session.ledger = Ledger::new(Audience::Nobody);
        self.log_run(session, RunKind::Sync, cx.peer_addr().ip());
        let altering = Altering::new(cx.id(), place, session.device, alter);
        session.transfer = Some(Transfer::Altering(Box::new(altering)));
        self.core.committer.register(cx.id());
        Ok(())
    }

    /// Moves all sequencers on, as far as there is time. New looks wait a moment for others.
    pub(super) fn sequence(&mut self, shared: &mut Shared, is_due: bool) {
        let slice = Slice::begin();
        let mut again: Option<u64> = None;
        for (_, place) in self.places() {
            let is_waiting = place.take_notices();
            let mut sequencer = place.sequencer.borrow_mut();
            let Some(sequencer) = sequencer.as_mut() else { continue };
            if !is_due {
                again = again.or(is_waiting.then_some(GATHER_MS));
                continue;
            }
            place.root.forget_parents();
            let before = sequencer.progress();
            let mut more = true;
            while more && !slice.is_over() {
                more = sequencer.step(place, shared);
            }
            if more {
                again = Some(0);
            } else if let Some(due) = sequencer.retry(shared.now()) {
                let wait = due.since(shared.now());
                again = Some(again.map_or(wait, |again| again.min(wait)));
            }
            if sequencer.progress() != before {
                sequencer.listeners().for_each(|id| shared.wake(id));
            }
        }
        if let Some(wait) = again {
            shared.set_timer(SEQUENCE_TIMER, shared.now() + wait);
        }
    }

    /// The folder of the place with this key changed.
    pub(super) fn observed(&mut self, shared: &mut Shared, key: u64) -> Activity {
        let Some((_, place)) = self.places().find(|(of, _)| *of == key) else {
            return Activity::Idle;
        };
        let mut sequencer = place.sequencer.borrow_mut();
        let Some(sequencer) = sequencer.as_mut() else {
            return Activity::Idle;
        };
        let more = sequencer.observe(place, shared.now());
        shared.set_timer(OBSERVE_TIMER, shared.now());
        if more { Activity::More } else { Activity::Idle }
    }

    /// What was observed may be quiet by now.
    pub(super) fn settle_observed(&mut self, shared: &mut Shared) {
        let (mut next, mut is_waiting): (Option<Tick>, bool) = (None, false);
        for (_, place) in self.places() {
            let mut sequencer = place.sequencer.borrow_mut();
            let Some(sequencer) = sequencer.as_mut() else { continue };
            let due = sequencer.settle(shared.now());
            next = Some(next.map_or(due, |next| next.min(due)));
            is_waiting |= sequencer.is_waiting();
        }
        if is_waiting {
            shared.set_timer(SEQUENCE_TIMER, shared.now());
        }
        if let Some(next) = next {
            shared.set_timer(OBSERVE_TIMER, next.max(shared.now() + 1));
        }
    }

    /// What was changed on the shares' own disks is written down, as far as it is certain; or `all` of it.
    pub(super) fn testify(&self, all: bool) {
        for (_, place) in self.places() {
            if let Some(sequencer) = place.sequencer.borrow_mut().as_mut() {
                sequencer.testify(place, all);
            }
        }
    }

    /// A job ended; whether it was one of a sequencer.
    pub(super) fn sequenced(&mut self, shared: &mut Shared, ticket: u64) -> bool {
        for (_, place) in self.places() {
            place.take_notices();
            let mut sequencer = place.sequencer.borrow_mut();
            let Some(sequencer) = sequencer.as_mut() else { continue };
            if sequencer.completed(place, shared, ticket) {
                sequencer.listeners().for_each(|id| shared.wake(id));
                let wait = if sequencer.is_amid() { 0 } else { GATHER_MS };
                shared.set_timer(SEQUENCE_TIMER, shared.now() + wait);
                return true;
            }
        }
        false
    }

    /// A connection is gone, or its share is.
    pub(super) fn no_longer_follows(&mut self, id: crate::reactor::ConnId, session: &mut Session) {
        if session.follows()
            && let Ok((_, place)) = self.place_of(session)
            && let Some(sequencer) = place.sequencer.borrow_mut().as_mut()
        {
            sequencer.forget(id);
        }
    }
}
