//! The basis of a match: what its index says of each leaf and block, and a view of the new bytes to
//! compare with.
//!
//! Never decides what a match is worth. Invariant: any leaf or block number may be asked for; beyond the
//! basis there is nothing that could be equal.

use super::index::{BLOCK_BYTES, IndexView, Parts};
use crate::model::limits::LEAF_BYTES;

const BLOCK: u64 = BLOCK_BYTES as u64;
const LEAF: u64 = LEAF_BYTES as u64;
/// A shorter block has fewer bits than its CRC-32, so it is never equal by that.
const EQUAL_BYTES_MIN: usize = 4;

/// Bytes that were read or computed over, for budgets and for tests of linear time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Work {
    /// By CRC-32 of blocks.
    pub checked_bytes: u64,
    /// By xxh3, SHA-256 and the search for anchors.
    pub hashed_bytes: u64,
    /// By the rolling CRC, at one position a byte.
    pub rolled_bytes: u64,
}

impl Work {
    /// All of it, in bytes of fast hashing: a rolled byte costs as much as several.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.checked_bytes + self.hashed_bytes + 8 * self.rolled_bytes
    }
}

/// A part of the new file, in memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window<'a> {
    pub(super) start: u64,
    pub(super) bytes: &'a [u8],
}

impl<'a> Window<'a> {
    /// `length` bytes at `from`, when all of them are in the window.
    pub(super) fn part(&self, from: u64, length: usize) -> Option<&'a [u8]> {
        let from = usize::try_from(from.checked_sub(self.start)?).ok()?;
        self.bytes.get(from..)?.get(..length)
    }
}

/// An index with sections for matching.
#[derive(Debug, Clone, Copy)]
pub(super) struct Basis<'a> {
    pub(super) view: &'a IndexView<'a>,
    /// Zero when the index has no sections for matching.
    pub(super) length: u64,
}

impl<'a> Basis<'a> {
    pub(super) fn new(view: &'a IndexView<'a>) -> Basis<'a> {
        let length = match view.sidecar().parts {
            Parts::Full => view.sidecar().length,
            Parts::Leaves => 0,
        };
        Basis { view, length }
    }

    pub(super) fn seed(&self) -> u64 {
        self.view.sidecar().seed
    }

    /// Bytes of leaf `at`; zero beyond the basis.
    pub(super) fn leaf_bytes(&self, at: u64) -> usize {
        self.length.saturating_sub(at.saturating_mul(LEAF)).min(LEAF) as usize
    }

    /// Bytes of block `at`; zero beyond the basis.
    pub(super) fn block_bytes(&self, at: u64) -> usize {
        self.length.saturating_sub(at.saturating_mul(BLOCK)).min(BLOCK) as usize
    }

    /// Blocks, the last of which may be short.
    pub(super) fn block_count(&self) -> u64 {
        self.length.div_ceil(BLOCK)
    }

    pub(super) fn anchor_count(&self) -> usize {
        if self.length == 0 { 0 } else { self.view.anchor_count() }
    }

    /// Whether block `at` has the CRC of `bytes`, which are of its length, or start with it.
    pub(super) fn block_equals(&self, at: u64, bytes: &[u8], work: &mut Work) -> bool {
        let length = self.block_bytes(at);
        if length < EQUAL_BYTES_MIN || bytes.len() < length {
            return false;
        }
        work.checked_bytes += length as u64;
        crc32fast::hash(&bytes[..length]) == self.view.crc(at)
    }

    /// Whether block `at` stands in `window` at its place minus `shift`.
    pub(super) fn block_at(&self, at: u64, shift: i64, window: &Window<'_>, work: &mut Work) -> bool {
        let length = self.block_bytes(at);
        if length == 0 {
            return false;
        }
        let position = (at * BLOCK).checked_add_signed(-shift);
        position
            .and_then(|position| window.part(position, length))
            .is_some_and(|bytes| self.block_equals(at, bytes, work))
    }
}
