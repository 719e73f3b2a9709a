//! Syncline moves and syncs files between machines.

pub mod model;
pub mod reactor;
