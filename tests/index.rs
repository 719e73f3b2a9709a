//! The index of a folder on real disks and between real processes: killed writers, full and read-only disks.
//! Runs this test binary again as a child, some of them in a namespace.

#![allow(clippy::unwrap_used)]
#![cfg(feature = "sync")]

mod harness;

use harness::child::{self, Killed};
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};
use syncline::model::{Kind, Meta, RelPath, Revision, State, Timestamp};
use syncline::store::{Batch, FoundIndex, Index, IndexError, IndexOptions, OpenedIndex, Record, Root};

const UNSHARE: [&str; 2] = ["unshare", "-rm"];

fn open(dir: &Path) -> Result<OpenedIndex, IndexError> {
    Index::open(&Root::open(dir).unwrap(), IndexOptions::default())
}

/// Paths of one batch. The second half of them is live in even rounds only.
const PATHS: u64 = 200;

/// The batch of one round: every path gets the round as its size, and a revision of its own.
fn batch(round: u64) -> Batch {
    let mut batch = Batch::new();
    for number in 0..PATHS {
        let meta = Meta {
            mode: 0o644,
            mtime: Timestamp { seconds: 1, nanos: 0 },
        };
        let state = State {
            kind: Kind::File { size: round },
            meta,
            root: None,
        };
        let live = number < PATHS / 2 || round.is_multiple_of(2);
        let record = Record {
            state: live.then_some(state),
            revision: Revision(round * PATHS + number + 1),
            author: None,
            identity: None,
            at: meta.mtime,
        };
        let path = format!("directory {}/file {number}", number % 7);
        batch.put(&RelPath::parse(path.as_bytes()).unwrap(), &record);
    }
    batch.set_mark(Revision(round * PATHS + PATHS), round);
    batch
}

/// The round that the index holds, after a look at whether it is all of it and nothing else.
fn round_of(index: &Index) -> Option<u64> {
    let snapshot = index.snapshot().unwrap();
    let changes = snapshot.changes_since(Revision::NONE, usize::MAX).unwrap();
    let (_, last) = changes.last()?;
    let round = (last.revision.0 - 1) / PATHS;
    let revisions: Vec<u64> = changes.iter().map(|(_, record)| record.revision.0).collect();
    let want: Vec<u64> = (1..=PATHS).map(|number| round * PATHS + number).collect();
    assert_eq!(revisions, want);
    let sizes = changes.iter().filter_map(|(_, record)| record.state.as_ref());
    assert!(sizes.clone().all(|state| state.kind == Kind::File { size: round }));
    assert_eq!(snapshot.live(), sizes.count() as u64);
    assert_eq!(snapshot.walk(None).unwrap().count() as u64, PATHS);
    assert_eq!(snapshot.mark(snapshot.revision()).unwrap(), Some(round));
    Some(round)
}

