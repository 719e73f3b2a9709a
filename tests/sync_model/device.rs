//! A device: its folder, its base, and the rounds of a sync, cut into steps.
//!
//! One step is one page of changes, one half of a survey, one plan, or one action, so that others can
//! act in between. A crash forgets the round, and nothing else.

use crate::disk::{Disk, Identity};
use crate::rng::Rng;
use crate::server::{SERVER, Server};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use syncline::model::{Epoch, RelPath, Revision, State};
use syncline::sync::{
    Action, Agreed, Case, Cases, Found, Local, Mode, Pending, Plan, Remote, Settings, Standing, plan,
};

/// A record of the base.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    pub(crate) agreed: Agreed,
    pub(crate) identity: Identity,
    /// When it was agreed, for the checks.
    pub(crate) at: u64,
}

/// What the server told of a path.
pub(crate) type Told = (Option<State>, Revision, usize);

/// What the round that is under way knows.
#[derive(Debug, Clone, Default)]
pub(crate) struct Round {
    pub(crate) epoch: Epoch,
    head: Revision,
    pub(crate) told: BTreeMap<RelPath, Told>,
    pub(crate) survey: BTreeMap<RelPath, (Found, Identity)>,
    surveyed: BTreeSet<RelPath>,
    blocked: BTreeSet<RelPath>,
    gone: BTreeSet<RelPath>,
    /// What actions of this round made, for those that follow.
    pub(crate) made: BTreeMap<RelPath, Identity>,
    pub(crate) partial: bool,
    pub(crate) failed: bool,
    worked: bool,
    held: Vec<RelPath>,
    standing: Standing,
}

#[derive(Debug, Clone)]
enum Phase {
    Idle,
    Asking(Round, Revision),
    Surveying(Round, Option<RelPath>),
    Planning(Round),
    Acting(Round, VecDeque<Action>),
}

/// What a step led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stepped {
    Goes,
    /// The round is over; whether there was anything to do.
    Over(bool),
    Stopped,
}

#[derive(Debug, Clone)]
pub(crate) struct Device {
    pub(crate) number: usize,
    pub(crate) mode: Mode,
    pub(crate) disk: Disk,
    pub(crate) versions: BTreeSet<u64>,
    pub(crate) base: BTreeMap<RelPath, Record>,
    pub(crate) pending: BTreeMap<RelPath, Pending>,
    held: BTreeMap<RelPath, Told>,
    pub(crate) cursor: (Epoch, Revision),
    phase: Phase,
    pub(crate) brake: Option<syncline::sync::Brake>,
    /// The present time, for names and checks.
    pub(crate) now: u64,
    /// Whether what is under way is written down.
    pub(crate) remembers: bool,
    pub(crate) trace: Vec<String>,
    pub(crate) conflicts: usize,
    pub(crate) transfers: usize,
    /// Contents that were removed here by the word of others: path, content, who deleted it.
    pub(crate) obeyed: Vec<(RelPath, u64, usize)>,
}

impl Device {
    pub(crate) fn new(number: usize, mode: Mode) -> Device {
        Device {
            number,
            mode,
            disk: Disk::default(),
            versions: BTreeSet::new(),
            base: BTreeMap::new(),
            pending: BTreeMap::new(),
            held: BTreeMap::new(),
            cursor: (Epoch(0), Revision::NONE),
            phase: Phase::Idle,
            brake: None,
            now: 0,
            remembers: true,
            trace: Vec::new(),
            conflicts: 0,
            transfers: 0,
            obeyed: Vec::new(),
        }
    }

    /// The process ends here and now.
    pub(crate) fn crash(&mut self) {
        self.phase = Phase::Idle;
    }

