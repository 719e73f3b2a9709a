//! Generators for every message, as whole frames. Each compares the message with its own decoding.

use proptest::collection::vec;
use proptest::prelude::*;
use syncline::model::limits::{FILE_BYTES_MAX, INLINE_BYTES_MAX};
use syncline::model::{
    CloseCode, Entry, Epoch, Fault, ItemCode, Kind, Meta, RelPath, Revision, Rights, Secret, ShareName, State,
    Timestamp,
};
use syncline::wire::{
    Alter, Alteration, Altered, Answers, Begin, BeginFlags, Brake, Change, ChangesHead, ChangesReader, ChangesWriter,
    Direction, End, EndOutcome, EntriesReader, EntriesWriter, FRAME_HEADER_BYTES, Finish, FrameType, Hello, Hole,
    Inline, Known, ListEnd, Message, News, Offered, Open, Opened, PullSource, RemovedReader, RemovedWriter, Rule,
    SettledReader, SettledResult, SettledWriter, Since, SourceFailed, Start, TargetKind, Verdict, data_header,
};

/// Encodes a message, and checks that it comes back.
macro_rules! sealed {
    ($type:ident, $stream:expr, $message:expr) => {{
        let message = $message;
        let mut frame = Vec::new();
        message.encode($stream, &mut frame);
        assert_eq!($type::decode(&frame[FRAME_HEADER_BYTES..]).as_ref(), Ok(&message));
        frame
    }};
}

/// A frame of any type.
pub(crate) fn any_frame() -> BoxedStrategy<Vec<u8>> {
    prop_oneof![
        session_frame(),
        batch_frame(),
        file_frame(),
        begin().boxed(),
        syncing_frame()
    ]
    .boxed()
}

fn session_frame() -> BoxedStrategy<Vec<u8>> {
    let hello = (any::<[u16; 2]>(), any::<u64>(), "[a-zé]{0,20}").prop_map(|(versions, features, name)| {
        let [version_min, version_max] = versions;
        sealed!(
            Hello,
            0,
            Hello {
                version_min,
                version_max,
                features,
                name: &name
            }
        )
    });
    let open = (
        proptest::option::of("[a-zA-Z][a-z ]{0,20}"),
        any::<Option<[u8; 16]>>(),
        rights(),
    );
    let open = open.prop_map(|(share, secret, wanted)| {
        let share = share.map(|name| ShareName::parse(&name).unwrap());
        sealed!(
            Open,
            0,
            Open {
                share,
                secret: secret.map(Secret),
                wanted
            }
        )
    });
    let opened = (rights(), any::<bool>());
    let opened = opened.prop_map(|(rights, paired)| sealed!(Opened, 0, Opened { rights, paired }));
    let code = proptest::sample::select(&CloseCode::ALL[..]);
    let close = (code, "[ -~é]{0,200}").prop_map(|(code, text)| sealed!(Fault, 0, Fault::new(code, text)));
    let number = (any::<u64>(), 0..3usize).prop_map(|(number, kind)| {
        let kinds = [(FrameType::Ping, 0), (FrameType::Pong, 0), (FrameType::Credit, 1)];
        raw(kinds[kind].0, kinds[kind].1, &number.to_le_bytes())
    });
    let query = Just(raw(FrameType::StatusQuery, 0, b""));
    let reply = vec(any::<u8>(), 0..50).prop_map(|json| raw(FrameType::StatusReply, 0, &json));
    prop_oneof![hello, open, opened, close, number, query, reply].boxed()
}

