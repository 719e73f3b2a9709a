//! Syncline moves and syncs files between machines.

pub mod conn;
pub mod delta;
pub mod model;
pub mod store;
pub mod wire;
