//! The cold compare: finding out what a basis is that only the other side knows, from few bytes.
//!
//! Never emits operations. It pieces the index of the basis together, in order and bounded in memory;
//! the matcher then works with it as with one that was kept. Why: so a plan is as good as that of a warm
//! basis, and the root proves what was pieced together before anything is sent. Bodies of questions and
//! answers are tables in `docs/PROTOCOL.md`. Invariant: an index is complete, leaf by leaf, or there is
//! none.
//!
//! The side that has the new file asks, with the index of the new file at hand:
//! 1. Tree: shortened hashes of some hundred subtrees, and a few anchors spread over the basis.
//! 2. Subtrees that the new file has in the same place, or at a shift that an anchor told, are known.
//! 3. Leaves: shortened hashes of those below the other subtrees, compared in the same way.
//! 4. Blocks: everything that an index holds of the leaves that are nowhere.
//!
//! Awkward cases: content that has moved in many ways, where the whole index is cheaper; nothing in
//! common, which the first answer shows. Shortened hashes are keyed with the seed of the new file's
//! index, so that a pair that collides once does not do so the next time.

mod answers;
mod bodies;
mod cold;
mod shifts;
mod units;

pub use answers::{BlocksAnswer, LeavesAnswer, TreeAnswer};
pub use bodies::{CompareError, RangesQuestion, TreeQuestion};
pub use cold::{ColdCompare, Compared};
