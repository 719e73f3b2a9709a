//! What becomes of one path by itself: the decision table.
//!
//! Looks at one case at a time, never at its neighbours. Invariant: a side whose content the other has
//! not seen is never told to give way without its content being kept.
//!
//! # The table, two-way
//! "as agreed" is equal in all that travels; base may be nothing. The first row that fits counts.
//!
//! | local | server | verdict |
//! |---|---|---|
//! | nothing | nothing | forget |
//! | equal to the server | | agree |
//! | any | as agreed | push (a deletion, too) |
//! | as agreed | any | pull (a deletion, too) |
//! | nothing | changed | pull: an edit beats a deletion. A directory of which only the mode changed: push |
//! | changed | nothing | push: the same. A directory of which only the mode changed: pull |
//! | a directory | something else | pull |
//! | same content, other mode or time | | pull; push if only the local ones changed |
//! | content may be the same | | hash |
//! | changed | only mode or time changed | push |
//! | only mode or time changed | changed | pull |
//! | changed | changed | clash |
//!
//! The other modes and standings are at their functions.

use super::sameness::{Content, content, equal, is_directory, same_meta};
use super::steps::OWNER_WORKS;
use super::{Agreed, Case, Cases, Expected, HeldReason, Local, Mode, Pending, Remote, Settings, Standing, Taken};
use crate::model::{Kind, RelPath, Revision, State};
use std::borrow::Cow;
use std::collections::HashMap;

/// What becomes of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing: each side stays as it is.
    Nothing,
    /// Both have the same: the base follows.
    Agree,
    /// Only the base has it, or only the base is to lose it.
    Forget,
    /// The folder becomes what the server has.
    Pull,
    /// The server becomes what the folder has.
    Push,
    /// The server's version keeps the name, the local one gives way.
    Clash,
    /// It goes aside within its directory.
    Along,
    /// The local content must be known first.
    Hash,
    /// Each side stays as it is, and the change is still open.
    Hold(HeldReason),
}

/// A case with its verdict.
#[derive(Debug)]
pub(super) struct Row<'a> {
    pub(super) path: &'a RelPath,
    base: Option<Cow<'a, State>>,
    /// The record in the base, as long as the folder's files can be told by it.
    pub(super) agreed: Option<&'a Agreed>,
    pub(super) local: Option<Cow<'a, State>>,
    /// The inode of a local state that is not the agreed one.
    pub(super) found_file: u64,
    pub(super) remote: Option<&'a State>,
    pub(super) remote_changed: bool,
    pub(super) revision: Revision,
    pub(super) expected: Expected,
    pub(super) blocked: bool,
    /// Another path that a file system takes this one for.
    pub(super) taken: Option<&'a Taken>,
    /// Whether something was under way at this path.
    pending: bool,
    /// Whether what is here was taken from the server can only be told by reading it.
    unread: bool,
    pub(super) verdict: Verdict,
    /// Of a clash: where the local version goes; `None` is into the versions.
    pub(super) copy: Option<RelPath>,
}

impl Row<'_> {
    /// The agreed state; what was under way, when that did happen.
    pub(super) fn base(&self) -> Option<&State> {
        self.base.as_deref()
    }

    pub(super) fn local(&self) -> Option<&State> {
        self.local.as_deref()
    }

    /// What the folder holds once the verdict is carried out.
    pub(super) fn local_after(&self) -> Option<&State> {
        match self.verdict {
            Verdict::Pull | Verdict::Clash => self.remote,
            Verdict::Along => None,
            _ => self.local(),
        }
    }

    /// What the server holds then.
    pub(super) fn remote_after(&self) -> Option<&State> {
        match self.verdict {
            Verdict::Push => self.local(),
            _ => self.remote,
        }
    }

    /// Whether the record in the base has to go.
    pub(super) fn forgets(&self) -> bool {
        self.base.is_some() || self.agreed.is_some() || self.pending
    }
}

/// All cases, each judged by itself, in the order of their paths.
pub(super) fn judge<'a>(cases: &'a Cases, settings: &Settings<'_>) -> Vec<Row<'a>> {
    let known = by_file(cases);
    let mut rows = Vec::with_capacity(cases.len());
    for (path, case) in cases {
        let mut row = Row {
            path,
            base: case.base.as_ref().map(|base| Cow::Borrowed(&base.state)),
            agreed: case.base.as_ref(),
            local: case.local_state().map(Cow::Borrowed),
            found_file: 0,
            remote: case.remote_state(),
            remote_changed: case.remote != Remote::Unchanged,
            revision: case.revision(),
            expected: case.expected(),
            blocked: case.local == Local::Blocked,
            taken: case.taken.as_ref(),
            pending: case.pending.is_some(),
            unread: false,
            verdict: Verdict::Nothing,
            copy: None,
        };
        if settings.standing == Standing::NewEpoch && !row.remote_changed {
            row.revision = Revision::NONE;
        }
        if let Local::Found(found) = &case.local {
            row.found_file = found.file;
            if let Some(root) = known_root(&found.state, known.get(&found.file).copied()) {
                row.local.as_mut().expect("what was found has a state").to_mut().root = root;
            }
        }
        adopt(&mut row, case);
        row.verdict = verdict(&row, settings, case.local == Local::Gone);
        rows.push(row);
    }
    rows
}

