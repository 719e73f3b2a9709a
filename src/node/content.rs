//! Reading whole files in bounded steps, to know their content id.
//!
//! Never reads more than a step's bytes at a time, and says when a file changed meanwhile.

use crate::delta::TreeHasher;
use crate::model::ContentId;
use crate::store::{FileError, SourceFile};

/// Hashes one file, a step at a time.
#[derive(Debug)]
pub(crate) struct Hashing {
    file: SourceFile,
    hasher: TreeHasher,
    offset: u64,
}

/// How a step ended.
#[derive(Debug)]
pub(crate) enum Hashed {
    /// There is more to read.
    More(Box<Hashing>),
    /// This is its content.
    Done(ContentId),
    /// It changed meanwhile or cannot be read.
    Failed,
}

/// Bytes per step: well below the time quantum of a connection.
const STEP_BYTES: usize = 1 << 20;

impl Hashing {
    pub(crate) fn new(file: SourceFile) -> Hashing {
        Hashing {
            file,
            hasher: TreeHasher::new(),
            offset: 0,
        }
    }

    /// Reads and hashes up to a mebibyte; `scratch` is a buffer to reuse.
    pub(crate) fn step(mut self, scratch: &mut Vec<u8>) -> Hashed {
        scratch.resize(STEP_BYTES, 0);
        match self.file.read_at(self.offset, scratch) {
            Err(error) => failed(&error),
            Ok(0) => match self.file.unchanged() {
                Ok(true) if self.offset == self.file.size() => Hashed::Done(self.hasher.finish()),
                Ok(_) => Hashed::Failed,
                Err(error) => failed(&error),
            },
            Ok(length) => {
                self.hasher.update(&scratch[..length]);
                self.offset += length as u64;
                Hashed::More(Box::new(self))
            }
        }
    }
}

fn failed(error: &FileError) -> Hashed {
    log::info!("{error}");
    Hashed::Failed
}
