//! Rows 28 to 30 of the threats: without descriptors, beside a greedy peer, and under peers that come
//! and go in every way.

#![allow(clippy::unwrap_used)]

mod harness;

use harness::descriptors::limit_descriptors;
use harness::guard::{Guarded, resident_bytes};
use harness::raw::{RawClient, frame, push_begin};
use harness::{World, WorldOptions, child, push_job, server_options};
use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};
use syncline::model::Rights;
use syncline::model::limits::TURN_BYTES;
use syncline::node::{Client, ClientEvent, JobError, Server, TransferOptions};
use syncline::wire::{FrameType, Message};

/// A whole server without a free descriptor: who is connected is answered, who comes is turned away,
/// the loop rests, and all is well when there are descriptors again.
#[test]
fn row_28_a_server_without_descriptors_turns_away_and_recovers() {
    let name = "row_28_a_server_without_descriptors_turns_away_and_recovers";
    if child::is("exhausted") {
        return exhausted();
    }
    let output = child::run(&[], name, "exhausted");
    assert!(output.status.success(), "{}", child::text(&output));
}

fn exhausted() {
    let mut world = Guarded::new();
    fs::write(world.share().join("file"), b"content").unwrap();
    let mut served = world.serve_while(RawClient::open);
    let waiting: Vec<TcpStream> = (0..30).map(|_| TcpStream::connect(world.address).unwrap()).collect();
    let lowest_free = fs::File::open("/dev/null").unwrap().as_raw_fd();
    limit_descriptors(u64::try_from(lowest_free).ok());
    let before = world.server.counters();
    let until = Instant::now() + Duration::from_secs(20);
    while world.server.counters().turned_away < 30 {
        assert!(
            Instant::now() < until,
            "nobody is turned away: {:?}",
            world.server.counters()
        );
        world.server.poll(Some(Duration::from_millis(100))).unwrap();
    }
    let turns = world.server.counters().turns - before.turns;
    assert!(turns < 60, "{turns} turns for 30 peers: it spins");
    // Without a descriptor it still talks; a push fails by the file, not by the connection.
    served.send(&frame(FrameType::StatusQuery, &[]));
    for _ in 0..20 {
        world.server.poll(Some(Duration::from_millis(1))).unwrap();
    }
    assert_eq!(served.next().unwrap().kind, FrameType::StatusReply);
    limit_descriptors(None);
    drop(waiting);
    drop(served);
    world.check();
}

/// Idle connections, as many as may be open without a share: whoever comes next is served, and the one
/// that has sat there longest makes room.
#[test]
fn row_28_idle_connections_lock_nobody_out() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("share")).unwrap();
    let mut options = server_options(dir.path(), &WorldOptions::default());
    options.connections_max = 8;
    let server = Server::bind(&options).unwrap();
    let address = server.listen_addrs()[0];
    let mut world = World {
        dir,
        server,
        address,
        server_events: Vec::new(),
        plain: true,
    };
    let idle: Vec<TcpStream> = (0..20).map(|_| TcpStream::connect(address).unwrap()).collect();
    let source = world.path("file");
    fs::write(&source, b"content").unwrap();
    world
        .push(&[&source], &world.link("/"), TransferOptions::default())
        .assert_clean();
    assert!(world.server.connections() <= 4, "{}", world.server.connections());
    drop(idle);
}

/// A server that hangs up at once may be busy: the client tries again, and says so in the end.
#[test]
fn row_28_who_is_turned_away_tries_again() {
    let world = World::new();
    let busy = TcpListener::bind("127.0.0.1:0").unwrap();
    busy.set_nonblocking(true).unwrap();
    let link = format!("syncline://{}/Share", busy.local_addr().unwrap())
        .parse()
        .unwrap();
    let source = world.path("file");
    fs::write(&source, b"content").unwrap();
    let mut options = world.client_options("client-home");
    options.retries = 1;
    let mut client = Client::start(options, push_job(&[&source], &link), TransferOptions::default()).unwrap();
    let (mut visits, mut events) = (0, Vec::new());
    while !matches!(events.last(), Some(ClientEvent::Finished(_))) {
        visits += usize::from(busy.accept().is_ok());
        events.extend(client.poll(Some(Duration::from_millis(1))).unwrap());
    }
    let outcome = match events.pop() {
        Some(ClientEvent::Finished(outcome)) => outcome,
        other => panic!("{other:?}"),
    };
    assert!(
        matches!(outcome.result, Err(JobError::TurnedAway { .. })),
        "{outcome:?}"
    );
    assert_eq!(visits, 2);
}

