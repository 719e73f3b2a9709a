//! `--inplace` that breaks off before its commit and goes on: what was gathered does not travel again, and the
//! file stays as it was until all of its changes are there.

#![allow(clippy::unwrap_used)]

mod binary;
mod harness;

use binary::{Sandbox, finished};
use harness::breaks::{broken_off, kept, restart};
use harness::edits::{noise, staged};
use harness::{Run, World, WorldOptions, child, pull_job, push_job};
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use syncline::model::RelPath;
use syncline::node::{Client, Job, TransferOptions};
use syncline::store::{Author, Journal, Keeping, Root, Versions, restore, versions_of};

const MIB: u64 = 1 << 20;
const SIZE: usize = 40 << 20;
/// Where the bytes are that all have to travel.
const CHANGED: std::ops::Range<usize> = 8 << 20..32 << 20;
/// So far a transfer comes before it is cut.
const CUT: u64 = 18 * MIB;
/// Bytes that may travel again: eight chunks whose check was not back, the one that was not complete, the four that
/// are noted at a time, and two on the way.
const AGAIN: u64 = 15 * MIB;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Push,
    Pull,
}

/// A world in which both sides have a file, and the source a new version of it.
struct Pair {
    world: World,
    job: Job,
    source: PathBuf,
    target: PathBuf,
    old: Vec<u8>,
    new: Vec<u8>,
    inode: u64,
}

fn in_place() -> TransferOptions {
    TransferOptions {
        in_place: true,
        ..TransferOptions::default()
    }
}

/// More runs of pages than a record of the journal could hold, and much that is new.
fn edited(old: &[u8]) -> Vec<u8> {
    let mut new = old.to_vec();
    (0..160).for_each(|number| new[number * 50_003] ^= 0x55);
    new[CHANGED].copy_from_slice(&noise(CHANGED.len(), 2));
    new[36 << 20] ^= 1;
    new
}

impl Pair {
    fn new(way: Way) -> Pair {
        Pair::with(way, noise(SIZE, 1), edited)
    }

    fn with(way: Way, old: Vec<u8>, edit: fn(&[u8]) -> Vec<u8>) -> Pair {
        let mut world = World::with(&WorldOptions::default());
        let (here, there) = (world.path("mine/file"), world.share().join("file"));
        fs::create_dir(world.path("mine")).unwrap();
        let (source, target, job) = match way {
            Way::Push => (here.clone(), there, push_job(&[&here], &world.link("/"))),
            Way::Pull => (there, here.clone(), pull_job(&world.link("/file"), &here)),
        };
        fs::write(&source, &old).unwrap();
        fs::write(world.path("canary"), b"canary").unwrap();
        world.run(job.clone(), TransferOptions::default()).assert_clean();
        let new = edit(&old);
        let inode = fs::metadata(&target).unwrap().ino();
        let mut pair = Pair {
            world,
            job,
            source,
            target,
            old,
            new,
            inode,
        };
        pair.change_source(|_| {});
        pair
    }

    /// The new version is another one.
    fn change_source(&mut self, edit: impl FnOnce(&mut Vec<u8>)) {
        edit(&mut self.new);
        fs::write(&self.source, &self.new).unwrap();
    }

    /// Cut after so many bytes; the file is as it was.
    fn break_off(&mut self, home: &str, bytes: u64) {
        self.cut(home, bytes);
        assert_eq!(kept(self.root()).len(), 1);
    }

    fn cut(&mut self, home: &str, bytes: u64) {
        broken_off(&mut self.world, home, &self.job.clone(), in_place(), bytes);
        assert!(fs::read(&self.target).unwrap() == self.old, "touched before its commit");
    }

    fn run(&mut self, home: &str) -> Run {
        let client = Client::start(self.world.client_options(home), self.job.clone(), in_place()).unwrap();
        let run = self.world.drive(client, |_, _| {});
        run.assert_clean();
        run
    }

    fn root(&self) -> &Path {
        self.target.parent().unwrap()
    }

    /// The new version is there, in the same inode or another, and nothing else is left.
    fn assert_new(&self, is_same_inode: bool, what: &str) {
        assert!(fs::read(&self.target).unwrap() == self.new, "{what}");
        let inode = fs::metadata(&self.target).unwrap().ino();
        assert_eq!(inode == self.inode, is_same_inode, "{what}");
        assert!(kept(self.root()).is_empty(), "{what}");
        assert_eq!(staged(self.root()), 0, "{what}");
        assert!(!self.root().join(".syncline/undo").exists(), "{what}");
        assert_eq!(fs::read(self.world.path("canary")).unwrap(), b"canary");
    }
}

