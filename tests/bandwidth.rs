//! Limits of bandwidth from outside: a server with a slow share beside one that is not, and timetables.

#![allow(clippy::unwrap_used)]

mod harness;

use harness::{World, WorldOptions, pull_job};
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use syncline::model::{Link, Rights, ShareName, Timetable};
use syncline::node::{Client, ClientEvent, ServerEvent, ServerOptions, ShareOptions, TransferOptions};
use syncline::{Server, node::Bandwidth};

fn share(name: &str) -> ShareName {
    ShareName::parse(name).unwrap()
}

fn noise(bytes: usize) -> Vec<u8> {
    (0..bytes)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect()
}

fn options(home: PathBuf, shares: Vec<ShareOptions>, rates: &[(&str, Timetable)]) -> ServerOptions {
    ServerOptions {
        listen: vec!["127.0.0.1:0".parse().unwrap()],
        plain: true,
        bandwidth: Bandwidth {
            shares: rates.iter().map(|(name, table)| (share(name), table.clone())).collect(),
            ..Bandwidth::default()
        },
        ..ServerOptions::new(home, shares)
    }
}

/// One server with the shares Slow and Fast, of which the first may move 256 KiB a second.
fn server(world: &World, rates: &[(&str, Timetable)]) -> Server {
    let shares = ["Slow", "Fast"].map(|name| {
        let path = world.path(name);
        fs::create_dir(&path).unwrap();
        fs::write(path.join("file"), noise(1 << 20)).unwrap();
        ShareOptions {
            name: share(name),
            path,
            open: Rights::READ,
        }
    });
    Server::bind(&options(world.path("limits-home"), shares.into(), rates)).unwrap()
}

fn client(world: &World, server: &Server, name: &str) -> Client {
    let link: Link = format!("syncline://{}/{name}/file", server.listen_addrs()[0])
        .parse()
        .unwrap();
    let options = world.client_options(&format!("home-{name}"));
    let job = pull_job(&link, &world.path(&format!("got-{name}")));
    Client::start(options, job, TransferOptions::default()).unwrap()
}

/// Row 29 beside a limit: what one share may not move, another one does. In the time that the limited pull
/// takes at its rate, the other one is long over; and nothing of it is lost.
#[test]
fn a_limited_share_is_slow_and_the_other_one_is_not() {
    let world = World::with(&WorldOptions::default());
    let mut server = server(&world, &[("Slow", Timetable::always(Some(256 << 10)))]);
    let mut clients = ["Slow", "Fast"].map(|name| (name, Some(client(&world, &server, name))));
    let begun = Instant::now();
    let mut ends = Vec::new();
    let mut summaries = Vec::new();
    while ends.len() < 2 {
        assert!(
            begun.elapsed() < Duration::from_secs(60),
            "it takes longer than its rate says"
        );
        for event in server.poll(Some(Duration::from_millis(1))).unwrap() {
            if let ServerEvent::Transferred { share, summary, .. } = event {
                summaries.push((share, summary.wire_sent));
            }
        }
        for (name, slot) in &mut clients {
            let Some(client) = slot else { continue };
            let events = client.poll(Some(Duration::ZERO)).unwrap();
            let finished = events.iter().find_map(|event| match event {
                ClientEvent::Finished(outcome) => Some(outcome.clone()),
                _ => None,
            });
            if let Some(outcome) = finished {
                assert_eq!(outcome.result, Ok(()), "{name}");
                ends.push((*name, begun.elapsed()));
                *slot = None;
            }
        }
    }
    assert_eq!(ends[0].0, "Fast", "{ends:?}");
    // A mebibyte at 256 KiB a second, less a burst of a tenth of a second.
    assert!(ends[1].1 >= Duration::from_millis(3_500), "{ends:?}");
    for (name, sent) in &summaries {
        assert!(*sent >= 1 << 20, "{name}: {sent} bytes");
    }
    for name in ["Slow", "Fast"] {
        let got = fs::read(world.path(&format!("got-{name}"))).unwrap();
        assert!(got == noise(1 << 20), "{name} arrived as it was");
    }
}

/// A timetable is in force from the start on, whatever the time is; one that is off all day limits nothing.
#[test]
fn timetables_hold_from_the_start() {
    let world = World::with(&WorldOptions::default());
    let always = |limit| Timetable::new(vec![(0, limit), (720, limit)]).unwrap();
    let changing = Timetable::new(vec![(0, Some(512 << 10)), (720, Some(256 << 10))]).unwrap();
    let mut server = server(&world, &[("Slow", changing), ("Fast", always(None))]);
    let begun = Instant::now();
    for (name, least) in [("Fast", Duration::ZERO), ("Slow", Duration::from_millis(1_700))] {
        let started = Instant::now();
        let mut client = client(&world, &server, name);
        let is_over = |event: &ClientEvent| matches!(event, ClientEvent::Finished(_));
        while !client.poll(Some(Duration::from_millis(1))).unwrap().iter().any(is_over) {
            assert!(begun.elapsed() < Duration::from_secs(60), "{name}");
            server.poll(Some(Duration::ZERO)).unwrap();
        }
        assert!(started.elapsed() >= least, "{name}: {:?}", started.elapsed());
    }
}

/// A limit for a share that is not there is a slip, and would limit nothing.
#[test]
fn a_limit_for_a_share_that_is_not_served_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a");
    fs::create_dir(&path).unwrap();
    let shares = vec![ShareOptions {
        name: share("A"),
        path,
        open: Rights::READ,
    }];
    let options = options(dir.path().join("home"), shares, &[("B", Timetable::default())]);
    let error = Server::bind(&options).err().unwrap();
    assert!(error.to_string().contains("\"B\""), "{error}");
}
