//! Pushes of a changed file over loopback, between a real server and a real client: whole, with what the
//! client remembers of the old version (warm), and with a client that has never seen it (cold).
//!
//! Never times how the old version gets there: each run pushes it to a new place first. Nothing is flushed.
//! Server and client have a thread each. The new version has the length that is given; bytes on the wire are
//! printed once for each case. `SYNCLINE_BENCH_HUGE=1` adds 1 GiB.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use criterion::{Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use syncline::model::{Link, Rights, ShareName};
use syncline::node::Summary;
use syncline::{
    Client, ClientEvent, ClientOptions, Durability, Job, Server, ServerOptions, ShareOptions, Source, TransferOptions,
};
use tempfile::TempDir;

const SIZES: [(&str, usize); 3] = [("64 KiB", 64 << 10), ("16 MiB", 16 << 20), ("64 MiB", 64 << 20)];
const HUGE: (&str, usize) = ("1 GiB", 1 << 30);
const OVERWRITTEN_BYTES: usize = 4096;
const INSERTED_BYTES: usize = 100;
const SCATTERED_MAX: usize = 1_000;

/// How the new version differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Edit {
    InPlace,
    Inserted,
    Scattered,
    Appended,
    NoneInCommon,
}

const EDITS: [(&str, Edit); 5] = [
    ("in place", Edit::InPlace),
    ("inserted", Edit::Inserted),
    ("scattered", Edit::Scattered),
    ("appended", Edit::Appended),
    ("none in common", Edit::NoneInCommon),
];

/// What is there when the new version is pushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Before {
    /// Nothing at the target.
    Nothing,
    /// The old version, which the same client had pushed.
    Warm,
    /// The old version, which another client had pushed.
    Cold,
}

/// The bytes before and after; `after` has `size` bytes.
fn versions(edit: Edit, size: usize) -> (Vec<u8>, Vec<u8>) {
    let after = noise(size, 1);
    let before = match edit {
        Edit::InPlace => {
            let at = (size / 3) | 1;
            let mut before = after.clone();
            before[at..at + OVERWRITTEN_BYTES].copy_from_slice(&noise(OVERWRITTEN_BYTES, 2));
            before
        }
        Edit::Inserted => after[INSERTED_BYTES..].to_vec(),
        Edit::Scattered => {
            let mut before = after.clone();
            let positions = noise(SCATTERED_MAX * 8, 3);
            for position in positions.chunks_exact(8).take(size / 4096) {
                let position = u64::from_le_bytes(position.try_into().expect("it has 8 bytes"));
                before[(position % size as u64) as usize] ^= 0x55;
            }
            before
        }
        Edit::Appended => after[..size - size / 16].to_vec(),
        Edit::NoneInCommon => noise(size, 4),
    };
    (before, after)
}

fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let step = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    (0..length).map(step).collect()
}

/// A server on a thread of its own, and the two versions.
struct Served {
    dir: TempDir,
    address: String,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    runs: usize,
}

impl Served {
    fn start() -> Served {
        let dir = directory();
        fs::create_dir(dir.path().join("share")).expect("it is empty");
        let stop = Arc::new(AtomicBool::new(false));
        let (told, ready) = mpsc::channel();
        let (path, stopping) = (dir.path().to_owned(), Arc::clone(&stop));
        // A server stays on the thread that made it.
        let thread = std::thread::spawn(move || {
            let mut server = bind(&path);
            let address = server.listen_addrs()[0].to_string();
            told.send(address).expect("somebody waits for it");
            while !stopping.load(Ordering::Relaxed) {
                server.poll(Some(Duration::from_millis(20))).expect("the loop runs");
            }
        });
        Served {
            dir,
            address: ready.recv().expect("the server starts"),
            stop,
            thread: Some(thread),
            runs: 0,
        }
    }

    /// Replaces both versions. Their times differ, as those of versions do.
    fn lay_out(&self, edit: Edit, size: usize) {
        let (before, after) = versions(edit, size);
        for (name, bytes, seconds) in [("old", before, 1_700_000_000), ("new", after, 1_700_086_400)] {
            let place = self.dir.path().join(name);
            fs::create_dir_all(&place).expect("there is room");
            let path = place.join("file");
            fs::write(&path, bytes).expect("there is room");
            let file = fs::File::options().write(true).open(path).expect("it was written");
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
            file.set_modified(time).expect("it is ours");
        }
    }

