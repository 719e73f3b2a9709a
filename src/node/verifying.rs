//! Hashing large files beside the loop: the helper thread indexes what the loop moves.
//!
//! 1. The loop writes (or sends) content without hashing it.
//! 2. Each complete chunk (a whole subtree of the content tree) becomes a check: a stateless job that
//!    maps the chunk of the file and gives back its subtree root and its part of the delta index.
//!    Checks in flight are few; when the helper is behind, the loop does a check itself.
//! 3. When the file has ended and all checks are back, the roots and the rest make the content id.
//!
//! Why: on one core a receiver copies from the socket, copies to the page cache and hashes, and the
//! hash is a third of that. It is also the only part that can be taken out of order. What is checked
//! is what lies in the file, not what came over the wire. Small files are hashed on the loop.
//! Invariant: [`Verifying::finish`] gives an id only when every byte of the file went into it, but for
//! the leaves that a patch left where they were.

use crate::delta::TreeHasher;
use crate::delta::index::{CHUNK_BYTES, ChunkIndex, Parts, leaves_of};
use crate::model::ContentId;
use crate::model::limits::LEAF_BYTES;
use crate::store::{Laid, SidecarWriter, Window};
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// Files from this size on are checked beside the loop.
pub(crate) const BESIDE_BYTES_MIN: u64 = 2 * CHUNK_BYTES as u64;
/// Bytes before a chunk that its index depends on.
const CONTEXT_BYTES: usize = 64;

/// The checks of one file.
#[derive(Debug)]
pub(crate) struct Verifying {
    serial: u64,
    file: Arc<File>,
    /// Everything before the first chunk whose check is out.
    hasher: TreeHasher,
    /// Where the checks begin: before it, everything was known already.
    start: u64,
    /// Chunks before `next` that are not in the hasher yet.
    pieces: VecDeque<Option<Piece>>,
    /// The next chunk to be checked.
    next: usize,
    missing: usize,
    failed: bool,
    /// Where the parts of the index go, if it is kept.
    sidecar: Option<SidecarWriter>,
    /// Bytes since the file was flushed last; `None` when it is not flushed on its way.
    unflushed: Option<u64>,
    /// So many of them are flushed.
    flush_bytes: u64,
}

/// What a check makes of a chunk.
#[derive(Debug, Clone)]
pub(crate) enum Task {
    /// Nothing: it only flushes.
    Flush,
    /// The leaves.
    Leaves,
    /// The leaves; of some the hash is known, because they are where they were in the basis.
    Patched(Vec<Option<[u8; 32]>>),
    /// The same for a file that is to be changed in place; `None` when that cannot be read.
    Laid(Vec<Option<[u8; 32]>>, Option<Arc<Laid>>),
    /// Everything that a delta index holds.
    Index {
        /// Of the xxh3 hashes.
        seed: u64,
        /// Zero bits of an anchor.
        bits: u32,
    },
}

/// One chunk to check; stateless, for any thread.
#[derive(Debug)]
pub(crate) struct ChunkCheck {
    file: Arc<File>,
    pub(crate) place: ChunkPlace,
    offset: u64,
    length: usize,
    task: Task,
    /// The chunk, where it is in memory already: nothing has to be mapped, and its pages are.
    window: Option<Arc<Window>>,
    /// What was written of the file so far is flushed as well.
    flush: bool,
}

/// Which chunk of which file a result belongs to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ChunkPlace {
    /// Which arrival of which file; a file that comes again has another.
    pub(crate) serial: u64,
    pub(crate) index: usize,
}

/// A chunk that was checked.
#[derive(Debug)]
pub(crate) struct CheckedChunk {
    pub(crate) place: ChunkPlace,
    /// `None` when it could not be read.
    pub(crate) index: Option<ChunkIndex>,
}

impl ChunkCheck {
    /// What was written of `file` so far reaches the disk; nothing is read. `serial` tells whose it is.
    pub(crate) fn only_flush(file: Arc<File>, serial: u64) -> ChunkCheck {
        ChunkCheck {
            file,
            place: ChunkPlace {
                serial,
                index: usize::MAX,
            },
            offset: 0,
            length: 0,
            task: Task::Flush,
            window: None,
            flush: true,
        }
    }

