//! Owns timetables of a limit: which one holds at which minute of a day. It knows no clock and no time zone.
//!
//! Invariant: entries are sorted, each minute at most once; at every minute exactly one holds, the last one
//! before it, or after midnight the last of the day before.

/// Minutes of a day.
pub const MINUTES_PER_DAY: u16 = 24 * 60;

/// A limit of bytes a second that may change over the day. `None` is no limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timetable {
    entries: Vec<(u16, Option<u64>)>,
}

/// What is no timetable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TimetableError {
    /// It has no entry, and so says nothing.
    #[error("a timetable needs an entry")]
    Empty,
    /// Two entries begin at one minute.
    #[error("two entries begin at {:02}:{:02}", minute / 60, minute % 60)]
    Twice {
        /// Which, of the day.
        minute: u16,
    },
    /// A day has fewer minutes.
    #[error("{minute} is no minute of a day")]
    NoSuchMinute {
        /// Which.
        minute: u16,
    },
}

impl Timetable {
    /// The same limit all day.
    #[must_use]
    pub fn always(limit: Option<u64>) -> Timetable {
        Timetable {
            entries: vec![(0, limit)],
        }
    }

    /// Limits and the minutes of the day (below [`MINUTES_PER_DAY`]) from which on they hold, in any order.
    /// What holds at midnight is the last entry, unless one begins there.
    ///
    /// # Errors
    /// [`TimetableError`] when there is no entry, two for one minute, or one for no minute.
    pub fn new(mut entries: Vec<(u16, Option<u64>)>) -> Result<Timetable, TimetableError> {
        entries.sort_unstable_by_key(|(minute, _)| *minute);
        let (Some(_), Some((minute, _))) = (entries.first(), entries.last()) else {
            return Err(TimetableError::Empty);
        };
        if *minute >= MINUTES_PER_DAY {
            return Err(TimetableError::NoSuchMinute { minute: *minute });
        }
        if let Some(twice) = entries.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return Err(TimetableError::Twice { minute: twice[0].0 });
        }
        // An entry that changes nothing is none. The first one is compared with the last, which it follows.
        let all = entries.clone();
        let before = |index: usize| all[(index + all.len() - 1) % all.len()].1;
        let mut index = 0;
        entries.retain(|(_, limit)| {
            index += 1;
            *limit != before(index - 1)
        });
        if entries.is_empty() {
            return Ok(Timetable::always(all[0].1));
        }
        Ok(Timetable { entries })
    }

    /// The limit in bytes a second at a minute of the day.
    #[must_use]
    pub fn limit_at(&self, minute: u16) -> Option<u64> {
        let behind = self.entries.partition_point(|(begin, _)| *begin <= minute);
        let last = behind.checked_sub(1).unwrap_or(self.entries.len() - 1);
        self.entries[last].1
    }

    /// Minutes from `minute` until another limit holds, 1 to [`MINUTES_PER_DAY`]; `None` when none ever does.
    #[must_use]
    pub fn next_change(&self, minute: u16) -> Option<u16> {
        if self.is_constant() {
            return None;
        }
        let behind = self.entries.partition_point(|(begin, _)| *begin <= minute);
        let (begin, wrapped) = match self.entries.get(behind) {
            Some((begin, _)) => (*begin, 0),
            None => (self.entries[0].0, MINUTES_PER_DAY),
        };
        Some(begin + wrapped - minute)
    }

    /// Whether one limit holds all day.
    #[must_use]
    pub fn is_constant(&self) -> bool {
        self.entries.len() == 1
    }
}

impl Default for Timetable {
    /// No limit.
    fn default() -> Timetable {
        Timetable::always(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const K: u64 = 1024;

    fn working_hours() -> Timetable {
        Timetable::new(vec![(18 * 60, None), (8 * 60, Some(512 * K))]).unwrap()
    }

    /// Entries may come in any order, and what begins in the evening holds until the morning.
    #[test]
    fn the_last_entry_holds_over_midnight() {
        let table = working_hours();
        for (time, limit) in [
            ((0, 0), None),
            ((7, 59), None),
            ((8, 0), Some(512 * K)),
            ((17, 59), Some(512 * K)),
            ((18, 0), None),
            ((23, 59), None),
        ] {
            assert_eq!(table.limit_at(time.0 * 60 + time.1), limit, "{time:?}");
        }
    }

    #[test]
    fn the_next_change_is_found_across_midnight() {
        let table = working_hours();
        assert_eq!(table.next_change(7 * 60 + 59), Some(1));
        assert_eq!(table.next_change(8 * 60), Some(10 * 60));
        assert_eq!(table.next_change(18 * 60), Some(14 * 60));
        assert_eq!(table.next_change(23 * 60 + 59), Some(8 * 60 + 1));
        assert_eq!(Timetable::always(Some(1)).next_change(0), None);
        assert_eq!(Timetable::default().limit_at(0), None);
    }

    /// Following the changes, one sees every limit that the day has, minute by minute.
    #[test]
    fn the_changes_of_a_day_are_those_of_its_minutes() {
        let tables = [
            vec![(0, Some(1))],
            vec![(0, Some(1)), (1439, None)],
            vec![(5, Some(1)), (10, Some(1)), (20, Some(2)), (30, None), (40, None)],
            vec![(300, Some(3)), (700, Some(4)), (701, Some(5)), (702, Some(3))],
        ];
        for entries in tables {
            let table = Timetable::new(entries.clone()).unwrap();
            for minute in 0..MINUTES_PER_DAY {
                let held = table.limit_at(minute);
                let changed =
                    (1..=MINUTES_PER_DAY).find(|after| table.limit_at((minute + after) % MINUTES_PER_DAY) != held);
                assert_eq!(table.next_change(minute), changed, "{entries:?} at {minute}");
            }
        }
    }

    #[test]
    fn what_is_no_timetable_is_named() {
        assert_eq!(Timetable::new(Vec::new()), Err(TimetableError::Empty));
        let twice = Timetable::new(vec![(480, None), (480, Some(1))]);
        assert_eq!(twice, Err(TimetableError::Twice { minute: 480 }));
        assert_eq!(twice.unwrap_err().to_string(), "two entries begin at 08:00");
        let beyond = Timetable::new(vec![(MINUTES_PER_DAY, None)]);
        assert_eq!(
            beyond,
            Err(TimetableError::NoSuchMinute {
                minute: MINUTES_PER_DAY
            })
        );
    }
}
