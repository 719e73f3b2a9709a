//! One job of the group commit, for the helper thread: files become durable and get their names.
//!
//! 1. Flush the staged files, and the directories that were made.
//! 2. Rename each file to its final name.
//! 3. Final metadata of directories; flush the directories whose names changed.
//!
//! Under load one job follows the other, and step 3 of the one is done with step 1 of the next, in one flush: the
//! files of the first are [`Carried`] until then.
//!
//! Holds no state and knows no connection. Invariant: a result says `Ok` only after everything before it in
//! the commit order is done.

use super::bulk::{LARGE_BYTES, code_of};
use super::commit::{Closing, Commit, Done, LOAD_FILES, Ready};
use super::options::Durability;
use crate::model::{ItemCode, RelPath};
use crate::reactor::ConnId;
use crate::store::{Barrier, Expected, FileError, Keeping, Published, Root, SourceFile, Versions, publish};

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
    /// What the job before left to this one.
    pub(super) carried: Option<Carried>,
}

/// Files that have their names; the flush that makes these durable is due.
#[derive(Debug)]
pub(super) struct Carried {
    done: Vec<(ConnId, Done)>,
    after: Barrier,
}

/// What came of a job.
#[derive(Debug, Default)]
pub(super) struct Finished {
    /// The results, by their owners.
    pub(super) done: Vec<(ConnId, Done)>,
    /// Large files that lost their names. They go when they are closed: that takes a while.
    pub(super) leftovers: Vec<SourceFile>,
    /// What is left to the next job, which has to follow.
    pub(super) carried: Option<Carried>,
}

impl Carried {
    /// How many files these are.
    pub(super) fn len(&self) -> usize {
        self.done.len()
    }

    /// Whose they are.
    pub(super) fn files(&self) -> impl Iterator<Item = (ConnId, u32)> + '_ {
        self.done.iter().filter_map(|(owner, done)| match done {
            Done::File { file, .. } => Some((*owner, *file)),
            _ => None,
        })
    }
}

/// What is not durable did not succeed.
fn unless_failed(flushed: Result<(), ItemCode>, mut done: Vec<(ConnId, Done)>) -> Vec<(ConnId, Done)> {
    if let Err(code) = flushed {
        for (_, entry) in &mut done {
            if let Done::File { result, .. } = entry {
                *result = result.clone().and(Err(code));
            }
        }
    }
    done
}

