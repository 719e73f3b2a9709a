//! The delta index: what is known of a file's content without the content.
//!
//! A flat sidecar of about 1 % of the file, read where it lies (mapped); its byte table is in
//! `docs/FORMAT.md`. Built chunk by chunk, in any order, from the read that a transfer does anyway.
//! Invariant: an [`IndexView`] is only a hint. What is made with it counts when the root of the result
//! is right, and only then.

mod anchors;
#[cfg(target_arch = "x86_64")]
mod anchors_x86;
mod chunk;
mod leaf_sums;
#[cfg(target_arch = "x86_64")]
mod leaf_sums_x86;
mod proving;
mod sidecar;
mod sums;

#[doc(hidden)]
pub use anchors::scan_anchors_portable;
pub use anchors::{ANCHORS_PER_LEAF_MAX, Anchor, CONTEXT_BYTES, anchor_bits, scan_anchors, search_anchors};
pub use chunk::{ChunkIndex, root_of_leaves, subtree_root};
pub(in crate::delta) use leaf_sums::LeafSums;
pub use leaf_sums::leaves_of;
pub use proving::{Proven, Proving};
pub use sidecar::{
    ANCHOR_BYTES, HEAD_BYTES, IndexError, IndexHeader, IndexView, Parts, Placed, STAMP_BYTES, STAMP_OFFSET, Sidecar,
    build,
};
pub use sums::Sums;

/// Bytes covered by one CRC-32.
pub const BLOCK_BYTES: usize = 1024;
/// CRCs per leaf.
pub const BLOCKS_PER_LEAF: usize = crate::model::limits::LEAF_BYTES / BLOCK_BYTES;
/// Bytes of a chunk: a whole subtree of 256 leaves.
pub const CHUNK_BYTES: usize = 4 << 20;
