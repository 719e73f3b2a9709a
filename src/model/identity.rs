//! Who and what: device ids, share names, rights, secrets.

use super::limits::SHARE_NAME_BYTES_MAX;
use std::fmt;
use std::str::FromStr;

/// A device: the SHA-256 of its public key (the DER `SubjectPublicKeyInfo`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeviceId(pub [u8; 32]);

/// Text that is not a device id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a device id has 64 hexadecimal digits")]
pub struct DeviceIdError;

impl DeviceId {
    /// Eight characters to tell devices apart at a glance, such as `4XQ7-M2KD` (40 bits, base 32).
    #[must_use]
    pub fn short(&self) -> String {
        const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
        let bits = self.0[..5].iter().fold(0u64, |bits, &byte| bits << 8 | u64::from(byte));
        let letter = |index: u32| char::from(ALPHABET[(bits >> (35 - 5 * index) & 31) as usize]);
        let half = |from: u32| (from..from + 4).map(letter).collect::<String>();
        format!("{}-{}", half(0), half(4))
    }
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeviceId({})", self.short())
    }
}

impl FromStr for DeviceId {
    type Err = DeviceIdError;

    fn from_str(text: &str) -> Result<Self, DeviceIdError> {
        parse_hex(text).map(DeviceId).ok_or(DeviceIdError)
    }
}

fn parse_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != 2 * N || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; N];
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * index..2 * index + 2], 16).ok()?;
    }
    Some(bytes)
}

/// The name of a share: 1 to 128 bytes of UTF-8 without `/`, `#`, `?`, `%`, control characters,
/// or a leading dot, so that it stands in a link as it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShareName(String);

/// Text that cannot name a share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a share's name has 1 to 128 bytes, none of them / # ? % or control characters, and no leading dot")]
pub struct ShareNameError;

impl ShareName {
    /// Checks and takes a name.
    ///
    /// # Errors
    /// [`ShareNameError`] when the text breaks one of the rules above.
    pub fn parse(text: &str) -> Result<ShareName, ShareNameError> {
        let length_fits = (1..=SHARE_NAME_BYTES_MAX).contains(&text.len());
        let legal = |c: char| !matches!(c, '/' | '#' | '?' | '%' | '\\') && !c.is_control();
        if !length_fits || text.starts_with('.') || !text.chars().all(legal) {
            return Err(ShareNameError);
        }
        Ok(ShareName(text.to_owned()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ShareName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One thing that a device may do with a share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Right {
    /// List and fetch.
    Read,
    /// Add, replace and delete.
    Write,
}

/// What a device may do with a share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rights {
    /// May list and fetch.
    pub read: bool,
    /// May add, replace and delete.
    pub write: bool,
}

impl Rights {
    /// Nothing.
    pub const NONE: Rights = Rights {
        read: false,
        write: false,
    };
    /// List and fetch only.
    pub const READ: Rights = Rights {
        read: true,
        write: false,
    };
    /// Everything.
    pub const READ_WRITE: Rights = Rights {
        read: true,
        write: true,
    };

    /// Whether `right` is among these.
    #[must_use]
    pub fn allow(self, right: Right) -> bool {
        match right {
            Right::Read => self.read,
            Right::Write => self.write,
        }
    }

    /// Whatever either grants.
    #[must_use]
    pub fn union(self, other: Rights) -> Rights {
        Rights {
            read: self.read || other.read,
            write: self.write || other.write,
        }
    }

    /// The bits as they stand on the wire: 1 read, 2 write.
    #[must_use]
    pub fn to_bits(self) -> u8 {
        u8::from(self.read) | u8::from(self.write) << 1
    }

    /// The rights of wire bits; `None` when a bit is set that has no meaning.
    #[must_use]
    pub fn from_bits(bits: u8) -> Option<Rights> {
        (bits < 4).then_some(Rights {
            read: bits & 1 != 0,
            write: bits & 2 != 0,
        })
    }
}

impl fmt::Display for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.read, self.write) {
            (true, true) => "read, write",
            (true, false) => "read",
            (false, true) => "write",
            (false, false) => "none",
        })
    }
}

/// 16 random bytes that let their holder in, once. Never shown by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub [u8; 16]);

impl Secret {
    /// 32 hexadecimal digits.
    #[must_use]
    pub fn to_hex(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The inverse of [`Secret::to_hex`].
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Secret> {
        parse_hex(text).map(Secret)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_secrets_round_trip_and_secrets_stay_out_of_debug() {
        let id = DeviceId(std::array::from_fn(|i| u8::try_from(i * 7).unwrap()));
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(id.short().len(), 9);
        let secret = Secret([7; 16]);
        assert_eq!(Secret::from_hex(&secret.to_hex()), Some(secret.clone()));
        assert_eq!(format!("{secret:?}"), "Secret(..)");
        assert_eq!(Secret::from_hex("+1"), None);
    }

    #[test]
    fn share_names_that_would_break_a_link_are_refused() {
        assert!(ShareName::parse("My Share").is_ok());
        for bad in ["", ".hidden", "a/b", "a#b", "a?b", "50%", "a\nb", &"x".repeat(129)] {
            assert_eq!(ShareName::parse(bad), Err(ShareNameError), "{bad:?}");
        }
    }

    #[test]
    fn rights_bits_round_trip_and_unknown_bits_are_refused() {
        for bits in 0..4 {
            assert_eq!(Rights::from_bits(bits).unwrap().to_bits(), bits);
        }
        assert_eq!(Rights::from_bits(4), None);
    }
}
