//! `sync --dry-run`: what it tells, and that it does nothing.
#![cfg(feature = "sync")]
#![allow(clippy::unwrap_used)]

mod binary;
mod harness;

use binary::Sandbox;
use harness::snapshot;
use harness::syncing::tree;
use std::fs;

// Protects whoever asks before the first sync: nothing is made, not even the folder or what would be remembered of it.
#[test]
fn a_first_dry_run_leaves_no_trace() {
    let sandbox = Sandbox::new();
    sandbox.file("share/a", b"a");
    sandbox.file("share/sub/b", b"bb");
    let served = sandbox.serve(&[]);
    let link = served.link("");
    sandbox.run(&["sync", "other", &served.invite()]).expect(0);
    let run = sandbox.run(&["sync", "-n", "new/here", &link]);
    assert_eq!(
        run.expect(0).out,
        "here: would be created sub (0 B)\nhere: would be created a (1 B)\nhere: would be created sub/b (2 B)\n"
    );
    assert!(
        run.err
            .contains("✓ dry run: 3 changes would be made here; nothing was done"),
        "{}",
        run.err
    );
    assert!(!sandbox.path("new").exists());
    sandbox.file("here/mine", b"mine");
    let run = sandbox.run(&["sync", "-n", "here", &link]);
    assert!(
        run.expect(0).out.contains("share: would be created mine (4 B)"),
        "{}",
        run.out
    );
    let left: Vec<_> = fs::read_dir(sandbox.path("here")).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
    sandbox
        .run(&["sync", "here"])
        .complains(7, "does not know what to sync with");
}

// Protects both sides: each kind of change is told as it would be done, and all is as it was; then it is done.
#[test]
fn what_is_told_is_what_a_run_would_do() {
    let sandbox = Sandbox::new();
    for name in ["keep", "edit", "gone here", "gone there", "both", "move"] {
        sandbox.file(&format!("share/{name}"), name.as_bytes());
    }
    let served = sandbox.serve(&[]);
    sandbox.run(&["sync", "here", &served.invite()]).expect(0);
    sandbox.run(&["sync", "other", &served.invite()]).expect(0);
    sandbox.file("other/both", b"both, other");
    sandbox.file("other/new there", b"new");
    fs::remove_file(sandbox.path("other/gone there")).unwrap();
    sandbox.run(&["sync", "other"]).expect(0);
    sandbox.file("here/both", b"both, here");
    sandbox.file("here/edit", b"edited");
    fs::remove_file(sandbox.path("here/gone here")).unwrap();
    fs::rename(sandbox.path("here/move"), sandbox.path("here/moved")).unwrap();
    let before = [snapshot(&sandbox.path("here")), tree(&sandbox.path("share"))];
    let [status, changes] = ["status", "diff"].map(|command| sandbox.run(&[command, "here"]).out);
    let run = sandbox.run(&["sync", "here", "--dry-run"]);
    assert_eq!(run.code, 4, "as the run itself: {}", run.err);
    let mut lines: Vec<&str> = run.out.lines().collect();
    lines.sort_unstable();
    assert_eq!(
        lines,
        [
            "here: would be created both (11 B)",
            "here: would be created new there (3 B)",
            "here: would be deleted gone there",
            "share: would be deleted gone here",
            "share: would be moved moved",
            "share: would be replaced edit (6 B)",
        ]
    );
    assert!(
        run.err.contains("yours would be kept as both.sync-conflict-"),
        "{}",
        run.err
    );
    assert!(run.err.contains("nothing was done · 1 conflict"), "{}", run.err);
    let objects = sandbox.run(&["sync", "here", "-n", "--json"]).objects();
    let edit = objects.iter().find(|object| object["path"] == "edit").unwrap();
    assert_eq!((&edit["side"], &edit["dry_run"]), (&"share".into(), &true.into()));
    let after = [snapshot(&sandbox.path("here")), tree(&sandbox.path("share"))];
    assert_eq!(before, after);
    let now = ["status", "diff"].map(|command| sandbox.run(&[command, "here"]).out);
    assert_eq!(now[0].lines().count(), status.lines().count());
    assert_eq!(now[1], changes, "the base is as it was");
    assert_eq!(sandbox.run(&["sync", "here"]).code, 4);
    let run = sandbox.run(&["sync", "here", "-n"]);
    assert!(
        run.expect(0).err.contains("dry run: nothing would be done"),
        "{}",
        run.err
    );
}

// Row 18: the brake is told as the run itself would tell it.
#[test]
fn the_brake_stops_a_dry_run_too() {
    let sandbox = Sandbox::new();
    for number in 0..40 {
        sandbox.file(&format!("share/{number}"), b"x");
    }
    let served = sandbox.serve(&[]);
    sandbox.run(&["sync", "here", &served.invite()]).expect(0);
    for number in 0..39 {
        fs::remove_file(sandbox.path(&format!("here/{number}"))).unwrap();
    }
    sandbox
        .run(&["sync", "here", "-n"])
        .complains(7, "39 of 40 entries would be deleted");
    let run = sandbox.run(&["sync", "here", "-n", "--max-delete", "39"]);
    assert_eq!(run.expect(0).out.lines().count(), 39);
    assert_eq!(fs::read_dir(sandbox.path("share")).unwrap().count(), 41);
}
