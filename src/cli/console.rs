//! Where output goes: data to stdout, messages to stderr, `--json` objects one a line.
//! Never decides what is said, and never fails a run because nobody reads any more.
//!
//! Invariant: after stdout was found closed nothing is written to it again, and the run goes on:
//! `serve --json | head -1` keeps serving, and a transfer ends with its own exit code.

use serde_json::{Value, json};
use std::cell::{Cell, RefCell};
use std::io::{self, IsTerminal, Write};

/// How the run talks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// For people.
    Text,
    /// For scripts: one JSON object a line on stdout.
    Json,
}

/// How much is said on stderr.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verbosity {
    /// Errors only.
    Quiet,
    /// Results, warnings, progress.
    Normal,
    /// Also every entry.
    Items,
    /// Also what the engine does.
    Debug,
}

/// Whether text is coloured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Paint {
    /// With ANSI colours.
    Color,
    /// As it is.
    Bare,
}

/// The two output streams of a run.
pub(crate) struct Console {
    format: Format,
    verbosity: Verbosity,
    paint: Paint,
    terminal: bool,
    stdout: RefCell<Box<dyn Write>>,
    stderr: RefCell<Box<dyn Write>>,
    reader: Cell<Reader>,
    bar: Bar,
}

/// What is known of whoever reads stdout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reader {
    Listening,
    Gone,
    /// Another error than a closed pipe, such as a full disk behind a redirection.
    Broken,
}

impl Console {
    /// The process's own streams.
    pub(crate) fn of_process(format: Format, verbosity: Verbosity, paint: Paint) -> Console {
        let terminal = io::stderr().is_terminal();
        Console::new(
            format,
            verbosity,
            paint,
            terminal,
            Box::new(io::stdout()),
            Box::new(io::stderr()),
        )
    }

    fn new(
        format: Format,
        verbosity: Verbosity,
        paint: Paint,
        terminal: bool,
        stdout: Box<dyn Write>,
        stderr: Box<dyn Write>,
    ) -> Console {
        Console {
            format,
            verbosity,
            paint,
            terminal,
            stdout: RefCell::new(stdout),
            stderr: RefCell::new(stderr),
            reader: Cell::new(Reader::Listening),
            bar: Bar::default(),
        }
    }

    /// For people or for scripts.
    pub(crate) fn format(&self) -> Format {
        self.format
    }

    /// How much is said.
    pub(crate) fn verbosity(&self) -> Verbosity {
        self.verbosity
    }

    /// Whether a bar that redraws itself can be shown.
    pub(crate) fn can_redraw(&self) -> bool {
        cfg!(feature = "progress")
            && self.terminal
            && self.format == Format::Text
            && matches!(self.verbosity, Verbosity::Normal | Verbosity::Items)
    }

    /// Whether nobody reads stdout any more, so that a listing may stop.
    pub(crate) fn reader_is_gone(&self) -> bool {
        self.reader.get() != Reader::Listening
    }

    /// Whether output was lost for another reason than a reader that went away.
    pub(crate) fn output_was_lost(&self) -> bool {
        self.reader.get() == Reader::Broken
    }

    /// A line of data for people; nothing with `--json`.
    pub(crate) fn data(&self, line: &str) {
        if self.format == Format::Text {
            self.print(line);
        }
    }

    /// An object for scripts; nothing without `--json`.
    pub(crate) fn object(&self, object: &Value) {
        if self.format == Format::Json {
            self.print(&object.to_string());
        }
    }

    /// A message on stderr, unless `-q` or `--json`.
    pub(crate) fn note(&self, line: &str) {
        if self.format == Format::Text && self.verbosity > Verbosity::Quiet {
            self.message(line);
        }
    }

    /// Something that went wrong: stderr for people, an `error` object for scripts.
    pub(crate) fn failure(&self, line: &str, object: &Value) {
        match self.format {
            Format::Text => self.message(line),
            Format::Json => self.object(object),
        }
    }

    /// The run's one error.
    pub(crate) fn error(&self, what: &str, advice: &str, exit_code: u8) {
        let mut line = format!("{} {what}", self.red("syncline:"));
        if !advice.is_empty() {
            line.push_str("\n  ");
            line.push_str(advice);
        }
        let object = json!({
            "event": "error", "message": what, "advice": advice, "exit_code": exit_code,
        });
        self.failure(&line, &object);
    }

    /// Text in green where colours are on.
    pub(crate) fn green(&self, text: &str) -> String {
        self.painted("32", text)
    }

    /// Text in yellow where colours are on.
    pub(crate) fn yellow(&self, text: &str) -> String {
        self.painted("33", text)
    }

    /// Text in red where colours are on.
    pub(crate) fn red(&self, text: &str) -> String {
        self.painted("31", text)
    }

    fn painted(&self, color: &str, text: &str) -> String {
        match self.paint {
            Paint::Color => format!("\x1b[{color}m{text}\x1b[0m"),
            Paint::Bare => text.to_owned(),
        }
    }

