//! Opening a directory beneath a root without ever leaving it or following a symbolic link.
//!
//! Two resolvers with one surface: the kernel's `openat2`, and a walk by single components for
//! kernels and sandboxes without it. Never opens a file. Invariant: the descriptor that comes back
//! was reached from the root through real directories only.

use rustix::fd::{BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, openat, openat2, statat};
use rustix::io::Errno;

/// How paths are resolved beneath a root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Resolver {
    /// One `openat2` call, which the kernel confines.
    Kernel,
    /// One `openat` with `O_NOFOLLOW` per component.
    Walk,
}

/// `openat2` says EAGAIN when a rename anywhere raced with it; a handful of tries outlasts any
/// traffic but a deliberate attack, which then gets an error.
const RACES_MAX: u32 = 64;

impl Resolver {
    /// The better resolver that works on `root`.
    pub(super) fn detect(root: BorrowedFd<'_>) -> Resolver {
        match confined(root, b".", OFlags::PATH) {
            // Seccomp filters of old container runtimes answer EPERM to calls they do not know.
            Err(Errno::NOSYS | Errno::PERM) => Resolver::Walk,
            _ => Resolver::Kernel,
        }
    }

    /// Opens the directory at `path` beneath `root` with `access` (`PATH` or `RDONLY`).
    ///
    /// Errors: `ELOOP` or `EXDEV` when the path leads through a link or out, `ENOTDIR`, `ENOENT`.
    pub(super) fn open_directory(self, root: BorrowedFd<'_>, path: &[u8], access: OFlags) -> Result<OwnedFd, Errno> {
        match self {
            Resolver::Kernel => confined(root, path, access),
            Resolver::Walk => walk(root, path, access),
        }
    }
}

fn confined(root: BorrowedFd<'_>, path: &[u8], access: OFlags) -> Result<OwnedFd, Errno> {
    let flags = access | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    for _ in 0..RACES_MAX {
        match openat2(root, path, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
    Err(Errno::AGAIN)
}

fn walk(root: BorrowedFd<'_>, path: &[u8], access: OFlags) -> Result<OwnedFd, Errno> {
    let mut components = path.split(|&byte| byte == b'/').peekable();
    let mut here: Option<OwnedFd> = None;
    while let Some(name) = components.next() {
        if name.is_empty() || name == b".." {
            return Err(Errno::XDEV);
        }
        let access = if components.peek().is_some() {
            OFlags::PATH
        } else {
            access
        };
        let from = here.as_ref().map_or(root, rustix::fd::AsFd::as_fd);
        here = Some(enter(from, name, access)?);
    }
    here.ok_or(Errno::NOENT)
}

/// Opens one directory by its name in another, never through a link.
pub(super) fn enter(from: BorrowedFd<'_>, name: &[u8], access: OFlags) -> Result<OwnedFd, Errno> {
    let flags = access | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match openat(from, name, flags, Mode::empty()) {
        Err(Errno::NOTDIR) if is_symlink(from, name) => Err(Errno::LOOP),
        other => other,
    }
}

fn is_symlink(from: BorrowedFd<'_>, name: &[u8]) -> bool {
    statat(from, name, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Symlink)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fd::AsFd;
    use std::fs;
    use std::os::unix::fs::symlink;

    /// Row 4 of the threats: whatever the kernel refuses, the fallback refuses in the same words.
    #[test]
    fn both_resolvers_agree_on_every_path() {
        let outside = tempfile::tempdir().unwrap();
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("a/b/c")).unwrap();
        fs::write(dir.path().join("a/file"), b"x").unwrap();
        symlink(outside.path(), dir.path().join("a/out")).unwrap();
        symlink("b", dir.path().join("a/inside")).unwrap();
        symlink("self", dir.path().join("self")).unwrap();
        let root = fs::File::open(dir.path()).unwrap();
        assert_eq!(Resolver::detect(root.as_fd()), Resolver::Kernel);
        let cases: [(&[u8], Option<Errno>); 9] = [
            (b"a", None),
            (b"a/b/c", None),
            (b"a/out", Some(Errno::LOOP)),
            (b"a/out/x", Some(Errno::LOOP)),
            (b"a/inside/c", Some(Errno::LOOP)),
            (b"self", Some(Errno::LOOP)),
            (b"a/file", Some(Errno::NOTDIR)),
            (b"a/file/x", Some(Errno::NOTDIR)),
            (b"a/none/x", Some(Errno::NOENT)),
        ];
        for (path, want) in cases {
            for access in [OFlags::PATH, OFlags::RDONLY] {
                for resolver in [Resolver::Kernel, Resolver::Walk] {
                    let got = resolver.open_directory(root.as_fd(), path, access).err();
                    assert_eq!(got, want, "{resolver:?} {}", path.escape_ascii());
                }
            }
        }
        for path in [&b".."[..], b"a/../../x", b"/etc"] {
            for resolver in [Resolver::Kernel, Resolver::Walk] {
                let got = resolver.open_directory(root.as_fd(), path, OFlags::PATH);
                assert_eq!(got.err(), Some(Errno::XDEV), "{resolver:?} {}", path.escape_ascii());
            }
        }
    }
}
