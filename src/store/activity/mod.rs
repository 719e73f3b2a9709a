//! The activity log of a folder: what happened in it, one JSON object a line, in `.syncline/`.
//!
//! | file | owns |
//! |---|---|
//! | `line` | what a line says, and its bytes |
//! | `writer` | appending, and that it stays bounded |
//! | `reader` | reading what is there, beside whoever writes |
//! | `query` | which lines somebody wants to see |
//!
//! Nothing depends on it: it is never flushed, and may be removed at any time. Its form is in `docs/FORMAT.md`.

mod line;
mod query;
mod reader;
mod writer;

pub use line::{ActivityLine, Change, Happened, RunFigures, RunKind, Side, Who};
pub use query::{ActivityPath, ActivityQuery};
pub use reader::{ActivityEntry, ActivityReader};
pub use writer::ActivityWriter;

/// The file that is appended to.
const NAME: &str = "activity.jsonl";
/// The one before.
const OLD: &str = "activity.old.jsonl";
