//! Whether a file that is to be sent begins with what the receiver has staged of it.
//!
//! Goes on from what an earlier transfer noted, so that only what came after it is hashed again; where
//! nothing was noted, all of it is, in steps. Invariant: the answer is yes only when the file has that
//! beginning now.

use super::resumes::Resumes;
use crate::delta::TreeHasher;
use crate::model::ContentId;
use crate::model::limits::LEAF_BYTES;
use crate::store::SourceFile;

/// A beginning that is compared.
pub(super) struct Resuming {
    file: SourceFile,
    partial: ContentId,
    hasher: TreeHasher,
}

/// How a step ended.
pub(super) enum Resumed {
    More(Box<Resuming>),
    /// The file begins so; this is the tree up to there.
    Yes(SourceFile, TreeHasher),
    No(SourceFile),
}

/// Bytes per step: below the time quantum of a connection.
const STEP_BYTES: usize = 1 << 20;

impl Resuming {
    /// Compares the beginning of `file` with `partial`.
    pub(super) fn new(file: SourceFile, partial: ContentId, resumes: &Resumes) -> Resuming {
        let noted = resumes.sent(&file.identity());
        let noted = noted.filter(|hasher| hasher.length() <= partial.length);
        Resuming {
            file,
            partial,
            hasher: noted.unwrap_or_default(),
        }
    }

    /// Hashes on by a bounded amount.
    pub(super) fn step(mut self: Box<Resuming>, scratch: &mut Vec<u8>) -> Resumed {
        let whole = self.partial.length.is_multiple_of(LEAF_BYTES as u64);
        if !whole || self.partial.length > self.file.size() {
            return Resumed::No(self.file);
        }
        let left = self.partial.length - self.hasher.length();
        if left > 0 {
            scratch.resize(left.min(STEP_BYTES as u64) as usize, 0);
            return match self.file.read_at(self.hasher.length(), scratch) {
                Ok(length) if length > 0 => {
                    self.hasher.update(&scratch[..length]);
                    Resumed::More(self)
                }
                _ => Resumed::No(self.file),
            };
        }
        match self.hasher.clone().finish() == self.partial {
            true => Resumed::Yes(self.file, self.hasher),
            false => Resumed::No(self.file),
        }
    }
}
