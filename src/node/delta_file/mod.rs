//! The delta engine on local files: a signature of an old file, a patch from it to a new one, the new file
//! from the old one and the patch.
//!
//! Never names an output: results go to writers, and who calls decides what becomes of them after an error.
//! The byte tables are in `docs/FORMAT.md`. Invariants: memory is bounded whatever the files' sizes; a patch
//! is applied to nothing but the file that it was made for; `Ok` means that the result has the root that
//! the patch announces.

mod container;
mod diff;
mod patch;
mod sign;

pub use diff::{Differing, Signature, diff, diff_files};
pub use patch::{Patch, Patched};
pub use sign::{Signed, sign};

use crate::model::{ContentId, ItemCode, RelPath, system_reason};
use crate::store::{FileError, Operation, Root, SourceFile};
use std::ffi::OsString;
use std::io;
use std::path::Path;

/// What the bytes are that something is wrong with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// A signature file.
    Signature,
    /// A patch file.
    Patch,
    /// The new file.
    Result,
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Part::Signature => "signature",
            Part::Patch => "patch",
            Part::Result => "result",
        })
    }
}

/// Why a signature, a patch or a result was not made.
#[derive(Debug, thiserror::Error)]
pub enum DeltaFileError {
    /// The old or the new file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// A stream failed.
    #[error("cannot read the {part}: {reason}")]
    Read {
        /// Which.
        part: Part,
        /// From the system.
        reason: String,
    },
    /// A stream failed.
    #[error("cannot write the {part}: {reason}")]
    Write {
        /// Which.
        part: Part,
        /// From the system.
        reason: String,
    },
    /// The bytes do not begin like one.
    #[error("this is no {0} file of this version")]
    Format(Part),
    /// They are cut off or changed.
    #[error("the {part} is damaged: {reason}")]
    Damaged {
        /// Which.
        part: Part,
        /// What does not fit.
        reason: String,
    },
    /// The old file has another content than the patch was made for.
    #[error("{path} is not the file that this patch was made for: it contains {found}, not {wanted}")]
    OtherBasis {
        /// The old file.
        path: String,
        /// Its content.
        found: ContentId,
        /// That of the patch.
        wanted: ContentId,
    },
    /// A file was written to meanwhile.
    #[error("{0} changed while it was read")]
    Changed(String),
    /// The index of a file of over 220 GiB cannot be mapped.
    #[error("{0} is too large for a signature")]
    TooLarge(String),
}

impl DeltaFileError {
    fn read(part: Part, error: &io::Error) -> DeltaFileError {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => DeltaFileError::damaged(part, &"it ends too early"),
            _ => DeltaFileError::Read {
                part,
                reason: system_reason(error),
            },
        }
    }

    fn write(part: Part, error: &io::Error) -> DeltaFileError {
        DeltaFileError::Write {
            part,
            reason: system_reason(error),
        }
    }

    fn damaged(part: Part, reason: &dyn std::fmt::Display) -> DeltaFileError {
        DeltaFileError::Damaged {
            part,
            reason: reason.to_string(),
        }
    }
}

/// A file as an operator names it, links followed.
struct Operand {
    root: Root,
    file: SourceFile,
    shown: String,
}

impl Operand {
    fn open(path: &Path) -> Result<Operand, DeltaFileError> {
        let failed = |error: io::Error| FileError::at_path(Operation::Open, path, error);
        let special = || FileError::found(Operation::Open, path.as_os_str().as_encoded_bytes(), ItemCode::Special);
        let real = std::fs::canonicalize(path).map_err(failed)?;
        let (Some(parent), Some(name)) = (real.parent(), real.file_name()) else {
            return Err(special().into());
        };
        let name = RelPath::parse(OsString::from(name).as_encoded_bytes()).map_err(|_| special())?;
        let root = Root::open(parent)?;
        let file = root.open_file(&name)?;
        let shown = crate::model::escape(path.as_os_str().as_encoded_bytes());
        Ok(Operand { root, file, shown })
    }

    /// Fills `buffer` from `offset`; the file has that much.
    fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<(), DeltaFileError> {
        match self.file.read_at(offset, buffer)? {
            read if read == buffer.len() => Ok(()),
            _ => Err(self.changed()),
        }
    }

    fn check_unchanged(&self) -> Result<(), DeltaFileError> {
        match self.file.unchanged()? {
            true => Ok(()),
            false => Err(self.changed()),
        }
    }

    fn changed(&self) -> DeltaFileError {
        DeltaFileError::Changed(self.shown.clone())
    }
}
