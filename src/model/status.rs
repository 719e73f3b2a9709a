//! Codes that say what went wrong: for a whole connection, and for one item of a transfer.

use std::fmt;

/// Why a connection is closed; the number stands on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum CloseCode {
    /// All is done.
    Done = 0,
    /// The peer broke the protocol: an unknown type, a wrong state, a bad field.
    Protocol = 1,
    /// A length or count over its limit.
    Limit = 2,
    /// No protocol version in common.
    Version = 3,
    /// Not authenticated, or a refused or spent secret. Never says which.
    Refused = 4,
    /// Authenticated, but without the right that the request needs.
    Forbidden = 5,
    /// No such share, for a device that may know so; or no such path in it.
    NotFound = 6,
    /// Too many connections or transfers; come again later.
    Busy = 7,
    /// The peer was silent for too long.
    Timeout = 8,
    /// The server stops; come again.
    Stopping = 9,
    /// A fault of ours, not of the peer.
    Internal = 10,
    /// The user interrupted.
    Interrupted = 11,
    /// The folder of the share is no longer there.
    Gone = 12,
}

impl CloseCode {
    /// Every code, for tables and tests.
    pub const ALL: [CloseCode; 13] = [
        CloseCode::Done,
        CloseCode::Protocol,
        CloseCode::Limit,
        CloseCode::Version,
        CloseCode::Refused,
        CloseCode::Forbidden,
        CloseCode::NotFound,
        CloseCode::Busy,
        CloseCode::Timeout,
        CloseCode::Stopping,
        CloseCode::Internal,
        CloseCode::Interrupted,
        CloseCode::Gone,
    ];

    /// The code of a wire number.
    #[must_use]
    pub fn from_wire(number: u16) -> Option<CloseCode> {
        CloseCode::ALL.get(usize::from(number)).copied()
    }

    /// Its stable name, for scripts and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            CloseCode::Done => "done",
            CloseCode::Protocol => "protocol",
            CloseCode::Limit => "limit",
            CloseCode::Version => "version",
            CloseCode::Refused => "refused",
            CloseCode::Forbidden => "forbidden",
            CloseCode::NotFound => "not_found",
            CloseCode::Busy => "busy",
            CloseCode::Timeout => "timeout",
            CloseCode::Stopping => "stopping",
            CloseCode::Internal => "internal",
            CloseCode::Interrupted => "interrupted",
            CloseCode::Gone => "gone",
        }
    }

    /// Whether the same request may succeed later without anybody changing anything.
    #[must_use]
    pub fn is_temporary(self) -> bool {
        matches!(self, CloseCode::Busy | CloseCode::Timeout | CloseCode::Stopping)
    }
}

/// A reason to close a connection, with a text for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The kind of reason.
    pub code: CloseCode,
    /// A short sentence; never holds file contents or names of other sessions.
    pub text: String,
}

impl Fault {
    /// A fault of the given kind.
    pub fn new(code: CloseCode, text: impl Into<String>) -> Fault {
        Fault {
            code,
            text: text.into(),
        }
    }

    /// The peer broke the protocol.
    pub fn protocol(text: impl Into<String>) -> Fault {
        Fault::new(CloseCode::Protocol, text)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Fault {}

/// What became of one item that could not be transferred; the number stands on the wire. A code and
/// the peer's own path are all that ever crosses: no error text of the other machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ItemCode {
    /// Permission was refused.
    Permission = 1,
    /// It is no longer there.
    Vanished = 2,
    /// It changed each time it was read.
    Changing = 3,
    /// The disk is full, or a quota is reached.
    DiskFull = 4,
    /// The disk reported an error.
    Io = 5,
    /// What arrived is not what was announced.
    Mismatch = 6,
    /// The path or name is not one that can be used here.
    BadPath = 7,
    /// A directory stands where a file should go and is not empty, or a file where a directory should.
    InTheWay = 8,
    /// A FIFO, socket or device.
    Special = 9,
    /// The path leads through a symbolic link or out of the root.
    Escapes = 10,
    /// The file system is read-only.
    ReadOnly = 11,
    /// Too large, too long or too many for the file system or a limit.
    TooLarge = 12,
    /// The path crosses into another file system, where no atomic rename is possible.
    CrossDevice = 13,
    /// Something else failed; the log of that machine knows more.
    Other = 14,
    /// Another transfer of the same file by the same device goes on with it.
    TakenOver = 15,
    /// It was changed since the revision that the peer knew.
    Stale = 16,
    /// The file system takes its name for that of something else there.
    Collides = 17,
}

impl ItemCode {
    /// Every code, for tables and tests.
    pub const ALL: [ItemCode; 17] = [
        ItemCode::Permission,
        ItemCode::Vanished,
        ItemCode::Changing,
        ItemCode::DiskFull,
        ItemCode::Io,
        ItemCode::Mismatch,
        ItemCode::BadPath,
        ItemCode::InTheWay,
        ItemCode::Special,
        ItemCode::Escapes,
        ItemCode::ReadOnly,
        ItemCode::TooLarge,
        ItemCode::CrossDevice,
        ItemCode::Other,
        ItemCode::TakenOver,
        ItemCode::Stale,
        ItemCode::Collides,
    ];

