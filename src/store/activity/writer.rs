//! Appending to an activity log.
//!
//! 1. Lines gather in memory, and are written together when a turn of the loop is over.
//! 2. A file that is full takes the place of the older one, and a new one begins.
//!
//! Never flushes and never fails: what cannot be written is told once in the log of the process, and dropped.
//! Awkward case: a crash, or a full disk, leaves half a line; the next one begins on a line of its own.
//! Invariant: neither file grows beyond its bound, and no link in their place is followed.

use super::{ActivityLine, NAME, OLD};
use crate::model::limits::ACTIVITY_BYTES_MAX;
use crate::store::private::open_private;
use crate::store::root::Root;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{FileType, Mode, OFlags, fstat, openat, renameat};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

/// The log of one folder, for whoever writes to it.
#[derive(Debug)]
pub struct ActivityWriter {
    root: Arc<OwnedFd>,
    /// For the log of the process.
    path: PathBuf,
    open: Option<Open>,
    waiting: Vec<u8>,
    /// From which size on a file is full.
    bytes_max: u64,
    /// Somebody was told that it cannot be written.
    is_told: bool,
}

#[derive(Debug)]
struct Open {
    private: OwnedFd,
    file: File,
    bytes: u64,
}

/// Bytes that gather before they are written.
const GATHERED_BYTES: usize = 32 * 1024;

impl ActivityWriter {
    /// The log of the folder at `root`. Touches nothing before there is something to write.
    #[must_use]
    pub fn new(root: &Root) -> ActivityWriter {
        ActivityWriter {
            root: Arc::clone(root.directory()),
            path: root.path().to_owned(),
            open: None,
            waiting: Vec::new(),
            bytes_max: ACTIVITY_BYTES_MAX,
            is_told: false,
        }
    }

    /// The same, for a process that may not be the only one to write: it leaves the bound to the other.
    #[must_use]
    pub fn beside(root: &Root) -> ActivityWriter {
        let mut writer = ActivityWriter::new(root);
        writer.bytes_max = u64::MAX;
        writer
    }

    /// A line to be written.
    pub fn append(&mut self, line: &ActivityLine<'_>) {
        line.encode(&mut self.waiting);
        if self.waiting.len() >= GATHERED_BYTES {
            self.write();
        }
    }

    /// Hands what has gathered to the system, which writes it to the disk in its own time.
    pub fn write(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        let written = self.try_write();
        self.waiting.clear();
        let Err(error) = written else { return };
        // Whatever was written of it, the next attempt finds out where it stands.
        self.open = None;
        if !std::mem::replace(&mut self.is_told, true) {
            let path = self.path.display();
            log::warn!(
                "what happens in {path} cannot be written to its activity log: {}",
                crate::model::system_reason(&error)
            );
        }
    }

    fn try_write(&mut self) -> io::Result<()> {
        let mut open = match self.open.take() {
            Some(open) if fstat(&open.file)?.st_nlink > 0 => open,
            // Somebody removed it: another one begins.
            Some(_) | None => Open::find(&self.root)?,
        };
        if open.bytes > 0 && open.bytes + self.waiting.len() as u64 > self.bytes_max {
            renameat(&open.private, NAME, &open.private, OLD)?;
            open = Open::find(&self.root)?;
        }
        open.file.write_all(&self.waiting)?;
        open.bytes += self.waiting.len() as u64;
        self.open = Some(open);
        Ok(())
    }
}

impl Open {
    fn find(root: &Arc<OwnedFd>) -> io::Result<Open> {
        let private = open_private(root.as_fd())?;
        let flags =
            OFlags::RDWR | OFlags::APPEND | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let mut file = File::from(openat(&private, NAME, flags, Mode::RUSR | Mode::WUSR)?);
        let stat = fstat(&file)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(Errno::INVAL.into());
        }
        let mut bytes = u64::try_from(stat.st_size).unwrap_or(0);
        let mut last = [b'\n'];
        if bytes > 0 {
            file.read_exact_at(&mut last, bytes - 1)?;
        }
        if last != *b"\n" {
            file.write_all(b"\n")?;
            bytes += 1;
        }
        Ok(Open { private, file, bytes })
    }
}

