//! The rules of a plan, one by one, on trees of a few paths.

use super::*;
use crate::model::{Kind, Meta, RelPath, Revision, State, Timestamp};
use std::collections::BTreeMap;

pub(super) fn path(text: &str) -> RelPath {
    RelPath::parse(text.as_bytes()).unwrap()
}

fn state(kind: Kind, mode: u32, seconds: i64, root: Option<[u8; 32]>) -> State {
    let mtime = Timestamp { seconds, nanos: 0 };
    let meta = Meta { mode, mtime };
    State { kind, meta, root }
}

/// A file whose content is `content`, all of one size; its time follows from that.
pub(super) fn file(content: u8) -> State {
    state(Kind::File { size: 9 }, 0o644, i64::from(content), Some([content; 32]))
}

/// The same as a survey finds it.
pub(super) fn unread(content: u8) -> State {
    State {
        root: None,
        ..file(content)
    }
}

pub(super) fn directory() -> State {
    state(Kind::Directory, 0o755, 0, None)
}

pub(super) fn moded(state: State, mode: u32) -> State {
    State {
        meta: Meta { mode, ..state.meta },
        ..state
    }
}

/// A round to plan: what was agreed, and what each side changed.
pub(super) struct Trial {
    pub(super) base: BTreeMap<RelPath, Agreed>,
    pub(super) cases: Cases,
    pub(super) folds_here: bool,
    pub(super) folds_there: bool,
    files: u64,
}

impl Default for Trial {
    /// Between file systems that fold: what has no second spelling is not concerned.
    fn default() -> Trial {
        Trial {
            base: BTreeMap::new(),
            cases: Cases::new(),
            folds_here: true,
            folds_there: true,
            files: 0,
        }
    }
}

impl Trial {
    /// Both sides have this.
    pub(super) fn agreed(mut self, at: &str, state: State) -> Trial {
        self.files += 1;
        let revision = Revision(self.files);
        let file = self.files;
        let agreed = Agreed { state, revision, file };
        self.base.insert(path(at), agreed);
        self
    }

    pub(super) fn case(&mut self, at: &str) -> &mut Case {
        let base = self.base.get(&path(at)).cloned();
        self.cases.entry(path(at)).or_insert(Case {
            base,
            pending: None,
            local: Local::Unchanged,
            remote: Remote::Unchanged,
            taken: None,
        })
    }

    /// The folder has this now, in another inode unless `inode` is said.
    pub(super) fn here(self, at: &str, state: Option<State>) -> Trial {
        self.here_as(at, state, 900)
    }

    pub(super) fn here_as(mut self, at: &str, state: Option<State>, file: u64) -> Trial {
        self.case(at).local = state.map_or(Local::Gone, |state| Local::Found(Found { state, file }));
        self
    }

    /// The server has this now.
    pub(super) fn there(mut self, at: &str, state: Option<State>) -> Trial {
        let revision = Revision(100 + self.cases.len() as u64);
        self.case(at).remote = Remote::Changed { state, revision };
        self
    }

    pub(super) fn plan_as(&self, mode: Mode, standing: Standing) -> Plan {
        let settings = Settings {
            mode,
            standing,
            brake: Some(Brake::default()),
            entries: self.base.len() as u64,
            stamp: "20261120-214731",
            device: "laptop",
            folds_here: self.folds_here,
            folds_there: self.folds_there,
        };
        let made = plan(&self.cases, &self.base, &settings);
        assert_eq!(made, plan(&self.cases, &self.base, &settings), "I17");
        made
    }

    pub(super) fn plan(&self) -> Plan {
        self.plan_as(Mode::TwoWaySafe, Standing::Whole)
    }

    /// The actions in short.
    pub(super) fn short(&self) -> Vec<String> {
        short(&self.plan())
    }
}

pub(super) fn short(plan: &Plan) -> Vec<String> {
    let told = plan.actions.iter().map(|action| match action {
        Action::Agree { path, .. } => format!("agree {path}"),
        Action::Forget { path } => format!("forget {path}"),
        Action::KeepAside { path, copy, .. } => format!("aside {path} {copy}"),
        Action::Rename { from, to, .. } => format!("rename {from} {to}"),
        Action::MakeDirectory { path, .. } => format!("mkdir {path}"),
        Action::Respell { from, to, .. } => format!("respell {from} {to}"),
        Action::SendRespell { from, to, .. } => format!("send-respell {from} {to}"),
        Action::MakeLink { path, .. } => format!("link {path}"),
        Action::SetMeta { path, .. } => format!("meta {path}"),
        Action::Remove { path, .. } => format!("remove {path}"),
        Action::Fetch { path, kept: None, .. } => format!("fetch {path}"),
        Action::Fetch {
            path, kept: Some(kept), ..
        } => format!("fetch {path} kept {kept}"),
        Action::Send { path, based_on, .. } => format!("send {path} on {based_on}"),
        Action::SendMeta { path, .. } => format!("send-meta {path}"),
        Action::SendMove { from, to, .. } => format!("send-move {from} {to}"),
        Action::SendRemove { path, .. } => format!("send-remove {path}"),
    });
    told.collect()
}

