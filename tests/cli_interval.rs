//! Runs that are repeated (`--interval`), of the real binary: who says when, and what ends them.

#![allow(clippy::unwrap_used)]

mod binary;

use binary::{Sandbox, Served, signal};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Stdio};
use std::time::{Duration, Instant};

/// A push that goes on until it is interrupted.
struct Repeated {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Repeated {
    fn start(sandbox: &Sandbox, args: &[&str]) -> Repeated {
        let mut child = sandbox
            .command("client")
            .args(["push", "--plain", "--json"])
            .args(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        Repeated { child, out }
    }

    /// The next object, if there is one.
    fn next(&mut self) -> Option<Value> {
        let mut line = String::new();
        (self.out.read_line(&mut line).unwrap() > 0).then(|| serde_json::from_str(&line).unwrap())
    }

    /// The object at the end of the next run.
    fn run(&mut self) -> Value {
        loop {
            let object = self.next().expect("there is another run");
            assert_ne!(object["event"], "summary", "{object}");
            if object["event"] == "run" {
                return object;
            }
        }
    }

    /// The rest, which ends with a summary, and the code.
    fn end(mut self) -> (Value, i32) {
        let mut last = Value::Null;
        while let Some(object) = self.next() {
            last = object;
        }
        assert_eq!(last["event"], "summary", "{last}");
        let code = self.child.wait().unwrap().code().unwrap();
        assert_eq!(last["exit_code"], code);
        (last, code)
    }
}

impl Drop for Repeated {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn serve(sandbox: &Sandbox, args: &[&str]) -> Served {
    sandbox.serve(&[&["--plain", "--open", "write"], args].concat())
}

// Each run sends what is new; the server's word on the next one wins over the client's own.
#[test]
fn the_server_says_when_the_next_run_is_due_and_the_client_comes() {
    let sandbox = Sandbox::new();
    let served = serve(&sandbox, &["--interval", "1s"]);
    let file = sandbox.file("f", b"one");
    let mut push = Repeated::start(
        &sandbox,
        &["--interval", "1h", file.to_str().unwrap(), &served.link("/f")],
    );
    for (content, transferred) in [("one", 3), ("three", 5)] {
        std::fs::write(&file, content).unwrap();
        let run = loop {
            let run = push.run();
            // A run that came between finds nothing.
            if run["literal_bytes"] != 0 {
                break run;
            }
        };
        assert_eq!(run["exit_code"], 0);
        assert_eq!(run["literal_bytes"], transferred);
        let next = run["next_seconds"].as_f64().unwrap();
        assert!((0.9..=1.1).contains(&next), "{next}");
        assert_eq!(std::fs::read_to_string(sandbox.path("share/f")).unwrap(), content);
    }
    signal(&push.child, "INT");
    assert_eq!(push.end().1, 130);
}

// Whoever presses Ctrl-C does not wait for the next run.
#[test]
fn an_interrupt_between_two_runs_ends_it_at_once() {
    let sandbox = Sandbox::new();
    let served = serve(&sandbox, &["--interval", "1h"]);
    let file = sandbox.file("f", b"one");
    for (name, code) in [("INT", 130), ("TERM", 143)] {
        let mut push = Repeated::start(
            &sandbox,
            &["--interval", "1s", file.to_str().unwrap(), &served.link("/f")],
        );
        let next = push.run()["next_seconds"].as_f64().unwrap();
        assert!((3_240.0..=3_960.0).contains(&next), "{next}");
        let begun = Instant::now();
        signal(&push.child, name);
        assert_eq!(push.end().1, code);
        assert!(begun.elapsed() < Duration::from_secs(60), "an hour is not waited for");
    }
}

// A server that is not there now may be there later; a share that is not there, or may not be written, is for a
// person to mend.
#[test]
fn a_run_that_may_pass_is_repeated_and_one_that_is_refused_is_the_last() {
    let sandbox = Sandbox::new();
    let file = sandbox.file("f", b"one");
    let file = file.to_str().unwrap();
    let nobody = [
        "--interval",
        "50ms",
        "--retries",
        "0",
        file,
        "syncline://127.0.0.1:1/Share",
    ];
    let mut push = Repeated::start(&sandbox, &nobody);
    for _ in 0..3 {
        assert_eq!(push.run()["exit_code"], 5);
    }
    signal(&push.child, "INT");
    assert_eq!(push.end().1, 130);

    let served = sandbox.serve(&["--plain", "--open", "read"]);
    let push = Repeated::start(&sandbox, &["--interval", "50ms", file, &served.link("/f")]);
    assert_eq!(push.end().1, 6);
}
