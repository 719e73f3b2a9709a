//! Content anchors: places that are found again wherever the content has moved to.
//!
//! 1. A gear hash over the 16 bytes before each position is taken; where its lower bits are all zero
//!    there is an anchor, so the choice depends on the content alone.
//! 2. Its fingerprint covers the [`CONTEXT_BYTES`] before it.
//!
//! Awkward cases: runs and repeats, where every period has an anchor; at most
//! [`ANCHORS_PER_LEAF_MAX`] are kept of any 16 KiB of the scanned bytes.

use super::BLOCK_BYTES;
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
pub(super) const CONTEXT_BYTES: usize = 64;
/// Bytes that decide whether there is an anchor.
const WINDOW_BYTES: usize = 16;
/// Kept of every 16 KiB: twice the mean.
pub(super) const ANCHORS_PER_LEAF_MAX: usize = 8;
/// Up to this length there is an anchor in about 4 KiB; with every doubling beyond, half as many, so
/// that a table of them stays within a million.
const DENSE_BYTES_MAX: u64 = 4 << 30;

/// Zero bits that make an anchor in a file of `length` bytes: one in `2^bits` positions has one.
#[must_use]
pub fn anchor_bits(length: u64) -> u32 {
    12 + length.div_ceil(DENSE_BYTES_MAX).next_power_of_two().trailing_zeros()
}

/// Finds the anchors in `bytes`, which stand at `offset` of a file; `before` is what comes just before
/// them (only its last [`CONTEXT_BYTES`] count). `offset` is a multiple of the leaf size.
pub fn scan_anchors(before: &[u8], bytes: &[u8], offset: u64, bits: u32, found: &mut Vec<Anchor>) {
    debug_assert!(BLOCK_BYTES >= CONTEXT_BYTES);
    let before = &before[before.len().saturating_sub(CONTEXT_BYTES)..];
    let mut joined = before.to_vec();
    joined.extend_from_slice(bytes);
    let mask = (1u32 << bits) - 1;
    let mut of_leaf = (u64::MAX, 0);
    for end in CONTEXT_BYTES..=joined.len() {
        if end <= before.len() {
            continue;
        }
        let window = &joined[end - WINDOW_BYTES..end];
        let hash = window.iter().fold(0u32, |hash, byte| {
            hash.wrapping_mul(0x9E37_79B1).rotate_left(5) ^ gear(*byte)
        });
        if hash >> 8 & mask != 0 {
            continue;
        }
        let position = offset + (end - before.len()) as u64;
        let leaf = (position - 1) / LEAF_BYTES as u64;
        of_leaf = if of_leaf.0 == leaf {
            (leaf, of_leaf.1 + 1)
        } else {
            (leaf, 1)
        };
        if of_leaf.1 <= ANCHORS_PER_LEAF_MAX {
            let fingerprint = xxh3_64(&joined[end - CONTEXT_BYTES..end]) as u32;
            found.push(Anchor { position, fingerprint });
        }
    }
}

fn gear(byte: u8) -> u32 {
    (u32::from(byte) + 1).wrapping_mul(0x85EB_CA6B)
}
