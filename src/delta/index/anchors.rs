//! Content anchors: places that are found again wherever the content has moved to.
//!
//! Never keeps or joins content. Invariant: whether there is an anchor depends on the [`WINDOW_BYTES`]
//! before it alone, and every kernel finds the same ones.
//!
//! 1. The window is eight little-endian words of 16 bits. Each is multiplied by a constant of its own;
//!    the sum, with [`HASH_START`], modulo 2^16 is the hash. Sixteen positions are one multiplication
//!    of vectors each, without a table and without a chain from one position to the next.
//! 2. There is an anchor where the upper 12 bits of the hash are zero. Where fewer are wanted, as many
//!    more bits of another hash of the window must be zero, too: so those are a subset.
//! 3. Its fingerprint covers the [`CONTEXT_BYTES`] before it.
//!
//! Awkward cases: a run of one byte value has no anchor, whatever the value (the constants are chosen
//! so); a longer period may have one in each, so at most [`ANCHORS_PER_LEAF_MAX`] are kept, the first
//! ones, of the positions `16384 n + 1 ..= 16384 (n + 1)` of a file. Around the seam of two slices the
//! windows are taken from a copy of less than 128 bytes.

#[cfg(target_arch = "x86_64")]
use super::anchors_x86::Kernel;
use crate::model::limits::LEAF_BYTES;
use xxhash_rust::xxh3::xxh3_64;

/// A place in a file, known by the bytes before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Anchor {
    /// Bytes before it in the file; at least [`CONTEXT_BYTES`].
    pub position: u64,
    /// Hash of the [`CONTEXT_BYTES`] before it.
    pub fingerprint: u32,
}

/// Bytes that a fingerprint covers.
pub const CONTEXT_BYTES: usize = 64;
/// Bytes that decide whether there is an anchor.
pub(super) const WINDOW_BYTES: usize = 16;
/// Kept of every 16 KiB: twice the mean.
pub const ANCHORS_PER_LEAF_MAX: usize = 8;
/// Zero bits of the densest anchors.
pub(super) const ANCHOR_BITS_MIN: u32 = 12;
/// Zero bits of the sparsest ones: those of the longest file.
pub(super) const ANCHOR_BITS_MAX: u32 = 44;
/// Up to this length there is an anchor in about 4 KiB; with every doubling beyond, half as many, so
/// that a table of them stays within a million.
const DENSE_BYTES_MAX: u64 = 4 << 30;

/// One factor for each word of a window: odd, and such that no run of one byte value is an anchor.
pub(super) const FACTORS: [u16; 8] = [0x9E37, 0x79B1, 0x85EB, 0xCA6B, 0xC2B3, 0xAE35, 0x27D5, 0x1657];
/// Where the sum starts; not small, so that zeros are no anchor.
pub(super) const HASH_START: u16 = 0x6A5D;
/// These bits of the hash of an anchor are zero.
pub(super) const HASH_MASK: u16 = 0xFFF0;

/// Called with the start of each window before an anchor, in order; goes on while it returns true.
pub(super) type Hit<'a> = &'a mut dyn FnMut(usize) -> bool;

/// Zero bits that make an anchor in a file of `length` bytes: one in `2^bits` positions has one.
#[must_use]
pub fn anchor_bits(length: u64) -> u32 {
    ANCHOR_BITS_MIN + length.div_ceil(DENSE_BYTES_MAX).next_power_of_two().trailing_zeros()
}

/// Finds the anchors in `bytes`, which stand at `offset` of a file; `before` is what comes just before
/// them (only its last [`CONTEXT_BYTES`] count). Positions from `offset + 1` up to the end of `bytes`
/// are looked at, as far as they have a whole context.
///
/// What is found at a place does not depend on the offset, except for the limit per leaf. With an
/// `offset` that is a multiple of the leaf size the result does not depend on the cuts either.
pub fn scan_anchors(before: &[u8], bytes: &[u8], offset: u64, bits: u32, found: &mut Vec<Anchor>) {
    search_anchors(before, bytes, offset, bits, ANCHORS_PER_LEAF_MAX, found);
}

/// As [`scan_anchors`], keeping up to `per_leaf_max` of a leaf: for looking in a new file for anchors of
/// an old one, where leaves are cut elsewhere. `offset` is any.
pub fn search_anchors(
    before: &[u8],
    bytes: &[u8],
    offset: u64,
    bits: u32,
    per_leaf_max: usize,
    found: &mut Vec<Anchor>,
) {
    let mut search = Search {
        find,
        bits,
        per_leaf_max,
        leaf: u64::MAX,
        kept: 0,
        found,
    };
    search.run_over_seam(before, bytes, offset);
}

/// As [`scan_anchors`] on a processor without vectors that we know: only to be measured and compared.
#[doc(hidden)]
pub fn scan_anchors_portable(before: &[u8], bytes: &[u8], offset: u64, bits: u32, found: &mut Vec<Anchor>) {
    let mut search = Search {
        find: |bytes, hit| find_portable(bytes, 0, hit),
        bits,
        per_leaf_max: ANCHORS_PER_LEAF_MAX,
        leaf: u64::MAX,
        kept: 0,
        found,
    };
    search.run_over_seam(before, bytes, offset);
}

