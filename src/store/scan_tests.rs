//! Tests of `Scan`: what is told and in which order, and trees that are made to hurt.

use super::*;
use rustix::fs::{CWD, Mode, mkdirat, mknodat, openat};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::Path;

fn rel(path: &str) -> RelPath {
    RelPath::parse(path.as_bytes()).unwrap()
}

/// Walks to the end in steps of `max`.
fn walk(dir: &Path, start: Option<&str>, max: usize, keep: Filter<'_>) -> (Vec<ScanItem>, bool) {
    let root = Root::open(dir).unwrap();
    let mut scan = root.scan(start.map(rel).as_ref());
    let mut items = Vec::new();
    loop {
        let before = items.len();
        let more = scan.step(&root, &mut *keep, max, &mut items);
        assert!(items.len() - before <= max + 1, "a step is bounded");
        assert!(scan.levels.iter().filter(|level| level.directory.is_some()).count() <= 256);
        if !more {
            return (items, scan.complete());
        }
    }
}

fn walk_all(dir: &Path) -> (Vec<ScanItem>, bool) {
    walk(dir, None, 3, &mut |_, _| Keep::Yes)
}

/// One line per item.
fn lines(items: &[ScanItem]) -> Vec<String> {
    items
        .iter()
        .map(|item| match item {
            ScanItem::Entry(entry, _) => match &entry.kind {
                Kind::File { size } => format!("{} {size}", entry.path),
                Kind::Directory => format!("{}/", entry.path),
                Kind::Symlink { target } => format!("{} -> {}", entry.path, target.escape_ascii()),
            },
            ScanItem::Special(path) => format!("{path} special"),
            ScanItem::Failed(error) => {
                format!("{} {:?}", error.path().escape_ascii(), error.code())
            }
        })
        .collect()
}

#[test]
fn a_tree_is_told_in_order_and_directories_before_their_content() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("b/empty")).unwrap();
    fs::write(dir.path().join("b/z"), b"four").unwrap();
    fs::write(dir.path().join("c"), b"").unwrap();
    fs::write(dir.path().join("a\nnew"), b"12").unwrap();
    fs::write(dir.path().join(OsStr::from_bytes(b"\xff\xfe")), b"1").unwrap();
    symlink("/etc/\n", dir.path().join("b/link")).unwrap();
    mknodat(CWD, dir.path().join("b/pipe"), FileType::Fifo, Mode::RWXU, 0).unwrap();
    for reserved in [".syncline", "b/.SyncLine"] {
        fs::create_dir(dir.path().join(reserved)).unwrap();
        fs::write(dir.path().join(reserved).join("inside"), b"x").unwrap();
    }
    let (items, complete) = walk_all(dir.path());
    let want = [
        "a\\nnew 2",
        "b/",
        "b/empty/",
        "b/link -> /etc/\\n",
        "b/pipe special",
        "b/z 4",
        "c 0",
        "\\xff\\xfe 1",
    ];
    assert_eq!(lines(&items), want);
    assert!(complete);
}

#[test]
fn the_same_is_told_whatever_the_size_of_the_steps() {
    let dir = tempfile::tempdir().unwrap();
    for number in 0..40 {
        let inner = dir.path().join(format!("{}/{number}", number % 7));
        fs::create_dir_all(&inner).unwrap();
        fs::write(inner.join("f"), b"x").unwrap();
    }
    let whole = lines(&walk(dir.path(), None, 100_000, &mut |_, _| Keep::Yes).0);
    assert_eq!(whole.len(), 87);
    for max in [1, 2, 7] {
        assert_eq!(lines(&walk(dir.path(), None, max, &mut |_, _| Keep::Yes).0), whole);
    }
}

