//! Plays one crash point: prepare, fail, look, start again, resume, look again.
//!
//! 1. A server starts, and the receiver gets the first version of the tree.
//! 2. The tracer is attached, and the operation runs into the fault.
//! 3. Right after it, before anything starts again: what do the final names show, what was promised?
//! 4. The server starts (recovery), is killed, starts again: the same tree.
//! 5. The client runs again without faults: both sides are the same, nothing is left.
//!
//! Never plays two faults at once, but for recovery, where a fault came before.

use crate::check::{self, Invariant, Tally};
use crate::faults::FLUSH;
use crate::operation::{Actor, Operation};
use crate::point::{Fault, Point, Thread};
use crate::power::Mounted;
use crate::site::{Process, Server, Site, Template, Trace, Version};
use crate::tracer::{PATIENCE, Tracer};
use crate::tree::{differences, read_tree};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

/// What playing a point came to.
pub struct Played {
    /// Whether the fault came to pass.
    pub reached: bool,
    pub tally: Tally,
    /// Where the folders are, if something was violated.
    pub kept: Option<PathBuf>,
}

/// Plays `point`. `earlier` is where the server was killed before its start, for recovery; `disk` holds
/// what is received, for a power cut.
pub fn play(template: &Template, point: &Point, earlier: Option<&Point>, disk: Option<&Mounted>) -> Played {
    let mut site = Site::new(template, disk.map(Mounted::path));
    site.ignores_file_size = point.fault == Fault::Short;
    let mut tally = Tally::default();
    let reached = match (earlier, disk) {
        (Some(earlier), _) => play_start(&mut site, point, earlier, &mut tally),
        (None, Some(disk)) => play_power_cut(&mut site, point, disk, &mut tally),
        (None, None) => play_operation(&mut site, point, &mut tally),
    };
    let kept = (!tally.violations.is_empty()).then(|| site.keep());
    Played { reached, tally, kept }
}

/// The two ends after the operation ran into its fault.
struct Ends {
    server: Server,
    client: Process,
    /// How the client ended; `None` when it did not.
    status: Option<ExitStatus>,
    reached: bool,
    /// The call that failed, as the tracer printed it.
    failed: String,
}

impl Ends {
    /// What the client was told, and whether it ended well.
    fn promises(&self) -> Promises {
        Promises {
            items: check::acknowledged(&self.client.objects()),
            total: self.status.is_some_and(|status| status.success()),
            contents_only: false,
        }
    }
}

/// What was said to be done.
pub struct Promises {
    items: Vec<(PathBuf, bool)>,
    /// The client ended well, which promises everything.
    total: bool,
    /// Before that end, only contents of files are promised to be on the disk.
    contents_only: bool,
}

fn play_operation(site: &mut Site<'_>, point: &Point, tally: &mut Tally) -> bool {
    let mut ends = run_into(site, point);
    judge_ends(&mut ends, point, tally);
    let is_error = matches!(point.fault, Fault::Error(_));
    let promises = ends.promises();
    let reached = ends.reached;
    ends.client.kill();
    look(site, &promises, tally);
    let server = if ends.server.process.ended().is_some() {
        recover_twice(site, &promises, tally)
    } else {
        ends.server
    };
    let server = resume(site, server, !is_error, tally);
    look_for_versions(site, tally);
    drop(server);
    reached
}

/// As an operation, but the disk goes with the process, or after all is done again; what is received then
/// must be on the disk, too, whoever made it durable.
fn play_power_cut(site: &mut Site<'_>, point: &Point, disk: &Mounted, tally: &mut Tally) -> bool {
    let mut ends = run_into(site, point);
    let is_late = matches!(point.fault, Fault::Late(_));
    if !is_late {
        disk.cut();
    }
    ends.server.process.kill();
    ends.client.kill();
    let mut promises = ends.promises();
    if !is_late {
        promises.contents_only = true;
        disk.mount_again();
    }
    look(site, &promises, tally);
    let server = recover_twice(site, &promises, tally);
    let server = resume(site, server, true, tally);
    disk.cut();
    drop(server);
    disk.mount_again();
    let fault = differences(&read_tree(&site.received()), &site.template.new);
    tally.note(Invariant::Acknowledged, &fault);
    look_for_versions(site, tally);
    ends.reached
}

