//! A file on its way out whole: read part by part, hashed on the loop or beside it.
//!
//! Knows nothing of the transfer that it is part of. Invariant: a root is given only when the file was
//! stable from open to end and no window was torn.

use super::commit::Committer;
use super::deltas::Deltas;
use super::resumes::Noted;
use super::verifying::{BESIDE_BYTES_MIN, CheckedChunk, Verifying};
use crate::delta::TreeHasher;
use crate::delta::index::Parts;
use crate::model::limits::CREDIT_WINDOW_BYTES;
use crate::model::{ItemCode, SharedBytes};
use crate::reactor::ConnId;
use crate::store::{Extent, Insertion, SourceFile, Window};
use crate::wire::EndOutcome;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

/// A file that is being sent.
pub(super) struct Outgoing {
    file: SourceFile,
    digest: Digest,
    /// Its content is kept, for the next time.
    shadow: Option<Insertion>,
    /// How far it was sent, for another attempt.
    noted: Option<Noted>,
    /// The data extent that is being sent ends here.
    extent_end: u64,
    loaded: Option<Loaded>,
    torn: bool,
}

/// How the content is hashed.
enum Digest {
    /// As it is sent, on the loop.
    Inline(Box<TreeHasher>),
    /// Chunk by chunk, on the helper thread.
    Beside(Box<Verifying>),
}

/// A part of a file in memory.
struct Loaded {
    start: u64,
    length: usize,
    content: Content,
}

enum Content {
    Mapped(Rc<Mapped>),
    /// Where nothing can be mapped: too many windows are open, or the file system has no mappings.
    Read(Rc<Vec<u8>>),
}

/// A window that the thread that hashes looks at, too: its pages are mapped once.
struct Mapped(Arc<Window>);

impl AsRef<[u8]> for Mapped {
    fn as_ref(&self) -> &[u8] {
        (*self.0).as_ref()
    }
}

/// What to send next of a file.
pub(super) enum Part {
    Data(SharedBytes, Range<usize>),
    Hole(u64),
    /// Everything was sent, and not everything is hashed.
    Wait,
    End,
}

/// Bytes mapped at a time.
const WINDOW_BYTES: usize = 4 << 20;
/// Bytes read at a time where nothing can be mapped.
const READ_BYTES: usize = 128 * 1024;
/// Content bytes of one data frame. What is hashed on the loop is sent from the second-level cache then.
const FRAME_BYTES: usize = 512 * 1024;

impl Outgoing {
    /// Sends `file`; `serial` tells its checks from those of others.
    pub(super) fn new(file: SourceFile, sparse: bool, serial: u64, deltas: Option<&Deltas>) -> Outgoing {
        let large = file.size() >= BESIDE_BYTES_MIN && !sparse;
        let digest = match large {
            true => {
                let sidecar = deltas.and_then(|deltas| deltas.begin(file.size(), Parts::Full));
                Digest::Beside(Box::new(Verifying::new(file.shared_file(), serial, sidecar)))
            }
            false => Digest::Inline(Box::default()),
        };
        Outgoing {
            shadow: deltas
                .filter(|_| !sparse)
                .and_then(|deltas| deltas.begin_shadow(file.size())),
            noted: None,
            file,
            digest,
            extent_end: 0,
            loaded: None,
            torn: false,
        }
    }

    /// Sends the rest of `file`, whose beginning is in `hasher`. Its index is not made: that would take the
    /// beginning, too.
    pub(super) fn behind(hasher: TreeHasher, file: SourceFile, sparse: bool, serial: u64) -> Outgoing {
        let large = file.size() - hasher.length() >= BESIDE_BYTES_MIN && !sparse;
        let digest = match large {
            true => Digest::Beside(Box::new(Verifying::behind(hasher, file.shared_file(), serial))),
            false => Digest::Inline(Box::new(hasher)),
        };
        Outgoing {
            file,
            digest,
            shadow: None,
            noted: None,
            extent_end: 0,
            loaded: None,
            torn: false,
        }
    }

    /// Takes notes of how far it was sent.
    pub(super) fn noted(mut self, noted: Option<Noted>) -> Outgoing {
        self.noted = noted;
        self
    }

    /// The part at `offset`, of at most `credit` bytes; `remaining` are left up to the announced size.
    pub(super) fn next_part(
        &mut self,
        offset: u64,
        remaining: u64,
        credit: u64,
        holes: bool,
        deltas: &Deltas,
    ) -> Result<Part, ItemCode> {
        if remaining == 0 {
            return Ok(match &self.digest {
                Digest::Beside(verifying) if !verifying.is_complete() => Part::Wait,
                _ => Part::End,
            });
        }
        if offset >= self.extent_end {
            let extent = match holes && matches!(self.digest, Digest::Inline(_)) {
                true => self.file.next_extent(offset),
                false => Ok(Extent::Data { length: remaining }),
            };
            match extent.map_err(|error| error.code())? {
                Extent::Data { length } => self.extent_end = offset + length.min(remaining),
                Extent::Hole { length } => {
                    let length = length.min(remaining);
                    if let Digest::Inline(hasher) = &mut self.digest {
                        hasher.update_zeros(length);
                    }
                    return Ok(Part::Hole(length));
                }
                // Shorter than it was when it was opened.
                Extent::End => return Err(ItemCode::Changing),
            }
        }
        let wanted = (self.extent_end - offset).min(credit).min(FRAME_BYTES as u64) as usize;
        let (loaded, from) = self.load(offset)?;
        let range = from..from + wanted.min(loaded.length - from);
        let bytes = loaded.bytes();
        let part = &(*bytes).as_ref()[range.clone()];
        if let Digest::Inline(hasher) = &mut self.digest {
            hasher.update(part);
        }
        if let Some(shadow) = &mut self.shadow {
            deltas.append_shadow(shadow, part);
        }
        self.torn |= self.loaded.as_ref().is_some_and(Loaded::is_torn);
        Ok(Part::Data(bytes, range))
    }

