//! The end of a run in words and as an object: the figures, and every item that failed.
//! Never prints by itself: what it builds are strings and JSON values.

use super::quantity;
use serde_json::{Map, Value, json};
use syncline::model::{ItemCode, RelPath, escape};
use syncline::node::{Action, Figures, Summary};

/// The last object of any `--json` run.
pub(crate) fn summary_object(summary: &Summary, exit_code: u8) -> Value {
    json!({
        "event": "summary",
        "files": summary.files,
        "files_transferred": summary.files_transferred,
        "deleted": summary.deleted,
        "bytes": summary.bytes,
        "wire_sent": summary.wire_sent,
        "wire_received": summary.wire_received,
        "literal_bytes": summary.literal_bytes,
        "matched_bytes": summary.matched_bytes,
        "saved_bytes": summary.saved_bytes,
        "unchanged_bytes": summary.unchanged_bytes,
        "resumed_bytes": summary.resumed_bytes,
        "seconds": summary.elapsed.as_secs_f64(),
        "failed": summary.failed,
        "exit_code": exit_code,
    })
}

/// What was done, in one or two lines:
/// `401 files, 64 MiB · 12 transferred, 2 deleted · 1.2 MiB sent, 8.0 KiB received · delta saved 62 MiB
/// (98.1 %) · 0.80 s (80 MiB/s)`, and what did not have to travel for other reasons. The rate is that of the
/// content that travelled, and left out where most did not have to; the percentage that of the content of changed files that did not. `items` is the
/// number of entries, of any kind, with which something was done.
pub(crate) fn summary_text(summary: &Summary, run: Run, items: u64) -> String {
    let files = quantity::counted(summary.files, "file");
    let mut parts = vec![format!("{files}, {}", quantity::size(summary.bytes))];
    parts.push(done(summary, run, items));
    let (sent, received) = (quantity::size(summary.wire_sent), quantity::size(summary.wire_received));
    parts.push(format!("{sent} sent, {received} received"));
    parts.extend(delta_saved(summary));
    let mut time = quantity::duration(summary.elapsed);
    if summary.literal_bytes > summary.delta_saved_bytes() {
        let rate = quantity::per_second(summary.literal_bytes, summary.elapsed);
        time.push_str(&format!(" ({})", quantity::rate(rate)));
    }
    parts.push(time);
    let mut text = parts.join(" · ");
    let savings = savings(summary);
    if !savings.is_empty() {
        text.push_str("\n  ");
        text.push_str(&savings.join(" · "));
    }
    text
}

/// Whether the run changed anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Run {
    /// As usual.
    Real,
    /// `--dry-run`.
    Dry,
}

fn done(summary: &Summary, run: Run, items: u64) -> String {
    let would = match run {
        Run::Real => "",
        Run::Dry => "would be ",
    };
    let mut text = match summary.files_transferred {
        0 if run == Run::Real && summary.deleted == 0 && items == 0 => "all up to date".to_owned(),
        moved => format!("{} {would}transferred", quantity::count(moved)),
    };
    if summary.failed > 0 && text.starts_with("all") {
        text = "0 transferred".to_owned();
    }
    if summary.deleted > 0 {
        text.push_str(&format!(", {} {would}deleted", quantity::count(summary.deleted)));
    }
    // Directories, links, and files of which only mode or time changed.
    let others = items.saturating_sub(summary.files_transferred + summary.deleted);
    if others > 0 {
        text.push_str(&format!(", {} more {would}changed", quantity::count(others)));
    }
    if summary.failed > 0 {
        text.push_str(&format!(", {} failed", quantity::count(summary.failed)));
    }
    text
}

/// `delta saved 1.0 GiB (99.9 %)`, if it saved anything.
pub(crate) fn delta_saved(summary: &Summary) -> Option<String> {
    let saved = summary.delta_saved_bytes();
    if saved == 0 {
        return None;
    }
    let share = quantity::percent(saved, saved.saturating_add(summary.literal_bytes));
    Some(format!("delta saved {} ({share})", quantity::size(saved)))
}

