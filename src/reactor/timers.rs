//! Owns the pending timers: a hierarchical wheel over milliseconds. It never reads a clock.
//!
//! 1. A timer lies in the level of the highest 6-bit digit in which its tick differs from the
//!    wheel's time, in the slot of that digit. So all of a level is due before all of the next one.
//! 2. To advance, the first occupied slot of the lowest occupied level is emptied: timers that are
//!    due move to the list of due ones, the others fall to a lower level.
//! 3. Slots are doubly linked lists through a slab: set and cancel are O(1).
//!
//! Awkward: a timer for the past is due at once; a due timer that was not popped yet can be cancelled.
//! Invariant: a timer is popped at or after its tick, once, unless it was cancelled.
//! Source: Varghese and Lauck, "Hashed and hierarchical timing wheels", SOSP 1987; the choice of the
//! level by the differing digit is that of the Linux kernel's and tokio's wheels.

use crate::model::Tick;
use slab::Slab;

const DIGIT_BITS: u32 = 6;
const SLOTS: usize = 1 << DIGIT_BITS;
/// 11 digits of 6 bits cover every 64-bit tick.
const LEVELS: usize = 11;
/// The list of due timers, after all slots.
const DUE: usize = LEVELS * SLOTS;
const NONE: u32 = u32::MAX;

/// Names a timer until it is popped or cancelled; ignored afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimerId {
    index: u32,
    serial: u32,
}

#[derive(Debug)]
struct Timer<K> {
    key: K,
    when: Tick,
    serial: u32,
    list: usize,
    next: u32,
    previous: u32,
}

/// Pending timers, each with a key that tells what it is for.
///
/// Ticks are milliseconds of whichever clock the owner reads; the wheel is told the time.
#[derive(Debug)]
pub struct Timers<K> {
    timers: Slab<Timer<K>>,
    heads: Box<[u32; DUE + 1]>,
    tails: Box<[u32; DUE + 1]>,
    /// Per level, a bit for each slot that is not empty.
    occupied: [u64; LEVELS],
    now: Tick,
    due: usize,
    serial: u32,
}

impl<K: Copy> Default for Timers<K> {
    fn default() -> Timers<K> {
        Timers::new()
    }
}

impl<K: Copy> Timers<K> {
    /// No timers, at tick 0.
    #[must_use]
    pub fn new() -> Timers<K> {
        Timers {
            timers: Slab::new(),
            heads: Box::new([NONE; DUE + 1]),
            tails: Box::new([NONE; DUE + 1]),
            occupied: [0; LEVELS],
            now: Tick(0),
            due: 0,
            serial: 0,
        }
    }

