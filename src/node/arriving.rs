//! A file on its way into staging: written as it comes, checked on the loop or beside it.
//!
//! When it is dropped before its end, what came of a kept file stays, and another transfer goes on with it.
//! Knows nothing of the transfer that it is part of. Invariant: [`Arrival::into_ended`] is asked for
//! its finding before anything is committed, and a verdict needs every check.

use super::commit::Committer;
use super::options::Durability;
use super::resumes::Lease;
use super::verifying::{BESIDE_BYTES_MIN, CheckedChunk, ChunkCheck, Verifying, read_and};
use crate::delta::TreeHasher;
use crate::model::{ContentId, ItemCode, Meta};
use crate::reactor::ConnId;
use crate::store::{SidecarWriter, StagedFile};
use crate::wire::Start;
use std::fs::File;
use std::sync::Arc;

/// A file that arrives.
pub(super) struct Arrival {
    pub(super) file: u32,
    staged: StagedFile,
    check: Check,
    offset: u64,
    meta: Meta,
    /// The right to a kept file.
    lease: Option<Lease>,
}

/// How the content is checked.
enum Check {
    /// On the loop.
    Inline(Box<Inline>),
    /// Chunk by chunk, on the helper thread.
    Beside(Box<Verifying>),
}

/// The check of a file of which little comes at a time.
///
/// Why by runs: of a thousand files that arrive at once there are a few leaves in each read, and sixteen at once take
/// half the time, with reading them again. What is checked then is what lies in the file.
#[derive(Default)]
struct Inline {
    hasher: TreeHasher,
    /// What has come is hashed when it is so many bytes; `None` is at once.
    run: Option<usize>,
    /// What had come could not be read, or did not reach the disk.
    failed: bool,
    /// Tells its flushes from the checks of others.
    serial: u64,
    /// It is large, and hashed here only because it has holes.
    is_large: bool,
    on_the_way: Option<OnTheWay>,
}

/// The flushes of a file that is to reach the disk while it comes.
struct OnTheWay {
    file: Arc<File>,
    /// Bytes that came since the last one.
    unflushed: u64,
    /// Flushes that are not back.
    out: usize,
}

/// A file that has ended; perhaps not all checks have come back.
pub(super) struct Ended {
    pub(super) file: u32,
    pub(super) staged: StagedFile,
    pub(super) length: u64,
    pub(super) meta: Meta,
    pub(super) lease: Option<Lease>,
    check: Check,
    root: [u8; 32],
}

/// Whether what arrived is what was announced.
#[derive(Debug)]
pub(super) enum Finding {
    /// It is; with its sidecar, if one is to be kept.
    Genuine(ContentId, Option<SidecarWriter>),
    /// It is not; this is what it is, if it could be read.
    Damaged(Option<(ContentId, Option<SidecarWriter>)>),
    /// Checks are still out.
    Pending,
}

impl Arrival {
    /// The file of `start`, to be written to `staged`; `serial` tells its checks from those of others.
    pub(super) fn new(
        start: &Start,
        staged: StagedFile,
        lease: Option<Lease>,
        serial: u64,
        sidecar: Option<SidecarWriter>,
    ) -> Arrival {
        let large = start.size >= BESIDE_BYTES_MIN && !start.sparse;
        let shared = || staged.file().try_clone().ok().map(Arc::new);
        let beside = large
            .then(shared)
            .flatten()
            .map(|file| Box::new(Verifying::new(file, serial, sidecar)));
        let check = beside.map_or_else(|| Inline::of(TreeHasher::new(), start, serial), Check::Beside);
        let (file, meta) = (start.file, start.meta);
        Arrival {
            file,
            staged,
            check,
            offset: 0,
            meta,
            lease,
        }
    }

    /// The rest of the file of `start`, behind what is `staged` of it.
    pub(super) fn behind(
        start: &Start,
        staged: StagedFile,
        (lease, hasher): (Lease, TreeHasher),
        serial: u64,
    ) -> Arrival {
        let offset = hasher.length();
        let large = start.size - offset >= BESIDE_BYTES_MIN && !start.sparse;
        let shared = || staged.file().try_clone().ok().map(Arc::new);
        let check = match large.then(shared).flatten() {
            Some(file) => Check::Beside(Box::new(Verifying::behind(hasher, file, serial))),
            None => Inline::of(hasher, start, serial),
        };
        Arrival {
            file: start.file,
            staged,
            check,
            offset,
            meta: start.meta,
            lease: Some(lease),
        }
    }

