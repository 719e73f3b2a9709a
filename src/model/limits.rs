//! Every limit that outside input meets, in one place, with its unit in the name.

/// Bytes in a path.
pub const PATH_BYTES_MAX: usize = 4096;
/// Bytes in one component of a path.
pub const NAME_BYTES_MAX: usize = 255;
/// Components in a path.
pub const PATH_DEPTH_MAX: usize = 256;
/// Bytes in the text of a symbolic link.
pub const SYMLINK_BYTES_MAX: usize = 4095;
/// Bytes in the name of a share.
pub const SHARE_NAME_BYTES_MAX: usize = 128;
/// Bytes in a device's display name.
pub const DEVICE_NAME_BYTES_MAX: usize = 64;

/// Payload bytes of a control frame.
pub const CONTROL_FRAME_BYTES_MAX: usize = 1 << 20;
/// Payload bytes of any frame before the connection is authenticated.
pub const PREAUTH_FRAME_BYTES_MAX: usize = 4096;
/// Payload bytes of a bulk frame.
pub const BULK_FRAME_BYTES_MAX: usize = 4 << 20;
/// Bytes in a text that explains a close.
pub const TEXT_BYTES_MAX: usize = 512;
/// Entries in one offer or answer.
pub const BATCH_ENTRIES_MAX: usize = 4096;
/// Filter rules in one request, and bytes in one of them.
pub const FILTER_RULES_MAX: usize = 1024;
/// Bytes in one filter rule.
pub const FILTER_RULE_BYTES_MAX: usize = 1024;
/// Bytes in all filter rules of one request; times the bytes of a path it bounds a decision.
pub const FILTER_BYTES_MAX: usize = 64 * 1024;
/// Sources in one request to pull.
pub const SOURCES_MAX: usize = 1024;
/// Bytes of a file; the largest offset that file systems take.
pub const FILE_BYTES_MAX: u64 = i64::MAX as u64;

/// Milliseconds from accept until a connection must be authenticated.
pub const HANDSHAKE_TIMEOUT_MS: u64 = 10_000;
/// Milliseconds without a whole message or 16 KiB from the peer, or without 16 KiB read by it, until a
/// connection in a transfer is closed.
pub const STALL_TIMEOUT_MS: u64 = 60_000;
/// Milliseconds between pings while nothing else is sent during a transfer.
pub const PING_INTERVAL_MS: u64 = 15_000;
/// Milliseconds that an authenticated connection may sit without a transfer.
pub const IDLE_TIMEOUT_MS: u64 = 120_000;
/// Milliseconds that a peer in a transfer may say nothing but pings while there is nothing to do here.
/// Reading a file of 1 TB to compare it takes 2.8 hours at 100 MB/s.
pub const QUIET_TIMEOUT_MS: u64 = 4 * 3600 * 1000;
/// Milliseconds that open connections get to finish after a request to stop.
pub const DRAIN_TIMEOUT_MS: u64 = 5_000;

/// Bytes queued for a peer that does not read; above it nothing more is produced for it.
pub const OUTBOUND_BYTES_MAX: usize = 256 * 1024;
/// Bytes of file content in flight without new credit.
pub const CREDIT_WINDOW_BYTES: u64 = 8 << 20;
/// Offers that wait for an answer.
pub const OFFER_WINDOW: usize = 4096;
/// Bytes of paths and link targets in entries that are offered and not settled. Front coding makes a
/// few bytes on the wire into a long path, so that counting entries alone would not bound memory.
pub const OFFER_WINDOW_BYTES: usize = 4 << 20;
/// Bytes that a receiver keeps of the directories of one transfer, whose times it sets at the end:
/// more than a million of them.
pub const DIRECTORIES_BYTES_MAX: usize = 256 << 20;
/// Entries of one transfer with deletions; of each the receiver keeps 16 bytes.
pub const LISTED_MAX: usize = 32_000_000;
/// Bytes of one piece of an answer about a basis.
pub const TELL_BYTES_MAX: usize = 64 * 1024;
/// The most bytes that the plan of a file of `size` bytes may take: all of it new, and 1 %.
#[must_use]
pub fn plan_bytes_max(size: u64) -> u64 {
    size.saturating_add(size / 100).saturating_add(PLAN_SLACK_BYTES)
}

/// What a plan may take of itself.
const PLAN_SLACK_BYTES: u64 = 64 * 1024;
/// Files about whose basis a sender asks at a time.
pub const ASKED_MAX: usize = 16;
/// Questions about one basis; each costs its holder at most one reading of it.
pub const QUESTIONS_MAX: u32 = 8;
/// Up to this size a changed file travels whole: asking would cost more.
pub const WHOLE_BYTES_MAX: u64 = 8 * 1024;
/// Content up to this size travels in a single frame with its root.
pub const INLINE_BYTES_MAX: u64 = 16 * 1024;
/// Bytes per leaf of the content tree (BEP 52).
pub const LEAF_BYTES: usize = 16 * 1024;
/// Bytes of a file from which on an interrupted transfer of it goes on where it broke off. Less is sent
/// again as fast.
pub const RESUME_BYTES_MIN: u64 = 1 << 20;
/// Times that a file which changes while it is read is read again.
pub const CHANGED_RETRIES_MAX: u32 = 3;

