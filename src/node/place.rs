//! A place that files are received into: a root, its staging, and when "committed" may be said.

use super::deltas::Deltas;
use super::options::Durability;
use crate::model::DeviceId;
use crate::store::{Author, Keeping, Root, Staging, Versions, recover};
use std::rc::Rc;

/// The receiving end of transfers: a share of a server, or the target of a pull.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) root: Root,
    pub(crate) staging: Staging,
    pub(crate) durability: Durability,
    pub(crate) deltas: Rc<Deltas>,
    /// Where what gives way is kept; `None`: it goes.
    pub(crate) versions: Option<Versions>,
}

impl Place {
    pub(crate) fn new(root: Root, durability: Durability) -> Place {
        let staging = Staging::new(&root);
        let deltas = Rc::new(Deltas::in_root(&root));
        Place {
            root,
            staging,
            durability,
            deltas,
            versions: None,
        }
    }

    /// The same place, where what is replaced and deleted is kept.
    pub(crate) fn keeping_versions(mut self) -> Place {
        self.versions = Some(Versions::new(&self.root));
        self
    }

    /// How something gives way to what `peer` sends.
    pub(crate) fn keeping(&self, peer: Option<DeviceId>) -> Option<Keeping<'_>> {
        let author = Author::from(peer);
        self.versions.as_ref().map(|versions| Keeping { versions, author })
    }

    /// Undoes what an earlier run left half changed in place. Before anything else uses the place.
    pub(crate) fn recover(&self) {
        let recovery = match recover(&self.root, self.durability.flush()) {
            Ok(recovery) => recovery,
            Err(error) => return log::error!("{error}"),
        };
        for path in &recovery.rolled_back {
            log::warn!("{path} was left half changed by an earlier run and is as it was before");
        }
        for kept in &recovery.kept {
            log::error!("{kept}");
        }
    }
}
