//! A real tree pushed and pulled is what rsync and diff call equal, and the same again moves nothing.
#![allow(clippy::unwrap_used)]

mod binary;

use binary::Sandbox;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Sources of a few crates from cargo's registry, if there is one; else a made tree.
fn tree(sandbox: &Sandbox) -> PathBuf {
    let tree = sandbox.path("tree");
    fs::create_dir(&tree).unwrap();
    for source in registry_sources(12) {
        let copied = Command::new("cp").arg("-a").arg(&source).arg(&tree).status().unwrap();
        assert!(copied.success());
    }
    for n in 0..300 {
        let content: Vec<u8> = (0..n * 97).map(|i| (i * 31 + n) as u8).collect();
        sandbox.file(&format!("tree/made/{}/file {n}", n % 7), &content);
    }
    fs::create_dir_all(tree.join("made/empty/deep")).unwrap();
    std::os::unix::fs::symlink("../made", tree.join("made/link")).unwrap();
    tree
}

fn registry_sources(count: usize) -> Vec<PathBuf> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")));
    let list = |path: &Path| -> Vec<PathBuf> {
        let entries = fs::read_dir(path).into_iter().flatten().flatten();
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
        paths.sort();
        paths
    };
    let registries = home.map(|home| list(&home.join("registry/src"))).unwrap_or_default();
    registries
        .iter()
        .flat_map(|registry| list(registry))
        .take(count)
        .collect()
}

fn assert_equal(one: &Path, other: &Path) {
    let with_slash = |path: &Path| format!("{}/", path.display());
    let rsync = Command::new("rsync")
        .args(["-anc", "--delete", "--itemize-changes", "--exclude=/.syncline"])
        .args([with_slash(one), with_slash(other)])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&rsync.stdout);
    assert!(
        rsync.status.success() && text.is_empty(),
        "rsync sees differences:\n{text}"
    );
    let diff = Command::new("diff")
        .args(["-r", "--no-dereference"])
        .args([one, other])
        .output()
        .unwrap();
    assert!(diff.status.success(), "{}", String::from_utf8_lossy(&diff.stdout));
}

#[test]
fn a_real_tree_there_and_back_is_equal_to_rsync_and_moves_once() {
    if Command::new("rsync").arg("--version").output().is_err() {
        eprintln!("a_real_tree_there_and_back_is_equal_to_rsync… skipped: rsync is missing");
        return;
    }
    let sandbox = Sandbox::new();
    let tree = tree(&sandbox);
    let secure = cfg!(feature = "tls");
    let served = if secure {
        sandbox.serve(&["--durability", "none"])
    } else {
        sandbox.serve(&["--plain", "--open", "write", "--durability", "none"])
    };
    let plain: &[&str] = if secure { &[] } else { &["--plain"] };
    let (invite, link) = (served.invite(), served.link("/tree/"));
    let push = [&["push", "--json", "tree", &invite], plain].concat();
    let pull = [&["pull", "--json", "--durability", "none", &link, "back"], plain].concat();
    for (args, target) in [(&push, "share/tree"), (&pull, "back")] {
        let first = sandbox.run(args);
        assert_eq!(first.expect(0).summary()["failed"], 0);
        assert!(first.summary()["files_transferred"].as_u64().unwrap() >= 299);
        assert_equal(&tree, &sandbox.path(target));
        let again = sandbox.run(args).summary();
        assert_eq!(
            (&again["files_transferred"], &again["literal_bytes"]),
            (&0.into(), &0.into()),
            "{again}"
        );
    }
}
