//! Turns and memory at a server: which transfer begins, which waits, who is told to come again, and who is not
//! read from for a while.
//!
//! A part of [`ServerNode`]'s work. Invariant: what waits is begun, refused or gone, never forgotten; whenever
//! something is held back for memory, the transfer that began first goes on.

use super::begin::random_seed;
use super::budget::{Budget, PLAIN_CONNECTION_BYTES, Pressure, TLS_CONNECTION_BYTES, TRANSFER_BYTES};
use super::options::ServerOptions;
use super::peer::{Session, Transfer};
use super::server_node::ServerNode;
use super::sessions::{Sessions, Turn, Visitor};
use crate::model::{CloseCode, DeviceId, Fault};
use crate::reactor::{ConnId, Context, Shared};
use crate::wire::Begin;
use std::time::Duration;

/// The timer that counts the places in the line.
pub(super) const LINE_TIMER: u64 = 6;
/// Milliseconds between two counts; more for a long line.
const LINE_INTERVAL_MS: u64 = 1_000;
/// Milliseconds until a client that finds no room is to come again: the estimate within these bounds, and up to
/// a quarter more by chance.
const BUSY_MS_MIN: u64 = 1_000;
const BUSY_MS_MAX: u64 = 60_000;

/// When clients are to come for their next run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Schedule {
    /// Time between two runs of any client; `None`: it decides itself.
    pub every: Option<Duration>,
    /// Time between two runs of single devices.
    pub devices: Vec<(DeviceId, Duration)>,
}

impl Schedule {
    /// Milliseconds until `device` is to come again: up to a tenth more or less, by chance, so that clients
    /// that were started together do not come together for ever.
    fn after_ms(&self, device: Option<&DeviceId>, random: u64) -> Option<u64> {
        let own = self.devices.iter().find(|(named, _)| Some(named) == device);
        let every = own.map(|(_, every)| *every).or(self.every)?;
        let ms = u64::try_from(every.as_millis()).unwrap_or(u64::MAX);
        let spread = (ms / 5).max(1);
        Some(ms - ms / 10 + random % spread)
    }
}

/// What a server knows of turns and memory.
pub(super) struct Turns {
    /// Which transfers run, and which wait.
    pub(super) sessions: Sessions,
    schedule: Schedule,
    /// What connections take of memory.
    pub(super) budget: Budget,
    /// What one takes that does nothing.
    pub(super) connection_bytes: usize,
    /// Connections that are not read from until others have given memory back.
    starved: Vec<ConnId>,
    /// Transfers that were told to come again.
    refused_busy: u64,
}

impl Turns {
    pub(super) fn new(options: &ServerOptions) -> Turns {
        Turns {
            sessions: Sessions::new(options.active_max),
            schedule: options.schedule.clone(),
            budget: Budget::new(options.memory_limit),
            connection_bytes: match options.plain {
                true => PLAIN_CONNECTION_BYTES,
                false => TLS_CONNECTION_BYTES,
            },
            starved: Vec::new(),
            refused_busy: 0,
        }
    }
}

/// How much a server has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Load {
    /// Transfers that run.
    pub active: usize,
    /// Transfers that wait in line.
    pub queued: usize,
    /// Transfers that were asked to come again, for lack of memory.
    pub refused_busy: u64,
    /// Bytes of memory that connections are accounted, with what the process takes by itself.
    pub memory_bytes: u64,
    /// The most that was.
    pub memory_most_bytes: u64,
    /// What it may be.
    pub memory_limit_bytes: Option<u64>,
}

impl ServerNode {
    pub(super) fn load(&self) -> Load {
        Load {
            active: self.turns.sessions.active(),
            queued: self.turns.sessions.waiting(),
            refused_busy: self.turns.refused_busy,
            memory_bytes: self.turns.budget.used(),
            memory_most_bytes: self.turns.budget.most(),
            memory_limit_bytes: self.turns.budget.limit(),
        }
    }

    /// A client begins a transfer: now, or when its turn comes.
    pub(super) fn take_turn(&mut self, cx: &mut Context<'_>, session: &mut Session, begin: Begin) -> Result<(), Fault> {
        let address = Visitor::Address(cx.peer_addr().ip());
        let visitor = session.device.map_or(address, Visitor::Device);
        let id = cx.id();
        if self.turns.sessions.begin(id, visitor, self.turns.budget.has_room()) == Turn::Now {
            return self.begin(cx, session, begin);
        }
        if self.turns.budget.pressure() >= Pressure::Full {
            self.turns.sessions.end(id, cx.now());
            return Err(self.busy(session));
        }
        if let Some(queued) = self.turns.sessions.news(id) {
            session.machine.queued(queued);
        }
        session.waiting = Some(Box::new(begin));
        cx.set_deadline(Some(cx.now() + self.deadlines.stall_ms / 4));
        if self.turns.sessions.waiting() == 1 {
            let when = cx.now() + LINE_INTERVAL_MS;
            cx.set_timer(LINE_TIMER, when);
        }
        Ok(())
    }

    /// Begins what has waited, if its turn has come, or says where it stands.
    pub(super) fn turn_of(&mut self, cx: &mut Context<'_>, session: &mut Session) -> Result<(), Fault> {
        if session.waiting.is_none() {
            return Ok(());
        }
        if !self.turns.sessions.is_active(cx.id()) {
            if let Some(queued) = self.turns.sessions.news(cx.id()) {
                session.machine.queued(queued);
            }
            return Ok(());
        }
        self.turns.budget.unreserve();
        match session.waiting.take() {
            Some(begin) => self.begin(cx, session, *begin),
            None => Ok(()),
        }
    }

