//! What a receiver does with patches: names bases, answers about them, makes files from them.
//!
//! Invariant: a patch is only applied to the very file whose content was named.

use super::patches::{Outcome, Sound, Stepped};
use super::patching::Patching;
use super::receiving::{Books, Receiving, ReceivingPlan, Want};
use super::target::Target;
use super::verifying::Verifying;
use crate::conn::Receiver;
use crate::model::{Fault, ItemCode};
use crate::reactor::Activity;
use crate::store::Expected;
use crate::wire::{Ask, Patch, SettledResult};
use std::sync::Arc;

impl Receiving {
    /// A question about a basis.
    pub(crate) fn handle_ask(&mut self, ask: &Ask<'_>) {
        if let Some(want) = self.wants.get(&ask.file)
            && let (Expected::Present(identity), Some(id)) = (want.expected, want.basis)
        {
            self.questions.push(ask, want.path.clone(), identity, id);
        }
    }

    /// A file starts as a patch.
    pub(crate) fn handle_patch(&mut self, patch: Patch, books: &mut Books<'_>) {
        if let Some(want) = self.wants.get_mut(&patch.file) {
            want.size = patch.size;
            books.ledger.started(patch.file, &want.path);
        }
        self.patches.push(patch);
    }

    /// Follows patches and answers questions, by a bounded amount.
    pub(super) fn patch(&mut self, receiver: &mut Receiver, books: &mut Books<'_>) -> Result<Activity, Fault> {
        let mut patches = std::mem::take(&mut self.patches);
        self.started += 1;
        let (serial, plan, wants) = (self.started, &self.plan, &self.wants);
        let open = |patch: &Patch| {
            let want = wants.get(&patch.file).ok_or(ItemCode::Other)?;
            open_patch(patch, want, plan, serial)
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
                    id,
                    sidecar,
                } = *sound;
                self.plan.place.deltas.keep(sidecar, &id);
                let Some(expected) = self.wants.get(&patch.file).map(|want| want.expected) else {
                    return;
                };
                match target.into_ready(&patch.meta, expected) {
                    Ok(ready) => self.commit_ready(patch.file, ready, Some(id), books),
                    Err(error) => {
                        log::warn!("{error}");
                        self.fail(patch.file, error.code(), receiver, books.ledger);
                    }
                }
            }
            Outcome::Unsound(file) => receiver.settle(file, SettledResult::Resend),
            Outcome::Failed(file, code) => self.fail(file, code, receiver, books.ledger),
        }
    }

    /// A file was committed: next time it is known what it contains.
    pub(super) fn remember(&self, want: &Want) {
        if let Some(id) = &want.id
            && let Ok(Some(found)) = self.plan.place.root.probe(&want.path)
        {
            self.plan.place.deltas.note(id, &found.identity);
        }
    }
}

/// Begins a patch; `None` when its basis is not what was named any more.
fn open_patch(patch: &Patch, want: &Want, plan: &ReceivingPlan, serial: u64) -> Result<Option<Patching>, ItemCode> {
    let place = &plan.place;
    let basis = place.root.open_file(&want.path).map_err(|error| error.code());
    let Ok(basis) = basis else { return Ok(None) };
    if want.expected != Expected::Present(basis.identity()) || want.basis != Some(patch.basis) {
        return Ok(None);
    }
    let code = |error: crate::store::FileError| {
        log::warn!("{error}");
        error.code()
    };
    let target = Target::open(place, basis, &want.path, patch.size, plan.in_place).map_err(code)?;
    let file = target.file().try_clone().map_err(|_| ItemCode::Other)?;
    let sidecar = place.deltas.begin_patched(&patch.basis, patch.size);
    let verifying = Verifying::new(Arc::new(file), serial, sidecar);
    let leaves = place.deltas.open(&patch.basis);
    match Patching::new(target, patch, verifying, leaves) {
        Ok(patching) => Ok(Some(patching)),
        // What cannot be decoded here is sent whole.
        Err(_) => Ok(None),
    }
}
