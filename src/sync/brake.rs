//! The brake: how many deletions a plan would carry out, and when that is too many.
//!
//! Counts, decides nothing else. Invariant: what is moved, and a directory that moves have emptied, is
//! no deletion; what is replaced by something of its path is none either.

use super::moves::{Moves, emptied, loses_directory};
use super::tree::Rows;
use super::verdict::Verdict;
use super::{Settings, Side, Stop};

/// Why the plan must not be carried out, if so. The side that would lose more is named.
pub(super) fn stop(table: &Rows<'_>, local: &Moves, remote: &Moves, settings: &Settings<'_>) -> Option<Stop> {
    let brake = settings.brake?;
    let sides = [(Side::Local, local), (Side::Remote, remote)];
    let counts = sides.map(|(side, moves)| (side, deletions(table, side, moves)));
    let (side, deletions) = counts
        .into_iter()
        .max_by_key(|&(side, count)| (count, side == Side::Local))?;
    let share = u128::from(deletions) * 100 > u128::from(settings.entries) * u128::from(brake.percent);
    (deletions > brake.count && share).then_some(Stop {
        deletions,
        entries: settings.entries,
        side,
    })
}

fn deletions(table: &Rows<'_>, side: Side, moves: &Moves) -> u64 {
    let emptied = emptied(table, moves);
    let deleted = table.rows.iter().enumerate().filter(|&(at, row)| {
        let loses = match side {
            Side::Local => row.verdict == Verdict::Pull && row.remote.is_none() && row.local.is_some(),
            Side::Remote => row.verdict == Verdict::Push && row.local.is_none() && row.remote.is_some(),
        };
        loses && !moves.to.contains_key(&at) && !(emptied[at] && loses_directory(row))
    });
    deleted.count() as u64
}
