//! Whether a peer still takes part: what was heard of it, how fast it reads, and what it does besides.
//!
//! Reads no clock. Three ways of keeping a connection for nothing, and what ends each:
//! 1. Silence, or a frame that comes byte by byte: within the patience a whole frame has to come, or
//!    [`LIVELY_BYTES`] of one.
//! 2. Not reading, or a byte at a time: while something is queued, [`LIVELY_BYTES`] of it have to leave
//!    within the patience.
//! 3. Nothing but pings: for a while that is legal, since the peer may be busy with a large file; then the
//!    other patience runs out. Work on this side counts for the peer: it has to wait for that.
//!
//! Awkward: whoever is held up by this side (a limit of bandwidth, reading that is paused) is not to blame for
//! it. Invariant: a peer that does none of the three is never cut, one that does is cut at the first look
//! after its patience has run out.

use crate::model::limits::{LEAF_BYTES, PING_INTERVAL_MS};
use crate::model::{CloseCode, Fault, Tick};
use crate::reactor::Context;

/// Bytes that have to move within the patience, in either direction, when no frame gets complete: a leaf,
/// which at 60 s is a rate of 273 B/s.
pub(super) const LIVELY_BYTES: usize = LEAF_BYTES;

/// What is known of a peer.
#[derive(Debug, Default)]
pub(crate) struct Liveness {
    heard: Tick,
    /// Bytes since then that made no whole frame.
    trickled_bytes: usize,
    /// When enough had left, and what had left by then.
    progressed: Tick,
    sent_bytes: u64,
    /// When it did, or waited for, something else than pings.
    worked: Tick,
}

/// What is to be seen of a connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sight {
    pub(super) now: Tick,
    /// Bytes that wait for the peer to read, and those that have left.
    pub(super) queued_bytes: usize,
    pub(super) sent_bytes: u64,
    /// This side has let bytes wait since the last look.
    pub(super) held_up: Held,
}

/// Whether this side has let bytes wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Held {
    No,
    /// What the peer sends is not read.
    Reading,
    /// Neither is anything sent to it.
    Both,
}

impl Sight {
    pub(super) fn of(cx: &mut Context<'_>) -> Sight {
        let held_up = match (cx.was_held_up(), cx.is_paused()) {
            (true, _) => Held::Both,
            (false, true) => Held::Reading,
            (false, false) => Held::No,
        };
        Sight {
            now: cx.now(),
            queued_bytes: cx.outbound_bytes(),
            sent_bytes: cx.bytes_sent(),
            held_up,
        }
    }
}

/// How long a peer may be what it should not be, in milliseconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// Silent.
    pub(super) stall_ms: u64,
    /// Not reading.
    pub(super) unread_ms: u64,
    /// Saying nothing but pings; `None` for as long as it likes.
    pub(super) quiet_ms: Option<u64>,
}

/// What a look says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pulse {
    /// Look again then.
    Alive(Tick),
    Stalled(Stall),
}

/// Why a peer is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stall {
    /// Nothing whole came for so many milliseconds.
    Silent(u64),
    /// It did not read what was queued for it.
    Unread(u64),
    /// It did nothing but ping.
    Quiet(u64),
    /// It did not open a share.
    Unopened(u64),
}

impl Stall {
    /// What both sides and the log are told.
    pub(super) fn fault(self) -> Fault {
        let text = match self {
            Stall::Silent(ms) => format!("no whole message came for {}", seconds(ms)),
            Stall::Unread(ms) => format!("less than {LIVELY_BYTES} bytes were read in {}", seconds(ms)),
            Stall::Quiet(ms) => format!("nothing was done on this connection for {}", seconds(ms)),
            Stall::Unopened(ms) => format!("no share was opened within {}", seconds(ms)),
        };
        Fault::new(CloseCode::Timeout, text)
    }
}

fn seconds(ms: u64) -> String {
    match ms % 1_000 {
        0 => format!("{} s", ms / 1_000),
        _ => format!("{ms} ms"),
    }
}

