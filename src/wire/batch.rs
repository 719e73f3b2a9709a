//! Messages that carry many small things at once: entries, answers, results, paths.
//!
//! Paths are front-coded: how many bytes they share with the path before, then the rest. Answers are
//! run-length coded, so that a tree without changes costs a few bytes whatever its size.

use super::codec::{Reader, WireError, Writer};
use super::frame::{FrameType, control_header};
use super::message::{failure, file_size};
use crate::model::limits::{BATCH_ENTRIES_MAX, PATH_BYTES_MAX, SYMLINK_BYTES_MAX};
use crate::model::{Entry, ItemCode, Kind, RelPath, Revision};

const KIND_FILE: u8 = 0;
const KIND_DIRECTORY: u8 = 1;
const KIND_SYMLINK: u8 = 2;
const WITH_ROOT: u8 = 4;
const WITH_REVISION: u8 = 8;

/// Collects entries into an offer. Their numbers follow one another.
#[derive(Debug, Default)]
pub struct EntriesWriter {
    body: Writer,
    previous: Vec<u8>,
    count: usize,
}

impl EntriesWriter {
    /// Adds an entry, with its content root when contents are to be compared, and the revision that it is based
    /// on when that counts.
    pub fn push(&mut self, entry: &Entry, root: Option<&[u8; 32]>, based_on: Option<Revision>) {
        let path = entry.path.as_bytes();
        let shared = path.iter().zip(&self.previous).take_while(|(a, b)| a == b).count();
        let kind = match entry.kind {
            Kind::File { .. } => KIND_FILE,
            Kind::Directory => KIND_DIRECTORY,
            Kind::Symlink { .. } => KIND_SYMLINK,
        };
        let more = [(root.is_some(), WITH_ROOT), (based_on.is_some(), WITH_REVISION)];
        let bits = more.iter().filter(|(is_there, _)| *is_there).map(|(_, bit)| bit);
        self.body.u8(kind | bits.sum::<u8>());
        self.body.varint(shared as u64);
        self.body.bytes(&path[shared..]);
        self.body.meta(&entry.meta);
        match &entry.kind {
            Kind::File { size } => self.body.varint(*size),
            Kind::Directory => {}
            Kind::Symlink { target } => self.body.bytes(target),
        }
        if let Some(root) = root {
            self.body.raw(root);
        }
        if let Some(revision) = based_on {
            self.body.varint(revision.0);
        }
        self.previous.clear();
        self.previous.extend_from_slice(path);
        self.count += 1;
    }

    /// Entries collected.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// Bytes collected.
    #[must_use]
    pub fn byte_count(&self) -> usize {
        self.body.len()
    }

    /// Appends the offer frame, unless it is empty, and starts a new one. `first` is the number of
    /// the first entry.
    pub fn flush(&mut self, stream: u16, first: u32, out: &mut Vec<u8>) {
        let done = std::mem::take(self);
        if done.count == 0 {
            return;
        }
        let mut head = Writer::new();
        head.u32(first);
        head.varint(done.count as u64);
        out.extend_from_slice(&control_header(FrameType::Offer, stream, head.len() + done.body.len()));
        out.extend_from_slice(&head.into_bytes());
        out.extend_from_slice(&done.body.into_bytes());
    }
}

/// An entry, as it was offered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offered {
    /// The entry.
    pub entry: Entry,
    /// Root of its content, when contents are to be compared.
    pub root: Option<[u8; 32]>,
    /// The revision that it is based on, when that counts.
    pub based_on: Option<Revision>,
}

/// Walks the entries of an offer.
#[derive(Debug)]
pub struct EntriesReader<'a> {
    reader: Reader<'a>,
    first: u32,
    remaining: usize,
    previous: Vec<u8>,
}

impl<'a> EntriesReader<'a> {
    /// Reads the head of an offer.
    ///
    /// # Errors
    /// A [`WireError`] for a count over [`BATCH_ENTRIES_MAX`] or a cut head.
    pub fn new(payload: &'a [u8]) -> Result<EntriesReader<'a>, WireError> {
        let mut reader = Reader::new(payload);
        let first = reader.u32()?;
        let remaining = reader.count(BATCH_ENTRIES_MAX, "number of entries")?;
        Ok(EntriesReader {
            reader,
            first,
            remaining,
            previous: Vec::new(),
        })
    }

    /// The number of the first entry.
    #[must_use]
    pub fn first(&self) -> u32 {
        self.first
    }

    /// Entries not read yet.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.remaining
    }

