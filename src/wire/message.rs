//! The messages that fill control frames, apart from the batches of `batch.rs`.
//!
//! Each message encodes to a whole frame and decodes from a payload; decoding borrows where it can,
//! takes nothing on trust, and refuses trailing bytes.

use super::batch::PathsReader;
use super::codec::{Reader, WireError, Writer};
use super::frame::{FrameType, control_header, patch_length};
use crate::model::limits::{
    BATCH_ENTRIES_MAX, CONTROL_FRAME_BYTES_MAX, DEVICE_NAME_BYTES_MAX, FILE_BYTES_MAX, INLINE_BYTES_MAX,
    PATH_BYTES_MAX, SHARE_NAME_BYTES_MAX, TEXT_BYTES_MAX,
};
use crate::model::{CloseCode, Fault, ItemCode, Meta, RelPath, Rights, Secret, ShareName};

/// A message that fills one control frame.
pub trait Message<'a>: Sized {
    /// Its frame type.
    const KIND: FrameType;

    /// Appends the payload.
    fn encode_payload(&self, writer: &mut Writer);

    /// Reads the payload.
    ///
    /// # Errors
    /// A [`WireError`] naming what is wrong with it.
    fn decode_payload(reader: &mut Reader<'a>) -> Result<Self, WireError>;

    /// The whole frame on `stream` (0 for session messages), appended to `out`.
    fn encode(&self, stream: u16, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&control_header(Self::KIND, stream, 0));
        let mut writer = Writer::after(std::mem::take(out));
        self.encode_payload(&mut writer);
        *out = writer.into_bytes();
        patch_length(&mut out[start..]);
    }

    /// Reads a whole payload.
    ///
    /// # Errors
    /// A [`WireError`] naming what is wrong with it, trailing bytes included.
    fn decode(payload: &'a [u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(payload);
        let message = Self::decode_payload(&mut reader)?;
        reader.finish()?;
        Ok(message)
    }
}

/// First frame of both sides: who speaks, which versions and features.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello<'a> {
    /// Oldest version spoken. A server's answer carries the chosen version twice.
    pub version_min: u16,
    /// Newest version spoken.
    pub version_max: u16,
    /// Bits of [`super::features`].
    pub features: u64,
    /// The device's display name.
    pub name: &'a str,
}

const HELLO_MAGIC: &[u8; 8] = b"SYNCLINE";

impl<'a> Message<'a> for Hello<'a> {
    const KIND: FrameType = FrameType::Hello;

    fn encode_payload(&self, writer: &mut Writer) {
        writer.raw(HELLO_MAGIC);
        writer.u16(self.version_min);
        writer.u16(self.version_max);
        writer.u64(self.features);
        writer.bytes(self.name.as_bytes());
    }

    fn decode_payload(reader: &mut Reader<'a>) -> Result<Self, WireError> {
        if reader.array::<8>()? != *HELLO_MAGIC {
            return Err(WireError::BadValue("greeting"));
        }
        let (version_min, version_max) = (reader.u16()?, reader.u16()?);
        let features = reader.u64()?;
        let name = reader.text(DEVICE_NAME_BYTES_MAX, "device name")?;
        // Later versions may append fields to a hello; they are skipped.
        let _ = reader.take_rest();
        Ok(Hello {
            version_min,
            version_max,
            features,
            name,
        })
    }
}

/// The client asks to be let into a share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Open {
    /// The share's name; empty only for the control share of the same device.
    pub share: Option<ShareName>,
    /// A one-time secret, when the client holds one.
    pub secret: Option<Secret>,
    /// What the client needs to do there.
    pub wanted: Rights,
}

impl<'a> Message<'a> for Open {
    const KIND: FrameType = FrameType::Open;

    fn encode_payload(&self, writer: &mut Writer) {
        writer.bytes(self.share.as_ref().map_or(&[], |share| share.as_str().as_bytes()));
        writer.bytes(self.secret.as_ref().map_or(&[], |secret| &secret.0));
        writer.u8(self.wanted.to_bits());
    }

    fn decode_payload(reader: &mut Reader<'a>) -> Result<Self, WireError> {
        let share = match reader.text(SHARE_NAME_BYTES_MAX, "share name")? {
            "" => None,
            name => Some(ShareName::parse(name).map_err(|_| WireError::BadValue("share name"))?),
        };
        let secret = match reader.bytes(16, "secret")? {
            [] => None,
            bytes => Some(Secret(bytes.try_into().map_err(|_| WireError::BadValue("secret"))?)),
        };
        let wanted = Rights::from_bits(reader.u8()?).ok_or(WireError::BadValue("right"))?;
        Ok(Open { share, secret, wanted })
    }
}

