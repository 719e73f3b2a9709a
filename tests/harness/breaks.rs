//! Connections that are cut, and servers that start again.

use super::{World, WorldOptions, server_options};
use std::io::Read;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use syncline::node::Server;

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
