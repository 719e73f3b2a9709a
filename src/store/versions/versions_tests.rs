//! Tests of the versions as a whole: what comes in, what comes back, what goes, and what is not believed.

use super::name::Successor;
use super::walk::directory_of;
use super::*;
use crate::model::{DeviceId, ItemCode, Meta, RelPath, Timestamp};
use crate::store::inplace::InPlace;
use crate::store::publish::{Expected, Published, publish};
use crate::store::{FileError, Flush, Room, Root, Staging};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const BY: Author = Author::Device(DeviceId([0; 32]));

struct Bench {
    dir: tempfile::TempDir,
    root: Root,
    staging: Staging,
    versions: Versions,
}

fn rel(path: &str) -> RelPath {
    RelPath::parse(path.as_bytes()).unwrap()
}

impl Bench {
    fn new() -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        let (staging, versions) = (Staging::new(&root), Versions::new(&root));
        Bench {
            dir,
            root,
            staging,
            versions,
        }
    }

    fn keeping(&self) -> Keeping<'_> {
        Keeping {
            versions: &self.versions,
            author: BY,
        }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.at(path)).unwrap()
    }

    /// A push of `content`, with the time `seconds`.
    fn push(&self, path: &str, content: &str, seconds: i64) -> Published {
        let path = rel(path);
        self.root.make_parents(&path).unwrap();
        let mtime = Timestamp { seconds, nanos: 9 };
        let staged = self.staging.create(&path, Room::Sparse).unwrap();
        staged.write_at(0, content.as_bytes()).unwrap();
        let sealed = staged.seal(&Meta { mode: 0o640, mtime }, content.len() as u64);
        let found = self.root.probe(&path).unwrap();
        let expected = found.map_or(Expected::Absent, |found| Expected::Present(found.identity));
        publish(&self.root, sealed.unwrap(), &expected, Some(&self.keeping())).unwrap()
    }

    /// A push that changes the file where it lies: `content` at `at`, of `length` bytes in all.
    fn change(&self, path: &str, at: u64, content: &str, length: u64, seconds: i64) {
        let path = rel(path);
        let expected = self.root.probe(&path).unwrap().unwrap().identity;
        let mut work = InPlace::begin(&self.root, &self.staging, &path, &expected, length).unwrap();
        work.write_at(at, content.as_bytes()).unwrap();
        let mtime = Timestamp { seconds, nanos: 9 };
        let meta = Meta { mode: 0o640, mtime };
        work.commit(&meta, Flush::Nothing, Some(&self.keeping())).unwrap();
    }

    fn delete(&self, path: &str) -> Result<(), FileError> {
        self.root.remove_keeping(&rel(path), &self.keeping())
    }

    fn of(&self, path: &str) -> Vec<Version> {
        versions_of(&self.root, &rel(path)).unwrap()
    }

    fn restore(&self, version: &Version, to: &str) -> Result<Published, RestoreError> {
        restore(&self.root, version, &rel(to), &self.keeping())
    }

    /// The paths of all versions, sorted.
    fn all(&self) -> Vec<String> {
        let mut paths = Vec::new();
        let walk = VersionWalk::looking(&self.root, None).unwrap();
        walk.finish(&mut |version| {
            paths.push(version.path().to_string());
            Stay::Yes
        })
        .unwrap();
        paths.sort();
        paths
    }

    /// Puts a version of `path` there as if it had been kept at `seconds`.
    fn plant(&self, path: &str, seconds: u64, bytes: usize) {
        let kept_at = KeptAt::of(UNIX_EPOCH + Duration::from_secs(seconds));
        let name = VersionName::new(kept_at, Reason::Deleted, &BY, None);
        let directory = self.at(".syncline/versions").join(path);
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join(name.to_string()), vec![7; bytes]).unwrap();
    }

    fn tidy(&self, retention: &Retention, now: u64) -> Tidied {
        let now = KeptAt::of(UNIX_EPOCH + Duration::from_secs(now));
        let mut tidying = Tidying::begin_at(&self.root, retention, now).unwrap();
        while tidying.step(2).unwrap() {}
        tidying.tidied()
    }
}

