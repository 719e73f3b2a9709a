//! Parses the command line, runs it, prints one error, picks the exit code.

fn main() {}
