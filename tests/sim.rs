//! A client and a server over streams that split, delay and break at every byte, from a seed.
//!
//! `SYNCLINE_SIM_SEED=n` replays one random run, `SYNCLINE_SIM_RUNS=n` sets how many there are. The
//! machines are the real ones; disks are trees in memory.

#![allow(clippy::unwrap_used)]

#[path = "sim/disk.rs"]
mod disk;
#[path = "sim/pipe.rs"]
mod pipe;
#[path = "sim/rng.rs"]
mod rng;
#[path = "sim/run.rs"]
mod run;
#[path = "sim/source.rs"]
mod source;
#[path = "sim/target.rs"]
mod target;
#[path = "sim/verify.rs"]
mod verify;

use disk::{Body, Disk, Node, SourceTrouble, TargetTrouble, meta, path};
use rng::Rng;
use run::{Cut, Job, Outcome, SharedDisk, Simulation, Weather};
use std::cell::RefCell;
use std::rc::Rc;
use syncline::model::ItemCode;
use syncline::model::limits::{CREDIT_WINDOW_BYTES, LEAF_BYTES, OUTBOUND_BYTES_MAX};
use syncline::wire::{BeginFlags, Brake, Direction};

const CALM: Weather = Weather {
    chunk_max: 64 * 1024,
    outbound_max: OUTBOUND_BYTES_MAX,
};

fn job(direction: Direction) -> Job {
    Job {
        direction,
        flags: BeginFlags::default(),
        brake: Brake::Unlimited,
    }
}

fn shared(disk: &Disk) -> SharedDisk {
    Rc::new(RefCell::new(disk.clone()))
}

/// Runs on copies of the disks, which come back as they are afterwards.
fn run(seed: u64, jobs: &[Job], disks: [&Disk; 2], weather: Weather, cut: Cut) -> (Outcome, [Disk; 2]) {
    let [client, server] = disks.map(shared);
    let outcome = Simulation::new(seed, jobs, &client, &server, weather, cut).run();
    let disks = [client, server].map(|disk| disk.borrow().clone());
    (outcome, disks)
}

/// The disks of the two ends of a transfer, in the order that [`run`] wants.
fn arranged<'a>(direction: Direction, source: &'a Disk, target: &'a Disk) -> [&'a Disk; 2] {
    match direction {
        Direction::Push => [source, target],
        Direction::Pull => [target, source],
    }
}

fn file(bytes: Vec<u8>) -> (Node, syncline::model::Meta) {
    (Node::File(Body::new(bytes)), meta(0o644, 1_700_000_000))
}

/// Every kind of entry and message in a few kilobytes.
fn small_world() -> (Disk, Disk) {
    let (mut source, mut target) = (Disk::default(), Disk::default());
    let directory = (Node::Directory, meta(0o755, 1_600_000_000));
    let link = (Node::Symlink(b"../elsewhere"[..].into()), meta(0o777, 5));
    let sparse = Body {
        bytes: [vec![1; 300], vec![0; 18_000], vec![2; 200]].concat(),
        holes: std::iter::once(300..18_300).collect(),
    };
    source.tree.extend([
        (path("d"), directory.clone()),
        (path("d/begun"), file(vec![7; LEAF_BYTES + 700])),
        (path("d/empty"), file(Vec::new())),
        (path("d/inline"), file(b"some text".to_vec())),
        (path("d/link"), link),
        (path("d/same"), file(b"the same on both sides".to_vec())),
        (path("damaged"), file(vec![9; 50])),
        (path("moving"), file(vec![8; 60])),
        (path("sparse"), (Node::File(Rc::new(sparse)), meta(0o600, -7))),
        (path("unreadable"), file(b"secret".to_vec())),
    ]);
    source.source_troubles.extend([
        (path("damaged"), SourceTrouble::Damaged(1)),
        (path("moving"), SourceTrouble::Changes(1)),
        (path("unreadable"), SourceTrouble::Unreadable(ItemCode::Permission)),
    ]);
    source.unlistable.push((b"a/fifo".to_vec(), ItemCode::Special));
    target.tree.extend([
        (path("d"), directory),
        (path("d/inline"), file(b"an older text".to_vec())),
        (path("d/same"), source.tree[&path("d/same")].clone()),
        (path("extra"), file(b"only here".to_vec())),
    ]);
    target.tree.get_mut(&path("d/inline")).unwrap().1.mtime.seconds = 3;
    (source, target)
}

