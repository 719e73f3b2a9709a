//! A file tree in memory, and what is going to go wrong with it.

use crate::rng::Rng;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::rc::Rc;
use syncline::delta::content_id;
use syncline::model::limits::LEAF_BYTES;
use syncline::model::{Entry, ItemCode, Kind, Meta, RelPath, Timestamp};

/// Content of a file; `holes` are ranges of zeros that travel as holes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Body {
    pub(crate) bytes: Vec<u8>,
    pub(crate) holes: Vec<Range<usize>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Node {
    File(Rc<Body>),
    Directory,
    Symlink(Box<[u8]>),
}

pub(crate) type Tree = BTreeMap<RelPath, (Node, Meta)>;

/// What goes wrong with a file at its source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SourceTrouble {
    /// It changes during the first so many reads.
    Changes(u32),
    /// A bit flips on the way, the first so many times.
    Damaged(u32),
    Unreadable(ItemCode),
    ReadFails(ItemCode),
}

/// What goes wrong with a file at its target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TargetTrouble {
    Verdict(ItemCode),
    /// At any moment after it was wanted.
    Early(ItemCode),
    AtStart(ItemCode),
    Midway(ItemCode),
    /// While a question about it is open, or else when it is to be published.
    WhenAsked(ItemCode),
    AtCommit(ItemCode),
}

/// One side's disk.
#[derive(Debug, Clone, Default)]
pub(crate) struct Disk {
    pub(crate) tree: Tree,
    pub(crate) source_troubles: HashMap<RelPath, SourceTrouble>,
    pub(crate) target_troubles: HashMap<RelPath, TargetTrouble>,
    /// Beginnings of files that a broken transfer has left.
    pub(crate) kept: HashMap<RelPath, Vec<u8>>,
    /// Entries that cannot even be listed.
    pub(crate) unlistable: Vec<(Vec<u8>, ItemCode)>,
}

impl Disk {
    pub(crate) fn file(&self, path: &RelPath) -> Option<(Rc<Body>, Meta)> {
        match self.tree.get(path)? {
            (Node::File(body), meta) => Some((Rc::clone(body), *meta)),
            _ => None,
        }
    }

    pub(crate) fn source_trouble(&self, path: &RelPath) -> Option<SourceTrouble> {
        self.source_troubles.get(path).copied()
    }

    pub(crate) fn target_trouble(&self, path: &RelPath) -> Option<TargetTrouble> {
        self.target_troubles.get(path).copied()
    }
}

impl SourceTrouble {
    /// Whether the file never arrives, with three retries.
    pub(crate) fn is_fatal(self) -> bool {
        match self {
            SourceTrouble::Changes(times) | SourceTrouble::Damaged(times) => {
                times > syncline::model::limits::CHANGED_RETRIES_MAX
            }
            SourceTrouble::Unreadable(_) | SourceTrouble::ReadFails(_) => true,
        }
    }
}

impl Body {
    pub(crate) fn new(bytes: Vec<u8>) -> Rc<Body> {
        Rc::new(Body {
            bytes,
            holes: Vec::new(),
        })
    }

    pub(crate) fn root(&self) -> [u8; 32] {
        content_id(&self.bytes).root
    }

    /// Whether nothing but holes is behind `offset`.
    pub(crate) fn is_hole_from(&self, offset: usize) -> bool {
        match self.extent(offset) {
            Extent::Data(length) => length == 0,
            Extent::Hole(length) => self.is_hole_from(offset + length),
        }
    }

    /// The hole that holds `offset`, or the end of the data that starts there.
    pub(crate) fn extent(&self, offset: usize) -> Extent {
        for hole in &self.holes {
            if hole.contains(&offset) {
                return Extent::Hole(hole.end - offset);
            }
            if hole.start > offset {
                return Extent::Data(hole.start - offset);
            }
        }
        Extent::Data(self.bytes.len() - offset)
    }
}

/// What is at an offset, and for how many bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Extent {
    Data(usize),
    Hole(usize),
}

pub(crate) fn path(text: &str) -> RelPath {
    RelPath::parse(text.as_bytes()).unwrap()
}

pub(crate) fn meta(mode: u32, seconds: i64) -> Meta {
    let mtime = Timestamp {
        seconds,
        nanos: (seconds as u32).wrapping_mul(7919) % 1_000_000_000,
    };
    Meta { mode, mtime }
}

pub(crate) fn entry_of(path: &RelPath, node: &Node, meta: Meta) -> Entry {
    let kind = match node {
        Node::File(body) => Kind::File {
            size: body.bytes.len() as u64,
        },
        Node::Directory => Kind::Directory,
        Node::Symlink(target) => Kind::Symlink { target: target.clone() },
    };
    let path = path.clone();
    Entry { path, kind, meta }
}

