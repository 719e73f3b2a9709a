//! `Survey`: a walk over a folder and its index side by side, which tells only where they differ.
//!
//! 1. The scan tells what is on the disk in the order of the index's keys.
//! 2. Records before the scan's next entry are of things that are gone; a record of the same path is
//!    compared; an entry without one is new.
//! 3. At the end, what is left in the index is gone.
//!
//! Awkward cases: beneath a directory that could not be read whole, and at what could not be examined,
//! nothing is gone; what the filter leaves out is neither changed nor gone, nor is anything beneath it; a
//! FIFO in the place of a file is told, and the file is gone. Never opens a file, never writes to the index. Invariant:
//! `Gone` is told only of what is in no listing that was whole, and was not found where it would be either.

use super::error::FileError;
use super::facts::{FoundKind, Identity};
use super::index::{IndexError, Record, Rows, Snapshot, ancestors, behind, is_in, key_into, key_of, path_of};
use super::root::Root;
use super::scan::{Filter, Keep, Scan, ScanItem, Shape};
use crate::model::{Entry, Kind, RelPath, State};
use std::collections::VecDeque;
use std::ops::Bound;

/// A walk in progress.
#[derive(Debug)]
pub struct Survey {
    start: Option<RelPath>,
    phase: Phase,
    /// Told by the scan and not compared yet.
    items: VecDeque<ScanItem>,
    /// The key of the last row that was dealt with.
    done: Option<Vec<u8>>,
    failed: Failed,
    left_out: LeftOut,
    failures: u64,
    seen: u64,
    /// The key of the item in hand; kept for its memory.
    key: Vec<u8>,
}

/// Where the folder and its index differ. They come in the order of the walk, a directory before what is in it.
#[derive(Debug)]
pub enum Difference {
    /// Something stands there, and it is not what the record says, or there is no record.
    Changed {
        /// What stands there.
        entry: Entry,
        /// Its present state.
        identity: Identity,
        /// What the index has, a tombstone maybe.
        record: Option<Record>,
    },
    /// The record says that something stands there, and nothing does.
    Gone {
        /// Where it was.
        path: RelPath,
        /// What the index has.
        record: Record,
    },
    /// A FIFO, socket or device, which is left out.
    Special(RelPath),
    /// Something that could not be examined, or a directory that could not be read.
    Failed(FileError),
}

impl Difference {
    /// Where it is; `None` for what failed.
    pub fn path(&self) -> Option<&RelPath> {
        match self {
            Difference::Changed { entry, .. } => Some(&entry.path),
            Difference::Gone { path, .. } | Difference::Special(path) => Some(path),
            Difference::Failed(_) => None,
        }
    }
}

#[derive(Debug)]
enum Phase {
    Starting,
    Walking(Scan),
    /// The scan has ended; rows are left. The scan saw everything, or nothing was to be seen.
    Draining {
        complete: bool,
    },
    Ended {
        complete: bool,
    },
}

/// What became of one piece of work.
enum Work {
    Done,
    /// There is nothing in hand.
    Idle,
}

impl Survey {
    /// A walk over everything, or over `start` and all that is beneath it.
    #[must_use]
    pub fn new(start: Option<RelPath>) -> Survey {
        Survey {
            start,
            phase: Phase::Starting,
            items: VecDeque::new(),
            done: None,
            failed: Failed::default(),
            left_out: LeftOut::default(),
            failures: 0,
            seen: 0,
            key: Vec::new(),
        }
    }

    /// Goes on for about `max` entries and records, and adds the differences to `out`. `root` is the same
    /// every time; `snapshot` may be a newer one. `keep` is the filter; of an entry it has seen the directories before.
    ///
    /// # Returns
    /// Whether there is more to do.
    ///
    /// # Errors
    /// When the index cannot be read. What the folder does not let us see is a difference, not an error.
    pub fn step(
        &mut self,
        root: &Root,
        snapshot: &Snapshot,
        keep: Filter<'_>,
        max: usize,
        out: &mut Vec<Difference>,
    ) -> Result<bool, IndexError> {
        // A directory that the root still holds open may have given way to another.
        root.forget_parents();
        if matches!(self.phase, Phase::Starting) {
            self.begin(root, &mut *keep, out);
        }
        let mut rows = self.rows(snapshot)?;
        let mut left = max.max(1);
        while left > 0 {
            match self.work(root, &mut rows, &mut *keep, out)? {
                Work::Done => left -= 1,
                Work::Idle => match &mut self.phase {
                    Phase::Walking(scan) => {
                        let mut items = Vec::from(std::mem::take(&mut self.items));
                        let more = scan.step(root, &mut *keep, left.min(ITEMS_MAX), &mut items);
                        let complete = scan.complete();
                        // A step may tell nothing while it reads a listing.
                        left -= usize::from(items.is_empty());
                        self.items = items.into();
                        if !more && self.items.is_empty() {
                            self.phase = Phase::Draining { complete };
                        }
                    }
                    &mut (Phase::Draining { complete } | Phase::Ended { complete }) => {
                        self.phase = Phase::Ended { complete };
                        return Ok(false);
                    }
                    Phase::Starting => unreachable!("it has begun"),
                },
            }
        }
        Ok(true)
    }

