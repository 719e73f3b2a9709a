//! Turns and memory at a server: which transfer begins, which waits, who is told to come again, and who is not
//! read from for a while.
//!
//! A part of [`ServerNode`]'s work. Invariant: what waits is begun, refused or gone, never forgotten; whenever
//! something is held back for memory, the transfer that began first goes on, and so does one of the others.

use super::begin::random_seed;
use super::budget::{Budget, PLAIN_COSTS, Pressure, TLS_COSTS};
use super::options::ServerOptions;
use super::peer::{Session, Transfer};
use super::rations::Rations;
use super::server_node::ServerNode;
use super::sessions::{Sessions, Turn, Visitor};
use crate::model::{CloseCode, DeviceId, Fault, Tick};
use crate::reactor::{ConnId, Context, Shared};
use crate::wire::Begin;
use std::time::Duration;

/// The timer that counts the places in the line.
pub(super) const LINE_TIMER: u64 = 6;
/// Milliseconds between two counts; more for a long line.
const LINE_INTERVAL_MS: u64 = 1_000;
/// The timer that gives turns to those that are held back, and the milliseconds of a turn.
pub(super) const RATIONS_TIMER: u64 = 7;
const RATION_MS: u64 = 100;
/// Milliseconds between two pings to a client that is held back: it hears nothing else.
const HELD_BACK_PING_MS: u64 = 2_000;
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
    /// What files take that are on their way to the disk.
    commit_bytes: usize,
    /// Who is not read from until others have given memory back.
    rations: Rations,
    /// Transfers that were told to come again.
    refused_busy: u64,
}

