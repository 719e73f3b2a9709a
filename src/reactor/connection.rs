//! Owns what the reactor knows of one connection, and its visit: bounded reading, producing and
//! writing. It never waits and never decides about other connections.
//!
//! 1. `Connecting` until TCP stands, or `Accepted`; then `Handshaking` with TLS; then `Open`.
//! 2. In `Open` a visit flushes, reads, and asks the machine for more, round after round, until
//!    nothing moves or the quantum of bytes or time is spent.
//! 3. A close that was asked for goes through `Flushing` (the queue leaves), `Parting` (TLS says
//!    goodbye) and `Lingering`: our direction is shut down and what still comes is read and dropped
//!    until the peer hangs up too. A socket closed over unread bytes would send a reset, and that
//!    can destroy our last words on their way.
//!
//! Awkward: a peer that sends a reason and closes makes our next write fail before we read the
//! reason; so after a failed write the rest is read first.
//! Invariant: after a visit the connection is in the ready line, or waits for bandwidth, or the
//! kernel owes it an event, or its machine has nothing to do.

use super::bandwidth::{Direction, Limited};
use super::closed::Closed;
use super::context::{Context, Shared, Timer};
use super::handler::{Activity, Handler};
use super::outbound::Outbound;
use super::ready::Load;
use super::source::ConnId;
use super::stream::{Flow, Scratch, Stream};
use super::timers::TimerId;
use crate::model::Tick;
use crate::model::limits::{DRAIN_TIMEOUT_MS, OUTBOUND_BYTES_MAX, TURN_BYTES, TURN_MICROS};
use std::net::{Shutdown, SocketAddr};
use std::time::{Duration, Instant};

/// Milliseconds that a peer gets to hang up after we did.
const LINGER_MS: u64 = 1_000;

/// Bytes that are read at a time, however long the machine takes for them: a record of TLS.
const READ_MIN: usize = 16 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Connecting,
    Accepted,
    Handshaking,
    Open,
    Flushing,
    Parting,
    Lingering,
}

/// What the host asked for in a callback.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ask {
    CloseAfterFlush,
    Abort,
}

pub(super) struct Connection {
    pub(super) stream: Stream,
    pub(super) peer: SocketAddr,
    pub(super) phase: Phase,
    pub(super) outbound: Outbound,
    pub(super) ask: Option<Ask>,
    pub(super) sent: u64,
    pub(super) received: u64,
    /// The host wants no more bytes for now.
    pub(super) paused: bool,
    /// The socket has not said `WouldBlock` since its last event.
    pub(super) readable: bool,
    pub(super) writable: bool,
    /// The machine has more to do.
    more: bool,
    /// The queue was at half of its mark or above: tell the machine when it has fallen below.
    was_full: bool,
    /// The peer has hung up while we still write.
    peer_ended: bool,
    /// Writing failed; what the peer sent before is still read.
    broken: Option<Closed>,
    timer: Option<TimerId>,
    /// Bytes that its machine has proved to deal with in time; little at first, as they may be files to make.
    read_max: usize,
    /// None as long as no limit of bandwidth was ever on.
    pub(super) limited: Option<Box<Limited>>,
}

/// How a visit ended.
#[derive(Debug)]
pub(super) enum Outcome {
    /// Waits for an event, a timer or a wake-up.
    Waits,
    /// Spent its quantum and has more to do.
    HasMore,
    /// Waits for bandwidth.
    Starved,
    Closed(Closed),
}

/// What a visit may still use.
struct Quantum {
    bytes: usize,
    until: Instant,
}

impl Quantum {
    fn is_spent(&self) -> bool {
        self.bytes == 0 || Instant::now() >= self.until
    }

    /// A quarter of the bytes or half of the time is much: who has more than that to do seldom fills the
    /// quantum, as the kernel's buffers are smaller.
    fn load(&self) -> Load {
        let half = Duration::from_micros(TURN_MICROS / 2);
        let is_bulk = self.bytes <= TURN_BYTES / 4 * 3 || Instant::now() + half >= self.until;
        if is_bulk { Load::Bulk } else { Load::Interactive }
    }
}

