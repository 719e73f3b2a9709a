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
use crate::store::{Expected, FileError, Identity, InPlace, Operation, PlanBasis, StagedFile};
use std::os::unix::fs::FileExt;
use std::rc::Rc;

/// What is there of a file.
pub(super) struct Partial {
    pub(super) kept: Kept,
    pub(super) lease: Lease,
    pub(super) hasher: TreeHasher,
}

/// Where it is.
pub(super) enum Kept {
    Staged(StagedFile),
    /// In the file that is there, with these changes laid over.
    Changes(Box<InPlace>),
}

/// What is there of a file whose turn has not come: without a descriptor, so that thousands can wait.
pub(super) struct Parked {
    lease: Lease,
    hasher: TreeHasher,
    form: Form,
}

/// What the kept file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Staged,
    /// Changes that make a result of this length.
    Changes(u64),
}

/// The file that is to be changed in place, if one is: its content and its state.
pub(super) type Changeable = Option<(ContentId, Identity)>;

/// A kept file that is read.
pub(super) struct Adopting {
    partial: Partial,
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
        self.kept.discard(self.lease);
    }

    /// Lets go of the file until its turn has come.
    pub(super) fn park(self) -> Parked {
        let Partial { kept, lease, hasher } = self;
        let form = match kept {
            Kept::Staged(_) => Form::Staged,
            Kept::Changes(work) => Form::Changes(work.length()),
        };
        Parked { lease, hasher, form }
    }
}

impl Kept {
    /// Fills `buffer` with what is there at `offset`.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), FileError> {
        match self {
            Kept::Staged(staged) => {
                let read = staged.file().read_exact_at(buffer, offset);
                read.map_err(|error| FileError::new(Operation::Read, staged.path(), error))
            }
            Kept::Changes(work) => match work.read_through(offset, buffer)? {
                count if count == buffer.len() => Ok(()),
                _ => Err(FileError::found(
                    Operation::Read,
                    work.path().as_bytes(),
                    ItemCode::Changing,
                )),
            },
        }
    }

    /// It is of no use any more, unless another transfer goes on with it.
    fn discard(self, lease: Lease) {
        match self {
            Kept::Staged(staged) => lease.discard(staged),
            Kept::Changes(_) if lease.is_revoked() => {}
            Kept::Changes(work) => {
                work.discard();
                lease.end();
            }
        }
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

    /// Whether it can be gone on with for a result of `length` bytes: by a patch, unless all of it is in a file of
    /// its own.
    pub(super) fn is_for(&self, length: u64) -> bool {
        self.form == Form::Staged || self.form == Form::Changes(length)
    }

    /// Whether it is the beginning of a file of its own, which what comes can be written behind.
    pub(super) fn is_staged(&self) -> bool {
        self.form == Form::Staged
    }

    /// Its turn has come. What it may change is at `path` as `expected`.
    ///
    /// Errors: when another transfer goes on with the file, or it is not there as it was.
    pub(super) fn reopen(self, place: &Place, path: &RelPath, expected: &Expected) -> Result<Partial, ItemCode> {
        let Parked { lease, hasher, form } = self;
        if lease.is_revoked() {
            return Err(ItemCode::TakenOver);
        }
        let staged = place.staging.adopt(path, lease.id()).map_err(|error| {
            log::warn!("{error}");
            error.code()
        })?;
        let Some(staged) = staged.filter(|staged| length_of(staged) >= hasher.length()) else {
            log::warn!("{path}: what was staged of it was removed");
            lease.end();
            return Err(ItemCode::Vanished);
        };
        let kept = match (form, expected) {
            (Form::Staged, _) => Kept::Staged(staged),
            (Form::Changes(length), Expected::Present(identity)) => {
                let gathered = (staged, hasher.length());
                let work = InPlace::go_on(&place.root, path, identity, length, gathered).map_err(|error| {
                    log::warn!("{error}");
                    error.code()
                })?;
                Kept::Changes(Box::new(work))
            }
            (Form::Changes(_), Expected::Absent) => return Err(ItemCode::Changing),
        };
        Ok(Partial { kept, lease, hasher })
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
        changeable: Changeable,
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
        let gathered = incoming.basis.filter(|basis| basis.in_place);
        if of == Of::Earlier && (changed == Changed::IsDropped || gathered.is_some()) {
            log::info!("{path}: it changed since it was sent in part");
            lease.discard(staged);
            return None;
        }
        let present = length_of(&staged);
        let written = match incoming.basis {
            None => present,
            // It has had its length from the start: what is behind the last note may be of the basis.
            Some(_) => present.min(reached.offset),
        };
        let kept = match gathered {
            None => Kept::Staged(staged),
            Some(PlanBasis { id, .. }) => {
                let there = changeable.filter(|(content, _)| *content == id);
                let Some(work) = there.and_then(|(_, there)| lay(place, path, &there, size, (staged, written))) else {
                    log::info!("{path}: what was gathered of its changes does not fit the file that is there");
                    place.staging.discard_kept(lease.id());
                    lease.end();
                    return None;
                };
                Kept::Changes(work)
            }
        };
        let end = match of {
            Of::Offered => written.min(size) / LEAF * LEAF,
            Of::Earlier => present,
        };
        let known = TreeHasher::behind(reached.offset / LEAF, &reached.frontier);
        let known = known.filter(|known| proven && known.length() <= end);
        if known.is_none() {
            lease.doubt();
        }
        let hasher = known.unwrap_or_default();
        let partial = Partial { kept, lease, hasher };
        Some(Box::new(Adopting { partial, end, of }))
    }

    /// Reads on by a bounded amount.
    pub(super) fn step(mut self: Box<Adopting>, scratch: &mut Vec<u8>) -> Adopted {
        let at = self.partial.hasher.length();
        if at < self.end {
            scratch.resize((self.end - at).min(STEP_BYTES) as usize, 0);
            return match self.partial.kept.read_at(at, scratch) {
                Ok(()) => {
                    self.partial.hasher.update(scratch);
                    Adopted::More(self)
                }
                Err(error) => {
                    log::warn!("what was staged is of no use: {error}");
                    self.partial.discard();
                    Adopted::Nothing
                }
            };
        }
        if at == 0 {
            self.partial.discard();
            return Adopted::Nothing;
        }
        let Partial {
            kept,
            mut lease,
            hasher,
        } = self.partial;
        match (self.of, kept) {
            (Of::Earlier, Kept::Staged(staged)) => {
                let staged = staged.unkept();
                lease.end();
                Adopted::Basis(staged, hasher.finish())
            }
            (_, kept) => {
                lease.note(&hasher);
                Adopted::Done(Box::new(Partial { kept, lease, hasher }))
            }
        }
    }
}

