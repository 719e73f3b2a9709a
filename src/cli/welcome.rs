//! What a server says once it listens: where, who it is, and how others get in.
//! Never shows an invite anywhere but here: it is as good as a key until it is spent.

use super::address;
use super::complaint::Complaint;
use super::report::plain;
use super::serve::{INVITE_VALID, Open};
use super::session::Session;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::SystemTime;
use syncline::model::{DeviceId, Rights, Secret, ShareName};
use syncline::node::Server;

/// What is said once the server listens.
pub(crate) struct Ready {
    listen: Vec<SocketAddr>,
    metrics: Option<SocketAddr>,
    device: Option<DeviceId>,
    name: String,
    shares: Vec<(ShareName, PathBuf, String)>,
}

impl Ready {
    /// Gathers it; makes the invites of shares that are not open.
    pub(crate) fn new(
        session: &Session,
        open: Option<Open>,
        server: &Server,
        shares: Vec<(ShareName, PathBuf)>,
    ) -> Result<Ready, Complaint> {
        let listen = server.listen_addrs().to_vec();
        let at = address::for_links(&listen).expect("a bound server listens somewhere");
        let home = session.home()?;
        let mut named = Vec::with_capacity(shares.len());
        for (name, path) in shares {
            let invite: Option<Secret> = match open {
                Some(_) => None,
                None => Some(
                    home.trust()
                        .invite(&name, Rights::READ_WRITE, INVITE_VALID, SystemTime::now())?,
                ),
            };
            let link = address::link(at, &name, server.device(), invite).to_string();
            let path = path.canonicalize().unwrap_or(path);
            named.push((name, path, link));
        }
        Ok(Ready {
            listen,
            metrics: server.metrics_addr(),
            device: server.device(),
            name: plain(server.name()),
            shares: named,
        })
    }

    /// The first object of `serve --json`.
    pub(crate) fn object(&self) -> Value {
        let shares = self
            .shares
            .iter()
            .map(|(name, path, link)| json!({"name": name.as_str(), "path": path.to_string_lossy(), "invite": link}));
        json!({
            "event": "ready",
            "listen": self.listen.first().map(ToString::to_string),
            "addresses": self.listen.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "web": null,
            "metrics": self.metrics.map(|address| address.to_string()),
            "device": self.device.map(|id| id.to_string()),
            "name": self.name,
            "plain": self.device.is_none(),
            "shares": shares.collect::<Vec<_>>(),
        })
    }

    /// For people.
    pub(crate) fn lines(&self, open: Option<Open>) -> Vec<String> {
        let listen = self
            .listen
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(", ");
        let device = match self.device {
            Some(id) => format!("device {} ({})", self.name, id.short()),
            None => "without TLS".to_owned(),
        };
        let mut lines = Vec::new();
        for (name, path, _) in &self.shares {
            let path = plain(&path.to_string_lossy());
            lines.push(format!("Serving {path} as \"{name}\" on {listen}      {device}"));
        }
        if let Some(address) = self.metrics {
            lines.push(format!("Metrics    http://{address}/metrics"));
        }
        lines.push(match open {
            Some(Open::Read) => "Anyone who can reach this address may fetch:".to_owned(),
            Some(Open::Write) => "Anyone who can reach this address may fetch and change everything:".to_owned(),
            None => format!(
                "On another machine, once, within {} minutes:",
                INVITE_VALID.as_secs() / 60
            ),
        });
        let plain_flag = if self.device.is_none() { " --plain" } else { "" };
        for (name, _, link) in &self.shares {
            let folder = quote(name.as_str());
            // Who may only read can keep a copy up to date, but that is not what most want.
            lines.push(match open {
                Some(Open::Read) => format!("    syncline pull{plain_flag} '{link}' {folder}"),
                _ if cfg!(feature = "sync") => format!("    syncline sync{plain_flag} {folder} '{link}'"),
                _ => format!("    syncline pull{plain_flag} '{link}' {folder}"),
            });
        }
        lines
    }
}

/// A word as a shell takes it.
fn quote(word: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || "-_.,+:@".contains(c);
    if word.chars().all(bare) && !word.starts_with('-') {
        return word.to_owned();
    }
    format!("'./{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready(device: Option<DeviceId>) -> Ready {
        let name = ShareName::parse("My Share").unwrap();
        let link = "syncline://192.0.2.7:7171/My%20Share".to_owned();
        Ready {
            listen: vec!["0.0.0.0:7171".parse().unwrap()],
            metrics: None,
            device,
            name: "NAS".to_owned(),
            shares: vec![(name, PathBuf::from("/srv/My Share"), link)],
        }
    }

    #[test]
    fn the_first_run_reads_as_documented() {
        let lines = ready(Some(DeviceId([0; 32]))).lines(None);
        assert_eq!(
            lines[0],
            "Serving /srv/My Share as \"My Share\" on 0.0.0.0:7171      device NAS (AAAA-AAAA)"
        );
        assert_eq!(lines[1], "On another machine, once, within 10 minutes:");
        let both = "'./My Share' 'syncline://192.0.2.7:7171/My%20Share'";
        if cfg!(feature = "sync") {
            assert_eq!(lines[2], format!("    syncline sync {both}"));
        }
        // Who may only read is not told to change anything.
        let lines = ready(None).lines(Some(Open::Read));
        assert!(
            lines[0].ends_with("without TLS") && lines[2].contains("pull --plain "),
            "{lines:?}"
        );
    }

    #[test]
    fn the_ready_object_has_every_key_of_the_contract() {
        let object = ready(None).object();
        assert_eq!(object["event"], "ready");
        assert_eq!(object["listen"], "0.0.0.0:7171");
        assert_eq!(object["shares"][0]["name"], "My Share");
        assert_eq!(object["shares"][0]["path"], "/srv/My Share");
        assert_eq!(object["shares"][0]["invite"], "syncline://192.0.2.7:7171/My%20Share");
        assert!(object.as_object().unwrap().contains_key("web"));
        assert!(object["metrics"].is_null());
    }

    #[test]
    fn a_quoted_word_stays_one_word_for_the_shell() {
        assert_eq!(quote("Share"), "Share");
        assert_eq!(quote("it's $HOME"), "'./it'\\''s $HOME'");
        assert_eq!(quote("-n"), "'./-n'");
    }
}
