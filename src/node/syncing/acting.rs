//! What a plan does to the folder of this device.
//!
//! Every action looks at what it finds first, and is skipped when that is not what it expects. Invariant: what
//! disappears goes to the versions or to a conflict copy; nothing is overwritten.

use super::exchanging::Exchange;
use super::{Around, Here, Stage, Syncing};
use crate::model::{ItemCode, Kind, Meta, RelPath, Revision, State, conflict_names, conflict_path};
use crate::node::events::{Action as Told, ClientEvent, Figures, JobError};
use crate::node::leftover::Removed;
use crate::node::looking::found_at;
use crate::node::peer::Session;
use crate::node::place::Place;
use crate::node::slice::Slice;
use crate::reactor::{Activity, Context};
use crate::store::{self, Author, FileError, Identity, Keeping, publish};
use crate::sync::{Action, Expected};

impl Syncing {
    /// Carries out actions, as far as there is time; those that need the server are gathered.
    pub(super) fn act(
        &mut self,
        cx: &mut Context<'_>,
        session: &mut Session,
        around: &mut Around<'_>,
    ) -> Result<Activity, JobError> {
        let slice = Slice::begin();
        self.place.root.forget_parents();
        if let Some(versions) = &self.place.versions {
            versions.forget_parents();
        }
        loop {
            if let Some(exchange) = Exchange::begin(&mut self.actions) {
                self.stage = Stage::Exchanging;
                self.send_off(exchange, session);
                return Ok(Activity::Idle);
            }
            let Some(action) = self.actions.pop_front() else {
                self.conclude(cx, around.core);
                return Ok(Activity::Idle);
            };
            let path = path_of(&action).clone();
            match self.act_here(action) {
                Ok(Some(told)) => around.events.push(ClientEvent::Item {
                    path,
                    action: told,
                    size: 0,
                    figures: Figures::default(),
                }),
                Ok(None) => {}
                Err(code) => self.failed(&path, code, around),
            }
            if slice.is_over() {
                return Ok(Activity::More);
            }
        }
    }

    pub(super) fn failed(&mut self, path: &RelPath, code: ItemCode, around: &mut Around<'_>) {
        self.look_again(path);
        // The next plan knows that, and has it told in its own words.
        if code == ItemCode::Collides {
            return;
        }
        // The other side, or the user, was quicker: the next round sees what there is.
        if code.may_be_outrun() {
            self.outrun.insert(path.to_string(), code);
            return;
        }
        around.events.push(ClientEvent::Failed {
            path: path.to_string(),
            code,
            warning: false,
        });
    }

    /// One action on the folder or the base. Returns what the user is told.
    fn act_here(&mut self, action: Action) -> Result<Option<Told>, ItemCode> {
        match action {
            Action::Agree {
                path,
                state,
                revision,
                expected,
            } => {
                let identity = self.check(&path, expected)?;
                self.agree(&path, state, revision, identity);
                Ok(None)
            }
            Action::Forget { path } => {
                self.forget(&path);
                Ok(None)
            }
            Action::KeepAside { path, copy, expected } => self.keep_aside(&path, &copy, expected).map(Some),
            Action::Rename {
                from,
                to,
                state,
                revision,
            } => self.rename(&from, &to, state, revision).map(Some),
            Action::Respell { from, to, expected } => self.respell(&from, &to, expected).map(Some),
            Action::MakeDirectory { path, state, revision } => self.make_directory(&path, state, revision),
            Action::MakeLink {
                path,
                state,
                revision,
                expected,
            } => self.make_link(&path, state, revision, expected).map(Some),
            Action::SetMeta {
                path,
                state,
                revision,
                expected,
            } => {
                let was = self.check(&path, expected)?;
                self.give_meta(&path, was, state, revision)?;
                Ok(Some(Told::Touched))
            }
            Action::Remove { path, expected } => {
                let identity = self.check(&path, expected)?;
                if self.take_away(&path).map_err(|error| code_of(&error))? == Removed::Stays {
                    self.leave_behind(&path, identity);
                    return Ok(None);
                }
                self.changed.insert(path.parent());
                self.forget(&path);
                Ok(Some(Told::Deleted))
            }
            Action::Fetch { .. }
            | Action::Send { .. }
            | Action::SendMeta { .. }
            | Action::SendMove { .. }
            | Action::SendRespell { .. }
            | Action::SendRemove { .. } => {
                debug_assert!(false, "what needs the server is gathered");
                Ok(None)
            }
        }
    }

