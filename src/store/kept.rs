//! Staged files that outlive their transfer: `.syncline/staging/kept/ID`, by the id of the journal.
//!
//! Only the holder of the journal makes, adopts or collects them; which of them are still of use is
//! for the journal to say. Never publishes anything. Invariant: the length of a kept file that is no patch is
//! what was written to it, in order, from its beginning; room that is taken ahead does not show in it.

use super::error::{FileError, Operation};
use super::journal::TransferId;
use super::private::{enter_private, make_and_enter, open_private};
use super::resolve::enter;
use super::room::Length;
use super::staged::{StagedFile, StagedName, names_another_inode};
use super::staging::{RESERVE_BYTES_MIN, Room, STAGING, Session, Staging, Sweep, keep_rescued, remove_if_empty};
use crate::model::RelPath;
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, chmodat, fchmod, fstat, openat, statat, unlinkat};
use rustix::io::Errno;
use std::fs::File;
use std::sync::Arc;

/// The directory of kept files, beside those of the sessions.
pub(super) const KEPT: &str = "kept";

/// Someone may remove the empty directory between our making and our using it.
const RACES_MAX: u32 = 4;

impl Staging {
    /// A new empty file (0600) for what will be `path`, which stays on the disk when it is dropped, until it
    /// is published or discarded.
    ///
    /// # Errors
    /// When it cannot be made, or there is not enough room.
    pub fn create_kept(&self, path: &RelPath, room: Room, id: TransferId) -> Result<StagedFile, FileError> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut outcome = Errno::NOENT;
        for _ in 0..RACES_MAX {
            let session = self
                .kept()
                .map_err(|errno| FileError::new(Operation::Stage, path, errno))?;
            let name = id.to_string();
            match openat(session.directory(), name.as_str(), flags, Mode::RUSR | Mode::WUSR) {
                Ok(opened) => {
                    let file = File::from(opened);
                    let staged = StagedFile::new(file, StagedName::kept(session, name), path, 0);
                    if let Room::Reserve(size) = room
                        && size > RESERVE_BYTES_MIN
                        && let Err(error) = staged.reserve(size, Length::Stays)
                    {
                        staged.discard();
                        return Err(error);
                    }
                    return Ok(staged);
                }
                Err(Errno::NOENT) => self.forget_kept(),
                Err(errno) => outcome = errno,
            }
            if outcome != Errno::NOENT {
                break;
            }
        }
        Err(FileError::new(Operation::Stage, path, outcome))
    }

    /// Makes a staged file the kept file of `id`: it stays on the disk from now on.
    ///
    /// # Errors
    /// When it cannot be moved; then it is what it was.
    pub fn keep(&self, staged: &mut StagedFile, id: TransferId) -> Result<(), FileError> {
        let name = id.to_string();
        let mut outcome = Errno::NOENT;
        for _ in 0..RACES_MAX {
            let moved = self.kept().and_then(|session| {
                staged.rename_into(session.directory(), &name)?;
                Ok(session)
            });
            match moved {
                Ok(session) => {
                    staged.is_now(StagedName::kept(session, name));
                    return Ok(());
                }
                Err(Errno::NOENT) => self.forget_kept(),
                Err(errno) => outcome = errno,
            }
            if outcome != Errno::NOENT {
                break;
            }
        }
        Err(FileError::new(Operation::Stage, staged.path(), outcome))
    }

    /// The kept file of `id`, to be gone on with; `None` when it is not there any more.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn adopt(&self, path: &RelPath, id: TransferId) -> Result<Option<StagedFile>, FileError> {
        let failed = |errno| FileError::new(Operation::Stage, path, errno);
        let name = id.to_string();
        let session = self.kept().map_err(failed)?;
        let found = match statat(session.directory(), name.as_str(), AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(None),
            other => other.map_err(failed)?,
        };
        if !is_ours(&found) {
            return Ok(None);
        }
        // It may have been sealed already, with a mode that forbids writing.
        let own = Mode::RUSR | Mode::WUSR;
        if !Mode::from_raw_mode(found.st_mode).contains(own) {
            make_writable(session.directory(), &name).map_err(failed)?;
        }
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match openat(session.directory(), name.as_str(), flags, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(None),
            other => other.map_err(failed)?,
        };
        let found = fstat(&file).map_err(failed)?;
        if !is_ours(&found) {
            return Ok(None);
        }
        fchmod(&file, own).map_err(failed)?;
        let (file, length) = (File::from(file), found.st_size.cast_unsigned());
        Ok(Some(StagedFile::new(
            file,
            StagedName::kept(session, name),
            path,
            length,
        )))
    }

    /// Whether the kept file of `id` is there.
    #[must_use]
    pub fn has_kept(&self, id: TransferId) -> bool {
        let found = |kept: OwnedFd| statat(&kept, id.to_string(), AtFlags::SYMLINK_NOFOLLOW);
        self.present_kept().and_then(found).is_ok()
    }

    /// Removes the kept file of `id`, if it is there, and with the last one their directory.
    pub fn discard_kept(&self, id: TransferId) {
        let Ok(kept) = self.present_kept() else { return };
        let _ = unlinkat(&kept, id.to_string(), AtFlags::empty());
        if self.kept_session().is_none() {
            // Else it goes with the session.
            drop(self.kept());
            self.forget_kept();
        }
    }

    /// The directory of kept files; makes nothing.
    fn present_kept(&self) -> Result<OwnedFd, Errno> {
        let private = enter_private(self.root().as_fd())?;
        let staging = enter(private.as_fd(), STAGING.as_bytes(), OFlags::PATH)?;
        enter(staging.as_fd(), KEPT.as_bytes(), OFlags::PATH)
    }

    /// Removes kept files that nobody will ask for.
    ///
    /// # Errors
    /// When the directory is there and cannot be read.
    pub fn sweep_kept(&self, is_needed: impl Fn(&str) -> bool) -> Result<Sweep, FileError> {
        let mut swept = Sweep::default();
        match self.sweep_kept_files(is_needed, &mut swept) {
            Ok(()) | Err(Errno::NOENT) => Ok(swept),
            Err(errno) => Err(FileError::at(Operation::Remove, b".syncline/staging/kept", errno)),
        }
    }

    fn sweep_kept_files(&self, is_needed: impl Fn(&str) -> bool, swept: &mut Sweep) -> Result<(), Errno> {
        let private = enter_private(self.root().as_fd())?;
        let staging = enter(private.as_fd(), STAGING.as_bytes(), OFlags::RDONLY)?;
        let kept = enter(staging.as_fd(), KEPT.as_bytes(), OFlags::RDONLY)?;
        for entry in Dir::read_from(&kept)? {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") || name.to_str().is_ok_and(&is_needed) {
                continue;
            }
            let Ok(stat) = statat(&kept, name, AtFlags::SYMLINK_NOFOLLOW) else {
                continue;
            };
            if names_another_inode(name.to_bytes(), stat.st_ino) {
                keep_rescued(kept.as_fd(), name, KEPT, private.as_fd());
            } else if unlinkat(&kept, name, AtFlags::empty()).is_ok() {
                swept.removed += 1;
            }
        }
        let _ = unlinkat(&staging, KEPT, AtFlags::REMOVEDIR);
        remove_if_empty(self.root().as_fd());
        Ok(())
    }

    fn kept(&self) -> Result<Arc<Session>, Errno> {
        if let Some(session) = self.kept_session() {
            return Ok(session);
        }
        for _ in 0..RACES_MAX {
            let private = open_private(self.root().as_fd())?;
            let staging = match make_and_enter(private.as_fd(), STAGING.as_bytes()) {
                Err(Errno::NOENT) => continue,
                other => other?,
            };
            match make_and_enter(staging.as_fd(), KEPT.as_bytes()) {
                Err(Errno::NOENT) => {}
                other => return Ok(self.keep_session(Session::kept(self.root(), staging, other?))),
            }
        }
        Err(Errno::AGAIN)
    }
}

