//! Changes of a share without content: moves and removals, each based on a revision.
//!
//! Invariant: a list meets its limit of entries before it is kept, and an answer has exactly one outcome for
//! each of them.

use super::codec::{Reader, WireError, Writer};
use super::frame::FrameType;
use super::message::{Message, failure};
use crate::model::limits::BATCH_ENTRIES_MAX;
use crate::model::{ItemCode, RelPath, Revision};

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Alteration {
    /// What stands at `path` goes to the versions; a directory only when it is empty.
    Remove {
        /// Where.
        path: RelPath,
        /// The revision that the client saw there.
        based_on: Revision,
    },
    /// What stands at `from` gets another name.
    Move {
        /// Where it is.
        from: RelPath,
        /// The revision that the client saw there.
        from_based_on: Revision,
        /// Where it goes; nothing may stand there.
        to: RelPath,
    },
}

/// Client: changes, to be made in this order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Alter {
    /// At most [`BATCH_ENTRIES_MAX`].
    pub list: Vec<Alteration>,
}

impl Alter {
    /// Bytes of memory that it takes, about.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        let paths = self.list.iter().map(|one| match one {
            Alteration::Remove { path, .. } => path.as_bytes().len(),
            Alteration::Move { from, to, .. } => from.as_bytes().len() + to.as_bytes().len(),
        });
        self.list.capacity() * size_of::<Alteration>() + paths.sum::<usize>()
    }
}

impl<'a> Message<'a> for Alter {
    const KIND: FrameType = FrameType::Alter;

    fn encode_payload(&self, writer: &mut Writer) {
        writer.varint(self.list.len() as u64);
        for one in &self.list {
            match one {
                Alteration::Remove { path, based_on } => {
                    writer.u8(0);
                    writer.bytes(path.as_bytes());
                    writer.varint(based_on.0);
                }
                Alteration::Move {
                    from,
                    from_based_on,
                    to,
                } => {
                    writer.u8(1);
                    writer.bytes(from.as_bytes());
                    writer.varint(from_based_on.0);
                    writer.bytes(to.as_bytes());
                }
            }
        }
    }

    fn decode_payload(reader: &mut Reader<'a>) -> Result<Self, WireError> {
        let count = reader.count(BATCH_ENTRIES_MAX, "number of changes")?;
        let one = |reader: &mut Reader<'a>| match reader.u8()? {
            0 => Ok(Alteration::Remove {
                path: path(reader)?,
                based_on: revision(reader)?,
            }),
            1 => Ok(Alteration::Move {
                from: path(reader)?,
                from_based_on: revision(reader)?,
                to: path(reader)?,
            }),
            _ => Err(WireError::BadValue("kind of change")),
        };
        let list = (0..count).map(|_| one(reader)).collect::<Result<_, _>>()?;
        Ok(Alter { list })
    }
}

/// Server: what became of an [`Alter`], one outcome for each of its changes; durable, as commits are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Altered {
    /// In the order of the changes; [`ItemCode::Stale`] for what was changed since.
    pub outcomes: Vec<Result<(), ItemCode>>,
}

impl<'a> Message<'a> for Altered {
    const KIND: FrameType = FrameType::Altered;

    fn encode_payload(&self, writer: &mut Writer) {
        let runs: Vec<&[Result<(), ItemCode>]> = self.outcomes.chunk_by(PartialEq::eq).collect();
        writer.varint(runs.len() as u64);
        for run in runs {
            writer.u8(match run[0] {
                Ok(()) => 0,
                Err(code) => 0x80 | code as u8,
            });
            writer.varint(run.len() as u64);
        }
    }

    fn decode_payload(reader: &mut Reader<'a>) -> Result<Self, WireError> {
        let runs = reader.count(BATCH_ENTRIES_MAX, "number of answers")?;
        let mut outcomes = Vec::new();
        for _ in 0..runs {
            let outcome = match reader.u8()? {
                0 => Ok(()),
                byte => Err(failure(byte)?),
            };
            let count = reader.count(BATCH_ENTRIES_MAX - outcomes.len(), "number of answers")?;
            if count == 0 || outcomes.last() == Some(&outcome) {
                return Err(WireError::BadValue("number of answers"));
            }
            outcomes.resize(outcomes.len() + count, outcome);
        }
        Ok(Altered { outcomes })
    }
}

fn path(reader: &mut Reader<'_>) -> Result<RelPath, WireError> {
    reader.path_or_root()?.ok_or(WireError::BadPath)
}

fn revision(reader: &mut Reader<'_>) -> Result<Revision, WireError> {
    reader.varint().map(Revision)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::FRAME_HEADER_BYTES;

    fn path(text: &str) -> RelPath {
        RelPath::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn changes_are_read_as_they_were_written() {
        let list = vec![
            Alteration::Remove {
                path: path("a/b"),
                based_on: Revision(300),
            },
            Alteration::Move {
                from: path("a"),
                from_based_on: Revision(1),
                to: path("b"),
            },
        ];
        let alter = Alter { list };
        let mut frame = Vec::new();
        alter.encode(0, &mut frame);
        let payload = &frame[FRAME_HEADER_BYTES..];
        assert_eq!(Alter::decode(payload), Ok(alter));
        for end in 0..payload.len() {
            assert!(Alter::decode(&payload[..end]).is_err(), "{end} bytes");
        }
    }

    // Runs that promise more answers than a list can have would take memory for nothing.
    #[test]
    fn outcomes_are_read_as_they_were_written_and_counted() {
        let mut outcomes = vec![Ok(()); 4000];
        outcomes.extend([Err(ItemCode::Stale), Err(ItemCode::Stale), Ok(())]);
        let altered = Altered { outcomes };
        let mut frame = Vec::new();
        altered.encode(0, &mut frame);
        assert!(frame.len() < 20, "{} bytes", frame.len());
        assert_eq!(Altered::decode(&frame[FRAME_HEADER_BYTES..]), Ok(altered));
        let mut writer = Writer::new();
        writer.varint(2);
        for _ in 0..2 {
            writer.u8(0);
            writer.varint(BATCH_ENTRIES_MAX as u64);
        }
        let too_many = Altered::decode(&writer.into_bytes()).unwrap_err();
        assert_eq!(too_many, WireError::OverLimit("number of answers"));
    }
}
