//! What a server says of itself when it is asked: one JSON object.

use super::events::Summary;
use super::turns::Load;
use crate::model::ShareName;
use serde::Serialize;

/// A server's state, as a visitor may see it.
#[derive(Debug, Serialize)]
pub(crate) struct StatusReport<'a> {
    pub(crate) event: &'static str,
    pub(crate) name: &'a str,
    pub(crate) version: &'static str,
    pub(crate) uptime_seconds: u64,
    pub(crate) shares: Vec<ShareStatus<'a>>,
    /// Only for the server's own device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) loop_status: Option<LoopStatus>,
}

/// One share.
#[derive(Debug, Serialize)]
pub(crate) struct ShareStatus<'a> {
    pub(crate) name: &'a str,
    pub(crate) rights: String,
    pub(crate) free_bytes: Option<u64>,
    pub(crate) transfers: u64,
    pub(crate) files: u64,
    pub(crate) bytes: u64,
    /// Of these, what delta saved and what was there already.
    pub(crate) saved_bytes: u64,
    pub(crate) unchanged_bytes: u64,
    pub(crate) failed: u64,
}

/// The loop.
#[derive(Debug, Serialize)]
pub(crate) struct LoopStatus {
    pub(crate) connections: usize,
    pub(crate) turns: u64,
    pub(crate) longest_turn_micros: u64,
    pub(crate) accepted: u64,
    pub(crate) turned_away: u64,
    #[serde(flatten)]
    pub(crate) load: Load,
}

/// Figures of a share since the server started.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    pub(crate) transfers: u64,
    pub(crate) files: u64,
    pub(crate) bytes: u64,
    pub(crate) saved_bytes: u64,
    pub(crate) unchanged_bytes: u64,
    pub(crate) failed: u64,
}

impl Totals {
    pub(crate) fn add(&mut self, summary: &Summary) {
        self.transfers += 1;
        self.files += summary.files;
        self.bytes += summary.bytes;
        self.saved_bytes += summary.saved_bytes;
        self.unchanged_bytes += summary.unchanged_bytes;
        self.failed += summary.failed;
    }

    pub(crate) fn of_share<'a>(&self, name: &'a ShareName, rights: String, free_bytes: Option<u64>) -> ShareStatus<'a> {
        ShareStatus {
            name: name.as_str(),
            rights,
            free_bytes,
            transfers: self.transfers,
            files: self.files,
            bytes: self.bytes,
            saved_bytes: self.saved_bytes,
            unchanged_bytes: self.unchanged_bytes,
            failed: self.failed,
        }
    }
}
