//! A file on its way out as a patch of what the receiver has: matched, encoded, hashed, in steps.
//!
//! Knows nothing of the transfer that it is part of. Invariant: a root is given only when the file was
//! stable from open to end.

use super::deltas::Deltas;
use super::mapped::MappedContent;
use crate::delta::index::{CHUNK_BYTES, Parts};
use crate::delta::prefix::PrefixEncoder;
use crate::delta::signature::{Matching, Signature, SignatureMatcher};
use crate::delta::squeeze::Squeezer;
use crate::delta::{Comparison, Content, Matcher, Op, PlanEncoder, Progress, Torn, TreeHasher};
use crate::model::ContentId;
use crate::model::limits::SQUEEZE_WINDOW_LOG_MAX;
use crate::store::{Insertion, MappedSidecar, SidecarWriter, SourceFile};
use crate::wire::{EndOutcome, PatchForm};

/// A file that is sent as a patch.
pub(super) struct Changing {
    content: MappedContent,
    work: Work,
    encoder: PlanEncoder,
    squeezer: Option<Box<Squeezer>>,
    /// Bytes of the plan that are ready to be sent.
    ready: Vec<u8>,
    hasher: TreeHasher,
    /// Its content is kept, for the next time; of a file that is not large.
    shadow: Option<Insertion>,
    /// Operations of chunks that are done, not encoded yet; and where in the file they begin.
    ops: Vec<Op>,
    encoded: u64,
    /// How far the receiver was told; bytes of the plan before `released` go out at once.
    told: u64,
    released: usize,
    at_op: usize,
    within_op: u64,
    /// What is before this is at the receiver already.
    skip: u64,
    /// All operations were found.
    found: bool,
    ended: bool,
    literal_bytes: u64,
    matched_bytes: u64,
    /// Bytes of a plan against the basis itself.
    plan_bytes: u64,
}

/// How the plan is found.
enum Work {
    /// Against the index of the basis.
    Index {
        matcher: Box<Matcher>,
        index: Box<MappedSidecar>,
        sidecar: Option<Box<SidecarWriter>>,
        chunks: u64,
    },
    /// Against a signature that the receiver made.
    Signature(Box<SignatureMatcher>),
    /// Against the basis itself.
    Prefix(Option<Box<PrefixEncoder>>),
}

/// What a step came to.
pub(super) enum Changed {
    /// Bytes of the plan.
    Plan(Vec<u8>),
    /// There is more to do.
    Working,
    /// All of it was given.
    End(EndOutcome),
}

/// Content bytes that a step works on.
const STEP_BYTES: usize = 2 << 20;
/// Bytes of a compressor of zstd without its window: its tables, at the levels that are used.
const PACKER_BYTES: usize = 2 << 20;
/// Bytes of a plan that are collected before they go out.
const FRAME_BYTES: usize = 512 * 1024;
/// The receiver hears at least once in so much of the file, for some 25 bytes: it takes as long to copy
/// what has not changed as it takes to find it.
const TOLD_BYTES: u64 = 128 << 20;

impl Changing {
    /// Bytes of memory that it takes, about: what a compressor may look back at above all.
    pub(super) fn held_bytes(&self) -> usize {
        let length = usize::try_from(self.content.length()).unwrap_or(usize::MAX);
        let packer = match (&self.squeezer, &self.work) {
            (Some(_), _) => length.min(1 << SQUEEZE_WINDOW_LOG_MAX) + PACKER_BYTES,
            // The basis, and both together in the window.
            (None, Work::Prefix(Some(_))) => 4 * length + PACKER_BYTES,
            (None, _) => 0,
        };
        packer + self.ready.capacity() + self.ops.capacity() * size_of::<Op>()
    }

    /// Against the index of the basis. `comparison` tells by what leaves count as equal.
    pub(super) fn against_index(
        file: SourceFile,
        index: MappedSidecar,
        comparison: Comparison,
        deltas: &Deltas,
    ) -> Changing {
        let seed = index.view().sidecar().seed;
        let sidecar = deltas.begin_with(file.size(), Parts::Full, seed).map(Box::new);
        let matcher = Box::new(Matcher::new(file.size(), comparison));
        let work = Work::Index {
            matcher,
            index: Box::new(index),
            sidecar,
            chunks: 0,
        };
        Changing::new(file, work)
    }

    /// Against a signature.
    pub(super) fn against_signature(file: SourceFile, signature: Signature, deltas: &Deltas) -> Changing {
        let work = Work::Signature(Box::new(SignatureMatcher::new(signature)));
        Changing::new(file, work).remembered(deltas)
    }

    /// Against the contents of the basis; the file is given back where that cannot be.
    pub(super) fn against_contents(
        file: SourceFile,
        basis: Vec<u8>,
        deltas: &Deltas,
    ) -> Result<Changing, Box<SourceFile>> {
        match PrefixEncoder::new(basis, file.size()) {
            Ok(encoder) => {
                let work = Work::Prefix(Some(Box::new(encoder)));
                Ok(Changing::new(file, work).remembered(deltas))
            }
            Err(_) => Err(Box::new(file)),
        }
    }

