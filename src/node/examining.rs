//! Reading a file that is here, in steps, to know its content: to compare it, or as a basis.
//!
//! Never decides what follows from it. Invariant: an id is given only of a file that stayed the same
//! from open to end.

use super::content::{Hashed, Hashing};
use super::deltas::Deltas;
use super::verifying::{Task, Verifying};
use crate::delta::index::{CHUNK_BYTES, Parts};
use crate::model::ContentId;
use crate::model::limits::MEDIUM_BYTES_MAX;
use crate::store::SourceFile;
use std::sync::Arc;

/// A file that is being read.
#[derive(Debug)]
pub(super) struct Examining {
    reading: Reading,
    purpose: Purpose,
}

/// What the content is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// It may be what is offered.
    Compare,
    /// It is going to be replaced, by a patch if possible.
    Basis,
}

#[derive(Debug)]
enum Reading {
    Plain(Box<Hashing>),
    /// A large file, whose index is made on the way.
    Indexing(Box<Survey>),
}

/// How a step ended.
#[derive(Debug)]
pub(super) enum Examined {
    More(Box<Examining>),
    /// The content; `None` when it changed meanwhile or cannot be read.
    Done(Option<ContentId>, Purpose),
}

impl Examining {
    pub(super) fn new(file: SourceFile, purpose: Purpose, deltas: &Deltas) -> Examining {
        let large = file.size() > MEDIUM_BYTES_MAX && purpose == Purpose::Basis;
        let shared = large.then(|| file.file().try_clone().ok()).flatten();
        let reading = match shared {
            Some(shared) => {
                let sidecar = deltas.begin(file.size(), Parts::Full);
                let verifying = Verifying::new(Arc::new(shared), 0, sidecar);
                Reading::Indexing(Box::new(Survey { file, verifying }))
            }
            None => Reading::Plain(Box::new(Hashing::new(file))),
        };
        Examining { reading, purpose }
    }

    /// Reads on, by one chunk at the most.
    pub(super) fn step(self, scratch: &mut Vec<u8>, deltas: &Deltas) -> Examined {
        let purpose = self.purpose;
        match self.reading {
            Reading::Plain(hashing) => match (*hashing).step(scratch) {
                Hashed::More(hashing) => Examined::More(Box::new(Examining {
                    reading: Reading::Plain(hashing),
                    purpose,
                })),
                Hashed::Done(id) => Examined::Done(Some(id), purpose),
                Hashed::Failed => Examined::Done(None, purpose),
            },
            Reading::Indexing(mut survey) => {
                if survey.index_chunk() {
                    let reading = Reading::Indexing(survey);
                    return Examined::More(Box::new(Examining { reading, purpose }));
                }
                Examined::Done(survey.finish(deltas), purpose)
            }
        }
    }
}

/// A large file and the index that is made of it.
#[derive(Debug)]
struct Survey {
    file: SourceFile,
    verifying: Verifying,
}

impl Survey {
    /// Indexes the next whole chunk; `false` when only the rest is left.
    fn index_chunk(&mut self) -> bool {
        let task = self.verifying.task();
        let end = (self.verifying.next_chunk() as u64 + 1) * CHUNK_BYTES as u64;
        if end > self.file.size() {
            return false;
        }
        if let Some(check) = self.verifying.next_check(end, || task) {
            let checked = check.run();
            self.verifying.checked(&checked);
        }
        true
    }

    fn finish(self, deltas: &Deltas) -> Option<ContentId> {
        let task: Task = self.verifying.task();
        let (id, sidecar) = self.verifying.finish(self.file.size(), task)?;
        if !self.file.unchanged().ok()? {
            return None;
        }
        deltas.keep(sidecar, &id);
        deltas.note(&id, &self.file.identity());
        Some(id)
    }
}
