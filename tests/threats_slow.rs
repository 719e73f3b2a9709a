//! Rows 26 and 27 of the threats, over real sockets: how slowly a peer may speak, and how little it may read.

#![allow(clippy::unwrap_used)]

mod harness;

use harness::breaks::trickling_relay;
use harness::guard::{Guarded, resident_bytes};
use harness::raw::{RawClient, frame, frame_declaring, push_begin};
use harness::{WorldOptions, pull_job};
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};
use syncline::model::limits::OUTBOUND_BYTES_MAX;
use syncline::model::{CloseCode, Rights};
use syncline::node::{Client, ClientEvent, ClientOptions, Deadlines, ServerEvent, TransferOptions};
use syncline::wire::{FrameType, ListEnd, Message};

/// Deadlines that a test can wait for.
fn hasty() -> Deadlines {
    Deadlines {
        handshake_ms: 250,
        stall_ms: 600,
        idle_ms: 400,
        ..Deadlines::default()
    }
}

fn hasty_world() -> Guarded {
    Guarded::with(&WorldOptions {
        deadlines: hasty(),
        ..WorldOptions::default()
    })
}

fn begin_frame() -> Vec<u8> {
    let mut begin = Vec::new();
    push_begin().encode(1, &mut begin);
    begin
}

/// The server lets go of whoever it has cut.
fn until_empty(world: &mut Guarded) {
    let limit = Instant::now() + Duration::from_secs(10);
    while world.server.connections() > 0 {
        assert!(Instant::now() < limit, "a connection is held");
        world.server.poll(Some(Duration::from_millis(5))).unwrap();
    }
}

/// Sends `bytes` one at a time, until the server closes; `None` if it never does.
fn dribble(stream: &mut TcpStream, bytes: &[u8]) -> Option<()> {
    stream.set_read_timeout(Some(Duration::from_millis(15))).unwrap();
    for byte in bytes {
        if stream.write_all(&[*byte]).is_err() {
            return Some(());
        }
        if is_over(stream) {
            return Some(());
        }
    }
    None
}

fn is_over(stream: &mut TcpStream) -> bool {
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock) => return false,
            Err(_) => return true,
        }
    }
}

/// Silence, half a frame, a byte at a time: the deadline runs from accept and nothing extends it.
#[test]
fn row_26_who_does_not_introduce_itself_in_time_is_cut() {
    let mut world = hasty_world();
    let mut hello = Vec::new();
    harness::raw::hello("slow").encode(0, &mut hello);
    for sent in [&[][..], &hello[..3], &hello[..hello.len() - 1], &hello] {
        let fault = world.serve_while(|address| {
            let mut client = RawClient::connect(address);
            client.send(sent);
            client.expect_close()
        });
        assert_eq!(fault.code, CloseCode::Timeout, "after {} bytes", sent.len());
    }
    let slow = |address: SocketAddr| {
        dribble(
            &mut TcpStream::connect(address).unwrap(),
            &[&hello[..], &[0; 200]].concat(),
        )
    };
    assert_eq!(world.serve_while(slow), Some(()), "a byte at a time is no life");
    until_empty(&mut world);
    world.check();
}

#[cfg(feature = "tls")]
#[test]
fn row_26_the_deadline_covers_the_tls_handshake_too() {
    let mut world = Guarded::with(&WorldOptions {
        plain: false,
        deadlines: Deadlines {
            handshake_ms: 700,
            ..hasty()
        },
        ..WorldOptions::default()
    });
    // A record header that promises a hello, and nothing more.
    for sent in [&[][..], &[22, 3, 1], &[22, 3, 1, 2, 0, 1, 0, 1, 252]] {
        world.serve_while(|address| {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            stream.write_all(sent).unwrap();
            let mut rest = Vec::new();
            // A reset is as good as an end.
            let _ = stream.read_to_end(&mut rest);
        });
        until_empty(&mut world);
    }
    world.check();
}

