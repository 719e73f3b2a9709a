//! The load generator against the real server: each scenario gets through, what lies in the share afterwards is
//! what the seed says, and its output is what scripts may rely on.

#![allow(clippy::unwrap_used)]

mod binary;

use binary::{Run, Sandbox, Served, alone, finished};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::io::{self, BufRead, BufReader, Read};
use std::process::{Command, Stdio};

const PLAIN: [&str; 7] = [
    "--plain",
    "--open",
    "write",
    "--durability",
    "none",
    "--keep-versions",
    "off",
];

/// A server whose output is read: it says a line for each transfer, and would wait for a full pipe.
fn serve(sandbox: &Sandbox, args: &[&str]) -> Served {
    let mut served = sandbox.serve(args);
    let out = served.child.stdout.take().unwrap();
    let err = served.child.stderr.take().unwrap();
    std::thread::spawn(move || io::copy(&mut { out }, &mut io::sink()));
    std::thread::spawn(move || io::copy(&mut { err }, &mut io::sink()));
    served
}

fn command(sandbox: &Sandbox, args: &[&str], link: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_syncline-load"));
    alone::in_directory(&mut command, &sandbox.path(""));
    command.args(args).arg(link).stdin(Stdio::null());
    command
}

fn load(sandbox: &Sandbox, args: &[&str], link: &str) -> Run {
    finished(&command(sandbox, args, link).output().unwrap())
}

/// A run whose files are compared afterwards; its summary.
fn verified(sandbox: &Sandbox, served: &Served, args: &[&str]) -> Value {
    let share = sandbox.path("share");
    let all = [args, &["--json", "--verify", share.to_str().unwrap()]].concat();
    let run = load(sandbox, &all, &served.link(""));
    run.expect(0);
    let summary = run.summary();
    assert_eq!(summary["failed"], 0, "{summary}");
    assert_eq!(summary["setup_failed"], 0, "{summary}");
    assert_eq!(summary["verified"]["different"], 0, "{summary}");
    summary
}

// Protects the instrument: with 50 clients each scenario ends by itself, all syncs get through, and the share
// holds what the seed says.
#[test]
fn each_scenario_gets_through_and_leaves_what_the_seed_says() {
    let sandbox = Sandbox::new();
    let served = serve(&sandbox, &PLAIN);
    for (scenario, more, syncs, files) in [
        ("full", &["--files", "2", "--size", "40k"][..], 50, 100),
        ("full", &["--size", "0"], 50, 50),
        ("full", &["--files", "3", "--count", "120", "--seed", "9"], 120, 150),
        (
            "full",
            &["--direction", "pull", "--files", "2", "--count", "70"],
            70,
            100,
        ),
        ("delta", &["--count", "200", "--files", "2"], 200, 100),
        ("delta", &["--count", "100", "--rate", "2000", "--reconnect"], 100, 50),
        ("no-op", &["--count", "100"], 100, 50),
        ("no-op", &["--count", "100", "--direction", "pull"], 100, 50),
        ("mixed", &["--count", "200", "--rate", "1000", "--files", "2"], 200, 100),
        ("idle", &["--duration", "200ms"], 0, 0),
        ("churn", &["--count", "300"], 300, 0),
        ("slow-readers", &["--count", "40", "--giant-size", "12M"], 40, 9),
        ("slow-writers", &["--count", "40"], 40, 8),
        ("half-open", &["--count", "40", "--beside", "3"], 40, 3),
    ] {
        let args = [&["--plain", "--scenario", scenario, "--clients", "50"][..], more].concat();
        let summary = verified(&sandbox, &served, &args);
        assert_eq!(summary["syncs"], syncs, "{args:?}: {summary}");
        assert_eq!(summary["verified"]["same"], files, "{args:?}: {summary}");
        assert_eq!(summary["latency_ms"]["count"], syncs, "{args:?}");
    }
    let args = [
        "--plain",
        "-s",
        "giant",
        "-c",
        "5",
        "--giant-size",
        "30M",
        "--giant-delta",
        "20M",
    ];
    let summary = verified(&sandbox, &served, &args);
    let giants: BTreeSet<&str> = summary["giants"]
        .as_array()
        .unwrap()
        .iter()
        .map(|g| g["what"].as_str().unwrap())
        .collect();
    assert!(giants.contains("push"), "{summary}");
    assert_eq!(summary["verified"]["same"], 7);
}

