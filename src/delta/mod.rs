//! The content tree: what a file contains, as one hash that can be compared part by part.
//!
//! Layer 1: pure over slices. Nothing here opens a file, reads a clock or starts a thread.

mod basis;
#[cfg(feature = "zstd")]
mod codec;
#[cfg(not(feature = "zstd"))]
#[path = "codec_absent.rs"]
mod codec;
pub mod compare;
mod content;
mod edits;
pub mod index;
mod lookup;
mod matcher;
#[cfg(test)]
mod noise;
mod pairs;
mod plan;
pub mod prefix;
mod rolling;
mod search;
mod sha256;
#[cfg(target_arch = "x86_64")]
mod sha_avx512;
#[cfg(target_arch = "x86_64")]
mod sha_x86;
pub mod signature;
mod span;
pub mod squeeze;
mod tree;

pub use basis::Work;
pub use content::{Content, STRETCH_BYTES_MAX, Torn};
pub use matcher::{Comparison, Matcher, Progress};
pub use plan::{Instruction, Op, PlanDecoder, PlanEncoder, PlanError};
pub use sha256::{digest, hash_pair};
pub use tree::{TreeHasher, content_id};