impl Liveness {
    /// The connection stands.
    pub(crate) fn begin(&mut self, now: Tick) {
        *self = Liveness {
            heard: now,
            progressed: now,
            worked: now,
            ..Liveness::default()
        };
    }

    /// A whole frame came.
    pub(super) fn heard(&mut self, now: Tick) {
        self.heard = now;
        self.trickled_bytes = 0;
    }

    /// Bytes came. They count as a sign of life only when they are enough: a frame that arrives byte
    /// by byte would keep a connection open for ever.
    pub(super) fn trickled(&mut self, bytes: usize, now: Tick) {
        self.trickled_bytes = self.trickled_bytes.saturating_add(bytes);
        if self.trickled_bytes >= LIVELY_BYTES {
            self.heard(now);
        }
    }

    /// The peer did something, or waited for this side to do it.
    pub(crate) fn worked(&mut self, now: Tick) {
        self.worked = now;
    }

    /// Looks at a connection; to be called again at the time that it says, or before.
    pub(super) fn check(&mut self, sight: Sight, patience: Patience) -> Pulse {
        let now = sight.now;
        if sight.held_up != Held::No {
            self.heard(now);
        }
        let left = sight.sent_bytes.saturating_sub(self.sent_bytes);
        if sight.queued_bytes == 0 || left >= LIVELY_BYTES as u64 || sight.held_up == Held::Both {
            (self.progressed, self.sent_bytes) = (now, sight.sent_bytes);
        }
        let stall_ms = patience.stall_ms;
        if now.since(self.heard) >= stall_ms {
            return Pulse::Stalled(Stall::Silent(stall_ms));
        }
        if now.since(self.progressed) >= patience.unread_ms {
            return Pulse::Stalled(Stall::Unread(patience.unread_ms));
        }
        match patience.quiet_ms {
            Some(quiet_ms) if now.since(self.worked) >= quiet_ms => Pulse::Stalled(Stall::Quiet(quiet_ms)),
            quiet_ms => {
                let least = quiet_ms.unwrap_or(stall_ms).min(stall_ms);
                Pulse::Alive(now + PING_INTERVAL_MS.min(least / 4).max(1))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience = Patience {
        stall_ms: 60_000,
        unread_ms: 60_000,
        quiet_ms: Some(600_000),
    };

    /// Looks at a connection whenever it is due, for up to `limit_ms`, with `each` every 100 ms before it.
    /// When it was cut, and why.
    fn watch(limit_ms: u64, mut each: impl FnMut(&mut Liveness, &mut Sight)) -> Option<(u64, Stall)> {
        let mut liveness = Liveness::default();
        let mut sight = Sight {
            now: Tick(0),
            queued_bytes: 0,
            sent_bytes: 0,
            held_up: Held::No,
        };
        let mut due = Tick(0);
        while sight.now.0 < limit_ms {
            sight.now = sight.now + 100;
            each(&mut liveness, &mut sight);
            if sight.now >= due {
                match liveness.check(sight, PATIENCE) {
                    Pulse::Alive(next) => due = next,
                    Pulse::Stalled(stall) => return Some((sight.now.0, stall)),
                }
                sight.held_up = Held::No;
            }
        }
        None
    }

    const DAY_MS: u64 = 86_400_000;

    /// It was cut for that, at the first look after its patience was over.
    #[track_caller]
    fn assert_cut(cut: Option<(u64, Stall)>, stall: Stall) {
        let (Stall::Silent(ms) | Stall::Unread(ms) | Stall::Quiet(ms) | Stall::Unopened(ms)) = stall;
        let (at, why) = cut.expect("it was kept");
        assert_eq!(why, stall, "after {at} ms");
        assert!((ms..=ms + PING_INTERVAL_MS).contains(&at), "after {at} ms");
    }

    /// What a peer with work does keeps it, however slow: a frame in 50 s, or 300 bytes a second of a large one.
    #[test]
    fn whoever_takes_part_is_kept() {
        let frames = watch(DAY_MS / 24, |liveness, sight| {
            if sight.now.0 % 50_000 == 0 {
                liveness.heard(sight.now);
                liveness.worked(sight.now);
            }
        });
        assert_eq!(frames, None);
        let slow = watch(DAY_MS / 24, |liveness, sight| {
            liveness.trickled(30, sight.now);
            liveness.worked(sight.now);
            sight.queued_bytes = 200_000;
            sight.sent_bytes += 30;
        });
        assert_eq!(slow, None);
    }

    #[test]
    fn threats_row_26_a_trickle_is_silence() {
        let silent = watch(DAY_MS, |_, _| {});
        assert_cut(silent, Stall::Silent(60_000));
        let trickle = watch(DAY_MS, |liveness, sight| {
            liveness.trickled(usize::from(sight.now.0.is_multiple_of(1_000)), sight.now);
        });
        assert_cut(trickle, Stall::Silent(60_000));
    }

    /// A byte a second leaves the queue: that is no reading.
    #[test]
    fn threats_row_27_reading_has_a_minimum_rate_too() {
        let reads = |bytes_per_second: u64| {
            watch(DAY_MS / 24, move |liveness, sight| {
                liveness.heard(sight.now);
                liveness.worked(sight.now);
                sight.queued_bytes = 200_000;
                sight.sent_bytes += bytes_per_second / 10;
            })
        };
        assert_cut(reads(0), Stall::Unread(60_000));
        assert_cut(reads(10), Stall::Unread(60_000));
        assert_eq!(reads(400), None);
    }

    #[test]
    fn threats_row_26_nothing_but_pings_is_no_work() {
        let pings = watch(DAY_MS, |liveness, sight| liveness.heard(sight.now));
        assert_cut(pings, Stall::Quiet(600_000));
        let waits = watch(DAY_MS / 24, |liveness, sight| {
            liveness.heard(sight.now);
            if sight.now.0 % 500_000 == 0 {
                liveness.worked(sight.now);
            }
        });
        assert_eq!(waits, None);
    }

    /// A limit of bandwidth that lets a connection move once in minutes is no fault of the peer.
    #[test]
    fn whoever_is_held_up_here_is_not_to_blame() {
        let limited = watch(DAY_MS / 24, |liveness, sight| {
            liveness.worked(sight.now);
            (sight.queued_bytes, sight.held_up) = (200_000, Held::Both);
        });
        assert_eq!(limited, None);
        let paused = watch(DAY_MS / 24, |liveness, sight| {
            liveness.worked(sight.now);
            sight.held_up = Held::Reading;
        });
        assert_eq!(paused, None);
        let deaf = watch(DAY_MS / 24, |liveness, sight| {
            liveness.worked(sight.now);
            (sight.queued_bytes, sight.held_up) = (200_000, Held::Reading);
        });
        // It is not read from because it does not read.
        assert_cut(deaf, Stall::Unread(60_000));
    }

    /// A loop that has run for days must not count them against a connection that was just made.
    #[test]
    fn the_patience_begins_with_the_connection() {
        let mut liveness = Liveness::default();
        let now = Tick(DAY_MS);
        liveness.begin(now);
        let sight = Sight {
            now: now + 59_999,
            queued_bytes: 100,
            sent_bytes: 50,
            held_up: Held::No,
        };
        assert!(matches!(liveness.check(sight, PATIENCE), Pulse::Alive(_)));
    }

    #[test]
    fn each_reason_names_its_limit() {
        for (stall, text) in [
            (Stall::Silent(60_000), "no whole message came for 60 s"),
            (Stall::Unread(600), "less than 16384 bytes were read in 600 ms"),
            (Stall::Quiet(120_000), "nothing was done on this connection for 120 s"),
            (Stall::Unopened(10_000), "no share was opened within 10 s"),
        ] {
            let fault = stall.fault();
            assert_eq!((fault.code, fault.text.as_str()), (CloseCode::Timeout, text));
        }
    }
}
