//! What scripts may rely on: the objects, the keys, the codes and the id line of the real binary.

#![allow(clippy::unwrap_used)]

mod binary;

use binary::Sandbox;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::fs;

const SUMMARY_KEYS: [&str; 12] = [
    "files",
    "bytes",
    "wire_sent",
    "wire_received",
    "literal_bytes",
    "matched_bytes",
    "saved_bytes",
    "unchanged_bytes",
    "resumed_bytes",
    "seconds",
    "failed",
    "exit_code",
];

const PLAIN: [&str; 3] = ["--plain", "--open", "write"];

#[test]
fn serve_prints_one_ready_object_with_every_key() {
    let sandbox = Sandbox::new();
    let served = sandbox.serve(&PLAIN);
    let ready = &served.ready;
    assert_eq!(ready["event"], "ready");
    let port: u16 = served.listen().rsplit_once(':').unwrap().1.parse().unwrap();
    assert_ne!(port, 0, "the port that was picked");
    assert!(ready.as_object().unwrap().contains_key("web"));
    let share = &ready["shares"][0];
    assert_eq!(share["name"], "Share");
    assert_eq!(
        share["path"],
        sandbox.path("share").canonicalize().unwrap().to_str().unwrap()
    );
    assert_eq!(share["invite"], served.link(""));
}

#[cfg(feature = "tls")]
#[test]
fn an_invite_of_ready_pairs_and_names_the_server() {
    let sandbox = Sandbox::new();
    let served = sandbox.serve(&[]);
    let invite = served.invite();
    assert!(invite.starts_with(&format!("{}#", served.link(""))), "{invite}");
    let file = sandbox.file("a", b"a");
    let run = sandbox.run(&["push", "--json", file.to_str().unwrap(), &invite]);
    run.expect(0);
    let connected = &run.objects()[0];
    assert_eq!(
        (&connected["state"], &connected["paired"]),
        (&"connected".into(), &true.into())
    );
    assert_eq!(connected["server"], served.ready["device"]);
}

#[test]
fn every_json_run_ends_with_a_summary_of_exactly_these_keys() {
    let sandbox = Sandbox::new();
    let served = sandbox.serve(&PLAIN);
    let file = sandbox.file("a", b"content");
    let (file, link) = (file.to_str().unwrap(), served.link(""));
    let gone = sandbox.path("gone");
    let runs: [(&[&str], i32); 12] = [
        (&["push", "--plain", file, &link], 0),
        (&["push", "--plain", "--error-on-no-transfer", file, &link], 9),
        (&["pull", "--plain", &served.link("/nothing"), "."], 10),
        (&["push", "--plain", gone.to_str().unwrap(), &link], 1),
        (&["push", "--plain", file, "syncline://127.0.0.1:1/Share"], 5),
        (&["push", "--plain", file, "not-a-link"], 2),
        (&["push", "--nonsense"], 2),
        (&["pull", "--plain", "syncline://127.0.0.1:x/S", "."], 2),
        (&["id", file], 0),
        (&["status"], 0),
        (&["devices"], 0),
        (&["invite"], 1),
    ];
    for (args, code) in runs {
        let args = [&["--json"], args].concat();
        let run = sandbox.run(&args);
        run.expect(code);
        let summary = run.summary();
        for key in SUMMARY_KEYS {
            assert!(summary[key].is_number(), "{key} of {args:?}: {summary}");
        }
        let summaries = run
            .objects()
            .iter()
            .filter(|object| object["event"] == "summary")
            .count();
        assert_eq!(summaries, 1);
        let errors = run.objects().iter().filter(|object| object["event"] == "error").count();
        assert_eq!(errors, usize::from(!matches!(code, 0 | 9)), "{args:?}: {}", run.out);
    }
}

#[test]
fn the_summary_counts_what_moved() {
    let sandbox = Sandbox::new();
    let served = sandbox.serve(&PLAIN);
    sandbox.file("tree/small", b"seven b");
    sandbox.file("tree/sub/large", &vec![7; 100_000]);
    let (tree, link) = (sandbox.path("tree"), served.link(""));
    let push = ["push", "--json", "--plain", tree.to_str().unwrap(), &link];
    let first = sandbox.run(&push).summary();
    assert_eq!((&first["files"], &first["bytes"]), (&2.into(), &100_007.into()));
    assert_eq!(first["literal_bytes"], 100_007);
    assert!(first["wire_sent"].as_u64().unwrap() > 100_007);
    let again = sandbox.run(&push).summary();
    assert_eq!(
        (&again["literal_bytes"], &again["saved_bytes"]),
        (&0.into(), &100_007.into())
    );
    assert!(again["wire_sent"].as_u64().unwrap() < 1_000, "{again}");
}

