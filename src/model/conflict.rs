//! The names of conflict copies: `report.sync-conflict-20261120-214731-laptop.docx`.
//!
//! Makes and reads names only, touches no file. Invariant: the name is legal and no longer than the file system
//! takes, and the extension stays, so that the copy opens with the same program.

use super::RelPath;
use super::limits::{NAME_BYTES_MAX, PATH_BYTES_MAX};

/// A longer "extension" is taken for a part of the name.
const EXTENSION_BYTES_MAX: usize = 32;

/// Where the copy of what stood at `path` goes. `stamp` is a date, `author` says whose version it is;
/// `number` tells copies of one second apart and shows from 2 on. `None` when no legal path is left.
#[must_use]
pub fn conflict_path(path: &RelPath, stamp: &str, author: &str, number: u32) -> Option<RelPath> {
    let (parent, name) = path.split_last();
    let (stem, extension) = split_extension(name);
    let counted = if number > 1 {
        format!("-{number}")
    } else {
        String::new()
    };
    let tag = format!(".sync-conflict-{stamp}-{author}{counted}");
    let before = parent.map_or(0, |parent| parent.len() + 1);
    let room = NAME_BYTES_MAX.min(PATH_BYTES_MAX.checked_sub(before)?);
    let stem = shorten(stem, room.checked_sub(tag.len() + extension.len())?);
    let mut bytes = Vec::with_capacity(before + stem.len() + tag.len() + extension.len());
    if let Some(parent) = parent {
        bytes.extend_from_slice(parent);
        bytes.push(b'/');
    }
    for part in [stem, tag.as_bytes(), extension] {
        bytes.extend_from_slice(part);
    }
    RelPath::parse(&bytes).ok()
}

/// What the name of a conflict copy says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConflictName {
    /// The path that it is a copy of. A name that had to be shortened for the copy is still short here.
    pub of: RelPath,
    /// `YYYYMMDD-HHMMSS`.
    pub stamp: String,
    /// Whose version it is, with the number that tells copies of one second apart.
    pub author: String,
}

const TAG: &[u8] = b".sync-conflict-";
const STAMP_BYTES: usize = 15;

/// The ways to read the name of `path` as that of a conflict copy, the likeliest first; none if it is no such
/// name. There are two when the author's name could end in an extension.
#[must_use]
pub fn conflict_names(path: &RelPath) -> Vec<ConflictName> {
    let (parent, name) = path.split_last();
    let Some(at) = name.windows(TAG.len()).rposition(|window| window == TAG) else {
        return Vec::new();
    };
    let (stem, rest) = (&name[..at], &name[at + TAG.len()..]);
    let Some((stamp, rest)) = rest.split_at_checked(STAMP_BYTES) else {
        return Vec::new();
    };
    let is_stamp = (0..).zip(stamp).all(|(at, byte)| match at {
        8 => *byte == b'-',
        _ => byte.is_ascii_digit(),
    });
    let Some(rest) = rest.strip_prefix(b"-").filter(|rest| is_stamp && !rest.is_empty()) else {
        return Vec::new();
    };
    let (author, extension) = split_extension(rest);
    let readings = [(author, extension), (rest, &b""[..])];
    let distinct = if extension.is_empty() { 1 } else { 2 };
    let read = |(author, extension): &(&[u8], &[u8])| {
        let name = [stem, extension].concat();
        let bytes = match parent {
            Some(parent) => [parent, b"/", &name].concat(),
            None => name,
        };
        Some(ConflictName {
            of: RelPath::parse(&bytes).ok()?,
            stamp: String::from_utf8(stamp.to_vec()).ok()?,
            author: super::escape(author),
        })
    };
    readings.iter().take(distinct).filter_map(read).collect()
}

/// `a.b.c` is `a.b` and `.c`; a leading dot starts no extension, nor does the tag of a copy: behind the tag of a copy
/// of that copy it would be the one that is read.
fn split_extension(name: &[u8]) -> (&[u8], &[u8]) {
    match name.iter().rposition(|&byte| byte == b'.') {
        Some(at) if at > 0 && name.len() - at <= EXTENSION_BYTES_MAX && !name[at..].starts_with(TAG) => {
            name.split_at(at)
        }
        _ => (name, b""),
    }
}

/// The first bytes of `stem`, at most `room`, not ending within a UTF-8 character.
fn shorten(stem: &[u8], room: usize) -> &[u8] {
    if stem.len() <= room {
        return stem;
    }
    let mut end = room;
    while end > room.saturating_sub(3) && stem[end] & 0b1100_0000 == 0b1000_0000 {
        end -= 1;
    }
    &stem[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(path: &[u8], number: u32) -> String {
        let path = conflict_path(&RelPath::parse(path).unwrap(), "20261120-214731", "local", number).unwrap();
        String::from_utf8(path.as_bytes().to_vec()).unwrap()
    }

    #[test]
    fn a_copy_keeps_its_directory_and_extension() {
        assert_eq!(
            named(b"a/report.docx", 1),
            "a/report.sync-conflict-20261120-214731-local.docx"
        );
        assert_eq!(named(b"x.tar.gz", 2), "x.tar.sync-conflict-20261120-214731-local-2.gz");
        assert_eq!(named(b".profile", 1), ".profile.sync-conflict-20261120-214731-local");
        assert_eq!(named(b"README", 1), "README.sync-conflict-20261120-214731-local");
    }

    // Protects from settling a conflict with the wrong file: what names say is what they were made of.
    #[test]
    fn a_name_is_read_back_and_others_are_not_taken_for_one() {
        let path = |text: &str| RelPath::parse(text.as_bytes()).unwrap();
        for of in [
            "a/report.docx",
            "x.tar.gz",
            ".profile",
            "README",
            "a.sync-conflict-b.txt",
            "README.sync-conflict-20261120-214730-a",
            "README.sync-conflict-b",
        ] {
            let copy = conflict_path(&path(of), "20261120-214731", "laptop", 2).unwrap();
            let names = conflict_names(&copy);
            let likeliest = ConflictName {
                of: path(of),
                stamp: "20261120-214731".to_owned(),
                author: "laptop-2".to_owned(),
            };
            assert_eq!(names.first(), Some(&likeliest), "{of}");
        }
        // A device may have a dot in its name.
        let names = conflict_names(&path("README.sync-conflict-20261120-214731-my.laptop"));
        let read: Vec<_> = names
            .iter()
            .map(|name| (name.of.to_string(), name.author.as_str()))
            .collect();
        assert_eq!(
            read,
            [("README.laptop".to_owned(), "my"), ("README".to_owned(), "my.laptop")]
        );
        for other in [
            "report.docx",
            "a.sync-conflict-.txt",
            "a.sync-conflict-20261120-214731",
            "a.sync-conflict-20261120-214731-",
            "a.sync-conflict-20261120_214731-x",
            "a.sync-conflict-2026112a-214731-x",
            ".sync-conflict-20261120-214731-x",
        ] {
            assert_eq!(conflict_names(&path(other)), [], "{other}");
        }
    }

    #[test]
    fn the_longest_names_still_have_a_legal_copy() {
        let long = "ä".repeat(125) + ".txt";
        let copy = named(long.as_bytes(), 99);
        assert!(
            copy.len() <= NAME_BYTES_MAX && copy.ends_with("-local-99.txt"),
            "{copy}"
        );
        let deep = [vec![b'd'; 250], vec![b'd'; 250]].join(&b'/');
        let path = RelPath::parse(&[deep, vec![0xff; 255]].join(&b'/')).unwrap();
        assert!(conflict_path(&path, "20261120-214731", "local", 1).is_some());
    }
}
