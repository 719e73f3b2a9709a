//! Tests of `replay`: whatever happens to the bytes, nothing is believed that was not written.

use super::super::fixtures::{ELSEWHERE, HERE, Written, incoming, reached, unfinished};
use super::super::subject::{Reached, Unfinished};
use super::*;
use std::collections::HashSet;

fn entries(replay: &Replay) -> Vec<Unfinished> {
    replay.table.iter().cloned().collect()
}

/// All that a journal has said at some time, as it may come out of it.
fn ever_said(written: &Written) -> HashSet<String> {
    let mut said = HashSet::new();
    let ends = written.starts.iter().skip(1).copied();
    for end in ends.chain([written.bytes.len()]) {
        let found = replay(&written.bytes[..end], &HERE).unwrap().unwrap();
        said.extend(entries(&found).iter().map(|entry| format!("{entry:?}")));
    }
    said
}

fn assert_said(said: &HashSet<String>, found: &Replay, what: &str) {
    for mut entry in entries(found) {
        if entry.proven {
            assert!(said.contains(&format!("{entry:?}")), "{what}: {entry:?}");
        } else {
            entry.proven = true;
            assert!(said.contains(&format!("{entry:?}")), "{what}: {entry:?}");
        }
    }
}

/// Row 46 of the threats, torn: every prefix gives what its whole records say, and the rest is cut.
#[test]
fn row_46_every_prefix_is_cut_to_its_whole_records() {
    let written = Written::of(HERE, 6);
    let ends: Vec<usize> = written.starts[1..]
        .iter()
        .copied()
        .chain([written.bytes.len()])
        .collect();
    for length in 0..=written.bytes.len() {
        let found = replay(&written.bytes[..length], &HERE).unwrap();
        let whole = ends.iter().filter(|&&end| end <= length).count();
        match found {
            None => assert!(length < HEADER_BYTES, "{length}"),
            Some(found) => {
                assert_eq!(found.records, whole as u64, "{length}");
                assert_eq!(found.next_sequence, whole as u64 + 1, "{length}");
                let tail = if whole == 0 { HEADER_BYTES } else { ends[whole - 1] };
                assert_eq!(found.tail, tail, "{length}");
            }
        }
    }
    let all = replay(&written.bytes, &HERE).unwrap().unwrap();
    assert_eq!(all.table.len(), 4);
    assert!(entries(&all).iter().all(|entry| entry.proven));
    // The room behind may read as zeros after a power cut.
    let zeros = [&written.bytes[..], &[0; 5000]].concat();
    assert_eq!(replay(&zeros, &HERE).unwrap().unwrap().tail, written.bytes.len());
}

/// Row 46, flipped: each byte of a journal, in each of its bits. In the last record it is cut, anywhere
/// before it is damage, named where it is.
#[test]
fn row_46_every_flipped_byte_is_cut_or_damage() {
    let written = Written::of(HERE, 6);
    let said = ever_said(&written);
    let last = *written.starts.last().unwrap();
    for at in 0..written.bytes.len() {
        for bit in 0..8 {
            let mut bytes = written.bytes.clone();
            bytes[at] ^= 1 << bit;
            match replay(&bytes, &HERE) {
                Ok(found) => {
                    let found = found.unwrap();
                    assert!(at >= last, "byte {at}, bit {bit} was believed");
                    assert_eq!(found.tail, last);
                    assert_said(&said, &found, &format!("byte {at}, bit {bit}"));
                }
                Err(Fault::Damaged {
                    at: begin,
                    before,
                    behind,
                }) => {
                    let index = written.starts.iter().rposition(|&start| start <= at);
                    let begins = index.map_or(0, |index| written.starts[index]);
                    assert_eq!(begin, begins as u64, "byte {at}, bit {bit}");
                    assert_eq!(before, index.unwrap_or(0) as u64, "byte {at}, bit {bit}");
                    let others = written.starts.len() as u64 - u64::from(index.is_some());
                    assert_eq!(before + behind, others, "byte {at}, bit {bit}");
                }
                Err(Fault::Version(_)) => panic!("byte {at}, bit {bit}"),
            }
            let salvaged = salvage(&bytes);
            assert_said(&said, &salvaged, &format!("salvaged, byte {at}, bit {bit}"));
            assert!(
                salvaged.records >= written.starts.len() as u64 - 1,
                "byte {at}, bit {bit}"
            );
        }
    }
}

