//! `Ignore`: whether a path takes part, by the rules of all directories above it.
//!
//! 1. The rules of a directory apply beneath it; those of deeper directories come first; within a file the last
//!    rule that matches decides. Built-in rules come last of all.
//! 2. What is in a directory that is left out is left out, too, whatever rules say.
//! 3. Files named [`Ignore::FILE_NAME`] always take part, unless their directory is left out.
//!
//! The rules of the directories above the last path are kept as a stack, so that a walk in order of depth
//! reads each file once; some more are remembered by path. Both are only as fresh as the last
//! [`Ignore::forget`]. Never follows a link. Invariant: an answer costs bounded work, and where rules cannot be
//! known the answer is to leave out.

use super::litter::{DISPOSABLE, LITTER};
use super::rules::{CompiledRule, Fault, IgnoreProblem, Reason, RuleFile};
use crate::model::limits::{
    IGNORE_ACTIVE_BYTES_MAX, IGNORE_CACHED_BYTES_MAX, IGNORE_CACHED_MAX, IGNORE_FILE_BYTES_MAX, IGNORE_PROBLEMS_MAX,
};
use crate::model::{ItemCode, RelPath};
use crate::store::error::FileError;
use crate::store::root::Root;
use crate::store::scan::{Keep, Shape};
use std::collections::HashMap;
use std::sync::Arc;

/// The ignore rules of one tree.
#[derive(Debug)]
pub struct Ignore {
    litter: RuleFile,
    /// One for each directory from the root to the last path's own, or to the first that is left out.
    levels: Vec<Level>,
    /// The path of the last level's directory.
    directory: Vec<u8>,
    cache: HashMap<Box<[u8]>, Option<Arc<RuleFile>>>,
    cached_bytes: usize,
    problems: Vec<IgnoreProblem>,
}

/// What becomes of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It takes part.
    Kept,
    /// It does not.
    Left {
        /// The path itself, or the directory above it that is left out.
        at: RelPath,
        /// Why.
        reason: Reason,
    },
}

#[derive(Debug)]
struct Level {
    /// Bytes of the directory's path.
    length: usize,
    rules: Loaded,
    /// Bytes of the rules up to here.
    bytes: usize,
    /// The directory is left out itself.
    left: Option<Reason>,
}

#[derive(Debug, Clone)]
enum Loaded {
    None,
    Rules(Arc<RuleFile>),
    /// They are there, and cannot be used.
    Unknown,
}

