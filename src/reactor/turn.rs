//! Owns the loop: one [`Reactor::turn`] waits for events once and does a bounded amount of work. It
//! never waits while work is left, and never works while none is.
//!
//! 1. Wait: not at all with work in the line, else until an event, the next timer or the time-out.
//! 2. Note what is ready; deliver signals, results of the helper thread, timers, and the host's descriptors.
//! 3. Accept, at most [`ACCEPTS_PER_TURN`].
//! 4. Visit connections that stood in line at the start, each within its quantum of bytes and time,
//!    in the order that `ready` says; who is not done goes to the end of its line.
//! 5. Carry out wishes to close.
//!
//! Invariant: results, timers, descriptors, accepting and closing end after [`SLICE_MICROS`] and one callback each,
//! the pass over the lines after 8 ms and one visit. What is left comes first in the next turn, so
//! that however much has work, nobody is later than one such turn: 15 ms, if callbacks keep to
//! their quantum.

use super::bandwidth::{Direction, LimitId};
use super::closed::Closed;
use super::connection::{Connection, Outcome, Phase, Visit};
use super::context::{Context, Shared, Timer};
use super::counters::Counters;
use super::durable::Helpers;
use super::handler::Handler;
use super::listener::{Accepted, Listeners, REST_MS};
use super::ready::Pass;
use super::signals::Signals;
use super::source::{ConnId, Slots, Source};
use super::stream::{ClientSecurity, Scratch, Security, Stream};
use crate::model::limits::{ACCEPTS_PER_TURN, CONNECTIONS_MAX, HANDSHAKE_TIMEOUT_MS};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Waker};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Microseconds for each kind of work of a turn that is not a visit. Nine thousand deadlines may pass in
/// one millisecond, and each connection that is closed for it costs ten microseconds.
const SLICE_MICROS: u64 = 1_000;
/// Bytes of the one buffer that all connections are read into. A bulk frame's worth of leaves per
/// system call, and it stays in the second-level cache until it is hashed and written.
const READ_BUFFER_BYTES: usize = 1024 * 1024;
/// Events fetched per poll.
const EVENTS_MAX: usize = 1024;

/// What a reactor is made with.
#[derive(Debug, Clone)]
pub struct ReactorOptions {
    /// Connections that may be open at a time; others are closed when they are accepted.
    pub connections_max: usize,
    /// Bytes a second over all connections, in each direction; `None` for no limit.
    pub bytes_per_second: Option<u64>,
    /// Jobs that may wait for the helper thread; 0 for no such thread.
    pub durable_queue: usize,
    /// Take SIGINT and SIGTERM as events. One reactor of a process may do so.
    pub handle_signals: bool,
    /// Milliseconds from accept or connect until TCP and TLS must stand.
    pub handshake_timeout_ms: u64,
}

impl Default for ReactorOptions {
    fn default() -> ReactorOptions {
        ReactorOptions {
            connections_max: CONNECTIONS_MAX,
            bytes_per_second: None,
            durable_queue: 1024,
            handle_signals: false,
            handshake_timeout_ms: HANDSHAKE_TIMEOUT_MS,
        }
    }
}

/// The time that one kind of work may take of a turn.
pub(super) struct Slice {
    until: Instant,
}

impl Slice {
    pub(super) fn begin() -> Slice {
        Slice {
            until: Instant::now() + Duration::from_micros(SLICE_MICROS),
        }
    }

    pub(super) fn is_over(&self) -> bool {
        Instant::now() >= self.until
    }
}

struct Slot<M> {
    connection: Connection,
    machine: M,
}

/// The poll loop: sockets, timers, signals and the helper thread, with a machine `M` of the host
/// for each connection.
pub struct Reactor<M> {
    pub(super) poll: Poll,
    events: Events,
    slots: Slots<Slot<M>>,
    listeners: Listeners,
    /// The helper thread has results that were not delivered yet.
    has_results: bool,
    signals: Option<Signals>,
    pub(super) shared: Shared,
    scratch: Scratch,
    connections_max: usize,
    handshake_timeout_ms: u64,
    counters: Counters,
}

