//! What an index holds of leaves by themselves: their SHA-256, their xxh3-128, and the CRC-32 of each KiB.
//!
//! Never looks for anchors. Invariant: whichever kernel runs, SHA-256 is that of `sha2`, xxh3 that of `xxhash-rust`
//! and the CRC that of `crc32fast`, which are the reference and the fallback.

use super::BLOCK_BYTES;
#[cfg(target_arch = "x86_64")]
use super::leaf_sums_x86::{Kernel, LANES, RawSums, SECRET_BYTES};
use crate::delta::sha256::{self, RUN_PIECES_MAX, digest, hash_pair, hash_run};
use crate::model::limits::LEAF_BYTES;
#[cfg(target_arch = "x86_64")]
use xxhash_rust::const_xxh3::const_custom_default_secret;
use xxhash_rust::xxh3::xxh3_128_with_seed;

/// The sums of leaves that follow each other.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(in crate::delta) struct LeafSums {
    /// SHA-256 of each leaf.
    pub(in crate::delta) leaves: Vec<[u8; 32]>,
    /// xxh3-128 of each leaf, with a seed.
    pub(in crate::delta) strong: Vec<u128>,
    /// CRC-32 (IEEE) of each KiB; the last may be shorter.
    pub(in crate::delta) crcs: Vec<u32>,
}

impl LeafSums {
    /// The sums of `bytes`, which start at a leaf.
    pub(in crate::delta) fn of(bytes: &[u8], seed: u64) -> LeafSums {
        let count = bytes.len().div_ceil(LEAF_BYTES);
        let mut sums = LeafSums {
            leaves: Vec::with_capacity(count),
            strong: Vec::with_capacity(count),
            crcs: Vec::with_capacity(bytes.len().div_ceil(BLOCK_BYTES)),
        };
        #[cfg(target_arch = "x86_64")]
        if let Some(kernel) = Kernel::preferred() {
            sums.add_pairs(kernel, bytes, seed);
        }
        let paired = sums.leaves.len() * LEAF_BYTES;
        sums.add(&bytes[paired..], seed);
        sums
    }

    /// One sum after the other.
    fn add(&mut self, bytes: &[u8], seed: u64) {
        // A run stays in the second cache, a leaf in the first.
        for run in bytes.chunks(RUN_BYTES) {
            for leaf in run.chunks(LEAF_BYTES) {
                self.strong.push(xxh3_128_with_seed(leaf, seed));
                self.crcs.extend(leaf.chunks(BLOCK_BYTES).map(crc32fast::hash));
            }
            push_leaves(run, &mut self.leaves);
        }
    }

    /// All three at once, of as many whole leaves as make pairs.
    #[cfg(target_arch = "x86_64")]
    fn add_pairs(&mut self, kernel: Kernel, bytes: &[u8], seed: u64) {
        let secret: [u8; SECRET_BYTES] = const_custom_default_secret(seed);
        let (leaves, _) = bytes.as_chunks::<LEAF_BYTES>();
        let (pairs, _) = leaves.as_chunks::<LANES>();
        for [first, second] in pairs {
            for sums in kernel.sum([first, second], &secret) {
                self.leaves.push(sha256::finish(sums.sha, LEAF_BYTES as u64));
                self.strong.push(finish_xxh3(&sums, &secret));
                self.crcs.extend(sums.crcs);
            }
        }
    }
}

/// xxh3-128 of a leaf from its accumulators: the end of the long-input hash of the XXH3 specification.
#[cfg(target_arch = "x86_64")]
fn finish_xxh3(sums: &RawSums, secret: &[u8; SECRET_BYTES]) -> u128 {
    const PRIME64_1: u64 = 0x9E37_79B1_85EB_CA87;
    const PRIME64_2: u64 = 0xC2B2_AE3D_27D4_EB4F;
    /// From either end of the secret to what the accumulators are merged with.
    const MARGIN: usize = 11;
    let merge = |keys: &[u8], start: u64| {
        let (keys, _) = keys.as_chunks::<8>();
        let keyed: [u64; 8] = std::array::from_fn(|at| sums.xxh3[at] ^ u64::from_le_bytes(keys[at]));
        let folded = keyed.as_chunks::<2>().0.iter().map(|[left, right]| {
            let product = u128::from(*left) * u128::from(*right);
            product as u64 ^ (product >> 64) as u64
        });
        avalanche(folded.fold(start, u64::wrapping_add))
    };
    let length = LEAF_BYTES as u64;
    let low = merge(&secret[MARGIN..][..64], length.wrapping_mul(PRIME64_1));
    let high = merge(
        &secret[SECRET_BYTES - 64 - MARGIN..][..64],
        !length.wrapping_mul(PRIME64_2),
    );
    u128::from(high) << 64 | u128::from(low)
}