fn assert_resumed(run: &Run, what: &str) {
    let summary = &run.outcome.summary;
    // What was gathered by then, less what was not noted.
    assert!(
        summary.resumed_bytes + AGAIN >= CHANGED.start as u64 + CUT,
        "{what}: {summary:?}"
    );
    let all = CHANGED.len() as u64 + 2 * MIB;
    let wire = summary.wire_sent + summary.wire_received;
    assert!(wire + CUT <= all + AGAIN, "{what}: {summary:?}");
}

// Protects the promise that a cut costs little: both ways, whether the index of the basis is at hand or has to
// be asked for, in new processes. The old version is there until the commit, and comes back from its record.
#[test]
fn a_change_in_place_goes_on_where_it_broke_off() {
    for (way, home) in [
        (Way::Push, "client-home"),
        (Way::Push, "other-home"),
        (Way::Pull, "client-home"),
    ] {
        let what = format!("{way:?} {home}");
        let mut pair = Pair::new(way);
        pair.break_off(home, CUT);
        restart(&mut pair.world);
        let run = pair.run(home);
        assert_resumed(&run, &what);
        pair.assert_new(true, &what);
        if way == Way::Push {
            assert_old_comes_back(&pair);
        }
    }
}

fn assert_old_comes_back(pair: &Pair) {
    let root = Root::open(pair.root()).unwrap();
    let path = RelPath::parse(b"file").unwrap();
    let kept = versions_of(&root, &path).unwrap();
    assert_eq!(kept.len(), 1);
    let versions = Versions::new(&root);
    let author = Author::from(None);
    let keeping = Keeping {
        versions: &versions,
        author,
    };
    restore(&root, &kept[0], &path, &keeping).unwrap();
    assert!(fs::read(&pair.target).unwrap() == pair.old);
}

// Protects the file that is changed: what was gathered is laid over its old content, so it is of use only as
// long as that is there, be it in another state. What somebody wrote meanwhile is replaced like any other version.
#[test]
fn what_was_gathered_is_laid_over_the_same_content_only() {
    for is_edited in [false, true] {
        let mut pair = Pair::new(Way::Push);
        pair.break_off("client-home", CUT);
        let file = File::options().write(true).open(&pair.target).unwrap();
        let byte = [pair.old[3 << 20] ^ u8::from(is_edited)];
        let time = file.metadata().unwrap().modified().unwrap();
        file.write_all_at(&byte, 3 << 20).unwrap();
        // Only the time of its change tells.
        file.set_modified(time).unwrap();
        restart(&mut pair.world);
        let run = pair.run("client-home");
        match is_edited {
            false => assert_resumed(&run, "the same content"),
            true => assert_eq!(run.outcome.summary.resumed_bytes, 0),
        }
        pair.assert_new(true, &format!("edited: {is_edited}"));
    }
}

// A source that changed since is sent as it is now, and one that is not to be changed in place any more is
// replaced: nothing of what was gathered gets into either.
#[test]
fn what_was_gathered_of_something_else_is_dropped() {
    let mut pair = Pair::new(Way::Push);
    pair.break_off("client-home", CUT);
    pair.change_source(|new| new[9 << 20..10 << 20].fill(7));
    pair.run("client-home");
    pair.assert_new(true, "another version");

    let mut pair = Pair::new(Way::Push);
    pair.break_off("client-home", CUT);
    let run = pair.world.run(pair.job.clone(), TransferOptions::default());
    run.assert_clean();
    pair.assert_new(false, "replaced");
}

// A sender does not go on with a patch of a file up to 16 MiB, but sends the rest as it is, which cannot be written
// behind changes. So these start again, as a patch.
#[test]
fn a_small_file_that_grows_in_place_is_right() {
    let grown = |old: &[u8]| [old, &noise(SIZE - old.len(), 3)].concat();
    let mut pair = Pair::with(Way::Push, noise(10 << 20, 1), grown);
    pair.cut("client-home", CUT);
    let run = pair.run("client-home");
    assert!(run.outcome.summary.wire_sent < 31 * MIB, "{:?}", run.outcome.summary);
    pair.assert_new(true, "grown");
}

