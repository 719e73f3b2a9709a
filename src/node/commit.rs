//! Group commit: finished files of all transfers are made durable and published together.
//!
//! 1. A verified, sealed file joins the queue of its place.
//! 2. When the helper thread is free, everything queued becomes one job: flush the staged files,
//!    rename each to its final name, flush the directories. One flush serves many files. Of a large
//!    group the last one is left to the next job, whose first flush it becomes.
//! 3. The results come back with the job's ticket and are handed to the owners, which are woken.
//!
//! While a job runs the next one gathers, so the group grows with the load and a lone file does not
//! wait. The renames are in the job and not on the loop because on a busy file system they take
//! milliseconds (evicting what they replace), and because they belong between the two flushes.
//! Invariant: a result says `Ok` only after everything before it in the commit order is done.

use super::bulk::{Bulk, Ended, run_here};
use super::commit_queue::{Queue, Running};
use super::job::Finished;
use super::options::Durability;
use super::place::Place;
use super::status::CommitFigures;
use super::verifying::{CheckedChunk, ChunkCheck};
use crate::model::{ItemCode, Meta, RelPath, Tick};
use crate::reactor::{ConnId, Job, Shared};
use crate::store::{Author, Expected, InPlace, Published, Sealed};
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::rc::Rc;
use std::sync::mpsc;

/// A file that is complete and verified.
#[derive(Debug)]
pub(crate) struct Commit {
    pub(crate) owner: ConnId,
    /// Whose doing it is.
    pub(crate) author: Author,
    pub(crate) file: u32,
    /// Bytes of its content.
    pub(crate) size: u64,
    pub(crate) ready: Ready,
}

/// How a file gets its new content.
#[derive(Debug)]
pub(crate) enum Ready {
    /// A staged file takes the place of what is expected there.
    Staged(Sealed, Expected),
    /// The file itself is changed.
    InPlace(Box<InPlace>, Meta),
}

/// The end of a transfer's work on a tree: final metadata, outermost directory last.
#[derive(Debug, Default)]
pub(crate) struct Closing {
    pub(crate) metas: Vec<(RelPath, Meta)>,
    /// Directories whose names changed apart from commits; `None` is the root.
    pub(crate) changed: Vec<Option<RelPath>>,
    /// The top of the tree, set last; `None` is the root.
    pub(crate) own: Option<(Option<RelPath>, Meta)>,
}

/// What the owner of work is told.
#[derive(Debug)]
pub(crate) enum Done {
    /// A commit ended.
    File {
        file: u32,
        result: Result<Published, ItemCode>,
    },
    /// A chunk of a file that arrives or leaves was hashed.
    Checked(Box<CheckedChunk>),
    /// A closing ended; the paths whose metadata could not be set.
    Closed {
        failed: Vec<(RelPath, ItemCode)>,
        durable: Result<(), ItemCode>,
    },
}

/// Gathers work per place and hands it to the helper thread.
#[derive(Debug)]
pub(crate) struct Committer {
    queues: Vec<Queue>,
    results: HashMap<ConnId, Vec<Done>>,
    sender: mpsc::Sender<Report>,
    receiver: mpsc::Receiver<Report>,
    next_ticket: u64,
    bulk: Bulk,
    /// Under load, the next group gathers until then.
    rest_until: Option<Tick>,
    /// Small files are committed, or were a moment ago, until then.
    shared_until: Tick,
    /// Jobs that were begun, and files in them.
    jobs: u64,
    files: u64,
}

/// A job's results, in the order of its work.
pub(super) struct Report {
    pub(super) ticket: u64,
    pub(super) finished: Finished,
}

/// The timer that ends a rest, in whichever node.
pub(crate) const COMMIT_TIMER: u64 = 5;
/// A group of so many files is a sign of load. Each flush costs a commit of the file system's journal; so the
/// helper rests before the next one, and more come together. A file waits a little longer for that, and all of
/// them are done sooner.
pub(super) const LOAD_FILES: usize = 4;
/// Milliseconds of rest; ended early by [`GATHERED_FILES`](super::commit_queue::GATHERED_FILES).
const REST_MS: u64 = 20;
/// Milliseconds after a commit for which another one is expected.
const SHARED_MS: u64 = 1_000;

/// Bytes of a file on its way to its name: its work, its result, and the names in them.
const COMMIT_BYTES: usize = size_of::<Commit>() + size_of::<(ConnId, Done)>() + 512;

impl Committer {
    pub(crate) fn new() -> Committer {
        let (sender, receiver) = mpsc::channel();
        Committer {
            queues: Vec::new(),
            results: HashMap::new(),
            sender,
            receiver,
            next_ticket: 0,
            bulk: Bulk::default(),
            rest_until: None,
            shared_until: Tick(0),
            jobs: 0,
            files: 0,
        }
    }

    /// Queues a commit; call [`Committer::pump`] when a burst of them is over.
    pub(crate) fn push(&mut self, place: &Rc<Place>, commit: Commit) {
        if let Some(commit) = self.bulk.flush_first(place, commit) {
            self.queue(place).commits.push(commit);
        }
    }

