//! Where the anchors of the basis are in the new file: the shifts that are worth a try.
//!
//! Never hashes content. Invariant: memory and candidates are bounded, whatever the anchors are.
//!
//! A shift is the place in the basis minus the place in the new file, as in the matcher's search.

use std::collections::HashMap;

use super::bodies::{ANCHOR_BYTES, CompareError, SPOTS};
use crate::delta::index::{Anchor, IndexView};

/// Places of one fingerprint in the new file that are looked at.
const PLACES_MAX: usize = 16;
/// Content that moved in more ways is compared by its whole index.
const SHIFTS_MAX: usize = 16;

/// Anchors of the basis, and what was found of them.
#[derive(Debug, Default)]
pub(super) struct Shifts {
    anchors: Vec<Anchor>,
    /// By fingerprint: positions in the new file.
    places: HashMap<u32, Vec<u64>>,
    scanned: usize,
    /// Of each anchor the shift that it suggests.
    chosen: Vec<Option<i64>>,
}

/// What the anchors say of the two files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kinship {
    /// Too few anchors to tell.
    Unknown,
    /// Next to none is found.
    Strange,
    /// Found, in place or at a few shifts.
    Near,
    /// Found at many different shifts.
    Scattered,
}

impl Shifts {
    /// Reads the anchors of an answer.
    pub(super) fn parse(bytes: &[u8], length: u64) -> Result<Shifts, CompareError> {
        let mut shifts = Shifts::default();
        if !bytes.len().is_multiple_of(ANCHOR_BYTES) || bytes.len() > SPOTS as usize * ANCHOR_BYTES {
            return Err(CompareError("anchors"));
        }
        let mut before = 0;
        for anchor in bytes.chunks_exact(ANCHOR_BYTES) {
            let mut position = [0; 8];
            position[..6].copy_from_slice(&anchor[..6]);
            let position = u64::from_le_bytes(position);
            if position <= before || position > length {
                return Err(CompareError("anchors"));
            }
            before = position;
            let fingerprint = u32::from_le_bytes(anchor[6..].try_into().expect("four bytes"));
            shifts.anchors.push(Anchor { position, fingerprint });
            shifts.places.insert(fingerprint, Vec::new());
        }
        Ok(shifts)
    }

    /// Looks for the anchors among `count_max` more of the new file; returns whether that was all.
    pub(super) fn scan(&mut self, new: &IndexView<'_>, count_max: usize) -> bool {
        let end = new.anchor_count().min(self.scanned.saturating_add(count_max));
        for at in self.scanned..end {
            let anchor = new.anchor(at);
            if let Some(places) = self.places.get_mut(&anchor.fingerprint)
                && places.len() < PLACES_MAX
            {
                places.push(anchor.position);
            }
        }
        self.scanned = end;
        end == new.anchor_count()
    }

    /// Chooses a shift for each anchor: none if it is in place, else the one nearest to the last.
    pub(super) fn conclude(&mut self) -> Kinship {
        let mut last = 0;
        let mut distinct = Vec::new();
        for anchor in &self.anchors {
            let places = self.places.get(&anchor.fingerprint).map_or(&[][..], Vec::as_slice);
            let shifts = places
                .iter()
                .map(|place| anchor.position.cast_signed() - place.cast_signed());
            let shift = shifts.min_by_key(|shift| (*shift != 0, shift.abs_diff(last)));
            self.chosen.push(shift);
            if let Some(shift) = shift {
                last = shift;
                distinct.push(shift);
            }
        }
        let found = distinct.len();
        distinct.sort_unstable();
        distinct.dedup();
        self.places = HashMap::new();
        match (self.anchors.len(), found) {
            _ if distinct.len() > SHIFTS_MAX => Kinship::Scattered,
            (all, _) if all < SPOTS as usize / 8 => Kinship::Unknown,
            (all, found) if found * 32 < all => Kinship::Strange,
            _ => Kinship::Near,
        }
    }

    /// Shifts to try for what stands at `position` in the basis, the likeliest first, without 0.
    pub(super) fn around(&self, position: u64, last: i64) -> Vec<i64> {
        let at = self.anchors.partition_point(|anchor| anchor.position <= position);
        let before = self.chosen[..at].iter().rev().find_map(|shift| *shift);
        let after = self.chosen[at..].iter().find_map(|shift| *shift);
        let mut shifts = Vec::new();
        for shift in [before, after, Some(last)].into_iter().flatten() {
            if shift != 0 && !shifts.contains(&shift) {
                shifts.push(shift);
            }
        }
        shifts
    }
}
