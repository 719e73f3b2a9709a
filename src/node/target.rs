//! Where a patch is followed to: a staged file, or the basis itself, to be changed in place.
//!
//! 1. With in-place transfers the changes gather beside the basis, as long as all copies stay where they
//!    are. These cost nothing then.
//! 2. With the first copy of data from elsewhere (something was inserted or moved) what was gathered moves to a
//!    staged file, piece by piece, and the plan goes on there. The sender is not asked again.
//!
//! Awkward cases: a file that cannot be changed in place (it has several names, may not be written, is
//! too large) is staged from the start. What gathers in a kept file stays when the transfer breaks off; when it
//! moves, the staged file becomes a kept one in its place, once all of it is there. Invariant: the basis is not
//! written to here.

use super::commit::Ready;
use super::options::Durability;
use super::place::Place;
use super::resumes::Lease;
use super::verifying::Task;
use crate::delta::TreeHasher;
use crate::model::{ItemCode, Meta, RelPath};
use crate::store::{
    Expected, Extent, FileError, Identity, InPlace, Operation, PatchedFile, SourceFile, StagedFile, TransferId,
};
use std::fs::File;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

/// What becomes of a patch.
pub(super) enum Target {
    /// A file that will take the place of its basis.
    Staged(Box<PatchedFile>),
    /// The basis itself.
    InPlace(Box<Gathering>),
}

/// Changes that gather beside their file.
pub(super) struct Gathering {
    work: InPlace,
    place: Rc<Place>,
    /// The staged file that they move to, and how far they have got.
    moving: Option<(PatchedFile, u64)>,
}

/// Bytes that a call leaves in their place at most, so that the hashes of a loop's turn are bounded.
const STEP_BYTES: u64 = 4 << 20;
/// What new bytes are compared by with those that they would replace, as disks write.
const PAGE_BYTES: u64 = 4096;
/// Zeros that are written at a time.
const ZEROS_BYTES: u64 = 256 * 1024;

impl Target {
    /// A file for a new version of `basis`, which is at `path`, of `length` bytes; a kept one, if it has an id.
    pub(super) fn stage(
        place: &Place,
        basis: SourceFile,
        path: &RelPath,
        length: u64,
        kept: Option<TransferId>,
    ) -> Result<Target, FileError> {
        let staged = match kept {
            Some(id) => place.staging.create_kept_patched(path, basis, length, id)?,
            None => place.staging.create_patched(path, basis, length)?,
        };
        Ok(Target::Staged(Box::new(staged)))
    }

    /// The file at `path` itself, which is as `expected`; changes gather in a kept file, if it has an id.
    pub(super) fn gather(
        place: &Rc<Place>,
        path: &RelPath,
        expected: &Identity,
        length: u64,
        kept: Option<TransferId>,
    ) -> Result<Target, FileError> {
        let (root, staging) = (&place.root, &place.staging);
        let work = match kept {
            Some(id) => InPlace::begin_kept(root, staging, path, expected, length, id)?,
            None => InPlace::begin(root, staging, path, expected, length)?,
        };
        Ok(Target::gathered(place, work))
    }

    /// The same, where changes were gathered before.
    pub(super) fn gathered(place: &Rc<Place>, work: InPlace) -> Target {
        Target::InPlace(Box::new(Gathering {
            work,
            place: Rc::clone(place),
            moving: None,
        }))
    }

    /// A file whose first `done` bytes are staged.
    pub(super) fn behind(staged: StagedFile, basis: SourceFile, length: u64, done: u64) -> Result<Target, FileError> {
        let staged = PatchedFile::behind(staged, basis, length, done)?;
        Ok(Target::Staged(Box::new(staged)))
    }

    /// The version that is patched.
    pub(super) fn basis(&self) -> &SourceFile {
        match self {
            Target::Staged(staged) => staged.basis(),
            Target::InPlace(gathering) => gathering.work.basis(),
        }
    }

    /// Whether what is written to it is to be flushed on its way. What gathers beside a file is not: it goes to the
    /// disk with its commit.
    pub(super) fn is_flushed(&self, durability: Durability) -> bool {
        matches!(self, Target::Staged(_)) && durability == Durability::Barrier
    }

    /// The same of the staged file that what was gathered may move to.
    pub(super) fn is_flushed_once_moved(&self) -> bool {
        matches!(self, Target::InPlace(gathering) if gathering.place.durability == Durability::Barrier)
    }

    /// Bytes that the result has.
    pub(super) fn length(&self) -> u64 {
        match self {
            Target::Staged(staged) => staged.length(),
            Target::InPlace(gathering) => gathering.work.length(),
        }
    }

