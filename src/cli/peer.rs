//! `syncline peer DIR --with HOST`: two devices keep a folder the same between them, the same command on both.
//! Never decides what goes where, and lets nobody in that was not compared or accepted.
//!
//! 1. A folder that has a part keeps it: the device that listened listens, the other one connects.
//! 2. Else the two find each other ([`super::meeting`]), and the one that is asked for changes first has the share.
//! 3. The part is noted once both have it, so that an attempt that led to nothing decides nothing.

use super::address;
use super::complaint::{Complaint, reason};
use super::exit::Exit;
use super::meeting::{Meeting, Met};
use super::push::show;
use super::quantity::{self, KeepVersions};
use super::repeating::Interrupts;
use super::report::plain;
use super::serve::{self, DurabilityFlag};
use super::session::{Ending, Session};
use super::sync::{self, Following, Served};
use clap::{Args, ValueEnum};
use serde_json::json;
use std::cell::Cell;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use syncline::model::{DeviceId, Link, LinkSecret, Rights, ShareName, Timetable};
use syncline::node::{
    Bandwidth, ClientOptions, JobError, MaxDelete, PeerPart, Server, ServerEvent, ServerOptions, ShareOptions, Summary,
    SyncOptions, note_peer, pair_share, peer_part,
};
use syncline::store::Home;
use syncline::sync::Mode;

/// The flags and operands of `peer`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  syncline peer ~/Docs --with laptop.local     on the desktop
  syncline peer ~/Docs --with desktop.local    on the laptop; the folders may be in different places

Whoever finds the other one listening connects to it, the other one listens: which is which does not matter, and
stays as it is. The first time, both show the same words and ask whether they are the same; only then anything
travels. With --yes nobody is asked, and whoever is at HOST first is taken for the other device.

It goes on until it is ended, and waits while the other device is away. Conflicts, deletions and versions are as
with `syncline sync`; `syncline diff`, `status`, `versions` and `restore` take the folder, too.")]
pub(crate) struct Flags {
    /// The folder
    dir: PathBuf,
    /// Where the other device is; the port is the one that it listens on
    #[arg(long, value_name = "HOST[:PORT]")]
    with: String,
    /// Where this device listens when it does
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "0.0.0.0:7171")]
    listen: String,
    /// What becomes of a file that was changed on both sides
    #[arg(long, value_name = "MODE", default_value = "two-way-safe")]
    mode: PeerMode,
    /// One round: end when both are the same; for both devices, since a listening one ends when the other has left
    #[arg(long)]
    once: bool,
    /// Not at once, but again and again, so often; the device that connects decides
    #[arg(long, value_name = "TIME", value_parser = quantity::parse_duration, conflicts_with = "once")]
    interval: Option<Duration>,
    /// Refuse to delete more than this on either side: a number, a percentage, or unlimited [default: half, if over 25]
    #[arg(long, value_name = "N|N%", value_parser = quantity::parse_max_delete)]
    max_delete: Option<MaxDelete>,
    /// When a file counts as synced: barrier is when it is safely on disk, none leaves that to the system
    #[arg(long, value_name = "WHEN", default_value = "barrier")]
    durability: DurabilityFlag,
    /// Keep what is replaced and deleted so long, and at most so much of it, where this device listens: 30d, 10%,
    /// 30d,10%, forever or off
    #[arg(long, value_name = "AGE,SIZE", default_value = "30d,10%", value_parser = quantity::parse_keep_versions)]
    keep_versions: KeepVersions,
    /// Bytes a second at most: 512k, 5M, or over the day as '08:00,512k 18:00,off'
    #[arg(long, value_name = "RATE|TIMES", value_parser = super::bandwidth::parse_timetable)]
    bwlimit: Option<Timetable>,
    /// Give up on a connection that is silent for this long
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = quantity::parse_duration)]
    timeout: Duration,
    /// Ask nobody: take whoever is at HOST the first time for the other device
    #[arg(long)]
    yes: bool,
}

/// The modes of two equals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum PeerMode {
    /// It is kept twice
    TwoWaySafe,
    /// That of the device that listens stays, the other goes to the versions
    TwoWayResolved,
}

/// What a run of the command works with.
pub(super) struct Peering<'a> {
    pub(super) session: &'a Session,
    pub(super) home: Home,
    /// This device.
    pub(super) own: DeviceId,
    pub(super) dir: &'a Path,
    /// Where the other one is; the share is made up.
    host: Link,
    listen: SocketAddr,
    pub(super) yes: bool,
    pub(super) interrupts: Interrupts,
    flags: &'a Flags,
}

/// What two peers wait for each other before they look who is there anew.
const AGAIN: Duration = Duration::from_millis(500);
/// How long the loop waits at a time; a signal ends it earlier.
const TURN: Duration = Duration::from_millis(500);

