//! `/metrics` and `/healthz` of the real binary: exact figures, a strict reader, and what HTTP clients may not do.

#![allow(clippy::unwrap_used)]

mod binary;
#[path = "metrics/exposition.rs"]
#[allow(unreachable_pub, dead_code)]
mod exposition;
#[path = "metrics/web.rs"]
#[allow(unreachable_pub, dead_code)]
mod web;

use binary::{Sandbox, Served};
use exposition::{Samples, read};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::time::{Duration, Instant};
use web::Web;

const METRICS: [&str; 5] = ["--plain", "--open", "write", "--metrics", "127.0.0.1:0"];

fn address(served: &Served) -> String {
    served.ready["metrics"].as_str().expect("where metrics are").to_owned()
}

fn scrape(web: &mut Web) -> Samples {
    let answer = web.get("/metrics");
    assert_eq!(answer.status, 200);
    let content_type = "Content-Type: text/plain; version=0.0.4; charset=utf-8";
    assert!(
        answer.headers.iter().any(|line| line == content_type),
        "{:?}",
        answer.headers
    );
    read(&answer.body)
}

/// The next object with this state that the server prints.
fn told(served: &mut Served, state: &str) -> Value {
    let mut out = BufReader::new(served.child.stdout.take().unwrap());
    loop {
        let mut line = String::new();
        assert!(out.read_line(&mut line).unwrap() > 0, "the server said no {state}");
        let object: Value = serde_json::from_str(&line).unwrap();
        if object["state"] == state {
            served.child.stdout = Some(out.into_inner());
            return object;
        }
    }
}

// Protects whoever draws conclusions from metrics: they are what happened, to the byte.
#[test]
fn the_counters_are_what_was_pushed() {
    let sandbox = Sandbox::new();
    let mut served = sandbox.serve(&METRICS);
    let mut web = Web::connect(&address(&served));
    let before = scrape(&mut web);
    assert_eq!(before.at("syncline_sessions_begun_total"), 0.0);
    assert_eq!(before.at("syncline_share_files_total{share=\"Share\"}"), 0.0);
    sandbox.file("tree/small", b"seven b");
    sandbox.file("tree/sub/large", &vec![7; 100_000]);
    let (tree, link) = (sandbox.path("tree"), served.link(""));
    let push = ["push", "--json", "--plain", tree.to_str().unwrap(), &link];
    let summary = sandbox.run(&push).expect(0).summary();
    let transferred = told(&mut served, "transferred");
    let samples = scrape(&mut web);
    let share = |name: &str| samples.at(&format!("syncline_share_{name}{{share=\"Share\"}}"));
    for (name, key) in [
        ("files_total", "files"),
        ("bytes_total", "bytes"),
        ("literal_bytes_total", "literal_bytes"),
        ("matched_bytes_total", "matched_bytes"),
        ("saved_bytes_total", "saved_bytes"),
        ("unchanged_bytes_total", "unchanged_bytes"),
        ("wire_sent_bytes_total", "wire_sent"),
        ("wire_received_bytes_total", "wire_received"),
    ] {
        assert_eq!(Some(share(name)), transferred[key].as_f64(), "{name}");
    }
    assert_eq!((share("files_total"), share("bytes_total")), (2.0, 100_007.0));
    assert_eq!((share("transferred_files_total"), share("sessions_total")), (2.0, 1.0));
    assert_eq!(Some(share("literal_bytes_total")), summary["literal_bytes"].as_f64());
    assert_eq!((share("read_only"), share("journal_entries")), (0.0, 0.0));
    assert_eq!(samples.at("syncline_sessions_begun_total"), 1.0);
    assert_eq!(samples.at("syncline_sessions_completed_total"), 1.0);
    assert_eq!(samples.at("syncline_commit_files_total"), 2.0);
    assert_eq!(
        samples.at("syncline_accepted_total"),
        2.0,
        "the push, and this connection"
    );
    assert_eq!(samples.at("syncline_web_connections"), 1.0);
    // The wire carried at least what the two sessions say, and the first scrape.
    let received = samples.at("syncline_network_received_bytes_total");
    assert!(
        received >= share("wire_received_bytes_total") && received < 200_000.0,
        "{received}"
    );
    assert!(samples.at("syncline_turn_seconds_count") > before.at("syncline_turn_seconds_count"));
    assert!(samples.at("syncline_memory_anonymous_bytes") > 100_000.0);
    assert!(samples.at("syncline_descriptors_open") > 5.0);
    // Again: nothing travels, all of it is saved.
    sandbox.run(&push).expect(0);
    told(&mut served, "transferred");
    let again = scrape(&mut web);
    assert_eq!(
        again.at("syncline_share_literal_bytes_total{share=\"Share\"}"),
        share("literal_bytes_total")
    );
    assert_eq!(
        again.at("syncline_share_unchanged_bytes_total{share=\"Share\"}"),
        100_007.0
    );
    assert_eq!(again.at("syncline_sessions_completed_total"), 2.0);
}

