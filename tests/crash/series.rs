//! A series: one operation, one process, one kind of fault, at every call or at a selection of them.
//!
//! 1. The operation runs once without faults and is recorded: its calls are the crash points.
//! 2. Every point, or every n-th with a seeded offset, is played.
//! 3. A row for the table; each violation with its point, its folders and the line that repeats it.
//!
//! Never stops at a violation: the row tells how many there are.

use crate::check::{Invariant, Tally};
use crate::faults::may_fail;
use crate::operation::{Actor, Operation};
use crate::play::{Played, connected, fail_before_start, play};
use crate::point::{Call, Disk, Fault, Point, Thread};
use crate::power::Mounted;
use crate::site::{Site, Template, Trace, Version};
use crate::tracer::{Recorded, Tracer, parse, threads};
use std::fs;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What is to be run, as the environment says; `scripts/crash` sets it.
pub struct Settings {
    /// Every point, not a selection.
    all: bool,
    seed: u64,
    workers: usize,
    /// Only this point.
    only: Option<Point>,
    operations: Option<Vec<String>>,
}

impl Settings {
    pub fn read() -> Settings {
        let variable = |name: &str| std::env::var(format!("SYNCLINE_CRASH_{name}")).ok();
        let number = |name: &str| variable(name).map(|text| text.parse().expect("a number"));
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let only =
            variable("POINT").map(|text| Point::parse(&text).unwrap_or_else(|| panic!("no point is called {text}")));
        let settings = Settings {
            all: variable("ALL").is_some(),
            seed: number("SEED").unwrap_or_else(|| now.map_or(0, |now| now.as_secs() % 100_000)),
            workers: number("WORKERS").map_or(1, |workers| workers.max(1) as usize),
            only,
            operations: variable("OPERATIONS").map(|text| text.split_whitespace().map(str::to_owned).collect()),
        };
        if !settings.all && settings.only.is_none() {
            println!("SYNCLINE_CRASH_SEED={}", settings.seed);
        }
        settings
    }

    /// Whether the series is wanted.
    fn wants(&self, operation: Operation, actor: Actor, fault: Fault) -> bool {
        let named = |names: &Vec<String>| names.iter().any(|name| name == operation.name());
        let is_point = |point: &Point| (point.operation, point.actor, point.fault) == (operation, actor, fault);
        self.operations.as_ref().is_none_or(named) && self.only.as_ref().is_none_or(is_point)
    }

    /// Which of the calls are played, at most about `most` in a selection.
    fn select(&self, calls: Vec<Call>, most: usize) -> Vec<(usize, Call)> {
        let step = if self.all { 1 } else { calls.len().div_ceil(most).max(1) };
        let offset = self.seed as usize % step;
        let numbered = (1..).zip(calls);
        match &self.only {
            Some(point) if numbered.clone().all(|(_, call)| call != point.at) => vec![(0, point.at.clone())],
            Some(point) => numbered.filter(|(_, call)| *call == point.at).collect(),
            None => numbered.skip(offset).step_by(step).collect(),
        }
    }
}

/// The calls of an operation without faults.
struct Reference {
    server: Vec<Recorded>,
    client: Vec<Recorded>,
    /// For recovery: where the server is killed first.
    earlier: Option<Point>,
}

/// Plays the series of one operation and returns what was violated, a text for each.
pub fn run(settings: &Settings, operation: Operation, series: &[(Actor, Fault)], most: usize) -> Vec<String> {
    let wanted: Vec<_> = series
        .iter()
        .filter(|(actor, fault)| settings.wants(operation, *actor, *fault))
        .collect();
    if wanted.is_empty() {
        return Vec::new();
    }
    let template = Template::new(operation);
    // Another file system means other calls, such as those that share blocks.
    let disk = wanted[0].1.disk().map(Mounted::new);
    let reference = record(&template, disk.as_ref());
    drop(disk);
    let mut violations = Vec::new();
    for (actor, fault) in wanted {
        let recorded = match actor {
            Actor::Server => &reference.server,
            Actor::Client => &reference.client,
        };
        let calls: Vec<Call> = match fault {
            Fault::Short => sizes(settings.seed),
            _ => recorded
                .iter()
                .filter(|call| is_point(call, *fault))
                .map(|call| call.call.clone())
                .collect(),
        };
        let points = settings.select(calls.clone(), most);
        let played = play_all(settings, &template, &reference, *actor, *fault, &points);
        let mut sum = Sum::default();
        for ((number, point), played) in played {
            sum.add(&played);
            for violation in played.tally.violations {
                violations.push(format!(
                    "{point}, call {number} of {}: {violation}\n  the folders are in {:?}; to repeat it: scripts/crash {point}",
                    calls.len(),
                    played.kept
                ));
            }
        }
        sum.print(operation, *actor, *fault, calls.len(), points.len());
    }
    violations
}

