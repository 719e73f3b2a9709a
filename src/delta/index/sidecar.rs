//! The sidecar file of an index: where everything is in it, writing it, and looking into it.
//!
//! The byte table is in `docs/FORMAT.md`. Never reads or writes a file. Invariants: no accessor of a
//! parsed [`IndexView`] can panic for a leaf, block or anchor below its count; what [`IndexView::verify`]
//! has passed is under the root.

use super::anchors::{ANCHOR_BITS_MAX, ANCHOR_BITS_MIN, Anchor, anchor_bits};
use super::chunk::ChunkIndex;
use super::proving::{Proven, Proving};
use super::sums::Sums;
use super::{BLOCK_BYTES, CHUNK_BYTES};
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
/// Bytes of the header, before the stamp.
const HEADER_BYTES: usize = 128;
/// Where a store keeps a stamp of its own, which is under no checksum of the header.
pub const STAMP_OFFSET: u64 = HEADER_BYTES as u64;
/// Bytes of the stamp.
pub const STAMP_BYTES: usize = 64;
/// Bytes before the sections: header and stamp.
pub const HEAD_BYTES: usize = HEADER_BYTES + STAMP_BYTES;
/// Bytes of an anchor.
pub const ANCHOR_BYTES: usize = 12;

const LEAVES_OFFSET: u64 = HEAD_BYTES as u64;

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

    /// Blocks of 1 KiB of the file.
    #[must_use]
    pub fn block_count(&self) -> u64 {
        self.length.div_ceil(BLOCK_BYTES as u64)
    }

    /// Chunks of the file.
    #[must_use]
    pub fn chunk_count(&self) -> u64 {
        self.length.div_ceil(CHUNK_BYTES as u64)
    }

    /// Bytes of the file in chunk `number`, which is one of its chunks.
    #[must_use]
    pub fn chunk_bytes(&self, number: u64) -> usize {
        let left = self.length.saturating_sub(number.saturating_mul(CHUNK_BYTES as u64));
        left.min(CHUNK_BYTES as u64) as usize
    }

    // No sum here overflows: the sections of a file of 2^64 bytes have less than 2^58.
    fn strong_offset(&self) -> u64 {
        LEAVES_OFFSET + 32 * self.leaf_count()
    }

    fn crcs_offset(&self) -> u64 {
        self.strong_offset() + 16 * self.leaf_count()
    }

    /// Where the anchors start; with only leaves: where the file ends.
    #[must_use]
    pub fn anchors_offset(&self) -> u64 {
        match self.parts {
            Parts::Leaves => self.strong_offset(),
            Parts::Full => self.crcs_offset() + 4 * self.block_count(),
        }
    }

    /// Bytes of the whole sidecar with so many anchors.
    #[must_use]
    pub fn total_bytes(&self, anchors: u64) -> u64 {
        self.anchors_offset()
            .saturating_add(anchors.saturating_mul(ANCHOR_BYTES as u64))
    }

    /// Where the parts of chunk `number` go. Anchors follow on the `anchors_before` of all earlier chunks,
    /// and come last.
    #[must_use]
    pub fn place(&self, number: u64, chunk: &ChunkIndex, anchors_before: u64) -> Vec<Placed> {
        let leaf = number * (CHUNK_BYTES / LEAF_BYTES) as u64;
        let block = number * (CHUNK_BYTES / BLOCK_BYTES) as u64;
        let mut placed = vec![Placed {
            offset: LEAVES_OFFSET + 32 * leaf,
            bytes: chunk.leaves.concat(),
        }];
        if self.parts == Parts::Full {
            let strong = chunk.strong.iter().flat_map(|hash| hash.to_le_bytes());
            let crcs = chunk.crcs.iter().flat_map(|crc| crc.to_le_bytes());
            let mut anchors = Vec::with_capacity(ANCHOR_BYTES * chunk.anchors.len());
            for anchor in &chunk.anchors {
                anchors.extend_from_slice(&anchor.fingerprint.to_le_bytes());
                anchors.extend_from_slice(&anchor.position.to_le_bytes());
            }
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
                    offset: self.total_bytes(anchors_before),
                    bytes: anchors,
                },
            ]);
        }
        placed
    }

    /// The first [`HEAD_BYTES`], written last: only with them there is a sidecar. The stamp is empty.
    #[must_use]
    pub fn header(&self, root: &[u8; 32], anchors: u64, sums: [u32; 4]) -> Vec<u8> {
        let mut header = MAGIC.to_vec();
        header.extend_from_slice(&u32::from(self.parts == Parts::Full).to_le_bytes());
        header.extend_from_slice(&self.bits.to_le_bytes());
        header.extend_from_slice(&self.length.to_le_bytes());
        header.extend_from_slice(root);
        header.extend_from_slice(&self.seed.to_le_bytes());
        header.extend_from_slice(&anchors.to_le_bytes());
        sums.iter().for_each(|sum| header.extend_from_slice(&sum.to_le_bytes()));
        header.resize(HEADER_BYTES - 4, 0);
        let crc = crc32fast::hash(&header);
        header.extend_from_slice(&crc.to_le_bytes());
        header.resize(HEAD_BYTES, 0);
        header
    }
}

