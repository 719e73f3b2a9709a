//! What a user reads when a command as a whole did not succeed: one sentence, what to try, a code.
//! Never a backtrace, never an error chain.

use super::exit::Exit;
use super::report::plain;
use std::io;
pub(crate) use syncline::model::system_reason as reason;
use syncline::model::{CloseCode, LinkError};
use syncline::node::{JobError, ServerError, Summary};
use syncline::store::StateError;

/// The one error that a run prints.
#[derive(Debug)]
pub(crate) struct Complaint {
    /// The exit code's meaning.
    pub(crate) exit: Exit,
    /// What happened, and to what.
    pub(crate) what: String,
    /// What to try next; empty when there is nothing sensible to say.
    pub(crate) advice: String,
    /// What was done before it happened.
    pub(crate) summary: Box<Summary>,
}

impl Complaint {
    /// A complaint of the given kind.
    pub(crate) fn new(exit: Exit, what: impl Into<String>, advice: impl Into<String>) -> Complaint {
        Complaint {
            exit,
            what: what.into(),
            advice: advice.into(),
            summary: Box::default(),
        }
    }

    /// The command line or the config file is wrong.
    pub(crate) fn usage(what: impl Into<String>, advice: impl Into<String>) -> Complaint {
        Complaint::new(Exit::Usage, what, advice)
    }

    /// A link that cannot be read. The link itself is not repeated: it may hold a secret.
    pub(crate) fn link(error: LinkError) -> Complaint {
        let advice = "a link looks like syncline://HOST:PORT/SHARE; quote it, and paste it whole";
        Complaint::usage(format!("this is not a link that I can use: {error}"), advice)
    }

    /// An unexpected error of the system.
    pub(crate) fn io(doing: &str, error: &io::Error) -> Complaint {
        Complaint::new(Exit::Error, format!("cannot {doing}: {}", reason(error)), "")
    }
}

impl From<StateError> for Complaint {
    fn from(error: StateError) -> Complaint {
        let advice = "`syncline doctor` looks into it; --home DIR uses another directory";
        Complaint::new(Exit::Error, plain(&error.to_string()), advice)
    }
}

impl From<JobError> for Complaint {
    fn from(error: JobError) -> Complaint {
        Complaint::new(Exit::of_job(&error), plain(&error.to_string()), job_advice(&error))
    }
}

impl From<ServerError> for Complaint {
    fn from(error: ServerError) -> Complaint {
        Complaint::new(
            Exit::of_server(&error),
            plain(&server_text(&error)),
            server_advice(&error),
        )
    }
}

fn job_advice(error: &JobError) -> &'static str {
    match error {
        JobError::Resolve { .. } => "check the host name in the link",
        JobError::Connect { .. } => {
            "check that `syncline serve` runs there and that no firewall is between, then run this again"
        }
        JobError::Lost { .. } => "run the same command again: what is complete is kept",
        JobError::WrongServer { .. } => {
            "if the server was set up anew, ask for a new invite link; otherwise somebody may be in between"
        }
        JobError::NotSyncline { .. } => "check the port, and use --plain on both sides or on neither",
        JobError::TurnedAway { .. } => {
            "if the server is busy, try again in a moment; otherwise check the port, and use --plain on both sides or on neither"
        }
        JobError::Protocol { .. } => "update the older of the two sides; if it repeats, report it with the log (-v)",
        JobError::Closed { code, .. } => close_advice(*code),
        JobError::Source { .. } => "check the name and the permissions",
        JobError::SameName { .. } => "send them one after the other, to different directories",
        JobError::Target { .. } => "check that the directory above it exists and that you may write there",
        JobError::NotFound { .. } => "check the path after the share's name in the link",
        JobError::MassDelete { .. } => {
            "check that the source is the right one and complete; if they shall go, add --max-delete N or N%"
        }
        JobError::IncompleteSource => {
            "make all of both readable (what could not be read is named above), or leave --delete out"
        }
        JobError::DiskFull => "free some space and run the same command again: what is complete is kept",
        JobError::Unsupported { .. } => "update the server, or leave --inplace out",
        JobError::Filter { .. } => "rules are written as in .gitignore: --exclude '*.tmp' --exclude build/",
        JobError::State { .. } => "`syncline doctor` looks into it; --home DIR uses another directory",
        #[cfg(feature = "sync")]
        JobError::Folder(error) => folder_advice(error),
        JobError::Interrupted { .. } => "run the same command again: what is complete is kept",
    }
}

#[cfg(feature = "sync")]
fn folder_advice(error: &syncline::node::FolderError) -> &'static str {
    use syncline::node::FolderError;
    match error {
        FolderError::Unusable { .. } => "check the name, and that you may write there",
        FolderError::Locked { .. } => {
            "let the other one finish, or end it; a `sync --watch` carries changes over by itself"
        }
        FolderError::Unlinked { .. } => {
            "give it a link once: syncline sync DIR 'syncline://HOST:PORT/SHARE#…' (`syncline serve` prints one); \
             if it was synced before, its disk may not be mounted"
        }
        FolderError::Linked { .. } => {
            "use another folder for this share, or have this one forget the other: syncline unlink DIR"
        }
        FolderError::Served { .. } => "sync another folder with this one: `syncline serve` prints the command for it",
        FolderError::Base { .. } => "free some space, check the disk, and run it again",
    }
}

