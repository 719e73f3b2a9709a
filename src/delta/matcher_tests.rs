//! Plans of random and adversarial pairs, their bytes, and what they cost.

use super::*;
use crate::delta::index::{Sidecar, anchor_bits, build};
use crate::delta::plan::{Instruction, PlanDecoder, PlanEncoder};
use proptest::prelude::*;

const SEED: u64 = 0x5eed;

/// A source of bytes that a test can name.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        std::iter::repeat_with(|| self.next().to_le_bytes())
            .take(length.div_ceil(8))
            .flatten()
            .take(length)
            .collect()
    }
}

struct Outcome {
    ops: Vec<Op>,
    plan: Vec<u8>,
    work: Work,
}

/// Matches, encodes, applies and compares; also the index.
fn run(base: &[u8], new: &[u8], comparison: Comparison, budget_bytes: usize) -> Outcome {
    let sidecar = build(base, SEED);
    let view = IndexView::parse(&sidecar).unwrap();
    let mut matcher = Matcher::new(new.len() as u64, comparison);
    let mut ops = Vec::new();
    let mut chunks = Vec::new();
    loop {
        match matcher.step(&view, &mut &new[..], budget_bytes, &mut ops).unwrap() {
            Progress::Working => {}
            Progress::Chunk(index) => chunks.push(index),
            Progress::Done => break,
        }
    }
    let bits = anchor_bits(new.len() as u64);
    for (number, bytes) in new.chunks(CHUNK_BYTES).enumerate() {
        let offset = number * CHUNK_BYTES;
        let built = ChunkIndex::build(&new[..offset], bytes, offset as u64, SEED, bits);
        assert!(chunks[number] == built, "the index of chunk {number}");
    }
    assert_eq!(chunks.len(), new.len().div_ceil(CHUNK_BYTES));
    let plan = encode(&ops, new);
    assert!(decode(base, &plan, new.len()) == new, "{ops:?}");
    assert!(
        plan.len() <= new.len() + new.len() / 100 + 64,
        "{} for {}",
        plan.len(),
        new.len()
    );
    Outcome {
        ops,
        plan,
        work: matcher.work(),
    }
}

fn encode(ops: &[Op], new: &[u8]) -> Vec<u8> {
    let mut encoder = PlanEncoder::new();
    let mut at = 0;
    for op in ops {
        let bytes = &new[at..at + op.length() as usize];
        match *op {
            Op::Copy { from, length } => encoder.copy(from, length),
            Op::Literal { .. } => encoder.literal(bytes),
            Op::Edit { .. } => encoder.edit(bytes),
        }
        at += bytes.len();
    }
    assert_eq!(at, new.len(), "operations cover the file");
    encoder.finish();
    encoder.take_output()
}

fn decode(base: &[u8], plan: &[u8], new_length: usize) -> Vec<u8> {
    let mut decoder = PlanDecoder::new(base.len() as u64, new_length as u64);
    let mut made = Vec::new();
    for part in plan.chunks(100_000) {
        decoder.push(part);
        while let Some(instruction) = decoder.next().unwrap() {
            match instruction {
                Instruction::Copy { from, length } => {
                    made.extend_from_slice(&base[from as usize..][..length as usize]);
                }
                Instruction::Literal(bytes) => made.extend_from_slice(bytes),
            }
        }
    }
    decoder.finish().unwrap();
    made
}

fn fast(base: &[u8], new: &[u8]) -> Outcome {
    run(base, new, Comparison::Fast, usize::MAX)
}

/// A length near something that matters.
fn length(noise: &mut Noise) -> usize {
    let sizes = [
        0,
        1,
        4,
        64,
        1024,
        2048,
        16_384,
        32_768,
        100_000,
        1 << 20,
        4 << 20,
        (4 << 20) + 16_384,
    ];
    let size = sizes[noise.below(sizes.len())];
    match noise.below(4) {
        0 => size,
        1 => size + noise.below(5),
        2 => size.saturating_sub(noise.below(5)),
        _ => noise.below(size + 3000),
    }
}

fn content(noise: &mut Noise) -> Vec<u8> {
    let length = length(noise);
    match noise.below(5) {
        0 => vec![0; length],
        1 => {
            let period = 1 + noise.below(3000);
            noise.bytes(period).into_iter().cycle().take(length).collect()
        }
        2 => {
            let mut bytes = noise.bytes(length);
            for _ in 0..noise.below(20) {
                let at = noise.below(length);
                let end = length.min(at + noise.below(50_000));
                bytes[at..end].fill(0);
            }
            bytes
        }
        _ => noise.bytes(length),
    }
}

