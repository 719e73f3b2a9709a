//! `syncline versions PATH`: what is kept of a file, or of everything below a directory.
//! Never changes anything; `restore` and `trash` do. What the three share in words is here.

use super::complaint::Complaint;
use super::exit::Exit;
use super::quantity;
use super::report::{path_fields, plain};
use super::session::{Ending, Session};
use clap::Args;
use serde_json::{Map, Value, json};
use std::path::PathBuf;
use syncline::model::{ItemCode, RelPath};
use syncline::node::{History, HistoryError, Summary};
use syncline::store::{AuthorTag, Device, Home, Reason, RestoreError, Version};

/// The operands of `versions`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  syncline versions ~/Share/report.docx   the versions of a file, also of one that is gone
  syncline versions ~/Share               those of all files

The first column is what `syncline restore PATH --version ID` takes. A share keeps what pushes replace,
delete or change in place, and a synced folder what a sync does; `syncline serve --keep-versions` says for how long.")]
pub(crate) struct Flags {
    /// A file or directory of a share, or of a synced folder, on this machine
    #[arg(value_name = "PATH", default_value = ".")]
    path: PathBuf,
}

/// Runs the command.
pub(crate) fn run(session: &Session, flags: &Flags) -> Result<Ending, Complaint> {
    let (history, path) = History::find(&flags.path)?;
    let authors = Authors::known(session);
    let mut summary = Summary::default();
    list(session, (&history, None), path.as_ref(), &authors, &mut summary)?;
    if path.is_none() {
        for (name, place) in history.places()? {
            list(session, (&place, Some(&name)), None, &authors, &mut summary)?;
        }
    }
    if summary.files == 0 {
        if let Some(path) = &path
            && !history.exists(path)?
        {
            return Err(HistoryError::NoVersion(path.clone()).into());
        }
        session.console.note("no versions are kept here");
    }
    Ok(Ending {
        exit: Exit::Done,
        summary,
    })
}

/// Lists what is kept of `path`, in the share itself or in the place that a device has at `name` in it.
fn list(
    session: &Session,
    (history, name): (&History, Option<&RelPath>),
    path: Option<&RelPath>,
    authors: &Authors,
    summary: &mut Summary,
) -> Result<(), Complaint> {
    let mut shown: Option<RelPath> = None;
    for version in &history.versions(path)? {
        if session.console.reader_is_gone() {
            break;
        }
        let within = name.map_or_else(String::new, |name| format!("{name}/"));
        if shown.as_ref() != Some(version.path()) {
            session.console.data(&format!("{within}{}", version.path()));
            shown = Some(version.path().clone());
            summary.files += 1;
        }
        let size = history.content_bytes(version);
        summary.bytes += size.unwrap_or(0);
        session.console.data(&format!("  {}", line(version, size, authors)));
        let mut object = object(version, size, authors);
        if let Some(name) = name {
            object.insert("place".to_owned(), json!(name.to_string()));
        }
        session.console.object(&Value::Object(object));
    }
    Ok(())
}

/// `3f9a2c71  2026-11-21 06:43:12 UTC  12 KiB  replaced by laptop (4XQ7-M2KD)`.
pub(crate) fn line(version: &Version, size: Option<u64>, authors: &Authors) -> String {
    let name = version.name();
    let size = size.map_or_else(|| "unreadable".to_owned(), quantity::size);
    format!(
        "{}  {}  {size:>8}  {} by {}",
        name.id(),
        name.kept_at().readable(),
        verb(name.reason()),
        authors.text(name.author()),
    )
}

/// A version for scripts.
pub(crate) fn object(version: &Version, size: Option<u64>, authors: &Authors) -> Map<String, Value> {
    let name = version.name();
    let mut object = path_fields(version.path().as_bytes());
    let device = match name.author() {
        AuthorTag::Device(short) => Some(hyphened(short)),
        AuthorTag::Anyone | AuthorTag::Local => None,
    };
    let author = match name.author() {
        AuthorTag::Device(_) => "device",
        AuthorTag::Anyone => "anyone",
        AuthorTag::Local => "local",
    };
    let fields = json!({
        "event": "item", "version": name.id(), "name": name.to_string(), "reason": verb(name.reason()),
        "kept_at": name.kept_at().seconds(), "by": author, "device": device,
        "device_name": authors.name_of(name.author()), "size": size, "disk_bytes": version.disk_bytes(),
    });
    object.extend(fields.as_object().cloned().unwrap_or_default());
    object
}

fn verb(reason: Reason) -> &'static str {
    match reason {
        Reason::Replaced => "replaced",
        Reason::Deleted => "deleted",
        Reason::Changed => "changed",
    }
}