impl Work {
    /// Does all of it, in the commit order.
    pub(super) fn run(self) -> Finished {
        let Work {
            root,
            durability,
            commits,
            closings,
            made,
            versions,
            changed,
            carried,
        } = self;
        let may_carry = durability == Durability::Barrier && commits.len() >= LOAD_FILES && closings.is_empty();
        let mut finished = Finished::default();
        let mut after = Barrier::new(&root);
        for path in &made {
            after.add_parent_of(path);
        }
        changed.iter().for_each(|path| after.add_private(path));
        let staged = flush_staged(&root, durability, (&commits, carried), &mut finished.done);
        let mut done = Vec::with_capacity(commits.len() + closings.len());
        for Commit {
            owner,
            author,
            file,
            ready,
            ..
        } in commits
        {
            let keeping = versions.as_ref().map(|versions| Keeping { versions, author });
            let replaced = replaced(&root, versions.is_some(), &ready);
            finished.leftovers.extend(replaced);
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
        if may_carry {
            finished.carried = Some(Carried { done, after });
            return finished;
        }
        let failures: Vec<_> = closings
            .iter()
            .map(|(_, closing)| close(&root, closing, &mut after))
            .collect();
        let flushed = match durability {
            Durability::Barrier => flush(after),
            Durability::None => Ok(()),
        };
        finished.done.extend(unless_failed(flushed, done));
        for ((owner, _), failed) in closings.into_iter().zip(failures) {
            let durable = flushed;
            finished.done.push((owner, Done::Closed { failed, durable }));
        }
        finished
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

/// The first flush: of staged files, and of what was carried here, whose results it decides.
fn flush_staged(
    root: &Root,
    durability: Durability,
    (commits, carried): (&[Commit], Option<Carried>),
    done: &mut Vec<(ConnId, Done)>,
) -> Result<(), ItemCode> {
    if durability == Durability::None {
        debug_assert!(carried.is_none(), "what is not flushed is not carried");
        return Ok(());
    }
    let mut barrier = Barrier::new(root);
    for commit in commits {
        if let Ready::Staged(sealed, _) = &commit.ready {
            barrier.add_file(sealed);
        }
    }
    let Some(Carried { done: carried, after }) = carried else {
        return flush(barrier);
    };
    barrier.join(after);
    let flushed = flush(barrier);
    done.extend(unless_failed(flushed, carried));
    flushed
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
fn flush(barrier: Barrier) -> Result<(), ItemCode> {
    barrier.run().map_err(|error| {
        log::error!("cannot make files durable: {error}");
        code_of(&error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Meta, Timestamp};
    use crate::store::{Author, Room, Staging};

    const META: Meta = Meta {
        mode: 0o600,
        mtime: Timestamp { seconds: 1, nanos: 0 },
    };

    fn work(root: &Root, numbers: std::ops::Range<u32>, carried: Option<Carried>) -> Work {
        let staging = Staging::new(root);
        let commit = |file: u32| {
            let path = RelPath::parse(format!("file-{file}").as_bytes()).unwrap();
            let staged = staging.create(&path, Room::Sparse).unwrap();
            staged.write_at(0, b"content").unwrap();
            Commit {
                owner: ConnId::invented(1),
                author: Author::Anyone,
                file,
                size: 7,
                ready: Ready::Staged(staged.seal(&META, 7).unwrap(), Expected::Absent),
            }
        };
        Work {
            root: root.share(),
            durability: Durability::Barrier,
            commits: numbers.map(commit).collect(),
            closings: Vec::new(),
            made: Vec::new(),
            versions: None,
            changed: Vec::new(),
            carried,
        }
    }

    fn files(done: &[(ConnId, Done)]) -> Vec<(u32, bool)> {
        let file = |(_, done): &(ConnId, Done)| match done {
            Done::File { file, result } => (*file, result.is_ok()),
            other => panic!("{other:?}"),
        };
        done.iter().map(file).collect()
    }

    // Protects I1: who is told of a file can rely on its name being on the disk.
    #[test]
    fn files_of_a_large_group_are_told_after_the_next_flush() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        let first = work(&root, 0..4, None).run();
        assert!(first.done.is_empty(), "their directory is not flushed");
        let carried = first.carried.unwrap();
        assert_eq!(carried.files().map(|(_, file)| file).collect::<Vec<_>>(), [0, 1, 2, 3]);
        assert!(dir.path().join("file-3").exists());
        let second = work(&root, 4..5, Some(carried)).run();
        assert_eq!(files(&second.done), [0, 1, 2, 3, 4].map(|file| (file, true)));
        assert!(second.carried.is_none(), "a small group waits for its own flush");
        // Nothing follows: a job of its own flushes what is left.
        let carried = work(&root, 5..9, None).run().carried;
        assert_eq!(files(&work(&root, 0..0, carried).run().done).len(), 4);
    }

    // Protects I1 from a disk that fails: what the failed flush was for did not succeed, whichever job it was of.
    #[test]
    fn a_flush_that_fails_is_told_to_all_that_it_was_for() {
        let done = |file| {
            (
                ConnId::invented(1),
                Done::File {
                    file,
                    result: Ok(Published::Created),
                },
            )
        };
        let failed = unless_failed(Err(ItemCode::Io), vec![done(1), done(2)]);
        assert_eq!(files(&failed), [(1, false), (2, false)]);
        assert_eq!(files(&unless_failed(Ok(()), failed)), [(1, false), (2, false)]);
        assert_eq!(files(&unless_failed(Ok(()), vec![done(3)])), [(3, true)]);
    }
}
