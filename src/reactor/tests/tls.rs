//! Owns the tests of TLS in the loop: who is let in, who is told what.

use super::super::identity::ALPN;
use super::*;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::sync::Arc;

fn client(identity: &Identity, expected: Option<DeviceId>) -> ClientSecurity {
    ClientSecurity::Tls {
        identity: identity.clone(),
        expected,
    }
}

/// Connects with TLS on one side or both, and tells how both ends ended.
fn ends(security: Security, client: &ClientSecurity) -> (Option<Closed>, Option<Closed>) {
    let (mut reactor, mut host) = (reactor(), Host::new(Role::Echo));
    let (_, address) = reactor.listen(any_port(), security).unwrap();
    reactor
        .connect(address, client, Machine::new(Role::Collect, &content(100)))
        .unwrap();
    run(&mut reactor, &mut host, |host, _| host.closed.len() == 2);
    let mut end = |is_server: bool| {
        let index = host
            .closed
            .iter()
            .position(|(_, _, machine)| machine.is_server == is_server)?;
        Some(host.closed.remove(index).1)
    };
    (end(true), end(false))
}

#[test]
fn bytes_come_back_under_tls_and_each_side_knows_the_other() {
    let (server, device) = (Identity::generate().unwrap(), Identity::generate().unwrap());
    let host = echo(Security::Tls(server.clone()), &client(&device, Some(server.device())));
    for (_, is_server, peer) in &host.established {
        assert_eq!(*peer, Some(if *is_server { device.device() } else { server.device() }));
    }
    assert_eq!(host.established.len(), 2);
}

#[test]
fn row_22_a_server_with_another_key_is_named_and_gets_no_byte() {
    let (server, device) = (Identity::generate().unwrap(), Identity::generate().unwrap());
    let (at_server, at_client) = ends(Security::Tls(server.clone()), &client(&device, Some(device.device())));
    assert!(
        matches!(at_client, Some(Closed::WrongServer { found }) if found == server.device()),
        "{at_client:?}"
    );
    assert!(
        matches!(at_server, Some(Closed::Tls(_) | Closed::HungUp)),
        "{at_server:?}"
    );
}

#[test]
fn plain_and_tls_ends_that_meet_say_so() {
    let identity = Identity::generate().unwrap();
    let (at_server, at_client) = ends(Security::Tls(identity.clone()), &ClientSecurity::Plain);
    assert!(matches!(at_server, Some(Closed::NotTls)), "{at_server:?}");
    assert!(matches!(at_client, Some(Closed::IsTls)), "{at_client:?}");
    let (at_server, at_client) = ends(Security::Plain, &client(&identity, None));
    assert!(matches!(at_server, Some(Closed::IsTls)), "{at_server:?}");
    assert!(matches!(at_client, Some(Closed::HungUp)), "{at_client:?}");
}

#[test]
fn row_26_a_silent_peer_meets_the_handshake_deadline() {
    let (mut reactor, mut host) = (reactor(), Host::new(Role::Echo));
    let (_, address) = reactor
        .listen(any_port(), Security::Tls(Identity::generate().unwrap()))
        .unwrap();
    let _peer = TcpStream::connect(address).unwrap();
    run(&mut reactor, &mut host, |_, reactor| reactor.counters().accepted == 1);
    settle(&mut reactor, &mut host);
    let deadline = reactor
        .next_deadline()
        .expect("the reactor has set a deadline of its own");
    assert!(deadline <= Instant::now() + Duration::from_secs(10));
    let id = reactor.connection_ids()[0];
    reactor.fire_deadline(id, &mut host);
    assert!(matches!(host.why(true), Some(Closed::HandshakeTimeout)));
    assert!(host.established.is_empty() && reactor.connections() == 0);
}

// Protects the memory limit: what TLS keeps of a record that is not complete counts, before anybody is known, too.
#[test]
fn a_part_of_a_record_counts_as_memory() {
    let (mut reactor, mut host) = (reactor(), Host::new(Role::Echo));
    let (_, address) = reactor
        .listen(any_port(), Security::Tls(Identity::generate().unwrap()))
        .unwrap();
    let mut peer = TcpStream::connect(address).unwrap();
    run(&mut reactor, &mut host, |_, reactor| reactor.counters().accepted == 1);
    let id = reactor.connection_ids()[0];
    let held = |reactor: &mut Reactor<Machine>| reactor.with(id, |cx, _| cx.buffered_bytes()).unwrap();
    assert_eq!(held(&mut reactor), 0);
    // The beginning of a handshake record of 16,000 bytes.
    let hello = [&[22, 3, 1, 0x3E, 0x80][..], &[0; 10_000]].concat();
    peer.write_all(&hello).unwrap();
    run(&mut reactor, &mut host, |_, reactor| held(reactor) >= hello.len());
}

