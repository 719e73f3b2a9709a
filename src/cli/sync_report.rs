//! What a sync says: who with, what was carried over, conflicts, and how it ended.
//!
//! Never decides anything but the words and the exit code. Invariant: of a watch that is in sync there is one line for
//! each time that something was carried over, and none when nothing was.

use super::collision;
use super::complaint::Complaint;
use super::console::{Console, Format, Verbosity};
use super::exit::Exit;
use super::progress::Display;
use super::quantity;
use super::report::{self, Run, plain};
use super::session::Ending;
use super::transfer::{greeting, queued, retrying, tell_connected};
use super::versions::quoted;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Instant;
use syncline::model::{ItemCode, RelPath};
use syncline::node::{ClientEvent, JobError, Outcome, Progress, Summary};
use syncline::sync::Mode;

/// The folder and its share, in words.
#[derive(Debug, Clone)]
pub(crate) struct Parties {
    /// The folder as it was given.
    pub(crate) folder: String,
    /// The share's name.
    pub(crate) share: String,
    /// Which follows which.
    pub(crate) mode: Mode,
    /// It goes on when it is in sync.
    pub(crate) watch: bool,
    /// A link was given: this may be the first time.
    pub(crate) introduced: bool,
}

/// Turns the events of a sync into output. One lives as long as the command, whatever connections there are.
pub(crate) struct SyncReport<'a> {
    console: &'a Console,
    parties: Parties,
    display: Display,
    /// What was said of who is synced with whom.
    is_presented: bool,
    /// The server cannot be reached, and the user knows.
    pub(crate) is_away: bool,
    /// Entries with which something was done, and the first of them, since it was in sync last.
    items: u64,
    first: Option<String>,
    /// The same since the beginning.
    all_items: u64,
    failed: BTreeMap<String, ItemCode>,
    warned: BTreeMap<String, ItemCode>,
    conflicts: u64,
    collisions: u64,
    /// Entries that are the same on both sides, once they are.
    pub(crate) in_sync: Option<u64>,
    /// Files and bytes that were done when it said so last, since it was in sync.
    seen: Option<(u64, u64)>,
}

/// More lines than this are a wall, not a report.
const LISTED_MAX: usize = 20;

