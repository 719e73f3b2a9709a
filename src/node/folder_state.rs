//! `SyncedFolder`: what a folder knows of its sync, for commands on the machine that has it.
//!
//! Never connects, and syncs nothing. Finds the folder of a path, tells its link, its last run and what changed in
//! it since, pauses it, has it forget its share. Invariant: no file of the folder is changed here.

use super::activity::Activity;
use super::syncing::{FolderError, linked};
use crate::model::{Entry, Kind, Link, RelPath, escape};
use crate::store::{
    Difference, FileError, Happened, Identity, Ignore, Index, IndexError, IndexOptions, LastRun, LockError, Retention,
    Root, RunFigures, ShareLock, Survey, Tidied, Tidying, Who, folder_is_paused, folder_link, forget_sync,
    is_index_of_a_share, last_run, note_run, note_tidied, pause_folder, since_tidied,
};
use std::collections::HashMap;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A folder that is synced with a share.
#[derive(Debug)]
pub struct SyncedFolder {
    root: Root,
    link: Link,
    shown: String,
}

/// What already stands where a folder is to be synced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Surroundings {
    /// Nothing that would be in the way.
    Free,
    /// A folder above it is synced with this share already.
    InSynced(PathBuf, Box<Link>),
    /// A folder above it was served as a share.
    InShare(PathBuf),
    /// It was served as a share itself.
    Share,
}

/// One difference between a folder and what was agreed on last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LocalChange {
    /// It is new.
    Added(Entry),
    /// It is another one now.
    Changed(Entry),
    /// Only mode or time is another.
    Touched(Entry),
    /// It is gone.
    Removed(RelPath),
    /// It has another name.
    Moved(RelPath, RelPath),
    /// It takes no part: a FIFO, socket or device.
    Special(RelPath),
    /// It could not be looked at, and why.
    Unread(String, String),
}

/// Entries that are looked at between two looks at the clock of whoever waits.
const STEP_ENTRIES: usize = 4096;

impl SyncedFolder {
    /// The folder at `path`.
    ///
    /// # Errors
    /// [`FolderError::Unlinked`] when it is not synced, [`FolderError::Unusable`] when it cannot be read.
    pub fn open(path: &Path) -> Result<SyncedFolder, FolderError> {
        let shown = escape(path.as_os_str().as_bytes());
        let link = linked(path)?;
        let root = Root::open(path).map_err(|error| unusable(&shown, &error))?;
        Ok(SyncedFolder { root, link, shown })
    }

    /// What it is synced with.
    #[must_use]
    pub fn link(&self) -> &Link {
        &self.link
    }

    /// Whether it is paused.
    ///
    /// # Errors
    /// When that cannot be read.
    pub fn is_paused(&self) -> Result<bool, FolderError> {
        folder_is_paused(&self.root).map_err(|error| unusable(&self.shown, &error))
    }

    /// Pauses it, or has it go on; whether that changed anything.
    ///
    /// # Errors
    /// When that cannot be written.
    pub fn pause(&self, paused: bool) -> Result<bool, FolderError> {
        pause_folder(&self.root, paused).map_err(|error| unusable(&self.shown, &error))
    }

    /// How the last run ended; `None` when none did.
    ///
    /// # Errors
    /// When that cannot be read.
    pub fn last_run(&self) -> Result<Option<LastRun>, FolderError> {
        last_run(&self.root).map_err(|error| unusable(&self.shown, &error))
    }

    /// Notes how a run ends now, for [`SyncedFolder::last_run`].
    ///
    /// # Errors
    /// When that cannot be written.
    pub fn note_run(&self, exit_code: u8, entries: Option<u64>) -> Result<(), FolderError> {
        note_run(&self.root, exit_code, entries).map_err(|error| unusable(&self.shown, &error))
    }

    /// Writes a line about a run into its activity log, unless nothing came of it, or the same was said within a day.
    pub fn log_run(&self, figures: RunFigures) {
        let activity = Activity::beside(&self.root);
        let here = Who::here();
        let is_news = match &figures.reason {
            Some(reason) => activity.is_end_news(&here, reason),
            None => false,
        };
        if figures.changes > 0 || is_news {
            activity.note(&here, Happened::Run(figures));
        }
    }

    /// Lets go of versions that are too old or too many, unless that was done less than `pause` ago. Blocks, for
    /// seconds where there are many; a sync may run meanwhile.
    ///
    /// # Returns
    /// What was let go; `None` when it was not time for it.
    ///
    /// # Errors
    /// When they cannot be read or removed.
    pub fn tidy(&self, retention: &Retention, pause: Duration) -> Result<Option<Tidied>, FolderError> {
        let failed = |error: FileError| unusable(&self.shown, &error);
        if since_tidied(&self.root)
            .map_err(failed)?
            .is_some_and(|since| since < pause)
        {
            return Ok(None);
        }
        let mut tidying = Tidying::begin(&self.root, retention).map_err(failed)?;
        while tidying.step(STEP_ENTRIES).map_err(failed)? {}
        note_tidied(&self.root).map_err(failed)?;
        Ok(Some(tidying.tidied()))
    }

    /// Who works on it now, as it says of itself; `None` when nobody does.
    ///
    /// # Errors
    /// When that cannot be found out.
    pub fn holder(&self) -> Result<Option<String>, FolderError> {
        match self.lock() {
            Ok(_) => Ok(None),
            Err(FolderError::Locked { holder, .. }) => Ok(Some(holder)),
            Err(error) => Err(error),
        }
    }

    /// Forgets the share, and what was agreed with it. All files stay, here and there.
    ///
    /// # Errors
    /// [`FolderError::Locked`] while somebody works on it; or it cannot be written.
    pub fn forget(self) -> Result<(), FolderError> {
        let lock = self.lock()?;
        let forgotten = forget_sync(&self.root).map_err(|error| unusable(&self.shown, &error));
        drop(lock);
        forgotten
    }

