//! Whether two states are the same: content, metadata, both.
//!
//! Compares values only. Invariant: two contents are the same only if that is proven, by equal roots,
//! link targets, or there being nothing to differ.

use crate::model::{Kind, State};

/// How two contents compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    Same,
    Differs,
    /// Files of one size; the local one was not read.
    Unknown,
}

/// Compares what stands here with a state that was told or agreed, whose root is known.
pub(super) fn content(local: &State, told: &State) -> Content {
    match (&local.kind, &told.kind) {
        (Kind::Directory, Kind::Directory) => Content::Same,
        (Kind::Symlink { target }, Kind::Symlink { target: other }) if target == other => Content::Same,
        (Kind::File { size }, Kind::File { size: other }) if size == other => match (local.root, told.root) {
            _ if *size == 0 => Content::Same,
            (Some(root), Some(other)) if root == other => Content::Same,
            (None, Some(_)) => Content::Unknown,
            _ => Content::Differs,
        },
        _ => Content::Differs,
    }
}

/// Whether mode and time agree, as far as they travel: both of a file, the mode of a directory (its
/// time follows from what is done in it), neither of a link.
pub(super) fn same_meta(a: &State, b: &State) -> bool {
    match a.kind {
        Kind::File { .. } => a.meta == b.meta,
        Kind::Directory => a.meta.mode == b.meta.mode,
        Kind::Symlink { .. } => true,
    }
}

/// Whether all that travels is proven to be the same.
pub(super) fn equal(local: Option<&State>, told: Option<&State>) -> bool {
    match (local, told) {
        (None, None) => true,
        (Some(local), Some(told)) => content(local, told) == Content::Same && same_meta(local, told),
        _ => false,
    }
}

/// Whether one can replace the other in place.
pub(super) fn same_kind(a: &State, b: &State) -> bool {
    std::mem::discriminant(&a.kind) == std::mem::discriminant(&b.kind)
}

pub(super) fn is_directory(state: Option<&State>) -> bool {
    state.is_some_and(|state| state.kind == Kind::Directory)
}
