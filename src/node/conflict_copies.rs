//! Conflict copies: what a sync kept beside a file because both sides had changed it. Finds and settles them.
//!
//! Works beside a sync and beside a server: nothing here needs their lock. Invariant: nothing is overwritten and
//! nothing removed; what gives way lies among the versions.

use super::history::{History, HistoryError};
use crate::model::limits::NAME_BYTES_MAX;
use crate::model::{ConflictName, ItemCode, RelPath, conflict_names};
use crate::store::{Author, Barrier, FileError, FoundKind, Keep, Keeping, Operation, Root, ScanItem, Shape, Versions};

/// A version that had to give way, and what stands in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConflictCopy {
    /// Where it is.
    pub copy: RelPath,
    /// What its name says.
    pub name: ConflictName,
    /// Its kind, and size if it is a file.
    pub kind: FoundKind,
    /// What stands where it was; `None` for nothing.
    pub other: Option<FoundKind>,
}

/// Which version keeps the name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Winner {
    /// The copy: what stands there goes to the versions.
    Copy,
    /// What stands there: the copy goes to the versions.
    Other,
    /// Both stay; the copy gets a name without a tag.
    Both,
}

/// What became of a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settled {
    /// It has its name again; whether something gave way to it.
    Took(RelPath, bool),
    /// It is among the versions, under its own path.
    WentToVersions,
    /// It is called so now.
    Renamed(RelPath),
}

/// Why a conflict was not settled.
#[derive(Debug, thiserror::Error)]
pub enum SettleError {
    /// The path names no conflict copy.
    #[error("{0} is no conflict copy")]
    NoCopy(RelPath),
    /// It is not there.
    #[error("there is no {0}")]
    Absent(RelPath),
    /// A directory cannot become a version.
    #[error("{0} is a directory")]
    Directory(RelPath),
    /// The name of the file was too long to be told from that of its copy.
    #[error("the name of {0} was shortened, so I cannot tell what it is a copy of")]
    Shortened(RelPath),
    /// A file could not be read or moved.
    #[error(transparent)]
    File(#[from] FileError),
}

/// Names that are tried for a copy that stays.
const NAMES_MAX: u32 = 100;
const STEP_ENTRIES: usize = 4096;

impl History {
    /// The paths at `path` and below it that had no place on one side when they were synced last, since a file
    /// system takes their names for those of others. `None` is the whole folder.
    ///
    /// # Errors
    /// When what was noted of them cannot be read.
    #[cfg(feature = "sync")]
    pub fn collisions(&self, path: Option<&RelPath>) -> Result<Vec<crate::store::NotedCollision>, HistoryError> {
        let mut noted = crate::store::collisions(&self.root)?;
        noted.retain(|one| {
            path.is_none_or(|path| {
                one.path == *path || super::source_tree::without_prefix(&one.path, Some(path)).is_some()
            })
        });
        Ok(noted)
    }

    /// The conflict copies at `path` and below it, by path, and what could not be looked at. `None` is the whole
    /// folder. Blocks.
    #[must_use]
    pub fn conflict_copies(&self, path: Option<&RelPath>) -> (Vec<ConflictCopy>, Vec<FileError>) {
        let (mut copies, mut failed) = (Vec::new(), Vec::new());
        let mut scan = self.root.scan(path);
        let mut items = Vec::new();
        let mut more = true;
        while more {
            more = scan.step(&self.root, &mut |_, _: Shape| Keep::Yes, STEP_ENTRIES, &mut items);
            for item in items.drain(..) {
                match item {
                    ScanItem::Entry(entry, _) => copies.extend(self.conflict_copy(&entry.path)),
                    ScanItem::Special(_) => {}
                    ScanItem::Failed(error) => failed.push(error),
                }
            }
        }
        copies.sort_by(|one, other| one.copy.cmp(&other.copy));
        (copies, failed)
    }

    /// What `path` is a copy of, if it is there and has the name of a conflict copy.
    #[must_use]
    pub fn conflict_copy(&self, path: &RelPath) -> Option<ConflictCopy> {
        let mut names = conflict_names(path);
        let kind = self.root.probe(path).ok()??.kind;
        let stands = |name: &ConflictName| Some(self.root.probe(&name.of).ok()??.kind);
        let at = names.iter().position(|name| stands(name).is_some()).unwrap_or(0);
        if names.is_empty() {
            return None;
        }
        let name = names.swap_remove(at);
        let other = stands(&name);
        Some(ConflictCopy {
            copy: path.clone(),
            name,
            kind,
            other,
        })
    }

