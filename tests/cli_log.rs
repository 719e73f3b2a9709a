//! `log` as a user runs it: what pushes, syncs, visitors and edits leave in the log of a share and of a folder.

#![cfg(all(feature = "tls", feature = "sync"))]
#![allow(clippy::unwrap_used)]

mod binary;

use binary::{Sandbox, Served};
use serde_json::Value;
use std::fs;
use std::os::unix::ffi::OsStrExt;

/// The lines of a log, without the summary of the command.
fn lines(sandbox: &Sandbox, args: &[&str]) -> Vec<Value> {
    let run = sandbox.run(&[&["log", "--json"], args].concat());
    let mut objects = run.expect(0).objects();
    assert_eq!(objects.pop().unwrap()["event"], "summary");
    objects
}

/// `event action path` of each line, with the run's kind for a path.
fn told(lines: &[Value]) -> Vec<String> {
    let text = |line: &Value, keys: &[&str]| {
        let words = keys.iter().filter_map(|key| line[*key].as_str().map(str::to_owned));
        words.collect::<Vec<_>>().join(" ")
    };
    lines
        .iter()
        .map(|line| text(line, &["event", "action", "side", "run", "path"]))
        .collect()
}

fn served() -> (Sandbox, Served) {
    let sandbox = Sandbox::new();
    fs::create_dir_all(sandbox.path("share")).unwrap();
    let served = sandbox.serve(&[]);
    (sandbox, served)
}

/// Ends the server in order: all that it knows is written then.
fn stop(served: Served) {
    served.signal("TERM");
    served.wait().expect(0);
}

// Protects whoever asks who changed a share: each change with its device, and nothing for a run that changed nothing.
#[test]
fn a_push_is_told_with_its_device_and_a_repeated_one_is_not() {
    let (sandbox, served) = served();
    sandbox.file("mine/docs/a", b"twelve bytes");
    sandbox.file("mine/old", b"x");
    sandbox.run(&["push", "mine/", &served.invite()]).expect(0);
    let first = lines(&sandbox, &["share"]);
    let mut items = told(&first);
    items.sort_unstable();
    assert_eq!(
        items,
        [
            "item created docs/a",
            "item created old",
            "item made docs",
            "paired",
            "run push"
        ]
    );
    let a = first.iter().find(|line| line["path"] == "docs/a").unwrap();
    assert_eq!((&a["size"], &a["v"]), (&12.into(), &1.into()));
    let run = first.last().unwrap();
    assert_eq!(
        (&run["files"], &run["bytes"], &run["changes"]),
        (&2.into(), &13.into(), &3.into())
    );
    assert!(run["at_ms"].as_u64() >= run["began_ms"].as_u64());
    let devices = sandbox.run_as("server", &["devices", "--json"]).objects();
    assert!(
        first.iter().all(|line| line["who"] == devices[0]["name"]),
        "{first:?} {devices:?}"
    );
    assert!(
        first.iter().all(|line| line["device"] == devices[0]["device"]),
        "{first:?} {devices:?}"
    );

    sandbox.run(&["push", "mine/", &served.link("")]).expect(0);
    sandbox
        .run(&["push", "mine/", &served.link(""), "-n", "--delete"])
        .expect(0);
    sandbox.run(&["pull", &served.link("/old"), "back"]).expect(0);
    sandbox.run(&["pull", &served.link("/old"), "back"]).expect(0);
    let after: Vec<_> = told(&lines(&sandbox, &["share"])).split_off(first.len());
    assert_eq!(after, ["run pull"], "only what came to something");

    fs::remove_file(sandbox.path("mine/old")).unwrap();
    sandbox.file("mine/docs/a", b"another one");
    sandbox.run(&["push", "mine/", &served.link(""), "--delete"]).expect(0);
    let after = told(&lines(&sandbox, &["share"])).split_off(first.len() + 1);
    assert_eq!(after, ["item replaced docs/a", "item deleted old", "run push"]);
}

