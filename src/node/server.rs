//! The server: listeners, shares, who is let in, and the transfers that clients begin.
//!
//! A library value: a host polls it from its own loop, or lets [`Server::poll`] wait.

use super::access::{Access, Visitor};
use super::agreement::{Agreement, Scope};
use super::events::{ServerEvent, Summary};
use super::ledger::Audience;
use super::options::{MaxDelete, ServerOptions, ShareOptions};
use super::peer::{Core, Peer, Pulse, Session, Transfer};
use super::place::Place;
use super::receiving::{DeletePlan, Receiving, ReceivingPlan};
use super::sending::{Sending, SendingPlan};
use super::source_tree::SourceTree;
use super::status::{LoopStatus, StatusReport, Totals};
use crate::conn::{Event, Machine};
use crate::model::limits::{
    DRAIN_TIMEOUT_MS, HANDSHAKE_TIMEOUT_MS, IDLE_TIMEOUT_MS, PREAUTH_CONNECTIONS_MAX,
    STALL_TIMEOUT_MS,
};
use crate::model::{CloseCode, DeviceId, Fault, Kind, Meta, RelPath, Rights, ShareName, Tick};
use crate::reactor::{
    Activity, Closed, ConnId, Context, Counters, Handler, Reactor, ReactorOptions, Security, Shared,
};
use crate::store::{
    Filter, FilterError, FoundKind, Home, LockError, Root, Rule, RunFile, RunningServer, ShareLock,
    Stamp, StateError,
};
use crate::wire::{Begin, Brake, Direction, Open, PullSource, TargetKind, features};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Serves folders to clients, on the thread that polls it.
pub struct Server {
    reactor: Reactor<Peer>,
    node: ServerNode,
    addresses: Vec<SocketAddr>,
    _run_file: RunFile,
}

/// Why a server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// No share was named.
    #[error("there is no folder to serve")]
    NoShares,
    /// Two shares have one name.
    #[error("two folders would be served as \"{0}\"")]
    DuplicateShare(ShareName),
    /// A folder cannot be served.
    #[error("cannot serve {}: {reason}", path.display())]
    Share {
        /// The folder.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Another server has the folder.
    #[error("{} is already served by {holder}", path.display())]
    Locked {
        /// The folder.
        path: PathBuf,
        /// Who has it, as far as it is known.
        holder: String,
    },
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// From the system.
        source: io::Error,
    },
    /// The state directory cannot be used.
    #[error("cannot use the state directory: {reason}")]
    State {
        /// What and where.
        reason: String,
    },
}

struct Share {
    name: ShareName,
    place: Rc<Place>,
    open: Rights,
    writable: bool,
    totals: Totals,
    _lock: Option<ShareLock>,
}

