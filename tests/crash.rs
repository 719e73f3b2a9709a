//! Rows 43, 44 and 47 to 49 of the threats: the real binary fails before or at its every system call.
//!
//! For push, delta push, delete, rename, a change in place, pull, the recovery itself and the journal: the server,
//! then the client, is killed before its k-th system call, started again and resumed; the same with
//! errors in place of kills; and with the power of the disk cut. After each, every invariant is checked.
//! `cargo test --test crash` plays a seeded selection of the points; `scripts/crash` all of them.

#![allow(clippy::unwrap_used, unreachable_pub)]

mod harness;

#[path = "binary/alone.rs"]
mod alone;
#[path = "crash/check.rs"]
mod check;
#[path = "crash/faults.rs"]
mod faults;
#[path = "crash/operation.rs"]
mod operation;
#[path = "crash/play.rs"]
mod play;
#[path = "crash/point.rs"]
mod point;
#[path = "crash/power.rs"]
mod power;
#[path = "crash/series.rs"]
mod series;
#[path = "crash/site.rs"]
mod site;
#[path = "crash/tracer.rs"]
mod tracer;
#[path = "crash/tree.rs"]
mod tree;

use harness::child;
use operation::{Actor, OPERATIONS, Operation};
use point::{Disk, Fault};
use series::Settings;

/// How many points of a series a selection has; few in the second run of all tests, without features.
const KILLS: usize = if cfg!(feature = "tls") { 10 } else { 2 };
const ERRORS: usize = if cfg!(feature = "tls") { 3 } else { 1 };
const CUTS: usize = ERRORS;

#[track_caller]
fn assert_held(violations: &[String]) {
    assert!(
        violations.is_empty(),
        "{} violations\n{}",
        violations.len(),
        violations.join("\n")
    );
}

fn killed(test: &str, operation: Operation) {
    if child::strace_works(test) {
        let series = [(Actor::Server, Fault::Kill), (Actor::Client, Fault::Kill)];
        let series = if operation.is_start() { &series[..1] } else { &series };
        assert_held(&series::run(&Settings::read(), operation, series, KILLS));
    }
}

fn failing(test: &str, series: &[(Actor, Fault)]) {
    if !child::strace_works(test) {
        return;
    }
    let settings = Settings::read();
    let mut violations = Vec::new();
    for operation in OPERATIONS.into_iter().filter(|operation| !operation.is_start()) {
        let is_meant = |(actor, fault): &&(Actor, Fault)| {
            // Only who receives fills a disk.
            !matches!(fault, Fault::Error("ENOSPC" | "EDQUOT")) || *actor == operation.receiver()
        };
        let series: Vec<_> = series.iter().filter(is_meant).copied().collect();
        violations.extend(series::run(&settings, operation, &series, ERRORS));
    }
    assert_held(&violations);
}

fn power_cut(test: &str, disk: Disk) {
    if child::is(test) {
        let settings = Settings::read();
        let series = |operation| series::run(&settings, operation, &series::power(operation, disk), CUTS);
        let operations = OPERATIONS.into_iter().filter(|operation| !operation.is_start());
        return assert_held(&operations.flat_map(series).collect::<Vec<_>>());
    }
    if child::strace_works(test) && power::works(test, disk) {
        let output = child::run(&["unshare", "-m"], test, test);
        println!("{}", child::text(&output));
        assert!(output.status.success());
    }
}

/// Row 43: a push of new files; killed at each call.
#[test]
fn row_43_push_killed_at_each_call() {
    killed("row_43_push_killed_at_each_call", Operation::Push);
}

/// Row 43: a push of changed files, as patches; killed at each call.
#[test]
fn row_43_delta_push_killed_at_each_call() {
    killed("row_43_delta_push_killed_at_each_call", Operation::DeltaPush);
}

/// Row 43: a push that deletes; killed at each call.
#[test]
fn row_43_delete_killed_at_each_call() {
    killed("row_43_delete_killed_at_each_call", Operation::Delete);
}

/// Row 43: a push of a tree in which files and a directory got other names; killed at each call.
#[test]
fn row_43_rename_killed_at_each_call() {
    killed("row_43_rename_killed_at_each_call", Operation::Rename);
}

/// Row 43: a push that changes a file where it lies; killed at each call.
#[test]
fn row_43_in_place_killed_at_each_call() {
    killed("row_43_in_place_killed_at_each_call", Operation::InPlace);
}

/// Row 43: a pull of new, changed and deleted files; killed at each call.
#[test]
fn row_43_pull_killed_at_each_call() {
    killed("row_43_pull_killed_at_each_call", Operation::Pull);
}

/// Row 43, I7: a start after a kill in the midst of a change in place, itself killed at each call.
#[test]
fn row_43_recovery_killed_at_each_call() {
    killed("row_43_recovery_killed_at_each_call", Operation::Recovery);
}

/// Row 43: a start that writes the journal anew, killed at each call.
#[test]
fn row_43_compaction_killed_at_each_call() {
    killed("row_43_compaction_killed_at_each_call", Operation::Compaction);
}

/// Row 47: each call that takes room finds none, or a quota that is used up.
#[test]
fn row_47_no_room_at_each_call() {
    let faults = ["ENOSPC", "EDQUOT"].map(Fault::Error);
    let series = faults.map(|fault| [(Actor::Server, fault), (Actor::Client, fault)]);
    failing("row_47_no_room_at_each_call", series.as_flattened());
}

/// Row 48: each call that reaches the disk fails; those of a flush, too.
#[test]
fn row_48_a_failing_disk_at_each_call() {
    let fault = Fault::Error("EIO");
    failing(
        "row_48_a_failing_disk_at_each_call",
        &[(Actor::Server, fault), (Actor::Client, fault)],
    );
}

/// Row 49: each call that a signal may interrupt is interrupted.
#[test]
fn row_49_an_interruption_at_each_call() {
    let fault = Fault::Error("EINTR");
    failing(
        "row_49_an_interruption_at_each_call",
        &[(Actor::Server, fault), (Actor::Client, fault)],
    );
}

/// Row 49: writes come back short, at many sizes of the file, and the rest is written after all.
#[test]
fn row_49_short_writes_at_many_sizes() {
    const NAME: &str = "row_49_short_writes_at_many_sizes";
    if !child::strace_works(NAME) {
        return;
    }
    let settings = Settings::read();
    let series = |(operation, actor)| series::run(&settings, operation, &[(actor, Fault::Short)], ERRORS);
    let played = [(Operation::Push, Actor::Server), (Operation::Pull, Actor::Client)].map(series);
    assert_held(&played.concat());
}

/// Row 44: the power of an XFS is cut at each call.
#[test]
fn row_44_power_cut_on_xfs_at_each_call() {
    power_cut("row_44_power_cut_on_xfs_at_each_call", Disk::Xfs);
}

/// Row 44: the power of an ext4 is cut at each call.
#[test]
fn row_44_power_cut_on_ext4_at_each_call() {
    power_cut("row_44_power_cut_on_ext4_at_each_call", Disk::Ext4);
}
