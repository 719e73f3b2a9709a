//! The fuzz targets' common part; `tests/mutation.rs` of the crate includes the same file.

pub mod bodies;
pub mod compares;
pub mod http;
pub mod plans;
pub mod streams;