fn change(noise: &mut Noise, bytes: &mut Vec<u8>) {
    let at = noise.below(bytes.len() + 1);
    let size = [1, 5, 300, 1024, 5000, 40_000][noise.below(6)];
    let end = bytes.len().min(at + 1 + noise.below(size));
    match noise.below(10) {
        0 | 1 => {
            let inserted = noise.bytes(size);
            bytes.splice(at..at, inserted);
        }
        2 => drop(bytes.drain(at..end)),
        3 | 4 => {
            let written = noise.bytes(end - at);
            bytes[at..end].copy_from_slice(&written);
        }
        5 => {
            let moved: Vec<u8> = bytes.drain(at..end).collect();
            let to = noise.below(bytes.len() + 1);
            bytes.splice(to..to, moved);
        }
        6 => {
            let repeated = bytes[at..end].repeat(1 + noise.below(3));
            bytes.splice(at..at, repeated);
        }
        7 => bytes[at..end].fill(0),
        8 => bytes.truncate(at),
        _ => bytes.rotate_left(at),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    // Whatever was changed, the plan makes the new file, costs at most 1 % more, and the new index is
    // that of the new file.
    #[test]
    fn a_plan_makes_the_new_file(seed in any::<u64>()) {
        let mut noise = Noise(seed);
        let base = content(&mut noise);
        let mut new = if noise.below(12) == 0 { content(&mut noise) } else { base.clone() };
        for _ in 0..noise.below(8) {
            change(&mut noise, &mut new);
        }
        let comparison = [Comparison::Fast, Comparison::Checksum][noise.below(2)];
        let whole = run(&base, &new, comparison, usize::MAX);
        let budget_bytes = 1 + noise.below(300_000);
        let sliced = run(&base, &new, comparison, budget_bytes);
        prop_assert!(whole.ops == sliced.ops, "operations depend on the budget");
    }
}

// Bytes of a plan for what people do most, of 16 MiB.
#[test]
fn usual_changes_cost_little() {
    let base = Noise(1).bytes(16 << 20);
    let outcome = fast(&base, &base);
    assert!(outcome.plan.len() <= 5, "{:?}", outcome.plan);

    let mut overwritten = base.clone();
    overwritten[5_000_000..5_004_096].fill(7);
    let outcome = fast(&base, &overwritten);
    assert!(outcome.plan.len() <= 5 * 1024 + 20, "{}", outcome.plan.len());

    let mut inserted = Noise(2).bytes(100);
    inserted.extend(&base);
    let outcome = fast(&base, &inserted);
    assert!(outcome.plan.len() <= 120, "{}: {:?}", outcome.plan.len(), outcome.ops);

    let mut appended = base.clone();
    appended.extend(Noise(3).bytes(1 << 20));
    let outcome = fast(&base, &appended);
    assert!(outcome.plan.len() <= (1 << 20) + 20, "{}", outcome.plan.len());

    let cut = &base[..10_000_123];
    let outcome = fast(&base, cut);
    assert!(outcome.plan.len() <= 1024, "{}", outcome.plan.len());
}

// An edit costs its bytes and about four more, whether of one byte or of four.
#[test]
fn scattered_edits_cost_a_few_bytes_each() {
    let base = Noise(4).bytes(16 << 20);
    for (length, count, each) in [(1, 200, 5), (2, 100, 7), (3, 50, 8), (4, 3, 12)] {
        let mut noise = Noise(5 + length as u64);
        let mut new = base.clone();
        for number in 0..count {
            let at = number * (base.len() / count) + noise.below(base.len() / count - length);
            new[at..at + length]
                .iter_mut()
                .for_each(|byte| *byte ^= 1 + noise.below(255) as u8);
        }
        let outcome = fast(&base, &new);
        // An edit across the border of two blocks costs both.
        let literals: usize = outcome
            .ops
            .iter()
            .filter(|op| matches!(op, Op::Edit { length } if *length > 4))
            .count();
        assert!(
            outcome.plan.len() <= count * each + literals * 2100 && literals <= count / 20,
            "{length}: {} bytes, {literals} literals",
            outcome.plan.len()
        );
    }
}

// Two edits in one KiB are found as such, in a file that has shown others.
#[test]
fn two_edits_in_a_block_cost_a_few_bytes() {
    let base = Noise(16).bytes(4 << 20);
    let mut new = base.clone();
    (0..20).for_each(|number| new[number * 200_000 + 77] ^= 9);
    for at in [300_000, 3_100_000] {
        new[at / 1024 * 1024] ^= 1;
        new[at / 1024 * 1024 + 1000] ^= 1;
    }
    let outcome = fast(&base, &new);
    // The first pair comes too early.
    assert!(outcome.plan.len() <= 24 * 5 + 1024, "{}", outcome.plan.len());
    assert!(outcome.plan.len() >= 1024, "{}", outcome.plan.len());
}

// Where there is nothing to find, little is looked for: at most half as much again as must be hashed.
#[test]
fn nothing_in_common_costs_little() {
    let base = Noise(8).bytes(32 << 20);
    let new = Noise(9).bytes(32 << 20);
    let outcome = fast(&base, &new);
    assert!(outcome.plan.len() <= new.len() + 200);
    let fixed = 4 * new.len() as u64;
    assert!(
        outcome.work.checked_bytes + outcome.work.hashed_bytes <= fixed + fixed / 2,
        "{:?}",
        outcome.work
    );
    assert!(outcome.work.rolled_bytes <= 8 << 20, "{:?}", outcome.work);
}

// The index of what stayed in place is complete also where the file ends within a KiB, with an anchor.
#[test]
fn anchors_of_a_short_end_are_kept() {
    let mut noise = Noise(17);
    let bytes = noise.bytes(200_000);
    let mut anchors = Vec::new();
    crate::delta::index::scan_anchors(&[], &bytes, 0, anchor_bits(200_000), &mut anchors);
    let last = anchors
        .iter()
        .find(|anchor| anchor.position % 16_384 < 900)
        .expect("one of fifty");
    let base = &bytes[..last.position as usize + 5];
    fast(base, base);
}

// THREATS row 13: repeats and zeros against anything cost bounded work.
#[test]
fn row_13_repeats_cost_bounded_work() {
    let size = 4 << 20;
    let period: Vec<u8> = Noise(10).bytes(700).into_iter().cycle().take(size).collect();
    let short: Vec<u8> = Noise(11).bytes(16).into_iter().cycle().take(size).collect();
    let zeros = vec![0; size];
    let random = Noise(12).bytes(size);
    // Each second block is zero: any window of zeros has thousands of candidates, none with a neighbour.
    let mut isolated = random.clone();
    isolated.chunks_mut(2048).for_each(|pair| pair[..1024].fill(0));
    let mut equal = random[..1024].repeat(size / 1024);
    equal.rotate_left(100);
    let all = [period, short, zeros, random, isolated, equal];
    for (first, base) in all.iter().enumerate() {
        for (second, new) in all.iter().enumerate() {
            let work = fast(base, new).work;
            let spent = work.total() / size as u64;
            assert!(spent <= 60, "{first} to {second}: {spent} per byte, {work:?}");
        }
    }
}

// A step does about as much as it may.
#[test]
fn a_step_keeps_to_its_budget() {
    let base = Noise(13).bytes(8 << 20);
    let mut new = Noise(14).bytes(8 << 20);
    new[1_000_000..5_000_000].copy_from_slice(&base[2_000_100..6_000_100]);
    let sidecar = build(&base, SEED);
    let view = IndexView::parse(&sidecar).unwrap();
    let mut matcher = Matcher::new(new.len() as u64, Comparison::Fast);
    let mut before = 0;
    loop {
        let progress = matcher.step(&view, &mut &new[..], 100_000, &mut Vec::new()).unwrap();
        let spent = matcher.work().total() - before;
        assert!(spent <= 100_000 + (2 << 20), "{spent}");
        before = matcher.work().total();
        if progress == Progress::Done {
            break;
        }
    }
}

// An index without blocks, a change of length, and an index that lies end in a plan or an error.
#[test]
fn a_poor_index_ends_in_literals() {
    let base = Noise(15).bytes(100_000);
    let whole = build(&base, SEED);
    let leaves = Sidecar::new(base.len() as u64, crate::delta::index::Parts::Leaves, SEED);
    let mut short = leaves.header(&[0; 32], 0, [0; 4]);
    short.resize(leaves.total_bytes(0) as usize, 0);
    let view = IndexView::parse(&short).unwrap();
    let mut matcher = Matcher::new(base.len() as u64, Comparison::Fast);
    let mut ops = Vec::new();
    while matcher.step(&view, &mut &base[..], 1 << 20, &mut ops).unwrap() != Progress::Done {}
    assert_eq!(ops, [Op::Literal { length: 100_000 }]);

    let view = IndexView::parse(&whole).unwrap();
    let mut matcher = Matcher::new(99_999, Comparison::Fast);
    assert_eq!(matcher.step(&view, &mut &base[..], 1, &mut Vec::new()), Err(Torn));
}
