//! `RuleFile`: the rules of one file, compiled. Never opens it.
//!
//! A line is a rule, as git reads it: `#` begins a comment, `!` brings back, a slash at the end means
//! directories, a slash elsewhere means a path from the file's own directory, `\` takes the meaning of the
//! next byte, spaces at the end count only behind a `\`. The last rule that matches decides.
//!
//! Invariant: what is kept of a file is bounded, and whatever is left out of it is told as a problem.

use crate::model::limits::{FILTER_RULE_BYTES_MAX, IGNORE_ACTIVE_BYTES_MAX, IGNORE_FILE_BYTES_MAX, IGNORE_RULES_MAX};
use crate::model::{Escaped, RelPath};
use crate::store::glob::{Glob, GlobError};
use crate::store::scan::{Keep, Shape};
use std::fmt;

/// Compiled rules of one directory.
#[derive(Debug, Default)]
pub(super) struct RuleFile {
    rules: Vec<CompiledRule>,
    bytes: usize,
}

#[derive(Debug)]
pub(super) struct CompiledRule {
    glob: Glob,
    keeps: Keep,
    /// From 1.
    pub(super) line: u32,
    /// As written, without spaces at its end.
    pub(super) text: Box<[u8]>,
}

/// Which rule leaves a path out. Displays as `docs/.synclineignore:3: *.log`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// A rule of a file.
    Rule {
        /// The file.
        file: RelPath,
        /// Its line, from 1.
        line: u32,
        /// The rule as written there.
        pattern: Box<[u8]>,
    },
    /// A rule that is always there.
    BuiltIn {
        /// The rule.
        pattern: String,
    },
    /// The rules for it cannot be known: nothing that may be private leaves this device by mistake.
    Unknown {
        /// The file of rules that cannot be read.
        file: RelPath,
    },
}

/// Rules that have no effect, and why. Displays as one sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IgnoreProblem {
    pub(super) file: RelPath,
    pub(super) fault: Fault,
}

/// What is wrong with a file of rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    /// A line is no pattern.
    Pattern { line: u32, reason: GlobError },
    /// A line has more than [`FILTER_RULE_BYTES_MAX`] bytes.
    LongRule { line: u32 },
    /// More than [`IGNORE_RULES_MAX`] rules.
    ManyRules,
    /// More than [`IGNORE_FILE_BYTES_MAX`] bytes.
    LongFile,
    /// It could not be read; the text says why.
    Unreadable(String),
    /// More than [`IGNORE_ACTIVE_BYTES_MAX`] bytes of rules, together with those of the directories above.
    TooMuchTogether,
}

impl RuleFile {
    /// Compiles the first rules of `text`, and tells what has no effect. `is_cut` says that the file goes on.
    pub(super) fn parse(text: &[u8], is_cut: bool, mut fault: impl FnMut(Fault)) -> RuleFile {
        let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
        let text = if is_cut {
            fault(Fault::LongFile);
            // Half a rule could mean anything.
            &text[..text.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1)]
        } else {
            text
        };
        let mut file = RuleFile::default();
        for (number, line) in (1..).zip(text.split(|&byte| byte == b'\n')) {
            let Some(line) = content_of(line) else {
                continue;
            };
            if file.rules.len() == IGNORE_RULES_MAX {
                fault(Fault::ManyRules);
                break;
            }
            if line.len() > FILTER_RULE_BYTES_MAX {
                fault(Fault::LongRule { line: number });
                continue;
            }
            match CompiledRule::parse(line, number) {
                Ok(rule) => file.push(rule),
                Err(reason) => fault(Fault::Pattern { line: number, reason }),
            }
        }
        file
    }

    fn push(&mut self, rule: CompiledRule) {
        self.bytes += rule.text.len();
        self.rules.push(rule);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Bytes of its rules; times the bytes of a path it bounds the work of [`RuleFile::decide`].
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The rule that decides about `path`, which is relative to the file's directory.
    pub(super) fn decide(&self, path: &[u8], shape: Shape) -> Option<&CompiledRule> {
        let applies = |rule: &&CompiledRule| {
            (shape == Shape::Directory || !rule.glob.directories_only()) && rule.glob.matches_bytes(path)
        };
        self.rules.iter().rev().find(applies)
    }
}

impl CompiledRule {
    fn parse(text: &[u8], line: u32) -> Result<CompiledRule, GlobError> {
        let (pattern, keeps) = match text.strip_prefix(b"!") {
            Some(pattern) => (pattern, Keep::Yes),
            None => (text, Keep::No),
        };
        Ok(CompiledRule {
            glob: Glob::parse(pattern)?,
            keeps,
            line,
            text: text.into(),
        })
    }

    pub(super) fn keeps(&self) -> Keep {
        self.keeps
    }
}

/// A file of rules with only those that have an effect, on their lines, and what is decided about `path`.
pub(in crate::store) fn rewritten(text: &[u8], is_cut: bool, path: &[u8]) -> (Vec<u8>, [Option<u32>; 2]) {
    let file = RuleFile::parse(text, is_cut, drop);
    let decided = [Shape::Directory, Shape::Other].map(|shape| file.decide(path, shape).map(|rule| rule.line));
    // What begins the first line could be taken for a mark of the encoding.
    let (mut out, mut line) = (b"\xef\xbb\xbf".to_vec(), 1);
    for rule in &file.rules {
        out.extend(std::iter::repeat_n(b'\n', (rule.line - line) as usize));
        out.extend_from_slice(&rule.text);
        out.push(b'\r');
        line = rule.line;
    }
    out.push(b'\n');
    (out, decided)
}

