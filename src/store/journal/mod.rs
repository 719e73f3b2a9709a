//! The journal of unfinished transfers: what was begun, how far it is verified, what has ended.
//!
//! Only about going on later. No commit depends on it: a journal that is lost costs bytes that travel
//! again, never a file. The bytes are in `docs/FORMAT.md`, "journal". Invariant: what it claims of a file
//! was verified before the claim was written, and what was written before this boot is marked as such.
//!
//! | file | owns |
//! |---|---|
//! | `subject` | the words: transfer, subject, how far |
//! | `record` | one record, and the header, as bytes |
//! | `replay` | all of a file: what is live, where it ends, whether it is damaged |
//! | `table` | what is live, and how it is found |
//! | `place`, `boot` | where a journal is and who holds it; which boot and mount |
//! | `log` | the open file: appending, room ahead, replacing it |
//! | `writer` | `Journal` |
//! | `examine`, `repair` | looking at one, and mending one |
//! | `rewriting` | what is read, written again: for tests of the decoders |

mod boot;
mod examine;
#[cfg(test)]
mod fixtures;
mod log;
mod place;
mod record;
mod repair;
mod replay;
pub(super) mod rewriting;
mod subject;
mod table;
mod writer;

pub use examine::{Examined, ExaminedTransfer, StagedBytes};
pub use place::JournalError;
pub use repair::Repaired;
pub use subject::{Incoming, PlanBasis, Reached, Subject, TransferId, Unfinished};
pub use writer::Journal;
