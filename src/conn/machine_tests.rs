//! Tests of the session: what each state refuses, what limits hold, what floods cost.

use super::fixtures::{
    begin, file_entry, frame, frames, give, meta, number_frame, offer_frame, on_stream, open, opened, refuses,
    transferring,
};
use super::{Event, Machine};
use crate::model::limits::{BULK_FRAME_BYTES_MAX, CONTROL_FRAME_BYTES_MAX, PREAUTH_FRAME_BYTES_MAX};
use crate::model::{CloseCode, Fault, Rights};
use crate::wire::{
    ComeBack, Decoder, Direction, FRAME_HEADER_BYTES, FrameType, Hello, Message, Opened, Piece, Queued, Start,
    TargetKind, VERSION_MAX, Verdict, WireError, control_header, data_header, features,
};

/// Machines in every state before a share is open, with the one message that each waits for.
fn unopened() -> Vec<(&'static str, Machine, Option<FrameType>)> {
    let (hello, asks) = (&frames()[0].1, &frames()[1].1);
    let mut greeted = Machine::server("s");
    give(&mut greeted, hello).unwrap();
    let mut asked = Machine::server("s");
    give(&mut asked, hello).unwrap();
    give(&mut asked, asks).unwrap();
    let mut asking = Machine::client("c", open());
    give(&mut asking, hello).unwrap();
    vec![
        ("a server, connected", Machine::server("s"), Some(FrameType::Hello)),
        ("a server, greeted", greeted, Some(FrameType::Open)),
        ("a server, asked", asked, None),
        (
            "a client, connected",
            Machine::client("c", open()),
            Some(FrameType::Hello),
        ),
        ("a client, asking", asking, Some(FrameType::Opened)),
    ]
}

// Row 19: before a share is open, every message but the one that is due is refused, and the outside
// is asked nothing.
#[test]
fn row_19_every_message_in_every_state_before_authentication_is_refused() {
    let frames = frames();
    assert_eq!(frames.iter().map(|(kind, _)| *kind).collect::<Vec<_>>(), FrameType::ALL);
    for state in 0..unopened().len() {
        for (kind, frame) in &frames {
            let (name, mut machine, due) = unopened().swap_remove(state);
            let result = give(&mut machine, frame);
            if *kind == FrameType::Close {
                assert!(result.unwrap().starts_with("Closed"), "{name}");
            } else if Some(*kind) == due {
                let event = result.unwrap();
                let asked = event.starts_with("Open");
                assert_eq!(asked, *kind != FrameType::Hello, "{name}: {event}");
            } else {
                let fault = result.expect_err(name);
                assert_eq!(fault.code, CloseCode::Protocol, "{name}: {kind:?}");
                assert!(!machine.is_open(), "{name}: {kind:?}");
            }
            assert!(machine.sender().is_none() && machine.receiver().is_none());
        }
    }
}

// Row 19: bulk frames and large control frames do not even get past the decoder.
#[test]
fn row_19_large_frames_before_authentication_are_refused_at_their_header() {
    let over = |bytes: &[u8]| Decoder::new(PREAUTH_FRAME_BYTES_MAX).next(&mut &bytes[..]).unwrap_err();
    assert_eq!(over(&data_header(1, 0, 1)), WireError::OverLimit("frame"));
    let header = control_header(FrameType::Hello, 0, PREAUTH_FRAME_BYTES_MAX + 1);
    assert_eq!(over(&header), WireError::OverLimit("frame"));
}

// Row 11: a declared length costs nothing until its bytes arrive, and over the limit never does.
#[test]
fn row_11_a_declared_frame_of_500_mb_is_refused_before_memory_is_taken() {
    for kind in FrameType::ALL {
        let mut decoder = Decoder::new(PREAUTH_FRAME_BYTES_MAX);
        decoder.lift_limits();
        let mut header = control_header(kind, u16::from(kind.is_transfer()), 0);
        header[..4].copy_from_slice(&500_000_000u32.to_le_bytes());
        assert_eq!(
            decoder.next(&mut &header[..]),
            Err(WireError::OverLimit("frame")),
            "{kind:?}"
        );
        assert_eq!(decoder.held_bytes(), 0);
    }
}

