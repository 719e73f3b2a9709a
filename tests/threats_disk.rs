//! Rows 47 to 53, 58 and 59 of the threats: disks that fill up and fail, files that change, clocks,
//! signals. What needs a process of its own runs this test binary again as a child.

mod harness;

use harness::guard::{Guarded, resident_bytes};
use harness::raw::{RawClient, STREAM, push_begin};
use harness::{Run, World, WorldOptions, child, pull_job, push_job, server_options, snapshot};
use std::collections::HashSet;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use syncline::delta::content_id;
use syncline::model::limits::OFFER_WINDOW;
use syncline::model::{CloseCode, ContentId, Entry, ItemCode, Kind, Meta, RelPath, Rights, ShareName, Timestamp};
use syncline::node::{Client, Durability, JobError, Server, ServerError, ServerEvent, TransferOptions};
use syncline::store::Home;
use syncline::wire::{End, EndOutcome, EntriesWriter, FrameType, Hole, SettledReader, SettledResult, Start};

const DURABLE: fn() -> WorldOptions = || WorldOptions {
    durability: Durability::Barrier,
    ..WorldOptions::default()
};

/// Bytes without runs or holes.
fn noise(length: usize, seed: u32) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2_654_435_761) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state
    };
    (0..length.div_ceil(4))
        .flat_map(|_| next().to_le_bytes())
        .take(length)
        .collect()
}

/// Whether anything unfinished lies in a share.
fn staged(share: &Path) -> usize {
    let sessions = fs::read_dir(share.join(".syncline/staging"))
        .into_iter()
        .flatten()
        .flatten();
    sessions
        .map(|session| fs::read_dir(session.path()).map_or(0, Iterator::count))
        .sum()
}

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
    let flushes = "fsync,fdatasync,syncfs";
    let trace = format!("trace={flushes}");
    let every = format!("inject={flushes}:error=EIO");
    let first = format!("inject={flushes}:error=EIO:when=1");
    traced(NAME, "every flush", &[&trace, &every]);
    traced(NAME, "first flush", &[&trace, &first]);
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

/// Drives `client` and calls `edit` before each turn with the turn's number.
fn drive_and(world: &mut World, client: Client, mut edit: impl FnMut(u32)) -> Run {
    let mut turn = 0;
    world.drive(client, |_, _| {
        edit(turn);
        turn += 1;
    })
}

