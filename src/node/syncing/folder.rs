//! The folder of a sync: its lock, its base, and what it remembers of its share.
//!
//! Invariant: a folder belongs to one share; it is never quietly tied to another.

use super::held::{Held, Remotes};
use super::rehearsing::Traces;
use super::{Awaited, Exchange, Stage, Syncing};
use crate::model::{Epoch, Link, RelPath, Revision, Tick};
use crate::node::device_places::name_part;
use crate::node::looking::Looks;
use crate::node::observing::Observing;
use crate::node::options::SyncOptions;
use crate::node::place::Place;
use crate::node::resumes::Resumes;
use crate::store::{
    Batch, FileError, FoundIndex, Index, IndexError, IndexOptions, Journal, LockError, Root, ShareLock, Snapshot,
};
use crate::store::{folder_link, is_index_of_a_share, set_folder_link};
use crate::sync::Pending;
use crate::wire::Known;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::path::Path;
use std::rc::Rc;
use std::sync::mpsc;

/// Name of what the base keeps beside its records.
const KNOWN: &str = "known";

/// Why a folder cannot be synced.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FolderError {
    /// It is not there, or cannot be used.
    #[error("cannot use the folder {path}: {reason}")]
    Unusable {
        /// As given.
        path: String,
        /// From the system.
        reason: String,
    },
    /// Another process works on it.
    #[error("another syncline works on the folder {path} ({holder})")]
    Locked {
        /// As given.
        path: String,
        /// What it says of itself.
        holder: String,
    },
    /// It was never synced, and no link was given.
    #[error("the folder {path} does not know what to sync with")]
    Unlinked {
        /// As given.
        path: String,
    },
    /// It is synced with something else.
    #[error("the folder {path} is synced with {share} already")]
    Linked {
        /// As given.
        path: String,
        /// `HOST:PORT/SHARE`.
        share: String,
    },
    /// It was served as a share, and what gives that its revisions would be taken for what was agreed on.
    #[error("the folder {path} is served as a share itself")]
    Served {
        /// As given.
        path: String,
    },
    /// What it remembers cannot be read.
    #[error("what the folder {path} remembers of its share cannot be read: {reason}")]
    Base {
        /// As given.
        path: String,
        /// Why.
        reason: String,
    },
}

/// The folder, with the link that it is synced by.
pub(crate) struct Folder {
    pub(crate) syncing: Syncing,
    pub(crate) link: Link,
}

impl Folder {
    /// Opens the folder; `link` is what the user gave. It is made when there is a link and no folder.
    pub(crate) fn open(
        path: &Path,
        link: Option<&Link>,
        options: SyncOptions,
        device: &str,
    ) -> Result<Folder, FolderError> {
        let shown = crate::model::escape(std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str()));
        let unusable = |error: FileError| FolderError::Unusable {
            path: shown.clone(),
            reason: error.reason(),
        };
        let missing = Traces::before(path);
        let root = match link {
            Some(_) => Root::create(path),
            None => Root::open(path),
        };
        let root = root.map_err(unusable)?;
        let lock = lock_of(&root, &shown)?;
        root.learn_folding();
        let traces = Traces::of(&root, missing, options.dry_run);
        if is_index_of_a_share(&root).map_err(unusable)? {
            return Err(FolderError::Served { path: shown });
        }
        // Before there is a base: one without a link would be taken for the index of a share.
        if let (Some(link), None) = (link, folder_link(&root).map_err(unusable)?) {
            set_folder_link(&root, &without_secret(link)).map_err(unusable)?;
        }
        let base_error = |error: &IndexError| FolderError::Base {
            path: shown.clone(),
            reason: error.to_string(),
        };
        let index = open_base(&root, &shown).map_err(|error| base_error(&error))?;
        let snapshot = index.snapshot().map_err(|error| base_error(&error))?;
        let link = link_of(&root, &shown, link, snapshot.live() > 0)?;
        let kept = |name| {
            let value = snapshot.value(name).map_err(|error| base_error(&error));
            value.map(Option::unwrap_or_default)
        };
        let known = decode_known(&kept(KNOWN)?).unwrap_or_default();
        let pending = super::pending::decode(&kept(super::pending::PENDING)?);
        let held = super::held::decode(&kept(super::held::HELD)?);
        let awaited = Awaited::decode(&kept(super::awaiting::AWAITED)?);
        let mut place = Place::new(root, options.durability).keeping_versions();
        place.notices = std::cell::RefCell::new(Some(Vec::new()));
        if !options.dry_run {
            place = place.keeping_log();
            place.resumes = Resumes::of(Journal::open(&place.root));
            let recovered = place.recover();
            if recovered.is_something() {
                log::info!("{shown}: found after an earlier run: {recovered}");
            }
            let remembered = without_secret(&link);
            set_folder_link(&place.root, &remembered).map_err(unusable)?;
        }
        let observing = Observing::begin(&place.root, options.watch, Tick(0));
        let state = Opened {
            lock,
            index,
            snapshot,
            known,
            pending,
            held,
            awaited,
            observing,
            traces,
        };
        let syncing = Syncing::new(place, state, options, name_part(device));
        Ok(Folder { syncing, link })
    }
}

/// What was agreed on with the share; nothing yet, where that cannot be read.
fn open_base(root: &Root, shown: &str) -> Result<Index, IndexError> {
    let opened = Index::open(root, IndexOptions::default())?;
    if let FoundIndex::Damaged { moved_to, reason } = &opened.found {
        log::error!(
            "{shown}: what it remembers of its share could not be read ({reason}); it is synced as for the first time, and \
             the old one is kept as .syncline/{moved_to}"
        );
    }
    Ok(opened.index)
}

