//! Which figure of a [`Snapshot`] is which metric: a table, and the text made from it.
//!
//! Never counts anything. The text is made from the very JSON that `status --json` prints, so that the two cannot
//! differ: a metric is a place in that object. Invariant: every figure of the object is in the table.

use super::status::Snapshot;
use crate::web::{Exposition, MetricKind};
use serde_json::Value;
use std::fmt;

/// One family of samples.
struct Metric {
    name: &'static str,
    kind: MetricKind,
    at: At,
    unit: Unit,
    help: &'static str,
}

/// Where its figures are.
enum At {
    /// One number, by its path in the object.
    One(&'static str),
    /// An object of numbers, whose keys go into the label.
    Keys(&'static str, &'static str),
    /// A number of each share.
    Share(&'static str),
    /// An object of numbers of each share, whose keys go into the label.
    ShareKeys(&'static str, &'static str),
    /// The turn times.
    Turns(&'static str),
}

/// What a figure is counted in; metrics are in bytes and seconds.
#[derive(Clone, Copy)]
enum Unit {
    Plain,
    Micros,
}

/// A number of microseconds, written as seconds.
struct Seconds(u64);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0 / 1_000_000)?;
        match format!("{:06}", self.0 % 1_000_000).trim_end_matches('0') {
            "" => Ok(()),
            fraction => write!(f, ".{fraction}"),
        }
    }
}

const fn counter(name: &'static str, at: At, help: &'static str) -> Metric {
    let (kind, unit) = (MetricKind::Counter, Unit::Plain);
    Metric {
        name,
        kind,
        at,
        unit,
        help,
    }
}

const fn gauge(name: &'static str, at: At, help: &'static str) -> Metric {
    let (kind, unit) = (MetricKind::Gauge, Unit::Plain);
    Metric {
        name,
        kind,
        at,
        unit,
        help,
    }
}

impl Metric {
    const fn in_micros(self) -> Metric {
        let unit = Unit::Micros;
        Metric { unit, ..self }
    }
}

