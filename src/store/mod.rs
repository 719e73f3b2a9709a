//! The only code that touches files: roots, scans, staging, publishing, durability, locks, mappings,
//! sidecars, the state directory, filters.
//!
//! Layer 2. Every path from outside is a [`RelPath`](crate::model::RelPath) that is resolved beneath
//! a [`Root`]; nothing here follows a symbolic link below one. Nothing here knows about connections.

mod barrier;
mod book;
mod calendar;
mod changes;
mod conflict;
mod error;
mod facts;
mod filter;
mod glob;
mod home;
mod inplace;
mod journal;
mod kept;
mod laid;
mod lock;
mod map;
mod marks;
mod meta;
mod new_file;
mod patched;
mod private;
mod process;
mod publish;
mod recovery;
mod resolve;
mod room;
mod root;
mod running;
mod scan;
mod shadow_segment;
mod shadows;
mod sidecar_copy;
mod sidecar_opening;
mod sidecar_table;
mod sidecar_writer;
mod sidecars;
mod source;
mod staged;
mod staging;
mod trust;
mod undo;
mod versions;

pub use barrier::{Barrier, Beside};
pub use error::{FileError, Operation};
pub use facts::{Found, FoundKind, Identity, inspect};
pub use filter::{Decision, Filter, FilterError, PathKind, Rule};
pub use glob::GlobError;
pub use home::{Home, StateError};
pub use inplace::InPlace;
pub use journal::{
    Examined, ExaminedTransfer, Incoming, Journal, JournalError, PlanBasis, Reached, Repaired, StagedBytes, Subject,
    TransferId, Unfinished,
};
pub use laid::Laid;
pub use lock::{LockError, ShareLock};
pub use map::Window;
pub use new_file::{Existing, NewFile, scratch_file};
pub use patched::PatchedFile;
pub use process::ProcessFigures;
pub use publish::{Expected, Published, publish};
pub use recovery::{KeptReason, KeptRecord, Recovery, recover};
pub use root::{MadeDirectory, Root};
pub use running::{RunFile, RunningServer};
pub use scan::{Keep, Scan, ScanItem, Shape};
pub use shadows::{Insertion, Shadows};
pub use sidecar_copy::SidecarCopy;
pub use sidecar_opening::{Opened, SidecarOpening};
pub use sidecar_writer::SidecarWriter;
pub use sidecars::{MappedSidecar, SidecarBounds, Sidecars};
pub use source::{Extent, SourceFile};
pub use staged::{Flushing, Sealed, StagedFile};
pub use staging::{Room, Staging, Sweep};
pub use trust::{Device, Redeemed, Stamp, Trust};
pub use undo::Flush;
pub use versions::{
    Author, AuthorTag, Keeping, KeptAt, Reason, RestoreError, Retention, SizeBound, Stay, Tidied, Tidying, Version,
    VersionName, VersionWalk, Versions, restore, versions_of,
};
