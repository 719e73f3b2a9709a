//! Tests of `Index`: what is kept, what changed since, and files that are not what they should be.

use super::faults::Faults;
use super::*;
use crate::model::{Kind, Meta, RelPath, State, Timestamp};
use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicU64;

fn rel(path: &str) -> RelPath {
    RelPath::parse(path.as_bytes()).unwrap()
}

fn file(revision: u64, size: u64) -> Record {
    let mtime = Timestamp {
        seconds: 1_790_000_000,
        nanos: 1,
    };
    Record {
        state: Some(State {
            kind: Kind::File { size },
            meta: Meta { mode: 0o644, mtime },
            root: Some([size as u8; 32]),
        }),
        revision: Revision(revision),
        author: None,
        identity: None,
        at: mtime,
    }
}

fn tombstone(revision: u64) -> Record {
    Record {
        state: None,
        ..file(revision, 0)
    }
}

fn batch(records: &[(&str, Record)]) -> Batch {
    let mut batch = Batch::new();
    for (path, record) in records {
        batch.put(&rel(path), record);
    }
    batch
}

fn open(dir: &Path) -> OpenedIndex {
    Index::open(&Root::open(dir).unwrap(), IndexOptions::default()).unwrap()
}

fn paths(index: &Index) -> Vec<String> {
    let walk = index.snapshot().unwrap().walk(None).unwrap();
    walk.map(|row| row.unwrap().0.to_string()).collect()
}

fn changes(index: &Index, since: u64) -> Vec<(String, u64)> {
    let changes = index.snapshot().unwrap().changes_since(Revision(since), 1_000).unwrap();
    let row = |(path, record): (RelPath, Record)| (path.to_string(), record.revision.0);
    changes.into_iter().map(row).collect()
}

#[test]
fn what_was_written_is_there_when_it_is_opened_again() {
    let dir = tempfile::tempdir().unwrap();
    let OpenedIndex { index, found } = open(dir.path());
    assert_eq!(found, FoundIndex::New);
    assert_ne!(index.epoch(), Epoch(0));
    assert_eq!(index.revision(), Revision::NONE);
    let mut batch = batch(&[("a", file(1, 5)), ("a/b", file(2, 6)), ("c", tombstone(3))]);
    batch.set_value("server", b"far");
    batch.set_mark(Revision(3), 77);
    index.write(&batch).unwrap();
    let epoch = index.epoch();
    drop(index);

    let OpenedIndex { index, found } = open(dir.path());
    assert_eq!((found, index.epoch()), (FoundIndex::Kept, epoch));
    assert_eq!(index.revision(), Revision(3));
    let snapshot = index.snapshot().unwrap();
    assert_eq!(snapshot.get(&rel("a/b")).unwrap(), Some(file(2, 6)));
    assert_eq!(snapshot.get(&rel("c")).unwrap(), Some(tombstone(3)));
    assert_eq!(snapshot.get(&rel("b")).unwrap(), None);
    assert_eq!(snapshot.value("server").unwrap().unwrap(), b"far");
    assert_eq!(snapshot.value("client").unwrap(), None);
    assert_eq!(
        (snapshot.mark(Revision(3)).unwrap(), snapshot.mark(Revision(2)).unwrap()),
        (Some(77), None)
    );
    assert_eq!((snapshot.live(), snapshot.revision()), (2, Revision(3)));
}

/// Each live path and each tombstone is told once, under its latest revision.
#[test]
fn a_path_is_told_once_however_often_it_changed() {
    let dir = tempfile::tempdir().unwrap();
    let index = open(dir.path()).index;
    index
        .write(&batch(&[
            ("a", file(1, 1)),
            ("b", file(2, 1)),
            ("c", file(3, 1)),
            ("d", file(4, 1)),
        ]))
        .unwrap();
    index
        .write(&batch(&[
            ("a", file(5, 2)),
            ("a", file(6, 3)),
            ("b", tombstone(7)),
            ("b", tombstone(8)),
        ]))
        .unwrap();
    let mut forget = Batch::new();
    forget.remove(&rel("c"));
    forget.remove(&rel("none"));
    index.write(&forget).unwrap();
    let told = |rows: &[(&str, u64)]| -> Vec<(String, u64)> {
        rows.iter()
            .map(|(path, revision)| ((*path).to_owned(), *revision))
            .collect()
    };
    assert_eq!(changes(&index, 0), told(&[("d", 4), ("a", 6), ("b", 8)]));
    assert_eq!(changes(&index, 6), told(&[("b", 8)]));
    assert_eq!(changes(&index, 8), told(&[]));
    assert_eq!(changes(&index, u64::MAX), told(&[]));
    let snapshot = index.snapshot().unwrap();
    assert_eq!((snapshot.live(), snapshot.revision()), (2, Revision(8)));
    // Back to life.
    index.write(&batch(&[("b", file(9, 1))])).unwrap();
    assert_eq!(index.snapshot().unwrap().live(), 3);
    assert_eq!(changes(&index, 4), told(&[("a", 6), ("b", 9)]));
    assert_eq!(snapshot.live(), 2, "a snapshot stays as it was");
}

