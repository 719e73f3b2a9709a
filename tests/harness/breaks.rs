//! Connections that are cut, and servers that start again.

use super::{World, WorldOptions, server_options};
use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use syncline::model::Link;
use syncline::node::{Client, Job, JobError, Server, TransferOptions};

/// Passes on what comes, and cuts each connection after so many bytes from the client. Its address,
/// and how many connections there were.
pub fn cutting_relay(server: SocketAddr, cut_after_bytes: u64) -> (SocketAddr, Arc<AtomicUsize>) {
    relay(server, cut_after_bytes, u64::MAX)
}

/// The same, after so many bytes from the server.
pub fn cutting_relay_back(server: SocketAddr, cut_after_bytes: u64) -> (SocketAddr, Arc<AtomicUsize>) {
    relay(server, u64::MAX, cut_after_bytes)
}

fn relay(server: SocketAddr, there_bytes: u64, back_bytes: u64) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&connections);
    std::thread::spawn(move || {
        for client in listener.incoming() {
            counted.fetch_add(1, Ordering::Relaxed);
            let client = Arc::new(client.unwrap());
            let server = Arc::new(TcpStream::connect(server).unwrap());
            pass_on(&server, &client, back_bytes);
            pass_on(&client, &server, there_bytes);
        }
    });
    (address, connections)
}

/// Passes on what comes from clients, and of what comes from the server only `at_once` bytes as they come,
/// then one in a while: a reader that is too slow to be one.
pub fn trickling_relay(server: SocketAddr, at_once: u64, pause: Duration) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let client = Arc::new(listener.accept().unwrap().0);
        let server = TcpStream::connect(server).unwrap();
        socket2::SockRef::from(&server).set_recv_buffer_size(4096).unwrap();
        let server = Arc::new(server);
        pass_on(&client, &server, u64::MAX);
        let _ = std::io::copy(&mut (&*server).take(at_once), &mut (&*client));
        let mut byte = [0];
        while matches!((&*server).read(&mut byte), Ok(1)) && (&*client).write_all(&byte).is_ok() {
            std::thread::sleep(pause);
        }
        let _ = client.shutdown(Shutdown::Both);
    });
    address
}

/// Passes so many bytes on; then both ends are closed.
fn pass_on(from: &Arc<TcpStream>, to: &Arc<TcpStream>, bytes: u64) {
    let (from, to) = (Arc::clone(from), Arc::clone(to));
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut (&*from).take(bytes), &mut (&*to));
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    });
}

/// The same address and folder, a new process as far as anyone can tell.
pub fn restart(world: &mut World) {
    let elsewhere = World::new();
    let mut options = server_options(world.dir.path(), &WorldOptions::default());
    options.listen = vec![world.address];
    let World { server, dir, .. } = elsewhere;
    drop(std::mem::replace(&mut world.server, server));
    world.server = Server::bind(&options).unwrap();
    drop(dir);
}

/// A transfer whose connection is cut for good after so many bytes of it.
pub fn broken_off(world: &mut World, home: &str, job: &Job, transfer: TransferOptions, bytes: u64) {
    let (relay, _) = match job {
        Job::Push { .. } => cutting_relay(world.address, bytes),
        _ => cutting_relay_back(world.address, bytes),
    };
    let job = through(job, &world.address.to_string(), &relay.to_string());
    let client = Client::start(world.client_options(home), job, transfer).unwrap();
    let run = world.drive(client, |_, _| {});
    assert!(
        matches!(run.outcome.result, Err(JobError::Lost { .. })),
        "{:?}",
        run.outcome
    );
    // The server notices, and ends its side.
    while world.server.connections() > 0 {
        world.server.poll(Some(Duration::from_millis(1))).unwrap();
    }
}

/// The same job by another address.
fn through(job: &Job, from: &str, to: &str) -> Job {
    let link = |link: &Link| link.to_string().replace(from, to).parse().unwrap();
    let mut job = job.clone();
    match &mut job {
        Job::Push { target, .. } => *target = link(target),
        Job::Pull { links, .. } => links.iter_mut().for_each(|one| *one = link(one)),
        #[cfg(feature = "sync")]
        Job::Sync { link: target, .. } => *target = target.as_ref().map(link),
        Job::Status { .. } => {}
    }
    job
}

/// What is kept in a folder of transfers that broke off.
pub fn kept(folder: &Path) -> Vec<PathBuf> {
    let found = fs::read_dir(folder.join(".syncline/staging/kept"));
    found
        .map(|entries| entries.map(|entry| entry.unwrap().path()).collect())
        .unwrap_or_default()
}