/// Work of one loop turn on one connection, in microseconds.
pub const TURN_MICROS: u64 = 2_000;
/// Bytes moved for one connection in one turn.
pub const TURN_BYTES: usize = 1 << 20;
/// Connections accepted in one turn.
pub const ACCEPTS_PER_TURN: usize = 64;
/// Connections that may be open at a time, authenticated or not.
pub const CONNECTIONS_MAX: usize = 16_384;
/// Connections that may be open without being authenticated yet.
pub const PREAUTH_CONNECTIONS_MAX: usize = 1_024;
/// Wrong secrets from one address before it has to wait.
pub const AUTH_FAILURES_MAX: u32 = 5;
/// First wait after too many wrong secrets; doubles up to 64 times this.
pub const AUTH_BACKOFF_MS: u64 = 1_000;

/// Log2 of the bytes that a compressed stream may refer back to: 4 MiB.
pub const SQUEEZE_WINDOW_LOG_MAX: u32 = 22;
/// Bytes that restoring one compressed stream may take.
pub const UNSQUEEZE_MEMORY_BYTES_MAX: usize = 8 << 20;
/// Bytes of a file that is sent against the contents, or a signature, of its basis.
pub const MEDIUM_BYTES_MAX: u64 = 16 << 20;
/// Contents in the shadow store; of each the index keeps some 80 bytes.
pub const SHADOWS_MAX: usize = 65_536;
/// Unfinished transfers in one journal.
pub const JOURNAL_ENTRIES_MAX: usize = 16_384;
/// Bytes of a journal.
pub const JOURNAL_BYTES_MAX: u64 = 16 << 20;
/// Runs of changed pages that a journal keeps of one file that is changed in place.
pub const JOURNAL_RUNS_MAX: usize = 64;

/// Bytes of the request line and the headers of an HTTP request.
pub const HTTP_HEAD_BYTES_MAX: usize = 16 * 1024;
/// Headers of an HTTP request.
pub const HTTP_HEADERS_MAX: usize = 64;
/// Requests on one HTTP connection; then it is closed, and its owner comes again.
pub const HTTP_REQUESTS_MAX: u32 = 1_000;
/// Requests that are answered at once when they come together; whoever sends more asks again.
pub const HTTP_PIPELINED_MAX: u32 = 16;
/// HTTP connections at a time. The oldest gives way to a new one.
pub const HTTP_CONNECTIONS_MAX: usize = 32;

/// Directories of one tree that are watched; of each some 200 bytes are kept.
pub const WATCHES_MAX: usize = 1 << 20;
/// Names of directories that wait to be looked at; above it the whole tree is walked again.
pub const WATCH_LOOKS_MAX: usize = 65_536;
/// Milliseconds without an event until a changed path is looked at.
pub const SETTLE_QUIET_MS: u64 = 50;
/// Milliseconds after which it is looked at although events go on.
pub const SETTLE_LATEST_MS: u64 = 1_000;
/// As [`SETTLE_QUIET_MS`], for a file that is written and was not closed yet.
pub const SETTLE_OPEN_QUIET_MS: u64 = 1_000;
/// As [`SETTLE_LATEST_MS`], for a file that is written and was not closed yet.
pub const SETTLE_OPEN_LATEST_MS: u64 = 10_000;
/// Changed paths that are kept one by one; above it their directories are kept instead.
pub const SETTLE_PATHS_MAX: usize = 16_384;
/// Bytes of those paths.
pub const SETTLE_BYTES_MAX: usize = 4 << 20;

/// Bytes of a file of ignore rules that are read.
pub const IGNORE_FILE_BYTES_MAX: usize = 64 * 1024;
/// Rules that are taken of one such file.
pub const IGNORE_RULES_MAX: usize = 1024;
/// Bytes of the rules that a path can meet, over all directories above it; times the bytes of the path it
/// bounds a decision.
pub const IGNORE_ACTIVE_BYTES_MAX: usize = 128 * 1024;
/// Directories whose rules are remembered between two decisions.
pub const IGNORE_CACHED_MAX: usize = 4096;
/// Bytes of those rules; compiled they take some 16 times as much.
pub const IGNORE_CACHED_BYTES_MAX: usize = 1 << 20;
/// Complaints about ignore rules that are kept until somebody asks for them.
pub const IGNORE_PROBLEMS_MAX: usize = 64;

/// Milliseconds after which a watched folder is looked through as a whole: watching is not believed for ever.
pub const RESCAN_MS: u64 = 30 * 60 * 1000;
/// The same for a folder that is not watched, or not all of it.
pub const RESCAN_UNWATCHED_MS: u64 = 60 * 1000;

/// Bytes of a file of an activity log; there are two, and the older one goes when the younger is full.
pub const ACTIVITY_BYTES_MAX: u64 = 4 << 20;
/// Entries of one run that its activity log lists, so that a large run does not drive out all that came before
/// it; the others are counted.
pub const ACTIVITY_ITEMS_MAX: u64 = 5_000;
/// Visitors that were refused, of whom an activity log tells within [`ACTIVITY_REFUSED_MS`]; others are counted.
pub const ACTIVITY_REFUSED_MAX: u32 = 20;
/// See [`ACTIVITY_REFUSED_MAX`].
pub const ACTIVITY_REFUSED_MS: u64 = 10 * 60 * 1000;
