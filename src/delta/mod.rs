//! The content tree: what a file contains, as one hash that can be compared part by part.
//!
//! Layer 1: pure over slices. Nothing here opens a file, reads a clock or starts a thread.

#[cfg(feature = "zstd")]
mod codec;
#[cfg(not(feature = "zstd"))]
#[path = "codec_absent.rs"]
mod codec;
pub mod index;
pub mod prefix;
mod sha256;
#[cfg(target_arch = "x86_64")]
mod sha_avx512;
#[cfg(target_arch = "x86_64")]
mod sha_x86;
pub mod signature;
pub mod squeeze;
mod tree;

pub use sha256::{digest, hash_pair};
pub use tree::{TreeHasher, content_id};