/// Who decided.
enum Decision<'a> {
    Nobody,
    Rule(&'a Level, &'a CompiledRule),
    BuiltIn(&'a CompiledRule),
    Unknown(&'a Level),
}

impl Default for Ignore {
    fn default() -> Ignore {
        Ignore::new()
    }
}

impl Ignore {
    /// The name of a file of rules, in any directory.
    pub const FILE_NAME: &'static str = ".synclineignore";

    /// Knows the built-in rules only, and reads others when they are needed.
    #[must_use]
    pub fn new() -> Ignore {
        Ignore::with_built_in(LITTER)
    }

    pub(super) fn with_built_in(rules: &[&str]) -> Ignore {
        let litter = RuleFile::parse(rules.join("\n").as_bytes(), false, |_| {
            debug_assert!(false, "the built-in rules are patterns");
        });
        Ignore {
            litter,
            levels: Vec::new(),
            directory: Vec::new(),
            cache: HashMap::new(),
            cached_bytes: 0,
            problems: Vec::new(),
        }
    }

    /// Whether `path` names a file of rules. When it changed, [`Ignore::forget`] is due, a look at
    /// everything in its directory, and [`Watch::again`](crate::store::Watch::again).
    #[must_use]
    pub fn is_rules(path: &RelPath) -> bool {
        path.name() == Ignore::FILE_NAME.as_bytes()
    }

    /// Whether a system makes a file of that name by itself wherever it looks, so that nobody misses it with its
    /// directory. What else is litter may be somebody's: a trash, a lock, the swap file of an editor.
    #[must_use]
    pub fn is_disposable(path: &RelPath) -> bool {
        DISPOSABLE.iter().any(|name| path.name().eq_ignore_ascii_case(name))
    }

    /// Reads all rules again when they are needed next: before a scan, and after one of their files changed or
    /// a directory was renamed.
    pub fn forget(&mut self) {
        self.levels.clear();
        self.directory.clear();
        self.cache.clear();
        self.cached_bytes = 0;
    }

    /// Rules that have no effect, since this was asked last.
    pub fn take_problems(&mut self) -> Vec<IgnoreProblem> {
        std::mem::take(&mut self.problems)
    }

    /// Whether `path` takes part; the same as [`Ignore::judge`] without its words.
    pub fn keep(&mut self, root: &Root, path: &RelPath, shape: Shape) -> Keep {
        self.enter(root, path);
        let is_left = self.levels.last().is_some_and(|level| level.left.is_some());
        if is_left || self.decide(path, shape).keeps() == Keep::No {
            return Keep::No;
        }
        Keep::Yes
    }

    /// Whether `path` takes part, and which rule says so if it does not. `root` is always the same one; nothing
    /// has to stand at `path`, `shape` is what it is, or was.
    pub fn judge(&mut self, root: &Root, path: &RelPath, shape: Shape) -> Verdict {
        self.enter(root, path);
        if let Some(reason) = self.levels.last().and_then(|level| level.left.clone()) {
            let at = RelPath::parse(&self.directory).expect("a directory that rules decided about has a path");
            return Verdict::Left { at, reason };
        }
        let decision = self.decide(path, shape);
        match (decision.keeps(), self.reason_of(&decision)) {
            (Keep::No, Some(reason)) => Verdict::Left {
                at: path.clone(),
                reason,
            },
            _ => Verdict::Kept,
        }
    }

    /// Makes the levels those of the directories above `path`, as far as none is left out.
    fn enter(&mut self, root: &Root, path: &RelPath) {
        if self.levels.is_empty() {
            self.push(root, None);
        }
        let above = path.split_last().0.unwrap_or_default();
        if above == self.directory {
            return;
        }
        while !is_at_or_above(&self.directory, above) {
            self.levels.pop();
            let length = self.levels.last().map_or(0, |level| level.length);
            self.directory.truncate(length);
        }
        while self.directory.len() < above.len() {
            if self.levels.last().is_some_and(|level| level.left.is_some()) {
                return;
            }
            let start = self.directory.len() + usize::from(!self.directory.is_empty());
            let end = above[start..].iter().position(|&byte| byte == b'/');
            let next = &above[..end.map_or(above.len(), |end| start + end)];
            let next = RelPath::parse(next).expect("the beginning of a legal path is one");
            self.push(root, Some(&next));
        }
    }

    /// Goes into one directory more.
    fn push(&mut self, root: &Root, directory: Option<&RelPath>) {
        let left = directory.and_then(|path| {
            let decision = self.decide(path, Shape::Directory);
            (decision.keeps() == Keep::No)
                .then(|| self.reason_of(&decision))
                .flatten()
        });
        let path = directory.map_or(&b""[..], RelPath::as_bytes);
        let above = self.levels.last().map_or(0, |level| level.bytes);
        let mut rules = if left.is_some() {
            Loaded::None
        } else {
            self.load(root, path)
        };
        let mut bytes = above + rules.bytes();
        if bytes > IGNORE_ACTIVE_BYTES_MAX {
            self.complain(path, Fault::TooMuchTogether);
            (rules, bytes) = (Loaded::Unknown, above);
        }
        self.directory = path.to_vec();
        let length = path.len();
        self.levels.push(Level {
            length,
            rules,
            bytes,
            left,
        });
    }

    /// Decides by the rules of all levels, which are those of directories above `path`.
    fn decide(&self, path: &RelPath, shape: Shape) -> Decision<'_> {
        if shape == Shape::Other && Ignore::is_rules(path) {
            return Decision::Nobody;
        }
        for level in self.levels.iter().rev() {
            match &level.rules {
                Loaded::None => {}
                Loaded::Unknown => return Decision::Unknown(level),
                Loaded::Rules(rules) => {
                    let start = level.length + usize::from(level.length > 0);
                    if let Some(rule) = rules.decide(&path.as_bytes()[start..], shape) {
                        return Decision::Rule(level, rule);
                    }
                }
            }
        }
        self.litter
            .decide(path.as_bytes(), shape)
            .map_or(Decision::Nobody, Decision::BuiltIn)
    }

    fn reason_of(&self, decision: &Decision<'_>) -> Option<Reason> {
        let file_of = |level: &Level| file_in(&self.directory[..level.length]);
        Some(match decision {
            Decision::Nobody => return None,
            Decision::Rule(level, rule) => Reason::Rule {
                file: file_of(level)?,
                line: rule.line,
                pattern: rule.text.clone(),
            },
            Decision::BuiltIn(rule) => Reason::BuiltIn {
                pattern: String::from_utf8_lossy(&rule.text).into_owned(),
            },
            Decision::Unknown(level) => Reason::Unknown { file: file_of(level)? },
        })
    }

    fn load(&mut self, root: &Root, directory: &[u8]) -> Loaded {
        if let Some(known) = self.cache.get(directory) {
            return known.clone().map_or(Loaded::None, Loaded::Rules);
        }
        // Where there is no room for the name, there is no such file.
        let Some(path) = file_in(directory) else {
            return Loaded::None;
        };
        let rules = match read(root, &path) {
            Ok(None) => None,
            Ok(Some((text, is_cut))) => {
                let rules = RuleFile::parse(&text, is_cut, |fault| self.complain(directory, fault));
                (!rules.is_empty()).then(|| Arc::new(rules))
            }
            // Not remembered: it may be a lack of descriptors.
            Err(error) => {
                self.complain(directory, Fault::Unreadable(error.reason()));
                return Loaded::Unknown;
            }
        };
        let bytes = rules.as_ref().map_or(0, |rules| rules.bytes());
        if self.cache.len() >= IGNORE_CACHED_MAX || self.cached_bytes + bytes > IGNORE_CACHED_BYTES_MAX {
            self.cache.clear();
            self.cached_bytes = 0;
        }
        self.cached_bytes += bytes;
        self.cache.insert(directory.into(), rules.clone());
        rules.map_or(Loaded::None, Loaded::Rules)
    }

    fn complain(&mut self, directory: &[u8], fault: Fault) {
        if let Some(file) = file_in(directory)
            && self.problems.len() < IGNORE_PROBLEMS_MAX
        {
            let problem = IgnoreProblem { file, fault };
            if !self.problems.contains(&problem) {
                self.problems.push(problem);
            }
        }
    }
}

