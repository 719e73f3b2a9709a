//! Publishing: giving staged content its final name in one atomic step, and losing nothing by it.
//!
//! 1. Where nothing is expected, `renameat2` with NOREPLACE: it fails if something appeared.
//! 2. Where something is expected, or was found by 1, `renameat2` with EXCHANGE: the name shows the old
//!    or the new version at every moment, and what was there is now in staging, where it is examined.
//! 3. If it is the version that was expected, it goes. Anything else is a version that somebody made
//!    since we looked: it moves back beside the file as a conflict copy, unless it has the very content
//!    and time that we bring. So who is cut off, and sends a file again before the first one was done, finds no
//!    copy.
//!
//! Where versions are kept, the staged file moves to the slot of the version that will give way before 2.
//! So what gives way lies in its place among the versions in the moment in which it gives way, and 3
//! leaves it there.
//!
//! Awkward cases: an empty directory in the way is removed first; a file system without the flags of
//! `renameat2` gets a check and a plain rename, and what is kept gets a second name first; between EXCHANGE and 3 the displaced version has no
//! name outside staging, so a failure there exchanges back, and the staged name carries our inode: a
//! sweep after a crash keeps what is of another. A slot's name carries it, too. Never flushes anything (that is `barrier`).
//! Invariant: only a version that the caller expected, one with the content and time of ours, or an empty directory, ever
//! disappears.

use super::alike::are_alike;
use super::calendar::Moment;
use super::error::{FileError, Operation};
use super::facts::{Found, FoundKind, Identity};
use super::private::open_private;
use super::root::{Place, Root};
use super::staged::{Sealed, StagedName};
use super::staging::rescued;
use super::versions::{Keeping, Reason, Slot, Successor};
use crate::model::{ItemCode, RelPath, conflict_path};
use rustix::fd::{AsFd, BorrowedFd};
use rustix::fs::{AtFlags, RenameFlags, renameat, renameat_with, statat, unlinkat};
use rustix::io::Errno;

/// What the caller saw at the final path when it decided to replace it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// Nothing.
    Absent,
    /// Exactly this state.
    Present(Identity),
}

/// What publishing did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Published {
    /// There was nothing before.
    Created,
    /// What was expected, or an empty directory, gave way.
    Replaced,
    /// Something that was not expected stood there; it is now the conflict copy at this path.
    Displaced(RelPath),
}

/// How often the final name may change under our hands between two calls before we give up.
const RACES_MAX: u32 = 8;

/// Conflict copies of one file in one second.
const COPIES_MAX: u32 = 100;

/// Whose version a conflict copy holds.
const AUTHOR: &str = "local";

/// Gives `sealed` its final name. A link or special file in the way is treated like a file. The version
/// that was expected is kept by `keeping`; without, it is removed.
///
/// # Errors
/// [`ItemCode::InTheWay`] for a directory with content, [`ItemCode::CrossDevice`] when the directory
/// is on another file system than the root, [`ItemCode::Vanished`] when it is gone,
/// [`ItemCode::Changing`] when the name changes faster than it can be replaced. What stood there stands
/// there still, and the staged file is removed.
pub fn publish(
    root: &Root,
    sealed: Sealed,
    expected: &Expected,
    keeping: Option<&Keeping<'_>>,
) -> Result<Published, FileError> {
    publish_by(root, sealed, expected, Swap::Atomic, keeping)
}

/// What the file system's rename can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Swap {
    Atomic,
    Plain,
}

struct Publisher<'a> {
    root: &'a Root,
    place: Place<'a>,
    path: &'a RelPath,
    staged: StagedName,
    expected: Expected,
    swap: Swap,
    keeping: Option<&'a Keeping<'a>>,
    /// The conflict copy that a surprise was moved to already; only without EXCHANGE.
    aside: Option<RelPath>,
}

/// How one try ended.
enum Attempt {
    Done(Published),
    /// The name changed between two calls, or the file system cannot do it this way.
    Again,
}

/// What [`Publisher::keep_first`] did.
#[derive(Debug)]
enum Kept {
    /// The expected version has a second name, in the slot.
    Linked(Slot),
    /// The expected version is in the slot alone.
    Moved(Slot),
    /// It was not the expected version, which stays where it stood.
    Another,
}

