//! Which lines of an activity log somebody wants to see.
//!
//! Knows no files. Invariant: deciding on a line is linear in its length, whatever was asked for.

use super::ActivityEntry;
use crate::model::escape;
use crate::store::glob::{Glob, GlobError};

/// What was asked for; by default everything.
#[derive(Debug, Default)]
pub struct ActivityQuery {
    /// Nothing earlier, in milliseconds since 1970.
    pub since_ms: Option<u64>,
    /// Only what is about such a path.
    pub path: Option<ActivityPath>,
    /// And about one in there.
    pub within: Option<ActivityPath>,
    /// Only what this one did: a name, or the beginning of a device id, long or short.
    pub who: Option<String>,
    /// Only what did not work.
    pub failed: bool,
}

/// A path with all that is beneath it, or a pattern.
#[derive(Debug)]
pub struct ActivityPath {
    /// As the log has it: escaped.
    prefix: String,
    pattern: Option<Glob>,
}

impl ActivityPath {
    /// `text` as a pattern in gitignore syntax if it has any of `*?[` in it, else as a path with all that is
    /// beneath it.
    ///
    /// # Errors
    /// When it is no pattern.
    pub fn parse(text: &[u8]) -> Result<ActivityPath, GlobError> {
        let bare = text.strip_suffix(b"/").unwrap_or(text);
        let is_pattern = bare.iter().any(|byte| b"*?[".contains(byte));
        Ok(ActivityPath {
            prefix: escape(bare),
            pattern: is_pattern.then(|| Glob::parse(bare)).transpose()?,
        })
    }

    /// A path of the folder, with all that is beneath it.
    #[must_use]
    pub fn beneath(path: &crate::model::RelPath) -> ActivityPath {
        ActivityPath {
            prefix: escape(path.as_bytes()),
            pattern: None,
        }
    }

    fn fits(&self, path: &str) -> bool {
        match &self.pattern {
            // What is beneath a directory that fits does, too.
            Some(pattern) => std::iter::successors(Some(path), |path| path.rsplit_once('/').map(|(above, _)| above))
                .any(|path| pattern.matches_bytes(path.as_bytes())),
            None => match path.strip_prefix(&self.prefix) {
                Some(rest) => rest.is_empty() || rest.starts_with('/') || self.prefix.is_empty(),
                None => false,
            },
        }
    }
}

/// Characters of a device id that are enough to name it.
const ID_CHARS_MIN: usize = 4;

impl ActivityQuery {
    /// Whether a line is asked for.
    #[must_use]
    pub fn wants(&self, entry: &ActivityEntry) -> bool {
        self.since_ms.is_none_or(|since| entry.at_ms() >= since)
            && (!self.failed || entry.is_failure())
            && self.who.as_ref().is_none_or(|who| is_of(entry, who))
            && [&self.path, &self.within].into_iter().flatten().all(|path| {
                let mut paths = ["path", "from", "copy"].iter().filter_map(|key| entry.field(key));
                paths.any(|found| path.fits(found))
            })
    }
}

fn is_of(entry: &ActivityEntry, who: &str) -> bool {
    let is_name = entry.field("who").is_some_and(|name| name.eq_ignore_ascii_case(who));
    let Some(device) = entry.field("device") else {
        return is_name;
    };
    // A device may call itself what it likes, but it is not this machine.
    if is_name && !who.eq_ignore_ascii_case("here") {
        return true;
    }
    let short = device.parse().map(|id: crate::model::DeviceId| id.short());
    let wanted = who.to_ascii_uppercase();
    who.len() >= ID_CHARS_MIN
        && (device.to_ascii_uppercase().starts_with(&wanted) || short.is_ok_and(|short| short.starts_with(&wanted)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(fields: &str) -> ActivityEntry {
        ActivityEntry::parse(format!("{{\"v\":1,\"at_ms\":1000,{fields}}}").as_bytes()).unwrap()
    }

    // Protects whoever searches: a directory means what is in it and not its namesakes, a pattern what it matches.
    #[test]
    fn paths_are_found_by_place_and_by_pattern() {
        let moved = entry(r#""event":"item","who":"a","path":"docs/new.txt","from":"old/was.md""#);
        for (text, fits) in [
            ("docs", true),
            ("docs/", true),
            ("docs/new.txt", true),
            ("doc", false),
            ("old", true),
            ("*.txt", true),
            ("*.md", true),
            ("d*", true),
            ("/docs/*", true),
            ("/*.txt", false),
            ("**/new*", true),
            ("", true),
        ] {
            let path = Some(ActivityPath::parse(text.as_bytes()).unwrap());
            let query = ActivityQuery {
                path,
                ..ActivityQuery::default()
            };
            assert_eq!(query.wants(&moved), fits, "{text:?}");
        }
        assert!(ActivityPath::parse(b"a[").is_err());
        let run = entry(r#""event":"run","who":"a""#);
        let path = Some(ActivityPath::parse(b"docs").unwrap());
        let query = ActivityQuery {
            path,
            ..ActivityQuery::default()
        };
        assert!(!query.wants(&run), "a run is about no path");
    }

    // Protects whoever asks about a device: by name or id, and never by a letter or two.
    #[test]
    fn devices_are_found_by_name_and_by_id() {
        let id = crate::model::DeviceId([0xa7; 32]);
        let item = entry(&format!(r#""event":"error","who":"Laptop","device":"{id}","path":"x""#));
        let by = |who: &str| ActivityQuery {
            who: Some(who.to_owned()),
            ..ActivityQuery::default()
        };
        for who in ["laptop", "a7a7a", "A7A7", &id.to_string(), &id.short()] {
            assert!(by(who).wants(&item), "{who}");
        }
        for who in ["lap", "a7", "here", "b7a7"] {
            assert!(!by(who).wants(&item), "{who}");
        }
        let called_here = entry(&format!(r#""event":"error","who":"here","device":"{id}""#));
        assert!(!by("here").wants(&called_here) && by("here").wants(&entry(r#""event":"error","who":"here""#)));
    }

    // Protects whoever looks for what went wrong, and since when.
    #[test]
    fn failures_are_found_and_what_is_too_old_is_not() {
        let query = ActivityQuery {
            failed: true,
            since_ms: Some(1000),
            ..ActivityQuery::default()
        };
        for (fields, is_wanted) in [
            (r#""event":"error","path":"x""#, true),
            (r#""event":"refused""#, true),
            (r#""event":"run","failed":1"#, true),
            (r#""event":"run","failed":0,"reason":"gone""#, true),
            (r#""event":"run","failed":0"#, false),
            (r#""event":"item","path":"x""#, false),
        ] {
            assert_eq!(query.wants(&entry(fields)), is_wanted, "{fields}");
        }
        let later = ActivityQuery {
            since_ms: Some(1001),
            ..query
        };
        assert!(!later.wants(&entry(r#""event":"error""#)));
    }
}
