//! What a server or client tells its host while it runs.

use super::options::Mapping;
use crate::model::{CloseCode, DeviceId, ItemCode, RelPath, Revision, Rights, ShareName};
use std::net::SocketAddr;
use std::time::Duration;

/// What happened on a server since the last poll.
#[derive(Debug, Clone)]
pub enum ServerEvent {
    /// A new device spent an invite.
    Paired {
        /// Who.
        device: DeviceId,
        /// What it calls itself.
        name: String,
        /// The share.
        share: ShareName,
        /// What it may do there.
        rights: Rights,
    },
    /// A transfer ended, completely or not.
    Transferred {
        /// The peer's address.
        peer: SocketAddr,
        /// Who, with TLS.
        device: Option<DeviceId>,
        /// The share.
        share: ShareName,
        /// Which way and how much.
        summary: Summary,
    },
    /// A connection was refused or failed.
    Refused {
        /// Who it is, if it came so far as to prove it.
        device: Option<DeviceId>,
        /// What it calls itself.
        name: String,
        /// The peer's address.
        peer: SocketAddr,
        /// Why, as it was told to the peer.
        code: CloseCode,
        /// For the log.
        text: String,
    },
    /// A client began to keep a folder in sync: it asked for what changed. From here on the share has an index.
    SyncBegun {
        /// Who, with TLS.
        device: Option<DeviceId>,
        /// The share.
        share: ShareName,
    },
    /// It left, and both sides are the same.
    SyncEnded {
        /// Who, with TLS.
        device: Option<DeviceId>,
        /// The share.
        share: ShareName,
    },
    /// Draining has ended; the server holds no connection any more.
    Drained,
}

/// What happened on a client since the last poll.
#[derive(Debug, Clone)]
pub enum ClientEvent {
    /// The server is reached and knows us.
    Connected {
        /// Its device id; `None` over `--plain`.
        server: Option<DeviceId>,
        /// What it calls itself.
        name: String,
        /// This connection spent an invite.
        paired: bool,
        /// The server was not known before, and nothing in the link vouched for it.
        first_use: bool,
    },
    /// A connection attempt failed with a fault that may pass.
    Retrying {
        /// 1 for the first repetition.
        attempt: u32,
        /// Until the next attempt.
        wait: Duration,
        /// What went wrong.
        reason: String,
    },
    /// The transfer waits for others at the server; again whenever its place has changed.
    Queued {
        /// Its place in the line, from 1.
        position: u32,
        /// Until its turn, as the server estimates; `None` when it cannot say.
        estimate: Option<Duration>,
    },
    /// Where a source goes.
    Mapped(Mapping),
    /// One entry was settled.
    Item {
        /// Path relative to the target.
        path: RelPath,
        /// What was (or with a dry run: would be) done.
        action: Action,
        /// Size in bytes, for files.
        size: u64,
        /// How its content came there.
        figures: Figures,
    },
    /// What a dry run of a sync would do with one entry.
    Planned {
        /// Path in the folder and the share.
        path: RelPath,
        /// What would be done.
        action: Action,
        /// Size in bytes, of files that would travel.
        size: u64,
        /// It would be done in the folder; else in the share.
        is_here: bool,
    },
    /// One entry could not be transferred; the others go on.
    Failed {
        /// Path relative to the target, or the source as given.
        path: String,
        /// Why.
        code: ItemCode,
        /// Whether it is only a warning (a special file that is skipped by design).
        warning: bool,
    },
    /// Two versions of a path: one gave way.
    Conflict {
        /// Where.
        path: RelPath,
        /// Where the version is now that gave way; `None`: in the versions.
        copy: Option<RelPath>,
    },
    /// A path has no place on one side of a sync, since its file system takes the name for another one's. Both stay
    /// as they are, each where it is.
    Collision {
        /// Where.
        path: RelPath,
        /// What has its place, if that is known.
        with: Option<RelPath>,
        /// It has no place in the folder; else in the share.
        is_here: bool,
    },
    /// Folder and share are the same, as far as they can be.
    InSync {
        /// Entries that were agreed on.
        entries: u64,
        /// The share's revision.
        revision: Revision,
    },
    /// Numbers for a progress display; sent at most ten times a second.
    Progress(Progress),
    /// The server's answer to a status job: one JSON object.
    Status(String),
    /// The end. No event follows.
    Finished(Outcome),
}

