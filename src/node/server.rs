//! The server: listeners, shares, who is let in, and the transfers that clients begin.
//!
//! A library value: a host polls it from its own loop, or lets [`Server::poll`] wait.

use super::bandwidth::Rates;
use super::begin::stopping;
use super::budget::Pressure;
use super::device_places::DevicePlaces;
use super::events::ServerEvent;
use super::guest::{Guest, Web};
use super::metrics::exposition;
use super::options::{ServerOptions, ShareOptions};
use super::peer::Peer;
use super::place::{Opening, Place};
use super::server_node::{
    DRAIN_TIMER, Draining, EXPIRE_INTERVAL_MS, EXPIRE_TIMER, REVOKE_INTERVAL_MS, REVOKE_TIMER, ServerNode, Share,
};
use super::status::Totals;
use super::tidying::{TIDY_TIMER, Tidier};
use super::turns::Load;
use crate::model::limits::DRAIN_TIMEOUT_MS;
use crate::model::{DeviceId, Rights, ShareName, system_reason};
use crate::reactor::{Counters, Reactor, ReactorOptions, Security};
use crate::store::{Home, LockError, Root, RunFile, RunningServer, StateError, inspect};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Serves folders to clients, on the thread that polls it.
pub struct Server {
    reactor: Reactor<Guest>,
    node: ServerNode,
    addresses: Vec<SocketAddr>,
    metrics: Option<SocketAddr>,
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
    /// One folder was named twice, under different names or by different ways.
    #[error("{} is the same folder as the share \"{share}\"", path.display())]
    SameFolder {
        /// The folder as it was named the second time.
        path: PathBuf,
        /// What it is served as already.
        share: ShareName,
    },
    /// Devices are to be kept apart, and anyone may come in without being one.
    #[error("devices cannot be kept apart where anyone may come in without pairing")]
    NobodyToTellApart,
    /// A limit of bandwidth names a share that is not served.
    #[error("a bandwidth limit is set for \"{0}\", and no share of that name is served")]
    NoSuchShare(ShareName),
    /// A folder is synced with a share of another server: what it keeps of that would be taken for its index.
    #[error("{} is synced with {link}, so it cannot be served", path.display())]
    Synced {
        /// The folder.
        path: PathBuf,
        /// `HOST:PORT/SHARE`, as far as it can be read.
        link: String,
    },
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
    #[error("cannot listen on {address}: {}", system_reason(source))]
    Listen {
        /// The address.
        address: SocketAddr,
        /// From the system.
        source: io::Error,
    },
    /// The address for metrics cannot be listened on.
    #[error("cannot answer metrics on {address}: {}", system_reason(source))]
    Metrics {
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
        check_apart(options)?;
        let shares = open_shares(options)?;
        check_limits(options)?;
        let (security, own) = security(options, &home)?;
        let broken = |error: io::Error| ServerError::State {
            reason: system_reason(&error),
        };
        let mut reactor = Reactor::new(&reactor_options(options)).map_err(broken)?;
        let mut addresses = Vec::new();
        for &address in &options.listen {
            let listened = reactor.listen(address, security.clone());
            addresses.push(listened.map_err(|source| ServerError::Listen { address, source })?.1);
        }
        let (web, metrics) = listen_for_metrics(&mut reactor, options.metrics)?;
        let running = running(options, &addresses, own);
        let run_file = home.announce(&running).map_err(state)?;
        let rates = Rates::begin(&options.bandwidth, reactor.shared());
        let mut tidier = options
            .keep_versions
            .map(|retention| Tidier::new(retention, shares.iter().map(|share| &share.place)));
        let device_places = device_places(options, &shares, tidier.as_mut())?;
        let node = ServerNode::new(options, home, own, (shares, device_places, tidier), (rates, web));
        let now = reactor.shared().now();
        if let Some(first) = node.tidier.as_ref().and_then(|tidier| tidier.first(now)) {
            reactor.shared().set_timer(TIDY_TIMER, first);
        }
        reactor.shared().set_timer(REVOKE_TIMER, now + REVOKE_INTERVAL_MS);
        reactor.shared().set_timer(EXPIRE_TIMER, now + EXPIRE_INTERVAL_MS);
        Ok(Server {
            reactor,
            node,
            addresses,
            metrics,
            _run_file: run_file,
        })
    }