/// Connects with rustls's blocking interface and a changed configuration; tells how the server saw it.
fn odd_client(change: impl FnOnce(&mut ClientConfig)) -> Host {
    let (mut reactor, mut host) = (reactor(), Host::new(Role::Echo));
    let server = Identity::generate().unwrap();
    let (_, address) = reactor.listen(any_port(), Security::Tls(server)).unwrap();
    let mut config = (*Identity::generate().unwrap().client_config(None).unwrap()).clone();
    change(&mut config);
    let peer = std::thread::spawn(move || {
        let name = ServerName::try_from("syncline.invalid").unwrap();
        let mut session = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
        let mut socket = Dribble(TcpStream::connect(address).unwrap());
        let mut stream = rustls::Stream::new(&mut session, &mut socket);
        stream
            .write_all(b"hello")
            .and_then(|()| stream.read_exact(&mut [0; 5]))
            .is_ok()
    });
    run(&mut reactor, &mut host, |host, _| {
        !host.closed.is_empty() && peer.is_finished()
    });
    let is_served = peer.join().unwrap();
    assert_eq!(is_served, !host.established.is_empty());
    host
}

/// Sends three bytes at a time, so that every record arrives in pieces.
struct Dribble(TcpStream);

impl Write for Dribble {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(&bytes[..bytes.len().min(3)])
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl Read for Dribble {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.0.read(bytes)
    }
}

/// The first message of a client, as it stands on the wire.
fn client_hello() -> Vec<u8> {
    let config = Identity::generate().unwrap().client_config(None).unwrap();
    let name = ServerName::try_from("syncline.invalid").unwrap();
    let (mut session, mut hello) = (rustls::ClientConnection::new(config, name).unwrap(), Vec::new());
    session.write_tls(&mut hello).unwrap();
    hello
}

#[test]
fn row_10_a_damaged_hello_closes_its_connection_and_nothing_else() {
    let (mut reactor, mut host) = (reactor(), Host::new(Role::Echo));
    let (_, address) = reactor
        .listen(any_port(), Security::Tls(Identity::generate().unwrap()))
        .unwrap();
    let hello = client_hello();
    let mut seed = 20_261_120u64;
    println!("seed {seed}");
    let mut random = |below: usize| {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize % below
    };
    for round in 1..=300 {
        let mut damaged = hello.clone();
        match random(4) {
            0 => damaged.truncate(random(hello.len())),
            1 => damaged.extend(std::iter::repeat_n(22, 1 + random(40_000))),
            _ => {}
        }
        for _ in 0..random(5) {
            if let Some(byte) = damaged.get_mut(random(hello.len())) {
                *byte = random(256) as u8;
            }
        }
        let mut peer = TcpStream::connect(address).unwrap();
        // The server may hang up before it has taken all.
        let _ = peer.write_all(&damaged);
        drop(peer);
        run(&mut reactor, &mut host, |host, _| host.closed.len() == round);
    }
    assert!(host.established.is_empty(), "nobody got in: {:?}", host.established);
    assert_eq!(reactor.connections(), 0);
}

#[test]
fn another_implementation_of_the_client_is_served() {
    let host = odd_client(|config| assert_eq!(config.alpn_protocols, [ALPN]));
    assert!(matches!(host.why(true), Some(Closed::Peer)), "{:?}", host.closed);
}

#[test]
fn row_22_clients_of_another_protocol_or_without_a_key_are_refused() {
    for protocols in [vec![], vec![b"http/1.1".to_vec()]] {
        let host = odd_client(|config| config.alpn_protocols = protocols);
        assert!(
            matches!(host.why(true), Some(Closed::NoCommonProtocol)),
            "{:?}",
            host.closed
        );
        assert!(host.established.is_empty());
    }
    let host = odd_client(|config| config.client_auth_cert_resolver = Arc::new(NoKey));
    assert!(
        matches!(host.why(true), Some(Closed::NoCertificate)),
        "{:?}",
        host.closed
    );
    assert!(host.established.is_empty());
}

#[derive(Debug)]
struct NoKey;

impl rustls::client::ResolvesClientCert for NoKey {
    fn resolve(&self, _: &[&[u8]], _: &[rustls::SignatureScheme]) -> Option<Arc<rustls::sign::CertifiedKey>> {
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}
