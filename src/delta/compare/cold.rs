//! The asking side of a cold compare: from answers and the new file to the index of the basis.
//!
//! Never reads a clock or a socket. Invariant: chunks of the index come in order and complete, and only
//! when every leaf of the basis is known.

use std::ops::Range;

use super::bodies::{
    ANCHOR_BYTES, CompareError, LEAF_HEAD_BYTES, NODE_BYTES, RangesQuestion, SHORT_BYTES, SPOTS, TreeQuestion,
    leaf_count, unit_count,
};
use super::shifts::{Kinship, Shifts};
use super::units::{Origin, Run, Side, Units, bytes_of, push_range, push_run};
use crate::delta::index::{
    ANCHORS_PER_LEAF_MAX, Anchor, BLOCK_BYTES, BLOCKS_PER_LEAF, CHUNK_BYTES, ChunkIndex, IndexView, LeafSums,
};
use crate::delta::{Content, Torn};
use crate::model::limits::LEAF_BYTES;

/// What a step came to.
#[derive(Debug, PartialEq, Eq)]
pub enum Compared {
    /// The budget is used up.
    Working,
    /// Shortened hashes of these units are needed.
    AskLeaves(Vec<u8>),
    /// What an index holds of these leaves is needed.
    AskBlocks(Vec<u8>),
    /// The whole index would be cheaper.
    AskIndex,
    /// There is next to nothing in common.
    Strange,
    /// The next chunk of the basis' index, with the seed of the new file's.
    Chunk(u64, ChunkIndex),
    /// All chunks are out.
    Done,
}

/// A compare in progress. Memory: the answers, and 32 bytes for each run of leaves.
#[derive(Debug)]
pub struct ColdCompare {
    basis_length: u64,
    question: TreeQuestion,
    stage: Stage,
    shifts: Shifts,
    kinship: Kinship,
    /// The shift of the last unit that was found at one.
    last: i64,
    runs: Vec<Run>,
}

#[derive(Debug)]
enum Stage {
    AwaitTree,
    Scan(Units),
    Nodes(Units),
    AwaitLeaves(RangesQuestion),
    Leaves(Units),
    AwaitBlocks(RangesQuestion),
    Assemble {
        chunk: u64,
        run: usize,
        told: Vec<u8>,
        taken: usize,
    },
    Over,
}

/// Bytes of an answer with shortened hashes: beyond, units are larger.
const LEAVES_BYTES_MAX: u64 = 4 << 20;
/// Bytes of an answer about blocks: beyond, the whole index is asked for.
const BLOCKS_BYTES_MAX: u64 = 16 << 20;
/// Of one whole leaf.
const LEAF_TOLD_BYTES: u64 = (LEAF_HEAD_BYTES + 4 * BLOCKS_PER_LEAF) as u64;
/// Anchors of the new file that are looked at in one step.
const ANCHORS_PER_STEP: usize = 1 << 17;

impl ColdCompare {
    /// Of a basis of `basis_length` bytes; `seed` is that of the new file's index, `bits` the density of
    /// its anchors.
    ///
    /// # Errors
    /// When the basis is too long for questions about it.
    pub fn new(basis_length: u64, seed: u64, bits: u32) -> Result<ColdCompare, CompareError> {
        let question = TreeQuestion::new(basis_length, seed, bits);
        TreeQuestion::parse(&question.encode(), basis_length)?;
        Ok(ColdCompare {
            basis_length,
            question,
            stage: Stage::AwaitTree,
            shifts: Shifts::default(),
            kinship: Kinship::Unknown,
            last: 0,
            runs: Vec::new(),
        })
    }

    /// The first question.
    #[must_use]
    pub fn question(&self) -> Vec<u8> {
        self.question.encode()
    }

