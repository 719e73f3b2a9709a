//! Owns the limits of bandwidth: which there are, and for each direction of each the line of connections
//! that wait for it. It never reads a clock and never touches a socket.
//!
//! 1. A connection is under the global limit, which is the last of its limits, and under those that its
//!    host chose, the narrowest first. It moves as many bytes as the least of them allows.
//! 2. Where a bucket is empty, or others wait for it already, the connection joins the end of its line.
//! 3. When a bucket has a grain again, the head of its line gets that grain set aside and is visited. It
//!    may have to wait for the next wider limit with it; a grain is good for one move, and what is not
//!    used of it goes back.
//!
//! Awkward: grains are set aside from the narrowest limit to the widest only, so that no two connections
//! wait for each other, and a connection that waits for its own slow limit holds nothing of a wider one.
//! Invariant: a connection stands at most once in the lines of each direction; a line that somebody
//! stands in has a timer; per line, first come, first served, a grain each.

use super::context::Timer;
use super::source::ConnId;
use super::throttle::Bucket;
use super::timers::{TimerId, Timers};
use crate::model::Tick;
use std::collections::VecDeque;

/// Names a limit of bandwidth, which holds for both directions separately.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LimitId(u16);

impl LimitId {
    /// The limit over all connections; it always exists, though it may be off.
    pub const GLOBAL: LimitId = LimitId(0);
}

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Down,
    Up,
}

/// Limits of one connection beside the global one: that of its device, of its share, and one to spare.
pub(super) const OWN_LIMITS_MAX: usize = 3;
const LIMITS_MAX: usize = OWN_LIMITS_MAX + 1;
/// Connections that one timer lets go on: at a tick of 1 ms this is 16 GB a second.
const RELEASES_MAX: usize = 256;
/// Lines shorter than this are not searched for those who are gone.
const STALE_MIN: usize = 64;

/// What a connection under limits has to do with them.
#[derive(Debug)]
pub(super) struct Limited {
    /// The narrowest first, the global one last.
    limits: [LimitId; LIMITS_MAX],
    count: usize,
    /// By direction and position: bytes set aside.
    aside: [[u32; LIMITS_MAX]; 2],
    /// By direction: in whose line it stands.
    waits: [Option<LimitId>; 2],
    /// By direction: what the last question found empty.
    lacks: [Option<LimitId>; 2],
    /// It stood in a line since somebody asked.
    held_up: bool,
}

impl Default for Limited {
    fn default() -> Limited {
        Limited::under(&[])
    }
}

impl Limited {
    /// Under `own` limits, the narrowest first, and the global one.
    pub(super) fn under(own: &[LimitId]) -> Limited {
        debug_assert!(own.len() <= OWN_LIMITS_MAX);
        let own = &own[..own.len().min(OWN_LIMITS_MAX)];
        let mut limits = [LimitId::GLOBAL; LIMITS_MAX];
        limits[..own.len()].copy_from_slice(own);
        Limited {
            limits,
            count: own.len() + 1,
            aside: [[0; LIMITS_MAX]; 2],
            waits: [None; 2],
            lacks: [None; 2],
            held_up: false,
        }
    }

    /// Whether it stands, or stood, in a line since this was last asked.
    pub(super) fn was_held_up(&mut self) -> bool {
        let waits = self.waits.iter().any(Option::is_some);
        std::mem::take(&mut self.held_up) || waits
    }

    fn position(&self, limit: LimitId) -> Option<usize> {
        self.limits[..self.count].iter().position(|own| *own == limit)
    }
}

#[derive(Debug, Default)]
struct Line {
    /// `None` while the limit is off.
    bucket: Option<Bucket>,
    waiting: VecDeque<ConnId>,
    /// Those among them that are gone.
    stale: usize,
    timer: Option<TimerId>,
}

impl Line {
    fn is_empty(&self) -> bool {
        self.waiting.len() == self.stale
    }

    fn give_back(&mut self, bytes: u32) {
        if let Some(bucket) = &mut self.bucket {
            bucket.give_back(u64::from(bytes));
        }
    }
}

