//! Parses the command line, runs it, prints one error, picks the exit code. Holds no logic of its own:
//! everything is in `cli`, so that a command reads the same from here and from a test.

mod cli;

fn main() -> std::process::ExitCode {
    cli::main()
}
