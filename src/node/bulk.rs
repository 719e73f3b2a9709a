//! Work for the helper thread that has time: chunks of large files are hashed, and large files reach the disk.
//!
//! 1. Chunks that were moved are checked. When the thread is behind with hashing, the loop does one itself.
//! 2. Now and then a check also flushes what was written so far, so that the end of a large file has little left
//!    to flush. When the thread is behind with that, the disk is: nobody hashes in its place, and who sends, or
//!    copies, goes on when a part of what it gave has reached the disk ([`Bulk::is_behind`]). Else the system would
//!    hold up the loop.
//!    The flush of a small file waits for what the disk was given before it. While there are any, large ones are
//!    flushed in smaller parts, and less of them is taken ahead of the disk.
//! 3. A large file that is complete is flushed before it joins a group of commits, which else would wait for it.
//!
//! Never publishes. Invariant: a flush that failed fails its file; it is not tried again.

use super::commit::{Commit, Done, Ready, Report};
use super::job::Finished;
use super::options::Durability;
use super::place::Place;
use super::verifying::{CheckedChunk, ChunkCheck, ChunkPlace};
use crate::delta::index::CHUNK_BYTES;
use crate::model::ItemCode;
use crate::reactor::{ConnId, Job, Shared};
use crate::store::SourceFile;
use std::fs::File;
use std::io;
use std::rc::Rc;
use std::sync::mpsc;

/// What waits for the thread, and what it has.
#[derive(Debug, Default)]
pub(super) struct Bulk {
    checks: Vec<(ConnId, ChunkCheck)>,
    running: Vec<Checking>,
    /// Files that are flushed when there is time for it; nobody waits for that.
    flushes: Vec<File>,
    closes: Vec<SourceFile>,
    ahead: Vec<(Rc<Place>, Commit)>,
    flushing: Vec<(u64, Rc<Place>, Commit)>,
    next_ticket: u64,
    /// Small files are committed beside the large ones.
    is_shared: bool,
}

#[derive(Debug)]
struct Checking {
    ticket: u64,
    owner: ConnId,
    place: ChunkPlace,
    flushes: bool,
}

/// What the end of a job means.
pub(super) enum Ended {
    /// It was none of these.
    Another,
    /// Nobody has to be told beside what the job said itself.
    Quiet,
    /// This is told its owner.
    Told(ConnId, Done),
    /// This can be committed now.
    Flushed(Rc<Place>, Commit),
}

/// Chunks that wait for the thread or are with it: two per transfer that runs at full speed keep it busy.
const CHECKS_MAX: usize = 8;
/// Checks that are with the thread: its queue is longer, and has room for other work.
const RUNNING_MAX: usize = 32;
/// Checks of one owner that flush, while small files wait for the disk as well.
const FLUSHES_SHARED_MAX: usize = 1;
/// Bytes of a large file after which it is flushed on its way, and the same while small files wait for the disk.
const FLUSH_BYTES: u64 = 8 << 20;
const FLUSH_SHARED_BYTES: u64 = CHUNK_BYTES as u64;
/// Bytes of a file from which on it is flushed before its commit.
pub(super) const LARGE_BYTES: u64 = 16 << 20;
/// Marks the tickets of this work.
const BULK_TICKET: u64 = 1 << 63;

impl Bulk {
    /// Has a chunk checked. When the thread is behind, it is done at once, and the result is returned; but one that
    /// flushes always waits for the thread.
    pub(super) fn check(&mut self, owner: ConnId, check: ChunkCheck) -> Option<CheckedChunk> {
        if self.is_full() && !check.flushes() {
            return Some(check.run_here());
        }
        self.checks.push((owner, check));
        None
    }

    /// Whether the disk is behind with what came of `owner`: until a check of that is back, and it is told so, no more
    /// is to be taken. Who has given it nothing may always do that, however much others have: so nobody starves.
    pub(super) fn is_behind(&self, owner: ConnId) -> bool {
        let flushes = self.flushes_of(owner);
        flushes > 0 && self.is_full() || self.is_shared && flushes >= FLUSHES_SHARED_MAX
    }

