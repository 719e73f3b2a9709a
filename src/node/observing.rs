//! What changes in a folder, and what of it takes part: a watch, its settling, and the ignore rules.
//!
//! Says where to look, never what changed. Invariant: what changed after the last look is looked at again, at the
//! latest with the next rescan.

use super::looking::Looks;
use super::slice::Slice;
use crate::model::limits::{RESCAN_MS, RESCAN_UNWATCHED_MS};
use crate::model::{RelPath, Tick};
use crate::store::{Dirt, Ignore, Keep, Notice, Root, Settle, Shape, Watch, WatchOptions};
use std::os::fd::{AsFd, BorrowedFd};

/// A folder under observation.
#[derive(Debug)]
pub(crate) struct Observing {
    /// `None` where nothing can be watched: then only rescans find what changed.
    watch: Option<Watch>,
    settle: Settle,
    ignore: Ignore,
    /// The watch still goes through the folder.
    is_walking: bool,
    /// All of the folder is watched: what was looked at before may have changed unseen.
    is_settled: bool,
    rescan: Tick,
    /// What is not watched was said.
    is_told: bool,
    is_gone: bool,
}

impl Observing {
    /// Begins to watch, if `watched`; the rules hold in any case.
    pub(crate) fn begin(root: &Root, watched: bool, now: Tick) -> Observing {
        let watch = watched.then(|| Watch::open(root, &WatchOptions::default()));
        let watch = watch.and_then(|opened| {
            opened
                .inspect_err(|error| log::warn!("{error}; until then it is looked through every now and then"))
                .ok()
        });
        Observing {
            is_walking: watch.is_some(),
            is_settled: false,
            watch,
            settle: Settle::new(),
            ignore: Ignore::new(),
            rescan: now + RESCAN_UNWATCHED_MS,
            is_told: false,
            is_gone: false,
        }
    }

    /// Does without a watch: everything is looked through now and then.
    pub(crate) fn go_unwatched(&mut self) {
        self.watch = None;
        self.is_walking = false;
    }

    /// What the loop waits for.
    pub(crate) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.watch.as_ref().map(AsFd::as_fd)
    }

    /// The folder itself went away: nothing of it may be believed.
    pub(crate) fn is_gone(&self) -> bool {
        self.is_gone
    }

    /// Reads what the watch has, as far as there is time. Returns whether there is more at once.
    pub(crate) fn read(&mut self, root: &Root, now: Tick) -> bool {
        let Some(watch) = &mut self.watch else { return false };
        let slice = Slice::begin();
        let mut more = true;
        while more && !slice.is_over() {
            let mut notices = Vec::new();
            more = match watch.read(&mut notices) {
                Ok(more) => more,
                Err(error) => {
                    log::warn!("{} is no longer watched: {error}", root.path().display());
                    self.watch = None;
                    self.settle.note(now, Notice::Changed(Dirt::All));
                    return false;
                }
            };
            for notice in notices {
                match &notice {
                    Notice::RootGone => self.is_gone = true,
                    Notice::Changed(Dirt::Path(path)) if Ignore::is_rules(path) => {
                        self.ignore.forget();
                        watch.again();
                        let top = path.parent().map_or(Dirt::All, Dirt::Tree);
                        self.settle.note(now, Notice::Changed(top));
                    }
                    _ => {}
                }
                self.settle.note(now, notice);
            }
        }
        self.is_walking = true;
        more || self.walk(root, now)
    }

    /// Goes on watching what the folder holds. Returns whether there is more at once.
    fn walk(&mut self, root: &Root, now: Tick) -> bool {
        let (Some(watch), ignore) = (&mut self.watch, &mut self.ignore) else {
            return false;
        };
        let slice = Slice::begin();
        while self.is_walking && !slice.is_over() {
            let mut notices = Vec::new();
            let mut keep = |path: &RelPath, shape: Shape| ignore.keep(root, path, shape);
            self.is_walking = watch.step(&mut keep, STEP_DIRECTORIES, &mut notices);
            for notice in notices {
                self.settle.note(now, notice);
            }
        }
        if !self.is_walking && !std::mem::replace(&mut self.is_settled, true) {
            self.settle.note(now, Notice::Changed(Dirt::All));
        }
        if !self.is_walking
            && !self.is_told
            && let Some(unwatched) = watch.unwatched()
        {
            self.is_told = true;
            log::warn!("{}: {unwatched}", root.path().display());
        }
        self.is_walking
    }

    /// Has everything looked at that changed before now, quiet or not; only a file that somebody writes still waits.
    /// Where that is not known from a watch, all is looked at.
    pub(crate) fn catch_up(&mut self, root: &Root, now: Tick, looks: &mut Looks) {
        let is_behind = self.read(root, now);
        self.settle.take_closed().into_iter().for_each(|dirt| look(dirt, looks));
        if is_behind || !self.is_settled || !self.is_watched() {
            look(Dirt::All, looks);
        }
    }

    /// Has everything looked at that is quiet, and all of it when that is due. Returns when to ask again.
    pub(crate) fn ripe(&mut self, now: Tick, looks: &mut Looks) -> Tick {
        while let Some(dirt) = self.settle.poll_ripe(now) {
            look(dirt, looks);
        }
        if now >= self.rescan {
            let wait_ms = match self.is_watched() {
                true => RESCAN_MS,
                false => RESCAN_UNWATCHED_MS,
            };
            self.rescan = now + wait_ms;
            self.ignore.forget();
            looks.tree(None);
        }
        let due = self.settle.poll_timeout();
        due.map_or(self.rescan, |due| due.min(self.rescan))
    }

    /// Whether a watch tells of all of it.
    fn is_watched(&self) -> bool {
        self.watch.as_ref().is_some_and(|watch| watch.unwatched().is_none())
    }

    /// Whether a path takes part.
    pub(crate) fn keep(&mut self, root: &Root, path: &RelPath, shape: Shape) -> Keep {
        self.ignore.keep(root, path, shape)
    }

    /// The rules are read again, before everything is looked at.
    pub(crate) fn forget_rules(&mut self) {
        self.ignore.forget();
    }

    /// Rules that have no effect are told once.
    pub(crate) fn tell_problems(&mut self) {
        for problem in self.ignore.take_problems() {
            log::warn!("{problem}");
        }
    }
}

fn look(dirt: Dirt, looks: &mut Looks) {
    match dirt {
        Dirt::Path(path) => looks.path(&path),
        Dirt::Tree(path) => looks.tree(Some(path)),
        Dirt::All => looks.tree(None),
    }
}

/// Directories that are gone through at a time.
const STEP_DIRECTORIES: usize = 8;
