//! The tables of the index and the row that stands above them.
//!
//! Opens no file. The layout is in `docs/FORMAT.md`. Invariant: the head is written in the same
//! transaction as what it counts.

use super::fault::Fault;
use crate::model::{Epoch, Revision};
use redb::{ReadableTable, TableDefinition, WriteTransaction};

/// Key of a path -> record.
pub(super) const ENTRIES: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("entries");
/// Revision and key of a path -> nothing.
pub(super) const REVISIONS: TableDefinition<'_, &[u8], ()> = TableDefinition::new("revisions");
/// Revision -> mark.
pub(super) const MARKS: TableDefinition<'_, u64, u64> = TableDefinition::new("marks");
/// Name -> value of the owner.
pub(super) const VALUES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("values");
/// Name -> what the index knows of itself.
pub(super) const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");

/// Marks that are kept.
pub(super) const MARKS_MAX: u64 = 10_000;

const FORMAT: &str = "format";
const FORMAT_VERSION: u32 = 1;
const HEAD: &str = "head";
const HEAD_BYTES: usize = 24;

/// What is known of the whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) epoch: Epoch,
    pub(super) revision: Revision,
    /// Records that are no tombstones.
    pub(super) live: u64,
}

impl Head {
    fn to_bytes(self) -> [u8; HEAD_BYTES] {
        let mut bytes = [0; HEAD_BYTES];
        let fields = [self.epoch.0, self.revision.0, self.live];
        for (bytes, field) in bytes.chunks_exact_mut(8).zip(fields) {
            bytes.copy_from_slice(&field.to_le_bytes());
        }
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Head> {
        let bytes: &[u8; HEAD_BYTES] = bytes.try_into().ok()?;
        let field = |number: usize| {
            let bytes = bytes[8 * number..][..8].try_into();
            u64::from_le_bytes(bytes.expect("eight bytes"))
        };
        Some(Head {
            epoch: Epoch(field(0)),
            revision: Revision(field(1)),
            live: field(2),
        })
    }
}

/// The key of a row of [`REVISIONS`], into `row`.
pub(super) fn revision_key(revision: Revision, key: &[u8], row: &mut Vec<u8>) {
    row.clear();
    row.extend(revision.0.to_be_bytes());
    row.extend_from_slice(key);
}

/// What [`revision_key`] put together.
pub(super) fn split_revision_key(row: &[u8]) -> Option<(Revision, &[u8])> {
    let (revision, key) = row.split_first_chunk()?;
    Some((Revision(u64::from_be_bytes(*revision)), key))
}

/// Makes all tables.
pub(super) fn make_tables(transaction: &WriteTransaction, head: &Head) -> Result<(), Fault> {
    transaction.open_table(ENTRIES)?;
    transaction.open_table(REVISIONS)?;
    transaction.open_table(MARKS)?;
    transaction.open_table(VALUES)?;
    let version = FORMAT_VERSION.to_le_bytes();
    transaction.open_table(META)?.insert(FORMAT, &version[..])?;
    put_head(transaction, head)
}

/// The head, after a look at the format's version.
pub(super) fn read_head(meta: &impl ReadableTable<&'static str, &'static [u8]>) -> Result<Head, Fault> {
    let version = meta.get(FORMAT)?;
    if version.is_none_or(|version| version.value() != FORMAT_VERSION.to_le_bytes()) {
        return Err(Fault::Content("it has a version that this syncline does not know"));
    }
    let head = meta.get(HEAD)?.and_then(|head| Head::from_bytes(head.value()));
    head.ok_or(Fault::Content("it has no head"))
}

pub(super) fn take_head(transaction: &WriteTransaction) -> Result<Head, Fault> {
    read_head(&transaction.open_table(META)?)
}

pub(super) fn put_head(transaction: &WriteTransaction, head: &Head) -> Result<(), Fault> {
    transaction.open_table(META)?.insert(HEAD, &head.to_bytes()[..])?;
    Ok(())
}
