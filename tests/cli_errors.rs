//! What goes wrong at the command line: one sentence, what to try, the documented code, nothing lost.

#![allow(clippy::unwrap_used)]

mod binary;

use binary::{Sandbox, Served, finished, signal};
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Stdio};

const PLAIN: [&str; 3] = ["--plain", "--open", "write"];

fn served() -> (Sandbox, Served) {
    let sandbox = Sandbox::new();
    sandbox.file("file", b"content");
    let served = sandbox.serve(&PLAIN);
    (sandbox, served)
}

#[test]
fn links_that_are_none_are_code_2_and_their_secret_is_not_repeated() {
    let (sandbox, _served) = served();
    let bad = [
        "syncline://",
        "syncline://host",
        "syncline://host:0/Share",
        "syncline://host:99999/Share",
        "syncline://host/../Share",
        "syncline://host/Share/../..",
        "syncline://host/Share#c0ffee",
    ];
    for link in bad {
        let run = sandbox.run(&["push", "file", link]);
        run.complains(2, "not a link");
        assert!(!run.err.contains("c0ffee"), "{}", run.err);
    }
    sandbox
        .run(&["push", "file", "http://host/Share"])
        .complains(2, "no link");
    sandbox.run(&["pull", "nonsense", "."]).complains(2, "no link");
}

#[test]
fn nobody_there_is_code_5_and_a_stranger_there_is_code_1() {
    let (sandbox, served) = served();
    // A port that was free a moment ago.
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let link = format!("syncline://{free}/Share");
    sandbox
        .run(&["push", "--plain", "file", &link])
        .complains(5, "cannot connect");
    sandbox
        .run(&["push", "--plain", "--yes", "file", "syncline://host.invalid/Share"])
        .complains(1, "cannot find the host");
    // Somebody who speaks another protocol, and TLS against plain.
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let link = format!("syncline://{}/Share", other.local_addr().unwrap());
    let web = std::thread::spawn(move || {
        let (mut stream, _) = other.accept().unwrap();
        std::io::Write::write_all(&mut stream, b"SSH-2.0-OpenSSH_9.9\r\n").unwrap();
        let _ = std::io::Read::read(&mut stream, &mut [0; 64]);
    });
    sandbox
        .run(&["push", "--plain", "file", &link])
        .complains(1, "did not answer as a Syncline server");
    web.join().unwrap();
    if cfg!(feature = "tls") {
        sandbox
            .run(&["push", "--retries", "0", "file", &served.link("")])
            .complains(5, "hung up");
    }
}

#[test]
fn servers_that_cannot_start_say_why() {
    let (sandbox, served) = served();
    fs::create_dir(sandbox.path("other")).unwrap();
    let serve = |folder: &str, listen: &str| {
        let args = ["serve", folder, "--plain", "--open", "read", "--listen", listen];
        sandbox.run_as("second", &args)
    };
    serve("other", &served.listen()).complains(1, "already in use");
    serve("share", "127.0.0.1:0").complains(11, "already served by");
    // One folder twice is a slip, not another server's lock.
    let twice = ["serve", "other", "./other=b", "--plain", "--open", "read"];
    sandbox
        .run_as("third", &[&twice[..], &["--listen", "127.0.0.1:0"]].concat())
        .complains(2, "the same folder as");
    serve("missing", "127.0.0.1:0").complains(10, "cannot serve");
    serve("file", "127.0.0.1:0").complains(10, "cannot serve");
    serve("other", "nonsense").complains(2, "cannot listen on");
    serve("other", "192.0.2.77:0").complains(2, "lets anyone in");
}

#[test]
fn what_is_missing_is_named() {
    let (sandbox, served) = served();
    let link = served.link("");
    sandbox.run(&["push", "--plain", "gone", &link]).complains(1, "gone");
    sandbox
        .run(&["pull", "--plain", &served.link("/no/such"), "x"])
        .complains(10, "no/such");
    sandbox
        .run(&["pull", "--plain", &link, "file/x"])
        .complains(10, "file/x");
    let other = link.replace("/Share", "/Other");
    sandbox.run(&["pull", "--plain", &other, "x"]).complains(6, "refused");
    assert!(!sandbox.path("x").exists());
    // One missing source of several spoils nothing of the others.
    let run = sandbox.run(&["push", "--plain", "file", "gone", &link]);
    assert!(run.expect(3).err.contains("gone: "), "{}", run.err);
    assert_eq!(binary::names(&sandbox.path("share")), [sandbox.path("share/file")]);
}

