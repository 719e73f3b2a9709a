//! A place that files are received into: a root, its staging, and when "committed" may be said.

use super::deltas::Deltas;
use super::options::Durability;
use crate::store::{Root, Staging};
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
}
