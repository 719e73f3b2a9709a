//! `SidecarOpening`: a sidecar that is mapped and being proved, in steps.
//!
//! Never gives out what is not proved. Invariant: whoever gets a [`MappedSidecar`] of it may rely on the root
//! of its leaves.

use super::map::Window;
use super::sidecars::MappedSidecar;
use crate::delta::index::{IndexError, IndexHeader, Proven, Proving};
use crate::model::ContentId;
use std::fs::File;

/// A sidecar of which a part is proved; see [`Sidecars::begin_open`](super::Sidecars::begin_open).
#[derive(Debug)]
pub struct SidecarOpening {
    pub(super) id: ContentId,
    pub(super) file: File,
    window: Window,
    header: IndexHeader,
    proving: Proving,
}

/// What a step came to.
#[derive(Debug)]
pub enum Opened {
    /// There is more to prove.
    More(Box<SidecarOpening>),
    /// The sidecar; `None` when it is damaged.
    Done(Option<MappedSidecar>),
}

/// A mapped window is shorter than 2 GiB: the sidecar of a file of about 220 GiB.
pub(super) const WINDOW_BYTES_MAX: u64 = (2 << 30) - (1 << 16);

impl SidecarOpening {
    /// Maps `file`, which should be the sidecar of `id`.
    pub(super) fn new(file: File, id: &ContentId) -> Result<SidecarOpening, IndexError> {
        let length = file.metadata().map_err(|_| IndexError::Length)?.len();
        if length > WINDOW_BYTES_MAX {
            return Err(IndexError::Length);
        }
        let window = Window::open(&file, 0, length as usize).map_err(|_| IndexError::Length)?;
        let header = IndexHeader::parse(window.as_ref())?;
        header.view(window.as_ref())?;
        if header.id() != *id {
            return Err(IndexError::Damaged);
        }
        Ok(SidecarOpening {
            id: *id,
            file,
            window,
            header,
            proving: Proving::default(),
        })
    }

    /// Proves the next part.
    pub(super) fn step(&mut self) -> Result<Proven, IndexError> {
        let view = self.header.view(self.window.as_ref())?;
        match self.proving.step(&view)? {
            Proven::Whole if self.window.is_torn() => Err(IndexError::Damaged),
            proven => Ok(proven),
        }
    }

    /// It is whole.
    pub(super) fn finish(self) -> MappedSidecar {
        MappedSidecar::proven(self.window, self.header)
    }
}
