//! `syncline restore PATH`: a kept version becomes the present one again.
//! Never loses what stands there: that becomes a version first.

use super::complaint::Complaint;
use super::exit::Exit;
use super::quantity;
use super::report::path_fields;
use super::session::{Ending, Session};
use super::versions::{Authors, line};
use clap::Args;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::Instant;
use syncline::model::RelPath;
use syncline::node::{Deleted, History, HistoryError, Summary};
use syncline::store::{Published, Version};

/// The flags and operands of `restore`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  syncline restore ~/Share/report.docx                      the latest version that is kept
  syncline restore ~/Share/report.docx --version 3f9a2c71   the one that `syncline versions` shows so
  syncline restore ~/Share/report.docx --to ~/Share/old.docx  beside the present one
  syncline restore ~/Share/photos                           what was deleted of a directory

What stands at the path becomes a version itself, so this can be undone. It works while a server serves
the folder.")]
pub(crate) struct Flags {
    /// The file, or a directory of which files were deleted
    #[arg(value_name = "PATH")]
    path: PathBuf,
    /// Which version: its id or the beginning of it [default: the latest]
    #[arg(long, value_name = "ID")]
    version: Option<String>,
    /// Put it here, in the same share, instead of where it was
    #[arg(long, value_name = "NEWPATH")]
    to: Option<PathBuf>,
    /// Say what would be restored, change nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
}

/// Runs the command.
pub(crate) fn run(session: &Session, flags: &Flags) -> Result<Ending, Complaint> {
    let (history, path) = History::find(&flags.path)?;
    let path = path.ok_or_else(|| {
        Complaint::usage(
            "the share as a whole has no versions",
            "name a file or directory in it; `syncline trash DIR` lists what was deleted",
        )
    })?;
    let to = match &flags.to {
        Some(to) => Some(target(&history, to)?),
        None => None,
    };
    let version = match history.choose(&path, flags.version.as_deref()) {
        // A directory has no versions of its own, but what was in it has.
        Err(HistoryError::NoVersion(_)) if to.is_none() && flags.version.is_none() => {
            let deleted = history.deleted(Some(&path))?;
            if deleted.is_empty() {
                return Err(HistoryError::NoVersion(path).into());
            }
            return restore_all(session, flags, &history, &deleted);
        }
        other => other?,
    };
    let start = Instant::now();
    let size = restore_one(session, flags, &history, &version, to.as_ref().unwrap_or(&path))?;
    Ok(Ending {
        exit: Exit::Done,
        summary: Summary {
            files: 1,
            bytes: size,
            elapsed: start.elapsed(),
            ..Summary::default()
        },
    })
}

fn target(history: &History, to: &std::path::Path) -> Result<RelPath, Complaint> {
    history.within(to)?.ok_or_else(|| {
        Complaint::usage(
            "--to names a place outside of the share",
            "name a path in the same share, and copy the file from there",
        )
    })
}

/// What was deleted below a directory, as it was last.
fn restore_all(session: &Session, flags: &Flags, history: &History, deleted: &[Deleted]) -> Result<Ending, Complaint> {
    let start = Instant::now();
    let mut summary = Summary::default();
    for Deleted { version, .. } in deleted {
        match restore_one(session, flags, history, version, version.path()) {
            Ok(size) => {
                summary.files += 1;
                summary.bytes += size;
            }
            Err(error) => {
                summary.failed += 1;
                let complaint = Complaint::from(error);
                let mut object = path_fields(version.path().as_bytes());
                object.insert("event".to_owned(), json!("error"));
                object.insert("reason".to_owned(), json!(complaint.what));
                let line = format!("{} {}", session.console.red("syncline:"), complaint.what);
                session.console.failure(&line, &Value::Object(object));
            }
        }
    }
    summary.elapsed = start.elapsed();
    let exit = if summary.failed > 0 { Exit::Partial } else { Exit::Done };
    let would = if flags.dry_run { "would be restored" } else { "restored" };
    session
        .console
        .note(&format!("{} {would}", quantity::counted(summary.files, "file")));
    Ok(Ending { exit, summary })
}

fn restore_one(
    session: &Session,
    flags: &Flags,
    history: &History,
    version: &Version,
    to: &RelPath,
) -> Result<u64, HistoryError> {
    let size = history.content_bytes(version);
    let published = if flags.dry_run {
        None
    } else {
        Some(history.restore(version, to)?)
    };
    let mut object = path_fields(to.as_bytes());
    let (outcome, tail) = match &published {
        None => ("would be restored", String::new()),
        Some(Published::Created) => ("restored", String::new()),
        Some(Published::Replaced) => ("restored", "; what was there is a version now".to_owned()),
        Some(Published::Displaced(copy)) => ("restored", format!("; what was there meanwhile is {copy} now")),
    };
    let fields = json!({
        "event": "item", "version": version.name().id(), "from": version.path().to_string(), "size": size,
        "restored": published.is_some(), "replaced": matches!(published, Some(Published::Replaced)),
    });
    object.extend(fields.as_object().cloned().unwrap_or_default());
    session.console.object(&Value::Object(object));
    let authors = Authors::known(session);
    session.console.data(&format!("{to}: {outcome}{tail}"));
    session.console.data(&format!("  {}", line(version, size, &authors)));
    Ok(size.unwrap_or(0))
}