/// What delta saved is told to scripts file by file, to people in the summary, and by the server.
#[test]
fn what_delta_saved_is_told() {
    const LENGTH: u64 = 20 << 20;
    let sandbox = Sandbox::new();
    let served = sandbox.serve(&PLAIN);
    let mut state = 1u64;
    let mut content: Vec<u8> = (0..LENGTH)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        })
        .collect();
    let file = sandbox.file("tree/f", &content);
    sandbox.file("tree/same", &[9; 1000]);
    let (tree, link) = (sandbox.path("tree/"), served.link(""));
    let push = ["push", "--plain", "--inplace", tree.to_str().unwrap(), &link];
    sandbox.run(&push).expect(0);
    let mut edit = |at: usize| {
        content[at] ^= 1;
        fs::write(&file, &content).unwrap();
    };
    edit(1 << 20);
    let run = sandbox.run(&[&push[..], &["--json"]].concat());
    let (summary, objects) = (run.expect(0).summary(), run.objects());
    let number = |object: &Value, key: &str| object[key].as_u64().unwrap_or_else(|| panic!("{key} of {object}"));
    let items: Vec<&Value> = objects
        .iter()
        .filter(|object| object["event"] == "item" && object["path"] == "f")
        .collect();
    assert_eq!(items.len(), 1, "{}", run.out);
    for key in ["literal_bytes", "matched_bytes"] {
        assert_eq!(items[0][key], summary[key], "{key}");
    }
    assert_eq!(number(items[0], "saved_bytes") + 1000, number(&summary, "saved_bytes"));
    assert_eq!(number(&summary, "unchanged_bytes"), 1000);
    assert_eq!(
        number(&summary, "literal_bytes") + number(&summary, "matched_bytes"),
        LENGTH
    );
    edit(2 << 20);
    let run = sandbox.run(&push);
    assert!(
        run.expect(0).err.contains(" · delta saved 20 MiB (99.9 %) · "),
        "{}",
        run.err
    );
    let status = sandbox.run(&["status", "--plain", &link]);
    assert!(status.expect(0).out.contains("delta saved 40 MiB"), "{}", status.out);
    served.signal("TERM");
    let log = served.wait();
    let transfers: Vec<Value> = log
        .objects()
        .into_iter()
        .filter(|object| object["state"] == "transferred")
        .collect();
    assert_eq!(transfers.len(), 3, "{}", log.out);
    for key in ["literal_bytes", "matched_bytes", "saved_bytes", "unchanged_bytes"] {
        assert_eq!(transfers[1][key], summary[key], "{key}");
    }
}

#[test]
fn flags_that_exclude_each_other_are_a_usage_error() {
    let sandbox = Sandbox::new();
    let run = sandbox.run(&["push", "-W", "--inplace", "f", "syncline://127.0.0.1:1/S"]);
    assert_eq!(run.code, 2);
    assert!(run.err.contains("--inplace"), "{}", run.err);
}

#[test]
fn id_prints_length_root_and_name_and_is_sha256_up_to_16_kib() {
    let sandbox = Sandbox::new();
    for length in [0usize, 1, 16 * 1024 - 1, 16 * 1024] {
        let content: Vec<u8> = (0..length).map(|i| (i % 251) as u8).collect();
        sandbox.file("f", &content);
        let run = sandbox.run(&["id", "f"]);
        let digest: String = Sha256::digest(&content)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        assert_eq!(run.expect(0).out, format!("{length}-{digest}  f\n"));
    }
    sandbox.file("g", &[0; 16 * 1024 + 1]);
    let run = sandbox.run(&["id", "g", "missing", "f"]);
    run.expect(3);
    let lines: Vec<&str> = run.out.lines().collect();
    assert_eq!(lines.len(), 2, "one bad file does not stop the others");
    let (id, name) = lines[0].split_once("  ").unwrap();
    let (length, root) = id.split_once('-').unwrap();
    assert_eq!((length, name, root.len()), ("16385", "g", 64));
    assert!(run.err.contains("missing"), "{}", run.err);
}

#[test]
fn open_and_plain_are_refused_beyond_this_machine_unless_asked_for_twice() {
    let sandbox = Sandbox::new();
    let serve = |args: &[&str]| sandbox.run_as("server", &[&["serve", "share=Share"], args].concat());
    serve(&["--listen", "0.0.0.0:0", "--open", "read", "--plain"]).complains(2, "lets anyone in");
    serve(&["--listen", "127.0.0.1:0", "--plain"]).complains(2, "cannot tell who connects");
    let far = sandbox.run(&["pull", "--plain", "syncline://192.0.2.1/S", "x"]);
    far.complains(2, "readable and changeable");
}

#[test]
fn open_read_lets_fetch_and_not_change() {
    let sandbox = Sandbox::new();
    sandbox.file("share/there", b"there");
    let served = sandbox.serve(&["--plain", "--open", "read"]);
    sandbox
        .run(&["pull", "--plain", &served.link("/there"), "got"])
        .expect(0);
    assert_eq!(fs::read(sandbox.path("got")).unwrap(), b"there");
    sandbox.file("mine", b"mine");
    sandbox
        .run(&["push", "--plain", "mine", &served.link("")])
        .complains(6, "refused");
    assert!(!sandbox.path("share/mine").exists());
}