    /// Draws the two lines of the bar; only where [`can_redraw`](Self::can_redraw).
    pub(crate) fn draw(&self, lines: [&str; 2]) {
        self.bar.draw(lines);
    }

    /// Removes the bar.
    pub(crate) fn clear(&self) {
        self.bar.clear();
    }

    fn print(&self, line: &str) {
        if self.reader_is_gone() {
            return;
        }
        let write = || {
            let mut stdout = self.stdout.borrow_mut();
            writeln!(stdout, "{line}").and_then(|()| stdout.flush())
        };
        match self.bar.beside(write) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.reader.set(Reader::Gone);
            }
            Err(_) => self.reader.set(Reader::Broken),
        }
    }

    fn message(&self, line: &str) {
        // A stderr that cannot be written leaves nobody to tell.
        let _ = self.bar.beside(|| writeln!(self.stderr.borrow_mut(), "{line}"));
    }
}

/// The bar, when the feature is built in; it is drawn from the first `draw` on.
#[cfg(feature = "progress")]
#[derive(Default)]
struct Bar(RefCell<Option<indicatif::ProgressBar>>);

#[cfg(feature = "progress")]
impl Bar {
    fn draw(&self, [first, second]: [&str; 2]) {
        let mut slot = self.0.borrow_mut();
        let bar = slot.get_or_insert_with(|| {
            let style = indicatif::ProgressStyle::with_template("{prefix}\n{wide_msg}")
                .expect("the template is a constant with known keys");
            indicatif::ProgressBar::new_spinner().with_style(style)
        });
        bar.set_prefix(first.to_owned());
        bar.set_message(second.to_owned());
    }

    fn clear(&self) {
        if let Some(bar) = self.0.borrow_mut().take() {
            bar.finish_and_clear();
        }
    }

    fn beside<T>(&self, write: impl FnOnce() -> T) -> T {
        match &*self.0.borrow() {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }
}

/// The stand-in without the feature: nothing is drawn.
#[cfg(not(feature = "progress"))]
#[derive(Default)]
struct Bar(());

#[cfg(not(feature = "progress"))]
impl Bar {
    fn draw(&self, _: [&str; 2]) {}

    fn clear(&self) {}

    fn beside<T>(&self, write: impl FnOnce() -> T) -> T {
        write()
    }
}

/// A console that keeps what is written, for the tests of the commands.
#[cfg(test)]
pub(crate) mod capture {
    use super::{Console, Format, Paint, Verbosity};
    use std::cell::RefCell;
    use std::io::{self, Write};
    use std::rc::Rc;

    /// What was written to one stream.
    #[derive(Clone, Default)]
    pub(crate) struct Capture(Rc<RefCell<Vec<u8>>>);

    impl Capture {
        /// The text so far.
        pub(crate) fn text(&self) -> String {
            String::from_utf8(self.0.borrow().clone()).unwrap()
        }
    }

    impl Write for Capture {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.borrow_mut().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// A console without a terminal, with its stdout and stderr.
    pub(crate) fn console(format: Format, verbosity: Verbosity) -> (Console, Capture, Capture) {
        let (out, err) = (Capture::default(), Capture::default());
        let streams = (Box::new(out.clone()), Box::new(err.clone()));
        (
            Console::new(format, verbosity, Paint::Bare, false, streams.0, streams.1),
            out,
            err,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Failing(io::ErrorKind);

    impl Write for Failing {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::Error::from(self.0))
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn writing_to(kind: io::ErrorKind) -> Console {
        let (out, err) = (Box::new(Failing(kind)), Box::new(io::sink()));
        Console::new(Format::Text, Verbosity::Normal, Paint::Bare, false, out, err)
    }

    #[test]
    fn a_closed_pipe_is_quiet_and_a_full_disk_is_not() {
        let console = writing_to(io::ErrorKind::BrokenPipe);
        assert!(!console.reader_is_gone());
        console.data("line");
        assert!(console.reader_is_gone() && !console.output_was_lost());

        let console = writing_to(io::ErrorKind::StorageFull);
        console.data("line");
        assert!(console.output_was_lost());
    }

    #[test]
    fn json_runs_write_objects_only_and_text_runs_none() {
        let (console, out, err) = capture::console(Format::Json, Verbosity::Normal);
        console.data("data");
        console.note("note");
        console.error("it broke", "try this", 1);
        let object: Value = serde_json::from_str(&out.text()).unwrap();
        assert_eq!(object["event"], "error");
        assert_eq!(err.text(), "");

        let (console, out, err) = capture::console(Format::Text, Verbosity::Quiet);
        console.object(&json!({}));
        console.note("note");
        console.error("it broke", "try this", 1);
        assert_eq!(out.text(), "");
        assert_eq!(err.text(), "syncline: it broke\n  try this\n");
    }
}
