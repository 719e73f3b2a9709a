//! Tests of `Root`: each operation, with both resolvers, and that none leaves the root.

use super::*;
use crate::model::Timestamp;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

const META: Meta = Meta {
    mode: 0o6711,
    mtime: Timestamp { seconds: 99, nanos: 1 },
};

fn rel(path: &str) -> RelPath {
    RelPath::parse(path.as_bytes()).unwrap()
}

/// Runs `test` with a directory and a root of each resolver.
fn with_both(test: impl Fn(&Path, &Root)) {
    for open in [|path: &Path| Root::open(path).unwrap(), Root::open_walking] {
        let dir = tempfile::tempdir().unwrap();
        test(dir.path(), &open(dir.path()));
    }
}

/// Path, mode, time and content of everything below `dir`, to tell whether anything changed.
fn fingerprint(dir: &Path) -> Vec<String> {
    let mut all = Vec::new();
    let mut waiting = vec![dir.to_path_buf()];
    while let Some(path) = waiting.pop() {
        let found = fs::symlink_metadata(&path).unwrap();
        let content = if found.is_file() {
            fs::read(&path).unwrap()
        } else {
            Vec::new()
        };
        all.push(format!(
            "{path:?} {:o} {} {} {content:?}",
            found.mode(),
            found.mtime(),
            found.mtime_nsec()
        ));
        if found.is_dir() {
            waiting.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    all.sort();
    all
}

#[test]
fn a_probe_tells_kinds_and_absence() {
    with_both(|dir, root| {
        fs::create_dir(dir.join("d")).unwrap();
        fs::write(dir.join("d/f"), b"123").unwrap();
        symlink("nowhere", dir.join("l")).unwrap();
        let kind = |path: &str| root.probe(&rel(path)).unwrap().map(|found| found.kind);
        assert_eq!(kind("d"), Some(FoundKind::Directory));
        assert_eq!(kind("d/f"), Some(FoundKind::File { size: 3 }));
        assert_eq!(kind("l"), Some(FoundKind::Symlink));
        assert_eq!(kind("none"), None);
        assert_eq!(kind("none/none"), None);
        assert_eq!(root.probe(&rel("d/f/x")).unwrap_err().code(), ItemCode::InTheWay);
        assert_eq!(root.probe(&rel("l/x")).unwrap_err().code(), ItemCode::Escapes);
        assert_eq!(&*root.read_link(&rel("l")).unwrap(), b"nowhere");
        assert!(root.read_link(&rel("d/f")).is_err());
    });
}

#[test]
fn any_change_of_a_file_gives_another_identity() {
    with_both(|dir, root| {
        let probe = || root.probe(&rel("f")).unwrap().unwrap().identity;
        fs::write(dir.join("f"), b"one").unwrap();
        let first = probe();
        assert_eq!(probe(), first);
        fs::write(dir.join("g"), b"one").unwrap();
        fs::rename(dir.join("g"), dir.join("f")).unwrap();
        assert!(!probe().same_inode(&first));
        let second = probe();
        root.set_meta(&rel("f"), &META).unwrap();
        assert_ne!(probe(), second);
        assert!(probe().same_inode(&second) && !probe().same_content(&second));
    });
}

/// Rows 3 and 4 of the threats: no operation follows a link that stands in for a parent.
#[test]
fn no_operation_goes_through_a_linked_parent() {
    with_both(|dir, root| {
        let canary = tempfile::tempdir().unwrap();
        fs::create_dir(canary.path().join("sub")).unwrap();
        fs::write(canary.path().join("f"), b"canary").unwrap();
        symlink("x", canary.path().join("l")).unwrap();
        symlink(canary.path(), dir.join("out")).unwrap();
        let before = fingerprint(canary.path());
        let codes = [
            root.probe(&rel("out/f")).unwrap_err().code(),
            root.read_link(&rel("out/l")).unwrap_err().code(),
            root.open_file(&rel("out/f")).unwrap_err().code(),
            root.make_directory(&rel("out/new")).unwrap_err().code(),
            root.make_parents(&rel("out/new/f")).unwrap_err().code(),
            root.set_meta(&rel("out/f"), &META).unwrap_err().code(),
            root.remove(&rel("out/f")).unwrap_err().code(),
            root.remove(&rel("out/sub")).unwrap_err().code(),
        ];
        assert_eq!(codes, [ItemCode::Escapes; 8]);
        assert_eq!(root.make_directory(&rel("out")).unwrap_err().code(), ItemCode::InTheWay);
        root.set_meta(&rel("out"), &META).unwrap();
        assert_eq!(fs::symlink_metadata(dir.join("out")).unwrap().mtime(), 99);
        assert_eq!(fingerprint(canary.path()), before);
        root.remove(&rel("out")).unwrap();
        assert_eq!(fingerprint(canary.path()), before);
    });
}

/// Row 4: a directory that is swapped for a link while its descriptor is cached leads nowhere new.
#[test]
fn a_parent_swapped_for_a_link_between_two_calls_does_not_leak() {
    with_both(|dir, root| {
        let canary = tempfile::tempdir().unwrap();
        fs::write(canary.path().join("f"), b"canary").unwrap();
        let before = fingerprint(canary.path());
        fs::create_dir(dir.join("d")).unwrap();
        fs::write(dir.join("d/f"), b"inside").unwrap();
        root.probe(&rel("d/f")).unwrap();
        fs::rename(dir.join("d"), dir.join("moved")).unwrap();
        symlink(canary.path(), dir.join("d")).unwrap();
        root.remove(&rel("d/f")).unwrap();
        assert!(
            !dir.join("moved/f").exists(),
            "the descriptor still means the directory that was looked at"
        );
        root.forget_parents();
        assert_eq!(root.remove(&rel("d/f")).unwrap_err().code(), ItemCode::Escapes);
        assert_eq!(fingerprint(canary.path()), before);
    });
}

#[test]
fn directories_are_made_usable_and_tell_what_is_in_the_way() {
    with_both(|dir, root| {
        assert_eq!(root.make_directory(&rel("a")).unwrap(), MadeDirectory::Created);
        assert_eq!(root.make_directory(&rel("a")).unwrap(), MadeDirectory::Existed);
        assert_eq!(root.make_directory(&rel("x/y")).unwrap_err().code(), ItemCode::Vanished);
        fs::set_permissions(dir.join("a"), fs::Permissions::from_mode(0o555)).unwrap();
        assert_eq!(root.make_directory(&rel("a")).unwrap(), MadeDirectory::Existed);
        assert_eq!(fs::metadata(dir.join("a")).unwrap().mode() & 0o7777, 0o755);
        fs::write(dir.join("f"), b"x").unwrap();
        assert_eq!(root.make_directory(&rel("f")).unwrap_err().code(), ItemCode::InTheWay);
        assert_eq!(root.make_directory(&rel("f/d")).unwrap_err().code(), ItemCode::InTheWay);
        let made = root.make_parents(&rel("a/b/c/f")).unwrap();
        assert_eq!(made, [rel("a/b"), rel("a/b/c")]);
        assert_eq!(root.make_parents(&rel("a/b/c/f")).unwrap(), []);
        assert_eq!(root.make_parents(&rel("f/b/c")).unwrap_err().code(), ItemCode::InTheWay);
    });
}

#[test]
fn removal_takes_all_kinds_and_spares_full_directories() {
    with_both(|dir, root| {
        fs::create_dir_all(dir.join("d/e")).unwrap();
        fs::write(dir.join("d/e/f"), b"x").unwrap();
        assert_eq!(root.remove(&rel("d/e")).unwrap_err().code(), ItemCode::InTheWay);
        root.remove(&rel("d/e/f")).unwrap();
        root.remove(&rel("d/e")).unwrap();
        assert_eq!(root.remove(&rel("d/e")).unwrap_err().code(), ItemCode::Vanished);
        // The removed directory is not remembered: its namesake is another one.
        root.make_directory(&rel("d/e")).unwrap();
        root.make_directory(&rel("d/e/g")).unwrap();
        assert!(dir.join("d/e/g").is_dir());
    });
}

#[test]
fn names_are_bytes_and_come_back_exactly() {
    with_both(|dir, root| {
        let name = b"a\nb\x1b\xff";
        let path = RelPath::parse(&[b"d/".as_slice(), name].concat()).unwrap();
        root.make_parents(&path).unwrap();
        fs::write(dir.join("d").join(OsStr::from_bytes(name)), b"x").unwrap();
        assert_eq!(root.open_file(&path).unwrap().size(), 1);
        root.set_meta(&path, &META).unwrap();
        let found = root.probe(&path).unwrap().unwrap();
        assert_eq!((found.meta.mode, found.meta.mtime), (0o711, META.mtime));
        root.remove(&path).unwrap();
    });
}

#[test]
fn few_parents_stay_open_and_each_is_found_again() {
    with_both(|dir, root| {
        for number in 0..3 * PARENTS_MAX {
            fs::create_dir(dir.join(number.to_string())).unwrap();
            fs::write(dir.join(format!("{number}/f")), number.to_string()).unwrap();
        }
        for number in (0..3 * PARENTS_MAX).chain([40, 0, 47, 40]) {
            let source = root.open_file(&rel(&format!("{number}/f"))).unwrap();
            assert_eq!(source.size(), number.to_string().len() as u64);
            assert!(root.parents.borrow().len() <= PARENTS_MAX);
        }
        root.forget_parents();
        assert!(root.parents.borrow().is_empty());
    });
}

/// The operator's own path may hold links; everything below may not.
#[test]
fn a_root_opens_through_links_and_is_made_with_its_parents() {
    let dir = tempfile::tempdir().unwrap();
    let made = Root::create(&dir.path().join("a/b")).unwrap();
    assert!(made.free_bytes().unwrap() > 0);
    symlink("a", dir.path().join("link")).unwrap();
    let path = dir.path().join("link/b");
    assert_eq!(Root::open(&path).unwrap().path(), path);
    assert_eq!(
        Root::open(&dir.path().join("none")).unwrap_err().code(),
        ItemCode::Vanished
    );
    fs::write(dir.path().join("f"), b"x").unwrap();
    assert_eq!(
        Root::open(&dir.path().join("f")).unwrap_err().code(),
        ItemCode::InTheWay
    );
}
