//! Names that are one to a file system: kept apart without loss, or respelled where they are one entry.
//!
//! Asks no file system: which of the paths are one comes with the cases. Invariant: what has no place on a side
//! stays as it is on the other, with all that is in it, and its absence is never told as a deletion.
//!
//! 1. What is to come here, while something else of the same name stands here, is held if the server has both.
//!    If it has only the new name, the one here is spelled so: a rename that changes nothing but case or marks.
//! 2. That one was agreed on, and its content is another: then it goes first, as a deletion, and the new one comes
//!    a round later. Of a directory, what has no counterpart under the new name goes first.
//!    A replica takes nothing from the server; what stands there only, and had no place here, is not taken away.
//! 3. Of several that are to come with names that differ in case alone, the first comes.
//! 4. A directory that was respelled here is respelled on a server that folds as a whole: there it cannot be made
//!    anew while the other is there.
//! 5. What the server refused for its name is held; and so is what it came from, if it is a rename. A directory that
//!    was deleted there, and would come back for what stays in it, can be refused as well.

use super::sameness::{Content, content, is_directory, same_kind};
use super::tree::Rows;
use super::verdict::{Row, Verdict};
use super::{Action, Collision, Expected, HeldReason, Settings, Side, Standing, Taken};
use crate::model::{RelPath, State, folded};
use std::collections::{HashMap, HashSet};

/// What is to be told, and what is done before anything else.
#[derive(Debug, Default)]
pub(super) struct Collided {
    pub(super) collisions: Vec<Collision>,
    pub(super) respellings: Vec<Action>,
}

const HELD: Verdict = Verdict::Hold(HeldReason::Collides);

/// Holds what collides.
pub(super) fn settle(table: &mut Rows<'_>, settings: &Settings<'_>) -> Collided {
    let mut collided = Collided::default();
    if settings.folds_here {
        keep_apart_here(table, &mut collided);
    }
    refused_there(table, &mut collided);
    if settings.folds_there && collided.respellings.is_empty() && settings.standing == Standing::Whole {
        collided.respellings = respelled_here(table);
    }
    collided
}

/// What is to come.
fn arrives(row: &Row<'_>) -> bool {
    matches!(row.verdict, Verdict::Pull | Verdict::Clash) && row.remote.is_some() && row.local().is_none()
}

/// What the server is to lose since it is not here, where it never had a place.
fn is_foreign(table: &Rows<'_>, at: usize, is_in_held: bool) -> bool {
    let row = &table.rows[at];
    let goes = row.verdict == Verdict::Push && row.remote.is_some() && row.local().is_none();
    let stands_there = |other: &RelPath| {
        let other = table.find(other.as_bytes());
        // Else it is the same, under the name that it had.
        other.is_none_or(|other| table.rows[other].remote.is_some())
    };
    let is_second = matches!(row.taken, Some(Taken::Here(other)) if stands_there(other));
    goes && row.agreed.is_none() && (is_in_held || is_second)
}

/// Directories that are gone here, and come back for what is to come in them, while something has their place.
fn needed(table: &Rows<'_>) -> Vec<bool> {
    let mut is_above = vec![false; table.rows.len()];
    for at in (0..table.rows.len()).rev() {
        if (is_above[at] || arrives(&table.rows[at]))
            && let Some(above) = table.parent(at)
        {
            is_above[above] = true;
        }
    }
    let comes_back =
        |row: &Row<'_>| row.local().is_none() && is_directory(row.remote) && matches!(row.taken, Some(Taken::Here(_)));
    let rows = is_above.iter().zip(&table.rows);
    rows.map(|(is_above, row)| *is_above && comes_back(row)).collect()
}

/// What becomes of something that has no place here for now.
enum Way {
    Held,
    /// What has its place is respelled.
    Respelled,
    /// What has its place is going to leave it.
    Later,
}

