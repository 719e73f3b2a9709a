//! Tests of `writer`: what is kept over a restart, on a full disk, and when it grows.

use super::super::fixtures::{file, identity, incoming, open, patched, path, reached, reboot};
use super::*;
use crate::model::limits::{JOURNAL_RUNS_MAX, LEAF_BYTES};
use crate::store::journal::examine::StagedBytes;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

fn all(journal: &Journal) -> Vec<Unfinished> {
    journal.iter().cloned().collect()
}

fn length(dir: &Path) -> u64 {
    fs::metadata(file(dir)).unwrap().len()
}

fn count(dir: &Path) -> usize {
    fs::read_dir(dir).unwrap().count()
}

/// A restart goes on with what was said, and a place where all has ended shows nothing of it.
#[test]
fn what_was_said_is_there_after_a_restart_and_nothing_stays_at_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(dir.path());
    assert_eq!(count(dir.path()), 0);
    let first = journal.begin(&incoming("a", Some(1))).unwrap();
    let second = journal.begin(&incoming("b", None)).unwrap();
    let third = journal.begin(&Subject::Outgoing(identity(200))).unwrap();
    journal.reach(first, &reached(5));
    let before = all(&journal);
    drop(journal);
    let mut journal = open(dir.path());
    assert_eq!(all(&journal), before);
    assert!(before[0].proven && before[0].reached == reached(5));
    let one = DeviceId([1; 32]);
    assert_eq!(journal.incoming(&path("a"), Some(&one)).unwrap().id, first);
    assert!(journal.incoming(&path("a"), None).is_none());
    assert!(journal.incoming(&path("b"), Some(&one)).is_none());
    assert_eq!(journal.outgoing(&identity(200)).unwrap().id, third);
    assert!(journal.outgoing(&identity(201)).is_none());
    // The latest of several counts, and the earlier one again when it has ended.
    let again = journal.begin(&incoming("b", None)).unwrap();
    assert_eq!(journal.incoming(&path("b"), None).unwrap().id, again);
    journal.end(again);
    assert_eq!(journal.incoming(&path("b"), None).unwrap().id, second);
    [first, second, third].iter().for_each(|&id| journal.end(id));
    drop(journal);
    assert_eq!(count(dir.path()), 0);
}

/// What is not a position, and more than is kept of one, changes nothing.
#[test]
fn a_position_that_cannot_be_kept_leaves_the_last_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(dir.path());
    let id = journal.begin(&patched("a")).unwrap();
    let mut good = reached(6);
    good.changed = vec![0..1, 7..9];
    journal.reach(id, &good);
    let pages = |count: usize| (0..count as u64).map(|n| 2 * n..2 * n + 1).collect::<Vec<_>>();
    let wrong = [
        Reached {
            changed: pages(JOURNAL_RUNS_MAX + 1),
            ..reached(7)
        },
        Reached {
            changed: vec![0..1, 3..3],
            ..reached(7)
        },
        Reached {
            changed: vec![3..5, 4..6],
            ..reached(7)
        },
        Reached {
            offset: 3,
            ..Reached::default()
        },
        Reached {
            frontier: Vec::new(),
            ..reached(7)
        },
        reached((1 << 40) / LEAF_BYTES as u64 + 1),
    ];
    for wrong in wrong {
        journal.reach(id, &wrong);
        assert_eq!(journal.find(id).unwrap().reached, good);
    }
    journal.reach(TransferId(id.0 ^ 1), &good);
    good.changed = pages(JOURNAL_RUNS_MAX);
    journal.reach(id, &good);
    drop(journal);
    let journal = open(dir.path());
    assert_eq!(journal.find(id).unwrap().reached, good);
    assert_eq!(journal.iter().count(), 1);
}