// Protects whoever asks what a sync did, on either side: which way each entry went, and by whom.
#[test]
fn a_sync_is_told_on_both_sides() {
    let (sandbox, served) = served();
    sandbox.file("share/a", b"a");
    sandbox.file("share/sub/b", b"b");
    sandbox.run(&["sync", "here", &served.invite()]).expect(0);
    let mut here = lines(&sandbox, &["here"]);
    let run = here.pop().unwrap();
    assert_eq!(
        (&run["run"], &run["exit_code"], &run["changes"]),
        (&"sync".into(), &0.into(), &3.into())
    );
    let mut items = told(&here);
    items.sort_unstable();
    assert_eq!(
        items,
        [
            "item created received a",
            "item created received sub/b",
            "item made received sub"
        ]
    );
    assert!(here.iter().all(|line| line["who"] != "here"), "{here:?}");

    let before = here.len() + 1;
    sandbox.run(&["sync", "here"]).expect(0);
    assert_eq!(lines(&sandbox, &["here"]).len(), before, "nothing happened");
    fs::rename(sandbox.path("here/a"), sandbox.path("here/renamed")).unwrap();
    fs::remove_file(sandbox.path("here/sub/b")).unwrap();
    sandbox.file("here/new", b"new");
    sandbox.run(&["sync", "here", "--dry-run"]);
    assert_eq!(lines(&sandbox, &["here"]).len(), before, "nothing was done yet");
    sandbox.run(&["sync", "here"]).expect(0);
    let after = lines(&sandbox, &["here"]).split_off(before);
    let mut items = told(&after);
    items.sort_unstable();
    assert_eq!(
        items,
        [
            "item created sent new",
            "item deleted sent sub/b",
            "item moved sent renamed",
            "run sync"
        ]
    );
    assert!(after.iter().all(|line| line["who"] == "here"), "{after:?}");
    let moved = after.iter().find(|line| line["action"] == "moved").unwrap();
    assert_eq!(moved["from"], "a");

    sandbox.run(&["sync", "here"]).expect(0);
    assert_eq!(lines(&sandbox, &["here"]).len(), before + 4);
    stop(served);
    let there = lines(&sandbox, &["share"]);
    let mut items = told(&there);
    items.sort_unstable();
    let changes = ["item created new", "item deleted sub/b", "item moved renamed", "paired"];
    assert_eq!(items, [&changes[..], &["run sync", "run sync"]].concat());
    assert!(there.iter().all(|line| line["who"] != "here"), "{there:?}");
}

// Protects both versions of a file from being lost from sight: the log says where the other one is.
#[test]
fn a_conflict_is_told_once_with_its_copy() {
    let (sandbox, served) = served();
    sandbox.file("share/a", b"a");
    sandbox.run(&["sync", "here", &served.invite()]).expect(0);
    let before = lines(&sandbox, &["here"]).len();
    let theirs = sandbox.file("elsewhere/a", b"theirs");
    sandbox
        .run(&["push", theirs.to_str().unwrap(), &served.link("")])
        .expect(0);
    sandbox.file("here/a", b"mine!");
    sandbox.run(&["sync", "here"]).expect(4);
    let after = lines(&sandbox, &["here"]).split_off(before);
    let copy = after.iter().find(|line| line["event"] == "conflict").unwrap()["copy"]
        .as_str()
        .unwrap();
    assert!(copy.starts_with("a.sync-conflict-"), "{copy}");
    let mut items = told(&after);
    items.sort_unstable();
    assert_eq!(
        items,
        [
            "conflict a".to_owned(),
            "item created received a".to_owned(),
            format!("item created sent {copy}"),
            "run sync".to_owned()
        ]
    );
}

// Protects whoever wonders who changed a file of the share itself: what is edited there is told, once.
#[test]
fn what_is_edited_on_the_shares_own_disk_is_told_as_done_here() {
    use std::io::{BufRead, BufReader};
    let (sandbox, served) = served();
    sandbox.file("share/a", b"a");
    sandbox.run(&["sync", "here", &served.invite()]).expect(0);
    let mut watch = sandbox.command("client");
    watch.args(["sync", "here", "--watch", "--json"]);
    let mut child = watch.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut until = |entries: u64| {
        loop {
            let mut line = String::new();
            assert!(
                out.read_line(&mut line).unwrap() > 0,
                "it ended before {entries} were in sync"
            );
            let object: Value = serde_json::from_str(&line).unwrap();
            if object["state"] == "in_sync" && object["entries"] == entries {
                break;
            }
        }
    };
    until(1);
    sandbox.file("share/edited", b"here");
    until(2);
    sandbox.file("here/sent", b"there");
    until(3);
    fs::remove_file(sandbox.path("share/a")).unwrap();
    until(2);
    binary::signal(&child, "INT");
    child.wait().unwrap();
    stop(served);
    let there = lines(&sandbox, &["share", "--device", "here"]);
    assert_eq!(told(&there), ["item created edited", "item deleted a"]);
    let sent = lines(&sandbox, &["share", "--path", "sent"]);
    assert_eq!(told(&sent), ["item created sent"]);
    assert_ne!(sent[0]["who"], "here");
    let here = lines(&sandbox, &["here", "--path", "edited"]);
    assert_eq!(told(&here), ["item created received edited"]);
}

