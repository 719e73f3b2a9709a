//! Retention: now and then, versions that are too old or too many are let go, beside the loop.
//!
//! 1. A share is tidied at the start, every few minutes in which something was kept, and every few hours
//!    in any case.
//! 2. A tidying goes to the helper thread for one bounded step, and comes back with the result; then the
//!    next step goes. Commits that wait come in between.
//!
//! The helper holds nothing: between steps the state is here, or in the one job that is under way.
//! Invariant: at most one job at a time, over all shares.

use super::place::Place;
use crate::model::{ItemCode, RelPath, Tick};
use crate::reactor::{Job, Shared};
use crate::store::{Retention, Tidied, Tidying, Versions};
use std::collections::VecDeque;
use std::rc::{Rc, Weak};
use std::sync::mpsc;

/// The timer that begins it.
pub(super) const TIDY_TIMER: u64 = 3;
/// Marks the tickets of these jobs.
const TIDY_TICKET: u64 = 1 << 62;
/// Names that one job looks at.
const STEP_NAMES: usize = 512;
/// Milliseconds between two looks whether there is anything to tidy.
const INTERVAL_MS: u64 = 10 * 60 * 1000;
/// Looks after which everything is tidied, also what nothing came into.
const LOOKS_MAX: u32 = 36;

/// What is tidied, and what comes next.
#[derive(Debug)]
pub(super) struct Tidier {
    retention: Retention,
    shares: Vec<Kept>,
    waiting: VecDeque<usize>,
    sender: mpsc::Sender<Step>,
    receiver: mpsc::Receiver<Step>,
    running: Option<u64>,
    next_ticket: u64,
}

#[derive(Debug)]
struct Kept {
    place: Weak<Place>,
    /// The place of a device in it, which is tidied by itself.
    own: Option<RelPath>,
    /// Versions that had come in when it was tidied last.
    seen: u64,
    looks: u32,
    /// Bytes of versions when they were counted last.
    bytes: Option<u64>,
}

/// A job's result.
#[derive(Debug)]
struct Step {
    share: usize,
    tidying: Option<Tidying>,
    tidied: Tidied,
}

