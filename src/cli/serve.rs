//! `syncline serve [DIR]…`: folders as shares, until a signal.
//! Never opens a port or a folder to everyone unless the user asked for it, beyond this machine twice.

use super::address;
use super::bandwidth::{self, Limit};
use super::capacity::{self, CapacityFlags};
use super::complaint::Complaint;
use super::exit::Exit;
use super::push::show;
use super::quantity::{self, KeepVersions};
use super::report::{self, plain};
use super::session::{Ending, Session};
use super::welcome::Ready;
use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use std::ffi::{OsStr, OsString};
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use syncline::model::{Rights, ShareName};
use syncline::node::{Deadlines, Durability, Server, ServerEvent, ServerOptions, ShareOptions, Summary};

/// The flags and operands of `serve`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  syncline serve                              this directory, under its own name
  syncline serve ~/Share /srv/films=Films     two shares, the second with a name of its own
  syncline serve --listen 127.0.0.1:0 --json  a free port, for scripts
  syncline serve --per-device ~/Backups       each device keeps what it pushes in a directory of its own
  syncline serve --open read --yes ~/Public   anyone who can reach this machine may fetch

The first link it prints lets one device in, within ten minutes; `syncline invite` makes more. Stop it
with Ctrl-C: transfers get a few seconds to finish, and go on later where they stopped.")]
pub(crate) struct Flags {
    /// Folders to serve; DIR=NAME gives a share its name [default: .]
    #[arg(value_name = "DIR")]
    folders: Vec<OsString>,
    /// The share's name, if there is one folder only
    #[arg(long)]
    name: Option<String>,
    /// Where to listen; may be repeated, port 0 picks a free one
    #[arg(
        long,
        value_name = "ADDRESS:PORT",
        default_value = "0.0.0.0:7171",
        value_delimiter = ','
    )]
    listen: Vec<String>,
    /// Let anyone in who can reach the address, without pairing; write includes read
    #[arg(long, value_name = "RIGHT")]
    open: Option<Open>,
    /// Give each paired device a place of its own in the share, named after it; it sees nothing else of the share
    ///
    /// For one-way clients that must not get into each other's way: each pushes to, fetches from and syncs with its
    /// own directory, which it takes for the whole share. The directory is made at first use, and stays the device's
    /// own when that is renamed. What --keep-versions says holds for each of them. Only the machine that serves sees
    /// the whole share.
    #[arg(long)]
    per_device: bool,
    /// Without TLS: nobody can prove who they are, so it needs --open
    #[arg(long)]
    plain: bool,
    /// Allow --open, --plain and --metrics beyond this machine
    #[arg(long)]
    yes: bool,
    /// When a push is acknowledged: barrier is when it is safely on disk, none leaves that to the system
    #[arg(long, value_name = "WHEN", default_value = "barrier")]
    durability: DurabilityFlag,
    /// Keep what pushes replace and delete so long, and at most so much of it: 30d, 10%, 20G, 30d,10%,
    /// forever or off
    #[arg(long, value_name = "AGE,SIZE", default_value = "30d,10%", value_parser = quantity::parse_keep_versions)]
    keep_versions: KeepVersions,
    /// Bytes a second in each direction: 512k, 5M, or over the day as '08:00,512k 18:00,off'
    ///
    /// For one share only it is written NAME=5M, for one device device:NAME=1M, where the device is named as
    /// in `syncline devices`. May be repeated; a connection keeps to all limits that concern it.
    #[arg(long, value_name = "[SCOPE=]RATE|TIMES", value_parser = Limit::parse)]
    bwlimit: Vec<Limit>,
    /// Cut a transfer whose other side is silent, or does not read, for this long
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = quantity::parse_duration)]
    timeout: Duration,
    /// Cut a connection without a transfer after this long
    #[arg(long, value_name = "TIME", default_value = "2m", value_parser = quantity::parse_duration)]
    idle_timeout: Duration,
    /// Answer /metrics (for Prometheus) and /healthz over HTTP there; without an address on this machine only,
    /// port 0 picks a free one
    #[arg(long, value_name = "ADDRESS:PORT")]
    metrics: Option<String>,
    #[command(flatten)]
    capacity: CapacityFlags,
}