    /// Has the chunks hashed that are complete now that `sent` bytes were sent.
    pub(super) fn hash_beside(&mut self, sent: u64, owner: ConnId, committer: &mut Committer) {
        if let Some(noted) = &mut self.noted {
            let hasher = match &self.digest {
                Digest::Inline(hasher) => hasher,
                Digest::Beside(verifying) => verifying.checked_so_far(),
            };
            // The credit for more came when the receiver had dealt with what was before it.
            noted.moved(hasher, sent.saturating_sub(CREDIT_WINDOW_BYTES));
        }
        if let Digest::Beside(verifying) = &mut self.digest {
            let task = verifying.task();
            while let Some(mut check) = verifying.next_check(sent, || task.clone()) {
                if let Some((loaded, window)) = self.loaded.as_ref().and_then(|part| Some((part, part.window()?))) {
                    check = check.within(loaded.start, window);
                }
                if let Some(checked) = committer.check(owner, check) {
                    verifying.checked(&checked);
                }
            }
        }
    }

    /// A check came back.
    pub(super) fn checked(&mut self, checked: &CheckedChunk) {
        if let Digest::Beside(verifying) = &mut self.digest
            && verifying.serial() == checked.place.serial
        {
            verifying.checked(checked);
        }
    }

    /// The part of the file in memory that holds `offset`, and where in it.
    fn load(&mut self, offset: u64) -> Result<(&Loaded, usize), ItemCode> {
        let holds = |part: &Loaded| (part.start..part.start + part.length as u64).contains(&offset);
        if !self.loaded.as_ref().is_some_and(holds) {
            self.torn |= self.loaded.take().is_some_and(|part| part.is_torn());
            let rest = self.extent_end - offset;
            self.loaded = Some(Loaded::new(&self.file, offset, rest)?);
        }
        let loaded = self.loaded.as_ref().expect("just filled");
        Ok((loaded, (offset - loaded.start) as usize))
    }

    /// Everything was sent: whether it was one content from open to end, and which.
    pub(super) fn finish(self, deltas: &Deltas, sent: impl FnOnce(&SourceFile, [u8; 32])) -> EndOutcome {
        let torn = self.torn || self.loaded.is_some_and(|part| part.is_torn());
        let length = self.file.size();
        let found = match self.digest {
            Digest::Inline(hasher) => Some((hasher.finish(), None)),
            // What cannot be read any more is shorter than it was.
            Digest::Beside(verifying) => {
                let task = verifying.task();
                verifying.finish(length, task)
            }
        };
        match (self.file.unchanged(), found) {
            (Ok(true), Some((id, sidecar))) if !torn => {
                deltas.keep(sidecar, &id);
                deltas.keep_shadow(self.shadow, id);
                sent(&self.file, id.root);
                EndOutcome::Complete(id.root)
            }
            (Ok(_), _) => EndOutcome::Changed,
            (Err(error), _) => EndOutcome::Failed(error.code()),
        }
    }
}

impl Loaded {
    /// The next part of at most `rest` bytes: mapped, or read where that is not possible.
    fn new(file: &SourceFile, start: u64, rest: u64) -> Result<Loaded, ItemCode> {
        let length = rest.min(WINDOW_BYTES as u64) as usize;
        match Window::open(file.file(), start, length) {
            Ok(window) => Ok(Loaded {
                start,
                length,
                content: Content::Mapped(Rc::new(Mapped(Arc::new(window)))),
            }),
            Err(error) => {
                log::debug!("a file is read and not mapped: {error}");
                Loaded::read(file, start, length.min(READ_BYTES))
            }
        }
    }

    fn read(file: &SourceFile, start: u64, length: usize) -> Result<Loaded, ItemCode> {
        let mut bytes = vec![0; length];
        let count = file.read_at(start, &mut bytes).map_err(|error| {
            log::info!("{error}");
            error.code()
        })?;
        if count < length {
            // Shorter than it was when it was opened.
            return Err(ItemCode::Changing);
        }
        Ok(Loaded {
            start,
            length,
            content: Content::Read(Rc::new(bytes)),
        })
    }

    fn bytes(&self) -> SharedBytes {
        match &self.content {
            Content::Mapped(window) => Rc::clone(window) as SharedBytes,
            Content::Read(bytes) => Rc::clone(bytes) as SharedBytes,
        }
    }

    fn window(&self) -> Option<&Arc<Window>> {
        match &self.content {
            Content::Mapped(mapped) => Some(&mapped.0),
            Content::Read(_) => None,
        }
    }

    /// Whether the file lost a part of it; ask after reading.
    fn is_torn(&self) -> bool {
        self.window().is_some_and(|window| window.is_torn())
    }
}