    /// The same, and what was written of the file so far reaches the disk.
    fn and_flush(self) -> ChunkCheck {
        ChunkCheck { flush: true, ..self }
    }

    /// The same, read from `window`, which holds what of the file is at `start`, if that is just the chunk.
    pub(crate) fn within(self, start: u64, window: &Arc<Window>) -> ChunkCheck {
        let is_chunk = (start, (**window).as_ref().len()) == (self.offset, self.length);
        let window = is_chunk.then(|| Arc::clone(window));
        ChunkCheck { window, ..self }
    }

    /// Whether it flushes.
    pub(crate) fn flushes(&self) -> bool {
        self.flush
    }

    /// Reads and hashes the chunk; on the loop, which waits for no disk.
    pub(crate) fn run_here(self) -> CheckedChunk {
        self.without_flush().run()
    }

    /// The same, flushing nothing.
    pub(crate) fn without_flush(self) -> ChunkCheck {
        ChunkCheck { flush: false, ..self }
    }

    /// Reads and hashes the chunk.
    pub(crate) fn run(self) -> CheckedChunk {
        let ChunkCheck {
            flush,
            file,
            place,
            offset,
            length,
            task,
            window,
        } = self;
        let index = match (task, window) {
            (Task::Index { seed, bits }, Some(window)) => {
                let length = offset.min(CONTEXT_BYTES as u64);
                let mut before = vec![0; length as usize];
                file.read_exact_at(&mut before, offset - length)
                    .and_then(|()| look(&window, |bytes| ChunkIndex::build(&before, bytes, offset, seed, bits)))
            }
            (Task::Leaves, Some(window)) => look(&window, ChunkIndex::leaves_only),
            (task, _) => read_back(&file, offset, length, task),
        };
        let index = index
            .and_then(|index| {
                if flush {
                    file.sync_data()?;
                }
                Ok(index)
            })
            .inspect_err(|error| log::error!("cannot read back or flush what was received: {error}"))
            .ok();
        CheckedChunk { place, index }
    }
}

/// Reads what a check is about, and does it.
fn read_back(file: &File, offset: u64, length: usize, task: Task) -> io::Result<ChunkIndex> {
    match task {
        Task::Flush => Ok(ChunkIndex::default()),
        Task::Leaves => read_and(file, offset, length, ChunkIndex::leaves_only),
        Task::Patched(known) => patched(length, &known, |start, bytes, leaves| {
            read_and(file, offset + start, bytes, |bytes| leaves.extend(leaves_of(bytes)))
        }),
        Task::Laid(known, laid) => {
            let mut buffer = Vec::new();
            patched(length, &known, |start, bytes, leaves| {
                let laid = laid.as_ref().ok_or(io::ErrorKind::Other)?;
                buffer.resize(bytes, 0);
                laid.read_at(offset + start, &mut buffer)?;
                leaves.extend(leaves_of(&buffer));
                Ok(())
            })
        }
        Task::Index { seed, bits } => {
            let before = offset.min(CONTEXT_BYTES as u64);
            read_and(file, offset - before, length + before as usize, |bytes| {
                let (before, bytes) = bytes.split_at(before as usize);
                ChunkIndex::build(before, bytes, offset, seed, bits)
            })
        }
    }
}

/// Leaves that are not known are read and hashed, in runs: `hash` gets where in the chunk one begins, its
/// bytes, and where its leaves go.
fn patched(
    length: usize,
    known: &[Option<[u8; 32]>],
    mut hash: impl FnMut(u64, usize, &mut Vec<[u8; 32]>) -> io::Result<()>,
) -> io::Result<ChunkIndex> {
    let count = length.div_ceil(LEAF_BYTES);
    debug_assert_eq!(known.len(), count);
    let mut leaves = Vec::with_capacity(count);
    while leaves.len() < count {
        let at = leaves.len();
        if let Some(leaf) = known.get(at).copied().flatten() {
            leaves.push(leaf);
            continue;
        }
        let run = known[at..].iter().take_while(|leaf| leaf.is_none()).count().max(1);
        let start = at * LEAF_BYTES;
        let bytes = (run * LEAF_BYTES).min(length - start);
        hash(start as u64, bytes, &mut leaves)?;
    }
    Ok(with_leaves(leaves))
}