    /// Checks of one owner that flush.
    fn flushes_of(&self, owner: ConnId) -> usize {
        let waiting = self.checks.iter().filter(|(id, check)| check.flushes() && *id == owner);
        let running = self.running.iter().filter(|one| one.flushes && one.owner == owner);
        waiting.count() + running.count()
    }

    /// Whether small files are committed for the time being.
    pub(super) fn share(&mut self, is_shared: bool) {
        self.is_shared = is_shared;
    }

    /// After how many bytes a large file is flushed on its way.
    pub(super) fn flush_bytes(&self) -> u64 {
        match self.is_shared {
            true => FLUSH_SHARED_BYTES,
            false => FLUSH_BYTES,
        }
    }

    fn is_full(&self) -> bool {
        self.checks.len() + self.running.len() >= CHECKS_MAX
    }

    /// Has a file flushed some time.
    pub(super) fn flush(&mut self, file: File) {
        self.flushes.push(file);
    }

    /// Has large files closed that have no name any more: the system needs a while to take their room back.
    pub(super) fn close(&mut self, files: Vec<SourceFile>) {
        self.closes.extend(files);
    }

    /// Takes a commit that has to be flushed first; gives back one that has not.
    pub(super) fn flush_first(&mut self, place: &Rc<Place>, commit: Commit) -> Option<Commit> {
        let is_staged = matches!(commit.ready, Ready::Staged(..));
        if place.durability == Durability::None || !is_staged || commit.size < LARGE_BYTES {
            return Some(commit);
        }
        self.ahead.push((Rc::clone(place), commit));
        None
    }

    /// Whether no commit waits for its flush.
    pub(super) fn is_idle(&self) -> bool {
        self.ahead.is_empty() && self.flushing.is_empty()
    }

    /// Commits that wait for their flush.
    pub(super) fn commits(&self) -> usize {
        self.ahead.len() + self.flushing.len()
    }

    /// Gives the thread what waits.
    pub(super) fn pump(&mut self, shared: &mut Shared, sender: &mpsc::Sender<Report>) {
        // What finds no room with the thread goes when a result has come.
        let room = RUNNING_MAX.saturating_sub(self.running.len()).min(self.checks.len());
        let rest = self.checks.split_off(room);
        for (owner, check) in std::mem::replace(&mut self.checks, rest) {
            let (ticket, sender) = (self.ticket(), sender.clone());
            let (place, flushes) = (check.place, check.flushes());
            let job: Job = Box::new(move || {
                let finished = Finished {
                    done: vec![(owner, Done::Checked(Box::new(check.run())))],
                    ..Finished::default()
                };
                // The receiver is gone only when the whole node is.
                let _ = sender.send(Report { ticket, finished });
                Ok(())
            });
            match shared.submit_bulk(ticket, job) {
                Ok(()) => self.running.push(Checking {
                    ticket,
                    owner,
                    place,
                    flushes,
                }),
                Err(job) => run_here(job),
            }
        }
        for file in std::mem::take(&mut self.flushes) {
            // A thread that has no time for it leaves it to the system.
            let _ = shared.submit_bulk(self.ticket(), Box::new(move || file.sync_data()));
        }
        if !self.closes.is_empty() {
            let files = std::mem::take(&mut self.closes);
            let job: Job = Box::new(move || {
                drop(files);
                Ok(())
            });
            let _ = shared.submit_bulk(self.ticket(), job).map_err(run_here);
        }
        for (place, commit) in std::mem::take(&mut self.ahead) {
            let Ready::Staged(sealed, _) = &commit.ready else {
                continue;
            };
            let (ticket, flushing) = (self.ticket(), sealed.flushing());
            match shared.submit_bulk(ticket, Box::new(move || flushing.run())) {
                Ok(()) => self.flushing.push((ticket, place, commit)),
                // When there is room again.
                Err(_) => self.ahead.push((place, commit)),
            }
        }
    }

    /// The result of a check is there: whoever is woken by it may go on.
    pub(super) fn reported(&mut self, ticket: u64) {
        self.running.retain(|checking| checking.ticket != ticket);
    }

