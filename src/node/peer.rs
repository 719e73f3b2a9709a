//! One connection on either side: decoder, machine, and the transfer that runs on it.
//!
//! What both roles do alike is here; what a server or a client decides is in `server` and `client`.

use super::commit::Committer;
use super::ledger::{Audience, Ledger};
use super::liveness::Liveness;
use super::receiving::{Books, Receiving};
use super::sending::Sending;
use super::tally::BrokenOff;
use crate::conn::{Event, Machine};
use crate::model::limits::PREAUTH_FRAME_BYTES_MAX;
use crate::model::{CloseCode, DeviceId, Fault, ItemCode, Tick};
use crate::reactor::{Activity, Context};
use crate::store::Stamp;
use crate::wire::{Begin, Decoder, FrameType, Piece, WireError};

/// The machine of one connection, as it lies in the reactor's slab.
pub(crate) struct Peer {
    decoder: Decoder,
    pub(crate) session: Session,
}

/// A connection without its decoder.
pub(crate) struct Session {
    pub(crate) machine: Machine,
    pub(crate) transfer: Option<Transfer>,
    pub(crate) ledger: Ledger,
    pub(crate) device: Option<DeviceId>,
    /// Server: the index of the open share.
    pub(crate) share: Option<usize>,
    /// Server: the key of the place that the device has of its own, while it is in it.
    pub(crate) place: Option<u64>,
    /// Server: it was let in, and no longer counts among those that have to say who they are.
    pub(crate) admitted: bool,
    /// Server: it asked how the server is; however often it asks, one answer waits for room.
    pub(crate) asks_status: bool,
    /// Server: what is to be begun when its turn comes.
    pub(crate) waiting: Option<Box<Begin>>,
    /// Server: what it does, for the log of its share.
    pub(crate) run: Option<Box<super::activity::Running>>,
    /// Server: what it waits for of the share's changes.
    #[cfg(feature = "sync")]
    pub(crate) following: Option<Box<super::sharing::Following>>,
    /// Server: bytes of memory that the connection is known to take.
    pub(crate) held: usize,
    /// Bytes of a frame that has not arrived whole.
    pub(crate) partial_bytes: usize,
    /// Server: nothing is read from it until others have given memory back.
    pub(crate) starved: bool,
    pub(crate) liveness: Liveness,
    /// Server: the state of the trust file that the rights were decided on.
    pub(crate) stamp: Option<Stamp>,
    /// Server: how a transfer ended that did not come to its end.
    pub(crate) broken_off: Option<BrokenOff>,
    /// When the connection was accepted or the running transfer began, and what had crossed the wire
    /// by then.
    pub(crate) began: Tick,
    pub(crate) wire_before: (u64, u64),
}

/// The running transfer.
pub(crate) enum Transfer {
    Sending(Box<Sending>),
    Receiving(Box<Receiving>),
    /// Moves and removals.
    #[cfg(feature = "sync")]
    Altering(Box<super::altering::Altering>),
}

#[cfg(feature = "sync")]
impl Transfer {
    /// Whether moves and removals are over.
    pub(crate) fn is_altered(&self) -> bool {
        matches!(self, Transfer::Altering(altering) if altering.is_ended())
    }
}

/// What transfers of one node share.
pub(crate) struct Core {
    pub(crate) committer: Committer,
    pub(crate) scratch: Vec<u8>,
}

impl Core {
    pub(crate) fn new() -> Core {
        Core {
            committer: Committer::new(),
            scratch: Vec::new(),
        }
    }
}

impl Peer {
    pub(crate) fn new(machine: Machine, audience: Audience) -> Peer {
        Peer {
            decoder: Decoder::new(PREAUTH_FRAME_BYTES_MAX),
            session: Session {
                machine,
                transfer: None,
                ledger: Ledger::new(audience),
                device: None,
                share: None,
                place: None,
                admitted: false,
                asks_status: false,
                waiting: None,
                run: None,
                #[cfg(feature = "sync")]
                following: None,
                held: 0,
                partial_bytes: 0,
                starved: false,
                liveness: Liveness::default(),
                stamp: None,
                broken_off: None,
                began: Tick(0),
                wire_before: (0, 0),
            },
        }
    }

