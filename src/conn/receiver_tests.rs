//! Tests of the receiver: what it refuses, what it grants, and words that cross.

use super::fixtures::{
    begin, data_frame, file_entry, frame, give, meta, number_frame, offer_frame, open, refuses, settled_frame,
    transferring,
};
use super::{Machine, Receiver};
use crate::model::limits::{CREDIT_WINDOW_BYTES, OFFER_WINDOW, OFFER_WINDOW_BYTES};
use crate::model::{CloseCode, Entry, ItemCode, Rights};
use crate::wire::{
    Direction, End, EndOutcome, FrameType, Hello, Hole, Inline, ListEnd, Message, Opened, SettledResult, SourceFailed,
    Start, TargetKind, Verdict, control_header,
};

const PROTOCOL: CloseCode = CloseCode::Protocol;

fn start(file: u32, size: u64) -> Vec<u8> {
    frame(&start_of(file, size))
}

fn start_of(file: u32, size: u64) -> Start {
    Start {
        file,
        size,
        sparse: true,
        meta: meta(),
    }
}

fn end(file: u32, outcome: EndOutcome) -> Vec<u8> {
    frame(&End { file, outcome })
}

fn inline(file: u32, bytes: &[u8]) -> Vec<u8> {
    frame(&Inline {
        file,
        meta: meta(),
        root: [0; 32],
        bytes,
    })
}

fn list_end(entries: u32) -> Vec<u8> {
    frame(&ListEnd {
        entries,
        complete: true,
        top: None,
    })
}

/// A server that receives and wants `count` files of `size` bytes.
fn receiving(count: u32, size: u64) -> Machine {
    let (_, mut server) = transferring(Direction::Push);
    let entries: Vec<Entry> = (0..count).map(|n| file_entry(&n.to_string(), size)).collect();
    give(&mut server, &offer_frame(0, &entries)).unwrap();
    while half(&mut server).answer(Verdict::WantNew).is_some() {}
    server.take_output();
    server
}

fn half(machine: &mut Machine) -> &mut Receiver {
    machine.receiver().unwrap()
}

// Receiver: the list is taken in order, once, and only so much of it at a time.
#[test]
fn lists_out_of_order_or_over_the_window_are_refused() {
    let mut server = receiving(2, 1);
    refuses(
        &mut server,
        &offer_frame(1, &[file_entry("x", 1)]),
        PROTOCOL,
        "an offer out of order",
    );
    refuses(
        &mut server,
        &offer_frame(u32::MAX, &[file_entry("x", 1)]),
        PROTOCOL,
        "an offer out of order",
    );
    refuses(&mut server, &list_end(1), PROTOCOL, "the wrong place");
    refuses(&mut server, &list_end(u32::MAX), PROTOCOL, "the wrong place");
    give(&mut server, &list_end(2)).unwrap();
    refuses(&mut server, &list_end(2), PROTOCOL, "the wrong place");
    refuses(
        &mut server,
        &offer_frame(2, &[file_entry("x", 1)]),
        PROTOCOL,
        "an offer out of order",
    );
    let failed = frame(&SourceFailed {
        path: b"p",
        code: ItemCode::Io,
    });
    refuses(&mut server, &failed, PROTOCOL, "after its end");

    let mut server = receiving(OFFER_WINDOW as u32, 1);
    let one_more = offer_frame(OFFER_WINDOW as u32, &[file_entry("x", 1)]);
    refuses(&mut server, &one_more, CloseCode::Limit, "too many entries");
}

// Row 11: an offer that declares more entries than it may, or than it holds.
#[test]
fn row_11_an_offer_of_a_thousand_million_entries_is_refused() {
    let (_, mut server) = transferring(Direction::Push);
    let offer = |count: &[u8]| {
        let payload = [&[0; 4], count].concat();
        [&control_header(FrameType::Offer, 1, payload.len())[..], &payload].concat()
    };
    let thousand_million = offer(&[0x80, 0x94, 0xeb, 0xdc, 0x03]);
    refuses(&mut server, &thousand_million, CloseCode::Limit, "number of entries");
    refuses(&mut server, &offer(&[0xff; 10]), PROTOCOL, "number");
    refuses(&mut server, &offer(&[0x80, 0x20]), PROTOCOL, "ends too early");
}