/// A client's records may share a revision for a while, or have none; none of them is lost.
#[test]
fn pages_never_part_what_has_one_revision() {
    let dir = tempfile::tempdir().unwrap();
    let index = open(dir.path()).index;
    let names: Vec<String> = (0..30).map(|number| format!("f{number:02}")).collect();
    let mut batch = Batch::new();
    for (number, name) in names.iter().enumerate() {
        batch.put(&rel(name), &file(1 + number as u64 / 3, 1));
    }
    batch.put(&rel("local"), &file(0, 1));
    index.write(&batch).unwrap();
    for max in [1, 2, 3, 4, 100] {
        let mut told = Vec::new();
        let mut since = Revision::NONE;
        loop {
            let page = index.snapshot().unwrap().changes_since(since, max).unwrap();
            let Some((_, last)) = page.last() else { break };
            assert!(page.len() <= max + 2);
            since = last.revision;
            told.extend(page.into_iter().map(|(path, _)| path.to_string()));
        }
        assert_eq!(told, names, "{max} at a time");
    }
    assert_eq!(index.snapshot().unwrap().get(&rel("local")).unwrap(), Some(file(0, 1)));
}

#[test]
fn a_walk_goes_depth_first_and_on_from_anywhere() {
    let dir = tempfile::tempdir().unwrap();
    let index = open(dir.path()).index;
    let order = ["a", "a/b", "a/b/x", "a/b.txt", "a ", "a.txt", "b"];
    let shuffled = ["b", "a.txt", "a/b/x", "a", "a/b.txt", "a ", "a/b"];
    let mut batch = Batch::new();
    for (number, path) in shuffled.iter().enumerate() {
        batch.put(&rel(path), &file(number as u64 + 1, 1));
    }
    index.write(&batch).unwrap();
    assert_eq!(paths(&index), order);
    for (at, path) in order.iter().enumerate() {
        let walk = index.snapshot().unwrap().walk(Some(&rel(path))).unwrap();
        let rest: Vec<String> = walk.map(|row| row.unwrap().0.to_string()).collect();
        assert_eq!(rest, order[at + 1..]);
    }
    let beneath = |top: &str| -> Vec<String> {
        let walk = index.snapshot().unwrap().walk_beneath(&rel(top)).unwrap();
        walk.map(|row| row.unwrap().0.to_string()).collect()
    };
    assert_eq!(beneath("a"), ["a/b", "a/b/x", "a/b.txt"]);
    assert_eq!(beneath("a/b"), ["a/b/x"]);
    assert_eq!([beneath("b").len(), beneath("none").len()], [0, 0]);
}

#[test]
fn only_the_last_marks_are_kept_and_a_new_epoch_has_none() {
    let dir = tempfile::tempdir().unwrap();
    let index = open(dir.path()).index;
    let mut batch = Batch::new();
    for revision in 1..=10_005 {
        batch.set_mark(Revision(revision), revision * 3);
    }
    index.write(&batch).unwrap();
    let mark = |revision| index.snapshot().unwrap().mark(Revision(revision)).unwrap();
    assert_eq!([mark(5), mark(6), mark(10_005)], [None, Some(18), Some(30_015)]);

    let mut batch = Batch::new();
    batch.put(&rel("a"), &file(10_006, 1));
    batch.new_epoch(Epoch(9));
    batch.set_mark(Revision(1), 4);
    index.write(&batch).unwrap();
    assert_eq!([mark(1), mark(6), mark(10_005)], [Some(4), None, None]);
    assert_eq!((index.epoch(), index.revision()), (Epoch(9), Revision(10_006)));
    drop(index);
    assert_eq!(open(dir.path()).index.epoch(), Epoch(9));
}

#[test]
fn a_value_without_bytes_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let index = open(dir.path()).index;
    let set = |value: &[u8]| {
        let mut batch = Batch::new();
        batch.set_value("v", value);
        index.write(&batch).unwrap();
        index.snapshot().unwrap().value("v").unwrap()
    };
    assert_eq!(set(b"x"), Some(b"x".to_vec()));
    assert_eq!(set(b""), None);
}

