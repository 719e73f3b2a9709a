//! A server whose output nobody reads, of the real binary.

#![allow(clippy::unwrap_used)]

mod binary;

use binary::Sandbox;
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

/// Transfers whose events fill a pipe of 64 KiB several times.
const TRANSFERS: u64 = 1_000;

// `serve --json | something-that-hangs`: it blocked the loop once the pipe was full, with all clients.
#[test]
fn a_server_goes_on_when_nobody_reads_its_events_and_says_how_many_it_left_out() {
    let sandbox = Sandbox::new();
    let mut served = sandbox.serve(&["--plain", "--open", "write", "--durability", "none"]);
    let load = Command::new(env!("CARGO_BIN_EXE_syncline-load"))
        .args([
            "--plain",
            "--scenario",
            "full",
            "--clients",
            "4",
            "--size",
            "100",
            "-q",
            "--timeout",
            "30s",
        ])
        .args(["--count", &TRANSFERS.to_string(), &served.link("")])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(load.status.success(), "{}", String::from_utf8_lossy(&load.stderr));

    let file = sandbox.file("last", b"x");
    let mut lines = BufReader::new(served.child.stdout.take().unwrap()).lines();
    let mut next = || -> Value { serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap() };
    let (mut told, mut left_out) = (0, 0);
    // Whatever is in the pipe; then there is room again, and the next event brings the count.
    sandbox
        .run(&["push", "--plain", "-q", file.to_str().unwrap(), &served.link("/during")])
        .expect(0);
    while left_out == 0 {
        let object = next();
        match object["state"].as_str().unwrap() {
            "transferred" => told += 1,
            "left_out" => left_out = object["events"].as_u64().unwrap(),
            other => panic!("{other}"),
        }
        if told == 1 {
            served.signal("TERM");
        }
    }
    assert_eq!(told + left_out, TRANSFERS + 1);
    assert!(told > 50, "{told}");
    let last = next();
    assert_eq!((&last["event"], &last["exit_code"]), (&"summary".into(), &0.into()));
    assert_eq!(last["files"], TRANSFERS + 1, "every transfer counts");
}
