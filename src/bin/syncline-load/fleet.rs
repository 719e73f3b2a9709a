//! Owns all clients and what each of them does next. It never waits and never connects by itself: who is to
//! connect or to begin stands in a line that `run` works off.
//!
//! 1. Before the run, the clients that need it push their files (the setup).
//! 2. During the run syncs begin by the schedule; who is still busy has them wait, and their latency counts
//!    from when they were meant to begin.
//! 3. Refusals that may pass are tried again after a moment; other errors end the sync.
//!
//! Invariant: each sync that was begun is either done or failed, once.

use crate::actor::{Actor, Current, Link, Peer, Setup};
use crate::content::{Content, Pool};
use crate::scenario::{Role, Work};
use crate::schedule::Schedule;
use crate::seeds::{Dice, mix_both};
use crate::settings::Settings;
use crate::tally::{Done, Giant, Tally};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Instant;
use syncline::model::{CloseCode, Fault};
use syncline::reactor::{Closed, ConnId, Context};
use syncline::wire::{Begin, BeginFlags, Brake, Direction, PullSource};

/// All clients.
pub(crate) struct Fleet {
    pub(crate) settings: Settings,
    pub(crate) pool: Pool,
    pub(crate) actors: Vec<Actor>,
    pub(crate) tally: Tally,
    pub(crate) phase: Phase,
    pub(crate) schedule: Option<Schedule>,
    /// Who makes the syncs of the schedule.
    pub(crate) workers: Vec<u32>,
    /// Who is to connect, in this order.
    pub(crate) connects: VecDeque<u32>,
    /// Clients from connect to the open share.
    pub(crate) opening: usize,
    /// Whose connection stands and who is to begin.
    pub(crate) starts: Vec<ConnId>,
    /// Who is to be looked at when, in microseconds.
    pub(crate) agenda: BinaryHeap<Reverse<(u64, u32)>>,
    /// Clients that are not ready for the run yet.
    pub(crate) setup_left: usize,
    /// Syncs that are due and neither done nor failed.
    pub(crate) pending: u64,
    /// When something last came to an end, in microseconds.
    pub(crate) progress: u64,
    pub(crate) giant_is_over: bool,
    pub(crate) signal: Option<i32>,
    given: u64,
    dice: Dice,
    started: Instant,
}

/// How far the run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Setup,
    Running,
    /// Nothing more begins.
    Draining,
    Over,
}

/// Wait after a refusal that may pass, and how much of it is left to chance. Microseconds.
const BUSY_MICROS: u64 = 1_000_000;
const JITTER_MICROS: u64 = 500_000;
/// Wait of a client that behaves badly and was cut; of 9,000 some 1,000 come again each second.
const CUT_MICROS: u64 = 5_000_000;
const CUT_JITTER_MICROS: u64 = 5_000_000;
/// What a server's word on when to come again is taken for at the least and at the most.
const COME_BACK_MICROS_MIN: u64 = 50_000;
const COME_BACK_MICROS_MAX: u64 = 600_000_000;
/// Refusals of one sync that are tried again.
const REFUSALS_MAX: u32 = 1_000;
/// Wait after a failed sync, so that a server that is gone is not asked in a busy loop.
const FAILED_MICROS: u64 = 1_000_000;
/// Milliseconds between two signs of life on a connection without a sync; the server waits for 120 s.
pub(crate) const PING_MS: u64 = 40_000;

impl Fleet {
    /// All clients, before the run.
    pub(crate) fn new(settings: Settings) -> Fleet {
        let pool = Pool::new(settings.seed);
        let role = |(number, role): (usize, &Role)| Actor::new(&settings, &pool, number as u32, *role);
        let actors: Vec<Actor> = settings.roles.iter().enumerate().map(role).collect();
        let is_worker = |role: &Role| matches!(role, Role::Worker | Role::Churner);
        let workers = (0..actors.len() as u32).filter(|&number| is_worker(&actors[number as usize].role));
        let workers = workers.collect();
        let needs = |actor: &&Actor| actor.setup == Setup::Needed;
        Fleet {
            setup_left: actors.iter().filter(needs).count(),
            dice: Dice::new(mix_both(settings.seed, 3)),
            settings,
            pool,
            actors,
            tally: Tally::new(),
            phase: Phase::Setup,
            schedule: None,
            workers,
            connects: VecDeque::new(),
            opening: 0,
            starts: Vec::new(),
            agenda: BinaryHeap::new(),
            pending: 0,
            progress: 0,
            giant_is_over: false,
            signal: None,
            given: 0,
            started: Instant::now(),
        }
    }

