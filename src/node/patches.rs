//! The patches of one transfer, in the order in which they came; the first is followed.
//!
//! Opens no file before it is a patch's turn, so that thousands can wait. Memory: bytes of plans that
//! were not followed have used up credit, which bounds them. Invariant: a patch whose result does not
//! have the announced root is never given out as sound.

use super::commit::Committer;
use super::partial::Parked;
use super::patching::{Identified, PatchError, Patched, Patching};
use super::place::Place;
use super::rebuilding::Staged;
use super::resumes::Lease;
use super::target::Target;
use super::verifying::CheckedChunk;
use crate::delta::content_id;
use crate::model::{ContentId, Fault, ItemCode};
use crate::reactor::ConnId;
use crate::store::SidecarWriter;
use crate::wire::{Patch, PatchForm, Start};
use std::collections::VecDeque;

/// The patches of one transfer.
#[derive(Default)]
pub(super) struct Patches {
    queue: VecDeque<Queued>,
    /// Followed to their ends; some of their checks may be out.
    followed: Vec<Finished>,
}

struct Queued {
    patch: Patch,
    /// The plan, as far as it came and was not followed.
    bytes: Vec<u8>,
    taken: usize,
    /// The root, once the plan is complete.
    root: Option<[u8; 32]>,
    state: State,
}

enum State {
    /// For its turn; with what is staged of it already.
    Waiting(Option<Box<Parked>>),
    Following(Box<Patching>),
    /// What comes is dropped; at its end it is asked for again.
    Useless,
}

struct Finished {
    patch: Patch,
    root: [u8; 32],
    patched: Patched,
}

/// What became of a patch.
pub(super) enum Outcome {
    /// The result is what it should be.
    Sound(Box<Sound>),
    /// It is not; this is what it is, if it could be read.
    Unsound(u32, Option<Box<Staged>>),
    /// It cannot be made here.
    Failed(u32, ItemCode),
}

/// A result that is what it should be.
pub(super) struct Sound {
    pub(super) patch: Patch,
    pub(super) target: Target,
    pub(super) lease: Option<Lease>,
    pub(super) id: ContentId,
    pub(super) sidecar: Option<SidecarWriter>,
}

/// What a step did.
#[derive(Default)]
pub(super) struct Stepped {
    /// The file that the figures are of.
    pub(super) file: u32,
    /// Bytes of plans that are dealt with.
    pub(super) plan_bytes: u64,
    pub(super) literal_bytes: u64,
    pub(super) matched_bytes: u64,
    pub(super) outcomes: Vec<Outcome>,
    pub(super) more: bool,
}

impl Patches {
    /// Bytes of memory that they take, about.
    pub(super) fn held_bytes(&self) -> usize {
        let queued = |queued: &Queued| {
            let following = match &queued.state {
                State::Following(patching) => patching.held_bytes(),
                State::Waiting(_) | State::Useless => 0,
            };
            size_of::<Queued>() + queued.bytes.capacity() + following
        };
        self.queue.iter().map(queued).sum::<usize>() + self.followed.len() * size_of::<Finished>()
    }

    /// Whether none is under way.
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// A patch starts, perhaps behind what is staged of its result.
    pub(super) fn push(&mut self, patch: Patch, partial: Option<Parked>) {
        self.queue.push_back(Queued {
            patch,
            bytes: Vec::new(),
            taken: 0,
            root: None,
            state: State::Waiting(partial.map(Box::new)),
        });
    }

    /// A file goes on behind what is of no use for that: what comes is dropped, and asked for again at its end.
    pub(super) fn refuse(&mut self, rest: &Start) {
        let patch = Patch {
            file: rest.file,
            size: rest.size,
            meta: rest.meta,
            basis: content_id(&[]),
            form: PatchForm::Plan,
        };
        self.queue.push_back(Queued {
            patch,
            bytes: Vec::new(),
            taken: 0,
            root: None,
            state: State::Useless,
        });
    }

