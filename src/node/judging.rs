//! Judging offers: what is here already, what has to travel, what can be done at once.
//!
//! The first half of [`Receiving`]'s work. Invariant: an offered path is looked up only after the
//! agreement took it.
//!
//! Awkward cases: an empty directory gives way to a file or link. One with content does not, not even
//! with `--delete`: the entry fails, and what is in the directory stays. What is offered below a
//! directory that could not be made fails with it, so that its content does not travel for nothing.

use super::activity::Thing;
use super::examining::{Examined, Examining, Purpose};
use super::ledger::Ledger;
use super::partial::{Adopted, Adopting, Changed, Parked};
use super::rebuilding::Repair;
use super::receiving::{Based, Books, Receiving, Touch, Want};
use super::reports::action_of;
#[cfg(feature = "sync")]
use super::sharing::Currency;
use super::slice::Slice;
use super::source_tree::without_prefix;
use crate::conn::{Check, Receiver};
use crate::model::limits::{DIRECTORIES_BYTES_MAX, RESUME_BYTES_MIN, WHOLE_BYTES_MAX};
use crate::model::{CloseCode, ContentId, Entry, Fault, ItemCode, Kind, Meta, RelPath};
use crate::reactor::Activity;
use crate::store::{Expected, FileError, Found, FoundKind, MadeDirectory, Operation, publish};
use crate::wire::Verdict;
use std::rc::Rc;

/// What a directory in the books takes besides its path, about.
const DIRECTORY_BYTES: usize = 128;
/// Offers judged in one visit, as far as there is time.
const CHECKS_PER_VISIT: usize = 256;

impl Receiving {
    pub(super) fn judge(&mut self, receiver: &mut Receiver, books: &mut Books<'_>) -> Result<Activity, Fault> {
        let slice = Slice::begin();
        for _ in 0..CHECKS_PER_VISIT {
            if slice.is_over() {
                break;
            }
            let Some(check) = receiver.next_check() else {
                return Ok(Activity::Idle);
            };
            let check = check.clone();
            let local = self.plan.agreement.accept(&check.entry)?;
            let Some((mut judged, had)) = self.look(&check, &local, books) else {
                // A file is being hashed: one step of it is enough for a visit.
                return Ok(Activity::More);
            };
            if let Verdict::Failed(code) = judged.verdict {
                judged.verdict = Verdict::Failed(self.outdated(&local, code));
            }
            if let Some(id) = judged.basis {
                receiver.basis(id);
            }
            if let Had::Beginning(partial) = &had {
                receiver.partial(partial.id());
            }
            receiver.answer(judged.verdict);
            self.note(&check.entry, &local, judged.verdict)?;
            self.judged(&check, local, (judged, had), books.ledger);
        }
        Ok(Activity::More)
    }

    /// Looks at what is here of an offered entry: under its name, and in staging. `None`: there is more to
    /// read.
    fn look(&mut self, check: &Check, local: &RelPath, books: &mut Books<'_>) -> Option<(Judged, Had)> {
        let (judged, adopting) = match self.adopting.take() {
            Some((judged, adopting)) => (judged, Some(adopting)),
            None => {
                let judged = match (self.examining.take(), self.blocked(local)) {
                    (Some(examining), _) => self.examined(examining, check, local, books),
                    (None, Some(code)) => Some(Judged::from((Verdict::Failed(code), Expected::Absent))),
                    (None, None) => self.examine(check, local, books),
                }?;
                let is_wanted = judged.verdict.is_want() && check.size() >= RESUME_BYTES_MIN;
                let place = &self.plan.place;
                let state = (check.size(), check.entry.meta.mtime);
                let is_kept = is_wanted && self.plan.resume && !self.plan.dry_run;
                let changed = match self.plan.delta && judged.basis.is_none() {
                    true => Changed::IsBasis,
                    false => Changed::IsDropped,
                };
                let changeable = match (judged.basis, judged.expected) {
                    (Some(basis), Expected::Present(identity)) if self.plan.in_place => Some((basis, identity)),
                    _ => None,
                };
                let peer = self.plan.peer.as_ref();
                let adopting = is_kept.then(|| Adopting::find(place, local, peer, state, changed, changeable));
                (judged, adopting.flatten())
            }
        };
        let Some(adopting) = adopting else {
            return Some((judged, Had::Nothing));
        };
        match adopting.step(books.scratch) {
            Adopted::More(adopting) => {
                self.adopting = Some((judged, adopting));
                None
            }
            Adopted::Done(partial) => Some((judged, Had::Beginning(partial.park()))),
            Adopted::Basis(staged, id) => Some(match Repair::with(staged, &id) {
                Some(repair) => {
                    let basis = Some(id);
                    (Judged { basis, ..judged }, Had::Earlier(Box::new(repair)))
                }
                None => (judged, Had::Nothing),
            }),
            Adopted::Nothing => Some((judged, Had::Nothing)),
        }
    }

