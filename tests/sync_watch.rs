//! Folders that are watched: what changes on one side is on the others, without being asked for.
#![cfg(feature = "sync")]
#![allow(clippy::unwrap_used)]

mod harness;

use harness::World;
use harness::syncing::{copies, put, texts, tree, watching};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};
use syncline::node::{Client, ClientEvent};

/// Two devices that watch, and are in sync.
fn watched(files: &[(&str, &str)]) -> (World, Client, Client) {
    let mut world = World::new();
    world.make("a", files);
    world.make("b", &[]);
    world.sync_all(&["a", "b"]);
    let (mut a, mut b) = (world.sync_client("a", watching()), world.sync_client("b", watching()));
    let mut told = 0;
    let limit = Instant::now() + Duration::from_secs(30);
    while told < 2 {
        assert!(Instant::now() < limit, "they do not come to rest");
        for event in world
            .poll_until(&mut [], |_| true)
            .into_iter()
            .chain(polled(&mut world, &mut [&mut a, &mut b]))
        {
            told += usize::from(matches!(event, ClientEvent::InSync { .. }));
        }
    }
    (world, a, b)
}

fn polled(world: &mut World, clients: &mut [&mut Client]) -> Vec<ClientEvent> {
    world.server.poll(Some(Duration::from_millis(1))).unwrap();
    let polled = clients
        .iter_mut()
        .map(|client| client.poll(Some(Duration::from_millis(1))).unwrap());
    polled.flatten().collect()
}

/// Waits until all three trees are the same.
#[track_caller]
fn same(world: &mut World, a: &mut Client, b: &mut Client) {
    world.poll_until(&mut [a, b], |world| {
        let share = tree(&world.share());
        tree(&world.folder("a")) == share && tree(&world.folder("b")) == share
    });
}

// Changes of all kinds go from one device to the other and from the server to both.
#[test]
fn changes_travel_by_themselves() {
    let (mut world, mut a, mut b) = watched(&[("x", "1"), ("d/y", "2")]);
    let (at_a, share) = (world.folder("a"), world.share());
    put(&at_a, "new", "made at a");
    same(&mut world, &mut a, &mut b);
    assert_eq!(texts(&world.folder("b"))["new"], "made at a");
    put(&share, "of-server/deep", "made on the server");
    same_after(&mut world, &mut a, &mut b, |texts| texts.contains_key("of-server/deep"));
    fs::rename(at_a.join("d"), at_a.join("renamed")).unwrap();
    same_after(&mut world, &mut a, &mut b, |texts| texts.contains_key("renamed/y"));
    fs::remove_file(share.join("x")).unwrap();
    same_after(&mut world, &mut a, &mut b, |texts| !texts.contains_key("x"));
    put(&world.folder("b"), "renamed/y", "edited by b");
    same_after(&mut world, &mut a, &mut b, |texts| texts["renamed/y"] == "edited by b");
    assert_eq!(copies(&share), [""; 0]);
    assert_eq!(texts(&share).len(), 3);
}

#[track_caller]
fn same_after(
    world: &mut World,
    a: &mut Client,
    b: &mut Client,
    is_there: impl Fn(&std::collections::BTreeMap<String, String>) -> bool,
) {
    world.poll_until(&mut [a, b], |world| {
        ["a", "b"].iter().all(|name| is_there(&texts(&world.folder(name)))) && is_there(&texts(&world.share()))
    });
    same(world, a, b);
}

// More happens than the kernel's queue takes: it is all found.
#[test]
fn an_overflow_of_the_watch_loses_nothing() {
    let (mut world, mut a, mut b) = watched(&[("x", "1")]);
    let limit = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
    let limit: usize = limit.trim().parse().unwrap();
    if limit > 20_000 {
        eprintln!("skipped: the queue here takes {limit} events");
        return;
    }
    let at_a = world.folder("a");
    fs::create_dir(at_a.join("many")).unwrap();
    for _ in 0..20 {
        polled(&mut world, &mut [&mut a, &mut b]);
    }
    // Nobody reads meanwhile. Events of one file in a row become one; so they take turns.
    for round in 0..limit.div_ceil(64) + 8 {
        for number in 0..64 {
            let path = at_a.join(format!("many/f{number}"));
            fs::write(path, format!("{round} {number}")).unwrap();
        }
    }
    put(&at_a, "last/deep/er", "made after the overflow");
    same_after(&mut world, &mut a, &mut b, |texts| {
        texts.contains_key("last/deep/er") && texts.len() == 66
    });
}

