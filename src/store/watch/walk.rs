//! `Walk`: finding the directories that are to be watched, and where each of them stands now.
//!
//! 1. **Look** at a name in a watched directory: whatever directory stands there is watched and takes that
//!    place; if there is none, what stood there loses its place.
//! 2. **List** a directory that was not listed in this round: each directory in it is looked at.
//! 3. A look or listing whose own directory is not where it should be is **stuck**: something was renamed, and
//!    the look that finds out is still to come. It is tried again when more events were read, and never just so:
//!    it may be for good that something else is mounted there. Also when something else found its place.
//! 4. When nothing is left, what a whole round did not meet loses its place, and what has no place is given up.
//!
//! Awkward cases: a directory with content appears (its watch comes later than the content: it is told as a
//! tree, after the watch is set); two directories are exchanged (only looking tells which is where). Never
//! holds more than one directory open between two steps.

use super::dirt::{Dirt, Notice};
use super::inotify::{Watch, add_directory};
use super::shortage::{Shortage, Unwatched};
use super::table::{Attached, Inode, Place, Wd};
use crate::model::RelPath;
use crate::store::resolve::enter;
use crate::store::scan::{Filter, Keep, Shape};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::inotify;
use rustix::fs::{AtFlags, FileType, OFlags, RawDir, fstat, statat};
use rustix::io::Errno;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

/// What is left to do.
#[derive(Debug, Default)]
pub(super) struct Walk {
    looks: BTreeSet<Place>,
    lists: VecDeque<Wd>,
    listing: Option<Listing>,
    stuck: Vec<Stuck>,
    /// Events were read since what is stuck was tried.
    has_news: bool,
    /// [`Table::changes`](super::table::Table::changes) when what is stuck was tried.
    tried_at: u64,
    is_round: bool,
    /// The first round is over: what is found from now on is news.
    is_settled: bool,
}

/// A directory whose names are being read.
#[derive(Debug)]
struct Listing {
    wd: Wd,
    directory: OwnedFd,
    /// Directories among the names that were read, to be looked at.
    names: Vec<Box<[u8]>>,
    is_complete: bool,
}

#[derive(Debug)]
enum Stuck {
    Look(Place),
    List(Wd),
}

/// Bytes of one listing call: at most 1,365 names.
const BUFFER_BYTES: usize = 32 * 1024;

/// Listed names that count as much as one directory that is looked at.
const NAMES_PER_LOOK: usize = 64;

impl Walk {
    pub(super) fn begin(root: Wd) -> Walk {
        Walk {
            lists: VecDeque::from([root]),
            is_round: true,
            ..Walk::default()
        }
    }

    /// Begins a new round; names that wait for a look still do.
    pub(super) fn restart(&mut self, root: Wd) {
        self.lists.clear();
        self.listing = None;
        self.stuck.retain(|stuck| matches!(stuck, Stuck::Look(_)));
        self.lists.push_back(root);
        self.is_round = true;
    }

    pub(super) fn look(&mut self, place: Place) {
        self.looks.insert(place);
    }

    /// Names that wait.
    pub(super) fn looks(&self) -> usize {
        self.looks.len() + self.stuck.len()
    }

    /// Events were read.
    pub(super) fn note_news(&mut self) {
        self.has_news = true;
    }

    /// All events were read: what was stuck may work now, if there was any.
    pub(super) fn resume(&mut self) {
        if std::mem::take(&mut self.has_news) {
            self.retry();
        }
    }

    fn retry(&mut self) {
        for stuck in self.stuck.drain(..) {
            match stuck {
                Stuck::Look(place) => _ = self.looks.insert(place),
                Stuck::List(wd) => self.lists.push_back(wd),
            }
        }
    }
}

