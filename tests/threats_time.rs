//! Rows 58 and 59 of the threats: wrong clocks, signals, a second instance.

#![allow(clippy::unwrap_used)]

mod harness;

use harness::edits::{drive_and, noise, staged};
use harness::guard::Guarded;
use harness::{World, WorldOptions, child, push_job, server_options, snapshot};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use syncline::model::{CloseCode, Rights, ShareName};
use syncline::node::{Client, Durability, JobError, Server, ServerError, ServerEvent, TransferOptions};
use syncline::store::Home;

const DURABLE: fn() -> WorldOptions = || WorldOptions {
    durability: Durability::Barrier,
    ..WorldOptions::default()
};

/// Row 58: an invite of a clock that was ten years off lets nobody in, neither late nor early.
#[cfg_attr(not(feature = "tls"), ignore = "needs TLS")]
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

/// Row 58, by design: nothing that decides on deadlines reads the wall clock, by any name, in whatever directory it is.
#[test]
fn row_58_timers_never_read_the_wall_clock() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    // A record of the index and of the activity log says when it was made, for people to read. An invite is looked at
    // and redeemed; a visit is noted; what is unfinished gets too old. The time of day says which limit of bandwidth
    // holds, and nothing waits for it.
    let allowed = [
        ("node/clock.rs", 1),
        ("node/access.rs", 1),
        ("node/activity/book.rs", 1),
        ("node/server_node.rs", 1),
        ("node/resumes.rs", 1),
        ("node/sequencer.rs", 1),
    ];
    let (mut looked_at, mut reads) = (0, Vec::new());
    let layers = ["reactor", "conn", "wire", "delta", "sync", "web", "node"];
    let mut waiting: Vec<PathBuf> = layers.iter().map(|layer| source.join(layer)).collect();
    while let Some(path) = waiting.pop() {
        if path.is_dir() {
            waiting.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            continue;
        }
        let name = path.strip_prefix(&source).unwrap().to_str().unwrap().to_owned();
        if name.ends_with("_tests.rs") || name.contains("/tests/") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let clocks = ["SystemTime::now", "EPOCH.elapsed", "Realtime", "REALTIME"];
        let count: usize = clocks.iter().map(|clock| text.matches(clock).count()).sum();
        let expected = allowed.iter().find(|(file, _)| *file == name);
        if count != expected.map_or(0, |(_, count)| *count) {
            reads.push(format!("{name} reads the wall clock {count} times"));
        }
        looked_at += 1;
    }
    assert!(reads.is_empty(), "{reads:#?}");
    assert!(looked_at > 100, "{looked_at} files");
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
