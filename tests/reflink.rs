//! Patching on file systems that share blocks (XFS, Btrfs) and on those that do not: the same bytes
//! everywhere, and no room taken for what is shared. Each file system is mounted from an image, in a
//! mount namespace of a child process, so that it is gone with the child whatever happens.

#![allow(clippy::unwrap_used)]

mod harness;

use harness::child;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use syncline::model::{Meta, RelPath, Timestamp};
use syncline::store::{Barrier, Expected, PatchedFile, Published, Room, Root, Staging, publish};
use tempfile::TempDir;

const META: Meta = Meta {
    mode: 0o640,
    mtime: Timestamp { seconds: 77, nanos: 0 },
};

const MIB: u64 = 1 << 20;
const FILE_BYTES: u64 = 256 * MIB;

/// A mounted image.
struct Disk {
    // Before the directory: it has to be unmounted first.
    mount: Mount,
    _dir: TempDir,
}

struct Mount(PathBuf);

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

impl Disk {
    fn new(make: &[&str]) -> Disk {
        let dir = tempfile::tempdir().unwrap();
        let (image, at) = (dir.path().join("image"), dir.path().join("mount"));
        File::create(&image).unwrap().set_len(1024 * MIB).unwrap();
        fs::create_dir(&at).unwrap();
        let made = Command::new(make[0]).args(&make[1..]).arg(&image).output().unwrap();
        assert!(made.status.success(), "{made:?}");
        let mounted = Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&at).output();
        assert!(mounted.as_ref().unwrap().status.success(), "{mounted:?}");
        Disk {
            mount: Mount(at),
            _dir: dir,
        }
    }

    fn path(&self) -> &Path {
        &self.mount.0
    }
}

const XFS: [&str; 4] = ["mkfs.xfs", "-q", "-m", "reflink=1"];
const BTRFS: [&str; 2] = ["mkfs.btrfs", "-q"];
const NAMESPACE: [&str; 2] = ["unshare", "-m"];

/// Whether images can be made with `tool` and mounted; says so if not.
fn may_mount(test: &str, tool: &str) -> bool {
    let has_tool = Command::new(tool).arg("-V").output().is_ok();
    let script = "d=$(mktemp -d) && truncate -s 4M $d/i && (mkfs.ext4 -q $d/i && mount -o loop $d/i $d && umount $d)
                  code=$?; rm -rf $d; exit $code";
    let mounts = || {
        let tried = Command::new("unshare").args(["-m", "sh", "-c", script]).output();
        tried.is_ok_and(|output| output.status.success())
    };
    let works = has_tool && mounts();
    if !works {
        println!("SKIPPED {test}: {tool} is missing, or nobody but root may mount images here");
    }
    works
}

fn run(test: &str, make: &[&str], scenario: fn(&Path)) {
    if child::is(test) {
        let disk = Disk::new(make);
        return scenario(disk.path());
    }
    if may_mount(test, make[0]) {
        let output = child::run(&NAMESPACE, test, test);
        assert!(output.status.success(), "{}", child::text(&output));
    }
}

fn path() -> RelPath {
    RelPath::parse(b"f").unwrap()
}

fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

fn noise(length: u64, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let words = (0..length.div_ceil(8)).flat_map(|_| random(&mut state).to_le_bytes());
    words.take(length as usize).collect()
}

