//! `RelPath`: the only way in which a path from outside enters the program.
//!
//! Invariant: a `RelPath` is a non-empty sequence of non-empty components joined by single `/`,
//! no component is `.`, `..` or reserved, there is no NUL, and both length and depth are bounded.
//! A path is refused or accepted, never "cleaned".

use super::escape::Escaped;
use super::limits::{NAME_BYTES_MAX, PATH_BYTES_MAX, PATH_DEPTH_MAX};
use std::fmt;

/// A path below a share's root: bytes, `/`-separated, legal by construction.
///
/// Names need not be UTF-8. Use [`fmt::Display`] for people (it escapes), [`RelPath::as_bytes`] for
/// the disk and the wire.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RelPath(Box<[u8]>);

/// Why bytes are not a legal path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// No bytes at all, or an empty component (`a//b`, a leading or trailing slash).
    #[error("an empty path or path component")]
    Empty,
    /// A `.` or `..` component.
    #[error("a path component \".\" or \"..\"")]
    Dots,
    /// A NUL byte.
    #[error("a NUL byte in a path")]
    Nul,
    /// A component that Syncline keeps for itself (`.syncline`, in any case).
    #[error("the reserved name .syncline in a path")]
    Reserved,
    /// More than [`PATH_BYTES_MAX`] bytes, or a component above [`NAME_BYTES_MAX`].
    #[error("a path or name that is too long")]
    TooLong,
    /// More than [`PATH_DEPTH_MAX`] components.
    #[error("a path that is nested too deeply")]
    TooDeep,
}

impl RelPath {
    /// The name of the directory that Syncline keeps its own data in; never synced, never reachable.
    pub const RESERVED: &'static str = ".syncline";

    /// Checks `bytes` and takes them as a path.
    ///
    /// # Errors
    /// A [`PathError`] naming the first rule that the bytes break.
    pub fn parse(bytes: &[u8]) -> Result<RelPath, PathError> {
        if bytes.is_empty() {
            return Err(PathError::Empty);
        }
        if bytes.len() > PATH_BYTES_MAX {
            return Err(PathError::TooLong);
        }
        if bytes.contains(&0) {
            return Err(PathError::Nul);
        }
        let mut depth = 0;
        for component in bytes.split(|&byte| byte == b'/') {
            check_component(component)?;
            depth += 1;
        }
        if depth > PATH_DEPTH_MAX {
            return Err(PathError::TooDeep);
        }
        Ok(RelPath(bytes.into()))
    }

    /// The bytes as they stand on disk.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The last component.
    #[must_use]
    pub fn name(&self) -> &[u8] {
        self.split_last().1
    }

    /// Everything before the last component; `None` when the path has one component only.
    #[must_use]
    pub fn parent(&self) -> Option<RelPath> {
        self.split_last().0.map(|bytes| RelPath(bytes.into()))
    }

    /// The bytes before the last `/`, if any, and the last component.
    #[must_use]
    pub fn split_last(&self) -> (Option<&[u8]>, &[u8]) {
        match self.0.iter().rposition(|&byte| byte == b'/') {
            Some(at) => (Some(&self.0[..at]), &self.0[at + 1..]),
            None => (None, &self.0),
        }
    }

    /// The components, first to last.
    pub fn components(&self) -> impl Iterator<Item = &[u8]> {
        self.0.split(|&byte| byte == b'/')
    }

    /// This path with one more component.
    ///
    /// # Errors
    /// A [`PathError`] when `name` is not a legal component or the whole grows past a limit.
    pub fn child(&self, name: &[u8]) -> Result<RelPath, PathError> {
        check_component(name)?;
        let mut bytes = Vec::with_capacity(self.0.len() + 1 + name.len());
        bytes.extend_from_slice(&self.0);
        bytes.push(b'/');
        bytes.extend_from_slice(name);
        RelPath::parse(&bytes)
    }

    /// `base/self`, or `self` when there is no base.
    ///
    /// # Errors
    /// A [`PathError`] when the whole grows past a limit.
    pub fn below(&self, base: Option<&RelPath>) -> Result<RelPath, PathError> {
        let Some(base) = base else {
            return Ok(self.clone());
        };
        let mut bytes = Vec::with_capacity(base.0.len() + 1 + self.0.len());
        bytes.extend_from_slice(&base.0);
        bytes.push(b'/');
        bytes.extend_from_slice(&self.0);
        RelPath::parse(&bytes)
    }
}

fn check_component(component: &[u8]) -> Result<(), PathError> {
    if component.is_empty() {
        return Err(PathError::Empty);
    }
    if component == b"." || component == b".." {
        return Err(PathError::Dots);
    }
    if component.contains(&0) {
        return Err(PathError::Nul);
    }
    if component.contains(&b'/') {
        return Err(PathError::Empty);
    }
    if component.len() > NAME_BYTES_MAX {
        return Err(PathError::TooLong);
    }
    if component.eq_ignore_ascii_case(RelPath::RESERVED.as_bytes()) {
        return Err(PathError::Reserved);
    }
    Ok(())
}

impl fmt::Display for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Escaped(&self.0).fmt(f)
    }
}

impl fmt::Debug for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RelPath({})", Escaped(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn legal_paths_come_back_byte_for_byte() {
        for bytes in [&b"a"[..], b"a/b", b"...", b"a b/\xff\xfe", b".a", b"-n", b"a\nb"] {
            assert_eq!(RelPath::parse(bytes).unwrap().as_bytes(), bytes);
        }
    }

    #[test]
    fn illegal_paths_are_refused_and_never_cleaned() {
        use PathError::*;
        let cases: [(&[u8], PathError); 14] = [
            (b"", Empty),
            (b"/", Empty),
            (b"/etc/passwd", Empty),
            (b"a//b", Empty),
            (b"a/", Empty),
            (b".", Dots),
            (b"..", Dots),
            (b"../a", Dots),
            (b"a/../b", Dots),
            (b"a/./b", Dots),
            (b"a\0b", Nul),
            (b".syncline", Reserved),
            (b"a/.SyncLine/b", Reserved),
            (&[b'a'; 256], TooLong),
        ];
        for (bytes, want) in cases {
            assert_eq!(RelPath::parse(bytes), Err(want), "{}", Escaped(bytes));
        }
        assert_eq!(RelPath::parse(&b"a/".repeat(257)[..513]), Err(TooDeep));
        assert_eq!(RelPath::parse(&[b'a'; PATH_BYTES_MAX + 1]), Err(TooLong));
    }

    #[test]
    fn parents_and_names_take_a_path_apart_and_below_joins_it() {
        let path = RelPath::parse(b"a/b/c").unwrap();
        assert_eq!(path.name(), b"c");
        let parent = path.parent().unwrap();
        assert_eq!(parent.as_bytes(), b"a/b");
        assert_eq!(parent.child(b"c").unwrap(), path);
        assert_eq!(RelPath::parse(b"c").unwrap().below(Some(&parent)).unwrap(), path);
        assert_eq!(RelPath::parse(b"a").unwrap().parent(), None);
        assert_eq!(parent.child(b"x/y"), Err(PathError::Empty));
    }
}
