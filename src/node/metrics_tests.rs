//! The table of metrics against the object that `status --json` prints, and the text against its format.

use super::super::status::{CommitFigures, LoopStatus, ShareInside, ShareStatus, TurnBucket, TurnTime};
use super::super::tally::{Sessions, Stages};
use super::super::turns::Load;
use super::*;
use crate::reactor::Counters;
use std::collections::{BTreeMap, BTreeSet};

/// A snapshot whose numbers all differ, so that no metric can stand for another.
fn snapshot(names: &[&'static str]) -> Snapshot<'static> {
    let mut next = 1_000_000;
    let mut number = || {
        next += 1;
        next
    };
    let shares = names.iter().map(|name| share(name, &mut number)).collect();
    let status = LoopStatus {
        connections: number(),
        stages: Stages {
            handshaking: number(),
            idle: number(),
            queued: number(),
            active: number(),
            closing: number(),
        },
        web_connections: number(),
        accepted: number(),
        turned_away: number(),
        refused_by: BTreeMap::from([("limit", number()), ("refused", number())]),
        sessions: Sessions {
            begun: number(),
            completed: number(),
            failed: number(),
            failed_by: BTreeMap::from([("lost", number())]),
        },
        bytes_sent: number(),
        bytes_received: number(),
        turns: number(),
        visits: number(),
        longest_turn_micros: number(),
        turn_time: TurnTime {
            buckets: [(100, 7), (250_000, 9)]
                .map(|(up_to_micros, count)| TurnBucket { up_to_micros, count })
                .into(),
            count: 11,
            sum_micros: number(),
        },
        longest_queue_bytes: number(),
        commits: CommitFigures {
            queued: number(),
            running: number(),
            jobs: number(),
            files: number(),
        },
        anonymous_bytes: Some(number()),
        descriptors: Some(number()),
        ..LoopStatus::of(
            &Counters {
                interactive_line: usize::try_from(number()).unwrap(),
                bulk_line: usize::try_from(number()).unwrap(),
                interactive_line_longest: usize::try_from(number()).unwrap(),
                bulk_line_longest: usize::try_from(number()).unwrap(),
                helper_queue: number(),
                helper_jobs: number(),
                helper_busy_micros: number(),
                ..Counters::default()
            },
            load(&mut number),
        )
    };
    Snapshot {
        event: "status",
        name: "NAS",
        version: "1.2.3",
        uptime_seconds: number(),
        shares,
        loop_status: Some(status),
    }
}

fn load(number: &mut impl FnMut() -> u64) -> Load {
    Load {
        active: usize::try_from(number()).unwrap(),
        queued: usize::try_from(number()).unwrap(),
        refused_busy: number(),
        memory_bytes: number(),
        memory_most_bytes: number(),
        memory_limit_bytes: Some(number()),
    }
}

fn share(name: &'static str, number: &mut impl FnMut() -> u64) -> ShareStatus<'static> {
    ShareStatus {
        name,
        rights: None,
        free_bytes: Some(number()),
        totals: super::super::status::Totals {
            transfers: number(),
            files: number(),
            files_transferred: number(),
            deleted: number(),
            bytes: number(),
            literal_bytes: number(),
            matched_bytes: number(),
            saved_bytes: number(),
            unchanged_bytes: number(),
            resumed_bytes: number(),
            wire_sent: number(),
            wire_received: number(),
            failed: number(),
            failed_by: BTreeMap::new(),
        },
        inside: Some(ShareInside {
            read_only: 1,
            journal_entries: number(),
            journal_bytes: number(),
            versions_kept: number(),
            versions_bytes: Some(number()),
            failed_by: BTreeMap::from([("io", number()), ("disk_full", number())]),
        }),
    }
}

/// Every number of an object, by its path, with `*` for the place in a list.
fn numbers(value: &Value, path: &str, found: &mut Vec<(String, u64)>) {
    match value {
        Value::Object(members) => members
            .iter()
            .for_each(|(key, value)| numbers(value, &format!("{path}/{key}"), found)),
        Value::Array(items) => items.iter().for_each(|item| numbers(item, &format!("{path}/*"), found)),
        Value::Number(number) => found.push((path.to_owned(), number.as_u64().expect("figures are whole"))),
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

// Protects whoever compares `status --json` with `/metrics`: each figure of one is in the other, with its value.
#[test]
fn every_figure_of_the_status_is_a_metric_with_the_same_value() {
    let snapshot = snapshot(&["Films"]);
    let text = exposition(&snapshot);
    let shown: BTreeSet<&str> = text.lines().filter_map(|line| line.rsplit(' ').next()).collect();
    let mut figures = Vec::new();
    numbers(&serde_json::to_value(&snapshot).unwrap(), "", &mut figures);
    assert!(figures.len() >= 60, "{}", figures.len());
    for (path, number) in figures {
        if ELSEWHERE.contains(&path.as_str()) || path.starts_with("/loop_status/turn_time/buckets/") {
            continue;
        }
        let shown_as = if path.ends_with("_micros") {
            Seconds(number).to_string()
        } else {
            number.to_string()
        };
        assert!(shown.contains(shown_as.as_str()), "{path} is in no metric, {shown_as}");
    }
}

// Protects the table: a path that leads nowhere would be a metric without a value, for ever.
#[test]
fn every_metric_has_a_figure() {
    let text = exposition(&snapshot(&["Films"]));
    let mut names = BTreeSet::new();
    for metric in METRICS {
        assert!(names.insert(metric.name), "{} twice", metric.name);
        let has_sample = text.lines().any(|line| {
            line.strip_prefix(metric.name)
                .is_some_and(|rest| rest.starts_with([' ', '{', '_']))
        });
        assert!(has_sample, "{} has no sample", metric.name);
        let is_total = metric.name.ends_with("_total");
        assert_eq!(metric.kind == MetricKind::Counter, is_total, "{}", metric.name);
    }
}

#[test]
fn what_is_not_known_has_no_sample() {
    let mut snapshot = snapshot(&[]);
    if let Some(status) = &mut snapshot.loop_status {
        status.load.memory_limit_bytes = None;
    }
    let text = exposition(&snapshot);
    assert!(!text.contains("\nsyncline_memory_limit_bytes "), "{text}");
    assert!(!text.contains("\nsyncline_share_files_total{"));
}

#[test]
fn turn_times_are_seconds_and_add_up() {
    let text = exposition(&snapshot(&["a\"b"]));
    for line in [
        "syncline_turn_seconds_bucket{le=\"0.0001\"} 7",
        "syncline_turn_seconds_bucket{le=\"0.25\"} 9",
        "syncline_turn_seconds_bucket{le=\"+Inf\"} 11",
        "syncline_turn_seconds_count 11",
        "syncline_build_info{version=\"1.2.3\",name=\"NAS\"} 1",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
    assert!(text.contains("{share=\"a\\\"b\",error=\"io\"} "));
}

#[test]
fn microseconds_are_written_as_seconds_without_rounding() {
    for (micros, text) in [
        (0, "0"),
        (1, "0.000001"),
        (100, "0.0001"),
        (1_000_000, "1"),
        (12_500_000, "12.5"),
        (u64::MAX, "18446744073709.551615"),
    ] {
        assert_eq!(Seconds(micros).to_string(), text);
    }
}
