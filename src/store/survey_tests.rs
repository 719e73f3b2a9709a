//! Tests of `Survey`: single differences, what must not be taken for gone, and random trees.

use super::*;
use crate::model::{Meta, Revision, Timestamp};
use crate::store::index::{Batch, Index, IndexOptions};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use tempfile::TempDir;

fn rel(path: &str) -> RelPath {
    RelPath::parse(path.as_bytes()).unwrap()
}

/// A folder with its index.
struct Folder {
    dir: TempDir,
    root: Root,
    index: Index,
}

/// What a survey said.
struct Told {
    differences: Vec<Difference>,
    complete: bool,
    seen: u64,
}

impl Folder {
    fn new() -> Folder {
        let dir = tempfile::tempdir_in("/dev/shm")
            .or_else(|_| tempfile::tempdir())
            .unwrap();
        let root = Root::open(dir.path()).unwrap();
        let index = Index::open(&root, IndexOptions::default()).unwrap().index;
        Folder { dir, root, index }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn survey(&self, start: Option<&str>, max: usize, keep: Filter<'_>) -> Told {
        let mut survey = Survey::new(start.map(rel));
        let mut differences = Vec::new();
        loop {
            let before = differences.len();
            let snapshot = self.index.snapshot().unwrap();
            let more = survey
                .step(&self.root, &snapshot, &mut *keep, max, &mut differences)
                .unwrap();
            assert!(differences.len() - before <= max, "a step is bounded");
            if !more {
                break;
            }
        }
        Told {
            differences,
            complete: survey.complete(),
            seen: survey.seen(),
        }
    }

    /// As lines: `+ path` has no record, `* path` is not as recorded, `- path` is gone.
    fn told(&self, start: Option<&str>) -> Vec<String> {
        let told = self.survey(start, 3, &mut |_, _| Keep::Yes);
        assert!(told.complete);
        lines(&told.differences)
    }

    /// Takes what is on the disk into the index.
    fn agree(&self) {
        let told = self.survey(None, 1_000, &mut |_, _| Keep::Yes);
        assert!(told.complete);
        let mut revision = self.index.revision();
        let mut batch = Batch::new();
        for difference in told.differences {
            revision = revision.next();
            let (path, record) = match difference {
                Difference::Changed { entry, identity, .. } => {
                    let record = Record {
                        state: Some(State::of(&entry)),
                        revision,
                        author: None,
                        identity: Some(identity),
                        at: entry.meta.mtime,
                    };
                    (entry.path, record)
                }
                Difference::Gone { path, record } => {
                    let record = Record {
                        state: None,
                        identity: None,
                        revision,
                        ..record
                    };
                    (path, record)
                }
                Difference::Special(_) => continue,
                Difference::Failed(error) => panic!("{error}"),
            };
            batch.put(&path, &record);
        }
        self.index.write(&batch).unwrap();
    }
}

fn lines(differences: &[Difference]) -> Vec<String> {
    let line = |difference: &Difference| match difference {
        Difference::Changed { entry, record, .. } => match record {
            Some(record) if record.is_live() => format!("* {}", entry.path),
            _ => format!("+ {}", entry.path),
        },
        Difference::Gone { path, .. } => format!("- {path}"),
        Difference::Special(path) => format!("? {path}"),
        Difference::Failed(error) => format!("! {}", error.path().escape_ascii()),
    };
    differences.iter().map(line).collect()
}

fn set_mtime(path: &Path, seconds: u64) {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    File::open(path).unwrap().set_modified(time).unwrap();
}

/// A file with this content, of this age.
fn write(path: &Path, content: &str, mtime: u64) {
    fs::write(path, content).unwrap();
    set_mtime(path, mtime);
}

const NONE: [String; 0] = [];

#[test]
fn a_folder_that_is_as_its_index_says_has_no_difference() {
    let folder = Folder::new();
    fs::create_dir_all(folder.path("b/c")).unwrap();
    write(&folder.path("b/c/f"), "1", 5);
    symlink("nowhere", folder.path("a")).unwrap();
    write(&folder.path("b.txt"), "2", 5);
    assert_eq!(folder.told(None), ["+ a", "+ b", "+ b/c", "+ b/c/f", "+ b.txt"]);
    folder.agree();
    assert_eq!(folder.told(None), NONE);
    assert_eq!(folder.survey(None, 2, &mut |_, _| Keep::Yes).seen, 5);
    assert_eq!(folder.told(Some("b")), NONE);
    assert_eq!(folder.told(Some("b/c/f")), NONE);
    assert_eq!(folder.told(Some("none")), NONE);
}

#[test]
fn each_thing_that_counts_is_a_difference_and_nothing_else_is() {
    let folder = Folder::new();
    for name in ["size", "mtime", "mode", "inode", "same", "ctime"] {
        write(&folder.path(name), "1", 5);
    }
    symlink("x", folder.path("link")).unwrap();
    for name in ["dir", "dir-mode"] {
        fs::create_dir(folder.path(name)).unwrap();
    }
    folder.agree();
    write(&folder.path("size"), "12", 5);
    set_mtime(&folder.path("mtime"), 6);
    fs::set_permissions(folder.path("mode"), fs::Permissions::from_mode(0o600)).unwrap();
    write(&folder.path("new"), "1", 5);
    fs::rename(folder.path("new"), folder.path("inode")).unwrap();
    fs::hard_link(folder.path("ctime"), folder.path("other")).unwrap();
    fs::remove_file(folder.path("other")).unwrap();
    fs::remove_file(folder.path("link")).unwrap();
    symlink("y", folder.path("link")).unwrap();
    set_mtime(&folder.path("dir"), 99);
    fs::set_permissions(folder.path("dir-mode"), fs::Permissions::from_mode(0o700)).unwrap();
    let want = ["* dir-mode", "* inode", "* link", "* mode", "* mtime", "* size"];
    assert_eq!(folder.told(None), want);
    folder.agree();
    assert_eq!(folder.told(None), NONE);
}

/// A file system that keeps whole seconds gives back another time than was agreed; that is no edit.
#[test]
fn the_time_that_the_disk_gave_back_counts() {
    let folder = Folder::new();
    write(&folder.path("f"), "1", 5);
    let told = folder.survey(None, 9, &mut |_, _| Keep::Yes).differences;
    let [Difference::Changed { entry, identity, .. }] = &told[..] else {
        panic!("{told:?}")
    };
    let mtime = Timestamp { seconds: 5, nanos: 70 };
    let meta = Meta { mtime, ..entry.meta };
    let record = |identity| Record {
        state: Some(State {
            meta,
            ..State::of(entry)
        }),
        revision: Revision(1),
        author: None,
        identity,
        at: mtime,
    };
    for (identity, want) in [(Some(*identity), None), (None, Some("* f".to_owned()))] {
        let mut batch = Batch::new();
        batch.put(&rel("f"), &record(identity));
        folder.index.write(&batch).unwrap();
        assert_eq!(folder.told(None), Vec::from_iter(want));
    }
}

#[test]
fn kinds_that_change_are_told_with_what_was_in_them() {
    let folder = Folder::new();
    fs::create_dir(folder.path("d")).unwrap();
    write(&folder.path("d/x"), "1", 5);
    write(&folder.path("f"), "1", 5);
    write(&folder.path("p"), "1", 5);
    folder.agree();
    fs::remove_dir_all(folder.path("d")).unwrap();
    write(&folder.path("d"), "1", 5);
    fs::remove_file(folder.path("f")).unwrap();
    fs::create_dir(folder.path("f")).unwrap();
    write(&folder.path("f/y"), "1", 5);
    fs::remove_file(folder.path("p")).unwrap();
    mknodat(CWD, folder.path("p"), FileType::Fifo, Mode::RWXU, 0).unwrap();
    assert_eq!(folder.told(None), ["* d", "- d/x", "* f", "+ f/y", "? p", "- p"]);
    folder.agree();
    assert_eq!(folder.told(None), ["? p"], "what is a tombstone is not gone again");
    // Watched paths of things that are gone, with what they were in.
    assert_eq!(folder.told(Some("d/x")), NONE);
    fs::remove_dir_all(folder.path("f")).unwrap();
    assert_eq!(folder.told(Some("f")), ["- f", "- f/y"]);
    assert_eq!(folder.told(Some("f/y")), ["- f/y"]);
    symlink("/etc", folder.path("f")).unwrap();
    assert_eq!(folder.told(Some("f/y")), ["- f/y"]);
    assert_eq!(folder.told(Some("f")), ["* f", "- f/y"]);
}

#[test]
fn what_the_filter_leaves_out_is_neither_changed_nor_gone() {
    let folder = Folder::new();
    for dir in ["in", "out", "out/deep"] {
        fs::create_dir(folder.path(dir)).unwrap();
    }
    for file in ["in/x", "in/y.tmp", "out/x", "out/deep/x", "z"] {
        write(&folder.path(file), "1", 5);
    }
    folder.agree();
    let mut keep = |path: &RelPath, _: Shape| {
        let out = path.as_bytes() == b"out" || path.name().ends_with(b".tmp");
        if out { Keep::No } else { Keep::Yes }
    };
    let mut told = |start: Option<&str>| {
        let told = folder.survey(start, 2, &mut keep);
        assert!(told.complete);
        lines(&told.differences)
    };
    assert_eq!(told(None), NONE);
    write(&folder.path("in/y.tmp"), "changed", 7);
    write(&folder.path("out/x"), "changed", 7);
    assert_eq!(told(Some("out/x")), NONE);
    for path in ["out", "in"] {
        fs::remove_dir_all(folder.path(path)).unwrap();
    }
    assert_eq!(told(None), ["- in", "- in/x"]);
    assert_eq!(told(Some("out")), NONE);
    assert_eq!(told(Some("out/deep")), NONE);
    assert_eq!(told(Some("in/y.tmp")), NONE);
}

/// Row 18 of the threats: beneath what cannot be read nothing is gone, and beside it what is gone is.
/// Root may list anything, so the failure is made as in the tests of the scan.
#[test]
fn beneath_a_failure_nothing_is_gone() {
    let folder = Folder::new();
    let mut deep = folder.path("m");
    for _ in 0..20 {
        fs::create_dir(&deep).unwrap();
        write(&deep.join("y"), "1", 5);
        write(&deep.join("z"), "1", 5);
        deep.push("m");
    }
    write(&folder.path("a"), "1", 5);
    write(&folder.path("z"), "1", 5);
    folder.agree();
    fs::remove_file(folder.path("a")).unwrap();
    fs::remove_file(folder.path("z")).unwrap();
    let mut swapped = false;
    let told = folder.survey(None, 1, &mut |path, _| {
        if path.components().count() == 21 && !swapped {
            swapped = true;
            fs::rename(folder.path("m"), folder.path("n")).unwrap();
            symlink("/etc", folder.path("m")).unwrap();
        }
        Keep::Yes
    });
    assert!(swapped && !told.complete);
    let lines = lines(&told.differences);
    let want = ["- a", "! m/m/m/m", "! m/m/m", "! m/m", "! m", "- z"];
    assert_eq!(lines, want);
}

/// Row 18: a root that was removed holds nothing, and nothing is gone.
#[test]
fn in_a_root_that_is_gone_nothing_is_gone() {
    let folder = Folder::new();
    write(&folder.path("f"), "1", 5);
    folder.agree();
    let top = folder.path("top");
    fs::create_dir(&top).unwrap();
    let root = Root::open(&top).unwrap();
    fs::remove_dir(&top).unwrap();
    let mut survey = Survey::new(None);
    let mut differences = Vec::new();
    let snapshot = folder.index.snapshot().unwrap();
    while survey
        .step(&root, &snapshot, &mut |_, _| Keep::Yes, 10, &mut differences)
        .unwrap()
    {}
    assert!(!survey.complete());
    assert_eq!(lines(&differences), ["! ."]);
}

/// A directory that took the place of another is looked into, and not the one that was there before.
// Records that are newer than the listing: a deletion that is told would be one on all devices.
#[test]
fn what_came_since_the_listing_is_not_gone() {
    let folder = Folder::new();
    (0..5).for_each(|number| write(&folder.path(&format!("a{number}")), "a", 1));
    let mut survey = Survey::new(None);
    let mut differences = Vec::new();
    let mut step = |differences: &mut Vec<Difference>| {
        let snapshot = folder.index.snapshot().unwrap();
        survey
            .step(&folder.root, &snapshot, &mut |_, _| Keep::Yes, 2, differences)
            .unwrap()
    };
    while differences.is_empty() {
        assert!(step(&mut differences));
    }
    (0..5).for_each(|number| write(&folder.path(&format!("b{number}")), "b", 1));
    folder.agree();
    fs::remove_file(folder.path("b3")).unwrap();
    differences.clear();
    while step(&mut differences) {}
    assert_eq!(lines(&differences), ["- b3"]);
}

#[test]
fn a_start_is_looked_for_where_it_is_now() {
    let folder = Folder::new();
    let make = || {
        fs::create_dir(folder.path("d")).unwrap();
        write(&folder.path("d/f"), "1", 5);
    };
    make();
    folder.agree();
    // The root holds the parent open from here on.
    assert_eq!(folder.told(Some("d/f")), NONE);
    fs::remove_dir_all(folder.path("d")).unwrap();
    make();
    assert_eq!(folder.told(Some("d/f")), ["* d/f"]);
}

/// One directory of many runs of names, with a gap here and there.
#[test]
fn a_directory_of_many_names_is_compared_as_a_whole() {
    let folder = Folder::new();
    for number in 0..40_000 {
        File::create(folder.path(&format!("{:x}", number * 7919 % 1_000_003))).unwrap();
    }
    folder.agree();
    assert_eq!(folder.told(None), NONE);
    let mut want = Vec::new();
    for number in (0..40_000).step_by(997) {
        let name = format!("{:x}", number * 7919 % 1_000_003);
        fs::remove_file(folder.path(&name)).unwrap();
        want.push(format!("- {name}"));
    }
    want.sort();
    assert_eq!(folder.told(None), want);
}

/// What a naive listing knows of an entry.
#[derive(Debug, Clone, PartialEq)]
enum Plain {
    File {
        size: u64,
        mtime: i64,
        mode: u32,
        inode: u64,
    },
    Directory {
        mode: u32,
        inode: u64,
    },
    Link {
        target: PathBuf,
        times: (i64, i64),
    },
}

type Listing = BTreeMap<Vec<u8>, Plain>;

fn list(top: &Path, below: &str, listing: &mut Listing) {
    for entry in fs::read_dir(top.join(below)).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name == ".syncline" {
            continue;
        }
        let path = if below.is_empty() {
            name
        } else {
            format!("{below}/{name}")
        };
        let found = fs::symlink_metadata(top.join(&path)).unwrap();
        let mode = found.mode() & 0o777;
        let plain = if found.is_dir() {
            list(top, &path, listing);
            let inode = found.ino();
            Plain::Directory { mode, inode }
        } else if found.is_symlink() {
            let target = fs::read_link(top.join(&path)).unwrap();
            let times = (found.mtime(), found.mtime_nsec());
            Plain::Link { target, times }
        } else {
            let (size, mtime, inode) = (found.size(), found.mtime(), found.ino());
            Plain::File {
                size,
                mtime,
                mode,
                inode,
            }
        };
        listing.insert(key_of(&rel(&path)), plain);
    }
}

