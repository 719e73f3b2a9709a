//! The messages of a delta transfer: what the receiver has, what the sender asks of it, a patch; and of
//! one that goes on where it broke off.
//!
//! Bodies of asks and tells are passed through: their bytes belong to whoever compares.

use super::codec::{Reader, WireError, Writer};
use super::frame::FrameType;
use super::message::{Message, file_size, flag};
use crate::model::limits::TELL_BYTES_MAX;
use crate::model::{ContentId, Meta};

/// Receiver: which content the file has there that is to be replaced. Comes before the answer that
/// wants the file; again, with what was pieced together, before a resend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Basis {
    /// The file's number.
    pub file: u32,
    /// Its content there.
    pub id: ContentId,
}

impl<'a> Message<'a> for Basis {
    const KIND: FrameType = FrameType::Basis;

    fn encode_payload(&self, writer: &mut Writer) {
        writer.u32(self.file);
        encode_id(&self.id, writer);
    }

    fn decode_payload(reader: &mut Reader<'a>) -> Result<Self, WireError> {
        let (file, id) = (reader.u32()?, decode_id(reader)?);
        Ok(Basis { file, id })
    }
}

/// Receiver: the beginning of a file is here already, from a transfer that broke off. Comes before the
/// answer that wants the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Partial {
    /// The file's number.
    pub file: u32,
    /// What of it is there: its first `length` bytes, not none.
    pub id: ContentId,
}

impl<'a> Message<'a> for Partial {
    const KIND: FrameType = FrameType::Partial;

    fn encode_payload(&self, writer: &mut Writer) {
        writer.u32(self.file);
        encode_id(&self.id, writer);
    }

    fn decode_payload(reader: &mut Reader<'a>) -> Result<Self, WireError> {
        let (file, id) = (reader.u32()?, decode_id(reader)?);
        if id.length == 0 {
            return Err(WireError::BadValue("partial file"));
        }
        Ok(Partial { file, id })
    }
}

/// Sender: the file begins with what the receiver named as partial; the start that follows is of the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resume {
    /// The file's number.
    pub file: u32,
}

impl<'a> Message<'a> for Resume {
    const KIND: FrameType = FrameType::Resume;

    fn encode_payload(&self, writer: &mut Writer) {
        writer.u32(self.file);
    }

    fn decode_payload(reader: &mut Reader<'a>) -> Result<Self, WireError> {
        Ok(Resume { file: reader.u32()? })
    }
}

fn encode_id(id: &ContentId, writer: &mut Writer) {
    writer.varint(id.length);
    writer.raw(&id.root);
}

fn decode_id(reader: &mut Reader<'_>) -> Result<ContentId, WireError> {
    let length = file_size(reader)?;
    let root = reader.array()?;
    Ok(ContentId { length, root })
}

/// What can be asked about a basis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Topic {
    /// Signatures of its blocks.
    Signature = 0,
    /// The upper nodes of its tree and a few anchors.
    Tree = 1,
    /// Leaves below some of the nodes.
    Leaves = 2,
    /// CRCs of some of the leaves.
    Blocks = 3,
    /// Its whole delta index.
    Index = 4,
}

impl Topic {
    /// Every topic.
    pub const ALL: [Topic; 5] = [
        Topic::Signature,
        Topic::Tree,
        Topic::Leaves,
        Topic::Blocks,
        Topic::Index,
    ];

    fn decode(reader: &mut Reader<'_>) -> Result<Topic, WireError> {
        let number = reader.u8()?;
        let found = Topic::ALL.into_iter().find(|topic| *topic as u8 == number);
        found.ok_or(WireError::BadValue("topic"))
    }
}

/// Sender: a question about the basis of a wanted file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ask<'a> {
    /// The file's number.
    pub file: u32,
    /// What about.
    pub topic: Topic,
    /// Which parts, in the words of the topic.
    pub body: &'a [u8],
}

impl<'a> Message<'a> for Ask<'a> {
    const KIND: FrameType = FrameType::Ask;

    fn encode_payload(&self, writer: &mut Writer) {
        writer.u32(self.file);
        writer.u8(self.topic as u8);
        writer.raw(self.body);
    }

    fn decode_payload(reader: &mut Reader<'a>) -> Result<Self, WireError> {
        let (file, topic) = (reader.u32()?, Topic::decode(reader)?);
        let body = limited(reader.take_rest())?;
        Ok(Ask { file, topic, body })
    }
}

/// Receiver: a piece of the answer to an ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tell<'a> {
    /// The file's number.
    pub file: u32,
    /// What about.
    pub topic: Topic,
    /// Whether the answer ends here.
    pub last: bool,
    /// The next bytes of the answer.
    pub body: &'a [u8],
}

impl<'a> Message<'a> for Tell<'a> {
    const KIND: FrameType = FrameType::Tell;

    fn encode_payload(&self, writer: &mut Writer) {
        writer.u32(self.file);
        writer.u8(self.topic as u8);
        writer.u8(u8::from(self.last));
        writer.raw(self.body);
    }

    fn decode_payload(reader: &mut Reader<'a>) -> Result<Self, WireError> {
        let (file, topic, last) = (reader.u32()?, Topic::decode(reader)?, flag(reader)?);
        let body = limited(reader.take_rest())?;
        Ok(Tell {
            file,
            topic,
            last,
            body,
        })
    }
}

fn limited(body: &[u8]) -> Result<&[u8], WireError> {
    if body.len() > TELL_BYTES_MAX {
        Err(WireError::OverLimit("body"))
    } else {
        Ok(body)
    }
}

/// How the bytes of a patch are to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum PatchForm {
    /// A delta plan, as it is.
    Plan = 0,
    /// A delta plan in compressed blocks.
    Squeezed = 1,
    /// The content, compressed with the basis before it.
    Prefix = 2,
}

/// The sender starts a file as a patch of the receiver's basis; data frames with the plan follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patch {
    /// The file's number.
    pub file: u32,
    /// The length of the result in bytes.
    pub size: u64,
    /// Mode and time as they are now.
    pub meta: Meta,
    /// What it applies to.
    pub basis: ContentId,
    /// How the plan stands in the data frames.
    pub form: PatchForm,
}

impl<'a> Message<'a> for Patch {
    const KIND: FrameType = FrameType::Patch;

    fn encode_payload(&self, writer: &mut Writer) {
        writer.u32(self.file);
        writer.varint(self.size);
        writer.meta(&self.meta);
        encode_id(&self.basis, writer);
        writer.u8(self.form as u8);
    }

    fn decode_payload(reader: &mut Reader<'a>) -> Result<Self, WireError> {
        let file = reader.u32()?;
        let size = file_size(reader)?;
        let meta = reader.meta()?;
        let basis = decode_id(reader)?;
        let form = match reader.u8()? {
            0 => PatchForm::Plan,
            1 => PatchForm::Squeezed,
            2 => PatchForm::Prefix,
            _ => return Err(WireError::BadValue("form")),
        };
        Ok(Patch {
            file,
            size,
            meta,
            basis,
            form,
        })
    }
}
