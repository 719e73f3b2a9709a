//! A crash point and its name: which process of which operation fails how, at which call.
//! Invariant: the name of a point parses to the same point, so one line repeats what was found.

use crate::operation::{Actor, Operation};
use std::fmt;

/// `push.server.kill.durable.fsync.3`: the third `fsync` of the server's helper thread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Point {
    pub operation: Operation,
    pub actor: Actor,
    pub fault: Fault,
    pub at: Call,
}

/// What happens right before the call, or to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL before the call.
    Kill,
    /// The call is not done and returns this.
    Error(&'static str),
    /// The call writes less than it was told to, as much as fits below a limit
    /// of the size of files: the number says how many bytes.
    Short,
    /// SIGKILL before the call, and all that the file system had not written by then is gone.
    Power(Disk),
    /// SIGKILL before the call; then a start, a run without faults, and the power goes after that.
    Late(Disk),
}

/// A file system that can be shut down without flushing its log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disk {
    Xfs,
    Ext4,
}

/// Whose calls are counted, from when on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Thread {
    /// The first thread, from exec until it is ready (server) or connects (client).
    Start,
    /// The loop, from then on.
    Loop,
    /// The helper thread that flushes and renames, from then on.
    Durable,
    /// The one for bulk: it checks and flushes large files.
    Bulk,
}

/// The `number`th call (from 1) of this name in a thread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    pub thread: Thread,
    pub name: String,
    pub number: u32,
}

pub const ERRORS: [&str; 4] = ["ENOSPC", "EDQUOT", "EIO", "EINTR"];

/// How long a write takes to come back, so that the size can be lifted before the next one.
const SHORT_DELAY_MICROS: u32 = 30_000;

impl Point {
    pub fn parse(text: &str) -> Option<Point> {
        let parts: Vec<&str> = text.split('.').collect();
        let [operation, actor, fault, thread, name, number] = parts[..] else {
            return None;
        };
        Some(Point {
            operation: Operation::parse(operation)?,
            actor: [Actor::Server, Actor::Client]
                .into_iter()
                .find(|one| one.name() == actor)?,
            fault: Fault::parse(fault)?,
            at: Call {
                thread: [Thread::Start, Thread::Loop, Thread::Durable, Thread::Bulk]
                    .into_iter()
                    .find(|one| one.name() == thread)?,
                name: name.to_owned(),
                number: number.parse().ok()?,
            },
        })
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Call { thread, name, number } = &self.at;
        write!(
            f,
            "{}.{}.{}.{}.{name}.{number}",
            self.operation.name(),
            self.actor.name(),
            self.fault.name(),
            thread.name()
        )
    }
}

impl Actor {
    pub fn name(self) -> &'static str {
        match self {
            Actor::Server => "server",
            Actor::Client => "client",
        }
    }
}

impl Thread {
    pub fn name(self) -> &'static str {
        match self {
            Thread::Start => "start",
            Thread::Loop => "loop",
            Thread::Durable => "durable",
            Thread::Bulk => "bulk",
        }
    }
}

impl Fault {
    pub fn name(self) -> &'static str {
        match self {
            Fault::Kill => "kill",
            Fault::Error(errno) => errno,
            Fault::Short => "short",
            Fault::Power(Disk::Xfs) => "power-xfs",
            Fault::Power(Disk::Ext4) => "power-ext4",
            Fault::Late(Disk::Xfs) => "late-power-xfs",
            Fault::Late(Disk::Ext4) => "late-power-ext4",
        }
    }

    fn parse(text: &str) -> Option<Fault> {
        let errors = ERRORS.into_iter().map(Fault::Error);
        let cuts = [Disk::Xfs, Disk::Ext4]
            .into_iter()
            .flat_map(|disk| [Fault::Power(disk), Fault::Late(disk)]);
        errors
            .chain([Fault::Kill])
            .chain(cuts)
            .find(|fault| fault.name() == text)
    }

    /// The disk whose power is cut.
    pub fn disk(self) -> Option<Disk> {
        match self {
            Fault::Power(disk) | Fault::Late(disk) => Some(disk),
            Fault::Kill | Fault::Error(_) | Fault::Short => None,
        }
    }

    /// What the tracer is told to do.
    pub fn injection(self) -> String {
        match self {
            Fault::Kill | Fault::Power(_) | Fault::Late(_) => "signal=KILL".to_owned(),
            Fault::Error(errno) => format!("error={errno}"),
            Fault::Short => format!("delay_exit={SHORT_DELAY_MICROS}"),
        }
    }
}
