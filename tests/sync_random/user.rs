//! What users do to a tree at random: writes, renames, deletions, changes of kind.

use crate::rng::Rng;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Names are few, so that paths meet.
const NAMES: &[&[u8]] = &[b"a", b"b", b"c", b"d", b"A", b"e \xc3\xa9", b"n\xff", b"f.txt"];

/// Gives each content once, each with a length of its own.
#[derive(Default)]
pub(crate) struct Fresh {
    count: usize,
}

impl Fresh {
    pub(crate) fn content(&mut self, rng: &mut Rng) -> Vec<u8> {
        self.count += 1;
        // Where a second write within a tick of the clock has the same length, nobody could tell.
        let length = 24 + self.count + if rng.once_in(6) { 60_000 + 1000 * self.count } else { 0 };
        let mut content = format!("content {} ", self.count).into_bytes();
        let rest = rng.bytes(length - content.len());
        content.extend(rest);
        content
    }
}

/// Everything in a tree, its root excepted, `.syncline` left out; directories before what is in them.
pub(crate) fn paths(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut waiting = vec![root.to_path_buf()];
    while let Some(directory) = waiting.pop() {
        let Ok(entries) = fs::read_dir(&directory) else {
            continue;
        };
        let mut entries: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        entries.sort();
        for path in entries {
            if path == root.join(".syncline") {
                continue;
            }
            if fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_dir()) {
                waiting.push(path.clone());
            }
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Contents of all files beneath `root`, what is inside `.syncline` excepted.
pub(crate) fn contents(root: &Path) -> BTreeSet<Vec<u8>> {
    let is_file = |path: &PathBuf| fs::symlink_metadata(path).is_ok_and(|meta| meta.is_file());
    paths(root)
        .iter()
        .filter(|path| is_file(path))
        .flat_map(fs::read)
        .collect()
}

fn name(rng: &mut Rng, directory: &Path) -> PathBuf {
    directory.join(OsStr::from_bytes(rng.pick(NAMES)))
}

fn directory(rng: &mut Rng, root: &Path) -> PathBuf {
    let found = paths(root);
    let mut all: Vec<PathBuf> = found
        .into_iter()
        .filter(|path| path.is_dir() && !path.is_symlink())
        .collect();
    all.retain(|path| path.components().count() < root.components().count() + 3);
    all.push(root.to_path_buf());
    all[rng.index(all.len())].clone()
}

/// One edit in the tree; what was done, or nothing.
pub(crate) fn edit(root: &Path, rng: &mut Rng, fresh: &mut Fresh) -> String {
    let at = directory(rng, root);
    let found = paths(root);
    let any = (!found.is_empty()).then(|| found[rng.index(found.len())].clone());
    let done = match (rng.below(16), any) {
        (0..=3, _) | (_, None) => {
            let path = name(rng, &at);
            let is_new = fs::symlink_metadata(&path).is_err();
            let content = fresh.content(rng);
            is_new
                .then(|| fs::write(&path, content))
                .map(|done| (format!("new {path:?}"), done))
        }
        (4..=6, Some(path)) if path.is_file() && !path.is_symlink() => {
            let content = fresh.content(rng);
            let by_rename = rng.once_in(2);
            let written = if by_rename {
                let staged = root.with_extension("staged");
                fs::write(&staged, content).and_then(|()| fs::rename(&staged, &path))
            } else {
                fs::write(&path, content)
            };
            Some((format!("write {path:?} by_rename {by_rename}"), written))
        }
        (7, Some(path)) if path.is_dir() && !path.is_symlink() => {
            Some((format!("remove {path:?} and all in it"), fs::remove_dir_all(&path)))
        }
        (7 | 8, Some(path)) if !path.is_dir() || path.is_symlink() => {
            Some((format!("remove {path:?}"), fs::remove_file(&path)))
        }
        (9 | 10, Some(path)) => {
            let to = name(rng, &at);
            let is_new = fs::symlink_metadata(&to).is_err() && !to.starts_with(&path);
            is_new.then(|| (format!("move {path:?} to {to:?}"), fs::rename(&path, &to)))
        }
        (11, _) => {
            let path = name(rng, &at);
            Some((format!("make directory {path:?}"), fs::create_dir(&path)))
        }
        (12, _) => {
            let path = name(rng, &at);
            let target = format!("target {}", rng.below(5));
            Some((
                format!("link {path:?} {target}"),
                std::os::unix::fs::symlink(target, &path),
            ))
        }
        (13, Some(path)) if !path.is_symlink() => {
            let mode = if path.is_dir() {
                rng.pick(&[0o755, 0o700])
            } else {
                rng.pick(&[0o644, 0o600, 0o755])
            };
            let done = fs::set_permissions(&path, fs::Permissions::from_mode(mode));
            Some((format!("mode {mode:o} of {path:?}"), done))
        }
        (14, Some(path)) if path.is_file() && !path.is_symlink() => {
            let replaced = fs::remove_file(&path).and_then(|()| fs::create_dir(&path));
            Some((format!("{path:?} becomes a directory"), replaced))
        }
        (15, Some(path)) if path.is_dir() && !path.is_symlink() => {
            let content = fresh.content(rng);
            let replaced = fs::remove_dir_all(&path).and_then(|()| fs::write(&path, content));
            Some((format!("{path:?} becomes a file"), replaced))
        }
        _ => None,
    };
    match done {
        Some((told, Ok(()))) => told,
        Some((told, Err(error))) => format!("({told}: {error})"),
        None => String::new(),
    }
}
