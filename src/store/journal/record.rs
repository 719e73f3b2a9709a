//! One record of the journal, and the header, as bytes and back: the tables of `docs/FORMAT.md`.
//!
//! Touches no file. Invariants: what is decoded was encoded so, byte for byte, under the same epoch;
//! every path goes through [`RelPath::parse`]; nothing inside a record passes for another one, since
//! epochs and sequences are small numbers with zero bytes, paths have none, and hashes cannot be chosen.

use super::boot::Boot;
use super::subject::{Incoming, PlanBasis, Reached, Subject, TransferId, Unfinished};
use crate::model::limits::{FILE_BYTES_MAX, JOURNAL_RUNS_MAX, LEAF_BYTES};
use crate::model::{ContentId, DeviceId, RelPath, Timestamp};
use crate::store::facts::Identity;
use crate::wire::{Reader, WireError, Writer};
use std::ops::RangeInclusive;

/// The first bytes of a journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    /// One more with each file that takes the place of another.
    pub(super) epoch: u32,
    /// Under which claims in the file were made, unless they are marked.
    pub(super) boot: Boot,
}

/// Why there is no header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HeaderFault {
    Damaged,
    Version(u32),
}

/// Which record of which file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) epoch: u32,
    /// 1 for the first record of a file.
    pub(super) sequence: u64,
}

/// What a record says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Record {
    /// A transfer begins, with nothing reached.
    Begin(Unfinished),
    /// How far one is.
    Reach {
        id: TransferId,
        touched: i64,
        proven: bool,
        reached: Reached,
    },
    /// One has ended.
    End(TransferId),
}

/// Bytes that look like a record; its checksum is not looked at yet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate<'a> {
    pub(super) stamp: Stamp,
    pub(super) bytes: &'a [u8],
}

const MAGIC: [u8; 8] = *b"SYNCJRNL";
const VERSION: u32 = 1;
pub(super) const HEADER_BYTES: usize = 44;

/// Length, epoch, sequence, type.
const HEAD_BYTES: usize = 15;
const CRC_BYTES: usize = 4;
/// Bytes of a record that ends a transfer, the shortest there is.
pub(super) const END_BYTES: usize = HEAD_BYTES + 8 + CRC_BYTES;
/// Bytes of a record at most: a begin with the longest path has 4,278.
pub(super) const RECORD_BYTES_MAX: usize = 4_608;

const BEGIN: u8 = 1;
const REACH: u8 = 2;
const END: u8 = 3;

/// The file leaves.
const OUTGOING: u8 = 1;
/// The sender is known.
const PEER: u8 = 2;
/// It is a patch.
const BASIS: u8 = 4;
/// Of a patch: it changes the basis itself.
const IN_PLACE: u8 = 8;
/// It was written under an earlier boot or mount than the header says.
const UNPROVEN: u8 = 128;

impl Stamp {
    /// For a record of which only the length matters.
    pub(super) const ANY: Stamp = Stamp { epoch: 0, sequence: 0 };

    /// Gives a finished record this stamp instead of its own.
    pub(super) fn put(self, record: &mut [u8]) {
        record[2..6].copy_from_slice(&self.epoch.to_le_bytes());
        record[6..14].copy_from_slice(&self.sequence.to_le_bytes());
        let (content, crc) = record.split_at_mut(record.len() - CRC_BYTES);
        crc.copy_from_slice(&crc32fast::hash(content).to_le_bytes());
    }
}

impl Header {
    pub(super) fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.epoch.to_le_bytes());
        bytes[16..32].copy_from_slice(&self.boot.id);
        bytes[32..40].copy_from_slice(&self.boot.mount.to_le_bytes());
        let crc = crc32fast::hash(&bytes[..40]);
        bytes[40..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    pub(super) fn parse(bytes: &[u8; HEADER_BYTES]) -> Result<Header, HeaderFault> {
        let (content, crc) = bytes.split_at(HEADER_BYTES - CRC_BYTES);
        if content[..8] != MAGIC || crc != crc32fast::hash(content).to_le_bytes() {
            return Err(HeaderFault::Damaged);
        }
        let long = |at: usize| u32::from_le_bytes(content[at..at + 4].try_into().expect("four bytes"));
        match long(8) {
            VERSION => Ok(Header {
                epoch: long(12),
                boot: Boot {
                    id: content[16..32].try_into().expect("sixteen bytes"),
                    mount: u64::from_le_bytes(content[32..40].try_into().expect("eight bytes")),
                },
            }),
            version => Err(HeaderFault::Version(version)),
        }
    }
}