/// What was done with an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// Did not exist on the receiving side.
    Created,
    /// Existed with other content.
    Replaced,
    /// Content was the same; mode or time was corrected.
    Touched,
    /// Removed on the receiving side.
    Deleted,
    /// Got another name there.
    Moved,
}

/// How the content of one file came to where it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Figures {
    /// Bytes of content that travelled, in all attempts. Of a file that travels compressed against its old
    /// version, the bytes of that.
    pub literal_bytes: u64,
    /// Bytes that the receiver took from what it had, and holes.
    pub matched_bytes: u64,
    /// Bytes that did not have to travel, without holes.
    pub saved_bytes: u64,
}

/// Where a transfer stands.
#[derive(Debug, Clone, Default)]
pub struct Progress {
    /// The list of entries is complete; totals are final.
    pub total_known: bool,
    /// Entries found so far.
    pub files_found: u64,
    /// Entries settled (transferred, unchanged or failed).
    pub files_done: u64,
    /// Bytes in all files that have to travel, as far as known.
    pub bytes_found: u64,
    /// Bytes of them that have travelled.
    pub bytes_done: u64,
    /// The file that is moving.
    pub current: Option<Box<Moving>>,
}

/// A file that is moving, and what became of its bytes.
#[derive(Debug, Clone)]
pub struct Moving {
    /// Its path.
    pub path: RelPath,
    /// Bytes of it that did not have to travel.
    pub saved: u64,
    /// Bytes of it that travelled, as content.
    pub literal: u64,
    /// Bytes of it that an earlier transfer had brought: where it went on.
    pub resumed: u64,
}

impl Moving {
    /// One that has just started.
    #[must_use]
    pub fn new(path: &RelPath) -> Moving {
        Moving {
            path: path.clone(),
            saved: 0,
            literal: 0,
            resumed: 0,
        }
    }
}

/// The figures of a finished transfer.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Summary {
    /// Files settled: transferred or found unchanged.
    pub files: u64,
    /// Files whose content travelled.
    pub files_transferred: u64,
    /// Entries removed on the receiving side.
    pub deleted: u64,
    /// Bytes in the files settled.
    pub bytes: u64,
    /// TCP payload bytes sent.
    pub wire_sent: u64,
    /// TCP payload bytes received.
    pub wire_received: u64,
    /// Bytes of content that travelled.
    pub literal_bytes: u64,
    /// Bytes that the receiver took from data it had, in files whose content changed, and holes.
    pub matched_bytes: u64,
    /// Bytes that did not have to travel: what delta saved, and files that were there already.
    pub saved_bytes: u64,
    /// Bytes of `saved_bytes` in files that were there already.
    pub unchanged_bytes: u64,
    /// Bytes that an earlier, interrupted transfer had already brought.
    pub resumed_bytes: u64,
    /// Items that failed.
    pub failed: u64,
    /// Wall time.
    pub elapsed: Duration,
}

impl Summary {
    /// Bytes that delta saved, in files whose content changed.
    #[must_use]
    pub fn delta_saved_bytes(&self) -> u64 {
        self.saved_bytes.saturating_sub(self.unchanged_bytes)
    }
}

/// How a client's job ended.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The figures.
    pub summary: Summary,
    /// `Ok` when all went well or only single items failed (`summary.failed`).
    pub result: Result<(), JobError>,
    /// When the server asks to be visited again, from now; advice, of at most a week.
    pub come_back: Option<Duration>,
}

