//! Two edits of a byte each in one block, located from what both did to its CRC.
//!
//! Never proves what it finds. Invariant: at most [`ATTEMPTS_MAX`] searches in a file come to nothing.
//!
//! What each edit of one byte does to the CRC of a block is in a table; two of them explain a difference
//! when their effects add up to it. Of 2^35 pairs about 8 do by chance, so a proof takes few tries. A
//! search costs as much as hashing some MiB, and the table 3.5 MiB of memory: it is made when a file has
//! shown edits of this kind, a thousand of which in 1 GiB put two into one block now and then.

use super::index::BLOCK_BYTES;
use super::lookup::Lookup;
use super::rolling::CARRY;

/// Bytes of work that a search costs, by measurement about.
pub(super) const SEARCH_BYTES: u64 = 16 << 20;
/// Searches that may come to nothing.
const ATTEMPTS_MAX: u32 = 4;
/// Short edits that a file has shown before pairs are looked for.
const EDITS_MIN: u64 = 8;
/// Pairs that are tried.
const PAIRS_MAX: usize = 32;

/// A byte of a block, and what it is changed by.
pub(super) type Change = (usize, u8);

/// The table, made when it is first needed, and when it is worth it to look.
#[derive(Debug, Default)]
pub(super) struct Pairs {
    /// The effect of each change, by place and then by pattern.
    effects: Vec<u32>,
    lookup: Lookup,
    /// A bit for some bits of each effect.
    filter: Vec<u64>,
    edits: u64,
    failures: u32,
}

impl Pairs {
    /// Counts edits that were found in a leaf by themselves.
    pub(super) fn count(&mut self, edits: usize) {
        self.edits += edits as u64;
    }

    /// Whether to look.
    pub(super) fn worth(&self) -> bool {
        self.edits >= EDITS_MIN && self.failures < ATTEMPTS_MAX
    }

    /// What the search came to.
    pub(super) fn settle(&mut self, proven: bool) {
        self.failures += u32::from(!proven);
    }

    /// Pairs of changes of a whole block that explain `difference`, the first before the second.
    pub(super) fn find(&mut self, difference: u32) -> Vec<[Change; 2]> {
        self.build();
        let effect = |number: u32| self.effects[number as usize];
        let mask = self.filter.len() * 64 - 1;
        let mut found = Vec::new();
        for (number, first) in self.effects.iter().enumerate() {
            let wanted = difference ^ first;
            let bit = wanted as usize & mask;
            if self.filter[bit / 64] >> (bit % 64) & 1 == 0 || number % 256 == 0 {
                continue;
            }
            let later = self.lookup.find(wanted, effect).map(|number| number as usize);
            let later = later.filter(|second| second / 256 > number / 256);
            found.extend(later.map(|second| [change(number), change(second)]));
            if found.len() >= PAIRS_MAX {
                break;
            }
        }
        found
    }

    fn build(&mut self) {
        if !self.effects.is_empty() {
            return;
        }
        self.effects = vec![0; BLOCK_BYTES * 256];
        for pattern in 0..256 {
            let mut state = pattern as u32;
            for place in (0..BLOCK_BYTES).rev() {
                state = (state >> 8) ^ CARRY[(state & 0xff) as usize];
                self.effects[place * 256 + pattern] = state;
            }
        }
        self.lookup = Lookup::new(self.effects.len());
        self.filter = vec![0; self.effects.len() * 16 / 64];
        let mask = self.filter.len() * 64 - 1;
        for (number, effect) in self.effects.iter().enumerate().filter(|(number, _)| number % 256 != 0) {
            self.lookup
                .insert(*effect, number as u32, |number| self.effects[number as usize]);
            let bit = *effect as usize & mask;
            self.filter[bit / 64] |= 1 << (bit % 64);
        }
    }
}

fn change(number: usize) -> Change {
    (number / 256, (number % 256) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Two changed bytes are among the pairs that explain what they did to the CRC, wherever they are.
    #[test]
    fn two_changed_bytes_are_found() {
        let block: Vec<u8> = (0..BLOCK_BYTES as u32)
            .map(|at| (at.wrapping_mul(2_654_435_761) >> 21) as u8)
            .collect();
        let mut pairs = Pairs::default();
        for changes in [[(0, 1), (1023, 255)], [(17, 0x80), (18, 7)], [(500, 3), (900, 3)]] {
            let mut new = block.clone();
            changes.iter().for_each(|(at, pattern)| new[*at] ^= pattern);
            let found = pairs.find(crc32fast::hash(&block) ^ crc32fast::hash(&new));
            assert!(found.contains(&changes), "{changes:?} in {found:?}");
            assert!(found.len() <= PAIRS_MAX, "{}", found.len());
        }
    }
}
