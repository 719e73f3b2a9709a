//! The books of one transfer: figures for the summary, numbers for progress, events for the user.
//!
//! Both ends keep them alike, whichever way content flows; a server drops the events. Files go by their
//! numbers; what is kept of one is kept from its start until it is settled, so it is bounded by the window.
//! Invariant: what travelled counts when it travels, what was saved only when its file is committed: an
//! attempt that comes to nothing saves nothing.

use super::activity::{Deed, Done, Thing};
use super::events::{Action, ClientEvent, Figures, Moving, Progress, Summary};
use crate::model::{ItemCode, RelPath, escape};
use std::collections::HashMap;

/// Figures and events of one transfer.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) summary: Summary,
    pub(crate) progress: Progress,
    /// A file failed because a disk is full.
    pub(crate) disk_full: bool,
    /// Bytes that were there of files that started, settled or not.
    pub(crate) resumed_bytes: u64,
    /// Files that were started and are not settled.
    open: HashMap<u32, Open>,
    /// The one that was started last.
    current: u32,
    events: Vec<ClientEvent>,
    /// What was done since somebody wrote it down; `None`: nobody does.
    deeds: Option<Vec<Deed>>,
    /// Of these, only what failed: what the other side got changes nothing here.
    only_failures: bool,
    audience: Audience,
    /// Of `summary.failed`, how many for which reason.
    failures: Vec<(ItemCode, u64)>,
}

/// A file that was started.
#[derive(Debug, Default)]
struct Open {
    figures: Figures,
    resumed_bytes: u64,
    /// Bytes that count as done, in this attempt.
    done: u64,
    /// It is written into the file that is there.
    in_place: bool,
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

    /// Bytes of memory that it takes beside itself, about.
    pub(crate) fn held_bytes(&self) -> usize {
        self.open.capacity() * size_of::<(u32, Open)>()
            + self.events.capacity() * size_of::<ClientEvent>()
            + self.deeds.as_ref().map_or(0, Vec::capacity) * size_of::<Deed>()
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
        self.summary.unchanged_bytes += size;
    }

    /// A file starts to travel. What an earlier attempt at it did is void, but for what travelled.
    pub(crate) fn started(&mut self, file: u32, path: &RelPath) {
        self.progress.current = Some(Box::new(Moving::new(path)));
        self.current = file;
        let open = self.open.entry(file).or_default();
        self.progress.bytes_done -= open.done.min(self.progress.bytes_done);
        *open = Open {
            figures: Figures {
                literal_bytes: open.figures.literal_bytes,
                ..Figures::default()
            },
            resumed_bytes: 0,
            done: 0,
            in_place: false,
        };
    }

    /// Content of a started file moved.
    pub(crate) fn moved(&mut self, file: u32, bytes: u64) {
        self.summary.literal_bytes += bytes;
        if let Some(moving) = self.moving(file) {
            moving.literal += bytes;
        }
        if let Some(open) = self.done(file, bytes) {
            open.figures.literal_bytes += bytes;
        }
    }

    /// Content of a started file was there already, in another version.
    pub(crate) fn matched(&mut self, file: u32, bytes: u64) {
        if let Some(moving) = self.moving(file) {
            moving.saved += bytes;
        }
        if let Some(open) = self.done(file, bytes) {
            open.figures.matched_bytes += bytes;
            open.figures.saved_bytes += bytes;
        }
    }

    /// The beginning of a started file is there, from an earlier attempt.
    pub(crate) fn resumed(&mut self, file: u32, bytes: u64) {
        self.resumed_bytes += bytes;
        if let Some(moving) = self.moving(file) {
            moving.resumed = bytes;
        }
        if let Some(open) = self.done(file, bytes) {
            open.resumed_bytes += bytes;
        }
    }

    /// A hole in a started file moved, as a few bytes.
    pub(crate) fn skipped(&mut self, file: u32, bytes: u64) {
        if let Some(open) = self.done(file, bytes) {
            open.figures.matched_bytes += bytes;
        }
    }

    /// What is shown of `file`, if it is the one that is shown.
    fn moving(&mut self, file: u32) -> Option<&mut Moving> {
        self.progress.current.as_deref_mut().filter(|_| file == self.current)
    }

    fn done(&mut self, file: u32, bytes: u64) -> Option<&mut Open> {
        let open = self.open.get_mut(&file)?;
        open.done += bytes;
        self.progress.bytes_done += bytes;
        Some(open)
    }

    /// A started file is going to be changed where it lies.
    pub(crate) fn changes_in_place(&mut self, file: u32) {
        self.open.entry(file).or_default().in_place = true;
    }

    /// A file's content is settled.
    pub(crate) fn transferred(&mut self, file: u32, path: &RelPath, action: Action, size: u64) {
        let Open {
            figures,
            resumed_bytes,
            in_place,
            ..
        } = self.open.remove(&file).unwrap_or_default();
        let done = match (in_place, action) {
            (true, _) => Done::ChangedInPlace,
            (false, Action::Created) => Done::Created,
            (false, _) => Done::Replaced,
        };
        self.did(path, done, Some(size));
        self.summary.resumed_bytes += resumed_bytes;
        self.progress.files_done += 1;
        self.summary.files += 1;
        self.summary.files_transferred += 1;
        self.summary.bytes += size;
        self.summary.matched_bytes += figures.matched_bytes;
        self.summary.saved_bytes += figures.saved_bytes;
        self.item_with(path, action, size, figures);
    }

    /// Something was done with an entry that no content travelled for.
    pub(crate) fn entry(&mut self, path: &RelPath, action: Action, thing: Thing, size: u64) {
        if let Some(done) = thing.done(action) {
            self.did(path, done, (thing == Thing::File).then_some(size));
        }
        self.item(path, action, size);
    }

