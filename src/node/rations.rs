//! Who goes on while memory is short: the transfer that began first, and beside it one of the others in turns.
//!
//! 1. A transfer that may not go on is held back: nothing is read from it, and nothing made for it.
//! 2. When there is memory again, some are let go on, and these bring others as long as it lasts.
//! 3. Until then a timer gives the next one its turn, so that a first one with a slow client holds up nobody for
//!    good.
//!
//! Never touches a connection: the server wakes it. Invariant: whoever is held back is known here until it is let
//! go on, has its turn or is gone, so that nobody waits for ever.

use super::sessions::Sessions;
use crate::reactor::ConnId;
use std::collections::HashSet;

/// The transfers that are held back, and whose turn it is.
#[derive(Debug, Default)]
pub(super) struct Rations {
    held_back: HashSet<ConnId>,
    /// The one beside the first, with the number that says when it began.
    turn: Option<(u64, ConnId)>,
    /// Those that have to give their memory back and come again.
    shed: HashSet<ConnId>,
}

impl Rations {
    /// Whether a transfer may go on while memory is short.
    pub(super) fn favours(&self, id: ConnId, sessions: &Sessions) -> bool {
        sessions.oldest() == Some(id) || self.turn.is_some_and(|(_, turn)| turn == id)
    }

    /// A transfer may not go on. Whether it is the only one, so that turns have to be given.
    pub(super) fn hold_back(&mut self, id: ConnId) -> bool {
        let is_first = self.held_back.is_empty();
        self.held_back.insert(id) && is_first
    }

    /// It goes on.
    pub(super) fn let_go(&mut self, id: ConnId) {
        self.held_back.remove(&id);
    }

    /// It is gone.
    pub(super) fn forget(&mut self, id: ConnId) {
        self.held_back.remove(&id);
        self.shed.remove(&id);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.held_back.is_empty()
    }

    /// There is memory again: some of those that are held back may go on. Each of them, if that is still so then,
    /// brings others; all at once would only take the memory from each other.
    pub(super) fn let_some_go(&mut self) -> [Option<ConnId>; 2] {
        [(); 2].map(|()| {
            let id = self.held_back.iter().next().copied()?;
            self.held_back.remove(&id);
            Some(id)
        })
    }

    /// The next one has its turn: whose it was and whose it is.
    pub(super) fn next_turn(&mut self, sessions: &Sessions) -> [Option<ConnId>; 2] {
        let before = self.turn.take();
        let after = before.map_or(0, |(number, _)| number + 1);
        self.turn = sessions.by_age_from(after).find(|(_, id)| self.held_back.contains(id));
        [before, self.turn].map(|turn| turn.map(|(_, id)| id))
    }

    /// Picks who has to give its memory back: of those that are held back and were not picked yet, the one that
    /// began last.
    pub(super) fn pick_for_shedding(&mut self, sessions: &Sessions) -> Option<ConnId> {
        let mut latest = sessions.latest_first();
        let id = latest.find(|id| self.held_back.contains(id) && !self.shed.contains(id))?;
        self.shed.insert(id);
        Some(id)
    }

    /// Whether it was picked.
    pub(super) fn is_shed(&self, id: ConnId) -> bool {
        self.shed.contains(&id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{DeviceId, Tick};
    use crate::node::sessions::Visitor;

    fn id(number: u32) -> ConnId {
        ConnId::invented(number)
    }

    fn running(count: u32) -> Sessions {
        let mut sessions = Sessions::new(100);
        for number in 0..count {
            sessions.begin(id(number), Visitor::Device(DeviceId([0; 32])), true);
        }
        sessions
    }

    /// Whoever is let go on and held back again at once is still known: it was forgotten once, and hung for ever.
    #[test]
    fn who_is_held_back_a_second_time_is_let_go_a_second_time() {
        let mut rations = Rations::default();
        assert!(rations.hold_back(id(1)));
        assert!(!rations.hold_back(id(2)));
        assert!(rations.let_some_go().iter().all(Option::is_some));
        assert!(rations.is_empty());
        assert!(rations.hold_back(id(2)), "the first one again");
        assert!(!rations.hold_back(id(2)));
        assert_eq!(rations.let_some_go(), [Some(id(2)), None]);
        assert!(rations.is_empty());
    }

    /// The first transfer may wait for its client as long as it likes: everybody else gets turns.
    #[test]
    fn everybody_gets_a_turn_beside_the_first() {
        let mut sessions = running(5);
        let mut rations = Rations::default();
        (1..5).for_each(|number| {
            rations.hold_back(id(number));
        });
        let mut turns = Vec::new();
        for _ in 0..6 {
            let [before, now] = rations.next_turn(&sessions);
            assert_eq!(before, turns.last().copied());
            let now = now.unwrap();
            assert!(rations.favours(now, &sessions) && rations.favours(id(0), &sessions));
            assert_eq!(
                (1..5).filter(|number| rations.favours(id(*number), &sessions)).count(),
                1
            );
            turns.push(now);
        }
        assert_eq!(turns, [1, 2, 3, 4, 1, 2].map(id));
        // One that is gone leaves no gap, and the one after it is the next.
        sessions.end(id(2), Tick(0));
        sessions.end(id(3), Tick(0));
        rations.forget(id(2));
        rations.forget(id(3));
        assert_eq!(rations.next_turn(&sessions)[1], Some(id(4)));
        assert_eq!(rations.next_turn(&sessions)[1], Some(id(1)));
    }

    #[test]
    fn who_came_last_gives_way_and_only_once() {
        let sessions = running(4);
        let mut rations = Rations::default();
        for number in [1, 2] {
            rations.hold_back(id(number));
        }
        assert_eq!(rations.pick_for_shedding(&sessions), Some(id(2)), "3 is not held back");
        assert_eq!(rations.pick_for_shedding(&sessions), Some(id(1)));
        assert_eq!(rations.pick_for_shedding(&sessions), None);
        assert!(rations.is_shed(id(2)) && !rations.is_shed(id(3)));
    }
}