    /// Microseconds since the fleet was made.
    pub(crate) fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Everybody who needs it gets ready.
    pub(crate) fn begin_setup(&mut self) {
        self.progress = self.now();
        for number in 0..self.actors.len() as u32 {
            let actor = &mut self.actors[number as usize];
            match (actor.setup, actor.role) {
                (Setup::Needed, Role::Idler) => self.connect(number),
                (Setup::Needed, _) => self.start(number, Work::Full, self.now(), true),
                _ => {}
            }
        }
    }

    /// Everybody is ready, or never will be: the run begins.
    pub(crate) fn begin_run(&mut self) {
        let now = self.now();
        self.phase = Phase::Running;
        self.tally.start = now;
        self.tally.last = now;
        self.progress = now;
        let workers = self.workers.len() as u64;
        let schedule = Schedule::new(self.settings.rate, workers, now, &self.settings.bounds);
        self.schedule = Some(schedule);
        for number in 0..self.actors.len() as u32 {
            match self.actors[number as usize].role {
                Role::Worker | Role::Churner | Role::GiantDelta => self.next(number),
                Role::GiantPush => self.start(number, Work::Full, now, false),
                Role::Attacker(_) => self.connect(number),
                Role::Idler | Role::Feeder => {}
            }
        }
    }

    /// Syncs that are due by the clock.
    pub(crate) fn begin_due(&mut self) {
        let now = self.now();
        while let Some(arrival) = self.schedule.as_mut().and_then(|schedule| schedule.pop_due(now)) {
            let number = self.workers[arrival.worker as usize];
            self.pending += 1;
            self.actors[number as usize].due.push_back(arrival.at);
            self.next(number);
        }
        while let Some(&Reverse((at, number))) = self.agenda.peek()
            && at <= now
        {
            self.agenda.pop();
            self.look(number);
        }
    }

    /// A client's time has come.
    fn look(&mut self, number: u32) {
        let actor = &self.actors[number as usize];
        match actor.role {
            Role::Attacker(_) if self.phase == Phase::Running => self.connect(number),
            Role::Attacker(_) => {}
            _ if actor.current.is_some() => self.connect(number),
            _ => self.next(number),
        }
    }

    /// Puts a client into the line of those that are to connect.
    pub(crate) fn connect(&mut self, number: u32) {
        let actor = &mut self.actors[number as usize];
        if actor.link == Link::Offline {
            actor.link = Link::Queued;
            self.connects.push_back(number);
        }
    }

    /// What a client without a sync does next.
    pub(crate) fn next(&mut self, number: u32) {
        let now = self.now();
        let actor = &mut self.actors[number as usize];
        if actor.current.is_some() || !matches!(self.phase, Phase::Running | Phase::Draining) {
            return;
        }
        if actor.role == Role::GiantDelta {
            let goes_on = self.phase == Phase::Running && actor.setup == Setup::Done && !self.giant_is_over;
            return if goes_on {
                self.start(number, Work::Delta, now, false);
            };
        }
        if !matches!(actor.role, Role::Worker | Role::Churner) {
            return;
        }
        let intended = match actor.due.pop_front() {
            Some(intended) => intended,
            None if self.phase == Phase::Running && self.schedule.as_mut().is_some_and(|all| all.take(now)) => {
                self.pending += 1;
                now
            }
            None => return,
        };
        let work = self
            .settings
            .scenario
            .work(self.settings.way, self.settings.seed, self.given);
        self.given += 1;
        self.start(number, work, intended, false);
    }

    /// Begins a sync, as soon as there is a connection.
    fn start(&mut self, number: u32, work: Work, intended: u64, is_setup: bool) {
        let seed = mix_both(self.settings.seed, self.given);
        let actor = &mut self.actors[number as usize];
        if !is_setup {
            let files = actor.contents.len().max(1) as u64;
            match (work, actor.contents.get_mut((seed % files) as usize)) {
                (Work::Delta, Some(content)) => content.edit(&self.pool),
                // Those that were never pushed are new as they are.
                (Work::Full, _) if actor.is_known || actor.is_uncertain => {
                    actor
                        .contents
                        .iter_mut()
                        .for_each(|content| content.replace(&self.pool));
                }
                _ => {}
            }
        }
        actor.current = Some(Current {
            work,
            is_setup,
            intended,
            begun: None,
            sent: 0,
            received: 0,
            refusals: 0,
        });
        match actor.link {
            Link::Open(id) => self.starts.push(id),
            Link::Offline => self.connect(number),
            Link::Queued | Link::Opening(_) => {}
        }
    }

