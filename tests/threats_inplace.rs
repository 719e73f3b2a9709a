//! Rows 43 and 47 to 49 of the threats for files that are patched or changed in place: killed, out of
//! room, failing flushes and interruptions at each single system call. Each runs this test binary again
//! as a child under a tracer.

#![allow(clippy::unwrap_used)]

mod harness;

use harness::edits::noise;
use harness::{World, WorldOptions, child};
use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use syncline::model::{ItemCode, Meta, RelPath, Timestamp};
use syncline::node::{Durability, TransferOptions};
use syncline::store::{FileError, Flush, InPlace, Root, Staging, recover};

const META: Meta = Meta {
    mode: 0o640,
    mtime: Timestamp { seconds: 77, nanos: 0 },
};
const OLD_MTIME: i64 = 1_400_000_000;
/// Every call by which a commit or a recovery changes something.
const CALLS: &str = "pwrite64,fsync,fallocate,ftruncate,renameat2,renameat,unlinkat,mkdirat,fchmod,utimensat,flock";
/// More calls of one name than any of these scenarios has.
const CALLS_MAX: u32 = 120;
const OLD_BYTES: usize = 60_000;
const DIRECTORY: &str = "SYNCLINE_TEST_DIRECTORY";

fn path() -> RelPath {
    RelPath::parse(b"f").unwrap()
}

fn old() -> Vec<u8> {
    noise(OLD_BYTES, 1)
}

/// The new version: three edits, and a longer or a shorter end.
fn new(length: usize) -> Vec<u8> {
    let mut new = old();
    new.resize(length, 0);
    for (at, bytes) in edits(length) {
        new[at..at + bytes.len()].copy_from_slice(&bytes);
    }
    new
}

fn edits(length: usize) -> Vec<(usize, Vec<u8>)> {
    let last = length - 9_000;
    vec![(5, noise(10, 2)), (20_000, noise(3_000, 3)), (last, noise(9_000, 4))]
}

/// A folder with the old version in it.
fn fresh() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    write_old(dir.path());
    dir
}

fn write_old(dir: &Path) {
    fs::write(dir.join("f"), old()).unwrap();
    let meta = Meta {
        mode: 0o600,
        mtime: Timestamp {
            seconds: OLD_MTIME,
            nanos: 0,
        },
    };
    Root::open(dir).unwrap().set_meta(&path(), &meta).unwrap();
}

fn commit(dir: &Path, length: usize) -> Result<(), FileError> {
    let root = Root::open(dir).unwrap();
    let staging = Staging::new(&root);
    let expected = root.probe(&path())?.unwrap().identity;
    let mut work = InPlace::begin(&root, &staging, &path(), &expected, length as u64)?;
    for (at, bytes) in edits(length) {
        work.write_at(at as u64, &bytes)?;
    }
    drop(staging);
    work.commit(&META, Flush::Disk, None).map(drop)
}

/// The scenario of a child: `commit` in the folder that it is told, to a longer or a shorter file, or
/// `recover` there. An error is printed.
fn play() -> bool {
    let dir = || PathBuf::from(std::env::var_os(DIRECTORY).unwrap());
    let outcome = if child::is("longer") {
        commit(&dir(), 90_000)
    } else if child::is("shorter") {
        commit(&dir(), 30_000)
    } else if child::is("pull") {
        pull(&dir());
        Ok(())
    } else if child::is("recover") {
        recover(&Root::open(&dir()).unwrap(), Flush::Disk).map(drop)
    } else {
        return false;
    };
    match outcome {
        Ok(()) => println!("OUTCOME=done"),
        Err(error) => println!("OUTCOME={:?}", error.code()),
    }
    true
}

/// A whole transfer into the folder: a server of its own has the longer version.
fn pull(dir: &Path) {
    let mut world = World::with(&WorldOptions {
        durability: Durability::Barrier,
        ..WorldOptions::default()
    });
    fs::write(world.share().join("f"), new(90_000)).unwrap();
    Root::open(&world.share()).unwrap().set_meta(&path(), &META).unwrap();
    let inode = fs::metadata(dir.join("f")).unwrap().ino();
    let options = TransferOptions {
        in_place: true,
        ..TransferOptions::default()
    };
    world.pull(&world.link("/f"), &dir.join("f"), options).assert_clean();
    assert_eq!(fs::metadata(dir.join("f")).unwrap().ino(), inode);
}

