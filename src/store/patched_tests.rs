//! Tests of `patched`: the bytes, what counts as kept, holes, and what is refused.

use super::*;
use crate::model::Timestamp;
use crate::store::{Barrier, Expected, Published, Root, publish};
use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

const META: Meta = Meta {
    mode: 0o640,
    mtime: Timestamp { seconds: 77, nanos: 5 },
};

fn path() -> RelPath {
    RelPath::parse(b"f").unwrap()
}

fn noise(length: u64, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..length).map(|_| (random(&mut state) >> 32) as u8).collect()
}

fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

fn patched(dir: &Path, basis: &[u8], length: u64) -> PatchedFile {
    fs::write(dir.join("f"), basis).unwrap();
    let root = Root::open(dir).unwrap();
    let source = root.open_file(&path()).unwrap();
    Staging::new(&root).create_patched(&path(), source, length).unwrap()
}

fn copy_all(file: &mut PatchedFile, from: u64, to: u64, length: u64) {
    let mut done = 0;
    while done < length {
        done += file.copy(from + done, to + done, length - done).unwrap();
    }
}

fn content(file: &PatchedFile) -> Vec<u8> {
    let mut bytes = vec![0; file.length() as usize];
    file.staged().file().read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

/// Against a plain vector: any ops in the order of the new file give its bytes, and a leaf counts as
/// kept exactly when all of it was copied in place and nothing was written over it.
#[test]
fn random_ops_give_the_same_bytes_as_a_vector() {
    let seed = std::env::var("SYNCLINE_SEED").map_or(0x5eed, |text| text.parse().unwrap());
    println!("SYNCLINE_SEED={seed}");
    let mut state = seed;
    for round in 0..60 {
        let dir = tempfile::tempdir().unwrap();
        let basis = noise(1 + random(&mut state) % 300_000, round);
        let length = match round % 3 {
            0 => basis.len() as u64,
            _ => 1 + random(&mut state) % 300_000,
        };
        let mut file = patched(dir.path(), &basis, length);
        if round % 2 == 1 {
            file.copier = Copier::Buffer;
        }
        let (mut plain, mut kept) = (vec![0; length as usize], vec![false; length as usize]);
        let mut to = 0;
        while to < length {
            let most = (length - to).min(1 + random(&mut state) % 60_000);
            let range = to as usize..(to + most) as usize;
            let from = if random(&mut state).is_multiple_of(3) {
                random(&mut state) % basis.len() as u64
            } else {
                to
            };
            if random(&mut state).is_multiple_of(4) || from + most > basis.len() as u64 {
                let bytes = noise(most, to);
                file.write_at(to, &bytes).unwrap();
                plain[range.clone()].copy_from_slice(&bytes);
            } else {
                copy_all(&mut file, from, to, most);
                plain[range.clone()].copy_from_slice(&basis[from as usize..(from + most) as usize]);
                kept[range.clone()].fill(from == to);
            }
            to += most;
        }
        for _ in 0..random(&mut state) % 3 {
            let at = random(&mut state) % length;
            let bytes = noise((length - at).min(20_000), at);
            file.write_at(at, &bytes).unwrap();
            plain[at as usize..][..bytes.len()].copy_from_slice(&bytes);
            kept[at as usize..][..bytes.len()].fill(false);
        }
        assert!(content(&file) == plain, "round {round}");
        let cut_alike = length == basis.len() as u64;
        for (leaf, flags) in kept.chunks(LEAF_BYTES).enumerate() {
            let want = flags.iter().all(|&kept| kept) && (flags.len() == LEAF_BYTES || cut_alike);
            assert_eq!(file.is_kept(leaf as u64), want, "round {round} leaf {leaf}");
        }
        file.seal(&META).unwrap();
    }
}

/// What is next to hash: gaps between kept leaves, the end included, nothing twice.
#[test]
fn dirty_runs_are_what_is_not_kept() {
    let dir = tempfile::tempdir().unwrap();
    let mut file = patched(dir.path(), &noise(10 * LEAF, 1), 12 * LEAF + 5);
    assert_eq!(file.next_dirty(0), Some(0..13));
    copy_all(&mut file, 0, 0, 4 * LEAF);
    copy_all(&mut file, 6 * LEAF, 6 * LEAF, 4 * LEAF);
    file.write_at(7 * LEAF + 1, b"x").unwrap();
    let mut runs = Vec::new();
    let mut leaf = 0;
    while let Some(run) = file.next_dirty(leaf) {
        leaf = run.end;
        runs.push(run);
    }
    assert_eq!(runs, [4..6, 7..8, 10..13]);
}

/// Goes through the same commit as any other staged file.
#[test]
fn a_patched_file_is_published_with_mode_and_time() {
    let dir = tempfile::tempdir().unwrap();
    let mut file = patched(dir.path(), b"the old version", 15);
    let expected = Expected::Present(file.basis().identity());
    copy_all(&mut file, 0, 0, 4);
    file.write_at(4, b"new").unwrap();
    copy_all(&mut file, 7, 7, 8);
    let sealed = file.seal(&META).unwrap();
    let root = Root::open(dir.path()).unwrap();
    let mut barrier = Barrier::new(&root);
    barrier.add_file(&sealed);
    barrier.run().unwrap();
    assert_eq!(publish(&root, sealed, &expected, None).unwrap(), Published::Replaced);
    assert_eq!(fs::read(dir.path().join("f")).unwrap(), b"the new version");
    let found = fs::metadata(dir.path().join("f")).unwrap();
    assert_eq!((found.mode() & 0o7777, found.mtime()), (0o640, 77));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing of ours is left");
}

/// Holes of the basis stay holes, also when they move, and one that lands on bytes wipes them.
#[test]
fn holes_are_copied_as_holes() {
    let dir = tempfile::tempdir().unwrap();
    let far = 6 << 30;
    let old = File::create(dir.path().join("f")).unwrap();
    old.write_all_at(&noise(65_536, 1), 1 << 20).unwrap();
    old.write_all_at(&noise(65_536, 2), far).unwrap();
    old.set_len(far + (1 << 20)).unwrap();
    old.sync_all().unwrap();
    let root = Root::open(dir.path()).unwrap();
    let source = root.open_file(&path()).unwrap();
    let length = far + (1 << 20) + 4096;
    let mut file = Staging::new(&root).create_patched(&path(), source, length).unwrap();
    file.write_at(0, &[7; 4096]).unwrap();
    copy_all(&mut file, 0, 4096, far + (1 << 20));
    let mut moved = vec![0; 65_536];
    file.staged().file().read_exact_at(&mut moved, far + 4096).unwrap();
    assert_eq!(moved, noise(65_536, 2));
    let stored = file.staged().file().metadata().unwrap().blocks() * 512;
    assert!(stored < 1 << 20, "{stored} bytes stored");
    // A hole over what was written: zeros, and still a hole.
    assert_eq!(file.copy(1 << 30, 0, 1 << 16).unwrap(), 1 << 16);
    let mut head = [1; 4096];
    file.staged().file().read_exact_at(&mut head, 0).unwrap();
    assert_eq!(head, [0; 4096]);
}

/// Row 10 of the threats: a range that reaches behind an end, or around 2^64, moves nothing.
#[test]
fn ranges_outside_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut file = patched(dir.path(), &noise(1_000, 1), 2_000);
    for (from, to, length) in [
        (0, 0, 1_001),
        (1_000, 0, 1),
        (0, 1_999, 2),
        (u64::MAX, 0, 2),
        (0, u64::MAX, 2),
        (1, 0, u64::MAX),
    ] {
        let error = file.copy(from, to, length).unwrap_err();
        assert_eq!(error.code(), ItemCode::Mismatch, "{from} {to} {length}");
    }
    for to in [1_999, u64::MAX] {
        assert_eq!(file.write_at(to, b"xx").unwrap_err().code(), ItemCode::Mismatch);
    }
    assert_eq!(content(&file), [0; 2_000]);
    assert_eq!(file.copy(1_000, 2_000, 0).unwrap(), 0);
}

