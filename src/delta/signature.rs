//! The signature of a basis that only the other side has, and what of a new content it covers.
//!
//! Never sees the basis when it matches. The bytes are in `docs/PROTOCOL.md`, "Signature of a basis".
//! Invariant: what is named a copy has 64 equal bits (32 of them seeded, unknown to whoever made the
//! content); whether it is right, the root of the result decides.
//!
//! 1. The basis is cut into blocks of one size; of each there is a rolling hash (a polynomial modulo
//!    2^32, its multiplier from the seed) and 32 bits of a seeded xxh3.
//! 2. Over the new content the hash rolls at every byte. First the block at the last match's shift is
//!    compared, then the table: a filter of bits, then a bucket of at most [`CANDIDATES_MAX`] blocks.
//! 3. A match moves on by a whole block; the last, shorter block is only looked for at the very end.
//!
//! Awkward cases: of equal blocks only the first is in the table, the shift finds the others, so that
//! runs become one copy; a forged signature can fill a bucket at most, and pays with its own table.

use super::plan::Op;
use crate::model::limits::MEDIUM_BYTES_MAX;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Blocks that are compared at one position, besides the one at the last shift.
pub const CANDIDATES_MAX: usize = 16;
/// Smallest block.
pub const BLOCK_BYTES_MIN: usize = 512;
/// Largest block that a signature from outside may have.
pub const BLOCK_BYTES_MAX: usize = 64 * 1024;
const HEADER_BYTES: usize = 20;
/// Of each block.
const HASH_BYTES: usize = 8;

/// The two hashes of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Hashes {
    weak: u32,
    strong: u32,
}

/// The hash functions of one signature.
#[derive(Debug, Clone, Copy)]
struct Hasher {
    seed: u64,
    multiplier: u32,
    /// The multiplier to the power of the block's length: the weight of the byte that leaves.
    leaving: u32,
}

impl Hasher {
    fn new(seed: u64, block: usize) -> Hasher {
        // Odd, and 5 modulo 8: then its powers have the longest period.
        let multiplier = (xxh3_64_with_seed(b"rolling", seed) as u32) & !7 | 5;
        Hasher {
            seed,
            multiplier,
            leaving: multiplier.wrapping_pow(block as u32),
        }
    }

    fn weak(self, bytes: &[u8]) -> u32 {
        // Four parts at a time, since each step waits for the one before.
        let quarter = bytes.len() / 4;
        let (parts, rest) = bytes.split_at(quarter * 4);
        let mut sums = [0u32; 4];
        for at in 0..quarter {
            for (part, sum) in sums.iter_mut().enumerate() {
                *sum = sum
                    .wrapping_mul(self.multiplier)
                    .wrapping_add(u32::from(parts[part * quarter + at]));
            }
        }
        let weight = self.multiplier.wrapping_pow(quarter as u32);
        let sum = sums
            .iter()
            .fold(0, |all: u32, sum| all.wrapping_mul(weight).wrapping_add(*sum));
        rest.iter().fold(sum, |sum, byte| {
            sum.wrapping_mul(self.multiplier).wrapping_add(u32::from(*byte))
        })
    }

    fn strong(self, bytes: &[u8]) -> u32 {
        xxh3_64_with_seed(bytes, self.seed) as u32
    }

    fn roll(self, weak: u32, leaving: u8, entering: u8) -> u32 {
        let change = u32::from(entering).wrapping_sub(u32::from(leaving).wrapping_mul(self.leaving));
        weak.wrapping_mul(self.multiplier).wrapping_add(change)
    }
}

/// Block size for a basis of `length` bytes.
#[must_use]
pub fn block_bytes(length: u64) -> usize {
    let _ = length;
    BLOCK_BYTES_MIN
}

/// Makes the signature of a basis that is read piece by piece.
pub struct SignatureBuilder {
    hasher: Hasher,
    block: usize,
    pending: Vec<u8>,
    encoded: Vec<u8>,
    length: u64,
}

