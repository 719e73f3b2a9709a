//! What a node remembers of contents, so that only what changed has to travel next time.
//!
//! Nothing here is needed for a transfer, and nothing is trusted: what is lost or wrong costs bytes.

use super::ahead::Ahead;
use super::recent::Recent;
use crate::delta::index::Parts;
use crate::model::ContentId;
use crate::model::limits::{MEDIUM_BYTES_MAX, WHOLE_BYTES_MAX};
use crate::store::{
    Home, Identity, Insertion, MappedSidecar, Root, Shadows, SidecarBounds, SidecarCopy, SidecarWriter, Sidecars,
};
use std::cell::RefCell;

/// Sidecars of large files; contents of smaller ones that were sent, ids of those that were committed.
#[derive(Debug)]
pub(crate) struct Deltas {
    sidecars: Sidecars,
    shadows: RefCell<Option<Shadows>>,
    ahead: RefCell<Ahead>,
    recent: RefCell<Recent>,
}

/// Bytes of contents that are kept.
const SHADOWS_BYTES_MAX: u64 = 256 << 20;

impl Deltas {
    /// Beside the files of a share.
    pub(crate) fn in_root(root: &Root) -> Deltas {
        Deltas {
            sidecars: Sidecars::in_root(root, SidecarBounds::default()),
            shadows: RefCell::new(None),
            ahead: RefCell::default(),
            recent: RefCell::default(),
        }
    }

    /// Keeps nothing, and so makes nothing beside the files of `root`.
    pub(crate) fn nowhere(root: &Root) -> Deltas {
        Deltas {
            sidecars: Sidecars::in_root(root, SidecarBounds { bytes: 0, count: 0 }),
            shadows: RefCell::new(None),
            ahead: RefCell::default(),
            recent: RefCell::default(),
        }
    }

    /// In the state directory of a client.
    pub(crate) fn in_home(home: &Home) -> Deltas {
        Deltas {
            sidecars: Sidecars::in_home(home, SidecarBounds::default()),
            shadows: RefCell::new(Some(Shadows::new(&home.path().join("shadows"), SHADOWS_BYTES_MAX))),
            ahead: RefCell::default(),
            recent: RefCell::default(),
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
        self.begin_with(length, parts, u64::from_le_bytes(seed))
    }

    /// The same, with a seed that is given.
    pub(crate) fn begin_with(&self, length: u64, parts: Parts, seed: u64) -> Option<SidecarWriter> {
        if length <= MEDIUM_BYTES_MAX {
            return None;
        }
        self.sidecars.create(length, parts, seed)
    }

    /// Starts the sidecar of what a patch of `basis` makes, of `length` bytes: its leaves.
    pub(crate) fn begin_patched(&self, basis: &ContentId, length: u64) -> Option<SidecarWriter> {
        if length != basis.length || length <= MEDIUM_BYTES_MAX {
            return self.begin(length, Parts::Leaves);
        }
        self.sidecars.create_like(basis, Parts::Leaves, 0)
    }

    /// Keeps the sidecar of `id`.
    pub(crate) fn keep(&self, writer: Option<SidecarWriter>, id: &ContentId) {
        if let Some(writer) = writer {
            self.sidecars.finish(writer, id);
        }
    }

    /// Begins to take the sidecar of a content that somebody else has.
    pub(crate) fn receive(&self, bytes_max: u64) -> Option<SidecarCopy> {
        self.sidecars.receive(bytes_max)
    }

    /// All of it has come, and it should be that of `id`.
    pub(crate) fn accept(&self, copy: SidecarCopy, id: &ContentId) {
        self.sidecars.accept(copy, id);
    }

    /// The sidecar of `id`, if it has all sections.
    pub(crate) fn open_full(&self, id: &ContentId) -> Option<MappedSidecar> {
        let sidecar = self.open(id)?;
        (sidecar.view().sidecar().parts == Parts::Full).then_some(sidecar)
    }

    /// The file of `identity` is known to contain `id`.
    pub(crate) fn note(&self, id: &ContentId, identity: &Identity) {
        match id.length > MEDIUM_BYTES_MAX {
            true => self.sidecars.set_stamp(id, identity),
            false => self.recent.borrow_mut().note(id, identity),
        }
    }

    /// There is no file of `identity` any more.
    pub(crate) fn forget(&self, identity: &Identity) {
        self.recent.borrow_mut().forget(identity);
    }

    /// What the file of `identity` contains, if that is known.
    pub(crate) fn content_of(&self, identity: &Identity) -> Option<ContentId> {
        match identity.size() > MEDIUM_BYTES_MAX {
            true => self.sidecars.content_of(identity),
            false => self.recent.borrow().content_of(identity),
        }
    }

    /// The sidecar of `id`.
    pub(crate) fn open(&self, id: &ContentId) -> Option<MappedSidecar> {
        if id.length <= MEDIUM_BYTES_MAX {
            return None;
        }
        match self.ahead.borrow_mut().take(id) {
            Some(opened) => opened,
            None => self.sidecars.open(id),
        }
    }

    /// Opens the sidecar of `id` ahead, for a bounded time: proving that of a large file takes longer than a
    /// turn of the loop should. `true` when [`Deltas::open`] has it, or that there is none, at once.
    pub(crate) fn prepare(&self, id: &ContentId) -> bool {
        if id.length <= MEDIUM_BYTES_MAX {
            return true;
        }
        self.ahead.borrow_mut().prepare(&self.sidecars, id)
    }

    /// Begins to keep a content of `length` bytes that is sent.
    pub(crate) fn begin_shadow(&self, length: u64) -> Option<Insertion> {
        if length <= WHOLE_BYTES_MAX || length > MEDIUM_BYTES_MAX {
            return None;
        }
        self.shadows.borrow_mut().as_mut()?.begin(length)
    }

    /// The next bytes of it.
    pub(crate) fn append_shadow(&self, insertion: &mut Insertion, bytes: &[u8]) {
        if let Some(shadows) = self.shadows.borrow_mut().as_mut() {
            shadows.append(insertion, bytes);
        }
    }

    /// All of it was sent.
    pub(crate) fn keep_shadow(&self, insertion: Option<Insertion>, id: ContentId) {
        if let (Some(shadows), Some(insertion)) = (self.shadows.borrow_mut().as_mut(), insertion) {
            shadows.finish(insertion, id);
        }
    }

    /// The content of `id`, if it was sent from here.
    pub(crate) fn shadow(&self, id: &ContentId) -> Option<Vec<u8>> {
        self.shadows.borrow_mut().as_mut()?.find(id)
    }
}
