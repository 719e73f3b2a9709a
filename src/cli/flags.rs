//! The command line as a whole: commands, the flags that all share, and where a flag's value may come
//! from. Never acts on a value.
//!
//! Precedence: flag, then the environment variable `SYNCLINE_FLAG_NAME`, then the config file, then
//! the default. Environment and config file reach every flag of every command by construction: both
//! are attached to the finished command tree, in [`command`].

use super::config::Settings;
use super::{conflicts, doctor, id, invite, journal, log, pull, push, restore, revoke, serve, status, trash, versions};
use clap::builder::{BoolishValueParser, OsStr};
use clap::{Arg, ArgAction, Args, Command, CommandFactory, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// Moves and syncs files between machines.
#[derive(Debug, Parser)]
#[command(name = "syncline", version, max_term_width = 100, disable_help_subcommand = true)]
#[command(after_help = "`syncline COMMAND --help` tells more, with examples.")]
#[command(after_long_help = LONG_HELP)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) shared: Shared,
    #[command(subcommand)]
    pub(crate) command: Option<Verb>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Serve folders as shares
    Serve(serve::Flags),
    /// Send files and folders to a share
    Push(push::Flags),
    /// Fetch files and folders from a share
    Pull(pull::Flags),
    /// Keep a folder and a share the same
    #[cfg(feature = "sync")]
    Sync(super::sync::Flags),
    /// Keep a folder of two devices the same, with the same command on both
    #[cfg(feature = "sync")]
    Peer(super::peer::Flags),
    /// List what was changed in a synced folder since the last sync
    #[cfg(feature = "sync")]
    Diff(super::folder::DiffFlags),
    /// Have a synced folder carry nothing over for now
    #[cfg(feature = "sync")]
    Pause(super::folder::PauseFlags),
    /// Have a paused folder go on
    #[cfg(feature = "sync")]
    Resume(super::folder::PauseFlags),
    /// Have a folder forget its share; all files stay
    #[cfg(feature = "sync")]
    Unlink(super::folder::UnlinkFlags),
    /// List the versions that a sync kept beside a file, and settle which stays
    Conflicts(conflicts::Flags),
    /// Make a link that lets one more device in
    Invite(invite::Flags),
    /// List the devices that may come in
    Devices,
    /// Take a device's rights away
    Revoke(revoke::Flags),
    /// List what a share keeps of a file: what was replaced, deleted, changed
    Versions(versions::Flags),
    /// Bring a version back
    Restore(restore::Flags),
    /// List what was deleted, or remove it for good
    Trash(trash::Flags),
    /// List what takes no part in a sync, and which rule leaves it out
    #[cfg(feature = "sync")]
    Ls(super::ls::Flags),
    /// Show the servers running here, ask one elsewhere, or look at a synced folder
    Status(status::Flags),
    /// Show what happened in a share or a synced folder: who did what, and when
    Log(log::Flags),
    /// Print the content ids of files
    Id(id::Flags),
    /// List the transfers that are unfinished
    Journal(journal::Flags),
    /// Make and apply patches of local files
    #[cfg(feature = "tools")]
    Delta(super::delta::Flags),
    /// Check this machine for what could get in the way, and say the fix
    Doctor(doctor::Flags),
    /// Print the completion script for a shell
    #[cfg(feature = "tools")]
    Completions(super::completions::Flags),
    /// Try it all on this machine: push, edit, push again, pull, compare
    #[cfg(feature = "tools")]
    Demo(super::demo::Flags),
}

/// The flags of every command.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Output and state")]
pub(crate) struct Shared {
    /// Say more: -v every file, -vv what the engine does
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub(crate) verbose: u8,
    /// Say nothing but errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
    /// Print one JSON object a line; the last one is the summary
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Color the output; NO_COLOR turns it off as well
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub(crate) color: Color,
    /// What to log to stderr: error, warn, info, debug, trace, or RUST_LOG's syntax
    #[arg(long, global = true, value_name = "LEVEL")]
    pub(crate) log_level: Option<String>,
    /// Keep keys, paired devices and the config file here
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) home: Option<PathBuf>,
}

/// When to color.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    /// On a terminal
    Auto,
    /// Also into files and pipes
    Always,
    /// Never
    Never,
}

/// What a bare `syncline` prints.
pub(crate) const EXAMPLES: &str = "\
Syncline moves and syncs files between machines.

Serve a folder, and get a link to hand out:
    syncline serve ~/Share

Keep a folder the same as it on another machine, or just fetch from it or send to it:
    syncline sync ~/Share 'LINK'
    syncline pull 'LINK' ~/Copy
    syncline push ~/Pictures 'LINK'

See it all at work on this machine first:
    syncline demo

`syncline --help` lists all commands.";

const LONG_HELP: &str = "\
Examples:
  syncline serve ~/Share                      serve a folder; prints a link that works once
  syncline sync ~/Share 'syncline://…'        keep a folder of another machine the same as it
  syncline sync ~/Share --watch               the folder remembers; carry on as changes are made
  syncline pull 'syncline://…' ~/Copy         fetch it once
  syncline push ~/Pictures 'syncline://…'     send something to it
  syncline demo                               see it all at work on this machine

