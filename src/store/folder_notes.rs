//! What a synced folder keeps for commands: that it is paused, how its last run ended, which names had no place.
//! Also forgets a sync.
//!
//! Small files in `.syncline/` beside the base; nothing of the sync itself depends on them. Invariant: a note is
//! there as a whole or not at all, and no link in its place is followed.

use super::error::FileError;
use super::folder_link::PEER;
use super::ours::{has_file, read_file, remove_file, write_file};
use super::private::remove_private_if_empty;
use super::root::Root;
use super::undo::Flush;
use crate::model::RelPath;
use rustix::fd::AsFd;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How a run of sync ended, or, while it goes on, when both sides were the same last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastRun {
    /// Seconds since 1970, by this machine's clock.
    pub at: u64,
    /// The exit code of the command; 0 while it goes on.
    pub exit_code: u8,
    /// Entries that were the same on both sides; `None` when they never were in that run.
    pub entries: Option<u64>,
}

/// A path that one side of a sync has no place for, since its file system takes it for another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotedCollision {
    /// What has no place.
    pub path: RelPath,
    /// What has its place, if that is known.
    pub with: Option<RelPath>,
    /// It has no place in the folder; else in the share.
    pub is_here: bool,
}

const COLLISIONS: &str = "collisions";
/// Bytes of the note of collisions: some thousands of them.
const COLLISIONS_BYTES_MAX: usize = 1 << 20;
const PAUSED: &str = "paused";
const LAST_RUN: &str = "last-run";
const TIDIED: &str = "tidied";
const LINK: &str = "link";
const BASE: &str = "index.redb";
const BYTES_MAX: usize = 1024;

/// Whether syncing `root` is paused.
///
/// # Errors
/// When that cannot be looked at.
pub fn folder_is_paused(root: &Root) -> Result<bool, FileError> {
    read(root, PAUSED).map(|note| note.is_some())
}

/// Pauses the syncing of `root`, or has it go on. Returns whether that changed anything.
///
/// # Errors
/// When it cannot be written.
pub fn pause_folder(root: &Root, paused: bool) -> Result<bool, FileError> {
    if folder_is_paused(root)? == paused {
        return Ok(false);
    }
    match paused {
        true => write(root, PAUSED, b"paused by a user; `syncline resume` removes this\n")?,
        false => remove_file(root, PAUSED)?,
    }
    Ok(true)
}

/// How the last run in `root` ended; `None` when none did, or the note makes no sense.
///
/// # Errors
/// When it is there and cannot be read.
pub fn last_run(root: &Root) -> Result<Option<LastRun>, FileError> {
    Ok(read(root, LAST_RUN)?.and_then(|text| parse(&text)))
}

/// Notes how a run in `root` ends now.
///
/// # Errors
/// When it cannot be written.
pub fn note_run(root: &Root, exit_code: u8, entries: Option<u64>) -> Result<(), FileError> {
    let at = seconds_now();
    let entries = entries.map_or_else(|| "-".to_owned(), |entries| entries.to_string());
    write(root, LAST_RUN, format!("{at} {exit_code} {entries}\n").as_bytes())
}

/// The names that had no place in the last run in `root`; what makes no sense in the note is left out.
///
/// # Errors
/// When it is there and cannot be read.
pub fn collisions(root: &Root) -> Result<Vec<NotedCollision>, FileError> {
    let bytes = read_file(root, COLLISIONS, COLLISIONS_BYTES_MAX)?;
    Ok(decode_collisions(&bytes.unwrap_or_default()))
}

/// Notes which names have no place, as many as there is room for.
///
/// # Errors
/// When it cannot be written.
pub fn note_collisions(root: &Root, list: &[NotedCollision]) -> Result<(), FileError> {
    let bytes = encode_collisions(list);
    match bytes.is_empty() {
        true => remove_file(root, COLLISIONS),
        false => write(root, COLLISIONS, &bytes),
    }
}

/// The note of as many as there is room for.
pub(super) fn encode_collisions(list: &[NotedCollision]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for one in list {
        let side: &[u8] = if one.is_here { b"here" } else { b"there" };
        let with = one.with.as_ref().map_or(&b""[..], RelPath::as_bytes);
        let line = [side, b"\0", one.path.as_bytes(), b"\0", with, b"\0"].concat();
        if bytes.len() + line.len() > COLLISIONS_BYTES_MAX {
            break;
        }
        bytes.extend(line);
    }
    bytes
}

/// What a note says that makes sense.
pub(super) fn decode_collisions(bytes: &[u8]) -> Vec<NotedCollision> {
    let fields: Vec<&[u8]> = bytes.split(|&byte| byte == 0).collect();
    let noted = fields.chunks_exact(3).filter_map(|fields| {
        Some(NotedCollision {
            is_here: fields[0] == b"here",
            path: RelPath::parse(fields[1]).ok()?,
            with: RelPath::parse(fields[2]).ok(),
        })
    });
    noted.collect()
}

