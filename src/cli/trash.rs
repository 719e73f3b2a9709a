//! `syncline trash [DIR]`: what was deleted and can still be restored; with `--empty`, not any more.
//! Never removes anything without `--yes`, and never what was only replaced.

use super::complaint::Complaint;
use super::exit::Exit;
use super::quantity;
use super::session::{Ending, Session};
use super::versions::{Authors, line, object, quoted};
use clap::Args;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use syncline::node::{Deleted, History, Summary};

/// The flags and operands of `trash`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  syncline trash ~/Share                               what was deleted, the latest first
  syncline trash ~/Share --empty --older-than 7d -n    what emptying it would free
  syncline trash ~/Share --empty --yes                 free the space: nothing of it comes back

What is listed comes back with `syncline restore PATH`.")]
pub(crate) struct Flags {
    /// A directory of a share on this machine
    #[arg(value_name = "DIR", default_value = ".")]
    directory: PathBuf,
    /// Remove for good what is listed, with all of its versions
    #[arg(long)]
    empty: bool,
    /// Only what was deleted longer ago, as 7d or 12h
    #[arg(long, value_name = "AGE", value_parser = quantity::parse_duration)]
    older_than: Option<Duration>,
    /// Do not ask: needed to empty it
    #[arg(long)]
    yes: bool,
    /// With --empty: say what would be freed, remove nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
}

/// Runs the command.
pub(crate) fn run(session: &Session, flags: &Flags) -> Result<Ending, Complaint> {
    let start = Instant::now();
    let (history, path) = History::find(&flags.directory)?;
    let age = flags.older_than.unwrap_or_default();
    let mut deleted = history.deleted(path.as_ref())?;
    deleted.retain(|deleted| deleted.version.is_older_than(age));
    let mut summary = Summary {
        files: deleted.len() as u64,
        bytes: deleted.iter().map(|deleted| deleted.disk_bytes).sum(),
        ..Summary::default()
    };
    if !flags.empty {
        list(session, &history, &deleted);
        return Ok(ending(summary, start));
    }
    let files = quantity::counted(summary.files, "file");
    let size = quantity::size(summary.bytes);
    if flags.dry_run || deleted.is_empty() {
        session
            .console
            .note(&format!("{files} would be removed for good, {size} freed"));
        return Ok(ending(summary, start));
    }
    if !flags.yes {
        return Err(Complaint::usage(
            format!("emptying the trash removes {files} for good and frees {size}"),
            "add --yes if you want that, or -n to see it only",
        ));
    }
    let tidied = history.empty_trash(path.as_ref(), age)?;
    summary.deleted = summary.files;
    summary.bytes = tidied.bytes;
    session.console.note(&format!(
        "{files} removed for good with {}, {} freed",
        quantity::counted(tidied.versions, "version"),
        quantity::size(tidied.bytes)
    ));
    session.console.object(&json!({
        "event": "item", "emptied": true, "files": summary.files, "versions": tidied.versions,
        "bytes": tidied.bytes,
    }));
    Ok(ending(summary, start))
}

fn list(session: &Session, history: &History, deleted: &[Deleted]) {
    if deleted.is_empty() {
        session.console.note("nothing that was deleted is kept here");
    }
    let authors = Authors::known(session);
    for Deleted { version, disk_bytes } in deleted {
        if session.console.reader_is_gone() {
            return;
        }
        let size = history.content_bytes(version);
        session.console.data(&version.path().to_string());
        session.console.data(&format!("  {}", line(version, size, &authors)));
        let mut object = object(version, size, &authors);
        object.insert("all_disk_bytes".to_owned(), json!(disk_bytes));
        session.console.object(&Value::Object(object));
    }
    if let Some(latest) = deleted.first() {
        let path = history.share().join(latest.version.path().to_string());
        session.console.note(&format!(
            "to get one back: syncline restore {}",
            quoted(&path.display().to_string())
        ));
    }
}

fn ending(mut summary: Summary, start: Instant) -> Ending {
    summary.elapsed = start.elapsed();
    let exit = Exit::Done;
    Ending { exit, summary }
}
