//! How a client drives the rounds of its folder: which event goes where.
//!
//! Decides nothing of the sync itself. Invariant: without a folder to sync nothing here does anything.

use super::{Around, Stepped, Syncing};
use crate::conn::Event;
use crate::model::Fault;
use crate::node::client_node::ClientNode;
use crate::node::events::JobError;
use crate::node::peer::Session;
use crate::reactor::{Activity, ConnId, Context, Shared};

impl ClientNode {
    /// Runs `work` on the folder, if one is synced.
    fn with_sync<T>(&mut self, work: impl FnOnce(&mut Syncing, &mut Around<'_>) -> T) -> Option<T> {
        let mut sync = self.sync.take()?;
        let mut around = Around {
            core: &mut self.core,
            events: &mut self.events,
            deltas: &self.deltas,
            resumes: &self.resumes,
        };
        let result = work(&mut sync, &mut around);
        self.sync = Some(sync);
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
        let handled = self.with_sync(|sync, around| match event {
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

    fn connection(&self) -> Option<ConnId> {
        match self.phase {
            crate::node::client_node::Phase::Connected(id) => Some(id),
            _ => None,
        }
    }

    /// The connection is gone.
    pub(in crate::node) fn sync_broken(&mut self) {
        self.with_sync(|sync, _| sync.reset());
    }
}
