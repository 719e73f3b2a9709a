//! Tests of `Watch` on real folders. They wait on the descriptor, never for a time.

use super::*;
use crate::store::scan::{Keep, Shape};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{RenameFlags, renameat_with};
use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

fn path(text: &str) -> RelPath {
    RelPath::parse(text.as_bytes()).unwrap()
}

fn changed(text: &str) -> Notice {
    Notice::Changed(Dirt::Path(path(text)))
}

fn tree(text: &str) -> Notice {
    Notice::Changed(Dirt::Tree(path(text)))
}

const ALL: Notice = Notice::Changed(Dirt::All);

/// A watch of a temporary folder that is settled.
struct Fixture {
    dir: tempfile::TempDir,
    watch: Watch,
    told: Vec<Notice>,
    left_out: &'static str,
}

impl Fixture {
    fn new(directories: &[&str]) -> Fixture {
        Fixture::with(directories, &WatchOptions::default())
    }

    fn with(directories: &[&str], options: &WatchOptions) -> Fixture {
        let dir = tempfile::tempdir().unwrap();
        // One level down, so that other tests do nothing in the directory above.
        fs::create_dir(dir.path().join("top")).unwrap();
        for directory in directories {
            fs::create_dir_all(dir.path().join("top").join(directory)).unwrap();
        }
        let root = Root::open(&dir.path().join("top")).unwrap();
        let watch = Watch::open(&root, options).unwrap();
        let mut fixture = Fixture {
            dir,
            watch,
            told: Vec::new(),
            left_out: "ignored",
        };
        fixture.work();
        assert_eq!(fixture.told, [], "the first walk has nothing to tell");
        fixture
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join("top").join(name)
    }

    /// Does what there is to do now; returns whether anything was read.
    fn work(&mut self) -> bool {
        let left_out = self.left_out;
        let mut keep = |path: &RelPath, shape: Shape| {
            assert_eq!(shape, Shape::Directory);
            if path.name() == left_out.as_bytes() {
                Keep::No
            } else {
                Keep::Yes
            }
        };
        let before = self.told.len();
        let mut has_read = false;
        loop {
            while self.watch.read(&mut self.told).unwrap() {
                has_read = true;
            }
            // Small steps: each kind of work is also interrupted.
            if !self.watch.step(&mut keep, 2, &mut self.told) {
                break;
            }
        }
        has_read || self.told.len() > before
    }

    /// Works until `want` was told.
    fn wait_for(&mut self, want: &Notice) {
        loop {
            self.work();
            if self.told.contains(want) {
                return;
            }
            let mut waiting = [PollFd::new(&self.watch, PollFlags::IN)];
            let limit = Timespec { tv_sec: 10, tv_nsec: 0 };
            assert_ne!(
                poll(&mut waiting, Some(&limit)).unwrap(),
                0,
                "{want:?} is missing in {:?}",
                self.told
            );
        }
    }

    /// Works until a change that is made now is told, and returns all that was told before it.
    fn told(&mut self) -> Vec<Notice> {
        fs::write(self.at("mark"), b"").unwrap();
        self.wait_for(&changed("mark"));
        fs::remove_file(self.at("mark")).unwrap();
        let count = |told: &[Notice]| told.iter().filter(|notice| **notice == changed("mark")).count();
        // Created, closed, removed.
        while count(&self.told) < 3 {
            self.work();
        }
        let mut told = std::mem::take(&mut self.told);
        told.retain(|notice| *notice != changed("mark"));
        told
    }

    /// Whether a change in `name` is told under that very path.
    fn notices_in(&mut self, name: &str) {
        let file = format!("{name}/noticed");
        fs::write(self.at(&file), b"").unwrap();
        self.wait_for(&changed(&file));
        fs::remove_file(self.at(&file)).unwrap();
        self.told();
    }
}

