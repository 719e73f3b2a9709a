//! Tests of who works on a kept file, and of what is noted of files that leave.

use super::*;
use crate::store::Root;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

const SIZE: u64 = 64 << 20;
const MTIME: Timestamp = Timestamp { seconds: 7, nanos: 8 };
const STATE: (u64, Timestamp) = (SIZE, MTIME);
const LEAF: usize = LEAF_BYTES;

fn path() -> RelPath {
    RelPath::parse(b"large").unwrap()
}

fn resumes(dir: &Path) -> Rc<Resumes> {
    Resumes::of(Journal::open(&Root::open(dir).unwrap()))
}

fn incoming(size: u64) -> Incoming {
    Incoming {
        path: path(),
        peer: None,
        size,
        mtime: MTIME,
        basis: None,
    }
}

fn tree(leaves: u64) -> TreeHasher {
    let mut hasher = TreeHasher::new();
    hasher.update_zeros(leaves * LEAF as u64);
    hasher
}

fn reached(resumes: &Resumes, id: TransferId) -> u64 {
    let journal = resumes.journal.borrow();
    journal.as_ref().unwrap().find(id).unwrap().reached.offset
}

// Protects a file that a device goes on with after its connection was lost: the old one notes nothing, and
// neither its end nor its drop frees what the new one has.
#[test]
fn a_lease_that_was_taken_over_has_no_say() {
    let dir = tempfile::tempdir().unwrap();
    let resumes = resumes(dir.path());
    let mut first = resumes.begin(incoming(SIZE)).unwrap();
    let id = first.id();
    first.note(&tree(3));
    let Begun {
        mut lease,
        reached: begun,
        proven,
        ..
    } = resumes.find(&path(), None, STATE).unwrap();
    assert_eq!((lease.id(), begun.offset, proven), (id, 3 * LEAF as u64, true));
    assert!(first.is_revoked() && !lease.is_revoked());
    first.note(&tree(5));
    first.moved(&tree(1000));
    assert_eq!(reached(&resumes, id), 3 * LEAF as u64);
    drop(first);
    assert_eq!(resumes.idle(&path(), None, |_| true), None, "the other works on it");
    let third = resumes.find(&path(), None, STATE).unwrap().lease;
    assert!(lease.is_revoked());
    lease.note(&tree(6));
    lease.end();
    assert_eq!(resumes.arrivals(), [id]);
    drop(third);
    assert_eq!(resumes.idle(&path(), None, |_| true), Some(id));
    assert_eq!(reached(&resumes, id), 3 * LEAF as u64);
}

// A file that is about to be published is not taken over, nor one that is sent in another version.
#[test]
fn what_is_complete_or_another_version_is_not_taken_over() {
    let dir = tempfile::tempdir().unwrap();
    let resumes = resumes(dir.path());
    let lease = resumes.begin(incoming(SIZE)).unwrap();
    assert!(resumes.find(&path(), None, (SIZE + 1, MTIME)).is_none());
    let later = Timestamp { seconds: 8, ..MTIME };
    assert!(resumes.find(&path(), None, (SIZE, later)).is_none());
    assert!(resumes.find(&path(), Some(&DeviceId([1; 32])), STATE).is_none());
    lease.complete();
    assert!(resumes.find(&path(), None, STATE).is_none());
    assert!(!lease.is_revoked());
    lease.end();
    assert_eq!(resumes.arrivals(), []);
}

// Small files, and all files without a journal, come whole.
#[test]
fn what_is_small_or_cannot_be_noted_is_not_remembered() {
    let dir = tempfile::tempdir().unwrap();
    let resumes = resumes(dir.path());
    assert!(resumes.begin(incoming(RESUME_BYTES_MIN - 1)).is_none());
    assert!(resumes.begin(incoming(RESUME_BYTES_MIN)).is_some());
    assert!(Resumes::new(None).begin(incoming(SIZE)).is_none());
}

// Between two notes lie so many bytes that the journal stays small.
#[test]
fn notes_are_rare_unless_they_are_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let resumes = resumes(dir.path());
    let mut lease = resumes.begin(incoming(SIZE)).unwrap();
    let rare = NOTE_BYTES / LEAF as u64;
    let mut noted = Vec::new();
    for leaves in 0..=3 * rare {
        lease.moved(&tree(leaves));
        noted.push(reached(&resumes, lease.id()));
    }
    noted.dedup();
    assert_eq!(noted, [0, NOTE_BYTES, 2 * NOTE_BYTES, 3 * NOTE_BYTES]);
    lease.note(&tree(3 * rare + 1));
    assert_eq!(reached(&resumes, lease.id()), 3 * NOTE_BYTES + LEAF as u64);
}

// Protects resuming from claims that the receiver does not confirm: nothing is noted that it has not
// certainly got, and in the end nearly all of what it has.
#[test]
fn what_leaves_is_noted_only_as_far_as_it_has_arrived() {
    let dir = tempfile::tempdir().unwrap();
    let file = File::create(dir.path().join("large")).unwrap();
    file.set_len(SIZE).unwrap();
    let root = Root::open(dir.path()).unwrap();
    let identity = root.probe(&path()).unwrap().unwrap().identity;
    let resumes = resumes(dir.path());
    assert!(resumes.begin_sending(&identity, RESUME_BYTES_MIN - 1).is_none());
    let mut noted = resumes.begin_sending(&identity, SIZE).unwrap();
    let leaves = SIZE / LEAF as u64;
    for hashed in (0..=leaves).step_by(24) {
        // The receiver lags by 9 MiB, and a bit.
        let received = (hashed * LEAF as u64).saturating_sub((9 << 20) + 5);
        noted.moved(&tree(hashed), received);
        let sent = resumes.sent(&identity).map_or(0, |sent| {
            assert_eq!(sent.clone().finish(), tree(sent.leaves()).finish());
            sent.length()
        });
        assert!(sent <= received, "{sent} noted, {received} received");
        let lag = NOTE_BYTES + 24 * LEAF as u64;
        assert!(sent + lag > received, "{sent} noted, {received} received");
    }
    let id = noted.id;
    drop(noted);
    assert_eq!(resumes.begin_sending(&identity, SIZE).unwrap().id, id, "the same file");
}

// What nobody comes back for goes, and not before.
#[test]
fn what_is_old_is_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let resumes = resumes(dir.path());
    let id = resumes.begin(incoming(SIZE)).unwrap().id();
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
        .cast_signed();
    assert_eq!(resumes.expire(now + RETENTION_SECONDS - 60), []);
    assert_eq!(resumes.expire(now + RETENTION_SECONDS + 60), [id]);
    assert!(resumes.find(&path(), None, STATE).is_none());
}
