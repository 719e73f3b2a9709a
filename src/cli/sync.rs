//! `syncline sync DIR [LINK]`: a folder and a share, kept the same.
//! Never decides what goes where: the engine plans, and says what gave way.

use super::complaint::{Complaint, reason};
use super::exit::Exit;
use super::push::show;
use super::quantity;
use super::repeating::{self, Interrupts, Ran};
use super::report::plain;
use super::serve::DurabilityFlag;
use super::session::{Ending, Session};
use super::sync_report::{Parties, SyncReport};
use super::tidying::Tidying;
use super::transfer::NetworkFlags;
use super::versions::quoted;
use clap::{Args, ValueEnum};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use syncline::model::Link;
use syncline::node::{
    Client, ClientEvent, ClientOptions, Job, JobError, MaxDelete, Outcome, Surroundings, SyncOptions, SyncedFolder,
    TransferOptions, linked, surroundings,
};
use syncline::store::{Retention, RunFigures, RunKind};
use syncline::sync::Mode;

/// The flags and operands of `sync`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  syncline sync ~/Share 'syncline://nas:7171/Share#…'   the first time: both get what the other has
  syncline sync ~/Share                                 from then on: the folder remembers its share
  syncline sync ~/Share --watch                         goes on, and carries each change over at once

What is deleted or replaced is kept: `syncline versions` and `syncline restore` get it back. When both sides
changed a file, the share's version keeps the name, and yours stays beside it as
NAME.sync-conflict-DATE-DEVICE; the run then ends with code 4, and `syncline conflicts` settles it.

What takes no part is written in .synclineignore files, with the syntax of .gitignore; `syncline ls --ignored`
says which rule leaves what out. `syncline diff`, `status`, `pause`, `resume` and `unlink` take the folder, too.")]
pub(crate) struct Flags {
    /// The folder
    dir: PathBuf,
    /// The share to keep it in sync with; needed the first time only
    link: Option<String>,
    /// Go on: carry changes over as soon as they are made, on either side
    #[arg(short, long)]
    watch: bool,
    /// Do it again and again, so often
    #[arg(long, value_name = "TIME", value_parser = quantity::parse_duration, conflicts_with = "watch")]
    interval: Option<Duration>,
    /// Which side follows which
    #[arg(long, value_name = "MODE", default_value = "two-way-safe")]
    mode: ModeFlag,
    /// Refuse to delete more than this on either side: a number, a percentage, or unlimited [default: half, if over 25]
    #[arg(long, value_name = "N|N%", value_parser = quantity::parse_max_delete)]
    max_delete: Option<MaxDelete>,
    /// Keep what the sync replaces and deletes here so long, and at most so much of it: 30d, 10%, 20G, 30d,10%
    /// or forever
    #[arg(long, value_name = "AGE,SIZE", default_value = "30d,10%", value_parser = quantity::parse_retention)]
    keep_versions: Retention,
    /// When a file counts as synced: barrier is when it is safely on disk, none leaves that to the system
    #[arg(long, value_name = "WHEN", default_value = "barrier")]
    durability: DurabilityFlag,
    /// Say what would be done on either side, and do nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
    #[command(flatten)]
    network: NetworkFlags,
}

/// The modes, as they are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ModeFlag {
    /// Both sides; what both changed is kept twice
    TwoWaySafe,
    /// Both sides; what both changed is the share's, and yours goes to the versions
    TwoWayResolved,
    /// From here to the share; nothing that was changed there is lost
    OneWaySafe,
    /// From here to the share, which becomes the same; what was changed there goes to its versions
    OneWayReplica,
    /// From the share to here; what is changed here stays here
    ReceiveOnly,
}

impl From<ModeFlag> for Mode {
    fn from(flag: ModeFlag) -> Mode {
        match flag {
            ModeFlag::TwoWaySafe => Mode::TwoWaySafe,
            ModeFlag::TwoWayResolved => Mode::TwoWayResolved,
            ModeFlag::OneWaySafe => Mode::OneWaySafe,
            ModeFlag::OneWayReplica => Mode::OneWayReplica,
            ModeFlag::ReceiveOnly => Mode::ReceiveOnly,
        }
    }
}

