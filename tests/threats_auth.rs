//! Rows 20, 23, 24 and 25 of the threats: who is let in, what a refusal tells, what a recording is worth.
#![cfg(feature = "tls")]
#![allow(clippy::unwrap_used)]

mod harness;

use harness::guard::Guarded;
use harness::raw::{Frame, RawClient, frame};
use harness::tls::{connect, eager_config, greeted};
use harness::{World, WorldOptions, pull_job, push_job, server_options, snapshot};
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::{Duration, Instant, SystemTime};
use syncline::model::limits::{AUTH_BACKOFF_MS, AUTH_FAILURES_MAX};
use syncline::model::{CloseCode, Fault, Link, Rights, Secret, ShareName};
use syncline::node::{Client, ClientEvent, Job, JobError, Outcome, Server, ShareOptions, TransferOptions};
use syncline::reactor::Identity;
use syncline::store::Home;
use syncline::wire::{FrameType, Message};

fn closed() -> WorldOptions {
    WorldOptions {
        plain: false,
        open: Rights::NONE,
        ..WorldOptions::default()
    }
}

fn fault(answer: &Frame) -> Fault {
    assert_eq!(answer.kind, FrameType::Close);
    Fault::decode(&answer.payload).unwrap()
}

/// What a stranger hears who asks for `share` with `secret`.
fn knock(world: &mut World, share: &str, secret: Option<Secret>) -> Vec<u8> {
    world.serve_while(|address| {
        let identity = Identity::generate().unwrap();
        let mut client = greeted(address, &identity);
        let answer = client.ask(share, secret, Rights::READ);
        fault(&answer);
        answer.payload
    })
}

/// An unknown share, a refused one, a wrong secret and a spent one sound the same, byte for byte; also
/// when the address has to wait, and over plain connections.
#[test]
fn row_20_a_refusal_tells_nothing() {
    let mut world = Guarded::with(&closed());
    let known = knock(&mut world, "Share", None);
    assert_eq!(knock(&mut world, "Other", None), known);
    assert_eq!(Fault::decode(&known).unwrap().code, CloseCode::Refused);
    let guess = |n: u8| Some(Secret([n; 16]));
    // Strangers take turns: each pair of answers is the same, whatever share it is about.
    let mut waits = 0;
    for n in 0..2 * AUTH_FAILURES_MAX as u8 {
        let (one, other) = (
            knock(&mut world, "Share", guess(n)),
            knock(&mut world, "Other", guess(n)),
        );
        if Fault::decode(&other).unwrap().code == CloseCode::Busy {
            waits += 1;
            assert!(one == other || one == known, "only the count decides who waits");
        } else {
            assert_eq!((&one, &other), (&known, &known));
        }
    }
    assert!(waits > 0, "guessing was never slowed down");
    // No secret, no wait: who is paired is not shut out by the guesses of others.
    assert_eq!(knock(&mut world, "Share", None), known);
    wait_out(&mut world);
    world.check();
}

#[test]
fn row_20_a_refusal_over_plain_tells_nothing() {
    let mut world = World::with(&WorldOptions {
        open: Rights::NONE,
        ..WorldOptions::default()
    });
    let mut ask = |share: &str, secret: Option<Secret>| {
        world.serve_while(|address| {
            let mut client = RawClient::connect(address);
            client.greet();
            client.ask(share, secret, Rights::READ).payload
        })
    };
    for n in 0..AUTH_FAILURES_MAX as u8 / 2 {
        let secret = (n > 0).then_some(Secret([n; 16]));
        assert_eq!(ask("Share", secret.clone()), ask("Other", secret));
    }
}

