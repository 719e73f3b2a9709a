//! What a server does with events: who is let in, which transfers run, when it drains.
//!
//! Never blocks. Invariant: nothing below a share is looked at before its open was granted.

use super::access::{Access, Visitor};
use super::activity::Refusals;
use super::bandwidth::{BANDWIDTH_TIMER, Rates};
use super::begin::{filter_of, receive, send, stopping, target_kind};
use super::commit::COMMIT_TIMER;
use super::device_places::DevicePlaces;
use super::events::ServerEvent;
use super::guest::Web;
use super::ledger::{Audience, Ledger};
use super::liveness::{Patience, Pulse, Sight, Stall};
use super::options::{Deadlines, ServerOptions};
use super::peer::{Core, Peer, Session, Transfer};
use super::place::Place;
use super::status::Totals;
use super::tally::{BrokenOff, Tally};
use super::tidying::{TIDY_TIMER, Tidier};
use super::turns::{LINE_TIMER, RATIONS_TIMER, Turns};
use crate::conn::{Event, Machine};
use crate::model::limits::PREAUTH_CONNECTIONS_MAX;
use crate::model::{CloseCode, DeviceId, Fault, Rights, ShareName, Tick};
use crate::reactor::{Activity, Closed, ConnId, Context, Counters, Handler, Shared};
use crate::store::{Home, ShareLock, Stamp};
use crate::wire::{Begin, Direction, Open, features};
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

pub(super) struct Share {
    pub(super) name: ShareName,
    pub(super) place: Rc<Place>,
    pub(super) open: Rights,
    /// Why nothing may be written there.
    pub(super) read_only: Option<&'static str>,
    /// Its journal has to be repaired.
    pub(super) is_damaged: bool,
    pub(super) totals: Totals,
    pub(super) _lock: Option<ShareLock>,
}

pub(super) struct ServerNode {
    pub(super) name: String,
    pub(super) shares: Vec<Share>,
    /// What devices have of their own in them, if they are kept apart.
    pub(super) device_places: Option<DevicePlaces>,
    /// Those that nobody uses may be closed.
    pub(super) closes_unused: bool,
    pub(super) access: Access,
    pub(super) core: Core,
    pub(super) events: Vec<ServerEvent>,
    pub(super) started: Instant,
    pub(super) deadlines: Deadlines,
    /// Connections that have not opened a share yet, the oldest first.
    pub(super) unopened: VecDeque<ConnId>,
    /// How many of them there may be.
    pub(super) unopened_max: usize,
    pub(super) stamp: Option<Stamp>,
    pub(super) draining: Draining,
    pub(super) counters: Counters,
    pub(super) connections: usize,
    pub(super) tally: Tally,
    pub(super) web: Web,
    /// The rights of all connections are to be looked at again.
    pub(super) recheck: bool,
    /// Draining has taken long enough.
    pub(super) cut: bool,
    /// Lets go of old versions, if versions are kept.
    pub(super) tidier: Option<Tidier>,
    /// Which transfers run, and what they take of memory.
    pub(super) turns: Turns,
    /// The abilities that clients are offered.
    pub(super) offered: u64,
    /// The limits of bandwidth.
    pub(super) rates: Rates,
    /// Who was not let in, as far as logs tell of it.
    pub(super) refusals: Refusals,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Draining {
    No,
    /// Asked for, not begun.
    Asked,
    Until(Tick),
    Over,
}

/// Bytes that are read at a time from a transfer that is not amid a file: some two hundred of the smallest files.
const MIXED_READ_BYTES: usize = 32 * 1024;
/// The timer that ends draining.
pub(super) const DRAIN_TIMER: u64 = 1;
/// The timer that looks for revoked devices.
pub(super) const REVOKE_TIMER: u64 = 2;
/// The timer that gives up transfers that nobody came back for; its number is beside that of tidying.
pub(super) const EXPIRE_TIMER: u64 = 4;
pub(super) const EXPIRE_INTERVAL_MS: u64 = 6 * 3600 * 1000;
/// Milliseconds between two looks.
pub(super) const REVOKE_INTERVAL_MS: u64 = 1_000;

impl Handler<Peer> for ServerNode {
    fn accepted(&mut self, shared: &mut Shared, _listener: usize, id: ConnId, _peer: SocketAddr) -> Option<Peer> {
        // The oldest gives way: who is honest is let in within moments, and who only sits there must
        // not keep the others out.
        if self.unopened.len() >= self.unopened_max
            && let Some(oldest) = self.unopened.pop_front()
        {
            log::debug!("too many connections that have not said who they are: the oldest is closed");
            shared.close(oldest);
        }
        self.unopened.push_back(id);
        let mut peer = Peer::new(Machine::server_with(&self.name, self.offered), Audience::Nobody);
        peer.session.began = shared.now();
        peer.session.held = self.turns.budget.costs().connection;
        self.turns.budget.change(0, peer.session.held);
        Some(peer)
    }

