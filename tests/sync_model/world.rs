//! A server, devices, users, faults, and what must hold.
//!
//! Everything follows from the seed. The checks: I3 after each round, I4 and I5, I11, I13, I14 at the end.

use crate::device::{Device, Stepped};
use crate::disk::{Node, What};
use crate::edits::{Edit, Fresh, edit};
use crate::rng::Rng;
use crate::server::{SERVER, Server};
use std::collections::{BTreeMap, BTreeSet};
use syncline::model::RelPath;
use syncline::sync::Mode;

/// Rounds in which one device alone must come to rest.
const ROUNDS_MAX: usize = 10;
/// Times that all devices are asked in turn until none has anything to do.
const TURNS_MAX: usize = 20;

/// What may happen in a world.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scenario {
    pub(crate) devices: usize,
    pub(crate) edits: usize,
    pub(crate) modes: &'static [Mode],
    /// Only the first device's user does anything.
    pub(crate) solo: bool,
    pub(crate) faults: bool,
    pub(crate) wipes: bool,
    pub(crate) special: bool,
}

/// A file that a user deleted.
struct Deletion {
    path: RelPath,
    content: u64,
    /// When the deleting side had last agreed on it.
    agreed: u64,
}

pub(crate) struct World {
    pub(crate) rng: Rng,
    pub(crate) server: Server,
    pub(crate) devices: Vec<Device>,
    scenario: Scenario,
    fresh: Fresh,
    now: u64,
    /// Contents that no user destroyed the last copy of.
    alive: BTreeSet<u64>,
    /// Contents that a place has had.
    had: BTreeMap<usize, BTreeSet<u64>>,
    deletions: Vec<Deletion>,
    /// The last time that a user touched a path, by place.
    touched: BTreeMap<RelPath, Vec<(u64, usize)>>,
    wiped: bool,
    pub(crate) trace: Vec<String>,
}

impl World {
    pub(crate) fn new(seed: u64, scenario: Scenario) -> World {
        let mode = |number: usize| scenario.modes[number % scenario.modes.len()];
        let mut devices: Vec<Device> = (0..scenario.devices).map(|n| Device::new(n, mode(n))).collect();
        for device in &mut devices {
            device.remembers = scenario.solo || !seed.is_multiple_of(3);
        }
        World {
            rng: Rng::new(seed),
            server: Server::new(),
            devices,
            scenario,
            fresh: Fresh::default(),
            now: 0,
            alive: BTreeSet::new(),
            had: BTreeMap::new(),
            deletions: Vec::new(),
            touched: BTreeMap::new(),
            wiped: false,
            trace: Vec::new(),
        }
    }

    /// Plays the seed to its end and checks all that must hold.
    pub(crate) fn run(&mut self) {
        let mut left = self.scenario.edits;
        // Sometimes one is away for most of it.
        let away = self.rng.once_in(3).then(|| self.rng.index(self.scenario.devices));
        while left > 0 {
            self.now += 1;
            if self.rng.once_in(4) {
                left -= 1;
                self.user_edits();
            }
            self.faults();
            let number = self.rng.index(self.scenario.devices);
            if away != Some(number) || left == 0 {
                self.step(number, self.scenario.faults);
            }
        }
        self.come_to_rest();
        self.check_end();
    }

    fn user_edits(&mut self) {
        let places = self.scenario.devices + 1;
        let place = if self.scenario.solo { 0 } else { self.rng.index(places) };
        let clock = (self.now as i64) * 10 + [0, 100_000, -100_000][place % 3];
        for _ in 0..=self.rng.below(3) {
            self.note_contents();
            let server = place == self.scenario.devices;
            let disk = if server {
                &mut self.server.disk
            } else {
                &mut self.devices[place].disk
            };
            let special = self.scenario.special && !server;
            let made = edit(disk, &mut self.rng, &mut self.fresh, clock, special);
            self.note_edit(if server { SERVER } else { place }, made);
        }
    }

