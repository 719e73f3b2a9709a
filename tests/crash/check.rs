//! The invariants, each as a function of what lies on the disk and of what was said.
//!
//! Never changes anything. Invariant: every check that is made is counted, held or violated.

use crate::tree::{Content, Node, Tree, differences, read_all};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use syncline::store::{Journal, Root, Subject, Unfinished};

/// What must hold. The numbers are those of the threat list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Invariant {
    /// I1: what was acknowledged is there.
    Acknowledged,
    /// I2, I8: a final name shows a complete old or new version, so no byte that was not verified.
    Whole,
    /// I3: a version that was replaced or deleted is still somewhere.
    Kept,
    /// I4: what the sender did not see is not deleted.
    Unseen,
    /// I6: what the journal claims of an unfinished file is there.
    Claimed,
    /// I7: a second recovery changes nothing.
    Recovered,
    /// I9: nothing outside of the receiving folder was touched.
    Confined,
    /// The next run, without faults, makes both sides the same.
    Resumed,
    /// Then nothing of ours is left but what the form on disk allows.
    Tidy,
    /// A process that was not killed lives, and ends with a code that fits; a failed item is named.
    Told,
}

/// What was found at one point, or at many.
#[derive(Debug, Default, Clone)]
pub struct Tally {
    counts: BTreeMap<Invariant, (u32, u32)>,
    pub violations: Vec<String>,
}

impl Tally {
    /// Counts a check; `fault` says what is wrong, and is empty when it held.
    pub fn note(&mut self, invariant: Invariant, fault: &str) {
        let (held, violated) = self.counts.entry(invariant).or_default();
        if fault.is_empty() {
            *held += 1;
        } else {
            *violated += 1;
            self.violations.push(format!("{invariant:?}: {fault}"));
        }
    }

    pub fn add(&mut self, other: Tally) {
        for (invariant, (held, violated)) in other.counts {
            let own = self.counts.entry(invariant).or_default();
            *own = (own.0 + held, own.1 + violated);
        }
        self.violations.extend(other.violations);
    }

    /// Checks that held, and that did not.
    pub fn totals(&self) -> (u32, u32) {
        self.counts
            .values()
            .fold((0, 0), |sum, (held, violated)| (sum.0 + held, sum.1 + violated))
    }
}

/// Whether each final name shows one of its versions; directories and links count, too. `half` is a file
/// that may be half changed.
pub fn whole(found: &Tree, old: &Tree, new: &Tree, half: Option<&Path>) -> String {
    let mut faults = Vec::new();
    for (path, node) in found {
        let is_one = [old, new]
            .iter()
            .any(|tree| tree.get(path).is_some_and(|there| there.stands_for(node)));
        // Its name was taken, its mode and time come with the end.
        let is_new_directory = matches!(node, Node::Directory { .. }) && new.contains_key(path);
        if !is_one && !is_new_directory && half != Some(path) {
            faults.push(format!(
                "{} shows {node:?}; old {:?}, new {:?}",
                path.display(),
                old.get(path),
                new.get(path)
            ));
        }
    }
    for path in old
        .keys()
        .filter(|path| new.contains_key(*path) && !found.contains_key(*path))
    {
        faults.push(format!("{} is gone", path.display()));
    }
    faults.truncate(3);
    faults.join("; ")
}

/// What a client said that was done: paths, and whether they were deleted.
pub fn acknowledged(objects: &[Value]) -> Vec<(PathBuf, bool)> {
    let items = objects.iter().filter(|object| object["event"] == "item");
    let item = |object: &Value| {
        let path = object["path"].as_str().expect("paths of scenarios are UTF-8");
        (PathBuf::from(path), object["action"] == "deleted")
    };
    items.map(item).collect()
}

/// Whether what was acknowledged is there. `total` says that the client ended well: then all is.
/// Directories are promised with the end only: they are made while they are compared.
pub fn acknowledged_is_there(found: &Tree, new: &Tree, items: &[(PathBuf, bool)], total: bool) -> String {
    for (path, is_deleted) in items {
        let fault = match (found.get(path), new.get(path)) {
            (Some(there), _) if *is_deleted => Some(format!("was deleted, and shows {there:?}")),
            (_, Some(Node::Directory { .. })) if !total => None,
            (there, wanted) if !is_deleted && there != wanted => Some(format!("shows {there:?} instead of {wanted:?}")),
            _ => None,
        };
        if let Some(fault) = fault {
            return format!("{} was acknowledged, and {fault}", path.display());
        }
    }
    if total { differences(found, new) } else { String::new() }
}

/// Contents that the first version had and the second does not: where they must be found is up to
/// `places`. One that is nowhere is named.
pub fn kept(old: &Tree, found: &Tree, places: &BTreeSet<Content>) -> String {
    let shown: BTreeSet<Content> = found.values().filter_map(Node::content).collect();
    for (path, node) in old {
        let Some(content) = node.content() else { continue };
        if !shown.contains(&content) && !places.contains(&content) {
            return format!("the old content of {} is nowhere", path.display());
        }
    }
    String::new()
}