// Row 11: a few bytes on the wire stand for a long path; what is open stays bounded all the same.
#[test]
fn row_11_long_paths_that_share_their_prefix_meet_a_limit() {
    let (_, mut server) = transferring(Direction::Push);
    let directory = vec!["x".repeat(250); 16].join("/");
    let mut first = 0;
    let refused = loop {
        let entry = |number: u32| file_entry(&format!("{directory}/{number}"), 1);
        let frame = offer_frame(first, &[entry(first), entry(first + 1), entry(first + 2)]);
        first += 3;
        if let Err(fault) = give(&mut server, &frame) {
            break fault;
        }
    };
    assert_eq!(refused.code, CloseCode::Limit);
    let open = (first as usize - 3) * directory.len();
    assert!(open <= OFFER_WINDOW_BYTES && open > OFFER_WINDOW_BYTES / 2, "{open}");
}

// Receiver: only what was wanted is taken, and only once. Row 10: also for file number -1.
#[test]
fn content_that_is_not_wanted_is_refused() {
    let mut server = receiving(2, 4);
    let other = 2;
    for file in [other, u32::MAX] {
        refuses(
            &mut server,
            &start(file, 4),
            PROTOCOL,
            "a start of a file that is not wanted",
        );
        refuses(&mut server, &inline(file, b"x"), PROTOCOL, "a file that is not wanted");
        refuses(
            &mut server,
            &data_frame(file, b"x"),
            PROTOCOL,
            "a file that is not started",
        );
        let hole = frame(&Hole { file, length: 1 });
        refuses(&mut server, &hole, PROTOCOL, "a hole in a file that is not started");
        for outcome in [
            EndOutcome::Changed,
            EndOutcome::Failed(ItemCode::Io),
            EndOutcome::Complete([0; 32]),
        ] {
            refuses(
                &mut server,
                &end(file, outcome),
                PROTOCOL,
                "an end of a file that is not started",
            );
        }
    }
    give(&mut server, &start(0, 4)).unwrap();
    refuses(
        &mut server,
        &start(1, 4),
        PROTOCOL,
        "a start of a file that is not wanted now",
    );
    refuses(&mut server, &inline(0, b"x"), PROTOCOL, "a file that is not wanted now");
    refuses(
        &mut server,
        &data_frame(1, b"x"),
        PROTOCOL,
        "a file that is not started",
    );
    give(&mut server, &inline(1, b"x")).unwrap();
    refuses(&mut server, &inline(1, b"x"), PROTOCOL, "a file that is not wanted now");
    let failed = end(1, EndOutcome::Failed(ItemCode::Io));
    refuses(&mut server, &failed, PROTOCOL, "an end of a file that is not started");
}

// Receiver: never more than announced or credited, never less than announced.
#[test]
fn content_that_does_not_fit_its_announcement_or_the_credit_is_refused() {
    let mut server = receiving(1, 4);
    give(&mut server, &start(0, 4)).unwrap();
    refuses(
        &mut server,
        &data_frame(0, b"12345"),
        CloseCode::Limit,
        "than announced",
    );
    let hole = |length| frame(&Hole { file: 0, length });
    refuses(&mut server, &hole(5), CloseCode::Limit, "than announced");
    refuses(&mut server, &hole(0), PROTOCOL, "hole");
    refuses(&mut server, &hole(u64::MAX), CloseCode::Limit, "file size");
    give(&mut server, &data_frame(0, b"123")).unwrap();
    refuses(&mut server, &hole(2), CloseCode::Limit, "than announced");

    let mut server = receiving(1, 4);
    let full = Start {
        sparse: false,
        ..start_of(0, 4)
    };
    give(&mut server, &frame(&full)).unwrap();
    refuses(&mut server, &hole(1), PROTOCOL, "announced without");

    let mut server = receiving(1, 4);
    give(&mut server, &start(0, 4)).unwrap();
    let early = end(0, EndOutcome::Complete([0; 32]));
    refuses(&mut server, &early, PROTOCOL, "before its announced size");

    let mut server = receiving(2, 4);
    give(&mut server, &start(0, u64::MAX >> 1)).unwrap();
    let part = vec![0; 1 << 20];
    for _ in 0..CREDIT_WINDOW_BYTES >> 20 {
        give(&mut server, &data_frame(0, &part)).unwrap();
    }
    refuses(&mut server, &data_frame(0, b"x"), CloseCode::Limit, "than credit");
    refuses(&mut server, &inline(1, b"x"), CloseCode::Limit, "than credit");
    refuses(&mut server, &start(1, u64::MAX), CloseCode::Limit, "file size");
}

