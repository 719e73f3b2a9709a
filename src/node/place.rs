//! A place that files are received into: a root, its staging, and when "committed" may be said.

use super::activity::Activity;
use super::deltas::Deltas;
use super::options::Durability;
use super::resumes::Resumes;
use crate::model::{ContentId, DeviceId, RelPath, Timestamp};
use crate::store::{
    Author, FileError, FoundKind, Identity, Journal, JournalError, Keeping, LockError, Root, ShareLock, Staging, Sweep,
    Versions, recover,
};
use std::cell::RefCell;
use std::collections::HashSet;
use std::fmt;
use std::rc::Rc;

/// The receiving end of transfers: a share of a server, or the target of a pull.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) root: Root,
    pub(crate) staging: Staging,
    pub(crate) durability: Durability,
    pub(crate) deltas: Rc<Deltas>,
    pub(crate) resumes: Rc<Resumes>,
    /// Files that got their names and were not made durable: what stands there is not believed.
    pub(crate) doubts: Doubts,
    /// Where what gives way is kept; `None`: it goes.
    pub(crate) versions: Option<Versions>,
    /// The log of what happens here; `None`: none is kept.
    pub(crate) activity: Option<Activity>,
    /// What was done here, for who keeps an index of it; `None`: nobody does.
    pub(crate) notices: RefCell<Option<Vec<Notice>>>,
    /// What gives the share its revisions, once somebody has asked for them.
    #[cfg(feature = "sync")]
    pub(crate) sequencer: RefCell<Option<super::sequencer::Sequencer>>,
}

/// How a place is opened.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Opening {
    pub(crate) durability: Durability,
    /// What is replaced and deleted is kept.
    pub(crate) keeps_versions: bool,
}

/// A place, and what was found there.
#[derive(Debug)]
pub(crate) struct OpenedPlace {
    pub(crate) place: Place,
    /// Why nothing may be written there before somebody has repaired its journal.
    pub(crate) damage: Option<JournalError>,
    /// `None`: it can only be read.
    pub(crate) lock: Option<ShareLock>,
}

impl OpenedPlace {
    fn open_journal(&mut self) {
        let place = &mut self.place;
        place.resumes = match Journal::open(&place.root) {
            Err(error @ (JournalError::Damaged { .. } | JournalError::Version(_))) => {
                self.damage = Some(error);
                Resumes::new(None)
            }
            opened => Resumes::of(opened),
        };
        let recovered = place.recover();
        if recovered.is_something() {
            let path = place.root.path().display();
            log::warn!("{path}: found after an earlier run: {recovered}");
        }
    }
}

/// A path that a transfer gave a new state.
#[derive(Debug, Clone)]
#[cfg_attr(not(feature = "sync"), allow(dead_code, reason = "nobody takes them"))]
pub(crate) struct Notice {
    pub(crate) path: RelPath,
    /// The file that was published there, and what it contains.
    pub(crate) content: Option<(Identity, ContentId)>,
    /// Who did it.
    pub(crate) author: Option<DeviceId>,
}

/// A content that gets a name here, with this time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Committed {
    pub(crate) id: ContentId,
    pub(crate) mtime: Timestamp,
    /// The inode that gets it; `None` when it is changed in place.
    pub(crate) inode: Option<u64>,
}

impl Committed {
    /// Whether what was found under the name may be it. Another device may have put a file of the same size and time
    /// in its place before anybody looks.
    pub(crate) fn may_be(&self, found: &Identity) -> bool {
        self.inode.is_none_or(|inode| inode == found.inode())
    }
}

impl Place {
    pub(crate) fn new(root: Root, durability: Durability) -> Place {
        let staging = Staging::new(&root);
        let deltas = Rc::new(Deltas::in_root(&root));
        Place {
            root,
            staging,
            durability,
            deltas,
            resumes: Resumes::new(None),
            doubts: Doubts::default(),
            versions: None,
            activity: None,
            notices: RefCell::default(),
            #[cfg(feature = "sync")]
            sequencer: RefCell::default(),
        }
    }