/// What a folder keeps, opened.
struct Opened {
    lock: ShareLock,
    index: Index,
    snapshot: Snapshot,
    known: Known,
    pending: HashMap<RelPath, Pending>,
    held: Remotes,
    awaited: Awaited,
    observing: Observing,
    traces: Option<Traces>,
}

pub(crate) fn lock_of(root: &Root, shown: &str) -> Result<ShareLock, FolderError> {
    let path = || shown.to_owned();
    ShareLock::acquire(root).map_err(|error| match error {
        LockError::Held { holder } => FolderError::Locked { path: path(), holder },
        LockError::ReadOnly => FolderError::Unusable {
            path: path(),
            reason: "it cannot be written to".to_owned(),
        },
        LockError::File(error) => FolderError::Unusable {
            path: path(),
            reason: error.reason(),
        },
    })
}

/// The link that holds: what the user gave, or what the folder remembers. With a base it is not tied to another share.
fn link_of(root: &Root, shown: &str, given: Option<&Link>, has_base: bool) -> Result<Link, FolderError> {
    let path = shown.to_owned();
    let kept = match folder_link(root) {
        Ok(text) => text.and_then(|text| text.parse::<Link>().ok()),
        Err(error) => {
            let reason = error.reason();
            return Err(FolderError::Unusable { path, reason });
        }
    };
    let same = |a: &Link, b: &Link| a.share == b.share && a.path == b.path;
    match (given, kept) {
        (None, None) => Err(FolderError::Unlinked { path }),
        (None, Some(kept)) => Ok(kept),
        (Some(link), Some(kept)) if !same(link, &kept) && has_base => {
            let share = format!("{}/{}", kept.authority(), kept.share);
            Err(FolderError::Linked { path, share })
        }
        (Some(link), _) => Ok(link.clone()),
    }
}

/// What the folder is synced with.
///
/// # Errors
/// [`FolderError::Unlinked`] when it never was, [`FolderError::Unusable`] when it cannot be read.
pub fn linked(path: &Path) -> Result<Link, FolderError> {
    let shown = crate::model::escape(std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str()));
    let found = Root::open(path).and_then(|root| folder_link(&root));
    let found = found.map_err(|error| FolderError::Unusable {
        path: shown.clone(),
        reason: error.reason(),
    })?;
    found
        .and_then(|text| text.parse().ok())
        .ok_or(FolderError::Unlinked { path: shown })
}

impl Syncing {
    /// A folder that nothing was done with yet.
    fn new(place: Place, state: Opened, options: SyncOptions, device: String) -> Syncing {
        Syncing {
            place: Rc::new(place),
            _lock: state.lock,
            options,
            device,
            index: state.index,
            snapshot: state.snapshot,
            known: state.known,
            told: state.known,
            remote: BTreeMap::new(),
            held: Held::new(state.held),
            is_anew: false,
            local: BTreeMap::new(),
            roots: HashMap::new(),
            looks: Looks::default(),
            observing: state.observing,
            is_whole: true,
            stage: Stage::Away,
            hashing: None,
            to_hash: VecDeque::new(),
            actions: VecDeque::new(),
            exchange: Exchange::default(),
            pending: state.pending,
            has_dropped: false,
            awaited: state.awaited,
            is_reverted: false,
            after_writing: Stage::Planning,
            made: HashMap::new(),
            batch: Batch::new(),
            changed: BTreeSet::new(),
            planned: 0,
            done: 0,
            rounds: 0,
            failures: 0,
            conflicts: Vec::new(),
            writes: mpsc::channel(),
            next_ticket: 0,
            writing: None,
            flushing: BTreeSet::new(),
            outrun: BTreeMap::new(),
            failing: BTreeSet::new(),
            news: false,
            failure: None,
            telling: super::telling::Telling::default(),
            traces: state.traces,
        }
    }

    /// The first records of a folder are of the epoch that the server tells first: in another one they would mean
    /// something else.
    pub(super) fn note_epoch(&mut self, told: &Known) {
        if self.known == Known::default() && told.epoch != Epoch::default() && !self.options.dry_run {
            self.known.epoch = told.epoch;
            self.batch.set_value(KNOWN, &encode_known(&self.known));
            self.traces.iter_mut().for_each(Traces::keep);
        }
    }

    /// From the next write on, the base is of all that the server has told.
    pub(super) fn catch_up(&mut self) {
        if self.known != self.told {
            self.known = self.told;
            self.batch.set_value(KNOWN, &encode_known(&self.known));
        }
        self.is_anew = false;
    }
}

fn encode_known(known: &Known) -> Vec<u8> {
    [known.epoch.0, known.revision.0, known.mark]
        .iter()
        .flat_map(|number| number.to_le_bytes())
        .collect()
}

fn decode_known(bytes: &[u8]) -> Option<Known> {
    let number = |index: usize| {
        let bytes = bytes.get(8 * index..8 * index + 8)?;
        Some(u64::from_le_bytes(bytes.try_into().ok()?))
    };
    Some(Known {
        epoch: Epoch(number(0)?),
        revision: Revision(number(1)?),
        mark: number(2)?,
    })
}

/// What is remembered: a secret is good once.
fn without_secret(link: &Link) -> String {
    let bare = Link {
        secret: None,
        ..link.clone()
    };
    bare.to_string()
}