#[test]
fn a_start_is_told_itself_whatever_it_is() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("a/b")).unwrap();
    fs::write(dir.path().join("a/b/f"), b"x").unwrap();
    symlink("b", dir.path().join("a/link")).unwrap();
    let told = |start: &str| {
        let (items, complete) = walk(dir.path(), Some(start), 10, &mut |_, _| Keep::Yes);
        (lines(&items), complete)
    };
    assert_eq!(told("a/b/f"), (vec!["a/b/f 1".to_owned()], true));
    assert_eq!(told("a/link"), (vec!["a/link -> b".to_owned()], true));
    assert_eq!(told("a/b"), (vec!["a/b/".to_owned(), "a/b/f 1".to_owned()], true));
    assert_eq!(told("a/none"), (vec!["a/none Vanished".to_owned()], false));
    assert_eq!(told("a/link/f"), (vec!["a/link/f Escapes".to_owned()], false));
}

#[test]
fn what_the_filter_leaves_out_is_not_entered() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("skip/inner")).unwrap();
    fs::create_dir_all(dir.path().join("keep/inner")).unwrap();
    fs::write(dir.path().join("keep/f.tmp"), b"x").unwrap();
    let mut asked = Vec::new();
    let (items, complete) = walk(dir.path(), None, 10, &mut |path, shape| {
        asked.push((path.to_string(), shape));
        let left_out = path.name() == b"skip" || path.name().ends_with(b".tmp");
        if left_out { Keep::No } else { Keep::Yes }
    });
    assert_eq!(lines(&items), ["keep/", "keep/inner/"]);
    assert!(complete);
    let want = [
        ("keep", Shape::Directory),
        ("keep/f.tmp", Shape::Other),
        ("keep/inner", Shape::Directory),
    ];
    assert_eq!(asked[..3], want.map(|(path, shape)| (path.to_owned(), shape)));
    assert_eq!(asked.len(), 4);
}

/// Row 9 of the threats: 10,000 levels are one failure, and memory and descriptors stay bounded.
#[test]
fn a_tree_of_ten_thousand_levels_is_one_failure() {
    // In memory where there is such a place: a disk takes seconds for so many directories.
    let dir = tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .unwrap();
    let mut here = OwnedFd::from(fs::File::open(dir.path()).unwrap());
    for _ in 0..10_000 {
        mkdirat(&here, "d", Mode::RWXU).unwrap();
        here = openat(&here, "d", OFlags::PATH, Mode::empty()).unwrap();
    }
    drop(here);
    let (items, complete) = walk_all(dir.path());
    assert_eq!(items.len(), 257);
    assert!(!complete);
    let ScanItem::Failed(error) = &items[256] else {
        panic!("{:?}", items[256])
    };
    assert_eq!(error.code(), ItemCode::BadPath);
    assert_eq!(error.path().len(), 2 * 257 - 1);
    // The standard library's removal recurses, which so deep a tree does not survive: each level is
    // pulled up in the place of the one above it.
    let top = dir.path();
    while fs::rename(top.join("d/d"), top.join("next")).is_ok() {
        fs::remove_dir(top.join("d")).unwrap();
        fs::rename(top.join("next"), top.join("d")).unwrap();
    }
}

/// Descriptors of outer directories are closed on the way down; the walk comes back to them.
#[test]
fn a_deep_walk_holds_few_descriptors_and_still_returns() {
    let dir = tempfile::tempdir().unwrap();
    let mut path = dir.path().to_path_buf();
    for _ in 0..60 {
        path.push("d");
        fs::create_dir(&path).unwrap();
        fs::write(path.with_file_name("z"), b"x").unwrap();
    }
    let root = Root::open(dir.path()).unwrap();
    let mut scan = root.scan(None);
    let mut items = Vec::new();
    while scan.step(&root, &mut |_, _| Keep::Yes, 1, &mut items) {
        let open = scan.levels.iter().filter(|level| level.directory.is_some()).count();
        assert!(
            open <= OPEN_LEVELS + scan.levels.len().min(OPEN_LEVELS),
            "{open} descriptors"
        );
    }
    assert!(scan.complete());
    assert_eq!(items.len(), 120);
}

/// Tens of thousands of files are nothing that a disk has to see.
const MEMORY: &str = "/dev/shm";

