//! Tests of resuming at both ends: what is refused, and what a resumed file may still bring.

use super::fixtures::{
    answer_frame, data_frame, file_entry, frame, give, meta, offer_frame, path, refuses, settled_frame, transferring,
};
use super::{Machine, Origin, ReadStep, Receiver, Sender};
use crate::model::limits::plan_bytes_max;
use crate::model::{CloseCode, ContentId, ItemCode};
use crate::wire::{
    Basis, Direction, End, EndOutcome, Inline, Partial, Patch, PatchForm, Resume, SettledResult, Start, Verdict,
};

const PROTOCOL: CloseCode = CloseCode::Protocol;

fn part(length: u64) -> ContentId {
    ContentId { length, root: [7; 32] }
}

fn start(file: u32, size: u64) -> Vec<u8> {
    frame(&Start {
        file,
        size,
        sparse: false,
        meta: meta(),
    })
}

fn resume(file: u32) -> Vec<u8> {
    frame(&Resume { file })
}

fn target(server: &mut Machine) -> &mut Receiver {
    server.receiver().unwrap()
}

fn source(client: &mut Machine) -> &mut Sender {
    client.sender().unwrap()
}

fn basis() -> ContentId {
    ContentId {
        length: 900,
        root: [9; 32],
    }
}

fn patch(file: u32, size: u64, form: PatchForm) -> Vec<u8> {
    let (meta, basis) = (meta(), basis());
    frame(&Patch {
        file,
        size,
        meta,
        basis,
        form,
    })
}

fn inline(file: u32) -> Vec<u8> {
    frame(&Inline {
        file,
        meta: meta(),
        root: [5; 32],
        bytes: b"short now",
    })
}

fn end(file: u32) -> Vec<u8> {
    let outcome = EndOutcome::Complete([5; 32]);
    frame(&End { file, outcome })
}

/// A sender that has offered two files.
fn sending() -> Machine {
    let (mut client, _) = transferring(Direction::Push);
    for name in ["a", "b"] {
        let origin = Origin {
            source: 0,
            path: path(name),
        };
        source(&mut client).offer(&file_entry(name, 1000), None, origin);
    }
    source(&mut client).flush_offers();
    source(&mut client).handle_credit(1 << 20);
    client.take_output();
    client
}

fn named(file: u32) -> Vec<u8> {
    frame(&Partial { file, id: part(600) })
}

/// What is named of the file that is to be opened: its basis and its part.
fn opens(client: &mut Machine) -> (Option<ContentId>, Option<ContentId>) {
    match source(client).next_read() {
        Some(ReadStep::Open { basis, partial, .. }) => (basis, partial),
        other => panic!("the first file is to be opened, not {other:?}"),
    }
}

/// A receiver that wants two files; both have a basis, and 600 bytes of the first are staged.
fn receiving_patches() -> Machine {
    let (_, mut server) = transferring(Direction::Push);
    give(
        &mut server,
        &offer_frame(0, &[file_entry("a", 1000), file_entry("b", 1000)]),
    )
    .unwrap();
    target(&mut server).basis(basis());
    target(&mut server).partial(part(600));
    target(&mut server).answer(Verdict::WantReplace);
    target(&mut server).basis(basis());
    target(&mut server).answer(Verdict::WantReplace);
    server.take_output();
    server
}

/// A receiver that wants two files; 600 bytes of the first are staged.
fn receiving() -> Machine {
    let (_, mut server) = transferring(Direction::Push);
    let entries = [file_entry("a", 1000), file_entry("b", 1000)];
    give(&mut server, &offer_frame(0, &entries)).unwrap();
    target(&mut server).partial(part(600));
    target(&mut server).answer(Verdict::WantNew);
    target(&mut server).answer(Verdict::WantNew);
    server.take_output();
    server
}

// Receiver: only the rest counts as content, and a file that resumes ends as any other.
#[test]
fn a_resumed_file_brings_its_rest_and_no_more() {
    let mut server = receiving();
    give(&mut server, &resume(0)).unwrap();
    assert!(give(&mut server, &start(0, 1000)).unwrap().starts_with("Resume"));
    assert!(
        give(&mut server, &data_frame(0, &[1; 400]))
            .unwrap()
            .starts_with("Content")
    );
    refuses(
        &mut server,
        &data_frame(0, &[1]),
        CloseCode::Limit,
        "more content than announced",
    );
}

