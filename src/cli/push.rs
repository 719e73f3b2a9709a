//! `syncline push SRC… LINK`: local files and folders to a share.
//! Never resolves where a source ends up: the engine does, and says so once.

use super::complaint::Complaint;
use super::report::plain;
use super::session::{Ending, Session};
use super::transfer::{self, TransferFlags};
use clap::Args;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use syncline::model::Link;
use syncline::node::{Durability, Job, Source};

/// The flags and operands of `push`.
#[derive(Debug, Args)]
#[command(override_usage = "syncline push [OPTIONS] SRC… LINK")]
#[command(after_long_help = "\
Examples:
  syncline push ~/Pictures 'syncline://nas:7171/Share'          makes Share/Pictures
  syncline push ~/Pictures/ 'syncline://nas:7171/Share/2026/'   its contents into Share/2026
  syncline push --delete --exclude '*.tmp' src/ 'LINK'          the same tree, without leftovers
  syncline push -n src/ 'LINK'                                  only shows what would be done

A trailing slash on a source means its contents, as in rsync. After an interruption run the same
command again: files that are complete are kept, one that was under way goes on where it stopped.")]
pub(crate) struct Flags {
    /// Files and folders to send, then the link to send them to
    #[arg(required = true, num_args = 1.., value_name = "OPERAND")]
    operands: Vec<OsString>,
    #[command(flatten)]
    transfer: TransferFlags,
}

/// Runs the command.
pub(crate) fn run(session: &Session, flags: &Flags) -> Result<Ending, Complaint> {
    let (sources, target) = split(&flags.operands)?;
    let network = flags.transfer.network.options(session, &target)?;
    // The server decides when a push is acknowledged.
    let options = flags.transfer.options(Durability::Barrier)?;
    transfer::run(
        session,
        &flags.transfer,
        &network,
        &Job::Push { sources, target },
        &options,
    )
}

const SHAPE: &str = "like this: syncline push SRC… 'syncline://HOST:PORT/SHARE'";

fn split(operands: &[OsString]) -> Result<(Vec<Source>, Link), Complaint> {
    let (last, sources) = operands.split_last().expect("clap requires one operand");
    if let Some(early) = sources.iter().position(|operand| is_link(operand)) {
        let what = format!("operand {} is a link, but only the last one can be", early + 1);
        return Err(Complaint::usage(
            what,
            format!("{SHAPE}; `syncline pull` fetches from a link"),
        ));
    }
    if !is_link(last) {
        let what = format!(
            "the last operand, {}, is no link, so I do not know where to push to",
            show(last)
        );
        return Err(Complaint::usage(what, SHAPE));
    }
    if sources.is_empty() {
        return Err(Complaint::usage("nothing to push was named", SHAPE));
    }
    if sources.iter().any(|operand| operand.is_empty()) {
        return Err(Complaint::usage("the name of a source is empty", SHAPE));
    }
    let text = last
        .to_str()
        .ok_or_else(|| Complaint::usage("the link is not text", SHAPE))?;
    let link = text.parse().map_err(Complaint::link)?;
    Ok((sources.iter().map(|operand| source(operand)).collect(), link))
}

/// Whether an operand means to be a link.
pub(crate) fn is_link(operand: &OsStr) -> bool {
    operand.to_str().is_some_and(Link::looks_like)
}

/// An operand as it can be shown.
pub(crate) fn show(operand: &OsStr) -> String {
    format!("\"{}\"", plain(&operand.to_string_lossy()))
}

/// Whether a path was written as "the contents of this directory": with a slash at its end, or as
/// `.` or `..`, which name no directory that could be made at the target.
pub(crate) fn names_contents(operand: &OsStr) -> bool {
    let last = operand.as_bytes().rsplit(|&byte| byte == b'/').next();
    matches!(last, Some(b"" | b"." | b".."))
}

fn source(operand: &OsStr) -> Source {
    Source {
        path: PathBuf::from(operand),
        contents_only: names_contents(operand),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operands(list: &[&str]) -> Vec<OsString> {
        list.iter().map(OsString::from).collect()
    }

    #[test]
    fn trailing_slashes_and_dots_mean_contents_as_in_rsync() {
        for (operand, contents) in [
            ("a", false),
            ("a/", true),
            ("a/b", false),
            (".", true),
            ("..", true),
            ("a/.", true),
            ("a/..", true),
            (".hidden", false),
            ("/", true),
        ] {
            assert_eq!(names_contents(OsStr::new(operand)), contents, "{operand}");
        }
    }

    #[test]
    fn sources_keep_their_order_and_the_link_is_last() {
        let (sources, link) = split(&operands(&["b/", "a", "syncline://h:1/S/sub/"])).unwrap();
        assert_eq!(
            sources[0],
            Source {
                path: "b/".into(),
                contents_only: true
            }
        );
        assert_eq!(
            sources[1],
            Source {
                path: "a".into(),
                contents_only: false
            }
        );
        assert!(link.trailing_slash);
    }

    #[test]
    fn operands_that_make_no_push_are_explained_with_code_2() {
        for (list, part) in [
            (&["a", "b"][..], "is no link"),
            (&["syncline://h:1/S"], "nothing to push"),
            (&["", "syncline://h:1/S"], "is empty"),
            (&["syncline://h:1/S", "a"], "operand 1 is a link"),
            (&["a", "syncline://h:x/S"], "no port"),
        ] {
            let complaint = split(&operands(list)).unwrap_err();
            assert!(complaint.what.contains(part), "{list:?}: {}", complaint.what);
            assert_eq!(complaint.exit.code(), 2);
            assert!(!complaint.advice.is_empty());
        }
    }

    #[test]
    fn a_damaged_link_is_not_repeated_because_it_may_hold_a_secret() {
        let complaint = split(&operands(&["a", "syncline://h:1/S#deadbeef"])).unwrap_err();
        assert!(!complaint.what.contains("deadbeef") && !complaint.advice.contains("deadbeef"));
    }
}
