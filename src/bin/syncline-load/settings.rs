//! Owns the command line, and what follows from it. It never connects.
//!
//! Invariant: a [`Settings`] describes a run that is bounded in clients, files, memory and time.

use crate::complaint::Complaint;
use crate::quantity::{self, Rate};
use crate::scenario::{Bounds, Role, Scenario, Way};
use clap::{CommandFactory, FromArgMatches, Parser};
use std::ffi::OsString;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;
use syncline::model::{Link, RelPath};

/// Puts a server under load and says how it does: thousands of clients on one thread.
#[derive(Debug, Parser)]
#[command(name = "syncline-load", version, max_term_width = 100, after_long_help = LONG_HELP)]
pub(crate) struct Flags {
    /// The server and share: syncline://HOST:PORT/SHARE
    #[arg(value_name = "LINK")]
    link: String,
    /// What the clients do
    #[arg(short, long, value_enum, default_value = "delta")]
    scenario: Scenario,
    /// Clients
    #[arg(short, long, value_name = "N", default_value_t = 100)]
    clients: u32,
    /// Files of each client
    #[arg(long, value_name = "N", default_value_t = 1)]
    files: u32,
    /// Bytes of each file
    #[arg(long, value_name = "SIZE", default_value = "64k", value_parser = parse_size)]
    size: u64,
    /// Bytes that one edit changes
    #[arg(long, value_name = "SIZE", default_value = "100", value_parser = parse_size)]
    edit_bytes: u64,
    /// Which way files go in full and no-op
    #[arg(long, value_enum, default_value = "push")]
    direction: Way,
    /// What contents, edits and their order follow from
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Syncs a second over all clients, by the clock (open loop); without: as fast as they get through
    #[arg(long, value_name = "N")]
    rate: Option<f64>,
    /// Begin syncs for so long
    #[arg(long, value_name = "TIME", value_parser = quantity::parse_duration)]
    duration: Option<Duration>,
    /// Begin so many syncs
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// Without TLS
    #[arg(long)]
    plain: bool,
    /// Allow a server beyond this machine
    #[arg(long)]
    yes: bool,
    /// Device keys that the clients share [default: 64 at the most]
    #[arg(long, value_name = "N")]
    identities: Option<u32>,
    /// Connections a second at most
    #[arg(long, value_name = "N")]
    connect_rate: Option<f64>,
    /// Bytes a second of each client, in each direction
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    client_rate: Option<u64>,
    /// A new connection for each sync
    #[arg(long)]
    reconnect: bool,
    /// Give up on a sync that does not move for this long
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = quantity::parse_duration)]
    timeout: Duration,
    /// Clients with small deltas beside those that behave badly
    #[arg(long, value_name = "N", default_value_t = 8)]
    beside: u32,
    /// Bytes of the giant push, and of what the slow readers pull
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    giant_size: Option<u64>,
    /// Bytes of the file of the giant delta
    #[arg(long, value_name = "SIZE", default_value = "256M", value_parser = parse_size)]
    giant_delta: u64,
    /// Compare the share's folder with what the seed says, after the run
    #[arg(long, value_name = "DIR")]
    verify: Option<PathBuf>,
    /// Draw latencies and rates: FILE.svg or FILE.html
    #[arg(long, value_name = "FILE")]
    chart: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Say nothing on the way
    #[arg(short, long)]
    quiet: bool,
}

const LONG_HELP: &str = "\
Examples:
  syncline serve Share --open write --plain --listen 127.0.0.1:7171 --keep-versions off
  syncline-load --plain --scenario full --clients 1000 --size 1M syncline://127.0.0.1:7171/Share
  syncline-load --plain --scenario delta --clients 2000 --rate 500 --duration 20s syncline://127.0.0.1:7171/Share

The clients write below the share, each into a folder of its own: use a share made for it.

Exit codes: 0 done, 1 error, 2 usage, 3 some syncs failed or differ, 130/143 interrupted.";

/// A run, checked.
pub(crate) struct Settings {
    pub(crate) link: Link,
    pub(crate) address: SocketAddr,
    pub(crate) scenario: Scenario,
    pub(crate) roles: Vec<Role>,
    pub(crate) bounds: Bounds,
    pub(crate) clients: u32,
    pub(crate) files: u32,
    pub(crate) size: u64,
    pub(crate) edit_bytes: u64,
    pub(crate) way: Way,
    pub(crate) seed: u64,
    pub(crate) rate: Option<f64>,
    pub(crate) plain: bool,
    pub(crate) identities: u32,
    pub(crate) connect_rate: Option<f64>,
    pub(crate) client_rate: Option<u64>,
    pub(crate) reconnect: bool,
    pub(crate) timeout: Duration,
    pub(crate) giant_size: u64,
    pub(crate) giant_delta: u64,
    pub(crate) verify: Option<PathBuf>,
    pub(crate) chart: Option<PathBuf>,
    pub(crate) json: bool,
    pub(crate) quiet: bool,
}

