//! Rows 47 to 49 and 51 of the threats: disks that fill up, fail and wait, calls that are interrupted.
//! Each runs this test binary again as a child: in a namespace or under a tracer.

#![allow(clippy::unwrap_used)]

mod folding;
mod harness;

use folding::Folding;
use harness::edits::{noise, staged};
use harness::guard::Guarded;
use harness::{World, WorldOptions, child, push_job, snapshot};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;
use syncline::node::{Client, ClientEvent, Durability, JobError, TransferOptions};

const DURABLE: fn() -> WorldOptions = || WorldOptions {
    durability: Durability::Barrier,
    ..WorldOptions::default()
};

fn mount_small(at: &Path) {
    fs::create_dir_all(at).unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=2m", "none"])
        .arg(at)
        .status();
    assert!(mounted.unwrap().success(), "cannot mount in our own namespace");
}

const UNSHARE: [&str; 2] = ["unshare", "-rm"];

fn may_mount(test: &str) -> bool {
    let script = "mount -t tmpfs none /mnt";
    let works = Command::new("unshare")
        .args(["-rm", "sh", "-c", script])
        .output()
        .is_ok_and(|output| output.status.success());
    if !works {
        eprintln!("{test} skipped: no namespace in which a small disk could be mounted");
    }
    works
}

/// Row 47: the share's disk fills up. What was there stays, what failed is named, and the next run
/// brings the rest once there is room.
#[test]
fn row_47_a_full_disk_of_the_server_loses_nothing() {
    const NAME: &str = "row_47_a_full_disk_of_the_server_loses_nothing";
    if child::is(NAME) {
        return full_share();
    }
    if may_mount(NAME) {
        let output = child::run(&UNSHARE, NAME, NAME);
        assert!(output.status.success(), "{}", child::text(&output));
    }
}

fn full_share() {
    let mut world = World::prepared(&DURABLE(), |dir| mount_small(&dir.join("share")));
    let (source, share) = (world.path("source"), world.share());
    fs::create_dir(&source).unwrap();
    fs::write(source.join("old"), noise(1_000, 1)).unwrap();
    let contents = world.path("source/");
    let link = world.link("");
    world
        .push(&[&contents], &link, TransferOptions::default())
        .assert_clean();
    // Too large for the disk: refused as soon as it starts; the others arrive.
    fs::write(source.join("big"), noise(20 << 20, 2)).unwrap();
    fs::write(source.join("small"), noise(5_000, 3)).unwrap();
    let run = world.push(&[&contents], &link, TransferOptions::default());
    assert_eq!(run.outcome.result, Err(JobError::DiskFull));
    assert_eq!(run.failures(), ["big DiskFull"]);
    assert!(run.outcome.summary.wire_sent < 10 << 20, "its content stops on its way");
    assert_eq!(fs::read(share.join("small")).unwrap(), noise(5_000, 3));
    fs::remove_file(source.join("big")).unwrap();
    // No room left for a replacement, be it whole or with holes.
    let room = rustix::fs::statvfs(&share).unwrap();
    let free = usize::try_from(room.f_bavail * room.f_frsize).unwrap();
    fs::write(share.join("filler"), noise(free - (64 << 10), 4)).unwrap();
    fs::write(source.join("old"), noise(500_000, 5)).unwrap();
    let sparse = File::create(source.join("sparse")).unwrap();
    sparse.set_len(8 << 20).unwrap();
    sparse.write_all_at(&noise(600_000, 6), 4 << 20).unwrap();
    let run = world.push(&[&contents], &link, TransferOptions::default());
    assert_eq!(run.outcome.result, Err(JobError::DiskFull));
    assert_eq!(run.failures(), ["old DiskFull", "sparse DiskFull"]);
    assert_eq!(
        fs::read(share.join("old")).unwrap(),
        noise(1_000, 1),
        "the old version is whole"
    );
    assert!(!share.join("sparse").exists());
    assert_eq!(staged(&share), 0, "what failed takes no room");
    fs::remove_file(share.join("filler")).unwrap();
    world
        .push(&[&contents], &link, TransferOptions::default())
        .assert_clean();
    assert_eq!(snapshot(&source), snapshot(&share));
}

