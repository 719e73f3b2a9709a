//! One chunk of the new file against the same place of the basis, and the chunk's index from that pass.
//!
//! Never looks at another place of the basis. Invariant: the index equals `ChunkIndex::build` of the
//! bytes, as far as xxh3-128 (or SHA-256) tells leaves apart.
//!
//! 1. A leaf with the hash that the basis has there is equal: hashes, CRCs and anchors are the basis'.
//! 2. Of any other leaf each KiB is compared by CRC. When all of a differing leaf seem equal, a CRC
//!    lied, and none is taken as equal.
//! 3. A leaf of which few KiB differ may have short edits ([`edits`](super::edits), [`pairs`](super::pairs)); proven, all of the
//!    rest of the leaf is equal.
//! 4. Neighbouring equal KiB are a run. A run is copied when it has a leaf or part of a leaf that was
//!    proven by its hash, or two blocks by CRC (64 bits), or follows on the run that ended the chunk
//!    before. A further block of a run brings 32 bits of its own: a false one is 1 in 2^32, for each end
//!    of a run; the root finds it.
//!
//! Awkward cases: the last block of the basis is short, and the new file goes on after it: then it is
//! compared with as many bytes; the last leaf of either is shorter than the other's: only its blocks
//! are compared.

use std::ops::Range;

use super::basis::{Basis, Window, Work};
use super::edits::{self, Differing, EDITED_BLOCKS_MAX};
use super::index::{Anchor, BLOCK_BYTES, BLOCKS_PER_LEAF, ChunkIndex, LeafSums, anchor_bits, leaves_of, scan_anchors};
use super::matcher::Comparison;
use super::pairs::{Pairs, SEARCH_BYTES};
use crate::delta::digest;
use crate::model::limits::LEAF_BYTES;
use xxhash_rust::xxh3::xxh3_128_with_seed;

/// Leaves compared in one step: as many as the wide SHA-256 takes at once.
const GROUP_LEAVES: usize = 16;
/// Leaves hashed to prove edits: so many in any file, and half as many as it has.
const PROOFS_FREE: u64 = 4096;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Block {
    Differs,
    /// So many bytes of it, by CRC.
    Equal(u16),
    /// By the hash of its leaf, but for edits.
    Proven(u16),
}

impl Block {
    fn bytes(self) -> u16 {
        match self {
            Block::Differs => 0,
            Block::Equal(bytes) | Block::Proven(bytes) => bytes,
        }
    }
}

/// The comparison of one chunk, and what passes on to the next.
#[derive(Debug)]
pub(super) struct Span {
    pub(super) start: u64,
    comparison: Comparison,
    /// Bytes of the new file.
    file_bytes: u64,
    index: ChunkIndex,
    blocks: Vec<Block>,
    /// Proven edits, by place in the file.
    edits: Vec<Range<u64>>,
    /// The leaf before is equal, so that anchors at the start of this one are too.
    equal_before: bool,
    /// All leaves of the group before differ: so will those of the next, as a rule.
    differed_before: bool,
    /// A copied run ended with the chunk before.
    run_before: bool,
    proofs: u64,
    pairs: Pairs,
    /// A leaf in which edits are undone.
    leaf: Vec<u8>,
}

impl Span {
    pub(super) fn new(file_bytes: u64, comparison: Comparison) -> Span {
        Span {
            start: 0,
            comparison,
            file_bytes,
            index: ChunkIndex::default(),
            blocks: Vec::new(),
            edits: Vec::new(),
            equal_before: true,
            differed_before: false,
            run_before: false,
            proofs: 2 * PROOFS_FREE,
            pairs: Pairs::default(),
            leaf: Vec::new(),
        }
    }

    /// Goes on with the chunk at `start`; gives out the index of the one before.
    pub(super) fn restart(&mut self, start: u64) -> ChunkIndex {
        self.start = start;
        self.blocks.clear();
        self.edits.clear();
        std::mem::take(&mut self.index)
    }

    /// Anchors found in the chunk.
    pub(super) fn anchors(&self) -> &[Anchor] {
        &self.index.anchors
    }