impl<'a> SyncReport<'a> {
    /// For a run that begins now.
    pub(crate) fn new(console: &'a Console, parties: Parties, now: Instant) -> SyncReport<'a> {
        SyncReport {
            console,
            parties,
            display: Display::new(now),
            is_presented: false,
            is_away: false,
            items: 0,
            first: None,
            all_items: 0,
            failed: BTreeMap::new(),
            warned: BTreeMap::new(),
            conflicts: 0,
            collisions: 0,
            in_sync: None,
            seen: None,
        }
    }

    /// Says what happened.
    pub(crate) fn handle(&mut self, event: ClientEvent, now: Instant) {
        let console = self.console;
        match event {
            ClientEvent::Connected {
                server,
                name,
                paired,
                first_use,
            } => {
                self.present(greeting(server, &name, paired, first_use));
                tell_connected(console, server, &name, paired, first_use);
            }
            ClientEvent::Retrying { attempt, wait, reason } if !self.is_away => {
                retrying(console, attempt, wait, &reason);
            }
            ClientEvent::Queued { position, estimate } => queued(console, position, estimate),
            ClientEvent::Item {
                path,
                action,
                size,
                figures,
            } => {
                self.items += 1;
                self.all_items += 1;
                let name = path.to_string();
                self.failed.remove(&name);
                self.first.get_or_insert(name);
                if console.verbosity() >= Verbosity::Items {
                    console.data(&report::item_text(&path, action, size, figures, Run::Real));
                }
                console.object(&report::item_object(&path, action, size, figures));
            }
            ClientEvent::Failed { path, code, warning } => self.failed(&path, code, warning),
            ClientEvent::Conflict { path, copy } => self.conflict(&path, copy.as_ref()),
            ClientEvent::Collision { path, with, is_here } => self.collision(&path, with.as_ref(), is_here),
            ClientEvent::InSync { entries, revision } => self.in_sync(entries, revision.0),
            ClientEvent::Progress(progress) => self.progress(&progress, now),
            ClientEvent::Retrying { .. }
            | ClientEvent::Mapped(_)
            | ClientEvent::Status(_)
            | ClientEvent::Finished(_) => {}
        }
    }

    fn present(&mut self, greeting: Option<String>) {
        let console = self.console;
        if self.is_presented {
            if std::mem::take(&mut self.is_away) {
                console.note("connected again");
            }
            return;
        }
        self.is_presented = true;
        self.is_away = false;
        let Parties {
            folder, share, mode, ..
        } = &self.parties;
        let arrow = match mode {
            Mode::TwoWaySafe | Mode::TwoWayResolved => "<->",
            Mode::OneWaySafe | Mode::OneWayReplica => "->",
            Mode::ReceiveOnly => "<-",
        };
        let greeting = greeting.map_or_else(String::new, |greeting| greeting + " ");
        console.note(&format!("{greeting}Syncing {folder} {arrow} {share}"));
        console.object(&json!({
            "event": "status", "state": "syncing", "folder": folder, "share": share, "watch": self.parties.watch,
        }));
    }

    fn failed(&mut self, path: &str, code: ItemCode, warning: bool) {
        let list = if warning { &mut self.warned } else { &mut self.failed };
        if list.insert(path.to_owned(), code) != Some(code) {
            self.console.object(&report::failure_object(path, code, warning));
        }
    }

    fn conflict(&mut self, path: &RelPath, copy: Option<&RelPath>) {
        self.conflicts += 1;
        let console = self.console;
        let kept = match copy {
            Some(copy) => format!("yours is kept as {copy}"),
            None => "yours is kept among the versions".to_owned(),
        };
        let mut object = report::path_fields(path.as_bytes());
        object.insert("event".into(), "status".into());
        object.insert("state".into(), "conflict".into());
        object.insert("copy".into(), copy.map(ToString::to_string).into());
        let line = format!(
            "{} {path} was changed on both sides; {kept}",
            console.yellow("conflict:")
        );
        console.failure(&line, &Value::Object(object));
    }

    fn collision(&mut self, path: &RelPath, with: Option<&RelPath>, is_here: bool) {
        self.collisions += 1;
        let console = self.console;
        let line = format!(
            "{} {}",
            console.yellow("collision:"),
            collision::text(path, with, is_here)
        );
        console.failure(&line, &collision::object(path, with, is_here));
    }

    /// Whether something was carried over since it was in sync last.
    pub(crate) fn is_news(&self, entries: u64) -> bool {
        self.items > 0 || self.in_sync != Some(entries)
    }

    /// Entries with which something was done since the beginning, conflicts too.
    pub(crate) fn changes(&self) -> u64 {
        self.all_items + self.conflicts
    }

    fn in_sync(&mut self, entries: u64, revision: u64) {
        let console = self.console;
        console.clear();
        let is_news = self.is_news(entries);
        self.in_sync = Some(entries);
        self.seen = None;
        if !is_news {
            return;
        }
        console.object(&json!({
            "event": "status", "state": "in_sync", "entries": entries, "revision": revision, "items": self.items,
        }));
        if self.parties.watch {
            self.list_failures();
            let carried = match (self.items, &self.first) {
                (0, _) | (_, None) => String::new(),
                (1, Some(first)) => format!("{first} · "),
                (items, Some(first)) => format!("{first} and {} more · ", quantity::count(items - 1)),
            };
            let mark = console.green("✓");
            console.note(&format!(
                "{mark} {carried}{} in sync",
                quantity::counted(entries, "entry")
            ));
            self.failed.clear();
            self.warned.clear();
        }
        self.items = 0;
        self.first = None;
    }

    fn progress(&mut self, progress: &Progress, now: Instant) {
        let console = self.console;
        let state = (progress.files_done, progress.bytes_done);
        let before = self.seen.replace(state);
        // A connection that rests goes on telling where it stands.
        if self.in_sync.is_some() && before.is_none_or(|before| before == state) {
            return;
        }
        if progress.files_found > 0 {
            self.display.handle(console, progress, now);
        } else if console.can_redraw() {
            let Parties { folder, share, .. } = &self.parties;
            console.draw([&format!("comparing {folder} with {share}…"), ""]);
        }
    }

    /// Says how it ended.
    pub(crate) fn finish(&mut self, outcome: Outcome) -> Result<Ending, Complaint> {
        let console = self.console;
        console.clear();
        let mut summary = outcome.summary;
        self.list_failures();
        summary.failed = summary.failed.max(self.failed.len() as u64);
        match outcome.result {
            Ok(()) => {
                let exit = self.exit(&summary);
                console.note(&self.closing(exit, &summary));
                Ok(Ending { exit, summary })
            }
            Err(error @ JobError::Interrupted { .. }) if self.parties.watch && self.in_sync.is_some() => {
                console.note(&format!(
                    "stopped, state saved: {} goes on from here",
                    self.command("--watch")
                ));
                Ok(Ending {
                    exit: Exit::of_job(&error),
                    summary,
                })
            }
            Err(error) => Err(self.complaint(&error, summary)),
        }
    }

    fn exit(&self, summary: &Summary) -> Exit {
        match (summary.failed, self.conflicts + self.collisions, self.in_sync) {
            (1.., _, _) => Exit::Partial,
            (0, 1.., _) => Exit::Conflicts,
            (0, 0, Some(_)) => Exit::Done,
            (0, 0, None) => Exit::Temporary,
        }
    }

    /// `✓ 9,881 entries in sync · 5.2 GiB received in 31 s · next: syncline sync ~/Share --watch`.
    fn closing(&self, exit: Exit, summary: &Summary) -> String {
        let console = self.console;
        let mark = match exit {
            Exit::Done => console.green("✓"),
            _ => console.yellow("!"),
        };
        let mut parts = match self.in_sync {
            Some(entries) => vec![format!("{mark} {} in sync", quantity::counted(entries, "entry"))],
            None => vec![format!("{mark} not in sync yet: something kept changing")],
        };
        if summary.failed > 0 {
            parts.push(format!("{} failed", quantity::count(summary.failed)));
        }
        if self.conflicts > 0 {
            parts.push(quantity::counted(self.conflicts, "conflict"));
        }
        if self.collisions > 0 {
            parts.push(quantity::counted(self.collisions, "name collision"));
        }
        if self.all_items == 0 {
            parts.push(format!("nothing had changed · {}", quantity::duration(summary.elapsed)));
        } else {
            parts.push(quantity::counted(self.all_items, "change"));
            parts.push(traffic(summary));
            parts.extend(report::delta_saved(summary));
        }
        match exit {
            Exit::Conflicts => parts.push(format!("next: syncline conflicts {}", quoted(&self.parties.folder))),
            Exit::Temporary => parts.push(format!("next: {} once more", self.command(""))),
            Exit::Done if self.parties.introduced && !self.parties.watch => {
                parts.push(format!("next: {}", self.command("--watch")));
            }
            _ => {}
        }
        parts.join(" · ")
    }

    fn complaint(&self, error: &JobError, summary: Summary) -> Complaint {
        let complaint = Complaint::from(error.clone());
        let folder = &self.parties.folder;
        let (what, advice) = match error {
            JobError::MassDelete { deletions, existing } => (
                format!(
                    "nothing was done: {} of {} would be deleted",
                    quantity::count(*deletions),
                    quantity::counted(*existing, "entry")
                ),
                format!(
                    "look whether {folder} and the share are complete (a disk that is not mounted?); if they shall go: \
                     {}",
                    self.command(&format!("--max-delete {deletions}"))
                ),
            ),
            JobError::Interrupted { .. } => (
                complaint.what,
                format!("state is saved: {} goes on from here", self.command("")),
            ),
            JobError::Unsupported { .. } => (
                complaint.what,
                "update syncline on the server; until then, push and pull work with it".to_owned(),
            ),
            _ => (complaint.what, complaint.advice),
        };
        Complaint {
            exit: complaint.exit,
            what,
            advice,
            summary: Box::new(summary),
        }
    }

    /// The command line of this sync, with one more flag.
    fn command(&self, flag: &str) -> String {
        let folder = quoted(&self.parties.folder);
        let mode = match self.parties.mode {
            Mode::TwoWaySafe => "",
            Mode::TwoWayResolved => " --mode two-way-resolved",
            Mode::OneWaySafe => " --mode one-way-safe",
            Mode::OneWayReplica => " --mode one-way-replica",
            Mode::ReceiveOnly => " --mode receive-only",
        };
        let space = if flag.is_empty() { "" } else { " " };
        format!("syncline sync {folder}{mode}{space}{flag}")
    }

    /// Items are listed for people only: scripts have had an object for each.
    fn list_failures(&self) {
        let console = self.console;
        let lists = [
            (&self.warned, console.yellow("left out:"), Verbosity::Normal),
            (&self.failed, console.red("failed:"), Verbosity::Quiet),
        ];
        for (list, title, from) in lists {
            if list.is_empty() || console.format() == Format::Json || console.verbosity() < from {
                continue;
            }
            let shown = list.iter().take(LISTED_MAX);
            let mut lines: Vec<String> = shown
                .map(|(path, code)| format!("  {}", report::failure_text(path, *code)))
                .collect();
            if list.len() > LISTED_MAX {
                let more = quantity::count((list.len() - LISTED_MAX) as u64);
                lines.push(format!("  and {more} more (--json lists them all)"));
            }
            console.failure(&format!("{title}\n{}", lines.join("\n")), &Value::Null);
        }
    }
}

/// `5.2 GiB received in 31 s`, and what went the other way unless it hardly counts.
fn traffic(summary: &Summary) -> String {
    let (sent, received) = (summary.wire_sent, summary.wire_received);
    let text = |bytes: u64, verb: &str| format!("{} {verb}", quantity::size(bytes));
    let mut parts = [(received, "received"), (sent, "sent")];
    parts.sort_by_key(|(bytes, _)| std::cmp::Reverse(*bytes));
    let mut shown = text(parts[0].0, parts[0].1);
    if parts[1].0 >= parts[0].0 / 100 {
        shown = format!("{shown}, {}", text(parts[1].0, parts[1].1));
    }
    plain(&format!("{shown} in {}", quantity::duration(summary.elapsed)))
}

#[cfg(test)]
mod tests {
    use super::super::console::capture;
    use super::*;
    use syncline::model::Revision;
    use syncline::node::{Action, Figures};

