//! Tests of `publish`: each way in which a name can be taken, and that nothing is ever lost by it.

use super::*;
use crate::model::{Meta, Timestamp};
use crate::store::staged::names_another_inode;
use crate::store::{Author, Room, Staging, Versions, versions_of};
use rustix::fs::CWD;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

const META: Meta = Meta {
    mode: 0o640,
    mtime: Timestamp {
        seconds: 1_234_567_890,
        nanos: 42,
    },
};

struct Bench {
    dir: tempfile::TempDir,
    root: Root,
    staging: Staging,
}

impl Bench {
    fn new() -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        let staging = Staging::new(&root);
        Bench { dir, root, staging }
    }

    fn at(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    fn sealed(&self, name: &str, content: &[u8]) -> Sealed {
        let staged = self.staging.create(&rel(name), Room::Sparse).unwrap();
        staged.write_at(0, content).unwrap();
        staged.seal(&META, content.len() as u64).unwrap()
    }

    fn expected(&self, name: &str) -> Expected {
        self.root
            .probe(&rel(name))
            .unwrap()
            .map_or(Expected::Absent, |found| Expected::Present(found.identity))
    }

    /// Every name in the top directory but our own, sorted.
    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name != ".syncline")
            .collect();
        names.sort();
        names
    }

    fn staged_files(&self) -> usize {
        let sessions = fs::read_dir(self.at(".syncline/staging")).unwrap();
        sessions
            .map(|session| fs::read_dir(session.unwrap().path()).unwrap().count())
            .sum()
    }
}

fn rel(name: &str) -> RelPath {
    RelPath::parse(name.as_bytes()).unwrap()
}

fn read(path: impl AsRef<Path>) -> Vec<u8> {
    fs::read(path).unwrap()
}

#[test]
fn a_new_file_appears_with_its_mode_and_time() {
    for swap in [Swap::Atomic, Swap::Plain] {
        let bench = Bench::new();
        let published = publish_by(&bench.root, bench.sealed("f", b"new"), &Expected::Absent, swap, None).unwrap();
        assert_eq!(published, Published::Created);
        assert_eq!(read(bench.at("f")), b"new");
        let found = fs::metadata(bench.at("f")).unwrap();
        assert_eq!(
            (found.mode() & 0o7777, found.mtime(), found.mtime_nsec()),
            (0o640, 1_234_567_890, 42)
        );
        assert_eq!(bench.staged_files(), 0);
    }
}

#[test]
fn the_expected_version_gives_way_and_leaves_no_trace() {
    for swap in [Swap::Atomic, Swap::Plain] {
        let bench = Bench::new();
        fs::write(bench.at("f"), b"old").unwrap();
        let expected = bench.expected("f");
        let published = publish_by(&bench.root, bench.sealed("f", b"new"), &expected, swap, None).unwrap();
        assert_eq!(published, Published::Replaced);
        assert_eq!(read(bench.at("f")), b"new");
        assert_eq!(bench.names(), ["f"]);
        assert_eq!(bench.staged_files(), 0);
    }
}

fn keeping(versions: &Versions) -> Keeping<'_> {
    let author = Author::Local;
    Keeping { versions, author }
}

/// I3: where versions are kept, the expected one is among them, in the same atomic step or, without that,
/// before it.
#[test]
fn the_expected_version_is_kept_where_versions_are() {
    for swap in [Swap::Atomic, Swap::Plain] {
        let bench = Bench::new();
        let versions = Versions::new(&bench.root);
        let keeping = keeping(&versions);
        fs::write(bench.at("f"), b"old").unwrap();
        let inode = fs::metadata(bench.at("f")).unwrap().ino();
        let expected = bench.expected("f");
        let published = publish_by(&bench.root, bench.sealed("f", b"new"), &expected, swap, Some(&keeping)).unwrap();
        assert_eq!(published, Published::Replaced);
        assert_eq!(read(bench.at("f")), b"new");
        let kept = versions_of(&bench.root, &rel("f")).unwrap();
        assert_eq!(kept.len(), 1);
        let kept = bench.at(".syncline/versions/f").join(kept[0].name().to_string());
        assert_eq!(read(&kept), b"old");
        let found = fs::metadata(&kept).unwrap();
        assert_eq!((found.ino(), found.nlink()), (inode, 1), "it is the very file");
        assert_eq!(bench.staged_files(), 0);
    }
}

