//! What a folder in sync tells its activity log: what came, what went, what gave way, what failed.
//!
//! Decides nothing. Invariant: what was done here for the share is the share's doing, what was done there for the
//! folder is ours.

use super::Syncing;
use crate::model::{ItemCode, RelPath};
use crate::node::activity::{Deed, Running, Thing, now_ms};
use crate::node::client_node::ClientNode;
use crate::node::events::{Action, ClientEvent};
use crate::node::ledger::Ledger;
use crate::node::peer::{Session, Transfer};
use crate::store::{FoundKind, RunKind, Side, Who};
use std::collections::{HashMap, HashSet};

/// What is under way, for the log.
#[derive(Debug)]
pub(super) struct Telling {
    /// What the share does here.
    theirs: Running,
    /// What this device does there.
    ours: Running,
    /// Which side follows in the transfer that runs.
    side: Side,
    /// What renamed files were called.
    moved: HashMap<RelPath, RelPath>,
    /// Paths of conflicts whose copies are being made: that is not told again as an item.
    aside: HashSet<RelPath>,
}

impl Default for Telling {
    fn default() -> Telling {
        Telling {
            theirs: Running::new(RunKind::Sync, Who::default()),
            ours: Running::new(RunKind::Sync, Who::here()),
            side: Side::Received,
            moved: HashMap::new(),
            aside: HashSet::new(),
        }
    }
}

impl Syncing {
    /// The share is open.
    pub(super) fn tell_of(&mut self, session: &mut Session) {
        self.telling.theirs.who = Who {
            name: session.machine.peer_name().to_owned(),
            device: session.device,
        };
        if self.place.activity.is_some() {
            session.ledger.keep_deeds();
        }
    }

    /// A transfer begins.
    pub(super) fn tell_begin(&mut self, transfer: &Transfer) {
        self.telling.side = match transfer {
            Transfer::Sending(_) => Side::Sent,
            Transfer::Receiving(_) | Transfer::Altering(_) => Side::Received,
        };
    }

    /// A file was renamed, here or there.
    pub(super) fn tell_move(&mut self, from: &RelPath, to: &RelPath) {
        self.telling.moved.insert(to.clone(), from.clone());
    }

    /// Notes what a step told the user; `side` is which side followed.
    pub(super) fn tell_events(&mut self, events: &[ClientEvent], side: Side) {
        let deeds: Vec<Deed> = events.iter().filter_map(|event| self.deed(event, side)).collect();
        self.tell_deeds(deeds, side);
    }

    fn tell_deeds(&mut self, deeds: Vec<Deed>, side: Side) {
        let Some(activity) = self.place.activity.as_ref().filter(|_| !deeds.is_empty()) else {
            return;
        };
        // Copies are made by this device, and what fails is told by it, whoever wanted it.
        let is_ours = |deed: &Deed| side == Side::Sent || matches!(deed, Deed::Conflict { .. } | Deed::Failed { .. });
        let (ours, theirs): (Vec<Deed>, Vec<Deed>) = deeds.into_iter().partition(is_ours);
        activity.note_deeds(&mut self.telling.ours, &ours, Some(side));
        activity.note_deeds(&mut self.telling.theirs, &theirs, Some(side));
    }

    fn deed(&mut self, event: &ClientEvent, side: Side) -> Option<Deed> {
        match event {
            ClientEvent::Conflict { path, copy } => {
                if copy.is_some() {
                    self.telling.aside.insert(path.clone());
                }
                Some(Deed::Conflict {
                    path: path.clone(),
                    copy: copy.clone(),
                })
            }
            ClientEvent::Item {
                path,
                action: Action::Replaced,
                ..
            } if self.telling.aside.remove(path) => None,
            ClientEvent::Item {
                path,
                action: Action::Moved,
                ..
            } => Some(Deed::Moved {
                from: self.telling.moved.remove(path),
                to: path.clone(),
            }),
            ClientEvent::Item { path, action, .. } => {
                let what = self.thing_at(path, *action, side).done(*action)?;
                let (path, size) = (path.clone(), None);
                Some(Deed::Done { path, what, size })
            }
            ClientEvent::Failed {
                path,
                code,
                warning: false,
            } if !matches!(code, ItemCode::Stale | ItemCode::Vanished) => Some(Deed::Failed {
                path: path.clone(),
                code: *code,
            }),
            _ => None,
        }
    }

    /// What was made here for the share without content of its own; a mode that was set counts like a file's.
    fn thing_at(&self, path: &RelPath, action: Action, side: Side) -> Thing {
        match (action, side) {
            (Action::Created, Side::Received) => {
                match self.place.root.probe(path).map(|found| found.map(|found| found.kind)) {
                    Ok(Some(FoundKind::Directory)) => Thing::Directory,
                    _ => Thing::Other,
                }
            }
            _ => Thing::File,
        }
    }
}

impl ClientNode {
    /// Notes what a transfer of a folder in sync did.
    pub(in crate::node) fn tell_deeds(&mut self, ledger: &mut Ledger) {
        let Some(sync) = &mut self.sync else { return };
        let deeds = ledger.take_deeds();
        let side = sync.telling.side;
        sync.tell_deeds(deeds, side);
    }

    /// The connection is gone: what was not listed is told by its number.
    pub(in crate::node) fn tell_rest(&mut self) {
        let Some(sync) = &mut self.sync else { return };
        if let Some(activity) = &sync.place.activity {
            activity.tell_rest(&mut sync.telling.theirs, now_ms());
            activity.tell_rest(&mut sync.telling.ours, now_ms());
        }
    }

    /// A turn is over: its lines are written.
    pub(in crate::node) fn write_log(&self) {
        if let Some(sync) = &self.sync {
            sync.place.write_log();
        }
    }
}
