//! What a push replaces, deletes or changes in place, through a server and the commands, as users meet it.
#![allow(clippy::unwrap_used)]

#[path = "binary/mod.rs"]
mod binary;

use binary::{Sandbox, Served};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

const OPEN: [&str; 3] = ["--plain", "--open", "write"];

/// A share with a server, and a source that is pushed to it.
struct Bench {
    sandbox: Sandbox,
    server: Served,
}

impl Bench {
    fn new(args: &[&str]) -> Bench {
        let sandbox = Sandbox::new();
        let server = sandbox.serve(&[&OPEN[..], args].concat());
        Bench { sandbox, server }
    }

    fn push(&self, args: &[&str]) {
        let link = self.server.link("");
        let args = [&["push", "--plain", "src/", &link][..], args].concat();
        self.sandbox.run(&args).expect(0);
    }

    fn share(&self, path: &str) -> String {
        format!("share/{path}")
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.sandbox.path(path)).unwrap()
    }

    /// The items of a command's `--json` run.
    fn items(&self, args: &[&str]) -> Vec<Value> {
        let run = self.sandbox.run(&[args, &["--json"]].concat());
        run.expect(0);
        run.summary();
        let items = run.objects().into_iter().filter(|object| object["event"] == "item");
        items.collect()
    }
}

/// I3, by the commands: replaced and deleted files come back while the server runs, and nothing that
/// stands in their place is lost by that.
#[test]
fn replaced_and_deleted_files_come_back_while_the_server_runs() {
    let bench = Bench::new(&[]);
    bench.sandbox.file("src/d/f", b"one");
    bench.sandbox.file("src/d/gone file", b"precious");
    bench.push(&[]);
    assert!(bench.items(&["versions", "share"]).is_empty());
    bench.sandbox.file("src/d/f", b"second");
    fs::remove_file(bench.sandbox.path("src/d/gone file")).unwrap();
    bench.push(&["--delete"]);
    let items = bench.items(&["versions", "share/d/f"]);
    assert_eq!(items.len(), 1);
    assert_eq!((&items[0]["path"], &items[0]["size"]), (&"d/f".into(), &3.into()));
    assert_eq!(
        (&items[0]["reason"], &items[0]["by"]),
        (&"replaced".into(), &"anyone".into())
    );
    let run = bench.sandbox.run(&["versions", "share"]);
    run.expect(0);
    assert!(run.out.contains("d/gone file\n"), "{}", run.out);
    assert!(run.out.contains("deleted by somebody without a key"), "{}", run.out);

    let trash = bench.sandbox.run(&["trash", "share"]);
    trash.expect(0);
    assert!(
        trash.out.contains("d/gone file") && !trash.out.contains("d/f\n"),
        "{}",
        trash.out
    );
    assert!(trash.err.contains("syncline restore '"), "{}", trash.err);
    bench.sandbox.run(&["restore", "share/d/gone file", "-n"]).expect(0);
    assert!(!bench.sandbox.path("share/d/gone file").exists());
    bench.sandbox.run(&["restore", "share/d/gone file"]).expect(0);
    assert_eq!(bench.read("share/d/gone file"), "precious");
    assert!(bench.items(&["trash", "share"]).is_empty());

    let id = items[0]["version"].as_str().unwrap();
    bench
        .sandbox
        .run(&["restore", "share/d/f", "--version", &id[..5]])
        .expect(0);
    assert_eq!(bench.read("share/d/f"), "one");
    let items = bench.items(&["versions", "share/d/f"]);
    assert_eq!(items.len(), 2);
    assert_eq!(items[1]["by"], "local");
    bench
        .sandbox
        .run(&["restore", "share/d/f", "--to", "share/other"])
        .expect(0);
    assert_eq!(bench.read("share/other"), "second");
    assert_eq!(bench.read("share/d/f"), "one");
}

/// A whole directory that a push deleted comes back with one command.
#[test]
fn a_deleted_directory_comes_back_whole() {
    let bench = Bench::new(&[]);
    for name in ["a", "b/c", "b/d"] {
        bench.sandbox.file(&format!("src/photos/{name}"), name.as_bytes());
    }
    bench.sandbox.file("src/stays", b"x");
    bench.push(&[]);
    fs::remove_dir_all(bench.sandbox.path("src/photos")).unwrap();
    bench.push(&["--delete"]);
    assert!(!bench.sandbox.path("share/photos").exists());
    let run = bench.sandbox.run(&["restore", "share/photos"]);
    run.expect(0);
    for name in ["a", "b/c", "b/d"] {
        assert_eq!(bench.read(&bench.share(&format!("photos/{name}"))), name);
    }
    let again = bench.sandbox.run(&["restore", "share/photos"]);
    again.complains(10, "no version is kept of photos");
}

