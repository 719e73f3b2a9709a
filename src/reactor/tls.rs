//! Owns one TLS session: records in, plain bytes out, and the reverse. It never blocks, and between
//! calls it keeps nothing but an incomplete record and ciphertext that the socket did not take.
//!
//! 1. Receiving: the incomplete record is put before what the socket gives, in the shared buffer;
//!    complete records are decrypted and gathered in the shared plain buffer.
//! 2. Sending: segments are sealed, up to `SEALED_RECORDS` at a time, into a shared buffer that goes
//!    to the socket; only what the socket does not take is kept, and it goes first next time.
//!
//! Invariant: `partial` never holds a complete record, so asking the session for its state with it
//! has no effect. rustls's unbuffered interface is what makes an idle session small.

use super::closed::Closed;
use super::identity::{ALPN, Identity, OtherServer, device_of};
use super::outbound::Outbound;
use super::stream::{Flow, Scratch};
use crate::model::DeviceId;
use mio::net::TcpStream;
use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::ServerName;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, InsufficientSizeError, UnbufferedStatus};
use rustls::{AlertDescription, CertificateError, CommonState};
use std::io::{self, Read, Write};

/// Plain bytes in a full record (RFC 8446, 5.1), and what sealing one adds at most.
const RECORD_BYTES: usize = 16 * 1024;
const RECORD_EXTRA_BYTES: usize = 256;
/// Records sealed per write: 128 KiB amortise the system call and stay in the cache.
const SEALED_RECORDS: usize = 8;
/// An incomplete record or handshake message; longer ones are refused.
const PARTIAL_BYTES_MAX: usize = 64 * 1024;

/// A fatal alert, in the clear (RFC 8446, 6.2): what a plain peer gets, which can tell TLS by it.
const UNEXPECTED_MESSAGE: [u8; 7] = [21, 3, 3, 0, 2, 2, 10];

const SEAL_BUFFER_BYTES: usize = SEALED_RECORDS * (RECORD_BYTES + RECORD_EXTRA_BYTES);

pub(super) struct TlsStream {
    session: Session,
    /// What arrived of a record that is not complete.
    partial: Vec<u8>,
    /// Ciphertext from `sent` on waits for the socket.
    sealed: Vec<u8>,
    sent: usize,
    received_any: bool,
    peer_closed: bool,
}

enum Session {
    Client(UnbufferedClientConnection),
    Server(UnbufferedServerConnection),
}

/// What one look at the session gave.
enum Step {
    Again,
    /// Nothing more without bytes from the peer.
    Blocked,
}

impl TlsStream {
    pub(super) fn server(identity: &Identity) -> Result<TlsStream, rustls::Error> {
        let session = UnbufferedServerConnection::new(identity.server_config())?;
        Ok(TlsStream::new(Session::Server(session)))
    }

    pub(super) fn client(identity: &Identity, expected: Option<DeviceId>) -> Result<TlsStream, rustls::Error> {
        let name = ServerName::try_from("syncline.invalid").expect("the name is a legal one");
        let session = UnbufferedClientConnection::new(identity.client_config(expected)?, name)?;
        Ok(TlsStream::new(Session::Client(session)))
    }

    /// Bytes of memory that its own buffers take, beside what every session does.
    pub(super) fn held_bytes(&self) -> usize {
        self.partial.capacity() + self.sealed.capacity()
    }

    fn new(session: Session) -> TlsStream {
        let (partial, sealed) = (Vec::new(), Vec::new());
        TlsStream {
            session,
            partial,
            sealed,
            sent: 0,
            received_any: false,
            peer_closed: false,
        }
    }

    pub(super) fn is_handshaking(&self) -> bool {
        self.session.state().is_handshaking()
    }

    /// Who the peer is, once the handshake is done.
    pub(super) fn peer(&self) -> Result<DeviceId, Closed> {
        let state = self.session.state();
        if state.alpn_protocol() != Some(ALPN) {
            return Err(Closed::NoCommonProtocol);
        }
        let certificate = state
            .peer_certificates()
            .and_then(<[_]>::first)
            .ok_or(Closed::NoCertificate)?;
        device_of(certificate).map_err(closed_by)
    }

