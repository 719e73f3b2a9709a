//! What must hold after a transfer that was not cut, entry by entry.

use crate::disk::{Node, SourceTrouble, TargetTrouble};
use crate::source::{SourceSide, top_meta};
use crate::target::TargetSide;
use syncline::conn::Settlement;
use syncline::model::{Meta, RelPath};
use syncline::wire::{Finish, Verdict};

/// Compares what both ends saw and hold with what should have come of it.
pub(crate) fn verify(source: &SourceSide, target: &TargetSide, job: usize) {
    let flags = target.begin.flags;
    assert_eq!(
        target.verdicts.len(),
        source.after.tree.len(),
        "job {job}: every entry is judged once"
    );
    for (path, wanted) in &source.after.tree {
        let verdict = target.verdicts[path];
        let moves = verdict.is_want() && !flags.dry_run;
        let fails = moves && (source_fails(source, path) || target_fails(target, path));
        let reports = &source.reports[path];
        let expected = match verdict {
            Verdict::Failed(code) => vec![Settlement::Failed(code)],
            want if !want.is_want() => vec![Settlement::Answered(want)],
            want if flags.dry_run => vec![Settlement::Wanted(want)],
            want if !fails => vec![Settlement::Wanted(want), Settlement::Committed(want)],
            want => {
                let last = *reports.last().unwrap();
                assert!(
                    matches!(last, Settlement::Failed(_)),
                    "job {job}: {path} failed, not {last:?}"
                );
                vec![Settlement::Wanted(want), last]
            }
        };
        assert_eq!(*reports, expected, "job {job}: {path} is settled exactly once");
        let concluded = target.conclusions.get(path).copied().unwrap_or(0);
        assert_eq!(concluded, u32::from(moves), "job {job}: {path} ends exactly once");

        let (before, after) = (target.before.get(path), target.after.tree.get(path));
        let kept = fails || flags.dry_run || matches!(verdict, Verdict::Failed(_));
        if kept {
            assert!(same(before, after), "job {job}: {path} is untouched");
        } else {
            assert!(same(Some(wanted), after), "job {job}: {path} is as at the source");
        }
    }
    verify_rest(source, target, job);
}

/// What the source does not have, and how the transfer ended.
fn verify_rest(source: &SourceSide, target: &TargetSide, job: usize) {
    let surplus = |path: &&RelPath| !source.after.tree.contains_key(*path);
    let removes = !target.begin.flags.dry_run;
    for path in target.before.keys().filter(surplus) {
        let removed = target.removed.contains(path);
        let (before, after) = (target.before.get(path), target.after.tree.get(path));
        if removed && removes {
            assert!(after.is_none(), "job {job}: {path} is removed");
        } else {
            assert!(same(before, after), "job {job}: {path} stays");
        }
    }
    if !target.begin.flags.delete || !source.after.unlistable.is_empty() {
        assert!(
            target.removed.is_empty(),
            "job {job}: nothing is deleted unasked, or on half a list"
        );
    }
    if let Some(Finish::Done { deleted }) = target.finish {
        assert_eq!(deleted, target.removed.len() as u64);
    }
    assert_eq!(source.removed, target.removed);
    assert_eq!(source.finish, target.finish);
    assert_eq!(target.unlistable, source.after.unlistable.len());
    assert_eq!(target.top, Some(top_meta()));
}

fn source_fails(source: &SourceSide, path: &RelPath) -> bool {
    source.after.source_trouble(path).is_some_and(SourceTrouble::is_fatal)
}

fn target_fails(target: &TargetSide, path: &RelPath) -> bool {
    let trouble = target.after.target_trouble(path);
    trouble.is_some_and(|trouble| !matches!(trouble, TargetTrouble::Verdict(_)))
}

/// Whether two entries are the same, however their holes are laid out.
pub(crate) fn same(a: Option<&(Node, Meta)>, b: Option<&(Node, Meta)>) -> bool {
    match (a, b) {
        (Some((Node::File(a), own)), Some((Node::File(b), other))) => a.bytes == b.bytes && own == other,
        (a, b) => a == b,
    }
}