    /// Compares some more leaves of `bytes`, the chunk. Returns whether that was all.
    pub(super) fn compare(&mut self, basis: &Basis<'_>, window: &Window<'_>, bytes: &[u8], work: &mut Work) -> bool {
        let from = self.index.leaves.len() * LEAF_BYTES;
        let group = &bytes[from..bytes.len().min(from + GROUP_LEAVES * LEAF_BYTES)];
        let first = (self.start + from as u64) / LEAF_BYTES as u64;
        work.hashed_bytes += group.len() as u64;
        // All sums in one pass are cheaper than one after the other, if all are needed.
        let expected = self.comparison == Comparison::Fast && self.differed_before;
        let sums = expected.then(|| LeafSums::of(group, basis.seed()));
        let equal = match (self.comparison, &sums) {
            (Comparison::Fast, Some(sums)) => self.compare_summed(basis, first, group, sums),
            (Comparison::Fast, None) => self.compare_fast(basis, first, group),
            (Comparison::Checksum, _) => self.compare_checksums(basis, first, group),
        };
        match &sums {
            Some(sums) => {
                work.hashed_bytes += group.len() as u64;
                self.index.leaves.extend(&sums.leaves);
            }
            None => self.take_hashes(basis, first, group, &equal, work),
        }
        self.take_anchors(basis, first, window, group, &equal, work);
        for (at, leaf) in group.chunks(LEAF_BYTES).enumerate() {
            if equal[at] {
                let block = (first + at as u64) * BLOCKS_PER_LEAF as u64;
                for (number, bytes) in leaf.chunks(BLOCK_BYTES).enumerate() {
                    self.index.crcs.push(basis.view.crc(block + number as u64));
                    self.blocks.push(Block::Proven(bytes.len() as u16));
                }
            } else {
                let mut crcs = [0; BLOCKS_PER_LEAF];
                let known = sums.as_ref().map(|sums| &sums.crcs[at * BLOCKS_PER_LEAF..]);
                for (number, (crc, bytes)) in crcs.iter_mut().zip(leaf.chunks(BLOCK_BYTES)).enumerate() {
                    *crc = known.map_or_else(|| crc32fast::hash(bytes), |known| known[number]);
                }
                self.compare_blocks(basis, first + at as u64, leaf, &crcs, work);
            }
        }
        self.proofs += equal.len() as u64;
        self.equal_before = equal.last().copied().unwrap_or(true);
        self.differed_before = !equal.contains(&true);
        from + group.len() == bytes.len()
    }

    /// xxh3 of each leaf, and whether it is what the basis has.
    fn compare_fast(&mut self, basis: &Basis<'_>, first: u64, group: &[u8]) -> Vec<bool> {
        let compare = |(at, leaf): (u64, &[u8])| {
            let hash = xxh3_128_with_seed(leaf, basis.seed());
            self.index.strong.push(hash);
            basis.leaf_bytes(at) == leaf.len() && basis.view.strong(at) == hash
        };
        (first..).zip(group.chunks(LEAF_BYTES)).map(compare).collect()
    }

    /// The same, of leaves whose sums are known.
    fn compare_summed(&mut self, basis: &Basis<'_>, first: u64, group: &[u8], sums: &LeafSums) -> Vec<bool> {
        self.index.strong.extend(&sums.strong);
        let leaves = (first..).zip(group.chunks(LEAF_BYTES)).zip(&sums.strong);
        let compare = |((at, leaf), hash): ((u64, &[u8]), &u128)| {
            basis.leaf_bytes(at) == leaf.len() && basis.view.strong(at) == *hash
        };
        leaves.map(compare).collect()
    }

    /// SHA-256 of each leaf, and whether it is what the basis has.
    fn compare_checksums(&mut self, basis: &Basis<'_>, first: u64, group: &[u8]) -> Vec<bool> {
        let hashes = leaves_of(group);
        let compare = |((at, leaf), hash): ((u64, &[u8]), &[u8; 32])| {
            let equal = basis.leaf_bytes(at) == leaf.len() && basis.view.leaf(at) == hash;
            self.index.strong.push(if equal {
                basis.view.strong(at)
            } else {
                xxh3_128_with_seed(leaf, basis.seed())
            });
            equal
        };
        let leaves = (first..).zip(group.chunks(LEAF_BYTES));
        let equal = leaves.zip(&hashes).map(compare).collect();
        self.index.leaves.extend(hashes);
        equal
    }