    /// Why nothing below a directory can be taken, when `path` is there.
    fn blocked(&self, path: &RelPath) -> Option<ItemCode> {
        let (directory, code) = self.failed.as_ref()?;
        without_prefix(path, Some(directory)).map(|_| *code)
    }

    /// Notes what the end of the transfer has to know of an entry.
    fn note(&mut self, entry: &Entry, path: &RelPath, verdict: Verdict) -> Result<(), Fault> {
        if let Some(offered) = &mut self.offered {
            offered.insert(path)?;
            if matches!(verdict, Verdict::Failed(_)) {
                offered.keep_beneath(path);
            }
        }
        if entry.kind != Kind::Directory {
            return Ok(());
        }
        match verdict {
            // Lists go depth first: what is below comes next, and then never again.
            Verdict::Failed(code) if self.blocked(path).is_none() => self.failed = Some((path.clone(), code)),
            Verdict::Failed(_) => {}
            // A dry run sets no times in the end.
            _ if self.plan.dry_run => {}
            _ => {
                let touch = if verdict == Verdict::Have {
                    Touch::Untouched
                } else {
                    Touch::Touched
                };
                let bytes = path.as_bytes().len() + DIRECTORY_BYTES;
                self.directories_bytes += bytes;
                if self.directories_bytes > DIRECTORIES_BYTES_MAX {
                    return Err(Fault::new(CloseCode::Limit, "too many directories in one transfer"));
                }
                self.directories.insert(path.clone(), (entry.meta, touch));
            }
        }
        Ok(())
    }

    /// Enters a verdict into the books.
    fn judged(&mut self, check: &Check, path: RelPath, (judged, had): (Judged, Had), ledger: &mut Ledger) {
        let Judged {
            verdict,
            expected,
            basis,
        } = judged;
        let size = check.size();
        let is_file = matches!(check.entry.kind, Kind::File { .. });
        if is_file {
            ledger.found();
        }
        match verdict {
            // The one who asked has seen something else here: it will look again.
            Verdict::Failed(ItemCode::Stale) => {}
            Verdict::Failed(ItemCode::Collides) if self.plan.based.is_plan() => {}
            Verdict::Failed(code) if is_file => ledger.file_failed(check.file, &path, code),
            Verdict::Failed(code) => ledger.failed(path.as_bytes(), code),
            Verdict::WantNew | Verdict::WantReplace => {
                ledger.wanted(size);
                if self.plan.dry_run {
                    ledger.transferred(check.file, &path, action_of(verdict), size);
                } else {
                    let (partial, repair) = match had {
                        Had::Nothing => (None, None),
                        Had::Beginning(partial) => (Some(partial), None),
                        Had::Earlier(repair) => (None, Some(*repair)),
                    };
                    self.wants.insert(
                        check.file,
                        Want {
                            path,
                            expected,
                            verdict,
                            size,
                            basis,
                            committed: None,
                            repair,
                            partial,
                            lease: None,
                        },
                    );
                }
            }
            Verdict::Have => {
                if is_file {
                    ledger.unchanged(size);
                    self.plan.place.forget_partial(&path, self.plan.peer.as_ref());
                }
                // Whoever syncs waits for the revision of what it sent.
                if !matches!(self.plan.based, Based::Anything) {
                    self.plan.place.note(&path, None, self.plan.peer);
                }
            }
            Verdict::Created | Verdict::Replaced | Verdict::Touched => {
                if is_file {
                    ledger.unchanged(size);
                }
                if verdict != Verdict::Touched {
                    self.touch_parent(&path);
                }
                if !self.plan.dry_run {
                    self.plan.place.note(&path, None, self.plan.peer);
                }
                ledger.entry(&path, action_of(verdict), Thing::of(&check.entry.kind), size);
            }
        }
    }

