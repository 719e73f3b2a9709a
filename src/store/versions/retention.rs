//! `Tidying`: lets go of versions that are too old, or too many, in bounded steps.
//!
//! 1. A first pass removes what is older than the age, and adds up by the minute what stays.
//! 2. If that is more than the size allows, whole minutes are given up, the oldest first, and a second
//!    pass removes what is in them.
//! 3. Both passes remove what an exchange that never happened left, after a while, and empty directories.
//!
//! Memory grows with the minutes in which something was kept, not with the versions. Never touches
//! anything but versions. An undo record needs what came after it: that is younger, so it outlasts the
//! record. Invariant: a version that is younger than the age goes only if the size
//! demands it, and then only after everything from earlier minutes.

use super::name::KeptAt;
use super::walk::{Stay, Version, VersionWalk};
use crate::store::error::FileError;
use crate::store::root::Root;
use std::collections::BTreeMap;
use std::time::Duration;

/// How long versions are kept, and how many bytes of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Older ones go; `None`: age alone is no reason.
    pub age: Option<Duration>,
    /// When there is more of them, the oldest go; `None`: size is no reason.
    pub size: Option<SizeBound>,
}

/// Bytes of versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SizeBound {
    /// So many.
    Bytes(u64),
    /// This share of the size of the file system, in percent.
    Percent(u8),
}

impl Default for Retention {
    /// 30 days, at most a tenth of the file system.
    fn default() -> Retention {
        Retention {
            age: Some(Duration::from_secs(30 * 86_400)),
            size: Some(SizeBound::Percent(10)),
        }
    }
}

/// What was let go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tidied {
    /// Versions.
    pub versions: u64,
    /// Bytes that they took on the disk.
    pub bytes: u64,
    /// Bytes of those that stay, once all were counted.
    pub kept_bytes: u64,
}

/// A tidying in progress. Can go from thread to thread between steps.
#[derive(Debug)]
pub struct Tidying {
    root: Root,
    now: KeptAt,
    oldest_seconds: u64,
    bytes_max: u64,
    pass: Pass,
    tidied: Tidied,
}

#[derive(Debug)]
enum Pass {
    Count {
        walk: VersionWalk,
        minutes: BTreeMap<u64, u64>,
    },
    Shrink {
        walk: VersionWalk,
        /// Minutes up to this one are given up.
        until: u64,
    },
    Over,
}

/// An exchange takes microseconds. What has waited for one longer than this was left by a crash.
const EXCHANGE_SECONDS: u64 = 600;

impl Tidying {
    /// Begins to apply `retention` to the versions of `root`, as of now.
    ///
    /// # Errors
    /// When they cannot be read, or the file system does not tell its size.
    pub fn begin(root: &Root, retention: &Retention) -> Result<Tidying, FileError> {
        Tidying::begin_at(root, retention, KeptAt::now())
    }

    pub(super) fn begin_at(root: &Root, retention: &Retention, now: KeptAt) -> Result<Tidying, FileError> {
        let age = retention.age.map_or(u64::MAX, |age| age.as_secs());
        let bytes_max = match retention.size {
            None => u64::MAX,
            Some(SizeBound::Bytes(bytes)) => bytes,
            Some(SizeBound::Percent(percent)) => root.total_bytes()? / 100 * u64::from(percent),
        };
        Ok(Tidying {
            root: root.share(),
            now,
            oldest_seconds: now.seconds().saturating_sub(age),
            bytes_max,
            pass: Pass::Count {
                walk: VersionWalk::removing(root, None)?,
                minutes: BTreeMap::new(),
            },
            tidied: Tidied::default(),
        })
    }

    /// Goes on for at most `max` names.
    ///
    /// # Returns
    /// Whether there is more to do.
    ///
    /// # Errors
    /// When the versions cannot be read any more.
    pub fn step(&mut self, max: usize) -> Result<bool, FileError> {
        let (now, oldest) = (self.now, self.oldest_seconds);
        let tidied = &mut self.tidied;
        let mut give_up = |version: &Version| {
            tidied.versions += 1;
            tidied.bytes += version.disk_bytes();
            tidied.kept_bytes = tidied.kept_bytes.saturating_sub(version.disk_bytes());
            Stay::No
        };
        let more = match &mut self.pass {
            Pass::Over => return Ok(false),
            Pass::Count { walk, minutes } => walk.step(max, &mut |version| {
                let seconds = version.name().kept_at().seconds();
                if version.is_unexchanged() {
                    return unexchanged(seconds, now);
                }
                if seconds < oldest {
                    return give_up(&version);
                }
                *minutes.entry(seconds / 60).or_default() += version.disk_bytes();
                Stay::Yes
            }),
            Pass::Shrink { walk, until } => walk.step(max, &mut |version| {
                let seconds = version.name().kept_at().seconds();
                if !version.is_unexchanged() && seconds / 60 <= *until {
                    return give_up(&version);
                }
                Stay::Yes
            }),
        };
        if more {
            return Ok(true);
        }
        self.next_pass()
    }

    fn next_pass(&mut self) -> Result<bool, FileError> {
        let Pass::Count { minutes, .. } = std::mem::replace(&mut self.pass, Pass::Over) else {
            return Ok(false);
        };
        let total: u64 = minutes.values().sum();
        self.tidied.kept_bytes = total;
        let Some(until) = last_minute_to_go(&minutes, total, self.bytes_max) else {
            return Ok(false);
        };
        self.pass = Pass::Shrink {
            walk: VersionWalk::removing(&self.root, None)?,
            until,
        };
        Ok(true)
    }

    /// What it has let go so far.
    #[must_use]
    pub fn tidied(&self) -> Tidied {
        self.tidied
    }
}

fn unexchanged(seconds: u64, now: KeptAt) -> Stay {
    if seconds.saturating_add(EXCHANGE_SECONDS) < now.seconds() {
        Stay::No
    } else {
        Stay::Yes
    }
}

/// The last of the oldest minutes that have to go so that at most `bytes_max` stay.
fn last_minute_to_go(minutes: &BTreeMap<u64, u64>, total: u64, bytes_max: u64) -> Option<u64> {
    let mut left = total;
    let mut last = None;
    for (&minute, &bytes) in minutes {
        if left <= bytes_max {
            break;
        }
        left -= bytes;
        last = Some(minute);
    }
    last
}
