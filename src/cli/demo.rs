//! `syncline demo [DIR]`: the whole thing on this machine: a real server in a process of its own and a
//! real client, over TLS on loopback, in temporary directories.
//! Never changes anything in the user's folder: the edit is made in data of our own.
//!
//! 1. make a sample, start the server, spend its invite with a full push;
//! 2. edit the sample, push again;
//! 3. pull everything into a new folder, compare it with what was pushed;
//! 4. stop the server, remove all that was made.

use super::complaint::Complaint;
use super::console::Console;
use super::exit::Exit;
use super::progress::Display;
use super::push::show;
use super::quantity;
use super::report::{failure_text, plain};
use super::sample::{self, Shape, Totals};
use super::scratch::Scratch;
use super::serve;
use super::session::{Ending, Session};
use super::transfer;
use clap::Args;
use serde_json::{Value, json};
use std::fs;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};
use syncline::model::{Link, Timetable};
use syncline::node::{ClientEvent, ClientOptions, Job, Source, Summary, TransferOptions};

/// The operand of `demo`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  syncline demo              with a made folder of 64 MiB
  syncline demo ~/Pictures   with a folder of yours, which is only read

Everything happens in the temporary directory ($TMPDIR) and is removed at the end.")]
pub(crate) struct Flags {
    /// A folder to try it with [default: a made one]
    #[arg(value_name = "DIR")]
    folder: Option<PathBuf>,
}

/// Runs the command.
pub(crate) fn run(session: &Session, flags: &Flags) -> Result<Ending, Complaint> {
    let console = &session.console;
    let scratch = Scratch::create(&std::env::temp_dir(), "syncline-demo-")
        .map_err(|error| Complaint::io("make a temporary directory", &error))?;
    let stage = Stage::prepare(console, scratch.path(), flags.folder.as_deref())?;
    let server = ServerProcess::start(scratch.path())?;
    console.data(&format!(
        "Server on {}, {}",
        server.link.authority(),
        if cfg!(feature = "tls") {
            "TLS 1.3"
        } else {
            "without TLS"
        }
    ));
    console.data(HEADER);
    let steps = stage.play(console, &server)?;
    server.stop()?;
    stage.compare(console)?;
    let mut summary = Summary::default();
    steps.iter().for_each(|step| serve::add(&mut summary, step));
    let exit = if summary.failed > 0 { Exit::Partial } else { Exit::Done };
    Ok(Ending { exit, summary })
}

const HEADER: &str = "step             files     content     on the wire        time          rate";

/// With nothing of the user's: enough to see a rate.
const SHAPE_ALONE: Shape = Shape {
    large_bytes: 48 << 20,
    small_files: 400,
};
/// Beside the user's folder: only what the edit needs.
const SHAPE_BESIDE: Shape = Shape {
    large_bytes: 8 << 20,
    small_files: 40,
};

/// What is pushed and where it is.
struct Stage {
    sources: Vec<PathBuf>,
    made: PathBuf,
    pulled: PathBuf,
    home: PathBuf,
}

impl Stage {
    fn prepare(console: &Console, root: &Path, folder: Option<&Path>) -> Result<Stage, Complaint> {
        let made = root.join("made-for-the-demo");
        let mut sources = Vec::new();
        let shape = match folder {
            None => SHAPE_ALONE,
            Some(folder) => {
                let folder = usable(folder)?;
                let totals = sample::measure(&folder);
                check_space(root, totals)?;
                console.data(&format!(
                    "Your folder {}: {}",
                    show(folder.as_os_str()),
                    describe(totals)
                ));
                sources.push(folder);
                SHAPE_BESIDE
            }
        };
        sample::make(&made, shape).map_err(|error| Complaint::io("make the demo's data", &error))?;
        console.data(&format!(
            "Made {}: {}",
            show(made.as_os_str()),
            describe(sample::measure(&made))
        ));
        sources.push(made.clone());
        let stage = Stage {
            sources,
            made,
            pulled: root.join("pulled"),
            home: root.join("client"),
        };
        fs::create_dir(root.join("served"))
            .and_then(|()| fs::create_dir(&stage.pulled))
            .map_err(|error| Complaint::io("make a temporary directory", &error))?;
        Ok(stage)
    }