    /// A version that nobody expected at `path` is kept as `copy`.
    pub(crate) fn displaced(&mut self, path: &RelPath, copy: &RelPath) {
        self.deed(|| Deed::Conflict {
            path: path.clone(),
            copy: Some(copy.clone()),
        });
        self.item(copy, Action::Created, 0);
    }

    /// An entry got another name.
    #[cfg(feature = "sync")]
    pub(crate) fn moved_to(&mut self, from: &RelPath, to: &RelPath) {
        self.deed(|| Deed::Moved {
            from: Some(from.clone()),
            to: to.clone(),
        });
    }

    /// Has what is done written down by somebody, who asks [`Ledger::take_deeds`].
    pub(crate) fn keep_deeds(&mut self) {
        self.deeds.get_or_insert_default();
    }

    /// As [`Ledger::keep_deeds`], for what failed.
    pub(crate) fn keep_failures(&mut self) {
        self.keep_deeds();
        self.only_failures = true;
    }

    /// What was done since the last call.
    pub(crate) fn take_deeds(&mut self) -> Vec<Deed> {
        self.deeds.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// What was done with an entry, for the log only.
    pub(crate) fn did(&mut self, path: &RelPath, what: Done, size: Option<u64>) {
        self.deed(|| Deed::Done {
            path: path.clone(),
            what,
            size,
        });
    }

    fn deed(&mut self, deed: impl FnOnce() -> Deed) {
        if let (Some(deeds), false) = (&mut self.deeds, self.only_failures) {
            deeds.push(deed());
        }
    }

    /// Something was done with an entry.
    pub(crate) fn item(&mut self, path: &RelPath, action: Action, size: u64) {
        if action == Action::Deleted {
            self.summary.deleted += 1;
        }
        let saved_bytes = if action == Action::Touched { size } else { 0 };
        let figures = Figures {
            saved_bytes,
            ..Figures::default()
        };
        self.item_with(path, action, size, figures);
    }

    fn item_with(&mut self, path: &RelPath, action: Action, size: u64, figures: Figures) {
        self.tell(|| ClientEvent::Item {
            path: path.clone(),
            action,
            size,
            figures,
        });
    }

    /// An entry failed; the others go on.
    pub(crate) fn failed(&mut self, path: &[u8], code: ItemCode) {
        self.summary.failed += 1;
        match self.failures.iter_mut().find(|(known, _)| *known == code) {
            Some((_, count)) => *count += 1,
            None => self.failures.push((code, 1)),
        }
        self.disk_full |= code == ItemCode::DiskFull;
        if let Some(deeds) = &mut self.deeds {
            deeds.push(Deed::Failed {
                path: escape(path),
                code,
            });
        }
        self.tell(|| ClientEvent::Failed {
            path: escape(path),
            code,
            warning: false,
        });
    }

    /// A file that was counted as found failed.
    pub(crate) fn file_failed(&mut self, file: u32, path: &RelPath, code: ItemCode) {
        self.open.remove(&file);
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

    /// The figures of a transfer that is over, and the reasons of what failed.
    pub(crate) fn take_figures(&mut self) -> (Summary, Vec<(ItemCode, u64)>) {
        (std::mem::take(&mut self.summary), std::mem::take(&mut self.failures))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn path() -> RelPath {
        RelPath::parse(b"f").unwrap()
    }

    /// A patch that came out wrong and was sent again whole saved nothing, and counts once as done.
    #[test]
    fn an_attempt_that_came_to_nothing_saves_nothing() {
        let mut ledger = Ledger::new(Audience::User);
        ledger.wanted(1000);
        ledger.started(3, &path());
        ledger.moved(3, 10);
        ledger.matched(3, 990);
        let current = |ledger: &Ledger| {
            let moving = ledger.progress.current.as_ref().unwrap();
            (moving.saved, moving.literal)
        };
        assert_eq!(current(&ledger), (990, 10));
        ledger.started(3, &path());
        assert_eq!((ledger.progress.bytes_done, current(&ledger)), (0, (0, 0)));
        ledger.moved(3, 1000);
        ledger.transferred(3, &path(), Action::Replaced, 1000);
        let summary = &ledger.summary;
        assert_eq!((summary.literal_bytes, summary.matched_bytes), (1010, 0));
        assert_eq!((summary.saved_bytes, ledger.progress.bytes_done), (0, 1000));
        let figures = Figures {
            literal_bytes: 1010,
            ..Figures::default()
        };
        let events = ledger.take_events();
        assert!(matches!(&events[..], [ClientEvent::Item { figures: found, .. }] if *found == figures));
        assert!(ledger.open.is_empty());
    }

    /// What delta saves and what was there already are in one figure, and can be told apart; a file that
    /// failed is in neither.
    #[test]
    fn savings_are_counted_when_their_file_is_settled() {
        let mut ledger = Ledger::default();
        ledger.unchanged(500);
        for file in [1, 2] {
            ledger.started(file, &path());
            ledger.matched(file, 90);
            ledger.skipped(file, 7);
        }
        assert_eq!(ledger.summary.saved_bytes, 500);
        ledger.transferred(1, &path(), Action::Replaced, 97);
        ledger.file_failed(2, &path(), ItemCode::Io);
        let summary = &ledger.summary;
        assert_eq!((summary.saved_bytes, summary.unchanged_bytes), (590, 500));
        assert_eq!((summary.delta_saved_bytes(), summary.matched_bytes), (90, 97));
        assert!(ledger.open.is_empty());
    }
}