    /// The file that most of the result is read from.
    pub(super) fn file(&self) -> &File {
        match self {
            Target::Staged(staged) => staged.staged().file(),
            Target::InPlace(gathering) => gathering.work.basis().file(),
        }
    }

    /// Copies the first of `length` bytes at `from` in the basis to `to`. Returns how many: none when the
    /// target has begun to move.
    pub(super) fn copy(&mut self, from: u64, to: u64, length: u64) -> Result<u64, FileError> {
        match self {
            Target::Staged(staged) => staged.copy(from, to, length),
            Target::InPlace(gathering) => gathering.copy(from, to, length),
        }
    }

    /// Writes new bytes.
    pub(super) fn write_at(&mut self, to: u64, bytes: &[u8]) -> Result<(), FileError> {
        match self {
            Target::Staged(staged) => staged.write_at(to, bytes),
            Target::InPlace(gathering) => gathering.work.write_at(to, bytes),
        }
    }

    /// Writes bytes that may be the old ones for the most part.
    pub(super) fn write_changes(&mut self, to: u64, bytes: &[u8]) -> Result<(), FileError> {
        match self {
            Target::Staged(staged) => staged.write_at(to, bytes),
            Target::InPlace(gathering) => gathering.write_changes(to, bytes),
        }
    }

    /// Whether [`Target::move_on`] has to be called before anything else is done.
    pub(super) fn is_moving(&self) -> bool {
        matches!(self, Target::InPlace(gathering) if gathering.moving.is_some())
    }

    /// Moves a piece of the `done` bytes that were gathered to the staged file. Returns that when all of
    /// them are there; `lease` is then the right to it, and what was `checked` is noted of it.
    pub(super) fn move_on(
        &mut self,
        done: u64,
        (lease, checked): (&mut Option<Lease>, &TreeHasher),
        scratch: &mut Vec<u8>,
    ) -> Result<Option<Arc<File>>, FileError> {
        let Target::InPlace(gathering) = self else {
            return Ok(None);
        };
        if gathering.move_on(done, scratch)? == Moved::Part {
            return Ok(None);
        }
        if let Some((mut staged, _)) = gathering.moving.take() {
            let gathered = lease.take();
            *lease = gathered
                .as_ref()
                .and_then(|lease| gathering.keep(&mut staged, lease, checked));
            let gathered_target = std::mem::replace(self, Target::Staged(Box::new(staged)));
            gathered_target.discard(gathered);
        }
        let file = self.file().try_clone();
        file.map(|file| Some(Arc::new(file)))
            .map_err(|error| FileError::at(Operation::Stage, b"", error))
    }

    /// Sees to it that another process finds what was gathered of the first `done` bytes, which are verified;
    /// `false` when it does not.
    pub(super) fn note(&mut self, done: u64) -> bool {
        match self {
            Target::Staged(_) => true,
            // It is noted when it has moved.
            Target::InPlace(gathering) if gathering.moving.is_some() => false,
            Target::InPlace(gathering) => {
                let noted = gathering.work.note(done);
                noted.inspect_err(|error| log::info!("{error}")).is_ok()
            }
        }
    }

    /// Whether a leaf stands where it stood in the basis, untouched.
    pub(super) fn is_kept(&self, leaf: u64) -> bool {
        match self {
            Target::Staged(staged) => staged.is_kept(leaf),
            Target::InPlace(gathering) => gathering.work.is_kept(leaf),
        }
    }

    /// How the part of the result in `range` is hashed, where these leaves are `known`.
    pub(super) fn task(&self, range: Range<u64>, known: Vec<Option<[u8; 32]>>) -> Task {
        match self {
            Target::InPlace(gathering) if known.contains(&None) => {
                let laid = gathering.work.view(range);
                let laid = laid.inspect_err(|error| log::warn!("{error}"));
                Task::Laid(known, laid.ok().map(Arc::new))
            }
            _ => Task::Patched(known),
        }
    }

    /// The staged file alone, whatever it holds, which goes when it is dropped; none when the changes were
    /// gathered beside the basis: they are given up.
    pub(super) fn into_staged(self) -> Option<StagedFile> {
        match self {
            Target::Staged(staged) => Some(staged.into_staged().unkept()),
            Target::InPlace(gathering) => {
                gathering.work.discard();
                None
            }
        }
    }

    /// What was made is of no use: it is removed, unless another transfer goes on with it.
    pub(super) fn discard(self, lease: Option<Lease>) {
        if lease.as_ref().is_some_and(Lease::is_revoked) {
            return;
        }
        drop(self.into_staged());
        if let Some(lease) = lease {
            lease.end();
        }
    }

