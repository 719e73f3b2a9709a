//! The only code that touches files: roots, scans, staging, publishing, durability, locks.
//!
//! Layer 2. Every path from outside is a [`RelPath`](crate::model::RelPath) that is resolved beneath
//! a [`Root`]; nothing here follows a symbolic link below one. Nothing here knows about connections.

mod barrier;
mod calendar;
mod conflict;
mod error;
mod facts;
mod lock;
mod meta;
mod private;
mod publish;
mod resolve;
mod root;
mod scan;
mod source;
mod staged;
mod staging;

pub use barrier::Barrier;
pub use error::{FileError, Operation};
pub use facts::{Found, FoundKind, Identity};
pub use lock::{LockError, ShareLock};
pub use publish::{Expected, Published, publish};
pub use root::{MadeDirectory, Root};
pub use scan::{Filter, Keep, Scan, ScanItem, Shape};
pub use source::{Extent, SourceFile};
pub use staged::{Sealed, StagedFile};
pub use staging::{Room, Staging, Sweep};