fn keep_apart_here(table: &mut Rows<'_>, collided: &mut Collided) {
    let mut comes: HashMap<Vec<u8>, usize> = HashMap::new();
    let mut is_held = vec![false; table.rows.len()];
    let is_needed = needed(table);
    for at in 0..table.rows.len() {
        let is_in_held = table.parent(at).is_some_and(|above| is_held[above]);
        let (path, taken) = (table.rows[at].path, table.rows[at].taken);
        let is_foreign = is_foreign(table, at, is_in_held);
        if !arrives(&table.rows[at]) && !is_needed[at] && !is_foreign {
            is_held[at] = is_in_held;
            continue;
        }
        let (way, with) = match taken {
            _ if is_in_held => (Way::Later, None),
            Some(Taken::Here(other)) if is_foreign => (Way::Held, Some(other.clone())),
            Some(Taken::Here(other)) => (way(table, at, other), Some(other.clone())),
            _ => match comes.entry(folded(path.as_bytes())) {
                std::collections::hash_map::Entry::Vacant(free) => {
                    free.insert(at);
                    continue;
                }
                std::collections::hash_map::Entry::Occupied(first) => {
                    (Way::Held, Some(table.rows[*first.get()].path.clone()))
                }
            },
        };
        match (way, with) {
            (Way::Held, with) => collided.collisions.push(Collision {
                path: path.clone(),
                side: Side::Local,
                with,
            }),
            (Way::Respelled, Some(from)) => {
                let known = table.find(from.as_bytes()).map(|other| table.rows[other].expected);
                collided.respellings.push(Action::Respell {
                    expected: known.unwrap_or(Expected::Agreed),
                    from,
                    to: path.clone(),
                });
            }
            _ => {}
        }
        table.rows[at].verdict = HELD;
        is_held[at] = true;
    }
}

/// What is to be done about `other`, which has the place of the row.
fn way(table: &mut Rows<'_>, at: usize, other: &RelPath) -> Way {
    let Some(there) = table.find(other.as_bytes()) else {
        // It is as agreed on both sides, or takes no part.
        return Way::Held;
    };
    let (row, other) = (&table.rows[at], &table.rows[there]);
    let (Some(arriving), Some(local)) = (row.remote, other.local()) else {
        return Way::Held;
    };
    if other.remote.is_some() || other.blocked {
        return Way::Held;
    }
    match (same_kind(arriving, local), other.base().is_some()) {
        (true, false) => Way::Respelled,
        (true, true) if is_directory(Some(local)) => directory_way(table, at, there),
        (true, true) if content(local, arriving) == Content::Same => Way::Respelled,
        _ if other.verdict == Verdict::Pull => Way::Later,
        _ => Way::Held,
    }
}

/// A directory that the server does not have any more under its name here: what was deleted in it goes first.
fn directory_way(table: &mut Rows<'_>, at: usize, there: usize) -> Way {
    let (new, old) = (table.rows[at].path, table.rows[there].path);
    let arriving = table.rows.iter().filter(|row| is_beneath(row.path, new));
    let arriving: HashMap<Vec<u8>, &State> = arriving
        .filter_map(|row| Some((folded(row.path.as_bytes()), row.remote?)))
        .collect();
    let (mut stays, mut goes) = (Vec::new(), false);
    for (number, row) in table.rows.iter().enumerate() {
        let is_deletion = row.verdict == Verdict::Pull && row.remote.is_none() && row.local().is_some();
        if !is_deletion || row.path != old && !is_beneath(row.path, old) {
            continue;
        }
        let counterpart = arriving.get(&folded(row.path.as_bytes())).zip(row.local());
        let has_one = counterpart.is_some_and(|(new, local)| content(local, new) == Content::Same);
        if has_one || row.path == old {
            stays.push(number);
        } else {
            goes = true;
        }
    }
    if !goes {
        return Way::Respelled;
    }
    for number in stays {
        table.rows[number].verdict = HELD;
    }
    Way::Later
}