/// Runs the command.
pub(crate) fn run(session: &Session, flags: &Flags) -> Result<Ending, Complaint> {
    let peering = Peering::new(session, flags)?;
    loop {
        let part = peer_part(&flags.dir).map_err(occupied)?;
        let met = match part {
            PeerPart::Connects(other) => return peering.connect(other, true).0,
            PeerPart::Listens(Some(other)) => {
                let server = peering.bind(&pair_share(&peering.own, &other), peering.listen)?;
                return peering.serve(server, other, Vec::new());
            }
            PeerPart::Listens(None) | PeerPart::Undecided => Meeting::new(&peering, part)?.run()?,
        };
        match met {
            Met::Listens { server, other, events } => {
                note_peer(&flags.dir, PeerPart::Listens(Some(other)))?;
                return peering.serve(*server, other, events);
            }
            Met::Connects(other) => match peering.connect(other, false) {
                // It was there a moment ago: both look again who is there.
                (Err(complaint), false) if complaint.exit == Exit::Temporary => {
                    log::info!("{}", complaint.what);
                    peering.wait(AGAIN)?;
                }
                (ending, _) => return ending,
            },
        }
    }
}

impl<'a> Peering<'a> {
    fn new(session: &'a Session, flags: &'a Flags) -> Result<Peering<'a>, Complaint> {
        if !cfg!(feature = "tls") {
            let what = "this syncline was built without TLS, so two devices cannot tell who the other is";
            return Err(Complaint::usage(what, "use one that was built with it"));
        }
        let host = parse_host(&flags.with)?;
        let listen = address::parse_listen(&flags.listen)?;
        sync::check_place(&flags.dir, Served::Fine)?;
        std::fs::create_dir_all(&flags.dir).map_err(|error| {
            let what = format!(
                "cannot use the folder {}: {}",
                show(flags.dir.as_os_str()),
                reason(&error)
            );
            let advice = "check the name, and that you may write there";
            Complaint::new(Exit::TargetMissing, what, advice)
        })?;
        let home = session.home()?;
        Ok(Peering {
            session,
            own: own(&home)?,
            home,
            dir: &flags.dir,
            host,
            listen,
            yes: flags.yes,
            interrupts: sync::watch_signals()?,
            flags,
        })
    }

    /// `HOST:PORT` of the other device.
    pub(super) fn authority(&self) -> String {
        self.host.authority()
    }

    /// The host that was named.
    pub(super) fn host(&self) -> (&str, u16) {
        (&self.host.host, self.host.port)
    }

    /// The address to listen on.
    pub(super) fn listen(&self) -> SocketAddr {
        self.listen
    }

    /// A link to a share of the other device, which has to be `other`, if that is known.
    pub(super) fn link(&self, share: &ShareName, other: Option<DeviceId>) -> Link {
        Link {
            share: share.clone(),
            secret: other.map(|server| LinkSecret { server, invite: None }),
            ..self.host.clone()
        }
    }

    /// How it connects.
    pub(super) fn client_options(&self) -> ClientOptions {
        ClientOptions {
            bandwidth: self.flags.bwlimit.clone().unwrap_or_default(),
            timeout: self.flags.timeout,
            ..ClientOptions::new(self.home.path().to_owned())
        }
    }

    /// Serves the folder under this name, which only those find who may.
    pub(super) fn bind(&self, share: &ShareName, listen: SocketAddr) -> Result<Server, Complaint> {
        let share = ShareOptions {
            name: share.clone(),
            path: self.dir.to_owned(),
            open: Rights::NONE,
        };
        let options = ServerOptions {
            listen: vec![listen],
            durability: self.flags.durability.into(),
            keep_versions: self.flags.keep_versions.0,
            bandwidth: Bandwidth {
                global: self.flags.bwlimit.clone().unwrap_or_default(),
                ..Bandwidth::default()
            },
            ..ServerOptions::new(self.home.path().to_owned(), vec![share])
        };
        Ok(Server::bind(&options)?)
    }

    /// Waits; an interrupt ends the command.
    pub(super) fn wait(&self, time: Duration) -> Result<(), Complaint> {
        sync::wait(time, &self.interrupts)
    }

    /// Ends the command if a signal came.
    pub(super) fn check_interrupted(&self) -> Result<(), Complaint> {
        match self.interrupts.seen() {
            Some(signal) => Err(JobError::Interrupted { signal: Some(signal) }.into()),
            None => Ok(()),
        }
    }

    /// Follows the folder of the other device. Whether it ever let this one in comes with the ending.
    fn connect(&self, other: DeviceId, is_settled: bool) -> (Result<Ending, Complaint>, bool) {
        let was_let_in = Cell::new(is_settled);
        let connected = || {
            if !was_let_in.replace(true)
                && let Err(error) = note_peer(self.dir, PeerPart::Connects(other))
            {
                log::warn!("{error}");
            }
        };
        let flags = self.flags;
        let following = Following {
            folder: self.dir,
            network: ClientOptions {
                handle_signals: true,
                ..self.client_options()
            },
            link: self.link(&pair_share(&self.own, &other), Some(other)),
            peer: plain(&self.authority()),
            options: SyncOptions {
                mode: match flags.mode {
                    PeerMode::TwoWaySafe => Mode::TwoWaySafe,
                    PeerMode::TwoWayResolved => Mode::TwoWayResolved,
                },
                max_delete: flags.max_delete.unwrap_or_default(),
                watch: !flags.once && flags.interval.is_none(),
                dry_run: false,
                durability: flags.durability.into(),
            },
            is_settled,
            interval: flags.interval,
            connected: &connected,
        };
        self.session
            .console
            .object(&json!({"event": "status", "state": "connects", "device": other.to_string()}));
        let ending = sync::follow(self.session, following);
        (ending, was_let_in.get())
    }

    /// Has the share that the other device follows, until it is ended.
    fn serve(&self, mut server: Server, other: DeviceId, events: Vec<ServerEvent>) -> Result<Ending, Complaint> {
        let console = &self.session.console;
        let listen = server.listen_addrs()[0];
        console.note(&format!(
            "Keeping {} the same as with {}, which connects to {listen} here",
            plain(&self.dir.to_string_lossy()),
            plain(&self.authority())
        ));
        console.object(&json!({
            "event": "status", "state": "listens", "listen": listen.to_string(), "device": other.to_string(),
        }));
        let folder = folder_name(self.dir);
        let mut totals = Summary::default();
        let mut events = events;
        let mut stopping = None;
        loop {
            for mut event in std::mem::take(&mut events) {
                if let (ServerEvent::Transferred { share, .. }, Some(folder)) = (&mut event, &folder) {
                    *share = folder.clone();
                }
                match &event {
                    ServerEvent::Drained => {
                        console.end_live();
                        return match stopping {
                            Some(signal) => Err(JobError::Interrupted { signal: Some(signal) }.into()),
                            None => Ok(Ending {
                                exit: Exit::Done,
                                summary: totals,
                            }),
                        };
                    }
                    ServerEvent::Transferred { summary, .. } => serve::add(&mut totals, summary),
                    ServerEvent::SyncBegun { device, .. } if *device == Some(other) => {
                        console.live(
                            "the other device is here",
                            &json!({"event": "status", "state": "syncing"}),
                        );
                    }
                    ServerEvent::SyncEnded { device, .. } if *device == Some(other) => {
                        console.live("both are the same", &json!({"event": "status", "state": "in_sync"}));
                        if self.flags.once {
                            server.drain();
                        }
                    }
                    _ => {}
                }
                if let Some((line, object)) = serve::tell(&event) {
                    console.live(&line, &object);
                }
            }
            if let (Some(signal), None) = (self.interrupts.seen(), stopping) {
                stopping = Some(signal);
                server.drain();
            }
            events = server
                .poll(Some(TURN))
                .map_err(|error| Complaint::io("wait for connections", &error))?;
        }
    }
}

