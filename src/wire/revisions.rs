//! What a client hears of a share's changes: it asks what changed since a revision, and gets pages.
//!
//! Paths are front-coded, as in an offer. Invariant: a page meets its limits of entries and bytes before
//! anything is kept of it, and its revisions only grow.

use super::codec::{Reader, WireError, Writer};
use super::frame::{FrameType, control_header};
use super::message::{Message, file_size, flag};
use crate::model::limits::{BATCH_ENTRIES_MAX, PATH_BYTES_MAX, SYMLINK_BYTES_MAX};
use crate::model::{Epoch, Kind, RelPath, Revision, State};

/// Up to where a client knows a share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Known {
    /// Of which life of the index; none for who knows nothing.
    pub epoch: Epoch,
    /// The last revision that it heard of.
    pub revision: Revision,
    /// What came with that revision: an index that was put back from a backup does not know it.
    pub mark: u64,
}

/// Client: what changed since?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Since {
    /// Since then.
    pub known: Known,
    /// Whether to say [`News`] from now on, when there is more.
    pub watch: bool,
}

impl<'a> Message<'a> for Since {
    const KIND: FrameType = FrameType::Since;

    fn encode_payload(&self, writer: &mut Writer) {
        encode_known(&self.known, writer);
        writer.u8(u8::from(self.watch));
    }

    fn decode_payload(reader: &mut Reader<'a>) -> Result<Self, WireError> {
        Ok(Since {
            known: decode_known(reader)?,
            watch: flag(reader)?,
        })
    }
}

/// Server, unasked: the share has this revision now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct News {
    /// The last one.
    pub revision: Revision,
}

impl<'a> Message<'a> for News {
    const KIND: FrameType = FrameType::News;

    fn encode_payload(&self, writer: &mut Writer) {
        writer.varint(self.revision.0);
    }

    fn decode_payload(reader: &mut Reader<'a>) -> Result<Self, WireError> {
        Ok(News {
            revision: Revision(reader.varint()?),
        })
    }
}

/// One change: what stands at a path since a revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Where.
    pub path: RelPath,
    /// Since when.
    pub revision: Revision,
    /// What; `None`: it was deleted.
    pub state: Option<State>,
}

/// The head of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChangesHead {
    /// Up to where the client knows the share with this page.
    pub known: Known,
    /// More pages follow; ask again.
    pub more: bool,
    /// What the client knew is void: this is the first page of everything that there is.
    pub anew: bool,
    /// The server's file system takes some names for one.
    pub folds: bool,
}

const GONE: u8 = 3;
const WITH_ROOT: u8 = 4;

/// Collects a page.
#[derive(Debug, Default)]
pub struct ChangesWriter {
    body: Writer,
    previous: Vec<u8>,
    count: usize,
}

impl ChangesWriter {
    /// Adds a change, later than those before it.
    pub fn push(&mut self, path: &RelPath, revision: Revision, state: Option<&State>) {
        let bytes = path.as_bytes();
        let shared = bytes.iter().zip(&self.previous).take_while(|(a, b)| a == b).count();
        let root = state.and_then(|state| state.root);
        let kind = match state.map(|state| &state.kind) {
            Some(Kind::File { .. }) => 0,
            Some(Kind::Directory) => 1,
            Some(Kind::Symlink { .. }) => 2,
            None => GONE,
        };
        self.body.u8(kind | if root.is_some() { WITH_ROOT } else { 0 });
        self.body.varint(revision.0);
        self.body.varint(shared as u64);
        self.body.bytes(&bytes[shared..]);
        if let Some(state) = state {
            self.body.meta(&state.meta);
            match &state.kind {
                Kind::File { size } => self.body.varint(*size),
                Kind::Directory => {}
                Kind::Symlink { target } => self.body.bytes(target),
            }
        }
        if let Some(root) = root {
            self.body.raw(&root);
        }
        self.previous.clear();
        self.previous.extend_from_slice(bytes);
        self.count += 1;
    }