impl SignatureBuilder {
    /// `length`: of the basis; it chooses the block size. `seed`: random, of this session.
    #[must_use]
    pub fn new(length: u64, seed: u64) -> SignatureBuilder {
        SignatureBuilder::with_block(block_bytes(length), seed)
    }

    /// As [`SignatureBuilder::new`] with blocks of `block` bytes.
    #[must_use]
    pub fn with_block(block: usize, seed: u64) -> SignatureBuilder {
        let mut encoded = vec![0; HEADER_BYTES];
        encoded[..8].copy_from_slice(&seed.to_le_bytes());
        encoded[8..12].copy_from_slice(&(block as u32).to_le_bytes());
        SignatureBuilder {
            hasher: Hasher::new(seed, block),
            block,
            pending: Vec::with_capacity(block),
            encoded,
            length: 0,
        }
    }

    /// Takes the next bytes of the basis.
    pub fn push(&mut self, mut bytes: &[u8]) {
        self.length += bytes.len() as u64;
        if !self.pending.is_empty() {
            let (head, rest) = bytes.split_at((self.block - self.pending.len()).min(bytes.len()));
            self.pending.extend_from_slice(head);
            bytes = rest;
            if self.pending.len() < self.block {
                return;
            }
            self.flush();
        }
        let whole = bytes.chunks_exact(self.block);
        self.pending.extend_from_slice(whole.remainder());
        for block in whole {
            append(self.hasher, block, &mut self.encoded);
        }
    }

    /// The signature as it travels.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        if !self.pending.is_empty() {
            self.flush();
        }
        self.encoded[12..20].copy_from_slice(&self.length.to_le_bytes());
        self.encoded
    }

    fn flush(&mut self) {
        append(self.hasher, &self.pending, &mut self.encoded);
        self.pending.clear();
    }
}

fn append(hasher: Hasher, block: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&hasher.weak(block).to_le_bytes());
    out.extend_from_slice(&hasher.strong(block).to_le_bytes());
}

/// A signature that cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// Of a basis over 16 MiB, or with a block size that is none.
    #[error("a signature is beyond its limits")]
    Limit,
    /// Not as many hashes as the basis has blocks.
    #[error("a signature is too short or too long")]
    Length,
}

/// A parsed signature, ready to be searched. Takes up to 20 bytes a block.
pub struct Signature {
    hasher: Hasher,
    block: usize,
    length: u64,
    hashes: Vec<Hashes>,
    /// Blocks, by bucket; `starts[bucket]` is where a bucket begins.
    table: Vec<u32>,
    starts: Vec<u32>,
    filter: Vec<u64>,
    bucket_bits: u32,
}