fn publish_by(
    root: &Root,
    sealed: Sealed,
    expected: &Expected,
    swap: Swap,
    keeping: Option<&Keeping<'_>>,
) -> Result<Published, FileError> {
    let (staged, path) = sealed.into_parts();
    let place = root.place(&path)?;
    let mut publisher = Publisher {
        root,
        place,
        path: &path,
        staged,
        expected: *expected,
        swap,
        keeping,
        aside: None,
    };
    publisher.run()
}

impl Publisher<'_> {
    fn run(&mut self) -> Result<Published, FileError> {
        let mut made_way = false;
        self.check_spelling()?;
        // Nothing is looked at when nothing is expected: the rename itself finds out.
        let mut target = match self.expected {
            Expected::Absent if self.swap == Swap::Atomic => None,
            _ => self.look()?,
        };
        for _ in 0..RACES_MAX {
            let attempt = match target {
                None => self.create()?,
                Some(found) if found.kind == FoundKind::Directory => {
                    made_way |= self.make_way()?;
                    Attempt::Again
                }
                Some(found) => self.replace(&found)?,
            };
            match attempt {
                Attempt::Done(Published::Created | Published::Replaced) if self.aside.is_some() => {
                    break;
                }
                Attempt::Done(Published::Created) if made_way => return Ok(Published::Replaced),
                Attempt::Done(published) => return Ok(published),
                Attempt::Again => target = self.look()?,
            }
        }
        let Some(copy) = self.aside.take().filter(|_| self.staged.is_released()) else {
            return Err(FileError::found(
                Operation::Publish,
                self.path.as_bytes(),
                ItemCode::Changing,
            ));
        };
        let is_gone = self.is_alike(self.place.parent.as_fd(), copy.name())
            && unlinkat(&self.place.parent, copy.name(), AtFlags::empty()).is_ok();
        Ok(match is_gone {
            true => Published::Replaced,
            false => Published::Displaced(copy),
        })
    }

    /// Refuses what the file system takes for something of another name.
    fn check_spelling(&self) -> Result<(), FileError> {
        match self.root.shadow(self.path)? {
            None => Ok(()),
            Some(_) => Err(FileError::found(
                Operation::Publish,
                self.path.as_bytes(),
                ItemCode::Collides,
            )),
        }
    }

    fn look(&self) -> Result<Option<Found>, FileError> {
        match statat(&self.place.parent, self.place.name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(Found::of(&stat))),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(FileError::new(Operation::Examine, self.path, errno)),
        }
    }

    fn create(&mut self) -> Result<Attempt, FileError> {
        let outcome = match self.swap {
            Swap::Atomic => self.rename_to_final(RenameFlags::NOREPLACE),
            Swap::Plain => renameat(
                self.staged.directory(),
                self.staged.as_str(),
                &self.place.parent,
                self.place.name,
            ),
        };
        match outcome {
            Ok(()) => {
                self.staged.release();
                Ok(Attempt::Done(Published::Created))
            }
            Err(Errno::EXIST) => {
                self.check_spelling()?;
                Ok(Attempt::Again)
            }
            Err(errno) => self.degrade_or_fail(errno),
        }
    }

    fn replace(&mut self, found: &Found) -> Result<Attempt, FileError> {
        let foreseen = self.expected == Expected::Present(found.identity);
        match (self.swap, foreseen) {
            (Swap::Atomic, _) => self.exchange(found, foreseen),
            (Swap::Plain, true) => self.create_over(found),
            (Swap::Plain, false) => self.move_aside_then_create(),
        }
    }

    /// Steps 2 and 3 of the head of this file.
    fn exchange(&mut self, found: &Found, foreseen: bool) -> Result<Attempt, FileError> {
        let readied = match self.keeping {
            Some(keeping) if foreseen => self.move_to_slot(keeping),
            _ => self.staged.carry_inode(),
        };
        readied.map_err(|errno| FileError::new(Operation::Publish, self.path, errno))?;
        match self.rename_to_final(RenameFlags::EXCHANGE) {
            Ok(()) => self.staged.release(),
            Err(Errno::NOENT) => return Ok(Attempt::Again),
            Err(errno) => return self.degrade_or_fail(errno),
        }
        let ask = || statat(self.staged.directory(), self.staged.as_str(), AtFlags::SYMLINK_NOFOLLOW);
        // A disk that fails once often answers when it is asked again; without an answer what was displaced
        // counts as a surprise, and is kept beside the file.
        let displaced = ask().or_else(|_| ask()).map(|stat| Found::of(&stat));
        match displaced {
            Ok(displaced) if foreseen && displaced.identity.same_content(&found.identity) => {
                self.reclaim_unless_kept();
                Ok(Attempt::Done(Published::Replaced))
            }
            Ok(_) if self.is_alike(self.staged.directory(), self.staged.as_str().as_bytes()) => {
                self.reclaim_unless_kept();
                Ok(Attempt::Done(Published::Replaced))
            }
            _ => match self.keep_aside() {
                Ok(copy) => Ok(Attempt::Done(Published::Displaced(copy))),
                Err(error) => {
                    self.exchange_back();
                    Err(error)
                }
            },
        }
    }

    /// What gave way goes with the staged name, unless that is its place among the versions.
    fn reclaim_unless_kept(&mut self) {
        if !self.staged.is_in_slot() {
            self.staged.reclaim();
        }
    }

    /// Whether what is called so has the content that was published.
    fn is_alike(&self, directory: BorrowedFd<'_>, name: &[u8]) -> bool {
        are_alike((directory, name), (self.place.parent.as_fd(), self.place.name))
    }

    /// Moves the staged file to where the version that it replaces is going to be.
    fn move_to_slot(&mut self, keeping: &Keeping<'_>) -> Result<(), Errno> {
        if self.staged.is_in_slot() {
            return Ok(());
        }
        let (from, name) = (self.staged.directory(), self.staged.as_str());
        let stat = statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let successor = Some(Successor::of(&Found::of(&stat).identity));
        let slot = keeping.rename_in(self.path, from, name.as_bytes(), Reason::Replaced, successor)?;
        self.staged.moved_to(slot);
        Ok(())
    }

    /// Moves the displaced version from staging to a conflict copy beside the file.
    fn keep_aside(&self) -> Result<RelPath, FileError> {
        self.root.forget_beneath(self.path);
        self.at_free_copy(|copy| {
            renameat_with(
                self.staged.directory(),
                self.staged.as_str(),
                &self.place.parent,
                copy,
                RenameFlags::NOREPLACE,
            )
        })
    }

    fn exchange_back(&mut self) {
        match self.rename_to_final(RenameFlags::EXCHANGE) {
            Ok(()) => self.staged.reclaim(),
            // The new version stands under the name, the displaced one in staging. There it would be
            // swept some day, so it moves to where nothing is ever swept.
            Err(_) => self.rescue(),
        }
    }

    fn rescue(&self) {
        if self.staged.is_in_slot() {
            return log::error!(
                "{}: an unexpected version was kept as {}",
                self.path,
                self.staged.as_str()
            );
        }
        let session = self.staged.session();
        let name = rescued(session.name(), self.staged.as_str());
        let kept = open_private(session.root()).and_then(|private| {
            renameat_with(
                session.directory(),
                self.staged.as_str(),
                &private,
                name.as_str(),
                RenameFlags::NOREPLACE,
            )
        });
        match kept {
            Ok(()) => log::error!("{}: an unexpected version was kept as .syncline/{name}", self.path),
            Err(errno) => log::error!("{}: an unexpected version is stuck in staging: {errno}", self.path),
        }
    }

    /// Without NOREPLACE and EXCHANGE: what was expected is replaced by a plain rename.
    fn create_over(&mut self, found: &Found) -> Result<Attempt, FileError> {
        let kept = match self.keeping {
            Some(keeping) => Some(self.keep_first(keeping, found)?),
            None => None,
        };
        if let Some(Kept::Another) = kept {
            return Ok(Attempt::Again);
        }
        match self.create() {
            Ok(Attempt::Done(_)) => Ok(Attempt::Done(Published::Replaced)),
            Ok(Attempt::Again) => Ok(Attempt::Again),
            Err(error) => {
                if let Some(Kept::Moved(slot)) = kept {
                    let _ = self.put_back(&slot);
                }
                Err(error)
            }
        }
    }

    /// Gives what is going to be replaced a second name among the versions. Where the file system has no
    /// second names, its only one: then nothing stands in its place until the new version does.
    fn keep_first(&self, keeping: &Keeping<'_>, found: &Found) -> Result<Kept, FileError> {
        let failed = |errno| FileError::new(Operation::Publish, self.path, errno);
        let (parent, name) = (self.place.parent.as_fd(), self.place.name);
        let stat = statat(self.staged.directory(), self.staged.as_str(), AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
        let successor = Successor::of(&Found::of(&stat).identity);
        let kept = match keeping.link_in(self.path, parent, name, successor) {
            Err(Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS | Errno::MLINK) => keeping
                .rename_in(self.path, parent, name, Reason::Replaced, Some(successor))
                .map(Kept::Moved),
            other => other.map(Kept::Linked),
        };
        let kept = match kept {
            Err(Errno::NOENT) => return Ok(Kept::Another),
            other => other.map_err(failed)?,
        };
        let (Kept::Linked(slot) | Kept::Moved(slot)) = &kept else {
            return Ok(kept);
        };
        let stat = statat(&slot.directory, slot.name.as_str(), AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
        if Found::of(&stat).identity.same_content(&found.identity) {
            return Ok(kept);
        }
        // Somebody's version since we looked: it stays where it stood, and is treated as a surprise.
        match &kept {
            Kept::Moved(slot) => self.put_back(slot).map_err(failed)?,
            Kept::Linked(_) | Kept::Another => {
                let _ = unlinkat(&slot.directory, slot.name.as_str(), AtFlags::empty());
            }
        }
        Ok(Kept::Another)
    }

    fn put_back(&self, slot: &Slot) -> Result<(), Errno> {
        match self.look() {
            Ok(None) => renameat(&slot.directory, slot.name.as_str(), &self.place.parent, self.place.name),
            // Something has taken the place: what is among the versions stays there.
            _ => Ok(()),
        }
    }

    fn move_aside_then_create(&mut self) -> Result<Attempt, FileError> {
        let parent = &self.place.parent;
        let moved = self.at_free_copy(|copy| match statat(parent, copy, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => Err(Errno::EXIST),
            Err(Errno::NOENT) => renameat(parent, self.place.name, parent, copy),
            Err(errno) => Err(errno),
        })?;
        self.aside = Some(moved);
        self.create()
    }

    /// Calls `rename` with the names of conflict copies until one is free.
    fn at_free_copy(&self, rename: impl Fn(&[u8]) -> Result<(), Errno>) -> Result<RelPath, FileError> {
        let stamp = Moment::now().compact();
        for number in 1..=COPIES_MAX {
            let Some(copy) = conflict_path(self.path, &stamp, AUTHOR, number) else {
                return Err(FileError::found(
                    Operation::Publish,
                    self.path.as_bytes(),
                    ItemCode::BadPath,
                ));
            };
            match rename(copy.name()) {
                Ok(()) => return Ok(copy),
                Err(Errno::EXIST) => {}
                Err(errno) => return Err(FileError::new(Operation::Publish, &copy, errno)),
            }
        }
        Err(FileError::found(
            Operation::Publish,
            self.path.as_bytes(),
            ItemCode::InTheWay,
        ))
    }

    /// Removes an empty directory that stands in the place. Returns whether it was us who did.
    fn make_way(&self) -> Result<bool, FileError> {
        self.root.forget_beneath(self.path);
        match unlinkat(&self.place.parent, self.place.name, AtFlags::REMOVEDIR) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(false),
            Err(errno) => Err(FileError::new(Operation::Publish, self.path, errno)),
        }
    }

    fn rename_to_final(&self, flags: RenameFlags) -> Result<(), Errno> {
        renameat_with(
            self.staged.directory(),
            self.staged.as_str(),
            &self.place.parent,
            self.place.name,
            flags,
        )
    }

    fn degrade_or_fail(&mut self, errno: Errno) -> Result<Attempt, FileError> {
        if self.swap == Swap::Atomic && matches!(errno, Errno::INVAL | Errno::NOSYS) {
            self.swap = Swap::Plain;
            return Ok(Attempt::Again);
        }
        Err(FileError::new(Operation::Publish, self.path, errno))
    }
}

#[cfg(test)]
#[path = "publish_tests.rs"]
mod tests;
