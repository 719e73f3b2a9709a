//! The folders and processes of one crash point: a share or target with its canary, homes, logs, and
//! the real binary. Invariant: all processes that were started are gone when it is dropped.

use crate::alone;
use crate::operation::{Actor, Operation};
use crate::point::{Call, Fault};
use crate::tracer::{PATIENCE, settle, traced_from_start};
use crate::tree::{Content, Plan, Tree, content_of, read_all, read_tree};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Both versions of an operation's tree, written once, and read by all points.
pub struct Template {
    pub operation: Operation,
    dir: TempDir,
    plans: (Plan, Plan),
    /// What the receiver has before.
    pub old: Tree,
    /// What it has after.
    pub new: Tree,
}

/// Where points are played: in memory if there is room, since what a killed process leaves is in memory
/// in any case.
pub fn base() -> PathBuf {
    let memory = PathBuf::from("/dev/shm");
    let chosen = std::env::var_os("SYNCLINE_CRASH_DIR").map(PathBuf::from);
    chosen.unwrap_or_else(|| {
        if tempfile::tempdir_in(&memory).is_ok() {
            memory
        } else {
            std::env::temp_dir()
        }
    })
}

pub fn temporary(kind: &str) -> TempDir {
    let prefix = format!("syncline-crash-{kind}-");
    tempfile::Builder::new().prefix(&prefix).tempdir_in(base()).unwrap()
}

impl Template {
    pub fn new(operation: Operation) -> Template {
        let dir = temporary("template");
        let plans = operation.versions();
        let write = |plan: &Plan, name: &str| {
            let top = dir.path().join(name);
            plan.write(&top);
            read_tree(&top)
        };
        let own = write(&operation.protected(), "protected");
        let with_own = |mut tree: Tree| {
            tree.extend(
                own.iter()
                    .filter(|(_, node)| node.content().is_some())
                    .map(|(path, node)| (path.clone(), node.clone())),
            );
            tree
        };
        let old = with_own(write(&plans.0, "old"));
        let new = with_own(write(&plans.1, "new"));
        Template {
            operation,
            dir,
            plans,
            old,
            new,
        }
    }
}

impl Template {
    /// What is sent.
    pub fn source(&self) -> PathBuf {
        self.dir.path().join("new")
    }

    /// What the receiver had before.
    pub fn before(&self) -> PathBuf {
        self.dir.path().join("old")
    }
}

/// A process of the binary, with what it prints in files.
pub struct Process {
    child: Child,
    pub out: PathBuf,
    pub err: PathBuf,
    status: Option<ExitStatus>,
}

impl Process {
    fn spawn(mut command: Command, log: &Path) -> Process {
        let (out, err) = (log.with_extension("out"), log.with_extension("err"));
        let child = command
            .stdin(Stdio::null())
            .stdout(File::create(&out).unwrap())
            .stderr(File::create(&err).unwrap())
            .spawn()
            .unwrap();
        Process {
            child,
            out,
            err,
            status: None,
        }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for its end, or so long.
    pub fn pause(&self, longest: Duration) {
        let id = Pid::from_child(&self.child);
        // One that was waited for already has none.
        if let Ok(end) = pidfd_open(id, PidfdFlags::empty()) {
            let longest = Timespec::try_from(longest).unwrap();
            let _ = poll(&mut [PollFd::new(&end, PollFlags::IN)], Some(&longest));
        }
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            self.status = self.child.try_wait().unwrap();
        }
        self.status
    }

    /// Waits for its end; `None` when it does not end.
    pub fn wait(&mut self) -> Option<ExitStatus> {
        let until = Instant::now() + PATIENCE;
        while self.ended().is_none() && Instant::now() < until {
            self.pause(until - Instant::now());
        }
        self.ended()
    }

