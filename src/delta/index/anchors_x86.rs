//! The search for anchors on AVX2 and AVX-512: 32 or 64 windows at a time.
//!
//! Never decides what an anchor is (that is `anchors`), never allocates. Invariant: a [`Kernel`] exists
//! only on a processor that has every instruction it uses, so its method is safe to call.
//!
//! 1. Eight loads, two bytes apart, are the eight words of the windows at even distances; eight more,
//!    one byte on, those of the windows between. A multiplication and an addition each.
//! 2. Both vectors are tested at once; only where one has a hit, about every 128th time, their masks
//!    are merged, so that hits come in order.
#![allow(unsafe_code)]

use std::arch::x86_64::{
    __m256i, __m512i, _mm256_add_epi16, _mm256_and_si256, _mm256_cmpeq_epi16, _mm256_loadu_si256, _mm256_min_epu16,
    _mm256_movemask_epi8, _mm256_mullo_epi16, _mm256_set1_epi16, _mm256_setzero_si256, _mm512_add_epi16,
    _mm512_loadu_si512, _mm512_min_epu16, _mm512_mullo_epi16, _mm512_set1_epi16, _mm512_testn_epi16_mask,
};

use super::anchors::{FACTORS, HASH_MASK, HASH_START, Hit, WINDOW_BYTES};

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

/// # Safety
/// The processor has AVX2.
#[target_feature(enable = "avx2")]
unsafe fn find_avx2(bytes: &[u8], hit: Hit<'_>) -> Option<usize> {
    const WIDTH: usize = size_of::<__m256i>();
    let mask = _mm256_set1_epi16(HASH_MASK.cast_signed());
    let zero = _mm256_setzero_si256();
    let mut at = 0;
    // The last load of a turn ends at `at + 1 + 14 + WIDTH`.
    while at + WIDTH + WINDOW_BYTES - 1 <= bytes.len() {
        let mut even = _mm256_set1_epi16(HASH_START.cast_signed());
        let mut odd = even;
        for (number, factor) in FACTORS.into_iter().enumerate() {
            let factor = _mm256_set1_epi16(factor.cast_signed());
            // SAFETY: `number` is at most 7, so these bytes end within the bounds checked above.
            let (low, high) = unsafe {
                let from = bytes.as_ptr().add(at + 2 * number);
                (_mm256_loadu_si256(from.cast()), _mm256_loadu_si256(from.add(1).cast()))
            };
            even = _mm256_add_epi16(even, _mm256_mullo_epi16(low, factor));
            odd = _mm256_add_epi16(odd, _mm256_mullo_epi16(high, factor));
        }
        // A minimum of both has its upper bits zero when one of them has.
        let either = _mm256_cmpeq_epi16(_mm256_and_si256(_mm256_min_epu16(even, odd), mask), zero);
        if _mm256_movemask_epi8(either) != 0 {
            let even = _mm256_cmpeq_epi16(_mm256_and_si256(even, mask), zero);
            let odd = _mm256_cmpeq_epi16(_mm256_and_si256(odd, mask), zero);
            // A lane has two bits: the lower is that of an even window, the upper that of the next.
            let even = _mm256_movemask_epi8(even).cast_unsigned() & 0x5555_5555;
            let odd = _mm256_movemask_epi8(odd).cast_unsigned() & 0xAAAA_AAAA;
            if !report(u64::from(even | odd), at, hit) {
                return None;
            }
        }
        at += WIDTH;
    }
    Some(at)
}

/// # Safety
/// The processor has AVX-512 F and BW.
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn find_avx512(bytes: &[u8], hit: Hit<'_>) -> Option<usize> {
    const WIDTH: usize = size_of::<__m512i>();
    let mask = _mm512_set1_epi16(HASH_MASK.cast_signed());
    let mut at = 0;
    // The last load of a turn ends at `at + 1 + 14 + WIDTH`.
    while at + WIDTH + WINDOW_BYTES - 1 <= bytes.len() {
        let mut even = _mm512_set1_epi16(HASH_START.cast_signed());
        let mut odd = even;
        for (number, factor) in FACTORS.into_iter().enumerate() {
            let factor = _mm512_set1_epi16(factor.cast_signed());
            // SAFETY: `number` is at most 7, so these bytes end within the bounds checked above.
            let (low, high) = unsafe {
                let from = bytes.as_ptr().add(at + 2 * number);
                (_mm512_loadu_si512(from.cast()), _mm512_loadu_si512(from.add(1).cast()))
            };
            even = _mm512_add_epi16(even, _mm512_mullo_epi16(low, factor));
            odd = _mm512_add_epi16(odd, _mm512_mullo_epi16(high, factor));
        }
        if _mm512_testn_epi16_mask(_mm512_min_epu16(even, odd), mask) != 0 {
            let even = spread(_mm512_testn_epi16_mask(even, mask));
            let odd = spread(_mm512_testn_epi16_mask(odd, mask));
            if !report(even | odd << 1, at, hit) {
                return None;
            }
        }
        at += WIDTH;
    }
    Some(at)
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

/// Reports the windows at `at` plus the number of each bit that is set; whether more are wanted.
fn report(hits: u64, at: usize, hit: Hit<'_>) -> bool {
    let mut hits = hits;
    while hits != 0 {
        if !hit(at + hits.trailing_zeros() as usize) {
            return false;
        }
        hits &= hits - 1;
    }
    true
}
