//! What a client does with events: from the open share to the outcome, through reconnects.
//!
//! Never blocks. Invariant: the outcome is reported once, when the connection is gone.

use super::bandwidth::{BANDWIDTH_TIMER, Rates};
use super::begin::random_seed;
use super::commit::COMMIT_TIMER;
use super::deltas::Deltas;
use super::events::{Action, ClientEvent, JobError, Summary};
use super::ledger::Ledger;
use super::liveness::{Patience, Pulse, Sight};
use super::local::{PullPlan, PullTarget, Sources, pull_sources};
use super::options::{ClientOptions, FilterRule, Job, Mapping, MaxDelete, TransferOptions};
use super::peer::{Core, Peer, Session, Transfer};
use super::receiving::{Based, DeletePlan, Receiving, ReceivingPlan};
use super::resumes::Resumes;
use super::retrying::Retrying;
use super::sending::{Sending, SendingPlan};
use crate::conn::Event;
use crate::model::limits::{HANDSHAKE_TIMEOUT_MS, QUIET_TIMEOUT_MS};
use crate::model::{CloseCode, DeviceId, Fault, Rights, Tick};
use crate::reactor::{Activity, ClientSecurity, Closed, ConnId, Context, Handler, Shared};
use crate::store::Journal;
use crate::store::{Filter, Home};
use crate::wire::{Begin, BeginFlags, Brake, Direction, Open, Opened, RemovedReader, TargetKind, features};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

pub(super) struct ClientNode {
    pub(super) options: ClientOptions,
    pub(super) job: Job,
    pub(super) transfer: TransferOptions,
    pub(super) filter: Filter,
    pub(super) home: Home,
    pub(super) deltas: Rc<Deltas>,
    /// What broke off: of what is pushed, or in the target of a pull.
    pub(super) resumes: Rc<Resumes>,
    pub(super) security: ClientSecurity,
    pub(super) addresses: Vec<SocketAddr>,
    /// Which of the addresses is tried.
    pub(super) address: usize,
    /// The server that a link or an earlier pairing names.
    pub(super) expected: Option<DeviceId>,
    /// Who answered last, whether or not it let us in, and what it calls itself.
    pub(super) answered: Option<DeviceId>,
    pub(super) core: Core,
    pub(super) events: Vec<ClientEvent>,
    pub(super) phase: Phase,
    pub(super) retrying: Retrying,
    pub(super) connected_once: bool,
    pub(super) started: Instant,
    pub(super) reported: Tick,
    /// Figures of attempts that broke off.
    pub(super) earlier: Summary,
    pub(super) disk_full: bool,
    /// What the server said when it closed for a reason that may pass.
    pub(super) farewell: Option<Fault>,
    /// When the server asked us to come again, after this connection.
    pub(super) come_back: Option<Duration>,
    /// Why this side gave the connection up.
    pub(super) stalled: Option<String>,
    /// The limit of bandwidth.
    pub(super) rates: Rates,
    /// The folder that is kept in sync.
    #[cfg(feature = "sync")]
    pub(super) sync: Option<Box<super::syncing::Syncing>>,
}

pub(super) enum Phase {
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
pub(super) const RETRY_TIMER: u64 = 1;
/// The longest that a server's word makes us stay away.
const COME_BACK_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
/// Milliseconds between two progress events.
const PROGRESS_MS: u64 = 100;

impl Handler<Peer> for ClientNode {
    fn accepted(&mut self, _shared: &mut Shared, _listener: usize, _id: ConnId, _peer: SocketAddr) -> Option<Peer> {
        None
    }

    fn established(&mut self, cx: &mut Context<'_>, peer: &mut Peer, device: Option<DeviceId>) {
        peer.session.device = device;
        self.answered = device;
        peer.session.liveness.begin(cx.now());
        peer.session.flush(cx);
        cx.set_deadline(Some(cx.now() + HANDSHAKE_TIMEOUT_MS.min(self.timeout_ms())));
    }