/// What everyone may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Open {
    /// List and fetch
    Read,
    /// Also add, replace and delete
    Write,
}

/// When data counts as safe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum DurabilityFlag {
    /// When it is on disk
    Barrier,
    /// When the operating system has it
    None,
}

impl From<DurabilityFlag> for Durability {
    fn from(flag: DurabilityFlag) -> Durability {
        match flag {
            DurabilityFlag::Barrier => Durability::Barrier,
            DurabilityFlag::None => Durability::None,
        }
    }
}

/// How long the first invite holds.
pub(crate) const INVITE_VALID: Duration = Duration::from_secs(600);

/// Runs the command.
pub(crate) fn run(session: &Session, flags: &Flags) -> Result<Ending, Complaint> {
    let options = options(session, flags)?;
    let shares: Vec<_> = options
        .shares
        .iter()
        .map(|share| (share.name.clone(), share.path.clone()))
        .collect();
    capacity::allow_descriptors();
    let mut server = Server::bind(&options)?;
    let ready = Ready::new(session, flags.open, &server, shares)?;
    session.console.object(&ready.object());
    ready
        .lines(flags.open)
        .iter()
        .for_each(|line| session.console.data(line));
    let mut totals = Summary::default();
    loop {
        let events = server
            .poll(None)
            .map_err(|error| Complaint::io("wait for connections", &error))?;
        for event in events {
            if let ServerEvent::Drained = event {
                session.console.end_live();
                session.console.note("stopped");
                return Ok(Ending {
                    exit: Exit::Done,
                    summary: totals,
                });
            }
            if let ServerEvent::Transferred { summary, .. } = &event {
                add(&mut totals, summary);
            }
            if let Some((line, object)) = tell(&event) {
                session.console.live(&line, &object);
            }
        }
    }
}

fn options(session: &Session, flags: &Flags) -> Result<ServerOptions, Complaint> {
    let listen = flags
        .listen
        .iter()
        .map(|text| address::parse_listen(text))
        .collect::<Result<Vec<_>, _>>()?;
    check_exposure(flags, &listen)?;
    let open = match flags.open {
        None => Rights::NONE,
        Some(Open::Read) => Rights::READ,
        Some(Open::Write) => Rights::READ_WRITE,
    };
    let shares = shares(&flags.folders, flags.name.as_deref())?;
    let shares = shares
        .into_iter()
        .map(|(name, path)| ShareOptions { name, path, open })
        .collect();
    let home = session.home_path()?;
    let mut options = ServerOptions {
        listen,
        plain: flags.plain,
        per_device: flags.per_device,
        durability: flags.durability.into(),
        keep_versions: flags.keep_versions.0,
        bandwidth: bandwidth::of_server(&flags.bwlimit, || Ok(session.home()?.trust().devices()?))?,
        handle_signals: true,
        deadlines: Deadlines {
            stall_ms: milliseconds(flags.timeout),
            idle_ms: milliseconds(flags.idle_timeout),
            ..Deadlines::default()
        },
        metrics: metrics(flags)?,
        ..ServerOptions::new(home, shares)
    };
    flags.capacity.apply(session, &mut options)?;
    Ok(options)
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1)
}

fn check_exposure(flags: &Flags, listen: &[SocketAddr]) -> Result<(), Complaint> {
    if flags.per_device && flags.open.is_some() {
        let what = "--per-device tells devices apart by their keys, and with --open anyone may come in without one";
        let advice = "leave one of them out; `syncline invite` lets a device in without --open";
        return Err(Complaint::usage(what, advice));
    }
    if flags.plain && flags.open.is_none() {
        let what = "--plain cannot tell who connects, so nobody could be let in";
        return Err(Complaint::usage(
            what,
            "add --open read or --open write, or leave --plain out",
        ));
    }
    if !flags.plain && !cfg!(feature = "tls") {
        let advice = "use --plain with --open read or --open write";
        return Err(Complaint::usage("this syncline was built without TLS", advice));
    }
    let beyond = listen.iter().find(|address| !address.ip().is_loopback());
    if let (Some(address), Some(_), false) = (beyond, flags.open, flags.yes) {
        let unread = if flags.plain { ", unencrypted" } else { "" };
        let what = format!("--open on {address} lets anyone in who can reach this machine{unread}");
        return Err(Complaint::usage(
            what,
            "add --yes if you want that, or --listen 127.0.0.1:7171 for this machine only",
        ));
    }
    Ok(())
}

