//! Which transfers run at a server and which wait: a line that is fair between visitors.
//!
//! 1. A transfer that begins runs at once when there is room and nobody waits; else it joins the line of its
//!    visitor (a device, or an address for who has no key).
//! 2. When one ends, the next is the first in the line of the visitor whose turn it is; then it is the turn of
//!    the visitor after that. So who begins many transfers waits for its own, not others for them.
//! 3. Places are counted in that order, now and then, and estimated by how fast transfers ended lately.
//!
//! Never touches a connection: the server wakes it. Invariant: at most `active_max` run, and while one waits
//! and there is room, the next one is given its turn.

use crate::model::{DeviceId, Tick};
use crate::reactor::ConnId;
use crate::wire::Queued;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::IpAddr;

/// Whose transfers share a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Visitor {
    Device(DeviceId),
    Address(IpAddr),
}

/// Whether a transfer may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    Now,
    Waits,
}

/// The transfers of a server that run, and those that wait.
#[derive(Debug)]
pub(crate) struct Sessions {
    active_max: usize,
    /// With the number that tells who began first.
    active: HashMap<ConnId, u64>,
    by_age: BTreeMap<u64, ConnId>,
    next_number: u64,
    waiting: HashMap<ConnId, Waiting>,
    lines: HashMap<Visitor, VecDeque<ConnId>>,
    /// Visitors with a line, in the order of their turns.
    turns: VecDeque<Visitor>,
    pace: Pace,
}

#[derive(Debug)]
struct Waiting {
    visitor: Visitor,
    place: u32,
    /// The place that its client was told last.
    told: u32,
}

/// How fast transfers end while others wait.
#[derive(Debug, Default)]
struct Pace {
    /// Milliseconds between two ends, smoothed.
    gap_ms: Option<f64>,
    ended: Option<Tick>,
}

/// The weight of the latest gap.
const PACE_WEIGHT: f64 = 1.0 / 8.0;

impl Pace {
    fn ended(&mut self, now: Tick) {
        if let Some(before) = self.ended.replace(now) {
            #[expect(clippy::cast_precision_loss, reason = "an estimate")]
            let gap = now.since(before) as f64;
            let gap_ms = self.gap_ms.get_or_insert(gap);
            *gap_ms += (gap - *gap_ms) * PACE_WEIGHT;
        }
    }

    fn estimate_ms(&self, place: u32) -> u64 {
        let estimate = self.gap_ms.unwrap_or(0.0) * f64::from(place);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it saturates")]
        let estimate = estimate as u64;
        estimate
    }
}

impl Sessions {
    pub(crate) fn new(active_max: usize) -> Sessions {
        Sessions {
            active_max: active_max.max(1),
            active: HashMap::new(),
            by_age: BTreeMap::new(),
            next_number: 0,
            waiting: HashMap::new(),
            lines: HashMap::new(),
            turns: VecDeque::new(),
            pace: Pace::default(),
        }
    }

    /// A transfer begins on the connection `id`, which has none. `has_room`: memory allows one more.
    pub(crate) fn begin(&mut self, id: ConnId, visitor: Visitor, has_room: bool) -> Turn {
        debug_assert!(!self.active.contains_key(&id) && !self.waiting.contains_key(&id));
        let is_free = self.active.len() < self.active_max && (has_room || self.active.is_empty());
        if is_free && self.waiting.is_empty() {
            self.activate(id);
            return Turn::Now;
        }
        let line = self.lines.entry(visitor).or_default();
        if line.is_empty() {
            self.turns.push_back(visitor);
        }
        line.push_back(id);
        // About; it is counted with the others.
        let place = u32::try_from(self.waiting.len()).unwrap_or(u32::MAX).saturating_add(1);
        let told = 0;
        self.waiting.insert(id, Waiting { visitor, place, told });
        Turn::Waits
    }

