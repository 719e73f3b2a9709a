//! The activity log of one folder: what is worth a line, and how many of them.
//!
//! Never waits for the disk. Invariant: what one run says is bounded, so that it cannot drive out all that was said
//! before it; what is left out is counted.

use super::deeds::Deed;
use crate::model::limits::ACTIVITY_ITEMS_MAX;
use crate::model::{ItemCode, escape};
#[cfg(feature = "sync")]
use crate::store::Change;
use crate::store::{ActivityLine, ActivityReader, ActivityWriter, Happened, Root, RunFigures, RunKind, Side, Who};
use std::cell::RefCell;
use std::collections::HashMap;
use std::time::{SystemTime, UNIX_EPOCH};

/// The log of one folder, for those who work on it in this process.
#[derive(Debug)]
pub(crate) struct Activity {
    root: Root,
    book: RefCell<Book>,
}

#[derive(Debug)]
struct Book {
    writer: ActivityWriter,
    /// What failed for whom: how, and when that was told.
    failures: HashMap<(String, String), (String, u64)>,
    /// What earlier processes told of failures is known.
    is_seeded: bool,
}

/// What runs: a transfer of a client, a folder in sync, or those who work at the server's own disk.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) who: Who,
    pub(crate) figures: RunFigures,
    /// Entries that may still be listed, and of those that fail.
    left: u64,
    failures_left: u64,
    /// Entries that were not listed since somebody was told how many.
    untold: u64,
    /// When something was done last.
    last_ms: u64,
    /// Failures that were not told before.
    pub(crate) news: u64,
}

/// Until a failure that goes on is told again.
const AGAIN_MS: u64 = 24 * 3600 * 1000;
/// Failures that are remembered; past that all are forgotten.
const FAILURES_MAX: usize = 1024;
/// Failures of one run that are listed; far fewer than are remembered, so that those of the next run are known.
const FAILURES_LISTED_MAX: u64 = 100;
/// Bytes of the log that are read for failures that were told already.
const SEED_BYTES: u64 = 64 * 1024;
/// After so long without anything a run may list as much again.
const QUIET_MS: u64 = 60 * 1000;

impl Activity {
    pub(crate) fn new(root: &Root) -> Activity {
        let book = Book {
            writer: ActivityWriter::new(root),
            failures: HashMap::new(),
            is_seeded: false,
        };
        Activity {
            root: root.share(),
            book: RefCell::new(book),
        }
    }

    /// The same, for a command that works beside others.
    #[cfg(feature = "sync")]
    pub(crate) fn beside(root: &Root) -> Activity {
        let activity = Activity::new(root);
        activity.book.borrow_mut().writer = ActivityWriter::beside(root);
        activity
    }

    /// Has a line written, with the others of this turn.
    pub(crate) fn note(&self, who: &Who, happened: Happened<'_>) {
        self.note_at(now_ms(), who, happened);
    }

    fn note_at(&self, at_ms: u64, who: &Who, happened: Happened<'_>) {
        self.book
            .borrow_mut()
            .writer
            .append(&ActivityLine { at_ms, who, happened });
    }

    /// A turn is over: hands its lines to the system.
    pub(crate) fn write(&self) {
        self.book.borrow_mut().writer.write();
    }

    /// Writes down what was done in a run. `side` is where it came from, in a synced folder.
    pub(crate) fn note_deeds(&self, running: &mut Running, deeds: &[Deed], side: Option<Side>) {
        if !deeds.is_empty() {
            self.note_deeds_of(now_ms(), running, deeds, side);
        }
    }

    /// As [`note_deeds`](Self::note_deeds), of what was done at another time.
    pub(crate) fn note_deeds_of(&self, now: u64, running: &mut Running, deeds: &[Deed], side: Option<Side>) {
        if running.is_rested(now) {
            self.settle(running, now);
        }
        for deed in deeds {
            match deed {
                Deed::Failed { path, code } => self.note_failure(now, running, path, *code),
                done => {
                    self.works_again(done.path(), &running.who);
                    running.figures.changes += 1;
                    if running.may_list(now) {
                        self.note_at(now, &running.who, happened(deed, side));
                    }
                }
            }
        }
    }

    fn note_failure(&self, now: u64, running: &mut Running, path: &str, code: ItemCode) {
        running.figures.failed += 1;
        if running.failures_left == 0 {
            running.leave_out(now);
            return;
        }
        running.failures_left -= 1;
        if self.is_news(path, &running.who, code.name()) {
            running.news += 1;
            if running.may_list(now) {
                self.note_at(now, &running.who, Happened::Failed { path, code });
            }
        }
    }

