//! `syncline conflicts [PATH]`: the versions that a sync kept beside a file, and which of them is to stay.
//! Never removes a version: what gives way can be restored.

use super::complaint::Complaint;
use super::exit::Exit;
use super::quantity;
use super::report::{path_fields, plain};
use super::session::{Ending, Session};
use super::versions::quoted;
use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use syncline::model::{ItemCode, RelPath};
use syncline::node::{ConflictCopy, History, SettleError, Settled, Summary, Winner};
use syncline::store::FoundKind;

/// The flags and operands of `conflicts`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  syncline conflicts ~/Share                              what is to be decided; code 4 if anything is
  syncline conflicts --keep mine ~/Share/report.docx      the copy takes the name again
  syncline conflicts --keep theirs ~/Share/report.docx    what has the name stays; the copy goes
  syncline conflicts --keep both ~/Share/report.docx      the copy becomes `report (laptop 2026-11-20).docx`

When both sides had changed a file, the share's version kept the name, and the other one stayed beside it as
NAME.sync-conflict-DATE-DEVICE. What gives way here goes to the versions, and `syncline restore` brings it back.
The next sync carries the decision over.")]
pub(crate) struct Flags {
    /// A folder; with --keep a conflict copy, or the file that it is a copy of
    #[arg(value_name = "PATH", default_value = ".")]
    path: PathBuf,
    /// Settle it: which version is to have the name
    #[arg(long, value_name = "WHICH", requires = "path")]
    keep: Option<Which>,
}

/// Whose version stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Which {
    /// The copy; what has the name now goes to the versions
    Mine,
    /// What has the name now; the copy goes to the versions
    Theirs,
    /// Both; the copy gets a plain name
    Both,
}

/// Runs the command.
pub(crate) fn run(session: &Session, flags: &Flags) -> Result<Ending, Complaint> {
    let (history, path) = History::find(&flags.path)?;
    match flags.keep {
        None => list(session, flags, &history, path.as_ref()),
        Some(which) => settle(session, flags, &history, path, which),
    }
}

fn list(session: &Session, flags: &Flags, history: &History, path: Option<&RelPath>) -> Result<Ending, Complaint> {
    let console = &session.console;
    let (copies, failed) = history.conflict_copies(path);
    let mut summary = Summary::default();
    for error in &failed {
        summary.failed += 1;
        let path = syncline::model::escape(error.path());
        let line = format!("{} {}", console.red("syncline:"), plain(&error.to_string()));
        let object = json!({"event": "error", "path": path, "reason": error.reason()});
        console.failure(&line, &object);
    }
    let mut shown: Option<&RelPath> = None;
    for copy in &copies {
        if shown != Some(&copy.name.of) {
            shown = Some(&copy.name.of);
            summary.files += 1;
            console.data(&format!("{}  {}", copy.name.of, extent(copy.other)));
        }
        console.data(&format!(
            "  {}  {}  of {}, {}",
            copy.copy,
            extent(Some(copy.kind)),
            copy.name.author,
            readable(&copy.name.stamp)
        ));
        console.object(&object(copy));
    }
    let collisions = list_collisions(session, history, path);
    summary.files += collisions;
    let exit = match (copies.first(), failed.is_empty()) {
        (None, true) if collisions > 0 => {
            console.note(&format!(
                "{}; rename one of each two, and sync again",
                quantity::counted(collisions, "name collision")
            ));
            Exit::Conflicts
        }
        (None, true) => {
            console.note(&format!(
                "✓ no conflict copies in {}",
                plain(&flags.path.to_string_lossy())
            ));
            Exit::Done
        }
        (_, false) => Exit::Partial,
        (Some(first), true) => {
            let path = history.share().join(first.copy.to_string());
            console.note(&format!(
                "{}; to settle one: syncline conflicts --keep mine|theirs|both {}",
                quantity::counted(copies.len() as u64, "conflict copy"),
                quoted(&path.to_string_lossy())
            ));
            Exit::Conflicts
        }
    };
    Ok(Ending { exit, summary })
}

/// Names that had no place on one side.
#[cfg(feature = "sync")]
fn list_collisions(session: &Session, history: &History, path: Option<&RelPath>) -> u64 {
    let noted = history.collisions(path).unwrap_or_else(|error| {
        log::warn!("{error}");
        Vec::new()
    });
    for one in &noted {
        let with = one.with.as_ref();
        session
            .console
            .data(&super::collision::text(&one.path, with, one.is_here));
        session
            .console
            .object(&super::collision::object(&one.path, with, one.is_here));
    }
    noted.len() as u64
}

#[cfg(not(feature = "sync"))]
fn list_collisions(_: &Session, _: &History, _: Option<&RelPath>) -> u64 {
    0
}

