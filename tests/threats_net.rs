//! Rows 10 to 12, 19, 26 and 27 of the threats, over real sockets: what a peer may send, how slowly, and
//! how little it may read.

#![allow(clippy::unwrap_used)]

mod harness;

use harness::breaks::trickling_relay;
use harness::guard::{Guarded, resident_bytes};
use harness::raw::{RawClient, frame, frame_declaring, push_begin};
use harness::{WorldOptions, pull_job};
use rustix::fs::inotify;
use std::fs;
use std::io::{Read, Write};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};
use syncline::model::limits::{CONTROL_FRAME_BYTES_MAX, OUTBOUND_BYTES_MAX};
use syncline::model::{CloseCode, Rights};
use syncline::node::{Client, ClientEvent, ClientOptions, Deadlines, ServerEvent, TransferOptions};
use syncline::wire::{FrameType, Hello, ListEnd, Message, features};

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

/// Counts what happens below a directory itself: openings, reads, listings, new names.
struct Watch(std::os::fd::OwnedFd);

impl Watch {
    fn over(directory: &std::path::Path) -> Watch {
        let watch = inotify::init(inotify::CreateFlags::NONBLOCK).unwrap();
        inotify::add_watch(&watch, directory, inotify::WatchFlags::ALL_EVENTS).unwrap();
        Watch(watch)
    }

    fn events(&self) -> usize {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(&self.0, &mut buffer);
        let mut count = 0;
        while reader.next().is_ok() {
            count += 1;
        }
        count
    }
}

/// Everything but a hello, then everything but an open, is refused; nothing on disk is looked at.
#[test]
fn row_19_every_message_before_authentication_is_refused_without_disk_access() {
    let mut world = Guarded::new();
    fs::write(world.share().join("file"), b"content").unwrap();
    let watch = Watch::over(&world.share());
    let payloads: [&[u8]; 3] = [&[], &[0; 8], &begin_frame()[8..]];
    for kind in FrameType::ALL {
        for payload in payloads {
            for greets in [false, true] {
                let is_expected = kind == if greets { FrameType::Open } else { FrameType::Hello };
                if is_expected || kind == FrameType::Close {
                    continue;
                }
                let fault = world.serve_while(|address| {
                    let mut client = RawClient::connect(address);
                    if greets {
                        client.greet();
                    }
                    client.send(&frame(kind, payload));
                    let fault = client.expect_close();
                    assert!(client.next().is_none(), "nothing follows the refusal of {kind:?}");
                    fault
                });
                let code = if kind == FrameType::Data {
                    CloseCode::Limit
                } else {
                    CloseCode::Protocol
                };
                assert_eq!(fault.code, code, "{kind:?} {payload:?} {greets}");
            }
        }
    }
    // Types that nobody knows, and a greeting that is none.
    for bytes in [
        frame_declaring(FrameType::Hello, 20, &[7; 20]),
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
    ] {
        let fault = world.serve_while(|address| {
            let mut client = RawClient::connect(address);
            client.send(&bytes);
            client.expect_close()
        });
        assert!(
            matches!(fault.code, CloseCode::Protocol | CloseCode::Limit),
            "{fault:?}"
        );
    }
    assert_eq!(watch.events(), 0, "the share was looked at");
    // The watch does see what an admitted peer does.
    let target = world.path("pulled");
    world
        .pull(&world.link("/file"), &target, TransferOptions::default())
        .assert_clean();
    assert!(watch.events() > 0);
    drop(watch);
    world.check();
}

/// Even a complete session that is refused at the door leaves the share alone.
#[test]
fn row_19_a_refused_open_looks_at_nothing() {
    let mut world = Guarded::new();
    let watch = Watch::over(&world.share());
    for share in ["share", "Share2", "Other"] {
        let answer = world.serve_while(|address| {
            let mut client = RawClient::connect(address);
            client.greet();
            let answer = client.ask(share, None, Rights::READ_WRITE);
            client.send(&begin_frame());
            assert!(client.next().is_none());
            answer
        });
        assert_eq!(answer.kind, FrameType::Close);
    }
    assert_eq!(watch.events(), 0);
    drop(watch);
    world.check();
}

