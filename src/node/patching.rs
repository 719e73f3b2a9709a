//! A file that arrives as a patch of the version that is here.
//!
//! 1. The plan's bytes come as content and wait until it is this file's turn.
//! 2. In steps: they are decompressed, decoded and followed. Copies go from the basis to the staged
//!    file in pieces; what is new is written.
//! 3. Behind the place that is reached, complete chunks are hashed: leaves that stand where they stood
//!    in the basis keep the hash that its sidecar has.
//!
//! Invariant: a byte of the plan counts as dealt with, and makes room for another, when it was followed.

use super::commit::Committer;
use super::resumes::Lease;
use super::slice::Slice;
use super::target::Target;
use super::verifying::{CheckedChunk, Task, Verifying};
use crate::delta::prefix::{PrefixDecoder, PrefixError};
use crate::delta::squeeze::{SqueezeError, Unsqueezer};
use crate::delta::{Instruction, PlanDecoder, PlanError};
use crate::model::limits::{LEAF_BYTES, SQUEEZE_WINDOW_LOG_MAX, plan_bytes_max};
use crate::model::{ContentId, Fault, ItemCode};
use crate::reactor::ConnId;
use crate::store::{FileError, MappedSidecar, SidecarWriter};
use crate::wire::{Patch, PatchForm};

/// A patch that is being followed.
pub(super) struct Patching {
    target: Target,
    plan: Plan,
    /// Bytes of the result that are there.
    done: u64,
    copying: Option<Copying>,
    verifying: Verifying,
    /// The leaves of the basis, if they are known.
    leaves: Option<MappedSidecar>,
    /// The right to a kept file.
    lease: Option<Lease>,
}

/// A copy that is not complete.
#[derive(Debug, Clone, Copy)]
struct Copying {
    from: u64,
    left: u64,
}

/// What reads the plan.
enum Plan {
    Plain(PlanDecoder),
    Squeezed(Box<Unsqueezer>, PlanDecoder),
    /// Some of the basis is still to be given to the decoder.
    Prefix {
        decoder: Box<PrefixDecoder>,
        primed: u64,
        /// Bytes of the plan that were followed.
        followed: u64,
    },
}

impl Plan {
    /// Reads a plan of what is behind `done` in a result of `to` bytes.
    fn new(form: PatchForm, from: u64, to: u64, done: u64) -> Result<Plan, PatchError> {
        let decoder = PlanDecoder::new(from, to - done);
        Ok(match form {
            PatchForm::Plan => Plan::Plain(decoder),
            PatchForm::Squeezed => Plan::Squeezed(Box::new(Unsqueezer::new(plan_bytes_max(to))), decoder),
            PatchForm::Prefix if done > 0 => {
                return Err(PatchError::Peer(Fault::protocol("a patch that cannot be resumed")));
            }
            PatchForm::Prefix => Plan::Prefix {
                decoder: Box::new(PrefixDecoder::new(from, to)?),
                primed: 0,
                followed: 0,
            },
        })
    }
}

/// What a step came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Followed {
    /// Bytes of the plan that were followed.
    pub(super) plan_bytes: usize,
    /// Bytes that came with the plan.
    pub(super) literal_bytes: u64,
    /// Bytes that were here already.
    pub(super) matched_bytes: u64,
    /// There is more to do at once.
    pub(super) more: bool,
}

/// Why a patch is not followed to its end.
#[derive(Debug)]
pub(super) enum PatchError {
    /// The peer sent what is no plan.
    Peer(Fault),
    /// Something here is in the way of this file.
    File(ItemCode),
}

/// The result, complete but for its checks.
pub(super) struct Patched {
    pub(super) target: Target,
    verifying: Verifying,
    leaves: Option<MappedSidecar>,
    lease: Option<Lease>,
}