    /// Compares an offered entry with what is here. `None`: a file has to be hashed first.
    fn examine(&mut self, check: &Check, path: &RelPath, books: &mut Books<'_>) -> Option<Judged> {
        let found = match self.find(path) {
            Ok(found) => found,
            Err(error) => return Some(failed(&error).into()),
        };
        let expected = found.map_or(Expected::Absent, |found| Expected::Present(found.identity));
        let known = match self.based_on(check, path, found.as_ref()) {
            Ok(known) => known,
            Err(code) => return Some((Verdict::Failed(code), expected).into()),
        };
        let judged = match &check.entry.kind {
            Kind::Directory => self.examine_directory(path, &check.entry, found, books),
            Kind::Symlink { target } => self.examine_link(path, target, &check.entry, found, expected, books),
            Kind::File { size } => match found.map(|found| (found, found.kind)) {
                None => Ok(Verdict::WantNew),
                Some((_, FoundKind::Special)) => Err(ItemCode::InTheWay),
                Some((_, FoundKind::Directory)) => self.give_way(path).map(|()| Verdict::WantReplace),
                Some((_, FoundKind::Symlink)) => Ok(Verdict::WantReplace),
                // Not kept, and no basis either.
                Some((_, FoundKind::File { .. })) if self.plan.place.doubts.contains(path) => Ok(Verdict::WantReplace),
                // Two devices may have different contents of one size and time: only the root tells.
                Some((found, FoundKind::File { size: here })) if !matches!(self.plan.based, Based::Anything) => {
                    match known {
                        Some(root) if here == *size && check.root == Some(root) => self.keep(path, &check.entry, found),
                        _ => return self.name_basis(path, found, here, *size),
                    }
                }
                Some((found, FoundKind::File { size: here })) if here == *size && self.plan.checksum => {
                    return self.hash_first(check, path, found);
                }
                Some((found, FoundKind::File { size: here })) => {
                    let same = here == *size && found.meta.mtime == check.entry.meta.mtime;
                    if !same {
                        return self.name_basis(path, found, here, *size);
                    }
                    self.keep(path, &check.entry, found)
                }
            },
        };
        Some((judged.unwrap_or_else(Verdict::Failed), expected).into())
    }

    /// What stands at the path; refused when the file system takes it for something of another name.
    fn find(&self, path: &RelPath) -> Result<Option<Found>, FileError> {
        let root = &self.plan.place.root;
        match root.shadow(path)? {
            None => root.probe(path),
            Some(_) => Err(FileError::found(
                Operation::Examine,
                path.as_bytes(),
                ItemCode::Collides,
            )),
        }
    }

