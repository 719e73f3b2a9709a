//! A place that files are received into: a root, its staging, and when "committed" may be said.

use super::deltas::Deltas;
use super::options::Durability;
use crate::store::{Root, Staging, recover};
use std::rc::Rc;

/// The receiving end of transfers: a share of a server, or the target of a pull.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) root: Root,
    pub(crate) staging: Staging,
    pub(crate) durability: Durability,
    pub(crate) deltas: Rc<Deltas>,
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
        }
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
