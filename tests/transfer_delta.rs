//! Changed files travel as patches: few bytes, right contents, both directions, by plain and by TLS.
#![allow(clippy::unwrap_used)]

mod harness;

use harness::edits::noise;
use harness::{Run, World, WorldOptions};
use std::fs::{self, File};
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};
use syncline::model::Rights;
use syncline::node::TransferOptions;

/// A share and a client that have the same file, sent by the client.
struct Pair {
    world: World,
    source: PathBuf,
    content: Vec<u8>,
}

const LARGE: usize = 40 << 20;
/// What a session costs before any content: greetings, an offer, its answer, a basis, a patch, an end.
const SESSION_BYTES: u64 = 700;

impl Pair {
    fn new(options: &WorldOptions, content: Vec<u8>) -> Pair {
        let mut world = World::with(options);
        let source = world.path("file");
        fs::write(&source, &content).unwrap();
        let link = if options.plain {
            world.link("")
        } else {
            world.invite(Rights::READ_WRITE)
        };
        world.push(&[&source], &link, TransferOptions::default()).assert_clean();
        Pair { world, source, content }
    }

    /// Changes the source, pushes it, and returns the bytes that crossed the wire in both directions.
    fn push(&mut self, edit: impl FnOnce(&mut Vec<u8>)) -> u64 {
        edit(&mut self.content);
        self.rewrite(&self.source.clone());
        let run = self
            .world
            .push(&[&self.source], &self.world.link(""), TransferOptions::default());
        run.assert_clean();
        assert_eq!(run.outcome.summary.files_transferred, 1);
        assert!(
            fs::read(self.world.share().join("file")).unwrap() == self.content,
            "the wrong content"
        );
        wire(&run)
    }

    /// Writes the content to another time than before.
    fn rewrite(&self, path: &Path) {
        let before = fs::metadata(path).unwrap().modified().unwrap();
        fs::write(path, &self.content).unwrap();
        let file = File::options().write(true).open(path).unwrap();
        file.set_modified(before + Duration::from_secs(2)).unwrap();
    }
}

fn wire(run: &Run) -> u64 {
    run.outcome.summary.wire_sent + run.outcome.summary.wire_received
}

fn plain() -> WorldOptions {
    WorldOptions::default()
}

/// I11 in bytes: what is sent of a large file follows what was changed in it, edit after edit.
#[test]
fn edits_of_a_large_file_cost_what_they_are() {
    let mut pair = Pair::new(&plain(), noise(LARGE, 1));
    let overwritten = pair.push(|content| content[12_345_678..][..4096].copy_from_slice(&noise(4096, 2)));
    assert!(
        overwritten <= 5 * 1024 + SESSION_BYTES,
        "{overwritten} for 4 KiB overwritten"
    );
    let inserted = pair.push(|content| drop(content.splice(0..0, noise(100, 3))));
    assert!(
        inserted <= 100 + SESSION_BYTES,
        "{inserted} for 100 B inserted in front"
    );
    let scattered = pair.push(|content| {
        for at in (5_000..LARGE).step_by(LARGE / 200) {
            content[at] ^= 0x55;
        }
    });
    assert!(scattered <= 201 * 7 + SESSION_BYTES, "{scattered} for 200 single bytes");
    let appended = pair.push(|content| content.extend(noise(1 << 20, 4)));
    assert!(
        appended <= (1 << 20) + 1024 + SESSION_BYTES,
        "{appended} for 1 MiB appended"
    );
    let cut = pair.push(|content| content.truncate(LARGE / 2));
    assert!(cut <= 1024 + SESSION_BYTES, "{cut} for a file cut in half");
    let moved = pair.push(|content| content.rotate_left(7 << 20));
    assert!(
        moved <= 4096 + SESSION_BYTES,
        "{moved} for two halves that changed places"
    );
    let other = pair.push(|content| *content = noise(LARGE, 9));
    let most = LARGE as u64 + LARGE as u64 / 100 + SESSION_BYTES;
    assert!(other <= most, "{other} for something else altogether");
}

