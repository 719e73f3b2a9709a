//! `Watch`: changes beneath a root, as the system tells them.
//!
//! 1. Every directory has a watch. An event says watch and name; [`Table`] makes that a path.
//! 2. An event of a file is told as it is. An event of a directory's name only says: look there. Looking
//!    (see `walk`) finds out which directory stands there now, whatever happened in which order.
//! 3. A watch that lost its place is given back when all that is known of was looked at, unless it found
//!    another one (a rename).
//! 4. When events were lost everything is dirty, and the tree is walked again for directories that are new.
//!
//! Never opens a file, never follows a link, never leaves the root, and never watches `.syncline` or what the
//! caller leaves out. Invariant: a change beneath a directory that was settled (see [`Watch::step`]) is told,
//! or [`Watch::unwatched`] says that it may not be.

use super::dirt::{Dirt, Notice};
use super::shortage::{Shortage, Unwatched};
use super::table::{Place, Table, Wd};
use super::walk::Walk;
use crate::model::limits::{WATCH_LOOKS_MAX, WATCHES_MAX};
use crate::model::{Escaped, RelPath};
use crate::store::root::Root;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::fs::{Mode, OFlags, fstat, openat};
use rustix::io::Errno;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// A watched tree.
#[derive(Debug)]
pub struct Watch {
    pub(super) root: Root,
    pub(super) inotify: OwnedFd,
    pub(super) table: Table,
    /// The watch of the directory that the root is in: the removal of a directory that somebody holds open
    /// is told only there.
    above: Option<Wd>,
    pub(super) walk: Walk,
    pub(super) unwatched: Option<Unwatched>,
    pub(super) watches_max: usize,
    /// All events were read when they were read last.
    pub(super) drained: bool,
    is_gone: bool,
    buffer: Vec<u8>,
}

/// How a tree is watched.
#[derive(Debug, Clone, Copy)]
pub struct WatchOptions {
    /// Directories that are watched at most.
    pub watches_max: usize,
}

impl Default for WatchOptions {
    fn default() -> WatchOptions {
        WatchOptions {
            watches_max: WATCHES_MAX,
        }
    }
}

/// Why a tree cannot be watched at all. It can still be scanned now and then.
#[derive(Debug, thiserror::Error)]
#[error("cannot watch {}: {why}", Escaped(path.as_os_str().as_encoded_bytes()))]
pub struct WatchError {
    path: PathBuf,
    why: Shortage,
}

impl WatchError {
    /// What is missing.
    #[must_use]
    pub fn why(&self) -> Shortage {
        self.why
    }
}

/// Bytes of events that are read at a time, some 340 with names of 30 bytes.
const BUFFER_BYTES: usize = 16 * 1024;

/// Times that the buffer is filled in one call. The system keeps 16,384 events by default: a few calls.
const READS_MAX: usize = 16;

const DIRECTORY_MASK: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::CLOSE_WRITE)
    .union(WatchFlags::MODIFY)
    .union(WatchFlags::ATTRIB)
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MOVE)
    .union(WatchFlags::EXCL_UNLINK)
    .union(WatchFlags::ONLYDIR);

const ROOT_MASK: WatchFlags = DIRECTORY_MASK
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF);

const ABOVE_MASK: WatchFlags = WatchFlags::DELETE.union(WatchFlags::ONLYDIR);

impl Watch {
    /// Begins to watch `root`. Nothing beneath it is watched before [`Watch::step`] is done.
    ///
    /// # Errors
    /// When the system allows no more watched trees, or not even the first watch.
    pub fn open(root: &Root, options: &WatchOptions) -> Result<Watch, WatchError> {
        let failed = |why| WatchError {
            path: root.path().to_owned(),
            why,
        };
        let inotify =
            inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).map_err(|errno| failed(Shortage::of(errno)))?;
        let top = root.directory().as_fd();
        // First the one above: where both are one directory (of "/"), the mask that is set last stays.
        let above = openat(
            top,
            "..",
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .and_then(|above| add(&inotify, above.as_fd(), ABOVE_MASK));
        let wd = add(&inotify, top, ROOT_MASK).map_err(|errno| failed(Shortage::of(errno)))?;
        let stat = fstat(top).map_err(|errno| failed(Shortage::Other(errno)))?;
        Ok(Watch {
            root: root.share(),
            inotify,
            table: Table::new(wd, (stat.st_dev, stat.st_ino)),
            above: above.ok().filter(|above| *above != wd),
            walk: Walk::begin(wd),
            unwatched: None,
            watches_max: options.watches_max,
            drained: true,
            is_gone: false,
            buffer: Vec::new(),
        })
    }

    /// Reads events, a bounded number, and tells them. When the descriptor is readable this is to be called
    /// until it says that there is no more, and then [`Watch::step`].
    ///
    /// # Returns
    /// Whether more events may wait.
    ///
    /// # Errors
    /// When events cannot be read: a bug, or a system out of memory. Then nothing may be relied on.
    pub fn read(&mut self, out: &mut Vec<Notice>) -> io::Result<bool> {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.reserve_exact(BUFFER_BYTES);
        let mut result = Ok(true);
        for _ in 0..READS_MAX {
            match self.read_once(&mut buffer, out) {
                Ok(()) => {}
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => {
                    self.drained = true;
                    self.walk.resume();
                    result = Ok(false);
                    break;
                }
                Err(errno) => {
                    result = Err(errno.into());
                    break;
                }
            }
        }
        self.buffer = buffer;
        result
    }

