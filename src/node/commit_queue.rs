//! What waits in one place for the helper thread: commits, ends of transfers, and the job that runs.
//!
//! Never runs a job. Invariant: the commits of an owner leave in the order they came.

use super::bulk::LARGE_BYTES;
use super::commit::{Closing, Commit, Done};
use super::job::{Carried, Work};
use super::options::Durability;
use super::place::Place;
use crate::model::{ItemCode, RelPath};
use crate::reactor::ConnId;
use crate::store::Versions;
use std::collections::HashMap;
use std::rc::Rc;

/// The work of one place.
#[derive(Debug)]
pub(super) struct Queue {
    pub(super) place: Rc<Place>,
    pub(super) commits: Vec<Commit>,
    pub(super) closings: Vec<(ConnId, Closing)>,
    /// Directories made since the last job: they must be durable before anything in them is.
    pub(super) made: Vec<RelPath>,
    /// What the last job left to the next one.
    pub(super) carried: Option<Carried>,
    pub(super) running: Option<Running>,
}

/// A job on the helper thread.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) ticket: u64,
    /// Files that it publishes.
    pub(super) files: usize,
    /// There is one among them that waits for the disk with what large files gave it.
    pub(super) is_small: bool,
    /// Who waits for what, should the job not come to its end.
    pub(super) commits: Vec<(ConnId, u32)>,
    pub(super) closings: Vec<ConnId>,
}

/// So many files end a rest early.
pub(super) const GATHERED_FILES: usize = 512;
/// Files of one job, and bytes of them: they bound how long the results of the first wait for the last.
const JOB_FILES_MAX: usize = 4096;
const JOB_BYTES_MAX: u64 = 256 << 20;

impl Queue {
    pub(super) fn new(place: &Rc<Place>) -> Queue {
        Queue {
            place: Rc::clone(place),
            commits: Vec::new(),
            closings: Vec::new(),
            made: Vec::new(),
            carried: None,
            running: None,
        }
    }

    /// Whether a job has something to do. Directories that were made wait for the next one.
    pub(super) fn has_work(&self) -> bool {
        !self.commits.is_empty() || !self.closings.is_empty() || self.carried.is_some()
    }

    pub(super) fn is_idle(&self) -> bool {
        self.running.is_none() && !self.has_work()
    }

    /// Whether there is something to do at once, and nothing does it.
    pub(super) fn is_left_alone(&self) -> bool {
        self.running.is_none() && self.has_work() && !self.may_gather()
    }

    /// Files that are published, or about to be, and not told yet.
    pub(super) fn begun(&self) -> usize {
        let running = self.running.as_ref().map_or(0, |running| running.commits.len());
        running + self.carried.as_ref().map_or(0, Carried::len)
    }

    /// Whether it can wait for more files. What is carried waits only with others.
    pub(super) fn may_gather(&self) -> bool {
        let is_flushed = self.place.durability == Durability::Barrier;
        is_flushed && self.closings.is_empty() && (1..GATHERED_FILES).contains(&self.commits.len())
    }

    pub(super) fn take_work(&mut self) -> Work {
        Work {
            root: self.place.root.share(),
            durability: self.place.durability,
            commits: self.take_commits(),
            // All commits of a transfer are settled before its closing is queued: none waits for those of others.
            closings: std::mem::take(&mut self.closings),
            made: std::mem::take(&mut self.made),
            versions: self.place.versions.as_ref().map(Versions::share),
            changed: self
                .place
                .versions
                .as_ref()
                .map_or_else(Vec::new, Versions::take_changed),
            carried: self.carried.take(),
        }
    }
}

