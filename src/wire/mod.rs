//! Bytes to messages and back: frames, codec, messages, versions. No I/O, no clock.
//!
//! The byte tables are in `docs/PROTOCOL.md`. Every length meets its limit before memory is taken.

mod alter;
mod batch;
mod begin;
mod codec;
mod delta;
mod frame;
mod message;
mod revisions;
mod waiting;

pub use alter::{Alter, Alteration, Altered};
pub use batch::{
    Answers, EntriesReader, EntriesWriter, Offered, SettledReader, SettledResult, SettledWriter, Verdict, VerdictRun,
};
pub use begin::{Begin, BeginFlags, Brake, Direction, PullSource, Rule};
pub use codec::{Reader, WireError, Writer};
pub use delta::{Ask, Basis, Partial, Patch, PatchForm, Resume, Tell, Topic};
pub(crate) use frame::control_header;
pub use frame::{Decoder, FRAME_HEADER_BYTES, FrameType, Piece, data_header};
pub(crate) use message::encode_number;
pub use message::{
    End, EndOutcome, Finish, Hello, Hole, Inline, ListEnd, Message, Open, Opened, RemovedReader, RemovedWriter,
    SourceFailed, Start, TargetFailed, TargetKind,
};
pub use revisions::{Change, ChangesHead, ChangesReader, ChangesWriter, Known, News, Since};
pub use waiting::{ComeBack, Queued};

/// The newest protocol version that this build speaks.
pub const VERSION_MAX: u16 = 1;
/// The oldest protocol version that this build speaks.
pub const VERSION_MIN: u16 = 1;

/// Optional abilities, one bit each, negotiated in hello. A bit that one side does not know is ignored.
pub mod features {
    /// Sparse files travel with holes ([`super::FrameType::Hole`]).
    pub const HOLES: u64 = 1;
    /// Changed files travel as patches ([`super::FrameType::Patch`]).
    pub const DELTA: u64 = 2;
    /// Patches may be compressed with zstd ([`super::PatchForm`]).
    pub const ZSTD: u64 = 4;
    /// Files go on where an earlier transfer broke off ([`super::FrameType::Partial`]).
    pub const RESUME: u64 = 8;
    /// The server says where a transfer stands in its line, and when to come again
    /// ([`super::FrameType::Queued`], [`super::FrameType::ComeBack`]).
    pub const WAITING: u64 = 16;
    /// Folders are kept in sync by revisions ([`super::FrameType::Since`]).
    pub const SYNC: u64 = 32;
    /// Everything that this build can do.
    pub const ALL: u64 = HOLES
        | DELTA
        | RESUME
        | WAITING
        | if cfg!(feature = "zstd") { ZSTD } else { 0 }
        | if cfg!(feature = "sync") { SYNC } else { 0 };
}
