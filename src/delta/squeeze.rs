//! A byte stream, compressed block by block where that pays.
//!
//! Never knows what is in the stream. The bytes are in `docs/PROTOCOL.md`, "Compressed streams".
//! Invariant: an [`Unsqueezer`] gives the bytes that a [`Squeezer`] was given, or a named error; never
//! more than were announced, and never with more memory than [`UNSQUEEZE_MEMORY_BYTES_MAX`].
//!
//! 1. Blocks of [`BLOCK_BYTES`] go through one zstd stream, so that later ones refer to earlier ones.
//! 2. A block that did not shrink counts as incompressible. After the first the next block goes raw,
//!    after the second two, then four, up to `RAW_RUN_MAX`: then one is tried again.
//!
//! Awkward cases: a block that was tried is part of the history and goes as zstd made it, even when it
//! grew (by 14 bytes at most); raw blocks are not part of the history. Contexts are made at the first
//! block that needs one.

use super::codec::{Packer, Unpacker};
use crate::model::limits::{SQUEEZE_WINDOW_LOG_MAX, UNSQUEEZE_MEMORY_BYTES_MAX};

/// Bytes of a block, and of the largest piece that comes out.
pub const BLOCK_BYTES: usize = 128 * 1024;
/// Bytes before each block.
const HEADER_BYTES: usize = 3;
/// In a block's header: it went through zstd.
const PACKED: u32 = 1 << 23;
/// A packed block has at most so many bytes: zstd adds 3 to what it stores, 6 for its frame.
const PACKED_BYTES_MAX: usize = BLOCK_BYTES + 1024;
/// Raw blocks between two tries: 8 MiB, so that of random bytes one in 65 blocks is tried.
const RAW_RUN_MAX: u32 = 64;
/// Tar headers and source text: 366 MB/s to 14.5 %; 1 is no faster there and makes 15 % more, 5 makes 9 %
/// less at a third of the speed. Long-distance matching makes 2 to 9 % less at half the speed.
const LEVEL: i32 = 3;

const _: () = assert!(UNSQUEEZE_MEMORY_BYTES_MAX > (1 << SQUEEZE_WINDOW_LOG_MAX) + 8 * BLOCK_BYTES);

/// The sending end.
pub struct Squeezer {
    pending: Vec<u8>,
    packing: Packing,
    window_log: u32,
    raw_left: u32,
    raw_run: u32,
}

/// The compressor is made when it is first needed.
enum Packing {
    Unused,
    Open(Packer),
    Unavailable,
}

impl Squeezer {
    /// For a stream of `total` bytes (it only chooses the window).
    #[must_use]
    pub fn new(total: u64) -> Squeezer {
        let log = total.clamp(1 << 10, 1 << SQUEEZE_WINDOW_LOG_MAX).next_power_of_two();
        Squeezer {
            pending: Vec::new(),
            packing: Packing::Unused,
            window_log: log.trailing_zeros(),
            raw_left: 0,
            raw_run: 0,
        }
    }

    /// A stream that is not compressed, because the peer or this build cannot.
    #[must_use]
    pub fn raw() -> Squeezer {
        let mut squeezer = Squeezer::new(0);
        squeezer.packing = Packing::Unavailable;
        squeezer
    }

    /// Takes more of the stream and appends the blocks that are full to `out`.
    pub fn push(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) {
        if self.is_raw() && bytes.len() >= BLOCK_BYTES && !self.pending.is_empty() {
            // What waits is a block by itself, so that what follows is copied once.
            raw_block(&self.pending, out);
            self.pending.clear();
        }
        while self.pending.len() + bytes.len() >= BLOCK_BYTES {
            if self.pending.is_empty() {
                let (block, rest) = bytes.split_at(BLOCK_BYTES);
                self.block(block, out);
                bytes = rest;
                continue;
            }
            let (head, rest) = bytes.split_at(BLOCK_BYTES - self.pending.len());
            self.pending.extend_from_slice(head);
            bytes = rest;
            self.flush(out);
        }
        self.pending.extend_from_slice(bytes);
    }

    /// Makes a block of what waits for more; for the end of the stream, or before a pause in it.
    pub fn flush(&mut self, out: &mut Vec<u8>) {
        if self.pending.is_empty() {
            return;
        }
        let mut pending = std::mem::take(&mut self.pending);
        self.block(&pending, out);
        pending.clear();
        self.pending = pending;
    }

    /// Whether the next block goes as it is.
    fn is_raw(&self) -> bool {
        self.raw_left > 0 || matches!(self.packing, Packing::Unavailable)
    }

    fn block(&mut self, block: &[u8], out: &mut Vec<u8>) {
        if self.raw_left > 0 {
            self.raw_left -= 1;
            return raw_block(block, out);
        }
        if matches!(self.packing, Packing::Unused) {
            let made = Packer::new(self.window_log, LEVEL);
            self.packing = made.map_or(Packing::Unavailable, Packing::Open);
        }
        let Packing::Open(packer) = &mut self.packing else {
            return raw_block(block, out);
        };
        let start = out.len();
        out.extend_from_slice(&[0; HEADER_BYTES]);
        if packer.pack(block, out).is_none() {
            out.truncate(start);
            self.packing = Packing::Unavailable;
            return raw_block(block, out);
        }
        let packed = out.len() - start - HEADER_BYTES;
        debug_assert!(packed <= PACKED_BYTES_MAX);
        out[start..start + HEADER_BYTES].copy_from_slice(&header(packed, PACKED));
        // Less than 1 in 32 is not worth the time at the other end.
        self.raw_run = match packed + block.len() / 32 < block.len() {
            true => 0,
            false => (self.raw_run * 2).clamp(1, RAW_RUN_MAX),
        };
        self.raw_left = self.raw_run;
    }
}