// Receiver: what was not staged is not resumed; nor twice, nor another file's rest, nor less than is there.
#[test]
fn only_what_is_staged_is_resumed() {
    refuses(&mut receiving(), &resume(1), PROTOCOL, "not staged");
    refuses(&mut receiving(), &resume(2), PROTOCOL, "not staged");
    let mut server = receiving();
    give(&mut server, &resume(0)).unwrap();
    refuses(&mut server, &resume(0), PROTOCOL, "not staged");
    let mut server = receiving();
    give(&mut server, &resume(0)).unwrap();
    refuses(&mut server, &start(1, 1000), PROTOCOL, "another file");
    let mut server = receiving();
    give(&mut server, &resume(0)).unwrap();
    refuses(&mut server, &start(0, 599), PROTOCOL, "another file");
    let mut server = receiving();
    assert!(give(&mut server, &start(0, 1000)).unwrap().starts_with("Start"));
    refuses(&mut server, &resume(0), PROTOCOL, "not staged");
}

// Receiver: a file that was given up here before the sender heard of it is dropped, resumed or not.
#[test]
fn what_was_given_up_may_still_be_resumed_in_vain() {
    let mut server = receiving();
    target(&mut server).settle(0, SettledResult::Failed(ItemCode::DiskFull));
    give(&mut server, &resume(0)).unwrap();
    assert_eq!(give(&mut server, &start(0, 1000)).unwrap(), "Nothing");
    assert_eq!(give(&mut server, &data_frame(0, &[1; 400])).unwrap(), "Nothing");
}

// Receiver: a patch of the rest, in any form; its plan is bounded by the size of the whole file.
#[test]
fn a_resumed_patch_is_told_apart_from_a_patch() {
    for form in [PatchForm::Plan, PatchForm::Squeezed, PatchForm::Prefix] {
        let mut server = receiving_patches();
        let fresh = give(&mut server, &patch(0, 1000, form));
        if cfg!(not(feature = "zstd")) && form != PatchForm::Plan {
            assert_eq!(fresh.unwrap_err().code, PROTOCOL);
            continue;
        }
        assert!(fresh.unwrap().starts_with("Patch"));
        let mut server = receiving_patches();
        give(&mut server, &resume(0)).unwrap();
        let event = give(&mut server, &patch(0, 1000, form)).unwrap();
        assert!(
            event.starts_with("ResumePatch") && event.contains(&format!("{form:?}")),
            "{event}"
        );
        let most = vec![1; plan_bytes_max(1000) as usize];
        assert!(give(&mut server, &data_frame(0, &most)).unwrap().starts_with("Content"));
        refuses(
            &mut server,
            &data_frame(0, &[1]),
            CloseCode::Limit,
            "more content than announced",
        );
        assert!(give(&mut server, &end(0)).unwrap().starts_with("End"));
        target(&mut server).settle(0, SettledResult::Resend);
        refuses(&mut server, &resume(0), PROTOCOL, "not staged");
    }
}

// Receiver: after a Resume comes that file, and no smaller than what is there; a patch uses the part up.
#[test]
fn only_the_file_that_was_resumed_is_patched_behind_it() {
    let plan = PatchForm::Plan;
    let mut server = receiving_patches();
    give(&mut server, &resume(0)).unwrap();
    refuses(&mut server, &patch(1, 1000, plan), PROTOCOL, "another file");
    let mut server = receiving_patches();
    give(&mut server, &resume(0)).unwrap();
    refuses(&mut server, &patch(0, 599, plan), PROTOCOL, "another file");
    let mut server = receiving_patches();
    give(&mut server, &resume(0)).unwrap();
    assert!(
        give(&mut server, &patch(0, 600, plan))
            .unwrap()
            .starts_with("ResumePatch")
    );
    refuses(&mut server, &resume(0), PROTOCOL, "not staged");
    let mut server = receiving_patches();
    assert!(give(&mut server, &patch(0, 1000, plan)).unwrap().starts_with("Patch"));
    give(&mut server, &end(0)).unwrap();
    target(&mut server).settle(0, SettledResult::Resend);
    refuses(&mut server, &resume(0), PROTOCOL, "not staged");
}