/// After so many wrong secrets an address waits, and an honest invite works once it has.
#[test]
fn row_20_too_many_wrong_secrets_from_one_address_have_to_wait() {
    let mut world = Guarded::with(&closed());
    let link = world.invite(Rights::READ_WRITE);
    let codes: Vec<CloseCode> = (0..=AUTH_FAILURES_MAX as u8)
        .map(|n| {
            Fault::decode(&knock(&mut world, "Share", Some(Secret([n; 16]))))
                .unwrap()
                .code
        })
        .collect();
    let (refused, rest) = codes.split_at(AUTH_FAILURES_MAX as usize);
    assert!(refused.iter().all(|code| *code == CloseCode::Refused), "{codes:?}");
    assert_eq!(rest, [CloseCode::Busy]);
    // The true secret waits as well, or waiting would tell that it is the true one; it is not spent.
    let secret = link.secret.clone().unwrap().invite;
    let waiting = knock(&mut world, "Share", secret);
    assert_eq!(Fault::decode(&waiting).unwrap().code, CloseCode::Busy);
    wait_out(&mut world);
    let source = world.path("f");
    fs::write(&source, b"f").unwrap();
    world.push(&[&source], &link, TransferOptions::default()).assert_clean();
    world.check();
}

/// The loop's clock passes the first wait.
fn wait_out(world: &mut World) {
    let until = Instant::now() + Duration::from_millis(AUTH_BACKOFF_MS * 4);
    while Instant::now() < until {
        world.server.poll(Some(Duration::from_millis(50))).unwrap();
    }
}

/// A client that would resume and send early data finds no ticket to do it with.
#[test]
fn row_23_there_are_no_tickets_and_no_early_data() {
    let mut world = Guarded::with(&closed());
    let identity = Identity::generate().unwrap();
    let config = eager_config(&identity);
    for round in 0..2 {
        world.serve_while(|address| {
            let mut stream = connect(address, &config);
            assert!(
                stream.conn.early_data().is_none(),
                "early data was offered in round {round}"
            );
            // A whole exchange, so that tickets would have come.
            stream.write_all(&frame(FrameType::Ping, &[])).unwrap();
            let mut heard = Vec::new();
            let _ = stream.read_to_end(&mut heard);
            assert!(!heard.is_empty());
            assert_eq!(stream.conn.handshake_kind(), Some(rustls::HandshakeKind::Full));
            assert_eq!(stream.conn.tls13_tickets_received(), 0);
            assert!(!stream.conn.is_early_data_accepted());
        });
    }
    world.check();
}

/// Passes bytes between a client and the server, and keeps what the client said.
fn record(listener: TcpListener, server: SocketAddr) -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        let mut upstream = TcpStream::connect(server).unwrap();
        let (mut back, mut down) = (upstream.try_clone().unwrap(), client.try_clone().unwrap());
        let answers = std::thread::spawn(move || std::io::copy(&mut back, &mut down));
        let (mut said, mut buffer) = (Vec::new(), [0; 16 * 1024]);
        while let Ok(count @ 1..) = client.read(&mut buffer) {
            said.extend_from_slice(&buffer[..count]);
            if upstream.write_all(&buffer[..count]).is_err() {
                break;
            }
        }
        let _ = upstream.shutdown(std::net::Shutdown::Write);
        let _ = answers.join();
        let _ = sender.send(said);
    });
    receiver
}

/// What crossed the wire once is worth nothing when it is sent again.
#[test]
fn row_23_a_recorded_session_replayed_changes_nothing() {
    let mut world = Guarded::with(&closed());
    let source = world.path("f");
    fs::write(&source, b"first").unwrap();
    let invite = world.invite(Rights::READ_WRITE);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = listener.local_addr().unwrap();
    let said = record(listener, world.address);
    let (_, rest) = invite
        .to_string()
        .split_once("/Share")
        .map(|(a, b)| (a.to_owned(), b.to_owned()))
        .unwrap();
    let through: Link = format!("syncline://{proxy}/Share{rest}").parse().unwrap();
    world
        .push(&[&source], &through, TransferOptions::default())
        .assert_clean();
    let said = said.recv().unwrap();
    assert!(said.len() > 500, "the session was recorded");
    // The user has something newer there by now.
    fs::write(world.share().join("f"), b"newer").unwrap();
    let before = snapshot(&world.share());
    let devices = Home::open(&world.path("server-home"))
        .unwrap()
        .trust()
        .devices()
        .unwrap();
    for _ in 0..3 {
        world.serve_while(|address| {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            let _ = stream.write_all(&said);
            let _ = stream.read_to_end(&mut Vec::new());
        });
    }
    assert_eq!(snapshot(&world.share()), before);
    let after = Home::open(&world.path("server-home"))
        .unwrap()
        .trust()
        .devices()
        .unwrap();
    assert_eq!(after.len(), devices.len());
    world.check();
}

