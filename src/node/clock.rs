//! Owns the time of day by the wall clock, where this machine is. It never decides by it.
//!
//! The zone is that of the variable `TZ`, else of `/etc/localtime`, else UTC. It is looked up anew each
//! time, so that a machine that travels is followed. Invariant: a minute below [`MINUTES_PER_DAY`].

use crate::model::MINUTES_PER_DAY;
use std::time::{SystemTime, UNIX_EPOCH};
use tz::{LocalTimeType, TimeZone};

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

    /// Rules as they stand in `TZ`, summer time included.
    #[test]
    fn summer_time_is_followed() {
        let zone = TimeZone::from_posix_tz("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        let offset = |seconds| zone.find_local_time_type(seconds).unwrap().ut_offset();
        assert_eq!(offset(1_795_255_140), 3_600);
        assert_eq!(offset(1_782_000_000), 7_200);
    }
}
