//! Owns the token bucket, of which each limit of bandwidth has one per direction. It never reads a clock
//! and never waits; it says how many bytes may move now, and when the next ones may.
//!
//! Invariant: over any span, at most `rate × span + burst` bytes are granted.

/// Bytes that are worth a system call; below them a connection waits instead of trickling.
const GRAIN_BYTES_MAX: u64 = 64 * 1024;
const GRAIN_BYTES_MIN: u64 = 512;
const MICROS: u64 = 1_000_000;

#[derive(Debug)]
pub(super) struct Bucket {
    rate_bytes_s: u64,
    burst_bytes: u64,
    grain_bytes: u64,
    /// Bytes in the bucket, in millionths. Negative after a grant was exceeded (TLS adds a little).
    tokens: i128,
    at_micros: u64,
}

impl Bucket {
    /// A full bucket for `rate_bytes_s` bytes a second (at least 1).
    pub(super) fn new(rate_bytes_s: u64, now_micros: u64) -> Bucket {
        let rate_bytes_s = rate_bytes_s.max(1);
        let grain_bytes = (rate_bytes_s / 50).clamp(GRAIN_BYTES_MIN, GRAIN_BYTES_MAX);
        let burst_bytes = (rate_bytes_s / 10).max(grain_bytes);
        let tokens = i128::from(burst_bytes) * i128::from(MICROS);
        Bucket {
            rate_bytes_s,
            burst_bytes,
            grain_bytes,
            tokens,
            at_micros: now_micros,
        }
    }

    /// Bytes that may move now: 0, or at least a grain.
    pub(super) fn allow(&mut self, now_micros: u64) -> usize {
        self.fill(now_micros);
        let bytes = u64::try_from(self.tokens / i128::from(MICROS)).unwrap_or(0);
        if bytes < self.grain_bytes {
            0
        } else {
            usize::try_from(bytes).unwrap_or(usize::MAX)
        }
    }

    /// Counts bytes that moved.
    pub(super) fn take(&mut self, bytes: u64) {
        self.tokens -= i128::from(bytes) * i128::from(MICROS);
    }

    /// Microseconds until `allow` grants something; 0 when it does now.
    pub(super) fn wait_micros(&mut self, now_micros: u64) -> u64 {
        self.fill(now_micros);
        let missing = i128::from(self.grain_bytes) * i128::from(MICROS) - self.tokens;
        let rate = i128::from(self.rate_bytes_s);
        u64::try_from((missing.max(0) + rate - 1) / rate).unwrap_or(u64::MAX)
    }

    /// Puts back what was counted and did not move.
    pub(super) fn give_back(&mut self, bytes: u64) {
        self.tokens += i128::from(bytes) * i128::from(MICROS);
    }

    /// The least that is granted at a time.
    pub(super) fn grain_bytes(&self) -> u32 {
        u32::try_from(self.grain_bytes).unwrap_or(u32::MAX)
    }

    /// Goes on at another rate, with what is in the bucket, as far as it fits, or with its debt.
    pub(super) fn set_rate(&mut self, rate_bytes_s: u64, now_micros: u64) {
        self.fill(now_micros);
        let tokens = self.tokens;
        *self = Bucket::new(rate_bytes_s, self.at_micros);
        self.tokens = self.tokens.min(tokens);
    }

    fn fill(&mut self, now_micros: u64) {
        let passed = now_micros.saturating_sub(self.at_micros);
        self.at_micros = self.at_micros.max(now_micros);
        let full = i128::from(self.burst_bytes) * i128::from(MICROS);
        self.tokens = (self.tokens + i128::from(passed) * i128::from(self.rate_bytes_s)).min(full);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_seconds_of_greed_get_ten_seconds_of_rate_and_one_burst() {
        for rate in [1, 300, 100_000, 5_000_000, 10_000_000_000] {
            let mut bucket = Bucket::new(rate, 0);
            let (mut now, mut moved, mut visits) = (0, 0u64, 0u64);
            while now < 10 * MICROS {
                let bytes = bucket.allow(now) as u64;
                bucket.take(bytes);
                moved += bytes;
                now += bucket.wait_micros(now).max(1_000);
                visits += 1;
            }
            let (burst, grain) = (bucket.burst_bytes, bucket.grain_bytes);
            assert!(moved <= rate * 10 + burst, "{rate}: {moved} bytes moved");
            assert!(moved + grain + burst >= rate * 10, "{rate}: only {moved} bytes moved");
            assert!(visits <= 10_000, "{rate}: {visits} visits are a busy loop");
        }
    }

    #[test]
    fn an_exceeded_grant_is_paid_back_and_a_pause_gives_no_more_than_a_burst() {
        let mut bucket = Bucket::new(1_000_000, 0);
        bucket.take(300_000);
        assert_eq!(bucket.allow(0), 0);
        assert_eq!(
            bucket.wait_micros(0),
            220_000,
            "200,000 bytes of debt and a grain of 20,000"
        );
        assert_eq!(bucket.allow(220_000), 20_000);
        assert_eq!(bucket.allow(3_600 * MICROS), 100_000);
        assert_eq!(bucket.allow(0), 100_000, "a clock that jumps back takes nothing away");
    }

    /// A timetable must not hand out a burst at each of its changes.
    #[test]
    fn another_rate_gives_nothing_away() {
        let mut bucket = Bucket::new(1_000_000, 0);
        bucket.take(100_000);
        bucket.set_rate(10_000_000, 10_000);
        assert_eq!(bucket.allow(10_000), 0, "10 KB came in at the old rate");
        assert_eq!(bucket.allow(110_000), 1_000_000);
        bucket.set_rate(1_000_000, 110_000);
        assert_eq!(bucket.allow(110_000), 100_000, "no more than a burst of the new rate");
    }
}
