//! Where the layers meet: events of connections become work on files and back. Server and client.
//!
//! Layer 3. The only place that knows both machines ([`crate::conn`]) and effects ([`crate::store`],
//! [`crate::reactor`]).

mod access;
mod activity;
mod agreement;
mod ahead;
#[cfg(feature = "sync")]
mod altering;
mod arriving;
mod bandwidth;
mod begin;
mod budget;
mod bulk;
mod changing;
mod choosing;
mod client;
mod client_node;
mod clock;
mod commit;
mod commit_queue;
mod comparing;
mod conflict_copies;
mod content;
pub mod delta_file;
mod deltas;
mod device_places;
mod ending;
mod events;
mod examining;
#[cfg(feature = "sync")]
mod folder_state;
mod gathering;
mod guest;
mod history;
#[cfg(feature = "tls")]
mod identity;
mod intake;
mod introduction;
mod job;
mod judging;
mod ledger;
mod left_out;
#[cfg(feature = "sync")]
mod leftover;
mod liveness;
mod local;
#[cfg(feature = "sync")]
mod looking;
mod mapped;
mod metrics;
#[cfg(feature = "sync")]
mod observing;
mod offering;
mod options;
mod outgoing;
mod partial;
mod patches;
mod patching;
mod peer;
#[cfg(feature = "sync")]
mod peer_folder;
mod place;
mod prune;
mod questions;
mod rations;
mod rebuilding;
mod receiving;
mod recent;
mod reports;
mod resumes;
mod resuming;
mod retrying;
mod selected;
mod sending;
#[cfg(feature = "sync")]
mod sequencer;
mod server;
mod server_node;
mod sessions;
#[cfg(feature = "sync")]
mod sharing;
mod slice;
mod source_tree;
mod status;
#[cfg(feature = "sync")]
mod syncing;
mod tally;
mod target;
mod tidying;
mod turns;
mod verifying;

pub use activity::ActivityLog;
pub use client::Client;
pub use clock::LocalClock;
pub use conflict_copies::{ConflictCopy, SettleError, Settled, Winner};
pub use events::{Action, ClientEvent, Figures, JobError, Moving, Outcome, Progress, ServerEvent, Summary};
#[cfg(feature = "sync")]
pub use folder_state::{LocalChange, Surroundings, SyncedFolder, surroundings};
pub use history::{Deleted, History, HistoryError};
#[cfg(feature = "tls")]
pub use identity::{own_device, stored_device};
pub use introduction::{comparison_words, pair_share};
pub use left_out::{LeftOut, LookedOver, WhyLeftOut, left_out};
#[cfg(feature = "sync")]
pub use options::SyncOptions;
pub use options::{
    Bandwidth, ClientOptions, Deadlines, Durability, FilterRule, Job, Mapping, MaxDelete, ServerOptions, ShareOptions,
    Source, TransferOptions,
};
#[cfg(feature = "sync")]
pub use peer_folder::{PeerPart, note_peer, peer_part};
pub use server::{Server, ServerError};
#[cfg(feature = "sync")]
#[doc(hidden)]
pub use syncing::rewritten_list;
#[cfg(feature = "sync")]
pub use syncing::{FolderError, linked};
pub use turns::{Load, Schedule};