/// Takes what was under way, and did happen, for agreed.
fn adopt(row: &mut Row<'_>, case: &Case) {
    let moved_on = case.local != Local::Unchanged || case.base.is_none();
    let told = |taken| row.remote_changed || equal(Some(taken), row.remote);
    match (&case.pending, row.local()) {
        // Our own change comes back: whatever is here now, or is no more, followed it.
        (Some(Pending::Sent(sent)), _) if moved_on && row.remote_changed && equal(Some(sent), row.remote) => {
            row.base = row.remote.map(Cow::Borrowed);
        }
        // A directory that we sent, which did not get its mode yet.
        (Some(Pending::Sent(sent)), Some(_)) if row.remote.is_some_and(|remote| is_unfinished(sent, remote)) => {
            row.base = row.remote.map(Cow::Borrowed);
        }
        // It was taken; perhaps its mode and time were not yet set.
        (Some(Pending::Taken(taken)), Some(local)) if moved_on && told(taken) => match content(local, taken) {
            Content::Same => row.base = Some(Cow::Owned(local.clone())),
            Content::Unknown => row.unread = true,
            Content::Differs => {}
        },
        _ => {}
    }
}

/// Whether the server has the directory that was sent as it is while things are put into it.
fn is_unfinished(sent: &State, remote: &State) -> bool {
    let are_directories = is_directory(Some(sent)) && is_directory(Some(remote));
    are_directories && sent.meta.mode != remote.meta.mode && remote.meta.mode == sent.meta.mode | OWNER_WORKS
}

/// Records of files by their inode.
fn by_file(cases: &Cases) -> HashMap<u64, &Agreed> {
    let agreed = cases.values().filter_map(|case| case.base.as_ref());
    agreed
        .filter(|base| base.file != 0 && matches!(base.state.kind, Kind::File { .. }))
        .map(|base| (base.file, base))
        .collect()
}

/// The root of a file that has the inode, the size and the time of an agreed one: it was renamed, or
/// got another mode.
fn known_root(found: &State, agreed: Option<&Agreed>) -> Option<Option<[u8; 32]>> {
    let agreed = &agreed?.state;
    let as_agreed = found.kind == agreed.kind && found.meta.mtime == agreed.meta.mtime;
    (found.root.is_none() && as_agreed).then_some(agreed.root)
}

fn verdict(row: &Row<'_>, settings: &Settings<'_>, gone: bool) -> Verdict {
    let (local, remote) = (row.local(), row.remote);
    if row.blocked {
        return Verdict::Hold(HeldReason::Blocked);
    }
    let verdict = match (local, remote) {
        (None, None) if row.forgets() => Verdict::Forget,
        (None, None) => Verdict::Nothing,
        _ if equal(local, remote) => agree(row),
        _ if row.unread => Verdict::Hash,
        _ => match (settings.mode, settings.standing) {
            (Mode::OneWayReplica, _) => Verdict::Push,
            (mode, Standing::NewEpoch) => new_epoch(row, mode),
            (Mode::TwoWaySafe | Mode::TwoWayResolved, _) => two_way(row),
            (Mode::OneWaySafe, _) => one_way_safe(row),
            (Mode::ReceiveOnly, _) => receive_only(row),
        },
    };
    let deletes = match verdict {
        Verdict::Push => local.is_none(),
        // What the survey did not find may be there.
        Verdict::Pull => remote.is_none() || gone && settings.standing == Standing::Partial,
        Verdict::Forget => (gone || row.pending) && settings.standing == Standing::Partial,
        _ => false,
    };
    if deletes && settings.standing != Standing::Whole {
        return Verdict::Hold(HeldReason::Deletion);
    }
    verdict
}

/// Both sides are equal; the base follows when it says something else, and when the local file is
/// another one than the record tells.
fn agree(row: &Row<'_>) -> Verdict {
    let agreed = row.agreed.is_some_and(|agreed| {
        row.expected == Expected::Agreed && agreed.revision == row.revision && equal(row.remote, Some(&agreed.state))
    });
    if agreed { Verdict::Nothing } else { Verdict::Agree }
}

