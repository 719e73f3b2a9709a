//! A server and clients in one process, polled in turn: for tests that need real files and sockets.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

pub mod breaks;
pub mod child;
pub mod descriptors;
pub mod edits;
pub mod guard;
pub mod offers;
pub mod raw;
#[cfg(feature = "sync")]
pub mod syncing;
#[cfg(feature = "tls")]
pub mod tls;

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use syncline::model::{Link, Rights, ShareName};
use syncline::node::{
    Client, ClientEvent, ClientOptions, Deadlines, Durability, Job, Outcome, Server, ServerEvent, ServerOptions,
    ShareOptions, Source, TransferOptions,
};
use syncline::store::Home;
use tempfile::TempDir;

/// A served folder with its server, and room for clients.
pub struct World {
    pub dir: TempDir,
    pub server: Server,
    pub address: SocketAddr,
    pub server_events: Vec<ServerEvent>,
    pub plain: bool,
}

/// How a world is made.
#[derive(Clone)]
pub struct WorldOptions {
    pub plain: bool,
    pub open: Rights,
    pub durability: Durability,
    pub handle_signals: bool,
    pub deadlines: Deadlines,
}

impl Default for WorldOptions {
    fn default() -> WorldOptions {
        WorldOptions {
            plain: true,
            open: Rights::READ_WRITE,
            durability: Durability::None,
            handle_signals: false,
            deadlines: Deadlines::default(),
        }
    }
}

/// What a finished job told.
pub struct Run {
    pub outcome: Outcome,
    pub events: Vec<ClientEvent>,
}

/// Which of the two sends: the client or the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Push,
    Pull,
}

impl Way {
    pub const BOTH: [Way; 2] = [Way::Push, Way::Pull];

    /// Of a client's directory and a share, the source and the target.
    pub fn ends<'a>(self, mine: &'a Path, share: &'a Path) -> (&'a Path, &'a Path) {
        match self {
            Way::Push => (mine, share),
            Way::Pull => (share, mine),
        }
    }
}

impl World {
    pub fn new() -> World {
        World::with(&WorldOptions::default())
    }

    pub fn with(options: &WorldOptions) -> World {
        World::prepared(options, |_| {})
    }

    /// A world whose directory is worked on before the server opens its share.
    pub fn prepared(options: &WorldOptions, prepare: impl FnOnce(&Path)) -> World {
        World::inside(tempfile::tempdir().unwrap(), options, prepare)
    }

    /// A world in memory, where there is such a place: for tests of very many names, which on a busy
    /// disk would take most of their time to clean up.
    pub fn in_memory(options: &WorldOptions) -> World {
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        World::inside(dir.unwrap(), options, |_| {})
    }

    /// A world whose server is set up further.
    pub fn tuned(options: &WorldOptions, tune: impl FnOnce(&mut ServerOptions)) -> World {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("share")).unwrap();
        let mut server = server_options(dir.path(), options);
        tune(&mut server);
        World::serving(dir, &server)
    }

    fn inside(dir: TempDir, options: &WorldOptions, prepare: impl FnOnce(&Path)) -> World {
        fs::create_dir(dir.path().join("share")).unwrap();
        prepare(dir.path());
        let server = server_options(dir.path(), options);
        World::serving(dir, &server)
    }

    fn serving(dir: TempDir, options: &ServerOptions) -> World {
        let server = Server::bind(options).unwrap();
        let address = server.listen_addrs()[0];
        World {
            dir,
            server,
            address,
            server_events: Vec::new(),
            plain: options.plain,
        }
    }

    pub fn share(&self) -> PathBuf {
        self.dir.path().join("share")
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A link to `path` in the share, which may be empty or end in a slash.
    pub fn link(&self, path: &str) -> Link {
        format!("syncline://{}/Share{path}", self.address).parse().unwrap()
    }

    /// A link with an invite for the share.
    pub fn invite(&self, rights: Rights) -> Link {
        let home = Home::open(&self.path("server-home")).unwrap();
        let share = ShareName::parse("Share").unwrap();
        let valid = Duration::from_secs(600);
        let secret = home
            .trust()
            .invite(&share, rights, valid, std::time::SystemTime::now())
            .unwrap();
        let fingerprint = self.server.device().unwrap();
        format!("syncline://{}/Share#{fingerprint}.{}", self.address, secret.to_hex())
            .parse()
            .unwrap()
    }

    pub fn client_options(&self, home: &str) -> ClientOptions {
        ClientOptions {
            plain: self.plain,
            timeout: Duration::from_secs(20),
            retries: 0,
            ..ClientOptions::new(self.path(home))
        }
    }

    pub fn push(&mut self, sources: &[&Path], target: &Link, transfer: TransferOptions) -> Run {
        self.run(push_job(sources, target), transfer)
    }

    pub fn pull(&mut self, link: &Link, target: &Path, transfer: TransferOptions) -> Run {
        self.run(pull_job(link, target), transfer)
    }

    /// What is in `mine` and what is in the share, one into the other.
    pub fn carry(&mut self, way: Way, mine: &Path, transfer: TransferOptions) -> Run {
        let link = self.link("/");
        match way {
            // With a slash behind it, it stands for what is in it.
            Way::Push => self.push(&[&mine.join("")], &link, transfer),
            Way::Pull => self.pull(&link, mine, transfer),
        }
    }

    pub fn run(&mut self, job: Job, transfer: TransferOptions) -> Run {
        let options = self.client_options("client-home");
        let client = Client::start(options, job, transfer).expect("a job that can start");
        self.drive(client, |_, _| {})
    }

    /// Polls client and server in turn until the job is finished; `between` runs after each turn.
    pub fn drive(&mut self, mut client: Client, mut between: impl FnMut(&mut World, &[ClientEvent])) -> Run {
        let mut events = Vec::new();
        let limit = Instant::now() + Duration::from_secs(120);
        loop {
            assert!(
                Instant::now() < limit,
                "the job does not end; events so far: {events:?}"
            );
            let served = self.server.poll(Some(Duration::from_micros(200))).unwrap();
            self.server_events.extend(served);
            let new = client.poll(Some(Duration::from_micros(200))).unwrap();
            between(self, &new);
            for event in new {
                if let ClientEvent::Finished(outcome) = event {
                    return Run { outcome, events };
                }
                events.push(event);
            }
        }
    }
}

