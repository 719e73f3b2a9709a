//! `Shadows`: contents that this device sent, so that the next version is sent against them.
//!
//! Never fails its caller and never flushes to disk: a shadow that is missing costs bytes on the wire, no
//! more. Invariant: what [`Shadows::find`] gives had the id when it was kept, and is undamaged since;
//! whatever happens, there are at most `bytes_max` bytes (and one segment of each other process).
//!
//! 1. Contents are appended to segments, a sixteenth of the bound each, so that many small ones cost few
//!    calls and no files. A process writes to a segment that it has locked, and goes on in the newest
//!    that nobody writes to.
//! 2. With a new segment the oldest ones go that nobody writes to. Use does not make a content younger:
//!    it was used because there is a newer version, which is appended now, and is what the next
//!    version will be sent against.
//! 3. The index is made of headers and trailers at the first use.
//!
//! Awkward cases: an insertion that was given up leaves room that counts for nothing; of a segment with
//! a damaged header the rest is lost; what another process keeps is seen at the next start.

use super::home::create_private_directory;
use super::shadow_segment::{self as segment, Record, Reserved, SegmentId, WRITE_BYTES, Writer};
use crate::model::ContentId;
use crate::model::limits::{MEDIUM_BYTES_MAX, SHADOWS_MAX};
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};

/// The shadows of one process. Nothing is opened before the first use.
#[derive(Debug)]
pub struct Shadows {
    directory: PathBuf,
    bytes_max: u64,
    opened: bool,
    /// Failed to write: only reads from now on.
    read_only: bool,
    index: HashMap<ContentId, (SegmentId, u64)>,
    writer: Option<Writer>,
}

/// A content on its way into the store.
#[derive(Debug)]
pub struct Insertion {
    length: u64,
    appended: u64,
    crc: crc32fast::Hasher,
    /// Of a small one all; else what was not written yet.
    held: Vec<u8>,
    room: Option<Reserved>,
    failed: bool,
}

/// Segments that the bound is divided into.
const SEGMENTS: u64 = 16;
/// Contents up to this size are held until they are complete, and written together.
const SMALL_BYTES_MAX: u64 = 64 * 1024;
/// Files in the directory that are looked at.
const FILES_MAX: usize = 1024;

impl Shadows {
    /// Shadows in `directory` (made when needed) of at most `bytes_max` bytes.
    #[must_use]
    pub fn new(directory: &Path, bytes_max: u64) -> Shadows {
        Shadows {
            directory: directory.to_owned(),
            bytes_max,
            opened: false,
            read_only: false,
            index: HashMap::new(),
            writer: None,
        }
    }

    /// Whether there is a shadow; it may still turn out to be damaged or gone.
    pub fn contains(&mut self, id: &ContentId) -> bool {
        self.open();
        self.index.contains_key(id)
    }

    /// The content with this id, up to 16 MiB, its CRC compared. Its root is not computed again.
    pub fn find(&mut self, id: &ContentId) -> Option<Vec<u8>> {
        self.open();
        let (segment, offset) = *self.index.get(id)?;
        if let Some(writer) = self.writer.as_mut().filter(|writer| writer.id == segment) {
            let flushed = writer.flush();
            self.unless_failed(flushed);
        }
        let record = Record { id: *id, offset };
        let found = segment::read(&self.directory, segment, record);
        match found {
            Ok(Some(bytes)) => return Some(bytes),
            Ok(None) => log::debug!("a shadow in {} is damaged", self.directory.display()),
            // Removed by another process, most likely.
            Err(error) => log::debug!("cannot read a shadow in {}: {error}", self.directory.display()),
        }
        self.index.remove(id);
        None
    }

