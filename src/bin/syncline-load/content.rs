//! Owns what the files of the clients contain: all of it follows from the seed, and next to nothing is held.
//! It never opens a file and never sends.
//!
//! 1. One [`Pool`] of random leaves, with their hashes, is shared by all files of all clients.
//! 2. A file is leaves of the pool in a row, from a place of its own on; a stamp of 16 bytes at its front makes
//!    it different from all others. A new generation starts elsewhere in the pool.
//! 3. An edit overwrites some bytes at a place that follows from the file and the edit's number. Of leaves
//!    that are not as in the pool only the hash is kept.
//!
//! Invariant: a file's bytes are a function of seed, client, file, generation and number of edits; the root is
//! theirs, and costs a hash of 64 bytes for each leaf, not of the leaf.

use crate::seeds::{Dice, mix_both};
use std::ops::Range;
use std::rc::Rc;
use syncline::delta::{PlanEncoder, TreeHasher, content_id};
use syncline::model::SharedBytes;
use syncline::model::limits::LEAF_BYTES;

/// Leaves of the pool: 4 MiB, twice what the second-level cache holds at the most.
const POOL_LEAVES: usize = 256;
const POOL_BYTES: usize = POOL_LEAVES * LEAF_BYTES;
/// How far the next round through the pool is shifted, so that large files do not repeat every 4 MiB.
const ROUND_SHIFT: u64 = 37;
const STAMP_BYTES: u64 = 16;

/// The leaves that all files are made of.
pub(crate) struct Pool {
    seed: u64,
    bytes: Rc<Vec<u8>>,
    leaves: Vec<[u8; 32]>,
}

impl Pool {
    /// The pool of a seed.
    pub(crate) fn new(seed: u64) -> Pool {
        let mut dice = Dice::new(seed);
        let bytes: Vec<u8> = (0..POOL_BYTES / 8).flat_map(|_| dice.next().to_le_bytes()).collect();
        let leaves = bytes.chunks(LEAF_BYTES).map(|leaf| content_id(leaf).root).collect();
        Pool {
            seed,
            bytes: Rc::new(bytes),
            leaves,
        }
    }

    /// The pool's bytes, to be sent without a copy.
    pub(crate) fn shared(&self) -> SharedBytes {
        self.bytes.clone()
    }

    /// A part of the pool.
    pub(crate) fn slice(&self, range: Range<usize>) -> &[u8] {
        &self.bytes[range]
    }
}

/// A leaf that is not as in the pool.
#[derive(Clone)]
struct Changed {
    leaf: u64,
    hash: [u8; 32],
}

/// What one file contains.
#[derive(Clone)]
pub(crate) struct Content {
    key: u64,
    size: u64,
    edit_bytes: u64,
    generation: u32,
    edits: u32,
    /// In order of their leaves.
    changed: Vec<Changed>,
    root: [u8; 32],
    /// The root before the last edit; `None` when the file was never edited in this generation.
    before: Option<[u8; 32]>,
}

/// Where the next bytes of a file are.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// In the pool.
    Pool(Range<usize>),
    /// In a leaf of its own.
    Own(Vec<u8>),
}

impl Content {
    /// File number `file` of a client, in its first generation.
    pub(crate) fn new(pool: &Pool, client: u32, file: u32, size: u64, edit_bytes: u64) -> Content {
        let number = u64::from(client) << 32 | u64::from(file);
        let mut content = Content {
            key: mix_both(pool.seed, number),
            size,
            edit_bytes: edit_bytes.min(size).min(POOL_BYTES as u64),
            generation: 0,
            edits: 0,
            changed: Vec::new(),
            root: [0; 32],
            before: None,
        };
        content.begin(pool);
        content
    }

    /// Bytes.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// The root of the content tree.
    pub(crate) fn root(&self) -> [u8; 32] {
        self.root
    }

    /// The root before the last edit.
    pub(crate) fn root_before(&self) -> Option<[u8; 32]> {
        self.before
    }

    /// Generation and edits: what tells this content from earlier ones of the file.
    pub(crate) fn version(&self) -> (u32, u32) {
        (self.generation, self.edits)
    }

    /// All of it becomes different.
    pub(crate) fn replace(&mut self, pool: &Pool) {
        self.generation += 1;
        self.edits = 0;
        self.before = None;
        self.changed.clear();
        self.begin(pool);
    }

    /// Some bytes become different.
    pub(crate) fn edit(&mut self, pool: &Pool) {
        self.before = Some(self.root);
        self.edits += 1;
        if self.size == 0 {
            return;
        }
        let place = self.place(self.edits);
        let leaf = LEAF_BYTES as u64;
        for touched in place.start / leaf..place.end.div_ceil(leaf) {
            self.own_leaf(pool, touched);
        }
        self.root = self.hash(pool);
    }

