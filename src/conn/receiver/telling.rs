//! What a receiver says of the files that it has: their content, and answers about it.
//!
//! Invariant: only files that are wanted and whose basis was named are asked about; at most
//! [`ASKED_MAX`] at a time, and [`QUESTIONS_MAX`] times about one basis.

use super::super::machine::Event;
use super::{Current, Progress, Receiver};
use crate::model::limits::{ASKED_MAX, QUESTIONS_MAX, plan_bytes_max};
use crate::model::{CloseCode, ContentId, Fault};
use crate::wire::{Ask, Basis, Message, Patch, SettledResult, Tell, Topic};

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
        self.current = Some(Current {
            file: patch.file,
            size: plan_bytes_max(patch.size),
            received: 0,
            sparse: false,
            is_plan: true,
        });
        Ok(match wanted.progress {
            Progress::Void => Event::Nothing,
            _ => Event::Patch(patch),
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
