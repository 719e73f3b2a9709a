//! A table from hashes to numbers, bounded in size and in the work of any look-up.
//!
//! Never keeps the hashes: whoever asks has them by number. Invariant: a look-up visits at most
//! [`PROBES_MAX`] slots and gives at most [`CANDIDATES_MAX`] numbers, whatever was put in.

/// Numbers tried for one hash.
pub(super) const CANDIDATES_MAX: usize = 16;
/// Slots visited for one hash: what does not find a place within them is left out.
const PROBES_MAX: usize = 32;

/// Numbers below `u32::MAX`, by their hashes.
#[derive(Debug, Default)]
pub(super) struct Lookup {
    /// Number plus one; zero is free. Half of them stay free, so that probes are short.
    slots: Vec<u32>,
    shift: u32,
}

impl Lookup {
    /// A table for `count` numbers: 8 to 16 bytes for each.
    pub(super) fn new(count: usize) -> Lookup {
        let slots = (count * 2).next_power_of_two().max(64);
        Lookup {
            slots: vec![0; slots],
            shift: 32 - slots.trailing_zeros(),
        }
    }

    fn places(&self, hash: u32) -> impl Iterator<Item = usize> + use<> {
        let mask = self.slots.len() - 1;
        let first = (hash.wrapping_mul(0x9E37_79B1) >> self.shift) as usize;
        (first..first + PROBES_MAX).map(move |place| place & mask)
    }

    /// Puts `number` in, unless there are enough with its hash; `hash_of` gives that of any number.
    pub(super) fn insert(&mut self, hash: u32, number: u32, hash_of: impl Fn(u32) -> u32) {
        let mut alike = 0;
        for place in self.places(hash) {
            match self.slots[place] {
                0 => {
                    self.slots[place] = number + 1;
                    return;
                }
                other if hash_of(other - 1) == hash => alike += 1,
                _ => {}
            }
            if alike == CANDIDATES_MAX {
                return;
            }
        }
    }

    /// Numbers with this hash, in the order in which they were put in.
    pub(super) fn find(&self, hash: u32, hash_of: impl Fn(u32) -> u32) -> impl Iterator<Item = u32> {
        let taken = self.places(hash).map(|place| self.slots[place]);
        taken
            .take_while(|slot| *slot != 0)
            .map(|slot| slot - 1)
            .filter(move |number| hash_of(*number) == hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // THREATS row 13: thousands of equal hashes give at most sixteen candidates, the others stay found.
    #[test]
    fn row_13_equal_hashes_are_bounded() {
        let hash_of = |number: u32| if number < 5000 { 7 } else { number.wrapping_mul(77_777) };
        let mut lookup = Lookup::new(10_000);
        for number in 0..10_000 {
            lookup.insert(hash_of(number), number, hash_of);
        }
        assert_eq!(lookup.find(7, hash_of).collect::<Vec<_>>(), (0..16).collect::<Vec<_>>());
        let found = |number: &u32| lookup.find(hash_of(*number), hash_of).any(|other| other == *number);
        assert!((5000..10_000).filter(found).count() > 4950);
    }
}