pub(crate) fn random_body(rng: &mut Rng, bytes_max: usize) -> Rc<Body> {
    let length = match rng.below(4) {
        0 => rng.index(64),
        1 => rng.index(17 * 1024),
        _ => rng.index(bytes_max),
    };
    let length = length.min(bytes_max);
    let length = match rng.once_in(5) {
        true if length >= LEAF_BYTES => length / LEAF_BYTES * LEAF_BYTES,
        _ => length,
    };
    let mut bytes = rng.bytes(length);
    let mut holes = Vec::new();
    if bytes.len() > 17 * 1024 && rng.once_in(3) {
        let start = rng.index(bytes.len() - 2);
        let end = start + 1 + rng.index(bytes.len() - start - 1);
        bytes[start..end].fill(0);
        holes.push(start..end);
    }
    Rc::new(Body { bytes, holes })
}

fn random_meta(rng: &mut Rng) -> Meta {
    meta(rng.pick(&[0o644, 0o600, 0o755]), rng.below(2_000_000_000) as i64 - 1000)
}

/// A tree of up to `entries` entries, deep and wide, with every kind.
pub(crate) fn random_tree(rng: &mut Rng, entries: usize, bytes_max: usize) -> Tree {
    let mut tree = Tree::new();
    let mut directories: Vec<Option<RelPath>> = vec![None];
    for number in 0..rng.index(entries + 1) {
        let parent = directories[rng.index(directories.len())].clone();
        let name = match rng.below(4) {
            0 => format!("f{number}").into_bytes(),
            1 => format!("a rather long name of an entry {number}").into_bytes(),
            2 => [&b"\xff\x1b"[..], number.to_string().as_bytes()].concat(),
            _ => format!("{number}").into_bytes(),
        };
        let path = RelPath::parse(&name).unwrap();
        let path = path.below(parent.as_ref()).unwrap();
        let node = match rng.below(8) {
            0 | 1 => {
                directories.push(Some(path.clone()));
                Node::Directory
            }
            2 => Node::Symlink(format!("../{number}").into_bytes().into()),
            _ => Node::File(random_body(rng, bytes_max)),
        };
        tree.insert(path, (node, random_meta(rng)));
    }
    tree
}

/// What an earlier run may have left of `source`: parts of it, some outdated, some only here.
pub(crate) fn random_leftover(rng: &mut Rng, source: &Tree) -> Tree {
    let mut tree = Tree::new();
    for (path, (node, meta)) in source {
        let parent_is_there = path
            .parent()
            .is_none_or(|parent| matches!(tree.get(&parent), Some((Node::Directory, _))));
        if !parent_is_there {
            continue;
        }
        let other = match rng.below(12) {
            0..=4 => (node.clone(), *meta),
            5 => (node.clone(), random_meta(rng)),
            6 => (Node::File(random_body(rng, 3000)), random_meta(rng)),
            7 => (Node::Symlink(b"elsewhere"[..].into()), random_meta(rng)),
            8 => (Node::Directory, random_meta(rng)),
            _ => continue,
        };
        tree.insert(path.clone(), other);
        if rng.once_in(6) {
            let extra = RelPath::parse(format!("only here {}", rng.below(1000)).as_bytes());
            let node = Node::File(random_body(rng, 100));
            tree.insert(extra.unwrap(), (node, random_meta(rng)));
        }
    }
    tree
}

pub(crate) fn random_code(rng: &mut Rng) -> ItemCode {
    rng.pick(&ItemCode::ALL)
}

/// Gives one file in `every` a trouble at its source, and one at its target.
pub(crate) fn add_troubles(rng: &mut Rng, source: &mut Disk, target: &mut Disk, every: u64) {
    let files = source.tree.iter();
    let files = files.filter(|(_, (node, _))| matches!(node, Node::File(_)));
    for path in files.map(|(path, _)| path.clone()) {
        if rng.once_in(every) {
            let trouble = match rng.below(6) {
                0 | 1 => SourceTrouble::Changes(1 + rng.below(5) as u32),
                2 | 3 => SourceTrouble::Damaged(1 + rng.below(5) as u32),
                4 => SourceTrouble::Unreadable(random_code(rng)),
                _ => SourceTrouble::ReadFails(random_code(rng)),
            };
            source.source_troubles.insert(path.clone(), trouble);
        }
        if rng.once_in(every) {
            let code = random_code(rng);
            let trouble = match rng.below(8) {
                0 => TargetTrouble::Verdict(code),
                1 | 2 => TargetTrouble::Early(code),
                3 => TargetTrouble::AtStart(code),
                4 => TargetTrouble::Midway(code),
                5 | 6 => TargetTrouble::WhenAsked(code),
                _ => TargetTrouble::AtCommit(code),
            };
            target.target_troubles.insert(path, trouble);
        }
    }
}
