//! Push and pull of real trees between a real server and client in one process.
#![allow(clippy::unwrap_used)]

mod harness;

use harness::{World, WorldOptions, snapshot};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use syncline::model::Rights;
use syncline::node::{Durability, TransferOptions};

/// A tree with one of everything that is carried.
fn make_tree(root: &Path) {
    fs::create_dir_all(root.join("sub/deeper/empty")).unwrap();
    fs::write(root.join("small.txt"), b"hello").unwrap();
    fs::write(root.join("nothing"), b"").unwrap();
    fs::write(root.join("sub/inline-limit"), vec![7u8; 16 * 1024]).unwrap();
    fs::write(root.join("sub/one-more"), vec![8u8; 16 * 1024 + 1]).unwrap();
    let big: Vec<u8> = (0..9_000_000u32).flat_map(u32::to_le_bytes).collect();
    fs::write(root.join("sub/deeper/big.bin"), big).unwrap();
    fs::write(root.join(std::ffi::OsStr::from_bytes(b"not-utf8-\xff\nline")), b"x").unwrap();
    symlink("../small.txt", root.join("sub/link")).unwrap();
    symlink("/nowhere/at/all", root.join("dangling")).unwrap();
    fs::set_permissions(root.join("small.txt"), fs::Permissions::from_mode(0o640)).unwrap();
    fs::set_permissions(root.join("sub/deeper"), fs::Permissions::from_mode(0o750)).unwrap();
    let old = fs::File::options().write(true).open(root.join("nothing")).unwrap();
    old.set_modified(std::time::UNIX_EPOCH + std::time::Duration::new(1_000_000_000, 123_456_789))
        .unwrap();
}

fn round_trip(options: &WorldOptions) {
    let mut world = World::with(options);
    let (source, back) = (world.path("source"), world.path("back"));
    make_tree(&source);
    let link = if options.plain {
        world.link("")
    } else {
        world.invite(Rights::READ_WRITE)
    };
    let pushed = world.push(&[&source], &link, TransferOptions::default());
    pushed.assert_clean();
    assert_eq!(
        (pushed.outcome.summary.files, pushed.outcome.summary.files_transferred),
        (6, 6)
    );
    assert_eq!(snapshot(&source), snapshot(&world.share().join("source")));
    let pulled = world.pull(&world.link("/source/"), &back, TransferOptions::default());
    pulled.assert_clean();
    assert_eq!(
        (pulled.outcome.summary.files, pulled.outcome.summary.files_transferred),
        (6, 6)
    );
    assert_eq!(snapshot(&source), snapshot(&back));
    let times = [&source, &back].map(|top| fs::metadata(top).unwrap().modified().unwrap());
    assert_eq!(times[0], times[1], "the top directory keeps its time");
    assert!(!back.join(".syncline").exists(), "a pull leaves nothing of its own");
    let again = world.push(&[&source], &world.link(""), TransferOptions::default());
    again.assert_clean();
    assert_eq!(again.outcome.summary.files_transferred, 0);
    assert!(
        again
            .events
            .iter()
            .all(|event| !matches!(event, syncline::node::ClientEvent::Item { .. })),
        "{:?}",
        again.events
    );
    let again = world.pull(&world.link("/source/"), &back, TransferOptions::default());
    again.assert_clean();
    assert_eq!(again.outcome.summary.files_transferred, 0);
}

#[test]
fn a_tree_goes_there_and_back_unchanged_over_plain() {
    round_trip(&WorldOptions::default());
}

#[cfg_attr(not(feature = "tls"), ignore = "needs TLS")]
#[test]
fn a_tree_goes_there_and_back_unchanged_over_tls_with_barriers() {
    let options = WorldOptions {
        plain: false,
        open: Rights::NONE,
        durability: Durability::Barrier,
        ..WorldOptions::default()
    };
    round_trip(&options);
}
