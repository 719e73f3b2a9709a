//! What a receiver does with patches: names bases, answers about them, makes files from them.
//!
//! Invariant: a patch is only applied to the very file whose content was named.

use super::partial::{Kept, Parked, Partial};
use super::patches::{Outcome, Sound, Stepped};
use super::patching::{PatchError, Patching};
use super::place::Place;
use super::questions::Named;
use super::receiving::{Books, Receiving, ReceivingPlan, Want};
use super::resumes::Lease;
use super::target::Target;
use super::verifying::Verifying;
use crate::conn::Receiver;
use crate::model::limits::{MEDIUM_BYTES_MAX, WHOLE_BYTES_MAX};
use crate::model::{ContentId, Fault, ItemCode};
use crate::reactor::Activity;
use crate::store::{
    Expected, FileError, FoundKind, Identity, Incoming, MappedSidecar, PlanBasis, SidecarWriter, SourceFile, StagedFile,
};
use crate::wire::{Ask, Patch, PatchForm, SettledResult};
use std::rc::Rc;
use std::sync::Arc;

impl Receiving {
    /// A question about a basis.
    pub(crate) fn handle_ask(&mut self, ask: &Ask<'_>) {
        let Some(want) = self.wants.get(&ask.file) else { return };
        let Some(id) = want.basis else { return };
        let named = match (&want.repair, want.expected) {
            (Some(repair), _) => Some(Named::Staged(repair.source.share())),
            (None, Expected::Present(identity)) => Some(Named::InPlace(want.path.clone(), identity)),
            (None, _) => None,
        };
        // Without an answer the file would wait for ever.
        self.questions.push(ask, named.unwrap_or(Named::Gone), id);
    }

    /// A file starts as a patch.
    pub(crate) fn handle_patch(&mut self, patch: Patch, books: &mut Books<'_>) {
        self.start_patch(patch, None, books);
    }

    /// A file starts as a patch, behind what an earlier transfer staged of it.
    pub(crate) fn handle_resumed_patch(&mut self, patch: Patch, books: &mut Books<'_>) {
        let want = self.wants.get_mut(&patch.file);
        let partial = want.and_then(|want| want.partial.take());
        let resumed_bytes = partial.as_ref().map_or(0, Parked::length);
        self.start_patch(patch, partial, books);
        books.ledger.resumed(patch.file, resumed_bytes);
    }

    fn start_patch(&mut self, patch: Patch, partial: Option<Parked>, books: &mut Books<'_>) {
        if let Some(want) = self.wants.get_mut(&patch.file) {
            want.size = patch.size;
            books.ledger.started(patch.file, &want.path);
            if let Some(unused) = want.partial.take() {
                unused.discard(&self.plan.place);
            }
        }
        self.patches.push(patch, partial);
    }

    /// Follows patches and answers questions, by a bounded amount.
    pub(super) fn patch(&mut self, receiver: &mut Receiver, books: &mut Books<'_>) -> Result<Activity, Fault> {
        let basis = self.patches.next_basis().filter(|_| !self.plan.checksum);
        if basis.is_some_and(|basis| !self.plan.place.deltas.prepare(&basis)) {
            return Ok(Activity::More);
        }
        let mut patches = std::mem::take(&mut self.patches);
        self.started += 1;
        let (serial, plan, wants) = (self.started, &self.plan, &self.wants);
        let open = |patch: &Patch, partial: Option<Parked>| {
            let want = wants.get(&patch.file).ok_or(ItemCode::Other)?;
            open_patch(patch, want, plan, partial, serial)
        };
        let stepped = patches.step(self.owner, books.committer, books.scratch, open);
        self.patches = patches;
        let Stepped {
            file,
            plan_bytes,
            literal_bytes,
            matched_bytes,
            outcomes,
            more,
        } = stepped?;
        receiver.consumed(plan_bytes);
        books.ledger.moved(file, literal_bytes);
        books.ledger.matched(file, matched_bytes);
        for outcome in outcomes {
            self.patched(outcome, receiver, books);
        }
        let answering = self.questions.step(receiver, &self.plan.place, books.scratch);
        Ok(if more { Activity::More } else { answering })
    }

