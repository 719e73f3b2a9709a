//! What is under way when a plan is carried out, written down before it takes effect.
//!
//! A connection or a process that ends in between leaves it to the next round, which can then tell our own doing
//! from that of others. Invariant: what cannot be read is as good as nothing, and never an error.

use super::Syncing;
use super::pages::{self, Row};
use crate::model::{RelPath, State};
use crate::sync::{Action, Pending};
use std::collections::HashMap;

/// Its name among the values of the base.
pub(super) const PENDING: &str = "pending";

/// What an action is about to do, if that could be taken for somebody else's doing.
fn pending_of(action: &Action) -> Option<(&RelPath, Pending)> {
    match action {
        Action::Send { path, state, .. } | Action::SendMeta { path, state, .. } => {
            Some((path, Pending::Sent(state.clone())))
        }
        Action::SendMove { to, state, .. } => Some((to, Pending::Sent(state.clone()))),
        Action::Fetch { path, state, .. }
        | Action::MakeLink { path, state, .. }
        | Action::SetMeta { path, state, .. } => Some((path, Pending::Taken(state.clone()))),
        Action::Rename { to, state, .. } => Some((to, Pending::Taken(state.clone()))),
        Action::MakeDirectory { path, state, .. } => Some((path, Pending::Taken(state.clone()))),
        Action::Agree { .. }
        | Action::Forget { .. }
        | Action::KeepAside { .. }
        | Action::Respell { .. }
        | Action::SendRespell { .. }
        | Action::Remove { .. }
        | Action::SendRemove { .. } => None,
    }
}

impl Syncing {
    /// Notes what the actions are about to do. Returns whether there is anything to write down.
    pub(super) fn note_pending(&mut self) -> bool {
        let mut noted = false;
        for (path, pending) in self.actions.iter().filter_map(pending_of) {
            noted |= self.pending.insert(path.clone(), pending).is_none();
        }
        if noted {
            self.batch.set_value(PENDING, &encode(&self.pending));
        }
        noted
    }

    /// Nothing is under way any more, but for what is left in the list.
    pub(super) fn drop_pending(&mut self, path: &RelPath) {
        if self.pending.remove(path).is_some() {
            self.has_dropped = true;
        }
    }

    /// Has what is left written with the next batch.
    pub(super) fn write_pending(&mut self) {
        if std::mem::take(&mut self.has_dropped) {
            self.batch.set_value(PENDING, &encode(&self.pending));
        }
    }
}

fn encode(list: &HashMap<RelPath, Pending>) -> Vec<u8> {
    let rows = list.iter().map(|(path, pending)| {
        let (state, is_odd) = match pending {
            Pending::Taken(state) => (state, false),
            Pending::Sent(state) => (state, true),
        };
        Row {
            path,
            state: Some(state),
            is_odd,
            numbers: [],
        }
    });
    pages::encode(rows.collect())
}

pub(super) fn decode(bytes: &[u8]) -> HashMap<RelPath, Pending> {
    let rows: Vec<Row<RelPath, State, 0>> = pages::decode(bytes);
    let pending = rows.into_iter().filter_map(|row| {
        let state = row.state?;
        let pending = match row.is_odd {
            true => Pending::Sent(state),
            false => Pending::Taken(state),
        };
        Some((row.path, pending))
    });
    pending.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Kind, Meta, Timestamp};

    #[test]
    fn what_is_written_down_is_read_again_and_damage_is_no_error() {
        let mtime = Timestamp { seconds: 3, nanos: 4 };
        let state = |size| State {
            kind: Kind::File { size },
            meta: Meta { mode: 0o600, mtime },
            root: (size % 2 == 0).then_some([5; 32]),
        };
        let entry = |number: u64| {
            let path = RelPath::parse(format!("a/{number}").as_bytes()).unwrap();
            let pending = match number % 3 {
                0 => Pending::Taken(state(number)),
                _ => Pending::Sent(state(number)),
            };
            (path, pending)
        };
        let list: HashMap<RelPath, Pending> = (0..3000).map(entry).collect();
        let bytes = encode(&list);
        assert_eq!(decode(&bytes), list);
        for end in [0, 1, 7, 9, bytes.len() / 2, bytes.len() - 1] {
            assert!(decode(&bytes[..end]).len() < list.len());
        }
        assert!(encode(&HashMap::new()).is_empty());
    }
}