/// Connections that one reactor is asked to hold; descriptors end earlier as a rule.
const CLIENTS_MAX: u32 = 100_000;
/// Files of all clients: each takes some 200 bytes here.
const FILES_MAX: u64 = 2_000_000;
/// Keys: making one costs 0.1 ms, holding one 2 KB.
const IDENTITIES_USUAL: u32 = 64;
const IDENTITIES_MAX: u32 = 10_000;
const RATE_MAX: f64 = 1e6;
/// Clients with a limit of their own: limits have numbers of 16 bits.
const LIMITED_MAX: u32 = 60_000;

impl Flags {
    /// Reads the command line.
    ///
    /// # Errors
    /// What clap says, help and version included.
    pub(crate) fn parse_from_args(args: impl IntoIterator<Item = OsString>) -> Result<Flags, clap::Error> {
        Flags::from_arg_matches(&Flags::command().try_get_matches_from(args)?)
    }

    /// Whether the result goes to a script.
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// Checks all of it together.
    ///
    /// # Errors
    /// One sentence, and what to try.
    pub(crate) fn settings(self) -> Result<Settings, Complaint> {
        let link = self.link()?;
        let address = self.address(&link)?;
        self.check_counts()?;
        self.check_direction()?;
        if let Some(chart) = &self.chart {
            let ending = chart.extension().and_then(|ending| ending.to_str());
            if !matches!(ending, Some("svg" | "html")) {
                let what = format!("{} is neither an .svg nor an .html file", chart.display());
                return Err(Complaint::usage(what, "name the chart FILE.svg or FILE.html"));
            }
        }
        let giant_usual = match self.scenario {
            Scenario::SlowReaders => 32 << 20,
            _ => 1 << 30,
        };
        let identities = self.identities.unwrap_or(IDENTITIES_USUAL).min(self.clients);
        Ok(Settings {
            roles: self.scenario.roles(self.clients, self.beside),
            bounds: self.scenario.bounds(self.clients, self.count, self.duration),
            link,
            address,
            scenario: self.scenario,
            clients: self.clients,
            files: self.files,
            size: self.size,
            edit_bytes: self.edit_bytes,
            way: self.direction,
            seed: self.seed,
            rate: self.rate,
            plain: self.plain,
            identities,
            connect_rate: self.connect_rate,
            client_rate: self.client_rate,
            reconnect: self.reconnect,
            timeout: self.timeout,
            giant_size: self.giant_size.unwrap_or(giant_usual),
            giant_delta: self.giant_delta,
            verify: self.verify,
            chart: self.chart,
            json: self.json,
            quiet: self.quiet || self.json,
        })
    }

    fn link(&self) -> Result<Link, Complaint> {
        let advice = "a link looks like syncline://HOST:PORT/SHARE; quote it, and paste it whole";
        let link: Link = match self.link.parse() {
            Ok(link) => link,
            Err(error) => {
                return Err(Complaint::usage(
                    format!("this is not a link that I can use: {error}"),
                    advice,
                ));
            }
        };
        if link.path.as_ref().map(RelPath::as_bytes).is_some() {
            let what = "the link names a path, and each client has a folder of its own in the share";
            return Err(Complaint::usage(what, "leave the path out"));
        }
        if link.secret.as_ref().is_some_and(|secret| secret.invite.is_some()) {
            let what = "the link lets one device in, once, and these are many";
            let advice = "serve with --open write, and leave out what follows the dot in the link";
            return Err(Complaint::usage(what, advice));
        }
        if self.plain && link.secret.is_some() {
            let what = "this link names the server's key, and --plain can check none";
            return Err(Complaint::usage(what, "leave --plain out"));
        }
        if !self.plain && cfg!(not(feature = "tls")) {
            return Err(Complaint::usage(
                "this syncline-load was built without TLS",
                "use --plain on both sides",
            ));
        }
        Ok(link)
    }

    fn address(&self, link: &Link) -> Result<SocketAddr, Complaint> {
        let found = (link.host.as_str(), link.port).to_socket_addrs();
        let address = found.ok().and_then(|mut addresses| addresses.next());
        let Some(address) = address else {
            let what = format!("there is no address for {}", link.host);
            return Err(Complaint::error(what, "check the host name in the link"));
        };
        if !address.ip().is_loopback() && !self.yes {
            let what = format!("{} is beyond this machine", link.host);
            let advice = "add --yes if that server is yours to put under load";
            return Err(Complaint::usage(what, advice));
        }
        Ok(address)
    }

