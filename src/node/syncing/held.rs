//! Paths that have no place on one side, since its file system takes their names for those of others.
//!
//! What the server told of them is remembered, so that it can come as soon as its place is free, however much
//! later that is. Invariant: what is not found here under its own spelling while something else has its place was
//! not deleted by anybody.

use super::pages::{self, Row};
use super::{Around, Here, Syncing};
use crate::model::{ItemCode, Kind, RelPath, Revision, State};
use crate::node::events::{Action as Told, ClientEvent, JobError};
use crate::node::source_tree::without_prefix;
use crate::store::{NotedCollision, Record, note_collisions};
use crate::sync::{Agreed, Collision, Expected, HeldReason, Local, Remote, Side, Taken};
use std::collections::{BTreeMap, BTreeSet};

/// Its name among the values of the base.
pub(super) const HELD: &str = "held";

/// What the server has told, by path.
pub(super) type Remotes = BTreeMap<RelPath, (Option<State>, Revision)>;

/// What has no place.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// What the base remembers that the server told of it.
    remote: Remotes,
    /// What the server refused for its name, since it told of something new last.
    pub(super) refused: BTreeSet<RelPath>,
    /// Records that the base had and that say nothing here; they are removed with the next write.
    disbelieved: BTreeSet<RelPath>,
    /// What was agreed of the contents of directories that the server has just respelled, under their new names.
    /// It counts with what the server tells of them next, and no longer: of what it does not tell it has nothing.
    carried: BTreeMap<RelPath, Record>,
    is_carried_told: bool,
    /// Its file system takes some names for one.
    pub(super) folds_there: bool,
    /// What the user was told of.
    told: Vec<Collision>,
    /// What the last run left to read for others is from before this one.
    is_noted: bool,
}

impl Held {
    pub(super) fn new(remote: Remotes) -> Held {
        Held {
            remote,
            ..Held::default()
        }
    }

    /// Whether the record of a path says something.
    pub(super) fn believes(&self, path: &RelPath) -> bool {
        !self.disbelieved.contains(path)
    }

    /// Its record is a new one.
    pub(super) fn believe(&mut self, path: &RelPath) {
        self.disbelieved.remove(path);
    }

    /// What was agreed of a path that the server tells of under its new name.
    pub(super) fn carried(&self, path: &RelPath, told: Option<&(Option<State>, Revision)>) -> Option<Record> {
        told.filter(|(state, _)| state.is_some())?;
        self.carried.get(path).cloned()
    }

    /// The next question to the server is about to be asked.
    pub(super) fn next_round(&mut self) {
        if std::mem::replace(&mut self.is_carried_told, true) {
            self.carried.clear();
        }
    }

    /// What the server has told before this connection.
    pub(super) fn begin(&mut self) -> Remotes {
        self.refused.clear();
        self.carried.clear();
        self.remote.clone()
    }
}

impl Syncing {
    /// Of what the server told only that is remembered which is held for its name.
    pub(super) fn keep_held(&mut self, held: &[crate::sync::Held]) {
        let collides = held.iter().filter(|one| one.reason == HeldReason::Collides);
        let kept: Remotes = collides.filter_map(|one| self.remote.remove_entry(&one.path)).collect();
        if kept != self.held.remote {
            self.batch.set_value(HELD, &encode(&kept));
            self.held.remote.clone_from(&kept);
        }
        self.remote = kept;
    }

    /// Each is told once, and all are noted for whoever asks later.
    pub(super) fn tell_collisions(&mut self, found: Vec<Collision>, around: &mut Around<'_>) {
        if self.held.is_noted && found == self.held.told {
            return;
        }
        for collision in &found {
            if !self.held.told.contains(collision) {
                around.events.push(ClientEvent::Collision {
                    path: collision.path.clone(),
                    with: collision.with.clone(),
                    is_here: collision.side == Side::Local,
                });
            }
        }
        let noted = found.iter().map(|one| NotedCollision {
            path: one.path.clone(),
            with: one.with.clone(),
            is_here: one.side == Side::Local,
        });
        if let Err(error) = note_collisions(&self.place.root, &noted.collect::<Vec<_>>()) {
            log::info!("{error}");
        }
        self.held.is_noted = true;
        self.held.told = found;
    }

    /// What the file system takes a path for that is to come.
    pub(super) fn taken(&self, path: &RelPath, local: &Local, base: Option<&Agreed>, remote: &Remote) -> Option<Taken> {
        if self.held.refused.contains(path) {
            return Some(Taken::There);
        }
        // A directory that is gone here may have to come back for what is in it there.
        let was_directory = base.is_some_and(|base| base.state.kind == Kind::Directory);
        let comes = was_directory || matches!(remote, Remote::Changed { state: Some(_), .. });
        let is_nothing = matches!(local, Local::Gone) || *local == Local::Unchanged && base.is_none();
        if !comes || !is_nothing {
            return None;
        }
        let shadow = self.place.root.shadow(path).unwrap_or_else(|error| {
            log::info!("{error}");
            None
        })?;
        // Else it is the directory that has no place.
        (shadow.parent() == path.parent()).then_some(Taken::Here(shadow))
    }

