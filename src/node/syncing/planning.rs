//! From what both sides have to a plan, and from there to the next step.
//!
//! Changes nothing. Invariant: nothing is planned on the word of a page or a look that was not complete.

use super::base::{Agreements, agreed_of};
use super::driving::SYNC_RETRY_TIMER;
use super::{Around, Here, ROUNDS_MAX, Stage, Syncing};
use crate::model::limits::RESCAN_UNWATCHED_MS;
use crate::model::{ItemCode, Kind, RelPath, Revision};
use crate::node::events::{ClientEvent, JobError};
use crate::node::options::MaxDelete;
use crate::node::peer::Session;
use crate::reactor::{Activity, Context};
use crate::store::stamp_now;
use crate::sync::{Action, Base, Brake, Case, Cases, Found, HeldReason, Local, Plan, Remote, Settings, Standing, plan};

/// Rounds in a row that may come to nothing.
const FAILURES_MAX: u32 = 3;
/// Milliseconds until what could not be done is tried again.
const SYNC_RETRY_MS: u64 = 30_000;

impl Syncing {
    pub(super) fn plan(
        &mut self,
        cx: &mut Context<'_>,
        session: &mut Session,
        around: &mut Around<'_>,
    ) -> Result<Activity, JobError> {
        if self.planned > 0 {
            // A plan was carried out: what the server made of it is asked before the next one.
            return Ok(self.next_round(cx, session, around));
        }
        if !self.is_whole || self.local.values().any(|here| matches!(here, Here::Gone)) {
            self.check_present()?;
        }
        let cases = self.cases()?;
        self.to_hash = cases
            .iter()
            .filter(|(_, case)| may_be_touched(case))
            .map(|(path, _)| path.clone())
            .collect();
        if !self.to_hash.is_empty() {
            self.stage = Stage::Hashing;
            return Ok(Activity::More);
        }
        let stamp = stamp_now();
        let settings = Settings {
            mode: self.options.mode,
            standing: self.standing(),
            brake: brake_of(self.options.max_delete),
            entries: self.snapshot.live(),
            stamp: &stamp,
            device: &self.device,
            folds_here: self.place.root.folding().is_any(),
            folds_there: self.held.folds_there,
        };
        let mut planned = plan(&cases, &Agreements(&self.snapshot), &settings);
        if !planned.hash.is_empty() {
            self.to_hash = planned.hash.into();
            self.stage = Stage::Hashing;
            return Ok(Activity::More);
        }
        if let Some(stop) = planned.stop {
            return Err(JobError::MassDelete {
                deletions: stop.deletions,
                existing: stop.entries,
            });
        }
        if self.options.dry_run {
            if planned.actions.iter().any(comes_alone) {
                planned
                    .actions
                    .extend(beside_respellings(&cases, &Agreements(&self.snapshot), settings));
            }
            return Ok(self.rehearse(planned, around));
        }
        Ok(self.begin_actions(cx, planned, around))
    }

    fn begin_actions(&mut self, cx: &mut Context<'_>, planned: Plan, around: &mut Around<'_>) -> Activity {
        for conflict in planned.conflicts {
            let is_known = self
                .conflicts
                .iter()
                .any(|one| one.copy == conflict.copy && one.path == conflict.path);
            if is_known {
                continue;
            }
            around.events.push(ClientEvent::Conflict {
                path: conflict.path.clone(),
                copy: conflict.copy.clone(),
            });
            self.conflicts.push(conflict);
        }
        for held in &planned.held {
            log::info!("{} is left as it is: {:?}", held.path, held.reason);
        }
        let is_open = planned.held.iter().any(|held| held.reason != HeldReason::Collides);
        self.actions = planned.actions.into();
        (self.planned, self.done) = (self.actions.len(), 0);
        if self.planned > 0 {
            self.stage = Stage::Acting;
            if self.note_pending() {
                self.write(cx);
                if self.stage == Stage::Writing {
                    self.after_writing = Stage::Acting;
                    return Activity::Idle;
                }
                self.stage = Stage::Acting;
            }
            return Activity::More;
        }
        // In sync, as far as it can be.
        if !is_open && self.standing() != Standing::Partial {
            self.keep_held(&planned.held);
            self.catch_up();
        }
        self.tell_collisions(planned.collisions, around);
        if !self.batch.is_empty() {
            self.write(cx);
            return Activity::Idle;
        }
        self.rest(cx, around);
        Activity::More
    }

    /// What is missing in a folder that is gone was not deleted.
    fn check_present(&self) -> Result<(), JobError> {
        if matches!(self.place.root.is_gone(), Ok(false)) && self.index.is_in_place() {
            return Ok(());
        }
        Err(JobError::Target {
            path: self.place.root.path().display().to_string(),
            reason: "the folder is gone, or its .syncline is; nothing was deleted".to_owned(),
        })
    }

    fn rest(&mut self, cx: &mut Context<'_>, around: &mut Around<'_>) {
        self.outrun.clear();
        if !self.is_whole && self.options.watch {
            let due = cx.now() + RESCAN_UNWATCHED_MS;
            cx.set_timer(SYNC_RETRY_TIMER, due);
        }
        self.roots.clear();
        around.events.push(ClientEvent::InSync {
            entries: self.snapshot.live(),
            revision: self.known.revision,
        });
        self.stage = if self.options.watch {
            Stage::Resting
        } else {
            Stage::Ended
        };
    }

