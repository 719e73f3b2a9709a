//! What a plan has the server do, and what it brings from there: transfers, moves and removals.
//!
//! Actions of one kind that follow each other go together. Invariant: what enters the base of it was committed by
//! the server, or published here, with the content that the plan was made for.

use super::acting::{OWNER, path_of};
use super::{Around, Stage, Syncing};
use crate::model::limits::BATCH_ENTRIES_MAX;
use crate::model::{ItemCode, Kind, RelPath, Revision};
use crate::node::agreement::{Agreement, Scope};
use crate::node::events::{Action as Told, ClientEvent, Figures, JobError};
use crate::node::peer::{Session, Transfer};
use crate::node::receiving::{Based, Receiving, ReceivingPlan};
use crate::node::selected::{Selected, Selection};
use crate::node::sending::{Sending, SendingPlan};
use crate::node::source_tree::SourceTree;
use crate::reactor::{Activity, Context};
use crate::store::{self, Filter};
use crate::sync::Action;
use crate::wire::{Alter, Alteration, Begin, BeginFlags, Brake, Direction, PullSource, features};
use std::collections::{HashMap, HashSet, VecDeque};
use std::rc::Rc;

/// What is on its way, by path.
#[derive(Debug, Default)]
pub(super) enum Exchange {
    #[default]
    Nothing,
    /// Entries go to the server.
    Sends(HashMap<RelPath, Action>),
    /// Files come from the server.
    Fetches(HashMap<RelPath, Action>),
    /// The server moves and removes things.
    Alters(Vec<Action>),
}

/// Bytes of paths in one request: far below the limit of a frame.
const REQUEST_BYTES: usize = 256 * 1024;
/// Files asked for in one transfer.
const FETCHES_MAX: usize = crate::model::limits::SOURCES_MAX;
/// Entries sent in one transfer; more only wait longer to enter the base.
const SENDS_MAX: usize = 16 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Here,
    Send,
    Fetch,
    Alter,
}

fn class_of(action: &Action) -> Class {
    match action {
        Action::Send { .. } | Action::SendMeta { .. } => Class::Send,
        Action::Fetch { .. } => Class::Fetch,
        Action::SendMove { .. } | Action::SendRespell { .. } | Action::SendRemove { .. } => Class::Alter,
        _ => Class::Here,
    }
}

impl Exchange {
    /// Takes from the front what needs the server and can go together; nothing if the first is done here.
    pub(super) fn begin(rest: &mut VecDeque<Action>) -> Option<Exchange> {
        let class = class_of(rest.front()?);
        let max = match class {
            Class::Here => return None,
            Class::Send => SENDS_MAX,
            Class::Fetch => FETCHES_MAX,
            Class::Alter => BATCH_ENTRIES_MAX,
        };
        let mut bytes = 0;
        let mut list = Vec::new();
        while list.len() < max && (bytes < REQUEST_BYTES || class == Class::Send) {
            if rest.front().is_none_or(|next| class_of(next) != class) {
                break;
            }
            let Some(next) = rest.pop_front() else { break };
            bytes += 2 * path_of(&next).as_bytes().len() + 16;
            list.push(next);
        }
        let by_path = |list: Vec<Action>| {
            list.into_iter()
                .map(|action| (path_of(&action).clone(), action))
                .collect()
        };
        Some(match class {
            Class::Here => Exchange::Nothing,
            Class::Send => Exchange::Sends(by_path(list)),
            Class::Fetch => Exchange::Fetches(by_path(list)),
            Class::Alter => Exchange::Alters(list),
        })
    }
}

impl Syncing {
    /// Asks the server for it.
    pub(super) fn send_off(&mut self, exchange: Exchange, session: &mut Session) {
        match &exchange {
            Exchange::Nothing => {}
            Exchange::Sends(_) => session.machine.begin(&begin(Direction::Push, Vec::new())),
            Exchange::Fetches(fetches) => {
                let source = |path: &RelPath| PullSource {
                    path: Some(path.clone()),
                    contents_only: false,
                };
                let mut sources: Vec<PullSource> = fetches.keys().map(source).collect();
                sources.sort_by(|a, b| a.path.cmp(&b.path));
                session.machine.begin(&begin(Direction::Pull, sources));
            }
            Exchange::Alters(list) => {
                let list = list.iter().filter_map(alteration).collect();
                session.machine.alter(&Alter { list });
            }
        }
        self.exchange = exchange;
    }

    /// The server is ready for the transfer.
    pub(crate) fn ready(&mut self, cx: &mut Context<'_>, session: &mut Session, around: &mut Around<'_>) {
        let common = session.machine.features();
        let transfer = match &self.exchange {
            Exchange::Sends(sends) => self.sending(sends, common, around),
            Exchange::Fetches(fetches) => self.receiving(cx, fetches, common, session),
            Exchange::Nothing | Exchange::Alters(_) => return,
        };
        self.tell_begin(&transfer);
        session.transfer = Some(transfer);
        around.core.committer.register(cx.id());
    }

