//! Exit codes, and the one place that decides which ending has which code.
//! Never prints. The numbers are a contract with scripts: they change for nobody.
//!
//! Invariant: every way in which a job can end has exactly one code, decided by a `match` without a
//! wildcard, so that a new error cannot be forgotten here.

use syncline::model::CloseCode;
use syncline::node::{JobError, ServerError, Summary};

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// All is done.
    Done,
    /// An error that fits no other code.
    Error,
    /// The command line or the config file is wrong.
    Usage,
    /// Some items failed, the others are done.
    Partial,
    /// Two versions of something are there, and somebody has to decide.
    Conflicts,
    /// The same command may succeed later.
    Temporary,
    /// Authentication or pairing was refused.
    Refused,
    /// A safety stop: mass delete, missing root, full disk.
    Safety,
    /// A limit was reached.
    Limit,
    /// There was nothing to do, and the user wanted to know.
    NothingToDo,
    /// The target does not exist.
    TargetMissing,
    /// Another process holds the folder.
    Locked,
    /// Interrupted by a signal; state is saved.
    Interrupted(Signal),
}

/// The signals that end a run in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signal {
    /// SIGINT, and an interruption by the host.
    Int,
    /// SIGTERM.
    Term,
}

/// SIGTERM's number, the same on every Unix.
const SIGTERM: i32 = 15;

impl Exit {
    /// The process's exit code.
    pub(crate) fn code(self) -> u8 {
        match self {
            Exit::Done => 0,
            Exit::Error => 1,
            Exit::Usage => 2,
            Exit::Partial => 3,
            Exit::Conflicts => 4,
            Exit::Temporary => 5,
            Exit::Refused => 6,
            Exit::Safety => 7,
            Exit::Limit => 8,
            Exit::NothingToDo => 9,
            Exit::TargetMissing => 10,
            Exit::Locked => 11,
            Exit::Interrupted(Signal::Int) => 130,
            Exit::Interrupted(Signal::Term) => 143,
        }
    }

    /// The ending of a job that failed as a whole.
    pub(crate) fn of_job(error: &JobError) -> Exit {
        match error {
            JobError::Connect { .. } | JobError::Lost { .. } | JobError::TurnedAway { .. } => Exit::Temporary,
            JobError::WrongServer { .. } => Exit::Refused,
            JobError::Closed { code, .. } => Exit::of_close(*code),
            JobError::Target { .. } | JobError::NotFound { .. } => Exit::TargetMissing,
            JobError::MassDelete { .. } | JobError::IncompleteSource | JobError::DiskFull => Exit::Safety,
            JobError::Filter { .. } | JobError::SameName { .. } => Exit::Usage,
            JobError::Resolve { .. }
            | JobError::NotSyncline { .. }
            | JobError::Protocol { .. }
            | JobError::Unsupported { .. }
            | JobError::Source { .. }
            | JobError::State { .. } => Exit::Error,
            #[cfg(feature = "sync")]
            JobError::Folder(error) => Exit::of_folder(error),
            JobError::Interrupted { signal: Some(SIGTERM) } => Exit::Interrupted(Signal::Term),
            JobError::Interrupted { .. } => Exit::Interrupted(Signal::Int),
        }
    }

    /// The ending of a sync whose folder cannot be used.
    #[cfg(feature = "sync")]
    fn of_folder(error: &syncline::node::FolderError) -> Exit {
        use syncline::node::FolderError;
        match error {
            FolderError::Unusable { .. } => Exit::TargetMissing,
            FolderError::Locked { .. } => Exit::Locked,
            FolderError::Unlinked { .. } | FolderError::Base { .. } => Exit::Safety,
            FolderError::Linked { .. } | FolderError::Served { .. } => Exit::Usage,
        }
    }

    /// The ending of a job whose connection the server closed.
    fn of_close(code: CloseCode) -> Exit {
        match code {
            CloseCode::Refused | CloseCode::Forbidden => Exit::Refused,
            CloseCode::Busy | CloseCode::Timeout | CloseCode::Stopping | CloseCode::Interrupted => Exit::Temporary,
            CloseCode::Limit => Exit::Limit,
            CloseCode::NotFound => Exit::TargetMissing,
            CloseCode::Gone => Exit::Safety,
            CloseCode::Done | CloseCode::Protocol | CloseCode::Version | CloseCode::Internal => Exit::Error,
        }
    }

    /// The ending of a server that did not start.
    pub(crate) fn of_server(error: &ServerError) -> Exit {
        match error {
            ServerError::Listen { .. } | ServerError::Metrics { .. } | ServerError::State { .. } => Exit::Error,
            ServerError::Share { .. } => Exit::TargetMissing,
            ServerError::Locked { .. } => Exit::Locked,
            ServerError::NobodyToTellApart
            | ServerError::NoSuchShare(_)
            | ServerError::DuplicateShare(_)
            | ServerError::SameFolder { .. }
            | ServerError::Synced { .. }
            | ServerError::NoShares => Exit::Usage,
        }
    }

