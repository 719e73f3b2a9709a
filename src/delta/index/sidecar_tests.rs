//! Tests of `sidecar` and `sums`: contents, every damage, and the frozen form of version 1.

use super::*;
use crate::delta::content_id;

fn random(length: usize) -> Vec<u8> {
    let mut state = 1u64;
    let step = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    (0..length).map(step).collect()
}

/// Makes the checksum of the header fit again.
fn sign(sidecar: &mut [u8]) {
    let crc = crc32fast::hash(&sidecar[..124]);
    sidecar[124..128].copy_from_slice(&crc.to_le_bytes());
}

#[test]
fn a_sidecar_holds_what_the_chunks_do() {
    let bytes = random(CHUNK_BYTES + 100_000);
    let sidecar = build(&bytes, 7);
    let view = IndexView::parse(&sidecar).unwrap();
    assert_eq!(view.verify(), Ok(()));
    assert_eq!(view.id(), content_id(&bytes));
    assert_eq!(view.leaf(256), &content_id(&bytes[CHUNK_BYTES..][..LEAF_BYTES]).root);
    assert_eq!(view.crc(4097), crc32fast::hash(&bytes[4097 * 1024..4098 * 1024]));
    assert_eq!(view.anchor(3), view.anchors().nth(3).unwrap());
    for (number, chunk) in bytes.chunks(CHUNK_BYTES).enumerate() {
        let offset = number * CHUNK_BYTES;
        let expected = ChunkIndex::build(&bytes[..offset], chunk, offset as u64, 7, 12);
        assert!(view.chunk(number as u64) == expected, "chunk {number}");
    }
    let mean = bytes.len() / view.anchor_count().max(1);
    assert!((2048..8192).contains(&mean), "an anchor in {mean} bytes");
}

// Protects a receiver's hashes: with leaves only, and of chunks in any order, the root is the same.
#[test]
fn chunks_in_any_order_give_one_header() {
    for length in [
        0,
        1,
        CHUNK_BYTES,
        CHUNK_BYTES + 1,
        2 * CHUNK_BYTES + 70_000,
        5 * CHUNK_BYTES - 1,
    ] {
        let bytes = random(length);
        let sidecar = Sidecar::new(length as u64, Parts::Leaves, 0);
        let mut sums = Sums::new(sidecar);
        for (number, chunk) in bytes
            .chunks(CHUNK_BYTES)
            .enumerate()
            .collect::<Vec<_>>()
            .into_iter()
            .rev()
        {
            assert_eq!(sums.finish(), Err(IndexError::Length), "not all have come");
            let (number, chunk) = (number as u64, ChunkIndex::leaves_only(chunk));
            let placed = sidecar.place(number, &chunk, 0);
            assert_eq!(sums.add(number, &chunk, &placed), Ok(()));
            assert_eq!(sums.add(number, &chunk, &placed), Err(IndexError::Length), "twice");
            assert_eq!(
                sums.add(number + 5, &chunk, &placed),
                Err(IndexError::Length),
                "none such"
            );
        }
        let (id, mut file) = sums.finish().unwrap();
        assert_eq!(id, content_id(&bytes), "{length}");
        file.extend(crate::delta::index::leaves_of(&bytes).concat());
        assert_eq!(
            IndexView::parse(&file).and_then(|view| view.verify()),
            Ok(()),
            "{length}"
        );
    }
}

// Row 10: cut or longer by any number of bytes, it is refused.
#[test]
fn row_10_any_other_length_is_refused() {
    let whole = build(&random(40_000), 7);
    for length in 0..whole.len() {
        assert!(IndexView::parse(&whole[..length]).is_err(), "{length}");
    }
    let longer = [&whole[..], &[0]].concat();
    assert_eq!(IndexView::parse(&longer).err(), Some(IndexError::Length));
}

// Row 10: numbers at their ends do not overflow, and are refused.
#[test]
fn row_10_forged_numbers_are_refused() {
    let whole = build(&random(40_000), 7);
    for at in [16, 64] {
        for value in [0, 1, 1 << 40, u64::MAX / 32, u64::MAX - 16_000, u64::MAX] {
            let mut forged = whole.clone();
            forged[at..at + 8].copy_from_slice(&value.to_le_bytes());
            sign(&mut forged);
            assert!(IndexView::parse(&forged).is_err(), "{value} at {at}");
        }
    }
    for (at, value) in [(7, 2), (8, 2), (12, 11), (12, 45), (100, 1)] {
        let mut forged = whole.clone();
        forged[at] = value;
        sign(&mut forged);
        assert_eq!(
            IndexView::parse(&forged).err(),
            Some(IndexError::Format),
            "{value} at {at}"
        );
    }
    let swapped = {
        let mut forged = whole.clone();
        let end = forged.len();
        let (first, second) = (end - 2 * ANCHOR_BYTES, end - ANCHOR_BYTES);
        let last = forged[second..].to_vec();
        forged.copy_within(first..second, second);
        forged[first..second].copy_from_slice(&last);
        forged
    };
    assert_eq!(IndexView::parse(&swapped).err(), Some(IndexError::Damaged));
}

// I8: no bit can flip unnoticed, but those of the stamp, which has a checksum of its own.
#[test]
fn every_flipped_bit_is_found() {
    let whole = build(&random(20_000), 7);
    for at in (0..STAMP_OFFSET as usize).chain(HEAD_BYTES..whole.len()) {
        let mut damaged = whole.clone();
        damaged[at] ^= 1 << (at % 8);
        let found = IndexView::parse(&damaged).and_then(|view| view.verify());
        assert!(found.is_err(), "byte {at}");
    }
}

// Row 46 in kind: a leaf that is wrong under right checksums is found by the root.
#[test]
fn a_forged_leaf_is_found_by_the_root() {
    let mut forged = build(&random(20_000), 7);
    forged[HEAD_BYTES] ^= 1;
    let leaves = crc32fast::hash(&forged[HEAD_BYTES..HEAD_BYTES + 64]);
    forged[72..76].copy_from_slice(&leaves.to_le_bytes());
    sign(&mut forged);
    let view = IndexView::parse(&forged).unwrap();
    assert_eq!(view.verify(), Err(IndexError::Damaged));
}

/// A full sidecar of `frozen_content`, seed 5, as version 1 was released.
const FROZEN: &[u8] = include_bytes!("../../../tests/fixtures/sidecar-v1.bin");

/// 20,000 bytes: two leaves, 20 blocks, a few anchors.
fn frozen_content() -> Vec<u8> {
    (0..20_000u32)
        .map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8 ^ (at / 251) as u8)
        .collect()
}

// Protects sidecars over upgrades: the released form is written and read as it was.
#[test]
fn version_one_is_frozen() {
    let content = frozen_content();
    let fresh = build(&content, 5);
    assert!(
        fresh == FROZEN,
        "the form of a sidecar, or which places are anchors, has changed"
    );
    let view = IndexView::parse(FROZEN).unwrap();
    assert_eq!(view.verify(), Ok(()));
    assert_eq!(view.id(), content_id(&content));
    assert_eq!(
        (view.sidecar().seed, view.sidecar().bits, view.sidecar().parts),
        (5, 12, Parts::Full)
    );
    assert_eq!(view.crc(19), crc32fast::hash(&content[19 * 1024..]));
    assert_ne!(view.anchor_count(), 0);
}