/// Most bytes of the result that one step makes, if there is time for so many.
const STEP_BYTES: u64 = 4 << 20;
/// Bytes of a decoder of zstd without its window.
const UNPACKER_BYTES: u64 = 256 * 1024;
/// Bytes of the basis that are read at a time.
const PRIME_BYTES: usize = 1 << 20;

impl Patching {
    pub(super) fn new(
        target: Target,
        patch: &Patch,
        verifying: Verifying,
        leaves: Option<MappedSidecar>,
        lease: Option<Lease>,
    ) -> Result<Patching, PatchError> {
        let done = verifying.start();
        let (from, to) = (target.basis().size(), target.length());
        let plan = match Plan::new(patch.form, from, to, done) {
            Ok(plan) => plan,
            Err(error) => {
                target.discard(lease);
                return Err(error);
            }
        };
        Ok(Patching {
            target,
            plan,
            done,
            copying: None,
            verifying,
            leaves,
            lease,
        })
    }

    /// Bytes of memory that it takes, about: what a decoder may look back at above all.
    pub(super) fn held_bytes(&self) -> usize {
        let window = match &self.plan {
            Plan::Plain(_) => 0,
            Plan::Squeezed(..) => self.target.length().min(1 << SQUEEZE_WINDOW_LOG_MAX) + UNPACKER_BYTES,
            Plan::Prefix { .. } => self.target.basis().size() + self.target.length() + UNPACKER_BYTES,
        };
        size_of::<Patching>() + usize::try_from(window).unwrap_or(usize::MAX)
    }

    /// What was made is of no use: it is removed.
    pub(super) fn discard(self) {
        self.target.discard(self.lease);
    }

    /// Follows the plan over `input`, from its front, for a bounded time.
    pub(super) fn step(
        &mut self,
        mut input: &[u8],
        owner: ConnId,
        committer: &mut Committer,
        scratch: &mut Vec<u8>,
    ) -> Result<Followed, PatchError> {
        if self.lease.as_ref().is_some_and(Lease::is_revoked) {
            return Err(PatchError::File(ItemCode::TakenOver));
        }
        let length = input.len();
        let start = self.done;
        let slice = Slice::begin();
        let mut followed = Followed::default();
        loop {
            let is_behind = self.check(owner, committer);
            if is_behind || self.done - start >= STEP_BYTES || slice.is_over() {
                followed.more = true;
                break;
            }
            if self.target.is_moving() {
                self.move_on(scratch)?;
                followed.more = true;
                break;
            }
            if let Some(copied) = self.copy_on()? {
                followed.matched_bytes += copied;
                continue;
            }
            let went = match &mut self.plan {
                Plan::Prefix { decoder, primed, .. } if *primed < self.target.basis().size() => {
                    *primed += prime(decoder, &self.target, *primed, scratch)?;
                    followed.more = true;
                    break;
                }
                _ => self.follow(&mut input, &mut followed)?,
            };
            if went == Went::Dry {
                break;
            }
        }
        followed.plan_bytes = length - input.len();
        if let Plan::Prefix { followed: all, .. } = &mut self.plan {
            // Old and new bytes cannot be told apart here: new is what had to travel.
            followed.literal_bytes = followed.plan_bytes as u64;
            *all += followed.literal_bytes;
        }
        Ok(followed)
    }

    /// Goes on with a copy that was begun. `None`: there is none.
    fn copy_on(&mut self) -> Result<Option<u64>, PatchError> {
        let Some(Copying { from, left }) = self.copying else {
            return Ok(None);
        };
        let copied = self
            .target
            .copy(from, self.done, left)
            .map_err(|error| failed(&error))?;
        self.done += copied;
        self.copying = (copied < left).then_some(Copying {
            from: from + copied,
            left: left - copied,
        });
        Ok(Some(copied))
    }

