//! Keeps `docs/PROTOCOL.md` true: its worked example is what the code sends, and its tables name every
//! frame type, close code and item code with the right number.

#![allow(clippy::unwrap_used)]

use std::fmt::Write as _;
use syncline::conn::{Event, Machine, Origin, Settlement};
use syncline::delta::content_id;
use syncline::model::limits::PREAUTH_FRAME_BYTES_MAX;
use syncline::model::{CloseCode, Entry, Fault, ItemCode, Kind, Meta, RelPath, Rights, Secret, ShareName, Timestamp};
use syncline::wire::{
    Begin, BeginFlags, Brake, Decoder, Direction, Finish, FrameType, Open, Opened, Piece, SettledResult, TargetKind,
    Verdict, features,
};

const CONTENT: &[u8] = b"hello\n";

/// The transcript of a push of two entries, a block for each frame.
struct Transcript(String);

impl Transcript {
    /// Takes what `from` has to say, writes it down, and gives it to `to`.
    fn pass(&mut self, arrow: &str, from: &mut Machine, to: &mut Machine, mut on: impl FnMut(&mut Machine, Event<'_>)) {
        let bytes = from.take_output();
        let mut decoder = Decoder::new(PREAUTH_FRAME_BYTES_MAX);
        let mut rest = &bytes[..];
        loop {
            let before = rest;
            let Some(piece) = decoder.next(&mut rest).unwrap() else {
                break;
            };
            let Piece::Control { kind, .. } = piece else {
                panic!("the example is small enough for inline files");
            };
            self.frame(arrow, kind, &before[..before.len() - rest.len()]);
            let event = to.handle(piece).unwrap();
            on(to, event);
        }
    }

    fn frame(&mut self, arrow: &str, kind: FrameType, bytes: &[u8]) {
        writeln!(self.0, "{arrow} {kind:?}").unwrap();
        for line in bytes.chunks(16) {
            let hex: Vec<String> = line.iter().map(|byte| format!("{byte:02x}")).collect();
            let shown: String = line
                .iter()
                .map(|byte| match byte {
                    0x20..=0x7e => char::from(*byte),
                    _ => '.',
                })
                .collect();
            writeln!(self.0, "  {:<47}  {shown}", hex.join(" ")).unwrap();
        }
    }
}

fn entry(path: &str, kind: Kind, mode: u32) -> Entry {
    let mtime = Timestamp {
        seconds: 1_704_067_200,
        nanos: 0,
    };
    Entry {
        path: RelPath::parse(path.as_bytes()).unwrap(),
        kind,
        meta: Meta { mode, mtime },
    }
}

fn example() -> String {
    let mut log = Transcript(String::new());
    let open = Open {
        share: Some(ShareName::parse("Share").unwrap()),
        secret: Some(Secret(std::array::from_fn(|index| index as u8))),
        wanted: Rights::READ_WRITE,
    };
    // What every build has: the example is the same in all of them.
    let offered = features::HOLES | features::DELTA;
    let (mut client, mut server) = (Machine::client_with("laptop", open, offered), Machine::server("nas"));
    log.pass(">", &mut client, &mut server, |_, _| {});
    log.pass("<", &mut server, &mut client, |_, _| {});
    let rights = Rights::READ_WRITE;
    log.pass(">", &mut client, &mut server, |server, _| {
        server.grant(Opened { rights, paired: true });
    });
    log.pass("<", &mut server, &mut client, |_, _| {});
    client.begin(&Begin {
        direction: Direction::Push,
        flags: BeginFlags::default(),
        brake: Brake::Default,
        target: None,
        scopes: vec![Some(RelPath::parse(b"docs").unwrap())],
        sources: Vec::new(),
        rules: Vec::new(),
    });
    log.pass(">", &mut client, &mut server, |server, _| {
        server.ready(TargetKind::Directory);
    });
    log.pass("<", &mut server, &mut client, |_, _| {});

    let file = entry(
        "docs/a",
        Kind::File {
            size: CONTENT.len() as u64,
        },
        0o644,
    );
    let sender = client.sender().unwrap();
    for entry in [&entry("docs", Kind::Directory, 0o755), &file] {
        let origin = Origin {
            source: 0,
            path: entry.path.clone(),
        };
        sender.offer(entry, None, origin);
    }
    sender.list_end(true, None);
    log.pass(">", &mut client, &mut server, |_, _| {});
    let receiver = server.receiver().unwrap();
    receiver.answer(Verdict::Have);
    receiver.answer(Verdict::WantNew);
    log.pass("<", &mut server, &mut client, |_, _| {});
    let root = content_id(CONTENT).root;
    client.sender().unwrap().inline(&file.meta, root, CONTENT);
    log.pass(">", &mut client, &mut server, |server, event| {
        let Event::Inline(inline) = event else {
            panic!("{event:?}");
        };
        server.receiver().unwrap().settle(inline.file, SettledResult::Committed);
    });
    server.receiver().unwrap().finish(Finish::Done { deleted: 0 });
    log.pass("<", &mut server, &mut client, |_, _| {});
    let last = std::iter::from_fn(|| client.sender().unwrap().poll_report()).last();
    assert_eq!(last.unwrap().settlement, Settlement::Committed(Verdict::WantNew));
    client.end_transfer();
    client.close(&Fault::new(CloseCode::Done, ""));
    log.pass(">", &mut client, &mut server, |_, _| {});
    assert!(server.is_closed());
    log.0
}

fn document() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/PROTOCOL.md");
    std::fs::read_to_string(path).unwrap()
}

