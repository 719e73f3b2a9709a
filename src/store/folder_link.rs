//! What a folder is synced with, and which part it has beside a peer: a line of text in `.syncline/link` and one in
//! `.syncline/peer`, which people can read as well.
//!
//! Invariant: a file holds the whole line or is not there; a link in its place is not followed.

use super::error::{FileError, Operation};
use super::private::{enter_private, open_private};
use super::root::Root;
use rustix::fd::AsFd;
use rustix::fs::{Mode, OFlags, openat, renameat};
use rustix::io::Errno;
use std::fs::File;
use std::io::{Read, Write};

/// The files, beside the base.
const LINK: &str = "link";
pub(super) const PEER: &str = "peer";
const BYTES_MAX: u64 = 8 * 1024;

/// The link that `root` is synced by; `None` when it never was.
///
/// # Errors
/// When the file is there and cannot be read, or is no text.
pub fn folder_link(root: &Root) -> Result<Option<String>, FileError> {
    read_line(root, LINK)
}

/// What is noted of the peer of `root`, as [`set_peer_note`] was given it; `None` when nothing is.
///
/// # Errors
/// When the file is there and cannot be read, or is no text.
pub fn peer_note(root: &Root) -> Result<Option<String>, FileError> {
    read_line(root, PEER)
}

/// Notes what `root` is synced with. Blocks for the disk.
///
/// # Errors
/// When it cannot be written.
pub fn set_folder_link(root: &Root, link: &str) -> Result<(), FileError> {
    write_line(root, LINK, link)
}

/// Notes which part `root` has beside its peer. Blocks for the disk.
///
/// # Errors
/// When it cannot be written.
pub fn set_peer_note(root: &Root, note: &str) -> Result<(), FileError> {
    write_line(root, PEER, note)
}

fn read_line(root: &Root, name: &str) -> Result<Option<String>, FileError> {
    let shown = format!(".syncline/{name}");
    let failed = |errno| FileError::at(Operation::Read, shown.as_bytes(), errno);
    let private = match enter_private(root.directory().as_fd()) {
        Err(Errno::NOENT) => return Ok(None),
        other => other.map_err(failed)?,
    };
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match openat(&private, name, flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(None),
        other => File::from(other.map_err(failed)?),
    };
    let mut text = String::new();
    let read = file.take(BYTES_MAX).read_to_string(&mut text);
    read.map_err(|error| FileError::at_path(Operation::Read, &root.path().join(&shown), error))?;
    Ok(Some(text.trim().to_owned()))
}

fn write_line(root: &Root, name: &str, line: &str) -> Result<(), FileError> {
    let shown = format!(".syncline/{name}");
    let written_as = format!("{name}.new");
    let failed = |errno| FileError::at(Operation::Write, shown.as_bytes(), errno);
    let private = open_private(root.directory().as_fd()).map_err(failed)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = File::from(openat(&private, written_as.as_str(), flags, Mode::RUSR | Mode::WUSR).map_err(failed)?);
    let written = file
        .write_all(line.as_bytes())
        .and_then(|()| file.write_all(b"\n"))
        .and_then(|()| file.sync_all());
    written.map_err(|error| FileError::at_path(Operation::Write, &root.path().join(&shown), error))?;
    renameat(&private, written_as.as_str(), &private, name).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_remembers_its_link_and_follows_none() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        assert_eq!(folder_link(&root).unwrap(), None);
        set_folder_link(&root, "syncline://h:1/S").unwrap();
        set_folder_link(&root, "syncline://h:2/S").unwrap();
        assert_eq!(folder_link(&root).unwrap().as_deref(), Some("syncline://h:2/S"));
        let file = dir.path().join(".syncline/link");
        std::fs::remove_file(&file).unwrap();
        std::fs::write(dir.path().join("other"), "secret").unwrap();
        std::os::unix::fs::symlink("../other", &file).unwrap();
        assert!(folder_link(&root).is_err());
    }
}
