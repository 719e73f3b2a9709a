//! Publishing: giving staged content its final name in one atomic step, and losing nothing by it.
//!
//! 1. Where nothing is expected, `renameat2` with NOREPLACE: it fails if something appeared.
//! 2. Where something is expected, or was found by 1, `renameat2` with EXCHANGE: the name shows the old
//!    or the new version at every moment, and what was there is now in staging, where it is examined.
//! 3. If it is the version that was expected, it goes. Anything else is a version that somebody made
//!    since we looked: it moves back beside the file as a conflict copy.
//!
//! Awkward cases: an empty directory in the way is removed first; a file system without the flags of
//! `renameat2` gets a check and a plain rename; between EXCHANGE and 3 the displaced version has no
//! name outside staging, so a failure there exchanges back, and the staged name carries our inode: a
//! sweep after a crash keeps what is of another. Never flushes anything (that is `barrier`).
//! Invariant: only a version that the caller expected, or an empty directory, ever disappears.

use super::calendar::Moment;
use super::conflict::conflict_path;
use super::error::{FileError, Operation};
use super::facts::{Found, FoundKind, Identity};
use super::private::open_private;
use super::root::{Place, Root};
use super::staged::{Sealed, StagedName};
use super::staging::rescued;
use crate::model::{ItemCode, RelPath};
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

/// Gives `sealed` its final name. A link or special file in the way is treated like a file.
///
/// # Errors
/// [`ItemCode::InTheWay`] for a directory with content, [`ItemCode::CrossDevice`] when the directory
/// is on another file system than the root, [`ItemCode::Vanished`] when it is gone,
/// [`ItemCode::Changing`] when the name changes faster than it can be replaced. What stood there stands
/// there still, and the staged file is removed.
pub fn publish(root: &Root, sealed: Sealed, expected: &Expected) -> Result<Published, FileError> {
    publish_by(root, sealed, expected, Swap::Atomic)
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
    /// The conflict copy that a surprise was moved to already; only without EXCHANGE.
    aside: Option<RelPath>,
}

/// How one try ended.
enum Attempt {
    Done(Published),
    /// The name changed between two calls, or the file system cannot do it this way.
    Again,
}

fn publish_by(root: &Root, sealed: Sealed, expected: &Expected, swap: Swap) -> Result<Published, FileError> {
    let (staged, path) = sealed.into_parts();
    let place = root.place(&path)?;
    let mut publisher = Publisher {
        root,
        place,
        path: &path,
        staged,
        expected: *expected,
        swap,
        aside: None,
    };
    publisher.run()
}

impl Publisher<'_> {
    fn run(&mut self) -> Result<Published, FileError> {
        let mut made_way = false;
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
        match self.aside.take() {
            Some(copy) if self.staged.is_released() => Ok(Published::Displaced(copy)),
            _ => Err(FileError::found(
                Operation::Publish,
                self.path.as_bytes(),
                ItemCode::Changing,
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
                self.staged.session().directory(),
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
            Err(Errno::EXIST) => Ok(Attempt::Again),
            Err(errno) => self.degrade_or_fail(errno),
        }
    }

    fn replace(&mut self, found: &Found) -> Result<Attempt, FileError> {
        let foreseen = self.expected == Expected::Present(found.identity);
        match (self.swap, foreseen) {
            (Swap::Atomic, _) => self.exchange(found, foreseen),
            (Swap::Plain, true) => self.create_over(),
            (Swap::Plain, false) => self.move_aside_then_create(),
        }
    }

    /// Steps 2 and 3 of the head of this file.
    fn exchange(&mut self, found: &Found, foreseen: bool) -> Result<Attempt, FileError> {
        self.staged
            .carry_inode()
            .map_err(|errno| FileError::new(Operation::Publish, self.path, errno))?;
        match self.rename_to_final(RenameFlags::EXCHANGE) {
            Ok(()) => self.staged.release(),
            Err(Errno::NOENT) => return Ok(Attempt::Again),
            Err(errno) => return self.degrade_or_fail(errno),
        }
        let displaced = statat(
            self.staged.session().directory(),
            self.staged.as_str(),
            AtFlags::SYMLINK_NOFOLLOW,
        )
        .map(|stat| Found::of(&stat));
        match displaced {
            Ok(displaced) if foreseen && displaced.identity.same_content(&found.identity) => {
                self.staged.reclaim();
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

    /// Moves the displaced version from staging to a conflict copy beside the file.
    fn keep_aside(&self) -> Result<RelPath, FileError> {
        self.root.forget_beneath(self.path);
        self.at_free_copy(|copy| {
            let staging = self.staged.session().directory();
            renameat_with(
                staging,
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
    fn create_over(&mut self) -> Result<Attempt, FileError> {
        Ok(match self.create()? {
            Attempt::Done(_) => Attempt::Done(Published::Replaced),
            Attempt::Again => Attempt::Again,
        })
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
        let staging = self.staged.session().directory();
        renameat_with(
            staging,
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
