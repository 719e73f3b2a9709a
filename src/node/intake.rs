//! Files that come whole, or from where an earlier transfer of them broke off: staged, checked, and handed
//! to the group commit.
//!
//! A part of [`Receiving`]'s work. Invariant: only a file whose root is the announced one is committed.

use super::arriving::{Arrival, Ended, Finding};
use super::ledger::Ledger;
use super::partial::{Kept, Partial};
use super::rebuilding::Staged;
use super::receiving::{Books, Receiving};
use super::resumes::Lease;
use super::verifying::CheckedChunk;
use crate::conn::{Machine, Receiver};
use crate::delta::content_id;
use crate::delta::index::Parts;
use crate::model::ItemCode;
use crate::store::{Expected, Incoming, Room, StagedFile};
use crate::wire::{End, EndOutcome, Hole, Inline, SettledResult, Start};

impl Receiving {
    pub(crate) fn handle_start(&mut self, start: &Start, machine: &mut Machine, books: &mut Books<'_>) {
        let Some(receiver) = machine.receiver() else {
            return;
        };
        let room = if start.sparse {
            Room::Sparse
        } else {
            Room::Reserve(start.size)
        };
        let lease = self.remember_start(start);
        match self.stage(start.file, room, lease.as_ref(), books) {
            Ok(staged) => {
                self.started += 1;
                let parts = if start.sparse { None } else { Some(Parts::Leaves) };
                let sidecar = parts.and_then(|parts| self.plan.place.deltas.begin(start.size, parts));
                self.incoming =
                    Some(Arrival::new(start, staged, lease, self.started, sidecar).toward(self.plan.place.durability));
                if let Some(want) = self.wants.get_mut(&start.file) {
                    want.size = start.size;
                    books.ledger.started(start.file, &want.path);
                }
            }
            Err(code) => {
                if let Some(lease) = lease {
                    lease.end();
                }
                self.fail(start.file, code, receiver, books.ledger);
            }
        }
    }

    /// A file starts, all of it: it is remembered, in case that the transfer breaks off. What an earlier one
    /// left of it is of no use.
    fn remember_start(&mut self, start: &Start) -> Option<Lease> {
        let want = self.wants.get_mut(&start.file)?;
        if let Some(partial) = want.partial.take() {
            partial.discard(&self.plan.place);
        }
        if !self.plan.resume {
            return None;
        }
        self.plan.place.resumes.begin(Incoming {
            path: want.path.clone(),
            peer: self.plan.peer,
            size: start.size,
            mtime: start.meta.mtime,
            basis: None,
        })
    }

    /// A file goes on where an earlier transfer of it broke off.
    pub(crate) fn handle_resume(&mut self, start: &Start, machine: &mut Machine, books: &mut Books<'_>) {
        let want = self.wants.get_mut(&start.file);
        let partial = want.and_then(|want| Some((want.path.clone(), want.partial.take()?)));
        let (Some((path, partial)), Some(receiver)) = (partial, machine.receiver()) else {
            return;
        };
        if let Err(error) = self.make_parents(&path, books) {
            return self.fail(start.file, error.code(), receiver, books.ledger);
        }
        if let Some(want) = self.wants.get_mut(&start.file) {
            want.size = start.size;
        }
        books.ledger.started(start.file, &path);
        if !partial.is_staged() {
            partial.discard(&self.plan.place);
            return self.patches.refuse(start);
        }
        match partial.reopen(&self.plan.place, &path, &Expected::Absent) {
            Ok(Partial {
                kept: Kept::Staged(staged),
                lease,
                hasher,
            }) => {
                self.started += 1;
                books.ledger.resumed(start.file, hasher.length());
                let arrival = Arrival::behind(start, staged, (lease, hasher), self.started);
                self.incoming = Some(arrival.toward(self.plan.place.durability));
            }
            Ok(partial) => {
                partial.discard();
                self.patches.refuse(start);
            }
            Err(code) => self.fail(start.file, code, receiver, books.ledger),
        }
    }

    fn stage(
        &mut self,
        file: u32,
        room: Room,
        lease: Option<&Lease>,
        books: &mut Books<'_>,
    ) -> Result<StagedFile, ItemCode> {
        let path = self
            .wants
            .get(&file)
            .map(|want| want.path.clone())
            .ok_or(ItemCode::Other)?;
        self.make_parents(&path, books).map_err(|error| error.code())?;
        let staging = &self.plan.place.staging;
        let staged = match lease {
            Some(lease) => staging.create_kept(&path, room, lease.id()),
            None => staging.create(&path, room),
        };
        staged.map_err(|error| {
            log::warn!("{error}");
            error.code()
        })
    }

    pub(crate) fn handle_content(&mut self, file: u32, bytes: &[u8], machine: &mut Machine, books: &mut Books<'_>) {
        let Some(receiver) = machine.receiver() else {
            return;
        };
        if self.patches.content(file, bytes) {
            return;
        }
        receiver.consumed(bytes.len() as u64);
        let Some(incoming) = self.incoming.as_mut().filter(|incoming| incoming.file == file) else {
            return;
        };
        match incoming.write(bytes, self.owner, books.committer) {
            Ok(()) => books.ledger.moved(file, bytes.len() as u64),
            Err(code) => self.fail(file, code, receiver, books.ledger),
        }
    }