fn play_traced(test: &str, scenario: &str, dir: &Path, inject: &str) -> Output {
    let directory = format!("{DIRECTORY}={}", dir.display());
    // What a killed child leaves goes with the folder above.
    let above = dir.parent().filter(|above| above.starts_with(std::env::temp_dir()));
    let above = format!("TMPDIR={}", above.unwrap_or(&std::env::temp_dir()).display());
    let trace = format!("trace={CALLS}");
    let wrapper = [
        "env",
        &directory,
        &above,
        "strace",
        "-f",
        "-qq",
        "-o",
        "/dev/null",
        "-e",
        &trace,
        "-e",
        inject,
    ];
    child::run(&wrapper, test, scenario)
}

/// Counts calls as the tracer does, each by its own name: plays with the first, the second and so on,
/// until one did not come to pass. Returns how many did.
fn at_each_call(calls: &str, play: impl Fn(&str, u32) -> bool) -> u32 {
    let each = calls.split(',').map(|call| {
        let passed = (1..).take_while(|&number| {
            assert!(number < CALLS_MAX, "{call}");
            play(call, number)
        });
        passed.count() as u32
    });
    each.sum()
}

fn was_killed(output: &Output) -> bool {
    output.status.signal() == Some(9) || output.status.code() == Some(137)
}

/// What a recovery makes of the folder: the old or the new version, and nothing of ours beside it.
fn assert_whole(dir: &Path, length: usize, what: &str) {
    let root = Root::open(dir).unwrap();
    for _ in 0..2 {
        let recovery = recover(&root, Flush::Disk).unwrap();
        assert!(recovery.kept.is_empty(), "{what}: {:?}", recovery.kept);
        let content = fs::read(dir.join("f")).unwrap();
        let mtime = fs::metadata(dir.join("f")).unwrap().mtime();
        let is_old = content == old() && mtime == OLD_MTIME;
        let is_new = content == new(length) && mtime == META.mtime.seconds;
        assert!(is_old || is_new, "{what}: a mixture");
    }
    let staging = Staging::new(&root);
    staging.sweep().unwrap();
    // As at each start: what a trial of names left goes as well.
    root.learn_folding();
    // Killed right after making it, or between making it and filling it.
    let ours = fs::read_dir(dir.join(".syncline")).into_iter().flatten();
    let mut names = ours.map(|entry| entry.unwrap().file_name());
    // What happened is written down for good.
    let left = names.find(|name| name != "activity.jsonl");
    assert_eq!(left, None, "{what}: something is left");
}

/// Row 43: SIGKILL at each system call of a commit.
#[test]
fn row_43_a_commit_in_place_killed_at_each_call() {
    const NAME: &str = "row_43_a_commit_in_place_killed_at_each_call";
    if play() || !child::strace_works(NAME) {
        return;
    }
    for (scenario, length) in [("longer", 90_000), ("shorter", 30_000)] {
        let killed = at_each_call(CALLS, |call, number| {
            let dir = fresh();
            let inject = format!("inject={call}:signal=KILL:when={number}");
            let output = play_traced(NAME, scenario, dir.path(), &inject);
            assert_whole(dir.path(), length, &format!("{scenario}, {call} {number}"));
            let killed = was_killed(&output);
            assert!(
                killed || child::text(&output).contains("OUTCOME=done"),
                "{}",
                child::text(&output)
            );
            killed
        });
        assert!(killed > 25, "{killed} calls");
    }
}

/// Row 43, I7: SIGKILL at each system call of a recovery.
#[test]
fn row_43_a_recovery_killed_at_each_call() {
    const NAME: &str = "row_43_a_recovery_killed_at_each_call";
    if play() || !child::strace_works(NAME) {
        return;
    }
    for (scenario, length) in [("longer", 90_000), ("shorter", 30_000)] {
        let killed = at_each_call(CALLS, |call, number| {
            let dir = fresh();
            // The mode is set when all content is written and the record still there.
            play_traced(NAME, scenario, dir.path(), "inject=fchmod:signal=KILL:when=1");
            let half = fs::read(dir.path().join("f")).unwrap();
            assert!(half == new(length), "{scenario}");
            let inject = format!("inject={call}:signal=KILL:when={number}");
            let output = play_traced(NAME, "recover", dir.path(), &inject);
            let what = format!("{scenario}, {call} {number}");
            assert_whole(dir.path(), length, &what);
            assert!(fs::read(dir.path().join("f")).unwrap() == old(), "{what}");
            was_killed(&output)
        });
        assert!(killed > 7, "{killed} calls");
    }
}

