//! The binary away from the settings of whoever runs the tests.

use std::path::Path;
use std::process::Command;

/// Has `command` work in `directory`, with everything that it finds by itself below it.
pub fn in_directory(command: &mut Command, directory: &Path) {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("SYNCLINE_") {
            command.env_remove(name);
        }
    }
    command
        .current_dir(directory)
        .env("HOME", directory.join("user"))
        .env("XDG_CONFIG_HOME", directory.join("config"))
        .env("XDG_STATE_HOME", directory.join("state"))
        .env_remove("RUST_LOG")
        .env("RUST_BACKTRACE", "1");
}