/// The record that `unfinished` begins with.
pub(super) fn begin(stamp: Stamp, unfinished: &Unfinished) -> Vec<u8> {
    let mut writer = start(stamp, BEGIN);
    writer.u64(unfinished.id.0);
    writer.varint(unfinished.touched.max(0).cast_unsigned());
    let unproven = if unfinished.proven { 0 } else { UNPROVEN };
    match &unfinished.subject {
        Subject::Outgoing(identity) => {
            writer.u8(OUTGOING | unproven);
            writer.raw(&identity.to_bytes());
        }
        Subject::Incoming(incoming) => {
            let in_place = incoming.basis.is_some_and(|basis| basis.in_place);
            let flag = |set: bool, flag: u8| if set { flag } else { 0 };
            let flags =
                flag(incoming.peer.is_some(), PEER) | flag(incoming.basis.is_some(), BASIS) | flag(in_place, IN_PLACE);
            writer.u8(flags | unproven);
            writer.varint(incoming.size);
            writer.u64(incoming.mtime.seconds.cast_unsigned());
            writer.u32(incoming.mtime.nanos);
            if let Some(peer) = &incoming.peer {
                writer.raw(&peer.0);
            }
            if let Some(basis) = &incoming.basis {
                writer.varint(basis.id.length);
                writer.raw(&basis.id.root);
                writer.raw(&basis.identity.to_bytes());
            }
            writer.raw(incoming.path.as_bytes());
        }
    }
    finish(writer)
}

/// The record of how far `unfinished` is.
pub(super) fn reach(stamp: Stamp, unfinished: &Unfinished) -> Vec<u8> {
    let mut writer = start(stamp, REACH);
    let reached = &unfinished.reached;
    writer.u64(unfinished.id.0);
    writer.varint(unfinished.touched.max(0).cast_unsigned());
    writer.u8(if unfinished.proven { 0 } else { UNPROVEN });
    writer.varint(reached.offset / LEAF_BYTES as u64);
    reached.frontier.iter().for_each(|root| writer.raw(root));
    writer.varint(reached.changed.len() as u64);
    let mut end = 0;
    for run in &reached.changed {
        writer.varint(run.start - end);
        writer.varint(run.end - run.start);
        end = run.end;
    }
    finish(writer)
}

/// The record that a transfer ends with.
pub(super) fn end(stamp: Stamp, id: TransferId) -> Vec<u8> {
    let mut writer = start(stamp, END);
    writer.u64(id.0);
    finish(writer)
}

fn start(stamp: Stamp, kind: u8) -> Writer {
    let mut writer = Writer::after(Vec::with_capacity(256));
    // The length comes last.
    writer.u16(0);
    writer.u32(stamp.epoch);
    writer.u64(stamp.sequence);
    writer.u8(kind);
    writer
}

fn finish(writer: Writer) -> Vec<u8> {
    let mut bytes = writer.into_bytes();
    let length = u16::try_from(bytes.len() + CRC_BYTES).expect("a path and 64 runs have less than 64 KiB");
    bytes[..2].copy_from_slice(&length.to_le_bytes());
    let crc = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes
}

/// A record at the start of `bytes`, by its length, and by its epoch and sequence if these are asked for.
pub(super) fn look<'a>(bytes: &'a [u8], epoch: Option<u32>, sequences: &RangeInclusive<u64>) -> Option<Candidate<'a>> {
    let length = usize::from(u16::from_le_bytes(*bytes.first_chunk()?));
    if !(END_BYTES..=RECORD_BYTES_MAX).contains(&length) {
        return None;
    }
    let bytes = bytes.get(..length)?;
    let stamp = Stamp {
        epoch: u32::from_le_bytes(bytes[2..6].try_into().ok()?),
        sequence: u64::from_le_bytes(bytes[6..14].try_into().ok()?),
    };
    let fits = epoch.is_none_or(|epoch| epoch == stamp.epoch)
        && sequences.contains(&stamp.sequence)
        && (BEGIN..=END).contains(&bytes[14]);
    fits.then_some(Candidate { stamp, bytes })
}

