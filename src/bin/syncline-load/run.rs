//! Owns the loop of a run: connects, begins what is due, turns the reactor, and knows when it is over. It
//! never deals with a message.
//!
//! Invariant: it ends: by its bounds, by a signal, or when nothing has moved for the time-out.

use crate::actor::{Link, Peer, Setup};
use crate::complaint::Complaint;
use crate::fleet::{Fleet, Phase};
use crate::scenario::Role;
use crate::schedule::Schedule;
use crate::security::Securities;
use crate::settings::Settings;
use std::io;
use std::time::{Duration, Instant};
use syncline::model::limits::HANDSHAKE_TIMEOUT_MS;
use syncline::model::{CloseCode, Fault, Rights, system_reason};
use syncline::reactor::{Closed, ConnId, Reactor, ReactorOptions};

/// Clients between connect and the open share. A server lets the oldest of 1,024 go, and each costs it a
/// handshake: more at a time would only wait.
const OPENING_MAX: usize = 256;
/// Connections begun between two turns.
const CONNECTS_PER_TURN: usize = 64;
/// Longest wait of the loop, so that ends by time are seen.
const LOOK_MICROS: u64 = 50_000;
/// Time for saying goodbye at the end.
const GOODBYE: Duration = Duration::from_secs(3);

/// Runs what `settings` say; the fleet afterwards has the books.
///
/// # Errors
/// When the system gives no descriptors, or the keys cannot be made.
pub(crate) fn run(settings: Settings) -> Result<Fleet, Complaint> {
    let securities = Securities::new(&settings)?;
    let failed =
        |error: io::Error| Complaint::error(format!("cannot run: {}", system_reason(&error)), "try fewer clients");
    let options = ReactorOptions {
        connections_max: settings.roles.len() * 2 + 64,
        durable_queue: 0,
        handle_signals: true,
        handshake_timeout_ms: handshake_ms(&settings),
        ..ReactorOptions::default()
    };
    let reactor = Reactor::new(&options).map_err(failed)?;
    let mut running = Running {
        next_connect: 0.0,
        said: 0,
        fleet: Fleet::new(settings),
        reactor,
        securities,
    };
    running.fleet.begin_setup();
    while running.fleet.phase != Phase::Over {
        running.turn().map_err(failed)?;
        running.advance();
    }
    running.fleet.note_unfinished();
    running.goodbye().map_err(failed)?;
    Ok(running.fleet)
}

/// Those who never shake hands are only let go by the server.
fn handshake_ms(settings: &Settings) -> u64 {
    let timeout = u64::try_from(settings.timeout.as_millis()).unwrap_or(u64::MAX);
    timeout.max(HANDSHAKE_TIMEOUT_MS)
}

struct Running {
    fleet: Fleet,
    reactor: Reactor<Peer>,
    securities: Securities,
    /// When the next connection may be made, in microseconds.
    next_connect: f64,
    /// When progress was last shown, in microseconds.
    said: u64,
}

impl Running {
    fn turn(&mut self) -> io::Result<()> {
        self.fleet.begin_due();
        let is_paced = self.connect();
        for id in std::mem::take(&mut self.fleet.starts) {
            let fleet = &mut self.fleet;
            // Who broke meanwhile is gone; `lost` has dealt with that.
            self.reactor.with(id, |cx, peer| fleet.begin(cx, peer));
        }
        let timeout = self.timeout(is_paced);
        self.reactor.turn(Some(timeout), &mut self.fleet)
    }

    /// How long nothing is due.
    fn timeout(&self, is_paced: bool) -> Duration {
        let now = self.fleet.now();
        let mut next = now + LOOK_MICROS;
        if let Some(due) = self.fleet.schedule.as_ref().and_then(Schedule::next_due) {
            next = next.min(due);
        }
        if let Some(std::cmp::Reverse((at, _))) = self.fleet.agenda.peek() {
            next = next.min(*at);
        }
        if is_paced {
            next = next.min(self.next_connect as u64);
        }
        let works = !self.fleet.starts.is_empty() || !is_paced && self.may_connect();
        Duration::from_micros(if works { 0 } else { next.saturating_sub(now) })
    }

    fn may_connect(&self) -> bool {
        !self.fleet.connects.is_empty() && self.fleet.opening < OPENING_MAX
    }

    /// Connects those who stand in line; says whether the rate has them wait.
    fn connect(&mut self) -> bool {
        for _ in 0..CONNECTS_PER_TURN {
            if !self.may_connect() {
                return false;
            }
            let now = self.fleet.now();
            if let Some(rate) = self.fleet.settings.connect_rate {
                if self.next_connect > now as f64 {
                    return true;
                }
                // What was missed is not made up for by more than a tenth of a second's worth.
                self.next_connect = self.next_connect.max(now as f64 - 1e5) + 1e6 / rate;
            }
            if let Some(number) = self.fleet.connects.pop_front() {
                self.connect_one(number, now);
            }
        }
        false
    }

