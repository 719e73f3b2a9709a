//! `SidecarWriter`: a sidecar on its way, under a name that nobody looks for.
//!
//! Never blocks a transfer: a write that fails ends the sidecar, not the caller. Invariant: dropping a
//! writer that was not finished removes its file; the header, without which there is no sidecar, comes last.
//!
//! 1. Chunks come in any order. Leaves, xxh3 and CRCs have places of their own.
//! 2. Anchors have none: their place depends on how many came before. Those of the next chunk in order go
//!    where they belong; those of a later one to where they would be if every chunk had all the anchors
//!    that it may have, which is never before that.
//! 3. At the end the latter move down, in order, and the file is cut.

use super::meta::times_of;
use crate::delta::index::{ANCHOR_BYTES, ANCHORS_PER_LEAF_MAX, CHUNK_BYTES, ChunkIndex, Parts, Placed, Sidecar, Sums};
use crate::model::limits::LEAF_BYTES;
use crate::model::{ContentId, Timestamp};
use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags, flock, futimens, ioctl_ficlone, openat, renameat, unlinkat};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// Takes the chunks of one sidecar; [`Sidecars::finish`](super::Sidecars::finish) ends it.
#[derive(Debug)]
pub struct SidecarWriter {
    directory: Arc<OwnedFd>,
    /// Empty when the file has another name, or none.
    name: String,
    file: File,
    sidecar: Sidecar,
    sums: Sums,
    /// Chunks whose anchors are in their final places, and how many those are.
    settled: u64,
    settled_anchors: u64,
    start: Start,
    state: WriterState,
}

/// What the file held before the first chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Start {
    Empty,
    /// Shared blocks of the sidecar of another version: what is equal is not written.
    Clone,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WriterState {
    Good,
    Failed,
}

/// Ends the names of unfinished files.
pub(super) const UNFINISHED: &str = ".part";
/// Anchors that a chunk may have.
const ANCHORS_PER_CHUNK_MAX: u64 = (ANCHORS_PER_LEAF_MAX * (CHUNK_BYTES / LEAF_BYTES)) as u64;

/// A new file, with the name that it has until it is finished.
pub(super) fn create_unfinished(directory: &OwnedFd) -> Result<(String, File), Errno> {
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(|_| Errno::IO)?;
    let name = format!("{:016x}{UNFINISHED}", u64::from_ne_bytes(random));
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = openat(directory, name.as_str(), flags, Mode::RUSR | Mode::WUSR)?;
    // So that others know it from what a crash left. Where there are no locks, nobody can sweep.
    let _ = flock(&opened, FlockOperation::NonBlockingLockExclusive);
    Ok((name, File::from(opened)))
}

impl SidecarWriter {
    pub(super) fn create(directory: Arc<OwnedFd>, sidecar: Sidecar) -> Result<SidecarWriter, Errno> {
        let (name, file) = create_unfinished(&directory)?;
        Ok(SidecarWriter {
            directory,
            name,
            file,
            sidecar,
            sums: Sums::new(sidecar),
            settled: 0,
            settled_anchors: 0,
            start: Start::Empty,
            state: WriterState::Good,
        })
    }

    /// Starts as a clone of `basis`, a sidecar of a file of the same length, where the file system can.
    pub(super) fn clone_from(&mut self, basis: &File) {
        debug_assert_eq!(self.settled, 0, "nothing is written yet");
        if ioctl_ficlone(&self.file, basis).is_ok() {
            self.start = Start::Clone;
        }
    }

    /// Whether the file has these bytes already.
    fn holds(&self, placed: &Placed) -> bool {
        let mut there = vec![0; placed.bytes.len()];
        self.start == Start::Clone
            && self.file.read_exact_at(&mut there, placed.offset).is_ok()
            && there == placed.bytes
    }

    /// What the chunks are indexed for: length, seed and density.
    #[must_use]
    pub fn sidecar(&self) -> &Sidecar {
        &self.sidecar
    }

    /// Takes the index of chunk `number`, each once, in any order. One that does not fit the file, or a
    /// disk that is full, means that there will be no sidecar.
    pub fn put(&mut self, number: u64, chunk: &ChunkIndex) {
        if self.state == WriterState::Good && self.write_chunk(number, chunk).is_err() {
            self.state = WriterState::Failed;
        }
    }

    fn write_chunk(&mut self, number: u64, chunk: &ChunkIndex) -> io::Result<()> {
        if chunk.anchors.len() as u64 > ANCHORS_PER_CHUNK_MAX || number >= self.sidecar.chunk_count() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let anchors_before = if number == self.settled {
            self.settled_anchors
        } else {
            number * ANCHORS_PER_CHUNK_MAX
        };
        let placed = self.sidecar.place(number, chunk, anchors_before);
        self.sums.add(number, chunk, &placed).map_err(io::Error::other)?;
        for placed in placed {
            if !self.holds(&placed) {
                self.file.write_all_at(&placed.bytes, placed.offset)?;
            }
        }
        if number == self.settled {
            self.settled += 1;
            self.settled_anchors += self.sums.anchors_of(number).unwrap_or(0);
        }
        Ok(())
    }

    /// Moves the anchors that came early to where they belong.
    fn settle(&mut self) -> io::Result<()> {
        let mut bytes = Vec::new();
        while self.settled < self.sidecar.chunk_count() {
            let count = self.sums.anchors_of(self.settled).unwrap_or(0);
            let early = self.sidecar.total_bytes(self.settled * ANCHORS_PER_CHUNK_MAX);
            bytes.resize(count as usize * ANCHOR_BYTES, 0);
            self.file.read_exact_at(&mut bytes, early)?;
            self.file
                .write_all_at(&bytes, self.sidecar.total_bytes(self.settled_anchors))?;
            self.settled += 1;
            self.settled_anchors += count;
        }
        Ok(())
    }

    /// Gives the file its `name`, if it is the sidecar of `id`, and the time `used`. Returns its bytes.
    pub(super) fn finish(mut self, id: &ContentId, name: &str, used: Timestamp) -> Option<u64> {
        let (own, header) = self.sums.finish().ok()?;
        if own != *id || self.state == WriterState::Failed {
            return None;
        }
        if self.sidecar.parts == Parts::Full {
            self.settle().ok()?;
        }
        let bytes = self.sidecar.total_bytes(self.settled_anchors);
        self.file.set_len(bytes).ok()?;
        self.file.write_all_at(&header, 0).ok()?;
        let _ = futimens(&self.file, &times_of(used));
        renameat(&self.directory, self.name.as_str(), &self.directory, name).ok()?;
        self.name.clear();
        Some(bytes)
    }
}

impl Drop for SidecarWriter {
    fn drop(&mut self) {
        if !self.name.is_empty() {
            let _ = unlinkat(&self.directory, self.name.as_str(), AtFlags::empty());
        }
    }
}
