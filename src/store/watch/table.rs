//! `Table`: which watch belongs to which directory, as a tree of names. Never calls the system.
//!
//! Invariant: a watch stands at one place at most, a place has one watch at most, and following the places
//! upwards ends at the root or at a watch that stands nowhere (**loose**), never in a circle.

use crate::model::RelPath;
use crate::model::limits::PATH_DEPTH_MAX;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// The system's number of a watch. It is not used again as long as there are others.
pub(super) type Wd = i32;

/// A name in a watched directory.
pub(super) type Place = (Wd, Arc<[u8]>);

/// Device and inode.
pub(super) type Inode = (u64, u64);

#[derive(Debug)]
pub(super) struct Table {
    root: Wd,
    nodes: HashMap<Wd, Node>,
    /// The same the other way round; in order, so that the places of one directory stand together.
    places: BTreeMap<Place, Wd>,
    /// Watches that lost their place: moved away, or not known yet where to.
    loose: Vec<Wd>,
    /// The number of the walk that is going on or was the last.
    round: u32,
    changes: u64,
}

#[derive(Debug)]
struct Node {
    /// `None` for the root, and for what is loose.
    place: Option<Place>,
    inode: Inode,
    /// The walk that has it in its line, or has listed it.
    round: u32,
}

/// What became of a watch that was given a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Attached {
    New,
    /// It stood elsewhere, or nowhere.
    Moved,
    Same,
    /// Its place would be beneath itself: what is known is out of date.
    Circle,
}

impl Table {
    pub(super) fn new(root: Wd, inode: Inode) -> Table {
        let top = Node {
            place: None,
            inode,
            round: 0,
        };
        Table {
            root,
            nodes: HashMap::from([(root, top)]),
            places: BTreeMap::new(),
            loose: Vec::new(),
            round: 0,
            changes: 0,
        }
    }

    pub(super) fn root(&self) -> Wd {
        self.root
    }

    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Grows whenever something finds a place.
    pub(super) fn changes(&self) -> u64 {
        self.changes
    }

    pub(super) fn contains(&self, wd: Wd) -> bool {
        self.nodes.contains_key(&wd)
    }

    pub(super) fn inode(&self, wd: Wd) -> Option<Inode> {
        self.nodes.get(&wd).map(|node| node.inode)
    }

    /// The path of a directory, empty for the root; `None` when it is loose or unknown.
    pub(super) fn path(&self, wd: Wd) -> Option<Vec<u8>> {
        let mut names: Vec<&[u8]> = Vec::new();
        let mut at = wd;
        while at != self.root {
            let (parent, name) = self.nodes.get(&at)?.place.as_ref()?;
            if names.len() == PATH_DEPTH_MAX {
                return None;
            }
            names.push(name);
            at = *parent;
        }
        names.reverse();
        Some(names.join(&b'/'))
    }

    /// The path of a name in a directory; `None` also when it is no legal path.
    pub(super) fn entry(&self, wd: Wd, name: &[u8]) -> Option<RelPath> {
        let mut path = self.path(wd)?;
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        RelPath::parse(&path).ok()
    }

    pub(super) fn child(&self, place: &Place) -> Option<Wd> {
        self.places.get(place).copied()
    }

    /// Puts a watch at a place. Whatever stood there becomes loose.
    pub(super) fn attach(&mut self, wd: Wd, inode: Inode, place: &Place) -> Attached {
        if self.child(place) == Some(wd) {
            return Attached::Same;
        }
        if wd == self.root || self.is_beneath(place.0, wd) {
            return Attached::Circle;
        }
        self.detach(place);
        self.changes += 1;
        let attached = match self.nodes.get(&wd) {
            Some(_) => Attached::Moved,
            None => Attached::New,
        };
        let unvisited = self.round.wrapping_sub(1);
        let node = self.nodes.entry(wd).or_insert(Node {
            place: None,
            inode,
            round: unvisited,
        });
        if let Some(old) = node.place.replace(place.clone()) {
            self.places.remove(&old);
        }
        self.places.insert(place.clone(), wd);
        attached
    }

    /// Nothing that is watched stands at `place` any more.
    pub(super) fn detach(&mut self, place: &Place) {
        if let Some(wd) = self.places.remove(place)
            && let Some(node) = self.nodes.get_mut(&wd)
        {
            node.place = None;
            self.loose.push(wd);
        }
    }

    /// Forgets a watch. What stood beneath it becomes loose.
    pub(super) fn remove(&mut self, wd: Wd) {
        let Some(node) = self.nodes.remove(&wd) else {
            return;
        };
        if let Some(place) = node.place {
            self.places.remove(&place);
        }
        let first: Place = (wd, Arc::from(&[][..]));
        let beneath = self.places.range(first..).take_while(|((parent, _), _)| *parent == wd);
        for place in beneath.map(|(place, _)| place.clone()).collect::<Vec<_>>() {
            self.detach(&place);
        }
    }