    /// The seed of the new file's index.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.question.seed
    }

    /// Bytes that the answer to the last question has at most: more need not be kept.
    #[must_use]
    pub fn answer_bytes_max(&self) -> u64 {
        match &self.stage {
            Stage::AwaitTree => {
                let nodes = unit_count(self.basis_length, self.question.height);
                nodes * NODE_BYTES as u64 + SPOTS * ANCHOR_BYTES as u64
            }
            Stage::AwaitLeaves(question) => question.count() * SHORT_BYTES as u64,
            Stage::AwaitBlocks(question) => self.told_bytes(question),
            _ => 0,
        }
    }

    /// Bytes of an answer about blocks.
    fn told_bytes(&self, question: &RangesQuestion) -> u64 {
        let told = |leaves: &Range<u64>| {
            let bytes = bytes_of(leaves, self.basis_length);
            let blocks = (bytes.end - bytes.start).div_ceil(BLOCK_BYTES as u64);
            (leaves.end - leaves.start) * LEAF_HEAD_BYTES as u64 + 4 * blocks
        };
        question.ranges.iter().map(told).sum()
    }

    /// The answer to the last question.
    ///
    /// # Errors
    /// When it is none.
    pub fn take(&mut self, answer: Vec<u8>) -> Result<(), CompareError> {
        let height = self.question.height;
        self.stage = match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::AwaitTree => {
                let count = unit_count(self.basis_length, height);
                let nodes = count as usize * NODE_BYTES;
                let anchors = answer.get(nodes..).ok_or(CompareError("subtrees"))?;
                self.shifts = Shifts::parse(anchors, self.basis_length)?;
                let mut hashes = answer;
                hashes.truncate(nodes);
                Stage::Scan(Units::new(
                    height,
                    std::iter::once(0..count).collect(),
                    hashes,
                    NODE_BYTES,
                ))
            }
            Stage::AwaitLeaves(question) => {
                if answer.len() as u64 != question.count() * SHORT_BYTES as u64 {
                    return Err(CompareError("leaves"));
                }
                Stage::Leaves(Units::new(question.height, question.ranges, answer, SHORT_BYTES))
            }
            Stage::AwaitBlocks(question) => {
                if answer.len() as u64 != self.told_bytes(&question) {
                    return Err(CompareError("blocks"));
                }
                self.begin_assembling(question.ranges, answer)
            }
            _ => return Err(CompareError("not asked")),
        };
        Ok(())
    }

    /// Works on for about `budget_bytes`. `view` is the index of the new file, `content` the file itself;
    /// both are the same in all steps.
    ///
    /// # Errors
    /// [`Torn`] when the file is.
    pub fn step(
        &mut self,
        view: &IndexView<'_>,
        content: &mut dyn Content,
        budget_bytes: u64,
    ) -> Result<Compared, Torn> {
        let mut side = Side {
            view,
            content,
            shifts: &self.shifts,
            basis_length: self.basis_length,
            seed: self.question.seed,
        };
        match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Scan(units) => {
                if !self.shifts.scan(view, ANCHORS_PER_STEP) {
                    self.stage = Stage::Scan(units);
                    return Ok(Compared::Working);
                }
                self.kinship = self.shifts.conclude();
                if self.kinship == Kinship::Scattered {
                    return Ok(Compared::AskIndex);
                }
                self.stage = Stage::Nodes(units);
                Ok(Compared::Working)
            }
            Stage::Nodes(mut units) => {
                if !units.step(&mut side, budget_bytes, &mut self.last)? {
                    self.stage = Stage::Nodes(units);
                    return Ok(Compared::Working);
                }
                self.runs = units.runs;
                Ok(self.after_nodes(units.open))
            }
            Stage::Leaves(mut units) => {
                if !units.step(&mut side, budget_bytes, &mut self.last)? {
                    self.stage = Stage::Leaves(units);
                    return Ok(Compared::Working);
                }
                self.runs.extend(units.runs);
                Ok(self.after_leaves(units.open))
            }
            Stage::Assemble {
                chunk,
                run,
                told,
                taken,
            } => self.assemble(view, content, (chunk, run, told, taken)),
            waiting => {
                debug_assert!(false, "an answer is taken first");
                self.stage = waiting;
                Ok(Compared::Strange)
            }
        }
    }

    /// Subtrees are compared: leaves of the others are next.
    fn after_nodes(&mut self, open: Vec<Range<u64>>) -> Compared {
        if self.runs.is_empty() && self.kinship == Kinship::Strange {
            return Compared::Strange;
        }
        if open.is_empty() {
            self.stage = self.begin_assembling(Vec::new(), Vec::new());
            return Compared::Working;
        }
        let leaves: u64 = open.iter().map(|range| range.end - range.start).sum();
        let mut height = 0;
        while (leaves >> height) * SHORT_BYTES as u64 > LEAVES_BYTES_MAX {
            height += 1;
        }
        // The ends of open ranges are those of subtrees, which are higher than any such unit.
        let height = height.min(self.question.height);
        let mut ranges = Vec::new();
        for range in open {
            push_range(&mut ranges, range.start >> height..range.end.div_ceil(1 << height));
        }
        let seed = self.question.seed;
        let mut question = RangesQuestion { seed, height, ranges };
        let body = question.encode();
        // Subtrees between joined ranges are known already: what is told of them replaces that.
        self.forget(&question);
        self.stage = Stage::AwaitLeaves(question);
        Compared::AskLeaves(body)
    }

    /// Leaves are compared: what is nowhere is asked for.
    fn after_leaves(&mut self, open: Vec<Range<u64>>) -> Compared {
        if self.runs.is_empty() {
            return match self.kinship {
                Kinship::Near => Compared::AskIndex,
                _ => Compared::Strange,
            };
        }
        if open.is_empty() {
            self.stage = self.begin_assembling(Vec::new(), Vec::new());
            return Compared::Working;
        }
        let mut question = RangesQuestion {
            seed: self.question.seed,
            height: 0,
            ranges: open,
        };
        let body = question.encode();
        if question.count() * LEAF_TOLD_BYTES > BLOCKS_BYTES_MAX {
            return Compared::AskIndex;
        }
        self.forget(&question);
        self.stage = Stage::AwaitBlocks(question);
        Compared::AskBlocks(body)
    }

    /// Takes out of the runs what is asked for again, because ranges were joined.
    fn forget(&mut self, question: &RangesQuestion) {
        let leaves = leaf_count(self.basis_length);
        self.runs.sort_unstable_by_key(|run| run.leaves.start);
        let mut kept = Vec::with_capacity(self.runs.len());
        let mut asked = question.ranges.iter().peekable();
        for run in &self.runs {
            let mut start = run.leaves.start;
            while let Some(range) = asked.peek() {
                let (from, to) = (range.start << question.height, leaves.min(range.end << question.height));
                if to <= start {
                    asked.next();
                    continue;
                }
                if from >= run.leaves.end {
                    break;
                }
                if start < from {
                    push_run(&mut kept, start..from, run.origin);
                }
                start = to;
                if start >= run.leaves.end {
                    break;
                }
            }
            if start < run.leaves.end {
                push_run(&mut kept, start..run.leaves.end, run.origin);
            }
        }
        self.runs = kept;
    }

    fn begin_assembling(&mut self, told_leaves: Vec<Range<u64>>, told: Vec<u8>) -> Stage {
        let origin = Origin::Told;
        self.runs
            .extend(told_leaves.into_iter().map(|leaves| Run { leaves, origin }));
        self.runs.sort_unstable_by_key(|run| run.leaves.start);
        debug_assert_eq!(
            self.runs
                .iter()
                .map(|run| run.leaves.end - run.leaves.start)
                .sum::<u64>(),
            leaf_count(self.basis_length)
        );
        Stage::Assemble {
            chunk: 0,
            run: 0,
            told,
            taken: 0,
        }
    }

    fn assemble(
        &mut self,
        view: &IndexView<'_>,
        content: &mut dyn Content,
        (number, mut run, told, mut taken): (u64, usize, Vec<u8>, usize),
    ) -> Result<Compared, Torn> {
        let per_chunk = (CHUNK_BYTES / LEAF_BYTES) as u64;
        let start = number * per_chunk;
        let end = leaf_count(self.basis_length).min(start + per_chunk);
        if start >= end {
            return Ok(Compared::Done);
        }
        let mut chunk = ChunkIndex::default();
        let mut at = start;
        while at < end {
            let Some(Run { leaves, origin }) = self.runs.get(run) else {
                return Err(Torn);
            };
            let part = at..leaves.end.min(end);
            let bytes = bytes_of(&part, self.basis_length);
            match *origin {
                Origin::New(0) => copy_part(view, &part, &bytes, &mut chunk),
                Origin::New(shift) => hash_part(view, content, shift, &bytes, self.question.seed, &mut chunk)?,
                Origin::Told => taken += read_part(&told[taken..], &bytes, &mut chunk),
            }
            at = part.end;
            if leaves.end == at {
                run += 1;
            }
        }
        chunk
            .anchors
            .truncate(ANCHORS_PER_LEAF_MAX * (CHUNK_BYTES / LEAF_BYTES));
        self.stage = Stage::Assemble {
            chunk: number + 1,
            run,
            told,
            taken,
        };
        Ok(Compared::Chunk(number, chunk))
    }
}

