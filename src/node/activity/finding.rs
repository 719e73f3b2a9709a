//! `ActivityLog`: the activity log of a path's folder, for commands on the machine that has it.
//!
//! Works beside a server or a sync: nothing here needs their lock, and nothing is changed. Invariant: memory is
//! bounded by the log's own bound.

use super::super::history::{History, HistoryError};
use crate::model::RelPath;
use crate::store::{ActivityEntry, ActivityQuery, ActivityReader};
use std::collections::VecDeque;
use std::path::Path;

/// The log of one folder.
#[derive(Debug)]
pub struct ActivityLog {
    reader: ActivityReader,
    within: Option<RelPath>,
}

impl ActivityLog {
    /// The log of the folder that `path` is in, by the `.syncline` of a directory above it, or of itself.
    ///
    /// # Errors
    /// [`HistoryError::NoShare`] when there is none; or it cannot be read.
    pub fn find(path: &Path) -> Result<ActivityLog, HistoryError> {
        let (history, within) = History::find(path)?;
        let reader = ActivityReader::open(&history.root)?;
        let reader = reader.ok_or_else(|| HistoryError::NoShare(path.to_owned()))?;
        Ok(ActivityLog { reader, within })
    }

    /// The path within its folder; `None` is the folder itself.
    #[must_use]
    pub fn within(&self) -> Option<&RelPath> {
        self.within.as_ref()
    }

    /// Whether nothing was ever written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.reader.is_empty()
    }

    /// What was asked for, the oldest first, at most the last `last`; and how many earlier ones there are. Another call
    /// tells of what has come since.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn search(&mut self, query: &ActivityQuery, last: usize) -> Result<(Vec<ActivityEntry>, u64), HistoryError> {
        let (mut found, mut earlier) = (VecDeque::new(), 0);
        self.reader.each(&mut |entry| {
            if !query.wants(&entry) {
                return;
            }
            found.push_back(entry);
            if found.len() > last {
                found.pop_front();
                earlier += 1;
            }
        })?;
        Ok((found.into(), earlier))
    }
}
