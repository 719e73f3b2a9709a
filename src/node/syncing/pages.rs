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
    let mut rest = &list[..];
    while !rest.is_empty() {
        let (mut writer, mut count) = (ChangesWriter::default(), 0);
        while let Some(row) = rest.get(count).filter(|_| count < PAGE_ENTRIES && writer.has_room()) {
            count += 1;
            writer.push(row.path, Revision(2 * count as u64 + u64::from(row.is_odd)), row.state);
        }
        writer.finish(&head, &mut out);
        let (page, behind) = rest.split_at(count);
        out.extend(page.iter().flat_map(|row| row.numbers).flat_map(u64::to_le_bytes));
        rest = behind;
    }
    out
}

/// All entries up to the first that cannot be read.
pub(super) fn decode<const N: usize>(mut bytes: &[u8]) -> Vec<Row<RelPath, State, N>> {
    let mut list = Vec::new();
    while let Some((page, rest)) = page_of(bytes) {
        bytes = rest;
        let Ok(mut page) = ChangesReader::new(page) else { break };
        loop {
            let change = match page.next_change() {
                Ok(Some(change)) => change,
                Ok(None) => break,
                // Nobody knows how many numbers are behind this page: what follows could be anything.
                Err(_) => return list,
            };
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

/// A list, read and written again, for tests that give it any bytes. Panics when it is read as something else then.
#[doc(hidden)]
#[must_use]
pub fn rewritten_list<const N: usize>(bytes: &[u8]) -> Vec<u8> {
    let refer = |list: &[Row<RelPath, State, N>]| {
        let rows = list.iter().map(|row| Row {
            path: &row.path,
            state: row.state.as_ref(),
            is_odd: row.is_odd,
            numbers: row.numbers,
        });
        encode(rows.collect())
    };
    let list: Vec<Row<RelPath, State, N>> = decode(bytes);
    assert!(list.len() <= bytes.len());
    let written = refer(&list);
    let again = decode(&written);
    assert!(again.len() == list.len() && again.is_sorted_by_key(|row| &row.path));
    assert!(refer(&again) == written);
    written
}

/// The payload of the first frame, and what is behind it.
fn page_of(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (header, rest) = bytes.split_at_checked(FRAME_HEADER_BYTES)?;
    let length = header[..4].try_into().map_or(0, u32::from_le_bytes);
    rest.split_at_checked(length as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Kind, Meta, Timestamp};

    fn encoded<const N: usize>(count: usize, target_bytes: usize) -> Vec<u8> {
        let paths: Vec<RelPath> = (0..count)
            .map(|number| RelPath::parse(format!("a/{number:05}").as_bytes()).unwrap())
            .collect();
        let mtime = Timestamp { seconds: 3, nanos: 4 };
        let state = State {
            kind: Kind::Symlink {
                target: vec![b'x'; target_bytes].into(),
            },
            meta: Meta { mode: 0o600, mtime },
            root: None,
        };
        let row = |path| Row {
            path,
            state: Some(&state),
            is_odd: false,
            numbers: [7; N],
        };
        encode(paths.iter().map(row).collect())
    }

    // Protects from taking damage for an order: behind what cannot be read, numbers could pass for pages.
    #[test]
    fn behind_the_first_entry_that_cannot_be_read_nothing_is() {
        fn damaged<const N: usize>() {
            let mut bytes = encoded::<N>(3000, 1);
            assert_eq!(decode::<N>(&bytes).len(), 3000);
            let second = bytes.windows(7).position(|window| window == b"a/00000").unwrap() + 6;
            let entry = bytes[second..].iter().position(|&byte| byte == b'x').unwrap() + second + 1;
            bytes[entry] = 0xff;
            assert_eq!(decode::<N>(&bytes).len(), 1);
        }
        damaged::<0>();
        damaged::<1>();
        damaged::<2>();
    }

    // A page stays within what a frame may hold, whatever is in it.
    #[test]
    fn a_page_ends_where_a_frame_would_be_too_long() {
        let bytes = encoded::<1>(1200, 4000);
        assert_eq!(decode::<1>(&bytes).len(), 1200);
    }
}