    /// Walks the whole tree again, without giving up what is watched: for directories that came by unseen,
    /// after a limit was raised, or after the rules changed what is left out. [`Watch::step`] does it. With every
    /// rescan it is also what finds mounts, and forgets unwatched directories that are gone.
    pub fn again(&mut self) {
        self.table.begin_round();
        self.walk.restart(self.table.root());
        self.unwatched = None;
    }

    /// What is not watched, if anything. Changes there are found by scanning only.
    #[must_use]
    pub fn unwatched(&self) -> Option<&Unwatched> {
        self.unwatched.as_ref()
    }

    /// Directories that are watched.
    #[must_use]
    pub fn directories(&self) -> usize {
        self.table.len()
    }

    /// Whether the root went away: [`Notice::RootGone`] was told.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.is_gone
    }

    fn read_once(&mut self, buffer: &mut Vec<u8>, out: &mut Vec<Notice>) -> Result<(), Errno> {
        // Copied out, since handling them may set watches.
        let mut reader = inotify::Reader::new(self.inotify.as_fd(), buffer.spare_capacity_mut());
        let mut events = Vec::new();
        loop {
            let event = reader.next()?;
            let name = event.file_name().map(|name| Box::<[u8]>::from(name.to_bytes()));
            events.push((event.wd(), event.events(), name));
            if reader.is_buffer_empty() {
                break;
            }
        }
        self.drained = false;
        self.walk.note_news();
        for (wd, what, name) in events {
            self.handle_event(wd, what, name.as_deref(), out);
        }
        Ok(())
    }

    fn handle_event(&mut self, wd: Wd, what: ReadFlags, name: Option<&[u8]>, out: &mut Vec<Notice>) {
        if self.is_gone {
            return;
        }
        if what.contains(ReadFlags::QUEUE_OVERFLOW) {
            return self.lose(out);
        }
        if Some(wd) == self.above {
            return self.handle_above(what, out);
        }
        if !self.table.contains(wd) {
            return;
        }
        let ends = ReadFlags::UNMOUNT | ReadFlags::DELETE_SELF | ReadFlags::MOVE_SELF | ReadFlags::IGNORED;
        if what.intersects(ends) {
            return self.handle_end(wd, what, out);
        }
        // Without a name it is about the directory itself, and told by the one above as well.
        if let Some(name) = name {
            if what.contains(ReadFlags::ISDIR) {
                self.handle_directory(wd, what, name, out);
            } else if let Some(path) = self.table.entry(wd, name) {
                out.push(match what.contains(ReadFlags::MODIFY) {
                    true => Notice::Written(path),
                    false => Notice::Changed(Dirt::Path(path)),
                });
            }
        }
    }

    fn handle_directory(&mut self, wd: Wd, what: ReadFlags, name: &[u8], out: &mut Vec<Notice>) {
        if name.eq_ignore_ascii_case(RelPath::RESERVED.as_bytes()) {
            return;
        }
        let place: Place = (wd, Arc::from(name));
        let path = self.table.entry(wd, name);
        let is_known = self.table.child(&place).is_some();
        if what.intersects(ReadFlags::DELETE | ReadFlags::MOVED_FROM) {
            out.extend(path.map(|path| Notice::Changed(Dirt::Tree(path))));
            self.look(place, out);
        } else if what.contains(ReadFlags::ATTRIB) {
            out.extend(path.map(|path| Notice::Changed(Dirt::Path(path))));
            // It may have become readable.
            if !is_known {
                self.look(place, out);
            }
        } else {
            out.extend(path.map(|path| Notice::Changed(Dirt::Path(path))));
            self.look(place, out);
        }
    }

    /// Has a name looked at by [`Watch::step`].
    fn look(&mut self, place: Place, out: &mut Vec<Notice>) {
        if self.walk.looks() >= WATCH_LOOKS_MAX {
            self.lose(out);
        } else {
            self.walk.look(place);
        }
    }

    fn handle_above(&mut self, what: ReadFlags, out: &mut Vec<Notice>) {
        if what.contains(ReadFlags::IGNORED) {
            self.above = None;
        }
        if self.root.is_gone().unwrap_or(false) {
            self.end(out);
        }
    }

    /// The watched directory itself ends.
    fn handle_end(&mut self, wd: Wd, what: ReadFlags, out: &mut Vec<Notice>) {
        if wd == self.table.root() {
            return self.end(out);
        }
        if what.contains(ReadFlags::UNMOUNT) {
            let path = self.table.path(wd).and_then(|path| RelPath::parse(&path).ok());
            out.extend(path.map(|path| Notice::Changed(Dirt::Tree(path))));
        }
        if what.contains(ReadFlags::IGNORED) {
            self.table.remove(wd);
        }
    }

    /// Events were lost.
    pub(super) fn lose(&mut self, out: &mut Vec<Notice>) {
        out.push(Notice::Changed(Dirt::All));
        self.again();
    }

    fn end(&mut self, out: &mut Vec<Notice>) {
        self.is_gone = true;
        self.walk = Walk::default();
        out.push(Notice::RootGone);
    }
}

/// Sets a watch on the very directory that `directory` is, wherever it is called from.
pub(super) fn add(inotify: &OwnedFd, directory: BorrowedFd<'_>, mask: WatchFlags) -> Result<Wd, Errno> {
    use std::os::fd::AsRawFd;
    inotify::add_watch(inotify, format!("/proc/self/fd/{}", directory.as_raw_fd()), mask)
}

/// As [`add`], with the mask of a directory beneath the root.
pub(super) fn add_directory(inotify: &OwnedFd, directory: BorrowedFd<'_>) -> Result<Wd, Errno> {
    add(inotify, directory, DIRECTORY_MASK)
}

impl AsFd for Watch {
    /// Readable when there are events.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}

#[cfg(test)]
#[path = "watch_tests.rs"]
mod tests;
