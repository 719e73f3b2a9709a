//! Tests of `inplace`, `undo` and `recovery` together: the result, and a crash after each step.

use super::*;
use crate::model::Timestamp;
use crate::store::{Author, KeptReason, Recovery, Versions, recover, restore, versions_of};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

const META: Meta = Meta {
    mode: 0o640,
    mtime: Timestamp { seconds: 77, nanos: 5 },
};

const OLD_META: Meta = Meta {
    mode: 0o444,
    mtime: Timestamp {
        seconds: 1_400_000_000,
        nanos: 123_456_789,
    },
};

/// A folder with one old file, and what it should become.
struct Case {
    dir: tempfile::TempDir,
    root: Root,
    old: Vec<u8>,
    new: Vec<u8>,
    /// What differs: offset and length in the new content.
    edits: Vec<(usize, usize)>,
}

fn path() -> RelPath {
    RelPath::parse(b"d/f").unwrap()
}

fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..length).map(|_| (random(&mut state) >> 32) as u8).collect()
}

fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

impl Case {
    fn new(old: Vec<u8>, new_length: usize, edits: &[(usize, usize)]) -> Case {
        let mut new = old.clone();
        new.resize(new_length, 0);
        for (number, &(at, length)) in edits.iter().enumerate() {
            new[at..at + length].copy_from_slice(&noise(length, 100 + number as u64));
        }
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        fs::create_dir(dir.path().join("d")).unwrap();
        fs::write(dir.path().join("d/f"), &old).unwrap();
        root.set_meta(&path(), &OLD_META).unwrap();
        Case {
            dir,
            root,
            old,
            new,
            edits: edits.to_vec(),
        }
    }

    /// Changed, cut and grown files: small parts, and parts larger than a range of a record.
    fn all() -> Vec<Case> {
        let mut holey = noise(300_000, 4);
        holey[100_000..250_000].fill(0);
        vec![
            Case::new(noise(50_000, 1), 50_000, &[(0, 1), (4_095, 2), (49_999, 1)]),
            Case::new(noise(50_000, 1), 20_000, &[(100, 5_000), (19_000, 1_000)]),
            Case::new(noise(20_000, 1), 50_000, &[(10_000, 40_000)]),
            Case::new(noise(3 << 20, 2), 3 << 20, &[(5, (5 << 19) + 9)]),
            Case::new(noise(3_000_000, 3), 10, &[(3, 1)]),
            Case::new(holey, 120_000, &[(99_000, 9_000)]),
            Case::new(noise(100, 1), 0, &[]),
            Case::new(Vec::new(), 5_000, &[(0, 5_000)]),
            Case::new(noise(10, 1), 9_000, &[]),
        ]
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("d/f")
    }

    fn content(&self) -> Vec<u8> {
        fs::read(self.file()).unwrap()
    }

    fn begin(&self) -> InPlace {
        let staging = Staging::new(&self.root);
        let expected = self.root.probe(&path()).unwrap().unwrap().identity;
        InPlace::begin(&self.root, &staging, &path(), &expected, self.new.len() as u64).unwrap()
    }

    fn prepared(&self) -> InPlace {
        let mut work = self.begin();
        for &(at, length) in &self.edits {
            work.write_at(at as u64, &self.new[at..at + length]).unwrap();
        }
        work
    }

    /// A commit that is killed after so many steps; whether it came to its end before.
    fn crash_after(&self, steps: usize) -> bool {
        let mut commit = Commit::new(self.prepared(), META, Flush::Disk, None).unwrap();
        (0..steps).any(|_| commit.step().unwrap().is_some())
    }

    fn recover(&self) -> Recovery {
        recover(&self.root, Flush::Disk).unwrap()
    }

    fn assert_old(&self, what: &str) {
        assert!(self.content() == self.old, "{what}");
        let found = fs::metadata(self.file()).unwrap();
        assert_eq!(found.mode() & 0o7777, 0o444, "{what}");
        assert_eq!(
            (found.mtime(), found.mtime_nsec()),
            (1_400_000_000, 123_456_789),
            "{what}"
        );
    }