    /// Begins the current sync of a connection that stands.
    pub(crate) fn begin(&mut self, cx: &mut Context<'_>, peer: &mut Peer) {
        let now = self.now();
        let actor = &mut self.actors[peer.actor as usize];
        let Some(current) = &mut actor.current else { return };
        if current.begun.is_none() {
            current.begun = Some(now);
            (current.sent, current.received) = (cx.bytes_sent(), cx.bytes_received());
        }
        let begin = match current.work.is_pull() {
            true => pull(peer.actor),
            false => push(peer.actor),
        };
        peer.machine.begin(&begin);
        cx.send_owned(peer.machine.take_output());
        self.watch(cx);
    }

    /// Looks again when the time is up.
    pub(crate) fn watch(&self, cx: &mut Context<'_>) {
        let timeout = u64::try_from(self.settings.timeout.as_millis()).unwrap_or(u64::MAX);
        let deadline = cx.now() + timeout;
        cx.set_deadline(Some(deadline));
    }

    /// The sync of a connection ended, well or (with a kind of error) not.
    pub(crate) fn concluded(&mut self, cx: &mut Context<'_>, peer: &mut Peer, result: Result<(), String>) {
        let number = peer.actor;
        let Some(current) = self.actors[number as usize].current.take() else {
            return;
        };
        let sent = cx.bytes_sent() - current.sent;
        let received = cx.bytes_received() - current.received;
        match result {
            Ok(()) => self.done(number, &current, sent, received),
            Err(kind) => self.fail(number, &current, &kind),
        }
        let leaves = self.settings.reconnect && !current.is_setup || current.work == Work::Greeting;
        if leaves {
            self.leave(cx, peer);
        } else {
            let deadline = cx.now() + PING_MS;
            cx.set_deadline(Some(deadline));
        }
        self.next(number);
    }

    fn done(&mut self, number: u32, current: &Current, sent: u64, received: u64) {
        let now = self.now();
        self.progress = now;
        let actor = &mut self.actors[number as usize];
        actor.is_uncertain = false;
        actor.is_known = true;
        if current.is_setup {
            actor.setup = Setup::Done;
            self.setup_left -= 1;
            return;
        }
        let begun = current.begun.unwrap_or(now);
        if matches!(actor.role, Role::GiantPush | Role::GiantDelta) {
            self.giant_is_over |= actor.role == Role::GiantPush;
            return self.note_giant(number, now - begun, sent + received);
        }
        self.pending -= 1;
        self.tally.done(&Done {
            work: current.work,
            intended: current.intended,
            begun,
            ended: now,
            sent,
            received,
        });
    }

    /// The run is over: giants that are not through are told as well.
    pub(crate) fn note_unfinished(&mut self) {
        for number in 0..self.actors.len() as u32 {
            let actor = &self.actors[number as usize];
            if actor.role == Role::GiantPush && actor.current.is_some() {
                self.note_giant(number, 0, 0);
            }
        }
    }

    /// A giant sync is through, or the run was over before.
    fn note_giant(&mut self, number: u32, micros: u64, wire_bytes: u64) {
        let actor = &self.actors[number as usize];
        let what = match actor.role {
            Role::GiantPush => "push",
            _ => "delta",
        };
        let giants = &mut self.tally.giants;
        let index = giants.iter().position(|giant| giant.what == what);
        let index = index.unwrap_or_else(|| {
            giants.push(Giant {
                what,
                ..Giant::default()
            });
            giants.len() - 1
        });
        let giant = &mut giants[index];
        giant.bytes = actor.contents.first().map_or(0, Content::size);
        giant.syncs += u64::from(actor.current.is_none());
        giant.micros += micros;
        giant.wire_bytes += wire_bytes;
    }

