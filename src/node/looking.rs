//! Which paths are worth a look, and where they differ from an index.
//!
//! Opens no file. Invariant: a path that was asked for while a round goes on is looked at in the next one.

use super::source_tree::without_prefix;
use crate::model::{Entry, Kind, RelPath};
use crate::store::{
    Difference, FileError, FoundKind, Identity, IndexError, Keep, Record, Root, Shape, Snapshot, Survey,
};
use std::collections::BTreeSet;

/// The caller's filter.
type Filter<'a> = &'a mut dyn FnMut(&RelPath, Shape) -> Keep;

/// What is to be looked at.
#[derive(Debug, Default)]
pub(crate) struct Looks {
    /// Single entries, for the next round.
    paths: BTreeSet<RelPath>,
    /// Whole trees, for the next round.
    trees: BTreeSet<Option<RelPath>>,
    /// Those of this round.
    now: BTreeSet<RelPath>,
    now_trees: Vec<Option<RelPath>>,
    survey: Option<Survey>,
    /// Directories above the entries of this round, which were looked at.
    parents: BTreeSet<RelPath>,
    /// Everything that was looked at could be seen.
    complete: bool,
    /// All there is was to be looked at.
    everything: bool,
    /// What could not be read.
    postponed: BTreeSet<RelPath>,
}

/// Entries looked at in one step.
const STEP_ENTRIES: usize = 256;

impl Looks {
    pub(crate) fn path(&mut self, path: &RelPath) {
        self.paths.insert(path.clone());
    }

    pub(crate) fn tree(&mut self, top: Option<RelPath>) {
        self.trees.insert(top);
    }

    /// `path` is looked at when something else is, too: at once would be the same again.
    pub(crate) fn later(&mut self, path: &RelPath) {
        self.postponed.insert(path.clone());
    }

    /// What could not be read waits as others do, for the next round. Returns whether there is any.
    pub(crate) fn retry(&mut self) -> bool {
        let is_any = !self.postponed.is_empty();
        self.paths.append(&mut self.postponed);
        is_any
    }

    /// Whether there is anything that could not be read.
    pub(crate) fn has_postponed(&self) -> bool {
        !self.postponed.is_empty()
    }

    /// Whether `path` itself waits to be looked at.
    pub(crate) fn include(&self, path: &RelPath) -> bool {
        self.paths.contains(path) || self.now.contains(path)
    }

    /// Whether another round has something to do.
    pub(crate) fn is_waiting(&self) -> bool {
        self.is_amid() || !self.paths.is_empty() || !self.trees.is_empty()
    }

    /// Whether the last round was cut short for its size.
    pub(crate) fn is_amid(&self) -> bool {
        self.survey.is_some() || !self.now.is_empty() || !self.now_trees.is_empty()
    }

    /// Begins a round, or goes on with one. Returns whether there is anything to do.
    pub(crate) fn begin(&mut self) -> bool {
        if self.is_amid() {
            return true;
        }
        if !self.is_waiting() {
            return false;
        }
        self.now = std::mem::take(&mut self.paths);
        self.now.append(&mut self.postponed);
        self.now_trees = std::mem::take(&mut self.trees).into_iter().collect();
        self.everything = self.now_trees.contains(&None);
        if self.everything {
            // That is all of it.
            self.now_trees = vec![None];
            self.now.clear();
        }
        self.parents.clear();
        self.complete = true;
        true
    }

    /// Whether this round looks at `path`.
    pub(crate) fn cover(&self, path: &RelPath) -> bool {
        let is_beneath = |top: &Option<RelPath>| match top {
            None => true,
            Some(top) => path == top || without_prefix(path, Some(top)).is_some(),
        };
        self.now.contains(path) || self.now_trees.iter().any(is_beneath)
    }

    /// Whether the last round saw all that it looked for.
    pub(crate) fn was_complete(&self) -> bool {
        self.complete
    }

    /// Whether the last round looked at all there is.
    pub(crate) fn was_everything(&self) -> bool {
        self.everything
    }

    /// What waits for the next round waits until it is to be tried again.
    pub(crate) fn put_off(&mut self) {
        self.postponed.append(&mut self.paths);
    }

