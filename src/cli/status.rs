//! `syncline status [LINK|DIR]`: the servers that run here, how a server elsewhere is, or a folder, synced or served.
//! Never trusts a server's answer: what it does not hold is left out, and all of it is made harmless for
//! the terminal.

use super::complaint::Complaint;
use super::exit::Exit;
use super::quantity;
use super::report::plain;
use super::session::{Ending, Session};
use super::transfer::{self, NetworkFlags};
use clap::Args;
use serde_json::{Map, Value, json};
use std::ffi::OsString;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;
use syncline::model::Link;
use syncline::node::{ClientEvent, Job, Summary, TransferOptions};
use syncline::store::RunningServer;

/// The flags and operands of `status`.
#[derive(Debug, Args)]
pub(crate) struct Flags {
    /// A link to the server to ask, or a folder, synced or served [default: list the servers running here]
    #[arg(value_name = "LINK|DIR")]
    link: Option<OsString>,
    #[command(flatten)]
    network: NetworkFlags,
}

/// Runs the command.
pub(crate) fn run(session: &Session, flags: &Flags) -> Result<Ending, Complaint> {
    match &flags.link {
        Some(operand) => match operand.to_str().filter(|text| is_link(text)) {
            Some(text) => ask(session, flags, text.parse().map_err(Complaint::link)?),
            None => match servers_of(session, Path::new(operand))? {
                serving if serving.is_empty() => folder_status(session, Path::new(operand)),
                serving => show(session, flags, &serving),
            },
        },
        None => list(session, flags),
    }
}

/// Whether a link is meant: a path that does not exist is more likely a link with a slip in it.
fn is_link(text: &str) -> bool {
    Link::looks_like(text) || !Path::new(text).exists()
}

#[cfg(feature = "sync")]
fn folder_status(session: &Session, path: &Path) -> Result<Ending, Complaint> {
    super::folder::status(session, path)
}

#[cfg(not(feature = "sync"))]
fn folder_status(_: &Session, path: &Path) -> Result<Ending, Complaint> {
    let what = format!("{} is no link", plain(&path.to_string_lossy()));
    Err(Complaint::usage(
        what,
        "this syncline was built without sync: name a server's link",
    ))
}

/// The servers that run here; each is asked how it is, as its own device, if it can tell that from others.
fn list(session: &Session, flags: &Flags) -> Result<Ending, Complaint> {
    let running = session.home()?.running();
    if running.is_empty() {
        session
            .console
            .note("no server runs here with this state directory; `syncline serve DIR` starts one");
    }
    show(session, flags, &running)
}

/// Those of them that serve this very folder.
fn servers_of(session: &Session, folder: &Path) -> Result<Vec<RunningServer>, Complaint> {
    let Ok(folder) = folder.canonicalize() else {
        return Ok(Vec::new());
    };
    let mut running = session.home()?.running();
    running.retain(|server| server.shares.iter().any(|(_, path)| *path == folder));
    Ok(running)
}

fn show(session: &Session, flags: &Flags, servers: &[RunningServer]) -> Result<Ending, Complaint> {
    for server in servers {
        lines(server).iter().for_each(|line| session.console.data(line));
        let mut object = object(server);
        // One that is just ending, or that a firewall keeps from us, is listed all the same.
        if let Some((answer, _)) = own_link(server).and_then(|link| answer_of(session, flags, link).ok()) {
            let status = answer.get("loop_status").filter(|status| status.is_object());
            let figures = status.map(loop_lines);
            figures.iter().flatten().for_each(|line| session.console.data(line));
            let known = object.as_object_mut();
            if let Some(known) = known {
                answer.into_iter().for_each(|(key, value)| {
                    known.entry(key).or_insert(value);
                });
            }
        }
        session.console.object(&object);
    }
    Ok(Ending::of(Exit::Done))
}

fn lines(server: &RunningServer) -> Vec<String> {
    let device = server
        .device
        .map_or_else(|| "without TLS".to_owned(), |id| format!("device {}", id.short()));
    let head = format!("{}  process {}  {device}", listen(server).join(", "), server.pid);
    let shares = server
        .shares
        .iter()
        .map(|(name, path)| format!("  \"{name}\"  {}", plain(&path.to_string_lossy())));
    std::iter::once(head).chain(shares).collect()
}