fn with_leaves(leaves: Vec<[u8; 32]>) -> ChunkIndex {
    ChunkIndex {
        leaves,
        ..ChunkIndex::default()
    }
}

/// Parts up to this are read: mapping one costs two calls and a fault, reading it one and a copy.
const READ_BYTES_MAX: usize = 64 << 10;

/// Maps a part of a file, or reads it where it is small or there are no mappings left. A part that the file
/// does not have any more is an error.
pub(super) fn read_and<T>(file: &File, offset: u64, length: usize, use_it: impl FnOnce(&[u8]) -> T) -> io::Result<T> {
    if length == 0 {
        return Ok(use_it(&[]));
    }
    if length > READ_BYTES_MAX
        && let Ok(window) = Window::open(file, offset, length)
    {
        return look(&window, use_it);
    }
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, offset)?;
    Ok(use_it(&bytes))
}

/// What `use_it` makes of a window that the file did not lose.
fn look<T>(window: &Window, use_it: impl FnOnce(&[u8]) -> T) -> io::Result<T> {
    let used = use_it(window.as_ref());
    match window.is_torn() {
        false => Ok(used),
        true => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

impl Verifying {
    /// The checks of `file`; `serial` tells them from those of others. What they find goes to `sidecar`.
    pub(crate) fn new(file: Arc<File>, serial: u64, sidecar: Option<SidecarWriter>) -> Verifying {
        Verifying {
            serial,
            file,
            hasher: TreeHasher::new(),
            start: 0,
            pieces: VecDeque::new(),
            next: 0,
            missing: 0,
            failed: false,
            sidecar,
            unflushed: None,
            flush_bytes: 0,
        }
    }

    /// Has what is written flushed now and then, together with a check.
    pub(crate) fn flush_on_the_way(&mut self) {
        self.unflushed = Some(0);
    }

    /// After how many bytes that is to be done.
    pub(crate) fn flush_each(&mut self, bytes: u64) {
        self.flush_bytes = bytes;
    }

    /// The checks of a `file` whose beginning, as far as `hasher` is, was checked before.
    pub(crate) fn behind(hasher: TreeHasher, file: Arc<File>, serial: u64) -> Verifying {
        let start = hasher.length();
        debug_assert!(start.is_multiple_of(LEAF_BYTES as u64));
        Verifying {
            start,
            next: (start / CHUNK_BYTES as u64) as usize,
            hasher,
            ..Verifying::new(file, serial, None)
        }
    }

    /// What has been checked without a gap, from the beginning.
    pub(crate) fn checked_so_far(&self) -> &TreeHasher {
        &self.hasher
    }

    /// From here on `file` is read instead, which holds what was checked already.
    pub(crate) fn go_on_in(&mut self, file: Arc<File>) {
        self.file = file;
    }

    pub(crate) fn serial(&self) -> u64 {
        self.serial
    }

    /// Where the checks begin.
    pub(crate) fn start(&self) -> u64 {
        self.start
    }

    /// The bytes that are next to be checked, if the file has so many.
    pub(crate) fn next_range(&self) -> (u64, u64) {
        let end = (self.next as u64 + 1) * CHUNK_BYTES as u64;
        (self.chunk_start(self.next), end)
    }

    /// The next chunk, if it is complete now that `length` bytes are there.
    pub(crate) fn next_check(&mut self, length: u64, task: impl FnOnce() -> Task) -> Option<ChunkCheck> {
        let index = self.next;
        let end = (index as u64 + 1) * CHUNK_BYTES as u64;
        if length < end {
            return None;
        }
        self.pieces.push_back(None);
        self.next += 1;
        self.missing += 1;
        let length = end - self.chunk_start(index);
        let check = self.check(index, length as usize, task());
        Some(match &mut self.unflushed {
            Some(unflushed) if *unflushed + length >= self.flush_bytes => {
                *unflushed = 0;
                check.and_flush()
            }
            Some(unflushed) => {
                *unflushed += length;
                check
            }
            None => check,
        })
    }

    /// The first byte of a chunk that is to be checked.
    fn chunk_start(&self, index: usize) -> u64 {
        (index as u64 * CHUNK_BYTES as u64).max(self.start)
    }

    fn check(&self, index: usize, length: usize, task: Task) -> ChunkCheck {
        let place = ChunkPlace {
            serial: self.serial,
            index,
        };
        ChunkCheck {
            file: Arc::clone(&self.file),
            place,
            offset: self.chunk_start(index),
            length,
            task,
            window: None,
            flush: false,
        }
    }

    /// A check came back.
    pub(crate) fn checked(&mut self, checked: &CheckedChunk) {
        let number = checked.place.index;
        let at = (number + self.pieces.len()).checked_sub(self.next);
        let Some(at) = at.filter(|at| matches!(self.pieces.get(*at), Some(None))) else {
            // Of a file before this one.
            return;
        };
        self.missing -= 1;
        let Some(index) = &checked.index else {
            self.failed = true;
            return;
        };
        self.pieces[at] = Some(match index.leaves.len() == CHUNK_BYTES / LEAF_BYTES {
            true => Piece::Chunk(index.subtree_root()),
            false => Piece::Leaves(index.leaves.clone()),
        });
        if let Some(sidecar) = &mut self.sidecar {
            sidecar.put(number as u64, index);
        }
        while let Some(Some(piece)) = self.pieces.front() {
            match piece {
                Piece::Chunk(root) => self.hasher.append_subtree(CHUNK_HEIGHT, *root),
                Piece::Leaves(leaves) => leaves.iter().for_each(|leaf| self.hasher.append_subtree(0, *leaf)),
            }
            self.pieces.pop_front();
        }
    }

    /// What a check has to find: all of the index, or only the leaves.
    pub(crate) fn task(&self) -> Task {
        match self.sidecar.as_ref().map(SidecarWriter::sidecar) {
            Some(sidecar) if sidecar.parts == Parts::Full => Task::Index {
                seed: sidecar.seed,
                bits: sidecar.bits,
            },
            _ => Task::Leaves,
        }
    }

    /// Whether every check has come back.
    pub(crate) fn is_complete(&self) -> bool {
        self.missing == 0
    }

    /// The id of all `length` bytes, and its sidecar; `None` when a part could not be read.
    pub(crate) fn finish(mut self, length: u64, task: Task) -> Option<(ContentId, Option<SidecarWriter>)> {
        if self.failed || !self.is_complete() {
            return None;
        }
        let number = self.next;
        let rest = usize::try_from(length.checked_sub(self.chunk_start(number))?).ok()?;
        debug_assert!(rest < CHUNK_BYTES);
        let last = self.check(number, rest, task).run().index?;
        if let Some(sidecar) = self.sidecar.as_mut().filter(|_| rest > 0) {
            sidecar.put(number as u64, &last);
        }
        let mut hasher = self.hasher;
        for leaf in &last.leaves {
            hasher.append_subtree(0, *leaf);
        }
        let root = hasher.finish().root;
        Some((ContentId { length, root }, self.sidecar))
    }
}

/// A chunk that waits for those before it.
#[derive(Debug)]
enum Piece {
    Chunk([u8; 32]),
    /// Less than a chunk: the first one behind a beginning that was known.
    Leaves(Vec<[u8; 32]>),
}

/// Height of a chunk's subtree.
const CHUNK_HEIGHT: u32 = (CHUNK_BYTES / LEAF_BYTES).trailing_zeros();

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delta::content_id;
    use crate::model::RelPath;
    use crate::store::{Room, Root, StagedFile, Staging};

    fn verifying(staged: &StagedFile) -> Verifying {
        Verifying::new(Arc::new(staged.file().try_clone().unwrap()), 7, None)
    }

    /// Checked in chunks, in any order of the results, the root is that of the whole content.
    // Protects the index of what is sent: a chunk that is read where it is mapped gives what it gives from the file.
    #[test]
    fn a_chunk_in_a_window_is_checked_as_in_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let bytes: Vec<u8> = (0..2 * CHUNK_BYTES as u32)
            .map(|at| (at.wrapping_mul(at) >> 7) as u8)
            .collect();
        let path = dir.path().join("f");
        std::fs::write(&path, &bytes).unwrap();
        let file = Arc::new(File::open(&path).unwrap());
        let check = |task: &Task, number: usize| {
            let mut verifying = Verifying::new(Arc::clone(&file), 7, None);
            let mut checks = (0..=number).map(|_| verifying.next_check(bytes.len() as u64, || task.clone()));
            checks.by_ref().last().flatten().unwrap()
        };
        for (task, number) in [
            (Task::Leaves, 0),
            (Task::Leaves, 1),
            (Task::Index { seed: 9, bits: 12 }, 0),
            (Task::Index { seed: 9, bits: 12 }, 1),
        ] {
            let start = (number * CHUNK_BYTES) as u64;
            let window = Arc::new(Window::open(&file, start, CHUNK_BYTES).unwrap());
            let within = check(&task, number).within(start, &window);
            assert!(within.window.is_some());
            let from_file = check(&task, number).run().index.unwrap();
            assert_eq!(within.run().index.unwrap(), from_file, "{task:?} {number}");
            let elsewhere = check(&task, number).within(start + 1, &window);
            assert!(elsewhere.window.is_none(), "another part of the file");
        }
    }

    #[test]
    fn chunks_and_rest_make_the_id_of_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        let staging = Staging::new(&root);
        let chunk = CHUNK_BYTES as u64;
        for length in [chunk, chunk + 1, 3 * chunk, 3 * chunk + 70_001] {
            let content: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
            let staged = staging
                .create(&RelPath::parse(b"f").unwrap(), Room::Reserve(length))
                .unwrap();
            let mut verifying = verifying(&staged);
            let mut checks = Vec::new();
            for (at, part) in content.chunks(100_000).enumerate() {
                staged.write_at(at as u64 * 100_000, part).unwrap();
                checks.extend(verifying.next_check((at * 100_000 + part.len()) as u64, || Task::Leaves));
            }
            assert_eq!(checks.len() as u64, length / chunk);
            for check in checks.into_iter().rev() {
                assert!(!verifying.is_complete());
                verifying.checked(&check.run());
            }
            let (id, _) = verifying.finish(length, Task::Leaves).unwrap();
            assert_eq!(id, content_id(&content));
        }
    }

    /// The index made of chunks is that of the whole, and leaves that are known are not read.
    #[test]
    fn every_task_gives_its_part_of_the_index() {
        let dir = tempfile::tempdir().unwrap();
        let staging = Staging::new(&Root::open(dir.path()).unwrap());
        let length = CHUNK_BYTES + 40_000;
        let content: Vec<u8> = (0..length).map(|at| (at * at % 253) as u8).collect();
        let staged = staging.create(&RelPath::parse(b"f").unwrap(), Room::Sparse).unwrap();
        staged.write_at(0, &content).unwrap();
        let verifying = verifying(&staged);
        let task = Task::Index { seed: 3, bits: 12 };
        let (head, tail) = content.split_at(CHUNK_BYTES);
        let second = verifying.check(1, tail.len(), task).run().index.unwrap();
        assert_eq!(second, ChunkIndex::build(head, tail, CHUNK_BYTES as u64, 3, 12));
        let known = vec![Some([9; 32]), None, Some([8; 32])];
        let patched = verifying
            .check(1, tail.len(), Task::Patched(known))
            .run()
            .index
            .unwrap();
        assert_eq!(patched.leaves, [[9; 32], second.leaves[1], [8; 32]]);
    }

    /// A chunk that cannot be read never ends in a root.
    #[test]
    fn an_unreadable_chunk_gives_no_root() {
        let dir = tempfile::tempdir().unwrap();
        let staging = Staging::new(&Root::open(dir.path()).unwrap());
        let staged = staging.create(&RelPath::parse(b"f").unwrap(), Room::Sparse).unwrap();
        let mut verifying = verifying(&staged);
        let length = CHUNK_BYTES as u64;
        let check = verifying.next_check(length, || Task::Leaves).unwrap();
        assert!(verifying.next_check(length, || Task::Leaves).is_none());
        let checked = check.run();
        assert_eq!(checked.index, None);
        verifying.checked(&checked);
        assert!(verifying.finish(length, Task::Leaves).is_none());
    }
}
