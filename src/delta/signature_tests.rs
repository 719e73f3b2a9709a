//! `patch(basis, match(signature(basis), new)) == new`, whatever they are; and hostile signatures.

use super::super::noise::random;
use super::*;
use proptest::prelude::*;

const SEED: u64 = 0x5EED;

fn sign(basis: &[u8], step: usize) -> Vec<u8> {
    let mut builder = SignatureBuilder::new(SEED);
    for part in basis.chunks(step) {
        builder.push(part);
    }
    builder.finish()
}

fn ops_of(signature: Signature, new: &[u8], budget: usize) -> (Vec<Op>, SignatureMatcher) {
    let mut matcher = SignatureMatcher::new(signature);
    let mut ops = Vec::new();
    while matcher.step(new, budget, &mut |op| ops.push(op)) == Matching::More {}
    (ops, matcher)
}

fn plan(basis: &[u8], new: &[u8]) -> Vec<Op> {
    ops_of(Signature::parse(&sign(basis, 10_000)).unwrap(), new, 1 << 20).0
}

/// What the operations make of the basis, with the new bytes taken from the new content.
fn patch(basis: &[u8], new: &[u8], ops: &[Op]) -> Vec<u8> {
    let (mut out, mut cursor) = (Vec::new(), 0);
    for op in ops {
        let at = out.len();
        match *op {
            Op::Copy { from, length } => {
                assert!(length > 0);
                cursor = (from + length) as usize;
                out.extend_from_slice(&basis[from as usize..cursor]);
            }
            Op::Literal { length } => out.extend_from_slice(&new[at..at + length as usize]),
            Op::Edit { length } => {
                out.extend_from_slice(&new[at..at + length as usize]);
                cursor += length as usize;
                assert!(cursor <= basis.len());
            }
        }
    }
    out
}

/// Bytes of the plan that the operations make.
fn cost(new: &[u8], ops: &[Op]) -> usize {
    let mut plan = crate::delta::PlanEncoder::new();
    let mut at = 0;
    for op in ops {
        let bytes = &new[at..][..op.length() as usize];
        at += bytes.len();
        match *op {
            Op::Copy { from, length } => plan.copy(from, length),
            Op::Literal { .. } => plan.literal(bytes),
            Op::Edit { .. } => plan.edit(bytes),
        }
    }
    plan.finish();
    plan.take_output().len()
}

