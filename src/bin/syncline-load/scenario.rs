//! Owns what a run consists of: which client plays which role, and when the run is over. It never connects.
//!
//! Invariant: every run has an end: a number of syncs, a time, or a single sync that it waits for.

use crate::seeds::mix_both;
use clap::ValueEnum;
use std::time::Duration;

/// What the clients do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scenario {
    /// Files travel whole
    Full,
    /// Each sync edits a file and sends the edit
    Delta,
    /// Nothing has changed
    NoOp,
    /// Authenticated connections that only sit there
    Idle,
    /// Connect, hello, goodbye
    Churn,
    /// Clients that pull and do not read, or hardly
    SlowReaders,
    /// Clients that push a byte at a time
    SlowWriters,
    /// Connections that never say who they are
    HalfOpen,
    /// A giant push and a giant delta beside small deltas
    Giant,
    /// Six in ten deltas, three no-ops, one whole
    Mixed,
}

/// Which way the content goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Way {
    /// To the server
    Push,
    /// From the server
    Pull,
}

/// What one client does during the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// One sync after another.
    Worker,
    /// Connects and stays.
    Idler,
    /// Connects and leaves, again and again.
    Churner,
    /// Pushes one file of the giant size, once.
    GiantPush,
    /// Edits one file of the giant size again and again.
    GiantDelta,
    /// Pushes what the slow readers pull, before the run.
    Feeder,
    /// Behaves badly.
    Attacker(Attack),
}

/// How a client behaves badly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Attack {
    /// Connects and says nothing.
    Silence,
    /// Says half a hello.
    HalfHello,
    /// Says its hello a byte at a time.
    SlowHello,
    /// Sends content a byte at a time.
    SlowContent,
    /// Asks for a file and never reads it.
    NeverReads,
    /// Asks for a file and reads a little each second.
    ReadsSlowly,
}

/// What one sync is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Work {
    /// All files, whole.
    Full,
    /// One edit.
    Delta,
    /// Nothing has changed.
    NoOp,
    /// All files come from the server.
    Fetch,
    /// The server has nothing new.
    FetchNothing,
    /// No more than connect and hello.
    Greeting,
}

impl Work {
    /// Whether content comes from the server.
    pub(crate) fn is_pull(self) -> bool {
        matches!(self, Work::Fetch | Work::FetchNothing)
    }
}

/// When a run is over, whichever comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// Syncs to begin.
    pub(crate) count: u64,
    /// Time in which syncs begin.
    pub(crate) duration: Duration,
    /// The end of the giant push ends the run.
    pub(crate) with_giant: bool,
}

/// No run takes longer.
pub(crate) const DURATION_MAX: Duration = Duration::from_secs(24 * 3600);
/// No run has more syncs.
pub(crate) const COUNT_MAX: u64 = 1_000_000_000;
/// Without a bound on the command line.
const DURATION_USUAL: Duration = Duration::from_secs(10);
const CHURN_USUAL: u64 = 10_000;

