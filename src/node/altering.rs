//! Moves and removals that a client asked for, made one after the other and then durable together.
//!
//! Invariant: what gives way is at the revision that the client saw, and goes to the versions; nothing is
//! overwritten.

use super::activity::Done;
use super::commit::{Closing, Done as Ended};
use super::leftover::Removed;
use super::place::Place;
use super::receiving::Books;
use super::sharing::Currency;
use super::slice::Slice;
use crate::conn::Machine;
use crate::model::{DeviceId, ItemCode, RelPath, Revision};
use crate::reactor::{Activity, ConnId};
use crate::store::{FileError, FoundKind};
use crate::wire::{Alter, Alteration, Altered};
use std::collections::{BTreeSet, VecDeque};
use std::rc::Rc;

/// A list of changes in progress.
pub(crate) struct Altering {
    owner: ConnId,
    place: Rc<Place>,
    peer: Option<DeviceId>,
    waiting: VecDeque<Alteration>,
    outcomes: Vec<Result<(), ItemCode>>,
    /// Directories whose names changed.
    changed: BTreeSet<Option<RelPath>>,
    phase: Phase,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Working,
    /// The barrier runs.
    Closing,
    Ended,
}

impl Altering {
    pub(crate) fn new(owner: ConnId, place: Rc<Place>, peer: Option<DeviceId>, alter: Alter) -> Altering {
        Altering {
            owner,
            place,
            peer,
            outcomes: Vec::with_capacity(alter.list.len()),
            waiting: alter.list.into(),
            changed: BTreeSet::new(),
            phase: Phase::Working,
        }
    }

    /// Bytes of memory that it takes, about.
    pub(crate) fn held_bytes(&self) -> usize {
        let each = size_of::<Alteration>() + 128;
        self.waiting.capacity() * each + self.outcomes.capacity() + self.changed.len() * 128
    }

    /// Whether the answer was given.
    pub(crate) fn is_ended(&self) -> bool {
        self.phase == Phase::Ended
    }

    /// Makes as many of the changes as there is time for; at the end has them flushed, and answers.
    pub(crate) fn step(&mut self, machine: &mut Machine, books: &mut Books<'_>) -> Activity {
        match self.phase {
            Phase::Working => {}
            Phase::Closing => {
                self.conclude(machine, books);
                return Activity::Idle;
            }
            Phase::Ended => return Activity::Idle,
        }
        self.place.root.forget_parents();
        let slice = Slice::begin();
        while let Some(one) = self.waiting.pop_front() {
            let outcome = self.make(&one, books);
            self.outcomes.push(outcome);
            if slice.is_over() {
                return Activity::More;
            }
        }
        let closing = Closing {
            metas: Vec::new(),
            changed: std::mem::take(&mut self.changed).into_iter().collect(),
            own: None,
        };
        books.committer.close(&self.place, self.owner, closing);
        self.phase = Phase::Closing;
        Activity::Idle
    }

    fn make(&mut self, one: &Alteration, books: &mut Books<'_>) -> Result<(), ItemCode> {
        match one {
            Alteration::Remove { path, based_on } => {
                if !self.check(path, *based_on)? {
                    // It went by itself, and whoever asks hears of that.
                    self.place.note(path, None, self.peer);
                    return Ok(());
                }
                match self.place.take_away(path, self.peer).map_err(|error| code_of(&error)) {
                    Ok(Removed::Gone) => books.ledger.did(path, Done::Deleted, None),
                    Ok(Removed::Stays) => return Ok(()),
                    // It went by itself.
                    Err(ItemCode::Vanished) => {}
                    Err(code) => return Err(code),
                }
                self.changed.insert(path.parent());
                self.place.note(path, None, self.peer);
            }
            Alteration::Move {
                from,
                from_based_on,
                to,
            } => {
                if !self.check(from, *from_based_on)? || self.check(to, Revision::NONE)? {
                    return Err(ItemCode::Stale);
                }
                let made = self.place.root.make_parents(to);
                for made in made.map_err(|error| self.outdated(to, &error))? {
                    books.committer.made_directory(&self.place, made.clone());
                    self.place.note(&made, None, self.peer);
                    books.ledger.did(&made, Done::Made, None);
                }
                self.place.root.rename_new(from, to).map_err(|error| code_of(&error))?;
                books.ledger.moved_to(from, to);
                self.changed.extend([from.parent(), to.parent()]);
                for path in [from, to] {
                    self.place.note(path, None, self.peer);
                }
            }
        }
        Ok(())
    }

    /// The client must have seen what stands there, and nobody may have changed it on the disk since. Returns whether
    /// anything stands there; where nothing does, and the index knows of nothing, any revision is right.
    fn check(&self, path: &RelPath, based_on: Revision) -> Result<bool, ItemCode> {
        let found = self.place.root.find_exactly(path).map_err(|error| code_of(&error))?;
        if found.is_some_and(|found| found.kind == FoundKind::Special) {
            return Err(ItemCode::InTheWay);
        }
        let is_current = |revision| {
            matches!(
                self.place.currency(path, revision, found.as_ref()),
                Currency::Current(_)
            )
        };
        match found {
            Some(_) if is_current(based_on) => Ok(true),
            None if is_current(Revision::NONE) => Ok(false),
            _ => {
                self.place.doubt(path);
                Err(ItemCode::Stale)
            }
        }
    }

    /// What the target of a move is to be put into is no directory any more: the client has not heard of that yet.
    fn outdated(&self, path: &RelPath, error: &FileError) -> ItemCode {
        match code_of(error) {
            ItemCode::InTheWay | ItemCode::Escapes => {
                self.place.doubt(path);
                ItemCode::Stale
            }
            code => code,
        }
    }

    fn conclude(&mut self, machine: &mut Machine, books: &mut Books<'_>) {
        for done in books.committer.take_results(self.owner) {
            let Ended::Closed { durable, .. } = done else { continue };
            if let Err(code) = durable {
                // Nothing of it may be called done.
                self.outcomes.iter_mut().for_each(|outcome| *outcome = Err(code));
            }
            machine.altered(&Altered {
                outcomes: std::mem::take(&mut self.outcomes),
            });
            self.phase = Phase::Ended;
        }
    }
}

fn code_of(error: &FileError) -> ItemCode {
    log::info!("{error}");
    error.code()
}
