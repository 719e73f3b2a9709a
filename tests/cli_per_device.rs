//! `serve --per-device`: each paired device has a place of its own in the share, and nothing else of it.

#![cfg(feature = "tls")]
#![allow(clippy::unwrap_used)]

mod binary;
mod harness;

use binary::{Sandbox, names};
use harness::breaks::{broken_off, kept};
use harness::edits::noise;
use harness::offers::{file, inline, link_to, offer};
use harness::raw::{STREAM, push_begin};
use harness::tls::greeted;
use harness::{Run, World, WorldOptions, pull_job, push_job};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use syncline::model::{DeviceId, Link, RelPath, Rights};
use syncline::node::{Client, Job, Server, ServerError, TransferOptions, stored_device};
use syncline::reactor::Identity;
use syncline::store::Home;
use syncline::wire::{Begin, Direction, FrameType, Message, PullSource};

/// A server that keeps devices apart.
fn world() -> World {
    let options = WorldOptions {
        plain: false,
        open: Rights::NONE,
        ..WorldOptions::default()
    };
    World::tuned(&options, |options| options.per_device = true)
}

trait Apart {
    fn run_as(&mut self, home: &str, job: Job, transfer: TransferOptions) -> Run;
    fn paired(&mut self, home: &str) -> PathBuf;
    fn place(&self, home: &str) -> PathBuf;
}

impl Apart for World {
    fn run_as(&mut self, home: &str, job: Job, transfer: TransferOptions) -> Run {
        let client = Client::start(self.client_options(home), job, transfer).unwrap();
        self.drive(client, |_, _| {})
    }

    /// Pairs a device by a first push. Returns its place.
    fn paired(&mut self, home: &str) -> PathBuf {
        let link = self.invite(Rights::READ_WRITE);
        let source = put(self, &format!("{home}-first/hello"), home.as_bytes());
        self.run_as(home, push_job(&[&source], &link), TransferOptions::default())
            .assert_clean();
        self.place(home)
    }

    fn place(&self, home: &str) -> PathBuf {
        let id = device(self, home);
        let short = format!("-{}", id.short());
        let found = names(&self.share());
        let own = found.iter().filter(|path| path.to_string_lossy().ends_with(&short));
        let own: Vec<&PathBuf> = own.collect();
        assert_eq!(own.len(), 1, "one place of {short}: {found:?}");
        own[0].clone()
    }
}

fn device(world: &World, home: &str) -> DeviceId {
    let home = Home::open(&world.path(home)).unwrap();
    stored_device(&home).unwrap().expect("a device that was here before")
}

fn put(world: &World, name: &str, content: &[u8]) -> PathBuf {
    let path = world.path(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, content).unwrap();
    path
}

fn dir(path: &Path) -> PathBuf {
    PathBuf::from(format!("{}/", path.display()))
}

fn delete() -> TransferOptions {
    TransferOptions {
        delete: true,
        ..TransferOptions::default()
    }
}

// Two devices push the same names: each has its own, also after a push with --delete, and each fetches its own.
#[test]
fn the_same_names_of_two_devices_are_kept_apart() {
    let mut world = world();
    let (anna, bert) = (world.paired("anna"), world.paired("bert"));
    assert_ne!(anna, bert);
    for (home, text) in [("anna", "of anna"), ("bert", "of bert")] {
        put(&world, &format!("{home}-files/docs/report"), text.as_bytes());
        let job = push_job(&[&dir(&world.path(&format!("{home}-files")))], &world.link("/"));
        world.run_as(home, job, delete()).assert_clean();
    }
    for (home, place, text) in [("anna", &anna, "of anna"), ("bert", &bert, "of bert")] {
        assert_eq!(fs::read_to_string(place.join("docs/report")).unwrap(), text);
        assert!(!place.join("hello").exists(), "--delete works within the place");
        let target = world.path(&format!("{home}-back"));
        let job = pull_job(&world.link("/"), &target);
        world.run_as(home, job, TransferOptions::default()).assert_clean();
        assert_eq!(fs::read_to_string(target.join("docs/report")).unwrap(), text);
        assert_eq!(names(&target).len(), 1, "nothing of the other device");
    }
    assert_eq!(names(&world.share()), {
        let mut both = vec![anna, bert];
        both.sort();
        both
    });
    // What a deletion took is among the versions of that place.
    let (history, path) = syncline::node::History::find(&world.place("anna").join("hello")).unwrap();
    assert_eq!(history.versions(path.as_ref()).unwrap().len(), 1);
}