/// Row 59: a second process is told who is first; also when the file was replaced meanwhile.
#[test]
fn row_59_one_process_at_a_time_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let root = Root::open(dir.path()).unwrap();
    let mut early = open(dir.path());
    let mut first = open(dir.path());
    let id = first.begin(&incoming("a", None)).unwrap();
    let held = |root: &Root| match Journal::open(root) {
        Err(JournalError::Held { holder }) => assert_eq!(holder, format!("pid {}", std::process::id())),
        other => panic!("{other:?}"),
    };
    held(&root);
    // One that opened it before there was a file finds out when it begins something.
    assert_eq!(early.begin(&incoming("b", None)), None);
    let inode = fs::metadata(file(dir.path())).unwrap().ino();
    while fs::metadata(file(dir.path())).unwrap().ino() == inode {
        first.reach(id, &reached((1 << 20) - 1));
    }
    held(&root);
    drop(first);
    assert!(early.begin(&incoming("b", None)).is_some());
    assert_eq!(early.iter().count(), 2, "it goes on with what the first one left");
}

/// A power cut soon after the file is made, or replaced, would leave it empty: each is flushed once.
#[test]
fn a_new_file_is_handed_out_once_to_be_flushed() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(dir.path());
    assert!(journal.take_unflushed().is_none());
    let id = journal.begin(&incoming("a", None)).unwrap();
    let inode = |journal: &mut Journal| journal.take_unflushed().map(|file| file.metadata().unwrap().ino());
    let named = || fs::metadata(file(dir.path())).unwrap().ino();
    let first = named();
    assert_eq!(inode(&mut journal), Some(first));
    assert_eq!(inode(&mut journal), None);
    while named() == first {
        journal.reach(id, &reached((1 << 20) - 1));
    }
    assert_eq!(inode(&mut journal), Some(named()));
    drop(journal);
    assert_eq!(inode(&mut open(dir.path())), None);
}

/// A user who cleans up `.syncline` stops nothing that begins later, and loses nothing that is known.
#[test]
fn a_journal_that_somebody_removed_is_written_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(dir.path());
    let id = journal.begin(&incoming("a", None)).unwrap();
    fs::remove_dir_all(dir.path().join(".syncline")).unwrap();
    journal.reach(id, &reached(3));
    journal.begin(&incoming("b", None)).unwrap();
    let before = all(&journal);
    drop(journal);
    let journal = open(dir.path());
    assert_eq!(all(&journal), before);
    assert_eq!(journal.find(id).unwrap().reached, reached(3));
}

/// The file stays below a small multiple of what it says, whatever was said before.
#[test]
fn a_journal_that_grew_is_replaced_by_what_is_live() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(dir.path());
    let id = journal.begin(&incoming("a", None)).unwrap();
    let mut longest = 0;
    for leaves in 0..4_000 {
        journal.reach(id, &reached(leaves));
        longest = longest.max(length(dir.path()));
    }
    assert!((255 << 10..264 << 10).contains(&longest), "{longest}");
    let before = all(&journal);
    fs::write(dir.path().join(".syncline/journal.new"), b"a leftover").unwrap();
    drop(journal);
    assert_eq!(all(&open(dir.path())), before);
    assert_eq!(count(&dir.path().join(".syncline")), 1);
}

/// The figure that is promised: a thousand half-done transfers in less than a MiB.
#[test]
fn a_thousand_transfers_take_less_than_a_mib() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(dir.path());
    for number in 0..1_000 {
        let name = format!("a folder/and another one/a file with a name of usual length {number}.tar");
        let id = journal.begin(&incoming(&name, Some(number as u8))).unwrap();
        // Half of 2 GiB, the frontier of the most roots that it may have there.
        journal.reach(id, &reached((1 << 16) - 1));
    }
    assert!(length(dir.path()) < 1 << 20, "{}", length(dir.path()));
    drop(journal);
    assert_eq!(open(dir.path()).iter().count(), 1_000);
}