    /// Keeps the content on its way, as the basis of the next version.
    fn remembered(mut self, deltas: &Deltas) -> Changing {
        self.shadow = deltas.begin_shadow(self.content.length());
        self
    }

    /// Takes the next `length` bytes of the file into its root, and into what is kept of it.
    fn digest(&mut self, length: usize, deltas: &Deltas) -> Result<(), Torn> {
        let bytes = self.content.bytes(self.encoded, length)?;
        self.hasher.update(bytes);
        if let Some(shadow) = &mut self.shadow {
            deltas.append_shadow(shadow, bytes);
        }
        Ok(())
    }

    fn new(file: SourceFile, work: Work) -> Changing {
        Changing {
            content: MappedContent::new(file),
            work,
            encoder: PlanEncoder::new(),
            squeezer: None,
            ready: Vec::new(),
            hasher: TreeHasher::new(),
            shadow: None,
            ops: Vec::new(),
            encoded: 0,
            told: 0,
            skip: 0,
            released: 0,
            at_op: 0,
            within_op: 0,
            found: false,
            ended: false,
            literal_bytes: 0,
            matched_bytes: 0,
            plan_bytes: 0,
        }
    }

    /// Gives only the plan of what is behind `skip`. The root is that of the whole file all the same.
    pub(super) fn behind(mut self, skip: u64) -> Changing {
        debug_assert!(matches!(self.work, Work::Index { .. }));
        self.skip = skip;
        self.told = skip;
        self
    }

    /// Compresses the plan.
    pub(super) fn squeezed(mut self) -> Changing {
        if !matches!(self.work, Work::Prefix(_)) {
            self.squeezer = Some(Box::new(Squeezer::new(self.content.length())));
        }
        self
    }

    /// How the plan stands on the wire.
    pub(super) fn form(&self) -> PatchForm {
        match (&self.work, &self.squeezer) {
            (Work::Prefix(_), _) => PatchForm::Prefix,
            (_, Some(_)) => PatchForm::Squeezed,
            (_, None) => PatchForm::Plan,
        }
    }

    /// The file.
    pub(super) fn file(&self) -> &SourceFile {
        self.content.file()
    }

    /// Bytes that are sent as they are, and bytes that the receiver has, since the last call.
    pub(super) fn take_figures(&mut self) -> (u64, u64) {
        (
            std::mem::take(&mut self.literal_bytes),
            std::mem::take(&mut self.matched_bytes),
        )
    }

    /// Works on for a bounded time; gives at most `credit` bytes of the plan.
    pub(super) fn step(&mut self, credit: usize, deltas: &Deltas) -> Changed {
        let waiting = self.ready.len();
        let due = self.ended || self.released > 0;
        if waiting >= FRAME_BYTES || (due && waiting > 0) {
            let count = waiting.min(credit).min(2 * FRAME_BYTES);
            // Where much has come, as much comes again.
            let room = if waiting >= FRAME_BYTES { 2 * FRAME_BYTES } else { 0 };
            let mut rest = Vec::with_capacity(room.max(waiting - count));
            rest.extend_from_slice(&self.ready[count..]);
            self.ready.truncate(count);
            self.released = self.released.saturating_sub(count);
            return Changed::Plan(std::mem::replace(&mut self.ready, rest));
        }
        if self.ended {
            return Changed::End(self.outcome(deltas));
        }
        match self.work_on(deltas) {
            Ok(()) => Changed::Working,
            Err(Torn) => Changed::End(EndOutcome::Changed),
        }
    }

    fn work_on(&mut self, deltas: &Deltas) -> Result<(), Torn> {
        if self.at_op < self.ops.len() {
            return self.encode(deltas);
        }
        self.ops.clear();
        self.at_op = 0;
        if self.found {
            self.end_plan();
            return Ok(());
        }
        let length = self.content.length();
        match &mut self.work {
            Work::Index {
                matcher,
                index,
                sidecar,
                chunks,
            } => match matcher.step(&index.view(), &mut self.content, STEP_BYTES, &mut self.ops)? {
                Progress::Working => {}
                Progress::Chunk(chunk) => {
                    chunk
                        .leaves
                        .iter()
                        .for_each(|leaf| self.hasher.append_subtree(0, *leaf));
                    if let Some(sidecar) = sidecar {
                        sidecar.put(*chunks, &chunk);
                    }
                    *chunks += 1;
                }
                Progress::Done => self.found = true,
            },
            Work::Signature(matcher) => {
                let bytes = self.content.bytes(0, length as usize)?;
                let ops = &mut self.ops;
                let matching = matcher.step(bytes, STEP_BYTES, &mut |op| ops.push(op));
                self.found = matching == Matching::Done;
            }
            Work::Prefix(_) => return self.compress(deltas),
        }
        Ok(())
    }