    /// Compares the folder with what was agreed on last, and tells every difference. No content is read. Blocks.
    ///
    /// # Returns
    /// Entries that were agreed on, and whether the folder could be seen whole.
    ///
    /// # Errors
    /// [`FolderError::Locked`] while somebody works on it; or what it remembers cannot be read.
    pub fn changes(&self, tell: &mut dyn FnMut(LocalChange)) -> Result<(u64, bool), FolderError> {
        let _lock = self.lock()?;
        self.root.learn_folding();
        let failed = |error: IndexError| FolderError::Base {
            path: self.shown.clone(),
            reason: error.to_string(),
        };
        let opened = Index::open(&self.root, IndexOptions::default()).map_err(failed)?;
        let snapshot = opened.index.snapshot().map_err(failed)?;
        let mut ignore = Ignore::new();
        let root = &self.root;
        let mut survey = Survey::new(None);
        let mut differences = Vec::new();
        loop {
            let keep = &mut |path: &RelPath, shape| ignore.keep(root, path, shape);
            if !survey
                .step(root, &snapshot, keep, STEP_ENTRIES, &mut differences)
                .map_err(failed)?
            {
                break;
            }
        }
        told(differences, tell);
        Ok((snapshot.live(), survey.complete()))
    }

    fn lock(&self) -> Result<ShareLock, FolderError> {
        ShareLock::acquire(&self.root).map_err(|error| match error {
            LockError::Held { holder } => FolderError::Locked {
                path: self.shown.clone(),
                holder,
            },
            LockError::ReadOnly => FolderError::Unusable {
                path: self.shown.clone(),
                reason: "it cannot be written to".to_owned(),
            },
            LockError::File(error) => unusable(&self.shown, &error),
        })
    }
}

/// What stands above `path`, which need not exist yet.
///
/// # Errors
/// When the directories above it cannot be looked at.
pub fn surroundings(path: &Path) -> io::Result<Surroundings> {
    let real = super::history::resolve(path)?;
    // What cannot be opened is told by whoever has to use it.
    if let Ok(root) = Root::open(&real)
        && is_index_of_a_share(&root).unwrap_or(false)
    {
        return Ok(Surroundings::Share);
    }
    for above in real.ancestors().skip(1) {
        if !above.join(RelPath::RESERVED).is_dir() {
            continue;
        }
        let Ok(root) = Root::open(above) else { continue };
        if let Some(link) = folder_link(&root).ok().flatten().and_then(|text| text.parse().ok()) {
            return Ok(Surroundings::InSynced(above.to_owned(), Box::new(link)));
        }
        if is_index_of_a_share(&root).unwrap_or(false) {
            return Ok(Surroundings::InShare(above.to_owned()));
        }
    }
    Ok(Surroundings::Free)
}

fn unusable(shown: &str, error: &FileError) -> FolderError {
    FolderError::Unusable {
        path: shown.to_owned(),
        reason: error.reason(),
    }
}

/// Tells differences in the order of the walk; a file that is gone here and new there was moved.
fn told(differences: Vec<Difference>, tell: &mut dyn FnMut(LocalChange)) {
    let mut gone: HashMap<u64, (Identity, RelPath)> = HashMap::new();
    for difference in &differences {
        if let Difference::Gone { path, record } = difference
            && let Some(identity) = record.identity
            && record
                .state
                .as_ref()
                .is_some_and(|state| matches!(state.kind, Kind::File { .. }))
        {
            gone.insert(identity.inode(), (identity, path.clone()));
        }
    }
    let mut moved: HashMap<RelPath, RelPath> = HashMap::new();
    for difference in &differences {
        if let Difference::Changed {
            entry,
            identity,
            record,
        } = difference
            && record.as_ref().is_none_or(|record| record.state.is_none())
            && gone
                .get(&identity.inode())
                .is_some_and(|(was, _)| was.same_content(identity))
            && let Some((_, from)) = gone.remove(&identity.inode())
        {
            moved.insert(entry.path.clone(), from);
        }
    }
    let sources: std::collections::HashSet<RelPath> = moved.values().cloned().collect();
    for difference in differences {
        match difference {
            Difference::Changed {
                entry,
                identity,
                record,
            } => {
                if let Some(from) = moved.remove(&entry.path) {
                    tell(LocalChange::Moved(from, entry.path));
                    continue;
                }
                let record = record.filter(|record| record.state.is_some());
                tell(match record {
                    // It was made anew.
                    Some(record) if is_same_directory(&entry, &record) => continue,
                    None => LocalChange::Added(entry),
                    Some(record) if is_same_content(&entry, &identity, &record) => LocalChange::Touched(entry),
                    Some(_) => LocalChange::Changed(entry),
                });
            }
            Difference::Gone { path, .. } if sources.contains(&path) => {}
            Difference::Gone { path, .. } => tell(LocalChange::Removed(path)),
            Difference::Special(path) => tell(LocalChange::Special(path)),
            Difference::Failed(error) => tell(LocalChange::Unread(escape(error.path()), error.reason())),
        }
    }
}

fn is_same_directory(entry: &Entry, record: &crate::store::Record) -> bool {
    let state = record.state.as_ref();
    entry.kind == Kind::Directory && state.is_some_and(|was| was.kind == entry.kind && was.meta.mode == entry.meta.mode)
}

fn is_same_content(entry: &Entry, identity: &Identity, record: &crate::store::Record) -> bool {
    let Some(state) = &record.state else { return false };
    match entry.kind {
        Kind::File { .. } => record.identity.is_some_and(|was| was.same_content(identity)),
        _ => state.kind == entry.kind,
    }
}
