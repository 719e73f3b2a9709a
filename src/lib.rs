//! Syncline moves and syncs files between machines.

pub mod conn;
pub mod delta;
pub mod model;
pub mod node;
pub mod reactor;
pub mod store;
pub mod wire;
