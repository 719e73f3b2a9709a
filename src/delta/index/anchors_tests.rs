//! Tests of `anchors`: the kernels agree, density, floods, and that places move with their content.

use super::*;
use proptest::prelude::*;

fn random(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let step = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    (0..length).map(step).collect()
}

/// The text of the definition, one position at a time.
fn by_definition(before: &[u8], bytes: &[u8], offset: u64, bits: u32, per_leaf_max: usize) -> Vec<Anchor> {
    let all = [before, bytes].concat();
    let mut found: Vec<Anchor> = Vec::new();
    for end in (before.len() + 1).max(CONTEXT_BYTES)..=all.len() {
        let window = &all[end - WINDOW_BYTES..end];
        let words = window.chunks(2).map(|word| u16::from_le_bytes([word[0], word[1]]));
        let hash = words.zip(FACTORS).fold(HASH_START, |hash, (word, factor)| {
            hash.wrapping_add(word.wrapping_mul(factor))
        });
        let position = offset + (end - before.len()) as u64;
        let leaf = |position: u64| (position - 1) / LEAF_BYTES as u64;
        let same = found.iter().filter(|other| leaf(other.position) == leaf(position));
        if hash >> 4 == 0 && is_sparse_anchor(window, bits) && same.count() < per_leaf_max {
            let fingerprint = xxh3_64(&all[end - CONTEXT_BYTES..end]) as u32;
            found.push(Anchor { position, fingerprint });
        }
    }
    found
}