// Protects both contents of a conflict: the server's keeps the name, the local one gets the copy's.
#[test]
fn both_edited_keeps_both_under_the_name_that_people_know() {
    let trial = Trial::default().agreed("report.docx", file(1));
    let trial = trial
        .here("report.docx", Some(file(2)))
        .there("report.docx", Some(file(3)));
    let copy = "report.sync-conflict-20261120-214731-laptop.docx";
    let aside = format!("aside report.docx {copy}");
    assert_eq!(trial.short(), ["forget report.docx", &aside, "fetch report.docx"]);
    assert_eq!(trial.plan().conflicts[0].copy, Some(path(copy)));
    // The name is taken already.
    let trial = trial.here(copy, Some(file(4)));
    let copy = "report.sync-conflict-20261120-214731-laptop-2.docx";
    assert_eq!(trial.plan().conflicts[0].copy, Some(path(copy)));
    let resolved = trial.plan_as(Mode::TwoWayResolved, Standing::Whole);
    assert_eq!(
        (short(&resolved)[0].as_str(), &resolved.conflicts[0].copy),
        ("fetch report.docx", &None)
    );
}

// Protects from conflicts that are none.
#[test]
fn the_same_content_on_both_sides_is_agreed() {
    let trial = Trial::default()
        .agreed("a", file(1))
        .here("a", Some(file(2)))
        .there("a", Some(file(2)));
    assert_eq!(trial.short(), ["agree a"]);
    let unread = Trial::default()
        .here("a", Some(unread(2)))
        .there("a", Some(file(2)))
        .plan();
    assert_eq!((unread.hash, unread.actions.len()), (vec![path("a")], 0));
    let gone = Trial::default().agreed("a", file(1)).here("a", None).there("a", None);
    assert_eq!(gone.short(), ["forget a"]);
}

// Protects I4 and I5: deletions travel, and an edit beats them.
#[test]
fn deletions_travel_and_an_edit_beats_them() {
    let base = || Trial::default().agreed("a", file(1));
    assert_eq!(base().here("a", None).short(), ["send-remove a"]);
    assert_eq!(base().there("a", None).short(), ["remove a"]);
    assert_eq!(base().here("a", None).there("a", Some(file(2))).short(), ["fetch a"]);
    assert_eq!(
        base().here("a", Some(file(2))).there("a", None).short(),
        ["send a on 101"]
    );
}

// Protects what is in a directory that the other side deleted or replaced.
#[test]
fn a_directory_comes_back_for_what_is_new_in_it() {
    let base = || Trial::default().agreed("d", directory()).agreed("d/x", file(1));
    let remote = base().there("d", None).there("d/x", None).here("d/new", Some(file(2)));
    assert_eq!(remote.short(), ["remove d/x", "send d on 100", "send d/new on 0"]);
    let local = base().here("d", None).here("d/x", None).there("d/new", Some(file(2)));
    assert_eq!(local.short(), ["mkdir d", "fetch d/new", "send-remove d/x"]);
    let replaced = base()
        .there("d", Some(file(3)))
        .there("d/x", None)
        .here("d/new", Some(file(2)));
    let aside = "aside d d.sync-conflict-20261120-214731-laptop";
    assert_eq!(replaced.short(), ["forget d", "remove d/x", aside, "fetch d"]);
    let replacing = base()
        .here("d", Some(file(3)))
        .here("d/x", None)
        .there("d/new", Some(file(2)));
    assert_eq!(replacing.short(), [aside, "mkdir d", "fetch d/new", "send-remove d/x"]);
}

// Protects kinds that replace each other, on either side.
#[test]
fn files_and_directories_replace_each_other_in_order() {
    let base = || {
        Trial::default()
            .agreed("d", directory())
            .agreed("d/x", file(1))
            .agreed("f", file(2))
    };
    let there = base().there("d", Some(file(3))).there("d/x", None);
    let there = there.there("f", Some(directory())).there("f/y", Some(file(4)));
    let want = ["remove d/x", "remove d", "remove f", "mkdir f", "fetch d", "fetch f/y"];
    let (mut got, mut sorted) = (there.short(), want.map(str::to_owned).to_vec());
    let at = |action: &str| got.iter().position(|other| other == action).unwrap();
    assert!(at("remove d/x") < at("remove d") && at("remove d") < at("fetch d"));
    assert!(at("remove f") < at("mkdir f") && at("mkdir f") < at("fetch f/y"));
    got.sort();
    sorted.sort();
    assert_eq!(got, sorted);
    let here = base().here("d", Some(file(3))).here("d/x", None);
    assert_eq!(here.short(), ["send-remove d/x", "send-remove d", "send d on 0"]);
}