    fn next_round(&mut self, cx: &mut Context<'_>, session: &mut Session, around: &mut Around<'_>) -> Activity {
        let (planned, done) = (std::mem::take(&mut self.planned), std::mem::take(&mut self.done));
        self.made.clear();
        self.held.next_round();
        self.rounds += 1;
        if done == 0 && planned > 0 && !self.news {
            self.failures += 1;
        } else {
            self.failures = 0;
            self.outrun.clear();
        }
        if self.failures >= FAILURES_MAX || self.rounds >= ROUNDS_MAX {
            return self.give_up(cx, around);
        }
        self.ask(session);
        Activity::Idle
    }

    /// Nothing came of anything: a later look may find it otherwise, this one would go in circles.
    fn give_up(&mut self, cx: &mut Context<'_>, around: &mut Around<'_>) -> Activity {
        for (path, code) in std::mem::take(&mut self.outrun) {
            let code = match code {
                ItemCode::Stale | ItemCode::Vanished => ItemCode::Changing,
                code => code,
            };
            around.events.push(ClientEvent::Failed {
                path,
                code,
                warning: false,
            });
        }
        self.failures = 0;
        self.stage = Stage::Ended;
        if self.options.watch {
            self.looks.put_off();
            self.stage = Stage::Resting;
            let due = cx.now() + SYNC_RETRY_MS;
            cx.set_timer(SYNC_RETRY_TIMER, due);
        }
        Activity::More
    }

    /// What was put off is looked at again, and all when not all could be seen.
    pub(super) fn retry(&mut self) {
        self.looks.retry();
        if !self.is_whole {
            self.looks.tree(None);
        }
    }

    /// Every path at which a side differs from the base.
    fn cases(&mut self) -> Result<Cases, JobError> {
        self.disbelieve_shadowed()?;
        let mut cases = Cases::new();
        let is_anew = self.is_anew;
        let mut paths: Vec<RelPath> = self.local.keys().chain(self.remote.keys()).cloned().collect();
        if is_anew {
            for row in self.snapshot.walk(None).map_err(|error| self.base_error(&error))? {
                paths.push(row.map_err(|error| self.base_error(&error))?.0);
            }
        }
        paths.sort_unstable();
        paths.dedup();
        for path in paths {
            let record = self.snapshot.get(&path).map_err(|error| self.base_error(&error))?;
            let is_left_behind = self.is_left_behind(&path, record.as_ref());
            let record = record.filter(|_| self.held.believes(&path));
            let carried = match &record {
                None => self.held.carried(&path, self.remote.get(&path)),
                Some(_) => None,
            };
            let is_carried = carried.is_some();
            let base = record.or(carried).and_then(agreed_of);
            let remote = match self.remote.get(&path) {
                Some((state, revision)) => {
                    let is_agreed = base.as_ref().map_or(state.is_none(), |base| base.revision == *revision);
                    match is_agreed && !is_anew {
                        true => Remote::Unchanged,
                        false => Remote::Changed {
                            state: state.clone(),
                            revision: *revision,
                        },
                    }
                }
                None if is_anew => Remote::Changed {
                    state: None,
                    revision: Revision::NONE,
                },
                None => Remote::Unchanged,
            };
            let local = match self.local_of(&path) {
                // There is no record that it could be as in.
                Local::Unchanged if is_carried => Local::Gone,
                local => local,
            };
            let taken = self.taken(&path, &local, base.as_ref(), &remote);
            let pending = self.pending.get(&path).cloned();
            if (local == Local::Unchanged || is_left_behind) && remote == Remote::Unchanged {
                continue;
            }
            cases.insert(
                path,
                Case {
                    base,
                    pending,
                    local,
                    remote,
                    taken,
                },
            );
        }
        Ok(cases)
    }

    fn local_of(&self, path: &RelPath) -> Local {
        match self.local.get(path) {
            None => Local::Unchanged,
            Some(Here::Gone) => Local::Gone,
            Some(Here::Blocked) => Local::Blocked,
            Some(Here::Found(state, identity)) => {
                let mut state = state.clone();
                let known = self.roots.get(path).filter(|(was, _)| was.same_content(identity));
                state.root = known.map(|(_, root)| *root);
                Local::Found(Found {
                    state,
                    file: identity.inode(),
                })
            }
        }
    }
}

/// Whether an action is one of a plan that has nothing else.
fn comes_alone(action: &Action) -> bool {
    matches!(action, Action::Respell { .. } | Action::SendRespell { .. })
}

/// What follows respellings, about: what would be done if the file systems took no two names for one.
fn beside_respellings(cases: &Cases, base: &impl Base, settings: Settings<'_>) -> Vec<Action> {
    let mut apart = cases.clone();
    apart.values_mut().for_each(|case| case.taken = None);
    let settings = Settings {
        folds_here: false,
        folds_there: false,
        ..settings
    };
    let mut actions = plan(&apart, base, &settings).actions;
    actions.retain(|action| !matches!(action, Action::Rename { .. } | Action::SendMove { .. }));
    actions
}

/// Whether a file has the size that was agreed and another time: reading it is cheaper than sending it.
fn may_be_touched(case: &Case) -> bool {
    let (Some(base), Local::Found(found)) = (&case.base, &case.local) else {
        return false;
    };
    let is_unread = matches!(found.state.kind, Kind::File { .. }) && found.state.root.is_none();
    let is_alike = found.state.kind == base.state.kind && base.state.root.is_some();
    is_unread && is_alike && (found.state.meta.mtime != base.state.meta.mtime || found.file != base.file)
}

fn brake_of(max_delete: MaxDelete) -> Option<Brake> {
    match max_delete {
        MaxDelete::Default => Some(Brake::default()),
        MaxDelete::Count(count) => Some(Brake { count, percent: 0 }),
        MaxDelete::Percent(percent) => Some(Brake { count: 0, percent }),
        MaxDelete::Unlimited => None,
    }
}
