//! What push and pull share: their flags, and the run of a client from start to summary.
//! Never knows which way the bytes go.

use super::bandwidth;
use super::complaint::Complaint;
use super::console::{Console, Format, Verbosity};
use super::exit::{Exit, Idle, Moved};
use super::filters::FilterFlags;
use super::progress::Display;
use super::quantity;
use super::repeating::{self, Interrupts, Ran};
use super::report::{self, Failures, Run, plain};
use super::session::{Ending, Session};
use clap::Args;
use serde_json::json;
use std::net::IpAddr;
use std::time::{Duration, Instant};
use syncline::model::{DeviceId, Link, Timetable};
use syncline::node::{
    Client, ClientEvent, ClientOptions, Durability, Job, JobError, MaxDelete, Outcome, Summary, TransferOptions,
};

/// The flags of a transfer.
#[derive(Debug, Args)]
pub(crate) struct TransferFlags {
    /// Show what would be done, change nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Compare contents; never trust size and time
    #[arg(short, long)]
    checksum: bool,
    /// Delete at the target what the source does not have
    #[arg(long)]
    delete: bool,
    /// Refuse to delete more than this: a number, a percentage, or unlimited [default: half, if over 25]
    #[arg(long, value_name = "N|N%", value_parser = quantity::parse_max_delete)]
    max_delete: Option<MaxDelete>,
    /// Do it again and again, so often, or when the server says
    #[arg(long, value_name = "TIME", value_parser = quantity::parse_duration)]
    interval: Option<Duration>,
    /// Exit with code 9 when there was nothing to do
    #[arg(long)]
    error_on_no_transfer: bool,
    /// Change files where they lie instead of replacing them
    ///
    /// A large file that changes a little is not copied: only what changes is written, after an undo
    /// record is safe on disk, so that a crash leaves the old or the new version. Readers may see a
    /// mixture while it is written. A file in which something moved, one with several hard links and one
    /// that is sent whole are replaced as usual.
    #[arg(long, visible_alias = "in-place", conflicts_with = "whole_file")]
    inplace: bool,
    /// Send changed files whole, without delta
    #[arg(short = 'W', long)]
    whole_file: bool,
    /// As in rsync; changes are always compressed where it pays, with or without it
    #[arg(short = 'z', long)]
    compress: bool,
    // rsync's habits: what they ask for is what happens anyway.
    #[arg(short, long, hide = true)]
    archive: bool,
    #[arg(short, long, hide = true)]
    recursive: bool,
    #[arg(short = 'P', long, hide = true)]
    partial_progress: bool,
    #[command(flatten)]
    filters: FilterFlags,
    #[command(flatten)]
    pub(crate) network: NetworkFlags,
}

/// The flags of anything that connects.
#[derive(Debug, Args)]
#[command(next_help_heading = "Connection")]
pub(crate) struct NetworkFlags {
    /// Bytes a second at most: 512k, 5M, or over the day as '08:00,512k 18:00,off'
    #[arg(long, value_name = "RATE|TIMES", value_parser = bandwidth::parse_timetable)]
    bwlimit: Option<Timetable>,
    /// Without TLS: for this machine and for links that you trust
    #[arg(long)]
    plain: bool,
    /// Allow --plain beyond this machine
    #[arg(long)]
    yes: bool,
    /// Give up on a connection that is silent for this long
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = quantity::parse_duration)]
    timeout: Duration,
    /// Connect again this many times after a fault that may pass
    #[arg(long, value_name = "N", default_value_t = 5)]
    retries: u32,
}

impl TransferFlags {
    /// The engine's options.
    pub(crate) fn options(&self, durability: Durability) -> Result<TransferOptions, Complaint> {
        Ok(TransferOptions {
            dry_run: self.dry_run,
            checksum: self.checksum,
            delete: self.delete,
            max_delete: self.max_delete.unwrap_or_default(),
            filters: self.filters.rules()?,
            durability,
            in_place: self.inplace,
            whole_file: self.whole_file,
        })
    }

    fn run(&self) -> Run {
        if self.dry_run { Run::Dry } else { Run::Real }
    }

    fn idle(&self) -> Idle {
        if self.error_on_no_transfer {
            Idle::Error
        } else {
            Idle::Fine
        }
    }
}

impl NetworkFlags {
    /// The client's options, if `link` may be reached in the way that was asked for.
    pub(crate) fn options(&self, session: &Session, link: &Link) -> Result<ClientOptions, Complaint> {
        self.check_plain(link)?;
        Ok(ClientOptions {
            home: session.home_path()?,
            plain: self.plain,
            bandwidth: self.bwlimit.clone().unwrap_or_default(),
            timeout: self.timeout,
            retries: self.retries,
            delay: Duration::ZERO,
            handle_signals: true,
        })
    }

