//! The index of one chunk of a file, made in one pass while its bytes are in the cache.

use super::anchors::{Anchor, scan_anchors};
use super::{BLOCK_BYTES, CHUNK_BYTES};
use crate::delta::content_id;
use crate::model::limits::LEAF_BYTES;
use xxhash_rust::xxh3::xxh3_128_with_seed;

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
        let mut anchors = Vec::new();
        scan_anchors(before, bytes, offset, bits, &mut anchors);
        ChunkIndex {
            leaves: leaves_of(bytes),
            strong: bytes
                .chunks(LEAF_BYTES)
                .map(|leaf| xxh3_128_with_seed(leaf, seed))
                .collect(),
            crcs: bytes.chunks(BLOCK_BYTES).map(crc32fast::hash).collect(),
            anchors,
        }
    }
}

/// SHA-256 of every leaf of `bytes`; of no bytes: of the one empty leaf there are none.
#[must_use]
pub fn leaves_of(bytes: &[u8]) -> Vec<[u8; 32]> {
    bytes.chunks(LEAF_BYTES).map(|leaf| content_id(leaf).root).collect()
}
