//! The tracer (strace): records the calls of a process, and makes one of them fail or be the last.
//!
//! strace counts calls per thread and per name. So a point is "the third fsync of the helper thread", and
//! the tracer is attached to that thread alone. What is counted begins where it is attached: after the
//! server is ready, or the client connected. Only calls of a start are counted from exec.
//! Never touches other processes than those that it is given.

use crate::point::{Call, Fault, Thread};
use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A tracer that is attached. Detached when dropped.
pub struct Tracer {
    child: Child,
    log: PathBuf,
}

/// A call that was recorded, as the tracer printed it, with the paths of descriptors.
#[derive(Debug, Clone)]
pub struct Recorded {
    pub call: Call,
    pub text: String,
}

/// Longer than anything here takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(40);

impl Tracer {
    /// Records all calls of all threads of a process.
    pub fn record(pid: u32, log: &Path) -> Tracer {
        Tracer::attach(pid, log, &["-f", "-y", "-s", "80"])
    }

    /// Lets `fault` happen at a call of the process. `None` when it has no such thread.
    pub fn inject(pid: u32, at: &Call, fault: Fault, log: &Path) -> Option<Tracer> {
        let (thread, _) = threads(pid).into_iter().find(|(_, thread)| *thread == at.thread)?;
        let (trace, inject) = rules(at, fault);
        Some(Tracer::attach(thread, log, &["-y", "-e", &trace, "-e", &inject]))
    }

    fn attach(id: u32, log: &Path, arguments: &[&str]) -> Tracer {
        let mut child = Command::new("strace")
            .args(arguments)
            .arg("-o")
            .arg(log)
            .args(["-p", &id.to_string()])
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut said = String::new();
        let mut err = BufReader::new(child.stderr.take().unwrap());
        err.read_line(&mut said).unwrap();
        assert!(said.contains("attached"), "strace -p {id}: {said}");
        child.stderr = Some(err.into_inner());
        Tracer {
            child,
            log: log.to_path_buf(),
        }
    }

    /// Whether a call came back with less than it was told to write.
    pub fn was_short(&self) -> bool {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        text.lines().any(|line| {
            // `pwrite64(15</path>, "…"..., 100000, 0) = 50001 (DELAYED)`
            let Some((call, result)) = line.rsplit_once(") = ") else {
                return false;
            };
            let told = call.rsplit(", ").nth(1).and_then(|told| told.parse::<u64>().ok());
            let wrote = result.split(' ').next().and_then(|wrote| wrote.parse::<u64>().ok());
            matches!((told, wrote), (Some(told), Some(wrote)) if wrote < told)
        })
    }

    /// Whether the fault came to pass.
    pub fn was_injected(&self) -> bool {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        text.contains("(INJECTED)") || text.contains("killed by SIGKILL")
    }

    /// Detaches; what was recorded.
    pub fn finish(mut self) -> String {
        self.end();
        fs::read_to_string(&self.log).unwrap()
    }

    fn end(&mut self) {
        // On SIGTERM it detaches; killed, it could leave its tracee stopped.
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            self.end();
        }
    }
}

fn rules(at: &Call, fault: Fault) -> (String, String) {
    let (name, number, injection) = (&at.name, at.number, fault.injection());
    let when = match fault {
        // Any of them may be the one that crosses the size.
        Fault::Short => String::new(),
        _ => format!(":when={number}"),
    };
    (format!("trace={name}"), format!("inject={name}:{injection}{when}"))
}

/// The command that runs `program` from its start under a tracer which records (`None`) or injects. The
/// process that is spawned is the program itself.
pub fn traced_from_start(program: &str, log: &Path, fault: Option<(&Call, Fault)>) -> Command {
    let mut command = Command::new("strace");
    command.args(["-D", "-f", "-qq", "-o"]).arg(log);
    if let Some((at, fault)) = fault {
        let (trace, inject) = rules(at, fault);
        command.args(["-e", &trace, "-e", &inject]);
    } else {
        command.args(["-y", "-s", "80"]);
    }
    command.arg("--").arg(program);
    command
}

/// The threads of a process.
pub fn threads(pid: u32) -> Vec<(u32, Thread)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten()
        .flatten()
    {
        let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        let id = entry.file_name().to_str().and_then(|id| id.parse().ok());
        let thread = match name.trim() {
            "durable" => Thread::Durable,
            "bulk" => Thread::Bulk,
            _ => Thread::Loop,
        };
        found.extend(id.map(|id| (id, thread)));
    }
    found
}

/// Waits until all threads of a process, at least `count`, have nothing to do, or until it begins to end. The
/// kernel tells nobody of that: one has to look.
pub fn settle(pid: u32, count: usize) {
    let until = Instant::now() + PATIENCE;
    let mut idle = 0;
    while idle < 4 && Instant::now() < until {
        let states = states(pid);
        if states.is_empty() || states.contains(&'Z') {
            return;
        }
        let is_idle = states.len() >= count && states.iter().all(|state| *state == 'S');
        idle = if is_idle { idle + 1 } else { 0 };
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn states(pid: u32) -> Vec<char> {
    let listing = fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten()
        .flatten();
    let state = |entry: fs::DirEntry| {
        let text = fs::read_to_string(entry.path().join("stat")).ok()?;
        // The name before it is in brackets and may hold anything.
        text.rsplit(')').next()?.trim().chars().next()
    };
    listing.filter_map(state).collect()
}

/// The calls in a recording, in the order in which they began. `thread` says whose they are.
pub fn parse(text: &str, thread: impl Fn(u32) -> Option<Thread>) -> Vec<Recorded> {
    let mut counts: HashMap<(Thread, String), u32> = HashMap::new();
    let mut calls = Vec::new();
    for line in text.lines() {
        let Some((id, text)) = line.split_once(' ') else {
            continue;
        };
        let (text, Ok(id)) = (text.trim_start(), id.parse()) else {
            continue;
        };
        let name: String = text
            .chars()
            .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
            .collect();
        // Not the second half of a call, a signal or an end; and what a tracer that attaches causes.
        if name.is_empty() || !text[name.len()..].starts_with('(') || name == "restart_syscall" {
            continue;
        }
        let Some(thread) = thread(id) else { continue };
        let number = counts.entry((thread, name.clone())).or_default();
        *number += 1;
        let call = Call {
            thread,
            name,
            number: *number,
        };
        calls.push(Recorded {
            call,
            text: text.to_owned(),
        });
    }
    calls
}