    fn check_plain(&self, link: &Link) -> Result<(), Complaint> {
        if !self.plain {
            if cfg!(feature = "tls") {
                return Ok(());
            }
            return Err(Complaint::usage(
                "this syncline was built without TLS",
                "use --plain on both sides",
            ));
        }
        if link.secret.is_some() {
            let what = "this link names the server's key, and --plain can check none";
            return Err(Complaint::usage(what, "leave --plain out"));
        }
        if !self.yes && !is_loopback(&link.host) {
            let what = format!(
                "--plain would send everything to {} readable and changeable by others",
                link.host
            );
            return Err(Complaint::usage(
                what,
                "leave --plain out on both sides, or add --yes if you trust the way there",
            ));
        }
        Ok(())
    }
}

fn is_loopback(host: &str) -> bool {
    match host.parse::<IpAddr>() {
        Ok(address) => address.is_loopback(),
        // RFC 6761: the name localhost always means this machine.
        Err(_) => host.eq_ignore_ascii_case("localhost"),
    }
}

/// Runs a push or pull to its end.
pub(crate) fn run(
    session: &Session,
    flags: &TransferFlags,
    network: &ClientOptions,
    job: &Job,
    options: &TransferOptions,
) -> Result<Ending, Complaint> {
    let once = |network: ClientOptions, interrupts: &Interrupts| {
        let begins = Instant::now() + network.delay;
        let mut reporter = Reporter::new(&session.console, flags.run(), begins);
        let start = || {
            let client = Client::start(network, job.clone(), options.clone())?;
            // From here on the client hears of signals; one that came before is not lost either.
            match interrupts.seen() {
                Some(signal) => Err(JobError::Interrupted { signal: Some(signal) }),
                None => Ok(client),
            }
        };
        let outcome = start()
            .map_err(Complaint::from)
            .and_then(|client| follow(client, |event| reporter.handle(event, Instant::now())));
        match outcome {
            Ok(outcome) => Ran {
                come_back: outcome.come_back,
                ending: reporter.finish(outcome, flags.idle()),
            },
            Err(complaint) => Ran {
                come_back: None,
                ending: Err(complaint),
            },
        }
    };
    match flags.interval {
        None => once(network.clone(), &Interrupts::default()).ending,
        Some(every) => {
            let interrupts = Interrupts::watch().map_err(|error| Complaint::io("wait for signals", &error))?;
            repeating::run(session, every, |delay| {
                let network = network.clone();
                once(ClientOptions { delay, ..network }, &interrupts)
            })
        }
    }
}

/// Polls a client until it has finished, and hands on every event but the last.
pub(crate) fn drive(
    network: ClientOptions,
    job: Job,
    options: TransferOptions,
    handle: impl FnMut(ClientEvent),
) -> Result<Outcome, Complaint> {
    follow(Client::start(network, job, options)?, handle)
}

fn follow(mut client: Client, mut handle: impl FnMut(ClientEvent)) -> Result<Outcome, Complaint> {
    loop {
        let events = client
            .poll(None)
            .map_err(|error| Complaint::io("wait for the network", &error))?;
        for event in events {
            match event {
                ClientEvent::Finished(outcome) => return Ok(outcome),
                other => handle(other),
            }
        }
    }
}

/// Turns a client's events into output.
struct Reporter<'a> {
    console: &'a Console,
    run: Run,
    display: Display,
    failures: Failures,
    warnings: Failures,
    /// Entries with which something was done.
    items: u64,
}

