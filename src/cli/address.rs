//! Addresses: what `--listen` means, and how other machines reach this one.
//! Never sends a packet.

use super::complaint::{Complaint, reason};
use super::report::plain;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use syncline::model::{DEFAULT_PORT, DeviceId, Link, LinkSecret, Secret, ShareName};

/// Parses `7171`, `:7171`, `192.168.1.20`, `[::1]:7171`, `localhost:0`. Without a port it is the
/// default one, without a host all addresses of this machine.
pub(crate) fn parse_listen(text: &str) -> Result<SocketAddr, Complaint> {
    let all = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    if let Ok(port) = text.strip_prefix(':').unwrap_or(text).parse::<u16>() {
        return Ok(SocketAddr::new(all, port));
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(address);
    }
    let bare = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'))
        .unwrap_or(text);
    if let Ok(address) = bare.parse::<IpAddr>() {
        return Ok(SocketAddr::new(address, DEFAULT_PORT));
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().ok()),
        None => (text, Some(DEFAULT_PORT)),
    };
    let shown = plain(text);
    let advice = "write ADDRESS:PORT, such as 127.0.0.1:7171 or 0.0.0.0:7171";
    // A resolver would take a mere number for an address of the old kind; this covers no host, too.
    let is_number = host.bytes().all(|byte| byte.is_ascii_digit());
    let (Some(port), false) = (port, is_number) else {
        return Err(Complaint::usage(
            format!("I cannot listen on {shown:?}: that is no address"),
            advice,
        ));
    };
    let found = (host, port).to_socket_addrs().map(|mut found| found.next());
    match found {
        Ok(Some(address)) => Ok(address),
        Ok(None) => Err(Complaint::usage(format!("{shown:?} has no address"), advice)),
        Err(error) => Err(Complaint::usage(
            format!("I cannot listen on {shown:?}: {}", reason(&error)),
            advice,
        )),
    }
}

/// As [`parse_listen`]; without a host it is this machine only.
pub(crate) fn parse_local(text: &str) -> Result<SocketAddr, Complaint> {
    match text.strip_prefix(':').unwrap_or(text).parse::<u16>() {
        Ok(port) => Ok(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)),
        Err(_) => parse_listen(text),
    }
}

/// The address under which others reach a listener: its own if it has one, else this machine's.
pub(crate) fn reachable(listen: SocketAddr) -> SocketAddr {
    if !listen.ip().is_unspecified() {
        return listen;
    }
    let own = if listen.is_ipv4() {
        own_v4()
    } else {
        own_v4().or_else(own_v6)
    };
    SocketAddr::new(own.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)), listen.port())
}

/// The listener that a link should name: one that others can reach, if there is one.
pub(crate) fn for_links(listen: &[SocketAddr]) -> Option<SocketAddr> {
    let beyond = listen.iter().find(|address| !address.ip().is_loopback());
    beyond.or(listen.first()).copied().map(reachable)
}

/// A link to a share of this machine.
pub(crate) fn link(at: SocketAddr, share: &ShareName, device: Option<DeviceId>, invite: Option<Secret>) -> Link {
    Link {
        host: at.ip().to_string(),
        port: at.port(),
        share: share.clone(),
        path: None,
        trailing_slash: false,
        secret: device.map(|server| LinkSecret { server, invite }),
    }
}

fn own_v4() -> Option<IpAddr> {
    // A documentation address (RFC 5737): only the route is looked up.
    source_towards(
        (Ipv4Addr::UNSPECIFIED, 0).into(),
        (Ipv4Addr::new(192, 0, 2, 1), 9).into(),
    )
}

fn own_v6() -> Option<IpAddr> {
    // A documentation prefix (RFC 3849).
    let far = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
    source_towards((Ipv6Addr::UNSPECIFIED, 0).into(), (far, 9).into())
}

/// The address that this machine would send from. Connecting a datagram socket sends nothing.
fn source_towards(from: SocketAddr, to: SocketAddr) -> Option<IpAddr> {
    let socket = UdpSocket::bind(from).ok()?;
    socket.connect(to).ok()?;
    let own = socket.local_addr().ok()?.ip();
    (!own.is_loopback() && !own.is_unspecified()).then_some(own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listen_takes_every_usual_spelling() {
        for (text, address) in [
            ("7171", "0.0.0.0:7171"),
            (":80", "0.0.0.0:80"),
            ("127.0.0.1", "127.0.0.1:7171"),
            ("127.0.0.1:0", "127.0.0.1:0"),
            ("::1", "[::1]:7171"),
            ("[::1]", "[::1]:7171"),
            ("[::]:9", "[::]:9"),
        ] {
            assert_eq!(parse_listen(text).unwrap(), address.parse().unwrap(), "{text}");
        }
        for bad in ["", "99999999", "127.0.0.1:x", ":x", "host:99999"] {
            assert_eq!(parse_listen(bad).unwrap_err().exit.code(), 2, "{bad}");
        }
    }

    #[test]
    fn a_specific_address_is_named_as_it_is_and_a_general_one_never_is() {
        let specific = "127.0.0.1:80".parse().unwrap();
        assert_eq!(reachable(specific), specific);
        for general in ["0.0.0.0:80", "[::]:80"] {
            let own = reachable(general.parse().unwrap());
            assert!(!own.ip().is_unspecified() && own.port() == 80);
        }
    }

    #[test]
    fn links_prefer_a_listener_that_others_can_reach() {
        let listen = ["127.0.0.1:1".parse().unwrap(), "192.0.2.7:2".parse().unwrap()];
        assert_eq!(for_links(&listen), Some(listen[1]));
        assert_eq!(for_links(&listen[..1]), Some(listen[0]));
        assert_eq!(for_links(&[]), None);
    }

    #[test]
    fn links_of_a_plain_server_hold_no_key_and_others_do() {
        let share = ShareName::parse("My Share").unwrap();
        let at = "192.0.2.7:7171".parse().unwrap();
        assert_eq!(
            link(at, &share, None, None).to_string(),
            "syncline://192.0.2.7:7171/My%20Share"
        );
        let invite = link(at, &share, Some(DeviceId([1; 32])), Some(Secret([2; 16]))).to_string();
        assert!(
            invite.ends_with(&format!("#{}.{}", "01".repeat(32), "02".repeat(16))),
            "{invite}"
        );
    }
}
