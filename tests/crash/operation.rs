//! What is done while something fails: an operation with the tree before it, the tree after it, and the
//! arguments. Never touches a disk. Invariant: the trees differ in content wherever they differ at all.

use crate::harness::edits::noise;
use crate::tree::Plan;

/// One row of the proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    Push,
    DeltaPush,
    Delete,
    Rename,
    InPlace,
    Pull,
    /// A start of the server after it was killed in the midst of a change in place.
    Recovery,
    /// A start of the server that writes the journal anew, after it was killed in the midst of a file and
    /// the last record was torn.
    Compaction,
}

/// The process that something happens to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Actor {
    Server,
    Client,
}

pub const OPERATIONS: [Operation; 8] = [
    Operation::Push,
    Operation::DeltaPush,
    Operation::Delete,
    Operation::Rename,
    Operation::InPlace,
    Operation::Pull,
    Operation::Recovery,
    Operation::Compaction,
];

/// When files of the first and of the second version were changed last.
const BEFORE: i64 = 1_600_000_000;
const AFTER: i64 = 1_700_000_000;

impl Operation {
    pub fn name(self) -> &'static str {
        match self {
            Operation::Push => "push",
            Operation::DeltaPush => "delta-push",
            Operation::Delete => "delete",
            Operation::Rename => "rename",
            Operation::InPlace => "in-place",
            Operation::Pull => "pull",
            Operation::Recovery => "recovery",
            Operation::Compaction => "compaction",
        }
    }

    pub fn parse(name: &str) -> Option<Operation> {
        OPERATIONS.into_iter().find(|operation| operation.name() == name)
    }

    /// Whether it is a start of the server, after a fault in the midst of something else.
    pub fn is_start(self) -> bool {
        matches!(self, Operation::Recovery | Operation::Compaction)
    }

    /// Who receives, and so has something to lose.
    pub fn receiver(self) -> Actor {
        match self {
            Operation::Pull => Actor::Client,
            _ => Actor::Server,
        }
    }

    /// What the receiver has, and what it is to get.
    pub fn versions(self) -> (Plan, Plan) {
        let both = Plan::default()
            .file("keep", b"in both versions".to_vec(), BEFORE)
            .file("above/keep", noise(3_000, 1), BEFORE)
            .link("outside", "../canary");
        match self {
            Operation::Push | Operation::Compaction => pushed(both),
            Operation::DeltaPush => changed(both),
            Operation::Delete => deleted(&both),
            Operation::Rename => renamed(both),
            Operation::InPlace | Operation::Recovery => changed_in_place(both),
            Operation::Pull => pulled(both),
        }
    }

    /// Flags besides what every run has.
    pub fn flags(self) -> &'static [&'static str] {
        match self {
            Operation::Push | Operation::DeltaPush | Operation::Compaction => &[],
            Operation::Delete => &["--delete", "--max-delete=unlimited", "--exclude=*.private"],
            Operation::Rename | Operation::Pull => &["--delete", "--max-delete=unlimited"],
            Operation::InPlace | Operation::Recovery => &["--inplace"],
        }
    }

    /// What only the receiver has, and what the filters keep from being deleted.
    pub fn protected(self) -> Plan {
        match self {
            Operation::Delete => Plan::default().file("above/mine.private", noise(5_000, 26), BEFORE),
            _ => Plan::default(),
        }
    }
}

fn pushed(both: Plan) -> (Plan, Plan) {
    let new = both
        .clone()
        .file("empty", Vec::new(), AFTER)
        .file("small", b"three".to_vec(), AFTER)
        .file("medium", noise(100_000, 2), AFTER)
        .file("large", noise(9 << 20, 3), AFTER)
        .file("above/a/b/deep", noise(40_000, 4), AFTER)
        .link("above/a/link", "b/deep");
    (both, new)
}

fn edited(mut content: Vec<u8>, at: &[usize]) -> Vec<u8> {
    for (number, &at) in (0u32..).zip(at) {
        content[at..at + 3_000].copy_from_slice(&noise(3_000, 1_000 + number));
    }
    content
}

/// A file that is sent against its shadow, and one that is sent against its index; in the latter some
/// content also moves.
fn changed(both: Plan) -> (Plan, Plan) {
    let (one, twenty) = (noise(1 << 20, 5), noise(20 << 20, 6));
    let mut moved = edited(twenty.clone(), &[70_000, 9 << 20]);
    moved.splice(12 << 20..12 << 20, noise(5_000, 7));
    let old = both
        .clone()
        .file("one", one.clone(), BEFORE)
        .file("twenty", twenty, BEFORE);
    let new = both
        .file("one", edited(one, &[10, 500_000]), AFTER)
        .file("twenty", moved, AFTER);
    (old, new)
}

/// Files and a directory go; one file changes meanwhile.
fn deleted(both: &Plan) -> (Plan, Plan) {
    let new = both
        .clone()
        .file("stays/changed", noise(30_000, 8), AFTER)
        .file("stays/same", noise(20_000, 9), BEFORE);
    let old = new
        .clone()
        .file("stays/changed", noise(30_000, 10), BEFORE)
        .file("stays/gone", noise(20_000, 11), BEFORE)
        .file("gone", noise(200_000, 12), BEFORE)
        .file("leaves/a", noise(10_000, 13), BEFORE)
        .file("leaves/b/c", noise(10_000, 14), BEFORE)
        .link("leaves/link", "a");
    (old, new)
}

fn renamed(both: Plan) -> (Plan, Plan) {
    let old = both
        .file("first", noise(20_000, 15), BEFORE)
        .file("second", noise(300_000, 16), BEFORE)
        .file("here/a", noise(10_000, 17), BEFORE)
        .file("here/b/c", noise(50_000, 18), BEFORE);
    let new = old
        .clone()
        .renamed("first", "the first")
        .renamed("second", "above/second")
        .renamed("here/a", "there/a")
        .renamed("here/b/c", "there/b/c");
    (old, new)
}

fn changed_in_place(both: Plan) -> (Plan, Plan) {
    let huge = noise(20 << 20, 19);
    let mut new = edited(huge.clone(), &[5, 9 << 20, (20 << 20) - 3_000]);
    new.extend(noise(10_000, 20));
    let old = both.clone().file("huge", huge, BEFORE);
    (old, both.file("huge", new, AFTER))
}

/// Something of each kind.
fn pulled(both: Plan) -> (Plan, Plan) {
    let one = noise(1 << 20, 21);
    let old = both
        .clone()
        .file("one", one.clone(), BEFORE)
        .file("gone", noise(20_000, 22), BEFORE);
    let new = both
        .file("one", edited(one, &[10, 500_000]), AFTER)
        .file("medium", noise(100_000, 23), AFTER)
        .file("large", noise(9 << 20, 24), AFTER)
        .file("deep/er/file", noise(5_000, 25), AFTER)
        .link("deep/link", "er");
    (old, new)
}
