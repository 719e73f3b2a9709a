//! `journal` and `doctor --repair` as a user runs them.

#![allow(clippy::unwrap_used)]

mod binary;

use binary::Sandbox;
use std::fs;
use std::path::PathBuf;
use syncline::model::{DeviceId, RelPath, Timestamp};
use syncline::store::{Home, Incoming, Journal, Reached, Root, Subject, TransferId, inspect};

const LEAF: u64 = 16_384;

/// A journal in `share` with one upload that is `leaves` leaves far, and another one that just began.
fn unfinished(sandbox: &Sandbox, name: &[u8], leaves: u64) -> TransferId {
    let root = Root::open(&sandbox.path("share")).unwrap();
    let mut journal = Journal::open(&root).unwrap();
    let incoming = |name: &[u8], peer: Option<DeviceId>| {
        Subject::Incoming(Incoming {
            path: RelPath::parse(name).unwrap(),
            peer,
            size: 4 << 20,
            mtime: Timestamp { seconds: 0, nanos: 0 },
            basis: None,
        })
    };
    let id = journal.begin(&incoming(name, Some(DeviceId([0; 32])))).unwrap();
    let reached = Reached {
        offset: leaves * LEAF,
        frontier: vec![[7; 32]; leaves.count_ones() as usize],
        changed: Vec::new(),
    };
    journal.reach(id, &reached);
    journal.begin(&incoming(b"just begun", None)).unwrap();
    id
}

fn journal_file(sandbox: &Sandbox) -> PathBuf {
    sandbox.path("share/.syncline/journal")
}

fn flip(sandbox: &Sandbox, at: usize) -> Vec<u8> {
    let mut bytes = fs::read(journal_file(sandbox)).unwrap();
    bytes[at] ^= 0x20;
    fs::write(journal_file(sandbox), &bytes).unwrap();
    bytes
}

// Protects whoever wants to know what is still under way, and what it takes on the disk.
#[test]
fn what_is_unfinished_is_listed_with_how_far_it_is() {
    let sandbox = Sandbox::new();
    let id = unfinished(&sandbox, b"a film\n.mkv\xff", 64);
    let kept = sandbox.path("share/.syncline/staging/kept");
    fs::create_dir_all(&kept).unwrap();
    fs::write(kept.join(id.to_string()), vec![1; 1 << 20]).unwrap();
    let run = sandbox.run(&["journal", "share"]);
    let lines: Vec<&str> = run.expect(0).out.lines().collect();
    assert_eq!(lines.len(), 3, "{}", run.out);
    assert!(
        lines[0].starts_with("a film\\n.mkv\\xff  from AAAA-AAAA"),
        "{}",
        run.out
    );
    for part in ["1.0/4.0 MiB (25.0 %)", "just now", "proven", "1.0 MiB staged"] {
        assert!(lines[0].contains(part), "{}", run.out);
    }
    assert!(lines[1].contains("from anyone") && lines[1].contains("staged file missing"));
    assert!(
        lines[2].starts_with("2 unfinished transfers in share · journal of "),
        "{}",
        run.out
    );

    let run = sandbox.run(&["journal", "share", "--json"]);
    let objects = run.expect(0).objects();
    let first = &objects[0];
    assert_eq!(
        (&first["event"], &first["direction"]),
        (&"item".into(), &"incoming".into())
    );
    assert_eq!(first["path_hex"], "612066696c6d0a2e6d6b76ff");
    assert_eq!(
        (&first["id"], &first["offset"]),
        (&id.to_string().into(), &(1 << 20).into())
    );
    assert_eq!(
        (&first["size"], &first["staged_bytes"]),
        (&(4 << 20).into(), &(1 << 20).into())
    );
    assert_eq!(
        (&first["proven"], &objects[1]["peer"]),
        (&true.into(), &serde_json::Value::Null)
    );
    let total = &objects[2];
    assert_eq!((&total["event"], &total["transfers"]), (&"status".into(), &2.into()));
    assert_eq!(total["file_bytes"], fs::metadata(journal_file(&sandbox)).unwrap().len());
    assert_eq!(run.summary()["exit_code"], 0);
}

