//! `Versions`: where what gives way is kept, and how it gets there.
//!
//! 1. The directory of a path's versions is entered below `.syncline/versions`, component by component
//!    through real directories only, and made where it is missing.
//! 2. A version comes in by one rename that replaces nothing; a name that is taken is tried a nanosecond
//!    later.
//! 3. Directories whose names changed are noted, for the barrier that has to come before anything of this
//!    is acknowledged.
//!
//! Awkward cases: an empty directory may be tidied away between 1 and 2, then both are done again; a
//! path whose directory is on another file system cannot be renamed to here, then what stands there
//! stays. Never removes anything, never flushes. Invariant: what is kept is whole at every moment, under
//! its path or under its name here.

use super::name::{Author, KeptAt, Reason, Successor, VersionName};
use crate::model::RelPath;
use crate::store::error::{FileError, Operation};
use crate::store::private::enter_private;
use crate::store::resolve::{Resolver, enter};
use crate::store::root::Root;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags, linkat, mkdirat, renameat, renameat_with, statat};
use rustix::io::Errno;
use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The versions of one root, for whoever replaces or deletes below it.
#[derive(Debug)]
pub struct Versions {
    root: Arc<OwnedFd>,
    resolver: Resolver,
    /// The last directory that versions' directories were entered in, by its path; `None` is the top.
    parent: RefCell<Option<CachedParent>>,
    changed: RefCell<Vec<Box<[u8]>>>,
    kept: Arc<AtomicU64>,
}

type CachedParent = (Option<RelPath>, Arc<OwnedFd>);

/// How something gives way: to where, and by whose doing.
#[derive(Debug, Clone, Copy)]
pub struct Keeping<'a> {
    /// Where it is kept.
    pub versions: &'a Versions,
    /// Who replaces or deletes.
    pub author: Author,
}

/// A place for one version.
#[derive(Debug)]
pub(in crate::store) struct Slot {
    pub(in crate::store) directory: Arc<OwnedFd>,
    pub(in crate::store) name: String,
}

/// The directory in `.syncline`.
pub(super) const VERSIONS: &str = "versions";

/// How often a directory may be tidied away, or a name be taken, under our hands.
const RACES_MAX: u32 = 16;

/// Noted directories beyond this make no difference: a barrier flushes the whole file system then.
const CHANGED_MAX: usize = 64;

impl Versions {
    /// The versions of `root`; makes nothing before something is kept.
    #[must_use]
    pub fn new(root: &Root) -> Versions {
        Versions {
            root: Arc::clone(root.directory()),
            resolver: root.resolver(),
            parent: RefCell::default(),
            changed: RefCell::default(),
            kept: Arc::default(),
        }
    }

    /// The same versions for another thread.
    #[must_use]
    pub fn share(&self) -> Versions {
        Versions {
            root: Arc::clone(&self.root),
            resolver: self.resolver,
            parent: RefCell::default(),
            changed: RefCell::default(),
            kept: Arc::clone(&self.kept),
        }
    }

    /// How many versions came in, here and in all that share with it.
    #[must_use]
    pub fn kept(&self) -> u64 {
        self.kept.load(Ordering::Relaxed)
    }

    /// Lets go of the directory that was used last.
    pub fn forget_parents(&self) {
        self.parent.take();
    }

    /// The directories whose names changed since the last call, relative to the root; for
    /// [`Barrier::add_private`](crate::store::Barrier::add_private).
    #[must_use]
    pub fn take_changed(&self) -> Vec<Box<[u8]>> {
        self.changed.take()
    }

