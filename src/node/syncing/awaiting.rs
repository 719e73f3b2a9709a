//! What the server said yes to, and has not told the revision of yet.
//!
//! The base has it as agreed from that yes on. The next answer brings its revision, unless the server lost it: it
//! numbers a change when it looks at it, and a server that is killed before that finds whatever stands there by then.
//! When that is what stood there before, nobody would ever hear of it. So the former record is kept until the revision
//! comes, and is put back when it does not: then both sides are compared anew. Invariant: a change is given up as
//! lost only by a whole answer that was asked for after the server's yes.

use super::Syncing;
use super::pages::{self, Row};
use crate::model::{RelPath, Revision, State};
use crate::store::{Record, Snapshot};
use std::collections::HashMap;

/// Its name among the values of the base.
pub(super) const AWAITED: &str = "awaited";

/// What the base had of a path before the server said yes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Former {
    state: Option<State>,
    revision: Revision,
    /// What the server had told by then: the revision that is to come is a later one.
    since: Revision,
}

impl Former {
    fn of(snapshot: &Snapshot, path: &RelPath, since: Revision) -> Former {
        // A base that cannot be read is told by whoever reads it next for itself.
        let record = snapshot.get(path).ok().flatten();
        let (state, revision) = record.map_or((None, Revision::NONE), |record| (record.state, record.revision));
        Former { state, revision, since }
    }
}

/// All of that, by path.
#[derive(Debug, Default)]
pub(super) struct Awaited {
    list: HashMap<RelPath, Former>,
    /// It is not what was written down.
    is_changed: bool,
}

impl Awaited {
    pub(super) fn decode(bytes: &[u8]) -> Awaited {
        Awaited {
            list: decode(bytes),
            is_changed: false,
        }
    }
}

impl Syncing {
    /// The server said yes to what was sent of `path`; before the base follows.
    pub(super) fn await_revision(&mut self, path: &RelPath) {
        let (snapshot, since) = (&self.snapshot, self.told.revision);
        let list = &mut self.awaited.list;
        if !list.contains_key(path) {
            list.insert(path.clone(), Former::of(snapshot, path, since));
            self.awaited.is_changed = true;
        }
    }

    /// The server has told all that it has. What it should have told of and did not is as before.
    pub(super) fn revisions_came(&mut self) {
        // A dry run writes nothing down, and leaves that to the next one.
        if self.awaited.list.is_empty() || self.options.dry_run {
            return;
        }
        self.awaited.is_changed = true;
        for (path, former) in std::mem::take(&mut self.awaited.list) {
            let came = self
                .remote
                .get(&path)
                .is_some_and(|(_, revision)| *revision > former.since);
            // In another epoch all is compared anyway.
            if came || self.is_anew {
                continue;
            }
            log::info!("{path}: the server lost what it was sent, and is asked again");
            match former.state {
                Some(state) => {
                    let record = Record {
                        state: Some(state),
                        revision: former.revision,
                        author: None,
                        identity: None,
                        at: crate::model::Timestamp { seconds: 0, nanos: 0 },
                    };
                    self.batch.put(&path, &record);
                }
                None => self.batch.remove(&path),
            }
            self.is_reverted = true;
            self.look_again(&path);
        }
    }

    /// Has what is left written with the next batch.
    pub(super) fn write_awaited(&mut self) {
        if std::mem::take(&mut self.awaited.is_changed) {
            self.batch.set_value(AWAITED, &encode(&self.awaited.list));
        }
    }
}

fn encode(list: &HashMap<RelPath, Former>) -> Vec<u8> {
    let rows = list.iter().map(|(path, former)| Row {
        path,
        state: former.state.as_ref(),
        is_odd: false,
        numbers: [former.revision.0, former.since.0],
    });
    pages::encode(rows.collect())
}

fn decode(bytes: &[u8]) -> HashMap<RelPath, Former> {
    let former = |row: Row<RelPath, State, 2>| {
        let [revision, since] = row.numbers.map(Revision);
        let state = row.state;
        (row.path, Former { state, revision, since })
    };
    pages::decode(bytes).into_iter().map(former).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Kind, Meta, Timestamp};

    // Protects from taking damage for an order: what cannot be read is nothing.
    #[test]
    fn what_is_awaited_is_read_again_and_damage_is_no_error() {
        let mtime = Timestamp { seconds: 3, nanos: 4 };
        let state = |size| State {
            kind: Kind::File { size },
            meta: Meta { mode: 0o600, mtime },
            root: Some([5; 32]),
        };
        let entry = |number: u64| {
            let path = RelPath::parse(format!("a/{number}").as_bytes()).unwrap();
            let former = Former {
                state: (!number.is_multiple_of(3)).then(|| state(number)),
                revision: Revision(number / 2),
                since: Revision(number + 7),
            };
            (path, former)
        };
        let list: HashMap<RelPath, Former> = (0..3000).map(entry).collect();
        let bytes = encode(&list);
        assert_eq!(decode(&bytes), list);
        for end in [0, 1, 7, 9, bytes.len() / 2, bytes.len() - 1] {
            assert!(decode(&bytes[..end]).len() < list.len());
        }
        assert!(encode(&HashMap::new()).is_empty());
    }
}