    /// The ending of a job that went through.
    pub(crate) fn of_summary(summary: &Summary, moved: Moved, idle: Idle) -> Exit {
        match (summary.failed, moved, idle) {
            (1.., _, _) => Exit::Partial,
            (0, Moved::Nothing, Idle::Error) => Exit::NothingToDo,
            (0, _, _) => Exit::Done,
        }
    }
}

/// Whether a job changed (or with a dry run: would change) anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moved {
    /// At least one entry.
    Something,
    /// All was as it should be.
    Nothing,
}

/// What a run that finds nothing to do means to the user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Idle {
    /// Success.
    Fine,
    /// `--error-on-no-transfer`.
    Error,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;
    use std::path::PathBuf;
    use syncline::model::ShareName;

    fn text() -> String {
        "x".to_owned()
    }

    #[test]
    fn every_job_error_has_the_documented_code() {
        let cases = [
            (
                JobError::Resolve {
                    host: text(),
                    reason: text(),
                },
                1,
            ),
            (
                JobError::Connect {
                    authority: text(),
                    reason: text(),
                },
                5,
            ),
            (
                JobError::Lost {
                    authority: text(),
                    reason: text(),
                },
                5,
            ),
            (JobError::WrongServer { authority: text() }, 6),
            (
                JobError::NotSyncline {
                    authority: text(),
                    reason: text(),
                },
                1,
            ),
            (
                JobError::Source {
                    path: text(),
                    reason: text(),
                },
                1,
            ),
            (
                JobError::Target {
                    path: text(),
                    reason: text(),
                },
                10,
            ),
            (JobError::NotFound { path: text() }, 10),
            (
                JobError::MassDelete {
                    deletions: 9,
                    existing: 10,
                },
                7,
            ),
            (JobError::IncompleteSource, 7),
            (JobError::DiskFull, 7),
            (JobError::State { reason: text() }, 1),
            (JobError::SameName { name: text() }, 2),
            (JobError::Interrupted { signal: None }, 130),
            (JobError::Interrupted { signal: Some(2) }, 130),
            (JobError::Interrupted { signal: Some(15) }, 143),
        ];
        for (error, code) in cases {
            assert_eq!(Exit::of_job(&error).code(), code, "{error:?}");
        }
    }

    #[test]
    fn a_server_that_hangs_up_may_pass_and_one_that_breaks_the_rules_does_not() {
        let (authority, reason) = (text(), text());
        let busy = JobError::TurnedAway { authority, reason };
        assert_eq!(Exit::of_job(&busy), Exit::Temporary);
        let (authority, reason) = (text(), text());
        let broken = JobError::Protocol { authority, reason };
        assert_eq!(Exit::of_job(&broken), Exit::Error);
    }

    #[test]
    fn every_close_code_has_the_documented_code_and_temporary_ones_agree_with_the_model() {
        let codes = [1, 1, 8, 1, 6, 6, 10, 5, 5, 5, 1, 5, 7];
        for (close, code) in CloseCode::ALL.into_iter().zip(codes) {
            let exit = Exit::of_job(&JobError::Closed {
                code: close,
                text: text(),
            });
            assert_eq!(exit.code(), code, "{close:?}");
            assert!(!close.is_temporary() || exit == Exit::Temporary, "{close:?}");
        }
    }

    #[test]
    fn every_server_error_has_the_documented_code() {
        let address = "127.0.0.1:1".parse().unwrap();
        let name = ShareName::parse("a").unwrap();
        let cases = [
            (
                ServerError::Listen {
                    address,
                    source: io::Error::from(io::ErrorKind::AddrInUse),
                },
                1,
            ),
            (
                ServerError::Share {
                    path: PathBuf::new(),
                    reason: text(),
                },
                10,
            ),
            (
                ServerError::Locked {
                    path: PathBuf::new(),
                    holder: text(),
                },
                11,
            ),
            (ServerError::DuplicateShare(name), 2),
            (ServerError::State { reason: text() }, 1),
            (ServerError::NoShares, 2),
        ];
        for (error, code) in cases {
            assert_eq!(Exit::of_server(&error).code(), code, "{error:?}");
        }
    }

    #[test]
    fn failed_items_outrank_nothing_to_do() {
        let fine = Summary::default();
        let failed = Summary {
            failed: 1,
            ..Summary::default()
        };
        for (summary, moved, idle, code) in [
            (&fine, Moved::Something, Idle::Fine, 0),
            (&fine, Moved::Nothing, Idle::Fine, 0),
            (&fine, Moved::Something, Idle::Error, 0),
            (&fine, Moved::Nothing, Idle::Error, 9),
            (&failed, Moved::Nothing, Idle::Error, 3),
            (&failed, Moved::Something, Idle::Fine, 3),
        ] {
            assert_eq!(Exit::of_summary(summary, moved, idle).code(), code);
        }
    }
}