    /// Compresses the next piece of the file against the basis itself.
    fn compress(&mut self, deltas: &Deltas) -> Result<(), Torn> {
        let length = self.content.length();
        let piece = (length - self.encoded).min(PREFIX_STEP_BYTES);
        self.digest(piece as usize, deltas)?;
        let Work::Prefix(encoder) = &mut self.work else {
            return Ok(());
        };
        let bytes = self.content.bytes(self.encoded, piece as usize)?;
        let before = self.ready.len();
        if let Some(open) = encoder {
            open.push(bytes, &mut self.ready).map_err(|_| Torn)?;
        }
        self.encoded += piece;
        if self.encoded == length {
            if let Some(open) = encoder.take() {
                open.finish(&mut self.ready).map_err(|_| Torn)?;
            }
            self.ended = true;
        }
        // Old and new bytes cannot be told apart here: new is what has to travel.
        let plan_bytes = (self.ready.len() - before) as u64;
        self.literal_bytes += plan_bytes;
        self.plan_bytes += plan_bytes;
        if self.ended {
            self.matched_bytes += length.saturating_sub(self.plan_bytes);
        }
        Ok(())
    }

    /// Encodes operations that were found, a bounded number of new bytes at a time.
    fn encode(&mut self, deltas: &Deltas) -> Result<(), Torn> {
        let hashes = matches!(self.work, Work::Signature(_));
        let mut left = match self.squeezer {
            Some(_) => SQUEEZE_STEP_BYTES,
            None => STEP_BYTES,
        };
        while let Some(op) = self.ops.get(self.at_op).copied().filter(|_| left > 0) {
            let rest = op.length() - self.within_op;
            if self.encoded < self.skip {
                self.advance(rest.min(self.skip - self.encoded), &op);
                continue;
            }
            let whole = matches!(op, Op::Copy { .. }) && !hashes;
            let now = if whole {
                rest
            } else {
                rest.min(CHUNK_BYTES as u64).min(left as u64)
            };
            if hashes {
                self.digest(now as usize, deltas)?;
            }
            match op {
                Op::Copy { from, .. } => {
                    self.encoder.copy(from + self.within_op, now);
                    self.matched_bytes += now;
                }
                Op::Literal { .. } if now >= COPIED_BYTES => self.literal(now)?,
                Op::Literal { .. } => self.encoder.literal(self.content.bytes(self.encoded, now as usize)?),
                Op::Edit { .. } => self.encoder.edit(self.content.bytes(self.encoded, now as usize)?),
            }
            if !matches!(op, Op::Copy { .. }) {
                self.literal_bytes += now;
            }
            left -= if whole { 0 } else { now as usize };
            self.advance(now, &op);
        }
        self.collect();
        if self.encoded.saturating_sub(self.told) >= TOLD_BYTES {
            self.told = self.encoded;
            self.flush();
        }
        Ok(())
    }

    /// New bytes that go from the file into the plan without a copy between.
    fn literal(&mut self, length: u64) -> Result<(), Torn> {
        self.encoder.literal_behind(length);
        self.collect();
        let bytes = self.content.bytes(self.encoded, length as usize)?;
        match &mut self.squeezer {
            Some(squeezer) => squeezer.push(bytes, &mut self.ready),
            None => self.ready.extend_from_slice(bytes),
        }
        Ok(())
    }

    /// So many bytes of the operation at hand are dealt with.
    fn advance(&mut self, bytes: u64, op: &Op) {
        self.encoded += bytes;
        self.within_op += bytes;
        if self.within_op == op.length() {
            self.within_op = 0;
            self.at_op += 1;
        }
    }

    /// The receiver can follow what was found so far while the rest is compared.
    fn flush(&mut self) {
        self.encoder.finish();
        self.collect();
        if let Some(squeezer) = &mut self.squeezer {
            squeezer.flush(&mut self.ready);
        }
        self.released = self.ready.len();
    }

    fn end_plan(&mut self) {
        self.flush();
        self.ended = true;
    }

    fn collect(&mut self) {
        let plan = self.encoder.take_output();
        match &mut self.squeezer {
            Some(squeezer) => squeezer.push(&plan, &mut self.ready),
            None if self.ready.is_empty() => self.ready = plan,
            None => self.ready.extend_from_slice(&plan),
        }
    }

    /// Everything was sent: whether it was one content from open to end, and which.
    fn outcome(&mut self, deltas: &Deltas) -> EndOutcome {
        match self.content.file().unchanged() {
            Ok(true) => {}
            Ok(false) => return EndOutcome::Changed,
            Err(error) => return EndOutcome::Failed(error.code()),
        }
        let root = std::mem::take(&mut self.hasher).finish().root;
        let length = self.content.length();
        let id = ContentId { length, root };
        if let Work::Index { sidecar, .. } = &mut self.work {
            deltas.keep(sidecar.take().map(|sidecar| *sidecar), &id);
        }
        deltas.keep_shadow(self.shadow.take(), id);
        EndOutcome::Complete(root)
    }
}

/// New bytes up to this wait for others in the encoder.
const COPIED_BYTES: u64 = 64 * 1024;
/// New bytes that are compressed at a time: 1 to 2 ms of text.
const SQUEEZE_STEP_BYTES: usize = 256 * 1024;
/// Bytes compressed against a basis at a time.
const PREFIX_STEP_BYTES: u64 = 256 * 1024;