/// Runs the command.
pub(crate) fn run(session: &Session, flags: &Flags) -> Result<Ending, Complaint> {
    let link = match &flags.link {
        Some(text) => Some(parse(text)?),
        None => None,
    };
    check_dry_run(flags)?;
    check_place(&flags.dir, Served::Refused)?;
    let known = match &link {
        Some(link) => link.clone(),
        None => linked(&flags.dir)?,
    };
    let network = flags.network.options(session, &known)?;
    let options = SyncOptions {
        mode: flags.mode.into(),
        max_delete: flags.max_delete.unwrap_or_default(),
        watch: flags.watch,
        durability: flags.durability.into(),
        dry_run: flags.dry_run,
    };
    let parties = Parties {
        folder: plain(&flags.dir.to_string_lossy()),
        share: known.share.to_string(),
        mode: options.mode,
        watch: options.watch,
        is_dry: options.dry_run,
        introduced: link.is_some(),
        peer: None,
    };
    let run = Sync {
        session,
        folder: &flags.dir,
        network,
        job: Job::Sync {
            folder: flags.dir.clone(),
            link,
            options,
        },
        parties,
        tidying: Tidying::new(flags.dir.clone(), (!flags.dry_run).then_some(flags.keep_versions)),
        connected: &|| {},
    };
    match flags.interval {
        _ if flags.watch => run.watch(),
        None => run.once(Duration::ZERO, &Interrupts::default()).ending,
        Some(every) => {
            let interrupts = watch_signals()?;
            repeating::run(session, every, |delay| run.once(delay, &interrupts))
        }
    }
}

pub(crate) fn watch_signals() -> Result<Interrupts, Complaint> {
    Interrupts::watch().map_err(|error| Complaint::io("wait for signals", &error))
}

/// How a client came to its end.
enum Left {
    Ended(Outcome),
    /// Somebody paused the folder.
    Paused,
}

/// A sync that is about to run, once or for as long as it is not ended.
struct Sync<'a> {
    session: &'a Session,
    folder: &'a Path,
    network: ClientOptions,
    job: Job,
    parties: Parties,
    tidying: Tidying,
    /// To be told that the other side let it in.
    connected: &'a dyn Fn(),
}

/// How a folder follows a peer that listens.
pub(crate) struct Following<'a> {
    pub(crate) folder: &'a Path,
    pub(crate) network: ClientOptions,
    pub(crate) link: Link,
    /// What the peer is called to users.
    pub(crate) peer: String,
    pub(crate) options: SyncOptions,
    /// They did so before: if the peer is away, it is waited for.
    pub(crate) is_settled: bool,
    /// Again and again, so often.
    pub(crate) interval: Option<Duration>,
    pub(crate) connected: &'a dyn Fn(),
}

/// Keeps a folder the same as that of a peer: once, so often, or until it is interrupted.
pub(crate) fn follow(session: &Session, following: Following<'_>) -> Result<Ending, Complaint> {
    let Following { folder, options, .. } = following;
    let run = Sync {
        session,
        folder,
        network: following.network,
        parties: Parties {
            folder: plain(&folder.to_string_lossy()),
            share: following.peer.clone(),
            mode: options.mode,
            watch: options.watch,
            is_dry: false,
            introduced: !following.is_settled,
            peer: Some(following.peer),
        },
        job: Job::Sync {
            folder: folder.to_owned(),
            link: Some(following.link),
            options: options.clone(),
        },
        tidying: Tidying::new(folder.to_owned(), Some(Retention::default())),
        connected: following.connected,
    };
    if options.watch {
        return run.watch();
    }
    let interrupts = watch_signals()?;
    match following.interval {
        None => run.once(Duration::ZERO, &interrupts).ending,
        Some(every) => repeating::run(session, every, |delay| run.once(delay, &interrupts)),
    }
}

/// How often a watch looks whether the folder was paused, and one that is paused whether it still is.
const PAUSE_LOOK: Duration = Duration::from_secs(1);
/// Until a watch tries again to reach a server that it could not.
const AWAY_WAIT: Duration = Duration::from_secs(20);

