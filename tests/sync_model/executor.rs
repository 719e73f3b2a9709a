//! Carries out actions on a disk and a server, as a careful executor does: each looks at what it expects.
//!
//! A cut ends the process between the effect of an action and its record in the base, or before.

use crate::device::{Device, Record, Round};
use crate::disk::{Node, What, what_of};
use crate::rng::Rng;
use crate::server::{Server, Stale};
use syncline::model::{RelPath, Revision, State, conflict_path};
use syncline::sync::{Action, Agreed, Expected, Pending};

impl Device {
    /// Whether the action was carried out. With `cut` the base is not written.
    pub(crate) fn carry_out(
        &mut self,
        server: &mut Server,
        round: &mut Round,
        action: &Action,
        rng: &mut Rng,
        cut: bool,
    ) -> bool {
        if cut && rng.once_in(2) {
            return false;
        }
        match action {
            Action::Agree {
                path,
                state,
                revision,
                expected,
            } => {
                let fits = self.finds(round, path, *expected);
                if fits && !cut {
                    self.record(path, state, *revision);
                }
                fits
            }
            Action::Forget { path } => {
                if !cut {
                    self.base.remove(path);
                    self.pending.remove(path);
                }
                true
            }
            Action::KeepAside { path, copy, expected } => self.keep_aside(round, path, copy, *expected),
            Action::Send {
                path,
                state,
                based_on,
                expected,
            } => {
                let subject = (path, state, *based_on, *expected);
                self.send(server, round, subject, cut)
            }
            Action::SendMeta {
                path,
                state,
                based_on,
                expected,
            } => {
                if !self.finds(round, path, *expected) {
                    return false;
                }
                self.note(path, Pending::Sent(state.clone()));
                let answer = server.send_meta(self.number, path, state, *based_on);
                self.answered(round, path, state, answer, cut)
            }
            Action::SendMove { .. } => self.send_move(server, round, action, cut),
            Action::SendRemove {
                path,
                based_on,
                expected,
            } => self.send_remove(server, round, (path, *based_on, *expected), cut),
            _ => self.change_folder(server, round, action, rng, cut),
        }
    }

    fn change_folder(
        &mut self,
        server: &mut Server,
        round: &mut Round,
        action: &Action,
        rng: &mut Rng,
        cut: bool,
    ) -> bool {
        self.note_taken(action);
        let (path, state, revision) = match action {
            Action::Remove { path, expected } => return self.remove(round, path, *expected, cut),
            Action::Rename {
                from,
                to,
                state,
                revision,
            } => {
                if !self.rename(round, from, to, state, (cut, cut && rng.once_in(2))) {
                    return false;
                }
                (to, state, revision)
            }
            Action::MakeDirectory { path, state, revision } => {
                if let made @ (None | Some(false)) = self.make_directory(round, path, state) {
                    return made.is_some();
                }
                (path, state, revision)
            }
            Action::MakeLink {
                path,
                state,
                revision,
                expected,
            } => {
                if !self.finds(round, path, *expected) {
                    return false;
                }
                self.disk.put(path, what_of(state), 0o777, 0);
                (path, state, revision)
            }
            Action::SetMeta {
                path,
                state,
                revision,
                expected,
            } => {
                if !self.finds(round, path, *expected) {
                    return false;
                }
                self.set_meta(path, state);
                (path, state, revision)
            }
            Action::Fetch {
                path, state, revision, ..
            } => {
                if !self.fetch(server, round, action, rng) {
                    return false;
                }
                (path, state, revision)
            }
            _ => unreachable!("the others are not about the folder"),
        };
        round
            .made
            .insert(path.clone(), self.disk.identity(path).expect("it was made"));
        if !cut {
            self.record(path, state, *revision);
        }
        true
    }

    fn note_taken(&mut self, action: &Action) {
        if let Action::Rename { to: path, state, .. }
        | Action::MakeDirectory { path, state, .. }
        | Action::MakeLink { path, state, .. }
        | Action::SetMeta { path, state, .. }
        | Action::Fetch { path, state, .. } = action
        {
            self.note(path, Pending::Taken(state.clone()));
        }
    }