/// The same by TLS, whose records come on top.
#[cfg_attr(not(feature = "tls"), ignore = "needs TLS")]
#[test]
fn edits_travel_as_patches_by_tls() {
    let options = WorldOptions {
        plain: false,
        ..WorldOptions::default()
    };
    let mut pair = Pair::new(&options, noise(LARGE, 1));
    let overwritten = pair.push(|content| content[12_345_678..][..4096].copy_from_slice(&noise(4096, 2)));
    assert!(overwritten <= 12 * 1024, "{overwritten} for 4 KiB overwritten");
}

/// A file of a few hundred kilobytes is compared with what was sent before (with zstd), or with a
/// signature that the receiver makes.
#[test]
fn edits_of_a_medium_file_cost_little() {
    let text: Vec<u8> = (0..40_000u32)
        .flat_map(|line| format!("line {line} of the text\n").into_bytes())
        .collect();
    let length = text.len() as u64;
    let mut pair = Pair::new(&plain(), text);
    let warm = pair.push(|content| drop(content.splice(300_000..300_005, *b"changed")));
    assert!(warm < length / 50, "{warm} of {length} for a word");
    let again = pair.push(|content| content[500] = b'#');
    assert!(again < length / 50, "{again} of {length} for a byte");
}

/// A version that was sent as a patch is remembered like one that was sent whole: edit after edit costs
/// little, and no signature of 33 KB is asked for, but where nothing was remembered before.
#[cfg(feature = "zstd")]
#[test]
fn every_version_that_was_sent_is_the_basis_of_the_next() {
    let mut pair = Pair::new(&plain(), noise(2 << 20, 31));
    for at in [100_000, 900_000, 1_700_000] {
        let warm = pair.push(|content| content[at..at + 100].copy_from_slice(&noise(100, at as u32)));
        assert!(warm < 8 * 1024, "{warm} for 100 B at {at}");
    }
    fs::remove_dir_all(pair.world.client_options("client-home").home.join("shadows")).unwrap();
    let asked = pair.push(|content| content[5] ^= 1);
    assert!(asked > 32 * 1024, "{asked} for a signature");
    let warm = pair.push(|content| content[6] ^= 1);
    assert!(warm < 8 * 1024, "{warm} after a signature");
}

/// Without a word about the past on the client's side, the receiver is asked.
#[test]
fn a_client_that_remembers_nothing_asks_for_a_signature() {
    let mut pair = Pair::new(&plain(), noise(2 << 20, 7));
    let home = pair.world.client_options("client-home").home;
    fs::remove_dir_all(home.join("shadows")).ok();
    fs::remove_dir_all(home.join("sidecars")).ok();
    let cold = pair.push(|content| drop(content.splice(70_000..70_000, noise(50, 8))));
    // 8 bytes for each block of 512, the blocks around the edit, and the session.
    assert!(cold < (2 << 20) / 64 + 4 * 1024 + SESSION_BYTES, "{cold} for 50 B");
}

/// What is asked for may be pulled as a patch, too: the server remembers what it sent.
#[test]
fn a_pull_gets_a_patch_of_what_was_pulled_before() {
    let mut world = World::new();
    let served = world.share().join("file");
    let mut content = noise(LARGE, 5);
    fs::write(&served, &content).unwrap();
    let target = world.path("copy");
    let link = world.link("/file");
    world.pull(&link, &target, TransferOptions::default()).assert_clean();
    content[1_000_000..][..4096].copy_from_slice(&noise(4096, 6));
    fs::write(&served, &content).unwrap();
    let run = world.pull(&link, &target, TransferOptions::default());
    run.assert_clean();
    assert!(fs::read(&target).unwrap() == content);
    let bytes = wire(&run);
    assert!(bytes <= 6 * 1024 + SESSION_BYTES, "{bytes} for 4 KiB overwritten");
}

/// Row 55: the receiver's file is edited after its content was named, or before the next push. What was
/// edited is kept, and the push arrives.
#[test]
fn a_basis_that_was_edited_is_not_taken_for_what_it_was() {
    let mut pair = Pair::new(&plain(), noise(LARGE, 11));
    let target = pair.world.share().join("file");
    let mut theirs = pair.content.clone();
    theirs[30_000_000] ^= 1;
    fs::write(&target, &theirs).unwrap();
    pair.push(|content| content[5] ^= 1);
}