fn savings(summary: &Summary) -> Vec<String> {
    let named = [
        (summary.unchanged_bytes, "in files that were there already"),
        (summary.resumed_bytes, "kept from an interrupted transfer"),
    ];
    let shown = named.into_iter().filter(|(bytes, _)| *bytes > 0);
    shown
        .map(|(bytes, what)| format!("{} {what}", quantity::size(bytes)))
        .collect()
}

/// The items that failed, as many as a person reads. What failed because its directory did is only
/// counted.
#[derive(Debug, Default)]
pub(crate) struct Failures {
    shown: Vec<(String, ItemCode)>,
    below: u64,
    beyond: u64,
}

/// More lines than this are a wall, not a report.
const FAILURES_SHOWN_MAX: usize = 20;

impl Failures {
    /// Notes an item.
    pub(crate) fn add(&mut self, path: &str, code: ItemCode) {
        let is_below = |(top, reason): &(String, ItemCode)| {
            *reason == code
                && path
                    .strip_prefix(top.as_str())
                    .is_some_and(|rest| rest.starts_with('/'))
        };
        if self.shown.iter().any(is_below) {
            self.below += 1;
        } else if self.shown.len() < FAILURES_SHOWN_MAX {
            self.shown.push((path.to_owned(), code));
        } else {
            self.beyond += 1;
        }
    }

    /// A line for each, and how many there are besides.
    pub(crate) fn lines(&self) -> Vec<String> {
        let named = self.shown.iter();
        let mut lines: Vec<_> = named
            .map(|(path, code)| format!("  {}", failure_text(path, *code)))
            .collect();
        let besides = [(self.below, "more below these"), (self.beyond, "more")];
        for (count, what) in besides.into_iter().filter(|(count, _)| *count > 0) {
            lines.push(format!(
                "  and {} {what} (--json lists them all)",
                quantity::count(count)
            ));
        }
        lines
    }
}

/// `a/b: permission denied; check the owner …`.
pub(crate) fn failure_text(path: &str, code: ItemCode) -> String {
    format!("{}: {}; {}", plain(path), code.reason(), code.advice())
}

/// An item that failed, for scripts.
pub(crate) fn failure_object(path: &str, code: ItemCode, warning: bool) -> Value {
    json!({
        "event": "error",
        "path": path,
        "code": code.name(),
        "reason": code.reason(),
        "advice": code.advice(),
        "warning": warning,
    })
}

/// An item that was settled, for scripts. A path that is not UTF-8 is escaped in `path` and exact in
/// `path_hex`.
pub(crate) fn item_object(path: &RelPath, action: Action, size: u64, figures: Figures) -> Value {
    let mut object = path_fields(path.as_bytes());
    object.insert("event".into(), "item".into());
    object.insert("action".into(), action_name(action).into());
    object.insert("size".into(), size.into());
    object.insert("literal_bytes".into(), figures.literal_bytes.into());
    object.insert("matched_bytes".into(), figures.matched_bytes.into());
    object.insert("saved_bytes".into(), figures.saved_bytes.into());
    let content = figures.saved_bytes.saturating_add(figures.literal_bytes);
    object.insert(
        "saved_percent".into(),
        quantity::percentage(figures.saved_bytes, content).into(),
    );
    Value::Object(object)
}

/// `path` when the bytes are UTF-8; else `path` escaped and `path_hex` exact.
pub(crate) fn path_fields(bytes: &[u8]) -> Map<String, Value> {
    let mut object = Map::new();
    let shown = match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => {
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            object.insert("path_hex".into(), hex.into());
            escape(bytes)
        }
    };
    object.insert("path".into(), shown.into());
    object
}

