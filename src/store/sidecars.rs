//! `Sidecars`: delta indexes in a directory of their own, by the content ids that they are of.
//!
//! Never fails a caller: a directory that cannot be made, read or written to looks empty. Nothing is
//! flushed, so what a power cut tore is found by its checksums. Invariants: a sidecar that is handed out
//! is whole and under its root; nothing outside the directory is touched, and no link in it is followed.
//!
//! 1. Files are named by content id and written under another name first (`sidecar_writer`), so any
//!    number of processes can share the directory: who loses a race loses a sidecar, nothing more.
//! 2. The time of a file is when it was last used. What is over a bound goes, the longest unused first.
//! 3. A stamp says which state of which inode has the content. It is rewritten in place, 64 bytes with a
//!    checksum over them and the root. The table of stamps is read at its first use.
//!
//! Awkward case: another process may add files while this one counts, so a table is read again after
//! [`FINISHED_MAX`] files of our own; until then bounds may be exceeded by what others add.

use super::facts::Identity;
use super::home::Home;
use super::map::Window;
use super::meta::times_of;
use super::private::{enter_private, make_and_enter, open_private, remove_private_if_empty};
use super::resolve::enter;
use super::root::Root;
use super::sidecar_copy::SidecarCopy;
use super::sidecar_opening::{Opened, SidecarOpening, WINDOW_BYTES_MAX};
use super::sidecar_table::{Kept, Table};
use super::sidecar_writer::{SidecarWriter, UNFINISHED};
use crate::delta::index::{
    HEAD_BYTES, IndexError, IndexHeader, IndexView, Parts, Proven, STAMP_BYTES, STAMP_OFFSET, Sidecar,
};
use crate::model::{ContentId, Timestamp};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, CWD, Dir, FlockOperation, Mode, OFlags, flock, futimens, openat, unlinkat};
use rustix::io::Errno;
use std::cell::RefCell;
use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// How much is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SidecarBounds {
    /// Bytes of all files together.
    pub bytes: u64,
    /// Files.
    pub count: usize,
}

impl Default for SidecarBounds {
    fn default() -> SidecarBounds {
        SidecarBounds {
            bytes: 512 << 20,
            count: 16_384,
        }
    }
}

/// The sidecars of one directory. One value serves one thread.
#[derive(Debug)]
pub struct Sidecars {
    place: Place,
    bounds: SidecarBounds,
    directory: RefCell<Option<Arc<OwnedFd>>>,
    table: RefCell<Option<Table>>,
}

/// What the directory is in.
#[derive(Debug)]
enum Place {
    /// `.syncline` of a root.
    Root(Arc<OwnedFd>),
    /// A state directory.
    Home(PathBuf),
}

/// A sidecar that was found whole, mapped.
#[derive(Debug)]
pub struct MappedSidecar {
    window: Window,
    header: IndexHeader,
}

const SIDECARS: &[u8] = b"sidecars";
/// Our own files until the table is read again.
const FINISHED_MAX: u32 = 256;
/// Names that are looked at in the directory: memory stays bounded in one that somebody flooded.
const NAMES_MAX: usize = 1 << 17;

impl Sidecars {
    /// Sidecars in `.syncline/sidecars` of a root. Makes nothing yet; removes its directory again when
    /// nothing is in it at the end.
    #[must_use]
    pub fn in_root(root: &Root, bounds: SidecarBounds) -> Sidecars {
        Sidecars::at(Place::Root(Arc::clone(root.directory())), bounds)
    }

    /// Sidecars in `sidecars` of the state directory. Makes nothing yet.
    #[must_use]
    pub fn in_home(home: &Home, bounds: SidecarBounds) -> Sidecars {
        Sidecars::at(Place::Home(home.path().to_owned()), bounds)
    }

    fn at(place: Place, bounds: SidecarBounds) -> Sidecars {
        Sidecars {
            place,
            bounds,
            directory: RefCell::default(),
            table: RefCell::default(),
        }
    }

    /// Starts a sidecar of a file of `length` bytes; `None` where it could not be kept.
    #[must_use]
    pub fn create(&self, length: u64, parts: Parts, seed: u64) -> Option<SidecarWriter> {
        let sidecar = Sidecar::new(length, parts, seed);
        if sidecar.anchors_offset() > self.bounds.bytes.min(WINDOW_BYTES_MAX) || self.bounds.count == 0 {
            return None;
        }
        // Once more if somebody removed the directory that we hold.
        for _ in 0..2 {
            match SidecarWriter::create(self.make_directory()?, sidecar) {
                Err(Errno::NOENT) => drop((self.directory.take(), self.table.take())),
                other => return other.ok(),
            }
        }
        None
    }