/// All limits of a reactor.
#[derive(Debug)]
pub(super) struct Limits {
    /// By limit, then by direction.
    lines: Vec<[Line; 2]>,
    /// Limits that are on.
    active: usize,
}

impl Limits {
    /// The global limit alone.
    pub(super) fn new(global: Option<u64>) -> Limits {
        let mut limits = Limits {
            lines: Vec::new(),
            active: 0,
        };
        limits.add(global, 0);
        limits
    }

    /// One more limit, in bytes a second; `None` is off.
    pub(super) fn add(&mut self, rate: Option<u64>, now_micros: u64) -> LimitId {
        let id = LimitId(u16::try_from(self.lines.len()).expect("a host names fewer than 65,536 limits"));
        let line = || Line {
            bucket: rate.map(|rate| Bucket::new(rate, now_micros)),
            ..Line::default()
        };
        self.lines.push([line(), line()]);
        self.active += usize::from(rate.is_some());
        id
    }

    /// Whether no limit is on, so that nobody has to ask.
    pub(super) fn is_off(&self) -> bool {
        self.active == 0
    }

    /// Changes a limit. Those who wait for it are not forgotten: they go on at the new rate.
    pub(super) fn set(&mut self, id: LimitId, rate: Option<u64>, now_micros: u64, timers: &mut Timers<Timer>) {
        let Some(lines) = self.lines.get_mut(usize::from(id.0)) else {
            return;
        };
        let was_on = lines[0].bucket.is_some();
        self.active = self.active + usize::from(rate.is_some()) - usize::from(was_on);
        for direction in [Direction::Down, Direction::Up] {
            let line = &mut lines[direction as usize];
            match (&mut line.bucket, rate) {
                (Some(bucket), Some(rate)) => bucket.set_rate(rate, now_micros),
                (bucket, rate) => *bucket = rate.map(|rate| Bucket::new(rate, now_micros)),
            }
            if let Some(timer) = line.timer.take() {
                timers.cancel(timer);
            }
            line.arm(id, direction, now_micros, timers);
        }
    }

    /// Bytes that a connection may move now; at 0 it has to wait.
    pub(super) fn allow(&mut self, limited: &mut Limited, direction: Direction, now_micros: u64) -> usize {
        let mut least = usize::MAX;
        limited.lacks[direction as usize] = None;
        for position in 0..limited.count {
            let limit = limited.limits[position];
            let line = &mut self.lines[usize::from(limit.0)][direction as usize];
            let is_empty = line.is_empty();
            let Some(bucket) = &mut line.bucket else {
                continue;
            };
            let allowed = match limited.aside[direction as usize][position] {
                0 if is_empty => bucket.allow(now_micros),
                aside => aside as usize,
            };
            if allowed == 0 {
                limited.lacks[direction as usize] = Some(limit);
                self.give_back(limited, direction, position + 1);
                return 0;
            }
            least = least.min(allowed);
        }
        least
    }

    /// Counts bytes that moved; what was set aside for it is used up.
    pub(super) fn take(&mut self, limited: &mut Limited, direction: Direction, bytes: u64) {
        self.give_back(limited, direction, 0);
        for limit in &limited.limits[..limited.count] {
            if let Some(bucket) = &mut self.lines[usize::from(limit.0)][direction as usize].bucket {
                bucket.take(bytes);
            }
        }
    }

    /// A visit is over. Whoever lacks something joins that line; what was set aside for a direction in
    /// which nothing is lacking goes back.
    pub(super) fn settle(
        &mut self,
        id: ConnId,
        limited: &mut Limited,
        is_starved: bool,
        now_micros: u64,
        timers: &mut Timers<Timer>,
    ) {
        for direction in [Direction::Down, Direction::Up] {
            match limited.lacks[direction as usize].take() {
                Some(limit) if is_starved => {
                    let waits = &mut limited.waits[direction as usize];
                    if waits.is_none() {
                        *waits = Some(limit);
                        limited.held_up = true;
                        let line = &mut self.lines[usize::from(limit.0)][direction as usize];
                        line.waiting.push_back(id);
                        line.arm(limit, direction, now_micros, timers);
                    }
                }
                _ => self.give_back(limited, direction, 0),
            }
        }
    }