    /// Whether ciphertext waits for the socket.
    pub(super) fn has_sealed(&self) -> bool {
        self.sent < self.sealed.len()
    }

    /// Starts the handshake: a client has its first message ready afterwards.
    pub(super) fn start(&mut self) -> Result<(), Closed> {
        let mut plain = Vec::new();
        self.open(&mut [], &mut plain).map(|_| ())
    }

    /// Reads once from the socket, at most `limit` bytes; plain bytes are in `scratch.plain`.
    pub(super) fn receive(
        &mut self,
        socket: &mut TcpStream,
        scratch: &mut Scratch,
        limit: usize,
    ) -> Result<Flow, Closed> {
        scratch.plain.clear();
        let kept = self.partial.len();
        let end = scratch.wire.len().min(kept + limit);
        scratch.wire[..kept].copy_from_slice(&self.partial);
        let count = match socket.read(&mut scratch.wire[kept..end]) {
            Ok(0) if self.is_handshaking() => return Err(Closed::HungUp),
            Ok(0) => return Ok(Flow::End),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Flow::Blocked),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(Flow::Moved(0)),
            Err(error) if self.is_handshaking() && !self.received_any && is_reset(&error) => {
                return Err(Closed::HungUp);
            }
            Err(error) => return Err(Closed::Reset(error)),
        };
        let arrived = &mut scratch.wire[..kept + count];
        if !self.received_any && !looks_like_tls(arrived) {
            self.sealed.extend_from_slice(&UNEXPECTED_MESSAGE);
            return Err(Closed::NotTls);
        }
        self.received_any = true;
        let used = self.open(arrived, &mut scratch.plain)?;
        self.keep(&scratch.wire[used..kept + count])?;
        if self.peer_closed && scratch.plain.is_empty() {
            return Ok(Flow::End);
        }
        Ok(Flow::Moved(count))
    }

    /// Sends what waits, at most about `limit` bytes.
    pub(super) fn flush(
        &mut self,
        socket: &mut TcpStream,
        outbound: &mut Outbound,
        scratch: &mut Scratch,
        limit: usize,
    ) -> Result<Flow, Closed> {
        let mut moved = 0;
        while moved < limit {
            if self.has_sealed() {
                match write(socket, &self.sealed[self.sent..])? {
                    None => {
                        return Ok(if moved == 0 { Flow::Blocked } else { Flow::Moved(moved) });
                    }
                    Some(count) => (self.sent, moved) = (self.sent + count, moved + count),
                }
                if !self.has_sealed() {
                    (self.sealed, self.sent) = (Vec::new(), 0);
                }
                continue;
            }
            self.settle()?;
            if self.has_sealed() {
                continue;
            }
            if outbound.is_empty() || self.is_handshaking() {
                break;
            }
            let length = self.seal(outbound, scratch)?;
            let count = write(socket, &scratch.seal[..length])?;
            moved += count.unwrap_or(0);
            self.sealed.extend_from_slice(&scratch.seal[count.unwrap_or(0)..length]);
            if count.is_none() {
                return Ok(if moved == 0 { Flow::Blocked } else { Flow::Moved(moved) });
            }
        }
        Ok(Flow::Moved(moved))
    }

    /// Queues the orderly end of the session.
    pub(super) fn close_notify(&mut self) {
        let mut alert = [0; RECORD_EXTRA_BYTES];
        let queue = |state: &mut dyn Traffic| state.close_notify(&mut alert);
        if let Ok(length) = self.with_traffic(queue) {
            self.sealed.extend_from_slice(&alert[..length]);
        }
    }

    /// After a failure: sends the alert that explains it, if the socket takes it.
    pub(super) fn send_alert(&mut self, socket: &mut TcpStream) {
        if self.has_sealed() {
            // The peer is only owed an explanation; an error changes nothing any more.
            let _ = socket.write(&self.sealed[self.sent..]);
        }
    }

    /// Runs the session over `arrived`; returns how many bytes of it are used up.
    fn open(&mut self, arrived: &mut [u8], plain: &mut Vec<u8>) -> Result<usize, Closed> {
        let mut used = 0;
        loop {
            let (discard, step) = match &mut self.session {
                Session::Client(session) => digest(
                    session.process_tls_records(&mut arrived[used..]),
                    plain,
                    &mut self.sealed,
                    &mut self.peer_closed,
                ),
                Session::Server(session) => digest(
                    session.process_tls_records(&mut arrived[used..]),
                    plain,
                    &mut self.sealed,
                    &mut self.peer_closed,
                ),
            };
            used += discard;
            match step {
                Ok(Step::Again) => {}
                Ok(Step::Blocked) => return Ok(used),
                Err(error) => {
                    self.collect_alert(&mut arrived[used..]);
                    return Err(closed_by(error));
                }
            }
        }
    }

    /// Lets the session say what it wants to say by itself (a key update) before more is sealed.
    fn settle(&mut self) -> Result<(), Closed> {
        let (mut partial, mut plain) = (std::mem::take(&mut self.partial), Vec::new());
        let settled = self.open(&mut partial, &mut plain);
        self.partial = partial;
        debug_assert!(plain.is_empty(), "an incomplete record holds no plain bytes");
        settled.map(|_| ())
    }

    /// Fetches the alert that rustls has made of an error.
    fn collect_alert(&mut self, rest: &mut [u8]) {
        let (mut plain, mut closed) = (Vec::new(), false);
        let _ = match &mut self.session {
            Session::Client(session) => digest(
                session.process_tls_records(rest),
                &mut plain,
                &mut self.sealed,
                &mut closed,
            ),
            Session::Server(session) => digest(
                session.process_tls_records(rest),
                &mut plain,
                &mut self.sealed,
                &mut closed,
            ),
        };
    }

    fn keep(&mut self, rest: &[u8]) -> Result<(), Closed> {
        if rest.len() > PARTIAL_BYTES_MAX {
            return Err(Closed::Tls("a handshake message is too long".to_owned()));
        }
        if rest.is_empty() {
            self.partial = Vec::new();
        } else {
            self.partial.clear();
            self.partial.extend_from_slice(rest);
        }
        Ok(())
    }

    /// Seals the front of `outbound` into `scratch.seal`; returns the ciphertext's length.
    fn seal(&mut self, outbound: &mut Outbound, scratch: &mut Scratch) -> Result<usize, Closed> {
        let Scratch { seal, gather, .. } = scratch;
        seal.resize(SEAL_BUFFER_BYTES, 0);
        gather.resize(RECORD_BYTES, 0);
        let fill = |state: &mut dyn Traffic| {
            let mut length = 0;
            for _ in 0..SEALED_RECORDS {
                let front = outbound.front();
                let count = if front.len() >= RECORD_BYTES {
                    length += state.encrypt(&front[..RECORD_BYTES], &mut seal[length..])?;
                    RECORD_BYTES
                } else {
                    let count = outbound.peek(gather);
                    if count == 0 {
                        break;
                    }
                    length += state.encrypt(&gather[..count], &mut seal[length..])?;
                    count
                };
                outbound.consume(count);
            }
            Ok(length)
        };
        self.with_traffic(fill).map_err(|error| Closed::Tls(error.to_string()))
    }

    /// Uses the session's writing state, which it is in once it is established and settled.
    fn with_traffic(
        &mut self,
        use_it: impl FnOnce(&mut dyn Traffic) -> Result<usize, EncryptError>,
    ) -> Result<usize, EncryptError> {
        match &mut self.session {
            Session::Client(session) => match session.process_tls_records(&mut self.partial).state {
                Ok(ConnectionState::WriteTraffic(mut state)) => use_it(&mut state),
                _ => Err(EncryptError::EncryptExhausted),
            },
            Session::Server(session) => match session.process_tls_records(&mut self.partial).state {
                Ok(ConnectionState::WriteTraffic(mut state)) => use_it(&mut state),
                _ => Err(EncryptError::EncryptExhausted),
            },
        }
    }
}