    /// Refuses what stands on something else than what stands there. Returns the root of the file that does, if it
    /// is known.
    #[cfg(feature = "sync")]
    fn based_on(&self, check: &Check, path: &RelPath, found: Option<&Found>) -> Result<Option<[u8; 32]>, ItemCode> {
        match &self.plan.based {
            Based::Anything => Ok(None),
            Based::Revisions => {
                let based_on = check.based_on.ok_or(ItemCode::Stale)?;
                match self.plan.place.currency(path, based_on, found) {
                    Currency::Current(root) => Ok(root),
                    Currency::Stale => Err(ItemCode::Stale),
                }
            }
            Based::Plan(expected) => match (expected.get(path), found) {
                (Some(Expected::Absent), None) => Ok(None),
                (Some(Expected::Present(was)), Some(found)) if was.same_content(&found.identity) => Ok(None),
                _ => Err(ItemCode::Stale),
            },
        }
    }

    #[cfg(not(feature = "sync"))]
    #[allow(clippy::unused_self, clippy::unnecessary_wraps, reason = "as where syncing is built")]
    fn based_on(&self, _: &Check, _: &RelPath, _: Option<&Found>) -> Result<Option<[u8; 32]>, ItemCode> {
        Ok(None)
    }

    /// Whether a directory may be replaced: publishing removes it if it is empty still.
    fn give_way(&self, path: &RelPath) -> Result<(), ItemCode> {
        match self.plan.place.root.is_empty_directory(path) {
            Ok(true) => Ok(()),
            _ => Err(ItemCode::InTheWay),
        }
    }

    fn examine_directory(
        &mut self,
        path: &RelPath,
        entry: &Entry,
        found: Option<Found>,
        books: &mut Books<'_>,
    ) -> Result<Verdict, ItemCode> {
        match found.map(|found| (found.kind, found.meta)) {
            Some((FoundKind::Directory, meta)) if meta == entry.meta => Ok(Verdict::Have),
            Some((FoundKind::Directory, _)) => {
                self.set_mode_now(path, entry)?;
                Ok(Verdict::Touched)
            }
            Some(_) => Err(ItemCode::InTheWay),
            None if self.plan.dry_run => Ok(Verdict::Created),
            None => {
                self.make_parents(path, books).map_err(|error| error.code())?;
                let made = self
                    .plan
                    .place
                    .root
                    .make_directory(path)
                    .map_err(|error| error.code())?;
                if made == MadeDirectory::Created {
                    books.committer.made_directory(&self.plan.place, path.clone());
                }
                self.set_mode_now(path, entry)?;
                Ok(Verdict::Created)
            }
        }
    }

    /// In a sync the mode of a directory is a change by itself: one that came with the end of the transfer would be
    /// taken for somebody's wish when there is no end. Its owner can work in it until then in any case.
    fn set_mode_now(&self, path: &RelPath, entry: &Entry) -> Result<(), ItemCode> {
        if matches!(self.plan.based, Based::Anything) {
            return Ok(());
        }
        let mode = entry.meta.mode | OWNER_WORKS;
        let meta = Meta { mode, ..entry.meta };
        self.plan.place.root.set_meta(path, &meta).map_err(|error| error.code())
    }

    fn examine_link(
        &mut self,
        path: &RelPath,
        target: &[u8],
        entry: &Entry,
        found: Option<Found>,
        expected: Expected,
        books: &mut Books<'_>,
    ) -> Result<Verdict, ItemCode> {
        let place = Rc::clone(&self.plan.place);
        if let Some(Found {
            kind: FoundKind::Symlink,
            meta,
            ..
        }) = found
            && place.root.read_link(path).is_ok_and(|here| *here == *target)
        {
            if meta.mtime == entry.meta.mtime {
                return Ok(Verdict::Have);
            }
            if !self.plan.dry_run {
                place.root.set_meta(path, &entry.meta).map_err(|error| error.code())?;
            }
            return Ok(Verdict::Touched);
        }
        let verdict = match found.map(|found| found.kind) {
            None => Verdict::Created,
            Some(FoundKind::Special) => return Err(ItemCode::InTheWay),
            Some(FoundKind::Directory) => self.give_way(path).map(|()| Verdict::Replaced)?,
            Some(_) => Verdict::Replaced,
        };
        if !self.plan.dry_run {
            // A link is one inode without content: it is made and named on the spot, and becomes
            // durable with its directory at the last barrier.
            let made = self
                .make_parents(path, books)
                .and_then(|()| place.staging.symlink(path, target, &entry.meta));
            let keeping = place.keeping(self.plan.peer);
            made.and_then(|sealed| publish(&place.root, sealed, &expected, keeping.as_ref()))
                .map_err(|error| error.code())?;
        }
        Ok(verdict)
    }

