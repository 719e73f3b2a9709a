//! `SourceFile`: a regular file that is open for reading, with the state it had when it was opened.
//!
//! Never writes, never maps (that is `map`). Invariant: `unchanged` is true only as long as size,
//! times and inode are those at opening, so that mixed content can be told and thrown away.

use super::error::{FileError, Operation};
use super::facts::{Found, FoundKind, Identity};
use crate::model::{ItemCode, Meta, RelPath};
use rustix::fd::BorrowedFd;
use rustix::fs::{Mode, OFlags, SeekFrom, Stat, fstat, openat, seek};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// A regular file, open for reading.
#[derive(Debug)]
pub struct SourceFile {
    file: Arc<File>,
    path: RelPath,
    found: Found,
    size: u64,
    layout: Layout,
}

/// What comes next in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// Bytes to read.
    Data {
        /// How many, from the offset that was asked for.
        length: u64,
    },
    /// Zeros that take no room on the disk.
    Hole {
        /// How many, from the offset that was asked for.
        length: u64,
    },
    /// The offset is at or past the end.
    End,
}

/// Whether it is worth asking the file system for holes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    Full,
    Sparse,
}

impl SourceFile {
    pub(super) fn open_at(parent: BorrowedFd<'_>, name: &[u8], path: &RelPath) -> Result<SourceFile, FileError> {
        // NONBLOCK: a FIFO without a writer would hold the loop for ever.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let opened =
            openat(parent, name, flags, Mode::empty()).map_err(|errno| FileError::new(Operation::Open, path, errno))?;
        SourceFile::of(File::from(opened), path)
    }

    /// What is open already.
    pub(super) fn of(file: File, path: &RelPath) -> Result<SourceFile, FileError> {
        let stat = fstat(&file).map_err(|errno| FileError::new(Operation::Examine, path, errno))?;
        let found = Found::of(&stat);
        let size = match found.kind {
            FoundKind::File { size } => size,
            FoundKind::Directory => {
                return Err(FileError::found(Operation::Open, path.as_bytes(), ItemCode::InTheWay));
            }
            FoundKind::Symlink | FoundKind::Special => {
                return Err(FileError::found(Operation::Open, path.as_bytes(), ItemCode::Special));
            }
        };
        Ok(SourceFile {
            file: Arc::new(file),
            path: path.clone(),
            found,
            size,
            layout: layout_of(&stat),
        })
    }

    /// Whether it takes less room on the disk than its length: it has holes (or is compressed).
    #[must_use]
    pub fn is_sparse(&self) -> bool {
        self.layout == Layout::Sparse
    }

    /// Length in bytes when it was opened.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Mode and modification time when it was opened.
    #[must_use]
    pub fn meta(&self) -> Meta {
        self.found.meta
    }

    /// Its state when it was opened.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.found.identity
    }

    /// The open file, for mapping.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// The open file, for whoever keeps it longer than this.
    #[must_use]
    pub fn shared_file(&self) -> Arc<File> {
        Arc::clone(&self.file)
    }

    /// The same open file once more, with the state that it had when it was opened first.
    #[must_use]
    pub fn share(&self) -> SourceFile {
        SourceFile {
            file: self.shared_file(),
            path: self.path.clone(),
            found: self.found,
            size: self.size,
            layout: self.layout,
        }
    }

    /// Whether size, times and inode are still those at opening.
    ///
    /// # Errors
    /// When it cannot be examined.
    pub fn unchanged(&self) -> Result<bool, FileError> {
        let stat = fstat(&self.file).map_err(|errno| FileError::new(Operation::Examine, &self.path, errno))?;
        Ok(Found::of(&stat).identity == self.found.identity)
    }

    /// Fills `buffer` from `offset`, as far as the file goes.
    ///
    /// # Returns
    /// The bytes read: less than the buffer's length only at the end of the file.
    ///
    /// # Errors
    /// When the disk does not give the bytes.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, FileError> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.file.read_at(&mut buffer[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(FileError::new(Operation::Read, &self.path, error)),
            }
        }
        Ok(filled)
    }

    /// What comes at `offset`: data or a hole, as far as it goes, within the size at opening.
    ///
    /// # Errors
    /// When the file system fails to tell; one that knows no holes is not an error.
    pub fn next_extent(&self, offset: u64) -> Result<Extent, FileError> {
        if offset >= self.size {
            return Ok(Extent::End);
        }
        let rest = self.size - offset;
        if self.layout == Layout::Full {
            return Ok(Extent::Data { length: rest });
        }
        match self.find(SeekFrom::Data(offset))? {
            Some(data) if data > offset => Ok(Extent::Hole {
                length: rest.min(data - offset),
            }),
            Some(_) => {
                let hole = self.find(SeekFrom::Hole(offset))?.unwrap_or(self.size);
                // A hole that was punched at `offset` since the first call: let the reader see zeros.
                let length = if hole > offset { hole - offset } else { rest };
                Ok(Extent::Data {
                    length: rest.min(length),
                })
            }
            None => Ok(Extent::Hole { length: rest }),
        }
    }

    /// The offset that `target` finds; `None` past the last one. All other reads are positioned, so
    /// moving the descriptor's own offset disturbs nobody.
    fn find(&self, target: SeekFrom) -> Result<Option<u64>, FileError> {
        match seek(&self.file, target) {
            Ok(found) => Ok(Some(found)),
            Err(Errno::NXIO) => Ok(None),
            Err(Errno::INVAL | Errno::OPNOTSUPP) => Ok(match target {
                SeekFrom::Data(offset) => Some(offset),
                _ => Some(self.size),
            }),
            Err(errno) => Err(FileError::new(Operation::Read, &self.path, errno)),
        }
    }
}

