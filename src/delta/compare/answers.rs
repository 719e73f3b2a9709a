//! What the side with the basis answers, from the leaves of the basis and from parts of it that it reads.
//!
//! Never opens the file: it says which bytes it needs. Invariant: work and output are in proportion to
//! the bytes asked for, in steps.

use std::ops::Range;

use super::bodies::{NODE_BYTES, RangesQuestion, SHORT_BYTES, SPOTS, TreeQuestion, leaf_count, shortened, unit_count};
use crate::delta::digest;
use crate::delta::index::{Anchor, BLOCK_BYTES, CONTEXT_BYTES, IndexView, scan_anchors, subtree_root};
use crate::model::limits::LEAF_BYTES;
use xxhash_rust::xxh3::xxh3_128_with_seed;

/// Most bytes of the basis that are asked for at once.
const READ_BYTES: u64 = 1 << 20;

/// The shortened hash of unit `number`: the first bytes of it go over the wire.
pub(super) fn unit_hash(leaves: &[[u8; 32]], seed: u64) -> [u8; 8] {
    match leaves {
        [leaf] => shortened(leaf, seed),
        leaves => shortened(&subtree_root(leaves), seed),
    }
}

/// Leaves of unit `number` of a file with `leaves`.
pub(super) fn leaves_of_unit(number: u64, height: u32, leaves: u64) -> Range<u64> {
    let start = number << height;
    start..leaves.min(start + (1 << height))
}

/// Subtrees and anchors.
#[derive(Debug)]
pub struct TreeAnswer {
    question: TreeQuestion,
    length: u64,
    nodes: u64,
    spot: u64,
    body: Vec<u8>,
    last_position: u64,
}

impl TreeAnswer {
    /// To a question that was parsed for a basis of `length` bytes.
    #[must_use]
    pub fn new(question: TreeQuestion, length: u64) -> TreeAnswer {
        TreeAnswer {
            question,
            length,
            nodes: 0,
            spot: 0,
            body: Vec::new(),
            last_position: 0,
        }
    }

    /// Hashes some more subtrees, of about `leaves_max` leaves; returns whether that was all. `view` is a
    /// sidecar of the basis.
    pub fn hash(&mut self, view: &IndexView<'_>, leaves_max: u64) -> bool {
        let height = self.question.height;
        let count = unit_count(self.length, height);
        let end = count.min(self.nodes + (leaves_max >> height).max(1));
        for number in self.nodes..end {
            let range = leaves_of_unit(number, height, leaf_count(self.length));
            let leaves: Vec<_> = range.map(|at| *view.leaf(at)).collect();
            let hash = unit_hash(&leaves, self.question.seed);
            self.body.extend_from_slice(&hash[..NODE_BYTES]);
        }
        self.nodes = end;
        end == count
    }

    /// The part of the basis that is to be read next, for an anchor; `None` when there are enough.
    #[must_use]
    pub fn wants(&self) -> Option<Range<u64>> {
        if self.spot == SPOTS {
            return None;
        }
        let start = self.start();
        let context = start.min(CONTEXT_BYTES as u64);
        let length = (4u64 << self.question.bits).clamp(LEAF_BYTES as u64, READ_BYTES);
        Some(start - context..self.length.min(start + length))
    }

    fn start(&self) -> u64 {
        let leaf = u128::from(leaf_count(self.length)) * u128::from(self.spot) / u128::from(SPOTS);
        leaf as u64 * LEAF_BYTES as u64
    }

    /// The bytes that it [`wants`](Self::wants).
    pub fn push(&mut self, bytes: &[u8]) {
        let start = self.start();
        let context = start.min(CONTEXT_BYTES as u64) as usize;
        let (before, bytes) = bytes.split_at(context.min(bytes.len()));
        let mut found = Vec::new();
        scan_anchors(before, bytes, start, self.question.bits, &mut found);
        let next = |anchor: &&Anchor| anchor.position > self.last_position && anchor.position <= self.length;
        if let Some(anchor) = found.iter().find(next) {
            self.body.extend_from_slice(&anchor.position.to_le_bytes()[..6]);
            self.body.extend_from_slice(&anchor.fingerprint.to_le_bytes());
            self.last_position = anchor.position;
        }
        self.spot += 1;
    }

    /// The body of the answer, once every subtree is hashed.
    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        self.body
    }
}

/// Shortened hashes of units.
#[derive(Debug)]
pub struct LeavesAnswer {
    question: RangesQuestion,
    leaves: u64,
    range: usize,
    at: u64,
}

impl LeavesAnswer {
    /// To a question that was parsed for a basis of `length` bytes.
    #[must_use]
    pub fn new(question: RangesQuestion, length: u64) -> LeavesAnswer {
        LeavesAnswer {
            question,
            leaves: leaf_count(length),
            range: 0,
            at: 0,
        }
    }

    /// Appends the next part of the answer to `body`, until that has about `bytes_max` bytes; returns
    /// whether it was the last. `view` is a sidecar of the basis.
    pub fn step(&mut self, view: &IndexView<'_>, bytes_max: usize, body: &mut Vec<u8>) -> bool {
        let height = self.question.height;
        while let Some(range) = self.question.ranges.get(self.range) {
            let mut at = self.at.max(range.start);
            while at < range.end {
                if body.len() + SHORT_BYTES > bytes_max {
                    self.at = at;
                    return false;
                }
                let unit = leaves_of_unit(at, height, self.leaves);
                let leaves: Vec<_> = unit.map(|at| *view.leaf(at)).collect();
                let hash = unit_hash(&leaves, self.question.seed);
                body.extend_from_slice(&hash[..SHORT_BYTES]);
                at += 1;
            }
            self.range += 1;
        }
        true
    }
}

/// Everything that an index holds of some leaves, but for anchors.
#[derive(Debug)]
pub struct BlocksAnswer {
    question: RangesQuestion,
    length: u64,
    range: usize,
    at: u64,
}

impl BlocksAnswer {
    /// To a question that was parsed for a basis of `length` bytes; `None` when it is not about leaves.
    #[must_use]
    pub fn new(question: RangesQuestion, length: u64) -> Option<BlocksAnswer> {
        (question.height == 0).then_some(BlocksAnswer {
            question,
            length,
            range: 0,
            at: 0,
        })
    }

    /// The part of the basis that is to be read next: whole leaves; `None` at the end.
    #[must_use]
    pub fn wants(&self) -> Option<Range<u64>> {
        let range = self.question.ranges.get(self.range)?;
        let start = self.at.max(range.start) * LEAF_BYTES as u64;
        let end = self.length.min(range.end * LEAF_BYTES as u64);
        // Of a step, the answer has 1 %.
        Some(start..end.min(start + READ_BYTES / 4))
    }

    /// The bytes that it [`wants`](Self::wants); what is said of them goes to `body`.
    pub fn push(&mut self, bytes: &[u8], body: &mut Vec<u8>) {
        let Some(wanted) = self.wants() else { return };
        for leaf in bytes.chunks(LEAF_BYTES) {
            body.extend_from_slice(&digest(leaf));
            body.extend_from_slice(&xxh3_128_with_seed(leaf, self.question.seed).to_le_bytes());
            for block in leaf.chunks(BLOCK_BYTES) {
                body.extend_from_slice(&crc32fast::hash(block).to_le_bytes());
            }
        }
        self.at = wanted.end.div_ceil(LEAF_BYTES as u64);
        if self.question.ranges[self.range].end <= self.at {
            self.range += 1;
        }
    }
}