fn begin() -> impl Strategy<Value = Vec<u8>> {
    let brake = prop_oneof![
        Just(Brake::Default),
        any::<u64>().prop_map(Brake::Count),
        (0u8..=100).prop_map(Brake::Percent),
        Just(Brake::Unlimited),
    ];
    let source = (optional_path(), any::<bool>());
    let source = source.prop_map(|(path, contents_only)| PullSource { path, contents_only });
    let rule = ("[ -~]{0,30}", any::<bool>());
    let rule = rule.prop_map(
        |(text, keep)| {
            if keep { Rule::Include(text) } else { Rule::Exclude(text) }
        },
    );
    let places = (optional_path(), vec(optional_path(), 0..4), vec(source, 0..4));
    let strategy = (any::<[bool; 5]>(), brake, places, vec(rule, 0..5));
    strategy.prop_map(
        |([push, dry_run, checksum, delete, sync], brake, (target, scopes, sources), rules)| {
            let direction = if push { Direction::Push } else { Direction::Pull };
            let flags = BeginFlags {
                dry_run,
                checksum,
                delete,
                in_place: delete,
                sync,
            };
            sealed!(
                Begin,
                1,
                Begin {
                    direction,
                    flags,
                    brake,
                    target,
                    scopes,
                    sources,
                    rules
                }
            )
        },
    )
}

fn file_frame() -> BoxedStrategy<Vec<u8>> {
    let kinds = [
        TargetKind::Absent,
        TargetKind::File,
        TargetKind::Directory,
        TargetKind::Other,
    ];
    let ready = proptest::sample::select(kinds.to_vec()).prop_map(|kind| sealed!(TargetKind, 1, kind));
    let start = (any::<u32>(), 0..=FILE_BYTES_MAX, any::<bool>(), meta());
    let start = start.prop_map(|(file, size, sparse, meta)| {
        sealed!(
            Start,
            1,
            Start {
                file,
                size,
                sparse,
                meta
            }
        )
    });
    let data = (any::<u32>(), vec(any::<u8>(), 0..200));
    let data = data.prop_map(|(file, bytes)| [&data_header(1, file, bytes.len())[..], &bytes].concat());
    let hole = (any::<u32>(), 1..=FILE_BYTES_MAX);
    let hole = hole.prop_map(|(file, length)| sealed!(Hole, 1, Hole { file, length }));
    let outcome = prop_oneof![
        any::<[u8; 32]>().prop_map(EndOutcome::Complete),
        Just(EndOutcome::Changed),
        code().prop_map(EndOutcome::Failed),
    ];
    let end = (any::<u32>(), outcome).prop_map(|(file, outcome)| sealed!(End, 1, End { file, outcome }));
    let inline = (
        any::<u32>(),
        meta(),
        any::<[u8; 32]>(),
        vec(any::<u8>(), 0..=INLINE_BYTES_MAX as usize),
    );
    let inline = inline.prop_map(|(file, meta, root, bytes)| {
        sealed!(
            Inline,
            1,
            Inline {
                file,
                meta,
                root,
                bytes: &bytes
            }
        )
    });
    let list_end = (any::<u32>(), any::<bool>(), proptest::option::of(meta()));
    let list_end =
        list_end.prop_map(|(entries, complete, top)| sealed!(ListEnd, 1, ListEnd { entries, complete, top }));
    let failed = (code(), vec(any::<u8>(), 0..100));
    let failed = failed.prop_map(|(code, path)| sealed!(SourceFailed, 1, SourceFailed { path: &path, code }));
    let finish = prop_oneof![
        any::<u64>().prop_map(|deleted| Finish::Done { deleted }),
        any::<[u64; 2]>().prop_map(|[deletions, existing]| Finish::MassDelete { deletions, existing }),
        Just(Finish::Incomplete),
    ];
    let finish = finish.prop_map(|finish| sealed!(Finish, 1, finish));
    prop_oneof![ready, start, data, hole, end, inline, list_end, failed, finish].boxed()
}

