//! The commands that a build may leave out, and the sentence for who asks for one.
//! Never holds a command itself.
//!
//! Invariant: a command of this table is either in the command tree or answered here.

use super::complaint::Complaint;
use clap::error::{ContextKind, ContextValue, ErrorKind};

/// A command, the feature that brings it, and whether this build has that.
const OPTIONAL: [(&str, &str, bool); 10] = [
    ("sync", "sync", cfg!(feature = "sync")),
    ("peer", "sync", cfg!(feature = "sync")),
    ("diff", "sync", cfg!(feature = "sync")),
    ("pause", "sync", cfg!(feature = "sync")),
    ("resume", "sync", cfg!(feature = "sync")),
    ("unlink", "sync", cfg!(feature = "sync")),
    ("ls", "sync", cfg!(feature = "sync")),
    ("completions", "tools", cfg!(feature = "tools")),
    ("delta", "tools", cfg!(feature = "tools")),
    ("demo", "tools", cfg!(feature = "tools")),
];

/// What to say when the command that was not recognised is one that other builds have.
pub(crate) fn complaint(error: &clap::Error) -> Option<Complaint> {
    if error.kind() != ErrorKind::InvalidSubcommand {
        return None;
    }
    let Some(ContextValue::String(asked)) = error.get(ContextKind::InvalidSubcommand) else {
        return None;
    };
    let (command, feature, _) = OPTIONAL
        .iter()
        .find(|(command, _, is_here)| !is_here && command == asked)?;
    Some(Complaint::usage(
        format!("this syncline was built without `{command}`"),
        format!("build it with the feature `{feature}`"),
    ))
}

#[cfg(test)]
mod tests {
    use super::super::config::Settings;
    use super::super::flags;
    use super::*;

    /// Nobody is told that a command is missing that is there, nor left with "unrecognized" where it is not.
    #[test]
    fn each_optional_command_is_there_or_explained() {
        let tree = flags::command(&Settings::default());
        for (command, feature, is_here) in OPTIONAL {
            assert_eq!(tree.find_subcommand(command).is_some(), is_here, "{command}");
            let parsed = tree.clone().try_get_matches_from(["syncline", command, "--nonsense"]);
            let told = complaint(&parsed.unwrap_err()).map(|complaint| (complaint.what, complaint.advice));
            let expected = (
                format!("this syncline was built without `{command}`"),
                format!("build it with the feature `{feature}`"),
            );
            assert_eq!(told, (!is_here).then_some(expected));
        }
        let unknown = tree.try_get_matches_from(["syncline", "psuh"]).unwrap_err();
        assert!(complaint(&unknown).is_none());
    }
}