    fn play(&self, console: &Console, server: &ServerProcess) -> Result<[Summary; 3], Complaint> {
        // The invite is spent by the first step; after that the key is enough.
        let mut known = server.link.clone();
        if let Some(secret) = &mut known.secret {
            secret.invite = None;
        }
        let sources = self.sources.iter().map(|path| Source {
            path: path.clone(),
            contents_only: false,
        });
        let sources: Vec<_> = sources.collect();
        let push = |target: &Link| Job::Push {
            sources: sources.clone(),
            target: target.clone(),
        };
        let first = self.step(console, "full push", push(&server.link))?;
        sample::edit(&self.made).map_err(|error| Complaint::io("edit the demo's data", &error))?;
        let second = self.step(console, "push of edit", push(&known))?;
        let whole = Link {
            trailing_slash: true,
            ..known
        };
        let pull = Job::Pull {
            links: vec![whole],
            target: self.pulled.clone(),
            target_is_directory: true,
        };
        Ok([first, second, self.step(console, "pull", pull)?])
    }

    fn step(&self, console: &Console, name: &str, job: Job) -> Result<Summary, Complaint> {
        let network = ClientOptions {
            home: self.home.clone(),
            plain: !cfg!(feature = "tls"),
            bandwidth: Timetable::default(),
            timeout: Duration::from_secs(60),
            retries: 1,
            delay: Duration::ZERO,
            handle_signals: true,
        };
        let mut display = Display::new(Instant::now());
        let outcome = transfer::drive(network, job, TransferOptions::default(), |event| match event {
            ClientEvent::Progress(progress) => {
                display.handle(console, &progress, Instant::now());
            }
            ClientEvent::Failed {
                path,
                code,
                warning: false,
            } => console.note(&failure_text(&path, code)),
            _ => {}
        })?;
        console.clear();
        outcome.result?;
        console.data(&row(name, &outcome.summary));
        console.object(&object(name, &outcome.summary));
        Ok(outcome.summary)
    }

    fn compare(&self, console: &Console) -> Result<(), Complaint> {
        let mut totals = Totals::default();
        for source in &self.sources {
            let name = sample::arrival_name(source).expect("a usable folder has a name");
            let copy = self.pulled.join(name);
            let found =
                sample::difference(source, &copy).map_err(|error| Complaint::io("compare the folders", &error))?;
            if let Some(what) = found {
                let advice = "if nothing else was changing that folder meanwhile, please report it";
                return Err(Complaint::new(
                    Exit::Error,
                    format!("what came back is not what was sent: {what}"),
                    advice,
                ));
            }
            let part = sample::measure(&copy);
            totals.files += part.files;
            totals.bytes += part.bytes;
        }
        console.data(&format!(
            "{} What came back is what was sent: {}",
            console.green("✓"),
            describe(totals)
        ));
        Ok(())
    }
}

/// The user's folder with its full path.
fn usable(folder: &Path) -> Result<PathBuf, Complaint> {
    let advice = "name a folder that exists, or none: syncline demo";
    let full = folder.canonicalize().map_err(|error| {
        let reason = super::complaint::reason(&error);
        Complaint::new(
            Exit::Error,
            format!("cannot read {}: {reason}", show(folder.as_os_str())),
            advice,
        )
    })?;
    if !full.is_dir() || sample::arrival_name(&full).is_none() {
        return Err(Complaint::new(
            Exit::Error,
            format!("{} cannot be used for a demo", show(folder.as_os_str())),
            advice,
        ));
    }
    Ok(full)
}

/// The server's copy, the pulled copy, and the made data.
fn check_space(root: &Path, totals: Totals) -> Result<(), Complaint> {
    let needed = totals.bytes.saturating_mul(2).saturating_add(64 << 20);
    let facts = rustix::fs::statvfs(root).map_err(|error| Complaint::io("ask for the free space", &error.into()))?;
    let free = facts.f_bavail.saturating_mul(facts.f_frsize);
    if free >= needed {
        return Ok(());
    }
    let place = show(std::env::temp_dir().as_os_str());
    let what = format!(
        "the demo needs {} in {place}, and {} are free",
        quantity::size(needed),
        quantity::size(free)
    );
    Err(Complaint::new(
        Exit::Safety,
        what,
        "use a smaller folder, or set TMPDIR to a place with room",
    ))
}

fn describe(totals: Totals) -> String {
    format!(
        "{}, {}",
        quantity::counted(totals.files, "file"),
        quantity::size(totals.bytes)
    )
}

fn row(name: &str, summary: &Summary) -> String {
    let rate = quantity::per_second(summary.literal_bytes, summary.elapsed);
    format!(
        "{name:<14} {:>7} {:>11} {:>15} {:>11} {:>13}",
        quantity::count(summary.files_transferred),
        quantity::size(summary.literal_bytes),
        quantity::size(summary.wire_sent + summary.wire_received),
        quantity::duration(summary.elapsed),
        quantity::rate(rate),
    )
}