    /// With `halved` the process ends before mode and time are set.
    fn rename(
        &mut self,
        round: &Round,
        from: &RelPath,
        to: &RelPath,
        state: &State,
        (cut, halved): (bool, bool),
    ) -> bool {
        if !self.finds(round, from, Expected::Agreed) || !self.disk.is_free(to) {
            return false;
        }
        assert_eq!(self.disk.get(from).unwrap().what, what_of(state), "{from}: moved");
        self.disk.rename(from, to);
        if halved {
            return false;
        }
        self.set_meta(to, state);
        if !cut {
            self.base.remove(from);
        }
        true
    }

    /// Whether it has its mode already; nothing if something is in the way.
    fn make_directory(&mut self, round: &mut Round, path: &RelPath, state: &State) -> Option<bool> {
        let there = self.disk.get(path).is_some_and(|node| node.what == What::Directory);
        if !there && !self.disk.is_free(path) {
            return None;
        }
        if !there {
            self.disk.put(path, What::Directory, state.meta.mode, 0);
        }
        let mode = state.meta.mode | 0o700;
        self.disk.change(path, |node| node.mode = mode);
        if mode != state.meta.mode {
            round
                .made
                .insert(path.clone(), self.disk.identity(path).expect("it was made"));
            return Some(false);
        }
        Some(true)
    }

    fn send_move(&mut self, server: &mut Server, round: &mut Round, action: &Action, cut: bool) -> bool {
        let Action::SendMove {
            from,
            from_revision,
            to,
            state,
            expected,
        } = action
        else {
            unreachable!("it is called for moves");
        };

        if !self.finds(round, to, *expected) {
            return false;
        }
        self.note(to, Pending::Sent(state.clone()));
        let answer = server.send_move(self.number, (from, *from_revision), to, state);
        if answer.is_ok() && !cut {
            self.base.remove(from);
        }
        self.answered(round, to, state, answer, cut)
    }

    /// Whether what is at `path` is what an action expects there.
    fn finds(&self, round: &Round, path: &RelPath, expected: Expected) -> bool {
        let found = self.disk.identity(path);
        match expected {
            Expected::Absent => self.disk.is_free(path),
            Expected::Agreed => found.is_some() && found == self.base.get(path).map(|record| record.identity),
            Expected::Surveyed => {
                let surveyed = round.survey.get(path).map(|(_, identity)| *identity);
                found.is_some() && found == round.made.get(path).copied().or(surveyed)
            }
        }
    }

    fn record(&mut self, path: &RelPath, state: &State, revision: Revision) {
        let node = self.disk.get(path).expect("what is recorded is there");
        let agreed = Agreed {
            state: state.clone(),
            revision,
            file: node.file,
        };
        let identity = node.identity();
        assert_eq!(node.what, what_of(state), "{path}: the base would lie");
        let at = self.now;
        self.base.insert(path.clone(), Record { agreed, identity, at });
        self.pending.remove(path);
    }

    fn set_meta(&mut self, path: &RelPath, state: &State) {
        self.disk.change(path, |node| {
            node.mode = state.meta.mode;
            node.mtime = state.meta.mtime.seconds;
        });
    }

    fn keep_aside(&mut self, round: &Round, path: &RelPath, copy: &RelPath, expected: Expected) -> bool {
        if !self.finds(round, path, expected) {
            return false;
        }
        assert!(!self.base.contains_key(copy), "{copy} is the name of something");
        let free = |copy: &RelPath| self.disk.is_free(copy);
        let others = (1..).filter_map(|number| conflict_path(path, "late", "dev", number));
        let copy = std::iter::once(copy.clone()).chain(others).find(free);
        self.disk.rename(path, &copy.expect("some name is free"));
        true
    }

