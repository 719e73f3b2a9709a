//! Faults that tests put between the index and its file.

use rustix::io::Errno;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// How many calls of each kind still go well; shared by all who have a clone of it.
#[derive(Debug, Clone)]
pub(super) struct Faults {
    pub(super) grows: Arc<AtomicU64>,
    pub(super) writes: Arc<AtomicU64>,
    pub(super) syncs: Arc<AtomicU64>,
}

impl Default for Faults {
    fn default() -> Faults {
        let never = || Arc::new(AtomicU64::new(u64::MAX));
        Faults {
            grows: never(),
            writes: never(),
            syncs: never(),
        }
    }
}

impl Faults {
    pub(super) fn grow(&self, from: u64, to: u64) -> io::Result<()> {
        if to > from {
            spend(&self.grows, Errno::NOSPC)
        } else {
            Ok(())
        }
    }

    pub(super) fn write(&self) -> io::Result<()> {
        spend(&self.writes, Errno::NOSPC)
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        spend(&self.syncs, Errno::IO)
    }
}

/// `u64::MAX` is never spent.
fn spend(left: &AtomicU64, fault: Errno) -> io::Result<()> {
    let less = |left: u64| {
        if left == u64::MAX {
            Some(left)
        } else {
            left.checked_sub(1)
        }
    };
    match left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less) {
        Ok(_) => Ok(()),
        Err(_) => Err(fault.into()),
    }
}
