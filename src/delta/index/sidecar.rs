//! The sidecar file of an index: where everything is in it, writing it, and looking into it.
//!
//! Invariant: no accessor of a parsed [`IndexView`] can panic for a leaf, block or anchor below its count.

use super::anchors::{Anchor, anchor_bits};
use super::chunk::ChunkIndex;
use super::{BLOCK_BYTES, CHUNK_BYTES};
use crate::delta::content_id;
use crate::model::ContentId;
use crate::model::limits::LEAF_BYTES;

/// Which sections a sidecar has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parts {
    /// Only the leaves: what a receiver needs to keep hashes of what stays in place.
    Leaves,
    /// All of them.
    Full,
}

/// The places of everything in the sidecar of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sidecar {
    /// Bytes of the indexed file.
    pub length: u64,
    /// What is in it.
    pub parts: Parts,
    /// The seed of the xxh3 hashes.
    pub seed: u64,
    /// Zero bits of an anchor.
    pub bits: u32,
}

/// Bytes for one place of a sidecar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// Where they go.
    pub offset: u64,
    /// What goes there.
    pub bytes: Vec<u8>,
}

/// A sidecar that cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IndexError {
    /// It does not start like one, or has another version.
    #[error("not a delta index of this version")]
    Format,
    /// It is shorter or longer than it says.
    #[error("a delta index of the wrong length")]
    Length,
    /// A checksum or the root does not fit.
    #[error("a damaged delta index")]
    Damaged,
}

const MAGIC: &[u8; 8] = b"SYNCIDX\x01";
const HEADER_BYTES: u64 = 128;
const ANCHOR_BYTES: u64 = 12;

impl Sidecar {
    /// For a file of `length` bytes.
    #[must_use]
    pub fn new(length: u64, parts: Parts, seed: u64) -> Sidecar {
        let bits = anchor_bits(length);
        Sidecar {
            length,
            parts,
            seed,
            bits,
        }
    }

    /// Leaves of the file.
    #[must_use]
    pub fn leaf_count(&self) -> u64 {
        self.length.div_ceil(LEAF_BYTES as u64)
    }

    fn block_count(&self) -> u64 {
        self.length.div_ceil(BLOCK_BYTES as u64)
    }

    fn strong_offset(&self) -> u64 {
        HEADER_BYTES + 32 * self.leaf_count()
    }

    fn crcs_offset(&self) -> u64 {
        self.strong_offset() + 16 * self.leaf_count()
    }

    fn anchors_offset(&self) -> u64 {
        match self.parts {
            Parts::Leaves => self.strong_offset(),
            Parts::Full => self.crcs_offset() + 4 * self.block_count(),
        }
    }

    /// Where the parts of chunk `number` go. Anchors follow on the `anchors_before` of all earlier chunks.
    #[must_use]
    pub fn place(&self, number: u64, chunk: &ChunkIndex, anchors_before: u64) -> Vec<Placed> {
        let leaf = number * (CHUNK_BYTES / LEAF_BYTES) as u64;
        let block = number * (CHUNK_BYTES / BLOCK_BYTES) as u64;
        let mut placed = vec![Placed {
            offset: HEADER_BYTES + 32 * leaf,
            bytes: chunk.leaves.concat(),
        }];
        if self.parts == Parts::Full {
            let strong = chunk.strong.iter().flat_map(|hash| hash.to_le_bytes());
            let crcs = chunk.crcs.iter().flat_map(|crc| crc.to_le_bytes());
            let anchors = chunk.anchors.iter().flat_map(|anchor| {
                let [a, b, c, d] = anchor.fingerprint.to_le_bytes();
                let [p, q, r, s, t, u, v, w] = anchor.position.to_le_bytes();
                [a, b, c, d, p, q, r, s, t, u, v, w]
            });
            placed.extend([
                Placed {
                    offset: self.strong_offset() + 16 * leaf,
                    bytes: strong.collect(),
                },
                Placed {
                    offset: self.crcs_offset() + 4 * block,
                    bytes: crcs.collect(),
                },
                Placed {
                    offset: self.anchors_offset() + ANCHOR_BYTES * anchors_before,
                    bytes: anchors.collect(),
                },
            ]);
        }
        placed
    }

    /// The header, written last: only with it there is a sidecar.
    #[must_use]
    pub fn header(&self, root: &[u8; 32], anchors: u64) -> Vec<u8> {
        let mut header = MAGIC.to_vec();
        header.extend_from_slice(&u32::from(self.parts == Parts::Full).to_le_bytes());
        header.extend_from_slice(&self.bits.to_le_bytes());
        header.extend_from_slice(&self.length.to_le_bytes());
        header.extend_from_slice(root);
        header.extend_from_slice(&self.seed.to_le_bytes());
        header.extend_from_slice(&anchors.to_le_bytes());
        header.resize(HEADER_BYTES as usize - 4, 0);
        let crc = crc32fast::hash(&header);
        header.extend_from_slice(&crc.to_le_bytes());
        header
    }
}

/// A sidecar in memory or mapped.
#[derive(Debug, Clone, Copy)]
pub struct IndexView<'a> {
    sidecar: Sidecar,
    root: [u8; 32],
    leaves: &'a [u8],
    strong: &'a [u8],
    crcs: &'a [u8],
    anchors: &'a [u8],
}

