//! Gathers a server's figures into a [`Snapshot`], when somebody asks for them.
//!
//! Never keeps any. Invariant: it costs a bounded number of system calls, however many connections there are.

use super::server_node::{ServerNode, Share};
use super::status::{LoopStatus, ShareInside, ShareStatus, Snapshot, Totals};
use crate::store::{ProcessFigures, Versions};

impl ServerNode {
    /// All figures, as the operator may see them.
    pub(super) fn snapshot(&self) -> Snapshot<'_> {
        let shares = self.shares.iter().map(|share| self.inside(share)).collect();
        self.report(shares, Some(self.loop_status()))
    }

    /// What a visitor of the share with this index may see, who has these rights.
    pub(super) fn visible(&self, share: Option<usize>, rights: &str) -> Snapshot<'_> {
        let share = share.and_then(|index| self.shares.get(index));
        let shown = share.map(|share| match self.device_places {
            None => outside(share, Some(rights.to_owned())),
            // What other devices did there is theirs.
            Some(_) => {
                let free = share.place.root.free_bytes().ok();
                Totals::default().of_share(&share.name, Some(rights.to_owned()), free)
            }
        });
        self.report(shown.into_iter().collect(), None)
    }

    fn report<'a>(&'a self, shares: Vec<ShareStatus<'a>>, loop_status: Option<LoopStatus>) -> Snapshot<'a> {
        Snapshot {
            event: "status",
            name: &self.name,
            version: env!("CARGO_PKG_VERSION"),
            uptime_seconds: self.started.elapsed().as_secs(),
            shares,
            loop_status,
        }
    }

    /// A share as the operator may see it.
    fn inside<'a>(&self, share: &'a Share) -> ShareStatus<'a> {
        let journal = share.place.resumes.figures();
        let versions = share.place.versions.as_ref();
        let tidier = self.tidier.as_ref();
        ShareStatus {
            inside: Some(ShareInside {
                read_only: u8::from(share.read_only.is_some()),
                journal_entries: journal.entries,
                journal_bytes: journal.bytes,
                versions_kept: versions.map_or(0, Versions::kept),
                versions_bytes: tidier.and_then(|tidier| tidier.bytes_of(&share.place)),
                failed_by: share.totals.failed_by.clone(),
            }),
            ..outside(share, None)
        }
    }

    fn loop_status(&self) -> LoopStatus {
        let process = ProcessFigures::now();
        LoopStatus {
            connections: self.connections as u64,
            stages: self.tally.stages,
            web_connections: self.web.connections() as u64,
            refused_by: self.tally.refused_by.clone(),
            sessions: self.tally.sessions.clone(),
            commits: self.core.committer.figures(),
            anonymous_bytes: process.anonymous_bytes,
            descriptors: process.descriptors,
            ..LoopStatus::of(&self.counters, self.load())
        }
    }
}

/// A share as its visitors may see it.
fn outside(share: &Share, rights: Option<String>) -> ShareStatus<'_> {
    let free = share.place.root.free_bytes().ok();
    share.totals.of_share(&share.name, rights, free)
}
