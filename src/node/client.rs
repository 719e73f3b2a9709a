//! The client: one job against one server, with reconnects, until it is finished.
//!
//! A library value: a host polls it from its own loop, or lets [`Client::poll`] wait.
//! Invariant: exactly one [`ClientEvent::Finished`] is reported, as the last event.

use super::events::{Action, ClientEvent, JobError, Outcome, Summary};
use super::ledger::{Audience, Ledger};
use super::local::{PullPlan, PullTarget, Sources, pull_sources};
use super::options::{ClientOptions, FilterRule, Job, MaxDelete, TransferOptions};
use super::peer::{Core, Peer, Pulse, Session, Transfer};
use super::receiving::{DeletePlan, Receiving, ReceivingPlan};
use super::sending::{Sending, SendingPlan};
use super::server::random_seed;
use crate::conn::{Event, Machine};
use crate::model::limits::HANDSHAKE_TIMEOUT_MS;
use crate::model::{CloseCode, DeviceId, Fault, Link, Rights, Tick};
use crate::reactor::{
    Activity, ClientSecurity, Closed, ConnId, Context, Handler, Reactor, ReactorOptions, Shared,
};
use crate::store::{Filter, Home, Rule};
use crate::wire::{
    Begin, BeginFlags, Brake, Direction, Finish, Open, Opened, RemovedReader, TargetKind, features,
};
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// One job against a server, on the thread that polls it.
pub struct Client {
    reactor: Reactor<Peer>,
    node: ClientNode,
}

struct ClientNode {
    options: ClientOptions,
    job: Job,
    transfer: TransferOptions,
    filter: Filter,
    home: Home,
    security: ClientSecurity,
    addresses: Vec<SocketAddr>,
    /// Which of the addresses is tried.
    address: usize,
    /// The server that a link or an earlier pairing names.
    expected: Option<DeviceId>,
    /// The sources of a push, until they are read.
    core: Core,
    events: Vec<ClientEvent>,
    phase: Phase,
    attempt: u32,
    connected_once: bool,
    started: Instant,
    reported: Tick,
    /// Figures of attempts that broke off.
    earlier: Summary,
    disk_full: bool,
}

enum Phase {
    /// A connection is to be made at the next poll.
    Connecting,
    /// A connection is made, or waits for its turn.
    Waiting,
    Connected(ConnId),
    /// The transfer is over; the connection closes.
    Closing(Result<(), JobError>),
    Finished,
}

/// The timer for the next attempt.
const RETRY_TIMER: u64 = 1;
/// Milliseconds before the first repetition; doubles up to 16 times this, plus jitter.
const RETRY_MS: u64 = 500;
/// Milliseconds between two progress events.
const PROGRESS_MS: u64 = 100;

impl Client {
    /// Checks the job, finds the server's address, and gets ready to connect at the first poll.
    ///
    /// # Errors
    /// A [`JobError`] for what can be known without the server: sources, state directory, host name.
    pub fn start(
        options: ClientOptions,
        job: Job,
        transfer: TransferOptions,
    ) -> Result<Client, JobError> {
        let home = Home::open(&options.home).map_err(|error| JobError::State {
            reason: error.to_string(),
        })?;
        if let Job::Push { sources, .. } = &job {
            Sources::open(sources)?;
        }
        let filter = filter_of(&transfer.filters)?;
        let link = job.link().clone();
        let known = home.trust().known_server(&link.authority());
        let expected = match &link.secret {
            Some(secret) => Some(secret.server),
            None => known.map_err(|error| JobError::State {
                reason: error.to_string(),
            })?,
        };
        let addresses = resolve(&link)?;
        let security = security(&options, &home, expected)?;
        let reactor_options = ReactorOptions {
            bytes_per_second: options.bandwidth_limit,
            handle_signals: options.handle_signals,
            ..ReactorOptions::default()
        };
        let reactor = Reactor::new(&reactor_options).map_err(|error| JobError::State {
            reason: format!("no event loop: {error}"),
        })?;
        let node = ClientNode {
            options,
            job,
            transfer,
            filter,
            home,
            security,
            addresses,
            address: 0,
            expected,
            core: Core::new(),
            events: Vec::new(),
            phase: Phase::Connecting,
            attempt: 0,
            connected_once: false,
            started: Instant::now(),
            reported: Tick(0),
            earlier: Summary::default(),
            disk_full: false,
        };
        Ok(Client { reactor, node })
    }

