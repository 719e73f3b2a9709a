//! `delta signature`, `diff` and `patch` as a user runs them.

#![cfg(feature = "tools")]
#![allow(clippy::unwrap_used)]

mod binary;

use binary::{Run, Sandbox, finished};
use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Output, Stdio};

const MIB: usize = 1 << 20;

fn random(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut bytes: Vec<u8> = std::iter::repeat_with(next)
        .take(length.div_ceil(8))
        .flatten()
        .collect();
    bytes.truncate(length);
    bytes
}

/// Gives `input` to the binary and waits for its end; the output as bytes.
fn piped(sandbox: &Sandbox, args: &[&str], input: &[u8]) -> Output {
    let mut command = sandbox.command("client");
    command
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    output
}

/// A signature, a patch and a new file; the bytes of the patch.
fn round_trip(sandbox: &Sandbox, old: &[u8], new: &[u8], what: &str) -> u64 {
    sandbox.file("old", old);
    sandbox.file("new", new);
    let run = |args: &[&str]| sandbox.run(args);
    run(&["delta", "signature", "-f", "old", "sig"]).expect(0);
    let made = run(&["delta", "diff", "-f", "--json", "sig", "new", "patch"]);
    let bytes = fs::metadata(sandbox.path("patch")).unwrap().len();
    let item = &made.expect(0).objects()[0];
    assert_eq!(item["patch_bytes"], bytes, "{what}");
    assert_eq!(item["size"], new.len(), "{what}");
    let carried = item["literal_bytes"].as_u64().unwrap() + item["matched_bytes"].as_u64().unwrap();
    assert_eq!(carried, new.len() as u64, "{what}");
    made.summary();
    run(&["delta", "patch", "-f", "old", "patch", "made"]).expect(0);
    assert!(fs::read(sandbox.path("made")).unwrap() == new, "{what}");
    run(&["delta", "diff", "-f", "--old", "old", "new", "direct"]).expect(0);
    run(&["delta", "patch", "-f", "old", "direct", "made"]).expect(0);
    assert!(fs::read(sandbox.path("made")).unwrap() == new, "{what}, with --old");
    bytes
}

// Protects the round trip at every size where the form of a signature or a patch changes.
#[test]
fn every_size_comes_back() {
    let sandbox = Sandbox::new();
    let sizes = [0, 1, 8 * 1024, 16 * MIB - 1, 16 * MIB, 16 * MIB + 1];
    let bytes = random(1, 16 * MIB + 1);
    for old in sizes {
        for new in [old, 0, 700] {
            round_trip(&sandbox, &bytes[..old], &bytes[..new], &format!("{old} to {new}"));
        }
    }
    let patch = round_trip(&sandbox, &bytes[..8 * 1024], &bytes, "a small one grows");
    assert!(patch < bytes.len() as u64 + bytes.len() as u64 / 100);
}

// Protects what it is for: of 40 MiB only what is new is in the patch.
#[test]
fn a_patch_holds_what_is_new_and_little_more() {
    let sandbox = Sandbox::new();
    let old = random(2, 40 * MIB);
    let mut edited = old.clone();
    for at in [0, 5 * MIB, 20 * MIB + 77, 40 * MIB - 1] {
        edited[at] ^= 0x55;
    }
    assert!(round_trip(&sandbox, &old, &edited, "edits") < 1024);
    let inserted = [&random(3, 100)[..], &old[..30 * MIB], b"between", &old[30 * MIB..]].concat();
    assert!(round_trip(&sandbox, &old, &inserted, "insertions") < 4096);
    let appended = [&old[..], &random(4, 10_000)].concat();
    assert!(round_trip(&sandbox, &old, &appended, "an append") < 12_000);
    assert!(round_trip(&sandbox, &old, &old[..25 * MIB + 3], "a truncation") < 1024);
    assert!(round_trip(&sandbox, &old, &old, "no change") < 200);
}

// Protects against mixing files up: a patch of another file is refused by name, and nothing is made.
#[test]
fn a_patch_of_another_file_is_refused() {
    let sandbox = Sandbox::new();
    round_trip(&sandbox, &random(5, 100_000), &random(6, 90_000), "to begin with");
    sandbox.file("other", &random(7, 100_000));
    let run = sandbox.run(&["delta", "patch", "other", "patch", "result"]);
    run.complains(1, "other is not the file that this patch was made for");
    assert!(!sandbox.path("result").exists());
    sandbox
        .run(&["delta", "patch", "old", "sig", "result"])
        .complains(1, "no patch file");
    sandbox
        .run(&["delta", "diff", "patch", "new", "result"])
        .complains(1, "no signature file");
    sandbox
        .run(&["delta", "patch", "missing", "patch", "result"])
        .complains(1, "missing");
    sandbox
        .run(&["delta", "signature", "share", "result"])
        .complains(1, "share");
    assert!(!sandbox.path("result").exists());
}