/// Both bounds: a transfer too many is not entered, the others are as before.
#[test]
fn i12_no_more_transfers_are_entered_than_the_bounds_allow() {
    let dir = tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .unwrap();
    let mut journal = open(dir.path());
    for number in 0..JOURNAL_ENTRIES_MAX {
        assert!(journal.begin(&incoming(&format!("{number}"), None)).is_some());
    }
    assert_eq!(journal.begin(&incoming("one more", None)), None);
    let first = journal.iter().next().unwrap().id;
    journal.end(first);
    let id = journal.begin(&incoming("one more", None)).unwrap();
    drop(journal);
    let mut journal = open(dir.path());
    assert_eq!(journal.iter().count(), JOURNAL_ENTRIES_MAX);
    // All at their longest would be over 30 MB.
    let long = |number: usize| format!("{number}/{}", ["n".repeat(250).as_str(); 14].join("/"));
    let ended = journal.end_older_than(i64::MAX);
    assert!(ended.len() == JOURNAL_ENTRIES_MAX && ended.contains(&id));
    assert_eq!(journal.iter().count(), 0);
    let entered = (0..JOURNAL_ENTRIES_MAX).map_while(|number| {
        let id = journal.begin(&incoming(&long(number), None))?;
        journal.reach(id, &reached((1 << 26) - 1));
        Some(())
    });
    let entered = entered.count();
    assert!((2_000..4_000).contains(&entered), "{entered}");
    assert!(length(dir.path()) <= JOURNAL_BYTES_MAX);
    let ids: Vec<TransferId> = journal.iter().map(|entry| entry.id).collect();
    let mut inodes = Vec::new();
    for &id in ids.iter().cycle().take(12_000) {
        journal.reach(id, &reached((1 << 26) - 2));
        inodes.push(fs::metadata(file(dir.path())).unwrap().ino());
    }
    inodes.dedup();
    assert!(inodes.len() < 12, "it was replaced {} times", inodes.len());
    assert!(length(dir.path()) <= JOURNAL_BYTES_MAX);
    let before = all(&journal);
    drop(journal);
    assert_eq!(all(&open(dir.path())), before);
}

/// I6: after a restart of the machine nothing counts as proven before it was verified again; another
/// restart, and a replaced file, do not change that.
#[test]
fn i6_what_an_earlier_boot_wrote_stays_unproven_until_it_is_verified() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(dir.path());
    let old = journal.begin(&incoming("old", None)).unwrap();
    journal.reach(old, &reached(9));
    let bare = journal.begin(&incoming("bare", None)).unwrap();
    drop(journal);
    reboot(dir.path());
    for _ in 0..2 {
        let journal = open(dir.path());
        assert!(!journal.find(old).unwrap().proven && !journal.find(bare).unwrap().proven);
        assert_eq!(journal.find(old).unwrap().reached, reached(9));
    }
    let mut journal = open(dir.path());
    let new = journal.begin(&incoming("new", None)).unwrap();
    let inode = fs::metadata(file(dir.path())).unwrap().ino();
    while fs::metadata(file(dir.path())).unwrap().ino() == inode {
        journal.reach(new, &reached((1 << 20) - 1));
    }
    drop(journal);
    let mut journal = open(dir.path());
    assert!(!journal.find(old).unwrap().proven && journal.find(new).unwrap().proven);
    journal.reach(old, &reached(8));
    assert!(journal.find(old).unwrap().proven);
    drop(journal);
    let journal = open(dir.path());
    assert!(journal.find(old).unwrap().proven && !journal.find(bare).unwrap().proven);
    assert_eq!(journal.find(old).unwrap().reached, reached(8));
}

/// The same when the new header could not be written: what is added is then not proven either.
#[test]
fn i6_claims_under_an_old_header_are_not_proven_by_the_next_process() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(dir.path());
    let id = journal.begin(&incoming("a", None)).unwrap();
    drop(journal);
    reboot(dir.path());
    // In the way of the new file.
    fs::create_dir(dir.path().join(".syncline/journal.new")).unwrap();
    let mut journal = open(dir.path());
    journal.reach(id, &reached(3));
    assert!(journal.find(id).unwrap().proven);
    drop(journal);
    let journal = open(dir.path());
    assert_eq!(journal.find(id).unwrap().reached, reached(3));
    assert!(!journal.find(id).unwrap().proven);
}