/// Lengths and counts over the limit close that connection with a named reason.
#[test]
fn row_10_lengths_and_counts_over_the_limit_close_the_connection() {
    let mut world = Guarded::new();
    let billion = [0x80, 0x94, 0xeb, 0xdc, 0x03];
    let with_count = |kind: FrameType, head: &[u8]| frame(kind, &[head, &billion[..]].concat());
    let overflow = frame(
        FrameType::Offer,
        &[0, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1],
    );
    let before_begin = [
        with_count(FrameType::Begin, &[0, 0, 0, 0, 0]),
        with_count(FrameType::Begin, &[1, 0, 0, 0, 0, 0]),
        with_count(FrameType::Begin, &[0, 0, 0, 0, 0, 0, 0]),
        frame(FrameType::Ping, &[0; 7]),
        frame(FrameType::Ping, &[0; 9]),
    ];
    let within = [
        with_count(FrameType::Offer, &[0; 4]),
        frame(FrameType::Offer, &[255, 255, 255, 255, 1]),
        overflow,
        with_count(FrameType::Settled, &[]),
        frame(FrameType::End, &[255; 40]),
        frame(FrameType::Start, &[255; 40]),
    ];
    let cases = before_begin.iter().map(|bytes| (false, bytes));
    for (begins, bytes) in cases.chain(within.iter().map(|bytes| (true, bytes))) {
        let fault = world.serve_while(|address| {
            let mut client = RawClient::open(address);
            if begins {
                client.begin(&push_begin());
            }
            client.send(bytes);
            client.expect_close()
        });
        assert!(
            matches!(fault.code, CloseCode::Limit | CloseCode::Protocol),
            "{bytes:?}: {fault:?}"
        );
        assert!(!fault.text.is_empty());
    }
    world.check();
}

/// 500 MB in a header are refused by the header; what is declared within the limit takes no memory
/// until it arrives.
#[test]
fn row_11_declared_frames_take_no_memory() {
    let mut world = Guarded::new();
    let before = resident_bytes();
    for kind in FrameType::ALL {
        for is_open in [false, true] {
            let fault = world.serve_while(|address| {
                let mut client = if is_open {
                    RawClient::open(address)
                } else {
                    RawClient::connect(address)
                };
                client.send(&frame_declaring(kind, 500_000_000, &[0; 100]));
                client.expect_close()
            });
            assert_eq!(fault.code, CloseCode::Limit, "{kind:?} {fault:?}");
        }
    }
    let declared = u32::try_from(CONTROL_FRAME_BYTES_MAX).unwrap();
    let waiting: Vec<RawClient> = world.serve_while(|address| {
        let half = |_| {
            let mut client = RawClient::open(address);
            client.send(&frame_declaring(FrameType::Ping, declared, &[0; 100]));
            client
        };
        (0..100).map(half).collect()
    });
    let grown = resident_bytes().saturating_sub(before);
    assert!(
        grown < 8 << 20,
        "{grown} bytes for 100 frames of 1 MiB of which 100 bytes came"
    );
    drop(waiting);
    world.check();
}

/// Row 12: no frame is compressed as such, only what is in a patch (see `threats_delta`). A frame that
/// claims it, by a type or a flag that does not exist, is refused by its header alone; and of what a peer
/// says it can do, only what is known here is agreed on.
#[test]
fn row_12_frames_that_claim_compression_are_refused() {
    let mut world = Guarded::new();
    let agreed = world.serve_while(|address| {
        let mut client = RawClient::connect(address);
        let mut hello = Vec::new();
        let all = Hello {
            features: u64::MAX,
            ..harness::raw::hello("raw")
        };
        all.encode(0, &mut hello);
        client.send(&hello);
        let answer = client.next().unwrap();
        Hello::decode(&answer.payload).unwrap().features
    });
    assert_eq!(agreed, features::ALL);
    let length = u32::try_from(CONTROL_FRAME_BYTES_MAX).unwrap();
    let unknown = |kind: u8| {
        let mut header = frame_declaring(FrameType::Inline, length, &[]);
        header[4] = kind;
        header
    };
    let flagged = |kind: FrameType| {
        let mut header = frame_declaring(kind, length, &[]);
        header[5] = 1;
        header
    };
    let last = FrameType::ALL.into_iter().map(|kind| kind as u8).max().unwrap();
    let claims = [
        unknown(last + 1),
        unknown(255),
        flagged(FrameType::Inline),
        flagged(FrameType::Data),
        flagged(FrameType::Offer),
    ];
    let before = resident_bytes();
    for (number, header) in claims.into_iter().enumerate() {
        let fault = world.serve_while(|address| {
            let mut client = RawClient::open(address);
            client.begin(&push_begin());
            // The header only: whoever made room for the payload would wait for it.
            client.send(&header);
            client.expect_close()
        });
        assert_eq!(fault.code, CloseCode::Protocol, "claim {number}: {fault:?}");
    }
    let grown = resident_bytes().saturating_sub(before);
    assert!(grown < 4 << 20, "{grown} bytes");
    world.check();
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
    let texts = world.server_events.iter().filter_map(|event| match event {
        ServerEvent::Refused {
            code: CloseCode::Timeout,
            text,
            ..
        } => Some(text.clone()),
        _ => None,
    });
    texts.last().unwrap_or_default()
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