/// What the fast one of row 29 has to send.
const FAST_BYTES: u64 = 320 << 20;

/// A push of [`FAST_BYTES`] that has begun to move.
fn well_under_way(world: &mut World) -> Client {
    let big = world.path("big");
    let noise: Vec<u8> = (0..1u32 << 20)
        .flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes())
        .collect();
    let mut file = fs::File::create(&big).unwrap();
    for _ in 0..FAST_BYTES / noise.len() as u64 {
        file.write_all(&noise).unwrap();
    }
    let job = push_job(&[&big], &world.link("/big"));
    let options = world.client_options("client-home");
    let mut fast = Client::start(options, job, TransferOptions::default()).unwrap();
    let mut moved = 0;
    while moved == 0 {
        world.server.poll(Some(Duration::from_micros(100))).unwrap();
        for event in fast.poll(Some(Duration::from_micros(100))).unwrap() {
            if let ClientEvent::Progress(progress) = event {
                moved = progress.bytes_done;
            }
        }
    }
    fast
}

fn ended(events: &[ClientEvent]) -> bool {
    events.iter().any(|event| matches!(event, ClientEvent::Finished(_)))
}

/// A thousand sessions that have said all they have to say, and wait for the answer to their last word: each gets it
/// before the fast one is through, who moves a quantum a round at most.
#[test]
fn row_29_a_thousand_sessions_are_answered_beside_a_fast_one() {
    const SESSIONS: usize = 1_000;
    let mut world = World::tuned(&WorldOptions::default(), |server| {
        server.connections_max = SESSIONS + 10;
    });
    let mut fast = well_under_way(&mut world);
    let words = [&speeches()[OPENED][..], &frame(FrameType::Ping, b"the word")].concat();
    let address = world.address;
    let visitor = |_| {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(&words).unwrap();
        stream.set_nonblocking(true).unwrap();
        (stream, Vec::new())
    };
    let mut waiting: Vec<(TcpStream, Vec<u8>)> = (0..SESSIONS).map(visitor).collect();
    let mut answered = Vec::new();
    let mut buffer = [0; 4096];
    while answered.len() < SESSIONS {
        world.server.poll(Some(Duration::ZERO)).unwrap();
        let is_over = ended(&fast.poll(Some(Duration::ZERO)).unwrap());
        assert!(!is_over, "the fast one ended first; {} sessions wait", waiting.len());
        let is_answered = |(stream, heard): &mut (TcpStream, Vec<u8>)| {
            while let Ok(count) = stream.read(&mut buffer) {
                assert!(count > 0, "a session was closed: {heard:?}");
                heard.extend_from_slice(&buffer[..count]);
            }
            heard.ends_with(&frame(FrameType::Pong, b"the word"))
        };
        answered.extend(waiting.extract_if(.., is_answered));
    }
    assert!(
        world.server.counters().bulk_line_longest > 0,
        "the fast one had its line"
    );
    fast.interrupt();
}

/// One peer that pushes as fast as it can, and 200 that want a word: all of them are done within a
/// number of rounds in which the fast one cannot be, at a quantum a round.
#[test]
fn row_29_small_clients_are_served_beside_a_fast_one() {
    let mut world = Guarded::with(&WorldOptions::default());
    let small = world.path("small");
    fs::write(&small, b"a word").unwrap();
    let start = |world: &Guarded, source: &std::path::Path, target: &str| {
        let job = push_job(&[source], &world.link(target));
        Client::start(world.client_options("client-home"), job, TransferOptions::default()).unwrap()
    };
    let mut fast = well_under_way(&mut world);
    let mut clients: Vec<Client> = (0..200)
        .map(|n| start(&world, &small, &format!("/small-{n}")))
        .collect();
    let mut rounds = 0;
    while !clients.is_empty() {
        rounds += 1;
        assert!(rounds < 10_000, "{} small clients wait", clients.len());
        world.server.poll(Some(Duration::ZERO)).unwrap();
        let is_over = ended(&fast.poll(Some(Duration::ZERO)).unwrap());
        assert!(
            !is_over,
            "the fast one ended first; {} small clients wait",
            clients.len()
        );
        clients.retain_mut(|client| {
            for event in client.poll(Some(Duration::ZERO)).unwrap() {
                if let ClientEvent::Finished(outcome) = event {
                    assert_eq!((outcome.result, outcome.summary.failed), (Ok(()), 0));
                    return false;
                }
            }
            true
        });
    }
    let quanta = FAST_BYTES / TURN_BYTES as u64;
    assert!(
        rounds < quanta,
        "{rounds} rounds for a word, {quanta} quanta for the big file"
    );
    for n in 0..200 {
        assert_eq!(fs::read(world.share().join(format!("small-{n}"))).unwrap(), b"a word");
    }
    fast.interrupt();
    drop(fast);
    world.check();
}

