//! Tests of deltas at both ends: which questions, answers and patches are refused, and words that cross.

use super::fixtures::{
    answer_frame, begin, file_entry, frame, frames, give, meta, number_frame, offer_frame, on_stream, open, path, pump,
    refuses, settled_frame, transferring,
};
use super::{Asked, Event, Machine, Origin, ReadStep, Receiver, Sender, Settlement};
use crate::model::limits::{ASKED_MAX, QUESTIONS_MAX, TELL_BYTES_MAX, plan_bytes_max};
use crate::model::{CloseCode, ContentId, Entry, ItemCode, Kind, Rights};
use crate::wire::{
    Ask, Basis, Direction, End, EndOutcome, FrameType, Hello, Inline, Opened, Patch, PatchForm, SettledResult, Start,
    TargetKind, Tell, Topic, Verdict, data_header, features,
};

const PROTOCOL: CloseCode = CloseCode::Protocol;
const FAILED: SettledResult = SettledResult::Failed(ItemCode::DiskFull);

/// A content of a megabyte.
fn id(number: u8) -> ContentId {
    ContentId {
        length: 1 << 20,
        root: [number; 32],
    }
}

fn basis(file: u32, number: u8) -> Vec<u8> {
    frame(&Basis { file, id: id(number) })
}

fn ask(file: u32) -> Vec<u8> {
    let topic = Topic::Signature;
    frame(&Ask {
        file,
        topic,
        body: b"?",
    })
}

fn tell(file: u32, topic: Topic, body: &[u8], last: bool) -> Vec<u8> {
    frame(&Tell {
        file,
        topic,
        last,
        body,
    })
}

fn patch(file: u32, number: u8, form: PatchForm) -> Vec<u8> {
    frame(&Patch {
        file,
        size: 1000,
        meta: meta(),
        basis: id(number),
        form,
    })
}

fn start(file: u32) -> Vec<u8> {
    frame(&Start {
        file,
        size: 1000,
        sparse: false,
        meta: meta(),
    })
}

fn inline(file: u32) -> Vec<u8> {
    frame(&Inline {
        file,
        meta: meta(),
        root: [0; 32],
        bytes: b"x",
    })
}

fn data(file: u32, length: usize) -> Vec<u8> {
    [&data_header(1, file, length)[..], &vec![0; length]].concat()
}

fn end(file: u32, outcome: EndOutcome) -> Vec<u8> {
    frame(&End { file, outcome })
}

fn names(count: u32) -> Vec<Entry> {
    (0..count).map(|n| file_entry(&n.to_string(), 1000)).collect()
}

/// A client that sends `count` files, all of them wanted; bases were named for all but the last.
fn sending(count: u32) -> Machine {
    let (mut client, _) = transferring(Direction::Push);
    for (number, entry) in names(count).iter().enumerate() {
        let origin = Origin {
            source: 0,
            path: path(&number.to_string()),
        };
        source(&mut client).offer(entry, None, origin);
    }
    source(&mut client).flush_offers();
    (0..count - 1).for_each(|file| drop(give(&mut client, &basis(file, 1)).unwrap()));
    give(&mut client, &answer_frame(&vec![Verdict::WantReplace; count as usize])).unwrap();
    give(&mut client, &number_frame(FrameType::Credit, 1, 1 << 30)).unwrap();
    client.take_output();
    client
}

fn source(machine: &mut Machine) -> &mut Sender {
    machine.sender().unwrap()
}

/// A server that wants `count` files; it has named bases for all but the last.
fn receiving(count: u32) -> Machine {
    let (_, mut server) = transferring(Direction::Push);
    want(&mut server, count);
    server
}

fn want(server: &mut Machine, count: u32) {
    give(server, &offer_frame(0, &names(count))).unwrap();
    for file in 0..count {
        if file + 1 < count {
            target(server).basis(id(1));
        }
        target(server).answer(Verdict::WantReplace);
    }
    server.take_output();
}

fn target(machine: &mut Machine) -> &mut Receiver {
    machine.receiver().unwrap()
}

/// What a sender would do next, without what it needs for that.
fn opens(machine: &mut Machine) -> Option<(u32, Option<ContentId>)> {
    match source(machine).next_read()? {
        ReadStep::Open { file, basis, .. } => Some((file, basis)),
        other => panic!("{other:?}"),
    }
}

fn last_report(machine: &mut Machine) -> Option<Settlement> {
    std::iter::from_fn(|| source(machine).poll_report())
        .last()
        .map(|report| report.settlement)
}