fn patched(dir: &Path, length: u64) -> PatchedFile {
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

fn free(dir: &Path) -> u64 {
    let root = File::open(dir).unwrap();
    rustix::fs::syncfs(&root).unwrap();
    let stat = rustix::fs::fstatvfs(&root).unwrap();
    stat.f_bfree * stat.f_frsize
}

/// Seals, flushes and publishes; returns the bytes of room that this took.
fn finish(dir: &Path, file: PatchedFile, before: u64) -> u64 {
    let expected = Expected::Present(file.basis().identity());
    let root = Root::open(dir).unwrap();
    let sealed = file.seal(&META).unwrap();
    let mut barrier = Barrier::new(&root);
    barrier.add_file(&sealed);
    barrier.run().unwrap();
    // Before the old version goes: what both take together.
    let taken = before.saturating_sub(free(dir));
    assert_eq!(publish(&root, sealed, &expected, None).unwrap(), Published::Replaced);
    taken
}

/// A 4 KiB edit in 256 MiB, then an insertion of one block, each take next to no room.
fn blocks_are_shared(dir: &Path) {
    let mut content = noise(FILE_BYTES, 1);
    File::create(dir.join("f")).unwrap().write_all(&content).unwrap();
    let before = free(dir);
    let mut file = patched(dir, FILE_BYTES);
    assert!(file.is_clone());
    let (at, edit) = (100 * MIB + 123, noise(4096, 2));
    assert_eq!(file.copy(0, 0, at).unwrap(), at, "what stays costs nothing");
    file.write_at(at, &edit).unwrap();
    let rest = at + 4096;
    copy_all(&mut file, rest, rest, FILE_BYTES - rest);
    assert_eq!(file.next_dirty(0), Some(6400..6401), "one leaf is to hash");
    assert_eq!(file.next_dirty(6401), None);
    let taken = finish(dir, file, before);
    assert!(taken < MIB, "{taken} bytes for 4 KiB");
    content[at as usize..rest as usize].copy_from_slice(&edit);
    assert!(fs::read(dir.join("f")).unwrap() == content);
    let before = free(dir);
    let mut file = patched(dir, FILE_BYTES + 4096);
    file.write_at(0, &edit).unwrap();
    copy_all(&mut file, 0, 4096, FILE_BYTES);
    let taken = finish(dir, file, before);
    assert!(taken < 2 * MIB, "{taken} bytes for one block in front");
    assert!(fs::read(dir.join("f")).unwrap() == [&edit[..], &content].concat());
}

/// Random ops against a plain vector, in place and moved, aligned and not.
fn bytes_are_right(dir: &Path) {
    let seed = std::env::var("SYNCLINE_SEED").map_or(0x5eed, |text| text.parse().unwrap());
    println!("SYNCLINE_SEED={seed}");
    let mut state = seed;
    for round in 0..40 {
        let basis = noise(1 + random(&mut state) % (2 * MIB), round);
        let length = 1 + random(&mut state) % (2 * MIB);
        fs::write(dir.join("f"), &basis).unwrap();
        let mut file = patched(dir, length);
        let mut plain = vec![0; length as usize];
        let mut to = 0;
        while to < length {
            let mask = if random(&mut state).is_multiple_of(2) {
                !4095
            } else {
                !0
            };
            let most = (length - to).min(1 + ((random(&mut state) % 200_000) & mask));
            let range = to as usize..(to + most) as usize;
            let from = match random(&mut state) % 3 {
                0 => random(&mut state) % basis.len() as u64,
                1 => to % 4096 + ((random(&mut state) % basis.len() as u64) & !4095),
                _ => to,
            };
            if random(&mut state).is_multiple_of(4) || from + most > basis.len() as u64 {
                let bytes = noise(most, to);
                file.write_at(to, &bytes).unwrap();
                plain[range].copy_from_slice(&bytes);
            } else {
                copy_all(&mut file, from, to, most);
                plain[range].copy_from_slice(&basis[from as usize..(from + most) as usize]);
            }
            to += most;
        }
        let mut read = vec![0; length as usize];
        file.staged().file().read_exact_at(&mut read, 0).unwrap();
        assert!(read == plain, "round {round}");
    }
}

/// Holes stay holes, in their place and moved; a hole that comes to lie on old bytes wipes them.
fn sparse_stays_sparse(dir: &Path) {
    let far = 3 << 30;
    let old = File::create(dir.join("f")).unwrap();
    old.write_all_at(&noise(MIB, 1), 0).unwrap();
    old.write_all_at(&noise(MIB, 2), far).unwrap();
    old.set_len(far + 2 * MIB).unwrap();
    old.sync_all().unwrap();
    for shift in [0, 4096, 100] {
        let mut file = patched(dir, far + 2 * MIB + shift);
        file.write_at(0, &[7; 4096]).unwrap();
        copy_all(&mut file, 4096, 4096 + shift, far + 2 * MIB - 4096);
        file.write_at(4096, &[8; 100][..shift.min(100) as usize]).unwrap();
        let mut moved = vec![0; MIB as usize];
        file.staged().file().read_exact_at(&mut moved, far + shift).unwrap();
        assert!(moved == noise(MIB, 2));
        file.staged()
            .file()
            .read_exact_at(&mut moved, far + shift - MIB)
            .unwrap();
        assert!(moved.iter().all(|&byte| byte == 0));
        file.staged().file().sync_all().unwrap();
        let stored = file.staged().file().metadata().unwrap().blocks() * 512;
        assert!(stored < 4 * MIB, "{stored} bytes stored after a shift by {shift}");
        // The hole at 1 GiB over the first megabyte.
        copy_all(&mut file, 1 << 30, 0, MIB);
        file.staged().file().read_exact_at(&mut moved, 0).unwrap();
        assert!(moved.iter().all(|&byte| byte == 0), "shift {shift}");
    }
}

fn everything(dir: &Path) {
    bytes_are_right(dir);
    sparse_stays_sparse(dir);
    blocks_are_shared(dir);
}

#[test]
fn xfs_shares_blocks() {
    run("xfs_shares_blocks", &XFS, everything);
}

#[test]
fn btrfs_shares_blocks() {
    run("btrfs_shares_blocks", &BTRFS, everything);
}

/// The plain path gives the same bytes: on what holds temporary files here (often ext4), and on tmpfs.
#[test]
fn the_plain_path_gives_the_same_bytes() {
    for parent in [std::env::temp_dir(), PathBuf::from("/dev/shm")] {
        if let Ok(dir) = tempfile::tempdir_in(&parent) {
            bytes_are_right(dir.path());
            sparse_stays_sparse(dir.path());
        } else {
            println!("SKIPPED {}: cannot be written", parent.display());
        }
    }
}

/// A clone of a basis that is on another file system is not tried for ever: it is copied.
#[test]
fn a_basis_on_another_file_system_is_copied() {
    let (Ok(here), Ok(there)) = (tempfile::tempdir(), tempfile::tempdir_in("/dev/shm")) else {
        return println!("SKIPPED a_basis_on_another_file_system_is_copied: /dev/shm cannot be written");
    };
    let content = noise(5 * MIB, 1);
    fs::write(there.path().join("f"), &content).unwrap();
    let source = Root::open(there.path()).unwrap().open_file(&path()).unwrap();
    let staging = Staging::new(&Root::open(here.path()).unwrap());
    let mut file = staging.create_patched(&path(), source, 5 * MIB).unwrap();
    assert!(!file.is_clone());
    copy_all(&mut file, 0, 0, 5 * MIB);
    let mut read = vec![0; content.len()];
    file.staged().file().read_exact_at(&mut read, 0).unwrap();
    assert!(read == content);
    drop(staging.create(&path(), Room::Sparse).unwrap());
}
