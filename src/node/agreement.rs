//! What a receiver agreed to take, and where it puts it. Anything else is a fault of the sender.
//!
//! Invariant: an entry that was not asked for is never looked up on disk, let alone written.

use super::source_tree::without_prefix;
use crate::model::{Entry, Fault, Kind, RelPath};
use crate::store::{Decision, Filter, PathKind};
use std::cell::RefCell;

/// The bounds of one transfer at its receiver.
#[derive(Debug)]
pub(crate) struct Agreement {
    scope: Scope,
    filter: Filter,
    rules: Rules,
}

/// Whom the filter binds.
#[derive(Debug)]
enum Rules {
    /// Only ourselves: it protects from deletion. The sender may have been told to send more.
    Ours,
    /// The sender as well: the user does not want what it leaves out.
    Everyone {
        /// First components that the user named, which no rule leaves out.
        given: Vec<Box<[u8]>>,
        /// The last directory that was found to be kept; most entries are in the same one.
        kept: RefCell<Option<RelPath>>,
    },
}

#[derive(Debug)]
pub(crate) enum Scope {
    /// Everything at or below this path; `None` is the root: a push.
    Below(Option<RelPath>),
    /// Entries whose first component is one of these: a pull of named directories or files.
    Named(Vec<Box<[u8]>>),
    /// These entries, each by itself.
    #[cfg(feature = "sync")]
    Exactly(std::collections::HashSet<RelPath>),
    /// Exactly one file, which gets another name here.
    Renamed { offered: RelPath, local: RelPath },
}

impl Agreement {
    pub(crate) fn new(scope: Scope, filter: Filter) -> Agreement {
        Agreement {
            scope,
            filter,
            rules: Rules::Ours,
        }
    }

    /// Refuses what the rules leave out, except for the top of what was `given` by name: a server that
    /// offers it all the same did not keep to them.
    pub(crate) fn with_rules_for_the_sender(self, given: Vec<Box<[u8]>>) -> Agreement {
        let kept = RefCell::default();
        Agreement {
            rules: Rules::Everyone { given, kept },
            ..self
        }
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
            #[cfg(feature = "sync")]
            Scope::Exactly(paths) => paths.contains(path).then(|| path.clone()),
            Scope::Renamed { offered, local } => {
                let is_it = path == offered && !matches!(entry.kind, Kind::Directory);
                is_it.then(|| local.clone())
            }
        };
        match local {
            Some(local) if !self.leaves_out(entry) => Ok(local),
            _ => Err(Fault::protocol("an entry that was not asked for")),
        }
    }

    fn leaves_out(&self, entry: &Entry) -> bool {
        let Rules::Everyone { given, kept } = &self.rules else {
            return false;
        };
        if self.filter.is_empty() {
            return false;
        }
        let left = |path: &RelPath, kind: PathKind| {
            let is_given = path.parent().is_none() && given.iter().any(|name| **name == *path.as_bytes());
            !is_given && self.filter.decide(path, kind) == Decision::Leave
        };
        let kind = match entry.kind {
            Kind::Directory => PathKind::Directory,
            Kind::File { .. } | Kind::Symlink { .. } => PathKind::Other,
        };
        let parent = entry.path.parent();
        if *kept.borrow() != parent {
            let mut above = std::iter::successors(parent.clone(), RelPath::parent);
            if above.any(|directory| left(&directory, PathKind::Directory)) {
                return true;
            }
            *kept.borrow_mut() = parent;
        }
        left(&entry.path, kind)
    }

    /// Whether the user's rules leave `path` alone, so that a deletion must, too.
    pub(crate) fn protects(&self, path: &RelPath, kind: PathKind) -> bool {
        let seen = match &self.scope {
            Scope::Below(top) => without_prefix(path, top.as_ref()),
            Scope::Named(_) | Scope::Renamed { .. } => Some(path.clone()),
            #[cfg(feature = "sync")]
            Scope::Exactly(_) => Some(path.clone()),
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

    /// Row 2 of the threats: a sender that ignores the user's rules is found out, however deep.
    #[test]
    fn what_the_rules_leave_out_is_refused_except_for_what_was_named() {
        let exclude = |rule: &str| crate::store::Rule::Exclude(rule.to_owned());
        let filter = || Filter::new(&[exclude("*.key"), exclude("private/"), exclude("docs")]).unwrap();
        let scope = || Scope::Named(vec![b"docs".as_slice().into()]);
        let strict = Agreement::new(scope(), filter()).with_rules_for_the_sender(vec![b"docs".as_slice().into()]);
        for (entry, taken) in [
            ("docs/a", true),
            ("docs/my.key", false),
            ("docs/private/a/b", false),
            ("docs/private", true),
            ("docs/x/docs/y", false),
            ("docs/b", true),
        ] {
            assert_eq!(strict.accept(&file(entry)).is_ok(), taken, "{entry}");
        }
        assert!(Agreement::new(scope(), filter()).accept(&file("docs/my.key")).is_ok());
    }
}