    /// The same, with what comes on its way to the disk before the end, if it has to be there then.
    pub(super) fn toward(mut self, durability: Durability) -> Arrival {
        match (&mut self.check, durability) {
            (Check::Beside(verifying), Durability::Barrier) => verifying.flush_on_the_way(),
            (Check::Inline(inline), Durability::Barrier) if inline.is_large => {
                let begun = |file| OnTheWay {
                    file: Arc::new(file),
                    unflushed: 0,
                    out: 0,
                };
                inline.on_the_way = self.staged.file().try_clone().ok().map(begun);
            }
            _ => {}
        }
        self
    }

    /// Whether its content is checked, or flushed, beside the loop.
    pub(super) fn is_bulk(&self) -> bool {
        match &self.check {
            Check::Inline(inline) => inline.on_the_way.is_some(),
            Check::Beside(_) => true,
        }
    }

    /// What came is of no use: it is removed.
    pub(super) fn discard(self) {
        match self.lease {
            Some(lease) => lease.discard(self.staged),
            None => self.staged.discard(),
        }
    }

    /// Whether another transfer goes on with the file.
    pub(super) fn is_revoked(&self) -> bool {
        let revoked = self.lease.as_ref().is_some_and(Lease::is_revoked);
        if revoked {
            log::info!("{}: another transfer of it goes on", self.staged.path());
        }
        revoked
    }

    /// Writes the next bytes, and has complete chunks checked.
    pub(super) fn write(&mut self, bytes: &[u8], owner: ConnId, committer: &mut Committer) -> Result<(), ItemCode> {
        if self.is_revoked() {
            return Err(ItemCode::TakenOver);
        }
        self.staged.write_at(self.offset, bytes).map_err(|error| {
            log::warn!("{error}");
            error.code()
        })?;
        self.offset += bytes.len() as u64;
        match &mut self.check {
            Check::Inline(inline) => {
                inline.came(bytes, &self.staged, self.offset);
                if let Some(flush) = inline.next_flush(bytes.len() as u64, committer.flush_bytes()) {
                    let checked = committer.check(owner, flush);
                    debug_assert!(checked.is_none(), "what flushes waits for the thread");
                }
            }
            Check::Beside(verifying) => {
                let task = verifying.task();
                verifying.flush_each(committer.flush_bytes());
                while let Some(check) = verifying.next_check(self.offset, || task.clone()) {
                    if let Some(checked) = committer.check(owner, check) {
                        verifying.checked(&checked);
                    }
                }
            }
        }
        if let Some(lease) = &mut self.lease {
            lease.moved(match &self.check {
                Check::Inline(inline) => &inline.hasher,
                Check::Beside(verifying) => verifying.checked_so_far(),
            });
        }
        Ok(())
    }

    /// The next `length` bytes are a hole. Only files that are announced as sparse have any.
    pub(super) fn hole(&mut self, length: u64) {
        debug_assert!(matches!(self.check, Check::Inline(_)));
        if let Check::Inline(inline) = &mut self.check {
            inline.hasher.update_zeros(length);
        }
        self.offset += length;
    }

    /// A check came back; `false` when it belongs to another file.
    pub(super) fn checked(&mut self, checked: &CheckedChunk) -> bool {
        self.check.checked(checked)
    }

    /// All content has come, and should have this root.
    pub(super) fn into_ended(self, root: [u8; 32]) -> Ended {
        let Arrival {
            file,
            staged,
            mut check,
            offset,
            meta,
            lease,
        } = self;
        if let Check::Inline(inline) = &mut check {
            inline.catch_up(&staged, offset);
        }
        if let Some(lease) = &lease {
            lease.complete();
        }
        Ended {
            file,
            staged,
            length: offset,
            meta,
            lease,
            check,
            root,
        }
    }
}

impl Ended {
    /// A check came back; `false` when it belongs to another file.
    pub(super) fn checked(&mut self, checked: &CheckedChunk) -> bool {
        self.check.checked(checked)
    }

    /// What the checks say.
    pub(super) fn finding(&mut self) -> Finding {
        let own = match std::mem::replace(&mut self.check, Check::Inline(Box::default())) {
            Check::Beside(verifying) if !verifying.is_complete() => {
                self.check = Check::Beside(verifying);
                return Finding::Pending;
            }
            // What a flush found out, no later one says again.
            Check::Inline(inline) if inline.on_the_way.as_ref().is_some_and(|flushes| flushes.out > 0) => {
                self.check = Check::Inline(inline);
                return Finding::Pending;
            }
            Check::Beside(verifying) => {
                let task = verifying.task();
                verifying.finish(self.length, task)
            }
            Check::Inline(inline) if inline.failed => None,
            Check::Inline(inline) => Some((inline.hasher.finish(), None)),
        };
        match own {
            Some((id, sidecar)) if id.root == self.root => Finding::Genuine(id, sidecar),
            other => Finding::Damaged(other),
        }
    }
}