struct ServerNode {
    name: String,
    shares: Vec<Share>,
    access: Access,
    core: Core,
    events: Vec<ServerEvent>,
    started: Instant,
    /// Connections that have not opened a share yet.
    unopened: usize,
    stamp: Option<Stamp>,
    draining: Draining,
    counters: Counters,
    connections: usize,
    /// The rights of all connections are to be looked at again.
    recheck: bool,
    /// Draining has taken long enough.
    cut: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Draining {
    No,
    /// Asked for, not begun.
    Asked,
    Until(Tick),
    Over,
}

/// The timer that ends draining.
const DRAIN_TIMER: u64 = 1;
/// The timer that looks for revoked devices.
const REVOKE_TIMER: u64 = 2;
/// Milliseconds between two looks.
const REVOKE_INTERVAL_MS: u64 = 1_000;

impl Server {
    /// Opens the shares, the state directory and the listeners.
    ///
    /// # Errors
    /// A [`ServerError`] naming the first thing that does not work; nothing is left behind.
    pub fn bind(options: &ServerOptions) -> Result<Server, ServerError> {
        let state = |error: StateError| ServerError::State {
            reason: error.to_string(),
        };
        let home = Home::open(&options.home).map_err(state)?;
        let shares = open_shares(options)?;
        let (security, own) = security(options, &home)?;
        let reactor_options = ReactorOptions {
            connections_max: options.connections_max,
            bytes_per_second: options.bandwidth_limit,
            handle_signals: options.handle_signals,
            ..ReactorOptions::default()
        };
        let broken = |error: io::Error| ServerError::State {
            reason: error.to_string(),
        };
        let mut reactor = Reactor::new(&reactor_options).map_err(broken)?;
        let mut addresses = Vec::new();
        for &address in &options.listen {
            let listened = reactor.listen(address, security.clone());
            addresses.push(
                listened
                    .map_err(|source| ServerError::Listen { address, source })?
                    .1,
            );
        }
        let running = RunningServer {
            pid: std::process::id(),
            listen: addresses.clone(),
            plain: options.plain,
            device: own,
            shares: options
                .shares
                .iter()
                .map(|share| (share.name.clone(), share.path.clone()))
                .collect(),
        };
        let run_file = home.announce(&running).map_err(state)?;
        let name = home.device_name();
        let node = ServerNode {
            name,
            shares,
            stamp: home.trust().stamp().ok(),
            access: Access::new(home, own),
            core: Core::new(),
            events: Vec::new(),
            started: Instant::now(),
            unopened: 0,
            draining: Draining::No,
            counters: Counters::default(),
            connections: 0,
            recheck: false,
            cut: false,
        };
        let now = reactor.shared().now();
        reactor
            .shared()
            .set_timer(REVOKE_TIMER, now + REVOKE_INTERVAL_MS);
        Ok(Server {
            reactor,
            node,
            addresses,
            _run_file: run_file,
        })
    }

    /// Where it listens, with the ports that were picked.
    #[must_use]
    pub fn listen_addrs(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Its device id; `None` without TLS.
    #[must_use]
    pub fn device(&self) -> Option<DeviceId> {
        self.node.access.own()
    }

    /// What it calls itself.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.node.name
    }

    /// Does what is to do, waiting for it up to `timeout` (`None`: until something happens).
    ///
    /// # Errors
    /// When the system's poll fails; the server is of no use then.
    pub fn poll(&mut self, timeout: Option<Duration>) -> io::Result<Vec<ServerEvent>> {
        if self.node.draining == Draining::Asked {
            self.begin_draining();
        }
        self.node.counters = self.reactor.counters();
        self.node.connections = self.reactor.connections();
        self.reactor.turn(timeout, &mut self.node)?;
        for share in &self.node.shares {
            share.place.root.forget_parents();
        }
        if std::mem::take(&mut self.node.recheck) {
            for id in self.reactor.connection_ids() {
                self.reactor.shared().wake(id);
            }
        }
        if std::mem::take(&mut self.node.cut) {
            self.cut_all();
        }
        let quiet = self.reactor.connections() == 0 && self.node.core.committer.is_idle();
        if matches!(self.node.draining, Draining::Until(_)) && quiet {
            self.node.draining = Draining::Over;
            self.node.events.push(ServerEvent::Drained);
        }
        Ok(std::mem::take(&mut self.node.events))
    }

    /// When [`Server::poll`] has to be called at the latest, if nothing happens on the descriptor.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        self.reactor.next_deadline()
    }

    /// Stops accepting, lets transfers end within [`DRAIN_TIMEOUT_MS`], then reports
    /// [`ServerEvent::Drained`]. Called twice, it cuts them.
    pub fn drain(&mut self) {
        match self.node.draining {
            Draining::No => self.node.draining = Draining::Asked,
            Draining::Asked | Draining::Over => {}
            Draining::Until(_) => self.cut_all(),
        }
    }

    fn begin_draining(&mut self) {
        self.reactor.close_listeners();
        let until = self.reactor.shared().now() + DRAIN_TIMEOUT_MS;
        self.reactor.shared().set_timer(DRAIN_TIMER, until);
        self.node.draining = Draining::Until(until);
        for id in self.reactor.connection_ids() {
            self.reactor.with(id, |cx, peer| {
                if !peer.session.machine.is_transferring() {
                    peer.session.close(cx, &stopping());
                }
            });
        }
    }

