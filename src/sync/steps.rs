//! From verdicts to actions: what is done on each side, and what it expects.
//!
//! Decides nothing. Invariant: an action that replaces or takes away expects what the verdict was
//! based on.

use super::action::{Action, Expected, Side};
use super::moves::Moves;
use super::order::{Step, order};
use super::sameness::{Content, content, is_directory, same_kind, same_meta};
use super::tree::Rows;
use super::verdict::{Row, Verdict};
use crate::model::{Kind, RelPath, Revision, State};
use std::collections::HashMap;

/// Bits of a mode that the owner of a directory needs to work in it.
pub(super) const OWNER_WORKS: u32 = 0o700;

/// What only changes the base.
pub(super) fn of_base(table: &Rows<'_>) -> Vec<Action> {
    let actions = table.rows.iter().filter_map(|row| match (row.verdict, row.remote) {
        (Verdict::Agree, Some(state)) => Some(Action::Agree {
            path: row.path.clone(),
            state: state.clone(),
            revision: row.revision,
            expected: row.expected,
        }),
        (Verdict::Forget, _) => Some(Action::Forget { path: row.path.clone() }),
        (Verdict::Along, _) if row.forgets() => Some(Action::Forget { path: row.path.clone() }),
        // What the server told comes again if this is cut. What it did not tell, only the record knows.
        (Verdict::Clash, _) if row.copy.is_some() && row.forgets() && row.remote_changed => {
            Some(Action::Forget { path: row.path.clone() })
        }
        _ => None,
    });
    actions.collect()
}

/// What is done in the folder, in order.
pub(super) fn of_folder(table: &Rows<'_>, moves: Moves) -> Vec<Action> {
    let mut metas = Vec::new();
    let actions = ordered(table, moves, |at, moves, kept, steps| {
        let row = &table.rows[at];
        if matches!(row.verdict, Verdict::Pull | Verdict::Clash) {
            local_steps(table, at, moves, kept, steps);
        }
    });
    // The modes of directories last, the deepest first: they may forbid what was done before.
    for row in table.rows.iter().rev() {
        if let (Verdict::Pull | Verdict::Clash, Some(state)) = (row.verdict, row.remote) {
            metas.extend(late_meta(row, state));
        }
    }
    [actions, metas].concat()
}

/// What is done on the server, in order.
pub(super) fn of_server(table: &Rows<'_>, moves: Moves) -> Vec<Action> {
    let actions = ordered(table, moves, |at, moves, _, steps| {
        if table.rows[at].verdict == Verdict::Push {
            remote_steps(table, at, moves, steps);
        }
    });
    let metas = table
        .rows
        .iter()
        .rev()
        .filter_map(|row| match (row.local(), row.remote) {
            (Some(local), Some(remote)) if row.verdict == Verdict::Push => {
                let differs = content(local, remote) == Content::Same && !same_meta(local, remote);
                differs.then(|| Action::SendMeta {
                    path: row.path.clone(),
                    state: with_root(local, remote),
                    based_on: row.revision,
                    expected: row.expected,
                })
            }
            _ => None,
        });
    let metas: Vec<Action> = metas.collect();
    [actions, metas].concat()
}

/// Makes the steps and orders them; moves that are in circles are given up one after the other, and
/// their targets remember where the content was.
fn ordered(
    table: &Rows<'_>,
    mut moves: Moves,
    make: impl Fn(usize, &Moves, &HashMap<usize, usize>, &mut Vec<Step>),
) -> Vec<Action> {
    let mut kept: HashMap<usize, usize> = HashMap::new();
    for attempt in 0.. {
        let mut steps = Vec::new();
        for at in 0..table.rows.len() {
            make(at, &moves, &kept, &mut steps);
        }
        match order(table, steps, attempt) {
            Ok(actions) => return actions,
            Err(circles) => {
                for from in circles {
                    kept.extend(moves.to.get(&from).map(|&to| (to, from)));
                    moves.part(from);
                }
            }
        }
    }
    unreachable!("each attempt gives up a move, and without moves there is no circle")
}