/// Row 46, duplicated: a record again at the end says nothing; in the middle something is wrong.
#[test]
fn row_46_repeated_records_are_cut_at_the_end_and_damage_before() {
    let written = Written::of(HERE, 6);
    let (last, bytes) = (*written.starts.last().unwrap(), &written.bytes);
    let twice = [bytes, &bytes[last..]].concat();
    let found = replay(&twice, &HERE).unwrap().unwrap();
    assert_eq!((found.tail, found.records), (bytes.len(), written.starts.len() as u64));
    let all_again = [bytes, &bytes[HEADER_BYTES..]].concat();
    assert_eq!(replay(&all_again, &HERE).unwrap().unwrap().tail, bytes.len());
    let (from, to) = (written.starts[3], written.starts[4]);
    let inside = [&bytes[..to], &bytes[from..to], &bytes[to..]].concat();
    let expected = Fault::Damaged {
        at: to as u64,
        before: 4,
        behind: written.starts.len() as u64 - 4,
    };
    assert_eq!(replay(&inside, &HERE).unwrap_err(), expected);
    assert_eq!(entries(&salvage(&inside)).len(), 4);
    let without = [&bytes[..from], &bytes[to..]].concat();
    assert!(matches!(replay(&without, &HERE), Err(Fault::Damaged { before: 3, .. })));
}

/// Row 46, of an old epoch: records of a file that had this name before are none.
#[test]
fn row_46_records_of_an_old_epoch_say_nothing() {
    let mut old = Written::of(HERE, 12);
    let mut written = Written::new(8, HERE);
    written.begin(&unfinished(99, incoming("new", None), Reached::default()));
    let tail = written.bytes.len();
    let behind = old.bytes.split_off(tail);
    let mixed = [&written.bytes[..], &behind].concat();
    let found = replay(&mixed, &HERE).unwrap().unwrap();
    assert_eq!((found.tail, found.records, found.table.len()), (tail, 1, 1));
    let moved = [
        &written.bytes[..HEADER_BYTES],
        &Written::of(HERE, 3).bytes[HEADER_BYTES..],
    ]
    .concat();
    assert!(replay(&moved, &HERE).unwrap().unwrap().table.is_empty());
}

/// What a power cut leaves of a file that was being made is an empty journal; what it leaves of pages
/// that were not written is skipped, but only after a power cut.
#[test]
fn row_45_pages_that_were_never_written_are_skipped_after_a_power_cut_only() {
    for length in [0, 1, HEADER_BYTES - 1, HEADER_BYTES, 5000] {
        assert!(replay(&vec![0; length], &HERE).unwrap().is_none(), "{length}");
    }
    let (here, elsewhere) = (Written::of(HERE, 90), Written::of(ELSEWHERE, 90));
    let said = ever_said(&here);
    let cut = |bytes: &[u8], from: usize| {
        let mut bytes = bytes.to_vec();
        bytes[from..8192].fill(0);
        bytes
    };
    assert!(here.bytes.len() > 16_384);
    for from in [4096, 4000, 4095] {
        let Err(Fault::Damaged { .. }) = replay(&cut(&here.bytes, from), &HERE) else {
            panic!("{from}: a page was lost without a power cut")
        };
        let found = replay(&cut(&elsewhere.bytes, from), &HERE).unwrap().unwrap();
        assert_eq!(found.tail, elsewhere.bytes.len(), "{from}");
        assert!((4096..9000).contains(&found.lost_bytes), "{}", found.lost_bytes);
        assert!(found.records < elsewhere.starts.len() as u64 - 10);
        assert!(entries(&found).iter().all(|entry| !entry.proven));
        assert_said(&said, &found, &format!("{from}"));
    }
    // Anything else in the middle is damage then, too.
    let mut flipped = elsewhere.bytes;
    flipped[5000] ^= 1;
    assert!(matches!(replay(&flipped, &HERE), Err(Fault::Damaged { .. })));
}