impl Loaded {
    fn bytes(&self) -> usize {
        match self {
            Loaded::Rules(rules) => rules.bytes(),
            Loaded::None | Loaded::Unknown => 0,
        }
    }
}

impl Decision<'_> {
    fn keeps(&self) -> Keep {
        match self {
            Decision::Nobody => Keep::Yes,
            Decision::Rule(_, rule) | Decision::BuiltIn(rule) => rule.keeps(),
            Decision::Unknown(_) => Keep::No,
        }
    }
}

/// The file of rules in a directory.
fn file_in(directory: &[u8]) -> Option<RelPath> {
    let name = Ignore::FILE_NAME.as_bytes();
    if directory.is_empty() {
        return RelPath::parse(name).ok();
    }
    RelPath::parse(&[directory, name].join(&b'/')).ok()
}

fn is_at_or_above(directory: &[u8], path: &[u8]) -> bool {
    directory.is_empty()
        || path
            .strip_prefix(directory)
            .is_some_and(|rest| matches!(rest.first(), None | Some(b'/')))
}

/// The beginning of a file of rules, and whether it goes on; `None` when there is none.
fn read(root: &Root, path: &RelPath) -> Result<Option<(Vec<u8>, bool)>, FileError> {
    let file = match root.open_file(path) {
        Ok(file) => file,
        // A directory of that name is a directory.
        Err(error) if matches!(error.code(), ItemCode::Vanished | ItemCode::InTheWay) => return Ok(None),
        // Beneath what became a link there are no rules; a file of rules that is a link is another matter.
        Err(error) if error.code() == ItemCode::Escapes && root.probe(path).is_err() => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut text = vec![0; IGNORE_FILE_BYTES_MAX + 1];
    let length = file.read_at(0, &mut text)?;
    text.truncate(length.min(IGNORE_FILE_BYTES_MAX));
    Ok(Some((text, length > IGNORE_FILE_BYTES_MAX)))
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
