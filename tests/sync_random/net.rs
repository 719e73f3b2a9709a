//! A network between the devices and their server, on the thread of the story: how much passes at a time, what is held
//! up, and where a connection is cut follow from the seed.

use crate::rng::Rng;
use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use syncline::model::Link;

/// Bytes that are held for one direction at the most; what does not fit waits at its sender.
const HELD_MAX: usize = 64 * 1024;
/// One in so many turns of a connection cuts it, between any two bytes.
const CUTS: u64 = 3_000;

pub(crate) struct Net {
    listener: TcpListener,
    server: SocketAddr,
    wires: Vec<Wire>,
}

/// A connection of a device, and the one to the server that belongs to it.
struct Wire {
    ends: [TcpStream; 2],
    /// What came from each end, and has not passed yet.
    held: [VecDeque<u8>; 2],
    /// Nothing more comes from it.
    has_ended: [bool; 2],
}

impl Net {
    pub(crate) fn new(server: SocketAddr) -> Net {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        Net {
            listener,
            server,
            wires: Vec::new(),
        }
    }

    /// The share, by way of this network.
    pub(crate) fn link(&self) -> Link {
        let address = self.listener.local_addr().unwrap();
        format!("syncline://{address}/Share").parse().unwrap()
    }

    /// On each connection some of what waits passes. Returns how many were cut.
    pub(crate) fn pass_some(&mut self, rng: &mut Rng) -> usize {
        self.accept();
        let before = self.wires.len();
        self.wires
            .retain_mut(|wire| !rng.once_in(CUTS) && wire.turn(|| portion(rng)));
        before - self.wires.len()
    }

    /// All that waits passes.
    pub(crate) fn pass_all(&mut self) {
        self.accept();
        self.wires.retain_mut(|wire| wire.turn(|| HELD_MAX));
    }

    fn accept(&mut self) {
        while let Ok((device, _)) = self.listener.accept() {
            // A server that is not there has hung up.
            let Ok(server) = TcpStream::connect(self.server) else {
                continue;
            };
            let ends = [device, server];
            for end in &ends {
                end.set_nonblocking(true).unwrap();
                end.set_nodelay(true).unwrap();
            }
            self.wires.push(Wire {
                ends,
                held: Default::default(),
                has_ended: [false; 2],
            });
        }
    }
}

/// How much passes in one direction: nothing for the moment, single bytes, pieces of a packet, or whatever is there.
fn portion(rng: &mut Rng) -> usize {
    match rng.below(8) {
        0 => 0,
        1 => 1,
        2 | 3 => 1 + rng.index(100),
        _ => HELD_MAX,
    }
}

impl Wire {
    /// Takes what comes and passes on as much as `portion` says. Returns whether the connection lives.
    fn turn(&mut self, mut portion: impl FnMut() -> usize) -> bool {
        for from in [0, 1] {
            if self.take(from).is_err() || self.pass(from, portion()).is_err() {
                return false;
            }
        }
        let is_over = |from: usize| self.has_ended[from] && self.held[from].is_empty();
        !(is_over(0) && is_over(1))
    }

    fn take(&mut self, from: usize) -> std::io::Result<()> {
        let mut buffer = [0; HELD_MAX];
        let room = HELD_MAX - self.held[from].len();
        if self.has_ended[from] || room == 0 {
            return Ok(());
        }
        match self.ends[from].read(&mut buffer[..room]) {
            Ok(0) => self.has_ended[from] = true,
            Ok(read) => self.held[from].extend(&buffer[..read]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn pass(&mut self, from: usize, bytes: usize) -> std::io::Result<()> {
        let to = &mut self.ends[1 - from];
        let held = &mut self.held[from];
        if !held.is_empty() && bytes > 0 {
            let part: Vec<u8> = held.iter().take(bytes).copied().collect();
            match to.write(&part) {
                Ok(written) => drop(held.drain(..written)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        if self.has_ended[from] && held.is_empty() {
            // It may be shut already.
            let _ = to.shutdown(Shutdown::Write);
        }
        Ok(())
    }
}
