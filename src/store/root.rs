//! `Root`: a directory descriptor that every operation is confined beneath.
//!
//! A path is resolved to its parent directory in one confined call; after that only `*at` calls with
//! the last component run on that descriptor. Never follows a link below the root, never reads a
//! path again by name. Invariant: nothing outside the root is read, made, changed or listed.

use super::error::{FileError, Operation};
use super::facts::{Found, FoundKind};
use super::meta;
use super::resolve::{Resolver, enter};
use super::scan::Scan;
use super::source::SourceFile;
use super::spelling::{Folding, Listings};
use crate::model::limits::SYMLINK_BYTES_MAX;
use crate::model::{ItemCode, Meta, RelPath};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{
    Access, AtFlags, CWD, Dir, Mode, OFlags, RenameFlags, accessat, fstat, fstatvfs, mkdirat, openat, readlinkat,
    renameat, renameat_with, statat, unlinkat,
};
use rustix::io::Errno;
use std::cell::{Cell, RefCell};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The top directory of a share or of one side of a transfer.
#[derive(Debug)]
pub struct Root {
    path: PathBuf,
    directory: Arc<OwnedFd>,
    resolver: Resolver,
    parents: RefCell<Vec<CachedParent>>,
    /// Which names the file system takes for one, as far as somebody has looked.
    pub(super) folding: Cell<Folding>,
    pub(super) listings: RefCell<Listings>,
}

/// Whether a directory had to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MadeDirectory {
    /// It is new.
    Created,
    /// It was there already.
    Existed,
}

#[derive(Debug)]
struct CachedParent {
    path: Box<[u8]>,
    directory: Arc<OwnedFd>,
}

/// Parents held open between two calls of [`Root::forget_parents`]: enough for a few transfers that
/// work in different directories, and few descriptors.
const PARENTS_MAX: usize = 16;

/// A path, taken to the descriptor of its directory and its last component.
pub(super) struct Place<'a> {
    pub(super) parent: Arc<OwnedFd>,
    pub(super) name: &'a [u8],
}