fn batch_frame() -> BoxedStrategy<Vec<u8>> {
    let offer = (any::<u32>(), vec(offered(), 1..20));
    let offer = offer.prop_map(|(first, entries)| offer_frame(first, entries));
    let answers = vec((verdict(), 1..300usize), 1..20).prop_map(|runs| {
        let (mut answers, mut frame) = (Answers::default(), Vec::new());
        let each = |(verdict, count): &(Verdict, usize)| vec![*verdict; *count];
        let verdicts: Vec<Verdict> = runs.iter().flat_map(each).collect();
        verdicts.iter().for_each(|verdict| answers.push(*verdict));
        answers.flush(1, &mut frame);
        let again = Answers::decode(&frame[FRAME_HEADER_BYTES..]).unwrap();
        let again = again.iter().flat_map(|run| vec![run.verdict; run.count]);
        assert!(again.eq(verdicts));
        frame
    });
    let result = prop_oneof![
        Just(SettledResult::Committed),
        Just(SettledResult::Resend),
        code().prop_map(SettledResult::Failed),
    ];
    let settled = vec((any::<u32>(), result), 1..20).prop_map(|results| {
        let (mut writer, mut frame) = (SettledWriter::default(), Vec::new());
        results.iter().for_each(|(file, result)| writer.push(*file, *result));
        writer.flush(1, &mut frame);
        let mut reader = SettledReader::new(&frame[FRAME_HEADER_BYTES..]);
        assert!(std::iter::from_fn(|| reader.next_result().unwrap()).eq(results));
        frame
    });
    let removed = vec(path(), 1..20).prop_map(|paths| {
        let (mut writer, mut frame) = (RemovedWriter::default(), Vec::new());
        paths.iter().for_each(|path| {
            writer.push(path);
        });
        writer.flush(1, &mut frame);
        let mut reader = RemovedReader::new(&frame[FRAME_HEADER_BYTES..]).unwrap();
        assert!(std::iter::from_fn(|| reader.next_path().unwrap()).eq(paths));
        frame
    });
    prop_oneof![offer, answers, settled, removed].boxed()
}

fn offered() -> impl Strategy<Value = Offered> {
    let based_on = proptest::option::of(any::<u64>().prop_map(Revision));
    (entry(), any::<Option<[u8; 32]>>(), based_on).prop_map(|(entry, root, based_on)| Offered {
        root: root.filter(|_| matches!(entry.kind, Kind::File { .. })),
        entry,
        based_on,
    })
}

fn offer_frame(first: u32, entries: Vec<Offered>) -> Vec<u8> {
    let (mut writer, mut frame) = (EntriesWriter::default(), Vec::new());
    entries
        .iter()
        .for_each(|one| writer.push(&one.entry, one.root.as_ref(), one.based_on));
    writer.flush(1, first, &mut frame);
    let mut reader = EntriesReader::new(&frame[FRAME_HEADER_BYTES..]).unwrap();
    assert_eq!(reader.first(), first);
    assert!(std::iter::from_fn(|| reader.next_entry().unwrap()).eq(entries));
    frame
}

fn syncing_frame() -> BoxedStrategy<Vec<u8>> {
    let known = (any::<u64>(), any::<u64>(), any::<u64>()).prop_map(|(epoch, revision, mark)| Known {
        epoch: Epoch(epoch),
        revision: Revision(revision),
        mark,
    });
    let known = known.boxed();
    let since = (known.clone(), any::<bool>()).prop_map(|(known, watch)| sealed!(Since, 0, Since { known, watch }));
    let news = any::<u64>().prop_map(|number| {
        let revision = Revision(number);
        sealed!(News, 0, News { revision })
    });
    let one = (path(), any::<u64>(), proptest::option::of(path()));
    let one = one.prop_map(|(from, based_on, to)| match to {
        None => Alteration::Remove {
            path: from,
            based_on: Revision(based_on),
        },
        Some(to) => Alteration::Move {
            from,
            from_based_on: Revision(based_on),
            to,
        },
    });
    let alter = vec(one, 0..20).prop_map(|list| sealed!(Alter, 0, Alter { list }));
    let outcomes = vec(proptest::option::of(code()), 0..300);
    let altered = outcomes.prop_map(|codes| {
        let outcomes = codes.into_iter().map(|code| code.map_or(Ok(()), Err)).collect();
        sealed!(Altered, 0, Altered { outcomes })
    });
    let page = (known, any::<[bool; 3]>(), vec((offered(), any::<bool>()), 0..20)).prop_map(changes_frame);
    prop_oneof![since, news, alter, altered, page].boxed()
}