// Row 15: no message moves a limit; only the opened share lifts the first ones, to fixed values.
#[test]
fn row_15_limits_cannot_be_altered_by_messages() {
    let greedy = Hello {
        version_min: 0,
        version_max: u16::MAX,
        features: u64::MAX,
        name: "x",
    };
    let mut server = Machine::server("s");
    let mut decoder = Decoder::new(PREAUTH_FRAME_BYTES_MAX);
    let hello = on_stream(0, &greedy);
    let piece = decoder.next(&mut &hello[..]).unwrap().unwrap();
    server.handle(piece).unwrap();
    assert_eq!(server.features(), features::ALL, "unknown features are ignored");
    let header = control_header(FrameType::Open, 0, PREAUTH_FRAME_BYTES_MAX + 1);
    assert!(decoder.next(&mut &header[..]).is_err());

    let (_, mut server) = transferring(Direction::Pull);
    for _ in 0..3 {
        give(&mut server, &number_frame(FrameType::Credit, 1, u64::MAX)).unwrap();
    }
    let mut decoder = Decoder::new(PREAUTH_FRAME_BYTES_MAX);
    decoder.lift_limits();
    let mut header = control_header(FrameType::Answer, 1, 0);
    header[..4].copy_from_slice(&(CONTROL_FRAME_BYTES_MAX as u32 + 1).to_le_bytes());
    assert!(decoder.next(&mut &header[..]).is_err());
    let mut header = data_header(1, 0, 0);
    header[..4].copy_from_slice(&(BULK_FRAME_BYTES_MAX as u32 + 1).to_le_bytes());
    assert!(decoder.next(&mut &header[..]).is_err());
}

// Row 27: a flood of questions gets one answer at a time, so that answers cannot pile up.
#[test]
fn a_flood_of_pings_and_queries_yields_one_answer() {
    let (_, mut server) = opened(Rights::READ);
    let query = control_header(FrameType::StatusQuery, 0, 0);
    let mut queries = 0;
    for number in 0..1000 {
        give(&mut server, &number_frame(FrameType::Ping, 0, number)).unwrap();
        if give(&mut server, &query).unwrap() == "StatusQuery" {
            queries += 1;
            server.status_reply(b"{}");
        }
    }
    assert_eq!(queries, 1);
    let reply = [&control_header(FrameType::StatusReply, 0, 2)[..], b"{}"].concat();
    assert_eq!(
        server.take_output(),
        [reply, number_frame(FrameType::Pong, 0, 999)].concat()
    );
    assert!(server.take_output().is_empty());
    assert_eq!(give(&mut server, &query).unwrap(), "StatusQuery");
}

// Row 10: fields of zero, of the maximum and beyond, and trailing bytes are named errors.
#[test]
fn row_10_odd_payloads_of_session_messages_are_refused() {
    let (mut client, mut server) = opened(Rights::READ_WRITE);
    let with = |kind, payload: &[u8]| [&control_header(kind, 0, payload.len())[..], payload].concat();
    for payload in [&[][..], &[0; 7], &[0; 9]] {
        refuses(
            &mut server,
            &with(FrameType::Ping, payload),
            CloseCode::Protocol,
            "a message",
        );
    }
    let trailing = with(FrameType::StatusQuery, b"x");
    refuses(
        &mut server,
        &trailing,
        CloseCode::Protocol,
        "bytes after the end of a message",
    );
    let unknown = with(FrameType::Close, &[0xff, 0xff, 0]);
    refuses(&mut client, &unknown, CloseCode::Protocol, "close code");
    let huge_text = with(
        FrameType::Close,
        &[0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1],
    );
    refuses(&mut server, &huge_text, CloseCode::Limit, "text");
    assert!(server.is_closed());
}

