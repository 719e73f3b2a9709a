//! Tests of `writer`: what is kept over a restart, on a full disk, and when it grows.

use super::*;
use crate::model::Timestamp;
use crate::model::limits::LEAF_BYTES;
use crate::store::journal::subject::Incoming;
use std::path::Path;

fn path(name: &str) -> RelPath {
    RelPath::parse(name.as_bytes()).unwrap()
}

fn incoming(name: &str, peer: Option<u8>) -> Subject {
    Subject::Incoming(Incoming {
        path: path(name),
        peer: peer.map(|byte| DeviceId([byte; 32])),
        size: 1 << 40,
        mtime: Timestamp { seconds: -5, nanos: 7 },
        basis: None,
    })
}

/// `leaves` verified leaves.
fn reached(leaves: u64) -> Reached {
    Reached {
        offset: leaves * LEAF_BYTES as u64,
        frontier: (0..leaves.count_ones()).map(|n| [n as u8; 32]).collect(),
        changed: Vec::new(),
    }
}

fn open(dir: &Path) -> Journal {
    Journal::open(&Root::open(dir).unwrap()).unwrap()
}

/// A restart goes on with what was said, and a place where all has ended shows nothing of it.
#[test]
fn what_was_said_is_there_after_a_restart_and_nothing_stays_at_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(dir.path());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    let first = journal.begin(&incoming("a", Some(1))).unwrap();
    let second = journal.begin(&incoming("b", None)).unwrap();
    journal.reach(first, &reached(5));
    let before: Vec<Unfinished> = journal.iter().cloned().collect();
    drop(journal);
    let mut journal = open(dir.path());
    assert_eq!(journal.iter().cloned().collect::<Vec<_>>(), before);
    assert!(before[0].proven && before[0].reached == reached(5));
    let found = journal.incoming(&path("a"), Some(&DeviceId([1; 32]))).unwrap();
    assert_eq!(found.id, first);
    assert!(journal.incoming(&path("a"), None).is_none());
    assert!(journal.incoming(&path("b"), Some(&DeviceId([1; 32]))).is_none());
    journal.end(first);
    journal.end(second);
    drop(journal);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}
