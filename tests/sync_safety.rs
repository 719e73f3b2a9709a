//! What is missing is not deleted unless somebody deleted it: wiped indexes, old backups, folders that are gone.
#![cfg(feature = "sync")]
#![allow(clippy::unwrap_used)]

mod harness;

use harness::breaks::restart;
use harness::syncing::{copies, is_kept, options, put, texts, tree, watching};
use harness::{Run, World};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use syncline::model::CloseCode;
use syncline::node::{ClientEvent, JobError, MaxDelete, SyncOptions};

fn pair(files: usize) -> World {
    let mut world = World::new();
    let a = world.make("a", &[]);
    world.make("b", &[]);
    for number in 0..files {
        put(&a, &format!("d{}/f{number}", number % 3), &format!("text {number}"));
    }
    world.sync_all(&["a", "b"]);
    world.assert_same(&["a", "b"]);
    world
}

fn copy_index(root: &Path, to: &str) {
    fs::copy(root.join(".syncline/index.redb"), root.join(to)).unwrap();
}

/// Stops the server, has `change` work on the share, and starts it again.
fn while_stopped(world: &mut World, change: impl FnOnce(&Path)) {
    // The server that is replaced is dropped before its successor opens anything.
    let share = world.share();
    let elsewhere = World::new();
    let address = world.address;
    let World { server, dir, .. } = elsewhere;
    drop(std::mem::replace(&mut world.server, server));
    change(&share);
    world.address = address;
    restart(world);
    drop(dir);
}

fn deleted(run: &Run) -> Vec<String> {
    run.items()
        .into_iter()
        .filter(|item| item.ends_with("Deleted"))
        .collect()
}

// Row 56: the server's index is gone: nothing is deleted, and changes of the meantime arrive.
#[test]
fn a_wiped_index_of_the_server_deletes_nothing() {
    let mut world = pair(9);
    put(&world.folder("a"), "d0/f0", "edited meanwhile");
    fs::remove_file(world.folder("a").join("d1/f1")).unwrap();
    while_stopped(&mut world, |share| {
        fs::remove_file(share.join(".syncline/index.redb")).unwrap();
    });
    for name in ["a", "b", "a", "b"] {
        let run = world.sync(name);
        run.assert_clean();
        assert_eq!(deleted(&run), [""; 0], "{name}");
    }
    world.assert_same(&["a", "b"]);
    let found = texts(&world.share());
    assert_eq!(found["d0/f0"], "edited meanwhile");
    assert_eq!(found.len(), 9 + copies(&world.share()).len());
    assert!(
        found.contains_key("d1/f1"),
        "who deleted it cannot be told from a lost index"
    );
}

// Row 56: the same with a share that is empty as well, as after a disk was replaced.
#[test]
fn an_emptied_share_without_its_index_deletes_nothing() {
    let mut world = pair(40);
    while_stopped(&mut world, |share| {
        fs::remove_dir_all(share).unwrap();
        fs::create_dir(share).unwrap();
    });
    let run = world.sync("a");
    run.assert_clean();
    assert_eq!(deleted(&run), [""; 0]);
    world.sync_all(&["b"]);
    world.assert_same(&["a", "b"]);
    assert_eq!(texts(&world.share()).len(), 40);
}

// Row 56: the index is put back from an older copy.
#[test]
fn an_older_index_of_the_server_deletes_nothing() {
    let mut world = pair(6);
    while_stopped(&mut world, |share| copy_index(share, "../old-index"));
    put(&world.folder("a"), "new", "made after the backup");
    put(&world.folder("a"), "d0/f0", "edited after the backup");
    world.sync_all(&["a", "b"]);
    while_stopped(&mut world, |share| {
        fs::copy(share.join("../old-index"), share.join(".syncline/index.redb")).unwrap();
    });
    for name in ["a", "b", "a"] {
        let run = world.sync(name);
        run.assert_clean();
        assert_eq!(deleted(&run), [""; 0], "{name}");
    }
    world.assert_same(&["a", "b"]);
    let found = texts(&world.share());
    assert_eq!(
        (found["new"].as_str(), found["d0/f0"].as_str()),
        ("made after the backup", "edited after the backup")
    );
    assert_eq!(found.len(), 7);
}

// Row 56: share and index together are put back from an older copy: what came later is there all the same.
#[test]
fn an_older_share_loses_nothing_that_devices_have() {
    let mut world = pair(6);
    let backup = world.path("backup");
    let copy = |from: &Path, to: &Path| {
        let done = std::process::Command::new("cp")
            .args(["-a"])
            .arg(from)
            .arg(to)
            .status()
            .unwrap();
        assert!(done.success());
    };
    while_stopped(&mut world, |share| copy(share, &backup));
    put(&world.folder("a"), "new", "made after the backup");
    put(&world.folder("a"), "d0/f0", "edited after the backup");
    world.sync_all(&["a", "b"]);
    while_stopped(&mut world, |share| {
        fs::remove_dir_all(share).unwrap();
        copy(&backup, share);
    });
    for name in ["a", "b", "a"] {
        let run = world.sync(name);
        assert_eq!(run.outcome.result, Ok(()));
        assert_eq!(deleted(&run), [""; 0], "{name}");
    }
    world.assert_same(&["a", "b"]);
    let found = texts(&world.share());
    assert_eq!(found["new"], "made after the backup");
    assert!(
        found.values().any(|text| text == "edited after the backup"),
        "{found:?}"
    );
}

