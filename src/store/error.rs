//! What went wrong with one file: which operation, on which path, why; and its code for the peer.
//!
//! Never holds file contents. Invariant: every error has exactly one [`ItemCode`], chosen in
//! [`FileError::code`] and nowhere else.

use crate::model::{Escaped, ItemCode, RelPath};
use rustix::io::Errno;
use std::fmt;
use std::io;
use std::path::Path;

/// A failed operation on one file.
///
/// Displays as one sentence with the path escaped, for example
/// `cannot open photos/a.jpg: Permission denied`.
#[derive(Debug)]
pub struct FileError {
    operation: Operation,
    path: Box<[u8]>,
    cause: Cause,
}

/// What was tried; each says its own verb in an error's sentence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Finding the directory that a path is in.
    Resolve,
    /// Opening a file or directory.
    Open,
    /// Asking for size, kind and times.
    Examine,
    /// Reading content, a listing or a link's text.
    Read,
    /// Writing content or making room for it.
    Write,
    /// Making a directory.
    MakeDirectory,
    /// Making a file or link in the staging directory.
    Stage,
    /// Setting permission bits and times.
    SetMeta,
    /// Renaming to the final name.
    Publish,
    /// Removing.
    Remove,
    /// Taking the lock of a share.
    Lock,
}

/// Why it failed: what the system said, or what was found there.
#[derive(Debug)]
enum Cause {
    System(io::Error),
    Found(ItemCode),
}

impl FileError {
    /// The system refused `operation` on `path`, which is relative to a root.
    pub fn new(operation: Operation, path: &RelPath, source: impl Into<io::Error>) -> FileError {
        FileError::at(operation, path.as_bytes(), source)
    }

    /// As [`FileError::new`], for a path that is no [`RelPath`]: an operator's, or an illegal name.
    pub fn at(operation: Operation, path: &[u8], source: impl Into<io::Error>) -> FileError {
        FileError {
            operation,
            path: path.into(),
            cause: Cause::System(source.into()),
        }
    }

    /// As [`FileError::new`], for a path of the local operator.
    pub fn at_path(operation: Operation, path: &Path, source: impl Into<io::Error>) -> FileError {
        FileError::at(operation, path.as_os_str().as_encoded_bytes(), source)
    }

    /// No call failed, but what was found rules the operation out.
    pub fn found(operation: Operation, path: &[u8], code: ItemCode) -> FileError {
        FileError {
            operation,
            path: path.into(),
            cause: Cause::Found(code),
        }
    }

    /// What was tried.
    #[must_use]
    pub fn operation(&self) -> Operation {
        self.operation
    }

    /// The path as raw bytes: relative to the root, except for an operator's own path.
    #[must_use]
    pub fn path(&self) -> &[u8] {
        &self.path
    }

    /// The code that the peer is told and that picks the advice for the user.
    #[must_use]
    pub fn code(&self) -> ItemCode {
        match &self.cause {
            Cause::Found(code) => *code,
            Cause::System(error) => match Errno::from_io_error(error) {
                Some(errno) => code_of(self.operation, errno),
                None => ItemCode::Io,
            },
        }
    }

    /// What happened, without the path: the end of a sentence for the user.
    #[must_use]
    pub fn reason(&self) -> String {
        match &self.cause {
            Cause::System(error) => match Errno::from_io_error(error) {
                Some(Errno::NOENT) => "there is no such file or directory".to_owned(),
                _ => self.code().reason().to_owned(),
            },
            Cause::Found(code) => code.reason().to_owned(),
        }
    }

    /// Whether nothing can be at the path because what it would be in is a file or a link.
    pub(crate) fn is_beneath_no_directory(&self) -> bool {
        let errno = self.system().and_then(Errno::from_io_error);
        matches!(errno, Some(Errno::NOTDIR | Errno::LOOP))
    }

    /// What the system said, if it was the system that refused.
    #[must_use]
    pub fn system(&self) -> Option<&io::Error> {
        match &self.cause {
            Cause::System(error) => Some(error),
            Cause::Found(_) => None,
        }
    }
}

/// The one table from the system's numbers to our codes. Numbers that are not listed are faults that
/// a user cannot mend at the file: out of descriptors or memory, a bug of ours.
fn code_of(operation: Operation, errno: Errno) -> ItemCode {
    match errno {
        Errno::ACCESS | Errno::PERM => ItemCode::Permission,
        Errno::NOENT | Errno::STALE => ItemCode::Vanished,
        Errno::AGAIN if operation == Operation::Resolve => ItemCode::Changing,
        Errno::NOSPC | Errno::DQUOT => ItemCode::DiskFull,
        Errno::IO | Errno::UCLEAN | Errno::BADMSG | Errno::REMOTEIO | Errno::TIMEDOUT => ItemCode::Io,
        Errno::LOOP => ItemCode::Escapes,
        // openat2 says EXDEV when a path leaves the root; rename says it between file systems.
        Errno::XDEV if operation == Operation::Resolve => ItemCode::Escapes,
        Errno::XDEV => ItemCode::CrossDevice,
        Errno::ROFS => ItemCode::ReadOnly,
        Errno::FBIG | Errno::OVERFLOW | Errno::MLINK => ItemCode::TooLarge,
        Errno::NAMETOOLONG | Errno::ILSEQ => ItemCode::BadPath,
        // FAT and its kin refuse some characters of a new name this way.
        Errno::INVAL if makes_a_name(operation) => ItemCode::BadPath,
        Errno::ISDIR | Errno::NOTDIR | Errno::NOTEMPTY | Errno::EXIST | Errno::BUSY => ItemCode::InTheWay,
        Errno::NXIO | Errno::NODEV => ItemCode::Special,
        _ => ItemCode::Other,
    }
}

