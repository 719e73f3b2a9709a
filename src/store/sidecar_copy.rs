//! `SidecarCopy`: a whole sidecar that comes as bytes, written down as it comes.
//!
//! Never looks into it. Invariants: dropping a copy that was not finished removes its file; it never has
//! more bytes than it may.

use super::meta::times_of;
use super::sidecar_writer::create_unfinished;
use crate::model::Timestamp;
use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, futimens, renameat, unlinkat};
use rustix::io::Errno;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// Takes the bytes of a sidecar; [`Sidecars::accept`](super::Sidecars::accept) ends it.
#[derive(Debug)]
pub struct SidecarCopy {
    directory: Arc<OwnedFd>,
    /// Empty when the file has another name.
    name: String,
    file: File,
    bytes: u64,
    bytes_max: u64,
    state: CopyState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CopyState {
    Good,
    Failed,
}

impl SidecarCopy {
    pub(super) fn create(directory: Arc<OwnedFd>, bytes_max: u64) -> Result<SidecarCopy, Errno> {
        let (name, file) = create_unfinished(&directory)?;
        Ok(SidecarCopy {
            directory,
            name,
            file,
            bytes: 0,
            bytes_max,
            state: CopyState::Good,
        })
    }

    /// The next bytes. Too many, or a disk that is full, mean that there will be no sidecar.
    pub fn push(&mut self, bytes: &[u8]) {
        let fits = bytes.len() as u64 <= self.bytes_max - self.bytes;
        if self.state == CopyState::Failed || !fits || self.file.write_all_at(bytes, self.bytes).is_err() {
            self.state = CopyState::Failed;
            return;
        }
        self.bytes += bytes.len() as u64;
    }

    /// Gives the file its `name` and the time `used`. Returns its bytes.
    pub(super) fn finish(mut self, name: &str, used: Timestamp) -> Option<u64> {
        if self.state == CopyState::Failed || self.bytes == 0 {
            return None;
        }
        let _ = futimens(&self.file, &times_of(used));
        renameat(&self.directory, self.name.as_str(), &self.directory, name).ok()?;
        self.name.clear();
        Some(self.bytes)
    }
}

impl Drop for SidecarCopy {
    fn drop(&mut self) {
        if !self.name.is_empty() {
            let _ = unlinkat(&self.directory, self.name.as_str(), AtFlags::empty());
        }
    }
}
