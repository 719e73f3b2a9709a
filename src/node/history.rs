//! `History`: the versions that are kept of a share, for commands on the machine that has it.
//!
//! Works beside a server that serves the share: nothing here needs its lock. Finds the share of a path,
//! lists what is kept, gets a version back, empties the trash. Never follows a link below the share.
//! Invariant: what a restoring replaces is kept before the restored version takes its place.

use crate::model::{Escaped, PathError, RelPath, system_reason};
use crate::store::{
    Author, FileError, FoundKind, Keeping, KeptAt, Published, Reason, RestoreError, Root, Stay, Tidied, Version,
    VersionWalk, Versions, owned_directories, restore, versions_of,
};
use std::collections::BTreeMap;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

/// The versions of one share.
#[derive(Debug)]
pub struct History {
    pub(super) root: Root,
}

/// Why a version cannot be found, or not be brought back.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// No directory above the path has anything of Syncline's in it.
    #[error("{} is in no folder that was served", Escaped(.0.as_os_str().as_bytes()))]
    NoShare(PathBuf),
    /// The path cannot be one of a share.
    #[error("{} cannot be in a share: {reason}", Escaped(path.as_os_str().as_bytes()))]
    Path {
        /// As it was given.
        path: PathBuf,
        /// Why.
        reason: PathError,
    },
    /// The path cannot be looked at.
    #[error("cannot look at {}: {}", Escaped(path.as_os_str().as_bytes()), system_reason(source))]
    Unreadable {
        /// As it was given.
        path: PathBuf,
        /// From the system.
        source: io::Error,
    },
    /// Nothing is kept of it.
    #[error("no version is kept of {}", Escaped(.0.as_bytes()))]
    NoVersion(RelPath),
    /// No version has this id.
    #[error("{} has no version {}", Escaped(path.as_bytes()), Escaped(id.as_bytes()))]
    UnknownVersion {
        /// The file.
        path: RelPath,
        /// As it was asked for.
        id: String,
    },
    /// More than one version has an id that begins so.
    #[error("{} has more than one version {}", Escaped(path.as_bytes()), Escaped(id.as_bytes()))]
    AmbiguousVersion {
        /// The file.
        path: RelPath,
        /// As it was asked for.
        id: String,
    },
    /// A directory cannot be a version.
    #[error("{} is a directory", Escaped(.0.as_bytes()))]
    Directory(RelPath),
    /// A version cannot be brought back.
    #[error(transparent)]
    Restore(#[from] RestoreError),
    /// A file could not be read or removed.
    #[error(transparent)]
    File(#[from] FileError),
}

/// A file that was deleted and is not there.
#[derive(Debug, Clone)]
pub struct Deleted {
    /// Its last version.
    pub version: Version,
    /// Bytes that all of its versions take on the disk.
    pub disk_bytes: u64,
}

/// Fewer characters are more likely a slip than the beginning of an id.
const ID_CHARS_MIN: usize = 4;

impl History {
    /// Finds the share that `path` is in, by the `.syncline` of a directory above it, or of itself, and the
    /// path within the share; `None` is the share itself. What is below the share need not exist.
    ///
    /// # Errors
    /// When there is none, or it cannot be read.
    pub fn find(path: &Path) -> Result<(History, Option<RelPath>), HistoryError> {
        let real = resolve(path).map_err(|source| HistoryError::Unreadable {
            path: path.to_owned(),
            source,
        })?;
        let has_ours = |directory: &&Path| directory.join(RelPath::RESERVED).is_dir();
        let top = real.ancestors().find(has_ours);
        let top = top.ok_or_else(|| HistoryError::NoShare(path.to_owned()))?;
        let below = real.strip_prefix(top).unwrap_or(Path::new(""));
        let below = match below.as_os_str().as_bytes() {
            b"" => None,
            bytes => Some(RelPath::parse(bytes).map_err(|reason| HistoryError::Path {
                path: path.to_owned(),
                reason,
            })?),
        };
        let root = Root::open(top)?;
        Ok((History { root }, below))
    }

    /// The share's directory.
    #[must_use]
    pub fn share(&self) -> &Path {
        self.root.path()
    }

    /// The places that devices have of their own in the share, by their directories.
    ///
    /// # Errors
    /// When the share cannot be listed.
    pub fn places(&self) -> Result<Vec<(RelPath, History)>, HistoryError> {
        let mut places = Vec::new();
        for (name, _) in owned_directories(&self.root)? {
            let root = self.root.enter(&name)?;
            places.push((name, History { root }));
        }
        Ok(places)
    }

    /// The path within this same share of another path; `None` when it is elsewhere.
    ///
    /// # Errors
    /// As [`History::find`].
    pub fn within(&self, path: &Path) -> Result<Option<RelPath>, HistoryError> {
        let (other, below) = History::find(path)?;
        Ok(below.filter(|_| other.share() == self.share()))
    }

    /// What is kept of `path` and of everything below it, by path, the oldest first.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn versions(&self, path: Option<&RelPath>) -> Result<Vec<Version>, HistoryError> {
        let mut found = Vec::new();
        VersionWalk::looking(&self.root, path)?.finish(&mut |version| {
            found.push(version);
            Stay::Yes
        })?;
        found.sort_by(|one, other| (one.path(), one.name().kept_at()).cmp(&(other.path(), other.name().kept_at())));
        Ok(found)
    }

    /// Bytes of the content that `version` stands for; `None` when its record cannot be read.
    #[must_use]
    pub fn content_bytes(&self, version: &Version) -> Option<u64> {
        version.content_bytes(&self.root).ok()
    }

    /// Whether something stands at `path` now.
    ///
    /// # Errors
    /// When it cannot be looked at.
    pub fn exists(&self, path: &RelPath) -> Result<bool, HistoryError> {
        Ok(self.root.probe(path)?.is_some())
    }

    /// The version of `path` whose id begins with `id` (or which has that name), else the latest.
    ///
    /// # Errors
    /// [`HistoryError::NoVersion`], [`HistoryError::UnknownVersion`],
    /// [`HistoryError::AmbiguousVersion`]; or it cannot be read.
    pub fn choose(&self, path: &RelPath, id: Option<&str>) -> Result<Version, HistoryError> {
        let mut versions = versions_of(&self.root, path)?;
        let Some(latest) = versions.pop() else {
            return Err(HistoryError::NoVersion(path.clone()));
        };
        let Some(id) = id else { return Ok(latest) };
        versions.push(latest);
        let wanted = id.to_ascii_lowercase();
        let fits = |version: &Version| {
            let begins = wanted.len() >= ID_CHARS_MIN && version.name().id().starts_with(&wanted);
            begins || version.name().to_string() == id
        };
        versions.retain(fits);
        let (path, id) = (path.clone(), id.to_owned());
        match versions.pop() {
            None => Err(HistoryError::UnknownVersion { path, id }),
            Some(_) if !versions.is_empty() => Err(HistoryError::AmbiguousVersion { path, id }),
            Some(version) => Ok(version),
        }
    }

    /// Gives `to` what `version` holds, as a new version. What stands there is kept. Returns when it is on
    /// the disk.
    ///
    /// # Errors
    /// [`HistoryError::Restore`]; nothing was changed then.
    pub fn restore(&self, version: &Version, to: &RelPath) -> Result<Published, HistoryError> {
        if let Some(found) = self.root.probe(to)?
            && found.kind == FoundKind::Directory
            && !self.root.is_empty_directory(to)?
        {
            return Err(HistoryError::Directory(to.clone()));
        }
        let versions = Versions::new(&self.root);
        let keeping = Keeping {
            versions: &versions,
            author: Author::Local,
        };
        Ok(restore(&self.root, version, to, &keeping)?)
    }

    /// What was deleted, of `path` and everything below it, and is not there now; the latest first.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn deleted(&self, path: Option<&RelPath>) -> Result<Vec<Deleted>, HistoryError> {
        let mut last: BTreeMap<RelPath, Deleted> = BTreeMap::new();
        for version in self.versions(path)? {
            let disk_bytes = version.disk_bytes();
            let before = last.get(version.path()).map_or(0, |deleted| deleted.disk_bytes);
            let path = version.path().clone();
            // They come by time: the last one stays.
            last.insert(
                path,
                Deleted {
                    version,
                    disk_bytes: before + disk_bytes,
                },
            );
        }
        let mut deleted: Vec<Deleted> = last
            .into_values()
            .filter(|deleted| deleted.version.name().reason() == Reason::Deleted)
            .filter(|deleted| matches!(self.root.probe(deleted.version.path()), Ok(None)))
            .collect();
        deleted.sort_by_key(|deleted| std::cmp::Reverse(deleted.version.name().kept_at()));
        Ok(deleted)
    }

    /// Removes all versions of what [`History::deleted`] tells, as far as it was deleted before
    /// `older_than` ago.
    ///
    /// # Errors
    /// When something cannot be read or removed; everything else is removed.
    pub fn empty_trash(&self, path: Option<&RelPath>, older_than: Duration) -> Result<Tidied, HistoryError> {
        let mut doomed: BTreeMap<RelPath, KeptAt> = BTreeMap::new();
        for Deleted { version, .. } in self.deleted(path)? {
            if version.is_older_than(older_than) {
                doomed.insert(version.path().clone(), version.name().kept_at());
            }
        }
        let mut tidied = Tidied::default();
        VersionWalk::removing(&self.root, path)?.finish(&mut |version| {
            // What came in since the look is not what was to be removed.
            match doomed.get(version.path()) {
                Some(last) if version.name().kept_at() <= *last => {
                    tidied.versions += 1;
                    tidied.bytes += version.disk_bytes();
                    Stay::No
                }
                _ => Stay::Yes,
            }
        })?;
        Ok(tidied)
    }
}

/// An absolute path without `.`, `..` and links, but for its last component, which may be a link. What
/// does not exist is taken as it is written.
pub(super) fn resolve(path: &Path) -> io::Result<PathBuf> {
    let absolute = std::path::absolute(path)?;
    if let (Some(Component::Normal(name)), Some(parent)) = (absolute.components().next_back(), absolute.parent()) {
        let mut missing = vec![name.to_owned()];
        let mut present = parent;
        loop {
            match present.canonicalize() {
                Ok(mut real) => {
                    real.extend(missing.iter().rev());
                    return Ok(real);
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                // A file stands where there was a directory.
                Err(error) if error.kind() == io::ErrorKind::NotADirectory => {}
                Err(error) => return Err(error),
            }
            match (present.components().next_back(), present.parent()) {
                (Some(Component::Normal(name)), Some(above)) => {
                    missing.push(name.to_owned());
                    present = above;
                }
                _ => break,
            }
        }
    }
    absolute.canonicalize()
}
