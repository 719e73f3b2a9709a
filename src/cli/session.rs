//! One run from its arguments to its exit code: parse, set up output and logs, dispatch, print the
//! one error, close with the summary. Never knows what a command does.
//!
//! Invariant: the last object of a `--json` run is the summary, however the run ended, and its
//! `exit_code` is the process's.

use super::complaint::Complaint;
use super::config::{self, Settings};
use super::console::{Console, Format, LIVE_BYTES_MAX, Paint, Verbosity, is_writable};
use super::exit::Exit;
use super::flags::{self, Cli, Color, Shared, Verb};
use super::{
    absent, conflicts, devices, doctor, id, invite, journal, log, pull, push, report, restore, revoke, serve, status,
    trash, versions,
};
use clap::FromArgMatches;
use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::panic;
use std::path::PathBuf;
use std::process::ExitCode;
use syncline::node::Summary;
use syncline::store::Home;

/// What a command works with.
pub(crate) struct Session {
    /// Where output goes.
    pub(crate) console: Console,
    home: Option<PathBuf>,
}

/// How a command ended that did not fail as a whole.
#[derive(Debug)]
pub(crate) struct Ending {
    /// The exit code's meaning.
    pub(crate) exit: Exit,
    /// The figures for scripts.
    pub(crate) summary: Summary,
}

impl Session {
    /// A session that talks to the given console.
    pub(crate) fn new(console: Console, home: Option<PathBuf>) -> Session {
        Session { console, home }
    }

    /// The path of the state directory, from `--home` or the environment.
    pub(crate) fn home_path(&self) -> Result<PathBuf, Complaint> {
        self.home.clone().or_else(Home::default_path).ok_or_else(|| {
            Complaint::usage(
                "I do not know where to keep keys and state",
                "set HOME, or use --home DIR",
            )
        })
    }

    /// The state directory.
    pub(crate) fn home(&self) -> Result<Home, Complaint> {
        Ok(Home::open(&self.home_path()?)?)
    }
}

impl Ending {
    /// Ended without anything to count.
    pub(crate) fn of(exit: Exit) -> Ending {
        Ending {
            exit,
            summary: Summary::default(),
        }
    }
}

/// Runs the process's own command line.
pub(crate) fn main() -> ExitCode {
    panic::set_hook(Box::new(tell_of_panic));
    let args: Vec<OsString> = std::env::args_os().collect();
    match panic::catch_unwind(|| run(&args)) {
        Ok(exit) => ExitCode::from(exit.code()),
        // The hook has told already.
        Err(_) => ExitCode::from(end_of_panic(&args)),
    }
}

/// The summary of a run that panicked, and its exit code. The console may be in any state, so it is not used.
fn end_of_panic(args: &[OsString]) -> u8 {
    if wants_json(args) {
        let object = report::summary_object(&Summary::default(), Exit::Error.code());
        let _ = writeln!(std::io::stdout(), "{object}");
    }
    Exit::Error.code()
}

fn tell_of_panic(info: &panic::PanicHookInfo<'_>) {
    let payload = info.payload();
    let literal = payload.downcast_ref::<&str>().copied();
    let text = literal.or(payload.downcast_ref::<String>().map(String::as_str));
    let text = text.unwrap_or("no reason given");
    let place = info
        .location()
        .map(|place| format!(" at {}:{}", place.file(), place.line()));
    let line = report::plain(&format!(
        "a fault in syncline itself: {text}{}",
        place.unwrap_or_default()
    ));
    let _ = writeln!(
        std::io::stderr(),
        "syncline: {line}\n  please report this line; files that were acknowledged are safe"
    );
    if cfg!(panic = "abort") {
        // Nothing is unwound in such a build: the run ends here, on whichever thread, and with the same code.
        let args: Vec<OsString> = std::env::args_os().collect();
        std::process::exit(i32::from(end_of_panic(&args)));
    }
}

fn run(args: &[OsString]) -> Exit {
    let cli = match parse(args) {
        Ok(cli) => cli,
        Err(Unparsed::Clap(error)) => return end_of_parse(&error, args),
        Err(Unparsed::Config(complaint)) => {
            let format = if wants_json(args) { Format::Json } else { Format::Text };
            let console = Console::of_process(format, Verbosity::Normal, Paint::Bare);
            return close(&console, Err(complaint));
        }
    };
    let console = console_of(&cli.shared);
    let lists_failures = match cli.command {
        Some(Verb::Push(_) | Verb::Pull(_)) => true,
        #[cfg(feature = "sync")]
        Some(Verb::Sync(_) | Verb::Peer(_)) => true,
        _ => false,
    };
    let items = if lists_failures { Items::Listed } else { Items::Logged };
    start_log(&cli.shared, default_log(console.verbosity(), items), items);
    let session = Session::new(console, cli.shared.home);
    let result = match cli.command {
        Some(verb) => dispatch(&session, verb),
        None => {
            session.console.data(flags::EXAMPLES);
            Ok(Ending::of(Exit::Done))
        }
    };
    close(&session.console, result)
}

