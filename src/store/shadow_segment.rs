//! One segment of the shadow store: contents behind each other in one file.
//!
//! Never decides what is kept. The bytes are in `docs/FORMAT.md`, "shadows/". Invariant: a record counts
//! only with a header and a trailer that were made for this segment (both checksums cover a random
//! number of it), so that nothing inside a content passes for a record.

use crate::model::ContentId;
use crate::model::limits::MEDIUM_BYTES_MAX;
use rustix::fs::{FlockOperation, flock};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// Which segment; later ones are greater. Its file is called after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SegmentId {
    pub(super) sequence: u64,
    pub(super) random: u32,
}

/// A record of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) id: ContentId,
    /// Where it begins.
    pub(super) offset: u64,
}

/// A segment that this process has locked and appends to. Dropping it writes what waits.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) id: SegmentId,
    file: Rc<File>,
    nonce: u64,
    /// Where the next record begins.
    tail: u64,
    /// The last bytes before `tail`, not written yet.
    waiting: Vec<u8>,
}

/// Room for one content in a segment.
#[derive(Debug)]
pub(super) struct Reserved {
    pub(super) segment: SegmentId,
    pub(super) offset: u64,
    file: Rc<File>,
    nonce: u64,
}

const MAGIC: &[u8; 8] = b"SYNCSHD1";
pub(super) const SEGMENT_HEADER_BYTES: u64 = 24;
const RECORD_HEADER_BYTES: u64 = 12;
const TRAILER_BYTES: u64 = 40;
const RECORD_TAG: u32 = u32::from_le_bytes(*b"SHAD");
/// Written at a time.
pub(super) const WRITE_BYTES: usize = 256 * 1024;

/// Bytes that a content takes in a segment.
pub(super) fn record_bytes(length: u64) -> u64 {
    RECORD_HEADER_BYTES + length + TRAILER_BYTES
}

impl SegmentId {
    pub(super) fn from_name(name: &str) -> Option<SegmentId> {
        let (sequence, random) = name.strip_suffix(".shadows")?.split_once('-')?;
        let id = SegmentId {
            sequence: u64::from_str_radix(sequence, 16).ok()?,
            random: u32::from_str_radix(random, 16).ok()?,
        };
        (id.name() == name).then_some(id)
    }

    fn name(self) -> String {
        format!("{:016x}-{:08x}.shadows", self.sequence, self.random)
    }

    pub(super) fn path(self, directory: &Path) -> PathBuf {
        directory.join(self.name())
    }
}

/// A regular file, never through a symbolic link.
fn open(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    let file = options
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .mode(0o600)
        .open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::other("not a regular file")),
    }
}

/// Opens a segment that nobody writes to, and locks it; `None` when somebody does or it was removed.
pub(super) fn lock(directory: &Path, id: SegmentId) -> io::Result<Option<File>> {
    let file = open(&id.path(directory), OpenOptions::new().write(true))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) if file.metadata()?.nlink() > 0 => Ok(Some(file)),
        Ok(()) | Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// Gives the complete records of a segment to `found`, and says where the next one would begin. Reads
/// headers and trailers only.
pub(super) fn scan(file: &File, found: &mut dyn FnMut(Record)) -> io::Result<(u64, u64)> {
    let nonce = read_nonce(file)?;
    let size = file.metadata()?.len();
    let mut offset = SEGMENT_HEADER_BYTES;
    // The trailer of a record and the header that follows on it are read at once.
    let mut edge = [0; (TRAILER_BYTES + RECORD_HEADER_BYTES) as usize];
    let mut header = read_edge(file, &mut edge[TRAILER_BYTES as usize..], offset)?;
    // Each turn moves on by a record, so that the size bounds them.
    while header {
        let Some(length) = parse_header(&edge[TRAILER_BYTES as usize..], nonce, offset) else {
            break;
        };
        let end = offset + record_bytes(length);
        if end > size {
            break;
        }
        header = read_edge(file, &mut edge, end - TRAILER_BYTES)?;
        if let Some((root, _)) = parse_trailer(&edge[..TRAILER_BYTES as usize], nonce, offset, length) {
            let id = ContentId { length, root };
            found(Record { id, offset });
        }
        offset = end;
    }
    Ok((nonce, offset))
}