#[test]
fn the_second_who_opens_it_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path());
    let root = Root::open(dir.path()).unwrap();
    let error = Index::open(&root, IndexOptions::default()).unwrap_err();
    assert!(matches!(error, IndexError::Held), "{error}");
    drop(first);
    assert_eq!(open(dir.path()).found, FoundIndex::Kept);
}

/// The name of the file leads nowhere else: not through a link, not to a second name.
#[test]
fn only_a_file_of_its_own_is_opened() {
    let dir = tempfile::tempdir().unwrap();
    let outside = dir.path().join("outside");
    fs::write(&outside, b"").unwrap();
    fs::create_dir(dir.path().join(".syncline")).unwrap();
    let path = dir.path().join(".syncline/index.redb");
    let root = Root::open(dir.path()).unwrap();
    let refused = || {
        let error = Index::open(&root, IndexOptions::default()).unwrap_err();
        assert!(matches!(error, IndexError::File(_)), "{error}");
        error.to_string()
    };
    std::os::unix::fs::symlink(&outside, &path).unwrap();
    assert!(refused().starts_with("cannot open .syncline/index.redb: "));
    fs::remove_file(&path).unwrap();
    fs::hard_link(&outside, &path).unwrap();
    refused();
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    refused();
    assert_eq!(fs::read(&outside).unwrap(), b"");
}

#[test]
fn a_folder_that_cannot_be_written_says_so() {
    // procfs refuses every mkdir, also to root, though not always in the same words.
    let root = Root::open("/proc/self/task".as_ref()).unwrap();
    let error = Index::open(&root, IndexOptions::default()).unwrap_err();
    assert!(matches!(error, IndexError::ReadOnly | IndexError::File(_)), "{error}");
    let text = IndexError::ReadOnly.to_string();
    assert!(text.contains("give this user write access"), "{text}");
}

/// An index of 2,000 records, closed, as bytes.
fn sample() -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let index = open(dir.path()).index;
    let mut batch = Batch::new();
    for number in 0..2_000 {
        batch.put(
            &rel(&format!("dir{}/file{number}", number % 50)),
            &file(number + 1, number),
        );
    }
    index.write(&batch).unwrap();
    drop(index);
    fs::read(dir.path().join(".syncline/index.redb")).unwrap()
}

/// Opens `bytes` as an index and reads all of it. Returns what was found.
fn try_damaged(bytes: &[u8]) -> FoundIndex {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), b"x").unwrap();
    fs::create_dir(dir.path().join(".syncline")).unwrap();
    fs::write(dir.path().join(".syncline/index.redb"), bytes).unwrap();
    let OpenedIndex { index, found } = open(dir.path());
    let rows = paths(&index).len();
    match &found {
        FoundIndex::Kept => assert_eq!((rows, changes(&index, 0).len()), (2_000, 1_000)),
        FoundIndex::New => assert_eq!(rows, 0),
        FoundIndex::Damaged { moved_to, .. } => {
            assert_eq!(rows, 0);
            let aside = dir.path().join(".syncline").join(moved_to);
            assert!(fs::metadata(aside).unwrap().len() > 0);
        }
    }
    index.write(&batch(&[("file", file(5_000, 1))])).unwrap();
    assert_eq!(fs::read(dir.path().join("file")).unwrap(), b"x");
    found
}

/// Row 56 of the threats: whatever stands in the file, it is read whole or a new epoch begins.
#[test]
fn a_damaged_file_costs_the_index_and_nothing_else() {
    let whole = sample();
    assert_eq!(try_damaged(&whole), FoundIndex::Kept);
    assert_eq!(try_damaged(b""), FoundIndex::New);
    let is_damaged = |bytes: &[u8], what: &str| {
        let found = try_damaged(bytes);
        assert!(matches!(found, FoundIndex::Damaged { .. }), "{what}: {found:?}");
    };
    is_damaged(b"garbage", "a few bytes");
    is_damaged(&[0xa5; 100_000], "many bytes");
    is_damaged(&vec![0; whole.len()], "zeros");
    for length in [1, 100, 512, 4096, 10_000, whole.len() / 2, whole.len() - 1] {
        let found = try_damaged(&whole[..length]);
        assert_ne!(found, FoundIndex::New, "{length} bytes");
    }
    let seed = seed();
    eprintln!("SYNCLINE_SEED={seed}");
    let mut state = seed;
    let mut damaged = 0;
    for _ in 0..60 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let mut bytes = whole.clone();
        // Every other one in the head of the file.
        let range = if state >> 20 & 1 == 0 { 512 } else { bytes.len() };
        let at = (state >> 33) as usize % range;
        bytes[at] ^= 1 << (state >> 60 & 7);
        damaged += u32::from(matches!(try_damaged(&bytes), FoundIndex::Damaged { .. }));
    }
    assert!(damaged > 0, "no flipped bit was noticed");
}

