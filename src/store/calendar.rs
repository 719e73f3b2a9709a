//! Civil dates for names and lock files, in UTC. Knows no time zones and decides nothing by time.

use std::time::{SystemTime, UNIX_EPOCH};

/// The present as `YYYYMMDD-HHMMSS` in UTC, for the names of conflict copies.
#[must_use]
pub fn stamp_now() -> String {
    Moment::now().compact()
}

/// A second of UTC, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Moment {
    year: u64,
    month: u64,
    day: u64,
    second_of_day: u64,
}

impl Moment {
    /// The present, by the wall clock; a clock before 1970 counts as 1970.
    pub(super) fn now() -> Moment {
        Moment::of(
            SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| since.as_secs()),
        )
    }

    /// Seconds since 1970 as a date (Howard Hinnant, "chrono-compatible low-level date algorithms").
    pub(super) fn of(seconds: u64) -> Moment {
        let days = seconds / 86_400 + 719_468;
        let era = days / 146_097;
        let day_of_era = days % 146_097;
        let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted_month = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
        let month = if shifted_month < 10 {
            shifted_month + 3
        } else {
            shifted_month - 9
        };
        let year = year_of_era + era * 400 + u64::from(month <= 2);
        Moment {
            year,
            month,
            day,
            second_of_day: seconds % 86_400,
        }
    }

    /// `YYYYMMDD-HHMMSS`, for names.
    pub(super) fn compact(self) -> String {
        let Moment {
            year,
            month,
            day,
            second_of_day: second,
        } = self;
        format!(
            "{year:04}{month:02}{day:02}-{:02}{:02}{:02}",
            second / 3_600,
            second / 60 % 60,
            second % 60
        )
    }

    /// The seconds since 1970 that [`compact`](Self::compact) makes this text of; `None` for any other text.
    pub(super) fn parse_compact(text: &str) -> Option<u64> {
        let digits = text.as_bytes();
        if digits.len() != 15 || digits[8] != b'-' {
            return None;
        }
        let number = |range: std::ops::Range<usize>| {
            let part = &digits[range];
            let value = part.iter().map(|digit| u64::from(digit.wrapping_sub(b'0')));
            part.iter()
                .all(u8::is_ascii_digit)
                .then(|| value.fold(0, |sum, digit| sum * 10 + digit))
        };
        let (year, month, day) = (number(0..4)?, number(4..6)?, number(6..8)?);
        let second_of_day = number(9..11)? * 3_600 + number(11..13)? * 60 + number(13..15)?;
        if year < 1970 || !(1..=12).contains(&month) || second_of_day >= 86_400 {
            return None;
        }
        let shifted_year = if month > 2 { year } else { year - 1 };
        let (era, year_of_era) = (shifted_year / 400, shifted_year % 400);
        let shifted_month = if month > 2 { month - 3 } else { month + 9 };
        let day_of_year = (153 * shifted_month + 2) / 5 + day.checked_sub(1)?;
        let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
        let days = (era * 146_097 + day_of_era).checked_sub(719_468)?;
        let seconds = days * 86_400 + second_of_day;
        // A day or time that does not exist comes out as another one.
        (Moment::of(seconds).compact() == text).then_some(seconds)
    }

    /// `YYYY-MM-DD HH:MM:SS UTC`, for people.
    pub(super) fn readable(self) -> String {
        let Moment {
            year,
            month,
            day,
            second_of_day: second,
        } = self;
        format!(
            "{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02} UTC",
            second / 3_600,
            second / 60 % 60,
            second % 60
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_right_around_leap_days_and_centuries() {
        assert_eq!(Moment::of(0).compact(), "19700101-000000");
        assert_eq!(Moment::of(951_782_399).readable(), "2000-02-28 23:59:59 UTC");
        assert_eq!(Moment::of(951_782_400).compact(), "20000229-000000");
        assert_eq!(Moment::of(1_795_211_251).compact(), "20261120-214731");
        assert_eq!(Moment::of(4_107_542_400).compact(), "21000301-000000");
    }

    #[test]
    fn a_compact_date_is_read_back_and_no_other_text() {
        for seconds in [
            0,
            951_782_399,
            951_782_400,
            1_795_211_251,
            4_107_542_400,
            253_402_300_799,
        ] {
            assert_eq!(Moment::parse_compact(&Moment::of(seconds).compact()), Some(seconds));
        }
        for text in [
            "",
            "20260229-000000",
            "20261301-000000",
            "20261100-000000",
            "19691231-235959",
            "20261120-240000",
            "20261120-006000",
            "2026112 -000000",
            "20261120 000000",
        ] {
            assert_eq!(Moment::parse_compact(text), None, "{text}");
        }
    }
}
