//! What must hold for any bytes at all, one function for each decoder.
//!
//! The fuzz targets call these with what the fuzzer finds, `tests/mutation.rs` with damaged encodings.
//! Each panics when a promise is broken: bytes are refused with a named error, or taken and written
//! back the same.

use syncline::conn::{Asked, Event, Machine, Origin, ReadStep};
use syncline::delta::index::{IndexView, Parts};
use syncline::model::limits::{
    BATCH_ENTRIES_MAX, CONTROL_FRAME_BYTES_MAX, NAME_BYTES_MAX, OUTBOUND_BYTES_MAX, PATH_BYTES_MAX, PATH_DEPTH_MAX,
    PREAUTH_FRAME_BYTES_MAX,
};
use syncline::model::{ContentId, Entry, Fault, Kind, Link, Meta, RelPath, Rights, ShareName, Timestamp};
use syncline::store::{Filter, PathKind, Rule};
use syncline::wire::{
    Alter, Altered, Answers, Ask, Basis, Begin, BeginFlags, Brake, ComeBack, Decoder, Direction, End, EndOutcome,
    EntriesReader, EntriesWriter, FRAME_HEADER_BYTES, Finish, FrameType, Hello, Hole, Inline, ListEnd, Message, News,
    Offered, Open, Opened, Partial, Patch, PatchForm, Piece, Queued, RemovedReader, RemovedWriter, Resume,
    SettledReader, SettledResult, SettledWriter, Since, SourceFailed, Start, TargetFailed, TargetKind, Tell, Topic,
    Verdict, VerdictRun, WireError,
};

#[path = "revisions.rs"]
mod revisions;

pub use revisions::changes;

/// Everything: the first byte picks a body, the rest is for it.
pub fn any(data: &[u8]) {
    let Some((&first, rest)) = data.split_first() else {
        return;
    };
    match first % 10 {
        0 => frames(rest),
        1 => machine(rest),
        2 => path(rest),
        3 => link(rest),
        4 => content_id(rest),
        5 => filter(rest),
        6 => sidecar(rest),
        _ => {
            let Some((&kind, payload)) = rest.split_first() else {
                return;
            };
            let kinds = FrameType::ALL;
            payload_of(kinds[usize::from(kind) % kinds.len()], payload);
        }
    }
}

/// A sidecar: what is taken can be looked at everywhere, and only what is under its root is verified.
pub fn sidecar(data: &[u8]) {
    let view = match IndexView::parse(data) {
        Ok(view) => view,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    let sidecar = view.sidecar();
    let blocks = if sidecar.parts == Parts::Full {
        sidecar.block_count()
    } else {
        0
    };
    let leaves = sidecar.leaf_count();
    let strong = (0..leaves.min(blocks)).fold(0, |all, at| all ^ view.strong(at));
    let crcs = (0..blocks).fold(0, |all, at| all ^ view.crc(at));
    std::hint::black_box((strong, crcs));
    assert_eq!(view.leaves().len() as u64, leaves);
    assert_eq!(view.anchors().len(), view.anchor_count());
    assert!(view.anchors().is_sorted_by_key(|anchor| anchor.position));
    let chunks = (0..sidecar.chunk_count()).map(|number| view.chunk(number));
    let anchors: usize = chunks.map(|chunk| chunk.anchors.len()).sum();
    assert_eq!(anchors, view.anchor_count());
    if view.verify().is_ok() {
        let again = syncline::delta::index::root_of_leaves(view.leaves(), sidecar.length);
        assert_eq!(again, Some(view.id()));
    }
}

/// A stream of frames: pieces do not depend on how it is cut, and little is held.
pub fn frames(data: &[u8]) {
    let (&[mode, step, ..], stream) = data.split_at(data.len().min(2)) else {
        return;
    };
    let decoder = || {
        let mut decoder = Decoder::new(PREAUTH_FRAME_BYTES_MAX);
        if mode & 1 == 1 {
            decoder.lift_limits();
        }
        decoder
    };
    let whole = decode_chunks(decoder(), [stream].into_iter());
    let parts = decode_chunks(decoder(), stream.chunks(usize::from(step) + 1));
    assert_eq!(whole, parts, "pieces of {step}");
}

type Decoded = (Vec<(u8, u16, Vec<u8>)>, Option<WireError>);

fn decode_chunks<'a>(mut decoder: Decoder, chunks: impl Iterator<Item = &'a [u8]>) -> Decoded {
    let mut found: Vec<(u8, u16, Vec<u8>)> = Vec::new();
    let mut open: Option<u32> = None;
    for chunk in chunks {
        let mut rest = chunk;
        loop {
            match decoder.next(&mut rest) {
                Ok(None) => break,
                Err(error) => {
                    assert!(!error.to_string().is_empty());
                    return (found, Some(error));
                }
                Ok(Some(Piece::Control { kind, stream, payload })) => {
                    assert_eq!(stream != 0, kind.is_transfer());
                    open = None;
                    found.push((kind as u8, stream, payload.to_vec()));
                }
                Ok(Some(Piece::Data { stream, file, bytes })) => {
                    // Parts of frames on one file are joined: a cut moves where they meet.
                    match found.last_mut() {
                        Some((_, own, content)) if open == Some(file) && *own == stream => {
                            content.extend_from_slice(bytes);
                        }
                        _ => {
                            let head = file.to_le_bytes();
                            found.push((FrameType::Data as u8, stream, [&head, bytes].concat()));
                        }
                    }
                    open = Some(file);
                }
            }
        }
        assert!(rest.is_empty());
        assert!(decoder.held_bytes() <= FRAME_HEADER_BYTES + CONTROL_FRAME_BYTES_MAX);
    }
    (found, None)
}