    /// The version that the last edit was made of; the same when there was none.
    pub(crate) fn unedited(&self, pool: &Pool) -> Content {
        let mut content = self.clone();
        content.edits = content.edits.saturating_sub(1);
        content.before = None;
        for index in 0..content.changed.len() {
            let leaf = content.changed[index].leaf;
            content.own_leaf(pool, leaf);
        }
        content.root = content.hash(pool);
        content
    }

    /// The plan that makes the last edit.
    pub(crate) fn plan(&self, pool: &Pool) -> Vec<u8> {
        let place = self.place(self.edits);
        let mut plan = PlanEncoder::new();
        plan.copy(0, place.start);
        plan.edit(pool.slice(self.fresh(self.edits)));
        plan.copy(place.end, self.size - place.end);
        plan.finish();
        plan.take_output()
    }

    /// The bytes from `offset` on, at least one and at most `limit`, neither of which may be zero.
    pub(crate) fn part(&self, pool: &Pool, offset: u64, limit: u64) -> Part {
        debug_assert!(offset < self.size && limit > 0);
        let leaf = LEAF_BYTES as u64;
        let (first, within) = (offset / leaf, offset % leaf);
        if self.is_changed(first) {
            let mut bytes = self.leaf_bytes(pool, first);
            bytes.drain(..within as usize);
            bytes.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
            return Part::Own(bytes);
        }
        let start = self.leaf_at(first) * LEAF_BYTES + within as usize;
        let mut last = first + 1;
        while self.leaf_at(last) == self.leaf_at(last - 1) + 1
            && (last - first) * leaf < limit + within
            && last * leaf < self.size
            && !self.is_changed(last)
        {
            last += 1;
        }
        let length = (last * leaf).min(self.size).min(offset.saturating_add(limit)) - offset;
        Part::Pool(start..start + length as usize)
    }

    fn begin(&mut self, pool: &Pool) {
        self.own_leaf(pool, 0);
        if !self.size.is_multiple_of(LEAF_BYTES as u64) {
            self.own_leaf(pool, self.size / LEAF_BYTES as u64);
        }
        self.root = self.hash(pool);
    }

    fn is_changed(&self, leaf: u64) -> bool {
        self.changed.binary_search_by_key(&leaf, |changed| changed.leaf).is_ok()
    }

    /// Notes the hash of a leaf as it is now.
    fn own_leaf(&mut self, pool: &Pool, leaf: u64) {
        let hash = content_id(&self.leaf_bytes(pool, leaf)).root;
        match self.changed.binary_search_by_key(&leaf, |changed| changed.leaf) {
            Ok(index) => self.changed[index].hash = hash,
            Err(index) => self.changed.insert(index, Changed { leaf, hash }),
        }
    }

    fn hash(&self, pool: &Pool) -> [u8; 32] {
        let leaves = self.size.div_ceil(LEAF_BYTES as u64).max(1);
        let mut changed = self.changed.iter().peekable();
        let mut hasher = TreeHasher::new();
        for leaf in 0..leaves {
            let own = changed.next_if(|changed| changed.leaf == leaf);
            let hash = own.map_or_else(|| pool.leaves[self.leaf_at(leaf)], |changed| changed.hash);
            hasher.append_subtree(0, hash);
        }
        hasher.finish().root
    }

    /// Which leaf of the pool stands at a leaf of the file.
    fn leaf_at(&self, leaf: u64) -> usize {
        let start = mix_both(self.key, u64::from(self.generation)) % POOL_LEAVES as u64;
        let round = leaf / POOL_LEAVES as u64;
        ((start + leaf + round * ROUND_SHIFT) % POOL_LEAVES as u64) as usize
    }

    fn leaf_bytes(&self, pool: &Pool, leaf: u64) -> Vec<u8> {
        let begin = leaf * LEAF_BYTES as u64;
        let length = (self.size - begin).min(LEAF_BYTES as u64) as usize;
        let from = self.leaf_at(leaf) * LEAF_BYTES;
        let mut bytes = pool.slice(from..from + length).to_vec();
        if leaf == 0 {
            let stamp = [self.key.to_le_bytes(), u64::from(self.generation).to_le_bytes()].concat();
            let length = length.min(STAMP_BYTES as usize);
            bytes[..length].copy_from_slice(&stamp[..length]);
        }
        for edit in 1..=self.edits {
            let place = self.place(edit);
            let (start, end) = (place.start.max(begin), place.end.min(begin + length as u64));
            if start < end {
                let from = self.fresh(edit).start + (start - place.start) as usize;
                let new = pool.slice(from..from + (end - start) as usize);
                bytes[(start - begin) as usize..(end - begin) as usize].copy_from_slice(new);
            }
        }
        bytes
    }