    fn fail(&mut self, number: u32, current: &Current, kind: &str) {
        let now = self.now();
        self.progress = now;
        let actor = &mut self.actors[number as usize];
        actor.is_uncertain |= !current.work.is_pull();
        if current.is_setup {
            actor.setup = Setup::Failed;
            self.setup_left -= 1;
            return self.tally.setup_failed(kind);
        }
        match actor.role {
            Role::GiantPush => self.giant_is_over = true,
            Role::GiantDelta => {}
            _ => self.pending -= 1,
        }
        self.tally.failed(now, kind);
    }

    /// Says goodbye; the client may connect anew at once.
    pub(crate) fn leave(&mut self, cx: &mut Context<'_>, peer: &mut Peer) {
        peer.leaving = true;
        self.actors[peer.actor as usize].link = Link::Offline;
        peer.machine.close(&Fault::new(CloseCode::Done, ""));
        cx.send_owned(peer.machine.take_output());
        cx.close_after_flush();
    }

    /// A connection is gone, by which error, or could not be made.
    pub(crate) fn lost(&mut self, peer: &Peer, why: &Closed) {
        if peer.leaving {
            return;
        }
        let number = peer.actor;
        let actor = &mut self.actors[number as usize];
        let is_attacker = matches!(actor.role, Role::Attacker(_));
        if matches!(actor.link, Link::Opening(_)) && !is_attacker {
            self.opening -= 1;
        }
        actor.link = Link::Offline;
        let kind = kind_of(peer, why);
        let temporary = peer.farewell.as_ref().is_some_and(|fault| fault.code.is_temporary());
        if is_attacker {
            self.tally.cut(&kind);
            return self.wait(number, CUT_MICROS);
        }
        if self.phase == Phase::Over {
            return;
        }
        if let Some(current) = actor
            .current
            .as_mut()
            .filter(|current| temporary && current.refusals < REFUSALS_MAX)
        {
            current.refusals += 1;
            self.tally.busy += 1;
            let wait = peer.come_back_ms.map_or(BUSY_MICROS, |ms| ms.saturating_mul(1_000));
            // Nobody is stuck who was told to wait.
            let wait = wait.clamp(COME_BACK_MICROS_MIN, COME_BACK_MICROS_MAX);
            self.progress = self.progress.max(self.now() + wait);
            return self.wait(number, wait);
        }
        match actor.current.take() {
            Some(current) => {
                self.fail(number, &current, &kind);
                self.wait(number, FAILED_MICROS);
            }
            None if actor.setup == Setup::Needed => {
                actor.setup = Setup::Failed;
                self.setup_left -= 1;
                self.tally.setup_failed(&kind);
            }
            None if actor.setup == Setup::Failed => {}
            // It had nothing to do and should have been left alone.
            None => self.tally.failed(self.now(), &format!("without a sync: {kind}")),
        }
    }

    fn wait(&mut self, number: u32, micros: u64) {
        let most = if micros == CUT_MICROS {
            CUT_JITTER_MICROS
        } else {
            JITTER_MICROS
        };
        let jitter = self.dice.below(most.min(micros));
        self.agenda.push(Reverse((self.now() + micros + jitter, number)));
    }
}

/// What kind of error ended a connection.
fn kind_of(peer: &Peer, why: &Closed) -> String {
    if let Some(fault) = &peer.farewell {
        return format!("closed by the server, {:?}: {}", fault.code, fault.text);
    }
    if peer.timed_out {
        return "timeout: nothing moved".to_owned();
    }
    match why {
        Closed::Connect(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => "refused".to_owned(),
        Closed::Connect(error) => format!("no connection: {}", syncline::model::system_reason(error)),
        Closed::Reset(error) => format!("reset: {}", syncline::model::system_reason(error)),
        Closed::HandshakeTimeout => "timeout: no handshake".to_owned(),
        other => other.to_string(),
    }
}

/// What a push into a client's folder asks for.
pub(crate) fn push(number: u32) -> Begin {
    Begin {
        direction: Direction::Push,
        flags: BeginFlags::default(),
        brake: Brake::Default,
        target: Some(crate::pushing::folder(number)),
        scopes: Vec::new(),
        sources: Vec::new(),
        rules: Vec::new(),
    }
}

/// What a pull of a client's folder asks for.
pub(crate) fn pull(number: u32) -> Begin {
    let source = PullSource {
        path: Some(crate::pushing::folder(number)),
        contents_only: false,
    };
    Begin {
        direction: Direction::Pull,
        target: None,
        sources: vec![source],
        ..push(number)
    }
}
