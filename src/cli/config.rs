//! The config file: a flat TOML table of flag names, `bwlimit = "5M"`.
//! Never applies a value: `flags` hangs them below the environment, as defaults.
//!
//! Invariant: a key that is no flag's name is an error that names the key and the line, so that a
//! typing error is never silently ignored.

use super::complaint::Complaint;
use super::report::plain;
use clap::{ArgAction, Command};
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use toml::de::{DeTable, DeValue};

/// What the config file says.
#[derive(Debug, Default)]
pub(crate) struct Settings {
    values: BTreeMap<String, Setting>,
    file: PathBuf,
}

#[derive(Debug)]
struct Setting {
    line: usize,
    values: Vec<String>,
}

/// More than this is not a config file.
const FILE_BYTES_MAX: u64 = 1 << 20;

impl Settings {
    /// Reads the file; one that does not exist says nothing.
    pub(crate) fn load(file: &Path) -> Result<Settings, Complaint> {
        let fail = |error: &io::Error| {
            let reason = super::complaint::reason(error);
            Complaint::usage(
                format!("cannot read {}: {reason}", show(file)),
                "correct it, or move it away",
            )
        };
        match std::fs::metadata(file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Settings::default()),
            Err(error) => return Err(fail(&error)),
            Ok(meta) if meta.len() > FILE_BYTES_MAX => {
                return Err(Complaint::usage(
                    format!("{} is too large", show(file)),
                    "correct it, or move it away",
                ));
            }
            Ok(_) => {}
        }
        let text = std::fs::read_to_string(file).map_err(|error| fail(&error))?;
        Settings::parse(file, &text)
    }

    /// Parses the file's text; `file` is for messages.
    pub(crate) fn parse(file: &Path, text: &str) -> Result<Settings, Complaint> {
        let document = DeTable::parse(text).map_err(|error| {
            let line = line_of(text, error.span().map_or(0, |span| span.start));
            complain(file, line, &format!("this is not TOML: {}", error.message()))
        })?;
        let mut values = BTreeMap::new();
        for (key, value) in document.get_ref() {
            let line = line_of(text, key.span().start);
            let name = key.get_ref().to_string();
            let Some(parsed) = texts_of(value.get_ref()) else {
                return Err(complain(
                    file,
                    line,
                    &format!("{name:?} takes a text, a number, true or false, or a list of them"),
                ));
            };
            values.insert(name, Setting { line, values: parsed });
        }
        Ok(Settings {
            values,
            file: file.to_owned(),
        })
    }

    /// Checks that every key is a flag of `command` or of one of its commands.
    pub(crate) fn check(&self, command: &Command) -> Result<(), Complaint> {
        for (name, setting) in &self.values {
            let problem = match (name.as_str(), find(command, name)) {
                ("home", _) => Some("home cannot be set here: it decides which file this is".to_owned()),
                (_, Flag::Unknown) => Some(format!("there is no flag called {name:?}")),
                (_, Flag::Single) if setting.values.len() != 1 => Some(format!("{name:?} takes one value, not a list")),
                (_, Flag::Single | Flag::Many) => None,
            };
            if let Some(problem) = problem {
                return Err(complain(&self.file, setting.line, &problem));
            }
        }
        Ok(())
    }

    /// The values of a flag, if the file has some.
    pub(crate) fn values_of(&self, name: &str) -> Option<&[String]> {
        self.values.get(name).map(|setting| setting.values.as_slice())
    }
}

enum Flag {
    Unknown,
    Single,
    Many,
}

fn find(command: &Command, name: &str) -> Flag {
    let own = command
        .get_arguments()
        .find(|arg| super::flags::flag_name(arg).as_deref() == Some(name));
    match own.map(clap::Arg::get_action) {
        Some(ArgAction::Append) => return Flag::Many,
        Some(_) => return Flag::Single,
        None => {}
    }
    let below = command.get_subcommands().map(|sub| find(sub, name));
    below
        .into_iter()
        .find(|flag| !matches!(flag, Flag::Unknown))
        .unwrap_or(Flag::Unknown)
}

fn texts_of(value: &DeValue<'_>) -> Option<Vec<String>> {
    match value {
        DeValue::Array(items) => items.iter().map(|item| text_of(item.get_ref())).collect(),
        single => text_of(single).map(|text| vec![text]),
    }
}

fn text_of(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) => Some(number.to_string()),
        DeValue::Float(number) => Some(number.to_string()),
        DeValue::Boolean(truth) => Some(truth.to_string()),
        DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => None,
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|&byte| byte == b'\n').count()
}

fn complain(file: &Path, line: usize, problem: &str) -> Complaint {
    let advice = "keys are the long names of flags, such as bwlimit = \"5M\"; `syncline COMMAND --help` lists them";
    Complaint::usage(plain(&format!("{}, line {line}: {problem}", show(file))), advice)
}

