//! Random users of two devices, of which one is on a file system that folds; the share is on one in half of the
//! stories. Invariant: the same seed does the same.
#![allow(unreachable_pub)]

use super::harness::guard::holds;
use super::harness::syncing::{options, texts};
use super::{World, collisions, folding, folding_share, shown};
use std::fs;
use std::path::Path;

/// Numbers from a seed.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound as u64).unwrap()
    }

    fn pick<'a>(&mut self, list: &[&'a str]) -> &'a str {
        list[self.below(list.len())]
    }
}

const FILES: [&str; 10] = [
    "a",
    "A",
    "d/x",
    "D/x",
    "D/X",
    "d/y",
    "D/e/z",
    "d/E/z",
    "caf\u{e9}",
    "cafe\u{301}",
];

/// One thing that a user does in a folder; most of what cannot be done is not.
fn edit(random: &mut Random, root: &Path, text: &str) {
    let (one, other) = (random.pick(&FILES), random.pick(&FILES));
    let what = random.below(8);
    println!("  {} {what}: {one} {other} {text}", root.display());
    match what {
        0 => drop(fs::remove_file(root.join(one))),
        1 => {
            let _ = fs::create_dir_all(root.join(other).parent().unwrap());
            let _ = fs::rename(root.join(one), root.join(other));
        }
        2 => drop(
            fs::rename(root.join("d"), root.join("between"))
                .and_then(|()| fs::rename(root.join("between"), root.join("D"))),
        ),
        3 => drop(
            fs::rename(root.join("D"), root.join("between"))
                .and_then(|()| fs::rename(root.join("between"), root.join("d"))),
        ),
        4 => drop(fs::remove_dir_all(root.join(random.pick(&["d", "D"])))),
        _ => {
            let _ = fs::create_dir_all(root.join(one).parent().unwrap());
            let _ = fs::write(root.join(one), text);
        }
    }
}

/// Two devices, of which one folds, and a share; every content that a run saw must be somewhere afterwards.
pub fn tell(seed: u64) {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let (mut world, _share) = match seed % 2 {
        0 => (World::new(), None),
        _ => {
            let (world, mounted) = folding_share();
            (world, Some(mounted))
        }
    };
    world.make("a", &[]);
    let (_b, _mounted) = folding(&world, "b");
    let names = ["a", "b"];
    for round in 0..12 {
        for number in 0..1 + random.below(4) {
            let name = names[random.below(2)];
            edit(
                &mut random,
                &world.folder(name),
                &format!("<{seed} {round} {number} {name}>"),
            );
        }
        let name = names[random.below(2)];
        let before = texts(&world.folder(name));
        let run = world.sync_with(name, options());
        assert_eq!(run.outcome.result, Ok(()), "seed {seed} round {round}");
        let places = [world.share(), world.folder("a"), world.folder("b")];
        println!(
            "{round}: {name}: {:?} {:?} {:?}",
            run.items(),
            run.failures(),
            collisions(&run)
        );
        for place in &places {
            println!("    {}", shown(place).join(", "));
        }
        for text in before.values() {
            let is_there = places.iter().any(|place| holds(place, text.as_bytes()));
            assert!(is_there, "seed {seed} round {round}: {text} of {name} is lost");
        }
    }
    for _ in 0..4 {
        for name in names {
            let run = world.sync_with(name, options());
            println!(
                "rest: {name}: {:?} {:?} {:?}",
                run.items(),
                run.failures(),
                collisions(&run)
            );
        }
    }
    for name in names {
        is_settled(&mut world, name, seed);
    }
}

/// Nothing is left to be done, and what is not the same on both sides is told.
fn is_settled(world: &mut World, name: &str, seed: u64) {
    let run = world.sync_with(name, options());
    assert_eq!(
        (run.items(), run.failures()),
        (vec![], vec![]),
        "seed {seed}: {name} does not come to rest"
    );
    // What is not the same on both sides is told.
    let told = collisions(&run);
    let (share, folder) = (texts(&world.share()), texts(&world.folder(name)));
    for path in share.keys().filter(|path| folder.get(*path) != share.get(*path)) {
        let is_told = |line: &String| path.starts_with(line.split(" < ").next().unwrap());
        // What became something without a place by a rename keeps its old name there.
        let is_source = |line: &String| {
            let (now, _) = line.split_once(" > ").unwrap_or_default();
            let is_in = |at: &str| at == now || at.strip_prefix(now).is_some_and(|rest| rest.starts_with('/'));
            folder.iter().any(|(at, text)| is_in(at) && *text == share[path])
        };
        assert!(
            told.iter().any(|line| is_told(line) || is_source(line)),
            "seed {seed}: {path} is missing on {name}: {told:?}"
        );
    }
    for path in folder.keys().filter(|path| folder.get(*path) != share.get(*path)) {
        let is_told = |line: &String| path.starts_with(line.split(" > ").next().unwrap());
        assert!(
            told.iter().any(is_told),
            "seed {seed}: {path} is only on {name}: {told:?}"
        );
    }
}