    /// One step. With `faults` surveys miss things, pages are short, and the process may end in an action.
    pub(crate) fn step(&mut self, server: &mut Server, rng: &mut Rng, faults: bool) -> Stepped {
        match std::mem::replace(&mut self.phase, Phase::Idle) {
            Phase::Idle => {
                let since = match self.cursor {
                    (epoch, revision) if epoch == server.epoch => revision,
                    _ => Revision::NONE,
                };
                // Records are of an epoch from the first on.
                if self.cursor.0 == Epoch(0) {
                    self.cursor = (server.epoch, Revision::NONE);
                }
                let round = Round {
                    epoch: server.epoch,
                    partial: faults && rng.once_in(12),
                    ..Round::default()
                };
                self.phase = Phase::Asking(round, since);
            }
            Phase::Asking(round, since) => self.ask(server, round, since, rng, faults),
            Phase::Surveying(round, from) => self.survey(round, from.as_ref(), rng),
            Phase::Planning(round) => return self.plan(round),
            Phase::Acting(mut round, mut actions) => {
                let Some(action) = actions.pop_front() else {
                    return self.finish(round);
                };
                if server.epoch != round.epoch {
                    return Stepped::Over(true);
                }
                self.trace.push(format!("{}: {action:?}", self.number));
                let cut = faults && rng.once_in(25);
                let done = self.carry_out(server, &mut round, &action, rng, cut);
                round.failed |= !done;
                self.phase = if cut {
                    Phase::Idle
                } else {
                    Phase::Acting(round, actions)
                };
            }
        }
        Stepped::Goes
    }

    fn ask(&mut self, server: &mut Server, mut round: Round, since: Revision, rng: &mut Rng, faults: bool) {
        if server.epoch != round.epoch {
            return;
        }
        server.scan();
        let limit = if faults && rng.once_in(2) {
            1 + rng.index(8)
        } else {
            1000
        };
        let (changes, end) = server.changes(since, limit);
        for (path, record) in changes {
            round.told.insert(path, (record.state, record.revision, record.author));
        }
        round.head = end;
        self.phase = if end < server.head {
            Phase::Asking(round, end)
        } else {
            let half = self.disk.nodes.keys().nth(self.disk.nodes.len() / 2).cloned();
            Phase::Surveying(round, half.filter(|_| faults && rng.once_in(3)))
        };
    }

    /// Surveys what is before `until`, or all the rest.
    fn survey(&mut self, mut round: Round, until: Option<&RelPath>, rng: &mut Rng) {
        let paths: BTreeSet<RelPath> = self.base.keys().chain(self.disk.nodes.keys()).cloned().collect();
        for path in paths {
            if round.surveyed.contains(&path) || until.is_some_and(|until| path >= *until) {
                continue;
            }
            round.surveyed.insert(path.clone());
            let seen = self.disk.get(&path).filter(|_| !(round.partial && rng.once_in(4)));
            let Some(node) = seen else {
                round.gone.extend(self.base.contains_key(&path).then_some(path));
                continue;
            };
            let identity = node.identity();
            let known = self.base.get(&path).map(|record| record.identity);
            if node.what == crate::disk::What::Special {
                round.blocked.insert(path);
            } else if known != Some(identity) {
                let state = node.seen();
                let file = node.file;
                round.survey.insert(path, (Found { state, file }, identity));
            }
        }
        self.phase = match until {
            Some(_) => Phase::Surveying(round, None),
            None => Phase::Planning(round),
        };
    }

    /// Remembers what the server told beside its changes.
    pub(crate) fn told_later(&mut self, path: &RelPath, told: Told) {
        self.held.insert(path.clone(), told);
    }

    fn cases(&mut self, round: &Round) -> Cases {
        // What was remembered is of the epoch that it was told in.
        let mut told = match self.standing(round) {
            Standing::NewEpoch => BTreeMap::new(),
            _ => self.held.clone(),
        };
        for (path, change) in &round.told {
            told.insert(path.clone(), change.clone());
        }
        let news = self.standing(round) == Standing::NewEpoch;
        if news {
            for path in self.base.keys() {
                told.entry(path.clone()).or_insert((None, Revision::NONE, SERVER));
            }
        }
        let mut cases = Cases::new();
        let local = round.survey.keys().chain(&round.gone).chain(&round.blocked);
        let paths: BTreeSet<RelPath> = local.chain(told.keys()).cloned().collect();
        for path in paths {
            let record = self.base.get(&path);
            let local = if round.blocked.contains(&path) {
                Local::Blocked
            } else if round.gone.contains(&path) && record.is_some() {
                Local::Gone
            } else {
                let found = round.survey.get(&path);
                found.map_or(Local::Unchanged, |(found, _)| Local::Found(found.clone()))
            };
            let remote = match told.get(&path) {
                Some((state, revision, _)) => Remote::Changed {
                    state: state.clone(),
                    revision: *revision,
                },
                None => Remote::Unchanged,
            };
            let case = Case {
                base: record.map(|record| record.agreed.clone()),
                pending: self.pending.get(&path).cloned(),
                local,
                remote,
                taken: None,
            };
            cases.insert(path, case);
        }
        cases
    }

