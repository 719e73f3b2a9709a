//! What two devices that meet for the first time show to their users, and what they call what they share.
//!
//! Never grants anything. Invariant: both devices come to the same, and whoever is between them, with keys of its
//! own, does not.

use crate::model::{DeviceId, ShareName, words_of};
use sha2::{Digest, Sha256};

/// Words that stand for the keys of both devices, the same on either.
///
/// Ten words are 80 bits. Somebody in between, who shows a key of their own to either side, can look for two that lead
/// to the same words; that takes 2^40 keys towards each side, and for each of them 2^20 rounds of SHA-256: some 2^61
/// in all, for one pair of devices.
#[must_use]
pub fn comparison_words(one: &DeviceId, other: &DeviceId) -> String {
    let mut state = digest(b"syncline comparison 1", one, other);
    for _ in 0..WORDS_ROUNDS {
        let mut next = Sha256::new();
        next.update(state);
        next.update(one.0.min(other.0));
        state = next.finalize().into();
    }
    words_of(&state[..WORDS_BYTES])
}

/// The share of two devices that are peers. Each pair has its own name, so that what one of them may do with one
/// device's folder says nothing about another's.
#[must_use]
pub fn pair_share(one: &DeviceId, other: &DeviceId) -> ShareName {
    let digest = digest(b"syncline peers 1", one, other);
    let hex: String = digest[..NAME_BYTES].iter().map(|byte| format!("{byte:02x}")).collect();
    ShareName::parse(&format!("{PAIR_PREFIX}{hex}")).expect("hexadecimal digits name a share")
}

/// Whether a share is one of two peers.
#[cfg(feature = "sync")]
pub(super) fn is_pair_share(share: &ShareName) -> bool {
    share.as_str().starts_with(PAIR_PREFIX)
}

const PAIR_PREFIX: &str = "peer-";
/// Bytes of a digest that a share is called by: more than somebody can find another pair of keys for.
const NAME_BYTES: usize = 16;
/// Rounds that take some tens of milliseconds.
const WORDS_ROUNDS: u32 = 1 << 20;
const WORDS_BYTES: usize = 10;

fn digest(purpose: &[u8], one: &DeviceId, other: &DeviceId) -> [u8; 32] {
    let mut digest = Sha256::new();
    digest.update(purpose);
    digest.update(one.0.min(other.0));
    digest.update(one.0.max(other.0));
    digest.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    // Protects a first meeting: both see the same words, and with somebody in between they see others.
    #[test]
    fn both_see_the_same_and_a_third_key_shows() {
        let [a, b, m] = [1, 2, 3].map(|byte| DeviceId([byte; 32]));
        let words = comparison_words(&a, &b);
        assert_eq!(words, comparison_words(&b, &a));
        assert_eq!(words.split('-').count(), WORDS_BYTES);
        assert_ne!(words, comparison_words(&a, &m));
        assert_ne!(comparison_words(&a, &m), comparison_words(&m, &b));
        assert_eq!(pair_share(&a, &b), pair_share(&b, &a));
        assert_ne!(pair_share(&a, &b), pair_share(&a, &m));
        #[cfg(feature = "sync")]
        assert!(is_pair_share(&pair_share(&a, &b)));
    }
}
