//! `Snapshot`: the index as it was at one moment, for reading.
//!
//! Never waits for the writer and never sees half of a batch. Invariant: what it answers was durable
//! when it was taken.

use super::fault::{Fault, IndexError, guarded};
use super::key::{behind, key_of, path_of};
use super::record::Record;
use super::tables::{ENTRIES, Head, MARKS, META, REVISIONS, VALUES, read_head, revision_key, split_revision_key};
use crate::model::{Epoch, RelPath, Revision};
use redb::{AccessGuard, Range, ReadOnlyTable, ReadTransaction, ReadableTable};
use std::fmt;
use std::ops::Bound;

/// One state of the index. While it lives, the file keeps what has been replaced since: drop it soon.
pub struct Snapshot {
    entries: ReadOnlyTable<&'static [u8], &'static [u8]>,
    revisions: ReadOnlyTable<&'static [u8], ()>,
    marks: ReadOnlyTable<u64, u64>,
    values: ReadOnlyTable<&'static str, &'static [u8]>,
    head: Head,
}

/// Records in the order of a depth-first walk, tombstones too; see [`Snapshot::walk`].
pub struct RecordWalk(Range<'static, &'static [u8], &'static [u8]>);

/// A place among the rows of the entries; for the survey, which compares keys before it reads records.
pub(in crate::store) struct Rows {
    range: Range<'static, &'static [u8], &'static [u8]>,
    current: Option<(Bytes, Bytes)>,
}

type Bytes = AccessGuard<'static, &'static [u8]>;

impl Snapshot {
    pub(super) fn new(transaction: &ReadTransaction) -> Result<Snapshot, Fault> {
        Ok(Snapshot {
            entries: transaction.open_table(ENTRIES)?,
            revisions: transaction.open_table(REVISIONS)?,
            marks: transaction.open_table(MARKS)?,
            values: transaction.open_table(VALUES)?,
            head: read_head(&transaction.open_table(META)?)?,
        })
    }

    /// The life of the index that it is of.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.head.epoch
    }

    /// The highest revision that any record has had.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.head.revision
    }

    /// How many paths have something standing there.
    #[must_use]
    pub fn live(&self) -> u64 {
        self.head.live
    }

    /// The record of `path`.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn get(&self, path: &RelPath) -> Result<Option<Record>, IndexError> {
        guarded(|| {
            let found = self.entries.get(&key_of(path)[..])?;
            Ok(found.map(|record| Record::decode(record.value())).transpose()?)
        })
    }

    /// What has a higher revision than `since`, in the order of revisions: each path once, as it is now.
    /// About `max` at a time: those of one revision come together. Ask again with the last revision
    /// until nothing comes.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn changes_since(&self, since: Revision, max: usize) -> Result<Vec<(RelPath, Record)>, IndexError> {
        let mut changes: Vec<(RelPath, Record)> = Vec::new();
        let Some(from) = since.0.checked_add(1) else {
            return Ok(changes);
        };
        guarded(|| {
            let mut row = Vec::new();
            revision_key(Revision(from), &[], &mut row);
            for row in self.revisions.range(&row[..]..)? {
                let (row, _) = row?;
                let (revision, key) =
                    split_revision_key(row.value()).ok_or(Fault::Content("a revision cannot be read"))?;
                let last = changes.last().map(|(_, record)| record.revision);
                if changes.len() >= max.max(1) && last != Some(revision) {
                    break;
                }
                let record = self.entries.get(key)?;
                let record = record.ok_or(Fault::Content("a revision has no record"))?;
                let record = Record::decode(record.value())?;
                if record.revision != revision {
                    return Err(Fault::Content("a record has another revision"));
                }
                changes.push((path_of(key)?, record));
            }
            Ok(())
        })?;
        Ok(changes)
    }

    /// The mark that was kept for `revision`.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn mark(&self, revision: Revision) -> Result<Option<u64>, IndexError> {
        guarded(|| Ok(self.marks.get(revision.0)?.map(|mark| mark.value())))
    }

    /// The lowest revision that has a mark, and that.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn first_mark(&self) -> Result<Option<(Revision, u64)>, IndexError> {
        guarded(|| {
            let first = self.marks.first()?;
            Ok(first.map(|(revision, mark)| (Revision(revision.value()), mark.value())))
        })
    }

    /// A value of the owner.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn value(&self, name: &str) -> Result<Option<Vec<u8>>, IndexError> {
        guarded(|| Ok(self.values.get(name)?.map(|value| value.value().to_vec())))
    }

    /// All records behind `after` in the order of a depth-first walk with names by their bytes. Holds a
    /// few pages of the file; stop anywhere, and go on with the last path.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn walk(&self, after: Option<&RelPath>) -> Result<RecordWalk, IndexError> {
        let after = after.map(key_of);
        let from = after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        guarded(|| Ok(RecordWalk(self.entries.range::<&[u8]>((from, Bound::Unbounded))?)))
    }

    /// All records beneath `top`, tombstones too, in the same order; not that of `top`.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn walk_beneath(&self, top: &RelPath) -> Result<RecordWalk, IndexError> {
        let top = key_of(top);
        let bounds = (Bound::Excluded(&top[..]), Bound::Excluded(&behind(&top)[..]));
        guarded(|| Ok(RecordWalk(self.entries.range::<&[u8]>(bounds)?)))
    }

    /// The rows from one key to another, one at a time.
    pub(in crate::store) fn rows(&self, from: Bound<&[u8]>, to: Bound<&[u8]>) -> Result<Rows, IndexError> {
        guarded(|| {
            let mut range = self.entries.range::<&[u8]>((from, to))?;
            let current = range.next().transpose()?;
            Ok(Rows { range, current })
        })
    }
}

impl Rows {
    /// The key of the row that it stands at.
    pub(in crate::store) fn key(&self) -> Option<&[u8]> {
        self.current.as_ref().map(|(key, _)| key.value())
    }

    /// The path and record of that row.
    pub(in crate::store) fn record(&self) -> Result<Option<(RelPath, Record)>, IndexError> {
        let Some((key, record)) = &self.current else {
            return Ok(None);
        };
        guarded(|| Ok(Some((path_of(key.value())?, Record::decode(record.value())?))))
    }

    /// The record alone.
    pub(in crate::store) fn bare_record(&self) -> Result<Option<Record>, IndexError> {
        let Some((_, record)) = &self.current else {
            return Ok(None);
        };
        guarded(|| Ok(Some(Record::decode(record.value())?)))
    }

    /// On to the next row.
    pub(in crate::store) fn advance(&mut self) -> Result<(), IndexError> {
        self.current = guarded(|| Ok(self.range.next().transpose()?))?;
        Ok(())
    }
}

impl Iterator for RecordWalk {
    type Item = Result<(RelPath, Record), IndexError>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = guarded(|| {
            let Some(row) = self.0.next() else {
                return Ok(None);
            };
            let (key, record) = row?;
            Ok(Some((path_of(key.value())?, Record::decode(record.value())?)))
        });
        next.transpose()
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot")
            .field("head", &self.head)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for RecordWalk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordWalk").finish_non_exhaustive()
    }
}