    fn cut_all(&mut self) {
        for id in self.reactor.connection_ids() {
            self.reactor.with(id, |cx, _| cx.abort());
        }
    }
}

impl AsFd for Server {
    /// Readable when there is something to do: for a host's own poll loop.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.reactor.as_fd()
    }
}

fn open_shares(options: &ServerOptions) -> Result<Vec<Share>, ServerError> {
    if options.shares.is_empty() {
        return Err(ServerError::NoShares);
    }
    let mut shares: Vec<Share> = Vec::new();
    for wanted in &options.shares {
        if shares.iter().any(|share| share.name == wanted.name) {
            return Err(ServerError::DuplicateShare(wanted.name.clone()));
        }
        shares.push(open_share(wanted, options)?);
    }
    Ok(shares)
}

fn open_share(wanted: &ShareOptions, options: &ServerOptions) -> Result<Share, ServerError> {
    let path = &wanted.path;
    let broken = |reason: String| ServerError::Share {
        path: path.clone(),
        reason,
    };
    let root = Root::open(path).map_err(|error| broken(error.reason()))?;
    let (lock, writable) = match ShareLock::acquire(&root) {
        Ok(lock) => (Some(lock), true),
        Err(LockError::ReadOnly) => (None, false),
        Err(LockError::Held { holder }) => {
            return Err(ServerError::Locked {
                path: path.clone(),
                holder,
            });
        }
        Err(error) => return Err(broken(error.to_string())),
    };
    let place = Place::new(root, options.durability);
    if writable {
        match place.staging.sweep() {
            Ok(swept) if swept.removed > 0 => log::info!(
                "removed {} unfinished files of an earlier run",
                swept.removed
            ),
            Ok(_) => {}
            Err(error) => log::warn!("{error}"),
        }
    } else {
        log::warn!(
            "{} cannot be written to: it is served for reading only",
            path.display()
        );
    }
    Ok(Share {
        name: wanted.name.clone(),
        place: Rc::new(place),
        open: wanted.open,
        writable,
        totals: Totals::default(),
        _lock: lock,
    })
}

#[cfg(feature = "tls")]
fn security(
    options: &ServerOptions,
    home: &Home,
) -> Result<(Security, Option<DeviceId>), ServerError> {
    if options.plain {
        return Ok((Security::Plain, None));
    }
    let identity = super::identity::load(home).map_err(|reason| ServerError::State { reason })?;
    let own = identity.device();
    Ok((Security::Tls(identity), Some(own)))
}

#[cfg(not(feature = "tls"))]
fn security(
    options: &ServerOptions,
    _home: &Home,
) -> Result<(Security, Option<DeviceId>), ServerError> {
    if options.plain {
        return Ok((Security::Plain, None));
    }
    Err(ServerError::State {
        reason: "this build has no TLS; only --plain works".to_owned(),
    })
}

impl Handler<Peer> for ServerNode {
    fn accepted(
        &mut self,
        _shared: &mut Shared,
        _listener: usize,
        _id: ConnId,
        peer: SocketAddr,
    ) -> Option<Peer> {
        if self.unopened >= PREAUTH_CONNECTIONS_MAX {
            log::debug!("{peer} turned away: too many connections that have not said who they are");
            return None;
        }
        self.unopened += 1;
        Some(Peer::new(Machine::server(&self.name), Audience::Nobody))
    }

    fn established(&mut self, cx: &mut Context<'_>, peer: &mut Peer, device: Option<DeviceId>) {
        peer.session.device = device;
        peer.session.liveness.heard(cx.now());
        cx.set_deadline(Some(cx.now() + HANDSHAKE_TIMEOUT_MS));
    }