// What was gathered moves to a staged file when bytes move, and that is resumed in its place; so it is also when
// all that was gathered came from an earlier process.
#[test]
fn what_moved_to_a_staged_file_is_resumed_there() {
    for cuts in [&[18 * MIB][..], &[6 * MIB, 12 * MIB]] {
        let mut pair = Pair::new(Way::Push);
        let old = pair.old.clone();
        pair.change_source(|new| {
            new[16 << 20..].copy_from_slice(&old[16 << 20..]);
            new[18 << 20..34 << 20].copy_from_slice(&noise(16 << 20, 5));
            // What is behind this is copied from elsewhere.
            new.splice(17 << 20..17 << 20, noise(100, 6));
        });
        for cut in cuts {
            pair.break_off("client-home", *cut);
            restart(&mut pair.world);
        }
        let run = pair.run("client-home");
        let summary = &run.outcome.summary;
        let cut: u64 = cuts.iter().sum();
        if cuts.len() == 1 {
            // On a busy machine two cuts may lose nearly all that came before them.
            assert!(summary.resumed_bytes + AGAIN > 27 * MIB, "{summary:?}");
            assert!(summary.wire_sent + cut <= 26 * MIB + AGAIN, "{summary:?}");
        }
        pair.assert_new(false, &format!("{cuts:?}"));
    }
}

// Row 45: after a power cut what was gathered is read before it is trusted. Where a byte of it is lost, or which
// pages it is about, all of it comes again, and the result is right.
#[test]
fn after_a_power_cut_what_was_gathered_is_verified() {
    let map = (SIZE as u64).next_multiple_of(4096);
    for lost in [None, Some(9 * MIB), Some(map + 9 * MIB / 4096 / 8)] {
        let mut pair = Pair::new(Way::Push);
        pair.break_off("client-home", CUT);
        let [gathered] = &kept(pair.root())[..] else {
            panic!("one file is kept");
        };
        if let Some(at) = lost {
            let file = File::options().write(true).open(gathered).unwrap();
            file.write_all_at(&[0; 8], at).unwrap();
        }
        another_boot(pair.root());
        restart(&mut pair.world);
        let run = pair.run("client-home");
        match lost {
            None => assert_resumed(&run, "nothing is lost"),
            Some(_) => assert_eq!(run.outcome.summary.resumed_bytes, 0, "{lost:?}"),
        }
        pair.assert_new(true, &format!("lost: {lost:?}"));
    }
}

/// The journal looks as if the machine had started since: docs/FORMAT.md, "journal", its header.
fn another_boot(root: &Path) {
    let journal = root.join(".syncline/journal");
    let mut bytes = fs::read(&journal).unwrap();
    bytes[16..32].fill(0xb0);
    let checksum = crc32fast::hash(&bytes[..40]);
    bytes[40..44].copy_from_slice(&checksum.to_le_bytes());
    fs::write(&journal, bytes).unwrap();
}

/// Where a child finds the folder that it pulls into.
const DIRECTORY: &str = "SYNCLINE_TEST_DIRECTORY";

/// A whole transfer into a folder that has the old version, from a server of its own.
fn pull(dir: &Path) -> Run {
    let mut world = World::with(&WorldOptions::default());
    let served = world.share().join("f");
    fs::write(&served, edited(&noise(SIZE, 1))).unwrap();
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_500_000_000);
    File::options()
        .write(true)
        .open(&served)
        .unwrap()
        .set_modified(time)
        .unwrap();
    world.pull(&world.link("/f"), &dir.join("f"), in_place())
}

/// How far the journal of a folder says that its only transfer is.
fn noted(root: &Path) -> u64 {
    let journal = Journal::open(&Root::open(root).unwrap()).unwrap();
    journal.iter().map(|unfinished| unfinished.reached.offset).sum()
}

// Row 43: kill -9 while changes gather, while they are written to the file, and when all of them are. The next
// start puts the old content back, the transfer goes on with what was gathered, and nothing is left.
#[test]
fn row_43_a_killed_change_in_place_goes_on() {
    const NAME: &str = "row_43_a_killed_change_in_place_goes_on";
    if child::is(NAME) {
        pull(Path::new(&std::env::var_os(DIRECTORY).unwrap()));
        return;
    }
    if !child::strace_works(NAME) {
        return;
    }
    let (mut gathering, mut amid) = (0, 0);
    for (call, numbers) in [
        ("pwrite64", &[150, 600, 850][..]),
        ("fsync,fdatasync,fchmod", &[3, 4, 5, 6]),
    ] {
        for number in numbers {
            match kill_and_go_on(NAME, call, *number) {
                Killed::Gathering(noted) => gathering += u32::from(noted > 0),
                Killed::Amid => amid += 1,
                Killed::Later => {}
            }
        }
    }
    assert!(
        gathering > 0 && amid > 0,
        "{gathering} while it gathered, {amid} amid the commit"
    );
}

/// When a pull was killed.
enum Killed {
    /// Before its commit; so much was noted.
    Gathering(u64),
    Amid,
    /// When the file was complete, or not at all.
    Later,
}

