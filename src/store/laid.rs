//! `Laid`: a part of a file as it will be, its changes laid over its old content, for another thread.
//!
//! Made by `inplace`; changes nothing, and keeps the two files that it reads open whatever becomes of
//! their names. Invariant: a read gives every byte that was asked for, or fails.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

/// A part of a file that is going to be changed in place.
#[derive(Debug)]
pub struct Laid {
    old: File,
    old_length: u64,
    changes: File,
    /// Where the changes stand, ascending.
    changed: Vec<Range<u64>>,
}

impl Laid {
    pub(super) fn new(old: File, old_length: u64, changes: File, changed: Vec<Range<u64>>) -> Laid {
        Laid {
            old,
            old_length,
            changes,
            changed,
        }
    }

    /// Fills `buffer` with the bytes at `offset`, which must lie within the part. Behind the end of the
    /// old content are zeros.
    ///
    /// # Errors
    /// When the disk does not give them, or the old content has become shorter.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let end = offset + buffer.len() as u64;
        let mut at = offset;
        let later = self.changed.partition_point(|run| run.end <= offset);
        for run in &self.changed[later..] {
            let (start, stop) = (run.start.clamp(at, end), run.end.min(end));
            if start >= end {
                break;
            }
            self.read_old(at, &mut buffer[(at - offset) as usize..(start - offset) as usize])?;
            let part = &mut buffer[(start - offset) as usize..(stop - offset) as usize];
            self.changes.read_exact_at(part, start)?;
            at = stop;
        }
        self.read_old(at, &mut buffer[(at - offset) as usize..])
    }

    fn read_old(&self, at: u64, bytes: &mut [u8]) -> io::Result<()> {
        let present = (bytes.len() as u64).min(self.old_length.saturating_sub(at)) as usize;
        let (old, added) = bytes.split_at_mut(present);
        added.fill(0);
        self.old.read_exact_at(old, at)
    }
}