// Sender: a basis comes before its answer, for a file that was offered; or again before a resend.
#[test]
fn bases_out_of_place_are_refused() {
    let mut client = sending(2);
    for file in [0, 1, 2, u32::MAX] {
        refuses(&mut client, &basis(file, 2), PROTOCOL, "a basis of a file");
    }
    let directory = Entry {
        kind: Kind::Directory,
        ..file_entry("d", 0)
    };
    let origin = || Origin {
        source: 0,
        path: path("d"),
    };
    source(&mut client).offer(&directory, None, origin());
    refuses(&mut client, &basis(2, 2), PROTOCOL, "a basis of a file");
    source(&mut client).flush_offers();
    refuses(&mut client, &basis(2, 2), PROTOCOL, "a basis of a file");
    source(&mut client).offer(&file_entry("kept back", 1000), None, origin());
    refuses(&mut client, &basis(3, 2), PROTOCOL, "a basis of a file");
    source(&mut client).flush_offers();
    give(&mut client, &basis(3, 2)).unwrap();
    assert_eq!(opens(&mut client), Some((0, Some(id(1)))));
}

// Sender: an answer is taken to the question that is open, about the same topic, and no more of it than
// its topic allows.
#[test]
fn answers_that_were_not_asked_for_are_refused() {
    let mut client = sending(3);
    let signature = |last| tell(0, Topic::Signature, b"1234", last);
    refuses(&mut client, &signature(true), PROTOCOL, "not asked for");
    assert_eq!(source(&mut client).ask(Topic::Signature, b"?"), Asked::Sent);
    assert_eq!(client.take_output(), ask(0));
    assert_eq!(opens(&mut client), Some((1, Some(id(1)))), "others go on");
    let other = tell(0, Topic::Tree, b"1234", true);
    let elsewhere = tell(1, Topic::Signature, b"1234", true);
    refuses(&mut sending_asked(), &other, PROTOCOL, "another question");
    refuses(&mut client, &elsewhere, PROTOCOL, "not asked for");
    assert!(give(&mut client, &signature(false)).unwrap().starts_with("Tell"));
    assert!(give(&mut client, &signature(true)).unwrap().starts_with("Tell"));
    assert_eq!(opens(&mut client), Some((0, Some(id(1)))), "it is the next");
    refuses(&mut client, &signature(true), PROTOCOL, "not asked for");
}

fn sending_asked() -> Machine {
    let mut client = sending(2);
    source(&mut client).ask(Topic::Signature, b"?");
    client
}

// Sender: what is told adds up to the limit of its topic, whatever pieces it comes in.
#[test]
fn answers_over_the_limit_of_their_topic_are_refused() {
    let leaves = (1 << 20) / (16 * 1024) + 1;
    let fixed = 64 * 1024;
    for (topic, most) in [
        (Topic::Signature, fixed + (1 << 20) / 32),
        (Topic::Tree, fixed),
        (Topic::Leaves, fixed + 16 * leaves),
        (Topic::Blocks, fixed + 112 * leaves),
        (Topic::Index, fixed + 256 * leaves),
    ] {
        let mut client = sending(2);
        source(&mut client).ask(topic, b"");
        let mut left = most;
        while left > 0 {
            let length = left.min(TELL_BYTES_MAX);
            give(&mut client, &tell(0, topic, &vec![0; length], false)).unwrap();
            left -= length;
        }
        refuses(&mut client, &tell(0, topic, b"x", true), PROTOCOL, "another question");
    }
}

// Sender: only so many questions are open; the next one waits, and goes out after an answer.
#[test]
fn a_question_too_many_waits() {
    let count = ASKED_MAX as u32 + 2;
    let mut client = sending(count);
    for _ in 0..ASKED_MAX {
        assert!(source(&mut client).may_ask());
        assert_eq!(source(&mut client).ask(Topic::Tree, b""), Asked::Sent);
    }
    client.take_output();
    assert!(!source(&mut client).may_ask());
    assert_eq!(source(&mut client).ask(Topic::Tree, b""), Asked::Later);
    assert!(client.take_output().is_empty());
    assert_eq!(opens(&mut client), Some((count - 2, Some(id(1)))), "it keeps its place");
    give(&mut client, &tell(3, Topic::Tree, b"", true)).unwrap();
    assert_eq!(opens(&mut client), Some((3, Some(id(1)))));
    assert_eq!(source(&mut client).ask(Topic::Tree, b""), Asked::Sent);
    // A file that is settled makes room as well.
    assert!(!source(&mut client).may_ask());
    give(&mut client, &settled_frame(5, FAILED)).unwrap();
    assert!(source(&mut client).may_ask());
}