impl Queue {
    /// The commits of the next job: all, or when there are too many, as many of each owner, in its order. Whoever has a
    /// few is not behind the thousands of another.
    fn take_commits(&mut self) -> Vec<Commit> {
        let bytes: u64 = self.commits.iter().map(|commit| commit.size).sum();
        if self.commits.len() <= JOB_FILES_MAX && bytes <= JOB_BYTES_MAX {
            return std::mem::take(&mut self.commits);
        }
        let mut taken: HashMap<ConnId, (usize, u64)> = HashMap::new();
        taken.extend(self.commits.iter().map(|commit| (commit.owner, (0, 0))));
        let files_max = (JOB_FILES_MAX / taken.len()).max(1);
        let bytes_max = JOB_BYTES_MAX / taken.len() as u64;
        let (now, later) = std::mem::take(&mut self.commits).into_iter().partition(|commit| {
            let (files, bytes) = taken.entry(commit.owner).or_default();
            let has_room = *files == 0 || (*files < files_max && *bytes + commit.size <= bytes_max);
            // Nothing of an owner overtakes what is left of it.
            *files = if has_room { *files + 1 } else { files_max };
            *bytes += commit.size;
            has_room
        });
        self.commits = later;
        now
    }
}

impl Running {
    pub(super) fn of(work: &Work, ticket: u64) -> Running {
        let carried = work.carried.iter().flat_map(Carried::files);
        let commits = work.commits.iter().map(|commit| (commit.owner, commit.file));
        let closings = work.closings.iter().map(|(owner, _)| *owner);
        Running {
            ticket,
            files: work.commits.len(),
            is_small: work.durability == Durability::Barrier
                && work.commits.iter().any(|commit| commit.size < LARGE_BYTES),
            commits: carried.chain(commits).collect(),
            closings: closings.collect(),
        }
    }

    /// What is said of work that did not come to its end.
    pub(super) fn unreported(self) -> impl Iterator<Item = (ConnId, Done)> {
        let result = Err(ItemCode::Io);
        let files = self.commits.into_iter().map(move |(owner, file)| {
            let result = result.clone();
            (owner, Done::File { file, result })
        });
        let closings = self.closings.into_iter().map(|owner| {
            let (failed, durable) = (Vec::new(), Err(ItemCode::Io));
            (owner, Done::Closed { failed, durable })
        });
        files.chain(closings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Meta, Timestamp};
    use crate::node::commit::Ready;
    use crate::store::{Author, Expected, Root, Staging};

    // Protects whoever sends little beside those who send thousands: of too many commits a job takes as many of each
    // owner, and an end waits for none of others.
    #[test]
    fn a_job_takes_from_every_owner() {
        let dir = tempfile::tempdir().unwrap();
        let place = Rc::new(Place::new(Root::open(dir.path()).unwrap(), Durability::Barrier));
        let mut queue = Queue::new(&place);
        let (many, few, ends) = (ConnId::invented(1), ConnId::invented(2), ConnId::invented(3));
        let staging = Staging::new(&place.root);
        let path = RelPath::parse(b"f").unwrap();
        let meta = Meta {
            mode: 0o777,
            mtime: Timestamp { seconds: 7, nanos: 0 },
        };
        let mut push = |owner, file| {
            let sealed = staging.symlink(&path, b"target", &meta).unwrap();
            queue.commits.push(Commit {
                owner,
                author: Author::Local,
                file,
                size: 10,
                ready: Ready::Staged(sealed, Expected::Absent),
            });
        };
        (0..5_000).for_each(|file| push(many, file));
        (0..3).for_each(|file| push(few, file));
        queue.closings.push((ends, Closing::default()));
        let work = queue.take_work();
        let of = |work: &Work, owner| work.commits.iter().filter(|commit| commit.owner == owner).count();
        assert_eq!((of(&work, many), of(&work, few)), (JOB_FILES_MAX / 2, 3));
        assert_eq!(work.closings.len(), 1);
        let files: Vec<u32> = work.commits.iter().map(|commit| commit.file).collect();
        assert!(
            files[..JOB_FILES_MAX / 2].is_sorted(),
            "an owner's commits keep their order"
        );
        assert_eq!(queue.commits.len(), 5_000 - JOB_FILES_MAX / 2);
    }
}
