//! The keys of the index's tables: a path in which each `/` is a 0x00.
//!
//! Touches no file. Invariant: keys order as a depth-first walk does that takes names by their bytes: a
//! directory comes before what is in it, and all of that before its next sibling. (A `/` would sort
//! behind `a.txt` what is in `a`; a NUL is below every byte of a name, and never in one.)

use crate::model::{PathError, RelPath};

/// Stands between the components.
const SEPARATOR: u8 = 0;
/// The lowest byte above it.
const BEHIND_SEPARATOR: u8 = 1;

/// The key of `path`.
pub(in crate::store) fn key_of(path: &RelPath) -> Vec<u8> {
    let mut key = Vec::new();
    key_into(path.as_bytes(), &mut key);
    key
}

/// As [`key_of`], into `key`, whose content goes.
pub(in crate::store) fn key_into(path: &[u8], key: &mut Vec<u8>) {
    key.clear();
    key.extend(path.iter().map(|&byte| if byte == b'/' { SEPARATOR } else { byte }));
}

/// The path of a key.
pub(in crate::store) fn path_of(key: &[u8]) -> Result<RelPath, PathError> {
    if key.contains(&b'/') {
        return Err(PathError::Empty);
    }
    let separate = |&byte: &u8| if byte == SEPARATOR { b'/' } else { byte };
    let path: Vec<u8> = key.iter().map(separate).collect();
    RelPath::parse(&path)
}

/// Whether `key` is `top` or something beneath it.
pub(in crate::store) fn is_in(key: &[u8], top: &[u8]) -> bool {
    let rest = key.strip_prefix(top);
    rest.is_some_and(|rest| rest.first().is_none_or(|&byte| byte == SEPARATOR))
}

/// The first key behind `top` and all that is beneath it.
pub(in crate::store) fn behind(top: &[u8]) -> Vec<u8> {
    [top, &[BEHIND_SEPARATOR]].concat()
}

/// The keys of the directories that `key` is in, outermost first.
pub(in crate::store) fn ancestors(key: &[u8]) -> impl Iterator<Item = &[u8]> {
    let ends = key.iter().enumerate().filter(|(_, byte)| **byte == SEPARATOR);
    ends.map(|(at, _)| &key[..at])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(path: &str) -> Vec<u8> {
        key_of(&RelPath::parse(path.as_bytes()).unwrap())
    }

    /// The side-by-side walk depends on this order.
    #[test]
    fn keys_order_as_a_walk_does() {
        let walk = [
            "a", "a/b", "a/b/c", "a/b.txt", "a/c", "a\x01", "a ", "a b/x", "a.txt", "b",
        ];
        let keys = walk.map(key);
        assert!(keys.is_sorted_by(|a, b| a < b), "{keys:?}");
        for (path, key) in walk.iter().zip(&keys) {
            assert_eq!(path_of(key).unwrap().as_bytes(), path.as_bytes());
        }
    }

    #[test]
    fn a_subtree_is_a_range() {
        let top = key("a");
        let inside = ["a", "a/b", "a/\x7f"];
        for path in inside {
            assert!(is_in(&key(path), &top) && key(path) < behind(&top), "{path}");
        }
        for path in ["a\x01", "ab", "a.txt", "b"] {
            assert!(!is_in(&key(path), &top) && key(path) >= behind(&top), "{path}");
        }
        let path = key("a/b/c");
        let above: Vec<&[u8]> = ancestors(&path).collect();
        assert_eq!(above, [&b"a"[..], b"a\0b"]);
    }

    #[test]
    fn what_is_no_key_is_no_path() {
        for bad in [&b""[..], b"a/b", b"a\0", b"\0a", b"a\0\0b", b"..", b".syncline\0x"] {
            assert!(path_of(bad).is_err(), "{}", bad.escape_ascii());
        }
    }
}