    /// The transfer of a connection is over, or it waits no more; nothing happens when it has none.
    pub(crate) fn end(&mut self, id: ConnId, now: Tick) {
        if let Some(number) = self.active.remove(&id) {
            self.by_age.remove(&number);
            return self.pace.ended(now);
        }
        let Some(Waiting { visitor, .. }) = self.waiting.remove(&id) else {
            return;
        };
        if let Some(line) = self.lines.get_mut(&visitor) {
            line.retain(|other| *other != id);
            if line.is_empty() {
                self.lines.remove(&visitor);
                self.turns.retain(|other| *other != visitor);
            }
        }
    }

    /// Gives the next one in line its turn, if there is room for it.
    pub(crate) fn next(&mut self, has_room: bool) -> Option<ConnId> {
        if self.active.len() >= self.active_max || !(has_room || self.active.is_empty()) {
            return None;
        }
        let visitor = self.turns.pop_front()?;
        let line = self.lines.get_mut(&visitor)?;
        let id = line.pop_front()?;
        if line.is_empty() {
            self.lines.remove(&visitor);
        } else {
            self.turns.push_back(visitor);
        }
        self.waiting.remove(&id);
        self.activate(id);
        Some(id)
    }

    fn activate(&mut self, id: ConnId) {
        let number = self.next_number;
        self.next_number += 1;
        self.active.insert(id, number);
        self.by_age.insert(number, id);
    }

    /// Of those that run, the one that began first.
    pub(crate) fn oldest(&self) -> Option<ConnId> {
        self.by_age.first_key_value().map(|(_, id)| *id)
    }

