//! Reading a file that is here, in steps, to know its content: to compare it, or as a basis.
//!
//! Never decides what follows from it. Invariant: an id is given only of a file that stayed the same
//! from open to end.

use super::content::{Hashed, Hashing};
use super::deltas::Deltas;
use super::verifying::{Task, Verifying};
use crate::delta::index::Parts;
use crate::model::ContentId;
use crate::model::limits::MEDIUM_BYTES_MAX;
use crate::store::SourceFile;

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
    More(Examining),
    /// The content; `None` when it changed meanwhile or cannot be read.
    Done(Option<ContentId>, Purpose),
}

impl Examining {
    pub(super) fn new(file: SourceFile, purpose: Purpose, deltas: &Deltas) -> Examining {
        let large = file.size() > MEDIUM_BYTES_MAX && purpose == Purpose::Basis;
        let reading = match large {
            true => Reading::Indexing(Box::new(Survey::new(file, deltas, None))),
            false => Reading::Plain(Box::new(Hashing::new(file))),
        };
        Examining { reading, purpose }
    }

    /// Reads on, by one chunk at the most.
    pub(super) fn step(self, scratch: &mut Vec<u8>, deltas: &Deltas) -> Examined {
        let purpose = self.purpose;
        match self.reading {
            Reading::Plain(hashing) => match hashing.step(scratch) {
                Hashed::More(hashing) => Examined::More(Examining {
                    reading: Reading::Plain(hashing),
                    purpose,
                }),
                Hashed::Done(id) => Examined::Done(Some(id), purpose),
                Hashed::Failed => Examined::Done(None, purpose),
            },
            Reading::Indexing(mut survey) => {
                if survey.index_chunk() {
                    let reading = Reading::Indexing(survey);
                    return Examined::More(Examining { reading, purpose });
                }
                Examined::Done(survey.finish(deltas).1, purpose)
            }
        }
    }
}

/// A large file and the index that is made of it.
#[derive(Debug)]
pub(super) struct Survey {
    file: SourceFile,
    verifying: Verifying,
}

impl Survey {
    /// Of a large file, with a seed that is given or a new one.
    pub(super) fn new(file: SourceFile, deltas: &Deltas, seed: Option<u64>) -> Survey {
        let sidecar = match seed {
            Some(seed) => deltas.begin_with(file.size(), Parts::Full, seed),
            None => deltas.begin(file.size(), Parts::Full),
        };
        let verifying = Verifying::new(file.shared_file(), 0, sidecar);
        Survey { file, verifying }
    }

    /// Indexes the next whole chunk; `false` when only the rest is left.
    pub(super) fn index_chunk(&mut self) -> bool {
        let task = self.verifying.task();
        let (_, end) = self.verifying.next_range();
        if end > self.file.size() {
            return false;
        }
        if let Some(check) = self.verifying.next_check(end, || task) {
            let checked = check.run();
            self.verifying.checked(&checked);
        }
        true
    }

    /// Ends it, and keeps the index. The content; `None` when it changed meanwhile or cannot be read.
    pub(super) fn finish(self, deltas: &Deltas) -> (SourceFile, Option<ContentId>) {
        let Survey { file, verifying } = self;
        let task: Task = verifying.task();
        let Some((id, sidecar)) = verifying.finish(file.size(), task) else {
            return (file, None);
        };
        if !file.unchanged().unwrap_or(false) {
            return (file, None);
        }
        deltas.keep(sidecar, &id);
        deltas.note(&id, &file.identity());
        (file, Some(id))
    }
}
