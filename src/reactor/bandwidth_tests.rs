//! Limits in virtual time: connections that always want to move as much as they may, and a wheel.

use super::*;

const SECOND: u64 = 1_000_000;

/// Connections that are greedy in one direction, driven as the loop does it.
struct Greedy {
    limits: Limits,
    timers: Timers<Timer>,
    connections: Vec<Option<Limited>>,
    moved: Vec<u64>,
    visits: Vec<u64>,
    now: u64,
    ready: VecDeque<usize>,
    /// What the kernel takes in one move.
    move_max: usize,
}

impl Greedy {
    fn new(global: Option<u64>) -> Greedy {
        Greedy {
            limits: Limits::new(global),
            timers: Timers::new(),
            connections: Vec::new(),
            moved: Vec::new(),
            visits: Vec::new(),
            now: 0,
            ready: VecDeque::new(),
            move_max: 256 * 1024,
        }
    }

    fn connect(&mut self, count: usize, own: &[LimitId]) -> std::ops::Range<usize> {
        let first = self.connections.len();
        for index in first..first + count {
            self.connections.push(Some(Limited::under(own)));
            self.moved.push(0);
            self.visits.push(0);
            self.ready.push_back(index);
        }
        first..first + count
    }

    fn visit(&mut self, index: usize) {
        let Some(limited) = &mut self.connections[index] else {
            return;
        };
        self.visits[index] += 1;
        let id = ConnId::invented(u32::try_from(index).unwrap());
        // A few moves, as a quantum allows.
        for _ in 0..4 {
            let allowed = self.limits.allow(limited, Direction::Up, self.now);
            if allowed == 0 {
                self.limits.settle(id, limited, true, self.now, &mut self.timers);
                return;
            }
            let bytes = allowed.min(self.move_max);
            self.limits.take(limited, Direction::Up, bytes as u64);
            self.moved[index] += bytes as u64;
        }
        self.limits.settle(id, limited, false, self.now, &mut self.timers);
        self.ready.push_back(index);
    }

    /// Runs for `micros`; a connection that is not held up is visited once in a millisecond.
    fn run(&mut self, micros: u64) {
        let end = self.now + micros;
        while self.now < end {
            for _ in 0..self.ready.len() {
                let index = self.ready.pop_front().unwrap();
                self.visit(index);
            }
            self.now += 1_000;
            self.timers.advance(Tick(self.now / 1_000));
            while let Some(timer) = self.timers.pop() {
                let Timer::Bandwidth(limit, direction) = timer else {
                    panic!("only limits have timers here")
                };
                let (connections, ready) = (&mut self.connections, &mut self.ready);
                let find = |id: ConnId, change: &mut dyn FnMut(&mut Limited)| {
                    let index = id.index as usize;
                    let Some(limited) = &mut connections[index] else {
                        return false;
                    };
                    change(limited);
                    ready.push_back(index);
                    true
                };
                self.limits
                    .release((limit, direction), self.now, &mut self.timers, find);
            }
        }
    }

    fn sum(&self, range: std::ops::Range<usize>) -> u64 {
        self.moved[range].iter().sum()
    }

    fn close(&mut self, index: usize) {
        let mut limited = self.connections[index].take().unwrap();
        let connections = &self.connections;
        self.limits
            .forget(&mut limited, |id| connections[id.index as usize].is_some());
    }
}

/// Invariant: at most the rate and a burst; and nearly all of the rate is used.
#[track_caller]
fn assert_rate(moved: u64, rate: u64, seconds: u64) {
    assert!(
        moved <= rate * seconds + rate / 10 + 64 * 1024,
        "{moved} bytes at {rate} B/s"
    );
    assert!(moved >= rate * seconds * 9 / 10, "only {moved} bytes at {rate} B/s");
}

#[test]
fn connections_of_one_limit_share_it_equally() {
    for (rate, count) in [(1 << 20, 3), (10 << 20, 100), (64 << 10, 7)] {
        let mut greedy = Greedy::new(Some(rate));
        let all = greedy.connect(count, &[]);
        greedy.run(60 * SECOND);
        assert_rate(greedy.sum(all), rate, 60);
        let (least, most) = (greedy.moved.iter().min().unwrap(), greedy.moved.iter().max().unwrap());
        // A burst goes to whoever comes first.
        assert!(most - least <= rate / 10 + 2 * 64 * 1024, "{least} to {most} bytes");
    }
}

/// A connection may be under its device's limit, its share's and the global one: the least holds, and
/// what a slow one leaves is there for others.
#[test]
fn a_slow_limit_holds_up_nobody_outside_it() {
    let mut greedy = Greedy::new(Some(10 << 20));
    let slow = greedy.limits.add(Some(100 << 10), 0);
    let share = greedy.limits.add(Some(4 << 20), 0);
    let slow_ones = greedy.connect(50, &[slow, share]);
    let of_share = greedy.connect(5, &[share]);
    let free = greedy.connect(5, &[]);
    greedy.run(60 * SECOND);
    assert_rate(greedy.sum(slow_ones.clone()), 100 << 10, 60);
    assert_rate(greedy.sum(slow_ones.start..of_share.end), 4 << 20, 60);
    assert_rate(greedy.sum(slow_ones.start..free.end), 10 << 20, 60);
    for index in slow_ones.clone() {
        assert!(greedy.moved[index] > 0, "number {index} never came to move");
    }
    let equal = greedy.sum(slow_ones.clone()) / slow_ones.len() as u64;
    let most = slow_ones.map(|index| greedy.moved[index]).max().unwrap();
    assert!(most <= 3 * equal, "{most} bytes for one where {equal} are its part");
}