Every flag can also be set as an environment variable (--bwlimit as SYNCLINE_BWLIMIT) or in
$XDG_CONFIG_HOME/syncline/config.toml (bwlimit = \"5M\"). A flag beats a variable, a variable beats
the file.

Exit codes: 0 done, 1 error, 2 usage or config, 3 some items failed, 4 conflicts await a decision,
5 temporary (try again), 6 authentication refused, 7 safety stop, 8 limit reached, 9 nothing to do,
10 target missing, 11 locked, 130/143 interrupted (state is saved).";

/// The command tree with the environment and the config file attached.
pub(crate) fn command(settings: &Settings) -> Command {
    attach(Cli::command(), settings)
}

fn attach(command: Command, settings: &Settings) -> Command {
    let names: Vec<_> = command.get_subcommands().map(|sub| sub.get_name().to_owned()).collect();
    let command = command.mut_args(|arg| attach_to_flag(arg, settings));
    names.into_iter().fold(command, |command, name| {
        command.mut_subcommand(name, |sub| attach(sub, settings))
    })
}

fn attach_to_flag(arg: Arg, settings: &Settings) -> Arg {
    let Some(name) = flag_name(&arg) else {
        return arg;
    };
    let takes_list = matches!(arg.get_action(), ArgAction::Append);
    let values = settings.values_of(&name).map(<[String]>::to_vec);
    // A list is for those commands that take one: of --bwlimit for `serve`.
    let values = values.filter(|values| takes_list || values.len() == 1);
    let variable = format!("SYNCLINE_{}", name.to_ascii_uppercase().replace('-', "_"));
    let mut arg = arg.env(OsStr::from(variable)).hide_env(true);
    if matches!(arg.get_action(), ArgAction::SetTrue) {
        // So that SYNCLINE_JSON=1 and =yes mean what they say, and =ture is an error.
        arg = arg.value_parser(BoolishValueParser::new());
    }
    match values {
        Some(values) => arg.default_values(values.into_iter().map(OsStr::from)),
        None => arg,
    }
}

/// The long name of a flag that has a value from outside; `None` for operands, help and version.
pub(crate) fn flag_name(arg: &Arg) -> Option<String> {
    let name = arg.get_long()?;
    (!matches!(name, "help" | "version")).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::FromArgMatches;
    use std::path::Path;

    fn parse(settings: &str, args: &[&str]) -> Result<Cli, clap::Error> {
        let settings = Settings::parse(Path::new("config.toml"), settings).unwrap();
        let args = std::iter::once("syncline").chain(args.iter().copied());
        command(&settings)
            .try_get_matches_from(args)
            .and_then(|matches| Cli::from_arg_matches(&matches))
    }

    #[test]
    fn the_command_tree_is_consistent() {
        command(&Settings::default()).debug_assert();
    }

    #[test]
    fn every_flag_has_its_environment_variable() {
        fn check(command: &Command) {
            for arg in command.get_arguments() {
                let Some(name) = flag_name(arg) else { continue };
                let variable = arg.get_env().unwrap().to_str().unwrap();
                assert_eq!(variable, format!("SYNCLINE_{}", name.to_uppercase().replace('-', "_")));
            }
            command.get_subcommands().for_each(check);
        }
        check(&command(&Settings::default()));
    }

    #[test]
    fn the_config_file_beats_the_default_and_a_flag_beats_the_config_file() {
        let settings = "color = \"never\"\njson = true\nverbose = 2\n";
        let cli = parse(settings, &["devices"]).unwrap();
        assert_eq!(
            (cli.shared.color, cli.shared.json, cli.shared.verbose),
            (Color::Never, true, 2)
        );
        let cli = parse(settings, &["devices", "--color", "always", "-v"]).unwrap();
        assert_eq!(
            (cli.shared.color, cli.shared.json, cli.shared.verbose),
            (Color::Always, true, 1)
        );
        let cli = parse("", &["devices"]).unwrap();
        assert_eq!(
            (cli.shared.color, cli.shared.json, cli.shared.verbose),
            (Color::Auto, false, 0)
        );
    }

    /// What is limited per share on the server must not be in the way of a push from the same machine.
    #[test]
    fn a_list_in_the_config_file_is_for_the_commands_that_take_one() {
        let settings = "bwlimit = [\"10M\", \"Films=5M\"]\n";
        assert!(parse(settings, &["serve"]).is_ok());
        assert!(parse(settings, &["push", "a", "b"]).is_ok());
        assert!(parse("bwlimit = \"Films=5M\"\n", &["push", "a", "b"]).is_err());
        assert!(parse("bwlimit = \"08:00,1M 18:00,off\"\n", &["push", "a", "b"]).is_ok());
    }

    #[test]
    fn shared_flags_stand_before_and_after_the_command() {
        for args in [["--json", "devices"], ["devices", "--json"]] {
            assert!(parse("", &args).unwrap().shared.json);
        }
    }

    #[test]
    fn the_habits_of_rsync_are_understood() {
        for args in [
            &["push", "-aPrzvn", "src/", "link"][..],
            &["pull", "-avP", "--delete", "link", "dst"],
        ] {
            assert!(parse("", args).is_ok(), "{args:?}");
        }
    }

    #[test]
    fn wrong_usage_ends_with_code_2_and_help_with_0() {
        for args in [
            &["nonsense"][..],
            &["push", "--nonsense"],
            &["-q", "-v", "devices"],
            &["--color", "maybe"],
        ] {
            assert_eq!(parse("", args).unwrap_err().exit_code(), 2, "{args:?}");
        }
        assert_eq!(parse("", &["serve", "--help"]).unwrap_err().exit_code(), 0);
    }
}
