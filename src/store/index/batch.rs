//! `Batch`: changes of the index that become durable together.
//!
//! Opens no file; `apply` is what one transaction does. Invariant: behind it each path that has a record
//! has one row under that record's revision, and no other; the count of live entries is right.

use super::fault::Fault;
use super::key::key_of;
use super::record::Record;
use super::tables::{ENTRIES, Head, MARKS, MARKS_MAX, REVISIONS, VALUES, put_head, revision_key, take_head};
use crate::model::{Epoch, RelPath, Revision};
use redb::{Database, ReadableTableMetadata};

/// Changes that become durable together, in the order in which they were added.
#[derive(Debug, Default)]
pub struct Batch {
    changes: Vec<Change>,
    values: Vec<(Box<str>, Box<[u8]>)>,
    marks: Vec<(Revision, u64)>,
    epoch: Option<Epoch>,
}

#[derive(Debug)]
enum Change {
    Put {
        key: Vec<u8>,
        revision: Revision,
        live: bool,
        record: Vec<u8>,
    },
    Remove {
        key: Vec<u8>,
    },
}

impl Batch {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Batch {
        Batch::default()
    }

    /// Sets the record of `path`. The revision of the index grows to the record's, if that is higher. A
    /// record of [`Revision::NONE`] is in no answer of what changed.
    pub fn put(&mut self, path: &RelPath, record: &Record) {
        self.changes.push(Change::Put {
            key: key_of(path),
            revision: record.revision,
            live: record.is_live(),
            record: record.encode(),
        });
    }

    /// Forgets `path`: no record and no tombstone of it remains.
    pub fn remove(&mut self, path: &RelPath) {
        self.changes.push(Change::Remove { key: key_of(path) });
    }

    /// Sets a value that the index keeps for its owner. No bytes: it is removed.
    pub fn set_value(&mut self, name: &str, value: &[u8]) {
        self.values.push((name.into(), value.into()));
    }

    /// Keeps `mark` for a revision at which an answer ended. The marks of the 10,000 highest revisions
    /// are kept.
    pub fn set_mark(&mut self, revision: Revision, mark: u64) {
        self.marks.push((revision, mark));
    }

    /// Begins a new epoch. The marks of the last one go before those of this batch come; the records
    /// stay, and revisions go on.
    pub fn new_epoch(&mut self, epoch: Epoch) {
        self.epoch = Some(epoch);
    }

    /// Changes of records in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// Whether writing it would change nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.values.is_empty() && self.marks.is_empty() && self.epoch.is_none()
    }

    /// One transaction. When this returns, it is on the disk.
    pub(super) fn apply(&self, database: &Database) -> Result<Head, Fault> {
        let transaction = database.begin_write()?;
        let mut head = take_head(&transaction)?;
        self.apply_changes(&transaction, &mut head)?;
        self.apply_marks(&transaction)?;
        if !self.values.is_empty() {
            let mut table = transaction.open_table(VALUES)?;
            for (name, value) in &self.values {
                if value.is_empty() {
                    table.remove(&**name)?;
                } else {
                    table.insert(&**name, &**value)?;
                }
            }
        }
        head.epoch = self.epoch.unwrap_or(head.epoch);
        put_head(&transaction, &head)?;
        transaction.commit()?;
        Ok(head)
    }

    fn apply_changes(&self, transaction: &redb::WriteTransaction, head: &mut Head) -> Result<(), Fault> {
        if self.changes.is_empty() {
            return Ok(());
        }
        let mut entries = transaction.open_table(ENTRIES)?;
        let mut revisions = transaction.open_table(REVISIONS)?;
        let mut row = Vec::new();
        for change in &self.changes {
            let (key, old) = match change {
                Change::Put { key, record, .. } => (key, entries.insert(&key[..], &record[..])?),
                Change::Remove { key } => (key, entries.remove(&key[..])?),
            };
            let old = old.map(|old| Record::peek(old.value())).transpose()?;
            if let Some((revision, live)) = old {
                head.live = head.live.saturating_sub(live.into());
                revision_key(revision, key, &mut row);
                let listed = revisions.remove(&row[..])?.is_some();
                if listed != (revision != Revision::NONE) {
                    return Err(Fault::Content("a revision has no row"));
                }
            }
            if let Change::Put { revision, live, .. } = *change {
                head.live += u64::from(live);
                head.revision = head.revision.max(revision);
                if revision != Revision::NONE {
                    revision_key(revision, key, &mut row);
                    revisions.insert(&row[..], ())?;
                }
            }
        }
        Ok(())
    }

    fn apply_marks(&self, transaction: &redb::WriteTransaction) -> Result<(), Fault> {
        if self.marks.is_empty() && self.epoch.is_none() {
            return Ok(());
        }
        let mut marks = transaction.open_table(MARKS)?;
        if self.epoch.is_some() {
            marks.retain(|_, _| false)?;
        }
        for (revision, mark) in &self.marks {
            marks.insert(revision.0, mark)?;
            while marks.len()? > MARKS_MAX {
                marks.pop_first()?;
            }
        }
        Ok(())
    }
}