/// A surprise becomes a conflict copy as ever, and leaves nothing among the versions.
#[test]
fn a_surprise_is_no_version() {
    for swap in [Swap::Atomic, Swap::Plain] {
        let bench = Bench::new();
        let versions = Versions::new(&bench.root);
        let keeping = keeping(&versions);
        fs::write(bench.at("f"), b"old").unwrap();
        let looked = bench.root.probe(&rel("f")).unwrap().unwrap();
        let (staged, path) = bench.sealed("f", b"new").into_parts();
        let mut publisher = Publisher {
            root: &bench.root,
            place: bench.root.place(&path).unwrap(),
            path: &path,
            staged,
            expected: Expected::Present(looked.identity),
            swap,
            keeping: Some(&keeping),
            aside: None,
        };
        // After the last look, before the exchange.
        fs::write(bench.at("f"), b"a late edit").unwrap();
        let attempt = publisher.replace(&looked).unwrap();
        let published = match attempt {
            Attempt::Done(published) => published,
            Attempt::Again => publisher.run().unwrap(),
        };
        let Published::Displaced(copy) = published else {
            panic!("a late edit was not seen")
        };
        let copy = std::str::from_utf8(copy.as_bytes()).unwrap();
        assert_eq!(read(bench.at(copy)), b"a late edit");
        assert_eq!(read(bench.at("f")), b"new");
        assert!(versions_of(&bench.root, &rel("f")).unwrap().is_empty());
    }
}

/// Row 55 of the threats: an edit made after we looked is kept beside what replaces it.
#[test]
fn a_version_made_since_we_looked_is_kept_beside() {
    for swap in [Swap::Atomic, Swap::Plain] {
        let bench = Bench::new();
        fs::write(bench.at("f.txt"), b"old").unwrap();
        let expected = bench.expected("f.txt");
        fs::write(bench.at("f.txt"), b"an edit of the user").unwrap();
        let published = publish_by(&bench.root, bench.sealed("f.txt", b"new"), &expected, swap, None).unwrap();
        let Published::Displaced(copy) = published else {
            panic!("{published:?}")
        };
        assert_eq!(read(bench.at("f.txt")), b"new");
        let copy = std::str::from_utf8(copy.as_bytes()).unwrap();
        assert!(
            copy.starts_with("f.sync-conflict-") && copy.ends_with("-local.txt"),
            "{copy}"
        );
        assert_eq!(read(bench.at(copy)), b"an edit of the user");
        assert_eq!(bench.staged_files(), 0);
    }
}

/// Identical contents are no conflict: who was cut off sends the file again while the first one is being published.
#[test]
fn a_surprise_with_the_content_that_comes_leaves_no_copy() {
    for swap in [Swap::Atomic, Swap::Plain] {
        for was in [None, Some("old")] {
            let bench = Bench::new();
            let versions = Versions::new(&bench.root);
            let keeping = keeping(&versions);
            if let Some(was) = was {
                fs::write(bench.at("f"), was).unwrap();
            }
            let expected = bench.expected("f");
            for _ in 0..2 {
                let sealed = bench.sealed("f", b"sent twice");
                let published = publish_by(&bench.root, sealed, &expected, swap, Some(&keeping)).unwrap();
                assert!(!matches!(published, Published::Displaced(_)), "{swap:?} {published:?}");
            }
            assert_eq!(bench.names(), ["f"], "{swap:?}");
            assert_eq!(read(bench.at("f")), b"sent twice");
            let kept = versions_of(&bench.root, &rel("f")).unwrap();
            assert_eq!(kept.len(), usize::from(was.is_some()), "the old one, once");
            assert_eq!(bench.staged_files(), 0);
        }
    }
}

