//! Links: `syncline://HOST:PORT/SHARE[/PATH][#SECRET]`, what a person pastes to reach a share.
//!
//! The fragment is `FINGERPRINT` or `FINGERPRINT.SECRET`, both hexadecimal: the server's device id
//! (64 digits), and a one-time secret (32 digits). Share and path are percent-encoded.

use super::path::{PathError, RelPath};
use super::{DeviceId, Secret, ShareName};
use std::fmt;
use std::str::FromStr;

/// A parsed link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Host name or address, IPv6 without its brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// The share.
    pub share: ShareName,
    /// A file or directory in it; `None` is the share's root.
    pub path: Option<RelPath>,
    /// Whether the path ended in a slash: "into this directory", "the contents of this directory".
    pub trailing_slash: bool,
    /// Who the server is, and the one-time secret, when the link carries them.
    pub secret: Option<LinkSecret>,
}

/// The fragment of a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkSecret {
    /// The server's identity: nobody else is talked to.
    pub server: DeviceId,
    /// Lets the holder in, once.
    pub invite: Option<Secret>,
}

/// Why text is not a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// It does not start with `syncline://`.
    #[error("it does not start with syncline://")]
    Scheme,
    /// No host.
    #[error("it names no host")]
    Host,
    /// No port, or one outside 1 to 65535.
    #[error("it names no port between 1 and 65535")]
    Port,
    /// No share, or an impossible name.
    #[error("it names no share after the port")]
    Share,
    /// A broken percent escape.
    #[error("a % is not followed by two hexadecimal digits")]
    Escape,
    /// An illegal path below the share.
    #[error("its path has {0}")]
    Path(PathError),
    /// The part after `#` is damaged.
    #[error("the part after # is damaged; paste the whole link as it was printed")]
    Secret,
}

/// The port that Syncline listens on unless told otherwise.
pub const DEFAULT_PORT: u16 = 7171;

impl Link {
    /// Whether text means to be a link (starts with the scheme), so that it is never taken for a file.
    #[must_use]
    pub fn looks_like(text: &str) -> bool {
        text.get(..SCHEME.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(SCHEME))
    }

    /// `HOST:PORT`, with brackets around an IPv6 address.
    #[must_use]
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// The link without its fragment: fit for logs.
    #[must_use]
    pub fn without_secret(&self) -> Link {
        Link {
            secret: None,
            ..self.clone()
        }
    }
}

const SCHEME: &str = "syncline://";

impl FromStr for Link {
    type Err = LinkError;

    fn from_str(text: &str) -> Result<Self, LinkError> {
        if !Link::looks_like(text) {
            return Err(LinkError::Scheme);
        }
        let rest = &text[SCHEME.len()..];
        let (rest, fragment) = match rest.split_once('#') {
            Some((rest, fragment)) => (rest, Some(fragment)),
            None => (rest, None),
        };
        let (authority, location) = rest.split_once('/').unwrap_or((rest, ""));
        let (host, port) = parse_authority(authority)?;
        let (share, path) = location.split_once('/').unwrap_or((location, ""));
        let share = String::from_utf8(unescape(share)?).map_err(|_| LinkError::Share)?;
        let share = ShareName::parse(&share).map_err(|_| LinkError::Share)?;
        let trailing_slash = location.ends_with('/');
        let path = unescape(path.strip_suffix('/').unwrap_or(path))?;
        let path = match path.as_slice() {
            b"" => None,
            bytes => Some(RelPath::parse(bytes).map_err(LinkError::Path)?),
        };
        let secret = fragment
            .filter(|text| !text.is_empty())
            .map(parse_fragment)
            .transpose()?;
        Ok(Link {
            host,
            port,
            share,
            path,
            trailing_slash,
            secret,
        })
    }
}

