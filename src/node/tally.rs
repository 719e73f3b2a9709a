//! Counts what sessions do: how many there are, of which kind, and how they ended.
//!
//! Never decides anything. Invariant: a connection is in exactly one stage from its acceptance until it is closed,
//! and a session that began ends exactly once, completed or failed.

use super::peer::Session;
use crate::model::CloseCode;
use serde::Serialize;
use std::collections::BTreeMap;

/// What goes on at a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// It has not said who it is and what it wants.
    Handshaking,
    /// It is open, and nothing is asked of it.
    Idle,
    /// It waits for its turn.
    Queued,
    /// Its session runs.
    Active,
    /// It says goodbye.
    Closing,
}

/// Connections by their stage.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Stages {
    pub(crate) handshaking: u64,
    pub(crate) idle: u64,
    pub(crate) queued: u64,
    pub(crate) active: u64,
    pub(crate) closing: u64,
}

/// Sessions since the start.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Sessions {
    pub(crate) begun: u64,
    pub(crate) completed: u64,
    pub(crate) failed: u64,
    /// By the code of the close that ended them; `lost` where the connection just broke.
    pub(crate) failed_by: BTreeMap<&'static str, u64>,
}

/// The books of all connections.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) stages: Stages,
    pub(super) sessions: Sessions,
    pub(super) refused_by: BTreeMap<&'static str, u64>,
}

/// How a session ended before its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BrokenOff {
    /// One of the two sides said why.
    Closed(CloseCode),
    /// The connection broke.
    Lost,
}

impl Stage {
    /// Where a session stands now.
    pub(super) fn of(session: &Session) -> Stage {
        if session.machine.is_closed() {
            Stage::Closing
        } else if !session.admitted {
            Stage::Handshaking
        } else if session.transfer.is_some() {
            Stage::Active
        } else if session.waiting.is_some() {
            Stage::Queued
        } else {
            Stage::Idle
        }
    }
}

impl Stages {
    fn of(&mut self, stage: Stage) -> &mut u64 {
        match stage {
            Stage::Handshaking => &mut self.handshaking,
            Stage::Idle => &mut self.idle,
            Stage::Queued => &mut self.queued,
            Stage::Active => &mut self.active,
            Stage::Closing => &mut self.closing,
        }
    }
}

impl Tally {
    /// A connection was accepted.
    pub(super) fn came(&mut self, stage: Stage) {
        *self.stages.of(stage) += 1;
    }

    /// A connection is gone.
    pub(super) fn went(&mut self, stage: Stage) {
        *self.stages.of(stage) -= 1;
    }

    /// A connection was called; it may have moved on.
    pub(super) fn moved(&mut self, from: &mut Stage, to: Stage) {
        if *from != to {
            self.went(*from);
            self.came(to);
            *from = to;
        }
    }

    /// A session began.
    pub(super) fn begun(&mut self) {
        self.sessions.begun += 1;
    }

    /// It came to its end.
    pub(super) fn completed(&mut self) {
        self.sessions.completed += 1;
    }

    /// It did not.
    pub(super) fn broke_off(&mut self, how: BrokenOff) {
        let kind = match how {
            BrokenOff::Closed(code) => code.name(),
            BrokenOff::Lost => "lost",
        };
        self.sessions.failed += 1;
        *self.sessions.failed_by.entry(kind).or_default() += 1;
    }

    /// A connection was refused, with or without a session.
    pub(super) fn refused(&mut self, code: CloseCode) {
        *self.refused_by.entry(code.name()).or_default() += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_in_one_stage_at_a_time() {
        let mut tally = Tally::default();
        let mut stage = Stage::Handshaking;
        tally.came(stage);
        for next in [Stage::Idle, Stage::Idle, Stage::Queued, Stage::Active, Stage::Closing] {
            tally.moved(&mut stage, next);
            let Stages {
                handshaking,
                idle,
                queued,
                active,
                closing,
            } = tally.stages;
            assert_eq!(handshaking + idle + queued + active + closing, 1);
        }
        assert_eq!(tally.stages.closing, 1);
        tally.went(stage);
        assert_eq!(tally.stages, Stages::default());
    }

    #[test]
    fn sessions_that_fail_are_counted_by_code_and_in_all() {
        let mut tally = Tally::default();
        tally.begun();
        tally.broke_off(BrokenOff::Lost);
        tally.broke_off(BrokenOff::Closed(CloseCode::Timeout));
        assert_eq!(tally.sessions.failed, 2);
        assert_eq!(tally.sessions.failed_by, BTreeMap::from([("lost", 1), ("timeout", 1)]));
    }
}
