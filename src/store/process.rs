//! What the system says of this process. It never keeps anything, and costs nothing until it is asked.
//!
//! Invariant: a figure that the system does not give is `None`, never a guess.

use std::fs;

/// The process, as the system sees it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ProcessFigures {
    /// Resident memory that is not a mapping of a file, in bytes.
    pub anonymous_bytes: Option<u64>,
    /// Open descriptors.
    pub descriptors: Option<u64>,
}

impl ProcessFigures {
    /// As of now, from `/proc/self`.
    #[must_use]
    pub fn now() -> ProcessFigures {
        let status = fs::read_to_string("/proc/self/status").ok();
        ProcessFigures {
            anonymous_bytes: status.as_deref().and_then(anonymous),
            descriptors: descriptors(),
        }
    }
}

/// The line `RssAnon:  1234 kB`, in bytes.
fn anonymous(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// Since Linux 6.2 the length of the directory is their number; before, they are listed. The descriptor that is
/// opened for listing is not counted.
fn descriptors() -> Option<u64> {
    let length = fs::metadata("/proc/self/fd").ok()?.len();
    if length > 0 {
        return Some(length);
    }
    let listed = fs::read_dir("/proc/self/fd").ok()?.count() as u64;
    Some(listed.saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_in_bytes_or_not_at_all() {
        assert_eq!(
            anonymous("Name:\tx\nRssAnon:\t    1234 kB\nRssFile:\t9 kB\n"),
            Some(1234 * 1024)
        );
        for strange in [
            "",
            "RssAnon:\n",
            "RssAnon: 12 MB\n",
            "RssAnon: 99999999999999999999 kB\n",
        ] {
            assert_eq!(anonymous(strange), None, "{strange:?}");
        }
    }

    // Other tests of this process open files meanwhile, so that only a lower bound is certain.
    #[test]
    fn the_own_process_is_seen() {
        let held: Vec<_> = (0..50).map(|_| fs::File::open("/dev/null").unwrap()).collect();
        let now = ProcessFigures::now();
        assert!(now.descriptors.unwrap() > held.len() as u64);
        assert!(now.anonymous_bytes.unwrap() > 50_000);
    }
}
