//! What of a folder takes no part in its sync, and which rule says so. Reads rules and names, changes nothing.

use super::history::{History, HistoryError, resolve};
use crate::model::RelPath;
use crate::store::{FileError, FoundKind, Ignore, IgnoreProblem, IgnoreReason, Keep, Root, ScanItem, Shape, Verdict};
use std::path::Path;

/// Something that takes no part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// It, or the directory above it that is left out.
    pub path: RelPath,
    /// With all that is in it.
    pub is_directory: bool,
    /// Why.
    pub why: WhyLeftOut,
}

/// Why something takes no part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WhyLeftOut {
    /// A rule.
    Rule(IgnoreReason),
    /// It is a FIFO, socket or device.
    Special,
}

/// What a look at the rules found.
#[derive(Debug, Default)]
pub struct LookedOver {
    /// Entries that take part.
    pub kept: u64,
    /// Rules that have no effect.
    pub problems: Vec<IgnoreProblem>,
    /// What could not be looked at.
    pub failed: Vec<FileError>,
}

const STEP_ENTRIES: usize = 4096;

/// Tells what at `path` and below it takes no part, as it is found. The rules are those of the folder of Syncline that
/// it is in; where there is none, `path` itself is taken for one. Blocks.
///
/// # Errors
/// When the folder cannot be found or read.
pub fn left_out(path: &Path, tell: &mut dyn FnMut(LeftOut)) -> Result<LookedOver, HistoryError> {
    let (root, start) = match History::find(path) {
        Ok((history, start)) => (history.root, start),
        Err(HistoryError::NoShare(_)) => {
            let real = resolve(path).map_err(|source| HistoryError::Unreadable {
                path: path.to_owned(),
                source,
            })?;
            (Root::open(&real)?, None)
        }
        Err(error) => return Err(error),
    };
    let mut ignore = Ignore::new();
    let mut looked = LookedOver::default();
    if let Some(start) = &start {
        let kind = root.probe(start)?.map(|found| found.kind);
        let shape = match kind {
            Some(FoundKind::Directory) => Shape::Directory,
            _ => Shape::Other,
        };
        if let Verdict::Left { at, reason } = ignore.judge(&root, start, shape) {
            let is_directory = shape == Shape::Directory || at != *start;
            tell(LeftOut {
                path: at,
                is_directory,
                why: WhyLeftOut::Rule(reason),
            });
            looked.problems = ignore.take_problems();
            return Ok(looked);
        }
        if kind.is_none() {
            // What may come there would take part.
            looked.kept = 1;
            return Ok(looked);
        }
    }
    let mut scan = root.scan(start.as_ref());
    let mut items = Vec::new();
    let mut more = true;
    while more {
        let keep = &mut |path: &RelPath, shape| match ignore.judge(&root, path, shape) {
            Verdict::Kept => Keep::Yes,
            Verdict::Left { at, reason } => {
                tell(LeftOut {
                    path: at,
                    is_directory: shape == Shape::Directory,
                    why: WhyLeftOut::Rule(reason),
                });
                Keep::No
            }
        };
        more = scan.step(&root, keep, STEP_ENTRIES, &mut items);
        for item in items.drain(..) {
            match item {
                ScanItem::Entry(..) => looked.kept += 1,
                ScanItem::Special(path) => tell(LeftOut {
                    path,
                    is_directory: false,
                    why: WhyLeftOut::Special,
                }),
                ScanItem::Failed(error) => looked.failed.push(error),
            }
        }
    }
    looked.problems = ignore.take_problems();
    Ok(looked)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn told(path: &Path) -> (Vec<String>, u64) {
        let mut lines = Vec::new();
        let looked = left_out(path, &mut |left| {
            let why = match &left.why {
                WhyLeftOut::Rule(reason) => reason.to_string(),
                WhyLeftOut::Special => "special".to_owned(),
            };
            lines.push(format!("{} {} {why}", left.path, left.is_directory));
        });
        (lines, looked.unwrap().kept)
    }

    // Protects whoever wonders why a file does not arrive: the rule is named, from wherever it is asked.
    #[test]
    fn what_is_left_out_is_told_with_its_rule() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("sub/build/deep")).unwrap();
        fs::write(dir.path().join(".synclineignore"), "*.log\nbuild/\n").unwrap();
        for name in ["a.log", "b.txt", "sub/c.log", "sub/build/deep/x", ".DS_Store"] {
            fs::write(dir.path().join(name), "x").unwrap();
        }
        let (mut lines, kept) = told(dir.path());
        lines.sort();
        let want = [
            ".DS_Store false built-in rule: .DS_Store",
            "a.log false .synclineignore:1: *.log",
            "sub/build true .synclineignore:2: build/",
            "sub/c.log false .synclineignore:1: *.log",
        ];
        assert_eq!(lines, want);
        assert_eq!(kept, 3, "the rules, the text, the directory");
        // In a synced folder the rules above hold below, and for what is not there.
        fs::create_dir(dir.path().join(".syncline")).unwrap();
        assert_eq!(told(&dir.path().join("sub/c.log")).0, [want[3]]);
        assert_eq!(told(&dir.path().join("sub/build/deep/x")).0, [want[2]]);
        assert_eq!(told(&dir.path().join("sub/missing.log")).0.len(), 1);
        assert_eq!(told(&dir.path().join("sub/missing.txt")), (Vec::new(), 1));
        assert_eq!(told(&dir.path().join("b.txt")), (Vec::new(), 1));
    }
}
