//! `StagedFile` and `Sealed`: content on its way into a root, under a name that nobody sees.
//!
//! Knows nothing of the final directory (that is `publish`). Invariant: until it is published, dropping
//! either value removes the file from the disk.

use super::barrier::flush;
use super::error::{FileError, Operation};
use super::meta;
use super::room::{Length, Reservation};
use super::source::SourceFile;
use super::staging::{RESERVE_BYTES_MIN, Session};
use super::versions::Slot;
use crate::model::{Meta, RelPath};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, Mode, OFlags, fstat, openat, renameat, statat, unlinkat};
use rustix::io::Errno;
use std::cell::Cell;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// A file that is being written.
#[derive(Debug)]
pub struct StagedFile {
    file: File,
    name: StagedName,
    path: RelPath,
    /// The length on the disk: what was reserved or written, whichever reaches further.
    length: Cell<u64>,
    /// What is reserved of it, if it was announced how long it is.
    room: Cell<Option<Reservation>>,
}

/// A finished file or link that waits to be made durable and published. Holds no descriptor of its
/// own, so thousands can wait.
#[derive(Debug)]
pub struct Sealed {
    name: StagedName,
    path: RelPath,
    form: Form,
    /// Of a file.
    inode: Option<u64>,
}

/// What is sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    File,
    Symlink,
}

/// A name in a session's staging directory, removed from there on drop.
#[derive(Debug)]
pub(super) struct StagedName {
    session: Arc<Session>,
    /// Where the file is once it was moved to the versions.
    slot: Option<Arc<OwnedFd>>,
    name: String,
    state: NameState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NameState {
    Ours,
    /// Stays when it is dropped, for a transfer that goes on later.
    Kept,
    Released,
}

/// The name of the staged file `name` that says which inode it is: before another one is put there.
fn carrying_inode(name: &str, inode: u64) -> String {
    let plain = name.split('-').next().unwrap_or_default();
    format!("{plain}-{inode:x}")
}

/// Whether a staged `name` says that it is of another inode: an exchange put a version there that was
/// not examined to its end.
pub(super) fn names_another_inode(name: &[u8], inode: u64) -> bool {
    let text = str::from_utf8(name).unwrap_or_default();
    text.contains('-') && text != carrying_inode(text, inode)
}

impl StagedFile {
    pub(super) fn new(file: File, name: StagedName, path: &RelPath, length: u64) -> StagedFile {
        StagedFile {
            file,
            name,
            path: path.clone(),
            length: Cell::new(length),
            room: Cell::new(None),
        }
    }

    /// Takes room for `size` bytes, in steps.
    pub(super) fn reserve(&self, size: u64, length: Length) -> Result<(), FileError> {
        let room = Reservation::begin(&self.file, 0, size, length)
            .map_err(|errno| FileError::new(Operation::Write, &self.path, errno))?;
        self.length.set(room.map_or(0, |room| room.file_length()));
        self.room.set(room);
        Ok(())
    }

    /// Takes room in steps for what is behind `present`, in a file that is made as long as it is to be. For a
    /// little of it none is taken, as for new files.
    pub(super) fn reserve_behind(&self, present: u64, length: u64) -> Result<(), FileError> {
        self.set_length(length)?;
        if length.saturating_sub(present) > RESERVE_BYTES_MIN {
            let room = Reservation::begin(&self.file, present, length, Length::Stays);
            self.room
                .set(room.map_err(|errno| FileError::new(Operation::Write, &self.path, errno))?);
        }
        Ok(())
    }

    /// Sees to it that up to `end` there is room.
    pub(super) fn make_room(&self, end: u64) -> Result<(), FileError> {
        if let Some(mut room) = self.room.get().filter(|room| room.ends_before(end)) {
            let reached = room.reach(&self.file, end);
            reached.map_err(|errno| FileError::new(Operation::Write, &self.path, errno))?;
            self.length.set(self.length.get().max(room.file_length()));
            self.room.set(Some(room));
        }
        Ok(())
    }

    /// The open file, for reading back what was written.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// The path that it is meant for.
    #[must_use]
    pub fn path(&self) -> &RelPath {
        &self.path
    }

    /// The file as it is now, for reading; as long as nothing is written to it, it stays the same.
    ///
    /// # Errors
    /// When it cannot be shared or examined.
    pub fn as_source(&self) -> Result<SourceFile, FileError> {
        let shared = self.file.try_clone();
        let shared = shared.map_err(|error| FileError::new(Operation::Open, &self.path, error))?;
        SourceFile::of(shared, &self.path)
    }

