//! A synced folder lets go of its old versions, beside the runs that keep them.
//!
//! Once a day at most, on a thread of its own: nobody waits for it but the end of the command. Never fails a run.

use super::report::plain;
use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use syncline::node::SyncedFolder;
use syncline::store::Retention;

/// The versions of one folder, while a command syncs it.
#[derive(Debug)]
pub(crate) struct Tidying {
    folder: PathBuf,
    /// `None`: nothing is let go.
    retention: Option<Retention>,
    looked: Cell<Option<Instant>>,
    thread: RefCell<Option<JoinHandle<()>>>,
}

/// Between two times that versions are let go.
const PAUSE: Duration = Duration::from_secs(24 * 3600);
/// Between two looks whether it is time for it.
const LOOK: Duration = Duration::from_secs(3600);

impl Tidying {
    pub(crate) fn new(folder: PathBuf, retention: Option<Retention>) -> Tidying {
        Tidying {
            folder,
            retention,
            looked: Cell::new(None),
            thread: RefCell::default(),
        }
    }

    /// Something was synced: begins with it if it is time.
    pub(crate) fn look(&self) {
        let Some(retention) = self.retention else { return };
        let mut thread = self.thread.borrow_mut();
        let is_soon = self.looked.get().is_some_and(|looked| looked.elapsed() < LOOK);
        if is_soon || thread.as_ref().is_some_and(|thread| !thread.is_finished()) {
            return;
        }
        self.looked.set(Some(Instant::now()));
        let folder = self.folder.clone();
        let tidy = move || {
            let shown = plain(&folder.to_string_lossy());
            let tidied = SyncedFolder::open(&folder).and_then(|folder| folder.tidy(&retention, PAUSE));
            match tidied {
                Ok(Some(tidied)) if tidied.versions > 0 => {
                    log::info!(
                        "{shown}: {} old versions were removed, {} bytes",
                        tidied.versions,
                        tidied.bytes
                    );
                }
                Ok(_) => {}
                // One that was made for a sync that led to nothing goes again.
                Err(_) if !folder.exists() => {}
                Err(error) => log::warn!("old versions in {shown} cannot be removed: {error}"),
            }
        };
        *thread = thread::Builder::new().name("tidying".to_owned()).spawn(tidy).ok();
    }
}

impl Drop for Tidying {
    fn drop(&mut self) {
        // It removes whole versions only, but what it has begun it ends: else each run would begin anew.
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