    /// The job of `ticket` runs no more.
    pub(super) fn end_of(&mut self, ticket: u64, result: &io::Result<()>) -> Ended {
        if ticket & BULK_TICKET == 0 {
            return Ended::Another;
        }
        if let Some(at) = self.running.iter().position(|checking| checking.ticket == ticket) {
            // It has reported nothing: it failed.
            let Checking { owner, place, .. } = self.running.swap_remove(at);
            let index = None;
            return Ended::Told(owner, Done::Checked(Box::new(CheckedChunk { place, index })));
        }
        let Some(at) = self.flushing.iter().position(|(running, ..)| *running == ticket) else {
            return Ended::Quiet;
        };
        let (_, place, commit) = self.flushing.swap_remove(at);
        match result {
            Ok(()) => Ended::Flushed(place, commit),
            Err(error) => {
                log::error!("cannot make a file durable: {error}");
                let file = commit.file;
                let result = Err(code_of(error));
                Ended::Told(commit.owner, Done::File { file, result })
            }
        }
    }

    fn ticket(&mut self) -> u64 {
        self.next_ticket += 1;
        self.next_ticket | BULK_TICKET
    }
}

/// What is said of a file that could not be flushed.
pub(super) fn code_of(error: &io::Error) -> ItemCode {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ItemCode::DiskFull,
        _ => ItemCode::Io,
    }
}

/// A reactor without helper threads, or a full queue: the work is done on the spot.
pub(super) fn run_here(job: Job) {
    if let Err(error) = job() {
        log::error!("a job failed: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::RelPath;
    use crate::node::verifying::{Task, Verifying};
    use crate::store::{Room, Root, Staging};
    use std::sync::Arc;

    /// The checks of a file of so many chunks that is flushed on its way.
    fn checks(bulk: &Bulk, chunks: u64) -> Vec<ChunkCheck> {
        let dir = tempfile::tempdir().unwrap();
        let staging = Staging::new(&Root::open(dir.path()).unwrap());
        let staged = staging.create(&RelPath::parse(b"f").unwrap(), Room::Sparse).unwrap();
        let mut verifying = Verifying::new(Arc::new(staged.file().try_clone().unwrap()), 7, None);
        verifying.flush_on_the_way();
        verifying.flush_each(bulk.flush_bytes());
        let length = chunks * CHUNK_BYTES as u64;
        staged.file().set_len(length).unwrap();
        std::iter::from_fn(|| verifying.next_check(length, || Task::Leaves)).collect()
    }

    // Protects small files from waiting for all that a large one has ahead of the disk.
    #[test]
    fn beside_small_files_less_of_a_large_one_is_ahead_of_the_disk() {
        let owner = ConnId::invented(1);
        let behind_after = |is_shared: bool| {
            let mut bulk = Bulk::default();
            bulk.share(is_shared);
            let checks = checks(&bulk, 2 * CHECKS_MAX as u64);
            let mut taken = 0;
            for check in checks {
                if bulk.is_behind(owner) {
                    break;
                }
                assert!(bulk.check(owner, check).is_none(), "nobody hashes in place of the disk");
                taken += 1;
            }
            assert!(!bulk.is_behind(ConnId::invented(2)), "another one starves");
            taken
        };
        assert_eq!(behind_after(false), CHECKS_MAX);
        assert_eq!(behind_after(true), FLUSHES_SHARED_MAX);
    }

    // What is only read is hashed here when the thread is behind: no disk is waited for.
    #[test]
    fn checks_that_flush_nothing_never_hold_anybody_up() {
        let mut bulk = Bulk::default();
        bulk.share(true);
        let mut here = 0;
        for mut check in checks(&bulk, 2 * CHECKS_MAX as u64) {
            check = check.without_flush();
            here += usize::from(bulk.check(ConnId::invented(1), check).is_some());
            assert!(!bulk.is_behind(ConnId::invented(1)));
        }
        assert_eq!(here, CHECKS_MAX);
    }
}