    fn remove(&mut self, round: &Round, path: &RelPath, expected: Expected, cut: bool) -> bool {
        if !self.finds(round, path, expected) || !self.disk.below(path).is_empty() {
            return false;
        }
        let node = self.disk.remove(path);
        if let Some(content) = node.content() {
            self.versions.insert(content);
            if let Some((None, _, author)) = round.told.get(path) {
                self.obeyed.push((path.clone(), content, *author));
            }
        }
        if !cut {
            self.base.remove(path);
            self.pending.remove(path);
        }
        true
    }

    /// Brings a file. What changed under way is kept aside at the swap.
    fn fetch(&mut self, server: &mut Server, round: &Round, action: &Action, rng: &mut Rng) -> bool {
        let Action::Fetch {
            path,
            state,
            revision,
            expected,
            kept,
        } = action
        else {
            unreachable!("it is called for fetches");
        };
        let (revision, expected, kept) = (*revision, *expected, kept.is_some());
        let What::File(content) = what_of(state) else {
            panic!("{path}: only files are fetched");
        };
        let available = kept && self.versions.contains(&content);
        if !available && server.fetch(path, revision) != Some(content) {
            return false;
        }
        self.transfers += usize::from(!available);
        if !self.finds(round, path, expected) {
            let file = self.disk.get(path).is_some_and(|node| node.content().is_some());
            if !file || rng.once_in(2) {
                return false;
            }
            let copies = (1..).filter_map(|number| conflict_path(path, "surprise", "dev", number));
            let mut copies = copies.filter(|copy| self.disk.is_free(copy));
            let copy = copies.next().expect("some name is free");
            self.disk.rename(path, &copy);
        } else if let Some(old) = self.disk.get(path).and_then(Node::content) {
            self.versions.insert(old);
        }
        self.disk
            .put(path, What::File(content), state.meta.mode, state.meta.mtime.seconds);
        true
    }

    fn send(
        &mut self,
        server: &mut Server,
        round: &mut Round,
        (path, state, on, expected): (&RelPath, &State, Revision, Expected),
        cut: bool,
    ) -> bool {
        if !self.finds(round, path, expected) {
            return false;
        }
        let read = self.disk.get(path).expect("it is still there").read();
        assert_eq!(
            (&read.kind, read.meta),
            (&state.kind, state.meta),
            "{path}: another state is sent"
        );
        self.note(path, Pending::Sent(read.clone()));
        self.transfers += usize::from(read.root.is_some());
        let answer = server.send(self.number, path, &read, on);
        self.answered(round, path, &read, answer, cut)
    }

    /// Writes down what is about to be done.
    fn note(&mut self, path: &RelPath, pending: Pending) {
        if self.remembers {
            self.pending.insert(path.clone(), pending);
        }
    }

    fn send_remove(
        &mut self,
        server: &mut Server,
        round: &mut Round,
        (path, on, expected): (&RelPath, Revision, Expected),
        cut: bool,
    ) -> bool {
        let absent = expected == Expected::Absent && self.disk.get(path).is_none();
        if !absent && !self.finds(round, path, expected) {
            return false;
        }
        match server.send_remove(self.number, path, on) {
            Ok(_) => {
                if !cut {
                    self.base.remove(path);
                    self.pending.remove(path);
                }
                true
            }
            Err(stale) => self.told_stale(round, stale),
        }
    }

    fn answered(
        &mut self,
        round: &mut Round,
        path: &RelPath,
        state: &State,
        answer: Result<Revision, Stale>,
        cut: bool,
    ) -> bool {
        match answer {
            Ok(revision) => {
                if !cut {
                    self.record(path, state, revision);
                }
                true
            }
            Err(stale) => self.told_stale(round, stale),
        }
    }

    /// The server's present record comes with its no.
    fn told_stale(&mut self, round: &mut Round, Stale(present): Stale) -> bool {
        if let Some((path, record)) = present.map(|present| *present) {
            let told = (record.state, record.revision, record.author);
            round.told.insert(path.clone(), told.clone());
            self.told_later(&path, told);
        }
        false
    }
}
