//! The content tree of a file while its bytes pass by: the root of BEP 52, from any cut of the bytes.
//!
//! Never keeps or copies content, never opens a file. Invariant: at any time the hasher holds the
//! roots of the complete subtrees so far, one per bit set in the number of leaves, and at most one
//! unfinished leaf.
//!
//! 1. The bytes are cut at leaf boundaries (16 KiB). Two leaves advance at once: the older ends
//!    first, its digest goes up the tree, the next leaf takes its lane. So also a slice that starts
//!    inside a leaf keeps both lanes busy, down to its last leaf.
//! 2. A finished leaf is a subtree of height 0. While the tree has a subtree of the same height to
//!    its left, the two become one, as a carry does in a binary counter.
//! 3. At the end, leaves that are missing up to the next power of two are 32 zero bytes each (not
//!    the hash of anything), and the pairs go up as usual.
//!
//! Awkward cases: the last leaf is short and not padded; a file of up to one leaf has the plain
//! SHA-256 of its bytes as root, so has the empty file; a hole advances by whole subtrees of zeros.

use std::sync::LazyLock;

use super::sha256::{Message, RUN_PIECES_MAX, RUN_PIECES_MIN, digest, has_runs, hash_run};
use crate::model::ContentId;
use crate::model::limits::LEAF_BYTES;

/// Hashes a file into its content tree (BEP 52, `pieces root`: SHA-256 over leaves of 16 KiB).
///
/// Memory: under 200 bytes, and 32 bytes per bit of the number of leaves. Callers keep a file within
/// [`FILE_BYTES_MAX`](crate::model::limits::FILE_BYTES_MAX) bytes.
#[derive(Debug, Clone)]
pub struct TreeHasher {
    /// Complete leaves.
    leaves: u64,
    /// Roots of the complete subtrees, the largest and leftmost first.
    subtrees: Vec<[u8; 32]>,
    /// The unfinished leaf, shorter than [`LEAF_BYTES`].
    leaf: Message,
}

impl TreeHasher {
    /// A hasher that has seen nothing yet.
    #[must_use]
    pub fn new() -> TreeHasher {
        TreeHasher {
            leaves: 0,
            subtrees: Vec::new(),
            leaf: Message::new(),
        }
    }

    /// Goes on behind `leaves` whole leaves, of which the `frontier` is known: as [`frontier`](Self::frontier)
    /// gave it. `None` when it does not have one root for each bit set in the number of leaves.
    #[must_use]
    pub fn behind(leaves: u64, frontier: &[[u8; 32]]) -> Option<TreeHasher> {
        (frontier.len() == leaves.count_ones() as usize).then(|| TreeHasher {
            leaves,
            subtrees: frontier.to_vec(),
            leaf: Message::new(),
        })
    }

    /// The roots of the complete subtrees so far, the largest and leftmost first: all that has to be kept
    /// to go on from here. An unfinished leaf is not in it.
    #[must_use]
    pub fn frontier(&self) -> &[[u8; 32]] {
        &self.subtrees
    }

    /// Complete leaves so far.
    #[must_use]
    pub fn leaves(&self) -> u64 {
        self.leaves
    }

    /// Bytes so far, holes included.
    #[must_use]
    pub fn length(&self) -> u64 {
        (self.leaves * LEAF).saturating_add(self.leaf.length())
    }

    /// Appends `bytes`. Slices of 64 KiB and more are the fastest; where they are cut is free.
    pub fn update(&mut self, bytes: &[u8]) {
        let missing = LEAF_BYTES - self.leaf.length() as usize;
        if bytes.len() < missing + RUN_PIECES_MIN * LEAF_BYTES {
            return self.update_in_pairs(bytes);
        }
        let (head, rest) = bytes.split_at(missing % LEAF_BYTES);
        self.update_in_pairs(head);
        for run in rest.chunks(RUN_PIECES_MAX * LEAF_BYTES) {
            let whole = &run[..run.len() - run.len() % LEAF_BYTES];
            let done = hash_run(whole, LEAF_BYTES);
            let taken = done.as_ref().map_or(0, |_| whole.len());
            done.into_iter().flatten().for_each(|leaf| self.push_subtree(0, leaf));
            self.update_in_pairs(&run[taken..]);
        }
    }

    /// Bytes from which [`update`](Self::update) is much faster with that many at once than with pieces of them;
    /// `None` where the processor has no use for more than two leaves.
    #[must_use]
    pub fn run_bytes() -> Option<usize> {
        has_runs().then_some(RUN_PIECES_MAX * LEAF_BYTES)
    }

