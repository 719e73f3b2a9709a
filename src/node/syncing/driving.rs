//! How a client drives the rounds of its folder: which event goes where.
//!
//! Decides nothing of the sync itself. Invariant: without a folder to sync nothing here does anything.

use super::{Around, Stepped, Syncing};
use crate::conn::Event;
use crate::model::Fault;
use crate::node::client_node::ClientNode;
use crate::node::events::JobError;
use crate::node::peer::{Peer, Session};
use crate::node::sequencer::OBSERVE_TIMER;
use crate::reactor::{Activity, ConnId, Context, Reactor, Shared};
use crate::store::Side;

/// The timer after which what could not be done is tried again.
pub(in crate::node) const SYNC_RETRY_TIMER: u64 = 11;
/// The key of the folder's watch.
const FOLDER: u64 = 0;

impl ClientNode {
    /// Runs `work` on the folder, if one is synced.
    fn with_sync<T>(&mut self, work: impl FnOnce(&mut Syncing, &mut Around<'_>) -> T) -> Option<T> {
        self.with_sync_of(Side::Received, work)
    }

    /// As [`with_sync`](Self::with_sync), where what is told is about something that was done on this `side`.
    fn with_sync_of<T>(&mut self, side: Side, work: impl FnOnce(&mut Syncing, &mut Around<'_>) -> T) -> Option<T> {
        let mut sync = self.sync.take()?;
        let mut around = Around {
            core: &mut self.core,
            events: &mut self.events,
            deltas: &self.deltas,
            resumes: &self.resumes,
        };
        let told = around.events.len();
        let result = work(&mut sync, &mut around);
        sync.tell_events(&self.events[told..], side);
        self.sync = Some(sync);
        self.account(told);
        Some(result)
    }

    /// The share is open.
    pub(in crate::node) fn begin_sync(&mut self, session: &mut Session) -> Result<(), JobError> {
        self.with_sync(|sync, _| sync.begin(session)).unwrap_or(Ok(()))
    }

    /// Deals with an event of syncing; gives back any other.
    pub(in crate::node) fn sync_event<'a>(
        &mut self,
        cx: &mut Context<'_>,
        session: &mut Session,
        event: Event<'a>,
    ) -> Result<Option<Event<'a>>, Fault> {
        if self.sync.is_none() {
            return Ok(Some(event));
        }
        let side = match event {
            Event::Altered(_) => Side::Sent,
            _ => Side::Received,
        };
        let handled = self.with_sync_of(side, |sync, around| match event {
            Event::Changes(page) => sync.changes(session, page).map(|()| None),
            Event::News(news) => {
                sync.news(news.revision);
                Ok(None)
            }
            Event::Altered(altered) => {
                sync.altered(altered.outcomes, around);
                Ok(None)
            }
            Event::Ready(_) => {
                sync.ready(cx, session, around);
                Ok(None)
            }
            Event::Finished(_) => {
                sync.transfer_ended(cx, session, around);
                Ok(None)
            }
            other => Ok(Some(other)),
        });
        handled.unwrap_or(Ok(None))
    }

    /// Moves the folder on. Returns whether there is more to do at once.
    pub(in crate::node) fn step_sync(&mut self, cx: &mut Context<'_>, session: &mut Session) -> Activity {
        match self.with_sync(|sync, around| sync.step(cx, session, around)) {
            None => Activity::Idle,
            Some(Stepped::On(activity)) => activity,
            Some(Stepped::Over(result)) => {
                self.end(cx, session, result);
                Activity::Idle
            }
        }
    }

    /// A job of the helper thread ended; whether it was one of the folder's.
    pub(in crate::node) fn sync_completed(&mut self, shared: &mut Shared, ticket: u64) -> bool {
        let connection = self.connection();
        self.with_sync(|sync, _| sync.completed(shared, ticket, connection))
            .unwrap_or(false)
    }

    /// Has the loop wait for what changes in the folder.
    pub(in crate::node) fn observe(&mut self, reactor: &mut Reactor<Peer>) -> Result<(), JobError> {
        let descriptor = self.sync.as_ref().and_then(|sync| sync.observing.descriptor());
        if let Some(descriptor) = descriptor {
            reactor.watch(FOLDER, descriptor).map_err(|error| JobError::State {
                reason: format!("the folder cannot be watched: {error}"),
            })?;
            reactor.shared().wake_foreign(FOLDER);
        }
        Ok(())
    }

    fn connection(&self) -> Option<ConnId> {
        match self.phase {
            crate::node::client_node::Phase::Connected(id) => Some(id),
            _ => None,
        }
    }

    /// Something changed in the folder.
    pub(in crate::node) fn sync_observed(&mut self, shared: &mut Shared) -> Activity {
        let now = shared.now();
        let more = self.with_sync(|sync, _| sync.observing.read(&sync.place.root, now));
        shared.set_timer(OBSERVE_TIMER, now);
        if more.unwrap_or(false) {
            Activity::More
        } else {
            Activity::Idle
        }
    }

    /// What was observed may be quiet by now.
    pub(in crate::node) fn sync_settled(&mut self, shared: &mut Shared) {
        let now = shared.now();
        let due = self.with_sync(|sync, _| sync.observing.ripe(now, &mut sync.looks));
        if let Some(due) = due {
            shared.set_timer(OBSERVE_TIMER, due.max(now + 1));
        }
        if let Some(id) = self.connection() {
            shared.wake(id);
        }
    }

    /// What could not be done may work by now.
    pub(in crate::node) fn sync_again(&mut self, shared: &mut Shared) {
        self.with_sync(|sync, _| sync.retry());
        if let Some(id) = self.connection() {
            shared.wake(id);
        }
    }

    /// The connection is gone.
    pub(in crate::node) fn sync_broken(&mut self) {
        self.with_sync(|sync, _| sync.reset());
    }
}