// Protects a user who types the bare command: here, and what this device was sending.
#[test]
fn without_a_folder_it_is_this_one_and_the_device() {
    let sandbox = Sandbox::new();
    let file = sandbox.file("sent", &[7; 50_000]);
    let run = sandbox.run(&["journal"]);
    run.expect(0);
    assert!(run.out.is_empty() && run.err.contains("nothing that this device sends is unfinished"));
    let run = sandbox.run(&["journal", "share"]);
    assert!(
        run.expect(0)
            .err
            .contains("nothing is unfinished in share: it has no journal"),
        "{}",
        run.err
    );
    assert!(!sandbox.path("share/.syncline").exists());

    let home = Home::open(&sandbox.path("client")).unwrap();
    let mut journal = Journal::open_home(&home).unwrap();
    journal
        .begin(&Subject::Outgoing(inspect(&file).unwrap().identity))
        .unwrap();
    drop(journal);
    unfinished(&sandbox, b"here", 1);
    let inside = sandbox
        .command("client")
        .current_dir(sandbox.path("share"))
        .arg("journal")
        .output()
        .unwrap();
    let run = binary::finished(&inside);
    let lines: Vec<&str> = run.expect(0).out.lines().collect();
    assert!(
        lines[0].starts_with("here ") && lines[2].contains("transfers in ."),
        "{}",
        run.out
    );
    assert!(lines[3].starts_with("a file of 49 KiB (inode "), "{}", run.out);
    assert!(lines[3].contains("sent by this device"), "{}", run.out);
    assert!(
        lines[4].starts_with("1 unfinished transfer in this device"),
        "{}",
        run.out
    );
    sandbox.run(&["journal", "missing"]).complains(10, "missing");
}

// Protects a user with a damaged journal: told where and what to do, nothing is changed, then it is mended
// once.
#[test]
fn a_damaged_journal_is_named_and_mended() {
    let sandbox = Sandbox::new();
    unfinished(&sandbox, b"a", 64);
    let damaged = flip(&sandbox, 60);
    for command in ["journal", "doctor"] {
        let run = sandbox.run(&[command, "share"]);
        run.expect(1);
        let said = format!("{}{}", run.out, run.err);
        assert!(said.contains("damaged at byte 44"), "{said}");
        assert!(said.contains("syncline doctor --repair 'share'"), "{said}");
    }
    assert_eq!(fs::read(journal_file(&sandbox)).unwrap(), damaged);

    let run = sandbox.run(&["doctor", "--repair", "share"]);
    let text = &run.expect(0).out;
    assert!(
        text.contains("that of share was mended: 2 records kept with 1 unfinished transfer"),
        "{text}"
    );
    let copy = text
        .split_whitespace()
        .find(|word| word.starts_with("journal.damaged-"));
    let copy = sandbox
        .path("share/.syncline")
        .join(copy.unwrap().trim_end_matches(';'));
    assert_eq!(fs::read(copy).unwrap(), damaged);
    let again = sandbox.run(&["doctor", "--repair", "share"]);
    assert!(
        again.expect(0).out.contains("nothing to repair in share: it is whole"),
        "{}",
        again.out
    );
    assert_eq!(fs::read_dir(sandbox.path("share/.syncline")).unwrap().count(), 2);
    let listed = sandbox.run(&["journal", "share"]);
    assert!(listed.expect(0).out.contains("to be checked again"), "{}", listed.out);
}

// Protects a running process: what it has is read, and never mended under its hands.
#[test]
fn a_journal_in_use_is_read_and_not_mended() {
    let sandbox = Sandbox::new();
    unfinished(&sandbox, b"a", 64);
    let held = Journal::open(&Root::open(&sandbox.path("share")).unwrap()).unwrap();
    let run = sandbox.run(&["journal", "share"]);
    assert_eq!(run.expect(0).out.lines().count(), 3);
    let run = sandbox.run(&["doctor", "--repair", "share"]);
    let text = &run.expect(1).out;
    assert!(text.contains(&format!("(pid {})", std::process::id())), "{text}");
    drop(held);
}