    fn established(&mut self, cx: &mut Context<'_>, peer: &mut Peer, device: Option<DeviceId>) {
        peer.session.device = device;
        peer.session.liveness.begin(cx.now());
        cx.set_deadline(Some(peer.session.began + self.deadlines.handshake_ms));
    }

    fn may_read(&mut self, shared: &mut Shared, id: ConnId, peer: &mut Peer) -> usize {
        if !self.may_go_on(shared, id, &mut peer.session) {
            return 0;
        }
        match &peer.session.transfer {
            // What comes next may be hundreds of small files to make, however quick what came before was.
            Some(Transfer::Receiving(receiving)) if !receiving.is_amid_file() => MIXED_READ_BYTES,
            _ => usize::MAX,
        }
    }

    fn received(&mut self, cx: &mut Context<'_>, peer: &mut Peer, bytes: &[u8]) {
        let result = peer.receive(bytes, cx.now(), |session, event| {
            match session.transfer_event(event, &mut self.core) {
                Some(event) => self.event(cx, session, event),
                None => Ok(()),
            }
        });
        self.after(cx, &mut peer.session, result.map(|()| Activity::More));
        let id = cx.id();
        cx.wake(id);
    }

    fn ready(&mut self, cx: &mut Context<'_>, peer: &mut Peer) -> Activity {
        let turn = self.turn_of(cx, &mut peer.session);
        let result = turn.and_then(|()| match self.puts_off(cx, &mut peer.session) {
            true => Ok(Activity::Idle),
            false => peer.session.step(cx, &mut self.core),
        });
        let activity = result.as_ref().map_or(Activity::Idle, |activity| *activity);
        self.after(cx, &mut peer.session, result);
        activity
    }

    fn deadline(&mut self, cx: &mut Context<'_>, peer: &mut Peer) {
        let session = &mut peer.session;
        let Deadlines {
            handshake_ms,
            stall_ms,
            idle_ms,
            quiet_ms,
        } = self.deadlines;
        let is_busy = session.machine.is_transferring() || session.follows();
        let (stall_ms, quiet_ms) = match (session.machine.is_open(), is_busy) {
            (false, _) => return self.give_up(cx, session, Stall::Unopened(handshake_ms)),
            (true, true) => (stall_ms, quiet_ms),
            (true, false) => (idle_ms, idle_ms),
        };
        let patience = Patience {
            stall_ms,
            unread_ms: stall_ms,
            // Who waits in line has nothing to do but answer.
            // Nor has who waits for changes.
            quiet_ms: (session.waiting.is_none() && !session.follows()).then_some(quiet_ms),
        };
        match session.liveness.check(Sight::of(cx), patience) {
            Pulse::Stalled(stall) => self.give_up(cx, session, stall),
            Pulse::Alive(next) => {
                if is_busy {
                    session.machine.ping(cx.now().0);
                    session.flush(cx);
                }
                cx.set_deadline(Some(ServerNode::next_look(cx, session, next)));
            }
        }
    }

    fn closed(&mut self, shared: &mut Shared, id: ConnId, mut peer: Peer, why: Closed) {
        self.core.committer.forget(id);
        self.release(shared, id, &peer.session);
        #[cfg(feature = "sync")]
        self.no_longer_follows(id, &mut peer.session);
        self.leave_place(&mut peer.session);
        if !peer.session.admitted {
            self.no_longer_unopened(id);
        }
        self.note_end(&mut peer);
        if peer.session.transfer.take().is_some() {
            log::info!("a transfer ended early: {why}");
        } else if matches!(why, Closed::HandshakeTimeout) {
            // There is nobody to tell yet.
            log::info!("a connection was cut: {why}");
        } else {
            log::debug!("connection closed: {why}");
        }
    }