    fn assert_new(&self) {
        assert!(self.content() == self.new);
        let found = fs::metadata(self.file()).unwrap();
        assert_eq!((found.mode() & 0o7777, found.mtime()), (0o640, 77));
    }

    /// Nothing of ours is left.
    fn assert_clean(&self, what: &str) {
        assert!(!self.dir.path().join(".syncline").exists(), "{what}");
    }

    /// The one record that a crash left.
    fn record(&self) -> PathBuf {
        let mut records = fs::read_dir(self.dir.path().join(".syncline/undo")).unwrap();
        let found = records.next().unwrap().unwrap().path();
        assert!(records.next().is_none());
        found
    }
}

/// Bytes, mode and time of the result, and no trace of the work.
#[test]
fn a_commit_gives_the_new_version() {
    for case in Case::all() {
        let work = case.prepared();
        assert!(case.content() == case.old, "nothing is touched before the commit");
        let inode = fs::metadata(case.file()).unwrap().ino();
        let identity = work.commit(&META, Flush::Disk, None).unwrap();
        case.assert_new();
        case.assert_clean("after the commit");
        assert_eq!(case.root.probe(&path()).unwrap().unwrap().identity, identity);
        assert_eq!(fs::metadata(case.file()).unwrap().ino(), inode);
    }
}

/// Zeros that are written to a sparse file become holes, also where it had data; after a crash at any step it holds
/// what it held.
#[test]
fn zeros_take_no_room_in_a_sparse_file() {
    let mut old = vec![0; 4 << 20];
    old[1 << 20..2 << 20].copy_from_slice(&noise(1 << 20, 1));
    let (zeros, data) = ((1 << 20) + 100..(2 << 20) - 5_000, (3 << 20) + 9..(3 << 20) + 5_000);
    for steps in 0.. {
        let mut case = Case::new(old.clone(), old.len(), &[(data.start, data.len())]);
        case.new[zeros.clone()].fill(0);
        case.edits.push((zeros.start, zeros.len()));
        let file = open_in_place(&case.root, &path()).unwrap();
        file.set_len(0).unwrap();
        file.set_len(old.len() as u64).unwrap();
        file.write_all_at(&old[1 << 20..2 << 20], 1 << 20).unwrap();
        case.root.set_meta(&path(), &OLD_META).unwrap();
        let done = case.crash_after(steps);
        assert!(case.recover().kept.is_empty());
        if !done {
            case.assert_old(&format!("after {steps} steps"));
            continue;
        }
        case.assert_new();
        file.sync_all().unwrap();
        let stored = file.metadata().unwrap().blocks() * 512;
        assert!(stored <= 64 << 10, "{stored} bytes stored of 15,000");
        return;
    }
}

/// The result can be hashed before it exists, in any pieces, and says which leaves need no hashing.
#[test]
fn the_result_reads_through_before_the_commit() {
    for case in Case::all() {
        let mut work = case.prepared();
        for piece in [1 + case.new.len() / 3, 4_095, 70_000] {
            let mut buffer = vec![9; piece];
            let mut read: Vec<u8> = Vec::new();
            while let count @ 1.. = work.read_through(read.len() as u64, &mut buffer).unwrap() {
                read.extend(&buffer[..count]);
            }
            assert!(read == case.new);
        }
        let leaf_of = |bytes: &[u8], leaf: usize| bytes.chunks(LEAF_BYTES).nth(leaf).map(<[u8]>::to_vec);
        let mut dirty = 0;
        let mut leaf = 0;
        while let Some(run) = work.next_dirty(leaf) {
            dirty += run.end - run.start;
            leaf = run.end;
        }
        let leaves = case.new.len().div_ceil(LEAF_BYTES) as u64;
        let kept = (0..leaves + 2).filter(|&leaf| work.is_kept(leaf));
        let kept: Vec<u64> = kept.collect();
        for &leaf in &kept {
            assert!(leaf_of(&case.new, leaf as usize) == leaf_of(&case.old, leaf as usize));
        }
        assert_eq!(kept.len() as u64 + dirty, leaves);
        // A repair after the fact lies over everything before.
        if case.new.len() > 5_000 {
            work.write_at(4_000, &[3; 500]).unwrap();
            let mut buffer = [0; 502];
            work.read_through(3_999, &mut buffer).unwrap();
            assert_eq!(buffer[0], case.new[3_999]);
            assert_eq!((&buffer[1..501], buffer[501]), (&[3; 500][..], case.new[4_500]));
        }
    }
}

