//! Quantities as people write and read them: sizes, rates, durations, percentages.
//! Never guesses: text that is not clearly a quantity is refused with an example of one that is.
//!
//! Sizes are binary throughout: `5M` is 5 MiB, as in rsync. What is printed is rounded, what is
//! parsed is exact.

use std::time::Duration;
use syncline::node::MaxDelete;
use syncline::store::{Retention, SizeBound};

const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

/// `1.0 KiB`, `84 MiB`: one decimal below ten, none above.
pub(crate) fn size(bytes: u64) -> String {
    let unit = unit_of(bytes);
    format!("{} {}", in_unit(bytes, unit), UNITS[unit])
}

/// `3.2/5.2 GiB`: two sizes in the unit of the second.
pub(crate) fn size_of(done: u64, total: u64) -> String {
    let unit = unit_of(total);
    format!("{}/{} {}", in_unit(done, unit), in_unit(total, unit), UNITS[unit])
}

/// `84 MiB/s`.
pub(crate) fn rate(bytes_per_second: f64) -> String {
    // Saturates, and NaN becomes 0: an odd clock must not break a report.
    format!("{}/s", size(bytes_per_second as u64))
}

/// The rate of `bytes` in `elapsed`; 0 when no time has passed.
pub(crate) fn per_second(bytes: u64, elapsed: Duration) -> f64 {
    if elapsed.is_zero() {
        0.0
    } else {
        bytes as f64 / elapsed.as_secs_f64()
    }
}

fn unit_of(bytes: u64) -> usize {
    let mut unit = 0;
    // 1023.95 and more would be shown as 1024, so it takes the next unit.
    while unit + 1 < UNITS.len() && bytes as f64 / scale(unit) >= 1023.5 {
        unit += 1;
    }
    unit
}

fn in_unit(bytes: u64, unit: usize) -> String {
    let value = bytes as f64 / scale(unit);
    if unit == 0 || value >= 9.95 {
        format!("{value:.0}")
    } else {
        format!("{value:.1}")
    }
}

fn scale(unit: usize) -> f64 {
    (1u64 << (10 * unit)) as f64
}

/// `99.9 %`: rounded down, so that only all is 100.
pub(crate) fn percent(part: u64, whole: u64) -> String {
    match thousandths(part, whole) {
        1000 => "100 %".to_owned(),
        thousandths => format!("{}.{} %", thousandths / 10, thousandths % 10),
    }
}

/// The same as a number, 0 to 100.
pub(crate) fn percentage(part: u64, whole: u64) -> f64 {
    f64::from(thousandths(part, whole)) / 10.0
}

/// At most 1,000.
fn thousandths(part: u64, whole: u64) -> u16 {
    let thousandths = u128::from(part) * 1000 / u128::from(whole.max(1));
    u16::try_from(thousandths.min(1000)).unwrap_or(1000)
}

/// `12,000`.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 file`, `12,000 files`, `2 entries`: a count with its noun, which is no irregular one.
pub(crate) fn counted(number: u64, noun: &str) -> String {
    let shown = count(number);
    match (number, noun.strip_suffix('y')) {
        (1, _) => format!("{shown} {noun}"),
        (_, Some(stem)) if !stem.ends_with(['a', 'e', 'o', 'u']) => format!("{shown} {stem}ies"),
        _ => format!("{shown} {noun}s"),
    }
}

/// `0.12 s`, `31 s`, `2 min 5 s`, `1 h 3 min`, `4 d 2 h`.
pub(crate) fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0 => format!("{:.2} s", time.as_secs_f64()),
        1..=9 => format!("{:.1} s", time.as_secs_f64()),
        10..=59 => format!("{seconds} s"),
        60..=3599 => two_units(seconds / 60, "min", seconds % 60, "s"),
        3600..=86_399 => two_units(seconds / 3600, "h", seconds / 60 % 60, "min"),
        _ => two_units(seconds / 86_400, "d", seconds / 3600 % 24, "h"),
    }
}