    /// Whether the walk is over and saw everything. Unless it did, what is not told as gone may be so all
    /// the same.
    #[must_use]
    pub fn complete(&self) -> bool {
        matches!(self.phase, Phase::Ended { complete: true }) && self.failures == 0
    }

    /// Files, directories and links that were seen.
    #[must_use]
    pub fn seen(&self) -> u64 {
        self.seen
    }

    /// Looks at the start.
    fn begin(&mut self, root: &Root, keep: Filter<'_>, out: &mut Vec<Difference>) {
        let Some(start) = self.start.clone() else {
            self.phase = Phase::Walking(Scan::in_order(None));
            return;
        };
        let key = key_of(&start);
        if self.left_out.holds_ancestor_of(&key, &mut *keep) {
            self.phase = Phase::Ended { complete: true };
            return;
        }
        self.phase = match root.find_exactly(&start) {
            Err(error) => {
                self.failures += 1;
                out.push(Difference::Failed(error));
                Phase::Ended { complete: false }
            }
            Ok(None) => Phase::Draining { complete: true },
            Ok(Some(found)) => match keep(&start, shape_found(found.kind)) {
                Keep::Yes => Phase::Walking(Scan::in_order(Some(start))),
                // The filter may think otherwise of what stood here before.
                Keep::No => Phase::Draining { complete: true },
            },
        };
    }

    /// The rows that are left.
    fn rows(&self, snapshot: &Snapshot) -> Result<Rows, IndexError> {
        let start = self.start.as_ref().map(key_of);
        let end = start.as_deref().map(behind);
        let from = match (&self.done, &start) {
            (Some(done), _) => Bound::Excluded(&done[..]),
            (None, Some(start)) => Bound::Included(&start[..]),
            (None, None) => Bound::Unbounded,
        };
        let to = end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        snapshot.rows(from, to)
    }

    /// Deals with one row or one item.
    fn work(
        &mut self,
        root: &Root,
        rows: &mut Rows,
        keep: Filter<'_>,
        out: &mut Vec<Difference>,
    ) -> Result<Work, IndexError> {
        let ended = matches!(self.phase, Phase::Draining { .. });
        let Some(item) = self.items.front() else {
            if !ended || rows.key().is_none() {
                return Ok(Work::Idle);
            }
            self.pass(root, rows, keep, out)?;
            return Ok(Work::Done);
        };
        let path = match item {
            ScanItem::Entry(entry, _) => entry.path.as_bytes(),
            ScanItem::Special(path) => path.as_bytes(),
            ScanItem::Failed(error) => error.path(),
        };
        key_into(path, &mut self.key);
        if rows.key().is_some_and(|row| row < &self.key[..]) {
            self.pass(root, rows, keep, out)?;
            return Ok(Work::Done);
        }
        match self.items.pop_front().expect("an item was just seen") {
            ScanItem::Entry(entry, identity) => {
                self.seen += 1;
                self.compare(entry, identity, rows, out)?;
            }
            ScanItem::Special(path) => out.push(Difference::Special(path)),
            ScanItem::Failed(error) => {
                self.failures += 1;
                self.failed.add(&self.key);
                out.push(Difference::Failed(error));
            }
        }
        Ok(Work::Done)
    }

    /// Deals with a row that has nothing on the disk.
    fn pass(
        &mut self,
        root: &Root,
        rows: &mut Rows,
        keep: Filter<'_>,
        out: &mut Vec<Difference>,
    ) -> Result<(), IndexError> {
        let row = rows.key().expect("the caller looked");
        if !self.failed.covers(row) && !self.left_out.covers(row) {
            let (path, record) = rows.record()?.expect("there is a row");
            if record.is_live() && !self.left_out.holds(row, &path, shape_of(&record), keep) {
                // The listing may be older than the snapshot, and than a file that has taken another's place.
                match root.find_exactly(&path) {
                    Ok(Some(found)) if is_kept(&path, found.kind, &mut *keep) => {}
                    // What the filter leaves out now is gone for it.
                    Ok(_) => out.push(Difference::Gone { path, record }),
                    Err(error) => {
                        self.failures += 1;
                        out.push(Difference::Failed(error));
                    }
                }
            }
        }
        self.go_on(rows)
    }

