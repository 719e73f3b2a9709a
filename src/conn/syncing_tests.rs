//! Tests of syncing between machines: what is negotiated, allowed, and open at a time.

use crate::conn::fixtures::{frames, give, open, opened, syncing_frames};
use crate::conn::{Event, Machine};
use crate::model::{CloseCode, Epoch, ItemCode, Kind, Meta, RelPath, Revision, Rights, State, Timestamp};
use crate::wire::{
    Alter, Alteration, Altered, ChangesHead, ChangesWriter, Decoder, FrameType, Known, News, Since, features,
};

const SINCE: Since = Since {
    known: Known {
        epoch: Epoch(5),
        revision: Revision(6),
        mark: 7,
    },
    watch: true,
};

fn handed(machine: &mut Machine, bytes: &[u8], on: &mut dyn FnMut(Event<'_>)) {
    let mut decoder = Decoder::new(1 << 20);
    let mut rest = bytes;
    while let Some(piece) = decoder.next(&mut rest).expect("a whole frame") {
        on(machine.handle(piece).expect("a legal one"));
    }
}

#[test]
fn a_question_about_changes_is_answered_with_a_page() {
    let (mut client, mut server) = opened(Rights::READ);
    client.since(&SINCE);
    let mut asked = None;
    handed(&mut server, &client.take_output(), &mut |event| match event {
        Event::Since(since) => asked = Some(since),
        other => panic!("{other:?}"),
    });
    assert_eq!(asked, Some(SINCE));
    let mut page = ChangesWriter::default();
    let mtime = Timestamp { seconds: 1, nanos: 0 };
    let state = State {
        kind: Kind::File { size: 3 },
        meta: Meta { mode: 0o600, mtime },
        root: Some([1; 32]),
    };
    page.push(&RelPath::parse(b"a").unwrap(), Revision(7), Some(&state));
    page.push(&RelPath::parse(b"b").unwrap(), Revision(9), None);
    let known = Known {
        revision: Revision(9),
        ..SINCE.known
    };
    let head = ChangesHead {
        known,
        more: false,
        anew: false,
        folds: true,
    };
    server.changes(&head, page);
    server.news(&News { revision: Revision(10) });
    let (mut changes, mut news) = (Vec::new(), None);
    handed(&mut client, &server.take_output(), &mut |event| match event {
        Event::Changes(mut page) => {
            assert_eq!(page.head(), head);
            changes.extend(std::iter::from_fn(|| page.next_change().unwrap()));
        }
        Event::News(word) => news = Some(word.revision),
        other => panic!("{other:?}"),
    });
    assert_eq!(changes.len(), 2);
    assert_eq!(
        (changes[0].state.as_ref(), changes[1].state.as_ref()),
        (Some(&state), None)
    );
    assert_eq!(news, Some(Revision(10)));
}

#[test]
fn moves_and_removals_get_one_outcome_each_and_no_transfer_runs_beside_them() {
    let (mut client, mut server) = opened(Rights::READ_WRITE);
    let list = vec![Alteration::Remove {
        path: RelPath::parse(b"a").unwrap(),
        based_on: Revision(4),
    }];
    client.alter(&Alter { list: list.clone() });
    handed(&mut server, &client.take_output(), &mut |event| {
        assert_eq!(event, Event::Alter(Alter { list: list.clone() }));
    });
    let begin = frames()
        .into_iter()
        .find(|(kind, _)| *kind == FrameType::Begin)
        .unwrap()
        .1;
    let outcomes = vec![Err(ItemCode::Stale)];
    server.altered(&Altered {
        outcomes: outcomes.clone(),
    });
    handed(&mut client, &server.take_output(), &mut |event| {
        assert_eq!(
            event,
            Event::Altered(Altered {
                outcomes: outcomes.clone()
            })
        );
    });
    // Both are idle again.
    assert!(give(&mut server, &begin).unwrap().starts_with("Begin"));
}

// Row 19, 25: reading and writing need their rights here as well, and what is out of place is refused.
#[test]
fn each_message_needs_its_right_its_state_and_to_be_negotiated() {
    let [since, changes, news, alter, altered] = syncing_frames().map(|(_, frame)| frame);
    let (mut client, mut server) = opened(Rights::READ);
    assert_eq!(give(&mut server, &alter).unwrap_err().code, CloseCode::Forbidden);
    for frame in [&changes, &altered, &since, &alter] {
        assert_eq!(give(&mut client, frame).unwrap_err().code, CloseCode::Protocol);
    }
    assert!(give(&mut client, &news).is_ok());
    give(&mut server, &since).unwrap();
    assert_eq!(give(&mut server, &since).unwrap_err().code, CloseCode::Protocol);
    let (_, mut server) = opened(Rights {
        read: false,
        write: true,
    });
    assert_eq!(give(&mut server, &since).unwrap_err().code, CloseCode::Forbidden);
    give(&mut server, &alter).unwrap();
    assert_eq!(give(&mut server, &alter).unwrap_err().code, CloseCode::Protocol);
    let without = features::ALL & !features::SYNC;
    let (mut client, mut server) = (Machine::client_with("c", open(), without), Machine::server("s"));
    give(&mut server, &client.take_output()).unwrap();
    give(&mut client, &server.take_output()).unwrap();
    give(&mut server, &client.take_output()).unwrap();
    server.grant(crate::wire::Opened {
        rights: Rights::READ_WRITE,
        paired: false,
    });
    assert_eq!(give(&mut server, &since).unwrap_err().code, CloseCode::Protocol);
}