fn show(path: &Path) -> String {
    plain(&path.to_string_lossy())
}

/// Where the config file is: in the directory of `--home`, else in the user's config directory.
/// Looks at the raw arguments, because it is read before they are parsed.
pub(crate) fn location(args: &[OsString], variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let set = |name: &str| variable(name).filter(|value| !value.is_empty());
    if let Some(home) = home_flag(args).or_else(|| set("SYNCLINE_HOME")) {
        return Some(Path::new(&home).join("config.toml"));
    }
    let base = set("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute());
    let base = base.or_else(|| set("HOME").map(|home| Path::new(&home).join(".config")))?;
    Some(base.join("syncline").join("config.toml"))
}

fn home_flag(args: &[OsString]) -> Option<OsString> {
    use std::os::unix::ffi::OsStrExt;
    let before_operands = args.iter().take_while(|arg| *arg != "--");
    let mut found = None;
    let mut takes_next = false;
    for arg in before_operands {
        if takes_next {
            found = Some(arg.clone());
        } else if let Some(value) = arg.as_bytes().strip_prefix(b"--home=") {
            found = Some(OsStr::from_bytes(value).to_owned());
        }
        takes_next = arg == "--home";
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::flags;
    use super::*;

    fn check(text: &str) -> Result<(), String> {
        let settings = Settings::parse(Path::new("c.toml"), text).map_err(|complaint| complaint.what)?;
        let command = flags::command(&Settings::default());
        settings.check(&command).map_err(|complaint| complaint.what)
    }

    #[test]
    fn flags_of_any_command_are_accepted_in_every_shape() {
        let text = "# all\nbwlimit = \"5M\"\nretries = 3\nplain = true\nexclude = [\"*.tmp\", \"/build/\"]\n";
        assert_eq!(check(text), Ok(()));
        let settings = Settings::parse(Path::new("c.toml"), text).unwrap();
        assert_eq!(settings.values_of("exclude").unwrap(), ["*.tmp", "/build/"]);
        assert_eq!(settings.values_of("retries").unwrap(), ["3"]);
    }

    #[test]
    fn a_typing_error_is_named_with_its_line() {
        for (text, what) in [
            (
                "json = true\n\nbwlimt = \"5M\"\n",
                "c.toml, line 3: there is no flag called \"bwlimt\"",
            ),
            ("help = true", "c.toml, line 1: there is no flag called \"help\""),
            (
                "home = \"/x\"",
                "c.toml, line 1: home cannot be set here: it decides which file this is",
            ),
            (
                "timeout = [\"1\", \"2\"]",
                "c.toml, line 1: \"timeout\" takes one value, not a list",
            ),
            (
                "\n[serve]\nlisten = \"x\"",
                "c.toml, line 2: \"serve\" takes a text, a number, true or false, or a list of them",
            ),
        ] {
            assert_eq!(check(text), Err(what.to_owned()), "{text}");
        }
        let broken = check("\njson = ").unwrap_err();
        assert!(broken.starts_with("c.toml, line 2: this is not TOML"), "{broken}");
    }

    #[test]
    fn home_moves_the_config_file_whichever_way_it_is_given() {
        let args = |list: &[&str]| list.iter().map(OsString::from).collect::<Vec<_>>();
        let none = |_: &str| None;
        let env = |name: &str| match name {
            "HOME" => Some(OsString::from("/h")),
            _ => None,
        };
        for list in [&["--home", "/x", "devices"][..], &["devices", "--home=/x"]] {
            assert_eq!(location(&args(list), none), Some(PathBuf::from("/x/config.toml")));
        }
        assert_eq!(location(&args(&["--", "--home=/x"]), none), None);
        assert_eq!(
            location(&[], env),
            Some(PathBuf::from("/h/.config/syncline/config.toml"))
        );
        let relative = |name: &str| match name {
            "XDG_CONFIG_HOME" => Some(OsString::from("relative")),
            other => env(other),
        };
        assert_eq!(
            location(&[], relative),
            Some(PathBuf::from("/h/.config/syncline/config.toml"))
        );
    }

    const ANY_LINE: &str =
        "[a-z\"-]{1,9} ?= ?([\\[\"]{0,2}[a-z0-9.:_é\\\\]{0,9}[\"\\],]{0,3}|true)(\n|\r\n)?|\\PC{0,9}\n";

    proptest::proptest! {
        // Whatever an editor left in the file: each value is in its place, or a line is named.
        #[test]
        fn row_01_any_text_is_settings_or_a_complaint(lines in proptest::collection::vec(ANY_LINE, 0..5)) {
            let text = lines.concat();
            match Settings::parse(Path::new("c.toml"), &text) {
                Ok(settings) => assert!(settings.values.values().all(|setting| setting.line <= lines.len() + 1)),
                Err(complaint) => assert!(complaint.what.starts_with("c.toml, line "), "{}", complaint.what),
            }
        }
    }
}