// Sender: what the receiver gives up while a question is open gets a last word and one report; what was
// told meanwhile is nobody's.
#[test]
fn a_file_given_up_while_it_is_asked_about_gets_a_last_word() {
    let mut client = sending_asked();
    client.take_output();
    give(&mut client, &tell(0, Topic::Signature, b"12", false)).unwrap();
    give(&mut client, &settled_frame(0, FAILED)).unwrap();
    let word = end(0, EndOutcome::Failed(ItemCode::DiskFull));
    assert_eq!(client.take_output(), word);
    assert_eq!(last_report(&mut client), Some(Settlement::Failed(ItemCode::DiskFull)));
    let late = tell(0, Topic::Signature, b"34", true);
    assert_eq!(give(&mut client, &late), Ok("Nothing".to_owned()));
    assert_eq!(opens(&mut client), Some((1, None)));
}

// Sender: a basis is good for one attempt, in every form; a resend is made whole unless one is named anew.
#[test]
fn what_was_sent_again_is_whole_unless_a_basis_is_named() {
    type Send = fn(&mut Sender);
    let ways: [Send; 3] = [
        |sender| sender.inline(&meta(), [0; 32], b"0123"),
        |sender| {
            sender.start(0, false, &meta());
            sender.end(EndOutcome::Complete([0; 32]));
        },
        |sender| {
            sender.patch(4, &meta(), PatchForm::Plan);
            sender.end(EndOutcome::Complete([0; 32]));
        },
    ];
    for way in ways {
        for named in [None, Some(id(2))] {
            let mut client = sending(2);
            way(source(&mut client));
            assert_eq!(opens(&mut client), Some((1, None)));
            source(&mut client).fail(ItemCode::Vanished);
            if named.is_some() {
                give(&mut client, &basis(0, 2)).unwrap();
            }
            give(&mut client, &settled_frame(0, SettledResult::Resend)).unwrap();
            assert_eq!(opens(&mut client), Some((0, named)));
        }
    }
}

// Sender: a file that changes again and again is not asked about each time: questions are counted there.
#[test]
fn a_file_that_changed_while_it_was_read_whole_is_whole() {
    let mut client = sending(2);
    source(&mut client).ask(Topic::Signature, b"?");
    give(&mut client, &tell(0, Topic::Signature, b"", true)).unwrap();
    source(&mut client).changed();
    source(&mut client).fail(ItemCode::Vanished);
    assert_eq!(opens(&mut client), Some((0, None)));
}

// Receiver: only what is wanted and has a basis is asked about, and not once it has come.
#[test]
fn questions_about_what_has_no_basis_are_refused() {
    let mut server = receiving(3);
    for file in [2, 3, u32::MAX] {
        refuses(&mut server, &ask(file), PROTOCOL, "a question about a file");
    }
    give(&mut server, &patch(0, 1, PatchForm::Plan)).unwrap();
    give(&mut server, &end(0, EndOutcome::Complete([0; 32]))).unwrap();
    refuses(&mut server, &ask(0), PROTOCOL, "has come");
    give(&mut server, &ask(1)).unwrap();
    refuses(&mut server, &ask(1), PROTOCOL, "a question about a file");
}

// Receiver: so many questions are open at a time, and so many are asked of one basis; a repair names
// another one.
#[test]
fn more_questions_than_may_be_are_refused() {
    let count = ASKED_MAX as u32 + 2;
    let mut server = receiving(count);
    (0..ASKED_MAX as u32).for_each(|file| drop(give(&mut server, &ask(file)).unwrap()));
    refuses(&mut server, &ask(count - 2), CloseCode::Limit, "too many questions");

    let mut server = receiving(2);
    let eight = |server: &mut Machine| {
        for _ in 0..QUESTIONS_MAX {
            give(server, &ask(0)).unwrap();
            target(server).tell(0, Topic::Signature, b"", true);
        }
    };
    eight(&mut server);
    give(&mut server, &patch(0, 1, PatchForm::Plan)).unwrap();
    give(&mut server, &end(0, EndOutcome::Complete([0; 32]))).unwrap();
    server.take_output();
    target(&mut server).repair(0, id(2));
    let words = [basis(0, 2), settled_frame(0, SettledResult::Resend)].concat();
    assert_eq!(server.take_output(), words, "the basis comes before the result");
    eight(&mut server);
    refuses(&mut server, &ask(0), CloseCode::Limit, "too many questions");
}

