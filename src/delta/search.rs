//! Content that has moved: found in the basis by the last shift, by anchors, and by a rolling CRC.
//!
//! Never emits anything. Invariant: a match covers at least two neighbouring blocks of the basis whose
//! CRCs are those of the new bytes (64 bits), and work grows with the bytes searched, whatever they are.
//!
//! A shift is the place in the basis minus the place in the new file; blocks are the KiB of the basis.
//!
//! 1. At the start of a gap, and after each match, the last two shifts are tried a few blocks ahead.
//! 2. The anchors of the gap are looked up among those of the basis; of up to 16 places the nearest to
//!    the last shift is tried first. At most [`ANCHORS_MAX`] are in the table, evenly spread.
//! 3. A match is extended block by block in both directions. What it shares with its neighbours is cut
//!    off, so a block that is only partly in the gap counts.
//! 4. What is left rolls a CRC-32 over each position, and looks it up among the blocks of the basis: all
//!    of them, or the [`BLOCKS_MAX`] around the place in a large one. Blocks that are in use are not
//!    left out, since what later chunks use is not known.
//!
//! Awkward cases: repeats (bounded candidates, and a CRC that led nowhere is not tried again at the next
//! position); nothing in common (rolling has an allowance that grows with what matched, and pays for its
//! failed checks); a table is only built when there is enough to be found with it.

use std::ops::Range;

use super::basis::{Basis, Window, Work};
use super::index::{Anchor, BLOCK_BYTES};
use super::lookup::{CANDIDATES_MAX, Lookup};

const BLOCK: u64 = BLOCK_BYTES as u64;
/// Anchors in the table: with 8 to 16 bytes each.
const ANCHORS_MAX: usize = 1 << 20;
/// Blocks in the table of the rolling search.
const BLOCKS_MAX: u64 = 1 << 20;
/// Entries put into a table in one step.
const ENTRIES_PER_STEP: usize = 1 << 14;
/// Bytes of work that an entry costs.
const ENTRY_BYTES: u64 = 64;
/// Blocks tried at the last shift, from where it is tried.
const PROBED_BLOCKS: u64 = 8;
/// Bytes by which a match is extended in one step.
const EXTENDED_BYTES: u64 = 256 * 1024;
/// Positions rolled over in one step.
const ROLLED_PER_STEP: usize = 32 * 1024;
/// Bytes of a file that are rolled over at most, and those that may be before anything matched.
const ROLLED_MAX: u64 = 64 << 20;
const ROLLED_FREE: u64 = 8 << 20;
/// A shorter match costs as much as it brings.
const MATCH_BYTES_MIN: u64 = 16;

/// Bytes of the new file that stand in the basis too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Match {
    pub(super) range: Range<u64>,
    pub(super) shift: i64,
}

/// What a search looks at.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scene<'a> {
    pub(super) basis: Basis<'a>,
    pub(super) window: Window<'a>,
}

/// The search through one file.
#[derive(Debug)]
pub(super) struct Search {
    shifts: [i64; 2],
    anchors: Lookup,
    anchors_in: usize,
    blocks: Blocks,
    /// Where nothing matched so far in the chunk.
    gaps: Vec<Range<u64>>,
    gap: usize,
    /// Place in the gap; `None` before it is entered.
    at: Option<u64>,
    probed: bool,
    anchor: usize,
    found: Vec<Match>,
    matched_bytes: u64,
    unmatched_bytes: u64,
    rolled_bytes: u64,
}

impl Search {
    pub(super) fn new() -> Search {
        Search {
            shifts: [0, 0],
            anchors: Lookup::default(),
            anchors_in: 0,
            blocks: Blocks::default(),
            gaps: Vec::new(),
            gap: 0,
            at: None,
            probed: false,
            anchor: 0,
            found: Vec::new(),
            matched_bytes: 0,
            unmatched_bytes: 0,
            rolled_bytes: 0,
        }
    }

    /// Starts with the gaps of a chunk.
    pub(super) fn enter(&mut self, gaps: Vec<Range<u64>>, matched_bytes: u64) {
        self.matched_bytes += matched_bytes;
        self.restart(gaps);
    }

