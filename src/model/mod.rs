//! The words of the domain: paths, content ids, entries, identities, time, limits, status codes.
//!
//! Layer 0: plain values that every other layer shares. Nothing here does I/O or reads a clock.

mod conflict;
mod content;
mod entry;
mod escape;
mod folding;
mod identity;
pub mod limits;
mod link;
mod path;
mod reason;
mod revision;
mod status;
mod tick;
mod timetable;
mod words;

pub use conflict::{ConflictName, conflict_names, conflict_path};
pub use content::{ContentId, ContentIdError};
pub use entry::{Entry, Kind, Meta, Timestamp};
pub use escape::{Escaped, escape, steers};
pub use folding::folded;
pub use identity::{DeviceId, DeviceIdError, Right, Rights, Secret, ShareName, ShareNameError};
pub use link::{DEFAULT_PORT, Link, LinkError, LinkSecret};
pub use path::{PathError, RelPath};
pub use reason::system_reason;
pub use revision::{Epoch, Revision, State};
pub use status::{CloseCode, Fault, ItemCode};
pub use tick::Tick;
pub use timetable::{MINUTES_PER_DAY, Timetable, TimetableError};
pub use words::words_of;

/// Bytes that the sender of a frame and the place they came from share without copying, for
/// example a window of a mapped file.
pub type SharedBytes = std::rc::Rc<dyn AsRef<[u8]>>;