    /// The same for a file of which most is that of `basis`, of the same length: blocks of the sidecar that
    /// stay are shared, where the file system can.
    #[must_use]
    pub fn create_like(&self, basis: &ContentId, parts: Parts, seed: u64) -> Option<SidecarWriter> {
        let mut writer = self.create(basis.length, parts, seed)?;
        if let Some(file) = self.open_file(basis, OFlags::RDONLY) {
            writer.clone_from(&file);
        }
        Some(writer)
    }

    /// Ends a sidecar: it is of the content `id` if its own leaves say so. Returns whether one is kept: one
    /// with all sections that is there stays when the new one has only leaves.
    pub fn finish(&self, writer: SidecarWriter, id: &ContentId) -> bool {
        if writer.sidecar().parts == Parts::Leaves && self.parts_of(id) == Some(Parts::Full) {
            return true;
        }
        self.take_in(id, |name, used| writer.finish(id, name, used))
    }

    /// Starts to take a whole sidecar as it is; `None` where it could not be kept.
    #[must_use]
    pub fn receive(&self, bytes_max: u64) -> Option<SidecarCopy> {
        let bytes_max = bytes_max.min(self.bounds.bytes).min(WINDOW_BYTES_MAX);
        SidecarCopy::create(self.make_directory()?, bytes_max).ok()
    }

    /// Ends such a copy. Returns whether it is kept: nothing of it is believed before it is opened, when
    /// everything is checked.
    pub fn accept(&self, copy: SidecarCopy, id: &ContentId) -> bool {
        self.take_in(id, |name, used| copy.finish(name, used)) && self.open(id).is_some()
    }

    /// Which sections the sidecar of `id` has, by its header.
    fn parts_of(&self, id: &ContentId) -> Option<Parts> {
        let file = self.open_file(id, OFlags::RDONLY)?;
        let mut head = [0; HEAD_BYTES];
        file.read_exact_at(&mut head, 0).ok()?;
        let header = IndexHeader::parse(&head).ok()?;
        (header.id() == *id).then_some(header.sidecar().parts)
    }

    /// Enters a file into the table that `finish` gives its name and returns the bytes of.
    fn take_in(&self, id: &ContentId, finish: impl FnOnce(&str, Timestamp) -> Option<u64>) -> bool {
        let name = id.to_string();
        self.with_table(|table| {
            let used = table.next_use(now());
            let Some(bytes) = finish(&name, used) else {
                return (false, false);
            };
            table.insert(
                *id,
                Kept {
                    bytes,
                    used,
                    stamp: None,
                },
            );
            let finished = table.count_finished();
            for old in table.over(self.bounds.bytes, self.bounds.count) {
                self.unlink(&old);
            }
            (table.contains(id), finished >= FINISHED_MAX)
        })
        .is_some_and(|(kept, is_stale)| {
            if is_stale {
                self.table.take();
            }
            kept
        })
    }

    /// The sidecar of `id`, if there is one and it is whole. One that is damaged is removed. Takes 8 ms for a
    /// file of 1 GiB; [`begin_open`](Self::begin_open) does the same in steps.
    #[must_use]
    pub fn open(&self, id: &ContentId) -> Option<MappedSidecar> {
        let mut opening = self.begin_open(id)?;
        loop {
            match self.go_on_open(opening) {
                Opened::More(more) => opening = more,
                Opened::Done(mapped) => return mapped,
            }
        }
    }

    /// Begins to open the sidecar of `id`, if there is one.
    #[must_use]
    pub fn begin_open(&self, id: &ContentId) -> Option<Box<SidecarOpening>> {
        let file = self.open_file(id, OFlags::RDONLY)?;
        let opening = SidecarOpening::new(file, id).inspect_err(|error| self.discard(id, error));
        opening.ok().map(Box::new)
    }

    /// Proves the next part of it, for less than half a millisecond.
    #[must_use]
    pub fn go_on_open(&self, mut opening: Box<SidecarOpening>) -> Opened {
        match opening.step() {
            Ok(Proven::More) => Opened::More(opening),
            Ok(Proven::Whole) => {
                self.touch(&opening.file, &opening.id);
                Opened::Done(Some(opening.finish()))
            }
            Err(error) => {
                self.discard(&opening.id, &error);
                Opened::Done(None)
            }
        }
    }

    fn discard(&self, id: &ContentId, error: &IndexError) {
        log::debug!("the sidecar {id} is removed: {error}");
        self.remove(id);
    }