    fn parties(watch: bool) -> Parties {
        Parties {
            folder: "my share".to_owned(),
            share: "Share".to_owned(),
            mode: Mode::TwoWaySafe,
            watch,
            introduced: true,
        }
    }

    fn item(name: &str) -> ClientEvent {
        ClientEvent::Item {
            path: RelPath::parse(name.as_bytes()).unwrap(),
            action: Action::Created,
            size: 1,
            figures: Figures::default(),
        }
    }

    fn in_sync(entries: u64) -> ClientEvent {
        ClientEvent::InSync {
            entries,
            revision: Revision(7),
        }
    }

    fn ended(result: Result<(), JobError>) -> Outcome {
        Outcome {
            summary: Summary::default(),
            result,
            come_back: None,
        }
    }

    // Protects whoever reads the log of a watch: one line for each change set, none for looks that found nothing.
    #[test]
    fn a_watch_says_one_line_for_what_was_carried_over_together() {
        let (console, _, err) = capture::console(Format::Text, Verbosity::Normal);
        let mut report = SyncReport::new(&console, parties(true), Instant::now());
        let events = [
            in_sync(2),
            in_sync(2),
            item("a"),
            item("b"),
            in_sync(4),
            in_sync(4),
            item("c"),
            in_sync(4),
        ];
        for event in events {
            report.handle(event, Instant::now());
        }
        let interrupted = JobError::Interrupted { signal: Some(2) };
        let ending = report.finish(ended(Err(interrupted))).unwrap();
        assert_eq!(ending.exit.code(), 130);
        assert_eq!(
            err.text(),
            "✓ 2 entries in sync\n✓ a and 1 more · 4 entries in sync\n✓ c · 4 entries in sync\n\
             stopped, state saved: syncline sync 'my share' --watch goes on from here\n"
        );
    }

