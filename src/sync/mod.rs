//! Two-way sync as a pure function: what was agreed, what is here, what is there, and from that a plan.
//!
//! No I/O, no clock, no randomness: [`plan()`] maps the same input to the same [`Plan`], so that random
//! trees prove it (`tests/sync_model.rs`). `docs/SYNC.md` tells the rules as a user sees them.
//!
//! Invariant: a plan never discards content that only one place holds. What it takes away goes to the
//! versions or to a conflict copy, what it deletes was seen in that state by whoever deleted it, and
//! each action names what it expects to find, so that a plan that grew old does nothing.
//!
//! # The steps of [`plan()`]
//! 1. `verdict`: each path by itself, by the table there. A file whose content must be known for that
//!    ends the plan here: see [`Plan::hash`].
//! 2. `collide`: names that are one to a file system are kept apart, and respelled where they are one entry.
//! 3. `tree`: a path that stays needs its directories. They come back, or what stands in their place
//!    is kept aside.
//! 4. `moves`: a file that leaves one path and arrives at another is moved, not sent.
//! 5. `brake`: too many deletions, and nothing at all is done.
//! 6. `order`: what frees a path comes before what fills it, parents before what is in them. A circle
//!    (a swap of two names) is broken by one file that goes into the versions and comes from there.
//!
//! # What the caller does
//! - It merges pages of remote changes so that a later one of a path replaces an earlier one.
//! - It carries the actions out in order, each only if what it expects is what it finds, and skips it
//!   otherwise: a later round knows more. What it is about to do it writes down as [`Pending`]. The records that each leaves in the base are at [`Action`].
//! - It moves on to the server's new revision only when all actions were carried out; until then the
//!   same remote changes are cases again. Remote changes of paths in [`Plan::held`] it remembers and gives
//!   again with the next cases, unless a newer one came; what it remembers is void in another epoch.
//! - It writes the epoch down before the first record, and takes the present record that comes with a
//!   "stale" as a remote change of the path that it is about.
//! - Should something stay [`Unsettled`](HeldReason::Unsettled) in two rounds, it asks for all that the
//!   server has, as from revision 0.
//! - Rounds follow each other until a plan [is empty](Plan::is_empty).

mod action;
mod brake;
mod case;
mod collide;
mod moves;
mod order;
mod sameness;
mod settings;
mod steps;
mod tree;
mod verdict;

pub use action::{Action, Collision, Conflict, Expected, Held, HeldReason, Plan, Side, Stop};
pub use case::{Agreed, Base, Case, Cases, Found, Local, Pending, Remote, Taken};
pub use settings::{Brake, Mode, Settings, Standing};

use tree::Rows;
use verdict::{Row, Verdict, judge};

/// Plans one round.
///
/// `cases` are the paths at which a side differs from `base`. The same arguments give the same plan.
#[must_use]
pub fn plan(cases: &Cases, base: &impl Base, settings: &Settings<'_>) -> Plan {
    let mut plan = Plan::default();
    let mut table = Rows::new(judge(cases, settings));
    let unread = table.rows.iter().filter(|row| row.verdict == Verdict::Hash);
    plan.hash = unread.map(|row| row.path.clone()).collect();
    if !plan.hash.is_empty() {
        return plan;
    }
    let collided = collide::settle(&mut table, settings);
    plan.collisions = collided.collisions;
    if !collided.respellings.is_empty() {
        plan.held = table.rows.iter().filter_map(held).collect();
        plan.actions = collided.respellings;
        return plan;
    }
    tree::settle(&mut table, base, settings);
    let (local, remote) = (moves::by_server(&table), moves::by_user(&table, settings));
    plan.held = table.rows.iter().filter_map(held).collect();
    plan.stop = brake::stop(&table, &local, &remote, settings);
    if plan.stop.is_some() {
        return plan;
    }
    plan.conflicts = table.rows.iter().filter_map(steps::gave_way).collect();
    plan.actions = steps::of_base(&table);
    plan.actions.extend(steps::of_folder(&table, local));
    plan.actions.extend(steps::of_server(&table, remote));
    plan
}

/// What is told of a path that is held: deletions, and what the server changed.
fn held(row: &Row<'_>) -> Option<Held> {
    match row.verdict {
        Verdict::Hold(reason) if row.remote_changed || reason == HeldReason::Deletion => Some(Held {
            path: row.path.clone(),
            reason,
        }),
        _ => None,
    }
}

#[cfg(test)]
#[path = "collide_tests.rs"]
mod collide_tests;
#[cfg(test)]
#[path = "plan_tests.rs"]
mod plan_tests;
#[cfg(test)]
#[path = "regression_tests.rs"]
mod regression_tests;
