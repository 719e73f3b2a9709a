//! `restore`: a version becomes the present one again, and what stood there becomes a version.
//!
//! 1. The version is copied to staging, by shared blocks where the file system can. It stays where it is.
//! 2. An undo record needs what came right after it: the version, or the file itself, whose inode, length
//!    and time its name tells; or another record that was made of exactly that. A chain of records ends at
//!    a whole file, is copied from there, and the old parts are laid over it, the newest record first.
//! 3. The copy is flushed and published as any new version is, and the directories are flushed.
//!
//! Awkward cases: what came after a record was changed by another program, or is gone: then nothing
//! is changed, and the error says so. Invariant: no file but a new one in staging is ever written to.

use super::name::{Reason, Successor};
use super::slots::Keeping;
use super::walk::{Version, open_version, versions_of};
use crate::model::{Escaped, ItemCode, Meta, RelPath};
use crate::store::barrier::Barrier;
use crate::store::error::{FileError, Operation};
use crate::store::facts::FoundKind;
use crate::store::publish::{Expected, Published, publish};
use crate::store::recovery::check_record;
use crate::store::root::{Root, read_link_at};
use crate::store::source::SourceFile;
use crate::store::staged::{Sealed, StagedFile};
use crate::store::staging::Staging;
use crate::store::undo::{Inode, OldForm, RecordFault, RecordReader, Undone};
use crate::store::versions::walk::directory_of;
use rustix::fd::AsFd;
use std::fs::File;

/// Why a version cannot be restored. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// A file could not be read, written or replaced.
    #[error(transparent)]
    File(#[from] FileError),
    /// The version is an undo record, and what it was a part of is not there any more.
    #[error("that version of {} was kept as the parts that changed, and the file was changed by other means since", Escaped(.0.as_bytes()))]
    Successor(RelPath),
    /// The undo record does not hold what was written.
    #[error("that version of {} is damaged", Escaped(.0.as_bytes()))]
    Damaged(RelPath),
    /// A later version of Syncline made the undo record.
    #[error("that version of {} was kept by a newer syncline", Escaped(.0.as_bytes()))]
    Newer(RelPath),
}

/// Gives `to` the content, mode and time of `version`. What stands there is kept by `keeping`. Blocks;
/// returns when it is on the disk.
///
/// # Errors
/// A [`RestoreError`]; nothing was changed then, unless a flush failed at the very end.
pub fn restore(root: &Root, version: &Version, to: &RelPath, keeping: &Keeping<'_>) -> Result<Published, RestoreError> {
    let staging = Staging::new(root);
    let sealed = stage(root, &staging, version, to)?;
    let mut before = Barrier::new(root);
    before.add_file(&sealed);
    let flushed = |error: std::io::Error| FileError::new(Operation::Write, to, error);
    before.run().map_err(flushed)?;
    let mut after = Barrier::new(root);
    for made in root.make_parents(to)? {
        after.add_parent_of(&made);
    }
    let expected = root.probe(to)?;
    let expected = expected.map_or(Expected::Absent, |found| Expected::Present(found.identity));
    let published = publish(root, sealed, &expected, Some(keeping))?;
    after.add_parent_of(to);
    for changed in keeping.versions.take_changed() {
        after.add_private(&changed);
    }
    after.run().map_err(flushed)?;
    Ok(published)
}

impl Version {
    /// Bytes of the content that it stands for: of an undo record, the old length.
    ///
    /// # Errors
    /// A [`RestoreError`] when it is an undo record that cannot be read.
    pub fn content_bytes(&self, root: &Root) -> Result<u64, RestoreError> {
        if self.name().reason() != Reason::Changed {
            return Ok(self.found().identity.size());
        }
        let file = open(root, self)?;
        let (_, undone) = RecordReader::open(&file).map_err(|fault| record_error(self, fault))?;
        Ok(undone.old_length)
    }
}

fn stage(root: &Root, staging: &Staging, version: &Version, to: &RelPath) -> Result<Sealed, RestoreError> {
    if version.found().kind == FoundKind::Symlink {
        let failed = |errno| FileError::new(Operation::Read, version.path(), errno);
        let directory = directory_of(root, Some(version.path())).map_err(failed)?;
        let name = version.name().to_string();
        let target = read_link_at(directory.as_fd(), name.as_bytes(), version.path())?;
        return Ok(staging.symlink(to, &target, &version.found().meta)?);
    }
    if version.name().reason() != Reason::Changed {
        let source = SourceFile::of(open(root, version)?, version.path())?;
        let meta = source.meta();
        let length = source.size();
        return Ok(copy(staging, source, to)?.seal(&meta, length)?);
    }
    let chain = Chain::find(root, version)?;
    let staged = copy(staging, chain.whole, to)?;
    let mut meta = None;
    let mut length = 0;
    for (file, undone) in &chain.records {
        lay_over(&staged, file, undone).map_err(|fault| match fault {
            Laying::Record(fault) => record_error(version, fault),
            Laying::File(error) => error.into(),
        })?;
        (meta, length) = (Some(undone.meta), undone.old_length);
    }
    let meta: Meta = meta.ok_or_else(|| RestoreError::Successor(version.path().clone()))?;
    Ok(staged.seal(&meta, length)?)
}

