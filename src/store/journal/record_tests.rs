//! Tests of `record`: the frozen bytes, and what is never taken for a record.

use super::super::fixtures::{HERE, identity, incoming, patched, path, reached, unfinished};
use super::*;
use crate::model::limits::PATH_BYTES_MAX;

const STAMP: Stamp = Stamp { epoch: 2, sequence: 3 };

/// Something that is done to the content of a record.
type Change<'a> = &'a dyn Fn(&mut Vec<u8>);

fn sealed(content: &[u8]) -> Vec<u8> {
    [content, &crc32fast::hash(content).to_le_bytes()].concat()
}

fn read(bytes: &[u8]) -> Option<Record> {
    let candidate = look(bytes, Some(2), &(3..=3))?;
    assert_eq!(candidate.bytes.len(), bytes.len());
    candidate.decode()
}

/// The bytes of version 1, written and read.
#[test]
fn version_one_is_frozen() {
    let header = [
        &b"SYNCJRNL"[..],
        &[1, 0, 0, 0, 2, 0, 0, 0], // version, epoch
        &[0xb0; 16],               // boot
        &[9, 0, 0, 0, 0, 0, 0, 0], // mount
    ];
    let header = sealed(&header.concat());
    let known = Header { epoch: 2, boot: HERE };
    assert_eq!(known.to_bytes()[..], header);
    assert_eq!(Header::parse(header.first_chunk().unwrap()), Ok(known));

    // 1,795,224,710 seconds, in groups of seven bits.
    const SECONDS: [u8; 5] = [0x86, 0xe9, 0x83, 0xd8, 0x06];
    let head = |length: u16, kind: u8| {
        let stamp = [2, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, kind];
        [&length.to_le_bytes()[..], &stamp, &[0xef, 0xbe, 0, 0, 0, 0, 0, 0x01]].concat()
    };
    let basis: Vec<u8> = (1..=6).flat_map(|n| [n, 0, 0, 0, 0, 0, 0, 0]).collect();
    let begun = [
        &head(170, 1)[..],
        &SECONDS,
        &[0x0e],                                                       // from a known peer, a patch, in place
        &[0x80, 0x80, 0x80, 0x80, 0x80, 0x20],                         // 2^40 bytes
        &[0xfb, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 7, 0, 0, 0], // five seconds before 1970
        &[3; 32],
        &[0xf0, 0xa2, 0x04], // 70,000 bytes
        &[0xcc; 32],
        &basis,
        b"a/b\xff",
    ];
    let begun = begun.concat();
    let mut entry = unfinished(0x0100_0000_0000_beef, patched("x"), Reached::default());
    let Subject::Incoming(file) = &mut entry.subject else {
        unreachable!()
    };
    file.path = RelPath::parse(b"a/b\xff").unwrap();
    assert_eq!(begin(STAMP, &entry), sealed(&begun));
    assert_eq!(read(&sealed(&begun)), Some(Record::Begin(entry.clone())));

    let reached_bytes = [
        &head(104, 2)[..],
        &SECONDS,
        &[0x80, 5], // unproven, five leaves
        &[0; 32],
        &[1; 32],
        &[2, 1, 2, 0, 0x80, 0x01], // two runs: pages 1 to 2, pages 3 to 130
    ];
    let reached_bytes = sealed(&reached_bytes.concat());
    entry.reached = reached(5);
    entry.reached.changed = vec![1..3, 3..131];
    entry.proven = false;
    assert_eq!(reach(STAMP, &entry), reached_bytes);
    let record = Record::Reach {
        id: entry.id,
        touched: entry.touched,
        proven: false,
        reached: entry.reached,
    };
    assert_eq!(read(&reached_bytes), Some(record));

    let outgoing = [&head(81, 1)[..], &SECONDS, &[1], &basis].concat();
    let entry = unfinished(entry.id.0, Subject::Outgoing(identity(1)), Reached::default());
    assert_eq!(begin(STAMP, &entry), sealed(&outgoing));
    assert_eq!(read(&sealed(&outgoing)), Some(Record::Begin(entry.clone())));

    let ended = sealed(&head(27, 3));
    assert_eq!(end(STAMP, entry.id), ended);
    assert_eq!(read(&ended), Some(Record::End(entry.id)));
}