/// Row 50: a file is cut short under its mapping while it is sent, in both directions.
#[test]
fn row_50_a_file_truncated_under_its_mapping_is_read_again() {
    const LENGTH: usize = 20 << 20;
    let mut world = Guarded::new();
    let content = noise(LENGTH, 1);
    let (source, share) = (world.path("file"), world.share());
    for (round, cut) in [(2, 5_000_000), (6, 4_096), (9, 0), (14, 17_000_001)] {
        for direction in ["push", "pull"] {
            let (from, to) = match direction {
                "push" => (source.clone(), share.join("file")),
                _ => (share.join("file"), source.clone()),
            };
            let _ = fs::remove_file(&to);
            fs::write(&from, &content).unwrap();
            let job = match direction {
                "push" => push_job(&[&from], &world.link("/")),
                _ => pull_job(&world.link("/file"), &to),
            };
            let client = Client::start(world.client_options("home"), job, TransferOptions::default()).unwrap();
            let run = drive_and(&mut world, client, |turn| {
                if turn == round {
                    File::options().write(true).open(&from).unwrap().set_len(cut).unwrap();
                }
            });
            assert_eq!(run.outcome.result, Ok(()), "{direction} {round}");
            match fs::read(&to) {
                Ok(arrived) => assert!(
                    arrived == content || arrived == content[..cut as usize],
                    "{direction} {round}: {} bytes of neither version",
                    arrived.len()
                ),
                Err(_) => assert_eq!(run.failures(), ["file Changing"], "{direction} {round}"),
            }
        }
    }
    world.check();
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

fn entry(name: &str, size: u64) -> Entry {
    Entry {
        path: RelPath::parse(name.as_bytes()).unwrap(),
        kind: Kind::File { size },
        meta: META,
    }
}

const META: Meta = Meta {
    mode: 0o644,
    mtime: Timestamp { seconds: 7, nanos: 0 },
};

fn offer(first: u32, entries: &[Entry]) -> Vec<u8> {
    let mut writer = EntriesWriter::default();
    entries.iter().for_each(|entry| writer.push(entry, None));
    let mut out = Vec::new();
    writer.flush(STREAM, first, &mut out);
    out
}

/// Row 52: sizes that are only declared cost nothing, and what cannot be stored fails by name.
#[test]
fn row_52_declared_sizes_take_no_memory_and_no_room() {
    const HUGE: u64 = i64::MAX as u64;
    let mut world = Guarded::new();
    let before = resident_bytes();
    let results = world.world.serve_while(|address| {
        let mut client = RawClient::open(address);
        client.begin(&push_begin());
        client.send(&offer(0, &[entry("whole", HUGE), entry("sparse", HUGE)]));
        client.expect(FrameType::Answer);
        let start = |file, sparse| Start {
            file,
            size: HUGE,
            sparse,
            meta: META,
        };
        client.send_message(&start(0, false));
        let mut results = vec![client.expect(FrameType::Settled).payload];
        client.send_message(&End {
            file: 0,
            outcome: EndOutcome::Failed(ItemCode::DiskFull),
        });
        client.send_message(&start(1, true));
        client.send_message(&Hole { file: 1, length: HUGE });
        let mut zeros = syncline::delta::TreeHasher::new();
        zeros.update_zeros(HUGE);
        let outcome = EndOutcome::Complete(zeros.finish().root);
        client.send_message(&End { file: 1, outcome });
        results.push(client.expect(FrameType::Settled).payload);
        results
    });
    for (file, payload) in results.iter().enumerate() {
        let result = SettledReader::new(payload).next_result().unwrap();
        let Some((number, SettledResult::Failed(code))) = result else {
            panic!("{file}: {result:?}");
        };
        assert_eq!(number as usize, file);
        assert!(matches!(code, ItemCode::TooLarge | ItemCode::DiskFull), "{code:?}");
    }
    let grown = resident_bytes().saturating_sub(before);
    assert!(grown < 16 << 20, "{grown} bytes more");
    assert_eq!(snapshot(&world.share()), Vec::<String>::new());
    world.check();
}

/// Row 52: a sender that does not wait for answers is stopped at the window.
#[test]
fn row_52_more_offers_than_the_window_are_refused() {
    let mut world = Guarded::new();
    let fault = world.world.serve_while(|address| {
        let mut client = RawClient::open(address);
        client.begin(&push_begin());
        // All of them are wanted, and none is ever sent.
        let entries: Vec<Entry> = (0..=OFFER_WINDOW)
            .map(|number| entry(&format!("f{number}"), 10))
            .collect();
        for (part, entries) in entries.chunks(1_000).enumerate() {
            client.send(&offer(u32::try_from(part * 1_000).unwrap(), entries));
        }
        client.expect_close()
    });
    assert_eq!(fault.code, CloseCode::Limit);
    world.check();
}

/// Row 53: a file is edited between the steps of its transfer. Whatever is published is one of the
/// states that the file had at some moment, and what keeps changing is given up by name.
#[test]
fn row_53_mixed_content_is_never_published() {
    const LENGTH: u64 = 6 << 20;
    let mut world = Guarded::new();
    let share = world.share();
    let mut given_up = 0;
    for (round, edits) in [(0, 1u32), (1, 2), (2, 5), (3, 1_000)] {
        for direction in ["push", "pull"] {
            let (from, to) = match direction {
                "push" => (world.path("file"), share.join("file")),
                _ => (share.join("file"), world.path("file")),
            };
            fs::write(&from, noise(LENGTH as usize, round)).unwrap();
            let _ = fs::remove_file(&to);
            let job = match direction {
                "push" => push_job(&[&from], &world.link("/")),
                _ => pull_job(&world.link("/file"), &to),
            };
            let client = Client::start(world.client_options("home"), job, TransferOptions::default()).unwrap();
            let file = File::options().write(true).open(&from).unwrap();
            let mut states: HashSet<ContentId> = HashSet::from([content_id(&fs::read(&from).unwrap())]);
            let mut left = edits;
            let run = drive_and(&mut world, client, |turn| {
                if turn >= 3 && left > 0 {
                    left -= 1;
                    // Before and after what has been sent already; the size stays.
                    for at in [0, LENGTH / 2, LENGTH - 8] {
                        file.write_all_at(&[turn as u8; 8], at).unwrap();
                    }
                    states.insert(content_id(&fs::read(&from).unwrap()));
                }
            });
            assert_eq!(run.outcome.result, Ok(()));
            match fs::read(&to) {
                Ok(arrived) => assert!(states.contains(&content_id(&arrived)), "{direction}: a mixture"),
                Err(_) => {
                    given_up += 1;
                    assert_eq!(run.failures(), ["file Changing"]);
                }
            }
            assert_eq!(staged(&share), 0);
        }
    }
    assert!(given_up >= 1, "a file that changes all the time is given up");
    world.check();
}

/// Row 53: an editor that replaces the file by rename, from another thread, while it is pushed again
/// and again.
#[test]
fn row_53_a_file_replaced_by_rename_is_always_one_version() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let mut world = Guarded::new();
    let (source, fresh) = (world.path("file"), world.path("fresh"));
    let version = |number: u8| vec![number; 300_000 + usize::from(number) * 1_000];
    fs::write(&source, version(0)).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in (0..200).cycle() {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                fs::write(&fresh, version(number)).unwrap();
                fs::rename(&fresh, &source).unwrap();
            }
        });
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for _ in 0..15 {
                let run = world.push(&[&source], &world.link("/"), TransferOptions::default());
                assert_eq!(run.outcome.result, Ok(()));
                if let Ok(arrived) = fs::read(world.share().join("file")) {
                    assert_eq!(arrived, version(arrived[0]));
                }
            }
        }));
        stop.store(true, Ordering::Relaxed);
        if let Err(panic) = ended {
            std::panic::resume_unwind(panic);
        }
    });
    world.check();
}