fn seed() -> u64 {
    std::env::var("SYNCLINE_SEED").map_or_else(|_| getrandom::u64().unwrap(), |seed| seed.parse().unwrap())
}

#[test]
fn a_version_from_the_future_is_moved_aside_whole() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(".syncline/index.redb");
    drop(open(dir.path()));
    for number in 1..=9 {
        let database = Database::open(&path).unwrap();
        let write = database.begin_write().unwrap();
        let version = 2_u32.to_le_bytes();
        write.open_table(META).unwrap().insert("format", &version[..]).unwrap();
        write.commit().unwrap();
        drop(database);
        let FoundIndex::Damaged { moved_to, reason } = open(dir.path()).found else {
            panic!("it was read")
        };
        assert_eq!(moved_to, format!("index.redb.damaged-{}", number.min(8)));
        assert!(reason.contains("version"), "{reason}");
    }
}

fn with_faults(dir: &Path) -> (Index, Faults) {
    let options = IndexOptions::default();
    let faults = options.faults.clone();
    let index = Index::open(&Root::open(dir).unwrap(), options).unwrap().index;
    (index, faults)
}

/// Enough that the file has to grow for it.
fn large(from: u64) -> Batch {
    let mut batch = Batch::new();
    for number in from..from + 20_000 {
        batch.put(&rel(&format!("large/{number}")), &file(number, number));
    }
    batch
}

/// Invariant 16 of the threats: a full disk leaves the old state, and work goes on when there is room.
#[test]
fn a_batch_that_does_not_fit_changes_nothing() {
    for (kind, counts) in [("grow", &[0][..]), ("write", &[0, 1, 5, 50, 500])] {
        for &count in counts {
            let dir = tempfile::tempdir().unwrap();
            let (index, faults) = with_faults(dir.path());
            index.write(&batch(&[("a", file(1, 1))])).unwrap();
            let before = index.snapshot().unwrap();
            let left: &AtomicU64 = if kind == "grow" { &faults.grows } else { &faults.writes };
            left.store(count, Ordering::SeqCst);
            let error = index.write(&large(2)).unwrap_err();
            assert!(error.is_full(), "{kind} {count}: {error}");
            assert_eq!(index.revision(), Revision(1));
            drop(before);
            left.store(u64::MAX, Ordering::SeqCst);
            assert_eq!(paths(&index), ["a"], "{kind} {count}");
            assert_eq!(changes(&index, 0), [("a".to_owned(), 1)]);
            index.write(&large(2)).unwrap();
            assert_eq!(index.snapshot().unwrap().live(), 20_001);
            drop(index);
            assert_eq!(open(dir.path()).found, FoundIndex::Kept);
        }
    }
}

/// A flush that failed is never tried again: nobody knows what the disk holds.
#[test]
fn after_a_failed_flush_nothing_is_answered() {
    let dir = tempfile::tempdir().unwrap();
    let (index, faults) = with_faults(dir.path());
    index.write(&batch(&[("a", file(1, 1))])).unwrap();
    faults.syncs.store(0, Ordering::SeqCst);
    let error = index.write(&batch(&[("b", file(2, 1))])).unwrap_err();
    assert!(matches!(error, IndexError::File(_)), "{error}");
    faults.syncs.store(u64::MAX, Ordering::SeqCst);
    assert!(matches!(index.snapshot(), Err(IndexError::Closed)));
    assert!(matches!(index.write(&large(3)), Err(IndexError::Closed)));
    drop(index);
    let index = open(dir.path()).index;
    let whole = [vec!["a"], vec!["a", "b"]];
    assert!(whole.iter().any(|want| *want == paths(&index)));
}

#[test]
fn readers_do_not_wait_for_the_writer() {
    let dir = tempfile::tempdir().unwrap();
    let index = open(dir.path()).index;
    index.write(&batch(&[("a", file(1, 1))])).unwrap();
    let writer = index.clone();
    let writing = std::thread::spawn(move || {
        for round in 0..5 {
            writer.write(&large(2 + round * 20_000)).unwrap();
        }
    });
    let mut last = 0;
    while !writing.is_finished() {
        let snapshot = index.snapshot().unwrap();
        let live = snapshot.live();
        // Whole batches only.
        assert!((live - 1).is_multiple_of(20_000) && live >= last, "{live}");
        assert_eq!(snapshot.revision().0, live);
        last = live;
    }
    writing.join().unwrap();
    assert_eq!(index.snapshot().unwrap().live(), 100_001);
}
