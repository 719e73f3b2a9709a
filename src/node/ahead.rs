//! Sidecars that are opened ahead, in steps, by whoever will need them.
//!
//! Holds mappings, never bytes. Invariant: at most [`AHEAD_MAX`]; what nobody came back for makes way, and
//! where nothing makes way, the next sidecar is opened at once instead.

use super::slice::Slice;
use crate::model::ContentId;
use crate::store::{MappedSidecar, Opened, SidecarOpening, Sidecars};

/// The sidecars of one store that are being opened.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    entries: Vec<Entry>,
    /// Counts questions.
    clock: u64,
}

#[derive(Debug)]
struct Entry {
    id: ContentId,
    /// When it was asked for.
    asked: u64,
    state: State,
}

#[derive(Debug)]
enum State {
    Opening(Box<SidecarOpening>),
    Open(Option<MappedSidecar>),
}

/// Openings at a time: each maps up to 1 % of a file.
const AHEAD_MAX: usize = 16;
/// Everybody who goes on asks once in a round, and there are no more than [`AHEAD_MAX`] in it.
const FORGOTTEN_AFTER: u64 = 64 * AHEAD_MAX as u64;

impl Ahead {
    /// What was opened, if it was: the sidecar of `id`, or that there is none.
    pub(super) fn take(&mut self, id: &ContentId) -> Option<Option<MappedSidecar>> {
        let is_open = |entry: &Entry| entry.id == *id && matches!(entry.state, State::Open(_));
        let at = self.entries.iter().position(is_open)?;
        match self.entries.swap_remove(at).state {
            State::Open(opened) => Some(opened),
            State::Opening(_) => None,
        }
    }

    /// Goes on with `id`; whether nothing is left to do.
    pub(super) fn prepare(&mut self, sidecars: &Sidecars, id: &ContentId) -> bool {
        self.clock += 1;
        let Some(at) = self.entry(sidecars, id) else {
            return true;
        };
        let entry = &mut self.entries[at];
        entry.asked = self.clock;
        let slice = Slice::begin();
        let before = std::mem::replace(&mut entry.state, State::Open(None));
        let mut opening = match before {
            State::Opening(opening) => opening,
            open @ State::Open(_) => {
                entry.state = open;
                return true;
            }
        };
        loop {
            match sidecars.go_on_open(opening) {
                Opened::Done(opened) => {
                    entry.state = State::Open(opened);
                    return true;
                }
                Opened::More(more) => opening = more,
            }
            if slice.is_over() {
                entry.state = State::Opening(opening);
                return false;
            }
        }
    }

    /// Where the entry of `id` is, perhaps a new one; `None` when there is nothing to open, or no room.
    fn entry(&mut self, sidecars: &Sidecars, id: &ContentId) -> Option<usize> {
        let at = self.entries.iter().position(|entry| entry.id == *id);
        if at.is_some() {
            return at;
        }
        if self.entries.len() >= AHEAD_MAX {
            let clock = self.clock;
            self.entries.retain(|entry| clock - entry.asked < FORGOTTEN_AFTER);
        }
        if self.entries.len() >= AHEAD_MAX {
            return None;
        }
        let opening = sidecars.begin_open(id)?;
        self.entries.push(Entry {
            id: *id,
            asked: self.clock,
            state: State::Opening(opening),
        });
        Some(self.entries.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delta::index::{ChunkIndex, Parts};
    use crate::model::limits::LEAF_BYTES;
    use crate::store::{Root, SidecarBounds};

    /// Keeps the sidecar of a file of `leaves` leaves that nobody has, all alike.
    fn keep(sidecars: &Sidecars, leaves: u64, seed: u8) -> ContentId {
        let length = leaves * LEAF_BYTES as u64;
        let mut writer = sidecars.create(length, Parts::Leaves, 0).unwrap();
        for number in 0..writer.sidecar().chunk_count() {
            let count = writer.sidecar().chunk_bytes(number).div_ceil(LEAF_BYTES);
            let chunk = ChunkIndex {
                leaves: vec![[seed; 32]; count],
                ..ChunkIndex::default()
            };
            writer.put(number, &chunk);
        }
        let all = vec![[seed; 32]; leaves as usize];
        let id = crate::delta::index::root_of_leaves(&all, length).unwrap();
        assert!(sidecars.finish(writer, &id));
        id
    }

    #[test]
    fn what_is_prepared_is_opened_once_and_handed_out_once() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        let sidecars = Sidecars::in_root(&root, SidecarBounds::default());
        let id = keep(&sidecars, 100_000, 1);
        let mut ahead = Ahead::default();
        assert!(ahead.take(&id).is_none(), "nothing was asked for");
        while !ahead.prepare(&sidecars, &id) {
            assert!(ahead.take(&id).is_none(), "what is not proved is not given out");
        }
        assert_eq!(ahead.take(&id).unwrap().unwrap().view().id(), id);
        assert!(ahead.take(&id).is_none() && ahead.entries.is_empty());
        let nobodys = ContentId { root: [9; 32], ..id };
        assert!(ahead.prepare(&sidecars, &nobodys) && ahead.entries.is_empty());
    }

    /// Connections that go in the middle of an opening leave it behind.
    #[test]
    fn what_nobody_comes_back_for_makes_way() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        let sidecars = Sidecars::in_root(&root, SidecarBounds::default());
        let ids: Vec<_> = (0..20).map(|seed| keep(&sidecars, 2_000, seed)).collect();
        let mut ahead = Ahead::default();
        for id in &ids {
            while !ahead.prepare(&sidecars, id) {}
        }
        assert_eq!(ahead.entries.len(), AHEAD_MAX);
        for _ in 0..=FORGOTTEN_AFTER {
            ahead.prepare(&sidecars, &ids[0]);
        }
        while !ahead.prepare(&sidecars, &ids[19]) {}
        assert!(ahead.take(&ids[19]).is_some());
        assert_eq!(ahead.entries.len(), 1, "only the one that was still asked for");
    }
}