/// After authentication a frame has to come at a minimum rate, and a session without a transfer ends.
#[test]
fn row_26_after_authentication_a_trickle_is_not_a_sign_of_life() {
    let mut world = hasty_world();
    let idle = world.serve_while(|address| RawClient::open(address).expect_close());
    assert_eq!(idle.code, CloseCode::Timeout);
    // Half a frame in a transfer, and half a frame a byte at a time.
    let half = world.serve_while(|address| {
        let mut client = RawClient::open(address);
        client.begin(&push_begin());
        client.send(&frame_declaring(FrameType::Offer, 1000, &[0; 100]));
        let limit = Instant::now() + Duration::from_secs(20);
        while client.try_send(&[0]) {
            assert!(Instant::now() < limit, "the trickle keeps the connection open");
            std::thread::sleep(Duration::from_millis(20));
        }
        true
    });
    assert!(half);
    until_empty(&mut world);
    assert!(world.server_events.iter().any(|event| matches!(
        event,
        ServerEvent::Refused {
            code: CloseCode::Timeout,
            ..
        }
    )));
    world.check();
}

/// The server's words about the last connection that it cut.
fn last_refusal(world: &Guarded) -> String {
    let mut texts = world.server_events.iter().filter_map(|event| match event {
        ServerEvent::Refused {
            code: CloseCode::Timeout,
            text,
            ..
        } => Some(text.clone()),
        _ => None,
    });
    texts.next_back().unwrap_or_default()
}

/// Pings are answered and are a sign of life, but a session that does nothing else ends; in a transfer, where
/// the peer may be busy with a large file, later. Both sides are told why.
#[test]
fn threats_row_26_who_only_pings_is_cut_with_a_reason() {
    let mut world = Guarded::with(&WorldOptions {
        deadlines: Deadlines {
            stall_ms: 400,
            idle_ms: 500,
            quiet_ms: 900,
            ..Deadlines::default()
        },
        ..WorldOptions::default()
    });
    for (begins, text) in [
        (false, "nothing was done on this connection for 500 ms"),
        (true, "nothing was done on this connection for 900 ms"),
    ] {
        let fault = world.serve_while(|address| {
            let mut client = RawClient::open(address);
            if begins {
                client.begin(&push_begin());
            }
            client.pinging_until_closed(Duration::from_millis(20))
        });
        assert_eq!((fault.code, fault.text.as_str()), (CloseCode::Timeout, text));
        until_empty(&mut world);
        assert_eq!(last_refusal(&world), text, "the log says the same");
    }
    world.check();
}

/// The deadline of the TLS handshake runs from accept; bytes do not extend it.
#[cfg(feature = "tls")]
#[test]
fn threats_row_26_a_tls_handshake_byte_by_byte_is_cut() {
    let mut world = Guarded::with(&WorldOptions {
        plain: false,
        deadlines: Deadlines {
            handshake_ms: 400,
            ..hasty()
        },
        ..WorldOptions::default()
    });
    // A record that announces 508 bytes of a hello, and zeros for as long as anybody takes them.
    let hello = [&[22, 3, 1, 1, 252, 1, 0, 1, 248][..], &[0; 499]].concat();
    let slow = |address: SocketAddr| dribble(&mut TcpStream::connect(address).unwrap(), &hello);
    assert_eq!(
        world.serve_while(slow),
        Some(()),
        "a handshake takes as long as it likes"
    );
    until_empty(&mut world);
    world.check();
}

/// A puller that reads a byte now and then: what leaves that way is no reading.
#[test]
fn threats_row_27_a_peer_that_reads_byte_by_byte_is_cut() {
    let mut world = Guarded::with(&WorldOptions {
        deadlines: Deadlines {
            stall_ms: 1_500,
            ..Deadlines::default()
        },
        ..WorldOptions::default()
    });
    let noise: Vec<u8> = (0..4u32 << 20)
        .flat_map(|i| (i.wrapping_mul(2_654_435_761) >> 8).to_le_bytes())
        .collect();
    fs::write(world.share().join("big"), noise).unwrap();
    let options = ClientOptions {
        retries: 0,
        // It pings four times in this, so that it is not silent.
        timeout: Duration::from_secs(4),
        ..world.client_options("client-home")
    };
    let target = world.path("got");
    world.serve_while(|address| {
        // Hello, the answers and the list come quickly, content byte by byte.
        let relay = trickling_relay(address, 64 * 1024, Duration::from_millis(5));
        let link = format!("syncline://{relay}/Share/big").parse().unwrap();
        let mut client = Client::start(options, pull_job(&link, &target), TransferOptions::default()).unwrap();
        let limit = Instant::now() + Duration::from_secs(20);
        loop {
            assert!(Instant::now() < limit, "a trickle keeps the connection open");
            let events = client.poll(Some(Duration::from_millis(50))).unwrap();
            let is_over = |event: &ClientEvent| matches!(event, ClientEvent::Finished(_));
            if events.iter().any(is_over) {
                break;
            }
        }
    });
    until_empty(&mut world);
    assert_eq!(last_refusal(&world), "less than 16384 bytes were read in 1500 ms");
    world.check();
}

