//! Syncs that are cut: connections at any byte, processes between any two steps, servers in between.
#![cfg(feature = "sync")]
#![allow(clippy::unwrap_used)]

mod harness;
#[allow(dead_code, reason = "shared with tests/sim.rs, which uses more of it")]
#[path = "sim/rng.rs"]
mod rng;

use harness::World;
use harness::breaks::restart;
use harness::syncing::{copies, counting_relay, options, put, put_noise, texts, tree, watching};
use rng::Rng;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;
use syncline::node::{ClientEvent, JobError, Outcome};

/// Directories and their modes: one that its owner can work in, and one that gets its mode when all is in it.
const MODES: [(&str, u32); 2] = [("of-b/deep", 0o750), ("of-b/shut", 0o550)];

/// Two devices with the same, and then changes of all kinds on one of them and some on the other.
fn changed_pair() -> World {
    let mut world = World::new();
    let a = world.make(
        "a",
        &[
            ("edit", "old"),
            ("delete", "x"),
            ("d/1", "one"),
            ("d/2", "two"),
            ("kind", "file"),
        ],
    );
    world.make("b", &[]);
    put_noise(&a, "large", 300_000, 1);
    world.sync_all(&["a", "b"]);
    put(&a, "edit", "new text");
    fs::remove_file(a.join("delete")).unwrap();
    fs::rename(a.join("d"), a.join("e")).unwrap();
    fs::remove_file(a.join("kind")).unwrap();
    put(&a, "kind/in", "in it");
    put_noise(&a, "large", 310_000, 2);
    put(&a, "new", "new");
    let b = world.folder("b");
    put(&b, "of-b/deep/1", "of b");
    put(&b, "of-b/shut/2", "of b, too");
    for (path, mode) in MODES {
        fs::set_permissions(b.join(path), fs::Permissions::from_mode(mode)).unwrap();
    }
    put_noise(&b, "large-b", 200_000, 3);
    world
}

/// All have the same in the end, and nothing was taken for a conflict.
#[track_caller]
fn converges(world: &mut World, told: &str) {
    for name in ["a", "b", "a", "b"] {
        let run = world.sync(name);
        assert_eq!(run.outcome.result, Ok(()), "{told}");
    }
    let share = tree(&world.share());
    for name in ["a", "b"] {
        assert_eq!(tree(&world.folder(name)), share, "{told}: {name} (left) and the share");
    }
    for (path, wanted) in MODES {
        let meta = fs::metadata(world.share().join(path)).unwrap();
        assert_eq!(meta.permissions().mode() & 0o777, wanted, "{told}: the mode of {path}");
    }
    assert_eq!(copies(&world.share()), [""; 0], "{told}");
    let found = texts(&world.share());
    let paths: Vec<&str> = found.keys().map(String::as_str).collect();
    assert_eq!(
        paths,
        [
            "e/1",
            "e/2",
            "edit",
            "kind/in",
            "large",
            "large-b",
            "new",
            "of-b/deep/1",
            "of-b/shut/2"
        ],
        "{told}"
    );
    assert_eq!(found["edit"], "new text");
}

// Row 60: the connection is cut after any number of bytes, again and again.
#[test]
fn a_cut_at_any_byte_makes_no_conflict() {
    let mut rng = Rng::new(60);
    for case in 0..12 {
        let mut world = changed_pair();
        let mut cuts = Vec::new();
        for _ in 0..4 {
            for name in ["a", "b"] {
                let cut = if rng.once_in(2) {
                    rng.below(4_000)
                } else {
                    rng.below(700_000)
                };
                cuts.push(cut);
                let (relay, _) = counting_relay(world.address, cut);
                let link = world
                    .link("")
                    .to_string()
                    .replace(&world.address.to_string(), &relay.to_string());
                let client = world.sync_by(name, link.parse().unwrap(), options());
                world.drive(client, |_, _| {});
            }
        }
        converges(&mut world, &format!("case {case}, cut after {cuts:?}"));
    }
}

// The client is gone between any two steps, and starts anew.
#[test]
fn a_client_that_is_dropped_at_any_step_makes_no_conflict() {
    for steps in (1..40).step_by(2) {
        let mut world = changed_pair();
        for name in ["a", "b", "a", "b", "a"] {
            let mut client = world.sync_client(name, options());
            for _ in 0..steps {
                world.server.poll(Some(Duration::from_micros(300))).unwrap();
                let events = client.poll(Some(Duration::from_micros(300))).unwrap();
                if events.iter().any(|event| matches!(event, ClientEvent::Finished(_))) {
                    break;
                }
            }
        }
        converges(&mut world, &format!("{steps} steps"));
    }
}

// The same for the server, with a client that comes again by itself.
#[test]
fn a_server_that_starts_again_at_any_step_makes_no_conflict() {
    for steps in (1..40).step_by(3) {
        let mut world = changed_pair();
        for name in ["a", "b", "a"] {
            let mut client = world.sync_client(name, options());
            for _ in 0..steps {
                world.server.poll(Some(Duration::from_micros(300))).unwrap();
                client.poll(Some(Duration::from_micros(300))).unwrap();
            }
            restart(&mut world);
        }
        converges(&mut world, &format!("{steps} steps"));
    }
}

