//! The request that starts a transfer: direction, switches, places, filter rules.

use super::codec::{Reader, WireError, Writer};
use super::frame::FrameType;
use super::message::{Message, flag};
use crate::model::RelPath;
use crate::model::limits::{FILTER_RULE_BYTES_MAX, FILTER_RULES_MAX, SOURCES_MAX};

/// Which way content flows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// The client sends.
    Push,
    /// The server sends.
    Pull,
}

/// Switches of a transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BeginFlags {
    /// Compare and report only.
    pub dry_run: bool,
    /// Compare contents, not size and time.
    pub checksum: bool,
    /// Remove what the source does not have.
    pub delete: bool,
    /// Change files where they lie, when what they keep stays where it is.
    pub in_place: bool,
    /// Entries are bound to revisions: what was changed since is not taken, and sources are single entries under
    /// their whole paths.
    pub sync: bool,
}

/// The limit on deletions, as it stands on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Brake {
    /// The default of the receiving side.
    Default,
    /// At most so many entries.
    Count(u64),
    /// At most so many percent of the entries.
    Percent(u8),
    /// No limit.
    Unlimited,
}

/// A filter rule, gitignore syntax, as it stands on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rule {
    /// Leave out what matches.
    Exclude(String),
    /// Keep what matches.
    Include(String),
}

/// One thing to pull.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PullSource {
    /// In the share; `None` is its root.
    pub path: Option<RelPath>,
    /// The directory's contents rather than the directory.
    pub contents_only: bool,
}

/// The client starts a transfer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Begin {
    /// Which way.
    pub direction: Direction,
    /// How.
    pub flags: BeginFlags,
    /// How much may be deleted.
    pub brake: Brake,
    /// Push: where it goes. `None` is the share's root.
    pub target: Option<RelPath>,
    /// Push: the directories of the share that a deletion may touch.
    pub scopes: Vec<Option<RelPath>>,
    /// Pull: what to fetch.
    pub sources: Vec<PullSource>,
    /// What to leave out, on both sides.
    pub rules: Vec<Rule>,
}

impl Begin {
    /// Bytes of memory that it takes, about.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        let path = |path: &Option<RelPath>| size_of_val(path) + path.as_ref().map_or(0, |path| path.as_bytes().len());
        let scopes = self.scopes.iter().map(path).sum::<usize>();
        let sources = self.sources.iter().map(|source| path(&source.path)).sum::<usize>();
        let rule = |rule: &Rule| {
            let (Rule::Exclude(text) | Rule::Include(text)) = rule;
            size_of::<Rule>() + text.len()
        };
        let rules = self.rules.iter().map(rule).sum::<usize>();
        size_of::<Begin>() + path(&self.target) + scopes + sources + rules
    }
}

impl<'a> Message<'a> for Begin {
    const KIND: FrameType = FrameType::Begin;

    fn encode_payload(&self, writer: &mut Writer) {
        let flags = &self.flags;
        writer.u8(match self.direction {
            Direction::Push => 0,
            Direction::Pull => 1,
        });
        writer.u8(u8::from(flags.dry_run)
            | u8::from(flags.checksum) << 1
            | u8::from(flags.delete) << 2
            | u8::from(flags.in_place) << 3
            | u8::from(flags.sync) << 4);
        let (tag, value) = match self.brake {
            Brake::Default => (0, 0),
            Brake::Count(count) => (1, count),
            Brake::Percent(percent) => (2, u64::from(percent)),
            Brake::Unlimited => (3, 0),
        };
        writer.u8(tag);
        writer.varint(value);
        writer.path_or_root(self.target.as_ref());
        writer.varint(self.scopes.len() as u64);
        self.scopes.iter().for_each(|scope| writer.path_or_root(scope.as_ref()));
        writer.varint(self.sources.len() as u64);
        for source in &self.sources {
            writer.path_or_root(source.path.as_ref());
            writer.u8(u8::from(source.contents_only));
        }
        writer.varint(self.rules.len() as u64);
        for rule in &self.rules {
            let (tag, text) = match rule {
                Rule::Exclude(text) => (0, text),
                Rule::Include(text) => (1, text),
            };
            writer.u8(tag);
            writer.bytes(text.as_bytes());
        }
    }

    fn decode_payload(reader: &mut Reader<'a>) -> Result<Self, WireError> {
        let direction = match reader.u8()? {
            0 => Direction::Push,
            1 => Direction::Pull,
            _ => return Err(WireError::BadValue("direction")),
        };
        let bits = reader.u8()?;
        if bits > 31 {
            return Err(WireError::BadValue("flag"));
        }
        let flags = BeginFlags {
            dry_run: bits & 1 != 0,
            checksum: bits & 2 != 0,
            delete: bits & 4 != 0,
            in_place: bits & 8 != 0,
            sync: bits & 16 != 0,
        };
        let brake = decode_brake(reader)?;
        let target = reader.path_or_root()?;
        let count = reader.count(SOURCES_MAX, "number of scopes")?;
        let scopes = (0..count).map(|_| reader.path_or_root()).collect::<Result<_, _>>()?;
        let count = reader.count(SOURCES_MAX, "number of sources")?;
        let sources = (0..count).map(|_| decode_source(reader)).collect::<Result<_, _>>()?;
        let count = reader.count(FILTER_RULES_MAX, "number of rules")?;
        let rules = (0..count).map(|_| decode_rule(reader)).collect::<Result<_, _>>()?;
        Ok(Begin {
            direction,
            flags,
            brake,
            target,
            scopes,
            sources,
            rules,
        })
    }
}

fn decode_brake(reader: &mut Reader<'_>) -> Result<Brake, WireError> {
    let tag = reader.u8()?;
    let value = reader.varint()?;
    match (tag, value) {
        (0, 0) => Ok(Brake::Default),
        (1, count) => Ok(Brake::Count(count)),
        (2, percent @ 0..=100) => Ok(Brake::Percent(percent as u8)),
        (3, 0) => Ok(Brake::Unlimited),
        _ => Err(WireError::BadValue("deletion limit")),
    }
}

fn decode_source(reader: &mut Reader<'_>) -> Result<PullSource, WireError> {
    Ok(PullSource {
        path: reader.path_or_root()?,
        contents_only: flag(reader)?,
    })
}

fn decode_rule(reader: &mut Reader<'_>) -> Result<Rule, WireError> {
    let include = flag(reader)?;
    let text = reader.text(FILTER_RULE_BYTES_MAX, "filter rule")?.to_owned();
    Ok(if include {
        Rule::Include(text)
    } else {
        Rule::Exclude(text)
    })
}
