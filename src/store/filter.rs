//! `Filter`: which paths take part in a transfer, from the user's `--exclude` and `--include`.
//!
//! Never touches a file. Key invariant: the rules count and weigh at most what `model::limits` says,
//! so that a decision costs bounded work even when the rules come from a hostile peer.
//!
//! Rules have gitignore syntax, except that `!` and `#` are not special. The first rule that matches
//! decides; without one the path is kept. A directory that is left out is not entered, so an include
//! for something below it has no effect: exclude `dir/*` rather than `dir` to include `dir/x`.

use super::glob::{Glob, GlobError};
use crate::model::limits::{FILTER_BYTES_MAX, FILTER_RULE_BYTES_MAX, FILTER_RULES_MAX};
use crate::model::{RelPath, escape};

/// A compiled list of rules.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    rules: Vec<(Glob, Decision)>,
}

/// One rule, as the user wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rule {
    /// Leave out what matches.
    Exclude(String),
    /// Keep what matches, whatever a later rule says.
    Include(String),
}

/// What becomes of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// It takes part.
    Keep,
    /// It is left out, with everything below it.
    Leave,
}

/// What stands at a path, as far as rules tell it apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathKind {
    /// A directory: rules with a slash at their end can match.
    Directory,
    /// Anything else.
    Other,
}

/// Why rules are refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// More than [`FILTER_RULES_MAX`] rules.
    #[error("there are {0} filter rules, at most {FILTER_RULES_MAX} are possible; join some with * or [ ]")]
    TooMany(usize),
    /// A rule of more than [`FILTER_RULE_BYTES_MAX`] bytes.
    #[error("a filter rule has {0} bytes, at most {FILTER_RULE_BYTES_MAX} are possible")]
    RuleTooLong(usize),
    /// More than [`FILTER_BYTES_MAX`] bytes in all rules together.
    #[error("the filter rules have {0} bytes together, at most {FILTER_BYTES_MAX} are possible")]
    TooLong(usize),
    /// A rule is not a pattern.
    #[error("the filter rule \"{}\" is wrong: {reason}", escape(rule.as_bytes()))]
    Pattern {
        /// The rule as given.
        rule: String,
        /// What is wrong with it.
        reason: GlobError,
    },
}

impl Rule {
    fn pattern(&self) -> &str {
        match self {
            Rule::Exclude(pattern) | Rule::Include(pattern) => pattern,
        }
    }

    fn decision(&self) -> Decision {
        match self {
            Rule::Exclude(_) => Decision::Leave,
            Rule::Include(_) => Decision::Keep,
        }
    }
}

impl Filter {
    /// Compiles rules, in the order in which they are asked.
    ///
    /// # Errors
    /// [`FilterError`] when they are too many or too long, or one is not a pattern.
    pub fn new(rules: &[Rule]) -> Result<Filter, FilterError> {
        if rules.len() > FILTER_RULES_MAX {
            return Err(FilterError::TooMany(rules.len()));
        }
        if let Some(rule) = rules.iter().find(|rule| rule.pattern().len() > FILTER_RULE_BYTES_MAX) {
            return Err(FilterError::RuleTooLong(rule.pattern().len()));
        }
        let total: usize = rules.iter().map(|rule| rule.pattern().len()).sum();
        if total > FILTER_BYTES_MAX {
            return Err(FilterError::TooLong(total));
        }
        let compile = |rule: &Rule| match Glob::parse(rule.pattern().as_bytes()) {
            Ok(glob) => Ok((glob, rule.decision())),
            Err(reason) => Err(FilterError::Pattern {
                rule: rule.pattern().to_owned(),
                reason,
            }),
        };
        Ok(Filter {
            rules: rules.iter().map(compile).collect::<Result<_, _>>()?,
        })
    }

    /// Whether everything is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Decides about one path, given that the directories above it are kept.
    #[must_use]
    pub fn decide(&self, path: &RelPath, kind: PathKind) -> Decision {
        let applies = |glob: &Glob| kind == PathKind::Directory || !glob.directories_only();
        let rule = self.rules.iter().find(|(glob, _)| applies(glob) && glob.matches(path));
        rule.map_or(Decision::Keep, |(_, decision)| *decision)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exclude(pattern: &str) -> Rule {
        Rule::Exclude(pattern.to_owned())
    }

    fn include(pattern: &str) -> Rule {
        Rule::Include(pattern.to_owned())
    }

    fn decide(filter: &Filter, path: &str, kind: PathKind) -> Decision {
        filter.decide(&RelPath::parse(path.as_bytes()).unwrap(), kind)
    }

    // Protects the order: the first rule that matches decides, and without one a path is kept.
    #[test]
    fn the_first_rule_that_matches_decides() {
        use Decision::*;
        let filter = Filter::new(&[include("keep.o"), exclude("*.o"), include("a.o")]).unwrap();
        assert_eq!(decide(&filter, "x/keep.o", PathKind::Other), Keep);
        assert_eq!(decide(&filter, "a.o", PathKind::Other), Leave);
        assert_eq!(decide(&filter, "a.c", PathKind::Other), Keep);
        assert_eq!(decide(&Filter::default(), "a.o", PathKind::Other), Keep);
    }

    // Protects files from rules that mean directories.
    #[test]
    fn a_slash_at_the_end_means_directories_only() {
        let filter = Filter::new(&[exclude("target/"), exclude("/a/b/")]).unwrap();
        for path in ["target", "x/target", "a/b"] {
            assert_eq!(decide(&filter, path, PathKind::Directory), Decision::Leave, "{path}");
            assert_eq!(decide(&filter, path, PathKind::Other), Decision::Keep, "{path}");
        }
    }

    // Protects memory and the loop from rules of a hostile peer.
    #[test]
    fn row_14_rules_are_bounded_in_number_and_size() {
        let many = vec![exclude("a"); FILTER_RULES_MAX + 1];
        assert_eq!(Filter::new(&many).unwrap_err(), FilterError::TooMany(many.len()));
        assert!(Filter::new(&many[1..]).is_ok());
        let long = exclude(&"a".repeat(FILTER_RULE_BYTES_MAX + 1));
        assert!(matches!(Filter::new(&[long]), Err(FilterError::RuleTooLong(_))));
        let full = exclude(&"a".repeat(FILTER_RULE_BYTES_MAX));
        let count = FILTER_BYTES_MAX / FILTER_RULE_BYTES_MAX;
        assert!(Filter::new(&vec![full.clone(); count]).is_ok());
        assert!(matches!(
            Filter::new(&vec![full; count + 1]),
            Err(FilterError::TooLong(_))
        ));
    }

    // Protects the user from a typing mistake, and the terminal from the rule.
    #[test]
    fn a_wrong_rule_is_named_and_explained() {
        let error = Filter::new(&[exclude("ok"), exclude("a[\u{1b}")]).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("a[\\u{1b}") && text.contains("no ]"), "{text}");
    }
}