fn makes_a_name(operation: Operation) -> bool {
    matches!(operation, Operation::MakeDirectory | Operation::Publish)
}

impl Operation {
    /// What is done, to follow "cannot".
    fn verb(self) -> &'static str {
        match self {
            Operation::Resolve => "reach",
            Operation::Open => "open",
            Operation::Examine => "examine",
            Operation::Read => "read",
            Operation::Write => "write",
            Operation::MakeDirectory => "make the directory",
            Operation::Stage => "make a temporary file for",
            Operation::SetMeta => "set mode and times of",
            Operation::Publish => "replace",
            Operation::Remove => "remove",
            Operation::Lock => "lock",
        }
    }
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {} {}: ", self.operation.verb(), Escaped(&self.path))?;
        match &self.cause {
            // The code's sentence says more than "Too many levels of symbolic links" would.
            Cause::System(_) if self.code() == ItemCode::Escapes => f.write_str(ItemCode::Escapes.reason()),
            Cause::System(_) if self.code() == ItemCode::CrossDevice => f.write_str(ItemCode::CrossDevice.reason()),
            Cause::System(error) => f.write_str(&without_number(error)),
            Cause::Found(code) => f.write_str(code.reason()),
        }
    }
}

/// The system's text without the ` (os error N)` that the standard library adds.
fn without_number(error: &io::Error) -> String {
    let mut text = error.to_string();
    if let Some(at) = text.rfind(" (os error ") {
        text.truncate(at);
    }
    text
}

impl std::error::Error for FileError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.system().map(|error| error as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(operation: Operation, errno: Errno) -> ItemCode {
        FileError::at(operation, b"f", errno).code()
    }

    #[test]
    fn each_system_error_has_the_code_that_helps_the_user() {
        let table = [
            (Errno::ACCESS, ItemCode::Permission),
            (Errno::PERM, ItemCode::Permission),
            (Errno::NOENT, ItemCode::Vanished),
            (Errno::NOSPC, ItemCode::DiskFull),
            (Errno::DQUOT, ItemCode::DiskFull),
            (Errno::IO, ItemCode::Io),
            (Errno::LOOP, ItemCode::Escapes),
            (Errno::XDEV, ItemCode::CrossDevice),
            (Errno::ROFS, ItemCode::ReadOnly),
            (Errno::FBIG, ItemCode::TooLarge),
            (Errno::NAMETOOLONG, ItemCode::BadPath),
            (Errno::INVAL, ItemCode::BadPath),
            (Errno::ISDIR, ItemCode::InTheWay),
            (Errno::NOTDIR, ItemCode::InTheWay),
            (Errno::NOTEMPTY, ItemCode::InTheWay),
            (Errno::EXIST, ItemCode::InTheWay),
            (Errno::NXIO, ItemCode::Special),
            (Errno::MFILE, ItemCode::Other),
            (Errno::NOMEM, ItemCode::Other),
        ];
        for (errno, want) in table {
            assert_eq!(code(Operation::Publish, errno), want, "{errno}");
        }
        assert_eq!(code(Operation::Resolve, Errno::XDEV), ItemCode::Escapes);
        assert_eq!(code(Operation::Resolve, Errno::AGAIN), ItemCode::Changing);
        assert_eq!(code(Operation::Read, Errno::INVAL), ItemCode::Other);
        let short = FileError::at(Operation::Write, b"f", io::Error::from(io::ErrorKind::WriteZero));
        assert_eq!(short.code(), ItemCode::Io);
    }

    #[test]
    fn an_error_is_one_harmless_sentence() {
        let path = RelPath::parse(b"a\n\x1b[31m/\xff").unwrap();
        let error = FileError::new(Operation::Open, &path, Errno::ACCESS);
        assert_eq!(
            error.to_string(),
            "cannot open a\\n\\u{1b}[31m/\\xff: Permission denied"
        );
        let error = FileError::new(Operation::Publish, &path, Errno::XDEV);
        assert!(
            error.to_string().ends_with("another file system than the share"),
            "{error}"
        );
        let error = FileError::found(Operation::Open, b"pipe", ItemCode::Special);
        assert_eq!(error.to_string(), "cannot open pipe: it is a FIFO, socket or device");
    }
}
