//! What a host asks of a server or a client: plain options, checked when they are used.

use super::turns::Schedule;
use crate::model::limits::{
    CONNECTIONS_MAX, HANDSHAKE_TIMEOUT_MS, IDLE_TIMEOUT_MS, QUIET_TIMEOUT_MS, STALL_TIMEOUT_MS,
};
use crate::model::{DEFAULT_PORT, DeviceId, Link, RelPath, Rights, ShareName, Timetable};
use crate::store::{Flush, Retention};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// When "committed" may be said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// After the data, its name and its directory are on disk.
    #[default]
    Barrier,
    /// When the operating system has it: a power cut may lose it.
    None,
}

impl Durability {
    /// What it means for a file that is changed in place.
    pub(crate) fn flush(self) -> Flush {
        match self {
            Durability::Barrier => Flush::Disk,
            Durability::None => Flush::Nothing,
        }
    }
}

/// One folder that a server serves.
#[derive(Debug, Clone)]
pub struct ShareOptions {
    /// The name in links.
    pub name: ShareName,
    /// The folder.
    pub path: PathBuf,
    /// Rights of anyone who can reach the server, without pairing.
    pub open: Rights,
}

/// Everything a server needs to know.
#[derive(Debug, Clone)]
pub struct ServerOptions {
    /// Addresses to listen on; port 0 picks a free one.
    pub listen: Vec<SocketAddr>,
    /// The folders. At least one, with distinct names.
    pub shares: Vec<ShareOptions>,
    /// The state directory: key, paired devices, invites.
    pub home: PathBuf,
    /// No TLS. The caller has checked that this was asked for knowingly.
    pub plain: bool,
    /// Each device has a place of its own in each share, which it sees as the share, and nothing else of it. Needs
    /// devices that can be told apart: no `plain`, and no share that is open.
    pub per_device: bool,
    /// When pushes are acknowledged.
    pub durability: Durability,
    /// How long what pushes replace and delete is kept in `.syncline/versions` of a share. `None`: not at
    /// all; what is there already stays.
    pub keep_versions: Option<Retention>,
    /// Bytes a second, in each direction.
    pub bandwidth: Bandwidth,
    /// Connections that may be open at a time.
    pub connections_max: usize,
    /// Transfers that may run at a time; others wait in line.
    pub active_max: usize,
    /// Bytes of memory that connections may take together; at least 12 MiB. `None`: no limit.
    pub memory_limit: Option<u64>,
    /// When clients are to come again.
    pub schedule: Schedule,
    /// Install handlers for SIGINT and SIGTERM that drain the server. A host with handlers of its
    /// own says no and calls [`drain`](crate::Server::drain).
    pub handle_signals: bool,
    /// How long it waits for its peers.
    pub deadlines: Deadlines,
    /// Where to answer `/metrics` and `/healthz` over HTTP, to whoever can reach the address; `None`: nowhere.
    pub metrics: Option<SocketAddr>,
}

/// Limits of bandwidth, in bytes a second and for each direction by itself; the times are those of the
/// machine's time zone. A connection is under all that concern it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Bandwidth {
    /// Over all connections.
    pub global: Timetable,
    /// Over all connections to a share.
    pub shares: Vec<(ShareName, Timetable)>,
    /// Over all connections of a device.
    pub devices: Vec<(DeviceId, Timetable)>,
}

/// How long a server waits for a peer, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadlines {
    /// From accept until the peer must have opened a share.
    pub handshake_ms: u64,
    /// Without progress in a transfer, in either direction: a whole message or 16 KiB have to come, and
    /// 16 KiB of what waits for it have to be read.
    pub stall_ms: u64,
    /// Without a transfer, however often it pings.
    pub idle_ms: u64,
    /// In a transfer with nothing to do here, and nothing but pings from the peer. It may be busy with a large
    /// file, so this is long.
    pub quiet_ms: u64,
}

impl Default for Deadlines {
    fn default() -> Self {
        Deadlines {
            handshake_ms: HANDSHAKE_TIMEOUT_MS,
            stall_ms: STALL_TIMEOUT_MS,
            idle_ms: IDLE_TIMEOUT_MS,
            quiet_ms: QUIET_TIMEOUT_MS,
        }
    }
}

/// What a client does in one run.
#[derive(Debug, Clone)]
pub enum Job {
    /// Local files and trees to a share.
    Push {
        /// The sources, in the order given.
        sources: Vec<Source>,
        /// Where they go.
        target: Link,
    },
    /// Files and trees of one share to a local place.
    Pull {
        /// What to fetch; all links name the same server and share.
        links: Vec<Link>,
        /// Where it goes.
        target: PathBuf,
        /// The user wrote the target with a trailing slash: it is a directory.
        target_is_directory: bool,
    },
    /// A folder and a share, kept the same.
    #[cfg(feature = "sync")]
    Sync {
        /// The folder.
        folder: PathBuf,
        /// The share; `None`: the one that the folder remembers.
        link: Option<Link>,
        /// How.
        options: SyncOptions,
    },
    /// Asks the server how it is.
    Status {
        /// Any link to the server; the share must be one that the device may read.
        link: Link,
    },
}