// Row 56: a client whose base is gone, or older, deletes nothing and makes no conflicts.
#[test]
fn a_wiped_or_older_base_of_a_client_deletes_nothing() {
    let mut world = pair(8);
    let a = world.folder("a");
    copy_index(&a, "../old-base");
    put(&world.folder("b"), "d0/f0", "edited by b");
    fs::remove_file(world.folder("b").join("d1/f1")).unwrap();
    put(&world.folder("b"), "later", "x");
    world.sync_all(&["b", "a"]);
    fs::copy(world.path("old-base"), a.join(".syncline/index.redb")).unwrap();
    let run = world.sync("a");
    run.assert_clean();
    assert_eq!(run.items(), [""; 0], "all of it is there");
    fs::remove_file(a.join(".syncline/index.redb")).unwrap();
    let run = world.sync("a");
    run.assert_clean();
    assert_eq!(run.items(), [""; 0]);
    world.assert_same(&["a", "b"]);
    assert_eq!((texts(&a).len(), copies(&a)), (8, vec![]));
}

// Row 57: a device that was away for hundreds of changes resurrects nothing, and keeps its own edit.
#[test]
fn a_device_that_returns_resurrects_nothing() {
    let mut world = pair(60);
    let a = world.folder("a");
    for round in 0..6 {
        for number in 0..60 {
            let path = a.join(format!("d{}/f{number}", number % 3));
            match (number + round) % 6 {
                0 => drop(fs::remove_file(path)),
                1 => put(
                    &a,
                    &format!("d{}/f{number}", number % 3),
                    &format!("round {round} of {number}"),
                ),
                _ => {}
            }
        }
        let old = a.join(if round % 2 == 0 { "d2" } else { "moved" });
        let new = a.join(if round % 2 == 0 { "moved" } else { "d2" });
        if !new.exists() {
            fs::rename(old, new).unwrap();
        }
        world.sync_all(&["a"]);
    }
    put(&world.folder("b"), "own", "own of b");
    let before = texts(&a);
    world.sync_all(&["b", "a"]);
    world.assert_same(&["a", "b"]);
    let mut expected = before;
    expected.insert("own".to_owned(), "own of b".to_owned());
    assert_eq!(texts(&world.share()), expected);
}

// Row 18: a folder that lost all that it held, its base too, gets everything back.
#[test]
fn a_folder_without_its_base_is_filled_again() {
    let mut world = pair(5);
    let b = world.folder("b");
    fs::remove_dir_all(&b).unwrap();
    fs::create_dir(&b).unwrap();
    let run = world.sync("b");
    run.assert_clean();
    world.assert_same(&["a", "b"]);
    fs::remove_dir_all(&b).unwrap();
    world.sync_all(&["b"]);
    world.assert_same(&["a", "b"]);
    assert_eq!(texts(&world.share()).len(), 5);
}

// Row 18: a folder that vanishes while it is watched ends the run; nothing is deleted on the server.
#[test]
fn a_folder_that_vanishes_is_not_a_deletion() {
    for everything in [true, false] {
        let mut world = pair(5);
        let b = world.folder("b");
        let mut client = world.sync_client("b", watching());
        let mut in_sync = false;
        while !in_sync {
            world.poll_until(&mut [], |_| true);
            world.server.poll(Some(std::time::Duration::from_millis(1))).unwrap();
            let new = client.poll(Some(std::time::Duration::from_millis(1))).unwrap();
            in_sync = new.iter().any(|event| matches!(event, ClientEvent::InSync { .. }));
        }
        // Renamed away first: all is gone at once, as when a disk is pulled.
        fs::rename(&b, world.path("aside")).unwrap();
        if everything {
            fs::remove_dir_all(world.path("aside")).unwrap();
        } else {
            fs::remove_dir_all(world.path("aside/.syncline")).unwrap();
            for entry in fs::read_dir(world.path("aside")).unwrap() {
                fs::remove_dir_all(entry.unwrap().path()).unwrap();
            }
        }
        let run = world.drive(client, |_, _| {});
        assert!(run.outcome.result.is_err(), "{:?}", run.outcome);
        assert_eq!(texts(&world.share()).len(), 5);
    }
}