fn dispatch(session: &Session, verb: Verb) -> Result<Ending, Complaint> {
    match verb {
        Verb::Serve(flags) => serve::run(session, &flags),
        Verb::Push(flags) => push::run(session, &flags),
        Verb::Pull(flags) => pull::run(session, &flags),
        #[cfg(feature = "sync")]
        Verb::Sync(flags) => super::sync::run(session, &flags),
        #[cfg(feature = "sync")]
        Verb::Peer(flags) => super::peer::run(session, &flags),
        #[cfg(feature = "sync")]
        Verb::Diff(flags) => super::folder::diff(session, &flags),
        #[cfg(feature = "sync")]
        Verb::Pause(flags) => super::folder::pause(session, &flags),
        #[cfg(feature = "sync")]
        Verb::Resume(flags) => super::folder::resume(session, &flags),
        #[cfg(feature = "sync")]
        Verb::Unlink(flags) => super::folder::unlink(session, &flags),
        #[cfg(feature = "sync")]
        Verb::Ls(flags) => super::ls::run(session, &flags),
        Verb::Conflicts(flags) => conflicts::run(session, &flags),
        Verb::Invite(flags) => invite::run(session, &flags),
        Verb::Devices => devices::run(session),
        Verb::Revoke(flags) => revoke::run(session, &flags),
        Verb::Versions(flags) => versions::run(session, &flags),
        Verb::Restore(flags) => restore::run(session, &flags),
        Verb::Trash(flags) => trash::run(session, &flags),
        Verb::Status(flags) => status::run(session, &flags),
        Verb::Log(flags) => log::run(session, &flags),
        Verb::Id(flags) => id::run(session, &flags),
        Verb::Journal(flags) => journal::run(session, &flags),
        #[cfg(feature = "tools")]
        Verb::Delta(command) => super::delta::run(session, &command),
        Verb::Doctor(flags) => doctor::run(session, &flags),
        #[cfg(feature = "tools")]
        Verb::Completions(flags) => super::completions::run(session, &flags),
        #[cfg(feature = "tools")]
        Verb::Demo(flags) => super::demo::run(session, &flags),
    }
}

enum Unparsed {
    Clap(clap::Error),
    Config(Complaint),
}

fn parse(args: &[OsString]) -> Result<Cli, Unparsed> {
    let bare = flags::command(&Settings::default());
    let settings = match settings(args, &bare) {
        Ok(settings) => settings,
        // Help must come also when the config file is what somebody needs help with.
        Err(complaint) => {
            return Err(match bare.try_get_matches_from(args) {
                Err(help) if !help.use_stderr() => Unparsed::Clap(help),
                _ => Unparsed::Config(complaint),
            });
        }
    };
    let matches = flags::command(&settings).try_get_matches_from(args);
    matches
        .and_then(|matches| Cli::from_arg_matches(&matches))
        .map_err(Unparsed::Clap)
}

fn settings(args: &[OsString], command: &clap::Command) -> Result<Settings, Complaint> {
    let operands = args.get(1..).unwrap_or_default();
    let file = config::location(operands, |name| std::env::var_os(name));
    let settings = file.map_or_else(|| Ok(Settings::default()), |file| Settings::load(&file))?;
    settings.check(command)?;
    Ok(settings)
}

fn end_of_parse(error: &clap::Error, args: &[OsString]) -> Exit {
    // Help and version are data; a closed pipe is no reason to fail.
    let exit = if error.use_stderr() { Exit::Usage } else { Exit::Done };
    if exit == Exit::Usage && wants_json(args) {
        let console = Console::of_process(Format::Json, Verbosity::Normal, Paint::Bare);
        let complaint = absent::complaint(error).unwrap_or_else(|| {
            let text = error.render().to_string();
            let first = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
            Complaint::usage(first, "see `syncline --help`")
        });
        return close(&console, Err(complaint));
    }
    if let Some(complaint) = absent::complaint(error) {
        let console = Console::of_process(Format::Text, Verbosity::Normal, Paint::Bare);
        return close(&console, Err(complaint));
    }
    let _ = error.print();
    exit
}

/// Prints the error if there is one, then the summary; the code is the process's.
fn close(console: &Console, result: Result<Ending, Complaint>) -> Exit {
    console.clear();
    let ending = match result {
        Ok(ending) => ending,
        Err(complaint) => {
            console.error(&complaint.what, &complaint.advice, complaint.exit.code());
            Ending {
                exit: complaint.exit,
                summary: *complaint.summary,
            }
        }
    };
    console.object(&report::summary_object(&ending.summary, ending.exit.code()));
    if console.output_was_lost() && ending.exit == Exit::Done {
        console.error(
            "the output could not be written",
            "check the disk it goes to",
            Exit::Error.code(),
        );
        return Exit::Error;
    }
    ending.exit
}