/// Undo records of changes in place are versions like others.
#[test]
fn changes_in_place_come_back_one_by_one() {
    let bench = Bench::new(&[]);
    // No part of it is like another, or it would be copied from there and not be changed in place.
    let mixed = |at: u32| (at ^ at >> 3).wrapping_mul(at.wrapping_mul(0x9E37_79B9) | 1) >> 24;
    let content = |round: u8| {
        let mut bytes: Vec<u8> = (0..2_000_000u32).map(|at| mixed(at) as u8).collect();
        bytes[100_000..100_000 + 5_000 * usize::from(round)].fill(round);
        bytes
    };
    for round in 0..3 {
        bench.sandbox.file("src/disk.img", &content(round));
        bench.push(&["--inplace"]);
    }
    let items = bench.items(&["versions", "share/disk.img"]);
    let reasons: Vec<_> = items.iter().map(|item| item["reason"].as_str().unwrap()).collect();
    assert_eq!(reasons, ["changed", "changed"]);
    let disk: u64 = items.iter().map(|item| item["disk_bytes"].as_u64().unwrap()).sum();
    assert!(disk < 200_000, "only what changed is kept: {disk}");
    for round in 0..2u8 {
        let id = items[usize::from(round)]["version"].as_str().unwrap();
        let args = ["restore", "share/disk.img", "--version", id, "--to", "share/back"];
        bench.sandbox.run(&args).expect(0);
        assert!(
            fs::read(bench.sandbox.path("share/back")).unwrap() == content(round),
            "{round}"
        );
    }
    fs::write(bench.sandbox.path("share/disk.img"), "edited").unwrap();
    let run = bench.sandbox.run(&["restore", "share/disk.img"]);
    run.complains(1, "was changed by other means since");
    assert_eq!(bench.read("share/disk.img"), "edited");
}

/// The trash is emptied only when that was said, and only of what was deleted.
#[test]
fn emptying_the_trash_asks_first_and_spares_what_was_replaced() {
    let bench = Bench::new(&[]);
    bench.sandbox.file("src/f", b"one");
    bench.sandbox.file("src/g", b"one");
    bench.push(&[]);
    bench.sandbox.file("src/f", b"second");
    bench.sandbox.file("src/g", b"second");
    bench.push(&[]);
    fs::remove_file(bench.sandbox.path("src/g")).unwrap();
    bench.push(&["--delete"]);
    bench
        .sandbox
        .run(&["trash", "share", "--empty"])
        .complains(2, "removes 1 file for good");
    bench.sandbox.run(&["trash", "share", "--empty", "-n"]).expect(0);
    bench
        .sandbox
        .run(&["trash", "share", "--empty", "--yes", "--older-than", "1h"])
        .expect(0);
    assert_eq!(bench.items(&["versions", "share"]).len(), 3);
    let run = bench.sandbox.run(&["trash", "share", "--empty", "--yes"]);
    run.expect(0);
    assert!(
        run.err.contains("1 file removed for good with 2 versions"),
        "{}",
        run.err
    );
    let left = bench.items(&["versions", "share"]);
    assert_eq!(left.len(), 1);
    assert_eq!(left[0]["path"], "f");
    bench
        .sandbox
        .run(&["restore", "share/g"])
        .complains(10, "no version is kept of g");
}

#[test]
fn nothing_is_kept_where_that_was_asked_for() {
    let bench = Bench::new(&["--keep-versions", "off"]);
    bench.sandbox.file("src/f", b"one");
    bench.push(&[]);
    bench.sandbox.file("src/f", b"second");
    bench.push(&[]);
    assert!(!bench.sandbox.path("share/.syncline/versions").exists());
    assert!(bench.items(&["versions", "share"]).is_empty());
}

/// Old versions go when a server starts, without anybody asking.
#[test]
fn a_server_lets_go_of_what_is_too_old() {
    let sandbox = Sandbox::new();
    let old = sandbox.file("share/.syncline/versions/f/19990101-000000-000000000-d-local", b"old");
    let kept = sandbox.file("share/.syncline/versions/f/29990101-000000-000000000-d-local", b"later");
    let _server = sandbox.serve(&OPEN);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while old.exists() && std::time::Instant::now() < deadline {
        std::thread::yield_now();
    }
    assert!(!old.exists() && kept.exists());
}