/// How long ago old versions of `root` were let go; `None` when they never were, or by a clock that was wrong.
///
/// # Errors
/// When that is noted and cannot be read.
pub fn since_tidied(root: &Root) -> Result<Option<Duration>, FileError> {
    let at: Option<u64> = read(root, TIDIED)?.and_then(|text| text.trim().parse().ok());
    Ok(at.and_then(|at| seconds_now().checked_sub(at)).map(Duration::from_secs))
}

/// Notes that old versions of `root` were let go now.
///
/// # Errors
/// When it cannot be written.
pub fn note_tidied(root: &Root) -> Result<(), FileError> {
    write(root, TIDIED, format!("{}\n", seconds_now()).as_bytes())
}

/// Has `root` forget what it is synced with, and what was agreed on. The caller has its lock. The link goes last:
/// a base without one would be taken for that of a share.
///
/// # Errors
/// When something cannot be removed; then it is forgotten in part, and the next call goes on.
pub fn forget_sync(root: &Root) -> Result<(), FileError> {
    for name in [BASE, LAST_RUN, TIDIED, COLLISIONS, PAUSED, PEER, LINK] {
        remove_file(root, name)?;
    }
    remove_private_if_empty(root.directory().as_fd());
    Ok(())
}

/// Whether `root` has an index and no link: it was served as a share.
///
/// # Errors
/// When that cannot be looked at.
pub fn is_index_of_a_share(root: &Root) -> Result<bool, FileError> {
    Ok(has_file(root, BASE)? && !has_file(root, LINK)?)
}

/// Seconds since 1970.
fn seconds_now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

fn parse(text: &str) -> Option<LastRun> {
    let mut words = text.split_ascii_whitespace();
    Some(LastRun {
        at: words.next()?.parse().ok()?,
        exit_code: words.next()?.parse().ok()?,
        entries: words.next()?.parse().ok(),
    })
}

fn read(root: &Root, name: &str) -> Result<Option<String>, FileError> {
    let bytes = read_file(root, name, BYTES_MAX)?;
    Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
}

fn write(root: &Root, name: &str, text: &[u8]) -> Result<(), FileError> {
    // A cut leaves the note of an earlier time, or none: neither is worth waiting for the disk.
    write_file(root, name, text, Flush::Nothing)
}

#[cfg(test)]
mod tests {
    use super::super::folder_link::{folder_link, set_folder_link};
    use super::*;

    // Protects what commands believe of a folder: each note is what was said last, and damage is no news.
    #[test]
    fn notes_are_kept_and_forgotten_with_the_link() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        assert!(!folder_is_paused(&root).unwrap() && last_run(&root).unwrap().is_none());
        assert!(!pause_folder(&root, false).unwrap() && pause_folder(&root, true).unwrap());
        assert!(folder_is_paused(&root).unwrap() && !pause_folder(&root, true).unwrap());
        set_folder_link(&root, "syncline://h:1/S").unwrap();
        note_run(&root, 4, Some(18)).unwrap();
        let noted = last_run(&root).unwrap().unwrap();
        assert_eq!((noted.exit_code, noted.entries), (4, Some(18)));
        note_run(&root, 5, None).unwrap();
        assert_eq!(last_run(&root).unwrap().unwrap().entries, None);
        std::fs::write(dir.path().join(".syncline/last-run"), "\u{0}nonsense").unwrap();
        assert_eq!(last_run(&root).unwrap(), None);
        let path = |text: &[u8]| RelPath::parse(text).unwrap();
        let noted = |with: Option<RelPath>| NotedCollision {
            path: path(b"d/\xffb\n"),
            is_here: with.is_some(),
            with,
        };
        let list = [noted(Some(path(b"d/B"))), noted(None)];
        note_collisions(&root, &list).unwrap();
        assert_eq!(collisions(&root).unwrap(), list);
        note_collisions(&root, &[]).unwrap();
        assert!(collisions(&root).unwrap().is_empty());
        note_collisions(&root, &list).unwrap();
        forget_sync(&root).unwrap();
        assert_eq!(folder_link(&root).unwrap(), None);
        assert!(!dir.path().join(".syncline").exists());
        forget_sync(&root).unwrap();
    }

    // Protects other files: a link in the place of a note is not followed, neither to read nor to write.
    #[test]
    fn a_link_in_the_place_of_a_note_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        let other = dir.path().join("other");
        std::fs::write(&other, "1 0 7").unwrap();
        std::fs::create_dir(dir.path().join(".syncline")).unwrap();
        for name in ["last-run", "last-run.new"] {
            std::os::unix::fs::symlink("../other", dir.path().join(".syncline").join(name)).unwrap();
        }
        assert!(last_run(&root).is_err() && note_run(&root, 0, None).is_err());
        assert_eq!(std::fs::read_to_string(&other).unwrap(), "1 0 7");
    }
}
