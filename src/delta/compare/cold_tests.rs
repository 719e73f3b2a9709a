//! Pairs of files compared cold: the index that comes out, and the bytes that it takes.

use super::super::{BlocksAnswer, LeavesAnswer, TreeAnswer};
use super::*;
use crate::delta::content_id;
use crate::delta::index::{anchor_bits, build, root_of_leaves};
use proptest::prelude::*;

const SEED: u64 = 77;

fn random(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let step = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33).to_le_bytes()[..4].to_vec()
    };
    (0..length.div_ceil(4)).flat_map(step).take(length).collect()
}

#[derive(Debug)]
struct Cold {
    /// The chunks, or why there are none.
    result: Result<Vec<ChunkIndex>, Compared>,
    bytes: usize,
    questions: usize,
}

/// Both sides of a compare.
fn compare(basis: &[u8], new: &[u8]) -> Cold {
    let (old_index, new_index) = (build(basis, 1), build(new, SEED));
    let old = IndexView::parse(&old_index).unwrap();
    let view = IndexView::parse(&new_index).unwrap();
    let length = basis.len() as u64;
    let mut cold = ColdCompare::new(length, SEED, anchor_bits(new.len() as u64)).unwrap();
    let body = cold.question();
    let mut tree = TreeAnswer::new(TreeQuestion::parse(&body, length).unwrap(), length);
    while !tree.hash(&old, 1000) {}
    while let Some(range) = tree.wants() {
        tree.push(&basis[range.start as usize..range.end as usize]);
    }
    let answer = tree.finish();
    let (mut bytes, mut questions, mut chunks) = (body.len() + answer.len(), 1, Vec::new());
    cold.take(answer).unwrap();
    loop {
        let (body, answer) = match cold.step(&view, &mut &new[..], 1 << 20).unwrap() {
            Compared::Working => continue,
            Compared::AskLeaves(body) => {
                let question = RangesQuestion::parse(&body, length).unwrap();
                let (mut leaves, mut answer) = (LeavesAnswer::new(question, length), Vec::new());
                let mut limit = 100;
                while !leaves.step(&old, limit, &mut answer) {
                    limit += 1000;
                }
                (body, answer)
            }
            Compared::AskBlocks(body) => {
                let question = RangesQuestion::parse(&body, length).unwrap();
                let (mut blocks, mut answer) = (BlocksAnswer::new(question, length).unwrap(), Vec::new());
                while let Some(range) = blocks.wants() {
                    blocks.push(&basis[range.start as usize..range.end as usize], &mut answer);
                }
                (body, answer)
            }
            Compared::Chunk(number, chunk) => {
                assert_eq!(number, chunks.len() as u64);
                chunks.push(chunk);
                continue;
            }
            end => {
                let result = if end == Compared::Done { Ok(chunks) } else { Err(end) };
                return Cold {
                    result,
                    bytes,
                    questions,
                };
            }
        };
        questions += 1;
        assert_eq!(answer.len() as u64, cold.answer_bytes_max());
        bytes += body.len() + answer.len();
        cold.take(answer).unwrap();
    }
}

/// The index is that of the basis, but for anchors; gives the bytes.
fn assert_found(basis: &[u8], new: &[u8]) -> usize {
    let Cold {
        result,
        bytes,
        questions,
    } = compare(basis, new);
    let chunks = result.unwrap();
    let bits = anchor_bits(basis.len() as u64);
    for (number, part) in basis.chunks(CHUNK_BYTES).enumerate() {
        let before = &basis[..number * CHUNK_BYTES];
        let whole = ChunkIndex::build(before, part, (number * CHUNK_BYTES) as u64, SEED, bits);
        assert!(chunks[number].leaves == whole.leaves, "leaves of {number}");
        assert!(chunks[number].strong == whole.strong, "hashes of {number}");
        assert!(chunks[number].crcs == whole.crcs, "CRCs of {number}");
        let mut last = number as u64 * CHUNK_BYTES as u64;
        for anchor in &chunks[number].anchors {
            assert!(anchor.position > last, "anchors of {number} are in order");
            last = anchor.position;
        }
    }
    let leaves = chunks.iter().flat_map(|chunk| &chunk.leaves);
    assert_eq!(root_of_leaves(leaves, basis.len() as u64), Some(content_id(basis)));
    assert!(questions <= 3, "{questions} round trips");
    bytes
}

