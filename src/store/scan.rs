//! `Scan`: a walk over a tree in bounded steps, without recursion and in bounded memory.
//!
//! 1. A directory is opened beneath the one it is in, by its name and never through a link.
//! 2. Its names are read in chunks and each chunk is sorted by bytes.
//! 3. Each name is examined on the directory's descriptor, offered to the caller's filter, and told.
//! 4. A directory is told before its content; then the walk goes on in it (depth first).
//!
//! Awkward cases: what vanishes between listing and look was never there, except for the start itself;
//! what cannot be read, or has a path that is no legal `RelPath` (too deep, too long), is told as
//! failed and not entered. Never opens a file. Invariant: `complete` is true only if everything below the start was seen.

use super::error::{FileError, Operation};
use super::facts::{Found, FoundKind, Identity};
use super::names::{Name, Names};
use super::resolve::enter;
use super::root::{Root, read_link_at};
use crate::model::{Entry, ItemCode, Kind, PathError, RelPath};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, FileType, OFlags, RawDir, statat};
use rustix::io::Errno;

/// A walk in progress; see [`Root::scan`].
#[derive(Debug)]
pub struct Scan {
    state: State,
    levels: Vec<Level>,
    order: Order,
    failures: u64,
    /// Where the kernel puts a listing.
    buffer: Vec<u8>,
}

/// What a scan found.
#[derive(Debug)]
pub enum ScanItem {
    /// A file, directory or link.
    Entry(Entry, Identity),
    /// A FIFO, socket or device, which is left out.
    Special(RelPath),
    /// Something that could not be examined, or a directory that could not be read.
    Failed(FileError),
}

/// What the filter is told about an entry besides its path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// A directory.
    Directory,
    /// Anything else.
    Other,
}

/// The filter's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// It belongs to the scan.
    Yes,
    /// It is left out, and so is all that is in it.
    No,
}

/// The caller's filter.
pub(super) type Filter<'a> = &'a mut dyn FnMut(&RelPath, Shape) -> Keep;

/// How the names of a large directory come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    /// Sorted within chunks: memory has a bound whatever the directory holds.
    Chunks,
    /// Sorted as a whole: memory for all its names at a time.
    Whole,
}

#[derive(Debug)]
enum State {
    Starting(Option<RelPath>),
    Walking,
    Ended,
}

/// A directory that the walk is in.
#[derive(Debug)]
struct Level {
    /// `None` is the root.
    path: Option<RelPath>,
    /// `None` when it was closed to save descriptors; it is opened again by its path.
    directory: Option<OwnedFd>,
    listing: Listing,
    names: Names,
    /// The walk began here: that this one was removed is a failure, and not the lack of an entry.
    is_start: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Listing {
    /// Names are being added to the chunk.
    Filling,
    /// The chunk is sorted and being worked off; more follow in the directory.
    Chunk,
    /// As `Chunk`, and no more follow.
    Last,
}

/// Names that are sorted at a time, and, in chunks, held at a time. With 255 bytes each that is 4 MiB at worst.
const CHUNK_NAMES_MAX: usize = 16_384;

/// Bytes of one listing call: at most 1,365 names.
const BUFFER_BYTES: usize = 32 * 1024;

/// The shortest record of a listing (`linux_dirent64` with a name of one byte).
const RECORD_BYTES_MIN: usize = 24;

/// Listed names that count as much as one examined entry.
const NAMES_PER_ITEM: usize = 64;

/// Innermost directories whose descriptors stay open though their listing is complete.
const OPEN_LEVELS: usize = 16;

impl Scan {
    pub(super) fn new(start: Option<RelPath>) -> Scan {
        Scan {
            state: State::Starting(start),
            levels: Vec::new(),
            order: Order::Chunks,
            failures: 0,
            buffer: Vec::new(),
        }
    }

    /// As [`new`](Self::new), and everything comes in one order: that of a depth-first walk which takes
    /// the names of each directory by their bytes. It holds all names of the directories that it is in:
    /// 8 bytes each and the name, which is 30 MB for a million in one directory.
    #[cfg_attr(not(feature = "sync"), allow(dead_code, reason = "the survey needs it"))]
    pub(super) fn in_order(start: Option<RelPath>) -> Scan {
        Scan {
            order: Order::Whole,
            ..Scan::new(start)
        }
    }

    /// Bytes of memory that it takes, about: the names of the directories that it is in.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        let names = self.levels.iter().map(|level| level.names.held_bytes());
        self.buffer.capacity() + names.sum::<usize>()
    }

