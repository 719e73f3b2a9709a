//! Questions about bases, answered one after the other in bounded pieces.
//!
//! The questions come from the peer and are checked by the machine; what they are about is a file here.
//! Invariant: only the basis that was named is told about; a file that changed since is told as empty.

use super::deltas::Deltas;
use super::place::Place;
use crate::conn::Receiver;
use crate::delta::signature::SignatureBuilder;
use crate::model::limits::{MEDIUM_BYTES_MAX, TELL_BYTES_MAX};
use crate::model::{ContentId, RelPath};
use crate::reactor::Activity;
use crate::store::{Identity, MappedSidecar, SourceFile};
use crate::wire::{Ask, Topic};
use std::collections::VecDeque;

/// Open questions, the first of which is being answered.
#[derive(Default)]
pub(super) struct Questions {
    queue: VecDeque<Question>,
    telling: Option<Telling>,
}

struct Question {
    file: u32,
    topic: Topic,
    path: RelPath,
    identity: Identity,
    id: ContentId,
    body: Box<[u8]>,
}

/// The answer to the first question.
enum Telling {
    /// The basis is read first.
    Signing {
        source: SourceFile,
        builder: Box<SignatureBuilder>,
        offset: u64,
    },
    Bytes {
        bytes: Vec<u8>,
        told: usize,
    },
    Index {
        sidecar: MappedSidecar,
        told: usize,
    },
}

/// Pieces told in one visit.
const PIECES_PER_VISIT: usize = 2;
/// Bytes read in one visit.
const READ_BYTES: usize = 1 << 20;

impl Questions {
    /// Takes a question about the file at `path`, which had this identity when its content was named.
    pub(super) fn push(&mut self, ask: &Ask<'_>, path: RelPath, identity: Identity, id: ContentId) {
        self.queue.push_back(Question {
            file: ask.file,
            topic: ask.topic,
            path,
            identity,
            id,
            body: ask.body.into(),
        });
    }

    /// The file is settled: nobody waits for the answer.
    pub(super) fn forget(&mut self, file: u32) {
        if self.queue.front().is_some_and(|question| question.file == file) {
            self.telling = None;
        }
        self.queue.retain(|question| question.file != file);
    }

    /// Answers on, by a bounded amount.
    pub(super) fn step(&mut self, receiver: &mut Receiver, place: &Place, scratch: &mut Vec<u8>) -> Activity {
        let Some(question) = self.queue.front() else {
            return Activity::Idle;
        };
        let telling = match self.telling.take() {
            Some(telling) => telling,
            None => question.begin(place),
        };
        self.telling = telling.go_on(question, receiver, scratch);
        if self.telling.is_none() {
            self.queue.pop_front();
        }
        Activity::More
    }
}

impl Question {
    fn begin(&self, place: &Place) -> Telling {
        let nothing = Telling::Bytes {
            bytes: Vec::new(),
            told: 0,
        };
        match self.topic {
            Topic::Signature if self.id.length <= MEDIUM_BYTES_MAX => self.sign(place).unwrap_or(nothing),
            Topic::Index => match place.deltas.open_full(&self.id) {
                Some(sidecar) => Telling::Index { sidecar, told: 0 },
                None => nothing,
            },
            Topic::Signature | Topic::Tree | Topic::Leaves | Topic::Blocks => nothing,
        }
    }

    fn sign(&self, place: &Place) -> Option<Telling> {
        let seed = u64::from_le_bytes(self.body.get(..8)?.try_into().ok()?);
        let source = place.root.open_file(&self.path).ok()?;
        (source.identity() == self.identity).then(|| Telling::Signing {
            builder: Box::new(SignatureBuilder::new(seed)),
            source,
            offset: 0,
        })
    }
}

impl Telling {
    fn go_on(self, question: &Question, receiver: &mut Receiver, scratch: &mut Vec<u8>) -> Option<Telling> {
        match self {
            Telling::Signing {
                source,
                mut builder,
                offset,
            } => {
                scratch.resize(READ_BYTES, 0);
                let read = source.read_at(offset, scratch).unwrap_or(0);
                if read > 0 {
                    builder.push(&scratch[..read]);
                    return Some(Telling::Signing {
                        source,
                        builder,
                        offset: offset + read as u64,
                    });
                }
                let is_same = source.unchanged().unwrap_or(false) && offset == source.size();
                let bytes = if is_same { builder.finish() } else { Vec::new() };
                Some(Telling::Bytes { bytes, told: 0 })
            }
            Telling::Bytes { bytes, told } => {
                let told = tell(question, &bytes, told, receiver)?;
                Some(Telling::Bytes { bytes, told })
            }
            Telling::Index { sidecar, told } => {
                let told = tell(question, sidecar.bytes(), told, receiver)?;
                Some(Telling::Index { sidecar, told })
            }
        }
    }
}

/// Tells the next pieces of `bytes`; `None` when those were the last.
fn tell(question: &Question, bytes: &[u8], mut told: usize, receiver: &mut Receiver) -> Option<usize> {
    for _ in 0..PIECES_PER_VISIT {
        let end = bytes.len().min(told + TELL_BYTES_MAX);
        let is_last = end == bytes.len();
        receiver.tell(question.file, question.topic, &bytes[told..end], is_last);
        if is_last {
            return None;
        }
        told = end;
    }
    Some(told)
}

impl Deltas {
    /// The sidecar of `id`, if it has all sections.
    fn open_full(&self, id: &ContentId) -> Option<MappedSidecar> {
        let sidecar = self.open(id)?;
        let is_full = sidecar.view().sidecar().parts == crate::delta::index::Parts::Full;
        is_full.then_some(sidecar)
    }
}