/// Sealing, for either role.
trait Traffic {
    fn encrypt(&mut self, plain: &[u8], target: &mut [u8]) -> Result<usize, EncryptError>;
    fn close_notify(&mut self, target: &mut [u8]) -> Result<usize, EncryptError>;
}

impl<Data> Traffic for rustls::unbuffered::WriteTraffic<'_, Data> {
    fn encrypt(&mut self, plain: &[u8], target: &mut [u8]) -> Result<usize, EncryptError> {
        rustls::unbuffered::WriteTraffic::encrypt(self, plain, target)
    }

    fn close_notify(&mut self, target: &mut [u8]) -> Result<usize, EncryptError> {
        self.queue_close_notify(target)
    }
}

impl Session {
    fn state(&self) -> &CommonState {
        match self {
            Session::Client(session) => session,
            Session::Server(session) => session,
        }
    }
}

fn digest<Data>(
    status: UnbufferedStatus<'_, '_, Data>,
    plain: &mut Vec<u8>,
    sealed: &mut Vec<u8>,
    peer_closed: &mut bool,
) -> (usize, Result<Step, rustls::Error>) {
    let mut discard = status.discard;
    let step = match status.state {
        Err(error) => Err(error),
        Ok(ConnectionState::ReadTraffic(mut state)) => {
            let mut result = Ok(Step::Again);
            while let Some(record) = state.next_record() {
                match record {
                    Ok(record) => {
                        discard += record.discard;
                        plain.extend_from_slice(record.payload);
                    }
                    Err(error) => {
                        result = Err(error);
                        break;
                    }
                }
            }
            result
        }
        Ok(ConnectionState::EncodeTlsData(mut state)) => encode(sealed, |target| state.encode(target)),
        Ok(ConnectionState::TransmitTlsData(state)) => {
            // It is in `sealed`, which leaves in order.
            state.done();
            Ok(Step::Again)
        }
        Ok(ConnectionState::PeerClosed) => {
            *peer_closed = true;
            Ok(Step::Again)
        }
        Ok(ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_) | ConnectionState::Closed) => {
            Ok(Step::Blocked)
        }
        Ok(_) => Err(rustls::Error::General("early data is not used".to_owned())),
    };
    (discard, step)
}

