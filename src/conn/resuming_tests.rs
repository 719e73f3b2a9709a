//! Tests of resuming at both ends: what is refused, and what a resumed file may still bring.

use super::fixtures::{
    answer_frame, data_frame, file_entry, frame, give, meta, offer_frame, path, refuses, transferring,
};
use super::{Machine, Origin, ReadStep, Receiver, Sender};
use crate::model::{CloseCode, ContentId, ItemCode};
use crate::wire::{Direction, Partial, Resume, SettledResult, Start, Verdict};

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

// Sender: a part is named before its answer, of a file, and is good for one attempt.
#[test]
fn a_part_is_named_in_time_and_used_once() {
    let sending = || {
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
    };
    let named = |file| frame(&Partial { file, id: part(600) });
    let mut client = sending();
    refuses(&mut client, &named(2), PROTOCOL, "not expected");
    let mut client = sending();
    give(&mut client, &named(0)).unwrap();
    give(&mut client, &answer_frame(&[Verdict::WantNew, Verdict::WantNew])).unwrap();
    let Some(ReadStep::Open { partial, .. }) = source(&mut client).next_read() else {
        panic!("the first file is to be opened");
    };
    assert_eq!(partial, Some(part(600)));
    source(&mut client).resume(1000, false, &meta());
    assert_eq!(client.take_output(), [resume(0), start(0, 1000)].concat());
    let Some(ReadStep::Content { offset, remaining, .. }) = source(&mut client).next_read() else {
        panic!("its rest is to be read");
    };
    assert_eq!((offset, remaining), (600, 400));
    refuses(&mut client, &named(0), PROTOCOL, "not expected");
}
