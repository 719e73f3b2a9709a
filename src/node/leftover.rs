//! What is left in a directory that was deleted elsewhere, when nothing that takes part is in it any more.
//!
//! What is ignored belongs to one side alone: the other cannot mean it with a deletion. So its directory stays with it.
//! Only files that a system makes by itself go along, into the versions. Invariant: what takes part is never touched.

use super::observing::Observing;
use crate::model::{ItemCode, Kind, RelPath};
use crate::store::{FileError, FoundKind, Identity, Ignore, Keep, Keeping, Record, Root, ScanItem, Shape};

/// What holds a directory.
#[derive(Debug, PartialEq, Eq)]
enum Holds {
    /// These files, which go with it.
    Litter(Vec<RelPath>),
    /// Only what is left out.
    LeftOut,
    /// Something that takes part, or not all of it was seen.
    More,
}

/// What became of a directory that was to be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Removed {
    Gone,
    /// It stays for what is left out in it.
    Stays,
}

/// Entries of such a directory that are looked at: one with more of them is looked at in the next round again.
const ENTRIES_MAX: usize = 4096;

/// Removes what stands at `path`, to the versions if they are kept. `was_left` tells of directories that stayed
/// before, for the same reason.
///
/// # Errors
/// As [`Root::remove`]; [`ItemCode::InTheWay`] only where something that takes part is in the directory.
pub(crate) fn remove(
    root: &Root,
    path: &RelPath,
    keeping: Option<&Keeping<'_>>,
    observing: &mut Observing,
    was_left: &dyn Fn(&RelPath) -> bool,
) -> Result<Removed, FileError> {
    let remove = |path: &RelPath| match keeping {
        Some(keeping) => root.remove_keeping(path, keeping),
        None => root.remove(path),
    };
    let error = match remove(path) {
        Ok(()) => return Ok(Removed::Gone),
        Err(error) if error.code() == ItemCode::InTheWay => error,
        Err(error) => return Err(error),
    };
    match holds(root, path, observing, was_left) {
        Holds::Litter(list) => {
            list.iter().try_for_each(remove)?;
            root.remove(path).map(|()| Removed::Gone)
        }
        Holds::LeftOut => Ok(Removed::Stays),
        Holds::More => Err(error),
    }
}

fn holds(root: &Root, path: &RelPath, observing: &mut Observing, was_left: &dyn Fn(&RelPath) -> bool) -> Holds {
    let (mut litter, mut is_litter, mut is_directory) = (Vec::new(), true, false);
    let mut items = Vec::new();
    let mut scan = root.scan(Some(path));
    let mut keep = |at: &RelPath, shape| {
        let kept = observing.keep(root, at, shape);
        if kept == Keep::No && litter.last() != Some(at) {
            is_litter &= shape == Shape::Other && Ignore::is_disposable(at);
            litter.push(at.clone());
        }
        kept
    };
    let more = scan.step(root, &mut keep, ENTRIES_MAX, &mut items);
    for item in items {
        match item {
            ScanItem::Entry(entry, _) if entry.path == *path => is_directory = entry.kind == Kind::Directory,
            ScanItem::Entry(entry, _) if !was_left(&entry.path) => return Holds::More,
            ScanItem::Failed(_) => return Holds::More,
            ScanItem::Entry(..) | ScanItem::Special(_) => is_litter = false,
        }
    }
    match (more || !scan.complete() || !is_directory, is_litter) {
        (true, _) => Holds::More,
        (false, true) => Holds::Litter(litter),
        (false, false) => Holds::LeftOut,
    }
}

/// Whether a record tells that a directory stayed: a tombstone, with the identity of the directory.
pub(crate) fn tells_of(record: Option<&Record>, identity: &Identity) -> bool {
    let was = record
        .filter(|record| !record.is_live())
        .and_then(|record| record.identity);
    was.is_some_and(|was| was.inode() == identity.inode())
}

/// Whether what was found is that directory.
pub(crate) fn is_left(record: Option<&Record>, found: &crate::store::Found) -> bool {
    found.kind == FoundKind::Directory && tells_of(record, &found.identity)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Tick;

    fn path(text: &str) -> RelPath {
        RelPath::parse(text.as_bytes()).unwrap()
    }

    // What a user left out on purpose outlives a deletion from elsewhere; what a system made by itself does not hold
    // a directory, unless a rule says that it takes part.
    #[test]
    fn litter_goes_and_what_is_ignored_stays() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        let mut observing = Observing::begin(&root, false, Tick(0));
        let mut remove_of = |files: &[&str]| {
            let top = dir.path().join("d");
            std::fs::create_dir_all(top.join("sub")).unwrap();
            for file in files {
                std::fs::write(top.join(file), "x").unwrap();
            }
            root.forget_parents();
            observing.forget_rules();
            let removed = remove(&root, &path("d"), None, &mut observing, &|at| *at == path("d/sub"));
            let left = std::fs::read_dir(&top).map_or(0, Iterator::count);
            let _ = std::fs::remove_dir_all(&top);
            (removed.map_err(|error| error.code()), left)
        };
        std::fs::write(dir.path().join(".synclineignore"), "*.tmp\n!Thumbs.db\n/d/sub/\n").unwrap();
        assert_eq!(remove_of(&["a"]), (Err(ItemCode::InTheWay), 2));
        assert_eq!(remove_of(&["a.tmp", ".DS_Store"]), (Ok(Removed::Stays), 3));
        assert_eq!(remove_of(&["Thumbs.db"]), (Err(ItemCode::InTheWay), 2));
        assert_eq!(remove_of(&[".DS_Store"]), (Ok(Removed::Stays), 2), "sub is left out");
        std::fs::write(dir.path().join(".synclineignore"), "").unwrap();
        assert_eq!(
            remove_of(&[".DS_Store"]),
            (Ok(Removed::Stays), 2),
            "sub was left before"
        );
        std::fs::create_dir(dir.path().join("only")).unwrap();
        std::fs::write(dir.path().join("only/Thumbs.db"), "x").unwrap();
        std::fs::write(dir.path().join("only/.DS_Store"), "x").unwrap();
        root.forget_parents();
        let removed = remove(&root, &path("only"), None, &mut observing, &|_| false);
        assert_eq!(removed.unwrap(), Removed::Gone);
        assert!(!dir.path().join("only").exists());
    }
}