/// I3: what was replaced is kept whole, with mode and time, and says when, why and by whom.
#[test]
fn what_is_replaced_comes_back_and_what_it_replaces_is_kept_in_turn() {
    let bench = Bench::new();
    let before = SystemTime::now();
    assert_eq!(bench.push("a/b/f", "one", 1), Published::Created);
    assert!(bench.all().is_empty());
    assert_eq!(bench.push("a/b/f", "two", 2), Published::Replaced);
    assert_eq!(bench.push("a/b/f", "three", 3), Published::Replaced);
    let kept = bench.of("a/b/f");
    assert_eq!(kept.len(), 2);
    assert_eq!(kept[0].name().reason(), Reason::Replaced);
    assert!(kept[0].name().author().fits(&DeviceId([0; 32])));
    assert!(kept[0].name().kept_at() >= KeptAt::of(before) && kept[0].name().kept_at() < kept[1].name().kept_at());
    assert_eq!(bench.restore(&kept[0], "a/b/f").unwrap(), Published::Replaced);
    assert_eq!(bench.read("a/b/f"), "one");
    let found = fs::metadata(bench.at("a/b/f")).unwrap();
    assert_eq!(
        (found.mode() & 0o7777, found.mtime(), found.mtime_nsec()),
        (0o640, 1, 9)
    );
    // A restored version can be undone, and stays one.
    let kept = bench.of("a/b/f");
    assert_eq!(kept.len(), 3);
    bench.restore(&kept[2], "a/b/f").unwrap();
    assert_eq!(bench.read("a/b/f"), "three");
    assert_eq!(bench.restore(&kept[1], "new/place").unwrap(), Published::Created);
    assert_eq!(bench.read("new/place"), "two");
    bench.staging.retire();
    assert!(!bench.at(".syncline/staging").exists());
}

#[test]
fn files_and_links_that_are_deleted_come_back_and_directories_come_with_them() {
    let bench = Bench::new();
    bench.push("d/f", "file", 5);
    symlink("../\u{202e}anywhere", bench.at("d/l")).unwrap();
    bench.delete("d/f").unwrap();
    bench.delete("d/l").unwrap();
    bench.delete("d").unwrap();
    assert!(!bench.at("d").exists());
    assert_eq!(bench.delete("d/f").unwrap_err().code(), ItemCode::Vanished);
    assert_eq!(bench.all(), ["d/f", "d/l"]);
    assert_eq!(bench.of("d/f")[0].name().reason(), Reason::Deleted);
    bench.restore(&bench.of("d/l")[0], "d/l").unwrap();
    bench.restore(&bench.of("d/f")[0], "d/f").unwrap();
    assert_eq!(bench.read("d/f"), "file");
    assert_eq!(
        fs::read_link(bench.at("d/l")).unwrap(),
        PathBuf::from("../\u{202e}anywhere")
    );
}

/// A link gives way as a link; nothing is read or written through it (row 3 of the threats).
#[test]
fn a_link_that_is_replaced_is_kept_as_a_link() {
    let bench = Bench::new();
    let canary = tempfile::NamedTempFile::new().unwrap();
    fs::write(canary.path(), "canary").unwrap();
    symlink(canary.path(), bench.at("f")).unwrap();
    assert_eq!(bench.push("f", "new", 1), Published::Replaced);
    let kept = bench.of("f");
    bench.restore(&kept[0], "f").unwrap();
    assert_eq!(fs::read_link(bench.at("f")).unwrap(), canary.path());
    assert_eq!(fs::read_to_string(canary.path()).unwrap(), "canary");
}

/// One path can be a file today and a directory tomorrow: versions of both lie side by side.
#[test]
fn a_file_that_becomes_a_directory_keeps_its_versions_apart() {
    let bench = Bench::new();
    bench.push("x", "file", 1);
    bench.delete("x").unwrap();
    bench.push("x/y", "below", 2);
    bench.push("x/y", "below again", 3);
    assert_eq!(bench.all(), ["x", "x/y"]);
    assert_eq!(bench.of("x").len(), 1);
    let error = bench.restore(&bench.of("x")[0], "x").unwrap_err();
    assert_eq!(error.code(), ItemCode::InTheWay);
    assert_eq!(bench.read("x/y"), "below again");
    bench.restore(&bench.of("x/y")[0], "x/y").unwrap();
    assert_eq!(bench.read("x/y"), "below");
}