    /// What was gathered for a change in place goes on to a staged file.
    fn move_on(&mut self, scratch: &mut Vec<u8>) -> Result<(), PatchError> {
        let is_flushed = self.target.is_flushed_once_moved();
        let noted = (&mut self.lease, self.verifying.checked_so_far());
        let moved = self.target.move_on(self.done, noted, scratch);
        if let Some(staged) = moved.map_err(|error| failed(&error))? {
            self.verifying.go_on_in(staged);
            if is_flushed {
                self.verifying.flush_on_the_way();
            }
        }
        Ok(())
    }

    /// Follows the next instruction, or takes more of the input.
    fn follow(&mut self, input: &mut &[u8], followed: &mut Followed) -> Result<Went, PatchError> {
        let decoder = match &mut self.plan {
            Plan::Prefix { decoder, .. } => {
                return match decoder.next(input)? {
                    None if input.is_empty() => Ok(Went::Dry),
                    None => Ok(Went::On),
                    Some(bytes) => {
                        self.target
                            .write_changes(self.done, bytes)
                            .map_err(|error| failed(&error))?;
                        self.done += bytes.len() as u64;
                        Ok(Went::On)
                    }
                };
            }
            Plan::Plain(decoder) | Plan::Squeezed(_, decoder) => decoder,
        };
        match decoder.next()? {
            Some(Instruction::Copy { from, length }) => {
                self.copying = Some(Copying { from, left: length });
                return Ok(Went::On);
            }
            Some(Instruction::Literal(bytes)) => {
                self.target.write_at(self.done, bytes).map_err(|error| failed(&error))?;
                self.done += bytes.len() as u64;
                followed.literal_bytes += bytes.len() as u64;
                return Ok(Went::On);
            }
            None => {}
        }
        if input.is_empty() {
            return Ok(Went::Dry);
        }
        match &mut self.plan {
            Plan::Squeezed(unsqueezer, decoder) => {
                if let Some(bytes) = unsqueezer.next(input)? {
                    decoder.push(bytes);
                }
            }
            Plan::Plain(decoder) => {
                let (now, rest) = input.split_at(input.len().min(PLAN_PIECE_BYTES));
                decoder.push(now);
                *input = rest;
            }
            Plan::Prefix { .. } => {}
        }
        Ok(Went::On)
    }

    /// Has the chunks hashed that are complete. One that has to be hashed here, because the helper thread is
    /// behind, is enough for a step: `true` when there may be more.
    fn check(&mut self, owner: ConnId, committer: &mut Committer) -> bool {
        let mut is_behind = false;
        self.verifying.flush_each(committer.flush_bytes());
        while !is_behind {
            let (start, end) = self.verifying.next_range();
            let (target, leaves) = (&self.target, self.leaves.as_ref());
            let task = || task_of(target, leaves, start, end);
            let Some(check) = self.verifying.next_check(self.done, task) else {
                break;
            };
            if let Some(checked) = committer.check(owner, check) {
                self.verifying.checked(&checked);
                is_behind = true;
            }
        }
        if self
            .lease
            .as_ref()
            .is_some_and(|lease| lease.is_due(self.verifying.checked_so_far()))
        {
            note(&mut self.lease, &mut self.target, &self.verifying);
        }
        is_behind
    }

    /// A check came back; `false` when it belongs to another file.
    pub(super) fn checked(&mut self, checked: &CheckedChunk) -> bool {
        take(&mut self.verifying, checked)
    }

    /// The sender says that the plan is complete, and all of it was followed.
    /// What turns out only now to have been here is added to `matched_bytes`.
    pub(super) fn finish(self, matched_bytes: &mut u64) -> Result<Patched, PatchError> {
        match &self.plan {
            Plan::Plain(decoder) => decoder.finish()?,
            Plan::Squeezed(unsqueezer, decoder) => {
                unsqueezer.finish_early()?;
                decoder.finish()?;
            }
            Plan::Prefix { decoder, followed, .. } => {
                decoder.finish()?;
                *matched_bytes += self.target.length().saturating_sub(*followed);
            }
        }
        debug_assert_eq!(self.done, self.target.length());
        Ok(Patched {
            target: self.target,
            verifying: self.verifying,
            leaves: self.leaves,
            lease: self.lease.inspect(Lease::complete),
        })
    }
}

