//! Patches: a new file in terms of an old one, from the old one's signature or contents.
//!
//! Never writes the new file's content twice. Invariant: a patch that was finished describes one content
//! from open to end.

use super::container::{PatchHead, SIGNATURE_HEAD_BYTES, SignatureForm, SignatureHead, Summed};
use super::sign::{INDEX_BYTES_MAX, index};
use super::{DeltaFileError, Operand, Part};
use crate::delta::index::{HEAD_BYTES, IndexHeader, build};
use crate::delta::signature::{self, BLOCK_BYTES_MIN, SignatureBuilder};
use crate::delta::{Comparison, content_id};
use crate::model::ContentId;
use crate::model::limits::MEDIUM_BYTES_MAX;
use crate::node::changing::{Changed, Changing};
use crate::node::deltas::Deltas;
use crate::store::{MappedSidecar, scratch_file};
use crate::wire::{EndOutcome, PatchForm};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// A signature that was read and checked.
pub struct Signature {
    id: ContentId,
    body: Body,
}

enum Body {
    Blocks(signature::Signature),
    Index(MappedSidecar),
}

/// A patch that was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Differing {
    /// What it applies to.
    pub basis: ContentId,
    /// What comes of it.
    pub result: ContentId,
    /// Its own bytes.
    pub bytes: u64,
    /// Bytes of the new file that it carries, and that it takes from the old one, before compression;
    /// unknown when the one was compressed against the other.
    pub figures: Option<(u64, u64)>,
}

/// Larger files are not matched against blocks of 16 MiB at the most: there is next to nothing to gain,
/// and they would be mapped as a whole.
const BLOCKS_NEW_BYTES_MAX: u64 = 1 << 30;
/// Bytes of the plan in one piece of a patch file.
pub(super) const PIECE_BYTES_MAX: usize = 1 << 20;
const SPOOL_BYTES: usize = 1 << 20;

impl Signature {
    /// Reads a whole signature file.
    ///
    /// # Errors
    /// [`DeltaFileError`] when it is none, or is damaged.
    pub fn read(input: &mut dyn Read) -> Result<Signature, DeltaFileError> {
        let mut input = Summed::new(Part::Signature, input);
        let head = SignatureHead::decode(&input.array::<SIGNATURE_HEAD_BYTES>()?)?;
        let id = head.id;
        let body = match head.form {
            SignatureForm::Blocks => {
                if id.length > MEDIUM_BYTES_MAX {
                    return Err(DeltaFileError::Format(Part::Signature));
                }
                let blocks = id.length.div_ceil(BLOCK_BYTES_MIN as u64) as usize;
                let mut encoded = vec![0; 20 + 8 * blocks];
                input.read(&mut encoded)?;
                input.finish()?;
                let parsed = signature::Signature::parse(&encoded).map_err(damaged)?;
                if parsed.length() != id.length {
                    return Err(DeltaFileError::Format(Part::Signature));
                }
                Body::Blocks(parsed)
            }
            SignatureForm::Index => read_index(input, &id)?,
        };
        Ok(Signature { id, body })
    }

    fn of_file(old: &Operand) -> Result<Signature, DeltaFileError> {
        if old.file.size() > MEDIUM_BYTES_MAX {
            let (id, spool) = index(old)?;
            let body = Body::Index(MappedSidecar::of_file(&spool, &id).map_err(damaged)?);
            return Ok(Signature { id, body });
        }
        let bytes = contents(old)?;
        let mut builder = SignatureBuilder::new(0);
        builder.push(&bytes);
        let parsed = signature::Signature::parse(&builder.finish()).map_err(damaged)?;
        Ok(Signature {
            id: content_id(&bytes),
            body: Body::Blocks(parsed),
        })
    }
}

#[allow(clippy::needless_pass_by_value, reason = "it is what `map_err` gives")]
fn damaged<E: std::fmt::Display>(error: E) -> DeltaFileError {
    DeltaFileError::damaged(Part::Signature, &error)
}

fn spool_failed(error: &io::Error) -> DeltaFileError {
    DeltaFileError::write(Part::Signature, error)
}

