//! Owns what a host may ask for from inside a callback: [`Shared`] for the loop, [`Context`] for one
//! connection. It never does I/O; wishes are carried out after the callback.
//!
//! Invariant: a wish about a connection that is gone has no effect.

use super::bandwidth::{Direction, LimitId, Limited, Limits};
use super::connection::{Ask, Connection, Phase};
use super::durable::{HelperFigures, Helpers, Job};
use super::foreign::Foreign;
use super::ready::Ready;
use super::source::ConnId;
use super::timers::{TimerId, Timers};
use crate::model::limits::OUTBOUND_BYTES_MAX;
use crate::model::{SharedBytes, Tick};
use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::ops::{Deref, DerefMut, Range};
use std::time::{Duration, Instant};

/// What a timer of the wheel is for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Timer {
    Connection(ConnId),
    Host(u64),
    Listener(usize),
    Bandwidth(LimitId, Direction),
}

/// The part of the reactor that does not depend on a single connection.
#[derive(Debug)]
pub struct Shared {
    started: Instant,
    now: Instant,
    pub(super) ready: Ready,
    pub(super) timers: Timers<Timer>,
    host_timers: HashMap<u64, TimerId>,
    durable: Option<Helpers>,
    pub(super) limits: Limits,
    pub(super) foreign: Foreign,
    pub(super) to_close: VecDeque<ConnId>,
    pub(super) stopping: bool,
    pub(super) closing_listeners: bool,
    pub(super) longest_queue_bytes: usize,
    pub(super) bytes_sent: u64,
    pub(super) bytes_received: u64,
}

impl Shared {
    pub(super) fn new(durable: Option<Helpers>, bytes_per_second: Option<u64>) -> Shared {
        let started = Instant::now();
        Shared {
            started,
            now: started,
            ready: Ready::default(),
            timers: Timers::new(),
            host_timers: HashMap::new(),
            durable,
            limits: Limits::new(bytes_per_second),
            foreign: Foreign::default(),
            to_close: VecDeque::new(),
            stopping: false,
            closing_listeners: false,
            longest_queue_bytes: 0,
            bytes_sent: 0,
            bytes_received: 0,
        }
    }

    /// The loop's time: milliseconds since it was made. It stands still within a callback.
    #[must_use]
    pub fn now(&self) -> Tick {
        Tick(u64::try_from(self.now.duration_since(self.started).as_millis()).unwrap_or(u64::MAX))
    }

    /// Has [`Handler::ready`](super::Handler::ready) called for a connection soon.
    pub fn wake(&mut self, id: ConnId) {
        self.ready.wake(id);
    }

    /// Has [`Handler::watched`](super::Handler::watched) called for a descriptor of the host soon; nothing happens when
    /// there is none of that key.
    pub fn wake_foreign(&mut self, key: u64) {
        self.foreign.wake(key);
    }

    /// Has [`Handler::timer`](super::Handler::timer) called with `key` at `when` or shortly after.
    /// Replaces an earlier timer of that key.
    pub fn set_timer(&mut self, key: u64, when: Tick) {
        let timer = self.timers.set(when, Timer::Host(key));
        if let Some(replaced) = self.host_timers.insert(key, timer) {
            self.timers.cancel(replaced);
        }
    }

    /// Takes back a timer; nothing happens when there is none of that key.
    pub fn cancel_timer(&mut self, key: u64) {
        if let Some(timer) = self.host_timers.remove(&key) {
            self.timers.cancel(timer);
        }
    }

    /// Hands a job to the helper thread; [`Handler::durable`](super::Handler::durable) gets its
    /// result with the ticket.
    ///
    /// # Errors
    /// Gives the job back when the queue is full (try again after the next result), or when the
    /// reactor was made without a helper thread.
    pub fn submit(&mut self, ticket: u64, job: Job) -> Result<(), Job> {
        match &self.durable {
            Some(durable) => durable.submit(ticket, job),
            None => Err(job),
        }
    }

    /// As [`Shared::submit`], of a job that may take as long as a disk needs for gigabytes: it holds up only its
    /// like.
    ///
    /// # Errors
    /// As there.
    pub fn submit_bulk(&mut self, ticket: u64, job: Job) -> Result<(), Job> {
        match &self.durable {
            Some(durable) => durable.submit_bulk(ticket, job),
            None => Err(job),
        }
    }

    /// Closes a connection at once, without sending what is queued;
    /// [`Handler::closed`](super::Handler::closed) is called at the end of this turn, or of the next ones if
    /// there are many.
    pub fn close(&mut self, id: ConnId) {
        self.to_close.push_back(id);
    }

    /// Closes every listener at the end of the turn; open connections go on.
    pub fn close_listeners(&mut self) {
        self.closing_listeners = true;
    }

    /// Marks the reactor as stopped: [`Reactor::is_stopped`](super::Reactor::is_stopped) says so.
    pub fn stop(&mut self) {
        self.stopping = true;
    }

    /// Makes one more limit of bandwidth, of so many bytes a second in each direction; `None` is off. It
    /// concerns the connections for which it is chosen with [`Context::limit`].
    pub fn add_limit(&mut self, bytes_per_second: Option<u64>) -> LimitId {
        let now = self.now_micros();
        self.limits.add(bytes_per_second, now)
    }

    /// Changes a limit from now on, also for those that wait for it.
    pub fn set_limit(&mut self, limit: LimitId, bytes_per_second: Option<u64>) {
        let now = self.now_micros();
        self.limits.set(limit, bytes_per_second, now, &mut self.timers);
    }