    /// Does what is to do, waiting for it up to `timeout` (`None`: until something happens).
    ///
    /// # Errors
    /// When the system's poll fails.
    pub fn poll(&mut self, timeout: Option<Duration>) -> io::Result<Vec<ClientEvent>> {
        if matches!(self.node.phase, Phase::Connecting) {
            self.connect();
        }
        if !matches!(self.node.phase, Phase::Finished) && self.node.events.is_empty() {
            self.reactor.turn(timeout, &mut self.node)?;
        }
        Ok(std::mem::take(&mut self.node.events))
    }

    /// When [`Client::poll`] has to be called at the latest, if nothing happens on the descriptor.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        match self.node.phase {
            Phase::Connecting => Some(Instant::now()),
            _ => self.reactor.next_deadline(),
        }
    }

    /// Ends the job: what is committed stays, the rest is picked up by the next run.
    pub fn interrupt(&mut self) {
        self.stop(None);
    }

    fn stop(&mut self, signal: Option<i32>) {
        let ids = self.reactor.connection_ids();
        let error = JobError::Interrupted { signal };
        for id in ids {
            let node = &mut self.node;
            self.reactor.with(id, |cx, peer| {
                node.end(cx, &mut peer.session, Err(error.clone()))
            });
        }
        if !matches!(self.node.phase, Phase::Closing(_) | Phase::Finished) {
            self.node.finish(Err(error), Summary::default());
        }
    }

    fn connect(&mut self) {
        self.node.phase = Phase::Waiting;
        let Some(address) = self.node.addresses.get(self.node.address).copied() else {
            let reason = "its name has no usable address".to_owned();
            let authority = self.node.job.link().authority();
            return self.node.finish(
                Err(JobError::Connect { authority, reason }),
                Summary::default(),
            );
        };
        let peer = Peer::new(
            Machine::client(&self.node.home.device_name(), self.node.open()),
            Audience::User,
        );
        match self.reactor.connect(address, &self.node.security, peer) {
            Ok(id) => self.node.phase = Phase::Connected(id),
            Err(error) => {
                let authority = self.node.job.link().authority();
                let reason = error.to_string();
                self.node.finish(
                    Err(JobError::Connect { authority, reason }),
                    Summary::default(),
                );
            }
        }
    }
}

impl AsFd for Client {
    /// Readable when there is something to do: for a host's own poll loop.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.reactor.as_fd()
    }
}

impl Job {
    /// The link that names server and share.
    fn link(&self) -> &Link {
        match self {
            Job::Push { target, .. } => target,
            Job::Pull { links, .. } => &links[0],
            Job::Status { link } => link,
        }
    }
}

impl Handler<Peer> for ClientNode {
    fn accepted(
        &mut self,
        _shared: &mut Shared,
        _listener: usize,
        _id: ConnId,
        _peer: SocketAddr,
    ) -> Option<Peer> {
        None
    }

    fn established(&mut self, cx: &mut Context<'_>, peer: &mut Peer, device: Option<DeviceId>) {
        peer.session.device = device;
        peer.session.liveness.heard(cx.now());
        peer.session.flush(cx);
        cx.set_deadline(Some(cx.now() + HANDSHAKE_TIMEOUT_MS.min(self.timeout_ms())));
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
        match peer.session.liveness.check(cx, self.timeout_ms()) {
            Pulse::Alive(next) => {
                peer.session.machine.ping(cx.now().0);
                peer.session.flush(cx);
                cx.set_deadline(Some(next));
            }
            Pulse::Stalled => cx.abort(),
        }
    }

