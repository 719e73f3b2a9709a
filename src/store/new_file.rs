//! `NewFile`: a file that an operator named as an output, written beside its place and renamed at the end.
//!
//! Never touches what stands in the place before [`NewFile::commit`]. Invariant: whoever opens the final
//! name finds the old file or the whole new one; a value that is dropped leaves nothing behind.
//!
//! Awkward cases: a place that is a symbolic link (the file that it leads to is replaced), a device or
//! another special file (refused: it would be replaced by a plain one), stretches of zeros (holes).

use super::error::{FileError, Operation};
use crate::model::ItemCode;
use rustix::fs::{CWD, RenameFlags, fstatvfs, renameat_with};
use rustix::io::Errno;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// An output that is not in its place yet.
#[derive(Debug)]
pub struct NewFile {
    file: File,
    /// Empty when it is in its place.
    temporary: PathBuf,
    target: PathBuf,
    existing: Existing,
    mode: Option<u32>,
    written: u64,
}

/// What to do with a file that stands in the place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// It is replaced.
    Replace,
    /// It stays, and the new file is refused.
    Keep,
}

/// Zeros of at least so many bytes at once become a hole.
const HOLE_BYTES_MIN: usize = 64 * 1024;

impl NewFile {
    /// A file for `target`, with the mode of what it replaces, else as the umask says.
    ///
    /// # Errors
    /// [`ItemCode::InTheWay`] when something stands there that is to be kept, [`ItemCode::Special`] when it
    /// is no regular file; or the directory is absent or not writable.
    pub fn create(target: &Path, existing: Existing) -> Result<NewFile, FileError> {
        let failed = |error: io::Error| FileError::at_path(Operation::Write, target, error);
        let found = |code| FileError::found(Operation::Write, target.as_os_str().as_encoded_bytes(), code);
        let (target, mode) = match fs::canonicalize(target) {
            Ok(real) => {
                let metadata = fs::metadata(&real).map_err(failed)?;
                if !metadata.is_file() {
                    return Err(found(ItemCode::Special));
                }
                if existing == Existing::Keep {
                    return Err(found(ItemCode::InTheWay));
                }
                (real, Some(metadata.permissions().mode() & 0o777))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => (target.to_owned(), None),
            Err(error) => return Err(failed(error)),
        };
        let name = target
            .file_name()
            .ok_or_else(|| failed(io::ErrorKind::InvalidFilename.into()))?;
        // The start of the name is enough to know it by, and leaves room for the rest.
        let start = &name.as_encoded_bytes()[..name.len().min(100)];
        let temporary = format!(
            ".{}.{:016x}.part",
            String::from_utf8_lossy(start),
            random().map_err(failed)?
        );
        let temporary = target.with_file_name(temporary);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true);
        if mode.is_some() {
            options.mode(0o600);
        }
        Ok(NewFile {
            file: options.open(&temporary).map_err(failed)?,
            temporary,
            target,
            existing,
            mode,
            written: 0,
        })
    }

    /// Whether `bytes` find room where it is.
    ///
    /// # Errors
    /// [`ItemCode::DiskFull`] when they do not.
    pub fn check_room(&self, bytes: u64) -> Result<(), FileError> {
        let room = fstatvfs(&self.file).map_err(|errno| self.failed(errno.into()))?;
        if room.f_bavail.saturating_mul(room.f_frsize) < bytes {
            return Err(self.failed(Errno::NOSPC.into()));
        }
        Ok(())
    }

    /// Makes it durable and puts it in its place.
    ///
    /// # Errors
    /// When something has appeared there that is to be kept, or the disk fails; nothing has changed then.
    pub fn commit(mut self) -> Result<(), FileError> {
        self.publish().map_err(|error| self.failed(error))?;
        self.temporary = PathBuf::new();
        let parent = self.target.parent().filter(|parent| !parent.as_os_str().is_empty());
        // The name is a convenience: a directory that cannot be flushed is no reason to fail now.
        let _ = File::open(parent.unwrap_or(Path::new("."))).and_then(|directory| directory.sync_all());
        Ok(())
    }

