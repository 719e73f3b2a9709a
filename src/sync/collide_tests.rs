//! Names that are one to a file system, on trees of a few paths.

use super::plan_tests::{Trial, directory, file, path, short, unread};
use super::*;

impl Trial {
    /// Nothing is spelled so here, and the file system takes it for this.
    fn taken(mut self, at: &str, by: &str) -> Trial {
        self.case(at).taken = Some(Taken::Here(path(by)));
        self
    }

    fn refused(mut self, at: &str) -> Trial {
        self.case(at).taken = Some(Taken::There);
        self
    }
}

fn collisions(plan: &Plan) -> Vec<String> {
    let told = plan.collisions.iter().map(|one| {
        let with = one.with.as_ref().map_or_else(|| "?".to_owned(), ToString::to_string);
        format!("{:?} {} {with}", one.side, one.path)
    });
    told.collect()
}

fn held(plan: &Plan) -> Vec<String> {
    let held = plan.held.iter().filter(|held| held.reason == HeldReason::Collides);
    held.map(|held| held.path.to_string()).collect()
}

// Row 8: the first keeps its place, the second stays on the server, whole; nobody is told that it was deleted.
#[test]
fn of_two_that_are_to_come_the_first_comes() {
    let trial = Trial::default()
        .there("Docs", Some(directory()))
        .there("Docs/x", Some(file(1)))
        .there("docs", Some(directory()))
        .there("docs/deep", Some(directory()))
        .there("docs/deep/y", Some(file(2)))
        .there("docs/x", Some(file(3)));
    let plan = trial.plan();
    assert_eq!(short(&plan), ["mkdir Docs", "fetch Docs/x"]);
    assert_eq!(collisions(&plan), ["Local docs Docs"]);
    assert_eq!(held(&plan), ["docs", "docs/deep", "docs/deep/y", "docs/x"]);
    let mut apart = trial;
    apart.folds_here = false;
    assert_eq!(apart.short().len(), 6, "where nothing is folded both come");
}

#[test]
fn what_is_here_and_there_keeps_its_place() {
    let trial = Trial::default()
        .agreed("Report.txt", file(1))
        .there("report.txt", Some(file(2)))
        .taken("report.txt", "Report.txt");
    let plan = trial.plan();
    assert_eq!(short(&plan), [] as [&str; 0]);
    assert_eq!(collisions(&plan), ["Local report.txt Report.txt"]);
    // An edit of the one that is here is an edit of that one.
    let trial = trial.here("Report.txt", Some(unread(3)));
    assert_eq!(trial.short(), ["send Report.txt on 1"]);
    // The other is deleted there: nothing is left to be told.
    let trial = trial.there("report.txt", None);
    assert!(trial.plan().collisions.is_empty() && trial.short() == ["send Report.txt on 1"]);
}

// A rename on the server that changes the case alone is one here; nothing travels, and nothing else is done first.
#[test]
fn a_file_that_the_server_respelled_is_respelled_here() {
    let trial = Trial::default()
        .agreed("a", file(1))
        .agreed("b", file(2))
        .there("a", None)
        .there("A", Some(file(1)))
        .taken("A", "a")
        .there("b", None);
    assert_eq!(trial.short(), ["respell a A"]);
    assert_eq!(trial.plan().collisions, []);
}

// The one with the place is deleted, and the other one has another content: no rename, and no conflict.
#[test]
fn when_the_first_is_deleted_the_second_comes_a_round_later() {
    let trial = Trial::default()
        .agreed("a", file(1))
        .there("a", None)
        .there("A", Some(file(2)))
        .taken("A", "a");
    let plan = trial.plan();
    assert_eq!(short(&plan), ["remove a"]);
    assert!(plan.collisions.is_empty(), "{:?}", plan.collisions);
    // Edited here meanwhile: the edit goes back, and both are there.
    let trial = trial.here("a", Some(unread(3)));
    let plan = trial.plan();
    assert_eq!(short(&plan), ["send a on 100"]);
    assert_eq!(collisions(&plan), ["Local A a"]);
}

#[test]
fn what_is_new_here_takes_the_spelling_of_the_server() {
    let trial = Trial::default()
        .here("a", Some(unread(1)))
        .there("A", Some(file(2)))
        .taken("A", "a");
    assert_eq!(trial.short(), ["respell a A"]);
    let trial = trial.there("A", Some(directory()));
    assert_eq!(trial.short(), ["send a on 0"], "a file is no directory");
    assert_eq!(collisions(&trial.plan()), ["Local A a"]);
}

#[test]
fn a_directory_is_respelled_once_what_was_deleted_in_it_is_gone() {
    let trial = Trial::default()
        .agreed("docs", directory())
        .agreed("docs/x", file(1))
        .agreed("docs/y", file(2))
        .there("docs", None)
        .there("docs/x", None)
        .there("docs/y", None)
        .there("Docs", Some(directory()))
        .there("Docs/x", Some(file(1)))
        .taken("Docs", "docs");
    assert_eq!(trial.short(), ["remove docs/y"]);
    let mut after = trial;
    after.base.remove(&path("docs/y"));
    after.cases.remove(&path("docs/y"));
    assert_eq!(after.short(), ["respell docs Docs"]);
    assert!(after.plan().collisions.is_empty());
}