    fn received(&mut self, cx: &mut Context<'_>, peer: &mut Peer, bytes: &[u8]) {
        let result = peer.receive(bytes, cx.now(), |session, event| {
            match session.transfer_event(event, &mut self.core) {
                #[cfg(feature = "sync")]
                Some(event) => match self.sync_event(cx, session, event)? {
                    Some(event) => self.event(cx, session, event),
                    None => Ok(()),
                },
                #[cfg(not(feature = "sync"))]
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
        #[cfg(feature = "sync")]
        let activity = match self.step_sync(cx, &mut peer.session) {
            Activity::More => Activity::More,
            Activity::Idle => activity,
        };
        self.after(cx, &mut peer.session, result);
        activity
    }

    fn deadline(&mut self, cx: &mut Context<'_>, peer: &mut Peer) {
        let patience = Patience {
            stall_ms: self.timeout_ms(),
            // A server that is short of memory reads from others first, and pings meanwhile.
            unread_ms: self.timeout_ms().max(QUIET_TIMEOUT_MS),
            quiet_ms: None,
        };
        match peer.session.liveness.check(Sight::of(cx), patience) {
            Pulse::Alive(next) => {
                peer.session.machine.ping(cx.now().0);
                peer.session.flush(cx);
                cx.set_deadline(Some(next));
            }
            Pulse::Stalled(stall) => {
                let fault = stall.fault();
                let is_stuck = cx.outbound_bytes() > 0;
                peer.session.close(cx, &fault);
                if is_stuck {
                    cx.abort();
                }
                self.stalled = Some(fault.text);
            }
        }
    }

    fn closed(&mut self, shared: &mut Shared, id: ConnId, mut peer: Peer, why: Closed) {
        self.core.committer.forget(id);
        #[cfg(feature = "sync")]
        {
            self.tell_deeds(&mut peer.session.ledger);
            self.tell_rest();
            self.sync_broken();
        }
        let mut summary = std::mem::take(&mut peer.session.ledger.summary);
        (summary.wire_sent, summary.wire_received) = peer.session.wire_before;
        self.disk_full |= peer.session.ledger.disk_full;
        let resumed_bytes = peer.session.ledger.resumed_bytes;
        self.tell(peer.session.ledger.take_events());
        match std::mem::replace(&mut self.phase, Phase::Waiting) {
            Phase::Closing(result) => self.finish(result, summary),
            Phase::Finished => self.phase = Phase::Finished,
            _ => self.broken(shared, &why, &summary, resumed_bytes),
        }
    }

    fn durable(&mut self, shared: &mut Shared, ticket: u64, result: io::Result<()>) {
        #[cfg(feature = "sync")]
        if self.sync_completed(shared, ticket) {
            return;
        }
        self.core.committer.completed(shared, ticket, &result);
    }

    fn signal(&mut self, shared: &mut Shared, signal: i32) {
        match std::mem::replace(&mut self.phase, Phase::Waiting) {
            Phase::Finished => self.phase = Phase::Finished,
            Phase::Connected(id) => {
                self.phase = Phase::Closing(Err(JobError::Interrupted { signal: Some(signal) }));
                shared.close(id);
            }
            _ => self.finish(Err(JobError::Interrupted { signal: Some(signal) }), Summary::default()),
        }
    }

    #[cfg(feature = "sync")]
    fn watched(&mut self, shared: &mut Shared, _key: u64) -> Activity {
        self.sync_observed(shared)
    }

    fn timer(&mut self, shared: &mut Shared, key: u64) {
        #[cfg(feature = "sync")]
        if key == super::sequencer::OBSERVE_TIMER {
            return self.sync_settled(shared);
        }
        #[cfg(feature = "sync")]
        if key == super::syncing::SYNC_RETRY_TIMER {
            return self.sync_again(shared);
        }
        if key == COMMIT_TIMER {
            self.core.committer.pump(shared);
        }
        if key == BANDWIDTH_TIMER {
            self.rates.apply(shared);
        }
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

    /// The abilities that the server is offered.
    pub(super) fn offered(&self) -> u64 {
        match self.transfer.whole_file {
            true => features::ALL & !features::DELTA,
            false => features::ALL,
        }
    }

    pub(super) fn open(&self) -> Open {
        let link = self.job.link();
        let wanted = match &self.job {
            Job::Push { .. } => Rights {
                read: false,
                write: true,
            },
            Job::Pull { .. } => Rights::READ,
            Job::Status { .. } => Rights::NONE,
            #[cfg(feature = "sync")]
            Job::Sync { options, .. } => rights_of(options.mode),
        };
        // The secret is worth nothing to anyone but the server of the fingerprint beside it.
        let secret = link.secret.as_ref().and_then(|secret| secret.invite.clone());
        let secret = if self.options.plain { None } else { secret };
        Open {
            share: Some(link.share.clone()),
            secret,
            wanted,
        }
    }

    fn event(&mut self, cx: &mut Context<'_>, session: &mut Session, event: Event<'_>) -> Result<(), Fault> {
        let result = match event {
            Event::Opened(opened) => self.opened(cx, session, opened),
            Event::Ready(kind) => self.ready_for(cx, session, kind),
            Event::Queued(queued) => {
                self.events.push(ClientEvent::Queued {
                    position: queued.position,
                    estimate: (queued.estimate_ms > 0).then(|| Duration::from_millis(queued.estimate_ms)),
                });
                Ok(())
            }
            Event::ComeBack(word) => {
                self.come_back = Some(Duration::from_millis(word.after_ms).min(COME_BACK_MAX));
                Ok(())
            }
            Event::StatusReply(json) => {
                self.events
                    .push(ClientEvent::Status(String::from_utf8_lossy(json).into_owned()));
                self.end(cx, session, Ok(()));
                Ok(())
            }
            Event::Removed(payload) => {
                let mut paths = RemovedReader::new(payload).map_err(|error| Fault::protocol(error.to_string()))?;
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
            // What may pass by itself is tried again once the connection is gone.
            Event::Closed(fault) if fault.code.is_temporary() => {
                self.farewell = Some(fault);
                cx.abort();
                Ok(())
            }
            Event::Closed(fault) => {
                self.remember_who_knows_us(session, &fault);
                Err(self.closed_by(fault))
            }
            _ => Ok(()),
        };
        if let Err(error) = result {
            self.end(cx, session, Err(error));
        }
        Ok(())
    }

    /// The key was that of the link, and a server that forbids one thing may allow another later: the
    /// link without its secret shall then find the same server.
    fn remember_who_knows_us(&self, session: &Session, fault: &Fault) {
        let link = self.job.link();
        if let (Some(device), Some(_), CloseCode::Forbidden) = (&session.device, &link.secret, fault.code) {
            let name = session.machine.peer_name();
            let remembered = self.home.trust().remember_server(&link.authority(), device, name);
            if let Err(error) = remembered {
                log::warn!("{error}");
            }
        }
    }

    fn opened(&mut self, cx: &mut Context<'_>, session: &mut Session, opened: Opened) -> Result<(), JobError> {
        let link = self.job.link();
        let name = session.machine.peer_name().to_owned();
        let first_use = session.device.is_some() && self.expected.is_none();
        if let Some(device) = &session.device {
            let remembered = self.home.trust().remember_server(&link.authority(), device, &name);
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
        session.began = cx.now();
        if self.transfer.in_place && session.machine.features() & features::DELTA == 0 {
            return Err(JobError::Unsupported {
                what: "to change files in place",
            });
        }
        match &self.job {
            Job::Status { .. } => session.machine.status_query(),
            #[cfg(feature = "sync")]
            Job::Sync { .. } => self.begin_sync(session)?,
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
                session.machine.begin(&begin);
            }
            Job::Pull { links, .. } => {
                let begin = Begin {
                    sources: pull_sources(links),
                    ..self.begin(Direction::Pull)
                };
                session.machine.begin(&begin);
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
            in_place,
            ..
        } = self.transfer;
        Begin {
            direction,
            flags: BeginFlags {
                dry_run,
                checksum,
                delete,
                in_place,
                sync: false,
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
    fn ready_for(&mut self, cx: &mut Context<'_>, session: &mut Session, kind: TargetKind) -> Result<(), JobError> {
        let filter = self.filter.clone();
        match &self.job {
            Job::Push { sources, target } => {
                let plan = Sources::open(sources)?.plan(target, kind)?;
                self.tell_mappings(plan.mappings);
                let missing = plan.missing;
                let checksum = self.transfer.checksum;
                let plan = SendingPlan {
                    trees: plan.trees,
                    filter,
                    checksum,
                    features: session.machine.features(),
                    deltas: Rc::clone(&self.deltas),
                    resumes: Rc::clone(&self.resumes),
                    top: plan.top,
                    missing: Vec::new(),
                    complete: missing.is_empty(),
                    selected: None,
                };
                for (path, code) in missing {
                    session.ledger.failed(&path, code);
                }
                session.transfer = Some(Transfer::Sending(Box::new(Sending::new(plan))));
                self.core.committer.register(cx.id());
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
                let common = session.machine.features();
                session.transfer = Some(self.receive(cx.id(), session.device, plan, common)?);
                self.core.committer.register(cx.id());
            }
            Job::Status { .. } => {}
            #[cfg(feature = "sync")]
            Job::Sync { .. } => {}
        }
        Ok(())
    }

    fn receive(
        &mut self,
        owner: ConnId,
        peer: Option<DeviceId>,
        plan: PullPlan,
        common: u64,
    ) -> Result<Transfer, JobError> {
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
        let mut place = plan.place;
        // What was pulled is remembered by this device, and leaves no trace beside it.
        place.deltas = Rc::clone(&self.deltas);
        place.resumes = Rc::clone(&self.resumes);
        if !self.transfer.dry_run {
            self.resumes.pass(|| Journal::open(&place.root));
            let recovered = place.recover();
            if recovered.is_something() {
                log::info!("the target of an earlier pull: {recovered}");
            }
        }
        let plan = ReceivingPlan {
            place: Rc::new(place),
            peer,
            agreement: plan.agreement,
            checksum: self.transfer.checksum,
            dry_run: self.transfer.dry_run,
            delta: common & features::DELTA != 0,
            in_place: self.transfer.in_place,
            resume: common & features::RESUME != 0,
            delete,
            top: None,
            based: Based::Anything,
        };
        Ok(Transfer::Receiving(Box::new(Receiving::new(owner, plan))))
    }

    fn tell_mappings(&mut self, mappings: Vec<Mapping>) {
        if self.earlier == Summary::default() {
            self.events.extend(mappings.into_iter().map(ClientEvent::Mapped));
        }
    }

    /// What follows a burst of input or a step.
    fn after(&mut self, cx: &mut Context<'_>, session: &mut Session, result: Result<Activity, Fault>) {
        if let Err(fault) = result {
            let authority = self.job.link().authority();
            let reason = fault.text.clone();
            let error = if self.connected_once {
                JobError::Protocol { authority, reason }
            } else {
                JobError::NotSyncline { authority, reason }
            };
            session.machine.close(&fault);
            return self.end(cx, session, Err(error));
        }
        self.core.committer.pump(cx);
        session.flush(cx);
        self.report(cx.now(), &mut session.ledger);
        session.wire_before = (cx.bytes_sent() + cx.outbound_bytes() as u64, cx.bytes_received());
        if let Some(Transfer::Receiving(receiving)) = &session.transfer
            && let Some(finish) = receiving.ended()
            && !self.is_sync()
        {
            let result = self.verdict(finish);
            self.end(cx, session, result);
        }
    }

    /// Whether more follows when a transfer is over.
    fn is_sync(&self) -> bool {
        #[cfg(feature = "sync")]
        return self.sync.is_some();
        #[cfg(not(feature = "sync"))]
        false
    }

    fn tell(&mut self, mut events: Vec<ClientEvent>) {
        #[cfg(feature = "sync")]
        self.sift(&mut events);
        self.events.append(&mut events);
    }

    fn report(&mut self, now: Tick, ledger: &mut Ledger) {
        #[cfg(feature = "sync")]
        self.tell_deeds(ledger);
        self.tell(ledger.take_events());
        if now.since(self.reported) >= PROGRESS_MS {
            self.reported = now;
            self.events.push(ClientEvent::Progress(ledger.progress.clone()));
        }
    }

    /// Ends the session in order; the outcome is reported when the connection is gone.
    pub(super) fn end(&mut self, cx: &mut Context<'_>, session: &mut Session, result: Result<(), JobError>) {
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
        session.wire_before = (cx.bytes_sent() + cx.outbound_bytes() as u64, cx.bytes_received());
    }
}

/// What a client needs to do on the share.
#[cfg(feature = "sync")]
fn rights_of(mode: crate::sync::Mode) -> Rights {
    match mode {
        crate::sync::Mode::ReceiveOnly => Rights::READ,
        _ => Rights::READ_WRITE,
    }
}
