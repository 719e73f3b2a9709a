//! The new file as the delta engine reads it: stretches of its bytes, by offset.
//!
//! Never says where the bytes come from. Invariant: what is given out was the file's content at one
//! moment, or [`Torn`] says that it may not have been.

use super::index::CHUNK_BYTES;

/// Longest stretch that is asked for at once: a chunk, and what stands around it.
pub const STRETCH_BYTES_MAX: usize = CHUNK_BYTES + 64 * 1024;

/// The file changed while it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the file changed while it was read")]
pub struct Torn;

/// Bytes of a file, by offset.
pub trait Content {
    /// Bytes in it.
    fn length(&self) -> u64;

    /// The `length` (at most [`STRETCH_BYTES_MAX`]) bytes at `offset`, in one piece; all of them lie
    /// within [`length`](Self::length).
    ///
    /// # Errors
    /// [`Torn`] when they cannot be read as they were.
    fn bytes(&mut self, offset: u64, length: usize) -> Result<&[u8], Torn>;
}

impl Content for &[u8] {
    fn length(&self) -> u64 {
        self.len() as u64
    }

    fn bytes(&mut self, offset: u64, length: usize) -> Result<&[u8], Torn> {
        let from = usize::try_from(offset).map_err(|_| Torn)?;
        let end = from.checked_add(length).ok_or(Torn)?;
        self.get(from..end).ok_or(Torn)
    }
}
