//! The server: a disk, an index that follows it by looking at single paths, and answers with revisions.
//!
//! Knows no devices beyond their numbers. Invariant: a request that is based on anything but the
//! present record changes nothing.

use crate::disk::{Disk, Identity, Node, What, what_of};
use std::collections::{BTreeMap, BTreeSet};
use syncline::model::{Epoch, RelPath, Revision, State};

/// The author of what was edited on the server itself.
pub(crate) const SERVER: usize = usize::MAX;

#[derive(Debug, Clone)]
pub(crate) struct Record {
    pub(crate) state: Option<State>,
    pub(crate) revision: Revision,
    pub(crate) author: usize,
    identity: Option<Identity>,
}

#[derive(Debug, Clone)]
pub(crate) struct Server {
    pub(crate) disk: Disk,
    pub(crate) index: BTreeMap<RelPath, Record>,
    pub(crate) head: Revision,
    pub(crate) epoch: Epoch,
    pub(crate) versions: BTreeSet<u64>,
    /// Contents that were removed or replaced, for the checks: path, content, by whom.
    pub(crate) displaced: Vec<(RelPath, u64, usize)>,
}

/// A request did not fit the present record of a path; it comes along.
pub(crate) struct Stale(pub(crate) Option<Box<(RelPath, Record)>>);

impl Server {
    pub(crate) fn new() -> Server {
        Server {
            disk: Disk::default(),
            index: BTreeMap::new(),
            head: Revision::NONE,
            epoch: Epoch(1),
            versions: BTreeSet::new(),
            displaced: Vec::new(),
        }
    }

    /// Looks at a path; a difference is a new record.
    fn observe(&mut self, path: &RelPath, author: usize) -> Revision {
        let identity = self.disk.identity(path);
        let known = self.index.get(path);
        if identity == known.and_then(|record| record.identity) {
            return known.map_or(Revision::NONE, |record| record.revision);
        }
        self.head = self.head.next();
        let record = Record {
            state: self.disk.get(path).map(Node::read),
            revision: self.head,
            author,
            identity,
        };
        self.index.insert(path.clone(), record);
        self.head
    }

    /// Looks at everything, as after edits on the server itself.
    pub(crate) fn scan(&mut self) {
        let paths: BTreeSet<RelPath> = self.index.keys().chain(self.disk.nodes.keys()).cloned().collect();
        for path in paths {
            self.observe(&path, SERVER);
        }
    }

    /// A new index of what is on the disk.
    pub(crate) fn wipe(&mut self) {
        self.index.clear();
        self.head = Revision::NONE;
        self.epoch = Epoch(self.epoch.0 + 1);
        self.scan();
    }

    /// The first `limit` changes after a revision, and the revision at which the answer ends.
    pub(crate) fn changes(&self, since: Revision, limit: usize) -> (Vec<(RelPath, Record)>, Revision) {
        let newer = self.index.iter().filter(|(_, record)| record.revision > since);
        let mut newer: Vec<_> = newer.map(|(path, record)| (path.clone(), record.clone())).collect();
        newer.sort_by_key(|(_, record)| record.revision);
        if newer.len() <= limit {
            return (newer, self.head);
        }
        newer.truncate(limit);
        let end = newer.last().map_or(since, |(_, record)| record.revision);
        (newer, end)
    }

    fn check(&mut self, path: &RelPath, based_on: Revision) -> Result<(), Stale> {
        self.observe(path, SERVER);
        let record = self.index.get(path);
        let absent = record.is_none_or(|record| record.state.is_none());
        let current = record.map_or(Revision::NONE, |record| record.revision);
        let fits = based_on == current || absent && based_on == Revision::NONE;
        if fits { Ok(()) } else { Err(self.stale(path)) }
    }

    fn stale(&self, path: &RelPath) -> Stale {
        let absent = Record {
            state: None,
            revision: Revision::NONE,
            author: SERVER,
            identity: None,
        };
        let record = self.index.get(path).cloned().unwrap_or(absent);
        Stale(Some(Box::new((path.clone(), record))))
    }

    fn check_parent(&mut self, path: &RelPath) -> Result<(), Stale> {
        let parent = path.parent();
        if self.disk.is_directory(parent.as_ref()) {
            return Ok(());
        }
        let parent = parent.expect("the root is a directory");
        self.observe(&parent, SERVER);
        Err(self.stale(&parent))
    }

    fn keep(&mut self, path: &RelPath, by: usize) {
        if let Some(content) = self.disk.get(path).and_then(Node::content) {
            self.versions.insert(content);
            self.displaced.push((path.clone(), content, by));
        }
    }

    pub(crate) fn send(&mut self, by: usize, path: &RelPath, state: &State, on: Revision) -> Result<Revision, Stale> {
        self.check(path, on)?;
        self.check_parent(path)?;
        let what = what_of(state);
        if let Some(node) = self.disk.get(path) {
            let same_kind = std::mem::discriminant(&node.what) == std::mem::discriminant(&what);
            assert!(same_kind, "{path}: another kind is sent over what is there");
        }
        self.keep(path, by);
        if what == What::Directory && self.disk.get(path).is_some() {
            self.disk.change(path, |node| node.mode = state.meta.mode);
        } else {
            self.disk.put(path, what, state.meta.mode, state.meta.mtime.seconds);
        }
        Ok(self.observe(path, by))
    }

    pub(crate) fn send_meta(
        &mut self,
        by: usize,
        path: &RelPath,
        state: &State,
        on: Revision,
    ) -> Result<Revision, Stale> {
        self.check(path, on)?;
        let node = self.disk.get(path).expect("what has a revision and a state is there");
        assert_eq!(node.what, what_of(state), "{path}: the content was to be the same");
        self.disk.change(path, |node| {
            node.mode = state.meta.mode;
            node.mtime = state.meta.mtime.seconds;
        });
        Ok(self.observe(path, by))
    }

    pub(crate) fn send_remove(&mut self, by: usize, path: &RelPath, on: Revision) -> Result<Revision, Stale> {
        self.check(path, on)?;
        if self.disk.get(path).is_none() {
            return Ok(self.observe(path, by));
        }
        if !self.disk.below(path).is_empty() {
            return Err(Stale(None));
        }
        self.keep(path, by);
        self.disk.remove(path);
        Ok(self.observe(path, by))
    }

    pub(crate) fn send_move(
        &mut self,
        by: usize,
        (from, revision): (&RelPath, Revision),
        to: &RelPath,
        state: &State,
    ) -> Result<Revision, Stale> {
        self.check(from, revision)?;
        self.check(to, Revision::NONE)?;
        self.check_parent(to)?;
        let Some(node) = self.disk.get(from) else {
            return Err(Stale(None));
        };
        assert_eq!(node.what, what_of(state), "{from}: another content was to be moved");
        self.disk.rename(from, to);
        self.disk.change(to, |node| {
            node.mode = state.meta.mode;
            node.mtime = state.meta.mtime.seconds;
        });
        self.observe(from, by);
        Ok(self.observe(to, by))
    }

    /// The content of a file, while it is the one of that revision.
    pub(crate) fn fetch(&mut self, path: &RelPath, revision: Revision) -> Option<u64> {
        if self.observe(path, SERVER) != revision {
            return None;
        }
        self.disk.get(path)?.content()
    }
}
