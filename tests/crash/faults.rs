//! Which calls can fail with which error, as their manual pages have it: a fault that the kernel would
//! never give proves nothing. Never runs anything.

use crate::tracer::Recorded;

/// Calls that take room on the disk.
const GROW: [&str; 13] = [
    "mkdirat",
    "symlinkat",
    "linkat",
    "renameat",
    "renameat2",
    "pwrite64",
    "write",
    "writev",
    "fallocate",
    "copy_file_range",
    "fsync",
    "fdatasync",
    "syncfs",
];
/// Calls that reach the disk, besides.
const REACH: [&str; 15] = [
    "openat",
    "openat2",
    "read",
    "pread64",
    "newfstatat",
    "fstat",
    "statx",
    "getdents64",
    "unlinkat",
    "ftruncate",
    "fchmod",
    "fchmodat",
    "utimensat",
    "readlinkat",
    "readv",
];
/// Calls that a signal may interrupt. Not those that open: that takes a slow device or a FIFO.
const WAIT: [&str; 16] = [
    "accept4",
    "epoll_wait",
    "epoll_pwait",
    "fallocate",
    "flock",
    "fsync",
    "fdatasync",
    "ftruncate",
    "pread64",
    "pwrite64",
    "read",
    "write",
    "writev",
    "recvfrom",
    "sendto",
    "copy_file_range",
];

/// Calls that say what is on the disk.
pub const FLUSH: [&str; 3] = ["fsync", "fdatasync", "syncfs"];

/// Whether the call can fail so.
pub fn may_fail(recorded: &Recorded, errno: &str) -> bool {
    let (name, text) = (recorded.call.name.as_str(), recorded.text.as_str());
    // What it says to its user goes where the user wants it.
    let is_output = text.starts_with("write(1<") || text.starts_with("write(2<");
    let is_file = !is_output
        && !text.contains("<socket:")
        && !text.contains("<anon_inode:")
        && !text.contains("<pipe:")
        && !text.contains("<TCP:");
    let clones = name == "ioctl" && text.contains("FICLONE");
    match errno {
        "ENOSPC" | "EDQUOT" => {
            let makes = matches!(name, "openat" | "openat2") && text.contains("O_CREAT");
            is_file && (GROW.contains(&name) || makes || clones)
        }
        "EIO" => is_file && (GROW.contains(&name) || REACH.contains(&name) || clones),
        // Waking one's own loop never waits.
        _ if name == "write" => is_file,
        _ => WAIT.contains(&name),
    }
}