fn parse_authority(text: &str) -> Result<(String, u16), LinkError> {
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or(LinkError::Host)?;
        (host, rest.strip_prefix(':'))
    } else {
        match text.rsplit_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        }
    };
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '%');
    if host.is_empty() || host.len() > 253 || !host.chars().all(legal) {
        return Err(LinkError::Host);
    }
    let port = match port {
        None => DEFAULT_PORT,
        Some(text) if text.bytes().all(|b| b.is_ascii_digit()) => text.parse().map_err(|_| LinkError::Port)?,
        Some(_) => return Err(LinkError::Port),
    };
    if port == 0 {
        return Err(LinkError::Port);
    }
    Ok((host.to_owned(), port))
}

fn parse_fragment(text: &str) -> Result<LinkSecret, LinkError> {
    let (server, invite) = match text.split_once('.') {
        Some((server, invite)) => (server, Some(invite)),
        None => (text, None),
    };
    let server = server.parse().map_err(|_| LinkError::Secret)?;
    let invite = match invite {
        Some(hex) => Some(Secret::from_hex(hex).ok_or(LinkError::Secret)?),
        None => None,
    };
    Ok(LinkSecret { server, invite })
}

fn unescape(text: &str) -> Result<Vec<u8>, LinkError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        if first != b'%' {
            bytes.push(first);
            rest = tail;
            continue;
        }
        let digits = tail.get(..2).ok_or(LinkError::Escape)?;
        let digit = |byte: u8| char::from(byte).to_digit(16).ok_or(LinkError::Escape);
        let value = digit(digits[0])? * 16 + digit(digits[1])?;
        bytes.push(u8::try_from(value).map_err(|_| LinkError::Escape)?);
        rest = &tail[2..];
    }
    Ok(bytes)
}

fn write_escaped(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-._~/+,=@!:()".contains(&byte) {
            write!(f, "{}", char::from(byte))?;
        } else {
            write!(f, "%{byte:02X}")?;
        }
    }
    Ok(())
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}/", self.authority())?;
        write_escaped(f, self.share.as_str().as_bytes())?;
        if let Some(path) = &self.path {
            f.write_str("/")?;
            write_escaped(f, path.as_bytes())?;
        }
        if self.trailing_slash {
            f.write_str("/")?;
        }
        let Some(secret) = &self.secret else {
            return Ok(());
        };
        write!(f, "#{}", secret.server)?;
        match &secret.invite {
            Some(invite) => write!(f, ".{}", invite.to_hex()),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_round_trip_with_every_part() {
        let server = "ab".repeat(32);
        for text in [
            "syncline://192.168.1.20:7171/Share".to_owned(),
            "syncline://[::1]:80/Share/a/b%20c".to_owned(),
            "syncline://nas:1/Share/dir/".to_owned(),
            format!("syncline://nas:1/My%20Share/%FF#{server}"),
            format!("syncline://nas:1/S#{server}.{}", "0f".repeat(16)),
        ] {
            assert_eq!(text.parse::<Link>().unwrap().to_string(), text);
        }
        let link: Link = "syncline://nas/Share".parse().unwrap();
        assert_eq!(link.port, DEFAULT_PORT);
    }

    #[test]
    fn wrong_links_say_what_is_wrong() {
        use LinkError::*;
        for (text, want) in [
            ("http://nas:1/S", Scheme),
            ("syncline://:1/S", Host),
            ("syncline://nas:0/S", Port),
            ("syncline://nas:99999/S", Port),
            ("syncline://nas:x/S", Port),
            ("syncline://nas:1", Share),
            ("syncline://nas:1/", Share),
            ("syncline://nas:1/S/%4", Escape),
            ("syncline://nas:1/S/../x", Path(PathError::Dots)),
            ("syncline://nas:1/S/%2e%2e/x", Path(PathError::Dots)),
            ("syncline://nas:1/S//x", Path(PathError::Empty)),
            ("syncline://nas:1/S#zz", Secret),
        ] {
            assert_eq!(text.parse::<Link>(), Err(want), "{text}");
        }
    }
}
