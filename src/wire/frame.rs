//! Frames: an 8-byte header and a payload. Cuts a byte stream into frames without copying bulk data.
//!
//! Invariant: a control frame is handed out whole, and a bulk frame in whatever pieces arrive; the
//! decoder holds at most one incomplete control frame, of bytes that really arrived.

use super::codec::WireError;
use crate::model::limits::{BULK_FRAME_BYTES_MAX, CONTROL_FRAME_BYTES_MAX};

/// Bytes of a frame header: length `u32`, type `u8`, flags `u8` (zero), stream `u16`.
pub const FRAME_HEADER_BYTES: usize = 8;

/// Bytes before the raw content of a data frame's payload: the file id `u32`.
const DATA_HEAD_BYTES: usize = 4;

/// The type of a frame; the number stands on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum FrameType {
    /// First frame in both directions.
    Hello = 1,
    /// Client asks for a share.
    Open = 2,
    /// Server grants it.
    Opened = 3,
    /// Last frame of a side.
    Close = 4,
    /// Asks for a pong.
    Ping = 5,
    /// Answers a ping.
    Pong = 6,
    /// Client asks how the server is.
    StatusQuery = 7,
    /// The answer, JSON.
    StatusReply = 8,
    /// Server: when to come again.
    ComeBack = 9,
    /// Client asks what changed since a revision.
    Since = 10,
    /// Server: a page of changes.
    Changes = 11,
    /// Server: there are more of them.
    News = 12,
    /// Client moves and removes things.
    Alter = 13,
    /// Server: what became of that.
    Altered = 14,
    /// Client starts a transfer.
    Begin = 16,
    /// Server is ready for it.
    Ready = 17,
    /// Sender lists entries.
    Offer = 18,
    /// Receiver says which it wants.
    Answer = 19,
    /// Sender starts a file.
    Start = 20,
    /// Bulk: content of the started file.
    Data = 21,
    /// Sender: a hole in the started file.
    Hole = 22,
    /// Sender: the started file is complete, or abandoned.
    End = 23,
    /// Sender: a small file in one frame.
    Inline = 24,
    /// Receiver: what became of files.
    Settled = 25,
    /// Receiver: more content may come.
    Credit = 26,
    /// Sender: the list is complete.
    ListEnd = 27,
    /// Sender: an entry that it cannot read.
    SourceFailed = 28,
    /// Receiver: entries that it deleted.
    Removed = 29,
    /// Receiver: the transfer is over.
    Finish = 30,
    /// Receiver: what the wanted file contains there now.
    Basis = 31,
    /// Sender: a question about a basis.
    Ask = 32,
    /// Receiver: the answer.
    Tell = 33,
    /// Sender: a file starts as a patch.
    Patch = 34,
    /// Receiver: what it has staged of the wanted file, from its beginning.
    Partial = 35,
    /// Sender: what follows of a file begins behind that.
    Resume = 36,
    /// Receiver: something that it could not do, beside the files that were wanted.
    TargetFailed = 37,
    /// Server: the transfer that was begun waits for its turn.
    Queued = 38,
}

impl FrameType {
    /// Every type, for tables and tests.
    pub const ALL: [FrameType; 37] = [
        FrameType::Hello,
        FrameType::Open,
        FrameType::Opened,
        FrameType::Close,
        FrameType::Ping,
        FrameType::Pong,
        FrameType::StatusQuery,
        FrameType::StatusReply,
        FrameType::ComeBack,
        FrameType::Since,
        FrameType::Changes,
        FrameType::News,
        FrameType::Alter,
        FrameType::Altered,
        FrameType::Begin,
        FrameType::Ready,
        FrameType::Offer,
        FrameType::Answer,
        FrameType::Start,
        FrameType::Data,
        FrameType::Hole,
        FrameType::End,
        FrameType::Inline,
        FrameType::Settled,
        FrameType::Credit,
        FrameType::ListEnd,
        FrameType::SourceFailed,
        FrameType::Removed,
        FrameType::Finish,
        FrameType::Basis,
        FrameType::Ask,
        FrameType::Tell,
        FrameType::Patch,
        FrameType::Partial,
        FrameType::Resume,
        FrameType::TargetFailed,
        FrameType::Queued,
    ];

    /// The type of a wire number.
    #[must_use]
    pub fn from_wire(number: u8) -> Option<FrameType> {
        FrameType::ALL.into_iter().find(|kind| *kind as u8 == number)
    }