/// Whether the user meant `--json`, when the arguments as a whole could not be parsed.
fn wants_json(args: &[OsString]) -> bool {
    args.iter().take_while(|arg| *arg != "--").any(|arg| arg == "--json")
}

fn console_of(shared: &Shared) -> Console {
    let format = if shared.json { Format::Json } else { Format::Text };
    let verbosity = match (shared.quiet, shared.verbose) {
        (true, _) => Verbosity::Quiet,
        (false, 0) => Verbosity::Normal,
        (false, 1) => Verbosity::Items,
        (false, _) => Verbosity::Debug,
    };
    let wanted = match shared.color {
        Color::Always => true,
        Color::Never => false,
        Color::Auto => {
            let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
            let dumb = std::env::var_os("TERM").is_some_and(|value| value == "dumb");
            !no_color && !dumb && std::io::stderr().is_terminal() && std::io::stdout().is_terminal()
        }
    };
    Console::of_process(format, verbosity, if wanted { Paint::Color } else { Paint::Bare })
}

/// How a user hears of single files that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Items {
    /// In a list at the end.
    Listed,
    /// In the log only.
    Logged,
}

/// What is logged unless something else was asked for. The engine's warnings are about single files: where
/// these are listed at the end, the log would tell each of them twice.
fn default_log(verbosity: Verbosity, items: Items) -> &'static str {
    match (verbosity, items) {
        (Verbosity::Quiet, _) => "error",
        (Verbosity::Normal | Verbosity::Items, Items::Logged) => "warn",
        (Verbosity::Normal | Verbosity::Items, Items::Listed) => "warn,syncline::node=error",
        (Verbosity::Debug, _) => "debug",
    }
}

fn start_log(shared: &Shared, default: &str, items: Items) {
    let environment = std::env::var("RUST_LOG").ok().filter(|filter| !filter.is_empty());
    let filter = shared
        .log_level
        .clone()
        .or(environment)
        .unwrap_or_else(|| default.to_owned());
    let mut builder = env_logger::Builder::new();
    builder.parse_filters(&filter);
    builder.format(|line, record| {
        let text = report::plain(&record.args().to_string());
        writeln!(line, "{}: {text}", record.level().as_str().to_ascii_lowercase())
    });
    if items == Items::Logged {
        builder.target(env_logger::Target::Pipe(Box::new(LiveLog)));
    }
    // A second initialisation can only come from a host's own logger, which then stays.
    let _ = builder.try_init();
}

/// The log of a server on stderr: a line that would wait for a reader is left out, as the loop must not wait.
struct LiveLog;

impl Write for LiveLog {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        let mut stderr = std::io::stderr();
        // One line comes in one piece, and a pipe that has room takes this much of it at once.
        let piece = &line[..line.len().min(LIVE_BYTES_MAX)];
        if is_writable(&stderr) {
            stderr.write_all(piece)?;
        }
        Ok(piece.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::console::capture;
    use super::*;

    /// What a transfer lists at the end is not logged as well, whether or not it is quiet.
    #[test]
    fn the_log_does_not_repeat_the_list_of_failures() {
        let quiet_engine = |verbosity| default_log(verbosity, Items::Listed).contains("syncline::node=error");
        assert!(quiet_engine(Verbosity::Normal) && quiet_engine(Verbosity::Items));
        assert_eq!(default_log(Verbosity::Normal, Items::Logged), "warn");
        assert_eq!(default_log(Verbosity::Debug, Items::Listed), "debug");
    }

    #[test]
    fn the_last_object_is_the_summary_also_when_the_run_failed() {
        let (console, out, _) = capture::console(Format::Json, Verbosity::Normal);
        let complaint = Complaint::new(Exit::Temporary, "cannot connect", "try again");
        assert_eq!(close(&console, Err(complaint)), Exit::Temporary);
        let text = out.text();
        let objects: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(objects[0]["event"], "error");
        let last = objects.last().unwrap();
        assert_eq!(
            (last["event"].as_str(), last["exit_code"].as_u64()),
            (Some("summary"), Some(5))
        );
    }

    #[test]
    fn json_is_recognised_in_broken_command_lines_but_not_among_operands() {
        let args = |list: &[&str]| list.iter().map(OsString::from).collect::<Vec<_>>();
        assert!(wants_json(&args(&["syncline", "--nonsense", "--json"])));
        assert!(!wants_json(&args(&["syncline", "id", "--", "--json"])));
    }
}