    /// Ends the writing: what is to be committed, with mode and time as in `meta`.
    pub(super) fn into_ready(self, meta: &Meta, expected: Expected) -> Result<Ready, FileError> {
        debug_assert!(!self.is_moving());
        match self {
            Target::Staged(staged) => staged.seal(meta).map(|sealed| Ready::Staged(sealed, expected)),
            // From here on the changes are made, or gone; a process that is killed meanwhile leaves them.
            Target::InPlace(gathering) => Ok(Ready::InPlace(Box::new(gathering.work.unkept()), *meta)),
        }
    }
}

/// How far a move is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moved {
    Part,
    All,
}

impl Gathering {
    fn copy(&mut self, from: u64, to: u64, length: u64) -> Result<u64, FileError> {
        if from != to {
            if let Some(count) = self.take_hole(from, to, length)? {
                return Ok(count);
            }
            let staged = self.staged_instead()?;
            self.moving = Some((staged, 0));
            return Ok(0);
        }
        let end = self.work.basis().size().min(self.work.length());
        match from.checked_add(length) {
            Some(reach) if reach <= end => Ok(length.min(STEP_BYTES)),
            _ => Err(self.found(ItemCode::Mismatch)),
        }
    }

    /// A hole from elsewhere is no part that moves: it is zeros. Sees to it that the first of them are here and says
    /// how many; none where the basis has data to copy.
    fn take_hole(&mut self, from: u64, to: u64, length: u64) -> Result<Option<u64>, FileError> {
        let basis = self.work.basis();
        let Extent::Hole { length: hole } = basis.next_extent(from)? else {
            return Ok(None);
        };
        let length = length.min(hole).min(STEP_BYTES);
        if to.checked_add(length).is_none_or(|end| end > self.work.length()) {
            return Err(self.found(ItemCode::Mismatch));
        }
        Ok(Some(match basis.next_extent(to)? {
            Extent::Hole { length: there } => length.min(there),
            Extent::End => length,
            Extent::Data { length: there } => {
                let count = length.min(there).min(ZEROS_BYTES);
                self.work.write_at(to, &vec![0; count as usize])?;
                count
            }
        }))
    }

    /// A staged file with the same basis.
    fn staged_instead(&self) -> Result<PatchedFile, FileError> {
        let path = self.work.path();
        log::debug!("{path} is replaced, not changed in place: parts of it move");
        let basis = self.place.root.open_file(path)?;
        if basis.identity() != self.work.basis().identity() {
            return Err(self.found(ItemCode::Changing));
        }
        self.place.staging.create_patched(path, basis, self.work.length())
    }

    /// Has the staged file, where all that was gathered is by now, stay in place of that. Returns the right to it.
    fn keep(&self, staged: &mut PatchedFile, gathered: &Lease, checked: &TreeHasher) -> Option<Lease> {
        let mut lease = gathered.instead()?;
        match staged.keep(&self.place.staging, lease.id()) {
            Ok(()) => {
                lease.note(checked);
                Some(lease)
            }
            Err(error) => {
                log::info!("a transfer that breaks off will start again: {error}");
                lease.end();
                None
            }
        }
    }

    fn move_on(&mut self, done: u64, scratch: &mut Vec<u8>) -> Result<Moved, FileError> {
        let Some((staged, at)) = &mut self.moving else {
            return Ok(Moved::All);
        };
        if *at < done {
            let changed = self.work.next_changed(*at, done);
            let kept_to = changed.as_ref().map_or(done, |run| run.start);
            *at += match changed {
                Some(run) if run.start == *at => {
                    scratch.resize((run.end - run.start) as usize, 0);
                    let count = self.work.read_through(*at, scratch)?;
                    staged.write_at(*at, &scratch[..count])?;
                    count as u64
                }
                _ => staged.copy(*at, *at, kept_to - *at)?,
            };
        }
        Ok(if *at < done { Moved::Part } else { Moved::All })
    }

    /// Pages that would become what they are already are left alone.
    fn write_changes(&mut self, to: u64, bytes: &[u8]) -> Result<(), FileError> {
        let mut old = [0; PAGE_BYTES as usize];
        let mut done = 0;
        while done < bytes.len() {
            let at = to + done as u64;
            let here = (PAGE_BYTES - at % PAGE_BYTES).min((bytes.len() - done) as u64) as usize;
            let (new, old) = (&bytes[done..done + here], &mut old[..here]);
            let count = self.work.basis().read_at(at, old)?;
            if count < here || new != old {
                self.work.write_at(at, new)?;
            }
            done += here;
        }
        Ok(())
    }

    fn found(&self, code: ItemCode) -> FileError {
        FileError::found(Operation::Write, self.work.path().as_bytes(), code)
    }
}