    /// Whether the type belongs to a transfer (its stream number is not zero).
    #[must_use]
    pub fn is_transfer(self) -> bool {
        self as u8 >= FrameType::Begin as u8
    }
}

/// What the decoder found next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece<'a> {
    /// A whole control frame.
    Control {
        /// Its type.
        kind: FrameType,
        /// Its stream: 0 for the session, else the transfer.
        stream: u16,
        /// Its payload.
        payload: &'a [u8],
    },
    /// A part of a data frame.
    Data {
        /// The transfer.
        stream: u16,
        /// The file.
        file: u32,
        /// Content, never empty unless the frame itself is.
        bytes: &'a [u8],
    },
}

/// Cuts received bytes into frames.
#[derive(Debug)]
pub struct Decoder {
    /// Start of a frame whose rest has not arrived yet.
    partial: Vec<u8>,
    /// A data frame that is being passed through.
    bulk: Option<Bulk>,
    /// Payload limit of control frames; low before authentication.
    control_limit: usize,
    /// Whether data frames are allowed at all.
    bulk_allowed: bool,
    /// The frame in `partial` was handed out and goes at the next call.
    spent: bool,
}

#[derive(Debug, Clone, Copy)]
struct Bulk {
    stream: u16,
    file: u32,
    remaining: usize,
}

#[derive(Debug, Clone, Copy)]
struct Header {
    length: usize,
    kind: FrameType,
    stream: u16,
}

impl Decoder {
    /// A decoder that takes only control frames of up to `control_limit` bytes until
    /// [`Decoder::lift_limits`].
    #[must_use]
    pub fn new(control_limit: usize) -> Decoder {
        Decoder {
            partial: Vec::new(),
            bulk: None,
            control_limit,
            bulk_allowed: false,
            spent: false,
        }
    }

    /// Authentication is done: the full limits hold from here on.
    pub fn lift_limits(&mut self) {
        self.control_limit = CONTROL_FRAME_BYTES_MAX;
        self.bulk_allowed = true;
    }