/// A kill at `earlier`, then another one in the start that follows.
fn play_start(site: &mut Site<'_>, point: &Point, earlier: &Point, tally: &mut Tally) -> bool {
    let Some(promises) = fail_before_start(site, earlier) else {
        return false;
    };
    let log = site.path("trace");
    let mut second = site.serve(Trace::Inject(&log, &point.at, point.fault));
    let status = second.process.settle();
    let was_killed = status.is_some_and(|status| status.signal() == Some(9));
    second.process.kill();
    look(site, &promises, tally);
    let server = recover_twice(site, &promises, tally);
    let server = resume(site, server, true, tally);
    look_for_versions(site, tally);
    drop(server);
    was_killed
}

/// Kills the server at `earlier`; what was promised until then, or `None` if it was not reached.
pub fn fail_before_start(site: &mut Site<'_>, earlier: &Point) -> Option<Promises> {
    let mut ends = run_into(site, earlier);
    ends.client.kill();
    ends.server.process.kill();
    if earlier.operation == Operation::Compaction {
        tear(&site.received().join(".syncline/journal"));
    }
    ends.reached.then(|| ends.promises())
}

/// Adds the beginning of a record to a journal: it is written anew without it.
fn tear(journal: &Path) {
    const HEADER_BYTES: usize = 40;
    if let Ok(mut bytes) = std::fs::read(journal) {
        let begun: Vec<u8> = bytes.iter().skip(HEADER_BYTES).take(21).copied().collect();
        bytes.extend(begun);
        std::fs::write(journal, bytes).unwrap();
    }
}

/// Runs the operation into the fault, and until the client ended and the server has nothing to do.
fn run_into(site: &mut Site<'_>, point: &Point) -> Ends {
    let mut server = site.serve(Trace::None);
    site.prepare(&mut server);
    let listen = server.listen().to_owned();
    let log = site.path("trace");
    let (mut client, tracer) = match (point.actor, point.at.thread) {
        (Actor::Server, _) => {
            let tracer = Tracer::inject(server.process.id(), &point.at, point.fault, &log);
            (site.transfer(&listen, Version::New, Trace::None), tracer)
        }
        (Actor::Client, Thread::Start) => {
            let trace = Trace::Inject(&log, &point.at, point.fault);
            (site.transfer(&listen, Version::New, trace), None)
        }
        (Actor::Client, _) => {
            let client = connected(site, &server);
            let tracer = Tracer::inject(client.id(), &point.at, point.fault, &log);
            server.process.signal("CONT");
            (client, tracer)
        }
    };
    if point.fault == Fault::Short {
        let id = if point.actor == Actor::Server {
            server.process.id()
        } else {
            client.id()
        };
        limit_until_reached(site, id, &mut client, u64::from(point.at.number));
    }
    let status = client.wait();
    server.process.settle();
    let is_killed = |status: Option<ExitStatus>| status.is_some_and(|status| status.signal() == Some(9));
    let reached = match point.fault {
        Fault::Error(_) => tracer.as_ref().is_some_and(Tracer::was_injected),
        Fault::Short => tracer.as_ref().is_some_and(Tracer::was_short),
        Fault::Kill | Fault::Power(_) | Fault::Late(_) => is_killed(server.process.ended()) || is_killed(status),
    };
    let failed = std::fs::read_to_string(&log).unwrap_or_default();
    Ends {
        server,
        client,
        status,
        reached,
        failed,
    }
}

/// Limits the size of files that the process `id` writes to `beyond` bytes more than the large file has, as
/// soon as something of that is there, until it has them: the write that got there comes back short, and what
/// follows goes well. A limit of the kernel, so nothing is made up.
fn limit_until_reached(site: &Site<'_>, id: u32, client: &mut Process, beyond: u64) {
    let kept = site.received().join(".syncline/staging/kept");
    let size = || {
        let files = std::fs::read_dir(&kept).into_iter().flatten().flatten();
        files
            .filter_map(|file| Some(file.metadata().ok()?.len()))
            .max()
            .unwrap_or(0)
    };
    let until = Instant::now() + PATIENCE;
    let mut wait_for = |is_there: &dyn Fn() -> bool| {
        while client.ended().is_none() && !is_there() && Instant::now() < until {
            client.pause(Duration::from_micros(500));
        }
    };
    wait_for(&|| size() > 0);
    let limit = size() + beyond;
    limit_file_size(id, Some(limit));
    wait_for(&|| size() >= limit);
    limit_file_size(id, None);
}

