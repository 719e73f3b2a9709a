//! Owns the picture of a run: latency by percentile, and syncs a second over time, as SVG without scripts. It
//! never measures.

use crate::complaint::Complaint;
use crate::fleet::Fleet;
use crate::histogram::Histogram;
use crate::report::loop_text;
use crate::tally::Second;
use std::fmt::Write;
use std::path::Path;
use std::time::Duration;
use syncline::model::system_reason;

const WIDTH: f64 = 800.0;
const PANEL: f64 = 220.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 20.0;
/// The percentiles on the axis, in millionths: each step to the right is a tenth of those that are left.
const MARKS: [(&str, u64); 6] = [
    ("p0", 0),
    ("p50", 500_000),
    ("p90", 900_000),
    ("p99", 990_000),
    ("p99.9", 999_000),
    ("p99.99", 999_900),
];
/// Columns of the second panel; longer runs put several seconds into one.
const COLUMNS_MAX: usize = 240;

/// Writes the chart, as SVG or as a page around it.
///
/// # Errors
/// When the file cannot be written.
pub(crate) fn write(file: &Path, fleet: &Fleet) -> Result<(), Complaint> {
    let svg = svg(
        &title(fleet),
        &fleet.tally.latency,
        &fleet.tally.service,
        &fleet.tally.seconds,
    );
    let is_page = file.extension().is_some_and(|ending| ending == "html");
    let text = match is_page {
        true => format!(
            "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>syncline-load</title>\n{svg}</html>\n"
        ),
        false => svg,
    };
    std::fs::write(file, text).map_err(|error| {
        let what = format!("cannot write {}: {}", file.display(), system_reason(&error));
        Complaint::error(what, "choose another place for the chart")
    })
}

fn title(fleet: &Fleet) -> String {
    let settings = &fleet.settings;
    let security = if settings.plain { "plain" } else { "TLS" };
    format!(
        "{}, {} clients, {security}; {}",
        settings.scenario.name(),
        settings.clients,
        loop_text(fleet)
    )
}

fn svg(title: &str, latency: &Histogram, service: &Histogram, seconds: &[Second]) -> String {
    let height = 2.0 * PANEL + 120.0;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
         height=\"{height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    text(&mut out, WIDTH / 2.0, 18.0, "middle", title);
    percentiles(&mut out, 40.0, latency, service);
    rates(&mut out, 40.0 + PANEL + 50.0, seconds);
    out.push_str("</svg>\n");
    out
}

/// Latency over percentiles; the upright axis is logarithmic.
fn percentiles(out: &mut String, top: f64, latency: &Histogram, service: &Histogram) {
    let longest = latency.max().max(service.max());
    let highest = micros(longest).max(10.0).log10().ceil();
    let lowest = micros(latency.quantile(0).min(service.quantile(0)))
        .max(1.0)
        .log10()
        .floor();
    let span = (highest - lowest).max(1.0);
    let y = |time: Duration| top + PANEL * (1.0 - (micros(time).max(1.0).log10() - lowest) / span).clamp(0.0, 1.0);
    let x = |index: usize| LEFT + (WIDTH - LEFT - RIGHT) * index as f64 / (MARKS.len() - 1) as f64;
    let mut decade = lowest;
    while decade <= highest {
        let time = Duration::from_micros(10f64.powf(decade) as u64);
        line(out, LEFT, y(time), WIDTH - RIGHT, y(time), "#ddd");
        text(out, LEFT - 6.0, y(time) + 4.0, "end", &shown(time));
        decade += 1.0;
    }
    for (index, (name, _)) in MARKS.iter().enumerate() {
        line(out, x(index), top, x(index), top + PANEL, "#eee");
        text(out, x(index), top + PANEL + 16.0, "middle", name);
    }
    for (name, color, histogram, offset) in [
        ("latency (from the intended start)", "#c2410c", latency, 14.0),
        ("service (from the actual start)", "#1d4ed8", service, 30.0),
    ] {
        let points: Vec<String> = MARKS
            .iter()
            .enumerate()
            .map(|(index, (_, per_million))| format!("{:.1},{:.1}", x(index), y(histogram.quantile(*per_million))))
            .collect();
        let points = points.join(" ");
        let _ = writeln!(
            out,
            "<polyline points=\"{points}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"2\"/>"
        );
        let _ = writeln!(
            out,
            "<rect x=\"{}\" y=\"{}\" width=\"10\" height=\"3\" fill=\"{color}\"/>",
            LEFT + 10.0,
            top + offset - 5.0
        );
        text(out, LEFT + 26.0, top + offset, "start", name);
    }
}

