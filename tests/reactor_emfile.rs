//! Owns the test of a process without descriptors. It is alone in its binary: the limit that it
//! lowers holds for the whole process.

#[path = "harness/descriptors.rs"]
mod descriptors;

use descriptors::limit_descriptors;
use std::io::{self, Read};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};
use syncline::model::DeviceId;
use syncline::reactor::{Activity, Closed, ConnId, Context, Handler, Reactor, ReactorOptions, Security, Shared};

#[derive(Default)]
struct Host {
    established: usize,
    closed: usize,
}

impl Handler<()> for Host {
    fn accepted(&mut self, _: &mut Shared, _: usize, _: ConnId, _: SocketAddr) -> Option<()> {
        Some(())
    }
    fn established(&mut self, _: &mut Context<'_>, (): &mut (), _: Option<DeviceId>) {
        self.established += 1;
    }
    fn received(&mut self, _: &mut Context<'_>, (): &mut (), _: &[u8]) {}
    fn ready(&mut self, _: &mut Context<'_>, (): &mut ()) -> Activity {
        Activity::Idle
    }
    fn deadline(&mut self, _: &mut Context<'_>, (): &mut ()) {}
    fn closed(&mut self, _: &mut Shared, _: ConnId, (): (), _: Closed) {
        self.closed += 1;
    }
    fn durable(&mut self, _: &mut Shared, _: u64, _: io::Result<()>) {}
    fn signal(&mut self, _: &mut Shared, _: i32) {}
    fn timer(&mut self, _: &mut Shared, _: u64) {}
}

#[test]
fn row_28_without_descriptors_peers_are_turned_away_and_the_loop_rests() {
    let mut reactor = Reactor::new(&ReactorOptions::default()).unwrap();
    let mut host = Host::default();
    let (_, address) = reactor
        .listen(SocketAddr::from(([127, 0, 0, 1], 0)), Security::Plain)
        .unwrap();
    let turn = |host: &mut Host, reactor: &mut Reactor<()>| {
        reactor.turn(Some(Duration::from_secs(5)), host).unwrap();
    };

    let _served = TcpStream::connect(address).unwrap();
    while host.established == 0 {
        turn(&mut host, &mut reactor);
    }
    let mut peers: Vec<TcpStream> = (0..20).map(|_| TcpStream::connect(address).unwrap()).collect();
    // The lowest free descriptor becomes the limit, so the next accept fails.
    let lowest_free = std::fs::File::open("/dev/null").unwrap().as_raw_fd();
    limit_descriptors(u64::try_from(lowest_free).ok());
    let before = reactor.counters();
    while reactor.counters().turned_away < 20 {
        assert!(
            reactor.counters().turns - before.turns < 10,
            "it spins, or turns nobody away"
        );
        turn(&mut host, &mut reactor);
    }
    assert!(reactor.counters().turns - before.turns < 10, "it does not spin");
    assert!(reactor.next_deadline().expect("the listener rests on a timer") > Instant::now());
    for peer in &mut peers {
        assert!(
            matches!(peer.read(&mut [0; 1]), Ok(0) | Err(_)),
            "it learns at once that it is not served"
        );
    }
    assert_eq!((reactor.connections(), host.closed), (1, 0), "who is served stays");

    limit_descriptors(None);
    let _next = TcpStream::connect(address).unwrap();
    while host.established == 1 {
        turn(&mut host, &mut reactor);
    }
    assert_eq!(reactor.connections(), 2);
}
