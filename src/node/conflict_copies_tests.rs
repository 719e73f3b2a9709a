//! Tests of finding and settling conflict copies, on real folders.

use super::*;
use std::fs;
use std::path::Path;

const COPY: &str = "docs/report.sync-conflict-20261120-214731-laptop.docx";

fn folder() -> (tempfile::TempDir, History) {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join(".syncline")).unwrap();
    fs::create_dir(dir.path().join("docs")).unwrap();
    fs::write(dir.path().join("docs/report.docx"), "theirs").unwrap();
    fs::write(dir.path().join(COPY), "mine!").unwrap();
    let (history, _) = History::find(dir.path()).unwrap();
    (dir, history)
}

fn path(text: &str) -> RelPath {
    RelPath::parse(text.as_bytes()).unwrap()
}

fn read(dir: &Path, name: &str) -> Option<String> {
    fs::read_to_string(dir.join(name)).ok()
}

fn kept(history: &History) -> Vec<String> {
    let versions = history.versions(None).unwrap();
    versions.iter().map(|version| version.path().to_string()).collect()
}

// Protects whoever looks for what a sync kept: both versions are named, and no file is taken for a copy.
#[test]
fn copies_are_found_with_what_stands_in_their_place() {
    let (dir, history) = folder();
    fs::write(dir.path().join("docs/sync-conflict.txt"), "no copy").unwrap();
    let (copies, failed) = history.conflict_copies(None);
    assert!(failed.is_empty());
    assert_eq!(copies.len(), 1, "{copies:?}");
    assert_eq!(copies[0].name.of, path("docs/report.docx"));
    assert_eq!(
        (copies[0].kind, copies[0].other),
        (FoundKind::File { size: 5 }, Some(FoundKind::File { size: 6 }))
    );
    assert_eq!(history.copies_of(&path("docs/report.docx")).unwrap(), copies);
    assert_eq!(history.copies_of(&path("docs/other")).unwrap(), []);
    fs::remove_file(dir.path().join("docs/report.docx")).unwrap();
    assert_eq!(history.conflict_copies(None).0[0].other, None);
}

// Protects both versions: whichever wins, the other one can be brought back.
#[test]
fn what_gives_way_lies_among_the_versions() {
    let (dir, history) = folder();
    let settled = history.settle(&path(COPY), Winner::Copy).unwrap();
    assert_eq!(settled, Settled::Took(path("docs/report.docx"), true));
    assert_eq!(read(dir.path(), "docs/report.docx").as_deref(), Some("mine!"));
    assert_eq!(
        (read(dir.path(), COPY), kept(&history)),
        (None, vec!["docs/report.docx".to_owned()])
    );
    let version = history.choose(&path("docs/report.docx"), None).unwrap();
    history.restore(&version, &path("back")).unwrap();
    assert_eq!(read(dir.path(), "back").as_deref(), Some("theirs"));

    let (dir, history) = folder();
    assert_eq!(
        history.settle(&path(COPY), Winner::Other).unwrap(),
        Settled::WentToVersions
    );
    assert_eq!(read(dir.path(), "docs/report.docx").as_deref(), Some("theirs"));
    assert_eq!((read(dir.path(), COPY), kept(&history)), (None, vec![COPY.to_owned()]));
    let version = history.choose(&path(COPY), None).unwrap();
    history.restore(&version, &path(COPY)).unwrap();
    assert_eq!(read(dir.path(), COPY).as_deref(), Some("mine!"));
}

// Protects what has the plain name already.
#[test]
fn a_copy_that_stays_never_takes_a_name_that_is_taken() {
    let (dir, history) = folder();
    let taken = "docs/report (laptop 2026-11-20).docx";
    fs::write(dir.path().join(taken), "older").unwrap();
    let settled = history.settle(&path(COPY), Winner::Both).unwrap();
    let fresh = "docs/report (laptop 2026-11-20 2).docx";
    assert_eq!(settled, Settled::Renamed(path(fresh)));
    assert_eq!(read(dir.path(), taken).as_deref(), Some("older"));
    assert_eq!(read(dir.path(), fresh).as_deref(), Some("mine!"));
    assert_eq!(kept(&history), [] as [&str; 0]);
}

// Protects directories, which cannot become versions as a whole, and files that are no copies.
#[test]
fn what_cannot_be_settled_stays_as_it_is() {
    let (dir, history) = folder();
    assert!(matches!(
        history.settle(&path("docs/report.docx"), Winner::Other),
        Err(SettleError::NoCopy(_))
    ));
    fs::remove_file(dir.path().join("docs/report.docx")).unwrap();
    fs::create_dir_all(dir.path().join("docs/report.docx/in")).unwrap();
    assert!(matches!(
        history.settle(&path(COPY), Winner::Copy),
        Err(SettleError::Directory(_))
    ));
    assert_eq!(read(dir.path(), COPY).as_deref(), Some("mine!"));
    fs::remove_file(dir.path().join(COPY)).unwrap();
    assert!(matches!(
        history.settle(&path(COPY), Winner::Other),
        Err(SettleError::Absent(_))
    ));
    fs::create_dir(dir.path().join(COPY)).unwrap();
    assert!(matches!(
        history.settle(&path(COPY), Winner::Other),
        Err(SettleError::Directory(_))
    ));
    // Nothing stands in its place and the name was cut: where it belongs cannot be told.
    let long = format!("{}.sync-conflict-20261120-214731-laptop.docx", "ä".repeat(106));
    fs::write(dir.path().join(&long), "x").unwrap();
    assert!(long.len() > 252, "{}", long.len());
    assert!(matches!(
        history.settle(&path(&long), Winner::Copy),
        Err(SettleError::Shortened(_))
    ));
}