    /// Waits until it has nothing to do, or is gone; how it ended then.
    pub fn settle(&mut self) -> Option<ExitStatus> {
        settle(self.id(), 3);
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.id())).unwrap_or_default();
        let state = stat.rsplit(')').next().unwrap_or_default().trim_start();
        if state.starts_with(['Z', 'X']) {
            // Its threads may take a moment longer.
            return self.wait();
        }
        self.ended()
    }

    pub fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        let _ = Command::new("kill").args(["-s", name, &id]).status();
    }

    pub fn kill(&mut self) {
        if self.ended().is_none() {
            let _ = self.child.kill();
            self.wait();
        }
    }

    /// The objects that it printed; a line that was cut off counts for nothing.
    pub fn objects(&self) -> Vec<Value> {
        let text = fs::read_to_string(&self.out).unwrap_or_default();
        text.lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect()
    }

    pub fn complaints(&self) -> String {
        fs::read_to_string(&self.err).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What is done at the start of a process.
#[derive(Clone, Copy)]
pub enum Trace<'a> {
    None,
    Record(&'a Path),
    Inject(&'a Path, &'a Call, Fault),
}

/// The folders of a point.
pub struct Site<'a> {
    pub template: &'a Template,
    dir: TempDir,
    /// Where share, target and canary are; on the disk that is cut off, in a power cut.
    data: PathBuf,
    canary: Tree,
    started: u32,
    /// Whether a file that gets too large is an error, as with a full disk, and not the end of the process.
    pub ignores_file_size: bool,
}