    /// Queues the end of a transfer's work.
    pub(crate) fn close(&mut self, place: &Rc<Place>, owner: ConnId, closing: Closing) {
        self.queue(place).closings.push((owner, closing));
    }

    /// Notes a directory that was just made.
    pub(crate) fn made_directory(&mut self, place: &Rc<Place>, path: RelPath) {
        if place.durability == Durability::Barrier {
            self.queue(place).made.push(path);
        }
    }

    /// Has a chunk hashed by the helper thread. When that is behind, it is done at once, and the
    /// result is returned.
    pub(crate) fn check(&mut self, owner: ConnId, check: ChunkCheck) -> Option<CheckedChunk> {
        self.bulk.check(owner, check)
    }

    /// Whether the disk is behind with what `owner` gave it of large files: then it is not to give it more before the
    /// next result comes.
    pub(crate) fn waits_for_disk(&self, owner: ConnId) -> bool {
        self.bulk.is_behind(owner)
    }

    /// After how many bytes a large file is to be flushed on its way.
    pub(crate) fn flush_bytes(&self) -> u64 {
        self.bulk.flush_bytes()
    }

    /// Has a file flushed by the helper thread.
    pub(crate) fn flush(&mut self, file: File) {
        self.bulk.flush(file);
    }

    /// Gives the helper thread what is queued, one job per place at a time.
    pub(crate) fn pump(&mut self, shared: &mut Shared) {
        self.bulk.pump(shared, &self.sender);
        let now = shared.now();
        let rest_until = self.rest_until.filter(|until| now < *until);
        for queue in &mut self.queues {
            if queue.running.is_some() || !queue.has_work() {
                continue;
            }
            if let Some(until) = rest_until.filter(|_| queue.may_gather()) {
                shared.set_timer(COMMIT_TIMER, until);
                continue;
            }
            let ticket = self.next_ticket;
            let work = queue.take_work();
            let running = Running::of(&work, ticket);
            self.jobs += 1;
            self.files += running.files as u64;
            if running.is_small {
                self.shared_until = now + SHARED_MS;
            }
            let sender = self.sender.clone();
            let job: Job = Box::new(move || {
                let finished = work.run();
                // The receiver is gone only when the whole node is.
                let _ = sender.send(Report { ticket, finished });
                Ok(())
            });
            self.next_ticket += 1;
            queue.running = Some(running);
            if let Err(job) = shared.submit(ticket, job) {
                run_here(job);
            }
        }
        self.collect(shared);
        let waits = |queue: &Queue| queue.running.as_ref().is_some_and(|running| running.is_small);
        self.bulk
            .share(now < self.shared_until || self.queues.iter().any(waits));
        if self.queues.iter().any(Queue::is_left_alone) {
            // A job that was run here has left something, and no result of the helper comes for it.
            shared.set_timer(COMMIT_TIMER, now);
        }
    }

    /// A job is done: its results wait for their owners, which are woken, and the next job goes.
    pub(crate) fn completed(&mut self, shared: &mut Shared, ticket: u64, result: &io::Result<()>) {
        self.collect(shared);
        let lost = self.end_of(ticket, result);
        self.deliver(shared, lost);
        self.pump(shared);
        self.drop_idle();
    }

    /// The job of `ticket` runs no more. Returns what its owners wait for in vain: jobs report by
    /// channel at their very end, so one that failed (that is, panicked) has reported nothing.
    fn end_of(&mut self, ticket: u64, result: &io::Result<()>) -> Vec<(ConnId, Done)> {
        let mut lost = Vec::new();
        match self.bulk.end_of(ticket, result) {
            Ended::Another => {}
            Ended::Quiet => return lost,
            Ended::Told(owner, done) => return vec![(owner, done)],
            Ended::Flushed(place, commit) => {
                self.queue(&place).commits.push(commit);
                return lost;
            }
        }
        for queue in &mut self.queues {
            if let Some(running) = queue.running.take_if(|running| running.ticket == ticket) {
                lost.extend(running.unreported());
            }
        }
        match result {
            Ok(()) => Vec::new(),
            Err(error) => {
                log::error!("a job of {} results failed: {error}", lost.len());
                lost
            }
        }
    }

    /// Forgets the queues of places where nothing is to be done, not even later: directories that were
    /// made wait for the next job.
    fn drop_idle(&mut self) {
        self.queues.retain(|queue| !queue.is_idle() || !queue.made.is_empty());
    }

    /// `owner` will ask for results until it is forgotten.
    pub(crate) fn register(&mut self, owner: ConnId) {
        self.results.entry(owner).or_default();
    }

    /// What was done for `owner` since it last asked.
    pub(crate) fn take_results(&mut self, owner: ConnId) -> Vec<Done> {
        self.results.get_mut(&owner).map(std::mem::take).unwrap_or_default()
    }

