//! Owns what a run prints at its end: a table for people, or one JSON object. It never measures.

use crate::complaint::{Complaint, Exit};
use crate::fleet::Fleet;
use crate::histogram::Histogram;
use crate::quantity::{count, counted, per_second, rate, size};
use crate::tally::{Giant, Tally};
use crate::usage::{self, Usage};
use crate::verify::Checked;
use serde_json::{Map, Value, json};
use std::io::Write;
use std::time::Duration;

/// The percentiles of a report, in millionths, with their names.
pub(crate) const PERCENTILES: [(&str, u64); 4] =
    [("p50", 500_000), ("p90", 900_000), ("p99", 990_000), ("p99.9", 999_000)];

/// Prints the report of a run; how it ended.
pub(crate) fn print(fleet: &Fleet, checked: Option<&Checked>) -> Exit {
    let exit = exit_of(fleet, checked);
    let usage = usage::so_far();
    let text = match fleet.settings.json {
        true => summary(fleet, checked, &usage, exit).to_string(),
        false => table(fleet, checked, &usage),
    };
    // Nobody may be reading any more.
    let _ = writeln!(std::io::stdout(), "{text}");
    exit
}

/// The object of a run that did not happen.
pub(crate) fn print_complaint(complaint: &Complaint) {
    let object = json!({"event": "summary", "message": complaint.what, "advice": complaint.advice,
        "exit_code": complaint.exit.code()});
    let _ = writeln!(std::io::stdout(), "{object}");
}

fn exit_of(fleet: &Fleet, checked: Option<&Checked>) -> Exit {
    let differ = checked.is_some_and(|checked| checked.different > 0);
    match fleet.signal {
        Some(signal) => Exit::Interrupted(signal),
        None if differ || fleet.tally.failed + fleet.tally.setup_failed > 0 => Exit::Partial,
        None => Exit::Done,
    }
}

/// How syncs begin, for whoever reads the latencies.
pub(crate) fn loop_text(fleet: &Fleet) -> String {
    match fleet.settings.rate {
        Some(rate) => format!("open loop, {rate} a second; latency from the intended start"),
        None => "closed loop: a client begins when it is through; latency from the actual start".to_owned(),
    }
}

fn elapsed(tally: &Tally) -> Duration {
    Duration::from_micros(tally.elapsed_micros())
}

fn per(total: u64, number: u64) -> u64 {
    total / number.max(1)
}

fn summary(fleet: &Fleet, checked: Option<&Checked>, usage: &Usage, exit: Exit) -> Value {
    let (settings, tally) = (&fleet.settings, &fleet.tally);
    let syncs = tally.syncs();
    let content = syncs * u64::from(settings.files) * settings.size;
    let giant = |giant: &Giant| {
        json!({"what": giant.what, "bytes": giant.bytes, "syncs": giant.syncs,
        "seconds": giant.micros as f64 / 1e6, "wire_bytes": giant.wire_bytes})
    };
    let mut object = json!({
        "event": "summary",
        "scenario": settings.scenario.name(),
        "clients": settings.clients,
        "files": settings.files,
        "size": settings.size,
        "seed": settings.seed,
        "plain": settings.plain,
        "identities": settings.identities,
        "loop": if settings.rate.is_some() { "open" } else { "closed" },
        "rate": settings.rate,
        "seconds": elapsed(tally).as_secs_f64(),
        "first_to_last_seconds": tally.first.map_or(0.0, |first| tally.last.saturating_sub(first) as f64 / 1e6),
        "syncs": syncs,
        "syncs_per_second": per_second(syncs, elapsed(tally)),
        "content_bytes": content,
        "failed": tally.failed,
        "setup_failed": tally.setup_failed,
        "errors": tally.errors,
        "busy": tally.busy,
        "queued": tally.queued,
        "cut": tally.cut,
        "cuts": tally.cuts,
        "connections": tally.attempts,
        "opened": tally.opened,
        "peak_connected": tally.peak_open,
        "wire_sent": tally.sent,
        "wire_received": tally.received,
        "sent_per_sync": per(tally.sync_sent, syncs),
        "received_per_sync": per(tally.sync_received, syncs),
        "latency_ms": distribution(&tally.latency),
        "service_ms": distribution(&tally.service),
        "connect_ms": distribution(&tally.connect),
        "giants": tally.giants.iter().map(giant).collect::<Vec<_>>(),
        "generator_cpu_seconds": usage.cpu_seconds,
        "generator_peak_bytes": usage.peak_bytes,
        "exit_code": exit.code(),
    });
    if let (Some(object), Some(checked)) = (object.as_object_mut(), checked) {
        let verified = json!({"same": checked.same, "different": checked.different, "examples": checked.examples});
        object.insert("verified".to_owned(), verified);
    }
    object
}

