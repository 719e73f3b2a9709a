//! Short edits, located from what they did to a CRC.
//!
//! Never sees the old bytes. Invariant: an edit that is reported was proven: the leaf without it has
//! the hash that the basis has there.
//!
//! 1. CRC-32 is linear: `crc(old) ^ crc(new)` is what the register makes of `old ^ new`, wherever the
//!    rest is equal. Running the register backwards from that difference gives, for each place, the one
//!    pattern of four bytes that explains it (one step a byte).
//! 2. Patterns of fewer bytes are rarer by chance, so they are tried first: of random differences one
//!    in 16,000 KiB-positions is of one byte, but all are of four.
//! 3. A guess is undone in a copy of the leaf; xxh3-128 of the copy proves it.
//!
//! Awkward cases: an edit at the end of a block, where a pattern starts before it; several blocks of a
//! leaf, where only all guesses together can be proven: then edits of one or two bytes each.

use std::ops::Range;

use super::index::BLOCK_BYTES;
use super::rolling::CARRY;

/// Blocks of one leaf in which edits are looked for.
pub(super) const EDITED_BLOCKS_MAX: usize = 4;
/// Combinations that are proven for one leaf.
const COMBINATIONS_MAX: usize = 64;
/// Tried at most for a leaf of which one block differs; with four bytes there is a guess at each place.
const GUESSES_MAX: usize = 1100;

/// Of the allowance this much is not spent on edits of four bytes, which take hundreds of guesses each.
const SHORT_ONLY: u64 = 2048;

/// Up to four contiguous bytes, changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Guess {
    /// In its block; `pattern` starts here.
    at: u16,
    /// `old ^ new` of four bytes, the first lowest.
    pattern: u32,
}

impl Guess {
    fn first(self) -> usize {
        usize::from(self.at) + self.pattern.trailing_zeros() as usize / 8
    }

    fn end(self) -> usize {
        usize::from(self.at) + 4 - self.pattern.leading_zeros() as usize / 8
    }

    fn length(self) -> usize {
        self.end() - self.first()
    }

    fn toggle(self, block: &mut [u8]) {
        let at = usize::from(self.at);
        for (byte, change) in block[at..at + 4].iter_mut().zip(self.pattern.to_le_bytes()) {
            *byte ^= change;
        }
    }
}

/// The byte that a zero byte of input carried into this highest byte of a register.
static BACK: [u8; 256] = back();

const fn back() -> [u8; 256] {
    let carried = super::rolling::carry();
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        table[(carried[byte] >> 24) as usize] = byte as u8;
        byte += 1;
    }
    table
}

/// Edits of at most `bytes_max` bytes in a block of `length` that explain `difference`, short ones
/// first.
fn guesses(difference: u32, length: usize, bytes_max: usize) -> Vec<Guess> {
    let mut found = Vec::new();
    let mut pattern = difference;
    for at in (0..=length.saturating_sub(4)).rev() {
        let steps = if at + 4 == length { 4 } else { 1 };
        for _ in 0..steps {
            let low = BACK[(pattern >> 24) as usize];
            pattern = (pattern ^ CARRY[usize::from(low)]) << 8 | u32::from(low);
        }
        // Where the first byte is unchanged, the place after it has the same edit.
        let starts_here = pattern & 0xff != 0 || at + 4 == length;
        let guess = Guess { at: at as u16, pattern };
        if starts_here && guess.length() <= bytes_max {
            found.push(guess);
        }
    }
    found.sort_by_key(|guess| (guess.length(), guess.at % 4));
    found
}

/// A block of a leaf that differs, and by what.
#[derive(Debug, Clone, Copy)]
pub(super) struct Differing {
    /// Its number in the leaf.
    pub(super) block: usize,
    /// CRC of the old xor CRC of the new.
    pub(super) difference: u32,
}