// Protects what a delta run measures: an edit travels, not the file; a whole file does where that was asked for.
#[test]
fn a_delta_is_a_few_hundred_bytes_and_a_full_push_the_file() {
    let sandbox = Sandbox::new();
    let served = serve(&sandbox, &PLAIN);
    let args = [
        "--plain",
        "--scenario",
        "delta",
        "--clients",
        "50",
        "--size",
        "300k",
        "--count",
        "200",
    ];
    let delta = verified(&sandbox, &served, &args);
    let sent = delta["sent_per_sync"].as_u64().unwrap();
    assert!((100..600).contains(&sent), "{sent} bytes for an edit of 100");
    assert!(delta["received_per_sync"].as_u64().unwrap() < 300, "{delta}");
    let args = [
        "--plain",
        "--scenario",
        "full",
        "--clients",
        "50",
        "--size",
        "300k",
        "--count",
        "60",
    ];
    let full = verified(&sandbox, &served, &args);
    let sent = full["sent_per_sync"].as_u64().unwrap();
    assert!((307_200..308_500).contains(&sent), "{sent} bytes for a file of 307,200");
    assert_eq!(full["content_bytes"], 60 * 307_200);
}

// Protects scripts: the object has exactly these keys.
#[test]
fn the_summary_has_these_keys() {
    let sandbox = Sandbox::new();
    let served = serve(&sandbox, &PLAIN);
    let summary = verified(&sandbox, &served, &["--plain", "--scenario", "churn", "--count", "3"]);
    let keys: BTreeSet<&str> = summary.as_object().unwrap().keys().map(String::as_str).collect();
    let expected = "busy clients connect_ms connections content_bytes cut cuts errors event exit_code failed files \
        first_to_last_seconds generator_cpu_seconds generator_peak_bytes giants identities latency_ms loop opened \
        peak_connected plain queued rate received_per_sync scenario seconds seed sent_per_sync service_ms setup_failed size \
        syncs syncs_per_second verified wire_received wire_sent";
    assert_eq!(keys, expected.split_whitespace().collect());
    let latency: BTreeSet<&str> = summary["latency_ms"]
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    assert_eq!(latency, ["count", "max", "mean", "p50", "p90", "p99", "p99_9"].into());
}

// Protects whoever reads the table and the chart.
#[test]
fn the_table_says_how_it_was_measured_and_the_chart_is_a_picture() {
    let sandbox = Sandbox::new();
    let served = serve(&sandbox, &PLAIN);
    for (name, start) in [("chart.svg", "<svg "), ("chart.html", "<!doctype html>")] {
        let chart = sandbox.path(name);
        let args = [
            "--plain",
            "--count",
            "30",
            "-c",
            "3",
            "--rate",
            "500",
            "--chart",
            chart.to_str().unwrap(),
        ];
        let run = load(&sandbox, &args, &served.link(""));
        run.expect(0);
        assert!(
            run.out
                .contains("open loop, 500 a second; latency from the intended start"),
            "{}",
            run.out
        );
        assert!(run.out.contains("30 syncs in"), "{}", run.out);
        let drawn = fs::read_to_string(chart).unwrap();
        assert!(drawn.starts_with(start) && drawn.contains("p99.9") && !drawn.contains("<script"));
    }
    let run = load(&sandbox, &["--plain", "--count", "30", "-c", "3"], &served.link(""));
    assert!(run.expect(0).out.contains("closed loop"), "{}", run.out);
}

// Protects users: what cannot be done is said in one sentence, with what to try, before anything connects.
#[test]
fn wrong_usage_is_one_sentence_and_what_to_try() {
    let sandbox = Sandbox::new();
    for (args, link, part) in [
        (&["--plain"][..], "nonsense", "not a link"),
        (
            &["--plain", "--clients", "0"],
            "syncline://127.0.0.1:1/S",
            "--clients 0",
        ),
        (&["--plain", "--chart", "c.png"], "syncline://127.0.0.1:1/S", "c.png"),
        (
            &["--plain", "--json"],
            "syncline://192.0.2.1:1/S",
            "beyond this machine",
        ),
    ] {
        let run = load(&sandbox, args, link);
        run.expect(2);
        let lines: Vec<&str> = run.err.lines().collect();
        assert_eq!(lines.len(), 2, "{}", run.err);
        assert!(
            lines[0].starts_with("syncline-load: ") && lines[0].contains(part),
            "{}",
            run.err
        );
        assert!(lines[1].starts_with("  ") && lines[1].len() > 8, "{}", run.err);
        if args.contains(&"--json") {
            run.summary();
        }
    }
    for args in [&["--nonsense"][..], &["--scenario", "none"], &["--size", "x"]] {
        assert_eq!(load(&sandbox, args, "syncline://127.0.0.1:1/S").code, 2, "{args:?}");
    }
    assert_eq!(load(&sandbox, &["--help"], "").code, 0);
}

