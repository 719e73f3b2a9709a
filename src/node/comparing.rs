//! A large file whose basis only the receiver knows: compared in steps, with questions in between.
//!
//! 1. The first question goes out at once. With its answer the file is indexed, unless it was before.
//! 2. Answers and that index make the index of the basis, which goes into the store; or the receiver's
//!    own does, as it comes.
//! 3. What the store then hands out was checked against the root: the file is sent as one with a warm
//!    basis.
//!
//! Never sends anything. Invariant: nothing that was told is used before the root has proven it.

use super::deltas::Deltas;
use super::examining::Survey;
use super::mapped::MappedContent;
use crate::delta::Torn;
use crate::delta::compare::{ColdCompare, Compared};
use crate::delta::index::{Parts, Sidecar, anchor_bits};
use crate::model::ContentId;
use crate::store::{MappedSidecar, SidecarCopy, SidecarWriter, SourceFile};
use crate::wire::Topic;

/// A compare in progress.
pub(super) struct Comparing {
    basis: ContentId,
    cold: ColdCompare,
    stage: Stage,
    /// The answer to the last question, as far as it came.
    answer: Option<Vec<u8>>,
}

enum Stage {
    /// The file is not open in a way to compare it.
    Begun(SourceFile),
    Surveying(Box<Survey>),
    Comparing(Box<Pair>),
    Copying {
        file: SourceFile,
        copy: SidecarCopy,
    },
}

/// The new file and its index, and as much of the index of the basis as is found.
struct Pair {
    content: MappedContent,
    own: MappedSidecar,
    found: Option<SidecarWriter>,
}

/// What a step came to.
pub(super) enum Step {
    More(Comparing),
    /// This has to be known first; then it goes on.
    Ask(Comparing, Topic, Vec<u8>),
    /// The index of the basis is in the store.
    Found(SourceFile),
    /// It is cheaper to send the file whole, or there is no other way.
    Useless(SourceFile),
}

/// Bytes that a step works on.
const STEP_BYTES: u64 = 4 << 20;

impl Comparing {
    /// Begins with `file`, which is to replace `basis`: the first question.
    pub(super) fn begin(file: SourceFile, basis: &ContentId, deltas: &Deltas) -> Step {
        let own = deltas.content_of(&file.identity());
        let own = own.filter(|id| id.length == file.size());
        let own = own.and_then(|id| deltas.open_full(&id));
        let mut random = [0; 8];
        let seed = match &own {
            Some(own) => own.view().sidecar().seed,
            None if getrandom::fill(&mut random).is_ok() => u64::from_le_bytes(random),
            None => return Step::Useless(file),
        };
        let Ok(cold) = ColdCompare::new(basis.length, seed, anchor_bits(file.size())) else {
            return Step::Useless(file);
        };
        let question = cold.question();
        let stage = match own {
            Some(own) => Stage::Comparing(Box::new(Pair::new(file, own))),
            None => Stage::Begun(file),
        };
        let comparing = Comparing {
            basis: *basis,
            cold,
            stage,
            answer: Some(Vec::new()),
        };
        Step::Ask(comparing, Topic::Tree, question)
    }

    /// Whether it is about this basis.
    pub(super) fn is_about(&self, basis: &ContentId) -> bool {
        self.basis == *basis
    }