    /// More of the plan of the patch that came last; `false` when that is another file.
    pub(super) fn content(&mut self, file: u32, bytes: &[u8]) -> bool {
        let last = self.queue.back_mut();
        let Some(last) = last.filter(|last| last.patch.file == file && last.root.is_none()) else {
            return false;
        };
        if last.taken == last.bytes.len() {
            last.bytes.clear();
            last.taken = 0;
        }
        last.bytes.extend_from_slice(bytes);
        true
    }

    /// The plan of `file` is complete, and should give this root; `false` when there is none.
    pub(super) fn end(&mut self, file: u32, root: [u8; 32]) -> bool {
        let last = self.queue.back_mut();
        match last.filter(|last| last.patch.file == file && last.root.is_none()) {
            Some(last) => {
                last.root = Some(root);
                true
            }
            None => false,
        }
    }

    /// The patch of `file` is void. Returns the bytes of its plan that nobody will follow.
    pub(super) fn drop_file(&mut self, file: u32, place: &Place) -> u64 {
        let Some(at) = self.queue.iter().position(|queued| queued.patch.file == file) else {
            return 0;
        };
        let Some(queued) = self.queue.remove(at) else { return 0 };
        match queued.state {
            State::Waiting(Some(partial)) => partial.discard(place),
            State::Following(patching) => patching.discard(),
            State::Waiting(None) | State::Useless => {}
        }
        (queued.bytes.len() - queued.taken) as u64
    }

    /// The basis of the patch that is opened next, if one is.
    pub(super) fn next_basis(&self) -> Option<ContentId> {
        let first = self.queue.front()?;
        matches!(first.state, State::Waiting(_)).then_some(first.patch.basis)
    }

    /// A check came back; `false` when it is none of ours.
    pub(super) fn checked(&mut self, checked: &CheckedChunk) -> bool {
        if let Some(Queued {
            state: State::Following(patching),
            ..
        }) = self.queue.front_mut()
            && patching.checked(checked)
        {
            return true;
        }
        self.followed
            .iter_mut()
            .any(|finished| finished.patched.checked(checked))
    }

    /// Follows the first patch for a bounded time. `open` begins one whose turn has come.
    pub(super) fn step(
        &mut self,
        owner: ConnId,
        committer: &mut Committer,
        scratch: &mut Vec<u8>,
        open: impl FnOnce(&Patch, Option<Parked>) -> Result<Option<Patching>, ItemCode>,
    ) -> Result<Stepped, Fault> {
        let mut stepped = Stepped::default();
        self.collect(&mut stepped);
        let Some(first) = self.queue.front_mut() else {
            return Ok(stepped);
        };
        stepped.file = first.patch.file;
        // Copying is quicker than any disk.
        if !matches!(first.state, State::Useless) && committer.waits_for_disk(owner) {
            return Ok(stepped);
        }
        if let State::Waiting(partial) = &mut first.state {
            let partial = partial.take().map(|partial| *partial);
            match open(&first.patch, partial) {
                Ok(Some(patching)) => first.state = State::Following(Box::new(patching)),
                Ok(None) => first.state = State::Useless,
                Err(code) => return Ok(self.fail(code, stepped)),
            }
        }
        let input = &first.bytes[first.taken..];
        let followed = match &mut first.state {
            State::Following(patching) => match patching.step(input, owner, committer, scratch) {
                Ok(followed) => followed,
                Err(PatchError::Peer(fault)) => return Err(fault),
                Err(PatchError::File(code)) => return Ok(self.fail(code, stepped)),
            },
            State::Waiting(_) | State::Useless => super::patching::Followed {
                plan_bytes: input.len(),
                ..Default::default()
            },
        };
        first.taken += followed.plan_bytes;
        stepped.plan_bytes += followed.plan_bytes as u64;
        stepped.literal_bytes += followed.literal_bytes;
        stepped.matched_bytes += followed.matched_bytes;
        stepped.more = followed.more;
        if !followed.more && first.root.is_some() && first.taken == first.bytes.len() {
            self.conclude(&mut stepped)?;
            stepped.more = !self.queue.is_empty();
        }
        Ok(stepped)
    }

