//! Small files of ours in the `.syncline` of a root, each replaced as a whole.
//!
//! Knows nothing of what they say. Invariant: a file holds all that was written last, or what it held before; a link
//! in its place is not followed.

use super::error::{FileError, Operation};
use super::private::{enter_private, open_private};
use super::root::Root;
use super::undo::Flush;
use rustix::fd::AsFd;
#[cfg(feature = "sync")]
use rustix::fs::{AtFlags, statat, unlinkat};
use rustix::fs::{Mode, OFlags, fsync, openat, renameat};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Read, Write};

/// What failed with the file `name`.
fn failed<E: Into<io::Error>>(operation: Operation, name: &str) -> impl FnOnce(E) -> FileError + use<E> {
    let path = format!(".syncline/{name}");
    move |error| FileError::at(operation, path.as_bytes(), error)
}

/// Whether something is called `name` there.
#[cfg(feature = "sync")]
pub(super) fn has_file(root: &Root, name: &str) -> Result<bool, FileError> {
    let found =
        enter_private(root.directory().as_fd()).and_then(|private| statat(&private, name, AtFlags::SYMLINK_NOFOLLOW));
    match found {
        Ok(_) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(errno) => Err(failed(Operation::Examine, name)(errno)),
    }
}

/// The first `max` bytes of the file; `None` when it is not there.
pub(super) fn read_file(root: &Root, name: &str, max: usize) -> Result<Option<Vec<u8>>, FileError> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let opened =
        enter_private(root.directory().as_fd()).and_then(|private| openat(&private, name, flags, Mode::empty()));
    let file = match opened {
        Err(Errno::NOENT) => return Ok(None),
        other => File::from(other.map_err(failed(Operation::Read, name))?),
    };
    let mut bytes = Vec::new();
    let read = file.take(max as u64).read_to_end(&mut bytes);
    read.map_err(failed(Operation::Read, name))?;
    Ok(Some(bytes))
}

/// As [`read_file`], of what has to be text.
pub(super) fn read_text(root: &Root, name: &str, max: usize) -> Result<Option<String>, FileError> {
    let bytes = read_file(root, name, max)?;
    let text = bytes.map(String::from_utf8).transpose();
    text.map_err(|_| failed(Operation::Read, name)(io::Error::other("it is no text")))
}

/// Replaces the file. With [`Flush::Disk`] its content is on the disk before it has its name.
pub(super) fn write_file(root: &Root, name: &str, bytes: &[u8], flush: Flush) -> Result<(), FileError> {
    let private = open_private(root.directory().as_fd()).map_err(failed(Operation::Write, name))?;
    let fresh = format!("{name}.new");
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = openat(&private, fresh.as_str(), flags, Mode::RUSR | Mode::WUSR);
    let mut file = File::from(opened.map_err(failed(Operation::Write, name))?);
    let written = file.write_all(bytes).and_then(|()| match flush {
        Flush::Disk => file.sync_all(),
        Flush::Nothing => Ok(()),
    });
    written
        .and_then(|()| Ok(renameat(&private, fresh.as_str(), &private, name)?))
        .map_err(failed(Operation::Write, name))
}

/// Removes the file for good; one that is not there is no error.
#[cfg(feature = "sync")]
pub(super) fn remove_file(root: &Root, name: &str) -> Result<(), FileError> {
    let private = match enter_private(root.directory().as_fd()) {
        Err(Errno::NOENT) => return Ok(()),
        other => other.map_err(failed(Operation::Remove, name))?,
    };
    match unlinkat(&private, name, AtFlags::empty()) {
        Ok(()) => flush_names(root).map_err(failed(Operation::Remove, name)),
        Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(failed(Operation::Remove, name)(errno)),
    }
}

/// Makes the names of the files durable.
pub(super) fn flush_names(root: &Root) -> Result<(), Errno> {
    // `.syncline` is opened by its path only, and cannot be flushed so.
    let private = enter_private(root.directory().as_fd())?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    fsync(openat(&private, ".", flags, Mode::empty())?)
}
