//! `Marks`: which equal pieces of a file have some property; one bit a piece.
//!
//! Knows neither files nor what a mark means. Invariant: memory follows the highest mark that was set,
//! never a length that somebody declared.

use std::ops::Range;

/// A set of piece numbers.
#[derive(Debug, Clone, Default)]
pub(super) struct Marks {
    words: Vec<u64>,
}

const WORD_BITS: u64 = 64;

/// Pieces that can be marked: 32 MiB of bits. What lies above is never marked.
const PIECES_MAX: u64 = 1 << 28;

impl Marks {
    /// Whether every piece of a file of this many pieces can be marked.
    pub(super) fn can_hold(pieces: u64) -> bool {
        pieces <= PIECES_MAX
    }

    /// The set whose bits these are, the lowest of the first word for piece 0.
    pub(super) fn from_words(words: impl Iterator<Item = u64>) -> Marks {
        let words = words.take((PIECES_MAX / WORD_BITS) as usize).collect();
        Marks { words }
    }

    /// The bits of the pieces from 64 times `at` on.
    pub(super) fn word(&self, at: u64) -> u64 {
        let at = usize::try_from(at).ok();
        at.and_then(|at| self.words.get(at)).copied().unwrap_or(0)
    }

    /// Marks the pieces of `range`.
    pub(super) fn set(&mut self, range: Range<u64>) {
        let range = range.start..range.end.min(PIECES_MAX);
        if range.is_empty() {
            return;
        }
        let words = range.end.div_ceil(WORD_BITS) as usize;
        if self.words.len() < words {
            self.words.resize(words, 0);
        }
        self.each_word(&range, |word, mask| *word |= mask);
    }

    /// Takes the marks of `range` away.
    pub(super) fn clear(&mut self, range: Range<u64>) {
        let end = range.end.min(self.words.len() as u64 * WORD_BITS);
        self.each_word(&(range.start..end), |word, mask| *word &= !mask);
    }

    /// Whether `piece` is marked.
    pub(super) fn contains(&self, piece: u64) -> bool {
        let word = usize::try_from(piece / WORD_BITS)
            .ok()
            .and_then(|at| self.words.get(at));
        word.is_some_and(|word| word >> (piece % WORD_BITS) & 1 == 1)
    }

    /// The first run of marked pieces at or after `from`.
    pub(super) fn next_run(&self, from: u64) -> Option<Range<u64>> {
        let start = self.find(from, 0)?;
        let end = self
            .find(start, u64::MAX)
            .unwrap_or(self.words.len() as u64 * WORD_BITS);
        Some(start..end)
    }

    /// The first run of pieces without a mark at or after `from` and before `end`.
    pub(super) fn next_gap(&self, from: u64, end: u64) -> Option<Range<u64>> {
        let marked = self.words.len() as u64 * WORD_BITS;
        let start = self.find(from, u64::MAX).unwrap_or(from.max(marked));
        let until = self.find(start, 0).unwrap_or(end).min(end);
        (start < until).then_some(start..until)
    }

    /// The first piece at or after `from` whose bit differs from those of `uniform` (all 0 or all 1).
    fn find(&self, from: u64, uniform: u64) -> Option<u64> {
        let first = usize::try_from(from / WORD_BITS).ok()?;
        for (at, word) in self.words.iter().enumerate().skip(first) {
            let mut differ = word ^ uniform;
            if at == first {
                differ &= u64::MAX << (from % WORD_BITS);
            }
            if differ != 0 {
                return Some(at as u64 * WORD_BITS + u64::from(differ.trailing_zeros()));
            }
        }
        None
    }

    fn each_word(&mut self, range: &Range<u64>, change: impl Fn(&mut u64, u64)) {
        let mut at = range.start;
        while at < range.end {
            let bit = at % WORD_BITS;
            let count = (WORD_BITS - bit).min(range.end - at);
            let mask = (u64::MAX >> (WORD_BITS - count)) << bit;
            change(&mut self.words[(at / WORD_BITS) as usize], mask);
            at += count;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against a plain list, over all short ranges around the edges of words.
    #[test]
    fn runs_and_gaps_are_those_of_a_plain_list() {
        for start in [0, 1, 62, 63, 64, 65, 127, 128] {
            for length in [0, 1, 2, 63, 64, 65, 130] {
                let mut marks = Marks::default();
                let mut plain = [false; 400];
                marks.set(start..start + length);
                plain[start as usize..(start + length) as usize].fill(true);
                marks.clear(start + 1..start + 3);
                plain[start as usize + 1..start as usize + 3].fill(false);
                for piece in 0..400 {
                    assert_eq!(marks.contains(piece), plain[piece as usize]);
                }
                let (mut runs, mut gaps) = ([false; 400], [true; 400]);
                let mut at = 0;
                while let Some(run) = marks.next_run(at) {
                    runs[run.start as usize..run.end as usize].fill(true);
                    at = run.end;
                }
                at = 0;
                while let Some(gap) = marks.next_gap(at, 400) {
                    gaps[gap.start as usize..gap.end as usize].fill(false);
                    at = gap.end;
                }
                assert_eq!((runs, gaps), (plain, plain), "{start} {length}");
            }
        }
    }

    /// Row 11 of the threats: a mark at a declared end of 2^60 takes no memory for what lies before.
    #[test]
    fn far_marks_are_not_kept() {
        let mut marks = Marks::default();
        marks.set(1 << 60..(1 << 60) + 5);
        marks.set(0..0);
        assert!(marks.words.is_empty() && !marks.contains(1 << 60));
        assert_eq!(marks.next_run(0), None);
        assert_eq!(marks.next_gap(7, u64::MAX), Some(7..u64::MAX));
        assert!(!Marks::can_hold(1 << 60) && Marks::can_hold(1 << 28));
    }
}
