//! Owns the tests of the loop as a whole, over loopback. Each runs both ends on one thread, or uses
//! blocking sockets of the standard library as peers.

mod fairness;
mod foreign;
#[cfg(feature = "tls")]
mod tls;

use super::*;
use crate::model::limits::OUTBOUND_BYTES_MAX;
use crate::model::{DeviceId, SharedBytes, Tick};
use std::collections::{HashMap, VecDeque};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// What a machine of these tests does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// Sends back what it gets.
    Echo,
    /// Keeps what it gets.
    Collect,
    /// Counts what it gets.
    Count,
    /// Sends as much as there is room for.
    Flood,
    /// Says a word and closes as soon as it gets something.
    Refuse,
}

#[derive(Debug)]
struct Machine {
    role: Role,
    /// Sent when the connection stands: in small pieces, then as shared bytes.
    opening: Rc<Vec<u8>>,
    received: Vec<u8>,
    count: u64,
    ready_calls: u32,
    is_server: bool,
}

impl Machine {
    fn new(role: Role, opening: &Rc<Vec<u8>>) -> Machine {
        Machine {
            role,
            opening: opening.clone(),
            received: Vec::new(),
            count: 0,
            ready_calls: 0,
            is_server: false,
        }
    }
}

#[derive(Debug)]
struct Host {
    server_role: Role,
    refuses: bool,
    established: Vec<(ConnId, bool, Option<DeviceId>)>,
    closed: Vec<(ConnId, Closed, Machine)>,
    durable: Vec<(u64, bool)>,
    signals: Vec<i32>,
    timers: Vec<u64>,
    deadlines: Vec<ConnId>,
    /// Bytes received by each connection since it was last cleared, and in how many pieces.
    in_this_turn: HashMap<ConnId, (usize, u32)>,
    /// Bytes that each connection was given the first time.
    given_first: HashMap<ConnId, usize>,
    /// What a flooding machine sends, again and again.
    flooded: Rc<Vec<u8>>,
    /// How long a timer, a result or what was received keeps the loop.
    busy: Duration,
    /// Of more than so many, the oldest gives way.
    room: usize,
    accepted: VecDeque<ConnId>,
}

impl Host {
    fn new(server_role: Role) -> Host {
        Host {
            server_role,
            refuses: false,
            established: Vec::new(),
            closed: Vec::new(),
            durable: Vec::new(),
            signals: Vec::new(),
            timers: Vec::new(),
            deadlines: Vec::new(),
            in_this_turn: HashMap::new(),
            given_first: HashMap::new(),
            flooded: Rc::new(vec![0x5a; 64 * 1024]),
            busy: Duration::ZERO,
            room: usize::MAX,
            accepted: VecDeque::new(),
        }
    }

    fn work(&self) {
        let begun = Instant::now();
        while begun.elapsed() < self.busy {}
    }

    fn why(&self, is_server: bool) -> Option<&Closed> {
        self.closed
            .iter()
            .find(|(_, _, machine)| machine.is_server == is_server)
            .map(|(_, why, _)| why)
    }
}

impl Handler<Machine> for Host {
    fn accepted(&mut self, shared: &mut Shared, _: usize, id: ConnId, _: SocketAddr) -> Option<Machine> {
        if self.accepted.len() >= self.room {
            shared.close(self.accepted.pop_front().unwrap());
        }
        self.accepted.push_back(id);
        let machine = Machine {
            is_server: true,
            ..Machine::new(self.server_role, &Rc::default())
        };
        (!self.refuses).then_some(machine)
    }

    fn established(&mut self, cx: &mut Context<'_>, machine: &mut Machine, peer: Option<DeviceId>) {
        assert_eq!(peer.is_some(), cx.is_secure());
        self.established.push((cx.id(), machine.is_server, peer));
        let opening: SharedBytes = machine.opening.clone();
        let (small, large) = machine.opening.split_at(machine.opening.len() / 10);
        small.chunks(777).for_each(|piece| cx.send(piece));
        cx.send_shared(opening, small.len()..small.len() + large.len());
        if machine.role == Role::Flood {
            let id = cx.id();
            cx.wake(id);
        }
    }