// Protects from sending content again: a directory of many files that got another name.
#[test]
fn a_renamed_directory_is_moved_file_by_file_and_is_no_deletion() {
    let mut trial = Trial::default().agreed("old", directory());
    for number in 0..1000 {
        trial = trial.agreed(&format!("old/{number}"), file((number % 250) as u8));
    }
    let mut trial = trial.here("old", None).here("new", Some(directory()));
    for number in 0..1000 {
        let content = (number % 250) as u8;
        trial = trial.here(&format!("old/{number}"), None);
        trial = trial.here_as(&format!("new/{number}"), Some(unread(content)), number + 2);
    }
    let plan = trial.plan();
    let moves = plan
        .actions
        .iter()
        .filter(|action| matches!(action, Action::SendMove { .. }));
    assert_eq!((moves.count(), plan.actions.len(), plan.stop), (1000, 1002, None));
    let told = short(&plan);
    assert_eq!(
        (told[0].as_str(), told[1001].as_str()),
        ("send new on 0", "send-remove old")
    );

    // The same on the server.
    let mut trial = Trial::default()
        .agreed("old", directory())
        .agreed("old/a", file(1))
        .agreed("old/b", file(2));
    for at in ["old", "old/a", "old/b"] {
        trial = trial.there(at, None);
    }
    let trial = trial
        .there("new", Some(directory()))
        .there("new/a", Some(file(1)))
        .there("new/b", Some(file(2)));
    assert_eq!(
        trial.short(),
        ["mkdir new", "rename old/a new/a", "rename old/b new/b", "remove old"]
    );
}

// Protects renames that depend on each other, or on themselves.
#[test]
fn swaps_chains_and_case_are_renames_in_order() {
    let base = || Trial::default().agreed("a", file(1)).agreed("b", file(2));
    let chain = base()
        .there("a", None)
        .there("b", Some(file(1)))
        .there("c", Some(file(2)));
    assert_eq!(chain.short(), ["rename b c", "rename a b"]);
    let chain = base()
        .here("a", None)
        .here_as("b", Some(unread(1)), 1)
        .here_as("c", Some(unread(2)), 2);
    assert_eq!(chain.short(), ["send-move b c", "send-move a b"]);
    let swap = base().there("a", Some(file(2))).there("b", Some(file(1)));
    assert_eq!(swap.short(), ["remove b", "rename a b", "fetch a kept b"]);
    let swap = base().here_as("a", Some(unread(2)), 2).here_as("b", Some(unread(1)), 1);
    assert_eq!(swap.short(), ["send-remove b", "send-move a b", "send a on 0"]);
    let case = Trial::default()
        .agreed("a", file(1))
        .there("a", None)
        .there("A", Some(file(1)));
    assert_eq!(case.short(), ["rename a A"]);
    // A file that is now in a directory of its own name.
    let inside = Trial::default()
        .agreed("x", file(1))
        .there("x", Some(directory()))
        .there("x/x", Some(file(1)));
    assert_eq!(inside.short(), ["remove x", "mkdir x", "fetch x/x kept x"]);
    // Onto something that was there.
    let onto = base().here("a", None).here_as("b", Some(unread(1)), 1);
    assert_eq!(onto.short(), ["send-remove b", "send-move a b"]);
}

// Protects both versions when one side renames what the other one edits or renames.
#[test]
fn a_rename_against_an_edit_or_a_rename_keeps_both() {
    let base = || {
        Trial::default()
            .agreed("a", file(1))
            .here("a", None)
            .here_as("b", Some(unread(1)), 1)
    };
    assert_eq!(base().there("a", Some(file(2))).short(), ["fetch a", "send b on 0"]);
    let both = base().there("a", None).there("c", Some(file(1)));
    assert_eq!(both.short(), ["forget a", "fetch c", "send b on 0"]);
}