/// An edit between the last look and the exchange is the case that only the exchange can see.
#[test]
fn a_version_made_after_the_last_look_is_kept_too() {
    let bench = Bench::new();
    fs::write(bench.at("f"), b"old").unwrap();
    let looked = bench.root.probe(&rel("f")).unwrap().unwrap();
    let (staged, path) = bench.sealed("f", b"new").into_parts();
    let mut publisher = Publisher {
        root: &bench.root,
        place: bench.root.place(&path).unwrap(),
        path: &path,
        staged,
        expected: Expected::Present(looked.identity),
        swap: Swap::Atomic,
        keeping: None,
        aside: None,
    };
    fs::write(bench.at("f"), b"a late edit").unwrap();
    let Ok(Attempt::Done(Published::Displaced(copy))) = publisher.replace(&looked) else {
        panic!("a late edit was not seen")
    };
    assert_eq!(
        read(bench.at(std::str::from_utf8(copy.as_bytes()).unwrap())),
        b"a late edit"
    );
    assert_eq!(read(bench.at("f")), b"new");
}

#[test]
fn something_where_nothing_was_expected_is_kept_beside_and_copies_are_numbered() {
    for swap in [Swap::Atomic, Swap::Plain] {
        let bench = Bench::new();
        for round in 0..3 {
            fs::write(bench.at("f"), format!("surprise {round}")).unwrap();
            let sealed = bench.sealed("f", b"new");
            let published = publish_by(&bench.root, sealed, &Expected::Absent, swap, None).unwrap();
            assert!(matches!(published, Published::Displaced(_)));
        }
        let mut contents: Vec<Vec<u8>> = bench.names().iter().map(|name| read(bench.at(name))).collect();
        contents.sort();
        assert_eq!(contents, [&b"new"[..], b"surprise 0", b"surprise 1", b"surprise 2"]);
    }
}

#[test]
fn what_was_expected_and_is_gone_is_made_anew() {
    for swap in [Swap::Atomic, Swap::Plain] {
        let bench = Bench::new();
        fs::write(bench.at("f"), b"old").unwrap();
        let expected = bench.expected("f");
        fs::remove_file(bench.at("f")).unwrap();
        let published = publish_by(&bench.root, bench.sealed("f", b"new"), &expected, swap, None).unwrap();
        assert_eq!(published, Published::Created);
    }
}

#[test]
fn an_empty_directory_gives_way_and_a_full_one_does_not() {
    for swap in [Swap::Atomic, Swap::Plain] {
        let bench = Bench::new();
        fs::create_dir(bench.at("f")).unwrap();
        fs::write(bench.at("f/inside"), b"x").unwrap();
        let error = publish_by(&bench.root, bench.sealed("f", b"new"), &Expected::Absent, swap, None).unwrap_err();
        assert_eq!(error.code(), ItemCode::InTheWay);
        assert_eq!(read(bench.at("f/inside")), b"x");
        assert_eq!(bench.staged_files(), 0);
        bench.root.probe(&rel("f/inside")).unwrap();
        fs::remove_file(bench.at("f/inside")).unwrap();
        let expected = bench.expected("f");
        let published = publish_by(&bench.root, bench.sealed("f", b"new"), &expected, swap, None).unwrap();
        assert_eq!(published, Published::Replaced);
        assert_eq!(
            bench.root.probe(&rel("f/inside")).unwrap_err().code(),
            ItemCode::InTheWay
        );
    }
}

/// Row 3 of the threats: a link is replaced itself; nothing is written through it.
#[test]
fn a_link_is_replaced_and_never_written_through() {
    let bench = Bench::new();
    let canary = tempfile::NamedTempFile::new().unwrap();
    fs::write(canary.path(), b"canary").unwrap();
    symlink(canary.path(), bench.at("f")).unwrap();
    let expected = bench.expected("f");
    let published = publish(&bench.root, bench.sealed("f", b"new"), &expected, None).unwrap();
    assert_eq!(published, Published::Replaced);
    assert_eq!(read(canary.path()), b"canary");
    assert!(fs::symlink_metadata(bench.at("f")).unwrap().is_file());
}