/// How a folder is kept in sync.
#[cfg(feature = "sync")]
#[derive(Debug, Clone, Default)]
pub struct SyncOptions {
    /// Which side follows which.
    pub mode: crate::sync::Mode,
    /// Refuse to delete more than this, on either side.
    pub max_delete: MaxDelete,
    /// Go on when it is in sync: whatever changes on either side is carried over at once.
    pub watch: bool,
    /// When a file that was fetched counts as agreed on.
    pub durability: Durability,
    /// Tell what would be done, as [`ClientEvent::Planned`](super::ClientEvent::Planned), and do nothing.
    pub dry_run: bool,
}

/// A local source of a push.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// A file or directory.
    pub path: PathBuf,
    /// Written with a trailing slash: the directory's contents, not the directory.
    pub contents_only: bool,
}

/// How a transfer behaves.
#[derive(Debug, Clone)]
pub struct TransferOptions {
    /// Compare and report, change nothing.
    pub dry_run: bool,
    /// Compare contents, never trust size and time.
    pub checksum: bool,
    /// Remove what the source does not have.
    pub delete: bool,
    /// Refuse to delete more than this.
    pub max_delete: MaxDelete,
    /// Filter rules in the order given; the first that matches decides.
    pub filters: Vec<FilterRule>,
    /// When the receiver may say "committed": for a pull here, for a push the server decides.
    pub durability: Durability,
    /// Change files where they lie, instead of replacing them, when what they keep stays where it is.
    pub in_place: bool,
    /// Send changed files whole.
    pub whole_file: bool,
}

impl Default for TransferOptions {
    fn default() -> Self {
        TransferOptions {
            dry_run: false,
            checksum: false,
            delete: false,
            max_delete: MaxDelete::default(),
            filters: Vec::new(),
            durability: Durability::Barrier,
            in_place: false,
            whole_file: false,
        }
    }
}

/// The brake on deletions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MaxDelete {
    /// At most so many entries.
    Count(u64),
    /// At most this share of the entries below the target, in percent.
    Percent(u8),
    /// No brake: the user said so.
    Unlimited,
    /// 50 % once more than 25 entries would go.
    #[default]
    Default,
}

impl MaxDelete {
    /// Whether `deletions` of `existing` entries stay within the brake.
    #[must_use]
    pub fn allows(self, deletions: u64, existing: u64) -> bool {
        match self {
            MaxDelete::Count(limit) => deletions <= limit,
            MaxDelete::Percent(percent) => u128::from(deletions) * 100 <= u128::from(existing) * u128::from(percent),
            MaxDelete::Unlimited => true,
            MaxDelete::Default => deletions <= 25 || deletions * 2 <= existing,
        }
    }
}

/// One `--exclude` or `--include`, gitignore syntax.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FilterRule {
    /// Leave out what matches.
    Exclude(String),
    /// Keep what matches, whatever a later rule says.
    Include(String),
}

/// How a client reaches and trusts its server.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// The state directory: key and known servers.
    pub home: PathBuf,
    /// No TLS.
    pub plain: bool,
    /// Bytes a second, in each direction.
    pub bandwidth: Timetable,
    /// Give up when the peer is silent for this long.
    pub timeout: Duration,
    /// Connection attempts after the first, for faults that may pass.
    pub retries: u32,
    /// Before the first connection.
    pub delay: Duration,
    /// Install handlers for SIGINT and SIGTERM that end the job in order.
    pub handle_signals: bool,
}

/// Where one source ended up; printed once so that nobody needs to know a trailing-slash rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    /// The source as given.
    pub source: String,
    /// Where it goes.
    pub target: String,
    /// The target path within the share, for a push.
    pub path: Option<RelPath>,
}

impl ServerOptions {
    /// A server as `syncline serve` starts it: TLS, all addresses, the default port, durable pushes;
    /// but signals are left to the host. Who may come in is in `home` and in the shares' `open`.
    #[must_use]
    pub fn new(home: PathBuf, shares: Vec<ShareOptions>) -> ServerOptions {
        ServerOptions {
            listen: vec![(Ipv4Addr::UNSPECIFIED, DEFAULT_PORT).into()],
            shares,
            home,
            plain: false,
            per_device: false,
            durability: Durability::Barrier,
            keep_versions: Some(Retention::default()),
            bandwidth: Bandwidth::default(),
            connections_max: CONNECTIONS_MAX,
            active_max: CONNECTIONS_MAX,
            memory_limit: None,
            schedule: Schedule::default(),
            handle_signals: false,
            deadlines: Deadlines::default(),
            metrics: None,
        }
    }
}

impl ClientOptions {
    /// A client as `syncline push` starts it: TLS, 60 seconds of patience, five further attempts; but
    /// signals are left to the host.
    #[must_use]
    pub fn new(home: PathBuf) -> ClientOptions {
        ClientOptions {
            home,
            plain: false,
            bandwidth: Timetable::default(),
            timeout: Duration::from_secs(60),
            retries: 5,
            delay: Duration::ZERO,
            handle_signals: false,
        }
    }
}
