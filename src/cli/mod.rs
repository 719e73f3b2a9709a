//! The command line: one file per command; what they share is beside them.
//! Never touches a socket or a share's files itself: commands ask the node layer.
//!
//! | file | owns |
//! |---|---|
//! | `absent` | commands that this build leaves out |
//! | `flags` | the command line as a whole, environment variables |
//! | `config` | the config file |
//! | `console` | where output goes |
//! | `progress`, `report`, `complaint` | what a run says while it runs, at its end, when it fails |
//! | `exit` | exit codes |
//! | `quantity` | sizes, rates, durations as text |
//! | `filters`, `transfer` | what push and pull share |
//! | `address` | listen addresses, and this machine's own |
//! | `welcome` | what a server says once it listens |
//! | `sample` | the demo's data |
//! | `collision` | what is said of names that have no place |
//! | `scratch` | temporary directories that go away |
//! | the rest | one command each |

mod absent;
mod address;
mod bandwidth;
mod capacity;
#[cfg(feature = "sync")]
mod collision;
mod complaint;
#[cfg(feature = "tools")]
mod completions;
mod config;
mod conflicts;
mod console;
#[cfg(feature = "tools")]
mod delta;
#[cfg(feature = "tools")]
mod demo;
mod devices;
mod doctor;
mod exit;
mod filters;
mod flags;
#[cfg(feature = "sync")]
mod folder;
mod id;
mod invite;
mod journal;
mod log;
#[cfg(feature = "sync")]
mod ls;
#[cfg(feature = "sync")]
mod meeting;
#[cfg(feature = "sync")]
mod peer;
mod progress;
mod pull;
mod push;
mod quantity;
mod repeating;
mod report;
mod restore;
mod revoke;
#[cfg(feature = "tools")]
mod sample;
mod scratch;
mod serve;
mod session;
mod status;
#[cfg(feature = "sync")]
mod sync;
#[cfg(feature = "sync")]
mod sync_report;
#[cfg(feature = "sync")]
mod tidying;
mod transfer;
mod trash;
mod versions;
mod welcome;

pub(crate) use session::main;