impl Root {
    /// Opens an existing directory. `path` is the operator's own and may hold symbolic links.
    ///
    /// # Errors
    /// When it is absent, not a directory, or not readable.
    pub fn open(path: &Path) -> Result<Root, FileError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = openat(CWD, path, flags, Mode::empty())
            .map_err(|errno| FileError::at_path(Operation::Open, path, errno))?;
        let resolver = Resolver::detect(directory.as_fd());
        Ok(Root {
            path: path.into(),
            directory: Arc::new(directory),
            resolver,
            parents: RefCell::default(),
            folding: Cell::default(),
            listings: RefCell::default(),
        })
    }

    /// Opens a directory, and makes it and its parents first where they are missing.
    ///
    /// # Errors
    /// When it cannot be made or opened.
    pub fn create(path: &Path) -> Result<Root, FileError> {
        std::fs::create_dir_all(path).map_err(|error| FileError::at_path(Operation::MakeDirectory, path, error))?;
        Root::open(path)
    }

    /// The directory at `path` as a root of its own: nothing beside or above it can be reached by that.
    ///
    /// # Errors
    /// When it is absent, no directory (a link is none), or not readable.
    pub fn enter(&self, path: &RelPath) -> Result<Root, FileError> {
        let place = self.place(path)?;
        let directory = enter(place.parent.as_fd(), place.name, OFlags::RDONLY)
            .map_err(|errno| FileError::new(Operation::Open, path, errno))?;
        let resolver = Resolver::detect(directory.as_fd());
        Ok(Root {
            path: self.path.join(std::ffi::OsStr::from_bytes(path.as_bytes())),
            directory: Arc::new(directory),
            resolver,
            parents: RefCell::default(),
            folding: Cell::default(),
            listings: RefCell::default(),
        })
    }

    /// The same root for another thread: the same directory, with a cache of its own.
    #[must_use]
    pub fn share(&self) -> Root {
        Root {
            path: self.path.clone(),
            directory: Arc::clone(&self.directory),
            resolver: self.resolver,
            parents: RefCell::default(),
            folding: self.folding.clone(),
            listings: RefCell::default(),
        }
    }

    /// What the root itself is.
    ///
    /// # Errors
    /// When it cannot be examined.
    pub fn own(&self) -> Result<Found, FileError> {
        let stat = fstat(&self.directory).map_err(|errno| FileError::at_path(Operation::Examine, &self.path, errno))?;
        Ok(Found::of(&stat))
    }

    /// Whether the directory was removed after it was opened: it looks empty then, and is not.
    ///
    /// # Errors
    /// When it cannot be examined.
    pub fn is_gone(&self) -> Result<bool, FileError> {
        let stat = fstat(&self.directory).map_err(|errno| FileError::at_path(Operation::Examine, &self.path, errno))?;
        Ok(stat.st_nlink == 0)
    }

    /// Whether files can be made in the root, as far as the system tells without making one.
    ///
    /// # Errors
    /// When they cannot.
    pub fn check_writable(&self) -> Result<(), FileError> {
        accessat(
            &self.directory,
            ".",
            Access::WRITE_OK | Access::EXEC_OK,
            AtFlags::EACCESS,
        )
        .map_err(|errno| FileError::at_path(Operation::Write, &self.path, errno))
    }

    /// Whether `path` is a directory with nothing in it.
    ///
    /// # Errors
    /// When it is no directory, or cannot be read.
    pub fn is_empty_directory(&self, path: &RelPath) -> Result<bool, FileError> {
        let failed = |errno| FileError::new(Operation::Read, path, errno);
        let place = self.place(path)?;
        let directory = enter(place.parent.as_fd(), place.name, OFlags::RDONLY).map_err(failed)?;
        for entry in Dir::read_from(&directory).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Sets mode and time of the root itself.
    ///
    /// # Errors
    /// When it is not ours.
    pub fn set_own_meta(&self, meta: &Meta) -> Result<(), FileError> {
        meta::apply(self.directory.as_fd(), meta)
            .map_err(|errno| FileError::at_path(Operation::SetMeta, &self.path, errno))
    }

    /// The path that it was opened by.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What stands at `path`, links not followed; `None` when it or a parent of it is absent.
    ///
    /// # Errors
    /// When it cannot be examined, or a parent is a link or no directory.
    pub fn probe(&self, path: &RelPath) -> Result<Option<Found>, FileError> {
        let found = self.place(path).and_then(|place| {
            let stat = statat(&place.parent, place.name, AtFlags::SYMLINK_NOFOLLOW);
            stat.map_err(|errno| FileError::new(Operation::Examine, path, errno))
        });
        match found {
            Ok(stat) => Ok(Some(Found::of(&stat))),
            Err(error) if error.code() == ItemCode::Vanished => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// As [`Root::probe`]; what would be in a file or a link is absent, too.
    #[cfg(feature = "sync")]
    pub(crate) fn find(&self, path: &RelPath) -> Result<Option<Found>, FileError> {
        match self.probe(path) {
            Err(error) if error.is_beneath_no_directory() => Ok(None),
            other => other,
        }
    }

    /// The text of a symbolic link.
    ///
    /// # Errors
    /// When it is no link, too long ([`SYMLINK_BYTES_MAX`]), or not readable.
    pub fn read_link(&self, path: &RelPath) -> Result<Box<[u8]>, FileError> {
        let place = self.place(path)?;
        read_link_at(place.parent.as_fd(), place.name, path)
    }

    /// Opens a regular file for reading. Never hangs, whatever stands there.
    ///
    /// # Errors
    /// [`ItemCode::Special`] for anything that is neither a file nor a link, [`ItemCode::Escapes`]
    /// for a link.
    pub fn open_file(&self, path: &RelPath) -> Result<SourceFile, FileError> {
        let place = self.place(path)?;
        SourceFile::open_at(place.parent.as_fd(), place.name, path)
    }

    /// Makes one directory. While a transfer runs its owner can use it, and only its owner, if it is
    /// new; the final mode is a matter of [`Root::set_meta`] afterwards. An existing directory that its
    /// owner could not use (mode 0500, say) is widened to u+rwx, so this holds for it too.
    ///
    /// # Errors
    /// [`ItemCode::InTheWay`] when anything else stands there, [`ItemCode::Vanished`] when the parent
    /// is absent, [`ItemCode::Collides`] when the file system takes the path for another one.
    pub fn make_directory(&self, path: &RelPath) -> Result<MadeDirectory, FileError> {
        let made = self.make_with_mode(path, Mode::RWXU)?;
        if made == MadeDirectory::Existed {
            self.widen(path)?;
        }
        Ok(made)
    }

    /// Makes the parents of `path` that are missing, with the mode that the umask gives.
    ///
    /// # Returns
    /// The directories that are new, outermost first.
    ///
    /// # Errors
    /// As [`Root::make_directory`].
    pub fn make_parents(&self, path: &RelPath) -> Result<Vec<RelPath>, FileError> {
        match self.place(path) {
            Err(error) if error.code() == ItemCode::Vanished => {}
            other => return other.map(|_| Vec::new()),
        }
        let mut missing: Vec<RelPath> = std::iter::successors(path.parent(), RelPath::parent).collect();
        missing.reverse();
        let mut made = Vec::new();
        for directory in missing {
            let mode = Mode::RWXU | Mode::RWXG | Mode::RWXO;
            if self.make_with_mode(&directory, mode)? == MadeDirectory::Created {
                made.push(directory);
            }
        }
        Ok(made)
    }

    /// Sets permission bits (masked to 0o777) and modification time; of a link only the time. Works
    /// for whatever we own, even with mode 0000.
    ///
    /// # Errors
    /// When it is absent, special, or not ours.
    pub fn set_meta(&self, path: &RelPath, meta: &Meta) -> Result<(), FileError> {
        let place = self.place(path)?;
        meta::apply_at(place.parent.as_fd(), place.name, meta)
            .map_err(|errno| FileError::new(Operation::SetMeta, path, errno))
    }

    /// Removes a file, link, special file or empty directory.
    ///
    /// # Errors
    /// [`ItemCode::Vanished`] when it is absent, [`ItemCode::InTheWay`] for a directory with content.
    pub fn remove(&self, path: &RelPath) -> Result<(), FileError> {
        let place = self.place(path)?;
        let removed = match unlinkat(&place.parent, place.name, AtFlags::empty()) {
            Err(Errno::ISDIR) => {
                self.forget_beneath(path);
                unlinkat(&place.parent, place.name, AtFlags::REMOVEDIR)
            }
            other => other,
        };
        removed.map_err(|errno| FileError::new(Operation::Remove, path, errno))
    }

    /// Gives what stands at `from` the name `to`, where nothing stands. The two may be one to the file system.
    ///
    /// # Errors
    /// [`ItemCode::Vanished`] when it is absent, or the directory of `to` is; [`ItemCode::InTheWay`] when something
    /// stands at `to`; [`ItemCode::Collides`] when the file system takes `to` for something else.
    pub fn rename_new(&self, from: &RelPath, to: &RelPath) -> Result<(), FileError> {
        match self.shadow(to)? {
            None => self.rename_plainly(from, to),
            Some(real) if real == *from => self.respell(from, to),
            Some(_) => Err(FileError::found(Operation::Publish, to.as_bytes(), ItemCode::Collides)),
        }
    }

    /// The same, where the file system takes the two for two.
    pub(super) fn rename_plainly(&self, from: &RelPath, to: &RelPath) -> Result<(), FileError> {
        let (source, target) = (self.place(from)?, self.place(to)?);
        let flags = RenameFlags::NOREPLACE;
        let renamed = match renameat_with(&source.parent, source.name, &target.parent, target.name, flags) {
            // A file system without the flag: a look before is all that can be done.
            Err(Errno::INVAL | Errno::NOSYS) => match statat(&target.parent, target.name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(_) => Err(Errno::EXIST),
                Err(Errno::NOENT) => renameat(&source.parent, source.name, &target.parent, target.name),
                Err(errno) => Err(errno),
            },
            other => other,
        };
        self.forget_beneath(from);
        renamed.map_err(|errno| FileError::new(Operation::Publish, to, errno))
    }

    /// Bytes that an unprivileged user can still store.
    ///
    /// # Errors
    /// When the file system does not tell.
    pub fn free_bytes(&self) -> Result<u64, FileError> {
        let stat =
            fstatvfs(&self.directory).map_err(|errno| FileError::at_path(Operation::Examine, &self.path, errno))?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    /// Bytes that the file system has, free or not.
    ///
    /// # Errors
    /// When the file system does not tell.
    pub fn total_bytes(&self) -> Result<u64, FileError> {
        let stat =
            fstatvfs(&self.directory).map_err(|errno| FileError::at_path(Operation::Examine, &self.path, errno))?;
        Ok(stat.f_blocks.saturating_mul(stat.f_frsize))
    }

    /// Starts a walk over everything below `start`, or below the root. See [`Scan`].
    #[must_use]
    pub fn scan(&self, start: Option<&RelPath>) -> Scan {
        Scan::new(start.cloned())
    }

    /// Drops the descriptors of recently used directories. The owner calls it every turn of its loop,
    /// so that a directory that someone moves away is not written to for long.
    pub fn forget_parents(&self) {
        self.parents.borrow_mut().clear();
        self.listings.borrow_mut().clear();
    }

    /// Drops cached descriptors of `path` and everything below it, before it is removed or replaced.
    pub(super) fn forget_beneath(&self, path: &RelPath) {
        self.parents.borrow_mut().retain(|cached| {
            let rest = cached.path.strip_prefix(path.as_bytes());
            rest.is_none_or(|rest| rest.first().is_some_and(|&byte| byte != b'/'))
        });
    }

    /// The root's own descriptor.
    pub(super) fn directory(&self) -> &Arc<OwnedFd> {
        &self.directory
    }

    pub(super) fn resolver(&self) -> Resolver {
        self.resolver
    }

    /// The descriptor of the directory that `path` is in, and its name there.
    pub(super) fn place<'a>(&self, path: &'a RelPath) -> Result<Place<'a>, FileError> {
        let (parent, name) = path.split_last();
        let parent = match parent {
            Some(parent) => self
                .parent(parent)
                .map_err(|errno| FileError::new(Operation::Resolve, path, errno))?,
            None => Arc::clone(&self.directory),
        };
        self.keep_out(path)?;
        Ok(Place { parent, name })
    }

    fn parent(&self, path: &[u8]) -> Result<Arc<OwnedFd>, Errno> {
        let mut parents = self.parents.borrow_mut();
        if let Some(at) = parents.iter().rposition(|cached| *cached.path == *path) {
            // The most recently used stands last.
            parents[at..].rotate_left(1);
            let cached = parents.last().expect("an element was just found");
            return Ok(Arc::clone(&cached.directory));
        }
        let opened = self
            .resolver
            .open_directory(self.directory.as_fd(), path, OFlags::PATH)?;
        if parents.len() == PARENTS_MAX {
            parents.remove(0);
        }
        let directory = Arc::new(opened);
        parents.push(CachedParent {
            path: path.into(),
            directory: Arc::clone(&directory),
        });
        Ok(directory)
    }

    fn make_with_mode(&self, path: &RelPath, mode: Mode) -> Result<MadeDirectory, FileError> {
        let place = self.place(path)?;
        if self.shadow(path)?.is_some() {
            return Err(FileError::found(
                Operation::MakeDirectory,
                path.as_bytes(),
                ItemCode::Collides,
            ));
        }
        match mkdirat(&place.parent, place.name, mode) {
            Ok(()) => return Ok(MadeDirectory::Created),
            Err(Errno::EXIST) => {}
            Err(errno) => return Err(FileError::new(Operation::MakeDirectory, path, errno)),
        }
        match self.probe(path)?.map(|found| found.kind) {
            Some(FoundKind::Directory) => Ok(MadeDirectory::Existed),
            Some(_) => Err(FileError::found(
                Operation::MakeDirectory,
                path.as_bytes(),
                ItemCode::InTheWay,
            )),
            None => Err(FileError::found(
                Operation::MakeDirectory,
                path.as_bytes(),
                ItemCode::Changing,
            )),
        }
    }

    fn widen(&self, path: &RelPath) -> Result<(), FileError> {
        let usable = Mode::RWXU.as_raw_mode();
        match self.probe(path)? {
            Some(found) if found.meta.mode & usable != usable => {
                let meta = Meta {
                    mode: found.meta.mode | usable,
                    mtime: found.meta.mtime,
                };
                match self.set_meta(path, &meta) {
                    // Not ours to change. What is done in it may work all the same, or say so itself.
                    Err(error) if error.code() == ItemCode::Permission => Ok(()),
                    other => other,
                }
            }
            _ => Ok(()),
        }
    }

    #[cfg(test)]
    pub(super) fn open_walking(path: &Path) -> Root {
        let mut root = Root::open(path).unwrap();
        root.resolver = Resolver::Walk;
        root
    }
}

/// Reads a link by its name in a directory.
pub(super) fn read_link_at(parent: BorrowedFd<'_>, name: &[u8], path: &RelPath) -> Result<Box<[u8]>, FileError> {
    let text = readlinkat(parent, name, Vec::new())
        .map_err(|errno| FileError::new(Operation::Read, path, errno))?
        .into_bytes();
    if text.is_empty() || text.len() > SYMLINK_BYTES_MAX {
        return Err(FileError::found(Operation::Read, path.as_bytes(), ItemCode::TooLarge));
    }
    Ok(text.into())
}

#[cfg(test)]
#[path = "root_tests.rs"]
mod tests;