// Protects the user from changes that nobody notices: each kind of change of a file is told.
#[test]
fn each_change_of_a_file_is_told() {
    let mut fixture = Fixture::new(&["d"]);
    let file = fixture.at("d/f");
    fs::write(&file, b"x").unwrap();
    let told = fixture.told();
    assert!(told.contains(&changed("d/f")), "{told:?}");
    assert_eq!(told.last(), Some(&changed("d/f")), "closing comes last");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(fixture.told(), [changed("d/f")]);
    fs::rename(&file, fixture.at("g")).unwrap();
    assert_eq!(fixture.told(), [changed("d/f"), changed("g")]);
    symlink("anywhere", fixture.at("link")).unwrap();
    assert_eq!(fixture.told(), [changed("link")]);
    fs::hard_link(fixture.at("g"), fixture.at("h")).unwrap();
    let told = fixture.told();
    assert!(told.contains(&changed("h")), "{told:?}");
    fs::remove_file(fixture.at("h")).unwrap();
    fs::rename(fixture.at("g"), fixture.dir.path().join("outside")).unwrap();
    let told = fixture.told();
    assert!(told.contains(&changed("h")) && told.contains(&changed("g")), "{told:?}");
    fs::rename(fixture.dir.path().join("outside"), fixture.at("back")).unwrap();
    assert_eq!(fixture.told(), [changed("back")]);
}

// Protects logs and databases: what is written and never closed is told as well, as what it is.
#[test]
fn a_file_that_stays_open_is_told_while_it_is_written() {
    let mut fixture = Fixture::new(&[]);
    let mut file = fs::File::create(fixture.at("log")).unwrap();
    assert_eq!(fixture.told(), [changed("log")]);
    file.write_all(b"one").unwrap();
    assert_eq!(fixture.told(), [Notice::Written(path("log"))]);
    drop(file);
    assert_eq!(fixture.told(), [changed("log")]);
    // Reading is nothing.
    fs::read(fixture.at("log")).unwrap();
    assert_eq!(fixture.told(), []);
}

// Protects own data and what is left out: neither is watched, and `.syncline` is not even told.
#[test]
fn own_data_and_what_is_left_out_are_not_watched() {
    let mut fixture = Fixture::new(&[".syncline/staging", "ignored/deep", "a/ignored", "a/b"]);
    assert_eq!(fixture.watch.directories(), 3, "root, a and a/b");
    for file in [
        ".syncline/x",
        ".syncline/staging/x",
        "ignored/x",
        "ignored/deep/x",
        "a/ignored/x",
    ] {
        fs::write(fixture.at(file), b"").unwrap();
    }
    assert_eq!(fixture.told(), []);
    fs::create_dir(fixture.at("a/b/ignored")).unwrap();
    fixture.told();
    assert_eq!(fixture.watch.directories(), 3);
    // The rules changed: what was left out is watched now, and the other way round.
    fixture.left_out = "b";
    fixture.watch.again();
    assert!(fixture.told().contains(&tree("ignored")));
    fixture.notices_in("ignored/deep");
    fs::write(fixture.at("a/b/x"), b"").unwrap();
    assert_eq!(fixture.told(), []);
}

// Protects new folders: what was made inside before the watch was there is surveyed. However the two interleave.
#[test]
fn nested_directories_made_in_one_go_end_up_noticed() {
    let mut fixture = Fixture::new(&[]);
    for round in 0..200 {
        let top = format!("t{round}");
        let file = format!("{top}/a/b/c/f");
        let (directory, made) = (fixture.at(&format!("{top}/a/b/c")), fixture.at(&file));
        let maker = std::thread::spawn(move || {
            fs::create_dir_all(directory).unwrap();
            fs::write(made, b"").unwrap();
        });
        while !maker.is_finished() {
            fixture.work();
        }
        maker.join().unwrap();
        // Either the file itself was told, or a tree that it is in after it was made: the last one counts.
        let told = fixture.told();
        let inner = ["", "/a", "/a/b", "/a/b/c"].map(|below| tree(&format!("{top}{below}")));
        let covered = told.contains(&changed(&file)) || inner.iter().any(|tree| told.contains(tree));
        assert!(covered, "{file}: {told:?}");
        fs::write(fixture.at(&file), b"again").unwrap();
        assert!(
            fixture.told().contains(&changed(&file)),
            "the innermost directory is watched in round {round}"
        );
    }
    assert_eq!(fixture.watch.directories(), 1 + 4 * 200);
}

