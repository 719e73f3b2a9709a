//! Questions about bases, answered one after the other in bounded pieces.
//!
//! The questions come from the peer and are checked by the machine; what they are about is a file here.
//! Invariant: only the basis that was named is told about; a file that changed since is told as empty.

use super::examining::Survey;
use super::place::Place;
use crate::conn::Receiver;
use crate::delta::compare::{BlocksAnswer, LeavesAnswer, RangesQuestion, TreeAnswer, TreeQuestion};
use crate::delta::signature::SignatureBuilder;
use crate::model::limits::{MEDIUM_BYTES_MAX, TELL_BYTES_MAX};
use crate::model::{ContentId, RelPath};
use crate::reactor::Activity;
use crate::store::{Identity, MappedSidecar, SourceFile};
use crate::wire::{Ask, Topic};
use std::collections::VecDeque;
use std::ops::Range;

/// Open questions, the first of which is being answered.
#[derive(Default)]
pub(super) struct Questions {
    queue: VecDeque<Question>,
    telling: Option<Telling>,
}

struct Question {
    file: u32,
    topic: Topic,
    basis: Named,
    id: ContentId,
    body: Box<[u8]>,
}

/// The file whose content was named.
pub(super) enum Named {
    /// It is in its place, and had this identity.
    InPlace(RelPath, Identity),
    /// It was pieced together.
    Staged(SourceFile),
    /// It cannot be read any more.
    Gone,
}

