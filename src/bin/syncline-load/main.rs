//! Puts a server under load and says how it does: thousands of clients of the library on one thread.
//! Parses, runs, prints one report, picks the exit code; holds no logic of its own.
//!
//! | file | owns |
//! |---|---|
//! | `settings`, `scenario` | the command line; who plays which role |
//! | `content`, `seeds` | what files contain: all from one seed, next to nothing held |
//! | `schedule` | when syncs are meant to begin |
//! | `fleet`, `actor`, `handling` | the clients: what comes next, what happens on their connections |
//! | `pushing`, `fetching`, `attack` | what a client does in a sync, well or badly |
//! | `run`, `security` | the loop; keys |
//! | `tally`, `histogram`, `usage` | the books; what this process took |
//! | `report`, `chart`, `verify` | table, JSON and chart; the comparison afterwards |

mod actor;
mod attack;
mod chart;
mod complaint;
mod content;
mod fetching;
mod fleet;
mod handling;
mod histogram;
mod pushing;
// What people write and read is the same in both binaries; each uses a part of it.
#[allow(dead_code)]
#[path = "../../cli/quantity.rs"]
mod quantity;
mod report;
mod run;
mod scenario;
mod schedule;
mod security;
mod seeds;
mod settings;
mod tally;
mod usage;
mod verify;

use complaint::{Complaint, Exit};
use settings::{Flags, Settings};
use std::process::ExitCode;

fn main() -> ExitCode {
    let flags = match Flags::parse_from_args(std::env::args_os()) {
        Ok(flags) => flags,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(error.exit_code() as u8);
        }
    };
    let is_json = flags.is_json();
    let exit = match flags.settings().and_then(load) {
        Ok(exit) => exit,
        Err(complaint) => {
            eprintln!("syncline-load: {}\n  {}", complaint.what, complaint.advice);
            if is_json {
                report::print_complaint(&complaint);
            }
            complaint.exit
        }
    };
    ExitCode::from(exit.code())
}

fn load(settings: Settings) -> Result<Exit, Complaint> {
    usage::raise_descriptor_limit(settings.roles.len())?;
    let fleet = run::run(settings)?;
    let checked = match &fleet.settings.verify {
        Some(share) => Some(verify::verify(share, &fleet)?),
        None => None,
    };
    let exit = report::print(&fleet, checked.as_ref());
    if let Some(file) = &fleet.settings.chart {
        chart::write(file, &fleet)?;
    }
    Ok(exit)
}