/// The soft limit only, so that it can be lifted again; by a call and not a command, which may take longer to start
/// than the next write. The process may have ended.
fn limit_file_size(id: u32, bytes: Option<u64>) {
    let maximum = getrlimit(Resource::Fsize).maximum;
    let limit = Rlimit {
        current: bytes.or(maximum),
        maximum,
    };
    let _ = prlimit(Pid::from_raw(id.cast_signed()), Resource::Fsize, limit);
}

/// A client that is connected and waits: the server stands still, and its kernel answers for it.
pub fn connected(site: &mut Site<'_>, server: &Server) -> Process {
    server.process.signal("STOP");
    let mut client = site.transfer(server.listen(), Version::New, Trace::None);
    client.settle();
    client
}

/// Who was not killed lives, ended as fits, and says which file failed.
fn judge_ends(ends: &mut Ends, point: &Point, tally: &mut Tally) {
    let server_lives = ends.server.process.ended().is_none();
    let is_target = |actor| ends.reached && point.actor == actor && point.fault == Fault::Kill;
    let mut faults = Vec::new();
    if !server_lives && !is_target(Actor::Server) {
        faults.push("the server ended".to_owned());
    }
    for process in [&ends.server.process, &ends.client] {
        if process.complaints().contains("panicked") {
            faults.push(format!("a panic: {}", process.complaints()));
        }
    }
    let code = ends.status.and_then(|status| status.code());
    match (code, point.fault) {
        (Some(0), Fault::Error("EIO")) if point.actor == point.operation.receiver() && is_promise(&ends.failed) => {
            faults.push(format!(
                "all was acknowledged after a flush that failed: {}",
                ends.failed
            ));
        }
        (Some(0), _) => {}
        (Some(5), Fault::Kill) if is_target(Actor::Server) => {}
        (None, Fault::Kill) if is_target(Actor::Client) => {}
        (Some(code), Fault::Error(errno)) if ends.reached => faults.extend(judge_error(&ends.client, code, errno)),
        (code, _) => faults.push(format!("the client ended with {code:?}: {}", ends.client.complaints())),
    }
    tally.note(Invariant::Told, &faults.join("; "));
}

/// Whether the call that failed was to make something durable that is acknowledged. The journal is not: it
/// only saves work; and `fdatasync` is for files on their way: one that fails has the content come anew, for another
/// inode.
fn is_promise(failed: &str) -> bool {
    let line = failed
        .lines()
        .find(|line| line.contains("(INJECTED)"))
        .unwrap_or_default();
    FLUSH.iter().any(|name| line.starts_with(name))
        && !line.contains("/.syncline/journal")
        && !line.starts_with("fdatasync")
}

/// What is wrong with how a client told of an error.
fn judge_error(client: &Process, code: i32, errno: &str) -> Option<String> {
    let told: Vec<_> = client
        .objects()
        .into_iter()
        .filter(|object| object["event"] == "error")
        .collect();
    let text = format!("code {code}: {told:?} {}", client.complaints());
    if told.is_empty() {
        return Some(format!("nothing is said of the failure, {text}"));
    }
    let says_full = told.iter().any(|object| {
        object["code"] == "disk_full" || object["message"].as_str().is_some_and(|text| text.contains("full"))
    });
    match errno {
        "EINTR" => Some(format!("an interruption is no failure, {text}")),
        "ENOSPC" | "EDQUOT" if code != 7 || !says_full => Some(format!("this is no full disk, {text}")),
        // 7: deletions were asked for, and not all could be listed.
        "EIO" if !matches!(code, 1 | 3 | 5 | 7 | 10) => Some(format!("this is no failing disk, {text}")),
        _ => None,
    }
}

/// What must hold as soon as something failed, before anything starts again.
fn look(site: &Site<'_>, promises: &Promises, tally: &mut Tally) {
    let undo = site.received().join(".syncline/undo");
    let records = std::fs::read_dir(undo).into_iter().flatten().flatten();
    let is_half = records.into_iter().any(|record| record.path().extension().is_none());
    let half = is_half.then_some(Path::new("huge"));
    look_with(site, promises, half, tally);
}