    fn durable(&mut self, shared: &mut Shared, ticket: u64, result: io::Result<()>) {
        #[cfg(feature = "sync")]
        if self.sequenced(shared, ticket) {
            return;
        }
        let tidier = self.tidier.as_mut();
        if !tidier.is_some_and(|tidier| tidier.completed(shared, ticket)) {
            self.core.committer.completed(shared, ticket, &result);
            self.commits_ended(shared);
        }
    }

    #[cfg(feature = "sync")]
    fn watched(&mut self, shared: &mut Shared, key: u64) -> Activity {
        self.observed(shared, key)
    }

    fn signal(&mut self, shared: &mut Shared, signal: i32) {
        log::info!("signal {signal}: finishing what runs");
        match self.draining {
            Draining::No => self.draining = Draining::Asked,
            _ => shared.set_timer(DRAIN_TIMER, shared.now()),
        }
    }

    fn timer(&mut self, shared: &mut Shared, key: u64) {
        if key == COMMIT_TIMER {
            return self.core.committer.pump(shared);
        }
        #[cfg(feature = "sync")]
        if key == super::sequencer::OBSERVE_TIMER {
            return self.settle_observed(shared);
        }
        #[cfg(feature = "sync")]
        if key == super::sequencer::SEQUENCE_TIMER {
            return self.sequence(shared, true);
        }
        if key == RATIONS_TIMER {
            return self.next_ration(shared);
        }
        if key == LINE_TIMER {
            return self.count_line(shared);
        }
        if key == BANDWIDTH_TIMER {
            return self.rates.apply(shared);
        }
        if key == REVOKE_TIMER {
            #[cfg(feature = "sync")]
            self.testify(false);
            let stamp = self.access.home().trust().stamp().ok();
            if stamp != self.stamp {
                self.stamp = stamp;
                self.recheck = true;
            }
            self.closes_unused = self.device_places.is_some();
            return shared.set_timer(REVOKE_TIMER, shared.now() + REVOKE_INTERVAL_MS);
        }
        if let (TIDY_TIMER, Some(tidier)) = (key, &mut self.tidier) {
            return tidier.look(shared);
        }
        if key == EXPIRE_TIMER {
            self.expire_unfinished();
            return shared.set_timer(EXPIRE_TIMER, shared.now() + EXPIRE_INTERVAL_MS);
        }
        if key == DRAIN_TIMER {
            self.cut = true;
        }
    }
}

/// What a server can do with so much memory: a decoder of zstd may have to look back at more than a small one has.
fn offered(memory_limit: Option<u64>) -> u64 {
    match memory_limit {
        Some(limit) if limit < COMPRESSING_BYTES_MIN => features::ALL & !features::ZSTD,
        _ => features::ALL,
    }
}

/// Bytes of memory from which on a server takes compressed patches.
const COMPRESSING_BYTES_MIN: u64 = 128 << 20;

impl ServerNode {
    /// A server of these shares, whose own device is `own`.
    pub(super) fn new(
        options: &ServerOptions,
        home: Home,
        own: Option<DeviceId>,
        (shares, device_places, tidier): (Vec<Share>, Option<DevicePlaces>, Option<Tidier>),
        (rates, web): (Rates, Web),
    ) -> ServerNode {
        ServerNode {
            name: home.device_name(),
            shares,
            device_places,
            closes_unused: false,
            stamp: home.trust().stamp().ok(),
            access: Access::new(home, own),
            core: Core::new(),
            events: Vec::new(),
            started: Instant::now(),
            deadlines: options.deadlines,
            unopened: VecDeque::new(),
            unopened_max: PREAUTH_CONNECTIONS_MAX.min(options.connections_max / 2).max(1),
            draining: Draining::No,
            counters: Counters::default(),
            connections: 0,
            tally: Tally::default(),
            web,
            recheck: false,
            cut: false,
            tidier,
            turns: Turns::new(options),
            offered: offered(options.memory_limit),
            rates,
            refusals: Refusals::default(),
        }
    }

