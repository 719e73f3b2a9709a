//! `syncline completions SHELL`: the completion script, on stdout.
//! Never installs it.

use super::complaint::Complaint;
use super::config::Settings;
use super::exit::Exit;
use super::flags;
use super::session::{Ending, Session};
use clap::Args;
use clap_complete::Shell;

/// The operand of `completions`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  syncline completions bash > ~/.local/share/bash-completion/completions/syncline
  syncline completions zsh > ~/.zfunc/_syncline
  syncline completions fish > ~/.config/fish/completions/syncline.fish")]
pub(crate) struct Flags {
    /// Which shell
    shell: Shell,
}

/// Runs the command.
pub(crate) fn run(session: &Session, flags: &Flags) -> Result<Ending, Complaint> {
    session.console.data(script(flags.shell).trim_end());
    Ok(Ending::of(Exit::Done))
}

fn script(shell: Shell) -> String {
    let mut bytes = Vec::new();
    clap_complete::generate(shell, &mut flags::command(&Settings::default()), "syncline", &mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ValueEnum;

    #[test]
    fn every_shell_has_a_script_that_knows_the_commands() {
        for shell in Shell::value_variants() {
            let script = script(*shell);
            assert!(script.contains("revoke") && script.contains("max-delete"), "{shell}");
        }
    }
}