/// `st_blocks` counts 512 bytes each, whatever the file system's own block (POSIX).
fn layout_of(stat: &Stat) -> Layout {
    let stored = u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512);
    if stored < u64::try_from(stat.st_size).unwrap_or(0) {
        Layout::Sparse
    } else {
        Layout::Full
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Root;
    use rustix::fs::{CWD, FileType, mknodat};
    use std::os::unix::fs::symlink;

    fn open(dir: &std::path::Path, name: &str) -> Result<SourceFile, FileError> {
        Root::open(dir)
            .unwrap()
            .open_file(&RelPath::parse(name.as_bytes()).unwrap())
    }

    /// Row 6 of the threats: nothing that is not a file is opened, and nothing hangs.
    #[test]
    fn only_regular_files_open_and_a_fifo_does_not_hang() {
        let dir = tempfile::tempdir().unwrap();
        mknodat(CWD, dir.path().join("pipe"), FileType::Fifo, Mode::RWXU, 0).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("socket")).unwrap();
        symlink("pipe", dir.path().join("link")).unwrap();
        std::fs::create_dir(dir.path().join("dir")).unwrap();
        assert_eq!(open(dir.path(), "pipe").unwrap_err().code(), ItemCode::Special);
        assert_eq!(open(dir.path(), "socket").unwrap_err().code(), ItemCode::Special);
        assert_eq!(open(dir.path(), "link").unwrap_err().code(), ItemCode::Escapes);
        assert_eq!(open(dir.path(), "dir").unwrap_err().code(), ItemCode::InTheWay);
        assert_eq!(open(dir.path(), "none").unwrap_err().code(), ItemCode::Vanished);
    }

    /// Row 53: a file that is edited while it is read can be told.
    #[test]
    fn a_change_after_opening_shows() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, b"before").unwrap();
        let source = open(dir.path(), "f").unwrap();
        assert!(source.unchanged().unwrap());
        let writer = File::options().append(true).open(&path).unwrap();
        writer.write_all_at(b"!", 6).unwrap();
        assert!(!source.unchanged().unwrap());
        assert_eq!(source.size(), 6);
    }

    #[test]
    fn reads_end_at_the_end_of_the_file() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("f"), b"0123456789").unwrap();
        let source = open(dir.path(), "f").unwrap();
        let mut buffer = [0; 8];
        assert_eq!(source.read_at(0, &mut buffer).unwrap(), 8);
        assert_eq!(source.read_at(8, &mut buffer).unwrap(), 2);
        assert_eq!(&buffer[..2], b"89");
        assert_eq!(source.read_at(10, &mut buffer).unwrap(), 0);
        assert_eq!(source.next_extent(0).unwrap(), Extent::Data { length: 10 });
        assert_eq!(source.next_extent(4).unwrap(), Extent::Data { length: 6 });
        assert_eq!(source.next_extent(10).unwrap(), Extent::End);
    }

    /// A sparse file is read as it lies on the disk, past 4 GiB too.
    #[test]
    fn extents_cover_a_sparse_file_without_gap_or_overlap() {
        let dir = tempfile::tempdir().unwrap();
        let file = File::create(dir.path().join("f")).unwrap();
        let far = 5 << 30;
        file.write_all_at(&[1; 65_536], 1 << 20).unwrap();
        file.write_all_at(&[2; 65_536], far).unwrap();
        file.set_len(far + (1 << 20)).unwrap();
        file.sync_all().unwrap();
        let source = open(dir.path(), "f").unwrap();
        let (mut offset, mut data, mut holes) = (0, 0, 0);
        loop {
            match source.next_extent(offset).unwrap() {
                Extent::Data { length } => {
                    data += length;
                    offset += length;
                }
                Extent::Hole { length } => {
                    holes += 1;
                    offset += length;
                }
                Extent::End => break,
            }
        }
        assert_eq!(offset, source.size());
        assert_eq!((data, holes), (131_072, 3));
        let mut byte = [0];
        source.read_at(far, &mut byte).unwrap();
        assert_eq!(byte, [2]);
    }
}
