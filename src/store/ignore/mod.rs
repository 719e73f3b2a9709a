//! Ignore rules: what of a tree takes no part, by the `.synclineignore` files in it and a list of litter that
//! systems and programs leave behind. The syntax, and what it means, is that of `.gitignore`.
//!
//! Never changes a file. Other paths than these files are not opened.

mod judge;
mod litter;
mod rules;

pub use judge::{Ignore, Verdict};
pub(super) use rules::rewritten as rewritten_rules;
pub use rules::{IgnoreProblem, Reason};