impl Scenario {
    /// The name on the command line.
    pub(crate) fn name(self) -> String {
        self.to_possible_value()
            .map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// Everybody's role: `clients` that the scenario is about, and `beside` small deltas beside those that
    /// behave badly.
    pub(crate) fn roles(self, clients: u32, beside: u32) -> Vec<Role> {
        let both = |attacks: [Attack; 2]| {
            let attackers = (0..clients).map(move |number| Role::Attacker(attacks[number as usize % 2]));
            let workers = (0..beside).map(|_| Role::Worker);
            workers.chain(attackers)
        };
        let all = |role| (0..clients).map(|_| role).collect();
        match self {
            Scenario::Full | Scenario::Delta | Scenario::NoOp | Scenario::Mixed => all(Role::Worker),
            Scenario::Idle => all(Role::Idler),
            Scenario::Churn => all(Role::Churner),
            Scenario::HalfOpen => both([Attack::Silence, Attack::HalfHello]).collect(),
            Scenario::SlowWriters => both([Attack::SlowContent, Attack::SlowHello]).collect(),
            Scenario::SlowReaders => std::iter::once(Role::Feeder)
                .chain(both([Attack::NeverReads, Attack::ReadsSlowly]))
                .collect(),
            Scenario::Giant => [Role::GiantPush, Role::GiantDelta]
                .into_iter()
                .chain(all(Role::Worker) as Vec<Role>)
                .collect(),
        }
    }

    /// When it ends, with what was asked for.
    pub(crate) fn bounds(self, clients: u32, count: Option<u64>, duration: Option<Duration>) -> Bounds {
        let is_open = count.is_none() && duration.is_none();
        let (usual_count, usual_duration) = match self {
            Scenario::Full => (u64::from(clients), DURATION_MAX),
            Scenario::Churn => (CHURN_USUAL, DURATION_MAX),
            Scenario::Giant => (COUNT_MAX, DURATION_MAX),
            _ => (COUNT_MAX, DURATION_USUAL),
        };
        // Those who only sit there make no syncs that could be counted.
        let counts = !matches!(self, Scenario::Idle);
        Bounds {
            count: if is_open {
                usual_count
            } else {
                count.unwrap_or(COUNT_MAX)
            },
            duration: match duration {
                Some(duration) => duration.min(DURATION_MAX),
                None if is_open || !counts => usual_duration,
                None => DURATION_MAX,
            },
            with_giant: self == Scenario::Giant && is_open,
        }
    }

    /// Whether the workers push their files before the run.
    pub(crate) fn sets_up(self, way: Way) -> bool {
        !matches!((self, way), (Scenario::Full, Way::Push))
    }

    /// What sync number `number` of a worker is.
    pub(crate) fn work(self, way: Way, seed: u64, number: u64) -> Work {
        match (self, way) {
            (Scenario::Churn | Scenario::Idle, _) => Work::Greeting,
            (Scenario::Full, Way::Push) => Work::Full,
            (Scenario::Full, Way::Pull) => Work::Fetch,
            (Scenario::NoOp, Way::Pull) => Work::FetchNothing,
            (Scenario::NoOp, Way::Push) => Work::NoOp,
            (Scenario::Mixed, _) => match mix_both(seed, number) % 10 {
                0..6 => Work::Delta,
                6..9 => Work::NoOp,
                _ => Work::Full,
            },
            _ => Work::Delta,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Protects whoever starts a run: it ends, whatever was asked for.
    #[test]
    fn every_scenario_is_bounded() {
        for scenario in Scenario::value_variants() {
            for (count, duration) in [
                (None, None),
                (Some(7), None),
                (None, Some(Duration::from_secs(3))),
                (Some(7), Some(Duration::from_secs(3))),
            ] {
                let bounds = scenario.bounds(50, count, duration);
                assert!(bounds.duration <= DURATION_MAX && bounds.count <= COUNT_MAX);
                assert_eq!(bounds.count, count.unwrap_or(bounds.count), "{scenario:?}");
                assert_eq!(bounds.duration, duration.unwrap_or(bounds.duration), "{scenario:?}");
                let is_short = bounds.duration <= DURATION_USUAL || bounds.count <= CHURN_USUAL;
                assert!(is_short || bounds.with_giant, "{scenario:?} {bounds:?}");
            }
        }
    }

    // Protects the meaning of --clients and --beside.
    #[test]
    fn roles_are_as_many_as_asked_for() {
        let count =
            |scenario: Scenario, wanted: fn(&Role) -> bool| scenario.roles(10, 3).iter().filter(|r| wanted(r)).count();
        let is_attacker = |role: &Role| matches!(role, Role::Attacker(_));
        for scenario in Scenario::value_variants() {
            let attackers = count(*scenario, is_attacker);
            let workers = count(*scenario, |role| *role == Role::Worker);
            match scenario {
                Scenario::SlowReaders | Scenario::SlowWriters | Scenario::HalfOpen => {
                    assert_eq!((attackers, workers), (10, 3));
                }
                Scenario::Idle | Scenario::Churn => assert_eq!((attackers, workers), (0, 0)),
                _ => assert_eq!((attackers, workers), (0, 10)),
            }
        }
    }

    // Protects repeated runs, and the share of each kind in a mixed one.
    #[test]
    fn a_mixed_run_is_mixed_as_it_says() {
        let works = |seed| -> Vec<Work> { (0..10_000).map(|n| Scenario::Mixed.work(Way::Push, seed, n)).collect() };
        assert_eq!(works(1), works(1));
        assert_ne!(works(1), works(2));
        for (work, expected) in [(Work::Delta, 6_000), (Work::NoOp, 3_000), (Work::Full, 1_000)] {
            let found = works(3).into_iter().filter(|&found| found == work).count();
            assert!(found.abs_diff(expected) < 300, "{work:?}: {found}");
        }
    }
}
