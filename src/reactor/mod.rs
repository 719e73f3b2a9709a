//! The poll loop: sockets (plain, TLS), timers, bandwidth, signals and the helper thread.
//!
//! Layer 2, and the only code that names mio. It moves bytes and tells the time; what the bytes mean
//! is up to the host's machines, which it drives through [`Handler`].

mod bandwidth;
mod closed;
mod connection;
mod context;
mod counters;
mod durable;
mod foreign;
mod handler;
#[cfg(feature = "tls")]
mod identity;
mod listener;
mod outbound;
mod ready;
mod signals;
mod source;
mod stream;
#[cfg(test)]
mod tests;
mod throttle;
mod timers;
#[cfg(feature = "tls")]
mod tls;
mod turn;
mod turn_times;

pub use bandwidth::LimitId;
pub use closed::Closed;
pub use context::{Context, Shared};
pub use counters::Counters;
pub use durable::Job;
pub use handler::{Activity, Handler};
#[cfg(feature = "tls")]
pub use identity::{Identity, IdentityError};
pub use source::ConnId;
pub use stream::{ClientSecurity, Security};
pub use timers::{TimerId, Timers};
pub use turn::{Reactor, ReactorOptions};
pub use turn_times::{TURN_BOUNDS_MICROS, TurnTimes};
