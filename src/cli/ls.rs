//! `syncline ls --ignored [PATH]`: what takes no part in a sync, and which rule leaves it out.
//! Never changes anything.

use super::complaint::Complaint;
use super::exit::Exit;
use super::quantity;
use super::report::{path_fields, plain};
use super::session::{Ending, Session};
use clap::Args;
use serde_json::{Value, json};
use std::path::PathBuf;
use syncline::node::{LeftOut, Summary, WhyLeftOut, left_out};
use syncline::store::IgnoreReason;

/// The flags and operands of `ls`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  syncline ls --ignored ~/Share              everything that takes no part
  syncline ls --ignored ~/Share/build/x.o    whether this does, and why not

Rules are written in .synclineignore, in any directory, with the syntax of .gitignore. They are synced like other
files. Besides, what systems leave behind takes no part (.DS_Store, Thumbs.db, …), unless a rule brings it back:
!Thumbs.db")]
pub(crate) struct Flags {
    /// A folder, or something in it, whether it is there or not
    #[arg(value_name = "PATH", default_value = ".")]
    path: PathBuf,
    /// What is left out, and by which rule
    #[arg(long, required = true)]
    ignored: bool,
}

/// Runs the command.
pub(crate) fn run(session: &Session, flags: &Flags) -> Result<Ending, Complaint> {
    let console = &session.console;
    let shown = plain(&flags.path.to_string_lossy());
    debug_assert!(flags.ignored, "there is nothing else to list yet");
    let mut count = 0;
    let looked = left_out(&flags.path, &mut |left| {
        count += 1;
        console.data(&line(&left));
        console.object(&object(&left));
    })?;
    for problem in &looked.problems {
        let line = format!("{} {}", console.yellow("warning:"), plain(&problem.to_string()));
        console.failure(
            &line,
            &json!({"event": "error", "message": problem.to_string(), "warning": true}),
        );
    }
    for error in &looked.failed {
        let line = format!("{} {}", console.red("syncline:"), plain(&error.to_string()));
        let path = syncline::model::escape(error.path());
        console.failure(
            &line,
            &json!({"event": "error", "path": path, "reason": error.reason()}),
        );
    }
    console.note(&match (count, looked.kept) {
        (0, 0..=1) => format!("{shown} takes part"),
        (0, kept) => format!("all of {shown} takes part: {}", quantity::counted(kept, "entry")),
        (count, kept) => format!(
            "{} left out, {} left",
            quantity::count(count),
            quantity::counted(kept, "entry")
        ),
    });
    let exit = if looked.failed.is_empty() {
        Exit::Done
    } else {
        Exit::Partial
    };
    Ok(Ending {
        exit,
        summary: Summary {
            files: count,
            failed: looked.failed.len() as u64,
            ..Summary::default()
        },
    })
}

/// `build/  .synclineignore:2: build/`.
fn line(left: &LeftOut) -> String {
    let slash = if left.is_directory { "/" } else { "" };
    format!("{}{slash}  {}", left.path, why(left))
}

fn why(left: &LeftOut) -> String {
    match &left.why {
        WhyLeftOut::Rule(reason) => plain(&reason.to_string()),
        WhyLeftOut::Special => "neither a file nor a directory nor a link".to_owned(),
    }
}

fn object(left: &LeftOut) -> Value {
    let mut object = path_fields(left.path.as_bytes());
    let (rule, file, line) = match &left.why {
        WhyLeftOut::Rule(IgnoreReason::Rule { file, line, pattern }) => (
            Some(syncline::model::escape(pattern)),
            Some(file.to_string()),
            Some(*line),
        ),
        WhyLeftOut::Rule(IgnoreReason::BuiltIn { pattern }) => (Some(pattern.clone()), None, None),
        WhyLeftOut::Rule(IgnoreReason::Unknown { file }) => (None, Some(file.to_string()), None),
        WhyLeftOut::Special => (None, None, None),
    };
    let fields = json!({
        "event": "item", "ignored": true, "directory": left.is_directory, "reason": why(left),
        "rule": rule, "file": file, "line": line,
    });
    object.extend(fields.as_object().cloned().unwrap_or_default());
    Value::Object(object)
}