/// The answer to the first question.
enum Telling {
    /// The basis is read first.
    Signing {
        source: SourceFile,
        builder: Box<SignatureBuilder>,
        offset: u64,
    },
    /// Its index is made first.
    Surveying(Box<Survey>),
    Tree {
        source: SourceFile,
        sidecar: MappedSidecar,
        answer: Box<TreeAnswer>,
    },
    Leaves {
        sidecar: MappedSidecar,
        answer: LeavesAnswer,
    },
    Blocks {
        source: SourceFile,
        answer: BlocksAnswer,
        body: Vec<u8>,
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
/// Leaves hashed in one visit: as fast as reading that much.
const LEAVES_PER_VISIT: u64 = 1 << 14;

impl Questions {
    /// Takes a question about a file whose content was named as `id`.
    pub(super) fn push(&mut self, ask: &Ask<'_>, basis: Named, id: ContentId) {
        self.queue.push_back(Question {
            file: ask.file,
            topic: ask.topic,
            basis,
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
            None if !place.deltas.prepare(&question.id) => return Activity::More,
            None => question.begin(place, MayRead::Yes),
        };
        self.telling = telling.go_on(question, place, receiver, scratch);
        if self.telling.is_none() {
            self.queue.pop_front();
        }
        Activity::More
    }
}

/// Whether a basis without an index may be read to make one: once for a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MayRead {
    Yes,
    No,
}

impl Question {
    fn begin(&self, place: &Place, may_read: MayRead) -> Telling {
        let is_medium = self.id.length <= MEDIUM_BYTES_MAX;
        let telling = match self.topic {
            Topic::Signature if is_medium => self.sign(place),
            Topic::Blocks => self.list_blocks(place),
            Topic::Tree | Topic::Leaves | Topic::Index if !is_medium => self.look_up(place, may_read),
            _ => None,
        };
        telling.unwrap_or_else(nothing)
    }

    /// The file, if it is still what was named.
    fn open(&self, place: &Place) -> Option<SourceFile> {
        match &self.basis {
            Named::InPlace(path, identity) => {
                let source = place.root.open_file(path).ok()?;
                (source.identity() == *identity).then_some(source)
            }
            Named::Staged(source) => Some(source.share()),
            Named::Gone => None,
        }
    }

    fn sign(&self, place: &Place) -> Option<Telling> {
        let seed = u64::from_le_bytes(self.body.get(..8)?.try_into().ok()?);
        Some(Telling::Signing {
            builder: Box::new(SignatureBuilder::new(seed)),
            source: self.open(place)?,
            offset: 0,
        })
    }

    /// What a sidecar is enough for; without one, the file is read.
    fn look_up(&self, place: &Place, may_read: MayRead) -> Option<Telling> {
        let sidecar = match self.topic {
            Topic::Index => place.deltas.open_full(&self.id),
            _ => place.deltas.open(&self.id),
        };
        let Some(sidecar) = sidecar else {
            let source = self.open(place).filter(|_| may_read == MayRead::Yes)?;
            let survey = Survey::new(source, &place.deltas, None);
            return Some(Telling::Surveying(Box::new(survey)));
        };
        let length = self.id.length;
        Some(match self.topic {
            Topic::Tree => {
                let question = TreeQuestion::parse(&self.body, length).ok()?;
                Telling::Tree {
                    source: self.open(place)?,
                    sidecar,
                    answer: Box::new(TreeAnswer::new(question, length)),
                }
            }
            Topic::Leaves => {
                let question = RangesQuestion::parse(&self.body, length).ok()?;
                let answer = LeavesAnswer::new(question, length);
                Telling::Leaves { sidecar, answer }
            }
            _ => Telling::Index { sidecar, told: 0 },
        })
    }

    fn list_blocks(&self, place: &Place) -> Option<Telling> {
        let question = RangesQuestion::parse(&self.body, self.id.length).ok()?;
        Some(Telling::Blocks {
            answer: BlocksAnswer::new(question, self.id.length)?,
            source: self.open(place)?,
            body: Vec::new(),
        })
    }
}

/// What is told of a file that is not what it was: nothing that could be taken for an answer.
fn nothing() -> Telling {
    Telling::Bytes {
        bytes: Vec::new(),
        told: 0,
    }
}

impl Telling {
    fn go_on(
        self,
        question: &Question,
        place: &Place,
        receiver: &mut Receiver,
        scratch: &mut Vec<u8>,
    ) -> Option<Telling> {
        match self {
            Telling::Signing {
                source,
                builder,
                offset,
            } => Some(sign_on(source, builder, offset, scratch)),
            Telling::Surveying(mut survey) => {
                if survey.index_chunk() {
                    return Some(Telling::Surveying(survey));
                }
                let (_, id) = survey.finish(&place.deltas);
                Some(match id {
                    Some(id) if id == question.id => question.begin(place, MayRead::No),
                    _ => nothing(),
                })
            }
            Telling::Tree {
                source,
                sidecar,
                answer,
            } => Some(tree_on(source, sidecar, answer, scratch)),
            Telling::Leaves { sidecar, mut answer } => {
                let mut body = Vec::new();
                let is_last = answer.step(&sidecar.view(), TELL_BYTES_MAX, &mut body);
                receiver.tell(question.file, question.topic, &body, is_last);
                (!is_last).then_some(Telling::Leaves { sidecar, answer })
            }
            Telling::Blocks { source, answer, body } => Some(blocks_on(source, answer, body, scratch)),
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

/// Reads on for a signature.
fn sign_on(source: SourceFile, mut builder: Box<SignatureBuilder>, offset: u64, scratch: &mut Vec<u8>) -> Telling {
    scratch.resize(READ_BYTES, 0);
    let read = source.read_at(offset, scratch).unwrap_or(0);
    if read > 0 {
        builder.push(&scratch[..read]);
        return Telling::Signing {
            source,
            builder,
            offset: offset + read as u64,
        };
    }
    let is_same = source.unchanged().unwrap_or(false) && offset == source.size();
    let bytes = if is_same { builder.finish() } else { Vec::new() };
    Telling::Bytes { bytes, told: 0 }
}

/// Goes on with subtrees, then with anchors.
fn tree_on(source: SourceFile, sidecar: MappedSidecar, mut answer: Box<TreeAnswer>, scratch: &mut Vec<u8>) -> Telling {
    let mut read = 0;
    while answer.hash(&sidecar.view(), LEAVES_PER_VISIT) && read < READ_BYTES {
        let Some(range) = answer.wants() else {
            let bytes = answer.finish();
            return Telling::Bytes { bytes, told: 0 };
        };
        if !read_range(&source, &range, scratch) {
            return nothing();
        }
        answer.push(scratch);
        read += scratch.len();
    }
    Telling::Tree {
        source,
        sidecar,
        answer,
    }
}

/// Reads on for leaves.
fn blocks_on(source: SourceFile, mut answer: BlocksAnswer, mut body: Vec<u8>, scratch: &mut Vec<u8>) -> Telling {
    let mut read = 0;
    while read < READ_BYTES {
        let Some(range) = answer.wants() else {
            return Telling::Bytes { bytes: body, told: 0 };
        };
        if !read_range(&source, &range, scratch) {
            return nothing();
        }
        answer.push(scratch, &mut body);
        read += scratch.len();
    }
    Telling::Blocks { source, answer, body }
}

/// Fills `scratch` with just the bytes of `range`; `false` when the file does not have them.
fn read_range(source: &SourceFile, range: &Range<u64>, scratch: &mut Vec<u8>) -> bool {
    let length = (range.end - range.start) as usize;
    scratch.resize(length, 0);
    source.read_at(range.start, scratch).is_ok_and(|read| read == length)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::options::Durability;
    use crate::store::Root;

    /// A question is answered whatever has become of the file: the sender waits for it.
    #[test]
    fn what_is_gone_is_told_as_empty() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::new(Root::open(dir.path()).unwrap(), Durability::None);
        for (topic, length) in Topic::ALL.into_iter().flat_map(|topic| [(topic, 9), (topic, 1 << 30)]) {
            let mut questions = Questions::default();
            let id = ContentId { length, root: [1; 32] };
            let (file, body) = (0, [0; 8].as_slice());
            questions.push(&Ask { file, topic, body }, Named::Gone, id);
            let telling = questions.queue[0].begin(&place, MayRead::Yes);
            assert!(
                matches!(telling, Telling::Bytes { bytes, told: 0 } if bytes.is_empty()),
                "{topic:?}"
            );
        }
    }
}
