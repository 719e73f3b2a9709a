//! Whose a directory is: the id of a device in `.syncline/owner` of it, where a share gives each device a place of
//! its own.
//!
//! Never reads or changes anything else there. Invariant: the file holds a whole id or is not there; no path from
//! outside leads to it, and a link in its place is not followed.

use super::error::{FileError, Operation};
use super::ours::{flush_names, read_text, write_file};
use super::root::Root;
use super::undo::Flush;
use crate::model::{DeviceId, RelPath};
use rustix::fs::{Dir, FileType, Mode, OFlags, fsync, openat};
use std::io;

const NAME: &str = "owner";
const BYTES_MAX: usize = 256;

/// Whose `root` is; `None` when nobody's.
///
/// # Errors
/// When that cannot be read, or is no device's id.
pub fn owner_of(root: &Root) -> Result<Option<DeviceId>, FileError> {
    let Some(text) = read_text(root, NAME, BYTES_MAX)? else {
        return Ok(None);
    };
    text.trim().parse().map(Some).map_err(|_| {
        let error = io::Error::other("it holds no device's id");
        FileError::at(Operation::Read, b".syncline/owner", error)
    })
}

/// Makes `root`, a directory in `share`, the place of `device`. Blocks for the disk.
///
/// # Errors
/// When it cannot be written.
pub fn set_owner(share: &Root, root: &Root, device: &DeviceId) -> Result<(), FileError> {
    write_file(root, NAME, format!("{device}\n").as_bytes(), Flush::Disk)?;
    flush_names(root)
        .and_then(|()| fsync(root.directory()))
        .and_then(|()| fsync(share.directory()))
        .map_err(|errno| FileError::at(Operation::Write, b".syncline/owner", errno))
}

/// Whether nothing is in `root` but what is ours.
///
/// # Errors
/// When it cannot be listed.
pub fn is_vacant(root: &Root) -> Result<bool, FileError> {
    Ok(names_in(root, |_, name| name != RelPath::RESERVED.as_bytes())?.is_empty())
}

/// The directories in `root` that are somebody's, by name. Those whose owner cannot be read are left out and logged.
///
/// # Errors
/// When `root` cannot be listed.
pub fn owned_directories(root: &Root) -> Result<Vec<(RelPath, DeviceId)>, FileError> {
    let is_directory = |kind, _: &[u8]| matches!(kind, FileType::Directory | FileType::Unknown);
    let mut owned = Vec::new();
    for name in names_in(root, is_directory)? {
        let Ok(path) = RelPath::parse(&name) else { continue };
        match root.enter(&path).and_then(|directory| owner_of(&directory)) {
            Ok(Some(device)) => owned.push((path, device)),
            Ok(None) => {}
            Err(error) => log::warn!("{path} belongs to nobody who is known: {error}"),
        }
    }
    owned.sort();
    Ok(owned)
}

fn names_in(root: &Root, wanted: impl Fn(FileType, &[u8]) -> bool) -> Result<Vec<Vec<u8>>, FileError> {
    let failed = |errno| FileError::at_path(Operation::Read, root.path(), errno);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let listed = openat(root.directory(), ".", flags, Mode::empty()).and_then(Dir::new);
    let mut names = Vec::new();
    for entry in listed.map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_bytes();
        if !matches!(name, b"." | b"..") && wanted(entry.file_type(), name) {
            names.push(name.to_vec());
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    // Protects one device from another: a directory is the place of who is named in it, by the whole id, and
    // neither a link to a directory nor a link in the place of the name counts.
    #[test]
    fn a_directory_is_whose_it_says_and_links_say_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        for name in ["a", "b", "c"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        let (a, b) = (DeviceId([1; 32]), DeviceId([2; 32]));
        let path = |name: &str| RelPath::parse(name.as_bytes()).unwrap();
        let at = |name: &str| root.enter(&path(name)).unwrap();
        assert_eq!(owner_of(&at("a")).unwrap(), None);
        set_owner(&root, &at("a"), &a).unwrap();
        set_owner(&root, &at("b"), &b).unwrap();
        assert!(is_vacant(&at("a")).unwrap());
        fs::write(dir.path().join("a/file"), "x").unwrap();
        assert!(!is_vacant(&at("a")).unwrap());
        symlink("a", dir.path().join("link")).unwrap();
        assert!(root.enter(&path("link")).is_err());
        fs::create_dir(dir.path().join("c/.syncline")).unwrap();
        symlink("../../a/.syncline/owner", dir.path().join("c/.syncline/owner")).unwrap();
        assert!(owner_of(&at("c")).is_err());
        assert_eq!(owned_directories(&root).unwrap(), [(path("a"), a), (path("b"), b)]);
        fs::write(dir.path().join("b/.syncline/owner"), "0202\n").unwrap();
        assert_eq!(owned_directories(&root).unwrap(), [(path("a"), a)]);
    }
}