/// Against a plain vector, with writes in any order.
#[test]
fn random_writes_give_the_same_bytes_as_a_vector() {
    let seed = std::env::var("SYNCLINE_SEED").map_or(0x5eed, |text| text.parse().unwrap());
    println!("SYNCLINE_SEED={seed}");
    let mut state = seed;
    for round in 0..40 {
        let old = noise(random(&mut state) as usize % 40_000, round);
        let length = 1 + random(&mut state) as usize % 40_000;
        let mut case = Case::new(old, length, &[]);
        let mut work = case.begin();
        for _ in 0..random(&mut state) % 12 {
            let at = random(&mut state) as usize % length;
            let bytes = noise((length - at).min(random(&mut state) as usize % 9_000), at as u64);
            work.write_at(at as u64, &bytes).unwrap();
            case.new[at..at + bytes.len()].copy_from_slice(&bytes);
        }
        let mut read = vec![0; length + 1];
        assert_eq!(work.read_through(0, &mut read).unwrap(), length);
        assert!(read[..length] == case.new, "round {round}");
        work.commit(&META, Flush::Nothing, None).unwrap();
        assert!(case.content() == case.new, "round {round}");
    }
}

/// Row 43: killed after any step, the file becomes what it was, and nothing is left. The steps are a few
/// system calls each; `tests/threats_inplace.rs` kills at each single one.
#[test]
fn a_crash_after_any_step_is_undone() {
    for case in 0..Case::all().len() {
        let mut steps = 0;
        loop {
            let case = &Case::all()[case];
            let done = case.crash_after(steps);
            let what = format!("after {steps} steps");
            let recovery = case.recover();
            assert!(recovery.kept.is_empty(), "{what}: {:?}", recovery.kept);
            case.assert_clean(&what);
            if done {
                case.assert_new();
                break;
            }
            case.assert_old(&what);
            assert_eq!(recovery.rolled_back.len() as u64 + recovery.unfinished, 1, "{what}");
            let again = case.recover();
            assert!(again.rolled_back.is_empty() && again.unfinished == 0, "{what}");
            steps += 1;
        }
        assert!(steps >= 7, "{steps} steps");
    }
}

/// As above, where versions are kept: the rename of the record to them is the moment from which on there
/// is no way back, and the old content comes back from there.
#[test]
fn a_crash_where_versions_are_kept_leaves_the_old_file_or_the_new_one_and_its_version() {
    for number in 0..Case::all().len() {
        let mut steps = 0;
        loop {
            let case = &Case::all()[number];
            let versions = Versions::new(&case.root);
            let author = Author::Anyone;
            let keeping = Keeping {
                versions: &versions,
                author,
            };
            let mut commit = Commit::new(case.prepared(), META, Flush::Disk, Some(&keeping)).unwrap();
            let done = (0..steps).any(|_| commit.step().unwrap().is_some());
            let renamed = !done && commit.stage == Stage::Forget;
            if renamed {
                // Killed between the rename and the flush that follows it.
                commit.keep_record(&keeping).unwrap();
            }
            drop(commit);
            let recovery = case.recover();
            assert!(recovery.kept.is_empty(), "{steps} steps: {:?}", recovery.kept);
            assert!(!case.dir.path().join(".syncline/undo").exists(), "{steps} steps");
            let kept = versions_of(&case.root, &path()).unwrap();
            if done || renamed {
                case.assert_new();
                assert_eq!((kept.len(), recovery.rolled_back.len()), (1, 0));
                restore(&case.root, &kept[0], &path(), &keeping).unwrap();
                case.assert_old("restored");
            } else {
                case.assert_old("rolled back");
                assert!(kept.is_empty(), "{steps} steps");
            }
            if done {
                break;
            }
            steps += 1;
        }
    }
}