/// Rows 3 and 8 of the threats: versions are in the share's folder and no part of the share, by any path
/// and in any list.
#[test]
fn versions_are_not_served() {
    let bench = Bench::new(&[]);
    bench.sandbox.file("src/f", b"one");
    bench.push(&[]);
    bench.sandbox.file("src/f", b"second");
    bench.push(&[]);
    let name = bench.items(&["versions", "share/f"])[0]["name"]
        .as_str()
        .unwrap()
        .to_owned();
    let file = bench.sandbox.path("share/.syncline/versions/f").join(&name);
    assert_eq!(fs::read(&file).unwrap(), b"one");
    bench
        .sandbox
        .run(&["pull", "--plain", &bench.server.link("/"), "back/"])
        .expect(0);
    assert_eq!(all_files(&bench.sandbox.path("back")), ["f"]);
    for path in ["/.syncline/versions/f", "/.syncline", "/.SYNCLINE/versions"] {
        let run = bench
            .sandbox
            .run(&["pull", "--plain", &bench.server.link(path), "stolen/"]);
        assert_ne!(run.code, 0, "{path}");
        let run = bench
            .sandbox
            .run(&["push", "--plain", "src/f", &bench.server.link(path)]);
        assert_ne!(run.code, 0, "{path}");
    }
    assert!(all_files(&bench.sandbox.path("stolen")).is_empty());
    // A push that deletes everything it does not have leaves them alone.
    fs::remove_file(bench.sandbox.path("src/f")).unwrap();
    bench.push(&["--delete"]);
    assert_eq!(fs::read(&file).unwrap(), b"one");
    assert_eq!(bench.items(&["versions", "share/f"]).len(), 2);
}

/// The sentences of what does not work.
#[test]
fn what_is_not_there_is_said_in_one_sentence() {
    let bench = Bench::new(&[]);
    bench.sandbox.file("src/f", b"one");
    bench.push(&[]);
    bench.sandbox.file("src/f", b"second");
    bench.push(&[]);
    let run = |args: &[&str]| bench.sandbox.run(args);
    run(&["versions", "share/none"]).complains(10, "no version is kept of none");
    run(&["restore", "share/f", "--version", "ffffffff"]).complains(10, "f has no version ffffffff");
    run(&["versions", "src"]).complains(10, "is in no folder that was served");
    run(&["restore", "share/f", "--to", "src/f"]).complains(10, "is in no folder that was served");
    run(&["restore", "share/.syncline/lock"]).complains(2, "the reserved name .syncline");
    run(&["restore", "share"]).complains(2, "the share as a whole");
    fs::create_dir(bench.sandbox.path("share/full")).unwrap();
    fs::write(bench.sandbox.path("share/full/x"), "x").unwrap();
    run(&["restore", "share/f", "--to", "share/full"]).complains(2, "full is a directory");
    run(&["serve", "share", "--keep-versions", "30"]).expect(2);
    assert_eq!(bench.read("share/f"), "second");
}

/// Row 7 of the threats: a name is shown as one harmless line, and given to scripts exactly.
#[test]
fn names_cannot_steer_the_terminal() {
    let bench = Bench::new(&[]);
    let name = "a\nb\x1b[31m\u{202e}";
    bench.sandbox.file(&format!("src/{name}"), b"one");
    bench.push(&[]);
    fs::remove_file(bench.sandbox.path("src").join(name)).unwrap();
    bench.sandbox.file("src/other", b"x");
    bench.push(&["--delete"]);
    for args in [["versions", "share"], ["trash", "share"]] {
        let run = bench.sandbox.run(&args);
        run.expect(0);
        let shown = format!("{}{}", run.out, run.err);
        assert!(shown.contains("a\\nb\\u{1b}"), "{shown}");
        assert!(!shown.contains('\x1b') && !shown.contains('\u{202e}'), "{shown}");
    }
    assert_eq!(bench.items(&["trash", "share"])[0]["path"], name);
    bench.sandbox.run(&["restore", &bench.share(name)]).expect(0);
    assert_eq!(bench.read(&bench.share(name)), "one");
}

/// A paired device is named by what it calls itself, on the machine that knows it.
#[cfg(feature = "tls")]
#[test]
fn a_paired_device_is_named() {
    let sandbox = Sandbox::new();
    let server = sandbox.serve(&[]);
    sandbox.file("src/f", b"one");
    sandbox.run(&["push", "src/", &server.invite()]).expect(0);
    sandbox.file("src/f", b"second");
    sandbox.run(&["push", "src/", &server.link("")]).expect(0);
    let devices = sandbox.run_as("server", &["devices", "--json"]);
    let device = &devices.objects()[0];
    let run = sandbox.run_as("server", &["versions", "share/f", "--json"]);
    let item = &run.objects()[0];
    assert_eq!(
        (&item["device"], &item["device_name"]),
        (&device["short"], &device["name"])
    );
    let run = sandbox.run_as("server", &["versions", "share/f"]);
    assert!(run.out.contains(device["short"].as_str().unwrap()), "{}", run.out);
}

/// The files below a directory, sorted; none where there is none.
fn all_files(top: &Path) -> Vec<String> {
    let mut waiting: Vec<PathBuf> = vec![top.to_owned()];
    let mut files = Vec::new();
    while let Some(directory) = waiting.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                waiting.push(path);
            } else {
                files.push(path.strip_prefix(top).unwrap().to_string_lossy().into_owned());
            }
        }
    }
    files.sort();
    files
}