// The client and the server each have their messages; the other one's are refused.
#[test]
fn messages_of_the_other_role_or_of_another_state_are_refused() {
    let frames = frames();
    let of = |kind: FrameType| &frames.iter().find(|(own, _)| *own == kind).unwrap().1;
    let (mut client, mut server) = opened(Rights::READ_WRITE);
    let code = CloseCode::Protocol;
    refuses(&mut client, of(FrameType::StatusQuery), code, "the other role");
    refuses(&mut server, of(FrameType::StatusReply), code, "the other role");
    refuses(&mut client, of(FrameType::Begin), code, "a transfer out of place");
    refuses(&mut server, of(FrameType::Ready), code, "an unexpected ready");
    refuses(&mut client, of(FrameType::Ready), code, "an unexpected ready");
    refuses(&mut server, of(FrameType::Hello), code, "a second hello");
    refuses(&mut client, of(FrameType::Hello), code, "a second hello");
    refuses(&mut server, of(FrameType::Open), code, "an open out of place");
    refuses(&mut client, of(FrameType::Open), code, "an open out of place");
    refuses(&mut server, of(FrameType::Opened), code, "an unexpected grant");
    refuses(&mut client, of(FrameType::Opened), code, "an unexpected grant");
    for kind in FrameType::ALL
        .into_iter()
        .filter(|kind| *kind as u8 > FrameType::Ready as u8)
    {
        refuses(&mut server, of(kind), code, "out of place");
        refuses(&mut client, of(kind), code, "out of place");
    }
    let (mut client, mut server) = transferring(Direction::Push);
    refuses(&mut server, of(FrameType::Begin), code, "a transfer out of place");
    refuses(&mut server, of(FrameType::Answer), code, "for a sender out of place");
    refuses(&mut client, of(FrameType::Offer), code, "for a receiver out of place");
}

// A line only informs: the client hears its place, goes on waiting, and is ready as ever; a machine of the
// other role, or one that has begun nothing, takes no such word.
#[test]
fn a_transfer_that_waits_hears_its_place_and_then_begins() {
    let (mut client, mut server) = opened(Rights::READ_WRITE);
    let queued = Queued {
        position: 3,
        estimate_ms: 1500,
    };
    let word = on_stream(1, &queued);
    refuses(&mut client, &word, CloseCode::Protocol, "about waiting out of place");
    let (mut client, mut quick) = opened(Rights::READ_WRITE);
    refuses(&mut quick, &word, CloseCode::Protocol, "about waiting out of place");
    give(&mut server, &on_stream(1, &begin(Direction::Push))).unwrap();
    client.begin(&begin(Direction::Push));
    let _ = client.take_output();
    server.queued(queued);
    server.come_back(250);
    let said = server.take_output();
    assert_eq!(said, [word, on_stream(0, &ComeBack { after_ms: 250 })].concat());
    assert!(give(&mut client, &said).unwrap().contains("position: 3"));
    assert!(client.sender().is_none());
    server.ready(TargetKind::Directory);
    give(&mut client, &server.take_output()).unwrap();
    assert!(client.sender().is_some() && server.receiver().is_some());
}

// A client of an earlier build waits in silence.
#[test]
fn who_does_not_know_of_lines_is_told_nothing() {
    let mut client = Machine::client_with("c", open(), features::ALL & !features::WAITING);
    let mut server = Machine::server("s");
    give(&mut server, &client.take_output()).unwrap();
    give(&mut client, &server.take_output()).unwrap();
    give(&mut server, &client.take_output()).unwrap();
    let (rights, paired) = (Rights::READ_WRITE, false);
    server.grant(Opened { rights, paired });
    give(&mut server, &on_stream(1, &begin(Direction::Push))).unwrap();
    let _ = server.take_output();
    server.queued(Queued {
        position: 1,
        estimate_ms: 0,
    });
    server.come_back(1);
    assert!(server.take_output().is_empty());
}

// A transfer has one stream; every other number is refused, also for its begin and ready.
#[test]
fn other_streams_are_refused() {
    let (mut client, mut server) = opened(Rights::READ_WRITE);
    let on_7 = on_stream(7, &begin(Direction::Push));
    refuses(&mut server, &on_7, CloseCode::Protocol, "an unknown stream");
    client.begin(&begin(Direction::Push));
    let ready = on_stream(7, &TargetKind::Absent);
    refuses(&mut client, &ready, CloseCode::Protocol, "an unexpected ready");
    let (_, mut server) = transferring(Direction::Push);
    let credit = number_frame(FrameType::Credit, 2, 1);
    refuses(&mut server, &credit, CloseCode::Protocol, "an unknown stream");
    let data = [&data_header(2, 0, 1)[..], b"x"].concat();
    refuses(&mut server, &data, CloseCode::Protocol, "an unknown stream");
}

// A transfer needs its right, whatever the client believes to have.
#[test]
fn a_transfer_without_its_right_is_forbidden() {
    for (rights, direction) in [(Rights::READ, Direction::Push), (Rights::NONE, Direction::Pull)] {
        let (_, mut server) = opened(rights);
        refuses(
            &mut server,
            &frame(&begin(direction)),
            CloseCode::Forbidden,
            "this share",
        );
        assert!(!server.is_transferring());
    }
}