// Protects the log from what fails every minute, and whoever looks for it: told once, with its reason.
#[test]
fn what_fails_is_told_once_and_found() {
    let (sandbox, served) = served();
    sandbox.file("share/name/inside", b"in the way");
    let file = sandbox.file("mine/name", b"x");
    let link = served.invite();
    sandbox.run(&["push", file.to_str().unwrap(), &link]).expect(3);
    sandbox
        .run(&["push", file.to_str().unwrap(), &served.link("")])
        .expect(3);
    let failed = lines(&sandbox, &["share", "--failed"]);
    assert_eq!(told(&failed), ["error name", "run push"]);
    assert_eq!(
        (&failed[0]["code"], &failed[1]["failed"]),
        (&"in_the_way".into(), &1.into())
    );
    let run = sandbox.run(&["log", "share", "--failed"]);
    assert!(
        run.expect(0)
            .out
            .contains("name: something of another kind stands in its place"),
        "{}",
        run.out
    );
}

// Protects a folder's log from a server that is away for a week.
#[test]
fn a_server_that_is_away_is_told_once() {
    let (sandbox, served) = served();
    sandbox.file("share/a", b"a");
    sandbox.run(&["sync", "here", &served.invite()]).expect(0);
    let before = lines(&sandbox, &["here"]).len();
    stop(served);
    for _ in 0..2 {
        sandbox
            .run(&["sync", "here", "--retries", "0", "--timeout", "5s"])
            .expect(5);
    }
    let after = lines(&sandbox, &["here"]).split_off(before);
    assert_eq!(told(&after), ["run sync"]);
    assert_eq!(after[0]["exit_code"], 5);
    assert!(
        after[0]["reason"].as_str().unwrap().contains("cannot connect"),
        "{after:?}"
    );
}

// Protects the door: who came in, and who was not let in, with the address.
#[test]
fn visitors_are_told() {
    let (sandbox, served) = served();
    let file = sandbox.file("mine/a", b"a");
    let invite = served.invite();
    sandbox.run(&["push", file.to_str().unwrap(), &invite]).expect(0);
    sandbox
        .run_as("stranger", &["push", file.to_str().unwrap(), &invite])
        .expect(6);
    let found = lines(&sandbox, &["share", "--failed"]);
    assert_eq!(told(&found), ["refused"]);
    assert_eq!(found[0]["who"], "127.0.0.1");
    let paired = &lines(&sandbox, &["share"])[0];
    assert_eq!(
        (&paired["event"], &paired["rights"]),
        (&"paired".into(), &"read, write".into())
    );
}

// Protects people: lines that stand under each other, the filters, and one sentence where there is no log.
#[test]
fn the_log_reads_well_and_is_searched() {
    let (sandbox, served) = served();
    sandbox.file("mine/docs/report.txt", &[7; 2048]);
    sandbox.file("mine/docs/b.md", b"b");
    sandbox.file("mine/c.md", b"c");
    let run = sandbox.run(&["log", "share"]);
    assert!(
        run.expect(0).err.contains("nothing has happened in share"),
        "{}",
        run.err
    );
    sandbox.run(&["push", "mine/", &served.invite()]).expect(0);
    let run = sandbox.run(&["log", "share"]);
    let text = &run.expect(0).out;
    let columns: Vec<usize> = text.lines().filter_map(|line| line.find(" created ")).collect();
    assert!(
        columns.len() == 3 && columns.iter().all(|column| *column == columns[0]),
        "{text}"
    );
    let report = text.lines().find(|line| line.ends_with("  docs/report.txt")).unwrap();
    assert!(report.starts_with("20") && report.contains("   2.0 KiB  "), "{report}");
    assert!(
        text.lines().last().unwrap().contains("3 files, 2.0 KiB, 4 changes in "),
        "{text}"
    );

    let paths = |args: &[&str]| -> Vec<String> {
        let found = lines(&sandbox, &[&["share"], args].concat());
        let paths = found.iter().filter_map(|line| line["path"].as_str());
        let mut paths: Vec<String> = paths.map(str::to_owned).collect();
        paths.sort_unstable();
        paths
    };
    assert_eq!(paths(&["--path", "*.md"]), ["c.md", "docs/b.md"]);
    assert_eq!(paths(&["--path", "docs/"]), ["docs", "docs/b.md", "docs/report.txt"]);
    assert_eq!(paths(&["--since", "1h"]).len(), 4);
    assert_eq!(paths(&["--since", "2020-01-01"]).len(), 4);
    assert!(paths(&["--since", "2999-01-01"]).is_empty());
    assert!(paths(&["--device", "nobody"]).is_empty());
    assert_eq!(lines(&sandbox, &["share", "-n", "2"]).len(), 2);
    assert_eq!(lines(&sandbox, &["share", "-n", "1"])[0]["event"], "run");
    let within = lines(&sandbox, &["share/docs", "--path", "*.md"]);
    assert_eq!(told(&within), ["item created docs/b.md"]);

    sandbox.run(&["log", "share", "--since", "soon"]).complains(2, "soon");
    sandbox
        .run(&["log", "share", "--path", "a["])
        .complains(2, "is no pattern");
    fs::create_dir(sandbox.path("plain")).unwrap();
    sandbox
        .run(&["log", "plain"])
        .complains(10, "is in no folder that was served");
    sandbox.run(&["log", "missing"]).complains(10, "missing");
}