/// Whether a path is beneath `start` and the model's filter takes it: nothing called `e`, no file `d`.
fn counts(key: &[u8], plain: &Plain, start: Option<&str>) -> bool {
    let beneath = start.is_none_or(|start| is_in(key, &key_of(&rel(start))));
    let last = key.rsplit(|byte| *byte == 0).next().unwrap();
    let is_directory = matches!(plain, Plain::Directory { .. });
    beneath && !key.split(|byte| *byte == 0).any(|name| name == b"e") && (is_directory || last != b"d")
}

fn model_keep(path: &RelPath, shape: Shape) -> Keep {
    match (path.name(), shape) {
        (b"e", _) | (b"d", Shape::Other) => Keep::No,
        _ => Keep::Yes,
    }
}

fn expected(was: &Listing, is: &Listing, start: Option<&str>) -> Vec<String> {
    let mut lines = BTreeMap::new();
    let show = |key: &[u8]| path_of(key).unwrap().to_string();
    for (key, plain) in is.iter().filter(|(key, plain)| counts(key, plain, start)) {
        match was.get(key) {
            Some(old) if old == plain => {}
            Some(_) => drop(lines.insert(key, format!("* {}", show(key)))),
            None => drop(lines.insert(key, format!("+ {}", show(key)))),
        }
    }
    for (key, plain) in was.iter().filter(|(key, plain)| counts(key, plain, start)) {
        // Something that the filter leaves out may stand in the place of what is gone.
        if is.get(key).is_none_or(|plain| !counts(key, plain, start)) && counts(key, plain, start) {
            lines.insert(key, format!("- {}", show(key)));
        }
    }
    lines.into_values().collect()
}

struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % end
    }

    /// Names that meet in all ways: prefixes of each other, and bytes around the slash.
    fn path(&mut self) -> String {
        const NAMES: [&str; 8] = ["a", "a.b", "a b", "ab", "b", "d", "e", "a\u{1}"];
        let depth = 1 + self.below(4);
        let names: Vec<&str> = (0..depth).map(|_| NAMES[self.below(8) as usize]).collect();
        names.join("/")
    }
}

/// One random edit; those that are impossible as things stand do nothing.
fn edit(top: &Path, random: &mut Random) {
    let path = top.join(random.path());
    let other = top.join(random.path());
    match random.below(10) {
        0 | 1 => drop(fs::create_dir_all(&path)),
        2..=4 => {
            if fs::write(&path, "x".repeat(random.below(4) as usize)).is_ok() {
                set_mtime(&path, random.below(3));
            }
        }
        5 => drop(symlink(random.path(), &path)),
        6 => drop(fs::rename(&path, &other)),
        7 => drop(fs::hard_link(&path, &other)),
        8 => {
            if !path.is_symlink() {
                let mode = 0o700 + random.below(2) as u32 * 0o55;
                let _ = fs::set_permissions(&path, fs::Permissions::from_mode(mode));
            }
        }
        _ => {
            let _ = fs::remove_file(&path);
            let _ = fs::remove_dir_all(&path);
        }
    }
}

/// The survey says what a comparison of two naive listings says, whatever happened in between.
#[test]
fn random_trees_differ_where_a_naive_model_says() {
    let seed = std::env::var("SYNCLINE_SEED").map_or_else(
        |_| getrandom::u64().unwrap(),
        |seed| seed.parse().expect("SYNCLINE_SEED is a number"),
    );
    eprintln!("SYNCLINE_SEED={seed}");
    let mut random = Random(seed | 1);
    for round in 0..40 {
        let folder = Folder::new();
        let top = folder.dir.path();
        let mut agreed = Listing::new();
        for _ in 0..6 {
            for _ in 0..random.below(60) {
                edit(top, &mut random);
            }
            let mut now = Listing::new();
            list(top, "", &mut now);
            let start = (random.below(2) == 0).then(|| random.path());
            for start in [None, start.as_deref()] {
                let max = 1 + random.below(20) as usize;
                let told = folder.survey(start, max, &mut model_keep);
                assert!(told.complete);
                let want = expected(&agreed, &now, start);
                assert_eq!(lines(&told.differences), want, "round {round}, {start:?}");
            }
            folder.agree();
            agreed = now;
        }
    }
}