fn object(server: &RunningServer) -> Value {
    let shares = server
        .shares
        .iter()
        .map(|(name, path)| json!({"name": name.as_str(), "path": path.to_string_lossy()}));
    json!({
        "event": "status", "pid": server.pid, "listen": listen(server), "plain": server.plain,
        "device": server.device.map(|id| id.to_string()), "shares": shares.collect::<Vec<_>>(),
    })
}

fn listen(server: &RunningServer) -> Vec<String> {
    server.listen.iter().map(ToString::to_string).collect()
}

/// A link to a server of this machine, which knows its own device.
fn own_link(server: &RunningServer) -> Option<Link> {
    server.device?;
    let mut address = *server.listen.first()?;
    if address.ip().is_unspecified() {
        let loopback = match address {
            SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        };
        address.set_ip(loopback);
    }
    let (share, _) = server.shares.first()?;
    format!("syncline://{address}/{}", share.as_str()).parse().ok()
}

fn ask(session: &Session, flags: &Flags, link: Link) -> Result<Ending, Complaint> {
    let (answer, summary) = answer_of(session, flags, link)?;
    told(&answer).iter().for_each(|line| session.console.data(line));
    session.console.object(&merged(answer));
    Ok(Ending {
        exit: Exit::Done,
        summary,
    })
}

fn answer_of(session: &Session, flags: &Flags, link: Link) -> Result<(Map<String, Value>, Summary), Complaint> {
    let network = flags.network.options(session, &link)?;
    let mut answer = None;
    let outcome = transfer::drive(network, Job::Status { link }, TransferOptions::default(), |event| {
        if let ClientEvent::Status(text) = event {
            answer = Some(text);
        }
    })?;
    outcome.result?;
    let answer = answer.and_then(|text| serde_json::from_str::<Map<String, Value>>(&text).ok());
    let answer = answer.ok_or_else(|| {
        Complaint::new(
            Exit::Error,
            "the server's answer is no status",
            "update the older of the two sides",
        )
    })?;
    Ok((answer, outcome.summary))
}

/// A server's answer for people: itself, then a line for each share that the asker may see.
fn told(answer: &Map<String, Value>) -> Vec<String> {
    let text = |key: &str| answer.get(key).and_then(Value::as_str).unwrap_or("unknown");
    let seconds = answer.get("uptime_seconds").and_then(Value::as_u64).unwrap_or(0);
    let up = quantity::duration(Duration::from_secs(seconds));
    let mut lines = vec![plain(&format!(
        "{}  version {}  up for {up}",
        text("name"),
        text("version")
    ))];
    let shares = answer.get("shares").and_then(Value::as_array);
    lines.extend(shares.into_iter().flatten().map(share_line));
    if let Some(status) = answer.get("loop_status").filter(|status| status.is_object()) {
        lines.extend(loop_lines(status));
    }
    lines
}

/// What the loop does, for the server's owner: four aligned lines.
fn loop_lines(status: &Value) -> [String; 4] {
    let number = |path: &str| status.pointer(path).and_then(Value::as_u64).unwrap_or(0);
    let count = |path: &str| quantity::count(number(path));
    let size = |path: &str| status.pointer(path).and_then(Value::as_u64).map(quantity::size);
    let of_limit = size("/memory_limit_bytes").map_or_else(String::new, |limit| {
        let accounted = size("/memory_bytes").unwrap_or_default();
        format!(", {accounted} of {limit} by its own account")
    });
    [
        format!(
            "  connections  {} open, {} accepted, {} turned away",
            count("/connections"),
            count("/accepted"),
            count("/turned_away"),
        ),
        format!(
            "  sessions     {} active, {} queued, {} completed, {} failed",
            count("/active"),
            count("/queued"),
            count("/sessions/completed"),
            count("/sessions/failed"),
        ),
        format!(
            "  loop         longest turn {}, on average {}, {} in line",
            turn(number("/longest_turn_micros")),
            turn(number("/turn_time/sum_micros") / number("/turn_time/count").max(1)),
            quantity::count(number("/lines/interactive") + number("/lines/bulk")),
        ),
        format!(
            "  memory       {} in use{of_limit}, longest queue {}",
            size("/anonymous_bytes").unwrap_or_else(|| "unknown".to_owned()),
            quantity::size(number("/longest_queue_bytes")),
        ),
    ]
}