// A file that cannot be read is told of, and not again and again; the rest goes on.
#[test]
fn what_cannot_be_done_is_no_endless_loop() {
    let (mut world, mut a, mut b) = watched(&[("x", "1")]);
    let at_a = world.folder("a");
    put(&at_a, "secret", "nobody may read it");
    fs::set_permissions(at_a.join("secret"), Permissions::from_mode(0o000)).unwrap();
    if fs::read(at_a.join("secret")).is_ok() {
        eprintln!("skipped: this user may read everything");
        return;
    }
    put(&at_a, "open", "everybody may");
    let share = world.share();
    world.poll_until(&mut [&mut a, &mut b], |_| share.join("open").exists());
    // From now on nothing happens: each poll waits to its end but for a few.
    let mut events = Vec::new();
    let mut busy = 0;
    for _ in 0..300 {
        world.server.poll(Some(Duration::from_millis(1))).unwrap();
        let began = Instant::now();
        events.extend(a.poll(Some(Duration::from_millis(2))).unwrap());
        busy += usize::from(began.elapsed() < Duration::from_millis(1));
    }
    let failed = events
        .iter()
        .filter(|event| matches!(event, ClientEvent::Failed { .. }))
        .count();
    assert!(failed <= 6, "told {failed} times: {events:?}");
    assert!(busy < 200, "{busy} of 300 polls had something to do");
    fs::set_permissions(at_a.join("secret"), Permissions::from_mode(0o600)).unwrap();
    same(&mut world, &mut a, &mut b);
}

// Rules that change while folders are watched hold from then on.
#[test]
fn rules_that_change_hold_at_once() {
    let (mut world, mut a, mut b) = watched(&[("x", "1")]);
    let at_a = world.folder("a");
    put(&at_a, ".synclineignore", "*.log\n");
    same_after(&mut world, &mut a, &mut b, |texts| {
        texts.contains_key(".synclineignore")
    });
    put(&at_a, "no.log", "ignored");
    put(&world.folder("b"), "no-either.log", "ignored");
    put(&at_a, "yes", "kept");
    let share = world.share();
    world.poll_until(&mut [&mut a, &mut b], |world| world.folder("b").join("yes").exists());
    assert!(!share.join("no.log").exists() && !share.join("no-either.log").exists());
    put(&at_a, ".synclineignore", "# nothing\n");
    world.poll_until(&mut [&mut a, &mut b], |world| {
        world.folder("b").join("no.log").exists() && world.folder("a").join("no-either.log").exists()
    });
}

// A file that is written all the time is not sent half, and is sent when it is left alone.
#[test]
fn a_file_that_grows_all_the_time_arrives_in_the_end() {
    use std::io::Write;
    let (mut world, mut a, mut b) = watched(&[("x", "1")]);
    let path = world.folder("a").join("growing");
    let mut file = fs::File::create(&path).unwrap();
    for number in 0..400 {
        writeln!(file, "line {number}").unwrap();
        polled(&mut world, &mut [&mut a, &mut b]);
    }
    drop(file);
    let expected = fs::read_to_string(&path).unwrap();
    same_after(&mut world, &mut a, &mut b, |texts| {
        texts.get("growing") == Some(&expected)
    });
    assert_eq!(copies(&world.share()), [""; 0]);
}

// The same in the share: its index never knows of half of it, and of all of it in the end.
#[test]
fn a_file_that_grows_in_the_share_arrives_in_the_end() {
    use std::io::Write;
    let (mut world, mut a, mut b) = watched(&[("x", "1")]);
    let path = world.share().join("growing");
    let mut file = fs::File::create(&path).unwrap();
    for number in 0..60u32 {
        file.write_all(&harness::edits::noise(200_000, number + 1)).unwrap();
        for _ in 0..4 {
            polled(&mut world, &mut [&mut a, &mut b]);
        }
    }
    drop(file);
    let (share, folders) = (world.share(), [world.folder("a"), world.folder("b")]);
    world.poll_until(&mut [&mut a, &mut b], |_| {
        let is_whole = |folder: &std::path::PathBuf| {
            fs::metadata(folder.join("growing")).is_ok_and(|meta| meta.len() == 60 * 200_000)
        };
        folders.iter().all(is_whole)
    });
    assert_eq!(
        fs::read(share.join("growing")).unwrap(),
        fs::read(folders[1].join("growing")).unwrap()
    );
    assert_eq!(copies(&share), [""; 0]);
}

// Who edits a file in the very moment in which it arrives has seen what arrived: that is no conflict.
#[test]
fn a_file_that_is_edited_as_it_arrives_is_no_conflict() {
    let (mut world, mut a, mut b) = watched(&[]);
    let (at_a, at_b) = (world.folder("a"), world.folder("b"));
    for number in 0..10 {
        let name = format!("f{number}");
        put(&at_a, &name, "as it came");
        world.poll_until(&mut [&mut a, &mut b], |_| at_b.join(&name).exists());
        put(&at_b, &name, "edited at once");
        world.poll_until(&mut [&mut a, &mut b], |_| texts(&at_a)[&name] == "edited at once");
    }
    same(&mut world, &mut a, &mut b);
    assert_eq!(copies(&at_b), [""; 0]);
}

// Who edits on the server and then syncs gets that edit, however fast the one follows the other.
#[test]
fn an_edit_of_the_share_is_in_the_sync_that_follows() {
    let mut world = World::new();
    let folder = world.make("a", &[("first", "1")]);
    world.sync_all(&["a"]);
    for round in 0..20 {
        let name = format!("edit-{round}");
        fs::write(world.share().join(&name), "made on the server").unwrap();
        fs::write(world.share().join("first"), &name).unwrap();
        world.sync_all(&["a"]);
        assert_eq!(fs::read_to_string(folder.join("first")).unwrap(), name);
        assert!(folder.join(&name).exists());
    }
}
