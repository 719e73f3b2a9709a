//! Rows 10 to 12 and 19 of the threats, over real sockets: what a peer may send, and when.

#![allow(clippy::unwrap_used)]

mod harness;

use harness::guard::{Guarded, resident_bytes};
use harness::raw::{RawClient, frame, frame_declaring, push_begin};
use rustix::fs::inotify;
use std::fs;
use std::mem::MaybeUninit;
use syncline::model::limits::CONTROL_FRAME_BYTES_MAX;
use syncline::model::{CloseCode, Rights};
use syncline::node::TransferOptions;
use syncline::wire::{FrameType, Hello, Message, features};

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
