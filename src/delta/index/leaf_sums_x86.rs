//! The sums of two leaves in one instruction stream: SHA-256, xxh3-128, and the CRC-32 of each KiB.
//!
//! Never pads, never allocates. Invariant: a [`Kernel`] exists only on a processor that has every instruction it
//! uses, so its method is safe to call.
//!
//! The SHA unit alone sets the pace (see `sha_x86`), and the vector units beside it have little to do. So what the
//! other sums need is put between the rounds: of 64 bytes of each leaf half a vector step after every four of them.
//!
//! 1. SHA-256: as in `sha_x86`, a block of both leaves at a time.
//! 2. xxh3: the long-input loop of the XXH3 specification (Y. Collet). A leaf is sixteen of its blocks of 1 KiB; its
//!    last stripe takes another place of the secret.
//! 3. CRC-32: folded by 512 bits as in Gopal et al., "Fast CRC Computation for Generic Polynomials Using PCLMULQDQ
//!    Instruction" (Intel, 2009), and reduced at the end of each KiB.
//!
//! Measured on Zen 4, GiB/s: SHA-256 alone 3.1, all three one after the other 2.5, in one stream 2.8. With vectors of
//! 512 bits 2.2: the SHA instructions are slower while the upper halves are in use. The search for anchors is too
//! much to go between, and slower so than by itself.
#![allow(unsafe_code)]

use std::arch::x86_64::{
    __m128i, __m256i, _MM_HINT_T0, _mm_add_epi32, _mm_and_si128, _mm_clmulepi64_si128, _mm_cvtsi32_si128,
    _mm_extract_epi32, _mm_loadu_si128, _mm_prefetch, _mm_set_epi32, _mm_set_epi64x, _mm_setzero_si128,
    _mm_sha256rnds2_epu32, _mm_shuffle_epi8, _mm_shuffle_epi32, _mm_srli_si128, _mm_xor_si128, _mm256_add_epi64,
    _mm256_broadcastsi128_si256, _mm256_castsi256_si128, _mm256_clmulepi64_epi128, _mm256_extracti128_si256,
    _mm256_loadu_si256, _mm256_mul_epu32, _mm256_set1_epi64x, _mm256_setzero_si256, _mm256_shuffle_epi32,
    _mm256_slli_epi64, _mm256_srli_epi64, _mm256_storeu_si256, _mm256_xor_si256, _mm256_zextsi128_si256,
};

use super::{BLOCK_BYTES, BLOCKS_PER_LEAF};
use crate::delta::sha_avx512::{Wide, is_amd};
use crate::delta::sha_x86::{self, load_state, round_constants, schedule, store_state};
use crate::delta::sha256::INITIAL_STATE;
use crate::model::limits::LEAF_BYTES;
use std::sync::OnceLock;

/// Leaves that are summed at once.
pub(super) const LANES: usize = 2;

/// What the kernel makes of a leaf.
#[derive(Debug, Clone, Copy)]
pub(super) struct RawSums {
    /// The state of SHA-256 after all of the leaf, before its padding.
    pub(super) sha: [u32; 8],
    /// The accumulators of xxh3 after all of the leaf, before they are merged.
    pub(super) xxh3: [u64; 8],
    /// CRC-32 of each KiB.
    pub(super) crcs: [u32; BLOCKS_PER_LEAF],
}

/// Bytes of the secret that xxh3 derives from a seed.
pub(super) const SECRET_BYTES: usize = 192;

/// Proof that this processor has the instructions.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kernel(());

impl Kernel {
    /// The kernel, where the processor can run it. The check is cached by the standard library.
    pub(super) fn detect() -> Option<Kernel> {
        let present = sha_x86::Kernel::detect().is_some()
            && is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("pclmulqdq")
            && is_x86_feature_detected!("vpclmulqdq");
        present.then_some(Kernel(()))
    }