fn distribution(histogram: &Histogram) -> Value {
    let mut object = Map::new();
    for (name, per_million) in PERCENTILES {
        object.insert(
            name.replace('.', "_"),
            milliseconds(histogram.quantile(per_million)).into(),
        );
    }
    object.insert("max".to_owned(), milliseconds(histogram.max()).into());
    object.insert("mean".to_owned(), milliseconds(histogram.mean()).into());
    object.insert("count".to_owned(), histogram.count().into());
    Value::Object(object)
}

/// For people and scripts alike, to the microsecond.
fn milliseconds(time: Duration) -> f64 {
    time.as_micros() as f64 / 1e3
}

fn table(fleet: &Fleet, checked: Option<&Checked>, usage: &Usage) -> String {
    let (settings, tally) = (&fleet.settings, &fleet.tally);
    let syncs = tally.syncs();
    let security = if settings.plain { "plain" } else { "TLS 1.3" };
    let mut lines = vec![
        format!(
            "{}: {}, {security}, seed {}; {}",
            settings.scenario.name(),
            counted(settings.clients.into(), "client"),
            settings.seed,
            loop_text(fleet)
        ),
        format!(
            "{} in {:.2} s: {:.1} a second; {} failed, {} refused for the moment, {} told to wait",
            counted(syncs, "sync"),
            elapsed(tally).as_secs_f64(),
            per_second(syncs, elapsed(tally)),
            count(tally.failed + tally.setup_failed),
            count(tally.busy),
            times(tally.queued),
        ),
        format!(
            "{} connected at the most, {} made; {} sent, {} received ({} and {} a sync)",
            count(tally.peak_open),
            count(tally.attempts),
            size(tally.sent),
            size(tally.received),
            size(per(tally.sync_sent, syncs)),
            size(per(tally.sync_received, syncs)),
        ),
        format!(
            "this process: {:.2} s of CPU, {} of memory at the most",
            usage.cpu_seconds,
            size(usage.peak_bytes)
        ),
        String::new(),
        format!(
            "{:<10} {:>10} {:>10} {:>10} {:>10} {:>10} {:>10}",
            "ms", "p50", "p90", "p99", "p99.9", "max", "count"
        ),
    ];
    for (name, histogram) in [
        ("latency", &tally.latency),
        ("service", &tally.service),
        ("connect", &tally.connect),
    ] {
        lines.push(row(name, histogram));
    }
    lines.extend(tally.giants.iter().map(giant_line));
    for (what, kinds) in [("error", &tally.errors), ("cut by the server", &tally.cuts)] {
        lines.extend(
            kinds
                .iter()
                .map(|(kind, number)| format!("{what}, {}: {kind}", times(*number))),
        );
    }
    if let Some(checked) = checked {
        lines.push(format!(
            "{} as the seed says, {} not",
            counted(checked.same, "file"),
            count(checked.different)
        ));
        lines.extend(checked.examples.iter().map(|path| format!("  differs: {path}")));
    }
    lines.join("\n")
}

fn row(name: &str, histogram: &Histogram) -> String {
    let mut line = format!("{name:<10}");
    for (_, per_million) in PERCENTILES {
        line += &format!(" {:>10.2}", milliseconds(histogram.quantile(per_million)));
    }
    format!(
        "{line} {:>10.2} {:>10}",
        milliseconds(histogram.max()),
        count(histogram.count())
    )
}

fn giant_line(giant: &Giant) -> String {
    if giant.syncs == 0 {
        return format!("giant {} of {}: not through at the end", giant.what, size(giant.bytes));
    }
    let time = Duration::from_micros(giant.micros);
    let through = giant.bytes.saturating_mul(giant.syncs);
    format!(
        "giant {} of {}: {} in {:.2} s, {} ({} on the wire)",
        giant.what,
        size(giant.bytes),
        times(giant.syncs),
        time.as_secs_f64(),
        rate(per_second(through, time)),
        size(giant.wire_bytes),
    )
}

fn times(number: u64) -> String {
    match number {
        1 => "once".to_owned(),
        _ => format!("{} times", count(number)),
    }
}