/// Decodes a payload; what is taken is written back byte for byte.
macro_rules! same_bytes {
    ($message:ty, $payload:expr) => {
        match <$message>::decode($payload) {
            Err(error) => named(error),
            Ok(message) => {
                let mut frame = Vec::new();
                message.encode(0, &mut frame);
                assert_eq!(&frame[FRAME_HEADER_BYTES..], $payload, "{message:?}");
            }
        }
    };
}

fn named(error: WireError) {
    assert!(!error.to_string().is_empty());
}

/// The payload of a frame of one type, on its own.
pub fn payload_of(kind: FrameType, payload: &[u8]) {
    match kind {
        FrameType::Hello => hello(payload),
        FrameType::Open => same_bytes!(Open, payload),
        FrameType::Opened => same_bytes!(Opened, payload),
        FrameType::Close => same_bytes!(Fault, payload),
        FrameType::Begin => same_bytes!(Begin, payload),
        FrameType::Ready => same_bytes!(TargetKind, payload),
        FrameType::Start => same_bytes!(Start, payload),
        FrameType::Hole => same_bytes!(Hole, payload),
        FrameType::End => same_bytes!(End, payload),
        FrameType::Inline => same_bytes!(Inline<'_>, payload),
        FrameType::ListEnd => same_bytes!(ListEnd, payload),
        FrameType::SourceFailed => same_bytes!(SourceFailed<'_>, payload),
        FrameType::Finish => same_bytes!(Finish, payload),
        FrameType::Offer => entries(payload),
        FrameType::Answer => answers(payload),
        FrameType::Settled => settled(payload),
        FrameType::Removed => removed(payload),
        FrameType::Basis => same_bytes!(Basis, payload),
        FrameType::Ask => same_bytes!(Ask<'_>, payload),
        FrameType::Tell => same_bytes!(Tell<'_>, payload),
        FrameType::Patch => same_bytes!(Patch, payload),
        FrameType::Partial => same_bytes!(Partial, payload),
        FrameType::Resume => same_bytes!(Resume, payload),
        FrameType::Queued => same_bytes!(Queued, payload),
        FrameType::ComeBack => same_bytes!(ComeBack, payload),
        FrameType::TargetFailed => same_bytes!(TargetFailed<'_>, payload),
        FrameType::Since => same_bytes!(Since, payload),
        FrameType::Changes => changes(payload),
        FrameType::News => same_bytes!(News, payload),
        FrameType::Alter => same_bytes!(Alter, payload),
        FrameType::Altered => same_bytes!(Altered, payload),
        // Numbers and raw content have no decoder of their own; the machine reads them.
        FrameType::Ping
        | FrameType::Pong
        | FrameType::Credit
        | FrameType::Data
        | FrameType::StatusQuery
        | FrameType::StatusReply => {}
    }
}

/// The payload of a message, behind a byte that is its type.
pub fn messages(data: &[u8]) {
    if let Some((&number, payload)) = data.split_first()
        && let Some(kind) = FrameType::from_wire(number)
    {
        payload_of(kind, payload);
    }
}

/// A hello may carry more than this version knows; the rest is the same.
pub fn hello(payload: &[u8]) {
    match Hello::decode(payload) {
        Err(error) => named(error),
        Ok(hello) => {
            let mut frame = Vec::new();
            hello.encode(0, &mut frame);
            assert!(payload.starts_with(&frame[FRAME_HEADER_BYTES..]));
        }
    }
}

/// An offer: as many entries as it says, all legal.
pub fn entries(payload: &[u8]) {
    let Ok(offered) = read_entries(payload).map_err(named) else {
        return;
    };
    assert!(offered.len() <= BATCH_ENTRIES_MAX.min(payload.len()));
    let mut writer = EntriesWriter::default();
    offered
        .iter()
        .for_each(|one| writer.push(&one.entry, one.root.as_ref(), one.based_on));
    let mut frame = Vec::new();
    writer.flush(1, 0, &mut frame);
    if !offered.is_empty() {
        assert_eq!(read_entries(&frame[FRAME_HEADER_BYTES..]), Ok(offered));
    }
}

fn read_entries(payload: &[u8]) -> Result<Vec<Offered>, WireError> {
    let mut reader = EntriesReader::new(payload)?;
    let mut offered = Vec::new();
    while let Some(entry) = reader.next_entry()? {
        path(entry.entry.path.as_bytes());
        offered.push(entry);
    }
    Ok(offered)
}

/// Answers: what is taken says the same when it is written again, with equal neighbours joined.
pub fn answers(payload: &[u8]) {
    let Ok(runs) = Answers::decode(payload).map_err(named) else {
        return;
    };
    let total: usize = runs.iter().map(|run| run.count).sum();
    assert!(runs.len() <= payload.len() / 2 && runs.len() <= BATCH_ENTRIES_MAX);
    // A legal frame can speak of millions; writing so many again would only take time.
    if total == 0 || total > 50_000 {
        return;
    }
    let mut answers = Answers::default();
    for run in &runs {
        (0..run.count).for_each(|_| answers.push(run.verdict));
    }
    let mut frame = Vec::new();
    answers.flush(1, &mut frame);
    let again = Answers::decode(&frame[FRAME_HEADER_BYTES..]).expect("it was just written");
    assert_eq!(joined(&again), joined(&runs));
}

fn joined(runs: &[VerdictRun]) -> Vec<(Verdict, usize)> {
    let mut joined: Vec<(Verdict, usize)> = Vec::new();
    for run in runs {
        match joined.last_mut() {
            Some((verdict, count)) if *verdict == run.verdict => *count += run.count,
            _ => joined.push((run.verdict, run.count)),
        }
    }
    joined
}

/// Results of files.
pub fn settled(payload: &[u8]) {
    let mut reader = SettledReader::new(payload);
    let mut writer = SettledWriter::default();
    loop {
        match reader.next_result() {
            Err(error) => return named(error),
            Ok(None) => break,
            Ok(Some((file, result))) => writer.push(file, result),
        }
    }
    let mut frame = Vec::new();
    writer.flush(1, &mut frame);
    assert_eq!(frame.get(FRAME_HEADER_BYTES..).unwrap_or(&[]), payload);
}

/// Paths of what was deleted.
pub fn removed(payload: &[u8]) {
    let mut writer = RemovedWriter::default();
    let mut reader = match RemovedReader::new(payload) {
        Ok(reader) => reader,
        Err(error) => return named(error),
    };
    let mut count = 0;
    loop {
        match reader.next_path() {
            Err(error) => return named(error),
            Ok(None) => break,
            Ok(Some(path)) => {
                writer.push(&path);
                count += 1;
            }
        }
    }
    let mut frame = Vec::new();
    writer.flush(1, &mut frame);
    if count > 0 {
        assert_eq!(&frame[FRAME_HEADER_BYTES..], payload);
    }
}

/// A path: taken as it stands when it breaks no rule, and printed on one line.
pub fn path(data: &[u8]) {
    let Ok(path) = RelPath::parse(data) else {
        return;
    };
    assert_eq!(path.as_bytes(), data);
    assert!(data.len() <= PATH_BYTES_MAX && !data.contains(&0));
    let components: Vec<_> = data.split(|byte| *byte == b'/').collect();
    assert!(components.len() <= PATH_DEPTH_MAX);
    for name in components {
        assert!((1..=NAME_BYTES_MAX).contains(&name.len()));
        assert!(name != b"." && name != b"..");
        assert!(!name.eq_ignore_ascii_case(RelPath::RESERVED.as_bytes()));
    }
    assert!(!path.to_string().chars().any(char::is_control));
}

/// A link: what is taken is printed in a form that means the same.
pub fn link(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    match text.parse::<Link>() {
        Err(error) => assert!(!error.to_string().is_empty()),
        Ok(link) => assert_eq!(link.to_string().parse(), Ok(link)),
    }
}

/// A content id.
pub fn content_id(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(id) = text.parse::<ContentId>() {
        assert_eq!(id.to_string().parse(), Ok(id));
    }
}

/// Filter rules, a line each, and a path behind the last line that is asked about.
pub fn filter(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut lines: Vec<&str> = text.split('\n').collect();
    let asked = lines.pop().unwrap_or_default();
    let rule = |line: &str| match line.strip_prefix('+') {
        Some(pattern) => Rule::Include(pattern.to_owned()),
        None => Rule::Exclude(line.to_owned()),
    };
    let rules: Vec<Rule> = lines.into_iter().map(rule).collect();
    match (Filter::new(&rules), RelPath::parse(asked.as_bytes())) {
        (Err(error), _) => assert!(!error.to_string().is_empty()),
        (Ok(filter), Ok(path)) => {
            let once = filter.decide(&path, PathKind::Other);
            assert_eq!(once, filter.decide(&path, PathKind::Other));
            let _ = filter.decide(&path, PathKind::Directory);
        }
        (Ok(_), Err(_)) => {}
    }
}

/// A machine in a state that the first byte picks, and a peer that says anything.
pub fn machine(data: &[u8]) {
    let (&[state, step, ..], stream) = data.split_at(data.len().min(2)) else {
        return;
    };
    let mut machine = in_state(state);
    let mut decoder = Decoder::new(PREAUTH_FRAME_BYTES_MAX);
    let mut written = machine.take_output().len();
    for chunk in stream.chunks(usize::from(step) + 1) {
        if let Err(fault) = feed(&mut machine, &mut decoder, chunk) {
            assert!(!fault.text.is_empty());
            machine.close(&fault);
            assert!(machine.is_closed());
            written += machine.take_output().len();
            break;
        }
        serve(&mut machine);
        written += machine.take_output().len();
        assert!(decoder.held_bytes() <= stream.len());
    }
    assert!(
        written <= OUTBOUND_BYTES_MAX + 64 * stream.len(),
        "{written} bytes for {}",
        stream.len()
    );
}

fn feed(machine: &mut Machine, decoder: &mut Decoder, chunk: &[u8]) -> Result<(), Fault> {
    let mut rest = chunk;
    loop {
        if machine.is_open() {
            decoder.lift_limits();
        }
        let piece = match decoder.next(&mut rest) {
            Ok(Some(piece)) => piece,
            Ok(None) => return Ok(()),
            Err(error) => return Err(Fault::protocol(error.to_string())),
        };
        let due = due_after(machine, piece)?;
        answer(machine, due);
    }
}

/// What an event asks for, without the bytes that it borrows.
#[derive(Clone, Copy)]
enum Due {
    Grant,
    Ready,
    Status,
    Taken(u64),
    Settle(u32, bool),
    Nothing,
}

fn due_after(machine: &mut Machine, piece: Piece<'_>) -> Result<Due, Fault> {
    Ok(match machine.handle(piece)? {
        Event::Open(_) => Due::Grant,
        Event::Begin(_) => Due::Ready,
        Event::StatusQuery => Due::Status,
        Event::Content { bytes, .. } => Due::Taken(bytes.len() as u64),
        Event::Inline(inline) => Due::Settle(inline.file, inline.file % 2 == 0),
        Event::End(End {
            file,
            outcome: EndOutcome::Complete(root),
        }) => Due::Settle(file, root[0] == 0),
        _ => Due::Nothing,
    })
}

fn answer(machine: &mut Machine, due: Due) {
    match due {
        Due::Grant => machine.grant(Opened {
            rights: Rights::READ_WRITE,
            paired: false,
        }),
        Due::Ready => machine.ready(TargetKind::Directory),
        Due::Status => machine.status_reply(b"{}"),
        Due::Taken(bytes) => {
            if let Some(receiver) = machine.receiver() {
                receiver.consumed(bytes);
            }
        }
        Due::Settle(file, good) => {
            let result = if good {
                SettledResult::Committed
            } else {
                SettledResult::Resend
            };
            if let Some(receiver) = machine.receiver() {
                receiver.settle(file, result);
            }
        }
        Due::Nothing => {}
    }
}

/// Does what the driver of a machine does between messages.
fn serve(machine: &mut Machine) {
    if let Some(receiver) = machine.receiver() {
        while let Some(check) = receiver.next_check() {
            let is_file = matches!(check.entry.kind, Kind::File { .. });
            let verdict = if is_file { Verdict::WantNew } else { Verdict::Have };
            receiver.answer(verdict);
        }
        if receiver.is_complete() {
            receiver.finish(Finish::Done { deleted: 0 });
            machine.end_transfer();
        }
    }
    let Some(sender) = machine.sender() else {
        return;
    };
    while sender.poll_report().is_some() {}
    for _ in 0..8 {
        match sender.next_read() {
            None => break,
            Some(ReadStep::Open {
                file, basis: Some(_), ..
            }) if file % 3 == 0 => {
                if sender.ask(Topic::Tree, b"") == Asked::Later {
                    break;
                }
            }
            Some(ReadStep::Open { basis: Some(_), .. }) => sender.patch(10, &meta(), PatchForm::Plan),
            Some(ReadStep::Plan { credit: 0, .. }) => sender.end(EndOutcome::Complete([0; 32])),
            Some(ReadStep::Plan { credit, .. }) => {
                let _ = sender.data(credit.min(10) as usize);
                sender.end(EndOutcome::Complete([0; 32]));
            }
            Some(ReadStep::Open { file, .. }) if file % 2 == 0 => sender.inline(&meta(), [0; 32], b"0123456789"),
            Some(ReadStep::Open { .. }) => sender.start(10, false, &meta()),
            Some(ReadStep::Content { remaining: 0, .. }) => sender.end(EndOutcome::Complete([0; 32])),
            Some(ReadStep::Content { remaining, credit, .. }) => {
                let _ = sender.data(remaining.min(credit) as usize);
            }
        }
    }
    if sender.finished().is_some() {
        machine.end_transfer();
    }
}

fn meta() -> Meta {
    let mtime = Timestamp { seconds: 0, nanos: 0 };
    Meta { mode: 0o600, mtime }
}

/// A client or a server that is greeted, asked, open, or within a transfer.
fn in_state(state: u8) -> Machine {
    let open = Open {
        share: ShareName::parse("Share").ok(),
        secret: None,
        wanted: Rights::READ_WRITE,
    };
    let (mut client, mut server) = (Machine::client("c", open), Machine::server("s"));
    let direction = if state & 0x10 == 0 {
        Direction::Push
    } else {
        Direction::Pull
    };
    for step in 0..state % 8 {
        match step {
            0 | 2 => exchange(&mut client, &mut server),
            1 | 3 => exchange(&mut server, &mut client),
            4 => {
                client.begin(&begin(direction));
                exchange(&mut client, &mut server);
            }
            5 => exchange(&mut server, &mut client),
            _ => {
                offer(&mut client);
                offer(&mut server);
            }
        }
    }
    if state & 8 == 0 { server } else { client }
}

fn exchange(from: &mut Machine, to: &mut Machine) {
    let mut decoder = Decoder::new(PREAUTH_FRAME_BYTES_MAX);
    feed(to, &mut decoder, &from.take_output()).expect("our own machines agree");
}

fn offer(machine: &mut Machine) {
    let Some(sender) = machine.sender() else {
        return;
    };
    for number in 0..20 {
        let path = RelPath::parse(format!("file {number}").as_bytes()).expect("a legal path");
        let origin = Origin {
            source: 0,
            path: path.clone(),
        };
        let kind = Kind::File { size: 10 };
        sender.offer(
            &Entry {
                path,
                kind,
                meta: meta(),
            },
            None,
            origin,
        );
    }
    sender.list_end(true, None);
}

fn begin(direction: Direction) -> Begin {
    Begin {
        direction,
        flags: BeginFlags::default(),
        brake: Brake::Unlimited,
        target: None,
        scopes: Vec::new(),
        sources: Vec::new(),
        rules: Vec::new(),
    }
}
