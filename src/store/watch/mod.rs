//! Watching a tree for changes: what changed becomes dirty paths, which somebody then looks at.
//!
//! [`Watch`] asks the system (inotify), [`Settle`] waits until a path is quiet. Neither reads a file, and
//! neither decides what a change means: it only says where to look.

mod dirt;
mod inotify;
mod settle;
mod shortage;
mod table;
mod walk;

pub use dirt::{Dirt, Notice};
pub use inotify::{Watch, WatchError, WatchOptions};
pub use settle::Settle;
pub use shortage::{Shortage, Unwatched};