    /// Removes one watch that is still loose, if there is any: the caller tells the system.
    pub(super) fn take_loose(&mut self) -> Option<Wd> {
        while let Some(wd) = self.loose.pop() {
            if self.nodes.get(&wd).is_some_and(|node| node.place.is_none()) && wd != self.root {
                self.remove(wd);
                return Some(wd);
            }
        }
        None
    }

    /// Begins a walk over everything.
    pub(super) fn begin_round(&mut self) {
        self.round = self.round.wrapping_add(1);
    }

    /// Whether this walk has not had that directory yet; from now on it has.
    pub(super) fn visit(&mut self, wd: Wd) -> bool {
        let round = self.round;
        self.nodes
            .get_mut(&wd)
            .is_some_and(|node| std::mem::replace(&mut node.round, round) != round)
    }

    /// Makes everything loose that the walk, which is over, did not meet.
    pub(super) fn sweep(&mut self) {
        let unmet = |node: &Node| node.place.is_some() && node.round != self.round;
        let unmet: Vec<Place> = self
            .nodes
            .values()
            .filter(|node| unmet(node))
            .filter_map(|node| node.place.clone())
            .collect();
        for place in unmet {
            self.detach(&place);
        }
    }

    /// Whether `wd` is `other` or stands beneath it.
    fn is_beneath(&self, wd: Wd, other: Wd) -> bool {
        let mut at = wd;
        for _ in 0..=PATH_DEPTH_MAX {
            if at == other {
                return true;
            }
            match self.nodes.get(&at).and_then(|node| node.place.as_ref()) {
                Some((parent, _)) => at = *parent,
                None => return false,
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(parent: Wd, name: &str) -> Place {
        (parent, Arc::from(name.as_bytes()))
    }

    fn shown(table: &Table, wd: Wd) -> Option<String> {
        table.path(wd).map(|path| String::from_utf8(path).unwrap())
    }

    fn table() -> Table {
        let mut table = Table::new(1, (0, 1));
        assert_eq!(table.attach(2, (0, 2), &place(1, "a")), Attached::New);
        assert_eq!(table.attach(3, (0, 3), &place(2, "b")), Attached::New);
        assert_eq!(table.attach(4, (0, 4), &place(3, "c")), Attached::New);
        table
    }

    // Protects paths after a rename: what is beneath follows, and nothing stands at two places.
    #[test]
    fn what_is_moved_takes_along_what_is_beneath() {
        let mut table = table();
        assert_eq!(shown(&table, 4).unwrap(), "a/b/c");
        assert_eq!(table.attach(3, (0, 3), &place(1, "x")), Attached::Moved);
        assert_eq!(shown(&table, 4).unwrap(), "x/c");
        assert_eq!(table.child(&place(2, "b")), None);
        assert_eq!(table.attach(3, (0, 3), &place(1, "x")), Attached::Same);
        assert_eq!(table.take_loose(), None);
    }

    // Protects from endless climbing after events were lost.
    #[test]
    fn a_circle_is_refused() {
        let mut table = table();
        assert_eq!(table.attach(2, (0, 2), &place(4, "a")), Attached::Circle);
        assert_eq!(table.attach(1, (0, 1), &place(4, "a")), Attached::Circle);
        assert_eq!(shown(&table, 4).unwrap(), "a/b/c");
    }

    // Protects the system's limit: what moved out is given back from the top down, and nothing that found
    // a place meanwhile.
    #[test]
    fn loose_watches_go_unless_they_found_a_place() {
        let mut table = table();
        table.detach(&place(1, "a"));
        assert_eq!(shown(&table, 4), None);
        assert_eq!(table.attach(3, (0, 3), &place(1, "kept")), Attached::Moved);
        assert_eq!(table.take_loose(), Some(2));
        assert_eq!(table.take_loose(), None);
        assert_eq!(shown(&table, 4).unwrap(), "kept/c");
        assert!(!table.contains(2));
        table.remove(3);
        assert_eq!((table.take_loose(), table.len()), (Some(4), 1));
    }

    // Protects a walk after lost events: what it did not meet is no longer there.
    #[test]
    fn a_round_sweeps_what_it_did_not_meet() {
        let mut table = table();
        table.begin_round();
        assert!(table.visit(1) && table.visit(2));
        assert!(!table.visit(2));
        table.sweep();
        let mut given_up: Vec<Wd> = std::iter::from_fn(|| table.take_loose()).collect();
        given_up.sort_unstable();
        assert_eq!(given_up, [3, 4]);
        assert_eq!(shown(&table, 2).unwrap(), "a");
    }
}