    fn publish(&self) -> io::Result<()> {
        self.file.set_len(self.written)?;
        if let Some(mode) = self.mode {
            self.file.set_permissions(Permissions::from_mode(mode))?;
        }
        self.file.sync_all()?;
        if self.existing == Existing::Replace {
            return fs::rename(&self.temporary, &self.target);
        }
        match renameat_with(CWD, &self.temporary, CWD, &self.target, RenameFlags::NOREPLACE) {
            Err(Errno::INVAL | Errno::NOSYS) if fs::symlink_metadata(&self.target).is_err() => {
                fs::rename(&self.temporary, &self.target)
            }
            other => Ok(other?),
        }
    }

    fn failed(&self, error: io::Error) -> FileError {
        FileError::at_path(Operation::Write, &self.target, error)
    }
}

impl Write for NewFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Short of the end: `publish` sets the length.
        if bytes.len() < HOLE_BYTES_MIN || bytes.iter().any(|byte| *byte != 0) {
            self.file.write_all_at(bytes, self.written)?;
        }
        self.written += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.temporary.as_os_str().is_empty() {
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

/// A file without a name, for what does not fit into memory; its room is free again when it is closed.
///
/// # Errors
/// When the directory for temporary files cannot be written to.
pub fn scratch_file() -> Result<File, FileError> {
    let directory = std::env::temp_dir();
    let failed = |error: io::Error| FileError::at_path(Operation::Write, &directory, error);
    let path = directory.join(format!("syncline-{:016x}", random().map_err(failed)?));
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create_new(true).mode(0o600).open(&path);
    let file = file.map_err(failed)?;
    fs::remove_file(&path).map_err(failed)?;
    Ok(file)
}

fn random() -> io::Result<u64> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(u64::from_ne_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, symlink};

    fn names(directory: &Path) -> usize {
        fs::read_dir(directory).unwrap().count()
    }

    // Protects what stands in the place: it is whole before and after, kept unless told, and special
    // files are never replaced.
    #[test]
    fn an_output_appears_whole_or_not_at_all() {
        let place = tempfile::tempdir().unwrap();
        let target = place.path().join("out");
        let mut dropped = NewFile::create(&target, Existing::Keep).unwrap();
        dropped.write_all(b"half").unwrap();
        drop(dropped);
        assert_eq!(names(place.path()), 0);
        let mut first = NewFile::create(&target, Existing::Keep).unwrap();
        let late = NewFile::create(&target, Existing::Keep).unwrap();
        first.write_all(b"whole").unwrap();
        first.commit().unwrap();
        assert_eq!(late.commit().unwrap_err().code(), ItemCode::InTheWay);
        let kept = NewFile::create(&target, Existing::Keep).unwrap_err();
        assert_eq!(kept.code(), ItemCode::InTheWay);
        fs::set_permissions(&target, Permissions::from_mode(0o640)).unwrap();
        let link = place.path().join("link");
        symlink("out", &link).unwrap();
        let mut replaced = NewFile::create(&link, Existing::Replace).unwrap();
        replaced.write_all(b"new").unwrap();
        replaced.commit().unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"new");
        assert_eq!(fs::metadata(&target).unwrap().permissions().mode() & 0o777, 0o640);
        assert!(link.is_symlink() && names(place.path()) == 2);
        for special in [Path::new("/dev/null"), place.path()] {
            let refused = NewFile::create(special, Existing::Replace).unwrap_err();
            assert_eq!(refused.code(), ItemCode::Special);
        }
    }

    // Protects the disk: what is zero in the old file does not take room in the new one.
    #[test]
    fn zeros_become_holes_and_the_length_is_kept() {
        let place = tempfile::tempdir().unwrap();
        let target = place.path().join("out");
        let mut file = NewFile::create(&target, Existing::Keep).unwrap();
        file.write_all(b"x").unwrap();
        for _ in 0..64 {
            file.write_all(&[0; 1 << 20]).unwrap();
        }
        assert!(file.check_room(u64::MAX).is_err() && file.check_room(1).is_ok());
        file.commit().unwrap();
        let found = fs::metadata(&target).unwrap();
        assert_eq!(found.len(), 1 + (64 << 20));
        assert!(found.blocks() * 512 < 1 << 20);
    }
}
