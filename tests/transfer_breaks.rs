//! What breaks off or changes meanwhile: edits on the receiving side, restarts, interruptions, and
//! files too large to be anything but sparse.

#![allow(clippy::unwrap_used)]

mod harness;

use harness::breaks::{cutting_relay, restart};
use harness::{World, pull_job, push_job, snapshot};
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use syncline::node::{Client, ClientEvent, ClientOptions, Job, JobError, TransferOptions};
use syncline::store::Window;

fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 32) as u32
    };
    (0..length.div_ceil(4))
        .flat_map(|_| next().to_le_bytes())
        .take(length)
        .collect()
}

fn start(world: &World, job: Job, retries: u32) -> Client {
    let options = ClientOptions {
        retries,
        ..world.client_options("client-home")
    };
    Client::start(options, job, TransferOptions::default()).unwrap()
}

fn conflict_copies(directory: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    paths
        .filter(|path| path.to_string_lossy().contains(".sync-conflict-"))
        .collect()
}

/// Row 55 of the threats, for one-off transfers: an edit made after the comparison, before the new
/// version lands, is kept.
#[test]
fn an_edit_between_the_check_and_the_publish_is_kept_as_a_conflict_copy() {
    for direction in ["push", "pull"] {
        let mut world = World::new();
        let new = noise(10 << 20, 1);
        let (mine, theirs) = (world.path("mine/file.bin"), world.share().join("file.bin"));
        fs::create_dir(world.path("mine")).unwrap();
        let (from, to, job) = match direction {
            "push" => (&mine, &theirs, push_job(&[&world.path("mine/")], &world.link(""))),
            _ => (&theirs, &mine, pull_job(&world.link("/"), &world.path("mine"))),
        };
        fs::write(from, &new).unwrap();
        fs::write(to, b"old").unwrap();
        let client = start(&world, job, 0);
        let mut turn = 0;
        let run = world.drive(client, |_, _| {
            if turn == 5 {
                fs::write(to, b"edited meanwhile").unwrap();
            }
            turn += 1;
        });
        run.assert_clean();
        assert_eq!(fs::read(to).unwrap(), new, "{direction}");
        let copies = conflict_copies(to.parent().unwrap());
        assert_eq!(copies.len(), 1, "{direction}");
        assert_eq!(fs::read(&copies[0]).unwrap(), b"edited meanwhile");
        assert!(copies[0].to_string_lossy().ends_with("-local.bin"), "{copies:?}");
    }
}

/// The same with a file that appears where there was none.
#[test]
fn a_file_that_appears_meanwhile_is_kept_as_a_conflict_copy() {
    let mut world = World::new();
    let source = world.path("file");
    fs::write(&source, noise(10 << 20, 1)).unwrap();
    let client = start(&world, push_job(&[&source], &world.link("/")), 0);
    let mut turn = 0;
    let run = world.drive(client, |world, _| {
        if turn == 5 {
            fs::write(world.share().join("file"), b"somebody else's").unwrap();
        }
        turn += 1;
    });
    run.assert_clean();
    let copies = conflict_copies(&world.share());
    assert_eq!(copies.len(), 1);
    assert_eq!(fs::read(&copies[0]).unwrap(), b"somebody else's");
}

/// A file of 5 GiB that is mostly holes: offsets past 4 GiB, there and back, in little room and time.
#[test]
fn a_sparse_file_of_5_gib_goes_there_and_back() {
    const SIZE: u64 = 5 << 30;
    let mut world = World::new();
    let source = world.path("disk.img");
    let parts = [
        (0, 1),
        ((4 << 30) - 50_000, 2),
        ((4 << 30) + 4_096, 3),
        (SIZE - 100_000, 4),
    ];
    let file = File::create(&source).unwrap();
    file.set_len(SIZE).unwrap();
    for (at, seed) in parts {
        file.write_all_at(&noise(100_000, seed), at).unwrap();
    }
    drop(file);
    let pushed = world.push(&[&source], &world.link("/"), TransferOptions::default());
    pushed.assert_clean();
    assert!(pushed.outcome.summary.wire_sent < 2 << 20);
    assert_eq!(pushed.outcome.summary.bytes, SIZE);
    let back = world.path("back.img");
    world
        .pull(&world.link("/disk.img"), &back, TransferOptions::default())
        .assert_clean();
    for path in [world.share().join("disk.img"), back] {
        let found = fs::metadata(&path).unwrap();
        assert_eq!(found.len(), SIZE);
        assert!(found.blocks() * 512 < 4 << 20, "{} blocks", found.blocks());
        let file = File::open(&path).unwrap();
        for (number, (at, seed)) in parts.into_iter().enumerate() {
            // The second part is partly overwritten by the third.
            let length = if number == 1 { 54_096 } else { 100_000 };
            let mut bytes = vec![0; length];
            file.read_exact_at(&mut bytes, at).unwrap();
            assert!(bytes == noise(100_000, seed)[..length], "part {number} of {path:?}");
        }
        let mut hole = vec![1; 1 << 20];
        file.read_exact_at(&mut hole, 2 << 30).unwrap();
        assert!(hole.iter().all(|&byte| byte == 0));
    }
}