// Rows 7 and 8 of the threats: a name cannot forge a line, for people or for scripts, nor steer their terminal; and
// the log is no file of the share, whoever asks.
#[test]
fn names_cannot_forge_lines_and_the_log_cannot_be_fetched_or_sent() {
    let (sandbox, served) = served();
    let nasty = b"x\n2026-11-20 21:47:31  root  created  \x1b[31m\"}\n{\"v\":1,\"at_ms\":1,\"event\":\"item\"}\xff";
    fs::create_dir_all(sandbox.path("mine")).unwrap();
    let name = std::ffi::OsStr::from_bytes(nasty);
    fs::write(sandbox.path("mine").join(name), b"x").unwrap();
    sandbox.run(&["push", "mine/", &served.invite()]).expect(0);
    let found = lines(&sandbox, &["share"]);
    assert_eq!(told(&found).len(), 3, "{found:?}");
    let path = found[1]["path"].as_str().unwrap();
    assert!(path.starts_with("x\\n2026") && path.ends_with("\\xff"), "{path}");
    let run = sandbox.run(&["log", "share"]);
    assert_eq!(run.expect(0).out.lines().count(), 3, "{}", run.out);
    assert!(!run.out.contains('\x1b'), "{}", run.out);

    let log = sandbox.path("share/.syncline/activity.jsonl");
    let before = fs::read(&log).unwrap();
    sandbox.run(&["pull", &served.link(""), "all"]).expect(0);
    assert!(!sandbox.path("all/.syncline").exists() && !sandbox.path("all/Share/.syncline").exists());
    let run = sandbox.run(&["pull", &served.link("/.syncline/activity.jsonl"), "stolen"]);
    assert!(
        run.code != 0 && !sandbox.path("stolen").exists(),
        "{} {}",
        run.out,
        run.err
    );
    let forged = sandbox.file("forge/activity.jsonl", b"forged");
    let run = sandbox.run(&["push", forged.to_str().unwrap(), &served.link("/.syncline/")]);
    assert_ne!(run.code, 0);
    let after = fs::read(&log).unwrap();
    assert!(after.starts_with(&before) && !after.windows(6).any(|bytes| bytes == b"forged"));
}

// Protects whoever looks on: what happens is told as it happens, and Ctrl-C ends it in order.
#[test]
fn a_log_is_followed_until_it_is_interrupted() {
    use std::io::{BufRead, BufReader, Read};
    let (sandbox, served) = served();
    let file = sandbox.file("mine/a", b"a");
    sandbox
        .run(&["push", file.to_str().unwrap(), &served.invite()])
        .expect(0);
    let mut follow = sandbox.command("client");
    follow.args(["log", "share", "--follow", "--json", "--path", "a"]);
    let mut child = follow.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut next = || -> Value {
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    };
    assert_eq!(next()["action"], "created");
    sandbox.file("mine/a", b"another");
    sandbox
        .run(&["push", file.to_str().unwrap(), &served.link("")])
        .expect(0);
    assert_eq!(next()["action"], "replaced");
    binary::signal(&child, "INT");
    let summary = next();
    assert_eq!(
        (&summary["event"], &summary["exit_code"]),
        (&"summary".into(), &130.into())
    );
    let mut rest = String::new();
    out.read_to_string(&mut rest).unwrap();
    assert_eq!((rest.as_str(), child.wait().unwrap().code()), ("", Some(130)));
}
