//! One source of a transfer: which tree is read, and how its paths appear to the receiver.
//!
//! Invariant: [`SourceTree::offered`] and [`SourceTree::local`] are inverse to each other.

use crate::model::{Entry, Kind, PathError, RelPath};
use crate::store::Root;
use std::rc::Rc;

/// A tree or file to send.
#[derive(Debug, Clone)]
pub(crate) struct SourceTree {
    pub(crate) root: Rc<Root>,
    /// Where in the root the scan starts; `None` is the root itself.
    pub(crate) start: Option<RelPath>,
    /// What is taken off the front of a path.
    pub(crate) strip: Option<RelPath>,
    /// What is put in front of it then.
    pub(crate) prefix: Option<RelPath>,
    /// The directory's own name, when it is sent as a whole: filter rules see it in front, as they do
    /// when the same directory is pulled, and as the receiver does when it protects what is left out.
    pub(crate) name: Option<RelPath>,
    /// A single file under another name: its whole path at the receiver.
    pub(crate) renamed: Option<RelPath>,
    /// The directory itself, listed before what is in it.
    pub(crate) top: Option<Entry>,
    /// Only the start itself is sent, and only as long as it is no directory.
    pub(crate) is_single: bool,
}

impl SourceTree {
    /// Everything below `root`, without anything in front.
    pub(crate) fn whole(root: Rc<Root>) -> SourceTree {
        SourceTree {
            root,
            start: None,
            strip: None,
            prefix: None,
            name: None,
            renamed: None,
            top: None,
            is_single: false,
        }
    }

    /// The path under which the receiver knows `local`; `None` for the stripped directory itself.
    pub(crate) fn offered(&self, local: &RelPath) -> Result<Option<RelPath>, PathError> {
        if let Some(renamed) = &self.renamed {
            return Ok(Some(renamed.clone()));
        }
        let Some(rest) = without_prefix(local, self.strip.as_ref()) else {
            return Ok(None);
        };
        rest.below(self.prefix.as_ref()).map(Some)
    }

    /// The path that filter rules see: it begins with what the user named, or below it when only the
    /// contents are sent.
    pub(crate) fn filtered(&self, local: &RelPath) -> Option<RelPath> {
        let rest = without_prefix(local, self.strip.as_ref())?;
        rest.below(self.name.as_ref()).ok()
    }

    /// The path in `root` of what the receiver knows as `offered`.
    pub(crate) fn local(&self, offered: &RelPath) -> Result<RelPath, PathError> {
        if self.renamed.is_some() {
            return self.start.clone().ok_or(PathError::Empty);
        }
        let rest = without_prefix(offered, self.prefix.as_ref()).ok_or(PathError::Empty)?;
        rest.below(self.strip.as_ref())
    }
}

/// `path` without `prefix` in front; `None` when it is the prefix itself or not below it.
pub(crate) fn without_prefix(path: &RelPath, prefix: Option<&RelPath>) -> Option<RelPath> {
    let Some(prefix) = prefix else {
        return Some(path.clone());
    };
    let rest = path.as_bytes().strip_prefix(prefix.as_bytes())?.strip_prefix(b"/")?;
    RelPath::parse(rest).ok()
}

/// An entry like `entry` under another path.
pub(crate) fn renamed(entry: &Entry, path: RelPath) -> Entry {
    let kind: Kind = entry.kind.clone();
    Entry {
        path,
        kind,
        meta: entry.meta,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> RelPath {
        RelPath::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn offered_and_local_paths_are_inverse() {
        let root = Rc::new(Root::open(std::path::Path::new("/")).unwrap());
        let tree = SourceTree {
            strip: Some(path("a/b")),
            prefix: Some(path("x")),
            ..SourceTree::whole(root)
        };
        let local = path("a/b/c/d");
        let offered = tree.offered(&local).unwrap().unwrap();
        assert_eq!(offered, path("x/c/d"));
        assert_eq!(tree.local(&offered).unwrap(), local);
        assert_eq!(tree.offered(&path("a/b")).unwrap(), None);
        assert_eq!(tree.offered(&path("a/bc")).unwrap(), None);
    }
}