impl Drop for ActivityWriter {
    fn drop(&mut self) {
        self.write();
    }
}

#[cfg(test)]
mod tests {
    use super::super::{ActivityReader, Happened, Who};
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    fn place() -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        (dir, root)
    }

    fn note(writer: &mut ActivityWriter, at_ms: u64) {
        let who = Who::here();
        let happened = Happened::Revoked;
        writer.append(&ActivityLine {
            at_ms,
            who: &who,
            happened,
        });
    }

    fn times(root: &Root) -> Vec<u64> {
        let mut reader = ActivityReader::open(root).unwrap().unwrap();
        let mut times = Vec::new();
        reader.each(&mut |entry| times.push(entry.at_ms())).unwrap();
        times
    }

    // Protects the disk: two files, neither above its bound, and what is left is the latest, in order.
    #[test]
    fn the_oldest_go_when_the_files_are_full() {
        let (dir, root) = place();
        let mut writer = ActivityWriter::new(&root);
        assert!(!dir.path().join(".syncline").exists(), "nothing is made for nothing");
        writer.bytes_max = 1000;
        for at in 1..=100 {
            note(&mut writer, at);
            writer.write();
        }
        let at = |name: &str| dir.path().join(".syncline").join(name);
        for name in [NAME, OLD] {
            let meta = fs::metadata(at(name)).unwrap();
            assert!((1..=1000).contains(&meta.len()), "{name}: {}", meta.len());
            assert_eq!(meta.permissions().mode() & 0o777, 0o600);
        }
        assert_eq!(fs::read_dir(dir.path().join(".syncline")).unwrap().count(), 2);
        let times = times(&root);
        let first = times[0];
        assert!(first > 50 && times.len() > 10, "{times:?}");
        assert_eq!(times, (first..=100).collect::<Vec<_>>());
    }

    // Protects what comes after a crash: half a line is skipped, and swallows none that is whole.
    #[test]
    fn a_torn_line_is_skipped_and_takes_no_other_with_it() {
        let (dir, root) = place();
        let file = dir.path().join(".syncline").join(NAME);
        note(&mut ActivityWriter::new(&root), 1);
        let whole = fs::read(&file).unwrap();
        for cut in 1..whole.len() {
            fs::write(&file, [&whole[..], &whole[..cut]].concat()).unwrap();
            note(&mut ActivityWriter::new(&root), 2);
            let torn = cut < whole.len() - 1;
            let expected: &[u64] = if torn { &[1, 2] } else { &[1, 1, 2] };
            assert_eq!(times(&root), expected, "{cut}");
        }
        // Nor does one that is not ours.
        fs::write(&file, [b"\xff\0[]\n7\n{}\n", &whole[..]].concat()).unwrap();
        assert_eq!(times(&root), [1]);
    }

    // Protects files outside: nothing but a plain file is written to, and a transfer does not hear of it.
    #[test]
    fn what_stands_in_its_place_is_left_alone() {
        let (dir, root) = place();
        let ours = dir.path().join(".syncline");
        fs::create_dir(&ours).unwrap();
        let other = dir.path().join("other");
        fs::write(&other, "mine").unwrap();
        std::os::unix::fs::symlink("../other", ours.join(NAME)).unwrap();
        let mut writer = ActivityWriter::new(&root);
        note(&mut writer, 1);
        writer.write();
        assert_eq!(fs::read_to_string(&other).unwrap(), "mine");
        fs::remove_file(ours.join(NAME)).unwrap();
        fs::create_dir(ours.join(NAME)).unwrap();
        note(&mut writer, 2);
        writer.write();
        // Once the way is free, it goes on; what was dropped stays dropped.
        fs::remove_dir(ours.join(NAME)).unwrap();
        note(&mut writer, 3);
        writer.write();
        assert_eq!(times(&root), [3]);
        fs::remove_dir_all(&ours).unwrap();
        note(&mut writer, 4);
        writer.write();
        assert_eq!(times(&root), [4]);
    }
}