    /// Timers that are pending or due.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.timers.len()
    }

    /// Timers that wait to be popped.
    #[must_use]
    pub fn due(&self) -> usize {
        self.due
    }

    /// Adds a timer; one for the past is due at once.
    ///
    /// # Panics
    /// With more than 2^32 of them.
    pub fn set(&mut self, when: Tick, key: K) -> TimerId {
        let serial = self.serial;
        self.serial = self.serial.wrapping_add(1);
        let timer = Timer {
            key,
            when,
            serial,
            list: DUE,
            next: NONE,
            previous: NONE,
        };
        let index = u32::try_from(self.timers.insert(timer)).expect("timers are bounded by connections and keys");
        self.place(index);
        TimerId { index, serial }
    }

    /// Removes a timer; nothing happens when it was popped or cancelled before.
    pub fn cancel(&mut self, id: TimerId) {
        if self
            .timers
            .get(id.index as usize)
            .is_some_and(|timer| timer.serial == id.serial)
        {
            self.unlink(id.index);
            self.timers.remove(id.index as usize);
        }
    }

    /// The tick at which something may be due: exact within 64 ms, else a lower bound at which the
    /// wheel has to be advanced to know more.
    #[must_use]
    pub fn next(&self) -> Option<Tick> {
        if self.due > 0 {
            return Some(self.now);
        }
        self.first_slot().map(|(_, start)| start)
    }

    /// Moves the time forward; what is due by then can be popped.
    pub fn advance(&mut self, now: Tick) {
        while let Some((list, start)) = self.first_slot().filter(|(_, start)| *start <= now) {
            self.now = self.now.max(start);
            while self.heads[list] != NONE {
                let index = self.heads[list];
                self.unlink(index);
                self.place(index);
            }
        }
        self.now = self.now.max(now);
    }

    /// Takes a due timer, the earliest first.
    pub fn pop(&mut self) -> Option<K> {
        let index = self.heads[DUE];
        if index == NONE {
            return None;
        }
        self.unlink(index);
        Some(self.timers.remove(index as usize).key)
    }

    /// The earliest occupied slot and the tick at which it starts.
    fn first_slot(&self) -> Option<(usize, Tick)> {
        let level = self.occupied.iter().position(|bits| *bits != 0)?;
        let slot = self.occupied[level].trailing_zeros() as usize;
        let shift = DIGIT_BITS * u32::try_from(level).expect("there are 11 levels");
        let above = self.now.0.checked_shr(shift + DIGIT_BITS).unwrap_or(0);
        let start = above.checked_shl(shift + DIGIT_BITS).unwrap_or(0) | (slot as u64) << shift;
        Some((level * SLOTS + slot, Tick(start)))
    }

    /// Links a timer into the list that its tick belongs to at the wheel's time.
    fn place(&mut self, index: u32) {
        let when = self.timers[index as usize].when;
        let list = if when <= self.now {
            self.due += 1;
            DUE
        } else {
            let level = ((when.0 ^ self.now.0).ilog2() / DIGIT_BITS) as usize;
            let slot = (when.0 >> (DIGIT_BITS as usize * level)) as usize % SLOTS;
            self.occupied[level] |= 1 << slot;
            level * SLOTS + slot
        };
        let previous = self.tails[list];
        let timer = &mut self.timers[index as usize];
        (timer.list, timer.previous, timer.next) = (list, previous, NONE);
        match previous {
            NONE => self.heads[list] = index,
            previous => self.timers[previous as usize].next = index,
        }
        self.tails[list] = index;
    }

    fn unlink(&mut self, index: u32) {
        let timer = &self.timers[index as usize];
        let (list, previous, next) = (timer.list, timer.previous, timer.next);
        match previous {
            NONE => self.heads[list] = next,
            previous => self.timers[previous as usize].next = next,
        }
        match next {
            NONE => self.tails[list] = previous,
            next => self.timers[next as usize].previous = previous,
        }
        if list == DUE {
            self.due -= 1;
        } else if self.heads[list] == NONE {
            self.occupied[list / SLOTS] &= !(1 << (list % SLOTS));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[derive(Debug, Clone)]
    enum Step {
        Set(u64),
        Cancel(usize),
        Advance(u64),
    }

    fn distance() -> impl Strategy<Value = u64> {
        prop_oneof![
            0..70u64,
            0..5_000u64,
            0..10_000_000u64,
            Just(u64::MAX >> 1),
            Just(u64::MAX)
        ]
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => distance().prop_map(Step::Set),
            2 => (0..64usize).prop_map(Step::Cancel),
            3 => prop_oneof![0..70u64, 0..5_000u64, 0..20_000_000u64].prop_map(Step::Advance),
        ]
    }

    /// Runs the wheel beside a sorted map and compares what is popped, and that `next` is never late.
    fn agrees_with_a_sorted_map(steps: Vec<Step>) {
        let mut timers = Timers::new();
        let mut model = BTreeMap::new();
        let mut ids = Vec::new();
        let mut now = Tick(0);
        for (key, step) in steps.into_iter().enumerate() {
            match step {
                Step::Set(distance) => {
                    let when = now + distance;
                    ids.push((key, when, timers.set(when, key)));
                    model.insert((when.max(now), key), ());
                }
                Step::Cancel(pick) if !ids.is_empty() => {
                    let (key, when, id) = ids[pick % ids.len()];
                    timers.cancel(id);
                    model.retain(|(at, other), ()| (*at, *other) != (when, key));
                }
                Step::Cancel(_) => {}
                Step::Advance(distance) => {
                    now = now + distance;
                    timers.advance(now);
                    let mut popped: Vec<usize> = std::iter::from_fn(|| timers.pop()).collect();
                    popped.sort_unstable();
                    let mut expected: Vec<usize> =
                        model.range(..=(now, usize::MAX)).map(|((_, key), ())| *key).collect();
                    expected.sort_unstable();
                    assert_eq!(popped, expected);
                    model.retain(|(at, _), ()| *at > now);
                }
            }
            assert_eq!(timers.len(), model.len());
            let earliest = model.keys().next().map(|(at, _)| *at);
            assert_eq!(timers.next().is_some(), earliest.is_some());
            assert!(
                timers.next() <= earliest.map(|at| at.max(now)),
                "{:?} after {earliest:?}",
                timers.next()
            );
        }
    }

    proptest! {
        #[test]
        fn the_wheel_does_what_a_sorted_map_does(steps in prop::collection::vec(step(), 1..200)) {
            agrees_with_a_sorted_map(steps);
        }
    }

    #[test]
    fn waiting_for_next_reaches_a_timer_in_a_few_hops() {
        let mut timers = Timers::new();
        timers.advance(Tick(12_345));
        timers.set(Tick(12_345) + 10_000, ());
        let mut hops = 0;
        while timers.pop().is_none() {
            timers.advance(timers.next().expect("a timer is pending"));
            hops += 1;
        }
        assert!(hops <= 4, "{hops} wake-ups for one timer");
    }
}