// I2, I8: whatever byte the connection breaks after, only whole files are published; and the next
// run completes, from where a file broke off.
#[test]
fn a_cut_after_every_byte_publishes_nothing_half() {
    let (source, target) = small_world();
    for direction in [Direction::Push, Direction::Pull] {
        let disks = arranged(direction, &source, &target);
        let whole = |seed| run(seed, &[job(direction)], disks, CALM, Cut::Never).0;
        // One in which both large files are resumed and no answer is long, which leaves little to cut.
        let is_short = |run: &Outcome| run.resumed == 2 && run.from_client + run.from_server < 5000;
        let seed = (0..1000).find(|&seed| is_short(&whole(seed))).unwrap();
        let whole = whole(seed);
        assert!(whole.published >= 6);
        let mut continued = 0;
        let cuts = (0..whole.from_client).map(Cut::FromClient);
        for cut in cuts.chain((0..whole.from_server).map(Cut::FromServer)) {
            let (broken, after) = run(seed, &[job(direction)], disks, CALM, cut);
            assert!(broken.was_cut, "{cut:?} of a {direction:?}");
            let (next, _) = run(seed, &[job(direction)], [&after[0], &after[1]], CALM, Cut::Never);
            continued += next.continued;
        }
        assert!(continued > 100, "{continued} files were gone on with");
    }
}

// The same messages mean the same, whatever pieces they arrive in.
#[test]
fn bytes_that_come_one_by_one_are_understood() {
    let (source, target) = small_world();
    for direction in [Direction::Push, Direction::Pull] {
        let weather = Weather { chunk_max: 1, ..CALM };
        run(
            2,
            &[job(direction)],
            arranged(direction, &source, &target),
            weather,
            Cut::Never,
        );
    }
}

// I11: what is the same already needs no content and next to no bytes.
#[test]
fn a_second_push_moves_nothing() {
    let tree = disk::random_tree(&mut Rng::new(5), 300, 20_000);
    let source = Disk {
        tree,
        ..Disk::default()
    };
    let push = job(Direction::Push);
    let (first, [_, server]) = run(3, &[push], [&source, &Disk::default()], CALM, Cut::Never);
    assert!(first.published > 50);
    let (second, _) = run(4, &[push, push], [&source, &server], CALM, Cut::Never);
    assert_eq!(second.published, 0);
    assert!(second.from_server < 600, "{} bytes of answers", second.from_server);
}

// The window: many more files than may be open at a time, no round trip for each.
#[test]
fn thousands_of_small_files_pass_the_window() {
    let mut source = Disk::default();
    let name = |number: u32| path(&format!("directory {}/file {number}", number % 7));
    source
        .tree
        .extend((0..9000).map(|number| (name(number), file(number.to_le_bytes().to_vec()))));
    for direction in [Direction::Push, Direction::Pull] {
        let disks = arranged(direction, &source, &source);
        let (same, _) = run(6, &[job(direction)], disks, CALM, Cut::Never);
        assert_eq!(same.published, 0);
        let empty = Disk::default();
        let disks = arranged(direction, &source, &empty);
        let (all, _) = run(7, &[job(direction)], disks, CALM, Cut::Never);
        assert_eq!(all.published, 9000);
        assert!(all.crowded > 0, "the window was never full");
    }
}

// The window counts bytes of paths as well: deep trees pass it, a part at a time.
#[test]
fn long_paths_pass_the_window() {
    let mut source = Disk::default();
    let long = "a directory with a long name/".repeat(120);
    source
        .tree
        .extend((0..2500).map(|number| (path(&format!("{long}{number}")), file(vec![1; number % 5]))));
    for direction in [Direction::Push, Direction::Pull] {
        let empty = Disk::default();
        let disks = arranged(direction, &source, &empty);
        let (all, _) = run(10, &[job(direction)], disks, CALM, Cut::Never);
        assert_eq!(all.published, 2500);
        assert!(all.crowded > 0, "the window was never full");
    }
}

