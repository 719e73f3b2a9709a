//! Owns the figures of the loop. It never decides anything by them.
//!
//! Invariant: figures only grow, but for the lengths of lines and queues.

use super::turn_times::TurnTimes;

/// What the loop has done since it was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Turns, each with one wait for events.
    pub turns: u64,
    /// Visits to connections.
    pub visits: u64,
    /// Connections accepted and kept.
    pub accepted: u64,
    /// Connections closed when they were accepted: over the cap, refused by the host, or without
    /// descriptors.
    pub turned_away: u64,
    /// Microseconds of work in the longest turn, without the waiting.
    pub longest_turn_micros: u64,
    /// How long turns took.
    pub turn_times: TurnTimes,
    /// Bytes in the longest queue that any connection had.
    pub longest_queue_bytes: usize,
    /// Connections that stand in line with little to do, or with work after a pause.
    pub interactive_line: usize,
    /// The longest that this line ever was.
    pub interactive_line_longest: usize,
    /// Connections that stand in line and used much of their quantum in the last visit; they are
    /// visited after the others.
    pub bulk_line: usize,
    /// The longest that this line ever was.
    pub bulk_line_longest: usize,
    /// TCP payload bytes sent and received, over all connections.
    pub bytes_sent: u64,
    /// As `bytes_sent`.
    pub bytes_received: u64,
    /// Jobs that wait for the helper thread or are with it.
    pub helper_queue: u64,
    /// Jobs that it has done.
    pub helper_jobs: u64,
    /// Microseconds that it has worked.
    pub helper_busy_micros: u64,
}