/// Row 1 of the threats: a path in a journal is as foreign as one from the network.
#[test]
fn row_01_a_path_that_leaves_the_root_is_no_record() {
    let entry = unfinished(1, incoming("abcdefghi", None), Reached::default());
    let bytes = begin(STAMP, &entry);
    let at = bytes.len() - 4 - 9;
    assert_eq!(&bytes[at..at + 9], b"abcdefghi");
    for hostile in [
        &b"../../etc"[..],
        b"/absolute",
        b"a//bcdefg",
        b"a/./bcdef",
        b"abcd\0efgh",
        b".syncline",
    ] {
        let mut content = bytes[..at].to_vec();
        content.extend_from_slice(hostile);
        assert_eq!(read(&sealed(&content)), None, "{}", hostile.escape_ascii());
    }
    let mut empty = bytes[..at].to_vec();
    empty[..2].copy_from_slice(&(at as u16 + 4).to_le_bytes());
    assert_eq!(read(&sealed(&empty)), None);
}

/// Row 10: the right sum does not make sense of a position, a count or a flag.
#[test]
fn row_10_numbers_that_cannot_be_are_no_record() {
    let entry = unfinished(1, incoming("a", None), reached(3));
    let position = reach(STAMP, &entry);
    let payload = HEAD_BYTES + 8;
    let altered = |bytes: &[u8], change: Change<'_>| {
        let mut content = bytes[..bytes.len() - 4].to_vec();
        change(&mut content);
        let length = (content.len() + 4) as u16;
        content[..2].copy_from_slice(&length.to_le_bytes());
        read(&sealed(&content))
    };
    assert!(altered(&position, &|_| {}).is_some());
    let runs = position.len() - 5;
    let wrong: [Change<'_>; 9] = [
        &|bytes| bytes[15] = 0,                                  // no id
        &|bytes| bytes[payload + 5] = 1,                         // an unknown flag
        &|bytes| bytes[payload + 6] = 7,                         // one root too few
        &|bytes| bytes[payload + 6] = 4,                         // one too many
        &|bytes| bytes[runs] = 65,                               // more runs than there may be
        &|bytes| bytes.splice(runs.., [1, 5, 0]).for_each(drop), // an empty run
        &|bytes| bytes.splice(runs.., [2, 5, 1]).for_each(drop), // one run is missing
        &|bytes| bytes.push(0),                                  // and something behind
        &|bytes| {
            let huge = [[0xff; 9].as_slice(), &[1]].concat(); // an end beyond 2^64
            bytes.splice(runs.., [&[1][..], &huge, &huge].concat()).for_each(drop);
        },
    ];
    for (number, change) in wrong.iter().enumerate() {
        assert_eq!(altered(&position, change), None, "{number}");
    }
    let begun = begin(STAMP, &entry);
    for flags in [OUTGOING | PEER, IN_PLACE, 16, 64] {
        assert_eq!(altered(&begun, &|bytes| bytes[payload + 5] = flags), None, "{flags}");
    }
    let nanos = payload + 6 + 6 + 8;
    let bad_time = 1_000_000_000u32.to_le_bytes();
    let change = |bytes: &mut Vec<u8>| bytes[nanos..nanos + 4].copy_from_slice(&bad_time);
    assert_eq!(altered(&begun, &change), None);
    assert!(altered(&begun, &|bytes| bytes[nanos] = 8).is_some());
    assert_eq!(altered(&begun, &|bytes| bytes[14] = 4), None);
}

/// The bound on a record holds for the longest that can be.
#[test]
fn the_longest_records_stay_below_their_bound() {
    let name = "n".repeat(255);
    let longest = [name.as_str(); 16].join("/");
    assert_eq!(longest.len(), PATH_BYTES_MAX - 1);
    let Subject::Incoming(mut file) = patched("x") else {
        unreachable!()
    };
    file.path = path(&longest);
    file.size = FILE_BYTES_MAX;
    let mut entry = unfinished(u64::MAX, Subject::Incoming(file), Reached::default());
    entry.touched = i64::MAX;
    let stamp = Stamp {
        epoch: u32::MAX,
        sequence: u64::MAX,
    };
    let begun = begin(stamp, &entry);
    assert!(begun.len() < RECORD_BYTES_MAX, "{}", begun.len());
    entry.reached = reached((1 << 49) - 1);
    entry.reached.changed = (0..JOURNAL_RUNS_MAX as u64)
        .map(|n| (2 * n + 1) << 56..(2 * n + 2) << 56)
        .collect();
    assert!(entry.reached.is_sound());
    let position = reach(stamp, &entry);
    assert!(position.len() < RECORD_BYTES_MAX, "{}", position.len());
    for bytes in [begun, position] {
        let candidate = look(&bytes, None, &(0..=u64::MAX)).unwrap();
        assert!(candidate.decode().is_some());
    }
}