/// What of a line is a rule; `None` for comments and empty lines.
fn content_of(line: &[u8]) -> Option<&[u8]> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.first() == Some(&b'#') {
        return None;
    }
    let line = without_spaces_at_end(line);
    (!line.is_empty()).then_some(line)
}

fn without_spaces_at_end(line: &[u8]) -> &[u8] {
    let mut end = line.len();
    while end > 0 && line[end - 1] == b' ' {
        end -= 1;
    }
    let escapes = line[..end].iter().rev().take_while(|&&byte| byte == b'\\').count();
    // An odd number of them: the last one escapes the first space.
    if escapes % 2 == 1 && end < line.len() {
        end += 1;
    }
    &line[..end]
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Rule { file, line, pattern } => write!(f, "{file}:{line}: {}", Escaped(pattern)),
            Reason::BuiltIn { pattern } => write!(f, "built-in rule: {pattern}"),
            Reason::Unknown { file } => write!(f, "{file} cannot be used"),
        }
    }
}

impl fmt::Display for IgnoreProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = &self.file;
        match &self.fault {
            Fault::Pattern { line, reason } => write!(f, "line {line} of {file} has no effect: {reason}"),
            Fault::LongRule { line } => write!(
                f,
                "line {line} of {file} has no effect: it has more than {FILTER_RULE_BYTES_MAX} bytes; shorten it with *"
            ),
            Fault::ManyRules => write!(
                f,
                "{file} has more than {IGNORE_RULES_MAX} rules, the others have no effect; join some with * or [ ]"
            ),
            Fault::LongFile => write!(
                f,
                "{file} has more than {IGNORE_FILE_BYTES_MAX} bytes, the rest has no effect; join some rules with * or [ ]"
            ),
            Fault::Unreadable(why) => write!(
                f,
                "{file} cannot be read ({why}), so nothing in its directory is synced; make it a readable file or remove it"
            ),
            Fault::TooMuchTogether => write!(
                f,
                "{file} and the rules above it have more than {IGNORE_ACTIVE_BYTES_MAX} bytes, so nothing in its directory is synced; shorten it"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &[u8]) -> (RuleFile, Vec<Fault>) {
        let mut faults = Vec::new();
        let file = RuleFile::parse(text, false, |fault| faults.push(fault));
        (file, faults)
    }

    fn texts(file: &RuleFile) -> Vec<(u32, String, Keep)> {
        let text = |rule: &CompiledRule| String::from_utf8(rule.text.to_vec()).unwrap();
        file.rules
            .iter()
            .map(|rule| (rule.line, text(rule), rule.keeps))
            .collect()
    }

    // Protects users' habits: comments, spaces, line ends and escapes are read as git reads them.
    #[test]
    fn lines_are_read_as_git_reads_them() {
        let (file, faults) = parse(b"\xef\xbb\xbf# no\n\n   \na \r\n!b\n\\#c\n\\!d\ne\\ \nf\\\\ \n #g\nlast");
        assert_eq!(faults, []);
        let want = [
            (4, "a", Keep::No),
            (5, "!b", Keep::Yes),
            (6, "\\#c", Keep::No),
            (7, "\\!d", Keep::No),
            (8, "e\\ ", Keep::No),
            (9, "f\\\\", Keep::No),
            (10, " #g", Keep::No),
            (11, "last", Keep::No),
        ];
        assert_eq!(
            texts(&file),
            want.map(|(line, text, keeps)| (line, text.to_owned(), keeps))
        );
    }

    // Protects the user from rules that silently do nothing, and the rest of the file from one wrong line.
    #[test]
    fn what_has_no_effect_is_told_and_the_rest_holds() {
        let long = "x".repeat(FILTER_RULE_BYTES_MAX + 1);
        let (file, faults) = parse(format!("a[\n{long}\nb\n").as_bytes());
        assert_eq!(texts(&file), [(3, "b".to_owned(), Keep::No)]);
        let reason = GlobError::OpenClass;
        assert_eq!(
            faults,
            [Fault::Pattern { line: 1, reason }, Fault::LongRule { line: 2 }]
        );
        let problem = IgnoreProblem {
            file: RelPath::parse(b"d\x1b/.synclineignore").unwrap(),
            fault: faults[0].clone(),
        };
        let text = problem.to_string();
        assert!(
            text.starts_with("line 1 of d\\u{1b}/.synclineignore has no effect: a [ has no ]"),
            "{text}"
        );
    }

    // Row 14. Protects memory and the loop from a file that a peer sent.
    #[test]
    fn row_14_a_file_of_rules_is_bounded() {
        let (file, faults) = parse(&b"a\n".repeat(IGNORE_RULES_MAX + 1));
        assert_eq!(
            (file.rules.len(), &faults[..]),
            (IGNORE_RULES_MAX, &[Fault::ManyRules][..])
        );
        let mut faults = Vec::new();
        let file = RuleFile::parse(b"a\nb", true, |fault| faults.push(fault));
        assert_eq!(texts(&file), [(1, "a".to_owned(), Keep::No)], "half a line is no rule");
        assert_eq!(faults, [Fault::LongFile]);
    }
}