/// Runs with the file `name` damaged in several ways; each is refused in a sentence, and leaves nothing.
fn refuses_damage(sandbox: &Sandbox, name: &str, args: &[&str]) {
    let good = fs::read(sandbox.path(name)).unwrap();
    let flip = |at: usize| {
        let mut bytes = good.clone();
        bytes[at] ^= 4;
        bytes
    };
    let mut cases: Vec<(String, Vec<u8>)> = Vec::new();
    for at in [
        0,
        7,
        8,
        12,
        30,
        55,
        61,
        64,
        66,
        70,
        good.len() / 2,
        good.len() - 20,
        good.len() - 1,
    ] {
        cases.push((format!("a bit at {at}"), flip(at)));
        cases.push((format!("cut at {at}"), good[..at].to_vec()));
    }
    cases.push(("more behind".to_owned(), [&good[..], b"x"].concat()));
    for (case, bytes) in cases {
        sandbox.file(name, &bytes);
        let before = fs::read_dir(sandbox.path("")).unwrap().count();
        let run = sandbox.run(args);
        assert_eq!(run.code, 1, "{case} of {args:?}: {}", run.err);
        run.complains(1, "");
        assert!(!sandbox.path("result").exists(), "{case}");
        assert_eq!(fs::read_dir(sandbox.path("")).unwrap().count(), before, "{case}");
    }
    sandbox.file(name, &good);
}

// Protects against damage and malice: in all forms, wherever it is, nothing comes of it.
#[test]
fn damaged_signatures_and_patches_are_refused() {
    let sandbox = Sandbox::new();
    for length in [100_000, 17 * MIB] {
        let old = random(8, length);
        let new = [&old[5000..], &random(9, 3000)].concat();
        round_trip(&sandbox, &old, &new, "to begin with");
        refuses_damage(&sandbox, "sig", &["delta", "diff", "sig", "new", "result"]);
        refuses_damage(&sandbox, "patch", &["delta", "patch", "old", "patch", "result"]);
        refuses_damage(&sandbox, "direct", &["delta", "patch", "old", "direct", "result"]);
    }
}

fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
    let sum = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&sum.to_le_bytes());
    bytes
}

// Protects against a forged patch whose checksums all fit: more or other bytes than announced, or bytes
// from outside the basis.
#[test]
fn a_forged_patch_is_refused() {
    let sandbox = Sandbox::new();
    let old = random(10, 1000);
    round_trip(&sandbox, &old, &old, "to begin with");
    let good = fs::read(sandbox.path("patch")).unwrap();
    let forged = |length: u64, plan: &[u8], root: &[u8]| {
        let mut head = good[..52].to_vec();
        head[8] = 0;
        head.extend_from_slice(&length.to_le_bytes());
        let mut bytes = sealed(head);
        if !plan.is_empty() {
            bytes.extend_from_slice(&(plan.len() as u32).to_le_bytes());
            bytes.extend_from_slice(plan);
        }
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(root);
        sealed(bytes)
    };
    let root = &good[20..52];
    // A copy of a thousand bytes from the start: 1000 << 3 | 2 as a varint.
    let copy = [0xc2, 0x3e];
    sandbox.file("forged", &forged(1000, &copy, root));
    sandbox.run(&["delta", "patch", "old", "forged", "result"]).expect(0);
    fs::remove_file(sandbox.path("result")).unwrap();
    let longer = [0xca, 0x3e];
    let twice = [0xc2, 0x3e, 0xc2, 0x3e];
    for (length, plan, root) in [
        (1000, &copy[..], &[7; 32][..]),
        (1001, &longer, root),
        (2000, &twice, root),
        (999, &copy, root),
        (1001, &copy, root),
        (1 << 62, &copy, root),
        (1000, &[], root),
        (u64::MAX, &copy, root),
    ] {
        sandbox.file("forged", &forged(length, plan, root));
        let run = sandbox.run(&["delta", "patch", "old", "forged", "result"]);
        assert!(
            run.code == 1 || (length == 1 << 62 && run.code == 7),
            "{length}: {}",
            run.err
        );
        run.complains(run.code, "");
        assert!(!sandbox.path("result").exists(), "{length}");
    }
}

// Protects what exists: it stays without --force, and OLD may be replaced by what is made of it.
#[test]
fn existing_files_stay_unless_forced() {
    let sandbox = Sandbox::new();
    let (old, new) = (random(11, 50_000), random(12, 40_000));
    round_trip(&sandbox, &old, &new, "to begin with");
    for args in [
        &["delta", "signature", "old", "sig"][..],
        &["delta", "diff", "sig", "new", "patch"],
        &["delta", "patch", "old", "patch", "old"],
    ] {
        sandbox.run(args).complains(1, "exists already");
    }
    assert!(fs::read(sandbox.path("old")).unwrap() == old);
    fs::set_permissions(sandbox.path("old"), fs::Permissions::from_mode(0o640)).unwrap();
    sandbox.run(&["delta", "patch", "-f", "old", "patch", "old"]).expect(0);
    assert!(fs::read(sandbox.path("old")).unwrap() == new);
    let mode = fs::metadata(sandbox.path("old")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o640);
    // Again: it is another file now.
    sandbox
        .run(&["delta", "patch", "-f", "old", "patch", "old"])
        .complains(1, "is not the file");
    assert!(fs::read(sandbox.path("old")).unwrap() == new);
    sandbox
        .run(&["delta", "signature", "-f", "old", "/dev/null"])
        .complains(1, "not a regular file");
}