/// How a peer leaves.
#[derive(Clone, Copy, Debug)]
enum Leave {
    Close,
    Reset,
    HalfClose,
}

/// Connects, says `words`, leaves. Those of different numbers come from different addresses: ports would run out.
fn visit(address: SocketAddr, number: usize, words: &[u8], leave: Leave) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let own = SocketAddr::from(([127, 0, 1, 1 + (number % 200) as u8], 0));
    socket.bind(&own.into()).unwrap();
    socket.connect(&address.into()).unwrap();
    let mut stream = TcpStream::from(socket);
    // A server that refused already is no error here.
    let _ = stream.write_all(words);
    match leave {
        Leave::Close => {}
        Leave::Reset => {
            let socket = socket2::SockRef::from(&stream);
            socket.set_linger(Some(Duration::ZERO)).unwrap();
        }
        Leave::HalfClose => {
            let _ = stream.shutdown(Shutdown::Write);
        }
    }
}

/// Of the speeches, the one of a session that is open.
const OPENED: usize = 3;

fn speeches() -> Vec<Vec<u8>> {
    let mut hello = Vec::new();
    harness::raw::hello("visitor").encode(0, &mut hello);
    let mut opening = hello.clone();
    syncline::wire::Open {
        share: Some(syncline::model::ShareName::parse("Share").unwrap()),
        secret: None,
        wanted: Rights::READ_WRITE,
    }
    .encode(0, &mut opening);
    let mut begun = opening.clone();
    push_begin().encode(1, &mut begun);
    let half = [
        &begun[..],
        &harness::raw::frame_declaring(FrameType::Offer, 900, &[0; 40]),
    ]
    .concat();
    vec![
        Vec::new(),
        hello[..5].to_vec(),
        hello,
        opening,
        begun,
        half,
        vec![0xff; 64],
    ]
}

/// Every state, left in every way: the server holds nothing of it afterwards.
#[test]
fn row_30_resets_and_half_closes_in_every_state_leave_nothing() {
    let mut world = Guarded::new();
    for words in speeches() {
        for leave in [Leave::Close, Leave::Reset, Leave::HalfClose] {
            world.serve_while(|address| visit(address, 0, &words, leave));
            let until = Instant::now() + Duration::from_secs(10);
            while world.server.connections() > 0 {
                assert!(Instant::now() < until, "{leave:?} after {} bytes is held", words.len());
                world.server.poll(Some(Duration::from_millis(5))).unwrap();
            }
        }
    }
    world.check();
}

/// 40,000 that leave 26 bytes each would show; 100,000 of them take half a minute of a busy machine.
fn churn(plain: bool, visits: usize) {
    let mut world = Guarded::with(&WorldOptions {
        plain,
        ..WorldOptions::default()
    });
    let speeches = speeches();
    let leaves = [Leave::Close, Leave::Reset, Leave::HalfClose];
    let mut come_and_go = |count: usize| {
        world.serve_while(|address| {
            for n in 0..count {
                visit(address, n, &speeches[n % speeches.len()], leaves[n % leaves.len()]);
            }
        });
        let until = Instant::now() + Duration::from_secs(20);
        while world.server.connections() > 0 && Instant::now() < until {
            world.server.poll(Some(Duration::from_millis(5))).unwrap();
        }
        assert_eq!(world.server.connections(), 0);
        world.server_events.clear();
    };
    // What the allocator keeps is there after the first few hundred.
    come_and_go(500);
    let before = resident_bytes();
    for _ in 0..visits / 500 {
        come_and_go(500);
    }
    let grown = resident_bytes().saturating_sub(before);
    assert!(grown < 1 << 20, "{grown} bytes for {visits} visitors");
    world.check();
}

#[test]
fn row_30_thousands_come_and_go_without_a_trace() {
    churn(true, 40_000);
}

#[cfg(feature = "tls")]
#[test]
fn row_30_thousands_come_and_go_at_a_tls_port_without_a_trace() {
    churn(false, 5_000);
}