    /// Writes all of `bytes` at `offset`. What is never written reads as zeros; in a sparse file it
    /// takes no room.
    ///
    /// # Errors
    /// When the disk is full or fails.
    pub fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), FileError> {
        let end = offset + bytes.len() as u64;
        self.make_room(end)?;
        self.file
            .write_all_at(bytes, offset)
            .map_err(|error| FileError::new(Operation::Write, &self.path, error))?;
        self.length.set(self.length.get().max(end));
        Ok(())
    }

    /// Makes the file exactly `length` bytes long.
    pub(super) fn set_length(&self, length: u64) -> Result<(), FileError> {
        self.file
            .set_len(length)
            .map_err(|error| FileError::new(Operation::Write, &self.path, error))?;
        self.length.set(length);
        Ok(())
    }

    /// Gives it another name in `directory`; [`StagedFile::is_now`] says so.
    pub(super) fn rename_into(&self, directory: BorrowedFd<'_>, name: &str) -> Result<(), Errno> {
        renameat(self.name.directory(), self.name.as_str(), directory, name)
    }

    /// It was given this name.
    pub(super) fn is_now(&mut self, name: StagedName) {
        self.name.release();
        self.name = name;
    }

    /// Removes it, also when it is a kept one.
    pub fn discard(self) {
        self.name.discard();
    }

    /// The same file, which is removed when it is dropped, also when it was a kept one.
    #[must_use]
    pub fn unkept(mut self) -> StagedFile {
        self.name.reclaim();
        self
    }

    /// Ends the writing: exactly `length` bytes, mode and times as in `meta`.
    ///
    /// # Errors
    /// When the file system refuses; the file is removed then.
    pub fn seal(self, meta: &Meta, length: u64) -> Result<Sealed, FileError> {
        let StagedFile {
            file,
            mut name,
            path,
            length: present,
            ..
        } = self;
        // From here on it is published, or gone.
        name.reclaim();
        if present.get() != length {
            file.set_len(length)
                .map_err(|error| FileError::new(Operation::Write, &path, error))?;
        }
        meta::apply(file.as_fd(), meta).map_err(|errno| FileError::new(Operation::SetMeta, &path, errno))?;
        let stat = fstat(&file).map_err(|errno| FileError::new(Operation::Examine, &path, errno))?;
        Ok(Sealed {
            name,
            path,
            form: Form::File,
            inode: Some(stat.st_ino),
        })
    }
}

impl Sealed {
    pub(super) fn symlink(name: StagedName, path: &RelPath) -> Sealed {
        Sealed {
            name,
            path: path.clone(),
            form: Form::Symlink,
            inode: None,
        }
    }

    /// The file's inode, which it keeps when it gets its name; `None` for a link.
    #[must_use]
    pub fn inode(&self) -> Option<u64> {
        self.inode
    }

    /// The path that it is meant for.
    #[must_use]
    pub fn path(&self) -> &RelPath {
        &self.path
    }

    pub(super) fn form(&self) -> Form {
        self.form
    }

    /// What flushes its content, on any thread, before it is published.
    #[must_use]
    pub fn flushing(&self) -> Flushing {
        Flushing {
            session: Arc::clone(&self.name.session),
            name: self.name.name.clone(),
        }
    }

    pub(super) fn name(&self) -> &StagedName {
        &self.name
    }

    pub(super) fn into_parts(self) -> (StagedName, RelPath) {
        (self.name, self.path)
    }
}

/// A staged file whose content is to be flushed ahead of its commit.
#[derive(Debug)]
pub struct Flushing {
    session: Arc<Session>,
    name: String,
}

impl Flushing {
    /// Blocks until the disk has the content.
    ///
    /// # Errors
    /// When the disk failed: the file must not be published then, nor flushed again.
    pub fn run(self) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(self.session.directory(), self.name.as_str(), flags, Mode::empty())?;
        flush(file)
    }
}

impl StagedName {
    pub(super) fn new(session: Arc<Session>, name: String) -> StagedName {
        StagedName {
            session,
            slot: None,
            name,
            state: NameState::Ours,
        }
    }

    /// One that stays when it is dropped.
    pub(super) fn kept(session: Arc<Session>, name: String) -> StagedName {
        StagedName {
            session,
            slot: None,
            name,
            state: NameState::Kept,
        }
    }

    /// Removes the file.
    pub(super) fn discard(mut self) {
        self.reclaim();
    }

    pub(super) fn session(&self) -> &Arc<Session> {
        &self.session
    }