    /// The code of a wire number.
    #[must_use]
    pub fn from_wire(number: u8) -> Option<ItemCode> {
        ItemCode::ALL.get(usize::from(number).checked_sub(1)?).copied()
    }

    /// Its stable name, for scripts and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            ItemCode::Permission => "permission",
            ItemCode::Vanished => "vanished",
            ItemCode::Changing => "changing",
            ItemCode::DiskFull => "disk_full",
            ItemCode::Io => "io",
            ItemCode::Mismatch => "mismatch",
            ItemCode::BadPath => "bad_path",
            ItemCode::InTheWay => "in_the_way",
            ItemCode::Special => "special",
            ItemCode::Escapes => "escapes",
            ItemCode::ReadOnly => "read_only",
            ItemCode::TooLarge => "too_large",
            ItemCode::CrossDevice => "cross_device",
            ItemCode::Other => "other",
            ItemCode::TakenOver => "taken_over",
            ItemCode::Stale => "stale",
            ItemCode::Collides => "collides",
        }
    }

    /// What happened, as the end of a sentence.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            ItemCode::Permission => "permission denied",
            ItemCode::Vanished => "it vanished while it was transferred",
            ItemCode::Changing => "it kept changing while it was read",
            ItemCode::DiskFull => "the disk is full",
            ItemCode::Io => "the disk reported an error",
            ItemCode::Mismatch => "what arrived is not what was announced",
            ItemCode::BadPath => "its name cannot be used here",
            ItemCode::InTheWay => "something of another kind stands in its place",
            ItemCode::Special => "it is a FIFO, socket or device",
            ItemCode::Escapes => "its path leads through a symbolic link",
            ItemCode::ReadOnly => "the file system is read-only",
            ItemCode::TooLarge => "it is too large for the file system or a limit",
            ItemCode::CrossDevice => "its directory is on another file system than the share",
            ItemCode::Other => "an unexpected error",
            ItemCode::TakenOver => "another transfer of it, by the same device, took over",
            ItemCode::Stale => "it was changed on the other side meanwhile",
            ItemCode::Collides => "the file system takes its name for that of something else there",
        }
    }

    /// What a person can try.
    #[must_use]
    pub fn advice(self) -> &'static str {
        match self {
            ItemCode::Permission => "check the owner and mode of the file and its directory",
            ItemCode::Vanished => "run the command again if it should still be there",
            ItemCode::Changing => "close the program that writes it, then run the command again",
            ItemCode::DiskFull => "free some space and run the command again",
            ItemCode::Io => "check the disk (dmesg, smartctl) and run the command again",
            ItemCode::Mismatch => "run the command again; if it repeats, check that machine's memory and disk",
            ItemCode::BadPath => "rename it",
            ItemCode::InTheWay => "move or delete what stands there",
            ItemCode::Special => "it is left out; exclude it to silence this",
            ItemCode::Escapes => "replace the link by a real directory, or sync the link's target",
            ItemCode::ReadOnly => "mount the file system read-write",
            ItemCode::TooLarge => "use a file system that takes it, or exclude it",
            ItemCode::CrossDevice => "serve that directory as a share of its own",
            ItemCode::Other => "look into the log of the other machine (-v)",
            ItemCode::TakenOver => "let the other one finish, then run the command again",
            ItemCode::Stale => "sync again",
            ItemCode::Collides => "rename one of the two",
        }
    }
}

impl fmt::Display for ItemCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_distinct_and_fit_into_a_key() {
        let closes = CloseCode::ALL.map(CloseCode::name);
        let items = ItemCode::ALL.map(ItemCode::name);
        for names in [&closes[..], &items] {
            let distinct: std::collections::HashSet<_> = names.iter().collect();
            assert_eq!(distinct.len(), names.len());
            let fits = |name: &str| name.bytes().all(|byte| byte == b'_' || byte.is_ascii_lowercase());
            assert!(names.iter().all(|name| fits(name)), "{names:?}");
        }
    }

    #[test]
    fn wire_numbers_round_trip() {
        for code in CloseCode::ALL {
            assert_eq!(CloseCode::from_wire(code as u16), Some(code));
        }
        for code in ItemCode::ALL {
            assert_eq!(ItemCode::from_wire(code as u8), Some(code));
        }
        assert_eq!(CloseCode::from_wire(13), None);
        assert_eq!(ItemCode::from_wire(0), None);
        assert_eq!(ItemCode::from_wire(18), None);
    }
}