/// Row 53: a basis that is written to, cut or touched while it is used is noticed, and nothing is left.
#[test]
fn a_basis_that_changes_voids_the_result() {
    let changes: [fn(&File); 3] = [
        |file| file.write_all_at(b"!", 100).unwrap(),
        |file| file.set_len(10).unwrap(),
        |file| file.set_len(0).unwrap(),
    ];
    for change in changes {
        let dir = tempfile::tempdir().unwrap();
        let mut file = patched(dir.path(), &noise(50_000, 1), 50_000);
        assert!(file.copy(1_000, 0, 10_000).unwrap() > 0);
        change(&File::options().write(true).open(dir.path().join("f")).unwrap());
        let copied = file.copy(20_000, 10_000, 10_000);
        assert!(copied.is_ok() || copied.is_err_and(|error| error.code() == ItemCode::Changing));
        let error = file.seal(&META).unwrap_err();
        assert_eq!(error.code(), ItemCode::Changing);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "the staged file is gone");
    }
}

/// One call stays within its turn.
#[test]
fn a_long_copy_proceeds_in_steps() {
    let dir = tempfile::tempdir().unwrap();
    let basis = noise(3 * STEP_BYTES, 1);
    let mut file = patched(dir.path(), &basis, 3 * STEP_BYTES);
    let first = file.copy(1, 0, 3 * STEP_BYTES - 1).unwrap();
    assert!((1..=STEP_BYTES).contains(&first));
    copy_all(&mut file, 1 + first, first, 3 * STEP_BYTES - 1 - first);
    assert!(content(&file)[..basis.len() - 1] == basis[1..]);
}

/// A sparse file stays sparse: zeros that come with the plan take no room, wherever they begin and end, also
/// where the basis had data, and the bytes are those that were written.
#[test]
fn zeros_that_are_written_into_a_sparse_file_take_no_room() {
    let dir = tempfile::tempdir().unwrap();
    let length = 3 << 20;
    let file = File::create(dir.path().join("f")).unwrap();
    file.write_all_at(&noise(50_000, 1), 100_000).unwrap();
    file.set_len(length).unwrap();
    let root = Root::open(dir.path()).unwrap();
    let source = root.open_file(&path()).unwrap();
    assert!(source.is_sparse(), "this file system has no holes");
    let mut patched = Staging::new(&root).create_patched(&path(), source, length).unwrap();
    let mut new = vec![0; length as usize];
    new[5_000..5_010].copy_from_slice(&noise(10, 2));
    new[200_000..212_345].copy_from_slice(&noise(12_345, 3));
    for (from, to) in [
        (0, 4_999),
        (4_999, 5_005),
        (5_005, 100_001),
        (100_001, 206_000),
        (206_000, new.len()),
    ] {
        patched.write_at(from as u64, &new[from..to]).unwrap();
    }
    assert!(content(&patched) == new);
    let room = patched.staged().file().metadata().unwrap().blocks() * 512;
    assert!(room <= 40_000, "{room} bytes of room for 12 KiB of data");
}