// Protects renames of directories: within the tree, out of it, into it, over an empty one, and two exchanged.
#[test]
fn directories_are_followed_wherever_they_go() {
    let mut fixture = Fixture::new(&["a/in/deep", "b/other", "empty"]);
    let outside = fixture.dir.path().join("outside");
    fs::rename(fixture.at("a/in"), fixture.at("b/moved")).unwrap();
    let told = fixture.told();
    assert!(
        told.contains(&tree("a/in")) && told.contains(&tree("b/moved")),
        "{told:?}"
    );
    fixture.notices_in("b/moved/deep");
    let count = fixture.watch.directories();

    fs::rename(fixture.at("b"), &outside).unwrap();
    assert!(fixture.told().contains(&tree("b")));
    assert_eq!(
        fixture.watch.directories(),
        count - 4,
        "watches of what left are given back"
    );
    fs::write(outside.join("x"), b"").unwrap();
    assert_eq!(fixture.told(), []);

    fs::create_dir(outside.join("new")).unwrap();
    fs::rename(&outside, fixture.at("empty")).unwrap();
    assert!(fixture.told().contains(&tree("empty")));
    assert_eq!(fixture.watch.directories(), count);
    fixture.notices_in("empty/moved/deep");
    fixture.notices_in("empty/new");

    let exchange = |fixture: &Fixture, one: &str, other: &str| {
        let (one, other) = (fixture.at(one), fixture.at(other));
        renameat_with(rustix::fs::CWD, one, rustix::fs::CWD, other, RenameFlags::EXCHANGE).unwrap();
    };
    fs::create_dir_all(fixture.at("a/x/y")).unwrap();
    fixture.told();
    exchange(&fixture, "a", "empty/moved");
    let told = fixture.told();
    assert!(
        told.contains(&tree("a")) && told.contains(&tree("empty/moved")),
        "{told:?}"
    );
    fixture.notices_in("a/deep");
    fixture.notices_in("empty/moved/x/y");
}

// Protects from watching the wrong directories after many renames at once: random ones, and at the end every
// directory is told by its very path.
#[test]
fn random_renames_leave_every_directory_watched_by_its_path() {
    let seed = std::env::var("SYNCLINE_SEED").map_or(0x3a7c, |text| text.parse().unwrap());
    println!("SYNCLINE_SEED={seed}");
    let mut state: u64 = seed;
    let mut random = |below: usize| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap() % below
    };
    let mut fixture = Fixture::new(&["a/b", "c/d/e"]);
    for _ in 0..40 {
        for _ in 0..random(30) {
            let all = directories_beneath(&fixture.at(""));
            let one = fixture.at(&all[random(all.len())]);
            let into = fixture
                .at(&all[random(all.len())])
                .join(["a", "b", "c", "d"][random(4)]);
            // Many of these are impossible, which is fine.
            let _ = match random(6) {
                0 => fs::create_dir(into),
                1 => fs::remove_dir(one),
                2 => renameat_with(rustix::fs::CWD, one, rustix::fs::CWD, into, RenameFlags::EXCHANGE)
                    .map_err(Into::into),
                _ => fs::rename(one, into),
            };
            if random(4) == 0 {
                fixture.work();
            }
            if directories_beneath(&fixture.at("")).is_empty() {
                fs::create_dir_all(fixture.at("a/b/c")).unwrap();
            }
        }
        fixture.told();
        let all = directories_beneath(&fixture.at(""));
        assert_eq!(fixture.watch.directories(), 1 + all.len(), "{all:?}");
        for directory in all {
            fixture.notices_in(&directory);
        }
    }
}

fn directories_beneath(top: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut left = vec![top.to_owned()];
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                found.push(entry.path().strip_prefix(top).unwrap().display().to_string());
                left.push(entry.path());
            }
        }
    }
    found.sort();
    found
}