/// Why a job as a whole did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JobError {
    /// The host name has no address.
    #[error("cannot find the host {host}: {reason}")]
    Resolve {
        /// As it stands in the link.
        host: String,
        /// From the resolver.
        reason: String,
    },
    /// Nobody listens there, or the way is blocked.
    #[error("cannot connect to {authority}: {reason}")]
    Connect {
        /// `HOST:PORT`.
        authority: String,
        /// From the system.
        reason: String,
    },
    /// The connection broke, after all retries.
    #[error("the connection to {authority} broke: {reason}")]
    Lost {
        /// `HOST:PORT`.
        authority: String,
        /// What is known.
        reason: String,
    },
    /// The server is not the one that the link or the earlier pairing names.
    #[error("the server at {authority} is not the one that was paired")]
    WrongServer {
        /// `HOST:PORT`.
        authority: String,
    },
    /// One side speaks TLS, the other does not.
    #[error("{authority} did not answer as a Syncline server: {reason}")]
    NotSyncline {
        /// `HOST:PORT`.
        authority: String,
        /// What was seen.
        reason: String,
    },
    /// The server hung up before it let anybody in: it has too many visitors, or the two sides differ
    /// in whether they use TLS.
    #[error("{authority} hung up at once: {reason}")]
    TurnedAway {
        /// `HOST:PORT`.
        authority: String,
        /// What was seen.
        reason: String,
    },
    /// A server that spoke the protocol broke its rules later.
    #[error("{authority} broke the rules of the protocol: {reason}")]
    Protocol {
        /// `HOST:PORT`.
        authority: String,
        /// Which rule.
        reason: String,
    },
    /// The server closed the connection with a reason.
    #[error("the server refused: {text}")]
    Closed {
        /// The kind.
        code: CloseCode,
        /// The server's sentence.
        text: String,
    },
    /// A local source does not exist or cannot be read.
    #[error("cannot read {path}: {reason}")]
    Source {
        /// As given.
        path: String,
        /// From the system.
        reason: String,
    },
    /// Two sources would get the same name at the target.
    #[error("two sources are named {name}, and the target can hold only one of that name")]
    SameName {
        /// The name.
        name: String,
    },
    /// The local target cannot be used.
    #[error("cannot write to {path}: {reason}")]
    Target {
        /// As given.
        path: String,
        /// From the system.
        reason: String,
    },
    /// The remote path does not exist.
    #[error("there is no {path} in the share")]
    NotFound {
        /// As in the link.
        path: String,
    },
    /// More deletions than the brake allows; nothing was deleted.
    #[error("refusing to delete {deletions} of {existing} entries")]
    MassDelete {
        /// Entries that would go.
        deletions: u64,
        /// Entries below the target.
        existing: u64,
    },
    /// Deleting was asked for, but the source could not be listed completely; nothing was deleted.
    #[error("the source or the target could not be read completely, so nothing was deleted")]
    IncompleteSource,
    /// The disk of the receiving side is full.
    #[error("the disk of the receiving side is full")]
    DiskFull,
    /// The state directory cannot be used.
    #[error("cannot use the state directory: {reason}")]
    State {
        /// What and where.
        reason: String,
    },
    /// The other side does not know what was asked for.
    #[error("the server does not know how {what}")]
    Unsupported {
        /// `to …`.
        what: &'static str,
    },
    /// A filter rule that cannot be used.
    #[error("a filter rule cannot be used: {reason}")]
    Filter {
        /// Which, and why.
        reason: String,
    },
    /// The folder of a sync cannot be used.
    #[cfg(feature = "sync")]
    #[error(transparent)]
    Folder(#[from] super::syncing::FolderError),
    /// Interrupted by a signal or the host.
    #[error("interrupted")]
    Interrupted {
        /// The signal's number, if a signal it was.
        signal: Option<i32>,
    },
}