    /// Goes on for about `max` entries, and adds what it finds to `out`: at most `max` items and one.
    /// `root` is the one that the scan was started on. `keep` is asked for everything but the start.
    ///
    /// # Returns
    /// Whether there is more to do.
    pub fn step(&mut self, root: &Root, keep: Filter<'_>, max: usize, out: &mut Vec<ScanItem>) -> bool {
        let mut spent = 0;
        while spent < max.max(1) {
            let told = out.len();
            spent += match &mut self.state {
                State::Starting(start) => {
                    let start = start.take();
                    self.state = State::Walking;
                    self.begin(root, start, out);
                    1
                }
                State::Walking => self.advance(root, &mut *keep, out),
                State::Ended => return false,
            };
            let failed = out[told..].iter().filter(|item| matches!(item, ScanItem::Failed(_)));
            self.failures += failed.count() as u64;
        }
        !matches!(self.state, State::Ended)
    }

    /// Whether the walk is over and saw everything. Nothing may be deleted anywhere on the word of a
    /// scan that is not complete.
    #[must_use]
    pub fn complete(&self) -> bool {
        matches!(self.state, State::Ended) && self.failures == 0
    }

    fn begin(&mut self, root: &Root, start: Option<RelPath>, out: &mut Vec<ScanItem>) {
        let begun = match &start {
            None => Ok(true),
            Some(path) => begin_at(root, path, out),
        };
        let opened = begun.and_then(|enters| {
            if !enters {
                return Ok(());
            }
            let directory = open_level(root, start.as_ref())?;
            self.levels.push(Level {
                is_start: true,
                ..Level::new(directory, start)
            });
            Ok(())
        });
        if let Err(error) = opened {
            out.push(ScanItem::Failed(error));
        }
    }

    /// One piece of work in the innermost directory. Returns what it cost.
    fn advance(&mut self, root: &Root, keep: Filter<'_>, out: &mut Vec<ScanItem>) -> usize {
        let Some(level) = self.levels.last_mut() else {
            self.state = State::Ended;
            return 0;
        };
        if level.listing == Listing::Filling {
            return match level.fill(root, &mut self.buffer, self.order) {
                Ok(count) => 1 + count / NAMES_PER_ITEM,
                Err(error) => {
                    out.push(ScanItem::Failed(error));
                    1
                }
            };
        }
        let Some(at) = level.names.take_next() else {
            if level.listing == Listing::Last {
                self.levels.pop();
            } else {
                level.names.clear();
                level.listing = Listing::Filling;
            }
            return 0;
        };
        match level.visit(root, at, keep, out) {
            Ok(Some(inner)) => self.descend(inner),
            Ok(None) => {}
            Err(error) => out.push(ScanItem::Failed(error)),
        }
        1
    }

    fn descend(&mut self, inner: Level) {
        self.levels.push(inner);
        if let Some(outer) = self.levels.len().checked_sub(OPEN_LEVELS + 1) {
            let outer = &mut self.levels[outer];
            if outer.listing == Listing::Last {
                outer.directory = None;
            }
        }
    }
}

/// Tells what stands at the start. Returns whether it is a directory to walk through.
fn begin_at(root: &Root, path: &RelPath, out: &mut Vec<ScanItem>) -> Result<bool, FileError> {
    let place = root.place(path)?;
    let stat = statat(&place.parent, place.name, AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|errno| FileError::new(Operation::Examine, path, errno))?;
    let found = Found::of(&stat);
    out.extend(tell(place.parent.as_fd(), place.name, path, &found)?);
    Ok(found.kind == FoundKind::Directory)
}

fn open_level(root: &Root, path: Option<&RelPath>) -> Result<OwnedFd, FileError> {
    let bytes = path.map_or(&b"."[..], RelPath::as_bytes);
    root.resolver()
        .open_directory(root.directory().as_fd(), bytes, OFlags::RDONLY)
        .map_err(|errno| FileError::at(Operation::Open, bytes, errno))
}

/// The item for what was found; `None` for a link that vanished just now.
fn tell(parent: BorrowedFd<'_>, name: &[u8], path: &RelPath, found: &Found) -> Result<Option<ScanItem>, FileError> {
    let kind = match found.kind {
        FoundKind::File { size } => Kind::File { size },
        FoundKind::Directory => Kind::Directory,
        FoundKind::Special => return Ok(Some(ScanItem::Special(path.clone()))),
        FoundKind::Symlink => match read_link_at(parent, name, path) {
            Ok(target) => Kind::Symlink { target },
            Err(error) if error.code() == ItemCode::Vanished => return Ok(None),
            Err(error) => return Err(error),
        },
    };
    let entry = Entry {
        path: path.clone(),
        kind,
        meta: found.meta,
    };
    Ok(Some(ScanItem::Entry(entry, found.identity)))
}

impl Level {
    fn new(directory: OwnedFd, path: Option<RelPath>) -> Level {
        Level {
            path,
            directory: Some(directory),
            listing: Listing::Filling,
            names: Names::default(),
            is_start: false,
        }
    }