#[cfg(feature = "tls")]
fn own(home: &Home) -> Result<DeviceId, Complaint> {
    syncline::node::own_device(home).map_err(|reason| JobError::State { reason }.into())
}

#[cfg(not(feature = "tls"))]
fn own(_: &Home) -> Result<DeviceId, Complaint> {
    let reason = "this build has no TLS".to_owned();
    Err(JobError::State { reason }.into())
}

/// What a user calls the folder, as the name of a share, which its own one is made of digits.
fn folder_name(dir: &Path) -> Option<ShareName> {
    let full = dir.canonicalize().ok()?;
    ShareName::parse(full.file_name()?.to_str()?).ok()
}

fn parse_host(text: &str) -> Result<Link, Complaint> {
    let wrong = || {
        let what = format!("{} is not where a device can be", show(text.as_ref()));
        Complaint::usage(
            what,
            "like this: --with laptop.local, --with 192.168.1.20:7171 or --with [fe80::1]:7171",
        )
    };
    if text.contains(['/', '#', '?']) {
        return Err(wrong());
    }
    format!("syncline://{text}/peer").parse().map_err(|_| wrong())
}

/// A folder that is not free for this.
fn occupied(error: syncline::node::FolderError) -> Complaint {
    match &error {
        syncline::node::FolderError::Linked { .. } => Complaint::usage(
            plain(&error.to_string()),
            "choose another folder, or have this one forget that share first: syncline unlink DIR",
        ),
        _ => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Protects a slip of the keyboard: what is no host is said to be none, before anything is made.
    #[test]
    fn a_host_has_a_port_if_one_is_named() {
        for (text, authority) in [
            ("laptop", "laptop:7171"),
            ("192.0.2.7:80", "192.0.2.7:80"),
            ("[::1]:9", "[::1]:9"),
        ] {
            assert_eq!(parse_host(text).unwrap().authority(), authority);
        }
        for text in [
            "",
            "a b",
            "laptop:0",
            "laptop:x",
            "laptop/x",
            "syncline://laptop/x",
            "a#b",
        ] {
            assert_eq!(parse_host(text).unwrap_err().exit, Exit::Usage, "{text}");
        }
    }
}
