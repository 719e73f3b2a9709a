//! Tests of the sender: what it refuses, how often it tries, and words that cross.

use super::fixtures::{
    answer_frame, begin, file_entry, frame, give, meta, number_frame, opened, path, pump, refuses, removed_frame,
    settled_frame, transferring,
};
use super::{Machine, Origin, ReadStep, Sender, Settlement};
use crate::model::limits::CHANGED_RETRIES_MAX;
use crate::model::{CloseCode, Entry, ItemCode, Kind, Rights};
use crate::wire::{
    Direction, End, EndOutcome, Finish, FrameType, SettledResult, Start, TargetKind, Verdict, control_header,
};

const PROTOCOL: CloseCode = CloseCode::Protocol;

/// A client that sends; `offered` files of 10 bytes are listed, and `wanted` of them asked for.
fn sending(offered: u32, wanted: usize) -> Machine {
    let (mut client, _) = transferring(Direction::Push);
    let sender = client.sender().unwrap();
    for number in 0..offered {
        let origin = Origin {
            source: 0,
            path: path(&number.to_string()),
        };
        sender.offer(&file_entry(&number.to_string(), 10), None, origin);
    }
    sender.flush_offers();
    if wanted > 0 {
        give(&mut client, &answer_frame(&vec![Verdict::WantNew; wanted])).unwrap();
    }
    client.take_output();
    client
}

fn source(machine: &mut Machine) -> &mut Sender {
    machine.sender().unwrap()
}

fn last_report(machine: &mut Machine) -> Option<Settlement> {
    std::iter::from_fn(|| source(machine).poll_report())
        .last()
        .map(|report| report.settlement)
}

// Sender: answers fit offers that really went out, and files only.
#[test]
fn answers_without_their_offer_are_refused() {
    let mut client = sending(0, 0);
    refuses(
        &mut client,
        &answer_frame(&[Verdict::Have]),
        PROTOCOL,
        "an answer without an offer",
    );
    let mut client = sending(0, 0);
    let origin = Origin {
        source: 0,
        path: path("kept back"),
    };
    source(&mut client).offer(&file_entry("kept back", 1), None, origin.clone());
    refuses(
        &mut client,
        &answer_frame(&[Verdict::Have]),
        PROTOCOL,
        "an answer before its offer",
    );
    let mut client = sending(0, 0);
    let directory = Entry {
        kind: Kind::Directory,
        ..file_entry("d", 0)
    };
    source(&mut client).offer(&directory, None, origin);
    source(&mut client).flush_offers();
    refuses(&mut client, &answer_frame(&[Verdict::WantNew]), PROTOCOL, "not a file");
    let runs = |payload: &[u8]| [&control_header(FrameType::Answer, 1, payload.len())[..], payload].concat();
    for (payload, code) in [
        (&[1, 0, 0][..], PROTOCOL),
        (&[1, 0, 0x81, 0x20], CloseCode::Limit),
        (&[0x81, 0x20], CloseCode::Limit),
        (&[2, 0, 1], PROTOCOL),
        (&[1, 6, 1], PROTOCOL),
        (&[1, 0x80, 1], PROTOCOL),
        (&[1, 0, 1, 0], PROTOCOL),
    ] {
        let fault = give(&mut sending(1, 0), &runs(payload)).unwrap_err();
        assert_eq!(fault.code, code, "{payload:?}: {fault}");
    }
}

// Sender: a result comes after the end of a file that was wanted, and once.
#[test]
fn results_out_of_place_are_refused() {
    let committed = |file| settled_frame(file, SettledResult::Committed);
    let resend = settled_frame(0, SettledResult::Resend);
    let mut client = sending(2, 1);
    for file in [1, 2, u32::MAX] {
        refuses(&mut client, &committed(file), PROTOCOL, "an unknown file");
        let failed = settled_frame(file, SettledResult::Failed(ItemCode::Io));
        refuses(&mut client, &failed, PROTOCOL, "an unknown file");
    }
    refuses(&mut client, &committed(0), PROTOCOL, "before its end");
    refuses(&mut client, &resend, PROTOCOL, "before its end");
    source(&mut client).start(10, false, &meta());
    refuses(&mut client, &committed(0), PROTOCOL, "before its end");
    refuses(&mut client, &resend, PROTOCOL, "before its end");
    source(&mut client).end(EndOutcome::Failed(ItemCode::Io));
    refuses(&mut client, &committed(0), PROTOCOL, "before its end");

    let mut client = sending(1, 1);
    source(&mut client).inline(&meta(), [0; 32], b"0123456789");
    give(&mut client, &committed(0)).unwrap();
    assert_eq!(last_report(&mut client), Some(Settlement::Committed(Verdict::WantNew)));
    refuses(&mut client, &committed(0), PROTOCOL, "an unknown file");
}