/// Row 46 and 43: torn anywhere, an unfinished record goes and its file is untouched.
#[test]
fn an_unfinished_record_torn_at_any_byte_is_removed() {
    let case = Case::new(noise(9_000, 1), 8_000, &[(3, 4)]);
    assert!(!case.crash_after(3));
    let record = case.record();
    assert!(record.to_string_lossy().ends_with(".new"));
    let whole = fs::read(&record).unwrap();
    for length in (0..whole.len()).step_by(7).chain([whole.len()]) {
        fs::create_dir_all(record.parent().unwrap()).unwrap();
        fs::write(&record, &whole[..length]).unwrap();
        let recovery = case.recover();
        assert_eq!((recovery.unfinished, recovery.rolled_back.len()), (1, 0));
        case.assert_old("torn");
        case.assert_clean("torn");
    }
}

/// Row 46: a finished record that was cut, flipped or lengthened at any byte is never acted on, never
/// removed, and reported.
#[test]
fn a_damaged_record_is_kept_and_its_file_left_alone() {
    let case = Case::new(noise(9_000, 1), 9_000, &[(3, 4), (8_500, 9)]);
    assert!(!case.crash_after(6));
    let record = case.record();
    let half = case.content();
    assert!(half != case.old);
    let whole = fs::read(&record).unwrap();
    let refuse = |bytes: &[u8], what: String| {
        fs::write(&record, bytes).unwrap();
        let recovery = case.recover();
        assert_eq!(recovery.kept.len(), 1, "{what}");
        let reason = &recovery.kept[0].reason;
        assert!(
            matches!(reason, KeptReason::Damaged | KeptReason::Version(_)),
            "{what}: {reason:?}"
        );
        assert!(case.content() == half && record.exists(), "{what}");
        recovery.kept[0].to_string()
    };
    for length in (0..whole.len()).step_by(11).chain(whole.len() - 25..whole.len()) {
        refuse(&whole[..length], format!("cut to {length}"));
    }
    for at in (0..100)
        .chain((100..whole.len()).step_by(13))
        .chain(whole.len() - 25..whole.len())
    {
        let mut flipped = whole.clone();
        flipped[at] ^= 1 << (at % 8);
        refuse(&flipped, format!("flipped at {at}"));
    }
    let longer = refuse(&[&whole[..], b"x"].concat(), "one byte more".to_owned());
    assert!(
        longer.contains(".syncline/undo/") && longer.contains("damaged"),
        "{longer}"
    );
    fs::write(&record, &whole).unwrap();
    assert_eq!(case.recover().rolled_back, [path()]);
    case.assert_old("the whole record");
}

/// A file that is gone, was replaced, or has a length that we never gave it, is not touched.
#[test]
fn another_file_in_the_place_is_left_alone() {
    let changes: [fn(&Path); 4] = [
        |file| fs::remove_file(file).unwrap(),
        |file| {
            fs::write(file.with_extension("other"), noise(50_000, 8)).unwrap();
            fs::rename(file.with_extension("other"), file).unwrap();
        },
        |file| File::options().write(true).open(file).unwrap().set_len(60_000).unwrap(),
        |file| {
            fs::remove_file(file).unwrap();
            std::os::unix::fs::symlink("elsewhere", file).unwrap();
        },
    ];
    for change in changes {
        let case = Case::new(noise(50_000, 1), 50_000, &[(7, 9_000)]);
        assert!(!case.crash_after(6));
        change(&case.file());
        let before = fs::read(case.file()).ok();
        for _ in 0..2 {
            let recovery = case.recover();
            assert!(matches!(recovery.kept[..], [ref kept] if matches!(kept.reason, KeptReason::OtherFile)));
            assert_eq!(fs::read(case.file()).ok(), before);
        }
        assert!(case.record().exists());
    }
}

