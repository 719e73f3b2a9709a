//! The heads of signature files and patch files, and streams with a checksum over all that passed.
//!
//! Never looks into a body. The byte tables are in `docs/FORMAT.md`. Invariant: no length that was read
//! leads to memory before it met its limit.

use super::{DeltaFileError, Part};
use crate::model::ContentId;
use crate::model::limits::FILE_BYTES_MAX;
use crate::wire::PatchForm;
use std::io::{Read, Write};

/// Bytes before the body of a signature file.
pub(super) const SIGNATURE_HEAD_BYTES: usize = 64;
const PATCH_HEAD_BYTES: usize = 64;
const SIGNATURE_MAGIC: &[u8; 8] = b"SYNCSIG\x01";
const PATCH_MAGIC: &[u8; 8] = b"SYNCPAT\x01";

/// What the body of a signature file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SignatureForm {
    /// Hashes of blocks of 512 bytes.
    Blocks,
    /// A sidecar.
    Index,
}

/// The head of a signature file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SignatureHead {
    pub(super) form: SignatureForm,
    pub(super) id: ContentId,
}

/// The head of a patch file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PatchHead {
    pub(super) form: PatchForm,
    pub(super) basis: ContentId,
    pub(super) length: u64,
}

impl SignatureHead {
    pub(super) fn encode(&self) -> [u8; SIGNATURE_HEAD_BYTES] {
        let form = u32::from(self.form == SignatureForm::Index);
        seal(SIGNATURE_MAGIC, form, &self.id, 0)
    }

    pub(super) fn decode(head: &[u8; SIGNATURE_HEAD_BYTES]) -> Result<SignatureHead, DeltaFileError> {
        let (form, id, rest) = unseal(Part::Signature, SIGNATURE_MAGIC, head)?;
        let form = match form {
            0 => SignatureForm::Blocks,
            1 => SignatureForm::Index,
            _ => return Err(DeltaFileError::Format(Part::Signature)),
        };
        match rest {
            0 => Ok(SignatureHead { form, id }),
            _ => Err(DeltaFileError::Format(Part::Signature)),
        }
    }
}

impl PatchHead {
    pub(super) fn encode(&self) -> [u8; PATCH_HEAD_BYTES] {
        seal(PATCH_MAGIC, self.form as u32, &self.basis, self.length)
    }

    pub(super) fn decode(head: &[u8; PATCH_HEAD_BYTES]) -> Result<PatchHead, DeltaFileError> {
        let (form, basis, length) = unseal(Part::Patch, PATCH_MAGIC, head)?;
        let form = match form {
            0 => PatchForm::Plan,
            1 => PatchForm::Squeezed,
            2 => PatchForm::Prefix,
            _ => return Err(DeltaFileError::Format(Part::Patch)),
        };
        if length > FILE_BYTES_MAX || basis.length > FILE_BYTES_MAX {
            return Err(DeltaFileError::Format(Part::Patch));
        }
        Ok(PatchHead { form, basis, length })
    }
}

fn seal(magic: &[u8; 8], form: u32, id: &ContentId, length: u64) -> [u8; 64] {
    let mut head = [0; 64];
    head[..8].copy_from_slice(magic);
    head[8..12].copy_from_slice(&form.to_le_bytes());
    head[12..20].copy_from_slice(&id.length.to_le_bytes());
    head[20..52].copy_from_slice(&id.root);
    head[52..60].copy_from_slice(&length.to_le_bytes());
    let sum = crc32fast::hash(&head[..60]);
    head[60..].copy_from_slice(&sum.to_le_bytes());
    head
}

fn unseal(part: Part, magic: &[u8; 8], head: &[u8; 64]) -> Result<(u32, ContentId, u64), DeltaFileError> {
    if &head[..8] != magic {
        return Err(DeltaFileError::Format(part));
    }
    let short = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().expect("four bytes"));
    let long = |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().expect("eight bytes"));
    if crc32fast::hash(&head[..60]) != short(60) {
        return Err(DeltaFileError::damaged(part, &"its head does not have its checksum"));
    }
    let root = head[20..52].try_into().expect("32 bytes");
    Ok((short(8), ContentId { length: long(12), root }, long(52)))
}

/// A stream of which all that was read is under a checksum.
pub(super) struct Summed<S> {
    stream: S,
    part: Part,
    sum: crc32fast::Hasher,
    /// Bytes that passed.
    pub(super) bytes: u64,
}

impl<S> Summed<S> {
    pub(super) fn new(part: Part, stream: S) -> Summed<S> {
        let sum = crc32fast::Hasher::new();
        Summed {
            stream,
            part,
            sum,
            bytes: 0,
        }
    }

    fn count(&mut self, bytes: &[u8]) {
        self.sum.update(bytes);
        self.bytes += bytes.len() as u64;
    }
}

impl<S: Read> Summed<S> {
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Result<(), DeltaFileError> {
        let read = self.stream.read_exact(buffer);
        read.map_err(|error| DeltaFileError::read(self.part, &error))?;
        self.count(buffer);
        Ok(())
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], DeltaFileError> {
        let mut array = [0; N];
        self.read(&mut array)?;
        Ok(array)
    }

    /// The checksum comes next, and nothing behind it.
    pub(super) fn finish(mut self) -> Result<u64, DeltaFileError> {
        let sum = self.sum.clone().finalize();
        if u32::from_le_bytes(self.array()?) != sum {
            return Err(DeltaFileError::damaged(self.part, &"it does not have its checksum"));
        }
        self.end()
    }

    /// Nothing comes any more.
    pub(super) fn end(mut self) -> Result<u64, DeltaFileError> {
        let mut more = [0];
        match self.stream.read_exact(&mut more) {
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(self.bytes),
            Err(error) => Err(DeltaFileError::read(self.part, &error)),
            Ok(()) => Err(DeltaFileError::damaged(self.part, &"it goes on after its end")),
        }
    }
}

impl<S: Write> Summed<S> {
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), DeltaFileError> {
        let written = self.stream.write_all(bytes);
        written.map_err(|error| DeltaFileError::write(self.part, &error))?;
        self.count(bytes);
        Ok(())
    }

    /// Ends with the checksum. Returns all bytes.
    pub(super) fn seal(mut self) -> Result<u64, DeltaFileError> {
        let sum = self.sum.clone().finalize();
        self.write(&sum.to_le_bytes())?;
        Ok(self.bytes)
    }
}