/// Row 43: SIGKILL at each system call of a whole transfer that changes a file in place.
#[test]
fn row_43_a_transfer_in_place_killed_at_each_call() {
    const NAME: &str = "row_43_a_transfer_in_place_killed_at_each_call";
    if play() || !child::strace_works(NAME) {
        return;
    }
    let half_changed = std::cell::Cell::new(0);
    let killed = at_each_call(
        "fsync,fallocate,ftruncate,renameat2,unlinkat,fchmod,utimensat",
        |call, number| {
            let above = tempfile::tempdir().unwrap();
            let dir = above.path().join("target");
            fs::create_dir(&dir).unwrap();
            write_old(&dir);
            let inject = format!("inject={call}:signal=KILL:when={number}");
            let output = play_traced(NAME, "pull", &dir, &inject);
            let is_half = fs::read(dir.join("f")).unwrap() == new(90_000) && dir.join(".syncline/undo").exists();
            half_changed.set(half_changed.get() + u32::from(is_half));
            assert_whole(&dir, 90_000, &format!("{call} {number}"));
            let killed = was_killed(&output);
            assert!(
                killed || child::text(&output).contains("OUTCOME=done"),
                "{}",
                child::text(&output)
            );
            killed
        },
    );
    assert!(
        killed > 10 && half_changed.get() > 1,
        "{killed} calls, {half_changed:?} in the midst of it"
    );
}

/// Row 43: a served folder and the target of a pull are whole again before anything is done with them.
#[test]
fn row_43_a_start_undoes_what_a_kill_left() {
    const NAME: &str = "row_43_a_start_undoes_what_a_kill_left";
    if play() || !child::strace_works(NAME) {
        return;
    }
    let leave_half = |dir: &Path| {
        write_old(dir);
        play_traced(NAME, "longer", dir, "inject=fchmod:signal=KILL:when=1");
        assert!(fs::read(dir.join("f")).unwrap() == new(90_000));
    };
    let mut world = World::prepared(&WorldOptions::default(), |dir| leave_half(&dir.join("share")));
    let share = world.share();
    assert!(fs::read(share.join("f")).unwrap() == old());
    assert!(!share.join(".syncline/undo").exists());
    let target = world.path("target");
    fs::create_dir(&target).unwrap();
    leave_half(&target);
    // Nothing to fetch: with the rollback, both sides are the same.
    let run = world.pull(&world.link("/"), &target, TransferOptions::default());
    run.assert_clean();
    assert_eq!(run.outcome.summary.files_transferred, 0);
    assert!(fs::read(target.join("f")).unwrap() == old());
    assert!(!target.join(".syncline").exists());
}

/// Rows 47 and 48: each call that may, says that the disk is full, or that it failed. The commit says so
/// too, and the file is whole.
#[test]
fn row_47_and_48_a_full_or_broken_disk_at_each_call() {
    const NAME: &str = "row_47_and_48_a_full_or_broken_disk_at_each_call";
    if play() || !child::strace_works(NAME) {
        return;
    }
    for (calls, errno, code) in [
        (
            "pwrite64,fallocate,ftruncate,mkdirat,renameat2",
            "ENOSPC",
            ItemCode::DiskFull,
        ),
        ("fsync", "EIO", ItemCode::Io),
    ] {
        for (scenario, length) in [("longer", 90_000), ("shorter", 30_000)] {
            let failed = at_each_call(calls, |call, number| {
                let dir = fresh();
                let inject = format!("inject={call}:error={errno}:when={number}");
                let text = child::text(&play_traced(NAME, scenario, dir.path(), &inject));
                let what = format!("{errno} at {call} {number} of {scenario}: {text}");
                assert_whole(dir.path(), length, &what);
                let content = fs::read(dir.path().join("f")).unwrap();
                if text.contains("OUTCOME=done") {
                    assert!(content == new(length), "{what}");
                    return false;
                }
                assert!(text.contains(&format!("OUTCOME={code:?}")), "{what}");
                assert!(content == old(), "{what}");
                true
            });
            assert!(failed > 4, "{errno}: {failed} calls");
        }
    }
}