    fn received(&mut self, cx: &mut Context<'_>, machine: &mut Machine, bytes: &[u8]) {
        let (count, pieces) = self.in_this_turn.entry(cx.id()).or_default();
        (*count, *pieces) = (*count + bytes.len(), *pieces + 1);
        self.work();
        self.given_first.entry(cx.id()).or_insert(bytes.len());
        machine.count += bytes.len() as u64;
        match machine.role {
            Role::Echo => cx.send_owned(bytes.to_vec()),
            Role::Collect => machine.received.extend_from_slice(bytes),
            Role::Count | Role::Flood => {}
            Role::Refuse => {
                cx.send(b"no");
                cx.close_after_flush();
            }
        }
        if !machine.is_server && !machine.opening.is_empty() && machine.received.len() == machine.opening.len() {
            cx.close_after_flush();
        }
    }

    fn ready(&mut self, cx: &mut Context<'_>, machine: &mut Machine) -> Activity {
        machine.ready_calls += 1;
        if machine.role != Role::Flood {
            return Activity::Idle;
        }
        assert!(cx.room() > 0, "nothing is asked for while the queue is full");
        let flooded: SharedBytes = self.flooded.clone();
        cx.send_shared(flooded, 0..self.flooded.len());
        Activity::More
    }

    fn deadline(&mut self, cx: &mut Context<'_>, _: &mut Machine) {
        self.deadlines.push(cx.id());
        cx.abort();
    }

    fn closed(&mut self, _: &mut Shared, id: ConnId, machine: Machine, why: Closed) {
        self.closed.push((id, why, machine));
    }

    fn durable(&mut self, _: &mut Shared, ticket: u64, result: io::Result<()>) {
        self.durable.push((ticket, result.is_ok()));
        self.work();
    }

    fn signal(&mut self, _: &mut Shared, signal: i32) {
        self.signals.push(signal);
    }

    fn timer(&mut self, shared: &mut Shared, key: u64) {
        self.timers.push(key);
        self.work();
        if key == 99 {
            shared.stop();
        }
    }
}

fn reactor() -> Reactor<Machine> {
    Reactor::new(&ReactorOptions::default()).unwrap()
}

fn any_port() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// Turns until `done`; fails when that takes unreasonably long.
fn run(reactor: &mut Reactor<Machine>, host: &mut Host, mut done: impl FnMut(&Host, &mut Reactor<Machine>) -> bool) {
    let begun = Instant::now();
    while !done(host, reactor) {
        assert!(
            begun.elapsed() < Duration::from_secs(20),
            "stuck: {reactor:?}, {:?}",
            host.closed
        );
        reactor.turn(Some(Duration::from_millis(100)), host).unwrap();
    }
}

/// Turns until nothing is left to do: no work in line, and a wait for events brings none.
fn settle(reactor: &mut Reactor<Machine>, host: &mut Host) {
    let mut visits = u64::MAX;
    run(reactor, host, |_, reactor| {
        std::mem::replace(&mut visits, reactor.counters().visits) == reactor.counters().visits
    });
}

fn content(length: usize) -> Rc<Vec<u8>> {
    Rc::new(
        (0..length)
            .map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8)
            .collect(),
    )
}

fn echo(security: Security, client: &ClientSecurity) -> Host {
    let (mut reactor, mut host) = (reactor(), Host::new(Role::Echo));
    let (_, address) = reactor.listen(any_port(), security).unwrap();
    let opening = content(3_000_000);
    reactor
        .connect(address, client, Machine::new(Role::Collect, &opening))
        .unwrap();
    run(&mut reactor, &mut host, |host, _| host.closed.len() == 2);
    let (_, why, machine) = host.closed.iter().find(|(_, _, machine)| !machine.is_server).unwrap();
    assert!(machine.received == *opening, "the content came back as it was");
    assert!(matches!(why, Closed::Local), "{why}");
    assert!(matches!(host.why(true), Some(Closed::Peer)), "{:?}", host.closed);
    assert_eq!(reactor.connections(), 0);
    host
}

#[test]
fn plain_bytes_come_back_as_they_were() {
    let host = echo(Security::Plain, &ClientSecurity::Plain);
    assert!(host.established.iter().all(|(_, _, peer)| peer.is_none()));
}

#[test]
fn a_connection_that_nobody_answers_fails_with_a_reason() {
    let (mut reactor, mut host) = (reactor(), Host::new(Role::Echo));
    let (_, address) = reactor.listen(any_port(), Security::Plain).unwrap();
    reactor.close_listeners();
    reactor
        .connect(
            address,
            &ClientSecurity::Plain,
            Machine::new(Role::Collect, &Rc::default()),
        )
        .unwrap();
    run(&mut reactor, &mut host, |host, _| !host.closed.is_empty());
    assert!(matches!(host.why(false), Some(Closed::Connect(_))), "{:?}", host.closed);
}