/// The server lets the client in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opened {
    /// What the client may do in the share.
    pub rights: Rights,
    /// The secret of the request was spent: the devices know each other from now on.
    pub paired: bool,
}

impl<'a> Message<'a> for Opened {
    const KIND: FrameType = FrameType::Opened;

    fn encode_payload(&self, writer: &mut Writer) {
        writer.u8(self.rights.to_bits());
        writer.u8(u8::from(self.paired));
    }

    fn decode_payload(reader: &mut Reader<'a>) -> Result<Self, WireError> {
        let rights = Rights::from_bits(reader.u8()?).ok_or(WireError::BadValue("right"))?;
        Ok(Opened {
            rights,
            paired: flag(reader)?,
        })
    }
}

pub(super) fn flag(reader: &mut Reader<'_>) -> Result<bool, WireError> {
    match reader.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(WireError::BadValue("flag")),
    }
}

impl<'a> Message<'a> for Fault {
    const KIND: FrameType = FrameType::Close;

    fn encode_payload(&self, writer: &mut Writer) {
        let mut end = self.text.len().min(TEXT_BYTES_MAX);
        while !self.text.is_char_boundary(end) {
            end -= 1;
        }
        writer.u16(self.code as u16);
        writer.bytes(&self.text.as_bytes()[..end]);
    }

    fn decode_payload(reader: &mut Reader<'a>) -> Result<Self, WireError> {
        let code = CloseCode::from_wire(reader.u16()?).ok_or(WireError::BadValue("close code"))?;
        let text = reader.text(TEXT_BYTES_MAX, "text")?;
        Ok(Fault::new(code, text))
    }
}

/// What stands at the place that a transfer names: the target of a push, the only source of a pull.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum TargetKind {
    /// Nothing.
    Absent = 0,
    /// A regular file.
    File = 1,
    /// A directory.
    Directory = 2,
    /// A link or special file.
    Other = 3,
}

impl<'a> Message<'a> for TargetKind {
    const KIND: FrameType = FrameType::Ready;

    fn encode_payload(&self, writer: &mut Writer) {
        writer.u8(*self as u8);
    }

    fn decode_payload(reader: &mut Reader<'a>) -> Result<Self, WireError> {
        match reader.u8()? {
            0 => Ok(TargetKind::Absent),
            1 => Ok(TargetKind::File),
            2 => Ok(TargetKind::Directory),
            3 => Ok(TargetKind::Other),
            _ => Err(WireError::BadValue("kind")),
        }
    }
}

/// The sender starts a file that the receiver wants; data, holes and an end follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Start {
    /// The file's number in the list.
    pub file: u32,
    /// Its length in bytes, holes included.
    pub size: u64,
    /// Whether holes will come: the receiver then reserves no space.
    pub sparse: bool,
    /// Mode and time as they are now.
    pub meta: Meta,
}

impl<'a> Message<'a> for Start {
    const KIND: FrameType = FrameType::Start;

    fn encode_payload(&self, writer: &mut Writer) {
        writer.u32(self.file);
        writer.varint(self.size);
        writer.u8(u8::from(self.sparse));
        writer.meta(&self.meta);
    }

    fn decode_payload(reader: &mut Reader<'a>) -> Result<Self, WireError> {
        let file = reader.u32()?;
        let size = file_size(reader)?;
        Ok(Start {
            file,
            size,
            sparse: flag(reader)?,
            meta: reader.meta()?,
        })
    }
}

pub(super) fn file_size(reader: &mut Reader<'_>) -> Result<u64, WireError> {
    let size = reader.varint()?;
    if size > FILE_BYTES_MAX {
        Err(WireError::OverLimit("file size"))
    } else {
        Ok(size)
    }
}

/// A hole of `length` bytes at the current place of the started file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hole {
    /// The file's number.
    pub file: u32,
    /// Bytes, not zero.
    pub length: u64,
}

impl<'a> Message<'a> for Hole {
    const KIND: FrameType = FrameType::Hole;

    fn encode_payload(&self, writer: &mut Writer) {
        writer.u32(self.file);
        writer.varint(self.length);
    }

