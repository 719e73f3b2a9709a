//! The content id of a file: its length and the root of its content tree.

use std::fmt;
use std::str::FromStr;

/// What a file contains, whatever it is called: `(length, root)`.
///
/// `root` is the SHA-256 Merkle root over 16 KiB leaves of BEP 52 (`pieces root`). The length always
/// travels with the root, because BEP 52 pads with zero hashes and does not separate leaves from
/// nodes. For up to 16 KiB the root is the plain SHA-256 of the content.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContentId {
    /// Bytes in the file.
    pub length: u64,
    /// Root of the content tree, 32 bytes.
    pub root: [u8; 32],
}

/// Text that is not a content id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a content id looks like LENGTH-ROOT, with a root of 64 hexadecimal digits")]
pub struct ContentIdError;

impl fmt::Display for ContentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-", self.length)?;
        self.root.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ContentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ContentId({self})")
    }
}

impl FromStr for ContentId {
    type Err = ContentIdError;

    fn from_str(text: &str) -> Result<Self, ContentIdError> {
        let (length, hex) = text.split_once('-').ok_or(ContentIdError)?;
        if hex.len() != 64 || !hex.is_ascii() || length.starts_with('+') {
            return Err(ContentIdError);
        }
        let mut root = [0; 32];
        for (byte, pair) in root.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
            let high = char::from(pair[0]).to_digit(16).ok_or(ContentIdError)?;
            let low = char::from(pair[1]).to_digit(16).ok_or(ContentIdError)?;
            *byte = u8::try_from(high * 16 + low).map_err(|_| ContentIdError)?;
        }
        let length = length.parse().map_err(|_| ContentIdError)?;
        Ok(ContentId { length, root })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_form_round_trips_and_rejects_what_is_not_one() {
        let id = ContentId {
            length: 5,
            root: [0xab; 32],
        };
        assert_eq!(id.to_string(), format!("5-{}", "ab".repeat(32)));
        assert_eq!(id.to_string().parse(), Ok(id));
        for bad in ["", "5", "5-ab", "x-00", "-1-00", &format!("+5-{}", "ab".repeat(32))] {
            assert_eq!(bad.parse::<ContentId>(), Err(ContentIdError), "{bad}");
        }
    }
}