// Receiver: nothing of a file may come while a question about it is open: whoever asks waits for the
// whole answer.
#[test]
fn content_before_the_answer_is_refused() {
    let mut server = receiving(2);
    give(&mut server, &ask(0)).unwrap();
    target(&mut server).tell(0, Topic::Signature, b"12", false);
    refuses(&mut server, &patch(0, 1, PatchForm::Plan), PROTOCOL, "another basis");
    refuses(&mut server, &start(0), PROTOCOL, "not wanted now");
    refuses(&mut server, &inline(0), PROTOCOL, "not wanted now");
    target(&mut server).tell(0, Topic::Signature, b"34", true);
    for form in [start(0), inline(0), patch(0, 1, PatchForm::Plan)] {
        let mut server = receiving(2);
        give(&mut server, &ask(0)).unwrap();
        target(&mut server).tell(0, Topic::Signature, b"", true);
        give(&mut server, &form).unwrap();
    }
}

// Receiver: a patch is of a wanted file, of the basis that was named last, one at a time, and its plan
// has at most so many bytes.
#[test]
fn patches_out_of_place_are_refused() {
    let plan = PatchForm::Plan;
    let mut server = receiving(3);
    refuses(&mut server, &patch(0, 2, plan), PROTOCOL, "another basis");
    refuses(&mut server, &patch(2, 1, plan), PROTOCOL, "another basis");
    refuses(&mut server, &patch(3, 1, plan), PROTOCOL, "not wanted now");
    give(&mut server, &patch(0, 1, plan)).unwrap();
    refuses(&mut server, &patch(1, 1, plan), PROTOCOL, "not wanted now");
    refuses(&mut server, &start(1), PROTOCOL, "not wanted now");
    let hole = frame(&crate::wire::Hole { file: 0, length: 1 });
    refuses(&mut server, &hole, PROTOCOL, "announced without");
    let most = plan_bytes_max(1000) as usize;
    give(&mut server, &data(0, most)).unwrap();
    refuses(&mut server, &data(0, 1), CloseCode::Limit, "than announced");
    give(&mut server, &end(0, EndOutcome::Complete([0; 32]))).unwrap();
    refuses(&mut server, &patch(0, 1, plan), PROTOCOL, "not wanted now");
    target(&mut server).repair(0, id(2));
    refuses(&mut server, &patch(0, 1, plan), PROTOCOL, "another basis");
    give(&mut server, &patch(0, 2, plan)).unwrap();
}

// Receiver: it may give a file up while a question is open. Whatever crosses that word, another question,
// a patch or whole content, is dropped, and nothing more is told.
#[test]
fn what_crosses_the_end_of_a_question_is_dropped() {
    let complete = end(0, EndOutcome::Complete([0; 32]));
    let last_words = [
        vec![end(0, EndOutcome::Failed(ItemCode::DiskFull))],
        vec![ask(0), end(0, EndOutcome::Failed(ItemCode::DiskFull))],
        vec![patch(0, 1, PatchForm::Plan), data(0, 9), complete.clone()],
        vec![start(0), data(0, 9), end(0, EndOutcome::Changed), inline(0)],
    ];
    for frames in last_words {
        let mut server = receiving(2);
        give(&mut server, &ask(0)).unwrap();
        target(&mut server).settle(0, FAILED);
        target(&mut server).tell(0, Topic::Signature, b"12", true);
        assert_eq!(server.take_output(), settled_frame(0, FAILED));
        for frame in &frames {
            assert_eq!(give(&mut server, frame), Ok("Nothing".to_owned()));
        }
        refuses(&mut server, &start(0), PROTOCOL, "not wanted now");
        assert!(server.take_output().is_empty());
    }
}

// Receiver: the sender may give a file up while its question is open; that is confirmed, and the place
// among the open questions is free again.
#[test]
fn a_question_whose_file_is_given_up_is_settled() {
    let failed = EndOutcome::Failed(ItemCode::Vanished);
    let count = 2 * ASKED_MAX as u32 + 1;
    let mut server = receiving(count);
    for file in 0..count - 1 {
        give(&mut server, &ask(file)).unwrap();
        target(&mut server).tell(file, Topic::Signature, b"1", false);
        server.take_output();
        assert!(give(&mut server, &end(file, failed)).unwrap().starts_with("End"));
        target(&mut server).tell(file, Topic::Signature, b"2", true);
        let word = settled_frame(file, SettledResult::Failed(ItemCode::Vanished));
        assert_eq!(server.take_output(), word, "confirmed, and nothing more is told");
    }
}

