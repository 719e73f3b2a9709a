//! The words of the journal: a transfer's id, what is transferred, how far it is verified.
//!
//! Values only. Invariant: an id is never 0, and its text is the name of a staged file.

use crate::model::limits::{FILE_BYTES_MAX, JOURNAL_RUNS_MAX, LEAF_BYTES};
use crate::model::{ContentId, DeviceId, RelPath, Timestamp};
use crate::store::facts::Identity;
use std::fmt;
use std::ops::Range;

/// An unfinished transfer. Random, never 0; its 16 hexadecimal digits name the staged file,
/// `.syncline/staging/kept/ID`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TransferId(pub u64);

/// What is unfinished.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// A file that arrives here: an upload at a server, a download at a client.
    Incoming(Incoming),
    /// A file that leaves: what was already sent of this state of it was hashed.
    Outgoing(Identity),
}

/// A file that arrives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incoming {
    /// Where it belongs, below the root of the journal.
    pub path: RelPath,
    /// Who sends it; `None` for one without an identity.
    pub peer: Option<DeviceId>,
    /// Bytes of the whole file.
    pub size: u64,
    /// Its modification time at the sender.
    pub mtime: Timestamp,
    /// What it is a patch of, if it arrives as one.
    pub basis: Option<PlanBasis>,
}

/// The delta plan of a file that arrives as a patch: what it is a patch of, and how it is applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlanBasis {
    /// Content of the basis.
    pub id: ContentId,
    /// The state of the file that has it.
    pub identity: Identity,
    /// Whether the basis itself is to be changed.
    pub in_place: bool,
}

/// How far a transfer is verified.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reached {
    /// Verified bytes from the start of the file, a multiple of [`LEAF_BYTES`].
    pub offset: u64,
    /// Roots of the complete subtrees that the leaves before `offset` make, the largest first: one
    /// for each bit that is set in their number.
    pub frontier: Vec<[u8; 32]>,
    /// For plans that change the basis: the numbers of its 4 KiB pages that are changed so far, as
    /// runs, ascending and disjoint. At most [`JOURNAL_RUNS_MAX`]; else empty. Nothing is made of them: which pages
    /// are changed is in the staged file.
    pub changed: Vec<Range<u64>>,
}

/// An entry of the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfinished {
    /// Which transfer.
    pub id: TransferId,
    /// What is transferred.
    pub subject: Subject,
    /// How far.
    pub reached: Reached,
    /// Whether that was written since this machine started and mounted the file system. Otherwise
    /// what was written to the file may be lost, and has to be verified again.
    pub proven: bool,
    /// Unix seconds of the last record.
    pub touched: i64,
}

impl TransferId {
    /// The id whose text is `name`: 16 lower-case hexadecimal digits, not all of them 0.
    #[must_use]
    pub fn parse(name: &str) -> Option<TransferId> {
        let id = TransferId(u64::from_str_radix(name, 16).ok()?);
        (id.0 != 0 && id.to_string() == name).then_some(id)
    }

    /// A random id; `None` when the system has no random bytes.
    pub(super) fn random() -> Option<TransferId> {
        let mut random = [0; 8];
        getrandom::fill(&mut random).ok()?;
        Some(TransferId(u64::from_le_bytes(random).max(1)))
    }
}

impl fmt::Display for TransferId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl Subject {
    /// Bytes of the whole file.
    #[must_use]
    pub fn size(&self) -> u64 {
        match self {
            Subject::Incoming(incoming) => incoming.size,
            Subject::Outgoing(identity) => identity.size(),
        }
    }
}

impl Reached {
    /// Whether the fields agree with each other and can be written.
    pub(super) fn is_sound(&self) -> bool {
        let leaves = self.offset / LEAF_BYTES as u64;
        let ascending = |runs: &[Range<u64>]| runs[0].end <= runs[1].start;
        self.offset.is_multiple_of(LEAF_BYTES as u64)
            && self.offset <= FILE_BYTES_MAX
            && self.frontier.len() == leaves.count_ones() as usize
            && self.changed.len() <= JOURNAL_RUNS_MAX
            && self.changed.iter().all(|run| run.start < run.end)
            && self.changed.windows(2).all(ascending)
    }

    /// Whether nothing is claimed.
    pub(super) fn is_nothing(&self) -> bool {
        self.offset == 0 && self.changed.is_empty()
    }
}

impl Unfinished {
    /// Whether the record says no more than can be true of such a file.
    pub(super) fn allows(&self, reached: &Reached) -> bool {
        reached.offset <= self.subject.size()
    }
}
