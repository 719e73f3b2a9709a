//! `Home`: the state directory of one user, with this device's key, its trust and its running servers.
//!
//! Never touches a share and never reads a clock. Key invariant: a file here is complete or absent
//! (temporary file, fsync, rename, fsync of the directory), is changed by one process at a time (an
//! flock on `lock`), and is not used when another user could have written it.
//!
//! | name | what | mode |
//! |---|---|---|
//! | `device.key`, `device.crt` | private key (PKCS #8 DER), certificate (DER) | 0600, 0644 |
//! | `trust.json` | invites, paired devices, known servers | 0600 |
//! | `run/PID-RANDOM.json` | one running server, locked while it runs | 0600 |
//! | `shadows/` | contents that were sent, see `shadows.rs`; the one exception to the invariant | 0700 |
//! | `lock` | serialises writers | 0600 |

use super::running::{self, RunFile, RunningServer};
use super::shadows::Shadows;
use super::trust::{Trust, TrustCache};
use crate::model::limits::DEVICE_NAME_BYTES_MAX;
use crate::model::{Secret, escape};
use rustix::fs::{FlockOperation, flock};
use std::cell::RefCell;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The state directory. Cheap to open; one value serves one thread.
#[derive(Debug)]
pub struct Home {
    path: PathBuf,
    pub(super) trust_cache: RefCell<TrustCache>,
}

/// Why the state directory, or something in it, cannot be used. Each text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The system refused an operation.
    #[error("cannot {operation} {}: {source}", shown(path))]
    Io {
        /// What was tried, as the verb of the sentence.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Something else stands where the state directory should be.
    #[error(
        "{} is not a directory; move it away or choose another place with --home",
        shown(path)
    )]
    NotDirectory {
        /// The place.
        path: PathBuf,
    },
    /// Other users could read a key or change what is trusted.
    #[error(
        "{} is open to other users (mode {mode:04o}); run: chmod {wanted:o} '{}'",
        shown(path),
        shown(path)
    )]
    Exposed {
        /// The file or directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// The bits that are safe.
        wanted: u32,
    },
    /// The directory belongs to somebody else.
    #[error(
        "{} belongs to another user (uid {owner}); choose another place with --home",
        shown(path)
    )]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// Its owner.
        owner: u32,
    },
    /// A file does not hold what it should. Whoever decides on its word must refuse.
    #[error("{} is damaged ({reason}); {remedy}", shown(path))]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found.
        reason: String,
        /// What to do.
        remedy: &'static str,
    },
    /// A table has reached its bound.
    #[error("there are already {max} {what}; {remedy}")]
    Full {
        /// Plural noun.
        what: &'static str,
        /// The bound.
        max: usize,
        /// What to do.
        remedy: &'static str,
    },
    /// A key could not be made.
    #[error("cannot make a device key: {0}")]
    KeyMaking(#[source] io::Error),
}

/// A certificate and its private key, both DER.
type Identity = (Vec<u8>, Vec<u8>);

const KEY_FILE: &str = "device.key";
const CERTIFICATE_FILE: &str = "device.crt";
const LOCK_FILE: &str = "lock";
const SHADOWS_DIRECTORY: &str = "shadows";
const RUN_DIRECTORY: &str = "run";
const IDENTITY_BYTES_MAX: u64 = 64 * 1024;
const KEY_REMEDY: &str = "restore it from a backup, or remove device.key and device.crt and pair again";

impl Home {
    /// Opens the state directory and creates it (mode 0700) when it is missing.
    ///
    /// # Errors
    /// [`StateError`] when it cannot be created, is not a directory, belongs to another user (root
    /// excepted), or is writable by others.
    pub fn open(path: &Path) -> Result<Home, StateError> {
        let path = std::path::absolute(path).map_err(io_error("find", path))?;
        create_private_directory(&path)?;
        Ok(Home {
            path,
            trust_cache: RefCell::default(),
        })
    }