fn two_units(large: u64, large_unit: &str, small: u64, small_unit: &str) -> String {
    if small == 0 {
        format!("{large} {large_unit}")
    } else {
        format!("{large} {large_unit} {small} {small_unit}")
    }
}

/// `0:24`, `1:02:03`: for a time that still counts down.
pub(crate) fn countdown(time: Duration) -> String {
    let seconds = time.as_secs();
    let (hours, minutes, rest) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 {
        format!("{hours}:{minutes:02}:{rest:02}")
    } else {
        format!("{minutes}:{rest:02}")
    }
}

/// Bytes a second; 0 is "no limit".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rate(u64);

impl Rate {
    /// The limit, `None` for none.
    pub(crate) fn limit(self) -> Option<u64> {
        (self.0 > 0).then_some(self.0)
    }

    /// Parses `5M`, `512k`, `1.5 GiB`, `300000`.
    pub(crate) fn parse(text: &str) -> Result<Rate, String> {
        let help = || format!("{text:?} is not a rate; write bytes a second as 300000, 512k, 5M or 1.5G");
        let (number, unit) = split_number(text).ok_or_else(help)?;
        let unit = unit.strip_suffix("/s").unwrap_or(unit).trim_end().to_ascii_lowercase();
        let power = match unit.as_str() {
            "" | "b" => 0,
            "k" | "kb" | "ki" | "kib" => 1,
            "m" | "mb" | "mi" | "mib" => 2,
            "g" | "gb" | "gi" | "gib" => 3,
            "t" | "tb" | "ti" | "tib" => 4,
            _ => return Err(help()),
        };
        let bytes = number * scale(power);
        // Above this no f64 is exact any more, and no link is that fast.
        if bytes > 9e15 {
            return Err(help());
        }
        if number > 0.0 && bytes < 1.0 {
            return Err(help());
        }
        Ok(Rate(bytes as u64))
    }
}

/// Parses `30`, `30s`, `10m`, `2h`, `1d`, `500ms`; a bare number is seconds. Never zero.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let help = || format!("{text:?} is not a duration; write 30s, 10m, 2h or 1d");
    let (number, unit) = split_number(text).ok_or_else(help)?;
    let seconds = match unit.to_ascii_lowercase().as_str() {
        "" | "s" | "sec" => number,
        "ms" => number / 1000.0,
        "m" | "min" => number * 60.0,
        "h" => number * 3600.0,
        "d" => number * 86_400.0,
        _ => return Err(help()),
    };
    // A hundred years: far beyond any use, far below what timers overflow at.
    if !(0.001..=3.2e9).contains(&seconds) {
        return Err(help());
    }
    Ok(Duration::from_secs_f64(seconds))
}

/// Parses `100`, `25%`, `unlimited`.
pub(crate) fn parse_max_delete(text: &str) -> Result<MaxDelete, String> {
    let help = || format!("{text:?} is not a limit; write a number as 100, a share as 25%, or unlimited");
    if text.eq_ignore_ascii_case("unlimited") {
        return Ok(MaxDelete::Unlimited);
    }
    if !text.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(help());
    }
    match text.strip_suffix('%') {
        Some(number) => match number.parse::<u8>() {
            Ok(percent) if percent <= 100 => Ok(MaxDelete::Percent(percent)),
            _ => Err(help()),
        },
        None => text.parse().map(MaxDelete::Count).map_err(|_| help()),
    }
}

/// How long versions are kept; `None`: not at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KeepVersions(pub(crate) Option<Retention>);

