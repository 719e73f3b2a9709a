//! `syncline delta signature|diff|patch`: the delta engine on local files.
//! Never leaves half a file under a name that the user gave, and never replaces one unasked.

use super::complaint::{Complaint, reason};
use super::exit::Exit;
use super::quantity;
use super::report::plain;
use super::session::{Ending, Session};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::fs::{self, File};
use std::io::{self, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;
use syncline::model::ItemCode;
use syncline::node::Summary;
use syncline::node::delta_file::{self, DeltaFileError, Patch, Signature};
use syncline::store::{Existing, FileError, NewFile};

/// The commands of `delta`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  syncline delta signature old.tar old.sig        what is in old.tar, in about 1 % of its size
  syncline delta diff old.sig new.tar new.patch   what makes new.tar of old.tar, without old.tar
  syncline delta patch old.tar new.patch new.tar  new.tar again
  syncline delta diff --old old.tar new.tar | ssh host syncline delta patch old.tar - new.tar

OLD and NEW are files. SIG and PATCH can be streams: - or nothing is standard input or output.
A patch is only applied to the very file that it was made for.")]
pub(crate) struct Flags {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write the signature of OLD, from which a patch can be made without OLD
    Signature(SignatureFlags),
    /// Write a patch that makes NEW of the file that SIG is of
    Diff(DiffFlags),
    /// Make the new file of OLD and PATCH
    Patch(PatchFlags),
}

#[derive(Debug, Args)]
struct SignatureFlags {
    /// The file that others have
    old: PathBuf,
    /// Where the signature goes; - is standard output
    #[arg(value_name = "SIG", default_value = "-", hide_default_value = true)]
    output: PathBuf,
    /// Replace SIG if it exists
    #[arg(short, long)]
    force: bool,
}

#[derive(Debug, Args)]
#[command(override_usage = "syncline delta diff [OPTIONS] SIG NEW [PATCH]\n       \
                            syncline delta diff [OPTIONS] --old OLD NEW [PATCH]")]
struct DiffFlags {
    /// SIG (- is standard input; left out with --old), NEW (a file), and where the PATCH goes
    #[arg(required = true, num_args = 1..=3, value_names = ["SIG", "NEW", "PATCH"])]
    operands: Vec<PathBuf>,
    /// Compare with this file itself: the patch gets smaller, above all up to 16 MiB
    #[arg(long, value_name = "OLD")]
    old: Option<PathBuf>,
    /// Replace PATCH if it exists
    #[arg(short, long)]
    force: bool,
}

#[derive(Debug, Args)]
struct PatchFlags {
    /// The file that the patch was made for
    old: PathBuf,
    /// The patch; - is standard input
    #[arg(value_name = "PATCH")]
    patch: PathBuf,
    /// Where the new file goes, perhaps OLD itself; - is standard output, which gets the bytes before
    /// they are checked, so that the exit code matters
    #[arg(value_name = "NEW", default_value = "-", hide_default_value = true)]
    output: PathBuf,
    /// Replace NEW if it exists
    #[arg(short, long)]
    force: bool,
}

/// Runs the command.
pub(crate) fn run(session: &Session, flags: &Flags) -> Result<Ending, Complaint> {
    let start = Instant::now();
    let (object, text, mut summary) = match &flags.command {
        Command::Signature(flags) => signature(session, flags)?,
        Command::Diff(flags) => diff(session, flags)?,
        Command::Patch(flags) => patch(session, flags)?,
    };
    summary.files = 1;
    summary.elapsed = start.elapsed();
    session.console.note(&text);
    session.console.object(&object);
    Ok(Ending {
        exit: Exit::Done,
        summary,
    })
}

/// An object for scripts, a line for people, the figures.
type Told = (Value, String, Summary);

fn signature(session: &Session, flags: &SignatureFlags) -> Result<Told, Complaint> {
    let mut output = Output::open(session, &flags.output, flags.force)?;
    let signed = delta_file::sign(&flags.old, &mut output)?;
    output.commit()?;
    let object = json!({
        "event": "item", "step": "signature", "id": signed.id.to_string(), "size": signed.id.length,
        "signature_bytes": signed.bytes,
    });
    let text = format!(
        "signature: {} for {}",
        quantity::size(signed.bytes),
        quantity::size(signed.id.length)
    );
    Ok((object, text, summary(signed.id.length, None)))
}

fn diff(session: &Session, flags: &DiffFlags) -> Result<Told, Complaint> {
    let (basis, new, output) = match (&flags.old, &flags.operands[..]) {
        (Some(old), [new]) => (Basis::File(old), new, None),
        (Some(old), [new, output]) => (Basis::File(old), new, Some(output)),
        (None, [signature, new]) => (Basis::Signature(signature), new, None),
        (None, [signature, new, output]) => (Basis::Signature(signature), new, Some(output)),
        _ => {
            let advice = "syncline delta diff SIG NEW [PATCH], or syncline delta diff --old OLD NEW [PATCH]";
            return Err(Complaint::usage("diff takes a signature and a new file", advice));
        }
    };
    must_be_file(new)?;
    let standard = PathBuf::from("-");
    let mut output = Output::open(session, output.unwrap_or(&standard), flags.force)?;
    let made = match basis {
        Basis::File(old) => delta_file::diff_files(old, new, &mut output)?,
        Basis::Signature(signature) => {
            let signature = Signature::read(&mut *input(signature)?)?;
            delta_file::diff(signature, new, &mut output)?
        }
    };
    output.commit()?;
    let object = json!({
        "event": "item", "step": "diff", "basis": made.basis.to_string(), "id": made.result.to_string(),
        "size": made.result.length, "patch_bytes": made.bytes,
        "literal_bytes": made.figures.map(|(literal, _)| literal),
        "matched_bytes": made.figures.map(|(_, matched)| matched),
    });
    let text = format!("patch: {}{}", quantity::size(made.bytes), of_which(made.figures));
    Ok((object, text, summary(made.result.length, made.figures)))
}

fn patch(session: &Session, flags: &PatchFlags) -> Result<Told, Complaint> {
    let mut source = input(&flags.patch)?;
    // Before the output, so that nothing is made for a patch of another file.
    let patch = Patch::open(&flags.old, &mut *source)?;
    let mut output = Output::open(session, &flags.output, flags.force)?;
    if let (Output::File(file), Some(bytes)) = (&output, patch.room()) {
        file.check_room(bytes).map_err(|error| file_complaint(&error))?;
    }
    let made = patch.apply(&mut output)?;
    output.commit()?;
    let object = json!({
        "event": "item", "step": "patch", "id": made.result.to_string(), "size": made.result.length,
        "patch_bytes": made.bytes,
        "literal_bytes": made.figures.map(|(literal, _)| literal),
        "matched_bytes": made.figures.map(|(_, matched)| matched),
    });
    let size = quantity::size(made.result.length);
    let text = format!("new file: {size}{}", of_which(made.figures));
    Ok((object, text, summary(made.result.length, made.figures)))
}

/// What a patch is made from.
enum Basis<'a> {
    File(&'a Path),
    Signature(&'a Path),
}

fn of_which(figures: Option<(u64, u64)>) -> String {
    let text = |(literal, matched)| {
        let (literal, matched) = (quantity::size(literal), quantity::size(matched));
        format!("; {literal} of the new file are new, {matched} are in the old one")
    };
    figures.map(text).unwrap_or_default()
}

fn summary(bytes: u64, figures: Option<(u64, u64)>) -> Summary {
    let (literal_bytes, matched_bytes) = figures.unwrap_or_default();
    Summary {
        bytes,
        literal_bytes,
        matched_bytes,
        ..Summary::default()
    }
}

fn must_be_file(path: &Path) -> Result<(), Complaint> {
    if path != Path::new("-") {
        return Ok(());
    }
    let what = "NEW has to be a file: it is read where the signature says, and checked afterwards";
    Err(Complaint::usage(what, "write it to a file first"))
}

/// Opens a signature or a patch for reading.
fn input(path: &Path) -> Result<Box<dyn Read>, Complaint> {
    if path == Path::new("-") {
        return Ok(Box::new(io::stdin().lock()));
    }
    let failed = |error: io::Error| {
        let name = plain(&path.to_string_lossy());
        let what = format!("cannot read {name}: {}", reason(&error));
        Complaint::new(Exit::Error, what, "check the name and the permissions")
    };
    let file = File::open(path).map_err(failed)?;
    if fs::metadata(path).map_err(failed)?.is_dir() {
        return Err(failed(io::ErrorKind::IsADirectory.into()));
    }
    Ok(Box::new(io::BufReader::with_capacity(READ_BYTES, file)))
}

const READ_BYTES: usize = 256 * 1024;

/// Where a result goes.
enum Output {
    File(Box<NewFile>),
    Standard(io::Stdout),
}

impl Output {
    fn open(session: &Session, path: &Path, force: bool) -> Result<Output, Complaint> {
        if path == Path::new("-") {
            if session.console.format() == super::console::Format::Json {
                let what = "standard output cannot have the result and --json at once";
                return Err(Complaint::usage(what, "name a file for the result"));
            }
            if io::stdout().is_terminal() {
                let what = "I do not write binary data to a terminal";
                return Err(Complaint::usage(
                    what,
                    "name a file for the result, or redirect the output",
                ));
            }
            return Ok(Output::Standard(io::stdout()));
        }
        let existing = if force { Existing::Replace } else { Existing::Keep };
        let file = NewFile::create(path, existing).map_err(|error| file_complaint(&error))?;
        Ok(Output::File(Box::new(file)))
    }

    fn commit(self) -> Result<(), Complaint> {
        match self {
            Output::File(file) => file.commit().map_err(|error| file_complaint(&error)),
            Output::Standard(mut out) => {
                let flushed = out.flush();
                flushed.map_err(|error| Complaint::io("write to standard output", &error))
            }
        }
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Output::File(file) => file.write(bytes),
            Output::Standard(out) => out.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn file_complaint(error: &FileError) -> Complaint {
    let name = plain(&String::from_utf8_lossy(error.path()));
    match error.code() {
        ItemCode::InTheWay if error.system().is_none() => Complaint::new(
            Exit::Error,
            format!("{name} exists already"),
            "add --force to replace it",
        ),
        ItemCode::InTheWay => Complaint::new(Exit::Error, plain(&error.to_string()), "add --force to replace it"),
        ItemCode::Special => Complaint::new(
            Exit::Error,
            format!("{name} is not a regular file"),
            "name a regular file; - is a stream where one can be used",
        ),
        ItemCode::DiskFull => Complaint::new(
            Exit::Safety,
            plain(&error.to_string()),
            "free some space and run it again",
        ),
        _ => Complaint::new(
            Exit::Error,
            plain(&error.to_string()),
            "check the name and the permissions",
        ),
    }
}

impl From<DeltaFileError> for Complaint {
    fn from(error: DeltaFileError) -> Complaint {
        let advice = match error {
            DeltaFileError::File(error) => return file_complaint(&error),
            DeltaFileError::Read { .. } => "check the disk or the pipe that it comes from",
            DeltaFileError::Write { .. } => "check the disk or the pipe that it goes to",
            DeltaFileError::Format(_) => "check the order of the names: `syncline delta --help` has examples",
            DeltaFileError::Damaged { .. } => "make it or fetch it again; nothing was put in the new file's place",
            DeltaFileError::OtherBasis { .. } => "use the very file that the patch was made for",
            DeltaFileError::Changed(_) => "run it again when nothing writes to the file",
            DeltaFileError::TooLarge(_) => "the limit is about 220 GiB: split the file",
        };
        Complaint::new(Exit::Error, plain(&error.to_string()), advice)
    }
}