impl Signature {
    /// Reads what a [`SignatureBuilder`] made, from anywhere.
    ///
    /// # Errors
    /// [`SignatureError`].
    pub fn parse(encoded: &[u8]) -> Result<Signature, SignatureError> {
        let (header, hashes) = encoded.split_at_checked(HEADER_BYTES).ok_or(SignatureError::Length)?;
        let number = |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().expect("eight bytes"));
        let (seed, block, length) = (number(0), number(8) as u32 as usize, number(12));
        if !(BLOCK_BYTES_MIN..=BLOCK_BYTES_MAX).contains(&block) || length > MEDIUM_BYTES_MAX {
            return Err(SignatureError::Limit);
        }
        if hashes.len() != length.div_ceil(block as u64) as usize * HASH_BYTES {
            return Err(SignatureError::Length);
        }
        let word = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().expect("four bytes"));
        let hashes = hashes.chunks_exact(HASH_BYTES).map(|pair| Hashes {
            weak: word(&pair[..4]),
            strong: word(&pair[4..]),
        });
        let mut signature = Signature {
            hasher: Hasher::new(seed, block),
            block,
            length,
            hashes: hashes.collect(),
            table: Vec::new(),
            starts: Vec::new(),
            filter: Vec::new(),
            bucket_bits: 0,
        };
        signature.fill_table();
        Ok(signature)
    }

    /// Bytes of the basis.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length
    }

    fn fill_table(&mut self) {
        let count = (self.length / self.block as u64) as usize;
        self.bucket_bits = (2 * count.max(8)).next_power_of_two().trailing_zeros();
        self.filter = vec![0; 1 << (self.bucket_bits + FILTER_BITS - 6)];
        self.starts = vec![0; (1 << self.bucket_bits) + 1];
        let mut order: Vec<u32> = (0..count as u32).collect();
        let key = |at: &u32| {
            let hashes = self.hashes[*at as usize];
            (spread(hashes.weak), hashes.strong, *at)
        };
        order.sort_unstable_by_key(key);
        order.dedup_by_key(|at| self.hashes[*at as usize]);
        let mut of_bucket = (usize::MAX, 0);
        for at in order {
            let spread = spread(self.hashes[at as usize].weak);
            let bucket = (spread >> (32 - self.bucket_bits)) as usize;
            let before = if of_bucket.0 == bucket { of_bucket.1 } else { 0 };
            if before == CANDIDATES_MAX {
                continue;
            }
            of_bucket = (bucket, before + 1);
            let bit = (spread >> (32 - self.bucket_bits - FILTER_BITS)) as usize;
            self.filter[bit / 64] |= 1 << (bit % 64);
            self.table.push(at);
            self.starts[bucket + 1] = self.table.len() as u32;
        }
        // A bucket without blocks begins where the one before it ends.
        for bucket in 1..self.starts.len() {
            self.starts[bucket] = self.starts[bucket].max(self.starts[bucket - 1]);
        }
    }

    fn may_have(&self, weak: u32) -> bool {
        let bit = (spread(weak) >> (32 - self.bucket_bits - FILTER_BITS)) as usize;
        self.filter[bit / 64] >> (bit % 64) & 1 == 1
    }

    fn bucket(&self, weak: u32) -> &[u32] {
        let bucket = (spread(weak) >> (32 - self.bucket_bits)) as usize;
        &self.table[self.starts[bucket] as usize..self.starts[bucket + 1] as usize]
    }
}

/// The upper bits of a polynomial's product depend on all of its bits. One to one, so that equal hashes
/// and only they are neighbours when sorted by it.
fn spread(weak: u32) -> u32 {
    weak.wrapping_mul(0x9E37_79B1)
}

/// The filter has so many more bits (log2) than there are buckets.
const FILTER_BITS: u32 = 3;

/// Whether there is more to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Matching {
    /// Call again.
    More,
    /// All operations were given.
    Done,
}

/// Finds what of a new content a [`Signature`] covers.
pub struct SignatureMatcher {
    signature: Signature,
    at: usize,
    /// Rolling hash of the block at `at`; `None` after a jump.
    weak: Option<u32>,
    /// Where the last match was in the basis less where in the content.
    shift: i64,
    merger: Merger,
    comparisons: u64,
}

impl SignatureMatcher {
    /// Starts at the beginning of the new content.
    #[must_use]
    pub fn new(signature: Signature) -> SignatureMatcher {
        SignatureMatcher {
            signature,
            at: 0,
            weak: None,
            shift: 0,
            merger: Merger::default(),
            comparisons: 0,
        }
    }

    /// Blocks that were compared so far.
    #[must_use]
    pub fn comparisons(&self) -> u64 {
        self.comparisons
    }

    /// Goes on over `content`, always the same and whole, for about the work of `budget` bytes, and gives
    /// the operations that are certain to `emit`, in order.
    pub fn step(&mut self, content: &[u8], budget: usize, emit: &mut impl FnMut(Op)) -> Matching {
        let block = self.signature.block;
        let hasher = self.signature.hasher;
        let mut budget = budget.max(1) as i64;
        while self.at + block <= content.len() {
            if budget <= 0 {
                return Matching::More;
            }
            let window = &content[self.at..self.at + block];
            let weak = self.weak.unwrap_or_else(|| hasher.weak(window));
            let before = self.comparisons;
            let found = self.find(window, weak);
            budget -= (self.comparisons - before) as i64 * COMPARISON_COST;
            if let Some(number) = found {
                let from = u64::from(number) * block as u64;
                self.merger.copy(from, block as u64, emit);
                self.shift = from as i64 - self.at as i64;
                self.at += block;
                self.weak = None;
                budget -= block as i64;
                continue;
            }
            let entering = content.get(self.at + block).copied().unwrap_or(0);
            self.weak = Some(hasher.roll(weak, window[0], entering));
            self.merger.literal(1);
            self.at += 1;
            budget -= 1;
        }
        self.finish(content, emit);
        Matching::Done
    }

