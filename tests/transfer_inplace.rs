//! `--inplace` between a real server and client: the file stays the same inode, its content is right, and
//! nothing is lost when it cannot be done in place.

#![allow(clippy::unwrap_used)]

mod harness;

use harness::edits::{drive_and, noise, staged};
use harness::{Run, World, WorldOptions, pull_job, push_job};
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};
use syncline::node::{Client, ClientEvent, Durability, TransferOptions};

/// Large enough for a sidecar, and no multiple of anything.
const LENGTH: usize = (20 << 20) + 12_345;

fn in_place() -> TransferOptions {
    TransferOptions {
        in_place: true,
        ..TransferOptions::default()
    }
}

/// Which way the file goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Push,
    Pull,
}

/// A world in which both sides have a file, and remember it.
struct Pair {
    world: World,
    way: Way,
    source: PathBuf,
    target: PathBuf,
    content: Vec<u8>,
    edited: u64,
}

impl Pair {
    fn new(way: Way, options: &WorldOptions, content: Vec<u8>) -> Pair {
        let world = World::with(options);
        let (here, there) = (world.path("file"), world.share().join("file"));
        let (source, target) = match way {
            Way::Push => (here, there),
            Way::Pull => (there, here),
        };
        fs::write(&source, &content).unwrap();
        let mut pair = Pair {
            world,
            way,
            source,
            target,
            content,
            edited: 0,
        };
        pair.transfer(TransferOptions::default()).assert_clean();
        pair
    }

    fn job(&self) -> syncline::node::Job {
        match self.way {
            Way::Push => push_job(&[&self.source], &self.world.link("/")),
            Way::Pull => pull_job(&self.world.link("/file"), &self.target),
        }
    }

    fn transfer(&mut self, options: TransferOptions) -> Run {
        let job = self.job();
        self.world.run(job, options)
    }

    /// The source gets a new version.
    fn edit(&mut self, edit: impl FnOnce(&mut Vec<u8>)) {
        edit(&mut self.content);
        fs::write(&self.source, &self.content).unwrap();
        self.edited += 1;
        let time = UNIX_EPOCH + Duration::from_secs(1_500_000_000 + self.edited);
        File::options()
            .write(true)
            .open(&self.source)
            .unwrap()
            .set_modified(time)
            .unwrap();
    }

    fn inode(&self) -> u64 {
        fs::metadata(&self.target).unwrap().ino()
    }

    /// Both sides are alike, in content, mode and time, and nothing of ours is left of a change.
    fn assert_same(&self) {
        assert!(fs::read(&self.target).unwrap() == self.content);
        let [source, target] = [&self.source, &self.target].map(|path| fs::metadata(path).unwrap());
        assert_eq!(source.modified().unwrap(), target.modified().unwrap());
        assert_eq!(source.permissions(), target.permissions());
        let root = self.target.parent().unwrap();
        assert!(!root.join(".syncline/undo").exists());
        assert_eq!(staged(root), 0);
    }
}

fn overwrite(content: &mut [u8], at: usize, length: usize, seed: u32) {
    content[at..at + length].copy_from_slice(&noise(length, seed));
}

/// Edits, a longer and a shorter end: the same inode, and few bytes; both ways, with and without barriers.
#[test]
fn changes_are_made_in_the_same_inode() {
    for (way, durability) in [
        (Way::Push, Durability::None),
        (Way::Push, Durability::Barrier),
        (Way::Pull, Durability::None),
    ] {
        let options = WorldOptions {
            durability,
            ..WorldOptions::default()
        };
        let mut pair = Pair::new(way, &options, noise(LENGTH, 1));
        let inode = pair.inode();
        let edits: [fn(&mut Vec<u8>); 4] = [
            |content| overwrite(content, 3 << 20, 4096, 2),
            |content| (0..200).for_each(|number| content[number * 100_003] ^= 0x55),
            |content| content.extend(noise(50_000, 3)),
            |content| {
                content.truncate(LENGTH - 99_999);
                overwrite(content, LENGTH - 200_000, 10, 4);
            },
        ];
        for (number, edit) in edits.into_iter().enumerate() {
            pair.edit(edit);
            let run = pair.transfer(in_place());
            run.assert_clean();
            let summary = &run.outcome.summary;
            assert_eq!(summary.files_transferred, 1);
            assert_eq!(pair.inode(), inode, "{way:?} {durability:?}, edit {number}");
            pair.assert_same();
            let wire = summary.wire_sent + summary.wire_received;
            assert!(wire < 70_000, "{way:?}, edit {number}: {wire} bytes");
        }
        // What is there is known: nothing is left to do.
        let again = pair.transfer(in_place());
        assert_eq!(again.outcome.summary.files_transferred, 0);
    }
}