/// Kills a pull at its call of this number; and another one brings the file over.
fn kill_and_go_on(test: &str, call: &str, number: u32) -> Killed {
    let above = tempfile::tempdir().unwrap();
    let dir = above.path().join("target");
    fs::create_dir(&dir).unwrap();
    let old = noise(SIZE, 1);
    fs::write(dir.join("f"), &old).unwrap();
    let inode = fs::metadata(dir.join("f")).unwrap().ino();
    if play_traced(test, &dir, call, number).status.success() {
        return Killed::Later;
    }
    let what = format!("{call} {number}");
    let is_touched = fs::read(dir.join("f")).unwrap() != old;
    let records = fs::read_dir(dir.join(".syncline/undo")).map_or(0, Iterator::count);
    let noted = noted(&dir);
    let killed = match (is_touched, records) {
        (false, _) => Killed::Gathering(noted),
        (true, 0) => Killed::Later,
        (true, _) => Killed::Amid,
    };
    let run = pull(&dir);
    run.assert_clean();
    let summary = &run.outcome.summary;
    match &killed {
        Killed::Later => assert_eq!(summary.files_transferred, 0, "{what}"),
        Killed::Gathering(_) => assert_eq!(summary.resumed_bytes, noted, "{what}"),
        // All of it had come.
        Killed::Amid => assert_eq!((summary.resumed_bytes, noted), (SIZE as u64, SIZE as u64), "{what}"),
    }
    let rest = CHANGED.end as u64 - noted.clamp(CHANGED.start as u64, CHANGED.end as u64);
    assert!(summary.wire_received < rest + 10_000, "{what}: {summary:?}");
    assert!(fs::read(dir.join("f")).unwrap() == edited(&old), "{what}");
    assert_eq!(fs::metadata(dir.join("f")).unwrap().ino(), inode, "{what}");
    assert!(!dir.join(".syncline").exists(), "{what}: something is left");
    killed
}

/// A child that pulls into `dir`, and is killed at this call.
fn play_traced(test: &str, dir: &Path, call: &str, number: u32) -> Output {
    let directory = format!("{DIRECTORY}={}", dir.display());
    let above = format!("TMPDIR={}", dir.parent().unwrap().display());
    let (trace, inject) = (
        format!("trace={call}"),
        format!("inject={call}:signal=KILL:when={number}"),
    );
    let tracer = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", &trace, "-e", &inject];
    let wrapper = [&["env", &directory, &above][..], &tracer].concat();
    child::run(&wrapper, test, test)
}

/// How far the server's only upload is by now, as `syncline journal` tells it.
fn told(sandbox: &Sandbox) -> u64 {
    let run = sandbox.run_as("server", &["journal", "share", "--json"]);
    let objects = run.expect(0).objects();
    objects[0]["offset"].as_u64().unwrap_or(0)
}

// Row 43: kill -9 of the server alone, whose client waits for it and goes on, and of the client alone, whose
// next push does.
#[test]
fn row_43_one_side_alone_is_killed() {
    const SERVE: [&str; 3] = ["--plain", "--open", "write"];
    for victim in ["server", "client"] {
        let sandbox = Sandbox::new();
        let mut served = sandbox.serve(&SERVE);
        let old = noise(SIZE, 1);
        let source = sandbox.file("file", &old);
        let push = |link: &str| {
            let arguments = [
                "push",
                "--plain",
                "--inplace",
                "--json",
                "--bwlimit",
                "8M",
                "file",
                link,
            ];
            let mut command = sandbox.command("client");
            command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
            command.spawn().unwrap()
        };
        sandbox.run(&["push", "--plain", "file", &served.link("")]).expect(0);
        fs::write(&source, edited(&old)).unwrap();
        let inode = fs::metadata(sandbox.path("share/file")).unwrap().ino();
        let mut client = push(&served.link(""));
        while told(&sandbox) < 16 * MIB {
            assert!(client.try_wait().unwrap().is_none(), "{victim}: it is over");
        }
        let listen = served.listen();
        if victim == "server" {
            served.child.kill().unwrap();
            served.child.wait().unwrap();
            assert!(fs::read(sandbox.path("share/file")).unwrap() == old);
            served = sandbox.serve_at(&listen, &SERVE);
        } else {
            client.kill().unwrap();
            client.wait().unwrap();
            client = push(&served.link(""));
        }
        let run = finished(&client.wait_with_output().unwrap());
        let summary = run.expect(0).summary();
        assert!(
            summary["resumed_bytes"].as_u64().unwrap() >= 16 * MIB,
            "{victim}: {summary}"
        );
        assert!(
            fs::read(sandbox.path("share/file")).unwrap() == edited(&old),
            "{victim}"
        );
        assert_eq!(
            fs::metadata(sandbox.path("share/file")).unwrap().ino(),
            inode,
            "{victim}"
        );
        assert!(kept(&sandbox.path("share")).is_empty(), "{victim}");
        drop(served);
    }
}