    fn restart(&mut self, gaps: Vec<Range<u64>>) {
        self.gaps = gaps;
        self.gap = 0;
        self.at = None;
    }

    /// Matches since the last time, not in order.
    pub(super) fn take_found(&mut self) -> Vec<Match> {
        std::mem::take(&mut self.found)
    }

    /// Searches some more by shifts and anchors. Returns whether that was all.
    pub(super) fn seek(&mut self, scene: &Scene<'_>, anchors: &[Anchor], work: &mut Work) -> bool {
        let Some(gap) = self.gaps.get(self.gap).cloned() else {
            return true;
        };
        let at = *self.at.get_or_insert_with(|| {
            self.probed = false;
            self.anchor = anchors.partition_point(|anchor| anchor.position <= gap.start);
            gap.start
        });
        let rest = at..gap.end;
        if rest.is_empty() {
            self.next_gap();
        } else if !self.probed {
            self.probed = true;
            if let Some(found) = self.probe(scene, &rest, work) {
                self.take(found);
            }
        } else if let Some(anchor) = anchors.get(self.anchor).filter(|anchor| anchor.position <= gap.end) {
            if self.build_anchors(&scene.basis, work) {
                self.anchor += 1;
                if anchor.position > at
                    && let Some(found) = self.look_up(scene, *anchor, &rest, work)
                {
                    self.take(found);
                }
            }
        } else {
            self.next_gap();
        }
        false
    }

    fn next_gap(&mut self) {
        self.gap += 1;
        self.at = None;
    }

    fn take(&mut self, found: Match) {
        self.at = Some(found.range.end);
        self.probed = false;
        self.matched_bytes += found.range.end - found.range.start;
        if self.shifts[0] != found.shift {
            self.shifts = [found.shift, self.shifts[0]];
        }
        self.found.push(found);
    }

    /// Tries the last shifts at the start of `rest`.
    fn probe(&self, scene: &Scene<'_>, rest: &Range<u64>, work: &mut Work) -> Option<Match> {
        let one = (self.shifts[0] == self.shifts[1]).then_some(1);
        let shifts = &self.shifts[..one.unwrap_or(2)];
        shifts.iter().find_map(|&shift| {
            let first = rest.start.checked_add_signed(shift).unwrap_or(0) / BLOCK;
            // What went on before the gap may go on in it: there a neighbour on either side will do.
            if let Some(pair) = confirm(scene, first, shift, work) {
                return extend(scene, pair, shift, rest, work);
            }
            let mut block = first + 1;
            while block < first + PROBED_BLOCKS {
                // Both of a pair have to fit. The second comes first: when it does not, it is no first either.
                if !scene.basis.block_at(block + 1, shift, &scene.window, work) {
                    block += 2;
                } else if scene.basis.block_at(block, shift, &scene.window, work) {
                    return extend(scene, block..block + 2, shift, rest, work);
                } else {
                    block += 1;
                }
            }
            None
        })
    }

    /// Puts more anchors of the basis into the table. Returns whether all are in.
    fn build_anchors(&mut self, basis: &Basis<'_>, work: &mut Work) -> bool {
        let stride = basis.anchor_count().div_ceil(ANCHORS_MAX).max(1);
        let count = basis.anchor_count() / stride;
        if self.anchors_in == count {
            return true;
        }
        if self.anchors_in == 0 {
            self.anchors = Lookup::new(count);
        }
        let hash_of = |number: u32| basis.view.anchor(number as usize * stride).fingerprint;
        let end = count.min(self.anchors_in + ENTRIES_PER_STEP);
        for number in self.anchors_in..end {
            let number = number as u32;
            self.anchors.insert(hash_of(number), number, hash_of);
        }
        work.hashed_bytes += ENTRY_BYTES * (end - self.anchors_in) as u64;
        self.anchors_in = end;
        end == count
    }