    pub(super) fn set_now(&mut self, now: Instant) {
        self.now = now;
    }

    pub(super) fn now_micros(&self) -> u64 {
        u64::try_from(self.now.duration_since(self.started).as_micros()).unwrap_or(u64::MAX)
    }

    pub(super) fn instant_of(&self, tick: Tick) -> Option<Instant> {
        self.started.checked_add(Duration::from_millis(tick.0))
    }

    pub(super) fn helper(&self) -> HelperFigures {
        self.durable
            .as_ref()
            .map_or_else(HelperFigures::default, Helpers::figures)
    }

    pub(super) fn poll_durable(&self) -> Option<(u64, std::io::Result<()>)> {
        self.durable.as_ref()?.poll_result()
    }

    pub(super) fn forget_host_timer(&mut self, key: u64) {
        self.host_timers.remove(&key);
    }
}

/// One connection, as its machine's callbacks see it; everything of [`Shared`] too.
#[derive(Debug)]
pub struct Context<'a> {
    pub(super) id: ConnId,
    pub(super) connection: &'a mut Connection,
    pub(super) shared: &'a mut Shared,
}

impl Deref for Context<'_> {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        self.shared
    }
}

impl DerefMut for Context<'_> {
    fn deref_mut(&mut self) -> &mut Shared {
        self.shared
    }
}

impl Context<'_> {
    /// Which connection this is.
    #[must_use]
    pub fn id(&self) -> ConnId {
        self.id
    }

    /// Queues a copy of `bytes`; small pieces are joined.
    pub fn send(&mut self, bytes: &[u8]) {
        if self.connection.takes_output() {
            self.connection.outbound.push(bytes);
        }
    }

    /// Queues `bytes` without copying them, unless they are few.
    pub fn send_owned(&mut self, bytes: Vec<u8>) {
        if self.connection.takes_output() {
            self.connection.outbound.push_owned(bytes);
        }
    }

    /// Queues `range` of `bytes` without copying it; plain connections write it straight from there.
    ///
    /// # Panics
    /// When `range` does not lie within `bytes`.
    pub fn send_shared(&mut self, bytes: SharedBytes, range: Range<usize>) {
        if self.connection.takes_output() {
            self.connection.outbound.push_shared(bytes, range);
        }
    }

    /// Bytes that are queued and have not left.
    #[must_use]
    pub fn outbound_bytes(&self) -> usize {
        self.connection.outbound.len()
    }

    /// Bytes of memory that the queue takes, about, and what TLS has of records that are not complete or have not left.
    #[must_use]
    pub fn buffered_bytes(&self) -> usize {
        self.connection.outbound.cost() + self.connection.stream.held_bytes()
    }

    /// Bytes until the queue is at its mark, [`OUTBOUND_BYTES_MAX`]. At 0 nothing more should be
    /// produced; `ready` is called when the queue has fallen below half of the mark.
    #[must_use]
    pub fn room(&self) -> usize {
        OUTBOUND_BYTES_MAX.saturating_sub(self.connection.outbound.cost())
    }

    /// Has [`Handler::deadline`](super::Handler::deadline) called at `when`, instead of any earlier
    /// choice; `None` for never. Without effect once the connection is being closed.
    pub fn set_deadline(&mut self, when: Option<Tick>) {
        if self.connection.phase == Phase::Open {
            self.connection.set_timer(self.id, self.shared, when);
        }
    }

    /// Sends what is queued, says goodbye, then closes. No callback follows but `closed`.
    pub fn close_after_flush(&mut self) {
        self.connection.ask.get_or_insert(Ask::CloseAfterFlush);
    }

    /// Closes at once after this callback; what is queued is dropped.
    pub fn abort(&mut self) {
        self.connection.ask = Some(Ask::Abort);
    }

    /// Reads no more until [`Context::resume_reading`]; the peer's bytes stay in the kernel, which
    /// makes the peer wait. Its hanging up goes unnoticed meanwhile.
    pub fn pause_reading(&mut self) {
        self.connection.paused = true;
    }

    /// Whether [`Context::pause_reading`] holds.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.connection.paused
    }

    /// Reads again.
    pub fn resume_reading(&mut self) {
        self.connection.paused = false;
        self.shared.ready.push(self.id);
    }

    /// Puts the connection under these limits, the narrowest first and at most three, besides
    /// [`LimitId::GLOBAL`] under which all are. Replaces an earlier choice.
    pub fn limit(&mut self, limits: &[LimitId]) {
        if limits.is_empty() && self.connection.limited.is_none() {
            return;
        }
        let limited = self.connection.limited.get_or_insert_with(Box::<Limited>::default);
        self.shared.limits.replace(limited, limits);
    }

    /// Raw TCP payload bytes sent so far, TLS included.
    #[must_use]
    pub fn bytes_sent(&self) -> u64 {
        self.connection.sent
    }

    /// Raw TCP payload bytes received so far, TLS included.
    #[must_use]
    pub fn bytes_received(&self) -> u64 {
        self.connection.received
    }

    /// Whether a limit of bandwidth let the connection wait since this was last asked.
    pub fn was_held_up(&mut self) -> bool {
        self.connection
            .limited
            .as_mut()
            .is_some_and(|limited| limited.was_held_up())
    }

    /// Where the peer is.
    #[must_use]
    pub fn peer_addr(&self) -> SocketAddr {
        self.connection.peer
    }

    /// Whether the bytes travel under TLS.
    #[must_use]
    pub fn is_secure(&self) -> bool {
        self.connection.stream.is_secure()
    }
}
