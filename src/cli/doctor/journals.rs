//! The part of `doctor` about journals of unfinished transfers: looks at them, and mends damaged ones.
//! Mends only with `--repair`, and never what is in use or whole.

use super::super::journal::{Whose, trouble};
use super::super::quantity;
use super::super::report::plain;
use super::Finding;
use std::path::Path;
use syncline::store::{Examined, FileError, Home, Journal, JournalError, Repaired, Root};

/// Whether a damaged journal is mended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mending {
    Look,
    Repair,
}

const CHECK: &str = "journal";

/// The journal of a folder; nothing when there is nothing to say.
pub(super) fn of_folder(folder: &Path, mending: Mending) -> Option<Finding> {
    let whose = Whose::Folder(folder);
    let root = match Root::open(folder) {
        Ok(root) => root,
        Err(error) => return unreadable(&error, mending),
    };
    match mending {
        Mending::Look => looked(&whose, Journal::examine(&root)),
        Mending::Repair => Some(repaired(&whose, Journal::repair(&root))),
    }
}

/// The journal of the state directory.
pub(super) fn of_home(home: &Home, mending: Mending) -> Option<Finding> {
    match mending {
        Mending::Look => looked(&Whose::Device, Journal::examine_home(home)),
        Mending::Repair => Some(repaired(&Whose::Device, Journal::repair_home(home))),
    }
}

/// Another check tells of a folder that cannot be opened, unless something was asked for.
fn unreadable(error: &FileError, mending: Mending) -> Option<Finding> {
    let finding = || {
        Finding::fail(
            CHECK,
            plain(&error.to_string()),
            "check the name and the permissions above it",
        )
    };
    (mending == Mending::Repair).then(finding)
}

fn looked(whose: &Whose<'_>, examined: Result<Examined, JournalError>) -> Option<Finding> {
    match examined {
        Ok(examined) if examined.transfers.is_empty() => None,
        Ok(examined) => {
            let count = quantity::counted(examined.transfers.len() as u64, "unfinished transfer");
            Some(Finding::ok(
                CHECK,
                format!("that of {} is whole: {count}", whose.name()),
            ))
        }
        Err(error) => Some(in_trouble(whose, &error)),
    }
}

fn repaired(whose: &Whose<'_>, repaired: Result<Repaired, JournalError>) -> Finding {
    match repaired {
        Ok(Repaired::Empty) => Finding::ok(CHECK, format!("nothing to repair in {}: it has none", whose.name())),
        Ok(Repaired::Whole { transfers }) => Finding::ok(
            CHECK,
            format!(
                "nothing to repair in {}: it is whole, with {}",
                whose.name(),
                quantity::counted(transfers, "unfinished transfer")
            ),
        ),
        Ok(Repaired::Mended {
            transfers,
            records,
            lost_bytes,
            kept_as,
        }) => Finding::warn(
            CHECK,
            format!(
                "that of {} was mended: {} kept with {}, {} lost",
                whose.name(),
                quantity::counted(records, "record"),
                quantity::counted(transfers, "unfinished transfer"),
                quantity::counted(lost_bytes, "byte"),
            ),
            format!("the damaged one stays beside it as {kept_as}; remove that when you no longer need it"),
        ),
        Err(error) => in_trouble(whose, &error),
    }
}

fn in_trouble(whose: &Whose<'_>, error: &JournalError) -> Finding {
    let (what, advice) = trouble(whose, error);
    Finding::fail(CHECK, what, advice)
}