    /// Decodes `bytes` and hands every event to `on`.
    pub(crate) fn receive(
        &mut self,
        bytes: &[u8],
        now: Tick,
        mut on: impl FnMut(&mut Session, Event<'_>) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        self.session.liveness.trickled(bytes.len(), now);
        let mut rest = bytes;
        while let Some(piece) = self.decoder.next(&mut rest).map_err(fault_of)? {
            if let Piece::Control { .. } = piece {
                self.session.liveness.heard(now);
            }
            if !is_ping(&piece) {
                self.session.liveness.worked(now);
            }
            let event = self.session.machine.handle(piece)?;
            on(&mut self.session, event)?;
            if self.session.machine.is_open() {
                self.decoder.lift_limits();
            }
        }
        self.decoder.release();
        self.session.partial_bytes = self.decoder.held_bytes();
        Ok(())
    }
}

fn is_ping(piece: &Piece<'_>) -> bool {
    let kinds = [FrameType::Ping, FrameType::Pong];
    matches!(piece, Piece::Control { kind, .. } if kinds.contains(kind))
}

fn fault_of(error: WireError) -> Fault {
    match error {
        WireError::OverLimit(_) => Fault::new(CloseCode::Limit, error.to_string()),
        _ => Fault::protocol(error.to_string()),
    }
}

impl Session {
    /// Deals with an event of a running transfer; gives back those that the role has to deal with.
    pub(crate) fn transfer_event<'a>(&mut self, event: Event<'a>, core: &mut Core) -> Option<Event<'a>> {
        let Session {
            machine,
            transfer,
            ledger,
            ..
        } = self;
        let receiving = match transfer {
            Some(Transfer::Receiving(receiving)) => receiving,
            Some(Transfer::Sending(sending)) => {
                match &event {
                    Event::Tell(tell) => sending.handle_tell(tell),
                    Event::TargetFailed(failed) => ledger.failed(failed.path, failed.code),
                    _ => {
                        sending.settle(machine, ledger);
                        return Some(event);
                    }
                }
                return None;
            }
            #[cfg(feature = "sync")]
            Some(Transfer::Altering(_)) => return Some(event),
            None => return Some(event),
        };
        let mut books = Books {
            ledger,
            committer: &mut core.committer,
            scratch: &mut core.scratch,
        };
        match event {
            Event::Content { file, bytes } => receiving.handle_content(file, bytes, machine, &mut books),
            Event::Start(start) => receiving.handle_start(&start, machine, &mut books),
            Event::Resume(start) => receiving.handle_resume(&start, machine, &mut books),
            Event::Hole(hole) => receiving.handle_hole(&hole, books.ledger),
            Event::End(end) => receiving.handle_end(&end, machine, &mut books),
            Event::Inline(inline) => receiving.handle_inline(&inline, machine, &mut books),
            Event::ListEnd(_) => receiving.handle_list_end(books.ledger),
            Event::SourceFailed(failed) if failed.code == ItemCode::Special => {
                books.ledger.left_out(failed.path, failed.code);
            }
            Event::SourceFailed(failed) if receiving.is_of_a_plan() && failed.code == ItemCode::Vanished => {
                log::info!("{} is gone meanwhile", crate::model::escape(failed.path));
            }
            Event::SourceFailed(failed) => books.ledger.failed(failed.path, failed.code),
            Event::Ask(ask) => receiving.handle_ask(&ask),
            Event::ResumePatch(patch) => receiving.handle_resumed_patch(patch, &mut books),
            Event::Patch(patch) => receiving.handle_patch(patch, &mut books),
            Event::Offered => {}
            other => return Some(other),
        }
        None
    }

    /// Moves the transfer on by a bounded amount and flushes what it has to say.
    pub(crate) fn step(&mut self, cx: &mut Context<'_>, core: &mut Core) -> Result<Activity, Fault> {
        let Session {
            machine,
            transfer,
            ledger,
            ..
        } = self;
        let mut books = Books {
            ledger,
            committer: &mut core.committer,
            scratch: &mut core.scratch,
        };
        let activity = match transfer {
            Some(Transfer::Sending(sending)) => sending.step(cx, machine, &mut books),
            Some(Transfer::Receiving(receiving)) => receiving.step(machine, &mut books)?,
            #[cfg(feature = "sync")]
            Some(Transfer::Altering(altering)) => altering.step(machine, &mut books),
            None => Activity::Idle,
        };
        self.flush(cx);
        if activity == Activity::More {
            self.liveness.worked(cx.now());
        }
        Ok(activity)
    }

    /// A peer that does not read what it asked for is not read from either, so that no flood of
    /// requests can grow the queue. A sender's queue is full of content as a rule, and it needs the
    /// peer's credit: it goes on reading, and answers nothing.
    pub(crate) fn throttle(&mut self, cx: &mut Context<'_>) {
        if self.starved || cx.room() == 0 && self.machine.sender().is_none() {
            cx.pause_reading();
        } else if cx.is_paused() {
            cx.resume_reading();
        }
    }

    /// Bytes of memory that it takes, about, beside what every connection does.
    pub(crate) fn held_bytes(&self, cx: &Context<'_>) -> usize {
        let transfer = match &self.transfer {
            Some(Transfer::Sending(sending)) => sending.held_bytes(),
            Some(Transfer::Receiving(receiving)) => receiving.held_bytes(),
            #[cfg(feature = "sync")]
            Some(Transfer::Altering(altering)) => altering.held_bytes(),
            None => 0,
        };
        let waiting = self.waiting.as_ref().map_or(0, |begin| begin.held_bytes());
        let run = self.run.as_ref().map_or(0, |run| run.held_bytes());
        transfer
            + waiting
            + run
            + self.partial_bytes
            + self.machine.held_bytes()
            + self.ledger.held_bytes()
            + cx.buffered_bytes()
    }

    /// Whether it keeps a folder in sync: then it stays when there is nothing to do.
    pub(crate) fn follows(&self) -> bool {
        #[cfg(feature = "sync")]
        return self.following.is_some();
        #[cfg(not(feature = "sync"))]
        false
    }

    /// Queues what the machine has to say.
    pub(crate) fn flush(&mut self, cx: &mut Context<'_>) {
        let out = self.machine.take_output();
        if !out.is_empty() {
            cx.send_owned(out);
        }
    }

    /// Says why and ends the connection once that is on its way.
    pub(crate) fn close(&mut self, cx: &mut Context<'_>, fault: &Fault) {
        self.machine.close(fault);
        self.flush(cx);
        if self.transfer.take().is_some() {
            self.broken_off = Some(BrokenOff::Closed(fault.code));
        }
        cx.close_after_flush();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Thousands of connections that do nothing lie in the slab: what one takes there is its price. What a
    // transfer needs comes with the transfer, in boxes.
    #[test]
    fn an_idle_connection_is_small() {
        assert!(size_of::<Peer>() <= 768, "{}", size_of::<Peer>());
        assert!(size_of::<Machine>() <= 192, "{}", size_of::<Machine>());
        let peer = Peer::new(Machine::server("server"), Audience::Nobody);
        assert!(peer.session.machine.held_bytes() == 0 && peer.decoder.held_bytes() == 0);
    }
}