    pub(crate) fn handle_hole(&mut self, hole: &Hole, ledger: &mut Ledger) {
        if let Some(incoming) = self.incoming.as_mut().filter(|incoming| incoming.file == hole.file) {
            incoming.hole(hole.length);
            ledger.skipped(hole.file, hole.length);
        }
    }

    pub(crate) fn handle_end(&mut self, end: &End, machine: &mut Machine, books: &mut Books<'_>) {
        let Some(receiver) = machine.receiver() else {
            return;
        };
        let incoming = self.incoming.take_if(|incoming| incoming.file == end.file);
        match (end.outcome, incoming) {
            (EndOutcome::Changed, incoming) => {
                receiver.consumed(self.patches.drop_file(end.file, &self.plan.place));
                if let Some(incoming) = incoming {
                    incoming.discard();
                }
            }
            (EndOutcome::Failed(code), incoming) => {
                if let Some(incoming) = incoming {
                    incoming.discard();
                }
                receiver.consumed(self.patches.drop_file(end.file, &self.plan.place));
                self.questions.forget(end.file);
                if let Some(want) = self.wants.remove(&end.file) {
                    books.ledger.file_failed(end.file, &want.path, code);
                    want.discard(&self.plan.place);
                }
            }
            (EndOutcome::Complete(_), Some(incoming)) if incoming.is_revoked() => {
                // What lies in the file now is of somebody else.
                drop(incoming);
                self.fail(end.file, ItemCode::TakenOver, receiver, books.ledger);
            }
            (EndOutcome::Complete(root), Some(incoming)) => {
                self.conclude_file(incoming.into_ended(root), receiver, books);
            }
            (EndOutcome::Complete(root), None) if self.patches.end(end.file, root) => {}
            (EndOutcome::Complete(_), None) => {
                self.fail(end.file, ItemCode::Other, receiver, books.ledger);
            }
        }
    }

    /// Commits a file that has ended, has it sent again, or waits for its checks.
    fn conclude_file(&mut self, mut ended: Ended, receiver: &mut Receiver, books: &mut Books<'_>) {
        match ended.finding() {
            Finding::Pending => self.ended.push(ended),
            Finding::Damaged(found) => {
                let (file, staged) = (ended.file, ended.staged.unkept());
                if let Some(lease) = ended.lease {
                    lease.end();
                }
                let found = found.map(|(id, sidecar)| Staged { staged, id, sidecar });
                self.repair(file, found, receiver);
            }
            Finding::Genuine(id, sidecar) => {
                let Ended {
                    file,
                    staged,
                    length,
                    meta,
                    lease,
                    ..
                } = ended;
                if let Some(want) = self.wants.get_mut(&file) {
                    want.lease = lease.inspect(Lease::committing);
                }
                self.plan.place.deltas.keep(sidecar, &id);
                let mtime = meta.mtime;
                let content = Some((id, mtime));
                self.commit(file, staged.seal(&meta, length), content, receiver, books);
            }
        }
    }

    /// A check came back: perhaps it is the last that a file waited for.
    pub(super) fn checked(&mut self, checked: &CheckedChunk, receiver: &mut Receiver, books: &mut Books<'_>) {
        if self.patches.checked(checked) {
            return;
        }
        if self.incoming.as_mut().is_some_and(|incoming| incoming.checked(checked)) {
            return;
        }
        if let Some(at) = self.ended.iter_mut().position(|ended| ended.checked(checked)) {
            let ended = self.ended.swap_remove(at);
            self.conclude_file(ended, receiver, books);
        }
    }

    pub(crate) fn handle_inline(&mut self, inline: &Inline<'_>, machine: &mut Machine, books: &mut Books<'_>) {
        let Some(receiver) = machine.receiver() else {
            return;
        };
        let (file, bytes) = (inline.file, inline.bytes);
        receiver.consumed(bytes.len() as u64);
        let id = content_id(bytes);
        if id.root != inline.root {
            return receiver.settle(file, SettledResult::Resend);
        }
        let staged = self
            .stage(file, Room::Reserve(bytes.len() as u64), None, books)
            .and_then(|staged| {
                staged.write_at(0, bytes).map_err(|error| error.code())?;
                Ok(staged)
            });
        match staged {
            Ok(staged) => {
                if let Some(want) = self.wants.get_mut(&file) {
                    want.size = bytes.len() as u64;
                    books.ledger.started(file, &want.path);
                }
                books.ledger.moved(file, bytes.len() as u64);
                let sealed = staged.seal(&inline.meta, bytes.len() as u64);
                let mtime = inline.meta.mtime;
                // Whoever keeps an index need not read it again, nor take a later edit for what came.
                let is_noted = self.plan.place.notices.borrow().is_some();
                let content = is_noted.then_some((id, mtime));
                self.commit(file, sealed, content, receiver, books);
            }
            Err(code) => self.fail(file, code, receiver, books.ledger),
        }
    }
}