impl Watch {
    /// Looks at about `max` directories: those of the tree at first, later those that events tell of. `keep` is
    /// asked for every directory, with [`Shape::Directory`]; what is left out is not watched.
    ///
    /// The tree is **settled** once this says that nothing is left; whatever is scanned after that is either
    /// seen by the scan or told.
    ///
    /// # Returns
    /// Whether there is more to do.
    pub fn step(&mut self, keep: Filter<'_>, max: usize, out: &mut Vec<Notice>) -> bool {
        let mut spent = 0;
        while spent < max.max(1) {
            if self.is_gone() {
                return false;
            }
            if let Some(place) = self.walk.looks.pop_first() {
                self.look_at(place, &mut *keep, out);
                spent += 1;
            } else if let Some(listing) = self.walk.listing.take() {
                spent += self.go_on_listing(listing, &mut *keep, out);
            } else if let Some(wd) = self.walk.lists.pop_front() {
                self.begin_listing(wd);
                spent += 1;
            } else if self.retry_stuck() {
                // What was found meanwhile may be where it belongs.
            } else if std::mem::take(&mut self.walk.is_round) {
                self.walk.is_settled = true;
                self.table.sweep();
            } else if !self.drained {
                // Giving up waits for events that may tell where it went.
                return false;
            } else if let Some(wd) = self.table.take_loose() {
                // It may be gone already, with the directory.
                let _ = inotify::remove_watch(&self.inotify, wd);
                spent += 1;
            } else {
                return false;
            }
        }
        true
    }

    fn look_at(&mut self, place: Place, keep: Filter<'_>, out: &mut Vec<Notice>) {
        let Some(inode) = self.table.inode(place.0) else {
            return;
        };
        match self.reach(place.0, inode, OFlags::PATH) {
            Ok(Some(directory)) => self.adopt(directory.as_fd(), place, keep, out),
            Ok(None) => self.stick(Stuck::Look(place)),
            Err(errno) => {
                let path = self.table.entry(place.0, &place.1);
                self.leave_unwatched(path, Shortage::of_opening(errno));
            }
        }
    }

