//! Owns a connection's socket, plain or under TLS, behind one type. It never decides when to read
//! or write, and it never blocks.
//!
//! Invariant: `Flow::Blocked` means that the socket answered `WouldBlock`; only then may the caller
//! wait for an event (edge-triggered polls say nothing twice).

use super::closed::Closed;
#[cfg(feature = "tls")]
use super::identity::Identity;
use super::outbound::Outbound;
#[cfg(feature = "tls")]
use super::tls::TlsStream;
use crate::model::DeviceId;
use mio::net::TcpStream;
use std::io::{self, Read};

/// How a listener treats those who connect.
#[derive(Debug, Clone)]
pub enum Security {
    /// Bytes go as they are: for loopback and trusted links.
    Plain,
    /// TLS 1.3; the client has to show a key, any key.
    #[cfg(feature = "tls")]
    Tls(Identity),
}

/// How a connection to a server is made.
#[derive(Debug, Clone)]
pub enum ClientSecurity {
    /// Bytes go as they are: for loopback and trusted links.
    Plain,
    /// TLS 1.3.
    #[cfg(feature = "tls")]
    Tls {
        /// The own key and certificate.
        identity: Identity,
        /// The server must have this key; `None` accepts any, and reports it.
        expected: Option<DeviceId>,
    },
}

/// What one read or flush did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flow {
    /// Raw bytes that moved; there may be more.
    Moved(usize),
    /// The socket has to become ready first.
    Blocked,
    /// The peer sends no more.
    End,
}

/// The buffers that all connections share: only one of them is visited at a time.
#[derive(Debug)]
pub(super) struct Scratch {
    /// What the socket gives.
    pub(super) wire: Vec<u8>,
    /// What TLS makes of it.
    #[cfg(feature = "tls")]
    pub(super) plain: Vec<u8>,
    /// Ciphertext on its way to the socket.
    #[cfg(feature = "tls")]
    pub(super) seal: Vec<u8>,
    /// Small segments that go into one record.
    #[cfg(feature = "tls")]
    pub(super) gather: Vec<u8>,
}

impl Scratch {
    pub(super) fn new(read_bytes: usize) -> Scratch {
        Scratch {
            wire: vec![0; read_bytes],
            #[cfg(feature = "tls")]
            plain: Vec::new(),
            #[cfg(feature = "tls")]
            seal: Vec::new(),
            #[cfg(feature = "tls")]
            gather: Vec::new(),
        }
    }
}

pub(super) struct Stream {
    socket: TcpStream,
    layer: Layer,
}

enum Layer {
    Plain {
        /// Still true until the first byte has arrived and was looked at.
        unseen: bool,
    },
    #[cfg(feature = "tls")]
    Tls(Box<TlsStream>),
}

impl Stream {
    pub(super) fn accepted(socket: TcpStream, security: &Security) -> Result<Stream, Closed> {
        let layer = match security {
            Security::Plain => Layer::Plain { unseen: true },
            #[cfg(feature = "tls")]
            Security::Tls(identity) => Layer::Tls(Box::new(
                TlsStream::server(identity).map_err(|error| Closed::Tls(error.to_string()))?,
            )),
        };
        Ok(Stream { socket, layer })
    }

    pub(super) fn connecting(socket: TcpStream, security: &ClientSecurity) -> Result<Stream, Closed> {
        let layer = match security {
            ClientSecurity::Plain => Layer::Plain { unseen: true },
            #[cfg(feature = "tls")]
            ClientSecurity::Tls { identity, expected } => Layer::Tls(Box::new(
                TlsStream::client(identity, *expected).map_err(|error| Closed::Tls(error.to_string()))?,
            )),
        };
        Ok(Stream { socket, layer })
    }

    pub(super) fn socket(&mut self) -> &mut TcpStream {
        &mut self.socket
    }

    pub(super) fn is_secure(&self) -> bool {
        !matches!(self.layer, Layer::Plain { .. })
    }

    /// TCP stands: begins what comes above it.
    pub(super) fn start(&mut self) -> Result<(), Closed> {
        match &mut self.layer {
            Layer::Plain { .. } => Ok(()),
            #[cfg(feature = "tls")]
            Layer::Tls(tls) => tls.start(),
        }
    }