/// Row 47: on a full disk no transfer is entered any more, but all that are entered can end, and
/// everything is as it was said after a restart; when there is room again, work goes on by itself.
#[test]
fn row_47_what_was_entered_can_end_on_a_full_disk() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(dir.path());
    let mut ids: Vec<TransferId> = Vec::new();
    for number in 0..5_000 {
        ids.extend(journal.begin(&incoming(&format!("{number}"), None)));
    }
    assert_eq!(ids.len(), 5_000);
    let log = journal.log.as_mut().unwrap();
    let full = log.reserved;
    log.faults.full_at = Some(full);
    // Some room was taken ahead.
    ids.extend(std::iter::from_fn(|| journal.begin(&incoming("no room", None))).take(5_000));
    assert!((5_000..7_000).contains(&ids.len()), "{}", ids.len());
    let last = *ids.last().unwrap();
    let mut before = 0;
    let mut kept = 0;
    while before != length(dir.path()) {
        before = length(dir.path());
        kept += 1;
        journal.reach(last, &reached(kept));
    }
    assert!(kept > 100, "there was room for {kept} positions");
    let ends = (ids.len() * record::END_BYTES) as u64;
    assert!(before + ends <= full, "the rest is for the ends");
    let (ended, left) = ids.split_at(4_000);
    ended.iter().for_each(|&id| journal.end(id));
    assert_eq!(length(dir.path()), before + (4_000 * record::END_BYTES) as u64);
    journal.log.as_mut().unwrap().faults.full_at = None;
    let late = journal.begin(&incoming("room again", None)).unwrap();
    drop(journal);
    let journal = open(dir.path());
    assert_eq!(journal.iter().count(), left.len() + 1);
    assert_eq!(journal.incoming(&path("room again"), None).unwrap().id, late);
    // The last position was not written, the one before was.
    assert_eq!(journal.find(last).unwrap().reached, reached(kept - 1));
}

/// Row 49: half a record is cut off, at each of its lengths; where it cannot be, nothing follows on it.
#[test]
fn row_49_half_a_record_is_cut_off_or_the_last_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(dir.path());
    let id = journal.begin(&incoming("a", None)).unwrap();
    journal.reach(id, &reached(1));
    let before = length(dir.path());
    for part in 0..27 {
        let (copy, mut journal) = copy_of(dir.path());
        journal.log.as_mut().unwrap().faults.full_at = Some(before + part);
        journal.end(id);
        assert!(journal.find(id).is_none(), "{part}: what is in memory holds");
        assert_eq!(length(copy.path()), before, "{part}");
    }
    let (copy, mut silent) = copy_of(dir.path());
    let faults = &mut silent.log.as_mut().unwrap().faults;
    (faults.full_at, faults.cannot_cut) = (Some(before + 5), true);
    silent.end(id);
    assert_eq!(length(copy.path()), before + 5);
    silent.log.as_mut().unwrap().faults = Default::default();
    assert_eq!(silent.begin(&incoming("b", None)), None);
    assert_eq!(length(copy.path()), before + 5);
    // The next process cuts it.
    let (next, journal) = copy_of(copy.path());
    assert_eq!(journal.find(id).unwrap().reached, reached(1));
    assert_eq!(length(next.path()), before);
}

/// A journal with the content of the one below `dir`.
fn copy_of(dir: &Path) -> (tempfile::TempDir, Journal) {
    let copy = tempfile::tempdir().unwrap();
    fs::create_dir(copy.path().join(".syncline")).unwrap();
    fs::copy(file(dir), file(copy.path())).unwrap();
    let journal = open(copy.path());
    (copy, journal)
}