fn raw_block(block: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&header(block.len(), 0));
    out.extend_from_slice(block);
}

fn header(length: usize, kind: u32) -> [u8; HEADER_BYTES] {
    let [a, b, c, _] = (length as u32 | kind).to_le_bytes();
    [a, b, c]
}

/// A compressed stream that cannot be restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SqueezeError {
    /// A header with reserved bits, without a length or with one that is too large.
    #[error("a compressed stream has a block with an impossible header")]
    Header,
    /// More comes out than was announced.
    #[error("a compressed stream is longer than announced")]
    TooLong,
    /// Less came out than was announced.
    #[error("a compressed stream ended early")]
    TooShort,
    /// A packed block is damaged, empty, or needs more memory than is allowed.
    #[error("a compressed block cannot be restored")]
    Damaged,
    /// This build has no zstd, and the peer knew.
    #[error("a compressed block came, but compression was not agreed")]
    NotAgreed,
}

/// The receiving end.
pub struct Unsqueezer {
    left: u64,
    header: Vec<u8>,
    block: Option<Block>,
    held: Vec<u8>,
    out: Vec<u8>,
    unpacker: Option<Unpacker>,
}

/// A block that is arriving; `left` of it are still to come.
#[derive(Clone, Copy)]
struct Block {
    packed: bool,
    left: usize,
}

impl Unsqueezer {
    /// For a stream of exactly `total` bytes.
    #[must_use]
    pub fn new(total: u64) -> Unsqueezer {
        Unsqueezer {
            left: total,
            header: Vec::new(),
            block: None,
            held: Vec::new(),
            out: Vec::new(),
            unpacker: None,
        }
    }

    /// The next piece (1 to [`BLOCK_BYTES`] bytes) of the stream; takes from the front of `input` what
    /// it needs, and says `None` when that is used up.
    ///
    /// # Errors
    /// [`SqueezeError`]; after it, this is of no more use.
    pub fn next<'s, 'i: 's>(&'s mut self, input: &mut &'i [u8]) -> Result<Option<&'s [u8]>, SqueezeError> {
        let block = match self.block {
            Some(block) => block,
            None => match self.begin(input)? {
                Some(block) => block,
                None => return Ok(None),
            },
        };
        if input.is_empty() {
            return Ok(None);
        }
        let (bytes, rest) = input.split_at(block.left.min(input.len()));
        *input = rest;
        let left = block.left - bytes.len();
        self.block = (left > 0).then_some(Block { left, ..block });
        if !block.packed {
            self.left -= bytes.len() as u64;
            return Ok(Some(bytes));
        }
        if left > 0 {
            self.held.extend_from_slice(bytes);
            return Ok(None);
        }
        if self.held.is_empty() {
            return self.unpack(bytes).map(Some);
        }
        self.held.extend_from_slice(bytes);
        let mut held = std::mem::take(&mut self.held);
        let written = self.unpack(&held)?.len();
        held.clear();
        self.held = held;
        Ok(Some(&self.out[..written]))
    }

    /// Whether everything that was announced came out, and nothing is left over.
    ///
    /// # Errors
    /// [`SqueezeError::TooShort`].
    pub fn finish(&self) -> Result<(), SqueezeError> {
        match self.left == 0 && self.block.is_none() && self.header.is_empty() {
            true => Ok(()),
            false => Err(SqueezeError::TooShort),
        }
    }

    /// Whether the stream may end here, for one of which only the most bytes were announced.
    ///
    /// # Errors
    /// [`SqueezeError::TooShort`] within a block.
    pub fn finish_early(&self) -> Result<(), SqueezeError> {
        match self.block.is_none() && self.header.is_empty() {
            true => Ok(()),
            false => Err(SqueezeError::TooShort),
        }
    }

    /// Reads a header; `None` while it is not complete.
    fn begin(&mut self, input: &mut &[u8]) -> Result<Option<Block>, SqueezeError> {
        let (bytes, rest) = input.split_at((HEADER_BYTES - self.header.len()).min(input.len()));
        self.header.extend_from_slice(bytes);
        *input = rest;
        let [a, b, c] = self.header[..] else {
            return Ok(None);
        };
        self.header.clear();
        let number = u32::from_le_bytes([a, b, c, 0]);
        let (packed, length) = (number & PACKED != 0, (number & !PACKED) as usize);
        let most = if packed { PACKED_BYTES_MAX } else { BLOCK_BYTES };
        if length == 0 || length > most {
            return Err(SqueezeError::Header);
        }
        if self.left == 0 || !packed && length as u64 > self.left {
            return Err(SqueezeError::TooLong);
        }
        let block = Block { packed, left: length };
        self.block = Some(block);
        Ok(Some(block))
    }

    /// Restores a whole block.
    fn unpack(&mut self, mut packed: &[u8]) -> Result<&[u8], SqueezeError> {
        if self.unpacker.is_none() {
            self.unpacker = Unpacker::new(SQUEEZE_WINDOW_LOG_MAX);
        }
        let unpacker = self.unpacker.as_mut().ok_or(SqueezeError::NotAgreed)?;
        let most = self.left.min(BLOCK_BYTES as u64) as usize;
        // One more than may come, so that more is noticed.
        self.out.resize(most + 1, 0);
        let unpacked = unpacker
            .unpack(&mut packed, &mut self.out)
            .ok_or(SqueezeError::Damaged)?;
        if unpacked.written > most {
            return Err(SqueezeError::TooLong);
        }
        if !packed.is_empty() || unpacked.ended || unpacked.written == 0 {
            return Err(SqueezeError::Damaged);
        }
        self.left -= unpacked.written as u64;
        Ok(&self.out[..unpacked.written])
    }
}

#[cfg(test)]
#[path = "squeeze_tests.rs"]
mod tests;