// Protects what is outside of the root (rows 3 and 4): a link in a directory's place is never followed, however
// often the two are swapped while the tree is walked.
#[test]
fn row_04_a_link_swapped_in_for_a_directory_is_not_watched() {
    let outside = tempfile::tempdir().unwrap();
    fs::create_dir_all(outside.path().join("secret/deep")).unwrap();
    let mut fixture = Fixture::new(&["d/secret/deep"]);
    symlink(outside.path(), fixture.at("link")).unwrap();
    fixture.told();
    let stop = AtomicBool::new(false);
    let (link, directory) = (fixture.at("link"), fixture.at("d"));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                renameat_with(
                    rustix::fs::CWD,
                    &link,
                    rustix::fs::CWD,
                    &directory,
                    RenameFlags::EXCHANGE,
                )
                .unwrap();
            }
        });
        for _ in 0..300 {
            fixture.watch.again();
            fixture.work();
        }
        stop.store(true, Ordering::Relaxed);
    });
    fixture.watch.again();
    fixture.told();
    // The system knows what is watched: nothing of it lies outside.
    let watched = fs::read_to_string(format!(
        "/proc/self/fdinfo/{}",
        std::os::fd::AsRawFd::as_raw_fd(&fixture.watch.inotify)
    ));
    let watched = watched.unwrap();
    for name in ["", "secret", "secret/deep"] {
        let inode = std::os::unix::fs::MetadataExt::ino(&fs::metadata(outside.path().join(name)).unwrap());
        assert!(
            !watched.contains(&format!(" ino:{inode:x} ")),
            "{name} is watched:\n{watched}"
        );
    }
    assert_eq!(fixture.watch.directories(), 4, "root, the directory and what is in it");
    fs::write(outside.path().join("secret/x"), b"").unwrap();
    assert_eq!(fixture.told(), []);
}

// Protects changes while nobody reads: everything is dirty, and what appeared meanwhile is watched after that.
#[test]
fn lost_events_make_everything_dirty_and_the_tree_is_walked_again() {
    let mut fixture = Fixture::new(&["a", "b/c"]);
    let most: usize = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events")
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    fs::write(fixture.at("a/one"), b"").unwrap();
    fs::write(fixture.at("a/two"), b"").unwrap();
    // Different from the one before, or the system joins them.
    for _ in 0..=most / 2 {
        fs::set_permissions(fixture.at("a/one"), fs::Permissions::from_mode(0o600)).unwrap();
        fs::set_permissions(fixture.at("a/two"), fs::Permissions::from_mode(0o600)).unwrap();
    }
    fs::create_dir_all(fixture.at("new/deep")).unwrap();
    fs::rename(fixture.at("b/c"), fixture.at("a/c")).unwrap();
    fs::rename(fixture.at("b"), fixture.dir.path().join("b")).unwrap();
    fixture.wait_for(&ALL);
    assert!(fixture.told().contains(&tree("new/deep")));
    fixture.notices_in("new/deep");
    fixture.notices_in("a/c");
    assert_eq!(fixture.watch.directories(), 5, "root, a, a/c, new, new/deep");
}

// Protects memory: a storm of 10,000 files is told by events and settles to a few places.
#[test]
fn a_storm_of_files_settles_to_few_places() {
    use crate::model::Tick;
    use crate::store::Settle;
    let mut fixture = Fixture::new(&["d"]);
    let mut settle = Settle::new();
    for number in 0..10_000 {
        fs::write(fixture.at(&format!("d/{number}")), b"").unwrap();
        if number % 100 == 0 {
            fixture.work();
            fixture.told.drain(..).for_each(|notice| settle.note(Tick(0), notice));
        }
    }
    fixture
        .told()
        .into_iter()
        .for_each(|notice| settle.note(Tick(0), notice));
    assert_eq!(settle.len(), 10_000);
    // Twice as many again, and the directory stands for them all.
    for number in 0..20_000 {
        settle.note(Tick(1), changed(&format!("d/x{number}")));
    }
    assert_eq!(settle.len(), 1);
    let ripe = std::iter::from_fn(|| settle.poll_ripe(Tick(2_000)));
    assert_eq!(ripe.collect::<Vec<_>>(), [Dirt::Tree(path("d"))]);
}

// Protects from deleting everything elsewhere because a folder is gone: that is told as what it is.
#[test]
fn row_18_a_root_that_is_removed_or_moved_is_gone() {
    let mut fixture = Fixture::new(&["a"]);
    fs::remove_dir_all(fixture.at("")).unwrap();
    fixture.wait_for(&Notice::RootGone);
    assert!(fixture.watch.is_gone());

    let mut fixture = Fixture::new(&[]);
    fs::remove_dir(fixture.at("")).unwrap();
    fixture.wait_for(&Notice::RootGone);

    let mut fixture = Fixture::new(&["a"]);
    fs::rename(fixture.at(""), fixture.dir.path().join("elsewhere")).unwrap();
    fixture.wait_for(&Notice::RootGone);
    let told = fixture.told.len();
    fs::write(fixture.dir.path().join("elsewhere/a/x"), b"").unwrap();
    fixture.work();
    assert_eq!(fixture.told.len(), told, "nothing is told of it any more");

    // Another directory above going away is none of it.
    let mut fixture = Fixture::new(&["a"]);
    fs::create_dir(fixture.dir.path().join("beside")).unwrap();
    fs::remove_dir(fixture.dir.path().join("beside")).unwrap();
    fixture.notices_in("a");
    assert!(!fixture.watch.is_gone());
}