    fn compare(
        &mut self,
        entry: Entry,
        identity: Identity,
        rows: &mut Rows,
        out: &mut Vec<Difference>,
    ) -> Result<(), IndexError> {
        let mut record = None;
        if rows.key() == Some(&self.key[..]) {
            record = rows.bare_record()?;
            self.go_on(rows)?;
        }
        if !record.as_ref().is_some_and(|record| agrees(&entry, &identity, record)) {
            out.push(Difference::Changed {
                entry,
                identity,
                record,
            });
        }
        Ok(())
    }

    fn go_on(&mut self, rows: &mut Rows) -> Result<(), IndexError> {
        let done = self.done.get_or_insert_default();
        done.clear();
        done.extend_from_slice(rows.key().expect("the caller looked"));
        rows.advance()
    }
}

/// Items that are asked of the scan at a time.
const ITEMS_MAX: usize = 256;

/// Whether an entry is what its record says, as far as can be told without reading it. The time of
/// change does not count: a rename of a directory above, or a hard link, touches it. Nor does the
/// modification time of a directory, which any change in it touches; but one that was made anew is another one.
pub(crate) fn agrees(entry: &Entry, identity: &Identity, record: &Record) -> bool {
    let Some(State { kind, meta, .. }) = &record.state else {
        return false;
    };
    if entry.kind != *kind {
        return false;
    }
    match kind {
        // The time that the disk gave back when it was agreed: some store less than they are told.
        Kind::File { .. } => {
            let same = record.identity.as_ref().is_some_and(|was| was.same_content(identity));
            same && entry.meta.mode == meta.mode
        }
        Kind::Directory => {
            let is_it = |was: &Identity| was.inode() == identity.inode();
            entry.meta.mode == meta.mode && record.identity.as_ref().is_none_or(is_it)
        }
        // A link has no mode of its own.
        Kind::Symlink { .. } => {
            let was = record.identity.as_ref().map_or(meta.mtime, Identity::mtime);
            entry.meta.mtime == was
        }
    }
}

fn shape_found(kind: FoundKind) -> Shape {
    match kind {
        FoundKind::Directory => Shape::Directory,
        _ => Shape::Other,
    }
}

/// Whether what was found takes part.
fn is_kept(path: &RelPath, kind: FoundKind, keep: Filter<'_>) -> bool {
    kind != FoundKind::Special && keep(path, shape_found(kind)) == Keep::Yes
}

fn shape_of(record: &Record) -> Shape {
    match record.state.as_ref().map(|state| &state.kind) {
        Some(Kind::Directory) => Shape::Directory,
        _ => Shape::Other,
    }
}

/// Where the folder did not let us look. Only failures that the walk is still in are kept.
#[derive(Debug, Default)]
struct Failed {
    tops: Vec<Vec<u8>>,
    everything: bool,
}

impl Failed {
    fn add(&mut self, key: &[u8]) {
        if key == b"." {
            self.everything = true;
            return;
        }
        self.forget_before(key);
        self.tops.push(key.to_vec());
    }

    /// Whether the row is at or beneath a failure. Rows come in order.
    fn covers(&mut self, row: &[u8]) -> bool {
        if self.everything {
            return true;
        }
        if !self.tops.is_empty() {
            self.forget_before(row);
        }
        self.tops.iter().any(|top| is_in(row, top))
    }

    /// A failure may come after entries beneath it were told, so those above `key` stay.
    fn forget_before(&mut self, key: &[u8]) {
        self.tops.retain(|top| &top[..] >= key || is_in(key, top));
    }
}

/// What the filter said of directories lately.
#[derive(Debug, Default)]
struct LeftOut {
    /// The last one that it left out.
    top: Option<Vec<u8>>,
    /// The last one that it kept, with all above it.
    kept: Vec<u8>,
}

impl LeftOut {
    /// Whether the row is known to be left out.
    fn covers(&self, row: &[u8]) -> bool {
        self.top.as_ref().is_some_and(|top| is_in(row, top))
    }

    /// Whether `row` is left out, or something above it.
    fn holds(&mut self, row: &[u8], path: &RelPath, shape: Shape, keep: Filter<'_>) -> bool {
        if self.holds_ancestor_of(row, &mut *keep) {
            return true;
        }
        let left_out = keep(path, shape) == Keep::No;
        if left_out && shape == Shape::Directory {
            self.top = Some(row.to_vec());
        }
        left_out
    }

    fn holds_ancestor_of(&mut self, row: &[u8], keep: Filter<'_>) -> bool {
        for above in ancestors(row) {
            if !self.kept.is_empty() && is_in(&self.kept, above) {
                continue;
            }
            let path = path_of(above).expect("above a legal path are legal ones");
            if keep(&path, Shape::Directory) == Keep::No {
                self.top = Some(above.to_vec());
                return true;
            }
            self.kept.clear();
            self.kept.extend_from_slice(above);
        }
        false
    }
}

#[cfg(test)]
#[path = "survey_tests.rs"]
mod tests;