/// What the header of a sidecar says: enough to look into the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexHeader {
    sidecar: Sidecar,
    root: [u8; 32],
    anchors: u64,
    sums: [u32; 4],
}

impl IndexHeader {
    /// Reads the first [`HEAD_BYTES`] of a sidecar; more may follow.
    ///
    /// # Errors
    /// [`IndexError`] when this is no header, or one of another version.
    pub fn parse(bytes: &[u8]) -> Result<IndexHeader, IndexError> {
        let header = bytes.get(..HEAD_BYTES).ok_or(IndexError::Length)?;
        let (magic, rest) = header.split_at(MAGIC.len());
        if magic != MAGIC {
            return Err(IndexError::Format);
        }
        let short = |at: usize| u32::from_le_bytes(rest[at - 8..at - 4].try_into().expect("four bytes"));
        let long = |at: usize| u64::from_le_bytes(rest[at - 8..at].try_into().expect("eight bytes"));
        if crc32fast::hash(&header[..HEADER_BYTES - 4]) != short(HEADER_BYTES - 4) {
            return Err(IndexError::Damaged);
        }
        let parts = match short(8) {
            0 => Parts::Leaves,
            1 => Parts::Full,
            _ => return Err(IndexError::Format),
        };
        let sidecar = Sidecar {
            length: long(16),
            parts,
            seed: long(56),
            bits: short(12),
        };
        let anchors = long(64);
        let legal = (ANCHOR_BITS_MIN..=ANCHOR_BITS_MAX).contains(&sidecar.bits)
            && anchors <= sidecar.length
            && (parts == Parts::Full || anchors == 0)
            && header[88..HEADER_BYTES - 4].iter().all(|byte| *byte == 0);
        if !legal {
            return Err(IndexError::Format);
        }
        Ok(IndexHeader {
            sidecar,
            root: header[24..56].try_into().expect("32 bytes"),
            anchors,
            sums: [72, 76, 80, 84].map(short),
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

    /// The checksums of the sections.
    pub(super) fn sums(&self) -> [u32; 4] {
        self.sums
    }

    /// Bytes of the whole sidecar.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        self.sidecar.total_bytes(self.anchors)
    }

    /// The sections in `bytes`, the whole sidecar that this is the header of. Costs nothing.
    ///
    /// # Errors
    /// [`IndexError::Length`] when it is shorter or longer.
    pub fn view<'a>(&self, bytes: &'a [u8]) -> Result<IndexView<'a>, IndexError> {
        if self.total_bytes() != bytes.len() as u64 {
            return Err(IndexError::Length);
        }
        // The total is the length of a slice, so every offset below it is, too.
        let sidecar = &self.sidecar;
        let (leaves, rest) = bytes[HEAD_BYTES..].split_at(32 * sidecar.leaf_count() as usize);
        let (strong, crcs) = match sidecar.parts {
            Parts::Leaves => (0, 0),
            Parts::Full => (16 * sidecar.leaf_count() as usize, 4 * sidecar.block_count() as usize),
        };
        let (strong, rest) = rest.split_at(strong);
        let (crcs, anchors) = rest.split_at(crcs);
        Ok(IndexView {
            header: *self,
            leaves,
            strong,
            crcs,
            anchors,
        })
    }
}

/// A sidecar in memory or mapped.
#[derive(Debug, Clone, Copy)]
pub struct IndexView<'a> {
    header: IndexHeader,
    leaves: &'a [u8],
    strong: &'a [u8],
    crcs: &'a [u8],
    anchors: &'a [u8],
}