    fn patched(&mut self, outcome: Outcome, receiver: &mut Receiver, books: &mut Books<'_>) {
        match outcome {
            Outcome::Sound(sound) => {
                let Sound {
                    patch,
                    target,
                    lease,
                    id,
                    sidecar,
                } = *sound;
                self.plan.place.deltas.keep(sidecar, &id);
                let Some(want) = self.wants.get_mut(&patch.file) else {
                    return;
                };
                want.lease = lease;
                let expected = want.expected;
                let mtime = patch.meta.mtime;
                let ready = target.into_ready(&patch.meta, expected);
                if let Some(lease) = &want.lease {
                    lease.committing();
                }
                match ready {
                    Ok(ready) => self.commit_ready(patch.file, ready, Some((id, mtime)), books),
                    Err(error) => {
                        log::warn!("{error}");
                        self.fail(patch.file, error.code(), receiver, books.ledger);
                    }
                }
            }
            Outcome::Unsound(file, found) => self.repair(file, found.map(|found| *found), receiver),
            Outcome::Failed(file, code) => self.fail(file, code, receiver, books.ledger),
        }
    }

    /// What has come is not what it should be. If it is known what it is, it becomes the basis of the next
    /// attempt; else the file is sent again, whole.
    pub(super) fn repair(&mut self, file: u32, found: Option<Staged>, receiver: &mut Receiver) {
        let Some(want) = self.wants.get_mut(&file) else {
            return;
        };
        let made = want.repair.take().map_or(0, |repair| repair.made);
        let found = found.filter(|found| {
            self.plan.delta && made < REPAIRS_MAX && found.id.length > WHOLE_BYTES_MAX && want.size > WHOLE_BYTES_MAX
        });
        let source = found.as_ref().and_then(|found| found.staged.as_source().ok());
        let source = source.filter(|source| found.as_ref().is_some_and(|found| found.id.length == source.size()));
        let (Some(Staged { staged, id, sidecar }), Some(source)) = (found, source) else {
            return receiver.settle(file, SettledResult::Resend);
        };
        log::info!("{} is repaired: what was pieced together differs", want.path);
        self.plan.place.deltas.keep(sidecar, &id);
        want.basis = Some(id);
        want.repair = Some(Repair {
            staged,
            source,
            made: made + 1,
        });
        receiver.repair(file, id);
    }

    /// A file was committed: next time it is known what it contains. Unless somebody has written to it
    /// since, which shows in its time: what is noted is believed later, without reading it again.
    pub(super) fn remember(&self, want: &Want) {
        if let Expected::Present(replaced) = &want.expected {
            self.plan.place.deltas.forget(replaced);
        }
        if let Some(committed) = &want.committed
            && let Ok(Some(found)) = self.plan.place.root.probe(&want.path)
            // Whoever has written to it since has changed its time.
            && found.kind == (FoundKind::File { size: committed.id.length })
            && found.meta.mtime == committed.mtime
            && committed.may_be(&found.identity)
        {
            self.plan.place.deltas.note(&committed.id, &found.identity);
        }
    }
}

/// What was pieced together of a file and is not what it should be.
pub(super) struct Staged {
    pub(super) staged: StagedFile,
    pub(super) id: ContentId,
    pub(super) sidecar: Option<SidecarWriter>,
}

/// What the next attempt at a file is made from.
pub(super) struct Repair {
    /// Removed from the disk when this is dropped.
    #[expect(dead_code, reason = "holds the file in staging")]
    staged: StagedFile,
    source: SourceFile,
    /// Repairs of this file so far, with this one.
    made: u32,
}

impl Repair {
    /// From a staged file of the content `id`.
    pub(super) fn with(staged: StagedFile, id: &ContentId) -> Option<Repair> {
        let source = staged.as_source().ok().filter(|source| source.size() == id.length)?;
        let made = 0;
        Some(Repair { staged, source, made })
    }
}

/// After so many repairs in vain a file is sent whole, in the last attempt that there is.
const REPAIRS_MAX: u32 = 2;