    /// Opens a watched directory; `None` when it does not stand where it should, or nowhere.
    fn reach(&self, wd: Wd, inode: Inode, access: OFlags) -> Result<Option<OwnedFd>, Errno> {
        let Some(mut path) = self.table.path(wd) else {
            return Ok(None);
        };
        if path.is_empty() {
            path.push(b'.');
        }
        let top = self.root.directory().as_fd();
        let directory = match self.root.resolver().open_directory(top, &path, access) {
            Ok(directory) => directory,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV | Errno::AGAIN) => return Ok(None),
            Err(errno) => return Err(errno),
        };
        let stat = fstat(&directory)?;
        Ok(((stat.st_dev, stat.st_ino) == inode).then_some(directory))
    }

    fn retry_stuck(&mut self) -> bool {
        if self.walk.stuck.is_empty() || self.walk.tried_at == self.table.changes() {
            return false;
        }
        self.walk.tried_at = self.table.changes();
        self.walk.retry();
        true
    }

    fn stick(&mut self, stuck: Stuck) {
        self.walk.stuck.push(stuck);
    }

    /// Watches the directory `place.1` in `parent`, if there is one that is to be watched.
    fn adopt(&mut self, parent: BorrowedFd<'_>, place: Place, keep: Filter<'_>, out: &mut Vec<Notice>) {
        let Some(path) = self.table.entry(place.0, &place.1) else {
            return;
        };
        let directory = match enter(parent, &place.1, OFlags::PATH) {
            Ok(directory) => directory,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return self.table.detach(&place),
            Err(errno) => return self.leave_unwatched(Some(path), Shortage::of_opening(errno)),
        };
        if keep(&path, Shape::Directory) == Keep::No {
            return self.table.detach(&place);
        }
        let set = add_directory(&self.inotify, directory.as_fd()).and_then(|wd| Ok((wd, fstat(&directory)?)));
        let (wd, stat) = match set {
            Ok(set) => set,
            Err(errno) => return self.miss(&place, path, Shortage::of(errno), out),
        };
        if !self.table.contains(wd) && self.table.len() >= self.watches_max {
            let _ = inotify::remove_watch(&self.inotify, wd);
            return self.miss(&place, path, Shortage::Bound(self.watches_max), out);
        }
        match self.table.attach(wd, (stat.st_dev, stat.st_ino), &place) {
            Attached::Same => {}
            Attached::New | Attached::Moved if !self.walk.is_settled => {}
            // What came into it before the watch was set is told by this only.
            Attached::New | Attached::Moved => out.push(Notice::Changed(Dirt::Tree(path))),
            Attached::Circle => return self.stick(Stuck::Look(place)),
        }
        if self.table.visit(wd) {
            self.walk.lists.push_back(wd);
        }
    }

    /// A directory that should be watched is not.
    fn miss(&mut self, place: &Place, path: RelPath, why: Shortage, out: &mut Vec<Notice>) {
        self.table.detach(place);
        self.leave_unwatched(Some(path.clone()), why);
        if self.walk.is_settled {
            out.push(Notice::Changed(Dirt::Tree(path)));
        }
    }

    fn leave_unwatched(&mut self, path: Option<RelPath>, why: Shortage) {
        let counted = self.unwatched.as_ref().map_or(0, Unwatched::directories);
        let directories = counted + 1;
        match &mut self.unwatched {
            // What can be done about a limit is worth more than the first that may not be read.
            Some(known) if known.why.is_limit() || !why.is_limit() => known.directories = directories,
            unwatched => {
                *unwatched = Some(Unwatched {
                    directories,
                    first: path,
                    why,
                });
            }
        }
    }

    fn begin_listing(&mut self, wd: Wd) {
        let Some(inode) = self.table.inode(wd) else {
            return;
        };
        // The root is in the line without having been looked at.
        self.table.visit(wd);
        match self.reach(wd, inode, OFlags::RDONLY) {
            Ok(Some(directory)) => {
                self.walk.listing = Some(Listing {
                    wd,
                    directory,
                    names: Vec::new(),
                    is_complete: false,
                });
            }
            Ok(None) => self.stick(Stuck::List(wd)),
            Err(errno) => {
                let path = self.table.path(wd).and_then(|path| RelPath::parse(&path).ok());
                self.leave_unwatched(path, Shortage::of_opening(errno));
            }
        }
    }

    /// Returns what it cost.
    fn go_on_listing(&mut self, mut listing: Listing, keep: Filter<'_>, out: &mut Vec<Notice>) -> usize {
        let cost = match listing.names.pop() {
            Some(name) => {
                let place = (listing.wd, Arc::from(name));
                self.adopt(listing.directory.as_fd(), place, keep, out);
                1
            }
            None if listing.is_complete => return 0,
            None => match listing.fill() {
                Ok(names) => 1 + names / NAMES_PER_LOOK,
                Err(errno) => {
                    let path = self.table.path(listing.wd).and_then(|path| RelPath::parse(&path).ok());
                    self.leave_unwatched(path, Shortage::of_opening(errno));
                    return 1;
                }
            },
        };
        self.walk.listing = Some(listing);
        cost
    }
}

impl Listing {
    /// Reads a buffer of names and keeps those of directories. Returns how many there were in all.
    fn fill(&mut self) -> Result<usize, Errno> {
        let mut buffer: Vec<u8> = Vec::with_capacity(BUFFER_BYTES);
        let mut records = RawDir::new(&self.directory, buffer.spare_capacity_mut());
        let mut count = 0;
        loop {
            match records.next() {
                Some(Ok(record)) => {
                    count += 1;
                    let name = record.file_name().to_bytes();
                    if may_be_watched(self.directory.as_fd(), name, record.file_type()) {
                        self.names.push(name.into());
                    }
                }
                Some(Err(Errno::INTR)) => continue,
                // It was removed, and with it all that was in it.
                None | Some(Err(Errno::NOENT)) => {
                    self.is_complete = true;
                    break;
                }
                Some(Err(errno)) => return Err(errno),
            }
            if records.is_buffer_empty() {
                break;
            }
        }
        Ok(count)
    }
}

fn may_be_watched(parent: BorrowedFd<'_>, name: &[u8], kind: FileType) -> bool {
    if name == b"." || name == b".." || name.eq_ignore_ascii_case(RelPath::RESERVED.as_bytes()) {
        return false;
    }
    match kind {
        FileType::Directory => true,
        FileType::Unknown => statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)
            .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory),
        _ => false,
    }
}