    /// More of an answer. One that is too long is not kept, and so not taken in the end.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        if let Stage::Copying { copy, .. } = &mut self.stage {
            copy.push(bytes);
        } else if let Some(answer) = &mut self.answer {
            let left = self.cold.answer_bytes_max() + 1 - answer.len() as u64;
            answer.extend_from_slice(&bytes[..bytes.len().min(left as usize)]);
        }
    }

    /// Works on for a bounded time, once the answer is complete.
    pub(super) fn step(self, deltas: &Deltas) -> Step {
        let Comparing {
            basis,
            mut cold,
            stage,
            answer,
        } = self;
        if let Stage::Copying { file, copy } = stage {
            deltas.accept(copy, &basis);
            return found(file, &basis, deltas);
        }
        if let Some(answer) = answer
            && let Err(error) = cold.take(answer)
        {
            log::debug!("{error}");
            return Step::Useless(stage.into_file(deltas));
        }
        let stage = match stage {
            Stage::Begun(file) => Stage::Surveying(Box::new(Survey::new(file, deltas, Some(cold.seed())))),
            Stage::Surveying(mut survey) => {
                if survey.index_chunk() {
                    return Step::More(Comparing {
                        basis,
                        cold,
                        stage: Stage::Surveying(survey),
                        answer: None,
                    });
                }
                let (file, id) = survey.finish(deltas);
                let own = id.and_then(|id| deltas.open_full(&id));
                match own.filter(|own| own.view().sidecar().seed == cold.seed()) {
                    Some(own) => Stage::Comparing(Box::new(Pair::new(file, own))),
                    None => return Step::Useless(file),
                }
            }
            Stage::Comparing(pair) => return compare(basis, cold, pair, deltas),
            Stage::Copying { file, .. } => return Step::Useless(file),
        };
        Step::More(Comparing {
            basis,
            cold,
            stage,
            answer: None,
        })
    }
}

/// One step of the compare itself.
fn compare(basis: ContentId, mut cold: ColdCompare, mut pair: Box<Pair>, deltas: &Deltas) -> Step {
    let compared = match cold.step(&pair.own.view(), &mut pair.content, STEP_BYTES) {
        Ok(compared) if !pair.own.is_torn() => compared,
        Ok(_) | Err(Torn) => return Step::Useless(pair.content.into_file()),
    };
    let question = match compared {
        Compared::Working => None,
        Compared::AskLeaves(body) => Some((Topic::Leaves, body)),
        Compared::AskBlocks(body) => Some((Topic::Blocks, body)),
        Compared::AskIndex => return copy_index(basis, cold, pair.content.into_file(), deltas),
        Compared::Strange => return Step::Useless(pair.content.into_file()),
        Compared::Chunk(number, chunk) => {
            if number == 0 {
                pair.found = deltas.begin_with(basis.length, Parts::Full, cold.seed());
            }
            match &mut pair.found {
                Some(writer) => writer.put(number, &chunk),
                None => return Step::Useless(pair.content.into_file()),
            }
            None
        }
        Compared::Done => {
            deltas.keep(pair.found, &basis);
            return found(pair.content.into_file(), &basis, deltas);
        }
    };
    let comparing = Comparing {
        basis,
        cold,
        stage: Stage::Comparing(pair),
        answer: question.as_ref().map(|_| Vec::new()),
    };
    match question {
        Some((topic, body)) => Step::Ask(comparing, topic, body),
        None => Step::More(comparing),
    }
}

/// Asks for the index as it is.
fn copy_index(basis: ContentId, cold: ColdCompare, file: SourceFile, deltas: &Deltas) -> Step {
    let sidecar = Sidecar::new(basis.length, Parts::Full, 0);
    // Two anchors at the most for every KiB.
    let bytes_max = sidecar.total_bytes(sidecar.block_count() * 2);
    let Some(copy) = deltas.receive(bytes_max) else {
        return Step::Useless(file);
    };
    let comparing = Comparing {
        basis,
        cold,
        stage: Stage::Copying { file, copy },
        answer: None,
    };
    Step::Ask(comparing, Topic::Index, Vec::new())
}

fn found(file: SourceFile, basis: &ContentId, deltas: &Deltas) -> Step {
    match deltas.open_full(basis) {
        Some(_) => Step::Found(file),
        None => Step::Useless(file),
    }
}

impl Pair {
    fn new(file: SourceFile, own: MappedSidecar) -> Pair {
        Pair {
            content: MappedContent::new(file),
            own,
            found: None,
        }
    }
}

impl Stage {
    fn into_file(self, deltas: &Deltas) -> SourceFile {
        match self {
            Stage::Begun(file) | Stage::Copying { file, .. } => file,
            Stage::Surveying(survey) => survey.finish(deltas).0,
            Stage::Comparing(pair) => pair.content.into_file(),
        }
    }
}