/// Files that are compressed against their old version as a whole are changed in place, too.
#[test]
fn files_of_medium_size_keep_their_inode() {
    for way in [Way::Push, Way::Pull] {
        let mut pair = Pair::new(way, &WorldOptions::default(), noise(3_000_000, 5));
        let inode = pair.inode();
        for (at, length) in [(0, 1), (1_000_000, 5000), (2_999_990, 10)] {
            pair.edit(|content| overwrite(content, at, length, at as u32 + 9));
            pair.transfer(in_place()).assert_clean();
            pair.assert_same();
            assert_eq!(pair.inode(), inode, "{way:?} at {at}");
        }
    }
}

/// Bytes that move cannot be kept in place: the file is replaced, at the price of a delta.
#[test]
fn an_insertion_falls_back_to_a_staged_file() {
    for way in [Way::Push, Way::Pull] {
        let mut pair = Pair::new(way, &WorldOptions::default(), noise(LENGTH, 6));
        let inode = pair.inode();
        pair.edit(|content| {
            overwrite(content, 100_000, 3000, 7);
            overwrite(content, 9 << 20, 100, 8);
            content.splice((10 << 20) + 77..(10 << 20) + 77, noise(100, 9));
            overwrite(content, 15 << 20, 100, 10);
        });
        let run = pair.transfer(in_place());
        run.assert_clean();
        pair.assert_same();
        assert_ne!(pair.inode(), inode, "{way:?}");
        let wire = run.outcome.summary.wire_sent + run.outcome.summary.wire_received;
        assert!(wire < 20_000, "{way:?}: {wire} bytes");
    }
}

/// A file with another name outside of what is transferred is replaced; the other name keeps the old
/// content.
#[test]
fn a_hard_link_is_not_written_through() {
    let mut pair = Pair::new(Way::Push, &WorldOptions::default(), noise(LENGTH, 11));
    let (other, before) = (pair.world.path("other"), pair.content.clone());
    fs::hard_link(&pair.target, &other).unwrap();
    pair.edit(|content| overwrite(content, 5 << 20, 100, 12));
    pair.transfer(in_place()).assert_clean();
    pair.assert_same();
    assert!(fs::read(&other).unwrap() == before);
    assert_eq!(fs::metadata(&pair.target).unwrap().nlink(), 1);
    assert_ne!(fs::metadata(&other).unwrap().ino(), pair.inode());
}

/// A file that its owner made read-only is replaced as usual.
#[test]
fn a_file_that_may_not_be_written_is_replaced() {
    let mut pair = Pair::new(Way::Push, &WorldOptions::default(), noise(LENGTH, 13));
    for path in [&pair.source, &pair.target] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o400)).unwrap();
    }
    fs::remove_file(&pair.source).unwrap();
    pair.edit(|content| overwrite(content, 5 << 20, 100, 14));
    pair.transfer(in_place()).assert_clean();
    pair.assert_same();
}

/// Somebody writes to the file between our looking at it and the change: that version stays, and the file
/// is reported, or it is kept as a copy. What was written before is replaced knowingly, and what comes after
/// stands in the new one.
#[test]
fn an_edit_made_meanwhile_is_never_overwritten() {
    let mut pair = Pair::new(Way::Push, &WorldOptions::default(), noise(LENGTH, 15));
    let mut reported = 0;
    for turns in 0..24 {
        pair.edit(|content| overwrite(content, 5 << 20, 100, 16 + turns));
        let client = Client::start(pair.world.client_options("client-home"), pair.job(), in_place()).unwrap();
        let target = File::options().write(true).open(&pair.target).unwrap();
        let mut theirs = None;
        let run = drive_and(&mut pair.world, client, |turn| {
            if turn == turns {
                target.write_all_at(&noise(64, turn), 1 << 20).unwrap();
                theirs = Some(fs::read(&pair.target).unwrap());
            }
        });
        assert_eq!(run.outcome.result, Ok(()));
        let versions = versions(&pair.world.share());
        let mut both = pair.content.clone();
        overwrite(&mut both, 1 << 20, 64, turns);
        if run.outcome.summary.failed > 0 {
            assert_eq!(run.failures(), ["file Changing"]);
            assert!(theirs.is_some_and(|theirs| versions == [theirs]), "turn {turns}");
            reported += 1;
        } else if let [one] = &versions[..] {
            assert!(*one == pair.content || *one == both, "a mixture at turn {turns}");
        } else {
            // The basis was another one already when its patch came: that was replaced, with a copy.
            assert_eq!(versions.len(), 2, "turn {turns}");
            let theirs = theirs.expect("an edit that was displaced");
            assert!(
                versions.contains(&theirs) && versions.contains(&pair.content),
                "turn {turns}"
            );
            remove_copies(&pair.world.share());
        }
        // The next run brings over what is missing. What was written while the file was changed cannot be
        // told from the change, so the file has to be read.
        pair.edit(|content| overwrite(content, 6 << 20, 100, turns));
        let reading = TransferOptions {
            checksum: true,
            ..in_place()
        };
        pair.transfer(reading).assert_clean();
        pair.assert_same();
    }
    assert!(reported > 0, "none of the edits fell between the two looks");
}