impl<M> Reactor<M> {
    /// Makes a reactor.
    ///
    /// # Errors
    /// When the system gives no descriptors or no thread.
    pub fn new(options: &ReactorOptions) -> io::Result<Reactor<M>> {
        let poll = Poll::new()?;
        let signals = if options.handle_signals {
            Some(Signals::register(poll.registry())?)
        } else {
            None
        };
        let durable = match options.durable_queue {
            0 => None,
            capacity => {
                let waker = Arc::new(Waker::new(poll.registry(), Source::Waker.token())?);
                Some(Helpers::start(capacity, waker)?)
            }
        };
        Ok(Reactor {
            poll,
            events: Events::with_capacity(EVENTS_MAX),
            slots: Slots::new(),
            listeners: Listeners::new(),
            has_results: false,
            signals,
            shared: Shared::new(durable, options.bytes_per_second),
            scratch: Scratch::new(READ_BUFFER_BYTES),
            connections_max: options.connections_max,
            handshake_timeout_ms: options.handshake_timeout_ms,
            counters: Counters::default(),
        })
    }

    /// Listens on `address`; gives the listener's number and the address, with the port it got.
    ///
    /// # Errors
    /// What the system says: the port is in use, the address is not one of this machine, …
    pub fn listen(&mut self, address: SocketAddr, security: Security) -> io::Result<(usize, SocketAddr)> {
        self.listeners.open(self.poll.registry(), address, security)
    }

    /// Begins to connect; `established` or `closed` tells how it went.
    ///
    /// # Errors
    /// What the system says at once: no route, no descriptors, too many connections.
    pub fn connect(&mut self, address: SocketAddr, security: &ClientSecurity, machine: M) -> io::Result<ConnId> {
        if self.slots.len() >= self.connections_max {
            return Err(io::Error::other("too many connections"));
        }
        let socket = TcpStream::connect(address)?;
        let stream = Stream::connecting(socket, security).map_err(io::Error::other)?;
        self.shared.set_now(Instant::now());
        let connection = Connection::new(stream, address, Phase::Connecting);
        self.insert(connection, machine).map_err(|(_, error)| error)
    }

    /// One turn: waits at most `timeout` (never longer than the next timer; not at all with work
    /// in line), then does a bounded amount of work. Without a time-out it waits for events.
    ///
    /// # Errors
    /// When polling itself fails, which means a bug or a system out of resources.
    pub fn turn(&mut self, timeout: Option<Duration>, handler: &mut impl Handler<M>) -> io::Result<()> {
        self.wait(timeout)?;
        let begun = Instant::now();
        self.shared.set_now(begun);
        self.counters.turns += 1;
        self.note_events(handler);
        self.deliver_results(handler);
        self.fire_timers(handler);
        self.serve_foreign(handler);
        self.accept(handler);
        self.visit_ready(handler);
        self.close_requested(handler);
        let micros = micros(begun.elapsed());
        self.counters.longest_turn_micros = self.counters.longest_turn_micros.max(micros);
        self.counters.turn_times.note(micros);
        Ok(())
    }

