//! Owns the date and time of day by the wall clock, where this machine is. It never decides by it.
//!
//! The zone is that of the variable `TZ`, else of `/etc/localtime`, else UTC. It is looked up anew each
//! time, so that a machine that travels is followed. Invariant: a minute below [`MINUTES_PER_DAY`].

use crate::model::MINUTES_PER_DAY;
use std::time::{SystemTime, UNIX_EPOCH};
use tz::{LocalTimeType, TimeZone, UtcDateTime};

const DAY_SECONDS: i64 = 24 * 3600;

/// The minute of the day, and milliseconds until the next one begins.
pub(super) fn minute_of_day() -> (u16, u64) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = i64::try_from(now.as_secs()).unwrap_or(0);
    let zone = zone();
    let offset = zone.as_ref().and_then(|zone| zone.find_local_time_type(seconds).ok());
    let minute = minute_at(seconds, offset.map_or(0, LocalTimeType::ut_offset));
    let gone = (now.as_secs() % 60) * 1000 + u64::from(now.subsec_millis());
    (minute, 60_000 - gone)
}

/// The minute of the day where clocks are `offset` seconds ahead of UTC.
fn minute_at(seconds: i64, offset: i32) -> u16 {
    let of_day = (seconds + i64::from(offset)).rem_euclid(DAY_SECONDS);
    u16::try_from(of_day / 60).unwrap_or(0) % MINUTES_PER_DAY
}

/// Dates as they are read and written at this place.
#[derive(Debug)]
pub struct LocalClock(Option<TimeZone>);

impl LocalClock {
    /// That of this machine.
    #[must_use]
    pub fn here() -> LocalClock {
        LocalClock(zone())
    }

    /// How far clocks here are ahead of UTC, in seconds.
    fn offset(&self, seconds: i64) -> i64 {
        let offset = self.0.as_ref().and_then(|zone| zone.find_local_time_type(seconds).ok());
        i64::from(offset.map_or(0, LocalTimeType::ut_offset))
    }

    /// Milliseconds since 1970 as `2026-11-20 21:47:31`.
    #[must_use]
    pub fn text(&self, at_ms: u64) -> String {
        let seconds = i64::try_from(at_ms / 1000).unwrap_or(i64::MAX / 2);
        match UtcDateTime::from_timespec(seconds.saturating_add(self.offset(seconds)), 0) {
            Ok(at) => format!(
                "{:04}-{:02}-{:02} {:02}:{:02}:{:02}",
                at.year(),
                at.month(),
                at.month_day(),
                at.hour(),
                at.minute(),
                at.second()
            ),
            Err(_) => "????-??-?? ??:??:??".to_owned(),
        }
    }

    /// Reads `2026-11-20`, `2026-11-20 21:47` or `2026-11-20 21:47:31`, also with a `T` in between. Returns
    /// milliseconds since 1970.
    #[must_use]
    pub fn parse_ms(&self, text: &str) -> Option<u64> {
        let (date, time) = text.split_once([' ', 'T']).unwrap_or((text, "00:00"));
        let number = |text: &str, digits: usize| {
            let is_number = text.len() == digits && text.bytes().all(|byte| byte.is_ascii_digit());
            is_number.then(|| text.parse::<u16>().ok()).flatten()
        };
        let byte = |text: &str| number(text, 2).and_then(|number| u8::try_from(number).ok());
        let (mut date, mut time) = (date.split('-'), time.split(':'));
        let year = number(date.next()?, 4)?;
        let (month, day) = (byte(date.next()?)?, byte(date.next()?)?);
        let (hour, minute) = (byte(time.next()?)?, byte(time.next()?)?);
        let second = byte(time.next().unwrap_or("00"))?;
        if date.next().is_some() || time.next().is_some() {
            return None;
        }
        let there = UtcDateTime::new(year.into(), month, day, hour, minute, second, 0).ok()?;
        let there = there.unix_time();
        let guess = there - self.offset(there);
        u64::try_from(there - self.offset(guess)).ok()?.checked_mul(1000)
    }
}

fn zone() -> Option<TimeZone> {
    let named = std::env::var("TZ").ok().filter(|name| !name.is_empty());
    let zone = match &named {
        Some(name) => TimeZone::from_posix_tz(name),
        None => TimeZone::local(),
    };
    zone.inspect_err(|error| log::debug!("the time zone is not known, so it is UTC: {error}"))
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_minute_is_that_of_the_place() {
        assert_eq!(minute_at(0, 0), 0);
        assert_eq!(minute_at(0, -3600), 23 * 60);
        assert_eq!(minute_at(1_795_255_140, 0), 9 * 60 + 59, "2026-11-21 09:59 UTC");
        assert_eq!(minute_at(1_795_255_140, 19_800), 15 * 60 + 29, "India");
        let (minute, rest_ms) = minute_of_day();
        assert!(minute < MINUTES_PER_DAY && (1..=60_000).contains(&rest_ms));
    }

    // Protects whoever reads and asks by the clock on the wall: what is shown is what is meant.
    #[test]
    fn dates_are_those_of_the_place_both_ways() {
        let zone = TimeZone::from_posix_tz("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        let (here, utc) = (LocalClock(Some(zone)), LocalClock(None));
        assert_eq!(utc.text(1_795_211_251_999), "2026-11-20 21:47:31");
        assert_eq!(here.text(1_795_211_251_000), "2026-11-20 22:47:31");
        assert_eq!(here.text(1_782_000_000_000), "2026-06-21 02:00:00");
        for clock in [&here, &utc] {
            for at_ms in [0, 1_782_000_000_000, 1_795_211_251_000] {
                assert_eq!(clock.parse_ms(&clock.text(at_ms)), Some(at_ms));
            }
        }
        assert_eq!(utc.parse_ms("2026-11-20"), Some(1_795_132_800_000));
        assert_eq!(here.parse_ms("2026-06-21T02:00"), Some(1_782_000_000_000));
        for text in [
            "",
            "2026-11",
            "2026-13-01",
            "2026-11-31",
            "2026-11-20 24:00",
            "26-11-20",
            "2026-11-20 1:00",
            "2h",
        ] {
            assert_eq!(utc.parse_ms(text), None, "{text}");
        }
        assert!(utc.text(u64::MAX).starts_with('?'));
    }

    /// Rules as they stand in `TZ`, summer time included.
    #[test]
    fn summer_time_is_followed() {
        let zone = TimeZone::from_posix_tz("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        let offset = |seconds| zone.find_local_time_type(seconds).unwrap().ut_offset();
        assert_eq!(offset(1_795_255_140), 3_600);
        assert_eq!(offset(1_782_000_000), 7_200);
    }
}