/// A sidecar from a stream, put down in a file without a name so that it can be mapped.
fn read_index(mut input: Summed<&mut dyn Read>, id: &ContentId) -> Result<Body, DeltaFileError> {
    let mut buffer = input.array::<HEAD_BYTES>()?.to_vec();
    let header = IndexHeader::parse(&buffer).map_err(damaged)?;
    let total = header.total_bytes();
    if header.id() != *id || total > INDEX_BYTES_MAX {
        return Err(DeltaFileError::Format(Part::Signature));
    }
    let spool = scratch_file()?;
    let failed = |error: io::Error| spool_failed(&error);
    spool.write_all_at(&buffer, 0).map_err(failed)?;
    let mut at = HEAD_BYTES as u64;
    while at < total {
        buffer.resize(SPOOL_BYTES.min((total - at) as usize), 0);
        input.read(&mut buffer)?;
        spool.write_all_at(&buffer, at).map_err(failed)?;
        at += buffer.len() as u64;
    }
    input.end()?;
    Ok(Body::Index(MappedSidecar::of_file(&spool, id).map_err(damaged)?))
}

/// Writes a patch to `out` that makes the file `new` of the one that `basis` is of.
///
/// # Errors
/// [`DeltaFileError`]; what was written then is no patch.
pub fn diff(basis: Signature, new: &Path, out: &mut dyn Write) -> Result<Differing, DeltaFileError> {
    let new = Operand::open(new)?;
    let deltas = Deltas::nowhere(&new.root);
    let Signature { id, body } = basis;
    let shown = new.shown;
    let changing = match body {
        Body::Blocks(signature) if new.file.size() <= BLOCKS_NEW_BYTES_MAX => {
            Changing::against_signature(new.file, signature, &deltas)
        }
        Body::Blocks(_) => Changing::against_index(new.file, index_of_nothing()?, Comparison::Fast, &deltas),
        Body::Index(index) => Changing::against_index(new.file, index, Comparison::Fast, &deltas),
    };
    write(changing.squeezed(), id, &shown, &deltas, out)
}

/// The index of a file without bytes.
fn index_of_nothing() -> Result<MappedSidecar, DeltaFileError> {
    let spool = scratch_file()?;
    let written = spool.write_all_at(&build(&[], 0), 0);
    written.map_err(|error| spool_failed(&error))?;
    MappedSidecar::of_file(&spool, &content_id(&[])).map_err(damaged)
}

/// Writes a patch to `out` that makes the file `new` of the file `old`. When both have at most 16 MiB, the
/// one is compressed against the other, which makes the smallest patch.
///
/// # Errors
/// As [`diff`].
pub fn diff_files(old: &Path, new: &Path, out: &mut dyn Write) -> Result<Differing, DeltaFileError> {
    let basis = Operand::open(old)?;
    let target = Operand::open(new)?;
    if basis.file.size().max(target.file.size()) > MEDIUM_BYTES_MAX {
        return diff(Signature::of_file(&basis)?, new, out);
    }
    let bytes = contents(&basis)?;
    let id = content_id(&bytes);
    let deltas = Deltas::nowhere(&target.root);
    match Changing::against_contents(target.file, bytes, &deltas) {
        Ok(changing) => write(changing, id, &target.shown, &deltas, out),
        // Without zstd.
        Err(_) => diff(Signature::of_file(&basis)?, new, out),
    }
}

/// All bytes of a file of at most 16 MiB.
fn contents(file: &Operand) -> Result<Vec<u8>, DeltaFileError> {
    let mut bytes = vec![0; file.file.size() as usize];
    file.read(0, &mut bytes)?;
    file.check_unchanged()?;
    Ok(bytes)
}

fn write(
    mut changing: Changing,
    basis: ContentId,
    shown: &str,
    deltas: &Deltas,
    out: &mut dyn Write,
) -> Result<Differing, DeltaFileError> {
    let mut out = Summed::new(Part::Patch, out);
    let (form, length) = (changing.form(), changing.file().size());
    out.write(&PatchHead { form, basis, length }.encode())?;
    let root = loop {
        match changing.step(PIECE_BYTES_MAX, deltas) {
            Changed::Plan(plan) if plan.is_empty() => {}
            Changed::Plan(plan) => {
                out.write(&(plan.len() as u32).to_le_bytes())?;
                out.write(&plan)?;
            }
            Changed::Working => {}
            Changed::End(EndOutcome::Complete(root)) => break root,
            Changed::End(EndOutcome::Changed | EndOutcome::Failed(_)) => {
                return Err(DeltaFileError::Changed(shown.to_owned()));
            }
        }
    };
    out.write(&[0; 4])?;
    out.write(&root)?;
    let figures = changing.take_figures();
    Ok(Differing {
        basis,
        result: ContentId { length, root },
        bytes: out.seal()?,
        figures: (form != PatchForm::Prefix).then_some(figures),
    })
}