impl Reporter<'_> {
    fn new(console: &Console, run: Run, now: Instant) -> Reporter<'_> {
        Reporter {
            console,
            run,
            display: Display::new(now),
            failures: Failures::default(),
            warnings: Failures::default(),
            items: 0,
        }
    }

    fn handle(&mut self, event: ClientEvent, now: Instant) {
        let console = self.console;
        match event {
            ClientEvent::Connected {
                server,
                name,
                paired,
                first_use,
            } => {
                connected(console, server, &name, paired, first_use);
            }
            ClientEvent::Retrying { attempt, wait, reason } => retrying(console, attempt, wait, &reason),
            ClientEvent::Queued { position, estimate } => queued(console, position, estimate),
            ClientEvent::Mapped(mapping) => {
                console.note(&format!("{} -> {}", plain(&mapping.source), plain(&mapping.target)));
                console.object(&json!({
                    "event": "status", "state": "mapped", "source": mapping.source, "target": mapping.target,
                }));
            }
            ClientEvent::Item {
                path,
                action,
                size,
                figures,
            } => {
                self.items += 1;
                if self.run == Run::Dry || console.verbosity() >= Verbosity::Items {
                    console.data(&report::item_text(&path, action, size, figures, self.run));
                }
                console.object(&report::item_object(&path, action, size, figures));
            }
            ClientEvent::Failed { path, code, warning } => {
                let list = if warning {
                    &mut self.warnings
                } else {
                    &mut self.failures
                };
                list.add(&path, code);
                console.object(&report::failure_object(&path, code, warning));
            }
            ClientEvent::Progress(progress) => self.display.handle(console, &progress, now),
            // None comes here: a status is no transfer, nor is a sync, and the end is taken out by `drive`.
            ClientEvent::Status(_)
            | ClientEvent::Finished(_)
            | ClientEvent::Conflict { .. }
            | ClientEvent::Collision { .. }
            | ClientEvent::Planned { .. }
            | ClientEvent::InSync { .. } => {}
        }
    }

    fn finish(self, outcome: Outcome, idle: Idle) -> Result<Ending, Complaint> {
        let console = self.console;
        console.clear();
        let summary = outcome.summary;
        self.list(&self.warnings, &console.yellow("left out:"), Verbosity::Normal);
        self.list(&self.failures, &console.red("failed:"), Verbosity::Quiet);
        match outcome.result {
            Ok(()) => {
                let moved = match self.items {
                    0 => Moved::Nothing,
                    _ => Moved::Something,
                };
                let exit = Exit::of_summary(&summary, moved, idle);
                let mark = if exit == Exit::Partial {
                    console.yellow("!")
                } else {
                    console.green("✓")
                };
                console.note(&format!(
                    "{mark} {}",
                    report::summary_text(&summary, self.run, self.items)
                ));
                Ok(Ending { exit, summary })
            }
            Err(error) => {
                if self.items > 0 || did_something(&summary) {
                    console.note(&format!(
                        "so far: {}",
                        report::summary_text(&summary, self.run, self.items)
                    ));
                }
                Err(Complaint {
                    summary: Box::new(summary),
                    ..Complaint::from(error)
                })
            }
        }
    }

    /// Items are listed for people only: scripts have had an object for each.
    fn list(&self, failures: &Failures, title: &str, from: Verbosity) {
        let lines = failures.lines();
        let console = self.console;
        if lines.is_empty() || console.format() == Format::Json || console.verbosity() < from {
            return;
        }
        console.failure(&format!("{title}\n{}", lines.join("\n")), &json!({}));
    }
}

/// A connection attempt failed and is made again.
pub(crate) fn retrying(console: &Console, attempt: u32, wait: Duration, reason: &str) {
    let reason = plain(reason);
    console.note(&format!(
        "{reason}; attempt {} in {}",
        attempt + 1,
        quantity::duration(wait)
    ));
    console.object(&json!({
        "event": "status", "state": "retrying", "attempt": attempt,
        "wait_seconds": wait.as_secs_f64(), "reason": reason,
    }));
}

/// The server has others before us.
pub(crate) fn queued(console: &Console, position: u32, estimate: Option<Duration>) {
    let about = estimate.map_or_else(String::new, |estimate| {
        format!(", about {}", quantity::duration(estimate))
    });
    console.note(&format!("waiting for the server: place {position} in line{about}"));
    console.object(&json!({
        "event": "status", "state": "queued", "position": position,
        "estimate_seconds": estimate.map(|estimate| estimate.as_secs_f64()),
    }));
}

fn did_something(summary: &Summary) -> bool {
    summary.files > 0 || summary.literal_bytes > 0 || summary.deleted > 0
}

fn connected(console: &Console, server: Option<DeviceId>, name: &str, paired: bool, first_use: bool) {
    if let Some(greeting) = greeting(server, name, paired, first_use) {
        console.note(&greeting);
    }
    tell_connected(console, server, name, paired, first_use);
}

/// What a user hears of a server that was not known before.
pub(crate) fn greeting(server: Option<DeviceId>, name: &str, paired: bool, first_use: bool) -> Option<String> {
    let (name, short) = (plain(name), server?.short());
    match (paired, first_use) {
        (true, _) => Some(format!("Paired with {name} ({short}).")),
        (false, true) => Some(format!(
            "First contact with {name} ({short}); compare that with what it shows. From now on it must be the same."
        )),
        (false, false) => None,
    }
}

