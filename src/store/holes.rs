//! Holes: what takes no room of zeros that are written to a sparse file.
//!
//! A page that is all zeros can be a hole; a part of one cannot. Never decides whether a file is to have holes.
//! Invariant: whether or not the file system can make them, the bytes read back are the same.

use super::changes::PAGE;
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// What a part of a file is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// Pages that hold something.
    Data,
    /// Pages of zeros.
    Zeros,
}

/// The parts of `bytes`, which stand at `offset`, with their offsets: each as long as it can be, cut at the borders
/// of pages.
pub(super) fn parts(offset: u64, bytes: &[u8]) -> impl Iterator<Item = (u64, Form, &[u8])> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let rest = &bytes[done..];
        let form = form_of(first_page(offset + done as u64, rest)?);
        let at = done;
        while let Some(page) = first_page(offset + done as u64, &bytes[done..])
            && form_of(page) == form
        {
            done += page.len();
        }
        Some((offset + at as u64, form, &bytes[at..done]))
    })
}

/// Writes those parts of `bytes` that are of one form: zeros as a hole, where the file system can.
pub(super) fn write_parts(file: &File, offset: u64, bytes: &[u8], wanted: Form) -> io::Result<()> {
    for (at, _, part) in parts(offset, bytes).filter(|(_, form, _)| *form == wanted) {
        if wanted == Form::Data || punch(file, at, part.len() as u64).is_err() {
            file.write_all_at(part, at)?;
        }
    }
    Ok(())
}

/// Makes a hole of a range; its length does not count for that of the file.
///
/// # Errors
/// Among others that the file system knows no holes.
pub(super) fn punch(file: &File, offset: u64, length: u64) -> Result<(), Errno> {
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    loop {
        match fallocate(file, flags, offset, length) {
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}

fn first_page(offset: u64, bytes: &[u8]) -> Option<&[u8]> {
    let length = (PAGE - offset % PAGE).min(bytes.len() as u64) as usize;
    (length > 0).then(|| &bytes[..length])
}

fn form_of(page: &[u8]) -> Form {
    if page.iter().all(|byte| *byte == 0) {
        Form::Zeros
    } else {
        Form::Data
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // What is taken for zeros must be zeros, to the byte.
    #[test]
    fn parts_are_cut_at_pages_and_leave_nothing_out() {
        let page = PAGE as usize;
        let mut bytes = vec![0; 5 * page];
        bytes[2 * page] = 1;
        bytes[3 * page + 7] = 1;
        let told = |offset: u64, bytes: &[u8]| -> Vec<(u64, Form, usize)> {
            parts(offset, bytes)
                .map(|(at, form, part)| (at, form, part.len()))
                .collect()
        };
        let expected = [
            (0, Form::Zeros, 2 * page),
            (2 * PAGE, Form::Data, 2 * page),
            (4 * PAGE, Form::Zeros, page),
        ];
        assert_eq!(told(0, &bytes), expected);
        // One byte further on, the first one is at the end of the third page's place.
        let shifted = [
            (1, Form::Zeros, 2 * page - 1),
            (2 * PAGE, Form::Data, 2 * page),
            (4 * PAGE, Form::Zeros, page + 1),
        ];
        assert_eq!(told(1, &bytes), shifted);
        assert_eq!(
            told(PAGE - 3, &[0, 0, 0, 9]),
            [(PAGE - 3, Form::Zeros, 3), (PAGE, Form::Data, 1)]
        );
        assert_eq!(told(5, &[]), []);
    }
}