fn is_point(recorded: &Recorded, fault: Fault) -> bool {
    match fault {
        Fault::Kill => true,
        Fault::Error(errno) => recorded.call.thread != Thread::Start && may_fail(recorded, errno),
        Fault::Short => false,
        Fault::Power(_) | Fault::Late(_) => recorded.call.thread != Thread::Start,
    }
}

/// How far beyond what is there already the size of a file is limited.
fn sizes(seed: u64) -> Vec<Call> {
    let size = |number: u64| 1 + ((seed + number) * 2_654_435_761) % 200_000;
    let call = |number| Call {
        thread: Thread::Loop,
        name: "pwrite64".to_owned(),
        number: size(number) as u32,
    };
    (0..SHORT_WRITES).map(call).collect()
}

/// How many of them are tried.
const SHORT_WRITES: u64 = 24;

/// What a series came to.
#[derive(Default)]
struct Sum {
    reached: u32,
    tally: Tally,
}

impl Sum {
    fn add(&mut self, played: &Played) {
        self.reached += u32::from(played.reached);
        self.tally.add(played.tally.clone());
    }

    fn print(&self, operation: Operation, actor: Actor, fault: Fault, calls: usize, tried: usize) {
        let (held, violated) = self.tally.totals();
        let row = format!(
            "{}\t{} {}\t{calls}\t{tried}\t{}\t{}\t{held}\t{violated}",
            operation.name(),
            actor.name(),
            fault.name(),
            self.reached,
            held + violated
        );
        println!("{row}");
        if let Some(table) = std::env::var_os("SYNCLINE_CRASH_TABLE") {
            let mut table = fs::OpenOptions::new().append(true).create(true).open(table).unwrap();
            writeln!(table, "{row}").unwrap();
        }
    }
}

type Numbered = (usize, Point);

fn play_all(
    settings: &Settings,
    template: &Template,
    reference: &Reference,
    actor: Actor,
    fault: Fault,
    points: &[(usize, Call)],
) -> Vec<(Numbered, Played)> {
    let (next, played) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = || {
        let disk = fault.disk().map(Mounted::new);
        while let Some((number, at)) = points.get(next.fetch_add(1, Ordering::Relaxed)) {
            let (operation, at) = (template.operation, at.clone());
            let point = Point {
                operation,
                actor,
                fault,
                at,
            };
            let one = play_caught(template, &point, reference.earlier.as_ref(), disk.as_ref());
            played.lock().unwrap().push(((*number, point), one));
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..settings.workers.min(points.len()) {
            scope.spawn(work);
        }
    });
    played.into_inner().unwrap()
}

/// A scenario that itself fails is a violation, too: something was not as it always is.
fn play_caught(template: &Template, point: &Point, earlier: Option<&Point>, disk: Option<&Mounted>) -> Played {
    let played = catch_unwind(AssertUnwindSafe(|| play(template, point, earlier, disk)));
    if let Some(disk) = disk {
        disk.clear();
    }
    played.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map_or("a panic", String::as_str);
        let mut tally = Tally::default();
        tally.note(Invariant::Told, &format!("the scenario failed: {text}"));
        Played {
            reached: false,
            tally,
            kept: None,
        }
    })
}

