//! Shows where a transfer stands: two lines that redraw themselves on a terminal, else a line every
//! ten seconds, or a `status` object a second with `--json`.
//! Never reads a clock: time comes in, so what is shown is a function of the input.

use super::console::{Console, Format, Verbosity};
use super::quantity;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::time::{Duration, Instant};
use syncline::node::Progress;

/// Turns the client's progress events into output.
pub(crate) struct Display {
    started: Instant,
    meter: Meter,
    last_shown: Option<Duration>,
}

/// Between two lines where nothing can be redrawn.
const LINE_INTERVAL: Duration = Duration::from_secs(10);
/// Between two objects.
const OBJECT_INTERVAL: Duration = Duration::from_secs(1);

impl Display {
    /// Starts the clock at `now`.
    pub(crate) fn new(now: Instant) -> Display {
        Display {
            started: now,
            meter: Meter::default(),
            last_shown: None,
        }
    }

    /// Takes a progress event and shows it where and when it is due.
    pub(crate) fn handle(&mut self, console: &Console, progress: &Progress, now: Instant) {
        let elapsed = now.saturating_duration_since(self.started);
        self.meter.observe(elapsed, progress.bytes_done);
        let rate = self.meter.rate();
        if console.can_redraw() {
            console.draw([&headline(progress, rate), &current(progress)]);
        } else if console.format() == Format::Json {
            if self.is_due(elapsed, OBJECT_INTERVAL) {
                console.object(&object(progress, rate));
            }
        } else if console.verbosity() > Verbosity::Quiet && self.is_due(elapsed, LINE_INTERVAL) {
            console.note(&headline(progress, rate));
        }
    }

    fn is_due(&mut self, elapsed: Duration, interval: Duration) -> bool {
        // A run that ends within the first interval shows nothing but its result.
        let due = elapsed.saturating_sub(self.last_shown.unwrap_or_default()) >= interval;
        if due {
            self.last_shown = Some(elapsed);
        }
        due
    }
}

/// `61% 3.2/5.2 GiB 84 MiB/s ETA 0:24  1204/9881 files`.
fn headline(progress: &Progress, rate: f64) -> String {
    let speed = quantity::rate(rate);
    if !progress.total_known {
        let found = quantity::count(progress.files_found);
        let done = quantity::size(progress.bytes_done);
        return format!("scanning… at least {found} files  {done} {speed}");
    }
    let (done, total) = (progress.bytes_done.min(progress.bytes_found), progress.bytes_found);
    let percent = percent(progress);
    let sizes = quantity::size_of(done, total);
    let eta = match remaining(total - done, rate) {
        Some(time) => format!(" ETA {}", quantity::countdown(time)),
        None => String::new(),
    };
    format!(
        "{percent}% {sizes} {speed}{eta}  {}/{} files",
        progress.files_done, progress.files_found
    )
}

/// By bytes; by files when no byte has to travel.
fn percent(progress: &Progress) -> u128 {
    let (done, total) = match progress.bytes_found {
        0 => (progress.files_done, progress.files_found),
        bytes => (progress.bytes_done, bytes),
    };
    // 100 only when all is done, so that a bar never claims to be finished early.
    if total == 0 {
        100
    } else {
        u128::from(done.min(total)) * 100 / u128::from(total)
    }
}

fn remaining(bytes: u64, rate: f64) -> Option<Duration> {
    if bytes == 0 || rate < 1.0 {
        return None;
    }
    Duration::try_from_secs_f64(bytes as f64 / rate).ok()
}

/// `b.mkv · delta saved 1.1 GiB (97.4 %) · resumed at 1.9 GiB`: the share of what was sent of the file so far.
fn current(progress: &Progress) -> String {
    let Some(moving) = &progress.current else {
        return String::new();
    };
    let mut line = moving.path.to_string();
    if moving.saved > 0 {
        let share = quantity::percent(moving.saved, moving.saved.saturating_add(moving.literal));
        line += &format!(" · delta saved {} ({share})", quantity::size(moving.saved));
    }
    if moving.resumed > 0 {
        line += &format!(" · resumed at {}", quantity::size(moving.resumed));
    }
    line
}

fn object(progress: &Progress, rate: f64) -> Value {
    let moving = progress.current.as_deref();
    let (saved, literal) = moving.map_or((0, 0), |moving| (moving.saved, moving.literal));
    json!({
        "event": "status",
        "state": "transferring",
        "total_known": progress.total_known,
        "files_found": progress.files_found,
        "files_done": progress.files_done,
        "bytes_found": progress.bytes_found,
        "bytes_done": progress.bytes_done,
        "bytes_per_second": rate as u64,
        "current_saved_bytes": saved,
        "current_saved_percent": quantity::percentage(saved, saved.saturating_add(literal)),
    })
}