    /// `$XDG_STATE_HOME/syncline`, or `~/.local/state/syncline`; `None` without a home directory.
    #[must_use]
    pub fn default_path() -> Option<PathBuf> {
        let absolute = |name: &str| {
            std::env::var_os(name)
                .map(PathBuf::from)
                .filter(|path| path.is_absolute())
        };
        let state = absolute("XDG_STATE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".local/state")));
        state.map(|path| path.join("syncline"))
    }

    /// Where it is, absolute.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What this device calls itself: the host name up to its first dot, at most 64 bytes.
    #[must_use]
    pub fn device_name(&self) -> String {
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        display_name(host.split('.').next().unwrap_or_default())
    }

    /// This device's certificate and private key (DER); `make` is asked for them at first use.
    ///
    /// Two processes at first use end with the same key: the later one waits and reads.
    ///
    /// # Errors
    /// [`StateError::Exposed`] when others may read the key; [`StateError::Damaged`] when half of
    /// the pair is missing or empty; [`StateError::KeyMaking`] with the error of `make`.
    pub fn identity_or_create(&self, make: &mut dyn FnMut() -> io::Result<Identity>) -> Result<Identity, StateError> {
        if let Some(identity) = self.read_identity()? {
            return Ok(identity);
        }
        let lock = self.lock()?;
        if let Some(identity) = self.read_identity()? {
            return Ok(identity);
        }
        let (certificate, key) = make().map_err(StateError::KeyMaking)?;
        // The key comes last: its presence is what says that the pair is complete.
        lock.replace_file(CERTIFICATE_FILE, &certificate, 0o644)?;
        lock.replace_file(KEY_FILE, &key, 0o600)?;
        Ok((certificate, key))
    }

    /// Makes a running server visible to the commands of the same user until the value is dropped.
    ///
    /// # Errors
    /// [`StateError`] when the file cannot be written.
    pub fn announce(&self, running: &RunningServer) -> Result<RunFile, StateError> {
        let directory = self.run_directory();
        create_private_directory(&directory)?;
        RunFile::create(&directory, running)
    }

    /// The servers that run now with this state directory. Files that a crash left are removed.
    #[must_use]
    pub fn running(&self) -> Vec<RunningServer> {
        running::list(&self.run_directory())
            .into_iter()
            .map(|(server, _)| server)
            .collect()
    }

    /// The secret that a running server shares with commands of the same user.
    #[must_use]
    pub fn control_secret(&self, pid: u32) -> Option<Secret> {
        let mut servers = running::list(&self.run_directory()).into_iter();
        servers.find(|(server, _)| server.pid == pid).map(|(_, secret)| secret)
    }

    /// Invites, paired devices and known servers.
    #[must_use]
    pub fn trust(&self) -> Trust<'_> {
        Trust::new(self)
    }

    /// Waits until no other process changes anything here, and keeps it so.
    pub(super) fn lock(&self) -> Result<HomeLock<'_>, StateError> {
        let path = self.path.join(LOCK_FILE);
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(&path).map_err(io_error("open", &path))?;
        loop {
            match flock(&file, FlockOperation::LockExclusive) {
                Ok(()) => {
                    return Ok(HomeLock {
                        home: self,
                        _file: file,
                    });
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(io_error("lock", &path)(errno.into())),
            }
        }
    }

    /// Contents that were sent, of at most `bytes_max` bytes together.
    #[must_use]
    pub fn shadows(&self, bytes_max: u64) -> Shadows {
        Shadows::new(&self.path.join(SHADOWS_DIRECTORY), bytes_max)
    }

    fn run_directory(&self) -> PathBuf {
        self.path.join(RUN_DIRECTORY)
    }

    fn read_identity(&self) -> Result<Option<Identity>, StateError> {
        let key_path = self.path.join(KEY_FILE);
        let Some((key, file)) = read_bounded(&key_path, IDENTITY_BYTES_MAX)? else {
            return Ok(None);
        };
        refuse_bits(&key_path, &file, 0o077, 0o600)?;
        let path = self.path.join(CERTIFICATE_FILE);
        let damaged = |path: PathBuf, reason: &str| StateError::Damaged {
            path,
            reason: reason.to_owned(),
            remedy: KEY_REMEDY,
        };
        let Some((certificate, file)) = read_bounded(&path, IDENTITY_BYTES_MAX)? else {
            return Err(damaged(path, "missing beside device.key"));
        };
        refuse_bits(&path, &file, 0o022, 0o644)?;
        if key.is_empty() {
            return Err(damaged(key_path, "empty"));
        }
        if certificate.is_empty() {
            return Err(damaged(path, "empty"));
        }
        Ok(Some((certificate, key)))
    }
}

/// The right to change files in the state directory; released on drop.
pub(super) struct HomeLock<'h> {
    home: &'h Home,
    _file: File,
}