/// The anchors of the new file behind `bytes.start`, moved by `shift`, go to `chunk`.
fn take_anchors(view: &IndexView<'_>, shift: i64, bytes: &Range<u64>, chunk: &mut ChunkIndex) {
    let moved = |at: usize| {
        let anchor = view.anchor(at);
        let position = anchor.position.checked_add_signed(shift)?;
        let fingerprint = anchor.fingerprint;
        Some(Anchor { position, fingerprint })
    };
    let is_before = |at: usize| moved(at).is_none_or(|anchor| anchor.position <= bytes.start);
    let (mut low, mut high) = (0, view.anchor_count());
    while low < high {
        let middle = low.midpoint(high);
        if is_before(middle) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    let anchors = (low..view.anchor_count()).map_while(moved);
    chunk
        .anchors
        .extend(anchors.take_while(|anchor| anchor.position <= bytes.end));
}

/// Leaves that the new file has in the same place.
fn copy_part(view: &IndexView<'_>, leaves: &Range<u64>, bytes: &Range<u64>, chunk: &mut ChunkIndex) {
    let blocks = bytes.start / BLOCK_BYTES as u64..bytes.end.div_ceil(BLOCK_BYTES as u64);
    chunk.leaves.extend(leaves.clone().map(|at| *view.leaf(at)));
    chunk.strong.extend(leaves.clone().map(|at| view.strong(at)));
    // A short last leaf of the basis is in place only where it is the last of the new file, too.
    let known = view.sidecar().block_count();
    chunk
        .crcs
        .extend(blocks.map(|at| if at < known { view.crc(at) } else { 0 }));
    take_anchors(view, 0, bytes, chunk);
}

/// Leaves that the new file has at a shift.
fn hash_part(
    view: &IndexView<'_>,
    content: &mut dyn Content,
    shift: i64,
    bytes: &Range<u64>,
    seed: u64,
    chunk: &mut ChunkIndex,
) -> Result<(), Torn> {
    let from = bytes.start.checked_add_signed(-shift).ok_or(Torn)?;
    let new = content.bytes(from, (bytes.end - bytes.start) as usize)?;
    chunk.push(LeafSums::of(new, seed));
    take_anchors(view, shift, bytes, chunk);
    Ok(())
}

/// Leaves that were told; returns the bytes that say so. Their number was compared.
fn read_part(told: &[u8], bytes: &Range<u64>, chunk: &mut ChunkIndex) -> usize {
    let mut taken = 0;
    let mut at = bytes.start;
    while at < bytes.end {
        let length = (bytes.end - at).min(LEAF_BYTES as u64) as usize;
        let (head, rest) = told[taken..].split_at(LEAF_HEAD_BYTES);
        let crcs = &rest[..4 * length.div_ceil(BLOCK_BYTES)];
        chunk.leaves.push(head[..32].try_into().expect("32 bytes"));
        let strong = head[32..].try_into().expect("16 bytes");
        chunk.strong.push(u128::from_le_bytes(strong));
        let crc = |crc: &[u8]| u32::from_le_bytes(crc.try_into().expect("four bytes"));
        chunk.crcs.extend(crcs.chunks_exact(4).map(crc));
        taken += LEAF_HEAD_BYTES + crcs.len();
        at += length as u64;
    }
    taken
}

#[cfg(test)]
#[path = "cold_tests.rs"]
mod tests;
