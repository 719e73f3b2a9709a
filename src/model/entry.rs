//! An entry of a tree: path, kind, and the metadata that Syncline carries.

use super::RelPath;

/// One file, directory or symbolic link of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where it is, relative to the root of the transfer.
    pub path: RelPath,
    /// What it is.
    pub kind: Kind,
    /// Permission bits and modification time.
    pub meta: Meta,
}

impl Entry {
    /// Bytes of its path and link target: what it weighs in [`OFFER_WINDOW_BYTES`].
    ///
    /// [`OFFER_WINDOW_BYTES`]: super::limits::OFFER_WINDOW_BYTES
    #[must_use]
    pub fn weight(&self) -> usize {
        let target = match &self.kind {
            Kind::Symlink { target } => target.len(),
            Kind::File { .. } | Kind::Directory => 0,
        };
        self.path.as_bytes().len() + target
    }
}

/// What an entry is. Special files (FIFOs, sockets, devices) have no kind: they are skipped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A regular file of `size` bytes.
    File {
        /// Length in bytes.
        size: u64,
    },
    /// A directory.
    Directory,
    /// A symbolic link; the target is carried as it stands and never followed.
    Symlink {
        /// The link's text.
        target: Box<[u8]>,
    },
}

/// The metadata that travels with an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meta {
    /// Permission bits, masked to 0o777: set-id and sticky bits never travel.
    pub mode: u32,
    /// Modification time.
    pub mtime: Timestamp,
}

/// A point of wall-clock time as file systems store it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    /// Seconds since 1970, may be negative.
    pub seconds: i64,
    /// Nanoseconds within the second, below 1,000,000,000.
    pub nanos: u32,
}

impl Meta {
    /// The bits of a mode that travel.
    pub const MODE_MASK: u32 = 0o777;
}
