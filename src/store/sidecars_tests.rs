//! Tests of `Sidecars`: kept, shared, bounded; damaged, torn and planted files do no harm.

use super::*;
use crate::delta::content_id;
use crate::delta::index::{CHUNK_BYTES, ChunkIndex, build};
use crate::model::RelPath;
use std::fs;
use std::path::Path;

const SEED: u64 = 11;

fn random(length: usize, seed: u64) -> Vec<u8> {
    let mut state = 2 * seed + 1;
    let step = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    (0..length).map(step).collect()
}

struct Scene {
    dir: tempfile::TempDir,
}

impl Scene {
    fn new() -> Scene {
        Scene {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    fn open(&self) -> Sidecars {
        self.open_with(SidecarBounds::default())
    }

    fn open_with(&self, bounds: SidecarBounds) -> Sidecars {
        Sidecars::in_root(&Root::open(self.dir.path()).unwrap(), bounds)
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join(".syncline/sidecars")
    }

    fn names(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.path()) else {
            return Vec::new();
        };
        let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
        let mut names: Vec<String> = entries.map(name).collect();
        names.sort();
        names
    }

    /// A state of a file in the root.
    fn stamp(&self, name: &str, content: &[u8]) -> Identity {
        fs::write(self.dir.path().join(name), content).unwrap();
        let root = Root::open(self.dir.path()).unwrap();
        root.probe(&RelPath::parse(name.as_bytes()).unwrap())
            .unwrap()
            .unwrap()
            .identity
    }
}

fn keep_in_order(sidecars: &Sidecars, content: &[u8], order: &[usize]) -> bool {
    let Some(mut writer) = sidecars.create(content.len() as u64, Parts::Full, SEED) else {
        return false;
    };
    let bits = writer.sidecar().bits;
    for &number in order {
        let (before, rest) = content.split_at(number * CHUNK_BYTES);
        let chunk = &rest[..rest.len().min(CHUNK_BYTES)];
        let index = ChunkIndex::build(before, chunk, before.len() as u64, SEED, bits);
        writer.put(number as u64, &index);
    }
    sidecars.finish(writer, &content_id(content))
}

fn keep(sidecars: &Sidecars, content: &[u8]) -> ContentId {
    assert!(keep_in_order(sidecars, content, &[0]));
    content_id(content)
}

// Protects anchors of chunks that complete out of order: the file is the same as of any other order.
#[test]
fn chunks_in_any_order_give_the_same_sidecar() {
    let content = random(3 * CHUNK_BYTES + 50_000, 1);
    let expected = build(&content, SEED);
    let id = content_id(&content);
    for order in [[0, 1, 2, 3], [3, 2, 1, 0], [1, 0, 3, 2], [2, 3, 0, 1]] {
        let scene = Scene::new();
        let sidecars = scene.open();
        assert!(keep_in_order(&sidecars, &content, &order), "{order:?}");
        assert!(
            fs::read(scene.path().join(id.to_string())).unwrap() == expected,
            "{order:?}"
        );
        let mapped = sidecars.open(&id).unwrap();
        assert_eq!(mapped.view().id(), id);
        assert_eq!(
            mapped.view().anchor_count(),
            IndexView::parse(&expected).unwrap().anchor_count()
        );
        assert!(!mapped.is_torn());
    }
}

// Protects the look-up: a sidecar of other content, or of a part of it, is never kept under a name.
#[test]
fn what_is_not_of_the_content_is_not_kept() {
    let scene = Scene::new();
    let sidecars = scene.open();
    let content = random(2 * CHUNK_BYTES, 2);
    for order in [&[0][..], &[1], &[0, 0], &[]] {
        assert!(!keep_in_order(&sidecars, &content, order), "{order:?}");
    }
    let mut writer = sidecars.create(10, Parts::Leaves, SEED).unwrap();
    writer.put(0, &ChunkIndex::leaves_only(b"0123456789"));
    assert!(!sidecars.finish(writer, &content_id(b"abcdefghij")));
    let mut writer = sidecars.create(10, Parts::Leaves, SEED).unwrap();
    writer.put(7, &ChunkIndex::leaves_only(b"0123456789"));
    drop(writer);
    assert_eq!(scene.names(), [""; 0]);
    drop(sidecars);
    assert!(
        !scene.dir.path().join(".syncline").exists(),
        "nothing of ours stays where nothing was kept"
    );
}

#[test]
fn leaves_alone_can_be_kept_and_full_ones_replace_them() {
    let scene = Scene::new();
    let sidecars = scene.open();
    let content = random(100_000, 3);
    let mut writer = sidecars.create(content.len() as u64, Parts::Leaves, 0).unwrap();
    writer.put(0, &ChunkIndex::leaves_only(&content));
    let id = content_id(&content);
    assert!(sidecars.finish(writer, &id));
    assert_eq!(sidecars.open(&id).unwrap().view().sidecar().parts, Parts::Leaves);
    keep(&sidecars, &content);
    assert_eq!(sidecars.open(&id).unwrap().view().sidecar().parts, Parts::Full);
    assert_eq!(
        sidecars.with_table(|table| table.over(0, 0).len()),
        Some(0),
        "one entry, counted once"
    );
    let mut writer = sidecars.create(content.len() as u64, Parts::Leaves, 0).unwrap();
    writer.put(0, &ChunkIndex::leaves_only(&content));
    assert!(sidecars.finish(writer, &id));
    let parts = sidecars.open(&id).unwrap().view().sidecar().parts;
    assert_eq!(parts, Parts::Full, "leaves alone do not replace all sections");
    assert_eq!(scene.names(), [id.to_string()]);
}

// A sidecar from a peer is worth what its checksums and its root say, whatever it has.
#[test]
fn a_copied_sidecar_is_kept_when_it_is_whole() {
    let scene = Scene::new();
    let sidecars = scene.open();
    let content = random(100_000, 8);
    let id = content_id(&content);
    let bytes = build(&content, SEED);
    let copied = |bytes: &[u8], bytes_max: u64| {
        let mut copy = sidecars.receive(bytes_max).unwrap();
        bytes.chunks(1000).for_each(|part| copy.push(part));
        sidecars.accept(copy, &id)
    };
    for at in [3, 200, bytes.len() - 1] {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        assert!(!copied(&damaged, u64::MAX), "damaged at {at}");
    }
    assert!(!copied(&bytes, bytes.len() as u64 - 1), "too long");
    assert!(!copied(&build(&content[1..], SEED), u64::MAX), "of another content");
    assert!(!copied(&[], u64::MAX));
    assert_eq!(scene.names(), Vec::<String>::new(), "nothing of it stays");
    assert!(copied(&bytes, u64::MAX));
    assert_eq!(sidecars.open(&id).unwrap().bytes(), bytes);
}

// I8 and a power cut, where nothing is flushed: any tear or flip is found, and the sidecar goes.
#[test]
fn damaged_sidecars_are_removed_and_never_handed_out() {
    let scene = Scene::new();
    let sidecars = scene.open();
    let content = random(40_000, 4);
    let whole = build(&content, SEED);
    let id = keep(&sidecars, &content);
    let path = scene.path().join(id.to_string());
    let damages: [fn(&mut Vec<u8>); 7] = [
        |bytes| bytes.truncate(100),
        |bytes| bytes.truncate(4096.min(bytes.len() - 1)),
        |bytes| bytes.clear(),
        |bytes| bytes.fill(0),
        |bytes| bytes[HEAD_BYTES + 5] ^= 1,
        |bytes| bytes[200..].fill(0),
        |bytes| bytes.push(0),
    ];
    for (number, damage) in damages.into_iter().enumerate() {
        let mut bytes = whole.clone();
        damage(&mut bytes);
        fs::write(&path, bytes).unwrap();
        assert!(sidecars.open(&id).is_none(), "damage {number}");
        assert!(!path.exists(), "damage {number}");
    }
    // Another content's sidecar under this name is damage, too.
    fs::write(&path, build(&random(40_000, 5), SEED)).unwrap();
    assert!(sidecars.open(&id).is_none());
    fs::write(&path, &whole).unwrap();
    assert!(sidecars.open(&id).is_some());
}

#[test]
fn a_stamp_finds_the_content_also_after_a_restart() {
    let scene = Scene::new();
    let sidecars = scene.open();
    let (first, second) = (random(30_000, 6), random(30_000, 7));
    let (first, second) = (keep(&sidecars, &first), keep(&sidecars, &second));
    let (one, two) = (scene.stamp("one", b"1"), scene.stamp("two", b"2"));
    assert_eq!(sidecars.content_of(&one), None);
    sidecars.set_stamp(&first, &one);
    sidecars.set_stamp(&second, &two);
    for sidecars in [&sidecars, &scene.open()] {
        assert_eq!(sidecars.content_of(&one), Some(first));
        assert_eq!(sidecars.content_of(&two), Some(second));
        assert!(sidecars.open(&first).is_some(), "a stamp is no damage");
    }
    // The same state has other content now; then that content is at another file.
    sidecars.set_stamp(&second, &one);
    for sidecars in [&sidecars, &scene.open()] {
        assert_eq!(sidecars.content_of(&one), Some(second));
        assert_eq!(sidecars.content_of(&two), None);
    }
    sidecars.remove(&second);
    assert_eq!(sidecars.content_of(&one), None);
    sidecars.set_stamp(&second, &two);
    assert_eq!(sidecars.content_of(&two), None, "there is no sidecar to be stamped");
}

#[test]
fn a_torn_stamp_is_none() {
    let scene = Scene::new();
    let sidecars = scene.open();
    let id = keep(&sidecars, &random(30_000, 8));
    let stamp = scene.stamp("f", b"1");
    sidecars.set_stamp(&id, &stamp);
    let path = scene.path().join(id.to_string());
    let mut bytes = fs::read(&path).unwrap();
    bytes[STAMP_OFFSET as usize + 20] ^= 1;
    fs::write(&path, bytes).unwrap();
    let again = scene.open();
    assert_eq!(again.content_of(&stamp), None);
    assert!(again.open(&id).is_some());
}

// I12: both bounds hold, and what was used last stays, also when a use was in an earlier run.
#[test]
fn the_longest_unused_go_first() {
    let scene = Scene::new();
    let bounds = SidecarBounds {
        bytes: 1 << 20,
        count: 8,
    };
    let sidecars = scene.open_with(bounds);
    let ids: Vec<ContentId> = (0..8).map(|seed| keep(&sidecars, &random(20_000, 20 + seed))).collect();
    assert_eq!(scene.names().len(), 8);
    assert!(sidecars.open(&ids[0]).is_some());
    drop(sidecars);
    let sidecars = scene.open_with(bounds);
    let last = keep(&sidecars, &random(20_000, 40));
    let is_kept = |id: &ContentId| scene.path().join(id.to_string()).exists();
    assert!(is_kept(&ids[0]) && is_kept(&last));
    assert!(!is_kept(&ids[1]) && is_kept(&ids[2]));
    drop(sidecars);
    let tight = scene.open_with(SidecarBounds { bytes: 2_000, count: 8 });
    let small = keep(&tight, &random(1_000, 41));
    let total: u64 = scene
        .names()
        .iter()
        .map(|name| fs::metadata(scene.path().join(name)).unwrap().len())
        .sum();
    assert!(total <= 2_000 && is_kept(&small), "{total}");
    assert!(
        tight.create(1 << 40, Parts::Full, 0).is_none(),
        "it could never be kept"
    );
}

// Rows 3 and 6: planted links and special files are neither followed nor waited for.
#[test]
fn row_3_planted_names_are_refused() {
    let scene = Scene::new();
    let canary = tempfile::tempdir().unwrap();
    let sidecars = scene.open();
    let content = random(30_000, 9);
    let id = keep(&sidecars, &content);
    let path = scene.path().join(id.to_string());
    let target = canary.path().join("target");
    let plant: [&dyn Fn(&Path); 4] = [
        &|path| std::os::unix::fs::symlink(&target, path).unwrap(),
        &|path| {
            rustix::fs::mknodat(CWD, path, rustix::fs::FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        },
        &|path| fs::hard_link(&target, path).unwrap(),
        &|path| fs::create_dir(path).unwrap(),
    ];
    let stamp = scene.stamp("f", b"1");
    for (number, plant) in plant.into_iter().enumerate() {
        fs::write(&target, build(&content, SEED)).unwrap();
        let before = fs::read(&target).unwrap();
        fs::remove_file(&path).unwrap();
        plant(&path);
        sidecars.set_stamp(&id, &stamp);
        assert!(sidecars.open(&id).is_none(), "{number}");
        assert!(scene.open().content_of(&stamp).is_none(), "{number}");
        assert!(fs::read(&target).unwrap() == before, "{number}");
        if path.is_dir() {
            fs::remove_dir(&path).unwrap();
        }
        keep(&sidecars, &content);
    }
    // In place of the directory itself.
    drop(sidecars);
    fs::remove_dir_all(scene.path()).unwrap();
    std::os::unix::fs::symlink(canary.path(), scene.path()).unwrap();
    let sidecars = scene.open();
    assert!(sidecars.create(30_000, Parts::Full, SEED).is_none());
    assert!(sidecars.open(&id).is_none());
    assert_eq!(fs::read_dir(canary.path()).unwrap().count(), 1);
}

#[test]
fn a_place_that_cannot_be_made_is_empty() {
    let scene = Scene::new();
    let stamp = scene.stamp("f", b"1");
    fs::write(scene.dir.path().join(".syncline"), b"in the way").unwrap();
    let sidecars = scene.open();
    assert!(sidecars.create(10, Parts::Full, SEED).is_none());
    assert!(sidecars.open(&content_id(b"x")).is_none());
    assert_eq!(sidecars.content_of(&stamp), None);
    sidecars.set_stamp(&content_id(b"x"), &stamp);
    sidecars.remove(&content_id(b"x"));
}

// Two clients of one user: whoever is last wins, what is mapped stays readable, nothing is torn.
#[test]
fn two_can_share_a_directory() {
    let scene = Scene::new();
    let (one, two) = (scene.open(), scene.open());
    let content = random(200_000, 10);
    let id = keep(&one, &content);
    let mapped = two.open(&id).unwrap();
    keep(&two, &content);
    one.remove(&id);
    assert_eq!(mapped.view().verify(), Ok(()));
    assert!(two.open(&id).is_none());
    // One removes the whole directory while the other holds it.
    fs::remove_dir_all(scene.dir.path().join(".syncline")).unwrap();
    keep(&two, &content);
    assert!(scene.open().open(&id).is_some());
}

#[test]
fn leftovers_of_a_crash_go_and_those_in_work_stay() {
    let scene = Scene::new();
    let sidecars = scene.open();
    let content = random(30_000, 12);
    let mut writer = sidecars.create(content.len() as u64, Parts::Leaves, 0).unwrap();
    fs::write(scene.path().join("0123456789abcdef.part"), b"left").unwrap();
    fs::write(scene.path().join("of somebody else"), b"kept").unwrap();
    let other = scene.open();
    assert_eq!(other.content_of(&scene.stamp("f", b"1")), None);
    assert_eq!(scene.names().len(), 2);
    writer.put(0, &ChunkIndex::leaves_only(&content));
    assert!(sidecars.finish(writer, &content_id(&content)));
}
