//! Drives a client and a server over two pipes, one small action at a time, and checks what came of it.
//!
//! Invariant: which action comes next, and how many bytes move, follows from the seed alone.

use crate::disk::Disk;
use crate::pipe::Pipe;
use crate::rng::Rng;
use crate::source::SourceSide;
use crate::target::TargetSide;
use crate::verify::verify;
use std::cell::RefCell;
use std::rc::Rc;
use syncline::conn::{Event, Machine};
use syncline::model::limits::{CONTROL_FRAME_BYTES_MAX, OUTBOUND_BYTES_MAX, PREAUTH_FRAME_BYTES_MAX};
use syncline::model::{CloseCode, Fault, Rights, Secret, ShareName};
use syncline::wire::{Begin, BeginFlags, Brake, Decoder, Direction, Open, Opened, PullSource, TargetKind};
use xxhash_rust::xxh3::Xxh3;

/// One transfer that the client asks for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Job {
    pub(crate) direction: Direction,
    pub(crate) flags: BeginFlags,
    pub(crate) brake: Brake,
}

/// More than all that a receiver can have to say about a full window. An end that stops reading with
/// less than this in its queue could wait for a peer that waits for it.
const ANSWERS_BYTES_MAX: usize = 64 * 1024;

/// How the network and the loop behave.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Weather {
    /// Most bytes that arrive at once.
    pub(crate) chunk_max: u64,
    /// Queued bytes at which an end stops producing and reading.
    pub(crate) outbound_max: usize,
}

/// Where the connection breaks.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Cut {
    Never,
    /// After so many bytes from the client.
    FromClient(u64),
    /// After so many bytes from the server.
    FromServer(u64),
}

/// What a run was like.
pub(crate) struct Outcome {
    /// Hash of every action and byte.
    pub(crate) trace: u64,
    pub(crate) from_client: u64,
    pub(crate) from_server: u64,
    pub(crate) was_cut: bool,
    pub(crate) starved: usize,
    pub(crate) crowded: usize,
    /// Questions about bases, those that had to wait, patches, repairs, questions without an answer.
    pub(crate) asked: usize,
    pub(crate) held_back: usize,
    pub(crate) patched: usize,
    pub(crate) repaired: usize,
    pub(crate) abandoned: usize,
    /// Files that arrived behind their beginnings, whole and as patches; those whose beginnings a broken
    /// transfer had left; beginnings that were of no use.
    pub(crate) resumed: usize,
    pub(crate) resumed_patches: usize,
    pub(crate) continued: usize,
    pub(crate) declined: usize,
    /// Files whose content was published.
    pub(crate) published: usize,
}

enum Half {
    Source(Box<SourceSide>),
    Target(Box<TargetSide>),
}

struct End {
    name: &'static str,
    machine: Machine,
    decoder: Decoder,
    session: Session,
}

/// An end without the parts that an event borrows from.
struct Session {
    disk: SharedDisk,
    /// The other end's.
    peer_disk: SharedDisk,
    half: Option<Half>,
    over: Vec<Half>,
    /// Server: what waits for an answer.
    asked: Option<Asked>,
    /// Client: what it will ask for, last first.
    jobs: Option<Vec<Job>>,
    closed: bool,
    pings: u64,
}

enum Asked {
    Open,
    Begin(Begin),
}

pub(crate) struct Simulation {
    client: End,
    server: End,
    up: Pipe,
    down: Pipe,
    rng: Rng,
    trace: Xxh3,
    weather: Weather,
}

pub(crate) type SharedDisk = Rc<RefCell<Disk>>;

impl Simulation {
    pub(crate) fn new(
        seed: u64,
        jobs: &[Job],
        client: &SharedDisk,
        server: &SharedDisk,
        weather: Weather,
        cut: Cut,
    ) -> Simulation {
        let open = Open {
            share: Some(ShareName::parse("Share").unwrap()),
            secret: Some(Secret([7; 16])),
            wanted: Rights::READ_WRITE,
        };
        let (up, down) = match cut {
            Cut::Never => (None, None),
            Cut::FromClient(bytes) => (Some(bytes), None),
            Cut::FromServer(bytes) => (None, Some(bytes)),
        };
        let jobs = jobs.iter().rev().copied().collect();
        Simulation {
            client: End::new("client", Machine::client("laptop", open), [client, server], Some(jobs)),
            server: End::new("server", Machine::server("nas"), [server, client], None),
            up: Pipe::new(up),
            down: Pipe::new(down),
            rng: Rng::new(seed),
            trace: Xxh3::new(),
            weather,
        }
    }

    /// Runs until nothing moves any more, or the connection breaks.
    pub(crate) fn run(mut self) -> Outcome {
        let mut idle = 0;
        let was_cut = loop {
            let action = self.rng.below(4);
            let progress = self.act(action);
            let cut = self.up.is_cut() || self.down.is_cut();
            if cut {
                break true;
            }
            idle = if progress { 0 } else { idle + 1 };
            if idle > 64 && !(0..4).any(|action| self.act(action)) {
                break false;
            }
        };
        self.check_bounds();
        if !was_cut {
            let closed = self.client.session.closed && self.server.session.closed;
            assert!(closed, "stuck before the end");
            self.verify();
        }
        self.outcome(was_cut)
    }

