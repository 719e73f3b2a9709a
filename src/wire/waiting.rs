//! What a server says of waiting: where a transfer stands in its line, and when a client is to come again.
//!
//! Both only inform. Invariant: nothing in them changes what the other side may do or how long it is waited for.

use super::codec::{Reader, WireError, Writer};
use super::frame::FrameType;
use super::message::Message;

/// Server: the transfer that was begun waits for others. Ready follows when its turn has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queued {
    /// Its place in the line; 1 is the next.
    pub position: u32,
    /// Milliseconds until its turn, as the server estimates; 0 when it cannot say.
    pub estimate_ms: u64,
}

impl<'a> Message<'a> for Queued {
    const KIND: FrameType = FrameType::Queued;

    fn encode_payload(&self, writer: &mut Writer) {
        writer.u32(self.position);
        writer.u64(self.estimate_ms);
    }

    fn decode_payload(reader: &mut Reader<'a>) -> Result<Self, WireError> {
        let (position, estimate_ms) = (reader.u32()?, reader.u64()?);
        if position == 0 {
            return Err(WireError::BadValue("place in a line"));
        }
        Ok(Queued { position, estimate_ms })
    }
}

/// Server: when the client is to come again. Before a close that says busy: for this transfer; otherwise for
/// its next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ComeBack {
    /// Milliseconds from the end of this connection.
    pub after_ms: u64,
}

impl<'a> Message<'a> for ComeBack {
    const KIND: FrameType = FrameType::ComeBack;

    fn encode_payload(&self, writer: &mut Writer) {
        writer.u64(self.after_ms);
    }

    fn decode_payload(reader: &mut Reader<'a>) -> Result<Self, WireError> {
        Ok(ComeBack {
            after_ms: reader.u64()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::FRAME_HEADER_BYTES;

    #[test]
    fn a_place_in_a_line_begins_at_one_and_nothing_may_follow() {
        let queued = Queued {
            position: 7,
            estimate_ms: 90_000,
        };
        let mut frame = Vec::new();
        queued.encode(1, &mut frame);
        let payload = &frame[FRAME_HEADER_BYTES..];
        assert_eq!(payload.len(), 12);
        assert_eq!(Queued::decode(payload), Ok(queued));
        assert!(Queued::decode(&[payload, &[0]].concat()).is_err());
        assert!(Queued::decode(&payload[..11]).is_err());
        assert!(Queued::decode(&[0; 12]).is_err(), "nobody stands before the first");
    }
}
