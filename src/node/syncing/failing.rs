//! What failed in a folder: what is told at once, and what only was outrun.
//!
//! While a round goes on, users do, too: a file that became a directory meanwhile is in nobody's way, it is seen by
//! the next round. Such failures are told only when rounds come to nothing for them. Invariant: what is told as failed
//! and did not come right since is counted when the run ends, each path once.

use super::Syncing;
use crate::model::ItemCode;
use crate::node::client_node::ClientNode;
use crate::node::events::{ClientEvent, Summary};

impl ItemCode {
    /// Whether it may only say that somebody was quicker.
    pub(super) fn may_be_outrun(self) -> bool {
        matches!(
            self,
            ItemCode::Stale | ItemCode::Vanished | ItemCode::InTheWay | ItemCode::Escapes
        )
    }
}

impl Syncing {
    /// Takes out of what a transfer tells what may come right with the next round.
    fn sift(&mut self, events: &mut Vec<ClientEvent>) {
        events.retain(|event| match event {
            ClientEvent::Failed {
                path,
                code,
                warning: false,
            } if code.may_be_outrun() => {
                self.outrun.insert(path.clone(), *code);
                false
            }
            _ => true,
        });
    }

    /// Counts what users are told of.
    fn account(&mut self, events: &[ClientEvent]) {
        for event in events {
            match event {
                ClientEvent::Failed {
                    path, warning: false, ..
                } => {
                    self.failing.insert(path.clone());
                }
                ClientEvent::Item { path, .. } => {
                    self.failing.remove(&path.to_string());
                }
                _ => {}
            }
        }
    }
}

impl ClientNode {
    /// What a transfer of the folder has told.
    pub(in crate::node) fn sift(&mut self, events: &mut Vec<ClientEvent>) {
        if let Some(sync) = &mut self.sync {
            sync.sift(events);
            sync.account(events);
        }
    }

    /// What a step of the folder has told, from that event on.
    pub(super) fn account(&mut self, from: usize) {
        if let Some(sync) = &mut self.sync {
            sync.account(self.events.get(from..).unwrap_or_default());
        }
    }

    /// Transfers count what failed in them; of a folder it is what is failing still.
    pub(in crate::node) fn count_failing(&self, summary: &mut Summary) {
        if let Some(sync) = &self.sync {
            summary.failed = sync.failing.len() as u64;
        }
    }
}
