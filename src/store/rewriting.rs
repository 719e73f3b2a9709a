//! What lies on disk and only this room can read, read and written again: for tests that give its decoders any
//! bytes (`fuzz/` and `tests/mutation.rs`).
//!
//! Owns no form; no part of the public interface. Invariant: `None` exactly where the decoder refuses. Each
//! function panics when what was written is read as something else.

use super::activity::ActivityEntry;
use super::book::Book;
#[cfg(feature = "sync")]
use super::folder_notes::{decode_collisions, encode_collisions};
use super::ignore::rewritten_rules;
#[cfg(feature = "sync")]
use super::index::{self, key_of, path_of};
use super::journal::rewriting::{rewritten_journal, rewritten_record};
use super::new_file::scratch_file;
use super::shadow_segment;
use super::undo::{OldForm, OldRange, RANGE_BYTES_MAX, RecordFault, RecordReader, RecordWriter, Undone};
use super::{recovery, running};
use std::fs::File;
use std::os::unix::fs::FileExt;

/// An undo record; what is zeros becomes a range without bytes.
#[must_use]
pub fn undo_record(bytes: &[u8]) -> Option<Vec<u8>> {
    let (undone, ranges) = match undo_of(&file_of(bytes)) {
        Ok(read) => read,
        Err(RecordFault::Disk(error)) => panic!("{error}"),
        Err(RecordFault::Damaged | RecordFault::Version(_)) => return None,
    };
    let mut writer = RecordWriter::new(file_of(&[]), String::new());
    let zeros = vec![0; RANGE_BYTES_MAX];
    let mut write = || {
        writer.put_header(&undone)?;
        for old in &ranges {
            writer.push(old.offset, old.bytes.as_deref().unwrap_or(&zeros[..old.length]))?;
        }
        writer.finish()
    };
    write().expect("a scratch file takes it");
    let again = undo_of(writer.file()).expect("it was just written");
    assert_eq!(again, (undone, ranges));
    let mut out = vec![0; writer.file().metadata().expect("it is open").len() as usize];
    writer.file().read_exact_at(&mut out, 0).expect("it has so much");
    Some(out)
}

#[derive(Debug, PartialEq, Eq)]
struct Old {
    offset: u64,
    length: usize,
    /// `None` when all of them are zeros.
    bytes: Option<Vec<u8>>,
}

fn undo_of(file: &File) -> Result<(Undone, Vec<Old>), RecordFault> {
    let checked = recovery::check_record(file)?;
    let (mut reader, undone) = RecordReader::open(file)?;
    assert_eq!(checked, undone);
    let (mut ranges, mut buffer) = (Vec::new(), Vec::new());
    while let Some(OldRange { offset, length, form }) = reader.next(&mut buffer)? {
        assert!(length <= RANGE_BYTES_MAX && offset + length as u64 <= undone.old_length);
        let is_zeros = form == OldForm::Zeros || buffer.iter().all(|&byte| byte == 0);
        assert_eq!(buffer.len(), if form == OldForm::Zeros { 0 } else { length });
        let bytes = (!is_zeros).then(|| buffer.clone());
        ranges.push(Old { offset, length, bytes });
    }
    Ok((undone, ranges))
}

/// One record of a journal: the bytes of it.
#[must_use]
pub fn journal_record(bytes: &[u8]) -> Option<Vec<u8>> {
    rewritten_record(bytes)
}

/// A whole journal: one that says the same without detours.
#[must_use]
pub fn journal(bytes: &[u8]) -> Option<Vec<u8>> {
    rewritten_journal(bytes)
}

/// `trust.json`.
///
/// # Errors
/// What is wrong with it, as users read it.
pub fn trust(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let book = Book::decode(bytes)?;
    let written = book.encode();
    assert_eq!(Book::decode(&written).as_ref(), Ok(&book));
    Ok(written)
}

/// The file of a running server.
#[must_use]
pub fn run_file(bytes: &[u8]) -> Option<Vec<u8>> {
    let (server, control) = running::decode(bytes)?;
    let written = running::encode(&server, &control);
    let again = running::decode(&written).expect("it was just written");
    assert!(again.0 == server && again.1.0 == control.0);
    Some(written)
}

/// A line of an activity log: as it stands.
#[must_use]
pub fn activity_line(line: &[u8]) -> Option<ActivityEntry> {
    ActivityEntry::parse(line)
}

/// A `.synclineignore`, of which `is_cut` says that it goes on: the rules in it that count, and the lines that
/// decide about `path` as a directory and as a file.
#[must_use]
pub fn ignore_rules(text: &[u8], is_cut: bool, path: &[u8]) -> (Vec<u8>, [Option<u32>; 2]) {
    rewritten_rules(text, is_cut, path)
}

/// A segment of shadows: length and place of each record in it, and where the next one would begin.
#[must_use]
pub fn shadow_segment(bytes: &[u8]) -> Option<(Vec<(u64, u64)>, u64)> {
    let mut records = Vec::new();
    let found = &mut |record: shadow_segment::Record| records.push((record.id.length, record.offset));
    let (_, tail) = shadow_segment::scan(&file_of(bytes), found).ok()?;
    Some((records, tail))
}

/// A record of an index: its bytes.
#[cfg(feature = "sync")]
#[must_use]
pub fn index_record(bytes: &[u8]) -> Option<Vec<u8>> {
    let record = index::Record::decode(bytes).ok()?;
    Some(record.encode())
}

/// A key of an index: its bytes.
#[cfg(feature = "sync")]
#[must_use]
pub fn index_key(bytes: &[u8]) -> Option<Vec<u8>> {
    Some(key_of(&path_of(bytes).ok()?))
}

/// The note of names without a place: what of it makes sense.
#[cfg(feature = "sync")]
#[must_use]
pub fn collisions(bytes: &[u8]) -> Vec<u8> {
    let noted = decode_collisions(bytes);
    let written = encode_collisions(&noted);
    let again = decode_collisions(&written);
    assert!(noted.starts_with(&again) && (again.len() == noted.len() || written.len() > bytes.len() / 2));
    written
}

fn file_of(bytes: &[u8]) -> File {
    let file = scratch_file().expect("a scratch file can be made");
    file.write_all_at(bytes, 0).expect("a scratch file takes it");
    file
}
