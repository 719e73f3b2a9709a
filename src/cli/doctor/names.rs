//! Whether a folder's file system takes names for one that differ only in the case of letters.
//!
//! Makes nothing: it asks for a name that is there, in another case. Says nothing of a folder without a name that
//! has letters.

use super::{Finding, show};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Names that are looked at for one with letters.
const NAMES_MAX: usize = 1000;

pub(super) fn look(folder: &Path) -> Option<Finding> {
    let own = OsStr::new(".syncline");
    let names = fs::read_dir(folder).ok()?.filter_map(Result::ok).take(NAMES_MAX);
    let mut names = std::iter::once(own.to_owned()).chain(names.map(|entry| entry.file_name()));
    let folds = names.find_map(|name| is_found_otherwise(folder, &name))?;
    let name = show(folder);
    Some(if folds {
        Finding::warn(
            "names",
            format!("the file system of {name} takes names for one that differ only in case"),
            "nothing needs to be fixed; of two such files only the first can be there, so give them other names",
        )
    } else {
        Finding::ok("names", format!("in {name} a and A are two names"))
    })
}

/// Whether a name in another case leads to the same; `None` when there is no other case, or no such name.
fn is_found_otherwise(folder: &Path, name: &OsStr) -> Option<bool> {
    let other: Vec<u8> = name.as_bytes().iter().map(|byte| swapped(*byte)).collect();
    let found = fs::symlink_metadata(folder.join(name)).ok()?;
    if other == name.as_bytes() {
        return None;
    }
    let other = fs::symlink_metadata(folder.join(std::ffi::OsString::from_vec(other)));
    Some(other.is_ok_and(|other| (other.dev(), other.ino()) == (found.dev(), found.ino())))
}

fn swapped(byte: u8) -> u8 {
    if byte.is_ascii_lowercase() {
        byte.to_ascii_uppercase()
    } else {
        byte.to_ascii_lowercase()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::Verdict;

    #[test]
    fn only_a_name_with_letters_tells() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(look(dir.path()), None);
        fs::write(dir.path().join("12"), "").unwrap();
        assert_eq!(look(dir.path()), None);
        fs::write(dir.path().join("aB"), "").unwrap();
        assert_eq!(look(dir.path()).unwrap().verdict, Verdict::Ok);
        // Two files are not one.
        fs::write(dir.path().join("Ab"), "").unwrap();
        assert_eq!(look(dir.path()).unwrap().verdict, Verdict::Ok);
    }
}
