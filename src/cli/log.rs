//! `syncline log [DIR]`: what happened in a share or a synced folder.
//! Never changes anything, and needs nobody: it works beside a server or a sync.

use super::complaint::Complaint;
use super::console::Console;
use super::exit::Exit;
use super::quantity;
use super::repeating::Interrupts;
use super::report::plain;
use super::session::{Ending, Session};
use super::versions::quoted;
use clap::Args;
use std::ffi::OsString;
use std::io::IsTerminal;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use syncline::model::DeviceId;
use syncline::node::{ActivityLog, JobError, LocalClock, Summary};
use syncline::store::{ActivityEntry, ActivityPath, ActivityQuery};

/// The flags and operands of `log`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  syncline log ~/Share                           the latest, newest last
  syncline log ~/Share --since 2h --failed       what went wrong in the last two hours
  syncline log ~/Share --path '*.docx'           what became of all documents
  syncline log ~/Share/docs --device laptop      what one device did in one directory
  syncline log ~/Share -f                        goes on as it happens

Works on the machine that has the folder, also while it is served or synced. A share tells what devices did, and
while it is kept in sync with one, what was changed on its own disk (\"here\"). A synced folder tells what came and
what went. A run that changed nothing leaves no line, and what fails again and again has one a day. --json prints the
lines as they are kept; docs/FORMAT.md says what is in them.")]
pub(crate) struct Flags {
    /// A share or a synced folder, or a directory or file in one
    #[arg(value_name = "DIR", default_value = ".")]
    folder: PathBuf,
    /// At most so many lines [default: 50 on a terminal, else all]
    #[arg(short = 'n', long, value_name = "N")]
    last: Option<usize>,
    /// Nothing earlier: a time ago (30s, 10m, 2h, 1d), or a date (2026-11-20, '2026-11-20 21:47')
    #[arg(long, value_name = "WHEN")]
    since: Option<String>,
    /// Only what is about this path and all beneath it, or paths that match this pattern
    #[arg(long, value_name = "PATH|GLOB")]
    path: Option<OsString>,
    /// Only what this device did: a name, an id, an address, or here
    #[arg(long, value_name = "NAME")]
    device: Option<String>,
    /// Only what did not work
    #[arg(long)]
    failed: bool,
    /// Go on: show what happens as it happens, until Ctrl-C
    #[arg(short, long)]
    follow: bool,
}

/// How often somebody who follows looks.
const FOLLOW_LOOK: Duration = Duration::from_millis(300);
/// Lines on a terminal, unless told otherwise.
const LINES_DEFAULT: usize = 50;

/// Runs the command.
pub(crate) fn run(session: &Session, flags: &Flags) -> Result<Ending, Complaint> {
    let console = &session.console;
    let clock = LocalClock::here();
    let mut log = ActivityLog::find(&flags.folder)?;
    let shown = quoted(&plain(&flags.folder.to_string_lossy()));
    let is_fresh = log.is_empty();
    let query = query(flags, &log, &clock)?;
    let on_terminal = std::io::stdout().is_terminal();
    let default = if on_terminal { LINES_DEFAULT } else { usize::MAX };
    let (entries, earlier) = log.search(&query, flags.last.unwrap_or(default))?;
    let width = width_of(&entries);
    print(&entries, console, &clock, width);
    let mut count = entries.len() as u64;
    if earlier > 0 && flags.last.is_none() {
        console.note(&format!(
            "{} before these: -n N shows more",
            quantity::counted(earlier, "line")
        ));
    }
    if flags.follow {
        let interrupts = Interrupts::watch().map_err(|error| Complaint::io("wait for signals", &error))?;
        while !console.reader_is_gone() {
            let signal = interrupts.wait(FOLLOW_LOOK);
            if let Some(signal) = signal.map_err(|error| Complaint::io("wait for signals", &error))? {
                let exit = Exit::of_job(&JobError::Interrupted { signal: Some(signal) });
                return Ok(ending(exit, count));
            }
            let (entries, _) = log.search(&query, usize::MAX)?;
            print(&entries, console, &clock, width.max(width_of(&entries)));
            count += entries.len() as u64;
        }
    } else if entries.is_empty() {
        console.note(&match is_fresh {
            true => format!("nothing has happened in {shown} since it keeps a log"),
            false => format!("nothing of that is in the log; `syncline log {shown}` shows all there is"),
        });
    }
    Ok(ending(Exit::Done, count))
}

fn ending(exit: Exit, files: u64) -> Ending {
    let summary = Summary {
        files,
        ..Summary::default()
    };
    Ending { exit, summary }
}

fn width_of(entries: &[ActivityEntry]) -> usize {
    let width = entries.iter().map(|entry| who(entry).chars().count()).max();
    width.unwrap_or(0).min(WHO_CHARS_MAX)
}

fn print(entries: &[ActivityEntry], console: &Console, clock: &LocalClock, width: usize) {
    for entry in entries {
        if console.reader_is_gone() {
            break;
        }
        console.data(&line(entry, console, clock, width));
        console.object_text(entry.text());
    }
}

fn query(flags: &Flags, log: &ActivityLog, clock: &LocalClock) -> Result<ActivityQuery, Complaint> {
    let path = match &flags.path {
        None => None,
        Some(text) => Some(ActivityPath::parse(text.as_bytes()).map_err(|error| {
            let what = format!("{} is no pattern: {error}", plain(&text.to_string_lossy()));
            Complaint::usage(what, "write it as in .gitignore, in quotes: --path '*.docx'")
        })?),
    };
    Ok(ActivityQuery {
        since_ms: flags.since.as_deref().map(|text| since(text, clock)).transpose()?,
        path,
        within: log.within().map(ActivityPath::beneath),
        who: flags.device.clone(),
        failed: flags.failed,
    })
}

/// `2h` or `2026-11-20`, in milliseconds since 1970.
fn since(text: &str, clock: &LocalClock) -> Result<u64, Complaint> {
    if let Some(at_ms) = clock.parse_ms(text) {
        return Ok(at_ms);
    }
    let ago = quantity::parse_duration(text).map_err(|_| {
        Complaint::usage(
            format!("--since {} is no time", quoted(&plain(text))),
            "write how long ago (30s, 10m, 2h, 1d) or a date (2026-11-20, '2026-11-20 21:47')",
        )
    })?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(u64::try_from(now.saturating_sub(ago).as_millis()).unwrap_or(u64::MAX))
}

/// More than this is cut.
const WHO_CHARS_MAX: usize = 30;
const WHAT_CHARS: usize = 8;

/// `2026-11-20 21:47:31  laptop (4XQ7-M2KD)  created     12 KiB  docs/report.docx`.
fn line(entry: &ActivityEntry, console: &Console, clock: &LocalClock, width: usize) -> String {
    let what = what(entry);
    let padding = " ".repeat(WHAT_CHARS.saturating_sub(what.chars().count()));
    let what = match entry.event() {
        "error" | "refused" => console.red(&what),
        "conflict" | "unlisted" | "revoked" => console.yellow(&what),
        "run" if entry.is_failure() => console.red(&what),
        "run" | "paired" => console.green(&what),
        _ => what,
    };
    let size = entry.number("size").map(quantity::size).unwrap_or_default();
    let who: String = who(entry).chars().take(width).collect();
    let text = format!(
        "{}  {who:width$}  {what}{padding}  {size:>8}  {}",
        clock.text(entry.at_ms()),
        detail(entry)
    );
    text.trim_end().to_owned()
}

fn field(entry: &ActivityEntry, key: &str) -> String {
    plain(entry.field(key).unwrap_or_default())
}

/// `laptop (4XQ7-M2KD)`, `192.168.1.7`, `here`.
fn who(entry: &ActivityEntry) -> String {
    let name = field(entry, "who");
    let device = entry.field("device").and_then(|id| id.parse::<DeviceId>().ok());
    match device {
        Some(device) => format!("{name} ({})", device.short()),
        None => name,
    }
}

fn what(entry: &ActivityEntry) -> String {
    let is_content = |action| matches!(action, "created" | "replaced" | "in_place");
    match (entry.event(), entry.field("action"), entry.field("side")) {
        ("item", Some(action), Some(side)) if is_content(action) => plain(side),
        ("item", Some("in_place"), _) => "changed".to_owned(),
        ("item", Some(action), _) => plain(action),
        ("error", ..) => "failed".to_owned(),
        ("run", ..) => field(entry, "run"),
        ("unlisted", ..) => "and more".to_owned(),
        (event, ..) => plain(event),
    }
}

fn detail(entry: &ActivityEntry) -> String {
    let path = field(entry, "path");
    match entry.event() {
        "item" => match (entry.field("from"), entry.field("action")) {
            (Some(from), _) => format!("{path} (was {})", plain(from)),
            (None, Some("in_place")) => format!("{path} (in place)"),
            (None, Some("made")) => format!("{path}/"),
            (None, _) => path,
        },
        "conflict" => match entry.field("copy") {
            Some(copy) => format!("{path}, the other version is {}", plain(copy)),
            None => format!("{path}, the other version is among the versions"),
        },
        "error" => format!("{path}: {}", field(entry, "reason")),
        "run" => run_text(entry),
        "paired" => format!("may {}", field(entry, "rights")),
        "revoked" => "its rights were taken back".to_owned(),
        "refused" => match entry.number("unlisted") {
            Some(others) => format!("{} ({} before that)", field(entry, "reason"), quantity::count(others)),
            None => field(entry, "reason"),
        },
        "unlisted" => format!(
            "{} not listed here",
            quantity::counted(entry.number("entries").unwrap_or(0), "entry")
        ),
        _ => path,
    }
}

/// `3 files, 12 KiB, 4 changes in 0.20 s; 1 entry failed`.
fn run_text(entry: &ActivityEntry) -> String {
    let number = |key| entry.number(key).unwrap_or(0);
    let took = Duration::from_millis(entry.at_ms().saturating_sub(number("began_ms")));
    let mut parts = Vec::new();
    if number("files") > 0 {
        parts.push(quantity::counted(number("files"), "file"));
        parts.push(quantity::size(number("bytes")));
    }
    if number("changes") > 0 {
        parts.push(quantity::counted(number("changes"), "change"));
    }
    if parts.is_empty() {
        parts.push("nothing".to_owned());
    }
    let mut text = format!("{} in {}", parts.join(", "), quantity::duration(took));
    if number("unlisted") > 0 {
        text += &format!("; {} of them not listed here", quantity::count(number("unlisted")));
    }
    match (entry.field("reason"), number("failed")) {
        (Some(reason), _) => text += &format!("; {}", plain(reason)),
        (None, 0) => {}
        (None, failed) => text += &format!("; {} failed", quantity::counted(failed, "entry")),
    }
    text
}
