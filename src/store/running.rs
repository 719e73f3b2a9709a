//! Run files: how commands of a user find that user's running servers.
//!
//! Never talks to a server and never signals a process. Key invariant: a run file is locked (flock)
//! from before it appears under its name until its server ends, so an unlocked one is stale.

use super::home::{StateError, io_error, read_bounded};
use crate::model::{DeviceId, Secret, ShareName};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// What a running server tells the commands of its user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunningServer {
    /// Its process.
    pub pid: u32,
    /// Where it listens.
    pub listen: Vec<SocketAddr>,
    /// Without TLS.
    pub plain: bool,
    /// Its identity; `None` without TLS.
    pub device: Option<DeviceId>,
    /// What it serves: name and folder.
    pub shares: Vec<(ShareName, PathBuf)>,
}

/// The presence of a running server in its state directory; dropping it ends that.
#[derive(Debug)]
pub struct RunFile {
    path: PathBuf,
    control: Secret,
    /// Holds the lock.
    _file: File,
}

const RUN_FILE_BYTES_MAX: u64 = 1 << 20;
/// Servers of one user that are looked at; more than that is an accident, not a use.
const RUN_FILES_MAX: usize = 1024;

impl RunFile {
    /// Writes, locks and publishes a run file in `directory`.
    pub(super) fn create(directory: &Path, running: &RunningServer) -> Result<RunFile, StateError> {
        let control = random_secret().map_err(io_error("draw randomness for", directory))?;
        let tag = &random_secret()
            .map_err(io_error("draw randomness for", directory))?
            .to_hex()[..8];
        let path = directory.join(format!("{}-{tag}.json", running.pid));
        let staged = directory.join(format!("{}-{tag}.new", running.pid));
        let content = encode(running, &control);
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        let mut file = options.open(&staged).map_err(io_error("create", &staged))?;
        let published = flock(&file, FlockOperation::NonBlockingLockExclusive)
            .map_err(io::Error::from)
            .and_then(|()| file.write_all(&content))
            .and_then(|()| std::fs::rename(&staged, &path));
        if let Err(source) = published {
            let _ = std::fs::remove_file(&staged);
            return Err(io_error("write", &path)(source));
        }
        Ok(RunFile {
            path,
            control,
            _file: file,
        })
    }

    /// A random secret that only commands of the same user can know.
    #[must_use]
    pub fn control(&self) -> &Secret {
        &self.control
    }
}

impl Drop for RunFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// The live servers in `directory`, by process id. Stale files are removed; unreadable ones ignored.
pub(super) fn list(directory: &Path) -> Vec<(RunningServer, Secret)> {
    let Ok(names) = std::fs::read_dir(directory) else {
        return Vec::new();
    };
    let mut servers = Vec::new();
    for name in names.flatten().take(RUN_FILES_MAX) {
        let path = name.path();
        match probe(&path) {
            Liveness::Stale => drop(std::fs::remove_file(&path)),
            Liveness::Live if path.extension() == Some("json".as_ref()) => {
                servers.extend(read(&path));
            }
            Liveness::Live | Liveness::Unknown => {}
        }
    }
    servers.sort_by_key(|(server, _)| server.pid);
    servers
}

enum Liveness {
    Live,
    Stale,
    Unknown,
}

/// Whether somebody holds the lock. Names are never reused (they hold randomness), so a stale file
/// may be removed without a race.
fn probe(path: &Path) -> Liveness {
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    let Ok(file) = options.open(path) else {
        return Liveness::Unknown;
    };
    // Between its creation and its lock a new file looks stale, and a probe could take its lock.
    if path.extension() != Some("json".as_ref()) && is_young(&file) {
        return Liveness::Unknown;
    }
    match flock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Liveness::Stale,
        Err(rustix::io::Errno::WOULDBLOCK) => Liveness::Live,
        Err(_) => Liveness::Unknown,
    }
}

fn is_young(file: &File) -> bool {
    let modified = file.metadata().and_then(|metadata| metadata.modified()).ok();
    modified
        .and_then(|time| time.elapsed().ok())
        .is_none_or(|age| age.as_secs() < 60)
}

fn read(path: &Path) -> Option<(RunningServer, Secret)> {
    let (content, _) = read_bounded(path, RUN_FILE_BYTES_MAX).ok()??;
    decode(&content)
}

/// The content of a run file.
pub(super) fn encode(running: &RunningServer, control: &Secret) -> Vec<u8> {
    serde_json::to_vec(&StoredRun::new(running, control)).expect("a run file has only strings, numbers and lists")
}

/// What a run file says.
pub(super) fn decode(content: &[u8]) -> Option<(RunningServer, Secret)> {
    serde_json::from_slice::<StoredRun>(content).ok()?.into_running()
}

