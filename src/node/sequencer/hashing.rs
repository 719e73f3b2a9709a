//! Reading files that the index has not seen, beside the loop.
//!
//! Invariant: a root is entered only for the very state of the file that the round found.

use super::looking::Fresh;
use crate::model::ContentId;
use crate::node::content::{Hashed, Hashing};
use crate::node::deltas::Deltas;
use crate::reactor::{Job, Shared};
use crate::store::Root;
use std::sync::mpsc;

/// Bytes that one job reads.
const JOB_BYTES: u64 = 64 << 20;
/// Files of one job.
const JOB_FILES: usize = 256;

/// A file's result.
#[derive(Debug)]
enum Read {
    Done(ContentId),
    More(Box<Hashing>),
    Failed,
}

/// What the thread has.
#[derive(Debug)]
pub(super) struct Hashes {
    sender: mpsc::Sender<Vec<(usize, Read)>>,
    receiver: mpsc::Receiver<Vec<(usize, Read)>>,
    is_running: bool,
    /// Files that one job does not finish.
    begun: Vec<(usize, Hashing)>,
}

impl Default for Hashes {
    fn default() -> Hashes {
        let (sender, receiver) = mpsc::channel();
        Hashes {
            sender,
            receiver,
            is_running: false,
            begun: Vec::new(),
        }
    }
}

impl Hashes {
    pub(super) fn is_running(&self) -> bool {
        self.is_running
    }

    pub(super) fn is_empty(&self) -> bool {
        self.begun.is_empty()
    }

    /// Adds the next files of the round that have to be read, as many as a job takes.
    pub(super) fn add(&mut self, root: &Root, deltas: &Deltas, round: &mut [Fresh]) {
        let mut bytes = 0;
        for (number, fresh) in round.iter_mut().enumerate().filter(|(_, fresh)| fresh.is_unread) {
            if self.begun.len() >= JOB_FILES || bytes >= JOB_BYTES {
                break;
            }
            let (Some(identity), Some(state)) = (fresh.identity, &mut fresh.state) else {
                continue;
            };
            fresh.is_unread = false;
            if let Some(known) = deltas.content_of(&identity).filter(|id| id.length == identity.size()) {
                state.root = Some(known.root);
                continue;
            }
            match root.open_file(&fresh.path) {
                Ok(file) if file.identity().same_content(&identity) => {
                    bytes += file.size();
                    self.begun.push((number, Hashing::new(file)));
                }
                Ok(_) => fresh.is_put_off = true,
                Err(error) => {
                    log::info!("{error}");
                    fresh.is_put_off = true;
                }
            }
        }
    }

    /// Gives the thread what was added. When it does not take it, this thread reads the files; either way
    /// [`collect`](Self::collect) has the results then.
    pub(super) fn submit(&mut self, shared: &mut Shared, ticket: u64) -> bool {
        let (files, sender) = (std::mem::take(&mut self.begun), self.sender.clone());
        let job: Job = Box::new(move || {
            let mut scratch = Vec::new();
            let read = files
                .into_iter()
                .map(|(number, hashing)| (number, read(hashing, &mut scratch)));
            // The receiver is gone only when the whole node is.
            let _ = sender.send(read.collect());
            Ok(())
        });
        let refused = shared.submit_bulk(ticket, job).err();
        self.is_running = refused.is_none();
        if let Some(job) = refused {
            let _ = job();
        }
        self.is_running
    }

    /// Enters what was found.
    pub(super) fn collect(&mut self, round: &mut [Fresh]) {
        self.is_running = false;
        for (number, read) in self.receiver.try_iter().flatten() {
            let Some(fresh) = round.get_mut(number) else { continue };
            match read {
                Read::Done(id) => {
                    if let Some(state) = &mut fresh.state {
                        state.root = Some(id.root);
                    }
                }
                Read::More(hashing) => self.begun.push((number, *hashing)),
                Read::Failed => fresh.is_put_off = true,
            }
        }
    }
}

fn read(mut hashing: Hashing, scratch: &mut Vec<u8>) -> Read {
    let mut left = JOB_BYTES;
    loop {
        match hashing.step(scratch) {
            Hashed::Done(id) => return Read::Done(id),
            Hashed::Failed => return Read::Failed,
            Hashed::More(more) if left == 0 => return Read::More(more),
            Hashed::More(more) => {
                left = left.saturating_sub(scratch.len() as u64);
                hashing = *more;
            }
        }
    }
}
