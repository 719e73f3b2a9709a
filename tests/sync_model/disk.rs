//! A tree in memory with what `stat` would tell of it: inodes that are used again, times, change counts.
//!
//! Knows no sync. A content is a number; its root is made of the number, and so few sizes are in use that
//! different contents often have one.

use std::collections::BTreeMap;
use syncline::model::{Kind, Meta, RelPath, State, Timestamp};

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum What {
    Directory,
    File(u64),
    Link(u8),
    /// A FIFO or something ignored: never synced.
    Special,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) file: u64,
    pub(crate) what: What,
    pub(crate) mode: u32,
    pub(crate) mtime: i64,
    /// As the ctime: another number with each change.
    pub(crate) changed: u64,
}

/// What is compared to tell whether something changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Identity {
    file: u64,
    mode: u32,
    mtime: i64,
    changed: u64,
}

impl Node {
    pub(crate) fn identity(&self) -> Identity {
        let directory = self.what == What::Directory;
        Identity {
            file: self.file,
            mode: self.mode,
            mtime: if directory { 0 } else { self.mtime },
            changed: if directory { 0 } else { self.changed },
        }
    }

    /// As a survey sees it: without the root.
    pub(crate) fn seen(&self) -> State {
        let kind = match &self.what {
            What::Directory => Kind::Directory,
            What::File(content) => Kind::File { size: size(*content) },
            What::Link(target) => Kind::Symlink {
                target: vec![b't', *target].into(),
            },
            What::Special => unreachable!("what is special has no state"),
        };
        let mtime = Timestamp {
            seconds: self.mtime,
            nanos: 0,
        };
        let meta = Meta { mode: self.mode, mtime };
        State { kind, meta, root: None }
    }

    /// With the root, if it is a file.
    pub(crate) fn read(&self) -> State {
        let root = self.content().map(root);
        State { root, ..self.seen() }
    }

    pub(crate) fn content(&self) -> Option<u64> {
        match self.what {
            What::File(content) => Some(content),
            _ => None,
        }
    }
}

fn size(content: u64) -> u64 {
    4 + content % 2
}

fn root(content: u64) -> [u8; 32] {
    let mut root = [7; 32];
    root[..8].copy_from_slice(&content.to_le_bytes());
    root
}

/// What a state stands for.
pub(crate) fn what_of(state: &State) -> What {
    match &state.kind {
        Kind::Directory => What::Directory,
        Kind::Symlink { target } => What::Link(target[1]),
        Kind::File { .. } => {
            let root = state.root.expect("what is told of a file has its root");
            What::File(u64::from_le_bytes(root[..8].try_into().unwrap()))
        }
    }
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Disk {
    pub(crate) nodes: BTreeMap<RelPath, Node>,
    free: Vec<u64>,
    last_file: u64,
    changes: u64,
}

impl Disk {
    pub(crate) fn get(&self, path: &RelPath) -> Option<&Node> {
        self.nodes.get(path)
    }

    pub(crate) fn identity(&self, path: &RelPath) -> Option<Identity> {
        self.get(path).map(Node::identity)
    }

    pub(crate) fn is_directory(&self, path: Option<&RelPath>) -> bool {
        path.is_none_or(|path| self.get(path).is_some_and(|node| node.what == What::Directory))
    }

    /// Whether something could be made here.
    pub(crate) fn is_free(&self, path: &RelPath) -> bool {
        self.get(path).is_none() && self.is_directory(path.parent().as_ref())
    }

    pub(crate) fn below(&self, path: &RelPath) -> Vec<RelPath> {
        let prefix = [path.as_bytes(), b"/"].concat();
        let within = self.nodes.keys().filter(|key| key.as_bytes().starts_with(&prefix));
        within.cloned().collect()
    }

    fn next_change(&mut self) -> u64 {
        self.changes += 1;
        self.changes
    }

    /// Puts a new inode at `path`; what was there is gone.
    pub(crate) fn put(&mut self, path: &RelPath, what: What, mode: u32, mtime: i64) {
        assert!(self.is_directory(path.parent().as_ref()), "{path} has no directory");
        assert!(self.below(path).is_empty(), "{path} is not empty");
        let file = self.free.pop().unwrap_or_else(|| {
            self.last_file += 1;
            self.last_file
        });
        let changed = self.next_change();
        let node = Node {
            file,
            what,
            mode,
            mtime,
            changed,
        };
        if let Some(old) = self.nodes.insert(path.clone(), node) {
            self.free.push(old.file);
        }
    }

    /// Takes away one node with nothing in it.
    pub(crate) fn remove(&mut self, path: &RelPath) -> Node {
        assert!(self.below(path).is_empty(), "{path} is not empty");
        let node = self.nodes.remove(path).expect("it was found before");
        self.free.push(node.file);
        node
    }

    /// Changes a node where it is.
    pub(crate) fn change(&mut self, path: &RelPath, change: impl FnOnce(&mut Node)) {
        let changed = self.next_change();
        let node = self.nodes.get_mut(path).expect("it was found before");
        change(node);
        node.changed = changed;
    }

    /// Renames, with all that is below, to a free path.
    pub(crate) fn rename(&mut self, from: &RelPath, to: &RelPath) {
        assert!(self.is_free(to), "{to} is not free");
        for path in self.below(from) {
            let node = self.nodes.remove(&path).expect("it was listed");
            let rest = &path.as_bytes()[from.as_bytes().len()..];
            let new = RelPath::parse(&[to.as_bytes(), rest].concat()).unwrap();
            self.nodes.insert(new, node);
        }
        let mut node = self.nodes.remove(from).expect("it was found before");
        node.changed = self.next_change();
        self.nodes.insert(to.clone(), node);
    }

    pub(crate) fn contents(&self) -> impl Iterator<Item = u64> + '_ {
        self.nodes.values().filter_map(Node::content)
    }

    /// What another disk must have as well.
    pub(crate) fn tree(&self) -> BTreeMap<&RelPath, (&What, u32, i64)> {
        let shared = self.nodes.iter().filter(|(_, node)| node.what != What::Special);
        let told = shared.map(|(path, node)| match node.what {
            What::File(_) => (path, (&node.what, node.mode, node.mtime)),
            What::Directory => (path, (&node.what, node.mode, 0)),
            _ => (path, (&node.what, 0, 0)),
        });
        told.collect()
    }
}