#[test]
fn a_directory_of_more_names_than_a_chunk_is_told_once_and_whole() {
    let dir = tempfile::tempdir_in(MEMORY).or_else(|_| tempfile::tempdir()).unwrap();
    let parent = fs::File::open(dir.path()).unwrap();
    let count = 2 * CHUNK_NAMES_MAX + 77;
    for number in 0..count {
        make_file(&parent, &format!("{number:05}"));
    }
    let root = Root::open(dir.path()).unwrap();
    let mut scan = root.scan(None);
    let mut items = Vec::new();
    while scan.step(&root, &mut |_, _| Keep::Yes, 500, &mut items) {
        assert!(scan.levels.iter().all(|level| level.names.len() <= CHUNK_NAMES_MAX));
    }
    let mut names = lines(&items);
    names.sort();
    names.dedup();
    assert_eq!(names.len(), count);
}

fn make_file(parent: &fs::File, name: &str) {
    openat(parent, name, OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL, Mode::RUSR).unwrap();
}

/// Row 4 of the threats: a directory that becomes a link between the listing and the look is a link.
#[test]
fn a_directory_swapped_for_a_link_is_told_as_a_link_and_not_entered() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("a")).unwrap();
    let mut asked = Vec::new();
    let (items, _) = walk(dir.path(), None, 10, &mut |_, shape| {
        if asked.is_empty() {
            fs::remove_dir(dir.path().join("a")).unwrap();
            symlink("/etc", dir.path().join("a")).unwrap();
        }
        asked.push(shape);
        Keep::Yes
    });
    assert_eq!(lines(&items), ["a -> /etc"]);
    assert_eq!(
        asked,
        [Shape::Directory, Shape::Other],
        "the filter is asked again for what it really is"
    );
}

/// Row 18: what cannot be read is told once, and the scan does not claim to be complete. Root may list
/// anything, so the failure is made: outer directories are swapped for a link while the walk is deep
/// inside, with their descriptors closed.
#[test]
fn a_directory_that_cannot_be_read_makes_the_scan_incomplete() {
    let dir = tempfile::tempdir().unwrap();
    let canary = tempfile::tempdir().unwrap();
    let mut path = dir.path().to_path_buf();
    for _ in 0..20 {
        path.push("d");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("y"), b"x").unwrap();
        fs::write(path.join("z"), b"x").unwrap();
        fs::write(canary.path().join("y"), b"canary").unwrap();
    }
    let mut swaps = 0;
    let (items, complete) = walk(dir.path(), None, 10, &mut |path, _| {
        if path.components().count() == 21 && swaps == 0 {
            swaps += 1;
            fs::rename(dir.path().join("d"), dir.path().join("moved")).unwrap();
            symlink(canary.path(), dir.path().join("d")).unwrap();
        }
        Keep::Yes
    });
    assert!(!complete);
    let failed: Vec<String> = lines(&items)
        .into_iter()
        .filter(|line| line.ends_with(" Escapes"))
        .collect();
    assert_eq!(failed, ["d/d/d/d Escapes", "d/d/d Escapes", "d/d Escapes", "d Escapes"]);
    assert_eq!(items.len(), 20 + 2 * 16 + 4);
}

/// Row 18: a root that was removed looks empty to the kernel, and nothing may be deleted for that.
#[test]
fn a_start_that_is_gone_makes_the_scan_incomplete() {
    let dir = tempfile::tempdir().unwrap();
    let top = dir.path().join("top");
    fs::create_dir(&top).unwrap();
    let root = Root::open(&top).unwrap();
    assert!(!root.is_gone().unwrap());
    fs::remove_dir(&top).unwrap();
    assert!(root.is_gone().unwrap());
    let (mut scan, mut items) = (root.scan(None), Vec::new());
    while scan.step(&root, &mut |_, _| Keep::Yes, 10, &mut items) {}
    assert!(!scan.complete());
    assert_eq!(lines(&items), [". Vanished"]);
}
