//! What a client hears when it asks what changed.
//!
//! Invariant: a page never ends within a revision, and a client that was told of a revision is told of
//! everything up to it.

use super::{Sequencer, Standing};
use crate::model::limits::BATCH_ENTRIES_MAX;
use crate::model::{Epoch, Revision};
use crate::store::IndexError;
use crate::wire::{ChangesHead, ChangesWriter, Known, Since};

/// A page, and what to tell of it.
pub(crate) struct Page {
    pub(crate) head: ChangesHead,
    pub(crate) changes: ChangesWriter,
}

/// Ends a page that is not the last one: only the session that was given it may go on there.
pub(crate) const WITHIN: u64 = u64::MAX;

impl Sequencer {
    /// How many looks an answer has to wait for, when it is asked for now.
    pub(crate) fn asked(&self) -> u64 {
        self.asked
    }

    /// Why there will be no answer.
    pub(crate) fn broken(&self) -> Option<&str> {
        self.broken.as_deref()
    }

    /// Whether that is because the folder is gone.
    pub(crate) fn is_gone(&self) -> bool {
        self.is_gone
    }

    /// Whether the durable state includes all that was asked for by then.
    pub(crate) fn covers(&self, asked: u64) -> bool {
        self.is_ready && self.covered >= asked
    }

    /// The next page for a client; `paged` is where its session was given the last one that did not end.
    pub(crate) fn answer(&self, since: &Since, paged: Option<Revision>) -> Result<Page, IndexError> {
        let (known, snapshot) = (since.known, &self.snapshot);
        let goes_on = known.mark == WITHIN && paged == Some(known.revision) && known.epoch == snapshot.epoch();
        let is_known = goes_on || self.knows(&known)?;
        let from = if is_known { known.revision } else { Revision::NONE };
        let mut changes = ChangesWriter::default();
        let mut last = from;
        let mut more = false;
        for (path, record) in snapshot.changes_since(from, BATCH_ENTRIES_MAX)? {
            if !changes.has_room() {
                more = true;
                break;
            }
            changes.push(&path, record.revision, record.state.as_ref());
            last = record.revision;
        }
        more |= last != from && !snapshot.changes_since(last, 1)?.is_empty();
        let end = if more { last } else { snapshot.revision() };
        let mark = if more { WITHIN } else { snapshot.mark(end)?.unwrap_or(0) };
        let known = Known {
            epoch: snapshot.epoch(),
            revision: end,
            mark,
        };
        let head = ChangesHead {
            known,
            more,
            anew: !is_known,
            folds: false,
        };
        Ok(Page { head, changes })
    }

    /// Whether the index is the one that told this.
    fn knows(&self, known: &Known) -> Result<bool, IndexError> {
        let snapshot = &self.snapshot;
        if known.epoch != snapshot.epoch() || known.epoch == Epoch::default() || known.revision > snapshot.revision() {
            return Ok(false);
        }
        if known.revision == Revision::NONE {
            return Ok(true);
        }
        match snapshot.mark(known.revision)? {
            Some(mark) => Ok(mark == known.mark),
            // Marks are kept for long, not forever; what is older than all of them is believed.
            None => Ok(snapshot.first_mark()?.is_some_and(|(first, _)| known.revision < first)),
        }
    }
}

impl Standing {
    /// Whether something of `based_on` stands there. For nothing there is [`Revision::NONE`], and the revision of
    /// its tombstone for who knows of that.
    pub(crate) fn is_at(&self, based_on: Revision) -> bool {
        match self {
            Standing::Unsettled => false,
            Standing::Settled(None) => based_on == Revision::NONE,
            Standing::Settled(Some(record)) => {
                record.revision == based_on || !record.is_live() && based_on == Revision::NONE
            }
        }
    }
}
