//! `syncline sync DIR [LINK]`: a folder and a share, kept the same.
//! Never decides what goes where: the engine plans, and says what gave way.

use super::complaint::Complaint;
use super::push::show;
use super::quantity;
use super::serve::DurabilityFlag;
use super::session::{Ending, Session};
use super::transfer::{self, NetworkFlags};
use clap::{Args, ValueEnum};
use std::path::PathBuf;
use syncline::model::Link;
use syncline::node::{Job, MaxDelete, SyncOptions, linked};
use syncline::sync::Mode;

/// The flags and operands of `sync`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  syncline sync ~/Share 'syncline://nas:7171/Share#…'   the first time: both get what the other has
  syncline sync ~/Share                                 from then on: the folder remembers its share
  syncline sync ~/Share --watch                         goes on, and carries each change over at once

What is deleted or replaced is kept: `syncline versions` and `syncline restore` get it back. When both sides
changed a file, the share's version keeps the name, and yours stays beside it as
NAME.sync-conflict-DATE-DEVICE; the run then ends with code 4.")]
pub(crate) struct Flags {
    /// The folder
    dir: PathBuf,
    /// The share to keep it in sync with; needed the first time only
    link: Option<String>,
    /// Go on: carry changes over as soon as they are made, on either side
    #[arg(long)]
    watch: bool,
    /// Which side follows which
    #[arg(long, value_name = "MODE", default_value = "two-way-safe")]
    mode: ModeFlag,
    /// Refuse to delete more than this on either side: a number, a percentage, or unlimited [default: half, if over 25]
    #[arg(long, value_name = "N|N%", value_parser = quantity::parse_max_delete)]
    max_delete: Option<MaxDelete>,
    /// When a file counts as synced: barrier is when it is safely on disk, none leaves that to the system
    #[arg(long, value_name = "WHEN", default_value = "barrier")]
    durability: DurabilityFlag,
    #[command(flatten)]
    network: NetworkFlags,
}

/// The modes, as they are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ModeFlag {
    /// Both sides; what both changed is kept twice
    TwoWaySafe,
    /// Both sides; what both changed is the share's, and yours goes to the versions
    TwoWayResolved,
    /// From here to the share; nothing that was changed there is lost
    OneWaySafe,
    /// From here to the share, which becomes the same; what was changed there goes to its versions
    OneWayReplica,
    /// From the share to here; what is changed here stays here
    ReceiveOnly,
}

impl From<ModeFlag> for Mode {
    fn from(flag: ModeFlag) -> Mode {
        match flag {
            ModeFlag::TwoWaySafe => Mode::TwoWaySafe,
            ModeFlag::TwoWayResolved => Mode::TwoWayResolved,
            ModeFlag::OneWaySafe => Mode::OneWaySafe,
            ModeFlag::OneWayReplica => Mode::OneWayReplica,
            ModeFlag::ReceiveOnly => Mode::ReceiveOnly,
        }
    }
}

/// Runs the command.
pub(crate) fn run(session: &Session, flags: &Flags) -> Result<Ending, Complaint> {
    let link = match &flags.link {
        Some(text) => Some(parse(text)?),
        None => None,
    };
    let known = match &link {
        Some(link) => link.clone(),
        None => linked(&flags.dir)?,
    };
    let network = flags.network.options(session, &known)?;
    let options = SyncOptions {
        mode: flags.mode.into(),
        max_delete: flags.max_delete.unwrap_or_default(),
        watch: flags.watch,
        durability: flags.durability.into(),
    };
    let job = Job::Sync {
        folder: flags.dir.clone(),
        link,
        options,
    };
    transfer::sync(session, &network, job)
}

fn parse(text: &str) -> Result<Link, Complaint> {
    if !Link::looks_like(text) {
        let what = format!("{} is no link", show(text.as_ref()));
        return Err(Complaint::usage(
            what,
            "like this: syncline sync DIR 'syncline://HOST:PORT/SHARE#…'; `syncline serve` prints one",
        ));
    }
    let link: Link = text.parse().map_err(Complaint::link)?;
    if link.path.is_some() {
        let what = "a folder is synced with a whole share, and this link names a path in one";
        return Err(Complaint::usage(
            what,
            "serve that folder as a share of its own, or use push and pull",
        ));
    }
    Ok(link)
}
