//! What the tests of this layer share: frames of every type, and pairs of machines in a given state.

use super::{Event, Machine};
use crate::model::Revision;
use crate::model::{
    CloseCode, ContentId, Entry, Fault, ItemCode, Kind, Meta, RelPath, Rights, Secret, ShareName, Timestamp,
};
use crate::wire::{Alter, Altered, ChangesHead, ChangesWriter, Known, News, Since};
use crate::wire::{
    Answers, Ask, Basis, Begin, BeginFlags, Brake, ComeBack, Decoder, Direction, End, EndOutcome, EntriesWriter,
    Finish, FrameType, Hello, Hole, Inline, ListEnd, Message, Open, Opened, Partial, Patch, PatchForm, Queued,
    RemovedWriter, Resume, SettledResult, SettledWriter, SourceFailed, Start, TargetFailed, TargetKind, Tell, Topic,
    Verdict, control_header, data_header, encode_number, features,
};

pub(super) fn open() -> Open {
    Open {
        share: Some(ShareName::parse("Share").unwrap()),
        secret: Some(Secret([9; 16])),
        wanted: Rights::READ_WRITE,
    }
}

pub(super) fn begin(direction: Direction) -> Begin {
    Begin {
        direction,
        flags: BeginFlags::default(),
        brake: Brake::Default,
        target: None,
        scopes: Vec::new(),
        sources: Vec::new(),
        rules: Vec::new(),
    }
}

pub(super) fn meta() -> Meta {
    let mtime = Timestamp { seconds: 1, nanos: 2 };
    Meta { mode: 0o644, mtime }
}

pub(super) fn path(text: &str) -> RelPath {
    RelPath::parse(text.as_bytes()).unwrap()
}

pub(super) fn file_entry(name: &str, size: u64) -> Entry {
    Entry {
        path: path(name),
        kind: Kind::File { size },
        meta: meta(),
    }
}

/// A whole frame of a transfer.
pub(super) fn frame<'a>(message: &impl Message<'a>) -> Vec<u8> {
    on_stream(1, message)
}

pub(super) fn on_stream<'a>(stream: u16, message: &impl Message<'a>) -> Vec<u8> {
    let mut out = Vec::new();
    message.encode(stream, &mut out);
    out
}

pub(super) fn number_frame(kind: FrameType, stream: u16, number: u64) -> Vec<u8> {
    let mut out = Vec::new();
    encode_number(kind, stream, number, &mut out);
    out
}

pub(super) fn data_frame(file: u32, bytes: &[u8]) -> Vec<u8> {
    [&data_header(1, file, bytes.len())[..], bytes].concat()
}

pub(super) fn offer_frame(first: u32, entries: &[Entry]) -> Vec<u8> {
    let (mut writer, mut out) = (EntriesWriter::default(), Vec::new());
    entries.iter().for_each(|entry| writer.push(entry, None, None));
    writer.flush(1, first, &mut out);
    out
}

pub(super) fn answer_frame(verdicts: &[Verdict]) -> Vec<u8> {
    let (mut answers, mut out) = (Answers::default(), Vec::new());
    verdicts.iter().for_each(|verdict| answers.push(*verdict));
    answers.flush(1, &mut out);
    out
}

pub(super) fn settled_frame(file: u32, result: SettledResult) -> Vec<u8> {
    let (mut writer, mut out) = (SettledWriter::default(), Vec::new());
    writer.push(file, result);
    writer.flush(1, &mut out);
    out
}

pub(super) fn removed_frame(name: &str) -> Vec<u8> {
    let (mut writer, mut out) = (RemovedWriter::default(), Vec::new());
    writer.push(&path(name));
    writer.flush(1, &mut out);
    out
}

/// Gives one frame to a machine; the event comes back as text, because it borrows the frame.
pub(super) fn give(machine: &mut Machine, frame: &[u8]) -> Result<String, Fault> {
    let mut decoder = Decoder::new(0);
    decoder.lift_limits();
    let piece = decoder
        .next(&mut &frame[..])
        .expect("a legal frame")
        .expect("a whole frame");
    machine.handle(piece).map(|event| format!("{event:?}"))
}

/// Asserts that a frame is refused with `code` and a text that holds `why`.
#[track_caller]
pub(super) fn refuses(machine: &mut Machine, frame: &[u8], code: CloseCode, why: &str) {
    let fault = give(machine, frame).unwrap_err();
    assert_eq!(fault.code, code, "{fault}");
    assert!(fault.text.contains(why), "{fault}, not {why}");
}

