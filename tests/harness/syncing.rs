//! Folders in sync with the share of a world: made, run to their end, compared.

use super::edits::noise;
use super::{Run, World, snapshot};
use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use syncline::model::Link;
use syncline::node::{Client, ClientEvent, Durability, Job, MaxDelete, SyncOptions, TransferOptions};

/// How tests sync: no flushes, and no brake that small trees would meet.
pub fn options() -> SyncOptions {
    SyncOptions {
        max_delete: MaxDelete::Unlimited,
        durability: Durability::None,
        ..SyncOptions::default()
    }
}

/// The same, going on.
pub fn watching() -> SyncOptions {
    SyncOptions {
        watch: true,
        ..options()
    }
}

impl World {
    /// The folder of a device.
    pub fn folder(&self, name: &str) -> PathBuf {
        self.path(&format!("folder-{name}"))
    }

    pub fn sync_client(&self, name: &str, options: SyncOptions) -> Client {
        self.sync_by(name, self.link(""), options)
    }

    pub fn sync_by(&self, name: &str, link: Link, options: SyncOptions) -> Client {
        let job = Job::Sync {
            folder: self.folder(name),
            link: Some(link),
            options,
        };
        if std::env::var_os("SYNCLINE_SHOW").is_some() {
            show();
        }
        let client = self.client_options(&format!("home-{name}"));
        Client::start(client, job, TransferOptions::default()).expect("a folder that can be synced")
    }

    /// One run of a device, to its end.
    pub fn sync(&mut self, name: &str) -> Run {
        self.sync_with(name, options())
    }

    pub fn sync_with(&mut self, name: &str, options: SyncOptions) -> Run {
        let client = self.sync_client(name, options);
        self.drive(client, |_, _| {})
    }

    /// One run of each, which all go well.
    pub fn sync_all(&mut self, names: &[&str]) {
        for name in names {
            let run = self.sync(name);
            run.assert_clean();
        }
    }

    /// A new device's folder, with the given files in it.
    pub fn make(&self, name: &str, files: &[(&str, &str)]) -> PathBuf {
        let folder = self.folder(name);
        fs::create_dir_all(&folder).unwrap();
        files.iter().for_each(|(path, text)| put(&folder, path, text));
        folder
    }

    /// Everyone has the same.
    #[track_caller]
    pub fn assert_same(&self, names: &[&str]) {
        let share = tree(&self.share());
        for name in names {
            assert_eq!(tree(&self.folder(name)), share, "{name} (left) and the share differ");
        }
    }

    /// Polls until `done`; every client that ends before that is a failure.
    #[track_caller]
    pub fn poll_until(
        &mut self,
        clients: &mut [&mut Client],
        mut done: impl FnMut(&World) -> bool,
    ) -> Vec<ClientEvent> {
        let limit = Instant::now() + Duration::from_secs(30);
        let mut events = Vec::new();
        while !done(self) {
            assert!(Instant::now() < limit, "it does not come about: {events:?}");
            let served = self.server.poll(Some(Duration::from_millis(1))).unwrap();
            self.server_events.extend(served);
            for client in clients.iter_mut() {
                events.extend(client.poll(Some(Duration::from_millis(1))).unwrap());
            }
            let ended = events.iter().any(|event| matches!(event, ClientEvent::Finished(_)));
            assert!(!ended, "a client ended: {events:?}");
        }
        events
    }
}

/// What a tree is as far as a sync goes: the time of a directory is its own, and that of a link does not count.
pub fn tree(root: &Path) -> Vec<String> {
    let is_file = |line: &str| !line.contains(" -> ") && line.rsplit(' ').nth(1) != Some("directory");
    let without_time = |line: String| match is_file(&line) {
        true => line,
        false => line.rsplit_once(' ').expect("a time").0.to_owned(),
    };
    snapshot(root).into_iter().map(without_time).collect()
}

/// Texts of all files, by path.
pub fn texts(root: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut waiting = vec![root.to_path_buf()];
    while let Some(directory) = waiting.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            let meta = fs::symlink_metadata(&path).unwrap();
            if path == root.join(".syncline") {
                continue;
            }
            if meta.is_dir() {
                waiting.push(path);
            } else if meta.is_file() {
                let text = String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned();
                let relative = path.strip_prefix(root).unwrap();
                found.insert(relative.to_string_lossy().into_owned(), text);
            }
        }
    }
    found
}

pub fn put(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

pub fn put_noise(root: &Path, path: &str, length: usize, seed: u32) {
    fs::write(root.join(path), noise(length, seed)).unwrap();
}

/// Whether the versions of a tree hold a file of that text.
pub fn is_kept(root: &Path, text: &str) -> bool {
    fn holds(directory: &Path, text: &str) -> bool {
        let Ok(entries) = fs::read_dir(directory) else {
            return false;
        };
        entries.flatten().any(|entry| {
            let path = entry.path();
            let meta = fs::symlink_metadata(&path).unwrap();
            (meta.is_file() && fs::read(&path).is_ok_and(|found| found == text.as_bytes()))
                || (meta.is_dir() && holds(&path, text))
        })
    }
    holds(&root.join(".syncline/versions"), text)
}

/// Names of conflict copies in a tree.
pub fn copies(root: &Path) -> Vec<String> {
    let names = texts(root).into_keys();
    names.filter(|name| name.contains(".sync-conflict-")).collect()
}

/// Passes on what comes, counts both ways, and cuts each connection after so many bytes of both together.
pub fn counting_relay(server: SocketAddr, cut_after_bytes: u64) -> (SocketAddr, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let counted = Arc::new(AtomicU64::new(0));
    let total = Arc::clone(&counted);
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let Ok(client) = client else { return };
            let Ok(server) = TcpStream::connect(server) else {
                continue;
            };
            let (client, server) = (Arc::new(client), Arc::new(server));
            let left = Arc::new(AtomicU64::new(cut_after_bytes));
            for (from, to) in [(&client, &server), (&server, &client)] {
                let (from, to) = (Arc::clone(from), Arc::clone(to));
                let (left, total) = (Arc::clone(&left), Arc::clone(&total));
                std::thread::spawn(move || {
                    pass(&from, &to, &left, &total);
                    let _ = from.shutdown(Shutdown::Both);
                    let _ = to.shutdown(Shutdown::Both);
                });
            }
        }
    });
    (address, counted)
}

fn pass(mut from: &TcpStream, mut to: &TcpStream, left: &AtomicU64, total: &AtomicU64) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        let before = left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                Some(left.saturating_sub(read as u64))
            })
            .unwrap();
        let passed = read.min(usize::try_from(before).unwrap_or(usize::MAX));
        total.fetch_add(passed as u64, Ordering::Relaxed);
        if to.write_all(&buffer[..passed]).is_err() || passed < read {
            return;
        }
    }
}

/// Prints what syncline says.
struct Printed;

impl log::Log for Printed {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        println!("    {} {}", record.target(), record.args());
    }

    fn flush(&self) {}
}

/// From now on what syncline says is printed.
pub fn show() {
    if log::set_logger(&Printed).is_ok() {
        log::set_max_level(log::LevelFilter::Debug);
    }
}
