//! A whole content of up to 16 MiB, compressed as what follows on the contents of its basis.
//!
//! Never frames the result and never checks a root. The bytes are in `docs/PROTOCOL.md`, "Against the
//! basis". Invariant: a [`PrefixDecoder`] gives exactly the announced number of bytes, or a named error.
//!
//! 1. The encoder is a zstd compressor with the basis as its prefix and a window over both. Of the frame
//!    that it makes, the header stays behind.
//! 2. The decoder makes a header of its own, of a frame that holds the basis and the content. It puts the
//!    basis into it as stored blocks: then every reference of the blocks that came leads to what it
//!    would have in the prefix. So it never holds on to the basis, the size is known to zstd
//!    (which refuses any other), and the peer has no say in the window.
//!
//! Awkward cases: a basis or a content without bytes. Memory of an encoder: the basis, the content, and
//! tables; of a decoder: basis and content.

use super::codec::{PrefixPacker, Unpacker};
use crate::model::limits::MEDIUM_BYTES_MAX;

/// Bytes of the largest piece that comes out, and of a stored block.
pub const PIECE_BYTES: usize = 128 * 1024;
/// Of the frame that the encoder makes: magic, descriptor without any flag, window.
const FRAME_HEADER_BYTES: usize = 6;
const MAGIC: [u8; 4] = 0xFD2F_B528_u32.to_le_bytes();
/// Frame descriptor: a single segment, four bytes of length, neither checksum nor dictionary id.
const SINGLE_SEGMENT: u8 = 0b1010_0000;
/// Covers a basis and a content.
const WINDOW_LOG_MAX: u32 = 25;
/// See [`PrefixEncoder::new`].
pub const LEVEL: i32 = 3;

const _: () = assert!(2 * MEDIUM_BYTES_MAX == 1 << WINDOW_LOG_MAX);

/// The sending end.
pub struct PrefixEncoder {
    packer: PrefixPacker,
    header_left: usize,
    left: u64,
}

/// A content that cannot be compressed or restored against its basis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PrefixError {
    /// The basis or the content is larger than 16 MiB.
    #[error("a file is too large to be compressed against its basis")]
    Limit,
    /// Other bytes of the basis or content were given than were announced.
    #[error("the length of a basis or its file changed meanwhile")]
    Length,
    /// What came is damaged, too long or too short.
    #[error("a file that was compressed against its basis cannot be restored")]
    Damaged,
    /// Bytes follow on the end.
    #[error("bytes follow on a file that was compressed against its basis")]
    Trailing,
    /// No zstd in this build, or no memory for it.
    #[error("compression is not available")]
    Unavailable,
}

impl PrefixEncoder {
    /// For a content of `length` bytes that is much like `basis`, at the default level.
    ///
    /// # Errors
    /// [`PrefixError::Limit`] over 16 MiB, [`PrefixError::Unavailable`].
    pub fn new(basis: Vec<u8>, length: u64) -> Result<PrefixEncoder, PrefixError> {
        PrefixEncoder::with_level(basis, length, LEVEL)
    }

    /// As [`PrefixEncoder::new`], at a zstd level of 1 to 19.
    ///
    /// # Errors
    /// As there.
    pub fn with_level(basis: Vec<u8>, length: u64, level: i32) -> Result<PrefixEncoder, PrefixError> {
        check_limits(basis.len() as u64, length)?;
        let both = basis.len() as u64 + length;
        let window_log = both.max(1 << 10).next_power_of_two().trailing_zeros();
        let packer = PrefixPacker::new(basis, length, window_log, level).ok_or(PrefixError::Unavailable)?;
        Ok(PrefixEncoder {
            packer,
            header_left: FRAME_HEADER_BYTES,
            left: length,
        })
    }

    /// Takes more of the content and appends what is ready to `out`. The first call also reads the basis.
    ///
    /// # Errors
    /// [`PrefixError::Length`] when this is more than was announced.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), PrefixError> {
        self.left = self.left.checked_sub(bytes.len() as u64).ok_or(PrefixError::Length)?;
        let start = out.len();
        let pushed = self.packer.push(bytes, out);
        pushed.ok_or(PrefixError::Unavailable)?;
        drop_header(&mut self.header_left, start, out);
        Ok(())
    }

    /// Appends the rest to `out`.
    ///
    /// # Errors
    /// [`PrefixError::Length`] when less was given than was announced.
    pub fn finish(mut self, out: &mut Vec<u8>) -> Result<(), PrefixError> {
        if self.left > 0 {
            return Err(PrefixError::Length);
        }
        let start = out.len();
        self.packer.finish(out).ok_or(PrefixError::Unavailable)?;
        drop_header(&mut self.header_left, start, out);
        Ok(())
    }
}

