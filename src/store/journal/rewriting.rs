//! Records and journals that are read and written again, for tests that give the decoders any bytes.
//!
//! Touches no file and owns no form. Invariant: what is not read is `None`, and what is read is written as
//! something that is read the same.

use super::boot::Boot;
use super::record::{self, Header, Record, Stamp};
use super::replay::{Replay, replay, salvage};
use super::subject::{Reached, Subject, Unfinished};
use crate::store::facts::Identity;

/// One record, whatever its stamp.
pub(in crate::store) fn rewritten_record(bytes: &[u8]) -> Option<Vec<u8>> {
    let candidate = record::look(bytes, None, &(0..=u64::MAX))?;
    let stamp = candidate.stamp;
    Some(match candidate.decode()? {
        Record::Begin(unfinished) => record::begin(stamp, &unfinished),
        Record::Reach {
            id,
            touched,
            proven,
            reached,
        } => {
            let nothing = Identity::from_bytes(&[0; Identity::BYTES]);
            let unfinished = Unfinished {
                id,
                subject: Subject::Outgoing(nothing),
                reached,
                proven,
                touched,
            };
            record::reach(stamp, &unfinished)
        }
        Record::End(id) => record::end(stamp, id),
    })
}

/// A whole journal, here and after a restart, and what can be salvaged of it. Panics when a journal that was
/// written says something else than the one that was read.
pub(in crate::store) fn rewritten_journal(bytes: &[u8]) -> Option<Vec<u8>> {
    let salvaged = salvage(bytes);
    assert!(salvaged.record_bytes + salvaged.lost_bytes <= bytes.len() as u64);
    reread(&salvaged, &Boot::UNKNOWN);
    let later = replay(bytes, &Boot::UNKNOWN).ok().flatten()?;
    assert!(later.tail <= bytes.len() && later.table.live_bytes() <= bytes.len() as u64);
    assert!(later.table.iter().all(|unfinished| !unfinished.proven));
    let here = later.header.boot;
    // A gap that is no damage after a restart is one here.
    let read = replay(bytes, &here).ok().flatten().unwrap_or(later);
    Some(reread(&read, &here))
}

fn reread(read: &Replay, here: &Boot) -> Vec<u8> {
    let written = written(read);
    let again = replay(&written, here)
        .expect("it has no gaps")
        .expect("it has a header");
    let all = |replay: &Replay| replay.table.iter().cloned().collect::<Vec<_>>();
    assert_eq!(all(&again), all(read));
    assert_eq!((again.header, again.tail), (read.header, written.len()));
    written
}

fn written(read: &Replay) -> Vec<u8> {
    let Header { epoch, boot } = read.header;
    let mut out = Header { epoch, boot }.to_bytes().to_vec();
    let mut stamp = Stamp { epoch, sequence: 0 };
    for unfinished in read.table.iter() {
        stamp.sequence += 1;
        let begun = Unfinished {
            reached: Reached::default(),
            ..unfinished.clone()
        };
        out.extend(record::begin(stamp, &begun));
        if !unfinished.reached.is_nothing() {
            stamp.sequence += 1;
            out.extend(record::reach(stamp, unfinished));
        }
    }
    out
}