    fn keep_aside(&mut self, path: &RelPath, copy: &RelPath, expected: Expected) -> Result<Told, ItemCode> {
        self.check(path, expected)?;
        let mut name = copy.clone();
        let mut tries = 0;
        loop {
            match self.place.root.rename_new(path, &name) {
                Ok(()) => break,
                Err(error) if is_taken(&error) && tries < NAMES_MAX => {
                    tries += 1;
                    name = another(copy, tries + 1).ok_or(ItemCode::BadPath)?;
                }
                Err(error) => return Err(code_of(&error)),
            }
        }
        self.changed.insert(path.parent());
        self.settled(path);
        self.looks.tree(Some(path.clone()));
        self.looks.tree(Some(name));
        Ok(Told::Replaced)
    }

    fn rename(&mut self, from: &RelPath, to: &RelPath, state: State, revision: Revision) -> Result<Told, ItemCode> {
        let was = self.check(from, Expected::Agreed)?;
        for made in self.place.root.make_parents(to).map_err(|error| code_of(&error))? {
            self.changed.insert(made.parent());
            self.look_again(&made);
        }
        self.place.root.rename_new(from, to).map_err(|error| code_of(&error))?;
        self.changed.extend([from.parent(), to.parent()]);
        self.forget(from);
        self.give_meta(to, was, state, revision)?;
        self.tell_move(from, to);
        Ok(Told::Moved)
    }

    /// Gives what is agreed on the mode and time that it is to have, unless somebody wrote to it meanwhile: `was`
    /// is what the action looked at.
    fn give_meta(
        &mut self,
        path: &RelPath,
        was: Option<Identity>,
        state: State,
        revision: Revision,
    ) -> Result<(), ItemCode> {
        let is_file = matches!(state.kind, Kind::File { .. });
        let is_it = |found: Option<Identity>| was.zip(found).is_some_and(|(was, found)| was.same_content(&found));
        if is_file && !is_it(self.identity_at(path)?) {
            self.settled(path);
            return Ok(());
        }
        self.place
            .root
            .set_meta(path, &state.meta)
            .map_err(|error| code_of(&error))?;
        let made = self.identity_at(path)?;
        if is_file && made.map(|made| made.size()) != was.map(|was| was.size()) {
            self.settled(path);
            return Ok(());
        }
        self.agree(path, state, revision, made);
        Ok(())
    }

    fn make_directory(&mut self, path: &RelPath, state: State, revision: Revision) -> Result<Option<Told>, ItemCode> {
        let root = &self.place.root;
        let made = root.make_directory(path).map_err(|error| code_of(&error))?;
        let meta = Meta {
            mode: state.meta.mode | OWNER,
            ..state.meta
        };
        root.set_meta(path, &meta).map_err(|error| code_of(&error))?;
        self.changed.insert(path.parent());
        let identity = self.identity_at(path)?;
        self.made.extend(identity.map(|identity| (path.clone(), identity)));
        if meta.mode == state.meta.mode {
            self.agree(path, state, revision, identity);
        } else {
            self.settled(path);
        }
        Ok((made == store::MadeDirectory::Created).then_some(Told::Created))
    }

    fn make_link(
        &mut self,
        path: &RelPath,
        state: State,
        revision: Revision,
        expected: Expected,
    ) -> Result<Told, ItemCode> {
        let Kind::Symlink { target } = &state.kind else {
            return Err(ItemCode::Other);
        };
        let identity = self.check(path, expected)?;
        let (expected, told) = match identity {
            None => (store::Expected::Absent, Told::Created),
            Some(identity) => (store::Expected::Present(identity), Told::Replaced),
        };
        let staged = self
            .place
            .staging
            .symlink(path, target, &state.meta)
            .map_err(|error| code_of(&error))?;
        publish(&self.place.root, staged, &expected, keeping(&self.place).as_ref()).map_err(|error| code_of(&error))?;
        self.changed.insert(path.parent());
        let made = self.identity_at(path)?;
        self.agree(path, state, revision, made);
        Ok(told)
    }

