//! Checksums and root of a sidecar, from chunks that come in any order.
//!
//! Never keeps a section: 56 bytes of each chunk, one 75,000th of the file. Invariant: a header is made
//! only when every chunk has been added, and its root is that of the leaves that were.

use super::chunk::ChunkIndex;
use super::sidecar::{IndexError, Parts, Placed, Sidecar};
use super::{BLOCK_BYTES, CHUNK_BYTES};
use crate::delta::TreeHasher;
use crate::model::ContentId;
use crate::model::limits::LEAF_BYTES;
use crc32fast::Hasher;

/// Gathers what the header of a sidecar needs.
#[derive(Debug, Clone)]
pub struct Sums {
    sidecar: Sidecar,
    /// By number; grows with what comes.
    chunks: Vec<Option<ChunkSums>>,
    added: u64,
    anchors: u64,
}

#[derive(Debug, Clone, Copy)]
struct ChunkSums {
    /// The subtree of the chunk; of the last one the tree of its own.
    root: [u8; 32],
    sums: [u32; 4],
    anchors: u32,
}

/// Leaves of a whole chunk are 2 to this.
const CHUNK_HEIGHT: u32 = (CHUNK_BYTES / LEAF_BYTES).ilog2();

impl Sums {
    /// For a sidecar of which nothing has come yet.
    #[must_use]
    pub fn new(sidecar: Sidecar) -> Sums {
        Sums {
            sidecar,
            chunks: Vec::new(),
            added: 0,
            anchors: 0,
        }
    }

    /// Anchors of all chunks that have come.
    #[must_use]
    pub fn anchor_count(&self) -> u64 {
        self.anchors
    }

    /// Anchors of chunk `number`, if it has come.
    #[must_use]
    pub fn anchors_of(&self, number: u64) -> Option<u64> {
        let chunk = self.chunks.get(usize::try_from(number).ok()?)?.as_ref()?;
        Some(u64::from(chunk.anchors))
    }

    /// Takes chunk `number`, which goes where `placed` says.
    ///
    /// # Errors
    /// [`IndexError::Length`] when there is no such chunk in the file, it has come before, or it has
    /// another number of leaves or blocks than it must.
    pub fn add(&mut self, number: u64, chunk: &ChunkIndex, placed: &[Placed]) -> Result<(), IndexError> {
        let bytes = self.sidecar.chunk_bytes(number);
        let full = self.sidecar.parts == Parts::Full;
        let leaves = bytes.div_ceil(LEAF_BYTES);
        let expected = match full {
            true => (leaves, leaves, bytes.div_ceil(BLOCK_BYTES)),
            false => (leaves, chunk.strong.len(), chunk.crcs.len()),
        };
        let fits = leaves > 0 && expected == (chunk.leaves.len(), chunk.strong.len(), chunk.crcs.len());
        if !fits || self.anchors_of(number).is_some() {
            return Err(IndexError::Length);
        }
        let mut sums = [0; 4];
        for (sum, placed) in sums.iter_mut().zip(placed) {
            *sum = crc32fast::hash(&placed.bytes);
        }
        let anchors = if full { chunk.anchors.len() } else { 0 };
        let at = number as usize;
        self.chunks.resize(self.chunks.len().max(at + 1), None);
        self.chunks[at] = Some(ChunkSums {
            root: chunk.subtree_root(),
            sums,
            anchors: anchors as u32,
        });
        self.added += 1;
        self.anchors += anchors as u64;
        Ok(())
    }

    /// The content id of the indexed file, and the first [`HEAD_BYTES`](super::HEAD_BYTES) of its sidecar.
    ///
    /// # Errors
    /// [`IndexError::Length`] when chunks are missing.
    pub fn finish(&self) -> Result<(ContentId, Vec<u8>), IndexError> {
        if self.added != self.sidecar.chunk_count() {
            return Err(IndexError::Length);
        }
        let mut sums = [Hasher::new(), Hasher::new(), Hasher::new(), Hasher::new()];
        for (number, chunk) in self.chunks.iter().flatten().enumerate() {
            let lengths = self.section_bytes(number as u64, chunk);
            for ((sum, part), length) in sums.iter_mut().zip(chunk.sums).zip(lengths) {
                sum.combine(&Hasher::new_with_initial_len(part, length));
            }
        }
        let id = ContentId {
            length: self.sidecar.length,
            root: self.root(),
        };
        let sums = sums.map(Hasher::finalize);
        Ok((id, self.sidecar.header(&id.root, self.anchors, sums)))
    }

    /// Bytes that the chunk has in each section.
    fn section_bytes(&self, number: u64, chunk: &ChunkSums) -> [u64; 4] {
        let bytes = self.sidecar.chunk_bytes(number);
        let leaves = bytes.div_ceil(LEAF_BYTES) as u64;
        match self.sidecar.parts {
            Parts::Leaves => [32 * leaves, 0, 0, 0],
            Parts::Full => {
                let blocks = bytes.div_ceil(BLOCK_BYTES) as u64;
                [32 * leaves, 16 * leaves, 4 * blocks, 12 * u64::from(chunk.anchors)]
            }
        }
    }

    fn root(&self) -> [u8; 32] {
        let mut hasher = TreeHasher::new();
        let last = self.sidecar.chunk_count().saturating_sub(1);
        let last_leaves = self.sidecar.chunk_bytes(last).div_ceil(LEAF_BYTES);
        for (number, chunk) in self.chunks.iter().flatten().enumerate() {
            match number as u64 == last {
                // A lone chunk is the whole tree.
                true if last == 0 => return chunk.root,
                true => hasher.append_subtree(CHUNK_HEIGHT, padded(chunk.root, last_leaves)),
                false => hasher.append_subtree(CHUNK_HEIGHT, chunk.root),
            }
        }
        hasher.finish().root
    }
}

/// The root of the last chunk's subtree in a file of several: its `leaves`, padded with zero hashes to
/// the whole of a chunk. `root` is that of its own, smaller tree.
fn padded(root: [u8; 32], leaves: usize) -> [u8; 32] {
    let mut root = root;
    let mut padding = [0; 32];
    for level in 0..CHUNK_HEIGHT {
        if level >= leaves.next_power_of_two().ilog2() {
            root = parent(&root, &padding);
        }
        padding = parent(&padding, &padding);
    }
    root
}

fn parent(left: &[u8; 32], right: &[u8; 32]) -> [u8; 32] {
    crate::delta::digest([*left, *right].as_flattened())
}