/// Begins a patch; `None` when its basis is not what was named any more.
fn open_patch(
    patch: &Patch,
    want: &Want,
    plan: &ReceivingPlan,
    partial: Option<Parked>,
    serial: u64,
) -> Result<Option<Patching>, ItemCode> {
    let place = &plan.place;
    let basis = match &want.repair {
        Some(repair) => Ok(repair.source.share()),
        None => place.root.open_file(&want.path),
    };
    let is_named = |basis: &SourceFile| {
        let found = want.repair.is_some() || want.expected == Expected::Present(basis.identity());
        found && want.basis == Some(patch.basis)
    };
    let Some(basis) = basis.ok().filter(is_named) else {
        partial.into_iter().for_each(|partial| partial.discard(place));
        return Ok(None);
    };
    // Who asks for checksums has what stayed in place read again.
    let leaves = (!plan.checksum).then(|| place.deltas.open(&patch.basis)).flatten();
    if partial.as_ref().is_some_and(|partial| !partial.is_for(patch.size)) {
        partial.into_iter().for_each(|partial| partial.discard(place));
        return Ok(None);
    }
    let patching = match partial {
        Some(partial) => {
            let partial = partial.reopen(place, &want.path, &want.expected)?;
            resumed(place, patch, basis, partial, leaves, serial)?
        }
        None => {
            let (target, lease) = begin(patch, want, plan, basis)?;
            let file = target.file().try_clone().map_err(|_| ItemCode::Other)?;
            let sidecar = place.deltas.begin_patched(&patch.basis, patch.size);
            let mut verifying = Verifying::new(Arc::new(file), serial, sidecar);
            if target.is_flushed(place.durability) {
                verifying.flush_on_the_way();
            }
            Patching::new(target, patch, verifying, leaves, lease)
        }
    };
    match patching {
        Ok(patching) => Ok(Some(patching)),
        // What cannot be decoded here is sent whole.
        Err(_) => Ok(None),
    }
}

/// Where a patch goes, and the right to that if it is remembered.
fn begin(
    patch: &Patch,
    want: &Want,
    plan: &ReceivingPlan,
    basis: SourceFile,
) -> Result<(Target, Option<Lease>), ItemCode> {
    let place = &plan.place;
    let identity = basis.identity();
    if plan.in_place && want.repair.is_none() {
        let lease = remembered(patch, want, plan, (identity, true));
        let kept = lease.as_ref().map(Lease::id);
        match Target::gather(place, &want.path, &identity, patch.size, kept) {
            Ok(target) => return Ok((target, lease)),
            Err(error) => log::info!("{} is replaced, not changed in place: {error}", want.path),
        }
        lease.into_iter().for_each(Lease::end);
    }
    let lease = remembered(patch, want, plan, (identity, false));
    let kept = lease.as_ref().map(Lease::id);
    let target = Target::stage(place, basis, &want.path, patch.size, kept).map_err(code)?;
    Ok((target, lease))
}

/// Goes on behind what is there of the result.
fn resumed(
    place: &Rc<Place>,
    patch: &Patch,
    basis: SourceFile,
    partial: Partial,
    leaves: Option<MappedSidecar>,
    serial: u64,
) -> Result<Result<Patching, PatchError>, ItemCode> {
    let Partial { kept, lease, hasher } = partial;
    let target = match kept {
        Kept::Staged(staged) => Target::behind(staged, basis, patch.size, hasher.length()).map_err(code)?,
        Kept::Changes(work) => Target::gathered(place, *work),
    };
    let file = target.file().try_clone().map_err(|_| ItemCode::Other)?;
    let mut verifying = Verifying::behind(hasher, Arc::new(file), serial);
    if target.is_flushed(place.durability) {
        verifying.flush_on_the_way();
    }
    Ok(Patching::new(target, patch, verifying, leaves, Some(lease)))
}

/// A patch of a large file is remembered, in case that the transfer breaks off. One that changes a small file in
/// place is not: its sender would go on without the basis, and nothing can be written behind changes.
fn remembered(
    patch: &Patch,
    want: &Want,
    plan: &ReceivingPlan,
    (identity, in_place): (Identity, bool),
) -> Option<Lease> {
    let least = if in_place {
        patch.size.min(patch.basis.length)
    } else {
        patch.size
    };
    let is_large = least > MEDIUM_BYTES_MAX && patch.form != PatchForm::Prefix;
    if !plan.resume || !is_large || want.repair.is_some() {
        return None;
    }
    plan.place.resumes.begin(Incoming {
        path: want.path.clone(),
        peer: plan.peer,
        size: patch.size,
        mtime: patch.meta.mtime,
        basis: Some(PlanBasis {
            id: patch.basis,
            identity,
            in_place,
        }),
    })
}

#[expect(clippy::needless_pass_by_value, reason = "used to map errors")]
fn code(error: FileError) -> ItemCode {
    log::warn!("{error}");
    error.code()
}