#[test]
fn a_file_that_cannot_be_read_is_code_3_and_stops_no_other() {
    let (sandbox, served) = served();
    sandbox.file("tree/good", b"good");
    let bad = sandbox.file("tree/bad", b"bad");
    Command::new("chmod").args(["000"]).arg(&bad).status().unwrap();
    if fs::read(&bad).is_ok() {
        eprintln!("a_file_that_cannot_be_read… uses a socket instead: root may read everything");
        fs::remove_file(&bad).unwrap();
        std::os::unix::net::UnixListener::bind(&bad).unwrap();
        let run = sandbox.run(&["push", "--plain", "tree", &served.link("")]);
        assert!(run.expect(0).err.contains("left out:\n  tree/bad"), "{}", run.err);
    } else {
        let run = sandbox.run(&["push", "--plain", "tree", &served.link("")]);
        assert!(
            run.expect(3).err.contains("bad: permission denied; check"),
            "{}",
            run.err
        );
    }
    assert_eq!(fs::read(sandbox.path("share/tree/good")).unwrap(), b"good");
}

/// A directory stands where a file should go: that item fails with what to try, the others do not.
#[test]
fn an_item_in_the_way_is_code_3_and_is_repeated_at_the_end() {
    let (sandbox, served) = served();
    sandbox.file("tree/a", b"a");
    sandbox.file("tree/b", b"b");
    sandbox.file("share/tree/a/inside", b"kept");
    let run = sandbox.run(&["push", "--plain", "tree", &served.link("")]);
    run.expect(3);
    assert!(
        run.err
            .contains("failed:\n  tree/a: something of another kind stands in its place; move or delete")
    );
    assert_eq!(fs::read(sandbox.path("share/tree/a/inside")).unwrap(), b"kept");
    assert_eq!(fs::read(sandbox.path("share/tree/b")).unwrap(), b"b");
    let json = sandbox.run(&["push", "--json", "--plain", "tree", &served.link("")]);
    assert_eq!(json.expect(3).summary()["failed"], 1);
}

#[test]
fn the_brake_stops_a_mass_delete_with_code_7_and_a_dry_run_changes_nothing() {
    let (sandbox, served) = served();
    for n in 0..40 {
        sandbox.file(&format!("share/tree/{n}"), b"kept");
    }
    sandbox.file("tree/0", b"kept");
    let push = ["push", "--plain", "--delete", "tree", &served.link("")];
    let braked = sandbox.run(&push);
    braked.complains(7, "refusing to delete 39 of 40");
    assert!(braked.err.contains("--max-delete"));
    let dry = sandbox.run(&[&push[..], &["-n", "--max-delete", "unlimited"]].concat());
    assert_eq!(
        dry.expect(0)
            .out
            .lines()
            .filter(|line| line.starts_with("would be deleted"))
            .count(),
        39
    );
    assert_eq!(binary::names(&sandbox.path("share/tree")).len(), 40);
    sandbox
        .run(&[&push[..], &["--max-delete", "unlimited"]].concat())
        .expect(0);
    assert_eq!(binary::names(&sandbox.path("share/tree")).len(), 1);
}

#[test]
fn a_dry_run_to_a_missing_target_makes_nothing() {
    let (sandbox, served) = served();
    sandbox.file("share/a", b"a");
    let run = sandbox.run(&["pull", "-n", "--plain", &served.link("/"), "new"]);
    assert!(run.expect(0).out.contains("would be created a"), "{}", run.out);
    assert!(!sandbox.path("new").exists());
    sandbox
        .run(&["push", "-n", "--plain", "file", &served.link("")])
        .expect(0);
    assert!(!sandbox.path("share/file").exists());
}

/// Starts a push that takes a while, and waits until bytes move. Another `seed` is another content: what was sent
/// of an earlier one is of no use.
fn slow_push(sandbox: &Sandbox, link: &str, seed: u64) -> std::process::Child {
    let mut state = seed;
    let mut noise = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state ^ state >> 33).to_le_bytes()
    };
    let content: Vec<u8> = (0..3 << 20).flat_map(|_| noise()).collect();
    sandbox.file("large", &content);
    let mut child = sandbox
        .command("client")
        .args(["push", "--json", "--plain", "--bwlimit", "4M", "large", link])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while !line.contains("transferring") {
        line.clear();
        assert!(out.read_line(&mut line).unwrap() > 0, "the push ended early");
    }
    child.stdout = Some(out.into_inner());
    child
}