    fn closed(&mut self, shared: &mut Shared, id: ConnId, mut peer: Peer, why: Closed) {
        self.core.committer.forget(id);
        let mut summary = std::mem::take(&mut peer.session.ledger.summary);
        (summary.wire_sent, summary.wire_received) = peer.session.wire_before;
        self.disk_full |= peer.session.ledger.disk_full;
        self.events.append(&mut peer.session.ledger.take_events());
        match std::mem::replace(&mut self.phase, Phase::Waiting) {
            Phase::Closing(result) => self.finish(result, summary),
            Phase::Finished => self.phase = Phase::Finished,
            _ => self.broken(shared, why, summary),
        }
    }

    fn durable(&mut self, shared: &mut Shared, ticket: u64, result: io::Result<()>) {
        self.core.committer.completed(shared, ticket, &result);
    }

    fn signal(&mut self, shared: &mut Shared, signal: i32) {
        match std::mem::replace(&mut self.phase, Phase::Waiting) {
            Phase::Finished => self.phase = Phase::Finished,
            Phase::Connected(id) => {
                self.phase = Phase::Closing(Err(JobError::Interrupted {
                    signal: Some(signal),
                }));
                shared.close(id);
            }
            _ => self.finish(
                Err(JobError::Interrupted {
                    signal: Some(signal),
                }),
                Summary::default(),
            ),
        }
    }

    fn timer(&mut self, _shared: &mut Shared, key: u64) {
        if key == RETRY_TIMER && matches!(self.phase, Phase::Waiting) {
            self.phase = Phase::Connecting;
        }
    }
}

impl ClientNode {
    fn timeout_ms(&self) -> u64 {
        u64::try_from(self.options.timeout.as_millis())
            .unwrap_or(u64::MAX)
            .max(1)
    }

    fn open(&self) -> Open {
        let link = self.job.link();
        let wanted = match &self.job {
            Job::Push { .. } => Rights {
                read: false,
                write: true,
            },
            Job::Pull { .. } => Rights::READ,
            Job::Status { .. } => Rights::NONE,
        };
        // The secret is worth nothing to anyone but the server of the fingerprint beside it.
        let secret = link
            .secret
            .as_ref()
            .and_then(|secret| secret.invite.clone());
        let secret = if self.options.plain { None } else { secret };
        Open {
            share: Some(link.share.clone()),
            secret,
            wanted,
        }
    }

    fn event(
        &mut self,
        cx: &mut Context<'_>,
        session: &mut Session,
        event: Event<'_>,
    ) -> Result<(), Fault> {
        let result = match event {
            Event::Opened(opened) => self.opened(cx, session, opened),
            Event::Ready(kind) => self.ready_for(cx, session, kind),
            Event::StatusReply(json) => {
                self.events.push(ClientEvent::Status(
                    String::from_utf8_lossy(json).into_owned(),
                ));
                self.end(cx, session, Ok(()));
                Ok(())
            }
            Event::Removed(payload) => {
                let mut paths = RemovedReader::new(payload)
                    .map_err(|error| Fault::protocol(error.to_string()))?;
                while let Ok(Some(path)) = paths.next_path() {
                    session.ledger.item(&path, Action::Deleted, 0);
                }
                Ok(())
            }
            Event::Finished(finish) => {
                let result = self.verdict(finish);
                self.end(cx, session, result);
                Ok(())
            }
            Event::Closed(fault) => Err(self.closed_by(fault)),
            _ => Ok(()),
        };
        if let Err(error) = result {
            self.end(cx, session, Err(error));
        }
        Ok(())
    }

