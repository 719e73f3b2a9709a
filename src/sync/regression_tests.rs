//! What random worlds (`tests/sync_model.rs`) found, each as the smallest plan that shows it.

use super::plan_tests::{Trial, directory, file, moded, path, short, unread};
use super::{Action, Expected, HeldReason, Local, Mode, Pending, Remote, Standing};
use crate::model::Revision;

// A user who writes on while the answer to what was sent is lost has no conflict with himself.
#[test]
fn our_own_change_that_comes_back_after_a_cut_is_no_conflict() {
    let mut trial = Trial::default()
        .agreed("a", file(1))
        .here("a", Some(file(3)))
        .there("a", Some(file(2)));
    trial.case("a").pending = Some(Pending::Sent(file(2)));
    assert_eq!(trial.short(), ["send a on 101"]);
    trial.case("a").local = Local::Gone;
    assert_eq!(trial.short(), ["send-remove a"]);
    // Of others it is one.
    trial.case("a").local = Trial::default().here("a", Some(file(3))).case("a").local.clone();
    trial.case("a").pending = Some(Pending::Sent(file(9)));
    assert_eq!(trial.plan().conflicts.len(), 1);
}

// What was fetched without a record, and then deleted on the server, is not sent back (I5).
#[test]
fn what_was_taken_before_a_cut_is_not_resurrected() {
    let mut trial = Trial::default().here("a", Some(file(2))).there("a", None);
    assert_eq!(trial.short(), ["send a on 101"], "without a word of it, it is new");
    trial.case("a").pending = Some(Pending::Taken(file(2)));
    assert_eq!(trial.short(), ["remove a"]);
    // It must be read to know.
    let mut trial = Trial::default().here("a", Some(unread(2))).there("a", None);
    trial.case("a").pending = Some(Pending::Taken(file(2)));
    assert_eq!(trial.plan().hash, [path("a")]);
    // Something else stands there.
    let mut trial = Trial::default().here("a", Some(file(3))).there("a", None);
    trial.case("a").pending = Some(Pending::Taken(file(2)));
    assert_eq!(trial.short(), ["send a on 101"]);
}

// A directory that was made with more rights than it is to have, before a cut, does not give them to all.
#[test]
fn a_directory_that_was_made_writable_gets_its_mode_after_a_cut() {
    let sealed = moded(directory(), 0o555);
    let mut trial = Trial::default().agreed("d", sealed.clone());
    trial = trial.here("d", Some(directory())).there("d/x", Some(file(1)));
    trial.case("d").pending = Some(Pending::Taken(sealed));
    assert_eq!(trial.short(), ["fetch d/x", "meta d"]);
}

// The same the other way round: a server that is killed before the end of a transfer has it as its owner needs it to
// be, which is nobody's wish.
#[test]
fn a_directory_that_was_sent_gets_its_mode_there_after_a_cut() {
    let sealed = moded(directory(), 0o555);
    let sent = || Trial::default().here("d", Some(sealed.clone()));
    let mut trial = sent().there("d", Some(moded(directory(), 0o755)));
    assert_eq!(
        trial.short(),
        ["meta d"],
        "without a word of it, the server's mode counts"
    );
    trial.case("d").pending = Some(Pending::Sent(sealed.clone()));
    assert_eq!(trial.short(), ["send-meta d"]);
    // Of others it is a wish.
    let mut trial = sent().there("d", Some(moded(directory(), 0o750)));
    trial.case("d").pending = Some(Pending::Sent(sealed));
    assert_eq!(trial.short(), ["meta d"]);
}

// The record of a directory outlives the file that stands aside: after a cut it is the only word of it.
#[test]
fn what_the_server_did_not_tell_anew_is_not_forgotten() {
    let base = || Trial::default().agreed("d", directory());
    let trial = base().here("d", Some(file(3))).there("d/new", Some(file(2)));
    let aside = "aside d d.sync-conflict-20261120-214731-laptop";
    assert_eq!(trial.short(), [aside, "mkdir d", "fetch d/new"]);
    // Not even in the mode that makes no copies: a removal would take the record along.
    let resolved = trial.plan_as(Mode::TwoWayResolved, Standing::Whole);
    assert_eq!(short(&resolved)[0], aside);
}

// An empty directory that gives way to a file leaves no conflict copy.
#[test]
fn an_empty_directory_is_no_conflict() {
    let trial = Trial::default().here("d", Some(directory())).there("d", Some(file(1)));
    assert_eq!(trial.short(), ["remove d", "fetch d"]);
    let full = trial.here("d/x", Some(file(2)));
    assert_eq!(full.plan().conflicts.len(), 1);
}

// A survey that saw a directory and what is in it at different times decides nothing about them.
#[test]
fn a_file_in_what_is_no_directory_waits_for_a_later_round() {
    let trial = Trial::default().there("d", Some(directory()));
    let trial = trial.here("d", Some(file(1))).here("d/x", Some(file(2)));
    let plan = trial.plan();
    assert_eq!(
        (short(&plan), plan.conflicts),
        (vec!["send d/x on 0".to_owned()], vec![])
    );
    assert_eq!(plan.held[0].reason, HeldReason::Unsettled);
}

// An incomplete survey did not see that what was in a directory is gone: its file waits.
#[test]
fn a_file_for_a_directory_waits_while_deletions_cannot_be_believed() {
    let trial = Trial::default().agreed("d", directory()).agreed("d/x", file(1));
    let trial = trial.here("d", Some(file(2))).here("d/x", None);
    let plan = trial.plan_as(Mode::TwoWaySafe, Standing::Partial);
    assert_eq!((plan.actions, plan.conflicts), (vec![], vec![]));
}

// A removal on the server knows what takes its place here, or it would never be carried out.
#[test]
fn a_replica_undoes_a_kind_that_changed_on_the_server() {
    let trial = Trial::default().agreed("c", file(1)).there("c", Some(directory()));
    let plan = trial.plan_as(Mode::OneWayReplica, Standing::Whole);
    assert_eq!(short(&plan), ["send-remove c", "send c on 0"]);
    let expected = plan.actions.iter().map(|action| match action {
        Action::SendRemove { expected, .. } | Action::Send { expected, .. } => *expected,
        other => panic!("{other:?}"),
    });
    assert!(expected.eq([Expected::Agreed; 2]));
}

// After a change of epoch a record may have a revision of the old one for a while: numbers of different
// epochs are not compared, or a deletion goes out that is based on somebody else's change (I4).
#[test]
fn what_is_told_counts_whatever_the_number_in_the_base() {
    let mut trial = Trial::default()
        .agreed("b", file(0))
        .agreed("a", file(2))
        .here("a", None);
    trial.case("a").remote = Remote::Changed {
        state: Some(file(9)),
        revision: Revision(1),
    };
    assert_eq!(trial.short(), ["fetch a"]);
}

// A tombstone of what was taken without a record, and what an incomplete survey did not see, is kept in mind:
// otherwise the next survey would find something new (I5).
#[test]
fn a_tombstone_waits_for_a_whole_survey_of_what_was_taken() {
    let mut trial = Trial::default().there("a", None);
    trial.case("a").pending = Some(Pending::Taken(file(2)));
    let plan = trial.plan_as(Mode::TwoWaySafe, Standing::Partial);
    assert_eq!((plan.actions, plan.held[0].reason), (vec![], HeldReason::Deletion));
    assert_eq!(trial.short(), ["forget a"]);
}
