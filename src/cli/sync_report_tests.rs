//! What a sync says, by the events of a run.

use super::super::console::capture;
use super::*;
use syncline::model::Revision;

fn parties(watch: bool) -> Parties {
    Parties {
        folder: "my share".to_owned(),
        share: "Share".to_owned(),
        mode: Mode::TwoWaySafe,
        watch,
        is_dry: false,
        introduced: true,
        peer: None,
    }
}

fn item(name: &str) -> ClientEvent {
    ClientEvent::Item {
        path: RelPath::parse(name.as_bytes()).unwrap(),
        action: Action::Created,
        size: 1,
        figures: Figures::default(),
    }
}

fn in_sync(entries: u64) -> ClientEvent {
    ClientEvent::InSync {
        entries,
        revision: Revision(7),
    }
}

fn ended(result: Result<(), JobError>) -> Outcome {
    Outcome {
        summary: Summary::default(),
        result,
        come_back: None,
    }
}

// Protects a user of `peer`: the command that is named goes on with that peer.
#[test]
fn the_command_of_a_peer_is_named() {
    let (console, _, err) = capture::console(Format::Text, Verbosity::Normal);
    let parties = Parties {
        peer: Some("laptop.local".to_owned()),
        ..parties(true)
    };
    let mut report = SyncReport::new(&console, parties, Instant::now());
    report.handle(in_sync(2), Instant::now());
    report
        .finish(ended(Err(JobError::Interrupted { signal: Some(2) })))
        .unwrap();
    let again = "stopped, state saved: syncline peer 'my share' --with laptop.local goes on from here\n";
    assert!(err.text().ends_with(again), "{}", err.text());
}

// Protects whoever looks for the cause: what failed is no change of somebody else.
#[test]
fn a_run_in_which_something_failed_says_so_and_no_more() {
    let (console, _, err) = capture::console(Format::Text, Verbosity::Normal);
    let mut report = SyncReport::new(&console, parties(false), Instant::now());
    let mut outcome = ended(Ok(()));
    outcome.summary.failed = 1;
    assert_eq!(report.finish(outcome).unwrap().exit.code(), 3);
    assert!(err.text().contains("not in sync yet · 1 failed"), "{}", err.text());
}

// Protects whoever reads the log of a watch: one line for each change set, none for looks that found nothing.
#[test]
fn a_watch_says_one_line_for_what_was_carried_over_together() {
    let (console, _, err) = capture::console(Format::Text, Verbosity::Normal);
    let mut report = SyncReport::new(&console, parties(true), Instant::now());
    let events = [
        in_sync(2),
        in_sync(2),
        item("a"),
        item("b"),
        in_sync(4),
        in_sync(4),
        item("c"),
        in_sync(4),
    ];
    for event in events {
        report.handle(event, Instant::now());
    }
    let interrupted = JobError::Interrupted { signal: Some(2) };
    let ending = report.finish(ended(Err(interrupted))).unwrap();
    assert_eq!(ending.exit.code(), 130);
    assert_eq!(
        err.text(),
        "✓ 2 entries in sync\n✓ a and 1 more · 4 entries in sync\n✓ c · 4 entries in sync\n\
         stopped, state saved: syncline sync 'my share' --watch goes on from here\n"
    );
}

// Protects scripts from taking a run for done that was not: what failed, conflicts, and no end in sight.
#[test]
fn the_code_is_that_of_the_worst_that_happened() {
    let conflict = ClientEvent::Conflict {
        path: RelPath::parse(b"a").unwrap(),
        copy: None,
    };
    let failed = || ClientEvent::Failed {
        path: "b".to_owned(),
        code: ItemCode::Permission,
        warning: false,
    };
    for (events, code) in [
        (vec![in_sync(1)], 0),
        (vec![conflict.clone(), in_sync(1)], 4),
        (vec![failed(), conflict, in_sync(1)], 3),
        (vec![failed(), item("b"), in_sync(1)], 0),
        (vec![item("b")], 5),
    ] {
        let (console, ..) = capture::console(Format::Text, Verbosity::Normal);
        let mut report = SyncReport::new(&console, parties(false), Instant::now());
        for event in events.clone() {
            report.handle(event, Instant::now());
        }
        assert_eq!(report.finish(ended(Ok(()))).unwrap().exit.code(), code, "{events:?}");
    }
}

// Protects scripts: every line of a `--json` run is an object that says what it is.
#[test]
fn conflicts_and_failures_are_objects_once_each() {
    let (console, out, err) = capture::console(Format::Json, Verbosity::Normal);
    let mut report = SyncReport::new(&console, parties(false), Instant::now());
    let path = RelPath::parse(b"a").unwrap();
    let copy = Some(path.clone());
    report.handle(ClientEvent::Conflict { path, copy }, Instant::now());
    for _ in 0..2 {
        report.failed("b", ItemCode::Permission, false);
    }
    report.handle(in_sync(1), Instant::now());
    report.finish(ended(Ok(()))).unwrap();
    let objects: Vec<Value> = out
        .text()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let told: Vec<_> = objects
        .iter()
        .map(|object| (object["event"].as_str().unwrap(), object["state"].as_str()))
        .collect();
    assert_eq!(
        told,
        [
            ("status", Some("conflict")),
            ("error", None),
            ("status", Some("in_sync"))
        ]
    );
    assert_eq!(err.text(), "");
}

// Protects from advice that does not fit: a server without sync is no matter of flags.
#[test]
fn a_server_without_sync_is_a_sentence_and_what_to_do() {
    let (console, ..) = capture::console(Format::Text, Verbosity::Normal);
    let mut report = SyncReport::new(&console, parties(false), Instant::now());
    let error = JobError::Unsupported {
        what: "to keep folders in sync",
    };
    let complaint = report.finish(ended(Err(error))).unwrap_err();
    assert_eq!(complaint.exit.code(), 1);
    assert!(complaint.what.contains("to keep folders in sync"), "{}", complaint.what);
    assert!(
        complaint.advice.contains("update syncline on the server"),
        "{}",
        complaint.advice
    );
}

#[test]
fn what_went_the_other_way_is_told_unless_it_hardly_counts() {
    let mut summary = Summary {
        wire_received: 5 << 30,
        wire_sent: 4096,
        ..Summary::default()
    };
    assert_eq!(traffic(&summary), "5.0 GiB received in 0.00 s");
    summary.wire_sent = 6 << 30;
    assert_eq!(traffic(&summary), "6.0 GiB sent, 5.0 GiB received in 0.00 s");
}