/// The devices that a name is known of.
pub(crate) struct Authors(Vec<Device>);

impl Authors {
    /// Those that were paired with this machine. Without a state directory, none: it is not made for this.
    pub(crate) fn known(session: &Session) -> Authors {
        let home = session.home_path().ok().filter(|path| path.is_dir());
        let home = home.and_then(|path| Home::open(&path).ok());
        Authors(home.and_then(|home| home.trust().devices().ok()).unwrap_or_default())
    }

    fn name_of(&self, author: &AuthorTag) -> Option<&str> {
        let device = self.0.iter().find(|device| author.fits(&device.id));
        device.map(|device| device.name.as_str())
    }

    /// `laptop (4XQ7-M2KD)`, `anyone`, `a command here`.
    pub(crate) fn text(&self, author: &AuthorTag) -> String {
        match (author, self.name_of(author)) {
            (AuthorTag::Device(short), Some(name)) => format!("{} ({})", plain(name), hyphened(short)),
            (AuthorTag::Device(short), None) => hyphened(short),
            (AuthorTag::Anyone, _) => "somebody without a key".to_owned(),
            (AuthorTag::Local, _) => "a command on this machine".to_owned(),
        }
    }
}

/// `4XQ7-M2KD`, as elsewhere.
fn hyphened(short: &str) -> String {
    let (first, second) = short.split_at(short.len() / 2);
    format!("{first}-{second}")
}

/// A path as an argument that a shell takes as it is.
pub(crate) fn quoted(text: &str) -> String {
    let simple = |c: char| c.is_ascii_alphanumeric() || "/._-+=@%:,".contains(c);
    if !text.is_empty() && text.chars().all(simple) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}

impl From<HistoryError> for Complaint {
    fn from(error: HistoryError) -> Complaint {
        let what = error.to_string();
        let (exit, advice) = match &error {
            HistoryError::NoShare(_) => (
                Exit::TargetMissing,
                "name a path in a folder that was served or synced on this machine",
            ),
            HistoryError::Path { .. } => (Exit::Usage, "name a file or directory of the share"),
            HistoryError::NoVersion(_) => (
                Exit::TargetMissing,
                "`syncline versions DIR` lists what is kept of all files, `syncline trash DIR` what was deleted",
            ),
            HistoryError::UnknownVersion { .. } => (
                Exit::TargetMissing,
                "`syncline versions PATH` lists the versions with their ids",
            ),
            HistoryError::AmbiguousVersion { .. } => {
                (Exit::Usage, "write more of the id, as `syncline versions` shows it")
            }
            HistoryError::Directory(_) => (
                Exit::Usage,
                "name a file in it, or another place for the version: --to NEWPATH",
            ),
            HistoryError::Restore(RestoreError::Successor(_)) => (
                Exit::Error,
                "`syncline versions PATH` lists the others; later ones may work",
            ),
            HistoryError::Restore(RestoreError::Newer(_)) => {
                (Exit::Error, "use the syncline that kept it, or a later one")
            }
            HistoryError::Restore(RestoreError::Damaged(_)) => {
                (Exit::Error, "`syncline versions PATH` lists the others")
            }
            HistoryError::Restore(RestoreError::File(file)) | HistoryError::File(file) => match file.code() {
                ItemCode::DiskFull => (
                    Exit::Safety,
                    "free some space (`syncline trash --empty` may help) and run the same command again",
                ),
                _ => (Exit::Error, "check the permissions, and what stands there"),
            },
            HistoryError::Unreadable { .. } => (Exit::Error, "check the permissions of the directories above it"),
        };
        Complaint::new(exit, what, advice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use syncline::model::DeviceId;

    #[test]
    fn a_known_device_has_a_name_that_cannot_add_a_line() {
        let device = Device {
            id: DeviceId([0; 32]),
            name: "lap\ntop".to_owned(),
            shares: Vec::new(),
            paired_at: 0,
            last_seen: None,
        };
        let authors = Authors(vec![device]);
        let tag = |short: &str| AuthorTag::Device(short.to_owned());
        assert_eq!(authors.text(&tag("AAAAAAAA")), "lap\\ntop (AAAA-AAAA)");
        assert_eq!(authors.text(&tag("4XQ7M2KD")), "4XQ7-M2KD");
        assert_eq!(authors.text(&AuthorTag::Anyone), "somebody without a key");
    }

    #[test]
    fn what_a_shell_would_take_apart_is_quoted() {
        assert_eq!(quoted("docs/a-b.txt"), "docs/a-b.txt");
        assert_eq!(quoted("it's $HOME"), "'it'\\''s $HOME'");
        assert_eq!(quoted(""), "''");
    }
}
