//! What small files that were committed here contain, so that the next patch finds its basis without reading it.
//!
//! Knows nothing of files and never writes to the disk: what is forgotten is read and hashed again. Invariant:
//! at most two generations of [`GENERATION_MAX`] entries; looking one up tells what was noted of that very state.

use crate::model::ContentId;
use crate::store::Identity;
use std::collections::HashMap;

/// Ids of contents by the state of the file that has them, in two generations: when the younger one is full,
/// the older one goes.
#[derive(Debug, Default)]
pub(super) struct Recent {
    young: HashMap<Identity, ContentId>,
    old: HashMap<Identity, ContentId>,
}

/// Seven eighths of 16,384, what a table of so many slots holds: 1.4 MB each when full.
const GENERATION_MAX: usize = 14_336;

impl Recent {
    pub(super) fn note(&mut self, id: &ContentId, identity: &Identity) {
        if self.young.len() >= GENERATION_MAX {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(*identity, *id);
    }

    pub(super) fn forget(&mut self, identity: &Identity) {
        if self.young.remove(identity).is_none() {
            self.old.remove(identity);
        }
    }

    pub(super) fn content_of(&self, identity: &Identity) -> Option<ContentId> {
        self.young.get(identity).or_else(|| self.old.get(identity)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Root;

    /// Memory stays bounded, the latest are known, and another state of a file is another file.
    #[test]
    fn the_latest_are_known_and_the_oldest_go() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        let state = |bytes: &[u8]| {
            std::fs::write(dir.path().join("f"), bytes).unwrap();
            let path = crate::model::RelPath::parse(b"f").unwrap();
            root.probe(&path).unwrap().unwrap().identity
        };
        let id = |length| ContentId { length, root: [7; 32] };
        let mut recent = Recent::default();
        let (first, second) = (state(b""), state(b"1"));
        recent.note(&id(0), &first);
        assert_eq!(recent.content_of(&second), None);
        recent.note(&id(1), &second);
        assert_eq!(recent.content_of(&first), Some(id(0)));
        recent.forget(&second);
        assert_eq!(recent.content_of(&second), None);
        let mut last = first;
        for length in 2..2 * GENERATION_MAX + 4 {
            last = first.with_size(length as u64);
            recent.note(&id(length as u64), &last);
        }
        assert_eq!(recent.content_of(&first), None);
        assert_eq!(recent.content_of(&last), Some(id(last.size())));
        assert!(recent.young.len() + recent.old.len() <= 2 * GENERATION_MAX);
    }
}