    /// The next entry.
    ///
    /// # Errors
    /// A [`WireError`] for a malformed entry or trailing bytes after the last.
    pub fn next_entry(&mut self) -> Result<Option<Offered>, WireError> {
        if self.remaining == 0 {
            return if self.reader.is_empty() {
                Ok(None)
            } else {
                Err(WireError::Trailing)
            };
        }
        self.remaining -= 1;
        let bits = self.reader.u8()?;
        let shared = self.reader.count(self.previous.len(), "shared path prefix")?;
        let rest = self.reader.bytes(PATH_BYTES_MAX, "path")?;
        self.previous.truncate(shared);
        self.previous.extend_from_slice(rest);
        let path = RelPath::parse(&self.previous).map_err(|_| WireError::BadPath)?;
        let meta = self.reader.meta()?;
        let kind = match bits & !(WITH_ROOT | WITH_REVISION) {
            KIND_FILE => Kind::File {
                size: file_size(&mut self.reader)?,
            },
            KIND_DIRECTORY => Kind::Directory,
            KIND_SYMLINK => Kind::Symlink {
                target: symlink_target(&mut self.reader)?,
            },
            _ => return Err(WireError::BadValue("entry kind")),
        };
        let root = match (bits & WITH_ROOT != 0, &kind) {
            (false, _) => None,
            (true, Kind::File { .. }) => Some(self.reader.array()?),
            (true, _) => return Err(WireError::BadValue("entry kind")),
        };
        let based_on = match bits & WITH_REVISION {
            0 => None,
            _ => Some(Revision(self.reader.varint()?)),
        };
        let entry = Entry { path, kind, meta };
        Ok(Some(Offered { entry, root, based_on }))
    }
}

fn symlink_target(reader: &mut Reader<'_>) -> Result<Box<[u8]>, WireError> {
    let target = reader.bytes(SYMLINK_BYTES_MAX, "link target")?;
    if target.is_empty() || target.contains(&0) {
        return Err(WireError::BadValue("link target"));
    }
    Ok(target.into())
}

/// What the receiver says of an offered entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is there already, the same in every respect.
    Have,
    /// Send it: there is nothing yet.
    WantNew,
    /// Send it: there is another content.
    WantReplace,
    /// A directory or link that is made; nothing to send.
    Created,
    /// A link that replaces something; nothing to send.
    Replaced,
    /// The content was there; mode or time was corrected.
    Touched,
    /// It cannot be taken.
    Failed(ItemCode),
}

impl Verdict {
    fn to_wire(self) -> u8 {
        match self {
            Verdict::Have => 0,
            Verdict::WantNew => 1,
            Verdict::WantReplace => 2,
            Verdict::Created => 3,
            Verdict::Replaced => 4,
            Verdict::Touched => 5,
            Verdict::Failed(code) => 0x80 | code as u8,
        }
    }

    fn from_wire(byte: u8) -> Result<Verdict, WireError> {
        match byte {
            0 => Ok(Verdict::Have),
            1 => Ok(Verdict::WantNew),
            2 => Ok(Verdict::WantReplace),
            3 => Ok(Verdict::Created),
            4 => Ok(Verdict::Replaced),
            5 => Ok(Verdict::Touched),
            _ => failure(byte).map(Verdict::Failed),
        }
    }

    /// Whether content has to travel.
    #[must_use]
    pub fn is_want(self) -> bool {
        matches!(self, Verdict::WantNew | Verdict::WantReplace)
    }
}

/// The same verdict on `count` entries in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VerdictRun {
    /// The verdict.
    pub verdict: Verdict,
    /// Entries, not zero.
    pub count: usize,
}

/// The receiver's answers, in the order of the offers.
#[derive(Debug, Default)]
pub struct Answers {
    runs: Vec<VerdictRun>,
}

impl Answers {
    /// Adds the verdict on the next entry.
    pub fn push(&mut self, verdict: Verdict) {
        match self.runs.last_mut() {
            Some(run) if run.verdict == verdict && run.count < BATCH_ENTRIES_MAX => run.count += 1,
            _ => self.runs.push(VerdictRun { verdict, count: 1 }),
        }
    }

    /// Whether nothing waits to be sent.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Runs collected.
    #[must_use]
    pub fn runs(&self) -> usize {
        self.runs.len()
    }