// Rows 1 to 4 and 25 of the threats: neither the name of the other's place, nor `..`, nor an absolute path, nor a
// link that was pushed leads out of one's own place.
#[test]
fn no_path_leads_to_the_place_of_another_device() {
    let mut world = world();
    let (anna, bert) = (world.paired("anna"), world.paired("bert"));
    let name = anna.file_name().unwrap().to_str().unwrap().to_owned();
    put(&world, "secret", b"of anna");
    let job = push_job(&[&world.path("secret")], &world.link("/"));
    world.run_as("anna", job, TransferOptions::default()).assert_clean();
    // A path in the link is below the own place.
    let target = world.path("stolen");
    for path in [format!("/{name}/secret"), "/secret".to_owned()] {
        let job = pull_job(&world.link(&path), &target);
        let run = world.run_as("bert", job, TransferOptions::default());
        assert!(run.outcome.result.is_err() && !target.exists(), "{path}");
    }
    let source = put(&world, "forged", b"by bert");
    let job = push_job(&[&source], &world.link(&format!("/{name}/secret")));
    world.run_as("bert", job, TransferOptions::default()).assert_clean();
    assert_eq!(fs::read_to_string(bert.join(&name).join("secret")).unwrap(), "by bert");
    // A link that leads to the other's place is kept as a link, and not followed, whichever way.
    let tree = world.path("bert-links");
    fs::create_dir(&tree).unwrap();
    symlink(format!("../{name}"), tree.join("way")).unwrap();
    symlink(&anna, tree.join("abs")).unwrap();
    let job = push_job(&[&dir(&tree)], &world.link("/"));
    world.run_as("bert", job, TransferOptions::default()).assert_clean();
    assert!(bert.join("way").is_symlink());
    for way in ["way", "abs"] {
        let job = pull_job(&world.link(&format!("/{way}/secret")), &target);
        let run = world.run_as("bert", job, TransferOptions::default());
        assert!(run.outcome.result.is_err() && !target.exists(), "{way}");
        let job = push_job(&[&source], &world.link(&format!("/{way}/planted")));
        let run = world.run_as("bert", job, TransferOptions::default());
        assert!(run.outcome.result.is_err() || run.outcome.summary.failed > 0, "{way}");
    }
    assert_eq!(fs::read_to_string(anna.join("secret")).unwrap(), "of anna");
    assert_eq!(names(&anna).len(), 2);
}

// The same from a device that makes its frames by hand: what it asks for beyond its place is not there.
#[test]
fn a_device_that_does_not_keep_to_the_rules_stays_in_its_place() {
    let mut world = world();
    let anna = world.paired("anna");
    let bert = world.paired("bert");
    let name = anna.file_name().unwrap().to_str().unwrap().to_owned();
    let identity = identity(&world, "bert");
    let wanted = RelPath::parse(format!("{name}/hello").as_bytes()).unwrap();
    let kinds = world.serve_while(|address| {
        let mut puller = greeted(address, &identity);
        assert_eq!(puller.ask("Share", None, Rights::READ_WRITE).kind, FrameType::Opened);
        let mut out = Vec::new();
        Begin {
            direction: Direction::Pull,
            sources: vec![PullSource {
                path: Some(wanted.clone()),
                contents_only: false,
            }],
            ..push_begin()
        }
        .encode(STREAM, &mut out);
        puller.send(&out);
        let answer = puller.next().unwrap().kind;
        let mut pusher = greeted(address, &identity);
        assert_eq!(pusher.ask("Share", None, Rights::READ_WRITE).kind, FrameType::Opened);
        pusher.begin(&push_begin());
        // A directory by a link, and a file through it, in one breath.
        pusher.send(&offer(0, &[link_to("w", &format!("../{name}")), file("w/hello", 1)]));
        pusher.send(&inline(1, b"x"));
        let mut last = answer;
        while let Some(frame) = pusher.next() {
            last = frame.kind;
            if frame.kind == FrameType::Close {
                break;
            }
            if frame.kind == FrameType::Settled {
                break;
            }
        }
        (answer, last)
    });
    assert_eq!(kinds.0, FrameType::Close);
    assert_eq!(fs::read_to_string(anna.join("hello")).unwrap(), "anna");
    assert_eq!(names(&anna).len(), 1);
    assert!(bert.exists());
}

fn identity(world: &World, home: &str) -> Identity {
    let home = Home::open(&world.path(home)).unwrap();
    let stored = home.identity_or_create(&mut || unreachable!("it has one")).unwrap();
    Identity::from_der(&stored.0, &stored.1).unwrap()
}

// A transfer that broke off goes on in the place, also when the server was started again meanwhile; a file that was
// left half there is nobody else's.
#[test]
fn a_push_that_broke_off_goes_on_in_its_place() {
    const MIB: u64 = 1 << 20;
    let mut world = world();
    let anna = world.paired("anna");
    world.paired("bert");
    let content = noise(24 << 20, 7);
    let source = put(&world, "big", &content);
    let job = push_job(&[&source], &world.link("/"));
    broken_off(&mut world, "anna", &job, TransferOptions::default(), 14 * MIB);
    assert_eq!(kept(&anna).len(), 1);
    let mut options = harness::server_options(
        world.dir.path(),
        &WorldOptions {
            plain: false,
            open: Rights::NONE,
            ..WorldOptions::default()
        },
    );
    options.per_device = true;
    let elsewhere = self::world();
    drop(std::mem::replace(&mut world.server, elsewhere.server));
    options.listen = vec![world.address];
    world.server = Server::bind(&options).unwrap();
    let other = world.run_as("bert", job.clone(), TransferOptions::default());
    other.assert_clean();
    assert_eq!(other.outcome.summary.resumed_bytes, 0, "bert has begun nothing");
    let run = world.run_as("anna", job, TransferOptions::default());
    run.assert_clean();
    assert!(
        run.outcome.summary.resumed_bytes >= 3 * MIB,
        "{:?}",
        run.outcome.summary
    );
    assert!(fs::read(anna.join("big")).unwrap() == content);
    assert!(kept(&anna).is_empty());
}

