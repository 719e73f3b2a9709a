//! Rows 26, 27 and 52 of the threats, for HTTP clients: who is slow, who does not read, and who comes while memory is
//! short. Rows 31 and 35 are in `tests/metrics.rs` and beside the machine.

#![allow(clippy::unwrap_used)]

mod harness;
#[path = "metrics/web.rs"]
#[allow(unreachable_pub, dead_code)]
mod web;

use harness::descriptors::limit_descriptors;
use harness::raw::{RawClient, push_begin};
use harness::{World, WorldOptions};
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};
use syncline::model::RelPath;
use syncline::node::{Deadlines, ServerOptions};
use syncline::wire::FrameType;
use web::Web;

fn world(more: impl FnOnce(&mut ServerOptions)) -> (World, SocketAddr) {
    let world = World::tuned(&WorldOptions::default(), |options| {
        options.metrics = Some("127.0.0.1:0".parse().unwrap());
        more(options);
    });
    let metrics = world.server.metrics_addr().unwrap();
    (world, metrics)
}

/// Polls the server until `holds` does.
fn serve_until(world: &mut World, mut holds: impl FnMut(&World) -> bool) {
    let until = Instant::now() + Duration::from_secs(20);
    while !holds(world) {
        assert!(Instant::now() < until, "it does not come to that");
        world.server.poll(Some(Duration::from_millis(1))).unwrap();
    }
}

fn http_connections(world: &World) -> u64 {
    let text = world.server.metrics_text();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("syncline_web_connections "));
    line.unwrap().parse().unwrap()
}

fn connected(world: &mut World, metrics: SocketAddr) -> TcpStream {
    let before = http_connections(world);
    let stream = TcpStream::connect(metrics).unwrap();
    serve_until(world, |world| http_connections(world) > before);
    stream
}

// A head that arrives byte by byte does not keep a connection open, nor does saying nothing at all.
#[test]
fn row_26_a_request_has_to_be_complete_in_time() {
    let (mut world, metrics) = world(|options| {
        options.deadlines = Deadlines {
            handshake_ms: 150,
            ..Deadlines::default()
        };
    });
    let _silent = connected(&mut world, metrics);
    let mut trickling = connected(&mut world, metrics);
    let mut sent = 0;
    serve_until(&mut world, |world| {
        // Once it is cut off, nobody takes the bytes.
        sent += usize::from(trickling.write_all(b"G").is_ok());
        http_connections(world) == 0
    });
    assert!(sent > 1);
}

#[test]
fn row_26_a_connection_that_asks_nothing_more_is_closed() {
    let (mut world, metrics) = world(|options| {
        options.deadlines = Deadlines {
            idle_ms: 100,
            ..Deadlines::default()
        };
    });
    let mut stream = connected(&mut world, metrics);
    write!(stream, "GET /healthz HTTP/1.1\r\nHost: {metrics}\r\n\r\n").unwrap();
    serve_until(&mut world, |world| http_connections(world) == 0);
}

// Answers that nobody reads are few: they wait in the queue up to its mark, then no request is taken any more.
#[test]
fn row_27_a_client_that_does_not_read_is_asked_to_come_again() {
    let (mut world, metrics) = world(|_| {});
    let mut stream = connected(&mut world, metrics);
    stream.set_nonblocking(true).unwrap();
    let request = format!("GET /metrics HTTP/1.1\r\nHost: {metrics}\r\n\r\n");
    let mut asked = 0;
    let until = Instant::now() + Duration::from_secs(20);
    while stream.write_all(request.as_bytes()).is_ok() && asked < 10_000 {
        asked += 1;
        world.server.poll(Some(Duration::ZERO)).unwrap();
        assert!(Instant::now() < until, "{asked}");
    }
    let longest = world.server.counters().longest_queue_bytes;
    assert!(longest < 600_000, "{longest} bytes wait after {asked} requests");
}

/// A begin that takes some 400 KiB of the server's memory as long as it waits.
fn heavy_begin() -> syncline::wire::Begin {
    let long = vec!["x".repeat(200); 19].join("/");
    let scopes = (0..100).map(|number| RelPath::parse(format!("{number}/{long}").as_bytes()).ok());
    syncline::wire::Begin {
        scopes: scopes.collect(),
        ..push_begin()
    }
}

/// Transfers that wait in line, as many as the server has room for.
fn fill_the_line(address: SocketAddr) -> Vec<RawClient> {
    let mut first = RawClient::open(address);
    first.begin(&push_begin());
    let mut clients = vec![first];
    loop {
        let mut client = RawClient::open(address);
        client.send_message(&heavy_begin());
        if client.next().unwrap().kind != FrameType::Queued {
            return clients;
        }
        clients.push(client);
        assert!(clients.len() < 100);
    }
}

// Row 52: while memory is so short that nobody is accepted, whoever watches the server still sees why.
#[test]
fn row_52_a_server_without_memory_still_tells_how_it_is() {
    let (mut world, metrics) = world(|options| {
        options.memory_limit = Some(12 << 20);
        options.active_max = 1;
        // Half of them may be open without having said who they are.
        options.connections_max = 2_000;
    });
    // Both ends of a thousand connections are in this process.
    limit_descriptors(None);
    let _line = world.serve_while(fill_the_line);
    let mut crowd = Vec::new();
    let over = world.server.load().memory_limit_bytes.unwrap() / 16 * 15;
    while world.server.load().memory_bytes < over {
        crowd.push(TcpStream::connect(world.address).unwrap());
        world.server.poll(Some(Duration::ZERO)).unwrap();
        assert!(crowd.len() < 900, "{:?}", world.server.load());
    }
    let before = world.server.connections();
    let _waiting: Vec<TcpStream> = (0..5).map(|_| TcpStream::connect(world.address).unwrap()).collect();
    let answer = world.serve_while(|_| Web::connect(&metrics.to_string()).get("/metrics"));
    assert_eq!(answer.status, 200);
    assert!(
        answer.body.contains("\nsyncline_memory_limit_bytes 12582912\n"),
        "{}",
        answer.body
    );
    assert!(world.server.connections() <= before, "devices wait");
}