    fn look_up(&self, scene: &Scene<'_>, anchor: Anchor, rest: &Range<u64>, work: &mut Work) -> Option<Match> {
        let basis = &scene.basis;
        if self.anchors_in == 0 {
            return None;
        }
        let stride = basis.anchor_count().div_ceil(ANCHORS_MAX).max(1);
        let hash_of = |number: u32| basis.view.anchor(number as usize * stride).fingerprint;
        let mut shifts = [0; CANDIDATES_MAX];
        let mut count = 0;
        for number in self.anchors.find(anchor.fingerprint, hash_of) {
            let position = basis.view.anchor(number as usize * stride).position;
            if (1..=basis.length).contains(&position) {
                shifts[count] = position.cast_signed() - anchor.position.cast_signed();
                count += 1;
            }
        }
        let shifts = &mut shifts[..count];
        shifts.sort_unstable_by_key(|shift| shift.abs_diff(self.shifts[0]));
        shifts.iter().find_map(|&shift| {
            let block = (anchor.position.checked_add_signed(shift)? - 1) / BLOCK;
            let pair = confirm(scene, block, shift, work).or_else(|| {
                // The anchor's own block may be changed further on.
                let next = scene.basis.block_at(block + 1, shift, &scene.window, work);
                next.then(|| confirm(scene, block + 1, shift, work)).flatten()
            })?;
            extend(scene, pair, shift, rest, work)
        })
    }

    /// Starts the rolling search over what is left, given all gaps again. Returns whether it is worth it.
    pub(super) fn enter_rolling(&mut self, basis: &Basis<'_>, gaps: Vec<Range<u64>>) -> bool {
        let bytes: u64 = gaps.iter().map(|gap| gap.end - gap.start).sum();
        self.unmatched_bytes += bytes;
        // Building the table is to cost little beside what was found missing.
        let worth = self.unmatched_bytes.saturating_mul(64) >= basis.length.min(BLOCKS_MAX * BLOCK);
        self.restart(gaps);
        worth && self.allowance() > 0 && basis.length >= 2 * BLOCK
    }

    fn allowance(&self) -> u64 {
        ROLLED_MAX
            .min(ROLLED_FREE + self.matched_bytes)
            .saturating_sub(self.rolled_bytes)
    }

    /// Rolls some more. Returns whether that was all.
    pub(super) fn roll(&mut self, scene: &Scene<'_>, work: &mut Work) -> bool {
        let gap = loop {
            match self.gaps.get(self.gap) {
                None => return true,
                Some(gap) if gap.end - self.at.unwrap_or(gap.start) < BLOCK => self.next_gap(),
                Some(gap) => break gap.clone(),
            }
        };
        if self.allowance() == 0 {
            return true;
        }
        let rest = self.at.unwrap_or(gap.start)..gap.end;
        let place = rest.start.checked_add_signed(self.shifts[0]).unwrap_or(0) / BLOCK;
        if !self.blocks.build(&scene.basis, place, work, &mut self.rolled_bytes) {
            return false;
        }
        let checked = work.checked_bytes;
        let (found, rolled) = self.blocks.find(scene, &rest, work);
        work.rolled_bytes += rolled;
        self.rolled_bytes += rolled + (work.checked_bytes - checked) / 8;
        self.at = Some(rest.start + rolled);
        if let Some(found) = found {
            self.take(found);
        }
        false
    }
}

/// The block, and a neighbour, stand where the shift says.
fn confirm(scene: &Scene<'_>, block: u64, shift: i64, work: &mut Work) -> Option<Range<u64>> {
    let mut stands = |block: u64| scene.basis.block_at(block, shift, &scene.window, work);
    if !stands(block) {
        return None;
    }
    if stands(block + 1) {
        return Some(block..block + 2);
    }
    (block > 0 && stands(block - 1)).then(|| block - 1..block + 1)
}

