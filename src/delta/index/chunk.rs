//! The index of one chunk of a file, made in one pass while its bytes are in the cache.
//!
//! Never keeps content. Invariant: a byte is hashed into the tree once; roots are made from leaves.
//!
//! Of each run of 16 leaves, which stay in the second cache, first the sums ([`LeafSums`]), then the anchors.

use super::anchors::{Anchor, scan_anchors};
use super::leaf_sums::{LeafSums, RUN_BYTES, leaves_of};
use super::{BLOCK_BYTES, CHUNK_BYTES};
use crate::delta::TreeHasher;
use crate::delta::sha256::hash_nodes;
use crate::model::ContentId;
use crate::model::limits::LEAF_BYTES;

/// What an index holds of one chunk: of every leaf its SHA-256 and a seeded xxh3-128, of every KiB the
/// CRC-32, and the anchors in order of their positions.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ChunkIndex {
    /// SHA-256 of each leaf.
    pub leaves: Vec<[u8; 32]>,
    /// xxh3-128 of each leaf, with the seed of the index.
    pub strong: Vec<u128>,
    /// CRC-32 (IEEE) of each KiB; the last may be shorter.
    pub crcs: Vec<u32>,
    /// Anchors, by position.
    pub anchors: Vec<Anchor>,
}

impl ChunkIndex {
    /// The index of `bytes` (at most [`CHUNK_BYTES`]), which stand at `offset` (a multiple of it) and
    /// follow on `before` (its last 64 bytes count; fewer only where the file has no more).
    #[must_use]
    pub fn build(before: &[u8], bytes: &[u8], offset: u64, seed: u64, bits: u32) -> ChunkIndex {
        debug_assert!(bytes.len() <= CHUNK_BYTES && offset.is_multiple_of(CHUNK_BYTES as u64));
        let leaves = bytes.len().div_ceil(LEAF_BYTES);
        let mut index = ChunkIndex {
            leaves: Vec::with_capacity(leaves),
            strong: Vec::with_capacity(leaves),
            crcs: Vec::with_capacity(bytes.len().div_ceil(BLOCK_BYTES)),
            anchors: Vec::with_capacity(5 * leaves),
        };
        for start in (0..bytes.len()).step_by(RUN_BYTES) {
            let end = bytes.len().min(start + RUN_BYTES);
            let (before, run) = (if start == 0 { before } else { &bytes[..start] }, &bytes[start..end]);
            index.push(LeafSums::of(run, seed));
            scan_anchors(before, run, offset + start as u64, bits, &mut index.anchors);
        }
        index
    }

    /// Takes the sums of the leaves that come next.
    pub(in crate::delta) fn push(&mut self, sums: LeafSums) {
        self.leaves.extend(sums.leaves);
        self.strong.extend(sums.strong);
        self.crcs.extend(sums.crcs);
    }

    /// Only the leaves of `bytes` (at most [`CHUNK_BYTES`]): all that a sidecar of
    /// [`Parts::Leaves`](super::Parts::Leaves) needs.
    #[must_use]
    pub fn leaves_only(bytes: &[u8]) -> ChunkIndex {
        ChunkIndex {
            leaves: leaves_of(bytes),
            ..ChunkIndex::default()
        }
    }

    /// The root of the subtree over this chunk's leaves, as [`subtree_root`] makes it.
    #[must_use]
    pub fn subtree_root(&self) -> [u8; 32] {
        subtree_root(&self.leaves)
    }
}

/// The root above `leaves` as a tree of its own, padded to a power of two as BEP 52 does. Of a whole
/// chunk, which has 256 of them, it is a subtree of height 8 of the file's tree, and so it is for any
/// power of two: what [`TreeHasher::append_subtree`] takes. Of no leaves it is that of no content.
#[must_use]
pub fn subtree_root(leaves: &[[u8; 32]]) -> [u8; 32] {
    let mut hasher = TreeHasher::new();
    append_leaves(&mut hasher, leaves);
    hasher.finish().root
}