impl Tidier {
    /// For those of `places` that keep versions.
    pub(super) fn new<'p>(retention: Retention, places: impl Iterator<Item = &'p Rc<Place>>) -> Tidier {
        let (sender, receiver) = mpsc::channel();
        let keeping = places.filter(|place| place.versions.is_some());
        let shares: Vec<Kept> = keeping
            .map(|place| Kept {
                place: Rc::downgrade(place),
                own: None,
                seen: 0,
                looks: LOOKS_MAX,
                bytes: None,
            })
            .collect();
        Tidier {
            retention,
            shares,
            waiting: VecDeque::new(),
            sender,
            receiver,
            running: None,
            next_ticket: TIDY_TICKET,
        }
    }

    /// Versions came into the place that a device has at `name` in `share`, or may have.
    pub(super) fn came_in(&mut self, share: &Rc<Place>, name: &RelPath) {
        let is_it = |kept: &&mut Kept| kept.is_in(share) && kept.own.as_ref() == Some(name);
        match self.shares.iter_mut().find(is_it) {
            Some(kept) => kept.looks = LOOKS_MAX,
            None if share.versions.is_some() => self.shares.push(Kept {
                place: Rc::downgrade(share),
                own: Some(name.clone()),
                seen: 0,
                looks: LOOKS_MAX,
                bytes: None,
            }),
            None => {}
        }
    }

    /// Bytes of the versions of `place`, and of those that devices have in it, when they were counted last.
    pub(super) fn bytes_of(&self, place: &Rc<Place>) -> Option<u64> {
        let of_place = self.shares.iter().filter(|share| share.is_in(place));
        of_place.filter_map(|share| share.bytes).reduce(u64::saturating_add)
    }

    /// When [`TIDY_TIMER`] is to be set for, the first time.
    pub(super) fn first(&self, now: Tick) -> Option<Tick> {
        (!self.shares.is_empty()).then_some(now)
    }

    /// The timer went off.
    pub(super) fn look(&mut self, shared: &mut Shared) {
        for (index, share) in self.shares.iter_mut().enumerate() {
            // Of a place that is not held open is told when it closes.
            let place = share.place.upgrade().filter(|_| share.own.is_none());
            let kept = place.map_or(0, |place| place.versions.as_ref().map_or(0, Versions::kept));
            share.looks += 1;
            if (kept != share.seen || share.looks > LOOKS_MAX) && !self.waiting.contains(&index) {
                (share.seen, share.looks) = (kept, 0);
                self.waiting.push_back(index);
            }
        }
        self.begin(shared);
        shared.set_timer(TIDY_TIMER, shared.now() + INTERVAL_MS);
    }

    /// A job ended; whether it was one of these.
    pub(super) fn completed(&mut self, shared: &mut Shared, ticket: u64) -> bool {
        if ticket & (TIDY_TICKET | TIDY_TICKET << 1) != TIDY_TICKET {
            return false;
        }
        if self.running == Some(ticket) {
            self.running = None;
        }
        // A job that panicked sent nothing: its share waits for the next look.
        while let Ok(step) = self.receiver.try_recv() {
            match step.tidying {
                Some(tidying) => self.submit(shared, step.share, tidying),
                None => {
                    let share = &mut self.shares[step.share];
                    share.bytes = Some(step.tidied.kept_bytes);
                    if let Some(place) = share.place.upgrade() {
                        tell(&place, share.own.as_ref(), step.tidied);
                    }
                }
            }
        }
        self.begin(shared);
        true
    }

    fn begin(&mut self, shared: &mut Shared) {
        while self.running.is_none() {
            let Some(index) = self.waiting.pop_front() else { return };
            let kept = &self.shares[index];
            let Some(place) = kept.place.upgrade() else { continue };
            let begun = match &kept.own {
                None => Tidying::begin(&place.root, &self.retention),
                Some(name) => (place.root.enter(name)).and_then(|root| Tidying::begin(&root, &self.retention)),
            };
            match begun {
                // A device's place went away with all that was in it.
                Err(error) if kept.own.is_some() && error.code() == ItemCode::Vanished => {}
                Ok(tidying) => self.submit(shared, index, tidying),
                Err(error) => log::warn!("old versions cannot be removed: {error}"),
            }
        }
    }

    fn submit(&mut self, shared: &mut Shared, share: usize, tidying: Tidying) {
        let (ticket, sender) = (self.next_ticket, self.sender.clone());
        let job: Job = Box::new(move || {
            // The receiver is gone only when the whole node is.
            let _ = sender.send(step(share, tidying));
            Ok(())
        });
        if shared.submit_bulk(ticket, job).is_ok() {
            self.running = Some(ticket);
            self.next_ticket += 1;
        } else {
            // A helper that is behind has more important things to do: the next look is soon enough.
            self.shares[share].looks = LOOKS_MAX;
        }
    }
}

fn step(share: usize, mut tidying: Tidying) -> Step {
    let more = tidying.step(STEP_NAMES).unwrap_or_else(|error| {
        log::warn!("old versions cannot be removed: {error}");
        false
    });
    Step {
        share,
        tidied: tidying.tidied(),
        tidying: more.then_some(tidying),
    }
}

impl Kept {
    fn is_in(&self, place: &Rc<Place>) -> bool {
        self.place.as_ptr() == Rc::as_ptr(place)
    }
}

fn tell(place: &Place, own: Option<&RelPath>, tidied: Tidied) {
    if tidied.versions > 0 {
        let own = own.map_or_else(String::new, |name| format!("/{name}"));
        log::info!(
            "{}{own}: {} old versions were removed, {} bytes",
            place.root.path().display(),
            tidied.versions,
            tidied.bytes
        );
    }
}
