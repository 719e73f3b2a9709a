//! `syncline id FILE…`: content ids, `LENGTH-ROOTHEX  NAME` a line.
//! Never follows into directories, and never stops at one bad file.

use super::complaint::{Complaint, reason};
use super::exit::Exit;
use super::report::path_fields;
use super::session::{Ending, Session};
use clap::Args;
use serde_json::{Value, json};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::time::Instant;
use syncline::delta::TreeHasher;
use syncline::model::{ContentId, escape};
use syncline::node::Summary;

/// The operands of `id`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  syncline id film.mkv         prints 734003200-6ca1…  film.mkv
  tar c . | syncline id -      of standard input

The id is the length and the root of a SHA-256 tree over 16 KiB blocks, as in BitTorrent v2 (BEP 52).
For a file of up to 16 KiB the root is what sha256sum prints.")]
pub(crate) struct Flags {
    /// Files; - is standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<OsString>,
}

/// Runs the command.
pub(crate) fn run(session: &Session, flags: &Flags) -> Result<Ending, Complaint> {
    let console = &session.console;
    let start = Instant::now();
    let mut summary = Summary::default();
    let mut buffer = vec![0; READ_BYTES];
    for operand in &flags.files {
        let name = escape(operand.as_bytes());
        match identify(operand, &mut buffer) {
            Ok(id) => {
                summary.files += 1;
                summary.bytes += id.length;
                console.data(&format!("{id}  {name}"));
                let fields = json!({"event": "item", "id": id.to_string(), "size": id.length});
                console.object(&about(operand, &fields));
            }
            Err(error) => {
                summary.failed += 1;
                let reason = reason(&error);
                let line = format!("{} {name}: {reason}", console.red("syncline:"));
                let fields = json!({"event": "error", "reason": reason});
                console.failure(&line, &about(operand, &fields));
            }
        }
        if console.reader_is_gone() {
            break;
        }
    }
    summary.elapsed = start.elapsed();
    let exit = if summary.failed > 0 { Exit::Partial } else { Exit::Done };
    Ok(Ending { exit, summary })
}

/// An object about a file: its path, exact, and the given fields.
fn about(operand: &OsStr, fields: &Value) -> Value {
    let mut object = path_fields(operand.as_bytes());
    let fields = fields.as_object().into_iter().flatten();
    object.extend(fields.map(|(key, value)| (key.clone(), value.clone())));
    Value::Object(object)
}

/// Large enough that the hasher can work on many leaves at once.
const READ_BYTES: usize = 1 << 20;

fn identify(operand: &OsStr, buffer: &mut [u8]) -> io::Result<ContentId> {
    if operand == "-" {
        return hash(&mut io::stdin().lock(), buffer);
    }
    // Asked first, because opening a FIFO would wait for a writer.
    let kind = fs::metadata(operand)?.file_type();
    if kind.is_dir() {
        return Err(io::Error::from(io::ErrorKind::IsADirectory));
    }
    if !kind.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    hash(&mut File::open(operand)?, buffer)
}

fn hash(input: &mut dyn Read, buffer: &mut [u8]) -> io::Result<ContentId> {
    let mut hasher = TreeHasher::new();
    loop {
        match input.read(buffer) {
            Ok(0) => return Ok(hasher.finish()),
            Ok(length) => hasher.update(&buffer[..length]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::console::{Format, Verbosity, capture};
    use super::*;

    #[test]
    fn one_bad_file_does_not_stop_the_others_and_sets_the_code() {
        let folder = tempfile::tempdir().unwrap();
        let good = folder.path().join("good");
        fs::write(&good, "abc").unwrap();
        let files = vec![
            folder.path().join("missing").into(),
            folder.path().into(),
            good.clone().into(),
        ];
        let (console, out, err) = capture::console(Format::Text, Verbosity::Normal);
        let ending = run(&Session::new(console, None), &Flags { files }).unwrap();
        assert_eq!(ending.exit, Exit::Partial);
        // SHA-256 of "abc", FIPS 180-2.
        let root = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(out.text(), format!("3-{root}  {}\n", good.display()));
        let errors = err.text();
        assert!(
            errors.contains("missing: no such file or directory") && errors.contains("is a directory"),
            "{errors}"
        );
    }
}