const METRICS: &[Metric] = &[
    gauge(
        "syncline_uptime_seconds",
        At::One("/uptime_seconds"),
        "Seconds since the server started.",
    ),
    gauge(
        "syncline_connections",
        At::Keys("/loop_status/stages", "stage"),
        "Open connections by what goes on there.",
    ),
    gauge(
        "syncline_web_connections",
        At::One("/loop_status/web_connections"),
        "Open HTTP connections.",
    ),
    counter(
        "syncline_accepted_total",
        At::One("/loop_status/accepted"),
        "Connections accepted and kept, HTTP included.",
    ),
    counter(
        "syncline_turned_away_total",
        At::One("/loop_status/turned_away"),
        "Connections closed when they came: too many, or no descriptors left.",
    ),
    counter(
        "syncline_refused_total",
        At::Keys("/loop_status/refused_by", "code"),
        "Connections that were refused or given up, by code.",
    ),
    counter(
        "syncline_sessions_begun_total",
        At::One("/loop_status/sessions/begun"),
        "Sessions that began.",
    ),
    counter(
        "syncline_sessions_completed_total",
        At::One("/loop_status/sessions/completed"),
        "Sessions that came to their end, also with items that failed.",
    ),
    counter(
        "syncline_sessions_failed_total",
        At::Keys("/loop_status/sessions/failed_by", "code"),
        "Sessions that broke off, by the code of the close; lost when the connection broke.",
    ),
    gauge(
        "syncline_sessions_active",
        At::One("/loop_status/active"),
        "Sessions that run.",
    ),
    gauge(
        "syncline_sessions_queued",
        At::One("/loop_status/queued"),
        "Sessions that wait for their turn.",
    ),
    counter(
        "syncline_sessions_busy_total",
        At::One("/loop_status/refused_busy"),
        "Sessions that were told to come again, for lack of memory.",
    ),
    gauge(
        "syncline_memory_accounted_most_bytes",
        At::One("/loop_status/memory_most_bytes"),
        "The most that the budget counted since the start.",
    ),
    counter(
        "syncline_network_sent_bytes_total",
        At::One("/loop_status/bytes_sent"),
        "Bytes sent over TCP, TLS and HTTP included.",
    ),
    counter(
        "syncline_network_received_bytes_total",
        At::One("/loop_status/bytes_received"),
        "Bytes received over TCP, TLS and HTTP included.",
    ),
    Metric {
        name: "syncline_turn_seconds",
        kind: MetricKind::Histogram,
        at: At::Turns("/loop_status/turn_time"),
        unit: Unit::Micros,
        help: "Work of a turn of the loop, without its waiting.",
    },
    gauge(
        "syncline_turn_longest_seconds",
        At::One("/loop_status/longest_turn_micros"),
        "The longest turn since the start.",
    )
    .in_micros(),
    counter(
        "syncline_visits_total",
        At::One("/loop_status/visits"),
        "Visits to connections that had something to do.",
    ),
    gauge(
        "syncline_ready_connections",
        At::Keys("/loop_status/lines", "line"),
        "Connections that stand in line for a visit.",
    ),
    gauge(
        "syncline_ready_longest_connections",
        At::Keys("/loop_status/longest_lines", "line"),
        "The longest that the lines were since the start.",
    ),
    gauge(
        "syncline_outbound_longest_bytes",
        At::One("/loop_status/longest_queue_bytes"),
        "The longest queue that any connection had since the start.",
    ),
    gauge(
        "syncline_commit_queued_files",
        At::One("/loop_status/commits/queued"),
        "Files that wait to be made durable.",
    ),
    gauge(
        "syncline_commit_running_files",
        At::One("/loop_status/commits/running"),
        "Files that are being made durable.",
    ),
    counter(
        "syncline_commit_jobs_total",
        At::One("/loop_status/commits/jobs"),
        "Group commits.",
    ),
    counter(
        "syncline_commit_files_total",
        At::One("/loop_status/commits/files"),
        "Files in group commits.",
    ),
    gauge(
        "syncline_helper_queued_jobs",
        At::One("/loop_status/helper/queue"),
        "Jobs that the helper thread has or will have.",
    ),
    counter(
        "syncline_helper_jobs_total",
        At::One("/loop_status/helper/jobs"),
        "Jobs that the helper thread has done.",
    ),
    counter(
        "syncline_helper_busy_seconds_total",
        At::One("/loop_status/helper/busy_micros"),
        "Time that the helper thread worked.",
    )
    .in_micros(),
    gauge(
        "syncline_memory_anonymous_bytes",
        At::One("/loop_status/anonymous_bytes"),
        "Resident memory without mapped files.",
    ),
    gauge(
        "syncline_memory_accounted_bytes",
        At::One("/loop_status/memory_bytes"),
        "Memory that the budget counts.",
    ),
    gauge(
        "syncline_memory_limit_bytes",
        At::One("/loop_status/memory_limit_bytes"),
        "What the budget may count at most.",
    ),
    gauge(
        "syncline_descriptors_open",
        At::One("/loop_status/descriptors"),
        "Open descriptors of the process.",
    ),
    counter(
        "syncline_share_sessions_total",
        At::Share("transfers"),
        "Sessions of a share that came to their end.",
    ),
    counter(
        "syncline_share_files_total",
        At::Share("files"),
        "Files settled: transferred or unchanged.",
    ),
    counter(
        "syncline_share_transferred_files_total",
        At::Share("files_transferred"),
        "Files whose content travelled or was changed.",
    ),
    counter("syncline_share_deleted_total", At::Share("deleted"), "Entries deleted."),
    counter(
        "syncline_share_bytes_total",
        At::Share("bytes"),
        "Bytes in the files settled.",
    ),
    counter(
        "syncline_share_literal_bytes_total",
        At::Share("literal_bytes"),
        "Bytes of content that travelled.",
    ),
    counter(
        "syncline_share_matched_bytes_total",
        At::Share("matched_bytes"),
        "Bytes of changed files taken from older versions, and holes.",
    ),
    counter(
        "syncline_share_saved_bytes_total",
        At::Share("saved_bytes"),
        "Bytes that did not have to travel, unchanged files included.",
    ),
    counter(
        "syncline_share_unchanged_bytes_total",
        At::Share("unchanged_bytes"),
        "Bytes in files that were there already.",
    ),
    counter(
        "syncline_share_resumed_bytes_total",
        At::Share("resumed_bytes"),
        "Bytes that an earlier, interrupted session had brought.",
    ),
    counter(
        "syncline_share_wire_sent_bytes_total",
        At::Share("wire_sent"),
        "Bytes sent in sessions that came to their end.",
    ),
    counter(
        "syncline_share_wire_received_bytes_total",
        At::Share("wire_received"),
        "Bytes received in sessions that came to their end.",
    ),
    counter(
        "syncline_share_failed_items_total",
        At::ShareKeys("failed_by", "error"),
        "Items that failed, by the kind of error.",
    ),
    gauge(
        "syncline_share_read_only",
        At::Share("read_only"),
        "1 while nothing may be written to the share.",
    ),
    gauge(
        "syncline_share_free_bytes",
        At::Share("free_bytes"),
        "Free bytes of the share's file system.",
    ),
    gauge(
        "syncline_share_journal_entries",
        At::Share("journal_entries"),
        "Unfinished transfers in the share's journal.",
    ),
    gauge(
        "syncline_share_journal_bytes",
        At::Share("journal_bytes"),
        "Bytes of the share's journal.",
    ),
    counter(
        "syncline_share_versions_kept_total",
        At::Share("versions_kept"),
        "Versions that were kept when something gave way.",
    ),
    gauge(
        "syncline_share_versions_bytes",
        At::Share("versions_bytes"),
        "Bytes of kept versions when they were counted last.",
    ),
];