/// Appends what `encode` writes: the first try tells the size.
fn encode(
    sealed: &mut Vec<u8>,
    mut encode: impl FnMut(&mut [u8]) -> Result<usize, EncodeError>,
) -> Result<Step, rustls::Error> {
    let start = sealed.len();
    let required = match encode(&mut []) {
        Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size })) => required_size,
        _ => 0,
    };
    sealed.resize(start + required, 0);
    encode(&mut sealed[start..]).map_err(|error| rustls::Error::General(error.to_string()))?;
    Ok(Step::Again)
}

/// Writes once; `None` when the socket takes nothing now.
fn write(socket: &mut TcpStream, bytes: &[u8]) -> Result<Option<usize>, Closed> {
    loop {
        match socket.write(bytes) {
            Ok(0) => return Err(Closed::Reset(io::ErrorKind::WriteZero.into())),
            Ok(count) => return Ok(Some(count)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Closed::Reset(error)),
        }
    }
}

fn is_reset(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
}

/// Whether bytes can be the start of a TLS record: a content type (20 to 23) and major version 3.
pub(super) fn looks_like_tls(bytes: &[u8]) -> bool {
    matches!(bytes.first(), Some(20..=23)) && bytes.get(1).is_none_or(|major| *major == 3)
}

fn closed_by(error: rustls::Error) -> Closed {
    use rustls::Error;
    if let Error::InvalidCertificate(CertificateError::Other(other)) = &error
        && let Some(OtherServer { found }) = other.0.downcast_ref()
    {
        return Closed::WrongServer { found: *found };
    }
    match error {
        Error::NoApplicationProtocol | Error::AlertReceived(AlertDescription::NoApplicationProtocol) => {
            Closed::NoCommonProtocol
        }
        Error::NoCertificatesPresented | Error::AlertReceived(AlertDescription::CertificateRequired) => {
            Closed::NoCertificate
        }
        other => Closed::Tls(other.to_string()),
    }
}