/// Somebody writes to the file when it has its new content and time, perhaps before its state is noted: the next transfer
/// does not take it for what was committed.
#[test]
fn an_edit_right_after_the_change_is_found_by_the_next_transfer() {
    for (round, options) in [in_place(), TransferOptions::default()]
        .into_iter()
        .cycle()
        .take(16)
        .enumerate()
    {
        let mut pair = Pair::new(Way::Push, &WorldOptions::default(), noise(LENGTH, 30));
        let seed = 31 + round as u32;
        pair.edit(|content| overwrite(content, 5 << 20, 100, seed));
        let client = Client::start(pair.world.client_options("client-home"), pair.job(), options.clone()).unwrap();
        let mut is_edited = false;
        let path = pair.target.clone();
        let time = fs::metadata(&pair.source).unwrap().modified().unwrap();
        let run = drive_and(&mut pair.world, client, |_| {
            let target = File::options().read(true).write(true).open(&path).unwrap();
            let mut there = [0; 100];
            target.read_exact_at(&mut there, 5 << 20).unwrap();
            let is_complete = target.metadata().unwrap().modified().unwrap() == time;
            if !is_edited && is_complete && there[..] == noise(100, seed) {
                target.write_all_at(b"theirs", 1 << 20).unwrap();
                is_edited = true;
            }
        });
        run.assert_clean();
        pair.edit(|content| overwrite(content, 6 << 20, 100, seed));
        pair.transfer(options).assert_clean();
        pair.assert_same();
    }
}

fn remove_copies(dir: &Path) {
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        if entry.file_name().to_string_lossy().contains("sync-conflict") {
            fs::remove_file(entry.path()).unwrap();
        }
    }
}

/// The contents of all files of a folder.
fn versions(dir: &Path) -> Vec<Vec<u8>> {
    let files = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    files
        .filter(|path| path.is_file())
        .map(|path| fs::read(path).unwrap())
        .collect()
}

/// What a change in place saved is told, file by file and in all, on both ends.
#[test]
fn the_figures_of_a_change_are_told() {
    for way in [Way::Push, Way::Pull] {
        let mut pair = Pair::new(way, &WorldOptions::default(), noise(LENGTH, 17));
        pair.edit(|content| overwrite(content, 5 << 20, 4096, 18));
        let run = pair.transfer(in_place());
        run.assert_clean();
        let summary = &run.outcome.summary;
        assert_eq!(summary.literal_bytes + summary.matched_bytes, LENGTH as u64, "{way:?}");
        assert!((4096..8192).contains(&summary.literal_bytes), "{summary:?}");
        assert_eq!(
            (summary.saved_bytes, summary.unchanged_bytes),
            (summary.matched_bytes, 0)
        );
        let items: Vec<_> = run
            .events
            .iter()
            .filter_map(|event| match event {
                ClientEvent::Item { figures, .. } => Some(*figures),
                _ => None,
            })
            .collect();
        assert_eq!(items.len(), 1);
        assert_eq!(items[0].literal_bytes, summary.literal_bytes);
        assert_eq!(items[0].matched_bytes, summary.matched_bytes);
        assert_eq!(items[0].saved_bytes, summary.saved_bytes);
    }
}

/// `-W`: the client does not offer delta, and everything travels.
#[test]
fn whole_files_travel_whole() {
    for way in [Way::Push, Way::Pull] {
        let mut pair = Pair::new(way, &WorldOptions::default(), noise(LENGTH, 19));
        pair.edit(|content| overwrite(content, 5 << 20, 100, 20));
        let run = pair.transfer(TransferOptions {
            whole_file: true,
            ..TransferOptions::default()
        });
        run.assert_clean();
        pair.assert_same();
        assert_eq!(run.outcome.summary.literal_bytes, LENGTH as u64);
        assert_eq!(run.outcome.summary.matched_bytes, 0);
    }
}

/// In place needs delta: a peer that does not offer it is told so before anything is done.
#[test]
fn in_place_without_delta_is_refused() {
    let mut pair = Pair::new(Way::Push, &WorldOptions::default(), noise(100_000, 21));
    let run = pair.transfer(TransferOptions {
        whole_file: true,
        ..in_place()
    });
    let error = run.outcome.result.unwrap_err();
    assert!(error.to_string().contains("in place"), "{error}");
}
