//! Verdicts that fit together: what stays has directories above it, on the side where it stays.
//!
//! Changes verdicts, makes no actions. Invariant afterwards: where a side holds something once the
//! verdicts are carried out, all above it are directories on that side, or the path is held.
//!
//! 1. From the leaves up: a directory that one side deleted or replaced, while something in it stays,
//!    comes back; where a file has its name, the local one of the two is kept aside.
//! 2. From the root down: what is in a directory that goes aside goes along; what would arrive where
//!    there is no directory is held.

use super::sameness::is_directory;
use super::verdict::{Row, Verdict};
use super::{Base, HeldReason, Mode, Settings, Standing};
use crate::model::{RelPath, conflict_path};
use std::collections::{HashMap, HashSet};

/// Copies of one path and second that are tried.
const COPIES_MAX: u32 = 1000;

/// The rows with their index: a look-up by path.
pub(super) struct Rows<'a> {
    pub(super) rows: Vec<Row<'a>>,
    index: HashMap<&'a [u8], usize>,
}

impl<'a> Rows<'a> {
    pub(super) fn new(rows: Vec<Row<'a>>) -> Rows<'a> {
        let index = rows.iter().enumerate().map(|(at, row)| (row.path.as_bytes(), at));
        Rows {
            index: index.collect(),
            rows,
        }
    }

    /// The row of a path.
    pub(super) fn find(&self, path: &[u8]) -> Option<usize> {
        self.index.get(path).copied()
    }

    /// The row of the directory that `at` is in, if it is a case.
    pub(super) fn parent(&self, at: usize) -> Option<usize> {
        self.find(self.rows[at].path.split_last().0?)
    }
}

/// What is in a directory.
#[derive(Debug, Clone, Copy, Default)]
struct Inside {
    /// Something is in it here, now.
    found: bool,
    /// Something is in it on the server, now.
    told: bool,
    /// Something is in it here once the verdicts are carried out.
    local: bool,
    /// The same on the server.
    remote: bool,
    /// Something in it or below cannot be synced.
    blocked: bool,
}

/// Makes the verdicts fit together.
pub(super) fn settle(table: &mut Rows<'_>, base: &impl Base, settings: &Settings<'_>) {
    from_the_leaves(table, settings);
    from_the_root(table, base, settings);
}

fn from_the_leaves(table: &mut Rows<'_>, settings: &Settings<'_>) {
    let mut inside: Vec<Inside> = vec![Inside::default(); table.rows.len()];
    for at in (0..table.rows.len()).rev() {
        let row = &mut table.rows[at];
        let within = inside[at];
        let lacks_local = within.local && !is_directory(row.local_after());
        let lacks_remote = within.remote && !is_directory(row.remote_after());
        // It was seen at another time than what is in it.
        let torn_here = within.found && !is_directory(row.local()) && !row.blocked;
        if torn_here || within.told && !is_directory(row.remote) {
            row.verdict = Verdict::Hold(HeldReason::Unsettled);
        } else if lacks_local || lacks_remote {
            row.verdict = needed(row, within, settings);
        }
        let Some(parent) = table.parent(at) else {
            continue;
        };
        let row = &table.rows[at];
        let above = &mut inside[parent];
        above.found |= row.local.is_some() || row.blocked;
        above.told |= row.remote.is_some();
        above.local |= row.local_after().is_some() || row.blocked;
        above.remote |= row.remote_after().is_some();
        above.blocked |= row.blocked || within.blocked;
    }
}

/// The verdict of a directory that is needed by what stays in it.
fn needed(row: &Row<'_>, inside: Inside, settings: &Settings<'_>) -> Verdict {
    use Mode::{OneWayReplica, OneWaySafe, ReceiveOnly, TwoWayResolved, TwoWaySafe};
    let here = is_directory(row.local());
    let there = is_directory(row.remote);
    match (here, there, settings.mode) {
        (true, false, mode) if row.remote.is_none() => match mode {
            ReceiveOnly if row.forgets() => Verdict::Forget,
            ReceiveOnly => Verdict::Nothing,
            _ => Verdict::Push,
        },
        (true, false, OneWaySafe | OneWayReplica) => Verdict::Hold(HeldReason::Mode),
        (true, false, _) if settings.standing == Standing::Partial => Verdict::Hold(HeldReason::Deletion),
        (true, false, TwoWayResolved) if inside.blocked => Verdict::Hold(HeldReason::Blocked),
        (true, false, _) => Verdict::Clash,
        (false, true, _) if row.blocked => Verdict::Hold(HeldReason::Blocked),
        (false, true, OneWaySafe) => Verdict::Hold(HeldReason::Mode),
        (false, true, OneWayReplica) => Verdict::Hold(HeldReason::Deletion),
        (false, true, TwoWaySafe | TwoWayResolved | ReceiveOnly) if row.local.is_none() => Verdict::Pull,
        // What is in it there may only seem to stay.
        (false, true, _) if settings.standing == Standing::Partial => Verdict::Hold(HeldReason::Deletion),
        (false, true, TwoWaySafe | TwoWayResolved | ReceiveOnly) => Verdict::Clash,
        (true, true, _) | (false, false, _) => Verdict::Hold(HeldReason::Unsettled),
    }
}

/// What the directory of a path is, once the verdicts are carried out.
#[derive(Debug, Clone, Copy)]
struct Above {
    local: bool,
    remote: bool,
    /// It gives way to something that is no directory.
    leaves: bool,
    reason: HeldReason,
}

fn from_the_root(table: &mut Rows<'_>, base: &impl Base, settings: &Settings<'_>) {
    let mut agreed: HashMap<&[u8], bool> = HashMap::new();
    let mut copies: HashSet<RelPath> = HashSet::new();
    // Directories that give way, and those in them.
    let mut leaving = vec![false; table.rows.len()];
    for at in 0..table.rows.len() {
        let above = above(table, at, &leaving, base, &mut agreed);
        let row = &table.rows[at];
        let mut verdict = match row.verdict {
            _ if above.leaves => within_what_leaves(row, settings.mode),
            Verdict::Push if row.local.is_some() && !above.remote => Verdict::Hold(above.reason),
            Verdict::Pull | Verdict::Clash if row.remote.is_some() && !above.local => Verdict::Hold(above.reason),
            verdict => verdict,
        };
        // A file in the way of a directory that the server did not tell of anew is kept aside in any
        // mode: to remove it would take the record with it, the only word of that directory.
        let aside = settings.mode != Mode::TwoWayResolved || !row.remote_changed;
        if verdict == Verdict::Clash && aside {
            match free_copy(table, row.path, base, settings, &copies) {
                Some(copy) => {
                    copies.insert(copy.clone());
                    table.rows[at].copy = Some(copy);
                }
                None => verdict = Verdict::Hold(HeldReason::Unsettled),
            }
        }
        let row = &mut table.rows[at];
        row.verdict = verdict;
        let clashes = verdict == Verdict::Clash && !is_directory(row.remote);
        leaving[at] = is_directory(row.local()) && (above.leaves || clashes);
    }
}

fn above<'a>(
    table: &Rows<'a>,
    at: usize,
    leaving: &[bool],
    base: &impl Base,
    agreed: &mut HashMap<&'a [u8], bool>,
) -> Above {
    let Some(parent) = table.rows[at].path.split_last().0 else {
        return Above {
            local: true,
            remote: true,
            leaves: false,
            reason: HeldReason::Unsettled,
        };
    };
    if let Some(parent) = table.find(parent) {
        let row = &table.rows[parent];
        return Above {
            local: is_directory(row.local_after()),
            remote: is_directory(row.remote_after()),
            leaves: leaving[parent],
            reason: match row.verdict {
                Verdict::Hold(reason) => reason,
                _ => HeldReason::Unsettled,
            },
        };
    }
    let directory = *agreed.entry(parent).or_insert_with(|| {
        let parent = RelPath::parse(parent).expect("the parent of a legal path is one");
        is_directory(base.agreed(&parent).map(|agreed| agreed.state).as_ref())
    });
    Above {
        local: directory,
        remote: directory,
        leaves: false,
        reason: HeldReason::Unsettled,
    }
}

/// What becomes of a path whose directory gives way to something else on the server.
fn within_what_leaves(row: &Row<'_>, mode: Mode) -> Verdict {
    match row.verdict {
        _ if row.remote.is_some() => Verdict::Hold(HeldReason::Unsettled),
        // Deleted there and unchanged here: it goes into the versions first.
        Verdict::Pull => Verdict::Pull,
        _ if mode == Mode::TwoWayResolved && row.local.is_some() => Verdict::Pull,
        _ if row.local.is_some() || row.blocked => Verdict::Along,
        _ if row.forgets() => Verdict::Forget,
        _ => Verdict::Nothing,
    }
}

/// A name for the conflict copy of `path` that nothing has, on either side.
pub(super) fn free_copy(
    table: &Rows<'_>,
    path: &RelPath,
    base: &impl Base,
    settings: &Settings<'_>,
    taken: &HashSet<RelPath>,
) -> Option<RelPath> {
    let mut names = (1..=COPIES_MAX).map_while(|number| conflict_path(path, settings.stamp, settings.device, number));
    names.find(|copy| table.find(copy.as_bytes()).is_none() && !taken.contains(copy) && base.agreed(copy).is_none())
}