/// Row 47, the other way: the client's disk fills up.
#[test]
fn row_47_a_full_disk_of_the_client_loses_nothing() {
    const NAME: &str = "row_47_a_full_disk_of_the_client_loses_nothing";
    if child::is(NAME) {
        return full_target();
    }
    if may_mount(NAME) {
        let output = child::run(&UNSHARE, NAME, NAME);
        assert!(output.status.success(), "{}", child::text(&output));
    }
}

fn full_target() {
    let mut world = World::prepared(&WorldOptions::default(), |dir| mount_small(&dir.join("target")));
    let (share, target) = (world.share(), world.path("target"));
    fs::write(target.join("doc"), b"old").unwrap();
    fs::write(share.join("doc"), noise(3 << 20, 1)).unwrap();
    fs::write(share.join("note"), b"note").unwrap();
    let run = world.pull(&world.link("/"), &target, TransferOptions::default());
    assert_eq!(run.outcome.result, Err(JobError::DiskFull));
    assert_eq!(run.failures(), ["doc DiskFull"]);
    assert_eq!(fs::read(target.join("doc")).unwrap(), b"old");
    assert_eq!(fs::read(target.join("note")).unwrap(), b"note");
    assert!(!target.join(".syncline").exists());
}

fn traced(name: &str, scenario: &str, inject: &[&str]) -> Option<String> {
    if !child::strace_works(name) {
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("trace");
    let mut wrapper = vec!["strace", "-f", "-qq", "-o", log.to_str().unwrap()];
    for rule in inject {
        wrapper.extend(["-e", rule]);
    }
    let output = child::run(&wrapper, name, scenario);
    assert!(output.status.success(), "{}", child::text(&output));
    Some(child::text(&output) + "\n" + &fs::read_to_string(&log).unwrap())
}

/// Row 48: a flush fails. Nothing is acknowledged, nothing is published, and the next run writes anew.
#[test]
fn row_48_eio_from_a_flush_is_never_acknowledged() {
    const NAME: &str = "row_48_eio_from_a_flush_is_never_acknowledged";
    if child::is("every flush") {
        return flushes_fail();
    }
    if child::is("first flush") {
        return first_flush_fails();
    }
    if child::is("second flush") {
        return directory_flush_fails();
    }
    let flushes = "fsync,fdatasync,syncfs";
    let trace = format!("trace={flushes}");
    let every = format!("inject={flushes}:error=EIO");
    let first = format!("inject={flushes}:error=EIO:when=1");
    let second = format!("inject={flushes}:error=EIO:when=2");
    traced(NAME, "every flush", &[&trace, &every]);
    traced(NAME, "first flush", &[&trace, &first]);
    traced(NAME, "second flush", &[&trace, &second]);
}

/// A few files are flushed one by one, many with one flush of the file system.
fn flushes_fail() {
    let mut world = World::with(&DURABLE());
    let (source, share) = (world.path("source"), world.share());
    fs::create_dir(&source).unwrap();
    fs::write(share.join("f0"), b"old").unwrap();
    let contents = world.path("source/");
    for count in [2, 40] {
        for number in 0..count {
            fs::write(source.join(format!("f{number}")), noise(100, number)).unwrap();
        }
        let run = world.push(&[&contents], &world.link(""), TransferOptions::default());
        assert_eq!(run.items(), Vec::<String>::new());
        assert_eq!(run.outcome.summary.files_transferred, 0);
        let expected = u64::from(count);
        assert!(run.outcome.summary.failed >= expected, "{:?}", run.events);
        assert!(run.failures().iter().all(|failure| failure.ends_with(" Io")));
        assert_eq!(fs::read(share.join("f0")).unwrap(), b"old");
        assert_eq!(snapshot(&share).len(), 1, "nothing else was published");
        assert_eq!(staged(&share), 0);
    }
}

fn first_flush_fails() {
    let mut world = World::with(&DURABLE());
    let source = world.path("file");
    fs::write(&source, noise(40_000, 1)).unwrap();
    let failed = world.push(&[&source], &world.link("/"), TransferOptions::default());
    assert_eq!(failed.failures(), ["file Io"]);
    assert!(!world.share().join("file").exists());
    let again = world.push(&[&source], &world.link("/"), TransferOptions::default());
    again.assert_clean();
    assert_eq!(
        again.outcome.summary.files_transferred, 1,
        "it was sent and written anew"
    );
    assert_eq!(fs::read(world.share().join("file")).unwrap(), noise(40_000, 1));
}

/// The file has its name by then, and the right size and time: the next transfer must not take that for done.
fn directory_flush_fails() {
    let mut world = World::with(&DURABLE());
    let source = world.path("file");
    fs::write(&source, noise(40_000, 1)).unwrap();
    let failed = world.push(&[&source], &world.link("/"), TransferOptions::default());
    assert_eq!(failed.failures(), ["file Io"]);
    assert_eq!(fs::read(world.share().join("file")).unwrap(), noise(40_000, 1));
    for sent in [1, 0] {
        let again = world.push(&[&source], &world.link("/"), TransferOptions::default());
        again.assert_clean();
        assert_eq!(again.outcome.summary.files_transferred, sent);
    }
}

/// Row 49: calls are interrupted all the time.
#[test]
fn row_49_interrupted_calls_are_repeated() {
    const NAME: &str = "row_49_interrupted_calls_are_repeated";
    if child::is(NAME) {
        return round_trip();
    }
    let calls = "pwrite64,fallocate,fsync,syncfs,epoll_wait,epoll_pwait,accept4,\
                 recvfrom,sendto,readv,writev,sendmsg,recvmsg";
    let trace = format!("trace=pread64,{calls}");
    let inject = format!("inject={calls}:error=EINTR:when=1+3");
    // An odd step, or one of two loops that are polled in turn would never get through.
    // The first reads are those of the dynamic loader, which does not repeat them.
    traced(NAME, NAME, &[&trace, "inject=pread64:error=EINTR:when=12+2", &inject]);
}

fn round_trip() {
    let mut world = World::with(&DURABLE());
    let (source, back) = (world.path("source"), world.path("back"));
    fs::create_dir_all(source.join("sub")).unwrap();
    for number in 0..30 {
        fs::write(source.join(format!("sub/f{number}")), noise(number * 3_000, 7)).unwrap();
    }
    fs::write(source.join("big"), noise(3 << 20, 8)).unwrap();
    world
        .push(&[&source], &world.link(""), TransferOptions::default())
        .assert_clean();
    world
        .pull(&world.link("/source/"), &back, TransferOptions::default())
        .assert_clean();
    assert_eq!(snapshot(&source), snapshot(&back));
}

/// Row 49: a write that takes only a part of its bytes is gone on with. A full pipe is the kernel's
/// own way to shorten writes on the network side: the peer reads a little at a time.
#[test]
fn row_49_a_peer_that_takes_few_bytes_at_a_time_gets_all_of_them() {
    use std::io::{Read, Write};
    let mut world = Guarded::new();
    let content = noise(2 << 20, 1);
    fs::write(world.share().join("file"), &content).unwrap();
    // A relay between client and server that passes on odd little pieces.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (relay, server) = (listener.local_addr().unwrap(), world.address);
    let passing = std::thread::spawn(move || {
        let (client, _) = listener.accept().unwrap();
        let server = std::net::TcpStream::connect(server).unwrap();
        let pass = |mut from: std::net::TcpStream, mut to: std::net::TcpStream, piece: usize| {
            let mut buffer = vec![0; piece];
            while let Ok(count @ 1..) = from.read(&mut buffer) {
                if to.write_all(&buffer[..count]).is_err() {
                    break;
                }
            }
            let _ = to.shutdown(std::net::Shutdown::Write);
        };
        let (from, to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
        let up = std::thread::spawn(move || pass(from, to, 7));
        pass(server, client, 1_021);
        up.join().unwrap();
    });
    let link = format!("syncline://{relay}/Share/file").parse().unwrap();
    let target = world.path("file");
    let run = world.pull(&link, &target, TransferOptions::default());
    run.assert_clean();
    assert_eq!(fs::read(&target).unwrap(), content);
    for _ in 0..50 {
        world.world.server.poll(Some(Duration::from_millis(1))).unwrap();
    }
    passing.join().unwrap();
    world.check();
}

/// Row 51: flushes are shared. Without a group commit two thousand files cost four thousand of them. The
/// disk is slow here (50 ms a flush), so that files gather however the threads are scheduled.
#[test]
fn row_51_two_thousand_small_files_share_flushes() {
    const NAME: &str = "row_51_two_thousand_small_files_share_flushes";
    if child::is(NAME) {
        return push_many_small();
    }
    let flushes = "fsync,fdatasync,syncfs,sync,sync_file_range,msync";
    let (trace, slow) = (
        format!("trace={flushes}"),
        format!("inject={flushes}:delay_enter=50000"),
    );
    let Some(text) = traced(NAME, NAME, &[&trace, &slow]) else {
        return;
    };
    let is_flush = |line: &&str| line.contains("sync(") || line.contains("syncfs(");
    let flushes = text.lines().filter(is_flush).count();
    assert!((1..500).contains(&flushes), "{flushes} flushes");
}

fn push_many_small() {
    let mut world = World::with(&DURABLE());
    let source = world.path("source");
    for number in 0..2_000u32 {
        let directory = source.join(format!("d{}", number % 10));
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join(format!("f{number}")), number.to_le_bytes()).unwrap();
    }
    let run = world.push(&[&source], &world.link("/"), TransferOptions::default());
    run.assert_clean();
    assert_eq!(run.outcome.summary.files_transferred, 2_000);
}

/// Row 51: the loop never waits for a disk. Only the helper thread flushes.
#[test]
fn row_51_the_loop_never_flushes() {
    const NAME: &str = "row_51_the_loop_never_flushes";
    if child::is(NAME) {
        let loop_thread = fs::read_link("/proc/thread-self").unwrap();
        println!("LOOP={}", loop_thread.file_name().unwrap().display());
        return round_trip();
    }
    let Some(text) = traced(NAME, NAME, &["trace=fsync,fdatasync,syncfs,sync,sync_file_range,msync"]) else {
        return;
    };
    let at = text.find("LOOP=").expect("the child says its thread") + "LOOP=".len();
    let thread: String = text[at..].chars().take_while(char::is_ascii_digit).collect();
    let flushes: Vec<&str> = text
        .lines()
        .filter(|line| line.contains("sync(") || line.contains("syncfs("))
        .collect();
    assert!(!flushes.is_empty(), "a durable transfer flushes");
    for line in flushes {
        assert_ne!(line.split_whitespace().next(), Some(thread.as_str()), "{line}");
    }
}

/// Whether a file system of our own can be mounted, whose flushes can be held; says so if not.
fn may_hold(test: &str) -> bool {
    let in_namespace = Command::new(HOLDING[0]).args(&HOLDING[1..]).arg("true").status();
    let works = Path::new("/dev/fuse").exists() && in_namespace.is_ok_and(|status| status.success());
    if !works {
        eprintln!("{test} skipped: there is no /dev/fuse, or nobody but root may mount here");
    }
    works
}

const HOLDING: [&str; 2] = ["unshare", "-m"];

/// Row 51: a flush does not come back. Whoever needs none is served to the end, whoever waits for it is told nothing,
/// and finds nothing under the final name, until it has.
#[test]
fn row_51_others_are_served_while_a_flush_is_held() {
    const NAME: &str = "row_51_others_are_served_while_a_flush_is_held";
    if child::is(NAME) {
        return flush_held();
    }
    if may_hold(NAME) {
        let output = child::run(&HOLDING, NAME, NAME);
        assert!(output.status.success(), "{}", child::text(&output));
    }
}

fn flush_held() {
    let mut mounted = None;
    let mut world = World::prepared(&DURABLE(), |dir| {
        mounted = Some(Folding::mount(&dir.join("share")).unwrap());
    });
    let mounted = mounted.unwrap();
    let (disk, share) = (mounted.disk(), world.share());
    fs::write(share.join("large"), noise(3 << 20, 1)).unwrap();
    fs::write(share.join("small"), noise(9_000, 2)).unwrap();
    let source = world.path("file");
    fs::write(&source, noise(40_000, 3)).unwrap();
    // A loop that waits for the flush would wait for ever: it is let go then, and the word comes too early.
    let (over, is_over) = std::sync::mpsc::channel::<()>();
    let stuck = mounted.disk();
    std::thread::spawn(move || {
        if is_over.recv_timeout(Duration::from_secs(20)) == Err(RecvTimeoutError::Timeout) {
            stuck.release_flushes();
        }
    });
    disk.hold_flushes();
    let job = push_job(&[&source], &world.link("/"));
    let mut pushing = Client::start(world.client_options("pusher"), job, TransferOptions::default()).unwrap();
    let told = |events: Vec<ClientEvent>| {
        let is_word = |event: &ClientEvent| matches!(event, ClientEvent::Item { .. } | ClientEvent::Finished(_));
        events.into_iter().find(is_word)
    };
    while disk.flushes_held() == 0 {
        world.server.poll(Some(Duration::from_millis(1))).unwrap();
        let word = told(pushing.poll(Some(Duration::from_millis(1))).unwrap());
        assert!(word.is_none(), "{word:?}");
    }
    for (number, (name, length, seed)) in [("large", 3 << 20, 1), ("small", 9_000, 2)]
        .repeat(5)
        .into_iter()
        .enumerate()
    {
        let target = world.path(&format!("{name}-{number}"));
        let link = world.link(&format!("/{name}"));
        world.pull(&link, &target, TransferOptions::default()).assert_clean();
        assert!(fs::read(target).unwrap() == noise(length, seed));
    }
    let word = told(pushing.poll(Some(Duration::ZERO)).unwrap());
    assert!(word.is_none(), "{word:?}");
    assert_eq!((disk.flushes_held(), share.join("file").exists()), (1, false));
    assert!(
        world.server.counters().helper_queue > 0,
        "it is the helper thread that waits"
    );
    disk.release_flushes();
    world.drive(pushing, |_, _| {}).assert_clean();
    assert_eq!(fs::read(share.join("file")).unwrap(), noise(40_000, 3));
    drop(over);
}

/// A target that cannot be written is found out before any content travels, and not file by file.
#[test]
fn a_target_that_cannot_be_written_is_the_error() {
    const NAME: &str = "a_target_that_cannot_be_written_is_the_error";
    if child::is(NAME) {
        return read_only_target();
    }
    if may_mount(NAME) {
        let output = child::run(&UNSHARE, NAME, NAME);
        assert!(output.status.success(), "{}", child::text(&output));
    }
}

fn read_only_target() {
    let mut world = World::prepared(&WorldOptions::default(), |dir| {
        mount_small(&dir.join("target"));
        let remounted = Command::new("mount")
            .args(["-o", "remount,ro"])
            .arg(dir.join("target"))
            .status();
        assert!(remounted.unwrap().success());
    });
    fs::write(world.share().join("a"), noise(100_000, 1)).unwrap();
    let target = world.path("target");
    let run = world.pull(&world.link("/"), &target, TransferOptions::default());
    let result = run.outcome.result;
    assert!(matches!(result, Err(JobError::Target { .. })), "{result:?}");
    assert_eq!(run.outcome.summary.literal_bytes, 0);
}