/// The content id of a file of `length` bytes with these `leaves`, all of them and in order; `None`
/// when there are more or fewer than it has.
#[must_use]
pub fn root_of_leaves<'a>(leaves: impl IntoIterator<Item = &'a [u8; 32]>, length: u64) -> Option<ContentId> {
    let expected = length.div_ceil(LEAF_BYTES as u64);
    let mut hasher = TreeHasher::new();
    let mut leaves = leaves.into_iter();
    let mut count = 0;
    let mut chunk: Vec<[u8; 32]> = Vec::with_capacity(LEAVES_PER_CHUNK);
    while count <= expected {
        chunk.clear();
        chunk.extend(leaves.by_ref().take(LEAVES_PER_CHUNK));
        count += chunk.len() as u64;
        append_leaves(&mut hasher, &chunk);
        if chunk.len() < LEAVES_PER_CHUNK {
            break;
        }
    }
    let root = hasher.finish().root;
    (count == expected).then_some(ContentId { length, root })
}

const LEAVES_PER_CHUNK: usize = CHUNK_BYTES / LEAF_BYTES;

/// Appends up to a chunk's leaves where a chunk starts; a whole chunk's level by level, which is faster.
pub(super) fn append_leaves(hasher: &mut TreeHasher, leaves: &[[u8; 32]]) {
    if leaves.len() != LEAVES_PER_CHUNK {
        leaves.iter().for_each(|leaf| hasher.append_subtree(0, *leaf));
        return;
    }
    let mut level = hash_nodes(leaves);
    while level.len() > 1 {
        level = hash_nodes(&level);
    }
    hasher.append_subtree(LEAVES_PER_CHUNK.ilog2(), level[0]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delta::{content_id, digest};
    use xxhash_rust::xxh3::xxh3_128_with_seed;

    fn random(length: usize) -> Vec<u8> {
        let mut state = 3u64;
        let step = |_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        };
        (0..length).map(step).collect()
    }

    // Protects the content tree: leaves hashed many at once are those of the definition, for every count.
    #[test]
    fn leaves_and_roots_are_those_of_the_tree() {
        let bytes = random(40 * LEAF_BYTES + 5);
        for leaves in 0..=40 {
            for more in [0, 1, 5] {
                let bytes = &bytes[..leaves * LEAF_BYTES + more];
                let hashes = leaves_of(bytes);
                let expected: Vec<_> = bytes.chunks(LEAF_BYTES).map(digest).collect();
                assert_eq!(hashes, expected, "{leaves} {more}");
                let length = bytes.len() as u64;
                assert_eq!(root_of_leaves(&hashes, length), Some(content_id(bytes)));
                assert_eq!(root_of_leaves(&hashes, length + LEAF_BYTES as u64), None);
                assert_eq!(subtree_root(&hashes), content_id(bytes).root);
                if let Some((_, fewer)) = hashes.split_last() {
                    assert_eq!(root_of_leaves(fewer, length), None);
                }
            }
        }
    }

    // Protects the pass by leaves: each part is what it would be by itself.
    #[test]
    fn a_chunk_holds_what_its_parts_are() {
        let bytes = random(CHUNK_BYTES + 20_000);
        let (before, chunk) = bytes.split_at(CHUNK_BYTES);
        for length in [0, 1, 1_024, 1_025, LEAF_BYTES, 20_000] {
            let chunk = &chunk[..length];
            let index = ChunkIndex::build(before, chunk, CHUNK_BYTES as u64, 9, 12);
            let mut anchors = Vec::new();
            scan_anchors(before, chunk, CHUNK_BYTES as u64, 12, &mut anchors);
            assert_eq!(index.anchors, anchors);
            assert_eq!(index.leaves, leaves_of(chunk));
            let crcs: Vec<u32> = chunk.chunks(1_024).map(crc32fast::hash).collect();
            assert_eq!(index.crcs, crcs);
            let strong: Vec<u128> = chunk
                .chunks(LEAF_BYTES)
                .map(|leaf| xxh3_128_with_seed(leaf, 9))
                .collect();
            assert_eq!(index.strong, strong);
            assert_eq!(ChunkIndex::leaves_only(chunk).leaves, index.leaves);
        }
        assert_eq!(
            root_of_leaves(&leaves_of(&bytes), bytes.len() as u64),
            Some(content_id(&bytes))
        );
        assert_eq!(
            root_of_leaves(&leaves_of(before), before.len() as u64),
            Some(content_id(before))
        );
        let first = ChunkIndex::build(&[], before, 0, 9, 12);
        let mut hasher = TreeHasher::new();
        hasher.append_subtree(8, first.subtree_root());
        hasher.update(chunk);
        assert_eq!(hasher.finish(), content_id(&bytes));
    }
}
