//! Tests of what is found of a file that an earlier transfer staged: read, believed, or dropped.

use super::*;
use crate::delta::content_id;
use crate::model::{ItemCode, Meta};
use crate::node::arriving::Arrival;
use crate::node::commit::Committer;
use crate::node::options::Durability;
use crate::node::resumes::Resumes;
use crate::reactor::ConnId;
use crate::store::{Expected, FoundKind, Identity, InPlace, Incoming, Journal, PlanBasis, Room, Root, TransferId};
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
    let mut adopting = Adopting::find(place, &path(), None, state, Changed::IsDropped, None)?;
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
    assert_eq!(
        place.resumes.idle(&path(), None, |_| true),
        None,
        "the other works on it"
    );

    // The same of one that was found, and not begun.
    let third = find(&place, (SIZE, MTIME)).unwrap();
    other.discard();
    assert_eq!(fs::read(kept(dir.path(), id)).unwrap(), written);
    assert_eq!(place.resumes.arrivals(), [id]);

    // And of one that has begun to go on.
    let Kept::Staged(staged) = third.kept else {
        panic!("it is a file of its own")
    };
    let arrival = Arrival::behind(&start, staged, (third.lease, third.hasher), 2);
    let fourth = find(&place, (SIZE, MTIME)).unwrap();
    assert!(arrival.is_revoked());
    drop(arrival);
    assert_eq!(fs::read(kept(dir.path(), id)).unwrap(), written);

    fourth.discard();
    assert!(!kept(dir.path(), id).exists());
    assert_eq!(place.resumes.arrivals(), []);
}

/// A file of whole pages, and a transfer that has gathered a change of its second one and noted that.
struct Gathered {
    dir: tempfile::TempDir,
    old: Vec<u8>,
    new: Vec<u8>,
}

impl Gathered {
    fn new() -> Gathered {
        let dir = tempfile::tempdir().unwrap();
        let old = vec![1; SIZE as usize];
        let mut new = old.clone();
        new[4096..8192].fill(2);
        fs::write(dir.path().join("large"), &old).unwrap();
        Gathered { dir, old, new }
    }

    fn identity(&self) -> Identity {
        let found = Root::open(self.dir.path()).unwrap().probe(&path()).unwrap();
        found.unwrap().identity
    }

    fn begin(&self, place: &Rc<Place>) -> (InPlace, Lease) {
        let identity = self.identity();
        let basis = PlanBasis {
            id: content_id(&self.old),
            identity,
            in_place: true,
        };
        let incoming = Incoming {
            path: path(),
            peer: None,
            size: SIZE,
            mtime: MTIME,
            basis: Some(basis),
        };
        let mut lease = place.resumes.begin(incoming).unwrap();
        let (root, staging) = (&place.root, &place.staging);
        let mut work = InPlace::begin_kept(root, staging, &path(), &identity, SIZE, lease.id()).unwrap();
        work.write_at(4096, &self.new[4096..8192]).unwrap();
        work.note(NOTED as u64).unwrap();
        let mut hasher = TreeHasher::new();
        hasher.update(&self.new[..NOTED]);
        lease.note(&hasher);
        (work, lease)
    }

    fn find(&self, place: &Rc<Place>, content: &[u8]) -> Option<Partial> {
        let changeable = Some((content_id(content), self.identity()));
        let state = (SIZE, MTIME);
        let mut adopting = Adopting::find(place, &path(), None, state, Changed::IsDropped, changeable)?;
        loop {
            match adopting.step(&mut Vec::new()) {
                Adopted::More(more) => adopting = more,
                Adopted::Done(partial) => return Some(*partial),
                Adopted::Basis(..) | Adopted::Nothing => return None,
            }
        }
    }
}

// What was gathered is a beginning together with the file that it changes, believed or read; and of no use over
// another content, or where nothing is to be changed in place: then it is gone.
#[test]
fn what_was_gathered_is_found_over_its_basis_only() {
    for is_proven in [true, false] {
        let gathered = Gathered::new();
        drop(gathered.begin(&place(gathered.dir.path())));
        if !is_proven {
            restart_machine(gathered.dir.path());
        }
        let place = place(gathered.dir.path());
        let parked = gathered.find(&place, &gathered.old).unwrap().park();
        assert_eq!(parked.id(), content_id(&gathered.new[..NOTED]));
        assert!(parked.is_for(SIZE) && !parked.is_for(SIZE + 1) && !parked.is_staged());
        let expected = Expected::Present(gathered.identity());
        let partial = parked.reopen(&place, &path(), &expected).unwrap();
        let Kept::Changes(work) = &partial.kept else {
            panic!("it is to be changed in place");
        };
        let mut byte = [0];
        assert_eq!(work.read_through(5000, &mut byte).unwrap(), 1);
        assert_eq!(byte, [2]);
    }
    for content in [Some(b"other".as_slice()), None] {
        let gathered = Gathered::new();
        let place = place(gathered.dir.path());
        drop(gathered.begin(&place));
        match content {
            Some(content) => assert!(gathered.find(&place, content).is_none()),
            None => assert!(find(&place, (SIZE, MTIME)).is_none()),
        }
        assert_eq!(place.resumes.arrivals(), []);
        place.staging.retire();
        assert_eq!(staged_files(gathered.dir.path()), 0);
    }
}

// Nobody goes on with changes that a commit reads, though their connection is lost; when it has ended, nothing is
// left of them, and what was known of them goes with the next look at the file.
#[test]
fn changes_that_are_committed_are_left_alone() {
    let gathered = Gathered::new();
    let place = place(gathered.dir.path());
    let (work, lease) = gathered.begin(&place);
    let id = lease.id();
    lease.complete();
    lease.committing();
    drop(lease);
    assert!(gathered.find(&place, &gathered.old).is_none());
    place.forget_partial(&path(), None);
    assert_eq!(place.resumes.arrivals(), [id]);
    let work = work.unkept();
    assert!(kept(gathered.dir.path(), id).exists(), "a killed process leaves it");
    drop(work);
    assert!(!kept(gathered.dir.path(), id).exists());
    place.forget_partial(&path(), None);
    assert_eq!(place.resumes.arrivals(), []);
}

// What nobody comes back for goes: the entry, the changes, and the directories.
#[test]
fn what_was_gathered_in_vain_is_collected() {
    let gathered = Gathered::new();
    drop(gathered.begin(&place(gathered.dir.path())));
    let place = place(gathered.dir.path());
    for id in place.resumes.expire(i64::MAX) {
        place.staging.discard_kept(id);
    }
    drop(place);
    assert_eq!(fs::read_dir(gathered.dir.path()).unwrap().count(), 1);
}

fn staged_files(dir: &Path) -> usize {
    fs::read_dir(dir.join(".syncline/staging/kept")).map_or(0, Iterator::count)
}
