//! Transfers that break off and go on where they were: after cut connections, restarts of either side, and
//! with files that are not what they were.

#![allow(clippy::unwrap_used)]

mod harness;

use harness::breaks::{self, cutting_relay, kept, restart};
use harness::edits::noise;
use harness::{Run, World, pull_job, push_job};
use std::fs;
use std::os::unix::fs::FileExt;
use syncline::node::{Client, ClientOptions, Job, TransferOptions};

const MIB: u64 = 1 << 20;
const SIZE: u64 = 24 * MIB;

/// A transfer with the usual options whose connection is cut for good after so many bytes of it.
fn broken_off(world: &mut World, home: &str, job: &Job, bytes: u64) {
    breaks::broken_off(world, home, job, TransferOptions::default(), bytes);
}

fn assert_resumed(run: &Run, at_least: u64) {
    run.assert_clean();
    let summary = &run.outcome.summary;
    assert!(summary.resumed_bytes >= at_least, "{summary:?}");
    assert_eq!(summary.resumed_bytes + summary.literal_bytes, SIZE, "{summary:?}");
}

// A cut cable: the client connects again by itself, and goes on with less than a leaf twice. Attempts that
// get further are not counted.
#[test]
fn a_push_whose_connection_is_cut_again_and_again_sends_everything_once() {
    let mut world = World::new();
    let source = world.path("file");
    let content = noise(SIZE as usize, 1);
    fs::write(&source, &content).unwrap();
    let (address, connections) = cutting_relay(world.address, 5 * MIB);
    let link = format!("syncline://{address}/Share/").parse().unwrap();
    let options = ClientOptions {
        retries: 1,
        ..world.client_options("client-home")
    };
    let client = Client::start(options, push_job(&[&source], &link), TransferOptions::default()).unwrap();
    let run = world.drive(client, |_, _| {});
    run.assert_clean();
    assert!(fs::read(world.share().join("file")).unwrap() == content);
    let cuts = connections.load(std::sync::atomic::Ordering::Relaxed) as u64 - 1;
    assert!((4..=6).contains(&cuts), "{cuts} cuts");
    assert!(kept(&world.share()).is_empty());
}

// Both sides start again: a push and a pull go on in new processes.
#[test]
fn a_transfer_goes_on_after_restarts_of_both_sides() {
    for direction in ["push", "pull"] {
        let mut world = World::new();
        let (mine, theirs) = (world.path("mine"), world.share());
        fs::create_dir(&mine).unwrap();
        let content = noise(SIZE as usize, 2);
        let (from, to, job) = match direction {
            "push" => (&mine, &theirs, push_job(&[&world.path("mine/")], &world.link(""))),
            _ => (&theirs, &mine, pull_job(&world.link("/"), &mine)),
        };
        fs::write(from.join("f"), &content).unwrap();
        broken_off(&mut world, "client-home", &job, 14 * MIB);
        assert_eq!(kept(to).len(), 1, "{direction}");
        restart(&mut world);
        let run = world.run(job, TransferOptions::default());
        assert_resumed(&run, 3 * MIB);
        assert!(fs::read(to.join("f")).unwrap() == content, "{direction}");
        assert!(kept(to).is_empty(), "{direction}");
        assert_eq!(to.join(".syncline").exists(), direction == "push");
    }
}

// Rows 23 and 45: of what was not verified, the sender compares what is there. A byte that is not what was
// sent makes it start again, and the result is right.
#[test]
fn what_was_written_and_not_verified_is_compared() {
    for before_the_end in [17_000, 100_000] {
        let mut world = World::new();
        let source = world.path("file");
        let content = noise(SIZE as usize, 3);
        fs::write(&source, &content).unwrap();
        let job = push_job(&[&source], &world.link("/"));
        broken_off(&mut world, "client-home", &job, 20 * MIB);
        let [staged] = &kept(&world.share())[..] else {
            panic!("one file is kept");
        };
        let file = fs::File::options().write(true).open(staged).unwrap();
        let at = file.metadata().unwrap().len() - before_the_end;
        assert!(at % (4 * MIB) > MIB, "behind the last verified chunk");
        file.write_all_at(&[!content[at as usize]], at).unwrap();
        restart(&mut world);
        world.run(job, TransferOptions::default()).assert_clean();
        assert!(fs::read(world.share().join("file")).unwrap() == content, "byte {at}");
        assert!(kept(&world.share()).is_empty());
    }
}