    /// When the next turn is due even without an event: now with work in line, else at the next
    /// timer. `None` when only events can bring work.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        if self.has_work() {
            return Some(Instant::now());
        }
        self.shared.timers.next().and_then(|tick| self.shared.instant_of(tick))
    }

    /// Accepts at this listener also after [`Reactor::pause_accepting`].
    pub fn accept_always(&mut self, listener: usize) {
        self.listeners.exempt(listener);
    }

    /// Accepts nobody until [`Reactor::resume_accepting`]; peers wait in the kernel's backlog.
    pub fn pause_accepting(&mut self) {
        self.listeners.pause(true);
    }

    /// Accepts again.
    pub fn resume_accepting(&mut self) {
        self.listeners.pause(false);
    }

    /// Closes every listener; open connections go on.
    pub fn close_listeners(&mut self) {
        self.listeners.close();
    }

    /// Closes one listener; the others, and open connections, go on.
    pub fn close_listener(&mut self, index: usize) {
        self.listeners.close_one(index);
    }

    /// Open connections, in any phase.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.slots.len()
    }

    /// The ids of all open connections.
    #[must_use]
    pub fn connection_ids(&self) -> Vec<ConnId> {
        self.slots.ids()
    }

    /// Runs `action` on a connection outside of a turn; `None` when it is gone.
    pub fn with<R>(&mut self, id: ConnId, action: impl FnOnce(&mut Context<'_>, &mut M) -> R) -> Option<R> {
        let slot = self.slots.get_mut(id)?;
        self.shared.set_now(Instant::now());
        self.shared.ready.push(id);
        let mut cx = Context {
            id,
            connection: &mut slot.connection,
            shared: &mut self.shared,
        };
        Some(action(&mut cx, &mut slot.machine))
    }

    /// What does not depend on a connection: timers, jobs, wake-ups.
    pub fn shared(&mut self) -> &mut Shared {
        self.shared.set_now(Instant::now());
        &mut self.shared
    }

    /// Whether [`Shared::stop`] was called.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.shared.stopping
    }

    /// Figures for a host's metrics.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let lines = self.shared.ready.lengths();
        Counters {
            longest_queue_bytes: self.shared.longest_queue_bytes,
            interactive_line: lines.interactive,
            interactive_line_longest: lines.interactive_longest,
            bulk_line: lines.bulk,
            bulk_line_longest: lines.bulk_longest,
            bytes_sent: self.shared.bytes_sent,
            bytes_received: self.shared.bytes_received,
            helper_queue: self.shared.helper().queue,
            helper_jobs: self.shared.helper().jobs,
            helper_busy_micros: self.shared.helper().busy_micros,
            ..self.counters
        }
    }

    fn has_work(&self) -> bool {
        self.shared.ready.len() > 0
            || !self.shared.to_close.is_empty()
            || self.has_results
            || self.shared.closing_listeners
            || self.shared.foreign.has_work()
            || self.listeners.any_ready()
    }

    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        let until_deadline = self
            .next_deadline()
            .map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let timeout = match (timeout, until_deadline) {
            (Some(timeout), Some(deadline)) => Some(timeout.min(deadline)),
            (timeout, deadline) => timeout.or(deadline),
        };
        match self.poll.poll(&mut self.events, timeout) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                self.events.clear();
                Ok(())
            }
            other => other,
        }
    }

    fn note_events(&mut self, handler: &mut impl Handler<M>) {
        let mut has_signals = false;
        for event in &self.events {
            match Source::of(event.token()) {
                Source::Waker => self.has_results = true,
                Source::Signals => has_signals = true,
                Source::Listener(index) => self.listeners.note(index),
                Source::Foreign(index) => self.shared.foreign.note(index),
                Source::Connection { index, generation_low } => {
                    let Some((id, slot)) = self.slots.find(index, generation_low) else {
                        continue;
                    };
                    let is_over = event.is_error() || event.is_read_closed() && event.is_write_closed();
                    slot.connection.readable |= event.is_readable() || event.is_read_closed() || is_over;
                    slot.connection.writable |= event.is_writable() || is_over;
                    self.shared.ready.push(id);
                }
            }
        }
        if has_signals && let Some(signals) = &mut self.signals {
            for signal in signals.pending() {
                handler.signal(&mut self.shared, signal);
            }
        }
    }

    fn deliver_results(&mut self, handler: &mut impl Handler<M>) {
        let slice = Slice::begin();
        while self.has_results {
            match self.shared.poll_durable() {
                Some((ticket, result)) => handler.durable(&mut self.shared, ticket, result),
                None => self.has_results = false,
            }
            if slice.is_over() {
                return;
            }
        }
    }

    fn fire_timers(&mut self, handler: &mut impl Handler<M>) {
        let now = self.shared.now();
        self.shared.timers.advance(now);
        let slice = Slice::begin();
        // Not more than are due at the start: a callback may set the next one for now.
        for _ in 0..self.shared.timers.due() {
            match self.shared.timers.pop() {
                Some(Timer::Connection(id)) => self.fire_deadline(id, handler),
                Some(Timer::Host(key)) => {
                    self.shared.forget_host_timer(key);
                    handler.timer(&mut self.shared, key);
                }
                Some(Timer::Listener(index)) => self.listeners.rested(index),
                Some(Timer::Bandwidth(limit, direction)) => self.release(limit, direction),
                None => return,
            }
            if slice.is_over() {
                return;
            }
        }
    }

    pub(super) fn fire_deadline(&mut self, id: ConnId, handler: &mut impl Handler<M>) {
        let Some(slot) = self.slots.get_mut(id) else {
            return;
        };
        slot.connection.forget_timer();
        match slot.connection.phase {
            Phase::Open => {
                self.shared.ready.push(id);
                let mut cx = Context {
                    id,
                    connection: &mut slot.connection,
                    shared: &mut self.shared,
                };
                handler.deadline(&mut cx, &mut slot.machine);
            }
            Phase::Connecting | Phase::Accepted | Phase::Handshaking => {
                self.finish(id, Closed::HandshakeTimeout, handler);
            }
            Phase::Flushing | Phase::Parting | Phase::Lingering => {
                self.finish(id, Closed::Local, handler);
            }
        }
    }

    fn accept(&mut self, handler: &mut impl Handler<M>) {
        let mut left = ACCEPTS_PER_TURN;
        let slice = Slice::begin();
        for index in 0..self.listeners.len() {
            while left > 0 && self.listeners.is_ready(index) && !self.is_making_room() {
                left -= 1;
                match self.listeners.accept(index, left) {
                    Accepted::Stream(socket, peer) => self.admit(index, socket, peer, handler),
                    Accepted::Skipped => {}
                    Accepted::Nobody => break,
                    Accepted::Exhausted { dropped } => {
                        log::warn!("out of descriptors or memory: turned {dropped} connections away");
                        self.counters.turned_away += dropped as u64;
                        let when = self.shared.now() + REST_MS;
                        self.shared.timers.set(when, Timer::Listener(index));
                        left = left.saturating_sub(dropped);
                    }
                }
                if slice.is_over() {
                    return;
                }
            }
        }
    }

    /// Whether there is room for others only when those are gone who are to be closed: until then whoever comes waits
    /// in the kernel's backlog.
    fn is_making_room(&self) -> bool {
        self.slots.len() >= self.connections_max && !self.shared.to_close.is_empty()
    }

    fn admit(&mut self, index: usize, socket: TcpStream, peer: SocketAddr, handler: &mut impl Handler<M>) {
        if self.slots.len() >= self.connections_max {
            self.counters.turned_away += 1;
            return;
        }
        let id = self.slots.next_id();
        let Some(machine) = handler.accepted(&mut self.shared, index, id, peer) else {
            self.counters.turned_away += 1;
            return;
        };
        let stream = match Stream::accepted(socket, self.listeners.security(index)) {
            Ok(stream) => stream,
            Err(why) => return handler.closed(&mut self.shared, id, machine, why),
        };
        match self.insert(Connection::new(stream, peer, Phase::Accepted), machine) {
            Ok(_) => self.counters.accepted += 1,
            Err((machine, error)) => {
                handler.closed(&mut self.shared, id, machine, Closed::Connect(error));
            }
        }
    }

    /// Puts a connection into a slot, under the reactor's own deadline for the handshake.
    fn insert(&mut self, mut connection: Connection, machine: M) -> Result<ConnId, (M, io::Error)> {
        let id = self.slots.next_id();
        let interest = Interest::READABLE | Interest::WRITABLE;
        if let Err(error) = self
            .poll
            .registry()
            .register(connection.stream.socket(), id.token(), interest)
        {
            return Err((machine, error));
        }
        self.shared.ready.open(id);
        self.shared.ready.push(id);
        let deadline = self.shared.now() + self.handshake_timeout_ms;
        connection.set_timer(id, &mut self.shared, Some(deadline));
        let inserted = self.slots.insert(Slot { connection, machine });
        debug_assert_eq!(inserted, id);
        Ok(id)
    }

    fn visit_ready(&mut self, handler: &mut impl Handler<M>) {
        let begun = Instant::now();
        let mut now = begun;
        let mut pass = Pass::begin(&self.shared.ready);
        loop {
            let elapsed = micros(now.duration_since(begun));
            let Some((id, is_woken)) = pass.next(&mut self.shared.ready, elapsed) else {
                return;
            };
            self.visit(id, is_woken, now, handler);
            now = Instant::now();
            self.shared.set_now(now);
        }
    }

    fn visit(&mut self, id: ConnId, is_woken: bool, now: Instant, handler: &mut impl Handler<M>) {
        let Some(slot) = self.slots.get_mut(id) else {
            return;
        };
        self.counters.visits += 1;
        let visit = Visit {
            id,
            connection: &mut slot.connection,
            machine: &mut slot.machine,
            shared: &mut self.shared,
            scratch: &mut self.scratch,
            handler,
        };
        let (outcome, load) = visit.run(now, is_woken);
        self.shared.ready.note(id, load);
        if let Some(limited) = &mut slot.connection.limited {
            let now = self.shared.now_micros();
            let Shared { limits, timers, .. } = &mut self.shared;
            limits.settle(id, limited, matches!(outcome, Outcome::Starved), now, timers);
        }
        match outcome {
            Outcome::Waits | Outcome::Starved => {}
            Outcome::HasMore => self.shared.ready.push(id),
            Outcome::Closed(why) => self.finish(id, why, handler),
        }
    }

    /// Lets those go on that a limit of bandwidth has something for.
    fn release(&mut self, limit: LimitId, direction: Direction) {
        let (now, slots) = (self.shared.now_micros(), &mut self.slots);
        let Shared {
            limits, timers, ready, ..
        } = &mut self.shared;
        limits.release((limit, direction), now, timers, |id, goes_on| {
            let Some(slot) = slots.get_mut(id) else {
                return false;
            };
            ready.push(id);
            slot.connection.limited.as_deref_mut().map(goes_on);
            true
        });
    }

    fn close_requested(&mut self, handler: &mut impl Handler<M>) {
        let slice = Slice::begin();
        while let Some(id) = self.shared.to_close.pop_front() {
            self.finish(id, Closed::Local, handler);
            if slice.is_over() {
                break;
            }
        }
        if std::mem::take(&mut self.shared.closing_listeners) {
            self.close_listeners();
        }
    }

    /// Removes a connection and tells the host.
    fn finish(&mut self, id: ConnId, why: Closed, handler: &mut impl Handler<M>) {
        let Some(Slot {
            mut connection,
            machine,
        }) = self.slots.remove(id)
        else {
            return;
        };
        connection.set_timer(id, &mut self.shared, None);
        self.shared.ready.close(id);
        if let Some(mut limited) = connection.limited.take() {
            self.shared
                .limits
                .forget(&mut limited, |other| self.slots.contains(other));
        }
        drop(connection);
        handler.closed(&mut self.shared, id, machine, why);
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

impl<M> AsFd for Reactor<M> {
    /// The poll's descriptor: readable when an event waits. A host that polls it also has to run a
    /// turn at [`Reactor::next_deadline`].
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.poll.registry().as_fd()
    }
}

impl<M> AsRawFd for Reactor<M> {
    fn as_raw_fd(&self) -> RawFd {
        self.poll.as_raw_fd()
    }
}

impl<M> std::fmt::Debug for Reactor<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Reactor({} connections, {:?})", self.slots.len(), self.counters)
    }
}
