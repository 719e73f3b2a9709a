//! `syncline peer`: two processes, the same command on both, as two people would start them.

#![cfg(all(feature = "tls", feature = "sync"))]
#![allow(clippy::unwrap_used)]

mod binary;

use binary::{Sandbox, names, signal};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use syncline::model::{Rights, ShareName};
use syncline::node::{
    Client, ClientOptions, FolderError, Job, JobError, Server, ServerError, ServerOptions, ShareOptions, SyncOptions,
    TransferOptions,
};

/// Longer than anything takes on a machine that is busy with ten other tests.
const PATIENCE: Duration = Duration::from_secs(120);

/// A port that is free, and that no other test takes meanwhile: it is below those that the system hands out, and each
/// process has its own.
fn port() -> u16 {
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    loop {
        let taken = TAKEN.fetch_add(1, Ordering::Relaxed);
        assert!(taken < 1000, "there is no free port");
        let port = 10_000 + (std::process::id().wrapping_mul(32) + taken) % 20_000;
        let port = u16::try_from(port).unwrap();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// What one of them said.
struct Said {
    who: &'static str,
    object: Value,
}

/// Two devices, or more, whose words come in one line.
struct Room {
    sandbox: Sandbox,
    ports: BTreeMap<&'static str, u16>,
    said: (Sender<Said>, Receiver<Said>),
    /// All that was said, for whoever has to look into a failure.
    log: Vec<String>,
}

/// A running `syncline peer --json`.
struct Peer {
    child: Child,
    reader: Option<JoinHandle<()>>,
}

impl Room {
    fn new() -> Room {
        Room {
            sandbox: Sandbox::new(),
            ports: BTreeMap::from([("a", port()), ("b", port())]),
            said: channel(),
            log: Vec::new(),
        }
    }

    /// The command of a device: its folder has its name, its state directory is `home-NAME`.
    fn command(&self, who: &str, with: &str, args: &[&str]) -> Command {
        let mut command = self.sandbox.command(&format!("home-{who}"));
        let listen = self.ports.get(who).copied().unwrap_or(0);
        command
            .args(["peer", who, "--json", "--with", with])
            .args(["--listen", &format!("127.0.0.1:{listen}")])
            .args(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn begin_with(&self, who: &'static str, with: &str, args: &[&str]) -> Peer {
        let mut child = self.command(who, with, args).spawn().unwrap();
        let (sender, out) = (self.said.0.clone(), child.stdout.take().unwrap());
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(out).lines() {
                let object = serde_json::from_str(&line.unwrap()).unwrap();
                let _ = sender.send(Said { who, object });
            }
        });
        Peer {
            child,
            reader: Some(reader),
        }
    }

    /// Device `a` or `b`, which looks for the other of the two.
    fn begin(&self, who: &'static str, args: &[&str]) -> Peer {
        let other = if who == "a" { "b" } else { "a" };
        self.begin_with(who, &format!("127.0.0.1:{}", self.ports[other]), args)
    }

    /// Waits until somebody says what is `wanted`.
    #[track_caller]
    fn until(&mut self, what: &str, mut wanted: impl FnMut(&Said) -> bool) -> Said {
        let limit = Instant::now() + PATIENCE;
        loop {
            let left = limit.saturating_duration_since(Instant::now());
            let Ok(said) = self.said.1.recv_timeout(left) else {
                panic!("{what} does not come about:\n{}", self.log.join("\n"));
            };
            self.log.push(format!("{}: {}", said.who, said.object));
            if wanted(&said) {
                return said;
            }
        }
    }

    #[track_caller]
    fn until_state(&mut self, state: &str) -> Said {
        self.until(state, |said| said.object["state"] == state)
    }

    /// Waits until both folders have these files, which the one that connects says when it is in sync.
    #[track_caller]
    fn until_same(&mut self, expected: &[(&str, &str)]) {
        let expected: BTreeMap<String, String> = expected
            .iter()
            .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()))
            .collect();
        let (a, b) = (self.sandbox.path("a"), self.sandbox.path("b"));
        self.until("the same on both", |said| {
            said.object["state"] == "in_sync" && texts(&a) == expected && texts(&b) == expected
        });
    }

    /// What was said and nobody waited for.
    fn hear_all(&mut self) {
        while let Ok(said) = self.said.1.try_recv() {
            self.log.push(format!("{}: {}", said.who, said.object));
        }
    }

    /// The part of a device, as its folder remembers it.
    fn part(&self, who: &str) -> String {
        let note = fs::read_to_string(self.sandbox.path(who).join(".syncline/peer")).unwrap();
        note.split(' ').next().unwrap().to_owned()
    }
}

