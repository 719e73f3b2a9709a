//! What a receiver says of the files that it has, whole or in part: their content, and answers about it.
//!
//! Invariant: only files that are wanted and whose basis was named are asked about; at most
//! [`ASKED_MAX`] at a time, and [`QUESTIONS_MAX`] times about one basis.

use super::super::machine::Event;
use super::{Current, Progress, Receiver};
use crate::model::limits::{ASKED_MAX, QUESTIONS_MAX, plan_bytes_max};
use crate::model::{CloseCode, ContentId, Fault};
use crate::wire::{Ask, Basis, Message, Partial, Patch, Resume, SettledResult, Tell, Topic};

impl Receiver {
    /// Names the content of the file that the entry of [`Receiver::next_check`] is going to replace;
    /// call it before the answer that wants the entry.
    pub fn basis(&mut self, id: ContentId) {
        let Some(check) = self.checks.front() else {
            return;
        };
        self.named = Some(id);
        Basis { file: check.file, id }.encode(self.stream, &mut self.out);
    }

    /// A file has arrived and is not what it should be: what was pieced together is its new basis, and
    /// what differs is to be sent again.
    pub fn repair(&mut self, file: u32, id: ContentId) {
        if let Some(wanted) = self.wanted.get_mut(&file).filter(|w| w.progress == Progress::Arrived) {
            wanted.basis = Some(id);
            wanted.questions = 0;
            Basis { file, id }.encode(self.stream, &mut self.out);
            self.settle(file, SettledResult::Resend);
        }
    }

    /// Names what is staged already of the entry of [`Receiver::next_check`], from its beginning; call it
    /// before the answer that wants the entry.
    pub fn partial(&mut self, id: ContentId) {
        let Some(check) = self.checks.front() else {
            return;
        };
        self.named_partial = id.length;
        Partial { file: check.file, id }.encode(self.stream, &mut self.out);
    }

    /// The start that follows is of what is not staged yet.
    pub(in super::super) fn handle_resume(&mut self, resume: Resume) -> Result<(), Fault> {
        let wanted = self.wanted.get(&resume.file);
        let wanted = wanted.filter(|wanted| self.current.is_none() && self.resuming.is_none() && wanted.partial > 0);
        wanted.ok_or_else(|| Fault::protocol("a resumption of a file that is not staged"))?;
        self.resuming = Some(resume.file);
        Ok(())
    }

    /// The bytes of a file of `size` that is starting that come before those that follow; `None` when all
    /// of it follows. What was staged is used up by this.
    pub(super) fn resumed(&mut self, file: u32, size: u64) -> Result<Option<u64>, Fault> {
        let partial = self
            .wanted
            .get_mut(&file)
            .map_or(0, |wanted| std::mem::take(&mut wanted.partial));
        match self.resuming.take() {
            None => Ok(None),
            Some(resumed) if resumed == file && partial <= size => Ok(Some(partial)),
            Some(_) => Err(Fault::protocol("a resumption of another file")),
        }
    }

    /// A piece of the answer to an ask. Nothing is said of a file that was settled or given up meanwhile.
    pub fn tell(&mut self, file: u32, topic: Topic, body: &[u8], last: bool) {
        let wanted = self.wanted.get_mut(&file);
        let Some(wanted) = wanted.filter(|wanted| wanted.is_asked) else {
            return;
        };
        if last {
            wanted.is_asked = false;
            self.asked -= 1;
        }
        Tell {
            file,
            topic,
            last,
            body,
        }
        .encode(self.stream, &mut self.out);
    }

    pub(in super::super) fn handle_ask<'a>(&mut self, ask: Ask<'a>) -> Result<Event<'a>, Fault> {
        let wanted = self.wanted.get_mut(&ask.file);
        let wanted = wanted.filter(|wanted| wanted.basis.is_some() && !wanted.is_asked);
        let wanted = wanted.ok_or_else(|| Fault::protocol("a question about a file that is not wanted"))?;
        match wanted.progress {
            Progress::Void => return Ok(Event::Nothing),
            Progress::Arrived => return Err(Fault::protocol("a question about a file that has come")),
            Progress::Wanted => {}
        }
        wanted.is_asked = true;
        wanted.questions += 1;
        self.asked += 1;
        if self.asked > ASKED_MAX || wanted.questions > QUESTIONS_MAX {
            return Err(Fault::new(CloseCode::Limit, "too many questions"));
        }
        Ok(Event::Ask(ask))
    }

    pub(in super::super) fn handle_patch<'a>(&mut self, patch: Patch) -> Result<Event<'a>, Fault> {
        let wanted = self.wanted.get(&patch.file).copied();
        let wanted = wanted.filter(|wanted| self.current.is_none() && wanted.progress != Progress::Arrived);
        let wanted = wanted.ok_or_else(|| Fault::protocol("a patch of a file that is not wanted now"))?;
        if wanted.is_asked || wanted.basis != Some(patch.basis) {
            return Err(Fault::protocol("a patch of another basis"));
        }
        let resumed = self.resumed(patch.file, patch.size)?;
        self.current = Some(Current {
            file: patch.file,
            size: plan_bytes_max(patch.size),
            received: 0,
            sparse: false,
            is_plan: true,
        });
        Ok(match (wanted.progress, resumed) {
            (Progress::Void, _) => Event::Nothing,
            (_, Some(_)) => Event::ResumePatch(patch),
            (_, None) => Event::Patch(patch),
        })
    }

    /// A file that was asked about is settled or forgotten.
    pub(super) fn forget_question(&mut self, file: u32) {
        if let Some(wanted) = self.wanted.get_mut(&file)
            && std::mem::take(&mut wanted.is_asked)
        {
            self.asked -= 1;
        }
    }
}