    fn sending(&self, sends: &HashMap<RelPath, Action>, common: u64, around: &Around<'_>) -> Transfer {
        let mut list: Vec<Selection> = Vec::with_capacity(sends.len());
        for (path, action) in sends {
            let (Action::Send {
                state,
                based_on,
                expected,
                ..
            }
            | Action::SendMeta {
                state,
                based_on,
                expected,
                ..
            }) = action
            else {
                continue;
            };
            // What changed since is looked at again when the transfer is over.
            if self.check(path, *expected).is_err() {
                continue;
            }
            list.push(Selection {
                entry: state.at(path.clone()),
                root: state.root,
                based_on: *based_on,
            });
        }
        // Directories before what is in them.
        list.sort_by(|a, b| a.entry.path.cmp(&b.entry.path));
        let root = Rc::new(self.place.root.share());
        let plan = SendingPlan {
            trees: vec![SourceTree::whole(root)],
            filter: nothing(),
            checksum: false,
            features: common,
            deltas: Rc::clone(around.deltas),
            resumes: Rc::clone(around.resumes),
            top: None,
            missing: Vec::new(),
            complete: true,
            selected: Some(Box::new(Selected::new(list))),
        };
        Transfer::Sending(Box::new(Sending::new(plan)))
    }

    fn receiving(
        &self,
        cx: &Context<'_>,
        fetches: &HashMap<RelPath, Action>,
        common: u64,
        session: &Session,
    ) -> Transfer {
        let mut expected = HashMap::with_capacity(fetches.len());
        for (path, action) in fetches {
            let Action::Fetch { expected: wanted, .. } = action else {
                continue;
            };
            let standing = match self.wanted(path, *wanted) {
                Ok(None) => store::Expected::Absent,
                Ok(Some((identity, _))) => store::Expected::Present(identity),
                Err(_) => continue,
            };
            expected.insert(path.clone(), standing);
        }
        let paths: HashSet<RelPath> = fetches.keys().cloned().collect();
        let plan = ReceivingPlan {
            place: Rc::clone(&self.place),
            peer: session.device,
            agreement: Agreement::new(Scope::Exactly(paths), nothing()),
            checksum: false,
            dry_run: false,
            delta: common & features::DELTA != 0,
            in_place: false,
            resume: common & features::RESUME != 0,
            delete: None,
            top: None,
            based: Based::Plan(expected),
        };
        Transfer::Receiving(Box::new(Receiving::new(cx.id(), plan)))
    }

    /// Takes what became of it so far into the base.
    pub(super) fn exchange_step(
        &mut self,
        cx: &mut Context<'_>,
        session: &mut Session,
        around: &mut Around<'_>,
    ) -> Result<Activity, JobError> {
        if let Some(Transfer::Sending(sending)) = &mut session.transfer
            && let Some(selected) = &mut sending.selected
        {
            for outcome in selected.take_outcomes() {
                self.sent(&outcome.path, outcome.content, outcome.result);
            }
        }
        self.take_published();
        let is_over = match &session.transfer {
            Some(Transfer::Receiving(receiving)) => receiving.ended().is_some(),
            _ => false,
        };
        if is_over {
            self.transfer_ended(cx, session, around);
            return Ok(Activity::More);
        }
        Ok(Activity::Idle)
    }

    /// The transfer is over on both sides.
    pub(crate) fn transfer_ended(&mut self, cx: &mut Context<'_>, session: &mut Session, around: &mut Around<'_>) {
        if let Some(Transfer::Sending(sending)) = &mut session.transfer
            && let Some(selected) = &mut sending.selected
        {
            for outcome in selected.take_outcomes() {
                self.sent(&outcome.path, outcome.content, outcome.result);
            }
        }
        self.take_published();
        session.flush(cx);
        session.transfer = None;
        session.machine.end_transfer();
        around.core.committer.forget(cx.id());
        // What nobody told of was changed meanwhile, or failed: it is looked at again.
        match std::mem::take(&mut self.exchange) {
            Exchange::Sends(left) | Exchange::Fetches(left) => left.keys().for_each(|path| self.look_again(path)),
            Exchange::Nothing | Exchange::Alters(_) => {}
        }
        self.stage = Stage::Acting;
    }

