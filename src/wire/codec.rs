//! Reading and writing of fields: fixed integers (little endian), varints (LEB128), byte strings.
//!
//! Invariant: a [`Reader`] never reads past its slice and never allocates; every length is checked
//! against the bytes that are really there and against the limit that the caller names.

use crate::model::{Meta, RelPath, Timestamp};

/// Why bytes are not the message that they claim to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The frame ended within a field.
    #[error("a message that ends too early")]
    Truncated,
    /// Bytes after the last field.
    #[error("bytes after the end of a message")]
    Trailing,
    /// A frame type that is not defined.
    #[error("the unknown frame type {0}")]
    UnknownType(u8),
    /// A frame, length or count over its limit.
    #[error("a {0} over its limit")]
    OverLimit(&'static str),
    /// A field with a value that has no meaning.
    #[error("a {0} without meaning")]
    BadValue(&'static str),
    /// Reserved bits that are not zero, or a wrong stream number.
    #[error("a bad frame header")]
    BadHeader,
    /// A path that breaks a rule of [`RelPath`].
    #[error("an illegal path")]
    BadPath,
}

/// Takes fields off the front of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads from the start of `bytes`.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes }
    }

    /// Whether everything has been read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Ends the message.
    ///
    /// # Errors
    /// [`WireError::Trailing`] when bytes are left.
    pub fn finish(self) -> Result<(), WireError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(WireError::Trailing)
        }
    }

    /// The next `length` bytes.
    ///
    /// # Errors
    /// [`WireError::Truncated`] when there are fewer.
    pub fn take(&mut self, length: usize) -> Result<&'a [u8], WireError> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(WireError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    /// Everything that is left.
    pub fn take_rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    /// A fixed-size array.
    ///
    /// # Errors
    /// [`WireError::Truncated`] when there are fewer bytes.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(WireError::Truncated)?;
        self.rest = rest;
        Ok(*taken)
    }

    /// One byte.
    ///
    /// # Errors
    /// [`WireError::Truncated`] at the end.
    pub fn u8(&mut self) -> Result<u8, WireError> {
        Ok(self.array::<1>()?[0])
    }

    /// Two bytes, little endian.
    ///
    /// # Errors
    /// [`WireError::Truncated`] at the end.
    pub fn u16(&mut self) -> Result<u16, WireError> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    /// Four bytes, little endian.
    ///
    /// # Errors
    /// [`WireError::Truncated`] at the end.
    pub fn u32(&mut self) -> Result<u32, WireError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// Eight bytes, little endian.
    ///
    /// # Errors
    /// [`WireError::Truncated`] at the end.
    pub fn u64(&mut self) -> Result<u64, WireError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// An unsigned LEB128 number of at most 10 bytes, in its shortest form.
    ///
    /// # Errors
    /// [`WireError::Truncated`] at the end, [`WireError::BadValue`] above 64 bits or with a
    /// superfluous zero byte.
    pub fn varint(&mut self) -> Result<u64, WireError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(WireError::BadValue("number"));
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                let superfluous = byte == 0 && shift > 0;
                return if superfluous {
                    Err(WireError::BadValue("number"))
                } else {
                    Ok(value)
                };
            }
        }
        Err(WireError::BadValue("number"))
    }

    /// A varint that counts things, at most `limit`.
    ///
    /// # Errors
    /// [`WireError::OverLimit`] naming `what`, and those of [`Reader::varint`].
    pub fn count(&mut self, limit: usize, what: &'static str) -> Result<usize, WireError> {
        let value = self.varint()?;
        match usize::try_from(value) {
            Ok(count) if count <= limit => Ok(count),
            _ => Err(WireError::OverLimit(what)),
        }
    }

    /// A byte string: its length as varint, at most `limit`, then the bytes.
    ///
    /// # Errors
    /// [`WireError::OverLimit`] naming `what`, [`WireError::Truncated`].
    pub fn bytes(&mut self, limit: usize, what: &'static str) -> Result<&'a [u8], WireError> {
        let length = self.count(limit, what)?;
        self.take(length)
    }

    /// A byte string that is UTF-8.
    ///
    /// # Errors
    /// Those of [`Reader::bytes`], and [`WireError::BadValue`] for other bytes.
    pub fn text(&mut self, limit: usize, what: &'static str) -> Result<&'a str, WireError> {
        std::str::from_utf8(self.bytes(limit, what)?).map_err(|_| WireError::BadValue(what))
    }

    /// A path; an empty string is the root.
    ///
    /// # Errors
    /// [`WireError::BadPath`] for an illegal path, and those of [`Reader::bytes`].
    pub fn path_or_root(&mut self) -> Result<Option<RelPath>, WireError> {
        match self.bytes(crate::model::limits::PATH_BYTES_MAX, "path")? {
            b"" => Ok(None),
            bytes => RelPath::parse(bytes).map(Some).map_err(|_| WireError::BadPath),
        }
    }

    /// Mode (u16, masked bits only) and modification time (i64 seconds, u32 nanoseconds).
    ///
    /// # Errors
    /// [`WireError::BadValue`] for mode bits outside the mask or nanoseconds above a second.
    pub fn meta(&mut self) -> Result<Meta, WireError> {
        let mode = u32::from(self.u16()?);
        let seconds = i64::from_le_bytes(self.array()?);
        let nanos = self.u32()?;
        if mode & !Meta::MODE_MASK != 0 {
            return Err(WireError::BadValue("mode"));
        }
        if nanos >= 1_000_000_000 {
            return Err(WireError::BadValue("time"));
        }
        Ok(Meta {
            mode,
            mtime: Timestamp { seconds, nanos },
        })
    }
}

/// Appends fields to a message.
#[derive(Debug, Default)]
pub struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// An empty message.
    #[must_use]
    pub fn new() -> Writer {
        Writer::default()
    }

    /// Goes on after `bytes`, which stay as they are.
    #[must_use]
    pub fn after(bytes: Vec<u8>) -> Writer {
        Writer { bytes }
    }

    /// Bytes written so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing was written yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The message.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// One byte.
    pub fn u8(&mut self, value: u8) {
        self.bytes.push(value);
    }

    /// Two bytes, little endian.
    pub fn u16(&mut self, value: u16) {
        self.raw(&value.to_le_bytes());
    }

    /// Four bytes, little endian.
    pub fn u32(&mut self, value: u32) {
        self.raw(&value.to_le_bytes());
    }

    /// Eight bytes, little endian.
    pub fn u64(&mut self, value: u64) {
        self.raw(&value.to_le_bytes());
    }

    /// Bytes without a length.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// An unsigned LEB128 number in its shortest form.
    pub fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.bytes.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
    }

    /// A byte string with its length.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.varint(bytes.len() as u64);
        self.raw(bytes);
    }

    /// A path; `None` is the root.
    pub fn path_or_root(&mut self, path: Option<&RelPath>) {
        self.bytes(path.map_or(&[], RelPath::as_bytes));
    }

    /// Mode and modification time.
    pub fn meta(&mut self, meta: &Meta) {
        self.u16((meta.mode & Meta::MODE_MASK) as u16);
        self.raw(&meta.mtime.seconds.to_le_bytes());
        self.u32(meta.mtime.nanos);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbers_round_trip_in_their_shortest_form(value: u64) {
            let mut writer = Writer::new();
            writer.varint(value);
            let bytes = writer.into_bytes();
            let mut reader = Reader::new(&bytes);
            prop_assert_eq!(reader.varint(), Ok(value));
            prop_assert_eq!(reader.finish(), Ok(()));
        }
    }

    #[test]
    fn numbers_that_overflow_or_are_padded_are_refused() {
        assert_eq!(Reader::new(&[0xff; 10]).varint(), Err(WireError::BadValue("number")));
        assert_eq!(Reader::new(&[0xff; 9]).varint(), Err(WireError::Truncated));
        assert_eq!(Reader::new(&[0x80, 0]).varint(), Err(WireError::BadValue("number")));
        let too_big = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02];
        assert_eq!(Reader::new(&too_big).varint(), Err(WireError::BadValue("number")));
    }

    #[test]
    fn a_declared_length_is_checked_against_limit_and_content() {
        let huge = [0xff, 0xff, 0xff, 0xff, 0x0f, b'x'];
        assert_eq!(Reader::new(&huge).bytes(100, "name"), Err(WireError::OverLimit("name")));
        assert_eq!(Reader::new(&[5, b'x']).bytes(100, "name"), Err(WireError::Truncated));
    }

    #[test]
    fn metadata_outside_its_range_is_refused() {
        let meta = Meta {
            mode: 0o755,
            mtime: Timestamp {
                seconds: -1,
                nanos: 999_999_999,
            },
        };
        let mut writer = Writer::new();
        writer.meta(&meta);
        let mut bytes = writer.into_bytes();
        assert_eq!(Reader::new(&bytes).meta(), Ok(meta));
        bytes[1] = 0x08;
        assert_eq!(Reader::new(&bytes).meta(), Err(WireError::BadValue("mode")));
        bytes[1] = 0;
        bytes[10..14].copy_from_slice(&1_000_000_000u32.to_le_bytes());
        assert_eq!(Reader::new(&bytes).meta(), Err(WireError::BadValue("time")));
    }
}