/// The longest path, the longest names, and names that look like versions.
#[test]
fn any_path_can_be_kept() {
    let bench = Bench::new();
    let deep = [vec!["d".repeat(255); 15].join("/"), "e".repeat(255)].join("/");
    assert_eq!(deep.len(), 4095);
    for path in [&deep, "20261120-214731-000000007-d-local", "new\nline\x1b[1m"] {
        if bench.root.make_parents(&rel(path)).is_err() {
            // The file system itself refuses it.
            continue;
        }
        bench.push(path, "one", 1);
        bench.push(path, "two", 2);
        let kept = bench.of(path);
        assert_eq!(kept.len(), 1, "{path}");
        bench.restore(&kept[0], path).unwrap();
        // The whole path of the longest is too long for a system call.
        let mut content = [0; 9];
        let file = bench.root.open_file(&rel(path)).unwrap();
        assert_eq!(file.read_at(0, &mut content).unwrap(), 3);
        assert_eq!(content[..3], *b"one");
    }
}

/// Several changes in place, of every kind of length, then a replacement: each step back is there.
#[test]
fn a_chain_of_changes_in_place_comes_back_link_by_link() {
    let bench = Bench::new();
    let contents = [
        "x".repeat(20_000),
        format!("{}{}", "y".repeat(5), "x".repeat(19_995)),
        format!("{}{}", "y".repeat(5), "x".repeat(9_000)),
        format!("{}{}{}", "y".repeat(5), "x".repeat(9_000), "z".repeat(30_000)),
    ];
    bench.push("f", &contents[0], 1);
    bench.change("f", 0, "yyyyy", 20_000, 2);
    bench.change("f", 0, "yyyyy", 9_005, 3);
    bench.change("f", 9_005, &"z".repeat(30_000), 39_005, 4);
    assert_eq!(bench.read("f"), contents[3]);
    let check = |bench: &Bench, what: &str| {
        let kept = bench.of("f");
        for (number, content) in contents[..3].iter().enumerate() {
            assert_eq!(kept[number].name().reason(), Reason::Changed);
            assert_eq!(kept[number].content_bytes(&bench.root).unwrap(), content.len() as u64);
            bench.restore(&kept[number], "copy").unwrap();
            assert!(bench.read("copy") == *content, "{what}: {number}");
            let mtime = fs::metadata(bench.at("copy")).unwrap().mtime();
            assert_eq!(mtime, 1 + number as i64, "{what}");
        }
    };
    check(&bench, "from the file itself");
    bench.push("f", "whole", 5);
    check(&bench, "from the version that was replaced");
    bench.delete("f").unwrap();
    check(&bench, "from a deleted file's older version");
    // In the end the first one takes the place again, and everything else is still there.
    bench.restore(&bench.of("f")[0], "f").unwrap();
    assert!(bench.read("f") == contents[0]);
    assert_eq!(bench.of("f").len(), 5);
}

/// What another program did to the file is not in the record: then nothing is put together.
#[test]
fn a_record_whose_successor_was_changed_is_refused_and_nothing_happens() {
    let bench = Bench::new();
    bench.push("f", &"x".repeat(9_000), 1);
    bench.change("f", 3, "yyy", 9_000, 2);
    fs::write(bench.at("f"), "edited here").unwrap();
    let error = bench.restore(&bench.of("f")[0], "f").unwrap_err();
    assert!(
        matches!(&error, RestoreError::Successor(path) if *path == rel("f")),
        "{error}"
    );
    assert_eq!(bench.read("f"), "edited here");
    assert_eq!(bench.of("f").len(), 1);
    // A damaged record is told as that.
    let name = bench.of("f")[0].name().to_string();
    let record = bench.at(".syncline/versions/f").join(name);
    let mut bytes = fs::read(&record).unwrap();
    bytes[100] ^= 1;
    fs::write(&record, bytes).unwrap();
    let error = bench.restore(&bench.of("f")[0], "f").unwrap_err();
    assert!(matches!(error, RestoreError::Damaged(_)), "{error}");
}

