//! The new file from the old one and a patch, in one pass.
//!
//! Never trusts a patch: what it may take of the old file and make of the new one is bounded by its
//! decoders. Invariant: nothing is made of a file that is not the patch's basis.

use super::container::{PatchHead, Summed};
use super::diff::PIECE_BYTES_MAX;
use super::{DeltaFileError, Operand, Part};
use crate::delta::prefix::PrefixDecoder;
use crate::delta::squeeze::Unsqueezer;
use crate::delta::{Instruction, PlanDecoder, TreeHasher};
use crate::model::ContentId;
use crate::model::limits::plan_bytes_max;
use crate::wire::PatchForm;
use std::io::{Read, Write};
use std::path::Path;

/// A patch whose head was read, and the old file, which was found to be its basis.
pub struct Patch<'a> {
    input: Summed<&'a mut dyn Read>,
    head: PatchHead,
    old: Operand,
}

/// A patch that was applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patched {
    /// The new file.
    pub result: ContentId,
    /// Bytes of the patch.
    pub bytes: u64,
    /// As in [`Differing`](super::Differing).
    pub figures: Option<(u64, u64)>,
}

/// Bytes that are read of the old file at a time.
const COPY_BYTES: usize = 1 << 20;

impl<'a> Patch<'a> {
    /// Reads the head of a patch file and compares the whole file `old` with it.
    ///
    /// # Errors
    /// [`DeltaFileError::OtherBasis`], or the patch is none, or something cannot be read.
    pub fn open(old: &Path, input: &'a mut dyn Read) -> Result<Patch<'a>, DeltaFileError> {
        let mut input = Summed::new(Part::Patch, input);
        let head = PatchHead::decode(&input.array()?)?;
        let old = Operand::open(old)?;
        let found = identify(&old)?;
        if found != head.basis {
            return Err(DeltaFileError::OtherBasis {
                path: old.shown,
                found,
                wanted: head.basis,
            });
        }
        Ok(Patch { input, head, old })
    }

    /// Bytes that the result takes on the disk; unknown when the old file has holes, which stay.
    #[must_use]
    pub fn room(&self) -> Option<u64> {
        (!self.old.file.is_sparse()).then_some(self.head.length)
    }

    /// Writes the new file to `out`.
    ///
    /// # Errors
    /// [`DeltaFileError`]; what was written then is not the new file.
    pub fn apply(self, out: &mut dyn Write) -> Result<Patched, DeltaFileError> {
        let Patch { mut input, head, old } = self;
        let mut plan = Plan::new(&head, &old)?;
        let mut target = Target {
            old: &old,
            out,
            hasher: TreeHasher::new(),
            buffer: vec![0; COPY_BYTES],
            literal: 0,
            matched: 0,
        };
        let mut left = plan_bytes_max(head.length);
        let mut piece = Vec::new();
        loop {
            let length = u32::from_le_bytes(input.array()?) as usize;
            if length == 0 {
                break;
            }
            if length > PIECE_BYTES_MAX || length as u64 > left {
                return Err(damaged("a piece of it is too long"));
            }
            left -= length as u64;
            piece.resize(length, 0);
            input.read(&mut piece)?;
            plan.follow(&piece, &mut target)?;
        }
        plan.finish()?;
        let root: [u8; 32] = input.array()?;
        let bytes = input.finish()?;
        old.check_unchanged()?;
        let result = target.hasher.finish();
        if result
            != (ContentId {
                length: head.length,
                root,
            })
        {
            return Err(damaged("what it makes is not what it announces"));
        }
        let figures = (head.form != PatchForm::Prefix).then_some((target.literal, target.matched));
        Ok(Patched { result, bytes, figures })
    }
}

#[allow(clippy::needless_pass_by_value, reason = "it is what `map_err` gives")]
fn damaged<E: std::fmt::Display>(reason: E) -> DeltaFileError {
    DeltaFileError::damaged(Part::Patch, &reason)
}

fn identify(file: &Operand) -> Result<ContentId, DeltaFileError> {
    let (mut hasher, mut at) = (TreeHasher::new(), 0);
    let mut buffer = vec![0; COPY_BYTES];
    while at < file.file.size() {
        let piece = &mut buffer[..COPY_BYTES.min((file.file.size() - at) as usize)];
        file.read(at, piece)?;
        hasher.update(piece);
        at += piece.len() as u64;
    }
    file.check_unchanged()?;
    Ok(hasher.finish())
}

/// Where the new file goes, and what it is made from.
struct Target<'a> {
    old: &'a Operand,
    out: &'a mut dyn Write,
    hasher: TreeHasher,
    buffer: Vec<u8>,
    literal: u64,
    matched: u64,
}