    /// Whether it is the first time within a day that a run is said not to have come to its end for this reason.
    pub(crate) fn is_end_news(&self, who: &Who, reason: &str) -> bool {
        self.is_news("", who, reason)
    }

    /// A run came to its end.
    pub(crate) fn ends_again(&self, who: &Who) {
        self.works_again(b"", who);
    }

    fn is_news(&self, path: &str, who: &Who, reason: &str) -> bool {
        let mut book = self.book.borrow_mut();
        let now = now_ms();
        if !std::mem::replace(&mut book.is_seeded, true) {
            // What works again may be among the lines of this turn.
            book.writer.write();
            book.seed(&self.root);
        }
        let key = (path.to_owned(), who.name.clone());
        let known = book.failures.get(&key);
        if known.is_some_and(|(was, at)| was == reason && now.saturating_sub(*at) < AGAIN_MS) {
            return false;
        }
        book.remember(key, reason, now);
        true
    }

    fn works_again(&self, path: &[u8], who: &Who) {
        self.book.borrow_mut().works_again(|| escape(path), &who.name);
    }

    /// Tells how many entries a run did not list, and lets it list as many again.
    fn settle(&self, running: &mut Running, now: u64) {
        self.tell_rest(running, now);
        (running.left, running.failures_left) = (ACTIVITY_ITEMS_MAX, FAILURES_LISTED_MAX);
    }

    /// Tells how many entries were not listed, if any were.
    pub(crate) fn tell_rest(&self, running: &mut Running, now: u64) {
        let entries = std::mem::take(&mut running.untold);
        if entries > 0 {
            self.note_at(now, &running.who, Happened::Unlisted { entries });
        }
    }
}

impl Book {
    /// What was told of failures before this process began.
    fn seed(&mut self, root: &Root) {
        // A log that cannot be read tells a failure twice.
        let Ok(latest) = ActivityReader::latest(root, SEED_BYTES) else {
            return;
        };
        for entry in latest {
            let who = entry.field("who").unwrap_or_default();
            let key = |path: &str| (path.to_owned(), who.to_owned());
            match (entry.event(), entry.field("path")) {
                ("error", Some(path)) => {
                    let reason = entry.field("code").unwrap_or_default();
                    self.remember(key(path), reason, entry.at_ms());
                }
                ("run", None) => match entry.field("reason") {
                    Some(reason) => self.remember(key(""), reason, entry.at_ms()),
                    None => self.works_again(String::new, who),
                },
                (_, Some(path)) => self.works_again(|| path.to_owned(), who),
                (_, None) => {}
            }
        }
    }

    /// What failed here is told under the name of this machine, whoever gets it done in the end.
    fn works_again(&mut self, path: impl Fn() -> String, who: &str) {
        if !self.failures.is_empty() {
            for name in [who, "here"] {
                self.failures.remove(&(path(), name.to_owned()));
            }
        }
    }

    fn remember(&mut self, key: (String, String), reason: &str, at_ms: u64) {
        if self.failures.len() >= FAILURES_MAX {
            self.failures.clear();
        }
        self.failures.insert(key, (reason.to_owned(), at_ms));
    }
}

impl Running {
    pub(crate) fn new(kind: RunKind, who: Who) -> Running {
        Running {
            who,
            figures: RunFigures::new(kind, now_ms()),
            left: ACTIVITY_ITEMS_MAX,
            failures_left: FAILURES_LISTED_MAX,
            untold: 0,
            last_ms: 0,
            news: 0,
        }
    }

    /// Whether nothing was done for so long that what comes next is another matter.
    fn is_rested(&self, now: u64) -> bool {
        let has_listed = self.left < ACTIVITY_ITEMS_MAX || self.failures_left < FAILURES_LISTED_MAX;
        has_listed && now.saturating_sub(self.last_ms) >= QUIET_MS
    }

    fn may_list(&mut self, now: u64) -> bool {
        self.last_ms = now;
        let may = self.left > 0;
        match may {
            true => self.left -= 1,
            false => self.leave_out(now),
        }
        may
    }

    fn leave_out(&mut self, now: u64) {
        self.last_ms = now;
        self.untold += 1;
        self.figures.unlisted += 1;
    }

    /// Bytes of memory that it takes, about.
    pub(crate) fn held_bytes(&self) -> usize {
        size_of::<Running>() + self.who.name.len()
    }
}

