//! The beginning of a file that an earlier transfer staged: found again, and read as far as it is not
//! known what it is.
//!
//! 1. The journal says which kept file it is, how far it was verified, and whether that can be believed:
//!    after a power cut it cannot, and all of it is read again.
//! 2. What was written behind that is read. Which of it is right is for the sender to say, who compares the
//!    root of all of it with its own file.
//!
//! 3. Of a source that has changed since, it is no beginning any more, but a basis of the new version, as good
//!    as any: all of it is read, and it is compared like one.
//!
//! Never decides whether it is used. Invariant: the tree is that of what lies in the file now, but for
//! leaves that were verified there by a process before, since when the machine has not gone down.

use super::place::Place;
use super::resumes::{Begun, Lease};
use crate::delta::TreeHasher;
use crate::model::limits::LEAF_BYTES;
use crate::model::{ContentId, DeviceId, ItemCode, RelPath, Timestamp};
use crate::store::{SourceFile, StagedFile};
use std::rc::Rc;

/// What is there of a file.
pub(super) struct Partial {
    pub(super) staged: StagedFile,
    pub(super) lease: Lease,
    pub(super) hasher: TreeHasher,
}

/// What is there of a file whose turn has not come: without a descriptor, so that thousands can wait.
pub(super) struct Parked {
    lease: Lease,
    hasher: TreeHasher,
}

/// A kept file that is read.
pub(super) struct Adopting {
    partial: Partial,
    source: SourceFile,
    /// Bytes to read: of whole leaves, if it is a beginning.
    end: u64,
    of: Of,
}

/// What a kept file is the beginning of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Of {
    /// What is offered now.
    Offered,
    /// What was offered once: the source has changed.
    Earlier,
}

/// What becomes of a kept file whose source has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Changed {
    /// It may still have much of the new version.
    IsBasis,
    IsDropped,
}

/// How a step ended.
pub(super) enum Adopted {
    More(Box<Adopting>),
    Done(Box<Partial>),
    /// It is of an earlier version of the source: a basis of the new one.
    Basis(StagedFile, ContentId),
    /// There is nothing in it.
    Nothing,
}

/// Bytes per step: below the time quantum of a connection.
const STEP_BYTES: u64 = 1 << 20;

const LEAF: u64 = LEAF_BYTES as u64;

impl Partial {
    /// It is of no use any more.
    pub(super) fn discard(self) {
        self.lease.discard(self.staged);
    }

    /// Lets go of the file until its turn has come.
    pub(super) fn park(self) -> Parked {
        let Partial { lease, hasher, .. } = self;
        Parked { lease, hasher }
    }
}

impl Parked {
    /// What is there, as it is named to the sender.
    pub(super) fn id(&self) -> ContentId {
        self.hasher.clone().finish()
    }

    /// Bytes of it.
    pub(super) fn length(&self) -> u64 {
        self.hasher.length()
    }

    /// Its turn has come.
    ///
    /// Errors: when another transfer goes on with the file, or it is not there as it was.
    pub(super) fn reopen(self, place: &Place, path: &RelPath) -> Result<Partial, ItemCode> {
        let Parked { lease, hasher } = self;
        if lease.is_revoked() {
            return Err(ItemCode::TakenOver);
        }
        let staged = place.staging.adopt(path, lease.id()).map_err(|error| {
            log::warn!("{error}");
            error.code()
        })?;
        let length = |staged: &StagedFile| staged.file().metadata().map_or(0, |found| found.len());
        match staged.filter(|staged| length(staged) >= hasher.length()) {
            Some(staged) => Ok(Partial { staged, lease, hasher }),
            None => {
                log::warn!("{path}: what was staged of it was removed");
                lease.end();
                Err(ItemCode::Vanished)
            }
        }
    }

    /// It is of no use any more.
    pub(super) fn discard(self, place: &Place) {
        if !self.lease.is_revoked() {
            place.staging.discard_kept(self.lease.id());
            self.lease.end();
        }
    }
}

impl Adopting {
    /// What an earlier transfer by `peer` left of the file at `path`. If that was of another size or time, its
    /// source has changed.
    pub(super) fn find(
        place: &Rc<Place>,
        path: &RelPath,
        peer: Option<&DeviceId>,
        (size, mtime): (u64, Timestamp),
        changed: Changed,
    ) -> Option<Box<Adopting>> {
        let Begun {
            mut lease,
            incoming,
            reached,
            proven,
        } = place.resumes.find(path, peer, (size, mtime))?;
        let staged = match place.staging.adopt(path, lease.id()) {
            Ok(Some(staged)) => staged,
            Ok(None) => {
                lease.end();
                return None;
            }
            Err(error) => {
                log::warn!("{error}");
                return None;
            }
        };
        let of = match (incoming.size, incoming.mtime) == (size, mtime) {
            true => Of::Offered,
            false => Of::Earlier,
        };
        if of == Of::Earlier && changed == Changed::IsDropped {
            log::info!("{path}: it changed since it was sent in part");
            lease.discard(staged);
            return None;
        }
        let source = staged.as_source().ok()?;
        let written = match incoming.basis {
            None => source.size(),
            // It has had its length from the start: what is behind the last note may be of the basis.
            Some(_) => source.size().min(reached.offset),
        };
        let end = match of {
            Of::Offered => written.min(size) / LEAF * LEAF,
            Of::Earlier => source.size(),
        };
        let known = TreeHasher::behind(reached.offset / LEAF, &reached.frontier);
        let known = known.filter(|known| proven && known.length() <= end);
        if known.is_none() {
            lease.doubt();
        }
        let partial = Partial {
            staged,
            lease,
            hasher: known.unwrap_or_default(),
        };
        Some(Box::new(Adopting {
            partial,
            source,
            end,
            of,
        }))
    }