fn drop_header(left: &mut usize, start: usize, out: &mut Vec<u8>) {
    let count = (*left).min(out.len() - start);
    out.drain(start..start + count);
    *left -= count;
}

fn check_limits(basis: u64, length: u64) -> Result<(), PrefixError> {
    match basis <= MEDIUM_BYTES_MAX && length <= MEDIUM_BYTES_MAX {
        true => Ok(()),
        false => Err(PrefixError::Limit),
    }
}

/// The receiving end.
pub struct PrefixDecoder {
    unpacker: Unpacker,
    basis_left: u64,
    left: u64,
    ended: bool,
    out: Vec<u8>,
}

impl PrefixDecoder {
    /// For a content of `length` bytes against a basis of `basis_length`.
    ///
    /// # Errors
    /// [`PrefixError::Limit`] over 16 MiB, [`PrefixError::Unavailable`].
    pub fn new(basis_length: u64, length: u64) -> Result<PrefixDecoder, PrefixError> {
        check_limits(basis_length, length)?;
        let unpacker = Unpacker::new(WINDOW_LOG_MAX).ok_or(PrefixError::Unavailable)?;
        let mut decoder = PrefixDecoder {
            unpacker,
            basis_left: basis_length,
            left: length,
            ended: false,
            out: vec![0; PIECE_BYTES],
        };
        let mut header = MAGIC.to_vec();
        header.push(SINGLE_SEGMENT);
        header.extend_from_slice(&((basis_length + length) as u32).to_le_bytes());
        decoder.store(&header, 0)?;
        Ok(decoder)
    }

    /// Takes the next bytes of the basis; all of them before the first [`PrefixDecoder::next`].
    ///
    /// # Errors
    /// [`PrefixError::Length`] when these are more than were announced.
    pub fn prime(&mut self, basis: &[u8]) -> Result<(), PrefixError> {
        let length = basis.len() as u64;
        self.basis_left = self.basis_left.checked_sub(length).ok_or(PrefixError::Length)?;
        for block in basis.chunks(PIECE_BYTES) {
            // A stored block: not the last one, type 0, length.
            let header = (block.len() as u32) << 3;
            self.store(&header.to_le_bytes()[..3], 0)?;
            self.store(block, block.len())?;
        }
        Ok(())
    }

    /// Feeds bytes of our own, of which `expected` come out again.
    fn store(&mut self, mut bytes: &[u8], expected: usize) -> Result<(), PrefixError> {
        let mut written = 0;
        while !bytes.is_empty() || written < expected {
            let unpacked = self.unpacker.unpack(&mut bytes, &mut self.out);
            // Only memory can be short: the bytes are ours.
            let unpacked = unpacked.ok_or(PrefixError::Unavailable)?;
            written += unpacked.written;
            debug_assert!(!unpacked.ended && written <= expected);
        }
        Ok(())
    }

    /// The next piece (1 to [`PIECE_BYTES`] bytes) of the content; takes from the front of `input` what it
    /// needs, and says `None` when that is used up.
    ///
    /// # Errors
    /// [`PrefixError`]; after it, this is of no more use.
    pub fn next<'a>(&'a mut self, input: &mut &[u8]) -> Result<Option<&'a [u8]>, PrefixError> {
        if self.basis_left > 0 {
            return Err(PrefixError::Length);
        }
        if self.ended {
            return match input.is_empty() {
                true => Ok(None),
                false => Err(PrefixError::Trailing),
            };
        }
        let unpacked = self.unpacker.unpack(input, &mut self.out).ok_or(PrefixError::Damaged)?;
        let written = unpacked.written;
        self.left = self.left.checked_sub(written as u64).ok_or(PrefixError::Damaged)?;
        self.ended = unpacked.ended;
        if self.ended && self.left > 0 {
            return Err(PrefixError::Damaged);
        }
        if self.ended && !input.is_empty() {
            return Err(PrefixError::Trailing);
        }
        Ok((written > 0).then_some(&self.out[..written]))
    }

    /// Whether the content is complete.
    ///
    /// # Errors
    /// [`PrefixError::Damaged`] when it is not.
    pub fn finish(&self) -> Result<(), PrefixError> {
        match self.ended && self.left == 0 {
            true => Ok(()),
            false => Err(PrefixError::Damaged),
        }
    }
}