/// I6: what was written under another boot or mount, or under an unknown one, is not proven.
#[test]
fn what_another_boot_wrote_is_not_proven() {
    let known = |boot: Boot, here: Boot| {
        let found = replay(&Written::of(boot, 3).bytes, &here).unwrap().unwrap();
        let proven = found.table.iter().filter(|entry| entry.proven).count();
        assert!(proven == 0 || proven == found.table.len());
        proven > 0
    };
    assert!(known(HERE, HERE));
    assert!(!known(ELSEWHERE, HERE));
    assert!(!known(HERE, Boot { mount: 8, ..HERE }));
    assert!(!known(Boot::UNKNOWN, Boot::UNKNOWN));
    // One that was carried over stays so under a present header, until it is verified again.
    let mut written = Written::new(1, HERE);
    let mut entry = unfinished(1, incoming("a", None), reached(3));
    entry.proven = false;
    written.begin(&entry);
    written.reach(&entry);
    let found = replay(&written.bytes, &HERE).unwrap().unwrap();
    assert_eq!(entries(&found), [entry.clone()]);
    entry.proven = true;
    written.reach(&entry);
    let found = replay(&written.bytes, &HERE).unwrap().unwrap();
    assert_eq!(entries(&found), [entry]);
}

/// A header that is not ours, or of a later version, is never written over.
#[test]
fn another_header_with_something_behind_is_refused() {
    let foreign = [b"a text that somebody put here ".as_slice(); 9].concat();
    let expected = Fault::Damaged {
        at: 0,
        before: 0,
        behind: 0,
    };
    assert_eq!(replay(&foreign, &HERE).unwrap_err(), expected);
    let mut later = Written::of(HERE, 3).bytes;
    later[8] = 2;
    let crc = crc32fast::hash(&later[..40]);
    later[40..44].copy_from_slice(&crc.to_le_bytes());
    assert_eq!(replay(&later, &HERE).unwrap_err(), Fault::Version(2));
    let long = vec![1; JOURNAL_BYTES_MAX as usize + 1];
    let mut long = [&Written::new(1, HERE).bytes[..], &long].concat();
    assert!(matches!(replay(&long, &HERE), Err(Fault::Damaged { .. })));
    long.truncate(4 << 20);
    assert!(salvage(&long).table.is_empty());
}

/// I12: a file in which a record seems to begin at every byte is given up, not worked on for minutes.
#[test]
fn i12_a_file_made_to_be_slow_ends_as_damage() {
    // Length 4,369, epoch, a sequence that fits: but for the sum all is right, at every second byte.
    let mut bytes = Written::new(0x1111_1111, HERE).bytes;
    let header = Header {
        epoch: 0x1111_1111,
        boot: HERE,
    }
    .to_bytes();
    bytes[..HEADER_BYTES].copy_from_slice(&header);
    bytes.resize(2 << 20, 0x11);
    let mut scanner = Scanner::new(&bytes, HEADER_BYTES, None, 0x1111_1111_1111_1111);
    // The type is wrong, so that nothing is even summed up.
    assert!(matches!(scanner.next(), Found::Nothing));
    // Types that fit, once in a hundred bytes, with the longest records that can be.
    let fake = [
        &4600u16.to_le_bytes()[..],
        &0x1111_1111u32.to_le_bytes(),
        &2u64.to_le_bytes(),
        &[3],
    ]
    .concat();
    for at in (HEADER_BYTES..bytes.len() - 32).step_by(fake.len()) {
        bytes[at..at + fake.len()].copy_from_slice(&fake);
    }
    let outcome = replay(&bytes, &HERE);
    assert!(matches!(
        outcome,
        Err(Fault::Damaged {
            before: 0,
            behind: 0,
            ..
        })
    ));
    assert!(salvage(&bytes).table.is_empty());
}
