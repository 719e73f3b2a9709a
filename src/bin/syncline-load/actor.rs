//! Owns what is known of one client between and during its syncs, and of one connection. It never decides
//! what comes next.
//!
//! Invariant: a client makes one sync at a time, over one connection at a time.

use crate::attack;
use crate::content::{Content, Pool};
use crate::fetching::Fetching;
use crate::pushing::Pushing;
use crate::scenario::{Role, Work};
use crate::settings::Settings;
use std::collections::VecDeque;
use syncline::conn::Machine;
use syncline::model::limits::PREAUTH_FRAME_BYTES_MAX;
use syncline::model::{Fault, Rights, ShareName};
use syncline::reactor::{ConnId, LimitId};
use syncline::wire::{Decoder, Open};

/// One client.
pub(crate) struct Actor {
    pub(crate) role: Role,
    pub(crate) link: Link,
    pub(crate) setup: Setup,
    pub(crate) contents: Vec<Content>,
    /// When syncs that wait for the one before were meant to begin, in microseconds.
    pub(crate) due: VecDeque<u64>,
    pub(crate) current: Option<Current>,
    /// Some version of its files is on the server.
    pub(crate) is_known: bool,
    /// Which version is on the server is not certain: a push failed.
    pub(crate) is_uncertain: bool,
    /// Its limit of bandwidth, made when it first connects.
    pub(crate) limit: Option<LimitId>,
}

/// Where a client's connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Link {
    Offline,
    /// In the line of those that are to connect.
    Queued,
    /// From connect to the open share.
    Opening(ConnId),
    Open(ConnId),
}

/// Whether a client is ready for the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Setup {
    Needed,
    Done,
    Failed,
}

/// The sync that a client makes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Current {
    pub(crate) work: Work,
    /// It prepares the run.
    pub(crate) is_setup: bool,
    /// When it was meant to begin, and when it did. Microseconds.
    pub(crate) intended: u64,
    pub(crate) begun: Option<u64>,
    /// What its connection had moved when it began.
    pub(crate) sent: u64,
    pub(crate) received: u64,
    /// Refusals that may pass, so far.
    pub(crate) refusals: u32,
}

impl Actor {
    /// Client number `number`, before the run.
    pub(crate) fn new(settings: &Settings, pool: &Pool, number: u32, role: Role) -> Actor {
        let (files, size) = match role {
            Role::Worker => (settings.files, settings.size),
            Role::GiantPush | Role::Feeder => (1, settings.giant_size),
            Role::GiantDelta => (1, settings.giant_delta),
            Role::Attacker(_) => (1, attack::FRAME_BYTES),
            Role::Idler | Role::Churner => (0, 0),
        };
        let content = |file| Content::new(pool, number, file, size, settings.edit_bytes);
        let setup = match role {
            Role::Worker if settings.scenario.sets_up(settings.way) => Setup::Needed,
            Role::GiantDelta | Role::Feeder | Role::Idler => Setup::Needed,
            _ => Setup::Done,
        };
        Actor {
            role,
            link: Link::Offline,
            setup,
            contents: (0..files).map(content).collect(),
            due: VecDeque::new(),
            current: None,
            is_known: false,
            is_uncertain: false,
            limit: None,
        }
    }
}

/// One connection.
pub(crate) struct Peer {
    pub(crate) decoder: Decoder,
    pub(crate) machine: Machine,
    pub(crate) actor: u32,
    pub(crate) transfer: Option<Transfer>,
    /// When it began to connect, in microseconds.
    pub(crate) begun: u64,
    /// What the server said when it closed.
    pub(crate) farewell: Option<Fault>,
    /// When the server said to come again.
    pub(crate) come_back_ms: Option<u64>,
    /// This side ended it, and its client has forgotten it.
    pub(crate) leaving: bool,
    /// This side gave up waiting.
    pub(crate) timed_out: bool,
    /// TCP and TLS stand.
    pub(crate) stands: bool,
    /// Bytes moved when it was last looked at.
    pub(crate) moved: (u64, u64),
    /// What is said a byte at a time.
    pub(crate) trickle: VecDeque<u8>,
}

/// What runs on a connection.
pub(crate) enum Transfer {
    Push(Box<Pushing>),
    Fetch(Box<Fetching>),
}

impl Peer {
    /// A connection of client `actor` to a share.
    pub(crate) fn new(actor: u32, share: &ShareName, wanted: Rights, begun: u64) -> Peer {
        let open = Open {
            share: Some(share.clone()),
            secret: None,
            wanted,
        };
        Peer {
            decoder: Decoder::new(PREAUTH_FRAME_BYTES_MAX),
            machine: Machine::client("load", open),
            actor,
            transfer: None,
            begun,
            farewell: None,
            come_back_ms: None,
            leaving: false,
            timed_out: false,
            stands: false,
            moved: (0, 0),
            trickle: VecDeque::new(),
        }
    }
}
