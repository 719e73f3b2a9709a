//! Tests of `undo`: the frozen bytes, and what is never taken for a record.

use super::*;

const HEADER: [u8; HEADER_BYTES] = [
    b'S', b'Y', b'N', b'C', b'U', b'N', b'D', b'O', 1, 0, 0, 0, 3, 0, 0, 0, // magic, version, path
    0x39, 0x30, 0, 0, 0, 0, 0, 0, // inode 12345
    0, 0xca, 0x9a, 0x3b, 0, 0, 0, 0, 7, 0, 0, 0, // born
    0xa4, 0x01, 0, 0, // 0644
    0, 0x10, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, // lengths
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 9, 0, 0, 0, // one second before 1970
];

fn undone() -> Undone {
    Undone {
        path: RelPath::parse(b"a/b").unwrap(),
        inode: Inode {
            number: 12_345,
            born: Some(Timestamp {
                seconds: 1_000_000_000,
                nanos: 7,
            }),
        },
        old_length: 4096,
        new_length: 5,
        meta: Meta {
            mode: 0o644,
            mtime: Timestamp { seconds: -1, nanos: 9 },
        },
    }
}

fn crc(bytes: &[u8]) -> [u8; 4] {
    crc32fast::hash(bytes).to_le_bytes()
}

/// A record as in `docs/FORMAT.md`, put together by hand.
fn frozen() -> Vec<u8> {
    let mut record = [&HEADER[..], b"a/b"].concat();
    record.extend(crc(&record));
    let range = [&[1, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 1, 0, 0, 0][..], b"old"].concat();
    record.extend([&range[..16], &crc(&range), b"old"].concat());
    let zeros = [5, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    record.extend([&zeros[..], &crc(&zeros)].concat());
    record.extend([0xff; 8]);
    record.extend([2, 0, 0, 0, 0, 0, 0, 0]);
    record.extend(crc(&record));
    record
}

/// The bytes of version 1, written and read.
#[test]
fn version_one_is_frozen() {
    let mut writer = RecordWriter::new(tempfile::tempfile().unwrap(), String::new());
    writer.put_header(&undone()).unwrap();
    writer.push(1, b"old").unwrap();
    writer.push(5, &[0; 256]).unwrap();
    writer.finish().unwrap();
    let mut bytes = vec![0; writer.at as usize];
    writer.file.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(bytes, frozen());
    let (mut reader, read) = RecordReader::open(writer.file()).unwrap();
    assert_eq!(read, undone());
    let mut buffer = Vec::new();
    let first = reader.next(&mut buffer).unwrap().unwrap();
    assert_eq!((first.offset, first.length, first.form), (1, 3, OldForm::Bytes));
    assert_eq!(buffer, b"old");
    let second = reader.next(&mut buffer).unwrap().unwrap();
    assert_eq!((second.offset, second.length, second.form), (5, 256, OldForm::Zeros));
    assert!(reader.next(&mut buffer).unwrap().is_none());
}

/// Row 10: whole, with the right sums, but ranges that leave the file, overlap, or ask for memory.
#[test]
fn ranges_that_cannot_be_are_damage() {
    let ranges: [&[(u64, u32)]; 6] = [
        &[(4_096, 1)],
        &[(4_000, 97)],
        &[(u64::MAX - 1, 5)],
        &[(0, 0)],
        &[(0, u32::MAX)],
        &[(10, 10), (19, 1)],
    ];
    for ranges in ranges {
        let mut record = frozen()[..HEADER_BYTES + 7].to_vec();
        for (offset, length) in ranges {
            let zeros = [&offset.to_le_bytes()[..], &length.to_le_bytes(), &[0; 4]].concat();
            record.extend([&zeros[..], &crc(&zeros)].concat());
        }
        record.extend([0xff; 8]);
        record.extend((ranges.len() as u64).to_le_bytes());
        record.extend(crc(&record));
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&record, 0).unwrap();
        let (mut reader, _) = RecordReader::open(&file).unwrap();
        let mut buffer = Vec::new();
        let fault = loop {
            match reader.next(&mut buffer) {
                Ok(Some(_)) => {}
                Ok(None) => panic!("{ranges:?} was taken"),
                Err(fault) => break fault,
            }
        };
        assert!(matches!(fault, RecordFault::Damaged), "{ranges:?}");
    }
}

/// Row 10: under a right sum, a time that would be an order to the system, and lengths that no file has.
#[test]
fn times_and_lengths_that_cannot_be_are_damage() {
    let altered = |at: usize, bytes: &[u8]| {
        let mut header = [&HEADER[..], b"a/b"].concat();
        header[at..at + bytes.len()].copy_from_slice(bytes);
        let sum = crc(&header);
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&[&header[..], &sum].concat(), 0).unwrap();
        RecordReader::open(&file).map(|(_, undone)| undone)
    };
    assert!(altered(64, &999_999_999u32.to_le_bytes()).is_ok());
    // UTIME_NOW and UTIME_OMIT are two of the others.
    for nanos in [1_000_000_000, (1 << 30) - 1, (1 << 30) - 2, u32::MAX] {
        let read = altered(64, &nanos.to_le_bytes());
        assert!(matches!(read, Err(RecordFault::Damaged)), "{nanos}");
    }
    for at in [40, 48] {
        assert!(altered(at, &FILE_BYTES_MAX.to_le_bytes()).is_ok());
        let read = altered(at, &(FILE_BYTES_MAX + 1).to_le_bytes());
        assert!(matches!(read, Err(RecordFault::Damaged)), "{at}");
    }
}

/// An inode number that was used again is told by its birth, where that is known.
#[test]
fn a_reused_inode_is_another() {
    let inode = undone().inode;
    let unknown = Inode { born: None, ..inode };
    let later = Inode {
        born: Some(Timestamp {
            seconds: 1_000_000_001,
            nanos: 7,
        }),
        ..inode
    };
    assert!(inode.matches(&inode) && inode.matches(&unknown) && unknown.matches(&later));
    assert!(!inode.matches(&later));
    let file = tempfile::tempfile().unwrap();
    let own = Inode::of(file.as_fd()).unwrap();
    assert_eq!(own, Inode::of(file.as_fd()).unwrap());
    assert_ne!(own.number, 0);
}
