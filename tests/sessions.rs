//! Many transfers at one server: who runs and who waits, what waiting clients are told, and what happens when
//! memory runs short.
#![allow(clippy::unwrap_used)]

mod harness;

use harness::raw::{RawClient, push_begin};
use harness::{World, WorldOptions, push_job};
use std::fs;
use std::time::{Duration, Instant};
use syncline::model::limits::PATH_BYTES_MAX;
use syncline::model::{CloseCode, Fault, RelPath, Timetable};
use syncline::node::{Client, ClientEvent, ClientOptions, Outcome, Schedule, TransferOptions};
use syncline::wire::{ComeBack, FrameType, Message, Queued};

/// Clients that push a file each, `content` to the name of their number.
struct Crowd {
    clients: Vec<Option<Client>>,
    places: Vec<Vec<u32>>,
    outcomes: Vec<Option<Outcome>>,
    /// In the order in which they finished.
    order: Vec<usize>,
}

impl Crowd {
    fn new() -> Crowd {
        Crowd {
            clients: Vec::new(),
            places: Vec::new(),
            outcomes: Vec::new(),
            order: Vec::new(),
        }
    }

    fn join(&mut self, world: &World, options: ClientOptions, content: &[u8]) {
        let number = self.clients.len();
        let source = world.path(&format!("source-{number}"));
        fs::write(&source, content).unwrap();
        let job = push_job(&[&source], &world.link(&format!("/{number}")));
        self.add(Client::start(options, job, TransferOptions::default()).unwrap());
    }

    fn add(&mut self, client: Client) {
        self.clients.push(Some(client));
        self.places.push(Vec::new());
        self.outcomes.push(None);
    }

    /// Polls everybody until all have finished, or `until` says so.
    fn run(&mut self, world: &mut World, mut until: impl FnMut(&World, &Crowd) -> bool) {
        let limit = Instant::now() + Duration::from_secs(120);
        while self.clients.iter().any(Option::is_some) && !until(world, self) {
            assert!(Instant::now() < limit, "{:?} do not end", self.waiting());
            let served = world.server.poll(Some(Duration::from_micros(500))).unwrap();
            world.server_events.extend(served);
            for number in 0..self.clients.len() {
                self.poll(number);
            }
        }
    }

    fn poll(&mut self, number: usize) {
        let Some(client) = &mut self.clients[number] else {
            return;
        };
        for event in client.poll(Some(Duration::ZERO)).unwrap() {
            match event {
                ClientEvent::Queued { position, .. } => self.places[number].push(position),
                ClientEvent::Finished(outcome) => {
                    self.outcomes[number] = Some(outcome);
                    self.order.push(number);
                    self.clients[number] = None;
                }
                _ => {}
            }
        }
    }

    fn waiting(&self) -> Vec<usize> {
        (0..self.clients.len())
            .filter(|number| self.clients[*number].is_some())
            .collect()
    }

    fn outcome(&self, number: usize) -> &Outcome {
        self.outcomes[number].as_ref().expect("it has finished")
    }
}

fn is_queued(world: &World, count: usize) -> bool {
    world.server.load().queued == count
}

// --max-active 1: one transfer at a time, in the order in which they began; everybody else is told a place,
// which only gets better, and how long it will be.
#[test]
fn one_transfer_runs_at_a_time_and_the_others_know_their_place() {
    let mut world = World::tuned(&WorldOptions::default(), |options| options.active_max = 1);
    let mut crowd = Crowd::new();
    let slow = ClientOptions {
        bandwidth: Timetable::always(Some(2 << 20)),
        ..world.client_options("client-home")
    };
    crowd.join(&world, slow, &vec![7; 3 << 20]);
    crowd.run(&mut world, |world, _| world.server.load().active == 1);
    for number in 1..6 {
        let options = world.client_options("client-home");
        crowd.join(&world, options, &[1; 1000]);
        crowd.run(&mut world, |world, _| is_queued(world, number));
    }
    crowd.run(&mut world, |world, _| {
        assert!(world.server.load().active <= 1);
        false
    });
    // The slow one hears of its end as slowly as of everything else.
    crowd.order.retain(|number| *number > 0);
    assert_eq!(crowd.order, [1, 2, 3, 4, 5]);
    for number in 0..6 {
        crowd.outcome(number).result.as_ref().unwrap();
        assert!(world.share().join(number.to_string()).exists());
        let places = &crowd.places[number];
        assert_eq!(
            places.first().copied(),
            (number > 0).then(|| u32::try_from(number).unwrap())
        );
        assert!(places.is_sorted_by(|a, b| a > b), "{places:?}");
    }
    let load = world.server.load();
    assert_eq!((load.active, load.queued), (0, 0));
}