impl Peer {
    /// Interrupts it as Ctrl-C does; its code and what it said on stderr.
    fn interrupt(mut self) -> (i32, String) {
        signal(&self.child, "INT");
        self.end()
    }

    fn end(&mut self) -> (i32, String) {
        let mut err = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
        let code = self.child.wait().unwrap().code().unwrap_or(-1);
        self.reader.take().unwrap().join().unwrap();
        (code, err)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn texts(root: &Path) -> BTreeMap<String, String> {
    let text = |path: &std::path::PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        (name, fs::read_to_string(path).unwrap_or_default())
    };
    names(root).iter().map(text).collect()
}

// Protects the whole idea: both start at once, both get what the other has, exactly one has the share; and what one
// does later comes to the other. Started again in either order, each has the part that it had.
#[test]
fn two_that_start_at_once_are_peers_and_stay_what_they_are() {
    let mut room = Room::new();
    room.sandbox.file("a/one", b"of a");
    room.sandbox.file("b/two", b"of b");
    let (a, b) = (room.begin("a", &["--yes"]), room.begin("b", &["--yes"]));
    room.until_same(&[("one", "of a"), ("two", "of b")]);
    let parts = [room.part("a"), room.part("b")];
    let mut sorted = parts.clone();
    sorted.sort();
    assert_eq!(sorted, ["connects", "listens"]);
    room.sandbox.file("a/three", b"later");
    room.until_same(&[("one", "of a"), ("three", "later"), ("two", "of b")]);
    fs::remove_file(room.sandbox.path("b/one")).unwrap();
    room.until_same(&[("three", "later"), ("two", "of b")]);
    assert_eq!((a.interrupt().0, b.interrupt().0), (130, 130));
    for (first, second, text) in [("a", "b", "second"), ("b", "a", "third")] {
        room.sandbox.file("a/two", text.as_bytes());
        let begun = room.begin(first, &[]);
        // The first waits: for a connection, or for somebody to connect to.
        room.until("the first waits", |said| {
            ["listens", "connects"].contains(&said.object["state"].as_str().unwrap_or_default())
        });
        let other = room.begin(second, &[]);
        room.until_same(&[("three", "later"), ("two", text)]);
        assert_eq!([room.part("a"), room.part("b")], parts, "{first} first");
        assert_eq!((begun.interrupt().0, other.interrupt().0), (130, 130));
    }
}

// One is there long before the other: that one listens, the other one connects, whoever has the greater id.
#[test]
fn the_first_one_listens_and_one_round_ends_on_both() {
    let mut room = Room::new();
    room.sandbox.file("a/one", b"of a");
    room.sandbox.file("b/one", b"of b");
    let mut a = room.begin("a", &["--yes", "--once"]);
    room.until_state("waiting");
    let mut b = room.begin("b", &["--yes", "--once"]);
    let (codes, errs) = {
        let ((a, of_a), (b, of_b)) = (a.end(), b.end());
        ([a, b], of_a + &of_b)
    };
    // Both had a file of that name: the one that connected is told, and both have both.
    let mut sorted = codes;
    sorted.sort_unstable();
    room.hear_all();
    assert_eq!(sorted, [0, 4], "{errs}\n{}", room.log.join("\n"));
    assert_eq!(names(&room.sandbox.path("a")).len(), 2);
    assert_eq!(texts(&room.sandbox.path("a")), texts(&room.sandbox.path("b")));
}

// A stranger gets nothing: not while two peers know each other, not while a first meeting is awaited from elsewhere.
#[test]
fn a_strangers_device_is_kept_out() {
    let mut room = Room::new();
    room.sandbox.file("a/secret", b"of a");
    // The other device is at another address: whoever comes from here is not it.
    let a = room.begin_with("a", "127.0.0.2:1", &["--yes"]);
    room.until("a listens", |said| said.object["event"] == "ready");
    let at_a = format!("127.0.0.1:{}", room.ports["a"]);
    let c = room.begin_with("c", &at_a, &["--yes"]);
    room.until("c is kept out", |said| {
        said.who == "c" && said.object["state"] == "unaccepted"
    });
    assert!(names(&room.sandbox.path("c")).is_empty());
    assert!(
        !room
            .log
            .iter()
            .any(|line| line.starts_with("a:") && line.contains("compare"))
    );
    assert_eq!((a.interrupt().0, c.interrupt().0), (130, 130));
    let devices = room.sandbox.run_as("home-a", &["devices", "--json"]);
    assert_eq!(
        devices.expect(0).objects().len(),
        1,
        "only the summary: {}",
        devices.out
    );

    let (a, b) = (room.begin("a", &["--yes"]), room.begin("b", &["--yes"]));
    room.until_same(&[("secret", "of a")]);
    let (server, link) = match room.part("a").as_str() {
        "listens" => ("a", fs::read_to_string(room.sandbox.path("b/.syncline/link"))),
        _ => ("b", fs::read_to_string(room.sandbox.path("a/.syncline/link"))),
    };
    let link = link.unwrap().trim().to_owned();
    // It even knows what the share is called.
    let run = room.sandbox.run_as("home-c", &["pull", &link, "stolen"]);
    run.complains(6, "refused");
    let at_server = format!("127.0.0.1:{}", room.ports[server]);
    let c = room.begin_with("c", &at_server, &["--yes"]);
    room.until("c is kept out", |said| {
        said.who == "c" && said.object["state"] == "unaccepted"
    });
    assert!(names(&room.sandbox.path("c")).is_empty() && !room.sandbox.path("stolen").exists());
    assert_eq!(texts(&room.sandbox.path("a")).len(), 1);
    assert_eq!((a.interrupt().0, b.interrupt().0, c.interrupt().0), (130, 130, 130));
}

// Nobody is taken for a friend by default: without a terminal to ask on, and without --yes, nothing begins.
#[test]
fn what_cannot_work_is_said_in_one_sentence() {
    let room = Room::new();
    let run = |args: &[&str]| room.sandbox.run_as("home-a", &[&["peer", "a"], args].concat());
    run(&["--with", "127.0.0.1:1"]).complains(6, "has not met 127.0.0.1:1 yet");
    run(&["--with", "no.such.host.invalid", "--yes"]).complains(1, "cannot find the host no.such.host.invalid");
    run(&["--with", "a/b", "--yes"]).complains(2, "is not where a device can be");
    let own = format!("127.0.0.1:{}", room.ports["a"]);
    run(&["--with", &own, "--listen", &own, "--yes"]).complains(2, "is this device itself");
    // A folder of a server's share is not tied to a peer, too.
    room.sandbox.file("share/x", b"x");
    let served = room.sandbox.serve(&[]);
    room.sandbox
        .run_as("home-a", &["sync", "synced", &served.invite()])
        .expect(0);
    let run = room
        .sandbox
        .run_as("home-a", &["peer", "synced", "--with", "127.0.0.1:1", "--yes"]);
    run.complains(2, "is synced with");
}

// A folder that was served before has the index of a share: it listens, whoever has the greater id, and the other one
// follows. That index is never taken for a base, nor a base for one, whoever asks for it.
#[test]
fn a_folder_that_was_served_before_listens() {
    let mut room = Room::new();
    room.sandbox.file("share/one", b"of a");
    let served = room.sandbox.serve(&[]);
    room.sandbox.run(&["sync", "elsewhere", &served.invite()]).expect(0);
    drop(served);
    fs::rename(room.sandbox.path("share"), room.sandbox.path("a")).unwrap();
    let (a, b) = (room.begin("a", &["--yes"]), room.begin("b", &["--yes"]));
    room.until_same(&[("one", "of a")]);
    assert_eq!([room.part("a"), room.part("b")], ["listens", "connects"]);
    assert_eq!((a.interrupt().0, b.interrupt().0), (130, 130));
    let options = ClientOptions::new(room.sandbox.path("client"));
    let job = Job::Sync {
        folder: room.sandbox.path("a"),
        link: Some("syncline://127.0.0.1:1/Share".parse().unwrap()),
        options: SyncOptions::default(),
    };
    let refused = Client::start(options, job, TransferOptions::default()).err();
    assert!(
        matches!(refused, Some(JobError::Folder(FolderError::Served { .. }))),
        "{refused:?}"
    );
    let share = ShareOptions {
        name: ShareName::parse("Share").unwrap(),
        path: room.sandbox.path("b"),
        open: Rights::NONE,
    };
    let refused = Server::bind(&ServerOptions::new(room.sandbox.path("client"), vec![share])).err();
    assert!(matches!(refused, Some(ServerError::Synced { .. })), "{refused:?}");
}

/// A terminal around a command, by `script` of util-linux; what is written to it is what somebody types.
struct Terminal {
    child: Child,
    lines: Receiver<String>,
    seen: String,
}

impl Terminal {
    fn begin(room: &Room, who: &str, with: &str) -> Terminal {
        let binary = env!("CARGO_BIN_EXE_syncline");
        let (home, dir) = (room.sandbox.path(&format!("home-{who}")), room.sandbox.path(who));
        let line = format!(
            "'{binary}' --home '{}' peer '{}' --with {with} --listen 127.0.0.1:{}",
            home.display(),
            dir.display(),
            room.ports[who]
        );
        let mut child = Command::new("script")
            .args(["-qefc", &line, "/dev/null"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, lines) = channel();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            let mut line = Vec::new();
            while out.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
                let _ = sender.send(String::from_utf8_lossy(&line).trim().to_owned());
                line.clear();
            }
        });
        Terminal {
            child,
            lines,
            seen: String::new(),
        }
    }

    /// Reads until this was shown; the line that it is in.
    #[track_caller]
    fn until(&mut self, text: &str) -> String {
        self.until_one_of(&[text])
    }

    #[track_caller]
    fn until_one_of(&mut self, texts: &[&str]) -> String {
        let limit = Instant::now() + PATIENCE;
        loop {
            let left = limit.saturating_duration_since(Instant::now());
            let Ok(line) = self.lines.recv_timeout(left) else {
                panic!("{texts:?} is not shown:\n{}", self.seen);
            };
            self.seen += &line;
            self.seen.push('\n');
            if texts.iter().any(|text| line.contains(text)) {
                return line;
            }
        }
    }

    fn type_in(&mut self, text: &str) {
        self.child.stdin.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Its end closes the terminal, which ends what runs in it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

// Protects the first meeting: both users see the same words, nothing travels before both have said yes, and a no ends it.
#[test]
fn both_users_are_asked_and_see_the_same_words() {
    if Command::new("script").arg("--version").output().is_err() {
        eprintln!("skipped: there is no `script` to have a terminal by");
        return;
    }
    let room = Room::new();
    room.sandbox.file("a/one", b"of a");
    fs::create_dir(room.sandbox.path("b")).unwrap();
    let at = |who: &str| format!("127.0.0.1:{}", room.ports[who]);
    let words = |terminal: &mut Terminal| {
        terminal.until("show the same words:");
        let words = terminal.until("-");
        terminal.until("[y/N]");
        words
    };
    {
        let mut a = Terminal::begin(&room, "a", &at("b"));
        let mut b = Terminal::begin(&room, "b", &at("a"));
        let shown = words(&mut a);
        assert_eq!(shown.split('-').count(), 10, "{shown}");
        assert_eq!(shown, words(&mut b));
        a.type_in("y\n");
        // The one that has accepted is not let in before the other has.
        a.until("waits until the other device has accepted this one");
        assert!(names(&room.sandbox.path("b")).is_empty());
        b.type_in("n\n");
        b.until("was not accepted, so nothing was shared with it");
        assert_eq!(b.child.wait().unwrap().code(), Some(6));
        assert!(names(&room.sandbox.path("b")).is_empty());
        a.type_in("\u{3}");
        assert_eq!(a.child.wait().unwrap().code(), Some(130));
    }
    let mut a = Terminal::begin(&room, "a", &at("b"));
    let mut b = Terminal::begin(&room, "b", &at("a"));
    words(&mut b);
    b.type_in("y\n");
    // Who connects says what is in sync, who listens what was transferred.
    while texts(&room.sandbox.path("b")).get("one").map(String::as_str) != Some("of a") {
        b.until_one_of(&["in sync", "1 file"]);
    }
    a.type_in("\u{3}");
    b.type_in("\u{3}");
    assert_eq!(a.child.wait().unwrap().code(), Some(130));
    assert_eq!(b.child.wait().unwrap().code(), Some(130));
}
