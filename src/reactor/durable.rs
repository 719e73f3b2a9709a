//! Owns the helper threads, which make things durable (flushes, renames) and read large files while the
//! loop goes on. They never hold state: a job goes in with its ticket, a result comes out.
//!
//! There are two lanes, a thread each: jobs that somebody waits for, and bulk jobs, which may take as long
//! as a disk needs for gigabytes. In one lane a small commit would wait for that.
//!
//! Invariant: every accepted job gives exactly one result, in the order of the jobs of its lane; at most
//! `capacity` jobs wait in each.

use mio::Waker;
use std::cell::Cell;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, TrySendError, channel, sync_channel};
use std::thread::JoinHandle;
use std::time::Instant;

/// Work for the helper thread: flushes, renames and commits that may wait for a disk.
pub type Job = Box<dyn FnOnce() -> io::Result<()> + Send>;

/// How much nicer than the loop the thread is that takes long. On one core, beside giants in memory, the longest turn
/// was 15 to 20 ms with 5, 24 to 41 without, and 17 to 28 with 10: then the loop waits for the thread.
const BULK_NICE: i32 = 5;

/// One helper thread.
#[derive(Debug)]
struct Durable {
    /// `None` once the thread is told to end.
    jobs: Option<SyncSender<(u64, Job)>>,
    results: Receiver<(u64, io::Result<()>)>,
    thread: Option<JoinHandle<()>>,
    accepted: Cell<u64>,
    reported: Cell<u64>,
    busy_micros: Arc<AtomicU64>,
}

/// The helper threads of a loop.
#[derive(Debug)]
pub(super) struct Helpers {
    prompt: Durable,
    bulk: Durable,
}

impl Helpers {
    /// Starts the threads; `waker` is used after each result.
    pub(super) fn start(capacity: usize, waker: Arc<Waker>) -> io::Result<Helpers> {
        Ok(Helpers {
            prompt: Durable::start("durable", capacity, Arc::clone(&waker), 0)?,
            bulk: Durable::start("bulk", capacity, waker, BULK_NICE)?,
        })
    }

    /// Queues a job that somebody waits for, or gives it back when the queue is full.
    pub(super) fn submit(&self, ticket: u64, job: Job) -> Result<(), Job> {
        self.prompt.submit(ticket, job)
    }

    /// Queues a job that may take long, or gives it back when the queue is full.
    pub(super) fn submit_bulk(&self, ticket: u64, job: Job) -> Result<(), Job> {
        self.bulk.submit(ticket, job)
    }

    /// The next result, if there is one.
    pub(super) fn poll_result(&self) -> Option<(u64, io::Result<()>)> {
        self.prompt.poll_result().or_else(|| self.bulk.poll_result())
    }

    pub(super) fn figures(&self) -> HelperFigures {
        let (prompt, bulk) = (self.prompt.figures(), self.bulk.figures());
        HelperFigures {
            queue: prompt.queue + bulk.queue,
            jobs: prompt.jobs + bulk.jobs,
            busy_micros: prompt.busy_micros + bulk.busy_micros,
        }
    }
}

/// What the threads have done and have to do.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct HelperFigures {
    /// Jobs that wait or run.
    pub(super) queue: u64,
    /// Jobs whose results were taken.
    pub(super) jobs: u64,
    /// Microseconds of work; a job counts when it ends.
    pub(super) busy_micros: u64,
}