// A client that hangs up while it waits is forgotten, and who is behind it moves up.
#[test]
fn who_leaves_the_line_leaves_no_gap() {
    let mut world = World::tuned(&WorldOptions::default(), |options| options.active_max = 1);
    let mut crowd = Crowd::new();
    let slow = ClientOptions {
        bandwidth: Timetable::always(Some(1 << 20)),
        ..world.client_options("client-home")
    };
    crowd.join(&world, slow, &vec![7; 4 << 20]);
    crowd.run(&mut world, |world, _| world.server.load().active == 1);
    for number in 1..4 {
        let options = world.client_options("client-home");
        crowd.join(&world, options, &[1; 1000]);
        crowd.run(&mut world, |world, _| is_queued(world, number));
    }
    crowd.clients[1] = None;
    crowd.run(&mut world, |world, crowd| {
        is_queued(world, 2) && crowd.places[2].last() == Some(&1)
    });
    assert_eq!(crowd.places[3].last(), Some(&2));
    crowd.run(&mut world, |_, _| false);
    crowd.order.retain(|number| *number > 0);
    assert_eq!(crowd.order, [2, 3]);
}

// The memory limit bounds what runs at a time; all get their turn all the same.
#[test]
fn with_little_memory_few_run_at_a_time_and_all_finish() {
    let limit = 12 << 20;
    let mut world = World::tuned(&WorldOptions::default(), |options| options.memory_limit = Some(limit));
    let mut crowd = Crowd::new();
    for _ in 0..300 {
        let options = world.client_options("client-home");
        crowd.join(&world, options, &vec![3; 100_000]);
    }
    let mut most_active = 0;
    crowd.run(&mut world, |world, _| {
        most_active = most_active.max(world.server.load().active);
        false
    });
    for number in 0..300 {
        crowd.outcome(number).result.as_ref().unwrap();
    }
    let load = world.server.load();
    assert!(most_active > 10 && most_active < 300, "{most_active} ran together");
    assert!(crowd.places.iter().any(|places| !places.is_empty()), "somebody waited");
    assert!(load.memory_most_bytes <= limit, "{load:?}");
}

// Transfers that grow while they run: far more begin than fit when they are large. Whoever is held back goes on
// later, whoever finds nothing left comes again, and the account keeps below the limit.
#[test]
fn transfers_that_grow_share_the_memory_and_all_finish() {
    let limit = 12 << 20;
    let mut world = World::tuned(&WorldOptions::default(), |options| options.memory_limit = Some(limit));
    let mut crowd = Crowd::new();
    let directory = vec!["d".repeat(200); 10].join("/");
    for number in 0..40 {
        let source = world.path(&format!("tree-{number}"));
        fs::create_dir_all(source.join(&directory)).unwrap();
        for file in 0..300 {
            fs::write(source.join(&directory).join(format!("{file}")), [b'x'; 20]).unwrap();
        }
        let job = push_job(&[&source], &world.link(&format!("/{number}")));
        let options = ClientOptions {
            retries: 5,
            ..world.client_options("client-home")
        };
        crowd.add(Client::start(options, job, TransferOptions::default()).unwrap());
    }
    let mut most_held = 0;
    crowd.run(&mut world, |world, _| {
        most_held = most_held.max(world.server.load().memory_bytes);
        false
    });
    for number in 0..40 {
        let outcome = crowd.outcome(number);
        outcome.result.as_ref().unwrap();
        assert_eq!(outcome.summary.files, 300);
    }
    assert!(most_held > limit * 3 / 4, "memory was short: {most_held}");
    let load = world.server.load();
    assert!(load.memory_most_bytes <= limit, "{load:?}");
}

