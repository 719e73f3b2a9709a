//! `Record`: what the index knows of one path, and its form in the file.
//!
//! Touches no file. The byte table is in `docs/FORMAT.md`; version 1 is frozen by a fixture. Invariant:
//! a record is read whole or not at all, and what was read is written back as the same bytes.

use crate::model::limits::{FILE_BYTES_MAX, SYMLINK_BYTES_MAX};
use crate::model::{DeviceId, Kind, Meta, Revision, State, Timestamp};
use crate::store::facts::Identity;

/// What is known of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// What stands there; `None` is a tombstone.
    pub state: Option<State>,
    /// The change that made it so.
    pub revision: Revision,
    /// The device that the change came from, if it was one.
    pub author: Option<DeviceId>,
    /// What a `stat` of it said when it was taken into the index; `None` when it is not on this disk.
    pub identity: Option<Identity>,
    /// When that was, for people to read: it orders nothing.
    pub at: Timestamp,
}

/// A record that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) struct BadRecord;

const VERSION: u8 = 1;

const KIND_TOMBSTONE: u8 = 0;
const KIND_FILE: u8 = 1;
const KIND_DIRECTORY: u8 = 2;
const KIND_SYMLINK: u8 = 3;
const KIND_BITS: u8 = 0b11;
const HAS_ROOT: u8 = 1 << 2;
const HAS_AUTHOR: u8 = 1 << 3;
const HAS_IDENTITY: u8 = 1 << 4;
/// Size and modification time of the identity are those of the state.
const IDENTITY_AS_STATE: u8 = 1 << 5;
const FLAGS: u8 = KIND_BITS | HAS_ROOT | HAS_AUTHOR | HAS_IDENTITY | IDENTITY_AS_STATE;

const NANOS_END: u32 = 1_000_000_000;

impl Record {
    /// Whether something stands there.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.state.is_some()
    }

    /// The form in the file.
    pub(in crate::store) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(128);
        out.extend([VERSION, self.flags()]);
        put_varint(&mut out, self.revision.0);
        put_time(&mut out, self.at);
        if let Some(state) = &self.state {
            out.extend(((state.meta.mode & Meta::MODE_MASK) as u16).to_le_bytes());
            put_time(&mut out, state.meta.mtime);
            match &state.kind {
                Kind::File { size } => put_varint(&mut out, *size),
                Kind::Directory => {}
                Kind::Symlink { target } => {
                    put_varint(&mut out, target.len() as u64);
                    out.extend_from_slice(target);
                }
            }
            out.extend(state.root.iter().flatten());
        }
        out.extend(self.author.iter().flat_map(|author| author.0));
        if let Some(identity) = &self.identity {
            let (device, ctime) = identity.device_and_ctime();
            put_varint(&mut out, device);
            put_varint(&mut out, identity.inode());
            put_time(&mut out, ctime);
            if self.flags() & IDENTITY_AS_STATE == 0 {
                put_varint(&mut out, identity.size());
                put_time(&mut out, identity.mtime());
            }
        }
        out
    }

    fn flags(&self) -> u8 {
        let kind = match self.state.as_ref().map(|state| &state.kind) {
            None => KIND_TOMBSTONE,
            Some(Kind::File { .. }) => KIND_FILE,
            Some(Kind::Directory) => KIND_DIRECTORY,
            Some(Kind::Symlink { .. }) => KIND_SYMLINK,
        };
        let flag = |set: bool, bit: u8| if set { bit } else { 0 };
        let has_root = self.state.as_ref().is_some_and(|state| state.root.is_some());
        kind | flag(has_root, HAS_ROOT)
            | flag(self.author.is_some(), HAS_AUTHOR)
            | flag(self.identity.is_some(), HAS_IDENTITY)
            | flag(self.identity_is_as_state(), IDENTITY_AS_STATE)
    }

    fn identity_is_as_state(&self) -> bool {
        let (Some(identity), Some(state)) = (&self.identity, &self.state) else {
            return false;
        };
        let size = matches!(state.kind, Kind::File { size } if size == identity.size());
        size && state.meta.mtime == identity.mtime()
    }

    /// Reads what [`encode`](Self::encode) made, and nothing else.
    pub(in crate::store) fn decode(bytes: &[u8]) -> Result<Record, BadRecord> {
        let mut rest = bytes;
        let (flags, revision) = take_head(&mut rest)?;
        let at = take_time(&mut rest)?;
        let state = take_state(&mut rest, flags)?;
        let author = match flags & HAS_AUTHOR {
            0 => None,
            _ => Some(DeviceId(take_array(&mut rest)?)),
        };
        let identity = match flags & HAS_IDENTITY {
            0 => None,
            _ => Some(take_identity(&mut rest, flags, state.as_ref())?),
        };
        let record = Record {
            state,
            revision,
            author,
            identity,
            at,
        };
        // The flags follow from the rest: one record has one form.
        if rest.is_empty() && record.flags() == flags {
            Ok(record)
        } else {
            Err(BadRecord)
        }
    }

    /// Revision, and whether something stands there, of a record in its form.
    pub(super) fn peek(bytes: &[u8]) -> Result<(Revision, bool), BadRecord> {
        let mut rest = bytes;
        let (flags, revision) = take_head(&mut rest)?;
        Ok((revision, flags & KIND_BITS != KIND_TOMBSTONE))
    }
}