fn object(name: &str, summary: &Summary) -> Value {
    json!({
        "event": "item", "step": name, "files": summary.files, "files_transferred": summary.files_transferred,
        "literal_bytes": summary.literal_bytes, "wire_sent": summary.wire_sent,
        "wire_received": summary.wire_received, "seconds": summary.elapsed.as_secs_f64(),
    })
}

/// The server, as anyone would start it.
struct ServerProcess {
    child: Child,
    link: Link,
    // Kept open, so that the server's later lines have a reader.
    _output: BufReader<ChildStdout>,
}

impl ServerProcess {
    fn start(root: &Path) -> Result<ServerProcess, Complaint> {
        let program = std::env::current_exe().map_err(|error| Complaint::io("find my own program", &error))?;
        let mut command = Command::new(program);
        command.arg("serve").arg(root.join("served"));
        command
            .args(["--name", "Demo", "--listen", "127.0.0.1:0", "--json", "--home"])
            .arg(root.join("server"));
        if !cfg!(feature = "tls") {
            command.args(["--plain", "--open", "write"]);
        }
        // What the user has set for real servers is not meant for this one.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"SYNCLINE_")) {
            command.env_remove(name);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command
            .spawn()
            .map_err(|error| Complaint::io("start the server", &error))?;
        let mut output = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let mut line = String::new();
        let link = output.read_line(&mut line).ok().and_then(|_| link_of(&line));
        match link {
            Some(link) => Ok(ServerProcess {
                child,
                link,
                _output: output,
            }),
            None => {
                let _ = child.kill();
                let _ = child.wait();
                let what = format!("the server did not start: {}", plain(&message_of(&line)));
                Err(Complaint::new(Exit::Error, what, "`syncline doctor` may know why"))
            }
        }
    }

    /// Ends it as a service manager would, and waits until it has finished.
    fn stop(mut self) -> Result<(), Complaint> {
        let pid = rustix::process::Pid::from_child(&self.child);
        let ended = rustix::process::kill_process(pid, rustix::process::Signal::TERM)
            .map_err(io::Error::from)
            .and_then(|()| self.child.wait());
        match ended {
            Ok(status) if status.success() => Ok(()),
            Ok(_) => Err(Complaint::new(
                Exit::Error,
                "the server did not end in order",
                "please report this",
            )),
            Err(error) => Err(Complaint::io("stop the server", &error)),
        }
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        // Does nothing to a process that was waited for already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn link_of(ready: &str) -> Option<Link> {
    let object: Value = serde_json::from_str(ready).ok()?;
    object["shares"][0]["invite"].as_str()?.parse().ok()
}

fn message_of(line: &str) -> String {
    let object: Option<Value> = serde_json::from_str(line).ok();
    let message = object.as_ref().and_then(|object| object["message"].as_str());
    message.unwrap_or("it said nothing").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_stand_below_their_headings() {
        let summary = Summary {
            files_transferred: 401,
            literal_bytes: 64 << 20,
            wire_sent: 64 << 20,
            wire_received: 9 << 10,
            elapsed: Duration::from_millis(250),
            ..Summary::default()
        };
        let row = row("full push", &summary);
        assert_eq!(
            row,
            "full push          401      64 MiB          64 MiB      0.25 s     256 MiB/s"
        );
        assert_eq!(row.chars().count(), HEADER.chars().count());
    }

    #[test]
    fn the_servers_first_line_is_the_link_or_the_reason() {
        let ready = r#"{"event":"ready","shares":[{"invite":"syncline://127.0.0.1:7/Demo"}]}"#;
        assert_eq!(link_of(ready).unwrap().port, 7);
        assert!(link_of("").is_none());
        assert_eq!(message_of(r#"{"event":"error","message":"no"}"#), "no");
        assert_eq!(message_of(""), "it said nothing");
    }

    #[test]
    fn a_folder_that_does_not_fit_is_refused_before_anything_is_copied() {
        let folder = tempfile::tempdir().unwrap();
        let huge = Totals {
            files: 1,
            bytes: u64::MAX / 2,
        };
        assert_eq!(check_space(folder.path(), huge).unwrap_err().exit.code(), 7);
        assert!(check_space(folder.path(), Totals::default()).is_ok());
        assert!(usable(Path::new("/")).is_err());
        assert!(usable(Path::new("/nonexistent")).is_err());
    }
}