fn happened(deed: &Deed, side: Option<Side>) -> Happened<'_> {
    match deed {
        Deed::Done { path, what, size } => Happened::Item {
            change: *what,
            path,
            size: *size,
            side,
        },
        #[cfg(feature = "sync")]
        Deed::Moved { from, to } => Happened::Item {
            change: Change::Moved { from: from.as_ref() },
            path: to,
            size: None,
            side,
        },
        Deed::Conflict { path, copy } => Happened::Conflict {
            path,
            copy: copy.as_ref(),
        },
        Deed::Failed { path, code } => Happened::Failed { path, code: *code },
    }
}

/// The present in milliseconds since 1970, by the wall clock.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::Done;
    use super::*;
    use crate::model::RelPath;
    use crate::store::ActivityEntry;

    fn lines(root: &Root) -> Vec<ActivityEntry> {
        let mut lines = Vec::new();
        let mut reader = ActivityReader::open(root).unwrap().unwrap();
        reader.each(&mut |entry| lines.push(entry)).unwrap();
        lines
    }

    fn done(path: &str) -> Deed {
        Deed::Done {
            path: RelPath::parse(path.as_bytes()).unwrap(),
            what: Done::Created,
            size: Some(1),
        }
    }

    fn failed(path: &str, code: ItemCode) -> Deed {
        let path = path.to_owned();
        Deed::Failed { path, code }
    }

    // Protects the log from a run of a million entries: it lists so many, and counts the others.
    #[test]
    fn a_large_run_does_not_drive_out_the_rest() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        let activity = Activity::new(&root);
        let mut running = Running::new(RunKind::Push, Who::here());
        let deeds: Vec<Deed> = (0..ACTIVITY_ITEMS_MAX + 7)
            .map(|number| done(&number.to_string()))
            .collect();
        activity.note_deeds(&mut running, &deeds, None);
        activity.write();
        assert_eq!(lines(&root).len() as u64, ACTIVITY_ITEMS_MAX);
        assert_eq!(
            (running.figures.changes, running.figures.unlisted),
            (ACTIVITY_ITEMS_MAX + 7, 7)
        );
        assert!(!running.is_rested(running.last_ms + QUIET_MS - 1) && running.is_rested(running.last_ms + QUIET_MS));
        activity.settle(&mut running, 5);
        activity.note_deeds(&mut running, &deeds[..1], None);
        activity.write();
        let lines = lines(&root);
        let told = &lines[ACTIVITY_ITEMS_MAX as usize];
        assert_eq!((told.event(), told.number("entries")), ("unlisted", Some(7)));
        assert_eq!(lines.len() as u64, ACTIVITY_ITEMS_MAX + 2);
    }

    // Protects the log from what fails every minute: told once, until it changes, works, or a day is over.
    #[test]
    fn a_failure_that_goes_on_is_told_once() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        let told = |deeds: &[Deed]| {
            // Another process each time.
            let before = ActivityReader::open(&root).unwrap().map_or(0, |_| lines(&root).len());
            let activity = Activity::new(&root);
            let mut running = Running::new(RunKind::Push, Who::here());
            activity.note_deeds(&mut running, deeds, None);
            activity.write();
            lines(&root).len() - before
        };
        assert_eq!(
            told(&[failed("a", ItemCode::Permission), failed("a", ItemCode::Permission)]),
            1
        );
        assert_eq!(told(&[failed("a", ItemCode::Permission)]), 0);
        assert_eq!(told(&[failed("b", ItemCode::Permission)]), 1);
        assert_eq!(told(&[failed("a", ItemCode::DiskFull)]), 1);
        assert_eq!(told(&[done("a"), failed("a", ItemCode::DiskFull)]), 2);
        assert_eq!(told(&[done("a")]), 1);
        assert_eq!(told(&[failed("a", ItemCode::DiskFull)]), 1);
        let many: Vec<Deed> = (0..5000)
            .map(|number| failed(&format!("m{number}"), ItemCode::Io))
            .collect();
        assert_eq!((told(&many), told(&many)), (FAILURES_LISTED_MAX as usize, 0));
        let activity = Activity::new(&root);
        assert!(activity.is_end_news(&Who::here(), "away") && !activity.is_end_news(&Who::here(), "away"));
        activity.ends_again(&Who::here());
        assert!(activity.is_end_news(&Who::here(), "away"));
        let key = (String::new(), "here".to_owned());
        activity.book.borrow_mut().remember(key, "away", now_ms() - AGAIN_MS);
        assert!(activity.is_end_news(&Who::here(), "away"));
    }
}
