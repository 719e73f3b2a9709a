//! The names of versions: when, why, by whom, and what took the version's place.
//!
//! Makes and reads names only, touches no file. The form is in `docs/FORMAT.md`. Invariant: a name is
//! read only if writing it again gives the same bytes, so that one version never has two names; and
//! names of one path sort as their times do.

use crate::model::{DeviceId, Timestamp};
use crate::store::calendar::Moment;
use crate::store::facts::Identity;
use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

/// What the name of a version says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionName {
    kept_at: KeptAt,
    reason: Reason,
    author: AuthorTag,
    successor: Option<Successor>,
}

/// When a version was kept: by the wall clock, in UTC. Years 1970 to 9999.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeptAt {
    seconds: u64,
    nanos: u32,
}

/// Why a version was kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Another version took its place.
    Replaced,
    /// It was deleted.
    Deleted,
    /// The file was changed where it lies: what is kept is the undo record of that.
    Changed,
}

/// Who replaced, deleted or changed something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Author {
    /// A device that has a key.
    Device(DeviceId),
    /// Somebody who was let in without one.
    Anyone,
    /// A command on this machine.
    Local,
}

/// An author as names of versions tell: of a device only the short id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuthorTag {
    /// The short id of a device without its hyphen, such as `4XQ7M2KD`.
    Device(String),
    /// Somebody who was let in without a key.
    Anyone,
    /// A command on this machine.
    Local,
}

/// The state of the file that took a version's place, right after it did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) struct Successor {
    pub(in crate::store) inode: u64,
    pub(in crate::store) size: u64,
    pub(in crate::store) mtime: Timestamp,
}

/// Digits of a short device id, base 32 (RFC 4648).
const SHORT_ID_CHARS: usize = 8;
/// The last second that a name can tell: the end of the year 9999.
const SECONDS_MAX: u64 = 253_402_300_799;

impl VersionName {
    pub(in crate::store) fn new(
        kept_at: KeptAt,
        reason: Reason,
        author: &Author,
        successor: Option<Successor>,
    ) -> VersionName {
        debug_assert_eq!(successor.is_none(), reason == Reason::Deleted);
        VersionName {
            kept_at,
            reason,
            author: AuthorTag::of(author),
            successor,
        }
    }

    /// Reads a name; `None` for anything that is not exactly as this would write it.
    #[must_use]
    pub fn parse(name: &[u8]) -> Option<VersionName> {
        let text = str::from_utf8(name).ok()?;
        let mut parts = text.split('-');
        let (date, time, nanos) = (parts.next()?, parts.next()?, parts.next()?);
        let kept_at = KeptAt {
            seconds: Moment::parse_compact(&format!("{date}-{time}"))?,
            nanos: nanos.parse().ok().filter(|&nanos| nanos < 1_000_000_000)?,
        };
        let reason = match parts.next()? {
            "r" => Reason::Replaced,
            "d" => Reason::Deleted,
            "u" => Reason::Changed,
            _ => return None,
        };
        let author = match parts.next()? {
            "local" => AuthorTag::Local,
            "anyone" => AuthorTag::Anyone,
            id if is_short_id(id) => AuthorTag::Device(id.to_owned()),
            _ => return None,
        };
        let mut number = |bits: u32| {
            let value = u64::from_str_radix(parts.next()?, 16).ok()?;
            (value.checked_shr(bits).unwrap_or(0) == 0).then_some(value)
        };
        let successor = match reason {
            Reason::Deleted => None,
            Reason::Replaced | Reason::Changed => Some(Successor {
                inode: number(64)?,
                size: number(64)?,
                mtime: Timestamp {
                    seconds: number(64)?.cast_signed(),
                    nanos: number(32)? as u32,
                },
            }),
        };
        let read = VersionName {
            kept_at,
            reason,
            author,
            successor,
        };
        (read.to_string() == text).then_some(read)
    }

    /// When it was kept.
    #[must_use]
    pub fn kept_at(&self) -> KeptAt {
        self.kept_at
    }

    /// Why it was kept.
    #[must_use]
    pub fn reason(&self) -> Reason {
        self.reason
    }

    /// Whose doing it was.
    #[must_use]
    pub fn author(&self) -> &AuthorTag {
        &self.author
    }

    /// What took its place.
    pub(in crate::store) fn successor(&self) -> Option<Successor> {
        self.successor
    }

    /// The same a nanosecond later: for a name that is taken.
    pub(super) fn later(&self) -> VersionName {
        VersionName {
            kept_at: self.kept_at.next(),
            ..self.clone()
        }
    }

    /// Eight hexadecimal digits to tell the versions of one path apart by.
    #[must_use]
    pub fn id(&self) -> String {
        let hash = xxhash_rust::xxh3::xxh3_64(self.to_string().as_bytes());
        format!("{:08x}", hash >> 32)
    }
}

impl fmt::Display for VersionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letter = match self.reason {
            Reason::Replaced => 'r',
            Reason::Deleted => 'd',
            Reason::Changed => 'u',
        };
        let stamp = Moment::of(self.kept_at.seconds).compact();
        write!(f, "{stamp}-{:09}-{letter}-", self.kept_at.nanos)?;
        match &self.author {
            AuthorTag::Device(short) => f.write_str(short)?,
            AuthorTag::Anyone => f.write_str("anyone")?,
            AuthorTag::Local => f.write_str("local")?,
        }
        let Some(Successor { inode, size, mtime }) = self.successor else {
            return Ok(());
        };
        let (seconds, nanos) = (mtime.seconds.cast_unsigned(), mtime.nanos);
        write!(f, "-{inode:x}-{size:x}-{seconds:x}-{nanos:x}")
    }
}