/// `12 KiB`, `a directory`, `nothing`.
fn extent(kind: Option<FoundKind>) -> String {
    match kind {
        Some(FoundKind::File { size }) => quantity::size(size),
        Some(FoundKind::Directory) => "a directory".to_owned(),
        Some(FoundKind::Symlink) => "a link".to_owned(),
        Some(FoundKind::Special) => "no file".to_owned(),
        None => "not there any more".to_owned(),
    }
}

/// `2026-11-20 21:47:31 UTC`. The stamp was read from a name, and has its fifteen characters.
fn readable(stamp: &str) -> String {
    let part = |from: usize, to: usize| stamp.get(from..to).unwrap_or_default();
    format!(
        "{}-{}-{} {}:{}:{} UTC",
        part(0, 4),
        part(4, 6),
        part(6, 8),
        part(9, 11),
        part(11, 13),
        part(13, 15)
    )
}

fn object(copy: &ConflictCopy) -> Value {
    let size = |kind: Option<FoundKind>| match kind {
        Some(FoundKind::File { size }) => Some(size),
        _ => None,
    };
    let mut object = path_fields(copy.copy.as_bytes());
    let fields = json!({
        "event": "item", "conflict": true, "of": copy.name.of.to_string(), "device": copy.name.author,
        "stamp": copy.name.stamp, "size": size(Some(copy.kind)), "other_size": size(copy.other),
    });
    object.extend(fields.as_object().cloned().unwrap_or_default());
    Value::Object(object)
}

fn settle(
    session: &Session,
    flags: &Flags,
    history: &History,
    path: Option<RelPath>,
    which: Which,
) -> Result<Ending, Complaint> {
    let path = path.ok_or_else(|| {
        Complaint::usage(
            "--keep settles one conflict, and this is a whole folder",
            "name the conflict copy: `syncline conflicts DIR` lists them",
        )
    })?;
    let copy = match history.conflict_copy(&path) {
        Some(copy) => copy,
        None => only_copy_of(history, &path, &flags.path)?,
    };
    let winner = match which {
        Which::Mine => Winner::Copy,
        Which::Theirs => Winner::Other,
        Which::Both => Winner::Both,
    };
    let settled = history.settle(&copy.copy, winner)?;
    let console = &session.console;
    let (line, name) = match &settled {
        Settled::Took(name, true) => (
            format!(
                "{name} is {}'s version now; what was there is a version",
                copy.name.author
            ),
            Some(name),
        ),
        Settled::Took(name, false) => (format!("{name} is {}'s version now", copy.name.author), Some(name)),
        Settled::WentToVersions => (
            format!("{} stays as it is; {} is among the versions", copy.name.of, copy.copy),
            None,
        ),
        Settled::Renamed(name) => (format!("both stay; the copy is {name} now"), Some(name)),
    };
    console.data(&line);
    let mut object = path_fields(copy.copy.as_bytes());
    object.insert("event".into(), "item".into());
    object.insert("settled".into(), true.into());
    object.insert("of".into(), copy.name.of.to_string().into());
    object.insert("name".into(), name.map(ToString::to_string).into());
    console.object(&Value::Object(object));
    Ok(Ending {
        exit: Exit::Done,
        summary: Summary {
            files: 1,
            ..Summary::default()
        },
    })
}

fn only_copy_of(history: &History, path: &RelPath, given: &Path) -> Result<ConflictCopy, Complaint> {
    let mut copies = history.copies_of(path)?;
    let shown = plain(&given.to_string_lossy());
    match (copies.pop(), copies.len()) {
        (None, _) => Err(Complaint::new(
            Exit::TargetMissing,
            format!("{shown} is in no conflict"),
            "`syncline conflicts DIR` lists those that there are",
        )),
        (Some(copy), 0) => Ok(copy),
        (Some(_), more) => Err(Complaint::usage(
            format!("{shown} has {} conflict copies", more + 1),
            "name the one that you mean: `syncline conflicts DIR` lists them",
        )),
    }
}

impl From<SettleError> for Complaint {
    fn from(error: SettleError) -> Complaint {
        let (exit, advice) = match &error {
            SettleError::NoCopy(_) | SettleError::Absent(_) => (
                Exit::TargetMissing,
                "`syncline conflicts DIR` lists those that there are",
            ),
            SettleError::Directory(_) => (
                Exit::Usage,
                "move by hand what you want to keep of it, or use --keep both",
            ),
            SettleError::Shortened(_) => (Exit::Usage, "rename it as you like, by hand"),
            SettleError::File(file) if file.code() == ItemCode::InTheWay => (
                Exit::Temporary,
                "something came there meanwhile; what stood there before is among the versions",
            ),
            SettleError::File(_) => (Exit::Error, "check the permissions, and what stands there"),
        };
        Complaint::new(exit, plain(&error.to_string()), advice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_reads_as_a_time() {
        assert_eq!(readable("20261120-214731"), "2026-11-20 21:47:31 UTC");
    }
}