    /// SHA-256 of the leaves: of equal ones that of the basis, runs of others are hashed together.
    fn take_hashes(&mut self, basis: &Basis<'_>, first: u64, group: &[u8], equal: &[bool], work: &mut Work) {
        if self.comparison == Comparison::Checksum {
            return;
        }
        let mut at = 0;
        for run in equal.chunk_by(|one, other| one == other) {
            if run[0] {
                let leaves = (at..at + run.len()).map(|leaf| basis.view.leaf(first + leaf as u64));
                self.index.leaves.extend(leaves);
            } else {
                let bytes = part(group, at, run.len());
                work.hashed_bytes += bytes.len() as u64;
                self.index.leaves.extend(leaves_of(bytes));
            }
            at += run.len();
        }
    }

    fn take_anchors(
        &mut self,
        basis: &Basis<'_>,
        first: u64,
        window: &Window<'_>,
        group: &[u8],
        equal: &[bool],
        work: &mut Work,
    ) {
        let bits = anchor_bits(self.file_bytes);
        let same_bits = basis.view.sidecar().bits == bits;
        let mut before = self.equal_before;
        let known: Vec<bool> = equal
            .iter()
            .map(|equal| std::mem::replace(&mut before, *equal) && *equal && same_bits)
            .collect();
        let mut at = 0;
        for run in known.chunk_by(|one, other| one == other) {
            let offset = (first + at as u64) * LEAF_BYTES as u64;
            let bytes = part(group, at, run.len());
            if run[0] {
                self.copy_anchors(basis, offset, bytes.len() as u64);
            } else {
                let before = &window.bytes[..(offset - window.start) as usize];
                let before = &before[before.len().saturating_sub(BLOCK_BYTES)..];
                work.hashed_bytes += bytes.len() as u64;
                scan_anchors(before, bytes, offset, bits, &mut self.index.anchors);
            }
            at += run.len();
        }
    }

