//! `Changes`: the new pages of a file that is to be changed in place, and which pages these are.
//!
//! 1. Pages stand at their own offsets in a sparse staged file.
//! 2. Behind them comes a map with a bit for each page, from the next page on after the end of the result. It is
//!    written when somebody is going to rely on it: the table is in docs/FORMAT.md, "staging/kept".
//! 3. Another process takes from the map what lies before the place that was noted. What is marked behind it
//!    was under way, and is written again.
//!
//! Knows nothing of the file itself. Invariant: what stands in a page counts only if the page is marked.

use super::error::{FileError, Operation};
use super::marks::Marks;
use super::staged::StagedFile;
use std::fs::File;
use std::os::unix::fs::FileExt;

/// New pages, each at its own offset.
#[derive(Debug)]
pub(super) struct Changes {
    staged: StagedFile,
    marks: Marks,
    /// Where the map begins.
    map_offset: u64,
    /// Words of the map that are written and will stay so.
    noted_words: u64,
}

/// The unit of changes: what a disk writes at least.
pub(super) const PAGE: u64 = 4096;

const WORD_BITS: u64 = u64::BITS as u64;
const WORD_BYTES: u64 = size_of::<u64>() as u64;

impl Changes {
    /// None yet, of a result of `length` bytes.
    pub(super) fn new(staged: StagedFile, length: u64) -> Changes {
        Changes {
            staged,
            marks: Marks::default(),
            map_offset: length.next_multiple_of(PAGE),
            noted_words: 0,
        }
    }

    /// Those of the first `done` bytes of a result of `length` bytes, which another process gathered and noted.
    /// A page that ends behind `done` is not among them.
    ///
    /// # Errors
    /// When their map is not there as far as that.
    pub(super) fn adopt(staged: StagedFile, length: u64, done: u64) -> Result<Changes, FileError> {
        let mut changes = Changes::new(staged, length);
        let pages = done.min(length) / PAGE;
        let words = pages.div_ceil(WORD_BITS);
        let mut bytes = vec![0; (words * WORD_BYTES) as usize];
        let read = changes.file().read_exact_at(&mut bytes, changes.map_offset);
        read.map_err(|error| FileError::new(Operation::Read, changes.staged.path(), error))?;
        let (words_of, _) = bytes.as_chunks();
        changes.marks = Marks::from_words(words_of.iter().map(|word| u64::from_le_bytes(*word)));
        changes.marks.clear(pages..words * WORD_BITS);
        changes.noted_words = pages / WORD_BITS;
        Ok(changes)
    }

    /// Writes `bytes` at `to`, and marks the pages that they touch. What they leave of a page that was not marked
    /// has to be written, too.
    pub(super) fn write_at(&mut self, to: u64, bytes: &[u8]) -> Result<(), FileError> {
        self.staged.write_at(to, bytes)?;
        self.marks.set(to / PAGE..(to + bytes.len() as u64).div_ceil(PAGE));
        Ok(())
    }

    /// Writes the map of the first `done` bytes, in which nothing changes any more.
    pub(super) fn note(&mut self, done: u64) -> Result<(), FileError> {
        let pages = done / PAGE;
        // Zeros as well: an attempt that was cut short may have left others there.
        let words = self.noted_words..pages.div_ceil(WORD_BITS);
        let map: Vec<u8> = words.flat_map(|at| self.marks.word(at).to_le_bytes()).collect();
        let offset = self.map_offset + self.noted_words * WORD_BYTES;
        self.staged.write_at(offset, &map)?;
        self.noted_words = pages / WORD_BITS;
        Ok(())
    }

    /// Which pages are changed.
    pub(super) fn marks(&self) -> &Marks {
        &self.marks
    }

    /// For reading pages that are marked.
    pub(super) fn file(&self) -> &File {
        self.staged.file()
    }

    /// They go when they are dropped, also from a kept file.
    pub(super) fn unkept(self) -> Changes {
        Changes {
            staged: self.staged.unkept(),
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::RelPath;
    use crate::store::{Room, Root, Staging, TransferId};

    const PAGES: u64 = 300;
    const LENGTH: u64 = PAGES * PAGE - 7;
    const ID: TransferId = TransferId(5);

    fn path() -> RelPath {
        RelPath::parse(b"f").unwrap()
    }

    fn marked(changes: &Changes) -> Vec<u64> {
        (0..PAGES + 64).filter(|page| changes.marks().contains(*page)).collect()
    }

    // What was noted is found again by another process, and only that: a page that was under way, or that an
    // earlier attempt marked behind the note, would be taken for a change that it is not.
    #[test]
    fn another_process_finds_what_was_noted_and_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let staging = Staging::new(&Root::open(dir.path()).unwrap());
        let mut changes = Changes::new(staging.create_kept(&path(), Room::Sparse, ID).unwrap(), LENGTH);
        let adopt = |pages: u64| {
            let staged = staging.adopt(&path(), ID).unwrap().unwrap();
            Changes::adopt(staged, LENGTH, pages * PAGE)
        };
        for page in [0, 3, 63, 64, 100, 131, 200, 299] {
            changes.write_at(page * PAGE, &[page as u8; 100]).unwrap();
        }
        assert!(adopt(1).is_err(), "nothing was noted");
        changes.note(64 * PAGE).unwrap();
        changes.note(132 * PAGE).unwrap();
        drop(changes);
        assert!(adopt(193).is_err(), "so much was not noted");
        assert_eq!(marked(&adopt(64).unwrap()), [0, 3, 63]);
        let mut again = adopt(101).unwrap();
        assert_eq!(marked(&again), [0, 3, 63, 64, 100]);
        // This time page 131 stays as it is, and 250 changes.
        again.write_at(250 * PAGE, &[9]).unwrap();
        again.note(PAGES * PAGE).unwrap();
        drop(again);
        let third = adopt(PAGES).unwrap();
        assert_eq!(marked(&third), [0, 3, 63, 64, 100, 250]);
        let mut byte = [0];
        third.file().read_exact_at(&mut byte, 100 * PAGE + 99).unwrap();
        assert_eq!(byte, [100]);
        drop(third.unkept());
        assert!(!staging.has_kept(ID));
    }
}
