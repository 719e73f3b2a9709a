//! Comparing subtrees or leaves of the basis with the new file, in place and at shifts.
//!
//! Never asks anything. Invariant: a unit counts as found only when its shortened hash is that of bytes
//! of the new file; the root of the pieced together index has the last word.

use std::ops::Range;

use super::answers::{leaves_of_unit, unit_hash};
use super::bodies::leaf_count;
use super::shifts::Shifts;
use crate::delta::index::{IndexView, leaves_of};
use crate::delta::{Content, Torn};
use crate::model::limits::LEAF_BYTES;

/// Where some leaves of the basis are known from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// The new file, at a shift.
    New(i64),
    /// An answer.
    Told,
}

/// Neighbouring leaves of one origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) leaves: Range<u64>,
    pub(super) origin: Origin,
}

/// Units of one height, with the hashes that were told of them.
#[derive(Debug)]
pub(super) struct Units {
    pub(super) height: u32,
    ranges: Vec<Range<u64>>,
    hashes: Vec<u8>,
    width: usize,
    range: usize,
    at: u64,
    number: usize,
    trial: Option<Trial>,
    /// What was found.
    pub(super) runs: Vec<Run>,
    /// Leaves of units that were not.
    pub(super) open: Vec<Range<u64>>,
}

/// A unit that is looked for at one shift after the other.
#[derive(Debug)]
struct Trial {
    shifts: Vec<i64>,
    /// Hashed so far, at the first of the shifts.
    leaves: Vec<[u8; 32]>,
}

/// What the units are compared with.
pub(super) struct Side<'a, 'v> {
    pub(super) view: &'a IndexView<'v>,
    pub(super) content: &'a mut dyn Content,
    pub(super) shifts: &'a Shifts,
    pub(super) basis_length: u64,
    pub(super) seed: u64,
}

/// Bytes hashed at a time.
const PIECE_BYTES: u64 = 1 << 20;
/// Bytes that a comparison in place costs, for each leaf.
const NODE_COST: u64 = 64;

impl Units {
    /// `hashes` has `width` bytes for each unit in `ranges`.
    pub(super) fn new(height: u32, ranges: Vec<Range<u64>>, hashes: Vec<u8>, width: usize) -> Units {
        Units {
            height,
            at: ranges.first().map_or(0, |range| range.start),
            ranges,
            hashes,
            width,
            range: 0,
            number: 0,
            trial: None,
            runs: Vec::new(),
            open: Vec::new(),
        }
    }

    /// Compares some more; returns whether that was all.
    pub(super) fn step(&mut self, side: &mut Side<'_, '_>, budget: u64, last: &mut i64) -> Result<bool, Torn> {
        let mut left = budget;
        while let Some(range) = self.ranges.get(self.range).cloned() {
            if left == 0 {
                return Ok(false);
            }
            let unit = leaves_of_unit(self.at, self.height, leaf_count(side.basis_length));
            let origin = match &mut self.trial {
                None => {
                    left = left.saturating_sub(NODE_COST * (unit.end - unit.start));
                    if self.is_in_place(&unit, side) {
                        Some(Origin::New(0))
                    } else {
                        let shifts = side.shifts.around(unit.start * LEAF_BYTES as u64, *last);
                        let leaves = Vec::new();
                        self.trial = Some(Trial { shifts, leaves });
                        continue;
                    }
                }
                Some(trial) => match trial.shifts.first().copied() {
                    None => None,
                    Some(shift) => match self.try_shift(&unit, shift, side, &mut left)? {
                        Some(true) => {
                            *last = shift;
                            Some(Origin::New(shift))
                        }
                        Some(false) | None => continue,
                    },
                },
            };
            match origin {
                Some(origin) => push_run(&mut self.runs, unit, origin),
                None => push_range(&mut self.open, unit),
            }
            self.trial = None;
            self.number += 1;
            self.at += 1;
            if self.at == range.end {
                self.range += 1;
                self.at = self.ranges.get(self.range).map_or(0, |range| range.start);
            }
        }
        Ok(true)
    }

    fn told(&self) -> &[u8] {
        &self.hashes[self.number * self.width..][..self.width]
    }

    fn is_in_place(&self, unit: &Range<u64>, side: &Side<'_, '_>) -> bool {
        if unit.end > side.view.sidecar().leaf_count() {
            return false;
        }
        let leaves: Vec<_> = unit.clone().map(|at| *side.view.leaf(at)).collect();
        unit_hash(&leaves, side.seed)[..self.width] == *self.told()
    }

    /// Goes on with the unit at `shift`, the first of its trial. `None`: not at an end yet.
    fn try_shift(
        &mut self,
        unit: &Range<u64>,
        shift: i64,
        side: &mut Side<'_, '_>,
        left: &mut u64,
    ) -> Result<Option<bool>, Torn> {
        let told = self.told().to_vec();
        let Some(trial) = &mut self.trial else {
            return Ok(Some(false));
        };
        let bytes = bytes_of(unit, side.basis_length);
        let start = bytes.start.checked_add_signed(-shift);
        let end = bytes.end.checked_add_signed(-shift);
        let whole = start.zip(end).filter(|(_, end)| *end <= side.content.length());
        let Some((start, end)) = whole else {
            trial.shifts.remove(0);
            return Ok(Some(false));
        };
        let from = start + trial.leaves.len() as u64 * LEAF_BYTES as u64;
        let length = (end - from).min(PIECE_BYTES);
        trial
            .leaves
            .extend(leaves_of(side.content.bytes(from, length as usize)?));
        *left = left.saturating_sub(length);
        if from + length < end {
            return Ok(None);
        }
        let found = unit_hash(&trial.leaves, side.seed)[..told.len()] == *told;
        trial.shifts.remove(0);
        trial.leaves.clear();
        Ok(Some(found))
    }
}

/// The bytes of some leaves of a file of `length` bytes.
pub(super) fn bytes_of(leaves: &Range<u64>, length: u64) -> Range<u64> {
    leaves.start * LEAF_BYTES as u64..length.min(leaves.end * LEAF_BYTES as u64)
}

pub(super) fn push_run(runs: &mut Vec<Run>, leaves: Range<u64>, origin: Origin) {
    match runs.last_mut() {
        Some(last) if last.origin == origin && last.leaves.end == leaves.start => last.leaves.end = leaves.end,
        _ => runs.push(Run { leaves, origin }),
    }
}

pub(super) fn push_range(ranges: &mut Vec<Range<u64>>, range: Range<u64>) {
    match ranges.last_mut() {
        Some(last) if last.end == range.start => last.end = range.end,
        _ => ranges.push(range),
    }
}