// Versions: both sides settle on one that both speak, or say which they speak.
#[test]
fn hellos_settle_on_a_version_or_say_why_not() {
    let hello = |version_min, version_max| {
        on_stream(
            0,
            &Hello {
                version_min,
                version_max,
                features: 0,
                name: "x",
            },
        )
    };
    let newer = hello(VERSION_MAX + 1, VERSION_MAX + 5);
    refuses(&mut Machine::server("s"), &newer, CloseCode::Version, "protocol 1 to 1");
    refuses(
        &mut Machine::server("s"),
        &hello(0, 0),
        CloseCode::Version,
        "the other 0 to 0",
    );
    refuses(
        &mut Machine::server("s"),
        &hello(5, 1),
        CloseCode::Version,
        "the other 5 to 1",
    );
    let mut client = Machine::client("c", open());
    refuses(&mut client, &hello(1, 2), CloseCode::Protocol, "chooses no version");
    let mut server = Machine::server("s");
    give(&mut server, &hello(1, 9)).unwrap();
    let mut answer = Vec::new();
    let chosen = Hello {
        version_min: 1,
        version_max: 1,
        features: 0,
        name: "s",
    };
    chosen.encode(0, &mut answer);
    assert_eq!(server.take_output(), answer);
    assert_eq!(server.peer_name(), "x");
}

// What a client does not offer is not agreed on, whatever the server can do or claims.
#[test]
fn only_what_was_offered_is_agreed_on() {
    let offered = features::ALL & !features::DELTA;
    let (mut client, mut server) = (Machine::client_with("c", open(), offered), Machine::server("s"));
    give(&mut server, &client.take_output()).unwrap();
    assert_eq!(server.features(), offered);
    let claims = Hello {
        version_min: 1,
        version_max: 1,
        features: u64::MAX,
        name: "s",
    };
    give(&mut client, &on_stream(0, &claims)).unwrap();
    assert_eq!(client.features(), offered);
}

// A later version may append fields to a hello; this one reads on.
#[test]
fn fields_that_a_later_hello_appends_are_skipped() {
    let hello = Hello {
        version_min: 1,
        version_max: 3,
        features: 0,
        name: "x",
    };
    let mut bytes = on_stream(0, &hello);
    bytes.extend_from_slice(b"more");
    bytes[0] += 4;
    assert_eq!(give(&mut Machine::server("s"), &bytes), Ok("Nothing".to_owned()));
}

// After a close nothing is heard any more, and what waited goes out before it.
#[test]
fn a_close_is_the_last_word_of_a_side() {
    let (_, mut server) = transferring(Direction::Push);
    give(&mut server, &number_frame(FrameType::Ping, 0, 7)).unwrap();
    let fault = Fault::new(CloseCode::Stopping, "é".repeat(600));
    server.close(&fault);
    let bytes = server.take_output();
    let pong = number_frame(FrameType::Pong, 0, 7);
    assert_eq!(bytes[..pong.len()], pong);
    let close = &bytes[pong.len()..];
    let Ok(Fault {
        code: CloseCode::Stopping,
        text,
    }) = Fault::decode(&close[FRAME_HEADER_BYTES..])
    else {
        panic!("a close");
    };
    assert_eq!(text, "é".repeat(256), "cut at a character");
    for (_, frame) in frames() {
        assert_eq!(give(&mut server, &frame), Ok("Nothing".to_owned()));
    }
    assert!(server.take_output().is_empty());
}

// A piece of a data frame reaches the receiver as it comes, without waiting for the rest.
#[test]
fn data_pieces_pass_through() {
    let (_, mut server) = transferring(Direction::Push);
    give(&mut server, &offer_frame(0, &[file_entry("f", 4)])).unwrap();
    server.receiver().unwrap().answer(Verdict::WantNew);
    give(
        &mut server,
        &frame(&Start {
            file: 0,
            size: 4,
            sparse: false,
            meta: meta(),
        }),
    )
    .unwrap();
    let piece = Piece::Data {
        stream: 1,
        file: 0,
        bytes: b"ab",
    };
    assert_eq!(server.handle(piece), Ok(Event::Content { file: 0, bytes: b"ab" }));
}
