//! Which paths are worth a look, and what is found there.
//!
//! Opens no file. Invariant: a path that was asked for while a round goes on is looked at in the next one.

use super::Hint;
use crate::model::{DeviceId, Kind, RelPath, Revision, State};
use crate::store::{Difference, FoundKind, Identity, IndexError, Keep, Record, Root, Shape, Snapshot, Survey};
use std::collections::{BTreeSet, HashMap};

/// A path whose record is to be written.
#[derive(Debug)]
pub(super) struct Fresh {
    pub(super) path: RelPath,
    pub(super) state: Option<State>,
    pub(super) identity: Option<Identity>,
    pub(super) author: Option<DeviceId>,
    /// It is a change; else only what the disk calls it is different.
    pub(super) is_new: bool,
    /// The revision that it has.
    pub(super) revision: Revision,
    /// It has to be hashed.
    pub(super) is_unread: bool,
    /// It could not be read, or changed meanwhile: it is looked at again.
    pub(super) is_put_off: bool,
}

impl Fresh {
    /// Compares it with the record that the path has: the same content under another inode is no change.
    pub(super) fn compare(&mut self, record: Option<&Record>) {
        let old = record.and_then(|record| record.state.as_ref());
        if let (Some(state), Some(record)) = (&self.state, record)
            && same_state(old, state)
        {
            (self.is_new, self.revision, self.author) = (false, record.revision, record.author);
        }
    }
}

/// What is to be looked at.
#[derive(Debug, Default)]
pub(super) struct Looks {
    /// Single entries, for the next round.
    paths: BTreeSet<RelPath>,
    /// Whole trees, for the next round.
    trees: BTreeSet<Option<RelPath>>,
    /// Those of this round.
    now: BTreeSet<RelPath>,
    now_trees: Vec<Option<RelPath>>,
    survey: Option<Survey>,
    /// What could not be read.
    postponed: BTreeSet<RelPath>,
}

/// Entries looked at in one step.
const STEP_ENTRIES: usize = 256;

impl Looks {
    pub(super) fn path(&mut self, path: &RelPath) {
        self.paths.insert(path.clone());
    }

    pub(super) fn tree(&mut self, top: Option<RelPath>) {
        self.trees.insert(top);
    }

    /// `path` is looked at when something else is, too: at once would be the same again.
    pub(super) fn later(&mut self, path: &RelPath) {
        self.postponed.insert(path.clone());
    }

    /// What could not be read waits as others do, for the next round. Returns whether there is any.
    pub(super) fn retry(&mut self) -> bool {
        let is_any = !self.postponed.is_empty();
        self.paths.append(&mut self.postponed);
        is_any
    }

    /// Whether `path` itself waits to be looked at.
    pub(super) fn include(&self, path: &RelPath) -> bool {
        self.paths.contains(path) || self.now.contains(path)
    }

    /// Whether another round has something to do.
    pub(super) fn is_waiting(&self) -> bool {
        self.is_amid() || !self.paths.is_empty() || !self.trees.is_empty()
    }

    /// Whether the last round was cut short for its size.
    pub(super) fn is_amid(&self) -> bool {
        self.survey.is_some() || !self.now.is_empty() || !self.now_trees.is_empty()
    }

    /// Begins a round, or goes on with one. Returns whether there is anything to do.
    pub(super) fn begin(&mut self) -> bool {
        if self.is_amid() {
            return true;
        }
        if !self.is_waiting() {
            return false;
        }
        self.now = std::mem::take(&mut self.paths);
        self.now.append(&mut self.postponed);
        self.now_trees = std::mem::take(&mut self.trees).into_iter().collect();
        true
    }

    /// A bounded part of the round. Returns whether there is more of it.
    pub(super) fn step(
        &mut self,
        root: &Root,
        snapshot: &Snapshot,
        hints: &HashMap<RelPath, Hint>,
        fresh: &mut Vec<Fresh>,
    ) -> Result<bool, IndexError> {
        for _ in 0..STEP_ENTRIES {
            let Some(path) = self.now.pop_first() else {
                break;
            };
            self.look_at(&path, root, snapshot, hints, fresh)?;
        }
        if !self.now.is_empty() {
            return Ok(true);
        }
        let Some(survey) = &mut self.survey else {
            self.survey = self.now_trees.pop().map(Survey::new);
            return Ok(self.survey.is_some());
        };
        let mut found = Vec::new();
        let mut keep = |_: &RelPath, _: Shape| Keep::Yes;
        let more = survey.step(root, snapshot, &mut keep, STEP_ENTRIES, &mut found)?;
        if !more {
            self.survey = None;
        }
        for difference in found {
            fresh.extend(of_difference(difference, hints));
        }
        Ok(more || !self.now_trees.is_empty())
    }

