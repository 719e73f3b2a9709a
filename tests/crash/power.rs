//! A disk that loses power: a file system on a loop device that is shut down without flushing its log, so
//! that what it had not written by then is gone, and mounted again.
//!
//! What this proves: nothing that was acknowledged was only in memory. What it does not: what was handed to
//! the device counts as written, so a device that loses or reorders writes is not part of it. Must run in
//! a mount namespace of its own, so that everything is gone with the process.

use crate::point::Disk;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

pub struct Mounted {
    image: PathBuf,
    at: PathBuf,
    _dir: TempDir,
}

impl Mounted {
    /// Makes and mounts an empty file system.
    pub fn new(disk: Disk) -> Mounted {
        let dir = crate::site::temporary("disk");
        let (image, at) = (dir.path().join("image"), dir.path().join("mount"));
        File::create(&image).unwrap().set_len(400 << 20).unwrap();
        fs::create_dir(&at).unwrap();
        run(Command::new(disk.tool()).args(disk.flags()).arg(&image));
        let mounted = Mounted { image, at, _dir: dir };
        mounted.mount();
        mounted
    }

    pub fn path(&self) -> &Path {
        &self.at
    }

    fn mount(&self) {
        run(Command::new("mount")
            .args(["-o", "loop"])
            .arg(&self.image)
            .arg(&self.at));
    }

    fn unmount(&self) -> bool {
        Command::new("umount")
            .arg(&self.at)
            .status()
            .is_ok_and(|status| status.success())
    }

    /// From here on nothing is written any more, and nothing can be read.
    pub fn cut(&self) {
        run(Command::new("xfs_io").args(["-x", "-c", "shutdown"]).arg(&self.at));
    }

    /// What is on the disk. All who had files open there are gone.
    pub fn mount_again(&self) {
        // A process that was killed may need a moment to give up its files.
        for _ in 0..200 {
            if self.unmount() {
                return self.mount();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("{} cannot be unmounted", self.at.display());
    }

    /// Removes everything, for the next point.
    pub fn clear(&self) {
        for entry in fs::read_dir(&self.at).unwrap().flatten() {
            let removed = if entry.path().is_dir() {
                fs::remove_dir_all(entry.path())
            } else {
                fs::remove_file(entry.path())
            };
            removed.unwrap();
        }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        self.unmount();
    }
}

impl Disk {
    pub fn tool(self) -> &'static str {
        match self {
            Disk::Xfs => "mkfs.xfs",
            Disk::Ext4 => "mkfs.ext4",
        }
    }

    fn flags(self) -> &'static [&'static str] {
        match self {
            Disk::Xfs => &["-q", "-m", "reflink=1"],
            Disk::Ext4 => &["-q", "-F"],
        }
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
}

/// Whether such a disk can be made and cut off here; says so if not.
pub fn works(test: &str, disk: Disk) -> bool {
    let script = "d=$(mktemp -d) && truncate -s 4M $d/i && (mkfs.ext4 -q $d/i && mount -o loop $d/i $d &&
                  xfs_io -x -c shutdown $d && umount $d); code=$?; rm -rf $d; exit $code";
    let tried = || Command::new("unshare").args(["-m", "sh", "-c", script]).output();
    let works =
        Command::new(disk.tool()).arg("-V").output().is_ok() && tried().is_ok_and(|output| output.status.success());
    if !works {
        eprintln!(
            "{test} skipped: {} or xfs_io is missing, or nobody but root may mount images here",
            disk.tool()
        );
    }
    works
}