    fn decode_payload(reader: &mut Reader<'a>) -> Result<Self, WireError> {
        let file = reader.u32()?;
        let length = file_size(reader)?;
        if length == 0 {
            return Err(WireError::BadValue("hole"));
        }
        Ok(Hole { file, length })
    }
}

/// The end of a started file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// The file's number.
    pub file: u32,
    /// How it ended.
    pub outcome: EndOutcome,
}

/// How a started file ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndOutcome {
    /// All content was sent; this is the root of its content tree.
    Complete([u8; 32]),
    /// It changed while it was read: what was sent is void, a new start may follow.
    Changed,
    /// It cannot be sent (any more): void, and settled by this.
    Failed(ItemCode),
}

impl<'a> Message<'a> for End {
    const KIND: FrameType = FrameType::End;

    fn encode_payload(&self, writer: &mut Writer) {
        writer.u32(self.file);
        match &self.outcome {
            EndOutcome::Complete(root) => {
                writer.u8(0);
                writer.raw(root);
            }
            EndOutcome::Changed => writer.u8(1),
            EndOutcome::Failed(code) => writer.u8(0x80 | *code as u8),
        }
    }

    fn decode_payload(reader: &mut Reader<'a>) -> Result<Self, WireError> {
        let file = reader.u32()?;
        let outcome = match reader.u8()? {
            0 => EndOutcome::Complete(reader.array()?),
            1 => EndOutcome::Changed,
            byte => EndOutcome::Failed(failure(byte)?),
        };
        Ok(End { file, outcome })
    }
}

/// The item code in a byte with the high bit set.
pub(super) fn failure(byte: u8) -> Result<ItemCode, WireError> {
    match byte & 0x80 {
        0 => Err(WireError::BadValue("result")),
        _ => ItemCode::from_wire(byte & 0x7f).ok_or(WireError::BadValue("item code")),
    }
}

/// A file of at most [`INLINE_BYTES_MAX`] bytes in one frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inline<'a> {
    /// The file's number in the list.
    pub file: u32,
    /// Mode and time as they are now.
    pub meta: Meta,
    /// Root of the content tree: the SHA-256 of `bytes`.
    pub root: [u8; 32],
    /// The whole content.
    pub bytes: &'a [u8],
}

impl<'a> Message<'a> for Inline<'a> {
    const KIND: FrameType = FrameType::Inline;

    fn encode_payload(&self, writer: &mut Writer) {
        writer.u32(self.file);
        writer.meta(&self.meta);
        writer.raw(&self.root);
        writer.raw(self.bytes);
    }

    fn decode_payload(reader: &mut Reader<'a>) -> Result<Self, WireError> {
        let (file, meta, root) = (reader.u32()?, reader.meta()?, reader.array()?);
        let bytes = reader.take_rest();
        if bytes.len() as u64 > INLINE_BYTES_MAX {
            return Err(WireError::OverLimit("inline file"));
        }
        Ok(Inline {
            file,
            meta,
            root,
            bytes,
        })
    }
}

/// The sender has listed everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListEnd {
    /// Entries offered.
    pub entries: u32,
    /// Every directory could be read: only then may anything be deleted.
    pub complete: bool,
    /// Mode and time of the directory whose contents were listed, for the directory that they go to.
    pub top: Option<Meta>,
}

impl<'a> Message<'a> for ListEnd {
    const KIND: FrameType = FrameType::ListEnd;

    fn encode_payload(&self, writer: &mut Writer) {
        writer.u32(self.entries);
        writer.u8(u8::from(self.complete) | u8::from(self.top.is_some()) << 1);
        if let Some(meta) = &self.top {
            writer.meta(meta);
        }
    }

    fn decode_payload(reader: &mut Reader<'a>) -> Result<Self, WireError> {
        let entries = reader.u32()?;
        let bits = reader.u8()?;
        if bits > 3 {
            return Err(WireError::BadValue("flag"));
        }
        let top = if bits & 2 != 0 { Some(reader.meta()?) } else { None };
        Ok(ListEnd {
            entries,
            complete: bits & 1 != 0,
            top,
        })
    }
}

/// An entry that the sender cannot read; the list goes on without it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SourceFailed<'a> {
    /// The path as it stands at the sender, not parsed: it is only shown.
    pub path: &'a [u8],
    /// Why.
    pub code: ItemCode,
}

