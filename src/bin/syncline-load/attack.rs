//! Owns the clients that behave badly: those that say nothing, half of it, or all of it a byte at a time, and
//! those that ask and do not read. It never counts.
//!
//! Invariant: none of them ends its connection; that is the server's part.

use crate::actor::{Actor, Peer};
use crate::fleet::{pull, push};
use crate::scenario::{Attack, Role, Work};
use syncline::conn::ReadStep;
use syncline::reactor::Context;

/// Milliseconds between two bytes, and between two looks at what has come.
const TICK_MS: u64 = 500;
const READ_MS: u64 = 1_000;
/// Milliseconds between two signs of life of those that do not read.
const PING_MS: u64 = 5_000;
/// Content that is announced and comes a byte at a time; what it takes is more than any run.
pub(crate) const FRAME_BYTES: u64 = 64 * 1024;
/// The front of a TLS client's first record: 512 bytes are announced.
const HALF_TLS: [u8; 11] = [22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3];

/// Whether it never gets as far as a hello. Such a client uses TCP only, whatever the server speaks.
pub(crate) fn speaks_out_of_turn(attack: Attack) -> bool {
    matches!(attack, Attack::Silence | Attack::HalfHello | Attack::SlowHello)
}

/// What an attacker pretends to do.
pub(crate) fn work_of(attack: Attack) -> Work {
    match attack {
        Attack::NeverReads | Attack::ReadsSlowly => Work::Fetch,
        _ => Work::Full,
    }
}

/// Whose files a client pulls: its own, and an attacker those of the feeder.
pub(crate) fn source_of(actors: &[Actor], number: u32) -> usize {
    match actors[number as usize].role {
        Role::Attacker(_) => 0,
        _ => number as usize,
    }
}

/// TCP stands.
pub(crate) fn established(attack: Attack, cx: &mut Context<'_>, peer: &mut Peer, plain: bool) {
    let hello = match plain {
        true => peer.machine.take_output(),
        false => HALF_TLS.to_vec(),
    };
    match attack {
        Attack::HalfHello => cx.send(&hello[..hello.len() / 2]),
        Attack::SlowHello => {
            peer.trickle.extend(hello);
            later(cx, TICK_MS);
        }
        _ => {}
    }
}

/// The share is open: asks for a transfer.
pub(crate) fn begin(attack: Attack, cx: &mut Context<'_>, peer: &mut Peer) {
    cx.set_deadline(None);
    let begin = match work_of(attack).is_pull() {
        true => pull(0),
        false => push(peer.actor),
    };
    peer.machine.begin(&begin);
    cx.send_owned(peer.machine.take_output());
}

/// Something came and was dealt with.
pub(crate) fn received(attack: Attack, cx: &mut Context<'_>, peer: &mut Peer) {
    match attack {
        Attack::NeverReads if peer.transfer.is_some() => {
            cx.pause_reading();
            later(cx, PING_MS);
        }
        Attack::ReadsSlowly if peer.transfer.is_some() => {
            cx.pause_reading();
            later(cx, READ_MS);
        }
        _ => {}
    }
}

/// Time for the next byte, or the next look.
pub(crate) fn tick(attack: Attack, cx: &mut Context<'_>, peer: &mut Peer) {
    match attack {
        Attack::ReadsSlowly => cx.resume_reading(),
        // It pretends to be alive; and only who writes notices that the other side is gone.
        Attack::NeverReads => {
            peer.machine.ping(1);
            cx.send_owned(peer.machine.take_output());
            later(cx, PING_MS);
        }
        Attack::SlowHello | Attack::SlowContent => {
            if let Some(byte) = peer.trickle.pop_front() {
                cx.send(&[byte]);
            }
            later(cx, TICK_MS);
        }
        _ => {}
    }
}

/// Once the server wants a file and knows of its start: from here on it gets a byte of it at a time.
pub(crate) fn trickle(cx: &mut Context<'_>, peer: &mut Peer) {
    let Some(sender) = peer.machine.sender().filter(|_| peer.trickle.is_empty()) else {
        return;
    };
    let Some(ReadStep::Content { remaining, credit, .. }) = sender.next_read() else {
        return;
    };
    let length = remaining.min(credit).min(FRAME_BYTES) as usize;
    if length > 0 {
        peer.trickle.extend(sender.data(length));
        peer.trickle.extend(std::iter::repeat_n(7, length));
        later(cx, TICK_MS);
    }
}

fn later(cx: &mut Context<'_>, milliseconds: u64) {
    let deadline = cx.now() + milliseconds;
    cx.set_deadline(Some(deadline));
}