    fn note_edit(&mut self, place: usize, made: Edit) {
        if made.told.is_empty() {
            return;
        }
        self.now += 1;
        self.trace.push(format!("user at {}: {}", place as isize, made.told));
        let agreed = |path: &RelPath| match self.devices.get(place) {
            Some(device) => device.base.get(path).map(|record| record.at),
            None => Some(self.now - 1),
        };
        for (path, content) in made.deleted {
            // Somebody else has touched it and that is not told yet: their edit beats the deletion.
            let fresh = |device: &&Device| {
                let known = device.base.get(&path).map(|record| record.identity);
                device.number != place && device.disk.get(&path).is_some() && device.disk.identity(&path) != known
            };
            // Or it was told, and the deleting side has not seen it.
            let known = self.devices.get(place).and_then(|device| device.base.get(&path));
            let present = self.server.index.get(&path).map(|record| record.revision);
            let unseen = known.is_some_and(|known| Some(known.agreed.revision) != present);
            if unseen || self.devices.iter().any(|device| fresh(&device)) {
                continue;
            }
            if let Some(agreed) = agreed(&path) {
                self.deletions.push(Deletion { path, content, agreed });
            }
        }
        for path in made.touched {
            self.touched.entry(path).or_default().push((self.now, place));
        }
        self.alive.extend(made.written);
        let left = self.contents();
        for content in made.destroyed {
            if !left.contains(&content) {
                self.alive.remove(&content);
            }
        }
    }

    fn faults(&mut self) {
        if !self.scenario.faults {
            return;
        }
        if self.rng.once_in(60) {
            let number = self.rng.index(self.scenario.devices);
            self.devices[number].crash();
            self.trace.push(format!("{number}: crash"));
        }
        if self.scenario.wipes && self.rng.once_in(200) {
            self.server.wipe();
            self.wiped = true;
            self.trace.push("wipe".to_owned());
        }
    }

    fn step(&mut self, number: usize, faults: bool) -> Stepped {
        self.note_contents();
        let device = &mut self.devices[number];
        device.now = self.now;
        let stepped = device.step(&mut self.server, &mut self.rng, faults);
        self.trace.append(&mut device.trace);
        self.note_contents();
        if let Stepped::Over(_) = stepped {
            self.check_nothing_is_lost();
        }
        stepped
    }

    fn note_contents(&mut self) {
        for (number, device) in self.devices.iter().enumerate() {
            self.had.entry(number).or_default().extend(device.disk.contents());
        }
        self.had.entry(SERVER).or_default().extend(self.server.disk.contents());
    }

    fn contents(&self) -> BTreeSet<u64> {
        let mut all: BTreeSet<u64> = self.server.disk.contents().collect();
        all.extend(&self.server.versions);
        for device in &self.devices {
            all.extend(device.disk.contents());
            all.extend(&device.versions);
        }
        all
    }

    // I3
    fn check_nothing_is_lost(&self) {
        let all = self.contents();
        for content in &self.alive {
            assert!(all.contains(content), "I3: content {content} is nowhere");
        }
    }

    /// One whole round without faults; whether there was anything to do.
    pub(crate) fn round(&mut self, number: usize) -> bool {
        self.devices[number].crash();
        for _ in 0..10_000 {
            self.now += 1;
            match self.step(number, false) {
                Stepped::Goes => {}
                Stepped::Over(worked) => return worked,
                Stepped::Stopped => panic!("the brake stopped device {number}"),
            }
        }
        panic!("I14: a round of device {number} does not end");
    }

    /// Rounds until no device has anything to do.
    pub(crate) fn come_to_rest(&mut self) {
        for _ in 0..TURNS_MAX {
            let mut worked = false;
            for number in 0..self.devices.len() {
                let rounds = (0..ROUNDS_MAX).take_while(|_| self.round(number)).count();
                assert!(rounds < ROUNDS_MAX, "I14: device {number} does not come to rest");
                worked |= rounds > 0;
            }
            if !worked {
                return;
            }
        }
        panic!("I14: the devices do not come to rest");
    }