// Flow: content waits for credit, and all of it comes in the end.
#[test]
fn content_beyond_the_credit_waits_and_arrives() {
    let mut source = Disk::default();
    let bytes = Rng::new(8).bytes(2 * CREDIT_WINDOW_BYTES as usize + 12_345);
    source.tree.insert(path("big"), file(bytes));
    source.tree.insert(path("small"), file(b"waits behind it".to_vec()));
    for direction in [Direction::Push, Direction::Pull] {
        let empty = Disk::default();
        let weather = Weather {
            chunk_max: 20_000,
            outbound_max: 4 * CREDIT_WINDOW_BYTES as usize,
        };
        let disks = arranged(direction, &source, &empty);
        let (outcome, _) = run(9, &[job(direction)], disks, weather, Cut::Never);
        assert_eq!(outcome.published, 2);
        assert!(outcome.starved > 0, "the credit never ran out");
    }
}

// A file that one side gives up while the other starts it, sends it again or gives it up too: the
// words cross, and the connection lives on.
#[test]
fn both_sides_may_give_a_file_up_at_once() {
    let causes = [
        SourceTrouble::Changes(2),
        SourceTrouble::Changes(9),
        SourceTrouble::Damaged(9),
        SourceTrouble::ReadFails(ItemCode::Io),
    ];
    let full = ItemCode::DiskFull;
    let effects = [
        TargetTrouble::Early(full),
        TargetTrouble::AtStart(full),
        TargetTrouble::Midway(full),
        TargetTrouble::AtCommit(full),
    ];
    for (cause, effect) in causes.iter().flat_map(|cause| effects.map(|effect| (*cause, effect))) {
        let (mut source, mut target) = (Disk::default(), Disk::default());
        for number in 0..6 {
            let name = path(&number.to_string());
            source.tree.insert(name.clone(), file(vec![1; 10_000 * number]));
            source.source_troubles.insert(name.clone(), cause);
            target.target_troubles.insert(name, effect);
        }
        for seed in 0..20 {
            let weather = Weather {
                chunk_max: 3000,
                outbound_max: 20_000,
            };
            let (outcome, _) = run(seed, &[job(Direction::Push)], [&source, &target], weather, Cut::Never);
            assert_eq!(outcome.published, 0, "seed {seed}, {cause:?}, {effect:?}");
        }
    }
}

// Deltas: whatever is named, asked, told, patched and repaired, and given up in between, the contents
// are equal in the end, and no file waits for ever. The same of beginnings that are there already.
#[test]
fn files_with_a_basis_arrive_by_whatever_way() {
    let (mut asked, mut held_back, mut patched, mut repaired, mut abandoned) = (0, 0, 0, 0, 0);
    let (mut resumed, mut resumed_patches, mut declined, mut continued) = (0, 0, 0, 0);
    for seed in seeds(40) {
        eprintln!("SYNCLINE_SIM_SEED={seed}");
        let mut rng = Rng::new(seed);
        let (mut source, mut target) = (Disk::default(), Disk::default());
        for number in 0..10 + rng.index(50) {
            let name = path(&number.to_string());
            let [new, old] = [(); 2].map(|()| disk::random_body(&mut rng, 60_000));
            source.tree.insert(name.clone(), (Node::File(new), meta(0o644, 7)));
            target.tree.insert(name, (Node::File(old), meta(0o644, 3)));
        }
        let every = rng.pick(&[2, 5, 1000]);
        disk::add_troubles(&mut rng, &mut source, &mut target, every);
        let weather = Weather {
            chunk_max: rng.pick(&[40, 1500, 65_536]),
            outbound_max: rng.pick(&[500, 20_000, OUTBOUND_BYTES_MAX]),
        };
        let direction = rng.pick(&[Direction::Push, Direction::Pull]);
        let disks = arranged(direction, &source, &target);
        let (outcome, _) = run(seed, &[job(direction)], disks, weather, Cut::Never);
        asked += outcome.asked;
        held_back += outcome.held_back;
        patched += outcome.patched;
        repaired += outcome.repaired;
        abandoned += outcome.abandoned;
        resumed += outcome.resumed;
        resumed_patches += outcome.resumed_patches;
        declined += outcome.declined;
        for _ in 0..4 {
            let cut = match rng.below(2) {
                0 => Cut::FromClient(rng.below(outcome.from_client)),
                _ => Cut::FromServer(rng.below(outcome.from_server)),
            };
            let (broken, after) = run(seed, &[job(direction)], disks, weather, cut);
            assert!(broken.was_cut);
            let (whole, _) = run(seed, &[job(direction)], [&after[0], &after[1]], CALM, Cut::Never);
            continued += whole.continued;
        }
    }
    let deltas = [asked, held_back, patched, repaired, abandoned];
    let resumptions = [resumed, resumed_patches, declined, continued];
    let figures = [&deltas[..], &resumptions].concat();
    eprintln!("{figures:?}");
    assert!(
        variable("SYNCLINE_SIM_SEED").is_some() || figures.iter().all(|figure| *figure > 10),
        "{figures:?}"
    );
}