fn hits(run: impl Fn(Hit<'_>)) -> Vec<usize> {
    let mut found = Vec::new();
    run(&mut |at| {
        found.push(at);
        true
    });
    found
}

/// Bytes with many anchors: a window that is one, among random bytes.
fn rich(length: usize, seed: u64) -> Vec<u8> {
    let mut bytes = random(length, seed);
    let pool = random(100_000, 99);
    let anchors = hits(|hit| find_portable(&pool, 0, hit));
    for (turn, start) in (0..length.saturating_sub(40)).step_by(37).enumerate() {
        let window = anchors[turn % anchors.len()];
        bytes[start..start + WINDOW_BYTES].copy_from_slice(&pool[window..window + WINDOW_BYTES]);
    }
    bytes
}

#[cfg(target_arch = "x86_64")]
fn kernels() -> Vec<Kernel> {
    [Kernel::avx2(), Kernel::avx512()].into_iter().flatten().collect()
}

// Protects what two machines agree on: every kernel finds the same windows, at every length and alignment.
#[cfg(target_arch = "x86_64")]
#[test]
fn kernels_agree_at_every_length_and_alignment() {
    let bytes = rich(700, 3);
    for start in 0..64 {
        for length in 0..400 {
            let part = &bytes[start..start + length];
            let expected = hits(|hit| find_portable(part, 0, hit));
            for kernel in kernels() {
                let found = hits(|hit| {
                    let done = kernel.find(part, hit).expect("more was wanted");
                    find_portable(part, done, hit);
                });
                assert_eq!(found, expected, "{kernel:?} {start} {length}");
            }
        }
    }
}

#[test]
fn runs_of_one_value_have_no_anchor_and_dense_periods_stay_within_the_limit() {
    for value in 0..=255u8 {
        let mut found = Vec::new();
        scan_anchors(&[value; 64], &[value; 1000], 0, 12, &mut found);
        assert_eq!(found, [], "{value}");
    }
    // Every second position is an anchor.
    let factors = FACTORS.iter().fold(0u16, |sum, factor| sum.wrapping_add(*factor));
    let word = (0..=u16::MAX)
        .find(|word| word.wrapping_mul(factors).wrapping_add(HASH_START) & HASH_MASK == 0)
        .unwrap();
    let flood = word.to_le_bytes().repeat(4 * LEAF_BYTES / 2);
    let mut found = Vec::new();
    scan_anchors(&[], &flood, 0, 12, &mut found);
    assert_eq!(found.len(), 4 * ANCHORS_PER_LEAF_MAX);
    found.clear();
    search_anchors(&[], &flood, 0, 12, usize::MAX, &mut found);
    assert!(found.len() >= 4 * LEAF_BYTES / 2 - CONTEXT_BYTES);
}

#[test]
fn density_is_near_one_in_4_kib_whatever_the_kind_of_content() {
    let letters = random(1 << 20, 5);
    let words = [
        "sync", "file", " the", "of a", "    ", "\n", "with", "return", "0x", "if (", ");\n", "int ",
    ];
    let text: Vec<u8> = letters
        .iter()
        .flat_map(|pick| words[usize::from(*pick) % words.len()].bytes())
        .take(4 << 20)
        .collect();
    let wide: Vec<u8> = random(2 << 20, 7)
        .iter()
        .flat_map(|byte| [b'a' + byte % 26, 0])
        .collect();
    let counters: Vec<u8> = (0..1u32 << 20).flat_map(u32::to_le_bytes).collect();
    let floats: Vec<u8> = (0..1u32 << 19)
        .flat_map(|n| (f64::from(n) * 0.37).to_le_bytes())
        .collect();
    let contents = [random(4 << 20, 1), text, wide, counters, floats];
    let means = contents.map(|bytes| {
        let mut found = Vec::new();
        scan_anchors(&[], &bytes, 0, 12, &mut found);
        bytes.len() / found.len().max(1)
    });
    assert!(
        means.iter().all(|mean| (1_500..12_000).contains(mean)),
        "an anchor in {means:?} bytes"
    );
}

#[test]
fn sparse_anchors_are_some_of_the_dense_ones() {
    assert_eq!([0, 1, 4 << 30].map(anchor_bits), [12; 3]);
    assert_eq!(anchor_bits((4 << 30) + 1), 13);
    assert_eq!(anchor_bits(1 << 40), 20);
    assert_eq!(anchor_bits(u64::MAX), ANCHOR_BITS_MAX);
    let bytes = rich(300_000, 8);
    let of = |bits| {
        let mut found = Vec::new();
        search_anchors(&[], &bytes, 0, bits, usize::MAX, &mut found);
        found
    };
    let (dense, sparse) = (of(12), of(14));
    assert!(sparse.iter().all(|anchor| dense.contains(anchor)));
    assert!(
        (dense.len() / 8..dense.len() / 2).contains(&sparse.len()),
        "{} of {}",
        sparse.len(),
        dense.len()
    );
    assert_eq!(of(ANCHOR_BITS_MAX), []);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    // Protects the seam and the limit: any cut of any bytes gives what the definition says.
    #[test]
    fn any_slice_gives_what_the_definition_says(
        seed: u64, before in 0usize..200, length in 0usize..20_000, offset in 200u64..100_000, limit in 1usize..300,
    ) {
        let bytes = rich(before + length, seed);
        let (before, part) = bytes.split_at(before);
        let mut found = Vec::new();
        search_anchors(before, part, offset, 12, limit, &mut found);
        let near = &before[before.len().saturating_sub(CONTEXT_BYTES)..];
        prop_assert_eq!(found, by_definition(near, part, offset, 12, limit));
    }

    // Protects the search for moved content: the same places are found, wherever they stand.
    #[test]
    fn places_move_with_their_content(seed: u64, shift in 0usize..40_000, length in 64usize..60_000) {
        let content = random(length, seed);
        let moved = [random(shift, !seed), content.clone()].concat();
        let (mut old, mut new) = (Vec::new(), Vec::new());
        search_anchors(&[], &content, 0, 12, usize::MAX, &mut old);
        search_anchors(&moved[..shift], &moved[shift..], shift as u64, 12, usize::MAX, &mut new);
        old.iter_mut().for_each(|anchor| anchor.position += shift as u64);
        new.retain(|anchor| anchor.position >= (shift + CONTEXT_BYTES) as u64);
        prop_assert_eq!(old, new);
    }

    // Protects indexes made chunk by chunk: cuts at leaves change nothing.
    #[test]
    fn cuts_at_leaves_change_nothing(seed: u64, length in 0usize..150_000, leaves in 1usize..4) {
        let bytes = rich(length, seed);
        let mut whole = Vec::new();
        scan_anchors(&[], &bytes, 0, 12, &mut whole);
        let mut parts = Vec::new();
        for (number, part) in bytes.chunks(leaves * LEAF_BYTES).enumerate() {
            let at = number * leaves * LEAF_BYTES;
            scan_anchors(&bytes[..at], part, at as u64, 12, &mut parts);
        }
        prop_assert_eq!(whole, parts);
    }
}
