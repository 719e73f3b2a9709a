//! Lists of paths as values of the base: pages of changes, as on the wire, with numbers behind each page.
//!
//! Knows nothing of what they mean. Invariant: what cannot be read is as good as nothing, and never an error.

use crate::model::{RelPath, Revision, State};
use crate::wire::{ChangesHead, ChangesReader, ChangesWriter, FRAME_HEADER_BYTES, Known};

/// An entry of a list, with `N` numbers.
#[derive(Debug)]
pub(super) struct Row<P, S, const N: usize> {
    pub(super) path: P,
    pub(super) state: Option<S>,
    /// One of two sorts.
    pub(super) is_odd: bool,
    pub(super) numbers: [u64; N],
}

const PAGE_ENTRIES: usize = 1024;

/// Entries are numbered in steps of two; the odd numbers are of one sort, the even ones of the other.
pub(super) fn encode<const N: usize>(mut list: Vec<Row<&RelPath, &State, N>>) -> Vec<u8> {
    list.sort_by_key(|row| row.path);
    let head = ChangesHead {
        known: Known {
            revision: Revision(u64::MAX),
            ..Known::default()
        },
        more: false,
        anew: false,
        folds: false,
    };
    let mut out = Vec::new();
    for page in list.chunks(PAGE_ENTRIES) {
        let mut writer = ChangesWriter::default();
        for (number, row) in (1..).zip(page) {
            writer.push(row.path, Revision(2 * number + u64::from(row.is_odd)), row.state);
        }
        writer.finish(&head, &mut out);
        out.extend(page.iter().flat_map(|row| row.numbers).flat_map(u64::to_le_bytes));
    }
    out
}

/// All entries up to the first that cannot be read.
pub(super) fn decode<const N: usize>(mut bytes: &[u8]) -> Vec<Row<RelPath, State, N>> {
    let mut list = Vec::new();
    while let Some((page, rest)) = page_of(bytes) {
        bytes = rest;
        let Ok(mut page) = ChangesReader::new(page) else { break };
        while let Ok(Some(change)) = page.next_change() {
            let mut numbers = [0; N];
            for number in &mut numbers {
                let Some((first, rest)) = bytes.split_first_chunk() else {
                    return list;
                };
                (*number, bytes) = (u64::from_le_bytes(*first), rest);
            }
            list.push(Row {
                path: change.path,
                state: change.state,
                is_odd: change.revision.0 % 2 == 1,
                numbers,
            });
        }
    }
    list
}

/// The payload of the first frame, and what is behind it.
fn page_of(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (header, rest) = bytes.split_at_checked(FRAME_HEADER_BYTES)?;
    let length = header[..4].try_into().map_or(0, u32::from_le_bytes);
    rest.split_at_checked(length as usize)
}
