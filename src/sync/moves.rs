//! Files that leave one path and arrive at another: moved, not sent.
//!
//! Pairs rows, changes no verdict. Invariant: a pair has the same content, and its source is, on the
//! side that carries the move out, at the state and revision that were agreed.
//!
//! A local move is told by the inode: the file at the new path is the one that the base knows at the old
//! path. A remote move is told by the content: what arrives is what an unchanged local file has that
//! is to go. Among files of equal content any pairing is right; the first in the order of paths is
//! taken.

use super::sameness::{Content, content, equal, is_directory};
use super::tree::Rows;
use super::verdict::{Row, Verdict};
use super::{Expected, Settings, Standing};
use crate::model::{Kind, State};
use std::collections::{HashMap, VecDeque};

/// Moves on one side: from row to row.
#[derive(Debug, Default)]
pub(super) struct Moves {
    /// Target of each source.
    pub(super) to: HashMap<usize, usize>,
    /// Source of each target.
    pub(super) from: HashMap<usize, usize>,
}

impl Moves {
    fn pair(&mut self, from: usize, to: usize) {
        self.to.insert(from, to);
        self.from.insert(to, from);
    }

    /// Takes the move of a source back.
    pub(super) fn part(&mut self, from: usize) {
        if let Some(to) = self.to.remove(&from) {
            self.from.remove(&to);
        }
    }
}

/// What the user moved here, for the server to follow.
pub(super) fn by_user(table: &Rows<'_>, settings: &Settings<'_>) -> Moves {
    let mut moves = Moves::default();
    if settings.standing != Standing::Whole {
        return moves;
    }
    let mut sources: HashMap<u64, usize> = HashMap::new();
    for (at, row) in table.rows.iter().enumerate() {
        if let Some(agreed) = row.agreed.filter(|agreed| agreed.file != 0)
            && leaves_server(row)
            && row.found_file != agreed.file
        {
            sources.entry(agreed.file).or_insert(at);
        }
    }
    for (at, row) in table.rows.iter().enumerate() {
        if arrives_at_server(row)
            && let Some(&from) = sources.get(&row.found_file)
            && from != at
            && same_content(row, &table.rows[from])
        {
            moves.pair(from, at);
            sources.remove(&row.found_file);
        }
    }
    moves
}

/// The server has a file as agreed, and something else or nothing stands at its path here.
fn leaves_server(row: &Row<'_>) -> bool {
    let file = row.agreed.is_some_and(|agreed| is_file(&agreed.state.kind));
    let as_agreed = row.agreed.map(|agreed| &agreed.state) == row.base() && equal(row.remote, row.base());
    row.verdict == Verdict::Push && row.expected != Expected::Agreed && file && as_agreed
}

fn arrives_at_server(row: &Row<'_>) -> bool {
    let file = row.local().is_some_and(|local| is_file(&local.kind));
    let here = |local, remote| content(local, remote) == Content::Same;
    let already = row.local().zip(row.remote).is_some_and(|(l, r)| here(l, r));
    row.verdict == Verdict::Push && row.found_file != 0 && file && !already
}

fn same_content(target: &Row<'_>, source: &Row<'_>) -> bool {
    let pair = target.local().zip(source.base());
    pair.is_some_and(|(local, agreed)| content(local, agreed) == Content::Same)
}

/// What was moved on the server, for the folder to follow.
pub(super) fn by_server(table: &Rows<'_>) -> Moves {
    let mut moves = Moves::default();
    let mut sources: HashMap<(u64, [u8; 32]), VecDeque<usize>> = HashMap::new();
    for (at, row) in table.rows.iter().enumerate() {
        let leaves = row.verdict == Verdict::Pull && row.expected == Expected::Agreed;
        let stays = row
            .local()
            .zip(row.remote)
            .is_some_and(|(l, r)| content(l, r) == Content::Same);
        if leaves
            && !stays
            && let Some(id) = row.base().and_then(State::content_id)
        {
            sources.entry((id.length, id.root)).or_default().push_back(at);
        }
    }
    for (at, row) in table.rows.iter().enumerate() {
        let already = row
            .local()
            .zip(row.remote)
            .is_some_and(|(l, r)| content(l, r) == Content::Same);
        if matches!(row.verdict, Verdict::Pull | Verdict::Clash)
            && !already
            && let Some(id) = row.remote.and_then(State::content_id)
            && let Some(from) = sources.get_mut(&(id.length, id.root)).and_then(VecDeque::pop_front)
        {
            moves.pair(from, at);
        }
    }
    moves
}

/// Directories that lose files by the moves, and those above them.
pub(super) fn emptied(table: &Rows<'_>, moves: &Moves) -> Vec<bool> {
    let mut emptied = vec![false; table.rows.len()];
    for &from in moves.to.keys() {
        let mut at = from;
        while let Some(parent) = table.parent(at) {
            if std::mem::replace(&mut emptied[parent], true) {
                break;
            }
            at = parent;
        }
    }
    emptied
}

/// Whether a row is a directory on the side that is about to lose it.
pub(super) fn loses_directory(row: &Row<'_>) -> bool {
    match row.verdict {
        Verdict::Push => is_directory(row.remote),
        _ => is_directory(row.local()),
    }
}

fn is_file(kind: &Kind) -> bool {
    matches!(kind, Kind::File { .. })
}