/// Row 58: an invite of a clock that was ten years off lets nobody in, neither late nor early.
#[test]
fn row_58_invites_of_a_clock_that_was_wrong_are_refused() {
    let mut world = Guarded::with(&WorldOptions {
        plain: false,
        open: Rights::NONE,
        ..WorldOptions::default()
    });
    let years = Duration::from_secs(10 * 365 * 86_400);
    let home = Home::open(&world.path("server-home")).unwrap();
    let share = ShareName::parse("Share").unwrap();
    let source = world.path("f");
    fs::write(&source, b"f").unwrap();
    for (number, clock) in [SystemTime::now() - years, SystemTime::now() + years]
        .into_iter()
        .enumerate()
    {
        let secret = home
            .trust()
            .invite(&share, Rights::READ_WRITE, Duration::from_secs(600), clock)
            .unwrap();
        let fingerprint = world.server.device().unwrap();
        let link = format!("syncline://{}/Share#{fingerprint}.{}", world.address, secret.to_hex());
        let job = push_job(&[&source], &link.parse().unwrap());
        let options = world.client_options(&format!("stranger-{number}"));
        let client = Client::start(options, job, TransferOptions::default()).unwrap();
        let run = world.world.drive(client, |_, _| {});
        assert!(
            matches!(
                run.outcome.result,
                Err(JobError::Closed {
                    code: CloseCode::Refused,
                    ..
                })
            ),
            "{:?}",
            run.outcome.result
        );
    }
    drop(home);
    world.check();
}

/// Row 58: times of files are carried as they are, however far off; and a second run finds them equal.
#[test]
fn row_58_file_times_far_off_travel_unchanged() {
    let mut world = Guarded::new();
    let source = world.path("source");
    fs::create_dir(&source).unwrap();
    let day = Duration::from_secs(86_400);
    let times = [
        UNIX_EPOCH,
        UNIX_EPOCH - day,
        UNIX_EPOCH + day * 365 * 68,
        SystemTime::now() + day * 3_650,
    ];
    for (number, time) in times.into_iter().enumerate() {
        let file = File::create(source.join(format!("f{number}"))).unwrap();
        file.set_modified(time + Duration::from_nanos(1)).unwrap();
    }
    world
        .push(&[&source], &world.link(""), TransferOptions::default())
        .assert_clean();
    assert_eq!(snapshot(&source), snapshot(&world.share().join("source")));
    let again = world.push(&[&source], &world.link(""), TransferOptions::default());
    assert_eq!(again.items(), Vec::<String>::new());
    world.check();
}

/// Row 58, by design: nothing that decides on deadlines reads the wall clock.
#[test]
fn row_58_timers_never_read_the_wall_clock() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let allowed = ["node/access.rs", "node/server_node.rs"];
    let mut looked_at = 0;
    for layer in ["reactor", "conn", "wire", "delta", "node"] {
        for file in fs::read_dir(source.join(layer)).unwrap() {
            let path = file.unwrap().path();
            if path.is_dir() {
                continue; // tests only
            }
            let name = path.strip_prefix(&source).unwrap().to_str().unwrap().to_owned();
            let text = fs::read_to_string(&path).unwrap();
            let count = text.matches("SystemTime::now").count();
            let expected = usize::from(allowed.contains(&name.as_str()));
            assert!(count <= expected, "{name} reads the wall clock {count} times");
            looked_at += 1;
        }
    }
    assert!(looked_at > 30);
}