/// Syncs a second over time.
fn rates(out: &mut String, top: f64, seconds: &[Second]) {
    let each = seconds.len().div_ceil(COLUMNS_MAX).max(1);
    let columns: Vec<(f64, f64)> = seconds
        .chunks(each)
        .map(|part| {
            let sum = |of: fn(&Second) -> u64| part.iter().map(of).sum::<u64>() as f64 / part.len() as f64;
            (sum(|second| second.done), sum(|second| second.failed))
        })
        .collect();
    let most = columns.iter().map(|(done, failed)| done + failed).fold(1.0, f64::max);
    let width = (WIDTH - LEFT - RIGHT) / columns.len().max(1) as f64;
    for part in [0.0, 0.5, 1.0] {
        let y = top + PANEL * (1.0 - part);
        line(out, LEFT, y, WIDTH - RIGHT, y, "#ddd");
        text(out, LEFT - 6.0, y + 4.0, "end", &format!("{:.0}/s", most * part));
    }
    let mut bar = |index: usize, from: f64, to: f64, color: &str| {
        let (x, y) = (LEFT + width * index as f64, top + PANEL * (1.0 - to / most));
        let (wide, high) = ((width - 0.5).max(0.5), PANEL * (to - from) / most);
        let _ = writeln!(
            out,
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{wide:.1}\" height=\"{high:.1}\" fill=\"{color}\"/>"
        );
    };
    for (index, (done, failed)) in columns.iter().enumerate() {
        bar(index, 0.0, *done, "#15803d");
        if *failed > 0.0 {
            bar(index, *done, done + failed, "#b91c1c");
        }
    }
    text(out, LEFT, top + PANEL + 16.0, "start", "0 s");
    text(
        out,
        WIDTH - RIGHT,
        top + PANEL + 16.0,
        "end",
        &format!("{} s", seconds.len()),
    );
    text(
        out,
        WIDTH / 2.0,
        top + PANEL + 16.0,
        "middle",
        "syncs a second; failed ones in red",
    );
}

fn micros(time: Duration) -> f64 {
    time.as_micros() as f64
}

fn shown(time: Duration) -> String {
    match time.as_micros() {
        micros @ 0..1_000 => format!("{micros} µs"),
        micros @ 1_000..1_000_000 => format!("{} ms", micros / 1_000),
        micros => format!("{} s", micros / 1_000_000),
    }
}

fn line(out: &mut String, x1: f64, y1: f64, x2: f64, y2: f64, color: &str) {
    let _ = writeln!(
        out,
        "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"{color}\"/>"
    );
}

fn text(out: &mut String, x: f64, y: f64, anchor: &str, words: &str) {
    let words = words.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(
        out,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{words}</text>"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    // Protects the chart of any run, an empty and a very long one included: numbers stay numbers.
    #[test]
    fn every_run_has_a_chart_within_its_frame() {
        let mut latency = Histogram::new();
        let mut seconds = Vec::new();
        for length in [0, 1, 3, 20_000] {
            seconds.resize(
                length,
                Second {
                    done: 7,
                    failed: 1,
                    slowest_micros: 3,
                },
            );
            let chart = svg("a < b & c", &latency, &Histogram::new(), &seconds);
            assert!(chart.starts_with("<svg ") && chart.ends_with("</svg>\n"));
            assert!(chart.contains("a &lt; b &amp; c"));
            for wrong in ["NaN", "inf", "=\"-", "<script"] {
                assert!(!chart.contains(wrong), "{wrong} with {length} seconds");
            }
            assert!(chart.lines().count() < 700);
            latency.record(10u64.pow(length as u32 % 7));
        }
    }
}
