//! Reading an activity log, also while somebody appends to it.
//!
//! Never changes anything and needs no lock. Invariant: what is no whole line of ours is skipped, and memory is
//! bounded by the two files.

use super::{NAME, OLD};
use crate::model::limits::ACTIVITY_BYTES_MAX;
use crate::store::error::{FileError, Operation};
use crate::store::private::enter_private;
use crate::store::root::Root;
use rustix::fd::AsFd;
use rustix::fs::{Mode, OFlags, fstat, openat};
use rustix::io::Errno;
use serde_json::{Map, Value};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

/// What there is of a log.
#[derive(Debug)]
pub struct ActivityReader {
    /// The older one first.
    files: Vec<File>,
}

/// One line that was read.
#[derive(Debug, Clone)]
pub struct ActivityEntry {
    text: String,
    fields: Map<String, Value>,
}

/// Bytes of one file that are read: whoever else wrote there is not believed to have kept the bound.
const READ_BYTES_MAX: u64 = 2 * ACTIVITY_BYTES_MAX;

impl ActivityReader {
    /// The log of the folder at `root`; `None` when it has nothing of Syncline's.
    ///
    /// # Errors
    /// When something is there and cannot be read.
    pub fn open(root: &Root) -> Result<Option<ActivityReader>, FileError> {
        let private = match enter_private(root.directory().as_fd()) {
            Err(Errno::NOENT) => return Ok(None),
            other => other.map_err(|errno| FileError::at(Operation::Open, b".syncline", errno))?,
        };
        let open = |name: &str| {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            match openat(&private, name, flags, Mode::empty()) {
                Ok(file) => Ok(Some(File::from(file))),
                Err(Errno::NOENT) => Ok(None),
                Err(errno) => {
                    let shown = format!(".syncline/{name}");
                    Err(FileError::at(Operation::Open, shown.as_bytes(), errno))
                }
            }
        };
        // The younger one may become the older one in between.
        let (young, old) = (open(NAME)?, open(OLD)?);
        let inode = |file: &File| fstat(file).ok().map(|stat| stat.st_ino);
        let is_same = matches!((&young, &old), (Some(young), Some(old)) if inode(young) == inode(old));
        let old = old.filter(|_| !is_same);
        Ok(Some(ActivityReader {
            files: old.into_iter().chain(young).collect(),
        }))
    }

    /// The latest lines: those in the last `bytes` of the younger file.
    ///
    /// # Errors
    /// As [`ActivityReader::open`] and [`ActivityReader::each`].
    pub fn latest(root: &Root, bytes: u64) -> Result<Vec<ActivityEntry>, FileError> {
        let Some(file) = ActivityReader::open(root)?.and_then(|mut reader| reader.files.pop()) else {
            return Ok(Vec::new());
        };
        let size = fstat(&file).map_or(0, |stat| u64::try_from(stat.st_size).unwrap_or(0));
        let start = size - bytes.min(size);
        let mut tail = vec![0; usize::try_from(size - start).unwrap_or(0)];
        file.read_exact_at(&mut tail, start)
            .map_err(|error| unreadable(&error))?;
        Ok(entries(&tail).collect())
    }

    /// Whether anything was ever written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Tells every line, the oldest first.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn each(self, tell: &mut dyn FnMut(ActivityEntry)) -> Result<(), FileError> {
        for file in self.files {
            let mut bytes = Vec::new();
            file.take(READ_BYTES_MAX)
                .read_to_end(&mut bytes)
                .map_err(|error| unreadable(&error))?;
            entries(&bytes).for_each(&mut *tell);
        }
        Ok(())
    }
}

fn entries(bytes: &[u8]) -> impl Iterator<Item = ActivityEntry> {
    bytes.split(|&byte| byte == b'\n').filter_map(ActivityEntry::parse)
}

fn unreadable(error: &io::Error) -> FileError {
    FileError::at(Operation::Read, b".syncline/activity.jsonl", error.kind())
}

impl ActivityEntry {
    /// A line without its line break; `None` when it is none of ours, or not whole.
    pub(super) fn parse(line: &[u8]) -> Option<ActivityEntry> {
        let text = std::str::from_utf8(line).ok()?;
        let fields: Map<String, Value> = serde_json::from_str(text).ok()?;
        let is_ours =
            fields.get("at_ms").is_some_and(Value::is_u64) && fields.get("event").is_some_and(Value::is_string);
        is_ours.then(|| ActivityEntry {
            text: text.to_owned(),
            fields,
        })
    }

    /// The line as it stands in the file. Whoever shows it makes it harmless first.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// When it happened, in milliseconds since 1970.
    #[must_use]
    pub fn at_ms(&self) -> u64 {
        self.number("at_ms").unwrap_or(0)
    }

    /// What happened: `item`, `conflict`, `error`, `run`, `paired`, `revoked`, `refused`, `unlisted`; a later
    /// version may know others.
    #[must_use]
    pub fn event(&self) -> &str {
        self.field("event").unwrap_or_default()
    }

    /// A field that is text.
    #[must_use]
    pub fn field(&self, key: &str) -> Option<&str> {
        self.fields.get(key)?.as_str()
    }

    /// A field that is a number.
    #[must_use]
    pub fn number(&self, key: &str) -> Option<u64> {
        self.fields.get(key)?.as_u64()
    }

    /// Whether something did not work: an entry that failed, a visitor who was refused, a run in which anything
    /// failed or which did not come to its end.
    #[must_use]
    pub fn is_failure(&self) -> bool {
        match self.event() {
            "error" | "refused" => true,
            "run" => self.number("failed").unwrap_or(0) > 0 || self.field("reason").is_some(),
            _ => false,
        }
    }
}