    /// Begins to keep a content of exactly `length` bytes; `None` when it cannot be kept.
    pub fn begin(&mut self, length: u64) -> Option<Insertion> {
        let fits = length > 0 && length <= MEDIUM_BYTES_MAX && segment::record_bytes(length) <= self.bytes_max / 2;
        if !fits || self.read_only {
            return None;
        }
        self.open();
        let mut insertion = Insertion {
            length,
            appended: 0,
            crc: crc32fast::Hasher::new(),
            held: Vec::new(),
            room: None,
            failed: false,
        };
        if length > SMALL_BYTES_MAX {
            let reserved = self.writer_for(length).and_then(|writer| writer.reserve(length));
            insertion.room = Some(self.unless_failed(reserved)?);
        }
        Some(insertion)
    }

    /// The next bytes of the content.
    pub fn append(&mut self, insertion: &mut Insertion, bytes: &[u8]) {
        insertion.appended += bytes.len() as u64;
        if insertion.failed || insertion.appended > insertion.length {
            insertion.failed = true;
            return;
        }
        insertion.crc.update(bytes);
        insertion.held.extend_from_slice(bytes);
        if insertion.room.is_some() && insertion.held.len() >= WRITE_BYTES {
            let written = insertion.write_held();
            insertion.failed = self.unless_failed(written).is_none();
        }
    }

    /// Keeps the content under its id; not if it has other bytes than were announced.
    pub fn finish(&mut self, mut insertion: Insertion, id: ContentId) {
        let complete = !insertion.failed && insertion.appended == insertion.length && id.length == insertion.length;
        if !complete || self.index.contains_key(&id) || self.read_only {
            return self.abandon(insertion);
        }
        let kept = match insertion.write_held() {
            Err(error) => Err(error),
            Ok(()) => self.keep(insertion, id),
        };
        if let Some(place) = self.unless_failed(kept) {
            self.index.insert(id, place);
        }
    }

    fn keep(&mut self, insertion: Insertion, id: ContentId) -> io::Result<(SegmentId, u64)> {
        let Some(room) = insertion.room else {
            let writer = self.writer_for(id.length)?;
            let offset = writer.append(id, &insertion.held)?;
            return Ok((writer.id, offset));
        };
        room.seal(id, insertion.crc.finalize())?;
        Ok((room.segment, room.offset))
    }

    /// Forgets a content that was begun.
    pub fn abandon(&mut self, insertion: Insertion) {
        if let (Some(room), Some(writer)) = (insertion.room, &mut self.writer) {
            let released = writer.release(&room, insertion.length);
            self.unless_failed(released);
        }
    }

    /// The result, or nothing from now on.
    fn unless_failed<T>(&mut self, result: io::Result<T>) -> Option<T> {
        result
            .inspect_err(|error| {
                log::debug!("no more shadows in {}: {error}", self.directory.display());
                self.read_only = true;
                self.writer = None;
            })
            .ok()
    }

    /// Reads the index, the first time.
    fn open(&mut self) {
        if std::mem::replace(&mut self.opened, true) {
            return;
        }
        for (id, _) in self.segments() {
            let index = &mut self.index;
            let scanned = segment::open_to_read(&self.directory, id).and_then(|file| {
                segment::scan(&file, &mut |record| {
                    if index.len() < SHADOWS_MAX {
                        index.insert(record.id, (id, record.offset));
                    }
                })
            });
            if let Err(error) = scanned {
                log::debug!("cannot use shadows in {}: {error}", self.directory.display());
            }
        }
    }

    /// The segments that are there, with their bytes.
    fn segments(&self) -> BTreeMap<SegmentId, u64> {
        let Ok(entries) = std::fs::read_dir(&self.directory) else {
            return BTreeMap::new();
        };
        let listed = entries.take(FILES_MAX).filter_map(|entry| {
            let entry = entry.ok()?;
            let id = SegmentId::from_name(entry.file_name().to_str()?)?;
            Some((id, entry.metadata().ok()?.len()))
        });
        listed.collect()
    }

