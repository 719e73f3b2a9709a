//! The demo's data: makes a folder, edits it, measures and compares trees.
//! Never writes to a folder that it did not make.
//!
//! Invariant: the same call makes the same bytes, so that two runs of the demo can be compared.

use super::complaint::reason;
use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Metadata};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use syncline::model::{Meta, RelPath, escape};

/// How much to make.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    /// Size of the one large file.
    pub(crate) large_bytes: u64,
    /// Number of small ones, of 1 to 80 KiB.
    pub(crate) small_files: u64,
}

/// Files and their bytes in a tree.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    /// Regular files.
    pub(crate) files: u64,
    /// Their length together.
    pub(crate) bytes: u64,
}

const LARGE: &str = "large.bin";
const SMALL_FILES_PER_FOLDER: u64 = 20;
const BLOCK_BYTES: usize = 64 << 10;

/// Makes the sample in `root`, which must not exist.
pub(crate) fn make(root: &Path, shape: Shape) -> io::Result<()> {
    fs::create_dir(root)?;
    let mut noise = Noise(0x5EED);
    write_noise(&root.join(LARGE), shape.large_bytes, &mut noise)?;
    for index in 0..shape.small_files {
        let folder = root.join(format!("folder-{:02}", index / SMALL_FILES_PER_FOLDER));
        if index % SMALL_FILES_PER_FOLDER == 0 {
            fs::create_dir(&folder)?;
        }
        // 37 and 80 have no common divisor, so all sizes occur equally often.
        write_noise(
            &folder.join(format!("small-{index:03}.bin")),
            (index * 37 % 80 + 1) << 10,
            &mut noise,
        )?;
    }
    Ok(())
}

/// What a person does to a folder: 4 KiB in the middle of the large file, and one new small file.
pub(crate) fn edit(root: &Path) -> io::Result<()> {
    let mut large = File::options().write(true).open(root.join(LARGE))?;
    let middle = large.metadata()?.len() / 2;
    large.seek(SeekFrom::Start(middle))?;
    large.write_all(&[b'x'; 4096])?;
    write_noise(&root.join("new.bin"), 10 << 10, &mut Noise(0x0E17))
}

fn write_noise(path: &Path, length: u64, noise: &mut Noise) -> io::Result<()> {
    let mut file = File::create_new(path)?;
    let mut block = [0; BLOCK_BYTES];
    let mut left = length;
    while left > 0 {
        noise.fill(&mut block);
        let take = usize::try_from(left).unwrap_or(BLOCK_BYTES).min(BLOCK_BYTES);
        file.write_all(&block[..take])?;
        left -= take as u64;
    }
    Ok(())
}

/// xorshift64* (Vigna 2016): fast noise that no compressor shrinks. Not for secrets.
struct Noise(u64);

impl Noise {
    fn fill(&mut self, block: &mut [u8; BLOCK_BYTES]) {
        for word in block.chunks_exact_mut(8) {
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            word.copy_from_slice(&self.0.wrapping_mul(0x2545_F491_4F6C_DD1D).to_le_bytes());
        }
    }
}

/// Counts the regular files below `root`; what cannot be listed is left out.
pub(crate) fn measure(root: &Path) -> Totals {
    let mut totals = Totals::default();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let Ok(meta) = entry.metadata() else { continue };
            if meta.is_dir() && entry.file_name() != RelPath::RESERVED {
                folders.push(entry.path());
            } else if meta.is_file() {
                totals.files += 1;
                totals.bytes += meta.len();
            }
        }
    }
    totals
}

/// The first difference between two trees in names, kinds, contents, permissions and times of files;
/// `None` when there is none. Special files and `.syncline` are not compared: they do not travel.
pub(crate) fn difference(left: &Path, right: &Path) -> io::Result<Option<String>> {
    let mut pairs = vec![(left.to_owned(), right.to_owned())];
    let mut buffers = [vec![0; BLOCK_BYTES], vec![0; BLOCK_BYTES]];
    while let Some((left, right)) = pairs.pop() {
        let (names, others) = (listing(&left)?, listing(&right)?);
        if let Some(name) = names.difference(&others).next() {
            return Ok(Some(format!("{} is missing in the copy", show(&left.join(name)))));
        }
        if let Some(name) = others.difference(&names).next() {
            return Ok(Some(format!("{} is only in the copy", show(&right.join(name)))));
        }
        for name in names {
            let (left, right) = (left.join(&name), right.join(&name));
            if let Some(what) = entry_difference(&left, &right, &mut buffers)? {
                return Ok(Some(format!("{}: {what}", show(&left))));
            }
            if left.symlink_metadata()?.is_dir() {
                pairs.push((left, right));
            }
        }
    }
    Ok(None)
}

fn show(path: &Path) -> String {
    escape(path.as_os_str().as_encoded_bytes())
}

/// The names in a folder that travel, sorted.
fn listing(folder: &Path) -> io::Result<BTreeSet<OsString>> {
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        let travels = kind.is_file() || kind.is_dir() || kind.is_symlink();
        if travels && entry.file_name() != OsStr::new(RelPath::RESERVED) {
            names.insert(entry.file_name());
        }
    }
    Ok(names)
}