// A source that is another one by now is sent as what it is.
#[test]
fn a_source_that_changed_is_sent_as_it_is_now() {
    for longer in [0, 1000] {
        let mut world = World::new();
        let source = world.path("file");
        fs::write(&source, noise(SIZE as usize, 4)).unwrap();
        let job = push_job(&[&source], &world.link("/"));
        broken_off(&mut world, "client-home", &job, 14 * MIB);
        let content = noise(SIZE as usize + longer, 5);
        fs::write(&source, &content).unwrap();
        world.run(job, TransferOptions::default()).assert_clean();
        assert!(fs::read(world.share().join("file")).unwrap() == content);
        assert!(kept(&world.share()).is_empty());
    }
}

// What is there of a source that has changed since is no beginning of the new version, but most of it may be
// in it: that does not travel again.
#[test]
fn what_was_sent_of_an_earlier_version_is_reused() {
    let mut world = World::new();
    let source = world.path("file");
    let old = noise(40 << 20, 4);
    fs::write(&source, &old).unwrap();
    let job = push_job(&[&source], &world.link("/"));
    broken_off(&mut world, "client-home", &job, 30 * MIB);
    restart(&mut world);
    let new = [b"inserted", &old[..5 << 20], b"and another", &old[5 << 20..]].concat();
    fs::write(&source, &new).unwrap();
    let run = world.run(job, TransferOptions::default());
    run.assert_clean();
    let summary = &run.outcome.summary;
    // At least what was on the way, and not much more, is literal.
    assert!(summary.literal_bytes < 14 * MIB, "{summary:?}");
    assert!(summary.matched_bytes > 26 * MIB, "{summary:?}");
    assert!(fs::read(world.share().join("file")).unwrap() == new);
    assert!(kept(&world.share()).is_empty());
}

// A patch that breaks off goes on behind what was pieced together and verified, whether the index of the basis
// is at hand or has to be asked for; and against the basis that is there then.
#[test]
fn a_patch_goes_on_where_it_broke_off() {
    for is_cold in [false, true] {
        let mut world = World::new();
        let source = world.path("file");
        let old = noise(40 << 20, 7);
        fs::write(&source, &old).unwrap();
        let job = push_job(&[&source], &world.link("/"));
        world.run(job.clone(), TransferOptions::default()).assert_clean();
        let inserted = noise(24 << 20, 8);
        let new = [&old[..9 << 20], &inserted[..], &old[9 << 20..]].concat();
        fs::write(&source, &new).unwrap();
        let home = if is_cold { "other-home" } else { "client-home" };
        broken_off(&mut world, home, &job, 20 * MIB);
        assert_eq!(kept(&world.share()).len(), 1);
        restart(&mut world);
        let client = Client::start(world.client_options(home), job, TransferOptions::default()).unwrap();
        let run = world.drive(client, |_, _| {});
        run.assert_clean();
        let summary = &run.outcome.summary;
        assert!(summary.resumed_bytes >= 12 * MIB, "cold {is_cold}: {summary:?}");
        assert!(summary.literal_bytes <= 21 * MIB, "cold {is_cold}: {summary:?}");
        assert!(fs::read(world.share().join("file")).unwrap() == new, "cold {is_cold}");
        assert!(kept(&world.share()).is_empty());
    }
}

// Row 25: nobody learns of, or goes on with, what another device has sent in part.
#[cfg(feature = "tls")]
#[test]
fn another_device_does_not_go_on_with_it() {
    use harness::WorldOptions;
    use syncline::model::Rights;
    let mut world = World::with(&WorldOptions {
        plain: false,
        open: Rights::NONE,
        ..WorldOptions::default()
    });
    let source = world.path("file");
    let content = noise(SIZE as usize, 6);
    fs::write(&source, &content).unwrap();
    let first = push_job(&[&source], &world.invite(Rights::READ_WRITE));
    broken_off(&mut world, "first-home", &first, 14 * MIB);
    let second = push_job(&[&source], &world.invite(Rights::READ_WRITE));
    let client = Client::start(world.client_options("second-home"), second, TransferOptions::default());
    let run = world.drive(client.unwrap(), |_, _| {});
    run.assert_clean();
    assert_eq!(run.outcome.summary.resumed_bytes, 0);
    assert!(fs::read(world.share().join("file")).unwrap() == content);
    assert_eq!(kept(&world.share()).len(), 1, "the first can still go on");
}