impl Sync<'_> {
    fn report(&self, begins: Instant) -> SyncReport<'_> {
        SyncReport::new(&self.session.console, self.parties.clone(), begins)
    }

    /// One run, `delay` from now.
    fn once(&self, delay: Duration, interrupts: &Interrupts) -> Ran {
        let network = ClientOptions {
            delay,
            ..self.network.clone()
        };
        if delay.is_zero() && self.is_paused() {
            return Ran {
                ending: Err(self.paused()),
                come_back: None,
            };
        }
        let mut report = self.report(Instant::now() + delay);
        let began = SystemTime::now() + delay;
        match self.run(network, &mut report, interrupts) {
            Ok(Left::Ended(outcome)) => {
                let come_back = outcome.come_back;
                let ending = report.finish(outcome);
                self.note(exit_of(&ending).code(), report.in_sync);
                self.log(began, report.changes(), &ending);
                Ran { ending, come_back }
            }
            Ok(Left::Paused) => Ran {
                ending: Err(self.paused()),
                come_back: None,
            },
            Err(complaint) => {
                self.note(complaint.exit.code(), None);
                let ending = Err(complaint);
                self.log(began, 0, &ending);
                Ran {
                    ending,
                    come_back: None,
                }
            }
        }
    }

    /// Runs until it is ended: a pause, or a server that is away, only interrupts it.
    fn watch(&self) -> Result<Ending, Complaint> {
        let interrupts = watch_signals()?;
        let mut report = self.report(Instant::now());
        let began = SystemTime::now();
        loop {
            if self.is_paused() {
                self.sit_out(&mut report, &interrupts)?;
            }
            let outcome = match self.run(self.network.clone(), &mut report, &interrupts)? {
                Left::Paused => continue,
                Left::Ended(outcome) => outcome,
            };
            let entries = report.in_sync;
            let temporary = outcome.result.as_ref().err().map(Exit::of_job) == Some(Exit::Temporary);
            if temporary && (entries.is_some() || !self.parties.introduced) {
                self.away(&mut report, outcome, &interrupts)?;
                continue;
            }
            let ending = report.finish(outcome);
            self.note(exit_of(&ending).code(), entries);
            self.log(began, report.changes(), &ending);
            return ending;
        }
    }

    fn run(
        &self,
        network: ClientOptions,
        report: &mut SyncReport<'_>,
        interrupts: &Interrupts,
    ) -> Result<Left, Complaint> {
        let mut client = Client::start(network, self.job.clone(), TransferOptions::default())?;
        // From here on the client hears of signals; one that came before is not lost either.
        if let Some(signal) = interrupts.seen() {
            return Err(JobError::Interrupted { signal: Some(signal) }.into());
        }
        let mut pausing = false;
        loop {
            let events = client
                .poll(Some(PAUSE_LOOK))
                .map_err(|error| Complaint::io("wait for the network", &error))?;
            for event in events {
                if let ClientEvent::Connected { .. } = event {
                    (self.connected)();
                }
                match event {
                    ClientEvent::Finished(outcome) => {
                        let was_ours = matches!(outcome.result, Err(JobError::Interrupted { signal: None }));
                        return Ok(if pausing && was_ours {
                            Left::Paused
                        } else {
                            Left::Ended(outcome)
                        });
                    }
                    ClientEvent::InSync { entries, .. } if self.parties.watch => {
                        if report.is_news(entries) {
                            self.note(0, Some(entries));
                        }
                        report.handle(event, Instant::now());
                    }
                    other => report.handle(other, Instant::now()),
                }
            }
            if !pausing && self.is_paused() {
                pausing = true;
                client.interrupt();
            }
        }
    }

    fn is_paused(&self) -> bool {
        SyncedFolder::open(self.folder).is_ok_and(|folder| folder.is_paused().unwrap_or(false))
    }

    fn paused(&self) -> Complaint {
        let folder = &self.parties.folder;
        Complaint::new(
            Exit::Temporary,
            format!("{folder} is paused, so nothing is carried over"),
            format!("`syncline resume {}` has it go on", quoted(folder)),
        )
    }

    /// Waits until the folder is not paused any more.
    fn sit_out(&self, report: &mut SyncReport<'_>, interrupts: &Interrupts) -> Result<(), Complaint> {
        let console = &self.session.console;
        let folder = quoted(&self.parties.folder);
        console.clear();
        console.note(&format!("paused: `syncline resume {folder}` has it go on"));
        console.object(&json!({"event": "status", "state": "paused"}));
        while self.is_paused() {
            wait(PAUSE_LOOK, interrupts)?;
        }
        console.note("resumed");
        console.object(&json!({"event": "status", "state": "resumed"}));
        // What the two have in common is said again.
        report.in_sync = None;
        Ok(())
    }

    /// The server cannot be reached; after a while it is tried again.
    fn away(&self, report: &mut SyncReport<'_>, outcome: Outcome, interrupts: &Interrupts) -> Result<(), Complaint> {
        let console = &self.session.console;
        console.clear();
        if let (Err(error), false) = (outcome.result, report.is_away) {
            console.note(&format!("{}; trying again until it is back", plain(&error.to_string())));
            console.object(&json!({"event": "status", "state": "away", "wait_seconds": AWAY_WAIT.as_secs()}));
        }
        report.is_away = true;
        let until = Instant::now() + outcome.come_back.unwrap_or(AWAY_WAIT);
        while Instant::now() < until && !self.is_paused() {
            wait(
                PAUSE_LOOK.min(until.saturating_duration_since(Instant::now())),
                interrupts,
            )?;
        }
        Ok(())
    }

    /// For `syncline log`.
    fn log(&self, began: SystemTime, changes: u64, ending: &Result<Ending, Complaint>) {
        if self.parties.is_dry {
            return;
        }
        let summary = match ending {
            Ok(ending) => &ending.summary,
            Err(complaint) => &*complaint.summary,
        };
        let began_ms = began.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let figures = RunFigures {
            files: summary.files_transferred,
            bytes: summary.bytes - summary.unchanged_bytes.min(summary.bytes),
            changes,
            failed: summary.failed,
            wire_sent: summary.wire_sent,
            wire_received: summary.wire_received,
            exit_code: Some(exit_of(ending).code()),
            reason: reason_of(ending),
            ..RunFigures::new(RunKind::Sync, u64::try_from(began_ms).unwrap_or(0))
        };
        if let Ok(folder) = SyncedFolder::open(self.folder) {
            folder.log_run(figures);
        }
    }

    /// For `syncline status`; a folder that never came to be synced has no place for it.
    fn note(&self, exit_code: u8, entries: Option<u64>) {
        self.tidying.look();
        if self.parties.is_dry {
            return;
        }
        if let Ok(folder) = SyncedFolder::open(self.folder)
            && let Err(error) = folder.note_run(exit_code, entries)
        {
            log::debug!("{error}");
        }
    }
}