/// Row 53: a file that changes while it is matched never arrives as a mixture.
#[test]
fn a_source_that_changes_while_it_is_matched_is_sent_again() {
    let mut pair = Pair::new(&plain(), noise(LARGE, 12));
    pair.content[7] ^= 1;
    pair.rewrite(&pair.source.clone());
    let job = harness::push_job(&[&pair.source], &pair.world.link(""));
    let client = syncline::node::Client::start(
        pair.world.client_options("client-home"),
        job,
        TransferOptions::default(),
    );
    let (source, content) = (pair.source.clone(), pair.content.clone());
    let mut edits = 0;
    let run = harness::edits::drive_and(&mut pair.world, client.unwrap(), |_| {
        if edits < 3 {
            edits += 1;
            let mut changed = content.clone();
            changed[LARGE - 1] ^= edits as u8;
            fs::write(&source, changed).unwrap();
        }
    });
    run.assert_clean();
    assert!(fs::read(pair.world.share().join("file")).unwrap() == fs::read(&pair.source).unwrap());
}

/// Sidecars are only an aid: damaged ones, or none, change nothing but the bytes.
#[test]
fn damaged_sidecars_on_either_side_are_no_matter() {
    let mut pair = Pair::new(&plain(), noise(LARGE, 13));
    let home = pair.world.client_options("client-home").home;
    for directory in [home.join("sidecars"), pair.world.share().join(".syncline/sidecars")] {
        for entry in fs::read_dir(&directory).unwrap().flatten() {
            let mut bytes = fs::read(entry.path()).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 0x10;
            fs::write(entry.path(), bytes).unwrap();
        }
        pair.push(|content| content[9_999_999] ^= 1);
    }
}

/// Many changed small files in one push: each as a patch or whole, none waits for another's round trip.
#[test]
fn many_changed_small_files_go_in_one_go() {
    let mut world = World::new();
    let tree = world.path("tree");
    fs::create_dir_all(&tree).unwrap();
    let mut contents: Vec<Vec<u8>> = (0..200).map(|at| noise(9_000 + at * 300, at as u32)).collect();
    let write = |contents: &[Vec<u8>], second: u64| {
        for (at, content) in contents.iter().enumerate() {
            let path = tree.join(format!("f{at}"));
            fs::write(&path, content).unwrap();
            let time = UNIX_EPOCH + Duration::from_secs(1_700_000_000 + second);
            File::options()
                .write(true)
                .open(&path)
                .unwrap()
                .set_modified(time)
                .unwrap();
        }
    };
    write(&contents, 0);
    world
        .push(&[&tree], &world.link(""), TransferOptions::default())
        .assert_clean();
    contents.iter_mut().for_each(|content| content[4_000] ^= 1);
    write(&contents, 5);
    let home = world.client_options("client-home").home;
    for round in 0..2 {
        let run = world.push(&[&tree], &world.link(""), TransferOptions::default());
        run.assert_clean();
        let total: usize = contents.iter().map(Vec::len).sum();
        let bytes = wire(&run);
        assert!(bytes < total as u64 / 4, "round {round}: {bytes} of {total}");
        for (at, content) in contents.iter().enumerate() {
            assert!(
                fs::read(world.share().join(format!("tree/f{at}"))).unwrap() == *content,
                "f{at}"
            );
        }
        // The second time without anything to remember.
        fs::remove_dir_all(home.join("shadows")).ok();
        contents.iter_mut().for_each(|content| content[2_000] ^= 1);
        write(&contents, 9);
    }
}

/// Which way a file goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Push,
    Pull,
}

/// A file with holes: its length, and where its data lies.
const SPARSE: u64 = 96 << 20;
const PARTS: [Range<u64>; 4] = [
    0..1 << 20,
    (20 << 20) + 4096..(26 << 20) + 100,
    60 << 20..61 << 20,
    SPARSE - 5_000..SPARSE,
];
/// What a version of it gets: new bytes amid data, data where a hole was, a hole where data was.
const OVERWRITTEN: Range<u64> = (24 << 20) + 1_234..(24 << 20) + 1_234 + 6_000;
const FILLED: Range<u64> = 40 << 20..(40 << 20) + (64 << 10);
const PUNCHED: Range<u64> = (21 << 20)..(23 << 20);