// Sender: the end of the transfer and deletions come when nothing is open.
#[test]
fn conclusions_with_open_files_are_refused() {
    let finish = frame(&Finish::Done { deleted: u64::MAX });
    let mut client = sending(1, 0);
    refuses(&mut client, &finish, PROTOCOL, "a finish with open files");
    refuses(&mut client, &removed_frame("p"), PROTOCOL, "before the end of the list");
    source(&mut client).list_end(true, None);
    refuses(&mut client, &finish, PROTOCOL, "a finish with open files");
    give(&mut client, &answer_frame(&[Verdict::WantNew])).unwrap();
    refuses(&mut client, &finish, PROTOCOL, "a finish with open files");
    give(&mut client, &settled_frame(0, SettledResult::Failed(ItemCode::Io))).unwrap();
    let removed = removed_frame("p");
    give(&mut client, &removed).unwrap();
    let payload = [&control_header(FrameType::Removed, 1, 4)[..], &[1, 2, b'.', b'.']].concat();
    refuses(&mut client, &payload, PROTOCOL, "an illegal path");
    give(&mut client, &finish).unwrap();
}

// Sender: whatever state a file is in when the receiver gives it up, the sender has a last word, and
// reports the file once.
#[test]
fn a_file_that_the_receiver_gives_up_gets_a_last_word() {
    let gave_up = settled_frame(0, SettledResult::Failed(ItemCode::DiskFull));
    let outcome = EndOutcome::Failed(ItemCode::DiskFull);
    let word = frame(&End { file: 0, outcome });
    let mut queued = sending(1, 1);
    give(&mut queued, &gave_up).unwrap();
    assert_eq!(queued.take_output(), word);
    assert_eq!(source(&mut queued).next_read(), None);
    assert_eq!(last_report(&mut queued), Some(Settlement::Failed(ItemCode::DiskFull)));

    let mut started = sending(1, 1);
    source(&mut started).start(10, false, &meta());
    started.take_output();
    give(&mut started, &gave_up).unwrap();
    assert_eq!(started.take_output(), word);
    assert_eq!(source(&mut started).current_file(), None);

    let mut ended = sending(1, 1);
    source(&mut ended).inline(&meta(), [0; 32], b"0123456789");
    ended.take_output();
    give(&mut ended, &gave_up).unwrap();
    assert!(ended.take_output().is_empty(), "the inline file was the last word");

    let mut crossed = sending(1, 1);
    source(&mut crossed).fail(ItemCode::Vanished);
    assert_eq!(last_report(&mut crossed), Some(Settlement::Failed(ItemCode::Vanished)));
    give(&mut crossed, &gave_up).unwrap();
    assert_eq!(last_report(&mut crossed), None, "reported once");
    refuses(&mut crossed, &gave_up, PROTOCOL, "an unknown file");
}

// Sender: a file that keeps changing, or keeps arriving damaged, is given up after some attempts.
#[test]
fn retries_are_bounded() {
    let resend = settled_frame(0, SettledResult::Resend);
    for damaged in [false, true] {
        let mut client = sending(1, 1);
        give(&mut client, &number_frame(FrameType::Credit, 1, 1000)).unwrap();
        for attempt in 0..=CHANGED_RETRIES_MAX {
            let step = source(&mut client).next_read();
            assert!(
                matches!(step, Some(ReadStep::Open { file: 0, .. })),
                "attempt {attempt}"
            );
            if damaged {
                source(&mut client).inline(&meta(), [0; 32], b"0123456789");
                give(&mut client, &resend).unwrap();
            } else {
                source(&mut client).start(10, false, &meta());
                source(&mut client).end(EndOutcome::Changed);
            }
        }
        let code = if damaged {
            ItemCode::Mismatch
        } else {
            ItemCode::Changing
        };
        assert_eq!(source(&mut client).next_read(), None);
        assert_eq!(last_report(&mut client), Some(Settlement::Failed(code)));
    }
}

// Row 10: credit up to the largest number adds up without an overflow.
#[test]
fn row_10_credit_of_the_largest_number_saturates() {
    let mut client = sending(1, 1);
    for _ in 0..2 {
        give(&mut client, &number_frame(FrameType::Credit, 1, u64::MAX)).unwrap();
    }
    source(&mut client).start(u64::MAX >> 1, false, &meta());
    let Some(ReadStep::Content { credit, .. }) = source(&mut client).next_read() else {
        panic!("content is due");
    };
    assert_eq!(credit, u64::MAX);
}

// A dry run asks and answers like a real one, and moves nothing.
#[test]
fn a_dry_run_wants_without_content() {
    let (mut client, mut server) = opened(Rights::READ_WRITE);
    let mut begin = begin(Direction::Push);
    begin.flags.dry_run = true;
    client.begin(&begin);
    pump(&mut client, &mut server, |server, _| {
        server.ready(TargetKind::Directory);
    });
    pump(&mut server, &mut client, |_, _| {});
    let origin = Origin {
        source: 0,
        path: path("f"),
    };
    source(&mut client).offer(&file_entry("f", 1), None, origin);
    source(&mut client).list_end(true, None);
    pump(&mut client, &mut server, |_, _| {});
    server.receiver().unwrap().answer(Verdict::WantNew);
    assert!(server.receiver().unwrap().is_complete());
    let early = Start {
        file: 0,
        size: 1,
        sparse: false,
        meta: meta(),
    };
    refuses(&mut server, &frame(&early), PROTOCOL, "not wanted");
    pump(&mut server, &mut client, |_, _| {});
    assert_eq!(source(&mut client).next_read(), None);
    assert_eq!(last_report(&mut client), Some(Settlement::Wanted(Verdict::WantNew)));
}
