//! What a server says of itself: one [`Snapshot`], from which both the answer to `status` and `/metrics` are made.
//!
//! Never gathers anything by itself. Invariant: a figure is in one place here, and is called the same everywhere.

use super::events::Summary;
use super::tally::{Sessions, Stages};
use super::turns::Load;
use crate::model::{ItemCode, ShareName};
use crate::reactor::Counters;
use serde::Serialize;
use std::collections::BTreeMap;

/// A server's state, as a visitor may see it.
#[derive(Debug, Serialize)]
pub(crate) struct Snapshot<'a> {
    pub(crate) event: &'static str,
    pub(crate) name: &'a str,
    pub(crate) version: &'static str,
    pub(crate) uptime_seconds: u64,
    pub(crate) shares: Vec<ShareStatus<'a>>,
    /// Only for the server's own device, and for metrics.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) loop_status: Option<LoopStatus>,
}

/// One share.
#[derive(Debug, Serialize)]
pub(crate) struct ShareStatus<'a> {
    pub(crate) name: &'a str,
    /// Of the visitor who asks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rights: Option<String>,
    pub(crate) free_bytes: Option<u64>,
    #[serde(flatten)]
    pub(crate) totals: Totals,
    /// Only for the server's own device, and for metrics.
    #[serde(flatten)]
    pub(crate) inside: Option<ShareInside>,
}

/// What is nobody's business but the operator's.
#[derive(Debug, Serialize)]
pub(crate) struct ShareInside {
    /// 1 while nothing may be written there, 0 otherwise.
    pub(crate) read_only: u8,
    /// Unfinished transfers in the journal, and its length.
    pub(crate) journal_entries: u64,
    pub(crate) journal_bytes: u64,
    /// Versions kept since the start, and the bytes of all when they were counted last.
    pub(crate) versions_kept: u64,
    pub(crate) versions_bytes: Option<u64>,
    /// Items that failed, by the kind of error.
    pub(crate) failed_by: BTreeMap<&'static str, u64>,
}

/// The process and its loop.
#[derive(Debug, Serialize)]
pub(crate) struct LoopStatus {
    pub(crate) connections: u64,
    /// Of these, by what goes on there.
    pub(crate) stages: Stages,
    pub(crate) web_connections: u64,
    pub(crate) accepted: u64,
    pub(crate) turned_away: u64,
    /// Connections that were refused, by code.
    pub(crate) refused_by: BTreeMap<&'static str, u64>,
    pub(crate) sessions: Sessions,
    pub(crate) bytes_sent: u64,
    pub(crate) bytes_received: u64,
    pub(crate) turns: u64,
    pub(crate) visits: u64,
    pub(crate) longest_turn_micros: u64,
    pub(crate) turn_time: TurnTime,
    /// Connections that stand in line for a visit, and the longest that the lines ever were.
    pub(crate) lines: Lines,
    pub(crate) longest_lines: Lines,
    pub(crate) longest_queue_bytes: u64,
    pub(crate) commits: CommitFigures,
    pub(crate) helper: HelperStatus,
    /// Resident memory of the process that is not from files, as the system counts it.
    pub(crate) anonymous_bytes: Option<u64>,
    pub(crate) descriptors: Option<u64>,
    /// What transfers run and wait, and what the memory budget counts.
    #[serde(flatten)]
    pub(crate) load: Load,
}

/// How long turns took.
#[derive(Debug, Serialize)]
pub(crate) struct TurnTime {
    pub(crate) buckets: Vec<TurnBucket>,
    pub(crate) count: u64,
    pub(crate) sum_micros: u64,
}

/// Turns that took so long at most.
#[derive(Debug, Serialize)]
pub(crate) struct TurnBucket {
    pub(crate) up_to_micros: u64,
    pub(crate) count: u64,
}

/// The two lines of connections that have something to do.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct Lines {
    pub(crate) interactive: u64,
    pub(crate) bulk: u64,
}

/// What is to be made durable.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct CommitFigures {
    /// Files that wait for a job.
    pub(crate) queued: u64,
    /// Files in jobs that run.
    pub(crate) running: u64,
    /// Jobs that were begun, and the files in them.
    pub(crate) jobs: u64,
    pub(crate) files: u64,
}