    /// Pushes the new version over the old one; how long that took, and its figures.
    fn run(&mut self, before: Before) -> (Duration, Summary) {
        self.runs += 1;
        let there = format!("run-{}", self.runs);
        let fresh = format!("home-{}", self.runs);
        if before != Before::Nothing {
            self.finish("home", self.push("old", &there));
        }
        let home = if before == Before::Cold { &fresh } else { "home" };
        // A state directory is made on first use: not on the time of what is measured.
        let link = self.link(&there);
        self.finish(home, Job::Status { link });
        let taken = self.finish(home, self.push("new", &there));
        fs::remove_dir_all(self.dir.path().join("share").join(there)).expect("the push made it");
        if before == Before::Cold {
            fs::remove_dir_all(self.dir.path().join(fresh)).expect("the client made it");
        }
        taken
    }

    fn push(&self, version: &str, there: &str) -> Job {
        let source = Source {
            path: self.dir.path().join(version),
            contents_only: true,
        };
        Job::Push {
            sources: vec![source],
            target: self.link(there),
        }
    }

    fn link(&self, there: &str) -> Link {
        let link = format!("syncline://{}/Share/{there}/", self.address);
        link.parse().expect("the link is legal")
    }

    fn finish(&self, home: &str, job: Job) -> (Duration, Summary) {
        let options = ClientOptions {
            plain: true,
            retries: 0,
            ..ClientOptions::new(self.dir.path().join(home))
        };
        let is_push = matches!(job, Job::Push { .. });
        let transfer = TransferOptions {
            durability: Durability::None,
            ..TransferOptions::default()
        };
        let started = Instant::now();
        let mut client = Client::start(options, job, transfer).expect("the job can start");
        loop {
            for event in client.poll(None).expect("the loop runs") {
                if let ClientEvent::Finished(outcome) = event {
                    assert_eq!((outcome.result, outcome.summary.failed), (Ok(()), 0));
                    assert!(
                        !is_push || outcome.summary.files_transferred == 1,
                        "each push brings the file"
                    );
                    return (started.elapsed(), outcome.summary);
                }
            }
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// In memory where that is possible, so that the disk does not hide the engine.
fn directory() -> TempDir {
    tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .expect("a temporary directory can be made")
}

fn bind(dir: &Path) -> Server {
    let share = ShareOptions {
        name: ShareName::parse("Share").expect("a name"),
        path: dir.join("share"),
        open: Rights::READ_WRITE,
    };
    Server::bind(&ServerOptions {
        listen: vec!["127.0.0.1:0".parse().expect("an address")],
        plain: true,
        durability: Durability::None,
        // Hundreds of runs would fill the disk.
        keep_versions: None,
        ..ServerOptions::new(server_home(dir), vec![share])
    })
    .expect("the server starts")
}

fn server_home(dir: &Path) -> PathBuf {
    dir.join("server-home")
}

type Group<'a> = criterion::BenchmarkGroup<'a, criterion::measurement::WallTime>;

fn bench(group: &mut Group<'_>, name: &str, before: Before, served: &mut Served) {
    let mut wire = None;
    group.bench_function(name, |b| {
        b.iter_custom(|count| {
            let mut sum = Duration::ZERO;
            for _ in 0..count {
                let (taken, summary) = served.run(before);
                sum += taken;
                wire = Some(summary.wire_sent + summary.wire_received);
            }
            sum
        });
    });
    if let Some(wire) = wire {
        eprintln!("{name}: {wire} bytes on the wire");
    }
}

fn delta_transfers(criterion: &mut Criterion) {
    let huge = std::env::var_os("SYNCLINE_BENCH_HUGE").is_some();
    for (size_name, size) in SIZES.into_iter().chain(huge.then_some(HUGE)) {
        let mut group = criterion.benchmark_group(format!("push {size_name}"));
        group.sample_size(10).sampling_mode(SamplingMode::Flat);
        group
            .warm_up_time(Duration::from_millis(100))
            .measurement_time(Duration::from_millis(600));
        group.throughput(Throughput::Bytes(size as u64));
        for (edit_name, edit) in EDITS {
            // What one case left behind is not met by the next.
            let mut served = Served::start();
            served.lay_out(edit, size);
            if edit == Edit::InPlace {
                bench(&mut group, "whole", Before::Nothing, &mut served);
            }
            for (name, before) in [("warm", Before::Warm), ("cold", Before::Cold)] {
                bench(&mut group, &format!("{edit_name}, {name}"), before, &mut served);
            }
        }
        group.finish();
    }
}

criterion_group!(benches, delta_transfers);
criterion_main!(benches);