    fn update_in_pairs(&mut self, bytes: &[u8]) {
        let bytes = self.leaf.fill_block(bytes);
        let missing = LEAF_BYTES - self.leaf.length() as usize;
        let (head, rest) = bytes.split_at(bytes.len().min(missing));
        let mut older = Lane {
            message: self.leaf,
            rest: head,
        };
        for leaf in rest.chunks(LEAF_BYTES) {
            let mut younger = Lane {
                message: Message::new(),
                rest: leaf,
            };
            Lane::run_both(&mut older, &mut younger);
            self.push_subtree(0, older.run().finish());
            older = younger;
        }
        self.leaf = older.run();
        if self.leaf.length() == LEAF {
            self.push_subtree(0, self.leaf.finish());
            self.leaf = Message::new();
        }
    }

    /// Appends `length` zero bytes, as [`update`](Self::update) with so many would do, in time that
    /// grows with the logarithm of `length`.
    pub fn update_zeros(&mut self, length: u64) {
        let missing = (LEAF - self.leaf.length()) % LEAF;
        let head = length.min(missing);
        self.update_few_zeros(head);
        let mut leaves = (length - head) / LEAF;
        while leaves > 0 {
            // The largest subtree that starts here and fits: at most twice 50 turns.
            let height = self.leaves.trailing_zeros().min(leaves.ilog2());
            self.push_subtree(height, ZERO_SUBTREES[height as usize]);
            leaves -= 1 << height;
        }
        self.update_few_zeros((length - head) % LEAF);
    }

    /// Appends `2^height` whole leaves whose subtree has this `root`, hashed elsewhere. What came
    /// before must end where such a subtree can start.
    ///
    /// # Panics
    /// Debug builds: within a leaf, or at a place where no subtree of that height starts.
    pub fn append_subtree(&mut self, height: u32, root: [u8; 32]) {
        debug_assert_eq!(self.leaf.length(), 0, "a subtree starts with a leaf");
        self.push_subtree(height, root);
    }

    /// The content id of all bytes.
    #[must_use]
    pub fn finish(mut self) -> ContentId {
        let length = self.length();
        if self.leaf.length() > 0 || length == 0 {
            self.push_subtree(0, self.leaf.finish());
        }
        let mut root = None;
        let mut padding = [0; 32];
        let height = self.leaves.next_power_of_two().ilog2();
        for level in 0..height {
            let right = root.as_ref().unwrap_or(&padding);
            if self.leaves >> level & 1 == 1 {
                root = Some(parent(&self.pop_subtree(), right));
            } else if let Some(left) = root {
                root = Some(parent(&left, &padding));
            }
            padding = parent(&padding, &padding);
        }
        let root = root.unwrap_or_else(|| self.pop_subtree());
        ContentId { length, root }
    }

    /// Less than one leaf of zeros.
    fn update_few_zeros(&mut self, length: u64) {
        let mut left = length as usize;
        while left > 0 {
            let now = left.min(ZEROS.len());
            self.update(&ZEROS[..now]);
            left -= now;
        }
    }

    /// Appends a complete subtree of `2^height` leaves.
    fn push_subtree(&mut self, height: u32, root: [u8; 32]) {
        debug_assert!(
            self.leaves.trailing_zeros() >= height,
            "a subtree starts at its own size"
        );
        let mut root = root;
        let mut count = self.leaves >> height;
        while count & 1 == 1 {
            root = parent(&self.pop_subtree(), &root);
            count >>= 1;
        }
        self.subtrees.push(root);
        self.leaves += 1 << height;
        debug_assert_eq!(self.subtrees.len(), self.leaves.count_ones() as usize);
    }

    fn pop_subtree(&mut self) -> [u8; 32] {
        self.subtrees
            .pop()
            .expect("one subtree per bit set in the number of leaves")
    }
}

impl Default for TreeHasher {
    fn default() -> Self {
        TreeHasher::new()
    }
}

/// The content id of `bytes`.
#[must_use]
pub fn content_id(bytes: &[u8]) -> ContentId {
    let mut hasher = TreeHasher::new();
    hasher.update(bytes);
    hasher.finish()
}

/// A leaf in progress, and what the slice at hand still has for it.
struct Lane<'a> {
    message: Message,
    rest: &'a [u8],
}

impl Lane<'_> {
    /// Advances two leaves at once, until the one with less has no whole block left.
    fn run_both(older: &mut Lane<'_>, younger: &mut Lane<'_>) {
        let taken = Message::update_pair(&mut older.message, older.rest, &mut younger.message, younger.rest);
        older.rest = &older.rest[taken..];
        younger.rest = &younger.rest[taken..];
    }

    /// Takes what is left, alone.
    fn run(mut self) -> Message {
        self.message.update(self.rest);
        self.message
    }
}

/// The root above two subtrees of the same height.
fn parent(left: &[u8; 32], right: &[u8; 32]) -> [u8; 32] {
    let mut both = [0; 64];
    both[..32].copy_from_slice(left);
    both[32..].copy_from_slice(right);
    digest(&both)
}

const LEAF: u64 = LEAF_BYTES as u64;

static ZEROS: [u8; 1024] = [0; 1024];

