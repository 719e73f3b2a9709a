//! How names are really spelled on a file system that takes several spellings for one name.
//!
//! Such file systems fold case (VFAT, NTFS, ext4 with `casefold`) or normalise Unicode. A look for one spelling
//! finds what has another; only a listing tells which one stands there. Never changes a name without being asked.
//! Invariant: on a root that folds, nothing is made, published or renamed where another spelling stands, or in a
//! directory of another spelling.

use super::error::{FileError, Operation};
use super::facts::Found;
use super::private::{make_and_enter, open_private, remove_private_if_empty};
use super::resolve::enter;
use super::root::Root;
use crate::model::{ItemCode, RelPath, conflict_path, folded};
use rustix::fd::{AsFd, BorrowedFd};
use rustix::fs::{AtFlags, Dir, Mode, OFlags, openat, statat, unlinkat};
use rustix::io::Errno;
use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};

/// Which names a file system takes for one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Folding {
    /// Names that differ in the case of letters.
    pub case: bool,
    /// Names that differ in how letters with marks are put together.
    pub marks: bool,
}

impl Folding {
    /// Whether it takes any two names for one.
    #[must_use]
    pub fn is_any(self) -> bool {
        self.case || self.marks
    }
}

/// The directory that names are tried in, inside `.syncline`.
const TRIAL: &[u8] = b"names";
/// A name, one in another case, and one that is put together otherwise.
const NAME: &str = "n\u{e9}";
const NAME_CASE: &str = "N\u{e9}";
const NAME_MARKS: &str = "ne\u{301}";
/// Directories whose listings are remembered at a time.
const LISTINGS_MAX: usize = 16;

/// Names that listings held, for as long as parents are remembered: a name that was seen there is spelled so.
#[derive(Debug, Default)]
pub(super) struct Listings {
    /// By directory, hashes of its names: two of one hash cost a look, since a name must be found as well.
    seen: Vec<(Box<[u8]>, HashSet<u64>)>,
    hasher: RandomState,
}

impl Listings {
    pub(super) fn clear(&mut self) {
        self.seen.clear();
    }

    fn has(&self, directory: &[u8], name: &[u8]) -> bool {
        let names = self.seen.iter().find(|(path, _)| **path == *directory);
        names.is_some_and(|(_, names)| names.contains(&self.hasher.hash_one(name)))
    }

    fn keep(&mut self, directory: &[u8], names: HashSet<u64>) {
        self.seen.retain(|(path, _)| **path != *directory);
        if self.seen.len() == LISTINGS_MAX {
            self.seen.remove(0);
        }
        self.seen.push((directory.into(), names));
    }
}

impl Root {
    /// Finds out which names the file system takes for one, by making one in `.syncline`, and remembers it. Where
    /// that cannot be made, none.
    pub fn learn_folding(&self) -> Folding {
        let folding = tried(self.directory().as_fd()).unwrap_or_else(|errno| {
            log::info!(
                "{}: which names are one here is not known: {errno}",
                self.path().display()
            );
            Folding::default()
        });
        remove_private_if_empty(self.directory().as_fd());
        self.folding.set(folding);
        folding
    }

    /// Which names the file system takes for one, as far as it was [learned](Root::learn_folding).
    #[must_use]
    pub fn folding(&self) -> Folding {
        self.folding.get()
    }

    /// What the file system takes `path`, or the first part of it, for: the path of that as it is spelled. `None`
    /// when it is spelled like `path` as far as there is anything; always so where nothing is folded. What is there
    /// and in no listing stands for itself.
    ///
    /// # Errors
    /// When a directory above cannot be examined or listed.
    pub fn shadow(&self, path: &RelPath) -> Result<Option<RelPath>, FileError> {
        if !self.folding.get().is_any() {
            return Ok(None);
        }
        let bytes = path.as_bytes();
        let ends = bytes.iter().enumerate().filter(|&(_, &byte)| byte == b'/');
        for end in ends.map(|(at, _)| at).chain([bytes.len()]) {
            let part = RelPath::parse(&bytes[..end]).expect("what a legal path begins with is one");
            let found = match self.probe(&part) {
                Ok(Some(found)) => found,
                Ok(None) => return Ok(None),
                Err(error) if matches!(error.code(), ItemCode::Escapes | ItemCode::InTheWay) => return Ok(None),
                Err(error) => return Err(error),
            };
            if let Some(real) = self.spelled(&part, &found)? {
                return Ok(Some(real));
            }
        }
        Ok(None)
    }

    /// What stands at `path` in that very spelling, links not followed.
    ///
    /// # Errors
    /// As [`Root::probe`] and [`Root::shadow`].
    pub fn probe_exactly(&self, path: &RelPath) -> Result<Option<Found>, FileError> {
        let found = self.probe(path)?;
        match found {
            Some(_) if self.shadow(path)?.is_some() => Ok(None),
            found => Ok(found),
        }
    }

    /// As [`Root::probe_exactly`]; what would be in a file or a link is absent, too.
    #[cfg(feature = "sync")]
    pub(crate) fn find_exactly(&self, path: &RelPath) -> Result<Option<Found>, FileError> {
        match self.probe_exactly(path) {
            Err(error) if error.is_beneath_no_directory() => Ok(None),
            other => other,
        }
    }

