//! Owns the one helper thread, which makes things durable (flushes, index commits) while the loop
//! goes on. It never holds state: a job goes in with its ticket, a result comes out.
//!
//! Invariant: every accepted job gives exactly one result, in the order of the jobs; at most
//! `capacity` jobs wait.

use mio::Waker;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, TrySendError, channel, sync_channel};
use std::thread::JoinHandle;

/// Work for the helper thread: flushes, renames and commits that may wait for a disk.
pub type Job = Box<dyn FnOnce() -> io::Result<()> + Send>;

#[derive(Debug)]
pub(super) struct Durable {
    /// `None` once the thread is told to end.
    jobs: Option<SyncSender<(u64, Job)>>,
    results: Receiver<(u64, io::Result<()>)>,
    thread: Option<JoinHandle<()>>,
}

impl Durable {
    /// Starts the thread; `waker` is used after each result.
    pub(super) fn start(capacity: usize, waker: Arc<Waker>) -> io::Result<Durable> {
        let (jobs, inbox) = sync_channel(capacity);
        let (outbox, results) = channel();
        let thread = std::thread::Builder::new()
            .name("durable".to_owned())
            .spawn(move || work(&inbox, &outbox, &waker))?;
        Ok(Durable {
            jobs: Some(jobs),
            results,
            thread: Some(thread),
        })
    }

    /// Queues a job, or gives it back when the queue is full.
    pub(super) fn submit(&self, ticket: u64, job: Job) -> Result<(), Job> {
        let jobs = self
            .jobs
            .as_ref()
            .expect("the sender is dropped only with the whole value");
        match jobs.try_send((ticket, job)) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full((_, job)) | TrySendError::Disconnected((_, job))) => Err(job),
        }
    }

    /// The next result, if there is one.
    pub(super) fn poll_result(&self) -> Option<(u64, io::Result<()>)> {
        self.results.try_recv().ok()
    }
}

impl Drop for Durable {
    /// Waits until the accepted jobs are done: what was handed over becomes durable.
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // The thread catches panics of its jobs, so there is nothing to pass on.
            let _ = thread.join();
        }
    }
}

fn work(inbox: &Receiver<(u64, Job)>, outbox: &Sender<(u64, io::Result<()>)>, waker: &Waker) {
    while let Ok((ticket, job)) = inbox.recv() {
        let result =
            catch_unwind(AssertUnwindSafe(job)).unwrap_or_else(|_| Err(io::Error::other("a durable job panicked")));
        if outbox.send((ticket, result)).is_err() {
            return;
        }
        if let Err(error) = waker.wake() {
            log::error!("the loop cannot be woken: {error}");
        }
    }
}
