//! What a sender offers: the entries of its trees, in the order of their scan.
//!
//! Opens nothing but directories, and with `--checksum` each file once. Invariant: no more is scanned
//! than the window has room for.

use super::content::{Hashed, Hashing};
use super::ledger::Ledger;
use super::sending::Sending;
use super::source_tree::{SourceTree, renamed};
use crate::conn::{Origin, Sender};
use crate::model::{ItemCode, Kind, RelPath};
use crate::reactor::Activity;
use crate::store::{Decision, Filter, Keep, PathKind, ScanItem, Shape};

/// Entries taken from a scan at a time.
const SCAN_ENTRIES: usize = 256;

impl Sending {
    pub(super) fn list(&mut self, sender: &mut Sender, ledger: &mut Ledger, scratch: &mut Vec<u8>) -> Activity {
        if self.listed || sender.offer_room() == 0 {
            return Activity::Idle;
        }
        if let Some(selected) = &mut self.selected {
            if selected.offer(sender, ledger) {
                self.listed = true;
                ledger.list_ended();
                sender.list_end(true, None);
            }
            sender.flush_offers();
            return Activity::Idle;
        }
        for path in std::mem::take(&mut self.missing) {
            self.cannot_offer(sender, ledger, path.as_bytes(), ItemCode::Vanished);
        }
        if let Some((entry, origin, hashing)) = self.hashing.take() {
            match hashing.step(scratch) {
                Hashed::More(hashing) => self.hashing = Some((entry, origin, *hashing)),
                Hashed::Done(id) => sender.offer(&entry, Some(&id.root), origin),
                // It is offered all the same: the receiver will want it and the reading will tell.
                Hashed::Failed => sender.offer(&entry, None, origin),
            }
            return Activity::More;
        }
        let Some(tree) = self.trees.get(self.tree) else {
            self.listed = true;
            ledger.list_ended();
            sender.list_end(self.complete, self.top);
            return Activity::Idle;
        };
        if self.scan.is_none() && self.found.is_empty() {
            self.scan = Some(tree.root.scan(tree.start.as_ref()));
            if let Some(top) = &tree.top {
                let origin = Origin {
                    source: self.tree as u16,
                    path: top.path.clone(),
                };
                sender.offer(top, None, origin);
            }
        }
        if self.found.is_empty() {
            self.scan_more();
        }
        while sender.offer_room() > 0 && self.hashing.is_none() {
            let Some(item) = self.found.pop_front() else {
                break;
            };
            self.offer(sender, item, ledger);
        }
        if self.found.is_empty() && self.scan.is_none() {
            self.tree += 1;
        }
        sender.flush_offers();
        Activity::More
    }

    fn scan_more(&mut self) {
        let (Some(tree), Some(scan)) = (self.trees.get(self.tree), self.scan.as_mut()) else {
            return;
        };
        let mut found = Vec::new();
        let filter = &self.filter;
        let mut keep = |path: &RelPath, shape: Shape| keep_source(filter, tree, path, shape);
        if !scan.step(&tree.root, &mut keep, SCAN_ENTRIES, &mut found) {
            self.complete &= scan.complete();
            self.scan = None;
        }
        self.found.extend(found);
    }

    fn offer(&mut self, sender: &mut Sender, item: ScanItem, ledger: &mut Ledger) {
        let tree = &self.trees[self.tree];
        let (entry, local) = match item {
            // It was a file when it was asked for: who asked hears of it with the next changes.
            ScanItem::Entry(entry, _) if tree.is_single && entry.kind == Kind::Directory => return,
            ScanItem::Entry(entry, _) => match tree.offered(&entry.path) {
                Ok(None) => return,
                Ok(Some(path)) => {
                    let local = entry.path.clone();
                    (renamed(&entry, path), local)
                }
                Err(_) => {
                    return self.cannot_offer(sender, ledger, entry.path.as_bytes(), ItemCode::BadPath);
                }
            },
            ScanItem::Special(path) => {
                let path = tree.offered(&path).ok().flatten().unwrap_or(path);
                sender.source_failed(path.as_bytes(), ItemCode::Special);
                return ledger.left_out(path.as_bytes(), ItemCode::Special);
            }
            ScanItem::Failed(error) => {
                log::info!("{error}");
                let shown = RelPath::parse(error.path())
                    .ok()
                    .and_then(|path| tree.offered(&path).ok().flatten());
                let path = shown.as_ref().map_or(error.path(), RelPath::as_bytes).to_vec();
                return self.cannot_offer(sender, ledger, &path, error.code());
            }
        };
        let origin = Origin {
            source: self.tree as u16,
            path: entry.path.clone(),
        };
        if let Kind::File { .. } = entry.kind {
            ledger.found();
            if self.checksum
                && let Ok(file) = tree.root.open_file(&local)
            {
                self.hashing = Some((entry, origin, Hashing::new(file)));
                return;
            }
        }
        sender.offer(&entry, None, origin);
    }

    fn cannot_offer(&mut self, sender: &mut Sender, ledger: &mut Ledger, path: &[u8], code: ItemCode) {
        self.complete = false;
        sender.source_failed(path, code);
        ledger.failed(path, code);
    }
}

fn keep_source(filter: &Filter, tree: &SourceTree, path: &RelPath, shape: Shape) -> Keep {
    let kind = match shape {
        Shape::Directory => PathKind::Directory,
        Shape::Other => PathKind::Other,
    };
    if tree.is_single && tree.start.as_ref() != Some(path) {
        return Keep::No;
    }
    match tree.filtered(path) {
        Some(path) if filter.decide(&path, kind) == Decision::Leave => Keep::No,
        _ => Keep::Yes,
    }
}