/// A random world, its weather and its jobs.
fn random_run(seed: u64) -> Outcome {
    let mut rng = Rng::new(seed);
    let entries = rng.pick(&[3, 30, 300]);
    let bytes_max = rng.pick(&[100, 20_000, 200_000]);
    let (mut source, mut target) = (Disk::default(), Disk::default());
    source.tree = disk::random_tree(&mut rng, entries, bytes_max);
    target.tree = disk::random_leftover(&mut rng, &source.tree);
    if rng.once_in(2) {
        let every = rng.pick(&[1, 3, 20]);
        disk::add_troubles(&mut rng, &mut source, &mut target, every);
    }
    if rng.once_in(4) {
        source
            .unlistable
            .push((b"\x1b[31m".to_vec(), disk::random_code(&mut rng)));
    }
    let direction = rng.pick(&[Direction::Push, Direction::Pull]);
    let first = random_job(&mut rng, direction);
    let jobs = [first, random_job(&mut rng, direction)];
    let jobs = &jobs[..1 + rng.index(2)];
    let weather = Weather {
        chunk_max: rng.pick(&[40, 1500, 65_536, 1 << 20]),
        outbound_max: rng.pick(&[500, 20_000, OUTBOUND_BYTES_MAX]),
    };
    let disks = arranged(direction, &source, &target);
    let (whole, _) = run(seed, jobs, disks, weather, Cut::Never);
    let cut = match rng.below(2) {
        0 => Cut::FromClient(rng.below(whole.from_client)),
        _ => Cut::FromServer(rng.below(whole.from_server)),
    };
    let (broken, after) = run(seed, jobs, disks, weather, cut);
    assert!(broken.was_cut);
    run(rng.next(), jobs, [&after[0], &after[1]], weather, Cut::Never);
    whole
}

fn random_job(rng: &mut Rng, direction: Direction) -> Job {
    Job {
        direction,
        flags: BeginFlags {
            dry_run: rng.once_in(4),
            checksum: rng.once_in(3),
            delete: rng.once_in(2),
            in_place: false,
            sync: false,
        },
        brake: rng.pick(&[Brake::Unlimited, Brake::Count(2)]),
    }
}

/// The seeds of a random test: `runs` of them, unless the environment says otherwise.
fn seeds(runs: u64) -> std::ops::Range<u64> {
    match variable("SYNCLINE_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..variable("SYNCLINE_SIM_RUNS").unwrap_or(runs),
    }
}

fn variable(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

// All of the above, mixed by seed; I17: a seed that is run twice leaves the same trace.
#[test]
fn random_worlds_in_random_weather_keep_every_promise() {
    for seed in seeds(120) {
        let attempt = || random_run(seed).trace;
        match std::panic::catch_unwind(|| (attempt(), seed % 10 == 0 && attempt() != attempt())) {
            Ok((_, false)) => {}
            Ok((_, true)) => panic!("SYNCLINE_SIM_SEED={seed} leaves another trace each time"),
            Err(cause) => {
                eprintln!("replay with SYNCLINE_SIM_SEED={seed}");
                std::panic::resume_unwind(cause);
            }
        }
    }
}
