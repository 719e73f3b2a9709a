//! The CRC-32 of a window of fixed length that moves over bytes one by one.
//!
//! Never looks anything up. Invariant: it equals `crc32fast::hash` of the window.
//!
//! A CRC's register is linear over GF(2). With the register before the final complement as state, a
//! byte goes in as usual; the byte that leaves has been carried on by the whole window since, and what
//! it became is taken from a table, together with what the initial register became.

use super::index::BLOCK_BYTES;

const POLYNOMIAL: u32 = 0xEDB8_8320;

/// The register after a zero byte, by its low byte.
pub(super) static CARRY: [u32; 256] = carry();
static LEAVE: [u32; 256] = leave();

pub(super) const fn carry() -> [u32; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut state = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            state = (state >> 1) ^ (POLYNOMIAL & (state & 1).wrapping_neg());
            bit += 1;
        }
        table[byte] = state;
        byte += 1;
    }
    table
}

const fn after_zeros(mut state: u32, count: usize) -> u32 {
    let table = carry();
    let mut done = 0;
    while done < count {
        state = (state >> 8) ^ table[(state & 0xff) as usize];
        done += 1;
    }
    state
}

/// What to add when a byte leaves: it came in first, so it was carried by all of the window and the
/// byte that comes now; so was the initial register, which must seem to start one byte later.
const fn leave() -> [u32; 256] {
    let first = after_zeros(!0, BLOCK_BYTES) ^ after_zeros(!0, BLOCK_BYTES + 1);
    let mut bits = [0; 8];
    let mut bit = 0;
    while bit < 8 {
        bits[bit] = after_zeros(1 << bit, BLOCK_BYTES + 1);
        bit += 1;
    }
    let mut table = [first; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut bit = 0;
        while bit < 8 {
            if byte >> bit & 1 == 1 {
                table[byte] ^= bits[bit];
            }
            bit += 1;
        }
        byte += 1;
    }
    table
}

/// CRC-32 of [`BLOCK_BYTES`] bytes, moving.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rolling(u32);

impl Rolling {
    /// Of the window `bytes`, [`BLOCK_BYTES`] of them.
    pub(super) fn new(bytes: &[u8]) -> Rolling {
        debug_assert_eq!(bytes.len(), BLOCK_BYTES);
        Rolling(!crc32fast::hash(bytes))
    }

    /// The CRC-32 of the window.
    pub(super) fn crc(self) -> u32 {
        !self.0
    }

    /// Moves on by a byte: `old` leaves at the front, `new` comes in at the end.
    pub(super) fn advance(&mut self, old: u8, new: u8) {
        self.0 = (self.0 >> 8) ^ CARRY[((self.0 ^ u32::from(new)) & 0xff) as usize] ^ LEAVE[usize::from(old)];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // A window that has moved has the CRC of what it covers.
    #[test]
    fn a_moving_window_has_the_crc_of_its_bytes() {
        let bytes: Vec<u8> = (0..5000u32)
            .map(|at| (at.wrapping_mul(2_654_435_761) >> 23) as u8)
            .collect();
        let mut rolling = Rolling::new(&bytes[..BLOCK_BYTES]);
        for at in 0..bytes.len() - BLOCK_BYTES {
            assert_eq!(rolling.crc(), crc32fast::hash(&bytes[at..at + BLOCK_BYTES]), "{at}");
            rolling.advance(bytes[at], bytes[at + BLOCK_BYTES]);
        }
    }
}
