//! `syncline journal [DIR]`: the transfers that are unfinished, and how far each is.
//! Never changes anything and takes no lock, so that it can be asked while a server runs.

use super::complaint::Complaint;
use super::devices::ago;
use super::exit::Exit;
use super::quantity;
use super::report::{path_fields, plain};
use super::session::{Ending, Session};
use clap::Args;
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};
use syncline::model::RelPath;
use syncline::store::{Examined, ExaminedTransfer, Incoming, Journal, JournalError, Root, Subject};

/// The operands of `journal`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  syncline journal             what is unfinished in this folder, and what this device was sending
  syncline journal ~/Share     what is unfinished in that folder

A transfer that broke off goes on by itself where it was, when it is started again. \"proven\" means
that what was received was checked since this machine started; anything else is checked once more
before it is used.")]
pub(crate) struct Flags {
    /// A folder that is shared or pulled into [default: the one you are in, and the state directory]
    #[arg(value_name = "DIR")]
    folder: Option<PathBuf>,
}

/// Runs the command.
pub(crate) fn run(session: &Session, flags: &Flags) -> Result<Ending, Complaint> {
    let here = Path::new(".");
    let folder = match &flags.folder {
        Some(folder) => Some(folder.as_path()),
        // Elsewhere a folder that nobody ever synced would be spoken of.
        None => here.join(RelPath::RESERVED).is_dir().then_some(here),
    };
    let mut complaint = None;
    if let Some(folder) = folder {
        let root = Root::open(folder)
            .map_err(|error| Complaint::new(Exit::TargetMissing, plain(&error.to_string()), "check the name"))?;
        let outcome = show(session, &Whose::Folder(folder), Journal::examine(&root));
        complaint = outcome.err();
    }
    if flags.folder.is_none() {
        let outcome = show(session, &Whose::Device, Journal::examine_home(&session.home()?));
        complaint = complaint.or(outcome.err());
    }
    match complaint {
        Some(complaint) => Err(complaint),
        None => Ok(Ending::of(Exit::Done)),
    }
}

/// Whose journal it is.
pub(super) enum Whose<'a> {
    Folder(&'a Path),
    /// That of the state directory.
    Device,
}

impl Whose<'_> {
    /// To follow "the journal of".
    pub(super) fn name(&self) -> String {
        match self {
            Whose::Folder(folder) => plain(&folder.to_string_lossy()),
            Whose::Device => "this device".to_owned(),
        }
    }

    /// What mends it.
    pub(super) fn remedy(&self) -> String {
        match self {
            Whose::Folder(folder) => format!("syncline doctor --repair '{}'", plain(&folder.to_string_lossy())),
            Whose::Device => "syncline doctor --repair".to_owned(),
        }
    }

    fn is_idle(&self, examined: &Examined) -> String {
        match (self, examined.file_bytes) {
            (Whose::Device, _) => "nothing that this device sends is unfinished".to_owned(),
            (Whose::Folder(_), None) => format!("nothing is unfinished in {}: it has no journal", self.name()),
            (Whose::Folder(_), Some(_)) => format!("nothing is unfinished in {}: its journal is empty", self.name()),
        }
    }
}

/// What a user is told of a journal that cannot be used.
pub(super) fn trouble(whose: &Whose<'_>, error: &JournalError) -> (String, String) {
    let name = whose.name();
    match error {
        JournalError::Damaged { .. } => (
            plain(&format!("{error}, in {name}")),
            format!("nothing was changed; `{}` keeps what is whole", whose.remedy()),
        ),
        JournalError::Version(_) => (
            plain(&format!("{error}, in {name}")),
            "update syncline on this machine".to_owned(),
        ),
        JournalError::Held { .. } => (plain(&format!("{error}, in {name}")), "stop that one first".to_owned()),
        JournalError::ReadOnly => (
            plain(&format!("{error}, in {name}")),
            "check its owner and mode, and whether the disk can be written to".to_owned(),
        ),
        JournalError::File(_) => (
            plain(&format!("{error}, in {name}")),
            "check its owner and mode; it is a plain file of Syncline's own".to_owned(),
        ),
    }
}

