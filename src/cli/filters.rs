//! `--exclude`, `--include` and `--exclude-from` in the order in which they were written: the first
//! rule that matches decides, so the order between the three matters.
//! Never matches a path: the rules are handed to the engine as they are.

use super::complaint::{Complaint, reason};
use super::report::plain;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};
use std::io::Read;
use std::path::{Path, PathBuf};
use syncline::model::limits::{FILTER_RULE_BYTES_MAX, FILTER_RULES_MAX};
use syncline::node::FilterRule;

/// The filter flags as given, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct FilterFlags(Vec<Given>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Given {
    Rule(FilterRule),
    File(PathBuf),
}

impl FilterFlags {
    /// The rules, with the files of `--exclude-from` read. `-` is standard input.
    pub(crate) fn rules(&self) -> Result<Vec<FilterRule>, Complaint> {
        let mut rules = Vec::new();
        for given in &self.0 {
            match given {
                Given::Rule(rule) => rules.push(rule.clone()),
                Given::File(file) => rules.extend(parse_rules(&read(file)?)),
            }
        }
        if rules.len() > FILTER_RULES_MAX {
            let what = format!(
                "{} filter rules are more than the {FILTER_RULES_MAX} allowed",
                rules.len()
            );
            return Err(Complaint::usage(what, "join some of them with * or {a,b}"));
        }
        for rule in &rules {
            let (FilterRule::Exclude(text) | FilterRule::Include(text)) = rule;
            if text.is_empty() || text.len() > FILTER_RULE_BYTES_MAX {
                let what = format!(
                    "a filter rule has 1 to {FILTER_RULE_BYTES_MAX} bytes, this one has {}",
                    text.len()
                );
                return Err(Complaint::usage(
                    what,
                    "see `syncline push --help` for what a rule looks like",
                ));
            }
        }
        Ok(rules)
    }
}

/// More than this cannot be rules within their limits.
const FILE_BYTES_MAX: u64 = 2 << 20;

fn read(file: &Path) -> Result<String, Complaint> {
    let mut text = String::new();
    let result = if file == Path::new("-") {
        std::io::stdin().lock().take(FILE_BYTES_MAX).read_to_string(&mut text)
    } else {
        std::fs::File::open(file).and_then(|file| file.take(FILE_BYTES_MAX).read_to_string(&mut text))
    };
    match result {
        Ok(_) => Ok(text),
        Err(error) => {
            let what = format!(
                "cannot read the rules in {}: {}",
                plain(&file.to_string_lossy()),
                reason(&error)
            );
            Err(Complaint::usage(what, "check the name after --exclude-from"))
        }
    }
}

/// One rule a line; empty lines and those that begin with `#` or `;` say nothing, `+ ` and `- ` in
/// front mean include and exclude, as in rsync.
fn parse_rules(text: &str) -> Vec<FilterRule> {
    let lines = text.lines().map(|line| line.strip_suffix('\r').unwrap_or(line));
    let lines = lines.filter(|line| !line.trim().is_empty() && !line.starts_with(['#', ';']));
    lines
        .map(|line| match (line.strip_prefix("+ "), line.strip_prefix("- ")) {
            (Some(rule), _) => FilterRule::Include(rule.to_owned()),
            (None, Some(rule)) => FilterRule::Exclude(rule.to_owned()),
            (None, None) => FilterRule::Exclude(line.to_owned()),
        })
        .collect()
}

impl Args for FilterFlags {
    fn augment_args(command: Command) -> Command {
        let flag = |name: &'static str, value: &'static str, help: &'static str| {
            Arg::new(name)
                .long(name)
                .value_name(value)
                .help(help)
                .action(ArgAction::Append)
                .help_heading("Filters")
        };
        command
            .arg(flag(
                "exclude",
                "PATTERN",
                "Leave out what matches (gitignore syntax); the first rule that matches decides",
            ))
            .arg(flag(
                "include",
                "PATTERN",
                "Keep what matches, whatever a later rule says",
            ))
            .arg(
                flag(
                    "exclude-from",
                    "FILE",
                    "Read rules from a file, one a line; + in front includes",
                )
                .value_parser(clap::value_parser!(PathBuf)),
            )
    }

    fn augment_args_for_update(command: Command) -> Command {
        FilterFlags::augment_args(command)
    }
}

