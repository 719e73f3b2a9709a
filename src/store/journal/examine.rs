//! Looking at a journal: what it says, and what there is of the staged files that it speaks of.
//!
//! Takes no lock and changes nothing, so that it can be done while a server runs: then the last record may
//! be one that is being written. Invariant: a journal that is not there is an empty one.

use super::boot::Boot;
use super::place::{JournalError, Missing, Place};
use super::replay::replay;
use super::subject::{Subject, TransferId, Unfinished};
use super::writer::{Journal, read};
use crate::store::error::Operation;
use crate::store::home::Home;
use crate::store::resolve::enter;
use crate::store::root::Root;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, FileType, OFlags, statat};
use std::path::PathBuf;

/// What a journal says.
#[derive(Debug)]
pub struct Examined {
    /// The file, relative to a root, absolute in a state directory.
    pub path: PathBuf,
    /// Bytes of the file; `None` when there is none.
    pub file_bytes: Option<u64>,
    /// Bytes of records that say something still.
    pub live_bytes: u64,
    /// What is unfinished, in the order in which it began.
    pub transfers: Vec<ExaminedTransfer>,
}

/// An unfinished transfer, and what there is of it.
#[derive(Debug)]
pub struct ExaminedTransfer {
    /// What the journal says.
    pub unfinished: Unfinished,
    /// The staged file of one that arrives; `None` when it is not there.
    pub staged: Option<StagedBytes>,
}

/// The size of a staged file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StagedBytes {
    /// Its length.
    pub length: u64,
    /// What it takes on the disk.
    pub on_disk: u64,
}

/// The directory of staged files that outlive their process.
const KEPT: [&[u8]; 2] = [b"staging", b"kept"];
/// Bytes of a block as `stat` counts them, on every file system.
const STAT_BLOCK_BYTES: u64 = 512;

impl Journal {
    /// Reads the journal of a share or of the target of a pull.
    ///
    /// # Errors
    /// As [`Journal::open`], but for a lock: none is taken.
    pub fn examine(root: &Root) -> Result<Examined, JournalError> {
        examine(&Place::of_root(root))
    }

    /// Reads the journal of a state directory. As [`Journal::examine`].
    ///
    /// # Errors
    /// As [`Journal::examine`].
    pub fn examine_home(home: &Home) -> Result<Examined, JournalError> {
        examine(&Place::of_home(home))
    }
}

fn examine(place: &Place) -> Result<Examined, JournalError> {
    let mut examined = Examined {
        path: place.path(),
        file_bytes: None,
        live_bytes: 0,
        transfers: Vec::new(),
    };
    let Some(file) = place.open_to_read()? else {
        return Ok(examined);
    };
    let bytes = read(&file).map_err(|error| place.error(Operation::Read, error))?;
    examined.file_bytes = Some(bytes.len() as u64);
    let Ok(Some(directory)) = place.directory(Missing::Leave) else {
        return Ok(examined);
    };
    if let Some(found) = replay(&bytes, &Boot::here(directory.as_fd()))? {
        examined.live_bytes = found.table.live_bytes();
        let kept = kept(&directory);
        let look = |unfinished: &Unfinished| ExaminedTransfer {
            staged: kept.as_ref().and_then(|kept| staged(kept, unfinished)),
            unfinished: unfinished.clone(),
        };
        examined.transfers = found.table.iter().map(look).collect();
    }
    Ok(examined)
}

fn kept(private: &OwnedFd) -> Option<OwnedFd> {
    let staging = enter(private.as_fd(), KEPT[0], OFlags::PATH).ok()?;
    enter(staging.as_fd(), KEPT[1], OFlags::PATH).ok()
}

fn staged(kept: &OwnedFd, unfinished: &Unfinished) -> Option<StagedBytes> {
    match unfinished.subject {
        Subject::Incoming(_) => size_of(kept, unfinished.id),
        Subject::Outgoing(_) => None,
    }
}

fn size_of(kept: &OwnedFd, id: TransferId) -> Option<StagedBytes> {
    let stat = statat(kept, id.to_string(), AtFlags::SYMLINK_NOFOLLOW).ok()?;
    let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
    is_file.then(|| StagedBytes {
        length: u64::try_from(stat.st_size).unwrap_or(0),
        on_disk: u64::try_from(stat.st_blocks).unwrap_or(0) * STAT_BLOCK_BYTES,
    })
}
