//! What a machine does with the messages of a running transfer: to its sender, or to its receiver.
//!
//! Decides nothing itself. Invariant: what was not negotiated in the greeting is refused.

use super::{Event, Machine, decode, number};
use crate::conn::receiver::Receiver;
use crate::conn::sender::{Sender, Told};
use crate::model::Fault;
use crate::wire::{FrameType, Patch, PatchForm, features};

impl Machine {
    pub(super) fn handle_transfer<'a>(&mut self, kind: FrameType, payload: &'a [u8]) -> Result<Event<'a>, Fault> {
        match kind {
            FrameType::Offer => self.receiving()?.handle_offer(payload).map(|()| Event::Offered),
            FrameType::Start => self.receiving()?.handle_start(decode(payload)?),
            FrameType::Hole if self.features & features::HOLES == 0 => {
                Err(Fault::protocol("a hole that was not negotiated"))
            }
            FrameType::Hole => self.receiving()?.handle_hole(decode(payload)?),
            FrameType::End => self.receiving()?.handle_end(decode(payload)?),
            FrameType::Inline => self.receiving()?.handle_inline(decode(payload)?),
            FrameType::SourceFailed => {
                self.receiving()?.handle_source_failed()?;
                Ok(Event::SourceFailed(decode(payload)?))
            }
            FrameType::ListEnd => {
                let end = decode(payload)?;
                self.receiving()?.handle_list_end(end).map(|()| Event::ListEnd(end))
            }
            FrameType::Basis | FrameType::Ask | FrameType::Tell | FrameType::Patch => self.handle_delta(kind, payload),
            FrameType::Partial | FrameType::Resume if self.features & features::RESUME == 0 => {
                Err(Fault::protocol("a resumption that was not negotiated"))
            }
            FrameType::Partial => {
                let partial = decode(payload)?;
                self.sending()?.handle_partial(partial).map(|()| Event::Progress)
            }
            FrameType::Resume => {
                let resume = decode(payload)?;
                self.receiving()?.handle_resume(resume).map(|()| Event::Nothing)
            }
            FrameType::Answer => self.sending()?.handle_answers(payload).map(|()| Event::Progress),
            FrameType::Settled => self.sending()?.handle_settled(payload).map(|()| Event::Progress),
            FrameType::Credit => {
                let bytes = number(payload)?;
                self.sending()?.handle_credit(bytes);
                Ok(Event::Progress)
            }
            FrameType::Removed => {
                self.sending()?.handle_removed(payload)?;
                Ok(Event::Removed(payload))
            }
            FrameType::TargetFailed => {
                self.sending()?.handle_target_failed()?;
                Ok(Event::TargetFailed(decode(payload)?))
            }
            FrameType::Finish => {
                let finish = decode(payload)?;
                self.sending()?.handle_finish(finish)?;
                Ok(Event::Finished(finish))
            }
            _ => Err(Fault::protocol("a message out of place")),
        }
    }

    fn handle_delta<'a>(&mut self, kind: FrameType, payload: &'a [u8]) -> Result<Event<'a>, Fault> {
        if self.features & features::DELTA == 0 {
            return Err(Fault::protocol("a delta that was not negotiated"));
        }
        match kind {
            FrameType::Basis => {
                let basis = decode(payload)?;
                self.sending()?.handle_basis(basis).map(|()| Event::Progress)
            }
            FrameType::Tell => {
                let tell = decode(payload)?;
                Ok(match self.sending()?.handle_tell(&tell)? {
                    Told::Somebody => Event::Tell(tell),
                    Told::Nobody => Event::Nothing,
                })
            }
            FrameType::Ask => self.receiving()?.handle_ask(decode(payload)?),
            _ => {
                let patch: Patch = decode(payload)?;
                if patch.form != PatchForm::Plan && self.features & features::ZSTD == 0 {
                    return Err(Fault::protocol("compression that was not negotiated"));
                }
                self.receiving()?.handle_patch(patch)
            }
        }
    }

    pub(super) fn sending(&mut self) -> Result<&mut Sender, Fault> {
        self.sender()
            .ok_or_else(|| Fault::protocol("a message for a sender out of place"))
    }

    pub(super) fn receiving(&mut self) -> Result<&mut Receiver, Fault> {
        self.receiver()
            .ok_or_else(|| Fault::protocol("a message for a receiver out of place"))
    }
}