/// A recorded plain session names what it replaces by content: replayed, it makes nothing new.
#[test]
fn row_23_a_recorded_plain_session_makes_nothing_new() {
    let mut world = Guarded::new();
    let source = world.path("f");
    fs::write(&source, b"content").unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = listener.local_addr().unwrap();
    let said = record(listener, world.address);
    let through: Link = format!("syncline://{proxy}/Share").parse().unwrap();
    world
        .push(&[&source], &through, TransferOptions::default())
        .assert_clean();
    let said = said.recv().unwrap();
    let before = snapshot(&world.share());
    world.serve_while(|address| {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let _ = stream.write_all(&said);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let _ = stream.read_to_end(&mut Vec::new());
    });
    assert_eq!(snapshot(&world.share()), before);
    world.check();
}

fn run_as(world: &mut World, home: &str, job: Job) -> Outcome {
    let client = Client::start(world.client_options(home), job, TransferOptions::default()).unwrap();
    world.drive(client, |_, _| {}).outcome
}

fn refusal(outcome: &Outcome) -> (CloseCode, String) {
    match &outcome.result {
        Err(JobError::Closed { code, text }) => (*code, text.clone()),
        other => panic!("not refused: {other:?}"),
    }
}

/// A trust file that cannot be read lets nobody in, known or not, and tells nobody why.
#[test]
fn row_24_a_damaged_trust_file_denies() {
    let mut world = World::with(&closed());
    let source = world.path("f");
    fs::write(&source, b"f").unwrap();
    let bare = world.link("");
    let (first, second) = (world.invite(Rights::READ_WRITE), world.invite(Rights::READ_WRITE));
    assert_eq!(run_as(&mut world, "known", push_job(&[&source], &first)).result, Ok(()));
    let trust = world.path("server-home").join("trust.json");
    let good = fs::read(&trust).unwrap();
    let stranger = refusal(&run_as(&mut world, "stranger", push_job(&[&source], &bare)));
    for damage in [&good[..good.len() / 2], b"", b"{}", b"\xff\xff"] {
        fs::write(&trust, damage).unwrap();
        for (home, link) in [
            ("known", world.link("")),
            ("known", first.clone()),
            ("new", second.clone()),
        ] {
            let outcome = run_as(&mut world, home, push_job(&[&source], &link));
            assert_eq!(refusal(&outcome), stranger, "{home} with {damage:?}");
        }
    }
    fs::remove_file(&trust).unwrap();
    fs::create_dir(&trust).unwrap();
    let outcome = run_as(&mut world, "known", push_job(&[&source], &bare));
    assert_eq!(refusal(&outcome), stranger, "a trust file that is a directory");
    fs::remove_dir(&trust).unwrap();
    fs::write(&trust, &good).unwrap();
    assert_eq!(run_as(&mut world, "known", push_job(&[&source], &bare)).result, Ok(()));
}

/// The same in the middle of a transfer: rights that cannot be confirmed any more are gone.
#[test]
fn row_24_a_trust_file_that_breaks_during_a_transfer_ends_it() {
    let mut world = World::with(&closed());
    let source = world.path("f");
    fs::write(&source, b"f").unwrap();
    let bare = world.link("");
    let invite = world.invite(Rights::READ_WRITE);
    assert_eq!(
        run_as(&mut world, "known", push_job(&[&source], &invite)).result,
        Ok(())
    );
    fs::write(&source, vec![1; 40 << 20]).unwrap();
    let mut options = world.client_options("known");
    options.bandwidth = syncline::model::Timetable::always(Some(4 << 20));
    let job = push_job(&[&source], &bare);
    let client = Client::start(options, job, TransferOptions::default()).unwrap();
    let trust = world.path("server-home").join("trust.json");
    let mut broken = false;
    let run = world.drive(client, |_, events| {
        let moving = |event: &ClientEvent| matches!(event, ClientEvent::Progress(progress) if progress.bytes_done > 0);
        if !broken && events.iter().any(moving) {
            fs::write(&trust, b"damaged").unwrap();
            broken = true;
        }
    });
    assert_eq!(refusal(&run.outcome).0, CloseCode::Refused);
    assert_eq!(fs::read(world.share().join("f")).unwrap(), b"f");
}

