//! What must hold for any bytes at all on a disk; see `bodies.rs`. Most of the decoders are reached by way of
//! `store::rewriting`, which compares what was read with what is read of it when it was written again.
//!
//! Sums keep a fuzzer from all that is behind them, so what has sums is tried as it stands and with right ones.

use std::ops::Range;
use std::sync::OnceLock;
use syncline::model::{DeviceId, RelPath, ShareName, conflict_names, conflict_path};
use syncline::node::LocalClock;
use syncline::store::{ActivityPath, ActivityQuery, TransferId, VersionName, rewriting};

/// An undo record of a file that is changed in place.
pub fn undo(data: &[u8]) {
    settles(rewriting::undo_record, data);
    let mut record = data.to_vec();
    seal_undo(&mut record);
    settles(rewriting::undo_record, &record);
}

/// A journal: whole, salvaged, and its records one by one.
pub fn journal(data: &[u8]) {
    settles(rewriting::journal, data);
    let mut journal = data.to_vec();
    for record in seal_journal(&mut journal) {
        let bytes = &journal[record];
        if let Some(again) = rewriting::journal_record(bytes) {
            assert_eq!(again, bytes);
        }
    }
    settles(rewriting::journal, &journal);
}

/// What was read is written in a form that stays the same.
fn settles(rewritten: fn(&[u8]) -> Option<Vec<u8>>, data: &[u8]) {
    if let Some(again) = rewritten(data) {
        assert!(again.len() <= 2 * data.len());
        assert_eq!(rewritten(&again), Some(again));
    }
}

/// A segment of shadows: its records lie within it, one behind the other.
pub fn shadows(data: &[u8]) {
    let mut segment = data.to_vec();
    for _ in 0..2 {
        if let Some((records, tail)) = rewriting::shadow_segment(&segment) {
            assert!(tail <= segment.len() as u64);
            let ends = records.iter().map(|(length, offset)| offset + length);
            assert!(ends.clone().all(|end| end < tail) && ends.is_sorted());
        }
        seal_shadows(&mut segment);
    }
}

/// The files of a state directory that are JSON: whom it trusts, which server runs.
pub fn state(data: &[u8]) {
    match rewriting::trust(data) {
        Err(reason) => assert!(!reason.is_empty()),
        Ok(again) => assert_eq!(rewriting::trust(&again), Ok(again)),
    }
    if let Some(again) = rewriting::run_file(data) {
        assert_eq!(rewriting::run_file(&again), Some(again));
    }
}

/// Lines of an activity log, and behind the last one what is looked for in them.
pub fn activity(data: &[u8]) {
    let mut lines: Vec<&[u8]> = data.split(|&byte| byte == b'\n').collect();
    let asked = lines.pop().unwrap_or_default();
    let path = match ActivityPath::parse(asked) {
        Ok(path) => Some(path),
        Err(error) => {
            assert!(!error.to_string().is_empty());
            None
        }
    };
    let query = ActivityQuery {
        path,
        who: String::from_utf8(asked.to_vec()).ok(),
        ..ActivityQuery::default()
    };
    for line in lines {
        let Some(entry) = rewriting::activity_line(line) else {
            continue;
        };
        assert_eq!(entry.text().as_bytes(), line);
        assert!(entry.number("at_ms") == Some(entry.at_ms()) && entry.field("event") == Some(entry.event()));
        assert_eq!(query.wants(&entry), query.wants(&entry));
        assert!(ActivityQuery::default().wants(&entry));
    }
}

/// A `.synclineignore`, and a path behind its last line: the rules that count decide by themselves as they do in
/// the file.
pub fn ignore(data: &[u8]) {
    let Some((&cut, data)) = data.split_first() else {
        return;
    };
    let end = data.iter().rposition(|&byte| byte == b'\n').unwrap_or(data.len());
    let path = data.get(end + 1..).unwrap_or_default();
    let (rules, decided) = rewriting::ignore_rules(&data[..end], cut % 2 == 1, path);
    assert!(rules.len() <= 2 * data.len() + 4);
    assert_eq!(rewriting::ignore_rules(&rules, false, path), (rules, decided));
}