/// A crash between the slot and the exchange leaves the new content in the slot: that is no version, and
/// goes after a while. One right after the exchange leaves the old version there: that is one, also when
/// the disk was copied and inodes have other numbers.
#[test]
fn a_slot_tells_whether_its_exchange_happened() {
    let bench = Bench::new();
    bench.push("f", "old", 1);
    let staged = bench.at("staged");
    fs::write(&staged, "newer").unwrap();
    let found = bench.root.probe(&rel("staged")).unwrap().unwrap();
    let directory = bench.at(".syncline/versions/f");
    fs::create_dir_all(&directory).unwrap();
    let day = UNIX_EPOCH + Duration::from_secs(86_400);
    let successor = Some(Successor::of(&found.identity));
    let name = VersionName::new(KeptAt::of(day), Reason::Replaced, &BY, successor).to_string();
    fs::rename(&staged, directory.join(&name)).unwrap();
    for _ in 0..2 {
        assert!(bench.of("f").is_empty() && bench.all().is_empty());
        bench.tidy(&Retention { age: None, size: None }, 86_400 + 60);
        assert!(directory.join(&name).exists(), "it may be about to be exchanged");
    }
    bench.tidy(&Retention { age: None, size: None }, 86_400 + 3_600);
    assert!(!directory.exists(), "it and its directory are gone");
    assert_eq!(
        bench.tidy(&Retention { age: None, size: None }, 86_400 + 3_600),
        Tidied::default()
    );
    // After the exchange.
    fs::create_dir_all(&directory).unwrap();
    fs::write(directory.join(&name), "older").unwrap();
    assert_eq!(bench.of("f").len(), 1);
    bench.tidy(&Retention { age: None, size: None }, 86_400 + 3_600);
    bench.restore(&bench.of("f")[0], "f").unwrap();
    assert_eq!(bench.read("f"), "older");
}

#[test]
fn what_is_older_than_the_age_goes_and_empty_directories_with_it() {
    let bench = Bench::new();
    for (path, seconds) in [("a/b/old", 1_000), ("a/young", 9_000), ("c/d/e/old", 1_000)] {
        bench.plant(path, seconds, 10);
    }
    bench.plant("a/young", 1_000, 10);
    let hour = Retention {
        age: Some(Duration::from_secs(3_600)),
        size: None,
    };
    let tidied = bench.tidy(&hour, 10_000);
    assert_eq!(tidied.versions, 3);
    assert_eq!(bench.all(), ["a/young"]);
    let left: Vec<_> = fs::read_dir(bench.at(".syncline/versions")).unwrap().collect();
    assert_eq!(left.len(), 1, "directories without versions are gone");
    assert!(!bench.at(".syncline/versions/a/b").exists());
    // A clock that was wrong, and shows a time before theirs, lets nothing go.
    assert_eq!(bench.tidy(&hour, 500).versions, 0);
}

/// The oldest first, by the minute, and not one minute more than needed.
#[test]
fn what_is_more_than_the_size_goes_the_oldest_first() {
    let bench = Bench::new();
    for minute in 1..=5u64 {
        bench.plant(&format!("f{minute}"), minute * 60, 40_000);
        bench.plant(&format!("g/{minute}"), minute * 60 + 59, 40_000);
    }
    let each = fs::metadata(
        bench
            .at(".syncline/versions/f1")
            .read_dir()
            .unwrap()
            .next()
            .unwrap()
            .unwrap()
            .path(),
    )
    .unwrap()
    .blocks()
        * 512;
    let bound = |bytes| Retention {
        age: Some(Duration::from_secs(1 << 30)),
        size: Some(SizeBound::Bytes(bytes)),
    };
    let tidied = bench.tidy(&bound(10 * each), 1_000);
    assert_eq!((tidied.versions, tidied.bytes, tidied.kept_bytes), (0, 0, 10 * each));
    let tidied = bench.tidy(&bound(7 * each), 1_000);
    assert_eq!((tidied.versions, tidied.bytes), (4, 4 * each));
    assert_eq!(tidied.kept_bytes, 6 * each);
    assert_eq!(bench.all(), ["f3", "f4", "f5", "g/3", "g/4", "g/5"]);
    bench.tidy(&bound(0), 1_000);
    assert!(bench.all().is_empty());
    assert!(bench.at(".syncline/versions").exists());
}