fn two_way(row: &Row<'_>) -> Verdict {
    if equal(row.remote, row.base()) {
        return Verdict::Push;
    }
    if equal(row.local(), row.base()) {
        return Verdict::Pull;
    }
    let was_directory = is_directory(row.base());
    match (row.local(), row.remote) {
        (None, remote) if was_directory && is_directory(remote) => Verdict::Push,
        (None, _) => Verdict::Pull,
        (local, None) if was_directory && is_directory(local) => Verdict::Pull,
        (_, None) => Verdict::Push,
        (Some(local), Some(remote)) => both_changed(local, remote, row.base()),
    }
}

/// Both sides have something, and both differ from the base.
fn both_changed(local: &State, remote: &State, base: Option<&State>) -> Verdict {
    match (content(local, remote), base) {
        (Content::Unknown, _) => Verdict::Hash,
        // A directory has no content of its own; what is in it decides, in `tree`.
        (Content::Differs, _) if local.kind == Kind::Directory => Verdict::Pull,
        (Content::Same, Some(base)) if same_meta(remote, base) => Verdict::Push,
        (Content::Same, _) => Verdict::Pull,
        (Content::Differs, Some(base)) if content(remote, base) == Content::Same => Verdict::Push,
        (Content::Differs, Some(base)) => match content(local, base) {
            Content::Same => Verdict::Pull,
            Content::Unknown => Verdict::Hash,
            Content::Differs => Verdict::Clash,
        },
        (Content::Differs, None) => Verdict::Clash,
    }
}

/// Nothing that the server changed is touched; what it deleted comes back when it was edited here.
fn one_way_safe(row: &Row<'_>) -> Verdict {
    if equal(row.remote, row.base()) {
        return Verdict::Push;
    }
    match (row.local(), row.remote) {
        (Some(local), None) if local.kind != Kind::Directory && !equal(Some(local), row.base()) => Verdict::Push,
        (Some(local), Some(remote)) if content(local, remote) == Content::Unknown => Verdict::Hash,
        _ => Verdict::Hold(HeldReason::Mode),
    }
}

/// Local changes stay; what the server changed as well clashes with them.
fn receive_only(row: &Row<'_>) -> Verdict {
    if equal(row.local(), row.base()) {
        return Verdict::Pull;
    }
    if equal(row.remote, row.base()) {
        return Verdict::Nothing;
    }
    match (row.local(), row.remote) {
        (None, _) => Verdict::Pull,
        (Some(_), None) => two_way_or_forget(row),
        (Some(local), Some(remote)) => match both_changed(local, remote, row.base()) {
            Verdict::Push => Verdict::Hold(HeldReason::Mode),
            other => other,
        },
    }
}

/// The server deleted what was changed here: it becomes a local affair.
fn two_way_or_forget(row: &Row<'_>) -> Verdict {
    match two_way(row) {
        Verdict::Push if row.forgets() => Verdict::Forget,
        Verdict::Push => Verdict::Nothing,
        other => other,
    }
}

/// Nothing is missing on purpose, and the server's content may be older than the agreed one: it comes
/// only where nothing gives way without a copy.
fn new_epoch(row: &Row<'_>, mode: Mode) -> Verdict {
    let two_way = match (row.local(), row.remote) {
        (None, _) => Verdict::Pull,
        (_, None) => Verdict::Push,
        (Some(local), Some(remote)) => match both_changed(local, remote, row.base()) {
            // The local content is the agreed one, the server's is another: which is newer, none can tell.
            Verdict::Pull if local.kind != Kind::Directory && content(local, remote) != Content::Same => Verdict::Clash,
            other => other,
        },
    };
    match (mode, two_way) {
        (Mode::OneWaySafe, Verdict::Pull) if row.local.is_none() && row.base().is_some() => {
            Verdict::Hold(HeldReason::Deletion)
        }
        (Mode::OneWaySafe, Verdict::Pull | Verdict::Clash) => Verdict::Hold(HeldReason::Mode),
        (Mode::OneWaySafe, Verdict::Push) if row.remote.is_some() && !equal(row.remote, row.base()) => {
            Verdict::Hold(HeldReason::Mode)
        }
        (Mode::ReceiveOnly, Verdict::Push) if row.remote.is_some() => Verdict::Hold(HeldReason::Mode),
        (Mode::ReceiveOnly, Verdict::Push) if row.forgets() => Verdict::Forget,
        (Mode::ReceiveOnly, Verdict::Push) => Verdict::Nothing,
        (_, verdict) => verdict,
    }
}
