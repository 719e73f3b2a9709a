//! `syncline pull LINK… DST`: files and folders of a share to a local place.
//! Never writes there itself, and never resolves what ends up where: the engine does both.

use super::complaint::Complaint;
use super::push::{is_link, names_contents, show};
use super::serve::DurabilityFlag;
use super::session::{Ending, Session};
use super::transfer::{self, TransferFlags};
use clap::Args;
use std::ffi::OsString;
use std::path::PathBuf;
use syncline::model::Link;
use syncline::model::limits::SOURCES_MAX;
use syncline::node::Job;

/// The flags and operands of `pull`.
#[derive(Debug, Args)]
#[command(override_usage = "syncline pull [OPTIONS] LINK… DST")]
#[command(after_long_help = "\
Examples:
  syncline pull 'syncline://nas:7171/Share#…' ~/Share           the whole share
  syncline pull 'syncline://nas:7171/Share/film.mkv' .          one file into this directory
  syncline pull --delete 'syncline://nas:7171/Share/src/' src/  the same tree, without leftovers
  syncline pull -n 'LINK' DIR                                   only shows what would be done

Several links may be given if they name the same server and share. After an interruption run the
same command again: files that are complete are kept, one that was under way starts again.")]
pub(crate) struct Flags {
    /// Links to what to fetch, then the place to put it
    #[arg(required = true, num_args = 1.., value_name = "OPERAND")]
    operands: Vec<OsString>,
    /// When a file counts as fetched: barrier is when it is safely on disk, none leaves that to the system
    #[arg(long, value_name = "WHEN", default_value = "barrier")]
    durability: DurabilityFlag,
    #[command(flatten)]
    transfer: TransferFlags,
}

/// Runs the command.
pub(crate) fn run(session: &Session, flags: &Flags) -> Result<Ending, Complaint> {
    let (links, target) = split(&flags.operands)?;
    let network = flags.transfer.network.options(session, &links[0])?;
    let options = flags.transfer.options(flags.durability.into())?;
    let target_is_directory = names_contents(&target);
    let job = Job::Pull {
        links,
        target: PathBuf::from(target),
        target_is_directory,
    };
    transfer::run(session, &flags.transfer, &network, &job, &options)
}

const SHAPE: &str = "like this: syncline pull 'syncline://HOST:PORT/SHARE' DIR";

/// The links, at least one and all of one share, and the target.
fn split(operands: &[OsString]) -> Result<(Vec<Link>, OsString), Complaint> {
    let (target, sources) = operands.split_last().expect("clap requires one operand");
    if is_link(target) {
        let what = "the last operand is a link, so I do not know where to put what is fetched";
        return Err(Complaint::usage(what, format!("{SHAPE}; `.` is this directory")));
    }
    if sources.is_empty() {
        return Err(Complaint::usage("no link was given", SHAPE));
    }
    if sources.len() > SOURCES_MAX {
        return Err(Complaint::usage(
            format!("more than {SOURCES_MAX} links"),
            "pull the directory above them",
        ));
    }
    if target.is_empty() {
        return Err(Complaint::usage(
            "the target is empty",
            format!("{SHAPE}; `.` is this directory"),
        ));
    }
    let mut links: Vec<Link> = Vec::with_capacity(sources.len());
    for operand in sources {
        if !is_link(operand) {
            return Err(Complaint::usage(format!("{} is no link", show(operand)), SHAPE));
        }
        let text = operand
            .to_str()
            .ok_or_else(|| Complaint::usage("a link is not text", SHAPE))?;
        let link: Link = text.parse().map_err(Complaint::link)?;
        if links
            .first()
            .is_some_and(|first| first.authority() != link.authority() || first.share != link.share)
        {
            let what = "these links name different servers or shares";
            return Err(Complaint::usage(what, "run one pull for each share"));
        }
        links.push(link);
    }
    Ok((links, target.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operands(list: &[&str]) -> Vec<OsString> {
        list.iter().map(OsString::from).collect()
    }

    #[test]
    fn several_links_of_one_share_and_a_target() {
        let (links, target) = split(&operands(&["syncline://h:1/S/a", "syncline://h:1/S/b", "dst/"])).unwrap();
        assert_eq!(links.len(), 2);
        assert_eq!(target, "dst/");
    }

    #[test]
    fn operands_that_make_no_pull_are_explained_with_code_2() {
        for (list, part) in [
            (&["syncline://h:1/S"][..], "where to put"),
            (&["dst"], "no link was given"),
            (&["a", "dst"], "\"a\" is no link"),
            (
                &["syncline://h:1/S", "syncline://h:1/T", "dst"],
                "different servers or shares",
            ),
            (
                &["syncline://h:1/S", "syncline://h:2/S", "dst"],
                "different servers or shares",
            ),
            (&["syncline://h:1/S", ""], "empty"),
            (&["syncline://h:1/S/../x", "dst"], "\"..\""),
        ] {
            let complaint = split(&operands(list)).unwrap_err();
            assert!(complaint.what.contains(part), "{list:?}: {}", complaint.what);
            assert_eq!(complaint.exit.code(), 2);
        }
    }
}
