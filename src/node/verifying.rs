//! Checking large files beside the loop: the helper thread hashes what the loop has written.
//!
//! 1. The loop writes content as it comes, without hashing it.
//! 2. Each complete chunk (a whole subtree of the content tree) becomes a check: a stateless job that
//!    maps the chunk of the staged file and gives back its subtree root. Checks in flight are few;
//!    when the helper is behind, the loop does a check itself.
//! 3. When the file has ended and all checks are back, the roots and the rest make the content id.
//!
//! Why: on one core a receiver copies from the socket, copies to the page cache and hashes, and the
//! hash is a third of that. It is also the only part that can be taken out of order. What is checked
//! is what lies in the file, not what came over the wire. Small files are hashed on the loop.
//! Invariant: [`Verifying::finish`] gives a root only when every byte of the file went into it.

use crate::delta::{TreeHasher, content_id};
use crate::store::{StagedFile, Window};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// Bytes of a chunk: a subtree of 256 leaves, 1 to 2 ms of hashing.
const CHUNK_BYTES: u64 = 4 << 20;
/// Height of a chunk's subtree.
const CHUNK_HEIGHT: u32 = 8;
/// Files from this size on are checked beside the loop.
pub(crate) const BESIDE_BYTES_MIN: u64 = 2 * CHUNK_BYTES;

/// The checks of one file.
#[derive(Debug)]
pub(crate) struct Verifying {
    serial: u64,
    file: Arc<File>,
    roots: Vec<Option<[u8; 32]>>,
    missing: usize,
    failed: bool,
}

/// One chunk to check; stateless, for any thread.
#[derive(Debug)]
pub(crate) struct ChunkCheck {
    file: Arc<File>,
    pub(crate) place: ChunkPlace,
}

/// Which chunk of which file a result belongs to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ChunkPlace {
    /// Which arrival of which file; a file that comes again has another.
    pub(crate) serial: u64,
    index: usize,
}

impl ChunkCheck {
    /// The root of the chunk's subtree; `None` when it cannot be read.
    pub(crate) fn run(&self) -> Option<[u8; 32]> {
        let offset = self.place.index as u64 * CHUNK_BYTES;
        read_and(&self.file, offset, CHUNK_BYTES as usize, |bytes| content_id(bytes).root)
            .inspect_err(|error| log::error!("cannot read back what was received: {error}"))
            .ok()
    }
}

/// Maps a part of a staged file, or reads it where there are no mappings left.
fn read_and<T>(file: &File, offset: u64, length: usize, use_it: impl FnOnce(&[u8]) -> T) -> io::Result<T> {
    if length == 0 {
        return Ok(use_it(&[]));
    }
    if let Ok(window) = Window::open(file, offset, length) {
        return Ok(use_it(window.as_ref()));
    }
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, offset)?;
    Ok(use_it(&bytes))
}

impl Verifying {
    pub(crate) fn new(staged: &StagedFile, serial: u64) -> io::Result<Verifying> {
        let file = Arc::new(staged.file().try_clone()?);
        Ok(Verifying {
            serial,
            file,
            roots: Vec::new(),
            missing: 0,
            failed: false,
        })
    }

    pub(crate) fn serial(&self) -> u64 {
        self.serial
    }

    /// The next chunk that is complete now that `length` bytes are written.
    pub(crate) fn next_check(&mut self, length: u64) -> Option<ChunkCheck> {
        let index = self.roots.len();
        if length < (index as u64 + 1) * CHUNK_BYTES {
            return None;
        }
        self.roots.push(None);
        self.missing += 1;
        let place = ChunkPlace {
            serial: self.serial,
            index,
        };
        let file = Arc::clone(&self.file);
        Some(ChunkCheck { file, place })
    }

    /// A check came back.
    pub(crate) fn checked(&mut self, place: ChunkPlace, root: Option<[u8; 32]>) {
        debug_assert!(self.missing > 0 && self.roots[place.index].is_none());
        self.missing -= 1;
        self.failed |= root.is_none();
        self.roots[place.index] = root;
    }

    /// Whether every check has come back.
    pub(crate) fn is_complete(&self) -> bool {
        self.missing == 0
    }

    /// The root of all `length` bytes; `None` when a part could not be read.
    pub(crate) fn finish(self, length: u64) -> Option<[u8; 32]> {
        if self.failed || !self.is_complete() {
            return None;
        }
        let mut hasher = TreeHasher::new();
        let offset = self.roots.len() as u64 * CHUNK_BYTES;
        for root in self.roots {
            hasher.append_subtree(CHUNK_HEIGHT, root?);
        }
        let rest = usize::try_from(length.checked_sub(offset)?).ok()?;
        debug_assert!((rest as u64) < CHUNK_BYTES);
        read_and(&self.file, offset, rest, |bytes| hasher.update(bytes)).ok()?;
        Some(hasher.finish().root)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::RelPath;
    use crate::store::{Room, Root, Staging};

    /// Checked in chunks, in any order of the results, the root is that of the whole content.
    #[test]
    fn chunks_and_rest_make_the_root_of_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        let staging = Staging::new(&root);
        for length in [CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES, 3 * CHUNK_BYTES + 70_001] {
            let content: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
            let staged = staging
                .create(&RelPath::parse(b"f").unwrap(), Room::Reserve(length))
                .unwrap();
            let mut verifying = Verifying::new(&staged, 7).unwrap();
            let mut checks = Vec::new();
            for (at, part) in content.chunks(100_000).enumerate() {
                staged.write_at(at as u64 * 100_000, part).unwrap();
                checks.extend(verifying.next_check((at * 100_000 + part.len()) as u64));
            }
            assert_eq!(checks.len() as u64, length / CHUNK_BYTES);
            for check in checks.iter().rev() {
                assert!(!verifying.is_complete());
                verifying.checked(check.place, check.run());
            }
            assert_eq!(verifying.finish(length), Some(content_id(&content).root));
        }
    }

    /// A chunk that cannot be read never ends in a root.
    #[test]
    fn an_unreadable_chunk_gives_no_root() {
        let dir = tempfile::tempdir().unwrap();
        let staging = Staging::new(&Root::open(dir.path()).unwrap());
        let staged = staging.create(&RelPath::parse(b"f").unwrap(), Room::Sparse).unwrap();
        let mut verifying = Verifying::new(&staged, 1).unwrap();
        let check = verifying.next_check(CHUNK_BYTES).unwrap();
        assert_eq!(verifying.next_check(CHUNK_BYTES).map(|check| check.place.index), None);
        verifying.checked(check.place, None);
        assert_eq!(verifying.finish(CHUNK_BYTES), None);
    }
}