    /// The content is here already; mode and time may not be.
    fn keep(&self, path: &RelPath, entry: &Entry, found: Found) -> Result<Verdict, ItemCode> {
        if found.meta == entry.meta {
            return Ok(Verdict::Have);
        }
        if !self.plan.dry_run {
            self.plan
                .place
                .root
                .set_meta(path, &entry.meta)
                .map_err(|error| error.code())?;
        }
        Ok(Verdict::Touched)
    }

    fn hash_first(&mut self, check: &Check, path: &RelPath, found: Found) -> Option<Judged> {
        if check.root.is_some() {
            return self.begin_examining(path, found, Purpose::Compare);
        }
        Some((Verdict::WantReplace, Expected::Present(found.identity)).into())
    }

    /// A file of `here` bytes is going to be replaced by one of `size`: perhaps by a patch. `None`: its
    /// content has to be read first.
    fn name_basis(&mut self, path: &RelPath, found: Found, here: u64, size: u64) -> Option<Judged> {
        let worth = self.plan.delta && !self.plan.dry_run && here > BASIS_BYTES_MIN && size > WHOLE_BYTES_MAX;
        // Who asks for checksums asks for everything to be read again.
        let trusts_stat = worth && !self.plan.checksum;
        let known = self.plan.place.deltas.content_of(&found.identity);
        let known = known.filter(|_| trusts_stat);
        if worth && known.is_none() {
            return self.begin_examining(path, found, Purpose::Basis);
        }
        Some(Judged {
            verdict: Verdict::WantReplace,
            expected: Expected::Present(found.identity),
            basis: known,
        })
    }

    fn begin_examining(&mut self, path: &RelPath, found: Found, purpose: Purpose) -> Option<Judged> {
        match self.plan.place.root.open_file(path) {
            Ok(file) => {
                self.examining = Some(Examining::new(file, purpose, &self.plan.place.deltas));
                None
            }
            Err(_) => Some((Verdict::WantReplace, Expected::Present(found.identity)).into()),
        }
    }

    fn examined(
        &mut self,
        examining: Examining,
        check: &Check,
        path: &RelPath,
        books: &mut Books<'_>,
    ) -> Option<Judged> {
        let (id, purpose) = match examining.step(books.scratch, &self.plan.place.deltas) {
            Examined::More(examining) => {
                self.examining = Some(examining);
                return None;
            }
            Examined::Done(id, purpose) => (id, purpose),
        };
        let found = match self.plan.place.root.probe(path) {
            Ok(Some(found)) => found,
            Ok(None) => return Some((Verdict::WantNew, Expected::Absent).into()),
            Err(error) => return Some(failed(&error).into()),
        };
        let expected = Expected::Present(found.identity);
        let same = id.is_some_and(|ContentId { length, root }| length == check.size() && Some(root) == check.root);
        if same && purpose == Purpose::Compare {
            let verdict = self.keep(path, &check.entry, found);
            return Some((verdict.unwrap_or_else(Verdict::Failed), expected).into());
        }
        let is_basis = self.plan.delta && !self.plan.dry_run && check.size() > WHOLE_BYTES_MAX;
        Some(Judged {
            verdict: Verdict::WantReplace,
            expected,
            basis: id.filter(|id| is_basis && id.length > BASIS_BYTES_MIN),
        })
    }
}

/// What was found about an offered entry.
#[derive(Clone, Copy)]
pub(super) struct Judged {
    verdict: Verdict,
    expected: Expected,
    /// The content that is here and will be replaced.
    basis: Option<ContentId>,
}