/// What comes all at once is dealt with in slices: a turn does not grow with the number of timers or results,
/// and none of them is lost or waits for an event.
#[test]
fn timers_and_results_that_come_all_at_once_are_spread_over_turns() {
    let (mut reactor, mut host) = (reactor(), Host::new(Role::Echo));
    host.busy = Duration::from_micros(400);
    let now = reactor.shared().now();
    for ticket in 0..40 {
        reactor.shared().set_timer(1_000 + ticket, now);
        assert!(reactor.shared().submit(ticket, Box::new(|| Ok(()))).is_ok());
    }
    reactor.turn(Some(Duration::ZERO), &mut host).unwrap();
    // 1 ms of 400 µs each, and the one that is under way.
    assert!(
        (1..=4).contains(&host.timers.len()),
        "{} timers in a turn",
        host.timers.len()
    );
    let mut most = 0;
    while host.timers.len() < 40 || host.durable.len() < 40 {
        let before = host.durable.len();
        // Nothing but what is left brings the next turn about.
        reactor.turn(Some(Duration::from_secs(20)), &mut host).unwrap();
        most = most.max(host.durable.len() - before);
    }
    assert!(most <= 4, "{most} results in a turn");
    assert_eq!(host.timers, (1_000..1_040).collect::<Vec<_>>());
    assert_eq!(host.durable, (0..40).map(|ticket| (ticket, true)).collect::<Vec<_>>());
}

/// A visit that took much of its quantum moves a connection behind those that have little to do.
#[test]
fn whoever_floods_stands_in_the_line_of_bulk_connections() {
    let (mut reactor, mut host) = (reactor(), Host::new(Role::Flood));
    let (_, address) = reactor.listen(any_port(), Security::Plain).unwrap();
    let machine = Machine::new(Role::Count, &Rc::default());
    reactor.connect(address, &ClientSecurity::Plain, machine).unwrap();
    run(&mut reactor, &mut host, |_, reactor| {
        reactor.counters().bulk_line_longest > 0
    });
    assert!(reactor.counters().interactive_line_longest > 0);
}

#[test]
fn late_wishes_for_a_closed_connection_do_not_reach_the_next_one() {
    let (mut reactor, mut host) = (reactor(), Host::new(Role::Echo));
    let (_, address) = reactor.listen(any_port(), Security::Plain).unwrap();
    let machine = || Machine::new(Role::Count, &Rc::default());
    let first = reactor.connect(address, &ClientSecurity::Plain, machine()).unwrap();
    run(&mut reactor, &mut host, |host, _| host.established.len() == 2);
    reactor.shared().close(first);
    run(&mut reactor, &mut host, |host, _| host.closed.len() == 2);
    let second = reactor.connect(address, &ClientSecurity::Plain, machine()).unwrap();
    run(&mut reactor, &mut host, |host, _| host.established.len() == 4);
    assert!(reactor.with(first, |_, _| ()).is_none());
    reactor.shared().close(first);
    reactor.shared().wake(first);
    reactor.shared().wake(second);
    reactor.turn(Some(Duration::ZERO), &mut host).unwrap();
    assert_eq!(reactor.with(second, |_, machine| machine.ready_calls), Some(1));
    assert_eq!(host.closed.len(), 2);
}

#[test]
fn row_27_a_peer_that_never_reads_has_no_more_than_the_mark_queued() {
    let (mut reactor, mut host) = (reactor(), Host::new(Role::Flood));
    let (_, address) = reactor.listen(any_port(), Security::Plain).unwrap();
    let mut peer = TcpStream::connect(address).unwrap();
    run(&mut reactor, &mut host, |host, _| !host.established.is_empty());
    let id = host.established[0].0;
    settle(&mut reactor, &mut host);
    let queued = reactor.with(id, |cx, _| (cx.outbound_bytes(), cx.room())).unwrap();
    // The flood is of shared bytes, which are no memory of ours and weigh an eighth.
    assert!(
        queued.0 < 8 * (OUTBOUND_BYTES_MAX + 64 * 1024) && queued.1 == 0,
        "{queued:?}"
    );
    let calls = reactor.with(id, |_, machine| machine.ready_calls).unwrap();
    settle(&mut reactor, &mut host);
    assert_eq!(
        reactor.with(id, |_, machine| machine.ready_calls),
        Some(calls),
        "it rests while the peer does not read"
    );
    let mut buffer = vec![0; 1 << 20];
    run(&mut reactor, &mut host, |_, reactor| {
        peer.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        while peer.read(&mut buffer).is_ok() {}
        reactor.with(id, |_, machine| machine.ready_calls) > Some(calls)
    });
}

