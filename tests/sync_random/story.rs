//! A server, devices and users of real folders, from a seed; and what must hold in the end.

use crate::harness::breaks::restart;
use crate::harness::syncing::{options, tree, watching};
use crate::harness::{World, WorldOptions};
use crate::net::Net;
use crate::rng::Rng;
use crate::trace;
use crate::user::{Fresh, contents, edit, paths};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use syncline::node::{Client, ClientEvent};

/// Turns of a story.
const TURNS: u64 = 900;
/// Rounds of all devices, one after the other, in which everything must come to rest.
const ROUNDS_MAX: usize = 12;

pub(crate) struct Story {
    seed: u64,
    is_told: bool,
    rng: Rng,
    world: World,
    net: Net,
    names: Vec<String>,
    clients: Vec<Option<Client>>,
    fresh: Fresh,
    /// Contents that must be somewhere.
    alive: BTreeSet<Vec<u8>>,
}

impl Story {
    pub(crate) fn new(seed: u64, is_told: bool) -> Story {
        let mut rng = Rng::new(seed);
        let count = 2 + rng.index(4);
        let world = World::in_memory(&WorldOptions::default());
        let names: Vec<String> = (0..count).map(|number| number.to_string()).collect();
        let net = Net::new(world.address);
        let mut story = Story {
            seed,
            is_told,
            rng,
            clients: names.iter().map(|_| None).collect(),
            world,
            net,
            names,
            fresh: Fresh::default(),
            alive: BTreeSet::new(),
        };
        for place in story.places() {
            fs::create_dir_all(&place).unwrap();
            for _ in 0..6 {
                story.edit(&place);
            }
        }
        story
    }

    fn tell(&self, what: impl FnOnce() -> String) {
        if self.is_told {
            println!("{}", what());
        } else {
            trace::note(what());
        }
    }

    fn places(&self) -> Vec<PathBuf> {
        let mut places: Vec<PathBuf> = self.names.iter().map(|name| self.world.folder(name)).collect();
        places.push(self.world.share());
        places
    }

    /// What a failure is traced by: all that happened, and what each index says of the paths that differ.
    fn explain(&self) {
        trace::print();
        let trees: Vec<Vec<String>> = self.places().iter().map(|place| tree(place)).collect();
        let told = differences(&trees);
        println!("{told}");
        for place in self.places() {
            println!("{}:\n{}", place.display(), trace::records(&place));
        }
    }

    /// All contents, in all trees and all versions.
    fn everything(&self) -> BTreeSet<Vec<u8>> {
        let places = self.places();
        let versions = places.iter().map(|place| place.join(".syncline/versions"));
        let all = places.iter().cloned().chain(versions);
        all.flat_map(|place| contents(&place)).collect()
    }

    /// A user edits a tree. What only stood there, and is no more, is the user's own doing.
    fn edit(&mut self, place: &Path) {
        let before = self.everything();
        let here = contents(place);
        let told = edit(place, &mut self.rng, &mut self.fresh);
        if told.is_empty() {
            return;
        }
        let after = self.everything();
        let destroyed: Vec<Vec<u8>> = here
            .iter()
            .filter(|content| before.contains(*content) && !after.contains(*content))
            .cloned()
            .collect();
        self.alive.extend(contents(place));
        destroyed.iter().for_each(|content| {
            self.alive.remove(content);
        });
        self.tell(|| told);
    }

    pub(crate) fn run(mut self) {
        for _ in 0..TURNS {
            self.turn();
        }
        self.clients.iter_mut().for_each(|client| drop(client.take()));
        self.come_to_rest();
        self.check();
    }