/// Parses `30d`, `10%`, `20G`, `30d,10%`, `forever`, `off`. An age has a unit, so that `30` means nothing.
pub(crate) fn parse_keep_versions(text: &str) -> Result<KeepVersions, String> {
    let help = || format!("{text:?} does not say what to keep; write 30d, 10%, 20G, both as 30d,10%, forever or off");
    let mut retention = Retention { age: None, size: None };
    match text.trim().to_ascii_lowercase().as_str() {
        "off" => return Ok(KeepVersions(None)),
        "forever" => return Ok(KeepVersions(Some(retention))),
        _ => {}
    }
    for part in text.split(',') {
        let (_, unit) = split_number(part).ok_or_else(help)?;
        if unit == "%" {
            let percent = part.trim().trim_end_matches('%').trim_end().parse();
            let percent = percent
                .ok()
                .filter(|percent| (1..=100).contains(percent))
                .ok_or_else(help)?;
            if retention.size.replace(SizeBound::Percent(percent)).is_some() {
                return Err(help());
            }
            continue;
        }
        let age = parse_duration(part).ok().filter(|_| !unit.is_empty() && unit != "M");
        let before = match age {
            Some(age) => retention.age.replace(age).is_some(),
            None => {
                let bytes = Rate::parse(part)
                    .ok()
                    .filter(|_| !unit.is_empty())
                    .and_then(Rate::limit);
                let bytes = SizeBound::Bytes(bytes.ok_or_else(help)?);
                retention.size.replace(bytes).is_some()
            }
        };
        if before {
            return Err(help());
        }
    }
    Ok(KeepVersions(Some(retention)))
}

/// As [`parse_keep_versions`], where something has to be kept.
#[cfg(feature = "sync")]
pub(crate) fn parse_retention(text: &str) -> Result<Retention, String> {
    let kept = parse_keep_versions(text)?.0;
    kept.ok_or_else(|| "a synced folder always keeps what it replaces for a while; write 1h, say".to_owned())
}