/// Where metrics are; beyond this machine only for who said so.
fn metrics(flags: &Flags) -> Result<Option<SocketAddr>, Complaint> {
    let Some(text) = &flags.metrics else {
        return Ok(None);
    };
    let address = address::parse_local(text)?;
    if !address.ip().is_loopback() && !flags.yes {
        return Err(Complaint::usage(
            format!("--metrics on {address} tells anyone who can reach this machine what it serves"),
            format!(
                "add --yes if you want that, or use --metrics 127.0.0.1:{}",
                address.port()
            ),
        ));
    }
    Ok(Some(address))
}

/// Names and folders of the shares, as written; the server checks that they exist and differ.
fn shares(folders: &[OsString], name: Option<&str>) -> Result<Vec<(ShareName, PathBuf)>, Complaint> {
    let here = [OsString::from(".")];
    let folders = if folders.is_empty() { &here[..] } else { folders };
    match (name, folders) {
        (None, _) => folders.iter().map(|operand| share(operand)).collect(),
        (Some(name), [folder]) => Ok(vec![(parse_name(name)?, PathBuf::from(folder))]),
        (Some(_), _) => Err(Complaint::usage(
            "--name fits one folder only",
            "write DIR=NAME for each",
        )),
    }
}

fn share(operand: &OsStr) -> Result<(ShareName, PathBuf), Complaint> {
    // A folder whose own name holds a = is meant as it is written.
    if let (false, Some((folder, name))) = (Path::new(operand).is_dir(), split_name(operand)) {
        let name = name
            .to_str()
            .ok_or_else(|| Complaint::usage("a share's name must be text", "write DIR=NAME"))?;
        return Ok((parse_name(name)?, PathBuf::from(folder)));
    }
    let path = PathBuf::from(operand);
    let missing = |error: std::io::Error| {
        let what = format!("cannot serve {}: {}", show(operand), super::complaint::reason(&error));
        Complaint::new(
            Exit::TargetMissing,
            what,
            "name a directory that exists: syncline serve DIR",
        )
    };
    let full = path.canonicalize().map_err(missing)?;
    if !full.is_dir() {
        return Err(missing(std::io::Error::from(std::io::ErrorKind::NotADirectory)));
    }
    let own = full
        .file_name()
        .and_then(OsStr::to_str)
        .and_then(|name| ShareName::parse(name).ok());
    let name = own.ok_or_else(|| {
        Complaint::usage(
            format!("{} cannot be a share's name as it is", show(operand)),
            "give it one: syncline serve DIR=NAME",
        )
    })?;
    Ok((name, path))
}

fn split_name(operand: &OsStr) -> Option<(&OsStr, &OsStr)> {
    let bytes = operand.as_bytes();
    let at = bytes.iter().rposition(|&byte| byte == b'=')?;
    (at > 0).then(|| (OsStr::from_bytes(&bytes[..at]), OsStr::from_bytes(&bytes[at + 1..])))
}

fn parse_name(text: &str) -> Result<ShareName, Complaint> {
    ShareName::parse(text).map_err(|error| {
        Complaint::usage(
            format!("{:?} cannot name a share: {error}", plain(text)),
            "write DIR=NAME with another name",
        )
    })
}

