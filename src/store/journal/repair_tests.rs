//! Tests of `repair`: what is whole goes on, what is not is kept, and doing it again does nothing.

use super::super::fixtures::{HERE, Written, file, incoming, open, reached};
use super::*;
use std::fs;
use std::path::Path;

fn damaged(bytes: &[u8]) -> (tempfile::TempDir, Root) {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join(".syncline")).unwrap();
    fs::write(file(dir.path()), bytes).unwrap();
    let root = Root::open(dir.path()).unwrap();
    (dir, root)
}

fn mended(root: &Root) -> (u64, u64, u64, String) {
    match Journal::repair(root).unwrap() {
        Repaired::Mended {
            transfers,
            records,
            lost_bytes,
            kept_as,
        } => (transfers, records, lost_bytes, kept_as),
        other => panic!("{other:?}"),
    }
}

fn names(dir: &Path) -> Vec<String> {
    let list = fs::read_dir(dir.join(".syncline")).unwrap();
    let mut names: Vec<String> = list
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Each record in turn is lost, and nothing but what it said.
#[test]
fn all_but_the_damaged_record_goes_on() {
    let written = Written::of(HERE, 6);
    let all = written.starts.len() as u64;
    for (index, &start) in written.starts[..written.starts.len() - 1].iter().enumerate() {
        let mut bytes = written.bytes.clone();
        bytes[start + 20] ^= 0x10;
        let (dir, root) = damaged(&bytes);
        let (transfers, records, lost_bytes, kept_as) = mended(&root);
        let length = (written.starts[index + 1] - start) as u64;
        assert_eq!((records, lost_bytes), (all - 1, length), "{index}");
        // Transfers 1 and 4 had ended. Without the record of that they are back, without that of their
        // beginning the others are gone.
        let found = replay(&fs::read(file(dir.path())).unwrap(), &HERE).unwrap().unwrap();
        assert_eq!(found.table.len() as u64, transfers, "{index}");
        assert!((3..=5).contains(&transfers), "{index}: {transfers}");
        assert!(found.table.iter().all(|entry| !entry.proven));
        assert!(
            found.header.epoch > 7,
            "what is left of the old file can never be read as the new one"
        );
        assert_eq!(fs::read(dir.path().join(".syncline").join(&kept_as)).unwrap(), bytes);
        assert_eq!(names(dir.path()), ["journal".to_owned(), kept_as]);
        assert_eq!(Journal::repair(&root).unwrap(), Repaired::Whole { transfers });
        assert_eq!(open(dir.path()).iter().count() as u64, transfers);
    }
}

/// Without a header the records themselves know what they belong to.
#[test]
fn a_lost_header_loses_nothing_else() {
    let written = Written::of(HERE, 6);
    let mut bytes = written.bytes.clone();
    bytes[3..40].fill(0xee);
    let (dir, root) = damaged(&bytes);
    let (transfers, records, lost_bytes, _) = mended(&root);
    assert_eq!((transfers, records, lost_bytes), (4, written.starts.len() as u64, 44));
    assert_eq!(open(dir.path()).iter().count(), 4);
    let (dir, root) = damaged(&[b'x'; 1_000]);
    assert_eq!(mended(&root).0, 0);
    // Nothing is in the new one, so opening it takes it away; the copy stays.
    drop(open(dir.path()));
    assert!(
        names(dir.path())
            .iter()
            .all(|name| name.starts_with("journal.damaged-"))
    );
}

/// What is not damaged, in use, or of a later version, is left alone.
#[test]
fn only_damage_is_mended() {
    let dir = tempfile::tempdir().unwrap();
    let root = Root::open(dir.path()).unwrap();
    assert_eq!(Journal::repair(&root).unwrap(), Repaired::Empty);
    let mut journal = open(dir.path());
    let id = journal.begin(&incoming("a", None)).unwrap();
    journal.reach(id, &reached(3));
    assert!(matches!(Journal::repair(&root), Err(JournalError::Held { .. })));
    drop(journal);
    let torn = fs::read(file(dir.path())).unwrap();
    fs::write(file(dir.path()), &torn[..torn.len() - 1]).unwrap();
    assert_eq!(Journal::repair(&root).unwrap(), Repaired::Whole { transfers: 1 });
    assert_eq!(fs::read(file(dir.path())).unwrap(), torn[..torn.len() - 1]);
    let mut later = Written::of(HERE, 3).bytes;
    later[8] = 2;
    let crc = crc32fast::hash(&later[..40]);
    later[40..44].copy_from_slice(&crc.to_le_bytes());
    let (dir, root) = damaged(&later);
    assert!(matches!(Journal::repair(&root), Err(JournalError::Version(2))));
    assert_eq!(names(dir.path()), ["journal"]);
    let (_dir, root) = damaged(&[0; 500]);
    assert_eq!(Journal::repair(&root).unwrap(), Repaired::Empty);
}

/// Killed in between, at its second: the copy is there, the damaged one still has its name.
#[test]
fn a_repair_that_was_killed_can_be_done_again() {
    let mut bytes = Written::of(HERE, 6).bytes;
    bytes[60] ^= 1;
    let (dir, root) = damaged(&bytes);
    let held = Place::of_root(&root).hold(Missing::Leave).unwrap().unwrap();
    let first = keep(&held).unwrap();
    fs::write(dir.path().join(".syncline/journal.new"), b"half of it").unwrap();
    drop(held);
    let (_, _, _, second) = mended(&root);
    assert_ne!(first, second);
    assert_eq!(names(dir.path()).len(), 3);
}