/// A result, and what it contains.
pub(super) struct Identified {
    pub(super) target: Target,
    pub(super) lease: Option<Lease>,
    /// With its sidecar; none when it could not be read.
    pub(super) found: Option<(ContentId, Option<SidecarWriter>)>,
}

impl Patched {
    /// A check came back; `false` when it belongs to another file.
    pub(super) fn checked(&mut self, checked: &CheckedChunk) -> bool {
        take(&mut self.verifying, checked)
    }

    /// Whether every check has come back.
    pub(super) fn is_checked(&self) -> bool {
        self.verifying.is_complete()
    }

    /// What the result contains, and its sidecar, when it can be read.
    pub(super) fn identify(self) -> Identified {
        let Patched {
            mut target,
            verifying,
            leaves,
            mut lease,
        } = self;
        // A commit takes a while, and may be cut short.
        note(&mut lease, &mut target, &verifying);
        let (start, end) = verifying.next_range();
        let task = task_of(&target, leaves.as_ref(), start, end);
        let found = verifying.finish(target.length(), task);
        Identified { target, lease, found }
    }
}

/// Notes what is verified, and sees to it that another process finds it.
fn note(lease: &mut Option<Lease>, target: &mut Target, verifying: &Verifying) {
    let checked = verifying.checked_so_far();
    if let Some(lease) = lease
        && !lease.is_revoked()
        && target.note(checked.length())
    {
        lease.note(checked);
    }
}

fn take(verifying: &mut Verifying, checked: &CheckedChunk) -> bool {
    let ours = verifying.serial() == checked.place.serial;
    if ours {
        verifying.checked(checked);
    }
    ours
}

/// Whether the plan has more to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Went {
    On,
    /// More of the input is needed.
    Dry,
}

/// Bytes of a plain plan that are decoded at a time.
const PLAN_PIECE_BYTES: usize = 128 * 1024;

/// How a part of the result, of whole leaves unless it is the last, is to be hashed.
fn task_of(target: &Target, leaves: Option<&MappedSidecar>, start: u64, end: u64) -> Task {
    let view = leaves.map(MappedSidecar::view);
    let end = target.length().min(end);
    let known = |leaf: u64| {
        let view = view.as_ref().filter(|_| target.is_kept(leaf));
        view.map(|view| *view.leaf(leaf))
    };
    let leaves = start / LEAF_BYTES as u64..end.div_ceil(LEAF_BYTES as u64);
    target.task(start..end, leaves.map(known).collect())
}

fn failed(error: &FileError) -> PatchError {
    log::warn!("{error}");
    PatchError::File(error.code())
}

/// Gives the next bytes of the basis to the decoder.
fn prime(decoder: &mut PrefixDecoder, target: &Target, primed: u64, scratch: &mut Vec<u8>) -> Result<u64, PatchError> {
    scratch.resize(PRIME_BYTES, 0);
    let count = target.basis().read_at(primed, scratch);
    let count = count.map_err(|error| PatchError::File(error.code()))?;
    if count == 0 {
        return Err(PatchError::File(ItemCode::Changing));
    }
    // A basis that has grown is told by its stat in the end.
    let count = count.min((target.basis().size() - primed) as usize);
    decoder.prime(&scratch[..count])?;
    Ok(count as u64)
}

impl From<PlanError> for PatchError {
    fn from(error: PlanError) -> Self {
        PatchError::Peer(Fault::protocol(error.to_string()))
    }
}

impl From<SqueezeError> for PatchError {
    fn from(error: SqueezeError) -> Self {
        PatchError::Peer(Fault::protocol(error.to_string()))
    }
}

impl From<PrefixError> for PatchError {
    fn from(error: PrefixError) -> Self {
        PatchError::Peer(Fault::protocol(error.to_string()))
    }
}