/// Names that mean something: of versions, staged files, devices, shares, conflict copies, and dates.
pub fn names(data: &[u8]) {
    if let Some(name) = VersionName::parse(data) {
        assert_eq!(name.to_string().as_bytes(), data);
        assert!(name.id().len() == 8 && !name.kept_at().readable().is_empty());
    }
    if let Ok(path) = RelPath::parse(data) {
        for read in conflict_names(&path) {
            assert!(read.of.as_bytes().len() < data.len());
            // An author that had to be escaped would be escaped once more.
            let is_plain = !read.author.contains('\\');
            if let Some(again) = conflict_path(&read.of, &read.stamp, &read.author, 1).filter(|_| is_plain) {
                let mut readings = conflict_names(&again).into_iter();
                assert!(
                    readings.any(|name| (&name.stamp, &name.author) == (&read.stamp, &read.author)),
                    "{read:?} {again}"
                );
            }
        }
    }
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Some(id) = TransferId::parse(text) {
        assert_eq!(id.to_string(), text);
    }
    if let Ok(id) = text.parse::<DeviceId>() {
        assert_eq!(id.to_string().parse(), Ok(id));
    }
    if let Ok(name) = ShareName::parse(text) {
        assert_eq!(name.as_str(), text);
    }
    static CLOCK: OnceLock<LocalClock> = OnceLock::new();
    let clock = CLOCK.get_or_init(LocalClock::here);
    if let Some(at_ms) = clock.parse_ms(text) {
        assert!(at_ms % 1000 == 0 && !clock.text(at_ms).contains('?'));
    }
}

/// Puts the sum of a part to its place, where there is one.
fn seal(bytes: &mut [u8], part: Range<usize>, place: usize) {
    let Some(sum) = bytes.get(part).map(crc32fast::hash) else {
        return;
    };
    if let Some(there) = bytes.get_mut(place..place + 4) {
        there.copy_from_slice(&sum.to_le_bytes());
    }
}

fn number_at(bytes: &[u8], at: usize) -> usize {
    let number = bytes.get(at..).and_then(|rest| rest.first_chunk());
    number.map_or(0, |number| u32::from_le_bytes(*number) as usize)
}

/// Header, ranges and the end of an undo record, as far as its lengths lead.
fn seal_undo(record: &mut [u8]) {
    let mut at = 68 + number_at(record, 12);
    seal(record, 0..at, at);
    at += 4;
    while at + 20 <= record.len() {
        if record[at..at + 8] == [0xff; 8] {
            return seal(record, 0..at + 16, at + 16);
        }
        let stored = match number_at(record, at + 12) {
            0 => 0,
            _ => number_at(record, at + 8),
        };
        let mut sum = crc32fast::Hasher::new();
        sum.update(&record[at..at + 16]);
        sum.update(record.get(at + 20..at + 20 + stored).unwrap_or_default());
        record[at + 16..at + 20].copy_from_slice(&sum.finalize().to_le_bytes());
        at += 20 + stored;
    }
}

/// The header of a journal, and its records one behind the other. Says where these are.
fn seal_journal(journal: &mut [u8]) -> Vec<Range<usize>> {
    seal(journal, 0..40, 40);
    let (mut at, mut records) = (44, Vec::new());
    while at + 2 <= journal.len() {
        let length = usize::from(u16::from_le_bytes([journal[at], journal[at + 1]]));
        if length < 27 || at + length > journal.len() {
            break;
        }
        seal(journal, at..at + length - 4, at + length - 4);
        records.push(at..at + length);
        at += length;
    }
    records
}

/// The header of a segment, and those and the trailers of its records, as far as their lengths lead. Each is bound
/// to the number of the segment and to its place.
fn seal_shadows(segment: &mut [u8]) {
    seal(segment, 0..20, 20);
    let nonce: Option<[u8; 8]> = segment.get(8..16).and_then(|nonce| nonce.try_into().ok());
    let mut at = 24;
    while let (Some(nonce), true) = (nonce, at + 12 <= segment.len()) {
        let bound = |bytes: &mut [u8], offset: usize| {
            let (fields, sum) = bytes.split_at_mut(bytes.len() - 4);
            let bound = [&nonce[..], &(offset as u64).to_le_bytes(), fields].concat();
            sum.copy_from_slice(&crc32fast::hash(&bound).to_le_bytes());
        };
        let length = number_at(segment, at + 4);
        bound(&mut segment[at..at + 12], at);
        if let Some(trailer) = segment.get_mut(at + 12 + length..at + 52 + length) {
            bound(trailer, at + length);
        }
        at += 52 + length;
    }
}
