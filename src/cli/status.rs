//! `syncline status [LINK]`: the servers that run here, or how a server elsewhere is.
//! Never interprets a server's answer: it is shown as it came, made harmless for the terminal.

use super::complaint::Complaint;
use super::exit::Exit;
use super::report::plain;
use super::session::{Ending, Session};
use super::transfer::{self, NetworkFlags};
use clap::Args;
use serde_json::{Map, Value, json};
use syncline::model::Link;
use syncline::node::{ClientEvent, Job, TransferOptions};
use syncline::store::RunningServer;

/// The flags and operands of `status`.
#[derive(Debug, Args)]
pub(crate) struct Flags {
    /// A link to the server to ask [default: list the servers running here]
    link: Option<String>,
    #[command(flatten)]
    network: NetworkFlags,
}

/// Runs the command.
pub(crate) fn run(session: &Session, flags: &Flags) -> Result<Ending, Complaint> {
    match &flags.link {
        Some(text) => ask(session, flags, text.parse().map_err(Complaint::link)?),
        None => list(session),
    }
}

fn list(session: &Session) -> Result<Ending, Complaint> {
    let running = session.home()?.running();
    if running.is_empty() {
        session
            .console
            .note("no server runs here with this state directory; `syncline serve DIR` starts one");
    }
    for server in &running {
        lines(server).iter().for_each(|line| session.console.data(line));
        session.console.object(&object(server));
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

fn ask(session: &Session, flags: &Flags, link: Link) -> Result<Ending, Complaint> {
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
    answer
        .iter()
        .for_each(|(key, value)| session.console.data(&line(key, value)));
    session.console.object(&merged(answer));
    Ok(Ending {
        exit: Exit::Done,
        summary: outcome.summary,
    })
}

fn line(key: &str, value: &Value) -> String {
    let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    plain(&format!("{}: {value}", key.replace('_', " ")))
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
        assert_eq!(line("a_b", &json!("x\x1b\n")), "a b: x\\u{1b}\\n");
        assert_eq!(line("n", &json!(3)), "n: 3");
    }
}