/// The same for scripts.
pub(crate) fn tell_connected(console: &Console, server: Option<DeviceId>, name: &str, paired: bool, first_use: bool) {
    let name = plain(name);
    console.object(&json!({
        "event": "status", "state": "connected", "server": server.map(|id| id.to_string()),
        "name": name, "paired": paired, "first_use": first_use,
    }));
}

#[cfg(test)]
mod tests {
    use super::super::console::capture;
    use super::*;
    use syncline::model::{ItemCode, RelPath};
    use syncline::node::{Action, Figures};

    fn network(plain: bool, yes: bool) -> NetworkFlags {
        NetworkFlags {
            bwlimit: None,
            plain,
            yes,
            timeout: Duration::from_secs(1),
            retries: 0,
        }
    }

    fn failed(path: &str, warning: bool) -> ClientEvent {
        ClientEvent::Failed {
            path: path.to_owned(),
            code: ItemCode::Permission,
            warning,
        }
    }

    fn ended(summary: Summary, result: Result<(), JobError>) -> Outcome {
        Outcome {
            summary,
            result,
            come_back: None,
        }
    }

    fn created(path: &[u8]) -> ClientEvent {
        ClientEvent::Item {
            path: RelPath::parse(path).unwrap(),
            action: Action::Created,
            size: 3,
            figures: Figures::default(),
        }
    }

    #[test]
    fn plain_beyond_this_machine_must_be_asked_for_twice() {
        let far: Link = "syncline://192.0.2.1:1/S".parse().unwrap();
        assert_eq!(network(false, false).check_plain(&far).is_ok(), cfg!(feature = "tls"));
        assert_eq!(network(true, false).check_plain(&far).unwrap_err().exit.code(), 2);
        assert!(network(true, true).check_plain(&far).is_ok());
        for near in ["127.0.0.1", "127.8.9.1", "[::1]", "localhost"] {
            let link = format!("syncline://{near}:1/S").parse().unwrap();
            assert!(network(true, false).check_plain(&link).is_ok(), "{near}");
        }
        let named: Link = format!("syncline://127.0.0.1:1/S#{}", "ab".repeat(32)).parse().unwrap();
        assert!(network(true, true).check_plain(&named).is_err());
    }

    #[test]
    fn one_bad_file_is_repeated_at_the_end_and_sets_the_code() {
        let (console, out, err) = capture::console(Format::Text, Verbosity::Normal);
        let mut reporter = Reporter::new(&console, Run::Real, Instant::now());
        reporter.handle(created(b"good"), Instant::now());
        reporter.handle(failed("bad\n", false), Instant::now());
        reporter.handle(failed("fifo", true), Instant::now());
        let summary = Summary {
            files: 1,
            files_transferred: 1,
            failed: 1,
            ..Summary::default()
        };
        let ending = reporter.finish(ended(summary, Ok(())), Idle::Fine).unwrap();
        assert_eq!(ending.exit, Exit::Partial);
        let text = err.text();
        assert!(
            text.contains("failed:\n  bad\\n: permission denied; check the owner"),
            "{text}"
        );
        assert!(text.contains("left out:\n  fifo"), "{text}");
        assert_eq!(out.text(), "");
    }

    #[test]
    fn a_dry_run_lists_on_stdout_what_it_would_do() {
        let (console, out, _) = capture::console(Format::Text, Verbosity::Normal);
        let mut reporter = Reporter::new(&console, Run::Dry, Instant::now());
        reporter.handle(created(b"a"), Instant::now());
        assert_eq!(out.text(), "would be created a (3 B)\n");
    }

    #[test]
    fn an_interruption_keeps_the_figures_and_the_signal() {
        let (console, ..) = capture::console(Format::Json, Verbosity::Normal);
        let reporter = Reporter::new(&console, Run::Real, Instant::now());
        let summary = Summary {
            files: 7,
            ..Summary::default()
        };
        let result = Err(JobError::Interrupted { signal: Some(15) });
        let complaint = reporter.finish(ended(summary, result), Idle::Fine).unwrap_err();
        assert_eq!((complaint.exit.code(), complaint.summary.files), (143, 7));
    }

    #[test]
    fn quiet_runs_still_name_what_failed() {
        let (console, _, err) = capture::console(Format::Text, Verbosity::Quiet);
        let mut reporter = Reporter::new(&console, Run::Real, Instant::now());
        reporter.handle(failed("bad", false), Instant::now());
        reporter.handle(failed("fifo", true), Instant::now());
        let summary = Summary {
            failed: 1,
            ..Summary::default()
        };
        reporter.finish(ended(summary, Ok(())), Idle::Fine).unwrap();
        let text = err.text();
        assert!(
            text.contains("bad") && !text.contains("fifo") && !text.contains('!'),
            "{text}"
        );
    }
}