impl Candidate<'_> {
    /// What it says, if it is whole and has a meaning.
    pub(super) fn decode(&self) -> Option<Record> {
        let (content, crc) = self.bytes.split_last_chunk::<CRC_BYTES>()?;
        if *crc != crc32fast::hash(content).to_le_bytes() {
            return None;
        }
        let mut reader = Reader::new(&content[HEAD_BYTES..]);
        let record = match content[HEAD_BYTES - 1] {
            BEGIN => decode_begin(&mut reader),
            REACH => decode_reach(&mut reader),
            _ => reader.u64().map(|id| Record::End(TransferId(id))),
        };
        reader.finish().ok()?;
        record.ok().filter(|record| record.id().0 != 0)
    }
}

impl Record {
    fn id(&self) -> TransferId {
        match self {
            Record::Begin(unfinished) => unfinished.id,
            Record::Reach { id, .. } | Record::End(id) => *id,
        }
    }
}

fn decode_begin(reader: &mut Reader<'_>) -> Result<Record, WireError> {
    let id = TransferId(reader.u64()?);
    let touched = decode_seconds(reader)?;
    let flags = reader.u8()?;
    let subject = match flags & !UNPROVEN {
        OUTGOING => Subject::Outgoing(decode_identity(reader)?),
        flags if flags & !(PEER | BASIS | IN_PLACE) != 0 || flags & (BASIS | IN_PLACE) == IN_PLACE => {
            return Err(WireError::BadValue("flag"));
        }
        flags => Subject::Incoming(decode_incoming(reader, flags)?),
    };
    Ok(Record::Begin(Unfinished {
        id,
        subject,
        reached: Reached::default(),
        proven: flags & UNPROVEN == 0,
        touched,
    }))
}

fn decode_incoming(reader: &mut Reader<'_>, flags: u8) -> Result<Incoming, WireError> {
    let size = decode_size(reader)?;
    let mtime = Timestamp {
        seconds: reader.u64()?.cast_signed(),
        nanos: reader.u32()?,
    };
    if mtime.nanos >= 1_000_000_000 {
        return Err(WireError::BadValue("time"));
    }
    let peer = match flags & PEER {
        0 => None,
        _ => Some(DeviceId(reader.array()?)),
    };
    let basis = match flags & BASIS {
        0 => None,
        _ => Some(PlanBasis {
            id: ContentId {
                length: decode_size(reader)?,
                root: reader.array()?,
            },
            identity: decode_identity(reader)?,
            in_place: flags & IN_PLACE != 0,
        }),
    };
    let path = RelPath::parse(reader.take_rest()).map_err(|_| WireError::BadPath)?;
    Ok(Incoming {
        path,
        peer,
        size,
        mtime,
        basis,
    })
}

fn decode_reach(reader: &mut Reader<'_>) -> Result<Record, WireError> {
    let id = TransferId(reader.u64()?);
    let touched = decode_seconds(reader)?;
    let flags = reader.u8()?;
    if flags & !UNPROVEN != 0 {
        return Err(WireError::BadValue("flag"));
    }
    let leaves = reader.varint()?;
    let offset = leaves.checked_mul(LEAF_BYTES as u64);
    let offset = offset.ok_or(WireError::BadValue("offset"))?;
    let frontier = (0..leaves.count_ones())
        .map(|_| reader.array())
        .collect::<Result<_, _>>()?;
    let mut changed = Vec::new();
    let mut end = 0u64;
    for _ in 0..reader.count(JOURNAL_RUNS_MAX, "run")? {
        let start = end.checked_add(reader.varint()?);
        let start = start.ok_or(WireError::BadValue("run"))?;
        end = start.checked_add(reader.varint()?).ok_or(WireError::BadValue("run"))?;
        changed.push(start..end);
    }
    let reached = Reached {
        offset,
        frontier,
        changed,
    };
    if !reached.is_sound() {
        return Err(WireError::BadValue("position"));
    }
    Ok(Record::Reach {
        id,
        touched,
        proven: flags & UNPROVEN == 0,
        reached,
    })
}

fn decode_seconds(reader: &mut Reader<'_>) -> Result<i64, WireError> {
    i64::try_from(reader.varint()?).map_err(|_| WireError::BadValue("time"))
}

fn decode_size(reader: &mut Reader<'_>) -> Result<u64, WireError> {
    match reader.varint()? {
        size @ 0..=FILE_BYTES_MAX => Ok(size),
        _ => Err(WireError::BadValue("size")),
    }
}

fn decode_identity(reader: &mut Reader<'_>) -> Result<Identity, WireError> {
    Ok(Identity::from_bytes(&reader.array::<{ Identity::BYTES }>()?))
}

#[cfg(test)]
#[path = "record_tests.rs"]
mod tests;
