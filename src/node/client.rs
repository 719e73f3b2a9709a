//! The client: one job against one server, with reconnects, until it is finished.
//!
//! A library value: a host polls it from its own loop, or lets [`Client::poll`] wait.
//! Invariant: exactly one [`ClientEvent::Finished`] is reported, as the last event.

use super::bandwidth::Rates;
use super::client_node::{ClientNode, Phase, RETRY_TIMER};
use super::deltas::Deltas;
use super::events::{ClientEvent, JobError, Summary};
use super::ledger::Audience;
use super::local::{Sources, pull_names, refuse_duplicates};
use super::options::{Bandwidth, ClientOptions, FilterRule, Job, TransferOptions};
use super::peer::{Core, Peer};
use super::resumes::Resumes;
use super::retrying::Retrying;
use crate::conn::Machine;
use crate::model::{DeviceId, Link, Tick, system_reason};
use crate::reactor::{ClientSecurity, Reactor, ReactorOptions};
use crate::store::Journal;
use crate::store::{Filter, Home, Rule};
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

impl Client {
    /// Checks the job, finds the server's address, and gets ready to connect at the first poll.
    ///
    /// # Errors
    /// A [`JobError`] for what can be known without the server: sources, state directory, host name.
    pub fn start(options: ClientOptions, job: Job, transfer: TransferOptions) -> Result<Client, JobError> {
        #[cfg(feature = "sync")]
        let (job, sync) = open_folder(job, &options)?;
        let home = Home::open(&options.home).map_err(|error| JobError::State {
            reason: error.to_string(),
        })?;
        if let Job::Push { sources, .. } = &job {
            Sources::open(sources)?;
        }
        if let Job::Pull { links, .. } = &job {
            refuse_duplicates(pull_names(links))?;
        }
        let filter = filter_of(&transfer.filters)?;
        let link = job.link().clone();
        let expected = expected_server(&home, &link)?;
        let addresses = resolve(&link)?;
        let security = security(&options, &home, expected)?;
        let mut reactor = reactor(&options)?;
        let bandwidth = Bandwidth {
            global: options.bandwidth.clone(),
            ..Bandwidth::default()
        };
        let rates = Rates::begin(&bandwidth, reactor.shared());
        // Waiting for its time is no part of the run.
        let delay = options.delay;
        let started = Instant::now() + delay;
        let mut node = ClientNode {
            options,
            deltas: Rc::new(Deltas::in_home(&home)),
            resumes: resumes_of(&job, &transfer, &home),
            job,
            transfer,
            filter,
            home,
            security,
            addresses,
            address: 0,
            expected,
            answered: None,
            core: Core::new(),
            events: Vec::new(),
            phase: Phase::Connecting,
            retrying: Retrying::default(),
            connected_once: false,
            started,
            reported: Tick(0),
            earlier: Summary::default(),
            disk_full: false,
            farewell: None,
            come_back: None,
            stalled: None,
            rates,
            #[cfg(feature = "sync")]
            sync,
        };
        #[cfg(feature = "sync")]
        node.observe(&mut reactor)?;
        if !delay.is_zero() {
            let delay_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
            node.phase = Phase::Waiting;
            let shared = reactor.shared();
            shared.set_timer(RETRY_TIMER, shared.now() + delay_ms);
        }
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
            #[cfg(feature = "sync")]
            self.node.write_log();
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

    /// Who answered last and proved it, also when it let nobody in; `None` before, and without TLS.
    #[must_use]
    pub fn answered_by(&self) -> Option<DeviceId> {
        self.node.answered
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
            self.reactor
                .with(id, |cx, peer| node.end(cx, &mut peer.session, Err(error.clone())));
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
            return self
                .node
                .finish(Err(JobError::Connect { authority, reason }), Summary::default());
        };
        let peer = Peer::new(
            Machine::client_with(&self.node.home.device_name(), self.node.open(), self.node.offered()),
            Audience::User,
        );
        match self.reactor.connect(address, &self.node.security, peer) {
            Ok(id) => self.node.phase = Phase::Connected(id),
            Err(error) => {
                let authority = self.node.job.link().authority();
                let reason = system_reason(&error);
                self.node
                    .finish(Err(JobError::Connect { authority, reason }), Summary::default());
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
    pub(super) fn link(&self) -> &Link {
        match self {
            Job::Push { target, .. } => target,
            Job::Pull { links, .. } => &links[0],
            Job::Status { link } => link,
            #[cfg(feature = "sync")]
            Job::Sync { link, .. } => link.as_ref().expect("start has filled it in"),
        }
    }
}

fn reactor(options: &ClientOptions) -> Result<Reactor<Peer>, JobError> {
    let options = ReactorOptions {
        handle_signals: options.handle_signals,
        ..ReactorOptions::default()
    };
    Reactor::new(&options).map_err(|error| JobError::State {
        reason: format!("no event loop: {error}"),
    })
}

/// The folder of a sync, and the job with the link that it remembers.
#[cfg(feature = "sync")]
fn open_folder(job: Job, client: &ClientOptions) -> Result<(Job, Option<Box<super::syncing::Syncing>>), JobError> {
    let Job::Sync { folder, link, options } = job else {
        return Ok((job, None));
    };
    let home = Home::open(&client.home).map_err(|error| JobError::State {
        reason: error.to_string(),
    })?;
    let opened = super::syncing::Folder::open(&folder, link.as_ref(), options.clone(), &home.device_name())?;
    let job = Job::Sync {
        folder,
        link: Some(opened.link),
        options,
    };
    Ok((job, Some(Box::new(opened.syncing))))
}

/// The server that a link, or an earlier run, names.
fn expected_server(home: &Home, link: &Link) -> Result<Option<DeviceId>, JobError> {
    if let Some(secret) = &link.secret {
        return Ok(Some(secret.server));
    }
    let known = home.trust().known_server(&link.authority());
    known.map_err(|error| JobError::State {
        reason: error.to_string(),
    })
}

/// What is noted of pushes that broke off.
fn resumes_of(job: &Job, transfer: &TransferOptions, home: &Home) -> Rc<Resumes> {
    match job {
        #[cfg(feature = "sync")]
        Job::Sync { .. } => {
            let resumes = Resumes::of(Journal::open_home(home));
            resumes.expire_now();
            resumes
        }
        Job::Push { .. } if !transfer.dry_run => {
            let resumes = Resumes::of(Journal::open_home(home));
            resumes.expire_now();
            resumes
        }
        _ => Resumes::new(None),
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
        Err(error) => system_reason(&error),
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
fn security(options: &ClientOptions, home: &Home, expected: Option<DeviceId>) -> Result<ClientSecurity, JobError> {
    if options.plain {
        return Ok(ClientSecurity::Plain);
    }
    let identity = super::identity::load(home).map_err(|reason| JobError::State { reason })?;
    Ok(ClientSecurity::Tls { identity, expected })
}

#[cfg(not(feature = "tls"))]
fn security(options: &ClientOptions, _home: &Home, _expected: Option<DeviceId>) -> Result<ClientSecurity, JobError> {
    if options.plain {
        return Ok(ClientSecurity::Plain);
    }
    Err(JobError::State {
        reason: "this build has no TLS; only --plain works".to_owned(),
    })
}