/// Row 59: a recovery beside a living commit takes nothing away from it.
#[test]
fn a_recovery_leaves_living_commits_alone() {
    let case = Case::new(noise(50_000, 1), 50_000, &[(7, 9_000)]);
    let mut commit = Commit::new(case.prepared(), META, Flush::Disk, None).unwrap();
    loop {
        let recovery = case.recover();
        assert_eq!(
            (recovery.rolled_back.len(), recovery.unfinished, recovery.kept.len()),
            (0, 0, 0)
        );
        if commit.step().unwrap().is_some() {
            break;
        }
    }
    case.assert_new();
}

/// Rows 53 and 55: an edit of somebody else, at any time before the file is touched, stops the commit.
#[test]
fn a_file_that_was_edited_meanwhile_is_not_touched() {
    let case = Case::new(noise(50_000, 1), 50_000, &[(7, 9_000)]);
    let edit = |byte: u8| {
        fs::set_permissions(case.file(), fs::Permissions::from_mode(0o644)).unwrap();
        let file = File::options().write(true).open(case.file()).unwrap();
        file.write_all_at(&[byte], 30_000).unwrap();
    };
    let work = case.prepared();
    edit(b'a');
    assert_eq!(
        work.commit(&META, Flush::Disk, None).unwrap_err().code(),
        ItemCode::Changing
    );
    let mut commit = Commit::new(case.prepared(), META, Flush::Disk, None).unwrap();
    while commit.stage != Stage::Publish {
        commit.step().unwrap();
    }
    edit(b'b');
    assert_eq!(commit.step().unwrap_err().code(), ItemCode::Changing);
    commit.abandon();
    drop(commit);
    assert_eq!(case.content()[30_000], b'b');
    assert!(case.content()[..30_000] == case.old[..30_000]);
    case.assert_clean("after the refusal");
}

/// Row 6: writing to a file with a second name could write outside of the root.
#[test]
fn a_file_with_two_names_is_refused() {
    let case = Case::new(noise(5_000, 1), 5_000, &[]);
    let outside = tempfile::tempdir().unwrap();
    let staging = Staging::new(&case.root);
    let begin = |length| {
        let expected = case.root.probe(&path()).unwrap().unwrap().identity;
        InPlace::begin(&case.root, &staging, &path(), &expected, length).map(drop)
    };
    begin(5_000).unwrap();
    assert_eq!(begin(1 << 50).unwrap_err().code(), ItemCode::TooLarge);
    fs::hard_link(case.file(), outside.path().join("other")).unwrap();
    assert_eq!(begin(5_000).unwrap_err().code(), ItemCode::InTheWay);
    staging.retire();
    case.assert_clean("after refusals");
}

/// Row 10: what reaches behind the end, or around 2^64, is refused.
#[test]
fn writes_outside_are_refused() {
    let case = Case::new(noise(5_000, 1), 6_000, &[]);
    let mut work = case.begin();
    for at in [5_999, 6_000, u64::MAX] {
        assert_eq!(work.write_at(at, b"xx").unwrap_err().code(), ItemCode::Mismatch);
    }
    work.write_at(6_000, b"").unwrap();
    assert_eq!(work.read_through(u64::MAX, &mut [0; 4]).unwrap(), 0);
    assert_eq!(work.read_through(6_000, &mut [0; 4]).unwrap(), 0);
}
