//! Syncline moves and syncs files between machines.

pub mod delta;
pub mod model;
pub mod store;