impl HomeLock<'_> {
    /// Replaces a file so that a crash leaves the old or the new one, durably.
    pub(super) fn replace_file(&self, name: &str, content: &[u8], mode: u32) -> Result<(), StateError> {
        let path = self.home.path.join(name);
        // One name is enough: only the holder of the lock writes.
        let staged = self.home.path.join(format!("{name}.new"));
        write_new_file(&staged, content, mode)?;
        if let Err(source) = std::fs::rename(&staged, &path) {
            let _ = std::fs::remove_file(&staged);
            return Err(io_error("replace", &path)(source));
        }
        let directory = &self.home.path;
        let synced = File::open(directory).and_then(|directory| directory.sync_all());
        synced.map_err(io_error("flush", directory))
    }
}

/// Creates and fills a file that did not exist, flushed to disk. A leftover of that name is removed.
fn write_new_file(path: &Path, content: &[u8], mode: u32) -> Result<(), StateError> {
    match std::fs::remove_file(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(io_error("remove", path)(error)),
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(mode);
    let mut file = options.open(path).map_err(io_error("create", path))?;
    let written = file.write_all(content).and_then(|()| file.sync_all());
    written.map_err(|source| {
        let _ = std::fs::remove_file(path);
        io_error("write", path)(source)
    })
}

/// The whole of a regular file of at most `bytes_max`, and the open file; never through a symbolic link and never
/// waiting for a FIFO; `None` when there is none.
pub(super) fn read_bounded(path: &Path, bytes_max: u64) -> Result<Option<(Vec<u8>, File)>, StateError> {
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    let file = match options.open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_error("open", path)(error)),
    };
    let metadata = file.metadata().map_err(io_error("read", path))?;
    if !metadata.is_file() || metadata.len() > bytes_max {
        let error = io::Error::other("not a regular file of a sensible size");
        return Err(io_error("read", path)(error));
    }
    let mut content = Vec::new();
    (&file)
        .take(bytes_max)
        .read_to_end(&mut content)
        .map_err(io_error("read", path))?;
    Ok(Some((content, file)))
}

/// Refuses an open file or directory that has any of the permission bits `refused`.
pub(super) fn refuse_bits(path: &Path, file: &File, refused: u32, wanted: u32) -> Result<(), StateError> {
    let mode = file.metadata().map_err(io_error("read", path))?.mode() & 0o7777;
    if mode & refused == 0 {
        return Ok(());
    }
    Err(StateError::Exposed {
        path: path.to_owned(),
        mode,
        wanted,
    })
}

pub(super) fn create_private_directory(path: &Path) -> Result<(), StateError> {
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => {}
        Ok(_) => {
            return Err(StateError::NotDirectory { path: path.to_owned() });
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if let Some(parent) = path.parent() {
                std::fs::create_dir_all(parent).map_err(io_error("create", parent))?;
            }
            match DirBuilder::new().mode(0o700).create(path) {
                Ok(()) => {}
                // Another process was faster; what it made is checked below.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(io_error("create", path)(error)),
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            return Err(StateError::NotDirectory { path: path.to_owned() });
        }
        Err(error) => return Err(io_error("open", path)(error)),
    }
    let directory = File::open(path).map_err(io_error("open", path))?;
    let metadata = directory.metadata().map_err(io_error("open", path))?;
    let user = rustix::process::geteuid();
    if !user.is_root() && metadata.uid() != user.as_raw() {
        return Err(StateError::Foreign {
            path: path.to_owned(),
            owner: metadata.uid(),
        });
    }
    refuse_bits(path, &directory, 0o022, 0o700)
}

/// `text` without control characters, cut to the longest prefix that a device name may have.
pub(super) fn display_name(text: &str) -> String {
    let mut name: String = text.chars().filter(|c| !c.is_control()).collect();
    while name.len() > DEVICE_NAME_BYTES_MAX {
        name.pop();
    }
    if name.trim().is_empty() {
        return "device".to_owned();
    }
    name
}

