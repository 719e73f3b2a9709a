//! Tests of what is found of a file that an earlier transfer staged: read, believed, or dropped.

use super::*;
use crate::delta::content_id;
use crate::model::{ItemCode, Meta};
use crate::node::arriving::Arrival;
use crate::node::commit::Committer;
use crate::node::options::Durability;
use crate::node::resumes::Resumes;
use crate::reactor::ConnId;
use crate::store::{FoundKind, Incoming, Journal, PlanBasis, Room, Root, TransferId};
use crate::wire::Start;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

const SIZE: u64 = 4 << 20;
const MTIME: Timestamp = Timestamp { seconds: 7, nanos: 8 };
/// What was noted, and what was written: the last bytes make no whole leaf.
const NOTED: usize = 2 << 20;
const WHOLE: usize = 3 << 20;
const WRITTEN: usize = WHOLE + 5;

fn path() -> RelPath {
    RelPath::parse(b"large").unwrap()
}

/// A place of a process that starts.
fn place(dir: &Path) -> Rc<Place> {
    let root = Root::open(dir).unwrap();
    let journal = Journal::open(&root).unwrap();
    let mut place = Place::new(root, Durability::None);
    place.resumes = Resumes::new(Some(journal));
    Rc::new(place)
}

fn content() -> Vec<u8> {
    (0..WRITTEN as u64).map(|at| (at * at / 977) as u8).collect()
}

/// A transfer in this process that has written more than it has noted.
fn begin(place: &Rc<Place>, basis: Option<PlanBasis>) -> (StagedFile, Lease) {
    let incoming = Incoming {
        path: path(),
        peer: None,
        size: SIZE,
        mtime: MTIME,
        basis,
    };
    let mut lease = place.resumes.begin(incoming).unwrap();
    let staged = place.staging.create_kept(&path(), Room::Sparse, lease.id()).unwrap();
    let content = content();
    staged.write_at(0, &content).unwrap();
    let mut hasher = TreeHasher::new();
    hasher.update(&content[..NOTED]);
    lease.note(&hasher);
    (staged, lease)
}

/// What an earlier process left behind.
fn leave(dir: &Path, basis: Option<PlanBasis>) -> TransferId {
    let (_staged, lease) = begin(&place(dir), basis);
    lease.id()
}

fn kept(dir: &Path, id: TransferId) -> PathBuf {
    dir.join(".syncline/staging/kept").join(id.to_string())
}

fn damage(dir: &Path, id: TransferId, at: usize) -> Vec<u8> {
    let mut content = content();
    content[at] ^= 1;
    let file = fs::File::options().write(true).open(kept(dir, id)).unwrap();
    file.write_all_at(&content[at..=at], at as u64).unwrap();
    content
}

/// The journal looks as if the machine had started since: docs/FORMAT.md, "journal", its header.
fn restart_machine(dir: &Path) {
    let journal = dir.join(".syncline/journal");
    let mut bytes = fs::read(&journal).unwrap();
    bytes[16..32].fill(0xb0);
    let checksum = crc32fast::hash(&bytes[..40]);
    bytes[40..44].copy_from_slice(&checksum.to_le_bytes());
    fs::write(&journal, bytes).unwrap();
}

fn find(place: &Rc<Place>, state: (u64, Timestamp)) -> Option<Partial> {
    let mut adopting = Adopting::find(place, &path(), None, state, Changed::IsDropped)?;
    loop {
        match adopting.step(&mut Vec::new()) {
            Adopted::More(more) => adopting = more,
            Adopted::Done(partial) => return Some(*partial),
            Adopted::Basis(..) | Adopted::Nothing => return None,
        }
    }
}

fn found_id(dir: &Path) -> ContentId {
    find(&place(dir), (SIZE, MTIME)).unwrap().park().id()
}

// Protects the promise that verified leaves are not hashed again after a process restart, and that they are
// after a restart of the machine, which may have lost them.
#[test]
fn only_what_is_proven_is_not_read_again() {
    for is_proven in [true, false] {
        for at in [100, NOTED + 100] {
            let dir = tempfile::tempdir().unwrap();
            let id = leave(dir.path(), None);
            let damaged = damage(dir.path(), id, at);
            if !is_proven {
                restart_machine(dir.path());
            }
            let is_believed = is_proven && at < NOTED;
            let expected = if is_believed { content() } else { damaged };
            assert_eq!(
                found_id(dir.path()),
                content_id(&expected[..WHOLE]),
                "proven {is_proven}, byte {at}"
            );
        }
    }
}

