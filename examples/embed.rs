//! A server inside of a host's own poll loop, with bounded memory. The host has descriptors and times of its own;
//! the server is one more descriptor and one more time in its loop.
//!
//! ```text
//! cargo run --release --example embed                     pushes to itself, and tells what it measured
//! cargo run --release --example embed DIR 127.0.0.1:7171  serves DIR to this machine, until it is stopped
//! ```

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::error::Error;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use syncline::model::{Rights, ShareName};
use syncline::store::ProcessFigures;
use syncline::{
    Client, ClientEvent, ClientOptions, Job, Outcome, Server, ServerEvent, ServerOptions, ShareOptions, Source,
    TransferOptions,
};

/// What the host allows the server, in bytes.
pub const MEMORY_LIMIT: u64 = 16 << 20;
/// What the host does by itself: here it looks at its own memory, so often.
const SAMPLE_EVERY: Duration = Duration::from_millis(5);

/// What was measured. Memory is resident and anonymous, in bytes.
#[derive(Debug)]
pub struct Measured {
    /// Before there was a server.
    pub before: u64,
    /// With a server that listens.
    pub listening: u64,
    /// The most that was seen, with server and client.
    pub peak: u64,
    /// How the push ended.
    pub outcome: Outcome,
    /// How long it took.
    pub elapsed: Duration,
    /// The longest that the server kept the host's loop in one call.
    pub longest_turn: Duration,
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1);
    if let Some(folder) = arguments.next() {
        let listen = arguments.next().unwrap_or_else(|| "127.0.0.1:7171".into());
        let listen = listen.into_string().map_err(|_| "an address is text")?;
        return serve(PathBuf::from(folder), listen.parse()?);
    }
    let place = tempfile::tempdir()?;
    let measured = push_to_itself(place.path())?;
    let mib = |bytes: u64| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20));
    let summary = &measured.outcome.summary;
    println!(
        "pushed      {} files, {}, in {:.2?}",
        summary.files,
        mib(summary.bytes),
        measured.elapsed
    );
    println!("turns       the longest took {:.1?}", measured.longest_turn);
    println!(
        "memory      {} before, {} listening, {} at most",
        mib(measured.before),
        mib(measured.listening),
        mib(measured.peak)
    );
    println!("limit       {}", mib(MEMORY_LIMIT));
    Ok(())
}

/// A server as a small host starts it.
fn server(home: PathBuf, folder: PathBuf, listen: SocketAddr) -> Result<Server, Box<dyn Error>> {
    let share = ShareOptions {
        name: ShareName::parse("Share")?,
        path: folder,
        // For whoever reaches the address. With `Rights::NONE` and TLS, devices are paired: see docs/EMBEDDING.md.
        open: Rights::READ_WRITE,
    };
    Ok(Server::bind(&ServerOptions {
        listen: vec![listen],
        plain: true,
        connections_max: 64,
        memory_limit: Some(MEMORY_LIMIT),
        ..ServerOptions::new(home, vec![share])
    })?)
}

/// The host's loop, for clients from elsewhere.
fn serve(folder: PathBuf, listen: SocketAddr) -> Result<(), Box<dyn Error>> {
    let home = tempfile::tempdir()?;
    let mut server = server(home.path().to_owned(), folder, listen)?;
    println!("serving on {}", server.listen_addrs()[0]);
    let mut sample_at = Instant::now();
    loop {
        wait(
            &[PollFd::new(&server, PollFlags::IN)],
            earliest(&[server.next_deadline(), Some(sample_at)]),
        )?;
        for event in server.poll(Some(Duration::ZERO))? {
            tell(&event);
        }
        if Instant::now() >= sample_at {
            sample_at = Instant::now() + Duration::from_secs(10);
            println!("memory: {} bytes, {} connections", anonymous(), server.connections());
        }
    }
}

fn tell(event: &ServerEvent) {
    match event {
        ServerEvent::Transferred { peer, summary, .. } => {
            println!(
                "{peer}: {} files, {} bytes on the wire",
                summary.files, summary.wire_received
            );
        }
        ServerEvent::Refused { peer, text, .. } => println!("{peer}: refused, {text:?}"),
        ServerEvent::Paired { .. }
        | ServerEvent::SyncBegun { .. }
        | ServerEvent::SyncEnded { .. }
        | ServerEvent::Drained => {}
    }
}

/// Server and client in one loop. `place` is an empty directory.
pub fn push_to_itself(place: &Path) -> Result<Measured, Box<dyn Error>> {
    let before = anonymous();
    let (share, source) = (place.join("share"), place.join("source"));
    fs::create_dir(&share)?;
    make_source(&source)?;
    let mut server = server(place.join("server-home"), share, "127.0.0.1:0".parse()?)?;
    let listening = anonymous();
    let target = format!("syncline://{}/Share", server.listen_addrs()[0]).parse()?;
    let options = ClientOptions {
        plain: true,
        ..ClientOptions::new(place.join("client-home"))
    };
    let sources = vec![Source {
        path: source,
        contents_only: false,
    }];
    let mut client = Client::start(options, Job::Push { sources, target }, TransferOptions::default())?;

    let (started, mut peak, mut sample_at) = (Instant::now(), listening, Instant::now());
    let outcome = 'running: loop {
        // 1. Wait for whatever comes first: a descriptor, or a time.
        let deadline = earliest(&[server.next_deadline(), client.next_deadline(), Some(sample_at)]);
        wait(
            &[PollFd::new(&server, PollFlags::IN), PollFd::new(&client, PollFlags::IN)],
            deadline,
        )?;
        // 2. Let each do a bounded amount of work. Asking one that has nothing to do costs a system call.
        server.poll(Some(Duration::ZERO))?;
        for event in client.poll(Some(Duration::ZERO))? {
            if let ClientEvent::Finished(outcome) = event {
                break 'running outcome;
            }
        }
        // 3. What the host does itself.
        if Instant::now() >= sample_at {
            sample_at = Instant::now() + SAMPLE_EVERY;
            peak = peak.max(anonymous());
        }
    };
    let elapsed = started.elapsed();
    // The host ends: nobody new is let in, what runs gets a moment.
    server.drain();
    while !server
        .poll(Some(Duration::from_millis(10)))?
        .iter()
        .any(|event| matches!(event, ServerEvent::Drained))
    {}
    Ok(Measured {
        before,
        listening,
        peak,
        outcome,
        elapsed,
        longest_turn: Duration::from_micros(server.counters().longest_turn_micros),
    })
}

/// 200 small files and one of 64 MiB.
fn make_source(source: &Path) -> Result<(), Box<dyn Error>> {
    fs::create_dir(source)?;
    for number in 0..200u32 {
        fs::write(source.join(format!("note-{number:03}")), number.to_string().repeat(500))?;
    }
    let mut large = vec![0u8; 64 << 20];
    let mut state = 1u64;
    for word in large.chunks_exact_mut(8) {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        word.copy_from_slice(&state.to_le_bytes());
    }
    fs::write(source.join("film"), large)?;
    Ok(())
}

fn wait(descriptors: &[PollFd<'_>], deadline: Option<Instant>) -> Result<(), Box<dyn Error>> {
    let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
    let left = left.map(Timespec::try_from).transpose()?;
    match poll(&mut descriptors.to_vec(), left.as_ref()) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn earliest(times: &[Option<Instant>]) -> Option<Instant> {
    times.iter().flatten().min().copied()
}

fn anonymous() -> u64 {
    ProcessFigures::now().anonymous_bytes.unwrap_or(0)
}