    fn identity_at(&self, path: &RelPath) -> Result<Option<Identity>, ItemCode> {
        let found = found_at(&self.place.root, path).map_err(|error| code_of(&error))?;
        Ok(found.map(|(_, identity)| identity))
    }

    /// What must stand at the path for the action; `None` when nothing must.
    pub(super) fn wanted(&self, path: &RelPath, expected: Expected) -> Result<Option<(Identity, bool)>, ItemCode> {
        let known = match expected {
            Expected::Absent => return Ok(None),
            Expected::Agreed => {
                let record = self.snapshot.get(path).map_err(|_| ItemCode::Io)?;
                let record = record.filter(store::Record::is_live);
                record.and_then(|record| {
                    let is_directory = record.state.is_some_and(|state| state.kind == Kind::Directory);
                    Some((record.identity?, is_directory))
                })
            }
            Expected::Surveyed => match (self.made.get(path), self.local.get(path)) {
                (Some(made), _) => Some((*made, true)),
                (None, Some(Here::Found(state, identity))) => Some((*identity, state.kind == Kind::Directory)),
                (None, _) => None,
            },
        };
        known.map(Some).ok_or(ItemCode::Stale)
    }

    /// Looks whether what stands at the path is what the action expects. Returns its identity, as it was then.
    pub(super) fn check(&self, path: &RelPath, expected: Expected) -> Result<Option<Identity>, ItemCode> {
        let wanted = self.wanted(path, expected)?;
        let found = found_at(&self.place.root, path).map_err(|error| code_of(&error))?;
        match (wanted, found) {
            (None, None) => Ok(None),
            // One directory is like another: what is in it was looked at by itself, and only an empty one goes.
            (Some((_, true)), Some((entry, now))) if entry.kind == Kind::Directory => Ok(Some(now)),
            (Some((was, false)), Some((entry, now))) if entry.kind != Kind::Directory && was.same_content(&now) => {
                Ok(Some(was))
            }
            _ => Err(ItemCode::Stale),
        }
    }
}

/// What the owner of a directory may do, so that things can be put into it.
pub(super) const OWNER: u32 = 0o700;
/// Names of a conflict copy that are tried.
const NAMES_MAX: u32 = 99;

/// How something gives way here.
pub(super) fn keeping(place: &Place) -> Option<Keeping<'_>> {
    let author = Author::Local;
    let versions = place.versions.as_ref();
    versions.map(|versions| Keeping { versions, author })
}

fn code_of(error: &FileError) -> ItemCode {
    log::info!("{error}");
    error.code()
}

/// Whether something has a name, maybe in a spelling that the file system takes for the same.
fn is_taken(error: &FileError) -> bool {
    matches!(error.code(), ItemCode::InTheWay | ItemCode::Collides)
}

/// The name of a copy when others of that second have theirs.
fn another(copy: &RelPath, number: u32) -> Option<RelPath> {
    let name = conflict_names(copy).into_iter().next()?;
    conflict_path(&name.of, &name.stamp, &name.author, number)
}

pub(super) fn path_of(action: &Action) -> &RelPath {
    match action {
        Action::Agree { path, .. }
        | Action::Forget { path }
        | Action::KeepAside { path, .. }
        | Action::MakeDirectory { path, .. }
        | Action::MakeLink { path, .. }
        | Action::SetMeta { path, .. }
        | Action::Remove { path, .. }
        | Action::Fetch { path, .. }
        | Action::Send { path, .. }
        | Action::SendMeta { path, .. }
        | Action::SendRemove { path, .. } => path,
        Action::Rename { to, .. }
        | Action::Respell { to, .. }
        | Action::SendMove { to, .. }
        | Action::SendRespell { to, .. } => to,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Further copies keep the extension and say what they are a copy of, so that `conflicts` finds both.
    #[test]
    fn a_further_copy_is_named_like_the_first() {
        let path = |text: &str| RelPath::parse(text.as_bytes()).unwrap();
        let copy = path("a/report.sync-conflict-20261120-214731-laptop.docx");
        let again = another(&copy, 3).unwrap();
        assert_eq!(again, path("a/report.sync-conflict-20261120-214731-laptop-3.docx"));
        assert_eq!(conflict_names(&again)[0].of, path("a/report.docx"));
    }
}
