//! Owns the question which `Host` headers are ours. It never resolves a name.
//!
//! A page from elsewhere can have its own name point at this machine (DNS rebinding) and then talk to a local
//! server as to its own. What it cannot change is the name that the browser sends. Invariant: a name other than
//! `localhost` is never allowed; an address is, if it is a loopback address or the one that is listened on.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// The hosts under which a listener may be addressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hosts {
    listen: IpAddr,
}

impl Hosts {
    /// For a listener at this address. One that listens on all addresses of the machine may be addressed by any
    /// address (never by a name): who writes an address into a link has no name that could be rebound.
    #[must_use]
    pub fn of(listen: SocketAddr) -> Hosts {
        Hosts { listen: listen.ip() }
    }

    /// Whether the value of a `Host` header is allowed: `localhost`, or an address as above, with any port (a
    /// forwarded port has another number here than there).
    #[must_use]
    pub fn allow(&self, header: &[u8]) -> bool {
        let Ok(text) = std::str::from_utf8(header) else {
            return false;
        };
        let (host, port) = match text.rfind(':') {
            // The colons of an address in brackets are not before a port.
            Some(at) if !text.ends_with(']') => (&text[..at], Some(&text[at + 1..])),
            _ => (text, None),
        };
        if !port.is_none_or(is_port) {
            return false;
        }
        host.eq_ignore_ascii_case("localhost") || address_of(host).is_some_and(|ip| self.is_ours(ip))
    }

    fn is_ours(&self, ip: IpAddr) -> bool {
        ip.is_loopback() || ip == self.listen || self.listen.is_unspecified()
    }
}

fn is_port(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok()
}

fn address_of(host: &str) -> Option<IpAddr> {
    match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']')?.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        None => host.parse::<std::net::Ipv4Addr>().ok().map(IpAddr::V4),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(listen: &str, header: &str) -> bool {
        Hosts::of(listen.parse().unwrap()).allow(header.as_bytes())
    }

    // Protects local servers from pages whose name was rebound to this machine (row 31).
    #[test]
    fn row_31_only_loopback_and_the_own_address_are_hosts() {
        for host in [
            "localhost",
            "LocalHost:7180",
            "127.0.0.1",
            "127.0.0.1:1",
            "127.9.9.9",
            "[::1]",
            "[::1]:80",
        ] {
            assert!(allowed("127.0.0.1:7180", host), "{host}");
        }
        let refused = [
            "",
            ":80",
            "evil.example",
            "evil.example:7180",
            "localhost.evil.example",
            "localhost.",
            "127.0.0.1.nip.io",
            "192.0.2.1",
            "[2001:db8::1]",
            "::1",
            "[::1",
            "[::1]x",
            "localhost:",
            "localhost:99999",
            "localhost:+80",
            "localhost:80:80",
            "a@localhost",
            "localhost ",
            "0x7f.1",
            "2130706433",
            "0",
            "localhost/",
        ];
        for host in refused {
            assert!(!allowed("127.0.0.1:7180", host), "{host}");
        }
        assert!(!Hosts::of("127.0.0.1:1".parse().unwrap()).allow(b"\xff"));
    }

    #[test]
    fn a_listener_beyond_loopback_is_addressed_by_its_address() {
        assert!(allowed("192.0.2.1:7180", "192.0.2.1:7180") && !allowed("192.0.2.1:7180", "192.0.2.2"));
        assert!(allowed("0.0.0.0:7180", "192.0.2.1") && !allowed("0.0.0.0:7180", "nas.example"));
        assert!(allowed("[2001:db8::1]:1", "[2001:db8::1]"));
    }
}