    /// Reads one buffer of names into the chunk. Returns how many.
    fn fill(&mut self, root: &Root, buffer: &mut Vec<u8>, order: Order) -> Result<usize, FileError> {
        let before = self.names.len();
        match self.read_listing(root, buffer) {
            Ok(()) => {}
            Err(error) => {
                // What was read already is still told; `complete` knows that it is not all.
                self.finish_chunk(Listing::Last);
                return Err(error);
            }
        }
        let count = self.names.len() - before;
        if self.listing == Listing::Last {
            self.finish_chunk(Listing::Last);
        } else if self.names.unsorted() + BUFFER_BYTES / RECORD_BYTES_MIN > CHUNK_NAMES_MAX {
            match order {
                Order::Chunks => self.finish_chunk(Listing::Chunk),
                Order::Whole => self.names.sort_run(),
            }
        }
        Ok(count)
    }

    fn finish_chunk(&mut self, listing: Listing) {
        self.names.sort_run();
        self.names.merge_runs();
        self.listing = listing;
    }

    fn read_listing(&mut self, root: &Root, buffer: &mut Vec<u8>) -> Result<(), FileError> {
        buffer.clear();
        buffer.reserve_exact(BUFFER_BYTES);
        let directory = match self.directory.take() {
            Some(directory) => directory,
            None => open_level(root, self.path.as_ref())?,
        };
        let mut records = RawDir::new(&directory, &mut buffer.spare_capacity_mut()[..BUFFER_BYTES]);
        loop {
            match records.next() {
                Some(Ok(record)) => {
                    let name = record.file_name().to_bytes();
                    if !self.names.push(name, record.file_type()) {
                        return Err(self.failed(ItemCode::TooLarge));
                    }
                }
                Some(Err(Errno::INTR)) => continue,
                None => {
                    self.listing = Listing::Last;
                    break;
                }
                // The directory was removed, and with it all that was in it.
                Some(Err(Errno::NOENT)) if !self.is_start => {
                    self.listing = Listing::Last;
                    break;
                }
                Some(Err(errno)) => {
                    let path = self.path.as_ref().map_or(&b"."[..], RelPath::as_bytes);
                    return Err(FileError::at(Operation::Read, path, errno));
                }
            }
            // The next call would ask the kernel again.
            if records.is_buffer_empty() {
                break;
            }
        }
        self.directory = Some(directory);
        Ok(())
    }

    fn failed(&self, code: ItemCode) -> FileError {
        let path = self.path.as_ref().map_or(&b"."[..], RelPath::as_bytes);
        FileError::found(Operation::Read, path, code)
    }

    /// Examines one name. Returns the directory to go into, if it is one.
    fn visit(
        &mut self,
        root: &Root,
        at: Name,
        keep: Filter<'_>,
        out: &mut Vec<ScanItem>,
    ) -> Result<Option<Level>, FileError> {
        let path = match self.child(self.names.bytes(at)) {
            Ok(path) => path,
            Err(PathError::Reserved) => return Ok(None),
            Err(_) => {
                let path = self.raw_child(self.names.bytes(at));
                return Err(FileError::found(Operation::Examine, &path, ItemCode::BadPath));
            }
        };
        let name = path.name();
        // Most file systems list the kind too: what the filter leaves out need not be examined.
        let listed = shape_of(at.kind);
        if listed.is_some_and(|shape| keep(&path, shape) == Keep::No) {
            return Ok(None);
        }
        self.reopen(root)?;
        let directory = self.directory.as_ref().expect("it is open now").as_fd();
        let found = match statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Found::of(&stat),
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(FileError::new(Operation::Examine, &path, errno)),
        };
        let is_directory = found.kind == FoundKind::Directory;
        let shape = if is_directory { Shape::Directory } else { Shape::Other };
        if listed != Some(shape) && keep(&path, shape) == Keep::No {
            return Ok(None);
        }
        out.extend(tell(directory, name, &path, &found)?);
        if !is_directory {
            return Ok(None);
        }
        let inner =
            enter(directory, name, OFlags::RDONLY).map_err(|errno| FileError::new(Operation::Open, &path, errno))?;
        Ok(Some(Level::new(inner, Some(path))))
    }

    /// Opens the directory again if it was closed.
    fn reopen(&mut self, root: &Root) -> Result<(), FileError> {
        if self.directory.is_none() {
            let opened = open_level(root, self.path.as_ref()).inspect_err(|_| {
                // The rest of this directory would fail in the same way: it is told once.
                self.names.skip_rest();
            });
            self.directory = Some(opened?);
        }
        Ok(())
    }

    fn child(&self, name: &[u8]) -> Result<RelPath, PathError> {
        match &self.path {
            Some(path) => path.child(name),
            None => RelPath::parse(name),
        }
    }

    /// The child's path as bytes, legal or not.
    fn raw_child(&self, name: &[u8]) -> Vec<u8> {
        match &self.path {
            Some(path) => [path.as_bytes(), name].join(&b'/'),
            None => name.to_vec(),
        }
    }
}

fn shape_of(listed: FileType) -> Option<Shape> {
    match listed {
        FileType::Unknown => None,
        FileType::Directory => Some(Shape::Directory),
        _ => Some(Shape::Other),
    }
}

#[cfg(test)]
#[path = "scan_tests.rs"]
mod tests;
