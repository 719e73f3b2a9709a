//! Owns the histogram of how long turns took. It never reads a clock.
//!
//! Invariant: every turn is counted in exactly one bucket, and noting one costs a few nanoseconds.

/// Upper bounds of the buckets, in microseconds; what is longer is in one more.
pub const TURN_BOUNDS_MICROS: [u64; 10] = [100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000];

/// How many turns took how long, without their waiting.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TurnTimes {
    counts: [u64; TURN_BOUNDS_MICROS.len() + 1],
    sum_micros: u64,
}

impl TurnTimes {
    pub(super) fn note(&mut self, micros: u64) {
        let bucket = TURN_BOUNDS_MICROS.iter().position(|bound| micros <= *bound);
        self.counts[bucket.unwrap_or(TURN_BOUNDS_MICROS.len())] += 1;
        self.sum_micros += micros;
    }

    /// For each of [`TURN_BOUNDS_MICROS`], the turns that took so long at most.
    pub fn up_to(&self) -> impl Iterator<Item = (u64, u64)> {
        let sums = self.counts.iter().scan(0, |sum, count| {
            *sum += count;
            Some(*sum)
        });
        TURN_BOUNDS_MICROS.into_iter().zip(sums)
    }

    /// All turns.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Microseconds of all turns together.
    #[must_use]
    pub fn sum_micros(&self) -> u64 {
        self.sum_micros
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_is_in_the_first_bucket_that_holds_it_and_in_all_above() {
        let mut times = TurnTimes::default();
        for micros in [0, 100, 101, 100_000, 100_001, 7_000_000] {
            times.note(micros);
        }
        let up_to: Vec<(u64, u64)> = times.up_to().collect();
        assert_eq!((up_to[0], up_to[1], up_to[9]), ((100, 2), (250, 3), (100_000, 4)));
        assert_eq!((times.count(), times.sum_micros()), (6, 7_200_202));
        assert!(up_to.windows(2).all(|pair| pair[0] < pair[1] || pair[0].1 == pair[1].1));
    }
}