    fn act(&mut self, action: u64) -> bool {
        let chunk = 1 + self.rng.below(self.weather.chunk_max) as usize;
        let room = self.weather.outbound_max;
        let (end, input, output) = match action {
            0 | 1 => (&mut self.client, &mut self.down, &mut self.up),
            _ => (&mut self.server, &mut self.up, &mut self.down),
        };
        self.trace.update(&[action as u8]);
        let reads = matches!(action, 0 | 2);
        // A sender goes on reading: answers about bases may be longer than what the peer queues.
        let is_source = matches!(end.session.half, Some(Half::Source(_)));
        if !(reads && is_source) && output.len() >= if reads { room.max(ANSWERS_BYTES_MAX) } else { room } {
            return false;
        }
        if reads {
            let bytes = input.receive(chunk);
            self.trace.update(&bytes);
            end.receive(&bytes);
            output.send(end.machine.take_output());
            self.check_bounds();
            return !bytes.is_empty();
        }
        let progress = end.step(output, &mut self.rng);
        let bytes = end.machine.take_output();
        let progress = progress || !bytes.is_empty();
        output.send(bytes);
        self.check_bounds();
        progress
    }

    /// What waits for a peer, and what a decoder holds, stays bounded whatever happens.
    fn check_bounds(&self) {
        let slack = 2 * OUTBOUND_BYTES_MAX;
        for pipe in [&self.up, &self.down] {
            assert!(
                pipe.peak <= self.weather.outbound_max + slack,
                "{} bytes queued",
                pipe.peak
            );
        }
        for end in [&self.client, &self.server] {
            assert!(end.decoder.held_bytes() <= CONTROL_FRAME_BYTES_MAX + 8);
        }
    }

    fn verify(&self) {
        let (ours, theirs) = (&self.client.session.over, &self.server.session.over);
        assert_eq!(ours.len(), theirs.len());
        for (index, halves) in ours.iter().zip(theirs).enumerate() {
            let ((Half::Source(source), Half::Target(target)) | (Half::Target(target), Half::Source(source))) = halves
            else {
                panic!("two halves of one kind");
            };
            verify(source, target, index);
        }
    }

    fn outcome(self, was_cut: bool) -> Outcome {
        let mut outcome = Outcome {
            trace: self.trace.digest(),
            from_client: self.up.delivered(),
            from_server: self.down.delivered(),
            was_cut,
            starved: 0,
            crowded: 0,
            asked: 0,
            held_back: 0,
            patched: 0,
            repaired: 0,
            abandoned: 0,
            resumed: 0,
            resumed_patches: 0,
            continued: 0,
            declined: 0,
            published: 0,
        };
        let disks = [&self.client, &self.server].map(|end| Rc::clone(&end.session.disk));
        let halves = |end: End| end.session.over.into_iter().chain(end.session.half);
        for half in halves(self.client).chain(halves(self.server)) {
            match half {
                Half::Source(source) => {
                    outcome.starved += source.starved;
                    outcome.crowded += source.crowded;
                    outcome.asked += source.asked;
                    outcome.held_back += source.held_back;
                    outcome.patched += source.patched;
                    outcome.declined += source.declined;
                }
                Half::Target(mut target) => {
                    if was_cut {
                        target.leave_parts();
                    }
                    outcome.resumed += target.resumed;
                    outcome.resumed_patches += target.resumed_patches;
                    outcome.continued += target.continued;
                    outcome.published += target.published.len();
                    outcome.repaired += target.repaired;
                    outcome.abandoned += target.abandoned;
                    // I8: whatever was published is what a source holds, cut or not.
                    for (path, body) in &target.published {
                        let whole = disks.iter().all(|disk| {
                            let own = disk.borrow().file(path);
                            own.is_some_and(|(own, _)| own.bytes == body.bytes)
                        });
                        assert!(whole, "{path} is mixed content");
                    }
                }
            }
        }
        outcome
    }
}

impl End {
    fn new(name: &'static str, machine: Machine, disks: [&SharedDisk; 2], jobs: Option<Vec<Job>>) -> End {
        let [disk, peer_disk] = disks.map(Rc::clone);
        let session = Session {
            disk,
            peer_disk,
            half: None,
            over: Vec::new(),
            asked: None,
            jobs,
            closed: false,
            pings: 0,
        };
        let decoder = Decoder::new(PREAUTH_FRAME_BYTES_MAX);
        End {
            name,
            machine,
            decoder,
            session,
        }
    }

    fn receive(&mut self, bytes: &[u8]) {
        let name = self.name;
        let mut rest = bytes;
        loop {
            let piece = match self.decoder.next(&mut rest) {
                Ok(Some(piece)) => piece,
                Ok(None) => break,
                Err(error) => panic!("{name} cannot read the peer: {error}"),
            };
            let event = match self.machine.handle(piece) {
                Ok(event) => event,
                Err(fault) => panic!("{name} refuses the peer: {fault}"),
            };
            self.session.handle(event, &mut self.machine);
            if self.machine.is_open() {
                self.decoder.lift_limits();
            }
        }
        assert!(rest.is_empty());
    }