    fn opened(
        &mut self,
        cx: &mut Context<'_>,
        session: &mut Session,
        opened: Opened,
    ) -> Result<(), JobError> {
        let link = self.job.link();
        let name = session.machine.peer_name().to_owned();
        let first_use = session.device.is_some() && self.expected.is_none();
        if let Some(device) = &session.device {
            let remembered = self
                .home
                .trust()
                .remember_server(&link.authority(), device, &name);
            remembered.map_err(|error| JobError::State {
                reason: error.to_string(),
            })?;
            self.expected = Some(*device);
        }
        if !self.connected_once {
            self.events.push(ClientEvent::Connected {
                server: session.device,
                name,
                paired: opened.paired,
                first_use,
            });
        }
        self.connected_once = true;
        self.attempt = 0;
        session.began = cx.now();
        match &self.job {
            Job::Status { .. } => session.machine.status_query(),
            Job::Push { sources, target } => {
                let scopes = if self.transfer.delete {
                    Sources::open(sources)?.scopes(target)?
                } else {
                    Vec::new()
                };
                let begin = Begin {
                    target: target.path.clone(),
                    scopes,
                    ..self.begin(Direction::Push)
                };
                session.machine.begin(begin);
            }
            Job::Pull { links, .. } => {
                let begin = Begin {
                    sources: pull_sources(links),
                    ..self.begin(Direction::Pull)
                };
                session.machine.begin(begin);
            }
        }
        cx.set_deadline(Some(cx.now() + self.timeout_ms() / 4));
        Ok(())
    }

    fn begin(&self, direction: Direction) -> Begin {
        let rule = |rule: &FilterRule| match rule {
            FilterRule::Exclude(text) => crate::wire::Rule::Exclude(text.clone()),
            FilterRule::Include(text) => crate::wire::Rule::Include(text.clone()),
        };
        let TransferOptions {
            dry_run,
            checksum,
            delete,
            ..
        } = self.transfer;
        Begin {
            direction,
            flags: BeginFlags {
                dry_run,
                checksum,
                delete,
            },
            brake: match self.transfer.max_delete {
                MaxDelete::Default => Brake::Default,
                MaxDelete::Count(count) => Brake::Count(count),
                MaxDelete::Percent(percent) => Brake::Percent(percent),
                MaxDelete::Unlimited => Brake::Unlimited,
            },
            target: None,
            scopes: Vec::new(),
            sources: Vec::new(),
            rules: self.transfer.filters.iter().map(rule).collect(),
        }
    }

    /// The server is ready: the local end is set up.
    fn ready_for(
        &mut self,
        cx: &mut Context<'_>,
        session: &mut Session,
        kind: TargetKind,
    ) -> Result<(), JobError> {
        let filter = self.filter.clone();
        match &self.job {
            Job::Push { sources, target } => {
                let plan = Sources::open(sources)?.plan(target, kind)?;
                self.tell_mappings(plan.mappings);
                let holes = session.machine.features() & features::HOLES != 0;
                let checksum = self.transfer.checksum;
                let plan = SendingPlan {
                    trees: plan.trees,
                    filter,
                    checksum,
                    holes,
                    top: plan.top,
                };
                session.transfer = Some(Transfer::Sending(Box::new(Sending::new(plan))));
            }
            Job::Pull {
                links,
                target,
                target_is_directory,
            } => {
                let target = PullTarget {
                    path: target,
                    is_directory: *target_is_directory,
                    dry_run: self.transfer.dry_run,
                    durability: self.transfer.durability,
                    nowhere: self.home.path().join("empty"),
                };
                let plan = target.plan(links, kind, filter)?;
                session.transfer = Some(self.receive(cx.id(), plan)?);
                self.core.committer.register(cx.id());
            }
            Job::Status { .. } => {}
        }
        Ok(())
    }

