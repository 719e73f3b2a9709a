//! Contents for transfers, and edits at chosen moments of them.

use super::{Run, World};
use std::fs;
use std::path::Path;
use syncline::node::Client;

/// Bytes without runs or holes.
pub fn noise(length: usize, seed: u32) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2_654_435_761) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state
    };
    (0..length.div_ceil(4))
        .flat_map(|_| next().to_le_bytes())
        .take(length)
        .collect()
}

/// Whether anything unfinished lies in a share.
pub fn staged(share: &Path) -> usize {
    let sessions = fs::read_dir(share.join(".syncline/staging"))
        .into_iter()
        .flatten()
        .flatten();
    sessions
        .map(|session| fs::read_dir(session.path()).map_or(0, Iterator::count))
        .sum()
}

/// Drives `client` and calls `edit` before each turn with the turn's number.
pub fn drive_and(world: &mut World, client: Client, mut edit: impl FnMut(u32)) -> Run {
    let mut turn = 0;
    world.drive(client, |_, _| {
        edit(turn);
        turn += 1;
    })
}