#[test]
fn what_fails_is_counted_by_its_kind() {
    let sandbox = Sandbox::new();
    let mut served = sandbox.serve(&METRICS);
    let file = sandbox.file("a", b"a");
    std::fs::create_dir_all(sandbox.path("share/a/b")).unwrap();
    let push = ["push", "--json", "--plain", file.to_str().unwrap(), &served.link("/")];
    sandbox.run(&push).expect(3);
    told(&mut served, "transferred");
    // A peer that speaks another language, and one that does not know where it wants to go.
    let mut stranger = Web::connect(&served.listen());
    stranger.send(b"GET / HTTP/1.1\r\n\r\n");
    told(&mut served, "refused");
    sandbox.run(&[
        "push",
        "--plain",
        file.to_str().unwrap(),
        &served.link("").replace("Share", "Other"),
    ]);
    told(&mut served, "refused");
    let samples = scrape(&mut Web::connect(&address(&served)));
    assert_eq!(
        samples.at("syncline_share_failed_items_total{share=\"Share\",error=\"in_the_way\"}"),
        1.0
    );
    let refused: f64 = samples
        .0
        .iter()
        .filter(|(name, _)| name.starts_with("syncline_refused_total{"))
        .map(|(_, n)| n)
        .sum();
    assert_eq!(refused, 2.0, "{samples:#?}");
    assert_eq!(samples.at("syncline_sessions_begun_total"), 1.0);
}

// A client that is killed, and one that never says who it is, are seen as what they are.
#[test]
fn connections_are_in_the_stage_that_they_are_in() {
    let sandbox = Sandbox::new();
    let served = sandbox.serve(&METRICS);
    let mut web = Web::connect(&address(&served));
    let _silent = Web::connect(&served.listen());
    sandbox.file("large", &vec![5; 4 << 20]);
    let mut push = sandbox
        .command("client")
        .args(["push", "--plain", "--bwlimit", "256k", "large", &served.link("")])
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    wait_for(&mut web, |samples| {
        samples.at("syncline_connections{stage=\"active\"}") == 1.0
            && samples.at("syncline_connections{stage=\"handshaking\"}") == 1.0
            && samples.at("syncline_share_journal_entries{share=\"Share\"}") == 1.0
    });
    push.kill().unwrap();
    push.wait().unwrap();
    let samples = wait_for(&mut web, |samples| {
        samples.at("syncline_connections{stage=\"active\"}") == 0.0
    });
    assert_eq!(samples.at("syncline_sessions_failed_total{code=\"lost\"}"), 1.0);
    assert_eq!(samples.at("syncline_sessions_completed_total"), 0.0);
    assert_eq!(
        samples.at("syncline_share_journal_entries{share=\"Share\"}"),
        1.0,
        "it can be gone on with"
    );
}

/// Scrapes until something holds.
fn wait_for(web: &mut Web, mut holds: impl FnMut(&Samples) -> bool) -> Samples {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        let samples = scrape(web);
        if holds(&samples) {
            return samples;
        }
        assert!(Instant::now() < until, "{samples:#?}");
        std::thread::yield_now();
    }
}