    fn receive(&mut self, owner: ConnId, plan: PullPlan) -> Result<Transfer, JobError> {
        self.tell_mappings(plan.mappings);
        let delete = match self.transfer.delete {
            false => None,
            true => {
                let seed = random_seed().map_err(|error| JobError::State {
                    reason: error.to_string(),
                })?;
                Some(DeletePlan {
                    scopes: plan.scopes,
                    brake: self.transfer.max_delete,
                    seed,
                })
            }
        };
        let plan = ReceivingPlan {
            place: Rc::new(plan.place),
            agreement: plan.agreement,
            checksum: self.transfer.checksum,
            dry_run: self.transfer.dry_run,
            delete,
            top: None,
        };
        Ok(Transfer::Receiving(Box::new(Receiving::new(owner, plan))))
    }

    fn tell_mappings(&mut self, mappings: Vec<super::options::Mapping>) {
        if self.earlier == Summary::default() {
            self.events
                .extend(mappings.into_iter().map(ClientEvent::Mapped));
        }
    }

    /// What follows a burst of input or a step.
    fn after(
        &mut self,
        cx: &mut Context<'_>,
        session: &mut Session,
        result: Result<Activity, Fault>,
    ) {
        if let Err(fault) = result {
            let authority = self.job.link().authority();
            let error = JobError::NotSyncline {
                authority,
                reason: fault.text.clone(),
            };
            session.machine.close(&fault);
            return self.end(cx, session, Err(error));
        }
        self.core.committer.pump(cx);
        session.flush(cx);
        self.report(cx.now(), &mut session.ledger);
        session.wire_before = (
            cx.bytes_sent() + cx.outbound_bytes() as u64,
            cx.bytes_received(),
        );
        if let Some(Transfer::Receiving(receiving)) = &session.transfer
            && let Some(finish) = receiving.ended()
        {
            let result = self.verdict(finish);
            self.end(cx, session, result);
        }
    }

    fn report(&mut self, now: Tick, ledger: &mut Ledger) {
        self.events.append(&mut ledger.take_events());
        if now.since(self.reported) >= PROGRESS_MS {
            self.reported = now;
            self.events
                .push(ClientEvent::Progress(ledger.progress.clone()));
        }
    }

    /// Ends the session in order; the outcome is reported when the connection is gone.
    fn end(&mut self, cx: &mut Context<'_>, session: &mut Session, result: Result<(), JobError>) {
        if matches!(self.phase, Phase::Closing(_) | Phase::Finished) {
            return;
        }
        let code = match &result {
            Ok(()) => CloseCode::Done,
            Err(JobError::Interrupted { .. }) => CloseCode::Interrupted,
            Err(_) => CloseCode::Internal,
        };
        self.phase = Phase::Closing(result);
        session.close(cx, &Fault::new(code, ""));
        session.wire_before = (
            cx.bytes_sent() + cx.outbound_bytes() as u64,
            cx.bytes_received(),
        );
    }

    fn verdict(&self, finish: Finish) -> Result<(), JobError> {
        match finish {
            Finish::Done { .. } => Ok(()),
            Finish::MassDelete {
                deletions,
                existing,
            } => Err(JobError::MassDelete {
                deletions,
                existing,
            }),
            Finish::Incomplete => Err(JobError::IncompleteSource),
        }
    }

    fn closed_by(&self, fault: Fault) -> JobError {
        match fault.code {
            CloseCode::NotFound => JobError::NotFound { path: fault.text },
            code => JobError::Closed {
                code,
                text: fault.text,
            },
        }
    }