fn write_noise(file: &File, range: &Range<u64>, seed: u32) {
    let bytes = noise((range.end - range.start) as usize, seed);
    file.write_all_at(&bytes, range.start).unwrap();
}

/// Makes it, everything in it `shift` bytes further on.
fn make_sparse(path: &Path, shift: u64) {
    let file = File::create(path).unwrap();
    file.set_len(SPARSE + shift).unwrap();
    for (seed, part) in (1..).zip(&PARTS) {
        write_noise(&file, &(part.start + shift..part.end + shift), seed);
    }
    file.set_modified(UNIX_EPOCH + Duration::from_secs(1_500_000_000))
        .unwrap();
}

fn edit_sparse(path: &Path) {
    use rustix::fs::{FallocateFlags, fallocate};
    let file = File::options().write(true).open(path).unwrap();
    write_noise(&file, &OVERWRITTEN, 11);
    write_noise(&file, &FILLED, 12);
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    fallocate(&file, flags, PUNCHED.start, PUNCHED.end - PUNCHED.start).unwrap();
    file.set_modified(UNIX_EPOCH + Duration::from_secs(1_500_000_009))
        .unwrap();
}

/// Bytes that a file takes on the disk.
fn stored(path: &Path) -> u64 {
    // What is written late is placed late, too.
    File::open(path).unwrap().sync_all().unwrap();
    fs::metadata(path).unwrap().blocks() * 512
}

/// Sparse stays sparse through a delta, both ways, as a new file and in place: what was edited travels, what
/// was a hole stays one, what became a hole becomes one, and the contents are right.
#[test]
fn a_sparse_file_stays_sparse_when_its_edits_travel() {
    for (way, in_place) in [
        (Way::Push, false),
        (Way::Push, true),
        (Way::Pull, false),
        (Way::Pull, true),
    ] {
        let mut world = World::new();
        let (here, there) = (world.path("file"), world.share().join("file"));
        let (source, target, job) = match way {
            Way::Push => (&here, &there, harness::push_job(&[&here], &world.link("/"))),
            Way::Pull => (&there, &here, harness::pull_job(&world.link("/file"), &here)),
        };
        make_sparse(source, 0);
        world.run(job.clone(), TransferOptions::default()).assert_clean();
        let inode = fs::metadata(target).unwrap().ino();
        edit_sparse(source);
        let options = TransferOptions {
            in_place,
            ..TransferOptions::default()
        };
        let run = world.run(job, options);
        run.assert_clean();
        let case = format!("{way:?}, in place: {in_place}");
        assert_eq!(run.outcome.summary.files_transferred, 1, "{case}");
        let edited = [OVERWRITTEN, FILLED]
            .map(|range| range.end - range.start)
            .iter()
            .sum::<u64>();
        let bytes = wire(&run);
        assert!(
            bytes < edited + 64 * 1024,
            "{case}: {bytes} on the wire for {edited} of edits"
        );
        assert!(
            fs::read(target).unwrap() == fs::read(source).unwrap(),
            "{case}: the wrong content"
        );
        assert_eq!(fs::metadata(target).unwrap().ino() == inode, in_place, "{case}");
        let (of_source, of_target) = (stored(source), stored(target));
        assert!(
            of_target <= of_source + (256 << 10),
            "{case}: {of_target} bytes stored of {of_source}"
        );
    }
}

/// The same when all of it moves: what cannot be done in place is done in a new file, and takes no more room.
#[test]
fn a_sparse_file_stays_sparse_when_all_of_it_moves() {
    for in_place in [false, true] {
        let mut world = World::new();
        let (source, target) = (world.path("file"), world.share().join("file"));
        let link = world.link("/");
        make_sparse(&source, 0);
        world.push(&[&source], &link, TransferOptions::default()).assert_clean();
        make_sparse(&source, 100);
        let options = TransferOptions {
            in_place,
            ..TransferOptions::default()
        };
        let run = world.push(&[&source], &link, options);
        run.assert_clean();
        assert!(wire(&run) < 128 * 1024, "{} on the wire", wire(&run));
        assert!(fs::read(&target).unwrap() == fs::read(&source).unwrap());
        let (of_source, of_target) = (stored(&source), stored(&target));
        assert!(
            of_target <= of_source + (256 << 10),
            "{of_target} bytes stored of {of_source}"
        );
    }
}