#[test]
fn flags_beat_the_environment_and_the_environment_beats_the_file() {
    let sandbox = Sandbox::new();
    let served = sandbox.serve(&PLAIN);
    sandbox.file("a", b"a");
    let link = served.link("");
    let push = ["push", "a", &link];
    // --home moves the config file, too.
    sandbox.file("client/config.toml", b"plain = true\njson = true\n");
    let by_file = sandbox.run(&push);
    assert_eq!(by_file.expect(0).summary()["files"], 1);
    let by_env = sandbox
        .command("client")
        .args(push)
        .env("SYNCLINE_JSON", "false")
        .output()
        .unwrap();
    assert_eq!(binary::finished(&by_env).expect(0).out, "");
    let by_env = sandbox
        .command("client")
        .args(push)
        .env("SYNCLINE_MAX_DELETE", "nonsense")
        .output()
        .unwrap();
    binary::finished(&by_env).expect(2);
    let by_flag = sandbox
        .command("client")
        .args(push)
        .args(["--retries", "3"])
        .env("SYNCLINE_RETRIES", "x")
        .output();
    binary::finished(&by_flag.unwrap()).expect(0);
    sandbox.file("client/config.toml", b"plain = true\nplian = true\n");
    sandbox
        .run(&push)
        .complains(2, "line 2: there is no flag called \"plian\"");
}

#[cfg(feature = "tools")]
#[test]
fn completions_parse_in_their_shells() {
    let sandbox = Sandbox::new();
    for (shell, check) in [("bash", "-n"), ("zsh", "-n"), ("fish", "--no-execute")] {
        let run = sandbox.run(&["completions", shell]);
        run.expect(0);
        assert!(run.out.contains("syncline") && run.out.contains("error-on-no-transfer"));
        let script = sandbox.file("script", run.out.as_bytes());
        match std::process::Command::new(shell).arg(check).arg(&script).output() {
            Ok(output) => assert!(
                output.status.success(),
                "{shell}: {}",
                String::from_utf8_lossy(&output.stderr)
            ),
            Err(_) => eprintln!("completions for {shell} not parsed: there is no {shell} here"),
        }
    }
    sandbox.run(&["completions", "nonsense"]).expect(2);
}

#[test]
fn doctor_reports_checks_as_objects() {
    let sandbox = Sandbox::new();
    let run = sandbox.run(&["doctor", "--json"]);
    assert!(matches!(run.code, 0 | 1 | 3), "{run:?}");
    run.summary();
    let checks: Vec<Value> = run
        .objects()
        .into_iter()
        .filter(|object| object["event"] != "summary")
        .collect();
    assert!(checks.len() >= 3, "{}", run.out);
}

/// A small folder of the user's own, so that it takes no time.
#[cfg(feature = "tools")]
#[test]
fn the_demo_passes_and_leaves_nothing() {
    let sandbox = Sandbox::new();
    sandbox.file("mine/a", b"a");
    sandbox.file("tmp/keep", b"");
    let demo = sandbox
        .command("client")
        .args(["demo", "mine"])
        .env("TMPDIR", sandbox.path("tmp"))
        .output()
        .unwrap();
    let run = binary::finished(&demo);
    run.expect(0);
    assert!(run.out.contains("pull"), "{}", run.out);
    assert_eq!(binary::names(&sandbox.path("tmp")), [sandbox.path("tmp/keep")]);
    assert_eq!(binary::names(&sandbox.path("mine")), [sandbox.path("mine/a")]);
}

#[test]
fn no_arguments_and_help_are_friendly() {
    let sandbox = Sandbox::new();
    let none: [&str; 0] = [];
    assert!(sandbox.run(&none).expect(0).out.contains("syncline serve ~/Share"));
    for command in [
        "serve",
        "push",
        "pull",
        "invite",
        "devices",
        "revoke",
        "status",
        "id",
        "doctor",
        "journal",
        "conflicts",
    ] {
        assert!(!sandbox.run(&[command, "--help"]).expect(0).out.is_empty());
    }
    sandbox.run(&["psuh"]).expect(2);
}

/// What a small build leaves out is explained in one sentence, also to scripts; what it has is there.
#[test]
fn a_command_is_there_or_it_is_said_which_feature_brings_it() {
    let sandbox = Sandbox::new();
    for (command, feature, is_here) in [
        ("sync", "sync", cfg!(feature = "sync")),
        ("ls", "sync", cfg!(feature = "sync")),
        ("delta", "tools", cfg!(feature = "tools")),
        ("demo", "tools", cfg!(feature = "tools")),
        ("completions", "tools", cfg!(feature = "tools")),
    ] {
        let run = sandbox.run(&[command, "--help"]);
        if is_here {
            assert!(!run.expect(0).out.is_empty());
            continue;
        }
        run.complains(2, &format!("this syncline was built without `{command}`"));
        assert!(run.err.contains(&format!("feature `{feature}`")), "{}", run.err);
        let as_objects = sandbox.run(&["--json", command]);
        assert_eq!(as_objects.expect(2).summary()["exit_code"], 2);
        assert_eq!(
            as_objects.objects()[0]["message"],
            format!("this syncline was built without `{command}`")
        );
    }
}