impl Durable {
    /// Starts the thread; `waker` is used after each result.
    fn start(name: &str, capacity: usize, waker: Arc<Waker>, nice: i32) -> io::Result<Durable> {
        let (jobs, inbox) = sync_channel(capacity);
        let (outbox, results) = channel();
        let busy_micros = Arc::<AtomicU64>::default();
        let busy = Arc::clone(&busy_micros);
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            be_nice(nice);
            work(&inbox, &outbox, &waker, &busy);
        })?;
        Ok(Durable {
            jobs: Some(jobs),
            results,
            thread: Some(thread),
            accepted: Cell::new(0),
            reported: Cell::new(0),
            busy_micros,
        })
    }

    /// Queues a job, or gives it back when the queue is full.
    fn submit(&self, ticket: u64, job: Job) -> Result<(), Job> {
        let jobs = self
            .jobs
            .as_ref()
            .expect("the sender is dropped only with the whole value");
        match jobs.try_send((ticket, job)) {
            Ok(()) => {
                self.accepted.set(self.accepted.get() + 1);
                Ok(())
            }
            Err(TrySendError::Full((_, job)) | TrySendError::Disconnected((_, job))) => Err(job),
        }
    }

    /// The next result, if there is one.
    fn poll_result(&self) -> Option<(u64, io::Result<()>)> {
        let result = self.results.try_recv().ok()?;
        self.reported.set(self.reported.get() + 1);
        Some(result)
    }

    fn figures(&self) -> HelperFigures {
        HelperFigures {
            queue: self.accepted.get() - self.reported.get(),
            jobs: self.reported.get(),
            busy_micros: self.busy_micros.load(Ordering::Relaxed),
        }
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

/// Gives this thread less of a processor that it shares with the loop. Where that is refused, it works as ever.
fn be_nice(by: i32) {
    let thread = Some(rustix::thread::gettid());
    // By the manual it is of a process; Linux has it for each thread.
    let set = rustix::process::getpriority_process(thread)
        .and_then(|nice| rustix::process::setpriority_process(thread, nice + by));
    if let Err(errno) = set {
        log::debug!("a helper thread keeps its priority: {errno}");
    }
}

fn work(inbox: &Receiver<(u64, Job)>, outbox: &Sender<(u64, io::Result<()>)>, waker: &Waker, busy: &AtomicU64) {
    while let Ok((ticket, job)) = inbox.recv() {
        let begun = Instant::now();
        let result =
            catch_unwind(AssertUnwindSafe(job)).unwrap_or_else(|_| Err(io::Error::other("a durable job panicked")));
        let micros = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        busy.fetch_add(micros, Ordering::Relaxed);
        if outbox.send((ticket, result)).is_err() {
            return;
        }
        if let Err(error) = waker.wake() {
            log::error!("the loop cannot be woken: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mio::{Events, Poll, Token};

    #[test]
    fn results_come_in_order_also_of_failures_and_a_full_queue_gives_the_job_back() {
        let mut poll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
        let durable = Durable::start("durable", 2, waker, 0).unwrap();
        let (go, wait) = channel::<()>();
        let (begun, has_begun) = channel();
        let first: Job = Box::new(move || {
            begun.send(()).map_err(io::Error::other)?;
            wait.recv().map_err(io::Error::other)
        });
        assert!(durable.submit(1, first).is_ok());
        has_begun.recv().unwrap();
        assert!(
            durable
                .submit(2, Box::new(|| Err(io::ErrorKind::StorageFull.into())))
                .is_ok()
        );
        assert!(durable.submit(3, Box::new(|| panic!("a bug in a job"))).is_ok());
        assert!(durable.submit(4, Box::new(|| Ok(()))).is_err(), "two wait already");
        go.send(()).unwrap();
        let (mut events, mut results) = (Events::with_capacity(1), Vec::new());
        while results.len() < 3 {
            poll.poll(&mut events, None).unwrap();
            results.extend(std::iter::from_fn(|| durable.poll_result()));
        }
        let seen: Vec<_> = results
            .iter()
            .map(|(ticket, result)| (*ticket, result.as_ref().err().map(io::Error::kind)))
            .collect();
        assert_eq!(
            seen,
            [
                (1, None),
                (2, Some(io::ErrorKind::StorageFull)),
                (3, Some(io::ErrorKind::Other))
            ]
        );
    }

    // Protects the loop's turns on one core from the thread that hashes gigabytes; who waits for a commit is not
    // held back.
    #[test]
    fn bulk_work_is_nicer_than_the_loop_and_commits_are_not() {
        let mut poll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
        let helpers = Helpers::start(2, waker).unwrap();
        let (tell, told) = channel();
        let ask = |lane: &'static str| -> Job {
            let tell = tell.clone();
            Box::new(move || {
                let nice = rustix::process::getpriority_process(Some(rustix::thread::gettid()))?;
                tell.send((lane, nice)).map_err(io::Error::other)
            })
        };
        assert!(helpers.submit(1, ask("prompt")).is_ok() && helpers.submit_bulk(2, ask("bulk")).is_ok());
        let (mut events, mut results) = (Events::with_capacity(1), 0);
        while results < 2 {
            poll.poll(&mut events, None).unwrap();
            results += std::iter::from_fn(|| helpers.poll_result()).count();
        }
        let loop_nice = rustix::process::getpriority_process(Some(rustix::thread::gettid())).unwrap();
        for (lane, nice) in told.try_iter() {
            let wanted = match lane {
                "bulk" => (loop_nice + BULK_NICE).min(19),
                _ => loop_nice,
            };
            assert_eq!(nice, wanted, "{lane}");
        }
    }
}