#[cfg(feature = "sync")]
impl From<syncline::node::FolderError> for Complaint {
    fn from(error: syncline::node::FolderError) -> Complaint {
        Complaint::from(JobError::Folder(error))
    }
}

fn close_advice(code: CloseCode) -> &'static str {
    match code {
        CloseCode::Refused => {
            "an invite works once and not for long: make a new one with `syncline invite` on the server"
        }
        CloseCode::Forbidden => "ask for an invite with that right: `syncline invite` on the server",
        CloseCode::NotFound => "check the share and the path in the link",
        CloseCode::Version => "update the older of the two sides",
        CloseCode::Busy | CloseCode::Timeout | CloseCode::Stopping | CloseCode::Interrupted => {
            "run the same command again in a moment: what is complete is kept"
        }
        CloseCode::Gone => {
            "look on the server where that folder is (a disk that is not mounted?), then start `syncline serve` again"
        }
        CloseCode::Limit => "split the job into smaller ones",
        CloseCode::Done | CloseCode::Protocol | CloseCode::Internal => {
            "run it again; if it repeats, look into the log of the server (-v) and report it"
        }
    }
}

fn server_text(error: &ServerError) -> String {
    match error {
        ServerError::Listen { address, source } if source.kind() == io::ErrorKind::AddrInUse => {
            format!("{address} is already in use")
        }
        ServerError::Listen { address, source } => {
            format!("cannot listen on {address}: {}", reason(source))
        }
        other => other.to_string(),
    }
}

fn server_advice(error: &ServerError) -> &'static str {
    match error {
        ServerError::Listen { source, .. } => match source.kind() {
            io::ErrorKind::AddrInUse => {
                "stop what listens there (`syncline status` shows servers of yours), or pick another port: --listen 0.0.0.0:7172"
            }
            io::ErrorKind::PermissionDenied => "ports below 1024 need privileges: --listen 0.0.0.0:7171",
            io::ErrorKind::AddrNotAvailable => {
                "this machine has no such address: --listen 0.0.0.0:7171 takes all it has"
            }
            _ => "choose another address: --listen ADDRESS:PORT",
        },
        ServerError::Metrics { .. } => "choose another address: --metrics 127.0.0.1:0 picks a free port",
        ServerError::Share { .. } => "name a directory that exists and that you may read: syncline serve DIR",
        ServerError::Locked { .. } => "stop the other one first, or serve another folder",
        ServerError::SameFolder { .. } => "name each folder once: syncline serve DIR=NAME OTHER=NAME",
        ServerError::Synced { .. } => {
            "have other devices sync with that share, too, or have this folder forget it first: syncline unlink DIR"
        }
        ServerError::NobodyToTellApart => {
            "leave out --per-device, or --open (and --plain): `syncline invite` lets devices in"
        }
        ServerError::NoSuchShare(_) => "name a share that this server has: --bwlimit NAME=5M",
        ServerError::DuplicateShare(_) => "give one of them another name: syncline serve DIR=NAME",
        ServerError::State { .. } => "`syncline doctor` looks into it; --home DIR uses another directory",
        ServerError::NoShares => "name a directory: syncline serve DIR",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_says_so_in_one_sentence_and_names_another() {
        let error = ServerError::Listen {
            address: "0.0.0.0:7171".parse().unwrap(),
            source: io::Error::from(io::ErrorKind::AddrInUse),
        };
        let complaint = Complaint::from(error);
        assert_eq!(complaint.what, "0.0.0.0:7171 is already in use");
        assert!(complaint.advice.contains("--listen"), "{}", complaint.advice);
        assert_eq!(complaint.exit.code(), 1);
    }

    #[test]
    fn what_a_server_says_cannot_steer_the_terminal() {
        let error = JobError::Closed {
            code: CloseCode::Refused,
            text: "a\x1b[2J\nb".to_owned(),
        };
        let complaint = Complaint::from(error);
        assert!(
            !complaint.what.contains('\x1b') && !complaint.what.contains('\n'),
            "{}",
            complaint.what
        );
    }

    /// A file that was under way starts again: no advice may promise more.
    #[test]
    fn nothing_promises_to_resume_inside_a_file() {
        let interrupted = job_advice(&JobError::Interrupted { signal: None });
        for advice in [
            interrupted,
            job_advice(&JobError::DiskFull),
            close_advice(CloseCode::Stopping),
        ] {
            assert!(!advice.contains("where it stopped"), "{advice}");
            assert!(advice.contains("what is complete is kept"), "{advice}");
        }
    }

    #[test]
    fn every_ending_by_the_server_says_what_to_try() {
        for code in CloseCode::ALL {
            assert!(!close_advice(code).is_empty(), "{code:?}");
        }
    }
}
