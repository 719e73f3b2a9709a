//! Bodies of the questions and answers of a cold compare, and what is legal in them.
//!
//! Never looks at content. Invariant: a parsed question names only subtrees and leaves that a basis of
//! the given length has, in order and each once.

use std::ops::Range;

use crate::model::limits::{LEAF_BYTES, TELL_BYTES_MAX};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Bytes of a shortened hash of a subtree.
pub(super) const NODE_BYTES: usize = 6;
/// Bytes of a shortened hash below the subtrees.
pub(super) const SHORT_BYTES: usize = 5;
/// Bytes of an anchor: position and fingerprint.
pub(super) const ANCHOR_BYTES: usize = 10;
/// Anchors in an answer.
pub(super) const SPOTS: u64 = 128;
/// Subtrees in an answer: those of a file of 2^24 leaves, 256 GiB.
const NODES_MAX: u64 = 1 << 13;
/// Of each leaf in an answer about blocks: SHA-256 and xxh3-128, before its CRCs.
pub(super) const LEAF_HEAD_BYTES: usize = 48;
/// Positions in an answer have 48 bits.
const POSITION_MAX: u64 = (1 << 48) - 1;
/// Zero bits of an anchor that may be asked for.
const BITS: Range<u32> = 12..45;

/// A question or an answer that cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a question or answer about this basis: {0}")]
pub struct CompareError(pub(super) &'static str);

/// Asks for the upper part of the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TreeQuestion {
    /// The key of shortened hashes.
    pub seed: u64,
    /// Zero bits of an anchor.
    pub bits: u32,
    /// A subtree is over 2 to this leaves.
    pub height: u32,
}

/// Asks for units of `2^height` leaves, or for leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RangesQuestion {
    /// The key of shortened hashes, or the seed of xxh3-128.
    pub seed: u64,
    /// A unit is over 2 to this leaves.
    pub height: u32,
    /// Numbers of units, in order.
    pub ranges: Vec<Range<u64>>,
}

/// Leaves of `length` bytes.
pub(super) fn leaf_count(length: u64) -> u64 {
    length.div_ceil(LEAF_BYTES as u64)
}

/// Units of 2 to the `height` leaves in `length` bytes.
pub(super) fn unit_count(length: u64, height: u32) -> u64 {
    leaf_count(length).div_ceil(1 << height)
}

/// The first bytes of a hash that is keyed with `seed`.
pub(super) fn shortened(hash: &[u8; 32], seed: u64) -> [u8; 8] {
    xxh3_64_with_seed(hash, seed).to_le_bytes()
}

impl TreeQuestion {
    /// About a basis of `length` bytes: about twice as many subtrees as the root of its leaves, so that
    /// the leaves of a few subtrees are as many again.
    #[must_use]
    pub fn new(length: u64, seed: u64, bits: u32) -> TreeQuestion {
        let log = leaf_count(length).next_power_of_two().ilog2();
        let height = log.saturating_sub(2) / 2;
        TreeQuestion { seed, bits, height }
    }

    /// The body.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut body = self.seed.to_le_bytes().to_vec();
        body.extend([self.bits as u8, self.height as u8]);
        body
    }

    /// Reads a body about a basis of `length` bytes.
    ///
    /// # Errors
    /// When it asks for more than is answered.
    pub fn parse(body: &[u8], length: u64) -> Result<TreeQuestion, CompareError> {
        let Some((seed, &[bits, height])) = body.split_first_chunk() else {
            return Err(CompareError("length"));
        };
        let (bits, height) = (u32::from(bits), u32::from(height));
        let legal = BITS.contains(&bits) && height < 48 && length <= POSITION_MAX;
        if !legal || unit_count(length, height) > NODES_MAX {
            return Err(CompareError("too much"));
        }
        let seed = u64::from_le_bytes(*seed);
        Ok(TreeQuestion { seed, bits, height })
    }
}

