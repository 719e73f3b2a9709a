//! Owns the listening sockets: bounded accepting, and what happens when descriptors run out. It
//! never keeps a connection.
//!
//! 1. A listener with waiting peers is `pending` until `accept` says `WouldBlock`.
//! 2. Without descriptors (EMFILE, ENFILE) or memory, the spare descriptor is given up, those who
//!    wait are accepted and dropped (they learn at once that it does not work now), the spare is
//!    taken again, and the listener rests for [`REST_MS`].
//!
//! Invariant: a listener that rests is asked for nothing, so a lack of descriptors never spins the loop.

use super::source::{LISTENERS_MAX, Source};
use super::stream::Security;
use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Registry};
use socket2::{Domain, Protocol, Socket, Type};
use std::fs::File;
use std::io;
use std::net::SocketAddr;

/// Milliseconds that a listener rests when descriptors have run out.
pub(super) const REST_MS: u64 = 100;
/// Peers that the kernel holds until they are accepted; a burst of a thousand devices fits.
const BACKLOG: i32 = 1024;

/// What one try to accept gave.
#[derive(Debug)]
pub(super) enum Accepted {
    Stream(TcpStream, SocketAddr),
    /// This one is gone already; others may wait.
    Skipped,
    /// Nobody waits.
    Nobody,
    /// No descriptors or memory; the listener should rest. So many peers were turned away.
    Exhausted {
        dropped: usize,
    },
}

#[derive(Debug)]
struct Listener {
    /// `None` once it is closed.
    socket: Option<TcpListener>,
    security: Security,
    is_pending: bool,
    rests: bool,
    /// It accepts while others are paused.
    is_exempt: bool,
}

#[derive(Debug)]
pub(super) struct Listeners {
    list: Vec<Listener>,
    spare: Option<File>,
    is_paused: bool,
}

impl Listeners {
    pub(super) fn new() -> Listeners {
        Listeners {
            list: Vec::new(),
            spare: None,
            is_paused: false,
        }
    }

    /// Asks no listener for peers but those that are exempt, or all again.
    pub(super) fn pause(&mut self, is_paused: bool) {
        self.is_paused = is_paused;
    }

    /// Has one listener asked also while the others are paused.
    pub(super) fn exempt(&mut self, index: usize) {
        if let Some(listener) = self.list.get_mut(index) {
            listener.is_exempt = true;
        }
    }

    /// Opens a listening socket; gives its number and the address it got.
    pub(super) fn open(
        &mut self,
        registry: &Registry,
        address: SocketAddr,
        security: Security,
    ) -> io::Result<(usize, SocketAddr)> {
        if self.list.len() == LISTENERS_MAX {
            return Err(io::Error::other("too many listeners"));
        }
        if self.spare.is_none() {
            self.spare = Some(File::open("/dev/null")?);
        }
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        let mut socket = TcpListener::from_std(socket.into());
        let bound = socket.local_addr()?;
        let index = self.list.len();
        registry.register(&mut socket, Source::Listener(index).token(), Interest::READABLE)?;
        self.list.push(Listener {
            socket: Some(socket),
            security,
            is_pending: false,
            rests: false,
            is_exempt: false,
        });
        Ok((index, bound))
    }

    pub(super) fn close(&mut self) {
        self.list.clear();
        self.spare = None;
    }

    /// Closes one listener. Its number is not given to another one.
    pub(super) fn close_one(&mut self, index: usize) {
        if let Some(listener) = self.list.get_mut(index) {
            listener.socket = None;
            listener.is_pending = false;
        }
    }

    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    /// An event said that peers wait.
    pub(super) fn note(&mut self, index: usize) {
        if let Some(listener) = self.list.get_mut(index) {
            listener.is_pending = listener.socket.is_some();
        }
    }

    /// The rest is over; whoever came meanwhile is served.
    pub(super) fn rested(&mut self, index: usize) {
        if let Some(listener) = self.list.get_mut(index) {
            listener.rests = false;
        }
    }

    /// Whether peers may be accepted at listener `index` now.
    pub(super) fn is_ready(&self, index: usize) -> bool {
        let asks =
            |listener: &Listener| listener.is_pending && !listener.rests && (!self.is_paused || listener.is_exempt);
        self.list.get(index).is_some_and(asks)
    }

    pub(super) fn any_ready(&self) -> bool {
        (0..self.list.len()).any(|index| self.is_ready(index))
    }

    pub(super) fn security(&self, index: usize) -> &Security {
        &self.list[index].security
    }

    /// Accepts one peer; turns away at most `drops_max` when descriptors have run out.
    pub(super) fn accept(&mut self, index: usize, drops_max: usize) -> Accepted {
        let listener = &mut self.list[index];
        let Some(socket) = &listener.socket else {
            return Accepted::Nobody;
        };
        match socket.accept() {
            Ok((stream, peer)) => Accepted::Stream(stream, peer),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                listener.is_pending = false;
                Accepted::Nobody
            }
            Err(error) if is_exhaustion(&error) => {
                listener.rests = true;
                Accepted::Exhausted {
                    dropped: self.turn_away(index, drops_max),
                }
            }
            // ECONNABORTED, EINTR and the network errors that accept(2) passes on concern one peer.
            Err(_) => Accepted::Skipped,
        }
    }

    fn turn_away(&mut self, index: usize, drops_max: usize) -> usize {
        if self.spare.take().is_none() {
            self.spare = File::open("/dev/null").ok();
            return 0;
        }
        let listener = &mut self.list[index];
        let mut dropped = 0;
        while let (true, Some(socket)) = (dropped < drops_max, &listener.socket) {
            match socket.accept() {
                Ok(_) => dropped += 1,
                Err(error) => {
                    listener.is_pending = error.kind() != io::ErrorKind::WouldBlock;
                    break;
                }
            }
        }
        self.spare = File::open("/dev/null").ok();
        dropped
    }
}

fn is_exhaustion(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM)
    )
}