/// Whether what the journal claims of unfinished files is there: so many bytes of the file that is sent, be it laid
/// over the `old` version. What it does not claim, such as after a power cut, is checked before it is trusted.
pub fn claimed(received: &Path, source: &Path, old: &Path) -> String {
    let unfinished = match unfinished(received) {
        Ok(unfinished) => unfinished,
        Err(error) => return error,
    };
    for transfer in unfinished.iter().filter(|transfer| transfer.proven) {
        let Subject::Incoming(incoming) = &transfer.subject else {
            continue;
        };
        let kept = received.join(format!(".syncline/staging/kept/{}", transfer.id));
        let path = String::from_utf8_lossy(incoming.path.as_bytes()).into_owned();
        // Published, and nobody came to say so.
        let (Ok(kept), Ok(wanted)) = (fs::read(kept), fs::read(source.join(&path))) else {
            continue;
        };
        let kept = match incoming.basis.is_some_and(|basis| basis.in_place) {
            false => kept,
            true => laid(&kept, fs::read(old.join(&path)).unwrap(), incoming.size),
        };
        let claimed = usize::try_from(transfer.reached.offset).unwrap();
        if kept
            .get(..claimed)
            .is_none_or(|kept| Some(kept) != wanted.get(..claimed))
        {
            return format!(
                "{claimed} bytes of {path} are claimed, and the {} kept are others",
                kept.len()
            );
        }
    }
    String::new()
}

/// What is gathered in a kept file, laid over the old content: docs/FORMAT.md, "staging/kept".
fn laid(kept: &[u8], old: Vec<u8>, size: u64) -> Vec<u8> {
    const PAGE: usize = 4096;
    let size = usize::try_from(size).unwrap();
    let mut result = old;
    result.resize(size, 0);
    let map = kept.get(size.next_multiple_of(PAGE)..).unwrap_or_default();
    for page in 0..size.div_ceil(PAGE) {
        if map.get(page / 8).is_some_and(|byte| byte >> (page % 8) & 1 == 1) {
            let place = page * PAGE..size.min((page + 1) * PAGE);
            result[place.clone()].copy_from_slice(&kept[place]);
        }
    }
    result
}

/// Unfinished transfers of which there is something that can be gone on with.
pub fn goes_on(top: &Path) -> Vec<Unfinished> {
    let kept = top.join(".syncline/staging/kept");
    let mut found = unfinished(top).unwrap_or_default();
    found.retain(|transfer| kept.join(transfer.id.to_string()).exists());
    found
}

/// What the journal of a folder says is unfinished; when it was touched does not count.
pub fn unfinished(top: &Path) -> Result<Vec<Unfinished>, String> {
    let root = Root::open(top).map_err(|error| error.to_string())?;
    let examined = Journal::examine(&root).map_err(|error| format!("the journal cannot be used: {error}"))?;
    let same = |mut transfer: Unfinished| {
        transfer.touched = 0;
        transfer
    };
    Ok(examined
        .transfers
        .into_iter()
        .map(|transfer| same(transfer.unfinished))
        .collect())
}

/// Everything below `top` with our own files, as far as it must not change from one recovery to the next:
/// the lock names its holder, a journal in use may be empty (see [`unfinished`] for what it says), and what happened
/// is written down.
pub fn with_ours(top: &Path) -> Tree {
    let mut tree = read_all(top);
    tree.remove(Path::new(".syncline/lock"));
    tree.remove(Path::new(".syncline/journal"));
    tree.remove(Path::new(".syncline/activity.jsonl"));
    tree.remove(Path::new(".syncline"));
    tree
}

/// What is left below `.syncline` once all is done, and may not: anything but the lock, indexes, versions,
/// the journal and the log, each with a name of its form.
pub fn leftovers(top: &Path) -> String {
    let is_hex = |text: &str, digits: usize| {
        text.len() == digits && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let may_stay = |path: &Path| {
        let parts: Vec<&str> = path.iter().map(|part| part.to_str().unwrap_or_default()).collect();
        match parts[..] {
            ["lock" | "sidecars" | "versions" | "journal"] | ["versions", ..] => true,
            ["activity.jsonl" | "activity.old.jsonl"] => true,
            // Displaced in a crash: it may be somebody's only copy.
            [name] if name.starts_with("rescued-") => true,
            ["sidecars", name] => name
                .split_once('-')
                .is_some_and(|(length, root)| length.parse::<u64>().is_ok() && is_hex(root, 64)),
            _ => false,
        }
    };
    let ours = read_all(&top.join(".syncline"));
    let left: Vec<_> = ours.keys().filter(|path| !may_stay(path)).collect();
    if left.is_empty() {
        String::new()
    } else {
        format!("left in .syncline: {left:?}")
    }
}