impl<'a> Message<'a> for SourceFailed<'a> {
    const KIND: FrameType = FrameType::SourceFailed;

    fn encode_payload(&self, writer: &mut Writer) {
        writer.u8(self.code as u8);
        writer.bytes(&self.path[..self.path.len().min(PATH_BYTES_MAX)]);
    }

    fn decode_payload(reader: &mut Reader<'a>) -> Result<Self, WireError> {
        let code = ItemCode::from_wire(reader.u8()?).ok_or(WireError::BadValue("item code"))?;
        Ok(SourceFailed {
            code,
            path: reader.bytes(PATH_BYTES_MAX, "path")?,
        })
    }
}

/// Something that the receiver could not do, apart from files that were wanted: delete an entry, set the
/// metadata of a directory, make the end of the transfer durable. Between the list's end and the finish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TargetFailed<'a> {
    /// The path as it stands at the receiver, not parsed: it is only shown.
    pub path: &'a [u8],
    /// Why.
    pub code: ItemCode,
}

impl<'a> Message<'a> for TargetFailed<'a> {
    const KIND: FrameType = FrameType::TargetFailed;

    fn encode_payload(&self, writer: &mut Writer) {
        SourceFailed {
            path: self.path,
            code: self.code,
        }
        .encode_payload(writer);
    }

    fn decode_payload(reader: &mut Reader<'a>) -> Result<Self, WireError> {
        let SourceFailed { path, code } = SourceFailed::decode_payload(reader)?;
        Ok(TargetFailed { path, code })
    }
}

/// The receiver has settled everything: the transfer is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// All done; so many entries were deleted.
    Done {
        /// Entries removed, or with a dry run: that would be.
        deleted: u64,
    },
    /// More would have to be deleted than the brake allows; nothing was.
    MassDelete {
        /// Entries that would go.
        deletions: u64,
        /// Entries that are there.
        existing: u64,
    },
    /// The list or the target could not be read completely: nothing was deleted.
    Incomplete,
}

impl<'a> Message<'a> for Finish {
    const KIND: FrameType = FrameType::Finish;

    fn encode_payload(&self, writer: &mut Writer) {
        let (tag, first, second) = match *self {
            Finish::Done { deleted } => (0, deleted, 0),
            Finish::MassDelete { deletions, existing } => (1, deletions, existing),
            Finish::Incomplete => (2, 0, 0),
        };
        writer.u8(tag);
        writer.varint(first);
        writer.varint(second);
    }

    fn decode_payload(reader: &mut Reader<'a>) -> Result<Self, WireError> {
        match (reader.u8()?, reader.varint()?, reader.varint()?) {
            (0, deleted, 0) => Ok(Finish::Done { deleted }),
            (1, deletions, existing) => Ok(Finish::MassDelete { deletions, existing }),
            (2, 0, 0) => Ok(Finish::Incomplete),
            _ => Err(WireError::BadValue("result")),
        }
    }
}

/// Collects the paths of deleted entries into one frame.
#[derive(Debug, Default)]
pub struct RemovedWriter {
    writer: Writer,
    count: usize,
}

impl RemovedWriter {
    /// Adds a path; `true` when the frame should be sent before more is added.
    pub fn push(&mut self, path: &RelPath) -> bool {
        self.writer.bytes(path.as_bytes());
        self.count += 1;
        self.count == BATCH_ENTRIES_MAX || self.writer.len() > CONTROL_FRAME_BYTES_MAX / 8
    }

    /// Appends the frame, unless it is empty, and starts a new one.
    pub fn flush(&mut self, stream: u16, out: &mut Vec<u8>) {
        let done = std::mem::take(self);
        if done.count > 0 {
            let mut head = Writer::new();
            head.varint(done.count as u64);
            out.extend_from_slice(&control_header(
                FrameType::Removed,
                stream,
                head.len() + done.writer.len(),
            ));
            out.extend_from_slice(&head.into_bytes());
            out.extend_from_slice(&done.writer.into_bytes());
        }
    }
}

/// The paths of a removed frame.
pub type RemovedReader<'a> = PathsReader<'a>;

/// Frames whose payload is nothing or a number.
pub(crate) fn encode_number(kind: FrameType, stream: u16, number: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(&control_header(kind, stream, 8));
    out.extend_from_slice(&number.to_le_bytes());
}