impl KeptAt {
    /// The present.
    pub(in crate::store) fn now() -> KeptAt {
        KeptAt::of(SystemTime::now())
    }

    /// A time of the wall clock; before 1970 counts as 1970.
    pub(in crate::store) fn of(time: SystemTime) -> KeptAt {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        KeptAt {
            seconds: since.as_secs().min(SECONDS_MAX),
            nanos: since.subsec_nanos(),
        }
    }

    /// Seconds since 1970.
    #[must_use]
    pub fn seconds(self) -> u64 {
        self.seconds
    }

    /// `2026-11-20 21:47:31 UTC`.
    #[must_use]
    pub fn readable(self) -> String {
        Moment::of(self.seconds).readable()
    }

    fn next(self) -> KeptAt {
        match self.nanos {
            999_999_999 => KeptAt {
                seconds: self.seconds + 1,
                nanos: 0,
            },
            nanos => KeptAt {
                nanos: nanos + 1,
                ..self
            },
        }
    }
}

impl AuthorTag {
    fn of(author: &Author) -> AuthorTag {
        match author {
            Author::Device(id) => AuthorTag::Device(id.short().replace('-', "")),
            Author::Anyone => AuthorTag::Anyone,
            Author::Local => AuthorTag::Local,
        }
    }

    /// Whether `device` may be the author: 40 bits of its id are the same.
    #[must_use]
    pub fn fits(&self, device: &DeviceId) -> bool {
        *self == AuthorTag::of(&Author::Device(*device))
    }
}

impl From<Option<DeviceId>> for Author {
    /// The sender of a push.
    fn from(peer: Option<DeviceId>) -> Author {
        peer.map_or(Author::Anyone, Author::Device)
    }
}

impl Successor {
    pub(in crate::store) fn of(identity: &Identity) -> Successor {
        Successor {
            inode: identity.inode(),
            size: identity.size(),
            mtime: identity.mtime(),
        }
    }
}

fn is_short_id(text: &str) -> bool {
    text.len() == SHORT_ID_CHARS && text.bytes().all(|byte| matches!(byte, b'A'..=b'Z' | b'2'..=b'7'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: KeptAt = KeptAt {
        seconds: 1_795_211_251,
        nanos: 7,
    };
    const SUCCESSOR: Successor = Successor {
        inode: 0xabc,
        size: 4096,
        mtime: Timestamp {
            seconds: -1,
            nanos: 999_999_999,
        },
    };

    /// The form is stable: names that were written are read for ever.
    #[test]
    fn the_form_is_frozen() {
        let device = Author::Device(DeviceId([0; 32]));
        let cases = [
            (
                VersionName::new(AT, Reason::Replaced, &device, Some(SUCCESSOR)),
                "20261120-214731-000000007-r-AAAAAAAA-abc-1000-ffffffffffffffff-3b9ac9ff",
            ),
            (
                VersionName::new(AT, Reason::Changed, &Author::Anyone, Some(SUCCESSOR)),
                "20261120-214731-000000007-u-anyone-abc-1000-ffffffffffffffff-3b9ac9ff",
            ),
            (
                VersionName::new(AT, Reason::Deleted, &Author::Local, None),
                "20261120-214731-000000007-d-local",
            ),
        ];
        for (name, text) in cases {
            assert_eq!(name.to_string(), text);
            assert_eq!(VersionName::parse(text.as_bytes()), Some(name));
        }
    }

    /// Row 7 of the threats: what somebody else put there is not taken for a version.
    #[test]
    fn nothing_else_is_read_as_a_name() {
        for text in [
            "",
            "a",
            "-",
            "20261120-214731-000000007-d-local-",
            "20261120-214731-000000007-d-local-1",
            "20261120-214731-7-d-local",
            "20261120-214731-+00000007-d-local",
            "20261120-214731-1000000000-d-local",
            "20261320-214731-000000007-d-local",
            "20260230-214731-000000007-d-local",
            "20261120-246060-000000007-d-local",
            "20261120-214731-000000007-x-local",
            "20261120-214731-000000007-d-aaaaaaaa",
            "20261120-214731-000000007-d-\u{202e}",
            "20261120-214731-000000007-r-local",
            "20261120-214731-000000007-r-local-ABC-1-1-1",
            "20261120-214731-000000007-r-local-0abc-1-1-1",
            "20261120-214731-000000007-r-local-1-1-1-100000000",
        ] {
            assert_eq!(VersionName::parse(text.as_bytes()), None, "{text}");
        }
        assert_eq!(VersionName::parse(b"\xff"), None);
    }

    #[test]
    fn a_taken_name_is_followed_by_a_later_one() {
        let last = KeptAt {
            seconds: 59,
            nanos: 999_999_999,
        };
        let name = VersionName::new(last, Reason::Deleted, &Author::Local, None);
        let later = name.later();
        assert!(later.to_string() > name.to_string() && later.kept_at() > name.kept_at());
        assert_eq!(later.to_string(), "19700101-000100-000000000-d-local");
        assert_ne!(later.id(), name.id());
    }
}