    /// The segment that a content of `length` bytes is appended to.
    fn writer_for(&mut self, length: u64) -> io::Result<&mut Writer> {
        let size_max = self.bytes_max / SEGMENTS;
        let bytes = segment::record_bytes(length);
        let has_room = |tail: u64| tail <= segment::SEGMENT_HEADER_BYTES || tail + bytes <= size_max;
        let full = self.index.len() >= SHADOWS_MAX;
        if full || !self.writer.as_ref().is_some_and(|writer| has_room(writer.tail())) {
            // First unlocked and written, so that it can be removed if it is the oldest.
            self.writer = None;
            let resumed = if full { None } else { self.resume(&has_room)? };
            let writer = match resumed {
                Some(writer) => writer,
                None => self.create(size_max.max(bytes + segment::SEGMENT_HEADER_BYTES))?,
            };
            self.writer = Some(writer);
        }
        Ok(self.writer.as_mut().expect("it was set above"))
    }

    /// The newest segment, if nobody writes to it and it has room.
    fn resume(&mut self, has_room: &impl Fn(u64) -> bool) -> io::Result<Option<Writer>> {
        let Some((id, size)) = self.segments().pop_last() else {
            return Ok(None);
        };
        if !has_room(size) {
            return Ok(None);
        }
        let Some(file) = segment::lock(&self.directory, id)? else {
            return Ok(None);
        };
        let index = &mut self.index;
        let scanned = segment::scan(&file, &mut |record| {
            index.insert(record.id, (id, record.offset));
        });
        match scanned {
            Ok((nonce, tail)) => Writer::resume(id, file, nonce, tail).map(Some),
            // Not one of ours any more: a new one comes after it.
            Err(_) => Ok(None),
        }
    }

    /// A new segment, and room for it.
    fn create(&mut self, bytes: u64) -> io::Result<Writer> {
        create_private_directory(&self.directory).map_err(|error| io::Error::other(error.to_string()))?;
        let segments = self.segments();
        let mut total: u64 = segments.values().sum();
        for (id, size) in &segments {
            if total + bytes <= self.bytes_max && self.index.len() < SHADOWS_MAX {
                break;
            }
            // Locked, so that nobody goes on in it meanwhile.
            if let Ok(Some(_locked)) = segment::lock(&self.directory, *id) {
                std::fs::remove_file(id.path(&self.directory))?;
                self.index.retain(|_, (segment, _)| segment != id);
                total -= size;
            }
        }
        let mut random = [0; 12];
        getrandom::fill(&mut random).map_err(|error| io::Error::other(error.to_string()))?;
        let [a, b, c, d, nonce @ ..] = random;
        let newest = segments.last_key_value().map_or(0, |(id, _)| id.sequence);
        let id = SegmentId {
            sequence: newest.saturating_add(1),
            random: u32::from_le_bytes([a, b, c, d]),
        };
        Writer::create(&self.directory, id, u64::from_le_bytes(nonce))
    }
}

impl Insertion {
    /// Writes what is held into the room, if there is one.
    fn write_held(&mut self) -> io::Result<()> {
        if let Some(room) = &self.room {
            room.write(self.appended - self.held.len() as u64, &self.held)?;
            self.held.clear();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delta::content_id;
    use std::os::unix::fs::{FileExt, PermissionsExt};

    fn content(seed: u64, length: usize) -> Vec<u8> {
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        };
        std::iter::repeat_with(next).take(length).collect()
    }

    fn insert(shadows: &mut Shadows, bytes: &[u8]) -> ContentId {
        let id = content_id(bytes);
        let mut insertion = shadows.begin(bytes.len() as u64).unwrap();
        for part in bytes.chunks(100_000) {
            shadows.append(&mut insertion, part);
        }
        shadows.finish(insertion, id);
        id
    }

    fn files(directory: &Path) -> Vec<(PathBuf, u64)> {
        let mut files: Vec<_> = std::fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap())
            .map(|entry| (entry.path(), entry.metadata().unwrap().len()))
            .collect();
        files.sort();
        files
    }