/// Why a run counts as one that did not go well, if it does.
fn reason_of(ending: &Result<Ending, Complaint>) -> Option<String> {
    match ending {
        Ok(Ending { exit, summary }) => match exit {
            Exit::Partial => Some(format!("{} failed", quantity::counted(summary.failed, "entry"))),
            Exit::Temporary => Some("something kept changing".to_owned()),
            _ => None,
        },
        // Another one works there, or somebody stopped it: nothing went wrong.
        Err(complaint) if matches!(complaint.exit, Exit::Locked | Exit::Interrupted(_)) => None,
        Err(complaint) => Some(complaint.what.clone()),
    }
}

/// Waits, unless a signal came or comes.
pub(super) fn wait(time: Duration, interrupts: &Interrupts) -> Result<(), Complaint> {
    let seen = interrupts.wait(time);
    match seen.map_err(|error| Complaint::io("wait for signals", &error))? {
        Some(signal) => Err(JobError::Interrupted { signal: Some(signal) }.into()),
        None => Ok(()),
    }
}

fn exit_of(ending: &Result<Ending, Complaint>) -> Exit {
    match ending {
        Ok(ending) => ending.exit,
        Err(complaint) => complaint.exit,
    }
}

/// A dry run is one look: it is refused where there would be many, and not taken for a run.
fn check_dry_run(flags: &Flags) -> Result<(), Complaint> {
    if !flags.dry_run || !flags.watch && flags.interval.is_none() {
        return Ok(());
    }
    Err(Complaint::usage(
        "--dry-run looks once, and --watch and --interval go on, so nothing was done",
        "leave one of them out",
    ))
}

/// What it means that a folder was served as a share itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Served {
    Fine,
    Refused,
}

/// Refuses a folder that is in another one which is synced or served: the same files would go two ways.
pub(crate) fn check_place(dir: &Path, served: Served) -> Result<(), Complaint> {
    let shown = show(dir.as_os_str());
    let found = surroundings(dir).map_err(|error| {
        let what = format!("cannot use the folder {shown}: {}", reason(&error));
        Complaint::new(
            Exit::TargetMissing,
            what,
            "check the name, and that you may write there",
        )
    })?;
    let path = |path: &Path| show(path.as_os_str());
    let (what, advice) = match found {
        Surroundings::Free => return Ok(()),
        Surroundings::Share if served == Served::Fine => return Ok(()),
        Surroundings::InSynced(above, link) => (
            format!(
                "{shown} is in {}, which is synced with {}/{} already",
                path(&above),
                link.authority(),
                link.share
            ),
            "choose a folder outside of it, or `syncline unlink` that one first".to_owned(),
        ),
        Surroundings::InShare(above) => (
            format!("{shown} is in {}, which is served as a share", path(&above)),
            "choose a folder outside of it".to_owned(),
        ),
        Surroundings::Share => (
            format!("{shown} is served as a share itself"),
            "sync another folder with this one: `syncline serve` prints the command for it".to_owned(),
        ),
    };
    Err(Complaint::usage(what, advice))
}

fn parse(text: &str) -> Result<Link, Complaint> {
    if !Link::looks_like(text) {
        let what = format!("{} is no link", show(text.as_ref()));
        return Err(Complaint::usage(
            what,
            "like this: syncline sync DIR 'syncline://HOST:PORT/SHARE#…'; `syncline serve` prints one",
        ));
    }
    let link: Link = text.parse().map_err(Complaint::link)?;
    if link.path.is_some() {
        let what = "a folder is synced with a whole share, and this link names a path in one";
        return Err(Complaint::usage(
            what,
            "serve that folder as a share of its own, or use push and pull",
        ));
    }
    Ok(link)
}
