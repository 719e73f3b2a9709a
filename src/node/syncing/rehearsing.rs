//! A dry run: what a sync would do is told, and nothing is done.
//!
//! Invariant: neither side nor the base is changed, and a folder that was never synced, or was not even there, is
//! left as if nobody had looked. The latter also when a first run ends before the server told anything.

use super::acting::path_of;
use super::{Around, Stage, Syncing};
use crate::model::{Kind, Revision, State};
use crate::node::events::{Action as Told, ClientEvent};
use crate::reactor::Activity;
use crate::store::{Root, folder_link, forget_sync};
use crate::sync::{Action, Expected, Plan, Side};
use std::path::{Path, PathBuf};

/// What is taken away again when a dry run is over, or a first run that led to nothing. Comes after all that has files
/// open in it.
#[derive(Debug)]
pub(super) struct Traces {
    root: Root,
    /// It never was a synced folder.
    is_new: bool,
    /// It has become one.
    is_kept: bool,
    /// Directories that were not there, the outermost first.
    made: Vec<PathBuf>,
}

impl Traces {
    /// Of a folder that is going to be opened.
    pub(super) fn before(path: &Path) -> Vec<PathBuf> {
        let missing = path
            .ancestors()
            .take_while(|above| !above.as_os_str().is_empty() && !above.exists());
        let mut missing: Vec<PathBuf> = missing.map(Path::to_path_buf).collect();
        missing.reverse();
        missing
    }

    /// Of a folder that was opened and is not changed yet. One that was made for a link that leads nowhere is of no use
    /// to anybody.
    pub(super) fn of(root: &Root, made: Vec<PathBuf>, is_dry: bool) -> Option<Traces> {
        let is_passing = is_dry || !made.is_empty();
        is_passing.then(|| Traces {
            root: root.share(),
            is_new: matches!(folder_link(root), Ok(None)),
            is_kept: false,
            made,
        })
    }

    /// They are what a folder in sync has.
    pub(super) fn keep(&mut self) {
        self.is_kept = true;
    }
}

impl Drop for Traces {
    fn drop(&mut self) {
        if self.is_kept {
            return;
        }
        if self.is_new
            && let Err(error) = forget_sync(&self.root)
        {
            log::warn!("{error}");
        }
        // Only what is still empty goes.
        for directory in self.made.iter().rev() {
            let _ = std::fs::remove_dir(directory);
        }
    }
}

impl Syncing {
    /// Tells what the plan would do, and ends.
    pub(super) fn rehearse(&mut self, planned: Plan, around: &mut Around<'_>) -> Activity {
        for conflict in planned.conflicts {
            around.events.push(ClientEvent::Conflict {
                path: conflict.path,
                copy: conflict.copy,
            });
        }
        let told = planned.actions.iter().filter_map(|action| {
            let (side, told) = told_of(action)?;
            Some(ClientEvent::Planned {
                path: path_of(action).clone(),
                action: told,
                size: size_of(action),
                is_here: side == Side::Local,
            })
        });
        around.events.extend(told);
        for collision in planned.collisions {
            around.events.push(ClientEvent::Collision {
                path: collision.path,
                with: collision.with,
                is_here: collision.side == Side::Local,
            });
        }
        self.stage = Stage::Ended;
        Activity::More
    }
}

/// On which side an action has which effect; `None` when it only changes the base, or is told as a conflict.
fn told_of(action: &Action) -> Option<(Side, Told)> {
    let arrival = |expected: &Expected| match expected {
        Expected::Absent => Told::Created,
        _ => Told::Replaced,
    };
    match action {
        Action::Agree { .. } | Action::Forget { .. } | Action::KeepAside { .. } => None,
        Action::Rename { .. } | Action::Respell { .. } => Some((Side::Local, Told::Moved)),
        Action::MakeDirectory { .. } => Some((Side::Local, Told::Created)),
        Action::MakeLink { expected, .. } | Action::Fetch { expected, .. } => Some((Side::Local, arrival(expected))),
        Action::SetMeta { .. } => Some((Side::Local, Told::Touched)),
        Action::Remove { .. } => Some((Side::Local, Told::Deleted)),
        Action::Send { based_on, .. } if *based_on == Revision::NONE => Some((Side::Remote, Told::Created)),
        Action::Send { .. } => Some((Side::Remote, Told::Replaced)),
        Action::SendMeta { .. } => Some((Side::Remote, Told::Touched)),
        Action::SendMove { .. } | Action::SendRespell { .. } => Some((Side::Remote, Told::Moved)),
        Action::SendRemove { .. } => Some((Side::Remote, Told::Deleted)),
    }
}

/// Bytes of a file that would travel.
fn size_of(action: &Action) -> u64 {
    match action {
        Action::Fetch { state, .. } | Action::Send { state, .. } => match state {
            State {
                kind: Kind::File { size },
                ..
            } => *size,
            _ => 0,
        },
        _ => 0,
    }
}
