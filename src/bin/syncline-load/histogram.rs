//! Owns the distribution of durations: log-linear buckets of a known relative error, in bounded memory.
//! It never keeps single values.
//!
//! 1. Up to [`EXACT`] microseconds each value has a bucket of its own.
//! 2. Above, each power of two is cut into [`STEPS`] buckets of equal width (the idea of HdrHistogram).
//!
//! Invariant: what [`Histogram::quantile`] says is at least the exact quantile of what was recorded, and at most
//! 1/[`STEPS`] (0.8 %) above it.

use std::time::Duration;

/// Buckets for each power of two.
const STEPS: u64 = 128;
/// Values below this are exact.
const EXACT: u64 = 2 * STEPS;
/// Powers of two above the exact values: up to 2^40 us, twelve days. What is longer counts as that.
const POWERS: u64 = 32;
const LONGEST_MICROS: u64 = (EXACT << POWERS) - 1;

/// How often durations of which length were recorded.
pub(crate) struct Histogram {
    counts: Vec<u64>,
    recorded: u64,
    sum_micros: u128,
    max_micros: u64,
}

impl Histogram {
    /// Nothing recorded yet.
    pub(crate) fn new() -> Histogram {
        Histogram {
            counts: vec![0; (EXACT + POWERS * STEPS) as usize],
            recorded: 0,
            sum_micros: 0,
            max_micros: 0,
        }
    }

    /// Adds one duration, in microseconds.
    pub(crate) fn record(&mut self, micros: u64) {
        let micros = micros.min(LONGEST_MICROS);
        self.counts[bucket_of(micros)] += 1;
        self.recorded += 1;
        self.sum_micros += u128::from(micros);
        self.max_micros = self.max_micros.max(micros);
    }

    /// How many were recorded.
    pub(crate) fn count(&self) -> u64 {
        self.recorded
    }

    /// The duration that a share of `per_million` of all did not exceed; zero when nothing was recorded.
    pub(crate) fn quantile(&self, per_million: u64) -> Duration {
        let wanted = u128::from(self.recorded) * u128::from(per_million.min(1_000_000));
        let rank = (wanted.div_ceil(1_000_000) as u64).max(1);
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return Duration::from_micros(last_of(bucket as u64).min(self.max_micros));
            }
        }
        Duration::ZERO
    }

    /// The longest; exact.
    pub(crate) fn max(&self) -> Duration {
        Duration::from_micros(self.max_micros)
    }

    /// The mean; exact.
    pub(crate) fn mean(&self) -> Duration {
        Duration::from_micros((self.sum_micros / u128::from(self.recorded.max(1))) as u64)
    }
}

fn bucket_of(micros: u64) -> usize {
    let bucket = match micros {
        0..EXACT => micros,
        _ => {
            // 0 for the first power above the exact values.
            let power = u64::from((micros / EXACT).ilog2());
            EXACT + power * STEPS + (micros >> (power + 1)) - STEPS
        }
    };
    bucket as usize
}

/// The longest duration of a bucket.
fn last_of(bucket: u64) -> u64 {
    match bucket {
        0..EXACT => bucket,
        _ => {
            let (power, step) = ((bucket - EXACT) / STEPS, (bucket - EXACT) % STEPS);
            ((STEPS + step + 1) << (power + 1)) - 1
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seeds::Dice;

    // Protects every figure of a report: quantiles are within the stated error of the exact ones.
    #[test]
    fn quantiles_are_those_of_the_sorted_values_within_the_stated_error() {
        for seed in 0..20 {
            println!("seed {seed}");
            let mut dice = Dice::new(seed);
            let mut histogram = Histogram::new();
            let count = 1 + dice.below(5_000);
            // From microseconds to hours, evenly over the powers of two.
            let mut values: Vec<u64> = (0..count)
                .map(|_| {
                    let bits = dice.below(34);
                    dice.below(1 << bits)
                })
                .collect();
            values.iter().for_each(|&value| histogram.record(value));
            values.sort_unstable();
            for per_million in [0, 1, 250_000, 500_000, 900_000, 990_000, 999_000, 999_999, 1_000_000] {
                let rank = (values.len() as u64 * per_million).div_ceil(1_000_000).max(1);
                let exact = values[rank as usize - 1];
                let told = histogram.quantile(per_million).as_micros() as u64;
                assert!(
                    exact <= told && told <= exact + exact / STEPS,
                    "{per_million}: {exact} {told}"
                );
            }
            assert_eq!(histogram.max().as_micros() as u64, values[values.len() - 1]);
            let mean = values.iter().sum::<u64>() / values.len() as u64;
            assert_eq!(histogram.mean().as_micros() as u64, mean);
            assert_eq!(histogram.count(), count);
        }
    }

    // Protects against gaps and overlaps: each bucket ends right before the next one begins.
    #[test]
    fn each_value_falls_into_the_bucket_that_ends_at_or_behind_it() {
        for bucket in 0..EXACT + POWERS * STEPS {
            let last = last_of(bucket);
            assert_eq!(bucket_of(last) as u64, bucket);
            if last < LONGEST_MICROS {
                assert_eq!(bucket_of(last + 1) as u64, bucket + 1);
            }
        }
        let mut histogram = Histogram::new();
        assert_eq!(histogram.quantile(500_000), Duration::ZERO, "nothing recorded");
        histogram.record(u64::MAX);
        assert_eq!(histogram.quantile(500_000).as_micros() as u64, LONGEST_MICROS);
    }
}