    fn sent(
        &mut self,
        path: &RelPath,
        content: Option<(store::Identity, crate::model::ContentId)>,
        result: Result<(), ItemCode>,
    ) {
        let Exchange::Sends(sends) = &mut self.exchange else {
            return;
        };
        let Some(action) = sends.remove(path) else { return };
        let (Action::Send {
            mut state,
            based_on,
            expected,
            ..
        }
        | Action::SendMeta {
            mut state,
            based_on,
            expected,
            ..
        }) = action
        else {
            return;
        };
        self.look_again_after(path, |syncing| {
            if let Err(code) = result {
                match code {
                    ItemCode::Stale => drop(syncing.outrun.insert(path.to_string(), code)),
                    ItemCode::Collides => drop(syncing.held.refused.insert(path.clone())),
                    _ => {}
                }
                return;
            }
            let Ok(Some((identity, _))) = syncing.wanted(path, expected) else {
                return;
            };
            if state.kind == Kind::Directory && state.meta.mode & OWNER != OWNER {
                // It has that mode at the end of the transfer, which may not come: its revision tells.
                syncing.done += 1;
                return;
            }
            if let Kind::File { .. } = state.kind {
                match content {
                    // It was still what the plan was made for.
                    Some((was, id)) if was.same_content(&identity) => state.root = Some(id.root),
                    Some(_) => return,
                    None if state.root.is_some() => {}
                    None => return,
                }
            }
            // The revision that it got comes with the next answer; until then it is that of what it replaced.
            syncing.await_revision(path);
            syncing.agree(path, state, based_on, Some(identity));
        });
    }

    /// Looks at the path again, but lets `work` see what was known of it.
    fn look_again_after(&mut self, path: &RelPath, work: impl FnOnce(&mut Syncing)) {
        work(self);
        self.look_again(path);
    }

    /// Files that were fetched.
    fn take_published(&mut self) {
        let notices = match self.place.notices.borrow_mut().as_mut() {
            Some(notices) => std::mem::take(notices),
            None => return,
        };
        for notice in notices {
            self.looks.path(&notice.path);
            let Exchange::Fetches(fetches) = &mut self.exchange else {
                continue;
            };
            let Some((identity, id)) = notice.content else { continue };
            let Some(Action::Fetch { state, revision, .. }) = fetches.remove(&notice.path) else {
                continue;
            };
            self.roots.insert(notice.path.clone(), (identity, id.root));
            if state.root == Some(id.root) {
                self.agree(&notice.path, state, revision, Some(identity));
            }
        }
    }

    /// What became of moves and removals.
    pub(crate) fn altered(&mut self, outcomes: Vec<Result<(), ItemCode>>, around: &mut Around<'_>) {
        let Exchange::Alters(list) = std::mem::take(&mut self.exchange) else {
            return;
        };
        let mut outcomes = outcomes.into_iter();
        for action in list {
            // A server that answers less has not done it.
            let outcome = outcomes.next().unwrap_or(Err(ItemCode::Other));
            let path = path_of(&action).clone();
            let told = match outcome.and_then(|()| self.was_altered(action)) {
                Ok(told) => told,
                Err(code) => {
                    if code == ItemCode::Collides {
                        self.held.refused.insert(path.clone());
                    }
                    self.failed(&path, code, around);
                    continue;
                }
            };
            around.events.push(ClientEvent::Item {
                path,
                action: told,
                size: 0,
                figures: Figures::default(),
            });
        }
        self.stage = Stage::Acting;
    }

    fn was_altered(&mut self, action: Action) -> Result<Told, ItemCode> {
        match action {
            Action::SendMove {
                from,
                to,
                state,
                expected,
                ..
            } => {
                let identity = self.wanted(&to, expected)?.map(|(identity, _)| identity);
                self.tell_move(&from, &to);
                self.await_revision(&from);
                self.await_revision(&to);
                self.forget(&from);
                self.agree(&to, state, Revision::NONE, identity);
                Ok(Told::Moved)
            }
            Action::SendRespell {
                from,
                to,
                state,
                expected,
                ..
            } => {
                let identity = self.wanted(&to, expected)?.map(|(identity, _)| identity);
                self.respelled(&from, &to)?;
                self.agree(&to, state, Revision::NONE, identity);
                Ok(Told::Moved)
            }
            Action::SendRemove { path, .. } => {
                self.await_revision(&path);
                self.forget(&path);
                Ok(Told::Deleted)
            }
            _ => Err(ItemCode::Other),
        }
    }
}

fn alteration(action: &Action) -> Option<Alteration> {
    match action {
        Action::SendMove {
            from,
            from_revision,
            to,
            ..
        }
        | Action::SendRespell {
            from,
            from_revision,
            to,
            ..
        } => Some(Alteration::Move {
            from: from.clone(),
            from_based_on: *from_revision,
            to: to.clone(),
        }),
        Action::SendRemove { path, based_on, .. } => Some(Alteration::Remove {
            path: path.clone(),
            based_on: *based_on,
        }),
        _ => None,
    }
}

fn begin(direction: Direction, sources: Vec<PullSource>) -> Begin {
    Begin {
        direction,
        flags: BeginFlags {
            sync: true,
            ..BeginFlags::default()
        },
        brake: Brake::Default,
        target: None,
        scopes: Vec::new(),
        sources,
        rules: Vec::new(),
    }
}

fn nothing() -> Filter {
    Filter::new(&[]).expect("no rules are legal")
}