fn record(template: &Template, disk: Option<&Mounted>) -> Reference {
    if template.operation.is_start() {
        return record_server_start(template);
    }
    let recorded = |actor| {
        let calls = record_run(template, actor, disk);
        disk.inspect(|disk| disk.clear());
        calls
    };
    // Until it connects, a push is a push.
    let has_own_start = matches!(template.operation, Operation::Push | Operation::Pull);
    let mut client = if has_own_start {
        record_client_start(template)
    } else {
        Vec::new()
    };
    client.extend(recorded(Actor::Client));
    Reference {
        server: recorded(Actor::Server),
        client,
        earlier: None,
    }
}

fn record_run(template: &Template, actor: Actor, disk: Option<&Mounted>) -> Vec<Recorded> {
    let mut site = Site::new(template, disk.map(Mounted::path));
    let mut server = site.serve(Trace::None);
    site.prepare(&mut server);
    let log = site.path("trace");
    let (mut client, tracer, owners) = match actor {
        Actor::Server => {
            let owners = threads(server.process.id());
            let tracer = Tracer::record(server.process.id(), &log);
            (
                site.transfer(server.listen(), Version::New, Trace::None),
                tracer,
                owners,
            )
        }
        Actor::Client => {
            let client = connected(&mut site, &server);
            let owners = threads(client.id());
            let tracer = Tracer::record(client.id(), &log);
            server.process.signal("CONT");
            (client, tracer, owners)
        }
    };
    let status = client.wait();
    assert!(status.is_some_and(|status| status.success()), "{}", client.complaints());
    server.process.settle();
    parse(&tracer.finish(), |id| {
        owners.iter().find(|(owner, _)| *owner == id).map(|(_, thread)| *thread)
    })
}

fn record_client_start(template: &Template) -> Vec<Recorded> {
    let mut site = Site::new(template, None);
    let mut server = site.serve(Trace::None);
    site.prepare(&mut server);
    let log = site.path("trace");
    let mut client = site.transfer(server.listen(), Version::New, Trace::Record(&log));
    client.wait();
    start_of(&log, |recorded| {
        recorded.call.name == "connect" && recorded.text.contains("AF_INET")
    })
}

fn record_server_start(template: &Template) -> Reference {
    let running = record_run(template, Actor::Server, None);
    // In the midst of writing: into the file, while its undo record is there; or into one that is kept.
    let (thread, into) = match template.operation {
        Operation::Compaction => (Thread::Loop, "/staging/kept/"),
        _ => (Thread::Durable, "/share/huge>"),
    };
    let is_half = |recorded: &&Recorded| {
        recorded.call.thread == thread && recorded.call.name == "pwrite64" && recorded.text.contains(into)
    };
    // How many there are differs a little from run to run, so not the last of them.
    let count = running.iter().filter(is_half).count();
    let mut halves = running.iter().filter(is_half);
    let half = halves.nth(count / 2).expect("a large file is written to");
    let earlier = Point {
        operation: template.operation,
        actor: Actor::Server,
        fault: Fault::Kill,
        at: half.call.clone(),
    };
    let mut site = Site::new(template, None);
    let reached = fail_before_start(&mut site, &earlier);
    assert!(reached.is_some(), "it was to be killed in the midst of it");
    let log = site.path("recording");
    drop(site.serve(Trace::Record(&log)));
    let server = start_of(&log, |recorded| recorded.text.starts_with("write(1"));
    Reference {
        server,
        client: Vec::new(),
        earlier: Some(earlier),
    }
}

/// The calls of the first thread in a recording from exec on, up to and with the one that `is_last`.
fn start_of(log: &std::path::Path, is_last: impl Fn(&Recorded) -> bool) -> Vec<Recorded> {
    let text = fs::read_to_string(log).unwrap();
    let first = text.split_whitespace().next().and_then(|id| id.parse::<u32>().ok());
    let mut calls = parse(&text, |id| (Some(id) == first).then_some(Thread::Start));
    // The call by which the program itself starts.
    calls.retain(|recorded| recorded.call.name != "execve");
    let end = calls.iter().position(is_last).expect("a start comes to its end");
    calls.truncate(end + 1);
    calls
}

/// The power cuts that are played for an operation: at the receiver.
pub fn power(operation: Operation, disk: Disk) -> [(Actor, Fault); 2] {
    [Fault::Power(disk), Fault::Late(disk)].map(|fault| (operation.receiver(), fault))
}