/// Keys of the object that are sums of others in the table, or in the build information.
#[cfg(test)]
const ELSEWHERE: [&str; 9] = [
    "/event",
    "/name",
    "/version",
    "/loop_status/connections",
    "/loop_status/turns",
    "/loop_status/sessions/failed",
    "/shares/*/name",
    "/shares/*/failed",
    "/shares/*/rights",
];

/// The text of `/metrics`.
pub(super) fn exposition(snapshot: &Snapshot<'_>) -> String {
    let object = serde_json::to_value(snapshot).unwrap_or_default();
    let mut text = Exposition::default();
    text.family(
        "syncline_build_info",
        MetricKind::Gauge,
        "Always 1; the labels tell what runs.",
    );
    text.sample(
        "syncline_build_info",
        &[("version", snapshot.version), ("name", snapshot.name)],
        1,
    );
    for metric in METRICS {
        write(metric, &object, &mut text);
    }
    text.finish()
}

fn write(metric: &Metric, object: &Value, text: &mut Exposition) {
    let shares = object["shares"].as_array().map_or(&[][..], Vec::as_slice);
    let numbers = |at: &Value, labels: &[(&str, &str)], key: &str, text: &mut Exposition| {
        for (name, number) in at.as_object().into_iter().flatten() {
            let labels = [labels, &[(key, name.as_str())]].concat();
            sample(metric, &labels, number, text);
        }
    };
    text.family(metric.name, metric.kind, metric.help);
    match metric.at {
        At::One(path) => sample(metric, &[], object.pointer(path).unwrap_or(&Value::Null), text),
        At::Keys(path, key) => numbers(object.pointer(path).unwrap_or(&Value::Null), &[], key, text),
        At::Share(field) => shares
            .iter()
            .for_each(|share| sample(metric, &[("share", name_of(share))], &share[field], text)),
        At::ShareKeys(field, key) => shares
            .iter()
            .for_each(|share| numbers(&share[field], &[("share", name_of(share))], key, text)),
        At::Turns(path) => histogram(metric, object.pointer(path).unwrap_or(&Value::Null), text),
    }
}

/// A figure; one that is not known has no sample.
fn sample(metric: &Metric, labels: &[(&str, &str)], number: &Value, text: &mut Exposition) {
    match (number.as_u64(), metric.unit) {
        (Some(number), Unit::Plain) => text.sample(metric.name, labels, number),
        (Some(micros), Unit::Micros) => text.sample(metric.name, labels, Seconds(micros)),
        (None, _) => {}
    }
}

fn histogram(metric: &Metric, times: &Value, text: &mut Exposition) {
    let [bucket, sum, count] = ["bucket", "sum", "count"].map(|part| format!("{}_{part}", metric.name));
    let number = |value: &Value| value.as_u64().unwrap_or(0);
    for step in times["buckets"].as_array().into_iter().flatten() {
        let bound = Seconds(number(&step["up_to_micros"])).to_string();
        text.sample(&bucket, &[("le", &bound)], number(&step["count"]));
    }
    text.sample(&bucket, &[("le", "+Inf")], number(&times["count"]));
    text.sample(&sum, &[], Seconds(number(&times["sum_micros"])));
    text.sample(&count, &[], number(&times["count"]));
}

fn name_of(share: &Value) -> &str {
    share["name"].as_str().unwrap_or_default()
}

#[cfg(test)]
#[path = "metrics_tests.rs"]
mod tests;