/// Row 49: calls are interrupted all the time, and copies by the kernel come back short or refused.
#[test]
fn row_49_interrupted_and_refused_calls_give_the_same_bytes() {
    const NAME: &str = "row_49_interrupted_and_refused_calls_give_the_same_bytes";
    if child::is("in place") {
        let dir = fresh();
        commit(dir.path(), 90_000).unwrap();
        assert!(fs::read(dir.path().join("f")).unwrap() == new(90_000));
        return;
    }
    if child::is("patch") {
        return patch();
    }
    if !child::strace_works(NAME) {
        return;
    }
    let play = |scenario: &str, calls: &str, inject: &str| {
        let trace = format!("trace={calls}");
        let wrapper = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", &trace, "-e", inject];
        let output = child::run(&wrapper, NAME, scenario);
        assert!(output.status.success(), "{inject}: {}", child::text(&output));
    };
    let calls = "pwrite64,fsync,fallocate,ftruncate";
    play("in place", calls, &format!("inject={calls}:error=EINTR:when=1+2"));
    let calls = "copy_file_range,pwrite64,fallocate,ioctl";
    play(
        "patch",
        calls,
        "inject=copy_file_range,pwrite64,fallocate:error=EINTR:when=1+2",
    );
    for errno in ["EXDEV", "EOPNOTSUPP", "EINVAL", "ENOSYS", "EPERM"] {
        play("patch", calls, &format!("inject=copy_file_range:error={errno}"));
        play("patch", calls, &format!("inject=copy_file_range:error={errno}:when=2"));
    }
    // Some file systems copy nothing and call that a success.
    play("patch", calls, "inject=copy_file_range:retval=0");
    play("patch", calls, "inject=fallocate:error=EOPNOTSUPP");
}

fn patch() {
    let dir = fresh();
    let basis = noise(3 << 20, 9);
    fs::write(dir.path().join("f"), &basis).unwrap();
    let root = Root::open(dir.path()).unwrap();
    let source = root.open_file(&path()).unwrap();
    let staging = Staging::new(&root);
    let mut file = staging.create_patched(&path(), source, 3 << 20).unwrap();
    let mut copy = |from: u64, to: u64, length: u64| {
        let mut done = 0;
        while done < length {
            done += file.copy(from + done, to + done, length - done).unwrap();
        }
    };
    copy(0, 0, 1 << 20);
    copy(7, 1 << 20, 1 << 20);
    copy(2 << 20, 2 << 20, 1 << 20);
    file.write_at(500_000, b"literal").unwrap();
    let mut read = vec![0; 3 << 20];
    file.staged().file().read_exact_at(&mut read, 0).unwrap();
    let mut want = basis.clone();
    want[1 << 20..2 << 20].copy_from_slice(&basis[7..(1 << 20) + 7]);
    want[500_000..500_007].copy_from_slice(b"literal");
    assert!(read == want);
    file.seal(&META).unwrap();
}

/// Row 47: a small disk that is really full: refused before any byte travels, and nothing is left.
#[test]
fn row_47_room_that_a_small_disk_does_not_have() {
    const NAME: &str = "row_47_room_that_a_small_disk_does_not_have";
    if child::is(NAME) {
        return on_a_small_disk();
    }
    let script = "mount -t tmpfs none /mnt";
    let works = Command::new("unshare").args(["-rm", "sh", "-c", script]).output();
    if !works.is_ok_and(|output| output.status.success()) {
        return println!("SKIPPED {NAME}: no namespace in which a small disk could be mounted");
    }
    let output = child::run(&["unshare", "-rm"], NAME, NAME);
    assert!(output.status.success(), "{}", child::text(&output));
}

fn on_a_small_disk() {
    let dir = tempfile::tempdir().unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=1m", "none"])
        .arg(dir.path())
        .status();
    assert!(mounted.unwrap().success());
    fs::write(dir.path().join("f"), noise(600_000, 1)).unwrap();
    let root = Root::open(dir.path()).unwrap();
    let staging = Staging::new(&root);
    let source = root.open_file(&path()).unwrap();
    let error = staging.create_patched(&path(), source, 600_000).unwrap_err();
    assert_eq!(error.code(), ItemCode::DiskFull);
    // Growing in place: the changes find room beside the file, what is added does not.
    let expected = root.probe(&path()).unwrap().unwrap().identity;
    let mut work = InPlace::begin(&root, &staging, &path(), &expected, 2_000_000).unwrap();
    work.write_at(0, b"changed").unwrap();
    assert_eq!(
        work.commit(&META, Flush::Disk, None).unwrap_err().code(),
        ItemCode::DiskFull
    );
    // Old bytes that find no room beside the file.
    let expected = root.probe(&path()).unwrap().unwrap().identity;
    let mut work = InPlace::begin(&root, &staging, &path(), &expected, 1_000).unwrap();
    work.write_at(0, b"changed").unwrap();
    assert_eq!(
        work.commit(&META, Flush::Disk, None).unwrap_err().code(),
        ItemCode::DiskFull
    );
    staging.retire();
    drop(staging);
    assert!(fs::read(dir.path().join("f")).unwrap() == noise(600_000, 1));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}