    /// Where an edit is in the file.
    fn place(&self, edit: u32) -> Range<u64> {
        let start = mix_both(self.edit_key(edit), 1) % (self.size - self.edit_bytes + 1);
        start..start + self.edit_bytes
    }

    /// Where its bytes are in the pool.
    fn fresh(&self, edit: u32) -> Range<usize> {
        let start = mix_both(self.edit_key(edit), 2) % (POOL_BYTES as u64 - self.edit_bytes + 1);
        start as usize..(start + self.edit_bytes) as usize
    }

    fn edit_key(&self, edit: u32) -> u64 {
        mix_both(self.key, u64::from(self.generation) << 32 | u64::from(edit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use syncline::delta::{Instruction, PlanDecoder};

    /// All bytes, in parts of at most `limit`.
    fn bytes_of(content: &Content, pool: &Pool, limit: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        while (bytes.len() as u64) < content.size() {
            match content.part(pool, bytes.len() as u64, limit) {
                Part::Pool(range) => {
                    assert!(!range.is_empty() && range.len() as u64 <= limit);
                    bytes.extend_from_slice(pool.slice(range));
                }
                Part::Own(own) => {
                    assert!(!own.is_empty() && own.len() as u64 <= limit);
                    bytes.extend_from_slice(&own);
                }
            }
        }
        bytes
    }

    // Protects all that is sent: roots are those of the bytes, plans make the new version of the old one, and
    // whoever checks afterwards gets the same bytes.
    #[test]
    fn roots_and_plans_are_those_of_the_bytes() {
        let seed = 7;
        println!("seed {seed}");
        let pool = Pool::new(seed);
        for size in [0, 1, 15, 100, 16_384, 16_385, 65_536, 1_000_000, 9 << 20] {
            let mut content = Content::new(&pool, 3, 1, size, 100);
            for step in 0..12 {
                let before = bytes_of(&content, &pool, 1 << 19);
                assert_eq!(before.len() as u64, size);
                assert_eq!(content_id(&before).root, content.root(), "{size} bytes");
                assert_eq!(bytes_of(&content, &pool, 7_001), before, "however it is cut");
                if step == 6 {
                    content.replace(&pool);
                    assert!(size == 0 || bytes_of(&content, &pool, 1 << 19) != before);
                    assert_eq!(content.root_before(), None);
                    continue;
                }
                content.edit(&pool);
                assert_eq!(content.root_before(), Some(content_id(&before).root));
                assert_eq!(bytes_of(&content.unedited(&pool), &pool, 1 << 19), before);
                assert_eq!(content.unedited(&pool).root(), content_id(&before).root);
                let plan = content.plan(&pool);
                assert!(plan.len() < 150, "{} bytes of plan", plan.len());
                let after = follow(&plan, &before, size);
                assert_eq!(after, bytes_of(&content, &pool, 1 << 19));
            }
        }
    }

    fn follow(plan: &[u8], basis: &[u8], length: u64) -> Vec<u8> {
        let mut decoder = PlanDecoder::new(basis.len() as u64, length);
        decoder.push(plan);
        let mut made = Vec::new();
        while let Some(instruction) = decoder.next().unwrap() {
            match instruction {
                Instruction::Copy { from, length } => {
                    made.extend_from_slice(&basis[from as usize..(from + length) as usize]);
                }
                Instruction::Literal(bytes) => made.extend_from_slice(bytes),
            }
        }
        decoder.finish().unwrap();
        made
    }

    // Protects the check at the end of a run: a file in another's place is noticed, and a run can be repeated.
    #[test]
    fn no_two_files_are_alike_and_the_same_seed_makes_the_same() {
        let pool = Pool::new(1);
        let mut roots = std::collections::HashSet::new();
        for client in 0..300 {
            for file in 0..3 {
                assert!(roots.insert(Content::new(&pool, client, file, 40_000, 64).root()));
            }
        }
        let root = |seed| Content::new(&Pool::new(seed), 5, 6, 40_000, 64).root();
        assert_eq!(root(1), Content::new(&pool, 5, 6, 40_000, 64).root());
        assert_ne!(root(1), root(2));
    }

    // Protects the generator's memory: thousands of clients that only sit there hold next to nothing.
    #[test]
    fn a_file_is_small_in_memory() {
        assert!(size_of::<Content>() <= 160, "{}", size_of::<Content>());
    }
}