    /// The directory that the name is in.
    pub(super) fn directory(&self) -> BorrowedFd<'_> {
        self.slot.as_ref().map_or(self.session.directory(), AsFd::as_fd)
    }

    /// Whether it is among the versions.
    pub(super) fn is_in_slot(&self) -> bool {
        self.slot.is_some()
    }

    /// The file was moved to this place.
    pub(super) fn moved_to(&mut self, slot: Slot) {
        self.slot = Some(slot.directory);
        self.name = slot.name;
    }

    pub(super) fn as_str(&self) -> &str {
        &self.name
    }

    /// Gives the file a name that carries its inode, so that a sweep can tell it from what an exchange
    /// put in its place.
    pub(super) fn carry_inode(&mut self) -> Result<(), Errno> {
        if self.is_in_slot() {
            // Its name there says so already.
            return Ok(());
        }
        let directory = self.session.directory();
        let stat = statat(directory, self.name.as_str(), AtFlags::SYMLINK_NOFOLLOW)?;
        let carrying = carrying_inode(&self.name, stat.st_ino);
        renameat(directory, self.name.as_str(), directory, carrying.as_str())?;
        self.name = carrying;
        Ok(())
    }

    /// What stands under the name is no longer ours to remove: it was renamed away, or it is a file
    /// of the user's that was displaced to here.
    pub(super) fn release(&mut self) {
        self.state = NameState::Released;
    }

    pub(super) fn is_released(&self) -> bool {
        self.state == NameState::Released
    }

    /// What stands under the name is ours, or was agreed to go.
    pub(super) fn reclaim(&mut self) {
        self.state = NameState::Ours;
    }
}

impl Drop for StagedName {
    fn drop(&mut self) {
        if self.state == NameState::Ours {
            // Failing leaves a file that the next sweep removes.
            let _ = unlinkat(self.directory(), self.name.as_str(), AtFlags::empty());
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::model::{ItemCode, Meta, RelPath, Timestamp};
    use crate::store::{Room, Root, Staging};
    use std::os::unix::fs::MetadataExt;

    const META: Meta = Meta {
        mode: 0o4751,
        mtime: Timestamp {
            seconds: 1_500_000_000,
            nanos: 5,
        },
    };

    fn path() -> RelPath {
        RelPath::parse(b"final").unwrap()
    }

    /// A sparse file stays sparse, and offsets past 4 GiB land where they should.
    #[test]
    fn a_far_write_into_a_sparse_file_takes_little_room() {
        let dir = tempfile::tempdir().unwrap();
        let staging = Staging::new(&Root::open(dir.path()).unwrap());
        let far = (4 << 30) + 12_345;
        let staged = staging.create(&path(), Room::Sparse).unwrap();
        staged.write_at(far, b"end").unwrap();
        let copy = staged.file().try_clone().unwrap();
        let sealed = staged.seal(&META, far + 1_000_000).unwrap();
        let found = copy.metadata().unwrap();
        assert_eq!(found.len(), far + 1_000_000);
        assert!(found.blocks() * 512 < 1 << 20, "{} blocks", found.blocks());
        assert_eq!(found.mode() & 0o7777, 0o751);
        assert_eq!((found.mtime(), found.mtime_nsec()), (1_500_000_000, 5));
        drop(sealed);
        assert_eq!(copy.metadata().unwrap().nlink(), 0);
    }

    #[test]
    fn a_reserved_file_is_cut_to_what_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let staging = Staging::new(&Root::open(dir.path()).unwrap());
        let staged = staging.create(&path(), Room::Reserve(1 << 20)).unwrap();
        let copy = staged.file().try_clone().unwrap();
        assert_eq!(copy.metadata().unwrap().blocks() * 512, 1 << 20);
        staged.write_at(0, b"short").unwrap();
        let _sealed = staged.seal(&META, 5).unwrap();
        assert_eq!(copy.metadata().unwrap().len(), 5);
        assert!(copy.metadata().unwrap().blocks() * 512 <= 64 << 10);
    }

    /// Row 47: a full disk shows before any byte has travelled, and nothing is left behind.
    #[test]
    fn room_that_the_disk_does_not_have_is_refused_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        let staging = Staging::new(&root);
        let too_much = root.free_bytes().unwrap() + (1 << 40);
        let error = staging.create(&path(), Room::Reserve(too_much)).unwrap_err();
        assert!(
            matches!(error.code(), ItemCode::DiskFull | ItemCode::TooLarge),
            "{error}"
        );
        assert_eq!(error.path(), b"final");
        drop(staging);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
