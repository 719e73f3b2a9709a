//! Entries that are sent because a plan says so, each by itself and based on a revision.
//!
//! Reads nothing. Invariant: the content that is told of an entry afterwards is the one that was sent, of the
//! very state of the file that it was read from.

use super::ledger::Ledger;
use crate::conn::{Origin, Report, Sender, Settlement};
use crate::model::{ContentId, Entry, ItemCode, RelPath, Revision};
use crate::store::{Identity, SourceFile};
use std::collections::{HashMap, VecDeque};

/// An entry to send.
#[derive(Debug, Clone)]
pub(crate) struct Selection {
    pub(crate) entry: Entry,
    /// Root of its content, if it is known.
    pub(crate) root: Option<[u8; 32]>,
    /// What the receiver must still have there.
    pub(crate) based_on: Revision,
}

/// What became of one.
#[derive(Debug, Clone)]
#[cfg_attr(not(feature = "sync"), allow(dead_code, reason = "nobody takes them"))]
pub(crate) struct SentEntry {
    pub(crate) path: RelPath,
    /// Of a file whose content travelled: what it was, and what it contained.
    pub(crate) content: Option<(Identity, ContentId)>,
    pub(crate) result: Result<(), ItemCode>,
}

/// What a plan says is to be sent, and what became of it.
#[derive(Debug, Default)]
pub(crate) struct Selected {
    waiting: VecDeque<Selection>,
    /// What was sent of files that are not settled, by their numbers.
    sent: HashMap<u32, (Identity, ContentId)>,
    outcomes: Vec<SentEntry>,
}

impl Selected {
    #[cfg(feature = "sync")]
    pub(crate) fn new(list: Vec<Selection>) -> Selected {
        Selected {
            waiting: list.into(),
            ..Selected::default()
        }
    }

    /// Offers as much as there is room for. Returns whether all is offered.
    pub(super) fn offer(&mut self, sender: &mut Sender, ledger: &mut Ledger) -> bool {
        while sender.offer_room() > 0 {
            let Some(one) = self.waiting.pop_front() else {
                return true;
            };
            let origin = Origin {
                source: 0,
                path: one.entry.path.clone(),
            };
            if let crate::model::Kind::File { .. } = one.entry.kind {
                ledger.found();
            }
            sender.offer_based(&one.entry, one.root.as_ref(), Some(one.based_on), origin);
        }
        self.waiting.is_empty()
    }

    /// The file of that number was sent whole.
    pub(super) fn sent(&mut self, number: u32, file: &SourceFile, root: [u8; 32]) {
        let id = ContentId {
            length: file.size(),
            root,
        };
        self.sent.insert(number, (file.identity(), id));
    }

    /// The receiver has settled an entry.
    pub(super) fn settled(&mut self, report: &Report) {
        let result = match report.settlement {
            Settlement::Wanted(_) => return,
            Settlement::Committed(_) | Settlement::Answered(_) => Ok(()),
            Settlement::Failed(code) => Err(code),
        };
        self.outcomes.push(SentEntry {
            path: report.origin.path.clone(),
            content: self.sent.remove(&report.file),
            result,
        });
    }

    /// What became of entries since this was asked last.
    #[cfg(feature = "sync")]
    pub(crate) fn take_outcomes(&mut self) -> Vec<SentEntry> {
        std::mem::take(&mut self.outcomes)
    }
}