/// Adds the figures of one transfer to those of all.
pub(crate) fn add(totals: &mut Summary, one: &Summary) {
    totals.files += one.files;
    totals.files_transferred += one.files_transferred;
    totals.deleted += one.deleted;
    totals.bytes += one.bytes;
    totals.wire_sent += one.wire_sent;
    totals.wire_received += one.wire_received;
    totals.literal_bytes += one.literal_bytes;
    totals.matched_bytes += one.matched_bytes;
    totals.saved_bytes += one.saved_bytes;
    totals.unchanged_bytes += one.unchanged_bytes;
    totals.resumed_bytes += one.resumed_bytes;
    totals.failed += one.failed;
    totals.elapsed += one.elapsed;
}

/// What is said of an event; of some, nothing.
pub(crate) fn tell(event: &ServerEvent) -> Option<(String, Value)> {
    Some(match event {
        ServerEvent::SyncBegun { .. } | ServerEvent::SyncEnded { .. } => return None,
        ServerEvent::Paired {
            device,
            name,
            share,
            rights,
        } => {
            let name = plain(name);
            let line = format!("Paired with {name} ({}): {rights} on \"{share}\"", device.short());
            let object = json!({
                "event": "status", "state": "paired", "device": device.to_string(), "name": name,
                "share": share.as_str(), "rights": rights.to_string(),
            });
            (line, object)
        }
        ServerEvent::Transferred {
            peer,
            device,
            share,
            summary,
        } => {
            let who = device.map_or_else(String::new, |id| format!(" ({})", id.short()));
            let failed = if summary.failed > 0 {
                format!(", {} failed", quantity::count(summary.failed))
            } else {
                String::new()
            };
            let saved = report::delta_saved(summary).map_or_else(String::new, |saved| format!("{saved}, "));
            let line = format!(
                "{peer}{who} \"{share}\": {}, {}; {} in, {} out, {saved}{}{failed}",
                quantity::counted(summary.files, "file"),
                quantity::size(summary.bytes),
                quantity::size(summary.wire_received),
                quantity::size(summary.wire_sent),
                quantity::duration(summary.elapsed),
            );
            let object = json!({
                "event": "status", "state": "transferred", "peer": peer.to_string(),
                "device": device.map(|id| id.to_string()), "share": share.as_str(),
                "files": summary.files, "bytes": summary.bytes, "wire_sent": summary.wire_sent,
                "wire_received": summary.wire_received, "literal_bytes": summary.literal_bytes,
                "matched_bytes": summary.matched_bytes, "saved_bytes": summary.saved_bytes,
                "unchanged_bytes": summary.unchanged_bytes, "failed": summary.failed,
                "seconds": summary.elapsed.as_secs_f64(),
            });
            (line, object)
        }
        ServerEvent::Refused { peer, code, text, .. } => {
            let text = plain(text);
            let line = format!("{peer} refused: {text}");
            let object = json!({
                "event": "status", "state": "refused", "peer": peer.to_string(), "code": code.name(), "reason": text,
            });
            (line, object)
        }
        ServerEvent::Drained => ("stopped".to_owned(), json!({"event": "status", "state": "stopped"})),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        flags: Flags,
    }

    fn exposure(args: &[&str]) -> Result<(), u8> {
        let flags = Command::parse_from(std::iter::once("serve").chain(args.iter().copied())).flags;
        let listen: Vec<_> = flags
            .listen
            .iter()
            .map(|text| address::parse_listen(text).unwrap())
            .collect();
        check_exposure(&flags, &listen).map_err(|complaint| complaint.exit.code())
    }

    #[test]
    fn nothing_is_opened_beyond_this_machine_unless_asked_for_twice() {
        // A build without TLS refuses what is not --plain.
        let with_tls = if cfg!(feature = "tls") { Ok(()) } else { Err(2) };
        let near = ["--listen", "127.0.0.1:0", "--open", "write"];
        assert_eq!(exposure(&[]), with_tls);
        assert_eq!(exposure(&near), with_tls);
        assert_eq!(exposure(&[&near[..], &["--plain"]].concat()), Ok(()));
        assert_eq!(exposure(&["--plain", "--open", "read"]), Err(2));
        assert_eq!(exposure(&["--plain", "--open", "read", "--yes"]), Ok(()));
        assert_eq!(exposure(&["--open", "read"]), Err(2));
        assert_eq!(exposure(&["--open", "read", "--yes"]), with_tls);
        let one_beyond = ["--plain", "--open", "read", "--listen", "127.0.0.1:0,0.0.0.0:0"];
        assert_eq!(exposure(&one_beyond), Err(2));
        assert_eq!(exposure(&["--plain", "--yes"]), Err(2));
    }

    #[test]
    fn metrics_are_off_unless_asked_for_and_beyond_this_machine_twice() {
        let at = |args: &[&str]| {
            let flags = Command::parse_from(std::iter::once("serve").chain(args.iter().copied())).flags;
            metrics(&flags).map_err(|complaint| complaint.exit.code())
        };
        let local = |port| Ok(Some(SocketAddr::from(([127, 0, 0, 1], port))));
        assert_eq!(at(&[]), Ok(None));
        for text in ["127.0.0.1:7180", "7180", ":7180"] {
            assert_eq!(at(&["--metrics", text]), local(7180), "{text}");
        }
        assert_eq!(at(&["--metrics", "0"]), local(0));
        assert_eq!(at(&["--metrics", "0.0.0.0:7180"]), Err(2));
        assert!(at(&["--metrics", "0.0.0.0:7180", "--yes"]).is_ok());
        assert_eq!(at(&["--metrics", "nonsense:x"]), Err(2));
    }

    #[test]
    fn shares_take_their_name_from_the_folder_or_the_operand() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for name in ["Films", "a=b", ".hidden"] {
            std::fs::create_dir(path(name)).unwrap();
        }
        std::fs::write(path("file"), "").unwrap();
        let name_of = |operand: &OsStr| share(operand).map(|(name, _)| name.to_string());
        assert_eq!(name_of(path("Films").as_os_str()).unwrap(), "Films");
        assert_eq!(name_of(path("Films/").as_os_str()).unwrap(), "Films");
        assert_eq!(name_of(path("a=b").as_os_str()).unwrap(), "a=b");
        let (name, at) = share(path("Films=Kino").as_os_str()).unwrap();
        assert_eq!((name.as_str(), at), ("Kino", path("Films")));
        assert_eq!(name_of(path(".hidden").as_os_str()).unwrap_err().exit.code(), 2);
        for missing in ["nothing", "file"] {
            assert_eq!(
                name_of(path(missing).as_os_str()).unwrap_err().exit.code(),
                10,
                "{missing}"
            );
        }
        let two = [OsString::from("."), OsString::from("..")];
        assert_eq!(shares(&two, Some("x")).unwrap_err().exit.code(), 2);
    }

    /// The same words as in the client's summary.
    #[test]
    fn the_log_tells_what_delta_saved() {
        let event = |saved_bytes: u64| ServerEvent::Transferred {
            peer: "192.0.2.1:5".parse().unwrap(),
            device: None,
            share: ShareName::parse("S").unwrap(),
            summary: Summary {
                files: 1,
                bytes: 1 << 30,
                literal_bytes: 4096,
                saved_bytes,
                ..Summary::default()
            },
        };
        let (line, object) = tell(&event((1 << 30) - 4096)).unwrap();
        assert!(line.contains(" out, delta saved 1.0 GiB (99.9 %), "), "{line}");
        assert_eq!(object["saved_bytes"], (1 << 30) - 4096);
        assert!(!tell(&event(0)).unwrap().0.contains("delta"));
    }

    #[test]
    fn a_refused_peer_cannot_write_into_the_log() {
        let event = ServerEvent::Refused {
            device: None,
            name: String::new(),
            peer: "192.0.2.1:5".parse().unwrap(),
            code: syncline::model::CloseCode::Protocol,
            text: "x\nfake line\x1b[1m".to_owned(),
        };
        let (line, _) = tell(&event).unwrap();
        assert!(!line.contains('\n') && !line.contains('\x1b'), "{line}");
    }
}