    // Protects scripts from taking a run for done that was not: what failed, conflicts, and no end in sight.
    #[test]
    fn the_code_is_that_of_the_worst_that_happened() {
        let conflict = ClientEvent::Conflict {
            path: RelPath::parse(b"a").unwrap(),
            copy: None,
        };
        let failed = || ClientEvent::Failed {
            path: "b".to_owned(),
            code: ItemCode::Permission,
            warning: false,
        };
        for (events, code) in [
            (vec![in_sync(1)], 0),
            (vec![conflict.clone(), in_sync(1)], 4),
            (vec![failed(), conflict, in_sync(1)], 3),
            (vec![failed(), item("b"), in_sync(1)], 0),
            (vec![item("b")], 5),
        ] {
            let (console, ..) = capture::console(Format::Text, Verbosity::Normal);
            let mut report = SyncReport::new(&console, parties(false), Instant::now());
            for event in events.clone() {
                report.handle(event, Instant::now());
            }
            assert_eq!(report.finish(ended(Ok(()))).unwrap().exit.code(), code, "{events:?}");
        }
    }

    // Protects scripts: every line of a `--json` run is an object that says what it is.
    #[test]
    fn conflicts_and_failures_are_objects_once_each() {
        let (console, out, err) = capture::console(Format::Json, Verbosity::Normal);
        let mut report = SyncReport::new(&console, parties(false), Instant::now());
        let path = RelPath::parse(b"a").unwrap();
        let copy = Some(path.clone());
        report.handle(ClientEvent::Conflict { path, copy }, Instant::now());
        for _ in 0..2 {
            report.failed("b", ItemCode::Permission, false);
        }
        report.handle(in_sync(1), Instant::now());
        report.finish(ended(Ok(()))).unwrap();
        let objects: Vec<Value> = out
            .text()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let told: Vec<_> = objects
            .iter()
            .map(|object| (object["event"].as_str().unwrap(), object["state"].as_str()))
            .collect();
        assert_eq!(
            told,
            [
                ("status", Some("conflict")),
                ("error", None),
                ("status", Some("in_sync"))
            ]
        );
        assert_eq!(err.text(), "");
    }

    // Protects from advice that does not fit: a server without sync is no matter of flags.
    #[test]
    fn a_server_without_sync_is_a_sentence_and_what_to_do() {
        let (console, ..) = capture::console(Format::Text, Verbosity::Normal);
        let mut report = SyncReport::new(&console, parties(false), Instant::now());
        let error = JobError::Unsupported {
            what: "to keep folders in sync",
        };
        let complaint = report.finish(ended(Err(error))).unwrap_err();
        assert_eq!(complaint.exit.code(), 1);
        assert!(complaint.what.contains("to keep folders in sync"), "{}", complaint.what);
        assert!(
            complaint.advice.contains("update syncline on the server"),
            "{}",
            complaint.advice
        );
    }

    #[test]
    fn what_went_the_other_way_is_told_unless_it_hardly_counts() {
        let mut summary = Summary {
            wire_received: 5 << 30,
            wire_sent: 4096,
            ..Summary::default()
        };
        assert_eq!(traffic(&summary), "5.0 GiB received in 0.00 s");
        summary.wire_sent = 6 << 30;
        assert_eq!(traffic(&summary), "6.0 GiB sent, 5.0 GiB received in 0.00 s");
    }
}