    /// Appends the answer frame, unless it is empty, and starts a new one.
    pub fn flush(&mut self, stream: u16, out: &mut Vec<u8>) {
        if self.runs.is_empty() {
            return;
        }
        let mut writer = Writer::new();
        writer.varint(self.runs.len() as u64);
        for run in self.runs.drain(..) {
            writer.u8(run.verdict.to_wire());
            writer.varint(run.count as u64);
        }
        out.extend_from_slice(&control_header(FrameType::Answer, stream, writer.len()));
        out.extend_from_slice(&writer.into_bytes());
    }

    /// Reads an answer frame into runs.
    ///
    /// # Errors
    /// A [`WireError`] for malformed runs, empty runs, or more than [`BATCH_ENTRIES_MAX`] of them.
    pub fn decode(payload: &[u8]) -> Result<Vec<VerdictRun>, WireError> {
        let mut reader = Reader::new(payload);
        let count = reader.count(BATCH_ENTRIES_MAX, "number of answers")?;
        let mut runs = Vec::with_capacity(count.min(payload.len() / 2));
        for _ in 0..count {
            let verdict = Verdict::from_wire(reader.u8()?)?;
            let count = reader.count(BATCH_ENTRIES_MAX, "number of answers")?;
            if count == 0 {
                return Err(WireError::BadValue("number of answers"));
            }
            runs.push(VerdictRun { verdict, count });
        }
        reader.finish()?;
        Ok(runs)
    }
}

/// What became of a file whose content was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SettledResult {
    /// It is published, and durable if the receiver was asked for that.
    Committed,
    /// What arrived does not match its root: send it again.
    Resend,
    /// It cannot be taken.
    Failed(ItemCode),
}

/// Collects results of files.
#[derive(Debug, Default)]
pub struct SettledWriter {
    body: Writer,
    count: usize,
}

impl SettledWriter {
    /// Adds the result of a file.
    pub fn push(&mut self, file: u32, result: SettledResult) {
        self.body.u32(file);
        self.body.u8(match result {
            SettledResult::Committed => 0,
            SettledResult::Resend => 1,
            SettledResult::Failed(code) => 0x80 | code as u8,
        });
        self.count += 1;
    }

    /// Whether nothing waits to be sent.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Appends the frame, unless it is empty, and starts a new one.
    pub fn flush(&mut self, stream: u16, out: &mut Vec<u8>) {
        let done = std::mem::take(self);
        if done.count > 0 {
            out.extend_from_slice(&control_header(FrameType::Settled, stream, done.body.len()));
            out.extend_from_slice(&done.body.into_bytes());
        }
    }
}

/// Walks the results of a settled frame.
#[derive(Debug)]
pub struct SettledReader<'a> {
    reader: Reader<'a>,
}

impl<'a> SettledReader<'a> {
    /// Reads a settled frame.
    #[must_use]
    pub fn new(payload: &'a [u8]) -> SettledReader<'a> {
        SettledReader {
            reader: Reader::new(payload),
        }
    }

    /// The next file and its result.
    ///
    /// # Errors
    /// A [`WireError`] for a malformed or cut result.
    pub fn next_result(&mut self) -> Result<Option<(u32, SettledResult)>, WireError> {
        if self.reader.is_empty() {
            return Ok(None);
        }
        let file = self.reader.u32()?;
        let result = match self.reader.u8()? {
            0 => SettledResult::Committed,
            1 => SettledResult::Resend,
            byte => SettledResult::Failed(failure(byte)?),
        };
        Ok(Some((file, result)))
    }
}

/// Walks a counted list of paths.
#[derive(Debug)]
pub struct PathsReader<'a> {
    reader: Reader<'a>,
    remaining: usize,
}

