//! Whether two names stand for one file that was sent twice.
//!
//! Reads, changes nothing. Why the time as well: what somebody is writing at this moment has a time of its own, also
//! while it is empty or like what was sent, and what he writes next must not be lost. Why a bound: commits of others
//! wait for the comparison. Invariant: two are alike only if every byte was compared; what cannot be read is not.

use super::facts::{Found, FoundKind};
use rustix::fd::BorrowedFd;
use rustix::fs::{AtFlags, Mode, OFlags, openat, readlinkat, statat};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// A name in a directory.
pub(super) type Named<'a> = (BorrowedFd<'a>, &'a [u8]);

/// Bytes that are compared at a time.
const PART_BYTES: usize = 256 << 10;
/// Larger files are never alike.
const LENGTH_MAX: u64 = 16 << 20;

/// Whether both are files of the same bytes and the same time, or links to the same target.
pub(super) fn are_alike(one: Named<'_>, other: Named<'_>) -> bool {
    compare(one, other).unwrap_or(false)
}

fn compare(one: Named<'_>, other: Named<'_>) -> io::Result<bool> {
    let (first, second) = (found(one)?, found(other)?);
    match (first.kind, second.kind) {
        (FoundKind::File { size }, FoundKind::File { size: there }) => {
            let may_be = size == there && size <= LENGTH_MAX && first.meta.mtime == second.meta.mtime;
            Ok(may_be && same_bytes(&open(one)?, &open(other)?, size)?)
        }
        (FoundKind::Symlink, FoundKind::Symlink) => {
            Ok(readlinkat(one.0, one.1, Vec::new())? == readlinkat(other.0, other.1, Vec::new())?)
        }
        _ => Ok(false),
    }
}

fn found((directory, name): Named<'_>) -> io::Result<Found> {
    Ok(Found::of(&statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?))
}

fn open((directory, name): Named<'_>) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(openat(directory, name, flags, Mode::empty())?.into())
}

/// Compares two files of that size; an error when one has become shorter.
fn same_bytes(one: &File, other: &File, size: u64) -> io::Result<bool> {
    let (mut here, mut there) = (vec![0; PART_BYTES], vec![0; PART_BYTES]);
    for at in (0..size).step_by(PART_BYTES) {
        let length = (size - at).min(PART_BYTES as u64) as usize;
        let (here, there) = (&mut here[..length], &mut there[..length]);
        one.read_exact_at(here, at)?;
        other.read_exact_at(there, at)?;
        if here != there {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::CWD;
    use std::fs;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::symlink;
    use std::path::Path;
    use std::time::{Duration, UNIX_EPOCH};

    fn alike(dir: &Path, one: &str, other: &str) -> bool {
        let (one, other) = (dir.join(one), dir.join(other));
        are_alike((CWD, one.as_os_str().as_bytes()), (CWD, other.as_os_str().as_bytes()))
    }

    /// A file of that content and time.
    fn put(path: &Path, bytes: &[u8], seconds: u64) {
        fs::write(path, bytes).unwrap();
        let file = File::options().write(true).open(path).unwrap();
        file.set_modified(UNIX_EPOCH + Duration::from_secs(seconds)).unwrap();
    }

    // Protects what differs in one byte only, at any place, from being taken for a second copy.
    #[test]
    fn only_the_same_bytes_are_alike() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        let mut bytes: Vec<u8> = (0..PART_BYTES * 2 + 77).map(|at| (at % 251) as u8).collect();
        put(&a, &bytes, 1);
        put(&b, &bytes, 1);
        assert!(alike(dir.path(), "a", "b"));
        for at in [0, PART_BYTES - 1, PART_BYTES, bytes.len() - 1] {
            bytes[at] ^= 1;
            put(&b, &bytes, 1);
            assert!(!alike(dir.path(), "a", "b"), "byte {at}");
            bytes[at] ^= 1;
        }
        put(&b, &bytes[1..], 1);
        assert!(!alike(dir.path(), "a", "b"), "shorter");
        assert!(!alike(dir.path(), "a", "none"));
    }

    // Protects what a program has just made and is about to write to.
    #[test]
    fn what_was_written_at_another_time_is_not_alike() {
        let dir = tempfile::tempdir().unwrap();
        for bytes in [&b""[..], b"same"] {
            put(&dir.path().join("a"), bytes, 1);
            put(&dir.path().join("b"), bytes, 2);
            assert!(!alike(dir.path(), "a", "b"));
        }
    }

    // Protects the commits of others from waiting for gigabytes, which may be holes that cost nothing to send.
    #[test]
    fn large_files_are_not_compared() {
        let dir = tempfile::tempdir().unwrap();
        for (length, wanted) in [(LENGTH_MAX, true), (LENGTH_MAX + 1, false)] {
            for name in ["a", "b"] {
                let path = dir.path().join(name);
                let file = File::create(&path).unwrap();
                file.set_len(length).unwrap();
                file.set_modified(UNIX_EPOCH).unwrap();
            }
            assert_eq!(alike(dir.path(), "a", "b"), wanted, "{length}");
        }
    }

    #[test]
    fn links_are_alike_by_their_target_and_never_like_a_file() {
        let dir = tempfile::tempdir().unwrap();
        for (name, target) in [("l", "x"), ("m", "x"), ("n", "y")] {
            symlink(target, dir.path().join(name)).unwrap();
        }
        fs::write(dir.path().join("x"), "x").unwrap();
        assert!(alike(dir.path(), "l", "m"));
        assert!(!alike(dir.path(), "l", "n"));
        assert!(!alike(dir.path(), "l", "x"));
        fs::create_dir(dir.path().join("d")).unwrap();
        assert!(!alike(dir.path(), "d", "d"), "a directory is compared by what is in it");
    }
}