/// The helper thread.
#[derive(Debug, Serialize)]
pub(crate) struct HelperStatus {
    pub(crate) queue: u64,
    pub(crate) jobs: u64,
    pub(crate) busy_micros: u64,
}

impl LoopStatus {
    /// With what the loop counts; the rest is to be filled in.
    pub(crate) fn of(counters: &Counters, load: Load) -> LoopStatus {
        let times = &counters.turn_times;
        let bucket = |(up_to_micros, count)| TurnBucket { up_to_micros, count };
        LoopStatus {
            connections: 0,
            stages: Stages::default(),
            web_connections: 0,
            accepted: counters.accepted,
            turned_away: counters.turned_away,
            refused_by: BTreeMap::new(),
            sessions: Sessions::default(),
            bytes_sent: counters.bytes_sent,
            bytes_received: counters.bytes_received,
            turns: counters.turns,
            visits: counters.visits,
            longest_turn_micros: counters.longest_turn_micros,
            turn_time: TurnTime {
                buckets: times.up_to().map(bucket).collect(),
                count: times.count(),
                sum_micros: times.sum_micros(),
            },
            lines: Lines {
                interactive: counters.interactive_line as u64,
                bulk: counters.bulk_line as u64,
            },
            longest_lines: Lines {
                interactive: counters.interactive_line_longest as u64,
                bulk: counters.bulk_line_longest as u64,
            },
            longest_queue_bytes: counters.longest_queue_bytes as u64,
            commits: CommitFigures::default(),
            helper: HelperStatus {
                queue: counters.helper_queue,
                jobs: counters.helper_jobs,
                busy_micros: counters.helper_busy_micros,
            },
            anonymous_bytes: None,
            descriptors: None,
            load,
        }
    }
}

/// Figures of a share since the server started. A session counts when it ends.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Totals {
    /// Sessions that came to their end.
    pub(crate) transfers: u64,
    /// Of these and of sessions that broke off: files that are settled, and the bytes in them.
    pub(crate) files: u64,
    pub(crate) files_transferred: u64,
    pub(crate) deleted: u64,
    pub(crate) bytes: u64,
    pub(crate) literal_bytes: u64,
    pub(crate) matched_bytes: u64,
    /// What delta saved and what was there already; `unchanged_bytes` is the latter.
    pub(crate) saved_bytes: u64,
    pub(crate) unchanged_bytes: u64,
    pub(crate) resumed_bytes: u64,
    pub(crate) wire_sent: u64,
    pub(crate) wire_received: u64,
    pub(crate) failed: u64,
    #[serde(skip)]
    pub(crate) failed_by: BTreeMap<&'static str, u64>,
}

impl Totals {
    /// A session came to its end.
    pub(crate) fn add(&mut self, summary: &Summary, failures: &[(ItemCode, u64)]) {
        self.transfers += 1;
        self.add_broken(summary, failures);
    }

    /// A session broke off; what it did counts.
    pub(crate) fn add_broken(&mut self, summary: &Summary, failures: &[(ItemCode, u64)]) {
        self.files += summary.files;
        self.files_transferred += summary.files_transferred;
        self.deleted += summary.deleted;
        self.bytes += summary.bytes;
        self.literal_bytes += summary.literal_bytes;
        self.matched_bytes += summary.matched_bytes;
        self.saved_bytes += summary.saved_bytes;
        self.unchanged_bytes += summary.unchanged_bytes;
        self.resumed_bytes += summary.resumed_bytes;
        self.wire_sent += summary.wire_sent;
        self.wire_received += summary.wire_received;
        self.failed += summary.failed;
        for (code, count) in failures {
            *self.failed_by.entry(code.name()).or_default() += count;
        }
    }

    pub(crate) fn of_share<'a>(
        &self,
        name: &'a ShareName,
        rights: Option<String>,
        free_bytes: Option<u64>,
    ) -> ShareStatus<'a> {
        ShareStatus {
            name: name.as_str(),
            rights,
            free_bytes,
            totals: self.clone(),
            inside: None,
        }
    }
}
