//! Rows 29 and 30 of the threats at the loop: what one connection gets of a turn, and what the next owner of a slot
//! hears of the one before.

use super::*;
use crate::model::limits::{TURN_BYTES, TURN_MICROS};
use mio::Interest;
use std::os::unix::net::UnixStream;

/// Whoever always has more gets its quantum of bytes in a turn and no more, and a thousand small ones are done
/// beside it.
#[test]
fn row_29_one_flooder_beside_a_thousand_small_clients_gets_its_quantum_and_no_more() {
    const SMALL: usize = 1_000;
    let (mut reactor, mut host) = (reactor(), Host::new(Role::Echo));
    let (_, echo) = reactor.listen(any_port(), Security::Plain).unwrap();
    let flooder = Machine::new(Role::Flood, &Rc::default());
    reactor.connect(echo, &ClientSecurity::Plain, flooder).unwrap();
    run(&mut reactor, &mut host, |host, _| {
        host.in_this_turn.values().any(|(count, _)| *count > 0)
    });
    let opening = content(500);
    for _ in 0..SMALL {
        let machine = Machine::new(Role::Collect, &opening);
        reactor.connect(echo, &ClientSecurity::Plain, machine).unwrap();
    }
    let (mut turns, mut flooded) = (0, 0);
    let done = |host: &Host| host.closed.iter().filter(|(_, _, machine)| !machine.is_server).count();
    while done(&host) < SMALL {
        host.in_this_turn.clear();
        reactor.turn(Some(Duration::from_millis(100)), &mut host).unwrap();
        let most = host.in_this_turn.values().map(|(count, _)| *count).max().unwrap_or(0);
        assert!(most <= TURN_BYTES, "{most} bytes of one connection in a turn");
        flooded += u32::from(most > opening.len());
        turns += 1;
        assert!(turns < 2 * SMALL, "{} small ones starve", SMALL - done(&host));
    }
    assert!(flooded > 0, "the flooder went on meanwhile");
    let all_well = |(_, why, machine): &(ConnId, Closed, Machine)| {
        machine.is_server || (matches!(why, Closed::Local) && machine.received == *opening)
    };
    assert!(host.closed.iter().all(all_well));
}

/// A peer whose bytes never end: however many there are, a turn takes no more than the quantum of them.
#[test]
fn row_29_a_turn_takes_no_more_than_its_bytes_of_a_stream_without_end() {
    const LENGTH: usize = 128 << 20;
    let (mut reactor, mut host) = (reactor(), Host::new(Role::Count));
    let (_, address) = reactor.listen(any_port(), Security::Plain).unwrap();
    let peer = std::thread::spawn(move || {
        let mut peer = TcpStream::connect(address).unwrap();
        let piece = vec![0; 4 << 20];
        (0..LENGTH / piece.len()).for_each(|_| peer.write_all(&piece).unwrap());
    });
    let mut most = 0;
    while host.closed.is_empty() {
        host.in_this_turn.clear();
        reactor.turn(Some(Duration::from_secs(20)), &mut host).unwrap();
        let counts = host.in_this_turn.values().map(|(count, _)| *count);
        most = counts.fold(most, usize::max);
    }
    peer.join().unwrap();
    assert_eq!(host.closed[0].2.count, LENGTH as u64);
    assert!(most <= TURN_BYTES, "{most} bytes in a turn");
}

/// Bytes that take their machine long: the quantum of time ends the visit, though there are bytes left of the other.
#[test]
fn row_29_a_visit_ends_with_its_time_however_few_bytes_it_moved() {
    let (mut reactor, mut host) = (reactor(), Host::new(Role::Count));
    let (_, address) = reactor.listen(any_port(), Security::Plain).unwrap();
    for _ in 0..3 {
        let machine = Machine::new(Role::Flood, &Rc::default());
        reactor.connect(address, &ClientSecurity::Plain, machine).unwrap();
    }
    // All of them have filled what the kernel holds for the other end, which reads from now on.
    run(&mut reactor, &mut host, |host, _| host.given_first.len() == 3);
    host.busy = Duration::from_micros(TURN_MICROS);
    let mut received = HashMap::<ConnId, u32>::new();
    for _ in 0..30 {
        host.in_this_turn.clear();
        reactor.turn(Some(Duration::from_millis(100)), &mut host).unwrap();
        for (id, (bytes, pieces)) in &host.in_this_turn {
            assert_eq!(*pieces, 1, "{bytes} bytes of one connection in a turn");
            *received.entry(*id).or_default() += 1;
        }
    }
    let shares: Vec<u32> = received.into_values().collect();
    assert!(
        shares.len() == 3 && shares.iter().all(|share| *share >= 3),
        "{shares:?}"
    );
}

/// An event that comes for a connection that is gone finds nobody, also when its slot has another owner: neither
/// does that one get a visit, nor does a deadline close it.
#[test]
fn row_30_a_late_event_does_not_reach_the_next_owner_of_a_slot() {
    let (mut reactor, mut host) = (reactor(), Host::new(Role::Count));
    let (_, address) = reactor.listen(any_port(), Security::Plain).unwrap();
    let first_peer = TcpStream::connect(address).unwrap();
    run(&mut reactor, &mut host, |host, _| host.established.len() == 1);
    let first = host.established[0].0;
    reactor.shared().close(first);
    run(&mut reactor, &mut host, |host, _| host.closed.len() == 1);
    let second_peer = TcpStream::connect(address).unwrap();
    run(&mut reactor, &mut host, |host, _| host.established.len() == 2);
    let second = host.established[1].0;
    assert_eq!(first.index, second.index, "the slot is used again");
    settle(&mut reactor, &mut host);
    let visits = reactor.counters().visits;
    // A real event under the token of the one that is gone.
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    let mut stale = mio::net::UnixStream::from_std(ours);
    let interest = Interest::READABLE | Interest::WRITABLE;
    reactor
        .poll
        .registry()
        .register(&mut stale, first.token(), interest)
        .unwrap();
    theirs.write_all(b"late").unwrap();
    drop(theirs);
    reactor.turn(Some(Duration::from_secs(5)), &mut host).unwrap();
    reactor.fire_deadline(first, &mut host);
    assert_eq!(reactor.counters().visits, visits, "somebody was visited for it");
    assert_eq!((host.closed.len(), host.deadlines.len()), (1, 0));
    assert!(reactor.with(second, |_, _| ()).is_some());
    drop((first_peer, second_peer));
}

/// Connections that come and go leave nothing in the tables of the loop: slots, lines and timers are as small as
/// after the first of them.
#[test]
fn row_30_who_comes_and_goes_leaves_no_entry_in_any_table() {
    // It answers with a word and parts, so that there is a deadline when the peer is gone.
    let (mut reactor, mut host) = (reactor(), Host::new(Role::Refuse));
    let (_, address) = reactor.listen(any_port(), Security::Plain).unwrap();
    for round in 0..200 {
        let mut peer = TcpStream::connect(address).unwrap();
        peer.write_all(&[1; 100][..round % 100]).unwrap();
        if round % 2 == 0 {
            socket2::SockRef::from(&peer).set_linger(Some(Duration::ZERO)).unwrap();
        }
        drop(peer);
        run(&mut reactor, &mut host, |host, _| host.closed.len() == round + 1);
    }
    assert_eq!(reactor.connections(), 0);
    assert!(
        host.established.iter().all(|(id, ..)| id.index == 0),
        "one slot did for all"
    );
    let lengths = reactor.shared.ready.lengths();
    assert_eq!((lengths.interactive, lengths.bulk), (0, 0));
    assert!(reactor.next_deadline().is_none(), "a timer is left");
}
