//! Journals for tests: subjects, positions, whole files as bytes, and a machine that was restarted.

use super::boot::Boot;
use super::record::{self, HEADER_BYTES, Header, Stamp};
use super::subject::{Incoming, PlanBasis, Reached, Subject, TransferId, Unfinished};
use super::writer::Journal;
use crate::model::limits::LEAF_BYTES;
use crate::model::{ContentId, DeviceId, RelPath, Timestamp};
use crate::store::facts::Identity;
use crate::store::root::Root;
use std::path::{Path, PathBuf};

pub(super) const HERE: Boot = Boot {
    id: [0xb0; 16],
    mount: 9,
};
pub(super) const ELSEWHERE: Boot = Boot {
    id: [0xb1; 16],
    mount: 9,
};

pub(super) fn path(name: &str) -> RelPath {
    RelPath::parse(name.as_bytes()).unwrap()
}

pub(super) fn incoming(name: &str, peer: Option<u8>) -> Subject {
    Subject::Incoming(Incoming {
        path: path(name),
        peer: peer.map(|byte| DeviceId([byte; 32])),
        size: 1 << 40,
        mtime: Timestamp { seconds: -5, nanos: 7 },
        basis: None,
    })
}

/// A state of a file: its numbers are `first` and those that follow.
pub(super) fn identity(first: u8) -> Identity {
    let mut bytes = [0; Identity::BYTES];
    bytes.iter_mut().step_by(8).zip(first..).for_each(|(byte, n)| *byte = n);
    Identity::from_bytes(&bytes)
}

pub(super) fn patched(name: &str) -> Subject {
    let Subject::Incoming(whole) = incoming(name, Some(3)) else {
        unreachable!()
    };
    Subject::Incoming(Incoming {
        basis: Some(PlanBasis {
            id: ContentId {
                length: 70_000,
                root: [0xcc; 32],
            },
            identity: identity(1),
            in_place: true,
        }),
        ..whole
    })
}

/// `leaves` verified leaves.
pub(super) fn reached(leaves: u64) -> Reached {
    Reached {
        offset: leaves * LEAF_BYTES as u64,
        frontier: (0..leaves.count_ones()).map(|n| [n as u8; 32]).collect(),
        changed: Vec::new(),
    }
}

pub(super) fn unfinished(id: u64, subject: Subject, reached: Reached) -> Unfinished {
    Unfinished {
        id: TransferId(id),
        subject,
        reached,
        proven: true,
        touched: 1_795_224_710,
    }
}

/// A journal as it is written.
pub(super) struct Written {
    pub(super) bytes: Vec<u8>,
    pub(super) epoch: u32,
    pub(super) next: u64,
    /// Where each record begins.
    pub(super) starts: Vec<usize>,
}

impl Written {
    pub(super) fn new(epoch: u32, boot: Boot) -> Written {
        Written {
            bytes: Header { epoch, boot }.to_bytes().to_vec(),
            epoch,
            next: 1,
            starts: Vec::new(),
        }
    }

    fn stamp(&mut self) -> Stamp {
        self.starts.push(self.bytes.len());
        self.next += 1;
        Stamp {
            epoch: self.epoch,
            sequence: self.next - 1,
        }
    }

    pub(super) fn begin(&mut self, unfinished: &Unfinished) {
        let stamp = self.stamp();
        self.bytes.extend(record::begin(stamp, unfinished));
    }

    pub(super) fn reach(&mut self, unfinished: &Unfinished) {
        let stamp = self.stamp();
        self.bytes.extend(record::reach(stamp, unfinished));
    }

    pub(super) fn end(&mut self, id: u64) {
        let stamp = self.stamp();
        self.bytes.extend(record::end(stamp, TransferId(id)));
    }

    /// `count` transfers, each with something reached, and every third ended.
    pub(super) fn of(boot: Boot, count: u64) -> Written {
        let mut written = Written::new(7, boot);
        for id in 1..=count {
            let subject = match id % 3 {
                0 => Subject::Outgoing(identity(id as u8)),
                1 => incoming(&format!("some/file {id}"), Some(id as u8)),
                _ => patched(&format!("a patch {id}")),
            };
            let size = subject.size() / LEAF_BYTES as u64;
            let mut entry = unfinished(id, subject, Reached::default());
            written.begin(&entry);
            entry.reached = reached(id.min(size));
            written.reach(&entry);
            if id % 3 == 1 {
                written.end(id);
            }
        }
        written
    }
}

pub(super) fn file(dir: &Path) -> PathBuf {
    dir.join(".syncline/journal")
}

pub(super) fn open(dir: &Path) -> Journal {
    Journal::open(&Root::open(dir).unwrap()).unwrap()
}

/// Makes the journal below `dir` one of an earlier run of the machine.
pub(super) fn reboot(dir: &Path) {
    let mut bytes = std::fs::read(file(dir)).unwrap();
    let header = bytes.first_chunk_mut::<HEADER_BYTES>().unwrap();
    let epoch = Header::parse(header).unwrap().epoch;
    *header = Header { epoch, boot: ELSEWHERE }.to_bytes();
    std::fs::write(file(dir), bytes).unwrap();
}