fn entry_difference(left: &Path, right: &Path, buffers: &mut [Vec<u8>; 2]) -> io::Result<Option<String>> {
    let (a, b) = (left.symlink_metadata()?, right.symlink_metadata()?);
    if a.file_type() != b.file_type() {
        return Ok(Some("another kind".to_owned()));
    }
    if a.is_symlink() {
        let same = fs::read_link(left)? == fs::read_link(right)?;
        return Ok((!same).then(|| "another link target".to_owned()));
    }
    if !a.is_file() {
        return Ok(None);
    }
    if let Some(what) = metadata_difference(&a, &b) {
        return Ok(Some(what));
    }
    match same_content(left, right, buffers) {
        Ok(true) => Ok(None),
        Ok(false) => Ok(Some("other content".to_owned())),
        Err(error) => Ok(Some(format!("cannot be compared: {}", reason(&error)))),
    }
}

fn metadata_difference(a: &Metadata, b: &Metadata) -> Option<String> {
    if a.len() != b.len() {
        return Some(format!("{} bytes became {}", a.len(), b.len()));
    }
    if (a.mode() ^ b.mode()) & Meta::MODE_MASK != 0 {
        return Some(format!("mode {:o} became {:o}", a.mode() & 0o777, b.mode() & 0o777));
    }
    let same_time = (a.mtime(), a.mtime_nsec()) == (b.mtime(), b.mtime_nsec());
    (!same_time).then(|| "another modification time".to_owned())
}

/// Both files have the same length.
fn same_content(left: &Path, right: &Path, [one, two]: &mut [Vec<u8>; 2]) -> io::Result<bool> {
    let (mut left, mut right) = (File::open(left)?, File::open(right)?);
    loop {
        let length = left.read(one)?;
        if length == 0 {
            return Ok(right.read(two)? == 0);
        }
        match right.read_exact(&mut two[..length]) {
            Ok(()) if one[..length] == two[..length] => {}
            Ok(()) => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            Err(error) => return Err(error),
        }
    }
}

/// The name under which a folder arrives when it is pushed; `None` for `/`.
pub(crate) fn arrival_name(folder: &Path) -> Option<PathBuf> {
    folder.file_name().map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::time::{Duration, SystemTime};

    const SHAPE: Shape = Shape {
        large_bytes: 100_000,
        small_files: 25,
    };

    fn set_time(path: &Path, seconds: u64) {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        File::options()
            .append(true)
            .open(path)
            .unwrap()
            .set_modified(time)
            .unwrap();
    }

    fn pair() -> (tempfile::TempDir, PathBuf, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let (left, right) = (folder.path().join("left"), folder.path().join("right"));
        for root in [&left, &right] {
            make(root, SHAPE).unwrap();
            symlink("large.bin", root.join("link")).unwrap();
            for entry in fs::read_dir(root.join("folder-00"))
                .unwrap()
                .chain(fs::read_dir(root.join("folder-01")).unwrap())
            {
                set_time(&entry.unwrap().path(), 1000);
            }
            set_time(&root.join(LARGE), 1000);
        }
        (folder, left, right)
    }

    #[test]
    fn the_sample_is_the_same_each_time_and_has_the_shape_that_was_asked_for() {
        let (_folder, left, right) = pair();
        assert_eq!(difference(&left, &right).unwrap(), None);
        let totals = measure(&left);
        assert_eq!(totals.files, 26);
        let small: u64 = (0..25).map(|index| (index * 37 % 80 + 1) << 10).sum();
        assert_eq!(totals.bytes, 100_000 + small);
    }

    #[test]
    fn the_edit_changes_one_file_and_adds_one() {
        let (_folder, left, right) = pair();
        edit(&left).unwrap();
        assert_eq!(measure(&left).files, measure(&right).files + 1);
        assert!(!same_content(&left.join(LARGE), &right.join(LARGE), &mut [vec![0; 512], vec![0; 512]]).unwrap());
    }

    #[test]
    fn every_kind_of_difference_is_found() {
        type Change = fn(&Path);
        let changes: [(Change, &str); 7] = [
            (
                |root| fs::remove_file(root.join("folder-01/small-024.bin")).unwrap(),
                "missing",
            ),
            (
                |root| fs::write(root.join("folder-00/extra"), "").unwrap(),
                "only in the copy",
            ),
            (|root| fs::write(root.join(LARGE), "short").unwrap(), "became 5"),
            (
                |root| {
                    fs::set_permissions(root.join(LARGE), Permissions::from_mode(0o400)).unwrap();
                },
                "became 400",
            ),
            (|root| set_time(&root.join(LARGE), 2000), "modification time"),
            (
                |root| {
                    fs::remove_file(root.join("link")).unwrap();
                    symlink("elsewhere", root.join("link")).unwrap();
                },
                "link target",
            ),
            (
                |root| {
                    let mut file = File::options().write(true).open(root.join(LARGE)).unwrap();
                    file.write_all(b"other").unwrap();
                    drop(file);
                    set_time(&root.join(LARGE), 1000);
                },
                "other content",
            ),
        ];
        for (change, part) in changes {
            let (_folder, left, right) = pair();
            change(&right);
            let found = difference(&left, &right).unwrap().unwrap();
            assert!(found.contains(part), "{found}");
        }
    }
}
