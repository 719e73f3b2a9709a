//! Mending a damaged journal: what is whole goes into a new one, the damaged one is kept beside it.
//!
//! 1. The journal is locked, read, and left alone unless it is damaged.
//! 2. A copy is made, `journal.damaged-YYYYMMDD-HHMMSS`, and flushed.
//! 3. A new one with all that can be used is written, flushed, and put in its place.
//!
//! Being killed in between leaves the damaged one where it is, and perhaps a copy: it can be done again.
//! Invariant: nothing in the new one counts as proven, and no byte of the damaged one is lost.

use super::boot::Boot;
use super::log;
use super::place::{Held, JOURNAL, JournalError, Missing, NEW, Place};
use super::replay::{Fault, replay, salvage};
use super::writer::{Journal, read};
use crate::store::calendar::Moment;
use crate::store::error::Operation;
use crate::store::home::Home;
use crate::store::root::Root;
use rustix::fd::AsFd;
use rustix::fs::{AtFlags, Mode, OFlags, fsync, openat, renameat, unlinkat};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Read, Seek};

/// What a repair found and did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Repaired {
    /// There is no journal, or nothing is in it.
    Empty,
    /// It is whole. Nothing was changed.
    Whole {
        /// Transfers in it.
        transfers: u64,
    },
    /// It was damaged.
    Mended {
        /// Transfers that can go on.
        transfers: u64,
        /// Records that were whole.
        records: u64,
        /// Bytes that said nothing, or could not be used.
        lost_bytes: u64,
        /// What the damaged journal is called now, beside the new one.
        kept_as: String,
    },
}

/// Copies of one second.
const COPIES_MAX: u32 = 100;

impl Journal {
    /// Mends the journal of a share or of the target of a pull, if it is damaged.
    ///
    /// # Errors
    /// [`JournalError::Held`] while another process has it, [`JournalError::Version`] for a later form;
    /// else when the file system fails. Then nothing is lost.
    pub fn repair(root: &Root) -> Result<Repaired, JournalError> {
        repair(&Place::of_root(root))
    }

    /// Mends the journal of a state directory. As [`Journal::repair`].
    ///
    /// # Errors
    /// As [`Journal::repair`].
    pub fn repair_home(home: &Home) -> Result<Repaired, JournalError> {
        repair(&Place::of_home(home))
    }
}

fn repair(place: &Place) -> Result<Repaired, JournalError> {
    let Some(held) = place.hold(Missing::Leave)? else {
        return Ok(Repaired::Empty);
    };
    let bytes = read(&held.file).map_err(|error| place.error(Operation::Read, error))?;
    match replay(&bytes, &Boot::here(held.directory.as_fd())) {
        Ok(None) => return Ok(Repaired::Empty),
        Ok(Some(found)) => {
            return Ok(Repaired::Whole {
                transfers: found.table.len() as u64,
            });
        }
        Err(fault @ Fault::Version(_)) => return Err(fault.into()),
        Err(Fault::Damaged { .. }) => {}
    }
    mend(place, &held, &bytes)
}

fn mend(place: &Place, held: &Held, bytes: &[u8]) -> Result<Repaired, JournalError> {
    let failed = |operation: Operation| move |error: io::Error| JournalError::File(place.error(operation, error));
    let found = salvage(bytes);
    let length = held.file.metadata().map_err(failed(Operation::Examine))?.len();
    let kept_as = keep(held).map_err(failed(Operation::Write))?;
    let directory = held.directory.try_clone().map_err(failed(Operation::Open))?;
    let epoch = found.header.epoch.wrapping_add(1).max(1);
    let written = log::create(directory, epoch, &found.table, Boot::UNKNOWN).and_then(|log| {
        log.flush()?;
        renameat(&held.directory, NEW, &held.directory, JOURNAL)?;
        flush_directory(held)
    });
    if let Err(error) = written {
        held.remove_leftover();
        return Err(failed(Operation::Publish)(error));
    }
    Ok(Repaired::Mended {
        transfers: found.table.len() as u64,
        records: found.records,
        lost_bytes: length.saturating_sub(found.record_bytes),
        kept_as,
    })
}

/// Copies the whole file beside itself, flushed.
fn keep(held: &Held) -> io::Result<String> {
    let (name, copy) = make_copy(held)?;
    let copied = (&held.file)
        .rewind()
        .and_then(|()| io::copy(&mut Read::by_ref(&mut &held.file), &mut &copy))
        .and_then(|_| copy.sync_all());
    match copied {
        Ok(()) => Ok(name),
        Err(error) => {
            let _ = unlinkat(&held.directory, name.as_str(), AtFlags::empty());
            Err(error)
        }
    }
}

fn make_copy(held: &Held) -> io::Result<(String, File)> {
    let base = format!("{JOURNAL}.damaged-{}", Moment::now().compact());
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    for number in 1..=COPIES_MAX {
        let name = match number {
            1 => base.clone(),
            number => format!("{base}-{number}"),
        };
        match openat(&held.directory, name.as_str(), flags, Mode::RUSR | Mode::WUSR) {
            Ok(copy) => return Ok((name, File::from(copy))),
            Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Err(Errno::EXIST.into())
}

fn flush_directory(held: &Held) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = openat(&held.directory, ".", flags, Mode::empty())?;
    Ok(fsync(&directory)?)
}

#[cfg(test)]
#[path = "repair_tests.rs"]
mod tests;