    fn check_counts(&self) -> Result<(), Complaint> {
        let in_range = |flag: &str, number: u64, most: u64| match number {
            _ if (1..=most).contains(&number) => Ok(()),
            _ => {
                let what = format!("{flag} {number} is not possible");
                Err(Complaint::usage(what, format!("use 1 to {most}")))
            }
        };
        in_range("--clients", self.clients.into(), CLIENTS_MAX.into())?;
        in_range("--files", self.files.into(), FILES_MAX / u64::from(self.clients))?;
        in_range(
            "--identities",
            self.identities.unwrap_or(1).into(),
            IDENTITIES_MAX.into(),
        )?;
        if let Some(rate) = self.client_rate {
            in_range("--client-rate", rate, 1 << 40)?;
            in_range("with --client-rate, --clients", self.clients.into(), LIMITED_MAX.into())?;
        }
        in_range("--count", self.count.unwrap_or(1), crate::scenario::COUNT_MAX)?;
        in_range("--size", self.size.max(1), 1 << 40)?;
        in_range("--giant-size", self.giant_size.unwrap_or(1), 1 << 44)?;
        in_range("--giant-delta", self.giant_delta, 1 << 40)?;
        if u64::from(self.beside) > u64::from(CLIENTS_MAX) {
            let most = format!("use 0 to {CLIENTS_MAX}");
            return Err(Complaint::usage(
                format!("--beside {} is not possible", self.beside),
                most,
            ));
        }
        for (flag, rate) in [("--rate", self.rate), ("--connect-rate", self.connect_rate)] {
            if rate.is_some_and(|rate| !(0.001..=RATE_MAX).contains(&rate)) {
                let what = format!("{flag} {} is not possible", rate.unwrap_or_default());
                return Err(Complaint::usage(what, "use 0.001 to 1000000 a second"));
            }
        }
        Ok(())
    }

    fn check_direction(&self) -> Result<(), Complaint> {
        let goes_back = matches!(self.scenario, Scenario::Full | Scenario::NoOp);
        if self.direction == Way::Pull && !goes_back {
            let what = format!("--scenario {} has no --direction pull", self.scenario.name());
            return Err(Complaint::usage(what, "full and no-op have"));
        }
        Ok(())
    }
}

/// Parses `4096`, `64k`, `1M`, `10G`.
fn parse_size(text: &str) -> Result<u64, String> {
    let parsed = Rate::parse(text).map_err(|_| format!("{text:?} is not a size; write bytes as 4096, 64k, 1M or 10G"));
    Ok(parsed?.limit().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(args: &[&str]) -> Result<Settings, Complaint> {
        let args = ["syncline-load"].iter().chain(args).map(OsString::from);
        Flags::parse_from_args(args).unwrap().settings()
    }

    // Protects users: what cannot be done is said before anything happens, with what to try.
    #[test]
    fn what_cannot_be_done_is_refused_with_advice() {
        let link = "syncline://127.0.0.1:7171/Share";
        let far = "syncline://192.0.2.1:7171/Share";
        let secret = format!("{link}#{}.{}", "a".repeat(64), "b".repeat(32));
        let below = format!("{link}/below");
        for args in [
            &["--plain", "nonsense"][..],
            &["--plain", "--clients", "0", link],
            &["--plain", "--clients", "9999999", link],
            &["--plain", "--files", "0", link],
            &["--plain", "--clients", "1000", "--files", "1000000", link],
            &["--plain", "--rate", "0", link],
            &["--plain", "--rate", "NaN", link],
            &["--plain", "--count", "0", link],
            &["--plain", "--client-rate", "0", link],
            &["--plain", "--client-rate", "64k", "--clients", "70000", link],
            &["--plain", "--chart", "x.png", link],
            &["--plain", "--direction", "pull", "--scenario", "delta", link],
            &["--plain", far],
            &["--plain", &below],
            &["--plain", &secret],
            &[&secret],
        ] {
            let complaint = settings(args).err().unwrap_or_else(|| panic!("{args:?}"));
            assert!(!complaint.advice.is_empty(), "{args:?}");
            assert_eq!(complaint.exit.code(), 2, "{args:?}");
        }
        let fine = settings(&["--plain", "--yes", far]).ok().unwrap();
        assert_eq!((fine.clients, fine.size, fine.identities), (100, 65_536, 64));
    }

    // Protects the meaning of sizes.
    #[test]
    fn sizes_are_binary() {
        let sizes = ["0", "4096", "64k", "1M", "10G"].map(|text| parse_size(text).unwrap());
        assert_eq!(sizes, [0, 4096, 65_536, 1 << 20, 10 << 30]);
        assert!(parse_size("x").unwrap_err().contains("size"));
    }

    #[test]
    fn the_command_line_is_consistent() {
        Flags::command().debug_assert();
    }
}