#[test]
fn last_words_arrive_although_the_peer_is_still_sending() {
    let (mut reactor, mut host) = (reactor(), Host::new(Role::Refuse));
    let (_, address) = reactor.listen(any_port(), Security::Plain).unwrap();
    let peer = std::thread::spawn(move || {
        let mut peer = TcpStream::connect(address).unwrap();
        let mut words = Vec::new();
        // More than the buffers between the two hold.
        let sent = peer.write_all(&vec![1; 8 << 20]);
        let read = peer.read_to_end(&mut words);
        (sent.is_ok(), read.is_ok(), words)
    });
    run(&mut reactor, &mut host, |_, _| peer.is_finished());
    assert_eq!(peer.join().unwrap(), (true, true, b"no".to_vec()));
    run(&mut reactor, &mut host, |host, _| host.closed.len() == 1);
    assert!(matches!(host.why(true), Some(Closed::Local)));
}

#[test]
fn idle_connections_cost_no_visits_and_leave_the_descriptor_quiet() {
    let (mut reactor, mut host) = (reactor(), Host::new(Role::Echo));
    let (_, address) = reactor.listen(any_port(), Security::Plain).unwrap();
    let mut peers: Vec<TcpStream> = (0..50).map(|_| TcpStream::connect(address).unwrap()).collect();
    run(&mut reactor, &mut host, |host, _| host.established.len() == 50);
    settle(&mut reactor, &mut host);
    let before = reactor.counters();
    reactor.turn(Some(Duration::from_millis(30)), &mut host).unwrap();
    assert_eq!(reactor.next_deadline(), None, "no timer, no work");
    assert_eq!(reactor.counters().visits, before.visits);

    // A host's own poll sees the descriptor become readable.
    let mut outer = mio::Poll::new().unwrap();
    let mut events = mio::Events::with_capacity(4);
    let descriptor = std::os::fd::AsRawFd::as_raw_fd(&reactor);
    let mut source = mio::unix::SourceFd(&descriptor);
    outer
        .registry()
        .register(&mut source, mio::Token(0), mio::Interest::READABLE)
        .unwrap();
    outer.poll(&mut events, Some(Duration::ZERO)).unwrap();
    assert!(events.is_empty());
    peers[0].write_all(b"hello").unwrap();
    outer.poll(&mut events, Some(Duration::from_secs(10))).unwrap();
    assert!(!events.is_empty());
    run(&mut reactor, &mut host, |host, _| !host.in_this_turn.is_empty());
    assert_eq!(
        reactor.counters().visits - before.visits,
        1,
        "only the one with bytes is visited"
    );
}

/// A loop that listens, with room for so many connections.
fn listening(connections_max: usize) -> (Reactor<Machine>, Host, SocketAddr) {
    let options = ReactorOptions {
        connections_max,
        ..ReactorOptions::default()
    };
    let mut reactor = Reactor::new(&options).unwrap();
    let (_, address) = reactor.listen(any_port(), Security::Plain).unwrap();
    (reactor, Host::new(Role::Echo), address)
}

#[test]
fn peers_over_the_cap_and_refused_ones_are_closed_at_once() {
    let (mut reactor, mut host, address) = listening(4);
    let mut peers: Vec<TcpStream> = (0..6).map(|_| TcpStream::connect(address).unwrap()).collect();
    run(&mut reactor, &mut host, |_, reactor| {
        reactor.counters().turned_away == 2
    });
    assert_eq!((reactor.connections(), reactor.counters().accepted), (4, 4));
    let gone = |peer: &mut TcpStream| matches!(peer.read(&mut [0; 1]), Ok(0) | Err(_));
    assert!(peers[4..].iter_mut().all(gone));
    peers.clear();
    run(&mut reactor, &mut host, |host, _| host.closed.len() == 4);
    host.refuses = true;
    let mut peer = TcpStream::connect(address).unwrap();
    run(&mut reactor, &mut host, |_, reactor| {
        reactor.counters().turned_away == 3
    });
    assert!(gone(&mut peer) && reactor.connections() == 0);
}