    /// The kernel, where it is faster than one sum after the other: on AMD's. Intel's have faster ones for SHA-256
    /// alone, or pay for SSE instructions (all of SHA's are) beside AVX.
    pub(super) fn preferred() -> Option<Kernel> {
        static PREFERRED: OnceLock<Option<Kernel>> = OnceLock::new();
        *PREFERRED.get_or_init(|| Kernel::detect().filter(|_| is_amd() && Wide::preferred().is_none()))
    }

    /// The sums of two leaves.
    pub(super) fn sum(self, leaves: [&[u8; LEAF_BYTES]; LANES], secret: &[u8; SECRET_BYTES]) -> [RawSums; LANES] {
        // SAFETY: `self` proves that the instructions exist.
        unsafe { sum(leaves, secret) }
    }
}

/// Bytes of a step: a block of SHA-256, a stripe of xxh3, four CRC folds.
const STEP_BYTES: usize = 64;
const STEPS_PER_BLOCK: usize = BLOCK_BYTES / STEP_BYTES;
/// Steps that are fetched ahead.
const AHEAD_STEPS: usize = 8;
/// How far the secret moves on with each stripe.
const SECRET_STEP_BYTES: usize = 8;
/// Where in the secret the key of the last stripe of all is, and that of the end of a block.
const LAST_KEY: usize = SECRET_BYTES - STEP_BYTES - 7;
const SCRAMBLE_KEY: usize = SECRET_BYTES - STEP_BYTES;

/// The first accumulators of xxh3.
const XXH3_INITIAL: [u64; 8] = [
    0xC2B2_AE3D,
    0x9E37_79B1_85EB_CA87,
    0xC2B2_AE3D_27D4_EB4F,
    0x1656_67B1_9E37_79F9,
    0x85EB_CA77_C2B2_AE63,
    0x85EB_CA77,
    0x27D4_EB2F_1656_67C5,
    0x9E37_79B1,
];
/// `XXH_PRIME32_1`.
const SCRAMBLE_FACTOR: i64 = 0x9E37_79B1;

/// What one leaf has come to: in each pair the first and the second 32 bytes of a step.
#[derive(Clone, Copy)]
struct Vectors {
    xxh3: [__m256i; 2],
    folds: [__m256i; 2],
}

/// The two halves of a state of SHA-256, of each leaf.
type ShaStates = ([__m128i; LANES], [__m128i; LANES]);

/// # Safety
/// The processor has the SHA extensions, AVX2, PCLMULQDQ and VPCLMULQDQ.
#[target_feature(enable = "sha,avx2,pclmulqdq,vpclmulqdq")]
unsafe fn sum(leaves: [&[u8; LEAF_BYTES]; LANES], secret: &[u8; SECRET_BYTES]) -> [RawSums; LANES] {
    let mut sums = [RawSums {
        sha: INITIAL_STATE,
        xxh3: XXH3_INITIAL,
        crcs: [0; BLOCKS_PER_LEAF],
    }; LANES];
    let zero = _mm_setzero_si128();
    let mut sha = ([zero; LANES], [zero; LANES]);
    let mut vectors = [Vectors {
        xxh3: load_xxh3(),
        folds: [_mm256_setzero_si256(); 2],
    }; LANES];
    for lane in 0..LANES {
        (sha.0[lane], sha.1[lane]) = load_state(&INITIAL_STATE);
    }
    for block in 0..BLOCKS_PER_LEAF {
        let is_last_block = block + 1 == BLOCKS_PER_LEAF;
        for number in 0..STEPS_PER_BLOCK {
            let is_last = is_last_block && number + 1 == STEPS_PER_BLOCK;
            let key = if is_last { LAST_KEY } else { number * SECRET_STEP_BYTES };
            let at = block * BLOCK_BYTES + number * STEP_BYTES;
            // SAFETY: `at` is a step that lies in a leaf, and either key one that lies in the secret.
            unsafe {
                let from = [leaves[0].as_ptr().add(at), leaves[1].as_ptr().add(at)];
                step(from, secret.as_ptr().add(key), number == 0, &mut sha, &mut vectors);
            }
        }
        for (vectors, sums) in vectors.iter_mut().zip(&mut sums) {
            sums.crcs[block] = reduce(vectors.folds);
            if !is_last_block {
                vectors.xxh3 = scramble(vectors.xxh3, secret);
            }
        }
    }
    for (lane, sums) in sums.iter_mut().enumerate() {
        store_state(&mut sums.sha, sha.0[lane], sha.1[lane]);
        let to = sums.xxh3.as_mut_ptr().cast::<__m256i>();
        // SAFETY: the accumulators are 64 bytes long and the stores need no alignment.
        unsafe {
            _mm256_storeu_si256(to, vectors[lane].xxh3[0]);
            _mm256_storeu_si256(to.add(1), vectors[lane].xxh3[1]);
        }
    }
    sums
}