// Protects the exit code: failures, and files that are not what they should be, are told by kind.
#[test]
fn failures_are_counted_by_kind_and_have_a_code() {
    let sandbox = Sandbox::new();
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let link = format!("syncline://{}/Share", nobody.local_addr().unwrap());
    drop(nobody);
    let args = ["--plain", "--scenario", "full", "--clients", "3", "--json"];
    let run = load(&sandbox, &args, &link);
    run.expect(3);
    assert_eq!(run.summary()["errors"]["refused"], 3, "{}", run.out);

    let served = serve(&sandbox, &PLAIN);
    let wrong = format!("syncline://{}/Other", served.listen());
    let run = load(&sandbox, &args, &wrong);
    run.expect(3);
    let errors = run.summary()["errors"].as_object().unwrap().clone();
    assert!(errors.keys().all(|kind| kind.contains("Refused")), "{errors:?}");

    fs::create_dir(sandbox.path("elsewhere")).unwrap();
    let elsewhere = sandbox.path("elsewhere");
    let run = load(
        &sandbox,
        &[&args[..], &["--verify", elsewhere.to_str().unwrap()]].concat(),
        &served.link(""),
    );
    run.expect(3);
    let summary = run.summary();
    assert_eq!(
        (&summary["verified"]["same"], &summary["verified"]["different"]),
        (&0.into(), &3.into())
    );
    assert_eq!(summary["verified"]["examples"][0], "c00000/f0000");
}

// Protects a long run that is interrupted: it says what there is so far.
#[test]
fn an_interrupted_run_prints_what_there_is() {
    let sandbox = Sandbox::new();
    let served = serve(&sandbox, &PLAIN);
    let mut child = command(&sandbox, &["--plain", "--duration", "1h", "-c", "2"], &served.link(""))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    assert!(line.contains("2 connected"), "{line}");
    binary::signal(&child, "INT");
    let mut out = String::new();
    child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(out.contains("syncs in") && out.contains("latency"), "{out}");
}

// Protects the meaning of waiting: a server that takes two at a time has the others wait, and all get through.
#[test]
fn who_has_to_wait_gets_through() {
    let sandbox = Sandbox::new();
    let served = serve(&sandbox, &[&PLAIN[..], &["--max-active", "2"]].concat());
    let summary = verified(
        &sandbox,
        &served,
        &["--plain", "--scenario", "full", "--clients", "50", "--size", "400k"],
    );
    assert_eq!(summary["syncs"], 50, "{summary}");
    assert!(summary["queued"].as_u64().unwrap() > 0, "{summary}");
}

// Protects the secure half: the same over TLS, with keys of their own, and with the server's key pinned.
#[cfg(feature = "tls")]
#[test]
fn it_works_over_tls_with_several_keys() {
    let sandbox = Sandbox::new();
    let served = serve(&sandbox, &PLAIN[1..]);
    for args in [
        &[
            "--scenario",
            "full",
            "--clients",
            "50",
            "--size",
            "100k",
            "--identities",
            "7",
        ][..],
        &["--scenario", "delta", "--clients", "50", "--count", "200"],
        &[
            "--scenario",
            "mixed",
            "--clients",
            "20",
            "--count",
            "100",
            "--reconnect",
        ],
        &["--scenario", "idle", "--clients", "50", "--duration", "200ms"],
        &["--scenario", "churn", "--clients", "50", "--count", "200"],
        &["--scenario", "half-open", "--clients", "50", "--count", "30"],
        &[
            "--scenario",
            "slow-readers",
            "--clients",
            "10",
            "--count",
            "30",
            "--giant-size",
            "12M",
        ],
        &["--scenario", "slow-writers", "--clients", "10", "--count", "30"],
    ] {
        let summary = verified(&sandbox, &served, args);
        assert_eq!(summary["plain"], false);
    }
    let pinned = |key: &str| format!("{}#{key}", served.link(""));
    let args = ["--scenario", "full", "--clients", "3", "--json"];
    load(&sandbox, &args, &pinned(served.ready["device"].as_str().unwrap())).expect(0);
    let run = load(&sandbox, &args, &pinned(&"a".repeat(64)));
    run.expect(3);
    let errors = run.summary()["errors"].as_object().unwrap().clone();
    assert_eq!(
        errors.keys().collect::<Vec<_>>(),
        ["the server has another key than expected"]
    );
}
