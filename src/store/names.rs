//! `Names`: the names of a directory, or of a chunk of one, which come back sorted by their bytes.
//!
//! Touches no file. Names are sorted in runs while they are read, and the runs are merged while they are
//! taken, so that no step costs more than one run. Invariant: the bytes of all names have a bound.

use rustix::fs::FileType;
use std::ops::Range;

/// Names in one allocation.
#[derive(Debug, Default)]
pub(super) struct Names {
    bytes: Vec<u8>,
    index: Vec<Name>,
    /// Names of `index` before this one are in sorted runs.
    sorted: usize,
    /// What is left of each run, by its first name: a heap, once they are merged.
    runs: Vec<Range<usize>>,
}

/// One of them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Name {
    start: u32,
    length: u16,
    pub(super) kind: FileType,
}

/// Bytes of the names of one directory that is sorted as a whole: a million names of 255 bytes fit.
const NAMES_BYTES_MAX: usize = 256 << 20;

impl Names {
    /// Adds a name, but not `.` and `..`. Returns whether there was room.
    pub(super) fn push(&mut self, name: &[u8], kind: FileType) -> bool {
        if name == b"." || name == b".." {
            return true;
        }
        if self.bytes.len() + name.len() > NAMES_BYTES_MAX {
            return false;
        }
        let start = u32::try_from(self.bytes.len()).expect("the bound is below 4 GiB");
        let length = u16::try_from(name.len()).expect("a name in a listing has at most 1,024 bytes");
        self.bytes.extend_from_slice(name);
        self.index.push(Name { start, length, kind });
        true
    }

    /// How many were added.
    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    /// How many were added since the last run.
    pub(super) fn unsorted(&self) -> usize {
        self.index.len() - self.sorted
    }

    /// Sorts what was added since the last run.
    pub(super) fn sort_run(&mut self) {
        if self.unsorted() == 0 {
            return;
        }
        let run = self.sorted..self.index.len();
        let bytes = &self.bytes;
        self.index[run.clone()].sort_unstable_by(|a, b| slice(bytes, *a).cmp(slice(bytes, *b)));
        self.sorted = run.end;
        self.runs.push(run);
    }

    /// Prepares for taking: the run with the first name comes first.
    pub(super) fn merge_runs(&mut self) {
        for at in (0..self.runs.len() / 2).rev() {
            self.sink(at);
        }
    }

    /// The next one in order, of the runs that were merged.
    pub(super) fn take_next(&mut self) -> Option<Name> {
        let run = self.runs.first_mut()?;
        let name = self.index[run.start];
        run.start += 1;
        if run.start == run.end {
            self.runs.swap_remove(0);
        }
        self.sink(0);
        Some(name)
    }

    /// Moves the run at `at` down to its place in the heap.
    fn sink(&mut self, mut at: usize) {
        loop {
            let children = [2 * at + 1, 2 * at + 2];
            let present = children.into_iter().filter(|child| *child < self.runs.len());
            let Some(least) = present.min_by(|a, b| self.first(*a).cmp(self.first(*b))) else {
                return;
            };
            if self.first(at) <= self.first(least) {
                return;
            }
            self.runs.swap(at, least);
            at = least;
        }
    }

    /// The first name of a run, none of which is empty.
    fn first(&self, run: usize) -> &[u8] {
        slice(&self.bytes, self.index[self.runs[run].start])
    }

    pub(super) fn bytes(&self, name: Name) -> &[u8] {
        slice(&self.bytes, name)
    }

    /// Those that were not taken will not be.
    pub(super) fn skip_rest(&mut self) {
        self.runs.clear();
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.index.clear();
        self.runs.clear();
        self.sorted = 0;
    }

    /// Bytes of memory.
    pub(super) fn held_bytes(&self) -> usize {
        self.bytes.capacity() + self.index.capacity() * size_of::<Name>()
    }
}

fn slice(bytes: &[u8], name: Name) -> &[u8] {
    let start = name.start as usize;
    &bytes[start..start + usize::from(name.length)]
}

const _: () = assert!(NAMES_BYTES_MAX < u32::MAX as usize);

#[cfg(test)]
mod tests {
    use super::*;

    /// The side-by-side walk takes a name that comes too late for one that is gone.
    #[test]
    fn names_come_in_order_however_many_runs_there_are() {
        for (count, run) in [(0, 1), (1, 1), (7, 3), (100, 1), (1_000, 130), (1_000, 1_000)] {
            let mut names = Names::default();
            let mut want = Vec::new();
            for number in 0..count {
                // 7919 is prime: every number once, in no order.
                let name = format!("{:x}", number * 7919 % 1_000_003).into_bytes();
                assert!(names.push(&name, FileType::RegularFile));
                want.push(name);
                if names.unsorted() == run {
                    names.sort_run();
                }
            }
            assert!(names.push(b"..", FileType::Directory));
            names.sort_run();
            names.merge_runs();
            let mut got = Vec::new();
            while let Some(name) = names.take_next() {
                got.push(names.bytes(name).to_vec());
            }
            want.sort();
            assert_eq!(got, want, "{count} names in runs of {run}");
        }
    }
}