// Protects a load balancer: it hears that nobody should come any more while what runs is finished.
#[test]
fn health_tells_why_nobody_should_come() {
    let sandbox = Sandbox::new();
    let served = sandbox.serve(&METRICS);
    let at = address(&served);
    let mut web = Web::connect(&at);
    let answer = web.get("/healthz");
    assert_eq!((answer.status, answer.body.as_str()), (200, "ok\n"));
    sandbox.file("large", &vec![5; 4 << 20]);
    let mut push = sandbox
        .command("client")
        .args([
            "push",
            "--plain",
            "--retries",
            "0",
            "--bwlimit",
            "64k",
            "large",
            &served.link(""),
        ])
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    wait_for(&mut web, |samples| {
        samples.at("syncline_connections{stage=\"active\"}") == 1.0
    });
    served.signal("TERM");
    let until = Instant::now() + Duration::from_secs(4);
    let answer = loop {
        let answer = web.get("/healthz");
        if answer.status == 503 {
            break answer;
        }
        assert!(Instant::now() < until, "{answer:?}");
    };
    assert!(answer.body.starts_with("draining"), "{}", answer.body);
    let fresh = Web::connect(&at).get("/healthz");
    assert_eq!(fresh.status, 503, "a new connection is answered, too");
    assert!(
        std::net::TcpStream::connect(served.listen()).is_err(),
        "nobody new is let in"
    );
    let run = served.wait();
    run.expect(0);
    push.kill().unwrap();
    push.wait().unwrap();
    assert!(web.is_closed());
}

#[test]
fn a_share_with_a_damaged_journal_is_not_healthy() {
    let sandbox = Sandbox::new();
    std::fs::create_dir(sandbox.path("share/.syncline")).unwrap();
    std::fs::write(sandbox.path("share/.syncline/journal"), [7; 4096]).unwrap();
    let served = sandbox.serve(&METRICS);
    let mut web = Web::connect(&address(&served));
    let answer = web.get("/healthz");
    assert_eq!(answer.status, 503);
    assert!(
        answer.body.contains("\"Share\" is read-only: its journal is damaged"),
        "{}",
        answer.body
    );
    assert_eq!(scrape(&mut web).at("syncline_share_read_only{share=\"Share\"}"), 1.0);
}

// Rows 31 and 35 on the real socket; the cases are in the tests of the machine.
#[test]
fn row_31_row_35_strangers_are_told_and_cut_off() {
    let sandbox = Sandbox::new();
    let served = sandbox.serve(&METRICS);
    let at = address(&served);
    for (text, status) in [
        ("GET /metrics HTTP/1.1\r\nHost: evil.example\r\n\r\n", 421),
        (
            "POST /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc",
            405,
        ),
        (
            "GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
            400,
        ),
    ] {
        let mut web = Web::connect(&at);
        web.send(text.as_bytes());
        let answer = web.answer().unwrap();
        assert_eq!(answer.status, status, "{text}");
        assert!(!answer.body.contains("syncline_") && web.is_closed(), "{text}");
    }
    let mut web = Web::connect(&at);
    web.send(&[b'a'; 20_000]);
    assert_eq!(web.answer().unwrap().status, 431);
    let mut web = Web::connect(&at);
    assert_eq!(web.get("/").status, 404);
    assert_eq!(web.get("/metrics/../healthz").status, 404);
    // Our own protocol is not spoken there, and HTTP is not spoken where our own is.
    let push = sandbox.file("a", b"a");
    let link = format!("syncline://{at}/Share");
    let run = sandbox.run(&["push", "--plain", "--retries", "0", push.to_str().unwrap(), &link]);
    assert_ne!(run.code, 0);
}

