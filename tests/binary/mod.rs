//! Runs the real binary as a user would, with state directories of its own.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

pub mod alone;

use serde_json::Value;
use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use tempfile::TempDir;

/// A directory with room for homes, shares and files.
pub struct Sandbox {
    dir: TempDir,
}

/// A server process; it is killed when this is dropped.
pub struct Served {
    pub child: Child,
    pub ready: Value,
}

/// What a finished run left.
#[derive(Debug)]
pub struct Run {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Sandbox {
    pub fn new() -> Sandbox {
        let sandbox = Sandbox {
            dir: tempfile::tempdir().unwrap(),
        };
        fs::create_dir(sandbox.path("share")).unwrap();
        sandbox
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file, with the directories above it.
    pub fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    /// The binary with the state directory `home`, started in the sandbox.
    pub fn command(&self, home: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_syncline"));
        alone::in_directory(&mut command, self.dir.path());
        command.arg("--home").arg(self.path(home)).stdin(Stdio::null());
        command
    }

    /// Runs the binary to its end.
    pub fn run<A: AsRef<OsStr>>(&self, args: &[A]) -> Run {
        self.run_as("client", args)
    }

    pub fn run_as<A: AsRef<OsStr>>(&self, home: &str, args: &[A]) -> Run {
        finished(&self.command(home).args(args).output().unwrap())
    }

    /// Serves `share` on a free port of loopback, with more arguments.
    pub fn serve(&self, args: &[&str]) -> Served {
        self.serve_at("127.0.0.1:0", args)
    }

    pub fn serve_at(&self, listen: &str, args: &[&str]) -> Served {
        let mut child = self
            .command("server")
            .args(["serve", "share=Share", "--json", "--listen", listen])
            .args(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        out.read_line(&mut line).unwrap();
        let Ok(ready) = serde_json::from_str(&line) else {
            let mut rest = String::new();
            child.stderr.take().unwrap().read_to_string(&mut rest).unwrap();
            panic!("the server did not get ready: {line:?} {rest}");
        };
        child.stdout = Some(out.into_inner());
        Served { child, ready }
    }
}

impl Served {
    pub fn listen(&self) -> String {
        self.ready["listen"].as_str().unwrap().to_owned()
    }

    /// The link of the only share, with its invite if it has one.
    pub fn invite(&self) -> String {
        self.ready["shares"][0]["invite"].as_str().unwrap().to_owned()
    }

    /// A link without a secret.
    pub fn link(&self, path: &str) -> String {
        format!("syncline://{}/Share{path}", self.listen())
    }

    /// Sends SIGTERM or another signal.
    pub fn signal(&self, name: &str) {
        signal(&self.child, name);
    }

    /// Waits for the end; the rest of its standard output, and its code.
    pub fn wait(mut self) -> Run {
        let (mut out, mut err) = (String::new(), String::new());
        self.child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
        self.child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
        let code = self.child.wait().unwrap().code().unwrap_or(-1);
        Run { code, out, err }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill")
        .args(["-s", name, &child.id().to_string()])
        .status();
    assert!(sent.unwrap().success());
}

pub fn finished(output: &Output) -> Run {
    Run {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

impl Run {
    /// The exit code is this one; nothing on stderr looks like a fault of the program.
    #[track_caller]
    pub fn expect(&self, code: i32) -> &Run {
        assert_eq!(self.code, code, "{}\n{}", self.out, self.err);
        for trace in ["panicked", "backtrace", "RUST_BACKTRACE", "os error", ".rs:"] {
            assert!(!self.err.contains(trace), "{trace}: {}", self.err);
        }
        self
    }

    /// One sentence that holds `part`, then what to try.
    #[track_caller]
    pub fn complains(&self, code: i32, part: &str) -> &Run {
        self.expect(code);
        let at = self.err.lines().position(|line| line.starts_with("syncline: "));
        let at = at.unwrap_or_else(|| panic!("no complaint: {}", self.err));
        let lines: Vec<&str> = self.err.lines().skip(at).collect();
        assert_eq!(lines.len(), 2, "one sentence and what to try: {}", self.err);
        assert!(lines[0].contains(part), "{part:?} is not in {:?}", lines[0]);
        assert!(lines[1].starts_with("  ") && lines[1].len() > 8, "{:?}", lines[1]);
        self
    }

    /// The objects of a `--json` run.
    #[track_caller]
    pub fn objects(&self) -> Vec<Value> {
        let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        self.out.lines().map(parse).collect()
    }

    /// The last object, which must be the summary with this run's code.
    #[track_caller]
    pub fn summary(&self) -> Value {
        let last = self.objects().pop().expect("a summary");
        assert_eq!(last["event"], "summary", "{}", self.out);
        assert_eq!(last["exit_code"], self.code);
        last
    }
}

/// The files below `root`, without what is ours.
pub fn names(root: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.retain(|path| !path.ends_with(".syncline"));
    found.sort();
    found
}