// Receiver: of a file that was given up here, a resumed patch and its plan are dropped, and granted again.
#[test]
fn a_resumed_patch_of_what_was_given_up_is_dropped() {
    let mut server = receiving_patches();
    target(&mut server).settle(0, SettledResult::Failed(ItemCode::DiskFull));
    server.take_output();
    give(&mut server, &resume(0)).unwrap();
    assert_eq!(give(&mut server, &patch(0, 1000, PatchForm::Plan)).unwrap(), "Nothing");
    assert_eq!(give(&mut server, &data_frame(0, &[1; 400])).unwrap(), "Nothing");
    assert_eq!(give(&mut server, &end(0)).unwrap(), "Nothing");
    assert_eq!(target(&mut server).current_file(), None);
    assert!(
        give(&mut server, &patch(1, 1000, PatchForm::Plan))
            .unwrap()
            .starts_with("Patch")
    );
}

// Receiver: a file that came in one frame after all has used the part up, also when it is sent again.
#[test]
fn a_part_is_not_resumed_after_the_file_came_in_one_frame() {
    let mut server = receiving();
    assert!(give(&mut server, &inline(0)).unwrap().starts_with("Inline"));
    target(&mut server).settle(0, SettledResult::Resend);
    refuses(&mut server, &resume(0), PROTOCOL, "not staged");
}

// Sender: a part is named before its answer, of a file, and is good for one attempt.
#[test]
fn a_part_is_named_in_time_and_used_once() {
    let mut client = sending();
    refuses(&mut client, &named(2), PROTOCOL, "not expected");
    let mut client = sending();
    give(&mut client, &named(0)).unwrap();
    give(&mut client, &answer_frame(&[Verdict::WantNew, Verdict::WantNew])).unwrap();
    assert_eq!(opens(&mut client), (None, Some(part(600))));
    source(&mut client).resume(1000, false, &meta());
    assert_eq!(client.take_output(), [resume(0), start(0, 1000)].concat());
    let Some(ReadStep::Content { offset, remaining, .. }) = source(&mut client).next_read() else {
        panic!("its rest is to be read");
    };
    assert_eq!((offset, remaining), (600, 400));
    refuses(&mut client, &named(0), PROTOCOL, "not expected");
}

// Sender: a patch of the rest; its plan begins at its own beginning, and both names are used up.
#[test]
fn a_part_may_be_followed_by_a_patch_of_the_rest() {
    let mut client = sending();
    let id = basis();
    give(&mut client, &frame(&Basis { file: 0, id })).unwrap();
    give(&mut client, &named(0)).unwrap();
    give(&mut client, &answer_frame(&[Verdict::WantReplace, Verdict::WantNew])).unwrap();
    assert_eq!(opens(&mut client), (Some(id), Some(part(600))));
    source(&mut client).resume_patch(1000, &meta(), PatchForm::Plan);
    assert_eq!(
        client.take_output(),
        [resume(0), patch(0, 1000, PatchForm::Plan)].concat()
    );
    let step = source(&mut client).next_read();
    assert!(matches!(step, Some(ReadStep::Plan { file: 0, .. })), "{step:?}");
}

// Sender: whichever way a file is sent, what was named of it is good for that attempt alone.
#[test]
fn whatever_is_sent_uses_the_part_up() {
    let ways: [fn(&mut Sender); 4] = [
        |sender| sender.start(1000, false, &meta()),
        |sender| sender.resume(1000, false, &meta()),
        |sender| sender.resume_patch(1000, &meta(), PatchForm::Plan),
        |sender| sender.inline(&meta(), [5; 32], b"short now"),
    ];
    for (number, send) in ways.iter().enumerate() {
        let mut client = sending();
        give(&mut client, &frame(&Basis { file: 0, id: basis() })).unwrap();
        give(&mut client, &named(0)).unwrap();
        give(&mut client, &answer_frame(&[Verdict::WantReplace, Verdict::Have])).unwrap();
        send(source(&mut client));
        source(&mut client).end(EndOutcome::Complete([5; 32]));
        give(&mut client, &settled_frame(0, SettledResult::Resend)).unwrap();
        assert_eq!(opens(&mut client), (None, None), "way {number}");
    }
}