/// 9,000 of them: everybody gets something, and waiting costs a visit per grain, not one per tick.
#[test]
fn nine_thousand_connections_share_a_limit_without_being_looked_at_in_vain() {
    let rate = 64 << 20;
    let mut greedy = Greedy::new(Some(rate));
    let all = greedy.connect(9_000, &[]);
    greedy.run(60 * SECOND);
    assert_rate(greedy.sum(all), rate, 60);
    let least = greedy.moved.iter().min().unwrap();
    assert!(*least >= 2 * 64 * 1024, "somebody moved only {least} bytes");
    let (visits, grains) = (
        greedy.visits.iter().sum::<u64>(),
        greedy.moved.iter().sum::<u64>() / (64 * 1024),
    );
    assert!(visits <= grains + 3 * 9_000, "{visits} visits for {grains} grains");
}

/// Somebody who comes again and again must not take what those in line wait for.
#[test]
fn nobody_gets_past_the_line() {
    let mut greedy = Greedy::new(Some(100 << 10));
    let waiting = greedy.connect(10, &[]);
    greedy.run(SECOND);
    let before = greedy.sum(waiting.clone());
    let pushing = greedy.connect(1, &[]).start;
    for _ in 0..30_000 {
        greedy.run(1_000);
        greedy.visit(pushing);
        greedy.ready.retain(|index| *index != pushing);
    }
    let of_the_others = greedy.sum(waiting) - before;
    assert!(
        greedy.moved[pushing] <= of_the_others / 5,
        "{} past {of_the_others}",
        greedy.moved[pushing]
    );
}

#[test]
fn a_limit_that_is_changed_or_turned_off_lets_those_go_on_that_wait() {
    let mut greedy = Greedy::new(None);
    assert!(greedy.limits.is_off());
    let limit = greedy.limits.add(Some(1_000), 0);
    let all = greedy.connect(300, &[limit]);
    greedy.run(10 * SECOND);
    assert!(greedy.sum(all.clone()) <= 11_000);
    greedy.limits.set(limit, Some(1 << 20), greedy.now, &mut greedy.timers);
    let before = greedy.sum(all.clone());
    greedy.run(10 * SECOND);
    assert_rate(greedy.sum(all.clone()) - before, 1 << 20, 10);
    greedy.limits.set(limit, None, greedy.now, &mut greedy.timers);
    assert!(greedy.limits.is_off());
    let before = greedy.moved.clone();
    greedy.run(SECOND / 10);
    for index in all {
        assert!(
            greedy.moved[index] > before[index] + (10 << 20),
            "number {index} is still held up"
        );
    }
    greedy.limits.set(limit, Some(1_000), greedy.now, &mut greedy.timers);
    assert!(!greedy.limits.is_off());
}

/// Who comes and goes leaves nothing behind, also in the line of a limit that hardly moves.
#[test]
fn those_who_are_gone_do_not_pile_up_in_a_line() {
    let mut greedy = Greedy::new(Some(1));
    for _ in 0..100 {
        let all = greedy.connect(100, &[]);
        greedy.run(2_000);
        all.for_each(|index| greedy.close(index));
    }
    let line = &greedy.limits.lines[0][Direction::Up as usize];
    assert!(
        line.waiting.len() <= 2 * (STALE_MIN + 100),
        "{} entries",
        line.waiting.len()
    );
    assert!(line.is_empty());
    // Nor does what was set aside for them: the next one gets all there is.
    greedy
        .limits
        .set(LimitId::GLOBAL, Some(1 << 20), greedy.now, &mut greedy.timers);
    let next = greedy.connect(1, &[]);
    greedy.run(10 * SECOND);
    assert_rate(greedy.sum(next), 1 << 20, 10);
}

/// The choice of other limits in the middle of a wait.
#[test]
fn a_connection_that_waits_may_be_put_under_other_limits() {
    let mut greedy = Greedy::new(None);
    let (slow, fast) = (greedy.limits.add(Some(1_000), 0), greedy.limits.add(Some(1 << 20), 0));
    let one = greedy.connect(1, &[slow]);
    greedy.run(SECOND);
    let limited = greedy.connections[0].as_mut().unwrap();
    greedy.limits.replace(limited, &[fast]);
    assert_eq!(limited.count, 2);
    let before = greedy.sum(one.clone());
    greedy.run(10 * SECOND);
    assert_rate(greedy.sum(one) - before, 1 << 20, 10);
}

/// A connection costs little for its limits, and without any a pointer.
#[test]
fn the_state_of_a_connection_under_limits_is_small() {
    assert!(size_of::<Limited>() <= 80, "{}", size_of::<Limited>());
}
