//! What happened in a story, kept for the case that it fails: it may not happen again.

use std::fs;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use syncline::model::Revision;
use syncline::store::{Index, IndexOptions, Root};

/// Lines of the story that goes on. Threads of the server write as well.
static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Recorded;

impl log::Log for Recorded {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.target().starts_with("syncline")
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            note(format!("    {} {}", record.target(), record.args()));
        }
    }

    fn flush(&self) {}
}

/// From now on what syncline says is kept, too.
pub(crate) fn record() {
    if log::set_logger(&Recorded).is_ok() {
        log::set_max_level(log::LevelFilter::Debug);
    }
}

pub(crate) fn begin() {
    LINES.lock().unwrap_or_else(PoisonError::into_inner).clear();
}

pub(crate) fn note(line: String) {
    LINES.lock().unwrap_or_else(PoisonError::into_inner).push(line);
}

pub(crate) fn print() {
    let lines = LINES.lock().unwrap_or_else(PoisonError::into_inner);
    println!("{}", lines.join("\n"));
}

/// All records of the index of a folder, from a copy of it: its own may be in use.
pub(crate) fn records(place: &Path) -> String {
    let copy = tempfile::tempdir().unwrap();
    let (from, to) = (
        place.join(".syncline/index.redb"),
        copy.path().join(".syncline/index.redb"),
    );
    let opened = fs::create_dir(copy.path().join(".syncline"))
        .and_then(|()| fs::copy(from, to))
        .map_err(|error| error.to_string())
        .and_then(|_| Root::open(copy.path()).map_err(|error| error.to_string()))
        .and_then(|root| Index::open(&root, IndexOptions::default()).map_err(|error| error.to_string()));
    let index = match opened {
        Ok(opened) => opened.index,
        Err(error) => return error,
    };
    let rows = index
        .snapshot()
        .unwrap()
        .changes_since(Revision::NONE, usize::MAX)
        .unwrap();
    let lines = rows.into_iter().map(|(path, record)| format!("  {path}: {record:?}"));
    lines.collect::<Vec<String>>().join("\n")
}
