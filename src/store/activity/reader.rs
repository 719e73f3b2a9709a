//! Reading an activity log, also while somebody appends to it.
//!
//! Never changes anything and needs no lock. Invariant: what is no whole line of ours is skipped, and memory is
//! bounded by the two files.

use super::{NAME, OLD};
use crate::model::limits::ACTIVITY_BYTES_MAX;
use crate::store::error::{FileError, Operation};
use crate::store::private::enter_private;
use crate::store::root::Root;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{Mode, OFlags, fstat, openat};
use rustix::io::Errno;
use serde_json::{Map, Value};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

/// A log that is read from its beginning, and on as it grows.
#[derive(Debug)]
pub struct ActivityReader {
    private: OwnedFd,
    /// The file before, until it was read.
    old: Option<File>,
    young: Option<File>,
    /// Where the next line of the younger file begins.
    offset: u64,
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
        // The younger one may become the older one in between.
        let (young, old) = (open(&private, NAME)?, open(&private, OLD)?);
        let is_same = matches!((&young, &old), (Some(young), Some(old)) if inode(young) == inode(old));
        Ok(Some(ActivityReader {
            private,
            old: old.filter(|_| !is_same),
            young,
            offset: 0,
        }))
    }

    /// The latest lines: those in the last `bytes` of the younger file.
    ///
    /// # Errors
    /// As [`ActivityReader::open`] and [`ActivityReader::each`].
    pub fn latest(root: &Root, bytes: u64) -> Result<Vec<ActivityEntry>, FileError> {
        let Some(file) = ActivityReader::open(root)?.and_then(|reader| reader.young) else {
            return Ok(Vec::new());
        };
        let size = fstat(&file).map_or(0, |stat| u64::try_from(stat.st_size).unwrap_or(0));
        let tail = read_from(&file, size - bytes.min(size))?;
        Ok(entries(&tail).collect())
    }

    /// Whether anything was ever written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.old.is_none() && self.young.is_none()
    }

    /// Tells every whole line that was not told before, the oldest first: all there are, and then those that came
    /// since.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn each(&mut self, tell: &mut dyn FnMut(ActivityEntry)) -> Result<(), FileError> {
        if let Some(old) = self.old.take() {
            entries(&read_from(&old, 0)?).for_each(&mut *tell);
        }
        // What is there under the name now: if it is another file, this one is complete.
        let now = open(&self.private, NAME)?;
        self.rest(tell)?;
        if now.as_ref().and_then(inode) != self.young.as_ref().and_then(inode) && now.is_some() {
            (self.young, self.offset) = (now, 0);
            self.rest(tell)?;
        }
        Ok(())
    }

    /// The younger file from where it was read to, up to its last line break.
    fn rest(&mut self, tell: &mut dyn FnMut(ActivityEntry)) -> Result<(), FileError> {
        let Some(young) = &self.young else { return Ok(()) };
        let bytes = read_from(young, self.offset)?;
        let whole = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        self.offset += whole as u64;
        entries(&bytes[..whole]).for_each(tell);
        Ok(())
    }
}

fn open(private: &OwnedFd, name: &str) -> Result<Option<File>, FileError> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    match openat(private, name, flags, Mode::empty()) {
        Ok(file) => Ok(Some(File::from(file))),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => {
            let shown = format!(".syncline/{name}");
            Err(FileError::at(Operation::Open, shown.as_bytes(), errno))
        }
    }
}

fn inode(file: &File) -> Option<u64> {
    fstat(file).ok().map(|stat| stat.st_ino)
}

fn read_from(mut file: &File, offset: u64) -> Result<Vec<u8>, FileError> {
    let mut bytes = Vec::new();
    let read = file
        .seek(SeekFrom::Start(offset))
        .and_then(|_| file.take(READ_BYTES_MAX).read_to_end(&mut bytes));
    read.map_err(|error| FileError::at(Operation::Read, b".syncline/activity.jsonl", error))?;
    Ok(bytes)
}

fn entries(bytes: &[u8]) -> impl Iterator<Item = ActivityEntry> {
    bytes.split(|&byte| byte == b'\n').filter_map(ActivityEntry::parse)
}

impl ActivityEntry {
    /// A line without its line break; `None` when it is none of ours, or not whole.
    pub(in crate::store) fn parse(line: &[u8]) -> Option<ActivityEntry> {
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

#[cfg(test)]
mod tests {
    use super::super::{ActivityLine, ActivityWriter, Happened, Who};
    use super::*;
    use std::fs;

    fn append(root: &Root, at_ms: u64) {
        let who = Who::here();
        ActivityWriter::new(root).append(&ActivityLine {
            at_ms,
            who: &who,
            happened: Happened::Revoked,
        });
    }

    // Protects whoever follows a log: each line once and in order, half a line only when it is whole, and on into
    // the next file when one is full.
    #[test]
    fn a_log_is_followed_as_it_grows_and_into_the_next_file() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        assert!(
            ActivityReader::open(&root).unwrap().is_none(),
            "there is nothing of ours"
        );
        append(&root, 1);
        let mut reader = ActivityReader::open(&root).unwrap().unwrap();
        let told = |reader: &mut ActivityReader| {
            let mut times = Vec::new();
            reader.each(&mut |entry| times.push(entry.at_ms())).unwrap();
            times
        };
        assert_eq!((told(&mut reader), told(&mut reader)), (vec![1], vec![]));
        let (young, old) = (
            dir.path().join(".syncline").join(NAME),
            dir.path().join(".syncline").join(OLD),
        );
        append(&root, 2);
        let whole = fs::read(&young).unwrap();
        fs::write(&young, &whole[..whole.len() - 3]).unwrap();
        assert!(told(&mut reader).is_empty());
        fs::write(&young, &whole).unwrap();
        assert_eq!(told(&mut reader), [2]);
        append(&root, 3);
        fs::rename(&young, &old).unwrap();
        append(&root, 4);
        assert_eq!((told(&mut reader), told(&mut reader)), (vec![3, 4], vec![]));
        assert_eq!(told(&mut ActivityReader::open(&root).unwrap().unwrap()), [1, 2, 3, 4]);
        let latest = ActivityReader::latest(&root, 20).unwrap();
        assert!(latest.is_empty(), "less than a line is none");
        assert_eq!(ActivityReader::latest(&root, 500).unwrap()[0].at_ms(), 4);
    }
}
