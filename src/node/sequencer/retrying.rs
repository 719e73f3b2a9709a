//! When what could not be read is looked at again.
//!
//! Reads nothing. Invariant: what stays unreadable is tried ever more rarely, but for good.

use super::{Sequencer, Stage};
use crate::model::Tick;

/// When that is due, and how long it takes the next time.
#[derive(Debug)]
pub(super) struct Retries {
    due: Option<Tick>,
    wait_ms: u64,
}

impl Default for Retries {
    fn default() -> Retries {
        Retries {
            due: None,
            wait_ms: RETRY_MS,
        }
    }
}

impl Sequencer {
    /// When what could not be read, or changed meanwhile, is to be tried again; what is due waits for the next round
    /// then.
    pub(crate) fn retry(&mut self, now: Tick) -> Option<Tick> {
        if self.stage != Stage::Resting {
            return None;
        }
        if !self.looks.has_postponed() {
            self.retries = Retries::default();
            return None;
        }
        let wait_ms = self.retries.wait_ms;
        let due = *self.retries.due.get_or_insert(now + wait_ms);
        if now < due {
            return Some(due);
        }
        self.looks.retry();
        self.retries = Retries {
            due: None,
            wait_ms: (2 * wait_ms).min(RETRY_MS_MAX),
        };
        Some(now)
    }
}

/// Milliseconds until the first try, and the most that lie between two.
const RETRY_MS: u64 = 1_000;
const RETRY_MS_MAX: u64 = 64_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::RelPath;
    use crate::node::looking::Looks;
    use crate::store::Root;

    // Protects a server from opening a file that it may not read every second for good.
    #[test]
    fn what_cannot_be_read_is_tried_ever_more_rarely() {
        let dir = tempfile::tempdir().unwrap();
        let mut sequencer = Sequencer::open(&Root::open(dir.path()).unwrap(), 0, Tick(0)).unwrap();
        let path = RelPath::parse(b"locked").unwrap();
        let (mut now, mut waits) = (Tick(0), Vec::new());
        for _ in 0..8 {
            sequencer.looks.later(&path);
            let due = sequencer.retry(now).unwrap();
            waits.push(due.since(now));
            assert!(!sequencer.looks.include(&path));
            now = due;
            assert_eq!(sequencer.retry(now), Some(now));
            assert!(sequencer.looks.include(&path), "it is due");
            sequencer.looks = Looks::default();
        }
        assert_eq!(waits, [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 64_000, 64_000]);
        // Once all could be read, the next trouble is a new one.
        assert_eq!(sequencer.retry(now), None);
        sequencer.looks.later(&path);
        assert_eq!(sequencer.retry(now), Some(now + RETRY_MS));
    }
}