    /// Small and large contents, interleaved, are found at once, and by the next process in the same file.
    #[test]
    fn what_was_kept_is_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let directory = dir.path().join("shadows");
        let mut shadows = Shadows::new(&directory, 64 << 20);
        assert!(!directory.exists(), "nothing is made before it is needed");
        let contents: Vec<_> = [9_000, 300_000, 1, 65_536, 65_537, 2_000_000]
            .map(|length| content(length as u64, length))
            .into();
        let mut open: Vec<_> = contents
            .iter()
            .map(|bytes| shadows.begin(bytes.len() as u64).unwrap())
            .collect();
        for (insertion, bytes) in open.iter_mut().zip(&contents) {
            shadows.append(insertion, &bytes[..bytes.len() / 2]);
        }
        for (mut insertion, bytes) in open.into_iter().zip(&contents).rev() {
            shadows.append(&mut insertion, &bytes[bytes.len() / 2..]);
            shadows.finish(insertion, content_id(bytes));
        }
        let check = |shadows: &mut Shadows| {
            for bytes in &contents {
                assert!(shadows.find(&content_id(bytes)).unwrap() == *bytes, "{}", bytes.len());
            }
        };
        check(&mut shadows);
        drop(shadows);
        let mut next = Shadows::new(&directory, 64 << 20);
        check(&mut next);
        let more = insert(&mut next, &content(7, 10_000));
        assert!(next.find(&more).is_some());
        drop(next);
        let listed = files(&directory);
        assert_eq!(listed.len(), 1, "{listed:?}");
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&directory), mode(&listed[0].0)), (0o700, 0o600));
    }

    /// 1,000 small files cost neither files nor many calls; without a bound they would fill the disk.
    #[test]
    fn the_oldest_go_and_the_bound_holds() {
        let dir = tempfile::tempdir().unwrap();
        let mut shadows = Shadows::new(dir.path(), 1 << 20);
        let ids: Vec<_> = (0..1_000).map(|n| insert(&mut shadows, &content(n, 9_000))).collect();
        drop(shadows);
        let listed = files(dir.path());
        let total: u64 = listed.iter().map(|(_, size)| size).sum();
        assert!(total <= 1 << 20 && total > 900_000, "{total}");
        assert!(listed.len() <= 17, "{}", listed.len());
        let mut shadows = Shadows::new(dir.path(), 1 << 20);
        let found: Vec<_> = ids.iter().map(|id| shadows.find(id).is_some()).collect();
        let first = found.iter().position(|found| *found).unwrap();
        assert!(first > 850 && found[first..].iter().all(|found| *found), "from {first}");
        // One that is larger than a segment has one of its own.
        let large = insert(&mut shadows, &content(0, 400_000));
        assert!(shadows.find(&large).is_some());
        assert!(shadows.begin(600_000).is_none(), "more than half of the bound");
    }

    /// What was given up, or turned out to have another length, is never served and takes no room.
    #[test]
    fn an_abandoned_content_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut shadows = Shadows::new(dir.path(), 64 << 20);
        let bytes = content(1, 500_000);
        let id = content_id(&bytes);
        for part in [&bytes[..400_000], &[&bytes[..], b"x"].concat()] {
            let mut insertion = shadows.begin(id.length).unwrap();
            shadows.append(&mut insertion, part);
            shadows.finish(insertion, id);
            assert!(shadows.find(&id).is_none());
        }
        let between = shadows.begin(id.length).unwrap();
        let small = insert(&mut shadows, &content(2, 20_000));
        shadows.abandon(between);
        drop(shadows);
        let mut shadows = Shadows::new(dir.path(), 64 << 20);
        assert!(shadows.find(&id).is_none() && shadows.find(&small).is_some());
        insert(&mut shadows, &bytes);
        assert!(shadows.find(&id).unwrap() == bytes);
        assert!(
            files(dir.path())[0].1 < 1_100_000,
            "the room of the first two was used again"
        );
    }

    /// Damage at any place costs contents, never serves a wrong one; a torn tail is written over.
    #[test]
    fn damage_is_skipped() {
        let dir = tempfile::tempdir().unwrap();
        let mut shadows = Shadows::new(dir.path(), 64 << 20);
        let contents: Vec<_> = (0..4).map(|n| content(n, 1_000)).collect();
        let ids: Vec<_> = contents.iter().map(|bytes| insert(&mut shadows, bytes)).collect();
        drop(shadows);
        let (path, size) = files(dir.path()).remove(0);
        let whole = std::fs::read(&path).unwrap();
        for at in (0..size as usize).step_by(7) {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x10;
            std::fs::write(&path, &damaged).unwrap();
            let mut shadows = Shadows::new(dir.path(), 64 << 20);
            let mut lost = 0;
            for (id, bytes) in ids.iter().zip(&contents) {
                let found = shadows.find(id);
                lost += usize::from(found.is_none());
                assert!(found.is_none_or(|found| found == *bytes), "byte {at}");
            }
            assert!(lost > 0 || (16..20).contains(&at), "byte {at}");
        }
        for length in [0, 10, 24, 30, 1_000, size as usize - 1] {
            std::fs::write(&path, &whole[..length]).unwrap();
            let mut shadows = Shadows::new(dir.path(), 64 << 20);
            assert!(shadows.find(&ids[3]).is_none());
            insert(&mut shadows, &contents[3]);
            drop(shadows);
            let mut shadows = Shadows::new(dir.path(), 64 << 20);
            assert!(shadows.find(&ids[3]).is_some(), "cut at {length}");
            for (path, _) in files(dir.path()).split_off(1) {
                std::fs::remove_file(path).unwrap();
            }
        }
    }

    /// Row 14 of the wire's kin on disk: a record inside a content does not count as one.
    #[test]
    fn a_content_cannot_forge_a_record() {
        let dir = tempfile::tempdir().unwrap();
        let mut shadows = Shadows::new(dir.path(), 64 << 20);
        let real = insert(&mut shadows, &content(1, 1_000));
        drop(shadows);
        let (path, _) = files(dir.path()).remove(0);
        let record = std::fs::read(&path).unwrap().split_off(24);
        let mut shadows = Shadows::new(dir.path(), 64 << 20);
        let mut around = vec![0; 200_000];
        around[..record.len()].copy_from_slice(&record);
        insert(&mut shadows, &around);
        drop(shadows);
        // The header of the record around is lost, and with it all that follows.
        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.write_all_at(b"XXXX", 24 + record.len() as u64).unwrap();
        let mut shadows = Shadows::new(dir.path(), 64 << 20);
        assert!(shadows.find(&real).is_some());
        assert_eq!(shadows.index.len(), 1);
    }

    /// Two processes write at a time without harm, each in its own segment.
    #[test]
    fn two_at_a_time_are_safe() {
        let dir = tempfile::tempdir().unwrap();
        let mut one = Shadows::new(dir.path(), 1 << 20);
        let mut two = Shadows::new(dir.path(), 1 << 20);
        let mut kept = Vec::new();
        for n in 0..400 {
            let bytes = content(n, 9_000);
            let id = insert(if n % 2 == 0 { &mut one } else { &mut two }, &bytes);
            kept.push((id, bytes));
        }
        for (id, bytes) in &kept {
            for shadows in [&mut one, &mut two] {
                assert!(shadows.find(id).is_none_or(|found| found == *bytes));
            }
        }
        let (last, _) = &kept[399];
        assert!(two.find(last).is_some());
        let total: u64 = files(dir.path()).iter().map(|(_, size)| size).sum();
        assert!(total <= (1 << 20) + (1 << 16), "{total}");
        drop((one, two));
        assert!(Shadows::new(dir.path(), 1 << 20).find(last).is_some());
    }

    /// Nothing can be written there: as if the store were empty, and never an error.
    #[test]
    fn a_place_that_cannot_be_used_is_empty() {
        for place in ["/proc/self/task/shadows", "/dev/null/shadows"] {
            let mut shadows = Shadows::new(Path::new(place), 1 << 20);
            let bytes = content(1, 9_000);
            if let Some(mut insertion) = shadows.begin(9_000) {
                shadows.append(&mut insertion, &bytes);
                shadows.finish(insertion, content_id(&bytes));
            }
            assert!(shadows.find(&content_id(&bytes)).is_none());
            assert!(shadows.begin(200_000).is_none(), "{place}");
        }
    }
}