    fn standing(&self, round: &Round) -> Standing {
        if self.cursor.0 != round.epoch {
            Standing::NewEpoch
        } else if round.partial {
            Standing::Partial
        } else {
            Standing::Whole
        }
    }

    fn plan(&mut self, mut round: Round) -> Stepped {
        let cases = self.cases(&round);
        round.standing = self.standing(&round);
        let stamp = format!("2026-{}", self.now);
        let device = format!("d{}", self.number);
        let settings = Settings {
            mode: self.mode,
            standing: round.standing,
            brake: self.brake,
            entries: self.base.len() as u64,
            stamp: &stamp,
            device: &device,
            folds_here: false,
            folds_there: false,
        };
        let base: BTreeMap<RelPath, Agreed> = (self
            .base
            .iter()
            .map(|(path, record)| (path.clone(), record.agreed.clone())))
        .collect();
        let made = plan(&cases, &base, &settings);
        self.judge_plan(&cases, &made, &round);
        self.trace
            .push(format!("{}: {:?} {} cases", self.number, round.standing, cases.len()));
        if made.stop.is_some() {
            return Stepped::Stopped;
        }
        if !made.hash.is_empty() {
            for path in &made.hash {
                hash(&self.disk, &mut round, path);
            }
            self.phase = Phase::Planning(round);
            return Stepped::Goes;
        }
        self.conflicts += made.conflicts.len();
        round.held = made.held.iter().map(|held| held.path.clone()).collect();
        round.worked = !made.is_empty();
        self.phase = Phase::Acting(round, made.actions.into());
        Stepped::Goes
    }

    /// What holds for each plan.
    fn judge_plan(&self, cases: &Cases, plan: &Plan, round: &Round) {
        let whole = round.standing == Standing::Whole;
        for action in &plan.actions {
            if let Action::SendRemove { path, .. } = action
                && !whole
            {
                let back = |other: &Action| matches!(other, Action::Send { path: to, .. } | Action::SendMove { to, .. } if to == path);
                assert!(
                    plan.actions.iter().any(back),
                    "{path} is removed there in {:?}",
                    round.standing
                );
            }
            if let Action::Remove { path, .. } = action
                && !whole
            {
                let gone = cases[path].remote == Remote::Unchanged
                    || matches!(&cases[path].remote, Remote::Changed { state: None, .. });
                assert!(!gone, "{path} is removed in {:?}", round.standing);
            }
            if self.mode == Mode::ReceiveOnly {
                let sends = matches!(
                    action,
                    Action::Send { .. } | Action::SendMeta { .. } | Action::SendMove { .. } | Action::SendRemove { .. }
                );
                assert!(!sends, "receive-only sends: {action:?}");
            }
        }
    }

    fn finish(&mut self, round: Round) -> Stepped {
        if !round.failed {
            let mut told = std::mem::take(&mut self.held);
            told.extend(round.told);
            let held = round.held.into_iter();
            self.held = held.filter_map(|path| told.remove_entry(&path)).collect();
            // A new epoch is settled once everything was seen in it.
            if !(round.partial && self.cursor.0 != round.epoch) {
                self.cursor = (round.epoch, round.head);
            }
        }
        Stepped::Over(round.worked || round.failed)
    }
}

/// Reads a file; what changed since the survey is surveyed again.
fn hash(disk: &Disk, round: &mut Round, path: &RelPath) {
    let (found, identity) = round.survey.get_mut(path).expect("only what was found is to be read");
    match disk.get(path) {
        Some(node) if node.content().is_some() => {
            *identity = node.identity();
            found.state = node.read();
            found.file = node.file;
        }
        _ => {
            round.survey.remove(path);
            round.blocked.insert(path.clone());
            round.failed = true;
        }
    }
}