    /// One entry, and the directories above it that are not known.
    fn look_at(
        &mut self,
        path: &RelPath,
        root: &Root,
        snapshot: &Snapshot,
        hints: &HashMap<RelPath, Hint>,
        fresh: &mut Vec<Fresh>,
    ) -> Result<(), IndexError> {
        let record = snapshot.get(path)?;
        let was_directory = matches!(
            &record,
            Some(Record {
                state: Some(State {
                    kind: Kind::Directory,
                    ..
                }),
                ..
            })
        );
        let Some((entry, identity)) = found_at(root, path) else {
            if let Some(record) = record.filter(Record::is_live) {
                fresh.push(gone(path.clone(), &record, hints));
            }
            if was_directory {
                self.now_trees.push(Some(path.clone()));
            }
            return Ok(());
        };
        if let Some(parent) = path.parent()
            && !self.now.contains(&parent)
            && !fresh.iter().rev().take(STEP_ENTRIES).any(|one| one.path == parent)
            && !snapshot.get(&parent)?.is_some_and(|record| record.is_live())
        {
            self.look_at(&parent, root, snapshot, hints, fresh)?;
        }
        if was_directory && entry.kind != Kind::Directory {
            // What was in it is gone.
            self.now_trees.push(Some(path.clone()));
            return Ok(());
        }
        let changed = Difference::Changed {
            entry,
            identity,
            record,
        };
        fresh.extend(of_difference(changed, hints));
        Ok(())
    }
}

fn found_at(root: &Root, path: &RelPath) -> Option<(crate::model::Entry, Identity)> {
    let found = root.probe(path).ok().flatten()?;
    let kind = match found.kind {
        FoundKind::File { size } => Kind::File { size },
        FoundKind::Directory => Kind::Directory,
        FoundKind::Symlink => Kind::Symlink {
            target: root.read_link(path).ok()?,
        },
        FoundKind::Special => return None,
    };
    let entry = crate::model::Entry {
        path: path.clone(),
        kind,
        meta: found.meta,
    };
    Some((entry, found.identity))
}

fn gone(path: RelPath, record: &Record, hints: &HashMap<RelPath, Hint>) -> Fresh {
    Fresh {
        author: hints.get(&path).and_then(|hint| hint.author),
        path,
        state: None,
        identity: None,
        is_new: true,
        revision: record.revision,
        is_unread: false,
        is_put_off: false,
    }
}

/// What is to be written of a difference; `None` when the index has it already.
fn of_difference(difference: Difference, hints: &HashMap<RelPath, Hint>) -> Option<Fresh> {
    let (entry, identity, record) = match difference {
        Difference::Gone { path, record } => return Some(gone(path, &record, hints)),
        Difference::Special(path) => {
            log::info!("{path} is a FIFO, socket or device and is left out");
            return None;
        }
        Difference::Failed(error) => {
            log::warn!("{error}");
            return None;
        }
        Difference::Changed {
            entry,
            identity,
            record,
        } => (entry, identity, record),
    };
    let hint = hints.get(&entry.path).copied().unwrap_or_default();
    let known = hint
        .content
        .filter(|(was, id)| was.same_content(&identity) && id.length == identity.size());
    let old = record.as_ref().and_then(|record| record.state.as_ref());
    let same_file = record
        .as_ref()
        .and_then(|record| record.identity)
        .is_some_and(|was| was.same_content(&identity));
    let mut state = State::of(&entry);
    if let Kind::File { .. } = entry.kind {
        let kept = old.filter(|_| same_file).and_then(|old| old.root);
        state.root = known.map(|(_, id)| id.root).or(kept);
    }
    if same_state(old, &state) && same_file {
        return None;
    }
    let is_unread = matches!(state.kind, Kind::File { .. }) && state.root.is_none();
    let same = !is_unread && same_state(old, &state);
    Some(Fresh {
        path: entry.path,
        is_new: !same,
        revision: record.as_ref().map_or(Revision::NONE, |record| record.revision),
        author: match same {
            true => record.and_then(|record| record.author),
            false => hint.author,
        },
        state: Some(state),
        identity: Some(identity),
        is_unread,
        is_put_off: false,
    })
}

/// Whether nothing changed that a client would have to hear of: the time of a directory is its own.
fn same_state(old: Option<&State>, new: &State) -> bool {
    let Some(old) = old else { return false };
    let same_time = matches!(new.kind, Kind::Directory) || old.meta.mtime == new.meta.mtime;
    let same_mode = matches!(new.kind, Kind::Symlink { .. }) || old.meta.mode == new.meta.mode;
    old.kind == new.kind && old.root == new.root && same_time && same_mode
}
