//! One job of the group commit, for the helper thread: files become durable and get their names.
//!
//! 1. Flush the staged files, and the directories that were made.
//! 2. Rename each file to its final name.
//! 3. Final metadata of directories; flush the directories whose names changed.
//!
//! Holds no state and knows no connection. Invariant: a result says `Ok` only after everything before it in
//! the commit order is done.

use super::bulk::{LARGE_BYTES, code_of};
use super::commit::{Closing, Commit, Done, Ready};
use super::options::Durability;
use crate::model::{ItemCode, RelPath};
use crate::reactor::ConnId;
use crate::store::{Barrier, Beside, Expected, FileError, Keeping, Published, Root, SourceFile, Versions, publish};

/// One job, on the helper thread.
pub(super) struct Work {
    pub(super) root: Root,
    pub(super) durability: Durability,
    pub(super) commits: Vec<Commit>,
    pub(super) closings: Vec<(ConnId, Closing)>,
    pub(super) made: Vec<RelPath>,
    pub(super) versions: Option<Versions>,
    /// Directories of versions that came in on the loop.
    pub(super) changed: Vec<Box<[u8]>>,
    pub(super) beside: Beside,
}

impl Work {
    /// Does all of it, in the commit order. The results, by their owners; and large files that lost their names,
    /// which go when they are closed: that takes a while.
    pub(super) fn run(self) -> (Vec<(ConnId, Done)>, Vec<SourceFile>) {
        let Work {
            root,
            durability,
            commits,
            closings,
            made,
            versions,
            changed,
            beside,
        } = self;
        let mut done = Vec::with_capacity(commits.len() + closings.len());
        let mut leftovers = Vec::new();
        let mut after = Barrier::new(&root);
        for path in &made {
            after.add_parent_of(path);
        }
        changed.iter().for_each(|path| after.add_private(path));
        let staged = flush_staged(&root, durability, &commits, beside);
        for Commit {
            owner,
            author,
            file,
            ready,
            ..
        } in commits
        {
            let keeping = versions.as_ref().map(|versions| Keeping { versions, author });
            leftovers.extend(replaced(&root, versions.is_some(), &ready));
            let result = staged.and_then(|()| {
                let published = ready.commit(&root, durability, keeping.as_ref(), &mut after);
                published.map_err(|error| {
                    log::warn!("{error}");
                    error.code()
                })
            });
            done.push((owner, Done::File { file, result }));
        }
        let kept = versions.as_ref().map_or_else(Vec::new, Versions::take_changed);
        kept.iter().for_each(|path| after.add_private(path));
        let failures: Vec<_> = closings
            .iter()
            .map(|(_, closing)| close(&root, closing, &mut after))
            .collect();
        let flushed = match durability {
            Durability::Barrier => flush(after, beside),
            Durability::None => Ok(()),
        };
        if let Err(code) = flushed {
            for (_, entry) in &mut done {
                if let Done::File { result, .. } = entry {
                    *result = result.clone().and(Err(code));
                }
            }
        }
        for ((owner, _), failed) in closings.into_iter().zip(failures) {
            done.push((
                owner,
                Done::Closed {
                    failed,
                    durable: flushed,
                },
            ));
        }
        (done, leftovers)
    }
}

/// What is going to be replaced, if it is large and nothing keeps it.
fn replaced(root: &Root, is_kept: bool, ready: &Ready) -> Option<SourceFile> {
    match ready {
        Ready::Staged(sealed, Expected::Present(identity)) if !is_kept && identity.size() >= LARGE_BYTES => {
            root.open_file(sealed.path()).ok()
        }
        _ => None,
    }
}

impl Ready {
    /// Publishes one file, and notes which directory that changed.
    fn commit(
        self,
        root: &Root,
        durability: Durability,
        keeping: Option<&Keeping<'_>>,
        after: &mut Barrier,
    ) -> Result<Published, FileError> {
        match self {
            Ready::Staged(sealed, expected) => {
                after.add_parent_of(sealed.path());
                publish(root, sealed, &expected, keeping)
            }
            // Flushes by itself, in the middle.
            Ready::InPlace(work, meta) => work
                .commit(&meta, durability.flush(), keeping)
                .map(|_| Published::Replaced),
        }
    }
}

fn flush_staged(root: &Root, durability: Durability, commits: &[Commit], beside: Beside) -> Result<(), ItemCode> {
    if durability == Durability::None {
        return Ok(());
    }
    let mut barrier = Barrier::new(root);
    for commit in commits {
        if let Ready::Staged(sealed, _) = &commit.ready {
            barrier.add_file(sealed);
        }
    }
    flush(barrier, beside)
}

fn close(root: &Root, closing: &Closing, after: &mut Barrier) -> Vec<(RelPath, ItemCode)> {
    for path in &closing.changed {
        after.add_directory(path.as_ref());
    }
    let mut failed = Vec::new();
    for (path, meta) in closing.metas.iter().rev() {
        after.add_parent_of(path);
        if let Err(error) = root.set_meta(path, meta) {
            log::warn!("{error}");
            failed.push((path.clone(), error.code()));
        }
    }
    if let Some((top, meta)) = &closing.own {
        let set = match top {
            Some(path) => root.set_meta(path, meta),
            None => root.set_own_meta(meta),
        };
        if let Err(error) = set {
            // The tree is whole without it; a share's root may belong to somebody else.
            log::warn!("{error}");
        }
    }
    failed
}

/// A flush that failed is never tried again into success: its files count as failed.
fn flush(barrier: Barrier, beside: Beside) -> Result<(), ItemCode> {
    barrier.run(beside).map_err(|error| {
        log::error!("cannot make files durable: {error}");
        code_of(&error)
    })
}
