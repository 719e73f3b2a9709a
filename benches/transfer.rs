//! Full transfers over loopback between a real server and a real client: connect, hello, content,
//! verification, publishing, close. Nothing is flushed (`Durability::None`), so that the disk's flush
//! does not hide the engine.
//!
//! Never reuses a target: each run brings everything. Server and client have a thread each.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use syncline::model::{Link, Rights, ShareName};
use syncline::store::Home;
use syncline::{
    Client, ClientEvent, ClientOptions, Durability, Job, Server, ServerOptions, ShareOptions, Source, TransferOptions,
};
use tempfile::TempDir;

const BIG_BYTES: usize = 64 << 20;
const SMALL_FILES: usize = 1_000;
const SMALL_BYTES: usize = 4_096;

/// A server on a thread of its own, with data to send beside its share.
struct Served {
    dir: TempDir,
    plain: bool,
    link: Link,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    runs: usize,
}

impl Served {
    fn start(plain: bool) -> Served {
        let dir = directory();
        fs::create_dir(dir.path().join("share")).expect("it is empty");
        make_data(dir.path());
        let stop = Arc::new(AtomicBool::new(false));
        let (told, ready) = mpsc::channel();
        let (path, stopping) = (dir.path().to_owned(), Arc::clone(&stop));
        // A server stays on the thread that made it.
        let thread = std::thread::spawn(move || {
            let mut server = bind(&path, plain);
            let secret = (!plain).then(|| invite(&path));
            let fragment = secret
                .zip(server.device())
                .map(|(secret, own)| format!("#{own}.{secret}"));
            let address = server.listen_addrs()[0];
            let link = format!("syncline://{address}/Share{}", fragment.unwrap_or_default());
            told.send(link).expect("somebody waits for it");
            while !stopping.load(Ordering::Relaxed) {
                server.poll(Some(Duration::from_millis(20))).expect("the loop runs");
            }
        });
        let link = ready
            .recv()
            .expect("the server starts")
            .parse()
            .expect("the link is legal");
        Served {
            dir,
            plain,
            link,
            stop,
            thread: Some(thread),
            runs: 0,
        }
    }

    /// Pushes `name` to a new place, and back from it to another; how long one of the two took.
    fn run(&mut self, name: &str, way: Way) -> Duration {
        self.runs += 1;
        let there = format!("run-{}", self.runs);
        let push = Job::Push {
            sources: vec![Source {
                path: self.dir.path().join(name),
                contents_only: true,
            }],
            target: self.at(&there),
        };
        let mut taken = self.finish(push);
        if way == Way::Pull {
            let target = self.dir.path().join("back");
            taken = self.finish(Job::Pull {
                links: vec![self.at(&there)],
                target: target.clone(),
                target_is_directory: true,
            });
            fs::remove_dir_all(target).expect("the pull made it");
        }
        fs::remove_dir_all(self.dir.path().join("share").join(there)).expect("the push made it");
        taken
    }

    fn at(&self, directory: &str) -> Link {
        let path = format!("{directory}/");
        let text = self.link.to_string();
        let (share, fragment) = text.split_once('#').map_or((&*text, None), |(a, b)| (a, Some(b)));
        // The invite is spent by the first run; the device stays known.
        let fragment = fragment.map(|fragment| format!("#{fragment}")).unwrap_or_default();
        format!("{share}/{path}{fragment}").parse().expect("the link is legal")
    }

    fn finish(&self, job: Job) -> Duration {
        let options = ClientOptions {
            plain: self.plain,
            retries: 0,
            ..ClientOptions::new(self.dir.path().join("client-home"))
        };
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
                    assert!(outcome.summary.files_transferred > 0, "each run brings everything");
                    return started.elapsed();
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

/// In memory where that is possible: ext4 creates files far slower for minutes after a mass delete, and
/// each run deletes what it made.
fn directory() -> TempDir {
    tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .expect("a temporary directory can be made")
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Push,
    Pull,
}

fn bind(dir: &Path, plain: bool) -> Server {
    let share = ShareOptions {
        name: ShareName::parse("Share").expect("a name"),
        path: dir.join("share"),
        open: if plain { Rights::READ_WRITE } else { Rights::NONE },
    };
    Server::bind(&ServerOptions {
        listen: vec!["127.0.0.1:0".parse().expect("an address")],
        plain,
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

fn invite(dir: &Path) -> String {
    let home = Home::open(&server_home(dir)).expect("the server made it");
    let share = ShareName::parse("Share").expect("a name");
    let secret = home
        .trust()
        .invite(&share, Rights::READ_WRITE, Duration::from_secs(600), SystemTime::now());
    secret.expect("the state directory can be written").to_hex()
}

fn make_data(dir: &Path) {
    let noise = noise(BIG_BYTES);
    let (big, small) = (dir.join("big"), dir.join("small"));
    fs::create_dir(&big).expect("it is new");
    fs::create_dir(&small).expect("it is new");
    fs::write(big.join("file"), &noise).expect("there is room");
    for (number, content) in noise.chunks(SMALL_BYTES).take(SMALL_FILES).enumerate() {
        fs::write(small.join(format!("file-{number:04}")), content).expect("there is room");
    }
}

fn noise(length: usize) -> Vec<u8> {
    let mut state = 20_261_120_u64;
    let step = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    (0..length).map(step).collect()
}

fn transfers(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("transfer");
    group.sample_size(10).measurement_time(Duration::from_secs(6));
    for (name, plain) in [("plain", true), ("TLS", false)] {
        if !plain && !cfg!(feature = "tls") {
            continue;
        }
        let mut served = Served::start(plain);
        for (way_name, way) in [("push", Way::Push), ("pull", Way::Pull)] {
            group.throughput(Throughput::Bytes(BIG_BYTES as u64));
            group.bench_function(format!("64 MiB {way_name} {name}"), |b| {
                b.iter_custom(|count| (0..count).map(|_| served.run("big", way)).sum());
            });
            group.throughput(Throughput::Elements(SMALL_FILES as u64));
            group.bench_function(format!("1,000 files {way_name} {name}"), |b| {
                b.iter_custom(|count| (0..count).map(|_| served.run("small", way)).sum());
            });
        }
    }
    group.finish();
}

criterion_group!(benches, transfers);
criterion_main!(benches);