// Protects the sentence about a directory that is absent or that nobody may write to.
#[test]
fn a_place_that_cannot_be_written_is_told() {
    let sandbox = Sandbox::new();
    sandbox.file("old", b"text");
    sandbox
        .run(&["delta", "signature", "old", "absent/sig"])
        .complains(1, "absent/sig");
    if rustix::process::geteuid().is_root() {
        sandbox
            .run(&["delta", "signature", "old", "/proc/sig"])
            .complains(1, "/proc/sig");
        return;
    }
    fs::set_permissions(sandbox.path("share"), fs::Permissions::from_mode(0o500)).unwrap();
    sandbox
        .run(&["delta", "signature", "old", "share/sig"])
        .complains(1, "permission denied");
}

// Protects pipes: signature and patch are streams, in both forms; data and objects do not mix.
#[test]
fn signatures_and_patches_are_streams() {
    let sandbox = Sandbox::new();
    for length in [30_000, 20 * MIB] {
        let old = random(13, length);
        let new = [&old[..length / 2], b"something else", &old[length / 2..]].concat();
        sandbox.file("old", &old);
        sandbox.file("new", &new);
        let signature = piped(&sandbox, &["delta", "signature", "old"], b"");
        let patch = piped(&sandbox, &["delta", "diff", "-", "new", "-"], &signature.stdout);
        assert!(patch.stdout.len() < 2000, "{}", patch.stdout.len());
        let made = piped(&sandbox, &["delta", "patch", "old", "-"], &patch.stdout);
        assert!(made.stdout == new);
        for output in [signature, patch, made] {
            assert!(output.status.success());
        }
    }
    let mixed = finished(&piped(&sandbox, &["delta", "signature", "--json", "old"], b""));
    mixed.expect(2);
    assert_eq!(mixed.summary()["exit_code"], 2);
    let stdin: Run = finished(&piped(&sandbox, &["delta", "diff", "sig", "-", "patch"], b""));
    stdin.complains(2, "NEW has to be a file");
    sandbox
        .run(&["delta", "diff", "sig"])
        .complains(2, "diff takes a signature");
}

/// The most memory that a run had at once, in KiB, from the kernel's own account.
fn peak_kib(sandbox: &Sandbox, args: &[&str]) -> u64 {
    let script = "\"$@\" & pid=$!; peak=0; while [ -e /proc/$pid/status ]; do \
                  now=$(sed -n 's/^RssAnon:[^0-9]*\\([0-9]*\\).*/\\1/p' /proc/$pid/status 2>/dev/null); \
                  [ \"${now:-0}\" -gt $peak ] && peak=$now; done; wait $pid && echo $peak";
    let mut command = std::process::Command::new("bash");
    command.args(["-c", script, "bash", env!("CARGO_BIN_EXE_syncline"), "--home"]);
    let run = command
        .arg(sandbox.path("client"))
        .args(args)
        .current_dir(sandbox.path(""));
    let run = finished(&run.output().unwrap());
    run.expect(0).out.trim().parse().unwrap()
}

// Protects bounded memory and holes: 1 GiB that is nearly all zeros takes neither memory nor room.
#[test]
fn a_large_file_takes_little_memory_and_stays_sparse() {
    let sandbox = Sandbox::new();
    let sparse = |name: &str, text: &[u8]| {
        let file = fs::File::create(sandbox.path(name)).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, text, 700 * MIB as u64).unwrap();
        file.set_len(1 << 30).unwrap();
    };
    sparse("old", b"before");
    sparse("new", b"afterwards");
    for args in [
        &["delta", "signature", "old", "sig"][..],
        &["delta", "diff", "sig", "new", "patch"],
        &["delta", "patch", "old", "patch", "made"],
    ] {
        let peak = peak_kib(&sandbox, args);
        assert!(peak < 100 * 1024, "{args:?} took {peak} KiB");
    }
    // Without compression the leaf around the text travels as it is, and so do its neighbours.
    let most = if cfg!(feature = "zstd") { 1024 } else { 64 * 1024 };
    assert!(fs::metadata(sandbox.path("patch")).unwrap().len() < most);
    let made = fs::metadata(sandbox.path("made")).unwrap();
    assert!(made.len() == 1 << 30 && made.blocks() * 512 < 16 << 20);
    let ids = sandbox.run(&["id", "new", "made"]).out;
    let ids: Vec<&str> = ids.lines().map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(ids[0], ids[1]);
    assert!(Path::new(&sandbox.path("made")).is_file());
}