/// Row 46 of the threats: whenever the writer is killed, the batch is there whole or not at all, and one
/// that was said to be durable is there.
#[test]
fn row_46_a_killed_writer_leaves_the_old_batch_or_the_new_one() {
    const NAME: &str = "row_46_a_killed_writer_leaves_the_old_batch_or_the_new_one";
    const PLACE: &str = "SYNCLINE_TEST_INDEX";
    if let Ok(dir) = std::env::var(PLACE) {
        let index = open(Path::new(&dir)).unwrap().index;
        let first = round_of(&index).map_or(0, |round| round + 1);
        for round in first.. {
            index.write(&batch(round)).unwrap();
            println!("\nwritten {round}");
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let mut epoch = None;
    for kills in 0..12 {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args([NAME, "--exact", "--nocapture"]).env(PLACE, dir.path());
        let mut writing = Killed(command.stdout(Stdio::piped()).spawn().unwrap());
        let told = BufReader::new(writing.0.stdout.take().unwrap()).lines();
        let mut rounds = told.filter_map(|line| line.unwrap().strip_prefix("written ")?.parse::<u64>().ok());
        let mut said = rounds.nth(kills).expect("it writes until it is killed");
        let held = open(dir.path()).unwrap_err();
        assert!(matches!(held, IndexError::Held), "{held}");
        drop(writing);
        said = rounds.last().unwrap_or(said);
        let OpenedIndex { index, found } = open(dir.path()).unwrap();
        assert_eq!(found, FoundIndex::Kept);
        let round = round_of(&index).unwrap();
        assert!(round == said || round == said + 1, "{round} after {said} was said");
        assert_eq!(*epoch.get_or_insert(index.epoch()), index.epoch());
    }
}

/// Runs `test` in a namespace with a small disk of its own; says so where that is not possible.
fn in_a_namespace(name: &str) {
    let works = Command::new("unshare")
        .args(["-rm", "sh", "-c", "mount -t tmpfs none /mnt"])
        .output();
    if !works.is_ok_and(|output| output.status.success()) {
        return println!("SKIPPED {name}: no namespace in which a small disk could be mounted");
    }
    let output = child::run(&UNSHARE, name, name);
    assert!(output.status.success(), "{}", child::text(&output));
}

fn mount(options: &str, at: &Path) {
    let mut command = Command::new("mount");
    let mounted = command.args(["-t", "tmpfs", "-o", options, "none"]).arg(at).status();
    assert!(mounted.unwrap().success(), "cannot mount in our own namespace");
}

/// Row 47: on a full disk the index is as it was and can be read; when there is room, it goes on.
#[test]
fn row_47_an_index_on_a_full_disk_stays_as_it_was() {
    const NAME: &str = "row_47_an_index_on_a_full_disk_stays_as_it_was";
    if !child::is(NAME) {
        return in_a_namespace(NAME);
    }
    let place = tempfile::tempdir().unwrap();
    mount("size=8m", place.path());
    let index = open(place.path()).unwrap().index;
    index.write(&batch(0)).unwrap();
    let filler = File::create(place.path().join("filler")).unwrap();
    let mut filled = 0;
    while filler.write_at(&[1; 4096], filled).is_ok() {
        filled += 4096;
    }
    let mut round = 0;
    let mut many = Batch::new();
    let record = index.snapshot().unwrap().walk(None).unwrap().next().unwrap().unwrap().1;
    for number in 0..50_000 {
        many.put(&RelPath::parse(format!("more {number}").as_bytes()).unwrap(), &record);
    }
    for _ in 0..3 {
        let error = index.write(&many).unwrap_err();
        assert!(error.is_full(), "{error}");
        assert!(error.to_string().contains("No space left on device"), "{error}");
        assert_eq!(round_of(&index), Some(round));
        // What fits still goes.
        index.write(&batch(round + 1)).unwrap();
        round += 1;
        assert_eq!(round_of(&index), Some(round));
    }
    filler.set_len(filled / 2).unwrap();
    index.write(&batch(round + 1)).unwrap();
    drop(index);
    let OpenedIndex { index, found } = open(place.path()).unwrap();
    assert_eq!((found, round_of(&index)), (FoundIndex::Kept, Some(round + 1)));
}

/// A disk that cannot be written is said to be one, whether or not there is an index on it.
#[test]
fn an_index_on_a_read_only_disk_says_so() {
    const NAME: &str = "an_index_on_a_read_only_disk_says_so";
    if !child::is(NAME) {
        return in_a_namespace(NAME);
    }
    let place = tempfile::tempdir().unwrap();
    mount("size=8m", place.path());
    let remount = |options: &str| mount(&format!("remount,{options}"), place.path());
    for had_one in [false, true] {
        remount("ro");
        let error = open(place.path()).unwrap_err();
        assert!(matches!(error, IndexError::ReadOnly), "{had_one}: {error}");
        assert!(error.to_string().starts_with("cannot write the index of this folder"));
        remount("rw");
        drop(open(place.path()).unwrap());
        fs::metadata(place.path().join(".syncline/index.redb")).unwrap();
    }
}