/// Rows 3, 4 and 7 of the threats: whatever somebody put into the tree, nothing outside is listed, read
/// or removed, and nothing strange is taken for a version.
#[test]
fn a_planted_tree_leads_nowhere() {
    let bench = Bench::new();
    let outside = tempfile::tempdir().unwrap();
    let legal = "19700101-000001-000000000-d-local";
    fs::create_dir(outside.path().join("sub")).unwrap();
    for canary in [legal.to_owned(), format!("sub/{legal}")] {
        fs::write(outside.path().join(canary), "canary").unwrap();
    }
    let top = bench.at(".syncline/versions");
    fs::create_dir_all(top.join("real")).unwrap();
    symlink(outside.path(), top.join("linked")).unwrap();
    symlink(outside.path(), top.join("real").join("sub")).unwrap();
    for strange in ["a\nb", "-rf", "\u{202e}", "20261120-214731-000000007-d-LOCAL"] {
        fs::write(top.join("real").join(strange), "x").unwrap();
    }
    fs::create_dir_all(top.join(".SYNCLINE/x")).unwrap();
    fs::write(top.join(".SYNCLINE/x").join(legal), "x").unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        top.join("real").join(legal),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    assert!(bench.all().is_empty() && bench.of("real").is_empty());
    assert!(versions_of(&bench.root, &rel("linked")).is_err());
    assert!(directory_of(&bench.root, Some(&rel("linked/sub"))).is_err());
    bench.tidy(
        &Retention {
            age: Some(Duration::ZERO),
            size: Some(SizeBound::Bytes(0)),
        },
        1 << 40,
    );
    assert_eq!(fs::read_to_string(outside.path().join(legal)).unwrap(), "canary");
    assert_eq!(fs::read_dir(top.join("real")).unwrap().count(), 6);
    // What has to come in through a planted link is refused, and stays where it is.
    bench.push("linked", "one", 1);
    let error = bench.delete("linked").unwrap_err();
    assert_eq!(error.code(), ItemCode::Escapes);
    assert_eq!(bench.read("linked"), "one");
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 2);
}

/// The directory of the versions itself may be a planted link.
#[test]
fn a_link_in_the_place_of_the_versions_is_refused() {
    let bench = Bench::new();
    let outside = tempfile::tempdir().unwrap();
    fs::create_dir(bench.at(".syncline")).unwrap();
    symlink(outside.path(), bench.at(".syncline/versions")).unwrap();
    bench.push("f", "one", 1);
    assert_eq!(bench.delete("f").unwrap_err().code(), ItemCode::Escapes);
    assert!(VersionWalk::looking(&bench.root, None).is_err());
    assert_eq!(bench.read("f"), "one");
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
}

/// Tidying takes empty directories away while versions come in: the next one makes them again.
#[test]
fn a_directory_that_was_tidied_away_is_made_again() {
    let bench = Bench::new();
    bench.push("d/f", "one", 1);
    bench.push("d/f", "two", 2);
    bench.tidy(
        &Retention {
            age: None,
            size: Some(SizeBound::Bytes(0)),
        },
        0,
    );
    assert!(!bench.at(".syncline/versions/d").exists());
    bench.push("d/f", "three", 3);
    bench.push("d/g", "one", 1);
    bench.delete("d/g").unwrap();
    assert_eq!(bench.all(), ["d/f", "d/g"]);
    assert_eq!(bench.versions.kept(), 3);
}

/// I1, I3: the barrier that comes before the acknowledgement covers where the old version is now.
#[test]
fn the_directories_of_what_came_in_are_noted_for_the_barrier() {
    let bench = Bench::new();
    bench.push("d/f", "one", 1);
    bench.push("d/f", "two", 2);
    let mut changed: Vec<String> = bench
        .versions
        .take_changed()
        .iter()
        .map(|path| String::from_utf8(path.to_vec()).unwrap())
        .collect();
    changed.sort();
    changed.dedup();
    let below = |path: &str| format!(".syncline/versions{path}");
    assert_eq!(changed, [".syncline".to_owned(), below(""), below("/d"), below("/d/f")]);
    assert!(bench.versions.take_changed().is_empty());
    let mode = fs::metadata(bench.at(".syncline/versions/d"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o700);
}