fn take_head(rest: &mut &[u8]) -> Result<(u8, Revision), BadRecord> {
    let [version, flags] = take_array(rest)?;
    if version != VERSION || flags & !FLAGS != 0 {
        return Err(BadRecord);
    }
    Ok((flags, Revision(take_varint(rest)?)))
}

fn take_state(rest: &mut &[u8], flags: u8) -> Result<Option<State>, BadRecord> {
    let kind = flags & KIND_BITS;
    if kind == KIND_TOMBSTONE {
        return Ok(None);
    }
    let mode = u32::from(u16::from_le_bytes(take_array(rest)?));
    let mtime = take_time(rest)?;
    if mode & !Meta::MODE_MASK != 0 {
        return Err(BadRecord);
    }
    let kind = match kind {
        KIND_FILE => match take_varint(rest)? {
            size @ 0..=FILE_BYTES_MAX => Kind::File { size },
            _ => return Err(BadRecord),
        },
        KIND_DIRECTORY => Kind::Directory,
        _ => Kind::Symlink {
            target: take_target(rest)?,
        },
    };
    let root = match flags & HAS_ROOT {
        0 => None,
        _ => Some(take_array(rest)?),
    };
    let meta = Meta { mode, mtime };
    Ok(Some(State { kind, meta, root }))
}

fn take_target(rest: &mut &[u8]) -> Result<Box<[u8]>, BadRecord> {
    let length = usize::try_from(take_varint(rest)?).map_err(|_| BadRecord)?;
    if length == 0 || length > SYMLINK_BYTES_MAX {
        return Err(BadRecord);
    }
    match take(rest, length)? {
        target if target.contains(&0) => Err(BadRecord),
        target => Ok(target.into()),
    }
}

fn take_identity(rest: &mut &[u8], flags: u8, state: Option<&State>) -> Result<Identity, BadRecord> {
    let device = take_varint(rest)?;
    let inode = take_varint(rest)?;
    let ctime = take_time(rest)?;
    let (size, mtime) = if flags & IDENTITY_AS_STATE == 0 {
        (take_varint(rest)?, take_time(rest)?)
    } else {
        match state.map(|state| (&state.kind, state.meta.mtime)) {
            Some((Kind::File { size }, mtime)) => (*size, mtime),
            _ => return Err(BadRecord),
        }
    };
    Ok(Identity::of_parts(device, inode, size, mtime, ctime))
}

fn put_time(out: &mut Vec<u8>, time: Timestamp) {
    let seconds = time.seconds;
    put_varint(out, (seconds << 1 ^ seconds >> 63).cast_unsigned());
    out.extend(time.nanos.to_le_bytes());
}

fn take_time(rest: &mut &[u8]) -> Result<Timestamp, BadRecord> {
    let zigzag = take_varint(rest)?;
    let nanos = u32::from_le_bytes(take_array(rest)?);
    if nanos >= NANOS_END {
        return Err(BadRecord);
    }
    let seconds = (zigzag >> 1).cast_signed() ^ -(zigzag & 1).cast_signed();
    Ok(Timestamp { seconds, nanos })
}

/// Seven bits a byte, the lowest first; the top bit says that more follow.
fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// The shortest form only.
fn take_varint(rest: &mut &[u8]) -> Result<u64, BadRecord> {
    let mut value = 0;
    for shift in (0..u64::BITS).step_by(7) {
        let [byte] = take_array(rest)?;
        let bits = u64::from(byte & 0x7f);
        if bits << shift >> shift != bits || (byte == 0 && shift > 0) {
            return Err(BadRecord);
        }
        value |= bits << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(BadRecord)
}

fn take_array<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], BadRecord> {
    let (taken, left) = rest.split_first_chunk().ok_or(BadRecord)?;
    *rest = left;
    Ok(*taken)
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Result<&'a [u8], BadRecord> {
    let (taken, left) = rest.split_at_checked(length).ok_or(BadRecord)?;
    *rest = left;
    Ok(taken)
}

#[cfg(test)]
#[path = "record_tests.rs"]
mod tests;