/// The rate over the last few seconds.
#[derive(Default)]
struct Meter {
    samples: VecDeque<(Duration, u64)>,
}

/// Long enough to be steady, short enough to notice a change.
const METER_WINDOW: Duration = Duration::from_secs(5);
/// Events come ten times a second at most.
const METER_SAMPLES_MAX: usize = 64;

impl Meter {
    fn observe(&mut self, elapsed: Duration, bytes: u64) {
        self.samples.push_back((elapsed, bytes));
        // One sample older than the window stays, so that there is always a distance to measure.
        while self.samples.len() > METER_SAMPLES_MAX
            || self
                .samples
                .get(1)
                .is_some_and(|(time, _)| elapsed.saturating_sub(*time) > METER_WINDOW)
        {
            self.samples.pop_front();
        }
    }

    fn rate(&self) -> f64 {
        match (self.samples.front(), self.samples.back()) {
            (Some((from, first)), Some((to, last))) => {
                quantity::per_second(last.saturating_sub(*first), to.saturating_sub(*from))
            }
            _ => 0.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::console::capture;
    use super::*;
    use syncline::model::RelPath;
    use syncline::node::Moving;

    const GIB: u64 = 1 << 30;

    fn halfway() -> Progress {
        Progress {
            total_known: true,
            files_found: 9881,
            files_done: 1204,
            bytes_found: 4 * GIB,
            bytes_done: GIB,
            current: Some(Box::new(Moving::new(&RelPath::parse(b"b\n.mkv").unwrap()))),
        }
    }

    #[test]
    fn the_two_lines_look_as_documented_and_a_name_cannot_break_them() {
        let rate = (GIB / 10) as f64;
        assert_eq!(
            headline(&halfway(), rate),
            "25% 1.0/4.0 GiB 102 MiB/s ETA 0:30  1204/9881 files"
        );
        assert_eq!(current(&halfway()), "b\\n.mkv");
        let mut progress = halfway();
        let moving = progress.current.as_mut().unwrap();
        (moving.saved, moving.literal) = (GIB + GIB / 10, GIB / 10);
        assert_eq!(current(&progress), "b\\n.mkv · delta saved 1.1 GiB (91.6 %)");
        progress.current.as_mut().unwrap().resumed = 2 * GIB;
        assert_eq!(
            current(&progress),
            "b\\n.mkv · delta saved 1.1 GiB (91.6 %) · resumed at 2.0 GiB"
        );
        assert_eq!(headline(&halfway(), 0.0), "25% 1.0/4.0 GiB 0 B/s  1204/9881 files");
    }

    #[test]
    fn an_unknown_total_is_never_shown_as_a_percentage() {
        let progress = Progress {
            total_known: false,
            files_found: 12_000,
            ..Progress::default()
        };
        assert_eq!(headline(&progress, 0.0), "scanning… at least 12,000 files  0 B 0 B/s");
    }

    #[test]
    fn percentages_stay_between_0_and_100_whatever_the_counters_say() {
        let mut progress = Progress {
            bytes_done: 7,
            bytes_found: 3,
            ..halfway()
        };
        assert_eq!(percent(&progress), 100);
        progress.bytes_done = u64::MAX - 1;
        progress.bytes_found = u64::MAX;
        assert_eq!(percent(&progress), 99);
        let nothing_travels = Progress {
            files_done: 1,
            files_found: 4,
            ..Progress::default()
        };
        assert_eq!(percent(&nothing_travels), 25);
        assert_eq!(percent(&Progress::default()), 100);
    }

    #[test]
    fn without_a_terminal_there_is_one_line_every_ten_seconds() {
        let (console, _, err) = capture::console(Format::Text, Verbosity::Normal);
        let start = Instant::now();
        let mut display = Display::new(start);
        for tenths in 0..=250 {
            display.handle(&console, &halfway(), start + Duration::from_millis(tenths * 100));
        }
        assert_eq!(err.text().lines().count(), 2, "{}", err.text());
    }

    #[test]
    fn the_rate_follows_the_last_seconds_in_bounded_memory() {
        let mut meter = Meter::default();
        for second in 0..1000u64 {
            let bytes = if second < 900 { 0 } else { (second - 900) * 1000 };
            meter.observe(Duration::from_secs(second), bytes);
        }
        assert!((meter.rate() - 1000.0).abs() < 1e-6, "{}", meter.rate());
        assert!(meter.samples.len() <= METER_SAMPLES_MAX);
    }
}