/// Lays what was gathered over the file at `path`, which is in the state `there`.
fn lay(
    place: &Place,
    path: &RelPath,
    there: &Identity,
    length: u64,
    gathered: (StagedFile, u64),
) -> Option<Box<InPlace>> {
    let laid = InPlace::go_on(&place.root, path, there, length, gathered);
    laid.inspect_err(|error| log::info!("{error}")).ok().map(Box::new)
}

fn length_of(staged: &StagedFile) -> u64 {
    staged.file().metadata().map_or(0, |found| found.len())
}

#[cfg(test)]
mod tests {
    use super::super::arriving::Arrival;
    use super::super::options::Durability;
    use super::super::resumes::Resumes;
    use super::*;
    use crate::model::Meta;
    use crate::store::{Incoming, Journal, Room, Root, publish};
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
        let mut adopting = Adopting::find(place, &path(), None, (SIZE, META.mtime), Changed::IsDropped, None).unwrap();
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
        let partial = parked.reopen(&place, &path(), &Expected::Absent).unwrap();
        assert_eq!(open(), 1);
        let parked = partial.park();
        std::fs::write(&name, b"cut").unwrap();
        assert!(matches!(
            parked.reopen(&place, &path(), &Expected::Absent),
            Err(ItemCode::Vanished)
        ));
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
        let Kept::Staged(staged) = third.kept else {
            panic!("it is a file of its own")
        };
        let sealed = staged.seal(&META, SIZE).unwrap();
        publish(&place.root, sealed, &Expected::Absent, None).unwrap();
        third.lease.end();
        assert_eq!(std::fs::read(dir.path().join("f")).unwrap(), content);
        assert!(place.resumes.arrivals().is_empty());
    }
}

#[cfg(test)]
#[path = "partial_tests.rs"]
mod found_tests;
