//! Runs a test's scenario in a process of its own: under a tracer, in a namespace, with other limits.

use std::process::{Child, Command, Output};

/// Names the scenario that a child runs.
const VARIABLE: &str = "SYNCLINE_TEST_CHILD";

/// Whether this process is the child that is to run `scenario`.
pub fn is(scenario: &str) -> bool {
    std::env::var(VARIABLE).is_ok_and(|value| value == scenario)
}

/// Runs the test `name` of this binary again as a child that is `scenario`, started through `wrapper`
/// (a program and its arguments, such as a tracer).
pub fn run(wrapper: &[&str], name: &str, scenario: &str) -> Output {
    let own = std::env::current_exe().unwrap();
    let mut command = match wrapper {
        [] => Command::new(&own),
        [program, arguments @ ..] => {
            let mut command = Command::new(program);
            command.args(arguments).arg(&own);
            command
        }
    };
    command
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(VARIABLE, scenario)
        .output()
        .unwrap_or_else(|error| panic!("{wrapper:?}: {error}"))
}

/// Whether a tracer can be used here; says so if not.
pub fn strace_works(test: &str) -> bool {
    let works = Command::new("strace")
        .args(["-f", "-qq", "-o", "/dev/null", "-e", "inject=fsync:error=EIO", "true"])
        .output()
        .is_ok_and(|output| output.status.success());
    if !works {
        eprintln!("{test} skipped: strace is missing or may not trace here");
    }
    works
}

/// What a child left behind: standard output and error as one text.
pub fn text(output: &Output) -> String {
    let out = String::from_utf8_lossy(&output.stdout);
    let error = String::from_utf8_lossy(&output.stderr);
    format!("{out}{error}")
}

/// A process that does not outlive its test.
pub struct Killed(pub Child);

impl Drop for Killed {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}
