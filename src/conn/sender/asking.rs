//! What a sender knows and asks of the file that it is going to change at the receiver.
//!
//! 1. A basis arrives before the answer that wants its file.
//! 2. The reader may ask about it: the file steps out of the queue until the answer is complete, and
//!    others go on meanwhile.
//! 3. The file is sent as a patch, or whole after all.
//!
//! Invariant: at most [`ASKED_MAX`] files are asked about at a time, and an answer is taken only to the
//! question that is open, up to the limit of its topic.

use super::{Current, Item, Sender, Stage};
use crate::model::limits::{ASKED_MAX, plan_bytes_max};
use crate::model::{ContentId, Fault, Meta};
use crate::wire::{Ask, Basis, Message, Partial, Patch, PatchForm, Tell, Topic};

/// Whether a question went out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// The answer will come as [`Event::Tell`](super::super::Event::Tell).
    Sent,
    /// Too many questions are open: ask again after one was answered.
    Later,
}

impl Sender {
    /// Whether a question would go out at once.
    #[must_use]
    pub fn may_ask(&self) -> bool {
        self.asked < ASKED_MAX
    }

    /// Asks about the basis of the file at the front, which waits aside until the answer is complete.
    pub fn ask(&mut self, topic: Topic, body: &[u8]) -> Asked {
        debug_assert!(self.current.is_none());
        let is_asked = |item: &&Item| matches!(item.stage, Stage::Asked { .. });
        if self.asked >= ASKED_MAX {
            debug_assert!(self.wanted.values().filter(is_asked).count() == self.asked);
            return Asked::Later;
        }
        let Some(file) = self.queue.pop_front() else {
            return Asked::Later;
        };
        if let Some(item) = self.wanted.get_mut(&file) {
            debug_assert!(item.basis.is_some(), "only what has a basis is asked about");
            item.stage = Stage::Asked { topic, told_bytes: 0 };
            self.asked += 1;
        }
        Ask { file, topic, body }.encode(self.stream, &mut self.out);
        Asked::Sent
    }

    /// The file at the front, which begins with what is staged of it, follows as a patch: the plan is of the rest.
    pub fn resume_patch(&mut self, size: u64, meta: &Meta, form: PatchForm) {
        if self.say_resume(size).is_some() {
            self.patch(size, meta, form);
        }
    }

    /// The file at the front follows as a patch of its basis, with at most `plan_bytes_max` bytes of plan.
    pub fn patch(&mut self, size: u64, meta: &Meta, form: PatchForm) {
        debug_assert!(self.current.is_none());
        let Some(file) = self.queue.pop_front() else {
            return;
        };
        let Some(item) = self.wanted.get_mut(&file) else {
            return;
        };
        // A second attempt is made whole, unless another basis is named for it.
        let Some(basis) = item.basis.take() else {
            debug_assert!(false, "a patch has a basis");
            return;
        };
        item.partial = None;
        item.size = size;
        item.stage = Stage::Started;
        self.current = Some(Current {
            file,
            size: plan_bytes_max(size),
            sent: 0,
            is_plan: true,
        });
        let meta = *meta;
        Patch {
            file,
            size,
            meta,
            basis,
            form,
        }
        .encode(self.stream, &mut self.out);
    }

    /// The basis of a file that is going to be wanted, or that is wanted again.
    pub(in super::super) fn handle_basis(&mut self, basis: Basis) -> Result<(), Fault> {
        let Basis { file, id } = basis;
        let is_over = |item: &&mut Item| matches!(item.stage, Stage::Ended | Stage::GivenUp);
        let item = match self.offered(file) {
            true => self.unanswered.get_mut((file - self.answered) as usize),
            false => self.wanted.get_mut(&file).filter(is_over),
        };
        let item = item.filter(|item| item.is_file);
        item.ok_or_else(|| Fault::protocol("a basis of a file that is not expected"))?
            .basis = Some(id);
        Ok(())
    }

    /// What the receiver has staged of a file that is going to be wanted.
    pub(in super::super) fn handle_partial(&mut self, partial: Partial) -> Result<(), Fault> {
        let Partial { file, id } = partial;
        let item = match self.offered(file) {
            true => self.unanswered.get_mut((file - self.answered) as usize),
            false => None,
        };
        let item = item.filter(|item| item.is_file);
        item.ok_or_else(|| Fault::protocol("a part of a file that is not expected"))?
            .partial = Some(id);
        Ok(())
    }

    /// Whether a file was offered and not answered.
    fn offered(&self, file: u32) -> bool {
        let offered = self.next_file - self.batch.count() as u32;
        (self.answered..offered).contains(&file)
    }

    /// A piece of an answer. Returns whether anybody still waits for it.
    pub(in super::super) fn handle_tell(&mut self, tell: &Tell<'_>) -> Result<Told, Fault> {
        let Some(item) = self.wanted.get_mut(&tell.file) else {
            // The receiver gave the file up while the answer was on its way.
            return Ok(Told::Nobody);
        };
        let size = item.size.max(item.basis.map_or(0, |id| id.length));
        let Stage::Asked { topic, told_bytes } = &mut item.stage else {
            return Err(Fault::protocol("an answer that was not asked for"));
        };
        *told_bytes += tell.body.len() as u64;
        if *topic != tell.topic || *told_bytes > told_bytes_max(tell.topic, size) {
            return Err(Fault::protocol("an answer to another question"));
        }
        if tell.last {
            item.stage = Stage::Queued;
            self.asked -= 1;
            self.queue.push_front(tell.file);
        }
        Ok(Told::Somebody)
    }

    /// The basis of a wanted file, as its receiver named it.
    #[must_use]
    pub fn basis_of(&self, file: u32) -> Option<ContentId> {
        self.wanted.get(&file)?.basis
    }

    /// A file that is asked about is not sent after all.
    pub(super) fn forget_question(&mut self, stage: Stage) {
        if matches!(stage, Stage::Asked { .. }) {
            self.asked -= 1;
        }
    }
}

/// Whether an answer found who asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Told {
    Somebody,
    Nobody,
}

/// The most that an answer takes for a file and a basis of up to `size` bytes.
fn told_bytes_max(topic: Topic, size: u64) -> u64 {
    let leaves = size / (16 * 1024) + 1;
    let fixed = 64 * 1024;
    match topic {
        // 8 bytes for 512.
        Topic::Signature => fixed + size / 32,
        Topic::Tree => fixed,
        Topic::Leaves => fixed + 16 * leaves,
        // A hash of 32 bytes, one of 16, and 16 CRCs.
        Topic::Blocks => fixed + 112 * leaves,
        // Two anchors at the most for every KiB.
        Topic::Index => fixed + 256 * leaves,
    }
}