    /// A base that has two paths of which this file system makes one came here from elsewhere, with the folder: the
    /// one that is not in the listing was not deleted.
    pub(super) fn disbelieve_shadowed(&mut self) -> Result<(), JobError> {
        if !self.place.root.folding().is_any() {
            return Ok(());
        }
        let gone = self.local.iter().filter(|(_, here)| matches!(here, Here::Gone));
        let mut gone: Vec<RelPath> = gone.map(|(path, _)| path.clone()).collect();
        gone.sort_unstable();
        let mut tops: Vec<RelPath> = Vec::new();
        for path in gone {
            let in_one = |top: &RelPath| without_prefix(&path, Some(top)).is_some();
            if !tops.iter().any(in_one) {
                let Ok(Some(real)) = self.place.root.shadow(&path) else {
                    continue;
                };
                let record = self.snapshot.get(&real).map_err(|error| self.base_error(&error))?;
                if real.parent() != path.parent() || !record.is_some_and(|record| record.is_live()) {
                    continue;
                }
                tops.push(path.clone());
            }
            let record = self.snapshot.get(&path).map_err(|error| self.base_error(&error))?;
            if let Some(record) = record.filter(Record::is_live) {
                self.remote
                    .entry(path.clone())
                    .or_insert((record.state, record.revision));
                self.batch.remove(&path);
                self.held.disbelieved.insert(path.clone());
            }
            self.local.remove(&path);
        }
        Ok(())
    }

    /// Spells a name as the server does.
    pub(super) fn respell(&mut self, from: &RelPath, to: &RelPath, expected: Expected) -> Result<Told, ItemCode> {
        self.check(from, expected)?;
        self.place.root.rename_new(from, to).map_err(|error| {
            log::info!("{error}");
            error.code()
        })?;
        self.changed.insert(to.parent());
        self.done += 1;
        self.looks.tree(Some(from.clone()));
        self.looks.tree(Some(to.clone()));
        Ok(Told::Moved)
    }

    /// The server has spelled a directory as it is spelled here: what was agreed of all that is in it counts under the
    /// new name, where the server has it.
    pub(super) fn respelled(&mut self, from: &RelPath, to: &RelPath) -> Result<(), ItemCode> {
        let rows = self.snapshot.walk_beneath(from).map_err(|_| ItemCode::Io)?;
        for row in rows {
            let (path, record) = row.map_err(|_| ItemCode::Io)?;
            let Some(rest) = without_prefix(&path, Some(from)) else {
                continue;
            };
            self.batch.remove(&path);
            if let Ok(new) = rest.below(Some(to)) {
                self.held.carried.insert(new, record);
            }
        }
        // It may be in one that was respelled a round ago.
        let before: Vec<RelPath> = self.held.carried.keys().cloned().collect();
        for path in before {
            let new = without_prefix(&path, Some(from)).and_then(|rest| rest.below(Some(to)).ok());
            if let Some((new, record)) = new.and_then(|new| Some((new, self.held.carried.remove(&path)?))) {
                self.held.carried.insert(new, record);
            }
        }
        self.held.is_carried_told = false;
        self.forget(from);
        self.looks.tree(Some(from.clone()));
        self.looks.tree(Some(to.clone()));
        Ok(())
    }
}

fn encode(list: &Remotes) -> Vec<u8> {
    let rows = list.iter().map(|(path, (state, revision))| Row {
        path,
        state: state.as_ref(),
        is_odd: false,
        numbers: [revision.0],
    });
    pages::encode(rows.collect())
}

pub(super) fn decode(bytes: &[u8]) -> Remotes {
    let told = |row: Row<RelPath, State, 1>| (row.path, (row.state, Revision(row.numbers[0])));
    pages::decode(bytes).into_iter().map(told).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Kind, Meta, Timestamp};

    // Protects what waits for its place: what was told of it is there after any restart, whatever its revision.
    #[test]
    fn what_is_held_is_read_again_and_damage_is_no_error() {
        let mtime = Timestamp { seconds: 3, nanos: 4 };
        let state = |size| State {
            kind: Kind::File { size },
            meta: Meta { mode: 0o600, mtime },
            root: Some([5; 32]),
        };
        let entry = |number: u64| {
            let path = RelPath::parse(format!("a/{number}").as_bytes()).unwrap();
            let state = (!number.is_multiple_of(3)).then(|| state(number));
            (path, (state, Revision(number % 7)))
        };
        let list: Remotes = (0..3000).map(entry).collect();
        let bytes = encode(&list);
        assert_eq!(decode(&bytes), list);
        for end in [0, 1, 7, 9, bytes.len() / 2, bytes.len() - 1] {
            assert!(decode(&bytes[..end]).len() < list.len());
        }
        assert!(encode(&Remotes::new()).is_empty());
    }
}