fn show(session: &Session, whose: &Whose<'_>, examined: Result<Examined, JournalError>) -> Result<(), Complaint> {
    let console = &session.console;
    let examined = examined.map_err(|error| {
        let (what, advice) = trouble(whose, &error);
        Complaint::new(Exit::Error, what, advice)
    })?;
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| time.as_secs());
    table(&examined.transfers, now)
        .iter()
        .for_each(|line| console.data(line));
    for transfer in &examined.transfers {
        console.object(&object(&examined, transfer));
    }
    match examined.transfers.is_empty() {
        true => console.note(&whose.is_idle(&examined)),
        false => console.data(&total(whose, &examined)),
    }
    console.object(&json!({
        "event": "status", "journal": examined.path.to_string_lossy(), "transfers": examined.transfers.len(),
        "file_bytes": examined.file_bytes.unwrap_or(0), "live_bytes": examined.live_bytes,
    }));
    Ok(())
}

fn total(whose: &Whose<'_>, examined: &Examined) -> String {
    format!(
        "{} in {} · journal of {}, {} of it live",
        quantity::counted(examined.transfers.len() as u64, "unfinished transfer"),
        whose.name(),
        quantity::size(examined.file_bytes.unwrap_or(0)),
        quantity::size(examined.live_bytes),
    )
}