impl<'a> IndexView<'a> {
    /// Looks into `bytes`.
    ///
    /// # Errors
    /// [`IndexError`] when this is not a whole sidecar.
    pub fn parse(bytes: &'a [u8]) -> Result<IndexView<'a>, IndexError> {
        let header = bytes.get(..HEADER_BYTES as usize).ok_or(IndexError::Length)?;
        let number = |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().expect("eight bytes"));
        if &header[..8] != MAGIC || number(8) as u32 > 1 {
            return Err(IndexError::Format);
        }
        if crc32fast::hash(&header[..124])
            != number(120).to_le_bytes()[4..]
                .iter()
                .rev()
                .fold(0, |n, b| n << 8 | u32::from(*b))
        {
            return Err(IndexError::Damaged);
        }
        let parts = if number(8) as u32 == 1 {
            Parts::Full
        } else {
            Parts::Leaves
        };
        let sidecar = Sidecar {
            length: number(16),
            parts,
            seed: number(56),
            bits: (number(8) >> 32) as u32,
        };
        let cut = |from: u64, to: u64| bytes.get(from as usize..to as usize).ok_or(IndexError::Length);
        let (strong, crcs, anchors) = match parts {
            Parts::Leaves => (&bytes[..0], &bytes[..0], &bytes[..0]),
            Parts::Full => (
                cut(sidecar.strong_offset(), sidecar.crcs_offset())?,
                cut(sidecar.crcs_offset(), sidecar.anchors_offset())?,
                cut(
                    sidecar.anchors_offset(),
                    sidecar.anchors_offset() + ANCHOR_BYTES * number(64),
                )?,
            ),
        };
        Ok(IndexView {
            sidecar,
            root: header[24..56].try_into().expect("32 bytes"),
            leaves: cut(HEADER_BYTES, sidecar.strong_offset())?,
            strong,
            crcs,
            anchors,
        })
    }

    /// What it is the index of.
    #[must_use]
    pub fn id(&self) -> ContentId {
        ContentId {
            length: self.sidecar.length,
            root: self.root,
        }
    }

    /// Length, sections, seed and density.
    #[must_use]
    pub fn sidecar(&self) -> &Sidecar {
        &self.sidecar
    }

    /// SHA-256 of leaf `at`.
    #[must_use]
    pub fn leaf(&self, at: u64) -> &'a [u8; 32] {
        self.leaves[at as usize * 32..][..32].try_into().expect("32 bytes")
    }

    /// Seeded xxh3-128 of leaf `at`; only in a full one.
    #[must_use]
    pub fn strong(&self, at: u64) -> u128 {
        u128::from_le_bytes(self.strong[at as usize * 16..][..16].try_into().expect("16 bytes"))
    }

    /// CRC-32 of the KiB number `at`; only in a full one.
    #[must_use]
    pub fn crc(&self, at: u64) -> u32 {
        u32::from_le_bytes(self.crcs[at as usize * 4..][..4].try_into().expect("4 bytes"))
    }

    /// Anchors in it.
    #[must_use]
    pub fn anchor_count(&self) -> usize {
        self.anchors.len() / ANCHOR_BYTES as usize
    }

    /// Anchor `at`, in order of the positions.
    #[must_use]
    pub fn anchor(&self, at: usize) -> Anchor {
        let bytes = &self.anchors[at * ANCHOR_BYTES as usize..][..ANCHOR_BYTES as usize];
        Anchor {
            fingerprint: u32::from_le_bytes(bytes[..4].try_into().expect("4 bytes")),
            position: u64::from_le_bytes(bytes[4..].try_into().expect("8 bytes")),
        }
    }
}

/// A whole full sidecar in memory, of content in memory.
#[must_use]
pub fn build(bytes: &[u8], seed: u64) -> Vec<u8> {
    let sidecar = Sidecar::new(bytes.len() as u64, Parts::Full, seed);
    let mut out = vec![0; sidecar.anchors_offset() as usize];
    let mut anchors = 0;
    for (number, chunk) in bytes.chunks(CHUNK_BYTES).enumerate() {
        let offset = number * CHUNK_BYTES;
        let index = ChunkIndex::build(&bytes[..offset], chunk, offset as u64, seed, sidecar.bits);
        for Placed { offset, bytes } in sidecar.place(number as u64, &index, anchors) {
            let end = offset as usize + bytes.len();
            out.resize(out.len().max(end), 0);
            out[offset as usize..end].copy_from_slice(&bytes);
        }
        anchors += index.anchors.len() as u64;
    }
    out[..HEADER_BYTES as usize].copy_from_slice(&sidecar.header(&content_id(bytes).root, anchors));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sidecar_holds_what_the_chunks_do() {
        let mut state = 1u64;
        let bytes: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        })
        .take(CHUNK_BYTES + 100_000)
        .collect();
        let sidecar = build(&bytes, 7);
        let view = IndexView::parse(&sidecar).unwrap();
        assert_eq!(view.id(), content_id(&bytes));
        assert_eq!(view.leaf(256), &content_id(&bytes[CHUNK_BYTES..][..LEAF_BYTES]).root);
        assert_eq!(view.crc(4097), crc32fast::hash(&bytes[4097 * 1024..4098 * 1024]));
        let mean = bytes.len() / view.anchor_count().max(1);
        assert!((2048..8192).contains(&mean), "an anchor in {mean} bytes");
    }
}
