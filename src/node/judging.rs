//! Judging offers: what is here already, what has to travel, what can be done at once.
//!
//! The first half of [`Receiving`]'s work. Invariant: an offered path is looked up only after the
//! agreement took it.

use super::content::{Hashed, Hashing};
use super::ledger::Ledger;
use super::receiving::{Books, Receiving, Touch, Want};
use super::sending::action_of;
use crate::conn::{Check, Receiver};
use crate::model::{ContentId, Entry, Fault, ItemCode, Kind, RelPath};
use crate::reactor::Activity;
use crate::store::{Expected, FileError, Found, FoundKind, MadeDirectory, publish};
use crate::wire::Verdict;
use std::rc::Rc;

/// Offers judged in one visit.
const CHECKS_PER_VISIT: usize = 256;

impl Receiving {
    pub(super) fn judge(&mut self, receiver: &mut Receiver, books: &mut Books<'_>) -> Result<Activity, Fault> {
        for _ in 0..CHECKS_PER_VISIT {
            let Some(check) = receiver.next_check() else {
                return Ok(Activity::Idle);
            };
            let check = check.clone();
            let local = self.plan.agreement.accept(&check.entry)?;
            let judged = match self.hashing.take() {
                Some(hashing) => self.compare(hashing, &check, &local, books),
                None => self.examine(&check, &local, books),
            };
            let Some((verdict, expected)) = judged else {
                // A file is being hashed: one step of it is enough for a visit.
                return Ok(Activity::More);
            };
            receiver.answer(verdict);
            self.judged(&check, local, verdict, expected, books.ledger);
        }
        Ok(Activity::More)
    }

    /// Notes a verdict.
    fn judged(&mut self, check: &Check, path: RelPath, verdict: Verdict, expected: Expected, ledger: &mut Ledger) {
        let size = check.size();
        let is_file = matches!(check.entry.kind, Kind::File { .. });
        if is_file {
            ledger.found();
        }
        if let Some(offered) = &mut self.offered {
            offered.insert(&path);
        }
        if check.entry.kind == Kind::Directory && !matches!(verdict, Verdict::Failed(_)) {
            let touch = if verdict == Verdict::Have {
                Touch::Untouched
            } else {
                Touch::Touched
            };
            self.directories.insert(path.clone(), (check.entry.meta, touch));
        }
        match verdict {
            Verdict::Failed(code) if is_file => ledger.file_failed(&path, code),
            Verdict::Failed(code) => ledger.failed(path.as_bytes(), code),
            Verdict::WantNew | Verdict::WantReplace => {
                ledger.wanted(size);
                if self.plan.dry_run {
                    ledger.transferred(size);
                    ledger.item(&path, action_of(verdict), size);
                } else {
                    self.wants.insert(
                        check.file,
                        Want {
                            path,
                            expected,
                            verdict,
                            size,
                        },
                    );
                }
            }
            Verdict::Have if is_file => ledger.unchanged(size),
            Verdict::Have => {}
            Verdict::Created | Verdict::Replaced | Verdict::Touched => {
                if is_file {
                    ledger.unchanged(size);
                }
                if verdict != Verdict::Touched {
                    self.touch_parent(&path);
                }
                ledger.item(&path, action_of(verdict), size);
            }
        }
    }

    /// Compares an offered entry with what is here. `None`: a file has to be hashed first.
    fn examine(&mut self, check: &Check, path: &RelPath, books: &mut Books<'_>) -> Option<(Verdict, Expected)> {
        let found = match self.plan.place.root.probe(path) {
            Ok(found) => found,
            Err(error) => return Some(failed(&error)),
        };
        let expected = found.map_or(Expected::Absent, |found| Expected::Present(found.identity));
        let judged = match &check.entry.kind {
            Kind::Directory => self.examine_directory(path, &check.entry, found, books),
            Kind::Symlink { target } => self.examine_link(path, target, &check.entry, found, expected),
            Kind::File { size } => match found.map(|found| (found, found.kind)) {
                None => Ok(Verdict::WantNew),
                Some((_, FoundKind::Directory | FoundKind::Special)) => Err(ItemCode::InTheWay),
                Some((_, FoundKind::Symlink)) => Ok(Verdict::WantReplace),
                Some((found, FoundKind::File { size: here })) if here == *size && self.plan.checksum => {
                    return self.hash_first(check, path, found);
                }
                Some((found, FoundKind::File { size: here })) => {
                    let same = here == *size && found.meta.mtime == check.entry.meta.mtime;
                    if same {
                        self.keep(path, &check.entry, found)
                    } else {
                        Ok(Verdict::WantReplace)
                    }
                }
            },
        };
        Some((judged.unwrap_or_else(Verdict::Failed), expected))
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
            Some((FoundKind::Directory, _)) => Ok(Verdict::Touched),
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
                Ok(Verdict::Created)
            }
        }
    }

    fn examine_link(
        &mut self,
        path: &RelPath,
        target: &[u8],
        entry: &Entry,
        found: Option<Found>,
        expected: Expected,
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
            Some(FoundKind::Directory | FoundKind::Special) => return Err(ItemCode::InTheWay),
            Some(_) => Verdict::Replaced,
        };
        if !self.plan.dry_run {
            // A link is one inode without content: it is made and named on the spot, and becomes
            // durable with its directory at the last barrier.
            let made = place
                .root
                .make_parents(path)
                .and_then(|_| place.staging.symlink(path, target, &entry.meta));
            made.and_then(|sealed| publish(&place.root, sealed, &expected))
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

    fn hash_first(&mut self, check: &Check, path: &RelPath, found: Found) -> Option<(Verdict, Expected)> {
        let expected = Expected::Present(found.identity);
        if check.root.is_none() {
            return Some((Verdict::WantReplace, expected));
        }
        match self.plan.place.root.open_file(path) {
            Ok(file) => {
                self.hashing = Some(Hashing::new(file));
                None
            }
            Err(_) => Some((Verdict::WantReplace, expected)),
        }
    }

    fn compare(
        &mut self,
        hashing: Hashing,
        check: &Check,
        path: &RelPath,
        books: &mut Books<'_>,
    ) -> Option<(Verdict, Expected)> {
        let id = match hashing.step(books.scratch) {
            Hashed::More(hashing) => {
                self.hashing = Some(*hashing);
                return None;
            }
            Hashed::Done(id) => Some(id),
            Hashed::Failed => None,
        };
        let found = match self.plan.place.root.probe(path) {
            Ok(Some(found)) => found,
            Ok(None) => return Some((Verdict::WantNew, Expected::Absent)),
            Err(error) => return Some(failed(&error)),
        };
        let expected = Expected::Present(found.identity);
        let same = id.is_some_and(|ContentId { length, root }| length == check.size() && Some(root) == check.root);
        let verdict = if same {
            self.keep(path, &check.entry, found)
        } else {
            Ok(Verdict::WantReplace)
        };
        Some((verdict.unwrap_or_else(Verdict::Failed), expected))
    }
}

fn failed(error: &FileError) -> (Verdict, Expected) {
    log::info!("{error}");
    (Verdict::Failed(error.code()), Expected::Absent)
}