    /// Opens what is served at `root`: takes its lock, finds what its journal has, and tidies up after a run that
    /// ended in the middle of its work.
    ///
    /// # Errors
    /// [`LockError`], but for a root that can only be read.
    pub(crate) fn open(root: Root, how: Opening) -> Result<OpenedPlace, LockError> {
        let lock = match ShareLock::acquire(&root) {
            Ok(lock) => Some(lock),
            Err(LockError::ReadOnly) => None,
            Err(error) => return Err(error),
        };
        let mut place = Place::new(root, how.durability);
        if lock.is_some() && how.keeps_versions {
            place = place.keeping_versions();
        }
        if lock.is_some() {
            place = place.keeping_log();
        }
        if lock.is_some() && place.root.learn_folding().is_any() {
            let path = place.root.path().display();
            log::info!(
                "{path}: its file system takes some names for one; of two such names only the first can be there"
            );
        }
        let mut opened = OpenedPlace {
            place,
            damage: None,
            lock,
        };
        if opened.lock.is_some() {
            opened.open_journal();
        }
        Ok(opened)
    }

    /// The same place, where what is replaced and deleted is kept.
    pub(crate) fn keeping_versions(mut self) -> Place {
        self.versions = Some(Versions::new(&self.root));
        self
    }

    /// The same place, with a log of what happens in it.
    pub(crate) fn keeping_log(mut self) -> Place {
        self.activity = Some(Activity::new(&self.root));
        self
    }

    /// A turn is over: its lines of the log are written.
    pub(crate) fn write_log(&self) {
        if let Some(activity) = &self.activity {
            activity.write();
        }
    }

    /// How something gives way to what `peer` sends.
    pub(crate) fn keeping(&self, peer: Option<DeviceId>) -> Option<Keeping<'_>> {
        let author = Author::from(peer);
        self.versions.as_ref().map(|versions| Keeping { versions, author })
    }

    /// `path` has a new state: `published`, with this time, if it is a file. What stands there already may be another
    /// one: that was made of it, and is found to differ from what is noted.
    pub(crate) fn note(&self, path: &RelPath, published: Option<Committed>, author: Option<DeviceId>) {
        let mut notices = self.notices.borrow_mut();
        let Some(notices) = notices.as_mut() else { return };
        let content = published.and_then(|committed| {
            let found = self.root.probe(path).ok().flatten()?;
            let is_it = matches!(found.kind, FoundKind::File { .. }) && committed.may_be(&found.identity);
            let Committed { id, mtime, .. } = committed;
            is_it.then(|| (found.identity.as_published(id.length, mtime), id))
        });
        let path = path.clone();
        notices.push(Notice { path, content, author });
    }

    /// The file at `path` is complete: what an earlier transfer by `peer` left of it is of no use.
    pub(crate) fn forget_partial(&self, path: &RelPath, peer: Option<&DeviceId>) {
        if let Some(id) = self.resumes.idle(path, peer, |id| self.staging.has_kept(id)) {
            self.staging.discard_kept(id);
            self.resumes.end(id);
        }
    }

    /// Tidies up after a run that ended in the middle of its work: undoes what it left half changed in place,
    /// keeps what unfinished transfers can go on with, removes the rest. Before anything else uses the place,
    /// and safe to be cut short itself.
    pub(crate) fn recover(&self) -> Recovered {
        let mut recovered = Recovered::default();
        match recover(&self.root, self.durability.flush()) {
            Ok(recovery) => {
                recovered.rolled_back = recovery.rolled_back.len();
                for path in &recovery.rolled_back {
                    log::info!("{path} was left half changed by an earlier run and is as it was before");
                }
                for kept in &recovery.kept {
                    log::error!("{kept}");
                }
            }
            Err(error) => log::error!("{error}"),
        }
        recovered.removed = counted(self.staging.sweep());
        recovered.unfinished = self.collect(&mut recovered.removed);
        recovered
    }

    /// Gives up transfers that nobody came back for. Returns how many; their files are gone.
    pub(crate) fn expire(&self) -> u64 {
        let expired = self.resumes.expire_now();
        expired.iter().for_each(|id| self.staging.discard_kept(*id));
        expired.len() as u64
    }

    /// Removes what unfinished transfers have staged that nobody will go on with; how many are left. Without
    /// the journal nobody can tell, and nothing is touched.
    fn collect(&self, removed: &mut u64) -> usize {
        if !self.resumes.is_open() {
            return 0;
        }
        *removed += self.expire();
        let mut needed = HashSet::new();
        for id in self.resumes.arrivals() {
            if self.staging.has_kept(id) {
                needed.insert(id.to_string());
            } else {
                // It was published, and nobody came to say so.
                self.resumes.end(id);
            }
        }
        *removed += counted(self.staging.sweep_kept(|name| needed.contains(name)));
        needed.len()
    }
}