impl Turns {
    pub(super) fn new(options: &ServerOptions) -> Turns {
        Turns {
            sessions: Sessions::new(options.active_max),
            schedule: options.schedule.clone(),
            budget: Budget::new(
                options.memory_limit,
                match options.plain {
                    true => PLAIN_COSTS,
                    false => TLS_COSTS,
                },
            ),
            commit_bytes: 0,
            rations: Rations::default(),
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
        if self.turns.rations.is_shed(cx.id()) {
            return Err(self.busy(session));
        }
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
        self.turns.rations.forget(id);
        self.give_turns(shared);
        if let Some(oldest) = self.turns.sessions.oldest().filter(|_| !self.turns.rations.is_empty()) {
            shared.wake(oldest);
        }
        self.let_go_on(shared);
    }

    /// The connection is about to be closed: what it had is free for others at once, however long it takes to
    /// tell it so.
    pub(super) fn let_go(&mut self, cx: &mut Context<'_>, session: &mut Session) {
        let was_waiting = session.waiting.take().is_some();
        let held = session.held_bytes(cx) + self.turns.budget.costs().connection;
        self.turns.budget.change(session.held, held);
        session.held = held;
        let id = cx.id();
        self.end_turn(cx, id, was_waiting);
    }

    /// Whether a connection may read and make more; it is held back if not.
    pub(super) fn may_go_on(&mut self, shared: &mut Shared, id: ConnId, session: &mut Session) -> bool {
        let runs = session.transfer.is_some();
        let is_bulk = matches!(&session.transfer, Some(Transfer::Receiving(receiving)) if receiving.is_bulk());
        let waits_for_disk = is_bulk && self.core.committer.waits_for_disk(id);
        let is_tight = runs && self.turns.budget.pressure() >= Pressure::Tight;
        let waits_for_memory = is_tight && !self.turns.rations.favours(id, &self.turns.sessions);
        let goes_on = !waits_for_disk && !waits_for_memory;
        session.starved = !goes_on;
        if !waits_for_memory {
            self.turns.rations.let_go(id);
        } else if self.turns.rations.hold_back(id) {
            let when = shared.now() + RATION_MS;
            shared.set_timer(RATIONS_TIMER, when);
        }
        goes_on
    }

    /// Whether a step of a transfer is put off: one that sends would only take more memory.
    pub(super) fn puts_off(&mut self, cx: &mut Context<'_>, session: &mut Session) -> bool {
        let id = cx.id();
        matches!(session.transfer, Some(Transfer::Sending(_))) && !self.may_go_on(cx, id, session)
    }

    /// The next one of those that are held back has its turn.
    pub(super) fn next_ration(&mut self, shared: &mut Shared) {
        self.account_commits();
        self.let_go_on(shared);
        let is_full = self.turns.budget.pressure() >= Pressure::Full;
        let turns = self.turns.rations.next_turn(&self.turns.sessions, is_full);
        for id in turns.into_iter().flatten() {
            shared.wake(id);
        }
        if !self.turns.rations.is_empty() {
            shared.set_timer(RATIONS_TIMER, shared.now() + RATION_MS);
        }
    }

    /// With memory again, some of those that were held back go on, and bring others.
    fn let_go_on(&mut self, shared: &mut Shared) {
        if self.turns.budget.pressure() < Pressure::Tight {
            for id in self.turns.rations.let_some_go().into_iter().flatten() {
                shared.wake(id);
            }
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
        let text = match waiting {
            0 => "the server has no room for now".to_owned(),
            _ => format!("the server has no room: {waiting} transfers wait already"),
        };
        Fault::new(CloseCode::Busy, text)
    }

    /// Takes account of what a connection holds now, and decides whether it is read from.
    pub(super) fn account(&mut self, cx: &mut Context<'_>, session: &mut Session) -> Result<(), Fault> {
        let id = cx.id();
        let mut held = session.held_bytes(cx) + self.core.committer.results_bytes(id);
        self.account_commits();
        if session.transfer.is_some() {
            held = held.max(self.turns.budget.costs().transfer);
            if self.turns.budget.is_exceeded_by(held) {
                let text = "this transfer needs more memory than the server may use; send less at a time";
                return Err(Fault::new(CloseCode::Limit, text));
            }
        }
        // The allocator has its share.
        held += held / 8 + self.turns.budget.costs().connection;
        let grew = held > session.held;
        self.turns.budget.change(session.held, held);
        session.held = held;
        if grew && self.turns.budget.pressure() == Pressure::Over {
            self.shed(cx, session)?;
        }
        let was_starved = session.starved;
        if !self.may_go_on(cx, id, session) {
            if !was_starved {
                let when = cx.now() + HELD_BACK_PING_MS;
                cx.set_deadline(Some(when));
            }
            return Ok(());
        }
        self.let_go_on(cx);
        if self.turns.budget.pressure() < Pressure::Tight {
            self.give_turns(cx);
        }
        Ok(())
    }

    /// Files have reached the disk, or failed to.
    pub(super) fn commits_ended(&mut self, shared: &mut Shared) {
        self.account_commits();
        self.let_go_on(shared);
        self.give_turns(shared);
    }

    /// What is on its way to the disk belongs to nobody in particular.
    fn account_commits(&mut self) {
        let held = self.core.committer.held_bytes();
        let held = held + held / 8;
        self.turns.budget.change(self.turns.commit_bytes, held);
        self.turns.commit_bytes = held;
    }

    /// Somebody has grown, and now nothing is left: it has to come again, or, if it began first, the one that
    /// began last.
    fn shed(&mut self, cx: &mut Context<'_>, session: &mut Session) -> Result<(), Fault> {
        if self.turns.sessions.oldest() != Some(cx.id()) {
            return Err(self.busy(session));
        }
        if let Some(latest) = self.turns.rations.pick_for_shedding(&self.turns.sessions) {
            cx.wake(latest);
        }
        Ok(())
    }

    /// When a connection is looked at again, if not before `next`.
    pub(super) fn next_look(cx: &Context<'_>, session: &Session, next: Tick) -> Tick {
        match session.starved {
            true => next.min(cx.now() + HELD_BACK_PING_MS),
            false => next,
        }
    }

    /// A connection is gone, with all that it held.
    pub(super) fn release(&mut self, shared: &mut Shared, id: ConnId, session: &Session) {
        self.turns.budget.change(session.held, 0);
        self.account_commits();
        self.end_turn(shared, id, session.waiting.is_some());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

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
        let spread: HashSet<_> = (0..100).map(|random| schedule.after_ms(None, random * 977)).collect();
        assert!(spread.len() > 90);
    }
}