    /// The connection ended although the job is not done.
    fn broken(&mut self, shared: &mut Shared, why: Closed, summary: Summary) {
        self.keep(&summary);
        let authority = self.job.link().authority();
        let reason = why.to_string();
        let (error, may_pass) = match why {
            Closed::Connect(_) | Closed::HandshakeTimeout if !self.connected_once => {
                if self.address + 1 < self.addresses.len() {
                    self.address += 1;
                    self.phase = Phase::Connecting;
                    return;
                }
                (JobError::Connect { authority, reason }, false)
            }
            Closed::WrongServer { .. } => (JobError::WrongServer { authority }, false),
            Closed::NotTls
            | Closed::IsTls
            | Closed::HungUp
            | Closed::NoCommonProtocol
            | Closed::Tls(_) => (JobError::NotSyncline { authority, reason }, false),
            _ if !self.connected_once => (JobError::NotSyncline { authority, reason }, false),
            _ => (JobError::Lost { authority, reason }, true),
        };
        if !may_pass || self.attempt >= self.options.retries {
            return self.finish(Err(error), Summary::default());
        }
        self.attempt += 1;
        let jitter = random_seed().unwrap_or(0) % RETRY_MS;
        let wait = (RETRY_MS << (self.attempt - 1).min(4)) + jitter;
        shared.set_timer(RETRY_TIMER, shared.now() + wait);
        let wait = Duration::from_millis(wait);
        self.events.push(ClientEvent::Retrying {
            attempt: self.attempt,
            wait,
            reason: error.to_string(),
        });
    }

    /// Adds the figures of an attempt that broke off: what travelled, not what was settled.
    fn keep(&mut self, summary: &Summary) {
        self.earlier.wire_sent += summary.wire_sent;
        self.earlier.wire_received += summary.wire_received;
        self.earlier.literal_bytes += summary.literal_bytes;
        self.earlier.files_transferred += summary.files_transferred;
        self.earlier.deleted += summary.deleted;
    }

    fn finish(&mut self, result: Result<(), JobError>, mut summary: Summary) {
        summary.wire_sent += self.earlier.wire_sent;
        summary.wire_received += self.earlier.wire_received;
        summary.literal_bytes += self.earlier.literal_bytes;
        summary.files_transferred += self.earlier.files_transferred;
        summary.deleted += self.earlier.deleted;
        summary.elapsed = self.started.elapsed();
        let result = if result.is_ok() && self.disk_full {
            Err(JobError::DiskFull)
        } else {
            result
        };
        self.phase = Phase::Finished;
        self.events
            .push(ClientEvent::Finished(Outcome { summary, result }));
    }
}

fn resolve(link: &Link) -> Result<Vec<SocketAddr>, JobError> {
    let found = (link.host.as_str(), link.port).to_socket_addrs();
    let reason = match found {
        Ok(addresses) => {
            let addresses: Vec<SocketAddr> = addresses.collect();
            if !addresses.is_empty() {
                return Ok(addresses);
            }
            "it has no address".to_owned()
        }
        Err(error) => error.to_string(),
    };
    Err(JobError::Resolve {
        host: link.host.clone(),
        reason,
    })
}

fn filter_of(rules: &[FilterRule]) -> Result<Filter, JobError> {
    let rules = rules.iter().map(|rule| match rule {
        FilterRule::Exclude(text) => Rule::Exclude(text.clone()),
        FilterRule::Include(text) => Rule::Include(text.clone()),
    });
    let rules: Vec<Rule> = rules.collect();
    Filter::new(&rules).map_err(|error| JobError::Filter {
        reason: error.to_string(),
    })
}

#[cfg(feature = "tls")]
fn security(
    options: &ClientOptions,
    home: &Home,
    expected: Option<DeviceId>,
) -> Result<ClientSecurity, JobError> {
    if options.plain {
        return Ok(ClientSecurity::Plain);
    }
    let identity = super::identity::load(home).map_err(|reason| JobError::State { reason })?;
    Ok(ClientSecurity::Tls { identity, expected })
}

#[cfg(not(feature = "tls"))]
fn security(
    options: &ClientOptions,
    _home: &Home,
    _expected: Option<DeviceId>,
) -> Result<ClientSecurity, JobError> {
    if options.plain {
        return Ok(ClientSecurity::Plain);
    }
    Err(JobError::State {
        reason: "this build has no TLS; only --plain works".to_owned(),
    })
}