impl Inline {
    fn of(hasher: TreeHasher, start: &Start, serial: u64) -> Check {
        let is_worth_it = |run: &usize| !start.sparse && start.size >= *run as u64;
        Check::Inline(Box::new(Inline {
            hasher,
            run: TreeHasher::run_bytes().filter(is_worth_it),
            failed: false,
            serial,
            is_large: start.size >= BESIDE_BYTES_MIN,
            on_the_way: None,
        }))
    }

    /// The next flush on the way, if it is due now that `length` bytes more are there.
    fn next_flush(&mut self, length: u64, flush_bytes: u64) -> Option<ChunkCheck> {
        let flushes = self.on_the_way.as_mut()?;
        flushes.unflushed += length;
        if flushes.unflushed < flush_bytes {
            return None;
        }
        flushes.unflushed = 0;
        flushes.out += 1;
        Some(ChunkCheck::only_flush(Arc::clone(&flushes.file), self.serial))
    }

    /// `bytes` came, and are in the file, which ends at `end` now.
    fn came(&mut self, bytes: &[u8], staged: &StagedFile, end: u64) {
        let Some(run) = self.run else {
            return self.hasher.update(bytes);
        };
        let (run, start) = (run as u64, self.hasher.length());
        self.catch_up(staged, start + (end - start) / run * run);
    }

    /// Hashes what is in the file up to `end`.
    fn catch_up(&mut self, staged: &StagedFile, end: u64) {
        let start = self.hasher.length();
        if start == end || self.failed {
            return;
        }
        let length = usize::try_from(end - start).expect("a run or two");
        let read = read_and(staged.file(), start, length, |bytes| self.hasher.update(bytes));
        if let Err(error) = read {
            log::warn!("{}: cannot be read: {error}", staged.path());
            self.failed = true;
        }
    }
}

impl Check {
    fn checked(&mut self, checked: &CheckedChunk) -> bool {
        match self {
            Check::Beside(verifying) if verifying.serial() == checked.place.serial => {
                verifying.checked(checked);
                true
            }
            Check::Inline(inline) if inline.serial == checked.place.serial => {
                let Some(flushes) = &mut inline.on_the_way else {
                    return false;
                };
                flushes.out = flushes.out.saturating_sub(1);
                inline.failed |= checked.index.is_none();
                true
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{RelPath, Timestamp};
    use crate::node::verifying::ChunkPlace;
    use crate::store::{Room, Root, Staging};

    const SIZE: u64 = 256 << 20;

    /// A large file with holes that comes with barriers, and its first 96 MiB.
    fn sparse(dir: &std::path::Path, owner: ConnId, committer: &mut Committer) -> Arrival {
        let staging = Staging::new(&Root::open(dir).unwrap());
        let staged = staging.create(&RelPath::parse(b"f").unwrap(), Room::Sparse).unwrap();
        let start = Start {
            file: 1,
            size: SIZE,
            sparse: true,
            meta: Meta {
                mode: 0o644,
                mtime: Timestamp { seconds: 7, nanos: 0 },
            },
        };
        let mut arrival = Arrival::new(&start, staged, None, 7, None).toward(Durability::Barrier);
        let bytes = vec![1; 1 << 20];
        for _ in 0..96 {
            arrival.write(&bytes, owner, committer).unwrap();
        }
        arrival
    }

    // Protects small files from waiting at the end for all that a large one with holes gave the disk: whoever sends
    // decides what has holes.
    #[test]
    fn a_large_file_with_holes_is_paced_by_the_disk_too() {
        let dir = tempfile::tempdir().unwrap();
        let (owner, mut committer) = (ConnId::invented(1), Committer::new());
        let mut arrival = sparse(dir.path(), owner, &mut committer);
        assert!(arrival.is_bulk() && committer.waits_for_disk(owner));
        arrival.hole(SIZE - (96 << 20));
        // It is not said to be what it should be before all its flushes are back.
        let mut ended = arrival.into_ended([0; 32]);
        let serial = 7;
        let mut back = |index: Option<_>| {
            let place = ChunkPlace {
                serial,
                index: usize::MAX,
            };
            let is_pending = matches!(ended.finding(), Finding::Pending);
            (is_pending, is_pending && ended.checked(&CheckedChunk { place, index }))
        };
        for _ in 1..12 {
            assert_eq!(back(Some(Default::default())), (true, true));
        }
        assert_eq!(back(None), (true, true));
        assert!(matches!(ended.finding(), Finding::Damaged(None)), "a flush failed");
    }
}