/// Extends a confirmed range of blocks in both directions, as far as `rest` goes, by a bounded amount.
fn extend(scene: &Scene<'_>, confirmed: Range<u64>, shift: i64, rest: &Range<u64>, work: &mut Work) -> Option<Match> {
    let place = |block: u64| (block * BLOCK).checked_add_signed(-shift).unwrap_or(0);
    let Range { mut start, mut end } = confirmed;
    while start > 0 && place(start) > rest.start && scene.basis.block_at(start - 1, shift, &scene.window, work) {
        start -= 1;
    }
    let limit = rest.end.min(place(end).saturating_add(EXTENDED_BYTES));
    while place(end) < limit && scene.basis.block_at(end, shift, &scene.window, work) {
        end += 1;
    }
    let last = end - 1;
    let after = place(last) + scene.basis.block_bytes(last) as u64;
    let range = place(start).max(rest.start)..after.min(rest.end);
    let long_enough = range.start + MATCH_BYTES_MIN <= range.end || range == *rest;
    (range.start < range.end && long_enough).then_some(Match { range, shift })
}

/// Blocks of the basis by their CRCs.
#[derive(Debug, Default)]
struct Blocks {
    /// Numbers in the basis.
    range: Range<u64>,
    filled: u64,
    lookup: Lookup,
    /// A bit for some bits of each CRC in the table, 16 times as many: most positions end here.
    filter: Vec<u64>,
}

impl Blocks {
    /// Fills the table for the surroundings of block `place`. Returns whether it is filled.
    fn build(&mut self, basis: &Basis<'_>, place: u64, work: &mut Work, rolled_bytes: &mut u64) -> bool {
        // The last block is left out when it is short, as the window is not.
        let all = basis.length / BLOCK;
        let count = all.min(BLOCKS_MAX);
        let near = self.range.start + count / 8..self.range.end.saturating_sub(count / 8);
        if self.range.is_empty() || (count < all && self.filled == count && !near.contains(&place)) {
            let start = place.saturating_sub(count / 2).min(all - count);
            if self.range.start == start && !self.range.is_empty() {
                return true;
            }
            self.range = start..start + count;
            self.filled = 0;
            self.lookup = Lookup::new(count as usize);
            self.filter = vec![0; (count as usize * 16).next_power_of_two().max(64) / 64];
            *rolled_bytes += 8 * count;
        }
        let end = count.min(self.filled + ENTRIES_PER_STEP as u64);
        let start = self.range.start;
        let hash_of = |number: u32| basis.view.crc(start + u64::from(number));
        for number in self.filled..end {
            let hash = hash_of(number as u32);
            self.lookup.insert(hash, number as u32, hash_of);
            let bit = hash as usize & (self.filter.len() * 64 - 1);
            self.filter[bit / 64] |= 1 << (bit % 64);
        }
        work.hashed_bytes += ENTRY_BYTES * (end - self.filled);
        self.filled = end;
        end == count
    }

    /// The first match in `rest`, as far as one step goes, and how many positions were tried.
    fn find(&self, scene: &Scene<'_>, rest: &Range<u64>, work: &mut Work) -> (Option<Match>, u64) {
        let length = (rest.end - rest.start).min((ROLLED_PER_STEP + BLOCK_BYTES) as u64) as usize;
        let Some(bytes) = scene.window.part(rest.start, length) else {
            return (None, rest.end - rest.start);
        };
        let positions = length - BLOCK_BYTES + 1;
        let mask = self.filter.len() * 64 - 1;
        let hash_of = |number: u32| scene.basis.view.crc(self.range.start + u64::from(number));
        let mut failed = None;
        let mut rolling = super::rolling::Rolling::new(&bytes[..BLOCK_BYTES]);
        for at in 0..positions {
            let crc = rolling.crc();
            let bit = crc as usize & mask;
            if self.filter[bit / 64] >> (bit % 64) & 1 == 1 && failed != Some(crc) {
                let position = rest.start + at as u64;
                for number in self.lookup.find(crc, hash_of) {
                    let block = self.range.start + u64::from(number);
                    let shift = (block * BLOCK).cast_signed() - position.cast_signed();
                    let found = confirm(scene, block, shift, work)
                        .and_then(|pair| extend(scene, pair, shift, &(rest.start..rest.end), work));
                    if let Some(found) = found {
                        return (Some(found), at as u64);
                    }
                    failed = Some(crc);
                }
            }
            if let Some(new) = bytes.get(at + BLOCK_BYTES) {
                rolling.advance(bytes[at], *new);
            }
        }
        (None, positions as u64)
    }
}