/// A decimal number without a sign or exponent, and what follows it.
fn split_number(text: &str) -> Option<(f64, &str)> {
    let text = text.trim();
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    if !number.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    Some((number.parse().ok()?, unit.trim_start()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_are_never_rounded_up_to_all() {
        let cases = [
            (0, 0, "0.0 %"),
            (1, 3, "33.3 %"),
            (u64::MAX - 1, u64::MAX, "99.9 %"),
            (7, 7, "100 %"),
        ];
        for (part, whole, text) in cases {
            assert_eq!(percent(part, whole), text);
        }
    }

    #[test]
    fn sizes_keep_two_digits_and_never_show_1024_of_a_unit() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (10_200, "10 KiB"),
            (84 << 20, "84 MiB"),
            ((1 << 20) - 1, "1.0 MiB"),
            (5_583_457_485, "5.2 GiB"),
            (u64::MAX, "16384 PiB"),
        ] {
            assert_eq!(size(bytes), text, "{bytes}");
        }
        assert_eq!(size_of(3_435_973_837, 5_583_457_485), "3.2/5.2 GiB");
        assert_eq!(size_of(0, 0), "0/0 B");
        assert_eq!(rate(f64::NAN), "0 B/s");
        assert_eq!(rate(per_second(10, Duration::ZERO)), "0 B/s");
    }

    #[test]
    fn counts_are_grouped() {
        assert_eq!(
            ["0", "999", "1,000", "12,000", "1,234,567"],
            [0, 999, 1000, 12_000, 1_234_567]
                .map(count)
                .each_ref()
                .map(String::as_str)
        );
        assert_eq!(counted(1, "file"), "1 file");
        assert_eq!(counted(0, "file"), "0 files");
    }

    #[test]
    fn durations_read_well_at_every_scale() {
        for (ms, text) in [
            (120, "0.12 s"),
            (1_500, "1.5 s"),
            (31_000, "31 s"),
            (125_000, "2 min 5 s"),
            (3_780_000, "1 h 3 min"),
            (7_200_000, "2 h"),
            (352_800_000, "4 d 2 h"),
        ] {
            assert_eq!(duration(Duration::from_millis(ms)), text);
        }
        assert_eq!(countdown(Duration::from_secs(24)), "0:24");
        assert_eq!(countdown(Duration::from_secs(3723)), "1:02:03");
    }

    #[test]
    fn rates_take_every_usual_spelling_and_nothing_else() {
        for (text, bytes) in [
            ("5M", 5 << 20),
            ("5MiB/s", 5 << 20),
            ("512k", 512 << 10),
            ("512KB", 512 << 10),
            ("1.5 G", 3 << 29),
            ("300000", 300_000),
            ("7b", 7),
            ("1Ti", 1 << 40),
        ] {
            assert_eq!(Rate::parse(text).unwrap().limit(), Some(bytes), "{text}");
        }
        assert_eq!(Rate::parse("0").unwrap().limit(), None);
        for bad in [
            "",
            "M",
            "-5M",
            "5X",
            "1e9",
            "5MM",
            "0.1",
            "99999999T",
            "1.2.3M",
            "inf",
            "NaN",
        ] {
            assert!(Rate::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn durations_parse_with_and_without_a_unit() {
        for (text, ms) in [
            ("30", 30_000),
            ("30s", 30_000),
            ("10m", 600_000),
            ("2h", 7_200_000),
            ("1d", 86_400_000),
            ("500ms", 500),
        ] {
            assert_eq!(parse_duration(text).unwrap(), Duration::from_millis(ms), "{text}");
        }
        for bad in ["", "0", "m", "10x", "-1s", "99999999d"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_kept_has_an_age_and_a_size_or_one_of_them() {
        let day = Duration::from_secs(86_400);
        for (text, age, size) in [
            ("30d,10%", Some(30 * day), Some(SizeBound::Percent(10))),
            ("10 %, 30d", Some(30 * day), Some(SizeBound::Percent(10))),
            ("12h", Some(day / 2), None),
            ("20G", None, Some(SizeBound::Bytes(20 << 30))),
            ("500M,7d", Some(7 * day), Some(SizeBound::Bytes(500 << 20))),
            ("forever", None, None),
        ] {
            let kept = parse_keep_versions(text).unwrap().0.unwrap();
            assert_eq!((kept.age, kept.size), (age, size), "{text}");
        }
        assert_eq!(parse_keep_versions("off"), Ok(KeepVersions(None)));
        for bad in [
            "", "30", "0%", "101%", "1.5%", "30d,7d", "1G,2%", "0d", "x", "30d,", "-1d",
        ] {
            assert!(parse_keep_versions(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_deletion_brake_is_a_number_a_percentage_or_off() {
        assert_eq!(parse_max_delete("100"), Ok(MaxDelete::Count(100)));
        assert_eq!(parse_max_delete("25%"), Ok(MaxDelete::Percent(25)));
        assert_eq!(parse_max_delete("unlimited"), Ok(MaxDelete::Unlimited));
        for bad in ["", "101%", "-1", "+5", "x", "%", "5 %"] {
            assert!(parse_max_delete(bad).is_err(), "{bad}");
        }
    }

    const ANY_TEXT: &str = "[0-9.,:=%+-]{0,24} ?[a-zA-Z%/]{0,5}(,[0-9]{1,4}[dDhGM%])?|\\PC{0,12}";

    proptest::proptest! {
        // What people type is a quantity within its bounds, or is refused with a sentence.
        #[test]
        fn row_01_any_text_is_a_quantity_or_refused(text in ANY_TEXT) {
            if let Ok(rate) = Rate::parse(&text) {
                assert!(rate.0 <= 9_000_000_000_000_000);
            }
            if let Ok(duration) = parse_duration(&text) {
                assert!((1..=3_200_000_000_000).contains(&duration.as_millis()), "{text:?}");
            }
            if let Ok(MaxDelete::Percent(percent)) = parse_max_delete(&text) {
                assert!(percent <= 100);
            }
            match parse_keep_versions(&text) {
                Ok(KeepVersions(Some(kept))) => match kept.size {
                    Some(SizeBound::Percent(percent)) => assert!((1..=100).contains(&percent)),
                    Some(SizeBound::Bytes(bytes)) => assert!(bytes > 0),
                    None => {}
                },
                Ok(KeepVersions(None)) => {}
                Err(refused) => assert!(!refused.is_empty()),
            }
        }
    }
}
