//! In which order the actions of one side are carried out.
//!
//! Knows steps that free a path and steps that fill one, not what they do. Invariant: a path is freed
//! before it is filled, what is in a directory leaves before it, and a directory is there before what
//! arrives in it.
//!
//! 1. Each step names the steps it waits for.
//! 2. Of the steps that wait for nothing the first is taken, by class, then by path (Kahn).
//! 3. What is left waits in circles, each of which goes through a move. Of each circle one move is given
//!    up, and all is ordered again.

use super::action::Action;
use super::tree::Rows;
use std::collections::{BTreeSet, HashMap};

/// After so many attempts every move that is still in a circle is given up, which ends it.
const ATTEMPTS_MAX: usize = 8;

/// One action, with what it does to paths, by their rows.
pub(super) struct Step {
    pub(super) action: Action,
    /// What kind of action goes first, when either can.
    pub(super) class: u8,
    /// The row whose present state leaves its path.
    pub(super) frees: Option<usize>,
    /// The row whose new state arrives at its path.
    pub(super) fills: Option<usize>,
}

impl Step {
    fn is_move(&self) -> bool {
        self.frees.is_some() && self.fills.is_some()
    }

    fn key(&self) -> (u8, usize) {
        (self.class, self.fills.or(self.frees).unwrap_or(0))
    }
}

/// The steps in order, or the sources of moves to give up.
pub(super) fn order(table: &Rows<'_>, steps: Vec<Step>, attempt: usize) -> Result<Vec<Action>, Vec<usize>> {
    let waits = waits(table, &steps);
    let mut left: Vec<usize> = waits.iter().map(Vec::len).collect();
    let mut followers: Vec<Vec<usize>> = vec![Vec::new(); steps.len()];
    for (step, before) in waits.iter().enumerate() {
        before.iter().for_each(|&before| followers[before].push(step));
    }
    let ready = |step: usize| (steps[step].key(), step);
    let free = (0..steps.len()).filter(|&step| left[step] == 0);
    let mut queue: BTreeSet<((u8, usize), usize)> = free.map(ready).collect();
    let mut ordered = Vec::with_capacity(steps.len());
    while let Some((_, step)) = queue.pop_first() {
        ordered.push(step);
        for &follower in &followers[step] {
            left[follower] -= 1;
            if left[follower] == 0 {
                queue.insert(ready(follower));
            }
        }
    }
    if ordered.len() < steps.len() {
        return Err(circles(&steps, &waits, &left, attempt));
    }
    let mut steps: Vec<Option<Action>> = steps.into_iter().map(|step| Some(step.action)).collect();
    let taken = ordered.into_iter().filter_map(|step| steps[step].take());
    Ok(taken.collect())
}

/// For each step, those that come before it.
fn waits(table: &Rows<'_>, steps: &[Step]) -> Vec<Vec<usize>> {
    let mut freed: HashMap<usize, usize> = HashMap::new();
    let mut filled: HashMap<usize, usize> = HashMap::new();
    for (number, step) in steps.iter().enumerate() {
        step.frees.map(|row| freed.insert(row, number));
        step.fills.map(|row| filled.insert(row, number));
    }
    let mut waits: Vec<Vec<usize>> = vec![Vec::new(); steps.len()];
    for (number, step) in steps.iter().enumerate() {
        if let Some(row) = step.fills {
            waits[number].extend(freed.get(&row).filter(|&&other| other != number));
            let parent = table.parent(row).and_then(|parent| filled.get(&parent));
            waits[number].extend(parent);
        }
        if let Some(row) = step.frees {
            let mut above = table.parent(row);
            while let Some(directory) = above {
                if let Some(&leaving) = freed.get(&directory) {
                    waits[leaving].push(number);
                    break;
                }
                above = table.parent(directory);
            }
        }
    }
    waits
}

/// One move of each circle that is found, by the row it frees.
fn circles(steps: &[Step], waits: &[Vec<usize>], left: &[usize], attempt: usize) -> Vec<usize> {
    let stuck = |step: usize| left[step] > 0;
    if attempt >= ATTEMPTS_MAX {
        let moves = (0..steps.len()).filter(|&step| stuck(step) && steps[step].is_move());
        return moves.filter_map(|step| steps[step].frees).collect();
    }
    // In which walk a step was passed; 0 is none.
    let mut passed = vec![0; steps.len()];
    let mut given_up = Vec::new();
    for (walk, start) in (1..).zip((0..steps.len()).filter(|&step| stuck(step))) {
        let mut at = start;
        let mut way = Vec::new();
        while passed[at] == 0 {
            passed[at] = walk;
            way.push(at);
            let before = waits[at].iter().copied().find(|&before| stuck(before));
            at = before.expect("a step that is stuck waits for one that is");
        }
        if passed[at] == walk {
            let from = way.iter().position(|&step| step == at).unwrap_or(0);
            let circle = &way[from..];
            let first = circle.iter().filter(|&&step| steps[step].is_move());
            given_up.extend(
                first
                    .min_by_key(|&&step| steps[step].key())
                    .and_then(|&step| steps[step].frees),
            );
        }
    }
    assert!(!given_up.is_empty(), "every circle goes through a move");
    given_up
}