    fn connect_one(&mut self, number: u32, now: u64) {
        let fleet = &mut self.fleet;
        let actor = &mut fleet.actors[number as usize];
        let (role, attacks) = (actor.role, matches!(actor.role, Role::Attacker(_)));
        let peer = Peer::new(number, &fleet.settings.link.share, rights_of(role), now);
        if let Some(current) = &mut actor.current {
            current.begun.get_or_insert(now);
            (current.sent, current.received) = (0, 0);
        }
        fleet.tally.attempts += 1;
        let security = self.securities.of(number, role);
        match self.reactor.connect(fleet.settings.address, security, peer) {
            Ok(id) => {
                actor.link = Link::Opening(id);
                fleet.opening += usize::from(!attacks);
            }
            Err(error) => {
                let peer = Peer::new(number, &fleet.settings.link.share, Rights::NONE, now);
                fleet.lost(&peer, &Closed::Connect(error));
            }
        }
    }

    /// Moves on from setup to run to end.
    fn advance(&mut self) {
        let now = self.fleet.now();
        let fleet = &mut self.fleet;
        let timeout = u64::try_from(fleet.settings.timeout.as_micros()).unwrap_or(u64::MAX);
        let is_stuck = now.saturating_sub(fleet.progress) > timeout;
        if fleet.signal.is_some() {
            fleet.phase = Phase::Over;
        }
        match fleet.phase {
            Phase::Setup if fleet.setup_left == 0 || is_stuck => {
                let abandoned = abandon_setup(fleet);
                fleet.begin_run();
                abandoned.into_iter().for_each(|id| self.reactor.shared().close(id));
            }
            Phase::Running => {
                let schedule = fleet.schedule.as_mut().expect("a run has a schedule");
                let by_giant = fleet.settings.bounds.with_giant && fleet.giant_is_over;
                if by_giant {
                    schedule.stop();
                }
                // Who makes no syncs is done when the time is up.
                let is_over = match fleet.workers.is_empty() {
                    true => now >= schedule.end() || by_giant,
                    false => schedule.is_over(now),
                };
                if is_over {
                    fleet.phase = Phase::Draining;
                    if fleet.workers.is_empty() {
                        fleet.tally.last = now;
                    }
                    fleet.progress = now;
                }
            }
            Phase::Draining if fleet.pending == 0 => fleet.phase = Phase::Over,
            Phase::Draining if is_stuck => {
                let left = fleet.pending;
                (0..left).for_each(|_| fleet.tally.failed(now, "not through at the end"));
                fleet.pending = 0;
                fleet.phase = Phase::Over;
            }
            Phase::Setup | Phase::Draining | Phase::Over => {}
        }
        if !fleet.settings.quiet && now.saturating_sub(self.said) >= 1_000_000 {
            self.said = now;
            say(fleet);
        }
    }

    /// Closes all connections in order.
    fn goodbye(&mut self) -> io::Result<()> {
        for id in self.reactor.connection_ids() {
            self.reactor.with(id, |cx, peer| {
                peer.leaving = true;
                peer.machine.close(&Fault::new(CloseCode::Done, ""));
                cx.send_owned(peer.machine.take_output());
                cx.close_after_flush();
            });
        }
        let until = Instant::now() + GOODBYE;
        while self.reactor.connections() > 0 && Instant::now() < until {
            self.reactor.turn(Some(Duration::from_millis(50)), &mut self.fleet)?;
        }
        Ok(())
    }
}

/// Who is not ready by now never will be; their connections.
fn abandon_setup(fleet: &mut Fleet) -> Vec<ConnId> {
    let mut abandoned = Vec::new();
    for actor in &mut fleet.actors {
        if actor.setup == Setup::Needed {
            actor.setup = Setup::Failed;
            actor.current = None;
            fleet.setup_left -= 1;
            fleet.tally.setup_failed("timeout: not ready for the run");
            match actor.link {
                Link::Open(id) | Link::Opening(id) => abandoned.push(id),
                Link::Offline | Link::Queued => {}
            }
        }
    }
    abandoned
}

fn say(fleet: &Fleet) {
    let tally = &fleet.tally;
    let what = match fleet.phase {
        Phase::Setup => format!("getting ready: {} left", fleet.setup_left),
        _ => format!(
            "{} syncs, {} failed, {} under way",
            tally.syncs(),
            tally.failed,
            fleet.pending
        ),
    };
    eprintln!("{:>4} s  {} connected  {what}", fleet.now() / 1_000_000, tally.open);
}

fn rights_of(role: Role) -> Rights {
    match role {
        Role::Idler | Role::Churner => Rights::READ,
        Role::Attacker(_) | Role::Worker | Role::GiantPush | Role::GiantDelta | Role::Feeder => Rights::READ_WRITE,
    }
}
