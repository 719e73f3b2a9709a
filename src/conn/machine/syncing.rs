//! What a machine does with the messages of syncing: what changed since a revision, and changes without content.
//!
//! Decides nothing itself. Invariant: one question about changes, and one list of changes, is open at a time,
//! and the latter only while no transfer runs.

use super::{Event, Machine, Role, State, decode};
use crate::conn::sender::fault_of;
use crate::model::{CloseCode, Fault, Right};
use crate::wire::{
    Alter, Altered, ChangesHead, ChangesReader, ChangesWriter, FrameType, Message, News, Since, features,
};

impl Machine {
    pub(super) fn handle_syncing<'a>(&mut self, kind: FrameType, payload: &'a [u8]) -> Result<Event<'a>, Fault> {
        if self.features & features::SYNC == 0 {
            return Err(Fault::protocol("syncing that was not negotiated"));
        }
        match (kind, &self.role) {
            (FrameType::Since, Role::Server) => {
                self.check_right(Right::Read)?;
                if std::mem::replace(&mut self.since_open, true) {
                    return Err(Fault::protocol("a question about changes before the answer to another"));
                }
                Ok(Event::Since(decode(payload)?))
            }
            (FrameType::Alter, Role::Server) if matches!(self.state, State::Idle) => {
                self.check_right(Right::Write)?;
                self.state = State::Altering;
                Ok(Event::Alter(decode(payload)?))
            }
            (FrameType::Changes, Role::Client { .. }) if self.since_open => {
                self.since_open = false;
                Ok(Event::Changes(ChangesReader::new(payload).map_err(fault_of)?))
            }
            (FrameType::Altered, Role::Client { .. }) if matches!(self.state, State::Altering) => {
                self.state = State::Idle;
                Ok(Event::Altered(decode(payload)?))
            }
            (FrameType::News, Role::Client { .. }) => Ok(Event::News(decode(payload)?)),
            _ => Err(Fault::protocol("a message about syncing out of place")),
        }
    }

    fn check_right(&self, needed: Right) -> Result<(), Fault> {
        if self.rights.allow(needed) {
            return Ok(());
        }
        let verb = match needed {
            Right::Read => "read from",
            Right::Write => "write to",
        };
        let text = format!("this device may not {verb} this share");
        Err(Fault::new(CloseCode::Forbidden, text))
    }

    /// Client: asks what changed. The answer comes as [`Event::Changes`].
    pub fn since(&mut self, since: &Since) {
        debug_assert!(!self.since_open, "one question at a time");
        self.since_open = true;
        since.encode(0, &mut self.out);
    }

    /// Client: has things moved and removed. The answer comes as [`Event::Altered`].
    pub fn alter(&mut self, alter: &Alter) {
        debug_assert!(matches!(self.state, State::Idle));
        self.state = State::Altering;
        alter.encode(0, &mut self.out);
    }

    /// Server: answers [`Event::Since`].
    pub fn changes(&mut self, head: &ChangesHead, page: ChangesWriter) {
        debug_assert!(self.since_open);
        self.since_open = false;
        page.finish(head, &mut self.out);
    }

    /// Server: says that there are changes, to who watches.
    pub fn news(&mut self, news: &News) {
        news.encode(0, &mut self.out);
    }

    /// Server: answers [`Event::Alter`].
    pub fn altered(&mut self, altered: &Altered) {
        debug_assert!(matches!(self.state, State::Altering));
        self.state = State::Idle;
        altered.encode(0, &mut self.out);
    }
}

#[cfg(all(test, feature = "sync"))]
#[path = "../syncing_tests.rs"]
mod tests;