/// An item that was settled, for people.
pub(crate) fn item_text(path: &RelPath, action: Action, size: u64, figures: Figures, run: Run) -> String {
    let would = if run == Run::Dry { "would be " } else { "" };
    match action {
        Action::Created | Action::Replaced => {
            let saved = match figures.saved_bytes {
                0 => String::new(),
                bytes => {
                    let share = quantity::percent(bytes, bytes.saturating_add(figures.literal_bytes));
                    format!(", delta saved {}, {share}", quantity::size(bytes))
                }
            };
            format!(
                "{would}{} {path} ({}{saved})",
                action_name(action),
                quantity::size(size)
            )
        }
        Action::Touched | Action::Deleted | Action::Moved => format!("{would}{} {path}", action_name(action)),
    }
}

fn action_name(action: Action) -> &'static str {
    match action {
        Action::Created => "created",
        Action::Replaced => "replaced",
        Action::Touched => "touched",
        Action::Deleted => "deleted",
        Action::Moved => "moved",
    }
}

/// Text from elsewhere made harmless for a terminal, and one line. Unlike [`escape`] it leaves
/// backslashes alone, so that text which was escaped already does not change.
pub(crate) fn plain(text: &str) -> String {
    text.split('\\')
        .map(|part| escape(part.as_bytes()))
        .collect::<Vec<_>>()
        .join("\\")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn summary() -> Summary {
        Summary {
            files: 401,
            files_transferred: 12,
            bytes: 64 << 20,
            wire_sent: 1_258_291,
            literal_bytes: 64 << 20,
            wire_received: 8192,
            elapsed: Duration::from_millis(800),
            ..Summary::default()
        }
    }

    #[test]
    fn the_summary_tells_files_bytes_wire_time_and_savings() {
        let mut figures = summary();
        assert_eq!(
            summary_text(&figures, Run::Real, 12),
            "401 files, 64 MiB · 12 transferred · 1.2 MiB sent, 8.0 KiB received · 0.80 s (80 MiB/s)"
        );
        figures.deleted = 2;
        figures.failed = 1;
        figures.saved_bytes = 63 << 20;
        figures.unchanged_bytes = 63 << 20;
        figures.resumed_bytes = 1024;
        let text = summary_text(&figures, Run::Dry, 14);
        assert!(
            text.contains("12 would be transferred, 2 would be deleted, 1 failed"),
            "{text}"
        );
        assert!(
            text.ends_with("\n  63 MiB in files that were there already · 1.0 KiB kept from an interrupted transfer"),
            "{text}"
        );
    }

    #[test]
    fn nothing_to_do_is_said_only_when_nothing_failed() {
        let idle = Summary {
            files_transferred: 0,
            ..summary()
        };
        assert!(summary_text(&idle, Run::Real, 0).contains("all up to date"));
        let failed = Summary { failed: 3, ..idle };
        assert!(summary_text(&failed, Run::Real, 0).contains("0 transferred, 3 failed"));
    }

    /// Links and directories that were made are no "all up to date".
    #[test]
    fn entries_without_content_count_as_changes() {
        let made = Summary {
            files: 0,
            files_transferred: 0,
            bytes: 0,
            ..summary()
        };
        let text = summary_text(&made, Run::Real, 3);
        assert!(text.contains("0 transferred, 3 more changed"), "{text}");
        let mixed = summary_text(&summary(), Run::Dry, 14);
        assert!(
            mixed.contains("12 would be transferred, 2 more would be changed"),
            "{mixed}"
        );
    }

    /// Delta's share is that of the changed files alone, and is never rounded up to all of them.
    #[test]
    fn what_delta_saved_is_told_apart_from_what_was_there_already() {
        let figures = Summary {
            files: 2,
            files_transferred: 1,
            bytes: 2 << 30,
            wire_sent: 5530,
            wire_received: 149,
            literal_bytes: 4096,
            matched_bytes: (1 << 30) - 4096,
            saved_bytes: (2 << 30) - 4096,
            unchanged_bytes: 1 << 30,
            elapsed: Duration::from_millis(250),
            ..Summary::default()
        };
        assert_eq!(
            summary_text(&figures, Run::Real, 1),
            "2 files, 2.0 GiB · 1 transferred · 5.4 KiB sent, 149 B received · delta saved 1.0 GiB (99.9 %) · 0.25 s\n  \
             1.0 GiB in files that were there already"
        );
    }

    /// What did not move has no rate.
    #[test]
    fn the_rate_is_that_of_the_bytes_that_travelled() {
        let mut figures = summary();
        figures.literal_bytes = 8 << 20;
        assert!(summary_text(&figures, Run::Real, 12).contains("0.80 s (10 MiB/s)"));
        figures.literal_bytes = 0;
        assert!(summary_text(&figures, Run::Real, 12).ends_with("0.80 s"));
    }

    #[test]
    fn the_summary_object_has_every_key_of_the_contract() {
        let object = summary_object(&summary(), 3);
        for key in [
            "files",
            "bytes",
            "wire_sent",
            "wire_received",
            "literal_bytes",
            "matched_bytes",
            "saved_bytes",
            "resumed_bytes",
            "seconds",
            "failed",
            "exit_code",
        ] {
            assert!(object[key].is_number(), "{key}");
        }
        assert_eq!(object["event"], "summary");
        assert_eq!(object["exit_code"], 3);
    }

    #[test]
    fn a_long_list_of_failures_is_cut_and_counted() {
        let mut failures = Failures::default();
        for index in 0..50 {
            failures.add(&format!("f{index}"), ItemCode::Permission);
        }
        let lines = failures.lines();
        assert_eq!(lines.len(), 21);
        assert!(lines[0].contains("f0: permission denied; check"), "{}", lines[0]);
        assert!(lines[20].contains("and 30 more"), "{}", lines[20]);
    }

    #[test]
    fn what_failed_with_its_directory_is_counted_and_not_listed() {
        let mut failures = Failures::default();
        failures.add("a", ItemCode::Permission);
        for index in 0..3 {
            failures.add(&format!("a/{index}"), ItemCode::Permission);
        }
        failures.add("ab", ItemCode::Permission);
        failures.add("a/other", ItemCode::Io);
        let lines = failures.lines();
        assert_eq!(lines.len(), 4, "{lines:?}");
        assert_eq!(lines[3], "  and 3 more below these (--json lists them all)");
    }

    #[test]
    fn names_from_outside_are_one_harmless_line_for_people_and_exact_for_scripts() {
        assert_eq!(plain("a\x1b[2J\n\\xff"), "a\\u{1b}[2J\\n\\xff");
        let path = RelPath::parse(b"a\xff").unwrap();
        let object = item_object(&path, Action::Created, 7, Figures::default());
        assert_eq!(
            (&object["path"], &object["path_hex"]),
            (&json!("a\\xff"), &json!("61ff"))
        );
        let path = RelPath::parse(b"a\nb").unwrap();
        let figures = Figures {
            literal_bytes: 1,
            matched_bytes: 3,
            saved_bytes: 2 << 20,
        };
        let object = item_object(&path, Action::Deleted, 0, figures);
        assert_eq!(object["path"], "a\nb");
        assert_eq!(
            (&object["literal_bytes"], &object["matched_bytes"]),
            (&json!(1), &json!(3))
        );
        assert_eq!(object["saved_bytes"], 2 << 20);
        assert_eq!(object["saved_percent"], 99.9, "only all is 100");
        let deleted = item_text(&path, Action::Deleted, 0, figures, Run::Dry);
        assert_eq!(deleted, "would be deleted a\\nb");
        let replaced = item_text(&path, Action::Replaced, 3 << 20, figures, Run::Real);
        assert_eq!(replaced, "replaced a\\nb (3.0 MiB, delta saved 2.0 MiB, 99.9 %)");
    }
}