struct Search<'a> {
    /// Reports the windows in some bytes whose hash has its upper bits zero.
    find: fn(&[u8], Hit<'_>),
    bits: u32,
    per_leaf_max: usize,
    /// The leaf of the last position, and how many it has.
    leaf: u64,
    kept: usize,
    found: &'a mut Vec<Anchor>,
}

impl Search<'_> {
    fn run_over_seam(&mut self, before: &[u8], bytes: &[u8], offset: u64) {
        let before = &before[before.len().saturating_sub(CONTEXT_BYTES)..];
        let mut seam = [0; 2 * CONTEXT_BYTES];
        // Beyond these, contexts lie in `bytes` as a whole.
        let joined = bytes.len().min(CONTEXT_BYTES - 1);
        seam[..before.len()].copy_from_slice(before);
        seam[before.len()..][..joined].copy_from_slice(&bytes[..joined]);
        let seam_offset = offset.wrapping_sub(before.len() as u64);
        let first = CONTEXT_BYTES.max(before.len() + 1);
        self.run(&seam[..before.len() + joined], first, seam_offset);
        self.run(bytes, CONTEXT_BYTES, offset);
    }

    /// Looks at the positions from `first` (at least [`CONTEXT_BYTES`]) to the end of `bytes`, which
    /// stand at `offset`.
    fn run(&mut self, bytes: &[u8], first: usize, offset: u64) {
        let mut first = first;
        while first <= bytes.len() {
            let before_first = offset.wrapping_add(first as u64 - 1);
            let leaf = before_first / LEAF_BYTES as u64;
            if leaf != self.leaf {
                (self.leaf, self.kept) = (leaf, 0);
            }
            let left = LEAF_BYTES - (before_first % LEAF_BYTES as u64) as usize;
            let last = bytes.len().min(first - 1 + left);
            if self.kept < self.per_leaf_max {
                (self.find)(&bytes[first - WINDOW_BYTES..last], &mut |at| {
                    self.keep(&bytes[..first + at], offset)
                });
            }
            first = last + 1;
        }
    }

    /// Takes the anchor at the end of `bytes`; whether its leaf may have more.
    fn keep(&mut self, bytes: &[u8], offset: u64) -> bool {
        if is_sparse_anchor(&bytes[bytes.len() - WINDOW_BYTES..], self.bits) {
            self.found.push(Anchor {
                position: offset.wrapping_add(bytes.len() as u64),
                fingerprint: xxh3_64(&bytes[bytes.len() - CONTEXT_BYTES..]) as u32,
            });
            self.kept += 1;
        }
        self.kept < self.per_leaf_max
    }
}

/// Whether an anchor of the densest kind is one with `bits`, too.
fn is_sparse_anchor(window: &[u8], bits: u32) -> bool {
    let more = bits.saturating_sub(ANCHOR_BITS_MIN);
    more == 0 || xxh3_64(window) >> (64 - more.min(63)) == 0
}

/// Finds the windows in `bytes` whose hash has its upper bits zero, with the best kernel there is.
fn find(bytes: &[u8], hit: Hit<'_>) {
    #[cfg(target_arch = "x86_64")]
    if let Some(kernel) = Kernel::detect() {
        if let Some(done) = kernel.find(bytes, hit) {
            find_portable(bytes, done, hit);
        }
        return;
    }
    find_portable(bytes, 0, hit);
}

/// The reference and the fallback: windows that start at `from` or later. Written so that compilers
/// make vectors of it.
pub(super) fn find_portable(bytes: &[u8], from: usize, hit: Hit<'_>) {
    const TURN: usize = 128;
    const SPAN: usize = TURN + WINDOW_BYTES - 2;
    let count = (bytes.len() + 1).saturating_sub(WINDOW_BYTES);
    for start in (from..count).step_by(TURN) {
        let windows = TURN.min(count - start);
        let mut words = [0u16; SPAN];
        let low = &bytes[start..][..windows + WINDOW_BYTES - 2];
        let high = &bytes[start + 1..][..windows + WINDOW_BYTES - 2];
        for ((word, low), high) in words.iter_mut().zip(low).zip(high) {
            *word = u16::from_le_bytes([*low, *high]);
        }
        let mut hashes = [HASH_START; TURN];
        for (number, factor) in FACTORS.into_iter().enumerate() {
            for (hash, word) in hashes.iter_mut().zip(&words[2 * number..]) {
                *hash = hash.wrapping_add(word.wrapping_mul(factor));
            }
        }
        let hashes = &hashes[..windows];
        if hashes.iter().fold(false, |any, hash| any | (hash & HASH_MASK == 0)) {
            let hits = hashes.iter().enumerate().filter(|(_, hash)| *hash & HASH_MASK == 0);
            for (at, _) in hits {
                if !hit(start + at) {
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
#[path = "anchors_tests.rs"]
mod tests;