// The bytes that a reader of the document will compare with are the bytes on the wire. When they
// change on purpose, so does the protocol's version.
#[test]
fn the_worked_example_is_what_the_code_sends() {
    let document = document();
    let block = document.split("```hexdump\n").nth(1).expect("a block ```hexdump");
    let block = block.split("```").next().unwrap();
    let example = example();
    assert!(block == example, "docs/PROTOCOL.md should hold:\n{example}");
}

/// The first cell of the row whose second cell is `name`.
fn number_of(section: &str, name: &str) -> Option<String> {
    let document = document();
    let section = document.split(section).nth(1)?;
    let section = section.split("\n## ").next()?;
    let mut rows = section.lines().filter_map(|line| {
        let mut cells = line.strip_prefix('|')?.split('|').map(str::trim);
        Some((cells.next()?.to_owned(), cells.next()?.to_owned()))
    });
    rows.find(|(_, own)| own == name).map(|(number, _)| number)
}

// A number in a table that is not the number in the code would mislead whoever writes a client.
#[test]
fn tables_name_every_number() {
    for kind in FrameType::ALL {
        let number = number_of("\n## Frame types", &format!("{kind:?}"));
        assert_eq!(number, Some((kind as u8).to_string()), "{kind:?}");
    }
    for code in CloseCode::ALL {
        let number = number_of("\n## Close codes", &format!("{code:?}"));
        assert_eq!(number, Some((code as u16).to_string()), "{code:?}");
    }
    for code in ItemCode::ALL {
        let number = number_of("\n## Item codes", &format!("{code:?}"));
        assert_eq!(number, Some((code as u8).to_string()), "{code:?}");
    }
}

// The limits in the document are those of the code.
#[test]
fn the_document_names_every_limit() {
    use syncline::model::limits::*;
    let limits = [
        ("control frame", CONTROL_FRAME_BYTES_MAX as u64),
        ("frame before the share is open", PREAUTH_FRAME_BYTES_MAX as u64),
        ("data frame", BULK_FRAME_BYTES_MAX as u64),
        ("path", PATH_BYTES_MAX as u64),
        ("path component", NAME_BYTES_MAX as u64),
        ("components in a path", PATH_DEPTH_MAX as u64),
        ("link target", SYMLINK_BYTES_MAX as u64),
        ("share name", SHARE_NAME_BYTES_MAX as u64),
        ("device name", DEVICE_NAME_BYTES_MAX as u64),
        ("close text", TEXT_BYTES_MAX as u64),
        (
            "entries, answer runs, paths or entries of one run in a frame",
            BATCH_ENTRIES_MAX as u64,
        ),
        ("entries open at a time", OFFER_WINDOW as u64),
        ("paths and link targets of open entries", OFFER_WINDOW_BYTES as u64),
        ("first credit", CREDIT_WINDOW_BYTES),
        ("inline file", INLINE_BYTES_MAX),
        ("body of a question or of a piece of an answer", TELL_BYTES_MAX as u64),
        ("files asked about at a time", ASKED_MAX as u64),
        ("questions about one basis", u64::from(QUESTIONS_MAX)),
        ("file", FILE_BYTES_MAX),
        ("attempts at one file after the first", u64::from(CHANGED_RETRIES_MAX)),
        ("sources, and scopes", SOURCES_MAX as u64),
        ("filter rules", FILTER_RULES_MAX as u64),
        ("filter rule", FILTER_RULE_BYTES_MAX as u64),
        ("filter rules together", FILTER_BYTES_MAX as u64),
    ];
    for (name, value) in limits {
        assert_eq!(number_of("\n## Limits", name), Some(value.to_string()), "{name}");
    }
}
