//! What users do: to a folder of a device, or to the share on the server itself.
//!
//! Invariant: an edit never needs anything but the disk it is made on, and tells what it destroyed.

use crate::disk::{Disk, Node, What};
use crate::rng::Rng;
use syncline::model::RelPath;

const NAMES: [&str; 5] = ["a", "b", "c", "A", "d.txt"];

/// What an edit did, for the checks.
#[derive(Debug, Clone, Default)]
pub(crate) struct Edit {
    pub(crate) told: String,
    /// Paths with whatever stands there now or stood there.
    pub(crate) touched: Vec<RelPath>,
    /// Files that are gone by the user's own wish, and were not moved: path and content.
    pub(crate) deleted: Vec<(RelPath, u64)>,
    /// Contents of which a copy was overwritten or deleted.
    pub(crate) destroyed: Vec<u64>,
    pub(crate) written: Option<u64>,
}

/// Numbers that no two writes share.
#[derive(Debug, Clone, Default)]
pub(crate) struct Fresh {
    content: u64,
    pub(crate) contents: Vec<u64>,
}

impl Fresh {
    fn next(&mut self, rng: &mut Rng) -> u64 {
        // Sometimes two users write the same.
        if !self.contents.is_empty() && rng.once_in(8) {
            return rng.pick(&self.contents);
        }
        self.content += 1;
        self.contents.push(self.content);
        self.content
    }
}

fn any_path(disk: &Disk, rng: &mut Rng) -> RelPath {
    let directories = disk.nodes.iter().filter(|(_, node)| node.what == What::Directory);
    let mut parents: Vec<Option<RelPath>> = directories.map(|(path, _)| Some(path.clone())).collect();
    parents.retain(|path| path.as_ref().is_none_or(|path| path.components().count() < 4));
    parents.push(None);
    let name = rng.pick(&NAMES).as_bytes();
    match &parents[rng.index(parents.len())] {
        Some(parent) => parent.child(name).unwrap(),
        None => RelPath::parse(name).unwrap(),
    }
}

fn existing(disk: &Disk, rng: &mut Rng, fits: impl Fn(&What) -> bool) -> Option<RelPath> {
    let nodes = disk.nodes.iter().filter(|(_, node)| fits(&node.what));
    let paths: Vec<&RelPath> = nodes.map(|(path, _)| path).collect();
    (!paths.is_empty()).then(|| paths[rng.index(paths.len())].clone())
}

fn is_file(what: &What) -> bool {
    matches!(what, What::File(_))
}

/// One random edit; `now` is what the clock says there.
pub(crate) fn edit(disk: &mut Disk, rng: &mut Rng, fresh: &mut Fresh, now: i64, special: bool) -> Edit {
    let mut made = Edit::default();
    match rng.below(20) {
        0..=4 => write(disk, rng, fresh, now, &mut made),
        5..=7 => rewrite(disk, rng, fresh, now, &mut made),
        8 | 9 => delete(disk, rng, &mut made),
        10..=12 => rename(disk, rng, &mut made),
        13 => swap(disk, rng, &mut made),
        14 | 15 => directory(disk, rng, &mut made),
        16 => meta(disk, rng, now, &mut made),
        17 => link(disk, rng, &mut made),
        18 => chain(disk, rng, &mut made),
        _ if special => {
            let path = RelPath::parse(b"d.txt/special").unwrap();
            if disk.is_free(&path) {
                disk.put(&path, What::Special, 0o600, 0);
                made.told = format!("special {path}");
            }
        }
        _ => into_itself(disk, rng, &mut made),
    }
    made
}

fn clear(disk: &mut Disk, path: &RelPath, made: &mut Edit) {
    for path in disk.below(path).iter().rev().chain([path]) {
        if disk.get(path).is_some() {
            let node = disk.remove(path);
            made.touched.push(path.clone());
            made.destroyed.extend(node.content());
            made.deleted
                .extend(node.content().map(|content| (path.clone(), content)));
        }
    }
}

fn write(disk: &mut Disk, rng: &mut Rng, fresh: &mut Fresh, now: i64, made: &mut Edit) {
    let path = any_path(disk, rng);
    clear(disk, &path, made);
    let content = fresh.next(rng);
    disk.put(&path, What::File(content), 0o644, now);
    made.told = format!("write {path} := {content}");
    made.written = Some(content);
    made.touched.push(path.clone());
    made.deleted.retain(|(other, _)| *other != path);
}