// Receiver: new credit is given for what is dealt with, in a few frames, and makes room again.
#[test]
fn credit_follows_what_was_dealt_with() {
    let mut server = receiving(1, 4);
    give(&mut server, &start(0, u64::MAX >> 1)).unwrap();
    give(&mut server, &data_frame(0, &vec![0; 1 << 20])).unwrap();
    half(&mut server).consumed(1 << 20);
    assert!(server.take_output().is_empty(), "not for every piece");
    half(&mut server).consumed(CREDIT_WINDOW_BYTES);
    let credit = number_frame(FrameType::Credit, 1, CREDIT_WINDOW_BYTES + (1 << 20));
    assert_eq!(server.take_output(), credit);
}

// Receiver: a file that it gave up may still be on its way, in every form; that is no fault, costs no
// credit for ever, and the transfer does not end before the sender's last word on it.
#[test]
fn what_is_on_its_way_when_the_receiver_gives_up_is_dropped() {
    let failed = SettledResult::Failed(ItemCode::DiskFull);
    let last_words = [
        vec![
            start(0, 4),
            data_frame(0, b"1234"),
            end(0, EndOutcome::Complete([0; 32])),
        ],
        vec![start(0, 4), end(0, EndOutcome::Changed), inline(0, b"x")],
        vec![
            start(0, 4),
            frame(&Hole { file: 0, length: 4 }),
            end(0, EndOutcome::Failed(ItemCode::Io)),
        ],
        vec![end(0, EndOutcome::Failed(ItemCode::DiskFull))],
    ];
    for frames in last_words {
        let mut server = receiving(1, 4);
        give(&mut server, &list_end(1)).unwrap();
        half(&mut server).settle(0, failed);
        half(&mut server).settle(0, failed);
        assert_eq!(server.take_output(), settled_frame(0, failed), "said once");
        for frame in &frames {
            assert!(!half(&mut server).is_complete());
            assert_eq!(give(&mut server, frame), Ok("Nothing".to_owned()));
        }
        assert!(half(&mut server).is_complete());
        assert!(server.take_output().is_empty());
    }
}

// Receiver: a file that the sender gives up is confirmed, so that both sides count alike.
#[test]
fn a_file_that_the_sender_gives_up_is_confirmed() {
    let mut server = receiving(1, 4);
    give(&mut server, &list_end(1)).unwrap();
    let event = give(&mut server, &end(0, EndOutcome::Failed(ItemCode::Vanished))).unwrap();
    assert!(event.starts_with("End"));
    assert!(half(&mut server).is_complete());
    let failed = SettledResult::Failed(ItemCode::Vanished);
    assert_eq!(server.take_output(), settled_frame(0, failed));
}

// A hole is refused where the hellos did not agree on holes.
#[test]
fn a_hole_that_was_not_negotiated_is_refused() {
    let mut server = Machine::server("s");
    let mut bytes = Vec::new();
    Hello {
        version_min: 1,
        version_max: 1,
        features: 0,
        name: "",
    }
    .encode(0, &mut bytes);
    give(&mut server, &bytes).unwrap();
    bytes.clear();
    open().encode(0, &mut bytes);
    give(&mut server, &bytes).unwrap();
    server.grant(Opened {
        rights: Rights::READ_WRITE,
        paired: false,
    });
    give(&mut server, &frame(&begin(Direction::Push))).unwrap();
    server.ready(TargetKind::Directory);
    give(&mut server, &offer_frame(0, &[file_entry("f", 4)])).unwrap();
    half(&mut server).answer(Verdict::WantNew);
    give(&mut server, &start(0, 4)).unwrap();
    refuses(
        &mut server,
        &frame(&Hole { file: 0, length: 4 }),
        PROTOCOL,
        "not negotiated",
    );
}