/// The server goes away in the middle and comes back: the client goes on by itself.
#[test]
fn a_transfer_goes_on_after_the_server_restarts() {
    for direction in ["push", "pull"] {
        let mut world = World::new();
        let (mine, share) = (world.path("mine"), world.share());
        let from = if direction == "push" { &mine } else { &share };
        fs::create_dir_all(&mine).unwrap();
        for number in 0..12 {
            fs::write(from.join(format!("f{number}")), noise(2 << 20, number)).unwrap();
        }
        let job = match direction {
            "push" => push_job(&[&world.path("mine/")], &world.link("")),
            _ => pull_job(&world.link("/"), &mine),
        };
        let client = start(&world, job, 5);
        let mut turn = 0;
        let run = world.drive(client, |world, _| {
            if turn == 10 {
                restart(world);
            }
            turn += 1;
        });
        run.assert_clean();
        let retried = |event: &ClientEvent| matches!(event, ClientEvent::Retrying { attempt: 1, .. });
        assert!(run.events.iter().any(retried), "{direction}: {:?}", run.events);
        assert_eq!(snapshot(&mine), snapshot(&share), "{direction}");
    }
}

/// A way that breaks again and again before anything is kept of a file: bytes that were sent are no
/// progress, and the attempts come to an end.
#[test]
fn bytes_that_lead_nowhere_do_not_renew_the_attempts() {
    let mut world = World::new();
    let source = world.path("file");
    fs::write(&source, noise(1 << 20, 1)).unwrap();
    let (address, connections) = cutting_relay(world.address, 10 << 10);
    let link = format!("syncline://{address}/Share/").parse().unwrap();
    let client = start(&world, push_job(&[&source], &link), 1);
    let run = world.drive(client, |_, _| {
        assert!(connections.load(Ordering::Relaxed) <= 2, "it tries for ever");
    });
    assert!(
        matches!(run.outcome.result, Err(JobError::Lost { .. })),
        "{:?}",
        run.outcome
    );
    assert!(run.outcome.summary.literal_bytes > 0);
    assert_eq!(connections.load(Ordering::Relaxed), 2);
}

/// An interrupted pull leaves whole files and nothing else; the next one brings the rest.
#[test]
fn an_interrupted_pull_leaves_no_partial_file() {
    for way in ["interrupt", "drop"] {
        let mut world = World::new();
        let target = world.path("target");
        for number in 0..6 {
            fs::write(world.share().join(format!("f{number}")), noise(4 << 20, number)).unwrap();
        }
        let mut client = start(&world, pull_job(&world.link("/"), &target), 0);
        let mut result = None;
        for turn in 0.. {
            world.server.poll(Some(std::time::Duration::from_micros(200))).unwrap();
            let events = client.poll(Some(std::time::Duration::from_micros(200))).unwrap();
            let finished = events.into_iter().find_map(|event| match event {
                ClientEvent::Finished(outcome) => Some(outcome.result),
                _ => None,
            });
            if finished.is_some() {
                result = finished;
                break;
            }
            if turn == 14 && way == "drop" {
                break;
            }
            if turn == 14 {
                client.interrupt();
            }
        }
        drop(client);
        match way {
            "interrupt" => assert_eq!(result, Some(Err(JobError::Interrupted { signal: None }))),
            _ => assert_eq!(result, None),
        }
        let arrived = fs::read_dir(&target).unwrap().count();
        assert!(arrived < 6, "{way}: it was interrupted in the middle");
        for number in 0..6 {
            if let Ok(bytes) = fs::read(target.join(format!("f{number}"))) {
                assert!(bytes == noise(4 << 20, number), "{way}: f{number} is half");
            }
        }
        let ours = fs::read_dir(target.join(".syncline")).unwrap();
        let ours: Vec<_> = ours.map(|entry| entry.unwrap().file_name()).collect();
        assert!(
            ours.iter().all(|name| name == "journal" || name == "staging"),
            "{way}: {ours:?}"
        );
        world
            .pull(&world.link("/"), &target, TransferOptions::default())
            .assert_clean();
        assert_eq!(snapshot(&target), snapshot(&world.share()));
        assert!(!target.join(".syncline").exists(), "{way}: nothing of ours stays");
    }
}

/// What a killed pull left in its target goes with the next one; a dry run touches nothing.
#[test]
fn the_next_pull_cleans_up_after_one_that_was_killed() {
    let mut world = World::new();
    fs::write(world.share().join("a"), b"a").unwrap();
    let here = world.path("here");
    let left = here.join(".syncline/staging/0123456789abcdef");
    fs::create_dir_all(&left).unwrap();
    fs::write(left.join("0"), b"half").unwrap();
    let dry_run = TransferOptions {
        dry_run: true,
        ..TransferOptions::default()
    };
    world.pull(&world.link("/"), &here, dry_run).assert_clean();
    assert!(left.join("0").exists());
    world
        .pull(&world.link("/"), &here, TransferOptions::default())
        .assert_clean();
    assert!(!here.join(".syncline").exists());
}

/// The table of mapped windows is bounded: who finds it full reads the file instead.
#[test]
fn files_are_sent_though_no_window_is_left() {
    let mut world = World::new();
    let content: Vec<u8> = (0..1_000_003_u32).map(|at| (at % 251) as u8).collect();
    let source = world.path("f");
    fs::write(&source, &content).unwrap();
    let file = File::open(&source).unwrap();
    let windows: Vec<_> = std::iter::from_fn(|| Window::open(&file, 0, 1).ok()).collect();
    assert!(windows.len() > 4000);
    let run = world.push(&[&source], &world.link("/"), TransferOptions::default());
    run.assert_clean();
    assert_eq!(fs::read(world.share().join("f")).unwrap(), content);
}