/// Paths of files that were published before a flush failed. The next transfer finds them with the right size
/// and time; nobody may call them durable for that, since a flush that failed is not made good by another one.
#[derive(Debug, Default)]
pub(crate) struct Doubts {
    paths: RefCell<HashSet<RelPath>>,
}

/// Past so many, every file is in doubt.
const DOUBTS_MAX: usize = 16_384;

impl Doubts {
    /// A file was not made durable.
    pub(crate) fn note(&self, path: &RelPath) {
        let mut paths = self.paths.borrow_mut();
        if paths.len() < DOUBTS_MAX {
            paths.insert(path.clone());
        }
    }

    /// Whether the file at `path` has to be written anew.
    pub(crate) fn contains(&self, path: &RelPath) -> bool {
        let paths = self.paths.borrow();
        paths.len() >= DOUBTS_MAX || paths.contains(path)
    }

    /// The file at `path` was written anew, and is durable.
    pub(crate) fn settle(&self, path: &RelPath) {
        let mut paths = self.paths.borrow_mut();
        if paths.len() < DOUBTS_MAX {
            paths.remove(path);
        }
    }
}

fn counted(swept: Result<Sweep, FileError>) -> u64 {
    // Staging itself says so again when nothing can be written there.
    swept
        .inspect_err(|error| log::info!("{error}"))
        .map_or(0, |swept| swept.removed)
}

/// What a recovery found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Recovered {
    rolled_back: usize,
    unfinished: usize,
    removed: u64,
}

impl fmt::Display for Recovered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            (
                self.rolled_back as u64,
                "changed in place by half and put back as it was",
            ),
            (self.unfinished as u64, "unfinished and able to go on"),
            (self.removed, "left over and removed"),
        ];
        let found = parts.iter().filter(|(count, _)| *count > 0);
        let texts: Vec<String> = found
            .map(|(count, what)| format!("{count} {} {what}", if *count == 1 { "file" } else { "files" }))
            .collect();
        f.write_str(&texts.join(", "))
    }
}

impl Recovered {
    /// Whether there was anything.
    pub(crate) fn is_something(&self) -> bool {
        *self != Recovered::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // One line, of what there was and nothing else.
    #[test]
    fn a_recovery_tells_what_it_found() {
        let found = Recovered {
            rolled_back: 0,
            unfinished: 1,
            removed: 12,
        };
        let text = "1 file unfinished and able to go on, 12 files left over and removed";
        assert_eq!(found.to_string(), text);
        assert!(found.is_something() && !Recovered::default().is_something());
    }

    // Protects a share from saying of one device's file what another's contains: both of one size and time, published
    // one after the other before anybody looks.
    #[test]
    fn what_was_published_is_not_said_of_what_took_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::new(Root::open(dir.path()).unwrap(), Durability::None);
        *place.notices.borrow_mut() = Some(Vec::new());
        let path = RelPath::parse(b"both").unwrap();
        std::fs::write(dir.path().join("both"), "a edited both").unwrap();
        let found = place.root.probe(&path).unwrap().unwrap();
        let mut committed = Committed {
            id: crate::delta::content_id(b"a edited both"),
            mtime: found.meta.mtime,
            inode: Some(found.identity.inode()),
        };
        place.note(&path, Some(committed), None);
        committed.inode = committed.inode.map(|inode| inode + 1);
        place.note(&path, Some(committed), None);
        let noted = place.notices.take().unwrap();
        assert!(noted[0].content.is_some_and(|(_, id)| id == committed.id));
        assert!(noted[1].content.is_none(), "it is read");
    }
}