// A user who respells a directory: where the server folds, that is one rename.
#[test]
fn a_directory_that_was_respelled_here_is_respelled_there() {
    let mut trial = Trial::default()
        .agreed("docs", directory())
        .agreed("docs/x", file(1))
        .here("docs", None)
        .here("docs/x", None)
        .here_as("Docs", Some(directory()), 1)
        .here_as("Docs/x", Some(unread(1)), 2)
        .here("new", Some(unread(5)));
    assert_eq!(trial.short(), ["send-respell docs Docs"]);
    trial.folds_there = false;
    assert!(trial.short().contains(&"send-move docs/x Docs/x".to_owned()));
    // Another directory of that name is no rename.
    trial.folds_there = true;
    let other = trial.here_as("Docs", Some(directory()), 77);
    assert!(!other.short().contains(&"send-respell docs Docs".to_owned()));
}

// Row 8: what the server has no place for stays here; what it was before a rename is not deleted there.
#[test]
fn what_the_server_refused_is_held_with_what_it_came_from() {
    let trial = Trial::default()
        .agreed("old", file(1))
        .here("old", None)
        .here_as("report.txt", Some(unread(1)), 1)
        .refused("report.txt")
        .here("docs", Some(directory()))
        .refused("docs")
        .here("docs/x", Some(unread(4)))
        .here("other", Some(unread(3)));
    let plan = trial.plan();
    assert_eq!(short(&plan), ["send other on 0"]);
    assert_eq!(collisions(&plan), ["Remote docs ?", "Remote report.txt ?"]);
}

// A directory that the user deleted and made anew in another spelling, while the server got something new in it.
#[test]
fn a_directory_that_has_to_come_back_takes_the_place_of_its_other_spelling() {
    let trial = Trial::default()
        .agreed("d", directory())
        .here("d", None)
        .taken("d", "D")
        .here_as("D", Some(directory()), 77)
        .here_as("D/mine", Some(unread(2)), 78)
        .there("d/x", Some(file(1)));
    assert_eq!(trial.short(), ["respell D d"]);
    assert!(trial.plan().collisions.is_empty());
}

// The server deleted a directory and has another spelling of it now: the one here would come back for what is new in
// it, and has no place. That is told, and what was deleted in it goes.
#[test]
fn a_directory_that_has_to_go_back_and_is_refused_is_held() {
    let trial = Trial::default()
        .agreed("d", directory())
        .agreed("d/e", directory())
        .agreed("d/old", file(1))
        .there("d", None)
        .there("d/e", None)
        .there("d/old", None)
        .here("d/e/new", Some(unread(2)));
    assert_eq!(
        trial.short(),
        ["remove d/old", "send d on 100", "send d/e on 101", "send d/e/new on 0"]
    );
    let trial = trial.refused("d");
    let plan = trial.plan();
    assert_eq!(short(&plan), ["remove d/old"]);
    assert_eq!(
        (collisions(&plan), held(&plan)),
        (vec!["Remote d ?".to_owned()], vec!["d".to_owned(), "d/e".to_owned()])
    );
    // What is new in it goes: then so does the directory.
    let trial = trial.here("d/e/new", None);
    assert_eq!(trial.short(), ["remove d/e", "remove d/old", "remove d"]);
}

// What was moved into a directory that the server refuses stays in the old one there: so that one stays, too.
#[test]
fn the_directory_of_what_is_held_for_a_rename_is_not_removed() {
    let trial = Trial::default()
        .agreed("docs", directory())
        .agreed("docs/in", directory())
        .agreed("docs/in/x", file(1))
        .agreed("docs/y", file(2))
        .here("docs", None)
        .here("docs/in", None)
        .here("docs/in/x", None)
        .here("docs/y", None)
        .here_as("Docs", Some(directory()), 77)
        .refused("Docs")
        .here_as("Docs/x", Some(unread(1)), 3);
    let plan = trial.plan();
    assert_eq!(short(&plan), ["send-remove docs/y"]);
    assert_eq!(collisions(&plan), ["Remote Docs ?"]);
}

// Row 8: the share becomes what a replica is, but for what could never be in it.
#[test]
fn a_replica_that_folds_takes_nothing_away_that_had_no_place_in_it() {
    let trial = Trial::default()
        .agreed("Docs", directory())
        .here("Report.txt", Some(unread(1)))
        .there("Report.txt", Some(file(9)))
        .there("docs", Some(directory()))
        .taken("docs", "Docs")
        .there("docs/x", Some(file(2)))
        .there("other", Some(file(3)))
        .there("report.txt", Some(file(4)))
        .taken("report.txt", "Report.txt");
    let replica = |trial: &Trial| trial.plan_as(Mode::OneWayReplica, Standing::Whole);
    let plan = replica(&trial);
    assert_eq!(short(&plan), ["send Report.txt on 101", "send-remove other"]);
    assert_eq!(collisions(&plan), ["Local docs Docs", "Local report.txt Report.txt"]);
    assert_eq!(held(&plan), ["docs", "docs/x", "report.txt"]);
    // What the server has only in another spelling is what stands here.
    let trial = Trial::default()
        .here("Report.txt", Some(unread(1)))
        .there("report.txt", Some(file(4)))
        .taken("report.txt", "Report.txt");
    let plan = replica(&trial);
    assert_eq!(short(&plan), ["send Report.txt on 0", "send-remove report.txt"]);
    assert!(plan.collisions.is_empty());
}