    /// The block that has the hashes of `window`.
    fn find(&mut self, window: &[u8], weak: u32) -> Option<u32> {
        let signature = &self.signature;
        let expected = signature.block_at(self.at as i64 + self.shift);
        let expected = expected.filter(|at| signature.hashes[*at as usize].weak == weak);
        if expected.is_none() && !signature.may_have(weak) {
            return None;
        }
        let of_bucket = signature.bucket(weak).iter().copied();
        let mut strong = None;
        for at in expected.into_iter().chain(of_bucket) {
            let hashes = signature.hashes[at as usize];
            if hashes.weak != weak {
                continue;
            }
            self.comparisons += 1;
            let strong = *strong.get_or_insert_with(|| signature.hasher.strong(window));
            if strong == hashes.strong {
                return Some(at);
            }
        }
        None
    }

    /// The end of the content: the last, shorter block of the basis, or nothing.
    fn finish(&mut self, content: &[u8], emit: &mut impl FnMut(Op)) {
        let signature = &self.signature;
        let short = (signature.length % signature.block as u64) as usize;
        let tail = content.len().checked_sub(short).map(|at| &content[at..]);
        // What is left is shorter than a block, and so may have become shorter than the tail.
        let tail = tail.filter(|tail| !tail.is_empty() && tail.len() <= content.len() - self.at);
        let wanted = signature.hashes.last();
        let matched = tail.filter(|tail| {
            let hashes = Hashes {
                weak: signature.hasher.weak(tail),
                strong: signature.hasher.strong(tail),
            };
            wanted == Some(&hashes)
        });
        let copied = matched.map_or(0, <[u8]>::len);
        self.merger.literal((content.len() - self.at - copied) as u64);
        if copied > 0 {
            self.merger.copy(signature.length - copied as u64, copied as u64, emit);
        }
        self.merger.finish(signature.length, emit);
        self.at = content.len();
    }
}

impl Signature {
    /// The whole block that begins at `offset` of the basis.
    fn block_at(&self, offset: i64) -> Option<u32> {
        let offset = u64::try_from(offset).ok()?;
        let block = self.block as u64;
        let whole = offset.is_multiple_of(block) && offset + block <= self.length;
        whole.then_some((offset / block) as u32)
    }
}

/// In bytes of rolling: a strong hash of 512 bytes takes 25 ns, once a position.
const COMPARISON_COST: i64 = 32;

/// Joins what is adjacent, and tells edits from other new bytes.
#[derive(Default)]
struct Merger {
    /// Where it is in the basis, and its bytes.
    copy: (u64, u64),
    literal: u64,
}

impl Merger {
    fn copy(&mut self, from: u64, length: u64, emit: &mut impl FnMut(Op)) {
        if self.literal == 0 && self.copy.0 + self.copy.1 == from && self.copy.1 > 0 {
            self.copy.1 += length;
            return;
        }
        self.flush(from, emit);
        self.copy = (from, length);
    }

    fn literal(&mut self, length: u64) {
        self.literal += length;
    }

    fn finish(&mut self, basis_length: u64, emit: &mut impl FnMut(Op)) {
        self.flush(basis_length, emit);
        self.copy = (0, 0);
    }

    /// Gives what there is; the basis goes on at `next`.
    fn flush(&mut self, next: u64, emit: &mut impl FnMut(Op)) {
        let (from, length) = self.copy;
        if length > 0 {
            emit(Op::Copy { from, length });
        }
        match std::mem::take(&mut self.literal) {
            0 => {}
            length if from + self.copy.1 + length == next => emit(Op::Edit { length }),
            length => emit(Op::Literal { length }),
        }
    }
}