/// A puller that stops reading: the queue stays at its mark and one frame, then it is cut.
#[test]
fn row_27_a_peer_that_never_reads_is_queued_little_and_cut() {
    let mut world = hasty_world();
    let size = 96 << 20;
    fs::File::create(world.share().join("big"))
        .unwrap()
        .set_len(size)
        .unwrap();
    // Not a sparse file: its pages have to travel.
    let noise: Vec<u8> = (0..1u32 << 20)
        .flat_map(|i| (i.wrapping_mul(2_654_435_761) >> 8).to_le_bytes())
        .collect();
    let mut file = fs::File::create(world.share().join("big")).unwrap();
    for _ in 0..size / noise.len() as u64 {
        file.write_all(&noise).unwrap();
    }
    drop((noise, file));
    let job = pull_job(&world.link("/big"), &world.path("got"));
    let mut client = Client::start(world.client_options("client-home"), job, TransferOptions::default()).unwrap();
    let before = resident_bytes();
    let mut moving = false;
    while !moving {
        world.server.poll(Some(Duration::from_micros(200))).unwrap();
        let events = client.poll(Some(Duration::from_micros(200))).unwrap();
        moving = events
            .iter()
            .any(|event| matches!(event, ClientEvent::Progress(progress) if progress.bytes_done > 0));
    }
    let limit = Instant::now() + Duration::from_secs(20);
    while world.server.connections() > 0 {
        assert!(Instant::now() < limit, "a peer that does not read is never cut");
        world.server.poll(Some(Duration::from_millis(5))).unwrap();
    }
    let queued = world.server.counters().longest_queue_bytes;
    let frame = 512 * 1024;
    assert!(
        queued <= OUTBOUND_BYTES_MAX + frame + 1024,
        "{queued} bytes were queued"
    );
    let grown = resident_bytes().saturating_sub(before);
    assert!(grown < 12 << 20, "{grown} bytes");
    drop(client);
    world.check();
}

/// Requests that each cost an answer, from a peer that reads none of them.
#[test]
fn row_27_a_flood_of_requests_cannot_grow_the_queue() {
    let mut world = Guarded::with(&WorldOptions {
        deadlines: Deadlines {
            idle_ms: 2_000,
            stall_ms: 2_000,
            ..Deadlines::default()
        },
        ..WorldOptions::default()
    });
    let mut rounds = Vec::new();
    let end = ListEnd {
        entries: 0,
        complete: true,
        top: None,
    };
    for _ in 0..4_000 {
        rounds.extend_from_slice(&begin_frame());
        end.encode(1, &mut rounds);
    }
    let floods = [
        frame(FrameType::StatusQuery, &[]).repeat(40_000),
        frame(FrameType::Ping, &[1; 8]).repeat(20_000),
        rounds,
    ];
    let before = resident_bytes();
    for flood in &floods {
        let kept = world.serve_while(|address| {
            let mut client = deaf(address);
            // Until the server has had enough of it, or has swallowed 64 MiB.
            let mut sent = 0;
            while sent < 64 << 20 && client.try_send(flood) {
                sent += flood.len();
            }
            client
        });
        drop(kept);
    }
    let queued = world.server.counters().longest_queue_bytes;
    // What one read of at most 1 MiB asks for comes on top of the mark.
    assert!(queued <= OUTBOUND_BYTES_MAX + (2 << 20), "{queued} bytes were queued");
    let grown = resident_bytes().saturating_sub(before);
    assert!(grown < 24 << 20, "{grown} bytes");
    world.check();
}

/// An admitted client with so little room for what it gets that the server soon has to queue it.
fn deaf(address: SocketAddr) -> RawClient {
    let stream = TcpStream::connect(address).unwrap();
    socket2::SockRef::from(&stream).set_recv_buffer_size(4096).unwrap();
    // A peer that reads nothing does not learn that it was cut, either.
    stream.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut client = RawClient::over(stream);
    client.greet();
    assert_eq!(client.ask("Share", None, Rights::READ_WRITE).kind, FrameType::Opened);
    client
}
