//! What a folder is synced with, and which part it has beside a peer: a line of text in `.syncline/link` and one in
//! `.syncline/peer`, which people can read as well.
//!
//! Invariant: a file holds the whole line or is not there; a link in its place is not followed.

use super::error::FileError;
use super::ours::{read_text, write_file};
use super::root::Root;
use super::undo::Flush;

/// The files, beside the base.
const LINK: &str = "link";
pub(super) const PEER: &str = "peer";
const BYTES_MAX: usize = 8 * 1024;

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
    let text = read_text(root, name, BYTES_MAX)?;
    Ok(text.map(|text| text.trim().to_owned()))
}

fn write_line(root: &Root, name: &str, line: &str) -> Result<(), FileError> {
    write_file(root, name, format!("{line}\n").as_bytes(), Flush::Disk)
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