/// Moves everything that waits in `from` to `to`.
pub(super) fn pump(from: &mut Machine, to: &mut Machine, mut on: impl FnMut(&mut Machine, Event<'_>)) {
    let mut decoder = Decoder::new(0);
    decoder.lift_limits();
    let bytes = from.take_output();
    let mut rest = &bytes[..];
    while let Some(piece) = decoder.next(&mut rest).unwrap() {
        let event = to.handle(piece).unwrap();
        on(to, event);
    }
}

/// A client and a server whose share is open.
pub(super) fn opened(rights: Rights) -> (Machine, Machine) {
    let (mut client, mut server) = (Machine::client("c", open()), Machine::server("s"));
    pump(&mut client, &mut server, |_, _| {});
    pump(&mut server, &mut client, |_, _| {});
    let paired = false;
    pump(&mut client, &mut server, |server, event| {
        assert_eq!(event, Event::Open(open()));
        server.grant(Opened { rights, paired });
    });
    pump(&mut server, &mut client, |_, _| {});
    (client, server)
}

/// A client and a server within a transfer.
pub(super) fn transferring(direction: Direction) -> (Machine, Machine) {
    let (mut client, mut server) = opened(Rights::READ_WRITE);
    client.begin(&begin(direction));
    pump(&mut client, &mut server, |server, _| {
        server.ready(TargetKind::Directory);
    });
    pump(&mut server, &mut client, |_, _| {});
    (client, server)
}

fn start() -> Start {
    Start {
        file: 0,
        size: 1,
        sparse: false,
        meta: meta(),
    }
}

/// Those that are negotiated one by one.
fn later_frames() -> Vec<(FrameType, Vec<u8>)> {
    let (topic, body) = (Topic::Tree, b"".as_slice());
    let id = ContentId {
        length: 5,
        root: [3; 32],
    };
    let patch = Patch {
        file: 0,
        size: 1,
        meta: meta(),
        basis: id,
        form: PatchForm::Plan,
    };
    let queued = Queued {
        position: 1,
        estimate_ms: 0,
    };
    vec![
        (FrameType::Basis, on_stream(1, &Basis { file: 0, id })),
        (FrameType::Ask, on_stream(1, &Ask { file: 0, topic, body })),
        (
            FrameType::Tell,
            on_stream(
                1,
                &Tell {
                    file: 0,
                    topic,
                    last: true,
                    body,
                },
            ),
        ),
        (FrameType::Patch, on_stream(1, &patch)),
        (FrameType::Partial, on_stream(1, &Partial { file: 0, id })),
        (FrameType::Resume, on_stream(1, &Resume { file: 0 })),
        (
            FrameType::TargetFailed,
            on_stream(
                1,
                &TargetFailed {
                    path: b"p",
                    code: ItemCode::Io,
                },
            ),
        ),
        (FrameType::Queued, on_stream(1, &queued)),
    ]
}

/// The frames of syncing.
pub(super) fn syncing_frames() -> [(FrameType, Vec<u8>); 5] {
    let known = Known::default();
    let head = ChangesHead {
        known,
        more: false,
        anew: true,
        folds: false,
    };
    let mut changes = Vec::new();
    ChangesWriter::default().finish(&head, &mut changes);
    let revision = Revision(1);
    [
        (FrameType::Since, on_stream(0, &Since { known, watch: true })),
        (FrameType::Changes, changes),
        (FrameType::News, on_stream(0, &News { revision })),
        (FrameType::Alter, on_stream(0, &Alter::default())),
        (FrameType::Altered, on_stream(0, &Altered::default())),
    ]
}

/// A legal frame of every type.
pub(super) fn frames() -> Vec<(FrameType, Vec<u8>)> {
    let hello = Hello {
        version_min: 1,
        version_max: 1,
        features: features::ALL,
        name: "x",
    };
    let opened = Opened {
        rights: Rights::READ_WRITE,
        paired: true,
    };
    let inline = Inline {
        file: 0,
        meta: meta(),
        root: [0; 32],
        bytes: b"x",
    };
    let end = End {
        file: 0,
        outcome: EndOutcome::Changed,
    };
    let list_end = ListEnd {
        entries: 0,
        complete: true,
        top: None,
    };
    let failed = SourceFailed {
        path: b"p",
        code: ItemCode::Io,
    };
    vec![
        (FrameType::Hello, on_stream(0, &hello)),
        (FrameType::Open, on_stream(0, &open())),
        (FrameType::Opened, on_stream(0, &opened)),
        (FrameType::Close, on_stream(0, &Fault::new(CloseCode::Busy, "later"))),
        (FrameType::Ping, number_frame(FrameType::Ping, 0, 1)),
        (FrameType::Pong, number_frame(FrameType::Pong, 0, 1)),
        (
            FrameType::StatusQuery,
            control_header(FrameType::StatusQuery, 0, 0).to_vec(),
        ),
        (
            FrameType::StatusReply,
            control_header(FrameType::StatusReply, 0, 0).to_vec(),
        ),
        (FrameType::ComeBack, on_stream(0, &ComeBack { after_ms: 1 })),
    ]
    .into_iter()
    .chain(syncing_frames())
    .chain([
        (FrameType::Begin, frame(&begin(Direction::Push))),
        (FrameType::Ready, frame(&TargetKind::Absent)),
        (FrameType::Offer, offer_frame(0, &[file_entry("f", 1)])),
        (FrameType::Answer, answer_frame(&[Verdict::Have])),
        (FrameType::Start, frame(&start())),
        (FrameType::Data, data_frame(0, b"x")),
        (FrameType::Hole, frame(&Hole { file: 0, length: 1 })),
        (FrameType::End, frame(&end)),
        (FrameType::Inline, frame(&inline)),
        (FrameType::Settled, settled_frame(0, SettledResult::Committed)),
        (FrameType::Credit, number_frame(FrameType::Credit, 1, 1)),
        (FrameType::ListEnd, frame(&list_end)),
        (FrameType::SourceFailed, frame(&failed)),
        (FrameType::Removed, removed_frame("p")),
        (FrameType::Finish, frame(&Finish::Incomplete)),
    ])
    .chain(later_frames())
    .collect()
}
