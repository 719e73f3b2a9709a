//! What a receiver agreed to take, and where it puts it. Anything else is a fault of the sender.
//!
//! Invariant: an entry that was not asked for is never looked up on disk, let alone written.

use super::source_tree::without_prefix;
use crate::model::{Entry, Fault, Kind, RelPath};
use crate::store::{Decision, Filter, PathKind};

/// The bounds of one transfer at its receiver.
#[derive(Debug)]
pub(crate) struct Agreement {
    scope: Scope,
    filter: Filter,
}

#[derive(Debug)]
pub(crate) enum Scope {
    /// Everything at or below this path; `None` is the root: a push.
    Below(Option<RelPath>),
    /// Entries whose first component is one of these: a pull of named directories or files.
    Named(Vec<Box<[u8]>>),
    /// Exactly one file, which gets another name here.
    Renamed { offered: RelPath, local: RelPath },
}

impl Agreement {
    pub(crate) fn new(scope: Scope, filter: Filter) -> Agreement {
        Agreement { scope, filter }
    }

    /// The local path of an offered entry.
    pub(crate) fn accept(&self, entry: &Entry) -> Result<RelPath, Fault> {
        let path = &entry.path;
        let local = match &self.scope {
            Scope::Below(None) => Some(path.clone()),
            Scope::Below(Some(top)) => {
                let within = path == top || without_prefix(path, Some(top)).is_some();
                within.then(|| path.clone())
            }
            Scope::Named(names) => {
                let first = path.components().next().unwrap_or_default();
                names.iter().any(|name| **name == *first).then(|| path.clone())
            }
            Scope::Renamed { offered, local } => {
                let is_it = path == offered && !matches!(entry.kind, Kind::Directory);
                is_it.then(|| local.clone())
            }
        };
        local.ok_or_else(|| Fault::protocol("an entry that was not asked for"))
    }

    /// Whether the user's rules leave `path` alone, so that a deletion must, too.
    pub(crate) fn protects(&self, path: &RelPath, kind: PathKind) -> bool {
        let seen = match &self.scope {
            Scope::Below(top) => without_prefix(path, top.as_ref()),
            Scope::Named(_) | Scope::Renamed { .. } => Some(path.clone()),
        };
        seen.is_some_and(|path| self.filter.decide(&path, kind) == Decision::Leave)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Meta, Timestamp};

    fn path(text: &str) -> RelPath {
        RelPath::parse(text.as_bytes()).unwrap()
    }

    fn file(text: &str) -> Entry {
        let meta = Meta {
            mode: 0o644,
            mtime: Timestamp { seconds: 0, nanos: 0 },
        };
        Entry {
            path: path(text),
            kind: Kind::File { size: 1 },
            meta,
        }
    }

    #[test]
    fn only_what_was_agreed_is_accepted() {
        let accept = |scope: Scope, entry: &str| {
            Agreement::new(scope, Filter::new(&[]).unwrap())
                .accept(&file(entry))
                .ok()
        };
        assert_eq!(accept(Scope::Below(None), "a/b"), Some(path("a/b")));
        assert_eq!(accept(Scope::Below(Some(path("a"))), "a/b"), Some(path("a/b")));
        assert_eq!(accept(Scope::Below(Some(path("a"))), "ab"), None);
        assert_eq!(
            accept(Scope::Named(vec![b"a".as_slice().into()]), "a/b"),
            Some(path("a/b"))
        );
        assert_eq!(accept(Scope::Named(vec![b"a".as_slice().into()]), ".bashrc"), None);
        let renamed = || Scope::Renamed {
            offered: path("a"),
            local: path("b"),
        };
        assert_eq!(accept(renamed(), "a"), Some(path("b")));
        assert_eq!(accept(renamed(), "b"), None);
    }
}