// Protects from content that travels for a mode.
#[test]
fn modes_and_times_travel_alone() {
    let base = || Trial::default().agreed("a", file(1));
    let other = |mode| Some(moded(file(1), mode));
    assert_eq!(
        base().here_as("a", Some(moded(unread(1), 0o600)), 1).short(),
        ["send-meta a"]
    );
    assert_eq!(base().there("a", other(0o600)).short(), ["meta a"]);
    let both = base().here("a", other(0o600)).there("a", other(0o755));
    assert_eq!(
        (both.short(), both.plan().conflicts),
        (vec!["meta a".to_owned()], vec![])
    );
    // Content beats mode, whoever changed which.
    assert_eq!(
        base().here("a", other(0o600)).there("a", Some(file(2))).short(),
        ["fetch a"]
    );
    assert_eq!(
        base().here("a", Some(file(2))).there("a", other(0o600)).short(),
        ["send a on 101"]
    );
    // What a directory's mode forbids is done before.
    let sealed = moded(directory(), 0o555);
    let made = Trial::default().there("d", Some(sealed)).there("d/x", Some(file(1)));
    assert_eq!(made.short(), ["mkdir d", "fetch d/x", "meta d"]);
}

// Protects a first sync, a new epoch and a survey that did not see all: nothing is deleted.
#[test]
fn absence_that_cannot_be_believed_deletes_nothing() {
    let first = Trial::default().here("a", Some(file(1))).there("b", Some(file(2)));
    assert_eq!(first.short(), ["fetch b", "send a on 0"]);
    let trial = Trial::default()
        .agreed("a", file(1))
        .agreed("b", file(2))
        .agreed("c", file(3));
    let trial = trial
        .here("a", None)
        .there("a", Some(file(1)))
        .there("b", None)
        .there("c", Some(file(4)));
    let plan = trial.plan_as(Mode::TwoWaySafe, Standing::NewEpoch);
    let aside = "aside c c.sync-conflict-20261120-214731-laptop";
    assert_eq!(short(&plan), ["forget c", aside, "fetch a", "fetch c", "send b on 101"]);
    let trial = Trial::default()
        .agreed("a", file(1))
        .agreed("b", file(2))
        .here("a", None)
        .there("b", None);
    let plan = trial.plan_as(Mode::TwoWaySafe, Standing::Partial);
    let held: Vec<HeldReason> = plan.held.iter().map(|held| held.reason).collect();
    assert_eq!((plan.actions, held), (vec![], vec![HeldReason::Deletion; 2]));
}

// Protects from deleting most of a folder by mistake.
#[test]
fn the_brake_stops_before_anything_is_done() {
    let many = |count: u8, deleted: u8| {
        let mut trial = Trial::default().there("new", Some(file(200)));
        for number in 0..count {
            trial = trial.agreed(&format!("f{number}"), file(number));
        }
        for number in 0..deleted {
            trial = trial.there(&format!("f{number}"), None);
        }
        trial.plan()
    };
    assert_eq!(many(100, 50).stop, None);
    assert_eq!(many(25, 25).stop, None);
    let stopped = many(100, 51);
    let want = Stop {
        deletions: 51,
        entries: 100,
        side: Side::Local,
    };
    assert_eq!((stopped.stop, stopped.actions), (Some(want), vec![]));
}

// Protects the modes: who follows whom, and what never happens in each.
#[test]
fn each_mode_lets_pass_what_it_says() {
    let trial = || {
        let trial = Trial::default()
            .agreed("l", file(1))
            .agreed("r", file(2))
            .agreed("both", file(3));
        let trial = trial
            .here("l", Some(file(4)))
            .there("r", Some(file(5)))
            .there("new", Some(file(8)));
        trial.here("both", Some(file(6))).there("both", Some(file(7)))
    };
    let of = |mode| short(&trial().plan_as(mode, Standing::Whole));
    let aside = "aside both both.sync-conflict-20261120-214731-laptop";
    assert_eq!(of(Mode::OneWaySafe), ["send l on 1"]);
    let replica = ["send both on 104", "send l on 1", "send r on 101", "send-remove new"];
    assert_eq!(of(Mode::OneWayReplica), replica);
    assert_eq!(
        of(Mode::ReceiveOnly),
        ["forget both", aside, "fetch both", "fetch new", "fetch r"]
    );
    let resolved = ["fetch both", "fetch new", "fetch r", "send l on 1"];
    assert_eq!(of(Mode::TwoWayResolved), resolved);
    let held = trial().plan_as(Mode::OneWaySafe, Standing::Whole).held;
    assert_eq!(held.len(), 3, "{held:?}");
}

// Protects I11: nothing differs, nothing is done.
#[test]
fn equal_trees_need_nothing() {
    let trial = Trial::default().agreed("a", file(1));
    assert!(trial.plan().is_empty());
    let mut told_again = Trial::default().agreed("a", file(1));
    told_again.case("a").remote = Remote::Changed {
        state: Some(file(1)),
        revision: Revision(1),
    };
    assert!(told_again.plan().is_empty());
}