    /// Whether another change may follow: a page has room for a while.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.count < BATCH_ENTRIES_MAX && self.body.len() < PAGE_BYTES
    }

    /// Appends the frame.
    pub fn finish(self, head: &ChangesHead, out: &mut Vec<u8>) {
        let mut writer = Writer::new();
        encode_known(&head.known, &mut writer);
        writer.u8(u8::from(head.more) | u8::from(head.anew) << 1 | u8::from(head.folds) << 2);
        writer.varint(self.count as u64);
        let length = writer.len() + self.body.len();
        out.extend_from_slice(&control_header(FrameType::Changes, 0, length));
        out.extend_from_slice(&writer.into_bytes());
        out.extend_from_slice(&self.body.into_bytes());
    }
}

/// Bytes after which a page is closed; one more change still fits into a frame.
const PAGE_BYTES: usize = 128 * 1024;

/// Walks a page.
#[derive(Debug, PartialEq, Eq)]
pub struct ChangesReader<'a> {
    reader: Reader<'a>,
    head: ChangesHead,
    remaining: usize,
    previous: Vec<u8>,
    last: Revision,
}

impl<'a> ChangesReader<'a> {
    /// Reads the head.
    ///
    /// # Errors
    /// A [`WireError`] for a cut head or a count over [`BATCH_ENTRIES_MAX`].
    pub fn new(payload: &'a [u8]) -> Result<ChangesReader<'a>, WireError> {
        let mut reader = Reader::new(payload);
        let known = decode_known(&mut reader)?;
        let bits = reader.u8()?;
        if bits > 7 {
            return Err(WireError::BadValue("flag"));
        }
        let remaining = reader.count(BATCH_ENTRIES_MAX, "number of changes")?;
        Ok(ChangesReader {
            reader,
            head: ChangesHead {
                known,
                more: bits & 1 != 0,
                anew: bits & 2 != 0,
                folds: bits & 4 != 0,
            },
            remaining,
            previous: Vec::new(),
            last: Revision::NONE,
        })
    }

    /// The head.
    #[must_use]
    pub fn head(&self) -> ChangesHead {
        self.head
    }

    /// The next change.
    ///
    /// # Errors
    /// A [`WireError`] for a malformed change, one that is not later than the one before it or later than the
    /// page, and trailing bytes.
    pub fn next_change(&mut self) -> Result<Option<Change>, WireError> {
        if self.remaining == 0 {
            return match self.reader.is_empty() {
                true => Ok(None),
                false => Err(WireError::Trailing),
            };
        }
        self.remaining -= 1;
        let bits = self.reader.u8()?;
        let revision = Revision(self.reader.varint()?);
        if revision <= self.last || revision > self.head.known.revision {
            return Err(WireError::BadValue("revision"));
        }
        self.last = revision;
        let shared = self.reader.count(self.previous.len(), "shared path prefix")?;
        let rest = self.reader.bytes(PATH_BYTES_MAX, "path")?;
        self.previous.truncate(shared);
        self.previous.extend_from_slice(rest);
        let path = RelPath::parse(&self.previous).map_err(|_| WireError::BadPath)?;
        let state = self.state(bits)?;
        Ok(Some(Change { path, revision, state }))
    }

    fn state(&mut self, bits: u8) -> Result<Option<State>, WireError> {
        if bits == GONE {
            return Ok(None);
        }
        let meta = self.reader.meta()?;
        let kind = match bits & !WITH_ROOT {
            0 => Kind::File {
                size: file_size(&mut self.reader)?,
            },
            1 => Kind::Directory,
            2 => {
                let target = self.reader.bytes(SYMLINK_BYTES_MAX, "link target")?;
                if target.is_empty() || target.contains(&0) {
                    return Err(WireError::BadValue("link target"));
                }
                Kind::Symlink { target: target.into() }
            }
            _ => return Err(WireError::BadValue("entry kind")),
        };
        let root = match (bits & WITH_ROOT != 0, &kind) {
            (false, _) => None,
            (true, Kind::File { .. }) => Some(self.reader.array()?),
            (true, _) => return Err(WireError::BadValue("entry kind")),
        };
        Ok(Some(State { kind, meta, root }))
    }
}

fn encode_known(known: &Known, writer: &mut Writer) {
    writer.u64(known.epoch.0);
    writer.varint(known.revision.0);
    writer.u64(known.mark);
}

fn decode_known(reader: &mut Reader<'_>) -> Result<Known, WireError> {
    Ok(Known {
        epoch: Epoch(reader.u64()?),
        revision: Revision(reader.varint()?),
        mark: reader.u64()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Meta, Timestamp};
    use crate::wire::FRAME_HEADER_BYTES;

    fn path(text: &str) -> RelPath {
        RelPath::parse(text.as_bytes()).unwrap()
    }

    fn states() -> Vec<Option<State>> {
        let state = |kind, root| {
            let mtime = Timestamp { seconds: 5, nanos: 6 };
            Some(State {
                kind,
                meta: Meta { mode: 0o640, mtime },
                root,
            })
        };
        vec![
            state(Kind::File { size: 70_000 }, Some([9; 32])),
            state(Kind::File { size: 0 }, None),
            state(Kind::Directory, None),
            state(
                Kind::Symlink {
                    target: b"x/y"[..].into(),
                },
                None,
            ),
            None,
        ]
    }

    fn page(revisions: &[u64], last: u64) -> Vec<u8> {
        let mut writer = ChangesWriter::default();
        for (state, revision) in states().iter().zip(revisions) {
            let path = path(&format!("a/b{revision}"));
            writer.push(&path, Revision(*revision), state.as_ref());
        }
        let known = Known {
            epoch: Epoch(7),
            revision: Revision(last),
            mark: 99,
        };
        let head = ChangesHead {
            known,
            more: true,
            anew: false,
            folds: true,
        };
        let mut out = Vec::new();
        writer.finish(&head, &mut out);
        out.split_off(FRAME_HEADER_BYTES)
    }

    #[test]
    fn a_page_is_read_as_it_was_written_and_any_cut_is_noticed() {
        let revisions = [1, 3, 4, 200, 70_000];
        let payload = page(&revisions, 70_001);
        let mut reader = ChangesReader::new(&payload).unwrap();
        assert!(reader.head().more && !reader.head().anew && reader.head().folds);
        assert_eq!(reader.head().known.mark, 99);
        for (state, revision) in states().into_iter().zip(revisions) {
            let change = reader.next_change().unwrap().unwrap();
            assert_eq!((change.state, change.revision.0), (state, revision));
            assert_eq!(change.path, path(&format!("a/b{revision}")));
        }
        assert_eq!(reader.next_change(), Ok(None));
        for end in 0..payload.len() {
            let read = ChangesReader::new(&payload[..end]).map(|mut reader| {
                while let Some(change) = reader.next_change()? {
                    drop(change);
                }
                Ok::<_, WireError>(())
            });
            assert!(!matches!(read, Ok(Ok(()))), "{end} bytes");
        }
    }

    // A revision that goes back, or beyond what the page says of itself, would make a client forget changes.
    #[test]
    fn revisions_only_grow_and_stay_within_the_page() {
        for (revisions, last) in [([1, 3, 3, 4, 5], 9), ([1, 2, 3, 4, 10], 9), ([0, 1, 2, 3, 4], 9)] {
            let payload = page(&revisions, last);
            let mut reader = ChangesReader::new(&payload).unwrap();
            let refused = std::iter::repeat_with(|| reader.next_change())
                .take(6)
                .find(Result::is_err);
            assert_eq!(refused, Some(Err(WireError::BadValue("revision"))), "{revisions:?}");
        }
    }

    #[test]
    fn a_question_is_read_as_it_was_written() {
        let known = Known {
            epoch: Epoch(u64::MAX),
            revision: Revision(1 << 40),
            mark: 3,
        };
        let mut frame = Vec::new();
        Since { known, watch: true }.encode(0, &mut frame);
        assert_eq!(
            Since::decode(&frame[FRAME_HEADER_BYTES..]),
            Ok(Since { known, watch: true })
        );
        let mut frame = Vec::new();
        News {
            revision: Revision(300),
        }
        .encode(0, &mut frame);
        assert_eq!(
            News::decode(&frame[FRAME_HEADER_BYTES..]),
            Ok(News {
                revision: Revision(300)
            })
        );
    }
}