/// Rows 3 and 6: what somebody put in the place of the journal is not written to, and nothing hangs.
#[test]
fn row_03_links_and_special_files_are_not_written_to() {
    let outside = tempfile::tempdir().unwrap();
    let canary = outside.path().join("canary");
    fs::write(&canary, b"untouched").unwrap();
    let cases: [&dyn Fn(&Path); 4] = [
        &|at| symlink(&canary, at).unwrap(),
        &|at| fs::hard_link(&canary, at).unwrap(),
        &|at| fs::create_dir(at).unwrap(),
        &|at| {
            let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
            rustix::fs::mknodat(rustix::fs::CWD, at, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        },
    ];
    for (number, case) in cases.iter().enumerate() {
        let dir = tempfile::tempdir_in(outside.path()).unwrap();
        let root = Root::open(dir.path()).unwrap();
        let mut early = Journal::open(&root).unwrap();
        fs::create_dir(dir.path().join(".syncline")).unwrap();
        case(&file(dir.path()));
        assert!(Journal::open(&root).is_err(), "{number}");
        assert!(Journal::examine(&root).is_err(), "{number}");
        assert!(Journal::repair(&root).is_err(), "{number}");
        assert_eq!(early.begin(&incoming("a", None)), None, "{number}");
    }
    assert_eq!(fs::read(&canary).unwrap(), b"untouched");
}

/// A damaged journal is left as it is, byte for byte, by everything but a repair.
#[test]
fn row_46_a_damaged_middle_changes_nothing_on_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let root = Root::open(dir.path()).unwrap();
    let mut journal = open(dir.path());
    let id = journal.begin(&incoming("a", None)).unwrap();
    journal.reach(id, &reached(2));
    drop(journal);
    let mut bytes = fs::read(file(dir.path())).unwrap();
    bytes[50] ^= 1;
    fs::write(file(dir.path()), &bytes).unwrap();
    let leftover = dir.path().join(".syncline/journal.new");
    fs::write(&leftover, b"x").unwrap();
    for error in [Journal::open(&root).unwrap_err(), Journal::examine(&root).unwrap_err()] {
        let JournalError::Damaged {
            at,
            records_before,
            records_behind,
        } = error
        else {
            panic!("{error}")
        };
        assert_eq!((at, records_before, records_behind), (44, 0, 1));
    }
    assert_eq!(fs::read(file(dir.path())).unwrap(), bytes);
    assert!(leftover.exists());
}

/// The state directory has one of its own, and keeps what else is in it.
#[test]
fn a_state_directory_has_a_journal_too() {
    let dir = tempfile::tempdir().unwrap();
    let home = Home::open(&dir.path().join("home")).unwrap();
    let mut journal = Journal::open_home(&home).unwrap();
    let id = journal.begin(&Subject::Outgoing(identity(200))).unwrap();
    assert!(home.path().join("journal").is_file());
    drop(journal);
    let mut journal = Journal::open_home(&home).unwrap();
    assert_eq!(journal.outgoing(&identity(200)).unwrap().id, id);
    let examined = Journal::examine_home(&home).unwrap();
    assert_eq!(examined.transfers.len(), 1);
    assert_eq!(examined.path, home.path().join("journal"));
    journal.end(id);
    drop(journal);
    assert_eq!(count(home.path()), 0);
}

/// Looking takes no lock, sees what a running process has, and finds the staged files.
#[test]
fn a_journal_can_be_looked_at_while_it_is_used() {
    let dir = tempfile::tempdir().unwrap();
    let root = Root::open(dir.path()).unwrap();
    let empty = Journal::examine(&root).unwrap();
    assert!(empty.file_bytes.is_none() && empty.transfers.is_empty());
    assert_eq!(count(dir.path()), 0);
    let mut journal = open(dir.path());
    let staged = journal.begin(&incoming("staged", None)).unwrap();
    let gone = journal.begin(&incoming("gone", None)).unwrap();
    journal.reach(staged, &reached(1));
    let kept = dir.path().join(".syncline/staging/kept");
    fs::create_dir_all(&kept).unwrap();
    fs::write(kept.join(staged.to_string()), vec![1; 5_000]).unwrap();
    symlink("/etc/passwd", kept.join(gone.to_string())).unwrap();
    let examined = Journal::examine(&root).unwrap();
    assert_eq!(examined.file_bytes, Some(length(dir.path())));
    assert_eq!(examined.live_bytes + record::HEADER_BYTES as u64, length(dir.path()));
    let found: Vec<Unfinished> = examined.transfers.iter().map(|each| each.unfinished.clone()).collect();
    assert_eq!(found, all(&journal));
    let StagedBytes { length, on_disk } = examined.transfers[0].staged.unwrap();
    assert!(length == 5_000 && on_disk.is_multiple_of(512), "{on_disk}");
    assert_eq!(examined.transfers[1].staged, None);
}