fn look_with(site: &Site<'_>, promises: &Promises, half: Option<&Path>, tally: &mut Tally) {
    let (old, new) = (&site.template.old, &site.template.new);
    let found = read_tree(&site.received());
    tally.note(Invariant::Whole, &check::whole(&found, old, new, half));
    let is_content = |(path, is_deleted): &&(PathBuf, bool)| {
        let has_content = !is_deleted && new.get(path).is_some_and(|node| node.content().is_some());
        has_content || !promises.contents_only
    };
    let items: Vec<_> = promises.items.iter().filter(is_content).cloned().collect();
    let fault = check::acknowledged_is_there(&found, new, &items, promises.total);
    tally.note(Invariant::Acknowledged, &fault);
    tally.note(
        Invariant::Claimed,
        &check::claimed(&site.received(), &site.template.source(), &site.template.before()),
    );
    let fault = if site.is_confined() {
        ""
    } else {
        "the canary or the source changed"
    };
    tally.note(Invariant::Confined, fault);
    if site.template.operation == Operation::Delete {
        let is_there = old
            .iter()
            .filter(|(path, _)| path.extension() == Some("private".as_ref()));
        let lost = is_there.into_iter().any(|(path, node)| found.get(path) != Some(node));
        tally.note(
            Invariant::Unseen,
            if lost {
                "a file that was filtered out is gone"
            } else {
                ""
            },
        );
    }
}

/// Starts the server, kills it, and starts it once more; the second start finds nothing to do.
fn recover_twice(site: &mut Site<'_>, promises: &Promises, tally: &mut Tally) -> Server {
    let goes_on = check::goes_on(&site.received());
    let mut once = site.serve(Trace::None);
    let fault = if once.is_ready() {
        String::new()
    } else {
        once.process.complaints()
    };
    tally.note(Invariant::Recovered, &fault);
    once.process.settle();
    let first = check::with_ours(&site.received());
    let begun = check::unfinished(&site.received());
    once.process.kill();
    let mut twice = site.serve(Trace::None);
    twice.process.settle();
    let second = check::with_ours(&site.received());
    tally.note(Invariant::Recovered, &differences(&second, &first));
    let then = check::unfinished(&site.received());
    let fault = if begun == then {
        String::new()
    } else {
        format!("unfinished: {begun:?}, then {then:?}")
    };
    tally.note(Invariant::Recovered, &fault);
    // After a power cut it is looked at again before it is trusted, and may have lost its end.
    let lost = goes_on
        .iter()
        .find(|transfer| !promises.contents_only && then.as_ref().is_ok_and(|then| !then.contains(transfer)));
    let fault = lost.map_or_else(String::new, |lost| format!("lost what could go on: {lost:?}"));
    tally.note(Invariant::Claimed, &fault);
    // Only the server recovers by starting; a client does as soon as it runs again.
    let half = (site.template.operation.receiver() == Actor::Client).then_some(Path::new("huge"));
    look_with(site, promises, half, tally);
    twice
}

/// What was replaced or deleted can be had again. Restores beside what is there, so it comes last.
fn look_for_versions(site: &Site<'_>, tally: &mut Tally) {
    if site.template.operation.receiver() == Actor::Server && site.keeps_versions() {
        let fault = check::kept(&site.template.old, &read_tree(&site.received()), &site.versions());
        tally.note(Invariant::Kept, &fault);
    }
}

/// Runs the client again, without faults. `was_recovered`: a start came between, which tidies up.
fn resume(site: &mut Site<'_>, mut server: Server, was_recovered: bool, tally: &mut Tally) -> Server {
    if !server.is_ready() {
        tally.note(Invariant::Resumed, "no server to resume with");
        return server;
    }
    let mut client = site.transfer(server.listen(), Version::New, Trace::None);
    let status = client.wait();
    let fault = match status.and_then(|status| status.code()) {
        Some(0) => differences(&read_tree(&site.received()), &site.template.new),
        code => format!("the next run ended with {code:?}: {}", client.complaints()),
    };
    tally.note(Invariant::Resumed, &fault);
    server.process.settle();
    let mut fault = check::leftovers(&site.received());
    if !fault.is_empty() && !was_recovered {
        // A call that was to remove it failed; the next start does.
        server.process.kill();
        server = site.serve(Trace::None);
        site.transfer(server.listen(), Version::New, Trace::None).wait();
        server.process.settle();
        fault = check::leftovers(&site.received());
    }
    tally.note(Invariant::Tidy, &fault);
    let fault = if site.is_confined() {
        ""
    } else {
        "the canary or the source changed"
    };
    tally.note(Invariant::Confined, fault);
    server
}
