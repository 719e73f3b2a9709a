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

    /// The state of the file that is read.
    #[cfg(feature = "sync")]
    pub(crate) fn identity(&self) -> crate::store::Identity {
        self.file.identity()
    }

    /// Reads and hashes up to a mebibyte; `scratch` is a buffer to reuse. The end of the file is not looked
    /// for: whether it is still where it was shows in the file's state.
    pub(crate) fn step(mut self, scratch: &mut Vec<u8>) -> Hashed {
        let length = (self.file.size() - self.offset).min(STEP_BYTES as u64) as usize;
        scratch.resize(length, 0);
        match self.file.read_at(self.offset, scratch) {
            Err(error) => return failed(&error),
            Ok(read) if read < length => return Hashed::Failed,
            Ok(_) => {}
        }
        self.hasher.update(scratch);
        self.offset += length as u64;
        if self.offset < self.file.size() {
            return Hashed::More(Box::new(self));
        }
        match self.file.unchanged() {
            Ok(true) => Hashed::Done(self.hasher.finish()),
            Ok(false) => Hashed::Failed,
            Err(error) => failed(&error),
        }
    }
}

fn failed(error: &FileError) -> Hashed {
    log::info!("{error}");
    Hashed::Failed
}
