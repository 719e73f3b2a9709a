//! What is not watched, and what its owner can do about it. Never changes a setting.

use crate::model::{Escaped, RelPath};
use rustix::io::Errno;
use std::fmt;
use std::fs;

/// Why directories are not watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shortage {
    /// The system allows no more watches.
    Watches,
    /// The system allows no more trees to be watched.
    Instances,
    /// Our own bound on the directories of one tree: so many.
    Bound(usize),
    /// `/proc` is not there, which watches are set through.
    NoProc,
    /// The directory may not be read.
    Unreadable,
    /// The system said something else.
    Other(Errno),
}

/// The part of a tree that is not watched. Displays as one sentence that says what to try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unwatched {
    pub(super) directories: u64,
    /// `None` is the root.
    pub(super) first: Option<RelPath>,
    pub(super) why: Shortage,
}

/// What the limits are raised to at least: the usual value of current systems, and their usual instances.
const WATCHES_PROPOSED_MIN: u64 = 524_288;
const INSTANCES_PROPOSED_MIN: u64 = 1_024;

impl Unwatched {
    /// Directories that are not watched; what is beneath them is not counted, and not watched either.
    #[must_use]
    pub fn directories(&self) -> u64 {
        self.directories
    }

    /// The first of them, or the first that is left by a limit; `None` when it is the root.
    #[must_use]
    pub fn first(&self) -> Option<&RelPath> {
        self.first.as_ref()
    }

    /// Why that one is not watched.
    #[must_use]
    pub fn why(&self) -> Shortage {
        self.why
    }
}

impl Shortage {
    pub(super) fn of(errno: Errno) -> Shortage {
        match errno {
            Errno::NOSPC | Errno::NOMEM => Shortage::Watches,
            Errno::MFILE => Shortage::Instances,
            Errno::NOENT => Shortage::NoProc,
            Errno::ACCESS | Errno::PERM => Shortage::Unreadable,
            errno => Shortage::Other(errno),
        }
    }

    /// Whether raising a limit or mounting something helps, for all directories at once.
    pub(super) fn is_limit(self) -> bool {
        !matches!(self, Shortage::Unreadable | Shortage::Other(_))
    }

    /// As [`Shortage::of`], of opening a directory, where the same numbers mean something else.
    pub(super) fn of_opening(errno: Errno) -> Shortage {
        match errno {
            Errno::ACCESS | Errno::PERM => Shortage::Unreadable,
            errno => Shortage::Other(errno),
        }
    }
}

impl fmt::Display for Unwatched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first: &[u8] = self.first.as_ref().map_or(b".", RelPath::as_bytes);
        match self.directories {
            0 | 1 => write!(f, "{} is not watched: {}", Escaped(first), self.why),
            more => write!(
                f,
                "{more} directories are not watched, such as {}: {}",
                Escaped(first),
                self.why
            ),
        }
    }
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Shortage::Watches => {
                let limit = Limit::of("max_user_watches", "max_inotify_watches");
                write!(
                    f,
                    "the system allows no more watches{limit}; raise the limit with \"sudo sysctl {}\"",
                    limit.raised(WATCHES_PROPOSED_MIN)
                )
            }
            Shortage::Instances => {
                let limit = Limit::of("max_user_instances", "max_inotify_instances");
                write!(
                    f,
                    "the system allows no more watched folders{limit}; raise the limit with \"sudo sysctl {}\", or the limit of open files",
                    limit.raised(INSTANCES_PROPOSED_MIN)
                )
            }
            Shortage::Bound(most) => write!(
                f,
                "at most {most} directories of a folder are watched; ignore or split some"
            ),
            Shortage::NoProc => f.write_str("/proc is not mounted; mount it to have changes noticed at once"),
            Shortage::Unreadable => f.write_str("its listing may not be read; allow it with chmod u+rx"),
            Shortage::Other(errno) => write!(f, "{}", crate::model::system_reason(&(*errno).into())),
        }
    }
}

/// A setting of the system, by the name that `sysctl` knows it by.
struct Limit {
    name: String,
    value: Option<u64>,
}

impl Limit {
    /// The limit that holds: that of the system, or that of a user namespace (a container) where it is lower.
    fn of(system: &str, namespace: &str) -> Limit {
        let read = |path: String| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
        let of_system = read(format!("/proc/sys/fs/inotify/{system}"));
        let of_namespace = read(format!("/proc/sys/user/{namespace}"));
        match (of_system, of_namespace) {
            (Some(value), Some(lower)) if lower < value => Limit {
                name: format!("user.{namespace}"),
                value: Some(lower),
            },
            (value, _) => Limit {
                name: format!("fs.inotify.{system}"),
                value,
            },
        }
    }

    fn raised(&self, least: u64) -> String {
        let doubled = self.value.unwrap_or(0).saturating_mul(2);
        let value = doubled.checked_next_power_of_two().unwrap_or(doubled).max(least);
        format!("{}={value}", self.name)
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.value {
            Some(value) => write!(f, " ({} is {value})", self.name),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Protects whoever reads the message: it holds a command that works as it stands.
    #[test]
    fn the_message_names_the_setting_and_a_higher_value() {
        let unwatched = Unwatched {
            directories: 3,
            first: Some(RelPath::parse(b"a\nb").unwrap()),
            why: Shortage::Watches,
        };
        let text = unwatched.to_string();
        assert!(
            text.starts_with("3 directories are not watched, such as a\\nb: "),
            "{text}"
        );
        assert!(
            text.contains("sudo sysctl fs.inotify.max_user_watches=") || text.contains("sudo sysctl user.max_"),
            "{text}"
        );
        let limit = |value| Limit {
            name: "fs.inotify.max_user_watches".to_owned(),
            value,
        };
        assert_eq!(limit(Some(8192)).raised(524_288), "fs.inotify.max_user_watches=524288");
        assert_eq!(
            limit(Some(524_288)).raised(524_288),
            "fs.inotify.max_user_watches=1048576"
        );
        assert_eq!(
            limit(Some(600_000)).raised(524_288),
            "fs.inotify.max_user_watches=2097152"
        );
        assert_eq!(limit(None).raised(524_288), "fs.inotify.max_user_watches=524288");
    }
}
