//! What a receiver says became of offered entries: its answers, and the results of what was sent.
//!
//! Invariant: an entry is forgotten when both sides have said their last word on it.

use super::{Item, Sender, Settlement, Stage, fault_of};
use crate::model::{Fault, ItemCode};
use crate::wire::{Answers, End, EndOutcome, Message, SettledReader, SettledResult, Verdict};

impl Sender {
    /// Answers of the receiver, in the order of the offers.
    pub(in super::super) fn handle_answers(&mut self, payload: &[u8]) -> Result<(), Fault> {
        for run in Answers::decode(payload).map_err(fault_of)? {
            for _ in 0..run.count {
                let item = self.unanswered.pop_front();
                let item = item.ok_or_else(|| Fault::protocol("an answer without an offer"))?;
                let file = self.answered;
                self.answered += 1;
                if self.answered > self.next_file - self.batch.count() as u32 {
                    return Err(Fault::protocol("an answer before its offer"));
                }
                self.answer(file, item, run.verdict)?;
            }
        }
        Ok(())
    }

    /// The entry is settled: it makes room in the window.
    fn forget(&mut self, file: u32) -> Option<Item> {
        let item = self.wanted.remove(&file)?;
        self.open_bytes -= item.weight;
        Some(item)
    }

    fn answer(&mut self, file: u32, mut item: Item, verdict: Verdict) -> Result<(), Fault> {
        let settlement = match verdict {
            Verdict::Failed(code) => Settlement::Failed(code),
            want if want.is_want() => Settlement::Wanted(want),
            other => Settlement::Answered(other),
        };
        if verdict.is_want() && !item.is_file {
            return Err(Fault::protocol("content wanted of what is not a file"));
        }
        self.report(&item, settlement);
        if verdict.is_want() && !self.dry_run {
            item.verdict = verdict;
            self.wanted.insert(file, item);
            self.queue.push_back(file);
        } else {
            self.open_bytes -= item.weight;
        }
        Ok(())
    }

    /// Results of files whose content was sent.
    pub(in super::super) fn handle_settled(&mut self, payload: &[u8]) -> Result<(), Fault> {
        let mut results = SettledReader::new(payload);
        while let Some((file, result)) = results.next_result().map_err(fault_of)? {
            let Some(item) = self.wanted.get(&file) else {
                return Err(Fault::protocol("a result for an unknown file"));
            };
            match (result, item.stage) {
                (SettledResult::Failed(code), stage) => self.settle_failed(file, stage, code),
                (_, Stage::Queued | Stage::Asked { .. } | Stage::Started | Stage::GivenUp) => {
                    return Err(Fault::protocol("a result for a file before its end"));
                }
                (SettledResult::Committed, Stage::Ended) => {
                    if let Some(item) = self.forget(file) {
                        self.report(&item, Settlement::Committed(item.verdict));
                    }
                }
                (SettledResult::Resend, Stage::Ended) => {
                    self.read_again(file, ItemCode::Mismatch);
                }
            }
        }
        Ok(())
    }

    /// The receiver gave a file up, perhaps while it is on its way.
    fn settle_failed(&mut self, file: u32, stage: Stage, code: ItemCode) {
        match stage {
            Stage::Ended | Stage::GivenUp => {}
            Stage::Queued => self.queue.retain(|queued| *queued != file),
            Stage::Asked { .. } => self.forget_question(stage),
            Stage::Started => self.current = None,
        }
        if matches!(stage, Stage::Queued | Stage::Asked { .. } | Stage::Started) {
            // The receiver waits for a last word, because a start may have crossed its result.
            let outcome = EndOutcome::Failed(code);
            End { file, outcome }.encode(self.stream, &mut self.out);
        }
        if let Some(item) = self.forget(file)
            && stage != Stage::GivenUp
        {
            self.report(&item, Settlement::Failed(code));
        }
    }
}