fn random_secret() -> io::Result<Secret> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(Secret(bytes))
}

#[derive(Serialize, Deserialize)]
struct StoredRun {
    version: u32,
    pid: u32,
    listen: Vec<SocketAddr>,
    plain: bool,
    device: Option<String>,
    shares: Vec<StoredShare>,
    control: String,
}

#[derive(Serialize, Deserialize)]
struct StoredShare {
    name: String,
    path: StoredPath,
}

/// A path as text where it is UTF-8, else as its bytes.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum StoredPath {
    Text(String),
    Bytes(Vec<u8>),
}

const RUN_VERSION: u32 = 1;

impl StoredRun {
    fn new(running: &RunningServer, control: &Secret) -> StoredRun {
        let share = |(name, path): &(ShareName, PathBuf)| StoredShare {
            name: name.as_str().to_owned(),
            path: match path.to_str() {
                Some(text) => StoredPath::Text(text.to_owned()),
                None => StoredPath::Bytes(path.as_os_str().as_bytes().to_vec()),
            },
        };
        StoredRun {
            version: RUN_VERSION,
            pid: running.pid,
            listen: running.listen.clone(),
            plain: running.plain,
            device: running.device.map(|device| device.to_string()),
            shares: running.shares.iter().map(share).collect(),
            control: control.to_hex(),
        }
    }

    fn into_running(self) -> Option<(RunningServer, Secret)> {
        if self.version != RUN_VERSION {
            return None;
        }
        let share = |stored: StoredShare| {
            let path = match stored.path {
                StoredPath::Text(text) => PathBuf::from(text),
                StoredPath::Bytes(bytes) => PathBuf::from(OsString::from_vec(bytes)),
            };
            Some((ShareName::parse(&stored.name).ok()?, path))
        };
        let device = match self.device {
            Some(text) => Some(text.parse().ok()?),
            None => None,
        };
        let shares = self.shares.into_iter().map(share).collect::<Option<Vec<_>>>()?;
        let server = RunningServer {
            pid: self.pid,
            listen: self.listen,
            plain: self.plain,
            device,
            shares,
        };
        Some((server, Secret::from_hex(&self.control)?))
    }
}

#[cfg(test)]
mod tests {
    use super::super::home::Home;
    use super::*;
    use std::ffi::OsStr;
    use std::os::unix::fs::MetadataExt;

    fn server(pid: u32) -> RunningServer {
        RunningServer {
            pid,
            listen: vec!["127.0.0.1:7171".parse().unwrap(), "[::1]:7171".parse().unwrap()],
            plain: false,
            device: Some(DeviceId([7; 32])),
            shares: vec![(
                ShareName::parse("My Share").unwrap(),
                PathBuf::from(OsStr::from_bytes(b"/srv/\xff")),
            )],
        }
    }

    // Protects `status` and `invite`: they see exactly the servers that run, with all they serve.
    #[test]
    fn servers_are_listed_while_they_run_and_not_after() {
        let place = tempfile::tempdir().unwrap();
        let home = Home::open(place.path()).unwrap();
        assert_eq!(home.running(), []);
        let first = home.announce(&server(7)).unwrap();
        let second = home.announce(&server(5)).unwrap();
        assert_eq!(home.running(), [server(5), server(7)]);
        assert_eq!(home.control_secret(7).as_ref(), Some(first.control()));
        assert_ne!(first.control(), second.control());
        drop(second);
        assert_eq!(home.running(), [server(7)]);
        drop(first);
        assert_eq!(home.running(), []);
        assert_eq!(home.control_secret(7), None);
    }

    // Protects the control secret from other users, and the listing from what a crash leaves.
    #[test]
    fn run_files_are_private_and_stale_ones_are_swept() {
        let place = tempfile::tempdir().unwrap();
        let home = Home::open(place.path()).unwrap();
        let live = home.announce(&server(7)).unwrap();
        assert_eq!(std::fs::metadata(&live.path).unwrap().mode() & 0o7777, 0o600);
        // What a killed server leaves: the file without the lock.
        let stale = live.path.with_file_name("9-00000000.json");
        std::fs::copy(&live.path, &stale).unwrap();
        assert_eq!(home.running(), [server(7)]);
        assert!(!stale.exists());
        assert!(live.path.exists());
    }

    // Protects commands from a run file of another version or with damage.
    #[test]
    fn a_locked_but_unreadable_run_file_is_ignored() {
        let place = tempfile::tempdir().unwrap();
        let home = Home::open(place.path()).unwrap();
        let live = home.announce(&server(7)).unwrap();
        std::fs::write(&live.path, b"{\"version\":2}").unwrap();
        assert_eq!(home.running(), []);
        assert!(live.path.exists());
    }
}