    fn turn(&mut self) {
        let number = self.rng.index(self.names.len());
        match self.rng.below(200) {
            0..=9 => {
                let places = self.places();
                let place = places[self.rng.index(places.len())].clone();
                self.edit(&place);
            }
            10..=12 => {
                self.tell(|| format!("device {number} is dropped"));
                self.clients[number] = None;
            }
            13 if self.rng.once_in(3) => {
                self.tell(|| "the server starts again".to_owned());
                restart(&mut self.world);
            }
            _ => {
                let wait = Duration::from_micros(self.rng.below(1500));
                self.world.server.poll(Some(wait)).unwrap();
                let cut = self.net.pass_some(&mut self.rng);
                if cut > 0 {
                    self.tell(|| format!("{cut} connections are cut or over"));
                }
                self.step(number);
            }
        }
    }

    /// Polls a device once; it begins when it does not run.
    fn step(&mut self, number: usize) {
        if self.clients[number].is_none() {
            let options = if self.rng.once_in(2) { watching() } else { options() };
            self.clients[number] = Some(self.world.sync_by(&self.names[number], self.net.link(), options));
        }
        let wait = Duration::from_micros(self.rng.below(1500));
        let client = self.clients[number].as_mut().expect("it was begun");
        for event in client.poll(Some(wait)).unwrap() {
            match &event {
                ClientEvent::Progress(_) => {}
                event => self.tell(|| format!("{number}: {event:?}")),
            }
            if let ClientEvent::Finished(outcome) = event {
                let is_passing = match &outcome.result {
                    Ok(()) => true,
                    Err(error) => !matches!(error, syncline::node::JobError::Protocol { .. }),
                };
                assert!(is_passing, "seed {}: {outcome:?}", self.seed);
                self.clients[number] = None;
            }
        }
    }

    /// Everyone syncs in turn until all is the same.
    fn come_to_rest(&mut self) {
        self.tell(|| "to rest".to_owned());
        let limit = Instant::now() + Duration::from_secs(15);
        let mut rounds = 0;
        loop {
            let before: Vec<Vec<String>> = self.places().iter().map(|place| tree(place)).collect();
            for number in 0..self.names.len() {
                let name = self.names[number].clone();
                let client = self.world.sync_by(&name, self.net.link(), options());
                let net = &mut self.net;
                let run = self.world.drive(client, |_, _| net.pass_all());
                self.tell(|| format!("{name}: {:?} {:?}", run.outcome.result, run.events));
                assert_eq!(run.outcome.result, Ok(()), "seed {}: {:?}", self.seed, run.events);
            }
            let after: Vec<Vec<String>> = self.places().iter().map(|place| tree(place)).collect();
            let is_same = after.iter().all(|tree| *tree == after[0]);
            rounds += usize::from(after != before);
            if is_same && after == before {
                return;
            }
            // What was edited at the server just now is found when it is quiet.
            assert!(
                rounds < ROUNDS_MAX && Instant::now() < limit,
                "seed {}: no rest after {rounds} rounds: {}",
                self.seed,
                differences(&after)
            );
        }
    }

    fn check(&self) {
        let all = self.everything();
        let lost: Vec<String> = self
            .alive
            .iter()
            .filter(|content| !all.contains(*content))
            .map(|content| String::from_utf8_lossy(&content[..18.min(content.len())]).into_owned())
            .collect();
        assert!(lost.is_empty(), "seed {}: lost {lost:?}", self.seed);
        for place in self.places() {
            let staged = paths(&place.join(".syncline/staging"));
            let files = staged.iter().filter(|path| path.is_file()).count();
            // What broke off may be gone on with; nothing else lies about.
            assert!(files < 50, "seed {}: {files} files in staging", self.seed);
        }
    }
}

impl Drop for Story {
    fn drop(&mut self) {
        if std::thread::panicking() && !self.is_told {
            self.explain();
        }
    }
}

/// What the trees do not have in common; the last one is the share.
fn differences(trees: &[Vec<String>]) -> String {
    let mut told = String::new();
    for (number, tree) in trees.iter().enumerate() {
        let is_common = |line: &&String| trees.iter().all(|other| other.contains(line));
        for line in tree.iter().filter(|line| !is_common(line)) {
            told.push_str(&format!("\n{number}: {line}"));
        }
    }
    told
}