fn changes_frame((mut known, [more, anew, folds], list): (Known, [bool; 3], Vec<(Offered, bool)>)) -> Vec<u8> {
    known.revision = Revision(list.len() as u64 * 3);
    let head = ChangesHead {
        known,
        more,
        anew,
        folds,
    };
    let change = |(number, (one, is_gone)): (usize, (Offered, bool))| Change {
        state: (!is_gone).then(|| State {
            root: one.root,
            ..State::of(&one.entry)
        }),
        path: one.entry.path,
        revision: Revision(number as u64 * 3 + 1),
    };
    let changes: Vec<Change> = list.into_iter().enumerate().map(change).collect();
    let (mut writer, mut frame) = (ChangesWriter::default(), Vec::new());
    changes
        .iter()
        .for_each(|change| writer.push(&change.path, change.revision, change.state.as_ref()));
    writer.finish(&head, &mut frame);
    let mut reader = ChangesReader::new(&frame[FRAME_HEADER_BYTES..]).unwrap();
    assert_eq!(reader.head(), head);
    assert!(std::iter::from_fn(|| reader.next_change().unwrap()).eq(changes));
    frame
}

fn raw(kind: FrameType, stream: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_le_bytes().to_vec();
    frame.extend([kind as u8, 0]);
    frame.extend(stream.to_le_bytes());
    frame.extend_from_slice(payload);
    frame
}

fn rights() -> impl Strategy<Value = Rights> {
    (0u8..4).prop_map(|bits| Rights::from_bits(bits).unwrap())
}

fn code() -> impl Strategy<Value = ItemCode> {
    proptest::sample::select(&ItemCode::ALL[..])
}

fn verdict() -> impl Strategy<Value = Verdict> {
    prop_oneof![
        Just(Verdict::Have),
        Just(Verdict::WantNew),
        Just(Verdict::WantReplace),
        Just(Verdict::Created),
        Just(Verdict::Replaced),
        Just(Verdict::Touched),
        code().prop_map(Verdict::Failed),
    ]
}

fn meta() -> impl Strategy<Value = Meta> {
    (0u32..=0o777, any::<i64>(), 0u32..1_000_000_000).prop_map(|(mode, seconds, nanos)| {
        let mtime = Timestamp { seconds, nanos };
        Meta { mode, mtime }
    })
}

fn path() -> impl Strategy<Value = RelPath> {
    let name = prop_oneof![
        "[a-c]{1,3}".prop_map(String::into_bytes),
        vec(1u8.., 1..12).prop_map(|bytes| bytes.into_iter().filter(|byte| *byte != b'/').collect()),
    ];
    let name = name.prop_map(|name: Vec<u8>| match name.as_slice() {
        b"" | b"." | b".." => b"dots".to_vec(),
        _ => name,
    });
    vec(name, 1..5).prop_map(|names| RelPath::parse(&names.join(&b'/')).unwrap())
}

fn optional_path() -> impl Strategy<Value = Option<RelPath>> {
    proptest::option::of(path())
}

fn entry() -> impl Strategy<Value = Entry> {
    let kind = prop_oneof![
        (0..=FILE_BYTES_MAX).prop_map(|size| Kind::File { size }),
        Just(Kind::Directory),
        vec(1u8.., 1..30).prop_map(|target| Kind::Symlink { target: target.into() }),
    ];
    (path(), kind, meta()).prop_map(|(path, kind, meta)| Entry { path, kind, meta })
}

/// What people paste: links, content ids, filter rules with a path behind them.
pub(crate) fn any_text() -> BoxedStrategy<String> {
    let host = prop_oneof![Just("nas"), Just("192.168.1.20"), Just("[fe80::1%eth0]"), Just("")];
    let tail = "(:[0-9]{1,5})?(/[A-Za-z%.#]{0,8}){0,4}(#[0-9a-f]{64}([.][0-9a-f]{32})?)?";
    let link = (host, tail).prop_map(|(host, tail)| format!("syncline://{host}{tail}"));
    let rule = "[+]?[a-c*?!/{}\\[\\]\\\\^,-]{1,12}";
    let filter = (vec(rule, 0..6), "[a-c]{1,3}(/[a-c]{1,3}){0,4}");
    let filter = filter.prop_map(|(rules, path)| [rules.join("\n"), path].join("\n"));
    prop_oneof![
        link,
        "[0-9]{1,21}-[0-9a-fA-F]{63,65}",
        filter,
        "[a-z./\\x00-\\x1f]{0,40}"
    ]
    .boxed()
}