    fn check_end(&mut self) {
        self.check_nothing_is_lost();
        self.check_deletions();
        self.check_modes();
        let two_way = |device: &&Device| matches!(device.mode, Mode::TwoWaySafe | Mode::TwoWayResolved);
        for device in self.devices.iter().filter(two_way) {
            let here = device.disk.tree();
            let mut there = self.server.disk.tree();
            // What cannot be synced and stands in the way here hides what is there.
            let special = device.disk.nodes.iter().filter(|(_, node)| node.what == What::Special);
            let special: Vec<&RelPath> = special.map(|(path, _)| path).collect();
            there.retain(|path, _| !special.iter().any(|special| is_within(path, special)));
            assert_eq!(here, there, "I13: device {} and the server differ", device.number);
        }
        if self.scenario.solo {
            assert_eq!(self.devices[0].conflicts, 0, "one user alone has no conflicts");
        }
        let transfers: Vec<usize> = self.devices.iter().map(|device| device.transfers).collect();
        for number in 0..self.devices.len() {
            assert!(!self.round(number), "I11: device {number} acts on equal trees");
        }
        let after: Vec<usize> = self.devices.iter().map(|device| device.transfers).collect();
        assert_eq!(transfers, after, "I11");
    }

    fn check_deletions(&self) {
        // I4: whoever deleted had seen the content.
        let had = |place: usize, content: u64| self.had.get(&place).is_some_and(|had| had.contains(&content));
        for (path, content, author) in &self.server.displaced {
            let device = self.devices.get(*author);
            if device.is_some_and(|device| matches!(device.mode, Mode::OneWayReplica)) {
                continue;
            }
            assert!(
                had(*author, *content),
                "I4: {path} with {content} goes from the server unseen by {author}"
            );
        }
        for device in &self.devices {
            for (path, content, author) in &device.obeyed {
                let blind = self
                    .devices
                    .get(*author)
                    .is_some_and(|author| author.mode == Mode::OneWayReplica);
                let resolved = device.mode == Mode::TwoWayResolved;
                // Or it had been replaced before, by one who had seen it.
                let seen = had(*author, *content) || had(SERVER, *content) || blind || resolved;
                assert!(
                    seen,
                    "I4: {path} with {content} goes from {} unseen by {author}",
                    device.number
                );
            }
        }
        // I5: what was deleted is back only where somebody touched it since the deleter last agreed on it.
        if self.wiped || !self.scenario.modes.iter().all(|mode| *mode == Mode::TwoWaySafe) {
            return;
        }
        // Who does not write down what is under way takes what it fetched before a cut for the user's own: that loses
        // nothing, which is what such devices are here for.
        if self.devices.iter().any(|device| !device.remembers) {
            return;
        }
        for deletion in &self.deletions {
            let back = self.server.disk.get(&deletion.path).and_then(Node::content);
            let since = self.touched.get(&deletion.path).into_iter().flatten();
            let others = since.filter(|(at, _)| *at > deletion.agreed).count();
            // The deletion itself is one.
            if back == Some(deletion.content) && others <= 1 {
                panic!("I5: {} with {} is back", deletion.path, deletion.content);
            }
        }
    }

    fn check_modes(&self) {
        for device in &self.devices {
            let author = device.number;
            match device.mode {
                Mode::ReceiveOnly => {
                    let wrote = self.server.index.values().any(|record| record.author == author);
                    assert!(!wrote, "receive-only device {author} wrote to the server");
                }
                Mode::OneWaySafe => {
                    let took = self.server.displaced.iter().filter(|(_, _, by)| *by == author);
                    for (path, content, _) in took {
                        let own = self.had[&author].contains(content);
                        assert!(own, "one-way-safe took {path} with {content} away");
                    }
                }
                Mode::OneWayReplica if self.devices.len() == 1 => {
                    assert_eq!(device.disk.tree(), self.server.disk.tree(), "a replica is not one");
                }
                _ => {}
            }
        }
    }

    /// The trees, for a failure.
    pub(crate) fn show(&self) -> String {
        let tree = |nodes: &BTreeMap<RelPath, Node>| {
            let lines = nodes.iter().map(|(path, node)| match &node.what {
                What::File(content) => format!("    {path} = {content} {:o} {}", node.mode, node.mtime),
                other => format!("    {path} {other:?} {:o}", node.mode),
            });
            lines.collect::<Vec<_>>().join("\n")
        };
        let mut shown = format!("server\n{}\n", tree(&self.server.disk.nodes));
        for device in &self.devices {
            shown += &format!("device {}\n{}\n", device.number, tree(&device.disk.nodes));
        }
        shown
    }
}

/// Whether a path is another or below it.
fn is_within(path: &RelPath, other: &RelPath) -> bool {
    let rest = path.as_bytes().strip_prefix(other.as_bytes());
    rest.is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
}