/// The next 64 bytes of both leaves. `begins`: they are the first of a KiB.
///
/// # Safety
/// As [`sum`], and there are 64 bytes at each of `from` and at `key`.
#[inline]
#[target_feature(enable = "sha,avx2,pclmulqdq,vpclmulqdq")]
unsafe fn step(
    from: [*const u8; LANES],
    key: *const u8,
    begins: bool,
    (abef, cdgh): &mut ShaStates,
    vectors: &mut [Vectors; LANES],
) {
    // The words of a message are big-endian.
    let swap = _mm_set_epi64x(0x0C0D_0E0F_0809_0A0B, 0x0405_0607_0001_0203);
    let before = (*abef, *cdgh);
    let mut words = [[_mm_setzero_si128(); 4]; LANES];
    for (words, from) in words.iter_mut().zip(from) {
        // Beyond the end it fetches what may not exist: that is allowed, and comes to nothing.
        _mm_prefetch::<_MM_HINT_T0>(from.wrapping_add(AHEAD_STEPS * STEP_BYTES).cast());
        for (part, word) in words.iter_mut().enumerate() {
            // SAFETY: within the 64 bytes of this function's contract.
            let raw = unsafe { _mm_loadu_si128(from.add(part * 16).cast()) };
            *word = _mm_shuffle_epi8(raw, swap);
        }
    }
    for turn in 0..4 {
        for group in 0..4 {
            let constants = round_constants(4 * turn + group);
            for lane in 0..LANES {
                if turn > 0 {
                    words[lane][group] = schedule(&words[lane], group);
                }
                let input = _mm_add_epi32(words[lane][group], constants);
                cdgh[lane] = _mm_sha256rnds2_epu32(cdgh[lane], abef[lane], input);
                let input = _mm_shuffle_epi32(input, 0x0E);
                abef[lane] = _mm_sha256rnds2_epu32(abef[lane], cdgh[lane], input);
            }
        }
        let (lane, half) = (turn % LANES, turn / LANES);
        // SAFETY: half of the 64 bytes of this function's contract.
        let (data, key) = unsafe {
            let (data, key) = (from[lane].add(32 * half), key.add(32 * half));
            (_mm256_loadu_si256(data.cast()), _mm256_loadu_si256(key.cast()))
        };
        let vectors = &mut vectors[lane];
        vectors.xxh3[half] = accumulate(vectors.xxh3[half], data, key);
        vectors.folds[half] = match begins {
            true if half == 0 => _mm256_xor_si256(data, _mm256_zextsi128_si256(_mm_cvtsi32_si128(!0))),
            true => data,
            false => fold(vectors.folds[half], data),
        };
    }
    for lane in 0..LANES {
        abef[lane] = _mm_add_epi32(abef[lane], before.0[lane]);
        cdgh[lane] = _mm_add_epi32(cdgh[lane], before.1[lane]);
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn load_xxh3() -> [__m256i; 2] {
    let from = XXH3_INITIAL.as_ptr().cast::<__m256i>();
    // SAFETY: the accumulators are 64 bytes long and the loads need no alignment.
    unsafe { [_mm256_loadu_si256(from), _mm256_loadu_si256(from.add(1))] }
}

/// `XXH3_accumulate_512`, half of it.
#[inline]
#[target_feature(enable = "avx2")]
fn accumulate(sum: __m256i, data: __m256i, key: __m256i) -> __m256i {
    let keyed = _mm256_xor_si256(data, key);
    let product = _mm256_mul_epu32(keyed, _mm256_srli_epi64::<32>(keyed));
    // Each accumulator takes its neighbour's data.
    let swapped = _mm256_shuffle_epi32::<0x4E>(data);
    _mm256_add_epi64(product, _mm256_add_epi64(sum, swapped))
}

/// `XXH3_scrambleAcc`.
#[inline]
#[target_feature(enable = "avx2")]
fn scramble(sums: [__m256i; 2], secret: &[u8; SECRET_BYTES]) -> [__m256i; 2] {
    let factor = _mm256_set1_epi64x(SCRAMBLE_FACTOR);
    let mut scrambled = sums;
    for (half, sum) in scrambled.iter_mut().enumerate() {
        // SAFETY: the last 64 bytes of the secret, in halves.
        let key = unsafe { _mm256_loadu_si256(secret.as_ptr().add(SCRAMBLE_KEY + 32 * half).cast()) };
        let mixed = _mm256_xor_si256(_mm256_xor_si256(*sum, _mm256_srli_epi64::<47>(*sum)), key);
        let low = _mm256_mul_epu32(mixed, factor);
        let high = _mm256_mul_epu32(_mm256_srli_epi64::<32>(mixed), factor);
        *sum = _mm256_add_epi64(low, _mm256_slli_epi64::<32>(high));
    }
    scrambled
}

/// Moves two remainders on by 512 bits, and takes the data that stands there.
#[inline]
#[target_feature(enable = "avx2,pclmulqdq,vpclmulqdq")]
fn fold(remainders: __m256i, data: __m256i) -> __m256i {
    // x^(512+32) and x^(512-32) modulo the polynomial, reflected: k1 and k2 of the paper.
    let by_512 = _mm256_broadcastsi128_si256(_mm_set_epi64x(0x1_C6E4_1596, 0x1_5444_2BD4));
    let low = _mm256_clmulepi64_epi128::<0x00>(remainders, by_512);
    let high = _mm256_clmulepi64_epi128::<0x11>(remainders, by_512);
    _mm256_xor_si256(data, _mm256_xor_si256(low, high))
}

/// The CRC-32 of four remainders that follow each other.
#[inline]
#[target_feature(enable = "avx2,pclmulqdq")]
fn reduce(folds: [__m256i; 2]) -> u32 {
    // x^(128+32) and x^(128-32): k3 and k4; then k5, and the polynomial with its quotient for Barrett's reduction.
    let by_128 = _mm_set_epi64x(0x0_CCAA_009E, 0x1_7519_97D0);
    let by_64 = _mm_set_epi64x(0, 0x1_63CD_6124);
    let polynomial = _mm_set_epi64x(0x1_F701_1641, 0x1_DB71_0641);
    let lower_word = _mm_set_epi32(0, 0, 0, !0);
    let mut sum = _mm256_castsi256_si128(folds[0]);
    for next in [
        _mm256_extracti128_si256::<1>(folds[0]),
        _mm256_castsi256_si128(folds[1]),
        _mm256_extracti128_si256::<1>(folds[1]),
    ] {
        let low = _mm_clmulepi64_si128::<0x00>(sum, by_128);
        let high = _mm_clmulepi64_si128::<0x11>(sum, by_128);
        sum = _mm_xor_si128(next, _mm_xor_si128(low, high));
    }
    let sum = _mm_xor_si128(_mm_clmulepi64_si128::<0x10>(sum, by_128), _mm_srli_si128::<8>(sum));
    let upper = _mm_srli_si128::<4>(sum);
    let sum = _mm_xor_si128(
        _mm_clmulepi64_si128::<0x00>(_mm_and_si128(sum, lower_word), by_64),
        upper,
    );
    let quotient = _mm_clmulepi64_si128::<0x10>(_mm_and_si128(sum, lower_word), polynomial);
    let product = _mm_clmulepi64_si128::<0x00>(_mm_and_si128(quotient, lower_word), polynomial);
    !_mm_extract_epi32::<1>(_mm_xor_si128(product, sum)).cast_unsigned()
}
