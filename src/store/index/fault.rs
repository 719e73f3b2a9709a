//! What can be wrong with an index, and the one place where the database's errors become ours.
//!
//! Invariant: whatever the database does on a damaged file, a panic included, leaves here as an error.

use super::place::INDEX_PATH;
use super::record::BadRecord;
use crate::model::PathError;
use crate::store::error::{FileError, Operation};
use rustix::io::Errno;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Why the index could not do something.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// Another process has it open.
    #[error("another syncline has the index of this folder open (.syncline/index.redb); stop it first")]
    Held,
    /// It cannot be written.
    #[error("cannot write the index of this folder (.syncline/index.redb): give this user write access to the folder")]
    ReadOnly,
    /// What is in the file makes no sense. [`Index::open`](super::Index::open) moves it aside.
    #[error("the index of this folder (.syncline/index.redb) is damaged: {0}; start again, and a new one is made")]
    Damaged(String),
    /// It was closed after a failure, of which whoever met it was told.
    #[error("the index of this folder (.syncline/index.redb) was closed after a failure of the disk; start again")]
    Closed,
    /// The system failed: the disk is full, say.
    #[error(transparent)]
    File(#[from] FileError),
}

impl IndexError {
    /// Whether it is for want of room, and may go well later.
    #[must_use]
    pub fn is_full(&self) -> bool {
        let system = match self {
            IndexError::File(error) => error.system(),
            _ => None,
        };
        let errno = system.and_then(Errno::from_io_error);
        matches!(errno, Some(Errno::NOSPC | Errno::DQUOT | Errno::FBIG))
    }
}

/// What went wrong inside.
#[derive(Debug)]
pub(super) enum Fault {
    Database(redb::Error),
    Content(&'static str),
}

impl<E: Into<redb::Error>> From<E> for Fault {
    fn from(error: E) -> Fault {
        Fault::Database(error.into())
    }
}

impl From<BadRecord> for Fault {
    fn from(_: BadRecord) -> Fault {
        Fault::Content("a record cannot be read")
    }
}

impl From<PathError> for Fault {
    fn from(_: PathError) -> Fault {
        Fault::Content("a key is no path")
    }
}

/// Runs `work` on the database.
pub(super) fn guarded<T>(work: impl FnOnce() -> Result<T, Fault>) -> Result<T, IndexError> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => result.map_err(IndexError::from),
        Err(_) => Err(IndexError::Damaged("reading it ended in a panic".to_owned())),
    }
}

impl From<Fault> for IndexError {
    fn from(fault: Fault) -> IndexError {
        let error = match fault {
            Fault::Content(what) => return IndexError::Damaged(what.to_owned()),
            Fault::Database(error) => error,
        };
        match error {
            redb::Error::DatabaseAlreadyOpen => IndexError::Held,
            redb::Error::PreviousIo | redb::Error::DatabaseClosed => IndexError::Closed,
            redb::Error::Io(error) => of_io(error),
            other => IndexError::Damaged(other.to_string()),
        }
    }
}

fn of_io(error: io::Error) -> IndexError {
    match error.kind() {
        // Shorter than its own head says; or that head is none.
        io::ErrorKind::UnexpectedEof => IndexError::Damaged("it is too short".to_owned()),
        io::ErrorKind::InvalidData => IndexError::Damaged("it is no index".to_owned()),
        _ => FileError::at(Operation::Write, INDEX_PATH.as_bytes(), error).into(),
    }
}