/// A begin that takes some 400 KiB of the server's memory as long as it waits.
fn heavy_begin() -> syncline::wire::Begin {
    let long = vec!["x".repeat(200); 19].join("/");
    assert!(long.len() < PATH_BYTES_MAX);
    let scopes = (0..100).map(|number| RelPath::parse(format!("{number}/{long}").as_bytes()).ok());
    syncline::wire::Begin {
        scopes: scopes.collect(),
        ..push_begin()
    }
}

// What waits takes memory too. When there is none left, who comes is told that the server has no room, and
// when to come again.
#[test]
fn without_room_in_the_line_clients_are_asked_to_come_again() {
    let mut world = World::tuned(&WorldOptions::default(), |options| {
        options.memory_limit = Some(12 << 20);
        options.active_max = 1;
    });
    let address = world.address;
    let (sender, receiver) = std::sync::mpsc::channel();
    let raw = std::thread::spawn(move || {
        let mut first = RawClient::open(address);
        first.begin(&push_begin());
        let mut waiting = Vec::new();
        for _ in 0..50 {
            let mut client = RawClient::open(address);
            client.send_message(&heavy_begin());
            let frame = client.next().unwrap();
            if frame.kind == FrameType::Queued {
                assert!(Queued::decode(&frame.payload).unwrap().position >= 1);
                waiting.push(client);
                continue;
            }
            assert_eq!(frame.kind, FrameType::ComeBack);
            let word = ComeBack::decode(&frame.payload).unwrap();
            let fault = Fault::decode(&client.expect(FrameType::Close).payload).unwrap();
            sender.send((waiting.len(), word, fault)).unwrap();
            return;
        }
        panic!("fifty heavy requests were let in");
    });
    let limit = Instant::now() + Duration::from_secs(60);
    let (waited, word, fault) = loop {
        assert!(Instant::now() < limit, "nobody is refused");
        world.server.poll(Some(Duration::from_millis(1))).unwrap();
        if let Ok(said) = receiver.try_recv() {
            break said;
        }
    };
    assert!((5..30).contains(&waited), "{waited} waited");
    assert_eq!(fault.code, CloseCode::Busy);
    assert!((1_000..=75_000).contains(&word.after_ms), "{word:?}");
    assert_eq!(world.server.load().refused_busy, 1);
    raw.join().unwrap();
    // They have hung up: nothing of them is left.
    while world.server.connections() > 0 {
        assert!(Instant::now() < limit);
        world.server.poll(Some(Duration::from_millis(1))).unwrap();
    }
    let load = world.server.load();
    assert_eq!((load.active, load.queued), (0, 0));
    assert!(load.memory_bytes < 6 << 20, "{load:?}");
}

// The server's schedule reaches the client, spread by a tenth.
#[test]
fn a_client_hears_when_its_next_run_is_due() {
    let every = Duration::from_secs(100);
    let mut world = World::tuned(&WorldOptions::default(), |options| {
        options.schedule = Schedule {
            every: Some(every),
            devices: Vec::new(),
        };
    });
    let source = world.path("f");
    fs::write(&source, "x").unwrap();
    let link = world.link("/f");
    let run = world.push(&[&source], &link, TransferOptions::default());
    let come_back = run.outcome.come_back.expect("the server has said it");
    assert!(
        come_back >= every * 9 / 10 && come_back <= every * 11 / 10,
        "{come_back:?}"
    );
    let mut world = World::new();
    let run = world.push(&[&source], &world.link("/f"), TransferOptions::default());
    assert_eq!(run.outcome.come_back, None);
}
