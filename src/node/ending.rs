//! How a client's job ends: what the other side's word means, what a broken connection does, the outcome.
//!
//! A part of [`ClientNode`]'s work. Invariant: a connection that ended is followed by another attempt or by the
//! outcome, never by nothing.

use super::begin::random_seed;
use super::client_node::{ClientNode, Phase, RETRY_TIMER};
use super::events::{ClientEvent, JobError, Outcome, Summary};
use super::options::Job;
use super::retrying::Broken;
use crate::model::{CloseCode, Fault, system_reason};
use crate::reactor::{Closed, Shared};
use crate::wire::Finish;
use std::io;
use std::time::Duration;

impl ClientNode {
    pub(super) fn verdict(&self, finish: Finish) -> Result<(), JobError> {
        match finish {
            Finish::Done { .. } => Ok(()),
            Finish::MassDelete { deletions, existing } => Err(JobError::MassDelete { deletions, existing }),
            Finish::Incomplete => Err(JobError::IncompleteSource),
        }
    }

    pub(super) fn closed_by(&self, fault: Fault) -> JobError {
        match (fault.code, &self.job) {
            (CloseCode::NotFound, Job::Pull { links, .. }) if links.len() == 1 => {
                let path = links[0].path.as_ref().map_or_else(String::new, ToString::to_string);
                JobError::NotFound { path }
            }
            (code, _) => JobError::Closed { code, text: fault.text },
        }
    }

    /// The connection ended although the job is not done: the next address, another attempt, or the end.
    pub(super) fn broken(&mut self, shared: &mut Shared, why: &Closed, summary: &Summary, resumed_bytes: u64) {
        self.keep(summary);
        let unreachable = matches!(why, Closed::Connect(_) | Closed::HandshakeTimeout);
        if unreachable && !self.connected_once && self.address + 1 < self.addresses.len() {
            self.address += 1;
            self.phase = Phase::Connecting;
            return;
        }
        let asked = self.come_back.filter(|_| is_busy(self.farewell.as_ref()));
        let (error, may_pass) = match self.farewell.take() {
            Some(Fault { code, text }) => (JobError::Closed { code, text }, true),
            None => {
                let stalled = self.stalled.take();
                self.judge(why, stalled)
            }
        };
        let broken = Broken {
            now_ms: shared.now().0,
            settled: summary.files_transferred > 0,
            resumed_bytes,
            refused: matches!(why, Closed::Connect(error) if error.kind() == io::ErrorKind::ConnectionRefused),
            asked_ms: asked.map(|asked| u64::try_from(asked.as_millis()).unwrap_or(u64::MAX)),
        };
        let random = random_seed().unwrap_or(0);
        let wait = self.retrying.after(broken, self.options.retries, random);
        let Some(wait) = wait.filter(|_| may_pass) else {
            return self.finish(Err(error), Summary::default());
        };
        shared.set_timer(RETRY_TIMER, shared.now() + wait.wait_ms);
        if wait.told {
            self.events.push(ClientEvent::Retrying {
                attempt: wait.attempt,
                wait: Duration::from_millis(wait.wait_ms),
                reason: error.to_string(),
            });
        }
    }

    /// What a broken connection means, and whether it may pass by itself.
    fn judge(&self, why: &Closed, stalled: Option<String>) -> (JobError, bool) {
        let authority = self.job.link().authority();
        let reason = match (why, stalled) {
            (_, Some(stalled)) => stalled,
            (Closed::Connect(error) | Closed::Reset(error), None) => system_reason(error),
            (other, None) => other.to_string(),
        };
        match why {
            Closed::WrongServer { .. } => (JobError::WrongServer { authority }, false),
            _ if self.connected_once => (JobError::Lost { authority, reason }, true),
            Closed::Connect(_) | Closed::HandshakeTimeout => (JobError::Connect { authority, reason }, false),
            Closed::HungUp | Closed::Peer | Closed::Reset(_) => (JobError::TurnedAway { authority, reason }, true),
            _ => (JobError::NotSyncline { authority, reason }, false),
        }
    }

    /// Adds the figures of an attempt that broke off: what travelled, not what was settled.
    fn keep(&mut self, summary: &Summary) {
        self.earlier.wire_sent += summary.wire_sent;
        self.earlier.wire_received += summary.wire_received;
        self.earlier.literal_bytes += summary.literal_bytes;
        self.earlier.files_transferred += summary.files_transferred;
        self.earlier.deleted += summary.deleted;
    }

    pub(super) fn finish(&mut self, result: Result<(), JobError>, mut summary: Summary) {
        summary.wire_sent += self.earlier.wire_sent;
        summary.wire_received += self.earlier.wire_received;
        summary.literal_bytes += self.earlier.literal_bytes;
        summary.files_transferred += self.earlier.files_transferred;
        summary.deleted += self.earlier.deleted;
        #[cfg(feature = "sync")]
        self.count_failing(&mut summary);
        summary.elapsed = self.started.elapsed();
        let result = if result.is_ok() && self.disk_full {
            Err(JobError::DiskFull)
        } else {
            result
        };
        self.phase = Phase::Finished;
        let come_back = self.come_back;
        self.events.push(ClientEvent::Finished(Outcome {
            summary,
            result,
            come_back,
        }));
    }
}

/// A server without room says when there may be some.
fn is_busy(farewell: Option<&Fault>) -> bool {
    farewell.is_some_and(|fault| fault.code == CloseCode::Busy)
}
