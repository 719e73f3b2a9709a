//! Rows 46, 47 and 59 of the threats, for the journal on real disks and between real processes.
//! Runs this test binary again as a child in a namespace.

#![allow(clippy::unwrap_used)]

mod harness;

use harness::child::{self, Killed};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use syncline::model::{DeviceId, RelPath, Timestamp};
use syncline::store::{Incoming, Journal, JournalError, Reached, Root, Subject, TransferId};

const UNSHARE: [&str; 2] = ["unshare", "-rm"];

fn incoming(name: &str) -> Subject {
    Subject::Incoming(Incoming {
        path: RelPath::parse(name.as_bytes()).unwrap(),
        peer: Some(DeviceId([1; 32])),
        size: 1 << 30,
        mtime: Timestamp { seconds: 0, nanos: 0 },
        basis: None,
    })
}

fn reached(leaves: u64) -> Reached {
    Reached {
        offset: leaves * 16_384,
        frontier: vec![[3; 32]; leaves.count_ones() as usize],
        changed: Vec::new(),
    }
}

fn open(dir: &Path) -> Result<Journal, JournalError> {
    Journal::open(&Root::open(dir).unwrap())
}

/// Row 47: with the disk full to the last byte, what was entered can still end, and a new process finds
/// exactly what had not ended. When there is room again, transfers are entered again.
#[test]
fn row_47_a_journal_on_a_full_disk_still_ends_transfers() {
    const NAME: &str = "row_47_a_journal_on_a_full_disk_still_ends_transfers";
    if child::is(NAME) {
        return on_a_full_disk();
    }
    let script = "mount -t tmpfs none /mnt";
    let works = Command::new("unshare").args(["-rm", "sh", "-c", script]).output();
    if !works.is_ok_and(|output| output.status.success()) {
        return println!("SKIPPED {NAME}: no namespace in which a small disk could be mounted");
    }
    let output = child::run(&UNSHARE, NAME, NAME);
    assert!(output.status.success(), "{}", child::text(&output));
}

fn on_a_full_disk() {
    let place = tempfile::tempdir().unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=1m", "none"])
        .arg(place.path())
        .status();
    assert!(mounted.unwrap().success(), "cannot mount in our own namespace");
    let dir = place.path();
    let mut journal = open(dir).unwrap();
    let begun = |journal: &mut Journal, name: usize| journal.begin(&incoming(&name.to_string()));
    let mut ids: Vec<TransferId> = (0..500).map(|name| begun(&mut journal, name).unwrap()).collect();
    let filler = File::create(dir.join("filler")).unwrap();
    let mut filled = 0;
    while filler.write_at(&[1; 512], filled).is_ok() {
        filled += 512;
    }
    // The room that was taken ahead is used up by transfers that begin, then by positions.
    while let Some(id) = begun(&mut journal, ids.len()) {
        ids.push(id);
        assert!(ids.len() < 20_000, "no bound was met on a full disk");
    }
    let last = *ids.last().unwrap();
    let length = || fs::metadata(dir.join(".syncline/journal")).unwrap().len();
    let mut before = 0;
    for leaves in 1.. {
        if before == length() {
            break;
        }
        before = length();
        journal.reach(last, &reached(leaves));
    }
    let left = ids.split_off(ids.len() / 2);
    ids.iter().for_each(|&id| journal.end(id));
    assert_eq!(length(), before + 27 * ids.len() as u64);
    drop(journal);
    let mut journal = open(dir).unwrap();
    assert_eq!(journal.iter().map(|entry| entry.id).collect::<Vec<_>>(), left);
    assert!(journal.find(last).unwrap().reached.offset > 0);
    assert_eq!(begun(&mut journal, 1 << 20), None);
    drop(filler);
    fs::remove_file(dir.join("filler")).unwrap();
    assert!(begun(&mut journal, 1 << 20).is_some());
    left.iter().for_each(|&id| journal.end(id));
}

/// Rows 46 and 59: a process that is killed while it writes leaves a journal that the next one can use,
/// with all that it had said; while it lives, it is named.
#[test]
fn row_59_a_killed_process_leaves_its_journal_to_the_next() {
    const NAME: &str = "row_59_a_killed_process_leaves_its_journal_to_the_next";
    const PLACE: &str = "SYNCLINE_TEST_JOURNAL";
    if let Ok(dir) = std::env::var(PLACE) {
        let mut journal = open(Path::new(&dir)).unwrap();
        let id = journal.begin(&incoming("a")).unwrap();
        for leaves in (1..1 << 16).cycle() {
            journal.reach(id, &reached(leaves));
        }
    }
    let dir = tempfile::tempdir().unwrap();
    for _ in 0..5 {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args([NAME, "--exact", "--nocapture"]).env(PLACE, dir.path());
        let mut writing = Killed(command.spawn().unwrap());
        // A position beyond the first replacement of the file was written.
        loop {
            let examined = Journal::examine(&Root::open(dir.path()).unwrap());
            let far = |examined: &syncline::store::Examined| {
                let last = examined.transfers.last();
                last.is_some_and(|transfer| transfer.unfinished.reached.offset > 2_000 * 16_384)
            };
            if examined.as_ref().is_ok_and(far) {
                break;
            }
            assert!(writing.0.try_wait().unwrap().is_none(), "{examined:?}");
            std::thread::yield_now();
        }
        match open(dir.path()) {
            Err(JournalError::Held { holder }) => assert_eq!(holder, format!("pid {}", writing.0.id())),
            other => panic!("{other:?}"),
        }
        drop(writing);
        let mut journal = open(dir.path()).unwrap();
        let ids: Vec<TransferId> = journal.iter().map(|entry| entry.id).collect();
        assert_eq!(ids.len(), 1);
        assert!(journal.find(ids[0]).unwrap().proven);
        journal.end(ids[0]);
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}