/// A server of `dir`/share on a free port.
pub fn server_options(dir: &Path, options: &WorldOptions) -> ServerOptions {
    let share = ShareOptions {
        name: ShareName::parse("Share").unwrap(),
        path: dir.join("share"),
        open: options.open,
    };
    ServerOptions {
        listen: vec!["127.0.0.1:0".parse().unwrap()],
        plain: options.plain,
        durability: options.durability,
        connections_max: 1000,
        handle_signals: options.handle_signals,
        deadlines: options.deadlines,
        ..ServerOptions::new(dir.join("server-home"), vec![share])
    }
}

pub fn push_job(sources: &[&Path], target: &Link) -> Job {
    let source = |path: &&Path| Source {
        path: path.to_path_buf(),
        contents_only: path.as_os_str().as_encoded_bytes().ends_with(b"/"),
    };
    Job::Push {
        sources: sources.iter().map(source).collect(),
        target: target.clone(),
    }
}

pub fn pull_job(link: &Link, target: &Path) -> Job {
    let target_is_directory = target.as_os_str().as_encoded_bytes().ends_with(b"/");
    Job::Pull {
        links: vec![link.clone()],
        target: target.to_path_buf(),
        target_is_directory,
    }
}

impl Run {
    /// The job went well, and so did every entry.
    pub fn assert_clean(&self) {
        assert_eq!(self.outcome.result, Ok(()), "{:?}", self.events);
        assert_eq!(self.outcome.summary.failed, 0, "{:?}", self.events);
    }

    /// The entries that were settled, as `path action`, sorted.
    pub fn items(&self) -> Vec<String> {
        let mut items: Vec<String> = self
            .events
            .iter()
            .filter_map(|event| match event {
                ClientEvent::Item { path, action, .. } => Some(format!("{path} {action:?}")),
                _ => None,
            })
            .collect();
        items.sort();
        items
    }

    /// The entries that failed (not the warnings), as `path code`, sorted.
    pub fn failures(&self) -> Vec<String> {
        let mut failures: Vec<String> = self
            .events
            .iter()
            .filter_map(|event| match event {
                ClientEvent::Failed {
                    path,
                    code,
                    warning: false,
                } => Some(format!("{path} {code:?}")),
                _ => None,
            })
            .collect();
        failures.sort();
        failures
    }

    /// The entries that were left out by design, as `path code`, sorted.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings: Vec<String> = self
            .events
            .iter()
            .filter_map(|event| match event {
                ClientEvent::Failed {
                    path,
                    code,
                    warning: true,
                } => Some(format!("{path} {code:?}")),
                _ => None,
            })
            .collect();
        warnings.sort();
        warnings
    }
}

/// Everything about a tree that Syncline carries: path, kind, mode, time, content or link text.
pub fn snapshot(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut waiting = vec![root.to_path_buf()];
    while let Some(directory) = waiting.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            let relative = path.strip_prefix(root).unwrap().to_path_buf();
            if relative.starts_with(".syncline") {
                continue;
            }
            let meta = fs::symlink_metadata(&path).unwrap();
            let what = if meta.is_symlink() {
                format!("-> {:?}", fs::read_link(&path).unwrap())
            } else if meta.is_dir() {
                waiting.push(path.clone());
                format!("{:o} directory", meta.mode() & 0o7777)
            } else {
                let content = fs::read(&path).unwrap();
                format!(
                    "{:o} {} {}",
                    meta.mode() & 0o7777,
                    content.len(),
                    syncline::delta::content_id(&content)
                )
            };
            found.push(format!("{relative:?} {what} {}.{}", meta.mtime(), meta.mtime_nsec()));
        }
    }
    found.sort();
    found
}