    /// Where it listens, with the ports that were picked.
    #[must_use]
    pub fn listen_addrs(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Where it answers `/metrics` and `/healthz`, with the port that was picked.
    #[must_use]
    pub fn metrics_addr(&self) -> Option<SocketAddr> {
        self.metrics
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

    /// Connections that are open, authenticated or not. Those that ask for metrics do not count.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.reactor.connections() - self.node.web.connections()
    }

    /// What it has to do, and what that takes of memory.
    #[must_use]
    pub fn load(&self) -> Load {
        self.node.load()
    }

    /// What its loop has done, for metrics.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.reactor.counters()
    }

    /// All figures of the server as of the last poll, in the text format of Prometheus: for a host that has an
    /// HTTP server of its own. The same as at [`Server::metrics_addr`].
    #[must_use]
    pub fn metrics_text(&self) -> String {
        exposition(&self.node.snapshot())
    }

    /// Does what is to do, waiting for it up to `timeout` (`None`: until something happens).
    ///
    /// # Errors
    /// When the system's poll fails; the server is of no use then.
    pub fn poll(&mut self, timeout: Option<Duration>) -> io::Result<Vec<ServerEvent>> {
        if self.node.draining == Draining::Asked {
            self.begin_draining();
        }
        if self.node.turns.budget.pressure() == Pressure::Over {
            self.reactor.pause_accepting();
        } else {
            self.reactor.resume_accepting();
        }
        self.node.counters = self.reactor.counters();
        self.node.connections = self.connections();
        self.reactor.turn(timeout, &mut self.node)?;
        for (_, place) in self.node.places() {
            place.write_log();
            place.root.forget_parents();
            if let Some(versions) = &place.versions {
                versions.forget_parents();
            }
            // No transfer holds the place: nothing of ours has to stay in the folder.
            if Rc::strong_count(place) == 1 {
                place.staging.retire();
            }
        }
        self.close_unused_places();
        #[cfg(feature = "sync")]
        self.observe_shares()?;
        if std::mem::take(&mut self.node.recheck) {
            for id in self.reactor.connection_ids() {
                self.reactor.shared().wake(id);
            }
        }
        if std::mem::take(&mut self.node.cut) {
            self.cut_all();
        }
        let quiet = self.connections() == 0 && self.node.core.committer.is_idle();
        if matches!(self.node.draining, Draining::Until(_)) && quiet {
            self.node.draining = Draining::Over;
            // Until here it told why nobody should come.
            self.reactor.close_listeners();
            self.abort(|_| true);
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

    /// Has the loop wait for what changes in the folders that are kept in sync.
    #[cfg(feature = "sync")]
    fn observe_shares(&mut self) -> io::Result<()> {
        for (key, place) in self.node.places() {
            let mut sequencer = place.sequencer.borrow_mut();
            let Some(sequencer) = sequencer.as_mut() else { continue };
            let Some(descriptor) = sequencer.take_unobserved() else {
                continue;
            };
            match self.reactor.watch(key, descriptor) {
                Ok(()) => self.reactor.shared().wake_foreign(key),
                Err(error) if key >= self.node.shares.len() as u64 => {
                    log::warn!("{} is not watched: {error}", place.root.path().display());
                    sequencer.go_unwatched();
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Lets go of the places of devices that nobody is in any more.
    fn close_unused_places(&mut self) {
        if !std::mem::take(&mut self.node.closes_unused) {
            return;
        }
        // Their watches first, while the descriptors are open.
        let Some(places) = &mut self.node.device_places else {
            return;
        };
        for closed in places.close_unused() {
            self.reactor.unwatch(closed.key());
            if let (Some(tidier), true) = (&mut self.node.tidier, closed.kept_versions()) {
                tidier.came_in(&self.node.shares[closed.share()].place, closed.name());
            }
        }
    }

    fn begin_draining(&mut self) {
        (0..self.addresses.len()).for_each(|listener| self.reactor.close_listener(listener));
        let until = self.reactor.shared().now() + DRAIN_TIMEOUT_MS;
        self.reactor.shared().set_timer(DRAIN_TIMER, until);
        self.node.draining = Draining::Until(until);
        for id in self.reactor.connection_ids() {
            self.reactor.with(id, |cx, guest| {
                let ends = |peer: &Peer| !peer.session.machine.is_transferring() || peer.session.waiting.is_some();
                if let Some(peer) = guest.peer().filter(|peer| ends(peer)) {
                    peer.session.close(cx, &stopping());
                }
            });
        }
    }

    fn cut_all(&mut self) {
        self.abort(|guest| guest.peer().is_some());
    }

    fn abort(&mut self, which: impl Fn(&mut Guest) -> bool) {
        for id in self.reactor.connection_ids() {
            self.reactor.with(id, |cx, guest| {
                if which(guest) {
                    cx.abort();
                }
            });
        }
    }
}

impl Drop for Server {
    /// What is known of a share's changes is written down.
    fn drop(&mut self) {
        #[cfg(feature = "sync")]
        self.node.testify(true);
    }
}

impl AsFd for Server {
    /// Readable when there is something to do: for a host's own poll loop.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.reactor.as_fd()
    }
}

fn reactor_options(options: &ServerOptions) -> ReactorOptions {
    ReactorOptions {
        connections_max: options.connections_max,
        handle_signals: options.handle_signals,
        handshake_timeout_ms: options.deadlines.handshake_ms,
        ..ReactorOptions::default()
    }
}

fn listen_for_metrics(
    reactor: &mut Reactor<Guest>,
    address: Option<SocketAddr>,
) -> Result<(Web, Option<SocketAddr>), ServerError> {
    let Some(address) = address else {
        return Ok((Web::default(), None));
    };
    let listened = reactor.listen(address, Security::Plain);
    let (index, bound) = listened.map_err(|source| ServerError::Metrics { address, source })?;
    // Whoever wants to know why nobody is let in has to be let in.
    reactor.accept_always(index);
    Ok((Web::listening(index, bound), Some(bound)))
}

/// What commands are told of it.
fn running(options: &ServerOptions, addresses: &[SocketAddr], own: Option<DeviceId>) -> RunningServer {
    let shares = options.shares.iter();
    RunningServer {
        pid: std::process::id(),
        listen: addresses.to_vec(),
        plain: options.plain,
        device: own,
        shares: shares
            .map(|share| (share.name.clone(), absolute(&share.path)))
            .collect(),
    }
}

/// Whoever has a place of their own has to say who they are.
fn check_apart(options: &ServerOptions) -> Result<(), ServerError> {
    let is_open = options.plain || options.shares.iter().any(|share| share.open != Rights::NONE);
    if options.per_device && is_open {
        return Err(ServerError::NobodyToTellApart);
    }
    Ok(())
}

/// The places of devices, if these are kept apart.
fn device_places(
    options: &ServerOptions,
    shares: &[Share],
    mut tidier: Option<&mut Tidier>,
) -> Result<Option<DevicePlaces>, ServerError> {
    if !options.per_device {
        return Ok(None);
    }
    let mut places = DevicePlaces::new(opening(options), shares.len());
    for (index, share) in shares.iter().enumerate() {
        let found = places.discover(index, &share.place.root);
        let found = found.map_err(|error| ServerError::Share {
            path: share.place.root.path().to_owned(),
            reason: error.reason(),
        })?;
        for name in found {
            if let Some(tidier) = &mut tidier {
                tidier.came_in(&share.place, &name);
            }
        }
    }
    Ok(Some(places))
}

/// A limit for a share that is not there is a slip, and would limit nothing.
fn check_limits(options: &ServerOptions) -> Result<(), ServerError> {
    let is_served = |name: &ShareName| options.shares.iter().any(|share| share.name == *name);
    let mut limited = options.bandwidth.shares.iter().map(|(name, _)| name);
    match limited.find(|name| !is_served(name)) {
        Some(name) => Err(ServerError::NoSuchShare(name.clone())),
        None => Ok(()),
    }
}

/// Commands that read it have another working directory.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
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
        if let Some(twin) = shares.iter().find(|share| is_root_of(share, &wanted.path)) {
            return Err(ServerError::SameFolder {
                path: wanted.path.clone(),
                share: twin.name.clone(),
            });
        }
        shares.push(open_share(wanted, options)?);
    }
    Ok(shares)
}

/// Whether `path` leads to the folder that is served as `share`; its lock is then held by ourselves.
fn is_root_of(share: &Share, path: &Path) -> bool {
    let (found, own) = (inspect(path), share.place.root.own());
    matches!((found, own), (Ok(found), Ok(own)) if found.identity.same_inode(&own.identity))
}

#[cfg(feature = "sync")]
fn check_unlinked(root: &Root, path: &Path) -> Result<(), ServerError> {
    let found = crate::store::folder_link(root).map_err(|error| ServerError::Share {
        path: path.to_owned(),
        reason: error.reason(),
    })?;
    let Some(link) = found else { return Ok(()) };
    let shown = link.parse::<crate::model::Link>().map_or_else(
        |_| crate::model::escape(link.as_bytes()),
        |link| format!("{}/{}", link.authority(), link.share),
    );
    Err(ServerError::Synced {
        path: path.to_owned(),
        link: shown,
    })
}

/// How the places of a server are opened.
fn opening(options: &ServerOptions) -> Opening {
    Opening {
        durability: options.durability,
        keeps_versions: options.keep_versions.is_some(),
    }
}

fn open_share(wanted: &ShareOptions, options: &ServerOptions) -> Result<Share, ServerError> {
    let path = &wanted.path;
    let broken = |reason: String| ServerError::Share {
        path: path.clone(),
        reason,
    };
    let root = Root::open(path).map_err(|error| broken(error.reason()))?;
    #[cfg(feature = "sync")]
    check_unlinked(&root, path)?;
    let opened = Place::open(root, opening(options)).map_err(|error| match error {
        LockError::Held { holder } => ServerError::Locked {
            path: path.clone(),
            holder,
        },
        error => broken(error.to_string()),
    })?;
    let mut read_only = None;
    if opened.lock.is_none() {
        log::warn!("{} cannot be written to: it is served for reading only", path.display());
        read_only = Some("this share is read-only on its server");
    }
    if let Some(error) = &opened.damage {
        let path = path.display();
        log::error!(
            "{path} is served for reading only: {error}; stop the server and run: syncline doctor --repair {path}"
        );
        read_only = Some("this share is read-only until its server has repaired its journal");
    }
    Ok(Share {
        name: wanted.name.clone(),
        place: Rc::new(opened.place),
        open: wanted.open,
        read_only,
        is_damaged: opened.damage.is_some(),
        totals: Totals::default(),
        _lock: opened.lock,
    })
}

#[cfg(feature = "tls")]
fn security(options: &ServerOptions, home: &Home) -> Result<(Security, Option<DeviceId>), ServerError> {
    if options.plain {
        return Ok((Security::Plain, None));
    }
    let identity = super::identity::load(home).map_err(|reason| ServerError::State { reason })?;
    let own = identity.device();
    Ok((Security::Tls(identity), Some(own)))
}

#[cfg(not(feature = "tls"))]
fn security(options: &ServerOptions, _home: &Home) -> Result<(Security, Option<DeviceId>), ServerError> {
    if options.plain {
        return Ok((Security::Plain, None));
    }
    Err(ServerError::State {
        reason: "this build has no TLS; only --plain works".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Rights;

    // Protects commands that are given a folder: they run in another directory than the server.
    #[test]
    fn a_folder_served_by_a_relative_path_is_announced_by_an_absolute_one() {
        let dir = tempfile::tempdir().unwrap();
        let up = std::env::current_dir().unwrap();
        let up: PathBuf = up.components().skip(1).map(|_| "..").collect();
        let share = ShareOptions {
            name: ShareName::parse("Share").unwrap(),
            path: up.join(dir.path().strip_prefix("/").unwrap()),
            open: Rights::READ,
        };
        assert!(share.path.is_relative());
        let home = tempfile::tempdir().unwrap();
        let options = ServerOptions {
            listen: vec!["127.0.0.1:0".parse().unwrap()],
            plain: true,
            ..ServerOptions::new(home.path().to_owned(), vec![share])
        };
        let _server = Server::bind(&options).unwrap();
        let running = Home::open(home.path()).unwrap().running();
        let (_, path) = &running[0].shares[0];
        assert!(path.is_absolute());
        assert_eq!(path.canonicalize().unwrap(), dir.path().canonicalize().unwrap());
    }
}
