//! What becomes a line of a folder's activity log: runs, entries, failures, visitors.
//!
//! | file | owns |
//! |---|---|
//! | `deeds` | what a transfer did, as its books have it |
//! | `book` | the log of one folder: what is worth a line, and how many |
//! | `serving` | runs and visitors of a server |
//! | `finding` | the log of a path, for commands |
//!
//! What a folder in sync does is told by `syncing/telling.rs`, what is changed on a share's own disk by
//! `sequencer/witness.rs`. Never decides anything for anybody. Invariant: a run that changes nothing, and a failure
//! that was told within a day, leave no line.

mod book;
mod deeds;
mod finding;
mod serving;

#[cfg(feature = "sync")]
pub(crate) use book::now_ms;
pub(crate) use book::{Activity, Running};
pub(crate) use deeds::{Deed, Done, Thing};
pub use finding::ActivityLog;
pub(crate) use serving::Refusals;