    /// Whether the peer is still to prove who it is.
    pub(super) fn is_handshaking(&self) -> bool {
        match &self.layer {
            Layer::Plain { .. } => false,
            #[cfg(feature = "tls")]
            Layer::Tls(tls) => tls.is_handshaking(),
        }
    }

    /// The peer's device, after the handshake; `None` without TLS.
    pub(super) fn peer(&self) -> Result<Option<DeviceId>, Closed> {
        match &self.layer {
            Layer::Plain { .. } => Ok(None),
            #[cfg(feature = "tls")]
            Layer::Tls(tls) => tls.peer().map(Some),
        }
    }

    /// Whether this layer itself has bytes for the socket.
    pub(super) fn has_output(&self) -> bool {
        match &self.layer {
            Layer::Plain { .. } => false,
            #[cfg(feature = "tls")]
            Layer::Tls(tls) => tls.has_sealed(),
        }
    }

    /// Bytes of memory that this layer's own buffers take.
    pub(super) fn held_bytes(&self) -> usize {
        match &self.layer {
            Layer::Plain { .. } => 0,
            #[cfg(feature = "tls")]
            Layer::Tls(tls) => tls.held_bytes(),
        }
    }

    /// Reads once, at most `limit` raw bytes; [`Stream::arrived`] then gives the plain ones.
    pub(super) fn receive(&mut self, scratch: &mut Scratch, limit: usize) -> Result<Flow, Closed> {
        match &mut self.layer {
            Layer::Plain { unseen } => {
                let limit = limit.min(scratch.wire.len());
                let count = match self.socket.read(&mut scratch.wire[..limit]) {
                    Ok(0) => return Ok(Flow::End),
                    Ok(count) => count,
                    Err(error) => return blocked_or(error),
                };
                if std::mem::take(unseen) && is_tls_hello_or_alert(&scratch.wire[..count]) {
                    return Err(Closed::IsTls);
                }
                Ok(Flow::Moved(count))
            }
            #[cfg(feature = "tls")]
            Layer::Tls(tls) => tls.receive(&mut self.socket, scratch, limit),
        }
    }

    /// The plain bytes of the last [`Stream::receive`], which moved `count` raw bytes.
    pub(super) fn arrived<'a>(&self, scratch: &'a Scratch, count: usize) -> &'a [u8] {
        match &self.layer {
            Layer::Plain { .. } => &scratch.wire[..count],
            #[cfg(feature = "tls")]
            Layer::Tls(_) => &scratch.plain,
        }
    }

    /// Sends what waits, at most about `limit` raw bytes.
    pub(super) fn flush(
        &mut self,
        outbound: &mut Outbound,
        #[cfg_attr(not(feature = "tls"), allow(unused_variables))] scratch: &mut Scratch,
        limit: usize,
    ) -> Result<Flow, Closed> {
        match &mut self.layer {
            Layer::Plain { .. } => match outbound.write_to(&mut self.socket, limit) {
                Ok(count) => Ok(Flow::Moved(count)),
                Err(error) => blocked_or(error),
            },
            #[cfg(feature = "tls")]
            Layer::Tls(tls) => tls.flush(&mut self.socket, outbound, scratch, limit),
        }
    }

    /// Queues what says "no more comes" in this layer.
    pub(super) fn close_notify(&mut self) {
        match &mut self.layer {
            Layer::Plain { .. } => {}
            #[cfg(feature = "tls")]
            Layer::Tls(tls) => tls.close_notify(),
        }
    }

    /// After a failure: tells the peer why, if its socket takes it at once.
    pub(super) fn send_alert(&mut self) {
        match &mut self.layer {
            Layer::Plain { .. } => {}
            #[cfg(feature = "tls")]
            Layer::Tls(tls) => tls.send_alert(&mut self.socket),
        }
    }
}

fn blocked_or(error: io::Error) -> Result<Flow, Closed> {
    match error.kind() {
        io::ErrorKind::WouldBlock => Ok(Flow::Blocked),
        io::ErrorKind::Interrupted => Ok(Flow::Moved(0)),
        _ => Err(Closed::Reset(error)),
    }
}

/// Whether a plain peer's first bytes are a TLS record: a hello (22) or an alert (21) of version 3.x.
fn is_tls_hello_or_alert(bytes: &[u8]) -> bool {
    matches!(bytes, [21 | 22, 3, 0..=4, ..])
}
