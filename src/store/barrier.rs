//! `Barrier`: a group of files and directories that become durable together, on a helper thread.
//!
//! Holds no state beyond the group, publishes nothing. Invariant: `run` says yes only when everything
//! in the group is on the disk; a flush that failed is never tried again, because the kernel forgets
//! the pages that it could not write.

use super::resolve::Resolver;
use super::root::Root;
use super::staged::{Form, Sealed};
use super::staging::Session;
use crate::model::RelPath;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{Mode, OFlags, fsync, openat, syncfs};
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

/// Files before they are published, and directories after.
#[derive(Debug)]
pub struct Barrier {
    root: Arc<OwnedFd>,
    resolver: Resolver,
    files: Vec<(Arc<Session>, String)>,
    /// `None` is the root itself.
    directories: BTreeSet<Option<RelPath>>,
    /// Directories below `.syncline`, and above it, by their paths relative to the root.
    private: BTreeSet<Box<[u8]>>,
}

/// Up to this many items are flushed one by one; more are cheaper as one flush of the file system. Also beside large
/// files, as long as those are flushed on their way: 16 files beside one that comes in parts of 2 MiB took 3.6 ms at
/// once and 36 ms one by one, of 8 MiB 11 and 80 ms (ext4, medians).
const FLUSHES_MAX: usize = 8;

impl Barrier {
    /// An empty group below `root`.
    #[must_use]
    pub fn new(root: &Root) -> Barrier {
        Barrier {
            root: Arc::clone(root.directory()),
            resolver: root.resolver(),
            files: Vec::new(),
            directories: BTreeSet::new(),
            private: BTreeSet::new(),
        }
    }

    /// Adds a staged file. It must not be published before the barrier has run. Links hold no data;
    /// they become durable with their directory.
    pub fn add_file(&mut self, sealed: &Sealed) {
        if sealed.form() == Form::File {
            let name = sealed.name();
            self.files.push((Arc::clone(name.session()), name.as_str().to_owned()));
        }
    }

    /// Adds a directory whose names changed; `None` is the root.
    pub fn add_directory(&mut self, path: Option<&RelPath>) {
        self.directories.insert(path.cloned());
    }

    /// Adds the directory that `path` is in: for what was published, made or removed there.
    pub fn add_parent_of(&mut self, path: &RelPath) {
        self.directories.insert(path.parent());
    }

    /// Adds a directory of ours whose names changed, by its path relative to the root.
    pub fn add_private(&mut self, path: &[u8]) {
        self.private.insert(path.into());
    }

    /// Takes over what `other` has, a group below the same root.
    pub fn join(&mut self, other: Barrier) {
        self.files.extend(other.files);
        self.directories.extend(other.directories);
        self.private.extend(other.private);
    }

    /// Items to flush.
    #[must_use]
    pub fn len(&self) -> usize {
        self.files.len() + self.directories.len() + self.private.len()
    }

    /// Whether there is nothing to flush.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Flushes everything; blocks until the disk has it.
    ///
    /// # Errors
    /// When the disk failed. Nothing of the group may be acknowledged then, or flushed again: it has
    /// to be written anew.
    pub fn run(self) -> io::Result<()> {
        if self.is_empty() {
            return Ok(());
        }
        if self.len() > FLUSHES_MAX {
            return self.flush_file_system();
        }
        let Some(opened) = self.open_all() else {
            return self.flush_file_system();
        };
        opened.iter().try_for_each(flush)
    }

    /// Everything, opened; `None` when something is not there any more or may not be read. What became
    /// of it is not known then, and only a flush of all is sure to reach it.
    fn open_all(&self) -> Option<Vec<OwnedFd>> {
        let mut opened = Vec::with_capacity(self.len());
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        for (session, name) in &self.files {
            opened.push(openat(session.directory(), name.as_str(), flags, Mode::empty()).ok()?);
        }
        let directories = self.directories.iter();
        let shown = directories.map(|directory| directory.as_ref().map_or(&b"."[..], RelPath::as_bytes));
        for path in shown.chain(self.private.iter().map(|path| &**path)) {
            opened.push(
                self.resolver
                    .open_directory(self.root.as_fd(), path, OFlags::RDONLY)
                    .ok()?,
            );
        }
        Some(opened)
    }

    fn flush_file_system(&self) -> io::Result<()> {
        loop {
            match syncfs(&self.root) {
                // A signal before anything was written is no failed flush.
                Err(Errno::INTR) => {}
                other => return Ok(other?),
            }
        }
    }
}

/// Flushes one open file or directory.
pub(super) fn flush(item: impl AsFd) -> io::Result<()> {
    loop {
        match fsync(&item) {
            // A signal before anything was written is no failed flush.
            Err(Errno::INTR) => {}
            // Some file systems have nothing to flush for a directory and say so this way.
            Ok(()) | Err(Errno::INVAL) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Meta, Timestamp};
    use crate::store::{Room, Staging};

    const META: Meta = Meta {
        mode: 0o600,
        mtime: Timestamp { seconds: 1, nanos: 0 },
    };

    fn group(root: &Root, staging: &Staging, count: usize) -> (Barrier, Vec<Sealed>) {
        let mut barrier = Barrier::new(root);
        let sealed: Vec<Sealed> = (0..count)
            .map(|number| {
                let path = RelPath::parse(format!("d/{number}").as_bytes()).unwrap();
                let staged = staging.create(&path, Room::Sparse).unwrap();
                staged.write_at(0, b"content").unwrap();
                staged.seal(&META, 7).unwrap()
            })
            .collect();
        for sealed in &sealed {
            barrier.add_file(sealed);
            barrier.add_parent_of(sealed.path());
        }
        (barrier, sealed)
    }

    /// Small groups go one by one, large ones at once; both run on another thread than the owner's.
    #[test]
    fn groups_of_three_and_of_forty_become_durable() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("d")).unwrap();
        let root = Root::open(dir.path()).unwrap();
        let staging = Staging::new(&root);
        for count in [3, 40] {
            let (mut barrier, _sealed) = group(&root, &staging, count);
            assert_eq!(barrier.len(), count + 1, "the directory they share counts once");
            barrier.add_directory(None);
            assert_eq!(barrier.open_all().unwrap().len(), count + 2);
            std::thread::spawn(move || barrier.run()).join().unwrap().unwrap();
        }
    }

    /// A file that was dropped before the flush does not fail the others of the group.
    #[test]
    fn an_abandoned_file_does_not_fail_the_group() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("d")).unwrap();
        let root = Root::open(dir.path()).unwrap();
        let staging = Staging::new(&root);
        let (barrier, mut sealed) = group(&root, &staging, 3);
        sealed.remove(1);
        assert!(barrier.open_all().is_none());
        barrier.run().unwrap();
    }

    #[test]
    fn links_count_with_their_directory_only_and_an_empty_group_is_done() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        let staging = Staging::new(&root);
        let link = staging
            .symlink(&RelPath::parse(b"l").unwrap(), b"target", &META)
            .unwrap();
        let mut barrier = Barrier::new(&root);
        barrier.add_file(&link);
        assert!(barrier.is_empty());
        barrier.run().unwrap();
    }
}