/// Roots of complete subtrees whose content is zero bytes, by height: enough for `u64::MAX` bytes.
static ZERO_SUBTREES: LazyLock<[[u8; 32]; 50]> = LazyLock::new(|| {
    let mut roots = [digest(&[0; LEAF_BYTES]); 50];
    for height in 1..roots.len() {
        roots[height] = parent(&roots[height - 1], &roots[height - 1]);
    }
    roots
});

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Straight from the text of BEP 52: all leaves in a list, padded to a power of two.
    fn reference(bytes: &[u8]) -> ContentId {
        let mut layer: Vec<[u8; 32]> = bytes.chunks(LEAF_BYTES).map(digest).collect();
        if layer.is_empty() {
            layer.push(digest(&[]));
        }
        layer.resize(layer.len().next_power_of_two(), [0; 32]);
        while layer.len() > 1 {
            layer = layer.chunks(2).map(|pair| digest(&pair.concat())).collect();
        }
        ContentId {
            length: bytes.len() as u64,
            root: layer[0],
        }
    }

    fn pattern(length: usize) -> Vec<u8> {
        let mut state = 42u64;
        let step = |_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        };
        (0..length).map(step).collect()
    }

    #[test]
    fn lengths_around_leaves_and_powers_of_two_match_the_reference() {
        let bytes = pattern(17 * LEAF_BYTES + 2);
        for leaves in [0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17] {
            for length in (leaves * LEAF_BYTES).saturating_sub(65)..leaves * LEAF_BYTES + 2 {
                if length % 16 < 2 || length % 16 == 15 {
                    assert_eq!(content_id(&bytes[..length]), reference(&bytes[..length]), "{length}");
                }
            }
        }
    }

    #[test]
    fn up_to_one_leaf_the_root_is_the_plain_digest() {
        for length in [0, 1, 63, 64, LEAF_BYTES - 1, LEAF_BYTES] {
            let bytes = pattern(length);
            assert_eq!(content_id(&bytes).root, digest(&bytes), "{length}");
        }
        assert_ne!(
            content_id(&pattern(LEAF_BYTES + 1)).root,
            digest(&pattern(LEAF_BYTES + 1))
        );
    }

    #[test]
    fn a_known_vector_of_seven_leaves() {
        // Computed with Python's hashlib from the text of BEP 52: seven leaves and one missing.
        let bytes: Vec<u8> = (0..=250).cycle().take(400 * 251).collect();
        let expected = "100400-0db876ca3fcf80ec8f09bbeb929f4192e75de6c88fc4ac537851e0373f5c3293";
        assert_eq!(content_id(&bytes).to_string(), expected);
    }

    #[test]
    fn a_petabyte_hole_costs_no_more_than_its_height() {
        // 2^50 zero bytes are 2^36 leaves, a complete tree: its root is the memoised subtree.
        let mut hole = TreeHasher::new();
        hole.update_zeros(1 << 50);
        assert_eq!(hole.clone().finish().root, ZERO_SUBTREES[36]);
        hole.update(b"end");
        assert_eq!(hole.length(), (1 << 50) + 3);
        let mut all = TreeHasher::new();
        all.update_zeros(u64::MAX);
        assert_eq!(all.finish().length, u64::MAX);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        // Protects the two lanes: however a file is cut, its id is that of the whole.
        #[test]
        fn cuts_do_not_change_the_id(cuts in prop::collection::vec(0usize..150_000, 0..8)) {
            let bytes = pattern(cuts.iter().sum());
            let mut hasher = TreeHasher::new();
            let mut rest = &bytes[..];
            for cut in cuts {
                let (head, tail) = rest.split_at(cut);
                hasher.update(head);
                rest = tail;
                prop_assert_eq!(hasher.length() as usize, bytes.len() - rest.len());
            }
            prop_assert_eq!(hasher.finish(), reference(&bytes));
        }

        // Protects the long runs, whole and short, from any start inside a leaf.
        #[test]
        fn long_slices_do_not_change_the_id(head in 0usize..40_000, slice in 150_000usize..700_000) {
            let bytes = pattern(head + slice + 1_000);
            let mut hasher = TreeHasher::new();
            hasher.update(&bytes[..head]);
            hasher.update(&bytes[head..head + slice]);
            hasher.update(&bytes[head + slice..]);
            prop_assert_eq!(hasher.finish(), reference(&bytes));
        }

        // Protects sparse files: a hole is the same content as zeros that were written.
        #[test]
        fn a_hole_equals_written_zeros(before in 0usize..70_000, hole in 0usize..400_000, after in 0usize..70_000) {
            let mut bytes = pattern(before);
            bytes.resize(before + hole, 0);
            bytes.extend(pattern(after));
            let mut hasher = TreeHasher::new();
            hasher.update(&bytes[..before]);
            hasher.update_zeros(hole as u64);
            hasher.update(&bytes[before + hole..]);
            prop_assert_eq!(hasher.finish(), reference(&bytes));
        }
    }
}
