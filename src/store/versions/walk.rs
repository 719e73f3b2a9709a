//! `VersionWalk`: everything below `.syncline/versions`, in bounded steps.
//!
//! 1. Directories are entered by name in the one above, never through a link, and read as they come.
//! 2. What lies there as a file or link under the name of a version is told; its visitor says whether it
//!    stays. Everything else is left alone.
//! 3. A directory that has nothing left goes, if something was removed or it was empty, and the walk may
//!    remove at all.
//!
//! Awkward cases: names that no path can have, and what nests too deeply, are not entered. Never opens a
//! version. Invariant: only what the visitor gave up, and empty directories, are removed.

use super::name::{KeptAt, Reason, Successor, VersionName};
use super::slots::VERSIONS;
use crate::model::RelPath;
use crate::store::error::{FileError, Operation};
use crate::store::facts::{Found, FoundKind};
use crate::store::private::enter_private;
use crate::store::resolve::enter;
use crate::store::root::Root;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, Dir, FileType, OFlags, openat, statat, unlinkat};
use rustix::io::Errno;
use std::time::Duration;

/// A version that is kept.
#[derive(Debug, Clone)]
pub struct Version {
    path: RelPath,
    name: VersionName,
    found: Found,
    disk_bytes: u64,
}

/// What becomes of a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stay {
    /// It stays.
    Yes,
    /// It goes.
    No,
}

/// A walk in progress.
#[derive(Debug)]
pub struct VersionWalk {
    levels: Vec<Level>,
    mode: Mode,
    failed: Option<FileError>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Looking,
    Removing,
}

#[derive(Debug)]
struct Level {
    path: Option<RelPath>,
    listing: Dir,
    /// Entries that stay.
    left: u64,
}

impl Version {
    /// The path that it was at.
    #[must_use]
    pub fn path(&self) -> &RelPath {
        &self.path
    }

    /// When, why and by whom it was kept.
    #[must_use]
    pub fn name(&self) -> &VersionName {
        &self.name
    }

    /// What lies there: the version itself, or with [`Reason::Changed`] its undo record.
    #[must_use]
    pub fn found(&self) -> &Found {
        &self.found
    }

    /// Bytes that it takes on the disk.
    #[must_use]
    pub fn disk_bytes(&self) -> u64 {
        self.disk_bytes
    }

    /// Whether it was kept before `age` ago. One from the future, by a clock that was set, was not.
    #[must_use]
    pub fn is_older_than(&self, age: Duration) -> bool {
        let (kept, now) = (self.name.kept_at().seconds(), KeptAt::now().seconds());
        age.is_zero() || now.saturating_sub(kept) > age.as_secs()
    }

    /// Whether this is what was to take a version's place, and never did: its process was killed right
    /// before. It is no version.
    pub(super) fn is_unexchanged(&self) -> bool {
        self.name.reason() == Reason::Replaced && self.name.successor() == Some(Successor::of(&self.found.identity))
    }
}

impl VersionWalk {
    /// A walk that only looks, over the versions of `path` and of everything below it.
    ///
    /// # Errors
    /// When what is there cannot be read.
    pub fn looking(root: &Root, path: Option<&RelPath>) -> Result<VersionWalk, FileError> {
        VersionWalk::begin(root, path, Mode::Looking)
    }

    /// As [`VersionWalk::looking`], and what the visitor gives up is removed.
    ///
    /// # Errors
    /// When what is there cannot be read.
    pub fn removing(root: &Root, path: Option<&RelPath>) -> Result<VersionWalk, FileError> {
        VersionWalk::begin(root, path, Mode::Removing)
    }

    fn begin(root: &Root, path: Option<&RelPath>, mode: Mode) -> Result<VersionWalk, FileError> {
        let failed = |errno: Errno| FileError::at(Operation::Read, b".syncline/versions", errno);
        let listing = match directory_of(root, path) {
            Err(Errno::NOENT) => None,
            other => Some(other.and_then(|directory| Dir::read_from(&directory)).map_err(failed)?),
        };
        let level = listing.map(|listing| Level {
            path: path.cloned(),
            listing,
            left: 0,
        });
        Ok(VersionWalk {
            levels: level.into_iter().collect(),
            mode,
            failed: None,
        })
    }

    /// Goes on for at most `max` names.
    ///
    /// # Returns
    /// Whether there is more to do.
    pub fn step(&mut self, max: usize, visit: &mut dyn FnMut(Version) -> Stay) -> bool {
        for _ in 0..max {
            if !self.advance(visit) {
                return false;
            }
        }
        true
    }

    /// Everything that is left, at once.
    ///
    /// # Errors
    /// The first thing that could not be read or removed; everything else was visited.
    pub fn finish(mut self, visit: &mut dyn FnMut(Version) -> Stay) -> Result<(), FileError> {
        while self.advance(visit) {}
        self.failed.map_or(Ok(()), Err)
    }

