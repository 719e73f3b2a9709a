//! Monotonic time as the pure layers see it.

use std::ops::{Add, Sub};

/// Milliseconds on a monotonic clock since some start. Never wall-clock time: setting the clock
/// moves no timer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Tick(pub u64);

impl Tick {
    /// Milliseconds from `earlier` to `self`; 0 when `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Tick) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<u64> for Tick {
    type Output = Tick;

    fn add(self, ms: u64) -> Tick {
        Tick(self.0.saturating_add(ms))
    }
}

impl Sub<u64> for Tick {
    type Output = Tick;

    fn sub(self, ms: u64) -> Tick {
        Tick(self.0.saturating_sub(ms))
    }
}