// Protects whoever comes in a crowd from being turned away for those who are about to go.
#[test]
fn nobody_is_turned_away_while_others_are_being_closed() {
    let (mut reactor, mut host, address) = listening(4);
    host.room = 2;
    let _peers: Vec<TcpStream> = (0..20).map(|_| TcpStream::connect(address).unwrap()).collect();
    run(&mut reactor, &mut host, |host, reactor| {
        host.closed.len() as u64 + reactor.counters().turned_away == 18
    });
    assert_eq!((reactor.counters().accepted, reactor.counters().turned_away), (20, 0));
}

#[test]
fn timers_deadlines_jobs_and_signals_reach_the_host() {
    let options = ReactorOptions {
        handle_signals: true,
        ..ReactorOptions::default()
    };
    let (mut reactor, mut host) = (Reactor::new(&options).unwrap(), Host::new(Role::Echo));
    let (_, address) = reactor.listen(any_port(), Security::Plain).unwrap();
    let id = reactor
        .connect(
            address,
            &ClientSecurity::Plain,
            Machine::new(Role::Count, &Rc::default()),
        )
        .unwrap();
    run(&mut reactor, &mut host, |host, _| host.established.len() == 2);
    let now = reactor.shared().now();
    reactor.shared().set_timer(1, now + 60_000);
    reactor.shared().set_timer(1, now + 5);
    reactor.shared().set_timer(2, now + 1);
    reactor.shared().cancel_timer(2);
    reactor.shared().set_timer(99, now + 10);
    reactor.with(id, |cx, _| cx.set_deadline(Some(Tick(0)))).unwrap();
    assert!(reactor.shared().submit(7, Box::new(|| Ok(()))).is_ok());
    signal_hook::low_level::raise(signal_hook::consts::SIGTERM).unwrap();
    run(&mut reactor, &mut host, |host, reactor| {
        reactor.is_stopped() && host.durable.len() == 1 && host.closed.len() == 2
    });
    assert_eq!(host.timers, [1, 99]);
    assert_eq!(host.deadlines, [id]);
    assert_eq!(host.durable, [(7, true)]);
    assert_eq!(host.signals, [signal_hook::consts::SIGTERM]);
    assert!(matches!(host.why(false), Some(Closed::Local)));
}

#[test]
fn a_bandwidth_limit_slows_a_transfer_without_spinning() {
    let options = ReactorOptions {
        bytes_per_second: Some(1_000_000),
        ..ReactorOptions::default()
    };
    let (mut reactor, mut host) = (Reactor::new(&options).unwrap(), Host::new(Role::Count));
    let (_, address) = reactor.listen(any_port(), Security::Plain).unwrap();
    reactor
        .connect(
            address,
            &ClientSecurity::Plain,
            Machine::new(Role::Count, &content(300_000)),
        )
        .unwrap();
    let begun = Instant::now();
    run(&mut reactor, &mut host, |host, _| {
        host.in_this_turn.values().map(|(count, _)| *count).sum::<usize>() == 300_000
    });
    assert!(
        begun.elapsed() >= Duration::from_millis(190),
        "200,000 bytes over the burst take 0.2 s"
    );
    assert!(reactor.counters().turns < 200, "{:?}", reactor.counters());
}

/// A mebibyte may be thousands of small files to make, for a second or more: how long its machine takes is seen
/// on a little first.
#[test]
fn a_new_connection_is_given_little_at_first() {
    use std::io::Write;
    let (mut reactor, mut host) = (reactor(), Host::new(Role::Count));
    let (_, address) = reactor.listen(any_port(), Security::Plain).unwrap();
    let mut peer = TcpStream::connect(address).unwrap();
    peer.set_nonblocking(true).unwrap();
    let mut written = 0;
    while let Ok(count) = peer.write(&[7; 64 * 1024]) {
        written += count;
    }
    assert!(written > 64 * 1024, "{written}");
    run(&mut reactor, &mut host, |host, _| !host.given_first.is_empty());
    let given: Vec<_> = host.given_first.values().copied().collect();
    assert_eq!(given, [16 * 1024]);
}