    /// What `owner` had no time for comes first the next time.
    pub(crate) fn put_back(&mut self, owner: ConnId, rest: impl Iterator<Item = Done>) {
        if let Some(results) = self.results.get_mut(&owner) {
            results.splice(0..0, rest);
        }
    }

    /// The owner is gone. What it had queued is complete and verified, so it is still published;
    /// only nobody is told.
    pub(crate) fn forget(&mut self, owner: ConnId) {
        self.results.remove(&owner);
    }

    /// Bytes of memory that all files take which wait or are with the helper thread, about.
    pub(crate) fn held_bytes(&self) -> usize {
        let files: usize = self
            .queues
            .iter()
            .map(|queue| queue.commits.len() + queue.begun())
            .sum();
        files * COMMIT_BYTES
    }

    /// Bytes of memory that the results take which wait for `owner`, about.
    pub(crate) fn results_bytes(&self, owner: ConnId) -> usize {
        let results = self.results.get(&owner).map_or(0, Vec::capacity);
        results * size_of::<Done>()
    }

    /// What waits, what runs, and what was begun.
    pub(crate) fn figures(&self) -> CommitFigures {
        CommitFigures {
            queued: self.bulk.commits() as u64
                + self.queues.iter().map(|queue| queue.commits.len() as u64).sum::<u64>(),
            running: self.queues.iter().map(|queue| queue.begun() as u64).sum(),
            jobs: self.jobs,
            files: self.files,
        }
    }

    /// Whether nothing is queued or running.
    pub(crate) fn is_idle(&self) -> bool {
        self.bulk.is_idle() && self.queues.iter().all(Queue::is_idle)
    }

    /// The directories that wait to be made durable.
    #[cfg(test)]
    pub(crate) fn made_in(&mut self, place: &Rc<Place>) -> &[RelPath] {
        &self.queue(place).made
    }

    fn collect(&mut self, shared: &mut Shared) {
        while let Ok(Report { ticket, finished }) = self.receiver.try_recv() {
            log::trace!("commit job {ticket} done: {} results", finished.done.len());
            self.bulk.reported(ticket);
            let mut queues = self.queues.iter_mut();
            let is_of = |running: &mut Running| running.ticket == ticket;
            let ended = queues.find_map(|queue| Some((queue.running.take_if(is_of)?, queue)));
            if let Some((running, queue)) = ended {
                queue.carried = finished.carried;
                if running.is_small {
                    self.shared_until = shared.now() + SHARED_MS;
                }
                if running.files >= LOAD_FILES {
                    self.rest_until = Some(shared.now() + REST_MS);
                }
            }
            self.bulk.close(finished.leftovers);
            self.deliver(shared, finished.done);
        }
    }

    fn deliver(&mut self, shared: &mut Shared, results: Vec<(ConnId, Done)>) {
        for (owner, done) in results {
            if let Some(results) = self.results.get_mut(&owner) {
                results.push(done);
                shared.wake(owner);
            }
        }
    }

    fn queue(&mut self, place: &Rc<Place>) -> &mut Queue {
        let at = self.queues.iter().position(|queue| Rc::ptr_eq(&queue.place, place));
        let at = at.unwrap_or_else(|| {
            self.queues.push(Queue::new(place));
            self.queues.len() - 1
        });
        &mut self.queues[at]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Root;

    fn place(dir: &std::path::Path) -> Rc<Place> {
        Rc::new(Place::new(Root::open(dir).unwrap(), Durability::Barrier))
    }

    /// Invariant 1: files are durable only with the directories above them, also when these were made
    /// while a job ran that knew nothing of them.
    #[test]
    fn a_queue_that_holds_only_new_directories_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let (place, other) = (place(dir.path()), place(dir.path()));
        let mut committer = Committer::new();
        committer.made_directory(&place, RelPath::parse(b"d").unwrap());
        committer.queue(&other);
        committer.drop_idle();
        assert_eq!(committer.queues.len(), 1);
        assert_eq!(committer.made_in(&place).len(), 1);
        assert!(committer.is_idle(), "no server waits for it");
    }

    /// A job that panics has reported nothing: whoever waits for it is told, or would wait for ever.
    #[test]
    fn the_owners_of_a_job_that_failed_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let place = place(dir.path());
        let mut committer = Committer::new();
        let owner = ConnId::invented(3);
        let mut run = |result: io::Result<()>| {
            committer.queue(&place).running = Some(Running {
                ticket: 7,
                files: 1,
                is_small: true,
                commits: vec![(owner, 5)],
                closings: vec![owner],
            });
            let lost = committer.end_of(7, &result);
            assert!(committer.is_idle());
            lost
        };
        assert!(run(Ok(())).is_empty());
        let lost = run(Err(io::Error::other("a job panicked")));
        let io = Err(ItemCode::Io);
        assert!(matches!(&lost[..], [
            (a, Done::File { file: 5, result: Err(ItemCode::Io) }),
            (b, Done::Closed { durable, .. }),
        ] if (*a, *b) == (owner, owner) && *durable == io));
    }
}
