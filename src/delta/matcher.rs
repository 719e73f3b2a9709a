//! The matcher: a new file against the index of its basis, chunk by chunk, into operations and the new
//! file's own index.
//!
//! Never sees the basis itself. Invariant: operations cover the new file once, in order, and depend on
//! the basis and the content alone, not on budgets.
//!
//! Of each chunk of 4 MiB:
//! 1. what stays in place is found leaf by leaf ([`span`](super::span));
//! 2. the gaps are searched for what moved, by shifts and anchors, then by rolling
//!    ([`search`](super::search));
//! 3. what is between two copies is an edit when the basis has as many bytes between them, else literal.

use std::ops::Range;

use super::basis::{Basis, Window, Work};
use super::content::{Content, Torn};
use super::index::{BLOCK_BYTES, CHUNK_BYTES, ChunkIndex, IndexView};
use super::plan::Op;
use super::search::{Match, Scene, Search};
use super::span::Span;

/// Bytes before a chunk that are looked at: a block that begins before it, or an anchor's context.
const BEFORE_BYTES: u64 = 16 * 1024;
/// Bytes after a chunk that are looked at: the neighbour of a block that begins in it.
const AFTER_BYTES: u64 = 16 * 1024;
const _: () = assert!(BEFORE_BYTES >= 2 * BLOCK_BYTES as u64);
const _: () = assert!(CHUNK_BYTES + (BEFORE_BYTES + AFTER_BYTES) as usize <= super::content::STRETCH_BYTES_MAX);

/// By what leaves count as equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// xxh3-128 with the seed of the index.
    Fast,
    /// SHA-256.
    Checksum,
}

/// What a step came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// The budget is used up.
    Working,
    /// The next chunk is done: its operations are out, and this is its index, with the seed of the
    /// basis and the `anchor_bits` of the new length.
    Chunk(ChunkIndex),
    /// All chunks are done.
    Done,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Compare,
    Seek,
    Roll,
    Emit,
}

/// A match in progress. Memory: at most 8 MiB for the anchors of the basis, 10 MiB for its blocks,
/// 4 MiB for pairs of edits, and about 100 KB for a chunk.
#[derive(Debug)]
pub struct Matcher {
    new_length: u64,
    stage: Stage,
    span: Span,
    search: Search,
    /// What is found of the chunk.
    matches: Vec<Match>,
    /// Where the basis goes on after the last operation.
    cursor: u64,
    work: Work,
}

impl Matcher {
    /// For a new file of `new_length` bytes.
    #[must_use]
    pub fn new(new_length: u64, comparison: Comparison) -> Matcher {
        Matcher {
            new_length,
            stage: Stage::Compare,
            span: Span::new(new_length, comparison),
            search: Search::new(),
            matches: Vec::new(),
            cursor: 0,
            work: Work::default(),
        }
    }

    /// What it cost so far.
    #[must_use]
    pub fn work(&self) -> Work {
        self.work
    }

    /// Works on for about `budget_bytes`; the operations of a finished chunk go to `out`. `base` is the
    /// same in all steps; an index without sections for matching is taken as that of an empty file.
    ///
    /// # Errors
    /// [`Torn`] when `new` is, or has another length: everything so far is void.
    pub fn step(
        &mut self,
        base: &IndexView<'_>,
        new: &mut dyn Content,
        budget_bytes: usize,
        out: &mut Vec<Op>,
    ) -> Result<Progress, Torn> {
        if new.length() != self.new_length {
            return Err(Torn);
        }
        if self.span.start == self.new_length {
            return Ok(Progress::Done);
        }
        let start = self.span.start.saturating_sub(BEFORE_BYTES);
        let span = self.span.start..self.new_length.min(self.span.start + CHUNK_BYTES as u64);
        let end = self.new_length.min(span.end + AFTER_BYTES);
        let window = Window {
            start,
            bytes: new.bytes(start, (end - start) as usize)?,
        };
        let scene = Scene {
            basis: Basis::new(base),
            window,
        };
        let enough = self.work.total().saturating_add(budget_bytes as u64);
        loop {
            if self.stage == Stage::Emit {
                return Ok(Progress::Chunk(self.emit(&span, out)));
            }
            if self.advance(&scene, &span) {
                self.enter(&scene, &span);
            } else if self.work.total() >= enough {
                return Ok(Progress::Working);
            }
        }
    }

    /// Goes on with the stage; returns whether it is done.
    fn advance(&mut self, scene: &Scene<'_>, span: &Range<u64>) -> bool {
        match self.stage {
            Stage::Compare => {
                let from = (span.start - scene.window.start) as usize;
                let bytes = &scene.window.bytes[from..][..(span.end - span.start) as usize];
                self.span.compare(&scene.basis, &scene.window, bytes, &mut self.work)
            }
            Stage::Seek => self.search.seek(scene, self.span.anchors(), &mut self.work),
            Stage::Roll => self.search.roll(scene, &mut self.work),
            Stage::Emit => true,
        }
    }

    /// Goes to the next stage.
    fn enter(&mut self, scene: &Scene<'_>, span: &Range<u64>) {
        self.stage = match self.stage {
            Stage::Compare => {
                let copies = self.span.copies().into_iter();
                self.matches.extend(copies.map(|range| Match { range, shift: 0 }));
                let bytes = self.matches.iter().map(|found| found.range.end - found.range.start);
                self.search.enter(gaps(&self.matches, span), bytes.sum());
                if scene.basis.block_count() < 2 {
                    Stage::Emit
                } else {
                    Stage::Seek
                }
            }
            Stage::Seek => {
                self.take_found();
                let gaps = gaps(&self.matches, span);
                if self.search.enter_rolling(&scene.basis, gaps) {
                    Stage::Roll
                } else {
                    Stage::Emit
                }
            }
            Stage::Roll | Stage::Emit => {
                self.take_found();
                Stage::Emit
            }
        };
    }

    fn take_found(&mut self) {
        self.matches.extend(self.search.take_found());
        self.matches.sort_unstable_by_key(|found| found.range.start);
    }

    fn emit(&mut self, span: &Range<u64>, out: &mut Vec<Op>) -> ChunkIndex {
        let mut at = span.start;
        for found in std::mem::take(&mut self.matches) {
            let Match { range, shift } = found;
            let from = range.start.checked_add_signed(shift).expect("a match is in the basis");
            if at < range.start {
                let length = range.start - at;
                out.push(if self.cursor.checked_add(length) == Some(from) {
                    Op::Edit { length }
                } else {
                    Op::Literal { length }
                });
            }
            let length = range.end - range.start;
            match out.last_mut() {
                Some(Op::Copy {
                    from: before,
                    length: grown,
                }) if *before + *grown == from => *grown += length,
                _ => out.push(Op::Copy { from, length }),
            }
            self.cursor = from + length;
            at = range.end;
        }
        if at < span.end {
            out.push(Op::Literal { length: span.end - at });
        }
        self.stage = Stage::Compare;
        self.span.restart(span.end)
    }
}

/// What of `span` no match covers. Matches are in order and do not overlap.
fn gaps(matches: &[Match], span: &Range<u64>) -> Vec<Range<u64>> {
    let mut gaps = Vec::new();
    let mut at = span.start;
    for Match { range, .. } in matches {
        debug_assert!(at <= range.start && range.end <= span.end);
        if at < range.start {
            gaps.push(at..range.start);
        }
        at = range.end;
    }
    if at < span.end {
        gaps.push(at..span.end);
    }
    gaps
}

#[cfg(test)]
#[path = "matcher_tests.rs"]
mod tests;
