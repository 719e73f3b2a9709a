//! Owns what a user reads when a run did not happen, and the exit codes. It never decides what went wrong.

/// How a run ended. The numbers are those of `syncline`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// All went well.
    Done,
    /// The run did not happen.
    Error,
    /// The command line is wrong.
    Usage,
    /// Some syncs failed, or files are not what they should be.
    Partial,
    /// A signal ended it early.
    Interrupted(i32),
}

impl Exit {
    /// The process's exit code.
    pub(crate) fn code(self) -> u8 {
        match self {
            Exit::Done => 0,
            Exit::Error => 1,
            Exit::Usage => 2,
            Exit::Partial => 3,
            Exit::Interrupted(signal) => 128 + (signal as u8 & 0x7f),
        }
    }
}

/// One sentence, and what to try.
#[derive(Debug)]
pub(crate) struct Complaint {
    pub(crate) exit: Exit,
    pub(crate) what: String,
    pub(crate) advice: String,
}

impl Complaint {
    /// The command line is wrong.
    pub(crate) fn usage(what: impl Into<String>, advice: impl Into<String>) -> Complaint {
        Complaint {
            exit: Exit::Usage,
            what: what.into(),
            advice: advice.into(),
        }
    }

    /// It cannot be done here and now.
    pub(crate) fn error(what: impl Into<String>, advice: impl Into<String>) -> Complaint {
        Complaint {
            exit: Exit::Error,
            ..Complaint::usage(what, advice)
        }
    }
}