/// A new staged file with the content of `source`.
fn copy(staging: &Staging, source: SourceFile, to: &RelPath) -> Result<StagedFile, FileError> {
    let length = source.size();
    let mut copied = staging.create_patched(to, source, length)?;
    let mut at = 0;
    while at < length {
        at += copied.copy(at, at, length - at)?;
    }
    copied.check_basis()?;
    Ok(copied.into_staged())
}

/// Undo records, the newest first, and the whole file that the newest was made of.
struct Chain {
    records: Vec<(File, Undone)>,
    whole: SourceFile,
}

impl Chain {
    fn find(root: &Root, version: &Version) -> Result<Chain, RestoreError> {
        let path = version.path();
        let mut others = versions_of(root, path)?;
        others.retain(|other| other.name() != version.name());
        let mut records = Vec::new();
        let mut current = version.clone();
        loop {
            let (file, undone) = open_record(root, &current)?;
            let lost = || RestoreError::Successor(path.clone());
            let wanted = current.name().successor().ok_or_else(lost)?;
            let (inode, new_length) = (undone.inode, undone.new_length);
            if undone.path != *path || wanted.size != new_length || wanted.inode != inode.number {
                return Err(RestoreError::Damaged(path.clone()));
            }
            records.push((file, undone));
            // By time, if the clock was right: those after the record come first.
            others.sort_by_key(|other| {
                (
                    other.name().kept_at() < current.name().kept_at(),
                    other.name().kept_at(),
                )
            });
            let fitting = others.iter().position(|other| {
                is_whole(other, &wanted) || open_record(root, other).is_ok_and(|(_, undone)| made_of(&undone, &wanted))
            });
            let next = fitting.map(|at| others.remove(at));
            let whole = match next {
                Some(next) if next.name().reason() == Reason::Changed => {
                    current = next;
                    continue;
                }
                Some(next) => SourceFile::of(open(root, &next)?, path)?,
                None => root.open_file(path).map_err(|_| lost())?,
            };
            let same_inode = Inode::of(whole.file().as_fd()).is_ok_and(|found| found.matches(&inode));
            if Successor::of(&whole.identity()) != wanted || !same_inode {
                return Err(lost());
            }
            records.reverse();
            return Ok(Chain { records, whole });
        }
    }
}

/// Whether `other` is, as a whole file, what took the place.
fn is_whole(other: &Version, wanted: &Successor) -> bool {
    other.name().reason() != Reason::Changed
        && matches!(other.found().kind, FoundKind::File { .. })
        && Successor::of(&other.found().identity) == *wanted
}

/// Whether a record was made of the file in the state `wanted`.
fn made_of(undone: &Undone, wanted: &Successor) -> bool {
    let old = Successor {
        inode: undone.inode.number,
        size: undone.old_length,
        mtime: undone.meta.mtime,
    };
    old == *wanted
}

fn open(root: &Root, version: &Version) -> Result<File, FileError> {
    let opened = open_version(root, version);
    opened
        .map(File::from)
        .map_err(|errno| FileError::new(Operation::Open, version.path(), errno))
}

/// Opens an undo record and reads all of it.
fn open_record(root: &Root, version: &Version) -> Result<(File, Undone), RestoreError> {
    if version.name().reason() != Reason::Changed {
        return Err(RestoreError::Damaged(version.path().clone()));
    }
    let file = open(root, version)?;
    if !file.metadata().is_ok_and(|found| found.is_file()) {
        return Err(RestoreError::Damaged(version.path().clone()));
    }
    let undone = check_record(&file).map_err(|fault| record_error(version, fault))?;
    Ok((file, undone))
}

fn record_error(version: &Version, fault: RecordFault) -> RestoreError {
    match fault {
        RecordFault::Damaged => RestoreError::Damaged(version.path().clone()),
        RecordFault::Version(_) => RestoreError::Newer(version.path().clone()),
        RecordFault::Disk(error) => FileError::new(Operation::Read, version.path(), error).into(),
    }
}

enum Laying {
    Record(RecordFault),
    File(FileError),
}

fn lay_over(staged: &StagedFile, record: &File, undone: &Undone) -> Result<(), Laying> {
    let (mut reader, _) = RecordReader::open(record).map_err(Laying::Record)?;
    staged.set_length(undone.old_length).map_err(Laying::File)?;
    let mut buffer = Vec::new();
    while let Some(range) = reader.next(&mut buffer).map_err(Laying::Record)? {
        if range.form == OldForm::Zeros {
            buffer.clear();
            buffer.resize(range.length, 0);
        }
        staged.write_at(range.offset, &buffer).map_err(Laying::File)?;
    }
    Ok(())
}

/// A code for what a peer or a script is told.
impl RestoreError {
    /// The code of the failure.
    #[must_use]
    pub fn code(&self) -> ItemCode {
        match self {
            RestoreError::File(error) => error.code(),
            RestoreError::Successor(_) => ItemCode::Changing,
            RestoreError::Damaged(_) | RestoreError::Newer(_) => ItemCode::Mismatch,
        }
    }
}