    /// Gives what stands at `from` another spelling, which the file system takes for the same name: by way of a
    /// third one, since a rename from one to the other does nothing on some of them. A crash in between leaves it
    /// under that: the name of a conflict copy.
    pub(super) fn respell(&self, from: &RelPath, to: &RelPath) -> Result<(), FileError> {
        let stamp = super::calendar::stamp_now();
        for number in 1..=NAMES_MAX {
            let Some(between) = conflict_path(to, &stamp, AUTHOR, number) else {
                break;
            };
            match self.rename_plainly(from, &between) {
                Err(error) if error.code() == ItemCode::InTheWay => continue,
                other => other?,
            }
            return self.rename_plainly(&between, to).inspect_err(|_| {
                if let Err(error) = self.rename_plainly(&between, from) {
                    log::error!("{from} is called {between} now: {error}");
                }
            });
        }
        Err(FileError::found(Operation::Publish, to.as_bytes(), ItemCode::BadPath))
    }

    /// Refuses a path into our own directory that is spelled so that only the file system knows: with letters that
    /// it ignores or folds, or as the short name of an old one.
    pub(super) fn keep_out(&self, path: &RelPath) -> Result<(), FileError> {
        let first = path.components().next().expect("a path is not empty");
        if first.is_ascii() && !first.contains(&b'~') {
            return Ok(());
        }
        let at = |name: &[u8]| statat(self.directory(), name, AtFlags::SYMLINK_NOFOLLOW).ok();
        let (Some(found), Some(own)) = (at(first), at(RelPath::RESERVED.as_bytes())) else {
            return Ok(());
        };
        if (found.st_dev, found.st_ino) == (own.st_dev, own.st_ino) {
            return Err(FileError::found(Operation::Resolve, path.as_bytes(), ItemCode::BadPath));
        }
        Ok(())
    }

    /// How the last part of a path is spelled at which something was found, if otherwise.
    fn spelled(&self, path: &RelPath, found: &Found) -> Result<Option<RelPath>, FileError> {
        let (parent, name) = path.split_last();
        let directory = parent.unwrap_or_default();
        if self.listings.borrow().has(directory, name) {
            return Ok(None);
        }
        let failed = |errno| FileError::new(Operation::Read, path, errno);
        let place = self.place(path)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let listed = openat(&place.parent, ".", flags, Mode::empty()).map_err(failed)?;
        let (key, hasher) = (folded(name), self.listings.borrow().hasher.clone());
        let mut names = HashSet::new();
        let mut real: Option<(u8, Vec<u8>)> = None;
        let mut is_exact = false;
        for entry in Dir::read_from(&listed).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let other = entry.file_name().to_bytes();
            names.insert(hasher.hash_one(other));
            is_exact |= other == name;
            let rank = 2 * u8::from(entry.ino() == found.identity.inode()) + u8::from(folded(other) == key);
            if rank > real.as_ref().map_or(0, |(rank, _)| *rank) {
                real = Some((rank, other.to_vec()));
            }
        }
        self.listings.borrow_mut().keep(directory, names);
        if is_exact {
            return Ok(None);
        }
        let real = real.map(|(_, name)| [directory, if directory.is_empty() { b"" } else { b"/" }, &name].concat());
        Ok(Some(
            real.and_then(|bytes| RelPath::parse(&bytes).ok())
                .unwrap_or_else(|| path.clone()),
        ))
    }
}

/// Names of what is between two spellings that are tried.
const NAMES_MAX: u32 = 100;
/// Whose conflict copy it looks like.
const AUTHOR: &str = "renaming";

fn tried(root: BorrowedFd<'_>) -> Result<Folding, Errno> {
    let private = open_private(root)?;
    make_and_enter(private.as_fd(), TRIAL)?;
    // Its own directory: somebody who opens the root at the same time tries the same names.
    let trial = enter(private.as_fd(), TRIAL, OFlags::PATH)?;
    let made = openat(
        &trial,
        NAME,
        OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC,
        Mode::RUSR | Mode::WUSR,
    );
    let is_found = |name: &str| statat(&trial, name, AtFlags::SYMLINK_NOFOLLOW).is_ok();
    let folding = Folding {
        case: made.is_ok() && is_found(NAME_CASE),
        marks: made.is_ok() && is_found(NAME_MARKS),
    };
    let _ = unlinkat(&trial, NAME, AtFlags::empty());
    let _ = unlinkat(&private, TRIAL, AtFlags::REMOVEDIR);
    made.map(|_| folding)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> RelPath {
        RelPath::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn where_nothing_is_folded_every_name_is_its_own_and_nothing_is_left_behind() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        assert_eq!(root.learn_folding(), Folding::default());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        std::fs::write(dir.path().join("a"), "x").unwrap();
        assert_eq!(root.shadow(&path("A")).unwrap(), None);
        root.rename_new(&path("a"), &path("A")).unwrap();
        assert!(root.probe_exactly(&path("A")).unwrap().is_some());
    }

    /// Row 8: our own directory is out of reach under any name that leads there.
    #[test]
    fn another_name_of_our_own_directory_leads_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join(".syncline")).unwrap();
        std::fs::write(dir.path().join("b~1"), "x").unwrap();
        // A second name of a directory exists here only as a bind mount; a file stands for it.
        let root = Root::open(dir.path()).unwrap();
        assert!(root.probe(&path("b~1")).unwrap().is_some());
        assert!(root.probe(&path("é/x")).unwrap().is_none());
    }

    #[test]
    fn a_name_gets_another_spelling_by_way_of_a_third() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a"), "x").unwrap();
        let root = Root::open(dir.path()).unwrap();
        root.respell(&path("a"), &path("A")).unwrap();
        let names: Vec<_> = std::fs::read_dir(dir.path()).unwrap().flatten().collect();
        assert_eq!(names.len(), 1);
        assert_eq!(names[0].file_name(), "A");
        // What is in the way at the end: it is as it was.
        std::fs::write(dir.path().join("b"), "y").unwrap();
        assert!(root.respell(&path("A"), &path("b")).is_err());
        assert_eq!(std::fs::read(dir.path().join("A")).unwrap(), b"x");
    }
}
