//! Syncline moves and syncs files between machines.

pub mod conn;
pub mod model;
pub mod wire;