/// Fills `edge` as far as the file goes, and says whether that is all of it.
fn read_edge(file: &File, edge: &mut [u8], offset: u64) -> io::Result<bool> {
    let mut filled = 0;
    while filled < edge.len() {
        match file.read_at(&mut edge[filled..], offset + filled as u64) {
            Ok(0) => return Ok(false),
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

/// Opens a segment to be scanned.
pub(super) fn open_to_read(directory: &Path, id: SegmentId) -> io::Result<File> {
    open(&id.path(directory), &mut OpenOptions::new())
}

/// The content of a record, if it is whole and undamaged.
pub(super) fn read(directory: &Path, segment: SegmentId, record: Record) -> io::Result<Option<Vec<u8>>> {
    let file = open_to_read(directory, segment)?;
    let nonce = read_nonce(&file)?;
    let length = record.id.length;
    let mut header = [0; RECORD_HEADER_BYTES as usize];
    file.read_exact_at(&mut header, record.offset)?;
    if parse_header(&header, nonce, record.offset) != Some(length) {
        return Ok(None);
    }
    let start = record.offset + RECORD_HEADER_BYTES;
    let mut bytes = vec![0; (length + TRAILER_BYTES) as usize];
    file.read_exact_at(&mut bytes, start)?;
    let trailer = parse_trailer(&bytes[length as usize..], nonce, record.offset, length);
    bytes.truncate(length as usize);
    let intact = trailer == Some((record.id.root, crc32fast::hash(&bytes)));
    Ok(intact.then_some(bytes))
}

impl Writer {
    /// A new segment.
    pub(super) fn create(directory: &Path, id: SegmentId, nonce: u64) -> io::Result<Writer> {
        let file = open(&id.path(directory), OpenOptions::new().write(true).create_new(true))?;
        flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        let mut header = MAGIC.to_vec();
        header.extend_from_slice(&nonce.to_le_bytes());
        header.extend_from_slice(&[0; 4]);
        header.extend_from_slice(&crc32fast::hash(&header).to_le_bytes());
        file.write_all_at(&header, 0)?;
        Ok(Writer {
            id,
            file: Rc::new(file),
            nonce,
            tail: SEGMENT_HEADER_BYTES,
            waiting: Vec::new(),
        })
    }

    /// Goes on in a segment that [`lock`] and then [`scan`] have seen.
    pub(super) fn resume(id: SegmentId, file: File, nonce: u64, tail: u64) -> io::Result<Writer> {
        file.set_len(tail)?;
        Ok(Writer {
            id,
            file: Rc::new(file),
            nonce,
            tail,
            waiting: Vec::new(),
        })
    }

    /// Where the next record begins.
    pub(super) fn tail(&self) -> u64 {
        self.tail
    }

    /// Appends a whole record, and says where.
    pub(super) fn append(&mut self, id: ContentId, content: &[u8]) -> io::Result<u64> {
        let offset = self.tail;
        self.waiting
            .extend_from_slice(&header(self.nonce, offset, content.len() as u64));
        self.waiting.extend_from_slice(content);
        let crc = crc32fast::hash(content);
        self.waiting.extend_from_slice(&trailer(self.nonce, offset, id, crc));
        self.tail += record_bytes(content.len() as u64);
        if self.waiting.len() >= WRITE_BYTES {
            self.flush()?;
        }
        Ok(offset)
    }

    /// Keeps room for a record of `length` bytes, which counts once it is sealed.
    pub(super) fn reserve(&mut self, length: u64) -> io::Result<Reserved> {
        self.flush()?;
        let offset = self.tail;
        self.file.write_all_at(&header(self.nonce, offset, length), offset)?;
        self.tail += record_bytes(length);
        Ok(Reserved {
            segment: self.id,
            offset,
            file: Rc::clone(&self.file),
            nonce: self.nonce,
        })
    }

    /// Takes back the room, if it is the last in the segment.
    pub(super) fn release(&mut self, reserved: &Reserved, length: u64) -> io::Result<()> {
        let last = self.id == reserved.segment && reserved.offset + record_bytes(length) == self.tail;
        if !last || !self.waiting.is_empty() {
            return Ok(());
        }
        self.file.set_len(reserved.offset)?;
        self.tail = reserved.offset;
        Ok(())
    }

    /// Writes what waits.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let waiting = std::mem::take(&mut self.waiting);
        self.file.write_all_at(&waiting, self.tail - waiting.len() as u64)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.flush();
    }
}

impl Reserved {
    /// Writes a part of the content.
    pub(super) fn write(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, self.offset + RECORD_HEADER_BYTES + at)
    }

    /// Makes the record count.
    pub(super) fn seal(&self, id: ContentId, crc: u32) -> io::Result<()> {
        let at = self.offset + RECORD_HEADER_BYTES + id.length;
        self.file.write_all_at(&trailer(self.nonce, self.offset, id, crc), at)
    }
}

fn read_nonce(file: &File) -> io::Result<u64> {
    let mut header = [0; SEGMENT_HEADER_BYTES as usize];
    file.read_exact_at(&mut header, 0)?;
    let (content, crc) = header.split_at(SEGMENT_HEADER_BYTES as usize - 4);
    if &content[..8] != MAGIC || crc != crc32fast::hash(content).to_le_bytes() {
        return Err(io::Error::other("not a segment of shadows"));
    }
    Ok(u64::from_le_bytes(content[8..16].try_into().expect("eight bytes")))
}

fn checksum(nonce: u64, offset: u64, fields: &[u8]) -> [u8; 4] {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&nonce.to_le_bytes());
    hasher.update(&offset.to_le_bytes());
    hasher.update(fields);
    hasher.finalize().to_le_bytes()
}

fn header(nonce: u64, offset: u64, length: u64) -> Vec<u8> {
    let mut fields = RECORD_TAG.to_le_bytes().to_vec();
    fields.extend_from_slice(&(length as u32).to_le_bytes());
    fields.extend_from_slice(&checksum(nonce, offset, &fields));
    fields
}

fn parse_header(bytes: &[u8], nonce: u64, offset: u64) -> Option<u64> {
    let length = u64::from(u32::from_le_bytes(bytes[4..8].try_into().ok()?));
    (length <= MEDIUM_BYTES_MAX && bytes == header(nonce, offset, length)).then_some(length)
}

fn trailer(nonce: u64, offset: u64, id: ContentId, crc: u32) -> Vec<u8> {
    let mut fields = id.root.to_vec();
    fields.extend_from_slice(&crc.to_le_bytes());
    fields.extend_from_slice(&checksum(nonce, offset + id.length, &fields));
    fields
}

fn parse_trailer(bytes: &[u8], nonce: u64, offset: u64, length: u64) -> Option<([u8; 32], u32)> {
    let root = bytes[..32].try_into().ok()?;
    let crc = u32::from_le_bytes(bytes[32..36].try_into().ok()?);
    (bytes == trailer(nonce, offset, ContentId { length, root }, crc)).then_some((root, crc))
}