impl<'a> PathsReader<'a> {
    /// Reads the head of the list.
    ///
    /// # Errors
    /// A [`WireError`] for a count over [`BATCH_ENTRIES_MAX`].
    pub fn new(payload: &'a [u8]) -> Result<PathsReader<'a>, WireError> {
        let mut reader = Reader::new(payload);
        let remaining = reader.count(BATCH_ENTRIES_MAX, "number of paths")?;
        Ok(PathsReader { reader, remaining })
    }

    /// The next path.
    ///
    /// # Errors
    /// A [`WireError`] for an illegal path, a cut list, or trailing bytes.
    pub fn next_path(&mut self) -> Result<Option<RelPath>, WireError> {
        if self.remaining == 0 {
            return if self.reader.is_empty() {
                Ok(None)
            } else {
                Err(WireError::Trailing)
            };
        }
        self.remaining -= 1;
        self.reader.path_or_root()?.ok_or(WireError::BadPath).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Meta, Timestamp};
    use crate::wire::{Decoder, Piece};

    fn entry(path: &str, kind: Kind) -> Entry {
        let meta = Meta {
            mode: 0o644,
            mtime: Timestamp {
                seconds: 1_700_000_000,
                nanos: 5,
            },
        };
        Entry {
            path: RelPath::parse(path.as_bytes()).unwrap(),
            kind,
            meta,
        }
    }

    fn payload_of(frame: &[u8], want: FrameType) -> Vec<u8> {
        let mut decoder = Decoder::new(1 << 20);
        match decoder.next(&mut &frame[..]).unwrap() {
            Some(Piece::Control {
                kind,
                stream: 1,
                payload,
            }) if kind == want => payload.to_vec(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn offers_round_trip_and_share_path_prefixes() {
        let entries = [
            (entry("src", Kind::Directory), None, None),
            (
                entry(
                    "src/lib.rs",
                    Kind::File {
                        size: u64::from(u32::MAX) + 9,
                    },
                ),
                Some([3; 32]),
                Some(Revision(1 << 33)),
            ),
            (
                entry(
                    "src/link",
                    Kind::Symlink {
                        target: b"../x".as_slice().into(),
                    },
                ),
                None,
                Some(Revision::NONE),
            ),
            (entry("z", Kind::File { size: 0 }), None, None),
        ];
        let mut writer = EntriesWriter::default();
        entries
            .iter()
            .for_each(|(entry, root, based_on)| writer.push(entry, root.as_ref(), *based_on));
        let mut frame = Vec::new();
        writer.flush(1, 42, &mut frame);
        assert_eq!(writer.count(), 0);
        let payload = payload_of(&frame, FrameType::Offer);
        let mut reader = EntriesReader::new(&payload).unwrap();
        assert_eq!((reader.first(), reader.remaining()), (42, 4));
        for (entry, root, based_on) in entries {
            let want = Offered { entry, root, based_on };
            assert_eq!(reader.next_entry().unwrap(), Some(want));
        }
        assert_eq!(reader.next_entry().unwrap(), None);
        assert_eq!(
            payload.windows(4).filter(|w| w == b"src/").count(),
            0,
            "the prefix travels once, as src"
        );
    }

    #[test]
    fn an_offered_path_that_escapes_is_refused_whatever_its_prefix() {
        let mut writer = EntriesWriter::default();
        writer.push(&entry("ab/cd", Kind::Directory), None, None);
        let mut frame = Vec::new();
        writer.flush(1, 0, &mut frame);
        let mut payload = payload_of(&frame, FrameType::Offer);
        let at = payload.windows(5).position(|w| w == b"ab/cd").unwrap();
        payload[at..at + 2].copy_from_slice(b"..");
        assert_eq!(
            EntriesReader::new(&payload).unwrap().next_entry(),
            Err(WireError::BadPath)
        );
    }

    #[test]
    fn answers_cost_a_few_bytes_for_any_number_of_equal_verdicts() {
        let mut answers = Answers::default();
        (0..4000).for_each(|_| answers.push(Verdict::Have));
        answers.push(Verdict::WantNew);
        answers.push(Verdict::Failed(ItemCode::DiskFull));
        let mut frame = Vec::new();
        answers.flush(1, &mut frame);
        assert!(frame.len() < 20, "{} bytes", frame.len());
        let runs = Answers::decode(&payload_of(&frame, FrameType::Answer)).unwrap();
        assert_eq!(
            runs[0],
            VerdictRun {
                verdict: Verdict::Have,
                count: 4000
            }
        );
        assert_eq!(runs[2].verdict, Verdict::Failed(ItemCode::DiskFull));
    }

    #[test]
    fn results_round_trip_and_a_cut_one_is_refused() {
        let mut writer = SettledWriter::default();
        writer.push(7, SettledResult::Committed);
        writer.push(u32::MAX, SettledResult::Failed(ItemCode::Io));
        let mut frame = Vec::new();
        writer.flush(1, &mut frame);
        let payload = payload_of(&frame, FrameType::Settled);
        let mut reader = SettledReader::new(&payload);
        assert_eq!(reader.next_result(), Ok(Some((7, SettledResult::Committed))));
        assert_eq!(
            reader.next_result(),
            Ok(Some((u32::MAX, SettledResult::Failed(ItemCode::Io))))
        );
        assert_eq!(reader.next_result(), Ok(None));
        let mut cut = SettledReader::new(&payload[..7]);
        assert!(cut.next_result().is_ok());
        assert_eq!(cut.next_result(), Err(WireError::Truncated));
    }
}
