//! What must hold after every attack: the canary is whole, the server still serves, nothing leaked.

use super::{Run, World, WorldOptions, snapshot};
use std::fs;
use std::ops::{Deref, DerefMut};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use syncline::model::Link;
use syncline::node::{ServerOptions, TransferOptions};

/// Descriptors are counted per process, so the tests of one binary that count them take turns.
static ALONE: Mutex<()> = Mutex::new(());

/// A world with a canary beside it. Call [`Guarded::check`] at the end.
pub struct Guarded {
    pub world: World,
    canary: PathBuf,
    before: Vec<String>,
    descriptors: usize,
    visits: u32,
    _alone: MutexGuard<'static, ()>,
}

impl Guarded {
    pub fn new() -> Guarded {
        Guarded::with(&WorldOptions::default())
    }

    pub fn with(options: &WorldOptions) -> Guarded {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        Guarded::around(World::with(options), alone)
    }

    /// See [`World::tuned`].
    pub fn tuned(options: &WorldOptions, tune: impl FnOnce(&mut ServerOptions)) -> Guarded {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        Guarded::around(World::tuned(options, tune), alone)
    }

    /// See [`World::in_memory`].
    pub fn in_memory() -> Guarded {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        Guarded::around(World::in_memory(&WorldOptions::default()), alone)
    }

    fn around(world: World, alone: MutexGuard<'static, ()>) -> Guarded {
        let canary = world.path("canary");
        fs::create_dir_all(canary.join("sub")).unwrap();
        fs::write(canary.join("secret"), b"CANARY-SECRET").unwrap();
        fs::write(canary.join("sub/f0"), b"CANARY-SUB").unwrap();
        symlink("secret", canary.join("link")).unwrap();
        let mut guarded = Guarded {
            before: snapshot(&canary),
            canary,
            world,
            descriptors: 0,
            visits: 0,
            _alone: alone,
        };
        guarded.serve_another();
        guarded.descriptors = guarded.settle_descriptors(0);
        guarded
    }

    pub fn canary(&self) -> PathBuf {
        self.canary.clone()
    }

    // The same as on the world: through `DerefMut` an argument could not borrow the world as well.

    pub fn push(&mut self, sources: &[&Path], target: &Link, transfer: TransferOptions) -> Run {
        self.world.push(sources, target, transfer)
    }

    pub fn pull(&mut self, link: &Link, target: &Path, transfer: TransferOptions) -> Run {
        self.world.pull(link, target, transfer)
    }

    /// Nothing outside was touched, another connection is served, and no descriptor is left open.
    pub fn check(mut self) {
        assert_eq!(snapshot(&self.canary), self.before, "the canary was touched");
        self.serve_another();
        assert_eq!(snapshot(&self.canary), self.before, "the canary was touched");
        let limit = self.descriptors;
        let now = self.settle_descriptors(limit);
        assert!(
            now <= limit,
            "{now} descriptors are open, {limit} before: {:?}",
            open_files()
        );
    }

    /// A push and a pull of something new over a connection of their own.
    fn serve_another(&mut self) {
        self.visits += 1;
        let name = format!("visitor-{}", self.visits);
        let source = self.world.path(&name);
        fs::write(&source, name.as_bytes()).unwrap();
        let link = if self.world.plain {
            self.world.link("")
        } else {
            self.world.invite(syncline::model::Rights::READ_WRITE)
        };
        let pushed = self.world.push(&[&source], &link, TransferOptions::default());
        pushed.assert_clean();
        let back = self.world.path("visitor-back");
        let link = self.world.link(&format!("/{name}"));
        let pulled = self.world.pull(&link, &back, TransferOptions::default());
        pulled.assert_clean();
        assert_eq!(fs::read(&back).unwrap(), name.as_bytes());
        fs::remove_file(self.world.share().join(&name)).unwrap();
        fs::remove_file(&source).unwrap();
        fs::remove_file(&back).unwrap();
    }

    /// Lets the server close what is to be closed, until at most `limit` descriptors are open or
    /// nothing more happens.
    fn settle_descriptors(&mut self, limit: usize) -> usize {
        let until = Instant::now() + Duration::from_secs(if limit == 0 { 0 } else { 3 });
        loop {
            for _ in 0..20 {
                self.world.server.poll(Some(Duration::from_millis(1))).unwrap();
            }
            let open = open_files().len();
            if open <= limit || Instant::now() >= until {
                return open;
            }
        }
    }
}

impl Deref for Guarded {
    type Target = World;

    fn deref(&self) -> &World {
        &self.world
    }
}

impl DerefMut for Guarded {
    fn deref_mut(&mut self) -> &mut World {
        &mut self.world
    }
}

fn open_files() -> Vec<String> {
    let listing = fs::read_dir("/proc/self/fd").unwrap();
    let target = |entry: fs::DirEntry| fs::read_link(entry.path()).map(|path| path.display().to_string());
    let open = listing.flatten().filter_map(|entry| target(entry).ok());
    // One of each for a share, from the first large file on.
    let lasting = ["/.syncline/sidecars", "/.syncline/journal", "/.syncline"];
    open.filter(|path| !lasting.iter().any(|end| path.ends_with(end)))
        .collect()
}

/// Bytes of this process that are in memory and not file mappings.
pub fn resident_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
    let digits: String = line.chars().filter(char::is_ascii_digit).collect();
    digits.parse::<u64>().unwrap() * 1024
}

/// Whether any file below `root` holds `needle`.
pub fn holds(root: &Path, needle: &[u8]) -> bool {
    let mut waiting = vec![root.to_path_buf()];
    while let Some(directory) = waiting.pop() {
        let Ok(listing) = fs::read_dir(&directory) else {
            continue;
        };
        for entry in listing.flatten() {
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_dir() {
                waiting.push(entry.path());
            } else if kind.is_file()
                && fs::read(entry.path()).is_ok_and(|bytes| bytes.windows(needle.len()).any(|part| part == needle))
            {
                return true;
            }
        }
    }
    false
}