impl RangesQuestion {
    /// Numbers in all ranges.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.ranges.iter().map(|range| range.end - range.start).sum()
    }

    /// The body. Where there are more ranges than fit, neighbours become one, the nearest first.
    pub fn encode(&mut self) -> Vec<u8> {
        let mut gap = 1;
        loop {
            let body = self.encode_all();
            if body.len() <= TELL_BYTES_MAX {
                return body;
            }
            let mut joined: Vec<Range<u64>> = Vec::new();
            for range in self.ranges.drain(..) {
                match joined.last_mut() {
                    Some(last) if range.start - last.end <= gap => last.end = range.end,
                    _ => joined.push(range),
                }
            }
            self.ranges = joined;
            gap *= 2;
        }
    }

    fn encode_all(&self) -> Vec<u8> {
        let mut body = self.seed.to_le_bytes().to_vec();
        body.push(self.height as u8);
        let mut at = 0;
        for range in &self.ranges {
            put_varint(&mut body, range.start - at);
            put_varint(&mut body, range.end - range.start);
            at = range.end;
        }
        body
    }

    /// Reads a body about a basis of `length` bytes.
    ///
    /// # Errors
    /// When it is not whole, or a range is empty or reaches behind the end.
    pub fn parse(body: &[u8], length: u64) -> Result<RangesQuestion, CompareError> {
        let Some((seed, [height, rest @ ..])) = body.split_first_chunk() else {
            return Err(CompareError("length"));
        };
        let height = u32::from(*height);
        if height >= 48 {
            return Err(CompareError("height"));
        }
        let count = unit_count(length, height);
        let (mut rest, mut ranges, mut at) = (rest, Vec::new(), 0u64);
        while !rest.is_empty() {
            let gap = take_varint(&mut rest).ok_or(CompareError("number"))?;
            let taken = take_varint(&mut rest).ok_or(CompareError("number"))?;
            let start = at.checked_add(gap).ok_or(CompareError("range"))?;
            let end = start.checked_add(taken).filter(|end| *end <= count && taken > 0);
            at = end.ok_or(CompareError("range"))?;
            ranges.push(start..at);
        }
        let seed = u64::from_le_bytes(*seed);
        Ok(RangesQuestion { seed, height, ranges })
    }
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn take_varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..63).step_by(7) {
        let (&byte, after) = rest.split_first()?;
        *rest = after;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTH: u64 = 100 << 20;

    // Protects the wire: what is asked is understood, and nothing else is.
    #[test]
    fn questions_are_read_as_they_were_written() {
        let tree = TreeQuestion::new(LENGTH, 7, 12);
        let body = tree.encode();
        assert_eq!(TreeQuestion::parse(&body, LENGTH), Ok(tree));
        assert!(TreeQuestion::parse(&body[1..], LENGTH).is_err());
        assert!(TreeQuestion::parse(&body, LENGTH << 20).is_err(), "too many subtrees");
        let (seed, height) = (9, 1);
        let ranges = vec![0..1, 5..300, 3199..3200];
        let mut question = RangesQuestion { seed, height, ranges };
        let body = question.encode();
        assert_eq!(RangesQuestion::parse(&body, LENGTH), Ok(question));
        assert!(
            RangesQuestion::parse(&body, LENGTH - (32 << 10)).is_err(),
            "behind the end"
        );
        assert!(RangesQuestion::parse(&body[..body.len() - 1], LENGTH).is_err());
    }

    // Protects the limit of a message: more ranges than fit cost a longer answer.
    #[test]
    fn too_many_ranges_become_fewer() {
        let ranges: Vec<_> = (0..50_000u64).map(|at| 4 * at..4 * at + 1).collect();
        let mut question = RangesQuestion {
            seed: 0,
            height: 0,
            ranges,
        };
        let body = question.encode();
        assert!(body.len() <= TELL_BYTES_MAX);
        let parsed = RangesQuestion::parse(&body, 200_000 << 14).unwrap();
        assert_eq!(parsed, question);
        assert!(question.count() >= 50_000);
    }
}