/// Whether this is a file that only its name here leads to: one with a second name, as a copy of links has,
/// would be written through.
fn is_ours(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile && stat.st_nlink == 1
}

/// Lets its owner write to the file, but never through a link in its place.
fn make_writable(directory: BorrowedFd<'_>, name: &str) -> Result<(), Errno> {
    let held = openat(
        directory,
        name,
        OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    if !is_ours(&fstat(&held)?) {
        return Err(Errno::LOOP);
    }
    let link = format!("/proc/self/fd/{}", held.as_raw_fd());
    chmodat(CWD, link.as_str(), Mode::RUSR | Mode::WUSR, AtFlags::empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Meta, Timestamp};
    use crate::store::{Expected, Root, publish};

    fn path() -> RelPath {
        RelPath::parse(b"f").unwrap()
    }

    const META: Meta = Meta {
        mode: 0o400,
        mtime: Timestamp { seconds: 7, nanos: 0 },
    };

    // What was written is there after the transfer is gone; room taken ahead does not count as written.
    #[test]
    fn a_kept_file_stays_until_it_is_published_or_discarded() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        let staging = Staging::new(&root);
        let id = TransferId(7);
        let staged = staging.create_kept(&path(), Room::Reserve(1 << 20), id).unwrap();
        staged.write_at(0, b"beginning").unwrap();
        drop((staged, staging));
        let staging = Staging::new(&root);
        assert!(staging.adopt(&path(), TransferId(8)).unwrap().is_none());
        let staged = staging.adopt(&path(), id).unwrap().unwrap();
        assert_eq!(staged.file().metadata().unwrap().len(), 9);
        staged.write_at(9, b" and end").unwrap();
        let sealed = staged.seal(&META, 17).unwrap();
        publish(&root, sealed, &Expected::Absent, None).unwrap();
        assert_eq!(std::fs::read(dir.path().join("f")).unwrap(), b"beginning and end");
        staging.create_kept(&path(), Room::Sparse, id).unwrap().discard();
        drop(staging);
        assert_eq!(
            std::fs::read_dir(dir.path()).unwrap().count(),
            1,
            "nothing of ours is left"
        );
    }

    /// Row 3 of the threats: what a planted link, or a second name, leads to is neither changed nor written to.
    #[test]
    fn a_link_in_the_place_of_a_kept_file_is_not_adopted() {
        use std::os::unix::fs::PermissionsExt;
        let (dir, canary) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let outside = canary.path().join("f");
        std::fs::write(&outside, b"canary").unwrap();
        std::fs::set_permissions(&outside, std::fs::Permissions::from_mode(0o444)).unwrap();
        let staging = Staging::new(&Root::open(dir.path()).unwrap());
        let _other = staging.create_kept(&path(), Room::Sparse, TransferId(9)).unwrap();
        let kept = dir.path().join(".syncline/staging/kept");
        std::os::unix::fs::symlink(&outside, kept.join(TransferId(1).to_string())).unwrap();
        std::fs::hard_link(&outside, kept.join(TransferId(2).to_string())).unwrap();
        std::fs::create_dir(kept.join(TransferId(3).to_string())).unwrap();
        for id in [1, 2, 3] {
            assert!(!matches!(staging.adopt(&path(), TransferId(id)), Ok(Some(_))), "{id}");
            let mode = std::fs::metadata(&outside).unwrap().permissions().mode();
            assert_eq!(mode & 0o7777, 0o444, "{id}");
        }
        std::fs::remove_dir(kept.join(TransferId(3).to_string())).unwrap();
    }

    // A staged file that is kept from some time on: it stays, and is found.
    #[test]
    fn a_staged_file_can_become_a_kept_one() {
        let dir = tempfile::tempdir().unwrap();
        let staging = Staging::new(&Root::open(dir.path()).unwrap());
        let mut staged = staging.create(&path(), Room::Sparse).unwrap();
        staged.write_at(0, b"moved").unwrap();
        staging.keep(&mut staged, TransferId(4)).unwrap();
        staged.write_at(5, b" on").unwrap();
        drop(staged);
        let staged = staging.adopt(&path(), TransferId(4)).unwrap().unwrap();
        assert_eq!(staged.file().metadata().unwrap().len(), 8);
        staged.discard();
        drop(staging);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    // What was sealed with a mode that forbids writing can be gone on with.
    #[test]
    fn what_was_sealed_is_adopted() {
        let dir = tempfile::tempdir().unwrap();
        let staging = Staging::new(&Root::open(dir.path()).unwrap());
        let id = TransferId(5);
        let staged = staging.create_kept(&path(), Room::Sparse, id).unwrap();
        staged.write_at(0, b"all").unwrap();
        std::mem::forget(staged.seal(&META, 3).unwrap());
        let staged = staging.adopt(&path(), id).unwrap().unwrap();
        staged.write_at(0, b"ALL").unwrap();
        staged.discard();
    }

    // A sweep of sessions leaves kept files alone; that of kept files takes those that are not needed.
    #[test]
    fn a_sweep_takes_what_is_not_needed() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        let staging = Staging::new(&root);
        for id in [1, 2] {
            drop(staging.create_kept(&path(), Room::Sparse, TransferId(id)).unwrap());
        }
        staging.retire();
        assert_eq!(staging.sweep().unwrap(), Sweep::default());
        let needed = TransferId(1).to_string();
        assert_eq!(staging.sweep_kept(|name| name == needed).unwrap().removed, 1);
        assert!(staging.adopt(&path(), TransferId(2)).unwrap().is_none());
        staging.discard_kept(TransferId(1));
        staging.retire();
        drop(staging);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    /// A sweep that leaves nothing leaves no directories, so that a second one finds nothing to do.
    #[test]
    fn a_sweep_takes_the_directories_that_it_empties() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        let crashed = Staging::new(&root);
        std::mem::forget(crashed.create_kept(&path(), Room::Sparse, TransferId(1)).unwrap());
        let staging = Staging::new(&root);
        staging.sweep().unwrap();
        assert_eq!(staging.sweep_kept(|_| false).unwrap().removed, 1);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