fn rewrite(disk: &mut Disk, rng: &mut Rng, fresh: &mut Fresh, now: i64, made: &mut Edit) {
    let Some(path) = existing(disk, rng, is_file) else {
        return;
    };
    let content = fresh.next(rng);
    made.destroyed.extend(disk.get(&path).and_then(Node::content));
    disk.change(&path, |node| {
        node.what = What::File(content);
        node.mtime = now;
    });
    made.told = format!("rewrite {path} := {content}");
    made.written = Some(content);
    made.touched.push(path);
}

fn delete(disk: &mut Disk, rng: &mut Rng, made: &mut Edit) {
    if let Some(path) = existing(disk, rng, |_| true) {
        clear(disk, &path, made);
        made.told = format!("delete {path}");
    }
}

fn move_to(disk: &mut Disk, from: &RelPath, to: &RelPath, made: &mut Edit) {
    let within = [from.as_bytes(), b"/"].concat();
    if from == to || to.as_bytes().starts_with(&within) || !disk.is_directory(to.parent().as_ref()) {
        return;
    }
    if from.as_bytes().starts_with(&[to.as_bytes(), b"/"].concat()) {
        return;
    }
    clear(disk, to, made);
    made.deleted.clear();
    made.touched.extend(disk.below(from));
    disk.rename(from, to);
    made.touched.extend(disk.below(to));
    made.touched.extend([from.clone(), to.clone()]);
    made.told += &format!("rename {from} -> {to} ");
}

fn rename(disk: &mut Disk, rng: &mut Rng, made: &mut Edit) {
    if let Some(from) = existing(disk, rng, |_| true) {
        let to = any_path(disk, rng);
        move_to(disk, &from, &to, made);
    }
}

fn swap(disk: &mut Disk, rng: &mut Rng, made: &mut Edit) {
    let (Some(one), Some(other)) = (existing(disk, rng, is_file), existing(disk, rng, |_| true)) else {
        return;
    };
    let apart = |a: &RelPath, b: &RelPath| !a.as_bytes().starts_with(&[b.as_bytes(), b"/"].concat());
    if one != other && apart(&one, &other) && apart(&other, &one) {
        let aside = RelPath::parse(b"swapping").unwrap();
        move_to(disk, &one, &aside, made);
        move_to(disk, &other, &one, made);
        move_to(disk, &aside, &other, made);
    }
}

/// A log rotates: c goes, b becomes c, a becomes b.
fn chain(disk: &mut Disk, rng: &mut Rng, made: &mut Edit) {
    let parent = existing(disk, rng, |what| *what == What::Directory);
    let path = |name: &str| match &parent {
        Some(parent) => parent.child(name.as_bytes()).unwrap(),
        None => RelPath::parse(name.as_bytes()).unwrap(),
    };
    for (from, to) in [("b", "c"), ("a", "b"), ("A", "a")] {
        if disk.get(&path(from)).is_some() {
            move_to(disk, &path(from), &path(to), made);
        }
    }
}

fn directory(disk: &mut Disk, rng: &mut Rng, made: &mut Edit) {
    let path = any_path(disk, rng);
    let file = disk.get(&path).is_some_and(|node| node.what != What::Directory);
    if file {
        clear(disk, &path, made);
    }
    if disk.is_free(&path) {
        disk.put(&path, What::Directory, 0o755, 0);
        made.told = format!("mkdir {path}");
        made.touched.push(path);
    }
}

/// A file becomes a directory with the file in it: `x` is now `x/a`.
fn into_itself(disk: &mut Disk, rng: &mut Rng, made: &mut Edit) {
    let Some(path) = existing(disk, rng, is_file).filter(|path| path.components().count() < 4) else {
        return;
    };
    let aside = RelPath::parse(b"swapping").unwrap();
    move_to(disk, &path, &aside, made);
    disk.put(&path, What::Directory, 0o755, 0);
    let inner = path.child(b"a").unwrap();
    move_to(disk, &aside, &inner, made);
}

fn meta(disk: &mut Disk, rng: &mut Rng, now: i64, made: &mut Edit) {
    let Some(path) = existing(disk, rng, |what| *what != What::Special) else {
        return;
    };
    let (mode, touch) = (rng.pick(&[0o600, 0o755, 0o555, 0o444]), rng.once_in(2));
    disk.change(&path, |node| match node.what {
        What::File(_) if touch => node.mtime = now,
        What::Link(_) | What::Special => {}
        _ => node.mode = mode,
    });
    made.told = format!("meta {path}");
    made.touched.push(path);
}

fn link(disk: &mut Disk, rng: &mut Rng, made: &mut Edit) {
    let path = any_path(disk, rng);
    clear(disk, &path, made);
    made.deleted.clear();
    disk.put(&path, What::Link(rng.below(3) as u8), 0o777, 0);
    made.told = format!("link {path}");
    made.touched.push(path);
}