    /// The transfer of a connection is over, or the connection is.
    pub(super) fn end_turn(&mut self, shared: &mut Shared, id: ConnId, was_waiting: bool) {
        if was_waiting && self.turns.sessions.is_active(id) {
            self.turns.budget.unreserve();
        }
        self.turns.sessions.end(id, shared.now());
        self.give_turns(shared);
        if let Some(oldest) = self.turns.sessions.oldest().filter(|_| !self.turns.starved.is_empty()) {
            shared.wake(oldest);
        }
    }

    /// Lets the next ones begin, as far as there is room.
    pub(super) fn give_turns(&mut self, shared: &mut Shared) {
        while self.turns.sessions.waiting() > 0
            && let Some(id) = self.turns.sessions.next(self.turns.budget.has_room())
        {
            self.turns.budget.reserve();
            shared.wake(id);
        }
    }

    /// Counts the places in the line; who has moved is told.
    pub(super) fn count_line(&mut self, shared: &mut Shared) {
        for id in self.turns.sessions.count_places() {
            shared.wake(id);
        }
        let waiting = self.turns.sessions.waiting() as u64;
        if waiting > 0 {
            shared.set_timer(LINE_TIMER, shared.now() + LINE_INTERVAL_MS + waiting / 2);
        }
    }

    /// Whoever comes anew is told to come again while memory is short.
    pub(super) fn check_room(&mut self, session: &mut Session) -> Result<(), Fault> {
        match self.turns.budget.pressure() {
            Pressure::Roomy | Pressure::Tight => Ok(()),
            Pressure::Full | Pressure::Over => Err(self.busy(session)),
        }
    }

    /// Tells a client of an open share when its next run is due, if there is a schedule.
    pub(super) fn tell_schedule(&self, session: &mut Session) {
        let random = random_seed().unwrap_or(0);
        if let Some(after_ms) = self.turns.schedule.after_ms(session.device.as_ref(), random) {
            session.machine.come_back(after_ms);
        }
    }

    fn busy(&mut self, session: &mut Session) -> Fault {
        let estimate_ms = self.turns.sessions.estimate_ms().clamp(BUSY_MS_MIN, BUSY_MS_MAX);
        let after_ms = estimate_ms + random_seed().unwrap_or(0) % (estimate_ms / 4);
        session.machine.come_back(after_ms);
        self.turns.refused_busy += 1;
        let waiting = self.turns.sessions.waiting();
        let text = format!("the server has no room: {waiting} transfers wait already");
        Fault::new(CloseCode::Busy, text)
    }

    /// Takes account of what a connection holds now, and decides whether it is read from.
    pub(super) fn account(&mut self, cx: &mut Context<'_>, session: &mut Session) -> Result<(), Fault> {
        let id = cx.id();
        let mut held = session.held_bytes(cx);
        if session.transfer.is_some() {
            held = held.max(usize::try_from(TRANSFER_BYTES).unwrap_or(usize::MAX));
            if self.turns.budget.is_exceeded_by(held) {
                let text = "this transfer needs more memory than the server may use; send less at a time";
                return Err(Fault::new(CloseCode::Limit, text));
            }
        }
        held += self.turns.connection_bytes;
        self.turns.budget.change(session.held, held);
        session.held = held;
        let is_tight = self.turns.budget.pressure() >= Pressure::Tight;
        let is_bulk = matches!(&session.transfer, Some(Transfer::Receiving(receiving)) if receiving.is_bulk());
        let waits_for_disk = is_bulk && self.core.committer.is_behind();
        let others_came_first = self.turns.sessions.oldest() != Some(id);
        let starved = waits_for_disk || is_tight && session.transfer.is_some() && others_came_first;
        if starved && !session.starved {
            self.turns.starved.push(id);
        }
        session.starved = starved;
        if !is_tight {
            for other in std::mem::take(&mut self.turns.starved) {
                cx.wake(other);
            }
            self.give_turns(cx);
        }
        Ok(())
    }

    /// A connection is gone, with all that it held.
    pub(super) fn release(&mut self, shared: &mut Shared, id: ConnId, session: &Session) {
        self.turns.budget.change(session.held, 0);
        self.end_turn(shared, id, session.waiting.is_some());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schedule_spreads_its_clients_and_knows_single_devices() {
        let device = |number| DeviceId([number; 32]);
        let schedule = Schedule {
            every: Some(Duration::from_secs(60)),
            devices: vec![(device(7), Duration::from_secs(600))],
        };
        for random in [0, 1, 11_999, 12_000, u64::MAX] {
            let all = schedule.after_ms(Some(&device(1)), random).unwrap();
            assert!((54_000..66_000).contains(&all), "{all}");
            let own = schedule.after_ms(Some(&device(7)), random).unwrap();
            assert!((540_000..660_000).contains(&own), "{own}");
        }
        assert_eq!(Schedule::default().after_ms(None, 3), None);
        let spread: std::collections::HashSet<_> =
            (0..100).map(|random| schedule.after_ms(None, random * 977)).collect();
        assert!(spread.len() > 90);
    }
}