    /// What follows a burst of input or a step: faults close, finished transfers are noted.
    fn after(&mut self, cx: &mut Context<'_>, session: &mut Session, result: Result<Activity, Fault>) {
        self.log_deeds(session);
        if let Err(fault) = result {
            return self.refuse(cx, session, &fault);
        }
        self.core.committer.pump(cx);
        #[cfg(feature = "sync")]
        {
            self.sequence(cx, false);
            if let Err(fault) = self.follow(session) {
                return self.refuse(cx, session, &fault);
            }
        }
        if session.asks_status && cx.room() > 0 && session.machine.is_open() {
            session.asks_status = false;
            self.status(session);
        }
        session.flush(cx);
        if let Some(Transfer::Receiving(receiving)) = &session.transfer
            && receiving.ended().is_some()
        {
            self.transfer_ended(cx, session);
        }
        #[cfg(feature = "sync")]
        if let Some(Transfer::Altering(_)) = session.transfer.take_if(|transfer| transfer.is_altered()) {
            self.core.committer.forget(cx.id());
        }
        if let Err(fault) = self.account(cx, session) {
            return self.refuse(cx, session, &fault);
        }
        session.throttle(cx);
        if session.machine.is_open() && !session.machine.is_transferring() && self.draining != Draining::No {
            session.close(cx, &stopping());
        }
        self.check_rights(cx, session);
    }

    fn refuse(&mut self, cx: &mut Context<'_>, session: &mut Session, fault: &Fault) {
        self.tally.refused(fault.code);
        self.events.push(ServerEvent::Refused {
            device: session.device,
            name: session.machine.peer_name().to_owned(),
            peer: cx.peer_addr(),
            code: fault.code,
            text: fault.text.clone(),
        });
        session.close(cx, fault);
        self.let_go(cx, session);
    }

    /// A device that was revoked is out, also in the middle of a transfer.
    fn check_rights(&mut self, cx: &mut Context<'_>, session: &mut Session) {
        let (Some(index), true) = (session.share, session.stamp != self.stamp) else {
            return;
        };
        session.stamp = self.stamp;
        let share = &self.shares[index];
        let now = self
            .access
            .rights(session.device, &share.name)
            .map(|rights| rights.union(share.open));
        let granted = session.machine.rights();
        let kept = now.is_ok_and(|now| now.union(granted) == now);
        if !kept {
            self.log_revoked(session, cx.peer_addr().ip());
            session.close(
                cx,
                &Fault::new(CloseCode::Refused, "the rights of this device were taken back"),
            );
            self.let_go(cx, session);
        }
    }