// A watching client whose connection breaks comes back, and goes on with all that changed meanwhile on both sides.
#[test]
fn a_watching_client_comes_back() {
    let mut world = World::new();
    let a = world.make("a", &[("x", "1")]);
    world.sync_all(&["a"]);
    let mut client = returning(&world, watching());
    for round in 0..5 {
        let (name, there) = (format!("f{round}"), format!("s{round}"));
        put(&a, &name, &format!("text {round}"));
        put(&world.share(), &there, &format!("there {round}"));
        world.server.poll(Some(Duration::from_millis(3))).unwrap();
        client.poll(Some(Duration::from_millis(3))).unwrap();
        restart(&mut world);
        let (share, folder) = (world.share(), a.clone());
        world.poll_until(&mut [&mut client], |_| {
            share.join(&name).exists() && folder.join(&there).exists()
        });
    }
    drop(client);
    world.sync_all(&["a"]);
    world.assert_same(&["a"]);
    assert_eq!((texts(&a).len(), copies(&a)), (11, vec![]));
}

// Row 59: who is interrupted leaves a folder that goes on, whatever it was at.
#[test]
fn an_interrupt_at_any_step_leaves_a_folder_that_goes_on() {
    for steps in (0..40).step_by(3) {
        let mut world = changed_pair();
        for name in ["a", "b"] {
            let mut client = world.sync_client(name, options());
            for _ in 0..steps {
                world.server.poll(Some(Duration::from_micros(300))).unwrap();
                client.poll(Some(Duration::from_micros(300))).unwrap();
            }
            client.interrupt();
            let outcome = ended(&mut world, client);
            // Who was done already is not interrupted.
            let is_interrupted =
                |outcome: Outcome| matches!(outcome.result, Ok(()) | Err(JobError::Interrupted { .. }));
            assert!(outcome.is_none_or(is_interrupted), "{steps} steps");
        }
        converges(&mut world, &format!("{steps} steps"));
    }
}

// The server is killed between its yes and its look, and by then the change is undone there: nobody would ever
// number it, and device and server would differ for good.
#[test]
fn what_a_server_lost_the_revision_of_is_sent_again() {
    let mut world = World::new();
    let a = world.make("a", &[("old", "1"), ("empty/in", "x")]);
    world.sync_all(&["a"]);
    put(&a, "new", "2");
    told_and_undone(&mut world, "new", |share| fs::remove_file(share.join("new")).unwrap());
    world.sync_all(&["a"]);
    world.assert_same(&["a"]);
    assert_eq!(texts(&a)["new"], "2");

    fs::remove_dir_all(a.join("empty")).unwrap();
    told_and_undone(&mut world, "empty", |share| {
        fs::create_dir(share.join("empty")).unwrap();
    });
    world.sync_all(&["a"]);
    world.assert_same(&["a"]);
}

// The same without a server that is killed: what was put into a directory went with it before it was looked at.
#[test]
fn what_is_gone_with_its_directory_before_the_look_is_told() {
    let mut world = World::new();
    let a = world.make("a", &[("d/1", "1")]);
    world.sync_all(&["a"]);
    put(&a, "d/2", "2");
    let mut client = world.sync_client("a", options());
    told_of(&mut world, &mut client, "d/2");
    fs::remove_dir_all(world.share().join("d")).unwrap();
    put(&world.share(), "d", "a file by now");
    drop(client);
    world.sync_all(&["a", "a"]);
    world.assert_same(&["a"]);
    assert_eq!(texts(&a)["d"], "a file by now");
}

/// One run of device a, up to where it hears that the server has done something at `path`.
fn told_of(world: &mut World, client: &mut syncline::node::Client, path: &str) {
    for _ in 0..20_000 {
        world.server.poll(Some(Duration::from_micros(300))).unwrap();
        for event in client.poll(Some(Duration::from_micros(300))).unwrap() {
            match event {
                ClientEvent::Item { path: done, .. } if done.to_string() == path => return,
                ClientEvent::Finished(outcome) => panic!("{path} was not told of: {outcome:?}"),
                _ => {}
            }
        }
    }
    panic!("{path} was not told of");
}

/// The device hears that something was done at `path`, which is undone then while the server starts again; the device
/// comes again by itself.
fn told_and_undone(world: &mut World, path: &str, undo: impl FnOnce(&Path)) {
    let mut client = returning(world, options());
    told_of(world, &mut client, path);
    undo(&world.share());
    restart(world);
    let run = world.drive(client, |_, _| {});
    assert_eq!(run.outcome.result, Ok(()), "{:?}", run.events);
}

/// Device a, whose connection may break.
fn returning(world: &World, options: syncline::node::SyncOptions) -> syncline::node::Client {
    let mut settings = world.client_options("home-a");
    settings.retries = 100;
    let job = syncline::node::Job::Sync {
        folder: world.folder("a"),
        link: Some(world.link("")),
        options,
    };
    syncline::node::Client::start(settings, job, Default::default()).unwrap()
}

/// Polls until it has ended; nothing when it had before.
fn ended(world: &mut World, mut client: syncline::node::Client) -> Option<Outcome> {
    for _ in 0..2000 {
        world.server.poll(Some(Duration::from_micros(300))).unwrap();
        for event in client.poll(Some(Duration::from_micros(300))).unwrap() {
            if let ClientEvent::Finished(outcome) = event {
                return Some(outcome);
            }
        }
    }
    None
}
