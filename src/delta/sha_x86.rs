//! SHA-256 compression on the SHA extensions of x86-64, for one or for two independent messages.
//!
//! Never pads, never allocates, never keeps state of its own. Invariant: a [`Kernel`] exists only
//! on a processor that has every instruction it uses, so its methods are safe to call.
//!
//! `sha256rnds2` takes four cycles and can start every second one, so a lone message leaves much of
//! the unit idle. Two messages in one instruction stream fill it: 1.59 against 2.02 GB/s on a Xeon of
//! the Sapphire Rapids kind, where three gave 1.97 and four 1.97 (port 5 is full by then), and with
//! VEX encoding none of the four was faster.
#![allow(unsafe_code)]

use std::arch::x86_64::{
    __m128i, _MM_HINT_T0, _mm_add_epi32, _mm_alignr_epi8, _mm_blend_epi16, _mm_loadu_si128, _mm_prefetch,
    _mm_set_epi64x, _mm_setzero_si128, _mm_sha256msg1_epu32, _mm_sha256msg2_epu32, _mm_sha256rnds2_epu32,
    _mm_shuffle_epi8, _mm_shuffle_epi32, _mm_storeu_si128,
};

use super::sha256::{BLOCK_BYTES, ROUND_CONSTANTS};

/// Blocks that are fetched ahead in each message.
const AHEAD_BLOCKS: usize = 8;

/// Proof that this processor has the SHA extensions.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kernel(());

impl Kernel {
    /// The kernel, where the processor can run it. The check is cached by the standard library.
    pub(super) fn detect() -> Option<Kernel> {
        let present =
            is_x86_feature_detected!("sha") && is_x86_feature_detected!("sse4.1") && is_x86_feature_detected!("ssse3");
        present.then_some(Kernel(()))
    }

    /// Feeds each message its own blocks. All `blocks` are as long as the first, a whole number of
    /// 64-byte blocks; anything else is a bug and panics.
    pub(super) fn compress<const N: usize>(self, mut states: [&mut [u32; 8]; N], blocks: [&[u8]; N]) {
        let length = blocks.first().map_or(0, |first| first.len());
        assert!(length.is_multiple_of(BLOCK_BYTES) && blocks.iter().all(|lane| lane.len() == length));
        // SAFETY: `self` proves that the instructions exist, and the lengths were just checked.
        unsafe { compress(&mut states, blocks, length / BLOCK_BYTES) }
    }
}

/// # Safety
/// Every element of `blocks` holds at least `count` blocks of 64 bytes.
#[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
unsafe fn compress<const N: usize>(states: &mut [&mut [u32; 8]; N], blocks: [&[u8]; N], count: usize) {
    // The words of a message are big-endian.
    let swap = _mm_set_epi64x(0x0C0D_0E0F_0809_0A0B, 0x0405_0607_0001_0203);
    let mut abef = [_mm_setzero_si128(); N];
    let mut cdgh = abef;
    for lane in 0..N {
        (abef[lane], cdgh[lane]) = load_state(states[lane]);
    }
    for block in 0..count {
        let before = (abef, cdgh);
        let mut words = [[_mm_setzero_si128(); 4]; N];
        for (lane, words) in words.iter_mut().enumerate() {
            // Beyond the end it fetches what may not exist: that is allowed, and comes to nothing.
            let ahead = blocks[lane].as_ptr().wrapping_add((block + AHEAD_BLOCKS) * BLOCK_BYTES);
            _mm_prefetch::<_MM_HINT_T0>(ahead.cast());
            for (part, word) in words.iter_mut().enumerate() {
                let at = block * BLOCK_BYTES + part * 16;
                // SAFETY: `block < count`, so these 16 bytes are inside by this function's contract.
                let raw = unsafe { _mm_loadu_si128(blocks[lane].as_ptr().add(at).cast()) };
                *word = _mm_shuffle_epi8(raw, swap);
            }
        }
        for turn in 0..4 {
            // Four groups of four rounds: so short that the compiler unrolls it, which keeps the
            // words in registers.
            for group in 0..4 {
                let constants = round_constants(4 * turn + group);
                for lane in 0..N {
                    let words = &mut words[lane];
                    if turn > 0 {
                        words[group] = schedule(words, group);
                    }
                    let input = _mm_add_epi32(words[group], constants);
                    cdgh[lane] = _mm_sha256rnds2_epu32(cdgh[lane], abef[lane], input);
                    let input = _mm_shuffle_epi32(input, 0x0E);
                    abef[lane] = _mm_sha256rnds2_epu32(abef[lane], cdgh[lane], input);
                }
            }
        }
        for lane in 0..N {
            abef[lane] = _mm_add_epi32(abef[lane], before.0[lane]);
            cdgh[lane] = _mm_add_epi32(cdgh[lane], before.1[lane]);
        }
    }
    for lane in 0..N {
        store_state(states[lane], abef[lane], cdgh[lane]);
    }
}

/// The next four words of the message schedule; they replace the oldest, `words[group]`.
#[inline]
#[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
pub(super) fn schedule(words: &[__m128i; 4], group: usize) -> __m128i {
    // No closure here: `map` lacks the target features, so nothing in it could be inlined.
    let (first, second) = (words[group % 4], words[(group + 1) % 4]);
    let (third, fourth) = (words[(group + 2) % 4], words[(group + 3) % 4]);
    let sum = _mm_sha256msg1_epu32(first, second);
    let sum = _mm_add_epi32(sum, _mm_alignr_epi8(fourth, third, 4));
    _mm_sha256msg2_epu32(sum, fourth)
}

#[inline]
#[target_feature(enable = "sse2")]
pub(super) fn round_constants(group: usize) -> __m128i {
    let four = &ROUND_CONSTANTS[4 * group..4 * group + 4];
    // SAFETY: the slice is 16 bytes long.
    unsafe { _mm_loadu_si128(four.as_ptr().cast()) }
}

/// The state in the order that the instructions want: a, b, e, f and c, d, g, h.
#[inline]
#[target_feature(enable = "sse2,ssse3,sse4.1")]
pub(super) fn load_state(state: &[u32; 8]) -> (__m128i, __m128i) {
    let from = state.as_ptr().cast::<__m128i>();
    // SAFETY: the state is 32 bytes long and the loads need no alignment.
    let (dcba, hgfe) = unsafe { (_mm_loadu_si128(from), _mm_loadu_si128(from.add(1))) };
    let cdab = _mm_shuffle_epi32(dcba, 0xB1);
    let efgh = _mm_shuffle_epi32(hgfe, 0x1B);
    (_mm_alignr_epi8(cdab, efgh, 8), _mm_blend_epi16(efgh, cdab, 0xF0))
}

#[inline]
#[target_feature(enable = "sse2,ssse3,sse4.1")]
pub(super) fn store_state(state: &mut [u32; 8], abef: __m128i, cdgh: __m128i) {
    let feba = _mm_shuffle_epi32(abef, 0x1B);
    let dchg = _mm_shuffle_epi32(cdgh, 0xB1);
    let to = state.as_mut_ptr().cast::<__m128i>();
    // SAFETY: the state is 32 bytes long and the stores need no alignment.
    unsafe {
        _mm_storeu_si128(to, _mm_blend_epi16(feba, dchg, 0xF0));
        _mm_storeu_si128(to.add(1), _mm_alignr_epi8(dchg, feba, 8));
    }
}