    /// Those that run and began with this number or later, then those before.
    pub(crate) fn by_age_from(&self, number: u64) -> impl Iterator<Item = (u64, ConnId)> + use<'_> {
        let (later, earlier) = (self.by_age.range(number..), self.by_age.range(..number));
        later.chain(earlier).map(|(number, id)| (*number, *id))
    }

    /// Those that run, the one that began last first; without the one that began first of all.
    pub(crate) fn latest_first(&self) -> impl Iterator<Item = ConnId> + use<'_> {
        self.by_age.values().skip(1).rev().copied()
    }

    /// Whether the transfer of a connection has its turn.
    pub(crate) fn is_active(&self, id: ConnId) -> bool {
        self.active.contains_key(&id)
    }

    /// Transfers that run.
    pub(crate) fn active(&self) -> usize {
        self.active.len()
    }

    /// Transfers that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Milliseconds until somebody at the end of the line has its turn; 0 when nobody can say.
    pub(crate) fn estimate_ms(&self) -> u64 {
        let after_all = u32::try_from(self.waiting.len()).unwrap_or(u32::MAX);
        self.pace.estimate_ms(after_all)
    }

    /// What the client of a waiting transfer has to be told, unless it was.
    pub(crate) fn news(&mut self, id: ConnId) -> Option<Queued> {
        let waiting = self.waiting.get_mut(&id)?;
        if waiting.told == waiting.place {
            return None;
        }
        waiting.told = waiting.place;
        Some(Queued {
            position: waiting.place,
            estimate_ms: self.pace.estimate_ms(waiting.place),
        })
    }

    /// Counts the places anew; those to whom there is something to say.
    pub(crate) fn count_places(&mut self) -> Vec<ConnId> {
        let mut lines: Vec<_> = self
            .turns
            .iter()
            .filter_map(|visitor| self.lines.get(visitor))
            .collect();
        let mut changed = Vec::new();
        let (mut place, mut round) = (0, 0);
        while !lines.is_empty() {
            lines.retain(|line| {
                let Some(id) = line.get(round) else {
                    return false;
                };
                place += 1;
                if let Some(waiting) = self.waiting.get_mut(id) {
                    waiting.place = place;
                    if waiting.told != place {
                        changed.push(*id);
                    }
                }
                true
            });
            round += 1;
        }
        debug_assert_eq!(place as usize, self.waiting.len());
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn visitor(number: u8) -> Visitor {
        Visitor::Device(DeviceId([number; 32]))
    }

    fn id(number: u32) -> ConnId {
        ConnId::invented(number)
    }

    /// Three visitors, of which the first begins most: 10 to 14, then 20, then 30.
    fn crowd(sessions: &mut Sessions) {
        for number in [10, 11, 12, 13, 14, 20, 30] {
            let visitor = visitor(u8::try_from(number / 10).unwrap());
            sessions.begin(id(number), visitor, true);
        }
    }

    // Strictly one at a time, when that was asked for; nobody waits for the many of another.
    #[test]
    fn one_runs_at_a_time_and_visitors_take_turns() {
        let mut sessions = Sessions::new(1);
        crowd(&mut sessions);
        assert_eq!((sessions.active(), sessions.waiting()), (1, 6));
        assert_eq!(sessions.next(true), None, "the first still runs");
        let mut order = Vec::new();
        let mut running = id(10);
        loop {
            sessions.end(running, Tick(0));
            let Some(next) = sessions.next(true) else { break };
            assert!(sessions.is_active(next) && sessions.active() == 1);
            order.push(next);
            running = next;
        }
        assert_eq!(order, [11, 20, 30, 12, 13, 14].map(id));
        assert_eq!((sessions.active(), sessions.waiting()), (0, 0));
        assert!(sessions.lines.is_empty() && sessions.turns.is_empty());
    }

    // What a client is told is the order in which turns are given.
    #[test]
    fn places_are_counted_in_the_order_of_the_turns_and_told_once() {
        let mut sessions = Sessions::new(1);
        crowd(&mut sessions);
        sessions.count_places();
        let mut places: Vec<(u32, ConnId)> = [11, 12, 13, 14, 20, 30]
            .map(id)
            .into_iter()
            .map(|id| (sessions.news(id).unwrap().position, id))
            .collect();
        places.sort_unstable_by_key(|(place, _)| *place);
        assert_eq!(
            places.iter().map(|(place, _)| *place).collect::<Vec<_>>(),
            [1, 2, 3, 4, 5, 6]
        );
        assert_eq!(sessions.news(id(20)), None);
        assert_eq!(sessions.count_places(), []);
        // One that leaves makes all behind it advance.
        sessions.end(id(20), Tick(0));
        assert_eq!(sessions.count_places(), [30, 12, 13, 14].map(id));
        let told: Vec<ConnId> = places
            .into_iter()
            .map(|(_, id)| id)
            .filter(|other| *other != id(20))
            .collect();
        let mut given = Vec::new();
        let mut running = id(10);
        loop {
            sessions.end(running, Tick(0));
            let Some(next) = sessions.next(true) else { break };
            given.push(next);
            running = next;
        }
        assert_eq!(given, told);
    }

    // Without memory for another one the line stands, but never when nothing runs: that would be for ever.
    #[test]
    fn without_room_one_runs_all_the_same() {
        let mut sessions = Sessions::new(100);
        assert_eq!(sessions.begin(id(1), visitor(1), false), Turn::Now);
        assert_eq!(sessions.begin(id(2), visitor(2), false), Turn::Waits);
        assert_eq!(sessions.begin(id(3), visitor(3), true), Turn::Waits, "nobody overtakes");
        assert_eq!(sessions.next(false), None);
        assert_eq!(sessions.oldest(), Some(id(1)));
        sessions.end(id(1), Tick(0));
        assert_eq!(sessions.next(false), Some(id(2)));
        assert_eq!(sessions.next(true), Some(id(3)));
    }

    #[test]
    fn the_estimate_follows_the_pace_of_the_ends() {
        let mut sessions = Sessions::new(2);
        for number in 0..50 {
            sessions.begin(id(number), visitor(1), true);
        }
        sessions.count_places();
        assert_eq!(sessions.news(id(5)).unwrap().estimate_ms, 0, "nothing has ended yet");
        for number in 0..20 {
            sessions.end(id(number), Tick(u64::from(number) * 100));
            sessions.next(true);
        }
        assert_eq!(sessions.waiting(), 28);
        assert_eq!(sessions.estimate_ms(), 2_800);
        sessions.count_places();
        let queued = sessions.news(id(49)).unwrap();
        assert_eq!((queued.position, queued.estimate_ms), (28, 2_800));
    }
}