    /// Calls `bring` with fresh places for a version of `path` until one is not taken.
    fn bring(
        &self,
        path: &RelPath,
        named: &VersionName,
        bring: impl Fn(BorrowedFd<'_>, &str) -> Result<(), Errno>,
    ) -> Result<Slot, Errno> {
        let mut named = named.clone();
        let mut outcome = Errno::EXIST;
        for _ in 0..RACES_MAX {
            let directory = match self.directory(path) {
                // What was entered is gone by now.
                Err(Errno::NOENT) => {
                    self.forget_parents();
                    outcome = Errno::NOENT;
                    continue;
                }
                other => other?,
            };
            let name = named.to_string();
            match bring(directory.as_fd(), &name) {
                Ok(()) => {
                    self.note(Some(path));
                    self.kept.fetch_add(1, Ordering::Relaxed);
                    let directory = Arc::new(directory);
                    return Ok(Slot { directory, name });
                }
                Err(Errno::EXIST) => named = named.later(),
                // Either side may be gone: only that of the versions is ours to make again.
                Err(Errno::NOENT) if is_removed(directory.as_fd()) => self.forget_parents(),
                Err(errno) => return Err(errno),
            }
        }
        Err(outcome)
    }

    /// Enters the directory of the versions of `path`, and makes it where it is missing.
    fn directory(&self, path: &RelPath) -> Result<OwnedFd, Errno> {
        let above = path.parent();
        let parent = self.parent_directory(above.as_ref())?;
        self.enter_or_make(parent.as_fd(), path.name(), above.as_ref())
    }

    fn parent_directory(&self, path: Option<&RelPath>) -> Result<Arc<OwnedFd>, Errno> {
        if let Some((cached, directory)) = &*self.parent.borrow()
            && cached.as_ref() == path
        {
            return Ok(Arc::clone(directory));
        }
        let top = self.top()?;
        let directory = match path {
            None => top,
            Some(path) => match self.resolver.open_directory(top.as_fd(), path.as_bytes(), OFlags::PATH) {
                Err(Errno::NOENT) => self.make_all(top, path)?,
                other => other?,
            },
        };
        let directory = Arc::new(directory);
        self.parent.replace(Some((path.cloned(), Arc::clone(&directory))));
        Ok(directory)
    }

    fn top(&self) -> Result<OwnedFd, Errno> {
        let private = match enter_private(self.root.as_fd()) {
            Err(Errno::NOENT) => {
                self.note_private(b".");
                crate::store::private::open_private(self.root.as_fd())?
            }
            other => other?,
        };
        make_and_enter(private.as_fd(), VERSIONS.as_bytes(), || {
            self.note_private(RelPath::RESERVED.as_bytes());
        })
    }

    fn make_all(&self, top: OwnedFd, path: &RelPath) -> Result<OwnedFd, Errno> {
        let mut here = top;
        let mut above: Option<RelPath> = None;
        for name in path.components() {
            here = self.enter_or_make(here.as_fd(), name, above.as_ref())?;
            let below = match &above {
                None => RelPath::parse(name),
                Some(above) => above.child(name),
            };
            above = Some(below.map_err(|_| Errno::INVAL)?);
        }
        Ok(here)
    }

    fn enter_or_make(&self, parent: BorrowedFd<'_>, name: &[u8], above: Option<&RelPath>) -> Result<OwnedFd, Errno> {
        make_and_enter(parent, name, || self.note(above))
    }

    /// Names changed in the directory of `path`; `None` is the top.
    fn note(&self, path: Option<&RelPath>) {
        let mut below = [RelPath::RESERVED.as_bytes(), b"/", VERSIONS.as_bytes()].concat();
        if let Some(path) = path {
            below.push(b'/');
            below.extend_from_slice(path.as_bytes());
        }
        self.note_private(&below);
    }

    fn note_private(&self, path: &[u8]) {
        let mut changed = self.changed.borrow_mut();
        if changed.len() < CHANGED_MAX && changed.last().is_none_or(|last| **last != *path) {
            changed.push(path.into());
        }
    }
}

impl Keeping<'_> {
    /// Moves what stands under `name` in `from`, for which `path` is the path, to a slot whose name says
    /// that it is replaced by `successor` (or, without one, was deleted).
    pub(in crate::store) fn rename_in(
        &self,
        path: &RelPath,
        from: BorrowedFd<'_>,
        name: &[u8],
        reason: Reason,
        successor: Option<Successor>,
    ) -> Result<Slot, Errno> {
        let named = VersionName::new(KeptAt::now(), reason, &self.author, successor);
        self.versions.bring(path, &named, |directory, slot| {
            rename_new(from, name, directory, slot.as_bytes())
        })
    }

    /// As [`Keeping::rename_in`], but what stands there keeps its name, too.
    pub(in crate::store) fn link_in(
        &self,
        path: &RelPath,
        from: BorrowedFd<'_>,
        name: &[u8],
        successor: Successor,
    ) -> Result<Slot, Errno> {
        let named = VersionName::new(KeptAt::now(), Reason::Replaced, &self.author, Some(successor));
        self.versions.bring(path, &named, |directory, slot| {
            linkat(from, name, directory, slot, AtFlags::empty())
        })
    }
}

impl Root {
    /// Removes a file, link, special file or empty directory. Files and links become versions.
    ///
    /// # Errors
    /// As [`Root::remove`]; [`ItemCode::CrossDevice`](crate::model::ItemCode::CrossDevice) when its
    /// directory is on another file system than the root: then it stays.
    pub fn remove_keeping(&self, path: &RelPath, keeping: &Keeping<'_>) -> Result<(), FileError> {
        use crate::store::facts::{Found, FoundKind};
        let failed = |errno| FileError::new(Operation::Remove, path, errno);
        let place = self.place(path)?;
        let stat = statat(&place.parent, place.name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
        match Found::of(&stat).kind {
            FoundKind::Directory | FoundKind::Special => self.remove(path),
            FoundKind::File { .. } | FoundKind::Symlink => {
                let kept = keeping.rename_in(path, place.parent.as_fd(), place.name, Reason::Deleted, None);
                kept.map(|_| ()).map_err(failed)
            }
        }
    }
}

/// A rename that replaces nothing, also where the file system has no flag for that.
fn rename_new(from: BorrowedFd<'_>, name: &[u8], to: BorrowedFd<'_>, target: &[u8]) -> Result<(), Errno> {
    match renameat_with(from, name, to, target, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS) => {}
        other => return other,
    }
    // Names here are ours alone, and tell nanoseconds apart: this look is enough.
    match statat(to, target, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(_) => Err(Errno::EXIST),
        Err(Errno::NOENT) => renameat(from, name, to, target),
        Err(errno) => Err(errno),
    }
}

fn make_and_enter(parent: BorrowedFd<'_>, name: &[u8], note: impl FnOnce()) -> Result<OwnedFd, Errno> {
    match enter(parent, name, OFlags::PATH) {
        Err(Errno::NOENT) => {}
        other => return other,
    }
    match mkdirat(parent, name, Mode::RWXU) {
        Ok(()) => note(),
        Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno),
    }
    enter(parent, name, OFlags::PATH)
}

fn is_removed(directory: BorrowedFd<'_>) -> bool {
    rustix::fs::fstat(directory).is_ok_and(|stat| stat.st_nlink == 0)
}