#[test]
fn signals_end_a_push_in_order_with_130_and_143() {
    let (sandbox, served) = served();
    for (seed, (name, code)) in [("INT", 130), ("TERM", 143)].into_iter().enumerate() {
        let child = slow_push(&sandbox, &served.link(""), seed as u64);
        signal(&child, name);
        let run = finished(&child.wait_with_output().unwrap());
        run.expect(code).summary();
        assert!(!sandbox.path("share/large").exists(), "nothing half is published");
    }
    // What was begun can be done again.
    let whole = sandbox.run(&["push", "--plain", "large", &served.link("")]);
    whole.expect(0);
}

#[test]
fn sigterm_drains_a_server_with_code_0_and_tells_its_clients() {
    let (sandbox, served) = served();
    sandbox.run(&["push", "--plain", "file", &served.link("")]).expect(0);
    served.signal("TERM");
    let run = served.wait();
    let summary = run.expect(0).summary();
    assert_eq!(summary["files"], 1, "the totals of what it served");
    assert!(!sandbox.path("share/.syncline/lock").exists() || sandbox.serve(&PLAIN).ready.is_object());
}

/// The server dies and comes back on its port: the client says so in a line and goes on.
#[test]
fn a_push_survives_a_killed_server() {
    let (sandbox, mut served) = served();
    let listen = served.listen();
    sandbox.file("large", &vec![5; 24 << 20]);
    let mut child = sandbox
        .command("client")
        .args([
            "push",
            "-v",
            "--plain",
            "--bwlimit",
            "6M",
            "file",
            "large",
            &served.link(""),
        ])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    // The small file is settled, so the large one is on its way.
    out.read_line(&mut String::new()).unwrap();
    served.child.kill().unwrap();
    served.child.wait().unwrap();
    let again = sandbox.serve_at(&listen, &PLAIN);
    child.stdout = Some(out.into_inner());
    let run = finished(&child.wait_with_output().unwrap());
    run.expect(0);
    let retries: Vec<&str> = run.err.lines().filter(|line| line.contains("attempt ")).collect();
    assert!(!retries.is_empty(), "{}", run.err);
    assert!(retries.iter().all(|line| !line.contains("os error")), "{retries:?}");
    assert_eq!(fs::read(sandbox.path("share/large")).unwrap().len(), 24 << 20);
    drop(again);
}

/// `| head`: a reader that goes away is no error and leaves no noise.
#[test]
fn a_closed_pipe_is_quiet() {
    let (sandbox, served) = served();
    for n in 0..2_000 {
        sandbox.file(&format!("many/{n}"), b"");
    }
    let mut child = sandbox
        .command("client")
        .args(["push", "-v", "--plain", "many", &served.link("")])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let run = finished(&child.wait_with_output().unwrap());
    run.expect(0);
    assert!(!run.err.to_lowercase().contains("pipe"), "{}", run.err);
    assert_eq!(binary::names(&sandbox.path("share/many")).len(), 2_000);
}

/// Names that would steer a terminal are shown as text and stay exact on disk.
#[test]
fn odd_names_are_escaped_where_they_are_shown() {
    let (sandbox, served) = served();
    let name = std::ffi::OsStr::from_bytes(b"red\x1b[31m\nnext\xff");
    fs::create_dir(sandbox.path("tree")).unwrap();
    fs::write(sandbox.path("tree").join(name), b"x").unwrap();
    let run = sandbox.run(&["push", "-v", "--plain", "tree", &served.link("")]);
    run.expect(0);
    let shown = format!("{}{}", run.out, run.err);
    assert!(
        !shown.contains('\x1b') && shown.contains("red\\u{1b}[31m\\nnext\\xff"),
        "{shown}"
    );
    assert!(sandbox.path("share/tree").join(name).exists());
    // Also where it fails.
    fs::remove_file(sandbox.path("share/tree").join(name)).unwrap();
    fs::create_dir_all(sandbox.path("share/tree").join(name).join("full")).unwrap();
    let run = sandbox.run(&["push", "--plain", "tree", &served.link("")]);
    run.expect(3);
    assert!(
        !run.err.contains('\x1b') && run.err.contains("red\\u{1b}[31m\\nnext\\xff: "),
        "{}",
        run.err
    );
}