/// What is to come to the server: also directories that were deleted there, and come back for what stays in them.
fn goes(table: &Rows<'_>) -> Vec<bool> {
    let mut goes = vec![false; table.rows.len()];
    for at in (0..table.rows.len()).rev() {
        let row = &table.rows[at];
        // What goes into it was met before.
        goes[at] |= row.verdict == Verdict::Push && row.remote.is_none() && row.local().is_some();
        if let Some(above) = table.parent(at)
            && (goes[at] || row.blocked)
        {
            let directory = &table.rows[above];
            goes[above] |= directory.remote.is_none() && is_directory(directory.local());
        }
    }
    goes
}

/// Holds what the server refused, with what is in it and what it was before a rename.
fn refused_there(table: &mut Rows<'_>, collided: &mut Collided) {
    let mut is_held = vec![false; table.rows.len()];
    let mut files = HashSet::new();
    let goes = goes(table);
    for at in 0..table.rows.len() {
        let is_in_held = table.parent(at).is_some_and(|above| is_held[above]);
        let row = &mut table.rows[at];
        let is_refused = row.taken == Some(&Taken::There);
        if !goes[at] || !(is_refused || is_in_held) {
            continue;
        }
        row.verdict = HELD;
        is_held[at] = true;
        files.extend(Some(row.found_file).filter(|&file| file != 0));
        if is_refused && !is_in_held {
            collided.collisions.push(Collision {
                path: row.path.clone(),
                side: Side::Remote,
                with: None,
            });
        }
    }
    let was = |row: &Row<'_>| row.agreed.is_some_and(|agreed| files.contains(&agreed.file));
    let leaves = |row: &Row<'_>| row.verdict == Verdict::Push && row.local().is_none() && row.remote.is_some();
    // The directories that it was in stay there with it.
    let mut stays = vec![false; table.rows.len()];
    for at in (0..table.rows.len()).rev() {
        let row = &table.rows[at];
        if leaves(row) && (stays[at] || was(row)) {
            table.rows[at].verdict = HELD;
            if let Some(above) = table.parent(at) {
                stays[above] = true;
            }
        }
    }
}

/// Directories that the user spelled otherwise.
fn respelled_here(table: &Rows<'_>) -> Vec<Action> {
    let mut left: HashMap<(Vec<u8>, u64), usize> = HashMap::new();
    for (at, row) in table.rows.iter().enumerate() {
        if let Some(agreed) = row.agreed.filter(|agreed| agreed.file != 0)
            && row.verdict == Verdict::Push
            && row.local().is_none()
            && is_directory(row.remote)
            && is_directory(Some(&agreed.state))
        {
            left.insert((folded(row.path.as_bytes()), agreed.file), at);
        }
    }
    let mut actions: Vec<Action> = Vec::new();
    let mut under: Vec<&RelPath> = Vec::new();
    for row in &table.rows {
        let is_new = row.verdict == Verdict::Push && row.remote.is_none() && row.agreed.is_none();
        let Some(state) = row.local().filter(|local| is_new && is_directory(Some(local))) else {
            continue;
        };
        let from = left.get(&(folded(row.path.as_bytes()), row.found_file));
        let Some(from) = from.map(|&from| &table.rows[from]) else {
            continue;
        };
        if from.path.parent() != row.path.parent() {
            continue;
        }
        // What is in one that is respelled comes with it.
        if under.iter().any(|above| is_beneath(from.path, above)) {
            continue;
        }
        under.push(from.path);
        actions.push(respelling(from, row, state));
    }
    actions
}

fn respelling(from: &Row<'_>, to: &Row<'_>, state: &State) -> Action {
    Action::SendRespell {
        from: from.path.clone(),
        from_revision: from.revision,
        to: to.path.clone(),
        state: state.clone(),
        expected: to.expected,
    }
}

fn is_beneath(path: &RelPath, top: &RelPath) -> bool {
    let rest = path.as_bytes().strip_prefix(top.as_bytes());
    rest.is_some_and(|rest| rest.first() == Some(&b'/'))
}