// What was read again after a restart of the machine is proven by that, though it reaches no further than
// what was noted before: the next process does not read it another time.
#[test]
fn what_was_read_again_is_proven() {
    let dir = tempfile::tempdir().unwrap();
    let id = leave(dir.path(), None);
    let file = fs::File::options().write(true).open(kept(dir.path(), id)).unwrap();
    file.set_len(NOTED as u64).unwrap();
    restart_machine(dir.path());
    let before = found_id(dir.path());
    assert_eq!(before, content_id(&content()[..NOTED]));
    damage(dir.path(), id, 100);
    assert_eq!(found_id(dir.path()), before);
}

// What lies behind the last note of a patch may be of its basis: it counts for nothing.
#[test]
fn a_patch_reaches_no_further_than_was_noted() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("large"), b"old").unwrap();
    let found = Root::open(dir.path()).unwrap().probe(&path()).unwrap().unwrap();
    assert_eq!(found.kind, FoundKind::File { size: 3 });
    let basis = PlanBasis {
        id: content_id(b"old"),
        identity: found.identity,
        in_place: false,
    };
    leave(dir.path(), Some(basis));
    assert_eq!(found_id(dir.path()), content_id(&content()[..NOTED]));
}

// A file that is shorter than what was noted of it is named as it is, not as it was.
#[test]
fn a_file_that_lost_its_end_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let id = leave(dir.path(), None);
    let file = fs::File::options().write(true).open(kept(dir.path(), id)).unwrap();
    file.set_len(NOTED as u64 / 2 + 1).unwrap();
    assert_eq!(found_id(dir.path()), content_id(&content()[..NOTED / 2]));
    file.set_len(0).unwrap();
    let place = place(dir.path());
    assert!(find(&place, (SIZE, MTIME)).is_none());
    assert!(!kept(dir.path(), id).exists());
    assert_eq!(place.resumes.arrivals(), []);
}

// What was begun of another version of the file is of no use, and gone.
#[test]
fn a_file_that_changed_at_its_source_is_dropped() {
    let later = Timestamp { seconds: 8, ..MTIME };
    for state in [(SIZE + 1, MTIME), (SIZE, later)] {
        let dir = tempfile::tempdir().unwrap();
        let id = leave(dir.path(), None);
        let place = place(dir.path());
        assert!(find(&place, state).is_none());
        assert!(!kept(dir.path(), id).exists());
        assert_eq!(place.resumes.arrivals(), []);
    }
}

// A connection that is lost without our knowing of it has its file taken over: whatever still comes on it
// changes nothing, and when it is given up, the file and its entry stay for the other.
#[test]
fn an_arrival_that_was_taken_over_leaves_the_file_alone() {
    let meta = Meta {
        mode: 0o644,
        mtime: MTIME,
    };
    let start = Start {
        file: 0,
        size: SIZE,
        sparse: false,
        meta,
    };
    let (owner, mut committer) = (ConnId::invented(3), Committer::new());
    let dir = tempfile::tempdir().unwrap();
    let place = place(dir.path());
    let (staged, lease) = begin(&place, None);
    let id = lease.id();
    let mut arrival = Arrival::new(&start, staged, Some(lease), 1, None);
    arrival.write(&content()[..NOTED], owner, &mut committer).unwrap();
    let other = find(&place, (SIZE, MTIME)).unwrap();
    assert_eq!(other.lease.id(), id);
    let written = fs::read(kept(dir.path(), id)).unwrap();
    assert_eq!(arrival.write(b"late", owner, &mut committer), Err(ItemCode::TakenOver));
    arrival.discard();
    assert_eq!(fs::read(kept(dir.path(), id)).unwrap(), written);
    assert_eq!(place.resumes.arrivals(), [id]);
    assert_eq!(place.resumes.idle(&path(), None), None, "the other works on it");

    // The same of one that was found, and not begun.
    let third = find(&place, (SIZE, MTIME)).unwrap();
    other.discard();
    assert_eq!(fs::read(kept(dir.path(), id)).unwrap(), written);
    assert_eq!(place.resumes.arrivals(), [id]);

    // And of one that has begun to go on.
    let arrival = Arrival::behind(&start, third, 2);
    let fourth = find(&place, (SIZE, MTIME)).unwrap();
    assert!(arrival.is_revoked());
    drop(arrival);
    assert_eq!(fs::read(kept(dir.path(), id)).unwrap(), written);

    fourth.discard();
    assert!(!kept(dir.path(), id).exists());
    assert_eq!(place.resumes.arrivals(), []);
}