    /// Remembers that the file in the state `stamp` has the content `id`, if there is a sidecar of it. One
    /// stamp is kept per content, the last. The caller saw the same state before and after reading.
    pub fn set_stamp(&self, id: &ContentId, stamp: &Identity) {
        let before = self.content_of(stamp);
        if before == Some(*id) {
            return;
        }
        if let Some(other) = before {
            self.write_stamp(&other, &[0; STAMP_BYTES]);
        }
        if self.write_stamp(id, &encode_stamp(stamp, id)) {
            self.with_table(|table| table.set_stamp(id, stamp));
        }
    }

    /// Which content the file in the state `stamp` has, if a sidecar says so. Whether that is still whole
    /// is for [`open`](Self::open) to say.
    #[must_use]
    pub fn content_of(&self, stamp: &Identity) -> Option<ContentId> {
        self.with_table(|table| table.content_of(stamp)).flatten()
    }

    /// Removes the sidecar of `id`.
    pub fn remove(&self, id: &ContentId) {
        self.unlink(id);
        if let Some(table) = &mut *self.table.borrow_mut() {
            table.remove(id);
        }
    }

    fn write_stamp(&self, id: &ContentId, stamp: &[u8; STAMP_BYTES]) -> bool {
        self.open_file(id, OFlags::WRONLY)
            .is_some_and(|file| file.write_all_at(stamp, STAMP_OFFSET).is_ok())
    }

    /// Opens what should be the sidecar of `id`. What is no regular file is removed if it can be.
    fn open_file(&self, id: &ContentId, access: OFlags) -> Option<File> {
        let directory = self.directory()?;
        let flags = access | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        match openat(&directory, id.to_string(), flags, Mode::empty()) {
            Ok(opened) => {
                let file = File::from(opened);
                let is_ours = file.metadata().is_ok_and(|found| is_sidecar_file(&found));
                if !is_ours {
                    self.remove(id);
                }
                is_ours.then_some(file)
            }
            Err(errno) => {
                if matches!(errno, Errno::NOENT | Errno::LOOP | Errno::NXIO | Errno::ISDIR) {
                    self.remove(id);
                }
                None
            }
        }
    }

    fn touch(&self, file: &File, id: &ContentId) {
        let mut used = now();
        if let Some(table) = &mut *self.table.borrow_mut() {
            used = table.next_use(used);
            table.touch(id, used);
        }
        let _ = futimens(file, &times_of(used));
    }

    fn unlink(&self, id: &ContentId) {
        if let Some(directory) = self.directory() {
            let _ = unlinkat(&directory, id.to_string(), AtFlags::empty());
        }
    }

    /// Calls with the table, read first if it was not; `None` without a directory.
    fn with_table<T>(&self, call: impl FnOnce(&mut Table) -> T) -> Option<T> {
        if self.table.borrow().is_none() {
            // Not while it is borrowed: what is found damaged is removed.
            let table = self.read_table()?;
            self.table.replace(Some(table));
        }
        self.table.borrow_mut().as_mut().map(call)
    }

    fn read_table(&self) -> Option<Table> {
        let directory = self.directory()?;
        let mut table = Table::default();
        for entry in Dir::read_from(&directory).ok()?.take(NAMES_MAX) {
            let Ok(entry) = entry else { break };
            let Ok(name) = entry.file_name().to_str() else {
                continue;
            };
            if name.ends_with(UNFINISHED) {
                sweep(&directory, name);
            } else if let Some(id) = name.parse::<ContentId>().ok().filter(|id| id.to_string() == name) {
                match self.open_file(&id, OFlags::RDONLY).map(|file| read_head(&file, &id)) {
                    Some(Some(kept)) => table.insert(id, kept),
                    Some(None) => drop(unlinkat(&directory, name, AtFlags::empty())),
                    None => {}
                }
            }
        }
        for old in table.over(self.bounds.bytes, self.bounds.count) {
            let _ = unlinkat(&directory, old.to_string(), AtFlags::empty());
        }
        Some(table)
    }

    /// The directory, if it is there.
    fn directory(&self) -> Option<Arc<OwnedFd>> {
        self.hold(|place| match place {
            Place::Root(root) => enter(enter_private(root.as_fd())?.as_fd(), SIDECARS, OFlags::RDONLY),
            Place::Home(path) => enter(open_home(path)?.as_fd(), SIDECARS, OFlags::RDONLY),
        })
    }

    fn make_directory(&self) -> Option<Arc<OwnedFd>> {
        self.hold(|place| {
            let parent = match place {
                Place::Root(root) => open_private(root.as_fd())?,
                Place::Home(path) => open_home(path)?,
            };
            make_and_enter(parent.as_fd(), SIDECARS)?;
            enter(parent.as_fd(), SIDECARS, OFlags::RDONLY)
        })
    }

    fn hold(&self, open: impl FnOnce(&Place) -> Result<OwnedFd, Errno>) -> Option<Arc<OwnedFd>> {
        let mut held = self.directory.borrow_mut();
        if held.is_none() {
            *held = open(&self.place).ok().map(Arc::new);
        }
        held.clone()
    }
}