#[test]
fn a_link_is_published_as_it_stands() {
    let bench = Bench::new();
    fs::write(bench.at("l"), b"old").unwrap();
    let sealed = bench.staging.symlink(&rel("l"), b"../\xff anywhere", &META).unwrap();
    assert_eq!(
        publish(&bench.root, sealed, &bench.expected("l"), None).unwrap(),
        Published::Replaced
    );
    assert_eq!(&*bench.root.read_link(&rel("l")).unwrap(), b"../\xff anywhere");
    assert_eq!(fs::symlink_metadata(bench.at("l")).unwrap().mtime(), 1_234_567_890);
}

/// A hard link to a file outside keeps that file as it is: a write always makes a new inode (row 6).
#[test]
fn a_hard_link_outside_keeps_its_content() {
    let bench = Bench::new();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("o"), b"outside").unwrap();
    fs::hard_link(outside.path().join("o"), bench.at("f")).unwrap();
    publish(&bench.root, bench.sealed("f", b"new"), &bench.expected("f"), None).unwrap();
    assert_eq!(read(outside.path().join("o")), b"outside");
}

#[test]
fn a_parent_that_is_gone_fails_and_cleans_up() {
    let bench = Bench::new();
    let error = publish(&bench.root, bench.sealed("no/f", b"new"), &Expected::Absent, None).unwrap_err();
    assert_eq!(error.code(), ItemCode::Vanished);
    assert_eq!(bench.staged_files(), 0);
}

/// A mount point inside a share: the user is told what is wrong, and the staged file goes.
#[test]
fn another_file_system_is_named_as_the_reason() {
    let bench = Bench::new();
    let Ok(other) = tempfile::tempdir_in("/dev/shm") else {
        return;
    };
    if fs::metadata(other.path()).unwrap().dev() == fs::metadata(bench.dir.path()).unwrap().dev() {
        return;
    }
    let elsewhere = Root::open(other.path()).unwrap();
    let error = publish(&elsewhere, bench.sealed("f", b"new"), &Expected::Absent, None).unwrap_err();
    assert_eq!(error.code(), ItemCode::CrossDevice);
    assert_eq!(
        error.to_string(),
        "cannot replace f: its directory is on another file system than the share"
    );
    assert_eq!(bench.staged_files(), 0);
}

/// A crash between the exchange and the look at what was displaced: that version has only a name in
/// staging, and the sweep of the next start keeps it. What is ours goes.
#[test]
fn a_sweep_keeps_what_a_crash_left_after_an_exchange() {
    let bench = Bench::new();
    fs::write(bench.at("f"), b"edited here").unwrap();
    let dead = bench.at(".syncline/staging/0123456789abcdef");
    fs::create_dir_all(&dead).unwrap();
    for name in ["0", "1"] {
        fs::write(dead.join(name), b"arrived").unwrap();
        let inode = fs::metadata(dead.join(name)).unwrap().ino();
        fs::rename(dead.join(name), dead.join(format!("{name}-{inode:x}"))).unwrap();
    }
    let first = fs::read_dir(&dead).unwrap().next().unwrap().unwrap();
    renameat_with(CWD, first.path(), CWD, bench.at("f"), RenameFlags::EXCHANGE).unwrap();
    assert_eq!(bench.staging.sweep().unwrap().removed, 1);
    assert!(!dead.exists());
    let name = first.file_name().into_string().unwrap();
    let kept = bench.at(&format!(".syncline/rescued-0123456789abcdef-{name}"));
    assert_eq!(read(kept), b"edited here");
}

/// The name that is exchanged carries the inode, or a sweep could not tell.
#[test]
fn what_is_about_to_be_exchanged_says_which_inode_it_is() {
    let bench = Bench::new();
    let (mut staged, _) = bench.sealed("f", b"x").into_parts();
    staged.carry_inode().unwrap();
    staged.carry_inode().unwrap();
    let at = bench
        .at(".syncline/staging")
        .join(staged.session().name())
        .join(staged.as_str());
    let inode = fs::metadata(at).unwrap().ino();
    assert!(!names_another_inode(staged.as_str().as_bytes(), inode));
    assert!(names_another_inode(staged.as_str().as_bytes(), inode + 1));
    assert!(!names_another_inode(b"1f", inode));
}
