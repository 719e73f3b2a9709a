//! Tests of `Record`: the frozen form, and bytes that are none.

use super::*;

fn time(seconds: i64, nanos: u32) -> Timestamp {
    Timestamp { seconds, nanos }
}

fn record(kind: Kind, root: Option<[u8; 32]>) -> Record {
    let mtime = time(1_790_000_000, 123_456_789);
    let size = match kind {
        Kind::File { size } => size,
        _ => 4096,
    };
    Record {
        state: Some(State {
            kind,
            meta: Meta { mode: 0o644, mtime },
            root,
        }),
        revision: Revision(300),
        author: Some(DeviceId([0xaa; 32])),
        identity: Some(Identity::of_parts(
            66_304,
            1_234_567,
            size,
            mtime,
            time(1_790_000_001, 5),
        )),
        at: time(-1, 999_999_999),
    }
}

fn samples() -> Vec<Record> {
    let target = b"../a".as_slice().into();
    let file = record(Kind::File { size: 5_000_000 }, Some([0xbb; 32]));
    vec![
        file.clone(),
        record(Kind::Directory, None),
        record(Kind::Symlink { target }, None),
        Record {
            identity: Some(Identity::of_parts(1, 2, 3, time(4, 5), time(6, 7))),
            ..file.clone()
        },
        Record {
            identity: None,
            author: None,
            ..file.clone()
        },
        Record {
            state: None,
            identity: None,
            revision: Revision(u64::MAX),
            at: time(i64::MIN, 0),
            ..file
        },
        Record {
            state: None,
            identity: None,
            author: None,
            revision: Revision::NONE,
            at: time(0, 0),
        },
    ]
}

/// Version 1 is frozen: an index that is in use must be read, and written, as it was.
#[test]
fn version_one_is_frozen() {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let at = "01ffc99a3b";
    let (author, root) = ("aa".repeat(32), "bb".repeat(32));
    let meta = "a40180ee89ab0d15cd5b07";
    let on_disk = "808604 87ad4b 82ee89ab0d05000000".replace(' ', "");
    let also = "802080ee89ab0d15cd5b07";
    let frozen = [
        format!("013dac02{at}{meta}c096b102{root}{author}{on_disk}"),
        format!("011aac02{at}{meta}{author}{on_disk}{also}"),
        format!("011bac02{at}{meta}042e2e2f61{author}{on_disk}{also}"),
        format!("011dac02{at}{meta}c096b102{root}{author}01020c07000000030805000000"),
        format!("0105ac02{at}{meta}c096b102{root}"),
        format!("0108ffffffffffffffffff01ffffffffffffffffff0100000000{author}"),
        "0100000000000000".to_owned(),
    ];
    for (record, frozen) in samples().iter().zip(&frozen) {
        assert_eq!(&hex(&record.encode()), frozen, "{record:?}");
    }
    assert_eq!(samples().len(), frozen.len());
}

#[test]
fn what_was_written_is_read() {
    for record in samples() {
        let bytes = record.encode();
        assert_eq!(Record::decode(&bytes), Ok(record.clone()));
        assert_eq!(Record::peek(&bytes), Ok((record.revision, record.is_live())));
    }
}

/// No file has such a size, no link such a target: neither may go on from here, to a peer or to a disk.
#[test]
fn what_no_file_system_has_is_no_record() {
    let read = |kind: Kind| Record::decode(&record(kind, None).encode());
    let largest = Kind::File { size: FILE_BYTES_MAX };
    assert!(read(largest).is_ok());
    for size in [FILE_BYTES_MAX + 1, u64::MAX] {
        assert_eq!(read(Kind::File { size }), Err(BadRecord), "{size}");
    }
    for target in [&b""[..], b"a\0b", b"\0"] {
        let target = target.into();
        assert_eq!(read(Kind::Symlink { target }), Err(BadRecord));
    }
}

/// Whatever a damaged file holds: no panic, and nothing is read that would be written in another way.
#[test]
fn what_was_read_is_written_as_it_was() {
    for record in samples() {
        let bytes = record.encode();
        for length in 0..bytes.len() {
            assert_eq!(Record::decode(&bytes[..length]), Err(BadRecord), "{length}");
        }
        assert_eq!(Record::decode(&[&bytes[..], &[0]].concat()), Err(BadRecord));
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[at] ^= 1 << bit;
                if let Ok(read) = Record::decode(&flipped) {
                    assert_eq!(read.encode(), flipped, "byte {at} bit {bit}");
                }
            }
        }
    }
}
