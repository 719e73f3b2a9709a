//! Content anchors: places that are found again wherever the content has moved to.
//!
//! Never keeps or joins content. Invariant: whether there is an anchor depends on the [`WINDOW_BYTES`]
//! before it alone, and every kernel finds the same ones.
//!
//! 1. The window is eight little-endian words of 16 bits. Its hash, modulo 2^16, is made by doubling:
//!    two words by [`WORD_FACTORS`], two pairs by [`PAIR_FACTOR`], two fours by [`FOUR_FACTOR`]. So a
//!    vector of positions takes four multiplications, without a table and without a chain from one
//!    position to the next.
//! 2. There is an anchor where the upper 12 bits of the hash are all ones. Where fewer are wanted, as many
//!    upper bits of another hash of the window must be zero, too: so those are a subset.
//! 3. Its fingerprint covers the [`CONTEXT_BYTES`] before it.
//!
//! Awkward cases: a run of one byte value has no anchor, whatever the value (the factors are chosen
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

/// For the first and the second word of a pair. All factors are odd, and such that no run of one byte
/// value is an anchor.
pub(super) const WORD_FACTORS: [u16; 2] = [0x9E37, 0x85EB];
/// For the first of two pairs; the second has one.
pub(super) const PAIR_FACTOR: u16 = 0xCA6B;
/// For the first of two fours; the second has one.
pub(super) const FOUR_FACTOR: u16 = 0x27D5;
/// The least hash of an anchor: the upper 12 bits are ones.
pub(super) const HASH_MIN: u16 = 0xFFF0;

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
        let find = self.find;
        let mut first = first;
        while first <= bytes.len() {
            // The kernel goes on until a leaf is full; then the next leaf is where it starts again.
            let mut next = bytes.len() + 1;
            find(&bytes[first - WINDOW_BYTES..], &mut |at| {
                let end = first + at;
                let before_it = offset.wrapping_add(end as u64 - 1);
                let has_room = self.keep(&bytes[..end], before_it);
                if !has_room {
                    next = end + LEAF_BYTES - (before_it % LEAF_BYTES as u64) as usize;
                }
                has_room
            });
            first = next;
        }
    }

    /// Takes the anchor at the end of `bytes`, with `before_it` bytes of the file but one before it.
    /// Returns whether its leaf may have more.
    fn keep(&mut self, bytes: &[u8], before_it: u64) -> bool {
        let leaf = before_it / LEAF_BYTES as u64;
        if leaf != self.leaf {
            (self.leaf, self.kept) = (leaf, 0);
        }
        if self.kept < self.per_leaf_max && is_sparse_anchor(&bytes[bytes.len() - WINDOW_BYTES..], self.bits) {
            self.found.push(Anchor {
                position: before_it.wrapping_add(1),
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

/// Finds the windows in `bytes` that make an anchor, with the best kernel there is.
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
    const TURN: usize = 256;
    const SPAN: usize = TURN + WINDOW_BYTES - 2;
    let count = (bytes.len() + 1).saturating_sub(WINDOW_BYTES);
    for start in (from..count).step_by(TURN) {
        let windows = TURN.min(count - start);
        let span = windows + WINDOW_BYTES - 2;
        let mut words = [0u16; SPAN];
        let (low, high) = (&bytes[start..][..span], &bytes[start + 1..][..span]);
        for ((word, low), high) in words.iter_mut().zip(low).zip(high) {
            *word = u16::from_le_bytes([*low, *high]);
        }
        // From the front, in place: what a sum takes from further on is not a sum of this kind yet.
        for at in 0..SPAN - 2 {
            let second = words[at + 2].wrapping_mul(WORD_FACTORS[1]);
            words[at] = words[at].wrapping_mul(WORD_FACTORS[0]).wrapping_add(second);
        }
        for at in 0..SPAN - 6 {
            words[at] = words[at].wrapping_mul(PAIR_FACTOR).wrapping_add(words[at + 4]);
        }
        for at in 0..TURN {
            words[at] = words[at].wrapping_mul(FOUR_FACTOR).wrapping_add(words[at + 8]);
        }
        let hashes = &words[..windows];
        if hashes.iter().fold(0, |most, hash| *hash.max(&most)) < HASH_MIN {
            continue;
        }
        for (at, _) in hashes.iter().enumerate().filter(|(_, hash)| **hash >= HASH_MIN) {
            if !hit(start + at) {
                return;
            }
        }
    }
}

#[cfg(test)]
#[path = "anchors_tests.rs"]
mod tests;