// Protects from believing that all is noticed: what is beyond the limit is named, with what to do about it, and
// watched as soon as there is room.
#[test]
fn a_tree_beyond_the_limit_says_so_and_recovers() {
    let mut fixture = Fixture::with(&["a", "b", "c/d"], &WatchOptions { watches_max: 3 });
    assert_eq!(fixture.watch.directories(), 3);
    let unwatched = fixture.watch.unwatched().unwrap().clone();
    assert_eq!(unwatched.why(), Shortage::Bound(3));
    assert!(
        (1..=2).contains(&unwatched.directories()),
        "a or b; or c, or d in it, and one of them"
    );
    fs::create_dir(fixture.at("new")).unwrap();
    assert!(fixture.told().contains(&tree("new")), "it is surveyed at least once");
    assert_eq!(
        fixture.watch.unwatched().unwrap().directories(),
        unwatched.directories() + 1
    );
    fixture.watch.watches_max = 100;
    fixture.watch.again();
    fixture.told();
    assert_eq!(fixture.watch.unwatched(), None);
    for name in ["a", "b", "c/d", "new"] {
        fixture.notices_in(name);
    }
}

/// Set in the process that runs under a lower limit.
const LIMITED: &str = "SYNCLINE_TEST_LIMITED";

// The same with the system's own limit, in a user namespace where it may be lowered.
#[test]
fn the_systems_limit_names_the_setting_to_raise() {
    if std::env::var_os(LIMITED).is_some() {
        let fixture = Fixture::new(&["a", "b", "c", "d/e"]);
        let unwatched = fixture.watch.unwatched().unwrap();
        assert_eq!(unwatched.why(), Shortage::Watches);
        let text = unwatched.to_string();
        assert!(text.contains("user.max_inotify_watches is 4)"), "{text}");
        assert!(
            text.ends_with("raise the limit with \"sudo sysctl user.max_inotify_watches=524288\""),
            "{text}"
        );
        let error = Watch::open(&fixture.watch.root, &WatchOptions::default()).unwrap_err();
        assert!(error.to_string().contains("user.max_inotify_instances"), "{error}");
        return;
    }
    // The watch of the directory above counts, too.
    let script = "echo 4 > /proc/sys/user/max_inotify_watches && echo 1 > /proc/sys/user/max_inotify_instances \
                  || exit 77; exec \"$0\" --exact \"$1\" --nocapture";
    let name = std::thread::current().name().unwrap().to_owned();
    let limited = Command::new("unshare")
        .args(["--user", "--map-root-user", "sh", "-c", script])
        .arg(std::env::current_exe().unwrap())
        .arg(name)
        .env(LIMITED, "1")
        .output();
    match limited {
        Ok(output) if output.status.success() => {
            assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"));
        }
        Ok(output) if output.status.code() == Some(101) => panic!("{}", String::from_utf8_lossy(&output.stderr)),
        _ => eprintln!("skipped: no user namespace with a limit of its own can be made here"),
    }
}

// Protects permissions: what may not be read is said, and watched once it may be.
#[test]
fn a_directory_that_becomes_readable_is_watched() {
    if rustix::process::geteuid().is_root() {
        eprintln!("skipped: nothing is unreadable to root");
        return;
    }
    let mut fixture = Fixture::new(&["d/e"]);
    fs::create_dir(fixture.at("shut")).unwrap();
    fs::set_permissions(fixture.at("shut"), fs::Permissions::from_mode(0o0)).unwrap();
    fixture.watch.again();
    fixture.told();
    fs::set_permissions(fixture.at("shut"), fs::Permissions::from_mode(0o755)).unwrap();
    fixture.told();
    fixture.notices_in("shut");
}