impl Target<'_> {
    fn literal(&mut self, bytes: &[u8]) -> Result<(), DeltaFileError> {
        self.hasher.update(bytes);
        self.literal += bytes.len() as u64;
        let written = self.out.write_all(bytes);
        written.map_err(|error| DeltaFileError::write(Part::Result, &error))
    }

    fn copy(&mut self, mut from: u64, mut length: u64) -> Result<(), DeltaFileError> {
        while length > 0 {
            let piece = &mut self.buffer[..COPY_BYTES.min(usize::try_from(length).unwrap_or(COPY_BYTES))];
            self.old.read(from, piece)?;
            self.hasher.update(piece);
            let written = self.out.write_all(piece);
            written.map_err(|error| DeltaFileError::write(Part::Result, &error))?;
            self.matched += piece.len() as u64;
            from += piece.len() as u64;
            length -= piece.len() as u64;
        }
        Ok(())
    }
}

/// What reads the plan.
enum Plan {
    Plain(PlanDecoder),
    Squeezed(Box<Unsqueezer>, PlanDecoder),
    Prefix(Box<PrefixDecoder>),
}

impl Plan {
    fn new(head: &PatchHead, old: &Operand) -> Result<Plan, DeltaFileError> {
        let (from, to) = (head.basis.length, head.length);
        Ok(match head.form {
            PatchForm::Plan => Plan::Plain(PlanDecoder::new(from, to)),
            PatchForm::Squeezed => Plan::Squeezed(
                Box::new(Unsqueezer::new(plan_bytes_max(to))),
                PlanDecoder::new(from, to),
            ),
            PatchForm::Prefix => {
                let mut decoder = Box::new(PrefixDecoder::new(from, to).map_err(damaged)?);
                let mut buffer = vec![0; COPY_BYTES];
                let mut at = 0;
                while at < from {
                    let piece = &mut buffer[..COPY_BYTES.min((from - at) as usize)];
                    old.read(at, piece)?;
                    decoder.prime(piece).map_err(damaged)?;
                    at += piece.len() as u64;
                }
                Plan::Prefix(decoder)
            }
        })
    }

    fn follow(&mut self, mut piece: &[u8], target: &mut Target<'_>) -> Result<(), DeltaFileError> {
        match self {
            Plan::Plain(decoder) => {
                decoder.push(piece);
                carry_out(decoder, target)
            }
            Plan::Squeezed(unsqueezer, decoder) => {
                while !piece.is_empty() {
                    if let Some(bytes) = unsqueezer.next(&mut piece).map_err(damaged)? {
                        decoder.push(bytes);
                        carry_out(decoder, target)?;
                    }
                }
                Ok(())
            }
            Plan::Prefix(decoder) => loop {
                match decoder.next(&mut piece).map_err(damaged)? {
                    Some(bytes) => target.literal(bytes)?,
                    None if piece.is_empty() => return Ok(()),
                    None => {}
                }
            },
        }
    }

    fn finish(&self) -> Result<(), DeltaFileError> {
        match self {
            Plan::Plain(decoder) => decoder.finish().map_err(damaged),
            Plan::Squeezed(unsqueezer, decoder) => {
                unsqueezer.finish_early().map_err(damaged)?;
                decoder.finish().map_err(damaged)
            }
            Plan::Prefix(decoder) => decoder.finish().map_err(damaged),
        }
    }
}

fn carry_out(decoder: &mut PlanDecoder, target: &mut Target<'_>) -> Result<(), DeltaFileError> {
    while let Some(instruction) = decoder.next().map_err(damaged)? {
        match instruction {
            Instruction::Copy { from, length } => target.copy(from, length)?,
            Instruction::Literal(bytes) => target.literal(bytes)?,
        }
    }
    Ok(())
}