    /// A connection is gone. `is_open` tells of others whether they still are there.
    pub(super) fn forget(&mut self, limited: &mut Limited, is_open: impl Fn(ConnId) -> bool) {
        for direction in [Direction::Down, Direction::Up] {
            self.give_back(limited, direction, 0);
            let Some(limit) = limited.waits[direction as usize] else {
                continue;
            };
            let line = &mut self.lines[usize::from(limit.0)][direction as usize];
            line.stale += 1;
            if line.stale > STALE_MIN.max(line.waiting.len() / 2) {
                line.waiting.retain(|id| is_open(*id));
                line.stale = 0;
            }
        }
    }

    /// The host has chosen other limits for a connection. It stays in the lines that it stands in: they
    /// let it go on in time.
    pub(super) fn replace(&mut self, limited: &mut Limited, own: &[LimitId]) {
        let own: Vec<LimitId> = own
            .iter()
            .copied()
            .filter(|limit| usize::from(limit.0) < self.lines.len() && *limit != LimitId::GLOBAL)
            .collect();
        self.give_back(limited, Direction::Down, 0);
        self.give_back(limited, Direction::Up, 0);
        *limited = Limited {
            waits: limited.waits,
            ..Limited::under(&own)
        };
    }

    /// The timer of a line: sets grains aside for those at its head, as far as there are. `find` has a
    /// connection visited and lets its state be changed; it says whether the connection is still there.
    pub(super) fn release(
        &mut self,
        (limit, direction): (LimitId, Direction),
        now_micros: u64,
        timers: &mut Timers<Timer>,
        mut find: impl FnMut(ConnId, &mut dyn FnMut(&mut Limited)) -> bool,
    ) {
        let line = &mut self.lines[usize::from(limit.0)][direction as usize];
        line.timer = None;
        for _ in 0..RELEASES_MAX {
            let mut grain = None;
            if let Some(bucket) = &mut line.bucket {
                if bucket.allow(now_micros) == 0 {
                    break;
                }
                grain = Some(bucket.grain_bytes());
            }
            let Some(id) = line.waiting.pop_front() else {
                break;
            };
            let bucket = &mut line.bucket;
            let is_there = find(id, &mut |limited| {
                limited.waits[direction as usize] = None;
                if let (Some(bucket), Some(grain), Some(position)) = (&mut *bucket, grain, limited.position(limit)) {
                    bucket.take(u64::from(grain));
                    limited.aside[direction as usize][position] = grain;
                }
            });
            line.stale -= usize::from(!is_there);
        }
        line.arm(limit, direction, now_micros, timers);
    }

    /// Gives back what is set aside at the positions from `from` on.
    fn give_back(&mut self, limited: &mut Limited, direction: Direction, from: usize) {
        for position in from..limited.count {
            let aside = std::mem::take(&mut limited.aside[direction as usize][position]);
            if aside > 0 {
                self.lines[usize::from(limited.limits[position].0)][direction as usize].give_back(aside);
            }
        }
    }
}

impl Line {
    /// Sets the timer of a line that somebody stands in.
    fn arm(&mut self, limit: LimitId, direction: Direction, now_micros: u64, timers: &mut Timers<Timer>) {
        if self.timer.is_some() || self.waiting.is_empty() {
            return;
        }
        let micros = self.bucket.as_mut().map_or(0, |bucket| bucket.wait_micros(now_micros));
        // At least a tick, so that there is no busy loop.
        let when = Tick(now_micros / 1_000) + micros.div_ceil(1_000).max(1);
        self.timer = Some(timers.set(when, Timer::Bandwidth(limit, direction)));
    }
}

#[cfg(test)]
#[path = "bandwidth_tests.rs"]
mod tests;
