//! What a node remembers of contents, so that only what changed has to travel next time.
//!
//! Nothing here is needed for a transfer, and nothing is trusted: what is lost or wrong costs bytes.

use crate::delta::index::Parts;
use crate::model::ContentId;
use crate::model::limits::MEDIUM_BYTES_MAX;
use crate::store::{Home, Identity, MappedSidecar, Root, SidecarBounds, SidecarWriter, Sidecars};

/// Sidecars of large files.
#[derive(Debug)]
pub(crate) struct Deltas {
    sidecars: Sidecars,
}

impl Deltas {
    /// Beside the files of a share.
    pub(crate) fn in_root(root: &Root) -> Deltas {
        Deltas {
            sidecars: Sidecars::in_root(root, SidecarBounds::default()),
        }
    }

    /// In the state directory of a client.
    pub(crate) fn in_home(home: &Home) -> Deltas {
        Deltas {
            sidecars: Sidecars::in_home(home, SidecarBounds::default()),
        }
    }

    /// Starts the sidecar of a file of `length` bytes; `None` for one that is too small to need it, or
    /// where none can be kept.
    pub(crate) fn begin(&self, length: u64, parts: Parts) -> Option<SidecarWriter> {
        if length <= MEDIUM_BYTES_MAX {
            return None;
        }
        let mut seed = [0; 8];
        getrandom::fill(&mut seed).ok()?;
        self.sidecars.create(length, parts, u64::from_le_bytes(seed))
    }

    /// Keeps the sidecar of `id`.
    pub(crate) fn keep(&self, writer: Option<SidecarWriter>, id: &ContentId) {
        if let Some(writer) = writer {
            self.sidecars.finish(writer, id);
        }
    }

    /// The file of `identity` is known to contain `id`.
    pub(crate) fn note(&self, id: &ContentId, identity: &Identity) {
        if id.length > MEDIUM_BYTES_MAX {
            self.sidecars.set_stamp(id, identity);
        }
    }

    /// What the file of `identity` contains, if that is known.
    pub(crate) fn content_of(&self, identity: &Identity) -> Option<ContentId> {
        self.sidecars.content_of(identity)
    }

    /// The sidecar of `id`.
    pub(crate) fn open(&self, id: &ContentId) -> Option<MappedSidecar> {
        if id.length <= MEDIUM_BYTES_MAX {
            return None;
        }
        self.sidecars.open(id)
    }
}