// Both: the receiver gives up while the last question is on its way, and the sender patches while that
// word is on its way: both sides are done with the file, and go on with the next.
#[test]
fn a_question_and_a_patch_that_cross_a_failure_are_settled() {
    for told_in_time in [false, true] {
        let (mut client, mut server) = (sending(2), receiving(2));
        source(&mut client).ask(Topic::Signature, b"?");
        if told_in_time {
            pump(&mut client, &mut server, |_, event| {
                assert!(matches!(event, Event::Ask(_)));
            });
            target(&mut server).tell(0, Topic::Signature, b"1", true);
            pump(&mut server, &mut client, |_, event| {
                assert!(matches!(event, Event::Tell(_)));
            });
            source(&mut client).patch(1000, &meta(), PatchForm::Plan);
        }
        target(&mut server).settle(0, FAILED);
        pump(&mut client, &mut server, |_, event| assert_eq!(event, Event::Nothing));
        pump(&mut server, &mut client, |_, _| {});
        pump(&mut client, &mut server, |_, event| assert_eq!(event, Event::Nothing));
        assert_eq!(last_report(&mut client), Some(Settlement::Failed(ItemCode::DiskFull)));
        assert_eq!(opens(&mut client), Some((1, None)));
        source(&mut client).inline(&meta(), [0; 32], b"x");
        pump(&mut client, &mut server, |_, event| {
            assert!(matches!(event, Event::Inline(_)));
        });
        target(&mut server).settle(1, SettledResult::Committed);
        pump(&mut server, &mut client, |_, _| {});
        assert_eq!(
            last_report(&mut client),
            Some(Settlement::Committed(Verdict::WantReplace))
        );
    }
}

/// A server within a transfer whose client has only these features.
fn receiving_with(common: u64) -> Machine {
    let mut server = Machine::server("s");
    let hello = Hello {
        version_min: 1,
        version_max: 1,
        features: common,
        name: "",
    };
    give(&mut server, &on_stream(0, &hello)).unwrap();
    give(&mut server, &on_stream(0, &open())).unwrap();
    server.grant(Opened {
        rights: Rights::READ_WRITE,
        paired: false,
    });
    give(&mut server, &frame(&begin(Direction::Push))).unwrap();
    server.ready(TargetKind::Directory);
    want(&mut server, 2);
    server
}

// Both: nothing of deltas without their feature, no compression without its own.
#[test]
fn deltas_that_were_not_negotiated_are_refused() {
    let mut server = receiving_with(features::ALL & !features::DELTA);
    let mut pushing = Machine::client_with("c", open(), features::ALL & !features::DELTA);
    let hello = Hello {
        version_min: 1,
        version_max: 1,
        features: features::ALL,
        name: "",
    };
    give(&mut pushing, &on_stream(0, &hello)).unwrap();
    let opened = Opened {
        rights: Rights::READ_WRITE,
        paired: false,
    };
    give(&mut pushing, &on_stream(0, &opened)).unwrap();
    pushing.begin(&begin(Direction::Push));
    give(&mut pushing, &frame(&TargetKind::Directory)).unwrap();
    let is_delta = |kind: &FrameType| {
        use FrameType::{Ask, Basis, Patch, Tell};
        matches!(kind, Ask | Basis | Patch | Tell)
    };
    let deltas: Vec<_> = frames().into_iter().filter(|(kind, _)| is_delta(kind)).collect();
    assert_eq!(deltas.len(), 4);
    for (_, bytes) in deltas {
        refuses(&mut server, &bytes, PROTOCOL, "a delta that was not negotiated");
        refuses(&mut pushing, &bytes, PROTOCOL, "a delta that was not negotiated");
    }

    for form in [PatchForm::Squeezed, PatchForm::Prefix] {
        let mut server = receiving_with(features::ALL & !features::ZSTD);
        refuses(&mut server, &patch(0, 1, form), PROTOCOL, "compression that was not");
        give(&mut server, &patch(0, 1, PatchForm::Plan)).unwrap();
    }
}