// The promise of the cold compare: few bytes and three round trips, wherever the change is.
#[test]
fn small_changes_are_found_with_few_bytes() {
    let basis = random(24 << 20, 1);
    let mut new = basis.clone();
    new[10 << 20..(10 << 20) + 4096].fill(7);
    let overwritten = assert_found(&basis, &new);
    assert!(overwritten < 2_800, "{overwritten}");
    let mut inserted = random(100, 2);
    inserted.extend_from_slice(&basis);
    let shifted = assert_found(&basis, &inserted);
    assert!(shifted < 2_500, "{shifted}");
    let cut = assert_found(&basis, &basis[12_345..]);
    assert!(cut < 2_800, "{cut}");
    let mut scattered = basis.clone();
    for at in 0..20 {
        scattered[at * 1_200_000 + 77] ^= 1;
    }
    let bytes = assert_found(&basis, &scattered);
    assert!(bytes < 9_000, "{bytes}");
}

// Several insertions: parts at different shifts, and edits among them.
#[test]
fn parts_at_different_shifts_are_found() {
    let basis = random(20 << 20, 3);
    let mut new = basis.clone();
    for at in [1 << 20, 5 << 20, 9 << 20, 14 << 20] {
        new.splice(at..at, random(333, at as u64));
    }
    new[17 << 20] ^= 1;
    new.truncate(new.len() - 5_000);
    let bytes = assert_found(&basis, &new);
    assert!(bytes < 8_000, "{bytes}");
}

// Nothing in common stays cheap, and what has moved everywhere is left to the index.
#[test]
fn what_is_strange_or_scattered_is_told_early() {
    let basis = random(18 << 20, 4);
    let strange = compare(&basis, &random(18 << 20, 5));
    assert_eq!(strange.result, Err(Compared::Strange));
    assert!(strange.questions == 1 && strange.bytes < 3_000, "{strange:?}");
    let mut parts: Vec<&[u8]> = basis.chunks(300_001).collect();
    parts.reverse();
    let scattered = compare(&basis, &parts.concat());
    assert_eq!(scattered.result, Err(Compared::AskIndex));
    let zeros = vec![0; 17 << 20];
    assert_eq!(compare(&zeros, &basis).result, Err(Compared::Strange));
}

// Answers come from outside: what does not fit is refused, in any stage.
#[test]
fn answers_of_the_wrong_length_are_refused() {
    for bytes in [0, 1, 6 * 128 + 9, 6 * 128 + 1290] {
        let mut cold = ColdCompare::new(64 << 20, SEED, 12).unwrap();
        assert!(cold.take(vec![0; bytes]).is_err(), "{bytes}");
        assert!(cold.take(Vec::new()).is_err(), "it is over");
    }
    assert!(
        ColdCompare::new(u64::MAX, SEED, 12).is_err(),
        "longer than can be asked about"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    // Protects the invariant: whatever changed, the index is complete and right, or there is none.
    #[test]
    fn an_index_is_right_or_there_is_none(
        length in 0usize..3_000_000,
        changes in prop::collection::vec((0usize..3_000_000, 0usize..50_000, 0usize..50_000), 0..6),
    ) {
        let basis = random(length, 9);
        let mut new = basis.clone();
        for (at, removed, added) in changes {
            let at = at.min(new.len());
            let end = new.len().min(at + removed);
            new.splice(at..end, random(added, at as u64));
        }
        match compare(&basis, &new).result {
            Ok(_) => drop(assert_found(&basis, &new)),
            Err(end) => prop_assert!(matches!(end, Compared::AskIndex | Compared::Strange)),
        }
    }
}