impl Connection {
    pub(super) fn new(stream: Stream, peer: SocketAddr, phase: Phase) -> Connection {
        Connection {
            stream,
            peer,
            phase,
            outbound: Outbound::default(),
            ask: None,
            sent: 0,
            received: 0,
            paused: false,
            // A connecting socket says when it stands; an accepted one often has bytes already.
            readable: phase == Phase::Accepted,
            writable: phase == Phase::Accepted,
            more: false,
            was_full: false,
            peer_ended: false,
            broken: None,
            timer: None,
            read_max: READ_MIN,
            limited: None,
        }
    }

    /// Sets the connection's only timer, or none.
    pub(super) fn set_timer(&mut self, id: ConnId, shared: &mut Shared, when: Option<Tick>) {
        if let Some(timer) = self.timer.take() {
            shared.timers.cancel(timer);
        }
        self.timer = when.map(|when| shared.timers.set(when, Timer::Connection(id)));
    }

    /// The timer was popped.
    pub(super) fn forget_timer(&mut self) {
        self.timer = None;
    }

    pub(super) fn takes_output(&self) -> bool {
        self.broken.is_none() && matches!(self.phase, Phase::Open) && self.ask != Some(Ask::Abort)
    }

    fn has_output(&self) -> bool {
        self.broken.is_none() && (!self.outbound.is_empty() || self.stream.has_output())
    }

    fn reads(&self) -> bool {
        let wants = match self.phase {
            Phase::Connecting | Phase::Accepted => false,
            Phase::Open => !self.paused || self.broken.is_some(),
            _ => true,
        };
        wants && self.readable && !self.peer_ended
    }

    fn produces(&self) -> bool {
        self.phase == Phase::Open && self.more && self.outbound.cost() < OUTBOUND_BYTES_MAX
    }

    fn has_work(&self) -> bool {
        self.reads() || self.produces() || self.writable && self.has_output()
    }
}

/// A connection, its machine, and what a visit works with.
pub(super) struct Visit<'a, M, H> {
    pub(super) id: ConnId,
    pub(super) connection: &'a mut Connection,
    pub(super) machine: &'a mut M,
    pub(super) shared: &'a mut Shared,
    pub(super) scratch: &'a mut Scratch,
    pub(super) handler: &'a mut H,
}