/// A turn lasts microseconds to milliseconds.
fn turn(micros: u64) -> String {
    match micros {
        0..1_000 => format!("{micros} µs"),
        _ => format!("{}.{} ms", micros / 1_000, micros % 1_000 / 100),
    }
}

fn share_line(share: &Value) -> String {
    let number = |key: &str| share[key].as_u64().unwrap_or(0);
    let text = |key: &str| share[key].as_str().unwrap_or("unknown");
    let mut parts = vec![
        format!("  \"{}\" ({})", text("name"), text("rights")),
        format!(
            "{} since the start: {}, {}",
            quantity::counted(number("transfers"), "transfer"),
            quantity::counted(number("files"), "file"),
            quantity::size(number("bytes"))
        ),
    ];
    let saved = number("saved_bytes").saturating_sub(number("unchanged_bytes"));
    if saved > 0 {
        parts.push(format!("delta saved {}", quantity::size(saved)));
    }
    if number("failed") > 0 {
        parts.push(format!("{} failed", quantity::count(number("failed"))));
    }
    if let Some(free) = share["free_bytes"].as_u64() {
        parts.push(format!("{} free", quantity::size(free)));
    }
    plain(&parts.join("  "))
}

/// The server's object, as one of ours: it cannot pretend to be another event.
fn merged(mut answer: Map<String, Value>) -> Value {
    answer.insert("event".to_owned(), "status".into());
    Value::Object(answer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;
    use syncline::model::ShareName;

    #[test]
    fn a_running_server_is_listed_with_its_shares() {
        let server = RunningServer {
            pid: 42,
            listen: vec!["127.0.0.1:7171".parse().unwrap()],
            plain: true,
            device: None,
            shares: vec![(ShareName::parse("Films").unwrap(), PathBuf::from("/srv/a\nb"))],
        };
        assert_eq!(
            lines(&server),
            ["127.0.0.1:7171  process 42  without TLS", "  \"Films\"  /srv/a\\nb"]
        );
        assert_eq!(object(&server)["shares"][0]["path"], "/srv/a\nb");
    }

    #[test]
    fn an_answer_cannot_pretend_to_be_a_summary_or_steer_the_terminal() {
        let answer = json!({"event": "summary", "exit_code": 0}).as_object().unwrap().clone();
        assert_eq!(merged(answer)["event"], "status");
        let hostile = json!({"name": "x\x1b\n", "shares": [{"name": "\x1b[2J"}, 7, null]});
        let lines = told(hostile.as_object().unwrap());
        assert_eq!(lines.len(), 4);
        assert!(lines.iter().all(|line| !line.contains(['\x1b', '\n'])), "{lines:?}");
    }

    #[test]
    fn an_answer_reads_as_lines() {
        let answer = json!({
            "name": "NAS", "version": "1.2.3", "uptime_seconds": 7200,
            "shares": [{"name": "Films", "rights": "read", "free_bytes": 1 << 30, "transfers": 1, "files": 2,
                "bytes": 2048, "saved_bytes": 1536, "unchanged_bytes": 512, "failed": 3}],
            "loop_status": {
                "connections": 2, "accepted": 1234, "turned_away": 0, "longest_turn_micros": 4_250,
                "active": 1, "queued": 3, "sessions": {"completed": 1_000, "failed": 7},
                "lines": {"interactive": 2, "bulk": 3}, "turn_time": {"count": 4, "sum_micros": 2_000}, "longest_queue_bytes": 2048,
                "anonymous_bytes": 3 << 20, "memory_bytes": 1 << 20, "memory_limit_bytes": 64 << 20,
            },
        });
        let lines = told(answer.as_object().unwrap());
        assert!(lines[0].starts_with("NAS  version 1.2.3  up for "), "{lines:?}");
        assert_eq!(
            lines[1],
            "  \"Films\" (read)  1 transfer since the start: 2 files, 2.0 KiB  delta saved 1.0 KiB  3 failed  1.0 GiB free"
        );
        assert_eq!(
            lines[2..],
            [
                "  connections  2 open, 1,234 accepted, 0 turned away",
                "  sessions     1 active, 3 queued, 1,000 completed, 7 failed",
                "  loop         longest turn 4.2 ms, on average 500 µs, 5 in line",
                "  memory       3.0 MiB in use, 1.0 MiB of 64 MiB by its own account, longest queue 2.0 KiB",
            ]
        );
    }
}
