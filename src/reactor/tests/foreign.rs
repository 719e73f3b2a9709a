//! Owns the tests of descriptors of the host that the loop waits for.

use super::*;
use rustix::fs::inotify;
use std::os::unix::net::UnixStream;

/// Reads a byte a call from each of its pipes.
#[derive(Default)]
struct Watcher {
    pipes: HashMap<u64, UnixStream>,
    /// Whose call it was, and whether there was a byte.
    calls: Vec<(u64, bool)>,
    busy: Duration,
}

impl Handler<()> for Watcher {
    fn accepted(&mut self, _: &mut Shared, _: usize, _: ConnId, _: SocketAddr) -> Option<()> {
        None
    }

    fn established(&mut self, _: &mut Context<'_>, (): &mut (), _: Option<DeviceId>) {}

    fn received(&mut self, _: &mut Context<'_>, (): &mut (), _: &[u8]) {}

    fn ready(&mut self, _: &mut Context<'_>, (): &mut ()) -> Activity {
        Activity::Idle
    }

    fn deadline(&mut self, _: &mut Context<'_>, (): &mut ()) {}

    fn closed(&mut self, _: &mut Shared, _: ConnId, (): (), _: Closed) {}

    fn durable(&mut self, _: &mut Shared, _: u64, _: io::Result<()>) {}

    fn signal(&mut self, _: &mut Shared, _: i32) {}

    fn timer(&mut self, _: &mut Shared, _: u64) {}

    fn watched(&mut self, _: &mut Shared, key: u64) -> Activity {
        let begun = Instant::now();
        while begun.elapsed() < self.busy {}
        let pipe = self.pipes.get_mut(&key);
        let has_read = pipe.is_some_and(|pipe| pipe.read(&mut [0]).is_ok_and(|count| count > 0));
        self.calls.push((key, has_read));
        if has_read { Activity::More } else { Activity::Idle }
    }
}

fn reactor() -> Reactor<()> {
    let options = ReactorOptions {
        durable_queue: 0,
        ..ReactorOptions::default()
    };
    Reactor::new(&options).unwrap()
}

impl Watcher {
    /// A pipe that is watched under `key`, and its other end.
    fn add(&mut self, reactor: &mut Reactor<()>, key: u64) -> UnixStream {
        let (near, far) = UnixStream::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        reactor.watch(key, &near).unwrap();
        self.pipes.insert(key, near);
        far
    }
}

// Protects from changes that are read too late: what is there is read without another event, in turns, and then
// nothing is done.
#[test]
fn a_descriptor_is_visited_until_it_is_drained() {
    let (mut reactor, mut host) = (reactor(), Watcher::default());
    let mut one = host.add(&mut reactor, 1);
    let mut two = host.add(&mut reactor, 2);
    one.write_all(b"abc").unwrap();
    two.write_all(b"d").unwrap();
    while host.calls.len() < 6 {
        reactor.turn(Some(Duration::from_secs(20)), &mut host).unwrap();
    }
    assert_eq!(reactor.next_deadline(), None, "nothing is left to do");
    let of = |key: u64| {
        host.calls
            .iter()
            .filter(|call| call.0 == key)
            .map(|call| call.1)
            .collect::<Vec<_>>()
    };
    assert_eq!((of(1), of(2)), (vec![true, true, true, false], vec![true, false]));
    assert!(host.calls[..2].iter().any(|call| call.0 == 1) && host.calls[..2].iter().any(|call| call.0 == 2));
    one.write_all(b"e").unwrap();
    while host.calls.len() < 8 {
        reactor.turn(Some(Duration::from_secs(20)), &mut host).unwrap();
    }
    assert_eq!(host.calls[6..], [(1, true), (1, false)]);
    // Work that no event announces, of one that is there and one that is not.
    reactor.shared().wake_foreign(2);
    reactor.shared().wake_foreign(3);
    reactor.turn(Some(Duration::from_secs(20)), &mut host).unwrap();
    assert_eq!(host.calls[8..], [(2, false)]);
}

// Protects keys from each other: what is watched no more is not told, also when its slot has a new owner.
#[test]
fn a_key_is_given_up_and_used_again() {
    let (mut reactor, mut host) = (reactor(), Watcher::default());
    let mut one = host.add(&mut reactor, 1);
    assert!(reactor.watch(1, &one).is_err(), "the key is taken");
    one.write_all(b"a").unwrap();
    reactor.shared().wake_foreign(1);
    reactor.unwatch(1);
    reactor.unwatch(1);
    let mut two = host.add(&mut reactor, 2);
    two.write_all(b"b").unwrap();
    while host.calls.len() < 2 {
        reactor.turn(Some(Duration::from_secs(20)), &mut host).unwrap();
    }
    assert_eq!(host.calls, [(2, true), (2, false)]);
}

// Protects others in the loop: many descriptors with much to do take a slice of a turn, and go on in the next.
#[test]
fn descriptors_share_a_slice_of_a_turn() {
    let (mut reactor, mut host) = (reactor(), Watcher::default());
    let mut far: Vec<UnixStream> = (0..20).map(|key| host.add(&mut reactor, key)).collect();
    far.iter_mut().for_each(|pipe| pipe.write_all(b"xx").unwrap());
    host.busy = Duration::from_micros(400);
    let mut most = 0;
    while host.calls.len() < 60 {
        let before = host.calls.len();
        reactor.turn(Some(Duration::from_secs(20)), &mut host).unwrap();
        most = most.max(host.calls.len() - before);
    }
    assert!(most <= 4, "{most} visits in a turn");
    let mut first: Vec<u64> = host.calls[..20].iter().map(|call| call.0).collect();
    first.sort_unstable();
    assert_eq!(
        first,
        (0..20).collect::<Vec<_>>(),
        "each had one visit before any had two"
    );
}

// Protects what it is made for: a change in a folder wakes the loop.
#[test]
fn a_change_in_a_watched_folder_wakes_the_loop() {
    let (mut reactor, mut host) = (reactor(), Watcher::default());
    let dir = tempfile::tempdir().unwrap();
    let watch = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC).unwrap();
    inotify::add_watch(&watch, dir.path(), inotify::WatchFlags::CREATE).unwrap();
    reactor.watch(7, &watch).unwrap();
    reactor.turn(Some(Duration::ZERO), &mut host).unwrap();
    assert_eq!(host.calls, []);
    std::fs::write(dir.path().join("x"), b"").unwrap();
    reactor.turn(Some(Duration::from_secs(20)), &mut host).unwrap();
    assert_eq!(host.calls, [(7, false)]);
}
