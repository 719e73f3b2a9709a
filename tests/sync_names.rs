//! Names that are one to a file system that folds case or normalises Unicode: kept apart without loss, whichever
//! side folds; and renames that change nothing but the case.
//!
//! The file system is one in memory, over FUSE, in a mount namespace of a child process; ext4 with `casefold` is
//! tried besides, where the kernel has it.
#![cfg(feature = "sync")]
#![allow(clippy::unwrap_used)]

mod folding;
mod harness;

use folding::Folding;
use harness::child;
use std::fs;
use std::path::Path;

const NAMESPACE: [&str; 2] = ["unshare", "-m"];

/// Whether such a file system can be mounted; says so if not.
fn may_mount(test: &str) -> bool {
    let works = Path::new("/dev/fuse").exists()
        && std::process::Command::new("unshare").args(["-m", "true"]).status().is_ok_and(|status| status.success());
    if !works {
        println!("SKIPPED {test}: there is no /dev/fuse, or nobody but root may mount here");
    }
    works
}

fn in_child(test: &str, scenario: fn()) {
    if child::is(test) {
        return scenario();
    }
    if may_mount(test) {
        let output = child::run(&NAMESPACE, test, test);
        assert!(output.status.success(), "{}", child::text(&output));
    }
}

#[test]
fn the_file_system_of_these_tests_folds() {
    in_child("the_file_system_of_these_tests_folds", || {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("m");
        let _mounted = Folding::mount(&at).unwrap();
        fs::write(at.join("Report.txt"), "one").unwrap();
        assert_eq!(fs::read(at.join("report.TXT")).unwrap(), b"one");
        assert_eq!(fs::read_dir(&at).unwrap().count(), 1);
        fs::rename(at.join("Report.txt"), at.join("report.txt")).unwrap();
        let name = fs::read_dir(&at).unwrap().next().unwrap().unwrap().file_name();
        assert_eq!(name, "Report.txt", "a rename to another spelling does nothing");
        fs::create_dir(at.join("d\u{e9}")).unwrap();
        fs::write(at.join("de\u{301}/x"), vec![7; 300_000]).unwrap();
        assert_eq!(fs::read(at.join("D\u{c9}/X")).unwrap(), vec![7; 300_000]);
        let root = syncline::store::Root::open(&at).unwrap();
        let folding = root.learn_folding();
        assert!(folding.case && folding.marks);
    });
}