impl From<(Verdict, Expected)> for Judged {
    fn from((verdict, expected): (Verdict, Expected)) -> Judged {
        Judged {
            verdict,
            expected,
            basis: None,
        }
    }
}

/// What an earlier transfer left of an entry.
enum Had {
    Nothing,
    Beginning(Parked),
    /// Of another version of it: a basis.
    Earlier(Box<Repair>),
}

/// What the owner of a directory must be allowed, so that things can be put into it.
const OWNER_WORKS: u32 = 0o700;
/// A file of so few bytes is no basis.
const BASIS_BYTES_MIN: u64 = 1024;

fn failed(error: &FileError) -> (Verdict, Expected) {
    log::info!("{error}");
    (Verdict::Failed(error.code()), Expected::Absent)
}

#[cfg(test)]
mod tests {
    use super::super::agreement::{Agreement, Scope};
    use super::super::commit::Committer;
    use super::super::options::Durability;
    use super::super::place::Place;
    use super::super::receiving::{Based, ReceivingPlan};
    use super::*;
    use crate::model::Timestamp;
    use crate::reactor::ConnId;
    use crate::store::{Filter, Root};

    fn path(text: &str) -> RelPath {
        RelPath::parse(text.as_bytes()).unwrap()
    }

    fn receiving(place: &Rc<Place>, dry_run: bool) -> Receiving {
        let plan = ReceivingPlan {
            place: Rc::clone(place),
            peer: None,
            agreement: Agreement::new(Scope::Below(None), Filter::new(&[]).unwrap()),
            checksum: false,
            dry_run,
            delta: true,
            in_place: false,
            resume: true,
            delete: None,
            top: None,
            based: Based::Anything,
        };
        Receiving::new(ConnId::invented(0), plan)
    }

    fn entry(text: &str, kind: Kind) -> Entry {
        let mtime = Timestamp { seconds: 1, nanos: 0 };
        Entry {
            path: path(text),
            kind,
            meta: Meta { mode: 0o777, mtime },
        }
    }

    /// Row 11: what a sender can make us keep is bounded, and a dry run keeps nothing.
    #[test]
    fn the_directories_of_a_transfer_meet_a_limit() {
        let dir = tempfile::tempdir().unwrap();
        let place = Rc::new(Place::new(Root::open(dir.path()).unwrap(), Durability::None));
        let offered = entry("d", Kind::Directory);
        let mut receiving = receiving(&place, false);
        assert!(receiving.note(&offered, &offered.path, Verdict::Created).is_ok());
        assert_eq!(receiving.directories_bytes, DIRECTORY_BYTES + 1);
        receiving.directories_bytes = DIRECTORIES_BYTES_MAX;
        let fault = receiving.note(&offered, &offered.path, Verdict::Created).unwrap_err();
        assert_eq!(fault.code, CloseCode::Limit);
        let mut dry = self::receiving(&place, true);
        assert!(dry.note(&offered, &offered.path, Verdict::Created).is_ok());
        assert!(dry.directories.is_empty());
    }

    /// The directories that a link needs are made durable like those of a file.
    #[test]
    fn the_parents_of_a_link_are_noted_for_the_barrier() {
        let dir = tempfile::tempdir().unwrap();
        let place = Rc::new(Place::new(Root::open(dir.path()).unwrap(), Durability::Barrier));
        let mut receiving = receiving(&place, false);
        let mut committer = Committer::new();
        let mut books = Books {
            ledger: &mut Ledger::default(),
            committer: &mut committer,
            scratch: &mut Vec::new(),
        };
        let target = b"x".as_slice();
        let entry = entry("a/b/link", Kind::Symlink { target: target.into() });
        let judged = receiving.examine_link(&entry.path, target, &entry, None, Expected::Absent, &mut books);
        assert_eq!(judged, Ok(Verdict::Created));
        assert_eq!(committer.made_in(&place), [path("a"), path("a/b")]);
    }
}
