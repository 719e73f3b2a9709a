//! A file system in memory that folds case and normalises Unicode, served over FUSE: what ext4 with `casefold` does,
//! for machines whose kernel has none such. Names keep the spelling that they were made with.
//!
//! Its flushes can be held, which makes a disk that is as slow as a test wants.
//!
//! Speaks the kernel's protocol itself (include/uapi/linux/fuse.h, version 7.31), as much of it as a sync needs.
//! Invariant: of two names with one key, a directory never has both.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

mod nodes;
mod wire;

use nodes::{Answer, Nodes};
use rustix::io::{Errno, FdFlags, fcntl_setfd};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use wire::{Request, reply};

/// The file system, mounted.
pub struct Folding {
    at: PathBuf,
    server: Option<JoinHandle<()>>,
    disk: Arc<Disk>,
}

/// What becomes of flushes.
pub struct Disk {
    device: File,
    /// Answers to flushes that wait; none while each is answered at once.
    held: Mutex<Option<Vec<Vec<u8>>>>,
}

impl Folding {
    /// Mounts an empty one at `at`, which is made.
    ///
    /// # Errors
    /// When there is no `/dev/fuse`, or this process may not mount.
    pub fn mount(at: &Path) -> Result<Folding, String> {
        fs::create_dir_all(at).unwrap();
        let device = File::options().read(true).write(true).open("/dev/fuse");
        let device = device.map_err(|error| format!("/dev/fuse: {error}"))?;
        // The program that mounts hands the descriptor to the kernel.
        fcntl_setfd(&device, FdFlags::empty()).unwrap();
        let options = format!(
            "fd={},rootmode=40000,user_id=0,group_id=0,default_permissions,allow_other",
            device.as_raw_fd()
        );
        let mounted = Command::new("mount")
            .args(["-i", "-t", "fuse.folding", "-o", &options, "folding"])
            .arg(at)
            .output();
        fcntl_setfd(&device, FdFlags::CLOEXEC).unwrap();
        match mounted {
            Ok(output) if output.status.success() => {}
            other => return Err(format!("mount: {other:?}")),
        }
        let held = Mutex::new(None);
        let disk = Arc::new(Disk {
            device: device.try_clone().unwrap(),
            held,
        });
        let asked = Arc::clone(&disk);
        let server = std::thread::spawn(move || serve(device, &asked));
        Ok(Folding {
            at: at.to_owned(),
            server: Some(server),
            disk,
        })
    }

    /// What holds flushes, also from another thread.
    pub fn disk(&self) -> Arc<Disk> {
        Arc::clone(&self.disk)
    }
}

impl Disk {
    /// From now on whoever flushes waits.
    pub fn hold_flushes(&self) {
        *self.held.lock().unwrap() = Some(Vec::new());
    }

    /// How many wait.
    pub fn flushes_held(&self) -> usize {
        self.held.lock().unwrap().as_ref().map_or(0, Vec::len)
    }

    /// They go on, and whoever comes later does not wait.
    pub fn release_flushes(&self) {
        let waiting = self.held.lock().unwrap().take();
        for answer in waiting.into_iter().flatten() {
            let _ = (&self.device).write_all(&answer);
        }
    }

    /// Answers now, unless it is a flush that has to wait.
    fn answer(&self, request: &Request<'_>, answer: Vec<u8>) {
        if let (FSYNC | FSYNCDIR, Some(held)) = (request.opcode, &mut *self.held.lock().unwrap()) {
            held.push(answer);
            return;
        }
        // The asker may be gone.
        let _ = (&self.device).write_all(&answer);
    }
}

impl Drop for Folding {
    fn drop(&mut self) {
        self.disk.release_flushes();
        let gone = Command::new("umount").arg("-l").arg(&self.at).status();
        // Something may have it open still: then the thread ends with the process.
        if gone.is_ok_and(|status| status.success())
            && let Some(server) = self.server.take()
            && server.is_finished()
        {
            let _ = server.join();
        }
    }
}

/// The kernel asks for at most this much to be written, and wants room for that and a head.
pub const WRITE_BYTES_MAX: usize = 128 * 1024;

/// Opcodes of flushes: of a file, and of a directory.
const FSYNC: u32 = 20;
const FSYNCDIR: u32 = 30;

fn serve(mut device: File, disk: &Disk) {
    let mut nodes = Nodes::new();
    let mut buffer = vec![0; WRITE_BYTES_MAX + 4096];
    loop {
        let length = match device.read(&mut buffer) {
            Ok(length) => length,
            Err(error)
                if matches!(
                    Errno::from_io_error(&error),
                    Some(Errno::NOENT | Errno::INTR | Errno::AGAIN)
                ) =>
            {
                continue;
            }
            // It was unmounted.
            Err(_) => return,
        };
        let request = Request::parse(&buffer[..length]);
        let answer = match nodes.handle(&request) {
            Answer::Nothing => continue,
            Answer::Bytes(bytes) => reply(request.unique, Ok(&bytes)),
            Answer::Failed(errno) => reply(request.unique, Err(errno)),
        };
        disk.answer(&request, answer);
    }
}
