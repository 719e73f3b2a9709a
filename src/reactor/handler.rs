//! Owns the interface between the loop and its host. It never does anything by itself.
//!
//! Invariant: for a connection the calls come in this order: `accepted` (or the host's `connect`),
//! `established` at most once, then the others, and `closed` exactly once as the last.

use super::closed::Closed;
use super::context::{Context, Shared};
use super::source::ConnId;
use crate::model::DeviceId;
use std::io;
use std::net::SocketAddr;

/// Whether a machine has more to do at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activity {
    /// Visit it again: it stays in the line of ready connections.
    More,
    /// Nothing until it is woken, bytes arrive, its queue empties or its deadline comes.
    Idle,
}

/// What a host does with events; `M` is its machine for one connection, kept beside the stream.
///
/// Callbacks run on the loop's thread and must not block. None of them may run the reactor.
pub trait Handler<M> {
    /// Somebody connected to listener `listener`: the machine for it, or `None` to close at once.
    fn accepted(&mut self, shared: &mut Shared, listener: usize, id: ConnId, peer: SocketAddr) -> Option<M>;

    /// The connection stands; with TLS, `peer` has proved to hold that device's key.
    fn established(&mut self, cx: &mut Context<'_>, machine: &mut M, peer: Option<DeviceId>);

    /// Bytes can be read, and [`Handler::received`] would have to take them: at most so many. 0 leaves them in
    /// the kernel and pauses reading until [`Context::resume_reading`].
    fn may_read(&mut self, _shared: &mut Shared, _id: ConnId, _machine: &mut M) -> usize {
        usize::MAX
    }

    /// Bytes arrived. All of them have to be taken; the slice is the loop's shared buffer.
    fn received(&mut self, cx: &mut Context<'_>, machine: &mut M, bytes: &[u8]);

    /// Woken, or the queue has fallen below half of its mark: produce or step a bounded amount.
    fn ready(&mut self, cx: &mut Context<'_>, machine: &mut M) -> Activity;

    /// The connection's deadline has passed.
    fn deadline(&mut self, cx: &mut Context<'_>, machine: &mut M);

    /// The connection is gone; its id means nothing any more.
    fn closed(&mut self, shared: &mut Shared, id: ConnId, machine: M, why: Closed);

    /// The helper thread has done a job (or failed to).
    fn durable(&mut self, shared: &mut Shared, ticket: u64, result: io::Result<()>);

    /// SIGINT or SIGTERM was received.
    fn signal(&mut self, shared: &mut Shared, signal: i32);

    /// The host's timer `key` has fired.
    fn timer(&mut self, shared: &mut Shared, key: u64);

    /// The host's descriptor `key` can be read, or [`Shared::wake_foreign`] was called: do a bounded amount of what
    /// there is to do. After [`Activity::Idle`] it is not called before something new arrives, so that the descriptor
    /// has to be read until there is nothing.
    fn watched(&mut self, _shared: &mut Shared, _key: u64) -> Activity {
        Activity::Idle
    }
}