fn local_steps(table: &Rows<'_>, at: usize, moves: &Moves, kept: &HashMap<usize, usize>, steps: &mut Vec<Step>) {
    let row = &table.rows[at];
    let path = || row.path.clone();
    let same = row
        .local()
        .zip(row.remote)
        .map(|(l, r)| (content(l, r), same_kind(l, r)));
    if same.is_some_and(|(content, _)| content == Content::Same) {
        return;
    }
    let mut leave = |class, action, fills| {
        steps.push(Step {
            action,
            class,
            frees: Some(at),
            fills,
        });
    };
    let mut expected = Expected::Absent;
    if let Some(&to) = moves.to.get(&at) {
        let target = &table.rows[to];
        let rename = Action::Rename {
            from: path(),
            to: target.path.clone(),
            state: target.remote.expect("a move arrives somewhere").clone(),
            revision: target.revision,
        };
        leave(1, rename, Some(to));
    } else if let Some(copy) = &row.copy {
        let aside = Action::KeepAside {
            path: path(),
            copy: copy.clone(),
            expected: row.expected,
        };
        leave(0, aside, None);
    } else if row.local.is_some() {
        let in_place = same.is_some_and(|(_, kind)| kind);
        // The content of a move that was given up is taken from the versions: it must be there.
        let wanted = kept.values().any(|&from| from == at);
        if in_place && !moves.from.contains_key(&at) && !wanted {
            expected = row.expected;
        } else {
            let remove = Action::Remove {
                path: path(),
                expected: row.expected,
            };
            leave(4, remove, None);
        }
    }
    if let Some(state) = row.remote.filter(|_| !moves.from.contains_key(&at)) {
        let from = kept.get(&at).map(|&from| table.rows[from].path.clone());
        steps.push(arrival(row, at, state, expected, from));
    }
}

fn arrival(row: &Row<'_>, at: usize, state: &State, expected: Expected, kept: Option<RelPath>) -> Step {
    let (path, state, revision) = (row.path.clone(), state.clone(), row.revision);
    let (class, action) = match state.kind {
        Kind::Directory => (2, Action::MakeDirectory { path, state, revision }),
        Kind::Symlink { .. } => (
            3,
            Action::MakeLink {
                path,
                state,
                revision,
                expected,
            },
        ),
        Kind::File { .. } => (
            5,
            Action::Fetch {
                path,
                state,
                revision,
                expected,
                kept,
            },
        ),
    };
    Step {
        action,
        class,
        frees: None,
        fills: Some(at),
    }
}

/// The mode that is set at the end: of what only differs in that, and of a directory that is made
/// with more than it is to have.
fn late_meta(row: &Row<'_>, state: &State) -> Option<Action> {
    let stays = row.local().is_some_and(|local| content(local, state) == Content::Same);
    let needed = match row.local() {
        Some(local) if stays => !same_meta(local, state) || row.expected != Expected::Agreed,
        _ => is_directory(Some(state)) && state.meta.mode & OWNER_WORKS != OWNER_WORKS,
    };
    let expected = if stays { row.expected } else { Expected::Surveyed };
    needed.then(|| Action::SetMeta {
        path: row.path.clone(),
        state: state.clone(),
        revision: row.revision,
        expected,
    })
}

fn remote_steps(table: &Rows<'_>, at: usize, moves: &Moves, steps: &mut Vec<Step>) {
    let row = &table.rows[at];
    let same = row
        .local()
        .zip(row.remote)
        .map(|(l, r)| (content(l, r), same_kind(l, r)));
    if same.is_some_and(|(content, _)| content == Content::Same) {
        return;
    }
    let mut based_on = if row.remote.is_some() {
        Revision::NONE
    } else {
        row.revision
    };
    let mut leave = |class, action, fills| {
        steps.push(Step {
            action,
            class,
            frees: Some(at),
            fills,
        });
    };
    if let Some(&to) = moves.to.get(&at) {
        let target = &table.rows[to];
        let local = target.local().expect("a move arrives somewhere");
        let send = Action::SendMove {
            from: row.path.clone(),
            from_revision: row.revision,
            to: target.path.clone(),
            state: with_root(local, row.remote.expect("what is moved is there")),
            expected: target.expected,
        };
        leave(0, send, Some(to));
    } else if row.remote.is_some() {
        let in_place = same.is_some_and(|(_, kind)| kind) && !moves.from.contains_key(&at);
        if in_place {
            based_on = row.revision;
        } else {
            let remove = Action::SendRemove {
                path: row.path.clone(),
                based_on: row.revision,
                expected: row.expected,
            };
            leave(3, remove, None);
        }
    }
    if let Some(state) = row.local().filter(|_| !moves.from.contains_key(&at)) {
        steps.push(Step {
            class: if is_directory(Some(state)) { 1 } else { 2 },
            action: Action::Send {
                path: row.path.clone(),
                state: state.clone(),
                based_on,
                expected: row.expected,
            },
            frees: None,
            fills: Some(at),
        });
    }
}

/// What is here, with the root that was proven to be its own.
fn with_root(local: &State, proven: &State) -> State {
    State {
        root: proven.root,
        ..local.clone()
    }
}

/// What is missing in [`of_folder`] and [`of_server`] of a side, for nothing but the report.
pub(super) fn gave_way(row: &Row<'_>) -> Option<super::Conflict> {
    (row.verdict == Verdict::Clash).then(|| super::Conflict {
        path: row.path.clone(),
        copy: row.copy.clone(),
        whose: Side::Local,
    })
}