/// Names of staged files are ids, and nothing else is one.
#[test]
fn the_text_of_an_id_is_its_only_one() {
    let id = TransferId(0xabc);
    assert_eq!(id.to_string(), "0000000000000abc");
    assert_eq!(TransferId::parse("0000000000000abc"), Some(id));
    for other in [
        "",
        "abc",
        "0000000000000ABC",
        "0000000000000000",
        "+000000000000abc",
        "00000000000000abc",
        "../x",
    ] {
        assert_eq!(TransferId::parse(other), None, "{other}");
    }
}

/// A journal is what a plain map of the same operations is, through restarts and replacements.
#[test]
fn random_operations_give_what_a_plain_map_gives() {
    let seed = std::env::var("SYNCLINE_JOURNAL_SEED")
        .ok()
        .and_then(|text| text.parse().ok());
    let seeds = seed.map_or(0..6u64, |seed: u64| seed..seed + 1);
    for seed in seeds {
        println!("replay with SYNCLINE_JOURNAL_SEED={seed}");
        run_against_a_map(seed);
    }
}

fn run_against_a_map(seed: u64) {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut random = move |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 16) % below
    };
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(dir.path());
    let mut model: BTreeMap<TransferId, (Subject, Reached, bool)> = BTreeMap::new();
    let mut replaced = 0;
    let mut inode = 0;
    for step in 0..6_000 {
        let ids: Vec<TransferId> = model.keys().copied().collect();
        let any = (!ids.is_empty()).then(|| ids[random(ids.len().max(1) as u64) as usize]);
        match (random(100), any) {
            (0..15, _) => {
                let subject = match random(3) {
                    0 => Subject::Outgoing(identity(random(200) as u8)),
                    1 => patched(&format!("p{}", random(50))),
                    _ => incoming(&format!("f{}", random(50)), Some(random(3) as u8)),
                };
                let id = journal.begin(&subject).unwrap();
                model.insert(id, (subject, Reached::default(), true));
            }
            (15..80, Some(id)) => {
                let entry = model.get_mut(&id).unwrap();
                let leaves = random(1 << 14).min(entry.0.size() / LEAF_BYTES as u64);
                entry.1 = reached(leaves);
                entry.2 = true;
                journal.reach(id, &entry.1);
            }
            (80..95, Some(id)) => {
                model.remove(&id);
                journal.end(id);
            }
            (95, _) => {
                drop(journal);
                journal = open(dir.path());
            }
            (96, _) if !model.is_empty() => {
                drop(journal);
                reboot(dir.path());
                journal = open(dir.path());
                model.values_mut().for_each(|entry| entry.2 = false);
            }
            _ => {}
        }
        assert_eq!(journal.iter().count(), model.len(), "step {step}");
        if step % 50 == 0 {
            for entry in journal.iter() {
                let (subject, reached, proven) = &model[&entry.id];
                assert_eq!(
                    (&entry.subject, &entry.reached, entry.proven),
                    (subject, reached, *proven)
                );
            }
        }
        if let Ok(found) = fs::metadata(file(dir.path())) {
            replaced += u32::from(found.ino() != inode);
            inode = found.ino();
        }
    }
    assert!(replaced > 3, "seed {seed}: the file was replaced {replaced} times");
}

// Who still has a copy of the descriptor (a flush under way, a child that is being started) locks nobody out.
#[test]
fn a_copy_of_the_descriptor_does_not_keep_the_lock() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(dir.path());
    journal.begin(&incoming("f", None)).unwrap();
    let copy = journal.take_unflushed().unwrap();
    drop(journal);
    assert_eq!(open(dir.path()).iter().count(), 1);
    drop(copy);
}