    /// Takes the anchors over that the basis has behind `offset`, up to `length` bytes on.
    fn copy_anchors(&mut self, basis: &Basis<'_>, offset: u64, length: u64) {
        let view = basis.view;
        let (mut low, mut high) = (0, basis.anchor_count());
        while low < high {
            let middle = low.midpoint(high);
            if view.anchor(middle).position <= offset {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        // A damaged index may have any number of them in any place.
        let anchors = (low..basis.anchor_count()).map(|at| view.anchor(at));
        let within = anchors.take_while(|anchor| (offset + 1..=offset + length).contains(&anchor.position));
        let most = length.div_ceil(LEAF_BYTES as u64) as usize * BLOCKS_PER_LEAF;
        self.index.anchors.extend(within.take(most));
    }

    /// `crcs` are those of the leaf's blocks.
    fn compare_blocks(&mut self, basis: &Basis<'_>, at: u64, leaf: &[u8], crcs: &[u32], work: &mut Work) {
        let block = at * BLOCKS_PER_LEAF as u64;
        let mut found = [Block::Differs; BLOCKS_PER_LEAF];
        let mut differing = Vec::new();
        let blocks = leaf.chunks(BLOCK_BYTES);
        let count = blocks.len();
        for (number, (bytes, crc)) in blocks.zip(crcs).enumerate() {
            work.checked_bytes += bytes.len() as u64;
            let crc = *crc;
            self.index.crcs.push(crc);
            let at = block + number as u64;
            let length = basis.block_bytes(at);
            let equal = if length == bytes.len() {
                length >= 4 && crc == basis.view.crc(at)
            } else {
                basis.block_equals(at, bytes, work)
            };
            if equal {
                found[number] = Block::Equal(length as u16);
            } else if length == bytes.len() {
                let difference = crc ^ basis.view.crc(at);
                differing.push(Differing {
                    block: number,
                    difference,
                });
            }
        }
        let found = &mut found[..count];
        if basis.leaf_bytes(at) == leaf.len() {
            if differing.is_empty() {
                // The leaf differs, so one of the CRCs is equal by chance.
                found.fill(Block::Differs);
            } else if differing.len() <= EDITED_BLOCKS_MAX && self.locate(basis, at, leaf, &differing, work) {
                let lengths = leaf.chunks(BLOCK_BYTES).map(<[u8]>::len);
                found
                    .iter_mut()
                    .zip(lengths)
                    .for_each(|(block, bytes)| *block = Block::Proven(bytes as u16));
            }
        }
        self.blocks.extend_from_slice(found);
    }

    /// Finds the edits in `leaf`, and returns whether they were.
    fn locate(&mut self, basis: &Basis<'_>, at: u64, leaf: &[u8], differing: &[Differing], work: &mut Work) -> bool {
        self.leaf.clear();
        self.leaf.extend_from_slice(leaf);
        let mut proofs = self.proofs / 2;
        let is_old = |old: &[u8]| is_leaf(basis, at, old, self.comparison);
        let found = edits::locate(&mut self.leaf, differing, &mut proofs, is_old);
        let used = self.proofs / 2 - proofs;
        work.hashed_bytes += used * leaf.len() as u64;
        self.proofs -= 2 * used;
        let found = found.or_else(|| self.locate_pair(basis, at, differing, work));
        let start = at * LEAF_BYTES as u64;
        let moved = |edit: &Range<usize>| start + edit.start as u64..start + edit.end as u64;
        self.edits.extend(found.iter().flatten().map(moved));
        self.pairs.count(found.iter().flatten().count());
        found.is_some()
    }

    /// Finds two edits in the only block that differs of the leaf that was just copied.
    fn locate_pair(
        &mut self,
        basis: &Basis<'_>,
        at: u64,
        differing: &[Differing],
        work: &mut Work,
    ) -> Option<Vec<Range<usize>>> {
        let [only] = differing else { return None };
        let start = only.block * BLOCK_BYTES;
        if self.leaf.len() < start + BLOCK_BYTES || !self.pairs.worth() {
            return None;
        }
        work.hashed_bytes += SEARCH_BYTES;
        let pairs = self.pairs.find(only.difference);
        let proven = pairs.into_iter().find(|pair| {
            let mut old = self.leaf.clone();
            pair.iter().for_each(|(place, pattern)| old[start + place] ^= pattern);
            work.hashed_bytes += old.len() as u64;
            is_leaf(basis, at, &old, self.comparison)
        });
        self.pairs.settle(proven.is_some());
        proven.map(|pair| {
            let places = pair.iter().map(|(place, _)| start + place);
            places.map(|place| place..place + 1).collect()
        })
    }

    /// What stays where it is, in order; edits are left out.
    pub(super) fn copies(&mut self) -> Vec<Range<u64>> {
        let mut copies = Vec::new();
        let mut at = 0;
        let run_before = std::mem::replace(&mut self.run_before, false);
        for run in self.blocks.chunk_by(|one, other| one.bytes() > 0 && other.bytes() > 0) {
            let proven = run.iter().any(|block| matches!(block, Block::Proven(_)));
            let follows = at == 0 && run_before;
            if run[0] != Block::Differs && (proven || run.len() > 1 || follows) {
                let start = self.start + (at * BLOCK_BYTES) as u64;
                let bytes: u64 = run.iter().map(|block| u64::from(block.bytes())).sum();
                copies.push(start..start + bytes);
                self.run_before = at + run.len() == self.blocks.len();
            }
            at += run.len();
        }
        without(copies, &self.edits)
    }
}

/// Whether `bytes` are leaf `at` of the basis.
fn is_leaf(basis: &Basis<'_>, at: u64, bytes: &[u8], comparison: Comparison) -> bool {
    match comparison {
        Comparison::Fast => xxh3_128_with_seed(bytes, basis.seed()) == basis.view.strong(at),
        Comparison::Checksum => digest(bytes) == *basis.view.leaf(at),
    }
}

/// Takes `holes` out of `ranges`; both are in order.
fn without(ranges: Vec<Range<u64>>, holes: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut left = Vec::with_capacity(ranges.len() + holes.len());
    let mut holes = holes.iter().peekable();
    for range in ranges {
        let mut from = range.start;
        while let Some(hole) = holes.next_if(|hole| hole.start < range.end) {
            if from < hole.start {
                left.push(from..hole.start);
            }
            from = hole.end;
        }
        if from < range.end {
            left.push(from..range.end);
        }
    }
    left
}

/// `count` leaves of `group` from leaf `at` on.
fn part(group: &[u8], at: usize, count: usize) -> &[u8] {
    &group[at * LEAF_BYTES..group.len().min((at + count) * LEAF_BYTES)]
}