    fn advance(&mut self, visit: &mut dyn FnMut(Version) -> Stay) -> bool {
        let Some(level) = self.levels.last_mut() else {
            return false;
        };
        let entry = match level.listing.next() {
            None => {
                self.leave();
                return !self.levels.is_empty();
            }
            Some(Ok(entry)) => entry,
            Some(Err(errno)) => {
                self.failed
                    .get_or_insert(FileError::at(Operation::Read, path_of(level.path.as_ref()), errno));
                level.left += 1;
                self.leave();
                return !self.levels.is_empty();
            }
        };
        let name = entry.file_name().to_bytes();
        if matches!(name, b"." | b"..") {
            return true;
        }
        level.left += 1;
        match entry.file_type() {
            FileType::Directory => self.descend(name),
            FileType::RegularFile | FileType::Symlink => self.meet(name, visit),
            FileType::Unknown => {
                let directory = level.directory();
                let kind = directory.and_then(|here| statat(here, name, AtFlags::SYMLINK_NOFOLLOW));
                match kind.map(|stat| FileType::from_raw_mode(stat.st_mode)) {
                    Ok(FileType::Directory) => self.descend(name),
                    Ok(FileType::RegularFile | FileType::Symlink) => self.meet(name, visit),
                    _ => {}
                }
            }
            _ => {}
        }
        true
    }

    fn meet(&mut self, name: &[u8], visit: &mut dyn FnMut(Version) -> Stay) {
        let Some(level) = self.levels.last_mut() else { return };
        let (Some(path), Some(named)) = (level.path.clone(), VersionName::parse(name)) else {
            return;
        };
        let Ok(directory) = level.directory() else { return };
        let Ok(stat) = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) else {
            return;
        };
        let version = Version {
            path,
            name: named,
            found: Found::of(&stat),
            disk_bytes: u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512),
        };
        if self.mode == Mode::Looking {
            if !version.is_unexchanged() {
                visit(version);
            }
            return;
        }
        if visit(version) == Stay::Yes {
            return;
        }
        match unlinkat(directory, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => level.left -= 1,
            Err(errno) => {
                self.failed
                    .get_or_insert(FileError::at(Operation::Remove, path_of(level.path.as_ref()), errno));
            }
        }
    }

    fn descend(&mut self, name: &[u8]) {
        let Some(level) = self.levels.last() else { return };
        let path = match &level.path {
            None => RelPath::parse(name),
            Some(path) => path.child(name),
        };
        let Ok(path) = path else { return };
        let entered = level
            .directory()
            .and_then(|here| enter(here, name, OFlags::RDONLY))
            .and_then(|directory| Dir::read_from(&directory));
        match entered {
            Ok(listing) => self.levels.push(Level {
                path: Some(path),
                listing,
                left: 0,
            }),
            Err(errno) => {
                self.failed
                    .get_or_insert(FileError::at(Operation::Read, path.as_bytes(), errno));
            }
        }
    }

    /// The innermost directory is done: it goes if nothing is left in it.
    fn leave(&mut self) {
        let Some(done) = self.levels.pop() else { return };
        let Some(above) = self.levels.last_mut() else { return };
        if done.left > 0 || self.mode == Mode::Looking {
            return;
        }
        let (Some(path), Ok(directory)) = (&done.path, above.directory()) else {
            return;
        };
        if unlinkat(directory, path.name(), AtFlags::REMOVEDIR).is_ok() {
            above.left -= 1;
        }
    }
}

impl Level {
    fn directory(&self) -> Result<BorrowedFd<'_>, Errno> {
        self.listing.fd()
    }
}

fn path_of(path: Option<&RelPath>) -> &[u8] {
    path.map_or(b".syncline/versions", RelPath::as_bytes)
}

/// The versions of one path, the oldest first; what lies below it is not among them.
///
/// # Errors
/// When what is there cannot be read.
pub fn versions_of(root: &Root, path: &RelPath) -> Result<Vec<Version>, FileError> {
    let failed = |errno: Errno| FileError::new(Operation::Read, path, errno);
    let directory = match directory_of(root, Some(path)) {
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(Vec::new()),
        other => other.map_err(failed)?,
    };
    let mut versions = Vec::new();
    for entry in Dir::read_from(&directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let Some(name) = VersionName::parse(entry.file_name().to_bytes()) else {
            continue;
        };
        let Ok(stat) = statat(&directory, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW) else {
            continue;
        };
        let version = Version {
            path: path.clone(),
            name,
            found: Found::of(&stat),
            disk_bytes: u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512),
        };
        if matches!(version.found.kind, FoundKind::File { .. } | FoundKind::Symlink) && !version.is_unexchanged() {
            versions.push(version);
        }
    }
    versions.sort_by_key(|version| version.name.kept_at());
    Ok(versions)
}

/// Opens the directory of the versions of `path`, for reading; `None` is the top.
pub(super) fn directory_of(root: &Root, path: Option<&RelPath>) -> Result<OwnedFd, Errno> {
    let private = enter_private(root.directory().as_fd())?;
    let top = enter(private.as_fd(), VERSIONS.as_bytes(), OFlags::RDONLY)?;
    let Some(path) = path else { return Ok(top) };
    // The longest path does not fit into one call.
    let (above, name) = path.split_last();
    let parent = match above {
        None => top,
        Some(above) => root.resolver().open_directory(top.as_fd(), above, OFlags::PATH)?,
    };
    enter(parent.as_fd(), name, OFlags::RDONLY)
}

/// Opens a version's file for reading.
pub(super) fn open_version(root: &Root, version: &Version) -> Result<OwnedFd, Errno> {
    let directory = directory_of(root, Some(&version.path))?;
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    openat(&directory, version.name.to_string(), flags, rustix::fs::Mode::empty())
}
