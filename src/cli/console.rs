//! Where output goes: data to stdout, messages to stderr, `--json` objects one a line.
//! Never decides what is said, and never fails a run because nobody reads any more.
//!
//! Invariant: after stdout was found closed nothing is written to it again, and the run goes on:
//! `serve --json | head -1` keeps serving, and a transfer ends with its own exit code. What is passed on with
//! [`Console::live`] never waits for a reader: `serve --json | sleep 1d` keeps serving, too.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::{Value, json};
use std::cell::{Cell, RefCell};
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;

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
    /// Whether a stream takes a line at once.
    takes: fn(Stream) -> bool,
    /// Live events since the last one that found room.
    left_out: Cell<u64>,
    bar: Bar,
}

/// An output stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stream {
    Out,
    Err,
}

/// Bytes of a line that a pipe takes at once when it takes anything (`PIPE_BUF`).
pub(crate) const LIVE_BYTES_MAX: usize = 4096;

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
        let (out, err) = (Box::new(io::stdout()), Box::new(io::stderr()));
        Console {
            takes: takes_at_once,
            ..Console::new(format, verbosity, paint, terminal, out, err)
        }
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
            takes: |_| true,
            left_out: Cell::new(0),
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

    /// As [`object`](Self::object), for one that is JSON already.
    pub(crate) fn object_text(&self, json: &str) {
        if self.format == Format::Json {
            self.print(json);
        }
    }

    /// A message on stderr, unless `-q` or `--json`.
    pub(crate) fn note(&self, line: &str) {
        if self.format == Format::Text && self.verbosity > Verbosity::Quiet {
            self.message(line);
        }
    }

    /// What happened at a server that goes on whether anybody reads that or not: `object` for scripts, `line` for
    /// people. Left out while nobody reads; how many were is told with the next one that finds room.
    pub(crate) fn live(&self, line: &str, object: &Value) {
        let left_out = self.left_out.get();
        let finds_room = (left_out == 0 || self.say_live(&left_out_text(left_out), &left_out_object(left_out)))
            && self.say_live(line, object);
        self.left_out.set(match finds_room {
            true => 0,
            false => left_out + 1,
        });
    }

    /// Says how many live events were left out, if any were; waits for whoever reads.
    pub(crate) fn end_live(&self) {
        let left_out = self.left_out.take();
        if left_out > 0 {
            self.note(&left_out_text(left_out));
            self.object(&left_out_object(left_out));
        }
    }

    /// Whether the line, or the object, was said or nobody wants it.
    fn say_live(&self, line: &str, object: &Value) -> bool {
        let (stream, text) = match self.format {
            Format::Json if self.reader_is_gone() => return true,
            Format::Json => (Stream::Out, object.to_string()),
            Format::Text if self.verbosity == Verbosity::Quiet => return true,
            Format::Text => (Stream::Err, line.to_owned()),
        };
        if text.len() >= LIVE_BYTES_MAX || !(self.takes)(stream) {
            return false;
        }
        match stream {
            Stream::Out => self.print(&text),
            Stream::Err => self.message(&text),
        }
        true
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
            stdout
                .write_all(format!("{line}\n").as_bytes())
                .and_then(|()| stdout.flush())
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
        let text = format!("{line}\n");
        let _ = self.bar.beside(|| self.stderr.borrow_mut().write_all(text.as_bytes()));
    }
}

fn left_out_text(events: u64) -> String {
    format!("{events} messages were left out: nobody read them in time")
}

fn left_out_object(events: u64) -> Value {
    json!({"event": "status", "state": "left_out", "events": events})
}

/// Whether a stream of the process takes a line, or an error, without waiting. Lines go out in one piece.
fn takes_at_once(stream: Stream) -> bool {
    match stream {
        Stream::Out => is_writable(&io::stdout()),
        Stream::Err => is_writable(&io::stderr()),
    }
}

/// Whether a write ends at once, well or not. A stream that cannot be asked is written to.
pub(crate) fn is_writable(stream: &impl AsFd) -> bool {
    let mut asked = [PollFd::new(stream, PollFlags::OUT)];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    !matches!(poll(&mut asked, Some(&at_once)), Ok(0))
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

    /// Events that find no room are counted, told once, and never written in part.
    #[test]
    fn live_events_that_find_no_room_are_counted_and_told() {
        let event = |number: u64| json!({ "event": number });
        for format in [Format::Json, Format::Text] {
            let (mut console, out, err) = capture::console(format, Verbosity::Normal);
            let mut say = |takes: fn(Stream) -> bool, numbers: std::ops::Range<u64>| {
                console.takes = takes;
                numbers.for_each(|number| console.live(&format!("line {number}"), &event(number)));
            };
            say(|_| true, 0..1);
            say(|_| false, 1..4);
            say(|_| true, 4..6);
            say(|_| false, 6..8);
            console.end_live();
            console.end_live();
            let long = "x".repeat(LIVE_BYTES_MAX);
            console.takes = |_| true;
            console.live(&long, &json!({ "long": long }));
            let expected = match format {
                Format::Json => [event(0), left_out_object(3), event(4), event(5), left_out_object(2)]
                    .map(|object| object.to_string()),
                Format::Text => ["line 0", &left_out_text(3), "line 4", "line 5", &left_out_text(2)].map(str::to_owned),
            };
            let said = format!("{}{}", out.text(), err.text());
            assert_eq!(said.lines().collect::<Vec<_>>(), expected);
        }
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
