//! What a turn of the loop costs, idle and with work, over real sockets; and what its timers cost.
//!
//! Peers are plain sockets of this process, written to between the measurements, so that only turns are timed.

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::hint::black_box;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};
use syncline::model::{DeviceId, Tick};
use syncline::reactor::{
    Activity, Closed, ConnId, Context, Handler, Reactor, ReactorOptions, Security, Shared, Timers,
};

/// Counts what arrives, and nothing else; woken, it does nothing.
#[derive(Default)]
struct Host {
    bytes: usize,
    deliveries: usize,
    woken: usize,
    established: usize,
    ids: Vec<ConnId>,
}

impl Handler<()> for Host {
    fn accepted(&mut self, _: &mut Shared, _: usize, id: ConnId, _: SocketAddr) -> Option<()> {
        self.ids.push(id);
        Some(())
    }

    fn established(&mut self, _: &mut Context<'_>, (): &mut (), _: Option<DeviceId>) {
        self.established += 1;
    }

    fn received(&mut self, _: &mut Context<'_>, (): &mut (), bytes: &[u8]) {
        self.bytes += black_box(bytes).len();
        self.deliveries += 1;
    }

    fn ready(&mut self, _: &mut Context<'_>, (): &mut ()) -> Activity {
        self.woken += 1;
        Activity::Idle
    }

    fn deadline(&mut self, _: &mut Context<'_>, (): &mut ()) {}

    fn closed(&mut self, _: &mut Shared, _: ConnId, (): (), _: Closed) {}

    fn durable(&mut self, _: &mut Shared, _: u64, _: io::Result<()>) {}

    fn signal(&mut self, _: &mut Shared, _: i32) {}

    fn timer(&mut self, _: &mut Shared, _: u64) {}
}

/// A loop with peers that are connected to it.
struct Bench {
    reactor: Reactor<()>,
    host: Host,
    peers: Vec<TcpStream>,
}

impl Bench {
    fn with(connections: usize) -> Bench {
        allow_descriptors();
        let mut reactor = Reactor::new(&ReactorOptions::default()).expect("a loop");
        let (_, address) = reactor
            .listen(([127, 0, 0, 1], 0).into(), Security::Plain)
            .expect("a free port");
        let mut host = Host::default();
        let mut peers = Vec::with_capacity(connections);
        while host.established < connections {
            if peers.len() < connections {
                let peer = TcpStream::connect(address).expect("the backlog is longer than what is not accepted");
                peer.set_nodelay(true).expect("a socket");
                peers.push(peer);
            }
            reactor.turn(Some(Duration::ZERO), &mut host).expect("a turn");
        }
        let mut bench = Bench { reactor, host, peers };
        bench.settle();
        bench
    }

    /// Turns until nothing is left to do.
    fn settle(&mut self) {
        let mut visits = u64::MAX;
        while std::mem::replace(&mut visits, self.reactor.counters().visits) != self.reactor.counters().visits {
            self.turn();
        }
    }

    fn turn(&mut self) {
        self.reactor.turn(Some(Duration::ZERO), &mut self.host).expect("a turn");
    }

    /// Each peer sends `message`; the time of the turns until all of it has arrived.
    fn deliver(&mut self, message: &[u8]) -> Duration {
        let wanted = self.host.bytes + self.peers.len() * message.len();
        for peer in &mut self.peers {
            peer.write_all(message).expect("it fits into the socket's buffer");
        }
        let begun = Instant::now();
        while self.host.bytes < wanted {
            self.turn();
        }
        begun.elapsed()
    }
}

/// Both ends of 1,000 connections are in this process.
fn allow_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    let current = limit.maximum;
    // Where it is refused, connecting says so.
    let _ = setrlimit(Resource::Nofile, Rlimit { current, ..limit });
}

fn turns(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("turn");
    for connections in [0, 1_000] {
        let mut bench = Bench::with(connections);
        group.bench_function(BenchmarkId::new("idle, connections", connections), |b| {
            b.iter(|| bench.turn());
        });
    }
    for connections in [1, 100, 1_000] {
        let mut bench = Bench::with(connections);
        group.throughput(Throughput::Elements(connections as u64));
        group.bench_function(BenchmarkId::new("a byte each from", connections), |b| {
            b.iter_custom(|rounds| (0..rounds).map(|_| bench.deliver(b"x")).sum());
        });
    }
    let mut bench = Bench::with(1_000);
    group.throughput(Throughput::Elements(1_000));
    group.bench_function("1,000 woken without sockets", |b| {
        b.iter(|| {
            let wanted = bench.host.woken + bench.host.ids.len();
            for &id in &bench.host.ids {
                bench.reactor.shared().wake(id);
            }
            while bench.host.woken < wanted {
                bench.turn();
            }
        });
    });
    group.finish();
}

/// Bytes that arrive in large pieces: what the loop adds to the kernel's copy.
fn bulk(criterion: &mut Criterion) {
    let message = vec![7; 64 * 1024];
    let mut group = criterion.benchmark_group("receive 64 KiB each");
    for connections in [1, 64] {
        let mut bench = Bench::with(connections);
        group.throughput(Throughput::Bytes((connections * message.len()) as u64));
        group.bench_function(BenchmarkId::new("from", connections), |b| {
            b.iter_custom(|rounds| (0..rounds).map(|_| bench.deliver(&message)).sum());
        });
    }
    group.finish();
}

const TIMERS: u64 = 10_000;

/// Deadlines of connections, spread over two minutes as those of an idle server are.
fn when(number: u64) -> Tick {
    Tick(1 + number.wrapping_mul(0x9e37_79b9_7f4a_7c15) % 120_000)
}

fn filled() -> Timers<u64> {
    let mut timers = Timers::new();
    for number in 0..TIMERS {
        timers.set(when(number), number);
    }
    timers
}

fn timers(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("10,000 timers");
    group.throughput(Throughput::Elements(TIMERS));
    group.bench_function("set all", |b| b.iter(filled));
    group.bench_function("set and cancel all", |b| {
        b.iter(|| {
            let mut timers = Timers::new();
            let ids: Vec<_> = (0..TIMERS).map(|number| timers.set(when(number), number)).collect();
            ids.into_iter().for_each(|id| timers.cancel(id));
            timers
        });
    });
    group.bench_function("advance by milliseconds until all are due", |b| {
        b.iter_batched(
            filled,
            |mut timers| {
                let mut fired = 0;
                for now in 0..=120_001 {
                    timers.advance(Tick(now));
                    while let Some(number) = timers.pop() {
                        fired += black_box(number).min(1);
                    }
                }
                assert_eq!(fired, TIMERS - 1, "all but number 0 count");
            },
            BatchSize::LargeInput,
        );
    });
    group.throughput(Throughput::Elements(1));
    let mut timers = filled();
    let (mut number, mut id) = (0u64, timers.set(Tick(60_000), 0));
    group.bench_function("move one deadline among them", |b| {
        b.iter(|| {
            timers.cancel(id);
            number += 1;
            id = timers.set(when(number), number);
        });
    });
    group.bench_function("ask for the next", |b| b.iter(|| black_box(&timers).next()));
    group.finish();
}

criterion_group!(benches, turns, bulk, timers);
criterion_main!(benches);