// Protects sync from HTTP clients: they are few, the oldest gives way, and devices get in beside them.
#[test]
fn many_http_clients_keep_nobody_out() {
    let sandbox = Sandbox::new();
    let served = sandbox.serve(&METRICS);
    let at = address(&served);
    let mut crowd: Vec<Web> = (0..40).map(|_| Web::connect(&at)).collect();
    let last = crowd.last_mut().unwrap();
    let samples = wait_for(last, |samples| samples.at("syncline_accepted_total") >= 40.0);
    assert_eq!(samples.at("syncline_web_connections"), 32.0);
    assert!(crowd[0].is_closed(), "the oldest gave way");
    let file = sandbox.file("a", b"a");
    sandbox
        .run(&["push", "--plain", file.to_str().unwrap(), &served.link("")])
        .expect(0);
    // Whoever asks very often at once gets some answers, and is asked to come again.
    let mut greedy = Web::connect(&at);
    let request = format!("GET /healthz HTTP/1.1\r\nHost: {at}\r\n\r\n");
    greedy.send(request.repeat(200).as_bytes());
    let answers = std::iter::from_fn(|| greedy.answer()).count();
    assert!((1..200).contains(&answers), "{answers}");
}

#[test]
fn metrics_are_refused_beyond_this_machine_and_off_by_default() {
    let sandbox = Sandbox::new();
    let served = sandbox.serve(&METRICS[..3]);
    assert!(served.ready["metrics"].is_null());
    std::fs::create_dir(sandbox.path("other")).unwrap();
    let serve = [
        "serve",
        "other",
        "--plain",
        "--open",
        "read",
        "--listen",
        "127.0.0.1:0",
        "--metrics",
    ];
    sandbox
        .run(&[&serve[..], &["0.0.0.0:0"]].concat())
        .complains(2, "--metrics");
    let taken = served.listen();
    sandbox.run(&[&serve[..], &[&taken]].concat()).complains(1, &taken);
}

// Protects whoever reads `status --json` instead: the same figures, by the same names.
#[cfg(feature = "tls")]
#[test]
fn the_owner_sees_the_same_figures_in_status() {
    let sandbox = Sandbox::new();
    let mut served = sandbox.serve(&["--metrics", "127.0.0.1:0"]);
    let file = sandbox.file("a", &vec![1; 50_000]);
    sandbox
        .run(&["push", file.to_str().unwrap(), &served.invite()])
        .expect(0);
    told(&mut served, "transferred");
    let status = sandbox.run_as("server", &["status", "--json", &served.link("")]);
    status.expect(0);
    let status = status.objects().remove(0);
    let samples = scrape(&mut Web::connect(&address(&served)));
    for (path, name) in [
        ("/shares/0/files", "syncline_share_files_total{share=\"Share\"}"),
        (
            "/shares/0/wire_received",
            "syncline_share_wire_received_bytes_total{share=\"Share\"}",
        ),
        (
            "/shares/0/journal_bytes",
            "syncline_share_journal_bytes{share=\"Share\"}",
        ),
        ("/loop_status/sessions/completed", "syncline_sessions_completed_total"),
        ("/loop_status/commits/files", "syncline_commit_files_total"),
        ("/loop_status/helper/jobs", "syncline_helper_jobs_total"),
    ] {
        let figure = status.pointer(path).and_then(Value::as_f64);
        assert_eq!(figure, Some(samples.at(name)), "{path}: {status:#}");
    }
    let lines = sandbox.run_as("server", &["status", &served.link("")]).out;
    for part in [
        "\n  connections  ",
        "\n  sessions     0 active, 0 queued, 1 completed, 0 failed",
        "\n  loop         longest turn ",
        "\n  memory       ",
    ] {
        assert!(lines.contains(part), "{part:?} is not in {lines}");
    }
    // Whoever is not the owner sees the share, and nothing of the loop.
    let run = sandbox.run(&["status", "--json", &served.link("")]);
    let seen = &run.objects()[0];
    assert_eq!(seen["shares"][0]["files"], 1);
    assert!(
        seen.get("loop_status").is_none() && seen["shares"][0].get("journal_bytes").is_none(),
        "{seen}"
    );
}
