//! `sync` as a user runs it: what it says, its codes, where it refuses, and the commands for a synced folder.

#![cfg(feature = "sync")]
#![allow(clippy::unwrap_used)]

mod binary;

use binary::{Run, Sandbox, Served, signal};
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Stdio};

/// A folder in sync with a served share that held two files and a directory.
fn synced(sandbox: &Sandbox) -> Served {
    sandbox.file("share/a", b"a");
    sandbox.file("share/sub/b", b"b");
    let served = sandbox.serve(&[]);
    sandbox.run(&["sync", "here", &served.invite()]).expect(0);
    served
}

/// Whether an object is of this kind.
fn is_state(object: &serde_json::Value, state: &str) -> bool {
    object["event"] == "status" && object["state"] == state
}

/// A `sync --watch --json` of `here`, as a process.
struct Watching {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Watching {
    fn begin(sandbox: &Sandbox) -> Watching {
        let mut child = sandbox
            .command("client")
            .args(["sync", "here", "--watch", "--json"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let mut watching = Watching { child, out };
        watching.until("in_sync");
        watching
    }

    /// Reads on until it says that it is in this state.
    fn until(&mut self, state: &str) -> serde_json::Value {
        loop {
            let mut line = String::new();
            assert!(self.out.read_line(&mut line).unwrap() > 0, "it ended before {state}");
            let object: serde_json::Value = serde_json::from_str(&line).unwrap();
            if is_state(&object, state) {
                return object;
            }
        }
    }

    /// Interrupts it as Ctrl-C does; the rest of what it says.
    fn interrupt(mut self) -> Run {
        signal(&self.child, "INT");
        let (mut out, mut err) = (String::new(), String::new());
        self.out.read_to_string(&mut out).unwrap();
        self.child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
        let code = self.child.wait().unwrap().code().unwrap_or(-1);
        Run { code, out, err }
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

// Protects a stranger's first minute: who with, what came, what to type next, and that the folder remembers.
#[test]
fn the_first_run_says_who_what_and_what_next() {
    let sandbox = Sandbox::new();
    sandbox.file("share/a", b"a");
    sandbox.file("share/sub/b", b"b");
    let served = sandbox.serve(&[]);
    let run = sandbox.run(&["sync", "here", &served.invite()]);
    let lines: Vec<&str> = run.expect(0).err.lines().collect();
    assert_eq!(lines.len(), 2, "{}", run.err);
    assert!(
        lines[0].starts_with("Paired with ") && lines[0].ends_with(". Syncing here <-> Share"),
        "{}",
        lines[0]
    );
    assert!(
        lines[1].starts_with("✓ 3 entries in sync · 3 changes · "),
        "{}",
        lines[1]
    );
    assert!(
        lines[1].ends_with(" · next: syncline sync here --watch"),
        "{}",
        lines[1]
    );
    assert_eq!(run.out, "");
    assert_eq!(fs::read(sandbox.path("here/sub/b")).unwrap(), b"b");

    let run = sandbox.run(&["sync", "here"]);
    run.expect(0);
    assert!(
        run.err
            .starts_with("Syncing here <-> Share\n✓ 3 entries in sync · nothing had changed · "),
        "{}",
        run.err
    );
    for (mode, arrow) in [("one-way-safe", "->"), ("receive-only", "<-")] {
        let run = sandbox.run(&["sync", "here", "--mode", mode]);
        assert!(
            run.expect(0).err.starts_with(&format!("Syncing here {arrow} Share")),
            "{}",
            run.err
        );
    }
    let run = sandbox.run(&["sync", "here", "-q"]);
    assert_eq!((run.expect(0).out.as_str(), run.err.as_str()), ("", ""));
}

// Protects both versions of a file, and whoever has to choose: the code, the objects, the list.
#[test]
fn a_conflict_is_told_and_listed() {
    let sandbox = Sandbox::new();
    let served = synced(&sandbox);
    // What a transfer brings, the share knows at once.
    let theirs = sandbox.file("elsewhere/a", b"theirs");
    sandbox
        .run(&["push".as_ref(), theirs.as_os_str(), served.link("").as_ref()])
        .expect(0);
    sandbox.file("here/a", b"mine!");
    let run = sandbox.run(&["sync", "here", "--json"]);
    assert_eq!((run.code, &run.summary()["exit_code"]), (4, &4.into()), "{}", run.out);
    let objects = run.objects();
    let told = objects.iter().find(|object| is_state(object, "conflict")).unwrap();
    assert_eq!(told["path"], "a");
    let copy = told["copy"].as_str().unwrap().to_owned();
    assert!(copy.starts_with("a.sync-conflict-"), "{copy}");
    assert!(objects.iter().any(|object| is_state(object, "in_sync")), "{}", run.out);
    drop(served);

    let run = sandbox.run(&["conflicts", "here"]);
    run.expect(4);
    let lines: Vec<&str> = run.out.lines().collect();
    assert!(
        lines[0].starts_with("a  ") && lines[1].trim_start().starts_with(&copy),
        "{}",
        run.out
    );
    assert!(
        run.err.contains("to settle one: syncline conflicts --keep"),
        "{}",
        run.err
    );
    let object = &sandbox.run(&["conflicts", "here", "--json"]).objects()[0];
    assert_eq!(
        (&object["path"], &object["of"], &object["size"]),
        (&copy.clone().into(), &"a".into(), &5.into())
    );
}

// Protects what gives way in a decision: each way out keeps it, and what is not meant is left alone.
#[test]
fn a_conflict_is_settled_in_each_way() {
    let sandbox = Sandbox::new();
    drop(synced(&sandbox));
    let copy = "a.sync-conflict-20261120-214731-laptop";
    sandbox.file("here/a", b"theirs");
    fs::write(sandbox.path("here").join(copy), "mine!").unwrap();

    sandbox.run(&["conflicts", "--keep", "mine", "here/a"]).expect(0);
    assert_eq!(fs::read(sandbox.path("here/a")).unwrap(), b"mine!");
    assert!(!sandbox.path("here").join(copy).exists());
    let run = sandbox.run(&["conflicts", "here"]);
    assert!(run.expect(0).err.contains("no conflict copies"), "{}", run.err);
    sandbox.run(&["restore", "here/a"]).expect(0);
    assert!(
        fs::read_to_string(sandbox.path("here/a"))
            .unwrap()
            .starts_with("theirs")
    );

    fs::write(sandbox.path("here").join(copy), "again").unwrap();
    sandbox.run(&["conflicts", "--keep", "theirs", "here/a"]).expect(0);
    assert!(!sandbox.path("here").join(copy).exists());
    for tag in ["one", "two"] {
        let second = format!("here/a.sync-conflict-20261120-214731-{tag}");
        sandbox.file(&second, b"second");
    }
    sandbox
        .run(&["conflicts", "--keep", "both", "here/a"])
        .complains(2, "has 2 conflict copies");
    let run = sandbox.run(&[
        "conflicts",
        "--keep",
        "both",
        "here/a.sync-conflict-20261120-214731-one",
    ]);
    assert_eq!(run.expect(0).out, "both stay; the copy is a (one 2026-11-20) now\n");
    sandbox
        .run(&["conflicts", "--keep", "both", "here/sub/b"])
        .complains(10, "is in no conflict");
    sandbox
        .run(&["conflicts", "--keep", "mine", "here"])
        .complains(2, "whole folder");
}

// Protects a watch left alone: it says what it did once, waits while it is paused, and ends in order.
#[test]
fn a_watch_pauses_resumes_and_stops_in_order() {
    let sandbox = Sandbox::new();
    let _served = synced(&sandbox);
    let mut watching = Watching::begin(&sandbox);
    sandbox.file("here/new", b"new");
    assert_eq!(watching.until("in_sync")["entries"], 4);
    assert_eq!(fs::read(sandbox.path("share/new")).unwrap(), b"new");

    sandbox
        .run(&["diff", "here"])
        .complains(11, "another syncline works on");
    let run = sandbox.run(&["status", "here"]);
    assert!(run.expect(0).out.contains("syncing (pid "), "{}", run.out);

    let run = sandbox.run(&["pause", "here"]);
    assert!(run.expect(0).err.contains("is paused"), "{}", run.err);
    watching.until("paused");
    sandbox.file("here/held", b"held");
    sandbox.run(&["sync", "here"]).complains(5, "is paused");
    let run = sandbox.run(&["diff", "here"]);
    assert_eq!(run.expect(0).out, "+ held (4 B)\n");
    assert!(!sandbox.path("share/held").exists());
    sandbox.run(&["resume", "here"]).expect(0);
    watching.until("resumed");
    assert_eq!(watching.until("in_sync")["entries"], 5);
    assert_eq!(fs::read(sandbox.path("share/held")).unwrap(), b"held");

    let run = watching.interrupt();
    run.expect(130);
    assert_eq!(run.summary()["exit_code"], 130);
    assert!(
        !run.out.contains("\"error\""),
        "a watch that is ended is no error: {}",
        run.out
    );
    let run = sandbox.run(&["status", "here"]);
    assert!(run.expect(0).out.contains("stopped, 5 entries in sync"), "{}", run.out);
}

// Protects a watch from a server that goes away: it waits, and goes on when the server is back.
#[test]
fn a_watch_outlives_its_server() {
    let sandbox = Sandbox::new();
    let served = synced(&sandbox);
    let listen = served.listen();
    let mut watching = Watching::begin(&sandbox);
    served.signal("TERM");
    served.wait();
    sandbox.file("here/meanwhile", b"x");
    let _served = sandbox.serve_at(&listen, &[]);
    assert_eq!(watching.until("in_sync")["entries"], 4);
    assert_eq!(fs::read(sandbox.path("share/meanwhile")).unwrap(), b"x");
    watching.interrupt().expect(130);
}

// Protects whoever emptied the wrong folder, or whose disk is not mounted.
#[test]
fn the_brake_stops_before_anything_is_deleted_and_says_how_to_go_on() {
    let sandbox = Sandbox::new();
    for number in 0..40 {
        sandbox.file(&format!("share/{number}"), b"x");
    }
    let _served = synced(&sandbox);
    for number in 0..40 {
        fs::remove_file(sandbox.path(&format!("here/{number}"))).unwrap();
    }
    let run = sandbox.run(&["sync", "here"]);
    run.complains(7, "nothing was done: 40 of 43 entries would be deleted");
    assert!(run.err.contains("syncline sync here --max-delete 40"), "{}", run.err);
    assert!(sandbox.path("share/0").exists());
    assert_eq!(sandbox.run(&["sync", "here", "--json"]).summary()["exit_code"], 7);
    sandbox.run(&["sync", "here", "--max-delete", "40"]).expect(0);
    assert!(!sandbox.path("share/0").exists());
}

// Protects files from going two ways, and folders from being tied to the wrong share: one sentence, and why.
#[test]
fn a_folder_in_the_wrong_place_is_refused() {
    let sandbox = Sandbox::new();
    let served = synced(&sandbox);
    let (link, other) = (served.link(""), served.link("").replace("/Share", "/Other"));
    sandbox.run(&["sync", "here", &other]).complains(2, "is synced with");
    sandbox
        .run(&["sync", "here/sub", &link])
        .complains(2, "which is synced with");
    sandbox
        .run(&["sync", "here/not/there/yet", &link])
        .complains(2, "which is synced with");
    sandbox
        .run(&["sync", "share/sub", &link])
        .complains(2, "which is served as a share");
    sandbox
        .run(&["sync", "share", &link])
        .complains(2, "is served as a share itself");
    sandbox.run(&["sync", "elsewhere"]).expect(10);
    fs::create_dir(sandbox.path("unlinked")).unwrap();
    sandbox
        .run(&["sync", "unlinked"])
        .complains(7, "does not know what to sync with");
    sandbox.file("plain", b"x");
    sandbox
        .run(&["sync", "plain", &link])
        .complains(10, "cannot use the folder");
    sandbox
        .run(&["serve", "here", "--listen", "127.0.0.1:0"])
        .complains(2, "so it cannot be served");
    sandbox.run(&["sync", "here", "no link"]).complains(2, "is no link");
    sandbox
        .run(&["sync", "here", "-n", "--watch"])
        .complains(2, "--dry-run looks once");
    assert!(!sandbox.path("here/not").exists(), "nothing was made");
}

// Protects from litter: a first run that leads to nothing leaves no folder that nobody asked for. One that was there
// stays, and so does one that something came of.
#[test]
fn a_folder_that_was_made_for_a_wrong_link_goes_again() {
    let sandbox = Sandbox::new();
    let served = sandbox.serve(&[]);
    let wrong = served.invite().replace("/Share", "/Other");
    for link in [&wrong, &served.link(""), &"syncline://127.0.0.1:1/Share".to_owned()] {
        let run = sandbox.run(&["sync", "new/deep", link, "--retries", "0"]);
        assert_ne!(run.code, 0, "{link}");
        assert!(!sandbox.path("new").exists(), "{link}: {}", run.err);
        assert!(
            !run.err.contains("old versions"),
            "nothing is said of what it never had: {}",
            run.err
        );
    }
    fs::create_dir(sandbox.path("there")).unwrap();
    let run = sandbox.run(&["sync", "there", &wrong]);
    assert_ne!(run.code, 0);
    assert!(sandbox.path("there").exists());
    sandbox.run(&["sync", "new/deep", &served.invite()]).expect(0);
    sandbox.run(&["sync", "new/deep"]).expect(0);
    drop(served);
    let run = sandbox.run(&["sync", "new/deep", "--retries", "0"]);
    assert_ne!(run.code, 0);
    assert!(sandbox.path("new/deep/.syncline").exists());
}

// Protects whoever asks before syncing: what would go, by kind; and what never does, by rule.
#[test]
fn diff_and_ls_say_what_goes_and_what_does_not() {
    let sandbox = Sandbox::new();
    let _served = synced(&sandbox);
    let run = sandbox.run(&["diff", "here"]);
    assert!(run.expect(0).err.contains("nothing was changed in here"), "{}", run.err);
    assert_eq!(run.out, "");
    sandbox.file("here/.synclineignore", b"*.log\n");
    sandbox.file("here/x.log", b"left out");
    sandbox.file("here/a", b"longer");
    fs::rename(sandbox.path("here/sub/b"), sandbox.path("here/moved")).unwrap();
    fs::remove_dir(sandbox.path("here/sub")).unwrap();
    let run = sandbox.run(&["diff", "here"]);
    let mut lines: Vec<&str> = run.expect(0).out.lines().collect();
    lines.sort_unstable();
    assert_eq!(
        lines,
        ["+ .synclineignore (6 B)", "- sub", "> sub/b -> moved", "~ a (6 B)"]
    );
    assert!(run.err.starts_with("4 changes since the last sync"), "{}", run.err);
    let objects = sandbox.run(&["diff", "here", "--json"]).objects();
    let moved = objects.iter().find(|object| object["action"] == "moved").unwrap();
    assert_eq!((&moved["path"], &moved["from"]), (&"moved".into(), &"sub/b".into()));

    let run = sandbox.run(&["ls", "--ignored", "here"]);
    assert_eq!(run.expect(0).out, "x.log  .synclineignore:1: *.log\n");
    let run = sandbox.run(&["ls", "--ignored", "here/a"]);
    assert!(
        run.expect(0).out.is_empty() && run.err.contains("here/a takes part"),
        "{}",
        run.err
    );
    let object = &sandbox.run(&["ls", "--ignored", "here/deep/y.log", "--json"]).objects()[0];
    assert_eq!(
        (&object["file"], &object["line"], &object["rule"]),
        (&".synclineignore".into(), &1.into(), &"*.log".into())
    );

    sandbox.run(&["sync", "here"]).expect(0);
    assert!(!sandbox.path("share/x.log").exists() && sandbox.path("share/moved").exists());
}

// Protects files from `unlink`, and the next share from what was agreed with the one before.
#[test]
fn an_unlinked_folder_keeps_its_files_and_can_be_linked_anew() {
    let sandbox = Sandbox::new();
    let served = synced(&sandbox);
    let run = sandbox.run(&["unlink", "here"]);
    assert!(run.expect(0).err.contains("all files stay"), "{}", run.err);
    assert_eq!(fs::read(sandbox.path("here/sub/b")).unwrap(), b"b");
    for command in ["sync", "diff", "status", "pause", "unlink"] {
        sandbox
            .run(&[command, "here"])
            .complains(7, "does not know what to sync with");
    }
    fs::remove_file(sandbox.path("here/a")).unwrap();
    sandbox.run(&["sync", "here", &served.link("")]).expect(0);
    assert_eq!(
        fs::read(sandbox.path("here/a")).unwrap(),
        b"a",
        "a first sync joins, and deletes nothing"
    );
}

// Protects the disk of a device, and what is on it that can still be brought back: old versions go, once a day.
#[test]
fn old_versions_of_a_synced_folder_go() {
    let sandbox = Sandbox::new();
    let _served = synced(&sandbox);
    let invite = sandbox.run_as("server", &["invite"]).out.trim().to_owned();
    sandbox.run_as("other", &["sync", "there", &invite]).expect(0);
    let versions = |sandbox: &Sandbox| {
        let run = sandbox.run(&["versions", "--json", "here"]);
        run.expect(0);
        run.objects().iter().filter(|object| object["event"] == "item").count()
    };
    let change = |sandbox: &Sandbox, keep: &str| {
        fs::remove_file(sandbox.path("there/a")).unwrap();
        sandbox.run_as("other", &["sync", "there"]).expect(0);
        sandbox.run(&["sync", "here", "--keep-versions", keep]).expect(0);
        sandbox.file("there/a", b"again");
        sandbox.run_as("other", &["sync", "there"]).expect(0);
        sandbox.run(&["sync", "here", "--keep-versions", keep]).expect(0);
    };
    // The first run tidied; within a day nothing more goes.
    change(&sandbox, "1k");
    assert_eq!(versions(&sandbox), 1);
    fs::remove_file(sandbox.path("here/.syncline/tidied")).unwrap();
    change(&sandbox, "1h");
    assert_eq!(versions(&sandbox), 2, "they are younger");
    // A clock that was wrong does not keep them for ever.
    fs::write(sandbox.path("here/.syncline/tidied"), "99999999999\n").unwrap();
    change(&sandbox, "1k");
    assert_eq!(versions(&sandbox), 0);
    let refused = sandbox.run(&["sync", "here", "--keep-versions", "off"]);
    refused.expect(2);
    assert!(refused.err.contains("always keeps"), "{}", refused.err);
}