impl FromArgMatches for FilterFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut given = Vec::new();
        collect(matches, "exclude", &mut given, |text: &String| {
            Given::Rule(FilterRule::Exclude(text.clone()))
        });
        collect(matches, "include", &mut given, |text: &String| {
            Given::Rule(FilterRule::Include(text.clone()))
        });
        collect(matches, "exclude-from", &mut given, |file: &PathBuf| {
            Given::File(file.clone())
        });
        given.sort_by_key(|(rank, index, _)| (*rank, *index));
        Ok(FilterFlags(given.into_iter().map(|(_, _, given)| given).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = FilterFlags::from_arg_matches(matches)?;
        Ok(())
    }
}

/// Only what stands on the command line has an order between flags; the environment and the config
/// file come after it.
fn collect<T: Clone + Send + Sync + 'static>(
    matches: &ArgMatches,
    name: &str,
    given: &mut Vec<(u8, usize, Given)>,
    make: impl Fn(&T) -> Given,
) {
    let rank = match matches.value_source(name) {
        Some(ValueSource::CommandLine) => 0,
        Some(ValueSource::EnvVariable) => 1,
        _ => 2,
    };
    let values = matches.get_many::<T>(name).into_iter().flatten();
    let indices = matches
        .indices_of(name)
        .into_iter()
        .flatten()
        .chain(std::iter::repeat(usize::MAX));
    given.extend(values.zip(indices).map(|(value, index)| (rank, index, make(value))));
}

#[cfg(test)]
mod tests {
    use super::super::config::Settings;
    use super::super::flags;
    use super::*;

    fn parse(args: &[&str]) -> FilterFlags {
        let command = FilterFlags::augment_args(Command::new("x"));
        FilterFlags::from_arg_matches(&command.get_matches_from(args)).unwrap()
    }

    fn exclude(text: &str) -> FilterRule {
        FilterRule::Exclude(text.to_owned())
    }

    fn include(text: &str) -> FilterRule {
        FilterRule::Include(text.to_owned())
    }

    #[test]
    fn the_order_between_both_kinds_and_files_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("rules");
        std::fs::write(&file, "# comment\n\n*.o\r\n+ keep.me\n- *.me\n; other comment\n").unwrap();
        let file = file.to_str().unwrap();
        let flags = parse(&[
            "x",
            "--include",
            "a.tmp",
            "--exclude",
            "*.tmp",
            "--exclude-from",
            file,
            "--include=z",
        ]);
        assert_eq!(
            flags.rules().unwrap(),
            [
                include("a.tmp"),
                exclude("*.tmp"),
                exclude("*.o"),
                include("keep.me"),
                exclude("*.me"),
                include("z")
            ]
        );
    }

    #[test]
    fn rules_of_the_config_file_come_after_those_of_the_command_line() {
        let settings = Settings::parse(Path::new("c"), "exclude = [\"*.tmp\", \"*.o\"]\n").unwrap();
        let args = ["syncline", "push", "--include", "keep.tmp", "a", "link"];
        let matches = flags::command(&settings).get_matches_from(args);
        let (_, push) = matches.subcommand().unwrap();
        let rules = FilterFlags::from_arg_matches(push).unwrap().rules().unwrap();
        assert_eq!(rules, [include("keep.tmp"), exclude("*.tmp"), exclude("*.o")]);
    }

    #[test]
    fn rules_beyond_the_limits_are_refused_before_anything_is_sent() {
        let many = FilterFlags(vec![Given::Rule(exclude("a")); FILTER_RULES_MAX + 1]);
        assert_eq!(many.rules().unwrap_err().exit.code(), 2);
        for text in [String::new(), "x".repeat(FILTER_RULE_BYTES_MAX + 1)] {
            assert!(FilterFlags(vec![Given::Rule(exclude(&text))]).rules().is_err());
        }
        let missing = FilterFlags(vec![Given::File(PathBuf::from("/nonexistent/rules"))]);
        assert!(missing.rules().unwrap_err().what.contains("no such file"));
    }
}
