//! The only code that touches files: roots, staging, publishing, the state directory, filters.

mod book;
mod filter;
mod glob;
mod home;
mod running;
mod trust;

pub use filter::{Decision, Filter, FilterError, PathKind, Rule};
pub use glob::GlobError;
pub use home::{Home, StateError};
pub use running::{RunFile, RunningServer};
pub use trust::{Device, Redeemed, Stamp, Trust};