    /// The first patch was followed to its end.
    fn conclude(&mut self, stepped: &mut Stepped) -> Result<(), Fault> {
        let Some(Queued {
            patch,
            root: Some(root),
            state,
            ..
        }) = self.queue.pop_front()
        else {
            return Ok(());
        };
        match state {
            State::Following(patching) => match patching.finish(&mut stepped.matched_bytes) {
                Ok(patched) => self.followed.push(Finished { patch, root, patched }),
                Err(PatchError::Peer(fault)) => return Err(fault),
                Err(PatchError::File(code)) => stepped.outcomes.push(Outcome::Failed(patch.file, code)),
            },
            State::Waiting(_) | State::Useless => stepped.outcomes.push(Outcome::Unsound(patch.file, None)),
        }
        self.collect(stepped);
        Ok(())
    }

    /// Gives out what all checks came back of.
    fn collect(&mut self, stepped: &mut Stepped) {
        let mut at = 0;
        while at < self.followed.len() {
            if !self.followed[at].patched.is_checked() {
                at += 1;
                continue;
            }
            let Finished { patch, root, patched } = self.followed.swap_remove(at);
            let Identified { target, lease, found } = patched.identify();
            stepped.outcomes.push(match found {
                Some((id, sidecar)) if id.root == root => Outcome::Sound(Box::new(Sound {
                    patch,
                    target,
                    lease,
                    id,
                    sidecar,
                })),
                found => {
                    if let Some(lease) = lease {
                        lease.end();
                    }
                    let staged = target.into_staged().zip(found);
                    let staged = staged.map(|(staged, (id, sidecar))| Box::new(Staged { staged, id, sidecar }));
                    Outcome::Unsound(patch.file, staged)
                }
            });
        }
    }

    fn fail(&mut self, code: ItemCode, mut stepped: Stepped) -> Stepped {
        if let Some(first) = self.queue.pop_front() {
            stepped.plan_bytes += (first.bytes.len() - first.taken) as u64;
            if let State::Following(patching) = first.state {
                patching.discard();
            }
            stepped.outcomes.push(Outcome::Failed(first.patch.file, code));
        }
        stepped.more = !self.queue.is_empty();
        stepped
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delta::PlanEncoder;
    use crate::model::{Meta, RelPath, Timestamp};
    use crate::node::options::Durability;
    use crate::node::verifying::Verifying;
    use crate::store::Root;
    use std::sync::Arc;

    const MIB: u64 = 1 << 20;

    // Protects everybody else from a large patch: copying fills the system's memory quicker than a disk takes it,
    // and the next flush would wait for all of that.
    #[test]
    fn a_patch_is_not_copied_far_ahead_of_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        let length = 48 * MIB;
        std::fs::write(dir.path().join("f"), vec![1; length as usize]).unwrap();
        let place = Place::new(Root::open(dir.path()).unwrap(), Durability::Barrier);
        let path = RelPath::parse(b"f").unwrap();
        let mtime = Timestamp { seconds: 1, nanos: 0 };
        let patch = Patch {
            file: 0,
            size: length,
            meta: Meta { mode: 0o600, mtime },
            basis: content_id(&[]),
            form: PatchForm::Plan,
        };
        let mut plan = PlanEncoder::new();
        plan.copy(0, length);
        plan.finish();
        let mut patches = Patches::default();
        patches.push(patch, None);
        assert!(patches.content(0, &plan.take_output()));
        let open = |patch: &Patch, _: Option<Parked>| {
            let basis = place.root.open_file(&path).unwrap();
            let target = Target::stage(&place, basis, &path, length, None).unwrap();
            let file = Arc::new(target.file().try_clone().unwrap());
            let mut verifying = Verifying::new(file, 1, None);
            verifying.flush_on_the_way();
            Ok(Patching::new(target, patch, verifying, None, None).ok())
        };
        let (owner, mut committer, mut copied) = (ConnId::invented(1), Committer::new(), 0);
        loop {
            // No thread takes a check from the committer here: the disk stands still.
            let stepped = patches.step(owner, &mut committer, &mut Vec::new(), open).unwrap();
            copied += stepped.matched_bytes;
            if !stepped.more {
                break;
            }
        }
        assert!((8 * MIB..40 * MIB).contains(&copied), "{copied} bytes");
        assert!(committer.waits_for_disk(owner));
    }
}