// Row 18: the share's folder vanishes while devices watch: they are told, and keep what they have.
#[test]
fn a_share_that_vanishes_is_not_a_deletion() {
    let mut world = pair(5);
    let client = world.sync_client("a", watching());
    let (share, aside) = (world.share(), world.path("aside"));
    let mut is_gone = false;
    let run = world.drive(client, |_, events| {
        let in_sync = events.iter().any(|event| matches!(event, ClientEvent::InSync { .. }));
        if in_sync && !is_gone {
            is_gone = true;
            fs::rename(&share, &aside).unwrap();
            fs::remove_dir_all(&aside).unwrap();
        }
    });
    assert!(
        matches!(
            run.outcome.result,
            Err(JobError::Closed {
                code: CloseCode::Gone,
                ..
            })
        ),
        "{:?}",
        run.outcome
    );
    assert_eq!(texts(&world.folder("a")).len(), 5);
    // Who comes later hears the same.
    let run = world.sync("b");
    assert!(
        matches!(
            run.outcome.result,
            Err(JobError::Closed {
                code: CloseCode::Gone,
                ..
            })
        ),
        "{:?}",
        run.outcome
    );
    assert_eq!(texts(&world.folder("b")).len(), 5);
}

/// Whether permissions mean nothing here.
fn is_root(probe: &Path) -> bool {
    fs::read_dir(probe).is_ok()
}

// Row 18: what cannot be read is not gone, on either side.
#[test]
fn an_unreadable_directory_deletes_nothing() {
    let mut world = pair(9);
    let locked = world.folder("a").join("d1");
    fs::set_permissions(&locked, Permissions::from_mode(0o000)).unwrap();
    if is_root(&locked) {
        fs::set_permissions(&locked, Permissions::from_mode(0o755)).unwrap();
        eprintln!("skipped: this user may read everything");
        return;
    }
    let run = world.sync("a");
    assert_eq!(deleted(&run), [""; 0]);
    assert_eq!(run.failures(), ["d1 Permission"]);
    fs::set_permissions(&locked, Permissions::from_mode(0o755)).unwrap();
    world.sync_all(&["a", "b"]);
    assert_eq!(texts(&world.share()).len(), 9);
}

// The brake: more than half, and more than 25, deleted on either side stops the run before anything is done.
#[test]
fn the_brake_stops_before_anything_is_done() {
    let mut world = pair(60);
    let a = world.folder("a");
    for directory in ["d0", "d1"] {
        fs::remove_dir_all(a.join(directory)).unwrap();
    }
    put(&a, "new", "not sent either");
    let careful = SyncOptions {
        max_delete: MaxDelete::Default,
        ..options()
    };
    let before = tree(&world.share());
    let run = world.sync_with("a", careful.clone());
    let stopped = JobError::MassDelete {
        deletions: 42,
        existing: 63,
    };
    assert_eq!(run.outcome.result, Err(stopped));
    assert_eq!((tree(&world.share()), run.items()), (before, vec![]));
    world.sync_all(&["a"]);
    // And in the other direction.
    let before = tree(&world.folder("b"));
    let run = world.sync_with("b", careful);
    assert!(
        matches!(run.outcome.result, Err(JobError::MassDelete { .. })),
        "{:?}",
        run.outcome
    );
    assert_eq!(tree(&world.folder("b")), before);
    world.sync_all(&["b"]);
    world.assert_same(&["a", "b"]);
    assert!(is_kept(&world.folder("b"), "text 1") && is_kept(&world.share(), "text 1"));
}

// A folder that was emptied by hand, and still has its base, is emptied on purpose: the brake asks.
#[test]
fn an_emptied_folder_meets_the_brake() {
    let mut world = pair(40);
    let a = world.folder("a");
    for directory in ["d0", "d1", "d2"] {
        fs::remove_dir_all(a.join(directory)).unwrap();
    }
    let run = world.sync_with(
        "a",
        SyncOptions {
            max_delete: MaxDelete::Default,
            ..options()
        },
    );
    assert!(
        matches!(
            run.outcome.result,
            Err(JobError::MassDelete {
                deletions: 43,
                existing: 43
            })
        ),
        "{:?}",
        run.outcome
    );
    assert_eq!(texts(&world.share()).len(), 40);
}

// Row 56: the same with more than a page holds: what is missing in the first page is not gone.
#[test]
fn a_wiped_index_of_many_pages_deletes_nothing() {
    const FILES: usize = 6_000;
    let mut world = World::in_memory(&harness::WorldOptions::default());
    let a = world.make("a", &[]);
    for number in 0..FILES {
        put(&a, &format!("d{}/f{number}", number % 7), &number.to_string());
    }
    world.sync_all(&["a"]);
    while_stopped(&mut world, |share| {
        fs::remove_file(share.join(".syncline/index.redb")).unwrap();
    });
    let run = world.sync("a");
    run.assert_clean();
    assert_eq!(run.items(), [""; 0], "both sides are the same");
    assert_eq!(texts(&world.share()).len(), FILES);
    // In the new epoch a deletion is one again.
    fs::remove_file(a.join("d0/f0")).unwrap();
    let run = world.sync("a");
    assert_eq!(deleted(&run), ["d0/f0 Deleted"]);
    world.assert_same(&["a"]);
}
