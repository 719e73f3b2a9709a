//! `Boot`: the run of the machine and the mount of the file system that something was written in.
//!
//! What the page cache held survives a killed process, and nothing else. Invariant: two equal known
//! values mean that nothing which was written under the first is lost under the second.

use rustix::fd::BorrowedFd;
use rustix::fs::{AtFlags, StatxFlags, statx};

/// Which boot, and which mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Boot {
    /// `/proc/sys/kernel/random/boot_id`; zeros: not known.
    pub(super) id: [u8; 16],
    /// The kernel's number of the mount; 0: not known.
    pub(super) mount: u64,
}

/// `STATX_MNT_ID_UNIQUE`, Linux 6.8: a number that is never used again. The older one may be, by the
/// next mount.
const UNIQUE_MOUNT: StatxFlags = StatxFlags::from_bits_retain(0x4000);

impl Boot {
    pub(super) const UNKNOWN: Boot = Boot { id: [0; 16], mount: 0 };

    /// The present one, for what lies in `directory`.
    pub(super) fn here(directory: BorrowedFd<'_>) -> Boot {
        let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
        Boot {
            id: text.ok().and_then(|text| parse(text.trim())).unwrap_or_default(),
            mount: mount_of(directory).unwrap_or(0),
        }
    }

    /// Whether what was written under `self` is still there under `other`.
    pub(super) fn reaches(&self, other: &Boot) -> bool {
        self == other && self.id != [0; 16] && self.mount != 0
    }
}

fn mount_of(directory: BorrowedFd<'_>) -> Option<u64> {
    let ask = |flag: StatxFlags| {
        let found = statx(directory, "", AtFlags::EMPTY_PATH, flag).ok()?;
        (found.stx_mask & flag.bits() != 0).then_some(found.stx_mnt_id)
    };
    ask(UNIQUE_MOUNT).or_else(|| ask(StatxFlags::MNT_ID))
}

/// The bytes of a UUID.
fn parse(text: &str) -> Option<[u8; 16]> {
    let digits: String = text.chars().filter(|&c| c != '-').collect();
    let number = u128::from_str_radix(&digits, 16).ok()?;
    (digits.len() == 32).then_some(number.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fd::AsFd;

    /// What is not known is never taken for the same.
    #[test]
    fn the_present_is_known_here_and_unknown_is_never_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let file = std::fs::File::open(dir.path()).unwrap();
        let here = Boot::here(file.as_fd());
        assert!(here.reaches(&Boot::here(file.as_fd())), "{here:?}");
        assert!(!Boot::UNKNOWN.reaches(&Boot::UNKNOWN));
        assert!(!Boot { mount: 0, ..here }.reaches(&Boot { mount: 0, ..here }));
        assert!(!Boot { id: [1; 16], ..here }.reaches(&here));
        let proc = std::fs::File::open("/proc").unwrap();
        assert_ne!(Boot::here(proc.as_fd()).mount, here.mount);
        assert_eq!(
            parse("00112233-4455-6677-8899-aabbccddeeff").unwrap()[..3],
            [0, 0x11, 0x22]
        );
        assert!(parse("").is_none() && parse("0011").is_none());
    }
}