impl<M, H: Handler<M>> Visit<'_, M, H> {
    /// Visits the connection once.
    pub(super) fn run(mut self, now: Instant, is_woken: bool) -> (Outcome, Load) {
        self.connection.more |= is_woken;
        let mut quantum = Quantum {
            bytes: TURN_BYTES,
            until: now + Duration::from_micros(TURN_MICROS),
        };
        let outcome = match self.rounds(&mut quantum) {
            Ok(outcome) => outcome,
            Err(why) => {
                self.connection.stream.send_alert();
                Outcome::Closed(why)
            }
        };
        (outcome, quantum.load())
    }

    fn rounds(&mut self, quantum: &mut Quantum) -> Result<Outcome, Closed> {
        self.begin()?;
        if self.connection.phase == Phase::Connecting {
            return Ok(Outcome::Waits);
        }
        loop {
            self.obey()?;
            let mut starved = false;
            let mut moved = self.flush(quantum, &mut starved)?;
            moved |= self.receive(quantum, &mut starved)?;
            moved |= self.produce();
            self.obey()?;
            if self.part()? {
                continue;
            }
            if !self.connection.has_work() {
                return Ok(Outcome::Waits);
            }
            if !moved && starved {
                return Ok(Outcome::Starved);
            }
            if quantum.is_spent() {
                return Ok(Outcome::HasMore);
            }
        }
    }

    /// Brings the connection from TCP to the phase after it.
    fn begin(&mut self) -> Result<(), Closed> {
        let connection = &mut *self.connection;
        match connection.phase {
            Phase::Connecting if connection.writable => {
                if !is_connected(&mut connection.stream)? {
                    connection.writable = false;
                    return Ok(());
                }
                connection.readable = true;
            }
            Phase::Accepted => {}
            _ => return Ok(()),
        }
        // Without it a small message waits for the acknowledgement of the one before.
        connection.stream.socket().set_nodelay(true).map_err(Closed::Reset)?;
        leave_loopback_unpaced(connection.stream.socket());
        connection.phase = Phase::Handshaking;
        connection.stream.start()?;
        self.establish()
    }

    /// Once the handshake is over: the machine takes the lead.
    fn establish(&mut self) -> Result<(), Closed> {
        if self.connection.phase == Phase::Handshaking && !self.connection.stream.is_handshaking() {
            let peer = self.connection.stream.peer()?;
            self.connection.phase = Phase::Open;
            self.connection.set_timer(self.id, self.shared, None);
            self.call(|handler, cx, machine| handler.established(cx, machine, peer));
        }
        Ok(())
    }

    fn flush(&mut self, quantum: &mut Quantum, starved: &mut bool) -> Result<bool, Closed> {
        let connection = &mut *self.connection;
        if !connection.writable || !connection.has_output() || quantum.bytes == 0 {
            return Ok(false);
        }
        let allowed = allowed(connection, self.shared, Direction::Up);
        if allowed == 0 {
            *starved = true;
            return Ok(false);
        }
        let limit = quantum.bytes.min(allowed);
        match connection.stream.flush(&mut connection.outbound, self.scratch, limit) {
            Ok(Flow::Moved(count)) => {
                connection.sent += count as u64;
                self.shared.bytes_sent += count as u64;
                quantum.bytes = quantum.bytes.saturating_sub(count);
                moved(connection, self.shared, Direction::Up, count);
                if connection.was_full && connection.outbound.cost() < OUTBOUND_BYTES_MAX / 2 {
                    (connection.was_full, connection.more) = (false, true);
                }
                Ok(count > 0)
            }
            Ok(Flow::Blocked | Flow::End) => {
                connection.writable = false;
                Ok(false)
            }
            Err(why @ Closed::Reset(_)) if connection.phase != Phase::Lingering => {
                connection.broken = Some(why);
                connection.outbound.clear();
                connection.readable = true;
                Ok(true)
            }
            Err(why) => Err(why),
        }
    }

    fn receive(&mut self, quantum: &mut Quantum, starved: &mut bool) -> Result<bool, Closed> {
        let connection = &mut *self.connection;
        if !connection.reads() || quantum.bytes == 0 {
            return Ok(false);
        }
        let mut wanted = usize::MAX;
        if connection.phase == Phase::Open && connection.broken.is_none() {
            wanted = self.handler.may_read(self.shared, self.id, self.machine);
            if wanted == 0 {
                connection.paused = true;
                return Ok(false);
            }
        }
        let allowed = allowed(connection, self.shared, Direction::Down);
        if allowed == 0 {
            *starved = true;
            return Ok(false);
        }
        let limit = quantum.bytes.min(allowed).min(connection.read_max).min(wanted);
        match connection.stream.receive(self.scratch, limit) {
            Ok(Flow::Moved(count)) => {
                connection.received += count as u64;
                self.shared.bytes_received += count as u64;
                quantum.bytes = quantum.bytes.saturating_sub(count);
                moved(connection, self.shared, Direction::Down, count);
                self.establish()?;
                self.deliver(count);
                Ok(true)
            }
            Ok(Flow::Blocked) => {
                connection.readable = false;
                connection.broken.take().map_or(Ok(false), Err)
            }
            Ok(Flow::End) => self.end().map(|()| true),
            Err(_) if connection.phase == Phase::Lingering => Err(Closed::Local),
            Err(why) => Err(connection.broken.take().unwrap_or(why)),
        }
    }

    /// Hands over what has arrived, unless the host wants no more of it.
    fn deliver(&mut self, count: usize) {
        let connection = &mut *self.connection;
        let bytes = connection.stream.arrived(self.scratch, count);
        if connection.phase == Phase::Open && connection.ask.is_none() && !bytes.is_empty() {
            let mut cx = Context {
                id: self.id,
                connection,
                shared: self.shared,
            };
            // `bytes` lie in the scratch buffers, which the context does not reach.
            let begun = Instant::now();
            self.handler.received(&mut cx, self.machine, bytes);
            self.connection.read_max = fitting(self.connection.read_max, count, begun.elapsed());
            self.note_fullness();
        }
    }

    /// The peer sends no more.
    fn end(&mut self) -> Result<(), Closed> {
        let connection = &mut *self.connection;
        match connection.phase {
            Phase::Flushing | Phase::Parting => {
                connection.peer_ended = true;
                Ok(())
            }
            Phase::Lingering => Err(Closed::Local),
            _ => {
                // It may still read: what is queued gets one chance.
                if connection.writable && connection.has_output() {
                    let _ = connection
                        .stream
                        .flush(&mut connection.outbound, self.scratch, OUTBOUND_BYTES_MAX);
                }
                Err(Closed::Peer)
            }
        }
    }

    fn produce(&mut self) -> bool {
        if !self.connection.produces() || self.connection.ask.is_some() {
            return false;
        }
        let before = self.connection.outbound.len();
        self.connection.more = false;
        let activity = self.call(H::ready);
        self.connection.more |= activity == Activity::More;
        self.connection.more || self.connection.outbound.len() > before
    }

    /// Carries out what the host asked for in a callback.
    fn obey(&mut self) -> Result<(), Closed> {
        match self.connection.ask.take() {
            Some(Ask::Abort) => Err(Closed::Local),
            Some(Ask::CloseAfterFlush) => {
                if self.connection.phase != Phase::Open {
                    return Err(Closed::Local);
                }
                self.connection.phase = Phase::Flushing;
                let when = self.shared.now() + DRAIN_TIMEOUT_MS;
                self.connection.set_timer(self.id, self.shared, Some(when));
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Moves a closing connection on once its bytes have left; says whether there is more to do now.
    fn part(&mut self) -> Result<bool, Closed> {
        let connection = &mut *self.connection;
        match connection.phase {
            Phase::Flushing | Phase::Parting if connection.broken.is_some() => {
                Err(connection.broken.take().unwrap_or(Closed::Local))
            }
            Phase::Flushing if connection.outbound.is_empty() => {
                connection.stream.close_notify();
                connection.phase = Phase::Parting;
                Ok(true)
            }
            Phase::Parting if !connection.stream.has_output() => {
                let shut = connection.stream.socket().shutdown(Shutdown::Write);
                if connection.peer_ended || shut.is_err() {
                    return Err(Closed::Local);
                }
                connection.phase = Phase::Lingering;
                let when = self.shared.now() + LINGER_MS;
                connection.set_timer(self.id, self.shared, Some(when));
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    fn call<R>(&mut self, callback: impl FnOnce(&mut H, &mut Context<'_>, &mut M) -> R) -> R {
        let mut cx = Context {
            id: self.id,
            connection: self.connection,
            shared: self.shared,
        };
        let result = callback(self.handler, &mut cx, self.machine);
        self.note_fullness();
        result
    }

    fn note_fullness(&mut self) {
        let queued = self.connection.outbound.cost();
        self.shared.longest_queue_bytes = self.shared.longest_queue_bytes.max(queued);
        self.connection.was_full |= queued >= OUTBOUND_BYTES_MAX / 2;
    }
}

/// Bytes to read at a time from now on, after a machine `took` so long for `count` bytes. It takes all that it
/// is given, and a mebibyte may be a hundred files to make. So whatever took longer than a quantum makes the
/// next reads smaller, until they are quick again.
fn fitting(read_max: usize, count: usize, took: Duration) -> usize {
    let took_micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    if took_micros > TURN_MICROS {
        let fitting = count as u64 * TURN_MICROS / took_micros;
        return usize::try_from(fitting).map_or(TURN_BYTES, |fitting| fitting.clamp(READ_MIN, TURN_BYTES));
    }
    match took_micros < TURN_MICROS / 2 {
        true => (read_max * 2).min(TURN_BYTES),
        false => read_max,
    }
}

/// Bytes that the limits of bandwidth let a connection move now.
fn allowed(connection: &mut Connection, shared: &mut Shared, direction: Direction) -> usize {
    if shared.limits.is_off() {
        return usize::MAX;
    }
    let now_micros = shared.now_micros();
    let limited = connection.limited.get_or_insert_with(Box::default);
    shared.limits.allow(limited, direction, now_micros)
}

/// Counts what it moved.
fn moved(connection: &mut Connection, shared: &mut Shared, direction: Direction, count: usize) {
    if let Some(limited) = &mut connection.limited {
        shared.limits.take(limited, direction, count as u64);
    }
}

/// Bytes in the kernel's buffers of a connection within the machine. No packet is far from its end there, so
/// more only means that more is lost with a connection that breaks.
const LOOPBACK_BUFFER_BYTES: usize = 256 * 1024;

/// Where the machine's default paces its packets (BBR), a connection to itself gains nothing by it and
/// is slowed down: 1 GiB took 0.97 s, and 0.74 s without. Reno is always there and always allowed.
/// Connections that leave the machine keep the default.
fn leave_loopback_unpaced(socket: &mio::net::TcpStream) {
    if socket.peer_addr().is_ok_and(|peer| peer.ip().is_loopback()) {
        // A kernel that refuses is slower, nothing else.
        let _ = rustix::net::sockopt::set_tcp_congestion(socket, "reno");
        let _ = rustix::net::sockopt::set_socket_recv_buffer_size(socket, LOOPBACK_BUFFER_BYTES);
        let _ = rustix::net::sockopt::set_socket_send_buffer_size(socket, LOOPBACK_BUFFER_BYTES);
    }
}

/// Whether TCP stands; the steps are those of mio's `TcpStream::connect`.
fn is_connected(stream: &mut Stream) -> Result<bool, Closed> {
    let socket = stream.socket();
    match socket.take_error() {
        Ok(None) => {}
        Ok(Some(error)) | Err(error) => return Err(Closed::Connect(error)),
    }
    match socket.peer_addr() {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::NotConnected => Ok(false),
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => Ok(false),
        Err(error) => Err(Closed::Connect(error)),
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Connection({} {:?} {:?})", self.peer, self.phase, self.outbound)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Files of 4 KiB that take 100 µs each: reads shrink to what fits into a quantum, and never to nothing.
    #[test]
    fn reads_shrink_to_what_a_machine_deals_with_in_time_and_grow_again() {
        let took = |count: usize| Duration::from_micros(count as u64 / 4096 * 100);
        let mut read_max = TURN_BYTES;
        for _ in 0..3 {
            read_max = fitting(read_max, read_max, took(read_max));
        }
        assert!(took(read_max) <= Duration::from_micros(TURN_MICROS), "{read_max} bytes");
        assert!(read_max >= 64 * 1024, "{read_max} bytes");
        assert_eq!(fitting(read_max, 100, Duration::from_secs(1)), READ_MIN);
        for _ in 0..10 {
            read_max = fitting(read_max, read_max, Duration::from_micros(100));
        }
        assert_eq!(read_max, TURN_BYTES);
    }

    // Nine thousand idle connections lie in the slab: buffers come with bytes, and go with them.
    #[test]
    fn an_idle_connection_is_small() {
        assert!(size_of::<Connection>() <= 256, "{}", size_of::<Connection>());
        assert!(
            size_of::<Stream>() <= 64,
            "TLS has its state in a box: {}",
            size_of::<Stream>()
        );
    }
}
