//! A place that files are received into: a root, its staging, and when "committed" may be said.

use super::deltas::Deltas;
use super::options::Durability;
use super::resumes::Resumes;
use crate::model::{DeviceId, RelPath};
use crate::store::{Root, Staging, recover};
use std::collections::HashSet;
use std::rc::Rc;
use std::time::{SystemTime, UNIX_EPOCH};

/// The receiving end of transfers: a share of a server, or the target of a pull.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) root: Root,
    pub(crate) staging: Staging,
    pub(crate) durability: Durability,
    pub(crate) deltas: Rc<Deltas>,
    pub(crate) resumes: Rc<Resumes>,
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
            resumes: Resumes::new(None),
        }
    }

    /// Removes what unfinished transfers have staged that nobody will go on with.
    pub(crate) fn collect(&self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now_seconds = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        for expired in self.resumes.expire(now_seconds) {
            self.staging.discard_kept(expired);
        }
        let mut needed = HashSet::new();
        for id in self.resumes.arrivals() {
            if self.staging.has_kept(id) {
                needed.insert(id.to_string());
            } else {
                // It was published, and nobody came to say so.
                self.resumes.end(id);
            }
        }
        match self.staging.sweep_kept(|name| needed.contains(name)) {
            Ok(swept) if swept.removed > 0 => log::info!("removed {} files that nobody goes on with", swept.removed),
            Ok(_) => {}
            Err(error) => log::warn!("{error}"),
        }
    }

    /// The file at `path` is complete: what an earlier transfer by `peer` left of it is of no use.
    pub(crate) fn forget_partial(&self, path: &RelPath, peer: Option<&DeviceId>) {
        if let Some(id) = self.resumes.idle(path, peer) {
            self.staging.discard_kept(id);
            self.resumes.end(id);
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
