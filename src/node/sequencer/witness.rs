//! What is changed on a share's own disk, for its activity log.
//!
//! A watch may see a file before the commit that published it has said so. So what was seen is held back for a
//! moment, and what turns out to be somebody's commit is dropped. Decides nothing. Invariant: what a commit did is
//! never told as done here.

use super::looking::Fresh;
use crate::model::{Kind, RelPath};
use crate::node::activity::{Activity, Deed, Done, Running, now_ms};
use crate::store::{Identity, Record, RunKind, Who};
use std::collections::BTreeMap;

/// What was seen.
#[derive(Debug)]
pub(super) struct Witness {
    held: BTreeMap<RelPath, Seen>,
    here: Running,
    /// There are so many that some are told sooner.
    is_full: bool,
}

#[derive(Debug)]
struct Seen {
    deed: Deed,
    identity: Option<Identity>,
    at_ms: u64,
}

/// Milliseconds that a change is held back.
const HELD_MS: u64 = 2_000;
/// Changes that are held back; with more, all are told at the next look.
const HELD_MAX: usize = 20_000;

impl Default for Witness {
    fn default() -> Witness {
        Witness {
            held: BTreeMap::new(),
            here: Running::new(RunKind::Sync, Who::here()),
            is_full: false,
        }
    }
}

impl Witness {
    /// A round found that `fresh` is another state than `old`, and no commit told of it.
    pub(super) fn see(&mut self, fresh: &Fresh, old: Option<&Record>) {
        let Some(deed) = deed_of(fresh, old) else { return };
        let seen = Seen {
            deed,
            identity: fresh.identity,
            at_ms: now_ms(),
        };
        self.held.insert(fresh.path.clone(), seen);
        self.is_full |= self.held.len() >= HELD_MAX;
    }

    /// Somebody's commit published the file of that identity.
    pub(super) fn retract(&mut self, path: &RelPath, identity: Option<&Identity>) {
        if let Some(seen) = self.held.get(path)
            && let (Some(seen), Some(published)) = (&seen.identity, identity)
            && seen.same_content(published)
        {
            self.held.remove(path);
        }
    }

    /// Writes down what was held back long enough, or all of it.
    pub(super) fn release(&mut self, activity: &Activity, all: bool) {
        let due = now_ms().saturating_sub(HELD_MS);
        let (mut ripe, mut held) = (Vec::new(), BTreeMap::new());
        for (path, seen) in std::mem::take(&mut self.held) {
            if all || seen.at_ms <= due || self.is_full {
                ripe.push(seen);
            } else {
                held.insert(path, seen);
            }
        }
        (self.held, self.is_full) = (held, false);
        // What was seen together goes by name: directories before what is in them.
        ripe.sort_by_key(|seen| seen.at_ms);
        for seen in ripe {
            activity.note_deeds_of(seen.at_ms, &mut self.here, &[seen.deed], None);
        }
        if all {
            activity.tell_rest(&mut self.here, now_ms());
        }
    }
}

/// What a record that is about to be written means, beside the one that is there.
fn deed_of(fresh: &Fresh, old: Option<&Record>) -> Option<Deed> {
    let old = old.and_then(|old| old.state.as_ref());
    let size = match fresh.state.as_ref().map(|state| &state.kind) {
        Some(Kind::File { size }) => Some(*size),
        _ => None,
    };
    let what = match (old, &fresh.state) {
        (None, None) => return None,
        (Some(_), None) => Done::Deleted,
        (old, Some(new)) if old.is_none_or(|old| old.kind != new.kind) && new.kind == Kind::Directory => Done::Made,
        (None, Some(_)) => Done::Created,
        (Some(old), Some(new)) if old.kind == new.kind && old.root == new.root => match new.kind {
            Kind::File { .. } => Done::Touched,
            Kind::Directory | Kind::Symlink { .. } => return None,
        },
        (Some(_), Some(_)) => Done::Replaced,
    };
    let path = fresh.path.clone();
    Some(Deed::Done { path, what, size })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Meta, Revision, State, Timestamp};
    use crate::store::{ActivityReader, Root};

    fn fresh(root: &Root, name: &str, content: &[u8]) -> Fresh {
        let path = RelPath::parse(name.as_bytes()).unwrap();
        std::fs::write(root.path().join(name), content).unwrap();
        let mtime = Timestamp { seconds: 1, nanos: 0 };
        let size = content.len() as u64;
        Fresh {
            identity: root.probe(&path).unwrap().map(|found| found.identity),
            path,
            state: Some(State {
                kind: Kind::File { size },
                meta: Meta { mode: 0o600, mtime },
                root: Some([size as u8; 32]),
            }),
            author: None,
            is_new: true,
            revision: Revision::NONE,
            is_unread: false,
            is_put_off: false,
            is_told: false,
        }
    }

    // Protects a device's work from being taken for somebody else's: a file that a watch saw before its commit was
    // told of is that commit's, another state of it is not.
    #[test]
    fn what_a_commit_published_is_not_told_as_done_here() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        let activity = Activity::new(&root);
        let (theirs, ours) = (fresh(&root, "theirs", b"1"), fresh(&root, "ours", b"22"));
        let mut witness = Witness::default();
        for one in [&theirs, &ours] {
            witness.see(one, None);
        }
        witness.retract(&theirs.path, theirs.identity.as_ref());
        witness.retract(&ours.path, theirs.identity.as_ref());
        witness.release(&activity, false);
        assert_eq!(witness.held.len(), 1, "it is held back for a moment");
        witness.release(&activity, true);
        activity.write();
        let mut told = Vec::new();
        let mut reader = ActivityReader::open(&root).unwrap().unwrap();
        reader
            .each(&mut |entry| told.push((entry.field("path").map(str::to_owned), entry.number("size"))))
            .unwrap();
        assert_eq!(told, [(Some("ours".to_owned()), Some(2))]);
    }

    // Protects whoever reads it from words that do not fit what was done.
    #[test]
    fn a_record_beside_the_one_before_says_what_was_done() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        let new = fresh(&root, "f", b"1");
        let record = |state: Option<State>| Record {
            state,
            revision: Revision::NONE,
            author: None,
            identity: None,
            at: Timestamp { seconds: 0, nanos: 0 },
        };
        let said = |fresh: &Fresh, old: Option<&Record>| match deed_of(fresh, old) {
            Some(Deed::Done { what, .. }) => Some(what),
            _ => None,
        };
        let same = record(new.state.clone());
        let tombstone = record(None);
        assert_eq!(said(&new, None), Some(Done::Created));
        assert_eq!(said(&new, Some(&tombstone)), Some(Done::Created));
        assert_eq!(said(&new, Some(&same)), Some(Done::Touched));
        let other = fresh(&root, "f", b"22");
        assert_eq!(said(&other, Some(&same)), Some(Done::Replaced));
        let gone = Fresh {
            state: None,
            ..fresh(&root, "f", b"1")
        };
        assert_eq!(said(&gone, Some(&same)), Some(Done::Deleted));
        assert_eq!(said(&gone, Some(&tombstone)), None);
        let mut directory = fresh(&root, "f", b"1");
        if let Some(state) = &mut directory.state {
            (state.kind, state.root) = (Kind::Directory, None);
        }
        assert_eq!(said(&directory, Some(&same)), Some(Done::Made));
        let before = record(directory.state.clone());
        assert_eq!(said(&directory, Some(&before)), None, "its mode is nobody's concern");
    }
}
