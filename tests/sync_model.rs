//! The planner against a model: random trees, edits, cuts and interleavings, all from a seed.
//!
//! Each seed is a world of a server and devices whose rounds run one action at a time between the
//! others' (`sync_model/`). `SYNCLINE_SEEDS=n` plays so many seeds, `SYNCLINE_SEED=n` one, with its
//! trace. What must hold is in `sync_model/world.rs`.

#[path = "sync_model/device.rs"]
mod device;
#[path = "sync_model/disk.rs"]
mod disk;
#[path = "sync_model/edits.rs"]
mod edits;
#[path = "sync_model/executor.rs"]
mod executor;
#[allow(dead_code, reason = "shared with tests/sim.rs, which uses more of it")]
#[path = "sim/rng.rs"]
mod rng;
#[path = "sync_model/server.rs"]
mod server;
#[path = "sync_model/world.rs"]
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use syncline::sync::Mode;
use world::{Scenario, World};

/// Seeds of a usual run.
const SEEDS: u64 = 400;
/// Failures that are told.
const SHOWN_MAX: usize = 20;

fn scenario(seed: u64) -> Scenario {
    const SAFE: &[Mode] = &[Mode::TwoWaySafe];
    let plain = Scenario {
        devices: 2 + (seed / 7 % 4) as usize,
        edits: 12 + (seed / 5 % 5) as usize * 8,
        modes: SAFE,
        solo: false,
        faults: true,
        wipes: false,
        special: false,
    };
    match seed % 10 {
        0 => Scenario { faults: false, ..plain },
        1 => Scenario { solo: true, ..plain },
        2 => Scenario { wipes: true, ..plain },
        3 => Scenario { special: true, ..plain },
        4 => Scenario {
            modes: &[Mode::TwoWaySafe, Mode::ReceiveOnly],
            ..plain
        },
        5 => Scenario {
            modes: &[Mode::TwoWaySafe, Mode::OneWaySafe, Mode::TwoWayResolved],
            ..plain
        },
        6 => match seed / 10 % 3 {
            0 => Scenario {
                modes: &[Mode::OneWayReplica],
                devices: 1,
                ..plain
            },
            1 => Scenario {
                modes: &[Mode::TwoWayResolved],
                ..plain
            },
            _ => Scenario {
                modes: &[Mode::TwoWaySafe, Mode::OneWaySafe, Mode::ReceiveOnly],
                wipes: true,
                ..plain
            },
        },
        _ => plain,
    }
}

/// Plays a seed; its trace, and what went wrong.
fn play(seed: u64) -> (Vec<String>, Result<(), String>) {
    let mut world = World::new(seed, scenario(seed));
    let result = catch_unwind(AssertUnwindSafe(|| world.run()));
    let mut trace = std::mem::take(&mut world.trace);
    trace.extend(
        world
            .devices
            .iter_mut()
            .flat_map(|device| std::mem::take(&mut device.trace)),
    );
    let result = result.map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("a panic");
        trace.push(world.show());
        text.lines().next().unwrap_or_default().to_owned()
    });
    (trace, result)
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

// Protects I3, I4, I5, I11, I13, I14 and I17: whatever devices and users do, and wherever it is cut,
// nothing is lost or comes back, and all end up with the same.
#[test]
fn random_worlds_converge_and_lose_nothing() {
    if let Some(seed) = variable("SYNCLINE_SEED") {
        let (trace, result) = play(seed);
        trace.iter().for_each(|line| println!("{line}"));
        result.unwrap_or_else(|text| panic!("seed {seed}: {text}"));
        return;
    }
    let seeds = variable("SYNCLINE_SEEDS").unwrap_or(SEEDS);
    let mut failed = Vec::new();
    for seed in 0..seeds {
        let (trace, result) = play(seed);
        if let Err(text) = result {
            failed.push((seed, text));
        } else if seed.is_multiple_of(10) {
            assert!(
                play(seed).0 == trace,
                "I17: seed {seed} has another trace the second time"
            );
        }
    }
    let shown = failed.iter().take(SHOWN_MAX);
    let lines: Vec<String> = shown
        .map(|(seed, text)| format!("SYNCLINE_SEED={seed}: {text}"))
        .collect();
    assert!(failed.is_empty(), "{} seeds fail\n{}", failed.len(), lines.join("\n"));
}