impl<'a> IndexView<'a> {
    /// Looks into `bytes`. The sections' contents are as trustworthy as the bytes are: see
    /// [`verify`](Self::verify).
    ///
    /// # Errors
    /// [`IndexError`] when this is not a whole sidecar, or anchors are out of order or outside the file.
    pub fn parse(bytes: &'a [u8]) -> Result<IndexView<'a>, IndexError> {
        let view = IndexHeader::parse(bytes)?.view(bytes)?;
        let mut before = 0;
        for anchor in view.anchors() {
            if anchor.position <= before || anchor.position > view.header.sidecar.length {
                return Err(IndexError::Damaged);
            }
            before = anchor.position;
        }
        Ok(view)
    }

    /// Compares the checksums of the sections, and the root with the leaves.
    ///
    /// # Errors
    /// [`IndexError::Damaged`] when one does not fit.
    pub fn verify(&self) -> Result<(), IndexError> {
        let mut proving = Proving::default();
        while proving.step(self)? == Proven::More {}
        Ok(())
    }

    /// Leaves, strong hashes, checksums, anchors.
    pub(super) fn sections(&self) -> [&'a [u8]; 4] {
        [self.leaves, self.strong, self.crcs, self.anchors]
    }

    /// What it is the index of.
    #[must_use]
    pub fn id(&self) -> ContentId {
        self.header.id()
    }

    /// Length, sections, seed and density.
    #[must_use]
    pub fn sidecar(&self) -> &Sidecar {
        &self.header.sidecar
    }

    /// The header, with which the same bytes can be looked into again at no cost.
    #[must_use]
    pub fn header(&self) -> &IndexHeader {
        &self.header
    }

    /// What a full index holds of chunk `number`, for the index of a file that has the same chunk in the
    /// same place. The hashes depend on the chunk alone; an anchor in its first 63 bytes depends on what is
    /// before the chunk, too.
    #[must_use]
    pub fn chunk(&self, number: u64) -> ChunkIndex {
        let start = number * CHUNK_BYTES as u64;
        let end = start + self.sidecar().chunk_bytes(number) as u64;
        let leaves = start / LEAF_BYTES as u64..end.div_ceil(LEAF_BYTES as u64);
        let full = self.sidecar().parts == Parts::Full;
        let blocks = start / BLOCK_BYTES as u64..end.div_ceil(BLOCK_BYTES as u64);
        let first_after = |position: u64| {
            let (mut low, mut high) = (0, self.anchor_count());
            while low < high {
                let middle = low.midpoint(high);
                match self.anchor(middle).position <= position {
                    true => low = middle + 1,
                    false => high = middle,
                }
            }
            low
        };
        let (first, last) = (first_after(start), first_after(end));
        ChunkIndex {
            leaves: leaves.clone().map(|at| *self.leaf(at)).collect(),
            strong: leaves.filter(|_| full).map(|at| self.strong(at)).collect(),
            crcs: blocks.filter(|_| full).map(|at| self.crc(at)).collect(),
            anchors: (first..last.max(first)).map(|at| self.anchor(at)).collect(),
        }
    }

    /// SHA-256 of leaf `at`.
    #[must_use]
    pub fn leaf(&self, at: u64) -> &'a [u8; 32] {
        self.leaves[at as usize * 32..][..32].try_into().expect("32 bytes")
    }

    /// SHA-256 of every leaf.
    pub fn leaves(&self) -> impl ExactSizeIterator<Item = &'a [u8; 32]> + use<'a> {
        let leaves = self.leaves.chunks_exact(32);
        leaves.map(|leaf| leaf.try_into().expect("32 bytes"))
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
        self.anchors.len() / ANCHOR_BYTES
    }

    /// Anchor `at`, in order of the positions.
    #[must_use]
    pub fn anchor(&self, at: usize) -> Anchor {
        anchor_of(&self.anchors[at * ANCHOR_BYTES..][..ANCHOR_BYTES])
    }

    /// All anchors, in order of the positions.
    pub fn anchors(&self) -> impl ExactSizeIterator<Item = Anchor> + use<'a> {
        self.anchors.chunks_exact(ANCHOR_BYTES).map(anchor_of)
    }
}

pub(super) fn anchor_of(bytes: &[u8]) -> Anchor {
    Anchor {
        fingerprint: u32::from_le_bytes(bytes[..4].try_into().expect("4 bytes")),
        position: u64::from_le_bytes(bytes[4..].try_into().expect("8 bytes")),
    }
}

/// A whole full sidecar in memory, of content in memory.
#[must_use]
pub fn build(bytes: &[u8], seed: u64) -> Vec<u8> {
    let sidecar = Sidecar::new(bytes.len() as u64, Parts::Full, seed);
    let mut out = vec![0; sidecar.anchors_offset() as usize];
    let mut sums = Sums::new(sidecar);
    for (number, chunk) in bytes.chunks(CHUNK_BYTES).enumerate() {
        let offset = number * CHUNK_BYTES;
        let index = ChunkIndex::build(&bytes[..offset], chunk, offset as u64, seed, sidecar.bits);
        let placed = sidecar.place(number as u64, &index, sums.anchor_count());
        sums.add(number as u64, &index, &placed)
            .expect("chunks of these bytes come once and in order");
        for Placed { offset, bytes } in placed {
            let end = offset as usize + bytes.len();
            out.resize(out.len().max(end), 0);
            out[offset as usize..end].copy_from_slice(&bytes);
        }
    }
    let (_, header) = sums.finish().expect("every chunk was added");
    out[..HEAD_BYTES].copy_from_slice(&header);
    out
}

#[cfg(test)]
#[path = "sidecar_tests.rs"]
mod tests;