// What is kept in a share stays reachable: a device that only fetches makes nothing; the server's own machine sees all.
#[test]
fn the_machine_that_serves_sees_the_whole_share() {
    let mut world = world();
    world.paired("anna");
    fs::write(world.share().join("notes"), "of the admin").unwrap();
    let link: Link = world.invite(Rights::READ);
    let target = world.path("read");
    let run = world.run_as("reader", pull_job(&link, &target), TransferOptions::default());
    assert!(run.outcome.result.is_err() && names(&world.share()).len() == 2);
    let job = pull_job(&world.link("/"), &target);
    world
        .run_as("server-home", job, TransferOptions::default())
        .assert_clean();
    assert_eq!(names(&target).len(), 2);
    assert!(names(&target).iter().all(|path| !path.join(".syncline").exists()));
}

// A folder in sync, one-way or both ways, is one with the place; its index is of that place only.
#[cfg(feature = "sync")]
#[test]
fn a_sync_is_with_the_own_place() {
    let mut world = world();
    let (anna, bert) = (world.paired("home-anna"), world.paired("home-bert"));
    world.make("anna", &[("a", "of anna"), ("both", "anna's")]);
    world.make("bert", &[("b", "of bert"), ("both", "bert's")]);
    let one_way = syncline::node::SyncOptions {
        mode: syncline::sync::Mode::OneWayReplica,
        ..harness::syncing::options()
    };
    world.sync_with("anna", one_way).assert_clean();
    world.sync("bert").assert_clean();
    assert!(!anna.join("b").exists() && !anna.join("hello").exists());
    assert_eq!(fs::read_to_string(anna.join("both")).unwrap(), "anna's");
    assert_eq!(fs::read_to_string(bert.join("both")).unwrap(), "bert's");
    assert_eq!(
        fs::read_to_string(world.folder("bert").join("hello")).unwrap(),
        "home-bert"
    );
    fs::write(bert.join("new"), "made on the server").unwrap();
    fs::remove_file(world.folder("bert").join("b")).unwrap();
    world.sync_all(&["anna", "bert"]);
    assert!(
        world.folder("bert").join("new").exists(),
        "what was made on the server came"
    );
    assert!(!bert.join("b").exists(), "what was removed here is removed there");
    assert!(!world.folder("anna").join("new").exists());
}

// Whoever cannot be told apart has no place: such a server does not start.
#[test]
fn it_does_not_go_with_open_shares() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("share")).unwrap();
    for (plain, open) in [(false, Rights::READ), (true, Rights::NONE)] {
        let options = WorldOptions {
            plain,
            open,
            ..WorldOptions::default()
        };
        let mut options = harness::server_options(dir.path(), &options);
        options.per_device = true;
        let refused = Server::bind(&options).map(|_| ()).unwrap_err();
        assert!(matches!(refused, ServerError::NobodyToTellApart), "{refused}");
    }
    let sandbox = Sandbox::new();
    let run = sandbox.run_as("server", &["serve", "share", "--per-device", "--open", "write"]);
    run.complains(2, "--per-device tells devices apart by their keys");
}

// As it is typed: the places, their versions, and one got back, on the machine that serves.
#[test]
fn the_server_shows_what_the_devices_have() {
    let sandbox = Sandbox::new();
    let served = sandbox.serve(&[
        "--per-device",
        "--bwlimit",
        "Share=500M",
        "--interval",
        "1h",
        "--max-active",
        "1",
    ]);
    sandbox.file("doc", b"first");
    sandbox.run(&["push", "doc", &served.invite()]).expect(0);
    sandbox.file("doc", b"second one");
    sandbox.run(&["push", "doc", &served.link("")]).expect(0);
    let [place] = &names(&sandbox.path("share"))[..] else {
        panic!("one place");
    };
    let name = place.file_name().unwrap().to_str().unwrap().to_owned();
    assert_eq!(fs::read(place.join("doc")).unwrap(), b"second one");
    // What devices do is told to the machine that serves, and not to each other.
    for (home, files) in [("client", 0), ("server", 2)] {
        let status = sandbox.run_as(home, &["status", "--json", &served.link("")]);
        assert_eq!(
            status.expect(0).objects()[0]["shares"][0]["files"],
            files,
            "{}",
            status.out
        );
    }
    let run = sandbox.run_as("server", &["versions", "share"]);
    assert!(run.expect(0).out.starts_with(&format!("{name}/doc\n")), "{}", run.out);
    let run = sandbox.run_as("server", &["restore", &format!("share/{name}/doc")]);
    run.expect(0);
    assert_eq!(fs::read(place.join("doc")).unwrap(), b"first");
    sandbox.run(&["pull", &served.link("/doc"), "back"]).expect(0);
    assert_eq!(fs::read(sandbox.path("back")).unwrap(), b"first");
}