/// Finds the edits that made `leaf` of what had the hash that `is_old` knows, when only the `differing`
/// blocks are not what they were. `allowance` is how many leaves may be hashed; it is used up.
/// Returns where they are in the leaf, in order.
pub(super) fn locate(
    leaf: &mut [u8],
    differing: &[Differing],
    allowance: &mut u64,
    is_old: impl Fn(&[u8]) -> bool,
) -> Option<Vec<Range<usize>>> {
    if differing.is_empty() || differing.len() > EDITED_BLOCKS_MAX {
        return None;
    }
    let alone = differing.len() == 1;
    let mut choices = Vec::new();
    for part in differing {
        let start = part.block * BLOCK_BYTES;
        let length = (leaf.len() - start).min(BLOCK_BYTES);
        if length < 4 {
            return None;
        }
        let found = guesses(part.difference, length, if alone { 4 } else { 2 });
        if found.is_empty() {
            return None;
        }
        choices.push((start, found));
    }
    let all: usize = choices.iter().map(|(_, found)| found.len()).product();
    let tries = all.min(if alone { GUESSES_MAX } else { COMBINATIONS_MAX });
    for number in 0..tries {
        let chosen = chosen(&choices, number);
        let long = chosen.iter().any(|(_, guess)| guess.length() == 4);
        if *allowance <= if long { SHORT_ONLY } else { 0 } {
            return None;
        }
        *allowance -= 1;
        let toggle = |leaf: &mut [u8]| {
            for (start, guess) in &chosen {
                guess.toggle(&mut leaf[*start..]);
            }
        };
        toggle(leaf);
        let proven = is_old(leaf);
        toggle(leaf);
        if proven {
            let edits = chosen
                .iter()
                .map(|(start, guess)| start + guess.first()..start + guess.end());
            return Some(edits.collect());
        }
    }
    None
}

/// Combination `number`: one guess of each block.
fn chosen(choices: &[(usize, Vec<Guess>)], mut number: usize) -> Vec<(usize, Guess)> {
    let pick = |(start, found): &(usize, Vec<Guess>)| {
        let guess = found[number % found.len()];
        number /= found.len();
        (*start, guess)
    };
    choices.iter().map(pick).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::limits::LEAF_BYTES;

    fn leaf() -> Vec<u8> {
        (0..LEAF_BYTES as u32)
            .map(|at| (at.wrapping_mul(2_654_435_761) >> 19) as u8)
            .collect()
    }

    fn located(old: &[u8], new: &[u8]) -> Option<Vec<Range<usize>>> {
        let blocks = old.chunks(BLOCK_BYTES).zip(new.chunks(BLOCK_BYTES)).enumerate();
        let differing: Vec<Differing> = blocks
            .map(|(block, (old, new))| Differing {
                block,
                difference: crc32fast::hash(old) ^ crc32fast::hash(new),
            })
            .filter(|block| block.difference != 0)
            .collect();
        locate(&mut new.to_vec(), &differing, &mut 10_000, |leaf| leaf == old)
    }

    // An edit of up to four bytes is found wherever it is, also at both ends of a block.
    #[test]
    fn a_short_edit_is_found_anywhere_in_a_block() {
        let old = leaf();
        for length in 1..=4 {
            for at in [0, 1, 2, 3, 500, 1018, 1019, 1020, 1021, 1022, 1023] {
                if at + length > BLOCK_BYTES {
                    continue;
                }
                let mut new = old.clone();
                let range = 3 * BLOCK_BYTES + at..3 * BLOCK_BYTES + at + length;
                new[range.clone()]
                    .iter_mut()
                    .for_each(|byte| *byte ^= 0x41 + length as u8);
                assert_eq!(located(&old, &new).as_deref(), Some(&[range][..]), "{length} at {at}");
            }
        }
    }

    // Several blocks are proven together; what is no short edit is not called one.
    #[test]
    fn several_edits_are_proven_together() {
        let old = leaf();
        let mut new = old.clone();
        new[17] ^= 1;
        new[5000] ^= 0x80;
        new[16_383] ^= 0xff;
        assert_eq!(located(&old, &new), Some(vec![17..18, 5000..5001, 16_383..16_384]));
        new[800] ^= 3;
        assert_eq!(located(&old, &new), None);
    }
}