impl<'a> Site<'a> {
    /// `data` is where share, target and canary go; `None` for a place of its own.
    pub fn new(template: &'a Template, data: Option<&Path>) -> Site<'a> {
        let dir = temporary("point");
        let data = data.map_or_else(|| dir.path().to_path_buf(), Path::to_path_buf);
        for name in ["share", "target", "canary/below"] {
            fs::create_dir_all(data.join(name)).unwrap();
        }
        fs::write(data.join("canary/secret"), b"CANARY").unwrap();
        fs::write(data.join("canary/below/keep"), b"CANARY BELOW").unwrap();
        let canary = read_all(&data.join("canary"));
        Site {
            template,
            dir,
            data,
            canary,
            started: 0,
            ignores_file_size: false,
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The folder that receives.
    pub fn received(&self) -> PathBuf {
        match self.template.operation.receiver() {
            Actor::Server => self.data.join("share"),
            Actor::Client => self.data.join("target"),
        }
    }

    /// Whether this binary keeps versions.
    pub fn keeps_versions(&self) -> bool {
        static KEEPS: OnceLock<bool> = OnceLock::new();
        *KEEPS.get_or_init(|| {
            let help = self
                .command("client", Trace::None)
                .args(["versions", "--help"])
                .output();
            let keeps = help.is_ok_and(|help| help.status.success());
            if !keeps {
                println!("I3 skipped: this binary keeps no versions");
            }
            keeps
        })
    }

    /// The contents of all versions that are kept of the share: each is restored under another name.
    pub fn versions(&self) -> BTreeSet<Content> {
        let share = self.received();
        let listed = self
            .command("server", Trace::None)
            .args(["versions", "--json"])
            .arg(&share)
            .output()
            .unwrap();
        let lines = String::from_utf8_lossy(&listed.stdout).into_owned();
        let objects = lines
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let mut found = BTreeSet::new();
        for version in objects.filter(|object| object["event"] == "item") {
            let (path, id) = (version["path"].as_str().unwrap(), version["version"].as_str().unwrap());
            let to = share.join("restored");
            let mut restore = self.command("server", Trace::None);
            restore
                .arg("restore")
                .arg(share.join(path))
                .args(["--version", id, "--to"])
                .arg(&to);
            let done = restore.output().unwrap();
            if done.status.success()
                && let Ok(bytes) = fs::read(&to)
            {
                found.insert(content_of(&bytes));
            }
            let _ = fs::remove_file(&to);
        }
        found
    }

    /// Whether nothing outside of the folder that receives was touched.
    pub fn is_confined(&self) -> bool {
        let source = match self.template.operation.receiver() {
            Actor::Server => self.template.dir.path().join("new"),
            Actor::Client => self.data.join("share"),
        };
        let mut source = read_tree(&source);
        source.extend(
            read_tree(&self.template.dir.path().join("protected"))
                .into_iter()
                .filter(|(_, node)| node.content().is_some()),
        );
        read_all(&self.data.join("canary")) == self.canary && source == self.template.new
    }

    /// Leaves the folders for inspection; where they are.
    pub fn keep(self) -> PathBuf {
        let Site { dir, data, .. } = self;
        let kept = dir.keep();
        if !data.starts_with(&kept) {
            // What is on a mounted disk goes with it.
            let _ = Command::new("cp").arg("-a").arg(&data).arg(kept.join("data")).status();
        }
        kept
    }

    fn command(&self, home: &str, trace: Trace<'_>) -> Command {
        let program = env!("CARGO_BIN_EXE_syncline");
        let mut command = match trace {
            Trace::None if self.ignores_file_size => {
                let mut command = Command::new("env");
                command.args(["--ignore-signal=XFSZ", program]);
                command
            }
            Trace::None => Command::new(program),
            Trace::Record(log) => traced_from_start(program, log, None),
            Trace::Inject(log, at, fault) => traced_from_start(program, log, Some((at, fault))),
        };
        alone::in_directory(&mut command, self.dir.path());
        command.arg("--home").arg(self.path(home));
        command
    }

    fn next_log(&mut self, kind: &str) -> PathBuf {
        self.started += 1;
        self.path(&format!("{:02}-{kind}.log", self.started))
    }

    /// Starts a server of the share; waits until it is ready or ended.
    pub fn serve(&mut self, trace: Trace<'_>) -> Server {
        let log = self.next_log("server");
        let mut command = self.command("server", trace);
        let share = format!("{}=Share", self.data.join("share").display());
        let arguments = ["--json", "--listen", "127.0.0.1:0", "--plain", "--open", "write"];
        command.arg("serve").arg(share).args(arguments);
        let mut process = Process::spawn(command, &log);
        let until = Instant::now() + PATIENCE;
        let mut listen = None;
        while listen.is_none() && process.ended().is_none() && Instant::now() < until {
            process.pause(Duration::from_micros(500));
            let ready = process.objects().into_iter().find(|object| object["event"] == "ready");
            listen = ready.map(|ready| ready["listen"].as_str().unwrap().to_owned());
        }
        Server { process, listen }
    }

    /// Starts the client's side of the operation: with the first version of the tree, or with the second.
    pub fn transfer(&mut self, listen: &str, version: Version, trace: Trace<'_>) -> Process {
        let log = self.next_log("client");
        let mut command = self.command("client", trace);
        let receiver = self.template.operation.receiver();
        let link = format!("syncline://{listen}/Share/");
        command.arg(if receiver == Actor::Server { "push" } else { "pull" });
        command.args(["--json", "--plain", "--retries=0", "--timeout=20s"]);
        if version == Version::New {
            command.args(self.template.operation.flags());
        }
        match receiver {
            Actor::Server => {
                let name = if version == Version::New { "new/" } else { "old/" };
                command.arg(self.template.dir.path().join(name)).arg(link);
            }
            Actor::Client => {
                command.arg(link).arg(self.data.join("target/"));
            }
        }
        Process::spawn(command, &log)
    }

    /// Brings the receiver to the first version, the sender to the second.
    pub fn prepare(&mut self, server: &mut Server) {
        let plans = &self.template.plans;
        let (share, own) = (self.data.join("share"), self.template.operation.protected());
        let pulls = self.template.operation.receiver() == Actor::Client;
        if pulls {
            plans.0.write(&share);
        }
        let mut first = self.transfer(server.listen(), Version::Old, Trace::None);
        let status = first.wait();
        assert!(status.is_some_and(|status| status.success()), "{}", first.complaints());
        if pulls {
            plans.1.write(&share);
        }
        own.add(&self.received());
        // What comes before the operation is not in question, whatever fails.
        rustix::fs::syncfs(File::open(&self.data).unwrap()).unwrap();
        server.process.settle();
    }
}

/// Which version of the tree is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    Old,
    New,
}

/// A server that was started.
pub struct Server {
    pub process: Process,
    listen: Option<String>,
}

impl Server {
    pub fn is_ready(&self) -> bool {
        self.listen.is_some()
    }

    /// Where it listens; it is ready.
    #[track_caller]
    pub fn listen(&self) -> &str {
        let error = || panic!("the server did not get ready: {}", self.process.complaints());
        self.listen.as_deref().unwrap_or_else(error)
    }
}
