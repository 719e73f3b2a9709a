//! The search for anchors on AVX2 and AVX-512: 32 or 64 windows at a time.
//!
//! Never decides what an anchor is (that is `anchors`), never allocates. Invariant: a [`Kernel`] exists
//! only on a processor that has every instruction it uses, so its method is safe to call.
//!
//! 1. A vector holds the words at even distances from its start, another, loaded one byte on, those
//!    between. Sums are kept where the window's last word is: the earlier half of a sum comes from the
//!    vector itself, moved up, and from the end of the vector before.
//! 2. Both vectors are tested at once; only where one has a hit, about every 128th time, their masks
//!    are merged, so that hits come in order.
//!
//! Awkward case: the first vector has none before it, so its first 12 windows mean nothing.
#![allow(unsafe_code)]

use std::arch::x86_64::{
    __m256i, __m512i, _MM_CMPINT_NLT, _mm256_add_epi16, _mm256_adds_epu16, _mm256_alignr_epi8, _mm256_cmpeq_epi16,
    _mm256_loadu_si256, _mm256_max_epu16, _mm256_movemask_epi8, _mm256_mullo_epi16, _mm256_permute2x128_si256,
    _mm256_set1_epi16, _mm256_setzero_si256, _mm512_add_epi16, _mm512_alignr_epi32, _mm512_cmp_epu16_mask,
    _mm512_loadu_si512, _mm512_max_epu16, _mm512_mullo_epi16, _mm512_set1_epi16, _mm512_setzero_si512,
};

use super::anchors::{FOUR_FACTOR, HASH_MIN, Hit, PAIR_FACTOR, WINDOW_BYTES, WORD_FACTORS};

/// Proof that this processor has the instructions of one of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kernel {
    Avx2(Proof),
    Avx512(Proof),
}

/// Only this module makes one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Proof(());

impl Kernel {
    /// The better kernel that the processor can run. The check is cached by the standard library.
    pub(super) fn detect() -> Option<Kernel> {
        Kernel::avx512().or_else(Kernel::avx2)
    }

    pub(super) fn avx2() -> Option<Kernel> {
        is_x86_feature_detected!("avx2").then_some(Kernel::Avx2(Proof(())))
    }

    pub(super) fn avx512() -> Option<Kernel> {
        let present = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw");
        present.then_some(Kernel::Avx512(Proof(())))
    }

    /// Reports the hits among the windows in `bytes`, as far as whole vectors of them reach.
    /// Returns how many windows that were, or `None` when `hit` wants no more.
    pub(super) fn find(self, bytes: &[u8], hit: Hit<'_>) -> Option<usize> {
        match self {
            // SAFETY: a kernel of this kind proves that the instructions exist.
            Kernel::Avx2(_) => unsafe { find_avx2(bytes, hit) },
            // SAFETY: as above.
            Kernel::Avx512(_) => unsafe { find_avx512(bytes, hit) },
        }
    }
}

/// From the start of a window to its last word.
const TO_LAST_WORD: usize = WINDOW_BYTES - 2;

/// # Safety
/// The processor has AVX2.
#[target_feature(enable = "avx2")]
unsafe fn find_avx2(bytes: &[u8], hit: Hit<'_>) -> Option<usize> {
    let zero = _mm256_setzero_si256();
    let mut before = [(zero, zero); 2];
    // Where the last word of the first window of a turn is; the word before is loaded, too.
    let mut at = 2;
    // SAFETY: as this function's.
    while let Some(hits) = unsafe { next_avx2(bytes, &mut at, &mut before) } {
        if !report(hits, at, hit) {
            return None;
        }
        at += size_of::<__m256i>();
    }
    Some(at.saturating_sub(TO_LAST_WORD))
}

/// The first vector from `at` on that has a hit: there `at` is then, and its hits are given, a bit for each window.
/// `None`: there is none in any whole vector. `before` holds the sums of the last vectors, even and odd.
///
/// Never inlined: beside a call in the same loop, all that is carried from vector to vector would lie on the stack.
///
/// # Safety
/// The processor has AVX2.
#[inline(never)]
#[target_feature(enable = "avx2")]
unsafe fn next_avx2(bytes: &[u8], at: &mut usize, before: &mut [(__m256i, __m256i); 2]) -> Option<u64> {
    const WIDTH: usize = size_of::<__m256i>();
    // Added with saturation, it makes an anchor's hash, and no other, the highest number.
    let to_highest = _mm256_set1_epi16((u16::MAX - HASH_MIN).cast_signed());
    let highest = _mm256_set1_epi16(-1);
    let [mut even_before, mut odd_before] = *before;
    let mut hits = None;
    while *at + 1 + WIDTH <= bytes.len() {
        let even;
        let odd;
        // SAFETY: the loads are of WIDTH bytes at `at - 2` to `at + 1`, within the bounds checked above.
        unsafe {
            let from = bytes.as_ptr().add(*at);
            let load = |from: *const u8| _mm256_loadu_si256(from.cast());
            (even, even_before) = sum_avx2(load(from.sub(2)), load(from), even_before);
            (odd, odd_before) = sum_avx2(load(from.sub(1)), load(from.add(1)), odd_before);
        }
        let either = _mm256_adds_epu16(_mm256_max_epu16(even, odd), to_highest);
        if _mm256_movemask_epi8(_mm256_cmpeq_epi16(either, highest)) != 0 {
            let even = _mm256_cmpeq_epi16(_mm256_adds_epu16(even, to_highest), highest);
            let odd = _mm256_cmpeq_epi16(_mm256_adds_epu16(odd, to_highest), highest);
            // A lane has two bits: the lower is that of an even window, the upper that of the next.
            let even = _mm256_movemask_epi8(even).cast_unsigned() & 0x5555_5555;
            let odd = _mm256_movemask_epi8(odd).cast_unsigned() & 0xAAAA_AAAA;
            hits = Some(u64::from(even | odd));
            break;
        }
        *at += WIDTH;
    }
    *before = [even_before, odd_before];
    hits
}

