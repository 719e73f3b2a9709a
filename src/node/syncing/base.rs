//! What enters the base, and when.
//!
//! Invariant: a record's identity is one that was seen before what it stands for was agreed.

use super::{SYNC_TICKET, Stage, Syncing};
use crate::model::{RelPath, Revision, State, Timestamp};
use crate::node::commit::Closing;
use crate::node::events::JobError;
use crate::reactor::{Context, Job};
use crate::store::{Batch, Identity, IndexError, Record, Snapshot};
use crate::sync::{Agreed, Base};

/// The base as the planner sees it.
pub(super) struct Agreements<'a>(pub(super) &'a Snapshot);

impl Base for Agreements<'_> {
    fn agreed(&self, path: &RelPath) -> Option<Agreed> {
        // A base that cannot be read is told by whoever reads it next for itself.
        agreed_of(self.0.get(path).ok()??)
    }
}

pub(super) fn agreed_of(record: Record) -> Option<Agreed> {
    Some(Agreed {
        state: record.state?,
        revision: record.revision,
        file: record.identity.map_or(0, |identity| identity.inode()),
    })
}

impl Syncing {
    pub(super) fn base_error(&self, error: &IndexError) -> JobError {
        JobError::Target {
            path: self.place.root.path().display().to_string(),
            reason: format!("what it remembers of its share cannot be used: {error}"),
        }
    }

    /// Both sides have `state`, and here it is the file of `identity`.
    pub(super) fn agree(&mut self, path: &RelPath, state: State, revision: Revision, identity: Option<Identity>) {
        let record = Record {
            state: Some(state),
            revision,
            author: None,
            identity,
            at: Timestamp { seconds: 0, nanos: 0 },
        };
        self.batch.put(path, &record);
        self.held.believe(path);
        self.drop_pending(path);
        self.settled(path);
    }

    /// Nothing is agreed of the path.
    pub(super) fn forget(&mut self, path: &RelPath) {
        self.batch.remove(path);
        self.drop_pending(path);
        self.settled(path);
    }

    /// Something was done about the path: it is looked at again.
    pub(super) fn settled(&mut self, path: &RelPath) {
        self.done += 1;
        self.look_again(path);
    }

    pub(super) fn look_again(&mut self, path: &RelPath) {
        self.looks.path(path);
    }

    /// All actions are over: what was done becomes durable, then the base says so.
    pub(super) fn conclude(&mut self, cx: &mut Context<'_>, core: &mut crate::node::peer::Core) {
        if self.changed.is_empty() {
            return self.write(cx);
        }
        self.flushing = std::mem::take(&mut self.changed);
        let closing = Closing {
            metas: Vec::new(),
            changed: self.flushing.iter().cloned().collect(),
            own: None,
        };
        core.committer.register(cx.id());
        core.committer.close(&self.place, cx.id(), closing);
        core.committer.pump(cx);
        self.stage = Stage::Flushing;
    }

    /// Has the base written.
    pub(super) fn write(&mut self, cx: &mut Context<'_>) {
        self.write_pending();
        self.write_awaited();
        let batch: Batch = std::mem::take(&mut self.batch);
        self.next_ticket += 1;
        let ticket = SYNC_TICKET | self.next_ticket;
        let (index, sender) = (self.index.clone(), self.writes.0.clone());
        let job: Job = Box::new(move || {
            // The receiver is gone only when the whole client is.
            let _ = sender.send(index.write(&batch));
            Ok(())
        });
        self.stage = Stage::Writing;
        self.writing = Some(ticket);
        if let Err(job) = cx.submit(ticket, job) {
            let _ = job();
            self.written();
        }
    }

    pub(super) fn written(&mut self) {
        self.writing = None;
        let result = self.writes.1.try_recv().unwrap_or(Err(IndexError::Closed));
        match result.and_then(|()| self.index.snapshot()) {
            Ok(snapshot) => {
                self.snapshot = snapshot;
                // Unless the connection broke meanwhile.
                if self.stage == Stage::Writing {
                    self.stage = std::mem::replace(&mut self.after_writing, Stage::Planning);
                }
            }
            Err(error) => self.failure = Some(self.base_error(&error)),
        }
    }
}
