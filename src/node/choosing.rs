//! How a changed file is sent: whole, or as a patch, and of what.
//!
//! 1. Against the contents of its basis, when those were sent from here before.
//! 2. Against the index of its basis, when that is kept here.
//! 3. Else the receiver is asked once, for a signature or for the index.
//! 4. Whole, when all of that leads nowhere.
//!
//! Never reads the file. Invariant: a file is asked about at most once for each basis.

use super::changing::{Changing, Index};
use super::deltas::Deltas;
use crate::delta::Comparison;
use crate::delta::index::{IndexView, Parts};
use crate::delta::signature::Signature;
use crate::model::ContentId;
use crate::model::limits::MEDIUM_BYTES_MAX;
use crate::store::SourceFile;
use crate::wire::{Topic, features};

/// What to do with a file.
pub(super) enum Choice {
    Whole(SourceFile),
    Patch(Box<Changing>),
    Ask(Topic, Vec<u8>),
}

/// The answer to a question, as far as it came.
pub(super) struct Told {
    topic: Topic,
    bytes: Vec<u8>,
}

/// An index is asked for up to this length of the basis: its answer is held in memory.
const TOLD_BASIS_BYTES_MAX: u64 = 4 << 30;

impl Told {
    pub(super) fn new(topic: Topic) -> Told {
        let bytes = Vec::new();
        Told { topic, bytes }
    }

    /// The next bytes; the machine has checked how many may come.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }
}

/// Chooses for `file`, which is to replace `basis` at the receiver.
pub(super) fn choose(
    file: SourceFile,
    basis: &ContentId,
    told: Option<Told>,
    common: u64,
    checksum: bool,
    deltas: &Deltas,
) -> Choice {
    let squeezes = common & features::ZSTD != 0;
    let squeeze = |changing: Changing| match squeezes {
        true => Choice::Patch(Box::new(changing.squeezed())),
        false => Choice::Patch(Box::new(changing)),
    };
    let comparison = match checksum {
        true => Comparison::Checksum,
        false => Comparison::Fast,
    };
    let is_medium = file.size() <= MEDIUM_BYTES_MAX && basis.length <= MEDIUM_BYTES_MAX;
    let mut file = file;
    if let Some(told) = told {
        return match (told.topic, Signature::parse(&told.bytes)) {
            (Topic::Signature, Ok(signature)) => squeeze(Changing::against_signature(file, signature)),
            (Topic::Index, _) if is_index_of(&told.bytes, basis) => squeeze(Changing::against_index(
                file,
                Index::Told(told.bytes),
                comparison,
                deltas,
            )),
            _ => Choice::Whole(file),
        };
    }
    if is_medium {
        if squeezes && let Some(contents) = deltas.shadow(basis) {
            match Changing::against_contents(file, contents) {
                Ok(changing) => return Choice::Patch(Box::new(changing)),
                Err(back) => file = *back,
            }
        }
        let mut seed = [0; 8];
        return match getrandom::fill(&mut seed) {
            Ok(()) => Choice::Ask(Topic::Signature, seed.to_vec()),
            Err(_) => Choice::Whole(file),
        };
    }
    if let Some(sidecar) = deltas.open(basis)
        && sidecar.view().sidecar().parts == Parts::Full
    {
        return squeeze(Changing::against_index(file, Index::Kept(sidecar), comparison, deltas));
    }
    if basis.length <= MEDIUM_BYTES_MAX || basis.length > TOLD_BASIS_BYTES_MAX {
        return Choice::Whole(file);
    }
    Choice::Ask(Topic::Index, Vec::new())
}

/// Whether this is a whole index, with all sections, of the content.
fn is_index_of(bytes: &[u8], basis: &ContentId) -> bool {
    IndexView::parse(bytes)
        .is_ok_and(|view| view.id() == *basis && view.sidecar().parts == Parts::Full && view.verify().is_ok())
}