    /// Bytes held back because their frame is incomplete.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        if self.spent { 0 } else { self.partial.len() }
    }

    /// Drops a frame that was handed out and dealt with, instead of keeping it until the next one comes.
    pub fn release(&mut self) {
        if std::mem::take(&mut self.spent) {
            self.partial = Vec::new();
        }
    }

    /// The next piece of `input`, which moves forward. `None`: everything was taken, more is needed.
    ///
    /// # Errors
    /// A [`WireError`] for a header that is unknown, malformed or over a limit. The connection is
    /// not usable after it.
    pub fn next<'s, 'i: 's>(&'s mut self, input: &mut &'i [u8]) -> Result<Option<Piece<'s>>, WireError> {
        if self.spent {
            self.spent = false;
            self.partial = Vec::new();
        }
        if let Some(bulk) = self.bulk.take() {
            return Ok(self.pass_bulk(bulk, input));
        }
        if self.partial.is_empty() {
            return self.next_in_place(input);
        }
        self.complete_partial(input)
    }

    /// The usual case: the frame starts at the front of the read buffer.
    fn next_in_place<'s, 'i: 's>(&'s mut self, input: &mut &'i [u8]) -> Result<Option<Piece<'s>>, WireError> {
        let Some(header) = self.header(input)? else {
            self.hold(input);
            return Ok(None);
        };
        if header.kind == FrameType::Data {
            if input.len() < FRAME_HEADER_BYTES + DATA_HEAD_BYTES {
                self.hold(input);
                return Ok(None);
            }
            let bulk = bulk_of(header, input);
            *input = &input[FRAME_HEADER_BYTES + DATA_HEAD_BYTES..];
            return Ok(self.pass_bulk(bulk, input));
        }
        let total = FRAME_HEADER_BYTES + header.length;
        if input.len() < total {
            self.hold(input);
            return Ok(None);
        }
        let payload = &input[FRAME_HEADER_BYTES..total];
        *input = &input[total..];
        Ok(Some(Piece::Control {
            kind: header.kind,
            stream: header.stream,
            payload,
        }))
    }

    /// A frame whose start arrived earlier: adds what it still needs, byte-exactly.
    fn complete_partial<'s, 'i: 's>(&'s mut self, input: &mut &'i [u8]) -> Result<Option<Piece<'s>>, WireError> {
        self.fill(input, FRAME_HEADER_BYTES);
        let Some(header) = self.header(&self.partial)? else {
            return Ok(None);
        };
        let is_data = header.kind == FrameType::Data;
        let needed = FRAME_HEADER_BYTES + if is_data { DATA_HEAD_BYTES } else { header.length };
        self.fill(input, needed);
        if self.partial.len() < needed {
            return Ok(None);
        }
        if is_data {
            let bulk = bulk_of(header, &self.partial);
            self.partial = Vec::new();
            return Ok(self.pass_bulk(bulk, input));
        }
        self.spent = true;
        let payload = &self.partial[FRAME_HEADER_BYTES..];
        Ok(Some(Piece::Control {
            kind: header.kind,
            stream: header.stream,
            payload,
        }))
    }

    fn hold(&mut self, input: &mut &[u8]) {
        self.partial.extend_from_slice(input);
        *input = &[];
    }

    fn fill(&mut self, input: &mut &[u8], needed: usize) {
        let missing = needed.saturating_sub(self.partial.len()).min(input.len());
        self.partial.extend_from_slice(&input[..missing]);
        *input = &input[missing..];
    }

    fn pass_bulk<'a>(&mut self, mut bulk: Bulk, input: &mut &'a [u8]) -> Option<Piece<'a>> {
        let length = bulk.remaining.min(input.len());
        let (bytes, rest) = input.split_at(length);
        let nothing_yet = bytes.is_empty() && bulk.remaining > 0;
        *input = rest;
        bulk.remaining -= length;
        self.bulk = (bulk.remaining > 0).then_some(bulk);
        (!nothing_yet).then_some(Piece::Data {
            stream: bulk.stream,
            file: bulk.file,
            bytes,
        })
    }

    fn header(&self, bytes: &[u8]) -> Result<Option<Header>, WireError> {
        let Some(&[l0, l1, l2, l3, number, flags, s0, s1]) = bytes.first_chunk::<FRAME_HEADER_BYTES>() else {
            return Ok(None);
        };
        let kind = FrameType::from_wire(number).ok_or(WireError::UnknownType(number))?;
        let stream = u16::from_le_bytes([s0, s1]);
        if flags != 0 || (stream != 0) != kind.is_transfer() {
            return Err(WireError::BadHeader);
        }
        let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        let limit = match kind {
            FrameType::Data if self.bulk_allowed => BULK_FRAME_BYTES_MAX,
            FrameType::Data => return Err(WireError::OverLimit("frame")),
            _ => self.control_limit,
        };
        if length > limit {
            return Err(WireError::OverLimit("frame"));
        }
        if kind == FrameType::Data && length < DATA_HEAD_BYTES {
            return Err(WireError::Truncated);
        }
        Ok(Some(Header { length, kind, stream }))
    }
}

/// `bytes` hold a frame header and the head of a data frame.
fn bulk_of(header: Header, bytes: &[u8]) -> Bulk {
    let head = &bytes[FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + DATA_HEAD_BYTES];
    let file = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
    Bulk {
        stream: header.stream,
        file,
        remaining: header.length - DATA_HEAD_BYTES,
    }
}

/// A frame header for a control frame with `length` bytes of payload.
#[must_use]
pub(crate) fn control_header(kind: FrameType, stream: u16, length: usize) -> [u8; FRAME_HEADER_BYTES] {
    debug_assert!(length <= CONTROL_FRAME_BYTES_MAX, "{kind:?} of {length} bytes");
    let [l0, l1, l2, l3] = (length as u32).to_le_bytes();
    let [s0, s1] = stream.to_le_bytes();
    [l0, l1, l2, l3, kind as u8, 0, s0, s1]
}

/// Writes the length of a control frame, header and payload, into its header.
pub(super) fn patch_length(frame: &mut [u8]) {
    let length = frame.len() - FRAME_HEADER_BYTES;
    debug_assert!(length <= CONTROL_FRAME_BYTES_MAX, "a frame of {length} bytes");
    frame[..4].copy_from_slice(&(length as u32).to_le_bytes());
}

