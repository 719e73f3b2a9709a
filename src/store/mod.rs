//! The only code that touches files: roots, scans, staging, publishing, durability, locks, mappings,
//! sidecars, the state directory, filters.
//!
//! Layer 2. Every path from outside is a [`RelPath`](crate::model::RelPath) that is resolved beneath
//! a [`Root`]; nothing here follows a symbolic link below one. Nothing here knows about connections.

mod activity;
mod alike;
mod barrier;
mod book;
mod calendar;
mod changes;
mod error;
mod facts;
mod filter;
#[cfg(feature = "sync")]
mod folder_link;
#[cfg(feature = "sync")]
mod folder_notes;
mod glob;
mod holes;
mod home;
mod ignore;
#[cfg(feature = "sync")]
mod index;
mod inplace;
mod journal;
mod kept;
mod laid;
mod lock;
mod map;
mod marks;
mod meta;
mod names;
mod new_file;
mod ours;
mod owner;
mod patched;
mod private;
mod process;
mod publish;
mod recovery;
mod resolve;
#[doc(hidden)]
pub mod rewriting;
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
mod spelling;
mod staged;
mod staging;
#[cfg(feature = "sync")]
mod survey;
mod trust;
mod undo;
mod versions;
mod watch;

pub use activity::{
    ActivityEntry, ActivityLine, ActivityPath, ActivityQuery, ActivityReader, ActivityWriter, Change, Happened,
    RunFigures, RunKind, Side, Who,
};
pub use barrier::Barrier;
pub use calendar::stamp_now;
pub use error::{FileError, Operation};
pub use facts::{Found, FoundKind, Identity, inspect};
pub use filter::{Decision, Filter, FilterError, PathKind, Rule};
#[cfg(feature = "sync")]
pub use folder_link::{folder_link, peer_note, set_folder_link, set_peer_note};
#[cfg(feature = "sync")]
pub use folder_notes::{
    LastRun, NotedCollision, collisions, folder_is_paused, forget_sync, is_index_of_a_share, last_run, note_collisions,
    note_run, note_tidied, pause_folder, since_tidied,
};
pub use glob::GlobError;
pub use home::{Home, StateError};
pub use ignore::{Ignore, IgnoreProblem, Reason as IgnoreReason, Verdict};
#[cfg(feature = "sync")]
pub use index::{Batch, FoundIndex, Index, IndexError, IndexOptions, OpenedIndex, Record, RecordWalk, Snapshot};
pub use inplace::InPlace;
pub use journal::{
    Examined, ExaminedTransfer, Incoming, Journal, JournalError, PlanBasis, Reached, Repaired, StagedBytes, Subject,
    TransferId, Unfinished,
};
pub use laid::Laid;
pub use lock::{LockError, ShareLock};
pub use map::Window;
pub use new_file::{Existing, NewFile, scratch_file};
pub use owner::{is_vacant, owned_directories, owner_of, set_owner};
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
pub use spelling::Folding;
pub use staged::{Flushing, Sealed, StagedFile};
pub use staging::{Room, Staging, Sweep};
#[cfg(feature = "sync")]
pub(crate) use survey::agrees;
#[cfg(feature = "sync")]
pub use survey::{Difference, Survey};
pub use trust::{Device, Redeemed, Stamp, Trust};
pub use undo::Flush;
pub use versions::{
    Author, AuthorTag, Keeping, KeptAt, Reason, RestoreError, Retention, SizeBound, Stay, Tidied, Tidying, Version,
    VersionName, VersionWalk, Versions, restore, versions_of,
};
pub use watch::{Dirt, Notice, Settle, Shortage, Unwatched, Watch, WatchError, WatchOptions};