    /// The copies of what is called `path`.
    ///
    /// # Errors
    /// When its directory cannot be listed.
    pub fn copies_of(&self, path: &RelPath) -> Result<Vec<ConflictCopy>, HistoryError> {
        let (mut copies, failed) = self.conflict_copies(path.parent().as_ref());
        copies.retain(|copy| copy.name.of == *path);
        match failed.into_iter().next() {
            Some(error) if copies.is_empty() => Err(error.into()),
            _ => Ok(copies),
        }
    }

    /// Settles one conflict. Returns when it is on the disk.
    ///
    /// # Errors
    /// A [`SettleError`]. What stands in both places is there still, under its name or among the versions.
    pub fn settle(&self, path: &RelPath, winner: Winner) -> Result<Settled, SettleError> {
        let root = &self.root;
        if conflict_names(path).is_empty() {
            return Err(SettleError::NoCopy(path.clone()));
        }
        let copy = self.conflict_copy(path);
        let copy = copy.ok_or_else(|| SettleError::Absent(path.clone()))?;
        let versions = Versions::new(root);
        let keeping = Keeping {
            versions: &versions,
            author: Author::Local,
        };
        let settled = match winner {
            Winner::Copy => take_name(root, &copy, &keeping)?,
            Winner::Other => {
                if copy.kind == FoundKind::Directory {
                    return Err(SettleError::Directory(path.clone()));
                }
                root.remove_keeping(path, &keeping)?;
                Settled::WentToVersions
            }
            Winner::Both => keep_both(root, &copy)?,
        };
        let mut barrier = Barrier::new(root);
        barrier.add_parent_of(path);
        for changed in versions.take_changed() {
            barrier.add_private(&changed);
        }
        let flushed = barrier.run();
        flushed.map_err(|error| FileError::new(Operation::Publish, path, error))?;
        Ok(settled)
    }
}

fn take_name(root: &Root, copy: &ConflictCopy, keeping: &Keeping<'_>) -> Result<Settled, SettleError> {
    let of = &copy.name.of;
    if copy.other.is_none() && copy.copy.name().len() >= NAME_BYTES_MAX - 3 {
        return Err(SettleError::Shortened(copy.copy.clone()));
    }
    let gave_way = match root.probe(of)? {
        None => false,
        Some(found) if found.kind == FoundKind::Directory && !root.is_empty_directory(of)? => {
            return Err(SettleError::Directory(of.clone()));
        }
        Some(_) => {
            root.remove_keeping(of, keeping)?;
            true
        }
    };
    root.rename_new(&copy.copy, of)?;
    Ok(Settled::Took(of.clone(), gave_way))
}

fn keep_both(root: &Root, copy: &ConflictCopy) -> Result<Settled, SettleError> {
    for number in 1..NAMES_MAX {
        let Some(name) = plain_name(&copy.name, number) else {
            return Err(SettleError::Shortened(copy.copy.clone()));
        };
        match root.rename_new(&copy.copy, &name) {
            Err(error) if matches!(error.code(), ItemCode::InTheWay | ItemCode::Collides) => {}
            other => return Ok(other.map(|()| Settled::Renamed(name))?),
        }
    }
    Err(FileError::found(Operation::Publish, copy.copy.as_bytes(), ItemCode::InTheWay).into())
}

/// `report (laptop 2026-11-20).docx`; from the second on with a number.
fn plain_name(name: &ConflictName, number: u32) -> Option<RelPath> {
    let (parent, last) = name.of.split_last();
    let at = last.iter().rposition(|&byte| byte == b'.').filter(|&at| at > 0);
    let (stem, extension) = last.split_at(at.unwrap_or(last.len()));
    let date = &name.stamp;
    let counted = if number > 1 {
        format!(" {number}")
    } else {
        String::new()
    };
    let tag = format!(
        " ({} {}-{}-{}{counted})",
        name.author,
        &date[..4],
        &date[4..6],
        &date[6..8]
    );
    let fresh = [stem, tag.as_bytes(), extension].concat();
    let bytes = match parent {
        Some(parent) => [parent, b"/", &fresh].concat(),
        None => fresh,
    };
    RelPath::parse(&bytes).ok()
}

#[cfg(test)]
#[path = "conflict_copies_tests.rs"]
mod tests;