/// Everything before the raw content of a data frame: frame header and file id. `length` is the
/// number of content bytes that follow, at most [`BULK_FRAME_BYTES_MAX`] less the file id.
#[must_use]
pub fn data_header(stream: u16, file: u32, length: usize) -> [u8; FRAME_HEADER_BYTES + DATA_HEAD_BYTES] {
    debug_assert!(length + DATA_HEAD_BYTES <= BULK_FRAME_BYTES_MAX);
    let [l0, l1, l2, l3] = ((length + DATA_HEAD_BYTES) as u32).to_le_bytes();
    let [s0, s1] = stream.to_le_bytes();
    let [f0, f1, f2, f3] = file.to_le_bytes();
    [l0, l1, l2, l3, FrameType::Data as u8, 0, s0, s1, f0, f1, f2, f3]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn stream_of_frames() -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&control_header(FrameType::Ping, 0, 3));
        bytes.extend_from_slice(b"abc");
        bytes.extend_from_slice(&data_header(1, 7, 5));
        bytes.extend_from_slice(b"hello");
        bytes.extend_from_slice(&data_header(1, 8, 0));
        bytes.extend_from_slice(&control_header(FrameType::ListEnd, 1, 0));
        bytes
    }

    type Control = Vec<(FrameType, Vec<u8>)>;
    type Data = Vec<(u32, Vec<u8>)>;

    fn decode_in(chunks: &[&[u8]]) -> (Control, Data) {
        let mut decoder = Decoder::new(100);
        decoder.lift_limits();
        let (mut control, mut data) = (Vec::new(), Vec::<(u32, Vec<u8>)>::new());
        for chunk in chunks {
            let mut rest = *chunk;
            while let Some(piece) = decoder.next(&mut rest).unwrap() {
                match piece {
                    Piece::Control { kind, payload, .. } => control.push((kind, payload.to_vec())),
                    Piece::Data { file, bytes, .. } => match data.last_mut() {
                        Some((last, content)) if *last == file => content.extend_from_slice(bytes),
                        _ => data.push((file, bytes.to_vec())),
                    },
                }
            }
            assert!(rest.is_empty());
        }
        assert_eq!(decoder.held_bytes(), 0);
        (control, data)
    }

    proptest! {
        #[test]
        fn frames_survive_any_split(cuts in proptest::collection::vec(0usize..44, 0..8)) {
            let bytes = stream_of_frames();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let chunks: Vec<&[u8]> = cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
            let (control, data) = decode_in(&chunks);
            prop_assert_eq!(control, vec![(FrameType::Ping, b"abc".to_vec()), (FrameType::ListEnd, vec![])]);
            prop_assert_eq!(data, vec![(7, b"hello".to_vec()), (8, vec![])]);
        }
    }

    #[test]
    fn headers_over_a_limit_are_refused_before_the_payload_arrives() {
        let mut decoder = Decoder::new(100);
        let mut header = control_header(FrameType::Offer, 1, 0);
        header[..4].copy_from_slice(&500_000_000u32.to_le_bytes());
        assert_eq!(decoder.next(&mut &header[..]), Err(WireError::OverLimit("frame")));
        let data = data_header(1, 1, 10);
        assert_eq!(
            Decoder::new(100).next(&mut &data[..]),
            Err(WireError::OverLimit("frame"))
        );
    }

    #[test]
    fn unknown_types_flags_and_streams_are_refused() {
        let with = |index: usize, value: u8| {
            let mut header = control_header(FrameType::Ping, 0, 0);
            header[index] = value;
            Decoder::new(100).next(&mut &header[..]).unwrap_err()
        };
        assert_eq!(with(4, 99), WireError::UnknownType(99));
        assert_eq!(with(5, 1), WireError::BadHeader);
        assert_eq!(with(6, 1), WireError::BadHeader);
        assert_eq!(with(4, FrameType::Offer as u8), WireError::BadHeader);
    }

    #[test]
    fn held_memory_follows_received_bytes() {
        let mut decoder = Decoder::new(1 << 20);
        let header = control_header(FrameType::Ping, 0, 1 << 20);
        assert_eq!(decoder.next(&mut &header[..]), Ok(None));
        assert_eq!(decoder.next(&mut &[0u8; 100][..]), Ok(None));
        assert_eq!(decoder.held_bytes(), 108);
        assert!(decoder.partial.capacity() < 4096);
    }

    #[test]
    fn wire_numbers_round_trip() {
        for kind in FrameType::ALL {
            assert_eq!(FrameType::from_wire(kind as u8), Some(kind));
        }
    }
}
