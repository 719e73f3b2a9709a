//! The seeded simulator with real stores: real folders, a real server and devices polled on one thread, a network that
//! splits, holds up and cuts; random edits, interleavings, drops and restarts, all from a seed.
//!
//! `SYNCLINE_SEEDS=n` plays so many seeds, from `SYNCLINE_SEED_FROM` on; `SYNCLINE_SEED=n` one, with its trace. Threads
//! of the system take part, so a seed is the same story and not the same run: a failure prints what happened, with
//! `SYNCLINE_TRACE=1` also what Syncline said. What must hold is in `sync_random/story.rs`.
#![cfg(feature = "sync")]
#![allow(clippy::unwrap_used)]

mod harness;
#[path = "sync_random/net.rs"]
mod net;
#[allow(dead_code, reason = "shared with tests/sim.rs, which uses more of it")]
#[path = "sim/rng.rs"]
mod rng;
#[path = "sync_random/story.rs"]
mod story;
#[path = "sync_random/trace.rs"]
mod trace;
#[path = "sync_random/user.rs"]
mod user;

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Seeds of a usual run.
const SEEDS: u64 = 6;

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

// Protects I3, I5 and I13 on real stores: whatever users, drops and restarts do, all trees end up equal, and
// every content that anybody wrote is in a tree, a conflict copy or the versions.
#[test]
fn random_folders_converge_and_lose_nothing() {
    if let Some(seed) = variable("SYNCLINE_SEED") {
        harness::syncing::show();
        story::Story::new(seed, true).run();
        return;
    }
    let first = variable("SYNCLINE_SEED_FROM").unwrap_or(0);
    let seeds = variable("SYNCLINE_SEEDS").unwrap_or(SEEDS);
    let mut failed = Vec::new();
    if std::env::var_os("SYNCLINE_TRACE").is_some() {
        trace::record();
    }
    for seed in first..first + seeds {
        trace::begin();
        if catch_unwind(AssertUnwindSafe(|| story::Story::new(seed, false).run())).is_err() {
            failed.push(seed);
        }
    }
    assert!(
        failed.is_empty(),
        "seeds that failed (SYNCLINE_SEED=n plays one): {failed:?}"
    );
}