impl Drop for Sidecars {
    fn drop(&mut self) {
        let Place::Root(root) = &self.place else { return };
        if self.directory.take().is_some()
            && let Ok(private) = enter_private(root.as_fd())
        {
            let _ = unlinkat(&private, SIDECARS, AtFlags::REMOVEDIR);
            remove_private_if_empty(root.as_fd());
        }
    }
}

impl MappedSidecar {
    /// The sidecar of `id` in a file of its own, which no store keeps.
    ///
    /// # Errors
    /// [`IndexError`] when it is damaged, or of another content; [`IndexError::Length`] also when it cannot
    /// be mapped.
    pub fn of_file(file: &File, id: &ContentId) -> Result<MappedSidecar, IndexError> {
        let file = file.try_clone().map_err(|_| IndexError::Length)?;
        let mut opening = SidecarOpening::new(file, id)?;
        while opening.step()? == Proven::More {}
        Ok(opening.finish())
    }

    pub(super) fn proven(window: Window, header: IndexHeader) -> MappedSidecar {
        MappedSidecar { window, header }
    }

    /// Looks into it. Costs nothing.
    ///
    /// # Panics
    /// Never: the length was compared when it was opened.
    #[must_use]
    pub fn view(&self) -> IndexView<'_> {
        let view = self.header.view(self.window.as_ref());
        view.expect("a window keeps its length, which was compared")
    }

    /// The whole file, as it is.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.window.as_ref()
    }

    /// Whether a part of it was lost since it was opened and read as zeros. Ask after reading.
    #[must_use]
    pub fn is_torn(&self) -> bool {
        self.window.is_torn()
    }
}

/// Operators may have links in the path of their state directory.
fn open_home(path: &PathBuf) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(CWD, path, flags, Mode::empty())
}

/// Whether this can be a file of ours: regular, with no other name, of another user least of all.
fn is_sidecar_file(found: &std::fs::Metadata) -> bool {
    found.is_file() && found.nlink() <= 1 && found.uid() == rustix::process::geteuid().as_raw()
}

/// Size, last use and stamp of the sidecar of `id`; `None` when its header is damaged or does not fit.
fn read_head(file: &File, id: &ContentId) -> Option<Kept> {
    let found = file.metadata().ok()?;
    let mut head = [0; HEAD_BYTES];
    file.read_exact_at(&mut head, 0).ok()?;
    let header = IndexHeader::parse(&head).ok()?;
    if header.id() != *id || header.total_bytes() != found.len() {
        return None;
    }
    let stamp = head[STAMP_OFFSET as usize..]
        .try_into()
        .expect("the stamp ends the head");
    Some(Kept {
        bytes: found.len(),
        used: Timestamp {
            seconds: found.mtime(),
            nanos: u32::try_from(found.mtime_nsec()).unwrap_or(0),
        },
        stamp: decode_stamp(stamp, id),
    })
}

/// Removes an unfinished file that nobody holds the lock of.
fn sweep(directory: &OwnedFd, name: &str) {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let is_left = match openat(directory, name, flags, Mode::empty()) {
        Ok(file) => flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok(),
        Err(errno) => errno == Errno::LOOP,
    };
    if is_left {
        let _ = unlinkat(directory, name, AtFlags::empty());
    }
}

const STAMP_SUM_OFFSET: usize = STAMP_BYTES - 4;

fn encode_stamp(stamp: &Identity, id: &ContentId) -> [u8; STAMP_BYTES] {
    let mut bytes = [0; STAMP_BYTES];
    bytes[..Identity::BYTES].copy_from_slice(&stamp.to_bytes());
    let sum = stamp_sum(&bytes, id);
    bytes[STAMP_SUM_OFFSET..].copy_from_slice(&sum.to_le_bytes());
    bytes
}

fn decode_stamp(bytes: &[u8; STAMP_BYTES], id: &ContentId) -> Option<Identity> {
    let fits = bytes[STAMP_SUM_OFFSET..] == stamp_sum(bytes, id).to_le_bytes();
    let stamp = bytes[..Identity::BYTES].try_into().expect("the stamp begins with it");
    fits.then(|| Identity::from_bytes(stamp))
}

fn stamp_sum(bytes: &[u8; STAMP_BYTES], id: &ContentId) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    sum.update(&id.root);
    sum.update(&bytes[..STAMP_SUM_OFFSET]);
    sum.finalize()
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp {
        seconds: since.as_secs().cast_signed(),
        nanos: since.subsec_nanos(),
    }
}

#[cfg(test)]
#[path = "sidecars_tests.rs"]
mod tests;
