//! Trees as values: what a scenario prepares, what lies in a folder, and how the two compare.
//! Never follows a link. Invariant: two nodes are equal exactly when kind, content, mode and time are.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, FileTimes, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use xxhash_rust::xxh3::xxh3_128;

/// Paths relative to the top, in order; parents come before what they hold.
pub type Tree = BTreeMap<PathBuf, Node>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    Directory { mode: u32, mtime: i64 },
    File { content: Content, mode: u32, mtime: i64 },
    Link { target: PathBuf },
    Other,
}

/// What a file holds: its length, and a hash that no accident meets.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Content {
    pub length: u64,
    pub hash: u128,
}

impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes {:08x}", self.length, self.hash >> 96)
    }
}

impl Node {
    /// The content, if it is a file.
    pub fn content(&self) -> Option<Content> {
        match self {
            Node::File { content, .. } => Some(*content),
            Node::Directory { .. } | Node::Link { .. } | Node::Other => None,
        }
    }

    /// Whether both are directories, or both the same in everything: times and modes of directories
    /// are set when all that is in them is done.
    pub fn stands_for(&self, other: &Node) -> bool {
        match (self, other) {
            (Node::Directory { .. }, Node::Directory { .. }) => true,
            _ => self == other,
        }
    }
}

pub fn content_of(bytes: &[u8]) -> Content {
    Content {
        length: bytes.len() as u64,
        hash: xxh3_128(bytes),
    }
}

/// What lies below `top`, without our own directory there; empty when there is no such folder.
pub fn read_tree(top: &Path) -> Tree {
    let mut tree = read_all(top);
    tree.retain(|path, _| !path.starts_with(".syncline"));
    tree
}

/// What lies below `top`, our own files included. What vanishes meanwhile is left out.
pub fn read_all(top: &Path) -> Tree {
    let mut tree = Tree::new();
    let mut waiting = vec![top.to_path_buf()];
    while let Some(directory) = waiting.pop() {
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            let path = entry.path();
            let Some(node) = read_node(&path) else { continue };
            if matches!(node, Node::Directory { .. }) {
                waiting.push(path.clone());
            }
            let relative = path.strip_prefix(top).unwrap();
            tree.insert(relative.to_path_buf(), node);
        }
    }
    tree
}

fn read_node(path: &Path) -> Option<Node> {
    let meta = fs::symlink_metadata(path).ok()?;
    let (mode, mtime) = (meta.mode() & 0o7777, meta.mtime());
    let node = if meta.is_symlink() {
        let target = fs::read_link(path).ok()?;
        Node::Link { target }
    } else if meta.is_dir() {
        Node::Directory { mode, mtime }
    } else if meta.is_file() {
        let content = content_of(&fs::read(path).ok()?);
        Node::File { content, mode, mtime }
    } else {
        Node::Other
    };
    Some(node)
}

/// A tree that is to be written: files with their bytes, links; directories come of themselves.
#[derive(Debug, Default, Clone)]
pub struct Plan {
    files: BTreeMap<&'static str, (Vec<u8>, i64)>,
    links: BTreeMap<&'static str, &'static str>,
}

impl Plan {
    /// Adds or replaces a file.
    pub fn file(mut self, path: &'static str, content: Vec<u8>, mtime: i64) -> Plan {
        self.files.insert(path, (content, mtime));
        self
    }

    pub fn link(mut self, path: &'static str, target: &'static str) -> Plan {
        self.links.insert(path, target);
        self
    }

    /// Gives a file another name.
    pub fn renamed(mut self, from: &str, to: &'static str) -> Plan {
        let file = self.files.remove(from).expect("a file of the plan");
        self.files.insert(to, file);
        self
    }

    /// Makes `top` hold this and nothing else, apart from what is ours.
    pub fn write(&self, top: &Path) {
        self.clear_others(top);
        self.add(top);
    }

    fn clear_others(&self, top: &Path) {
        for path in read_tree(top).keys().rev() {
            let (name, path) = (path.to_str().unwrap(), top.join(path));
            let stays = self.files.contains_key(name) || self.links.contains_key(name);
            if !stays && (path.is_symlink() || path.is_file()) {
                fs::remove_file(path).unwrap();
            } else if path.is_dir() && !path.is_symlink() {
                // Only what is empty by now.
                let _ = fs::remove_dir(path);
            }
        }
    }

    /// Writes it into `top`, beside or over what is there. Directories get a time of their own, so that a
    /// missing one shows.
    pub fn add(&self, top: &Path) {
        const DIRECTORY_MTIME: i64 = 1_500_000_000;
        fs::create_dir_all(top).unwrap();
        let mut directories: BTreeSet<PathBuf> = BTreeSet::new();
        let names = self.files.keys().chain(self.links.keys());
        for parent in names.filter_map(|name| Path::new(name).parent()) {
            fs::create_dir_all(top.join(parent)).unwrap();
            let above = parent.ancestors().filter(|at| !at.as_os_str().is_empty());
            directories.extend(above.map(|at| top.join(at)));
        }
        for (path, (content, mtime)) in &self.files {
            let path = top.join(path);
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
            set_mtime(&path, *mtime);
        }
        for (path, target) in &self.links {
            let path = top.join(path);
            let _ = fs::remove_file(&path);
            symlink(target, &path).unwrap();
        }
        for directory in directories {
            set_mtime(&directory, DIRECTORY_MTIME);
        }
    }
}

fn set_mtime(path: &Path, seconds: i64) {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.unsigned_abs());
    let file = File::open(path).unwrap();
    file.set_times(FileTimes::new().set_modified(time)).unwrap();
}

/// The first few differences, one a line; empty when the trees are equal.
pub fn differences(found: &Tree, wanted: &Tree) -> String {
    let lacks = wanted.iter().filter_map(|(path, node)| match found.get(path) {
        Some(there) if there == node => None,
        there => Some(format!("{}: {there:?} instead of {node:?}", path.display())),
    });
    let beyond = found.iter().filter(|(path, _)| !wanted.contains_key(*path));
    let beyond = beyond.map(|(path, node)| format!("{}: {node:?} should not be there", path.display()));
    lacks.chain(beyond).take(5).collect::<Vec<_>>().join("\n")
}