/// `XXH3_avalanche`.
#[cfg(target_arch = "x86_64")]
fn avalanche(hash: u64) -> u64 {
    let hash = (hash ^ hash >> 37).wrapping_mul(0x1656_6791_9E37_79F9);
    hash ^ hash >> 32
}

/// Bytes whose leaves are hashed at once.
pub(super) const RUN_BYTES: usize = RUN_PIECES_MAX * LEAF_BYTES;

/// SHA-256 of every leaf of `bytes`, which start at a leaf; of no bytes there are none.
#[must_use]
pub fn leaves_of(bytes: &[u8]) -> Vec<[u8; 32]> {
    let mut leaves = Vec::with_capacity(bytes.len().div_ceil(LEAF_BYTES));
    for run in bytes.chunks(RUN_BYTES) {
        push_leaves(run, &mut leaves);
    }
    leaves
}

/// Hashes the leaves of `run`, at most [`RUN_BYTES`].
fn push_leaves(run: &[u8], leaves: &mut Vec<[u8; 32]>) {
    let (whole, last) = run.split_at(run.len() - run.len() % LEAF_BYTES);
    match hash_run(whole, LEAF_BYTES) {
        Some(digests) => leaves.extend(digests),
        None => {
            for pair in whole.chunks(2 * LEAF_BYTES) {
                let (first, second) = pair.split_at(LEAF_BYTES);
                if second.is_empty() {
                    leaves.push(digest(first));
                } else {
                    leaves.extend(<[_; 2]>::from(hash_pair(first, second)));
                }
            }
        }
    }
    if !last.is_empty() {
        leaves.push(digest(last));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn one_after_the_other(bytes: &[u8], seed: u64) -> LeafSums {
        let mut sums = LeafSums::default();
        sums.add(bytes, seed);
        sums
    }

    /// Also where this processor does not prefer it.
    #[cfg(target_arch = "x86_64")]
    fn by_force(bytes: &[u8], seed: u64) -> Option<LeafSums> {
        let mut sums = LeafSums::default();
        sums.add_pairs(Kernel::detect()?, bytes, seed);
        sums.add(&bytes[sums.leaves.len() * LEAF_BYTES..], seed);
        Some(sums)
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn by_force(_: &[u8], _: u64) -> Option<LeafSums> {
        None
    }

    fn check(bytes: &[u8], seed: u64) {
        let expected = one_after_the_other(bytes, seed);
        assert_eq!(LeafSums::of(bytes, seed), expected);
        if let Some(sums) = by_force(bytes, seed) {
            assert_eq!(sums, expected);
        }
    }

    // Protects the portable part, which is what the kernel is compared with.
    #[test]
    fn the_reference_is_that_of_the_libraries() {
        let bytes: Vec<u8> = (0..3 * LEAF_BYTES + 700).map(|at| ((at * at) >> 7) as u8).collect();
        let sums = one_after_the_other(&bytes, 5);
        for (at, leaf) in bytes.chunks(LEAF_BYTES).enumerate() {
            assert_eq!(sums.leaves[at], digest(leaf));
            assert_eq!(sums.strong[at], xxh3_128_with_seed(leaf, 5));
        }
        let crcs: Vec<u32> = bytes.chunks(BLOCK_BYTES).map(crc32fast::hash).collect();
        assert_eq!(sums.crcs, crcs);
    }

    // Protects the pairs: each byte of both leaves counts in each sum, and only in its own leaf's.
    #[test]
    fn one_byte_anywhere_gives_the_reference_sums() {
        let mut bytes = vec![0; 2 * LEAF_BYTES];
        check(&bytes, 0);
        for at in (0..bytes.len())
            .step_by(509)
            .chain([LEAF_BYTES - 1, LEAF_BYTES, 2 * LEAF_BYTES - 1])
        {
            bytes[at] = 0xA5;
            check(&bytes, 1);
            bytes[at] = 0;
        }
        bytes.fill(0xFF);
        check(&bytes, u64::MAX);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

        // Protects every cut: odd counts of leaves, a last one that is short, any alignment and seed.
        #[test]
        fn any_bytes_give_the_reference_sums(
            seed: u64, state: u64, skew in 0usize..64, length in 0usize..6 * LEAF_BYTES, whole in 0usize..7,
        ) {
            let bytes = crate::delta::noise::random(state, 6 * LEAF_BYTES + 64);
            check(&bytes[skew..skew + length], seed);
            check(&bytes[skew..skew + whole.min(6) * LEAF_BYTES], seed);
        }
    }
}