pub(super) fn io_error(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StateError {
    move |source| StateError::Io {
        operation,
        path: path.to_owned(),
        source,
    }
}

fn shown(path: &Path) -> String {
    escape(path.as_os_str().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;
    use std::sync::atomic::{AtomicU8, Ordering};

    fn chmod(path: &Path, mode: u32) {
        std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().mode() & 0o7777
    }

    fn identity(byte: u8) -> io::Result<Identity> {
        Ok((vec![byte; 40], vec![byte; 50]))
    }

    // Protects the key and the trust from other users of the machine.
    #[test]
    fn a_new_home_is_private_and_one_that_others_may_write_is_refused() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("a/b/state");
        let home = Home::open(&path).unwrap();
        assert_eq!(mode(home.path()), 0o700);
        for open in [0o770, 0o702, 0o1777] {
            chmod(&path, open);
            let error = Home::open(&path).unwrap_err();
            assert!(matches!(error, StateError::Exposed { .. }), "{error}");
            assert!(error.to_string().contains("chmod 700"), "{error}");
        }
        chmod(&path, 0o755);
        Home::open(&path).unwrap();
    }

    // Protects the user from a confusing error when --home names a file, or a place below one.
    #[test]
    fn a_file_in_the_place_of_the_home_is_named() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("file");
        std::fs::write(&file, b"x").unwrap();
        for path in [file.clone(), file.join("below")] {
            let error = Home::open(&path).unwrap_err();
            assert!(matches!(error, StateError::NotDirectory { .. }), "{error}");
            assert!(error.to_string().contains("--home"), "{error}");
        }
    }

    // Protects the device's identity: made once, kept for good, private.
    #[test]
    fn the_identity_is_made_once_and_its_key_is_private() {
        let place = tempfile::tempdir().unwrap();
        let home = Home::open(place.path()).unwrap();
        let first = home.identity_or_create(&mut || identity(1)).unwrap();
        let again = home.identity_or_create(&mut || panic!("made twice")).unwrap();
        assert_eq!(first, again);
        assert_eq!(mode(&place.path().join(KEY_FILE)), 0o600);
        chmod(&place.path().join(KEY_FILE), 0o640);
        let error = home.identity_or_create(&mut || identity(2)).unwrap_err();
        assert!(error.to_string().contains("chmod 600"), "{error}");
    }

    // Protects a device from changing who it is when half of the pair is lost or a key was not made.
    #[test]
    fn a_damaged_identity_is_refused_and_a_failed_one_leaves_nothing() {
        let place = tempfile::tempdir().unwrap();
        let home = Home::open(place.path()).unwrap();
        let failed = home.identity_or_create(&mut || Err(io::Error::other("no entropy")));
        assert!(failed.unwrap_err().to_string().contains("no entropy"));
        assert!(!place.path().join(KEY_FILE).exists());
        // A crash between the two files: the certificate alone does not count.
        std::fs::write(place.path().join(CERTIFICATE_FILE), b"old").unwrap();
        assert_eq!(
            home.identity_or_create(&mut || identity(3)).unwrap(),
            identity(3).unwrap()
        );
        std::fs::remove_file(place.path().join(CERTIFICATE_FILE)).unwrap();
        let error = home.identity_or_create(&mut || identity(4)).unwrap_err();
        assert!(matches!(error, StateError::Damaged { .. }), "{error}");
        assert!(error.to_string().contains("device.crt"), "{error}");
    }

    // Protects two first commands at once from ending with different keys.
    #[test]
    fn concurrent_first_use_ends_with_one_key() {
        let place = tempfile::tempdir().unwrap();
        let calls = AtomicU8::new(0);
        let seen: Vec<Identity> = std::thread::scope(|scope| {
            let start = || {
                let home = Home::open(place.path()).unwrap();
                let mut make = || identity(calls.fetch_add(1, Ordering::SeqCst));
                home.identity_or_create(&mut make).unwrap()
            };
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(start)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(calls.load(Ordering::SeqCst), 1);
        assert!(seen.iter().all(|identity| *identity == seen[0]));
    }

    // Protects a command from hanging on a FIFO or following a link out of the home.
    #[test]
    fn row_6_a_fifo_or_symlink_in_place_of_the_key_is_refused() {
        let place = tempfile::tempdir().unwrap();
        let home = Home::open(place.path()).unwrap();
        let key = place.path().join(KEY_FILE);
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &key, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        assert!(home.identity_or_create(&mut || identity(1)).is_err());
        std::fs::remove_file(&key).unwrap();
        std::os::unix::fs::symlink("/dev/zero", &key).unwrap();
        assert!(home.identity_or_create(&mut || identity(1)).is_err());
    }

    // Protects peers and terminals from odd or long host names.
    #[test]
    fn display_names_are_short_and_harmless() {
        assert_eq!(display_name("nas\n\u{1b}[1m"), "nas[1m");
        assert_eq!(display_name(""), "device");
        let long = display_name(&"ü".repeat(100));
        assert!(long.len() <= DEVICE_NAME_BYTES_MAX && long.starts_with('ü'));
    }
}