    /// A bounded part of the round. Returns whether there is more of it.
    pub(crate) fn step(
        &mut self,
        root: &Root,
        snapshot: &Snapshot,
        keep: Filter<'_>,
        out: &mut Vec<Difference>,
    ) -> Result<bool, IndexError> {
        root.forget_parents();
        for _ in 0..STEP_ENTRIES {
            let Some(path) = self.now.pop_first() else {
                break;
            };
            self.look_at(&path, root, snapshot, &mut *keep, out)?;
        }
        if !self.now.is_empty() {
            return Ok(true);
        }
        let Some(survey) = &mut self.survey else {
            self.survey = self.now_trees.pop().map(Survey::new);
            return Ok(self.survey.is_some());
        };
        let more = survey.step(root, snapshot, keep, STEP_ENTRIES, out)?;
        if !more {
            self.complete &= survey.complete();
            self.survey = None;
        }
        Ok(more || !self.now_trees.is_empty())
    }

    /// One entry, and the directories above it that are not known.
    fn look_at(
        &mut self,
        path: &RelPath,
        root: &Root,
        snapshot: &Snapshot,
        keep: Filter<'_>,
        out: &mut Vec<Difference>,
    ) -> Result<(), IndexError> {
        let record = snapshot.get(path)?;
        let (was_live, was_directory) = match &record {
            Some(Record { state: Some(state), .. }) => (true, state.kind == Kind::Directory),
            _ => (false, false),
        };
        let found = match found_at(root, path).and_then(|found| spelled_so(root, found, &mut self.now)) {
            Ok(found) => found,
            Err(error) => {
                self.complete = false;
                out.push(Difference::Failed(error));
                return Ok(());
            }
        };
        let Some((entry, identity)) = found else {
            match record {
                // What was in it is gone as well.
                Some(_) if was_directory => self.now_trees.push(Some(path.clone())),
                Some(record) if was_live => out.push(Difference::Gone {
                    path: path.clone(),
                    record,
                }),
                _ => {}
            }
            return Ok(());
        };
        let is_directory = entry.kind == Kind::Directory;
        if keep_all(path, is_directory, &mut *keep) == Keep::No {
            return Ok(());
        }
        if let Some(parent) = path.parent()
            && !self.now.contains(&parent)
            && self.parents.insert(parent.clone())
            && !snapshot.get(&parent)?.is_some_and(|record| record.is_live())
        {
            self.look_at(&parent, root, snapshot, &mut *keep, out)?;
        }
        if was_directory != is_directory && was_live || is_directory && !was_live {
            // What was in it is gone, or what is in it was never seen.
            self.now_trees.push(Some(path.clone()));
            return Ok(());
        }
        if !record
            .as_ref()
            .is_some_and(|record| crate::store::agrees(&entry, &identity, record))
        {
            out.push(Difference::Changed {
                entry,
                identity,
                record,
            });
        }
        Ok(())
    }
}

/// What was found, if it is spelled like that. On a file system that takes two names for one, a watch tells of the
/// name that somebody used: then what is really there is looked at.
fn spelled_so(
    root: &Root,
    found: Option<(Entry, Identity)>,
    now: &mut BTreeSet<RelPath>,
) -> Result<Option<(Entry, Identity)>, FileError> {
    let Some(found) = found else { return Ok(None) };
    let path = &found.0.path;
    let Some(real) = root.shadow(path)? else {
        return Ok(Some(found));
    };
    let mut rest = path.components().skip(real.components().count());
    let real = rest.try_fold(real, |above, name| above.child(name));
    now.extend(real.ok().filter(|real| real != path));
    Ok(None)
}

/// Whether the filter keeps a path and all above it.
fn keep_all(path: &RelPath, is_directory: bool, keep: Filter<'_>) -> Keep {
    let mut above: Vec<RelPath> = std::iter::successors(path.parent(), RelPath::parent).collect();
    above.reverse();
    let shape = if is_directory { Shape::Directory } else { Shape::Other };
    let is_kept = above.iter().all(|path| keep(path, Shape::Directory) == Keep::Yes) && keep(path, shape) == Keep::Yes;
    if is_kept { Keep::Yes } else { Keep::No }
}

/// What stands at a path; nothing also where a FIFO, socket or device does.
pub(crate) fn found_at(root: &Root, path: &RelPath) -> Result<Option<(Entry, Identity)>, FileError> {
    let Some(found) = root.find(path)? else { return Ok(None) };
    let kind = match found.kind {
        FoundKind::File { size } => Kind::File { size },
        FoundKind::Directory => Kind::Directory,
        FoundKind::Symlink => Kind::Symlink {
            target: root.read_link(path)?,
        },
        FoundKind::Special => return Ok(None),
    };
    let entry = Entry {
        path: path.clone(),
        kind,
        meta: found.meta,
    };
    Ok(Some((entry, found.identity)))
}
