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
use syncline::node::{Action, ClientEvent, Figures, JobError, Outcome, Progress, Summary};
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
    /// Nothing is done.
    pub(crate) is_dry: bool,
    /// A link was given: this may be the first time.
    pub(crate) introduced: bool,
    /// The share is the folder of this peer.
    pub(crate) peer: Option<String>,
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
    /// What a dry run would do in the share, and here.
    planned: [u64; 2],
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
            planned: [0; 2],
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
            ClientEvent::Planned {
                path,
                action,
                size,
                is_here,
            } => self.planned(&path, action, size, is_here),
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

    fn planned(&mut self, path: &RelPath, action: Action, size: u64, is_here: bool) {
        self.planned[usize::from(is_here)] += 1;
        let (console, figures) = (self.console, Figures::default());
        let side = if is_here { "here" } else { "share" };
        let text = report::item_text(path, action, size, figures, Run::Dry);
        console.data(&format!("{side}: {text}"));
        let mut object = report::item_object(path, action, size, figures);
        if let Some(object) = object.as_object_mut() {
            object.insert("dry_run".into(), true.into());
            object.insert("side".into(), side.into());
        }
        console.object(&object);
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
        let is_kept = if self.parties.is_dry { "would be" } else { "is" };
        let kept = match copy {
            Some(copy) => format!("yours {is_kept} kept as {copy}"),
            None => format!("yours {is_kept} kept among the versions"),
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
            (0, 0, _) if self.parties.is_dry => Exit::Done,
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
        if self.parties.is_dry {
            return self.rehearsed(&mark, summary);
        }
        let mut parts = match self.in_sync {
            Some(entries) => vec![format!("{mark} {} in sync", quantity::counted(entries, "entry"))],
            None if summary.failed > 0 => vec![format!("{mark} not in sync yet")],
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

    /// `✓ dry run: 2 changes would be made here and 1 in the share; nothing was done`.
    fn rehearsed(&self, mark: &str, summary: &Summary) -> String {
        let changes = |count: u64| quantity::counted(count, "change");
        let mut parts = vec![match self.planned {
            [0, 0] => "nothing would be done".to_owned(),
            [there, 0] => format!("{} would be made in the share; nothing was done", changes(there)),
            [0, here] => format!("{} would be made here; nothing was done", changes(here)),
            [there, here] => format!(
                "{} would be made here and {} in the share; nothing was done",
                changes(here),
                quantity::count(there)
            ),
        }];
        let others = [
            (self.conflicts, "conflict"),
            (self.collisions, "name collision"),
            (summary.failed, "failure"),
        ];
        let others = others.into_iter().filter(|(count, _)| *count > 0);
        parts.extend(others.map(|(count, what)| quantity::counted(count, what)));
        format!("{mark} dry run: {}", parts.join(" · "))
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
        if let Some(peer) = &self.parties.peer {
            // It watches unless it is told otherwise.
            let flag = flag.trim_start_matches("--watch");
            let space = if flag.is_empty() { "" } else { " " };
            return format!("syncline peer {folder} --with {}{mode}{space}{flag}", quoted(peer));
        }
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
#[path = "sync_report_tests.rs"]
mod tests;
