//! What became of entries, as the books of a sender have it.

use super::activity::Thing;
use super::events::Action;
use super::ledger::Ledger;
use crate::conn::{Report, Settlement};
use crate::model::ItemCode;
use crate::wire::Verdict;

/// Enters what became of an entry into the books.
pub(super) fn settle(report: Report, dry_run: bool, ledger: &mut Ledger) {
    let Report {
        file,
        origin,
        size,
        is_file,
        settlement,
    } = report;
    match settlement {
        Settlement::Wanted(verdict) => {
            ledger.wanted(size);
            if dry_run {
                ledger.transferred(file, &origin.path, action_of(verdict), size);
            }
        }
        Settlement::Committed(verdict) => {
            ledger.transferred(file, &origin.path, action_of(verdict), size);
        }
        Settlement::Answered(verdict) => {
            if is_file {
                ledger.unchanged(size);
            }
            if verdict != Verdict::Have {
                let thing = if is_file { Thing::File } else { Thing::Other };
                ledger.entry(&origin.path, action_of(verdict), thing, size);
            }
        }
        // What is there now comes with the next answer.
        Settlement::Failed(ItemCode::Stale) => {}
        Settlement::Failed(code) if is_file => ledger.file_failed(file, &origin.path, code),
        Settlement::Failed(code) => ledger.failed(origin.path.as_bytes(), code),
    }
}

/// What a verdict means for the user.
pub(crate) fn action_of(verdict: Verdict) -> Action {
    match verdict {
        Verdict::WantNew | Verdict::Created => Action::Created,
        Verdict::WantReplace | Verdict::Replaced => Action::Replaced,
        Verdict::Touched | Verdict::Have | Verdict::Failed(_) => Action::Touched,
    }
}
