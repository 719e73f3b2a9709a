//! Signatures: what is in an old file, for making a patch without it.
//!
//! Never reads the file twice. Invariant: a signature is of one content from open to end.

use super::container::{SignatureForm, SignatureHead, Summed};
use super::{DeltaFileError, Operand, Part};
use crate::delta::TreeHasher;
use crate::delta::index::{CHUNK_BYTES, CONTEXT_BYTES, ChunkIndex, Parts, Sidecar, Sums};
use crate::delta::signature::SignatureBuilder;
use crate::model::ContentId;
use crate::model::limits::MEDIUM_BYTES_MAX;
use crate::store::scratch_file;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// A signature that was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signed {
    /// What it is of.
    pub id: ContentId,
    /// Its own bytes.
    pub bytes: u64,
}

/// Bytes of an index that can be mapped, less some room for its anchors.
pub(super) const INDEX_BYTES_MAX: u64 = (2 << 30) - (1 << 16);
/// Bytes that are copied at a time.
const COPY_BYTES: usize = 1 << 20;

/// Writes the signature of the file `old` to `out`: up to 16 MiB hashes of its blocks (1.6 %), above its
/// delta index (0.9 %).
///
/// # Errors
/// [`DeltaFileError`]; what was written then is worth nothing.
pub fn sign(old: &Path, out: &mut dyn Write) -> Result<Signed, DeltaFileError> {
    let old = Operand::open(old)?;
    if old.file.size() <= MEDIUM_BYTES_MAX {
        return sign_blocks(&old, out);
    }
    let (id, spool) = index(&old)?;
    let form = SignatureForm::Index;
    let mut out = Summed::new(Part::Signature, out);
    out.write(&SignatureHead { form, id }.encode())?;
    let failed = |error: io::Error| DeltaFileError::read(Part::Signature, &error);
    let length = spool.metadata().map_err(failed)?.len();
    let mut buffer = vec![0; COPY_BYTES];
    let mut at = 0;
    while at < length {
        let piece = &mut buffer[..COPY_BYTES.min((length - at) as usize)];
        spool.read_exact_at(piece, at).map_err(failed)?;
        out.write(piece)?;
        at += piece.len() as u64;
    }
    Ok(Signed { id, bytes: out.bytes })
}

fn sign_blocks(old: &Operand, out: &mut dyn Write) -> Result<Signed, DeltaFileError> {
    let (mut builder, mut hasher) = (SignatureBuilder::new(seed()?), TreeHasher::new());
    let mut buffer = vec![0; COPY_BYTES];
    let mut at = 0;
    while at < old.file.size() {
        let piece = &mut buffer[..COPY_BYTES.min((old.file.size() - at) as usize)];
        old.read(at, piece)?;
        builder.push(piece);
        hasher.update(piece);
        at += piece.len() as u64;
    }
    old.check_unchanged()?;
    let (form, id) = (SignatureForm::Blocks, hasher.finish());
    let mut out = Summed::new(Part::Signature, out);
    out.write(&SignatureHead { form, id }.encode())?;
    out.write(&builder.finish())?;
    let bytes = out.seal()?;
    Ok(Signed { id, bytes })
}

/// The sidecar of `old`, in a file without a name: its head is known last.
pub(super) fn index(old: &Operand) -> Result<(ContentId, File), DeltaFileError> {
    let sidecar = Sidecar::new(old.file.size(), Parts::Full, seed()?);
    if sidecar.anchors_offset() > INDEX_BYTES_MAX {
        return Err(DeltaFileError::TooLarge(old.shown.clone()));
    }
    let spool = scratch_file()?;
    let mut sums = Sums::new(sidecar);
    let failed = |error: io::Error| DeltaFileError::write(Part::Signature, &error);
    let mut buffer = vec![0; CONTEXT_BYTES + CHUNK_BYTES];
    for number in 0..sidecar.chunk_count() {
        let start = number * CHUNK_BYTES as u64;
        let before = CONTEXT_BYTES.min(start as usize);
        let window = &mut buffer[..before + sidecar.chunk_bytes(number)];
        old.read(start - before as u64, window)?;
        let (before, bytes) = window.split_at(before);
        let chunk = ChunkIndex::build(before, bytes, start, sidecar.seed, sidecar.bits);
        let placed = sidecar.place(number, &chunk, sums.anchor_count());
        sums.add(number, &chunk, &placed)
            .map_err(|error| DeltaFileError::damaged(Part::Signature, &error))?;
        for part in placed {
            spool.write_all_at(&part.bytes, part.offset).map_err(failed)?;
        }
    }
    old.check_unchanged()?;
    let (id, head) = sums
        .finish()
        .map_err(|error| DeltaFileError::damaged(Part::Signature, &error))?;
    if sidecar.total_bytes(sums.anchor_count()) > INDEX_BYTES_MAX {
        return Err(DeltaFileError::TooLarge(old.shown.clone()));
    }
    spool.write_all_at(&head, 0).map_err(failed)?;
    Ok((id, spool))
}

fn seed() -> Result<u64, DeltaFileError> {
    let mut bytes = [0; 8];
    let filled = getrandom::fill(&mut bytes);
    filled.map_err(|error| DeltaFileError::write(Part::Signature, &io::Error::other(error.to_string())))?;
    Ok(u64::from_le_bytes(bytes))
}