    fn event(&mut self, cx: &mut Context<'_>, session: &mut Session, event: Event<'_>) -> Result<(), Fault> {
        match event {
            Event::Open(open) => self.open(cx, session, &open),
            Event::Begin(begin) if self.draining != Draining::No => {
                drop(begin);
                Err(stopping())
            }
            Event::Begin(begin) => self.take_turn(cx, session, begin),
            #[cfg(feature = "sync")]
            Event::Since(since) => self.since(cx, session, since),
            #[cfg(feature = "sync")]
            Event::Alter(alter) => self.alter(cx, session, alter),
            Event::StatusQuery => {
                session.asks_status = true;
                Ok(())
            }
            Event::Finished(_) => {
                self.transfer_ended(cx, session);
                Ok(())
            }
            Event::Closed(fault) => {
                self.note_leaving(session, fault.code);
                if session.transfer.is_some() {
                    session.broken_off = Some(BrokenOff::Closed(fault.code));
                }
                cx.close_after_flush();
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn open(&mut self, cx: &mut Context<'_>, session: &mut Session, open: &Open) -> Result<(), Fault> {
        let index = self
            .shares
            .iter()
            .position(|share| Some(&share.name) == open.share.as_ref());
        let name = session.machine.peer_name().to_owned();
        let visitor = Visitor {
            address: cx.peer_addr().ip(),
            device: session.device,
            name: &name,
            open_rights: index.map(|index| self.shares[index].open),
            read_only: index.and_then(|index| self.shares[index].read_only),
        };
        let address = visitor.address;
        let opened = self
            .access
            .decide(open, &visitor, cx.now())
            .inspect_err(|fault| self.log_refused(session, index, fault, (address, cx.now())))?;
        if opened.paired {
            self.log_paired(session, index, &opened.rights.to_string(), address);
        }
        if let (true, Some(device), Some(share)) = (opened.paired, session.device, open.share.clone()) {
            self.events.push(ServerEvent::Paired {
                device,
                name,
                share,
                rights: opened.rights,
            });
            self.stamp = self.access.home().trust().stamp().ok();
        }
        if let Some(device) = &session.device {
            self.access
                .home()
                .trust()
                .touch_seen(device, std::time::SystemTime::now());
        }
        session.share = index;
        session.admitted = true;
        session.stamp = self.stamp;
        self.no_longer_unopened(cx.id());
        session.machine.grant(opened);
        if let Some(share) = &open.share {
            cx.limit(&self.rates.of(share, session.device.as_ref()));
        }
        cx.set_deadline(Some(cx.now() + self.deadlines.idle_ms / 4));
        self.check_room(session)?;
        self.tell_schedule(session);
        Ok(())
    }

    fn no_longer_unopened(&mut self, id: ConnId) {
        if let Some(index) = self.unopened.iter().position(|&other| other == id) {
            self.unopened.remove(index);
        }
    }

    /// The transfer has its turn.
    pub(super) fn begin(&mut self, cx: &mut Context<'_>, session: &mut Session, begin: Begin) -> Result<(), Fault> {
        if self.draining != Draining::No {
            return Err(stopping());
        }
        let (_, place) = self.place_of(session)?;
        let filter = filter_of(&begin).map_err(|error| Fault::new(CloseCode::Limit, error.to_string()))?;
        session.ledger = Ledger::new(Audience::Nobody);
        self.log_begin(session, &begin, cx.peer_addr().ip());
        session.began = cx.now();
        session.liveness.worked(cx.now());
        session.wire_before = (cx.bytes_sent(), cx.bytes_received());
        let features = session.machine.features();
        let kind = match begin.direction {
            Direction::Push => {
                let kind = target_kind(&place.root, begin.target.as_ref())?;
                session.transfer = Some(receive(cx.id(), session.device, place, begin, filter, features)?);
                self.core.committer.register(cx.id());
                kind
            }
            Direction::Pull => {
                let (sending, kind) = send(&place, &begin, filter, features)?;
                session.transfer = Some(sending);
                self.core.committer.register(cx.id());
                kind
            }
        };
        self.tally.begun();
        session.machine.ready(kind);
        cx.set_deadline(Some(cx.now() + self.deadlines.stall_ms / 4));
        Ok(())
    }

    fn transfer_ended(&mut self, cx: &mut Context<'_>, session: &mut Session) {
        session.flush(cx);
        session.transfer = None;
        session.machine.end_transfer();
        session.liveness.worked(cx.now());
        self.core.committer.forget(cx.id());
        let id = cx.id();
        self.end_turn(cx, id, false);
        if !session.follows() {
            self.leave_place(session);
        }
        let Some(index) = session.share else { return };
        let (mut summary, failures) = session.ledger.take_figures();
        summary.wire_sent = cx.bytes_sent() + cx.outbound_bytes() as u64 - session.wire_before.0;
        summary.wire_received = cx.bytes_received() - session.wire_before.1;
        summary.elapsed = Duration::from_millis(cx.now().since(session.began));
        self.log_end(session, &summary);
        let share = &mut self.shares[index];
        share.totals.add(&summary, &failures);
        self.tally.completed();
        let event = ServerEvent::Transferred {
            peer: cx.peer_addr(),
            device: session.device,
            share: share.name.clone(),
            summary,
        };
        self.events.push(event);
    }

    fn status(&mut self, session: &mut Session) {
        let is_owner = session.device.is_some() && session.device == self.access.own();
        let rights = session.machine.rights().to_string();
        let report = if is_owner {
            self.snapshot()
        } else {
            self.visible(session.share, &rights)
        };
        let json = serde_json::to_vec(&report).unwrap_or_default();
        session.machine.status_reply(&json);
    }

    /// Whoever kept a folder in sync leaves; in order, if it says that all is done.
    fn note_leaving(&mut self, session: &Session, code: CloseCode) {
        if let (true, Some(index), CloseCode::Done) = (session.follows(), session.share, code) {
            self.events.push(ServerEvent::SyncEnded {
                device: session.device,
                share: self.shares[index].name.clone(),
            });
        }
    }

    fn give_up(&mut self, cx: &mut Context<'_>, session: &mut Session, stall: Stall) {
        let fault = stall.fault();
        self.tally.refused(fault.code);
        self.events.push(ServerEvent::Refused {
            device: session.device,
            name: session.machine.peer_name().to_owned(),
            peer: cx.peer_addr(),
            code: fault.code,
            text: fault.text.clone(),
        });
        // Who does not read what is queued will not read this either.
        let is_stuck = cx.outbound_bytes() > 0;
        session.close(cx, &fault);
        self.let_go(cx, session);
        if is_stuck {
            cx.abort();
        }
    }
}
