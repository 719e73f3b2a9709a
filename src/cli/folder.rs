//! `unlink`, `pause`, `resume` and `diff` of a synced folder, and what `status` says of one.
//! Never touches a file of the folder.

use super::complaint::Complaint;
use super::exit::Exit;
use super::quantity;
use super::report::{path_fields, plain};
use super::session::{Ending, Session};
use super::versions::quoted;
use clap::Args;
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use syncline::model::{Entry, Kind, RelPath};
use syncline::node::{History, LocalChange, Summary, SyncedFolder};
use syncline::store::LastRun;

/// The operand of `unlink`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
The folder forgets its share and what was agreed with it. No file is deleted, here or there, and the versions
stay. When it is synced again, both sides are joined as for the first time: what was deleted meanwhile on one side
comes back from the other.")]
pub(crate) struct UnlinkFlags {
    /// The synced folder
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

/// The operand of `pause` and `resume`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  syncline pause ~/Share     nothing is carried over; a `sync --watch` of it waits
  syncline resume ~/Share    what was changed meanwhile, on either side, is carried over")]
pub(crate) struct PauseFlags {
    /// The synced folder
    #[arg(value_name = "DIR", default_value = ".")]
    folder: PathBuf,
}

/// The operand of `diff`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Lists what was changed here since the last sync: + new, ~ changed, . only mode or time, - deleted, > moved. The
share is not asked, and no content is read.")]
pub(crate) struct DiffFlags {
    /// The synced folder
    #[arg(value_name = "DIR", default_value = ".")]
    folder: PathBuf,
}

/// Runs `unlink`.
pub(crate) fn unlink(session: &Session, flags: &UnlinkFlags) -> Result<Ending, Complaint> {
    let folder = SyncedFolder::open(&flags.folder)?;
    let share = share_of(&folder);
    folder.forget()?;
    let shown = plain(&flags.folder.to_string_lossy());
    let console = &session.console;
    console.note(&format!(
        "{shown} is not synced with {share} any more; all files stay, here and there, and so do the versions"
    ));
    console.object(&json!({"event": "status", "state": "unlinked", "folder": shown, "share": share}));
    Ok(Ending::of(Exit::Done))
}

/// Runs `pause`.
pub(crate) fn pause(session: &Session, flags: &PauseFlags) -> Result<Ending, Complaint> {
    set_paused(session, &flags.folder, true)
}

/// Runs `resume`.
pub(crate) fn resume(session: &Session, flags: &PauseFlags) -> Result<Ending, Complaint> {
    set_paused(session, &flags.folder, false)
}

fn set_paused(session: &Session, path: &Path, paused: bool) -> Result<Ending, Complaint> {
    let folder = SyncedFolder::open(path)?;
    let changed = folder.pause(paused)?;
    let shown = plain(&path.to_string_lossy());
    let console = &session.console;
    let command = quoted(&shown);
    console.note(&match (paused, changed) {
        (true, true) => format!("{shown} is paused; `syncline resume {command}` has it go on"),
        (true, false) => format!("{shown} is paused already; `syncline resume {command}` has it go on"),
        (false, true) => {
            format!("{shown} is not paused any more; a watch goes on by itself, else: syncline sync {command}")
        }
        (false, false) => format!("{shown} was not paused"),
    });
    let state = if paused { "paused" } else { "resumed" };
    console.object(&json!({"event": "status", "state": state, "folder": shown, "changed": changed}));
    Ok(Ending::of(Exit::Done))
}

/// Runs `diff`.
pub(crate) fn diff(session: &Session, flags: &DiffFlags) -> Result<Ending, Complaint> {
    let console = &session.console;
    let folder = SyncedFolder::open(&flags.folder)?;
    let mut summary = Summary::default();
    let (entries, complete) = folder.changes(&mut |change| {
        match &change {
            LocalChange::Special(_) => return,
            LocalChange::Unread(path, reason) => {
                summary.failed += 1;
                let line = format!("{} {}: {}", console.red("syncline:"), plain(path), plain(reason));
                console.failure(&line, &json!({"event": "error", "path": path, "reason": reason}));
                return;
            }
            LocalChange::Removed(_) => summary.deleted += 1,
            LocalChange::Added(_) | LocalChange::Changed(_) | LocalChange::Touched(_) | LocalChange::Moved(..) => {
                summary.files += 1;
            }
        }
        console.data(&change_text(&change));
        console.object(&change_object(&change));
    })?;
    let changes = summary.files + summary.deleted;
    let shown = plain(&flags.folder.to_string_lossy());
    console.note(&match changes {
        0 => format!(
            "✓ nothing was changed in {shown} since the last sync ({})",
            quantity::counted(entries, "entry")
        ),
        changes => format!(
            "{} since the last sync, which `syncline sync {}` carries over; the share was not asked",
            quantity::counted(changes, "change"),
            quoted(&shown)
        ),
    });
    let exit = if complete { Exit::Done } else { Exit::Partial };
    Ok(Ending { exit, summary })
}

fn size_of(entry: &Entry) -> String {
    match &entry.kind {
        Kind::File { size } => format!(" ({})", quantity::size(*size)),
        Kind::Directory => "/".to_owned(),
        Kind::Symlink { .. } => " (link)".to_owned(),
    }
}

fn change_text(change: &LocalChange) -> String {
    match change {
        LocalChange::Added(entry) => format!("+ {}{}", entry.path, size_of(entry)),
        LocalChange::Changed(entry) => format!("~ {}{}", entry.path, size_of(entry)),
        LocalChange::Touched(entry) => format!(". {}", entry.path),
        LocalChange::Removed(path) => format!("- {path}"),
        LocalChange::Moved(from, to) => format!("> {from} -> {to}"),
        LocalChange::Special(path) => path.to_string(),
        LocalChange::Unread(path, _) => path.clone(),
    }
}

fn change_object(change: &LocalChange) -> Value {
    let with = |path: &RelPath, action: &str| {
        let mut object = path_fields(path.as_bytes());
        object.insert("event".into(), "item".into());
        object.insert("action".into(), action.into());
        object
    };
    let sized = |entry: &Entry, action: &str| {
        let mut object = with(&entry.path, action);
        if let Kind::File { size } = entry.kind {
            object.insert("size".into(), size.into());
        }
        object
    };
    Value::Object(match change {
        LocalChange::Added(entry) => sized(entry, "created"),
        LocalChange::Changed(entry) => sized(entry, "replaced"),
        LocalChange::Touched(entry) => sized(entry, "touched"),
        LocalChange::Removed(path) | LocalChange::Special(path) => with(path, "deleted"),
        LocalChange::Moved(from, to) => {
            let mut object = with(to, "moved");
            object.insert("from".into(), from.to_string().into());
            object
        }
        LocalChange::Unread(path, _) => Map::from_iter([("path".to_owned(), json!(path))]),
    })
}

/// `nas:7171/Share`.
fn share_of(folder: &SyncedFolder) -> String {
    let link = folder.link();
    format!("{}/{}", link.authority(), link.share)
}

/// What `status DIR` says.
pub(crate) fn status(session: &Session, path: &Path) -> Result<Ending, Complaint> {
    let console = &session.console;
    let folder = SyncedFolder::open(path)?;
    let (holder, paused, last) = (folder.holder()?, folder.is_paused()?, folder.last_run()?);
    let (history, within) = History::find(path)?;
    let conflicts = history.conflict_copies(within.as_ref()).0.len() as u64;
    let shown = plain(&path.to_string_lossy());
    let mut lines = vec![format!("{shown}  synced with {}", share_of(&folder))];
    let now = match (&holder, paused) {
        (_, true) => format!("paused: `syncline resume {}` has it go on", quoted(&shown)),
        (Some(holder), false) => format!("syncing ({holder})"),
        (None, false) => "not running".to_owned(),
    };
    lines.push(format!("  now        {now}"));
    lines.push(format!(
        "  last run   {}",
        last.map_or_else(|| "never".to_owned(), run_text)
    ));
    lines.push(format!(
        "  conflicts  {}",
        match conflicts {
            0 => "none".to_owned(),
            _ => format!(
                "{}: syncline conflicts {}",
                quantity::counted(conflicts, "copy"),
                quoted(&shown)
            ),
        }
    ));
    let collisions = history.collisions(within.as_ref()).map_err(Complaint::from)?;
    if let Some(first) = collisions.first() {
        let more = match collisions.len() {
            1 => String::new(),
            number => format!(" (and {} more)", quantity::count(number as u64 - 1)),
        };
        let text = super::collision::text(&first.path, first.with.as_ref(), first.is_here);
        lines.push(format!("  collision  {text}{more}"));
    }
    lines.iter().for_each(|line| console.data(line));
    console.object(&json!({
        "collisions": collisions.len(),
        "event": "status", "folder": shown, "share": share_of(&folder), "running": holder.is_some(),
        "holder": holder, "paused": paused, "conflicts": conflicts,
        "last_run": last.map(|run| json!({
            "at": run.at, "exit_code": run.exit_code, "entries": run.entries,
        })),
    }));
    Ok(Ending::of(Exit::Done))
}

/// `2 min 5 s ago, 9,881 entries in sync`.
fn run_text(run: LastRun) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.map_or(0, |since| since.as_secs());
    let ago = match now.saturating_sub(run.at) {
        0 => "just now".to_owned(),
        seconds => format!("{} ago", quantity::duration(Duration::from_secs(seconds))),
    };
    let how = match run.exit_code {
        0 => String::new(),
        3 => ", some items failed".to_owned(),
        4 => ", with conflicts".to_owned(),
        130 | 143 => ", stopped".to_owned(),
        code => format!(", did not come to its end (code {code})"),
    };
    let entries = run.entries.map_or_else(String::new, |entries| {
        format!(", {} in sync", quantity::counted(entries, "entry"))
    });
    format!("{ago}{how}{entries}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_last_run_reads_as_a_sentence() {
        let run = |exit_code, entries| LastRun {
            at: u64::MAX,
            exit_code,
            entries,
        };
        assert_eq!(run_text(run(0, Some(18))), "just now, 18 entries in sync");
        assert_eq!(run_text(run(4, Some(1))), "just now, with conflicts, 1 entry in sync");
        assert_eq!(run_text(run(5, None)), "just now, did not come to its end (code 5)");
    }
}