fn edits() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
    let alphabet = prop_oneof![Just(1u8), Just(3), Just(255)];
    let parts = prop::collection::vec((any::<u16>(), any::<u16>(), any::<u8>()), 0..12);
    (any::<u64>(), 0..60_000usize, alphabet, parts).prop_map(|(seed, length, alphabet, parts)| {
        let basis: Vec<u8> = random(seed, length).iter().map(|byte| byte % alphabet).collect();
        let mut new = basis.clone();
        for (at, count, kind) in parts {
            let at = usize::from(at) % (new.len() + 1);
            let end = (at + usize::from(count) % 3_000).min(new.len());
            match kind % 4 {
                0 => drop(new.drain(at..end)),
                1 => drop(new.splice(at..at, random(count.into(), usize::from(count) % 700))),
                2 => new[at..end].fill(kind),
                _ => {
                    let moved: Vec<u8> = new.drain(at..end).collect();
                    let to = usize::from(count) % (new.len() + 1);
                    drop(new.splice(to..to, moved));
                }
            }
        }
        (basis, new)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    // The promise of the delta: the result is the new content, and costs at most that and one percent.
    #[test]
    fn the_result_is_the_new_content((basis, new) in edits(), budget in 1..5_000usize) {
        let encoded = sign(&basis, 1 + budget);
        prop_assert_eq!(&encoded, &sign(&basis, 1 << 20));
        let ops = plan(&basis, &new);
        prop_assert!(patch(&basis, &new, &ops) == new);
        let cost = cost(&new, &ops);
        prop_assert!(cost <= new.len() + new.len() / 100 + 9, "{cost} of {}", new.len());
        let (sliced, _) = ops_of(Signature::parse(&encoded).unwrap(), &new, budget);
        prop_assert_eq!(sliced, ops);
    }
}

/// Each kind of change is told as what it is.
#[test]
fn operations_are_joined() {
    let basis = random(1, 100_000);
    let mut edited = basis.clone();
    edited[50_000] ^= 1;
    let whole = |from, length| Op::Copy { from, length };
    assert_eq!(plan(&basis, &basis), [whole(0, 100_000)]);
    let around = 50_000 / 512 * 512;
    assert_eq!(
        plan(&basis, &edited),
        [
            whole(0, around),
            Op::Edit { length: 512 },
            whole(around + 512, 100_000 - around - 512)
        ]
    );
    let inserted = [b"front", &basis[..]].concat();
    assert_eq!(plan(&basis, &inserted), [Op::Literal { length: 5 }, whole(0, 100_000)]);
    let appended = [&basis[..], b"behind"].concat();
    let tail = 100_000 % 512;
    assert_eq!(
        plan(&basis, &appended),
        [whole(0, 100_000 - tail), Op::Literal { length: tail + 6 }]
    );
    assert_eq!(plan(&basis, b""), []);
    assert_eq!(plan(b"", b"new"), [Op::Literal { length: 3 }]);
    assert_eq!(plan(b"small", b"small"), [whole(0, 5)]);
    assert_eq!(plan(b"small", b"smile"), [Op::Edit { length: 5 }]);
}

/// Row 13 of the threats: runs and repeats become few operations, and each position compares few blocks.
#[test]
fn repeats_do_not_explode() {
    let zeros = vec![0; 2 << 20];
    let mut period: Vec<u8> = random(1, 700).repeat(3_000);
    for basis in [&zeros, &period.clone()] {
        let (ops, matcher) = ops_of(Signature::parse(&sign(basis, 1 << 20)).unwrap(), basis, 1 << 16);
        assert_eq!(ops.len(), 1, "{ops:?}");
        assert!(matcher.comparisons() <= 2 * basis.len() as u64 / 512);
    }
    period.rotate_left(100);
    let ops = plan(&random(1, 700).repeat(3_000), &period);
    assert!(ops.len() < 10, "{ops:?}");
}

/// A forged signature: all blocks have the hash that every window of the content has. At most 16
/// comparisons a position and a linear budget, then everything is sent.
#[test]
fn equal_weak_hashes_cost_a_bounded_number_of_comparisons() {
    let new = vec![7; 100_000];
    let honest = sign(&new, 1 << 20);
    let mut forged = sign(&vec![0; 16 << 20], 1 << 20);
    for (number, pair) in forged[HEADER_BYTES..].chunks_exact_mut(HASH_BYTES).enumerate() {
        pair[..4].copy_from_slice(&honest[HEADER_BYTES..HEADER_BYTES + 4]);
        pair[4..].copy_from_slice(&(number as u32).to_le_bytes());
    }
    let mut matcher = SignatureMatcher::new(Signature::parse(&forged).unwrap());
    let (mut ops, mut steps) = (Vec::new(), 0u64);
    while matcher.step(&new, 10_000, &mut |op| ops.push(op)) == Matching::More {
        steps += 1;
    }
    assert_eq!(ops, [Op::Literal { length: 100_000 }]);
    let positions = new.len() as u64 - 511;
    assert!(
        matcher.comparisons() <= positions * (CANDIDATES_MAX as u64 + 1),
        "{}",
        matcher.comparisons()
    );
    // Each step ends within one position of its budget.
    assert!(
        steps * 10_000 >= matcher.comparisons() * COMPARISON_COST as u64 / 2,
        "{steps} steps"
    );
}

/// Rows 10 and 11 of the threats: every length is compared before anything is taken.
#[test]
fn lengths_of_a_signature_are_checked() {
    let good = sign(&random(1, 5_000), 1 << 20);
    assert!(Signature::parse(&good).is_ok());
    for length in 0..good.len() {
        assert!(matches!(Signature::parse(&good[..length]), Err(SignatureError::Length)));
    }
    assert!(Signature::parse(&[&good[..], b"x"].concat()).is_err());
    let with = |at: usize, bytes: &[u8]| {
        let mut changed = good.clone();
        changed[at..at + bytes.len()].copy_from_slice(bytes);
        Signature::parse(&changed).err()
    };
    for block in [0u32, 1, 511, 65_537, u32::MAX] {
        assert_eq!(with(8, &block.to_le_bytes()), Some(SignatureError::Limit), "{block}");
    }
    for length in [MEDIUM_BYTES_MAX + 1, u64::MAX] {
        assert_eq!(with(12, &length.to_le_bytes()), Some(SignatureError::Limit));
    }
    for length in [0u64, 4_000, 6_000, MEDIUM_BYTES_MAX] {
        assert_eq!(with(12, &length.to_le_bytes()), Some(SignatureError::Length));
    }
}

/// The rolled hash is the hash, at every position.
#[test]
fn rolling_is_hashing() {
    let bytes = random(3, 3_000);
    let hasher = Hasher::new(SEED, 513);
    let mut weak = hasher.weak(&bytes[..513]);
    for at in 0..bytes.len() - 513 {
        assert_eq!(weak, hasher.weak(&bytes[at..at + 513]), "{at}");
        weak = hasher.roll(weak, bytes[at], bytes[at + 513]);
    }
}