fn table(transfers: &[ExaminedTransfer], now: u64) -> Vec<String> {
    let rows: Vec<[String; 6]> = transfers.iter().map(|transfer| row(transfer, now)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..6).map(width).collect();
    let line = |row: &[String; 6]| {
        let cells = row.iter().zip(&widths);
        let text: Vec<String> = cells.map(|(cell, &width)| format!("{cell:width$}")).collect();
        text.join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

fn row(transfer: &ExaminedTransfer, now: u64) -> [String; 6] {
    let unfinished = &transfer.unfinished;
    let (size, offset) = (unfinished.subject.size(), unfinished.reached.offset);
    let far = format!(
        "{} ({})",
        quantity::size_of(offset, size),
        quantity::percent(offset, size)
    );
    let touched = u64::try_from(unfinished.touched).unwrap_or(0);
    let proven = if unfinished.proven {
        "proven"
    } else {
        "to be checked again"
    };
    let (what, way, staged) = match &unfinished.subject {
        Subject::Incoming(incoming) => (incoming.path.to_string(), arrives(incoming), staged(transfer)),
        Subject::Outgoing(identity) => (
            format!("a file of {} (inode {})", quantity::size(size), identity.inode()),
            "sent by this device".to_owned(),
            String::new(),
        ),
    };
    [what, way, far, ago(touched, now), proven.to_owned(), staged]
}

fn arrives(incoming: &Incoming) -> String {
    let peer = incoming.peer.map_or_else(|| "anyone".to_owned(), |id| id.short());
    match incoming.basis {
        None => format!("from {peer}"),
        Some(basis) if basis.in_place => format!("from {peer}, in place"),
        Some(_) => format!("from {peer}, as a patch"),
    }
}

fn staged(transfer: &ExaminedTransfer) -> String {
    match transfer.staged {
        Some(staged) => format!("{} staged", quantity::size(staged.on_disk)),
        None => "staged file missing".to_owned(),
    }
}

fn object(examined: &Examined, transfer: &ExaminedTransfer) -> Value {
    let unfinished = &transfer.unfinished;
    let own = match &unfinished.subject {
        Subject::Incoming(incoming) => {
            let mut own = path_fields(incoming.path.as_bytes());
            own.insert("direction".into(), "incoming".into());
            own.insert("peer".into(), incoming.peer.map(|id| id.to_string()).into());
            own.insert("patch".into(), incoming.basis.is_some().into());
            own.insert(
                "in_place".into(),
                incoming.basis.is_some_and(|basis| basis.in_place).into(),
            );
            own.insert(
                "staged_bytes".into(),
                transfer.staged.map(|staged| staged.length).into(),
            );
            own.insert(
                "staged_disk_bytes".into(),
                transfer.staged.map(|staged| staged.on_disk).into(),
            );
            own
        }
        Subject::Outgoing(identity) => Map::from_iter([
            ("direction".to_owned(), "outgoing".into()),
            ("inode".to_owned(), identity.inode().into()),
        ]),
    };
    let mut object = Map::from_iter([
        ("event".to_owned(), "item".into()),
        ("journal".to_owned(), examined.path.to_string_lossy().into()),
        ("id".to_owned(), unfinished.id.to_string().into()),
        ("size".to_owned(), unfinished.subject.size().into()),
        ("offset".to_owned(), unfinished.reached.offset.into()),
        ("touched".to_owned(), unfinished.touched.into()),
        ("proven".to_owned(), unfinished.proven.into()),
    ]);
    object.extend(own);
    Value::Object(object)
}

#[cfg(test)]
mod tests {
    use super::*;
    use syncline::model::{DeviceId, Timestamp};
    use syncline::store::{Reached, StagedBytes, TransferId, Unfinished};

    fn transfer(name: &[u8], peer: Option<u8>) -> ExaminedTransfer {
        let incoming = Incoming {
            path: RelPath::parse(name).unwrap(),
            peer: peer.map(|byte| DeviceId([byte; 32])),
            size: 4 << 20,
            mtime: Timestamp { seconds: 0, nanos: 0 },
            basis: None,
        };
        let unfinished = Unfinished {
            id: TransferId(7),
            subject: Subject::Incoming(incoming),
            reached: Reached {
                offset: 1 << 20,
                frontier: vec![[0; 32]],
                changed: Vec::new(),
            },
            proven: true,
            touched: 1_000,
        };
        ExaminedTransfer {
            unfinished,
            staged: None,
        }
    }

    /// A name from outside is one line that cannot steer the terminal, and exact for scripts.
    #[test]
    fn columns_line_up_and_a_name_cannot_add_a_line() {
        let mut second = transfer(b"film.mkv", None);
        second.unfinished.proven = false;
        second.staged = Some(StagedBytes {
            length: 9,
            on_disk: 4_096,
        });
        let transfers = [transfer(b"a\n\x1b[2J\xff", Some(0)), second];
        assert_eq!(
            table(&transfers, 1_200),
            [
                "a\\n\\u{1b}[2J\\xff  from AAAA-AAAA  1.0/4.0 MiB (25.0 %)  3 min ago  proven               staged file missing",
                "film.mkv          from anyone     1.0/4.0 MiB (25.0 %)  3 min ago  to be checked again  4.0 KiB staged",
            ]
        );
        let examined = Examined {
            path: PathBuf::from(".syncline/journal"),
            file_bytes: Some(1_000),
            live_bytes: 100,
            transfers: Vec::new(),
        };
        let first = object(&examined, &transfers[0]);
        assert_eq!(first["path_hex"], "610a1b5b324aff");
        assert_eq!(
            (&first["id"], &first["offset"]),
            (&"0000000000000007".into(), &(1 << 20).into())
        );
        assert_eq!(
            (&first["staged_bytes"], &first["peer"]),
            (&Value::Null, &"00".repeat(32).into())
        );
        assert_eq!(object(&examined, &transfers[1])["staged_disk_bytes"], 4_096);
    }

    /// Each trouble names the folder and says what to do, in one line.
    #[test]
    fn every_trouble_has_its_advice() {
        let whose = Whose::Folder(Path::new("/srv/a\nb"));
        let damaged = JournalError::Damaged {
            at: 44,
            records_before: 0,
            records_behind: 3,
        };
        let (what, advice) = trouble(&whose, &damaged);
        assert!(what.contains("byte 44") && what.contains("/srv/a\\nb"), "{what}");
        assert!(advice.contains("syncline doctor --repair '/srv/a\\nb'"), "{advice}");
        let (what, advice) = trouble(&Whose::Device, &JournalError::Version(2));
        assert!(
            what.contains("this device") && advice.contains("update"),
            "{what} {advice}"
        );
    }
}