    /// One thing that no message asks for; `false` when there is none.
    fn step(&mut self, output: &mut Pipe, rng: &mut Rng) -> bool {
        let (machine, session) = (&mut self.machine, &mut self.session);
        if session.closed {
            return false;
        }
        if machine.is_open() && session.pings < 20 && rng.once_in(50) {
            session.pings += 1;
            machine.ping(session.pings);
            if session.jobs.is_some() {
                machine.status_query();
            }
        }
        match session.asked.take() {
            Some(Asked::Open) => machine.grant(Opened {
                rights: Rights::READ_WRITE,
                paired: true,
            }),
            Some(Asked::Begin(begin)) => {
                machine.ready(TargetKind::Directory);
                session.half = Some(half_of(&begin, Side::Server, session.disks()));
            }
            None => return session.transfer(machine, output, rng),
        }
        true
    }
}

impl Session {
    /// Its own, and the other end's.
    fn disks(&self) -> [SharedDisk; 2] {
        [&self.disk, &self.peer_disk].map(Rc::clone)
    }

    fn handle(&mut self, event: Event<'_>, machine: &mut Machine) {
        if let Some(Half::Target(target)) = &mut self.half
            && target.handle(&event, machine)
        {
            return;
        }
        match event {
            Event::Nothing => {}
            Event::Open(open) => {
                assert_eq!(open.secret, Some(Secret([7; 16])));
                self.asked = Some(Asked::Open);
            }
            Event::Begin(begin) => self.asked = Some(Asked::Begin(begin)),
            Event::StatusQuery => machine.status_reply(b"{}"),
            Event::StatusReply(json) => assert_eq!(json, b"{}"),
            Event::Opened(_) => self.next_job(machine),
            Event::Ready(_) => {
                let job = self.jobs.as_mut().and_then(Vec::pop);
                let begin = begin_of(&job.expect("a job was begun"));
                self.half = Some(half_of(&begin, Side::Client, self.disks()));
            }
            Event::Progress => {
                if let (Some(Half::Source(source)), Some(sender)) = (&mut self.half, machine.sender()) {
                    source.collect_reports(sender);
                }
            }
            Event::Tell(tell) => match &mut self.half {
                Some(Half::Source(source)) => source.note_tell(&tell),
                _ => panic!("an answer to nobody"),
            },
            Event::Removed(payload) => match &mut self.half {
                Some(Half::Source(source)) => source.note_removed(payload),
                _ => panic!("deletions reported to nobody"),
            },
            Event::Finished(finish) => {
                let Some(Half::Source(mut source)) = self.half.take() else {
                    panic!("a finish for nobody");
                };
                source.conclude(machine.sender().expect("it is finished"), finish);
                self.over.push(Half::Source(source));
                machine.end_transfer();
                self.next_job(machine);
            }
            Event::Closed(fault) => {
                assert_eq!(fault.code, CloseCode::Done, "{fault}");
                self.closed = true;
            }
            other => panic!("nobody takes {other:?}"),
        }
    }

    fn transfer(&mut self, machine: &mut Machine, output: &mut Pipe, rng: &mut Rng) -> bool {
        let progress = match &mut self.half {
            None => return false,
            Some(Half::Source(source)) => source.step(machine, output, rng),
            Some(Half::Target(target)) => target.step(machine, rng),
        };
        if matches!(&self.half, Some(Half::Target(target)) if target.finish.is_some()) {
            self.over.extend(self.half.take());
            machine.end_transfer();
            self.next_job(machine);
        }
        progress
    }

    /// Client: asks for the next transfer, or says goodbye.
    fn next_job(&mut self, machine: &mut Machine) {
        match self.jobs.as_ref().map(|jobs| jobs.last()) {
            None => {}
            Some(Some(job)) => machine.begin(&begin_of(job)),
            Some(None) => {
                machine.close(&Fault::new(CloseCode::Done, ""));
                self.closed = true;
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Client,
    Server,
}

fn half_of(begin: &Begin, side: Side, disks: [SharedDisk; 2]) -> Half {
    let sends = (begin.direction == Direction::Push) == (side == Side::Client);
    if sends {
        let [disk, _] = disks;
        Half::Source(Box::new(SourceSide::new(disk, begin.flags.checksum)))
    } else {
        Half::Target(Box::new(TargetSide::new(disks, begin.clone())))
    }
}

pub(crate) fn begin_of(job: &Job) -> Begin {
    let (scopes, sources) = match job.direction {
        Direction::Push => (vec![None], Vec::new()),
        Direction::Pull => (
            Vec::new(),
            vec![PullSource {
                path: None,
                contents_only: true,
            }],
        ),
    };
    Begin {
        direction: job.direction,
        flags: job.flags,
        brake: job.brake,
        target: None,
        scopes,
        sources,
        rules: Vec::new(),
    }
}
