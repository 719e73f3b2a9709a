//! When a client tries again after its connection broke.
//!
//! Never reads a clock: times come in. Invariant: attempts that lead nowhere come to an end.

/// The attempts of one job.
#[derive(Debug, Default)]
pub(super) struct Retrying {
    /// Attempts in a row that got no further.
    attempt: u32,
    /// The greatest number of bytes that an attempt could go on behind.
    furthest: u64,
    /// When the way to the server began to be closed, in milliseconds.
    refused_since: Option<u64>,
}

/// What an attempt that broke off came to.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Broken {
    pub(super) now_ms: u64,
    /// Files were settled, which the next attempt need not send again.
    pub(super) settled: bool,
    /// Bytes of unfinished files that it went on behind.
    pub(super) resumed_bytes: u64,
    /// The machine is there, and nobody listens.
    pub(super) refused: bool,
    /// The server has no room, and asked to come again after so long.
    pub(super) asked_ms: Option<u64>,
}

/// When to try again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wait {
    pub(super) attempt: u32,
    pub(super) wait_ms: u64,
    /// The user hears of it.
    pub(super) told: bool,
}

/// Milliseconds before the first repetition; doubles up to 256 times this, plus jitter.
const RETRY_MS: u64 = 50;
const DOUBLINGS_MAX: u32 = 8;
/// A server that is started again is back in so many milliseconds, as a rule: until then, asking costs
/// nothing, and is not counted.
const RESTART_MS: u64 = 10_000;
const RESTART_RETRY_MS: u64 = 50;
/// The longest that a server without room makes us wait.
const ASKED_MS_MAX: u64 = 600_000;

impl Retrying {
    /// An attempt broke off; `random` spreads those of many clients. `None`: that was the last one.
    pub(super) fn after(&mut self, broken: Broken, retries: u32, random: u64) -> Option<Wait> {
        if broken.settled || broken.resumed_bytes > self.furthest {
            // Bytes that are sent again are no progress; a file that never gets through would be sent for
            // ever. But the one before this attempt got further than any before.
            self.attempt = 0;
            self.furthest = broken.resumed_bytes;
        }
        if let (Some(asked_ms), true) = (broken.asked_ms, retries > 0) {
            // A line of another kind: who waits in one is not counted as failing either.
            return Some(Wait {
                attempt: self.attempt,
                wait_ms: asked_ms.clamp(RETRY_MS, ASKED_MS_MAX) + random % RETRY_MS,
                told: true,
            });
        }
        let since = match broken.refused {
            true => *self.refused_since.get_or_insert(broken.now_ms),
            false => {
                self.refused_since = None;
                broken.now_ms
            }
        };
        if broken.refused && broken.now_ms - since < RESTART_MS && retries > 0 {
            return Some(Wait {
                attempt: self.attempt,
                wait_ms: RESTART_RETRY_MS + random % RESTART_RETRY_MS,
                told: false,
            });
        }
        if self.attempt >= retries {
            return None;
        }
        self.attempt += 1;
        Some(Wait {
            attempt: self.attempt,
            wait_ms: (RETRY_MS << (self.attempt - 1).min(DOUBLINGS_MAX)) + random % RETRY_MS,
            told: true,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits(retrying: &mut Retrying, broken: Broken, times: u32) -> Vec<u64> {
        let waits = (0..times).map_while(|_| retrying.after(broken, 4, 0));
        waits.map(|wait| wait.wait_ms).collect()
    }

    // Attempts that get no further come to an end, ever slower; progress of either kind starts anew.
    #[test]
    fn only_attempts_that_get_further_renew_the_patience() {
        let mut retrying = Retrying::default();
        let nothing = Broken::default();
        assert_eq!(waits(&mut retrying, nothing, 9), [50, 100, 200, 400]);
        let resumed = |resumed_bytes| Broken {
            resumed_bytes,
            ..nothing
        };
        assert_eq!(waits(&mut retrying, resumed(100), 9), [50, 100, 200, 400]);
        assert_eq!(waits(&mut retrying, resumed(100), 9), [] as [u64; 0]);
        assert_eq!(waits(&mut retrying, resumed(101), 1), [50]);
        let settled = Broken {
            settled: true,
            ..nothing
        };
        assert_eq!(waits(&mut retrying, settled, 9), [50; 9]);
    }

    // A server without room is asked again when it said, for as long as it takes; its word is bounded.
    #[test]
    fn a_server_without_room_says_when_it_is_asked_again() {
        let mut retrying = Retrying::default();
        let asked = |asked_ms| Broken {
            asked_ms: Some(asked_ms),
            ..Broken::default()
        };
        assert_eq!(waits(&mut retrying, asked(7_000), 20), [7_000; 20]);
        assert_eq!(waits(&mut retrying, asked(u64::MAX), 1), [600_000]);
        assert_eq!(waits(&mut retrying, asked(0), 1), [50]);
        assert_eq!(Retrying::default().after(asked(5), 0, 0), None);
    }

    // A server that starts again is found at once; one that stays away is given up as any other.
    #[test]
    fn a_closed_door_is_knocked_at_for_a_while() {
        let mut retrying = Retrying::default();
        let mut refused = Broken {
            now_ms: 5000,
            refused: true,
            ..Broken::default()
        };
        for _ in 0..100 {
            refused.now_ms += 99;
            let wait = retrying.after(refused, 2, 74).unwrap();
            assert_eq!((wait.wait_ms, wait.told), (74, false));
        }
        refused.now_ms += RESTART_MS;
        assert_eq!(waits(&mut retrying, refused, 9), [50, 100, 200, 400]);
        assert_eq!(Retrying::default().after(refused, 0, 0), None);
    }
}
