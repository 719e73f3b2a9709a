//! The books of one transfer: figures for the summary, numbers for progress, events for the user.
//!
//! Both ends keep them alike, whichever way content flows; a server drops the events.

use super::events::{Action, ClientEvent, Progress, Summary};
use crate::model::{ItemCode, RelPath, escape};

/// Figures and events of one transfer.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) summary: Summary,
    pub(crate) progress: Progress,
    /// A file failed because a disk is full.
    pub(crate) disk_full: bool,
    events: Vec<ClientEvent>,
    audience: Audience,
}

/// Who hears of single entries.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Audience {
    /// Only figures are kept.
    #[default]
    Nobody,
    /// A user follows.
    User,
}

impl Ledger {
    pub(crate) fn new(audience: Audience) -> Ledger {
        Ledger {
            audience,
            ..Ledger::default()
        }
    }

    /// A file was listed.
    pub(crate) fn found(&mut self) {
        self.progress.files_found += 1;
    }

    /// The list is complete.
    pub(crate) fn list_ended(&mut self) {
        self.progress.total_known = true;
    }

    /// A file's content has to travel.
    pub(crate) fn wanted(&mut self, size: u64) {
        self.progress.bytes_found += size;
    }

    /// A file is there already.
    pub(crate) fn unchanged(&mut self, size: u64) {
        self.progress.files_done += 1;
        self.summary.files += 1;
        self.summary.bytes += size;
        self.summary.saved_bytes += size;
    }

    /// Content moved.
    pub(crate) fn moved(&mut self, bytes: u64) {
        self.progress.bytes_done += bytes;
        self.summary.literal_bytes += bytes;
    }

    /// Content was there already, in another version.
    pub(crate) fn matched(&mut self, bytes: u64) {
        self.skipped(bytes);
        self.summary.saved_bytes += bytes;
    }

    /// A hole moved, as a few bytes.
    pub(crate) fn skipped(&mut self, bytes: u64) {
        self.progress.bytes_done += bytes;
        self.summary.matched_bytes += bytes;
    }

    /// A file's content is settled.
    pub(crate) fn transferred(&mut self, size: u64) {
        self.progress.files_done += 1;
        self.summary.files += 1;
        self.summary.files_transferred += 1;
        self.summary.bytes += size;
    }

    /// Something was done with an entry.
    pub(crate) fn item(&mut self, path: &RelPath, action: Action, size: u64) {
        if action == Action::Deleted {
            self.summary.deleted += 1;
        }
        self.tell(|| ClientEvent::Item {
            path: path.clone(),
            action,
            size,
        });
    }

    /// An entry failed; the others go on.
    pub(crate) fn failed(&mut self, path: &[u8], code: ItemCode) {
        self.summary.failed += 1;
        self.disk_full |= code == ItemCode::DiskFull;
        self.tell(|| ClientEvent::Failed {
            path: escape(path),
            code,
            warning: false,
        });
    }

    /// A file that was counted as found failed.
    pub(crate) fn file_failed(&mut self, path: &RelPath, code: ItemCode) {
        self.progress.files_done += 1;
        self.failed(path.as_bytes(), code);
    }

    /// An entry is left out by design.
    pub(crate) fn left_out(&mut self, path: &[u8], code: ItemCode) {
        self.tell(|| ClientEvent::Failed {
            path: escape(path),
            code,
            warning: true,
        });
    }

    /// The events since the last call.
    pub(crate) fn take_events(&mut self) -> Vec<ClientEvent> {
        std::mem::take(&mut self.events)
    }

    fn tell(&mut self, event: impl FnOnce() -> ClientEvent) {
        if self.audience == Audience::User {
            self.events.push(event());
        }
    }
}