/// The hashes of the windows that end with the words `second`, after the words `first` and the sums of
/// pairs and of fours of the vector before. Also returns those sums.
#[inline]
#[target_feature(enable = "avx2")]
fn sum_avx2(first: __m256i, second: __m256i, before: (__m256i, __m256i)) -> (__m256i, (__m256i, __m256i)) {
    let factor = |factor: u16| _mm256_set1_epi16(factor.cast_signed());
    let first = _mm256_mullo_epi16(first, factor(WORD_FACTORS[0]));
    let pairs = _mm256_add_epi16(first, _mm256_mullo_epi16(second, factor(WORD_FACTORS[1])));
    // The upper half of the vector before and the lower of this one: what each lane moves up from.
    let middle = _mm256_permute2x128_si256::<0x21>(before.0, pairs);
    let earlier = _mm256_alignr_epi8::<12>(pairs, middle);
    let fours = _mm256_add_epi16(_mm256_mullo_epi16(earlier, factor(PAIR_FACTOR)), pairs);
    let middle = _mm256_permute2x128_si256::<0x21>(before.1, fours);
    let earlier = _mm256_alignr_epi8::<8>(fours, middle);
    let hashes = _mm256_add_epi16(_mm256_mullo_epi16(earlier, factor(FOUR_FACTOR)), fours);
    (hashes, (pairs, fours))
}

/// # Safety
/// The processor has AVX-512 F and BW.
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn find_avx512(bytes: &[u8], hit: Hit<'_>) -> Option<usize> {
    let zero = _mm512_setzero_si512();
    let mut before = [(zero, zero); 2];
    let mut at = 2;
    // SAFETY: as this function's.
    while let Some(hits) = unsafe { next_avx512(bytes, &mut at, &mut before) } {
        if !report(hits, at, hit) {
            return None;
        }
        at += size_of::<__m512i>();
    }
    Some(at.saturating_sub(TO_LAST_WORD))
}

/// As [`next_avx2`].
///
/// # Safety
/// The processor has AVX-512 F and BW.
#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn next_avx512(bytes: &[u8], at: &mut usize, before: &mut [(__m512i, __m512i); 2]) -> Option<u64> {
    const WIDTH: usize = size_of::<__m512i>();
    let least = _mm512_set1_epi16(HASH_MIN.cast_signed());
    let [mut even_before, mut odd_before] = *before;
    let mut hits = None;
    while *at + 1 + WIDTH <= bytes.len() {
        let even;
        let odd;
        // SAFETY: the loads are of WIDTH bytes at `at - 2` to `at + 1`, within the bounds checked above.
        unsafe {
            let from = bytes.as_ptr().add(*at);
            let load = |from: *const u8| _mm512_loadu_si512(from.cast());
            (even, even_before) = sum_avx512(load(from.sub(2)), load(from), even_before);
            (odd, odd_before) = sum_avx512(load(from.sub(1)), load(from.add(1)), odd_before);
        }
        if _mm512_cmp_epu16_mask::<_MM_CMPINT_NLT>(_mm512_max_epu16(even, odd), least) != 0 {
            let even = spread(_mm512_cmp_epu16_mask::<_MM_CMPINT_NLT>(even, least));
            let odd = spread(_mm512_cmp_epu16_mask::<_MM_CMPINT_NLT>(odd, least));
            hits = Some(even | odd << 1);
            break;
        }
        *at += WIDTH;
    }
    *before = [even_before, odd_before];
    hits
}

/// As [`sum_avx2`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn sum_avx512(first: __m512i, second: __m512i, before: (__m512i, __m512i)) -> (__m512i, (__m512i, __m512i)) {
    let factor = |factor: u16| _mm512_set1_epi16(factor.cast_signed());
    let first = _mm512_mullo_epi16(first, factor(WORD_FACTORS[0]));
    let pairs = _mm512_add_epi16(first, _mm512_mullo_epi16(second, factor(WORD_FACTORS[1])));
    let earlier = _mm512_alignr_epi32::<15>(pairs, before.0);
    let fours = _mm512_add_epi16(_mm512_mullo_epi16(earlier, factor(PAIR_FACTOR)), pairs);
    let earlier = _mm512_alignr_epi32::<14>(fours, before.1);
    let hashes = _mm512_add_epi16(_mm512_mullo_epi16(earlier, factor(FOUR_FACTOR)), fours);
    (hashes, (pairs, fours))
}

/// Bit `n` goes to bit `2 n`.
fn spread(mask: u32) -> u64 {
    let mut bits = mask;
    let mut spread = 0;
    while bits != 0 {
        spread |= 1 << (2 * bits.trailing_zeros());
        bits &= bits - 1;
    }
    spread
}

/// Reports the windows whose last words are at `at` plus the number of each bit that is set, as far as
/// they are whole; whether more are wanted.
fn report(hits: u64, at: usize, hit: Hit<'_>) -> bool {
    let mut hits = hits;
    while hits != 0 {
        let last_word = at + hits.trailing_zeros() as usize;
        if last_word >= TO_LAST_WORD && !hit(last_word - TO_LAST_WORD) {
            return false;
        }
        hits &= hits - 1;
    }
    true
}
