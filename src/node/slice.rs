//! Owns the time that one step of a transfer may take. It never decides what is left for the next step.
//!
//! Steps are bounded by what they work on as well; but entries and bytes cost what the file system makes of
//! them, and a slow one must not make a turn of the loop long. Invariant: a loop that asks after each of its
//! rounds ends within [`STEP_MICROS`] and one round.

use std::time::{Duration, Instant};

/// Half of what a connection may take of a turn.
const STEP_MICROS: u64 = 1_000;

/// The time of one step.
#[derive(Debug)]
pub(super) struct Slice {
    until: Instant,
}

impl Slice {
    pub(super) fn begin() -> Slice {
        Slice {
            until: Instant::now() + Duration::from_micros(STEP_MICROS),
        }
    }

    /// Whether the rest has to wait for the next step.
    pub(super) fn is_over(&self) -> bool {
        Instant::now() >= self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever a round costs, there is an end.
    #[test]
    fn a_slice_is_over_after_its_time() {
        let slice = Slice::begin();
        let mut rounds = 0u64;
        while !slice.is_over() {
            rounds += 1;
        }
        assert!(rounds < 10_000_000);
        assert!(Instant::now() >= slice.until);
    }
}
