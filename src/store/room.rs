//! Room on the disk for a file that is going to be written: taken in steps, just ahead of the writing.
//!
//! 1. A disk that has not enough free space for all of it shows at once.
//! 2. The first step is taken before anything is written, each next one when the writing reaches it.
//!
//! Never writes. Why in steps: on a file system in memory, taking a gigabyte takes 150 ms, for which the loop
//! would stand still. Invariant: what is written lies within what was reserved, where the system can reserve.

use rustix::fs::{FallocateFlags, fallocate, fstatvfs};
use rustix::io::Errno;
use std::fs::File;

/// What is reserved of a file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reservation {
    reserved: u64,
    total: u64,
    length: Length,
}

/// What becomes of the file's length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Length {
    /// It grows with what is reserved.
    Grows,
    /// It is that of what was written.
    Stays,
}

/// Bytes of a step: in memory 0.5 ms, and 3 where the pages are new to the machine (12 for 8 MiB).
const STEP_BYTES: u64 = 2 << 20;

impl Reservation {
    /// Takes the first step for the bytes of a file from `present` on, up to `total`; `None` where the system
    /// cannot reserve.
    pub(super) fn begin(file: &File, present: u64, total: u64, length: Length) -> Result<Option<Reservation>, Errno> {
        if total - present > STEP_BYTES {
            let free = fstatvfs(file)?;
            if free.f_bavail.saturating_mul(free.f_frsize) < total - present {
                return Err(Errno::NOSPC);
            }
        }
        let mut reservation = Reservation {
            reserved: present,
            total,
            length,
        };
        Ok(reservation.reach(file, present + 1)?.then_some(reservation))
    }

    /// Bytes that the file is long at least.
    pub(super) fn file_length(&self) -> u64 {
        match self.length {
            Length::Grows => self.reserved,
            Length::Stays => 0,
        }
    }

    /// Whether writing up to `end` needs another step.
    pub(super) fn ends_before(&self, end: u64) -> bool {
        self.reserved < end && self.reserved < self.total
    }

    /// Takes as many steps as are needed to write up to `end`; `false` where the system cannot.
    pub(super) fn reach(&mut self, file: &File, end: u64) -> Result<bool, Errno> {
        let flags = match self.length {
            Length::Grows => FallocateFlags::empty(),
            Length::Stays => FallocateFlags::KEEP_SIZE,
        };
        while self.ends_before(end) {
            let bytes = STEP_BYTES.min(self.total - self.reserved);
            match fallocate(file, flags, self.reserved, bytes) {
                Ok(()) => self.reserved += bytes,
                Err(Errno::INTR) => {}
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(false),
                Err(errno) => return Err(errno),
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    /// Bytes that the file takes on the disk, and its length.
    fn taken(file: &File) -> (u64, u64) {
        let found = file.metadata().unwrap();
        (found.blocks() * 512, found.len())
    }

    // The loop may not stand still for a large file, and what is written must have its room before.
    #[test]
    fn room_is_taken_step_by_step_ahead_of_the_writing() {
        for length in [Length::Grows, Length::Stays] {
            let file = tempfile::tempfile().unwrap();
            let total = 2 * STEP_BYTES + 5;
            let Some(mut reservation) = Reservation::begin(&file, 0, total, length).unwrap() else {
                return;
            };
            let (first, long) = taken(&file);
            assert!((STEP_BYTES..STEP_BYTES + (1 << 20)).contains(&first), "{first}");
            assert_eq!(long, reservation.file_length());
            assert_eq!(long == 0, length == Length::Stays);
            assert!(!reservation.ends_before(STEP_BYTES) && reservation.ends_before(STEP_BYTES + 1));
            assert!(reservation.reach(&file, 2 * STEP_BYTES + 1).unwrap());
            assert!(taken(&file).0 >= total);
            assert!(!reservation.ends_before(u64::MAX), "all of it is reserved");
        }
    }

    #[test]
    fn a_disk_without_so_much_space_shows_at_once() {
        let file = tempfile::tempfile().unwrap();
        let result = Reservation::begin(&file, 0, 1 << 60, Length::Stays);
        assert_eq!(result.unwrap_err(), Errno::NOSPC);
        assert_eq!(taken(&file), (0, 0));
    }
}