/// Row 59: a server that is told to stop ends what runs, takes nobody new, and says when it is done.
#[test]
fn row_59_draining_finishes_the_running_transfer() {
    let mut world = Guarded::new();
    let source = world.path("file");
    let content = noise(12 << 20, 1);
    fs::write(&source, &content).unwrap();
    let job = push_job(&[&source], &world.link("/"));
    let client = Client::start(world.client_options("home"), job, TransferOptions::default()).unwrap();
    let mut turn = 0;
    let run = world.world.drive(client, |world, _| {
        if turn == 5 {
            world.server.drain();
        }
        turn += 1;
    });
    assert!(turn > 6, "the transfer was under way");
    run.assert_clean();
    assert_eq!(fs::read(world.share().join("file")).unwrap(), content);
    let drained = |events: &[ServerEvent]| events.iter().any(|event| matches!(event, ServerEvent::Drained));
    for _ in 0..3_000 {
        let events = world.world.server.poll(Some(Duration::from_millis(1))).unwrap();
        world.world.server_events.extend(events);
        if drained(&world.server_events) {
            break;
        }
    }
    assert!(drained(&world.server_events));
    assert!(std::net::TcpStream::connect(world.address).is_err(), "nobody new");
    assert_eq!(staged(&world.share()), 0);
}

/// Row 59: SIGTERM does the same, and SIGPIPE does nothing.
#[test]
fn row_59_sigterm_drains_and_sigpipe_is_harmless() {
    const NAME: &str = "row_59_sigterm_drains_and_sigpipe_is_harmless";
    if child::is(NAME) {
        return terminated();
    }
    let output = child::run(&[], NAME, NAME);
    assert!(output.status.success(), "{}", child::text(&output));
    assert!(child::text(&output).contains("DRAINED"), "{}", child::text(&output));
}

fn terminated() {
    use rustix::process::{Signal, getpid, kill_process};
    let mut world = World::with(&WorldOptions {
        handle_signals: true,
        ..DURABLE()
    });
    let source = world.path("file");
    fs::write(&source, noise(12 << 20, 1)).unwrap();
    let job = push_job(&[&source], &world.link("/"));
    let client = Client::start(world.client_options("home"), job, TransferOptions::default()).unwrap();
    let run = drive_and(&mut world, client, |turn| match turn {
        3 => kill_process(getpid(), Signal::PIPE).unwrap(),
        5 => kill_process(getpid(), Signal::TERM).unwrap(),
        _ => {}
    });
    run.assert_clean();
    assert_eq!(fs::read(world.share().join("file")).unwrap(), noise(12 << 20, 1));
    for _ in 0..3_000 {
        let events = world.server.poll(Some(Duration::from_millis(1))).unwrap();
        if events.iter().any(|event| matches!(event, ServerEvent::Drained)) {
            println!("DRAINED");
            return;
        }
    }
    panic!("it does not end");
}

/// Row 59: a second server on the same folder is refused and told who is first; when the first is
/// gone, the folder is free, and what it left unfinished is swept.
#[test]
fn row_59_a_second_server_on_the_folder_is_refused() {
    let world = World::new();
    let options = server_options(world.dir.path(), &WorldOptions::default());
    let Err(ServerError::Locked { path, holder }) = Server::bind(&options).map(|_| ()) else {
        panic!("two servers on one folder");
    };
    assert_eq!(path, world.share());
    assert!(holder.contains(&format!("pid {}", std::process::id())), "{holder}");
    let World { dir, server, .. } = world;
    drop(server);
    let left = dir.path().join("share/.syncline/staging/0123456789abcdef");
    fs::create_dir_all(&left).unwrap();
    fs::write(left.join("0"), b"unfinished").unwrap();
    let _server = Server::bind(&options).unwrap();
    assert!(!left.exists());
}

/// Row 50: holes stay holes, at the start, in the middle and at the end.
#[test]
fn row_50_holes_arrive_as_holes() {
    let mut world = Guarded::new();
    let source = world.path("sparse");
    let file = File::create(&source).unwrap();
    file.set_len(64 << 20).unwrap();
    file.write_all_at(&noise(100_000, 1), 10 << 20).unwrap();
    file.write_all_at(&noise(5_000, 2), 40 << 20).unwrap();
    drop(file);
    let run = world.push(&[&source], &world.link("/"), TransferOptions::default());
    run.assert_clean();
    let arrived = world.share().join("sparse");
    assert_eq!(fs::read(&source).unwrap(), fs::read(&arrived).unwrap());
    let stored = fs::metadata(&arrived).unwrap().blocks() * 512;
    assert!(stored < 1 << 20, "{stored} bytes on disk");
    assert!(run.outcome.summary.wire_sent < 1 << 20);
    world.check();
}