    fn received(&mut self, cx: &mut Context<'_>, peer: &mut Peer, bytes: &[u8]) {
        peer.session.liveness.heard(cx.now());
        let result = peer.receive(bytes, |session, event| {
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
        let result = peer.session.step(cx, &mut self.core);
        let activity = result.as_ref().map_or(Activity::Idle, |activity| *activity);
        self.after(cx, &mut peer.session, result);
        activity
    }

    fn deadline(&mut self, cx: &mut Context<'_>, peer: &mut Peer) {
        let session = &mut peer.session;
        let timeout = match (session.machine.is_open(), session.machine.is_transferring()) {
            (false, _) => return self.give_up(cx, session),
            (true, true) => STALL_TIMEOUT_MS,
            (true, false) => IDLE_TIMEOUT_MS,
        };
        match session.liveness.check(cx, timeout) {
            Pulse::Stalled => self.give_up(cx, session),
            Pulse::Alive(next) => {
                if session.machine.is_transferring() {
                    session.machine.ping(cx.now().0);
                    session.flush(cx);
                }
                cx.set_deadline(Some(next));
            }
        }
    }

    fn closed(&mut self, _shared: &mut Shared, id: ConnId, mut peer: Peer, why: Closed) {
        self.core.committer.forget(id);
        if peer.session.share.is_none() {
            self.unopened = self.unopened.saturating_sub(1);
        }
        if peer.session.transfer.take().is_some() {
            log::info!("a transfer ended early: {why}");
        } else {
            log::debug!("connection closed: {why}");
        }
    }

    fn durable(&mut self, shared: &mut Shared, ticket: u64, result: io::Result<()>) {
        self.core.committer.completed(shared, ticket, &result);
    }

    fn signal(&mut self, shared: &mut Shared, signal: i32) {
        log::info!("signal {signal}: finishing what runs");
        match self.draining {
            Draining::No => self.draining = Draining::Asked,
            _ => shared.set_timer(DRAIN_TIMER, shared.now()),
        }
    }

    fn timer(&mut self, shared: &mut Shared, key: u64) {
        if key == REVOKE_TIMER {
            let stamp = self.access.home().trust().stamp().ok();
            if stamp != self.stamp {
                self.stamp = stamp;
                self.recheck = true;
            }
            return shared.set_timer(REVOKE_TIMER, shared.now() + REVOKE_INTERVAL_MS);
        }
        if key == DRAIN_TIMER {
            self.cut = true;
        }
    }
}

impl ServerNode {
    /// What follows a burst of input or a step: faults close, finished transfers are noted.
    fn after(
        &mut self,
        cx: &mut Context<'_>,
        session: &mut Session,
        result: Result<Activity, Fault>,
    ) {
        if let Err(fault) = result {
            self.events.push(ServerEvent::Refused {
                peer: cx.peer_addr(),
                code: fault.code,
                text: fault.text.clone(),
            });
            return session.close(cx, &fault);
        }
        self.core.committer.pump(cx);
        session.flush(cx);
        if let Some(Transfer::Receiving(receiving)) = &session.transfer
            && receiving.ended().is_some()
        {
            self.transfer_ended(cx, session);
        }
        if session.machine.is_open()
            && !session.machine.is_transferring()
            && self.draining != Draining::No
        {
            session.close(cx, &stopping());
        }
        self.check_rights(cx, session);
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
            session.close(
                cx,
                &Fault::new(
                    CloseCode::Refused,
                    "the rights of this device were taken back",
                ),
            );
        }
    }

    fn event(
        &mut self,
        cx: &mut Context<'_>,
        session: &mut Session,
        event: Event<'_>,
    ) -> Result<(), Fault> {
        match event {
            Event::Open(open) => self.open(cx, session, &open),
            Event::Begin(begin) => self.begin(cx, session, begin),
            Event::StatusQuery => {
                self.status(session);
                Ok(())
            }
            Event::Finished(_) => {
                self.transfer_ended(cx, session);
                Ok(())
            }
            Event::Closed(_) => {
                cx.close_after_flush();
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn open(
        &mut self,
        cx: &mut Context<'_>,
        session: &mut Session,
        open: &Open,
    ) -> Result<(), Fault> {
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
        };
        let opened = self.access.decide(open, &visitor, cx.now())?;
        if open.wanted.write && index.is_some_and(|index| !self.shares[index].writable) {
            return Err(Fault::new(
                CloseCode::Forbidden,
                "this share is read-only on its server",
            ));
        }
        if let (true, Some(device), Some(share)) =
            (opened.paired, session.device, open.share.clone())
        {
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
        session.stamp = self.stamp;
        self.unopened = self.unopened.saturating_sub(1);
        session.machine.grant(opened);
        cx.set_deadline(Some(cx.now() + IDLE_TIMEOUT_MS / 4));
        Ok(())
    }

    fn begin(
        &mut self,
        cx: &mut Context<'_>,
        session: &mut Session,
        begin: Begin,
    ) -> Result<(), Fault> {
        let Some(index) = session.share else {
            return Err(Fault::protocol("a transfer without a share"));
        };
        if self.draining != Draining::No {
            return Err(stopping());
        }
        let place = Rc::clone(&self.shares[index].place);
        let filter =
            filter_of(&begin).map_err(|error| Fault::new(CloseCode::Limit, error.to_string()))?;
        session.ledger = super::ledger::Ledger::new(Audience::Nobody);
        session.began = cx.now();
        session.wire_before = (cx.bytes_sent(), cx.bytes_received());
        let kind = match begin.direction {
            Direction::Push => {
                let kind = target_kind(&place.root, begin.target.as_ref())?;
                session.transfer = Some(receive(cx.id(), place, begin, filter)?);
                self.core.committer.register(cx.id());
                kind
            }
            Direction::Pull => {
                let holes = session.machine.features() & features::HOLES != 0;
                let root = Rc::new(place.root.share());
                let (sending, kind) = send(&root, &begin, filter, holes)?;
                session.transfer = Some(sending);
                kind
            }
        };
        session.machine.ready(kind);
        cx.set_deadline(Some(cx.now() + STALL_TIMEOUT_MS / 4));
        Ok(())
    }

    fn transfer_ended(&mut self, cx: &mut Context<'_>, session: &mut Session) {
        session.flush(cx);
        session.transfer = None;
        session.machine.end_transfer();
        self.core.committer.forget(cx.id());
        let Some(index) = session.share else { return };
        let mut summary: Summary = std::mem::take(&mut session.ledger.summary);
        summary.wire_sent = cx.bytes_sent() + cx.outbound_bytes() as u64 - session.wire_before.0;
        summary.wire_received = cx.bytes_received() - session.wire_before.1;
        summary.elapsed = Duration::from_millis(cx.now().since(session.began));
        let share = &mut self.shares[index];
        share.totals.add(&summary);
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
        let visible = self
            .shares
            .iter()
            .enumerate()
            .filter(|(index, _)| is_owner || session.share == Some(*index));
        let report = StatusReport {
            event: "status",
            name: &self.name,
            version: env!("CARGO_PKG_VERSION"),
            uptime_seconds: self.started.elapsed().as_secs(),
            shares: visible
                .map(|(_, share)| {
                    let free = share.place.root.free_bytes().ok();
                    share
                        .totals
                        .of_share(&share.name, session.machine.rights().to_string(), free)
                })
                .collect(),
            loop_status: is_owner.then_some(LoopStatus {
                connections: self.connections,
                turns: self.counters.turns,
                longest_turn_micros: self.counters.longest_turn_micros,
                accepted: self.counters.accepted,
                turned_away: self.counters.turned_away,
            }),
        };
        let json = serde_json::to_vec(&report).unwrap_or_default();
        session.machine.status_reply(&json);
    }

    fn give_up(&mut self, cx: &mut Context<'_>, session: &mut Session) {
        let fault = Fault::new(CloseCode::Timeout, "silent for too long");
        self.events.push(ServerEvent::Refused {
            peer: cx.peer_addr(),
            code: fault.code,
            text: fault.text.clone(),
        });
        session.close(cx, &fault);
        if cx.outbound_bytes() > 0 {
            cx.abort();
        }
    }
}

fn stopping() -> Fault {
    Fault::new(CloseCode::Stopping, "the server is stopping")
}

fn filter_of(begin: &Begin) -> Result<Filter, FilterError> {
    let rule = |rule: &crate::wire::Rule| match rule {
        crate::wire::Rule::Exclude(text) => Rule::Exclude(text.clone()),
        crate::wire::Rule::Include(text) => Rule::Include(text.clone()),
    };
    Filter::new(&begin.rules.iter().map(rule).collect::<Vec<_>>())
}

fn target_kind(root: &Root, path: Option<&RelPath>) -> Result<TargetKind, Fault> {
    let Some(path) = path else {
        return Ok(TargetKind::Directory);
    };
    let found = root
        .probe(path)
        .map_err(|error| Fault::new(CloseCode::NotFound, error.reason()))?;
    Ok(match found.map(|found| found.kind) {
        None => TargetKind::Absent,
        Some(FoundKind::File { .. }) => TargetKind::File,
        Some(FoundKind::Directory) => TargetKind::Directory,
        Some(FoundKind::Symlink | FoundKind::Special) => TargetKind::Other,
    })
}

fn receive(
    owner: ConnId,
    place: Rc<Place>,
    begin: Begin,
    filter: Filter,
) -> Result<Transfer, Fault> {
    let delete = match begin.flags.delete {
        false => None,
        true => {
            let seed = random_seed()
                .map_err(|error| Fault::new(CloseCode::Internal, error.to_string()))?;
            Some(DeletePlan {
                scopes: begin.scopes,
                brake: brake_of(begin.brake),
                seed,
            })
        }
    };
    let plan = ReceivingPlan {
        place,
        agreement: Agreement::new(Scope::Below(begin.target.clone()), filter),
        checksum: begin.flags.checksum,
        dry_run: begin.flags.dry_run,
        delete,
        top: begin.target,
    };
    Ok(Transfer::Receiving(Box::new(Receiving::new(owner, plan))))
}

fn send(
    root: &Rc<Root>,
    begin: &Begin,
    filter: Filter,
    holes: bool,
) -> Result<(Transfer, TargetKind), Fault> {
    let mut trees = Vec::new();
    let mut kind = TargetKind::Directory;
    let mut top: Option<Meta> = None;
    for PullSource {
        path,
        contents_only,
    } in &begin.sources
    {
        kind = target_kind(root, path.as_ref())?;
        if kind == TargetKind::Absent {
            let path = path.as_ref().map_or_else(String::new, RelPath::to_string);
            return Err(Fault::new(CloseCode::NotFound, path));
        }
        let contents = *contents_only && kind == TargetKind::Directory;
        if contents {
            let found = match path {
                Some(path) => root.probe(path).ok().flatten(),
                None => root.own().ok(),
            };
            top = found.map(|found| found.meta);
        }
        let strip = match (path, contents) {
            (Some(path), false) => path.parent(),
            (path, _) => path.clone(),
        };
        trees.push(SourceTree {
            start: path.clone(),
            strip,
            ..SourceTree::whole(Rc::clone(root))
        });
    }
    let alone = begin.sources.len() == 1;
    let plan = SendingPlan {
        trees,
        filter,
        checksum: begin.flags.checksum,
        holes,
        top: top.filter(|_| alone),
    };
    Ok((
        Transfer::Sending(Box::new(Sending::new(plan))),
        if alone { kind } else { TargetKind::Directory },
    ))
}

fn brake_of(brake: Brake) -> MaxDelete {
    match brake {
        Brake::Default => MaxDelete::Default,
        Brake::Count(count) => MaxDelete::Count(count),
        Brake::Percent(percent) => MaxDelete::Percent(percent),
        Brake::Unlimited => MaxDelete::Unlimited,
    }
}

pub(super) fn random_seed() -> io::Result<u64> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(u64::from_le_bytes(bytes))
}

/// Whether an entry is a directory; for plans that only care about that.
pub(super) fn is_directory(kind: &Kind) -> bool {
    matches!(kind, Kind::Directory)
}
