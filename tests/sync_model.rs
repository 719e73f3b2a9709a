//! The planner against a model: random trees, edits, cuts and interleavings, all from a seed.
//!
//! Each seed is a world of a server and devices whose rounds run one action at a time between the
//! others' (`sync_model/`). `SYNCLINE_SEEDS=n` plays so many seeds, from `SYNCLINE_SEED_FROM` on,
//! `SYNCLINE_SEED=n` one, with its trace. What must hold is in `sync_model/world.rs`.

#![allow(clippy::unwrap_used)]

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

use device::Stepped;
use disk::What;
use std::panic::{AssertUnwindSafe, catch_unwind};
use syncline::model::RelPath;
use syncline::sync::{Brake, Mode};
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
    let first = variable("SYNCLINE_SEED_FROM").unwrap_or(0);
    let mut failed = Vec::new();
    for seed in first..first + seeds {
        let (trace, result) = play(seed);
        if let Err(text) = result {
            println!("SYNCLINE_SEED={seed}: {text}");
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

/// A world in which nothing happens by itself: two devices, and files at the first one that both have.
fn settled(files: u64) -> World {
    let quiet = Scenario {
        devices: 2,
        edits: 0,
        modes: &[Mode::TwoWaySafe],
        solo: false,
        faults: false,
        wipes: false,
        special: false,
    };
    let mut world = World::new(1, quiet);
    for number in 0..files {
        world.devices[0]
            .disk
            .put(&numbered(number), What::File(1000 + number), 0o644, 1);
    }
    world.come_to_rest();
    assert_eq!(world.devices[1].disk.nodes.len() as u64, files);
    world
}

fn numbered(number: u64) -> RelPath {
    RelPath::parse(format!("f{number}").as_bytes()).unwrap()
}

// Protects I5: a device that was away brings back nothing that was deleted meanwhile, but what it edited.
#[test]
fn row_57_a_device_that_returns_after_months_resurrects_nothing() {
    let mut world = settled(40);
    for number in 0..30 {
        world.devices[0].disk.remove(&numbered(number));
    }
    while world.round(0) {}
    world.devices[1].disk.change(&numbered(3), |node| {
        node.what = What::File(7);
        node.mtime = 9;
    });
    world.come_to_rest();
    for device in &world.devices {
        assert_eq!(device.disk.tree(), world.server.disk.tree());
        assert_eq!(device.disk.nodes.len(), 11, "ten were left alone, one was edited");
    }
}

// Protects the server and the folders from an index that knows nothing: no file goes.
#[test]
fn row_56_a_wiped_index_deletes_nothing() {
    let mut world = settled(40);
    for number in 0..20 {
        world.devices[0].disk.remove(&numbered(number));
        world.server.disk.remove(&numbered(20 + number));
    }
    world.server.wipe();
    world.come_to_rest();
    for device in &world.devices {
        assert_eq!(device.disk.nodes.len(), 40);
        assert_eq!(device.disk.tree(), world.server.disk.tree());
    }
}

// Protects from a folder that was emptied by mistake: it stops both where it happened and elsewhere.
#[test]
fn row_18_the_brake_holds_a_mass_deletion_on_both_ways() {
    let mut world = settled(60);
    let stopped = |world: &mut World, number: usize| {
        let mut rng = rng::Rng::new(1);
        let device = &mut world.devices[number];
        device.brake = Some(Brake::default());
        let mut stepped = Stepped::Goes;
        while stepped == Stepped::Goes {
            stepped = device.step(&mut world.server, &mut rng, false);
        }
        stepped == Stepped::Stopped
    };
    for number in 0..60 {
        world.devices[0].disk.remove(&numbered(number));
    }
    assert!(stopped(&mut world, 0));
    assert_eq!(world.server.disk.nodes.len(), 60);
    world.devices[0].brake = None;
    while world.round(0) {}
    assert_eq!(world.server.disk.nodes.len(), 0);
    assert!(stopped(&mut world, 1));
    assert_eq!(world.devices[1].disk.nodes.len(), 60);
}