/// Two shares; the device of one knows nothing of the other.
#[test]
fn row_25_a_device_of_one_share_learns_nothing_of_another() {
    let mut world = two_shares();
    fs::write(world.path("second/secret"), b"secret").unwrap();
    let source = world.path("f");
    fs::write(&source, b"f").unwrap();
    let invite = world.invite(Rights::READ_WRITE);
    assert_eq!(
        run_as(&mut world, "device", push_job(&[&source], &invite)).result,
        Ok(())
    );
    let of = |world: &World, share: &str| -> Link { format!("syncline://{}/{share}", world.address).parse().unwrap() };
    let target = world.path("stolen");
    let mut answers = Vec::new();
    for share in ["Second", "Third"] {
        let link = of(&world, share);
        answers.push(refusal(&run_as(&mut world, "device", pull_job(&link, &target))));
        answers.push(refusal(&run_as(&mut world, "device", push_job(&[&source], &link))));
        answers.push(refusal(&run_as(&mut world, "device", Job::Status { link })));
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    assert_eq!(answers[0].0, CloseCode::Refused);
    assert!(!target.exists());
    // An invite for one share opens no other, and is not spent by the attempt.
    let invite = world.invite(Rights::READ_WRITE);
    let (_, secret) = invite
        .to_string()
        .split_once('#')
        .map(|(a, b)| (a.to_owned(), b.to_owned()))
        .unwrap();
    let abused: Link = format!("{}#{secret}", of(&world, "Second")).parse().unwrap();
    let outcome = run_as(&mut world, "other", pull_job(&abused, &target));
    assert_eq!(refusal(&outcome), answers[0]);
    assert_eq!(
        run_as(&mut world, "other", push_job(&[&source], &invite)).result,
        Ok(())
    );
    // Its status names its own share only.
    let job = Job::Status { link: world.link("") };
    let client = Client::start(world.client_options("device"), job, TransferOptions::default()).unwrap();
    let run = world.drive(client, |_, _| {});
    let status = run.events.iter().find_map(|event| match event {
        ClientEvent::Status(text) => Some(text.clone()),
        _ => None,
    });
    let status = status.unwrap();
    assert!(status.contains("\"Share\"") && !status.contains("Second"), "{status}");
    assert!(!status.contains("loop_status"), "{status}");
}

fn two_shares() -> World {
    let dir = tempfile::tempdir().unwrap();
    for name in ["share", "second"] {
        fs::create_dir(dir.path().join(name)).unwrap();
    }
    let mut options = server_options(dir.path(), &closed());
    options.shares.push(ShareOptions {
        name: ShareName::parse("Second").unwrap(),
        path: dir.path().join("second"),
        open: Rights::NONE,
    });
    let server = Server::bind(&options).unwrap();
    let address = server.listen_addrs()[0];
    World {
        dir,
        server,
        address,
        server_events: Vec::new(),
        plain: false,
    }
}

/// An invite that has expired is refused like any other wrong one.
#[test]
fn row_25_an_expired_invite_sounds_like_a_wrong_one() {
    let mut world = World::with(&closed());
    let source: PathBuf = world.path("f");
    fs::write(&source, b"f").unwrap();
    let bare = world.link("");
    let stranger = refusal(&run_as(&mut world, "stranger", push_job(&[&source], &bare)));
    let home = Home::open(&world.path("server-home")).unwrap();
    let share = ShareName::parse("Share").unwrap();
    let past = SystemTime::now() - Duration::from_secs(3600);
    let secret = home
        .trust()
        .invite(&share, Rights::READ, Duration::from_secs(60), past)
        .unwrap();
    let device = world.server.device().unwrap();
    let link: Link = format!("syncline://{}/Share#{device}.{}", world.address, secret.to_hex())
        .parse()
        .unwrap();
    assert_eq!(
        refusal(&run_as(&mut world, "late", push_job(&[&source], &link))),
        stranger
    );
}