    /// Reads on by a bounded amount.
    pub(super) fn step(mut self: Box<Adopting>, scratch: &mut Vec<u8>) -> Adopted {
        let at = self.partial.hasher.length();
        if at < self.end {
            scratch.resize((self.end - at).min(STEP_BYTES) as usize, 0);
            return match self.source.read_at(at, scratch) {
                Ok(length) if length == scratch.len() => {
                    self.partial.hasher.update(scratch);
                    Adopted::More(self)
                }
                other => {
                    log::warn!(
                        "{}: what was staged cannot be read: {other:?}",
                        self.partial.staged.path()
                    );
                    self.partial.discard();
                    Adopted::Nothing
                }
            };
        }
        if at == 0 {
            self.partial.discard();
            return Adopted::Nothing;
        }
        if self.of == Of::Earlier {
            let Partial { staged, lease, hasher } = self.partial;
            let staged = staged.unkept();
            lease.end();
            return Adopted::Basis(staged, hasher.finish());
        }
        self.partial.lease.note(&self.partial.hasher);
        Adopted::Done(Box::new(self.partial))
    }
}

#[cfg(test)]
mod tests {
    use super::super::arriving::Arrival;
    use super::super::options::Durability;
    use super::super::resumes::Resumes;
    use super::*;
    use crate::model::Meta;
    use crate::store::{Expected, Incoming, Journal, Room, Root, publish};
    use crate::wire::Start;

    const SIZE: u64 = 2 << 20;

    const META: Meta = Meta {
        mode: 0o644,
        mtime: Timestamp { seconds: 7, nanos: 0 },
    };

    fn path() -> RelPath {
        RelPath::parse(b"f").unwrap()
    }

    fn place(directory: &std::path::Path) -> Rc<Place> {
        let root = Root::open(directory).unwrap();
        let mut place = Place::new(root, Durability::None);
        place.resumes = Resumes::of(Journal::open(&place.root));
        Rc::new(place)
    }

    fn begun(place: &Rc<Place>, content: &[u8]) -> Arrival {
        let incoming = Incoming {
            path: path(),
            peer: None,
            size: SIZE,
            mtime: META.mtime,
            basis: None,
        };
        let lease = place.resumes.begin(incoming).unwrap();
        let staged = place.staging.create_kept(&path(), Room::Sparse, lease.id()).unwrap();
        staged.write_at(0, content).unwrap();
        let start = Start {
            file: 0,
            size: SIZE,
            sparse: false,
            meta: META,
        };
        Arrival::new(&start, staged, Some(lease), 1, None)
    }

    fn found(place: &Rc<Place>) -> Partial {
        let mut adopting = Adopting::find(place, &path(), None, (SIZE, META.mtime), Changed::IsDropped).unwrap();
        let mut scratch = Vec::new();
        loop {
            adopting = match adopting.step(&mut scratch) {
                Adopted::More(adopting) => adopting,
                Adopted::Done(partial) => return *partial,
                Adopted::Basis(..) | Adopted::Nothing => panic!("there is something in it"),
            };
        }
    }

    // Thousands of files can wait for their turn with what is staged of them: none holds a descriptor, and
    // each is looked at again.
    #[test]
    fn what_waits_is_opened_in_its_turn() {
        let dir = tempfile::tempdir().unwrap();
        let place = place(dir.path());
        drop(begun(&place, &[3; SIZE as usize]));
        let kept = dir.path().join(".syncline/staging/kept");
        let name = std::fs::read_dir(&kept).unwrap().next().unwrap().unwrap().path();
        let open = || {
            let all = std::fs::read_dir("/proc/self/fd").unwrap();
            all.filter_map(|fd| std::fs::read_link(fd.ok()?.path()).ok())
                .filter(|path| *path == name)
                .count()
        };
        let parked = found(&place).park();
        assert_eq!((open(), parked.length()), (0, SIZE));
        let partial = parked.reopen(&place, &path()).unwrap();
        assert_eq!(open(), 1);
        let parked = partial.park();
        std::fs::write(&name, b"cut").unwrap();
        assert!(matches!(parked.reopen(&place, &path()), Err(ItemCode::Vanished)));
        assert!(place.resumes.arrivals().is_empty());
    }

    // Who was taken over gives up its file, and that is the file of whoever goes on with it: it has to stay.
    #[test]
    fn what_was_taken_over_is_not_removed_by_who_had_it() {
        let dir = tempfile::tempdir().unwrap();
        let place = place(dir.path());
        let content = vec![3; SIZE as usize];
        let first = begun(&place, &content);
        let second = found(&place);
        assert!(first.is_revoked());
        first.discard();
        let third = found(&place);
        assert!(second.lease.is_revoked());
        second.park().discard(&place);
        assert_eq!(third.hasher.length(), SIZE);
        let sealed = third.staged.seal(&META, SIZE).unwrap();
        publish(&place.root, sealed, &Expected::Absent, None).unwrap();
        third.lease.end();
        assert_eq!(std::fs::read(dir.path().join("f")).unwrap(), content);
        assert!(place.resumes.arrivals().is_empty());
    }
}

#[cfg(test)]
#[path = "partial_tests.rs"]
mod found_tests;
